/* The sampler from the command line, for tests that hold it to a formulation of their own, and for timing it.
 *
 *   sample LOGITS N_VOCAB < CASES    LOGITS: little-endian f32 [n_rows, N_VOCAB]. Each line of CASES is a JSON object: any of wl_sampling's fields by name,
 *                                    "row" (0), "positions" (1) and "position" (0) of the first, "history" ([[token, breaks], …]), "mu", "biases" ([[token, value], …],
 *                                    null is -inf). Prints a JSON array of [token, logprob, mu, [[token, logprob], …]] for each, one a position; mirostat's mu
 *                                    goes from one to the next.
 *   sample --bench N_VOCAB           microseconds of a draw with several sets of parameters */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <jansson.h>

#include "engine/memory.h"
#include "engine/text/sampler.h"

typedef struct request {
    wl_sampling sampling;
    wl_draw draw;
    size_t row, n_positions;
    uint32_t history[WL_SAMPLING_MAX_HISTORY], bias_tokens[WL_SAMPLING_MAX_BIASES];
    float bias_values[WL_SAMPLING_MAX_BIASES];
} request;

static float number (const json_t *json, const char *name, float otherwise)
{
    const json_t *value = json_object_get (json, name);
    return value ? (float) json_number_value (value) : otherwise;
}

static uint32_t whole (const json_t *json, const char *name, uint32_t otherwise)
{
    const json_t *value = json_object_get (json, name);
    return value ? (uint32_t) json_integer_value (value) : otherwise;
}

static void read_lists (const json_t *json, request *r)
{
    size_t i;
    json_t *pair;
    json_array_foreach (json_object_get (json, "history"), i, pair) if (i < WL_SAMPLING_MAX_HISTORY)
        r->history[r->draw.n_history++] = wl_history_entry ((int32_t) json_integer_value (json_array_get (pair, 0)),
                                                            json_is_true (json_array_get (pair, 1)));
    json_array_foreach (json_object_get (json, "biases"), i, pair) if (i < WL_SAMPLING_MAX_BIASES)
    {
        const json_t *value = json_array_get (pair, 1);
        r->bias_tokens[i] = (uint32_t) json_integer_value (json_array_get (pair, 0));
        r->bias_values[i] = json_is_null (value) ? -INFINITY : (float) json_number_value (value);
        r->sampling.n_biases++;
    }
    r->draw.history = r->history;
    r->sampling.bias_tokens = r->bias_tokens;
    r->sampling.bias_values = r->bias_values;
}

/* Fields that are not given are off. */
static void read_request (const json_t *json, request *r)
{
    *r = (request){0};
    r->sampling = (wl_sampling){.temperature = number (json, "temperature", 1),
                                .top_k = whole (json, "top_k", 0),
                                .top_p = number (json, "top_p", 1),
                                .min_p = number (json, "min_p", 0),
                                .seed = (uint64_t) json_integer_value (json_object_get (json, "seed")),
                                .typical_p = number (json, "typical_p", 0),
                                .top_n_sigma = number (json, "top_n_sigma", 0),
                                .dynatemp_range = number (json, "dynatemp_range", 0),
                                .dynatemp_exponent = number (json, "dynatemp_exponent", 1),
                                .xtc_probability = number (json, "xtc_probability", 0),
                                .xtc_threshold = number (json, "xtc_threshold", 0.1f),
                                .repeat_penalty = number (json, "repeat_penalty", 0),
                                .presence_penalty = number (json, "presence_penalty", 0),
                                .frequency_penalty = number (json, "frequency_penalty", 0),
                                .repeat_last_n = whole (json, "repeat_last_n", 64),
                                .dry_multiplier = number (json, "dry_multiplier", 0),
                                .dry_base = number (json, "dry_base", 1.75f),
                                .dry_allowed_length = whole (json, "dry_allowed_length", 2),
                                .dry_last_n = whole (json, "dry_last_n", 1024),
                                .mirostat = whole (json, "mirostat", 0),
                                .mirostat_entropy = number (json, "mirostat_entropy", 5),
                                .mirostat_rate = number (json, "mirostat_rate", 0.1f),
                                .wants_logprob = json_is_true (json_object_get (json, "wants_logprob")),
                                .n_alternatives = whole (json, "n_alternatives", 0)};
    r->row = whole (json, "row", 0);
    r->n_positions = whole (json, "positions", 1);
    r->draw.position = whole (json, "position", 0);
    read_lists (json, r);
    r->draw.sampling = &r->sampling;
    r->draw.mirostat_mu = json_object_get (json, "mu") ? json_number_value (json_object_get (json, "mu"))
                                                       : wl_sampling_first_mu (&r->sampling);
}

