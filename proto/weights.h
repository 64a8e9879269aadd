/* The weights link: a worker asks the coordinator for bytes of the model; see woolly.proto.
 *
 * A chunk is the unit of everything: of a request, of an answer, of verification (BLAKE2b-256) and of what a worker's cache remembers. A header is cut into
 * chunks from its start, and so is each tensor, so that every split of a model asks for the same chunks and a later one finds those of an earlier. */
#ifndef WL_PROTO_WEIGHTS_H
#define WL_PROTO_WEIGHTS_H

#include "proto/wire.h"

enum {
    WL_WEIGHTS_CHUNK_BYTES = 1 << 20,
    WL_WEIGHTS_HASH_BYTES = 32,
    WL_WEIGHTS_WINDOW = 16,      /* chunks that a worker may have asked for and not yet received */
    WL_WEIGHTS_ASK_LIMIT = 4096, /* bytes of either message */
};

/* BLAKE2b-256. */
void wl_weights_hash (const void *bytes, size_t length, uint8_t hash[WL_WEIGHTS_HASH_BYTES]);

/* Never block: false with WL_ERROR_CLUSTER when the message cannot be sent now. The bytes of a chunk are copied unless `release` is given, as of wl_step_send; it is called in
 * any case then. */
bool wl_weights_ask (zsock_t *link, const Woolly__WeightsAsk *ask, wl_error *err);
bool wl_weights_send (zsock_t *link, zframe_t *peer, const Woolly__WeightsChunk *chunk, void *bytes, size_t length,
                      void (*release) (void *bytes, void *context), void *context, wl_error *err);

/* On the coordinator's ROUTER; *peer is malloc'd. As wl_control_receive about nothing and malformed. */
Woolly__WeightsAsk *wl_weights_receive_ask (zsock_t *link, zframe_t **peer, wl_error *err);
void wl_weights_ask_free (Woolly__WeightsAsk **ask);

/* A received chunk; zeroed by the caller before the first one. Its bytes stay in ZeroMQ's buffer until wl_weights_chunk_free. */
typedef struct wl_weights_chunk {
    Woolly__WeightsChunk *header;
    zmq_msg_t frame;
    const uint8_t *bytes;
    size_t length;
} wl_weights_chunk;

/* On the worker's DEALER, likewise. */
bool wl_weights_receive_chunk (zsock_t *link, int timeout_ms, wl_weights_chunk *out, wl_error *err);
void wl_weights_chunk_free (wl_weights_chunk *chunk);

/* For tests and fuzzers (decode.c). */
Woolly__WeightsAsk *wl_weights_ask_decode (const uint8_t *bytes, size_t length, wl_error *err);
Woolly__WeightsChunk *wl_weights_chunk_decode (const uint8_t *bytes, size_t length, wl_error *err);
void wl_weights_header_free (Woolly__WeightsChunk **header);

#endif
