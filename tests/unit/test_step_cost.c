/* What the scheduler concludes from what steps cost: chunks, groups and guesses, for curves as they were measured and for made-up ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "coordinator/step_cost.h"
#include "engine/memory.h"

static wl_step_cost *new_cost (uint32_t n_stages, uint32_t n_parallel)
{
    wl_error err = {0};
    wl_step_cost *cost = wl_step_cost_new (n_stages, n_parallel, &err);
    assert_non_null (cost);
    return cost;
}

/* Measures every row count up to 1024 several times, `base` for the step and `row` for each row. */
static void measure (wl_step_cost *cost, uint32_t n_stages, double base, double row)
{
    for (int round = 0; round < 40; round++)
        for (size_t n = 1; n <= 1024; n = n < 8 ? n + 1 : n + n / 2)
            for (uint32_t stage = 0; stage < n_stages; stage++)
                wl_step_cost_add (cost, stage, n, (uint64_t) ((base + row * (double) n) * 1e6));
}

static void what_was_measured_replaces_the_prior (void **state)
{
    (void) state;
    wl_step_cost *cost = new_cost (2, 2);
    measure (cost, 2, 30, 5);
    for (size_t n = 1; n <= 1024; n = n < 8 ? n + 1 : n + n / 2) {
        double expected = (30 + 5 * (double) n) * 1e6, one = wl_step_cost_slowest (cost, n);
        assert_true (one > 0.9 * expected && one < 1.1 * expected);
        assert_true (wl_step_cost_all (cost, n) > 1.8 * expected && wl_step_cost_all (cost, n) < 2.2 * expected);
    }
    wl_step_cost_free (&cost);
}

static void what_was_not_measured_follows_its_neighbours (void **state)
{
    (void) state;
    wl_step_cost *cost = new_cost (1, 1);
    double one = wl_step_cost_all (cost, 1), many = wl_step_cost_all (cost, 64);
    wl_step_cost_add (cost, 0, 1, 50000000);
    assert_true (wl_step_cost_all (cost, 1) > 49e6 && wl_step_cost_all (cost, 1) < 51e6);
    double scaled = wl_step_cost_all (cost, 64) / wl_step_cost_all (cost, 1);
    assert_true (scaled > 0.99 * many / one && scaled < 1.01 * many / one);
    wl_step_cost_free (&cost);
}

static void one_slow_step_changes_little (void **state)
{
    (void) state;
    wl_step_cost *cost = new_cost (1, 1);
    for (int i = 0; i < 10; i++)
        wl_step_cost_add (cost, 0, 4, 1000000);
    wl_step_cost_add (cost, 0, 4, 1000000000);
    assert_true (wl_step_cost_all (cost, 4) < 1.5e6);
    wl_step_cost_free (&cost);
}

static void chunks_are_equal_and_cover_the_prompt (void **state)
{
    (void) state;
    wl_step_cost *cost = new_cost (3, 3);
    measure (cost, 3, 35, 5.83);
    for (size_t n = 1; n <= 5000; n += n < 300 ? 1 : 97) {
        size_t rows = wl_step_cost_chunk (cost, n, 128), chunks = (n + rows - 1) / rows;
        assert_true (rows >= 1 && rows <= 128);
        assert_true (rows * chunks - n < chunks); /* the last one lacks less than a row for each of the others */
    }
    wl_step_cost_free (&cost);
}

static void more_stages_take_smaller_chunks (void **state)
{
    (void) state;
    size_t before = 129;
    for (uint32_t stages = 1; stages <= 8; stages *= 2) {
        wl_step_cost *cost = new_cost (stages, stages);
        measure (cost, stages, 35, 5.83);
        size_t rows = wl_step_cost_chunk (cost, 512, 128);
        assert_true (rows < before);
        before = rows;
        wl_step_cost_free (&cost);
    }
    assert_true (before <= 32);
}

static void one_stage_takes_the_largest_chunks (void **state)
{
    (void) state;
    wl_step_cost *cost = new_cost (1, 1);
    assert_int_equal (wl_step_cost_chunk (cost, 512, 128), 128);
    assert_int_equal (wl_step_cost_chunk (cost, 100, 128), 100);
    wl_step_cost_free (&cost);
}

static void a_chunk_keeps_others_waiting_no_longer_than_asked (void **state)
{
    (void) state;
    wl_step_cost *cost = new_cost (2, 2);
    measure (cost, 2, 20, 5);
    size_t rows = wl_step_cost_within (cost, 128, 250e6);
    assert_true (rows >= 32 && rows <= 50);
    assert_int_equal (wl_step_cost_within (cost, 128, 1), 16);
    assert_int_equal (wl_step_cost_within (cost, 5, 1), 5);
    wl_step_cost_free (&cost);
}

/* The cost of 1 to 8 rows of one thread on a Zen 3 core, in ms: four cost what two do. */
static void measure_zen3 (wl_step_cost *cost, uint32_t n_stages)
{
    static const double ms[] = {18.3, 33.9, 35.2, 38.1, 64.3, 70.2, 76, 82.2};
    for (int round = 0; round < 40; round++)
        for (size_t n = 1; n <= 8; n++)
            for (uint32_t stage = 0; stage < n_stages; stage++)
                wl_step_cost_add (cost, stage, n, (uint64_t) (ms[n - 1] * 1e6 * 2 / n_stages));
}

