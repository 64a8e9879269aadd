/* Sampling: by hand what a few draws must give, what is refused, and that a draw depends on what is handed in alone. That every formula is
 * followed token for token is tests/cluster/test_sampler_formulas.py. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/memory.h"
#include "engine/text/sampler.h"

enum { N = 6 };

static const float logits[N] = {1.0f, 3.0f, 2.0f, 3.0f, -INFINITY, 0.0f};

static int32_t draw (const wl_sampling *sampling, uint64_t position)
{
    wl_error err = {0};
    wl_sample sample;
    wl_sampler *sampler = wl_sampler_new (N, &err);
    assert_true (
        wl_sampler_draw (sampler, logits, &(wl_draw){.sampling = sampling, .position = position}, &sample, &err));
    wl_sampler_free (&sampler);
    return sample.token;
}

static void greedy_takes_the_best_and_the_first_of_equals (void **state)
{
    (void) state;
    assert_int_equal (draw (&(wl_sampling){.temperature = 0, .top_p = 1}, 5), 1);
}

static void the_logprob_is_of_the_unmodified_distribution (void **state)
{
    (void) state;
    wl_error err = {0};
    wl_sample sample;
    wl_sampler *sampler = wl_sampler_new (N, &err);
    wl_sampling sampling = {.temperature = 0.1f, .top_k = 1, .top_p = 1, .wants_logprob = true};
    wl_sampler_draw (sampler, logits, &(wl_draw){.sampling = &sampling}, &sample, &err);
    double sum = exp (1.0) + 2 * exp (3.0) + exp (2.0) + exp (0.0);
    assert_true (fabs ((double) sample.logprob - (3.0 - log (sum))) < 1e-6);
    wl_sampler_free (&sampler);
}

/* How often each token is drawn over many positions. */
static void count_draws (const wl_sampling *sampling, size_t n, size_t counts[N])
{
    wl_error err = {0};
    wl_sampler *sampler = wl_sampler_new (N, &err);
    for (size_t i = 0; i < N; i++)
        counts[i] = 0;
    for (size_t position = 0; position < n; position++) {
        wl_sample sample;
        assert_true (
            wl_sampler_draw (sampler, logits, &(wl_draw){.sampling = sampling, .position = position}, &sample, &err));
        counts[sample.token]++;
    }
    wl_sampler_free (&sampler);
}

static void frequencies_follow_the_softmax (void **state)
{
    (void) state;
    enum { DRAWS = 200000 };
    static const float temperatures[] = {0.5f, 1.0f, 2.0f};
    for (size_t round = 0; round < 3; round++) {
        float temperature = temperatures[round];
        size_t counts[N];
        double sum = 0;
        count_draws (&(wl_sampling){.temperature = temperature, .top_p = 1, .seed = 11}, DRAWS, counts);
        for (size_t i = 0; i < N; i++)
            sum += exp ((double) logits[i] / (double) temperature);
        for (size_t i = 0; i < N; i++) {
            double p = exp ((double) logits[i] / (double) temperature) / sum, deviation = sqrt (p * (1 - p) / DRAWS);
            assert_true (fabs ((double) counts[i] / DRAWS - p) <= 5 * deviation);
        }
        assert_int_equal (counts[4], 0);
    }
}

static void filters_keep_what_their_definitions_say (void **state)
{
    (void) state;
    /* probabilities at temperature 1: two of 0.373, one of 0.137, 0.050, 0.019 after normalising; order 1 3 2 0 5 */
    const struct {
        wl_sampling sampling;
        int kept[N];
    } cases[] = {
        {{.temperature = 1, .top_k = 2, .top_p = 1}, {0, 1, 0, 1, 0, 0}},
        {{.temperature = 1, .top_k = 3, .top_p = 1}, {0, 1, 1, 1, 0, 0}},
        {{.temperature = 1, .top_p = 0.30f}, {0, 1, 0, 0, 0, 0}},
        {{.temperature = 1, .top_p = 0.80f}, {0, 1, 1, 1, 0, 0}},
        {{.temperature = 1, .top_p = 1, .min_p = 0.2f}, {0, 1, 1, 1, 0, 0}},
        {{.temperature = 1, .top_p = 1, .min_p = 1}, {0, 1, 0, 1, 0, 0}},
        {{.temperature = 1, .top_p = 1, .top_k = 1000}, {1, 1, 1, 1, 0, 1}},
    };
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        size_t counts[N];
        count_draws (&cases[c].sampling, 5000, counts);
        for (size_t i = 0; i < N; i++)
            assert_int_equal (counts[i] > 0, cases[c].kept[i]);
    }
}

