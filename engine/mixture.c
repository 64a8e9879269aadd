/* Mixture of experts (Shazeer et al. 2017; Fedus et al. 2021): a router's logits choose the n_experts_used best experts of each row; their results are
 * summed by the softmax over the chosen logits, which is the softmax over all, made to sum to 1 over the chosen.
 *
 * A step's rows are spread over slots, sorted by expert, so that each expert's matrices are read once for all its rows. A row's own chain of operations
 * stays what it would be alone: each slot is computed by itself, and a row adds up its slots from its best expert to its least. Equal logits go to the lower expert. */
#include <string.h>

#include "feed_forward.h"
#include "kernels/math.h"

/* Chooses a row's experts, the best first, and their weights. */
static void choose_row (wl_stage *s, uint32_t layer_index, uint32_t row, size_t thread)
{
    (void) thread;
    const wl_model *m = s->model;
    mixture_space *x = &s->mixture;
    float *logits = x->router + row * x->router_stride, sum = 0;
    expert_choice *choices = x->choices + (size_t) row * m->n_experts_used;
    add_bias (s, logits, s->layers[layer_index].vectors[WL_ROLE_ROUTER_BIAS], m->n_experts);
    for (uint32_t i = 0; i < m->n_experts_used; i++) {
        uint32_t best = m->n_experts;
        for (uint32_t e = 0; e < m->n_experts; e++) {
            bool taken = false;
            for (uint32_t j = 0; j < i; j++)
                taken |= choices[j].expert == e;
            if (!taken && (best == m->n_experts || logits[e] > logits[best]))
                best = e;
        }
        choices[i].expert = best;
        choices[i].weight = wl_expf (logits[best] - logits[choices[0].expert]);
        sum += choices[i].weight;
    }
    for (uint32_t i = 0; i < m->n_experts_used; i++)
        choices[i].weight = choices[i].weight / sum * m->expert_scale;
}

/* Counting sort of all rows' choices by expert; rows keep their order. */
static void assign_slots (wl_stage *s)
{
    const wl_model *m = s->model;
    mixture_space *x = &s->mixture;
    uint32_t n_rows = s->batch->n_rows, n_slots = n_rows * m->n_experts_used;
    memset (x->first_slots, 0, ((size_t) m->n_experts + 1) * sizeof *x->first_slots);
    for (uint32_t i = 0; i < n_slots; i++)
        x->first_slots[x->choices[i].expert + 1]++;
    for (uint32_t e = 0; e < m->n_experts; e++)
        x->first_slots[e + 1] += x->first_slots[e];
    for (uint32_t i = 0; i < n_slots; i++) {
        /* first_slots[e] moves to the end of e's slots, which is where e + 1's begin */
        uint32_t slot = x->first_slots[x->choices[i].expert]++;
        x->choices[i].slot = slot;
        x->slot_rows[slot] = i / m->n_experts_used;
        x->slot_experts[slot] = x->choices[i].expert;
    }
    memmove (x->first_slots + 1, x->first_slots, m->n_experts * sizeof *x->first_slots);
    x->first_slots[0] = 0;
}

static void fill_slot (wl_stage *s, uint32_t layer_index, uint32_t slot, size_t thread)
{
    (void) thread;
    const float *h = s->h + s->mixture.slot_rows[slot] * s->h_stride;
    float *in = s->mixture.in + slot * s->h_stride;
    memcpy (in, h, s->model->d_model * sizeof *in);
    represent_row (s, slot, in, s->model->d_model, s->layers[layer_index].inputs.expert_normed);
}

static void activate_slot (wl_stage *s, uint32_t layer_index, uint32_t slot, size_t thread)
{
    (void) thread;
    const stage_layer *l = &s->layers[layer_index];
    size_t d_ff = s->model->d_ff, expert = s->mixture.slot_experts[slot];
    const float *gate_bias = l->vectors[WL_ROLE_EXPERT_GATE_BIAS], *up_bias = l->vectors[WL_ROLE_EXPERT_UP_BIAS];
    float *gate = s->gate_up + slot * s->gate_up_stride, *up = gate + s->gate_up_stride / 2;
    add_bias (s, gate, gate_bias ? gate_bias + expert * d_ff : NULL, d_ff);
    add_bias (s, up, up_bias ? up_bias + expert * d_ff : NULL, d_ff);
    activate (s, gate, up, d_ff);
    represent_row (s, slot, gate, d_ff, l->inputs.expert_hidden);
}

