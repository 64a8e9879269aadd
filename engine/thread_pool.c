/* One pool of compute threads; see thread_pool.h.
 *
 * The items of a job are dealt into shares, each one atomic word: its ticket = (generation, next item, end). A thread takes items by raising the next one with a compare-and-swap: first
 * from the share where it is at home, then from the others. Success proves that the job is still the current one, since the caller waits until every item is done, and so that fn and
 * context belong to it; a share without items stays so until the next job replaces its ticket. So threads may come late, or not at all, without anyone waiting for them. */
#include "thread_pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

#include "machine.h"
#include "memory.h"

enum {
    SPIN_NS = 50 * 1000,
    CLOCK_EVERY = 64,
    MOST_SHARES = 16,
    ITEM_BITS = 20,
    LINE = 64,
    LINES = 128,
    FETCH_BYTES = 4 * LINE,
    ONE_BY_ONE = 0
};
#define MOST_ITEMS ((UINT32_C (1) << ITEM_BITS) - 1)

/* On lines of its own, so that a thread at home is alone with it. */
typedef struct share {
    _Atomic uint64_t ticket; /* generation << 40 | next << 20 | end */
    _Atomic (const uint8_t *) expected[2];
    _Atomic size_t expected_bytes;
    uint8_t rest[LINES - sizeof (uint64_t) - 2 * sizeof (uint8_t *) - sizeof (size_t)];
} share;

/* How far a thread is with what it expects. */
typedef struct fetched {
    const uint8_t *at;
    size_t bytes;
} fetched;

typedef struct worker {
    wl_thread_pool *pool;
    size_t index;
    pthread_t thread;
} worker;

struct wl_thread_pool {
    size_t n_threads;
    worker *workers;  /* [n_threads - 1] */
    size_t n_started; /* of them */

    share *shares; /* [n_shares] */
    size_t n_shares;
    _Atomic uint64_t generation; /* of the newest job: raised when its tickets are there */
    wl_range_fn fn;              /* these are read by who has taken items: release and acquire by their ticket */
    void *context;
    size_t first_item; /* what item 0 of the tickets is */
    uint32_t n_items;
    _Atomic uint32_t least;  /* items taken at a time, or ONE_BY_ONE */
    _Atomic uint32_t n_done; /* release by whoever finishes items, acquire by the caller */

    pthread_mutex_t mutex;
    pthread_cond_t work_came, work_done;
    _Atomic uint32_t
        n_asleep; /* workers at work_came; written under mutex, read by the caller after publishing (both seq_cst) */
    _Atomic int caller_asleep; /* the caller at work_done; as above, the other way round */
    _Atomic int stop;
};

