/* Steps 7 to 11 of a draw, over candidates in order; see sampler.h. */
#include "../kernels/math.h"
#include "sampler_private.h"

static double total_of (const survivors *left)
{
    double total = 0;
    for (size_t i = 0; i < left->n; i++)
        total += left->w[i];
    return total;
}

static double exponent_of (const survivors *left, size_t i)
{
    return ((double) candidate_logit (left->c[i]) - left->peak) / left->temperature;
}

static void drop_front (survivors *left, size_t n)
{
    left->c += n;
    left->w += n;
    left->n -= n;
}

/* p falls with rank, so the distance of -ln p from the entropy falls and then rises: what is kept is a run of ranks that grows from the nearest one to
 * whichever side is nearer.
 * -ln p is a constant less the exponent that w was made from. */
static void keep_typical (survivors *left, double typical_p)
{
    double total = total_of (left), moment = 0;
    for (size_t i = 0; i < left->n; i++)
        moment += left->w[i] > 0 ? left->w[i] * exponent_of (left, i) : 0;
    double typical = moment / total; /* the mean exponent: -ln p is the entropy where the exponent is this */
    size_t end = 0;
    while (end < left->n && exponent_of (left, end) > typical)
        end++;
    size_t begin = end;
    double kept = 0;
    while (kept < typical_p * total && (begin > 0 || end < left->n)) {
        bool grows_up = end == left->n ||
                        (begin > 0 && exponent_of (left, begin - 1) - typical <= typical - exponent_of (left, end));
        kept += grows_up ? left->w[--begin] : left->w[end++];
    }
    drop_front (left, begin);
    left->n = end - begin;
}

static void keep_top_p (survivors *left, double top_p)
{
    double kept = 0, wanted = top_p * total_of (left);
    size_t n = 0;
    while (n < left->n && kept < wanted)
        kept += left->w[n++];
    left->n = n;
}

static void keep_min_p (survivors *left, double min_p)
{
    size_t n = 1;
    while (n < left->n && left->w[n] >= min_p * left->w[0])
        n++;
    left->n = n;
}

static void exclude_top_choices (survivors *left, double threshold)
{
    double wanted = threshold * total_of (left);
    size_t n = 0;
    while (n < left->n && left->w[n] >= wanted)
        n++;
    if (n > 1)
        drop_front (left, n - 1);
}

void sampler_filter (const wl_sampling *s, uint64_t position, survivors *left)
{
    if (s->typical_p > 0 && s->typical_p < 1)
        keep_typical (left, (double) s->typical_p);
    if (s->top_p < 1)
        keep_top_p (left, (double) s->top_p);
    if (s->min_p > 0)
        keep_min_p (left, (double) s->min_p);
    if (s->xtc_probability > 0 && wl_sampling_uniform (s->seed, position, 1) < (double) s->xtc_probability)
        exclude_top_choices (left, (double) s->xtc_threshold);
}

size_t sampler_pick (const survivors *left, double random, double *surprise)
{
    double total = total_of (left), draw = random * total;
    size_t i = 0;
    for (; i + 1 < left->n && draw >= left->w[i]; i++)
        draw -= left->w[i];
    if (surprise)
        *surprise = -wl_log (left->w[i] / total) / wl_log (2);
    return i;
}
