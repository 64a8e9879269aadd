/* Sampling parameters: defaults, ranges, and what follows from them; see sampler.h.
 *
 * What makes no sense is refused here rather than ignored, on the command line and on the worker alike, so that no text is other than what
 * its flags say. */
#include <math.h>

#include "sampler_private.h"

wl_sampling wl_sampling_default (void)
{
    return (wl_sampling){.temperature = 0.8f,
                         .top_k = 40,
                         .top_p = 0.95f,
                         .min_p = 0.05f,
                         .typical_p = 1,
                         .dynatemp_exponent = 1,
                         .xtc_threshold = 0.1f,
                         .repeat_penalty = 1,
                         .repeat_last_n = 64,
                         .dry_base = 1.75f,
                         .dry_allowed_length = 2,
                         .dry_last_n = 1024,
                         .mirostat_entropy = 5,
                         .mirostat_rate = 0.1f};
}

bool sampling_penalises (const wl_sampling *s)
{
    return (s->repeat_penalty != 0 && s->repeat_penalty != 1) || s->presence_penalty != 0 || s->frequency_penalty != 0;
}

bool wl_sampling_depends_on_draws (const wl_sampling *s)
{
    return s->mirostat != 0;
}

size_t wl_sampling_history (const wl_sampling *s)
{
    size_t penalties = sampling_penalises (s) ? s->repeat_last_n : 0, dry = s->dry_multiplier > 0 ? s->dry_last_n : 0;
    return penalties > dry ? penalties : dry;
}

double wl_sampling_first_mu (const wl_sampling *s)
{
    return s->mirostat ? 2 * (double) s->mirostat_entropy : 0;
}

/* -- checks -------------------------------------------------------------------------------------------------------------------------------------------- */

typedef struct range {
    const char *flag;
    float value, least, most;
    const char *words;
} range;

/* Also NaN fails. */
static bool check_ranges (const range *ranges, size_t n, wl_error *err)
{
    for (size_t i = 0; i < n; i++)
        if (!(ranges[i].value >= ranges[i].least && ranges[i].value <= ranges[i].most))
            return wl_fail (err, WL_ERROR_USAGE, "%s %g: choose %s", ranges[i].flag, (double) ranges[i].value,
                            ranges[i].words);
    return true;
}

static bool check_filters (const wl_sampling *s, wl_error *err)
{
    const range ranges[] = {
        {"--temp", s->temperature, 0, 1000, "0 (greedy) to 1000"},
        {"--top-p", s->top_p, 0x1p-149f, 1, "more than 0, at most 1 (off)"},
        {"--min-p", s->min_p, 0, 1, "0 (off) to 1"},
        {"--typical", s->typical_p, 0, 1, "more than 0, at most 1; 0 and 1 are off"},
        {"--top-nsigma", s->top_n_sigma, 0, 1000, "0 (off) to 1000"},
        {"--dynatemp-range", s->dynatemp_range, 0, 1000, "0 (off) to 1000, at most --temp"},
        {"--xtc-probability", s->xtc_probability, 0, 1, "0 (off) to 1"},
    };
    if (!check_ranges (ranges, sizeof ranges / sizeof ranges[0], err))
        return false;
    if (s->dynatemp_range > s->temperature)
        return wl_fail (err, WL_ERROR_USAGE, "--dynatemp-range %g is more than --temp %g: choose 0 (off) to that",
                        (double) s->dynatemp_range, (double) s->temperature);
    if (s->dynatemp_range > 0 && !(s->dynatemp_exponent >= 0.01f && s->dynatemp_exponent <= 100))
        return wl_fail (err, WL_ERROR_USAGE, "--dynatemp-exp %g: choose 0.01 to 100", (double) s->dynatemp_exponent);
    if (s->xtc_probability > 0 && !(s->xtc_threshold >= 0 && s->xtc_threshold <= 0.5f))
        return wl_fail (err, WL_ERROR_USAGE,
                        "--xtc-threshold %g: choose 0 to 0.5 (beyond that no two tokens can reach it)",
                        (double) s->xtc_threshold);
    return true;
}

static bool check_last_n (const char *flag, uint32_t value, wl_error *err)
{
    if (value >= 1 && value <= WL_SAMPLING_MAX_HISTORY)
        return true;
    return wl_fail (err, WL_ERROR_USAGE, "%s %u: choose 1 to %d tokens", flag, value, WL_SAMPLING_MAX_HISTORY);
}