static void a_draw_depends_on_seed_and_position_alone (void **state)
{
    (void) state;
    wl_sampling one = {.temperature = 1, .top_p = 1, .seed = 1}, two = one;
    size_t differ = 0;
    two.seed = 2;
    for (uint64_t position = 0; position < 200; position++) {
        assert_int_equal (draw (&one, position), draw (&one, position));
        differ += draw (&one, position) != draw (&two, position);
    }
    assert_true (differ > 50);
}

static void the_random_numbers_are_even (void **state)
{
    (void) state;
    size_t bins[16] = {0};
    for (uint64_t seed = 0; seed < 100; seed++)
        for (uint64_t position = 0; position < 1000; position++) {
            double u = wl_sampling_uniform (seed, position, 0);
            assert_true (u >= 0 && u < 1);
            bins[(size_t) (u * 16)]++;
        }
    for (size_t i = 0; i < 16; i++)
        assert_in_range (bins[i], 6250 - 400, 6250 + 400);
}

static void logits_that_are_not_numbers_fail (void **state)
{
    (void) state;
    const float nan_row[2] = {1, NAN}, empty_row[2] = {-INFINITY, -INFINITY}, infinite_row[2] = {0, INFINITY};
    const float *rows[] = {nan_row, empty_row, infinite_row};
    wl_error err = {0};
    wl_sampler *sampler = wl_sampler_new (2, &err);
    for (size_t i = 0; i < 3; i++) {
        wl_error why = {0};
        wl_sample sample;
        assert_false (
            wl_sampler_draw (sampler, rows[i], &(wl_draw){.sampling = &(wl_sampling){.top_p = 1}}, &sample, &why));
        assert_int_equal (why.code, WL_ERROR_INTERNAL);
    }
    wl_sampler_free (&sampler);
}

/* The token that greedy takes after a history, and what is left of its logit's lead. */
static int32_t greedy_after (wl_sampling sampling, const int32_t *tokens, size_t n, const bool *breaks)
{
    wl_error err = {0};
    wl_sample sample;
    uint32_t history[16];
    wl_sampler *sampler = wl_sampler_new (N, &err);
    for (size_t i = 0; i < n; i++)
        history[i] = wl_history_entry (tokens[i], breaks && breaks[i]);
    sampling.temperature = 0;
    sampling.top_p = 1;
    wl_draw draw = {.sampling = &sampling, .history = history, .n_history = n};
    assert_true (wl_sampler_draw (sampler, logits, &draw, &sample, &err));
    wl_sampler_free (&sampler);
    return sample.token;
}

static void penalties_take_from_tokens_of_the_history (void **state)
{
    (void) state;
    const int32_t seen[] = {1, 3, 3};
    /* logits 1 3 2 3 - 0 */
    assert_int_equal (greedy_after ((wl_sampling){.repeat_last_n = 64}, seen, 3, NULL), 1);
    assert_int_equal (greedy_after ((wl_sampling){.repeat_penalty = 2, .repeat_last_n = 64}, seen, 3, NULL), 2);
    assert_int_equal (greedy_after ((wl_sampling){.repeat_penalty = 2, .repeat_last_n = 2}, seen, 3, NULL), 1);
    assert_int_equal (greedy_after ((wl_sampling){.repeat_penalty = 1.2f, .repeat_last_n = 64}, seen, 3, NULL), 1);
    assert_int_equal (greedy_after ((wl_sampling){.presence_penalty = 0.5f, .repeat_last_n = 1}, seen, 3, NULL), 1);
    assert_int_equal (greedy_after ((wl_sampling){.presence_penalty = 1.5f, .repeat_last_n = 9}, seen, 3, NULL), 2);
    assert_int_equal (greedy_after ((wl_sampling){.frequency_penalty = -1, .repeat_last_n = 64}, seen, 3, NULL), 3);
    assert_int_equal (
        greedy_after ((wl_sampling){.presence_penalty = -100, .repeat_last_n = 64}, (int32_t[]){4, 5}, 2, NULL),
        5); /* a forbidden token stays forbidden */
}

