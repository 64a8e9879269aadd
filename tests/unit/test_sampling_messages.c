/* Sampling parameters and samples as messages: every field crosses, and lists of any length are bounded before anybody reads them. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/memory.h"
#include "proto/sampling.h"
#include "proto/wire.h"

static const uint32_t bias_tokens[2] = {7, 100000};
static const float bias_values[2] = {-INFINITY, 2.5f};

/* One with every field other than its default, and one with mirostat, which the others exclude. */
static const wl_sampling samplings[] = {
    {.temperature = 0.9f,
     .top_k = 7,
     .top_p = 0.8f,
     .min_p = 0.1f,
     .seed = UINT64_MAX,
     .typical_p = 0.7f,
     .top_n_sigma = 3,
     .dynatemp_range = 0.4f,
     .dynatemp_exponent = 2,
     .xtc_probability = 0.5f,
     .xtc_threshold = 0.3f,
     .repeat_penalty = 1.2f,
     .presence_penalty = -0.25f,
     .frequency_penalty = 0.75f,
     .repeat_last_n = 99,
     .dry_multiplier = 0.6f,
     .dry_base = 1.5f,
     .dry_allowed_length = 3,
     .dry_last_n = 777,
     .mirostat_entropy = 4.5f,
     .mirostat_rate = 0.01f,
     .wants_logprob = true,
     .n_alternatives = 11,
     .n_biases = 2,
     .bias_tokens = bias_tokens,
     .bias_values = bias_values},
    {.temperature = 1, .top_p = 1, .mirostat = 2, .mirostat_entropy = 3, .mirostat_rate = 0.2f},
};

static void assert_same_sampling (const wl_sampling *a, const wl_sampling *b)
{
#define SAME(field) assert_memory_equal (&a->field, &b->field, sizeof a->field)
    SAME (temperature);
    SAME (top_k);
    SAME (top_p);
    SAME (min_p);
    SAME (seed);
    SAME (typical_p);
    SAME (top_n_sigma);
    SAME (dynatemp_range);
    SAME (dynatemp_exponent);
    SAME (xtc_probability);
    SAME (xtc_threshold);
    SAME (repeat_penalty);
    SAME (presence_penalty);
    SAME (frequency_penalty);
    SAME (repeat_last_n);
    SAME (dry_multiplier);
    SAME (dry_base);
    SAME (dry_allowed_length);
    SAME (dry_last_n);
    SAME (mirostat);
    SAME (mirostat_entropy);
    SAME (mirostat_rate);
    SAME (wants_logprob);
    SAME (n_alternatives);
    SAME (n_biases);
#undef SAME
    for (size_t i = 0; i < a->n_biases; i++) {
        assert_int_equal (a->bias_tokens[i], b->bias_tokens[i]);
        assert_true (a->bias_values[i] == b->bias_values[i]);
    }
}

/* A step of one row and one pick. */
typedef struct one_step {
    Woolly__Step message;
    Woolly__Pick pick, *picks[1];
    Woolly__Sampling sampling;
} one_step;

static void fill (one_step *s, const wl_sampling *sampling)
{
    woolly__step__init (&s->message);
    woolly__pick__init (&s->pick);
    wl_sampling_pack (sampling, &s->sampling);
    s->pick.sampling = &s->sampling;
    s->picks[0] = &s->pick;
    s->message.n_picks = 1;
    s->message.picks = s->picks;
}

static Woolly__Step *cross (const one_step *s, wl_error *err)
{
    size_t length = woolly__step__get_packed_size (&s->message);
    uint8_t *bytes = malloc (length);
    woolly__step__pack (&s->message, bytes);
    Woolly__Step *step = wl_step_decode (bytes, length, err);
    free (bytes);
    return step;
}

static void every_parameter_crosses (void **state)
{
    (void) state;
    const uint32_t history[3] = {wl_history_entry (5, true), wl_history_entry (INT32_MAX, false), 0};
    for (size_t i = 0; i < sizeof samplings / sizeof samplings[0]; i++) {
        one_step s;
        wl_error err = {0};
        wl_sampling back;
        fill (&s, &samplings[i]);
        s.pick.n_history = 3;
        s.pick.history = (uint32_t *) history;
        s.pick.mirostat_mu = 0.1;
        Woolly__Step *step = cross (&s, &err);
        assert_non_null (step);
        assert_true (wl_sampling_unpack (step->picks[0]->sampling, &back, &err));
        assert_same_sampling (&samplings[i], &back);
        assert_int_equal (step->picks[0]->n_history, 3);
        assert_memory_equal (step->picks[0]->history, history, sizeof history);
        assert_true (step->picks[0]->mirostat_mu == 0.1);
        wl_step_free (&step);
    }
}

