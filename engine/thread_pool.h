/* One pool of compute threads per process.
 *
 * The caller is thread 0 and works too. A job is a function over chunks 0..n-1 that threads take from an atomic counter, so
 * uneven chunks even out; which thread runs which chunk never affects results (each output belongs to one chunk). Between
 * jobs, workers spin for some microseconds, since the next job of a layer follows at once, then sleep on a condition
 * variable: an idle process uses no CPU.
 *
 * Thread: one thread owns the pool and calls run; it is not re-entrant. */
#ifndef WL_ENGINE_THREAD_POOL_H
#define WL_ENGINE_THREAD_POOL_H

#include <stddef.h>

#include "error.h"

typedef struct wl_thread_pool wl_thread_pool;

/* `chunk` in [0, n_chunks), `thread` in [0, n_threads) for per-thread scratch. */
typedef void (*wl_chunk_fn) (void *context, size_t chunk, size_t thread);

/* n_threads >= 1, counting the caller. */
wl_thread_pool *wl_thread_pool_new (size_t n_threads, wl_error *err);
void wl_thread_pool_free (wl_thread_pool **pool);
size_t wl_thread_pool_size (const wl_thread_pool *pool);

/* Runs all chunks and returns when all are done; their writes are visible to the caller. */
void wl_thread_pool_run (wl_thread_pool *pool, size_t n_chunks, wl_chunk_fn fn, void *context);

#endif
