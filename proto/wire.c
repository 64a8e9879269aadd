/* Sending and receiving messages; see wire.h.
 *
 * A message's frames are read into zmq_msg_t, whose memory is ZeroMQ's own receive buffer, so activations are not copied on arrival. Sends poll first and
 * then use ZMQ_DONTWAIT: a multi-part message is started only when its peer has room for all of it. */
#include "wire.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/memory.h"
#include "wire_private.h"

static bool failed (wl_error *err, const char *what)
{
    return wl_fail (err, WL_ERROR_CLUSTER, "%s: %s", what, zmq_strerror (errno));
}

bool wire_wait (zsock_t *link, short event, int timeout_ms, wl_error *err)
{
    zmq_pollitem_t item = {.socket = zsock_resolve (link), .events = event};
    int ready = 0;
    size_t length = sizeof ready;
    if (zmq_getsockopt (item.socket, ZMQ_EVENTS, &ready, &length) == 0 && (ready & event))
        return true; /* as nearly always: without the system call of a poll */
    int n = zmq_poll (&item, 1, timeout_ms);
    if (n < 0 && errno != EINTR)
        return failed (err, "waiting on a socket failed");
    return n > 0 && (item.revents & event);
}

/* -- receiving ------------------------------------------------------------------------------------------------------------------------- */

bool wire_receive_frames (zsock_t *link, zmq_msg_t *frames, size_t n, wl_error *err)
{
    void *socket = zsock_resolve (link);
    size_t got = 0;
    bool more = true;
    while (more) {
        zmq_msg_t surplus;
        zmq_msg_t *frame = got < n ? &frames[got] : &surplus;
        if (frame == &surplus)
            zmq_msg_init (frame);
        if (zmq_msg_recv (frame, socket, ZMQ_DONTWAIT) < 0) {
            bool nothing = got == 0 && (errno == EAGAIN || errno == EINTR);
            if (!nothing)
                failed (err, "receiving failed");
            if (frame == &surplus)
                zmq_msg_close (frame);
            return false;
        }
        more = zmq_msg_more (frame);
        if (frame == &surplus)
            zmq_msg_close (frame);
        got++;
    }
    if (got != n)
        return wl_fail (err, WL_ERROR_CLUSTER, "a message of %zu frames, where %zu are expected", got, n);
    return true;
}

Woolly__Control *wl_control_receive (zsock_t *link, zframe_t **peer, int timeout_ms, wl_error *err)
{
    Woolly__Control *message = NULL;
    zmq_msg_t frames[2];
    bool routed = zsock_type (link) == ZMQ_ROUTER;
    zmq_msg_t *body = &frames[routed ? 1 : 0];
    if (peer)
        *peer = NULL;
    zmq_msg_init (&frames[0]);
    zmq_msg_init (&frames[1]);
    if (!wire_wait (link, ZMQ_POLLIN, timeout_ms, err) || !wire_receive_frames (link, frames, routed ? 2 : 1, err))
        goto done;
    message = wl_control_decode (zmq_msg_data (body), zmq_msg_size (body), err);
    if (message && routed && peer) {
        *peer = zframe_new (zmq_msg_data (&frames[0]), zmq_msg_size (&frames[0]));
        if (!*peer) {
            wl_fail (err, WL_ERROR_INTERNAL, "out of memory: a routing id");
            wl_control_free (&message);
        }
    }
done:
    zmq_msg_close (&frames[0]);
    zmq_msg_close (&frames[1]);
    return message;
}

/* Small frames arrive somewhere inside a shared buffer: moves those that floats could not be read from. */
static bool align_payload (zmq_msg_t *frame, wl_error *err)
{
    zmq_msg_t moved;
    size_t length = zmq_msg_size (frame);
    if (length == 0 || (uintptr_t) zmq_msg_data (frame) % sizeof (float) == 0)
        return true;
    if (zmq_msg_init_size (&moved, length) != 0)
        return failed (err, "out of memory for a payload");
    memcpy (zmq_msg_data (&moved), zmq_msg_data (frame), length);
    zmq_msg_move (frame, &moved);
    zmq_msg_close (&moved);
    return true;
}

static bool receive_packet (zsock_t *link, int timeout_ms, bool wants_step, wl_packet *out, wl_error *err)
{
    bool ok = false;
    zmq_msg_t frames[2];
    memset (out, 0, sizeof *out);
    zmq_msg_init (&frames[0]);
    zmq_msg_init (&frames[1]);
    if (!wire_wait (link, ZMQ_POLLIN, timeout_ms, err) || !wire_receive_frames (link, frames, 2, err) ||
        !align_payload (&frames[1], err))
        goto done;
    if (wants_step)
        out->step = wl_step_decode (zmq_msg_data (&frames[0]), zmq_msg_size (&frames[0]), err);
    else
        out->result = wl_result_decode (zmq_msg_data (&frames[0]), zmq_msg_size (&frames[0]), err);
    if (!out->step && !out->result)
        goto done;
    zmq_msg_init (&out->payload_frame);
    zmq_msg_move (&out->payload_frame, &frames[1]);
    out->payload = zmq_msg_data (&out->payload_frame);
    out->payload_bytes = zmq_msg_size (&out->payload_frame);
    ok = true;
done:
    zmq_msg_close (&frames[0]);
    zmq_msg_close (&frames[1]);
    return ok;
}

