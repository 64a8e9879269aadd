/* Messages of the weights link; see weights.h. */
#include "weights.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "engine/memory.h"
#include "wire_private.h"

void wl_weights_hash (const void *bytes, size_t length, uint8_t hash[WL_WEIGHTS_HASH_BYTES])
{
    crypto_generichash (hash, WL_WEIGHTS_HASH_BYTES, bytes, length, NULL, 0);
}

/* -- holdings ----------------------------------------------------------------------------------------------------------------------------- */

bool wl_weights_hold (const wl_weights_range *ranges, size_t n, uint32_t part, uint64_t offset, uint32_t length)
{
    size_t low = 0, high = n; /* the last range that begins no later */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const wl_weights_range *r = &ranges[middle];
        if (r->part < part || (r->part == part && r->offset <= offset))
            low = middle + 1;
        else
            high = middle;
    }
    if (low == 0)
        return false;
    const wl_weights_range *r = &ranges[low - 1];
    return r->part == part && length <= r->bytes && offset - r->offset <= r->bytes - length;
}

static uint8_t *put_number (uint8_t *out, uint64_t number, int n_bytes)
{
    for (int i = 0; i < n_bytes; i++)
        *out++ = (uint8_t) (number >> 8 * i);
    return out;
}

static uint64_t get_number (const uint8_t *bytes, int n_bytes)
{
    uint64_t number = 0;
    for (int i = 0; i < n_bytes; i++)
        number |= (uint64_t) bytes[i] << 8 * i;
    return number;
}

void wl_weights_holdings_pack (const wl_weights_range *ranges, size_t n, uint8_t *out)
{
    for (size_t i = 0; i < n; i++) {
        out = put_number (out, ranges[i].part, 4);
        out = put_number (out, ranges[i].offset, 8);
        out = put_number (out, ranges[i].bytes, 8);
    }
}

/* Whether a range is one, and lies behind the one before it. */
static bool follows (const wl_weights_range *before, const wl_weights_range *r)
{
    uint64_t end;
    if (r->bytes == 0 || __builtin_add_overflow (r->offset, r->bytes, &end))
        return false;
    return !before || before->part < r->part ||
           (before->part == r->part && before->offset + before->bytes <= r->offset);
}

wl_weights_range *wl_weights_holdings_unpack (const uint8_t *bytes, size_t length, size_t *n, wl_error *err)
{
    size_t count = length / WL_WEIGHTS_RANGE_BYTES;
    if (length % WL_WEIGHTS_RANGE_BYTES || count > WL_WEIGHTS_MAX_HELD) {
        wl_fail (err, WL_ERROR_CLUSTER, "%zu bytes are no list of weights that a worker has", length);
        return NULL;
    }
    wl_weights_range *ranges = wl_new (count, sizeof *ranges, err);
    for (size_t i = 0; ranges && i < count; i++) {
        const uint8_t *at = bytes + i * WL_WEIGHTS_RANGE_BYTES;
        ranges[i] = (wl_weights_range){(uint32_t) get_number (at, 4), get_number (at + 4, 8), get_number (at + 12, 8)};
        if (!follows (i ? &ranges[i - 1] : NULL, &ranges[i])) {
            wl_fail (err, WL_ERROR_CLUSTER, "range %zu of the weights that a worker has is out of order", i);
            free (ranges);
            return NULL;
        }
    }
    *n = count;
    return ranges;
}

/* -- messages ----------------------------------------------------------------------------------------------------------------------------- */

static bool refused (wl_error *err)
{
    return wl_fail (err, WL_ERROR_CLUSTER, "weights cannot be passed on: %s",
                    errno == EHOSTUNREACH ? "the peer is gone" : zmq_strerror (errno));
}

bool wl_weights_ask (zsock_t *link, const Woolly__WeightsAsk *ask, wl_error *err)
{
    zmq_msg_t frame;
    if (!wire_encode (&ask->base, &frame, err))
        return false;
    if (zmq_msg_send (&frame, zsock_resolve (link), ZMQ_DONTWAIT) >= 0)
        return true;
    refused (err);
    zmq_msg_close (&frame);
    return false;
}

bool wl_weights_send (zsock_t *link, zframe_t *peer, const Woolly__WeightsChunk *chunk, void *bytes, size_t length,
                      void (*release) (void *bytes, void *context), void *context, wl_error *err)
{
    void *socket = zsock_resolve (link);
    zmq_msg_t head;
    bool encoded = wire_encode (&chunk->base, &head, err);
    bool sent = encoded && zmq_send (socket, zframe_data (peer), zframe_size (peer), ZMQ_DONTWAIT | ZMQ_SNDMORE) >= 0 &&
                zmq_msg_send (&head, socket, ZMQ_DONTWAIT | ZMQ_SNDMORE) >= 0;
    if (sent)
        return wire_send_payload (socket, bytes, length, release, context, err);
    if (encoded) {
        refused (err);
        zmq_msg_close (&head);
    }
    if (release)
        release (bytes, context);
    return false;
}

Woolly__WeightsAsk *wl_weights_receive_ask (zsock_t *link, zframe_t **peer, wl_error *err)
{
    Woolly__WeightsAsk *ask = NULL;
    zmq_msg_t frames[2];
    *peer = NULL;
    zmq_msg_init (&frames[0]);
    zmq_msg_init (&frames[1]);
    if (wire_receive_frames (link, frames, 2, err))
        ask = wl_weights_ask_decode (zmq_msg_data (&frames[1]), zmq_msg_size (&frames[1]), err);
    if (ask) {
        *peer = zframe_new (zmq_msg_data (&frames[0]), zmq_msg_size (&frames[0]));
        if (!*peer) {
            wl_fail (err, WL_ERROR_INTERNAL, "out of memory: a routing id");
            wl_weights_ask_free (&ask);
        }
    }
    zmq_msg_close (&frames[0]);
    zmq_msg_close (&frames[1]);
    return ask;
}

bool wl_weights_receive_chunk (zsock_t *link, int timeout_ms, wl_weights_chunk *out, wl_error *err)
{
    zmq_msg_t frames[2];
    memset (out, 0, sizeof *out);
    zmq_msg_init (&frames[0]);
    zmq_msg_init (&frames[1]);
    if (wire_wait (link, ZMQ_POLLIN, timeout_ms, err) && wire_receive_frames (link, frames, 2, err))
        out->header = wl_weights_chunk_decode (zmq_msg_data (&frames[0]), zmq_msg_size (&frames[0]), err);
    if (out->header) {
        zmq_msg_init (&out->frame);
        zmq_msg_move (&out->frame, &frames[1]);
        out->bytes = zmq_msg_data (&out->frame);
        out->length = zmq_msg_size (&out->frame);
    }
    zmq_msg_close (&frames[0]);
    zmq_msg_close (&frames[1]);
    return out->header != NULL;
}

void wl_weights_chunk_free (wl_weights_chunk *chunk)
{
    if (chunk->header)
        zmq_msg_close (&chunk->frame);
    wl_weights_header_free (&chunk->header);
    memset (chunk, 0, sizeof *chunk);
}
