/* Quantizing activations with AVX-512; included by avx512_table.h alone. */
#ifndef WL_ENGINE_KERNELS_AVX512_VECTORS_H
#define WL_ENGINE_KERNELS_AVX512_VECTORS_H

#include <stdbool.h>
#include <string.h>

#include "kernels.h"
#include "simd8.h"

/* -- Quantizing activations ---------------------------------------------------------------------------------------- */

INLINE __m512i magnitudes (const float *x)
{
    return _mm512_and_si512 (_mm512_loadu_si512 (x), _mm512_set1_epi32 (0x7fffffff));
}

INLINE float largest_lane (__m512i v)
{
    __m256i top = _mm256_max_epi32 (_mm512_castsi512_si256 (v), _mm512_extracti64x4_epi64 (v, 1));
    __m128i t = _mm_max_epi32 (_mm256_castsi256_si128 (top), _mm256_extracti128_si256 (top, 1));
    t = _mm_max_epi32 (t, _mm_shuffle_epi32 (t, 0x4e));
    t = _mm_max_epi32 (t, _mm_shuffle_epi32 (t, 0xb1));
    return _mm_cvtss_f32 (_mm_castsi128_ps (t));
}

/* Sets the scale; true when the block has values to quantize, with *inverse. */
INLINE bool block_scale (float amax, float *scale, __m512 *inverse)
{
    bool usable = amax >= WL_QUANTIZE_LEAST && amax <= 0x1.fffffep+127f;
    *scale = usable ? amax / 127.0f : amax < WL_QUANTIZE_LEAST ? 0.0f : amax;
    *inverse = _mm512_set1_ps (127.0f / amax);
    return usable;
}

/* 16 values to int8. */
INLINE __m128i quantize_16 (const float *x, __m512 inverse)
{
    return _mm512_cvtepi32_epi8 (_mm512_cvtps_epi32 (_mm512_mul_ps (_mm512_loadu_ps (x), inverse)));
}

INLINE int16_t sum_16 (__m128i q)
{
    __m128i s = _mm_dpbusd_epi32 (_mm_setzero_si128 (), _mm_set1_epi8 (1), q);
    s = _mm_add_epi32 (s, _mm_shuffle_epi32 (s, 0x4e));
    return (int16_t) (_mm_cvtsi128_si32 (s) + _mm_extract_epi32 (s, 1));
}

static void quantize_q8_16 (int8_t *q, float *scales, int16_t *sums, float *totals, const float *x, size_t n)
{
    for (size_t b = 0; b < n / 16; b++, x += 16, q += 16) {
        __m512 inverse;
        __m128i v = _mm_setzero_si128 ();
        if (block_scale (largest_lane (magnitudes (x)), &scales[b], &inverse))
            v = quantize_16 (x, inverse);
        _mm_storeu_si128 ((__m128i *) q, v);
        sums[b] = sum_16 (v);
        if (b % 2)
            totals[b / 2] = total_of (scales + b - 1, sums + b - 1);
    }
}

static void quantize_q8_256 (int8_t *q, float *scales, int16_t *sums, const float *x, size_t n)
{
    for (size_t b = 0; b < n / 256; b++, x += 256, q += 256, sums += 16) {
        __m512i top[2] = {magnitudes (x), magnitudes (x + 16)};
        for (size_t i = 32; i < 256; i += 32)
            UNROLL for (size_t j = 0; j < 2; j++) top[j] = _mm512_max_epi32 (top[j], magnitudes (x + i + 16 * j));
        __m512 inverse;
        if (!block_scale (largest_lane (_mm512_max_epi32 (top[0], top[1])), &scales[b], &inverse)) {
            memset (q, 0, 256);
            memset (sums, 0, 16 * sizeof *sums);
            continue;
        }
        for (size_t i = 0; i < 16; i++) {
            const __m128i v = quantize_16 (x + 16 * i, inverse);
            _mm_storeu_si128 ((__m128i *) (q + 16 * i), v);
            sums[i] = sum_16 (v);
        }
    }
}

#endif
