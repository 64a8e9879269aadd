/* Choosing the next token: the order of steps; see sampler.h.
 *
 * A vocabulary is large and what filters leave is small, so each step that needs the whole row is one pass made only when a parameter asks for it: the scan
 * for the best of each block always, an exponential of every logit for log-probabilities, dynamic temperature, Mirostat, and when no filter bounds the
 * candidates. */
#include "sampler.h"

#include <math.h>
#include <stdlib.h>

#include "../kernels/math.h"
#include "../memory.h"
#include "row_math.h"
#include "sampler_private.h"

wl_sampler *wl_sampler_new (size_t n_vocab, wl_error *err)
{
    wl_sampler *s = wl_new (1, sizeof *s, err);
    if (!s)
        return NULL;
    s->n_vocab = n_vocab;
    s->block_best = wl_new ((n_vocab + SAMPLER_BLOCK - 1) / SAMPLER_BLOCK, sizeof *s->block_best, err);
    s->candidates = wl_new (n_vocab, sizeof *s->candidates, err);
    s->sorting = wl_new (n_vocab, sizeof *s->sorting, err);
    s->weights = wl_new (n_vocab, sizeof *s->weights, err);
    s->adjusted = wl_new (n_vocab, sizeof *s->adjusted, err);
    s->marks = wl_new (n_vocab, sizeof *s->marks, err);
    s->sequence = wl_new (WL_SAMPLING_MAX_HISTORY, sizeof *s->sequence, err);
    s->lengths = wl_new (WL_SAMPLING_MAX_HISTORY, sizeof *s->lengths, err);
    if (!s->block_best || !s->candidates || !s->sorting || !s->weights || !s->adjusted || !s->marks || !s->sequence ||
        !s->lengths)
        wl_sampler_free (&s);
    return s;
}

void wl_sampler_free (wl_sampler **sampler)
{
    wl_sampler *s = *sampler;
    if (!s)
        return;
    free (s->block_best);
    free (s->candidates);
    free (s->sorting);
    free (s->weights);
    free (s->adjusted);
    free (s->marks);
    free (s->sequence);
    free (s->lengths);
    free (s);
    *sampler = NULL;
}

/* -- random numbers ------------------------------------------------------------------------------------------------------------------------------------ */

