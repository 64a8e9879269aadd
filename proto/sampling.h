/* Sampling parameters and samples as messages. The one place that knows which field is which on both sides. */
#ifndef WL_PROTO_SAMPLING_H
#define WL_PROTO_SAMPLING_H

#include "engine/text/sampler.h"
#include "proto/woolly.pb-c.h"

/* The message's arrays are those of `sampling`: do not free it as an unpacked one. */
void wl_sampling_pack (const wl_sampling *sampling, Woolly__Sampling *message);
/* The result's arrays are those of `message`. Checked with wl_sampling_check, whose error is WL_ERROR_INTERNAL here: the sender has checked what the user gave. */
bool wl_sampling_unpack (const Woolly__Sampling *message, wl_sampling *sampling, wl_error *err);

/* The message's arrays are those of `sample`. */
void wl_sample_pack (const wl_sample *sample, Woolly__Sample *message);
/* Copies; decode.c has checked the counts. */
void wl_sample_unpack (const Woolly__Sample *message, wl_sample *sample);

#endif