static inline void relax (void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause ();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* As many as a thread takes where `left` are left. least: or ONE_BY_ONE. */
static size_t share_of_left (size_t left, size_t least)
{
    const size_t n = least == ONE_BY_ONE ? 1 : left / 2 > least ? left / 2 : least;
    return n < left ? n : left;
}

static size_t home_of (const wl_thread_pool *pool, size_t thread)
{
    return thread * pool->n_shares / pool->n_threads;
}

/* Items [*first, *end) of the share; false: none are left, or the job is over. A `least` of another job than the ticket's does no harm. */
static bool take (wl_thread_pool *pool, uint64_t generation, share *from, uint32_t *first, uint32_t *end)
{
    uint64_t ticket = atomic_load (&from->ticket);
    uint64_t n;
    do {
        const uint32_t next = (uint32_t) (ticket >> ITEM_BITS) & MOST_ITEMS, last = (uint32_t) ticket & MOST_ITEMS;
        if (next >= last || ticket >> 2 * ITEM_BITS != (generation << 2 * ITEM_BITS) >> 2 * ITEM_BITS)
            return false;
        n = share_of_left (last - next, atomic_load_explicit (&pool->least, memory_order_relaxed));
        *first = next;
        *end = next + (uint32_t) n;
    } while (!atomic_compare_exchange_weak (&from->ticket, &ticket, ticket + (n << ITEM_BITS)));
    return true;
}

/* Takes and runs items of the job until none is left. */
static void work (wl_thread_pool *pool, uint64_t generation, size_t thread)
{
    const size_t home = home_of (pool, thread);
    for (size_t i = 0; i < pool->n_shares; i++) {
        share *from = &pool->shares[(home + i) % pool->n_shares];
        for (uint32_t first, end; take (pool, generation, from, &first, &end);) {
            const uint32_t n_items = pool->n_items,
                           n = end - first; /* the caller may go on as soon as these are done */
            pool->fn (pool->context, pool->first_item + first, pool->first_item + end, thread);
            if (atomic_fetch_add (&pool->n_done, n) + n == n_items && atomic_load (&pool->caller_asleep)) {
                pthread_mutex_lock (&pool->mutex);
                pthread_cond_signal (&pool->work_done);
                pthread_mutex_unlock (&pool->mutex);
            }
        }
    }
}

/* A thread without work: fetches a little of what it expects, or tells the core that it waits. */
static void idle (wl_thread_pool *pool, size_t thread, fetched *f)
{
    enum { READ = 0, TO_L2 = 2 };
    share *home = &pool->shares[home_of (pool, thread)];
    const uint8_t *first = atomic_load_explicit (&home->expected[0], memory_order_relaxed),
                  *second = atomic_load_explicit (&home->expected[1], memory_order_relaxed);
    const size_t bytes = atomic_load_explicit (&home->expected_bytes, memory_order_relaxed);
    if (first != f->at)
        *f = (fetched){first, 0};
    if (!first || f->bytes >= bytes) {
        relax ();
        return;
    }
    for (size_t i = 0; i < FETCH_BYTES / 2; i += LINE, f->bytes += LINE) {
        __builtin_prefetch (first + f->bytes, READ, TO_L2);
        __builtin_prefetch (second + f->bytes, READ, TO_L2);
    }
}

static void *worker_main (void *argument)
{
    worker *self = argument;
    wl_thread_pool *pool = self->pool;
    uint64_t seen = 0;
    fetched f = {0};
    wl_machine_compute_thread ();
    while (!atomic_load (&pool->stop)) {
        uint64_t since = wl_now_ns ();
        unsigned spins = 0;
        while (atomic_load (&pool->generation) == seen && !atomic_load (&pool->stop)) {
            idle (pool, self->index, &f);
            if (++spins % CLOCK_EVERY == 0 && wl_now_ns () - since > SPIN_NS) {
                pthread_mutex_lock (&pool->mutex);
                atomic_fetch_add (&pool->n_asleep, 1);
                while (atomic_load (&pool->generation) == seen && !atomic_load (&pool->stop))
                    pthread_cond_wait (&pool->work_came, &pool->mutex);
                atomic_fetch_sub (&pool->n_asleep, 1);
                pthread_mutex_unlock (&pool->mutex);
            }
        }
        seen = atomic_load (&pool->generation);
        work (pool, seen, self->index);
    }
    return NULL;
}

static void wait_until_done (wl_thread_pool *pool)
{
    uint64_t since = wl_now_ns ();
    unsigned spins = 0;
    fetched f = {0};
    while (atomic_load (&pool->n_done) < pool->n_items) {
        idle (pool, 0, &f);
        if (++spins % CLOCK_EVERY == 0 && wl_now_ns () - since > SPIN_NS) {
            pthread_mutex_lock (&pool->mutex);
            atomic_store (&pool->caller_asleep, 1);
            while (atomic_load (&pool->n_done) < pool->n_items)
                pthread_cond_wait (&pool->work_done, &pool->mutex);
            atomic_store (&pool->caller_asleep, 0);
            pthread_mutex_unlock (&pool->mutex);
        }
    }
}

static void run_part (wl_thread_pool *pool, size_t first_item, size_t n_items, size_t least, wl_range_fn fn,
                      void *context)
{
    const uint64_t generation = atomic_load (&pool->generation) + 1;
    pool->fn = fn;
    pool->context = context;
    pool->first_item = first_item;
    pool->n_items = (uint32_t) n_items;
    atomic_store_explicit (&pool->least, (uint32_t) least, memory_order_relaxed);
    atomic_store (&pool->n_done, 0);
    for (size_t i = 0; i < pool->n_shares; i++) {
        const uint64_t next = n_items * i / pool->n_shares, end = n_items * (i + 1) / pool->n_shares;
        atomic_store_explicit (&pool->shares[i].ticket, generation << 2 * ITEM_BITS | next << ITEM_BITS | end,
                               memory_order_release);
    }
    atomic_store (&pool->generation, generation);
    if (atomic_load (&pool->n_asleep) > 0) {
        pthread_mutex_lock (&pool->mutex);
        pthread_cond_broadcast (&pool->work_came);
        pthread_mutex_unlock (&pool->mutex);
    }
    work (pool, generation, 0);
    wait_until_done (pool);
}

void wl_thread_pool_run_ranges (wl_thread_pool *pool, size_t n_items, size_t least, wl_range_fn fn, void *context)
{
    if (pool->n_threads == 1 || n_items <= 1) {
        if (n_items)
            fn (context, 0, n_items, 0);
        return;
    }
    for (size_t first = 0; first < n_items; first += MOST_ITEMS)
        run_part (pool, first, n_items - first < MOST_ITEMS ? n_items - first : MOST_ITEMS, least, fn, context);
}

void wl_thread_pool_first_range (const wl_thread_pool *pool, size_t n_items, size_t least, size_t thread, size_t *first,
                                 size_t *end)
{
    const size_t home = home_of (pool, thread), n = n_items < MOST_ITEMS ? n_items : MOST_ITEMS,
                 part_end = n * (home + 1) / pool->n_shares;
    *first = n * home / pool->n_shares;
    *end = pool->n_threads == 1 ? n_items : *first + share_of_left (part_end - *first, least);
}

void wl_thread_pool_expect (wl_thread_pool *pool, size_t thread, wl_memory_runs runs)
{
    share *home = &pool->shares[home_of (pool, thread)];
    for (int i = 0; i < 2; i++)
        atomic_store_explicit (&home->expected[i], runs.at[i], memory_order_relaxed);
    atomic_store_explicit (&home->expected_bytes, runs.at[0] ? runs.bytes : 0, memory_order_relaxed);
}

typedef struct chunk_job {
    wl_chunk_fn fn;
    void *context;
} chunk_job;

static void run_chunks (void *context, size_t first, size_t end, size_t thread)
{
    const chunk_job *job = context;
    for (size_t chunk = first; chunk < end; chunk++)
        job->fn (job->context, chunk, thread);
}

void wl_thread_pool_run (wl_thread_pool *pool, size_t n_chunks, wl_chunk_fn fn, void *context)
{
    chunk_job job = {fn, context};
    wl_thread_pool_run_ranges (pool, n_chunks, ONE_BY_ONE, run_chunks, &job);
}

wl_thread_pool *wl_thread_pool_new (size_t n_threads, wl_error *err)
{
    if (n_threads == 0 || n_threads > 4096) {
        wl_fail (err, WL_ERROR_USAGE, "%zu threads: choose 1 to 4096", n_threads);
        return NULL;
    }
    wl_thread_pool *pool = wl_new (1, sizeof *pool, err);
    if (!pool)
        return NULL;
    pool->n_threads = n_threads;
    pool->n_shares = n_threads < MOST_SHARES ? n_threads : MOST_SHARES;
    pthread_mutex_init (&pool->mutex, NULL);
    pthread_cond_init (&pool->work_came, NULL);
    pthread_cond_init (&pool->work_done, NULL);
    pool->workers = wl_new (n_threads, sizeof *pool->workers, err);
    pool->shares = wl_new_aligned (pool->n_shares, sizeof *pool->shares, err);
    if (!pool->workers || !pool->shares)
        goto failed;
    for (size_t i = 0; i + 1 < n_threads; i++) {
        pool->workers[i].pool = pool;
        pool->workers[i].index = i + 1;
        if (pthread_create (&pool->workers[i].thread, NULL, worker_main, &pool->workers[i]) != 0) {
            wl_fail (err, WL_ERROR_INTERNAL, "thread %zu of %zu could not be started: use fewer (--threads)", i + 2,
                     n_threads);
            goto failed;
        }
        pool->n_started++;
    }
    return pool;
failed:
    wl_thread_pool_free (&pool);
    return NULL;
}

void wl_thread_pool_free (wl_thread_pool **pool_pointer)
{
    wl_thread_pool *pool = *pool_pointer;
    if (!pool)
        return;
    atomic_store (&pool->stop, 1);
    pthread_mutex_lock (&pool->mutex);
    pthread_cond_broadcast (&pool->work_came);
    pthread_mutex_unlock (&pool->mutex);
    for (size_t i = 0; i < pool->n_started; i++)
        pthread_join (pool->workers[i].thread, NULL);
    pthread_cond_destroy (&pool->work_came);
    pthread_cond_destroy (&pool->work_done);
    pthread_mutex_destroy (&pool->mutex);
    free (pool->workers);
    wl_free_aligned (pool->shares);
    free (pool);
    *pool_pointer = NULL;
}

size_t wl_thread_pool_size (const wl_thread_pool *pool)
{
    return pool->n_threads;
}
