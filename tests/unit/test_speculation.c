/* Guesses from a sequence's own past: which, how likely, and how belief in them changes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "coordinator/speculation.h"
#include "engine/memory.h"

enum { CAPACITY = 400 };

typedef struct sequence {
    int32_t tokens[CAPACITY];
    size_t n;
    wl_speculation *speculation;
} sequence;

static void begin (sequence *s, const int32_t *tokens, size_t n)
{
    wl_error err = {0};
    *s = (sequence){.n = n};
    for (size_t i = 0; i < n; i++)
        s->tokens[i] = tokens[i];
    s->speculation = wl_speculation_new (s->tokens, CAPACITY, &err);
    assert_non_null (s->speculation);
    wl_speculation_know (s->speculation, n, false);
}

static void append (sequence *s, int32_t token)
{
    s->tokens[s->n++] = token;
    wl_speculation_know (s->speculation, s->n, false);
}

/* The next n guesses, written behind the known tokens as the scheduler does; -1 from where there is none. */
static void guess (sequence *s, int32_t *out, size_t n)
{
    double chance;
    for (size_t i = 0; i < n; i++) {
        if (!wl_speculation_guess (s->speculation, i, &out[i], &chance)) {
            out[i] = -1;
            continue;
        }
        assert_true (chance >= 0 && chance <= 1);
        s->tokens[s->n + i] = out[i];
    }
}

static double chance_now (const sequence *s)
{
    int32_t token;
    double chance = 0;
    wl_speculation_guess (s->speculation, 0, &token, &chance);
    return chance;
}

static void what_followed_the_last_tokens_before_is_guessed (void **state)
{
    (void) state;
    sequence s;
    int32_t out[3];
    begin (&s, (int32_t[]){1, 2, 3, 4, 5, 9, 2, 3}, 8);
    guess (&s, out, 3);
    assert_int_equal (out[0], 4);
    assert_int_equal (out[1], 5);
    assert_int_equal (out[2], 9);
    append (&s, 4); /* it came true: go on from there */
    guess (&s, out, 2);
    assert_int_equal (out[0], 5);
    assert_int_equal (out[1], 9);
    wl_speculation_free (&s.speculation);
}

static void a_text_that_does_not_repeat_has_no_guesses (void **state)
{
    (void) state;
    sequence s;
    int32_t out;
    begin (&s, (int32_t[]){7}, 1);
    for (int32_t i = 0; i < 200; i++) {
        guess (&s, &out, 1);
        assert_int_equal (out, -1);
        append (&s, 1000 + i * i);
    }
    append (&s, 1000); /* one token alone is no match */
    guess (&s, &out, 1);
    assert_int_equal (out, -1);
    wl_speculation_free (&s.speculation);
}

static void the_longest_match_counts_and_of_equal_ones_the_latest (void **state)
{
    (void) state;
    sequence s;
    int32_t out;
    begin (&s, (int32_t[]){1, 2, 3, 50, 8, 2, 3, 60, 1, 2, 3}, 11);
    guess (&s, &out, 1);
    assert_int_equal (out, 50);
    wl_speculation_free (&s.speculation);
    begin (&s, (int32_t[]){1, 2, 3, 50, 1, 2, 3, 60, 1, 2, 3}, 11);
    guess (&s, &out, 1);
    assert_int_equal (out, 60);
    wl_speculation_free (&s.speculation);
}

static void a_period_is_continued_beyond_its_end (void **state)
{
    (void) state;
    sequence s;
    int32_t out[20];
    begin (&s, (int32_t[]){5, 6, 7, 5, 6}, 5);
    guess (&s, out, 20);
    for (int i = 0; i < 20; i++)
        assert_int_equal (out[i], 5 + (i + 2) % 3);
    wl_speculation_free (&s.speculation);
}

static void longer_matches_are_likelier (void **state)
{
    (void) state;
    sequence s;
    double before = 0;
    begin (&s, (int32_t[]){1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1}, 11);
    for (int32_t i = 2; i < 9; i++) {
        append (&s, i);
        assert_true (chance_now (&s) > before - 0.05); /* what came true just now counts as well */
        before = chance_now (&s);
    }
    assert_true (before > 0.6);
    wl_speculation_free (&s.speculation);
}

