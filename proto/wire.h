/* Frames on ZeroMQ sockets: bounded, typed, and without copies of what is large.
 *
 * Sockets are CZMQ's. Each belongs to the thread that opened it. Every receive checks the number of frames and their sizes before anything is
 * decoded, and protobuf-c decodes into an allocator with a cap (a small message can describe many objects), so nothing a peer sends can
 * make this process allocate more than WL_HEADER_DECODED_LIMIT for it, or crash. A malformed message is an error for the caller to log and drop, never fatal. */
#ifndef WL_PROTO_WIRE_H
#define WL_PROTO_WIRE_H

#include <czmq.h>
#include <stdbool.h>
#include <stdint.h>

#include "engine/error.h"
#include "proto/woolly.pb-c.h"

enum {
    WL_PROTOCOL = 1,
    WL_HEADER_LIMIT = 4 << 20,          /* bytes of a control message or a header frame */
    WL_HEADER_DECODED_LIMIT = 32 << 20, /* bytes its decoded form may take */
};

/* -- sockets ------------------------------------------------------------------------------------------------------------------- */

typedef enum wl_link_kind { WL_LINK_ROUTER, WL_LINK_DEALER, WL_LINK_PUSH, WL_LINK_PULL } wl_link_kind;

/* Opens a socket of this kind with the project's settings: MAXMSGSIZE (`largest_frame`), high-water marks, linger 0, TCP keepalive, IPv6 allowed, handshake
 * bound, reconnect backoff capped at 1 s. Not yet bound or connected. */
zsock_t *wl_link_new (wl_link_kind kind, size_t largest_frame, wl_error *err);

/* Binds; a tcp port of "*" (or 0) is chosen by the system. *endpoint (malloc'd) is what peers connect to, with `advertised_host` in place of a wildcard
 * address when not NULL. WL_ERROR_CLUSTER: "tcp://…: the port is in use: …". */
bool wl_link_bind (zsock_t *link, const char *address, const char *advertised_host, char **endpoint, wl_error *err);
bool wl_link_connect (zsock_t *link, const char *endpoint, wl_error *err);

/* "HOST:PORT" ("[::1]:7000", ":7000", "7000") to "tcp://HOST:PORT"; WL_ERROR_USAGE otherwise. *is_loopback tells whether it stays on this host. "ipc://…" passes. */
char *wl_link_address (const char *host_port, bool *is_loopback, wl_error *err);

/* -- control --------------------------------------------------------------------------------------------------------------------- */

/* `peer`: the routing id on a ROUTER (in for send, out for receive: malloc'd frame), NULL on a DEALER. Send never blocks: false with WL_ERROR_CLUSTER when the peer is
 * gone or its queue is full. Receive: NULL with err->code == WL_OK when nothing is there within timeout_ms; NULL with an error for a malformed message
 * (dropped). Free with wl_control_free. */
bool wl_control_send (zsock_t *link, zframe_t *peer, const Woolly__Control *message, wl_error *err);
Woolly__Control *wl_control_receive (zsock_t *link, zframe_t **peer, int timeout_ms, wl_error *err);
void wl_control_free (Woolly__Control **message);

/* -- data ----------------------------------------------------------------------------------------------------------------------- */

/* A received data message: header decoded, payload still in ZeroMQ's own buffer. Exactly one of step and result is set. */
typedef struct wl_packet {
    Woolly__Step *step;
    Woolly__Result *result;
    zmq_msg_t payload_frame;
    const uint8_t *payload;
    size_t payload_bytes;
} wl_packet;

/* Sends header and payload. `payload_owner`: if `release` is not NULL the bytes are sent without a copy and release (bytes, context) is called, from ZeroMQ's I/O
 * thread, once they are no longer needed; else they are copied. Blocks up to timeout_ms when the peer's queue is full (back-pressure). */
bool wl_step_send (zsock_t *link, const Woolly__Step *step, void *payload, size_t payload_bytes,
                   void (*release) (void *bytes, void *context), void *context, int timeout_ms, wl_error *err);
bool wl_result_send (zsock_t *link, const Woolly__Result *result, void *payload, size_t payload_bytes,
                     void (*release) (void *bytes, void *context), void *context, int timeout_ms, wl_error *err);

/* Receives one packet of the wanted kind. As wl_control_receive about nothing and malformed. wl_packet_free releases it. */
bool wl_step_receive (zsock_t *link, int timeout_ms, wl_packet *out, wl_error *err);
bool wl_result_receive (zsock_t *link, int timeout_ms, wl_packet *out, wl_error *err);
void wl_packet_free (wl_packet *packet);

#endif
