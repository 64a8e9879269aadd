/* Ships weights to workers that lack them, while they load: a thread that answers what they ask for from the mapped model file.
 *
 * It has sockets of its own, one over ipc for local workers and one over tcp where others may join, so that no heartbeat waits behind a megabyte. Workers ask for what
 * they have room for, and a queue of answers is bounded, so its memory is too, whoever asks. Whoever does not know the plan's epoch is not answered.
 * Functions are for one thread; the sockets are the server's thread's once it runs. */
#ifndef WL_COORDINATOR_WEIGHT_SERVER_H
#define WL_COORDINATOR_WEIGHT_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/gguf.h"
#include "proto/weights.h"

typedef struct weight_server weight_server;

typedef struct weight_server_options {
    const wl_gguf *gguf; /* outlives the server */
    const char *folder;  /* for the ipc socket; NULL: no local workers */
    const char *listen;  /* "tcp://HOST:PORT" of the control link, whose host it binds; NULL: no others */
    uint64_t epoch;
} weight_server_options;

weight_server *weight_server_new (const weight_server_options *options, wl_error *err);
void weight_server_free (weight_server **server);

enum { WEIGHT_ENDPOINT_BYTES = 256 };

/* Where the worker with this data endpoint reaches it. */
bool weight_server_endpoint (const weight_server *server, const char *data_endpoint,
                             char endpoint[WEIGHT_ENDPOINT_BYTES], wl_error *err);

#endif
