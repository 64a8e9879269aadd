/* What the files of the scheduler share: scheduler.c (requests, results), scheduler_pages.c (which pages a request has), scheduler_steps.c (what goes into a step). */
#ifndef WL_COORDINATOR_SCHEDULER_PRIVATE_H
#define WL_COORDINATOR_SCHEDULER_PRIVATE_H

#include "draft_policy.h"
#include "page_pool.h"
#include "scheduler.h"
#include "step_cost.h"

enum { SCHEDULER_MAX_GUESSES = 15 }; /* a step */

struct wl_request {
    wl_request *next; /* in order of arrival */
    wl_request_options options;
    int32_t *tokens;   /* [n_prompt + max_tokens] prompt, then generated */
    uint32_t *history; /* the same tokens as wl_history_entry; NULL where no draw looks at them */
    double mirostat_mu;
    size_t n_known, n_sent, n_returned; /* tokens[n_known..n_sent) are guesses under way */
    uint64_t generation;                /* raised whenever guesses under way turn out wrong */
    wl_speculation *speculation;        /* NULL: none */
    wl_draft_stream *drafted;           /* what the draft model knows of it; NULL: none */
    bool by_draft;                      /* guesses are the draft model's; else those of `speculation` */
    size_t n_guesses;                   /* that the step being built gives it */
    uint64_t last_step;                 /* the id of the newest one that carries it */
    size_t chunk;                       /* rows of its prompt a step; 0: not yet chosen */
    uint32_t *pages;                    /* [n_pages] that it holds; room for all it may ever need */
    uint32_t n_pages;
    uint32_t n_shared;       /* of its first pages: they are in the pool's tree, computed */
    uint32_t copied_page;    /* held: what its next step copies to the page that it begins in; WL_NO_PAGE: nothing */
    uint32_t awaited_page;   /* not admitted: another request is computing what this one needs next, ... */
    uint64_t awaited_serial; /* under this number; 0: nothing is awaited */
    bool began;              /* it has been admitted once */
    bool admitted;           /* it has pages for all known tokens */
};

typedef struct entry {   /* a request's part in a step */
    wl_request *request; /* NULL once the request has ended */
    size_t first_position, n_rows;
    size_t first_raw, n_raw; /* rows of logits it gets back */
    size_t n_draws;          /* its last rows draw a token each */
    uint64_t generation;     /* of the request; another one since: it is stale */
} entry;

typedef struct flight { /* a step under way */
    struct flight *next;
    uint64_t id, sent_ns;
    entry *entries;
    size_t n_entries, n_rows, n_picks;
    bool decodes; /* some entry generates */
    bool cancelled;
} flight;

struct wl_scheduler {
    wl_cluster *cluster;
    wl_scheduler_options options;
    wl_request *requests;
    size_t n_active;
    flight *flights, **flights_end;
    uint32_t n_flights;
    uint64_t next_id;
    wl_page_pool *pages;
    uint32_t n_stages, n_parallel; /* stages; those of them that can compute at once */
    wl_step_cost *cost;
    wl_step_times *times;
    wl_draft_policy draft_policy;
    uint32_t n_local_threads; /* of stages on this machine; known with a draft model only */
    uint64_t n_drawn, n_drafted, n_accepted, n_preempted;
    uint64_t n_drafted_by_model, n_accepted_by_model;
    uint64_t n_prompt_tokens, n_cached_tokens, n_copied_pages;
};

void scheduler_set_token (wl_request *r, size_t position, int32_t token);

/* -- pages (scheduler_pages.c) -------------------------------------------------------------------------------------------------------------- */

/* Has `r` hold `n` pages, the further ones for new contents. False when there are too few. */
bool scheduler_take_pages (wl_scheduler *s, wl_request *r, uint32_t n);
/* Lets go of all pages; what is computed stays to be found. */
void scheduler_give_back_pages (wl_scheduler *s, wl_request *r);

typedef enum begin_result { BEGIN_DONE, BEGIN_WAITS, BEGIN_NO_ROOM } begin_result;
/* Gives `r` pages for its known tokens, those that hold its beginning already among them, so that it starts behind that; leaves `n_spare` pages for others. BEGIN_WAITS: another
 * request is about to compute more of its beginning. */
begin_result scheduler_begin (wl_scheduler *s, wl_request *r, uint32_t n_spare);
/* The step that copies copied_page is on its way: whoever writes to that page from now on does so after. */
void scheduler_copied (wl_scheduler *s, wl_request *r);
/* More of what `r` has sent has come back: pages of it that are complete can be found from now on. */
void scheduler_share_pages (wl_scheduler *s, wl_request *r);

/* -- the draft model (scheduler_draft.c); without one all but _start do nothing ------------------------------------------------------------------------- */

void scheduler_draft_start (wl_scheduler *s);
/* `r` is one of the scheduler's from now on. */
bool scheduler_draft_open (wl_scheduler *s, wl_request *r, wl_error *err);
/* Tells the draft model what is known of `r`. */
void scheduler_draft_know (wl_scheduler *s, const wl_request *r);
/* n_drawn more tokens came: decides who guesses from now on. */
void scheduler_draft_turn (wl_scheduler *s, uint64_t n_drawn);
/* `r` has begun to generate, and all but its last known token are in the KV cache, or on their way there. */
bool scheduler_is_decoding (const wl_request *r);

/* Sends one step if there is anything to send; *sent tells. */
bool scheduler_send_step (wl_scheduler *s, bool *sent, wl_error *err);

#endif