static void dry_takes_from_the_token_that_would_repeat (void **state)
{
    (void) state;
    const wl_sampling dry = {.dry_multiplier = 1, .dry_base = 2, .dry_allowed_length = 2, .dry_last_n = 16};
    const int32_t loop[] = {0, 5, 1, 2, 0, 5}, once[] = {0, 5, 1, 2, 3, 5};
    const bool last_breaks[] = {false, false, false, false, false, true};
    const bool next_breaks[] = {false, false, true, false, false, false};
    assert_int_equal (greedy_after (dry, loop, 6, NULL), 3);        /* 0 5 would go on with 1 */
    assert_int_equal (greedy_after (dry, once, 6, NULL), 1);        /* only 5 is repeated */
    assert_int_equal (greedy_after (dry, loop, 6, last_breaks), 1); /* nothing reaches over a breaker */
    assert_int_equal (greedy_after (dry, loop, 6, next_breaks), 1); /* which is not penalised itself */
    wl_sampling near = dry;
    near.dry_last_n = 3;
    assert_int_equal (greedy_after (near, loop, 6, NULL), 1);
}

static void a_bias_forbids_or_forces_a_token (void **state)
{
    (void) state;
    const uint32_t tokens[] = {1, 3, 5};
    const float forbid[] = {-INFINITY, -INFINITY, 0}, force[] = {0, 0, 100};
    wl_sampling sampling = {.n_biases = 3, .bias_tokens = tokens, .bias_values = forbid};
    assert_int_equal (greedy_after (sampling, NULL, 0, NULL), 2);
    sampling.bias_values = force;
    assert_int_equal (greedy_after (sampling, NULL, 0, NULL), 5);
}

static void zeros_of_either_sign_are_equal (void **state)
{
    (void) state;
    const float row[4] = {-1, -0.0f, 0.0f, -0.0f};
    wl_error err = {0};
    wl_sample sample;
    wl_sampling sampling = {.top_p = 1, .wants_logprob = true, .n_alternatives = 20};
    wl_sampler *sampler = wl_sampler_new (4, &err);
    assert_true (wl_sampler_draw (sampler, row, &(wl_draw){.sampling = &sampling}, &sample, &err));
    assert_int_equal (sample.token, 1);
    assert_int_equal (sample.n_alternatives, 4);
    assert_memory_equal (sample.alternatives, ((const uint32_t[]){1, 2, 3, 0}), 4 * sizeof (uint32_t));
    wl_sampler_free (&sampler);
}

static void mirostat_keeps_its_mu_in_the_samples (void **state)
{
    (void) state;
    wl_error err = {0};
    wl_sample sample;
    wl_sampling sampling = {.temperature = 1, .top_p = 1, .mirostat = 2, .mirostat_entropy = 1, .mirostat_rate = 0.5f};
    wl_sampler *sampler = wl_sampler_new (N, &err);
    wl_draw draw = {.sampling = &sampling, .mirostat_mu = wl_sampling_first_mu (&sampling)};
    assert_true (draw.mirostat_mu == 2);
    draw.mirostat_mu = 0.1; /* keeps one token, of p = 1: no surprise */
    assert_true (wl_sampler_draw (sampler, logits, &draw, &sample, &err));
    assert_int_equal (sample.token, 1);
    assert_true (fabs (sample.mirostat_mu - 0.6) < 1e-12);
    const double hostile[] = {NAN, INFINITY, -INFINITY, 1e300, -1e300};
    for (size_t i = 0; i < sizeof hostile / sizeof hostile[0]; i++) {
        draw.mirostat_mu = hostile[i];
        assert_true (wl_sampler_draw (sampler, logits, &draw, &sample, &err));
        assert_in_range (sample.token, 0, N - 1);
    }
    wl_sampler_free (&sampler);
}

