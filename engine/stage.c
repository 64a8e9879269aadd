/* A stage: loading a range of layers, and one step through it; see stage.h. The two halves of a layer are in attention.c and feed_forward.c.
 *
 * A step alternates two kinds of jobs on the thread pool: row jobs (norm, quantize, RoPE: a row belongs to one thread) and products (tiles of
 * weight rows belong to one thread). Both only decide who computes an output, never how, so results do not depend on the pool. */
#include "stage.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/math.h"
#include "memory.h"
#include "rope.h"
#include "stage_private.h"

enum { ALIGNMENT = 64, TILE_QUERIES = 48 };

static size_t round_up (size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

/* -- sizes ------------------------------------------------------------------------------------------------------------------------- */

typedef struct sizes {
    size_t rows, slots; /* slots: rows of the feed-forward buffers; a mixture sends a row to several experts */
    size_t d_model, q_width, kv_width, h_stride, y_stride, q_stride, qkv_stride, gate_up_stride, router_stride, widest;
    size_t shared; /* floats of the work space that both halves use in turn */
    uint32_t tile_rows, group;
} sizes;

static sizes sizes_of (const wl_model *m, const wl_stage_options *o)
{
    sizes z = {.rows = o->max_rows, .slots = o->max_rows, .d_model = m->d_model, .group = m->n_heads / m->n_kv_heads};
    size_t d_ff = m->d_ff > m->d_ff_shared ? m->d_ff : m->d_ff_shared;
    z.q_width = (size_t) m->n_heads * m->head_dim;
    z.kv_width = (size_t) m->n_kv_heads * m->head_dim;
    z.h_stride = round_up (z.q_width > z.d_model ? z.q_width : z.d_model, 16);
    z.y_stride = round_up (z.d_model, 16);
    z.q_stride = round_up (z.q_width, 16);
    z.qkv_stride = round_up (z.q_width + 2 * z.kv_width, 16);
    z.gate_up_stride = 2 * round_up (d_ff, 16);
    z.widest = z.h_stride > z.gate_up_stride / 2 ? z.h_stride : z.gate_up_stride / 2;
    size_t attention = z.rows * (2 * z.q_stride + z.qkv_stride), feed_forward = z.rows * z.gate_up_stride;
    if (m->n_experts) {
        z.slots = z.rows * m->n_experts_used;
        z.router_stride = round_up (m->n_experts, 16);
        feed_forward = z.slots * (z.gate_up_stride + z.h_stride + z.y_stride);
    }
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
            if (t && wl_role_is_matrix (role))
                bytes += t->dims[2] * wl_matrix_bytes (t);
        }
    return bytes;
}

static uint64_t work_bytes (const wl_model *m, const wl_stage_options *o)
{
    sizes z = sizes_of (m, o);
    uint64_t floats =
        z.rows * (z.d_model + z.h_stride + z.y_stride + 2 * (uint64_t) m->rope_dims + z.router_stride) + z.shared;
    uint64_t quantized = z.slots * 2 * (round_up (z.widest, ALIGNMENT) + z.widest / 4 + z.widest / 8);
    return floats * sizeof (float) + quantized;
}

uint64_t wl_stage_memory_needed (const wl_model *m, const wl_stage_options *o)
{
    uint32_t n_layers = o->last_layer - o->first_layer + 1;
    return tiles_bytes (m, o) + (o->first_layer == 0 ? wl_model_embedding_bytes (m) : 0) + work_bytes (m, o) +
           o->n_pages * wl_kv_page_bytes (o->kv, n_layers, m->n_kv_heads, m->head_dim);
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
    uint8_t *at; /* next free byte of the stage's own mapping, once there is one */
    uint64_t done, total;
    wl_progress_fn progress;
    void *context;
} loader;

/* The tensor's matrices, from the cache of packed weights or packed into memory of this stage's own, one behind the other. `matrices` [tensor->dims[2]]. */
static bool load_matrices (loader *load, wl_matrix *matrices, const wl_tensor *tensor, wl_error *err)
{
    wl_stage *s = load->stage;
    const uint8_t *kept = NULL;
    if (s->options.pack_cache)
        kept = wl_pack_cache_tiles (s->options.pack_cache, tensor, s->options.pool);
    if (!kept && !s->weights) {
        s->weights = load->at = wl_map_pages (s->weights_bytes, err);
        if (!s->weights)
            return false;
    }
    for (uint64_t i = 0; i < tensor->dims[2]; i++) {
        if (kept) {
            wl_matrix_place (&matrices[i], tensor, kept + i * wl_matrix_bytes (tensor));
        } else {
            wl_matrix_pack (&matrices[i], tensor, i, load->at, s->gguf, s->options.pool);
            load->at += wl_matrix_bytes (tensor);
        }
    }
    load->done += tensor->bytes;
    s->held_bytes += tensor->bytes;
    if (load->progress && !load->progress (load->context, load->done, load->total))
        return wl_fail (err, WL_ERROR_CLUSTER, "loading was cancelled");
    return true;
}

