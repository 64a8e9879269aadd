/* Hyperparameters and the architecture table; see model.h.
 *
 * To add an architecture, add a row. A trait that no row has yet is a new field of the row and of wl_model, read by the forward
 * pass; never a comparison of names. */
#include "model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"
#include "memory.h"

/* -- roles ------------------------------------------------------------------------------------------------------------------ */

/* How many elements a side of a layer's tensor has. */
typedef enum side { NONE, D_MODEL, Q_ROWS, KV_ROWS, HEAD, FF } side;

static const struct {
    const char *suffix;
    side rows, columns; /* rows NONE: a vector */
} roles[WL_N_ROLES] = {
    [WL_ROLE_ATTN_NORM] = {"attn_norm.weight", NONE, D_MODEL},
    [WL_ROLE_ATTN_Q] = {"attn_q.weight", Q_ROWS, D_MODEL},
    [WL_ROLE_ATTN_K] = {"attn_k.weight", KV_ROWS, D_MODEL},
    [WL_ROLE_ATTN_V] = {"attn_v.weight", KV_ROWS, D_MODEL},
    [WL_ROLE_ATTN_Q_BIAS] = {"attn_q.bias", NONE, Q_ROWS},
    [WL_ROLE_ATTN_K_BIAS] = {"attn_k.bias", NONE, KV_ROWS},
    [WL_ROLE_ATTN_V_BIAS] = {"attn_v.bias", NONE, KV_ROWS},
    [WL_ROLE_ATTN_Q_NORM] = {"attn_q_norm.weight", NONE, HEAD},
    [WL_ROLE_ATTN_K_NORM] = {"attn_k_norm.weight", NONE, HEAD},
    [WL_ROLE_ATTN_OUTPUT] = {"attn_output.weight", D_MODEL, Q_ROWS},
    [WL_ROLE_ATTN_POST_NORM] = {"post_attention_norm.weight", NONE, D_MODEL},
    [WL_ROLE_FFN_NORM] = {"ffn_norm.weight", NONE, D_MODEL},
    [WL_ROLE_FFN_GATE] = {"ffn_gate.weight", FF, D_MODEL},
    [WL_ROLE_FFN_UP] = {"ffn_up.weight", FF, D_MODEL},
    [WL_ROLE_FFN_DOWN] = {"ffn_down.weight", D_MODEL, FF},
    [WL_ROLE_FFN_POST_NORM] = {"post_ffw_norm.weight", NONE, D_MODEL},
};

/* -- the table --------------------------------------------------------------------------------------------------------------- */

#define BIT(role) (1u << WL_ROLE_##role)
#define LLAMA_TENSORS                                                                                    \
    (BIT (ATTN_NORM) | BIT (ATTN_Q) | BIT (ATTN_K) | BIT (ATTN_V) | BIT (ATTN_OUTPUT) | BIT (FFN_NORM) | \
     BIT (FFN_GATE) | BIT (FFN_UP) | BIT (FFN_DOWN))
#define QKV_BIASES (BIT (ATTN_Q_BIAS) | BIT (ATTN_K_BIAS) | BIT (ATTN_V_BIAS))
#define QK_NORMS (BIT (ATTN_Q_NORM) | BIT (ATTN_K_NORM))
#define POST_NORMS (BIT (ATTN_POST_NORM) | BIT (FFN_POST_NORM))

typedef struct architecture {
    const char *name;
    uint32_t required, optional; /* bits of roles */
    wl_rope_kind rope_kind;
    wl_activation_fn activation;
    bool scales;         /* embedding_scale, residual_scale, attention.scale and logit_scale keys apply (Granite) */
    bool embedding_root; /* the embedding is multiplied by sqrt (d_model) */
    uint32_t
        global_every; /* of so many layers the last attends to everything, the others through the sliding window; 0: all do */
    float local_rope_base; /* of the windowed layers, where the file does not say */
} architecture;

