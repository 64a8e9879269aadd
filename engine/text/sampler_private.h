/* What the files of the sampler share; see sampler.h for what is computed.
 *
 * A candidate is one word: the upper half falls as the logit rises, the lower half is the token's id. So ascending order of words is the order
 * of candidates, ties included, and comparing two is one comparison. */
#ifndef WL_ENGINE_TEXT_SAMPLER_PRIVATE_H
#define WL_ENGINE_TEXT_SAMPLER_PRIVATE_H

#include <string.h>

#include "sampler.h"

enum { SAMPLER_BLOCK = 64 }; /* logits whose best is kept, so that most blocks are never looked at again */

typedef uint64_t candidate;

struct wl_sampler {
    size_t n_vocab;
    uint32_t *block_best;  /* [n_vocab / SAMPLER_BLOCK, rounded up] order of each block's best logit */
    candidate *candidates; /* [n_vocab] */
    candidate *sorting;    /* [n_vocab] work space of a full sort */
    double *weights;       /* [n_vocab] of the candidates, the best one's is 1 */
    float *adjusted;       /* [n_vocab] logits after penalties and bias */
    uint32_t *marks;       /* [n_vocab] all 0 between uses */
    uint32_t *sequence;    /* [WL_SAMPLING_MAX_HISTORY] DRY's view of the history; likewise lengths */
    uint32_t *lengths;
};

/* What filters have left: candidates c[n], best first, with weights w[n] = e^((logit - peak) / temperature), proportional to p. */
typedef struct survivors {
    const candidate *c;
    double *w;
    size_t n;
    double peak, temperature;
} survivors;

/* The order of a logit: smaller is better. -0 and 0 are equal. -inf is NO_CANDIDATE; +inf is 0x7f800000 before the inversion, so the least a number can have is
 * above SAMPLER_INFINITY. */
static inline uint32_t logit_order (float logit)
{
    float positive_zero = logit + 0.0f;
    int32_t bits;
    memcpy (&bits, &positive_zero, sizeof bits);
    int32_t ascending = bits ^ (int32_t) ((uint32_t) (bits >> 31) >> 1);
    return ~((uint32_t) ascending ^ 0x80000000u);
}

static inline float order_logit (uint32_t order)
{
    int32_t ascending = (int32_t) (~order ^ 0x80000000u);
    int32_t bits = ascending ^ (int32_t) ((uint32_t) (ascending >> 31) >> 1);
    float logit;
    memcpy (&logit, &bits, sizeof logit);
    return logit;
}

static inline candidate candidate_of (float logit, size_t token)
{
    return (uint64_t) logit_order (logit) << 32 | (uint32_t) token;
}

static inline float candidate_logit (candidate c)
{
    return order_logit ((uint32_t) (c >> 32));
}

static inline int32_t candidate_token (candidate c)
{
    return (int32_t) (uint32_t) c;
}

/* -- sampling.c -- */

/* Whether any of the penalties of step 1 is on. */
bool sampling_penalises (const wl_sampling *sampling);

/* -- sampler_adjust.c: steps 1 to 3 -- */

/* *row is `logits` itself when nothing changes it, else sampler->adjusted. */
bool sampler_adjust (wl_sampler *s, const float *logits, const wl_draw *draw, const float **row, wl_error *err);

/* -- sampler_select.c: finding the best -- */

/* Fills block_best and gives the best candidate. False when an element is NaN or +inf, or none is finite. */
bool sampler_scan (wl_sampler *s, const float *row, candidate *best);
/* After a scan of the same row: the best `wanted` candidates (0: all) of at least `floor`, best first, in s->candidates. Returns how many. */
size_t sampler_select (wl_sampler *s, const float *row, double floor, size_t wanted);

/* -- sampler_filters.c: steps 7 to 11, and Mirostat -- */

void sampler_filter (const wl_sampling *sampling, uint64_t position, survivors *left);
/* The place of the drawn candidate in `left`; its -log2 p goes to *surprise where that is not NULL. */
size_t sampler_pick (const survivors *left, double random, double *surprise);

#endif
