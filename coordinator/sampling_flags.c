/* The sampling flags; see flags.h and engine/text/sampler.h.
 *
 * A flag that would do nothing is refused: one that only tunes a sampler which is off, or a filter beside mirostat. Filters that are on by default step aside
 * for mirostat when nobody asked for them. */
#include <math.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/memory.h"
#include "flags.h"

/* Places in the table, so that what was given can be asked for by name. */
enum {
    TEMP,
    TOP_K,
    TOP_P,
    MIN_P,
    SEED,
    TYPICAL,
    TOP_NSIGMA,
    DYNATEMP_RANGE,
    DYNATEMP_EXP,
    XTC_PROBABILITY,
    XTC_THRESHOLD,
    REPEAT_PENALTY,
    PRESENCE_PENALTY,
    FREQUENCY_PENALTY,
    REPEAT_LAST_N,
    DRY_MULTIPLIER,
    DRY_BASE,
    DRY_ALLOWED_LENGTH,
    DRY_LAST_N,
    DRY_BREAKER,
    MIROSTAT,
    MIROSTAT_ENT,
    MIROSTAT_LR,
    LOGIT_BIAS,
    N_FLAGS
};

wl_option_table wl_sampling_flags_init (wl_sampling_flags *f)
{
    *f = (wl_sampling_flags){.sampling = wl_sampling_default ()};
    wl_sampling *s = &f->sampling;
    const wl_option table[] = {
        [TEMP] = {0, "temp", WL_OPTION_F32, &s->temperature, "T", "temperature; 0 is greedy (0.8)", NULL},
        [TOP_K] = {0, "top-k", WL_OPTION_U32, &s->top_k, "K", "keep the K best; 0 is off (40)", NULL},
        [TOP_P] = {0, "top-p", WL_OPTION_F32, &s->top_p, "P", "keep the best that hold probability P; 1 is off (0.95)",
                   NULL},
        [MIN_P] = {0, "min-p", WL_OPTION_F32, &s->min_p, "P",
                   "keep what has P times the best one's probability; 0 is off (0.05)", NULL},
        [SEED] = {0, "seed", WL_OPTION_U64, &s->seed, "N", "the same seed gives the same text (drawn)", NULL},
        [TYPICAL] = {0, "typical", WL_OPTION_F32, &s->typical_p, "P",
                     "keep the locally typical that hold probability P; 1 is off (1)", NULL},
        [TOP_NSIGMA] = {0, "top-nsigma", WL_OPTION_F32, &s->top_n_sigma, "N",
                        "keep logits within N standard deviations of the best; 0 is off (0)", NULL},
        [DYNATEMP_RANGE] = {0, "dynatemp-range", WL_OPTION_F32, &s->dynatemp_range, "R",
                            "temperature from T - R to T + R by entropy; 0 is off (0)", NULL},
        [DYNATEMP_EXP] = {0, "dynatemp-exp", WL_OPTION_F32, &s->dynatemp_exponent, "E",
                          "exponent of the entropy's share (1)", NULL},
        [XTC_PROBABILITY] = {0, "xtc-probability", WL_OPTION_F32, &s->xtc_probability, "P",
                             "how often the top choices but the last are taken away; 0 is off (0)", NULL},
        [XTC_THRESHOLD] = {0, "xtc-threshold", WL_OPTION_F32, &s->xtc_threshold, "P",
                           "probability of a top choice, at most 0.5 (0.1)", NULL},
        [REPEAT_PENALTY] = {0, "repeat-penalty", WL_OPTION_F32, &s->repeat_penalty, "R",
                            "divide the logits of recent tokens by R; 1 is off (1)", NULL},
        [PRESENCE_PENALTY] = {0, "presence-penalty", WL_OPTION_F32, &s->presence_penalty, "A",
                              "take A from the logits of recent tokens; 0 is off (0)", NULL},
        [FREQUENCY_PENALTY] = {0, "frequency-penalty", WL_OPTION_F32, &s->frequency_penalty, "A",
                               "take A for each time a token came recently; 0 is off (0)", NULL},
        [REPEAT_LAST_N] = {0, "repeat-last-n", WL_OPTION_U32, &s->repeat_last_n, "N",
                           "how many tokens are recent, prompt included (64)", NULL},
        [DRY_MULTIPLIER] = {0, "dry-multiplier", WL_OPTION_F32, &s->dry_multiplier, "M",
                            "take M * BASE ^ (length - ALLOWED) where a token would repeat; 0 is off (0)", NULL},
        [DRY_BASE] = {0, "dry-base", WL_OPTION_F32, &s->dry_base, "BASE", "(1.75)", NULL},
        [DRY_ALLOWED_LENGTH] = {0, "dry-allowed-length", WL_OPTION_U32, &s->dry_allowed_length, "ALLOWED",
                                "repetitions of fewer tokens are free (2)", NULL},
        [DRY_LAST_N] = {0, "dry-penalty-last-n", WL_OPTION_U32, &s->dry_last_n, "N",
                        "how many tokens DRY looks back (1024)", NULL},
        [DRY_BREAKER] = {0, "dry-sequence-breaker", WL_OPTION_LIST, &f->breaker_texts, "TEXT",
                         "no repetition reaches over a token with this text; may be repeated (newline : \" *)", NULL},
        [MIROSTAT] = {0, "mirostat", WL_OPTION_U32, &s->mirostat, "2",
                      "aim at a surprise in place of top-k, top-p and the like; 0 is off (0)", NULL},
        [MIROSTAT_ENT] = {0, "mirostat-ent", WL_OPTION_F32, &s->mirostat_entropy, "BITS", "the surprise aimed at (5)",
                          NULL},
        [MIROSTAT_LR] = {0, "mirostat-lr", WL_OPTION_F32, &s->mirostat_rate, "RATE", "how fast it is followed (0.1)",
                         NULL},
        [LOGIT_BIAS] = {0, "logit-bias", WL_OPTION_LIST, &f->biases, "ID=BIAS",
                        "add to a token's logit; also ID+BIAS, ID-BIAS, ID=-inf, ID-inf; may be repeated", NULL},
    };
    memcpy (f->table, table, sizeof table);
    for (size_t i = 0; i < N_FLAGS; i++)
        f->table[i].given = &f->given[i];
    return (wl_option_table){f->table, N_FLAGS};
}