static const architecture architectures[] = {
    {.name = "llama", .required = LLAMA_TENSORS, .optional = QKV_BIASES, .rope_kind = WL_ROPE_ADJACENT},
    {.name = "granite",
     .required = LLAMA_TENSORS,
     .optional = QKV_BIASES,
     .rope_kind = WL_ROPE_ADJACENT,
     .scales = true},
    {.name = "qwen2", .required = LLAMA_TENSORS | QKV_BIASES, .rope_kind = WL_ROPE_HALVES},
    {.name = "qwen3", .required = LLAMA_TENSORS | QK_NORMS, .rope_kind = WL_ROPE_HALVES},
    {.name = "gemma3",
     .required = LLAMA_TENSORS | QK_NORMS | POST_NORMS,
     .rope_kind = WL_ROPE_HALVES,
     .activation = WL_GELU,
     .embedding_root = true,
     .global_every = 6,
     .local_rope_base = 10000.0f},
};
enum { N_ARCHITECTURES = sizeof architectures / sizeof architectures[0] };

const char *wl_model_architectures (void)
{
    return "llama, granite, qwen2, qwen3, gemma3";
}

/* -- metadata ------------------------------------------------------------------------------------------------------------------ */

typedef struct reader {
    const wl_gguf *gguf;
    const char *path;
    wl_model *model;
    const architecture *row;
    wl_error *err;
} reader;

static const char *key_of (const reader *r, const char *suffix, char buffer[128])
{
    snprintf (buffer, 128, "%s.%s", r->model->architecture, suffix);
    return buffer;
}

static bool read_u32 (const reader *r, const char *suffix, bool required, uint32_t low, uint32_t high, uint32_t *out)
{
    char key[128];
    bool found = wl_gguf_u32 (r->gguf, key_of (r, suffix, key), out);
    if (!found && required)
        return wl_fail (r->err, WL_ERROR_INPUT, "%s: metadata lacks %s: the file is not a complete model", r->path,
                        key);
    if (*out < low || *out > high)
        return wl_fail (r->err, WL_ERROR_INPUT, "%s: %s is %u, expected %u to %u", r->path, key, *out, low, high);
    return true;
}

static bool read_f32 (const reader *r, const char *suffix, bool required, float *out)
{
    char key[128];
    bool found = wl_gguf_f32 (r->gguf, key_of (r, suffix, key), out);
    if (!found && required)
        return wl_fail (r->err, WL_ERROR_INPUT, "%s: metadata lacks %s: the file is not a complete model", r->path,
                        key);
    if (!isfinite (*out))
        return wl_fail (r->err, WL_ERROR_INPUT, "%s: %s is not a finite number", r->path, key);
    return true;
}

static bool find_architecture (reader *r)
{
    wl_text text;
    if (!wl_gguf_text (r->gguf, "general.architecture", &text))
        return wl_fail (r->err, WL_ERROR_INPUT, "%s: metadata lacks general.architecture: not a model", r->path);
    for (size_t i = 0; i < N_ARCHITECTURES; i++) {
        const architecture *row = &architectures[i];
        if (strlen (row->name) == text.length && memcmp (row->name, text.data, text.length) == 0) {
            r->row = row;
            snprintf (r->model->architecture, sizeof r->model->architecture, "%s", row->name);
            return true;
        }
    }
    return wl_fail (r->err, WL_ERROR_INPUT, "%s: architecture \"%.*s\" is not supported (these are: %s)", r->path,
                    text.length > 64 ? 64 : (int) text.length, text.data, wl_model_architectures ());
}

static void read_name (reader *r)
{
    wl_text text;
    wl_model *m = r->model;
    if (!wl_gguf_text (r->gguf, "general.name", &text) || text.length == 0)
        text = (wl_text){m->architecture, strlen (m->architecture)};
    size_t length = text.length < sizeof m->name - 1 ? text.length : sizeof m->name - 1;
    memcpy (m->name, text.data, length);
    for (size_t i = 0; i < length; i++)
        if ((unsigned char) m->name[i] < 0x20 || m->name[i] == 0x7f)
            m->name[i] = '?';
}

