/* Sampling: greedy, the filters, and that a draw depends on (logits, parameters, seed, position) alone. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

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

static void parameters_out_of_range_are_refused (void **state)
{
    (void) state;
    const wl_sampling bad[] = {
        {.temperature = -1, .top_p = 1}, {.temperature = NAN, .top_p = 1}, {.top_p = 0}, {.top_p = 1.5f},
        {.top_p = 1, .min_p = -0.1f},    {.top_p = 1, .min_p = 2}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        wl_error err = {0};
        assert_false (wl_sampling_check (&bad[i], &err));
        assert_int_equal (err.code, WL_ERROR_USAGE);
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
        cmocka_unit_test (parameters_out_of_range_are_refused),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