static json_t *sample_json (const wl_sample *sample)
{
    json_t *alternatives = json_array ();
    for (uint32_t i = 0; i < sample->n_alternatives; i++)
        json_array_append_new (
            alternatives, json_pack ("[i,f]", (int) sample->alternatives[i], (double) sample->alternative_logprobs[i]));
    return json_pack ("[i,f,f,o]", (int) sample->token, (double) sample->logprob, sample->mirostat_mu, alternatives);
}

static bool answer (wl_sampler *sampler, const float *logits, size_t n_vocab, size_t n_rows, const char *line,
                    request *r, wl_error *err)
{
    json_error_t problem;
    json_t *json = json_loads (line, 0, &problem), *samples = json_array ();
    bool ok = false;
    if (!json) {
        wl_fail (err, WL_ERROR_INPUT, "a case that is no JSON: %s", problem.text);
        goto done;
    }
    read_request (json, r);
    if (r->row >= n_rows) {
        wl_fail (err, WL_ERROR_INPUT, "row %zu of %zu", r->row, n_rows);
        goto done;
    }
    if (!wl_sampling_check (&r->sampling, err))
        goto done;
    for (size_t i = 0; i < r->n_positions; i++) {
        wl_sample sample;
        if (!wl_sampler_draw (sampler, logits + r->row * n_vocab, &r->draw, &sample, err))
            goto done;
        json_array_append_new (samples, sample_json (&sample));
        r->draw.position++;
        r->draw.mirostat_mu = sample.mirostat_mu;
    }
    json_dumpf (samples, stdout, JSON_COMPACT | JSON_REAL_PRECISION (17));
    putchar ('\n');
    ok = true;
done:
    json_decref (json);
    json_decref (samples);
    return ok;
}

static bool answer_all (const char *path, size_t n_vocab, wl_error *err)
{
    char *line = NULL;
    size_t room = 0, n_rows = 0;
    bool ok = false;
    FILE *file = fopen (path, "rb");
    wl_sampler *sampler = wl_sampler_new (n_vocab, err);
    request *r = wl_new (1, sizeof *r, err);
    float *logits = NULL;
    if (!file) {
        wl_fail (err, WL_ERROR_INPUT, "%s: cannot be opened", path);
        goto done;
    }
    fseek (file, 0, SEEK_END);
    n_rows = (size_t) ftell (file) / sizeof *logits / n_vocab;
    rewind (file);
    logits = wl_new (n_rows * n_vocab, sizeof *logits, err);
    if (!sampler || !r || !logits)
        goto done;
    if (fread (logits, sizeof *logits, n_rows * n_vocab, file) != n_rows * n_vocab) {
        wl_fail (err, WL_ERROR_INPUT, "%s: cannot be read", path);
        goto done;
    }
    ok = true;
    while (ok && getline (&line, &room, stdin) > 0)
        ok = answer (sampler, logits, n_vocab, n_rows, line, r, err);
done:
    if (file)
        fclose (file);
    free (line);
    free (logits);
    free (r);
    wl_sampler_free (&sampler);
    return ok;
}

/* -- timing ----------------------------------------------------------------------------------------------------------------------------------------------- */

static double now_us (void)
{
    struct timespec t;
    clock_gettime (CLOCK_MONOTONIC, &t);
    return (double) t.tv_sec * 1e6 + (double) t.tv_nsec * 1e-3;
}

static int by_value (const void *a, const void *b)
{
    double x = *(const double *) a, y = *(const double *) b;
    return x < y ? -1 : x > y;
}

