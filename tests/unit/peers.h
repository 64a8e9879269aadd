/* What tests of links share: a model small enough to write here, control messages in and out, and frames that no peer of ours would send. */
#ifndef TESTS_PEERS_H
#define TESTS_PEERS_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gguf_builder.h"
#include "proto/wire.h"

/* -- a model ---------------------------------------------------------------------------------------------------------------------- */

typedef struct model_shape {
    uint32_t n_layers, d_model, d_ff, n_heads, n_kv_heads, n_vocab;
} model_shape;

static inline void add_matrix (gguf_builder *g, const char *name, uint64_t columns, uint64_t rows)
{
    const uint64_t dims[2] = {columns, rows};
    g->data_bytes = (g->data_bytes + 31) / 32 * 32;
    add_tensor (g, name, 0, rows ? 2 : 1, dims, g->data_bytes);
    g->data_bytes += columns * (rows ? rows : 1) * sizeof (float);
}

/* A llama of this shape with f32 weights: small random ones, or all zeros, which need no disk and no time to write. */
static inline bool write_model (const char *path, const model_shape *m, bool zeros)
{
    gguf_builder g = new_builder ();
    char name[64];
    uint64_t q = m->d_model, kv = m->d_model / m->n_heads * m->n_kv_heads;
    const float epsilon = 1e-5f;
    add_text (&g, "general.architecture", "llama");
    add_u32 (&g, "llama.block_count", m->n_layers);
    add_u32 (&g, "llama.embedding_length", m->d_model);
    add_u32 (&g, "llama.feed_forward_length", m->d_ff);
    add_u32 (&g, "llama.attention.head_count", m->n_heads);
    add_u32 (&g, "llama.attention.head_count_kv", m->n_kv_heads);
    add_value (&g, "llama.attention.layer_norm_rms_epsilon", 6, &epsilon, sizeof epsilon);
    add_matrix (&g, "token_embd.weight", m->d_model, m->n_vocab);
    add_matrix (&g, "output_norm.weight", m->d_model, 0);
    for (uint32_t layer = 0; layer < m->n_layers; layer++) {
        const struct {
            const char *suffix;
            uint64_t columns, rows;
        } tensors[] = {
            {"attn_norm", m->d_model, 0},      {"attn_q", m->d_model, q},       {"attn_k", m->d_model, kv},
            {"attn_v", m->d_model, kv},        {"attn_output", q, m->d_model},  {"ffn_norm", m->d_model, 0},
            {"ffn_gate", m->d_model, m->d_ff}, {"ffn_up", m->d_model, m->d_ff}, {"ffn_down", m->d_ff, m->d_model}};
        for (size_t i = 0; i < sizeof tensors / sizeof tensors[0]; i++) {
            snprintf (name, sizeof name, "blk.%u.%s.weight", layer, tensors[i].suffix);
            add_matrix (&g, name, tensors[i].columns, tensors[i].rows);
        }
    }
    size_t data_bytes = g.data_bytes, length;
    if (zeros)
        g.data_bytes = 1; /* aligns the header; the rest is a hole */
    uint8_t *file = build (&g, &length);
    size_t header = length - (zeros ? 1 : data_bytes);
    for (size_t at = header; !zeros && at + sizeof (float) <= length; at += sizeof (float)) {
        float value = ((float) (at * 2654435761u >> 8 & 0xffff) / 65536.0f - 0.5f) * 0.2f;
        memcpy (file + at, &value, sizeof value);
    }
    FILE *out = fopen (path, "wb");
    bool ok = out && fwrite (file, 1, zeros ? header : length, out) == (zeros ? header : length) && fflush (out) == 0 &&
              ftruncate (fileno (out), (off_t) (header + data_bytes)) == 0;
    if (out)
        fclose (out);
    free (file);
    return ok;
}

/* -- control messages ---------------------------------------------------------------------------------------------------------------- */

/* Sends { .kind = …, .member = &message }. */
#define SEND_CONTROL(link, peer, KIND, member_name, message)     \
    do {                                                         \
        Woolly__Control control_ = WOOLLY__CONTROL__INIT;        \
        wl_error err_ = {0};                                     \
        control_.kind_case = WOOLLY__CONTROL__KIND_##KIND;       \
        control_.member_name = (message);                        \
        if (!wl_control_send ((link), (peer), &control_, &err_)) \
            fail_msg ("%s", err_.text);                          \
    } while (0)

/* The next message of this kind; others are passed over. NULL when none came in time. */
static inline Woolly__Control *await_control (zsock_t *link, zframe_t **peer, Woolly__Control__KindCase kind,
                                              int timeout_ms)
{
    int64_t deadline = zclock_mono () + timeout_ms;
    for (;;) {
        wl_error err = {0};
        zframe_t *from = NULL;
        int64_t left = deadline - zclock_mono ();
        Woolly__Control *message = left > 0 ? wl_control_receive (link, &from, (int) left, &err) : NULL;
        if (message && message->kind_case == kind) {
            if (peer) {
                zframe_destroy (peer);
                *peer = from;
            } else {
                zframe_destroy (&from);
            }
            return message;
        }
        zframe_destroy (&from);
        if (!message && left <= 0)
            return NULL;
        wl_control_free (&message);
    }
}

/* -- what is malformed ------------------------------------------------------------------------------------------------------------------ */

/* One message of these frames, to `peer` if the link is a ROUTER. */
static inline void send_raw (zsock_t *link, zframe_t *peer, const char *const *frames, const size_t *lengths, size_t n)
{
    void *socket = zsock_resolve (link);
    if (peer)
        zmq_send (socket, zframe_data (peer), zframe_size (peer), ZMQ_SNDMORE);
    for (size_t i = 0; i < n; i++)
        zmq_send (socket, frames[i], lengths[i], i + 1 < n ? ZMQ_SNDMORE : 0);
}

/* Many kinds of nonsense: empty, random, cut short, too many frames. `valid` is a sound message to spoil. */
static inline void send_nonsense (zsock_t *link, zframe_t *peer, const uint8_t *valid, size_t valid_length)
{
    uint32_t random = 12345;
    for (int i = 0; i < 300; i++) {
        char noise[3][64];
        const char *frames[3] = {noise[0], noise[1], noise[2]};
        size_t lengths[3];
        for (size_t f = 0; f < 3; f++) {
            random = random * 1664525 + 1013904223;
            lengths[f] = random >> 16 & 63;
            for (size_t at = 0; at < lengths[f]; at++) {
                random = random * 1664525 + 1013904223;
                noise[f][at] = (char) (random >> 24);
            }
        }
        send_raw (link, peer, frames, lengths, 1 + (size_t) i % 3);
    }
    for (size_t cut = 0; cut < valid_length; cut++)
        send_raw (link, peer, (const char *[]){(const char *) valid}, (const size_t[]){cut}, 1);
}

/* -- the process: set-up and tear-down of a group of tests ----------------------------------------------------------------------------- */

static inline int start_links (void **state)
{
    (void) state;
    wl_link_start_process ();
    return 0;
}

static inline int end_links (void **state)
{
    (void) state;
    wl_link_end_process ();
    return 0;
}

#endif
