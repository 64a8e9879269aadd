/* The rows; see architectures.h. Sources: the papers and model cards of the architectures, and the tensor and key names that GGUF files carry
 * (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md). */
#include "architectures.h"

#include <stdio.h>
#include <string.h>

const role_shape role_shapes[WL_N_ROLES] = {
    [WL_ROLE_ATTN_NORM] = {"attn_norm.weight", D_MODEL, ONE, ONE},
    [WL_ROLE_ATTN_NORM_BIAS] = {"attn_norm.bias", D_MODEL, ONE, ONE},
    [WL_ROLE_ATTN_QKV] = {"attn_qkv.weight", D_MODEL, QKV_ROWS, ONE},
    [WL_ROLE_ATTN_Q] = {"attn_q.weight", D_MODEL, Q_ROWS, ONE},
    [WL_ROLE_ATTN_K] = {"attn_k.weight", D_MODEL, KV_ROWS, ONE},
    [WL_ROLE_ATTN_V] = {"attn_v.weight", D_MODEL, KV_ROWS, ONE},
    [WL_ROLE_ATTN_QKV_BIAS] = {"attn_qkv.bias", QKV_ROWS, ONE, ONE},
    [WL_ROLE_ATTN_Q_BIAS] = {"attn_q.bias", Q_ROWS, ONE, ONE},
    [WL_ROLE_ATTN_K_BIAS] = {"attn_k.bias", KV_ROWS, ONE, ONE},
    [WL_ROLE_ATTN_V_BIAS] = {"attn_v.bias", KV_ROWS, ONE, ONE},
    [WL_ROLE_ATTN_Q_NORM] = {"attn_q_norm.weight", HEAD, ONE, ONE}, /* or as qk_norm says */
    [WL_ROLE_ATTN_K_NORM] = {"attn_k_norm.weight", HEAD, ONE, ONE}, /* likewise */
    [WL_ROLE_ATTN_SINKS] = {"attn_sinks.weight", HEADS, ONE, ONE},
    [WL_ROLE_ATTN_OUTPUT] = {"attn_output.weight", Q_ROWS, D_MODEL, ONE},
    [WL_ROLE_ATTN_OUTPUT_BIAS] = {"attn_output.bias", D_MODEL, ONE, ONE},
    [WL_ROLE_ATTN_POST_NORM] = {"post_attention_norm.weight", D_MODEL, ONE, ONE},
    [WL_ROLE_FFN_NORM] = {"ffn_norm.weight", D_MODEL, ONE, ONE},
    [WL_ROLE_FFN_NORM_BIAS] = {"ffn_norm.bias", D_MODEL, ONE, ONE},
    [WL_ROLE_FFN_GATE_UP] = {"ffn_up.weight", D_MODEL, TWICE_FF, ONE},
    [WL_ROLE_FFN_GATE] = {"ffn_gate.weight", D_MODEL, FF, ONE},
    [WL_ROLE_FFN_UP] = {"ffn_up.weight", D_MODEL, FF, ONE},
    [WL_ROLE_FFN_GATE_BIAS] = {"ffn_gate.bias", FF, ONE, ONE},
    [WL_ROLE_FFN_UP_BIAS] = {"ffn_up.bias", FF, ONE, ONE},
    [WL_ROLE_FFN_DOWN] = {"ffn_down.weight", FF, D_MODEL, ONE},
    [WL_ROLE_FFN_DOWN_BIAS] = {"ffn_down.bias", D_MODEL, ONE, ONE},
    [WL_ROLE_FFN_POST_NORM] = {"post_ffw_norm.weight", D_MODEL, ONE, ONE},
    [WL_ROLE_ROUTER] = {"ffn_gate_inp.weight", D_MODEL, EXPERTS, ONE},
    [WL_ROLE_ROUTER_BIAS] = {"ffn_gate_inp.bias", EXPERTS, ONE, ONE},
    [WL_ROLE_EXPERT_GATE] = {"ffn_gate_exps.weight", D_MODEL, FF, EXPERTS},
    [WL_ROLE_EXPERT_UP] = {"ffn_up_exps.weight", D_MODEL, FF, EXPERTS},
    [WL_ROLE_EXPERT_DOWN] = {"ffn_down_exps.weight", FF, D_MODEL, EXPERTS},
    [WL_ROLE_EXPERT_GATE_BIAS] = {"ffn_gate_exps.bias", FF, EXPERTS, ONE},
    [WL_ROLE_EXPERT_UP_BIAS] = {"ffn_up_exps.bias", FF, EXPERTS, ONE},
    [WL_ROLE_EXPERT_DOWN_BIAS] = {"ffn_down_exps.bias", D_MODEL, EXPERTS, ONE},
    [WL_ROLE_SHARED_GATE] = {"ffn_gate_shexp.weight", D_MODEL, SHARED_FF, ONE},
    [WL_ROLE_SHARED_UP] = {"ffn_up_shexp.weight", D_MODEL, SHARED_FF, ONE},
    [WL_ROLE_SHARED_DOWN] = {"ffn_down_shexp.weight", SHARED_FF, D_MODEL, ONE},
};

