/* Steps 1 to 3 of a draw: repetition penalties, DRY and logit bias; see sampler.h.
 *
 * Few tokens are touched: those of the history and those with a bias. So the row is copied once and their elements changed; what is known about a token is
 * kept in one array over the vocabulary, which is zeroed again by walking the same tokens. */
#include <float.h>
#include <math.h>

#include "../kernels/math.h"
#include "sampler_private.h"

static int32_t token_of (uint32_t entry)
{
    return (int32_t) (entry >> 1);
}

/* The last `wanted` entries of a draw's history. */
static const uint32_t *last_entries (const wl_draw *draw, size_t wanted, size_t *n)
{
    *n = wanted < draw->n_history ? wanted : draw->n_history;
    return draw->n_history ? draw->history + (draw->n_history - *n) : NULL;
}

static bool check_tokens (const wl_sampler *s, const wl_draw *draw, wl_error *err)
{
    const wl_sampling *p = draw->sampling;
    for (size_t i = 0; i < draw->n_history; i++)
        if ((size_t) token_of (draw->history[i]) >= s->n_vocab)
            return wl_fail (err, WL_ERROR_INTERNAL, "token %d of a draw's history is beyond the vocabulary of %zu",
                            token_of (draw->history[i]), s->n_vocab);
    for (size_t i = 0; i < p->n_biases; i++)
        if (p->bias_tokens[i] >= s->n_vocab)
            return wl_fail (err, WL_ERROR_INTERNAL, "token %u of a draw's logit bias is beyond the vocabulary of %zu",
                            p->bias_tokens[i], s->n_vocab);
    return true;
}

/* To f32, within its range: a logit stays a number, however large the penalty; a forbidden token stays forbidden. */
static float rounded (double logit)
{
    if (logit == (double) -INFINITY)
        return -INFINITY;
    return logit < (double) -FLT_MAX ? -FLT_MAX : logit > (double) FLT_MAX ? FLT_MAX : (float) logit;
}

/* -- DRY ----------------------------------------------------------------------------------------------------------------------------------------------- */

/* lengths[i] = how many tokens sequence[i..] and sequence[0..] have in common, for i of 1 to n - 1 (the Z-function, Gusfield 1997, section 1.4): linear in
 * n however repetitive the sequence is. */
static void common_lengths (const uint32_t *sequence, uint32_t *lengths, size_t n)
{
    size_t left = 0, right = 0; /* the match that reaches furthest is [left, right) */
    for (size_t i = 1; i < n; i++) {
        size_t m = 0;
        if (i < right)
            m = lengths[i - left] < right - i ? lengths[i - left] : right - i;
        while (i + m < n && sequence[m] == sequence[i + m])
            m++;
        lengths[i] = (uint32_t) m;
        if (i + m > right) {
            left = i;
            right = i + m;
        }
    }
}

/* The history reversed: the newest token first. A breaker equals nothing, itself included, so no repetition reaches over it. Then the repetition that ends
 * before place i would be continued by the token at i - 1. Sets each such token's mark to its longest repetition. */
static void mark_repetitions (wl_sampler *s, const uint32_t *history, size_t n)
{
    static const uint32_t breaker = 0x80000000u; /* above every token */
    for (size_t i = 0; i < n; i++) {
        uint32_t entry = history[n - 1 - i];
        s->sequence[i] = entry & 1 ? breaker + (uint32_t) i : entry >> 1;
    }
    common_lengths (s->sequence, s->lengths, n);
    for (size_t i = 1; i < n; i++) {
        uint32_t next = s->sequence[i - 1];
        if (next < breaker && s->lengths[i] > s->marks[next])
            s->marks[next] = s->lengths[i];
    }
}

static double dry_penalty (const wl_sampling *p, uint32_t length)
{
    if (length < p->dry_allowed_length)
        return 0;
    return (double) p->dry_multiplier * wl_pow ((double) p->dry_base, (double) (length - p->dry_allowed_length));
}

/* -- all of it ------------------------------------------------------------------------------------------------------------------------------------------- */

static double penalised (const wl_sampling *p, double logit, uint32_t count)
{
    if (p->repeat_penalty != 0)
        logit = logit > 0 ? logit / (double) p->repeat_penalty : logit * (double) p->repeat_penalty;
    return logit - (double) count * (double) p->frequency_penalty - (double) p->presence_penalty;
}

static void apply_penalties (wl_sampler *s, const wl_draw *draw)
{
    size_t n;
    const uint32_t *history = last_entries (draw, draw->sampling->repeat_last_n, &n);
    for (size_t i = 0; i < n; i++)
        s->marks[history[i] >> 1]++;
    for (size_t i = 0; i < n; i++) {
        uint32_t token = history[i] >> 1, count = s->marks[token];
        if (count)
            s->adjusted[token] = rounded (penalised (draw->sampling, (double) s->adjusted[token], count));
        s->marks[token] = 0;
    }
}

static void apply_dry (wl_sampler *s, const wl_draw *draw)
{
    size_t n;
    const uint32_t *history = last_entries (draw, draw->sampling->dry_last_n, &n);
    mark_repetitions (s, history, n);
    for (size_t i = 0; i < n; i++) {
        uint32_t token = history[i] >> 1, length = s->marks[token];
        if (length)
            s->adjusted[token] = rounded ((double) s->adjusted[token] - dry_penalty (draw->sampling, length));
        s->marks[token] = 0;
    }
}

bool sampler_adjust (wl_sampler *s, const float *logits, const wl_draw *draw, const float **row, wl_error *err)
{
    const wl_sampling *p = draw->sampling;
    *row = logits;
    if (!check_tokens (s, draw, err))
        return false;
    if (!wl_sampling_history (p) && p->n_biases == 0)
        return true;
    memcpy (s->adjusted, logits, s->n_vocab * sizeof *logits);
    if (sampling_penalises (p))
        apply_penalties (s, draw);
    if (p->dry_multiplier > 0)
        apply_dry (s, draw);
    for (size_t i = 0; i < p->n_biases; i++) {
        float *logit = &s->adjusted[p->bias_tokens[i]];
        *logit = p->bias_values[i] == -INFINITY ? -INFINITY : rounded ((double) *logit + (double) p->bias_values[i]);
    }
    *row = s->adjusted;
    return true;
}
