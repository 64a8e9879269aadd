/* Activations between stages; see hop.h.
 *
 * Plain loops over whole blocks, without branches inside, which compilers turn into the target's vectors. Rounding to whole numbers is done by adding and taking away
 * 1.5 * 2^23, whose last place is 1: half to even, as the processor adds. Magnitudes are compared as the integers of their bits, whose order is the same and puts infinity
 * and NaN on top. */
#include "hop.h"

#include <string.h>

#include "engine/kernels/math.h"

enum { BLOCK = 32 };

#define SIGN UINT32_C (0x80000000)
#define INFINITE UINT32_C (0x7f800000) /* the bits of infinity; NaNs are above */
#define NOT_A_NUMBER UINT32_C (0x7fc00000)
#define LEAST_NORMAL UINT32_C (0x00800000)

/* In signed integers, for which every instruction set has vector comparisons. */
static uint32_t largest_bits (const float *x, size_t n)
{
    int32_t most = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t bits = (int32_t) (wl_bits_of (x[i]) & ~SIGN);
        most = bits > most ? bits : most;
    }
    return (uint32_t) most;
}

/* -- names and sizes ------------------------------------------------------------------------------------------------------------------------- */

static const char *const names[WL_N_HOPS] = {[WL_HOP_F32] = "f32", [WL_HOP_F16] = "f16", [WL_HOP_Q8] = "q8"};

bool wl_hop_parse (const char *text, wl_hop *hop, wl_error *err)
{
    for (wl_hop h = 0; h < WL_N_HOPS; h++)
        if (strcmp (text, names[h]) == 0) {
            *hop = h;
            return true;
        }
    return wl_fail (err, WL_ERROR_USAGE, "--hop %s: choose f32, f16 or q8", text);
}

const char *wl_hop_name (wl_hop hop)
{
    return names[hop];
}

size_t wl_hop_row_bytes (wl_hop hop, size_t width)
{
    switch (hop) {
    case WL_HOP_F16:
        return sizeof (float) + width * sizeof (uint16_t);
    case WL_HOP_Q8:
        return (width + BLOCK - 1) / BLOCK * sizeof (float) + width;
    default:
        return width * sizeof (float);
    }
}

/* -- f16 ----------------------------------------------------------------------------------------------------------------------------------------- */

/* By a mask: compilers make a branch of ?: where one side is an addition of floats, and no vectors then. */
static int32_t either (bool first, int32_t a, int32_t b)
{
    int32_t mask = -(int32_t) first;
    return (a & mask) | (b & ~mask);
}

/* Below 2^-14 an f16 counts in steps of 2^-24: so does a float after 0.5 was added. The rest is rounded in the bits that f16 lacks. NaN and infinity have parts of their
 * own. All three are computed, and one is taken. */
static uint16_t to_f16 (float x)
{
    const int32_t least_normal = 113 << 23, half = 126 << 23;
    uint32_t bits = wl_bits_of (x), sign = bits >> 16 & 0x8000;
    int32_t size = (int32_t) (bits & ~SIGN);
    int32_t normal = (size - (112 << 23) + 0xfff + (size >> 13 & 1)) >> 13;
    int32_t small = (int32_t) wl_bits_of (wl_float_of ((uint32_t) size) + wl_float_of ((uint32_t) half)) - half;
    int32_t special = size > (int32_t) INFINITE ? 0x7e00 : 0x7c00;
    int32_t code = either (size < least_normal, small, normal);
    return (uint16_t) ((uint32_t) either (size < (int32_t) INFINITE, code, special) | sign);
}

static float from_f16 (uint16_t code)
{
    const int32_t least_normal = 113 << 23;
    int32_t size = (code & 0x7fff) << 13;
    uint32_t sign = (uint32_t) (code & 0x8000) << 16;
    int32_t normal = size + (112 << 23);
    int32_t small =
        (int32_t) wl_bits_of (wl_float_of ((uint32_t) (size + least_normal)) - wl_float_of ((uint32_t) least_normal));
    int32_t special = normal + (112 << 23);
    int32_t bits = either (size < 1 << 23, small, normal);
    return wl_float_of ((uint32_t) either (size < 31 << 23, bits, special) | sign);
}

/* 2^-e, and 2^e, for the least e by which values of these bits are below 2^15. */
static void f16_scale (uint32_t largest, float *down, float *up)
{
    const uint32_t bias = 127, fitting = bias + 14;
    uint32_t exponent = largest >> 23, e = exponent > fitting && largest < INFINITE ? exponent - fitting : 0;
    *down = wl_float_of ((bias - e) << 23);
    *up = wl_float_of ((bias + e) << 23);
}

