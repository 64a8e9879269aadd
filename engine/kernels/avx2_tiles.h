/* What AVX2 adds to simd8_tiles.h: chains of int16 sums, and a block's factors as its instructions want them; private
 * to avx2_matmul.c. */
#ifndef WL_ENGINE_KERNELS_AVX2_TILES_H
#define WL_ENGINE_KERNELS_AVX2_TILES_H

#include "avx2.h"
#include "simd8_expand.h"
#include "simd8_tiles.h"

typedef __m256i vec;

/* An int16 holds the products of `steps` steps of weights up to `largest`. */
#define FITS(steps, largest) ((steps) *2 * 127 * (largest) <= INT16_MAX)

/* Steps whose unsigned products an int16 holds. */
INLINE int chain_steps (const int type)
{
    return type == Q5_0 || type == Q5_1 || type == Q5_K || type == MXFP4 || type == IQ3_S || type == IQ1_S ||
                   type == IQ1_M
               ? 4
           : type == Q6_K                        ? 2
           : is_signed (type) || is_large (type) ? 1
                                                 : group_steps (type);
}
_Static_assert(FITS (8, 15), "4 bits");
_Static_assert(FITS (4, 31) && FITS (2, 63), "5 and 6 bits");
_Static_assert(FITS (4, 16 + LARGEST_MXFP4) && FITS (4, 16 + LARGEST_IQ3_S) && FITS (4, 16 + LARGEST_IQ1), "");
_Static_assert(FITS (1, 64 + LARGEST_IQ2) && FITS (1, 64 + LARGEST_IQ3_XXS) && FITS (8, 1 + LARGEST_TQ), "");

/* Steps whose signed products one holds, where there is an offset. */
INLINE int signed_chain_steps (const int type)
{
    return is_large (type) ? 2 : 4;
}
_Static_assert(FITS (2, LARGEST_IQ2) && FITS (2, LARGEST_IQ3_XXS), "");
_Static_assert(FITS (4, 32) && FITS (4, LARGEST_IQ3_S) && FITS (4, LARGEST_IQ1) && FITS (4, LARGEST_MXFP4), "");

/* -- A block's factors --------------------------------------------------------------------------------------------- */

typedef struct factors {
    float d[8], m[8];        /* m: the format's m or dmin */
    int16_t scale[16][8][2]; /* [group][row]: the scale twice. Formats of 32 have none: theirs end here. */
    int16_t min[8][8][2];    /* [pair of groups][row]: the two minimums, or scales times the offset */
} factors;

INLINE size_t factor_bytes (const int type)
{
    return block_width (type) == 32 ? offsetof (factors, scale) : sizeof (factors);
}

INLINE __m256 f16_to_f32_8 (const void *p)
{
    return _mm256_cvtph_ps (_mm_loadu_si128 (p));
}

/* Qword j of v in both lanes. */
#define BOTH_LANES(v, j) _mm256_permute4x64_epi64 (v, (j) *0x55)

/* 8 rows' unsigned bytes (a qword in both lanes) as [b, b] pairs of int16. */
INLINE vec twice_unsigned (vec bytes)
{
    return _mm256_shuffle_epi8 (bytes, _mm256_setr_epi8 (0, -1, 0, -1, 1, -1, 1, -1, 2, -1, 2, -1, 3, -1, 3, -1, 4, -1,
                                                         4, -1, 5, -1, 5, -1, 6, -1, 6, -1, 7, -1, 7, -1));
}

INLINE vec twice_signed (vec bytes)
{
    vec high = _mm256_shuffle_epi8 (bytes, _mm256_setr_epi8 (-1, 0, -1, 0, -1, 1, -1, 1, -1, 2, -1, 2, -1, 3, -1, 3, -1,
                                                             4, -1, 4, -1, 5, -1, 5, -1, 6, -1, 6, -1, 7, -1, 7));
    return _mm256_srai_epi16 (high, 8);
}

