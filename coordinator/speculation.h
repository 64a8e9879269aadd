/* Guessing what comes next in one sequence, from the sequence itself.
 *
 * Where the last tokens have stood before, what followed them then may follow again (n-gram look-up; Saxena 2023, "Prompt Lookup Decoding"). The longest such match counts, and of
 * equally long ones the latest. How often guesses after a match of a given length come true is learned on the way, from every token, guessed aloud or
 * not: so it costs nothing to find out that a text does not repeat, or that it has begun to.
 *
 * A guess is never more than that: the scheduler sends it as the next row, and it counts only if it equals the token that the sampler draws there.
 * Thread: the scheduler's. */
#ifndef WL_COORDINATOR_SPECULATION_H
#define WL_COORDINATOR_SPECULATION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/error.h"

typedef enum wl_speculation_kind {
    WL_SPECULATION_OFF,
    WL_SPECULATION_NGRAM, /* guesses wherever there is a match */
    WL_SPECULATION_AUTO,  /* where that has been worth it */
    WL_SPECULATION_DRAFT, /* a draft model guesses where that has been worth it; elsewhere as AUTO */
} wl_speculation_kind;

/* "off", "ngram", "auto", "draft:MODEL"; NULL is the default. *draft, which may be NULL, becomes the draft's path (within `text`) or NULL. WL_ERROR_USAGE for anything else. */
bool wl_speculation_parse (const char *text, wl_speculation_kind *kind, const char **draft, wl_error *err);

typedef struct wl_speculation wl_speculation;

/* For a sequence of at most `capacity` tokens, which are borrowed: tokens[0] to tokens[n - 1] are known when wl_speculation_know (n) says so, and do not change after. */
wl_speculation *wl_speculation_new (const int32_t *tokens, size_t capacity, wl_error *err);
void wl_speculation_free (wl_speculation **speculation);

/* The first `n_known` tokens are known. With `keep`, guesses that were taken earlier and have not failed are still out: what is guessed next continues them. */
void wl_speculation_know (wl_speculation *speculation, size_t n_known, bool keep);

/* The guess for position n_known + ahead, where tokens[] holds the earlier guesses from n_known on; *chance is how likely it is right if they are. False
 * when there is none. */
bool wl_speculation_guess (const wl_speculation *speculation, size_t ahead, int32_t *token, double *chance);

#endif
