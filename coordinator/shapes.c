/* Models by shape alone; see shapes.h. */
#include "shapes.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/file_io.h"
#include "engine/gguf.h"
#include "engine/memory.h"
#include "text_out.h"

enum { ALIGNMENT = 32 };

typedef struct shape {
    const char *name, *architecture;
    uint32_t n_layers, d_model, d_ff, n_heads, n_kv_heads, head_dim, n_vocab, context;
    float rope_base;
    bool tied, qkv_bias, qk_norm;
} shape;

/* From the models' published configurations. */
static const shape shapes[] = {
    {"granite-3.3-8b", "granite", 40, 4096, 12800, 32, 8, 128, 49159, 131072, 1e7f, true, false, false},
    {"granite-3.3-2b", "granite", 40, 2048, 8192, 32, 8, 64, 49159, 131072, 1e7f, true, false, false},
    {"llama-3.1-8b", "llama", 32, 4096, 14336, 32, 8, 128, 128256, 131072, 5e5f, false, false, false},
    {"llama-3.3-70b", "llama", 80, 8192, 28672, 64, 8, 128, 128256, 131072, 5e5f, false, false, false},
    {"llama-3.1-405b", "llama", 126, 16384, 53248, 128, 8, 128, 128256, 131072, 5e5f, false, false, false},
    {"qwen2.5-1.5b", "qwen2", 28, 1536, 8960, 12, 2, 128, 151936, 32768, 1e6f, true, true, false},
    {"qwen3-8b", "qwen3", 36, 4096, 12288, 32, 8, 128, 151936, 40960, 1e6f, false, false, true},
    {"smollm2-135m", "llama", 30, 576, 1536, 9, 3, 64, 49152, 8192, 1e5f, true, false, false},
};
enum { N_SHAPES = sizeof shapes / sizeof shapes[0] };

/* File types: what most matrices have, and what the more sensitive ones have (value and down projections of some layers; the head). */
static const struct {
    const char *name;
    wl_type usual, better, head;
} file_types[] = {
    {"F16", WL_TYPE_F16, WL_TYPE_F16, WL_TYPE_F16},       {"BF16", WL_TYPE_BF16, WL_TYPE_BF16, WL_TYPE_BF16},
    {"Q8_0", WL_TYPE_Q8_0, WL_TYPE_Q8_0, WL_TYPE_Q8_0},   {"Q4_0", WL_TYPE_Q4_0, WL_TYPE_Q4_0, WL_TYPE_Q6_K},
    {"Q4_1", WL_TYPE_Q4_1, WL_TYPE_Q4_1, WL_TYPE_Q6_K},   {"Q4_K_S", WL_TYPE_Q4_K, WL_TYPE_Q4_K, WL_TYPE_Q6_K},
    {"Q4_K_M", WL_TYPE_Q4_K, WL_TYPE_Q6_K, WL_TYPE_Q6_K}, {"Q5_K_M", WL_TYPE_Q5_K, WL_TYPE_Q6_K, WL_TYPE_Q6_K},
    {"Q6_K", WL_TYPE_Q6_K, WL_TYPE_Q6_K, WL_TYPE_Q6_K},
};
enum { N_TYPES = sizeof file_types / sizeof file_types[0] };

const char *wl_shape_names (void)
{
    return "granite-3.3-8b, granite-3.3-2b, llama-3.1-8b, llama-3.3-70b, llama-3.1-405b, qwen2.5-1.5b, qwen3-8b, "
           "smollm2-135m";
}

const char *wl_shape_types (void)
{
    return "F16, BF16, Q8_0, Q4_0, Q4_1, Q4_K_S, Q4_K_M, Q5_K_M, Q6_K";
}

/* -- writing GGUF ------------------------------------------------------------------------------------------------------------------------------- */

typedef struct writer {
    wl_buffer pairs, tensors;
    uint64_t n_pairs, n_tensors;
    uint64_t data_bytes; /* of the tensors so far, aligned */
    wl_buffer ones; /* offsets of the norm vectors, as (offset, elements) pairs of uint64: they are filled with 1 */
    wl_error *err;
    bool failed;
} writer;

static void put (writer *w, wl_buffer *to, const void *bytes, size_t length)
{
    w->failed = w->failed || !wl_buffer_add (to, bytes, length, w->err);
}

static void put_u32 (writer *w, wl_buffer *to, uint32_t value)
{
    put (w, to, &value, sizeof value);
}

