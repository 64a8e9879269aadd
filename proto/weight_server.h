/* Ships weights to workers that lack them, while they load: a thread that answers what they ask for. The coordinator's offers the whole model; a worker's what it has: its own
 * copy of the file, or what it was sent before.
 *
 * It has sockets of its own, one over ipc for local workers and one over tcp where others may join, so that no heartbeat waits behind a megabyte. Workers ask for what
 * they have room for, and a queue of answers is bounded, so its memory is too, whoever asks. Whoever does not know the plan's epoch is not answered.
 * Functions are for one thread at a time; the sockets are the server's thread's once it runs. */
#ifndef WL_PROTO_WEIGHT_SERVER_H
#define WL_PROTO_WEIGHT_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/gguf.h"
#include "proto/weights.h"

typedef struct wl_weight_server wl_weight_server;

typedef struct wl_weight_server_options {
    const char *folder; /* for the ipc socket; NULL: no local workers */
    const char *listen; /* "tcp://HOST:PORT" of another socket, whose host it binds; NULL: no others */
} wl_weight_server_options;

/* It offers nothing yet. The strings are not kept. */
wl_weight_server *wl_weight_server_new (const wl_weight_server_options *options, wl_error *err);
void wl_weight_server_free (wl_weight_server **server);

/* Weights to be had under a plan's epoch. */
typedef struct wl_weight_offer {
    uint64_t epoch;
    const wl_weights_range *
        ranges; /* [n_ranges] ascending and apart from each other; copied. Of more than WL_WEIGHTS_MAX_HELD the rest is not told of */
    size_t n_ranges;
    /* Reads bytes that lie in one of the ranges; false where that fails. Called by the server's thread until wl_weight_server_withdraw has returned. */
    bool (*read) (void *context, uint32_t part, uint64_t offset, uint32_t length, uint8_t *out);
    void *context;
} wl_weight_offer;

/* Replaces what was offered before. */
bool wl_weight_server_offer (wl_weight_server *server, const wl_weight_offer *offer, wl_error *err);
/* Offers all of a model, which must stay until it is withdrawn. */
bool wl_weight_server_offer_model (wl_weight_server *server, uint64_t epoch, const wl_gguf *gguf, wl_error *err);
void wl_weight_server_withdraw (wl_weight_server *server);

enum { WL_WEIGHT_ENDPOINT_BYTES = 256 };

/* Where the worker with this data endpoint reaches it. */
bool wl_weight_server_endpoint (const wl_weight_server *server, const char *data_endpoint,
                                char endpoint[WL_WEIGHT_ENDPOINT_BYTES], wl_error *err);

#endif
