/* Whether a draft model pays.
 *
 * Its guesses have a price: where stages run on the same machine, their cores and memory slow down, and a guess that comes later than the token itself is of no use. So, for each number of decoding
 * streams, first the pace without the draft is measured. If by the draft's own measured pace and acceptance it could pay at all, it is tried for some tokens, and stays on as long
 * as that is faster. Otherwise it rests: for twice as long after each failure.
 *
 * What can be gained at most: let a guess take D, a token without guesses T, and a guess be right with chance a. A run of right guesses has 1 / (1 - a) tokens on average, and takes D for each of
 * them and T for the last, to be found wrong: D + (1 - a) T a token (Leviathan et al. 2023, "Fast Inference from Transformers via Speculative Decoding", with a verification that
 * does not wait). But this machine's cores have to do the draft's work and its own stages', of which rows behind a wrong guess come on top: where they are few, that bounds it. On
 * stages with other work it is less, which the trial shows.
 * Thread: the scheduler's. */
#ifndef WL_COORDINATOR_DRAFT_POLICY_H
#define WL_COORDINATOR_DRAFT_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { WL_DRAFT_STREAMS = 16 }; /* with more, stages have no time for guesses */

typedef enum wl_draft_state { WL_DRAFT_RESTS, WL_DRAFT_TRIED, WL_DRAFT_ON } wl_draft_state;

typedef struct wl_draft_costs {  /* as measured */
    double guess_ns;             /* of one guess for one sequence */
    double read_ns;              /* of one token that it catches up on */
    double acceptance;           /* the chance that a guess is right */
    double stage_ns;             /* of one core of this machine, for one token: what its stages compute */
    uint32_t n_threads, n_cores; /* the draft's; this machine's */
    bool is_crowded;             /* the draft's threads and the stages' are more than its cores */
} wl_draft_costs;

typedef struct wl_draft_policy { /* zeroed: nothing was seen */
    bool always;                 /* it is on whatever it costs */
    wl_draft_state state;
    double plain_ns[WL_DRAFT_STREAMS + 1]; /* a token without it, by the number of streams; 0: not known */
    size_t n_streams, n_tokens;            /* of the window */
    uint64_t began_ns;                     /* the window; 0: not yet */
    uint64_t rests, n_rested;              /* tokens that it is to rest, and has */
    uint64_t n_on;                         /* tokens since its trial began */
    uint64_t patience_ns;                  /* it is on, but behind: until when that may be; 0: it is not */
    uint32_t n_tries, n_failed;
} wl_draft_policy;

bool wl_draft_policy_is_on (const wl_draft_policy *policy);

/* n_tokens more came for n_streams decoding streams, now. n_streams 0: something else is going on as well, which makes times incomparable. n_unread: tokens that the draft, being on, has yet to read before it can guess. */
void wl_draft_policy_add (wl_draft_policy *policy, size_t n_streams, size_t n_tokens, size_t n_unread, uint64_t now_ns,
                          const wl_draft_costs *costs);

/* Nanoseconds that a token of n_streams streams is expected to gain, at most; 0 or less: nothing, or not known. */
double wl_draft_policy_gain (const wl_draft_policy *policy, size_t n_streams, const wl_draft_costs *costs);

#endif