static void put_u64 (writer *w, wl_buffer *to, uint64_t value)
{
    put (w, to, &value, sizeof value);
}

static void put_text (writer *w, wl_buffer *to, const char *text)
{
    put_u64 (w, to, strlen (text));
    put (w, to, text, strlen (text));
}

static void put_key (writer *w, const char *prefix, const char *key, wl_value_type type)
{
    char whole[128];
    snprintf (whole, sizeof whole, "%s.%s", prefix, key);
    put_text (w, &w->pairs, whole);
    put_u32 (w, &w->pairs, type);
    w->n_pairs++;
}

static void pair_u32 (writer *w, const char *prefix, const char *key, uint32_t value)
{
    put_key (w, prefix, key, WL_VALUE_UINT32);
    put_u32 (w, &w->pairs, value);
}

static void pair_f32 (writer *w, const char *prefix, const char *key, float value)
{
    put_key (w, prefix, key, WL_VALUE_FLOAT32);
    put (w, &w->pairs, &value, sizeof value);
}

static void pair_text (writer *w, const char *prefix, const char *key, const char *value)
{
    put_key (w, prefix, key, WL_VALUE_STRING);
    put_text (w, &w->pairs, value);
}

static void tensor (writer *w, const char *name, wl_type type, uint64_t columns, uint64_t rows)
{
    put_text (w, &w->tensors, name);
    put_u32 (w, &w->tensors, rows ? 2 : 1);
    put_u64 (w, &w->tensors, columns);
    if (rows)
        put_u64 (w, &w->tensors, rows);
    put_u32 (w, &w->tensors, type);
    put_u64 (w, &w->tensors, w->data_bytes);
    if (!rows) {
        put_u64 (w, &w->ones, w->data_bytes);
        put_u64 (w, &w->ones, columns);
    }
    uint64_t bytes = columns / wl_type_block_elements (type) * wl_type_block_bytes (type) * (rows ? rows : 1);
    w->data_bytes += (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    w->n_tensors++;
}

/* Types whose blocks are wider than a row fall back, as quantizers do, to Q8_0. */
static wl_type fitting (wl_type type, uint64_t columns)
{
    return columns % wl_type_block_elements (type) == 0 ? type : WL_TYPE_Q8_0;
}

static void layer_tensor (writer *w, uint32_t layer, const char *suffix, wl_type type, uint64_t columns, uint64_t rows)
{
    char name[64];
    snprintf (name, sizeof name, "blk.%u.%s", layer, suffix);
    tensor (w, name, fitting (type, columns), columns, rows);
}

static void describe (writer *w, const shape *s, wl_type usual, wl_type better, wl_type head)
{
    const char *a = s->architecture;
    pair_text (w, "general", "architecture", a);
    pair_text (w, "general", "name", s->name);
    pair_u32 (w, a, "block_count", s->n_layers);
    pair_u32 (w, a, "context_length", s->context);
    pair_u32 (w, a, "embedding_length", s->d_model);
    pair_u32 (w, a, "feed_forward_length", s->d_ff);
    pair_u32 (w, a, "attention.head_count", s->n_heads);
    pair_u32 (w, a, "attention.head_count_kv", s->n_kv_heads);
    pair_u32 (w, a, "attention.key_length", s->head_dim);
    pair_u32 (w, a, "attention.value_length", s->head_dim);
    pair_u32 (w, a, "rope.dimension_count", s->head_dim);
    pair_f32 (w, a, "rope.freq_base", s->rope_base);
    pair_f32 (w, a, "attention.layer_norm_rms_epsilon", 1e-5f);

    uint64_t d = s->d_model, q = (uint64_t) s->n_heads * s->head_dim, kv = (uint64_t) s->n_kv_heads * s->head_dim;
    tensor (w, "token_embd.weight", fitting (s->tied ? head : usual, d), d, s->n_vocab);
    tensor (w, "output_norm.weight", WL_TYPE_F32, d, 0);
    if (!s->tied)
        tensor (w, "output.weight", fitting (head, d), d, s->n_vocab);
    for (uint32_t i = 0; i < s->n_layers; i++) {
        /* the first and last eighth of the layers, and every third between, get the better type */
        uint32_t eighth = s->n_layers / 8;
        wl_type mixed = i < eighth || i >= 7 * eighth || (i - eighth) % 3 == 2 ? better : usual;
        layer_tensor (w, i, "attn_norm.weight", WL_TYPE_F32, d, 0);
        layer_tensor (w, i, "attn_q.weight", usual, d, q);
        layer_tensor (w, i, "attn_k.weight", usual, d, kv);
        layer_tensor (w, i, "attn_v.weight", mixed, d, kv);
        layer_tensor (w, i, "attn_output.weight", usual, q, d);
        layer_tensor (w, i, "ffn_norm.weight", WL_TYPE_F32, d, 0);
        layer_tensor (w, i, "ffn_gate.weight", usual, d, s->d_ff);
        layer_tensor (w, i, "ffn_up.weight", usual, d, s->d_ff);
        layer_tensor (w, i, "ffn_down.weight", mixed, s->d_ff, d);
        if (s->qkv_bias) {
            layer_tensor (w, i, "attn_q.bias", WL_TYPE_F32, q, 0);
            layer_tensor (w, i, "attn_k.bias", WL_TYPE_F32, kv, 0);
            layer_tensor (w, i, "attn_v.bias", WL_TYPE_F32, kv, 0);
        }
        if (s->qk_norm) {
            layer_tensor (w, i, "attn_q_norm.weight", WL_TYPE_F32, s->head_dim, 0);
            layer_tensor (w, i, "attn_k_norm.weight", WL_TYPE_F32, s->head_dim, 0);
        }
    }
}

static bool write_file (writer *w, const char *path)
{
    wl_buffer header = {0};
    float *ones = NULL;
    int file = -1;
    bool ok = false;
    put (w, &header, "GGUF", 4);
    put_u32 (w, &header, 3);
    put_u64 (w, &header, w->n_tensors);
    put_u64 (w, &header, w->n_pairs);
    put (w, &header, w->pairs.data, w->pairs.length);
    put (w, &header, w->tensors.data, w->tensors.length);
    if (w->failed)
        goto done;
    uint64_t start = (header.length + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    file = open (path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    bool written = file >= 0 && ftruncate (file, (off_t) (start + w->data_bytes)) == 0 &&
                   wl_write_at (file, header.data, header.length, 0);
    const uint64_t *vectors = (const uint64_t *) (const void *) w->ones.data;
    for (size_t i = 0; written && i < w->ones.length / sizeof *vectors; i += 2) {
        free (ones);
        ones = wl_new (vectors[i + 1], sizeof *ones, w->err);
        if (!ones)
            goto done;
        for (uint64_t j = 0; j < vectors[i + 1]; j++)
            ones[j] = 1.0f;
        written = wl_write_at (file, ones, vectors[i + 1] * sizeof *ones, start + vectors[i]);
    }
    ok = written || wl_fail (w->err, WL_ERROR_INTERNAL, "%s: cannot be written: %s", path, strerror (errno));
done:
    if (file >= 0)
        close (file);
    free (ones);
    free (header.data);
    return ok;
}

bool wl_shape_write (const char *path, const char *name, const char *type, wl_error *err)
{
    size_t s = 0, t = 0;
    while (s < N_SHAPES && strcmp (shapes[s].name, name) != 0)
        s++;
    while (t < N_TYPES && strcmp (file_types[t].name, type) != 0)
        t++;
    if (s == N_SHAPES)
        return wl_fail (err, WL_ERROR_USAGE, "--shape %s is not known: choose one of %s", name, wl_shape_names ());
    if (t == N_TYPES)
        return wl_fail (err, WL_ERROR_USAGE, "--type %s is not known: choose one of %s", type, wl_shape_types ());
    writer w = {.err = err};
    describe (&w, &shapes[s], file_types[t].usual, file_types[t].better, file_types[t].head);
    bool ok = write_file (&w, path);
    free (w.pairs.data);
    free (w.tensors.data);
    free (w.ones.data);
    return ok;
}

char *wl_shape_temporary (const char *name, const char *type, wl_error *err)
{
    char path[1024];
    const char *folder = getenv ("TMPDIR");
    snprintf (path, sizeof path, "%s/woolly-shape-XXXXXX", folder && *folder ? folder : "/tmp");
    int file = mkstemp (path);
    if (file < 0) {
        wl_fail (err, WL_ERROR_INTERNAL, "%s: no temporary file can be made there: set TMPDIR", path);
        return NULL;
    }
    close (file);
    char *made = wl_shape_write (path, name, type, err) ? wl_copy_text (path, strlen (path), err) : NULL;
    if (!made)
        unlink (path);
    return made;
}
