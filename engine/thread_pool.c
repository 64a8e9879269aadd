/* One pool of compute threads; see thread_pool.h.
 *
 * A job is published in one atomic word, `ticket` = (generation << 32 | next chunk). A thread takes a chunk by raising that word with a
 * compare-and-swap; success proves that the job it read is still the current one, so threads may come late, or not at all, without anyone
 * waiting for them: the caller only waits until every chunk is done. Before a job's fields are replaced the ticket is closed
 * (next chunk = CLOSED), which makes every late compare-and-swap fail. */
#include "thread_pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

#include "machine.h"
#include "memory.h"

enum { SPIN_NS = 50 * 1000, CLOCK_EVERY = 64 };
#define CLOSED 0xffffffffu

typedef struct worker {
    wl_thread_pool *pool;
    size_t index;
    pthread_t thread;
} worker;

struct wl_thread_pool {
    size_t n_threads;
    worker *workers;  /* [n_threads - 1] */
    size_t n_started; /* of them */

    _Atomic uint64_t ticket; /* pairs with itself: release on publishing, acquire on taking */
    _Atomic (wl_chunk_fn) fn;
    _Atomic (void *) context;
    _Atomic uint32_t n_chunks;
    _Atomic uint32_t n_done; /* release by whoever finishes a chunk, acquire by the caller */

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

/* Takes and runs chunks of the current job until none is left. */
static void work (wl_thread_pool *pool, size_t thread)
{
    uint64_t ticket = atomic_load (&pool->ticket);
    for (;;) {
        uint32_t chunk = (uint32_t) ticket;
        uint32_t n_chunks = atomic_load_explicit (&pool->n_chunks, memory_order_relaxed);
        wl_chunk_fn fn = atomic_load_explicit (&pool->fn, memory_order_relaxed);
        void *context = atomic_load_explicit (&pool->context, memory_order_relaxed);
        if (chunk == CLOSED || chunk >= n_chunks)
            return;
        if (!atomic_compare_exchange_weak (&pool->ticket, &ticket, ticket + 1))
            continue; /* ticket now holds the new value */
        fn (context, chunk, thread);
        if (atomic_fetch_add (&pool->n_done, 1) + 1 == n_chunks && atomic_load (&pool->caller_asleep)) {
            pthread_mutex_lock (&pool->mutex);
            pthread_cond_signal (&pool->work_done);
            pthread_mutex_unlock (&pool->mutex);
        }
        ticket = atomic_load (&pool->ticket);
    }
}

/* Whether `ticket` offers a chunk. n_chunks may belong to the next job already: then work() finds out. */
static bool has_work (wl_thread_pool *pool)
{
    uint32_t chunk = (uint32_t) atomic_load (&pool->ticket);
    return chunk != CLOSED && chunk < atomic_load_explicit (&pool->n_chunks, memory_order_relaxed);
}

static void *worker_main (void *argument)
{
    worker *self = argument;
    wl_thread_pool *pool = self->pool;
    wl_machine_compute_thread ();
    while (!atomic_load (&pool->stop)) {
        uint64_t since = wl_now_ns ();
        unsigned spins = 0;
        while (!has_work (pool) && !atomic_load (&pool->stop)) {
            relax ();
            if (++spins % CLOCK_EVERY == 0 && wl_now_ns () - since > SPIN_NS) {
                pthread_mutex_lock (&pool->mutex);
                atomic_fetch_add (&pool->n_asleep, 1);
                while (!has_work (pool) && !atomic_load (&pool->stop))
                    pthread_cond_wait (&pool->work_came, &pool->mutex);
                atomic_fetch_sub (&pool->n_asleep, 1);
                pthread_mutex_unlock (&pool->mutex);
            }
        }
        work (pool, self->index);
    }
    return NULL;
}

void wl_thread_pool_run (wl_thread_pool *pool, size_t n_chunks, wl_chunk_fn fn, void *context)
{
    if (pool->n_threads == 1 || n_chunks <= 1) {
        for (size_t c = 0; c < n_chunks; c++)
            fn (context, c, 0);
        return;
    }
    uint64_t generation = (atomic_load (&pool->ticket) >> 32) + 1;
    atomic_store_explicit (&pool->n_chunks, (uint32_t) n_chunks, memory_order_relaxed);
    atomic_store_explicit (&pool->fn, fn, memory_order_relaxed);
    atomic_store_explicit (&pool->context, context, memory_order_relaxed);
    atomic_store (&pool->n_done, 0);
    atomic_store (&pool->ticket, generation << 32);
    if (atomic_load (&pool->n_asleep) > 0) {
        pthread_mutex_lock (&pool->mutex);
        pthread_cond_broadcast (&pool->work_came);
        pthread_mutex_unlock (&pool->mutex);
    }
    work (pool, 0);
    uint64_t since = wl_now_ns ();
    unsigned spins = 0;
    while (atomic_load (&pool->n_done) < n_chunks) {
        relax ();
        if (++spins % CLOCK_EVERY == 0 && wl_now_ns () - since > SPIN_NS) {
            pthread_mutex_lock (&pool->mutex);
            atomic_store (&pool->caller_asleep, 1);
            while (atomic_load (&pool->n_done) < n_chunks)
                pthread_cond_wait (&pool->work_done, &pool->mutex);
            atomic_store (&pool->caller_asleep, 0);
            pthread_mutex_unlock (&pool->mutex);
        }
    }
    atomic_store (&pool->ticket, generation << 32 | CLOSED);
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
    atomic_store (&pool->ticket, CLOSED);
    pthread_mutex_init (&pool->mutex, NULL);
    pthread_cond_init (&pool->work_came, NULL);
    pthread_cond_init (&pool->work_done, NULL);
    pool->workers = wl_new (n_threads, sizeof *pool->workers, err);
    if (!pool->workers)
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
    free (pool);
    *pool_pointer = NULL;
}

size_t wl_thread_pool_size (const wl_thread_pool *pool)
{
    return pool->n_threads;
}