/* Two groups' bytes of 8 rows, [group][row], in both lanes, as pairs in the high bytes of int16. */
INLINE vec pair_high (vec bytes)
{
    return _mm256_shuffle_epi8 (bytes, _mm256_setr_epi8 (-1, 0, -1, 8, -1, 1, -1, 9, -1, 2, -1, 10, -1, 3, -1, 11, -1,
                                                         4, -1, 12, -1, 5, -1, 13, -1, 6, -1, 14, -1, 7, -1, 15));
}

INLINE void store_256 (void *p, vec v)
{
    _mm256_storeu_si256 (p, v);
}

/* 4 groups, [group][row] unsigned, from group `first` on. */
INLINE void store_scales_unsigned (factors *f, const int first, vec bytes)
{
    store_256 (f->scale[first], twice_unsigned (BOTH_LANES (bytes, 0)));
    store_256 (f->scale[first + 1], twice_unsigned (BOTH_LANES (bytes, 1)));
    store_256 (f->scale[first + 2], twice_unsigned (BOTH_LANES (bytes, 2)));
    store_256 (f->scale[first + 3], twice_unsigned (BOTH_LANES (bytes, 3)));
}

INLINE void store_scales_signed (factors *f, const int first, vec bytes)
{
    store_256 (f->scale[first], twice_signed (BOTH_LANES (bytes, 0)));
    store_256 (f->scale[first + 1], twice_signed (BOTH_LANES (bytes, 1)));
    store_256 (f->scale[first + 2], twice_signed (BOTH_LANES (bytes, 2)));
    store_256 (f->scale[first + 3], twice_signed (BOTH_LANES (bytes, 3)));
}

/* bytes << shift as the minimums of 4 groups. */
INLINE void store_mins (factors *f, const int first, vec bytes, const int shift)
{
    store_256 (f->min[first / 2], _mm256_srai_epi16 (pair_high (_mm256_permute4x64_epi64 (bytes, 0x44)), 8 - shift));
    store_256 (f->min[first / 2 + 1],
               _mm256_srai_epi16 (pair_high (_mm256_permute4x64_epi64 (bytes, 0xee)), 8 - shift));
}

/* 8 groups, from group `first` on, whose scales are nibbles of a dword a row. */
INLINE void store_scales_nibbles (const int type, factors *f, const int first, vec nibbles)
{
    const vec one = _mm256_set1_epi8 (1); /* 2 s + 1 */
    const vec low = _mm256_or_si256 (masked_b32 (nibbles, -1, 2 * scale_mask (type)), one),
              high = _mm256_or_si256 (masked_b32 (nibbles, 3, 2 * scale_mask (type)), one);
    UNROLL for (int j = 0; j < 4; j++) /* byte j of each dword twice, as int16 */
    {
        const vec from =
            _mm256_or_si256 (_mm256_set1_epi32 ((int) 0x80008000 | j << 16 | j),
                             _mm256_setr_epi32 (0, 0x40004, 0x80008, 0xc000c, 0, 0x40004, 0x80008, 0xc000c));
        const vec even = _mm256_shuffle_epi8 (low, from), odd = _mm256_shuffle_epi8 (high, from);
        store_256 (f->scale[first + 2 * j], even);
        store_256 (f->scale[first + 2 * j + 1], odd);
        store_256 (f->min[first / 2 + j],
                   _mm256_slli_epi16 (_mm256_blend_epi16 (even, odd, 0xaa), offset_shift (type)));
    }
}