static void only_mirostat_depends_on_earlier_draws (void **state)
{
    (void) state;
    wl_sampling all = wl_sampling_default ();
    all.typical_p = 0.5f;
    all.xtc_probability = all.repeat_penalty = all.dry_multiplier = all.top_n_sigma = all.dynatemp_range = 0.5f;
    assert_false (wl_sampling_depends_on_draws (&all));
    assert_true (wl_sampling_depends_on_draws (&(wl_sampling){.mirostat = 2}));
}

static void history_is_asked_for_only_where_a_parameter_looks_at_it (void **state)
{
    (void) state;
    wl_sampling s = wl_sampling_default ();
    assert_int_equal (wl_sampling_history (&s), 0);
    s.presence_penalty = 1;
    assert_int_equal (wl_sampling_history (&s), 64);
    s.dry_multiplier = 1;
    assert_int_equal (wl_sampling_history (&s), 1024);
    s.repeat_last_n = 2000;
    assert_int_equal (wl_sampling_history (&s), 2000);
}

static void tokens_beyond_the_vocabulary_fail (void **state)
{
    (void) state;
    wl_sampler *sampler = wl_sampler_new (N, &(wl_error){0});
    const uint32_t beyond[] = {0, N, 1u << 31}, entries[] = {0, wl_history_entry (N, false), UINT32_MAX};
    const float values[] = {1, 1, 1};
    for (size_t i = 0; i < 3; i++) {
        wl_error history_err = {0}, bias_err = {0};
        wl_sample sample;
        wl_sampling plain = {.top_p = 1},
                    biased = {.top_p = 1, .n_biases = 1, .bias_tokens = beyond + i, .bias_values = values};
        wl_draw draw = {.sampling = &plain, .history = entries + i, .n_history = 1};
        assert_int_equal (wl_sampler_draw (sampler, logits, &draw, &sample, &history_err), i == 0);
        draw = (wl_draw){.sampling = &biased};
        assert_int_equal (wl_sampler_draw (sampler, logits, &draw, &sample, &bias_err), i == 0);
        assert_int_equal (history_err.code, i ? WL_ERROR_INTERNAL : WL_OK);
        assert_int_equal (bias_err.code, i ? WL_ERROR_INTERNAL : WL_OK);
    }
    wl_sampler_free (&sampler);
}

static void forbidding_every_token_fails_with_a_sentence (void **state)
{
    (void) state;
    wl_error err = {0};
    wl_sample sample;
    const uint32_t tokens[N] = {0, 1, 2, 3, 4, 5};
    const float values[N] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY};
    wl_sampling sampling = {.top_p = 1, .n_biases = N, .bias_tokens = tokens, .bias_values = values};
    wl_sampler *sampler = wl_sampler_new (N, &err);
    assert_false (wl_sampler_draw (sampler, logits, &(wl_draw){.sampling = &sampling}, &sample, &err));
    assert_non_null (strstr (err.text, "bias"));
    wl_sampler_free (&sampler);
}

/* FNV-1a over every bit that a draw gives. */
static void hash (uint64_t *sum, const void *bytes, size_t n)
{
    const uint8_t *b = bytes;
    for (size_t i = 0; i < n; i++)
        *sum = (*sum ^ b[i]) * 0x100000001b3u;
}

static void fill_row (float *row, size_t n, uint32_t shape)
{
    for (size_t i = 0; i < n; i++) {
        double sum = 0;
        for (uint32_t term = 0; term < 12; term++)
            sum += wl_sampling_uniform (term + 100 * shape, i, 0);
        row[i] = (float) ((shape == 0 ? 3 : shape == 1 ? 0.1 : 1) * (sum - 6) + (shape == 2 && i % 97 == 0 ? 9 : 0));
    }
}

