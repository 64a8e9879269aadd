/* What the scheduler decides, apart from how it carries it out: how many steps may be under way, how many decoding streams and how many rows of prompts the next one takes.
 *
 * The scheduler decides by it with real requests, the simulator with described ones: so what is simulated is what runs. Costs are what was learned of steps (step_cost.h).
 * Thread: pure functions but for what `cost` has learned and chosen. */
#ifndef WL_COORDINATOR_POLICY_H
#define WL_COORDINATOR_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "step_cost.h"

enum { WL_POLICY_ROWS = 256 }; /* of a step, unless --chunk asks for more */

/* Steps under way at most. */
uint32_t wl_policy_steps (uint32_t n_stages);

/* How many decoding streams the next step takes, of which `ready` could be taken: they are dealt over as many steps as make a round of all of them the shortest. 0: so few are ready that
 * it is better to wait for the others, which are under way. */
size_t wl_policy_streams (wl_step_cost *cost, size_t n_decoding, size_t n_ready, bool others_under_way,
                          bool prompts_wait);

/* Rows of prompts that the next step takes, at most: `fixed` (--chunk) unless 0; else equal chunks, chosen once a request (kept in *chosen, 0 before) from the unread rows of all
 * prompts, and cut where decoding streams wait. */
size_t wl_policy_chunk (const wl_step_cost *cost, size_t fixed, size_t *chosen, size_t n_unread, size_t max_rows,
                        bool streams_wait);

/* Whether a step's times say what such steps cost: a few rows of a prompt lack the head's part, by which decoding steps of as many rows are longer. */
bool wl_policy_teaches (size_t n_rows, size_t n_logit_rows);

#endif