static void every_part_of_a_sample_crosses (void **state)
{
    (void) state;
    wl_sample sample = {
        .token = 123456, .logprob = -0.3f, .n_alternatives = WL_SAMPLING_MAX_ALTERNATIVES, .mirostat_mu = 9.7};
    wl_error err = {0};
    for (uint32_t i = 0; i < sample.n_alternatives; i++) {
        sample.alternatives[i] = i * 1000;
        sample.alternative_logprobs[i] = -(float) i;
    }
    Woolly__Sample message, *samples[1] = {&message};
    Woolly__Result result = WOOLLY__RESULT__INIT;
    uint8_t bytes[1024];
    wl_sample back;
    wl_sample_pack (&sample, &message);
    result.n_samples = 1;
    result.samples = samples;
    Woolly__Result *decoded = wl_result_decode (bytes, woolly__result__pack (&result, bytes), &err);
    assert_non_null (decoded);
    wl_sample_unpack (decoded->samples[0], &back);
    wl_result_free (&decoded);
    assert_int_equal (back.token, sample.token);
    assert_true (back.logprob == sample.logprob && back.mirostat_mu == sample.mirostat_mu);
    assert_int_equal (back.n_alternatives, sample.n_alternatives);
    assert_memory_equal (back.alternatives, sample.alternatives, sizeof sample.alternatives);
    assert_memory_equal (back.alternative_logprobs, sample.alternative_logprobs, sizeof sample.alternative_logprobs);
}

static void lists_beyond_their_bounds_are_refused (void **state)
{
    (void) state;
    enum { MOST = WL_SAMPLING_MAX_HISTORY + 1 };
    static uint32_t words[MOST];
    static float values[MOST];
    const struct {
        size_t n_history, n_bias_tokens, n_bias_values;
        bool ok;
    } cases[] = {{WL_SAMPLING_MAX_HISTORY, WL_SAMPLING_MAX_BIASES, WL_SAMPLING_MAX_BIASES, true},
                 {WL_SAMPLING_MAX_HISTORY + 1, 0, 0, false},
                 {0, WL_SAMPLING_MAX_BIASES + 1, WL_SAMPLING_MAX_BIASES + 1, false},
                 {0, 2, 1, false},
                 {0, 0, 1, false}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        one_step s;
        wl_error err = {0};
        fill (&s, &samplings[1]);
        s.pick.n_history = cases[i].n_history;
        s.pick.history = words;
        s.sampling.n_bias_tokens = cases[i].n_bias_tokens;
        s.sampling.bias_tokens = words;
        s.sampling.n_bias_values = cases[i].n_bias_values;
        s.sampling.bias_values = values;
        Woolly__Step *step = cross (&s, &err);
        assert_int_equal (step != NULL, cases[i].ok);
        assert_int_equal (err.code, cases[i].ok ? WL_OK : WL_ERROR_CLUSTER);
        wl_step_free (&step);
    }
}

static void alternatives_beyond_their_bounds_are_refused (void **state)
{
    (void) state;
    const struct {
        size_t n_alternatives, n_logprobs;
        bool ok;
    } cases[] = {{20, 20, true}, {21, 21, false}, {2, 1, false}, {0, 1, false}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint32_t words[21] = {0};
        float values[21] = {0};
        uint8_t bytes[512];
        wl_error err = {0};
        Woolly__Sample sample = WOOLLY__SAMPLE__INIT, *samples[1] = {&sample};
        Woolly__Result result = WOOLLY__RESULT__INIT;
        sample.n_alternatives = cases[i].n_alternatives;
        sample.alternatives = words;
        sample.n_alternative_logprobs = cases[i].n_logprobs;
        sample.alternative_logprobs = values;
        result.n_samples = 1;
        result.samples = samples;
        Woolly__Result *decoded = wl_result_decode (bytes, woolly__result__pack (&result, bytes), &err);
        assert_int_equal (decoded != NULL, cases[i].ok);
        assert_int_equal (err.code, cases[i].ok ? WL_OK : WL_ERROR_CLUSTER);
        wl_result_free (&decoded);
    }
}

static void a_peers_bad_parameters_are_no_usage_error_of_the_user (void **state)
{
    (void) state;
    Woolly__Sampling message;
    wl_sampling back;
    wl_error err = {0};
    wl_sampling_pack (&samplings[0], &message);
    message.temperature = -1;
    assert_false (wl_sampling_unpack (&message, &back, &err));
    assert_int_equal (err.code, WL_ERROR_INTERNAL);
    assert_non_null (strstr (err.text, "--temp -1"));
}

int main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (every_parameter_crosses),
        cmocka_unit_test (every_part_of_a_sample_crosses),
        cmocka_unit_test (lists_beyond_their_bounds_are_refused),
        cmocka_unit_test (alternatives_beyond_their_bounds_are_refused),
        cmocka_unit_test (a_peers_bad_parameters_are_no_usage_error_of_the_user),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
