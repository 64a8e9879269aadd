/* A NEON table: quantizing activations, rotating adjacent pairs, and what neon_matmul.h and the kernels in vectors of 8
 * floats define. Included by neon.c and neon_i8mm.c, which differ in what the compiler may use. */
#ifndef WL_ENGINE_KERNELS_NEON_TABLE_H
#define WL_ENGINE_KERNELS_NEON_TABLE_H

#include "neon_matmul.h"
#include "simd8_attention.h"
#include "simd8_elementwise.h"
#include "simd8_matmul_float.h"
#include "simd8_matmul_table.h"
#include "tables.h"

/* -- Quantizing activations ---------------------------------------------------------------------------------------- */

/* Largest magnitude of n values (a multiple of 4), compared as integers. */
INLINE float largest_magnitude (const float *x, const size_t n)
{
    uint32x4_t top = vdupq_n_u32 (0);
    for (size_t i = 0; i < n; i += 4)
        top = vmaxq_u32 (top, vbicq_u32 (vreinterpretq_u32_f32 (vld1q_f32 (x + i)), vdupq_n_u32 (0x80000000)));
    uint32_t bits = vmaxvq_u32 (top);
    float amax;
    memcpy (&amax, &bits, sizeof amax);
    return amax;
}

/* 16 values, and their sum. */
INLINE int16_t quantize_16 (int8_t *q, const float *x, float inverse)
{
    int32x4_t v[4];
    UNROLL for (int i = 0; i < 4; i++) v[i] =
        vcvtnq_s32_f32 (vmulq_n_f32 (vld1q_f32 (x + 4 * i), inverse)); /* half to even */
    int16x8_t low = vcombine_s16 (vmovn_s32 (v[0]), vmovn_s32 (v[1])),
              high = vcombine_s16 (vmovn_s32 (v[2]), vmovn_s32 (v[3]));
    vst1q_s8 (q, vcombine_s8 (vmovn_s16 (low), vmovn_s16 (high)));
    return vaddvq_s16 (vaddq_s16 (low, high));
}

static void quantize (int8_t *q, float *scales, int16_t *sums, const float *x, size_t n, size_t width)
{
    for (size_t b = 0; b < n / width; b++) {
        float amax = largest_magnitude (x + b * width, width);
        bool usable = amax >= WL_QUANTIZE_LEAST && amax <= 0x1.fffffep+127f;
        scales[b] = usable ? amax / 127.0f : amax < WL_QUANTIZE_LEAST ? 0.0f : amax;
        for (size_t i = b * width; i < (b + 1) * width; i += 16)
            if (usable)
                sums[i / 16] = quantize_16 (q + i, x + i, 127.0f / amax);
            else {
                memset (q + i, 0, 16);
                sums[i / 16] = 0;
            }
    }
}

static void quantize_q8_16 (int8_t *q, float *scales, int16_t *sums, float *totals, const float *x, size_t n)
{
    quantize (q, scales, sums, x, n, 16);
    for (size_t b = 0; b < n / 32; b++)
        totals[b] = total_of (scales + 2 * b, sums + 2 * b);
}

static void quantize_q8_256 (int8_t *q, float *scales, int16_t *sums, const float *x, size_t n)
{
    quantize (q, scales, sums, x, n, 256);
}

/* -- Rotating adjacent pairs --------------------------------------------------------------------------------------- */

static void rope_adjacent (float *x, const float *cos, const float *sin, size_t n_pairs)
{
    size_t i = 0;
    for (; i + 4 <= n_pairs; i += 4) {
        float32x4x2_t v = vld2q_f32 (x + 2 * i), rotated;
        float32x4_t c = vld1q_f32 (cos + i), s = vld1q_f32 (sin + i);
        rotated.val[0] = vfmaq_f32 (vnegq_f32 (vmulq_f32 (v.val[1], s)), v.val[0], c);
        rotated.val[1] = vfmaq_f32 (vmulq_f32 (v.val[1], c), v.val[0], s);
        vst2q_f32 (x + 2 * i, rotated);
    }
    wl_kernels_scalar.rope_adjacent (x + 2 * i, cos + i, sin + i, n_pairs - i);
}

#define NEON_TABLE(name)                                                                                        \
    {                                                                                                           \
        .isa = (name), .scratch_bytes = sizeof (panel), .quantize_q8_16 = quantize_q8_16,                       \
        .quantize_q8_256 = quantize_q8_256, .matmul = MATMUL_TABLE (neon), .attention = simd8_attention,        \
        .rms_norm = rms_norm, .layer_norm = layer_norm, .silu_mul = silu_mul, .gelu_mul = gelu_mul,             \
        .add_scaled = add_scaled, .rope_adjacent = rope_adjacent, .rope_halves = rope_halves, .to_f16 = to_f16, \
        .to_q8_0 = to_q8_0,                                                                                     \
    }

#endif