#define QKV_BIASES (BIT (ATTN_Q_BIAS) | BIT (ATTN_K_BIAS) | BIT (ATTN_V_BIAS))
#define QK_NORMS (BIT (ATTN_Q_NORM) | BIT (ATTN_K_NORM))
#define PRE_NORMS (BIT (ATTN_NORM) | BIT (FFN_NORM))
#define PRE_NORM_BIASES (BIT (ATTN_NORM_BIAS) | BIT (FFN_NORM_BIAS))
#define POST_NORMS (BIT (ATTN_POST_NORM) | BIT (FFN_POST_NORM))
#define OUTPUT BIT (ATTN_OUTPUT)
#define GATED (BIT (FFN_GATE) | BIT (FFN_UP) | BIT (FFN_DOWN))
#define GATED_BIASES (BIT (FFN_GATE_BIAS) | BIT (FFN_UP_BIAS) | BIT (FFN_DOWN_BIAS))
#define FUSED_GATED (BIT (FFN_GATE_UP) | BIT (FFN_DOWN))
#define MIXTURE (BIT (ROUTER) | BIT (EXPERT_GATE) | BIT (EXPERT_UP) | BIT (EXPERT_DOWN))
#define MIXTURE_BIASES (BIT (ROUTER_BIAS) | BIT (EXPERT_GATE_BIAS) | BIT (EXPERT_UP_BIAS) | BIT (EXPERT_DOWN_BIAS))
#define SHARED (BIT (SHARED_GATE) | BIT (SHARED_UP) | BIT (SHARED_DOWN))