/* -- logit bias ---------------------------------------------------------------------------------------------------------------------------------------- */

/* "ID=BIAS", "ID+BIAS", "ID-BIAS", where BIAS is a decimal number, and after = or - also -inf or inf. */
static bool read_bias (const char *text, uint32_t *token, float *value, wl_error *err)
{
    char *sign = NULL, *end = NULL;
    unsigned long long id = strtoull (text, &sign, 10);
    bool ok = text[0] >= '0' && text[0] <= '9' && id <= INT32_MAX && (*sign == '=' || *sign == '+' || *sign == '-');
    if (ok) {
        const char *number = *sign == '=' ? sign + 1 : sign;
        const char *digits = number + (*number == '+' || *number == '-');
        if (strcmp (number, "-inf") == 0) {
            *value = -INFINITY;
        } else {
            *value = strtof (number, &end);
            ok = ((*digits >= '0' && *digits <= '9') || *digits == '.') && *end == 0 && end > digits &&
                 !strpbrk (digits, "xX") && *value >= -1000 && *value <= 1000;
        }
    }
    *token = (uint32_t) id;
    if (!ok)
        return wl_fail (err, WL_ERROR_USAGE,
                        "--logit-bias \"%s\": choose ID=BIAS, ID+BIAS or ID-BIAS with a token id and -1000 to 1000, or "
                        "ID=-inf to forbid the token",
                        text);
    return true;
}

static bool read_biases (wl_sampling_flags *f, wl_error *err)
{
    _Static_assert(sizeof f->biases.values / sizeof f->biases.values[0] <= WL_MAX_BIAS_FLAGS, "room for every flag");
    wl_sampling *s = &f->sampling;
    for (size_t i = 0; i < f->biases.count; i++) {
        if (!read_bias (f->biases.values[i], &f->bias_tokens[i], &f->bias_values[i], err))
            return false;
        for (size_t earlier = 0; earlier < i; earlier++)
            if (f->bias_tokens[earlier] == f->bias_tokens[i])
                return wl_fail (err, WL_ERROR_USAGE, "--logit-bias names token %u twice: choose one bias for it",
                                f->bias_tokens[i]);
    }
    s->n_biases = f->biases.count;
    s->bias_tokens = f->bias_tokens;
    s->bias_values = f->bias_values;
    return true;
}

/* -- combinations ------------------------------------------------------------------------------------------------------------------------------------------- */

