/* Who a plan is made for: workers, machines and links, with what is known of them and where from. */
#ifndef WL_COORDINATOR_PLAN_INPUT_H
#define WL_COORDINATOR_PLAN_INPUT_H

#include "planner.h"

typedef struct wl_plan_input {
    wl_plan_worker *workers;
    uint32_t n_workers;
    wl_plan_machine *machines;
    uint32_t n_machines;
    wl_plan_link *pairs;
    char (*names)[96];                           /* [n_workers] */
    wl_speed_source whole_source, within_source; /* of the first machine */
} wl_plan_input;

/* Room for so many; all zero. */
bool wl_plan_input_new (wl_plan_input *input, uint32_t n_workers, uint32_t n_machines, wl_error *err);
void wl_plan_input_free (wl_plan_input *input);

/* Measures this machine (or takes what is kept): machine 0, and workers [0, n_local) on it, each with n_threads, named local-1 and so on, all required. isa NULL: the best. */
bool wl_plan_input_local (wl_plan_input *input, uint32_t n_local, uint32_t n_threads, const char *isa,
                          uint64_t memory_bytes, bool fresh, const wl_cost *cost, wl_error *err);

/* What of the request comes from the input. */
void wl_plan_input_fill (const wl_plan_input *input, wl_plan_request *request);

#endif
