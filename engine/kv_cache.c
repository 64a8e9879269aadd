/* The paged KV cache; see kv_cache.h. */
#include "kv_cache.h"

#include <string.h>

#include "memory.h"

uint64_t wl_kv_page_bytes (uint32_t n_layers, uint32_t n_heads, uint32_t head_dim)
{
    return (uint64_t) n_layers * n_heads * 2 * WL_KV_PAGE * head_dim * sizeof (uint16_t);
}

bool wl_kv_cache_open (wl_kv_cache *cache, uint32_t n_pages, uint32_t n_layers, uint32_t n_heads, uint32_t head_dim,
                       wl_error *err)
{
    size_t bytes;
    if (__builtin_mul_overflow ((size_t) n_pages, (size_t) wl_kv_page_bytes (n_layers, n_heads, head_dim), &bytes))
        return wl_fail (err, WL_ERROR_CLUSTER, "a KV cache of %u pages is too large: choose a smaller --ctx", n_pages);
    *cache = (wl_kv_cache){wl_map_pages (bytes, err), bytes, n_pages, n_layers, n_heads, head_dim};
    return cache->memory != NULL;
}

void wl_kv_cache_close (wl_kv_cache *cache)
{
    wl_unmap_pages (cache->memory, cache->bytes);
    cache->memory = NULL;
}

void wl_kv_store (const wl_kv_cache *cache, uint32_t page, uint32_t layer, uint32_t head, uint32_t position,
                  size_t from, size_t n, const uint16_t *k, const uint16_t *v)
{
    size_t dim = cache->head_dim;
    uint16_t *k_group =
        wl_kv_k_page (cache, page, layer, head) + position / WL_KV_GROUP * WL_KV_GROUP * dim + position % WL_KV_GROUP;
    for (size_t i = 0; i < n; i++)
        k_group[(from + i) * WL_KV_GROUP] = k[i];
    memcpy (wl_kv_v_page (cache, page, layer, head) + position * dim + from, v, n * sizeof *v);
}

void wl_kv_copy_page (const wl_kv_cache *cache, uint32_t from, uint32_t to)
{
    /* memmove: a peer may name one page twice */
    memmove (wl_kv_k_page (cache, to, 0, 0), wl_kv_k_page (cache, from, 0, 0),
             (size_t) wl_kv_page_bytes (cache->n_layers, cache->n_heads, cache->head_dim));
}