INLINE void load_factors (const int type, factors *f, const uint8_t *block)
{
    _mm256_storeu_ps (f->d, block_d (type, block));
    if (has_min (type)) /* dmin stands second */
        _mm256_storeu_ps (f->m, f16_to_f32_8 (block + 16));
    if (block_width (type) == 32)
        return;
    const uint8_t *s = block + (has_min (type) ? 32 : 16);
    if (type == Q4_K || type == Q5_K) {
        vec a = load_256 (s), b = load_256 (s + 32), low = load_256 (s + 64);
        store_scales_unsigned (f, 0, masked_b32 (a, 0, 63));
        store_scales_unsigned (f, 4, _mm256_or_si256 (masked_b32 (low, 0, 15), masked_b32 (a, 2, 0x30)));
        store_mins (f, 0, masked_b32 (b, 0, 63), 0);
        store_mins (f, 4, _mm256_or_si256 (masked_b32 (low, 4, 15), masked_b32 (b, 2, 0x30)), 0);
    } else if (type == Q2_K) {
        UNROLL for (int i = 0; i < 4; i++)
        {
            vec v = load_256 (s + 32 * i);
            store_scales_unsigned (f, 4 * i, masked_b32 (v, 0, 15));
            store_mins (f, 4 * i, masked_b32 (v, 4, 15), 0);
        }
    } else if (type == Q3_K) {
        vec high = load_256 (s + 64);
        UNROLL for (int i = 0; i < 4; i++)
        {
            vec v = _mm256_or_si256 (masked_b32 (load_256 (s + i % 2 * 32), i / 2 * 4, 15),
                                     masked_b32 (high, 2 * i - 4, 0x30));
            v = _mm256_sub_epi8 (v, _mm256_set1_epi8 (32));
            store_scales_signed (f, 4 * i, v);
            store_mins (f, 4 * i, v, offset_shift (type));
        }
    } else if (type == Q6_K) {
        UNROLL for (int i = 0; i < 4; i++)
        {
            vec v = load_256 (s + 32 * i);
            store_scales_signed (f, 4 * i, v);
            store_mins (f, 4 * i, v, offset_shift (type));
        }
    } else if (type == TQ1_0 || type == TQ2_0) {
        UNROLL for (int g = 0; g < 8; g++) store_256 (f->scale[g], _mm256_set1_epi16 (1));
        UNROLL for (int j = 0; j < 4; j++) store_256 (f->min[j], _mm256_set1_epi16 (1));
    } else if (is_expanded (type)) {
        UNROLL for (int half = 0; half < block_groups (type) / 8; half++)
            store_scales_nibbles (type, f, 8 * half, scale_nibbles (type, block, half));
    } else { /* IQ4_XS: nibble 0 of byte t is scale 2t, its high bits are at bit 4 (t % 2) of byte t / 2 of scales_h */
        vec low = load_256 (s + 16),
            high = _mm256_permute4x64_epi64 (_mm256_castsi128_si256 (_mm_loadu_si128 ((const __m128i *) s)), 0x50);
        vec odd = _mm256_setr_epi32 (0, 0, -1, -1, 0, 0, -1, -1);
        high = _mm256_blendv_epi8 (high, _mm256_srli_epi16 (high, 4), odd); /* bits 0-1: scale 2t, bits 2-3: 2t + 1 */
        vec even_scales = _mm256_or_si256 (masked_b32 (low, 0, 15), masked_b32 (high, -4, 0x30));
        vec odd_scales = _mm256_or_si256 (masked_b32 (low, 4, 15), masked_b32 (high, -2, 0x30));
        even_scales = _mm256_sub_epi8 (even_scales, _mm256_set1_epi8 (32));
        odd_scales = _mm256_sub_epi8 (odd_scales, _mm256_set1_epi8 (32));
        vec first = _mm256_unpacklo_epi64 (even_scales, odd_scales),
            second = _mm256_unpackhi_epi64 (even_scales, odd_scales);
        store_scales_signed (f, 0, _mm256_permute2x128_si256 (first, second, 0x20)); /* t = 0, 1 */
        store_scales_signed (f, 4, _mm256_permute2x128_si256 (first, second, 0x31)); /* t = 2, 3 */
    }
}

#endif
