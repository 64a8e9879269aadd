/* One plan as this worker carries it out: the Load message, and everything opened for it. */
#ifndef WL_WORKER_PLAN_H
#define WL_WORKER_PLAN_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "engine/gguf.h"
#include "engine/model.h"
#include "engine/pack_cache.h"
#include "engine/stage.h"
#include "engine/text/sampler.h"
#include "engine/thread_pool.h"
#include "model_source.h"
#include "proto/hop.h"
#include "proto/wire.h"

/* Packing a smaller model takes less than a second. */
#define PLAN_PACK_LEAST_BYTES (UINT64_C (512) << 20)

/* What a worker brings to any plan. */
typedef struct plan_offer {
    model_source_options source; /* where models come from */
    const char *isa;             /* NULL: the best */
    uint32_t n_threads;          /* 0: all cores */
    uint64_t memory_bytes;
    uint64_t pack_least_bytes; /* of a model, for its packed weights to be kept; 0: PLAN_PACK_LEAST_BYTES */
    bool no_pack_cache;
    bool is_local; /* of several workers of a coordinator on this host one speaks for all */
} plan_offer;

/* Memory for what is on its way out. ZeroMQ reads it until it calls release, from its I/O thread. */
typedef struct send_buffer {
    void *data; /* f32 logits [rows, stride], or activations as the plan's hop says */
    size_t bytes;
    atomic_bool
        in_use; /* set by the data thread; cleared, with release order, by ZeroMQ's through plan_buffer_release */
} send_buffer;

enum { PLAN_SEND_BUFFERS = 3 };

typedef struct plan {
    Woolly__Control *order; /* owned; its `load` */
    uint64_t epoch;
    uint32_t max_rows, max_logit_rows;
    wl_hop hop;
    bool embeds, heads; /* first, last stage */
    bool complains;     /* says on stderr when its cache does not work */
    const char *isa;

    model_source source;
    const wl_model *model; /* source's */
    wl_thread_pool *pool;
    wl_pack_cache *pack_cache; /* NULL: none is kept */
    wl_stage *stage;
    wl_sampler *sampler; /* last stage */
    zsock_t *next;       /* PUSH; the data thread's */
    send_buffer *buffers[PLAN_SEND_BUFFERS];
    uint32_t n_buffers;

    /* work space of one step */
    wl_span *spans;          /* [max_rows] */
    uint32_t *logit_rows;    /* [max_rows] */
    wl_sample *drawn;        /* [max_logit_rows], last stage */
    Woolly__Sample *samples; /* [max_logit_rows], whose arrays are drawn's */
    Woolly__Sample **sample_places;
    float *arrived,
        *leaving; /* [max_rows, d_model] activations before and behind the stage; NULL where hops carry f32 */
    Woolly__Timing **timing_places; /* [n_timing_room] */
    size_t n_timing_room;

    uint64_t last_id;       /* of the newest step */
    uint64_t idle_since_ns; /* when that step was passed on */
    bool failed;            /* reported; further steps are dropped */
} plan;

/* Opens everything that `order` (taken over, also on failure) asks for. On failure nothing is left open. */
bool plan_open (plan *p, Woolly__Control *order, const plan_offer *offer, const load_progress *progress, wl_error *err);
void plan_close (plan *p);

/* A buffer that nobody reads, marked as in use; NULL if all are on their way. */
send_buffer *plan_buffer_take (plan *p);
/* The release function of wl_step_send; `context` is the send_buffer. */
void plan_buffer_release (void *bytes, void *context);

#endif
