/* What a draft model knows of one sequence: the tokens, its own guesses behind them, and how far its KV cache goes.
 *
 * Tokens become known one by one. Where one equals the guess that stood there, everything behind it goes on; at the first that does not, the guesses behind are dropped
 * and positions from there on are computed again, over the same KV. What the draft has not computed (the prompt, a stretch during which it was off, all of it after its KV was given
 * back) is caught up on in jobs of several rows, before the next guess.
 *
 * How likely a guess is right follows from how sure the draft was of it: for each class of its probability it is learned how such guesses have fared, from every guess that a known token
 * has come for, whether it was sent or not.
 *
 * Thread: none of its own; the caller's lock holds for all functions. */
#ifndef WL_COORDINATOR_DRAFT_SEQUENCE_H
#define WL_COORDINATOR_DRAFT_SEQUENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/error.h"

enum { WL_DRAFT_CLASSES = 7, WL_DRAFT_AHEAD = 16 };

typedef struct wl_draft_beliefs { /* zeroed: nothing was seen */
    struct {
        double right, all; /* older guesses count less */
    } classes[WL_DRAFT_CLASSES], any;
    uint64_t n_judged, n_right; /* guesses for which a token has come, and those that equal it */
} wl_draft_beliefs;

/* The chance that a guess is right, of any class. */
double wl_draft_acceptance (const wl_draft_beliefs *beliefs);

typedef struct wl_draft_sequence {
    int32_t *tokens;          /* [capacity] n_known true ones, then guesses */
    uint8_t *classes;         /* [capacity] of the guesses */
    size_t capacity;          /* tokens that the sequence may have */
    size_t n_known, n_tokens; /* known tokens; with the guesses behind them */
    size_t n_computed;        /* at most n_tokens: positions whose K and V are there */
    uint64_t generation;      /* raised when a token or a position that a job rests on is taken back */
    bool is_lost;             /* a token that the draft has no row for: no more guesses */
} wl_draft_sequence;

bool wl_draft_sequence_open (wl_draft_sequence *sequence, size_t capacity, wl_error *err);
void wl_draft_sequence_close (wl_draft_sequence *sequence);

/* The first n_known of `tokens` are known; they never become fewer. Ids of n_vocab and more are not the draft's. */
void wl_draft_sequence_know (wl_draft_sequence *sequence, const int32_t *tokens, size_t n_known, int32_t n_vocab,
                             wl_draft_beliefs *beliefs);

/* Positions first to first + n_rows - 1 are to be computed; `draws`: the last one's logits give the guess for the position behind. */
typedef struct wl_draft_job {
    size_t first, n_rows;
    bool draws;
    uint64_t generation;
} wl_draft_job;

/* The next job, of at most max_rows rows. False when there is none: enough is guessed, as likely as it is to be wanted. */
bool wl_draft_sequence_next (const wl_draft_sequence *sequence, const wl_draft_beliefs *beliefs, size_t max_rows,
                             wl_draft_job *job);
/* A job is done; where it draws, with a guess that the draft gave `probability`. What it rested on may have been taken back since. */
void wl_draft_sequence_done (wl_draft_sequence *sequence, const wl_draft_job *job, int32_t token, double probability,
                             wl_draft_beliefs *beliefs);
/* The KV cache is given up: all positions will be computed again. */
void wl_draft_sequence_forget (wl_draft_sequence *sequence);

/* The guess for position n_known + ahead, and the chance that it is right if those before it are. False when there is none yet. */
bool wl_draft_sequence_guess (const wl_draft_sequence *sequence, const wl_draft_beliefs *beliefs, size_t ahead,
                              int32_t *token, double *chance);

#endif