static const architecture architectures[] = {
    /* Llama 1 to 3, Mistral, Mixtral, SmolLM2 and others that share their form. */
    {.name = "llama",
     .required = PRE_NORMS | OUTPUT,
     .optional = QKV_BIASES | BIT (ATTN_OUTPUT_BIAS) | GATED_BIASES,
     .dense = GATED,
     .experts = MIXTURE},
    {.name = "granite",
     .required = PRE_NORMS | OUTPUT,
     .optional = QKV_BIASES | BIT (ATTN_OUTPUT_BIAS) | GATED_BIASES,
     .dense = GATED,
     .scales = true},
    {.name = "granitemoe",
     .required = PRE_NORMS | OUTPUT,
     .optional = BIT (ATTN_OUTPUT_BIAS) | SHARED,
     .experts = MIXTURE,
     .scales = true},
    {.name = "qwen2", .required = PRE_NORMS | OUTPUT | QKV_BIASES, .dense = GATED, .rope_kind = WL_ROPE_HALVES},
    {.name = "qwen3",
     .required = PRE_NORMS | OUTPUT | QK_NORMS,
     .optional = QKV_BIASES,
     .dense = GATED,
     .rope_kind = WL_ROPE_HALVES},
    {.name = "qwen3moe", .required = PRE_NORMS | OUTPUT | QK_NORMS, .experts = MIXTURE, .rope_kind = WL_ROPE_HALVES},
    {.name = "gemma2",
     .required = PRE_NORMS | OUTPUT | POST_NORMS,
     .dense = GATED,
     .rope_kind = WL_ROPE_HALVES,
     .activation = WL_GELU,
     .embedding_root = true,
     .softcaps = true,
     .attention_softcap = 50.0f,
     .logit_softcap = 30.0f,
     .global_every = 2,
     .window = 4096,
     .width_scale_layers = 46},
    {.name = "gemma3",
     .required = PRE_NORMS | OUTPUT | QK_NORMS | POST_NORMS,
     .dense = GATED,
     .rope_kind = WL_ROPE_HALVES,
     .activation = WL_GELU,
     .embedding_root = true,
     .softcaps = true,
     .global_every = 6,
     .local_rope = true,
     .local_rope_base = 10000.0f,
     .width_scale_layers = 62},
    {.name = "phi3",
     .required = PRE_NORMS | OUTPUT,
     .dense = FUSED_GATED,
     .rope_kind = WL_ROPE_HALVES,
     .global_every = ALL_WINDOWED},
    {.name = "smollm3", .required = PRE_NORMS | OUTPUT, .dense = GATED, .no_rope_every = 4},
    /* OLMo 2; OLMo 3 is the same with windows. */
    {.name = "olmo2",
     .required = OUTPUT | QK_NORMS | POST_NORMS,
     .dense = GATED,
     .rope_kind = WL_ROPE_HALVES,
     .qk_norm = WL_QK_NORM_ALL_HEADS,
     .global_every = 4,
     .local_rope = true},
    {.name = "starcoder2",
     .required = PRE_NORMS | PRE_NORM_BIASES | OUTPUT,
     .optional = QKV_BIASES | BIT (ATTN_OUTPUT_BIAS) | BIT (FFN_UP_BIAS) | BIT (FFN_DOWN_BIAS),
     .dense = BIT (FFN_UP) | BIT (FFN_DOWN),
     .norm_kind = WL_NORM_LAYER,
     .rope_kind = WL_ROPE_HALVES,
     .activation = WL_GELU_UNGATED},
    {.name = "command-r",
     .required = BIT (ATTN_NORM) | OUTPUT,
     .optional = QKV_BIASES | QK_NORMS,
     .qk_norm = WL_QK_NORM_EACH_HEAD,
     .dense = GATED,
     .norm_kind = WL_NORM_LAYER,
     .logit_multiplier = true,
     .parallel = true},
    {.name = "cohere2",
     .required = BIT (ATTN_NORM) | OUTPUT,
     .optional = QKV_BIASES,
     .dense = GATED,
     .norm_kind = WL_NORM_LAYER,
     .logit_multiplier = true,
     .parallel = true,
     .global_every = 4,
     .global_without_rope = true},
    {.name = "glm4", .required = PRE_NORMS | OUTPUT | POST_NORMS, .optional = QKV_BIASES, .dense = FUSED_GATED},
    {.name = "gpt-oss",
     .required = PRE_NORMS | OUTPUT | QKV_BIASES | BIT (ATTN_OUTPUT_BIAS) | BIT (ATTN_SINKS),
     .experts = MIXTURE | MIXTURE_BIASES,
     .rope_kind = WL_ROPE_HALVES,
     .activation = WL_SWIGLU_CLAMPED,
     .post_is_ffn_norm = true,
     .yarn_unrounded = true,
     .global_every = 2},
};
enum { N_ARCHITECTURES = sizeof architectures / sizeof architectures[0] };

const architecture *find_architecture (wl_text name)
{
    for (size_t i = 0; i < N_ARCHITECTURES; i++)
        if (strlen (architectures[i].name) == name.length &&
            memcmp (architectures[i].name, name.data, name.length) == 0)
            return &architectures[i];
    return NULL;
}

void wl_model_architectures (char *out, size_t size)
{
    size_t length = 0;
    out[0] = '\0';
    for (size_t i = 0; i < N_ARCHITECTURES && length < size; i++)
        length += (size_t) snprintf (out + length, size - length, "%s%s", i ? ", " : "", architectures[i].name);
}

bool wl_role_is_matrix (wl_role role)
{
    switch (role) {
    case WL_ROLE_ATTN_QKV:
    case WL_ROLE_ATTN_Q:
    case WL_ROLE_ATTN_K:
    case WL_ROLE_ATTN_V:
    case WL_ROLE_ATTN_OUTPUT:
    case WL_ROLE_FFN_GATE_UP:
    case WL_ROLE_FFN_GATE:
    case WL_ROLE_FFN_UP:
    case WL_ROLE_FFN_DOWN:
    case WL_ROLE_ROUTER:
    case WL_ROLE_EXPERT_GATE:
    case WL_ROLE_EXPERT_UP:
    case WL_ROLE_EXPERT_DOWN:
    case WL_ROLE_SHARED_GATE:
    case WL_ROLE_SHARED_UP:
    case WL_ROLE_SHARED_DOWN:
        return true;
    default:
        return false;
    }
}
