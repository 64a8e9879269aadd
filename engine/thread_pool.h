/* One pool of compute threads per process.
 *
 * The caller is thread 0 and works too. A job is a function over items 0..n-1. Each thread begins with its own part of them, the same part in every job, then takes what others have
 * left: so uneven items even out, a thread reads what it streams from memory in long runs, and where jobs of a layer have their items in the order of the rows, it finds in its core's
 * cache what it has written itself (cores that do not share a cache pass lines to one another in 200 ns and more). Which thread runs which item never affects results: each output
 * belongs to one item.
 *
 * Between jobs, workers spin for some microseconds, since the next job of a layer follows at once, and fetch what they expect to read first then; later they sleep on a condition
 * variable: an idle process uses no CPU.
 *
 * Thread: one thread owns the pool and calls all functions; run and run_ranges are not re-entrant. */
#ifndef WL_ENGINE_THREAD_POOL_H
#define WL_ENGINE_THREAD_POOL_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"

typedef struct wl_thread_pool wl_thread_pool;

/* `chunk` in [0, n_chunks), `thread` in [0, n_threads) for per-thread scratch. */
typedef void (*wl_chunk_fn) (void *context, size_t chunk, size_t thread);

/* n_threads >= 1, counting the caller. */
wl_thread_pool *wl_thread_pool_new (size_t n_threads, wl_error *err);
void wl_thread_pool_free (wl_thread_pool **pool);
size_t wl_thread_pool_size (const wl_thread_pool *pool);

/* Runs all chunks, one at a time, and returns when all are done; their writes are visible to the caller. */
void wl_thread_pool_run (wl_thread_pool *pool, size_t n_chunks, wl_chunk_fn fn, void *context);

/* Items [first, end), of which no other call has any. */
typedef void (*wl_range_fn) (void *context, size_t first, size_t end, size_t thread);

/* The same for items that are worth running together: a thread takes half of what a part has left, but `least` items at least. */
void wl_thread_pool_run_ranges (wl_thread_pool *pool, size_t n_items, size_t least, wl_range_fn fn, void *context);

/* The range that the thread begins with in such a job, as far as nobody is faster: [*first, *end). */
void wl_thread_pool_first_range (const wl_thread_pool *pool, size_t n_items, size_t least, size_t thread, size_t *first,
                                 size_t *end);

/* Two runs of memory of `bytes` each. */
typedef struct wl_memory_runs {
    const uint8_t *at[2]; /* never read, only fetched: may be gone by then. NULL: none */
    size_t bytes;
} wl_memory_runs;

/* What the thread fetches into its core's cache, from now until this is called again, while it has no work. */
void wl_thread_pool_expect (wl_thread_pool *pool, size_t thread, wl_memory_runs runs);

#endif
