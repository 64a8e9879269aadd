/* How layers are split over workers.
 *
 * For now: contiguous ranges of equal bytes, where the embedding counts for the first stage and the head for the last, within each worker's memory. Whoever
 * measures machines and links later replaces the cost, not the interface.
 * Thread: pure functions. */
#ifndef WL_COORDINATOR_PLANNER_H
#define WL_COORDINATOR_PLANNER_H

#include <stdint.h>

#include "engine/error.h"
#include "engine/model.h"

typedef struct wl_plan_worker {
    const char *name;
    uint64_t memory_bytes; /* it can give to its stage */
} wl_plan_worker;

typedef struct wl_plan_stage {
    uint32_t worker; /* index into the workers */
    uint32_t first_layer, last_layer;
    uint64_t weight_bytes, kv_bytes, work_bytes;
} wl_plan_stage;

typedef struct wl_plan_request {
    const wl_model *model;
    const wl_plan_worker *workers;
    uint32_t n_workers;
    const char *layers; /* fixed split "0-19,20-39", or NULL */
    uint32_t n_pages, max_rows, max_logit_rows;
    bool share_one_machine; /* all workers draw on the same memory: their sum must fit it too */
    uint64_t machine_bytes; /* that memory; read if share_one_machine */
} wl_plan_request;

/* Fills stages[n_workers], in pipeline order; *n_stages is the number used. WL_ERROR_USAGE for a bad `layers` text (a hole, an overlap, not as many ranges as workers)
 * or more workers than layers; WL_ERROR_CLUSTER when the model does not fit, with the figures and what to do. */
bool wl_plan_split (const wl_plan_request *request, wl_plan_stage *stages, uint32_t *n_stages, wl_error *err);

#endif
