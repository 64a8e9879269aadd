/* What a step costs on each stage, by its number of rows, and what follows from that: how long a prompt's chunks should be, over how many steps decoding
 * streams are dealt, and how many guesses a step should carry.
 *
 * A kernel's time is no line through the origin: weights are read, and unpacked, once a step, and kernels of few columns have shapes of their own. So the curve is
 * learned from the timings that come back with results, slot by slot, over a prior shape that stands in where nothing was measured yet. It only ever
 * decides what shares a step, never a result.
 * Thread: the scheduler's. */
#ifndef WL_COORDINATOR_STEP_COST_H
#define WL_COORDINATOR_STEP_COST_H

#include <stddef.h>
#include <stdint.h>

#include "engine/error.h"

typedef struct wl_step_cost wl_step_cost;

/* `n_parallel`: how many of the stages can compute at once; fewer than there are where stages share a machine with fewer cores than their threads. */
wl_step_cost *wl_step_cost_new (uint32_t n_stages, uint32_t n_parallel, wl_error *err);
void wl_step_cost_free (wl_step_cost **cost);

/* A stage took `ns` for a step of so many rows. */
void wl_step_cost_add (wl_step_cost *cost, uint32_t stage, size_t n_rows, uint64_t ns);

/* Nanoseconds of a step: summed over the stages, and of the slowest one. In units of the prior's as long as nothing was measured: ratios hold then. */
double wl_step_cost_all (const wl_step_cost *cost, size_t n_rows);
double wl_step_cost_slowest (const wl_step_cost *cost, size_t n_rows);

/* Rows of the equal chunks in which `n_tokens` of prompts are through soonest: small ones fill and drain the pipeline sooner, large ones are computed faster. */
size_t wl_step_cost_chunk (const wl_step_cost *cost, size_t n_tokens, size_t max_rows);
/* Rows, `most` or fewer, that keep the slowest stage busy no longer than `longest_ns`, so that others need not wait longer; some rows in any case. */
size_t wl_step_cost_within (const wl_step_cost *cost, size_t most, double longest_ns);

/* The number of steps over which n decoding streams are best dealt, the same as before unless another is clearly better; now and then another one, so that what it costs is measured
 * again. */
uint32_t wl_step_cost_groups (wl_step_cost *cost, size_t n_streams);

/* How many of n guesses a step of `n_rows` should carry besides, when the first i + 1 of them bring gains[0] + … + gains[i] tokens on average, and the rows
 * themselves bring `base`: as many as make tokens per time the most, and no more than make a difference. */
size_t wl_step_cost_guesses (const wl_step_cost *cost, size_t n_rows, double base, const double *gains, size_t n);

#endif
