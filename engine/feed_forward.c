/* The feed-forward half of a layer: norm, gate and up, activation, down projection; or a mixture of experts (mixture.c). */
#include "feed_forward.h"

/* Adds what attention left in y, then norms and quantizes. */
static void norm_row (wl_stage *s, uint32_t layer_index, uint32_t row, size_t thread)
{
    (void) thread;
    const wl_model *m = s->model;
    const stage_layer *l = &s->layers[layer_index];
    float *h = s->h + row * s->h_stride, *x = s->x + (size_t) row * m->d_model;
    if (m->parallel)
        norm_into (s, h, x, l->vectors[WL_ROLE_ATTN_NORM], l->vectors[WL_ROLE_ATTN_NORM_BIAS]);
    add_residual (s, layer_index, row, WL_ROLE_ATTN_OUTPUT_BIAS, WL_ROLE_ATTN_POST_NORM);
    if (!m->parallel)
        norm_into (s, h, x, l->vectors[WL_ROLE_FFN_NORM], l->vectors[WL_ROLE_FFN_NORM_BIAS]);
    represent_row (s, row, h, m->d_model, l->inputs.normed);
}

/* g sigmoid (1.702 g) (u + 1) of clamped g and u, as silu (1.702 g) * ((u + 1) / 1.702): gpt-oss,
 * https://github.com/openai/gpt-oss (SwiGLU with alpha 1.702 and limit 7). */
static void clamp_gate_up (float *gate, float *up, size_t n)
{
    const float alpha = 1.702f, limit = 7.0f;
    for (size_t i = 0; i < n; i++) {
        float g = gate[i] < limit ? gate[i] : limit;
        float u = up[i] < limit ? up[i] : limit;
        gate[i] = alpha * g;
        up[i] = ((u > -limit ? u : -limit) + 1.0f) / alpha;
    }
}

void activate (const wl_stage *s, float *gate, float *up, size_t n)
{
    const wl_kernels *kernels = s->options.kernels;
    switch (s->model->activation) {
    case WL_SILU:
        kernels->silu_mul (gate, gate, up, n);
        break;
    case WL_GELU:
        kernels->gelu_mul (gate, gate, up, n);
        break;
    case WL_GELU_UNGATED:
        kernels->gelu_mul (gate, gate, s->ones, n);
        break;
    case WL_SWIGLU_CLAMPED:
        clamp_gate_up (gate, up, n);
        kernels->silu_mul (gate, gate, up, n);
        break;
    }
}

/* Gate stands at the start of a row of gate_up, up behind it; without a gate, up stands at the start. */
static size_t input_products (wl_stage *s, const stage_layer *l, wl_product out[3])
{
    size_t n_rows = s->batch->n_rows, n = 0;
    wl_matrix *const *matrices = l->matrices;
    if (matrices[WL_ROLE_FFN_GATE_UP]) {
        out[n++] = (wl_product){matrices[WL_ROLE_FFN_GATE_UP], s->gate_up, s->gate_up_stride, 0, n_rows};
        return n;
    }
    if (matrices[WL_ROLE_FFN_GATE])
        out[n++] = (wl_product){matrices[WL_ROLE_FFN_GATE], s->gate_up, s->gate_up_stride, 0, n_rows};
    float *up = s->gate_up + (n ? s->gate_up_stride / 2 : 0);
    out[n++] = (wl_product){matrices[WL_ROLE_FFN_UP], up, s->gate_up_stride, 0, n_rows};
    return n;
}

size_t feed_forward_products (wl_stage *s, uint32_t layer_index, wl_product out[3])
{
    const stage_layer *l = &s->layers[layer_index];
    return l->matrices[WL_ROLE_ROUTER] ? router_products (s, layer_index, out) : input_products (s, l, out);
}

static void activate_row (wl_stage *s, uint32_t layer_index, uint32_t row, size_t thread)
{
    (void) thread;
    const stage_layer *l = &s->layers[layer_index];
    size_t d_ff = s->model->d_ff;
    float *gate = s->gate_up + row * s->gate_up_stride;
    float *up = gate + (l->matrices[WL_ROLE_FFN_GATE_UP] ? d_ff : s->gate_up_stride / 2);
    if (s->model->activation == WL_GELU_UNGATED)
        up = gate;
    add_bias (s, gate, l->vectors[WL_ROLE_FFN_GATE_BIAS], d_ff);
    add_bias (s, up, l->vectors[WL_ROLE_FFN_UP_BIAS], d_ff);
    activate (s, gate, up, d_ff);
    represent_row (s, row, gate, d_ff, l->inputs.hidden);
}

void feed_forward_half (wl_stage *s, uint32_t layer_index)
{
    const stage_layer *l = &s->layers[layer_index];
    uint32_t n_rows = s->batch->n_rows;
    run_rows (s, norm_row, layer_index, n_rows);
    if (l->matrices[WL_ROLE_ROUTER]) {
        mix_experts (s, layer_index);
        return;
    }
    const wl_product down = {l->matrices[WL_ROLE_FFN_DOWN], s->y, s->y_stride, 0, n_rows};
    wl_product inputs[3], behind[3];
    multiply (s, s->h, s->h_stride, s->model->d_model, (wl_products){inputs, input_products (s, l, inputs)},
              (wl_products){&down, 1});
    run_rows (s, activate_row, layer_index, n_rows);
    multiply (s, s->gate_up, s->gate_up_stride, s->model->d_ff, (wl_products){&down, 1},
              (wl_products){behind, products_behind (s, layer_index, behind)});
}