static unsigned kinds_wanted (const stage_layer *l, const wl_role *roles, size_t n)
{
    unsigned wanted = 0;
    for (size_t i = 0; i < n; i++)
        if (l->matrices[roles[i]])
            wanted |= 1u << l->matrices[roles[i]]->format->activation;
    return wanted;
}

#define KINDS_WANTED(layer, ...) \
    kinds_wanted (layer, (const wl_role[]){__VA_ARGS__}, sizeof (const wl_role[]){__VA_ARGS__} / sizeof (wl_role))

static void find_inputs (stage_layer *l)
{
    l->inputs = (layer_inputs){
        .qkv = KINDS_WANTED (l, WL_ROLE_ATTN_QKV, WL_ROLE_ATTN_Q, WL_ROLE_ATTN_K, WL_ROLE_ATTN_V),
        .output = KINDS_WANTED (l, WL_ROLE_ATTN_OUTPUT),
        .normed = KINDS_WANTED (l, WL_ROLE_FFN_GATE_UP, WL_ROLE_FFN_GATE, WL_ROLE_FFN_UP, WL_ROLE_ROUTER,
                                WL_ROLE_SHARED_GATE, WL_ROLE_SHARED_UP),
        .hidden = KINDS_WANTED (l, WL_ROLE_FFN_DOWN, WL_ROLE_SHARED_DOWN),
        .expert_normed = KINDS_WANTED (l, WL_ROLE_EXPERT_GATE, WL_ROLE_EXPERT_UP),
        .expert_hidden = KINDS_WANTED (l, WL_ROLE_EXPERT_DOWN),
    };
}

static bool load_layer (loader *load, uint32_t index, wl_error *err)
{
    wl_stage *s = load->stage;
    stage_layer *l = &s->layers[index];
    const wl_tensor *const *tensors = s->model->tensors[s->options.first_layer + index];
    for (unsigned role = 0; role < WL_N_ROLES; role++) {
        const wl_tensor *t = tensors[role];
        if (!t)
            continue;
        if (wl_role_is_matrix (role)) {
            l->matrices[role] = wl_new ((size_t) t->dims[2], sizeof *l->matrices[role], err);
            if (!l->matrices[role] || !load_matrices (load, l->matrices[role], t, err))
                return false;
        } else {
            l->vectors[role] = wl_vector_load (t, err);
            if (!l->vectors[role])
                return false;
            s->held_bytes += t->bytes;
        }
    }
    find_inputs (l);
    return true;
}

/* `out` stays NULL where the model has no such vector. */
static bool load_vector (wl_stage *s, float **out, const wl_tensor *tensor, wl_error *err)
{
    if (!tensor)
        return true;
    *out = wl_vector_load (tensor, err);
    s->held_bytes += tensor->bytes;
    return *out != NULL;
}

static bool load_weights (wl_stage *s, wl_progress_fn progress, void *context, wl_error *err)
{
    const wl_model *m = s->model;
    s->weights_bytes = (size_t) tiles_bytes (m, &s->options);
    s->layers = wl_new (s->n_layers, sizeof *s->layers, err);
    if (!s->layers)
        return false;
    loader load = {.stage = s, .total = s->weights_bytes, .progress = progress, .context = context};
    for (uint32_t i = 0; i < s->n_layers; i++)
        if (!load_layer (&load, i, err))
            return false;
    if (s->embeds)
        s->held_bytes += wl_model_embedding_bytes (m);
    return !s->heads ||
           (load_vector (s, &s->output_norm, m->output_norm, err) &&
            load_vector (s, &s->output_norm_bias, m->output_norm_bias, err) &&
            load_vector (s, &s->output_bias, m->output_bias, err) && load_matrices (&load, &s->head, m->output, err));
}