/* Adds a row's slots to y, which holds the shared expert's result or zeros. */
static void combine_row (wl_stage *s, uint32_t layer_index, uint32_t row, size_t thread)
{
    (void) thread;
    const wl_model *m = s->model;
    const stage_layer *l = &s->layers[layer_index];
    const float *bias = l->vectors[WL_ROLE_EXPERT_DOWN_BIAS];
    float *y = s->y + row * s->y_stride;
    if (!l->matrices[WL_ROLE_SHARED_DOWN])
        memset (y, 0, m->d_model * sizeof *y);
    for (uint32_t i = 0; i < m->n_experts_used; i++) {
        const expert_choice *choice = &s->mixture.choices[(size_t) row * m->n_experts_used + i];
        float *out = s->mixture.out + choice->slot * s->y_stride;
        add_bias (s, out, bias ? bias + (size_t) choice->expert * m->d_model : NULL, m->d_model);
        s->options.kernels->add_scaled (y, out, choice->weight, m->d_model);
    }
}

static void activate_shared_row (wl_stage *s, uint32_t layer_index, uint32_t row, size_t thread)
{
    (void) thread;
    float *gate = s->gate_up + row * s->gate_up_stride;
    activate (s, gate, gate + s->gate_up_stride / 2, s->model->d_ff_shared);
    represent_row (s, row, gate, s->model->d_ff_shared, s->layers[layer_index].inputs.hidden);
}

size_t router_products (wl_stage *s, uint32_t layer_index, wl_product out[3])
{
    wl_matrix *const *matrices = s->layers[layer_index].matrices;
    uint32_t n_rows = s->batch->n_rows;
    float *up = s->gate_up + s->gate_up_stride / 2;
    out[0] = (wl_product){matrices[WL_ROLE_ROUTER], s->mixture.router, s->mixture.router_stride, 0, n_rows};
    if (!matrices[WL_ROLE_SHARED_DOWN])
        return 1;
    out[1] = (wl_product){matrices[WL_ROLE_SHARED_GATE], s->gate_up, s->gate_up_stride, 0, n_rows};
    out[2] = (wl_product){matrices[WL_ROLE_SHARED_UP], up, s->gate_up_stride, 0, n_rows};
    return 3;
}

/* The router's logits, and the shared expert's whole way into y if there is one. */
static void route (wl_stage *s, uint32_t layer_index)
{
    const wl_model *m = s->model;
    uint32_t n_rows = s->batch->n_rows;
    wl_matrix *const down_matrix = s->layers[layer_index].matrices[WL_ROLE_SHARED_DOWN];
    const wl_product down = {down_matrix, s->y, s->y_stride, 0, n_rows};
    wl_product products[3];
    multiply (s, s->h, s->h_stride, m->d_model, (wl_products){products, router_products (s, layer_index, products)},
              (wl_products){&down, down_matrix != NULL});
    run_rows (s, choose_row, layer_index, n_rows);
    if (!down_matrix)
        return;
    run_rows (s, activate_shared_row, layer_index, n_rows);
    multiply (s, s->gate_up, s->gate_up_stride, m->d_ff_shared, (wl_products){&down, 1}, (wl_products){0});
}

/* Products of every expert that has slots with its matrix of `role`, appended to the mixture's list. */
static size_t add_products (wl_stage *s, uint32_t layer_index, wl_role role, float *out, size_t stride, size_t n)
{
    mixture_space *x = &s->mixture;
    const wl_matrix *experts = s->layers[layer_index].matrices[role];
    for (uint32_t e = 0; e < s->model->n_experts; e++) {
        uint32_t first = x->first_slots[e], end = x->first_slots[e + 1];
        if (end > first)
            x->products[n++] = (wl_product){&experts[e], out, stride, first, end - first};
    }
    return n;
}

void mix_experts (wl_stage *s, uint32_t layer_index)
{
    const wl_model *m = s->model;
    mixture_space *x = &s->mixture;
    uint32_t n_rows = s->batch->n_rows, n_slots = n_rows * m->n_experts_used;
    float *up = s->gate_up + s->gate_up_stride / 2;
    wl_product behind[3];
    route (s, layer_index);
    assign_slots (s);
    run_rows (s, fill_slot, layer_index, n_slots);
    size_t n = add_products (s, layer_index, WL_ROLE_EXPERT_GATE, s->gate_up, s->gate_up_stride, 0);
    n = add_products (s, layer_index, WL_ROLE_EXPERT_UP, up, s->gate_up_stride, n);
    multiply (s, x->in, s->h_stride, m->d_model, (wl_products){x->products, n}, (wl_products){0});
    run_rows (s, activate_slot, layer_index, n_slots);
    n = add_products (s, layer_index, WL_ROLE_EXPERT_DOWN, x->out, s->y_stride, 0);
    multiply (s, s->gate_up, s->gate_up_stride, m->d_ff, (wl_products){x->products, n},
              (wl_products){behind, products_behind (s, layer_index, behind)});
    run_rows (s, combine_row, layer_index, n_rows);
}
