/* What a draft model keeps of a sequence, and when it pays. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "coordinator/draft_policy.h"
#include "coordinator/draft_sequence.h"
#include "engine/memory.h"

enum { CAPACITY = 200, N_VOCAB = 1000, ROWS = 8 };

/* -- sequences ----------------------------------------------------------------------------------------------------------------------- */

/* A draft whose K and V of a position are the token that stood there when it was computed; its guess is the sum of all of them. */
typedef struct fixture {
    wl_draft_sequence sequence;
    wl_draft_beliefs beliefs;
    int32_t tokens[CAPACITY]; /* the true ones */
    size_t n_known;
    int32_t kv[CAPACITY];
    size_t n_rows; /* computed, in all */
} fixture;

static void open_fixture (fixture *f)
{
    wl_error err = {0};
    *f = (fixture){0};
    assert_true (wl_draft_sequence_open (&f->sequence, CAPACITY, &err));
}

static int32_t guess_of (const int32_t *tokens, size_t n)
{
    int64_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += tokens[i] * (int64_t) (i + 1);
    return (int32_t) (sum % N_VOCAB);
}

static void know (fixture *f, int32_t token)
{
    f->tokens[f->n_known++] = token;
    wl_draft_sequence_know (&f->sequence, f->tokens, f->n_known, N_VOCAB, &f->beliefs);
}

/* The rows of a job; what it gives is said only later. */
static int32_t compute (fixture *f, const wl_draft_job *job)
{
    assert_true (job->n_rows >= 1 && job->n_rows <= ROWS);
    for (size_t i = job->first; i < job->first + job->n_rows; i++)
        f->kv[i] = f->sequence.tokens[i];
    f->n_rows += job->n_rows;
    return guess_of (f->kv, job->first + job->n_rows);
}

static bool step (fixture *f)
{
    wl_draft_job job;
    if (!wl_draft_sequence_next (&f->sequence, &f->beliefs, ROWS, &job))
        return false;
    int32_t guess = compute (f, &job);
    wl_draft_sequence_done (&f->sequence, &job, guess, 0.999, &f->beliefs);
    return true;
}

/* All guesses that are there are what the tokens before them call for. */
static size_t check_guesses (const fixture *f)
{
    int32_t tokens[CAPACITY], token;
    double chance;
    size_t n = f->n_known;
    for (size_t i = 0; i < n; i++)
        tokens[i] = f->tokens[i];
    while (wl_draft_sequence_guess (&f->sequence, &f->beliefs, n - f->n_known, &token, &chance)) {
        assert_int_equal (token, guess_of (tokens, n));
        assert_true (chance > 0 && chance < 1);
        tokens[n++] = token;
    }
    return n - f->n_known;
}

static void guesses_go_ahead_of_what_is_known_and_no_further_than_they_may (void **state)
{
    (void) state;
    fixture f;
    open_fixture (&f);
    assert_false (step (&f)); /* nothing is known */
    for (int32_t i = 0; i < 20; i++)
        know (&f, i);
    for (size_t i = 0; i < 3; i++) { /* 20 tokens in jobs of 8 */
        assert_int_equal (check_guesses (&f), 0);
        assert_true (step (&f));
    }
    assert_int_equal (check_guesses (&f), 1);
    while (step (&f))
        ;
    size_t n = check_guesses (&f);
    assert_true (n > 4 && n <= WL_DRAFT_AHEAD);
    assert_int_equal (f.n_rows, 20 + n - 1);
    wl_draft_sequence_close (&f.sequence);
}

static void guesses_that_come_true_stay_and_the_others_are_rolled_back (void **state)
{
    (void) state;
    fixture f;
    open_fixture (&f);
    know (&f, 7);
    for (size_t round = 0; round < 20; round++) {
        while (step (&f))
            ;
        size_t n = check_guesses (&f), rows = f.n_rows;
        for (size_t i = 0; i < round % 4 && i < n; i++) /* some come true */
            know (&f, f.sequence.tokens[f.n_known]);
        assert_int_equal (check_guesses (&f), n - (round % 4 < n ? round % 4 : n));
        know (&f, (f.sequence.tokens[f.n_known] + 1) % N_VOCAB); /* one does not */
        assert_int_equal (check_guesses (&f), 0);
        assert_true (step (&f));
        assert_int_equal (f.n_rows, rows + 1); /* the true token alone is computed for the next guess */
        assert_int_equal (check_guesses (&f), 1);
    }
    assert_int_equal (f.beliefs.n_judged - f.beliefs.n_right, 20);
    wl_draft_sequence_close (&f.sequence);
}