static bool open_rope (wl_stage *s, wl_error *err)
{
    const wl_model *m = s->model;
    bool any_local = false;
    for (uint32_t i = 0; i < m->n_layers; i++)
        any_local |= m->layers[i].rope == WL_LAYER_ROPE_LOCAL;
    s->frequencies[0] = rope_frequencies (m, false, s->options.context, err);
    if (any_local)
        s->frequencies[1] = rope_frequencies (m, true, s->options.context, err);
    return s->frequencies[0] && (!any_local || s->frequencies[1]);
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
    a->total_stride = widest / 32 + 1;
    if (a->kind == WL_ACTIVATION_Q8_16 &&
        !(a->totals = wl_new_aligned (rows, a->total_stride * sizeof *a->totals, err)))
        return false;
    return a->q && a->scales && a->sums;
}

static bool open_mixture (wl_stage *s, const sizes *z, wl_error *err)
{
    const wl_model *m = s->model;
    mixture_space *x = &s->mixture;
    if (m->n_experts == 0)
        return true;
    x->router_stride = z->router_stride;
    x->in = s->gate_up + z->slots * z->gate_up_stride;
    x->out = x->in + z->slots * z->h_stride;
    x->router = wl_new_aligned (z->rows, z->router_stride * sizeof *x->router, err);
    x->choices = wl_new (z->slots, sizeof *x->choices, err);
    x->slot_rows = wl_new (z->slots, sizeof *x->slot_rows, err);
    x->slot_experts = wl_new (z->slots, sizeof *x->slot_experts, err);
    x->first_slots = wl_new ((size_t) m->n_experts + 1, sizeof *x->first_slots, err);
    x->products = wl_new (2 * (size_t) m->n_experts, sizeof *x->products, err);
    return x->router && x->choices && x->slot_rows && x->slot_experts && x->first_slots && x->products;
}

static bool open_ones (wl_stage *s, wl_error *err)
{
    if (s->model->activation != WL_GELU_UNGATED)
        return true;
    s->ones = wl_new_aligned (s->model->d_ff, sizeof *s->ones, err);
    for (uint32_t i = 0; s->ones && i < s->model->d_ff; i++)
        s->ones[i] = 1.0f;
    return s->ones != NULL;
}

static bool open_rows (wl_stage *s, const sizes *z, wl_error *err)
{
    size_t rows = z->rows;
    s->h_stride = z->h_stride;
    s->y_stride = z->y_stride;
    s->q_width = z->q_width;
    s->kv_width = z->kv_width;
    s->qkv_stride = z->qkv_stride;
    s->gate_up_stride = z->gate_up_stride;
    s->group = z->group;
    s->tile_rows = z->tile_rows;
    s->x = wl_new_aligned (rows, z->d_model * sizeof (float), err);
    s->h = wl_new_aligned (rows, z->h_stride * sizeof (float), err);
    s->y = wl_new_aligned (rows, z->y_stride * sizeof (float), err);
    s->shared = wl_new_aligned (z->shared, sizeof (float), err);
    if (!s->x || !s->h || !s->y || !s->shared)
        return false;
    s->qkv = s->shared;
    s->q_heads = s->qkv + rows * z->qkv_stride;
    s->o_heads = s->q_heads + rows * z->q_stride;
    s->gate_up = s->shared;
    for (int i = 0; i < 2; i++)
        if (s->frequencies[i] && !(s->rope[i] = wl_new_aligned (rows, s->model->rope_dims * sizeof (float), err)))
            return false;
    return true;
}

