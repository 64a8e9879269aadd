/* The weights of one model that a worker was sent, on its disk: an entry of the cache's folder (engine/cache_folder.h).
 *
 *   model.gguf   the model's own file, header and size, with holes for the tensors that were never sent; of a split model all parts:
 *                model-00001-of-00003.gguf, … So whatever opens GGUF files reads it as it is.
 *   index        what has arrived: records of 64 bytes, only ever appended, each with a checksum of its own
 *   lock         the folder's
 *
 * What is checked when. A chunk's hash is checked before it is written, and its record follows the bytes. Once all is there the files are flushed to the disk and a
 * record says so, with their time of change: as long as that is theirs, an opening reads the index alone. Where it is not (shipping broke off, a file
 * was touched, the machine crashed) every recorded chunk is read and compared with its hash; what differs is forgotten, and sent again. `check_all` has
 * that done in any case: it finds what a disk lost by itself.
 *
 * Several processes may fill one entry at once. Thread: the data thread, where nothing else is said. */
#ifndef WL_WORKER_WEIGHT_STORE_H
#define WL_WORKER_WEIGHT_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/error.h"
#include "proto/weights.h"

typedef struct weight_store weight_store;

typedef struct load_state {
    Woolly__LoadPhase phase;
    uint64_t done_bytes, total_bytes;
    uint64_t from_workers_bytes; /* of done_bytes, while weights arrive */
} load_state;

typedef struct load_progress {
    /* Called from time to time with what is being done; returning false ends it (WL_ERROR_CLUSTER "cancelled"). NULL: nobody asks */
    bool (*report) (void *context, const load_state *state);
    void *context;
    void (*warn) (void *context, const char *text); /* of what goes wrong and is got around; NULL: nobody listens */
} load_progress;

bool load_progress_report (const load_progress *progress, const load_state *state, wl_error *err);
void load_progress_warn (const load_progress *progress, const char *text);

/* Opens or makes the entry of the model with this fingerprint and these files, in `folder`, and holds it until it is closed. */
weight_store *weight_store_open (const char *folder, const uint8_t *fingerprint, Woolly__ModelPart *const *parts,
                                 size_t n_parts, bool check_all, const load_progress *progress, wl_error *err);
void weight_store_close (weight_store **store);

/* Where its first file is. */
const char *weight_store_path (const weight_store *store);

/* Whether a chunk is there. What was put since the opening is not looked for. */
bool weight_store_has (const weight_store *store, uint32_t part, uint64_t offset, uint32_t length);

/* What was there at the opening, ascending: a malloc'd array of *n. */
wl_weights_range *weight_store_held (const weight_store *store, size_t *n, wl_error *err);

/* Reads bytes that are there. Thread: any. */
bool weight_store_read (const weight_store *store, uint32_t part, uint64_t offset, uint32_t length, uint8_t *out);

/* Writes a chunk, whose hash the caller has checked, and records it. WL_ERROR_CLUSTER where the disk is full. */
bool weight_store_put (weight_store *store, uint32_t part, uint64_t offset, const void *bytes, uint32_t length,
                       const uint8_t hash[WL_WEIGHTS_HASH_BYTES], wl_error *err);

/* Flushes what was put, and records that; behind: in a thread that weight_store_close waits for, after which nothing may be put. The wait is the disk's: a process that
 * ends before leaves a store that the next opening checks. */
bool weight_store_settle (weight_store *store, wl_error *err);
void weight_store_settle_behind (weight_store *store);

#endif
