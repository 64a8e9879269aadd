/* Quantized matmul with AVX2.
 *
 * A vector holds 4 consecutive elements (a step) of each of a tile's 8 rows; 4 bytes of an activation row are broadcast against it:
 *     vpmaddubsw  8 rows x 2 pairs, int16          added up over as many steps as int16 surely holds (a chain)
 *     vpmaddwd    with [scale, scale] of each row  -> 8 rows, int32
 * and once a block the int32 sum becomes one float step. That is 32 multiply-adds an instruction with no shuffles and no sum
 * across lanes.
 *
 * Up to DIRECT_COLUMNS columns the tile is read as it is (decode: the weights stream from memory once, prefetched); for more, a
 * slab of two tiles x SLAB elements is unpacked to bytes in L1 and reused for all columns, 16 rows x 3 columns at a time in registers.
 *
 * Each type is described by a few constant functions (steps, chain, ...) and by how a step is fetched from the packed tile; the
 * kernels are always_inline over the type, the number of tiles and of columns, so that the compiler sees constants only. */
#if defined(__x86_64__)

#include <string.h>

#include "avx2.h"
#include "formats.h"

typedef __m256i vec;

/* -- What the types are like ------------------------------------------------------------------------------------------------- */

enum { Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_XS };

enum {
    SLAB = 1024,          /* elements unpacked at a time: 2 tiles of them are 16 KiB */
    DIRECT_COLUMNS = 4,
    PANEL_COLUMNS = 3,
    PREFETCH_BYTES = 2048, /* ahead, when one column streams the weights */
};

INLINE size_t block_bytes (const int type)
{
    static const size_t bytes[] = {sizeof (tile_q4_0), sizeof (tile_q4_1), sizeof (tile_q5_0), sizeof (tile_q5_1),
                                   sizeof (tile_q8_0), sizeof (tile_iq4_nl), sizeof (tile_q2_k), sizeof (tile_q3_k),
                                   sizeof (tile_q4_k), sizeof (tile_q5_k), sizeof (tile_q6_k), sizeof (tile_iq4_xs)};
    return bytes[type];
}

/* Steps that share a scale: 8 (32 elements) or 4. */
INLINE int group_steps (const int type)
{
    return type == Q2_K || type == Q3_K || type == Q6_K ? 4 : 8;
}

/* Weights fetched as int8, to be multiplied by moving their sign to the activation; else unsigned with an offset. */
INLINE bool is_signed (const int type)
{
    return type == Q8_0 || type == IQ4_NL || type == IQ4_XS;
}

/* Steps whose products an int16 holds: chain * 2 * 127 * (largest magnitude) <= 32767. */
INLINE int chain_steps (const int type)
{
    return type == Q5_0 || type == Q5_1 || type == Q5_K ? 4 : type == Q6_K ? 2 : is_signed (type) ? 1 : group_steps (type);
}

/* What unsigned weights are too large by. */
INLINE int offset_shift (const int type)
{
    return type == Q4_0 ? 3 : type == Q5_0 ? 4 : type == Q3_K ? 2 : type == Q6_K ? 5 : 0;
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
    return type == Q2_K || type == Q3_K || type == Q6_K ? 8 : type == Q4_K || type == Q5_K ? 2 : 1;
}