static void what_comes_while_a_job_is_under_way_makes_it_late_or_void (void **state)
{
    (void) state;
    fixture f;
    wl_draft_job job;
    open_fixture (&f);
    know (&f, 1);
    assert_true (step (&f));
    assert_true (wl_draft_sequence_next (&f.sequence, &f.beliefs, ROWS, &job)); /* computes the guess */
    int32_t guess = compute (&f, &job);
    know (&f, (f.sequence.tokens[1] + 1) % N_VOCAB); /* which is wrong */
    wl_draft_sequence_done (&f.sequence, &job, guess, 0.9, &f.beliefs);
    assert_int_equal (check_guesses (&f), 0);
    assert_true (step (&f));
    assert_int_equal (check_guesses (&f), 1);

    assert_true (wl_draft_sequence_next (&f.sequence, &f.beliefs, ROWS, &job));
    guess = compute (&f, &job);
    know (&f,
          f.sequence
              .tokens[f.n_known]); /* is right, and so is the guess that is under way: but the token is there sooner */
    know (&f, guess);
    uint64_t judged = f.beliefs.n_judged, right = f.beliefs.n_right;
    wl_draft_sequence_done (&f.sequence, &job, guess, 0.9, &f.beliefs);
    assert_int_equal (f.beliefs.n_judged, judged + 1);
    assert_int_equal (f.beliefs.n_right, right + 1);
    assert_true (step (&f));
    assert_int_equal (check_guesses (&f), 1);
    wl_draft_sequence_close (&f.sequence);
}

static void after_its_cache_was_given_back_it_reads_all_of_it_again (void **state)
{
    (void) state;
    fixture f;
    wl_draft_job job;
    open_fixture (&f);
    for (int32_t i = 0; i < 13; i++)
        know (&f, i);
    while (step (&f))
        ;
    assert_true (check_guesses (&f) > 0);
    know (&f, (f.sequence.tokens[f.n_known] + 1) % N_VOCAB);
    assert_true (wl_draft_sequence_next (&f.sequence, &f.beliefs, ROWS, &job));
    int32_t guess = compute (&f, &job);
    wl_draft_sequence_forget (&f.sequence); /* while a job is under way */
    for (size_t i = 0; i < CAPACITY; i++)
        f.kv[i] = -1; /* its pages are another's */
    wl_draft_sequence_done (&f.sequence, &job, guess, 0.9, &f.beliefs);
    assert_int_equal (check_guesses (&f), 0);
    know (&f, 5);
    size_t rows = f.n_rows;
    while (check_guesses (&f) == 0)
        assert_true (step (&f));
    assert_int_equal (f.n_rows, rows + f.n_known);
    while (step (&f))
        ;
    assert_true (check_guesses (&f) > 1);
    wl_draft_sequence_close (&f.sequence);
}

static void guesses_end_before_the_sequence_does_and_at_tokens_that_the_draft_lacks (void **state)
{
    (void) state;
    fixture f;
    open_fixture (&f);
    for (int32_t i = 0; i < CAPACITY - 3; i++)
        know (&f, 1);
    while (step (&f))
        ;
    assert_true (check_guesses (&f) <= 2);
    wl_draft_sequence_close (&f.sequence);
    open_fixture (&f);
    know (&f, N_VOCAB);
    assert_false (step (&f));
    wl_draft_sequence_close (&f.sequence);
}

static void belief_follows_what_came_true (void **state)
{
    (void) state;
    fixture f;
    int32_t token;
    double before, after;
    open_fixture (&f);
    know (&f, 3);
    step (&f);
    assert_true (wl_draft_sequence_guess (&f.sequence, &f.beliefs, 0, &token, &before));
    double acceptance = wl_draft_acceptance (&f.beliefs);
    for (int i = 0; i < 30; i++) {
        know (&f, (f.sequence.tokens[f.n_known] + 1) % N_VOCAB);
        step (&f);
    }
    assert_true (wl_draft_sequence_guess (&f.sequence, &f.beliefs, 0, &token, &after));
    assert_true (after < before / 3);
    assert_true (wl_draft_acceptance (&f.beliefs) < acceptance / 2);
    wl_draft_sequence_close (&f.sequence);
}

static void a_lack_of_memory_is_an_error (void **state)
{
    (void) state;
    for (unsigned n = 1; n <= 2; n++) {
        wl_draft_sequence s;
        wl_error err = {0};
        wl_memory_fail_after (n);
        assert_false (wl_draft_sequence_open (&s, CAPACITY, &err));
        assert_int_equal (err.code, WL_ERROR_INTERNAL);
    }
    wl_memory_fail_after (0);
}

/* -- policy ------------------------------------------------------------------------------------------------------------------------------- */

