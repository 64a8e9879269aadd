/* The attention half of a layer: norm, Q K V, RoPE, KV store, attention over pages, output projection. */
#include "stage_private.h"

#include <string.h>

static const wl_matrix *const *qkv_of (const stage_layer *l, const wl_matrix *out[3])
{
    out[0] = &l->q;
    out[1] = &l->k;
    out[2] = &l->v;
    return out;
}

/* Adds what the previous half left in y, then norms and quantizes. */
static void norm_row (wl_stage *s, uint32_t layer_index, uint32_t row, size_t thread)
{
    (void) thread;
    const wl_model *m = s->model;
    const stage_layer *l = &s->layers[layer_index];
    const wl_matrix *qkv[3];
    if (layer_index > 0)
        add_residual (s, row, s->layers[layer_index - 1].vectors[WL_ROLE_FFN_POST_NORM]);
    float *h = s->h + row * s->h_stride;
    s->options.kernels->rms_norm (h, s->x + (size_t) row * m->d_model, l->vectors[WL_ROLE_ATTN_NORM], m->d_model,
                                  m->norm_eps);
    represent_row (s, row, h, m->d_model, kinds_wanted (qkv_of (l, qkv), 3));
}

static void add_bias (const wl_kernels *kernels, float *x, const float *bias, size_t n)
{
    if (bias)
        kernels->add_scaled (x, bias, 1.0f, n);
}

static void finish_head (const wl_stage *s, uint32_t layer_index, uint32_t row, float *head, const float *norm)
{
    const wl_model *m = s->model;
    const wl_kernels *kernels = s->options.kernels;
    const float *angles =
        s->rope[m->layers[s->options.first_layer + layer_index].local_rope] + (size_t) row * m->rope_dims;
    size_t n_pairs = m->rope_dims / 2;
    if (norm)
        kernels->rms_norm (head, head, norm, m->head_dim, m->norm_eps);
    if (m->rope_kind == WL_ROPE_ADJACENT)
        kernels->rope_adjacent (head, angles, angles + n_pairs, n_pairs);
    else
        kernels->rope_halves (head, angles, angles + n_pairs, n_pairs);
}

/* Bias, norm and RoPE of one row's heads; K and V go to their page, Q to the order that attention reads. */
static void place_row (wl_stage *s, uint32_t layer_index, uint32_t row, size_t thread)
{
    (void) thread;
    enum { HEAD_PART = 256 };
    const wl_model *m = s->model;
    const wl_kernels *kernels = s->options.kernels;
    const stage_layer *l = &s->layers[layer_index];
    const row_place place = s->places[row];
    const wl_span *span = &s->batch->spans[place.span];
    float *q = s->q + row * s->q_stride, *k = s->k + row * s->kv_stride, *v = s->v + row * s->kv_stride;
    uint32_t page = span->pages[place.position / WL_KV_PAGE];
    size_t dim = m->head_dim;
    add_bias (kernels, q, l->vectors[WL_ROLE_ATTN_Q_BIAS], m->n_heads * dim);
    add_bias (kernels, k, l->vectors[WL_ROLE_ATTN_K_BIAS], m->n_kv_heads * dim);
    add_bias (kernels, v, l->vectors[WL_ROLE_ATTN_V_BIAS], m->n_kv_heads * dim);
    for (uint32_t head = 0; head < m->n_heads; head++) {
        finish_head (s, layer_index, row, q + head * dim, l->vectors[WL_ROLE_ATTN_Q_NORM]);
        size_t to = (((size_t) (head / s->group) * s->batch->n_rows + row) * s->group + head % s->group) * dim;
        memcpy (s->q_heads + to, q + head * dim, dim * sizeof *q);
    }
    for (uint32_t head = 0; head < m->n_kv_heads; head++) {
        finish_head (s, layer_index, row, k + head * dim, l->vectors[WL_ROLE_ATTN_K_NORM]);
        /* to_f16 in place would alias; a head is stored in parts through a small buffer */
        uint16_t k16[HEAD_PART], v16[HEAD_PART];
        for (size_t from = 0; from < dim; from += HEAD_PART) {
            size_t n = dim - from < HEAD_PART ? dim - from : HEAD_PART;
            kernels->to_f16 (k16, k + head * dim + from, n);
            kernels->to_f16 (v16, v + head * dim + from, n);
            wl_kv_store (&s->kv, page, layer_index, head, place.position % WL_KV_PAGE, from, n, k16, v16);
        }
    }
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
    const uint16_t **k_pages = s->page_places + thread * 2 * s->options.n_pages,
                   **v_pages = k_pages + s->options.n_pages;
    size_t n = 0;
    for (uint32_t row = tile->first_row; row < tile->first_row + tile->n_rows; row++) {
        uint32_t position = s->places[row].position;
        for (uint32_t i = 0; i < s->group; i++, n++) {
            last[n] = position;
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
        .k_pages = k_pages,
        .v_pages = v_pages,
        .scale = m->attention_scale,
        .scratch = s->attention_scratch + thread * s->attention_stride,
    });
}

/* Brings one row's heads back side by side and quantizes them. */
static void gather_row (wl_stage *s, uint32_t layer_index, uint32_t row, size_t thread)
{
    (void) thread;
    const wl_model *m = s->model;
    const wl_matrix *output = &s->layers[layer_index].output;
    size_t width = (size_t) s->group * m->head_dim;
    float *h = s->h + row * s->h_stride;
    for (uint32_t head = 0; head < m->n_kv_heads; head++)
        memcpy (h + head * width, s->o_heads + ((size_t) head * s->batch->n_rows + row) * width, width * sizeof *h);
    represent_row (s, row, h, m->n_kv_heads * width, kinds_wanted (&output, 1));
}

void attention_half (wl_stage *s, uint32_t layer_index)
{
    const wl_model *m = s->model;
    const stage_layer *l = &s->layers[layer_index];
    uint32_t n_rows = s->batch->n_rows;
    run_rows (s, norm_row, layer_index, n_rows);
    const wl_product qkv[3] = {{&l->q, s->q, s->q_stride}, {&l->k, s->k, s->kv_stride}, {&l->v, s->v, s->kv_stride}};
    multiply (s, s->h, s->h_stride, m->d_model, n_rows, qkv, 3);
    run_rows (s, place_row, layer_index, n_rows);
    attend_job job = {s, layer_index};
    wl_thread_pool_run (s->options.pool, (size_t) s->n_tiles * m->n_kv_heads, attend_chunk, &job);
    run_rows (s, gather_row, layer_index, n_rows);
    const wl_product output = {&l->output, s->y, s->y_stride};
    multiply (s, s->h, s->h_stride, l->output.columns, n_rows, &output, 1);
}