static bool open_work_space (wl_stage *s, wl_error *err)
{
    const wl_model *m = s->model;
    sizes z = sizes_of (m, &s->options);
    size_t threads = wl_thread_pool_size (s->options.pool);
    wl_activations *kinds = s->activations.kinds;
    for (int kind = 0; kind < 3; kind++)
        kinds[kind].kind = (wl_activation_kind) kind;
    if (!open_rows (s, &z, err) || !open_mixture (s, &z, err) || !open_ones (s, err) ||
        !open_quantized (&kinds[WL_ACTIVATION_Q8_16], z.slots, z.widest, 16, 16, err) ||
        !open_quantized (&kinds[WL_ACTIVATION_Q8_256], z.slots, z.widest, 256, 16, err))
        return false;
    s->places = wl_new (z.rows, sizeof *s->places, err);
    s->tiles = wl_new (z.rows, sizeof *s->tiles, err);
    size_t tile_queries = (size_t) z.tile_rows * z.group;
    s->scratch_stride = round_up (s->options.kernels->scratch_bytes, ALIGNMENT);
    s->scratch = wl_new_aligned (threads, s->scratch_stride, err);
    s->attention_stride = round_up (wl_attention_scratch (tile_queries, m->head_dim), 16);
    s->attention_scratch = wl_new_aligned (threads, s->attention_stride * sizeof (float), err);
    s->visible = wl_new (threads, 2 * tile_queries * sizeof *s->visible, err);
    s->sinks = wl_new (threads, tile_queries * sizeof *s->sinks, err);
    s->page_places = wl_new (threads, 2 * (size_t) s->options.n_pages * sizeof *s->page_places, err);
    return s->places && s->tiles && s->scratch && s->attention_scratch && s->visible && s->sinks && s->page_places;
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
        !wl_kv_cache_open (&s->kv, options->kv, options->n_pages, s->n_layers, model->n_kv_heads, model->head_dim,
                           err) ||
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
        for (unsigned role = 0; role < WL_N_ROLES; role++) {
            free (s->layers[i].matrices[role]);
            wl_free_aligned (s->layers[i].vectors[role]);
        }
    wl_unmap_pages (s->weights, s->weights_bytes);
    wl_kv_cache_close (&s->kv);
    void *const aligned[] = {s->output_norm, s->output_norm_bias, s->output_bias,      s->x,       s->h,
                             s->y,           s->shared,           s->rope[0],          s->rope[1], s->scratch,
                             s->ones,        s->mixture.router,   s->attention_scratch};
    for (size_t i = 0; i < sizeof aligned / sizeof aligned[0]; i++)
        wl_free_aligned (aligned[i]);
    for (int kind = 0; kind < 3; kind++) {
        wl_free_aligned (s->activations.kinds[kind].q);
        wl_free_aligned (s->activations.kinds[kind].scales);
        wl_free_aligned (s->activations.kinds[kind].sums);
        wl_free_aligned (s->activations.kinds[kind].totals);
    }
    void *const others[] = {s->layers,
                            s->frequencies[0],
                            s->frequencies[1],
                            s->places,
                            s->tiles,
                            s->visible,
                            s->sinks,
                            s->page_places,
                            s->mixture.choices,
                            s->mixture.slot_rows,
                            s->mixture.slot_experts,
                            s->mixture.first_slots,
                            s->mixture.products};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        free (others[i]);
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

void represent_row (wl_stage *stage, uint32_t row, const float *source, size_t n, unsigned wanted_kinds)
{
    const wl_kernels *kernels = stage->options.kernels;
    const wl_activations *a = &stage->activations.kinds[WL_ACTIVATION_Q8_16],
                         *b = &stage->activations.kinds[WL_ACTIVATION_Q8_256];
    if (wanted_kinds >> WL_ACTIVATION_Q8_16 & 1)
        kernels->quantize_q8_16 (a->q + row * a->q_stride, a->scales + row * a->scale_stride,
                                 a->sums + row * a->sum_stride, a->totals + row * a->total_stride, source, n);
    if (wanted_kinds >> WL_ACTIVATION_Q8_256 & 1)
        kernels->quantize_q8_256 (b->q + row * b->q_stride, b->scales + row * b->scale_stride,
                                  b->sums + row * b->sum_stride, source, n);
}

void multiply (wl_stage *stage, const float *f32, size_t f32_stride, size_t n, wl_products products, wl_products next)
{
    wl_activation_set *set = &stage->activations;
    set->kinds[WL_ACTIVATION_F32].f32 = f32;
    set->kinds[WL_ACTIVATION_F32].f32_stride = f32_stride;
    for (int kind = 0; kind < 3; kind++)
        set->kinds[kind].n = n;
    wl_multiply (stage->options.pool, stage->options.kernels, set, products, next, stage->scratch,
                 stage->scratch_stride);
}

void norm_into (const wl_stage *stage, float *y, const float *x, const float *weight, const float *bias)
{
    const wl_model *m = stage->model;
    if (!weight)
        memcpy (y, x, m->d_model * sizeof *y);
    else if (m->norm_kind == WL_NORM_LAYER)
        stage->options.kernels->layer_norm (y, x, weight, bias, m->d_model, m->norm_eps);
    else
        stage->options.kernels->rms_norm (y, x, weight, m->d_model, m->norm_eps);
}

void add_bias (const wl_stage *stage, float *x, const float *bias, size_t n)
{
    if (bias)
        stage->options.kernels->add_scaled (x, bias, 1.0f, n);
}

void add_residual (wl_stage *stage, uint32_t layer_index, uint32_t row, wl_role bias, wl_role post_norm)
{
    const wl_model *m = stage->model;
    float *const *vectors = stage->layers[layer_index].vectors;
    float *y = stage->y + row * stage->y_stride;
    add_bias (stage, y, vectors[bias], m->d_model);
    if (vectors[post_norm])
        norm_into (stage, y, y, vectors[post_norm], NULL);
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
        if (span->copies && (span->copied_page >= s->options.n_pages || span->first_position % WL_KV_PAGE == 0))
            return wl_fail (err, WL_ERROR_INTERNAL, "span %u of a step: a copy of page %u before position %u", i,
                            span->copied_page, span->first_position);
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
            double magnitude = i == 0 ? (double) m->rope_scaling.magnitude : 1.0;
            angles[pair] = (float) (cosine * magnitude);
            angles[n_pairs + pair] = (float) (sine * magnitude);
        }
    }
}

