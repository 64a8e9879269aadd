/* The plan of a cluster: from its members to a wl_plan, and from real steps to what the next plan knows. Private to cluster.c. */
#ifndef WL_COORDINATOR_CLUSTER_PLAN_H
#define WL_COORDINATOR_CLUSTER_PLAN_H

#include "cluster.h"
#include "cluster_control.h"
#include "corrections.h"
#include "plan_input.h"
#include "simulate.h"
#include "used_splits.h"

enum { CLUSTER_FLIGHTS = 256, CLUSTER_SPANS = 16 };

typedef struct cluster_flight { /* a step under way */
    uint64_t id;
    wl_step_shape shape;
    bool alone; /* no other step was under way meanwhile */
} cluster_flight;

typedef struct cluster_span { /* when a stage computed a step */
    uint64_t began_ns, ended_ns;
} cluster_span;

typedef struct cluster_plan {
    wl_cost *cost;
    wl_plan_input input;
    wl_plan_request request;
    wl_plan plan;
    wl_prediction prediction;
    wl_plan_range *kept;          /* request.kept */
    char key[WL_SPLIT_KEY_BYTES]; /* under which the split is kept; "" where no weights travel */
    wl_lessons **lessons;         /* [n_stages]; NULL for one whose speed is not measured */
    wl_lessons **together; /* [n_machines]; NULL for one with fewer stages than two, or whose speed is not known */
    cluster_span *spans;   /* [CLUSTER_SPANS][n_stages] of the latest results, a ring */
    wl_step_shape shapes[CLUSTER_SPANS]; /* theirs */
    uint64_t n_results;                  /* ever, in the ring */
    cluster_flight flights[CLUSTER_FLIGHTS];
    uint64_t n_sent, n_back; /* ever */
} cluster_plan;

/* What is wrong with a plan whatever machines can do: said before anything is measured or started. */
bool cluster_plan_check (const wl_cluster_options *options, const wl_cluster_need *need, wl_error *err);

/* Plans for members (in the order of cluster.c), of which local ones share `memory_bytes`. With the model's fingerprint, what these members last had is taken into account (NULL: it
 * is not). On failure nothing is left to free. */
bool cluster_plan_make (cluster_plan *plan, const wl_cluster_options *options, const wl_cluster_need *need,
                        uint32_t local_threads, uint64_t memory_bytes, const control_member *members, uint32_t n,
                        const uint8_t *fingerprint, wl_error *err);
/* All stages have loaded what the plan gives them. */
void cluster_plan_loaded (const cluster_plan *plan);
void cluster_plan_free (cluster_plan *plan);

/* Whether the endpoint can be reached from this host alone. */
bool cluster_is_host_only (const char *data_endpoint);

/* A step goes out; its result is here. */
void cluster_plan_sent (cluster_plan *plan, const Woolly__Step *step);
void cluster_plan_back (cluster_plan *plan, const Woolly__Result *result);

#endif