/* The sum is that of x86-64 by GCC and clang and of aarch64: whoever gets another has arithmetic of his own. Changing a formula changes it. */
static void draws_are_the_same_bits_on_every_platform (void **state)
{
    (void) state;
    enum { N_TOKENS = 4001, N_HISTORY = 64, DRAWS = 40 };
    static float row[N_TOKENS];
    uint32_t history[N_HISTORY];
    wl_sampling cases[] = {{.temperature = 1, .top_p = 1},
                           {.temperature = 0.8f, .top_k = 40, .top_p = 0.95f, .min_p = 0.05f},
                           {.temperature = 1.3f, .top_p = 1, .typical_p = 0.4f},
                           {.temperature = 1, .top_p = 0.9f, .dynatemp_range = 0.7f, .dynatemp_exponent = 1.7f},
                           {.temperature = 1, .top_p = 1, .top_n_sigma = 1.3f},
                           {.temperature = 1, .top_p = 1, .top_k = 50, .xtc_probability = 0.5f, .xtc_threshold = 0.02f},
                           {.temperature = 1, .top_p = 1, .mirostat = 2, .mirostat_entropy = 6, .mirostat_rate = 0.2f},
                           {.temperature = 1,
                            .top_p = 1,
                            .top_k = 100,
                            .repeat_penalty = 1.3f,
                            .presence_penalty = 0.3f,
                            .frequency_penalty = 0.2f,
                            .repeat_last_n = 50,
                            .dry_multiplier = 0.8f,
                            .dry_base = 1.75f,
                            .dry_allowed_length = 1,
                            .dry_last_n = 60}};
    wl_error err = {0};
    uint64_t sum = 0xcbf29ce484222325u;
    wl_sampler *sampler = wl_sampler_new (N_TOKENS, &err);
    for (size_t i = 0; i < N_HISTORY; i++)
        history[i] = wl_history_entry ((int32_t) (i * i % 13), i % 17 == 0);
    for (uint32_t shape = 0; shape < 3; shape++) {
        fill_row (row, N_TOKENS, shape);
        for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
            wl_draw draw = {&cases[c], 0, history, N_HISTORY, wl_sampling_first_mu (&cases[c])};
            cases[c].wants_logprob = true;
            cases[c].seed = c;
            for (; draw.position < DRAWS; draw.position++) {
                wl_sample sample;
                assert_true (wl_sampler_draw (sampler, row, &draw, &sample, &err));
                hash (&sum, &sample.token, sizeof sample.token);
                hash (&sum, &sample.logprob, sizeof sample.logprob);
                hash (&sum, &sample.mirostat_mu, sizeof sample.mirostat_mu);
                draw.mirostat_mu = sample.mirostat_mu;
            }
        }
    }
    wl_sampler_free (&sampler);
    assert_true (sum == 0xfd76fa8aac856c67u);
}

static void a_sampler_without_memory_is_not_made (void **state)
{
    (void) state;
    for (unsigned nth = 1; nth < 20; nth++) {
        wl_error err = {0};
        wl_memory_fail_after (nth);
        wl_sampler *sampler = wl_sampler_new (1000, &err);
        wl_memory_fail_after (0);
        assert_int_equal (sampler == NULL, err.code != WL_OK);
        assert_int_equal (sampler == NULL, nth <= 9);
        wl_sampler_free (&sampler);
    }
}

