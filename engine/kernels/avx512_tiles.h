/* What AVX-512 VNNI adds to simd8_tiles.h: two tiles side by side, every weight as an unsigned byte, and a block's
 * factors as its instructions want them; private to avx512*.h.
 *
 * vpdpbusd adds the products of 4 unsigned bytes and 4 signed ones to an int32, without saturation and with no step
 * through int16. So weights that use all of int8 are no special case: they are raised by 128, an offset like that of the
 * others. */
#ifndef WL_ENGINE_KERNELS_AVX512_TILES_H
#define WL_ENGINE_KERNELS_AVX512_TILES_H

#include "kernels.h"
#include "simd8_expand.h"
#include "simd8_tiles.h"

typedef __m512i vec; /* of two tiles: 16 rows */

/* Keeps a vector where the source has it, as in avx2.h. Emulated vectors are in no register. */
#if defined(__AVX512F__)
#define PIN(v) __asm__ volatile("" : "+v"(v))
#else
#define PIN(v) (void) (v)
#endif

/* -- Two tiles ----------------------------------------------------------------------------------------------------- */

/* The same block of two tiles; the second is `apart` bytes behind the first (0: the same tile, where there is but one). */
typedef struct pair {
    const uint8_t *block;
    size_t apart;
} pair;

INLINE vec load_vec (const void *p)
{
    return _mm512_loadu_si512 (p);
}

INLINE void store_vec (void *p, vec v)
{
    _mm512_storeu_si512 (p, v);
}

INLINE vec join_halves (__m256i lower, __m256i upper)
{
    return _mm512_inserti64x4 (_mm512_castsi256_si512 (lower), upper, 1);
}

INLINE __m512 join_floats (__m256 lower, __m256 upper)
{
    return _mm512_castsi512_ps (join_halves (_mm256_castps_si256 (lower), _mm256_castps_si256 (upper)));
}

INLINE __m256 upper_floats (__m512 v)
{
    return _mm256_castsi256_ps (_mm512_extracti64x4_epi64 (_mm512_castps_si512 (v), 1));
}

/* 32 bytes of each tile. */
INLINE vec load_pair (pair p, size_t offset)
{
    return join_halves (load_b32 (p.block + offset), load_b32 (p.block + p.apart + offset));
}

/* (v >> right) & mask in every byte; right < 0 shifts left. */
INLINE vec masked_bytes (vec v, const int right, int mask)
{
    vec shifted = right > 0   ? _mm512_srli_epi16 (v, (unsigned) right)
                  : right < 0 ? _mm512_slli_epi16 (v, (unsigned) -right)
                              : v;
    return _mm512_and_si512 (shifted, _mm512_set1_epi8 ((char) mask));
}

INLINE vec shift_bytes_right (vec v, int n)
{
    return _mm512_srl_epi16 (v, _mm_cvtsi32_si128 (n));
}

INLINE vec look_up (const int8_t table[16], vec index)
{
    return _mm512_shuffle_epi8 (_mm512_broadcast_i32x4 (_mm_loadu_si128 ((const __m128i *) table)), index);
}

/* vec fetch_pair (type, pair, outer, inner, k): fetch () of both tiles. */
#define FETCH fetch_pair
#define STEP vec
#define BLOCK pair
#define LOAD(block, offset) load_pair (block, (size_t) (offset))
#define MASKED masked_bytes
#define SHIFT_RIGHT shift_bytes_right
#define OR _mm512_or_si512
#define LOOK_UP look_up
#include "simd8_fetch.h"

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

INLINE vec fetch_unsigned (const int type, pair source, int outer, const int inner, const int k)
{
    vec v = fetch_pair (type, source, outer, inner, k);
    return is_signed (type) ? _mm512_xor_si512 (v, _mm512_set1_epi8 (-128)) : v;
}