/* Each flag that only tunes another, and the ones of which one must be there for it to mean anything. */
static const struct {
    int flag, needs[3];
    const char *words;
} tunings[] = {
    {DYNATEMP_EXP, {DYNATEMP_RANGE, DYNATEMP_RANGE, DYNATEMP_RANGE}, "--dynatemp-range"},
    {XTC_THRESHOLD, {XTC_PROBABILITY, XTC_PROBABILITY, XTC_PROBABILITY}, "--xtc-probability"},
    {REPEAT_LAST_N,
     {REPEAT_PENALTY, PRESENCE_PENALTY, FREQUENCY_PENALTY},
     "--repeat-penalty, --presence-penalty or --frequency-penalty"},
    {DRY_BASE, {DRY_MULTIPLIER, DRY_MULTIPLIER, DRY_MULTIPLIER}, "--dry-multiplier"},
    {DRY_ALLOWED_LENGTH, {DRY_MULTIPLIER, DRY_MULTIPLIER, DRY_MULTIPLIER}, "--dry-multiplier"},
    {DRY_LAST_N, {DRY_MULTIPLIER, DRY_MULTIPLIER, DRY_MULTIPLIER}, "--dry-multiplier"},
    {DRY_BREAKER, {DRY_MULTIPLIER, DRY_MULTIPLIER, DRY_MULTIPLIER}, "--dry-multiplier"},
    {MIROSTAT_ENT, {MIROSTAT, MIROSTAT, MIROSTAT}, "--mirostat 2"},
    {MIROSTAT_LR, {MIROSTAT, MIROSTAT, MIROSTAT}, "--mirostat 2"},
};

static bool check_tunings (const wl_sampling_flags *f, wl_error *err)
{
    for (size_t i = 0; i < sizeof tunings / sizeof tunings[0]; i++) {
        const int *needs = tunings[i].needs;
        if (f->given[tunings[i].flag] && !f->given[needs[0]] && !f->given[needs[1]] && !f->given[needs[2]])
            return wl_fail (err, WL_ERROR_USAGE, "--%s changes nothing without %s", f->table[tunings[i].flag].name,
                            tunings[i].words);
    }
    return true;
}

bool wl_sampling_flags_finish (wl_sampling_flags *f, wl_error *err)
{
    wl_sampling *s = &f->sampling;
    if (!f->given[SEED])
        s->seed = ((uint64_t) randombytes_random () << 32 | randombytes_random ()) >> 11; /* fits a JSON number */
    if (s->mirostat) {
        s->top_k = f->given[TOP_K] ? s->top_k : 0;
        s->top_p = f->given[TOP_P] ? s->top_p : 1;
        s->min_p = f->given[MIN_P] ? s->min_p : 0;
    }
    return read_biases (f, err) && check_tunings (f, err) && wl_sampling_check (s, err);
}

/* -- with a model ------------------------------------------------------------------------------------------------------------------------------------------- */

/* Marks the tokens whose text contains `breaker`; returns whether there are any. (DRY's first implementation takes one token a text, the last that the text is
 * tokenized to; but vocabularies hold the same mark in many tokens, and each of them is a break.) */
static bool mark_breakers (wl_sampling_flags *f, const wl_tokenizer *tokenizer, const char *breaker)
{
    bool any = false;
    size_t length = strlen (breaker);
    for (size_t i = 0; i < f->n_breakers; i++) {
        wl_text text;
        if (wl_tokenizer_token_text (tokenizer, (int32_t) i, true, &text) &&
            memmem (text.data, text.length, breaker, length))
            any = f->breakers[i] = true;
    }
    return any;
}

static bool find_breakers (wl_sampling_flags *f, const wl_tokenizer *tokenizer, wl_error *err)
{
    static const char *const usual[] = {"\n", ":", "\"", "*"};
    f->n_breakers = wl_tokenizer_n_tokens (tokenizer);
    f->breakers = wl_new (f->n_breakers, sizeof *f->breakers, err);
    if (!f->breakers)
        return false;
    if (!f->given[DRY_BREAKER])
        for (size_t i = 0; i < sizeof usual / sizeof usual[0]; i++)
            mark_breakers (f, tokenizer, usual[i]);
    for (size_t i = 0; i < f->breaker_texts.count; i++) {
        const char *text = f->breaker_texts.values[i];
        if (!text[0] || !mark_breakers (f, tokenizer, text))
            return wl_fail (err, WL_ERROR_USAGE,
                            "--dry-sequence-breaker \"%s\": %s: choose a text within one token, such as \":\"", text,
                            text[0] ? "no token of this model contains it" : "it is empty");
    }
    return true;
}

bool wl_sampling_flags_bind (wl_sampling_flags *f, const wl_tokenizer *tokenizer, wl_error *err)
{
    size_t n_tokens = wl_tokenizer_n_tokens (tokenizer);
    for (size_t i = 0; i < f->sampling.n_biases; i++)
        if (f->bias_tokens[i] >= n_tokens)
            return wl_fail (err, WL_ERROR_USAGE, "--logit-bias \"%s\": the model's token ids are 0 to %zu",
                            f->biases.values[i], n_tokens - 1);
    return f->sampling.dry_multiplier == 0 || find_breakers (f, tokenizer, err);
}

void wl_sampling_flags_free (wl_sampling_flags *f)
{
    free (f->breakers);
    f->breakers = NULL;
}
