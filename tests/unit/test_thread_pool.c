/* The thread pool: every chunk runs once, whatever the sizes, the number of threads and how long they slept before. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "engine/memory.h"
#include "engine/thread_pool.h"

enum { MOST_CHUNKS = 300 };

typedef struct job {
    _Atomic uint32_t runs[MOST_CHUNKS];
    uint32_t plain[MOST_CHUNKS]; /* written without atomics: the pool must order it before the caller reads */
    size_t n_threads;
    _Atomic uint32_t bad_threads;
} job;

static void count_chunk (void *context, size_t chunk, size_t thread)
{
    job *j = context;
    atomic_fetch_add (&j->runs[chunk], 1);
    j->plain[chunk]++;
    if (thread >= j->n_threads)
        atomic_fetch_add (&j->bad_threads, 1);
}

static void every_chunk_runs_exactly_once (void **state)
{
    (void) state;
    for (size_t n_threads = 1; n_threads <= 4; n_threads++) {
        wl_error err = {0};
        wl_thread_pool *pool = wl_thread_pool_new (n_threads, &err);
        assert_non_null (pool);
        assert_int_equal (wl_thread_pool_size (pool), n_threads);
        for (size_t round = 0; round < 2000; round++) {
            job j = {.n_threads = n_threads};
            size_t n_chunks = (round * 7919) % MOST_CHUNKS;
            wl_thread_pool_run (pool, n_chunks, count_chunk, &j);
            for (size_t c = 0; c < MOST_CHUNKS; c++) {
                assert_int_equal (j.runs[c], c < n_chunks);
                assert_int_equal (j.plain[c], c < n_chunks);
            }
            assert_int_equal (j.bad_threads, 0);
            if (round % 200 == 0) { /* long enough for the workers to fall asleep */
                struct timespec pause = {0, 1000 * 1000};
                nanosleep (&pause, NULL);
            }
        }
        wl_thread_pool_free (&pool);
        assert_null (pool);
    }
}

static uint64_t process_cpu_ns (void)
{
    struct timespec t;
    clock_gettime (CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t) t.tv_sec * 1000000000u + (uint64_t) t.tv_nsec;
}

static void an_idle_pool_uses_no_cpu (void **state)
{
    (void) state;
    wl_error err = {0};
    job j = {.n_threads = 3};
    wl_thread_pool *pool = wl_thread_pool_new (3, &err);
    wl_thread_pool_run (pool, 50, count_chunk, &j);
    uint64_t before = process_cpu_ns ();
    struct timespec pause = {0, 300 * 1000 * 1000};
    nanosleep (&pause, NULL);
    assert_true (process_cpu_ns () - before < 30 * 1000 * 1000); /* a spinning thread would use 300 ms */
    wl_thread_pool_free (&pool);
}

static void a_pool_of_no_threads_or_too_many_is_refused (void **state)
{
    (void) state;
    wl_error none = {0}, many = {0};
    assert_null (wl_thread_pool_new (0, &none));
    assert_int_equal (none.code, WL_ERROR_USAGE);
    assert_null (wl_thread_pool_new (1000000, &many));
    assert_int_equal (many.code, WL_ERROR_USAGE);
}

static void a_pool_survives_failing_allocations (void **state)
{
    (void) state;
    for (unsigned nth = 1; nth <= 2; nth++) {
        wl_error err = {0};
        wl_memory_fail_after (nth);
        assert_null (wl_thread_pool_new (2, &err));
        wl_memory_fail_after (0);
        assert_int_equal (err.code, WL_ERROR_INTERNAL);
    }
}

int main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (every_chunk_runs_exactly_once),
        cmocka_unit_test (an_idle_pool_uses_no_cpu),
        cmocka_unit_test (a_pool_of_no_threads_or_too_many_is_refused),
        cmocka_unit_test (a_pool_survives_failing_allocations),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