/* RoPE scaling that the file asks for: none or linear so far; others would give wrong answers, so they are refused. */
static bool read_rope_scaling (reader *r)
{
    char key[128];
    wl_text kind;
    float factor = 1.0f;
    r->model->rope_scale = 1.0f;
    if (!wl_gguf_text (r->gguf, key_of (r, "rope.scaling.type", key), &kind)) {
        if (wl_gguf_f32 (r->gguf, key_of (r, "rope.scale_linear", key), &factor) && factor > 0 && isfinite (factor))
            r->model->rope_scale = 1.0f / factor;
        return true;
    }
    if (kind.length == 4 && memcmp (kind.data, "none", 4) == 0)
        return true;
    if (kind.length == 6 && memcmp (kind.data, "linear", 6) == 0) {
        if (!read_f32 (r, "rope.scaling.factor", true, &factor))
            return false;
        if (factor <= 0)
            return wl_fail (r->err, WL_ERROR_INPUT, "%s: the RoPE scaling factor %g is not positive", r->path, factor);
        r->model->rope_scale = 1.0f / factor;
        return true;
    }
    return wl_fail (r->err, WL_ERROR_INPUT, "%s: RoPE scaling \"%.*s\" is not supported (none and linear are)", r->path,
                    kind.length > 32 ? 32 : (int) kind.length, kind.data);
}

static bool read_scales (reader *r)
{
    wl_model *m = r->model;
    m->embedding_scale = r->row->embedding_root ? sqrtf ((float) m->d_model) : 1.0f;
    m->residual_scale = 1.0f;
    m->logit_scale = 1.0f;
    m->attention_scale = 1.0f / sqrtf ((float) m->head_dim);
    if (!r->row->scales)
        return true;
    float attention = 0, divisor = 0, embedding = 0, residual = 0;
    if (!read_f32 (r, "attention.scale", false, &attention) || !read_f32 (r, "logit_scale", false, &divisor) ||
        !read_f32 (r, "embedding_scale", false, &embedding) || !read_f32 (r, "residual_scale", false, &residual))
        return false;
    /* Absent and 0 both mean "none". */
    if (attention != 0)
        m->attention_scale = attention;
    if (divisor != 0)
        m->logit_scale = 1.0f / divisor;
    if (embedding != 0)
        m->embedding_scale = embedding;
    if (residual != 0)
        m->residual_scale = residual;
    return true;
}

static bool read_layers (reader *r)
{
    wl_model *m = r->model;
    uint32_t window = 0;
    m->layers = wl_new (m->n_layers, sizeof *m->layers, r->err);
    if (!m->layers)
        return false;
    if (r->row->global_every == 0)
        return true;
    if (!read_u32 (r, "attention.sliding_window", true, 1, 1u << 30, &window))
        return false;
    m->rope_base_local = r->row->local_rope_base;
    if (!read_f32 (r, "rope.freq_base_swa", false, &m->rope_base_local))
        return false;
    for (uint32_t i = 0; i < m->n_layers; i++)
        if ((i + 1) % r->row->global_every != 0)
            m->layers[i] = (wl_layer_plan){.window = window, .local_rope = true};
    return true;
}

static bool read_hyperparameters (reader *r)
{
    wl_model *m = r->model;
    if (!find_architecture (r) || !r->row)
        return false;
    read_name (r);
    m->rope_kind = r->row->rope_kind;
    m->activation = r->row->activation;
    uint32_t n_experts = 0;
    if (!read_u32 (r, "expert_count", false, 0, UINT32_MAX, &n_experts))
        return false;
    if (n_experts)
        return wl_fail (r->err, WL_ERROR_INPUT, "%s: a mixture of %u experts: not supported yet", r->path, n_experts);
    if (!read_u32 (r, "block_count", true, 1, 10000, &m->n_layers) ||
        !read_u32 (r, "embedding_length", true, 1, 1u << 20, &m->d_model) ||
        !read_u32 (r, "feed_forward_length", true, 1, 1u << 24, &m->d_ff) ||
        !read_u32 (r, "attention.head_count", true, 1, 65536, &m->n_heads))
        return false;
    m->n_kv_heads = m->n_heads;
    if (!read_u32 (r, "attention.head_count_kv", false, 1, m->n_heads, &m->n_kv_heads))
        return false;
    if (m->n_heads % m->n_kv_heads != 0)
        return wl_fail (r->err, WL_ERROR_INPUT, "%s: %u attention heads do not divide over %u KV heads", r->path,
                        m->n_heads, m->n_kv_heads);
    m->head_dim = m->d_model / m->n_heads;
    m->context_length = 4096;
    if (!read_u32 (r, "attention.key_length", false, 2, 65536, &m->head_dim))
        return false;
    uint32_t value_length = m->head_dim;
    if (!read_u32 (r, "attention.value_length", false, 1, 65536, &value_length) ||
        !read_u32 (r, "context_length", false, 1, 1u << 30, &m->context_length))
        return false;
    if (value_length != m->head_dim)
        return wl_fail (r->err, WL_ERROR_INPUT, "%s: values of %u elements beside keys of %u: not supported", r->path,
                        value_length, m->head_dim);
    m->rope_dims = m->head_dim;
    if (!read_u32 (r, "rope.dimension_count", false, 2, m->head_dim, &m->rope_dims))
        return false;
    if (m->head_dim % 8 != 0 || m->rope_dims % 2 != 0)
        return wl_fail (r->err, WL_ERROR_INPUT,
                        "%s: heads of %u elements, %u of them rotated: multiples of 8 and 2 are supported", r->path,
                        m->head_dim, m->rope_dims);
    m->rope_base = 10000.0f;
    if (!read_f32 (r, "rope.freq_base", false, &m->rope_base) ||
        !read_f32 (r, "attention.layer_norm_rms_epsilon", true, &m->norm_eps))
        return false;
    if (m->rope_base <= 0 || m->norm_eps < 0)
        return wl_fail (r->err, WL_ERROR_INPUT, "%s: rope.freq_base %g or norm epsilon %g is out of range", r->path,
                        m->rope_base, m->norm_eps);
    return read_rope_scaling (r) && read_scales (r) && read_layers (r);
}

