/* Vectors of 8 floats, for the kernels that are written once and compiled for AVX2 (one register) and NEON (two);
 * private to the files of those instruction sets.
 *
 * With 16 registers of 8 floats, or 32 of 4, the same tiles fit both. Only operations whose result IEEE 754 fixes are
 * here, so a kernel in these terms computes the same bits on both. */
#ifndef WL_ENGINE_KERNELS_SIMD8_H
#define WL_ENGINE_KERNELS_SIMD8_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "math_constants.h"

#define INLINE static inline __attribute__ ((always_inline))

/* Loops over constants that must vanish: their bodies index arrays of registers. (Emulated vectors are in none, and
 * would take the compiler minutes: tests/kernels/avx512_emulated.h leaves the loops.) */
#if defined(UNROLL)
#elif defined(__clang__)
#define UNROLL _Pragma ("clang loop unroll(full)")
#else
#define UNROLL _Pragma ("GCC unroll 16")
#endif

#if defined(__x86_64__)

#include <immintrin.h>

typedef __m256 f8;
typedef __m256 m8; /* a mask: lanes of all ones or zeros */

INLINE f8 load8 (const float *p)
{
    return _mm256_loadu_ps (p);
}
INLINE void store8 (float *p, f8 v)
{
    _mm256_storeu_ps (p, v);
}
INLINE f8 load8_f16 (const void *p)
{
    return _mm256_cvtph_ps (_mm_loadu_si128 ((const __m128i *) p));
}
INLINE f8 load8_bf16 (const void *p)
{
    return _mm256_castsi256_ps (_mm256_slli_epi32 (_mm256_cvtepu16_epi32 (_mm_loadu_si128 ((const __m128i *) p)), 16));
}
INLINE f8 load8_i8 (const int8_t *p)
{
    return _mm256_cvtepi32_ps (_mm256_cvtepi8_epi32 (_mm_loadl_epi64 ((const __m128i *) p)));
}
INLINE void store8_f16 (void *p, f8 v) /* half to even */
{
    _mm_storeu_si128 ((__m128i *) p, _mm256_cvtps_ph (v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
INLINE f8 set8 (float x)
{
    return _mm256_set1_ps (x);
}
INLINE f8 splat8 (const float *p)
{
    return _mm256_broadcast_ss (p);
}
INLINE f8 zero8 (void)
{
    return _mm256_setzero_ps ();
}
INLINE f8 add8 (f8 a, f8 b)
{
    return _mm256_add_ps (a, b);
}
INLINE f8 sub8 (f8 a, f8 b)
{
    return _mm256_sub_ps (a, b);
}
INLINE f8 mul8 (f8 a, f8 b)
{
    return _mm256_mul_ps (a, b);
}
INLINE f8 div8 (f8 a, f8 b)
{
    return _mm256_div_ps (a, b);
}
INLINE f8 fma8 (f8 a, f8 b, f8 c) /* a b + c */
{
    return _mm256_fmadd_ps (a, b, c);
}
INLINE f8 fms8 (f8 a, f8 b, f8 c) /* a b - c */
{
    return _mm256_fmsub_ps (a, b, c);
}
INLINE f8 negate8 (f8 a)
{
    return _mm256_xor_ps (a, _mm256_set1_ps (-0.0f));
}
INLINE m8 greater8 (f8 a, f8 b)
{
    return _mm256_cmp_ps (a, b, _CMP_GT_OQ);
}
INLINE m8 is_nan8 (f8 a)
{
    return _mm256_cmp_ps (a, a, _CMP_UNORD_Q);
}
INLINE f8 select8 (m8 mask, f8 a, f8 b) /* mask ? a : b */
{
    return _mm256_blendv_ps (b, a, mask);
}
INLINE f8 top8 (f8 a, f8 b) /* a > b ? a : b */
{
    return _mm256_max_ps (a, b);
}
/* Lane i: lo <= t + i <= hi. */
INLINE m8 within8 (size_t t, size_t lo, size_t hi)
{
    __m256i position = _mm256_add_epi32 (_mm256_set1_epi32 ((int) t), _mm256_setr_epi32 (0, 1, 2, 3, 4, 5, 6, 7));
    __m256i outside = _mm256_or_si256 (_mm256_cmpgt_epi32 (_mm256_set1_epi32 ((int) lo), position),
                                       _mm256_cmpgt_epi32 (position, _mm256_set1_epi32 ((int) hi)));
    return _mm256_castsi256_ps (_mm256_xor_si256 (outside, _mm256_set1_epi32 (-1)));
}
/* 2^n for lanes x whose low mantissa bits hold n (see EXP_ROUND). */
INLINE f8 power_of_two8 (f8 x)
{
    __m256i bits = _mm256_slli_epi32 (_mm256_castps_si256 (x), 23);
    return _mm256_castsi256_ps (_mm256_add_epi32 (bits, _mm256_set1_epi32 (0x3f800000)));
}
/* The tree that ends a reduction: ((l0+l4)+(l2+l6)) + ((l1+l5)+(l3+l7)). */
INLINE float sum_lanes8 (f8 v)
{
    __m128 fours = _mm_add_ps (_mm256_castps256_ps128 (v), _mm256_extractf128_ps (v, 1)); /* 0+4, 1+5, 2+6, 3+7 */
    __m128 twos = _mm_add_ps (fours, _mm_movehl_ps (fours, fours));
    return _mm_cvtss_f32 (_mm_add_ss (twos, _mm_movehdup_ps (twos)));
}
INLINE float top_lane8 (f8 v) /* of numbers */
{
    __m128 half = _mm_max_ps (_mm256_castps256_ps128 (v), _mm256_extractf128_ps (v, 1));
    half = _mm_max_ps (half, _mm_movehl_ps (half, half));
    return _mm_cvtss_f32 (_mm_max_ps (half, _mm_movehdup_ps (half)));
}

/* 32 bytes: a step of 8 rows. */
typedef __m256i b32;

INLINE b32 load_b32 (const void *p)
{
    return _mm256_loadu_si256 ((const __m256i *) p);
}
INLINE void store_b32 (void *p, b32 v)
{
    _mm256_storeu_si256 ((__m256i *) p, v);
}
INLINE b32 or_b32 (b32 a, b32 b)
{
    return _mm256_or_si256 (a, b);
}
/* (v >> right) & mask in every byte; right < 0 shifts left. */
INLINE b32 masked_b32 (b32 v, const int right, int mask)
{
    b32 shifted = right > 0 ? _mm256_srli_epi16 (v, right) : right < 0 ? _mm256_slli_epi16 (v, -right) : v;
    return _mm256_and_si256 (shifted, _mm256_set1_epi8 ((char) mask));
}
/* v >> n in every byte; what comes in at the top is not defined. */
INLINE b32 shift_right_b32 (b32 v, int n)
{
    return _mm256_srl_epi16 (v, _mm_cvtsi32_si128 (n));
}
INLINE b32 and_b32 (b32 a, b32 b)
{
    return _mm256_and_si256 (a, b);
}
INLINE b32 xor_b32 (b32 a, b32 b)
{
    return _mm256_xor_si256 (a, b);
}
INLINE b32 add_b32 (b32 a, b32 b) /* bytes, modulo 256 */
{
    return _mm256_add_epi8 (a, b);
}
INLINE b32 sub_b32 (b32 a, b32 b)
{
    return _mm256_sub_epi8 (a, b);
}
INLINE b32 set_b32 (int byte)
{
    return _mm256_set1_epi8 ((char) byte);
}
INLINE b32 set_dwords_b32 (uint32_t dword)
{
    return _mm256_set1_epi32 ((int) dword);
}
/* All ones in the bytes that are greater, as int8. */
INLINE b32 greater_b32 (b32 a, b32 b)
{
    return _mm256_cmpgt_epi8 (a, b);
}
/* All ones in the bytes of v that have the bit; `bit` has one in each byte. */
INLINE b32 test_b32 (b32 v, b32 bit)
{
    return _mm256_cmpeq_epi8 (_mm256_and_si256 (v, bit), bit);
}
/* Byte j of each dword in all of its four. */
INLINE b32 spread_b32 (b32 v, int j)
{
    const __m256i first =
        _mm256_setr_epi32 (0, 0x04040404, 0x08080808, 0x0c0c0c0c, 0, 0x04040404, 0x08080808, 0x0c0c0c0c);
    return _mm256_shuffle_epi8 (v, _mm256_add_epi8 (first, _mm256_set1_epi8 ((char) j)));
}
/* 8 words, each twice. */
INLINE b32 load_words_twice_b32 (const void *p)
{
    __m256i v = _mm256_cvtepu16_epi32 (_mm_loadu_si128 ((const __m128i *) p));
    return _mm256_or_si256 (v, _mm256_slli_epi32 (v, 16));
}
/* Bytes as the low and the high ones of 32 words, in order. */
INLINE void store_words_b32 (uint16_t *out, b32 low, b32 high)
{
    __m256i a = _mm256_unpacklo_epi8 (low, high), b = _mm256_unpackhi_epi8 (low, high);
    _mm_storeu_si128 ((__m128i *) out, _mm256_castsi256_si128 (a));
    _mm_storeu_si128 ((__m128i *) (out + 8), _mm256_castsi256_si128 (b));
    _mm_storeu_si128 ((__m128i *) (out + 16), _mm256_extracti128_si256 (a, 1));
    _mm_storeu_si128 ((__m128i *) (out + 24), _mm256_extracti128_si256 (b, 1));
}
/* Of 8 entries of 8 bytes, the first halves side by side and the second halves. */
INLINE void gather_8_b32 (const uint64_t *const entry[8], b32 *first, b32 *second)
{
    __m128i row[4];
    UNROLL for (int i = 0; i < 4; i++) row[i] = _mm_castpd_si128 (_mm_loadh_pd (
        _mm_castsi128_pd (_mm_loadl_epi64 ((const __m128i *) entry[2 * i])), (const double *) entry[2 * i + 1]));
    __m256 a = _mm256_castsi256_ps (_mm256_set_m128i (row[2], row[0])),
           b = _mm256_castsi256_ps (_mm256_set_m128i (row[3], row[1]));
    *first = _mm256_castps_si256 (_mm256_shuffle_ps (a, b, 0x88));
    *second = _mm256_castps_si256 (_mm256_shuffle_ps (a, b, 0xdd));
}
/* 8 entries of 4 bytes side by side. */
INLINE b32 gather_4_b32 (const uint32_t *const entry[8])
{
    __m128i half[2];
    UNROLL for (int i = 0; i < 2; i++)
    {
        half[i] = _mm_cvtsi32_si128 ((int) *entry[4 * i]);
        half[i] = _mm_insert_epi32 (half[i], (int) *entry[4 * i + 1], 1);
        half[i] = _mm_insert_epi32 (half[i], (int) *entry[4 * i + 2], 2);
        half[i] = _mm_insert_epi32 (half[i], (int) *entry[4 * i + 3], 3);
    }
    return _mm256_set_m128i (half[1], half[0]);
}
/* 2^(e - 128) of 8 exponents. */
INLINE f8 load8_e8m0 (const void *p)
{
    __m256i e = _mm256_cvtepu8_epi32 (_mm_loadl_epi64 ((const __m128i *) p));
    __m256i normal = _mm256_slli_epi32 (_mm256_sub_epi32 (e, _mm256_set1_epi32 (1)), 23);
    __m256i subnormal = _mm256_sllv_epi32 (_mm256_set1_epi32 (0x00200000), e);
    return _mm256_castsi256_ps (_mm256_blendv_epi8 (normal, subnormal, _mm256_cmpgt_epi32 (_mm256_set1_epi32 (2), e)));
}
INLINE b32 lookup_b32 (const int8_t table[16], b32 index)
{
    return _mm256_shuffle_epi8 (_mm256_broadcastsi128_si256 (_mm_loadu_si128 ((const __m128i *) table)), index);
}

#elif defined(__aarch64__)

#include <arm_neon.h>

typedef float32x4x2_t f8;
typedef uint32x4x2_t m8;

#define BOTH(expression_0, expression_1) \
    {                                    \
        {                                \
            expression_0, expression_1   \
        }                                \
    }

INLINE f8 load8 (const float *p)
{
    return (f8) BOTH (vld1q_f32 (p), vld1q_f32 (p + 4));
}
INLINE void store8 (float *p, f8 v)
{
    vst1q_f32 (p, v.val[0]);
    vst1q_f32 (p + 4, v.val[1]);
}
INLINE f8 load8_f16 (const void *p)
{
    float16x8_t h = vreinterpretq_f16_u8 (vld1q_u8 (p));
    return (f8) BOTH (vcvt_f32_f16 (vget_low_f16 (h)), vcvt_high_f32_f16 (h));
}
INLINE f8 load8_bf16 (const void *p)
{
    uint16x8_t h = vreinterpretq_u16_u8 (vld1q_u8 (p));
    return (f8) BOTH (vreinterpretq_f32_u32 (vshll_n_u16 (vget_low_u16 (h), 16)),
                      vreinterpretq_f32_u32 (vshll_n_u16 (vget_high_u16 (h), 16)));
}
INLINE f8 load8_i8 (const int8_t *p)
{
    int16x8_t words = vmovl_s8 (vld1_s8 (p));
    return (f8) BOTH (vcvtq_f32_s32 (vmovl_s16 (vget_low_s16 (words))), vcvtq_f32_s32 (vmovl_high_s16 (words)));
}
INLINE void store8_f16 (void *p, f8 v)
{
    vst1q_u8 (p, vreinterpretq_u8_f16 (vcombine_f16 (vcvt_f16_f32 (v.val[0]), vcvt_f16_f32 (v.val[1]))));
}
INLINE f8 set8 (float x)
{
    return (f8) BOTH (vdupq_n_f32 (x), vdupq_n_f32 (x));
}
INLINE f8 splat8 (const float *p)
{
    return set8 (*p);
}
INLINE f8 zero8 (void)
{
    return set8 (0.0f);
}
INLINE f8 add8 (f8 a, f8 b)
{
    return (f8) BOTH (vaddq_f32 (a.val[0], b.val[0]), vaddq_f32 (a.val[1], b.val[1]));
}
INLINE f8 sub8 (f8 a, f8 b)
{
    return (f8) BOTH (vsubq_f32 (a.val[0], b.val[0]), vsubq_f32 (a.val[1], b.val[1]));
}
INLINE f8 mul8 (f8 a, f8 b)
{
    return (f8) BOTH (vmulq_f32 (a.val[0], b.val[0]), vmulq_f32 (a.val[1], b.val[1]));
}
INLINE f8 div8 (f8 a, f8 b)
{
    return (f8) BOTH (vdivq_f32 (a.val[0], b.val[0]), vdivq_f32 (a.val[1], b.val[1]));
}
INLINE f8 fma8 (f8 a, f8 b, f8 c)
{
    return (f8) BOTH (vfmaq_f32 (c.val[0], a.val[0], b.val[0]), vfmaq_f32 (c.val[1], a.val[1], b.val[1]));
}
INLINE f8 negate8 (f8 a)
{
    return (f8) BOTH (vnegq_f32 (a.val[0]), vnegq_f32 (a.val[1]));
}
INLINE f8 fms8 (f8 a, f8 b, f8 c)
{
    return fma8 (a, b, negate8 (c));
}
INLINE m8 greater8 (f8 a, f8 b)
{
    return (m8) BOTH (vcgtq_f32 (a.val[0], b.val[0]), vcgtq_f32 (a.val[1], b.val[1]));
}
INLINE m8 is_nan8 (f8 a)
{
    return (m8) BOTH (vmvnq_u32 (vceqq_f32 (a.val[0], a.val[0])), vmvnq_u32 (vceqq_f32 (a.val[1], a.val[1])));
}
INLINE f8 select8 (m8 mask, f8 a, f8 b)
{
    return (f8) BOTH (vbslq_f32 (mask.val[0], a.val[0], b.val[0]), vbslq_f32 (mask.val[1], a.val[1], b.val[1]));
}
INLINE f8 top8 (f8 a, f8 b)
{
    return select8 (greater8 (a, b), a, b);
}
INLINE m8 within8 (size_t t, size_t lo, size_t hi)
{
    static const uint32_t lanes[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    uint32x4_t start = vdupq_n_u32 ((uint32_t) t), low = vdupq_n_u32 ((uint32_t) lo),
               high = vdupq_n_u32 ((uint32_t) hi);
    uint32x4_t p0 = vaddq_u32 (start, vld1q_u32 (lanes)), p1 = vaddq_u32 (start, vld1q_u32 (lanes + 4));
    return (m8) BOTH (vandq_u32 (vcgeq_u32 (p0, low), vcleq_u32 (p0, high)),
                      vandq_u32 (vcgeq_u32 (p1, low), vcleq_u32 (p1, high)));
}
INLINE f8 power_of_two8 (f8 x)
{
    uint32x4_t one = vdupq_n_u32 (0x3f800000);
    return (f8) BOTH (vreinterpretq_f32_u32 (vaddq_u32 (vshlq_n_u32 (vreinterpretq_u32_f32 (x.val[0]), 23), one)),
                      vreinterpretq_f32_u32 (vaddq_u32 (vshlq_n_u32 (vreinterpretq_u32_f32 (x.val[1]), 23), one)));
}
INLINE float sum_lanes8 (f8 v)
{
    float32x4_t fours = vaddq_f32 (v.val[0], v.val[1]);
    float32x2_t twos = vadd_f32 (vget_low_f32 (fours), vget_high_f32 (fours));
    return vget_lane_f32 (twos, 0) + vget_lane_f32 (twos, 1);
}
INLINE float top_lane8 (f8 v)
{
    return vmaxvq_f32 (vmaxq_f32 (v.val[0], v.val[1]));
}

typedef uint8x16x2_t b32;

INLINE b32 load_b32 (const void *p)
{
    return (b32) BOTH (vld1q_u8 (p), vld1q_u8 ((const uint8_t *) p + 16));
}
INLINE void store_b32 (void *p, b32 v)
{
    vst1q_u8 (p, v.val[0]);
    vst1q_u8 ((uint8_t *) p + 16, v.val[1]);
}
INLINE b32 or_b32 (b32 a, b32 b)
{
    return (b32) BOTH (vorrq_u8 (a.val[0], b.val[0]), vorrq_u8 (a.val[1], b.val[1]));
}
INLINE b32 shift_right_b32 (b32 v, int n)
{
    int8x16_t count = vdupq_n_s8 ((int8_t) -n);
    return (b32) BOTH (vshlq_u8 (v.val[0], count), vshlq_u8 (v.val[1], count));
}
INLINE b32 masked_b32 (b32 v, const int right, int mask)
{
    uint8x16_t m = vdupq_n_u8 ((uint8_t) mask);
    b32 shifted = right ? shift_right_b32 (v, right) : v;
    if (right > 0 && mask >= 255 >> right) /* the shift has cleared the rest */
        return shifted;
    return (b32) BOTH (vandq_u8 (shifted.val[0], m), vandq_u8 (shifted.val[1], m));
}
INLINE b32 and_b32 (b32 a, b32 b)
{
    return (b32) BOTH (vandq_u8 (a.val[0], b.val[0]), vandq_u8 (a.val[1], b.val[1]));
}
INLINE b32 xor_b32 (b32 a, b32 b)
{
    return (b32) BOTH (veorq_u8 (a.val[0], b.val[0]), veorq_u8 (a.val[1], b.val[1]));
}
INLINE b32 add_b32 (b32 a, b32 b)
{
    return (b32) BOTH (vaddq_u8 (a.val[0], b.val[0]), vaddq_u8 (a.val[1], b.val[1]));
}
INLINE b32 sub_b32 (b32 a, b32 b)
{
    return (b32) BOTH (vsubq_u8 (a.val[0], b.val[0]), vsubq_u8 (a.val[1], b.val[1]));
}
INLINE b32 set_b32 (int byte)
{
    return (b32) BOTH (vdupq_n_u8 ((uint8_t) byte), vdupq_n_u8 ((uint8_t) byte));
}
INLINE b32 set_dwords_b32 (uint32_t dword)
{
    uint8x16_t v = vreinterpretq_u8_u32 (vdupq_n_u32 (dword));
    return (b32) BOTH (v, v);
}
INLINE b32 greater_b32 (b32 a, b32 b)
{
    return (b32) BOTH (vcgtq_s8 (vreinterpretq_s8_u8 (a.val[0]), vreinterpretq_s8_u8 (b.val[0])),
                       vcgtq_s8 (vreinterpretq_s8_u8 (a.val[1]), vreinterpretq_s8_u8 (b.val[1])));
}
INLINE b32 test_b32 (b32 v, b32 bit)
{
    return (b32) BOTH (vtstq_u8 (v.val[0], bit.val[0]), vtstq_u8 (v.val[1], bit.val[1]));
}
INLINE b32 spread_b32 (b32 v, int j)
{
    static const uint8_t first[16] = {0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12};
    uint8x16_t from = vaddq_u8 (vld1q_u8 (first), vdupq_n_u8 ((uint8_t) j));
    return (b32) BOTH (vqtbl1q_u8 (v.val[0], from), vqtbl1q_u8 (v.val[1], from));
}
INLINE b32 load_words_twice_b32 (const void *p)
{
    uint16x8_t v = vreinterpretq_u16_u8 (vld1q_u8 (p));
    return (b32) BOTH (vreinterpretq_u8_u16 (vzip1q_u16 (v, v)), vreinterpretq_u8_u16 (vzip2q_u16 (v, v)));
}
INLINE void store_words_b32 (uint16_t *out, b32 low, b32 high)
{
    UNROLL for (int i = 0; i < 2; i++)
    {
        vst1q_u16 (out + 16 * i, vreinterpretq_u16_u8 (vzip1q_u8 (low.val[i], high.val[i])));
        vst1q_u16 (out + 16 * i + 8, vreinterpretq_u16_u8 (vzip2q_u8 (low.val[i], high.val[i])));
    }
}
INLINE void gather_8_b32 (const uint64_t *const entry[8], b32 *first, b32 *second)
{
    UNROLL for (int i = 0; i < 2; i++)
    {
        uint32x4_t a = vreinterpretq_u32_u64 (vcombine_u64 (vld1_u64 (entry[4 * i]), vld1_u64 (entry[4 * i + 1])));
        uint32x4_t b = vreinterpretq_u32_u64 (vcombine_u64 (vld1_u64 (entry[4 * i + 2]), vld1_u64 (entry[4 * i + 3])));
        first->val[i] = vreinterpretq_u8_u32 (vuzp1q_u32 (a, b));
        second->val[i] = vreinterpretq_u8_u32 (vuzp2q_u32 (a, b));
    }
}
INLINE b32 gather_4_b32 (const uint32_t *const entry[8])
{
    uint32x4_t half[2];
    UNROLL for (int i = 0; i < 2; i++)
    {
        half[i] = vld1q_dup_u32 (entry[4 * i]);
        half[i] = vld1q_lane_u32 (entry[4 * i + 1], half[i], 1);
        half[i] = vld1q_lane_u32 (entry[4 * i + 2], half[i], 2);
        half[i] = vld1q_lane_u32 (entry[4 * i + 3], half[i], 3);
    }
    return (b32) BOTH (vreinterpretq_u8_u32 (half[0]), vreinterpretq_u8_u32 (half[1]));
}
INLINE f8 load8_e8m0 (const void *p)
{
    uint16x8_t e = vmovl_u8 (vld1_u8 (p));
    uint32x4_t both[2] = {vmovl_u16 (vget_low_u16 (e)), vmovl_u16 (vget_high_u16 (e))};
    UNROLL for (int i = 0; i < 2; i++)
    {
        uint32x4_t normal = vshlq_n_u32 (vsubq_u32 (both[i], vdupq_n_u32 (1)), 23);
        uint32x4_t subnormal = vshlq_u32 (vdupq_n_u32 (0x00200000), vreinterpretq_s32_u32 (both[i]));
        both[i] = vbslq_u32 (vcltq_u32 (both[i], vdupq_n_u32 (2)), subnormal, normal);
    }
    return (f8) BOTH (vreinterpretq_f32_u32 (both[0]), vreinterpretq_f32_u32 (both[1]));
}
INLINE b32 lookup_b32 (const int8_t table[16], b32 index)
{
    uint8x16_t t = vld1q_u8 ((const uint8_t *) table);
    return (b32) BOTH (vqtbl1q_u8 (t, index.val[0]), vqtbl1q_u8 (t, index.val[1]));
}

#endif

/* -- Functions of math.h ------------------------------------------------------------------------------------------- */

/* exp and tanh for the vector type `vector`, whose functions end in `n`. */
#define DEFINE_VECTOR_FUNCTIONS(vector, n)                                                        \
    INLINE vector exp##n (vector x)                                                               \
    {                                                                                             \
        vector one = set##n (1.0f), shifted = fma##n (x, set##n (EXP_LOG2E), set##n (EXP_ROUND)); \
        vector whole = sub##n (shifted, set##n (EXP_ROUND));                                      \
        vector r = fma##n (whole, set##n (-EXP_LN2_HIGH), x);                                     \
        r = fma##n (whole, set##n (-EXP_LN2_LOW), r);                                             \
        vector p = fma##n (set##n (EXP_C6), r, set##n (EXP_C5));                                  \
        p = fma##n (p, r, set##n (EXP_C4));                                                       \
        p = fma##n (p, r, set##n (EXP_C3));                                                       \
        p = fma##n (p, r, set##n (EXP_C2));                                                       \
        p = fma##n (p, r, one);                                                                   \
        p = fma##n (p, r, one);                                                                   \
        vector y = mul##n (p, power_of_two##n (shifted));                                         \
        y = select##n (greater##n (x, set##n (EXP_OVERFLOW)), set##n (__builtin_inff ()), y);     \
        y = select##n (greater##n (set##n (EXP_UNDERFLOW), x), zero##n (), y);                    \
        return select##n (is_nan##n (x), x, y);                                                   \
    }                                                                                             \
                                                                                                  \
    INLINE vector tanh##n (vector x)                                                              \
    {                                                                                             \
        vector one = set##n (1.0f), two = set##n (2.0f);                                          \
        return sub##n (one, div##n (two, add##n (exp##n (mul##n (two, x)), one)));                \
    }

DEFINE_VECTOR_FUNCTIONS (f8, 8)

/* The total of a block of 32 activations, from the scales and sums of its halves: kernels.h. */
INLINE float total_of (const float *scales, const int16_t *sums)
{
    return fmaf (scales[1], (float) sums[1], scales[0] * (float) sums[0]);
}

#endif
