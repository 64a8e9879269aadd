/* What wire.c and weights.c share: messages of frames on sockets. */
#ifndef PROTO_WIRE_PRIVATE_H
#define PROTO_WIRE_PRIVATE_H

#include "wire.h"

/* Whether the socket becomes ready within timeout_ms. False with err->code == WL_OK when it does not, or a signal came. */
bool wire_wait (zsock_t *link, short event, int timeout_ms, wl_error *err);

/* Reads one message of exactly n frames into frames[], all initialised by the caller. False with an error for another number of frames: the message is
 * gone then, wherever it ended; false without one when nothing is there. */
bool wire_receive_frames (zsock_t *link, zmq_msg_t *frames, size_t n, wl_error *err);

bool wire_encode (const ProtobufCMessage *message, zmq_msg_t *frame, wl_error *err);

/* The second frame, after the first is on its way: when there is no memory for it an empty one ends the message, and the receiver drops it. */
bool wire_send_payload (void *socket, void *payload, size_t payload_bytes, void (*release) (void *bytes, void *context),
                        void *context, wl_error *err);

#endif
