/* Models whose metadata and tensors contradict each other, or are out of every bound, are refused with a sentence; what is accepted can be loaded and computes. The
 * input is a list of choices: the architecture, then for each key and tensor of a small model of it whether it is as it should be, missing, or wrong and how. (What
 * is wrong with the file's own form is fuzz_gguf's part.) */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/architectures.h"
#include "engine/memory.h"
#include "engine/stage.h"
#include "tests/unit/gguf_builder.h"

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

enum { D_MODEL_N = 32, N_HEADS = 4, N_KV_HEADS = 2, HEAD_DIM = 8, D_FF = 32, N_VOCAB = 8, N_EXPERTS = 3, N_PAGES = 2 };

typedef struct choices {
    const uint8_t *data;
    size_t size;
    const char *name;
    uint32_t n_layers, n_experts, d_ff_shared;
    gguf_builder g;
} choices;

/* The next byte of the input; 0, which is always the sound choice, when there is none. */
static uint8_t next (choices *c)
{
    if (c->size == 0)
        return 0;
    c->size--;
    return *c->data++;
}

static bool choose_wrong (choices *c)
{
    return next (c) >= 240;
}

static uint32_t number (choices *c, uint32_t sound)
{
    static const uint32_t numbers[] = {0,  1,  2,  3,   4,     7,     8,        16,        24,        32,
                                       33, 64, 96, 255, 65536, 65537, 1u << 20, INT32_MAX, UINT32_MAX};
    return choose_wrong (c) ? numbers[next (c) % (sizeof numbers / sizeof numbers[0])] : sound;
}

static void key (choices *c, const char *suffix, uint32_t sound)
{
    char name[96];
    snprintf (name, sizeof name, "%s.%s", c->name, suffix);
    uint8_t choice = next (c);
    if (choice >= 250)
        return;
    if (choice < 245) {
        add_u32 (&c->g, name, number (c, sound));
        return;
    }
    uint32_t each[4] = {sound, sound, sound, number (c, sound)};
    add_array (&c->g, name, 4, 4, each, sizeof each);
}

static void real_key (choices *c, const char *suffix, float sound)
{
    static const float numbers[] = {0, -1, 1e-30f, 1e30f, 2, 0.5f, 1e-6f, -0.0f, 3e38f};
    char name[96];
    snprintf (name, sizeof name, "%s.%s", c->name, suffix);
    if (choose_wrong (c))
        sound = numbers[next (c) % (sizeof numbers / sizeof numbers[0])];
    add_value (&c->g, name, 6, &sound, sizeof sound);
}

static uint64_t length_of (const choices *c, side s)
{
    const uint64_t lengths[] = {[ONE] = 1,
                                [D_MODEL] = D_MODEL_N,
                                [Q_ROWS] = N_HEADS * HEAD_DIM,
                                [KV_ROWS] = N_KV_HEADS * HEAD_DIM,
                                [QKV_ROWS] = (N_HEADS + 2 * N_KV_HEADS) * HEAD_DIM,
                                [HEAD] = HEAD_DIM,
                                [HEADS] = N_HEADS,
                                [KV_HEADS] = N_KV_HEADS,
                                [FF] = D_FF,
                                [TWICE_FF] = 2 * D_FF,
                                [SHARED_FF] = c->d_ff_shared,
                                [EXPERTS] = c->n_experts};
    return lengths[s];
}