static bool check_penalties (const wl_sampling *s, wl_error *err)
{
    const range ranges[] = {
        {"--repeat-penalty", s->repeat_penalty, 0, 100, "more than 0, at most 100; 0 and 1 are off"},
        {"--presence-penalty", s->presence_penalty, -100, 100, "-100 to 100; 0 is off"},
        {"--frequency-penalty", s->frequency_penalty, -100, 100, "-100 to 100; 0 is off"},
        {"--dry-multiplier", s->dry_multiplier, 0, 100, "0 (off) to 100"},
    };
    if (!check_ranges (ranges, sizeof ranges / sizeof ranges[0], err) ||
        (sampling_penalises (s) && !check_last_n ("--repeat-last-n", s->repeat_last_n, err)))
        return false;
    if (s->dry_multiplier == 0)
        return true;
    if (!(s->dry_base >= 1 && s->dry_base <= 10))
        return wl_fail (err, WL_ERROR_USAGE, "--dry-base %g: choose 1 to 10", (double) s->dry_base);
    if (s->dry_allowed_length == 0 || s->dry_allowed_length > WL_SAMPLING_MAX_HISTORY)
        return wl_fail (err, WL_ERROR_USAGE, "--dry-allowed-length %u: choose 1 to %d tokens", s->dry_allowed_length,
                        WL_SAMPLING_MAX_HISTORY);
    return check_last_n ("--dry-penalty-last-n", s->dry_last_n, err);
}

static bool check_mirostat (const wl_sampling *s, wl_error *err)
{
    if (s->mirostat == 0)
        return true;
    if (s->mirostat != 2)
        return wl_fail (err, WL_ERROR_USAGE, "--mirostat %u: choose 0 (off) or 2", s->mirostat);
    if (!(s->mirostat_entropy > 0 && s->mirostat_entropy <= 100))
        return wl_fail (err, WL_ERROR_USAGE, "--mirostat-ent %g: choose more than 0, at most 100 bits",
                        (double) s->mirostat_entropy);
    if (!(s->mirostat_rate >= 0 && s->mirostat_rate <= 1))
        return wl_fail (err, WL_ERROR_USAGE, "--mirostat-lr %g: choose 0 to 1", (double) s->mirostat_rate);
    const char *other = s->top_k                               ? "--top-k"
                        : s->top_p < 1                         ? "--top-p"
                        : s->min_p > 0                         ? "--min-p"
                        : s->typical_p > 0 && s->typical_p < 1 ? "--typical"
                        : s->top_n_sigma > 0                   ? "--top-nsigma"
                        : s->xtc_probability > 0               ? "--xtc-probability"
                                                               : NULL;
    if (other)
        return wl_fail (err, WL_ERROR_USAGE, "--mirostat 2 chooses how many tokens to keep by itself: leave out %s",
                        other);
    return true;
}

/* Greedy takes the best token, so only what keeps it may be there. */
static bool check_greedy (const wl_sampling *s, wl_error *err)
{
    const char *other = s->mirostat                            ? "--mirostat"
                        : s->typical_p > 0 && s->typical_p < 1 ? "--typical"
                        : s->xtc_probability > 0               ? "--xtc-probability"
                                                               : NULL;
    if (s->temperature == 0 && other)
        return wl_fail (err, WL_ERROR_USAGE, "--temp 0 always takes the best token, which %s would not: choose one",
                        other);
    return true;
}

static bool check_lists (const wl_sampling *s, wl_error *err)
{
    if (s->n_biases > WL_SAMPLING_MAX_BIASES)
        return wl_fail (err, WL_ERROR_USAGE, "--logit-bias for %zu tokens: choose at most %d", s->n_biases,
                        WL_SAMPLING_MAX_BIASES);
    for (size_t i = 0; i < s->n_biases; i++) {
        float value = s->bias_values[i];
        if (!(value == -INFINITY || (value >= -1000 && value <= 1000)))
            return wl_fail (err, WL_ERROR_USAGE, "--logit-bias %u=%g: choose -1000 to 1000, or -inf", s->bias_tokens[i],
                            (double) value);
    }
    if (s->n_alternatives > WL_SAMPLING_MAX_ALTERNATIVES)
        return wl_fail (err, WL_ERROR_USAGE, "--logprobs %u: choose 0 to %d", s->n_alternatives,
                        WL_SAMPLING_MAX_ALTERNATIVES);
    return true;
}

bool wl_sampling_check (const wl_sampling *s, wl_error *err)
{
    return check_filters (s, err) && check_penalties (s, err) && check_mirostat (s, err) && check_greedy (s, err) &&
           check_lists (s, err);
}
