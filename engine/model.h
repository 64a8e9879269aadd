/* What a GGUF file's metadata says about a transformer: hyperparameters and the row of the architecture table it follows.
 *
 * An architecture is data: model.c holds one row per name, saying which tensors a layer has, how RoPE pairs elements, which activation and
 * norms it uses, and how scales and windows are found. The forward pass (stage.c) only reads this struct.
 *
 * A wl_model is immutable; any thread may read it. It needs the header of the file only, not the tensor data. */
#ifndef WL_ENGINE_MODEL_H
#define WL_ENGINE_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "error.h"
#include "gguf.h"

/* The tensors a layer may have; blk.N.<suffix>. */
typedef enum wl_role {
    WL_ROLE_ATTN_NORM,
    WL_ROLE_ATTN_Q,
    WL_ROLE_ATTN_K,
    WL_ROLE_ATTN_V,
    WL_ROLE_ATTN_Q_BIAS,
    WL_ROLE_ATTN_K_BIAS,
    WL_ROLE_ATTN_V_BIAS,
    WL_ROLE_ATTN_Q_NORM,
    WL_ROLE_ATTN_K_NORM,
    WL_ROLE_ATTN_OUTPUT,
    WL_ROLE_ATTN_POST_NORM,
    WL_ROLE_FFN_NORM,
    WL_ROLE_FFN_GATE,
    WL_ROLE_FFN_UP,
    WL_ROLE_FFN_DOWN,
    WL_ROLE_FFN_POST_NORM,
    WL_N_ROLES
} wl_role;

typedef enum wl_rope_kind { WL_ROPE_ADJACENT, WL_ROPE_HALVES } wl_rope_kind;
typedef enum wl_activation_fn { WL_SILU, WL_GELU } wl_activation_fn;

typedef struct wl_layer_plan {
    uint32_t window; /* sliding window in positions; 0: full attention */
    bool local_rope; /* uses rope_base_local */
} wl_layer_plan;

typedef struct wl_model {
    char architecture[32];
    char name[96]; /* general.name, or the architecture; printable */
    uint32_t n_layers, d_model, d_ff, n_heads, n_kv_heads, head_dim, n_vocab, context_length;
    wl_rope_kind rope_kind;
    wl_activation_fn activation;
    uint32_t rope_dims; /* leading elements of a head that rotate */
    float rope_base, rope_base_local;
    float rope_scale; /* positions are multiplied by it (linear scaling); 1: none */
    float norm_eps;
    float embedding_scale, residual_scale, attention_scale;
    float logit_scale; /* logits are multiplied by it */
    const wl_tensor *token_embedding, *output_norm;
    const wl_tensor *output;                 /* the head's matrix; token_embedding when tied */
    const wl_tensor *rope_factors;           /* per-pair divisors of the frequencies; NULL: none */
    const wl_tensor *(*tensors)[WL_N_ROLES]; /* [n_layers][role]; NULL where the layer has none */
    wl_layer_plan *layers;                   /* [n_layers] */
} wl_model;

/* Reads and checks everything, shapes and types of all tensors included, so that a stage can be built from it without further doubt:
 * WL_ERROR_INPUT names the missing key, the unknown architecture (listing the known ones), the tensor of a wrong shape, the tensor whose type
 * Woolly cannot compute with, a tensor that the architecture's row does not know. `gguf` must outlive the model. A vocabulary-only
 * file fails. */
wl_model *wl_model_new (const wl_gguf *gguf, wl_error *err);
void wl_model_free (wl_model **model);

/* Names of the table's rows, comma-separated. */
const char *wl_model_architectures (void);

/* Bytes of the weights of one layer, of the embedding and of the head, as stored in the file and (the tiles being of the same size, but for
 * padding) in a stage's memory. */
uint64_t wl_model_layer_bytes (const wl_model *model, uint32_t layer);
uint64_t wl_model_embedding_bytes (const wl_model *model);
uint64_t wl_model_head_bytes (const wl_model *model);
/* Bytes of KV cache that one position takes in one layer (f16). */
uint64_t wl_model_kv_bytes (const wl_model *model);

#endif
