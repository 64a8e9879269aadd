/* What AVX-512 VNNI adds to simd8_tiles.h: every weight as an unsigned byte, and a block's factors as its instructions
 * want them; private to avx512*.h.
 *
 * vpdpbusd adds the products of 4 unsigned bytes and 4 signed ones to an int32, without saturation and with no step
 * through int16. So weights that use all of int8 are no special case: they are raised by 128, an offset like that of the
 * others. */
#ifndef WL_ENGINE_KERNELS_AVX512_TILES_H
#define WL_ENGINE_KERNELS_AVX512_TILES_H

#include "kernels.h"
#include "simd8_expand.h"
#include "simd8_tiles.h"

typedef __m256i half; /* one tile: 8 rows */
typedef __m512i vec;  /* two tiles: 16 rows */

/* Keeps a vector where the source has it, as in avx2.h. Emulated vectors are in no register. */
#if defined(__AVX512F__)
#define PIN(v) __asm__ volatile("" : "+v"(v))
#else
#define PIN(v) (void) (v)
#endif

/* -- What the types are like --------------------------------------------------------------------------------------- */

/* fetch_unsigned() gives the weight plus 1 << raised_shift(). */
INLINE bool is_raised (const int type)
{
    return has_offset (type) || is_signed (type);
}

INLINE int raised_shift (const int type)
{
    return is_signed (type) ? 7 : offset_shift (type);
}

INLINE half fetch_unsigned (const int type, const uint8_t *block, int outer, const int inner, const int k)
{
    half v = fetch (type, block, outer, inner, k);
    return is_signed (type) ? _mm256_xor_si256 (v, _mm256_set1_epi8 (-128)) : v;
}

INLINE bool is_ternary (const int type) /* all scales are 1 */
{
    return type == TQ1_0 || type == TQ2_0;
}

/* In a panel the scale is multiplied into the weight, where a byte has room for that: a block is then one sum.
 *   Q2_K: scale q <= 15 * 3;    Q3_K: scale (q - 4) is in [-124, 128 - 4], so plus 124 it is a byte. */
INLINE bool is_folded (const int type)
{
    return type == Q2_K || type == Q3_K || is_ternary (type);
}

enum { FOLDED_OFFSET_Q3_K = 124 };

/* What panel weights are raised by. */
INLINE int panel_offset (const int type)
{
    return type == Q3_K ? FOLDED_OFFSET_Q3_K : is_raised (type) ? 1 << raised_shift (type) : 0;
}

/* -- A block's factors --------------------------------------------------------------------------------------------- */

/* Of two tiles; the few-columns kernels use the first half of each row. */
typedef struct factors {
    float d[16], m[16];    /* m: the format's m or dmin. Formats of 32 end here. */
    int16_t min[8][16][2]; /* pairs that go with pairs of activation sums */
    int32_t scale[16][16]; /* [group][row] */
} factors;

INLINE size_t factor_bytes (const int type)
{
    return block_width (type) == 32 ? offsetof (factors, min)
           : is_folded (type)       ? offsetof (factors, scale)
                                    : sizeof (factors);
}

INLINE half load_half (const void *p)
{
    return _mm256_loadu_si256 ((const __m256i *) p);
}

INLINE void store_half (void *p, half v)
{
    _mm256_storeu_si256 ((__m256i *) p, v);
}

/* 8 rows' bytes as dwords. */
INLINE half unsigned_bytes (const uint8_t *p)
{
    return _mm256_cvtepu8_epi32 (_mm_loadl_epi64 ((const __m128i *) p));
}

INLINE half signed_bytes (const uint8_t *p)
{
    return _mm256_cvtepi8_epi32 (_mm_loadl_epi64 ((const __m128i *) p));
}

/* (v >> right) & mask in every dword; right < 0 shifts left. */
INLINE half masked (half v, const int right, int mask)
{
    half shifted = right > 0 ? _mm256_srli_epi32 (v, right) : right < 0 ? _mm256_slli_epi32 (v, -right) : v;
    return _mm256_and_si256 (shifted, _mm256_set1_epi32 (mask));
}

/* low bits of one number and high bits of another */
INLINE half join (half low, const int low_right, half high, const int high_right)
{
    return _mm256_or_si256 (masked (low, low_right, 15), masked (high, high_right, 0x30));
}