typedef struct run { /* a stream whose tokens take `plain` without the draft and `with` with it */
    wl_draft_policy policy;
    wl_draft_costs costs;
    double plain, with;
    uint64_t now;
    size_t n_on, n_tokens;
} run;

static void generate (run *r, size_t n_tokens)
{
    for (size_t i = 0; i < n_tokens; i++) {
        bool on = wl_draft_policy_is_on (&r->policy);
        r->n_on += on;
        r->n_tokens++;
        r->now += (uint64_t) (on ? r->with : r->plain);
        wl_draft_policy_add (&r->policy, 1, 1, 0, r->now, &r->costs);
    }
}

static run begin (double guess_ns, double with)
{
    return (run){.costs = {.guess_ns = guess_ns,
                           .read_ns = guess_ns / 3,
                           .acceptance = 0.8,
                           .stage_ns = 90e6,
                           .n_threads = 1,
                           .n_cores = 8},
                 .plain = 90e6,
                 .with = with,
                 .now = 1};
}

static void a_draft_that_pays_stays_on (void **state)
{
    (void) state;
    run r = begin (20e6, 50e6);
    generate (&r, 1000);
    assert_true (r.n_on > 950);
    r.with = 120e6; /* the text has changed */
    generate (&r, 100);
    assert_false (wl_draft_policy_is_on (&r.policy));
}

static void a_draft_that_cannot_pay_is_never_tried (void **state)
{
    (void) state;
    run r = begin (80e6, 50e6); /* a guess right of five costs what it saves */
    generate (&r, 1000);
    assert_int_equal (r.n_on, 0);
    assert_int_equal (r.policy.n_tries, 0);
    r = begin (40e6, 50e6);
    r.costs.n_cores = 1; /* which the stages keep busy */
    generate (&r, 1000);
    assert_int_equal (r.policy.n_tries, 0);
}

static void a_draft_that_turns_out_not_to_pay_costs_little (void **state)
{
    (void) state;
    run r = begin (20e6, 120e6);
    generate (&r, 128);
    assert_int_equal (r.policy.n_failed, 1);
    assert_true (r.plain * (double) r.n_tokens > 0.96 * (double) r.now);
    generate (&r, 4000);
    assert_true (r.policy.n_failed > 2 && r.policy.n_failed < 8);
    assert_true (r.plain * (double) r.n_tokens > 0.98 * (double) r.now);
}

static void a_draft_that_never_gets_to_guess_is_given_up (void **state)
{
    (void) state;
    run r = begin (20e6, 90e6);
    generate (&r, 10);
    assert_true (wl_draft_policy_is_on (&r.policy));
    for (int i = 0; i < 60; i++)
        wl_draft_policy_add (&r.policy, 1, 1, 40, r.now += 90000000, &r.costs);
    assert_false (wl_draft_policy_is_on (&r.policy));
}

static void with_other_work_or_other_streams_nothing_is_judged (void **state)
{
    (void) state;
    run r = begin (20e6, 50e6);
    for (int i = 0; i < 100; i++)
        wl_draft_policy_add (&r.policy, i % 2 ? 0 : 1, 1, 0, r.now += 90000000, &r.costs);
    assert_int_equal (r.policy.n_tries, 0);
    for (int i = 0; i < 100; i++)
        wl_draft_policy_add (&r.policy, WL_DRAFT_STREAMS + 1, 17, 0, r.now += 90000000, &r.costs);
    assert_int_equal (r.policy.n_tries, 0);
    r.policy.always = true;
    assert_true (wl_draft_policy_is_on (&r.policy));
}

int main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (guesses_go_ahead_of_what_is_known_and_no_further_than_they_may),
        cmocka_unit_test (guesses_that_come_true_stay_and_the_others_are_rolled_back),
        cmocka_unit_test (what_comes_while_a_job_is_under_way_makes_it_late_or_void),
        cmocka_unit_test (after_its_cache_was_given_back_it_reads_all_of_it_again),
        cmocka_unit_test (guesses_end_before_the_sequence_does_and_at_tokens_that_the_draft_lacks),
        cmocka_unit_test (belief_follows_what_came_true),
        cmocka_unit_test (a_lack_of_memory_is_an_error),
        cmocka_unit_test (a_draft_that_pays_stays_on),
        cmocka_unit_test (a_draft_that_cannot_pay_is_never_tried),
        cmocka_unit_test (a_draft_that_turns_out_not_to_pay_costs_little),
        cmocka_unit_test (a_draft_that_never_gets_to_guess_is_given_up),
        cmocka_unit_test (with_other_work_or_other_streams_nothing_is_judged),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
