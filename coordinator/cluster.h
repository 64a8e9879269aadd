/* The cluster as the coordinator sees it: workers started or joined, the plan carried out, steps in, results out.
 *
 * wl_cluster_start brings up workers (local processes, or whoever joins on --listen), asks the planner for a split, has every stage load, and returns when all
 * are ready. Heartbeats run in an actor thread of their own, so a worker that is stopped, hung, unreachable or dead is noticed within 3 s whatever the caller
 * is doing; the next call then fails with WL_ERROR_CLUSTER naming it. Local workers hold the read end of a pipe whose write end lives in this process: they
 * end when it does, whatever killed it.
 *
 * Thread: all functions from the thread that started it, except wl_cluster_interrupt. */
#ifndef WL_COORDINATOR_CLUSTER_H
#define WL_COORDINATOR_CLUSTER_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/error.h"
#include "engine/gguf.h"
#include "engine/kernels/kernels.h"
#include "engine/model.h"
#include "proto/hop.h"
#include "proto/wire.h"

/* The cluster flags, the same for every command (DESIGN.md section 3). */
typedef struct wl_cluster_options {
    uint32_t n_local; /* --local, 1 by default; ignored with --listen unless given */
    bool local_given;
    const char *listen;        /* --listen HOST:PORT; NULL: local only */
    uint32_t min_workers;      /* --min-workers */
    const char *layers;        /* --layers 0-19,20-39; NULL: the planner's */
    uint32_t n_threads;        /* --threads per worker; 0: the machine's cores shared out */
    uint32_t context;          /* --ctx; 0: the command's need */
    float join_timeout_s;      /* --join-timeout, 60 by default */
    bool insecure;             /* --insecure: a plaintext listener beyond this host */
    const char *worker_binary; /* --worker-binary; NULL: woolly-worker beside this program */
    const char *isa;           /* --isa; NULL: the best of each worker */
    bool no_pack_cache;        /* --no-pack-cache */
    uint32_t chunk;            /* --chunk: rows of a prompt that a step carries; 0: chosen by length and stages */
    const char *speculation;   /* --spec; NULL: the default */
    uint32_t draft_threads;    /* --draft-threads, 1 by default */
    bool draft_always;         /* --draft-always */
    bool latency;              /* --objective latency; else throughput */
    bool use_all;              /* --use-all: nobody who joined is left out */
    bool measures_anew;        /* --measure: what this machine can do is not taken from the cache */
    bool plan_only;            /* nothing is loaded: for wl_cluster_planned */
    const char *trace;         /* --trace; NULL: none */
    wl_hop hop;                /* --hop */
    wl_kv_type kv;             /* --kv */
    bool no_prefix_cache;      /* --no-prefix-cache */
    uint32_t longest;          /* positions of the longest sequence, where `context` is of several; 0: the same */
} wl_cluster_options;

typedef struct wl_cluster_need { /* what the command will run */
    const wl_gguf *gguf;
    const wl_model *model;
    uint32_t n_pages;        /* KV pages */
    uint32_t max_rows;       /* rows of the largest step */
    uint32_t max_logit_rows; /* rows of a step whose logits are wanted */
    uint32_t context;        /* positions that sequences may reach */
} wl_cluster_need;

typedef struct wl_cluster_stage { /* for reports */
    char name[96];
    uint32_t first_layer, last_layer;
    uint32_t n_threads;
    char isa[16];
    uint64_t weight_bytes, rss_bytes;
    uint64_t kept_bytes;   /* of the weights: found packed in the worker's cache */
    uint64_t mapped_bytes; /* of rss_bytes: pages of files, which a host's processes share */
    uint64_t busy_ns;      /* computing, since it was loaded */
    uint64_t memory_bytes;
    bool is_local;                       /* on this machine, started by this process */
    uint64_t shipped_bytes, shipping_ns; /* weights that were sent to it, and the time that took */
    uint64_t from_workers_bytes;         /* of these: sent by other workers, the rest by the coordinator */
    const char *weights_from;            /* "file": its own copy; "cache": what it had been sent before; "shipped" */
} wl_cluster_stage;

typedef struct wl_cluster wl_cluster;

/* Shown while waiting and loading; NULL is allowed. `line` is a short progress text. Return true to give up (Ctrl-C): the start then fails with
 * WL_ERROR_CLUSTER "interrupted". */
typedef bool (*wl_cluster_progress_fn) (void *context, const char *line);

wl_cluster *wl_cluster_start (const wl_cluster_options *options, const wl_cluster_need *need,
                              wl_cluster_progress_fn progress, void *progress_context, wl_error *err);
/* Ends the plan: local workers are told to leave, waited for (killed after 1 s), remote ones go back to waiting for a coordinator. */
void wl_cluster_stop (wl_cluster **cluster);

/* What was planned, borrowed until the cluster stops: for reports. */
typedef struct wl_cluster_planned {
    const struct wl_plan_request *request;
    const struct wl_plan *plan;
    const struct wl_plan_input *input;
    const struct wl_prediction *prediction;
} wl_cluster_planned;
wl_cluster_planned wl_cluster_plan (const wl_cluster *cluster);

uint32_t wl_cluster_n_stages (const wl_cluster *cluster);
/* How many stages can compute at once: local ones share this machine's cores. */
uint32_t wl_cluster_n_parallel (const wl_cluster *cluster);
/* Fresh numbers (asks the heartbeat actor). */
void wl_cluster_stage_info (wl_cluster *cluster, uint32_t stage, wl_cluster_stage *out);

/* Sends one step to the first stage; fills epoch. Blocks while the queue is full, up to the detection of a failure. */
bool wl_cluster_send (wl_cluster *cluster, Woolly__Step *step, wl_error *err);
/* The next result of this epoch. Waits up to timeout_ms (-1: until something comes, or a worker fails). Returns false with err->code == WL_OK on a timeout, or when
 * wl_cluster_interrupt was called. out is freed by the caller with wl_packet_free. Results of other epochs and malformed ones are dropped. */
bool wl_cluster_receive (wl_cluster *cluster, int timeout_ms, wl_packet *out, wl_error *err);

/* The results of these steps are of no use any more: stages that have not begun one pass it on, and its result says so. Does not wait. */
void wl_cluster_cancel (wl_cluster *cluster, uint64_t first_id, uint64_t last_id);
/* What to take from the times of a stage's Timing to have this process's monotonic clock. */
int64_t wl_cluster_clock_offset (wl_cluster *cluster, uint32_t stage);

/* Wakes a waiting wl_cluster_receive. Async-signal-safe. */
void wl_cluster_interrupt (wl_cluster *cluster);

#endif
