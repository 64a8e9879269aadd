/* Where the stages' time went, from the timings that come back with results.
 *
 * Between two steps a stage waits for one of four reasons, and computes for a fifth part:
 *   compute   the layers, and drawing tokens
 *   blocked   the next stage is behind: no memory for a result, or no room in its queue
 *   hop       a step was on its way here: the link, and waking up
 *   starved   nothing was on its way here
 * The sum is the time from the first step's arrival to the end of the last, exactly. Telling hop from starved across hosts needs their clocks' difference, which the control
 * link measures to within half a round trip; on one host the clock is the same.
 *
 * Each hop is measured besides, wherever the receiver had nothing else to do: from the end of computing on one side until the step is taken from the socket on the other.
 *
 * With a trace, every step of every stage is also written as an event of the Chrome trace format, one row a stage, for a trace viewer.
 * Thread: the scheduler's. */
#ifndef WL_COORDINATOR_STEP_TIMES_H
#define WL_COORDINATOR_STEP_TIMES_H

#include <stdbool.h>
#include <stdint.h>

#include "cluster.h"

typedef struct wl_stage_time { /* nanoseconds */
    uint64_t compute, hop, starved, blocked;
} wl_stage_time;

typedef struct wl_hop_time {
    uint64_t n_steps, n_rows;           /* that passed */
    uint64_t n_timed, sum_ns, least_ns; /* of the steps for which the receiver was waiting, and their time on the way */
} wl_hop_time;

typedef struct wl_step_times wl_step_times;

/* `trace_path`: where the trace goes; NULL: nowhere. WL_ERROR_USAGE when it cannot be written. */
wl_step_times *wl_step_times_new (wl_cluster *cluster, const char *trace_path, wl_error *err);
/* Completes the trace. */
void wl_step_times_free (wl_step_times **times);

typedef struct wl_step_sent { /* what the coordinator knows of a step by itself */
    uint64_t sent_ns;         /* monotonic */
    size_t n_rows;
    const char *kind; /* for the trace: a word */
} wl_step_sent;

/* Takes a result's timings in. False, with nothing taken, where they are not one a stage in ascending order: some stage is not of this version. */
bool wl_step_times_add (wl_step_times *times, const wl_step_sent *sent, const Woolly__Result *result);

/* Forgets the sums. */
void wl_step_times_reset (wl_step_times *times);
wl_stage_time wl_step_times_of (const wl_step_times *times, uint32_t stage);
/* The hop to this stage; stage == the number of stages: of results to the coordinator. */
wl_hop_time wl_step_times_hop (const wl_step_times *times, uint32_t stage);

#endif
