/* The search behind the planner: prices for a workload, and dynamic programming over them. Private to planner.c and its tests. */
#ifndef WL_COORDINATOR_PLAN_SEARCH_H
#define WL_COORDINATOR_PLAN_SEARCH_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/error.h"

/* Everything a search reads: seconds are of the whole workload. The coordinator has index n among hops. */
typedef struct plan_prices {
    uint32_t n, n_layers;
    double *layers_s;    /* [n][n_layers + 1] of the layers before this one */
    double *head_s;      /* [n] */
    double *hops_s;      /* [n + 1][n + 1] latency and transfer; INFINITY: cannot be */
    double *transfers_s; /* [n + 1][n + 1] how long the link is taken */
    double *decode_layers_s, *decode_head_s, *decode_transfers_s; /* of these, decoding; the rest is prefill */
    const uint64_t *layer_bytes; /* [n_layers + 1] memory of the layers before this one */
    uint64_t first_bytes, last_bytes, work_bytes;
    uint64_t *memory_bytes; /* [n] */
    bool *required;         /* [n] */
    const uint32_t *kinds;  /* [n] workers of one kind are interchangeable, and next to one another */
    uint32_t n_kinds;
    bool latency;     /* the sum counts, not the slowest */
    double in_flight; /* steps that share a round trip */
} plan_prices;

typedef struct plan_part {
    uint32_t worker, first, end; /* layers [first, end) */
} plan_part;

/* The best split, at most n_layers parts: `parts` [n_layers], pipeline order. *value is what was minimised; what it holds before must be beaten (INFINITY: by nothing). 0 parts: nothing
 * fits, or is better. */
bool plan_search (const plan_prices *prices, plan_part *parts, uint32_t *n_parts, double *value, bool *exact,
                  wl_error *err);

/* What a split is worth: the largest of slowest stage, slowest transfer and round trip over the steps in flight; or the round trip. */
double plan_value (const plan_prices *prices, const plan_part *parts, uint32_t n_parts);
double plan_part_s (const plan_prices *prices, const plan_part *part);

/* Moves the cuts between these parts, workers and order as they are, to where the slowest stage of prefill and the slowest one of decoding take the least together (one has a head, which
 * prefill hardly needs); the round trip over the steps in flight gets no longer than plan_value. For throughput only. */
bool plan_recut (const plan_prices *prices, plan_part *parts, uint32_t n_parts, wl_error *err);
/* Seconds of a split where prefill comes first and decoding after it, or the round trip's: what plan_recut makes small. */
double plan_phases_s (const plan_prices *prices, const plan_part *parts, uint32_t n_parts);

bool plan_part_fits (const plan_prices *prices, const plan_part *part);

#endif