static void guesses_that_fail_are_believed_less_and_such_that_come_true_more (void **state)
{
    (void) state;
    sequence s;
    begin (&s, (int32_t[]){1, 2}, 2);
    for (int32_t i = 0; i < 40; i++) { /* after 1, 2 comes something new each time */
        append (&s, 100 + i);
        append (&s, 1);
        append (&s, 2);
    }
    double low = chance_now (&s);
    assert_true (low < 0.1);
    wl_speculation_free (&s.speculation);
    begin (&s, (int32_t[]){1, 2, 3, 90}, 4);
    for (int32_t i = 0; i < 40; i++) { /* 1, 2 is followed by 3, and the match is never longer */
        append (&s, 1);
        append (&s, 2);
        append (&s, 3);
        append (&s, 200 + i);
    }
    append (&s, 1);
    append (&s, 2);
    assert_true (chance_now (&s) > 0.8);
    wl_speculation_free (&s.speculation);
}

static void guesses_that_are_out_are_continued_from_where_they_came (void **state)
{
    (void) state;
    sequence s;
    int32_t out[4];
    begin (&s, (int32_t[]){1, 2, 3, 4, 70, 71, 2, 3, 4, 80, 81, 1, 2}, 13);
    guess (&s, out, 3);
    assert_int_equal (out[0], 3);
    assert_int_equal (out[1], 4);
    assert_int_equal (out[2], 70);
    s.n++; /* the first is right; a longer look back would not find another, but a search must not even be tried */
    wl_speculation_know (s.speculation, s.n, true);
    guess (&s, out, 4);
    assert_int_equal (out[0], 4);
    assert_int_equal (out[1], 70);
    assert_int_equal (out[2], 71);
    assert_int_equal (out[3], 2);
    wl_speculation_free (&s.speculation);
}

static void kinds_are_read_and_others_explained (void **state)
{
    (void) state;
    wl_speculation_kind kind;
    wl_error err = {0};
    assert_true (wl_speculation_parse ("off", &kind, NULL, &err) && kind == WL_SPECULATION_OFF);
    assert_true (wl_speculation_parse ("ngram", &kind, NULL, &err) && kind == WL_SPECULATION_NGRAM);
    assert_true (wl_speculation_parse ("auto", &kind, NULL, &err) && kind == WL_SPECULATION_AUTO);
    assert_true (wl_speculation_parse (NULL, &kind, NULL, &err) && kind == WL_SPECULATION_AUTO);
    const char *draft = "";
    assert_true (wl_speculation_parse ("ngram", &kind, &draft, &err) && !draft);
    assert_true (wl_speculation_parse ("draft:small.gguf", &kind, &draft, &err) && kind == WL_SPECULATION_DRAFT);
    assert_string_equal (draft, "small.gguf");
    assert_false (wl_speculation_parse ("draft:", &kind, &draft, &err));
    assert_int_equal (err.code, WL_ERROR_USAGE);
    assert_false (wl_speculation_parse ("lookup", &kind, NULL, &err));
    assert_int_equal (err.code, WL_ERROR_USAGE);
}

static void a_lack_of_memory_is_an_error (void **state)
{
    (void) state;
    for (unsigned nth = 1; nth <= 3; nth++) {
        wl_error err = {0};
        int32_t token = 0;
        wl_memory_fail_after (nth);
        wl_speculation *s = wl_speculation_new (&token, 1, &err);
        wl_memory_fail_after (0);
        assert_null (s);
        assert_int_equal (err.code, WL_ERROR_INTERNAL);
    }
}

int main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (what_followed_the_last_tokens_before_is_guessed),
        cmocka_unit_test (a_text_that_does_not_repeat_has_no_guesses),
        cmocka_unit_test (the_longest_match_counts_and_of_equal_ones_the_latest),
        cmocka_unit_test (a_period_is_continued_beyond_its_end),
        cmocka_unit_test (longer_matches_are_likelier),
        cmocka_unit_test (guesses_that_fail_are_believed_less_and_such_that_come_true_more),
        cmocka_unit_test (guesses_that_are_out_are_continued_from_where_they_came),
        cmocka_unit_test (kinds_are_read_and_others_explained),
        cmocka_unit_test (a_lack_of_memory_is_an_error),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
