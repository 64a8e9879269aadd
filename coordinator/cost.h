/* What a step costs on a range of a model's layers, from what a machine was measured to do.
 *
 * Seconds of a step = for each weight type, weights of the range times the measured seconds a weight for so many rows; plus attention by its multiply-adds; plus the head
 * for the rows whose logits are wanted (one a sequence, in prefill too); plus the elements that norms, rounding, rotation and activations pass over, a row on one thread;
 * plus what it takes to set all threads to work, several times a layer. A mixture's experts are touched as far as the rows go: n rows that each choose u of e
 * experts meet e (1 - (1 - u/e)^n) of them, with their rows shared out. What all this leaves out is learned from real steps: a
 * factor for few, some and many rows, see corrections.h.
 * Thread: pure functions over an immutable wl_cost. */
#ifndef WL_COORDINATOR_COST_H
#define WL_COORDINATOR_COST_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/error.h"
#include "engine/model.h"
#include "engine/speed.h"

typedef struct wl_cost wl_cost;

enum { WL_CORRECTIONS = 3 };
/* Measured seconds over predicted ones for steps of 1, 8 and 128 rows; between them in proportion to the logarithm. n is how many steps taught it: 0 leaves 1. */
typedef struct wl_correction {
    double factor[WL_CORRECTIONS];
    uint32_t n[WL_CORRECTIONS];
} wl_correction;
extern const uint32_t wl_correction_rows[WL_CORRECTIONS];

typedef struct wl_step_shape {
    double rows, logit_rows;
    double positions; /* that a row attends to, on average */
    bool many;        /* rows of one sequence, not one of each */
} wl_step_shape;

wl_cost *wl_cost_new (const wl_model *model, wl_error *err);
void wl_cost_free (wl_cost **cost);

/* `correction` may be NULL. */
double wl_cost_step_s (const wl_cost *cost, const wl_speed *speed, const wl_correction *correction,
                       uint32_t first_layer, uint32_t last_layer, const wl_step_shape *shape);
/* The same for the layers' part alone of one layer, and for the head's: what planning adds up. */
double wl_cost_layer_s (const wl_cost *cost, const wl_speed *speed, const wl_correction *correction, uint32_t layer,
                        const wl_step_shape *shape);
/* The first layer that costs the same as this one in every respect. */
uint32_t wl_cost_like (const wl_cost *cost, uint32_t layer);
double wl_cost_head_s (const wl_cost *cost, const wl_speed *speed, const wl_correction *correction,
                       const wl_step_shape *shape);

/* The parts of a step: all that layers [first, last] do with so many rows but for attention, and attention of rows at `positions` each. Uncorrected. */
double wl_cost_layers_s (const wl_cost *cost, const wl_speed *speed, uint32_t first_layer, uint32_t last_layer,
                         double rows);
double wl_cost_attention_s (const wl_cost *cost, const wl_speed *speed, uint32_t first_layer, uint32_t last_layer,
                            const wl_step_shape *shape);

double wl_correction_at (const wl_correction *correction, double rows);
/* What `first` knows, and of the rest what `second` does. */
wl_correction wl_correction_or (const wl_correction *first, const wl_correction *second);
bool wl_correction_is_known (const wl_correction *correction); /* of any number of rows */
bool wl_correction_equal (const wl_correction *a, const wl_correction *b);

/* Multiply-adds that one token takes in these layers, the head included where they end with the last. */
double wl_cost_macs (const wl_cost *cost, uint32_t first_layer, uint32_t last_layer);
/* What kind of model it is, for corrections: "llama-Q4_K-2048". */
const char *wl_cost_kind (const wl_cost *cost);

#endif
