/* What a GGUF file's metadata says about a transformer: hyperparameters and the row of the architecture table it follows.
 *
 * An architecture is data: model.c holds one row per name, saying which tensors a layer has, how RoPE pairs elements, which activation and
 * norms it uses, and how scales and windows are found. The forward pass (stage.c) only reads this struct.
 *
 * A wl_model is immutable; any thread may read it. It needs the header of the file only, not the tensor data. */
#ifndef WL_ENGINE_MODEL_H
#define WL_ENGINE_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "gguf.h"

/* The tensors a layer may have; blk.N.<suffix>. */
typedef enum wl_role {
    WL_ROLE_ATTN_NORM,
    WL_ROLE_ATTN_NORM_BIAS,
    WL_ROLE_ATTN_QKV, /* q, k and v rows one after another, in place of the next three; its bias likewise */
    WL_ROLE_ATTN_Q,
    WL_ROLE_ATTN_K,
    WL_ROLE_ATTN_V,
    WL_ROLE_ATTN_QKV_BIAS,
    WL_ROLE_ATTN_Q_BIAS,
    WL_ROLE_ATTN_K_BIAS,
    WL_ROLE_ATTN_V_BIAS,
    WL_ROLE_ATTN_Q_NORM,
    WL_ROLE_ATTN_K_NORM,
    WL_ROLE_ATTN_SINKS, /* one logit a head that takes part in the softmax and has no value */
    WL_ROLE_ATTN_OUTPUT,
    WL_ROLE_ATTN_OUTPUT_BIAS,
    WL_ROLE_ATTN_POST_NORM,
    WL_ROLE_FFN_NORM,
    WL_ROLE_FFN_NORM_BIAS,
    WL_ROLE_FFN_GATE_UP, /* gate rows, then up rows, in place of the next two */
    WL_ROLE_FFN_GATE,
    WL_ROLE_FFN_UP,
    WL_ROLE_FFN_GATE_BIAS,
    WL_ROLE_FFN_UP_BIAS,
    WL_ROLE_FFN_DOWN,
    WL_ROLE_FFN_DOWN_BIAS,
    WL_ROLE_FFN_POST_NORM,
    WL_ROLE_ROUTER,
    WL_ROLE_ROUTER_BIAS,
    WL_ROLE_EXPERT_GATE, /* [expert][row][column], as the next two */
    WL_ROLE_EXPERT_UP,
    WL_ROLE_EXPERT_DOWN,
    WL_ROLE_EXPERT_GATE_BIAS, /* [expert][row], as the next two */
    WL_ROLE_EXPERT_UP_BIAS,
    WL_ROLE_EXPERT_DOWN_BIAS,
    WL_ROLE_SHARED_GATE, /* an expert that every token passes */
    WL_ROLE_SHARED_UP,
    WL_ROLE_SHARED_DOWN,
    WL_N_ROLES
} wl_role;

/* Whether rows are multiplied with it: [columns, rows] or, for experts, [columns, rows, experts]. Others are vectors that are added or scale. */
bool wl_role_is_matrix (wl_role role);

typedef enum wl_rope_kind { WL_ROPE_ADJACENT, WL_ROPE_HALVES } wl_rope_kind;
/* What the norms of q and k run over, if a layer has them: each head by the same weights, each head by its own, all heads at once. */
typedef enum wl_qk_norm { WL_QK_NORM_HEAD, WL_QK_NORM_EACH_HEAD, WL_QK_NORM_ALL_HEADS } wl_qk_norm;

typedef enum wl_norm_kind { WL_NORM_RMS, WL_NORM_LAYER } wl_norm_kind;

/* What a feed-forward part does with its gate and up rows (or, without a gate, with up alone). */
typedef enum wl_activation_fn {
    WL_SILU,           /* silu (gate) * up */
    WL_GELU,           /* gelu (gate) * up, the tanh form */
    WL_GELU_UNGATED,   /* gelu (up) */
    WL_SWIGLU_CLAMPED, /* g sigmoid (1.702 g) (u + 1) with g = min (gate, 7), u = clamp (up, -7, 7): gpt-oss */
} wl_activation_fn;

typedef enum wl_layer_rope { WL_LAYER_ROPE_GLOBAL, WL_LAYER_ROPE_LOCAL, WL_LAYER_ROPE_NONE } wl_layer_rope;

typedef struct wl_layer_plan {
    uint32_t window;    /* sliding window in positions; 0: full attention */
    wl_layer_rope rope; /* local: rope_base_local and no scaling */
} wl_layer_plan;

/* How positions beyond the training context are brought back into it. */
typedef struct wl_rope_scaling {
    float factor;    /* positions are divided by it (linear), or by it in the slow dimensions (YaRN); 1: none */
    bool yarn;       /* Peng et al. 2023, https://arxiv.org/abs/2309.00071 */
    float magnitude; /* cos and sin are multiplied by it */
    float beta_fast, beta_slow; /* turns over the original context: pairs between them are scaled in part */
    bool unrounded;             /* the ramp begins and ends between pairs */
    uint32_t original_context;  /* positions of training: YaRN's, and the longest context of the short factors */
} wl_rope_scaling;

