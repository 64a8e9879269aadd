/* What a worker measured of itself, as a message. */
#ifndef WL_PROTO_SPEED_H
#define WL_PROTO_SPEED_H

#include "engine/speed.h"
#include "proto/woolly.pb-c.h"

enum { WL_PROBE_LIMIT = 1 << 20 };

/* `message` borrows from `speed`. */
void wl_speed_pack (const wl_speed *speed, bool cached, Woolly__Speed *message);

/* False if a peer's numbers are not what a machine could have, or not as many as belong. NULL: it measured nothing. */
bool wl_speed_unpack (const Woolly__Speed *message, wl_speed *speed, bool *cached);

#endif