static void tensor (choices *c, const char *name, uint64_t columns, uint64_t rows, uint64_t depth)
{
    static const uint32_t types[] = {
        WL_TYPE_F32, WL_TYPE_F16, WL_TYPE_Q8_0, WL_TYPE_Q4_0, WL_TYPE_Q4_1, WL_TYPE_BF16, WL_TYPE_Q4_K, WL_TYPE_MXFP4,
        4,           99};
    uint64_t dims[4] = {columns, rows, depth, 1};
    uint32_t type = columns % 32 == 0 && rows > 1 ? types[next (c) % 6] : WL_TYPE_F32, n_dims = 4;
    if (choose_wrong (c)) {
        uint8_t how = next (c);
        if (how < 64)
            return;
        if (how < 128)
            type = types[how % (sizeof types / sizeof types[0])];
        else if (how < 224)
            dims[how % 4] = number (c, (uint32_t) dims[how % 4] + 1);
        else
            n_dims = how % 4 + 1;
    }
    uint32_t per_block = wl_type_block_elements (type), block_bytes = wl_type_block_bytes (type);
    uint64_t elements = dims[0];
    for (uint32_t d = 1; d < n_dims; d++)
        if (__builtin_mul_overflow (elements, dims[d], &elements))
            elements = 0;
    uint64_t bytes = per_block ? elements / per_block * block_bytes : 4 * elements;
    add_tensor (&c->g, name, type, n_dims, dims, c->g.data_bytes);
    if (bytes < 1u << 16) /* a larger one ends past the file, which is another way to be wrong */
        c->g.data_bytes += (size_t) (bytes + 31) / 32 * 32;
}

static void layer_tensors (choices *c, const architecture *row, uint32_t layer, bool fused)
{
    uint64_t split = BIT (ATTN_Q) | BIT (ATTN_K) | BIT (ATTN_V);
    uint64_t roles = row->required | (c->n_experts ? row->experts : row->dense) | (fused ? BIT (ATTN_QKV) : split);
    for (unsigned role = 0; role < WL_N_ROLES; role++) {
        const role_shape *shape = &role_shapes[role];
        const char *suffix =
            row->post_is_ffn_norm && role == WL_ROLE_FFN_NORM ? "post_attention_norm.weight" : shape->suffix;
        bool optional = row->optional >> role & 1;
        char name[64];
        if (!(roles >> role & 1) && !(optional && next (c) & 1))
            continue;
        side columns = shape->columns;
        if (row->qk_norm == WL_QK_NORM_ALL_HEADS && role == WL_ROLE_ATTN_Q_NORM)
            columns = Q_ROWS;
        if (row->qk_norm == WL_QK_NORM_ALL_HEADS && role == WL_ROLE_ATTN_K_NORM)
            columns = KV_ROWS;
        snprintf (name, sizeof name, "blk.%u.%s", layer, suffix);
        tensor (c, name, length_of (c, columns), length_of (c, shape->rows), length_of (c, shape->depth));
    }
}

static void metadata (choices *c, const architecture *row)
{
    static const char *const scalings[] = {"none", "linear", "yarn", "longrope", "dynamic"};
    char name[96];
    add_text (&c->g, "general.architecture", c->name);
    key (c, "block_count", c->n_layers);
    key (c, "embedding_length", D_MODEL_N);
    key (c, "feed_forward_length", D_FF);
    key (c, "attention.head_count", N_HEADS);
    key (c, "attention.head_count_kv", N_KV_HEADS);
    key (c, "attention.key_length", HEAD_DIM);
    key (c, "attention.value_length", HEAD_DIM);
    key (c, "rope.dimension_count", HEAD_DIM);
    key (c, "context_length", 64);
    key (c, "attention.sliding_window", 2);
    if (next (c) & 1)
        key (c, "attention.sliding_window_pattern", 2);
    if (c->n_experts) {
        key (c, "expert_count", c->n_experts);
        key (c, "expert_used_count", 2);
        key (c, "expert_shared_feed_forward_length", c->d_ff_shared);
    }
    real_key (c, row->norm_kind == WL_NORM_LAYER ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon",
              1e-5f);
    real_key (c, "rope.freq_base", 10000.0f);
    real_key (c, "logit_scale", 2.0f);
    real_key (c, "attn_logit_softcapping", 50.0f);
    if (next (c) & 1) {
        snprintf (name, sizeof name, "%s.rope.scaling.type", c->name);
        add_text (&c->g, name, scalings[next (c) % (sizeof scalings / sizeof scalings[0])]);
        real_key (c, "rope.scaling.factor", 4.0f);
        real_key (c, "rope.scaling.attn_factor", 1.0f);
        real_key (c, "rope.scaling.yarn_beta_fast", 32.0f);
        key (c, "rope.scaling.original_context_length", 16);
    }
}

