/* An event simulation of requests over a planned pipeline.
 *
 * Decisions are the scheduler's (policy.h), and so is what it learns of steps' costs; stages, machines and links are models: a stage computes one step at a time, in order; stages of one machine share what
 * all its cores do together, in proportion to what each would take; a link carries one step at a time, and delivers it after its latency. Speculation and the shared-prefix cache are
 * not simulated, nor is a stage kept waiting for memory to send from.
 * Thread: pure functions. */
#ifndef WL_COORDINATOR_SIMULATE_H
#define WL_COORDINATOR_SIMULATE_H

#include <stdint.h>

#include "planner.h"
#include "step_cost.h"

typedef struct wl_sim_request {
    double arrival_s;               /* ascending over requests */
    uint32_t n_prompt, n_generated; /* at least 1 each */
    double first_s, done_s;         /* out: when the first and the last token were there */
} wl_sim_request;

typedef struct wl_sim_options {
    uint32_t max_rows, max_logit_rows;
    uint32_t chunk; /* --chunk; 0: chosen */
    uint32_t n_pages;
} wl_sim_options;

typedef struct wl_sim_stage {
    double busy_s;
} wl_sim_stage;

typedef struct wl_simulator wl_simulator;

/* A pipeline at rest. What it learns of costs it keeps from one call to the next. Both arguments are borrowed. */
wl_simulator *wl_simulator_new (const wl_plan_request *request, const wl_plan *plan, wl_error *err);
void wl_simulator_free (wl_simulator **simulator);

/* Carries the requests out; WL_ERROR_USAGE for one that would never fit. *wall_s: until the last is done. stages [n_stages] may be NULL. */
bool wl_simulate (wl_simulator *simulator, const wl_sim_options *options, wl_sim_request *requests, size_t n,
                  double *wall_s, uint64_t *n_steps, wl_sim_stage *stages, wl_error *err);

/* What a plan is predicted to do, in tokens a second, as `woolly bench` measures it: a prompt of 512 and its first token; 64 tokens of one stream; 64 tokens of each of eight. */
typedef struct wl_prediction {
    double prefill, decode, eight;
} wl_prediction;
/* Seconds that so many equal requests take together. */
bool wl_predict_test (const wl_plan_request *request, const wl_plan *plan, uint32_t chunk, uint32_t n_streams,
                      uint32_t n_prompt, uint32_t n_generated, double *seconds, wl_error *err);
bool wl_predict (const wl_plan_request *request, const wl_plan *plan, uint32_t chunk, wl_prediction *out,
                 wl_error *err);

#endif
