/* How layers are split over workers: which of them take part, in which order, and how many layers each has.
 *
 * The workload that a plan is made for is eight requests (or as many as keep all stages busy), each of a prompt of 512 tokens and 128 generated ones, in chunks and batches as the
 * scheduler makes them. `throughput` minimises the time between one step and the next, the largest of: the slowest stage, the slowest transfer, and the
 * whole round trip shared by as many steps as are under way; and then, with these workers in this order, the slowest stage of prefill plus the slowest of decoding, since the last stage
 * has the head when decoding and hardly in prefill. `latency` minimises the round trip of a request by itself: every stage's time and every hop, added up.
 *
 * Exact, by dynamic programming over (who is used, who is last, layers covered), where workers are of few kinds (64 of one kind, or 6 kinds of one each); else exact for a given order of
 * workers, tried for several orders. Workers on one machine never add up to more than the machine: each is taken to be as slow as its share of the machine is.
 *
 * Weights that a worker has are worth more than a plan that is a little better by figures which were measured, with some noise: the split that was used before is kept unless another is
 * predicted to be WL_PLAN_WORTH_MOVING times as fast. Where it makes no difference, workers come in the order in which they are given.
 * Thread: pure functions. */
#ifndef WL_COORDINATOR_PLANNER_H
#define WL_COORDINATOR_PLANNER_H

#include <stdint.h>

#include "cost.h"
#include "engine/error.h"
#include "engine/kernels/kernels.h"
#include "engine/model.h"
#include "engine/speed.h"
#include "proto/hop.h"

typedef enum wl_objective { WL_THROUGHPUT, WL_LATENCY } wl_objective;

typedef struct wl_plan_link {
    double latency_s; /* one way, of a small message */
    double bytes_per_s;
} wl_plan_link;

typedef struct wl_plan_worker {
    const char *name;
    uint64_t memory_bytes; /* it can give to its stage */
    wl_speed speed;        /* with its threads */
    wl_speed_source source;
    wl_correction correction;
    uint32_t machine;  /* index into the machines; workers of one share its cores */
    bool required;     /* takes part whatever that costs */
    bool host_only;    /* only the coordinator's machine can reach it: those that send to it are host_only as well */
    wl_plan_link link; /* between it and the coordinator */
    wl_speed_source link_source;
} wl_plan_worker;

typedef struct wl_plan_machine {
    wl_speed whole; /* with all its cores; whole.n_threads 0: not known, its workers do not slow one another */
    wl_correction correction; /* of `whole`; where it knows nothing, its workers' counts */
    wl_plan_link within;      /* between its workers */
} wl_plan_machine;

typedef struct wl_plan_stage {
    uint32_t worker; /* index into the workers */
    uint32_t first_layer, last_layer;
    uint64_t weight_bytes, kv_bytes, work_bytes;
    double prefill_s,
        decode_s; /* predicted seconds of a full chunk, and of a row by itself, with nothing else running on its machine */
} wl_plan_stage;

typedef struct wl_plan_range {
    uint32_t worker; /* index into the workers */
    uint32_t first_layer, last_layer;
} wl_plan_range;

typedef struct wl_plan_request {
    const wl_model *model;
    const wl_cost *cost;
    const wl_plan_worker *workers;
    uint32_t n_workers;
    const wl_plan_machine *machines;
    uint32_t n_machines;
    const wl_plan_link
        *pairs; /* [n_workers + 1][n_workers + 1], the last is the coordinator; NULL: assumed from the workers' links */
    wl_objective objective;
    const char *layers; /* fixed split "0-19,20-39", or NULL */
    uint32_t n_pages, max_rows, max_logit_rows;
    wl_kv_type kv;             /* what the pages hold */
    uint32_t chunk_rows;       /* of a prompt, as the scheduler cuts it */
    wl_hop hop;                /* what rows travel as between stages */
    bool share_one_machine;    /* all workers draw on the same memory: their sum must fit it too */
    uint64_t machine_bytes;    /* that memory; read if share_one_machine */
    const wl_plan_range *kept; /* where the layers were when these workers last ran the model, in pipeline order */
    uint32_t n_kept;           /* 0: nowhere */
} wl_plan_request;

enum { WL_PLAN_PROMPT = 512, WL_PLAN_GENERATED = 128, WL_PLAN_STREAMS = 8, WL_PLAN_REASON_BYTES = 200 };

#define WL_PLAN_WORTH_MOVING 1.1

typedef struct wl_plan {
    wl_plan_stage *stages; /* [n_stages] in pipeline order; stages that could be: n_workers */
    uint32_t n_stages;
    char (*reasons)[WL_PLAN_REASON_BYTES]; /* [n_workers] why it has these layers, or none */
    double objective_s;                    /* what was minimised: seconds for the workload */
    bool exact;                            /* over all orders, not only those tried */
    bool is_kept;                          /* request.kept, though another might be a little faster */
} wl_plan;

/* WL_ERROR_USAGE for a bad `layers` text (a hole, an overlap, not as many ranges as workers) or more required workers than layers; WL_ERROR_CLUSTER when the model does
 * not fit, with the figures and what to do. On failure nothing is left to free. */
bool wl_plan_make (const wl_plan_request *request, wl_plan *plan, wl_error *err);
void wl_plan_free (wl_plan *plan);

/* What is wrong with a request whatever machines can do, for so many workers that all are required: WL_ERROR_USAGE for their number or for `layers`. */
bool wl_plan_check (const wl_plan_request *request, uint32_t n_workers, wl_error *err);

/* Between two workers, or the coordinator (index n_workers): as `pairs` says; else, within a machine what that has, and between machines the slower of both links to the
 * coordinator. latency_s is INFINITY where one cannot reach the other. */
wl_plan_link wl_plan_hop (const wl_plan_request *request, uint32_t from, uint32_t to);

/* Of what a worker's machine does with all its cores. */
wl_correction wl_plan_whole_correction (const wl_plan_request *request, uint32_t worker);

/* Seconds of a step on a worker, when `sharing` workers of its machine are at work all the time. */
double wl_plan_step_s (const wl_plan_request *request, uint32_t worker, uint32_t sharing, uint32_t first, uint32_t last,
                       const wl_step_shape *shape);

#endif
