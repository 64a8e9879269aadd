/* The weights link: a worker asks the coordinator, and workers that have them, for bytes of the model; see woolly.proto.
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
    WL_WEIGHTS_MAX_PEERS = 16,   /* workers that one worker may be told of */
    WL_WEIGHTS_RANGE_BYTES = 20, /* of one range of holdings */
    WL_WEIGHTS_MAX_HELD = WL_WEIGHTS_CHUNK_BYTES / WL_WEIGHTS_RANGE_BYTES,
};

/* Bytes of one of the model's files. */
typedef struct wl_weights_range {
    uint32_t part;
    uint64_t offset, bytes;
} wl_weights_range;

/* Whether ranges, ascending and apart from each other, hold all of these bytes. */
bool wl_weights_hold (const wl_weights_range *ranges, size_t n, uint32_t part, uint64_t offset, uint32_t length);

/* Holdings as they travel: of each range the part (32 bits), the offset and the bytes (64), little-endian. Packing fills n * WL_WEIGHTS_RANGE_BYTES. Unpacking gives a
 * malloc'd array of *n; NULL with WL_ERROR_CLUSTER where the bytes are no ascending ranges that lie apart. */
void wl_weights_holdings_pack (const wl_weights_range *ranges, size_t n, uint8_t *out);
wl_weights_range *wl_weights_holdings_unpack (const uint8_t *bytes, size_t length, size_t *n, wl_error *err);

/* BLAKE2b-256. */
void wl_weights_hash (const void *bytes, size_t length, uint8_t hash[WL_WEIGHTS_HASH_BYTES]);

/* Never block: false with WL_ERROR_CLUSTER when the message cannot be sent now. The bytes of a chunk are copied unless `release` is given, as of wl_step_send; it is called in
 * any case then. */
bool wl_weights_ask (zsock_t *link, const Woolly__WeightsAsk *ask, wl_error *err);
bool wl_weights_send (zsock_t *link, zframe_t *peer, const Woolly__WeightsChunk *chunk, void *bytes, size_t length,
                      void (*release) (void *bytes, void *context), void *context, wl_error *err);

/* On the answerer's ROUTER; *peer is malloc'd. As wl_control_receive about nothing and malformed. */
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
