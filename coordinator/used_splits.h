/* Which layers each worker had when a model last ran over the same workers: kept in the cache folder beside what was measured, for the last MOST of them, so that the next
 * plan can leave weights where they are (planner.h). */
#ifndef WL_COORDINATOR_USED_SPLITS_H
#define WL_COORDINATOR_USED_SPLITS_H

#include "planner.h"
#include "proto/fingerprint.h"

enum { WL_SPLIT_KEY_BYTES = 65, WL_USED_SPLITS = 64 };

/* What a split is kept under: the model and the names and threads of all workers, in their order. */
void wl_used_split_key (const uint8_t fingerprint[WL_FINGERPRINT_BYTES], const wl_plan_worker *workers, uint32_t n,
                        char out[WL_SPLIT_KEY_BYTES]);

/* Ranges in pipeline order, in a list to free(), or NULL with *n 0 where nothing is kept. They were a split once: whether they are one now is for the planner to see. */
wl_plan_range *wl_used_split_load (const char *key, uint32_t *n);
/* Where the folder cannot be written, nothing is kept. */
void wl_used_split_store (const char *key, const wl_plan *plan);

#endif