/* Scales and minimums of 8 rows, by group. */
INLINE void load_scales (const int type, half scale[16], half min[16], const uint8_t *block)
{
    const uint8_t *s = block + (has_min (type) ? 32 : 16);
    const half less = _mm256_set1_epi32 (32);
    if (type == Q4_K || type == Q5_K) {
        UNROLL for (int i = 0; i < 4; i++)
        {
            half a = unsigned_bytes (s + 8 * i), b = unsigned_bytes (s + 32 + 8 * i),
                 low = unsigned_bytes (s + 64 + 8 * i);
            scale[i] = masked (a, 0, 63);
            scale[4 + i] = join (low, 0, a, 2);
            min[i] = masked (b, 0, 63);
            min[4 + i] = join (low, 4, b, 2);
        }
    } else if (type == Q2_K) {
        UNROLL for (int g = 0; g < 16; g++)
        {
            half v = unsigned_bytes (s + 8 * g);
            scale[g] = masked (v, 0, 15);
            min[g] = _mm256_srli_epi32 (v, 4);
        }
    } else if (type == Q3_K) {
        UNROLL for (int g = 0; g < 16; g++) scale[g] = _mm256_sub_epi32 (
            join (unsigned_bytes (s + 8 * (g % 8)), g / 8 * 4, unsigned_bytes (s + 64 + 8 * (g % 4)), g / 4 * 2 - 4),
            less);
    } else if (type == Q6_K) {
        UNROLL for (int g = 0; g < 16; g++) scale[g] = signed_bytes (s + 8 * g);
    } else if (type == IQ4_XS) { /* the upper bits are at bit 2 g of scales_h, which is first */
        UNROLL for (int g = 0; g < 8; g++) scale[g] = _mm256_sub_epi32 (
            join (unsigned_bytes (s + 16 + g / 2 * 8), g % 2 * 4, unsigned_bytes (s + g / 4 * 8), g % 4 * 2 - 4), less);
    } else if (is_ternary (type)) {
        UNROLL for (int g = 0; g < 8; g++) scale[g] = _mm256_set1_epi32 (1);
    } else { /* nibbles that stand for 2 s + 1 */
        UNROLL for (int g = 0; g < block_groups (type); g++) scale[g] = _mm256_or_si256 (
            masked (scale_nibbles (type, block, g / 8), g % 8 * 4 - 1, 2 * scale_mask (type)), _mm256_set1_epi32 (1));
    }
}

/* Two numbers of int16 as the halves of dwords. */
INLINE half pairs (half first, half second)
{
    return _mm256_blend_epi16 (first, _mm256_slli_epi32 (second, 16), 0xaa);
}

/* The factors of tile `t` (0 or 1) of a vector, but for scale. paired: min[j] goes with the sums of groups 2 j and
 * 2 j + 1; else with sums 2 j and 2 j + 1 of 16 elements each, and takes the place of the offset too. */
INLINE void load_factors (const int type, const bool paired, factors *f, const int t, half scale[16],
                          const uint8_t *block)
{
    half min[16];
    _mm256_storeu_ps (f->d + 8 * t, block_d (type, block));
    if (has_min (type)) /* dmin stands second */
        _mm256_storeu_ps (f->m + 8 * t, load8_f16 (block + 16));
    if (block_width (type) == 32)
        return;
    load_scales (type, scale, min, block);
    if (is_raised (type)) {
        if (paired)
            return;
        UNROLL for (int g = 0; g < block_groups (type); g++) min[g] = _mm256_slli_epi32 (scale[g], raised_shift (type));
    }
    const bool twice = block_groups (type) == 8 && !paired;
    const int n = paired ? block_groups (type) / 2 : 8;
    UNROLL for (int j = 0; j < n; j++)
        store_half (f->min[j][8 * t], twice ? pairs (min[j], min[j]) : pairs (min[2 * j], min[2 * j + 1]));
}

/* A step's weights times the scale of each row, in bytes. */
INLINE half fold (const int type, half w, half scale)
{
    if (is_ternary (type))
        return w;
    half both = pairs (scale, scale);
    if (type == Q2_K) /* no byte's product carries into the next */
        return _mm256_mullo_epi16 (w, both);
    half even = _mm256_and_si256 (_mm256_mullo_epi16 (_mm256_and_si256 (w, _mm256_set1_epi16 (255)), both),
                                  _mm256_set1_epi16 (255)),
         odd = _mm256_slli_epi16 (_mm256_mullo_epi16 (_mm256_srli_epi16 (w, 8), both), 8);
    /* scale q + 124 - 4 scale, modulo 256 */
    half four = _mm256_sub_epi32 (_mm256_set1_epi32 (FOLDED_OFFSET_Q3_K), _mm256_slli_epi32 (scale, 2));
    four = _mm256_shuffle_epi8 (four, _mm256_setr_epi8 (0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12, 0, 0, 0, 0,
                                                        4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12));
    return _mm256_add_epi8 (_mm256_or_si256 (even, odd), four);
}

#endif