/* --rope-scaling: what is done in place of the scaling that a file declares. */
typedef enum wl_rope_choice {
    WL_ROPE_AS_DECLARED,
    WL_ROPE_UNSCALED,
    WL_ROPE_LINEAR,
    WL_ROPE_YARN,
    WL_N_ROPE_CHOICES
} wl_rope_choice;

typedef struct wl_rope_order {
    wl_rope_choice choice;
    float factor;     /* of linear and YaRN; 0: context / original context */
    uint32_t context; /* positions that are wanted; 0: what the factor gives */
} wl_rope_order;

typedef struct wl_model {
    char architecture[32];
    char name[96]; /* general.name, or the architecture; printable */
    uint32_t n_layers, d_model, d_ff, n_heads, n_kv_heads, head_dim, n_vocab, context_length;
    uint32_t n_experts, n_experts_used, d_ff_shared; /* 0: dense; else d_ff is one expert's */
    wl_norm_kind norm_kind;
    wl_rope_kind rope_kind;
    wl_activation_fn activation;
    bool parallel; /* attention and feed-forward read the same normed input */
    wl_qk_norm qk_norm;
    uint32_t rope_dims; /* leading elements of a head that rotate */
    float rope_base, rope_base_local;
    wl_rope_scaling rope_scaling;
    wl_rope_order rope_order; /* what it was opened with; context_length follows from it */
    float norm_eps;
    float embedding_scale, residual_scale, attention_scale;
    float expert_scale;                     /* the sum of the experts' results is multiplied by it */
    float logit_scale;                      /* logits are multiplied by it */
    float attention_softcap, logit_softcap; /* x becomes cap tanh (x / cap); 0: none */
    const wl_tensor *token_embedding, *output_norm, *output_norm_bias;
    const wl_tensor *output;       /* the head's matrix; token_embedding when tied */
    const wl_tensor *output_bias;  /* or NULL */
    const wl_tensor *rope_factors; /* per-pair divisors of the frequencies; NULL: none */
    const wl_tensor
        *rope_factors_long; /* the same for contexts beyond rope_scaling.original_context (LongRoPE); NULL: none */
    const wl_tensor *(*tensors)[WL_N_ROLES]; /* [n_layers][role]; NULL where the layer has none */
    wl_layer_plan *layers;                   /* [n_layers] */
} wl_model;

/* Reads and checks everything, shapes and types of all tensors included, so that a stage can be built from it without further doubt:
 * WL_ERROR_INPUT names the missing key, the unknown architecture (listing the known ones), the tensor of a wrong shape, the tensor whose type
 * Woolly cannot compute with, a tensor that the architecture's row does not know. `gguf` must outlive the model. A vocabulary-only
 * file fails. */
wl_model *wl_model_new (const wl_gguf *gguf, wl_error *err);

/* The same with another scaling of RoPE, and the context_length that it gives. YaRN takes beta_fast and beta_slow from the file, or where that has none from the paper. WL_ERROR_USAGE, with the figures:
 * neither factor nor context, or a factor that is not above 1, or does not reach the context; a context that needs no scaling; a model with factors of its own for long contexts (LongRoPE).
 * Any order may come from a peer. */
wl_model *wl_model_new_scaled (const wl_gguf *gguf, const wl_rope_order *order, wl_error *err);

/* "none", "linear" or "yarn"; WL_ERROR_USAGE naming --rope-scaling otherwise. */
bool wl_rope_choice_parse (const char *name, wl_rope_choice *choice, wl_error *err);
void wl_model_free (wl_model **model);

/* Writes the names of the table's rows, comma-separated; what exceeds `size` is cut off. */
void wl_model_architectures (char *out, size_t size);

/* The tensors that a stage of these layers reads, those of the embedding and of the head where it has them, each once: fills at most `room` of `out`, returns how many
 * there are. Whatever stage.c reads from a file must be among them: a worker is sent nothing else. */
size_t wl_model_stage_tensors (const wl_model *model, uint32_t first_layer, uint32_t last_layer, const wl_tensor **out,
                               size_t room);

/* Bytes of the weights of one layer, of the embedding and of the head, as stored in the file and (the tiles being of the same size, but for
 * padding) in a stage's memory. */
uint64_t wl_model_layer_bytes (const wl_model *model, uint32_t layer);
/* The part of them that one token reads: of experts, those it is sent to. */
uint64_t wl_model_touched_bytes (const wl_model *model, uint32_t layer);
uint64_t wl_model_embedding_bytes (const wl_model *model);
uint64_t wl_model_head_bytes (const wl_model *model);

#endif