static void parameters_out_of_range_are_refused (void **state)
{
    (void) state;
    const uint32_t tokens[1] = {1};
    const float infinite[1] = {INFINITY}, large[1] = {1001};
    const struct {
        const char *flag;
        wl_sampling sampling;
    } bad[] = {
        {"--temp", {.temperature = -1, .top_p = 1}},
        {"--temp", {.temperature = NAN, .top_p = 1}},
        {"--top-p", {.top_p = 0}},
        {"--top-p", {.top_p = 1.5f}},
        {"--min-p", {.top_p = 1, .min_p = -0.1f}},
        {"--min-p", {.top_p = 1, .min_p = 2}},
        {"--typical", {.temperature = 1, .top_p = 1, .typical_p = 1.1f}},
        {"--top-nsigma", {.temperature = 1, .top_p = 1, .top_n_sigma = -1}},
        {"--dynatemp-range", {.temperature = 1, .top_p = 1, .dynatemp_range = 1.5f, .dynatemp_exponent = 1}},
        {"--dynatemp-exp", {.temperature = 1, .top_p = 1, .dynatemp_range = 0.5f}},
        {"--xtc-probability", {.temperature = 1, .top_p = 1, .xtc_probability = 2}},
        {"--xtc-threshold", {.temperature = 1, .top_p = 1, .xtc_probability = 1, .xtc_threshold = 0.51f}},
        {"--repeat-penalty", {.top_p = 1, .repeat_penalty = -1}},
        {"--repeat-last-n", {.top_p = 1, .repeat_penalty = 2, .repeat_last_n = 0}},
        {"--repeat-last-n", {.top_p = 1, .presence_penalty = 2, .repeat_last_n = 8193}},
        {"--presence-penalty", {.top_p = 1, .presence_penalty = 101, .repeat_last_n = 1}},
        {"--frequency-penalty", {.top_p = 1, .frequency_penalty = NAN, .repeat_last_n = 1}},
        {"--dry-multiplier", {.top_p = 1, .dry_multiplier = -1}},
        {"--dry-base", {.top_p = 1, .dry_multiplier = 1, .dry_allowed_length = 2, .dry_last_n = 9}},
        {"--dry-allowed-length", {.top_p = 1, .dry_multiplier = 1, .dry_base = 2, .dry_last_n = 9}},
        {"--dry-penalty-last-n", {.top_p = 1, .dry_multiplier = 1, .dry_base = 2, .dry_allowed_length = 2}},
        {"--mirostat", {.temperature = 1, .top_p = 1, .mirostat = 1}},
        {"--mirostat-ent", {.temperature = 1, .top_p = 1, .mirostat = 2}},
        {"--mirostat-lr", {.temperature = 1, .top_p = 1, .mirostat = 2, .mirostat_entropy = 1, .mirostat_rate = 2}},
        {"--top-k", {.temperature = 1, .top_p = 1, .top_k = 1, .mirostat = 2, .mirostat_entropy = 1}},
        {"--min-p", {.temperature = 1, .top_p = 1, .min_p = 0.1f, .mirostat = 2, .mirostat_entropy = 1}},
        {"--mirostat", {.temperature = 0, .top_p = 1, .mirostat = 2, .mirostat_entropy = 1}},
        {"--xtc-probability", {.temperature = 0, .top_p = 1, .xtc_probability = 1}},
        {"--logit-bias", {.top_p = 1, .n_biases = 1, .bias_tokens = tokens, .bias_values = infinite}},
        {"--logit-bias", {.top_p = 1, .n_biases = 1, .bias_tokens = tokens, .bias_values = large}},
        {"--logit-bias", {.top_p = 1, .n_biases = 1025}},
        {"--logprobs", {.top_p = 1, .n_alternatives = 21}},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        wl_error err = {0};
        assert_false (wl_sampling_check (&bad[i].sampling, &err));
        assert_int_equal (err.code, WL_ERROR_USAGE);
        assert_non_null (strstr (err.text, bad[i].flag));
    }
    wl_error err = {0};
    wl_sampling standard = wl_sampling_default ();
    assert_true (wl_sampling_check (&standard, &err));
}

int main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (greedy_takes_the_best_and_the_first_of_equals),
        cmocka_unit_test (the_logprob_is_of_the_unmodified_distribution),
        cmocka_unit_test (frequencies_follow_the_softmax),
        cmocka_unit_test (filters_keep_what_their_definitions_say),
        cmocka_unit_test (a_draw_depends_on_seed_and_position_alone),
        cmocka_unit_test (the_random_numbers_are_even),
        cmocka_unit_test (logits_that_are_not_numbers_fail),
        cmocka_unit_test (penalties_take_from_tokens_of_the_history),
        cmocka_unit_test (dry_takes_from_the_token_that_would_repeat),
        cmocka_unit_test (a_bias_forbids_or_forces_a_token),
        cmocka_unit_test (zeros_of_either_sign_are_equal),
        cmocka_unit_test (mirostat_keeps_its_mu_in_the_samples),
        cmocka_unit_test (only_mirostat_depends_on_earlier_draws),
        cmocka_unit_test (history_is_asked_for_only_where_a_parameter_looks_at_it),
        cmocka_unit_test (tokens_beyond_the_vocabulary_fail),
        cmocka_unit_test (forbidding_every_token_fails_with_a_sentence),
        cmocka_unit_test (draws_are_the_same_bits_on_every_platform),
        cmocka_unit_test (a_sampler_without_memory_is_not_made),
        cmocka_unit_test (parameters_out_of_range_are_refused),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
