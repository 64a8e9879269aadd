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

/* The first range of each of three threads. */
typedef struct homes {
    _Atomic uint32_t n_begun;
    struct {
        size_t first, end;
        _Atomic uint32_t has_begun;
    } threads[3];
} homes;

/* Notes a thread's first range, which then waits for the others' first ones. */
static void note_range (homes *h, size_t first, size_t end, size_t thread)
{
    if (atomic_exchange (&h->threads[thread].has_begun, 1))
        return;
    h->threads[thread].first = first;
    h->threads[thread].end = end;
    atomic_fetch_add (&h->n_begun, 1);
    while (atomic_load (&h->n_begun) < 3) {
        struct timespec pause = {0, 10 * 1000};
        nanosleep (&pause, NULL);
    }
}

static void note_chunk (void *context, size_t chunk, size_t thread)
{
    note_range (context, chunk, chunk + 1, thread);
}

static void every_thread_begins_with_its_own_part (void **state)
{
    (void) state;
    wl_error err = {0};
    wl_thread_pool *pool = wl_thread_pool_new (3, &err);
    for (int round = 0; round < 20; round++) {
        homes h = {0};
        wl_thread_pool_run (pool, 30, note_chunk, &h);
        for (size_t thread = 0; thread < 3; thread++)
            assert_int_equal (h.threads[thread].first, 10 * thread);
    }
    wl_thread_pool_free (&pool);
}

typedef struct ranges_job {
    job items;
    homes homes;
    size_t least;
    _Atomic uint32_t n_short; /* ranges shorter than that */
} ranges_job;

static void count_range (void *context, size_t first, size_t end, size_t thread)
{
    ranges_job *j = context;
    for (size_t item = first; item < end; item++)
        count_chunk (&j->items, item, thread);
    if (end - first < j->least)
        atomic_fetch_add (&j->n_short, 1);
    note_range (&j->homes, first, end, thread);
}

static void ranges_begin_with_half_of_a_part_and_hold_every_item_once (void **state)
{
    (void) state;
    wl_error err = {0};
    wl_thread_pool *pool = wl_thread_pool_new (3, &err);
    for (size_t least = 1; least <= 10; least++) {
        const size_t n = 240 + least;
        ranges_job j = {.items.n_threads = 3, .least = least};
        wl_thread_pool_run_ranges (pool, n, least, count_range, &j);
        for (size_t item = 0; item < MOST_CHUNKS; item++) {
            assert_int_equal (j.items.runs[item], item < n);
            assert_int_equal (j.items.plain[item], item < n);
        }
        assert_true (j.n_short <= 3); /* one at the end of each part */
        for (size_t thread = 0; thread < 3; thread++) {
            size_t first, end;
            wl_thread_pool_first_range (pool, n, least, thread, &first, &end);
            assert_int_equal (first, n * thread / 3);
            assert_int_equal (end, first + (n * (thread + 1) / 3 - first) / 2);
            assert_int_equal (j.homes.threads[thread].first, first);
            assert_int_equal (j.homes.threads[thread].end, end);
        }
    }
    wl_thread_pool_free (&pool);
}

static void one_thread_runs_all_items_as_one_range (void **state)
{
    (void) state;
    wl_error err = {0};
    wl_thread_pool *pool = wl_thread_pool_new (1, &err);
    ranges_job j = {.items.n_threads = 1, .homes.n_begun = 2};
    wl_thread_pool_run_ranges (pool, 100, 1, count_range, &j);
    size_t first, end;
    wl_thread_pool_first_range (pool, 100, 1, 0, &first, &end);
    assert_int_equal (j.homes.threads[0].first, first);
    assert_int_equal (j.homes.threads[0].end, end);
    assert_int_equal (end - first, 100);
    wl_thread_pool_free (&pool);
}

static void what_a_thread_expects_may_be_gone (void **state)
{
    (void) state;
    wl_error err = {0};
    wl_thread_pool *pool = wl_thread_pool_new (3, &err);
    uint8_t *const gone = wl_map_pages (1 << 17, &err);
    wl_unmap_pages (gone, 1 << 17);
    for (size_t round = 0; round < 200; round++) {
        for (size_t thread = 0; thread < 3; thread++)
            wl_thread_pool_expect (pool, thread,
                                   (wl_memory_runs){{round % 3 ? gone + 64 * round : NULL, gone}, 1 << 16});
        job j = {.n_threads = 3};
        wl_thread_pool_run (pool, 20, count_chunk, &j);
        for (size_t c = 0; c < 20; c++)
            assert_int_equal (j.runs[c], 1);
    }
    wl_thread_pool_free (&pool);
}

static void sum_chunk (void *context, size_t chunk, size_t thread)
{
    (void) thread;
    atomic_fetch_add ((_Atomic uint64_t *) context, chunk);
}

static void more_chunks_than_a_ticket_holds_are_run_in_parts (void **state)
{
    (void) state;
    const uint64_t n = 2500000;
    _Atomic uint64_t sum = 0;
    wl_error err = {0};
    wl_thread_pool *pool = wl_thread_pool_new (2, &err);
    wl_thread_pool_run (pool, n, sum_chunk, &sum);
    assert_true (atomic_load (&sum) == n * (n - 1) / 2);
    wl_thread_pool_free (&pool);
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
    for (unsigned nth = 1; nth <= 3; nth++) {
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
        cmocka_unit_test (every_thread_begins_with_its_own_part),
        cmocka_unit_test (ranges_begin_with_half_of_a_part_and_hold_every_item_once),
        cmocka_unit_test (one_thread_runs_all_items_as_one_range),
        cmocka_unit_test (what_a_thread_expects_may_be_gone),
        cmocka_unit_test (more_chunks_than_a_ticket_holds_are_run_in_parts),
        cmocka_unit_test (an_idle_pool_uses_no_cpu),
        cmocka_unit_test (a_pool_of_no_threads_or_too_many_is_refused),
        cmocka_unit_test (a_pool_survives_failing_allocations),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
