/* The data plane of a worker: a thread that loads one stage at a time and carries steps through it.
 *
 * The thread owns the PULL socket, the plan and its PUSH socket. The control thread gives it orders and reads its events over the actor's pipe; neither ever
 * waits for the other, so heartbeats are answered while a step is computed or weights are packed. Functions below are the control thread's. */
#ifndef WL_WORKER_STAGE_LOOP_H
#define WL_WORKER_STAGE_LOOP_H

#include "plan.h"

typedef struct stage_loop stage_loop;

typedef enum stage_event_kind {
    STAGE_PROGRESS,
    STAGE_LOADED,
    STAGE_FAILED,  /* the plan of this epoch cannot go on */
    STAGE_DROPPED, /* a malformed message was thrown away */
    STAGE_WARNED,  /* something went wrong, and was got around */
    STAGE_ENDED,
} stage_event_kind;

typedef struct stage_event {
    stage_event_kind kind;
    uint64_t epoch;
    load_state state;      /* STAGE_PROGRESS */
    uint64_t weight_bytes; /* STAGE_LOADED, and the next six */
    weight_shipped shipped;
    uint64_t shipping_ns, kept_bytes;
    Woolly__WeightsFrom weights;
    uint32_t n_threads;
    char isa[16];
    wl_error error; /* STAGE_FAILED, STAGE_DROPPED, STAGE_WARNED */
} stage_event;

/* Starts the thread and binds its data socket to `address`; *endpoint (malloc'd) is what peers connect to. What the thread has of the model it offers on `server` (NULL:
 * nowhere). The offer's strings, the address and the server must outlive it. */
stage_loop *stage_loop_new (const plan_offer *offer, wl_weight_server *server, const char *address, char **endpoint,
                            wl_error *err);

/* Replaces whatever is loaded or loading; takes the message (a Load) over. */
void stage_loop_load (stage_loop *loop, Woolly__Control *order);
/* Lets go of the plan: a load is cancelled, a step under way is finished and thrown away. */
void stage_loop_drop (stage_loop *loop);

/* Steps first_id to last_id of this epoch need not be computed any more. */
void stage_loop_cancel (stage_loop *loop, uint64_t epoch, uint64_t first_id, uint64_t last_id);

/* For polling, and what has happened; false when there is nothing more. */
zsock_t *stage_loop_pipe (stage_loop *loop);
bool stage_loop_next_event (stage_loop *loop, stage_event *event);

/* Since the last load. */
void stage_loop_counters (stage_loop *loop, uint64_t *busy_ns, uint64_t *steps);

/* Drops the plan and ends the thread. False, with the thread left running, when it is still busy after patience_ms: the process had better exit. */
bool stage_loop_free (stage_loop **loop, int patience_ms);

#endif