bool wl_step_receive (zsock_t *link, int timeout_ms, wl_packet *out, wl_error *err)
{
    return receive_packet (link, timeout_ms, true, out, err);
}

bool wl_result_receive (zsock_t *link, int timeout_ms, wl_packet *out, wl_error *err)
{
    return receive_packet (link, timeout_ms, false, out, err);
}

void wl_packet_free (wl_packet *packet)
{
    if (packet->payload)
        zmq_msg_close (&packet->payload_frame);
    wl_step_free (&packet->step);
    wl_result_free (&packet->result);
    memset (packet, 0, sizeof *packet);
}

/* -- sending ----------------------------------------------------------------------------------------------------------------------------- */

bool wire_encode (const ProtobufCMessage *message, zmq_msg_t *frame, wl_error *err)
{
    size_t length = protobuf_c_message_get_packed_size (message);
    if (length > WL_HEADER_LIMIT)
        return wl_fail (err, WL_ERROR_INTERNAL, "a %s message of %zu bytes, where at most %d are allowed",
                        message->descriptor->short_name, length, WL_HEADER_LIMIT);
    if (zmq_msg_init_size (frame, length) != 0)
        return failed (err, "out of memory for a message");
    protobuf_c_message_pack (message, zmq_msg_data (frame));
    return true;
}

bool wl_control_send (zsock_t *link, zframe_t *peer, const Woolly__Control *message, wl_error *err)
{
    void *socket = zsock_resolve (link);
    zmq_msg_t frame;
    if (!wire_encode (&message->base, &frame, err))
        return false;
    bool ok = !peer || zmq_send (socket, zframe_data (peer), zframe_size (peer), ZMQ_DONTWAIT | ZMQ_SNDMORE) >= 0;
    ok = ok && zmq_msg_send (&frame, socket, ZMQ_DONTWAIT) >= 0;
    if (!ok) {
        failed (err, errno == EHOSTUNREACH ? "the peer is gone" : "a control message could not be sent");
        zmq_msg_close (&frame);
    }
    return ok;
}

bool wire_send_payload (void *socket, void *payload, size_t payload_bytes, void (*release) (void *bytes, void *context),
                        void *context, wl_error *err)
{
    zmq_msg_t body;
    if (release ? zmq_msg_init_data (&body, payload, payload_bytes, release, context)
                : zmq_msg_init_size (&body, payload_bytes)) {
        failed (err, "out of memory for a payload");
        zmq_send (socket, NULL, 0, ZMQ_DONTWAIT);
        if (release)
            release (payload, context);
        return false;
    }
    if (!release && payload_bytes)
        memcpy (zmq_msg_data (&body), payload, payload_bytes);
    if (zmq_msg_send (&body, socket, ZMQ_DONTWAIT) >= 0)
        return true;
    failed (err, "the rest of a step could not be sent");
    zmq_msg_close (&body);
    return false;
}

static bool send_packet (zsock_t *link, const ProtobufCMessage *header, void *payload, size_t payload_bytes,
                         void (*release) (void *bytes, void *context), void *context, int timeout_ms, wl_error *err)
{
    void *socket = zsock_resolve (link);
    zmq_msg_t head;
    bool encoded = false, sent = false;
    if (wire_wait (link, ZMQ_POLLOUT, timeout_ms, err)) {
        encoded = wire_encode (header, &head, err);
        sent = encoded && zmq_msg_send (&head, socket, ZMQ_DONTWAIT | ZMQ_SNDMORE) >= 0;
        if (encoded && !sent && errno != EAGAIN &&
            errno != EINTR) /* those two: the peer left since the poll, and may be back */
            failed (err, "a step could not be sent");
    }
    if (sent)
        return wire_send_payload (socket, payload, payload_bytes, release, context, err);
    if (encoded)
        zmq_msg_close (&head);
    if (err->code != WL_OK && release)
        release (payload, context);
    return false;
}

bool wl_step_send (zsock_t *link, const Woolly__Step *step, void *payload, size_t payload_bytes,
                   void (*release) (void *bytes, void *context), void *context, int timeout_ms, wl_error *err)
{
    return send_packet (link, &step->base, payload, payload_bytes, release, context, timeout_ms, err);
}

bool wl_result_send (zsock_t *link, const Woolly__Result *result, void *payload, size_t payload_bytes,
                     void (*release) (void *bytes, void *context), void *context, int timeout_ms, wl_error *err)
{
    return send_packet (link, &result->base, payload, payload_bytes, release, context, timeout_ms, err);
}