/* Whatever was accepted loads and takes a step, whole or as the two halves of a cluster. */
static void compute (const wl_gguf *gguf, const wl_model *model, bool halves)
{
    const int32_t last_token = (int32_t) model->n_vocab - 1, tokens[] = {0, last_token, last_token / 2};
    static const uint32_t pages[] = {1}, logit_rows[] = {0, 2};
    const wl_span span = {.n_rows = 3, .pages = pages, .n_pages = 1};
    const wl_batch batch = {3, 1, &span, tokens, logit_rows, 2};
    wl_error err = {0};
    wl_thread_pool *pool = wl_thread_pool_new (1, &err);
    float *rows[2] = {wl_new (3, model->d_model * sizeof (float), &err),
                      wl_new (3, (wl_stage_logit_stride (model) + model->d_model) * sizeof (float), &err)};
    uint32_t middle = halves ? model->n_layers / 2 : model->n_layers;
    for (uint32_t first = 0, i = 0; first < model->n_layers && pool && rows[0] && rows[1];
         first = middle, middle = model->n_layers, i++) {
        wl_stage_options options = {.first_layer = first,
                                    .last_layer = middle - 1,
                                    .n_pages = N_PAGES,
                                    .max_rows = 3,
                                    .context = 64,
                                    .kernels = &wl_kernels_scalar,
                                    .pool = pool};
        wl_stage *stage = wl_stage_new (gguf, model, &options, NULL, NULL, &err);
        bool last = middle == model->n_layers;
        if (!stage || !wl_stage_forward (stage, &batch, i ? rows[0] : NULL, last ? rows[1] : rows[0], &err))
            abort ();
        wl_stage_free (&stage);
    }
    free (rows[0]);
    free (rows[1]);
    wl_thread_pool_free (&pool);
}

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
    char known[256], *at = known;
    choices c = {.data = data, .size = size, .g = new_builder ()};
    wl_model_architectures (known, sizeof known);
    for (uint8_t skip = next (&c) % 16; skip && strstr (at, ", "); skip--)
        at = strstr (at, ", ") + 2;
    at[strcspn (at, ",")] = '\0';
    const architecture *row = find_architecture ((wl_text){at, strlen (at)});
    c.name = at;
    c.n_layers = 1 + next (&c) % 3;
    c.n_experts = row->experts && (!row->dense || next (&c) & 1) ? N_EXPERTS : 0;
    c.d_ff_shared = row->optional & BIT (SHARED_UP) && next (&c) & 1 ? 32 : 0;
    metadata (&c, row);
    tensor (&c, "token_embd.weight", D_MODEL_N, N_VOCAB, 1);
    tensor (&c, "output_norm.weight", D_MODEL_N, 1, 1);
    if (next (&c) & 1)
        tensor (&c, "output.weight", D_MODEL_N, N_VOCAB, 1);
    if (next (&c) & 1)
        tensor (&c, "rope_factors_long.weight", HEAD_DIM / 2, 1, 1);
    bool fused = next (&c) & 1;
    for (uint32_t layer = 0; layer < c.n_layers; layer++)
        layer_tensors (&c, row, layer, fused);
    wl_error err = {0};
    size_t length;
    uint8_t *file = build (&c.g, &length);
    wl_gguf *gguf = wl_gguf_open_memory (file, length, "fuzz", &err);
    wl_model *model = gguf ? wl_model_new (gguf, &err) : NULL;
    if (model)
        compute (gguf, model, next (&c) & 1 && model->n_layers > 1);
    else if (err.code != WL_ERROR_INPUT || !err.text[0])
        abort ();
    wl_model_free (&model);
    wl_gguf_free (&gguf);
    free (file);
    return 0;
}
