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
    WL_PROTOCOL = 4,
    WL_HEADER_LIMIT = 4 << 20,          /* bytes of a control message or a header frame */
    WL_HEADER_DECODED_LIMIT = 32 << 20, /* bytes its decoded form may take */
    WL_PAYLOAD_LIMIT = 256 << 20,       /* bytes of a data frame: no plan may need more */
    WL_HOST_BYTES = 80,                 /* a numeric address, its zone, and a NUL */
};

/* -- the process ----------------------------------------------------------------------------------------------------------------- */

/* Before the first socket: turns CZMQ's signal handlers off and initialises libsodium. May be called again. Thread: main, before others start. */
void wl_link_start_process (void);
/* After the last socket is closed: ends ZeroMQ's threads. Thread: main. */
void wl_link_end_process (void);

/* -- sockets ------------------------------------------------------------------------------------------------------------------- */

typedef enum wl_link_kind {
    WL_LINK_ROUTER, /* control */
    WL_LINK_DEALER,
    WL_LINK_PUSH, /* data */
    WL_LINK_PULL,
    WL_LINK_WEIGHTS_ROUTER, /* weights: large messages, so short queues */
    WL_LINK_WEIGHTS_DEALER,
} wl_link_kind;

/* Opens a socket of this kind with the project's settings: MAXMSGSIZE (`largest_frame`), high-water marks, linger 0, TCP keepalive, IPv6 allowed, handshake
 * bound, reconnect backoff capped at 1 s. Not yet bound or connected. */
zsock_t *wl_link_new (wl_link_kind kind, size_t largest_frame, wl_error *err);

/* Binds; a tcp port of "*" (or 0) is chosen by the system. *endpoint (malloc'd) is what peers connect to, with `advertised_host` in place of a wildcard
 * address when not NULL. WL_ERROR_CLUSTER: "tcp://…: the port is in use: …". */
bool wl_link_bind (zsock_t *link, const char *address, const char *advertised_host, char **endpoint, wl_error *err);
bool wl_link_connect (zsock_t *link, const char *endpoint, wl_error *err);

/* "HOST:PORT" ("[::1]:7000", ":7000", "7000") to "tcp://ADDRESS:PORT" with a numeric address (an IPv4 one where the name has both); WL_ERROR_USAGE otherwise. Without a
 * host it is 127.0.0.1; "*" and "0.0.0.0" are all interfaces. *is_loopback tells whether it stays on this host. "ipc://…" passes. */
char *wl_link_address (const char *host_port, bool *is_loopback, wl_error *err);

/* Whether a peer's endpoint may be given to wl_link_connect: tcp with a numeric address (so that no peer makes this process look names up) and a port, or ipc with
 * an absolute path. */
bool wl_link_endpoint_ok (const char *endpoint);

/* The address of this machine's interface that reaches the host of a tcp endpoint, numeric, without brackets. */
bool wl_link_local_host (const char *endpoint, char host[WL_HOST_BYTES], bool *is_loopback, wl_error *err);
/* The host of a tcp endpoint, without brackets. False for another kind. */
bool wl_link_host (const char *endpoint, char host[WL_HOST_BYTES], bool *is_loopback, bool *is_wildcard);

/* A new folder for ipc sockets, under TMPDIR or /tmp, that only this user may enter; malloc'd path. Remove deletes the sockets in it, then the folder. Thread: any. */
char *wl_socket_folder_new (wl_error *err);
void wl_socket_folder_remove (const char *folder);

/* A pipe that wakes a poll: [0] is polled, [1] signalled (from any thread or a signal handler). Neither end blocks or is inherited. */
bool wl_wake_open (int ends[2], wl_error *err);
void wl_wake_signal (int end);
void wl_wake_drain (int end);
void wl_wake_close (int ends[2]);

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

/* Sends header and payload. If `release` is not NULL the bytes are sent without a copy and release (bytes, context) is called, from ZeroMQ's I/O
 * thread, once they are no longer needed; else they are copied. Blocks up to timeout_ms when the peer's queue is full (back-pressure) or nobody is connected yet: false
 * with err->code == WL_OK then, nothing was sent and the bytes are still the caller's. On any other failure release is called (or was) as after a success. */
bool wl_step_send (zsock_t *link, const Woolly__Step *step, void *payload, size_t payload_bytes,
                   void (*release) (void *bytes, void *context), void *context, int timeout_ms, wl_error *err);
bool wl_result_send (zsock_t *link, const Woolly__Result *result, void *payload, size_t payload_bytes,
                     void (*release) (void *bytes, void *context), void *context, int timeout_ms, wl_error *err);

/* Receives one packet of the wanted kind; its payload is aligned for floats. As wl_control_receive about nothing and malformed. wl_packet_free releases it, and may be
 * called on a zeroed or failed one. */
bool wl_step_receive (zsock_t *link, int timeout_ms, wl_packet *out, wl_error *err);
bool wl_result_receive (zsock_t *link, int timeout_ms, wl_packet *out, wl_error *err);
void wl_packet_free (wl_packet *packet);

/* -- decoding: what the receiving functions use, for tests and fuzzers (decode.c) ------------------------------------------------------------------ */

/* NULL with WL_ERROR_CLUSTER for what is no such message, is too large, or lacks a part that the receiver relies on. */
Woolly__Control *wl_control_decode (const uint8_t *bytes, size_t length, wl_error *err);
Woolly__Step *wl_step_decode (const uint8_t *bytes, size_t length, wl_error *err);
Woolly__Result *wl_result_decode (const uint8_t *bytes, size_t length, wl_error *err);
void wl_step_free (Woolly__Step **step);
void wl_result_free (Woolly__Result **result);

#endif
