/* The paged KV cache of one stage.
 *
 * Memory: [page][layer of the stage][kv head], each cell a K page and a V page of WL_KV_PAGE positions in the layouts of kernels.h. All pages are
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
    uint16_t *memory;
    size_t bytes;
    uint32_t n_pages, n_layers, n_heads, head_dim;
} wl_kv_cache;

/* f16 bytes of one page over all layers. */
uint64_t wl_kv_page_bytes (uint32_t n_layers, uint32_t n_heads, uint32_t head_dim);

bool wl_kv_cache_open (wl_kv_cache *cache, uint32_t n_pages, uint32_t n_layers, uint32_t n_heads, uint32_t head_dim,
                       wl_error *err);
void wl_kv_cache_close (wl_kv_cache *cache);

/* Start of the K page (V page right behind it, WL_KV_PAGE * head_dim elements on). */
static inline uint16_t *wl_kv_k_page (const wl_kv_cache *cache, uint32_t page, uint32_t layer, uint32_t head)
{
    size_t cell = ((size_t) page * cache->n_layers + layer) * cache->n_heads + head;
    return cache->memory + cell * 2 * WL_KV_PAGE * cache->head_dim;
}

static inline uint16_t *wl_kv_v_page (const wl_kv_cache *cache, uint32_t page, uint32_t layer, uint32_t head)
{
    return wl_kv_k_page (cache, page, layer, head) + (size_t) WL_KV_PAGE * cache->head_dim;
}

/* Stores elements [from, from + n) of one head of one position; `position` counts within the page. */
void wl_kv_store (const wl_kv_cache *cache, uint32_t page, uint32_t layer, uint32_t head, uint32_t position,
                  size_t from, size_t n, const uint16_t *k, const uint16_t *v);

/* Copies all layers and heads of a page. */
void wl_kv_copy_page (const wl_kv_cache *cache, uint32_t from, uint32_t to);

#endif
