/* How AVX2 reads packed tiles: what each quantized type is like, its steps, its factors; private to avx2_matmul.c.
 *
 * Each type is described by a few functions of a constant, so that always_inline kernels over the type see constants only. */
#ifndef WL_ENGINE_KERNELS_AVX2_TILES_H
#define WL_ENGINE_KERNELS_AVX2_TILES_H

#include "avx2.h"
#include "formats.h"

typedef __m256i vec;

/* -- What the types are like ------------------------------------------------------------------------------------------------- */

enum { Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_XS };

INLINE size_t block_bytes (const int type)
{
    static const size_t bytes[] = {sizeof (tile_q4_0), sizeof (tile_q4_1), sizeof (tile_q5_0), sizeof (tile_q5_1),
                                   sizeof (tile_q8_0), sizeof (tile_iq4_nl), sizeof (tile_q2_k), sizeof (tile_q3_k),
                                   sizeof (tile_q4_k), sizeof (tile_q5_k), sizeof (tile_q6_k), sizeof (tile_iq4_xs)};
    return bytes[type];
}

INLINE int block_width (const int type)
{
    return type >= Q2_K ? 256 : 32;
}

/* Steps that share a scale, of the weights or (formats of 32) of the activations: 8 (32 elements) or 4. */
INLINE int group_steps (const int type)
{
    return type == Q4_K || type == Q5_K || type == IQ4_XS ? 8 : 4;
}

INLINE int block_groups (const int type)
{
    return block_width (type) / 4 / group_steps (type);
}

/* Weights fetched as int8 of any size; else unsigned, too large by an offset (0 where the format has minimums). */
INLINE bool is_signed (const int type)
{
    return type == Q8_0 || type == IQ4_NL || type == IQ4_XS;
}

INLINE int offset_shift (const int type) /* offset = 1 << shift; 0: none */
{
    return type == Q4_0 ? 3 : type == Q5_0 ? 4 : type == Q3_K ? 2 : type == Q6_K ? 5 : 0;
}

/* Steps whose unsigned products an int16 holds: chain * 2 * 127 * (largest weight) <= 32767. */
INLINE int chain_steps (const int type)
{
    return type == Q5_0 || type == Q5_1 || type == Q5_K ? 4 : type == Q6_K ? 2 : is_signed (type) ? 1 : group_steps (type);
}

/* A second float step for minimums. */
INLINE bool has_min (const int type)
{
    return type == Q4_1 || type == Q5_1 || type == Q2_K || type == Q4_K || type == Q5_K;
}

/* -- Fetching 4 elements of 8 rows from a packed tile -------------------------------------------------------------------------- */

INLINE vec masked (vec v, const int right, int mask) /* (v >> right) & mask in every byte; right < 0 shifts left */
{
    vec shifted = right > 0 ? _mm256_srli_epi16 (v, right) : right < 0 ? _mm256_slli_epi16 (v, -right) : v;
    return _mm256_and_si256 (shifted, _mm256_set1_epi8 ((char) mask));
}

INLINE vec from_codebook (vec nibbles)
{
    return _mm256_shuffle_epi8 (_mm256_broadcastsi128_si256 (_mm_loadu_si128 ((const __m128i *) iq4_codebook)), nibbles);
}

/* Groups are fetched inner_groups at a time, so that shifts are constants: group = outer * inner_groups + inner. */
INLINE int inner_groups (const int type)
{
    return type == Q2_K || type == Q3_K || type == Q6_K ? 8 : type == IQ4_XS ? 1 : 2;
}

INLINE vec fetch (const int type, const uint8_t *block, int outer, const int inner, const int k)
{
    const int quarter = inner / 2, step = inner % 2 * 4 + k; /* of 128 elements in the types of 16 groups, of the block in those of 32 */
    switch (type) {
    case Q4_0:
    case Q4_1:
    case IQ4_NL: {
        vec v = load_256 (block + (type == Q4_1 ? offsetof (tile_q4_1, qs) : offsetof (tile_q4_0, qs)) + k * 32);
        v = masked (v, inner * 4, 15);
        return type == IQ4_NL ? from_codebook (v) : v;
    }
    case Q5_0:
    case Q5_1: {
        size_t qh = type == Q5_0 ? offsetof (tile_q5_0, qh) : offsetof (tile_q5_1, qh);
        vec v = masked (load_256 (block + qh + 32 + k * 32), inner * 4, 15);
        return _mm256_or_si256 (v, masked (load_256 (block + qh), step - 4, 16));
    }
    case Q8_0:
        return load_256 (block + offsetof (tile_q8_0, qs) + step * 32);
    case Q2_K:
        return masked (load_256 (block + offsetof (tile_q2_k, qs) + (outer * 8 + step) * 32), 2 * quarter, 3);
    case Q3_K: {
        vec low = masked (load_256 (block + offsetof (tile_q3_k, qs) + (outer * 8 + step) * 32), 2 * quarter, 3);
        vec high = load_256 (block + offsetof (tile_q3_k, hmask) + step * 32);
        high = _mm256_srl_epi16 (high, _mm_cvtsi32_si128 (4 * outer));
        return _mm256_or_si256 (low, masked (high, quarter - 2, 4));
    }
    case Q4_K:
        return masked (load_256 (block + offsetof (tile_q4_k, qs) + (outer * 8 + k) * 32), 4 * inner, 15);
    case Q5_K: {
        vec low = masked (load_256 (block + offsetof (tile_q5_k, qs) + (outer * 8 + k) * 32), 4 * inner, 15);
        vec high = load_256 (block + offsetof (tile_q5_k, qh) + k * 32);
        high = _mm256_srl_epi16 (high, _mm_cvtsi32_si128 (2 * outer));
        return _mm256_or_si256 (low, masked (high, inner - 4, 16));
    }
    case Q6_K: {
        vec low = load_256 (block + offsetof (tile_q6_k, ql) + (outer * 16 + quarter % 2 * 8 + step) * 32);
        vec high = load_256 (block + offsetof (tile_q6_k, qh) + (outer * 8 + step) * 32);
        return _mm256_or_si256 (masked (low, quarter / 2 * 4, 15), masked (high, 2 * quarter - 4, 0x30));
    }
    default: /* IQ4_XS */
        return from_codebook (
            masked (load_256 (block + offsetof (tile_iq4_xs, qs) + (outer * 4 + k % 4) * 32), k / 4 * 4, 15));
    }
}

