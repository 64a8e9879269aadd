/* Getting weights into the store from the coordinator and from other workers: asks for the chunks that are missing, a window of them at a time, checks and writes what
 * arrives.
 *
 * Each worker tells what it has. A chunk is asked of a worker that has it, the one with the fewest on their way, and only of the coordinator where none has it. What a worker
 * sent is written only if it has the hash that the coordinator says: nobody else is believed. So the coordinator reads the bytes, but sends 32 of a mebibyte.
 *
 * The window is the credit: neither side ever holds more than WL_WEIGHTS_WINDOW chunks, this one no more than WEIGHT_FETCH_SLOTS of all. A worker that breaks off, stalls or
 * sends other bytes is asked no more, with a warning, and its chunks are asked of others. The connection to the coordinator is made anew when it breaks or falls silent, and
 * what is outstanding asked for again. Thread: the data thread, which owns the sockets while it runs. */
#ifndef WL_WORKER_WEIGHT_FETCH_H
#define WL_WORKER_WEIGHT_FETCH_H

#include "weight_store.h"

enum { WEIGHT_FETCH_SLOTS = 24 };

typedef struct weight_fetch_options {
    const char *endpoint;     /* the coordinator's */
    const char *const *peers; /* [n_peers], at most WL_WEIGHTS_MAX_PEERS: other workers' */
    size_t n_peers;
    uint64_t epoch;
    const load_progress *progress;
    int stall_ms; /* of silence after which a worker is asked no more; 0: 10 s */
} weight_fetch_options;

typedef struct weight_shipped {
    uint64_t bytes;
    uint64_t from_workers_bytes; /* of these */
} weight_shipped;

/* What of the ranges is not in the store. */
uint64_t weight_fetch_missing (const weight_store *store, const wl_weights_range *ranges, size_t n_ranges);

/* Fetches all of that. *shipped grows by what has arrived and was sound, also on failure. WL_ERROR_CLUSTER: refused, damaged again and again, nothing arrives, disk
 * full, cancelled; whatever has arrived is recorded then. */
bool weight_fetch (weight_store *store, const weight_fetch_options *options, const wl_weights_range *ranges,
                   size_t n_ranges, weight_shipped *shipped, wl_error *err);

#endif
