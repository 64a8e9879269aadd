/* Hyperparameters and tensors by the architecture's row; see model.h and architectures.h. */
#include "model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "architectures.h"
#include "kernels/kernels.h"
#include "kernels/math.h"
#include "memory.h"

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

/* A number, or an array of one number a layer whose elements are all the same. */
static bool find_u32 (const reader *r, const char *key, bool *found, uint32_t *out)
{
    wl_value_type element;
    size_t length;
    int64_t first = 0, other = 0;
    *found = wl_gguf_u32 (r->gguf, key, out);
    if (*found || !wl_gguf_array (r->gguf, key, &element, &length) || length == 0 ||
        !wl_gguf_array_i64 (r->gguf, key, 0, &first))
        return true;
    for (size_t i = 1; i < length; i++)
        if (!wl_gguf_array_i64 (r->gguf, key, i, &other) || other != first)
            return wl_fail (r->err, WL_ERROR_INPUT, "%s: %s differs from layer to layer: not supported", r->path, key);
    if (first < 0 || first > UINT32_MAX)
        return wl_fail (r->err, WL_ERROR_INPUT, "%s: %s is out of range", r->path, key);
    *found = true;
    *out = (uint32_t) first;
    return true;
}

static bool read_u32 (const reader *r, const char *suffix, bool required, uint32_t low, uint32_t high, uint32_t *out)
{
    char key[128];
    bool found;
    if (!find_u32 (r, key_of (r, suffix, key), &found, out))
        return false;
    if (!found)
        return !required || wl_fail (r->err, WL_ERROR_INPUT, "%s: metadata lacks %s: the file is not a complete model",
                                     r->path, key);
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

static bool read_architecture (reader *r)
{
    wl_text text;
    char known[256];
    if (!wl_gguf_text (r->gguf, "general.architecture", &text))
        return wl_fail (r->err, WL_ERROR_INPUT, "%s: metadata lacks general.architecture: not a model", r->path);
    r->row = find_architecture (text);
    if (!r->row) {
        wl_model_architectures (known, sizeof known);
        return wl_fail (r->err, WL_ERROR_INPUT, "%s: architecture \"%.*s\" is not supported (these are: %s)", r->path,
                        text.length > 64 ? 64 : (int) text.length, text.data, known);
    }
    snprintf (r->model->architecture, sizeof r->model->architecture, "%s", r->row->name);
    return true;
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

static bool text_is (wl_text text, const char *word)
{
    return text.length == strlen (word) && memcmp (text.data, word, text.length) == 0;
}

/* What the file leaves out of YaRN's parameters has the paper's values. */
static bool read_yarn (reader *r)
{
    wl_rope_scaling *s = &r->model->rope_scaling;
    s->yarn = true;
    s->unrounded = r->row->yarn_unrounded;
    s->beta_fast = 32.0f;
    s->beta_slow = 1.0f;
    if (!read_f32 (r, "rope.scaling.yarn_beta_fast", false, &s->beta_fast) ||
        !read_f32 (r, "rope.scaling.yarn_beta_slow", false, &s->beta_slow))
        return false;
    if (!(s->beta_fast > 0 && s->beta_slow > 0))
        return wl_fail (r->err, WL_ERROR_INPUT, "%s: YaRN's beta_fast %g and beta_slow %g must be positive", r->path,
                        (double) s->beta_fast, (double) s->beta_slow);
    float magnitude = (float) (1.0 + 0.1 * wl_log ((double) s->factor));
    bool declared = r->model->rope_order.choice == WL_ROPE_AS_DECLARED; /* then it belongs to the factor */
    if (declared && !read_f32 (r, "rope.scaling.yarn_attn_factor", false, &magnitude))
        return false;
    s->magnitude *= magnitude;
    return true;
}

enum { MOST_CONTEXT = 1 << 30, MOST_FACTOR = 1000 };

static const char *const rope_choices[WL_N_ROPE_CHOICES] = {"as declared", "none", "linear", "yarn"};

bool wl_rope_choice_parse (const char *name, wl_rope_choice *choice, wl_error *err)
{
    for (int i = WL_ROPE_UNSCALED; i < WL_N_ROPE_CHOICES; i++)
        if (strcmp (name, rope_choices[i]) == 0) {
            *choice = (wl_rope_choice) i;
            return true;
        }
    return wl_fail (err, WL_ERROR_USAGE, "--rope-scaling %s: choose none, linear or yarn", name);
}

/* The factor and the context that follow from the user's order. */
static bool settle_order (reader *r, wl_rope_scaling *s)
{
    wl_model *m = r->model;
    const wl_rope_order *o = &m->rope_order;
    const char *name = rope_choices[o->choice];
    uint32_t original = s->original_context;
    if (o->choice == WL_ROPE_UNSCALED) {
        m->context_length = original < m->context_length ? original : m->context_length;
        s->factor = 1.0f;
        return true;
    }
    if (o->factor == 0.0f && !o->context)
        return wl_fail (r->err, WL_ERROR_USAGE,
                        "--rope-scaling %s: by how much? Choose --ctx N beyond the original context of %u, or "
                        "--rope-factor F",
                        name, original);
    if (o->factor == 0.0f && o->context <= original)
        return wl_fail (r->err, WL_ERROR_USAGE,
                        "--ctx %u is within the original context of %u: leave --rope-scaling %s out, or choose "
                        "--rope-factor F",
                        o->context, original, name);
    s->factor = o->factor != 0.0f ? o->factor : (float) o->context / (float) original;
    if (!(s->factor > 1 && s->factor <= MOST_FACTOR))
        return wl_fail (r->err, WL_ERROR_USAGE, "--rope-factor %g: choose more than 1 and at most %d",
                        (double) s->factor, MOST_FACTOR);
    double reach = (double) s->factor * original;
    if (o->factor != 0.0f && o->context > reach)
        return wl_fail (r->err, WL_ERROR_USAGE,
                        "--ctx %u is more than the %.0f positions that --rope-factor %g reaches from the original "
                        "context of %u: raise the factor",
                        o->context, reach, (double) s->factor, original);
    m->context_length = o->context ? o->context : reach < MOST_CONTEXT ? (uint32_t) reach : MOST_CONTEXT;
    return true;
}

/* RoPE scaling that the file asks for: none, linear, YaRN or LongRoPE; another would give wrong answers, so it is refused. */
static bool read_rope_scaling (reader *r)
{
    char key[128];
    wl_text kind = {"linear", 6};
    uint32_t original = 0;
    wl_rope_scaling *s = &r->model->rope_scaling;
    *s = (wl_rope_scaling){.factor = 1.0f, .magnitude = 1.0f, .original_context = r->model->context_length};
    wl_gguf_text (r->gguf, key_of (r, "rope.scaling.type", key), &kind);
    /* the older key first, so that the newer one wins */
    if (!read_f32 (r, "rope.scale_linear", false, &s->factor) ||
        !read_f32 (r, "rope.scaling.factor", false, &s->factor) ||
        !read_f32 (r, "rope.scaling.attn_factor", false, &s->magnitude) ||
        !read_u32 (r, "rope.scaling.original_context_length", false, 1, MOST_CONTEXT, &original))
        return false;
    if (original)
        s->original_context = original;
    if (r->model->rope_order.choice != WL_ROPE_AS_DECLARED) {
        const char *name = rope_choices[r->model->rope_order.choice];
        if (text_is (kind, "longrope") || wl_gguf_find_tensor (r->gguf, "rope_factors_long.weight"))
            return wl_fail (r->err, WL_ERROR_USAGE,
                            "--rope-scaling %s: %s has factors of its own for long contexts (LongRoPE): leave it out",
                            name, r->path);
        if (!original && s->factor > 1 && !text_is (kind, "none")) /* the context is what that scaling gave */
            s->original_context = 1 + (uint32_t) ((s->original_context - 1) / (double) s->factor);
        kind = (wl_text){name, strlen (name)};
        s->magnitude = 1.0f; /* the file's is that of its own scaling */
        if (!settle_order (r, s))
            return false;
    }
    if (s->factor == 0) /* written by some converters for "none" */
        s->factor = 1.0f;
    if (s->factor < 0 || s->magnitude <= 0)
        return wl_fail (r->err, WL_ERROR_INPUT, "%s: RoPE scaling by %g, attn_factor %g: both must be positive",
                        r->path, (double) s->factor, (double) s->magnitude);
    if (text_is (kind, "none") || text_is (kind, "longrope"))
        s->factor = 1.0f; /* LongRoPE's scaling is in its factors */
    else if (text_is (kind, "yarn"))
        return read_yarn (r);
    else if (!text_is (kind, "linear"))
        return wl_fail (r->err, WL_ERROR_INPUT,
                        "%s: RoPE scaling \"%.*s\" is not supported (none, linear, yarn and longrope are)", r->path,
                        kind.length > 32 ? 32 : (int) kind.length, kind.data);
    return true;
}

static bool read_scales (reader *r)
{
    wl_model *m = r->model;
    m->embedding_scale = r->row->embedding_root ? sqrtf ((float) m->d_model) : 1.0f;
    m->residual_scale = 1.0f;
    m->logit_scale = 1.0f;
    uint32_t width = m->n_layers == r->row->width_scale_layers ? m->d_model / m->n_heads : m->head_dim;
    m->attention_scale = 1.0f / sqrtf ((float) width);
    m->attention_softcap = r->row->attention_softcap;
    m->logit_softcap = r->row->logit_softcap;
    if (r->row->softcaps && (!read_f32 (r, "attn_logit_softcapping", false, &m->attention_softcap) ||
                             !read_f32 (r, "final_logit_softcapping", false, &m->logit_softcap)))
        return false;
    if (m->attention_softcap < 0 || m->logit_softcap < 0)
        return wl_fail (r->err, WL_ERROR_INPUT, "%s: logit softcapping by %g and %g: neither may be negative", r->path,
                        (double) m->attention_softcap, (double) m->logit_softcap);
    if (r->row->logit_multiplier && !read_f32 (r, "logit_scale", false, &m->logit_scale))
        return false;
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

/* Whether layer `i` attends through the window: by the file's own pattern (a period, or one truth value a layer), else by the row's. */
static bool is_windowed (const reader *r, uint32_t i, uint32_t period)
{
    char key[128];
    int64_t flag;
    if (wl_gguf_array_i64 (r->gguf, key_of (r, "attention.sliding_window_pattern", key), i, &flag))
        return flag != 0;
    return (i + 1) % period != 0;
}

static bool read_layers (reader *r)
{
    wl_model *m = r->model;
    const architecture *row = r->row;
    uint32_t window = row->window, period = row->global_every;
    m->layers = wl_new (m->n_layers, sizeof *m->layers, r->err);
    if (!m->layers)
        return false;
    m->rope_base_local = row->local_rope_base > 0 ? row->local_rope_base : m->rope_base;
    if (row->global_every && !read_u32 (r, "attention.sliding_window", false, 0, 1u << 30, &window))
        return false;
    if (row->local_rope && !read_f32 (r, "rope.freq_base_swa", false, &m->rope_base_local))
        return false;
    if (row->global_every && row->global_every != ALL_WINDOWED) {
        char key[128];
        wl_gguf_u32 (r->gguf, key_of (r, "attention.sliding_window_pattern", key), &period);
    }
    if (m->rope_base_local <= 0 || (row->global_every && period == 0))
        return wl_fail (r->err, WL_ERROR_INPUT, "%s: rope.freq_base_swa %g or a window pattern of %u is out of range",
                        r->path, (double) m->rope_base_local, period);
    for (uint32_t i = 0; i < m->n_layers; i++) {
        wl_layer_plan *layer = &m->layers[i];
        bool windowed = row->global_every && window && is_windowed (r, i, period);
        if (windowed)
            *layer = (wl_layer_plan){window, row->local_rope ? WL_LAYER_ROPE_LOCAL : WL_LAYER_ROPE_GLOBAL};
        if ((row->no_rope_every && (i + 1) % row->no_rope_every == 0) || (row->global_without_rope && !windowed))
            layer->rope = WL_LAYER_ROPE_NONE;
    }
    return true;
}

/* The number of experts and the length of their feed-forward parts. */
static bool read_experts (reader *r)
{
    wl_model *m = r->model;
    m->expert_scale = 1.0f;
    if (!read_u32 (r, "expert_count", false, 0, 65536, &m->n_experts))
        return false;
    if (m->n_experts == 0)
        return r->row->dense ? true
                             : wl_fail (r->err, WL_ERROR_INPUT, "%s: %s is a mixture of experts, and the file has none",
                                        r->path, m->architecture);
    if (!r->row->experts)
        return wl_fail (r->err, WL_ERROR_INPUT, "%s: %s with %u experts is not supported", r->path, m->architecture,
                        m->n_experts);
    return read_u32 (r, "expert_used_count", true, 1, m->n_experts, &m->n_experts_used) &&
           read_u32 (r, "expert_feed_forward_length", false, 1, 1u << 24, &m->d_ff) &&
           read_u32 (r, "expert_shared_feed_forward_length", false, 0, 1u << 24, &m->d_ff_shared) &&
           read_f32 (r, "expert_weights_scale", false, &m->expert_scale);
}

static bool read_hyperparameters (reader *r)
{
    wl_model *m = r->model;
    if (!read_architecture (r) || !r->row)
        return false;
    read_name (r);
    m->norm_kind = r->row->norm_kind;
    m->rope_kind = r->row->rope_kind;
    m->parallel = r->row->parallel;
    m->qk_norm = r->row->qk_norm;
    m->activation = r->row->activation;
    if (!read_u32 (r, "block_count", true, 1, 10000, &m->n_layers) ||
        !read_u32 (r, "embedding_length", true, 1, 1u << 20, &m->d_model) ||
        !read_u32 (r, "feed_forward_length", true, 1, 1u << 24, &m->d_ff) || !read_experts (r) ||
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
        !read_u32 (r, "context_length", false, 1, MOST_CONTEXT, &m->context_length))
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
        !read_f32 (r,
                   m->norm_kind == WL_NORM_LAYER ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon",
                   true, &m->norm_eps))
        return false;
    if (m->rope_base <= 0 || m->norm_eps < 0)
        return wl_fail (r->err, WL_ERROR_INPUT, "%s: rope.freq_base %g or norm epsilon %g is out of range", r->path,
                        m->rope_base, m->norm_eps);
    return read_rope_scaling (r) && read_scales (r) && read_layers (r);
}

/* -- tensors --------------------------------------------------------------------------------------------------------------------- */

static uint64_t side_length (const wl_model *m, side s)
{
    uint64_t q = (uint64_t) m->n_heads * m->head_dim, kv = (uint64_t) m->n_kv_heads * m->head_dim;
    switch (s) {
    case ONE:
        return 1;
    case D_MODEL:
        return m->d_model;
    case Q_ROWS:
        return q;
    case KV_ROWS:
        return kv;
    case QKV_ROWS:
        return q + 2 * kv;
    case HEAD:
        return m->head_dim;
    case HEADS:
        return m->n_heads;
    case KV_HEADS:
        return m->n_kv_heads;
    case FF:
        return m->d_ff;
    case TWICE_FF:
        return 2 * (uint64_t) m->d_ff;
    case SHARED_FF:
        return m->d_ff_shared;
    case EXPERTS:
        return m->n_experts;
    }
    return 0;
}

/* A tensor that is there must have this shape and a type with kernels. */
static bool check_tensor (const reader *r, const wl_tensor *t, uint64_t columns, uint64_t rows, uint64_t depth)
{
    if (t->dims[0] != columns || t->dims[1] != rows || t->dims[2] != depth || t->dims[3] != 1)
        return wl_fail (r->err, WL_ERROR_INPUT,
                        "%s: tensor %s is %llu x %llu x %llu, expected %llu x %llu x %llu by the metadata", r->path,
                        t->name, (unsigned long long) t->dims[0], (unsigned long long) t->dims[1],
                        (unsigned long long) t->dims[2], (unsigned long long) columns, (unsigned long long) rows,
                        (unsigned long long) depth);
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

static bool check_role (const reader *r, const wl_tensor *t, wl_role role)
{
    const wl_model *m = r->model;
    role_shape shape = role_shapes[role];
    bool is_q = role == WL_ROLE_ATTN_Q_NORM, is_k = role == WL_ROLE_ATTN_K_NORM;
    if ((is_q || is_k) && m->qk_norm == WL_QK_NORM_ALL_HEADS)
        shape.columns = is_q ? Q_ROWS : KV_ROWS;
    if ((is_q || is_k) && m->qk_norm == WL_QK_NORM_EACH_HEAD)
        shape.rows = is_q ? HEADS : KV_HEADS;
    return check_tensor (r, t, side_length (m, shape.columns), side_length (m, shape.rows),
                         side_length (m, shape.depth));
}

#define SPLIT_QKV (BIT (ATTN_Q) | BIT (ATTN_K) | BIT (ATTN_V))
#define SPLIT_BIASES (BIT (ATTN_Q_BIAS) | BIT (ATTN_K_BIAS) | BIT (ATTN_V_BIAS))

/* The roles that a layer must have, given whether its q, k and v are fused. */
static uint64_t required_roles (const reader *r, bool fused)
{
    uint64_t bits = r->row->required | (r->model->n_experts ? r->row->experts : r->row->dense);
    if (r->model->d_ff_shared)
        bits |= r->row->optional & (BIT (SHARED_GATE) | BIT (SHARED_UP) | BIT (SHARED_DOWN));
    if (!fused)
        return bits | SPLIT_QKV;
    return (bits & ~SPLIT_BIASES) | BIT (ATTN_QKV) | (bits & SPLIT_BIASES ? BIT (ATTN_QKV_BIAS) : 0);
}

static uint64_t allowed_roles (const reader *r)
{
    uint64_t bits = required_roles (r, false) | r->row->optional | BIT (ATTN_QKV);
    return bits & SPLIT_BIASES ? bits | BIT (ATTN_QKV_BIAS) : bits;
}

static const char *suffix_of (const reader *r, unsigned role)
{
    return r->row->post_is_ffn_norm && role == WL_ROLE_FFN_NORM ? role_shapes[WL_ROLE_ATTN_POST_NORM].suffix
                                                                : role_shapes[role].suffix;
}

static bool find_global (reader *r, const char *name, bool required, uint64_t columns, uint64_t rows,
                         const wl_tensor **out)
{
    *out = wl_gguf_find_tensor (r->gguf, name);
    if (!*out)
        return required ? wl_fail (r->err, WL_ERROR_INPUT, "%s: tensor %s is missing: the file is not a complete model",
                                   r->path, name)
                        : true;
    return check_tensor (r, *out, columns, rows, 1);
}

/* Every tensor of the file must have a place in the row: one that is left out would make wrong answers. */
static bool place_tensor (reader *r, const wl_tensor *t)
{
    static const char *const globals[] = {
        "token_embd.weight", "output_norm.weight", "output_norm.bias",         "output.weight",
        "output.bias",       "rope_freqs.weight",  "rope_factors_long.weight", "rope_factors_short.weight"};
    for (size_t i = 0; i < sizeof globals / sizeof globals[0]; i++)
        if (strcmp (t->name, globals[i]) == 0)
            return true;
    unsigned layer = 0;
    int used = 0;
    if (sscanf (t->name, "blk.%9u.%n", &layer, &used) == 1 && used > 0 && layer < r->model->n_layers) {
        const char *suffix = t->name + used;
        for (unsigned role = 0; role < WL_N_ROLES; role++)
            if ((allowed_roles (r) >> role & 1) && strcmp (suffix, suffix_of (r, role)) == 0) {
                r->model->tensors[layer][role] = t;
                return check_role (r, t, (wl_role) role);
            }
        if (strcmp (suffix, "attn_rot_embd.weight") == 0 || strcmp (suffix, "attn.rot_embd.weight") == 0)
            return true; /* precomputed RoPE tables of old files: we compute our own */
    }
    return wl_fail (r->err, WL_ERROR_INPUT,
                    "%s: tensor %s has no place in architecture %s: answers would be wrong without it", r->path,
                    t->name, r->model->architecture);
}

static bool check_layer (const reader *r, uint32_t layer)
{
    const wl_tensor *const *tensors = r->model->tensors[layer];
    bool fused = tensors[WL_ROLE_ATTN_QKV] != NULL;
    uint64_t required = required_roles (r, fused);
    for (unsigned role = 0; role < WL_N_ROLES; role++) {
        if ((required >> role & 1) && !tensors[role])
            return wl_fail (r->err, WL_ERROR_INPUT, "%s: tensor blk.%u.%s is missing: the file is not a complete model",
                            r->path, layer, suffix_of (r, role));
        if (fused && (SPLIT_QKV >> role & 1) && tensors[role])
            return wl_fail (r->err, WL_ERROR_INPUT, "%s: tensor %s is there beside a fused attn_qkv: which one counts?",
                            r->path, tensors[role]->name);
    }
    return true;
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
    if (!find_global (r, "token_embd.weight", true, m->d_model, m->n_vocab, &m->token_embedding) ||
        !find_global (r, "output_norm.weight", true, m->d_model, 1, &m->output_norm) ||
        !find_global (r, "output_norm.bias", false, m->d_model, 1, &m->output_norm_bias) ||
        !find_global (r, "output.weight", false, m->d_model, m->n_vocab, &m->output) ||
        !find_global (r, "output.bias", false, m->n_vocab, 1, &m->output_bias) ||
        !find_global (r, "rope_freqs.weight", false, m->rope_dims / 2, 1, &m->rope_factors) ||
        !find_global (r, "rope_factors_long.weight", false, m->rope_dims / 2, 1, &m->rope_factors_long))
        return false;
    if (!m->rope_factors && !find_global (r, "rope_factors_short.weight", false, m->rope_dims / 2, 1, &m->rope_factors))
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
        if (!check_layer (r, layer))
            return false;
    return true;
}

wl_model *wl_model_new (const wl_gguf *gguf, wl_error *err)
{
    return wl_model_new_scaled (gguf, &(wl_rope_order){0}, err);
}

wl_model *wl_model_new_scaled (const wl_gguf *gguf, const wl_rope_order *order, wl_error *err)
{
    wl_model *model = wl_new (1, sizeof *model, err);
    if (!model)
        return NULL;
    model->rope_order = *order;
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

/* -- what a stage reads --------------------------------------------------------------------------------------------------------------- */

typedef struct tensor_list {
    const wl_tensor **out;
    size_t room, count;
} tensor_list;

static void list_tensor (tensor_list *list, const wl_tensor *tensor)
{
    if (!tensor)
        return;
    if (list->count < list->room)
        list->out[list->count] = tensor;
    list->count++;
}

size_t wl_model_stage_tensors (const wl_model *m, uint32_t first_layer, uint32_t last_layer, const wl_tensor **out,
                               size_t room)
{
    tensor_list list = {out, room, 0};
    bool embeds = first_layer == 0, heads = last_layer + 1 == m->n_layers;
    if (embeds)
        list_tensor (&list, m->token_embedding);
    list_tensor (&list, m->rope_factors);
    list_tensor (&list, m->rope_factors_long);
    for (uint32_t layer = first_layer; layer <= last_layer; layer++)
        for (unsigned role = 0; role < WL_N_ROLES; role++)
            list_tensor (&list, m->tensors[layer][role]);
    if (heads) {
        list_tensor (&list, m->output_norm);
        list_tensor (&list, m->output_norm_bias);
        list_tensor (&list, m->output_bias);
        if (!embeds || m->output != m->token_embedding)
            list_tensor (&list, m->output);
    }
    return list.count;
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

uint64_t wl_model_touched_bytes (const wl_model *model, uint32_t layer)
{
    uint64_t bytes = 0;
    for (unsigned role = 0; role < WL_N_ROLES; role++) {
        const wl_tensor *t = model->tensors[layer][role];
        if (t)
            bytes +=
                role_shapes[role].depth == EXPERTS ? t->bytes / model->n_experts * model->n_experts_used : t->bytes;
    }
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
