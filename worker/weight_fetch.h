/* Getting weights from the coordinator into the store: asks for the chunks that are missing, a window of them at a time, checks and writes what arrives.
 *
 * The window is the credit: neither side ever holds more than WL_WEIGHTS_WINDOW chunks. A connection that breaks, or falls silent, is made anew and what is
 * outstanding asked for again. Thread: the data thread, which owns the socket while it runs. */
#ifndef WL_WORKER_WEIGHT_FETCH_H
#define WL_WORKER_WEIGHT_FETCH_H

#include "weight_store.h"

/* Bytes of one of the model's files that belong together: a header, a tensor. Chunks are counted from its start. */
typedef struct weight_range {
    uint32_t part;
    uint64_t offset, bytes;
} weight_range;

typedef struct weight_fetch_options {
    const char *endpoint; /* the coordinator's */
    uint64_t epoch;
    const load_progress *progress;
} weight_fetch_options;

/* What of the ranges is not in the store. */
uint64_t weight_fetch_missing (const weight_store *store, const weight_range *ranges, size_t n_ranges);

/* Fetches all of that. *shipped_bytes grows by what has arrived and was sound, also on failure. WL_ERROR_CLUSTER: refused, damaged again and again, nothing arrives, disk
 * full, cancelled; whatever has arrived is recorded then. */
bool weight_fetch (weight_store *store, const weight_fetch_options *options, const weight_range *ranges,
                   size_t n_ranges, uint64_t *shipped_bytes, wl_error *err);

#endif