/* The weight itself, which fits a signed byte. */
INLINE vec fetch_signed (const int type, pair source, int outer, const int inner, const int k)
{
    vec v = fetch_pair (type, source, outer, inner, k);
    return has_offset (type) ? _mm512_sub_epi8 (v, _mm512_set1_epi8 ((char) (1 << offset_shift (type)))) : v;
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

/* 16 rows' bytes. */
INLINE __m128i row_bytes (pair p, size_t offset)
{
    return _mm_unpacklo_epi64 (_mm_loadl_epi64 ((const __m128i *) (p.block + offset)),
                               _mm_loadl_epi64 ((const __m128i *) (p.block + p.apart + offset)));
}

/* The same as dwords. */
INLINE vec unsigned_bytes (pair p, size_t offset)
{
    return _mm512_cvtepu8_epi32 (row_bytes (p, offset));
}

INLINE vec signed_bytes (pair p, size_t offset)
{
    return _mm512_cvtepi8_epi32 (row_bytes (p, offset));
}

/* (v >> right) & mask in every dword; right < 0 shifts left. */
INLINE vec masked (vec v, const int right, int mask)
{
    vec shifted = right > 0   ? _mm512_srli_epi32 (v, (unsigned) right)
                  : right < 0 ? _mm512_slli_epi32 (v, (unsigned) -right)
                              : v;
    return _mm512_and_si512 (shifted, _mm512_set1_epi32 (mask));
}

/* low bits of one number and high bits of another */
INLINE vec join (vec low, const int low_right, vec high, const int high_right)
{
    return _mm512_or_si512 (masked (low, low_right, 15), masked (high, high_right, 0x30));
}

/* Scales and minimums by group. */
INLINE void load_scales (const int type, vec scale[16], vec min[16], pair p)
{
    const size_t s = has_min (type) ? 32 : 16;
    const vec less = _mm512_set1_epi32 (32);
    if (type == Q4_K || type == Q5_K) {
        UNROLL for (size_t i = 0; i < 4; i++)
        {
            vec a = unsigned_bytes (p, s + 8 * i), b = unsigned_bytes (p, s + 32 + 8 * i),
                low = unsigned_bytes (p, s + 64 + 8 * i);
            scale[i] = masked (a, 0, 63);
            scale[4 + i] = join (low, 0, a, 2);
            min[i] = masked (b, 0, 63);
            min[4 + i] = join (low, 4, b, 2);
        }
    } else if (type == Q2_K) {
        UNROLL for (size_t g = 0; g < 16; g++)
        {
            vec v = unsigned_bytes (p, s + 8 * g);
            scale[g] = masked (v, 0, 15);
            min[g] = _mm512_srli_epi32 (v, 4);
        }
    } else if (type == Q3_K) {
        UNROLL for (int g = 0; g < 16; g++) scale[g] =
            _mm512_sub_epi32 (join (unsigned_bytes (p, s + 8 * (size_t) (g % 8)), g / 8 * 4,
                                    unsigned_bytes (p, s + 64 + 8 * (size_t) (g % 4)), g / 4 * 2 - 4),
                              less);
    } else if (type == Q6_K) {
        UNROLL for (size_t g = 0; g < 16; g++) scale[g] = signed_bytes (p, s + 8 * g);
    } else if (type == IQ4_XS) { /* the upper bits are at bit 2 g of scales_h, which is first */
        UNROLL for (int g = 0; g < 8; g++) scale[g] =
            _mm512_sub_epi32 (join (unsigned_bytes (p, s + 16 + (size_t) (g / 2 * 8)), g % 2 * 4,
                                    unsigned_bytes (p, s + (size_t) (g / 4 * 8)), g % 4 * 2 - 4),
                              less);
    } else if (is_ternary (type)) {
        UNROLL for (int g = 0; g < 8; g++) scale[g] = _mm512_set1_epi32 (1);
    } else { /* nibbles that stand for 2 s + 1 */
        vec nibbles[2];
        UNROLL for (int i = 0; i < block_groups (type) / 8; i++) nibbles[i] =
            join_halves (scale_nibbles (type, p.block, i), scale_nibbles (type, p.block + p.apart, i));
        UNROLL for (int g = 0; g < block_groups (type); g++) scale[g] =
            _mm512_or_si512 (masked (nibbles[g / 8], g % 8 * 4 - 1, 2 * scale_mask (type)), _mm512_set1_epi32 (1));
    }
}

/* Two numbers of int16 as the halves of dwords. */
INLINE vec halves_of_dwords (vec first, vec second)
{
    return _mm512_mask_blend_epi16 (0xaaaaaaaa, first, _mm512_slli_epi32 (second, 16));
}

/* Factors but for scale, which is returned. paired: min[j] goes with the sums of groups 2 j and 2 j + 1; else with sums
 * 2 j and 2 j + 1 of 16 elements each, and takes the place of the offset too. */
INLINE void load_factors (const int type, const bool paired, factors *f, vec scale[16], pair p)
{
    vec min[16];
    _mm512_storeu_ps (f->d, join_floats (block_d (type, p.block), block_d (type, p.block + p.apart)));
    if (has_min (type)) /* dmin stands second */
        _mm512_storeu_ps (f->m, join_floats (load8_f16 (p.block + 16), load8_f16 (p.block + p.apart + 16)));
    if (block_width (type) == 32)
        return;
    load_scales (type, scale, min, p);
    if (is_raised (type)) {
        if (paired)
            return;
        UNROLL for (int g = 0; g < block_groups (type); g++) min[g] =
            _mm512_slli_epi32 (scale[g], (unsigned) raised_shift (type));
    }
    const bool twice = block_groups (type) == 8 && !paired;
    const int n = paired ? block_groups (type) / 2 : 8;
    UNROLL for (int j = 0; j < n; j++) store_vec (f->min[j], twice ? halves_of_dwords (min[j], min[j])
                                                                   : halves_of_dwords (min[2 * j], min[2 * j + 1]));
}

/* A step's weights times the scale of each row, in bytes. */
INLINE vec fold (const int type, vec w, vec scale)
{
    if (is_ternary (type))
        return w;
    vec both = halves_of_dwords (scale, scale);
    if (type == Q2_K) /* no byte's product carries into the next */
        return _mm512_mullo_epi16 (w, both);
    const vec low_byte = _mm512_set1_epi16 (255);
    vec even = _mm512_and_si512 (_mm512_mullo_epi16 (_mm512_and_si512 (w, low_byte), both), low_byte),
        odd = _mm512_slli_epi16 (_mm512_mullo_epi16 (_mm512_srli_epi16 (w, 8), both), 8);
    /* scale q + 124 - 4 scale, modulo 256 */
    vec four = _mm512_sub_epi32 (_mm512_set1_epi32 (FOLDED_OFFSET_Q3_K), _mm512_slli_epi32 (scale, 2));
    four = _mm512_shuffle_epi8 (
        four, _mm512_broadcast_i32x4 (_mm_setr_epi8 (0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12)));
    return _mm512_add_epi8 (_mm512_or_si512 (even, odd), four);
}

/* A step's signed weights times the scale of each row, as int16 = 256 * upper + lower; lower is unsigned. No type's
 * product is larger: Q6_K's are within 128 * 32, the others' within 63 * 31 and 32 * 127. */
INLINE void store_products (uint8_t *lower, uint8_t *upper, vec w, vec scale)
{
    const vec both = halves_of_dwords (scale, scale),
              even = _mm512_mullo_epi16 (_mm512_srai_epi16 (_mm512_slli_epi16 (w, 8), 8), both),
              odd = _mm512_mullo_epi16 (_mm512_srai_epi16 (w, 8), both);
    const __mmask64 odd_bytes = 0xaaaaaaaaaaaaaaaa;
    store_vec (lower, _mm512_mask_blend_epi8 (odd_bytes, even, _mm512_slli_epi16 (odd, 8)));
    store_vec (upper, _mm512_mask_blend_epi8 (odd_bytes, _mm512_srli_epi16 (even, 8), odd));
}

#endif
