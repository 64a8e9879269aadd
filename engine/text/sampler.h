/* Choosing the next token from one row of logits.
 *
 * The random number is a function of (seed, position) alone, so a token does not depend on how its request was batched,
 * speculated, moved or replayed, and the stage that samples keeps no state. All arithmetic is f64 with Woolly's own exp (math.h), in a
 * fixed order, so the same logits give the same token on every platform.
 *
 * Order of steps: penalties and bias on logits; temperature; top-k; top-p; min-p; draw. Candidates are ordered by logit, descending,
 * ties by id, ascending; greedy (temperature 0) takes the first.
 * Thread: functions are pure; a scratch belongs to one thread. */
#ifndef WL_ENGINE_TEXT_SAMPLER_H
#define WL_ENGINE_TEXT_SAMPLER_H

#include <stddef.h>
#include <stdint.h>

#include "../error.h"

typedef struct wl_sampling {
    float temperature; /* 0: greedy */
    uint32_t top_k;    /* 0: off */
    float top_p;       /* 1: off; keeps the smallest set whose probability reaches top_p (Holtzman et al. 2020) */
    float min_p;       /* 0: off; keeps probability >= min_p * the best one's (Nguyen et al. 2024) */
    uint64_t seed;
} wl_sampling;

/* What the command line starts from: 0.8, 40, 0.95, 0.05, seed 0 (the caller draws one when the user gave none). */
wl_sampling wl_sampling_default (void);
/* WL_ERROR_USAGE naming the field that is out of range. */
bool wl_sampling_check (const wl_sampling *sampling, wl_error *err);

typedef struct wl_sampler wl_sampler; /* scratch for one vocabulary size */
wl_sampler *wl_sampler_new (size_t n_vocab, wl_error *err);
void wl_sampler_free (wl_sampler **sampler);

typedef struct wl_sample {
    int32_t token;
    float logprob; /* log-probability of the token under the unmodified logits */
} wl_sample;

/* logits[n_vocab], finite or -inf; `position` is the index that the new token will have in its sequence. A row with NaN or without any
 * finite logit fails with WL_ERROR_INTERNAL. */
bool wl_sampler_draw (wl_sampler *sampler, const float *logits, const wl_sampling *sampling, uint64_t position,
                      wl_sample *out, wl_error *err);

/* Uniform in [0, 1) with 53 bits from (seed, position): two rounds of the SplitMix64 finalizer (Steele et al. 2014). */
double wl_sampling_uniform (uint64_t seed, uint64_t position);

#endif
