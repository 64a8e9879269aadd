/* Where a worker has the model from: its own copy of the file, else what it was sent before, else other workers and the coordinator.
 *
 * Two steps, so that what does not fit is refused before anything is sent. model_source_open finds the file, or gets its header: sizes and shapes
 * are known then, and others may have of it what was there. model_source_fill has the tensors of a range of layers sent where they are missing. Thread: the data thread. */
#ifndef WL_WORKER_MODEL_SOURCE_H
#define WL_WORKER_MODEL_SOURCE_H

#include "engine/gguf.h"
#include "engine/model.h"
#include "proto/weight_server.h"
#include "weight_fetch.h"
#include "weight_store.h"

typedef struct model_source_options {
    const char *model_dir;    /* where to look for models first; NULL: nowhere */
    const char *cache;        /* folder for shipped weights; NULL: as wl_cache_folder */
    uint64_t cache_bytes;     /* its bound; 0: as wl_cache_make_room */
    bool check_cache;         /* compare all that is used of it with its hashes */
    wl_weight_server *server; /* where other workers get what this one has; NULL: nowhere */
} model_source_options;

typedef struct model_source {
    wl_gguf *gguf;
    wl_model *model;
    weight_store *store; /* NULL: the worker's own file */
    Woolly__WeightsFrom from;
    weight_shipped shipped;
    uint64_t shipping_ns;
    wl_weight_server *server; /* that offers it; NULL: none does */
} model_source;

/* The model of `load`. WL_ERROR_CLUSTER where it is not to be had; WL_ERROR_INPUT where it is damaged. On failure nothing is left open. */
bool model_source_open (model_source *source, const Woolly__Load *load, const model_source_options *options,
                        const load_progress *progress, wl_error *err);

/* Sees to it that the tensors of the load's layers are there. gguf and model may be other ones after it. */
bool model_source_fill (model_source *source, const Woolly__Load *load, const model_source_options *options,
                        const load_progress *progress, wl_error *err);

void model_source_close (model_source *source);

#endif