/* -- A block's factors ------------------------------------------------------------------------------------------------------- */

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
#define BOTH_LANES(v, j) _mm256_permute4x64_epi64 (v, (j) * 0x55)

/* 8 rows' unsigned bytes (a qword in both lanes) as [b, b] pairs of int16. */
INLINE vec twice_unsigned (vec bytes)
{
    return _mm256_shuffle_epi8 (bytes, _mm256_setr_epi8 (0, -1, 0, -1, 1, -1, 1, -1, 2, -1, 2, -1, 3, -1, 3, -1, 4, -1, 4, -1, 5,
                                                         -1, 5, -1, 6, -1, 6, -1, 7, -1, 7, -1));
}

INLINE vec twice_signed (vec bytes)
{
    vec high = _mm256_shuffle_epi8 (bytes, _mm256_setr_epi8 (-1, 0, -1, 0, -1, 1, -1, 1, -1, 2, -1, 2, -1, 3, -1, 3, -1, 4, -1, 4,
                                                             -1, 5, -1, 5, -1, 6, -1, 6, -1, 7, -1, 7));
    return _mm256_srai_epi16 (high, 8);
}

/* Two groups' bytes of 8 rows, [group][row], in both lanes, as pairs in the high bytes of int16. */
INLINE vec pair_high (vec bytes)
{
    return _mm256_shuffle_epi8 (bytes, _mm256_setr_epi8 (-1, 0, -1, 8, -1, 1, -1, 9, -1, 2, -1, 10, -1, 3, -1, 11, -1, 4, -1, 12,
                                                         -1, 5, -1, 13, -1, 6, -1, 14, -1, 7, -1, 15));
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
    store_256 (f->min[first / 2 + 1], _mm256_srai_epi16 (pair_high (_mm256_permute4x64_epi64 (bytes, 0xee)), 8 - shift));
}

INLINE void load_factors (const int type, factors *f, const uint8_t *block)
{
    _mm256_storeu_ps (f->d, f16_to_f32_8 (block)); /* d stands first in every tile, dmin second */
    if (has_min (type))
        _mm256_storeu_ps (f->m, f16_to_f32_8 (block + 16));
    if (block_width (type) == 32)
        return;
    const uint8_t *s = block + (has_min (type) ? 32 : 16);
    if (type == Q4_K || type == Q5_K) {
        vec a = load_256 (s), b = load_256 (s + 32), low = load_256 (s + 64);
        store_scales_unsigned (f, 0, masked (a, 0, 63));
        store_scales_unsigned (f, 4, _mm256_or_si256 (masked (low, 0, 15), masked (a, 2, 0x30)));
        store_mins (f, 0, masked (b, 0, 63), 0);
        store_mins (f, 4, _mm256_or_si256 (masked (low, 4, 15), masked (b, 2, 0x30)), 0);
    } else if (type == Q2_K) {
        UNROLL for (int i = 0; i < 4; i++)
        {
            vec v = load_256 (s + 32 * i);
            store_scales_unsigned (f, 4 * i, masked (v, 0, 15));
            store_mins (f, 4 * i, masked (v, 4, 15), 0);
        }
    } else if (type == Q3_K) {
        vec high = load_256 (s + 64);
        UNROLL for (int i = 0; i < 4; i++)
        {
            vec v = _mm256_or_si256 (masked (load_256 (s + i % 2 * 32), i / 2 * 4, 15), masked (high, 2 * i - 4, 0x30));
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
    } else { /* IQ4_XS: nibble 0 of byte t is scale 2t, its high bits are at bit 4 (t % 2) of byte t / 2 of scales_h */
        vec low = load_256 (s + 16), high = _mm256_permute4x64_epi64 (_mm256_castsi128_si256 (_mm_loadu_si128 ((const __m128i *) s)), 0x50);
        vec odd = _mm256_setr_epi32 (0, 0, -1, -1, 0, 0, -1, -1);
        high = _mm256_blendv_epi8 (high, _mm256_srli_epi16 (high, 4), odd); /* bits 0-1: scale 2t, bits 2-3: 2t + 1 */
        vec even_scales = _mm256_or_si256 (masked (low, 0, 15), masked (high, -4, 0x30));
        vec odd_scales = _mm256_or_si256 (masked (low, 4, 15), masked (high, -2, 0x30));
        even_scales = _mm256_sub_epi8 (even_scales, _mm256_set1_epi8 (32));
        odd_scales = _mm256_sub_epi8 (odd_scales, _mm256_set1_epi8 (32));
        vec first = _mm256_unpacklo_epi64 (even_scales, odd_scales), second = _mm256_unpackhi_epi64 (even_scales, odd_scales);
        store_scales_signed (f, 0, _mm256_permute2x128_si256 (first, second, 0x20)); /* t = 0, 1 */
        store_scales_signed (f, 4, _mm256_permute2x128_si256 (first, second, 0x31)); /* t = 2, 3 */
    }
}

#endif