static void finish_row (wl_stage *s, uint32_t layer_index, uint32_t row, size_t thread)
{
    (void) thread;
    add_residual (s, layer_index, row, WL_ROLE_FFN_DOWN_BIAS, WL_ROLE_FFN_POST_NORM);
}

/* Final norm of the i-th row whose logits are wanted, into row i of h. */
static void norm_logit_row (wl_stage *s, uint32_t layer_index, uint32_t i, size_t thread)
{
    (void) layer_index;
    (void) thread;
    const wl_model *m = s->model;
    float *h = s->h + i * s->h_stride;
    norm_into (s, h, s->x + (size_t) s->batch->logit_rows[i] * m->d_model, s->output_norm, s->output_norm_bias);
    represent_row (s, i, h, m->d_model, 1u << s->head.format->activation);
}

/* Bias, scale and soft cap of the i-th row of logits. */
static void finish_logits (wl_stage *s, uint32_t layer_index, uint32_t i, size_t thread)
{
    (void) layer_index;
    (void) thread;
    const wl_model *m = s->model;
    float *logits = s->logits + i * wl_stage_logit_stride (m), cap = m->logit_softcap;
    add_bias (s, logits, s->output_bias, m->n_vocab);
    if (m->logit_scale != 1.0f)
        for (uint32_t v = 0; v < m->n_vocab; v++)
            logits[v] *= m->logit_scale;
    if (cap > 0)
        for (uint32_t v = 0; v < m->n_vocab; v++)
            logits[v] = cap * wl_tanhf (logits[v] / cap);
}

static wl_product head_product (wl_stage *s)
{
    return (wl_product){&s->head, s->logits, wl_stage_logit_stride (s->model), 0, s->batch->n_logit_rows};
}

size_t products_behind (wl_stage *s, uint32_t layer_index, wl_product out[3])
{
    if (layer_index + 1 < s->n_layers)
        return attention_products (s, layer_index + 1, out);
    if (!s->heads || s->batch->n_logit_rows == 0)
        return 0;
    out[0] = head_product (s);
    return 1;
}

static void compute_logits (wl_stage *s)
{
    uint32_t n = s->batch->n_logit_rows;
    if (n == 0)
        return;
    wl_product first[3]; /* of the next step, if it is like this one */
    run_rows (s, norm_logit_row, 0, n);
    const wl_product product = head_product (s);
    multiply (s, s->h, s->h_stride, s->model->d_model, (wl_products){&product, 1},
              (wl_products){first, attention_products (s, 0, first)});
    run_rows (s, finish_logits, 0, n);
}

bool wl_stage_forward (wl_stage *s, const wl_batch *batch, const float *in, float *out, wl_error *err)
{
    if (!wl_stage_check (s, batch, err))
        return false;
    s->batch = batch;
    s->in = in;
    s->logits = s->heads ? out : NULL;
    for (uint32_t i = 0; i < batch->n_spans; i++)
        if (batch->spans[i].copies)
            wl_kv_copy_page (&s->kv, batch->spans[i].copied_page,
                             batch->spans[i].pages[batch->spans[i].first_position / WL_KV_PAGE]);
    place_rows (s);
    run_rows (s, begin_row, 0, batch->n_rows);
    if (s->embeds)
        wl_gguf_drop_pages (s->gguf);
    for (uint32_t i = 0; i < s->n_layers; i++) {
        attention_half (s, i);
        feed_forward_half (s, i);
    }
    run_rows (s, finish_row, s->n_layers - 1, batch->n_rows);
    if (s->heads)
        compute_logits (s);
    else
        memcpy (out, s->x, (size_t) batch->n_rows * s->model->d_model * sizeof *out);
    s->batch = NULL;
    s->in = NULL;
    s->logits = NULL;
    return true;
}