INLINE vec fetch (const int type, const uint8_t *block, int outer, const int inner, const int k)
{
    const int quarter = inner / 2, step = inner % 2 * 4 + k; /* of 128 elements, in the types of 16 groups */
    switch (type) {
    case Q4_0:
    case Q4_1:
    case IQ4_NL: {
        vec v = load_256 (block + (type == Q4_1 ? offsetof (tile_q4_1, qs) : offsetof (tile_q4_0, qs)) + k % 4 * 32);
        v = masked (v, k / 4 * 4, 15);
        return type == IQ4_NL ? from_codebook (v) : v;
    }
    case Q5_0:
    case Q5_1: {
        size_t qh = type == Q5_0 ? offsetof (tile_q5_0, qh) : offsetof (tile_q5_1, qh);
        vec v = masked (load_256 (block + qh + 32 + k % 4 * 32), k / 4 * 4, 15);
        return _mm256_or_si256 (v, masked (load_256 (block + qh), k - 4, 16));
    }
    case Q8_0:
        return load_256 (block + offsetof (tile_q8_0, qs) + k * 32);
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

typedef struct factors_256 {
    int16_t scale[16][8][2]; /* [group][row]: the scale twice */
    int16_t min[8][8][2];    /* [pair of groups][row]: the two minimums, or scales shifted by the offset */
    float d[8], m[8];        /* m: dmin */
} factors_256;

typedef struct factors_32 {
    float d[8], m[8];
} factors_32;

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
INLINE void store_scales_unsigned (factors_256 *f, const int first, vec bytes)
{
    store_256 (f->scale[first], twice_unsigned (BOTH_LANES (bytes, 0)));
    store_256 (f->scale[first + 1], twice_unsigned (BOTH_LANES (bytes, 1)));
    store_256 (f->scale[first + 2], twice_unsigned (BOTH_LANES (bytes, 2)));
    store_256 (f->scale[first + 3], twice_unsigned (BOTH_LANES (bytes, 3)));
}

INLINE void store_scales_signed (factors_256 *f, const int first, vec bytes)
{
    store_256 (f->scale[first], twice_signed (BOTH_LANES (bytes, 0)));
    store_256 (f->scale[first + 1], twice_signed (BOTH_LANES (bytes, 1)));
    store_256 (f->scale[first + 2], twice_signed (BOTH_LANES (bytes, 2)));
    store_256 (f->scale[first + 3], twice_signed (BOTH_LANES (bytes, 3)));
}

/* bytes << shift as the minimums of 4 groups. */
INLINE void store_mins (factors_256 *f, const int first, vec bytes, const int shift)
{
    store_256 (f->min[first / 2], _mm256_srai_epi16 (pair_high (_mm256_permute4x64_epi64 (bytes, 0x44)), 8 - shift));
    store_256 (f->min[first / 2 + 1], _mm256_srai_epi16 (pair_high (_mm256_permute4x64_epi64 (bytes, 0xee)), 8 - shift));
}

INLINE void load_factors_256 (const int type, factors_256 *f, const uint8_t *block)
{
    _mm256_storeu_ps (f->d, f16_to_f32_8 (block)); /* d stands first in every tile, dmin second */
    if (has_min (type))
        _mm256_storeu_ps (f->m, f16_to_f32_8 (block + 16));
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

INLINE void load_factors_32 (const int type, factors_32 *f, const uint8_t *block)
{
    _mm256_storeu_ps (f->d, f16_to_f32_8 (block));
    if (has_min (type))
        _mm256_storeu_ps (f->m, f16_to_f32_8 (block + 16));
}

/* -- The inner step ---------------------------------------------------------------------------------------------------------- */

/* One step of n_tiles x n_columns: s16 (+)= w * activation. w may be signed. */
INLINE void multiply_step (const int type, const int n_tiles, const int n_columns, vec s16[2][4], const vec w[2], const int8_t *a,
                           size_t a_stride, const bool start)
{
    vec magnitude[2];
    if (is_signed (type))
        UNROLL for (int t = 0; t < n_tiles; t++) magnitude[t] = _mm256_abs_epi8 (w[t]);
    UNROLL for (int c = 0; c < n_columns; c++)
    {
        vec x = broadcast_4 (a + c * a_stride), product[2];
        PIN (x);
        UNROLL for (int t = 0; t < n_tiles; t++)
        {
            product[t] = is_signed (type) ? _mm256_maddubs_epi16 (magnitude[t], _mm256_sign_epi8 (x, w[t]))
                                          : _mm256_maddubs_epi16 (w[t], x);
            PIN (product[t]);
        }
        UNROLL for (int t = 0; t < n_tiles; t++)
        {
            s16[t][c] = start ? product[t] : _mm256_add_epi16 (s16[t][c], product[t]);
            PIN (s16[t][c]);
        }
    }
}

/* acc += s16 pairs times `pairs`, which differ by tile. */
INLINE void add_chain (const int n_tiles, const int n_columns, vec acc[2][4], vec s16[2][4], const void *const pairs[2])
{
    UNROLL for (int c = 0; c < n_columns; c++)
    {
        UNROLL for (int t = 0; t < n_tiles; t++)
        {
            vec sum = _mm256_madd_epi16 (s16[t][c], load_256 (pairs[t]));
            acc[t][c] = _mm256_add_epi32 (acc[t][c], sum);
            PIN (acc[t][c]);
        }
    }
}

/* -- Kernels: n_tiles x n_columns over a run of blocks, added to out ----------------------------------------------------------- */

typedef struct weights {
    const uint8_t *packed;     /* one tile as packed, or NULL: */
    const uint8_t *unpacked;   /* [tile][step][8 rows][4], tiles `SLAB * 8` bytes apart */
    const void *factors;       /* [tile][block], tiles SLAB / width apart */
} weights;

typedef struct columns {
    const int8_t *q; /* of column 0 at the first block; so are scales and sums */
    const float *scales;
    const int16_t *sums;
    size_t q_stride, scale_stride, sum_stride;
} columns;

INLINE void kernel_256 (const int type, const int n_tiles, const int n_columns, const bool direct, float *out, size_t out_stride,
                        weights w, columns a, size_t n_blocks)
{
    const int steps = group_steps (type), n_groups = 64 / steps, chain = chain_steps (type);
    const int inner = direct ? inner_groups (type) : 1, outer = n_groups / inner;
    for (size_t b = 0; b < n_blocks; b++) {
        factors_256 local;
        const factors_256 *f[2];
        if (direct)
            load_factors_256 (type, &local, w.packed);
        UNROLL for (int t = 0; t < n_tiles; t++)
            f[t] = direct ? &local : (const factors_256 *) w.factors + t * (SLAB / 256) + b;

        vec acc[2][4];
        UNROLL for (int t = 0; t < n_tiles; t++)
        {
            UNROLL for (int c = 0; c < n_columns; c++) acc[t][c] = _mm256_setzero_si256 ();
        }
        for (int o = 0; o < outer; o++) {
            if (direct && n_columns == 1)
                for (size_t line = 0; line < block_bytes (type) / (size_t) outer; line += 64)
                    _mm_prefetch ((const char *) w.packed + PREFETCH_BYTES + (size_t) o * (block_bytes (type) / (size_t) outer) + line,
                                  _MM_HINT_T0);
            UNROLL for (int i = 0; i < inner; i++)
            {
                vec s16[2][4];
                const int g = o * inner + i;
                const void *pairs[2] = {f[0]->scale[g], n_tiles > 1 ? f[1]->scale[g] : NULL};
                UNROLL for (int k = 0; k < steps; k++)
                {
                    vec v[2];
                    UNROLL for (int t = 0; t < n_tiles; t++)
                    {
                        v[t] = direct ? fetch (type, w.packed, o, i, k)
                                      : load_256 (w.unpacked + t * (SLAB * 8) + (g * steps + k) * 32);
                        PIN (v[t]);
                    }
                    multiply_step (type, n_tiles, n_columns, s16, v, a.q + (g * steps + k) * 4, a.q_stride, k % chain == 0);
                    if (k % chain == chain - 1)
                        add_chain (n_tiles, n_columns, acc, s16, pairs);
                }
            }
        }
        UNROLL for (int c = 0; c < n_columns; c++)
        {
            /* Sums of activations as dwords that hold those of two groups. */
            const int16_t *sums = a.sums + c * a.sum_stride;
            int16_t added[16];
            if (n_groups == 8 && has_min (type)) {
                vec s = _mm256_madd_epi16 (load_256 (sums), _mm256_set1_epi16 (1));
                store_256 (added, _mm256_permute4x64_epi64 (_mm256_packs_epi32 (s, s), 0x08));
                sums = added;
            }
            __m256 da = _mm256_broadcast_ss (a.scales + c * a.scale_stride);
            UNROLL for (int t = 0; t < n_tiles; t++)
            {
                float *o = out + c * out_stride + t * 8;
                __m256 value = _mm256_loadu_ps (o);
                vec msum = _mm256_setzero_si256 ();
                if (has_min (type) || offset_shift (type))
                    UNROLL for (int j = 0; j < n_groups / 2; j++) msum =
                        _mm256_add_epi32 (msum, _mm256_madd_epi16 (broadcast_4 (sums + 2 * j), load_256 (f[t]->min[j])));
                if (offset_shift (type))
                    acc[t][c] = _mm256_sub_epi32 (acc[t][c], msum);
                value = _mm256_fmadd_ps (_mm256_mul_ps (_mm256_loadu_ps (f[t]->d), da), _mm256_cvtepi32_ps (acc[t][c]), value);
                if (has_min (type))
                    value = _mm256_fnmadd_ps (_mm256_mul_ps (_mm256_loadu_ps (f[t]->m), da), _mm256_cvtepi32_ps (msum), value);
                _mm256_storeu_ps (o, value);
            }
        }
        if (direct)
            w.packed += block_bytes (type);
        else
            w.unpacked += 256 * 8;
        a.q += 256;
        a.scales += 1;
        a.sums += 16;
    }
}

/* n_blocks <= SLAB / 32 */
INLINE void kernel_32 (const int type, const int n_tiles, const int n_columns, const bool direct, float *out, size_t out_stride,
                       weights w, columns a, size_t n_blocks)
{
    const int chain = chain_steps (type);
    const bool with_sums = has_min (type) || offset_shift (type);
    /* The activations' sums, as what one broadcast load turns into the operand of the block's end. */
    union {
        int32_t offset[SLAB / 32];
        float sum[SLAB / 32];
    } sums[4];
    if (with_sums)
        for (int c = 0; c < n_columns; c++)
            for (size_t b = 0; b < n_blocks; b++) {
                int16_t s = a.sums[c * a.sum_stride + b];
                if (has_min (type))
                    sums[c].sum[b] = (float) s;
                else
                    sums[c].offset[b] = s * (1 << offset_shift (type));
            }
    __m256 value[2][4];
    UNROLL for (int t = 0; t < n_tiles; t++)
    {
        UNROLL for (int c = 0; c < n_columns; c++) value[t][c] = _mm256_loadu_ps (out + c * out_stride + t * 8);
    }
    const vec ones = _mm256_set1_epi16 (1);
    const void *pairs[2] = {&ones, &ones};
    for (size_t b = 0; b < n_blocks; b++) {
        factors_32 local;
        const factors_32 *f[2];
        if (direct)
            load_factors_32 (type, &local, w.packed);
        UNROLL for (int t = 0; t < n_tiles; t++)
            f[t] = direct ? &local : (const factors_32 *) w.factors + t * (SLAB / 32) + b;
        if (direct && n_columns == 1)
            for (size_t line = 0; line < block_bytes (type); line += 64)
                _mm_prefetch ((const char *) w.packed + PREFETCH_BYTES + line, _MM_HINT_T0);

        vec acc[2][4], s16[2][4];
        UNROLL for (int k = 0; k < 8; k++)
        {
            vec v[2];
            UNROLL for (int t = 0; t < n_tiles; t++)
            {
                v[t] = direct ? fetch (type, w.packed, 0, 0, k) : load_256 (w.unpacked + t * (SLAB * 8) + k * 32);
                PIN (v[t]);
            }
            multiply_step (type, n_tiles, n_columns, s16, v, a.q + k * 4, a.q_stride, k % chain == 0);
            if (k == chain - 1) {
                UNROLL for (int c = 0; c < n_columns; c++)
                {
                    UNROLL for (int t = 0; t < n_tiles; t++) acc[t][c] = _mm256_madd_epi16 (s16[t][c], ones);
                }
            } else if (k % chain == chain - 1)
                add_chain (n_tiles, n_columns, acc, s16, pairs);
        }
        UNROLL for (int c = 0; c < n_columns; c++)
        {
            __m256 da = _mm256_broadcast_ss (a.scales + c * a.scale_stride);
            UNROLL for (int t = 0; t < n_tiles; t++)
            {
                if (offset_shift (type))
                    acc[t][c] = _mm256_sub_epi32 (acc[t][c], broadcast_4 (&sums[c].offset[b]));
                value[t][c] = _mm256_fmadd_ps (_mm256_mul_ps (_mm256_loadu_ps (f[t]->d), da), _mm256_cvtepi32_ps (acc[t][c]),
                                               value[t][c]);
                if (has_min (type))
                    value[t][c] = _mm256_fmadd_ps (_mm256_mul_ps (_mm256_loadu_ps (f[t]->m), da),
                                                   _mm256_broadcast_ss (&sums[c].sum[b]), value[t][c]);
            }
        }
        if (direct)
            w.packed += block_bytes (type);
        else
            w.unpacked += 32 * 8;
        a.q += 32;
        a.scales += 1;
    }
    UNROLL for (int t = 0; t < n_tiles; t++)
    {
        UNROLL for (int c = 0; c < n_columns; c++) _mm256_storeu_ps (out + c * out_stride + t * 8, value[t][c]);
    }
}

INLINE void kernel (const int type, const int n_tiles, const int n_columns, const bool direct, float *out, size_t out_stride,
                    weights w, columns a, size_t n_blocks)
{
    if (type >= Q2_K)
        kernel_256 (type, n_tiles, n_columns, direct, out, out_stride, w, a, n_blocks);
    else
        kernel_32 (type, n_tiles, n_columns, direct, out, out_stride, w, a, n_blocks);
}

/* -- Whole matrices ------------------------------------------------------------------------------------------------------------ */

INLINE columns columns_at (const int type, const wl_activations *a, size_t column, size_t element)
{
    const size_t width = type >= Q2_K ? 256 : 32, sum_width = type >= Q2_K ? 16 : 32;
    return (columns){
        .q = a->q + column * a->q_stride + element,
        .scales = a->scales + column * a->scale_stride + element / width,
        .sums = a->sums + column * a->sum_stride + element / sum_width,
        .q_stride = a->q_stride,
        .scale_stride = a->scale_stride,
        .sum_stride = a->sum_stride,
    };
}

/* Unpacks n_blocks of one tile. */
INLINE void unpack (const int type, uint8_t *bytes, void *factors, const uint8_t *packed, size_t n_blocks)
{
    const int steps = group_steps (type), n_groups = (type >= Q2_K ? 64 : 8) / steps;
    const int inner = inner_groups (type), outer = n_groups / inner;
    for (size_t b = 0; b < n_blocks; b++, packed += block_bytes (type)) {
        if (type >= Q2_K)
            load_factors_256 (type, (factors_256 *) factors + b, packed);
        else
            load_factors_32 (type, (factors_32 *) factors + b, packed);
        for (int o = 0; o < outer; o++) {
            UNROLL for (int i = 0; i < inner; i++)
            {
                UNROLL for (int k = 0; k < steps; k++, bytes += 32) store_256 (bytes, fetch (type, packed, o, i, k));
            }
        }
    }
}

/* Scratch: two tiles of a slab. */
typedef struct panel {
    uint8_t bytes[2][SLAB * 8];
    union {
        factors_256 wide[2][SLAB / 256];
        factors_32 narrow[2][SLAB / 32];
    } factors;
} panel;
_Static_assert (sizeof (panel) <= AVX2_MATMUL_SCRATCH, "the panel must fit the scratch that the table asks for");

INLINE void matmul_panel (const int type, float *out, size_t out_stride, const uint8_t *tiles, size_t n_tiles,
                          const wl_activations *a, panel *p)
{
    const size_t width = type >= Q2_K ? 256 : 32, tile_bytes = a->n / width * block_bytes (type);
    for (size_t t = 0; t < n_tiles; t += 2) {
        const bool two = t + 1 < n_tiles;
        for (size_t k = 0; k < a->n; k += SLAB) {
            const size_t n_blocks = (a->n - k < SLAB ? a->n - k : SLAB) / width;
            for (size_t i = 0; i < 1 + (size_t) two; i++)
                unpack (type, p->bytes[i], type >= Q2_K ? (void *) p->factors.wide[i] : p->factors.narrow[i],
                        tiles + (t + i) * tile_bytes + k / width * block_bytes (type), n_blocks);
            const weights w = {.unpacked = p->bytes[0], .factors = &p->factors};
            size_t c = 0;
            for (; c + 3 <= a->n_rows; c += 3) {
                float *o = out + c * out_stride + 8 * t;
                columns cols = columns_at (type, a, c, k);
                if (two)
                    kernel (type, 2, 3, false, o, out_stride, w, cols, n_blocks);
                else
                    kernel (type, 1, 3, false, o, out_stride, w, cols, n_blocks);
            }
            for (; c < a->n_rows; c++) {
                float *o = out + c * out_stride + 8 * t;
                columns cols = columns_at (type, a, c, k);
                if (two)
                    kernel (type, 2, 1, false, o, out_stride, w, cols, n_blocks);
                else
                    kernel (type, 1, 1, false, o, out_stride, w, cols, n_blocks);
            }
        }
    }
}

INLINE void matmul_direct (const int type, const int n_columns, float *out, size_t out_stride, const uint8_t *tiles,
                           size_t n_tiles, const wl_activations *a)
{
    const size_t width = type >= Q2_K ? 256 : 32, run = type >= Q2_K ? a->n : SLAB;
    weights w = {.packed = tiles};
    for (size_t t = 0; t < n_tiles; t++)
        for (size_t k = 0; k < a->n; k += run) {
            const size_t n_blocks = (a->n - k < run ? a->n - k : run) / width;
            kernel (type, 1, n_columns, true, out + 8 * t, out_stride, w, columns_at (type, a, 0, k), n_blocks);
            w.packed += n_blocks * block_bytes (type);
        }
}

INLINE void matmul (const int type, float *out, size_t out_stride, const void *tiles, size_t n_tiles, const wl_activations *a,
                    void *scratch)
{
    for (size_t c = 0; c < a->n_rows; c++)
        memset (out + c * out_stride, 0, n_tiles * WL_TILE_ROWS * sizeof (float));
    switch (a->n_rows) {
    case 0: return;
    case 1: matmul_direct (type, 1, out, out_stride, tiles, n_tiles, a); return;
    case 2: matmul_direct (type, 2, out, out_stride, tiles, n_tiles, a); return;
    case 3: matmul_direct (type, 3, out, out_stride, tiles, n_tiles, a); return;
    case 4: matmul_direct (type, 4, out, out_stride, tiles, n_tiles, a); return;
    default: matmul_panel (type, out, out_stride, tiles, n_tiles, a, scratch); return;
    }
}

#define DEFINE_MATMUL(TYPE, name)                                                                                            \
    void avx2_matmul_##name (float *out, size_t out_stride, const void *tiles, size_t n_tiles, const wl_activations *a,      \
                             void *scratch)                                                                                  \
    {                                                                                                                        \
        matmul (TYPE, out, out_stride, tiles, n_tiles, a, scratch);                                                          \
    }

DEFINE_MATMUL (Q4_0, q4_0)
DEFINE_MATMUL (Q4_1, q4_1)
DEFINE_MATMUL (Q5_0, q5_0)
DEFINE_MATMUL (Q5_1, q5_1)
DEFINE_MATMUL (Q8_0, q8_0)
DEFINE_MATMUL (IQ4_NL, iq4_nl)
DEFINE_MATMUL (Q2_K, q2_k)
DEFINE_MATMUL (Q3_K, q3_k)
DEFINE_MATMUL (Q4_K, q4_k)
DEFINE_MATMUL (Q5_K, q5_k)
DEFINE_MATMUL (Q6_K, q6_k)
DEFINE_MATMUL (IQ4_XS, iq4_xs)

#endif