/* Logits like a model's: a bell of width 3 and a few far above it. */
static void fill_logits (float *logits, size_t n_vocab)
{
    for (size_t i = 0; i < n_vocab; i++) {
        double sum = 0;
        for (uint32_t term = 0; term < 12; term++)
            sum += wl_sampling_uniform (term, i, 0);
        logits[i] = (float) (3 * (sum - 6) + (i % 1009 == 0 ? 9 * wl_sampling_uniform (99, i, 0) : 0));
    }
}

static bool bench (size_t n_vocab, wl_error *err)
{
    enum { ROUNDS = 101, HISTORY = 1024 };
    const struct {
        const char *name;
        wl_sampling sampling;
    } cases[] = {
        {"greedy", {.temperature = 0, .top_p = 1}},
        {"top-k 40, top-p 0.95, min-p 0.05", {.temperature = 0.8f, .top_k = 40, .top_p = 0.95f, .min_p = 0.05f}},
        {"the same with penalties over 1024 tokens",
         {.temperature = 0.8f, .top_k = 40, .top_p = 0.95f, .repeat_penalty = 1.1f, .repeat_last_n = HISTORY}},
        {"the same with DRY over 1024 tokens",
         {.temperature = 0.8f,
          .top_k = 40,
          .top_p = 0.95f,
          .dry_multiplier = 0.8f,
          .dry_base = 1.75f,
          .dry_allowed_length = 2,
          .dry_last_n = HISTORY}},
        {"top-k 40, 20 logprobs",
         {.temperature = 0.8f, .top_k = 40, .top_p = 1, .wants_logprob = true, .n_alternatives = 20}},
        {"top-k 40, dynamic temperature",
         {.temperature = 0.8f, .top_k = 40, .top_p = 1, .dynatemp_range = 0.5f, .dynatemp_exponent = 1}},
        {"min-p 0.05", {.temperature = 0.8f, .top_p = 1, .min_p = 0.05f}},
        {"top-n-sigma 1", {.temperature = 0.8f, .top_p = 1, .top_n_sigma = 1}},
        {"mirostat 2", {.temperature = 0.8f, .top_p = 1, .mirostat = 2, .mirostat_entropy = 5, .mirostat_rate = 0.1f}},
        {"top-p 0.95 of the whole vocabulary", {.temperature = 0.8f, .top_p = 0.95f}},
        {"the whole vocabulary", {.temperature = 0.8f, .top_p = 1}},
    };
    bool ok = false;
    double times[ROUNDS];
    float *logits = wl_new (n_vocab, sizeof *logits, err);
    uint32_t *history = wl_new (HISTORY, sizeof *history, err);
    wl_sampler *sampler = wl_sampler_new (n_vocab, err);
    if (!logits || !history || !sampler)
        goto done;
    fill_logits (logits, n_vocab);
    for (size_t i = 0; i < HISTORY; i++)
        history[i] = wl_history_entry ((int32_t) (i * i % 251 % n_vocab), false);
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        for (size_t round = 0; round < ROUNDS; round++) {
            wl_draw draw = {&cases[c].sampling, round, history, HISTORY, wl_sampling_first_mu (&cases[c].sampling)};
            wl_sample sample;
            double start = now_us ();
            if (!wl_sampler_draw (sampler, logits, &draw, &sample, err))
                goto done;
            times[round] = now_us () - start;
        }
        qsort (times, ROUNDS, sizeof *times, by_value);
        printf ("%-42s %8.0f us (least %.0f)\n", cases[c].name, times[ROUNDS / 2], times[0]);
    }
    ok = true;
done:
    wl_sampler_free (&sampler);
    free (history);
    free (logits);
    return ok;
}

int main (int argc, char **argv)
{
    wl_error err = {0};
    bool times = argc == 3 && strcmp (argv[1], "--bench") == 0;
    size_t n_vocab = argc == 3 ? strtoul (argv[2], NULL, 10) : 0;
    if (n_vocab == 0 || n_vocab > 1 << 24)
        wl_fail (&err, WL_ERROR_USAGE, "usage: sample (LOGITS | --bench) N_VOCAB");
    else if (times)
        bench (n_vocab, &err);
    else
        answer_all (argv[1], n_vocab, &err);
    if (err.code != WL_OK)
        fprintf (stderr, "sample: %s\n", err.text);
    return err.code;
}
