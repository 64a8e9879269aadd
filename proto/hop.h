/* The activations of a step on their way from stage to stage, `width` (d_model) values a row.
 *
 *   f32   as they are
 *   f16   a row: f32 scale, then f16 [width]: values times 1/scale, rounded half to even. The scale is the least power of two, 1 or more, by which the row's largest
 *         value falls below 2^15: it keeps the few huge values that some models have, and changes nothing else
 *   q8    a row: blocks of 32 values (the last one may be shorter), each an f32 scale and an int8 for each value. The scale is the largest magnitude over 127; an int8 is
 *         value * (1 / scale), rounded half to even. A block whose scale would be no normal number is zeros
 *
 * All little-endian, without padding. A value's code depends on its row alone (on its block, in q8), so rounding does not depend on what shares a step; and it is
 * made of single roundings, so it is the same on every instruction set. Rows and blocks that hold an infinity or NaN come out as such: the f16 of them, or a block of NaN.
 * Decoding is defined for any bytes.
 * Thread: pure functions. */
#ifndef WL_PROTO_HOP_H
#define WL_PROTO_HOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/error.h"

typedef enum wl_hop { WL_HOP_F32, WL_HOP_F16, WL_HOP_Q8, WL_N_HOPS } wl_hop; /* the numbers of the message Load */

/* "f32", "f16", "q8"; WL_ERROR_USAGE for another text. */
bool wl_hop_parse (const char *text, wl_hop *hop, wl_error *err);
const char *wl_hop_name (wl_hop hop);

/* Bytes of a row. */
size_t wl_hop_row_bytes (wl_hop hop, size_t width);

/* `out` [n_rows * wl_hop_row_bytes], any alignment, apart from `rows`. */
void wl_hop_encode (wl_hop hop, const float *rows, size_t n_rows, size_t width, uint8_t *out);
void wl_hop_decode (wl_hop hop, const uint8_t *in, size_t n_rows, size_t width, float *rows);

#endif