static void encode_f16 (const float *x, size_t width, uint8_t *out)
{
    float down, up;
    uint16_t codes[BLOCK];
    f16_scale (largest_bits (x, width), &down, &up);
    memcpy (out, &up, sizeof up);
    out += sizeof up;
    for (; width >= BLOCK; width -= BLOCK, x += BLOCK, out += sizeof codes) {
        for (size_t i = 0; i < BLOCK; i++)
            codes[i] = to_f16 (x[i] * down);
        memcpy (out, codes, sizeof codes);
    }
    for (size_t i = 0; i < width; i++)
        codes[i] = to_f16 (x[i] * down);
    memcpy (out, codes, width * sizeof *codes);
}

static void decode_f16 (const uint8_t *in, size_t width, float *x)
{
    float up;
    uint16_t codes[BLOCK];
    memcpy (&up, in, sizeof up);
    in += sizeof up;
    for (; width >= BLOCK; width -= BLOCK, x += BLOCK, in += sizeof codes) {
        memcpy (codes, in, sizeof codes);
        for (size_t i = 0; i < BLOCK; i++)
            x[i] = from_f16 (codes[i]) * up;
    }
    memcpy (codes, in, width * sizeof *codes);
    for (size_t i = 0; i < width; i++)
        x[i] = from_f16 (codes[i]) * up;
}

/* -- q8 ------------------------------------------------------------------------------------------------------------------------------------------- */

/* A block's scale, and what values are multiplied with. */
static void q8_scale (uint32_t largest, float *scale, float *inverse)
{
    float quotient = wl_float_of (largest) / 127;
    bool finite = largest < INFINITE, normal = finite && wl_bits_of (quotient) >= LEAST_NORMAL;
    *scale = normal ? quotient : wl_float_of (finite ? 0 : NOT_A_NUMBER);
    *inverse = normal ? 1 / quotient : 0;
}

/* Of |x| * inverse <= 127, a float's half above; NaN and infinity times 0 give some int8. */
static int8_t to_q8 (float x, float inverse)
{
    const float shift = 12582912; /* 1.5 * 2^23: the sum's last eight bits are the rounded number's */
    return (int8_t) (uint8_t) (wl_bits_of (x * inverse + shift) & 0xff);
}

static void encode_q8 (const float *x, size_t width, uint8_t *out)
{
    float scale, inverse;
    int8_t codes[BLOCK];
    for (; width >= BLOCK; width -= BLOCK, x += BLOCK) {
        q8_scale (largest_bits (x, BLOCK), &scale, &inverse);
        for (size_t i = 0; i < BLOCK; i++)
            codes[i] = to_q8 (x[i], inverse);
        memcpy (out, &scale, sizeof scale);
        memcpy (out + sizeof scale, codes, sizeof codes);
        out += sizeof scale + sizeof codes;
    }
    if (width == 0)
        return;
    q8_scale (largest_bits (x, width), &scale, &inverse);
    for (size_t i = 0; i < width; i++)
        codes[i] = to_q8 (x[i], inverse);
    memcpy (out, &scale, sizeof scale);
    memcpy (out + sizeof scale, codes, width);
}

static void decode_q8 (const uint8_t *in, size_t width, float *x)
{
    float scale;
    int8_t codes[BLOCK];
    for (; width >= BLOCK; width -= BLOCK, x += BLOCK) {
        memcpy (&scale, in, sizeof scale);
        memcpy (codes, in + sizeof scale, sizeof codes);
        in += sizeof scale + sizeof codes;
        for (size_t i = 0; i < BLOCK; i++)
            x[i] = (float) codes[i] * scale;
    }
    if (width == 0)
        return;
    memcpy (&scale, in, sizeof scale);
    memcpy (codes, in + sizeof scale, width);
    for (size_t i = 0; i < width; i++)
        x[i] = (float) codes[i] * scale;
}

/* -- rows ------------------------------------------------------------------------------------------------------------------------------------------ */

void wl_hop_encode (wl_hop hop, const float *rows, size_t n_rows, size_t width, uint8_t *out)
{
    size_t row_bytes = wl_hop_row_bytes (hop, width);
    if (hop == WL_HOP_F32) {
        memcpy (out, rows, n_rows * row_bytes);
        return;
    }
    for (size_t i = 0; i < n_rows; i++) {
        if (hop == WL_HOP_F16)
            encode_f16 (rows + i * width, width, out + i * row_bytes);
        else
            encode_q8 (rows + i * width, width, out + i * row_bytes);
    }
}

void wl_hop_decode (wl_hop hop, const uint8_t *in, size_t n_rows, size_t width, float *rows)
{
    size_t row_bytes = wl_hop_row_bytes (hop, width);
    if (hop == WL_HOP_F32) {
        memcpy (rows, in, n_rows * row_bytes);
        return;
    }
    for (size_t i = 0; i < n_rows; i++) {
        if (hop == WL_HOP_F16)
            decode_f16 (in + i * row_bytes, width, rows + i * width);
        else
            decode_q8 (in + i * row_bytes, width, rows + i * width);
    }
}
