/* What a step costs on a range of layers; see cost.h. */
#include "cost.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/memory.h"

enum { DENSE, EXPERT, N_KINDS };

typedef struct weight_class { /* weights that cost the same */
    wl_type type;
    bool expert;
    double *before; /* [n_layers + 1] weights in the layers before this one */
} weight_class;

struct wl_cost {
    uint32_t n_layers, n_classes;
    weight_class *classes;
    double n_experts, n_used;
    wl_type head_type;
    double head_weights;
    double attention_macs; /* of one layer, a row and a position */
    double row_elements;   /* that a layer passes over, a row */
    uint32_t *windows;     /* [n_layers] */
    uint32_t *like;        /* [n_layers] */
    char kind[96];
};

const uint32_t wl_correction_rows[WL_CORRECTIONS] = {1, 8, 128};

static bool is_expert (wl_role role)
{
    return role == WL_ROLE_EXPERT_GATE || role == WL_ROLE_EXPERT_UP || role == WL_ROLE_EXPERT_DOWN;
}

static double elements (const wl_tensor *t)
{
    double n = 1;
    for (uint32_t i = 0; i < t->n_dims; i++)
        n *= (double) t->dims[i];
    return n;
}

static weight_class *find_class (wl_cost *c, wl_type type, bool expert, wl_error *err)
{
    for (uint32_t i = 0; i < c->n_classes; i++)
        if (c->classes[i].type == type && c->classes[i].expert == expert)
            return &c->classes[i];
    weight_class *class = &c->classes[c->n_classes];
    *class = (weight_class){type, expert, wl_new (c->n_layers + 1, sizeof *class->before, err)};
    if (!class->before)
        return NULL;
    c->n_classes++;
    return class;
}

static bool add_layers (wl_cost *c, const wl_model *m, wl_error *err)
{
    for (uint32_t layer = 0; layer < m->n_layers; layer++)
        for (unsigned role = 0; role < WL_N_ROLES; role++) {
            const wl_tensor *t = m->tensors[layer][role];
            if (!t || !wl_role_is_matrix (role) || !wl_format_find (t->type))
                continue;
            weight_class *class = find_class (c, t->type, is_expert (role), err);
            if (!class)
                return false;
            class->before[layer + 1] += elements (t);
        }
    for (uint32_t i = 0; i < c->n_classes; i++)
        for (uint32_t layer = 0; layer < m->n_layers; layer++)
            c->classes[i].before[layer + 1] += c->classes[i].before[layer];
    return true;
}

static bool costs_the_same (const wl_cost *c, uint32_t a, uint32_t b)
{
    bool same = c->windows[a] == c->windows[b];
    for (uint32_t i = 0; same && i < c->n_classes; i++) {
        const double *before = c->classes[i].before;
        same = before[a + 1] - before[a] == before[b + 1] - before[b];
    }
    return same;
}

/* Two norms and two sums over the model's width, q and k rotated, k and v stored, and everything that is multiplied rounded before; the feed-forward part's activations. */
static double row_elements (const wl_model *m)
{
    double q = (double) m->n_heads * m->head_dim, kv = (double) m->n_kv_heads * m->head_dim, d = m->d_model,
           wide = m->n_experts ? (double) m->n_experts_used * m->d_ff + m->d_ff_shared : m->d_ff;
    return 6 * d + 2 * q + 3 * kv + 2 * wide;
}

static void name_kind (wl_cost *c, const wl_model *m)
{
    const weight_class *most = NULL;
    for (uint32_t i = 0; i < c->n_classes; i++)
        if (!most || c->classes[i].before[m->n_layers] > most->before[m->n_layers])
            most = &c->classes[i];
    snprintf (c->kind, sizeof c->kind, "%s-%s-%u", m->architecture, most ? wl_type_name (most->type) : "none",
              m->d_model);
}

wl_cost *wl_cost_new (const wl_model *m, wl_error *err)
{
    wl_cost *c = wl_new (1, sizeof *c, err);
    if (!c)
        return NULL;
    c->n_layers = m->n_layers;
    c->n_experts = m->n_experts;
    c->n_used = m->n_experts_used;
    c->head_type = m->output->type;
    c->head_weights = elements (m->output);
    c->attention_macs = 2.0 * m->n_heads * m->head_dim;
    c->row_elements = row_elements (m);
    c->classes = wl_new ((size_t) N_KINDS * WL_TYPE_LIMIT, sizeof *c->classes, err);
    c->windows = wl_new (m->n_layers, sizeof *c->windows, err);
    c->like = wl_new (m->n_layers, sizeof *c->like, err);
    if (!c->classes || !c->windows || !c->like || !add_layers (c, m, err)) {
        wl_cost_free (&c);
        return NULL;
    }
    for (uint32_t i = 0; i < m->n_layers; i++)
        c->windows[i] = m->layers[i].window;
    for (uint32_t i = 0; i < m->n_layers; i++)
        for (c->like[i] = 0; !costs_the_same (c, c->like[i], i);)
            c->like[i]++;
    name_kind (c, m);
    return c;
}

void wl_cost_free (wl_cost **cost)
{
    wl_cost *c = *cost;
    if (!c)
        return;
    for (uint32_t i = 0; c->classes && i < c->n_classes; i++)
        free (c->classes[i].before);
    free (c->classes);
    free (c->windows);
    free (c->like);
    free (c);
    *cost = NULL;
}

uint32_t wl_cost_like (const wl_cost *cost, uint32_t layer)
{
    return cost->like[layer];
}

