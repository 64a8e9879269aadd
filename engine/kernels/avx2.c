/* The AVX2 table. Quantizing activations is here, the quantized matmul in avx2_matmul.c; the rest is written in vectors
 * of 8 floats that AVX2 and NEON share. */
#if defined(__x86_64__)

#include "avx2.h"

#include <string.h>

#include "simd8_attention.h"
#include "simd8_elementwise.h"
#include "simd8_matmul_float.h"
#include "simd8_matmul_table.h"
#include "tables.h"
#include "x86_rope.h"

/* -- Quantizing activations ---------------------------------------------------------------------------------------- */

/* Largest magnitude of n values (a multiple of 8), compared as integers. */
INLINE float largest_magnitude (const float *x, const size_t n)
{
    const __m256i no_sign = _mm256_set1_epi32 (0x7fffffff);
    __m256i top = _mm256_setzero_si256 ();
    for (size_t i = 0; i < n; i += 8)
        top = _mm256_max_epi32 (top, _mm256_and_si256 (load_256 (x + i), no_sign));
    __m128i t = _mm_max_epi32 (_mm256_castsi256_si128 (top), _mm256_extracti128_si256 (top, 1));
    t = _mm_max_epi32 (t, _mm_shuffle_epi32 (t, 0x4e));
    t = _mm_max_epi32 (t, _mm_shuffle_epi32 (t, 0xb1));
    return _mm_cvtss_f32 (_mm_castsi128_ps (t));
}

INLINE __m256i quantize_8 (const float *x, __m256 inverse)
{
    return _mm256_cvtps_epi32 (_mm256_mul_ps (_mm256_loadu_ps (x), inverse));
}

/* 32 values to int8 in order. */
INLINE __m256i quantize_32 (const float *x, __m256 inverse)
{
    __m256i a = _mm256_packs_epi32 (quantize_8 (x, inverse), quantize_8 (x + 8, inverse));
    __m256i b = _mm256_packs_epi32 (quantize_8 (x + 16, inverse), quantize_8 (x + 24, inverse));
    return _mm256_permutevar8x32_epi32 (_mm256_packs_epi16 (a, b), _mm256_setr_epi32 (0, 4, 1, 5, 2, 6, 3, 7));
}

/* Sets the scale; true when the block has values to quantize, with *inverse. */
INLINE bool block_scale (float amax, float *scale, __m256 *inverse)
{
    bool usable = amax >= WL_QUANTIZE_LEAST && amax <= 0x1.fffffep+127f;
    *scale = usable ? amax / 127.0f : amax < WL_QUANTIZE_LEAST ? 0.0f : amax;
    *inverse = _mm256_set1_ps (127.0f / amax);
    return usable;
}

/* Sums of 4 neighbours, as 8 dwords. */
INLINE __m256i sums_of_4 (__m256i q)
{
    return _mm256_madd_epi16 (_mm256_maddubs_epi16 (_mm256_set1_epi8 (1), q), _mm256_set1_epi16 (1));
}

static void quantize_q8_16 (int8_t *q, float *scales, int16_t *sums, float *totals, const float *x, size_t n)
{
    for (size_t b = 0; b < n / 16; b++, x += 16, q += 16) {
        __m256 inverse;
        __m128i v = _mm_setzero_si128 ();
        if (block_scale (largest_magnitude (x, 16), &scales[b], &inverse)) {
            __m256i pairs =
                _mm256_packs_epi32 (quantize_8 (x, inverse), quantize_8 (x + 8, inverse)); /* 0-3 8-11, 4-7 12-15 */
            pairs = _mm256_permute4x64_epi64 (pairs, 0xd8);
            v = _mm_packs_epi16 (_mm256_castsi256_si128 (pairs), _mm256_extracti128_si256 (pairs, 1));
        }
        _mm_storeu_si128 ((__m128i *) q, v);
        __m128i s = _mm_madd_epi16 (_mm_maddubs_epi16 (_mm_set1_epi8 (1), v), _mm_set1_epi16 (1));
        s = _mm_add_epi32 (s, _mm_shuffle_epi32 (s, 0x4e));
        sums[b] = (int16_t) (_mm_cvtsi128_si32 (s) + _mm_extract_epi32 (s, 1));
        if (b % 2)
            totals[b / 2] = total_of (scales + b - 1, sums + b - 1);
    }
}

static void quantize_q8_256 (int8_t *q, float *scales, int16_t *sums, const float *x, size_t n)
{
    for (size_t b = 0; b < n / 256; b++, x += 256, q += 256, sums += 16) {
        __m256 inverse;
        if (!block_scale (largest_magnitude (x, 256), &scales[b], &inverse)) {
            memset (q, 0, 256);
            memset (sums, 0, 16 * sizeof *sums);
            continue;
        }
        for (size_t h = 0; h < 256; h += 128) {
            __m256i s[4];
            UNROLL for (size_t i = 0; i < 4; i++)
            {
                __m256i v = quantize_32 (x + h + 32 * i, inverse);
                _mm256_storeu_si256 ((__m256i *) (q + h + 32 * i), v);
                s[i] = sums_of_4 (v);
            }
            __m256i t = _mm256_hadd_epi32 (_mm256_hadd_epi32 (s[0], s[1]), _mm256_hadd_epi32 (s[2], s[3]));
            t = _mm256_packs_epi32 (t, t); /* sums 0 2 4 6 in the low lane, 1 3 5 7 in the high one */
            __m128i in_order = _mm_unpacklo_epi16 (_mm256_castsi256_si128 (t), _mm256_extracti128_si256 (t, 1));
            _mm_storeu_si128 ((__m128i *) (sums + h / 16), in_order);
        }
    }
}

const wl_kernels wl_kernels_avx2 = {
    .isa = "avx2",
    .scratch_bytes = AVX2_MATMUL_SCRATCH,
    .quantize_q8_16 = quantize_q8_16,
    .quantize_q8_256 = quantize_q8_256,
    .matmul = MATMUL_TABLE (avx2),
    .attention = simd8_attention,
    .rms_norm = rms_norm,
    .layer_norm = layer_norm,
    .silu_mul = silu_mul,
    .gelu_mul = gelu_mul,
    .add_scaled = add_scaled,
    .rope_adjacent = rope_adjacent,
    .rope_halves = rope_halves,
    .to_f16 = to_f16,
    .to_q8_0 = to_q8_0,
};

#endif
