/* The architecture table: what model.c reads of a file, by the name in general.architecture. Private to the model's files.
 *
 * To add an architecture, add a row. A trait that no row has yet is a new field of the row and of wl_model, read by the forward pass; never a
 * comparison of names. */
#ifndef WL_ENGINE_ARCHITECTURES_H
#define WL_ENGINE_ARCHITECTURES_H

#include "model.h"

/* How many elements a side of a layer's tensor has. */
typedef enum side {
    ONE,
    D_MODEL,
    Q_ROWS,
    KV_ROWS,
    QKV_ROWS,
    HEAD,
    HEADS,
    KV_HEADS,
    FF,
    TWICE_FF,
    SHARED_FF,
    EXPERTS
} side;

typedef struct role_shape {
    const char *suffix;        /* of the tensor's name, behind "blk.N." */
    side columns, rows, depth; /* dims[0], dims[1], dims[2] */
} role_shape;

extern const role_shape role_shapes[WL_N_ROLES];

#define BIT(role) (1ull << WL_ROLE_##role)

typedef struct architecture {
    const char *name;
    /* Bits of roles, apart from q, k, v (or fused qkv), which every layer has, and from the feed-forward part. The biases of q, k and v stand for a fused one too. */
    uint64_t required, optional;
    /* The feed-forward part's roles without and with experts; 0: not this way. */
    uint64_t dense, experts;
    wl_norm_kind norm_kind;
    wl_rope_kind rope_kind;
    wl_activation_fn activation;
    bool scales; /* embedding_scale, residual_scale, attention.scale and logit_scale (a divisor) apply (Granite) */
    bool logit_multiplier;                  /* logit_scale applies, as a factor (Cohere) */
    bool embedding_root;                    /* the embedding is multiplied by sqrt (d_model) */
    bool softcaps;                          /* attn_logit_softcapping and final_logit_softcapping apply */
    float attention_softcap, logit_softcap; /* where the file does not say */
    bool parallel;
    wl_qk_norm qk_norm;
    bool yarn_unrounded;   /* YaRN's ramp begins and ends between pairs (gpt-oss) */
    bool post_is_ffn_norm; /* post_attention_norm is the norm before the feed-forward part */

    /* Sliding windows: of so many layers the last attends to everything, the others through the window (ALL_WINDOWED: all do); 0: none. The file
     * may bring its own pattern. */
    uint32_t global_every;
    uint32_t window;          /* where the file does not say; 0: then there are no windows */
    bool local_rope;          /* windowed layers rotate by rope.freq_base_swa, unscaled */
    float local_rope_base;    /* where the file does not say; 0: as the others */
    bool global_without_rope; /* only windowed layers rotate */
    uint32_t no_rope_every;   /* of so many layers the last does not rotate; 0: all do */
    uint32_t
        width_scale_layers; /* a model of so many layers scales attention by d_model / n_heads in place of head_dim (Gemma 27B) */
} architecture;

enum { ALL_WINDOWED = UINT32_MAX };

/* NULL: no row of that name. */
const architecture *find_architecture (wl_text name);

#endif