const char *wl_cost_kind (const wl_cost *cost)
{
    return cost->kind;
}

/* -- corrections ---------------------------------------------------------------------------------------------------------------------------------- */

bool wl_correction_equal (const wl_correction *a, const wl_correction *b)
{
    bool equal = true;
    for (size_t k = 0; k < WL_CORRECTIONS; k++)
        equal = equal && a->n[k] == b->n[k] && a->factor[k] == b->factor[k];
    return equal;
}

bool wl_correction_is_known (const wl_correction *c)
{
    bool known = false;
    for (size_t k = 0; k < WL_CORRECTIONS; k++)
        known = known || c->n[k];
    return known;
}

wl_correction wl_correction_or (const wl_correction *first, const wl_correction *second)
{
    wl_correction c = *first;
    for (size_t k = 0; k < WL_CORRECTIONS; k++)
        if (!c.n[k]) {
            c.factor[k] = second->factor[k];
            c.n[k] = second->n[k];
        }
    return c;
}

double wl_correction_at (const wl_correction *c, double rows)
{
    double factor[WL_CORRECTIONS];
    size_t i = 0;
    for (size_t k = 0; k < WL_CORRECTIONS; k++) /* what few rows taught says nothing about many */
        factor[k] = c && c->n[k] ? c->factor[k] : 1;
    if (rows <= wl_correction_rows[0])
        return factor[0];
    if (rows >= wl_correction_rows[WL_CORRECTIONS - 1])
        return factor[WL_CORRECTIONS - 1];
    while (i + 2 < WL_CORRECTIONS && rows > wl_correction_rows[i + 1])
        i++;
    double part = log (rows / wl_correction_rows[i]) / log ((double) wl_correction_rows[i + 1] / wl_correction_rows[i]);
    return factor[i] + (factor[i + 1] - factor[i]) * part;
}

/* -- seconds ------------------------------------------------------------------------------------------------------------------------------------------ */

/* What layers do with rows but for attention. */
static double layers_s (const wl_cost *c, const wl_speed *speed, uint32_t first, uint32_t end, double rows)
{
    enum { DISPATCHES = 9 }; /* of a layer: four products, attention, and what is done with rows between them */
    double seconds = (end - first) * (DISPATCHES * speed->dispatch_s +
                                      c->row_elements * speed->element_s * ceil (rows / speed->n_threads));
    for (uint32_t i = 0; i < c->n_classes; i++) {
        const weight_class *class = &c->classes[i];
        double weights = class->before[end] - class->before[first], share = rows;
        if (weights <= 0)
            continue;
        if (class->expert && c->n_experts > 0) {
            double met = 1 - pow (1 - c->n_used / c->n_experts, rows); /* of all experts */
            weights *= met;
            share = rows * c->n_used / (c->n_experts * met);
        }
        seconds += weights * wl_speed_weight_s (speed, class->type, share);
    }
    return seconds;
}

static double attention_s (const wl_cost *c, const wl_speed *speed, uint32_t first, uint32_t end,
                           const wl_step_shape *shape)
{
    double positions = 0;
    for (uint32_t layer = first; layer < end; layer++)
        positions += c->windows[layer] && c->windows[layer] < shape->positions ? c->windows[layer] : shape->positions;
    return positions * shape->rows * c->attention_macs * speed->attention_s[shape->many];
}

double wl_cost_layer_s (const wl_cost *c, const wl_speed *speed, const wl_correction *correction, uint32_t layer,
                        const wl_step_shape *shape)
{
    return (layers_s (c, speed, layer, layer + 1, shape->rows) + attention_s (c, speed, layer, layer + 1, shape)) *
           wl_correction_at (correction, shape->rows);
}

double wl_cost_head_s (const wl_cost *c, const wl_speed *speed, const wl_correction *correction,
                       const wl_step_shape *shape)
{
    if (shape->logit_rows <= 0)
        return 0;
    return c->head_weights * wl_speed_weight_s (speed, c->head_type, shape->logit_rows) *
           wl_correction_at (correction, shape->logit_rows);
}

double wl_cost_step_s (const wl_cost *c, const wl_speed *speed, const wl_correction *correction, uint32_t first,
                       uint32_t last, const wl_step_shape *shape)
{
    double seconds =
        (layers_s (c, speed, first, last + 1, shape->rows) + attention_s (c, speed, first, last + 1, shape)) *
        wl_correction_at (correction, shape->rows);
    return last + 1 == c->n_layers ? seconds + wl_cost_head_s (c, speed, correction, shape) : seconds;
}

double wl_cost_layers_s (const wl_cost *c, const wl_speed *speed, uint32_t first, uint32_t last, double rows)
{
    return layers_s (c, speed, first, last + 1, rows);
}

double wl_cost_attention_s (const wl_cost *c, const wl_speed *speed, uint32_t first, uint32_t last,
                            const wl_step_shape *shape)
{
    return attention_s (c, speed, first, last + 1, shape);
}

double wl_cost_macs (const wl_cost *c, uint32_t first, uint32_t last)
{
    double macs = last + 1 == c->n_layers ? c->head_weights : 0;
    for (uint32_t i = 0; i < c->n_classes; i++) {
        const weight_class *class = &c->classes[i];
        double weights = class->before[last + 1] - class->before[first];
        macs += class->expert && c->n_experts > 0 ? weights * c->n_used / c->n_experts : weights;
    }
    return macs;
}
