/* The attention half of a layer: norm, Q K V, RoPE, KV store, attention over pages, output projection. */
#include "stage_private.h"

#include <string.h>

/* Adds what the previous half left in y, then norms and quantizes. */
static void norm_row (wl_stage *s, uint32_t layer_index, uint32_t row, size_t thread)
{
    (void) thread;
    const wl_model *m = s->model;
    const stage_layer *l = &s->layers[layer_index];
    float *h = s->h + row * s->h_stride;
    if (layer_index > 0)
        add_residual (s, layer_index - 1, row, WL_ROLE_FFN_DOWN_BIAS, WL_ROLE_FFN_POST_NORM);
    norm_into (s, h, s->x + (size_t) row * m->d_model, l->vectors[WL_ROLE_ATTN_NORM],
               l->vectors[WL_ROLE_ATTN_NORM_BIAS]);
    represent_row (s, row, h, m->d_model, l->inputs.qkv);
}

size_t attention_products (wl_stage *s, uint32_t layer_index, wl_product out[3])
{
    const stage_layer *l = &s->layers[layer_index];
    size_t n_rows = s->batch->n_rows;
    if (l->matrices[WL_ROLE_ATTN_QKV]) {
        out[0] = (wl_product){l->matrices[WL_ROLE_ATTN_QKV], s->qkv, s->qkv_stride, 0, n_rows};
        return 1;
    }
    float *k = s->qkv + s->q_width, *v = k + s->kv_width;
    out[0] = (wl_product){l->matrices[WL_ROLE_ATTN_Q], s->qkv, s->qkv_stride, 0, n_rows};
    out[1] = (wl_product){l->matrices[WL_ROLE_ATTN_K], k, s->qkv_stride, 0, n_rows};
    out[2] = (wl_product){l->matrices[WL_ROLE_ATTN_V], v, s->qkv_stride, 0, n_rows};
    return 3;
}

/* Norms q's or k's heads; `weight` NULL: they have no norm. */
static void norm_heads (const wl_stage *s, float *heads, uint32_t n_heads, const float *weight)
{
    const wl_model *m = s->model;
    const wl_kernels *kernels = s->options.kernels;
    bool at_once = m->qk_norm == WL_QK_NORM_ALL_HEADS;
    size_t n = at_once ? (size_t) n_heads * m->head_dim : m->head_dim;
    for (uint32_t i = 0; weight && i < (at_once ? 1 : n_heads); i++, heads += n) {
        const float *w = m->qk_norm == WL_QK_NORM_EACH_HEAD ? weight + i * n : weight;
        if (m->norm_kind == WL_NORM_LAYER)
            kernels->layer_norm (heads, heads, w, NULL, n, m->norm_eps);
        else
            kernels->rms_norm (heads, heads, w, n, m->norm_eps);
    }
}

static void rotate_heads (const wl_stage *s, uint32_t layer_index, uint32_t row, float *heads, uint32_t n_heads)
{
    const wl_model *m = s->model;
    const wl_kernels *kernels = s->options.kernels;
    wl_layer_rope rope = m->layers[s->options.first_layer + layer_index].rope;
    size_t n_pairs = m->rope_dims / 2;
    if (rope == WL_LAYER_ROPE_NONE)
        return;
    const float *cosines = s->rope[rope] + (size_t) row * m->rope_dims, *sines = cosines + n_pairs;
    for (uint32_t i = 0; i < n_heads; i++, heads += m->head_dim)
        if (m->rope_kind == WL_ROPE_ADJACENT)
            kernels->rope_adjacent (heads, cosines, sines, n_pairs);
        else
            kernels->rope_halves (heads, cosines, sines, n_pairs);
}

/* Bias, norm and RoPE of one row's heads; K and V go to their page, Q to the order that attention reads. */
static void place_row (wl_stage *s, uint32_t layer_index, uint32_t row, size_t thread)
{
    (void) thread;
    const wl_model *m = s->model;
    float *const *vectors = s->layers[layer_index].vectors;
    const row_place place = s->places[row];
    const wl_span *span = &s->batch->spans[place.span];
    float *q = s->qkv + row * s->qkv_stride, *k = q + s->q_width, *v = k + s->kv_width;
    uint32_t page = span->pages[place.position / WL_KV_PAGE];
    size_t dim = m->head_dim;
    add_bias (s, q, vectors[WL_ROLE_ATTN_QKV_BIAS], s->q_width + 2 * s->kv_width);
    add_bias (s, q, vectors[WL_ROLE_ATTN_Q_BIAS], s->q_width);
    add_bias (s, k, vectors[WL_ROLE_ATTN_K_BIAS], s->kv_width);
    add_bias (s, v, vectors[WL_ROLE_ATTN_V_BIAS], s->kv_width);
    norm_heads (s, q, m->n_heads, vectors[WL_ROLE_ATTN_Q_NORM]);
    norm_heads (s, k, m->n_kv_heads, vectors[WL_ROLE_ATTN_K_NORM]);
    rotate_heads (s, layer_index, row, q, m->n_heads);
    rotate_heads (s, layer_index, row, k, m->n_kv_heads);
    for (uint32_t head = 0; head < m->n_heads; head++) {
        size_t to = (((size_t) (head / s->group) * s->batch->n_rows + row) * s->group + head % s->group) * dim;
        memcpy (s->q_heads + to, q + head * dim, dim * sizeof *q);
    }
    for (uint32_t head = 0; head < m->n_kv_heads; head++)
        wl_kv_store (&s->kv, s->options.kernels, page, layer_index, head, place.position % WL_KV_PAGE, k + head * dim,
                     v + head * dim);
}

