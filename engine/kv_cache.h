/* The paged KV cache of one stage.
 *
 * Memory: [page][layer of the stage][kv head], each cell a K page and a V page of WL_KV_PAGE positions in the layouts of kernels.h: f16, or q8_0 in
 * 34 / 64 of its bytes. All pages are
 * reserved at once and become resident only when written, so a page id is an index and nothing is allocated during a step.
 * Thread: the stage's; its pool writes and reads disjoint cells. */
#ifndef WL_ENGINE_KV_CACHE_H
#define WL_ENGINE_KV_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "kernels/kernels.h"

typedef struct wl_kv_cache {
    uint8_t *memory;
    size_t bytes, page_bytes; /* of all of it; of one cell's K page, and of its V page */
    wl_kv_type type;
    uint32_t n_pages, n_layers, n_heads, head_dim;
} wl_kv_cache;

const char *wl_kv_type_name (wl_kv_type type);
/* "f16" or "q8_0"; WL_ERROR_USAGE "--kv x: choose f16 or q8_0" otherwise. */
bool wl_kv_type_parse (const char *name, wl_kv_type *type, wl_error *err);
/* Whether heads of so many elements can be kept as this type; WL_ERROR_USAGE otherwise. */
bool wl_kv_type_fits (wl_kv_type type, uint32_t head_dim, wl_error *err);

/* Bytes of one page over all layers. */
uint64_t wl_kv_page_bytes (wl_kv_type type, uint32_t n_layers, uint32_t n_heads, uint32_t head_dim);
/* Bytes of one position over as many layers. */
uint64_t wl_kv_position_bytes (wl_kv_type type, uint32_t n_layers, uint32_t n_heads, uint32_t head_dim);

bool wl_kv_cache_open (wl_kv_cache *cache, wl_kv_type type, uint32_t n_pages, uint32_t n_layers, uint32_t n_heads,
                       uint32_t head_dim, wl_error *err);
void wl_kv_cache_close (wl_kv_cache *cache);

/* Start of the K page (V page right behind it). */
static inline uint8_t *wl_kv_k_page (const wl_kv_cache *cache, uint32_t page, uint32_t layer, uint32_t head)
{
    size_t cell = ((size_t) page * cache->n_layers + layer) * cache->n_heads + head;
    return cache->memory + cell * 2 * cache->page_bytes;
}

static inline uint8_t *wl_kv_v_page (const wl_kv_cache *cache, uint32_t page, uint32_t layer, uint32_t head)
{
    return wl_kv_k_page (cache, page, layer, head) + cache->page_bytes;
}

/* Rounds and stores one head of one position, k and v [head_dim]; `position` counts within the page. */
void wl_kv_store (const wl_kv_cache *cache, const wl_kernels *kernels, uint32_t page, uint32_t layer, uint32_t head,
                  uint32_t position, const float *k, const float *v);

/* Copies all layers and heads of a page. */
void wl_kv_copy_page (const wl_kv_cache *cache, uint32_t from, uint32_t to);

#endif
