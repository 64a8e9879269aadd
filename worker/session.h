/* A worker's life: join a coordinator, carry out its plans, go back to waiting when it is gone. */
#ifndef WL_WORKER_SESSION_H
#define WL_WORKER_SESSION_H

#include "plan.h"

typedef struct session_options {
    const char *join;  /* --join */
    const char *token; /* --token; NULL: none */
    const char *name;
    bool insecure;
    bool is_local;      /* started by a coordinator: silent, and ends with it */
    const char *folder; /* for ipc sockets; NULL for a worker joined over tcp */
    bool measures_anew; /* --measure */
    plan_offer offer;
} session_options;

typedef enum session_end {
    SESSION_FAILED, /* err says why */
    SESSION_LEFT,   /* everything is closed */
    SESSION_BUSY,   /* left, but the data thread is in the middle of something long: exit without waiting for it */
} session_end;

/* Runs until a byte arrives on wake_end (a signal), the coordinator sends a local worker away, or something fails for good (refused, cannot listen). The
 * calling thread is the control thread: it owns the control socket and never computes. */
session_end session_run (const session_options *options, int wake_end, wl_error *err);

#endif
