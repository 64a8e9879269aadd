/* Requests over the pipeline.
 *
 * Holds the requests under way, hands out KV pages, and turns them into steps: decode rows of several sequences first, then chunks of prompts, with at
 * least as many steps in flight as there are stages. Requests join and leave between steps; what shares a step never changes a result.
 *
 * A request is its tokens: positions below n_sent are in the KV cache (or on their way to it), tokens beyond are still to be sent. A step carries
 * some of them; if it carries the last known one, the last stage draws the next.
 *
 * With speculation, guesses follow the known tokens, as further rows of a step or, where stages would be idle, as further steps. Each of their rows draws too: the
 * random number depends on seed and position alone, so where a guess equals the token drawn before it, the row it stood in has drawn what would have been drawn anyway. At
 * the first that does not, what is under way beyond is stale: its results are dropped, stages skip it if they have not begun, and the true tokens go out at the same
 * positions, over the same KV. What the stale rows left further on is never read, since a row reads no position beyond its own.
 *
 * Guesses come from the request's own text (speculation.h) or, while that pays (draft_policy.h), from a draft model (draft_model.h), whose thread wakes a waiting
 * wl_scheduler_turn through the cluster when it has some. Which of them guesses for a request changes only while no guess of it is under way.
 *
 * A request takes the KV pages of the longest beginning that an earlier one has computed and whose memory nobody has wanted since (page_pool.h), and computes only the rest: at least
 * its last token, and every position whose logits are wanted. Where another request is about to compute more of the same beginning, it waits for that. Where it parts from another
 * one inside a page, it has the stages copy that page first.
 *
 * Thread: one; callbacks run inside wl_scheduler_turn. */
#ifndef WL_COORDINATOR_SCHEDULER_H
#define WL_COORDINATOR_SCHEDULER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cluster.h"
#include "draft_model.h"
#include "engine/text/sampler.h"
#include "speculation.h"
#include "step_times.h"

typedef struct wl_scheduler wl_scheduler;
typedef struct wl_request wl_request;

typedef struct wl_request_options {
    const int32_t *prompt; /* copied */
    size_t n_prompt;       /* at least 1 */
    size_t max_tokens;     /* 0: nothing is generated (score) */
    wl_sampling sampling;  /* its lists are borrowed until the request ends */
    const bool
        *breakers; /* [n_breakers] whether the token of this id breaks sequences for DRY; borrowed; may be NULL */
    size_t n_breakers;
    bool raw_logits;  /* prompt positions' logits go to on_logits */
    size_t first_raw; /* from this position on */

    void *context;
    /* A token came; return false to end the request after it. */
    bool (*on_token) (void *context, const wl_sample *sample);
    void (*on_logits) (void *context, size_t position, const float *logits);
    /* It begins, and the K and V of its first n_tokens are there already. Once; may be NULL. */
    void (*on_begin) (void *context, size_t n_tokens);
    /* Prompt positions whose results are back, for progress; may be NULL. */
    void (*on_prefill) (void *context, size_t done, size_t total);
} wl_request_options;

typedef struct wl_scheduler_options {
    uint32_t n_pages;        /* KV pages of the cluster */
    uint32_t max_rows;       /* rows of a step */
    uint32_t max_logit_rows; /* rows with logits a step */
    uint32_t chunk; /* rows of a prompt a step, at most max_rows; 0: chosen by its length and what steps cost */
    wl_speculation_kind speculation;
    wl_draft_model *draft; /* for WL_SPECULATION_DRAFT: started, borrowed, closed after the scheduler is; else NULL */
    bool draft_always;     /* it guesses even where that does not pay */
    bool no_prefix_cache;  /* every request computes all of its tokens */
    const char *trace;     /* a file for the trace of all steps; NULL: none */
} wl_scheduler_options;

/* `cluster` is borrowed. */
wl_scheduler *wl_scheduler_new (wl_cluster *cluster, const wl_scheduler_options *options, wl_error *err);
void wl_scheduler_free (wl_scheduler **scheduler);

/* Adds a request; it waits until pages for its prompt are free. More are taken as it grows; when there are none, whichever request came last gives up its pages, waits, and
 * is computed again from its tokens. WL_ERROR_USAGE when it could never fit alone. The handle stays valid until the
 * request ends (its last callback) or is cancelled. */
wl_request *wl_scheduler_add (wl_scheduler *scheduler, const wl_request_options *options, wl_error *err);
/* Ends a request now; others can have its pages at once, since steps run in order. Stages that have not begun a step skip it when it has rows of ended requests alone; in a step that
 * it shares, its rows are computed and what comes back of them is dropped. */
void wl_scheduler_cancel (wl_scheduler *scheduler, wl_request *request);

/* Requests not yet ended. */
size_t wl_scheduler_active (const wl_scheduler *scheduler);

/* Sends what can be sent, then handles one result, waiting up to timeout_ms for it. False on a failure of the cluster. */
bool wl_scheduler_turn (wl_scheduler *scheduler, int timeout_ms, wl_error *err);

/* Guesses sent, and those that came true, of all requests. */
void wl_scheduler_speculation (const wl_scheduler *scheduler, uint64_t *drafted, uint64_t *accepted);

typedef struct wl_draft_use {   /* of the draft model; all 0 without one */
    uint64_t drafted, accepted; /* of the guesses above, its own: the others came from repetitions */
    bool is_on;                 /* now */
    uint32_t n_tries, n_failed; /* how often it was tried, and given up because it did not pay */
} wl_draft_use;
wl_draft_use wl_scheduler_draft_use (const wl_scheduler *scheduler);

/* How often a request gave up its pages to another. */
uint64_t wl_scheduler_preempted (const wl_scheduler *scheduler);

typedef struct wl_prefix_counts {
    uint64_t prompt_tokens; /* of all requests that have begun */
    uint64_t cached_tokens; /* those of them that were computed already; and what preempted requests found again */
    uint64_t copied_pages;  /* for requests that part from others inside a page */
    uint64_t evicted_pages; /* that could have been found, had their memory not been wanted */
    uint32_t free_pages, kept_pages, held_pages; /* now: empty; computed, and of no request under way; of requests */
} wl_prefix_counts;
wl_prefix_counts wl_scheduler_prefixes (const wl_scheduler *scheduler);

/* Where the stages' time went. Borrowed. */
wl_step_times *wl_scheduler_times (wl_scheduler *scheduler);

/* Rows with logits that speculation adds to what a step's requests need. */
uint32_t wl_scheduler_guess_rows (wl_speculation_kind speculation);
/* Rows a step should have by default, and pages that `tokens` positions take. */
uint32_t wl_scheduler_default_rows (void);
uint32_t wl_scheduler_pages (uint64_t tokens);

#endif