static uint64_t mix (uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

double wl_sampling_uniform (uint64_t seed, uint64_t position, uint32_t stream)
{
    static const uint64_t step = 0x9e3779b97f4a7c15u;
    uint64_t state = mix (seed + step);
    if (stream)
        state = mix (state + stream * step);
    return (double) (mix (state + (position + 1) * step) >> 11) * 0x1p-53;
}

/* -- a draw ---------------------------------------------------------------------------------------------------------------------------------------------- */

static double temperature_of (const wl_sampler *s, const wl_sampling *p, const float *row, double peak)
{
    double moment, middle = (double) p->temperature, range = (double) p->dynatemp_range;
    if (range == 0)
        return middle;
    double sum = wl_row_sum_exp (row, s->n_vocab, peak, 1, &moment);
    size_t n = 0;
    for (size_t i = 0; i < s->n_vocab; i++)
        n += row[i] != -INFINITY;
    double entropy = wl_log (sum) - moment / sum, share = n > 1 ? entropy / wl_log ((double) n) : 0;
    share = share < 0 ? 0 : share > 1 ? 1 : share; /* rounding */
    return middle - range + 2 * range * wl_pow (share, (double) p->dynatemp_exponent);
}

/* The selected candidates' weights at this temperature. */
static survivors weigh (wl_sampler *s, size_t n, double peak, double temperature)
{
    for (size_t i = 0; i < n; i++)
        s->weights[i] = ((double) candidate_logit (s->candidates[i]) - peak) / temperature;
    wl_row_exp (s->weights, n);
    return (survivors){s->candidates, s->weights, n, peak, temperature};
}

/* A logit below which min-p drops all, with room for rounding; -inf where that cannot be said beforehand. */
static double min_p_floor (const wl_sampling *p, double peak, double temperature)
{
    bool first = p->top_p == 1 && (p->typical_p == 0 || p->typical_p == 1);
    if (!first || p->min_p == 0)
        return (double) -INFINITY;
    return peak + temperature * (wl_log ((double) p->min_p) - 1e-6) - 1e-6;
}

static candidate draw_filtered (wl_sampler *s, const float *logits, const float *row, const wl_draw *draw, double peak,
                                double temperature)
{
    const wl_sampling *p = draw->sampling;
    double floor = min_p_floor (p, peak, temperature);
    if (p->top_n_sigma > 0) {
        double sigma_floor = peak - (double) p->top_n_sigma * wl_row_deviation (logits, s->n_vocab);
        floor = sigma_floor > floor ? sigma_floor : floor;
    }
    survivors left = weigh (s, sampler_select (s, row, floor, p->top_k), peak, temperature);
    sampler_filter (p, draw->position, &left);
    return left.c[sampler_pick (&left, wl_sampling_uniform (p->seed, draw->position, 0), NULL)];
}

static candidate draw_mirostat (wl_sampler *s, const float *row, const wl_draw *draw, double peak, double temperature,
                                double *mu)
{
    const wl_sampling *p = draw->sampling;
    double surprise, total = wl_row_sum_exp (row, s->n_vocab, peak, temperature, NULL);
    double least = wl_exp (-draw->mirostat_mu * wl_log (2)) * total; /* the weight at which -log2 p is mu */
    double floor = least > 0 ? peak + temperature * (wl_log (least) - 1e-6) - 1e-6 : (double) -INFINITY;
    survivors left = weigh (s, sampler_select (s, row, floor < peak ? floor : peak, 0), peak, temperature);
    size_t n = 1;
    while (n < left.n && left.w[n] >= least)
        n++;
    left.n = n;
    size_t drawn = sampler_pick (&left, wl_sampling_uniform (p->seed, draw->position, 0), &surprise);
    *mu = draw->mirostat_mu - (double) p->mirostat_rate * (surprise - (double) p->mirostat_entropy);
    return left.c[drawn];
}

/* Log-probabilities are of the model's own distribution. False as sampler_scan. */
static bool add_logprobs (wl_sampler *s, const float *logits, const wl_sampling *p, wl_sample *out)
{
    candidate best;
    if (!sampler_scan (s, logits, &best))
        return false;
    double log_sum = wl_row_log_sum_exp (logits, s->n_vocab);
    out->logprob = (float) ((double) logits[out->token] - log_sum);
    if (p->n_alternatives == 0)
        return true;
    size_t n = sampler_select (s, logits, (double) -INFINITY, p->n_alternatives);
    out->n_alternatives = (uint32_t) n;
    for (size_t i = 0; i < n; i++) {
        out->alternatives[i] = (uint32_t) candidate_token (s->candidates[i]);
        out->alternative_logprobs[i] = (float) ((double) candidate_logit (s->candidates[i]) - log_sum);
    }
    return true;
}

bool wl_sampler_draw (wl_sampler *s, const float *logits, const wl_draw *draw, wl_sample *out, wl_error *err)
{
    const wl_sampling *p = draw->sampling;
    const float *row;
    candidate drawn;
    *out = (wl_sample){.mirostat_mu = draw->mirostat_mu};
    if (!sampler_adjust (s, logits, draw, &row, err))
        return false;
    if (!sampler_scan (s, row, &drawn))
        goto no_numbers;
    double peak = (double) candidate_logit (drawn), temperature = temperature_of (s, p, row, peak);
    if (temperature > 0)
        drawn = p->mirostat ? draw_mirostat (s, row, draw, peak, temperature, &out->mirostat_mu)
                            : draw_filtered (s, logits, row, draw, peak, temperature);
    out->token = candidate_token (drawn);
    if (!p->wants_logprob || add_logprobs (s, logits, p, out))
        return true;
no_numbers:
    return wl_fail (err, WL_ERROR_INTERNAL, "the logits at position %llu are not numbers%s",
                    (unsigned long long) draw->position,
                    p->n_biases ? ", or the logit bias forbids every token" : ": the file is damaged");
}
