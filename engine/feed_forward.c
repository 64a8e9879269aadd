/* The feed-forward half of a layer: norm, gate and up, activation, down projection. */
#include "stage_private.h"

static void norm_row (wl_stage *s, uint32_t layer_index, uint32_t row, size_t thread)
{
    (void) thread;
    const wl_model *m = s->model;
    const stage_layer *l = &s->layers[layer_index];
    const wl_matrix *inputs[2] = {&l->gate, &l->up};
    add_residual (s, row, l->vectors[WL_ROLE_ATTN_POST_NORM]);
    float *h = s->h + row * s->h_stride;
    s->options.kernels->rms_norm (h, s->x + (size_t) row * m->d_model, l->vectors[WL_ROLE_FFN_NORM], m->d_model,
                                  m->norm_eps);
    represent_row (s, row, h, m->d_model, kinds_wanted (inputs, 2));
}

static void activate_row (wl_stage *s, uint32_t layer_index, uint32_t row, size_t thread)
{
    (void) thread;
    const wl_kernels *kernels = s->options.kernels;
    const wl_matrix *down = &s->layers[layer_index].down;
    float *gate = s->gate + row * s->ff_stride, *up = s->up + row * s->ff_stride;
    if (s->model->activation == WL_GELU)
        kernels->gelu_mul (gate, gate, up, s->model->d_ff);
    else
        kernels->silu_mul (gate, gate, up, s->model->d_ff);
    represent_row (s, row, gate, s->model->d_ff, kinds_wanted (&down, 1));
}

void feed_forward_half (wl_stage *s, uint32_t layer_index)
{
    const stage_layer *l = &s->layers[layer_index];
    uint32_t n_rows = s->batch->n_rows;
    run_rows (s, norm_row, layer_index, n_rows);
    const wl_product inputs[2] = {{&l->gate, s->gate, s->ff_stride}, {&l->up, s->up, s->ff_stride}};
    multiply (s, s->h, s->h_stride, s->model->d_model, n_rows, inputs, 2);
    run_rows (s, activate_row, layer_index, n_rows);
    const wl_product down = {&l->down, s->y, s->y_stride};
    multiply (s, s->gate, s->ff_stride, s->model->d_ff, n_rows, &down, 1);
}
