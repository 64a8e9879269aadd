/* Norms, activations and other elementwise kernels; where a lane is an element, in vectors of WIDE floats.
 * Included by each ISA's file.
 *
 * What is left over at the end of a row goes through the scalar kernels, which compute the same. */
#ifndef WL_ENGINE_KERNELS_SIMD8_ELEMENTWISE_H
#define WL_ENGINE_KERNELS_SIMD8_ELEMENTWISE_H

#include <math.h>
#include <string.h>

#include "engine/kernels/math.h"
#include "kernels.h"
#include "simd_wide.h"

/* -- Norms --------------------------------------------------------------------------------------------------------- */

static void rms_norm (float *y, const float *x, const float *w, size_t n, float eps)
{
    size_t whole = n & ~(size_t) 7;
    f8 sum = zero8 ();
    for (size_t i = 0; i < whole; i += 8) {
        f8 v = load8 (x + i);
        sum = fma8 (v, v, sum);
    }
    float lanes[8];
    store8 (lanes, sum);
    for (size_t i = whole; i < n; i++)
        lanes[i - whole] = fmaf (x[i], x[i], lanes[i - whole]);
    float r = 1.0f / sqrtf (sum_lanes8 (load8 (lanes)) / (float) n + eps);
    f8 factor = set8 (r);
    for (size_t i = 0; i < whole; i += 8) {
        f8 v = mul8 (load8 (x + i), factor);
        store8 (y + i, w ? mul8 (v, load8 (w + i)) : v);
    }
    for (size_t i = whole; i < n; i++)
        y[i] = w ? x[i] * r * w[i] : x[i] * r;
}

static void layer_norm (float *y, const float *x, const float *w, const float *b, size_t n, float eps)
{
    size_t whole = n & ~(size_t) 7;
    float lanes[8];
    f8 sum = zero8 ();
    for (size_t i = 0; i < whole; i += 8)
        sum = add8 (sum, load8 (x + i));
    store8 (lanes, sum);
    for (size_t i = whole; i < n; i++)
        lanes[i - whole] += x[i];
    float mean = sum_lanes8 (load8 (lanes)) / (float) n;
    f8 m = set8 (mean);
    sum = zero8 ();
    for (size_t i = 0; i < whole; i += 8) {
        f8 v = sub8 (load8 (x + i), m);
        sum = fma8 (v, v, sum);
    }
    store8 (lanes, sum);
    for (size_t i = whole; i < n; i++)
        lanes[i - whole] = fmaf (x[i] - mean, x[i] - mean, lanes[i - whole]);
    float r = 1.0f / sqrtf (sum_lanes8 (load8 (lanes)) / (float) n + eps);
    f8 factor = set8 (r);
    for (size_t i = 0; i < whole; i += 8) {
        f8 v = mul8 (sub8 (load8 (x + i), m), factor), weight = load8 (w + i);
        store8 (y + i, b ? fma8 (v, weight, load8 (b + i)) : mul8 (v, weight));
    }
    for (size_t i = whole; i < n; i++)
        y[i] = b ? fmaf ((x[i] - mean) * r, w[i], b[i]) : (x[i] - mean) * r * w[i];
}

/* -- Elementwise --------------------------------------------------------------------------------------------------- */

static void silu_mul (float *y, const float *gate, const float *up, size_t n)
{
    const fw one = setw (1.0f);
    size_t i = 0;
    for (; i + WIDE <= n; i += WIDE) {
        fw x = loadw (gate + i);
        fw act = divw (x, addw (one, expw (negatew (x))));
        storew (y + i, mulw (act, loadw (up + i)));
    }
    wl_kernels_scalar.silu_mul (y + i, gate + i, up + i, n - i);
}