static void eight_streams_become_as_many_groups_as_stages_that_compute_at_once (void **state)
{
    (void) state;
    static const struct {
        uint32_t stages, parallel, groups;
    } cases[] = {{2, 2, 2}, {4, 2, 2}};
    for (size_t i = 0; i < 2; i++) {
        wl_step_cost *cost = new_cost (cases[i].stages, cases[i].parallel);
        measure_zen3 (cost, cases[i].stages);
        assert_int_equal (wl_step_cost_groups (cost, 8), cases[i].groups);
        assert_int_equal (wl_step_cost_groups (cost, 1), 1);
        wl_step_cost_free (&cost);
    }
}

/* Groups of four over two stages take 42 ms a round, one of eight takes 60; some steps last twice as long, which must not lead away from the better choice for good. */
static void a_slow_while_does_not_change_for_good_what_is_chosen (void **state)
{
    (void) state;
    static const double ms[] = {18, 18, 19, 21, 24, 26, 28, 30};
    wl_step_cost *cost = new_cost (2, 2);
    size_t n_apart = 0;
    for (int step = 0; step < 400; step++) {
        size_t groups = wl_step_cost_groups (cost, 8), rows = (8 + groups - 1) / groups;
        bool slow = step >= 40 && step < 60; /* long enough for one group to look better */
        for (uint32_t stage = 0; stage < 2; stage++)
            wl_step_cost_add (cost, stage, step ? rows : 8,
                              (uint64_t) (ms[(step ? rows : 8) - 1] * (slow ? 2e6 : 1e6)));
        n_apart += groups == 2;
    }
    assert_true (n_apart < 400); /* one group was tried, too */
    assert_true (n_apart > 300);
    wl_step_cost_free (&cost);
}

/* Two groups of four or one of eight: which was better stays while the other is no more than a little better. */
static void numbers_of_groups_that_cost_about_the_same_do_not_take_turns (void **state)
{
    (void) state;
    static const struct {
        double four_ms;
        uint32_t groups;
    } seen[] = {{18, 2}, {20.5, 2}, {23, 1}, {20.5, 1}, {19, 2}}; /* eight take 42 ms over two stages */
    wl_step_cost *cost = new_cost (2, 2);
    for (size_t i = 0; i < 5; i++) {
        for (int round = 0; round < 60; round++)
            for (uint32_t stage = 0; stage < 2; stage++) {
                wl_step_cost_add (cost, stage, 4, (uint64_t) (seen[i].four_ms * 1e6));
                wl_step_cost_add (cost, stage, 8, 21000000);
            }
        assert_int_equal (wl_step_cost_groups (cost, 8), seen[i].groups);
    }
    wl_step_cost_free (&cost);
}

static void streams_stay_together_where_rows_are_free (void **state)
{
    (void) state;
    wl_step_cost *cost = new_cost (1, 1);
    measure (cost, 1, 40, 0.1);
    assert_int_equal (wl_step_cost_groups (cost, 8), 1);
    wl_step_cost_free (&cost);
}

static void guesses_are_sent_as_far_as_they_pay (void **state)
{
    (void) state;
    double sure[15], unlikely[15];
    for (int i = 0; i < 15; i++) {
        sure[i] = 0.95;
        unlikely[i] = i ? 0 : 0.05;
    }
    wl_step_cost *cost = new_cost (2, 2);
    measure_zen3 (cost, 2);
    assert_int_equal (wl_step_cost_guesses (cost, 1, 1, sure, 7), 3); /* four rows */
    assert_int_equal (wl_step_cost_guesses (cost, 1, 1, unlikely, 7), 0);
    assert_int_equal (wl_step_cost_guesses (cost, 0, 0, sure, 7), 4);
    assert_int_equal (wl_step_cost_guesses (cost, 0, 0, sure, 0), 0);
    wl_step_cost_free (&cost);
    cost = new_cost (1, 1);
    measure (cost, 1, 40, 0.01);
    assert_int_equal (wl_step_cost_guesses (cost, 1, 1, sure, 15), 15);
    assert_int_equal (wl_step_cost_guesses (cost, 1, 1, unlikely, 15), 1);
    wl_step_cost_free (&cost);
    cost = new_cost (1, 1);
    measure (cost, 1, 0, 10); /* a row costs as much as a step */
    assert_int_equal (wl_step_cost_guesses (cost, 1, 1, sure, 15), 0);
    wl_step_cost_free (&cost);
}

static void a_lack_of_memory_is_an_error (void **state)
{
    (void) state;
    for (unsigned nth = 1; nth <= 2; nth++) {
        wl_error err = {0};
        wl_memory_fail_after (nth);
        wl_step_cost *cost = wl_step_cost_new (4, 2, &err);
        wl_memory_fail_after (0);
        assert_null (cost);
        assert_int_equal (err.code, WL_ERROR_INTERNAL);
    }
}

int main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (what_was_measured_replaces_the_prior),
        cmocka_unit_test (what_was_not_measured_follows_its_neighbours),
        cmocka_unit_test (one_slow_step_changes_little),
        cmocka_unit_test (chunks_are_equal_and_cover_the_prompt),
        cmocka_unit_test (more_stages_take_smaller_chunks),
        cmocka_unit_test (one_stage_takes_the_largest_chunks),
        cmocka_unit_test (a_chunk_keeps_others_waiting_no_longer_than_asked),
        cmocka_unit_test (eight_streams_become_as_many_groups_as_stages_that_compute_at_once),
        cmocka_unit_test (a_slow_while_does_not_change_for_good_what_is_chosen),
        cmocka_unit_test (numbers_of_groups_that_cost_about_the_same_do_not_take_turns),
        cmocka_unit_test (streams_stay_together_where_rows_are_free),
        cmocka_unit_test (guesses_are_sent_as_far_as_they_pay),
        cmocka_unit_test (a_lack_of_memory_is_an_error),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
