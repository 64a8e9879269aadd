/* Allocation, checked in one place.
 *
 * Every allocation of the project goes through here, so that a failure becomes a wl_error with the size in it, sizes are
 * multiplied with overflow checks, and tests can make the Nth allocation fail (wl_memory_fail_after). Small objects come
 * from malloc; buffers that kernels read are aligned to 64 bytes (a cache line and an AVX-512 register). Weights are
 * mapped pages, so that a stage's memory is one copy, returned to the system when freed. */
#ifndef WL_ENGINE_MEMORY_H
#define WL_ENGINE_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"

/* Zeroed memory for `count` objects of `size` bytes; NULL with WL_ERROR_INTERNAL on failure. count or size 0 gives a
 * non-NULL pointer. Free with free(). Thread: any. */
void *wl_new (size_t count, size_t size, wl_error *err);

/* Grows `old` (NULL or from wl_new) to count * size bytes; new bytes are not zeroed. On failure returns NULL and `old`
 * stays valid. */
void *wl_resize (void *old, size_t count, size_t size, wl_error *err);

/* A copy of `length` bytes with a NUL behind them. Free with free(). */
char *wl_copy_text (const char *text, size_t length, wl_error *err);

/* "folder/name". Free with free(). */
char *wl_join_path (const char *folder, const char *name, wl_error *err);

/* Zeroed, 64-byte aligned. Free with wl_free_aligned. */
void *wl_new_aligned (size_t count, size_t size, wl_error *err);
void wl_free_aligned (void *memory);

/* Anonymous pages, zeroed, for weights and KV: `bytes` rounded up to pages, huge pages asked for where the system offers
 * them. Pages are only resident once touched. NULL with an error on failure. */
void *wl_map_pages (size_t bytes, wl_error *err);
void wl_unmap_pages (void *memory, size_t bytes);

/* Bytes of memory this machine could still give to this process (available, not merely free), and this process's resident
 * set; of that, pages of mapped files, which are in memory once however many processes map them. 0 where the system does
 * not say. */
uint64_t wl_memory_available (void);
uint64_t wl_memory_resident (void);
uint64_t wl_memory_resident_mapped (void);

/* For tests: the nth allocation from now (1 = the next one) fails, once; 0 turns it off. Not thread safe. */
void wl_memory_fail_after (unsigned nth);

#endif
