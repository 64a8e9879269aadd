/* Choosing the next token; see sampler.h. */
#include "sampler.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "../kernels/math.h"
#include "../memory.h"

typedef struct candidate {
    float logit;
    int32_t token;
} candidate;

struct wl_sampler {
    size_t n_vocab;
    candidate *candidates; /* [n_vocab] */
    double *weights;       /* [n_vocab] exp of the scaled logits, best first */
};

wl_sampling wl_sampling_default (void)
{
    return (wl_sampling){.temperature = 0.8f, .top_k = 40, .top_p = 0.95f, .min_p = 0.05f, .seed = 0};
}

bool wl_sampling_check (const wl_sampling *s, wl_error *err)
{
    if (!(s->temperature >= 0 && s->temperature <= 1000))
        return wl_fail (err, WL_ERROR_USAGE, "--temp %g: choose 0 (greedy) or more", s->temperature);
    if (!(s->top_p > 0 && s->top_p <= 1))
        return wl_fail (err, WL_ERROR_USAGE, "--top-p %g: choose more than 0, at most 1 (off)", s->top_p);
    if (!(s->min_p >= 0 && s->min_p <= 1))
        return wl_fail (err, WL_ERROR_USAGE, "--min-p %g: choose 0 (off) to 1", s->min_p);
    return true;
}

wl_sampler *wl_sampler_new (size_t n_vocab, wl_error *err)
{
    wl_sampler *sampler = wl_new (1, sizeof *sampler, err);
    if (!sampler)
        return NULL;
    sampler->n_vocab = n_vocab;
    sampler->candidates = wl_new (n_vocab, sizeof *sampler->candidates, err);
    sampler->weights = wl_new (n_vocab, sizeof *sampler->weights, err);
    if (!sampler->candidates || !sampler->weights)
        wl_sampler_free (&sampler);
    return sampler;
}

void wl_sampler_free (wl_sampler **sampler)
{
    if (!*sampler)
        return;
    free ((*sampler)->candidates);
    free ((*sampler)->weights);
    free (*sampler);
    *sampler = NULL;
}

static uint64_t mix (uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

double wl_sampling_uniform (uint64_t seed, uint64_t position)
{
    uint64_t z = mix (mix (seed + 0x9e3779b97f4a7c15u) + (position + 1) * 0x9e3779b97f4a7c15u);
    return (double) (z >> 11) * 0x1p-53;
}

static int best_first (const void *a, const void *b)
{
    const candidate *x = a, *y = b;
    if (x->logit != y->logit)
        return x->logit > y->logit ? -1 : 1;
    return x->token < y->token ? -1 : x->token > y->token;
}

/* Whether x comes after y in the order of best_first. */
static bool is_worse (candidate x, candidate y)
{
    return x.logit != y.logit ? x.logit < y.logit : x.token > y.token;
}

/* Restores the heap whose root, the worst of n, was replaced. */
static void sift_down (candidate *heap, size_t n)
{
    for (size_t i = 0;;) {
        size_t child = 2 * i + 1;
        if (child >= n)
            return;
        if (child + 1 < n && is_worse (heap[child + 1], heap[child]))
            child++;
        if (!is_worse (heap[child], heap[i]))
            return;
        candidate swap = heap[i];
        heap[i] = heap[child];
        heap[child] = swap;
        i = child;
    }
}

static void sift_up (candidate *heap, size_t i)
{
    while (i > 0 && is_worse (heap[i], heap[(i - 1) / 2])) {
        candidate swap = heap[i];
        heap[i] = heap[(i - 1) / 2];
        heap[(i - 1) / 2] = swap;
        i = (i - 1) / 2;
    }
}

/* The best `wanted` tokens, best first, in sampler->candidates; a heap holds the best so far. */
static size_t best_candidates (wl_sampler *sampler, const float *logits, size_t wanted)
{
    candidate *c = sampler->candidates;
    size_t n = 0;
    for (size_t i = 0; i < sampler->n_vocab; i++) {
        candidate next = {logits[i], (int32_t) i};
        if (logits[i] == -INFINITY)
            continue;
        if (n < wanted) {
            c[n] = next;
            if (wanted < sampler->n_vocab)
                sift_up (c, n);
            n++;
        } else if (is_worse (c[0], next)) {
            c[0] = next;
            sift_down (c, n);
        }
    }
    qsort (c, n, sizeof *c, best_first);
    return n;
}

/* log sum exp of all logits, for the log-probability; also finds the best token. False when a logit is NaN or none is finite. */
static bool survey (const float *logits, size_t n_vocab, int32_t *best, double *log_sum)
{
    *best = -1;
    for (size_t i = 0; i < n_vocab; i++) {
        if (isnan (logits[i]) || logits[i] == INFINITY)
            return false;
        if (logits[i] != -INFINITY && (*best < 0 || logits[i] > logits[*best]))
            *best = (int32_t) i;
    }
    if (*best < 0)
        return false;
    double sum = 0, peak = (double) logits[*best];
    for (size_t i = 0; i < n_vocab; i++)
        sum += wl_exp ((double) logits[i] - peak);
    *log_sum = peak + wl_log (sum);
    return true;
}

bool wl_sampler_draw (wl_sampler *sampler, const float *logits, const wl_sampling *sampling, uint64_t position,
                      wl_sample *out, wl_error *err)
{
    int32_t best;
    double log_sum;
    if (!survey (logits, sampler->n_vocab, &best, &log_sum))
        return wl_fail (err, WL_ERROR_INTERNAL,
                        "the model's logits at position %llu are not numbers: the file is damaged",
                        (unsigned long long) position);
    out->token = best;
    if (sampling->temperature > 0) {
        size_t wanted = sampling->top_k && sampling->top_k < sampler->n_vocab ? sampling->top_k : sampler->n_vocab;
        size_t n = best_candidates (sampler, logits, wanted);
        const candidate *c = sampler->candidates;
        double total = 0, peak = (double) c[0].logit;
        for (size_t i = 0; i < n; i++)
            total += sampler->weights[i] = wl_exp (((double) c[i].logit - peak) / (double) sampling->temperature);
        if (sampling->top_p < 1) {
            double kept = 0, wanted_mass = (double) sampling->top_p * total;
            size_t i = 0;
            while (i < n && kept < wanted_mass)
                kept += sampler->weights[i++];
            n = i;
            total = kept;
        }
        if (sampling->min_p > 0) {
            size_t i = 0;
            for (total = 0; i < n && sampler->weights[i] >= (double) sampling->min_p;
                 i++) /* the best one's weight is 1 */
                total += sampler->weights[i];
            n = i;
        }
        double draw = wl_sampling_uniform (sampling->seed, position) * total;
        size_t i = 0;
        for (; i + 1 < n && draw >= sampler->weights[i]; i++)
            draw -= sampler->weights[i];
        out->token = c[i].token;
    }
    out->logprob = (float) ((double) logits[out->token] - log_sum);
    return true;
}