typedef struct attend_job {
    wl_stage *stage;
    uint32_t layer_index;
} attend_job;

/* One tile of query rows of one KV head. */
static void attend_chunk (void *context, size_t chunk, size_t thread)
{
    const attend_job *job = context;
    wl_stage *s = job->stage;
    const wl_model *m = s->model;
    const attention_tile *tile = &s->tiles[chunk / m->n_kv_heads];
    uint32_t head = (uint32_t) (chunk % m->n_kv_heads);
    const wl_span *span = &s->batch->spans[tile->span];
    uint32_t window = m->layers[s->options.first_layer + job->layer_index].window;
    uint32_t *first = s->visible + thread * 2 * s->tile_rows * s->group,
             *last = first + (size_t) s->tile_rows * s->group;
    const void **k_pages = s->page_places + thread * 2 * s->options.n_pages, **v_pages = k_pages + s->options.n_pages;
    const float *sinks = s->layers[job->layer_index].vectors[WL_ROLE_ATTN_SINKS];
    float *tile_sinks = s->sinks + thread * s->tile_rows * s->group;
    size_t n = 0;
    for (uint32_t row = tile->first_row; row < tile->first_row + tile->n_rows; row++) {
        uint32_t position = s->places[row].position;
        for (uint32_t i = 0; i < s->group; i++, n++) {
            last[n] = position;
            tile_sinks[n] = sinks ? sinks[head * s->group + i] : 0;
            first[n] = window && position + 1 > window ? position + 1 - window : 0;
        }
    }
    for (uint32_t page = first[0] / WL_KV_PAGE; page <= last[n - 1] / WL_KV_PAGE; page++) {
        k_pages[page] = wl_kv_k_page (&s->kv, span->pages[page], job->layer_index, head);
        v_pages[page] = wl_kv_v_page (&s->kv, span->pages[page], job->layer_index, head);
    }
    size_t offset = ((size_t) head * s->batch->n_rows + tile->first_row) * s->group * m->head_dim;
    s->options.kernels->attention (&(wl_attention){
        .n_rows = n,
        .head_dim = m->head_dim,
        .q = s->q_heads + offset,
        .q_stride = m->head_dim,
        .out = s->o_heads + offset,
        .out_stride = m->head_dim,
        .first = first,
        .last = last,
        .kv_type = s->kv.type,
        .k_pages = k_pages,
        .v_pages = v_pages,
        .scale = m->attention_scale,
        .softcap = m->attention_softcap,
        .sinks = sinks ? tile_sinks : NULL,
        .scratch = s->attention_scratch + thread * s->attention_stride,
    });
}

/* Brings one row's heads back side by side and quantizes them. */
static void gather_row (wl_stage *s, uint32_t layer_index, uint32_t row, size_t thread)
{
    (void) thread;
    const wl_model *m = s->model;
    size_t width = (size_t) s->group * m->head_dim;
    float *h = s->h + row * s->h_stride;
    for (uint32_t head = 0; head < m->n_kv_heads; head++)
        memcpy (h + head * width, s->o_heads + ((size_t) head * s->batch->n_rows + row) * width, width * sizeof *h);
    represent_row (s, row, h, m->n_kv_heads * width, s->layers[layer_index].inputs.output);
}

void attention_half (wl_stage *s, uint32_t layer_index)
{
    const wl_model *m = s->model;
    const stage_layer *l = &s->layers[layer_index];
    uint32_t n_rows = s->batch->n_rows;
    const wl_product output = {l->matrices[WL_ROLE_ATTN_OUTPUT], s->y, s->y_stride, 0, n_rows};
    wl_product qkv[3], feed_forward[3];
    run_rows (s, norm_row, layer_index, n_rows);
    multiply (s, s->h, s->h_stride, m->d_model, (wl_products){qkv, attention_products (s, layer_index, qkv)},
              (wl_products){&output, 1});
    run_rows (s, place_row, layer_index, n_rows);
    attend_job job = {s, layer_index};
    wl_thread_pool_run (s->options.pool, (size_t) s->n_tiles * m->n_kv_heads, attend_chunk, &job);
    run_rows (s, gather_row, layer_index, n_rows);
    multiply (s, s->h, s->h_stride, s->q_width, (wl_products){&output, 1},
              (wl_products){feed_forward, feed_forward_products (s, layer_index, feed_forward)});
}
