/* A stage: loading a range of layers, and one step through it; see stage.h. The two halves of a layer are in attention.c and feed_forward.c.
 *
 * A step alternates two kinds of jobs on the thread pool: row jobs (norm, quantize, RoPE: a row belongs to one thread) and products (tiles of
 * weight rows belong to one thread). Both only decide who computes an output, never how, so results do not depend on the pool. */
#include "stage.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/math.h"
#include "memory.h"
#include "stage_private.h"

enum { ALIGNMENT = 64, TILE_QUERIES = 48 };

static size_t round_up (size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

/* -- sizes ------------------------------------------------------------------------------------------------------------------------- */

typedef struct sizes {
    size_t rows, d_model, q_width, kv_width, h_stride, y_stride, q_stride, kv_stride, ff_stride, widest;
    size_t shared; /* floats of the work space that both halves use in turn */
    uint32_t tile_rows, group;
} sizes;

static sizes sizes_of (const wl_model *m, const wl_stage_options *o)
{
    sizes z = {.rows = o->max_rows, .d_model = m->d_model, .group = m->n_heads / m->n_kv_heads};
    z.q_width = (size_t) m->n_heads * m->head_dim;
    z.kv_width = (size_t) m->n_kv_heads * m->head_dim;
    z.h_stride = round_up (z.q_width > z.d_model ? z.q_width : z.d_model, 16);
    z.y_stride = round_up (z.d_model, 16);
    z.q_stride = round_up (z.q_width, 16);
    z.kv_stride = round_up (z.kv_width, 16);
    z.ff_stride = round_up (m->d_ff, 16);
    z.widest = z.h_stride > z.ff_stride ? z.h_stride : z.ff_stride;
    size_t attention = z.rows * (3 * z.q_stride + 2 * z.kv_stride), feed_forward = z.rows * 2 * z.ff_stride;
    z.shared = attention > feed_forward ? attention : feed_forward;
    z.tile_rows = z.group >= TILE_QUERIES ? 1 : TILE_QUERIES / z.group;
    return z;
}

static bool holds_head (const wl_model *m, const wl_stage_options *o)
{
    return o->last_layer + 1 == m->n_layers;
}

/* Bytes of the packed tiles of the whole range, in the order in which load_weights places them. */
static uint64_t tiles_bytes (const wl_model *m, const wl_stage_options *o)
{
    uint64_t bytes = holds_head (m, o) ? wl_matrix_bytes (m->output) : 0;
    for (uint32_t layer = o->first_layer; layer <= o->last_layer; layer++)
        for (unsigned role = 0; role < WL_N_ROLES; role++) {
            const wl_tensor *t = m->tensors[layer][role];
            if (t && t->dims[1] > 1)
                bytes += wl_matrix_bytes (t);
        }
    return bytes;
}

static uint64_t work_bytes (const wl_model *m, const wl_stage_options *o)
{
    sizes z = sizes_of (m, o);
    uint64_t floats = z.rows * (z.d_model + z.h_stride + z.y_stride + 2 * (uint64_t) m->rope_dims) + z.shared;
    uint64_t quantized = z.rows * 2 * (round_up (z.widest, ALIGNMENT) + z.widest / 4 + z.widest / 8);
    return floats * sizeof (float) + quantized;
}

uint64_t wl_stage_memory_needed (const wl_model *m, const wl_stage_options *o)
{
    uint32_t n_layers = o->last_layer - o->first_layer + 1;
    return tiles_bytes (m, o) + (o->first_layer == 0 ? wl_model_embedding_bytes (m) : 0) + work_bytes (m, o) +
           o->n_pages * wl_kv_page_bytes (n_layers, m->n_kv_heads, m->head_dim);
}

uint64_t wl_stage_weight_bytes (const wl_stage *stage)
{
    return stage->held_bytes;
}

size_t wl_stage_logit_stride (const wl_model *m)
{
    return round_up (m->n_vocab, WL_TILE_ROWS);
}

/* -- loading -------------------------------------------------------------------------------------------------------------------------- */

typedef struct loader {
    wl_stage *stage;
    uint8_t *at; /* next free byte of the mapping */
    uint64_t done, total;
    wl_progress_fn progress;
    void *context;
} loader;

static bool load_matrix (loader *load, wl_matrix *matrix, const wl_tensor *tensor, wl_error *err)
{
    wl_stage *s = load->stage;
    if (!tensor)
        return true;
    wl_matrix_pack (matrix, s->gguf, tensor, load->at, s->options.pool);
    load->at += wl_matrix_bytes (tensor);
    load->done += tensor->bytes;
    s->held_bytes += tensor->bytes;
    if (load->progress && !load->progress (load->context, load->done, load->total))
        return wl_fail (err, WL_ERROR_CLUSTER, "loading was cancelled");
    return true;
}

static bool load_layer (loader *load, uint32_t index, wl_error *err)
{
    wl_stage *s = load->stage;
    stage_layer *l = &s->layers[index];
    const wl_tensor *const *tensors = s->model->tensors[s->options.first_layer + index];
    const struct {
        wl_matrix *matrix;
        wl_role role;
    } matrices[] = {{&l->q, WL_ROLE_ATTN_Q},           {&l->k, WL_ROLE_ATTN_K},      {&l->v, WL_ROLE_ATTN_V},
                    {&l->output, WL_ROLE_ATTN_OUTPUT}, {&l->gate, WL_ROLE_FFN_GATE}, {&l->up, WL_ROLE_FFN_UP},
                    {&l->down, WL_ROLE_FFN_DOWN}};
    for (size_t i = 0; i < sizeof matrices / sizeof matrices[0]; i++)
        if (!load_matrix (load, matrices[i].matrix, tensors[matrices[i].role], err))
            return false;
    for (unsigned role = 0; role < WL_N_ROLES; role++) {
        if (!tensors[role] || tensors[role]->dims[1] > 1)
            continue;
        l->vectors[role] = wl_vector_load (tensors[role], err);
        if (!l->vectors[role])
            return false;
        s->held_bytes += tensors[role]->bytes;
    }
    return true;
}

static bool load_weights (wl_stage *s, wl_progress_fn progress, void *context, wl_error *err)
{
    const wl_model *m = s->model;
    s->weights_bytes = (size_t) tiles_bytes (m, &s->options);
    s->weights = wl_map_pages (s->weights_bytes, err);
    s->layers = wl_new (s->n_layers, sizeof *s->layers, err);
    if (!s->weights || !s->layers)
        return false;
    loader load = {.stage = s, .at = s->weights, .total = s->weights_bytes, .progress = progress, .context = context};
    for (uint32_t i = 0; i < s->n_layers; i++)
        if (!load_layer (&load, i, err))
            return false;
    if (s->embeds)
        s->held_bytes += wl_model_embedding_bytes (m);
    if (!s->heads)
        return true;
    s->output_norm = wl_vector_load (m->output_norm, err);
    s->held_bytes += m->output_norm->bytes;
    return s->output_norm && load_matrix (&load, &s->head, m->output, err);
}

/* Frequencies of RoPE: base^(-2i / dims), over the file's per-pair factors. */
static double *rope_frequencies (const wl_model *m, double base, double scale, wl_error *err)
{
    uint32_t n_pairs = m->rope_dims / 2;
    double *frequencies = wl_new (n_pairs, sizeof *frequencies, err);
    float *factors = m->rope_factors ? wl_vector_load (m->rope_factors, err) : NULL;
    if (!frequencies || (m->rope_factors && !factors)) {
        free (frequencies);
        wl_free_aligned (factors);
        return NULL;
    }
    for (uint32_t i = 0; i < n_pairs; i++)
        frequencies[i] = wl_pow (base, -2.0 * i / m->rope_dims) * scale / (factors ? (double) factors[i] : 1.0);
    wl_free_aligned (factors);
    return frequencies;
}

static bool open_rope (wl_stage *s, wl_error *err)
{
    const wl_model *m = s->model;
    s->frequencies[0] = rope_frequencies (m, (double) m->rope_base, (double) m->rope_scale, err);
    if (!s->frequencies[0])
        return false;
    for (uint32_t i = 0; i < m->n_layers; i++)
        if (m->layers[i].local_rope) {
            s->frequencies[1] = rope_frequencies (m, (double) m->rope_base_local, 1.0, err);
            return s->frequencies[1] != NULL;
        }
    return true;
}

/* -- work space --------------------------------------------------------------------------------------------------------------------------- */

static bool open_quantized (wl_activations *a, size_t rows, size_t widest, size_t per_scale, size_t per_sum,
                            wl_error *err)
{
    a->q_stride = round_up (widest, ALIGNMENT);
    a->scale_stride = widest / per_scale + 1;
    a->sum_stride = widest / per_sum + 16;
    a->q = wl_new_aligned (rows, a->q_stride, err);
    a->scales = wl_new_aligned (rows, a->scale_stride * sizeof *a->scales, err);
    a->sums = wl_new_aligned (rows, a->sum_stride * sizeof *a->sums, err);
    return a->q && a->scales && a->sums;
}

static bool open_work_space (wl_stage *s, wl_error *err)
{
    const wl_model *m = s->model;
    sizes z = sizes_of (m, &s->options);
    size_t threads = wl_thread_pool_size (s->options.pool), rows = z.rows;
    s->h_stride = z.h_stride;
    s->y_stride = z.y_stride;
    s->q_stride = z.q_stride;
    s->kv_stride = z.kv_stride;
    s->ff_stride = z.ff_stride;
    s->group = z.group;
    s->tile_rows = z.tile_rows;
    s->x = wl_new_aligned (rows, z.d_model * sizeof (float), err);
    s->h = wl_new_aligned (rows, z.h_stride * sizeof (float), err);
    s->y = wl_new_aligned (rows, z.y_stride * sizeof (float), err);
    s->shared = wl_new_aligned (z.shared, sizeof (float), err);
    if (!s->x || !s->h || !s->y || !s->shared)
        return false;
    s->q = s->shared;
    s->k = s->q + rows * z.q_stride;
    s->v = s->k + rows * z.kv_stride;
    s->q_heads = s->v + rows * z.kv_stride;
    s->o_heads = s->q_heads + rows * z.q_stride;
    s->gate = s->shared;
    s->up = s->gate + rows * z.ff_stride;
    for (int i = 0; i < 2; i++)
        if (s->frequencies[i] && !(s->rope[i] = wl_new_aligned (rows, m->rope_dims * sizeof (float), err)))
            return false;
    wl_activations *kinds = s->activations.kinds;
    for (int kind = 0; kind < 3; kind++)
        kinds[kind].kind = (wl_activation_kind) kind;
    if (!open_quantized (&kinds[WL_ACTIVATION_Q8_16], rows, z.widest, 16, 16, err) ||
        !open_quantized (&kinds[WL_ACTIVATION_Q8_256], rows, z.widest, 256, 16, err))
        return false;
    s->places = wl_new (rows, sizeof *s->places, err);
    s->tiles = wl_new (rows, sizeof *s->tiles, err);
    size_t tile_queries = (size_t) z.tile_rows * z.group;
    s->scratch_stride = round_up (s->options.kernels->scratch_bytes, ALIGNMENT);
    s->scratch = wl_new_aligned (threads, s->scratch_stride, err);
    s->attention_stride = round_up (wl_attention_scratch (tile_queries, m->head_dim), 16);
    s->attention_scratch = wl_new_aligned (threads, s->attention_stride * sizeof (float), err);
    s->visible = wl_new (threads, 2 * tile_queries * sizeof *s->visible, err);
    s->page_places = wl_new (threads, 2 * (size_t) s->options.n_pages * sizeof *s->page_places, err);
    return s->places && s->tiles && s->scratch && s->attention_scratch && s->visible && s->page_places;
}

wl_stage *wl_stage_new (const wl_gguf *gguf, const wl_model *model, const wl_stage_options *options,
                        wl_progress_fn progress, void *progress_context, wl_error *err)
{
    if (options->first_layer > options->last_layer || options->last_layer >= model->n_layers ||
        options->max_rows == 0 || options->max_rows > 1u << 16 || options->n_pages == 0) {
        wl_fail (err, WL_ERROR_INTERNAL,
                 "a stage of layers %u-%u, %u rows and %u pages is not possible for a model of %u layers",
                 options->first_layer, options->last_layer, options->max_rows, options->n_pages, model->n_layers);
        return NULL;
    }
    wl_stage *s = wl_new (1, sizeof *s, err);
    if (!s)
        return NULL;
    s->model = model;
    s->gguf = gguf;
    s->options = *options;
    s->n_layers = options->last_layer - options->first_layer + 1;
    s->embeds = options->first_layer == 0;
    s->heads = holds_head (model, options);
    if (!open_rope (s, err) || !open_work_space (s, err) ||
        !wl_kv_cache_open (&s->kv, options->n_pages, s->n_layers, model->n_kv_heads, model->head_dim, err) ||
        !load_weights (s, progress, progress_context, err))
        wl_stage_free (&s);
    return s;
}

void wl_stage_free (wl_stage **stage)
{
    wl_stage *s = *stage;
    if (!s)
        return;
    for (uint32_t i = 0; s->layers && i < s->n_layers; i++)
        for (unsigned role = 0; role < WL_N_ROLES; role++)
            wl_free_aligned (s->layers[i].vectors[role]);
    free (s->layers);
    wl_unmap_pages (s->weights, s->weights_bytes);
    wl_free_aligned (s->output_norm);
    wl_kv_cache_close (&s->kv);
    void *const aligned[] = {s->x, s->h, s->y, s->shared, s->rope[0], s->rope[1], s->scratch, s->attention_scratch};
    for (size_t i = 0; i < sizeof aligned / sizeof aligned[0]; i++)
        wl_free_aligned (aligned[i]);
    for (int kind = 0; kind < 3; kind++) {
        wl_free_aligned (s->activations.kinds[kind].q);
        wl_free_aligned (s->activations.kinds[kind].scales);
        wl_free_aligned (s->activations.kinds[kind].sums);
    }
    free (s->frequencies[0]);
    free (s->frequencies[1]);
    free (s->places);
    free (s->tiles);
    free (s->visible);
    free (s->page_places);
    free (s);
    *stage = NULL;
}

/* -- helpers of the halves -------------------------------------------------------------------------------------------------------------- */

typedef struct row_job {
    wl_stage *stage;
    row_fn fn;
    uint32_t layer_index, n_rows, rows_per_chunk;
} row_job;

static void row_chunk (void *context, size_t chunk, size_t thread)
{
    const row_job *job = context;
    uint32_t first = (uint32_t) chunk * job->rows_per_chunk;
    uint32_t end = first + job->rows_per_chunk < job->n_rows ? first + job->rows_per_chunk : job->n_rows;
    for (uint32_t row = first; row < end; row++)
        job->fn (job->stage, job->layer_index, row, thread);
}

void run_rows (wl_stage *stage, row_fn fn, uint32_t layer_index, uint32_t n_rows)
{
    uint32_t chunks = (uint32_t) wl_thread_pool_size (stage->options.pool) * 4;
    row_job job = {stage, fn, layer_index, n_rows, (n_rows + chunks - 1) / chunks};
    if (n_rows)
        wl_thread_pool_run (stage->options.pool, (n_rows + job.rows_per_chunk - 1) / job.rows_per_chunk, row_chunk,
                            &job);
}

unsigned kinds_wanted (const wl_matrix *const *matrices, size_t n)
{
    unsigned wanted = 0;
    for (size_t i = 0; i < n; i++)
        wanted |= 1u << matrices[i]->format->activation;
    return wanted;
}

void represent_row (wl_stage *stage, uint32_t row, const float *source, size_t n, unsigned wanted_kinds)
{
    const wl_kernels *kernels = stage->options.kernels;
    const wl_activations *a = &stage->activations.kinds[WL_ACTIVATION_Q8_16],
                         *b = &stage->activations.kinds[WL_ACTIVATION_Q8_256];
    if (wanted_kinds >> WL_ACTIVATION_Q8_16 & 1)
        kernels->quantize_q8_16 (a->q + row * a->q_stride, a->scales + row * a->scale_stride,
                                 a->sums + row * a->sum_stride, source, n);
    if (wanted_kinds >> WL_ACTIVATION_Q8_256 & 1)
        kernels->quantize_q8_256 (b->q + row * b->q_stride, b->scales + row * b->scale_stride,
                                  b->sums + row * b->sum_stride, source, n);
}

void multiply (wl_stage *stage, const float *f32, size_t f32_stride, size_t n, size_t n_rows,
               const wl_product *products, size_t n_products)
{
    wl_activation_set *set = &stage->activations;
    set->kinds[WL_ACTIVATION_F32].f32 = f32;
    set->kinds[WL_ACTIVATION_F32].f32_stride = f32_stride;
    for (int kind = 0; kind < 3; kind++)
        set->kinds[kind].n = n;
    wl_multiply (stage->options.pool, stage->options.kernels, set, n_rows, products, n_products, stage->scratch,
                 stage->scratch_stride);
}

void add_residual (wl_stage *stage, uint32_t row, const float *post_norm)
{
    const wl_model *m = stage->model;
    float *y = stage->y + row * stage->y_stride;
    if (post_norm)
        stage->options.kernels->rms_norm (y, y, post_norm, m->d_model, m->norm_eps);
    stage->options.kernels->add_scaled (stage->x + (size_t) row * m->d_model, y, m->residual_scale, m->d_model);
}

/* -- a step ------------------------------------------------------------------------------------------------------------------------------ */

bool wl_stage_check (const wl_stage *s, const wl_batch *b, wl_error *err)
{
    uint64_t rows = 0;
    if (b->n_rows == 0 || b->n_rows > s->options.max_rows)
        return wl_fail (err, WL_ERROR_INTERNAL, "a step of %u rows, where 1 to %u are planned", b->n_rows,
                        s->options.max_rows);
    for (uint32_t i = 0; i < b->n_spans; i++) {
        const wl_span *span = &b->spans[i];
        uint64_t end = (uint64_t) span->first_position + span->n_rows;
        rows += span->n_rows;
        if (span->n_rows == 0 || span->n_pages > s->options.n_pages || end > (uint64_t) span->n_pages * WL_KV_PAGE)
            return wl_fail (err, WL_ERROR_INTERNAL, "span %u of a step: positions %u to %llu do not fit its %u pages",
                            i, span->first_position, (unsigned long long) end, span->n_pages);
        for (uint32_t page = 0; page < span->n_pages; page++)
            if (span->pages[page] >= s->options.n_pages)
                return wl_fail (err, WL_ERROR_INTERNAL, "span %u of a step: page %u, where %u are planned", i,
                                span->pages[page], s->options.n_pages);
    }
    if (rows != b->n_rows)
        return wl_fail (err, WL_ERROR_INTERNAL, "a step of %u rows with spans of %llu", b->n_rows,
                        (unsigned long long) rows);
    for (uint32_t row = 0; s->embeds && row < b->n_rows; row++)
        if (b->tokens[row] < 0 || (uint32_t) b->tokens[row] >= s->model->n_vocab)
            return wl_fail (err, WL_ERROR_INPUT, "token %d, where the vocabulary has %u", b->tokens[row],
                            s->model->n_vocab);
    for (uint32_t i = 0; s->heads && i < b->n_logit_rows; i++)
        if (b->logit_rows[i] >= b->n_rows || (i && b->logit_rows[i] <= b->logit_rows[i - 1]))
            return wl_fail (err, WL_ERROR_INTERNAL, "logits of row %u of a step are out of order or out of its %u rows",
                            b->logit_rows[i], b->n_rows);
    return true;
}

static void place_rows (wl_stage *s)
{
    uint32_t row = 0;
    s->n_tiles = 0;
    for (uint32_t i = 0; i < s->batch->n_spans; i++) {
        const wl_span *span = &s->batch->spans[i];
        for (uint32_t from = 0; from < span->n_rows; from += s->tile_rows) {
            uint32_t n = span->n_rows - from < s->tile_rows ? span->n_rows - from : s->tile_rows;
            s->tiles[s->n_tiles++] = (attention_tile){i, row + from, n};
        }
        for (uint32_t j = 0; j < span->n_rows; j++)
            s->places[row++] = (row_place){i, span->first_position + j};
    }
}

/* The residual stream's start, and the RoPE angles of the row's position. */
static void begin_row (wl_stage *s, uint32_t layer_index, uint32_t row, size_t thread)
{
    (void) layer_index;
    (void) thread;
    const wl_model *m = s->model;
    float *x = s->x + (size_t) row * m->d_model;
    if (s->embeds) {
        const wl_tensor *t = m->token_embedding;
        const uint8_t *data = t->data;
        wl_format_find (t->type)->dequantize (x, data + (size_t) s->batch->tokens[row] * (t->bytes / t->dims[1]),
                                              m->d_model);
        if (m->embedding_scale != 1.0f)
            for (uint32_t i = 0; i < m->d_model; i++)
                x[i] *= m->embedding_scale;
    } else {
        memcpy (x, s->in + (size_t) row * m->d_model, m->d_model * sizeof *x);
    }
    uint32_t n_pairs = m->rope_dims / 2;
    for (int i = 0; i < 2; i++) {
        if (!s->frequencies[i])
            continue;
        float *angles = s->rope[i] + (size_t) row * m->rope_dims;
        for (uint32_t pair = 0; pair < n_pairs; pair++) {
            double sine, cosine;
            wl_sincos (s->places[row].position * s->frequencies[i][pair], &sine, &cosine);
            angles[pair] = (float) cosine;
            angles[n_pairs + pair] = (float) sine;
        }
    }
}

static void finish_row (wl_stage *s, uint32_t layer_index, uint32_t row, size_t thread)
{
    (void) thread;
    add_residual (s, row, s->layers[layer_index].vectors[WL_ROLE_FFN_POST_NORM]);
}

/* Final norm of the i-th row whose logits are wanted, into row i of h. */
static void norm_logit_row (wl_stage *s, uint32_t layer_index, uint32_t i, size_t thread)
{
    (void) layer_index;
    (void) thread;
    const wl_model *m = s->model;
    const wl_matrix *head = &s->head;
    float *h = s->h + i * s->h_stride;
    s->options.kernels->rms_norm (h, s->x + (size_t) s->batch->logit_rows[i] * m->d_model, s->output_norm, m->d_model,
                                  m->norm_eps);
    represent_row (s, i, h, m->d_model, kinds_wanted (&head, 1));
}

static void compute_logits (wl_stage *s, float *out)
{
    const wl_model *m = s->model;
    uint32_t n = s->batch->n_logit_rows;
    size_t stride = wl_stage_logit_stride (m);
    if (n == 0)
        return;
    run_rows (s, norm_logit_row, 0, n);
    const wl_product product = {&s->head, out, stride};
    multiply (s, s->h, s->h_stride, m->d_model, n, &product, 1);
    if (m->logit_scale != 1.0f)
        for (size_t i = 0; i < n * stride; i++)
            out[i] *= m->logit_scale;
}

bool wl_stage_forward (wl_stage *s, const wl_batch *batch, const float *in, float *out, wl_error *err)
{
    if (!wl_stage_check (s, batch, err))
        return false;
    s->batch = batch;
    s->in = in;
    place_rows (s);
    run_rows (s, begin_row, 0, batch->n_rows);
    for (uint32_t i = 0; i < s->n_layers; i++) {
        attention_half (s, i);
        feed_forward_half (s, i);
    }
    run_rows (s, finish_row, s->n_layers - 1, batch->n_rows);
    if (s->heads)
        compute_logits (s, out);
    else
        memcpy (out, s->x, (size_t) batch->n_rows * s->model->d_model * sizeof *out);
    s->batch = NULL;
    s->in = NULL;
    return true;
}
