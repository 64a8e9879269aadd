/* What a model could reach on this machine: the roofline that benchmarks are held against.
 *
 * Two limits: bytes that can be read from memory a second, and int8 multiply-adds a second. A token needs so many of each; the scarcer one limits it. (S. Williams,
 * A. Waterman, D. Patterson: Roofline, CACM 52(4), 2009.) */
#ifndef WL_COORDINATOR_ROOFLINE_H
#define WL_COORDINATOR_ROOFLINE_H

#include <stdint.h>

#include "engine/error.h"
#include "engine/kernels/kernels.h"
#include "engine/model.h"
#include "engine/thread_pool.h"

typedef struct wl_machine_limits {
    uint32_t n_threads;
    double read_bytes_s;     /* all threads streaming through more than a last-level cache holds */
    double multiply_adds_s;  /* all threads at the bare instruction, see peak.h */
    const char *instruction; /* which */
} wl_machine_limits;

/* Takes half a second; the best of several passes counts. `isa` as the workers report it. Over `limits` from before, it keeps the better ones. */
bool wl_machine_limits_measure (wl_machine_limits *limits, uint32_t n_threads, const char *isa, wl_error *err);

/* What one token takes on average, for `n_streams` sequences that each feed `n_rows` rows a step from position `first` on, and want logits of one. */
typedef struct wl_token_cost {
    double bytes;         /* weights, shared by all rows of a step, and KV cache read */
    double multiply_adds; /* with weights; attention, in f32, is not among them */
} wl_token_cost;

wl_token_cost wl_token_cost_of (const wl_model *model, wl_kv_type kv_type, uint32_t n_streams, uint32_t n_rows,
                                uint32_t first);

/* tok/s that the machine could reach. */
double wl_roofline_limit (const wl_machine_limits *limits, const wl_token_cost *cost);

#endif