static void gelu_mul (float *y, const float *gate, const float *up, size_t n)
{
    const fw one = setw (1.0f);
    size_t i = 0;
    for (; i + WIDE <= n; i += WIDE) {
        fw x = loadw (gate + i);
        fw cubic = fmaw (mulw (mulw (setw (GELU_CUBIC), x), x), x, x);
        fw t = tanhw (mulw (setw (GELU_SCALE), cubic));
        fw act = mulw (mulw (setw (0.5f), x), addw (one, t));
        storew (y + i, mulw (act, loadw (up + i)));
    }
    wl_kernels_scalar.gelu_mul (y + i, gate + i, up + i, n - i);
}

static void add_scaled (float *y, const float *x, float scale, size_t n)
{
    const fw s = setw (scale);
    size_t i = 0;
    for (; i + WIDE <= n; i += WIDE)
        storew (y + i, fmaw (loadw (x + i), s, loadw (y + i)));
    wl_kernels_scalar.add_scaled (y + i, x + i, scale, n - i);
}

static void rope_halves (float *x, const float *cos, const float *sin, size_t n_pairs)
{
    size_t i = 0;
    float *y = x + n_pairs;
    for (; i + 8 <= n_pairs; i += 8) {
        f8 a = load8 (x + i), b = load8 (y + i);
        f8 c = load8 (cos + i), s = load8 (sin + i);
        store8 (x + i, fms8 (a, c, mul8 (b, s)));
        store8 (y + i, fma8 (a, s, mul8 (b, c)));
    }
    for (; i < n_pairs; i++) {
        float a = x[i], b = y[i];
        x[i] = fmaf (a, cos[i], -(b * sin[i]));
        y[i] = fmaf (a, sin[i], b * cos[i]);
    }
}

static void to_f16 (uint16_t *y, const float *x, size_t n)
{
    const f8 limit = set8 (65504.0f), minus = set8 (-65504.0f);
    size_t i = 0;
    for (; i + 8 <= n; i += 8) { /* the second operand of top8, and the last of select8, is what NaN passes through */
        f8 v = top8 (minus, load8 (x + i));
        store8_f16 (y + i, select8 (greater8 (v, limit), limit, v));
    }
    wl_kernels_scalar.to_f16 (y + i, x + i, n - i);
}

/* The largest magnitude of 32 numbers; NaN if one of them is. */
static float magnitude_of_32 (const float *x)
{
    const f8 zero = zero8 ();
    f8 top = zero, faults = zero;
    for (size_t i = 0; i < WL_KV_SCALED; i += 8) {
        f8 v = load8 (x + i);
        top = top8 (select8 (greater8 (zero, v), negate8 (v), v), top);
        faults = select8 (is_nan8 (v), set8 (1.0f), faults);
    }
    return top_lane8 (faults) > 0.0f ? NAN : top_lane8 (top);
}

static void to_q8_0 (int8_t *q, uint16_t *scales, const float *x, size_t n)
{
    /* numbers of +-127 plus this end in their bits as whole ones, rounded half to even */
    const f8 limit = set8 (127.0f), minus = set8 (-127.0f), round = set8 (0x1.8p23f);
    for (; n > 0; n -= WL_KV_SCALED, x += WL_KV_SCALED, q += WL_KV_SCALED, scales++) {
        float amax = magnitude_of_32 (x), part = amax / 127.0f, rounded[WL_KV_SCALED];
        wl_kernels_scalar.to_f16 (scales, &part, 1);
        if (isnan (amax)) {
            memset (q, 0, WL_KV_SCALED);
            continue;
        }
        float scale = wl_f16_to_f32 (*scales);
        const f8 r = set8 (scale > 0.0f ? 1.0f / scale : 0.0f);
        for (size_t i = 0; i < WL_KV_SCALED; i += 8) {
            f8 y = top8 (mul8 (load8 (x + i), r), minus);
            store8 (rounded + i, add8 (select8 (greater8 (y, limit), limit, y), round));
        }
        for (size_t i = 0; i < WL_KV_SCALED; i++) {
            uint32_t bits;
            memcpy (&bits, rounded + i, sizeof bits);
            q[i] = (int8_t) (bits & 0xff);
        }
    }
}

#endif
