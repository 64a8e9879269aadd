/* The control plane of a coordinator: an actor that owns the ROUTER sockets and the local processes, answers whoever says Hello, beats, and notices who is
 * gone. cluster.c asks it for what it needs; whatever changes is announced on the wake pipe, so the caller sleeps in one poll.
 *
 * Two ROUTERs: one over ipc in a folder that only this user may enter, for local workers, and one over tcp where --listen asks for it; so nobody from
 * outside can pass for a local worker. Functions are for one thread, the one that called control_new. */
#ifndef WL_COORDINATOR_CLUSTER_CONTROL_H
#define WL_COORDINATOR_CLUSTER_CONTROL_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/error.h"
#include "engine/kernels/kernels.h"
#include "engine/model.h"
#include "engine/speed.h"
#include "proto/hop.h"
#include "proto/wire.h"

typedef struct control control;

typedef struct control_options {
    const char *folder; /* for ipc sockets; the caller's to remove, after control_free; NULL: no local workers */
    const char *listen; /* "tcp://…" as from wl_link_address; NULL: no others */
    int wake_end;       /* signalled on every change */
} control_options;

/* Binds and starts the actor. Strings are borrowed. */
control *control_new (const control_options *options, wl_error *err);
/* Sends everyone away, and returns when no local process is left: told to leave, cut off after 300 ms, killed after 1 s. */
void control_free (control **c);

/* Starts n local workers, named local-1 and so on. */
bool control_start_local (control *c, const char *binary, uint32_t n, uint32_t n_threads, wl_error *err);

typedef struct control_member {
    uint32_t id;     /* for the functions below */
    uint32_t number; /* of a local worker, from 1; 0: it joined by itself */
    char name[96];
    char isa[16];
    char data_endpoint[256];
    char weights_endpoint[256]; /* where others get the weights that it has; "": nowhere */
    uint32_t n_threads;
    uint64_t memory_bytes;
    char machine[40];    /* the same for all on one machine; "": it did not say */
    wl_speed own, whole; /* measured with its threads, and with all cores of its machine */
    bool own_known, own_cached, whole_known;
    bool link_pending, link_known;           /* being measured; measured */
    double link_latency_s, link_bytes_per_s; /* one way */
    /* once loaded */
    uint64_t weight_bytes, rss_bytes, busy_ns;
    uint64_t shipped_bytes, from_workers_bytes, shipping_ns;
    Woolly__WeightsFrom weights;
    uint64_t kept_bytes, mapped_bytes; /* as in cluster.h */
} control_member;

/* Members that have joined and have no layers yet, in the order of joining: fills at most `room`, returns how many there are. */
size_t control_joined (control *c, control_member *out, size_t room);
/* Why the last worker that was not let in was refused; "" if none was. */
void control_last_refusal (control *c, char *text, size_t room);

typedef struct control_stage {
    uint32_t member; /* its id */
    uint32_t first_layer, last_layer;
    uint32_t n_threads;
    const char *next_endpoint;
    const char *weights_endpoint;
    char *const *weights_peers; /* [n_weights_peers] */
    uint32_t n_weights_peers;
} control_stage;

typedef struct control_plan {
    uint64_t epoch;
    const char *model_path, *isa; /* isa "": the workers' choice */
    const uint8_t *fingerprint;
    Woolly__ModelPart **parts; /* [n_parts], the model's files */
    size_t n_parts;
    uint32_t n_pages, max_rows, max_logit_rows, context;
    bool no_pack_cache;
    wl_hop hop;
    wl_kv_type kv;
    wl_rope_order rope;
    const control_stage *stages;
    uint32_t n_stages;
} control_plan;

/* Has everyone load. The plan is borrowed until control_free. */
void control_load (control *c, const control_plan *plan);
typedef struct control_progress {
    uint32_t n_ready;
    uint64_t packed_bytes;                  /* of all stages */
    uint32_t n_arriving, n_checking;        /* stages whose weights are on their way, or compared with their hashes */
    uint64_t arrived_bytes, arriving_bytes; /* done and total of the former */
    uint64_t from_workers_bytes;            /* of arrived_bytes */
    uint64_t checked_bytes, checking_bytes; /* of the latter */
} control_progress;

/* How far they are. */
control_progress control_load_progress (control *c);

/* True, with the reason in err, once anything has failed that the plan (or the start) depends on. */
bool control_failed (control *c, wl_error *err);

/* Tells everyone in the plan that these steps need not be computed any more. Does not wait; what cannot be told at once is left out, which only costs time. */
void control_cancel (control *c, uint64_t first_id, uint64_t last_id);

/* What to take from a member's clock to have this process's (monotonic, both); 0 for those on this host and as long as it is not known. */
int64_t control_clock_offset (control *c, uint32_t member);

/* One member's figures; asks it for fresh ones and waits for them at most timeout_ms. */
bool control_describe (control *c, uint32_t member, int wake_fd, int timeout_ms, control_member *out);

#endif
