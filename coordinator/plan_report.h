/* A plan for people and for programs. */
#ifndef WL_COORDINATOR_PLAN_REPORT_H
#define WL_COORDINATOR_PLAN_REPORT_H

#include <jansson.h>

#include "cluster.h"
#include "plan_input.h"
#include "simulate.h"

/* The table, the machines it rests on, and what it is predicted to do, to stdout. */
void wl_plan_print (const wl_cluster_planned *planned);

/* {"prefill_tok_s", "decode_tok_s", "streams8_tok_s", "objective", "figures"}: figures is the least certain source among those that are used. */
json_t *wl_plan_predicted_json (const wl_cluster_planned *planned);
/* All of it: stages, left_out, predicted, exact, cluster (in the format of --simulate). */
json_t *wl_plan_json (const wl_cluster_planned *planned, uint64_t context);

#endif
