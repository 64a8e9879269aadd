/* The paged KV cache; see kv_cache.h. */
#include "kv_cache.h"

#include <string.h>

#include "memory.h"

enum { PART = 256 }; /* elements of a head that are rounded at a time */

static const char *const type_names[WL_N_KV_TYPES] = {"f16", "q8_0"};

const char *wl_kv_type_name (wl_kv_type type)
{
    return type_names[type];
}

bool wl_kv_type_parse (const char *name, wl_kv_type *type, wl_error *err)
{
    for (int i = 0; i < WL_N_KV_TYPES; i++)
        if (strcmp (name, type_names[i]) == 0) {
            *type = (wl_kv_type) i;
            return true;
        }
    return wl_fail (err, WL_ERROR_USAGE, "--kv %s: choose f16 or q8_0", name);
}

bool wl_kv_type_fits (wl_kv_type type, uint32_t head_dim, wl_error *err)
{
    if (type == WL_KV_F16 || head_dim % WL_KV_SCALED == 0)
        return true;
    return wl_fail (err, WL_ERROR_USAGE,
                    "--kv q8_0 has a scale for %d elements, and this model's heads have %u, not a multiple: choose "
                    "--kv f16",
                    WL_KV_SCALED, head_dim);
}

/* Bytes of one head's keys, or values, of one page. */
static uint64_t cell_bytes (wl_kv_type type, uint32_t head_dim)
{
    uint64_t elements = (uint64_t) WL_KV_PAGE * head_dim;
    return type == WL_KV_F16 ? elements * sizeof (uint16_t) : elements + elements / WL_KV_SCALED * sizeof (uint16_t);
}

uint64_t wl_kv_page_bytes (wl_kv_type type, uint32_t n_layers, uint32_t n_heads, uint32_t head_dim)
{
    return (uint64_t) n_layers * n_heads * 2 * cell_bytes (type, head_dim);
}

uint64_t wl_kv_position_bytes (wl_kv_type type, uint32_t n_layers, uint32_t n_heads, uint32_t head_dim)
{
    return wl_kv_page_bytes (type, n_layers, n_heads, head_dim) / WL_KV_PAGE;
}

bool wl_kv_cache_open (wl_kv_cache *cache, wl_kv_type type, uint32_t n_pages, uint32_t n_layers, uint32_t n_heads,
                       uint32_t head_dim, wl_error *err)
{
    size_t bytes;
    if (!wl_kv_type_fits (type, head_dim, err))
        return false;
    if (__builtin_mul_overflow ((size_t) n_pages, (size_t) wl_kv_page_bytes (type, n_layers, n_heads, head_dim),
                                &bytes))
        return wl_fail (err, WL_ERROR_CLUSTER, "a KV cache of %u pages is too large: choose a smaller --ctx", n_pages);
    *cache = (wl_kv_cache){.memory = wl_map_pages (bytes, err),
                           .bytes = bytes,
                           .page_bytes = (size_t) cell_bytes (type, head_dim),
                           .type = type,
                           .n_pages = n_pages,
                           .n_layers = n_layers,
                           .n_heads = n_heads,
                           .head_dim = head_dim};
    return cache->memory != NULL;
}

void wl_kv_cache_close (wl_kv_cache *cache)
{
    wl_unmap_pages (cache->memory, cache->bytes);
    cache->memory = NULL;
}

/* Where elements of a position begin in a K page: they are WL_KV_GROUP apart. */
static size_t key_place (size_t position, size_t head_dim)
{
    return position / WL_KV_GROUP * WL_KV_GROUP * head_dim + position % WL_KV_GROUP;
}

static void store_f16 (const wl_kv_cache *cache, const wl_kernels *kernels, uint16_t *k_page, uint16_t *v_page,
                       size_t position, const float *k, const float *v)
{
    size_t dim = cache->head_dim;
    uint16_t part[PART], *keys = k_page + key_place (position, dim);
    for (size_t from = 0; from < dim; from += PART) {
        size_t n = dim - from < PART ? dim - from : PART;
        kernels->to_f16 (part, k + from, n);
        for (size_t i = 0; i < n; i++)
            keys[(from + i) * WL_KV_GROUP] = part[i];
    }
    kernels->to_f16 (v_page + position * dim, v, dim);
}

static void store_q8_0 (const wl_kv_cache *cache, const wl_kernels *kernels, int8_t *k_page, int8_t *v_page,
                        size_t position, const float *k, const float *v)
{
    size_t dim = cache->head_dim;
    uint16_t *k_scales = (uint16_t *) (void *) (k_page + WL_KV_PAGE * dim) + position,
             *v_scales = (uint16_t *) (void *) (v_page + WL_KV_PAGE * dim) + position;
    int8_t part[WL_KV_SCALED], *keys = k_page + key_place (position, dim);
    for (size_t from = 0; from < dim; from += WL_KV_SCALED, k_scales += WL_KV_PAGE, v_scales += WL_KV_PAGE) {
        kernels->to_q8_0 (part, k_scales, k + from, WL_KV_SCALED);
        for (size_t i = 0; i < WL_KV_SCALED; i++)
            keys[(from + i) * WL_KV_GROUP] = part[i];
        kernels->to_q8_0 (v_page + position * dim + from, v_scales, v + from, WL_KV_SCALED);
    }
}

void wl_kv_store (const wl_kv_cache *cache, const wl_kernels *kernels, uint32_t page, uint32_t layer, uint32_t head,
                  uint32_t position, const float *k, const float *v)
{
    void *k_page = wl_kv_k_page (cache, page, layer, head), *v_page = wl_kv_v_page (cache, page, layer, head);
    if (cache->type == WL_KV_F16)
        store_f16 (cache, kernels, k_page, v_page, position, k, v);
    else
        store_q8_0 (cache, kernels, k_page, v_page, position, k, v);
}

void wl_kv_copy_page (const wl_kv_cache *cache, uint32_t from, uint32_t to)
{
    /* memmove: a peer may name one page twice */
    memmove (wl_kv_k_page (cache, to, 0, 0), wl_kv_k_page (cache, from, 0, 0),
             (size_t) wl_kv_page_bytes (cache->type, cache->n_layers, cache->n_heads, cache->head_dim));
}
