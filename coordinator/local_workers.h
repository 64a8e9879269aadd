/* Workers as processes on this machine: started, watched, ended.
 *
 * A worker holds the read end of a pipe whose write end is here. When this process ends, whatever killed it, the kernel closes the write end and the worker
 * exits at once; no signal or clean-up code has to run for that. */
#ifndef WL_COORDINATOR_LOCAL_WORKERS_H
#define WL_COORDINATOR_LOCAL_WORKERS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "engine/error.h"

typedef struct local_worker {
    pid_t pid;   /* 0: none, or its end was seen */
    int life_fd; /* write end of its pipe; -1: closed */
} local_worker;

/* `given`, or woolly-worker beside this program; malloc'd. WL_ERROR_CLUSTER naming the path if that is nothing to execute. */
char *local_worker_binary (const char *given, wl_error *err);

typedef struct local_worker_options {
    const char *binary;
    const char *control_endpoint; /* ipc */
    const char *name;
    uint32_t n_threads;
} local_worker_options;

bool local_worker_start (local_worker *worker, const local_worker_options *options, wl_error *err);
/* Whether it has ended, without waiting; *status as from waitpid. */
bool local_worker_ended (local_worker *worker, int *status);
/* Closes the pipe: it exits at once, unless it is stopped. */
void local_worker_release (local_worker *worker);
/* Ends it for certain and waits for that. */
void local_worker_kill (local_worker *worker);
/* "was killed by signal 9", "ended with exit code 3" */
void local_worker_describe (int status, char *text, size_t room);

#endif
