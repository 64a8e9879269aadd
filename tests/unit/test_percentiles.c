/* Percentiles in fixed memory are within 1% of those of the sorted durations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "coordinator/percentiles.h"

enum { N = 2000 };

static int by_value (const void *a, const void *b)
{
    double x = *(const double *) a, y = *(const double *) b;
    return (x > y) - (x < y);
}

static void percentiles_are_within_one_percent (void **state)
{
    (void) state;
    static const double fractions[] = {0.001, 0.5, 0.9, 0.99, 1};
    static wl_percentiles p;
    static double all[N];
    double value = 2e-6;
    for (size_t i = 0; i < N; i++) {
        value = value * 1.37 > 9000 ? 3e-6 + value * 1e-9 : value * 1.37;
        all[i] = value;
        wl_percentiles_add (&p, value);
    }
    qsort (all, N, sizeof all[0], by_value);
    for (size_t i = 0; i < sizeof fractions / sizeof fractions[0]; i++) {
        double exact = all[(size_t) (fractions[i] * N) - 1], told = wl_percentiles_at (&p, fractions[i]);
        assert_true (told > exact * 0.99 && told < exact * 1.011);
    }
    assert_true (p.largest == all[N - 1]);
}

static void few_and_outlying_durations_have_percentiles_too (void **state)
{
    (void) state;
    wl_percentiles p = {0};
    assert_true (wl_percentiles_at (&p, 0.5) == 0);
    wl_percentiles_add (&p, 0);
    assert_true (wl_percentiles_at (&p, 0.5) == 0);
    wl_percentiles_add (&p, 1e9);
    assert_true (wl_percentiles_at (&p, 0.5) < 2e-6);
    assert_true (wl_percentiles_at (&p, 1) > 9000 && p.largest == 1e9);
}

int main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (percentiles_are_within_one_percent),
        cmocka_unit_test (few_and_outlying_durations_have_percentiles_too),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