/* -- tensors --------------------------------------------------------------------------------------------------------------------- */

static uint64_t side_length (const wl_model *m, side s)
{
    switch (s) {
    case NONE:
        return 1;
    case D_MODEL:
        return m->d_model;
    case Q_ROWS:
        return (uint64_t) m->n_heads * m->head_dim;
    case KV_ROWS:
        return (uint64_t) m->n_kv_heads * m->head_dim;
    case HEAD:
        return m->head_dim;
    case FF:
        return m->d_ff;
    }
    return 0;
}

/* A tensor that is there must have this shape and a type with kernels. */
static bool check_tensor (const reader *r, const wl_tensor *t, uint64_t rows, uint64_t columns)
{
    if (t->dims[0] != columns || t->dims[1] != rows || t->dims[2] != 1 || t->dims[3] != 1)
        return wl_fail (r->err, WL_ERROR_INPUT, "%s: tensor %s is %llu x %llu, expected %llu x %llu by the metadata",
                        r->path, t->name, (unsigned long long) t->dims[0], (unsigned long long) t->dims[1],
                        (unsigned long long) columns, (unsigned long long) rows);
    const wl_format *format = wl_format_find (t->type);
    if (!format) {
        const char *name = wl_type_name (t->type);
        return wl_fail (r->err, WL_ERROR_INPUT, "%s: tensor %s has type %s (%u), which Woolly cannot compute with",
                        r->path, t->name, name ? name : "unknown", t->type);
    }
    if (columns % format->block_elements != 0)
        return wl_fail (r->err, WL_ERROR_INPUT, "%s: tensor %s has %llu columns, not a multiple of %u as %s needs",
                        r->path, t->name, (unsigned long long) columns, format->block_elements, wl_type_name (t->type));
    return true;
}

static bool find_global (reader *r, const char *name, bool required, uint64_t rows, uint64_t columns,
                         const wl_tensor **out)
{
    *out = wl_gguf_find_tensor (r->gguf, name);
    if (!*out)
        return required ? wl_fail (r->err, WL_ERROR_INPUT, "%s: tensor %s is missing: the file is not a complete model",
                                   r->path, name)
                        : true;
    return check_tensor (r, *out, rows, columns);
}

/* Every tensor of the file must have a place in the row: one that is left out would make wrong answers. */
static bool place_tensor (reader *r, const wl_tensor *t)
{
    static const char *const globals[] = {"token_embd.weight", "output_norm.weight", "output.weight",
                                          "rope_freqs.weight"};
    for (size_t i = 0; i < sizeof globals / sizeof globals[0]; i++)
        if (strcmp (t->name, globals[i]) == 0)
            return true;
    unsigned layer = 0;
    int used = 0;
    if (sscanf (t->name, "blk.%9u.%n", &layer, &used) == 1 && used > 0 && layer < r->model->n_layers) {
        const char *suffix = t->name + used;
        for (unsigned role = 0; role < WL_N_ROLES; role++)
            if (((r->row->required | r->row->optional) >> role & 1) && strcmp (suffix, roles[role].suffix) == 0) {
                r->model->tensors[layer][role] = t;
                return check_tensor (r, t, side_length (r->model, roles[role].rows),
                                     side_length (r->model, roles[role].columns));
            }
        if (strcmp (suffix, "attn_rot_embd.weight") == 0 || strcmp (suffix, "attn.rot_embd.weight") == 0)
            return true; /* precomputed RoPE tables of old files: we compute our own */
    }
    return wl_fail (r->err, WL_ERROR_INPUT,
                    "%s: tensor %s has no place in architecture %s: answers would be wrong without it", r->path,
                    t->name, r->model->architecture);
}

static bool find_tensors (reader *r)
{
    wl_model *m = r->model;
    const wl_tensor *embedding = wl_gguf_find_tensor (r->gguf, "token_embd.weight");
    if (!embedding)
        return wl_fail (r->err, WL_ERROR_INPUT, "%s: tensor token_embd.weight is missing: %s", r->path,
                        wl_gguf_n_tensors (r->gguf) ? "the file is not a complete model"
                                                    : "the file holds a vocabulary only");
    if (embedding->dims[1] == 0 || embedding->dims[1] > INT32_MAX)
        return wl_fail (r->err, WL_ERROR_INPUT, "%s: token_embd.weight has %llu rows", r->path,
                        (unsigned long long) embedding->dims[1]);
    m->n_vocab = (uint32_t) embedding->dims[1];
    if (!find_global (r, "token_embd.weight", true, m->n_vocab, m->d_model, &m->token_embedding) ||
        !find_global (r, "output_norm.weight", true, 1, m->d_model, &m->output_norm) ||
        !find_global (r, "output.weight", false, m->n_vocab, m->d_model, &m->output) ||
        !find_global (r, "rope_freqs.weight", false, 1, m->rope_dims / 2, &m->rope_factors))
        return false;
    if (!m->output)
        m->output = m->token_embedding;
    m->tensors = wl_new (m->n_layers, sizeof *m->tensors, r->err);
    if (!m->tensors)
        return false;
    for (size_t i = 0; i < wl_gguf_n_tensors (r->gguf); i++)
        if (!place_tensor (r, wl_gguf_tensor (r->gguf, i)))
            return false;
    for (uint32_t layer = 0; layer < m->n_layers; layer++)
        for (unsigned role = 0; role < WL_N_ROLES; role++)
            if ((r->row->required >> role & 1) && !m->tensors[layer][role])
                return wl_fail (r->err, WL_ERROR_INPUT,
                                "%s: tensor blk.%u.%s is missing: the file is not a complete model", r->path, layer,
                                roles[role].suffix);
    return true;
}

wl_model *wl_model_new (const wl_gguf *gguf, wl_error *err)
{
    wl_model *model = wl_new (1, sizeof *model, err);
    if (!model)
        return NULL;
    reader r = {.gguf = gguf, .path = wl_gguf_path (gguf), .model = model, .err = err};
    if (!read_hyperparameters (&r) || !find_tensors (&r))
        wl_model_free (&model);
    return model;
}

void wl_model_free (wl_model **model)
{
    if (!*model)
        return;
    free ((*model)->tensors);
    free ((*model)->layers);
    free (*model);
    *model = NULL;
}

/* -- sizes ------------------------------------------------------------------------------------------------------------------------- */

uint64_t wl_model_layer_bytes (const wl_model *model, uint32_t layer)
{
    uint64_t bytes = 0;
    for (unsigned role = 0; role < WL_N_ROLES; role++)
        if (model->tensors[layer][role])
            bytes += model->tensors[layer][role]->bytes;
    return bytes;
}

uint64_t wl_model_embedding_bytes (const wl_model *model)
{
    return model->token_embedding->bytes;
}

uint64_t wl_model_head_bytes (const wl_model *model)
{
    return model->output->bytes + model->output_norm->bytes;
}

uint64_t wl_model_kv_bytes (const wl_model *model)
{
    return (uint64_t) model->n_kv_heads * model->head_dim * 2 * sizeof (uint16_t);
}
