/* Quantized matmul with AVX-512 VNNI; included by avx512_table.h alone.
 *
 * As in avx2_matmul.c, a step is 4 consecutive elements of each of a tile's 8 rows, against 4 bytes of an activation row
 * broadcast. vpdpbusd multiplies it and adds it to int32 sums at once; a sum is multiplied with the rows' scales where
 * the scale changes (in the formats of 32 as a float, with the column's), and once a block becomes one float step.
 *
 * Few columns (decode): a step is 256 bits, the tile is read as it is and streams from memory once, prefetched.
 *
 * More columns: a slab of four tiles is unpacked to a panel in L1, two tiles beside each other in 512 bits, and reused
 * for all columns, 32 rows x 6 columns at a time in registers (12 sums of a group, 12 of a block, and 8 loads for 12
 * multiplications). Where weights are raised by an offset, a sum starts at -offset * (sum of the activations), so taking
 * it out costs a broadcast in place of a zero. Where scale times weight fits a byte, it is multiplied in when unpacking.
 *
 * A Zen 4 core does 64 of these multiply-adds a clock in 256 and in 512 bits alike; half as many instructions leave
 * its other units room. Cores with two 512-bit units do 128. */
#ifndef WL_ENGINE_KERNELS_AVX512_MATMUL_H
#define WL_ENGINE_KERNELS_AVX512_MATMUL_H

#include <string.h>

#include "avx512_tiles.h"

enum {
    DIRECT_COLUMNS = 4,
    MAX_DIRECT_COLUMNS = 8, /* in two passes over a tile, the second from the cache */
    VECTOR_TILES = 2,
    PANEL_VECTORS = 2,
    PANEL_TILES = PANEL_VECTORS * VECTOR_TILES,
    PANEL_COLUMNS = 6,
    SLAB = 640,                                      /* elements of a panel at most */
    PANEL_BYTES = SLAB * PANEL_TILES * WL_TILE_ROWS, /* with a run's columns and results it fits L1 */
    COLUMN_BLOCK = 512,                              /* columns prepared at a time */
    MAX_EXTRAS = 16,                                 /* int32 or float, of 256 elements of a column */
    PREFETCH_BYTES = 2048,                           /* ahead, as few columns stream the weights */
};

INLINE int32_t load_4 (const void *p)
{
    int32_t v;
    memcpy (&v, p, 4);
    return v;
}

INLINE float load_float (const void *p)
{
    float v;
    memcpy (&v, p, 4);
    return v;
}

INLINE vec load_vec (const void *p)
{
    return _mm512_loadu_si512 (p);
}

/* -- Few columns: from the packed tile ----------------------------------------------------------------------------- */

/* A block as bytes of all steps, with their offset. */
typedef void (*expand_fn) (uint8_t *out, const uint8_t *packed);

typedef struct columns {
    const int8_t *q;
    const float *scales, *totals;
    const int16_t *sums;
    size_t q_stride, scale_stride, total_stride, sum_stride;
} columns;

/* One group of steps of all columns: acc += scale * sum, or (formats of 32) acc = sum. */
INLINE void direct_group (const int type, const int n_columns, half acc[DIRECT_COLUMNS], const uint8_t *source,
                          const factors *f, int outer, const int inner, columns a)
{
    const int steps = group_steps (type), g = outer * inner_groups (type) + inner;
    half sum[DIRECT_COLUMNS];
    UNROLL for (int c = 0; c < n_columns; c++)
    {
        const bool start = block_width (type) == 32 && is_raised (type);
        sum[c] = start ? _mm256_set1_epi32 (-(a.sums[c * a.sum_stride + (size_t) g] * (1 << raised_shift (type))))
                       : _mm256_setzero_si256 ();
    }
    UNROLL for (int k = 0; k < steps; k++)
    {
        const half w = fetch_unsigned (type, source, outer, inner, k);
        UNROLL for (int c = 0; c < n_columns; c++)
        {
            sum[c] = _mm256_dpbusd_epi32 (sum[c], w,
                                          _mm256_set1_epi32 (load_4 (a.q + c * a.q_stride + (g * steps + k) * 4)));
            PIN (sum[c]);
        }
    }
    UNROLL for (int c = 0; c < n_columns; c++)
    {
        if (block_width (type) == 32)
            acc[c] = sum[c];
        else if (is_ternary (type))
            acc[c] = _mm256_add_epi32 (acc[c], sum[c]);
        else
            acc[c] = _mm256_add_epi32 (acc[c], _mm256_mullo_epi32 (sum[c], load_half (f->scale[g])));
    }
}

/* sum_j min_j S_j of 8 rows, over 16 sums. */
INLINE half sum_of_mins (const factors *f, const int16_t *sums)
{
    half total[2] = {_mm256_setzero_si256 (), _mm256_setzero_si256 ()};
    UNROLL for (int j = 0; j < 8; j++) total[j % 2] =
        _mm256_dpwssd_epi32 (total[j % 2], load_half (f->min[j]), _mm256_set1_epi32 (load_4 (sums + 2 * j)));
    return _mm256_add_epi32 (total[0], total[1]);
}

/* Half i of a block of 32: to `part` goes scale * sum. The second half adds its own and makes the float step. */
INLINE void direct_half_end (const int type, const int n_columns, __m256 value[DIRECT_COLUMNS],
                             __m256 part[DIRECT_COLUMNS], const factors *f, const int i, columns a,
                             half acc[DIRECT_COLUMNS])
{
    UNROLL for (int c = 0; c < n_columns; c++)
    {
        const __m256 da = _mm256_set1_ps (a.scales[c * a.scale_stride + (size_t) i]), sum = _mm256_cvtepi32_ps (acc[c]);
        part[c] = i == 0 ? _mm256_mul_ps (da, sum) : _mm256_fmadd_ps (da, sum, part[c]);
        if (i == 0)
            continue;
        value[c] = _mm256_fmadd_ps (_mm256_loadu_ps (f->d), part[c], value[c]);
        if (has_min (type))
            value[c] =
                _mm256_fmadd_ps (_mm256_loadu_ps (f->m), _mm256_set1_ps (a.totals[c * a.total_stride]), value[c]);
    }
}

/* The float step of all columns, of blocks of 256. Scales and sums are those of the activations just multiplied. */
INLINE void direct_end (const int type, const int n_columns, __m256 value[DIRECT_COLUMNS], const factors *f,
                        const float *scales, const int16_t *sums, columns a, half acc[DIRECT_COLUMNS])
{
    UNROLL for (int c = 0; c < n_columns; c++, sums += a.sum_stride, scales += a.scale_stride)
    {
        const __m256 da = _mm256_set1_ps (*scales);
        half msum = _mm256_setzero_si256 ();
        if (has_min (type) || is_raised (type))
            msum = sum_of_mins (f, sums);
        if (is_raised (type))
            acc[c] = _mm256_sub_epi32 (acc[c], msum);
        value[c] = _mm256_fmadd_ps (_mm256_mul_ps (_mm256_loadu_ps (f->d), da), _mm256_cvtepi32_ps (acc[c]), value[c]);
        if (has_min (type))
            value[c] =
                _mm256_fnmadd_ps (_mm256_mul_ps (_mm256_loadu_ps (f->m), da), _mm256_cvtepi32_ps (msum), value[c]);
    }
}

/* One tile, n_blocks blocks, from 0. `expand_block`: of types that are expanded. */
INLINE void direct_kernel (const int type, const int n_columns, float *out, size_t out_stride, const uint8_t *packed,
                           columns a, size_t n_blocks, expand_fn expand_block)
{
    const int inner = inner_groups (type), outer = block_groups (type) / inner, width = block_width (type);
    const size_t part = block_bytes (type) / (size_t) outer; /* prefetched in each round */
    __m256 value[DIRECT_COLUMNS], half_value[DIRECT_COLUMNS];
    UNROLL for (int c = 0; c < n_columns; c++) value[c] = _mm256_setzero_ps ();
    for (size_t b = 0; b < n_blocks; b++, packed += block_bytes (type), a.q += width, a.sums += width / 16) {
        factors f;
        half scale[16];
        load_factors (type, false, &f, 0, scale, packed);
        if (width == 256 && !is_ternary (type))
            UNROLL for (int g = 0; g < block_groups (type); g++) store_half (f.scale[g], scale[g]);
        uint8_t bytes[EXPANDED_BYTES];
        if (is_expanded (type))
            expand_block (bytes, packed);
        const uint8_t *source = is_expanded (type) ? bytes : packed;
        half acc[DIRECT_COLUMNS];
        UNROLL for (int c = 0; c < n_columns; c++) acc[c] = _mm256_setzero_si256 ();
        for (int o = 0; o < outer; o++) {
            for (size_t line = 0; line < part; line += 64)
                _mm_prefetch ((const char *) packed + PREFETCH_BYTES + (size_t) o * part + line, _MM_HINT_T0);
            UNROLL for (int i = 0; i < inner; i++)
            {
                direct_group (type, n_columns, acc, source, &f, o, i, a);
                if (width == 32)
                    direct_half_end (type, n_columns, value, half_value, &f, i, a, acc);
            }
        }
        if (width == 256)
            direct_end (type, n_columns, value, &f, a.scales, a.sums, a, acc);
        a.scales += width == 32 ? 2 : 1;
        a.totals += width == 32 ? 1 : 0;
    }
    UNROLL for (int c = 0; c < n_columns; c++) _mm256_storeu_ps (out + c * out_stride, value[c]);
}

/* -- More columns: from an unpacked panel -------------------------------------------------------------------------- */

/* Dwords that are prepared for a block of one column, in `extras`:
 *   raised weights:  -offset * S of each sum, int32: where it starts
 *   Q4_K Q5_K:       [S_2j, S_2j+1], int16: sums of two groups
 * Q2_K has the sums of 16 as they are, Q4_1 and Q5_1 the totals. */
INLINE size_t n_extras (const int type)
{
    return is_raised (type)               ? (is_folded (type) ? 1 : (size_t) block_groups (type))
           : type == Q4_K || type == Q5_K ? 4
                                          : 0;
}

INLINE bool takes_totals (const int type)
{
    return block_width (type) == 32 && has_min (type);
}

typedef struct panel {
    uint8_t bytes[PANEL_BYTES];                  /* [step][tile][8 rows][4] */
    factors factors[PANEL_VECTORS * SLAB / 256]; /* [vector][block], of factor_bytes each */
    uint8_t columns[COLUMN_BLOCK * SLAB / 256 * MAX_EXTRAS * 4];
} panel;
_Static_assert(sizeof (factors) * SLAB / 256 >= SLAB / 32 * offsetof (factors, min), "blocks of 32");

/* A run of columns at the panel's first element. Strides are in bytes. */
typedef struct panel_columns {
    const uint8_t *q, *extras, *scales;
    size_t q_stride, extra_stride, scale_stride;
} panel_columns;

typedef struct panel_weights {
    const uint8_t *bytes, *factors;
} panel_weights;

INLINE __m512 to_float (vec v)
{
    return _mm512_cvtepi32_ps (v);
}

/* Where the sums of a group start. */
INLINE void panel_start (const int type, const int n_vectors, const int n_columns,
                         vec sum[PANEL_VECTORS][PANEL_COLUMNS], panel_columns a, int g)
{
    UNROLL for (int c = 0; c < n_columns; c++)
    {
        const vec start = is_raised (type) ? _mm512_set1_epi32 (load_4 (a.extras + c * a.extra_stride + 4 * g))
                                           : _mm512_setzero_si512 ();
        UNROLL for (int v = 0; v < n_vectors; v++) sum[v][c] = start;
    }
}

/* `steps` steps. */
INLINE void panel_steps (const int n_vectors, const int n_columns, const int steps,
                         vec sum[PANEL_VECTORS][PANEL_COLUMNS], const uint8_t *bytes, const uint8_t *q, size_t q_stride)
{
    UNROLL for (int k = 0; k < steps; k++)
    {
        vec w[PANEL_VECTORS];
        UNROLL for (int v = 0; v < n_vectors; v++)
        {
            w[v] = load_vec (bytes + (k * PANEL_VECTORS + v) * 64);
            PIN (w[v]);
        }
        UNROLL for (int c = 0; c < n_columns; c++)
        {
            const vec x = _mm512_set1_epi32 (load_4 (q + c * q_stride + 4 * k));
            UNROLL for (int v = 0; v < n_vectors; v++)
            {
                sum[v][c] = _mm512_dpbusd_epi32 (sum[v][c], w[v], x);
                PIN (sum[v][c]);
            }
        }
    }
}

/* Half `g` of a block of 32: to `part` goes scale * sum. The second half adds its own and makes the float step. */
INLINE void panel_half_end (const int type, const int n_vectors, const int n_columns,
                            __m512 value[PANEL_VECTORS][PANEL_COLUMNS], __m512 part[PANEL_VECTORS][PANEL_COLUMNS],
                            const factors *const f[PANEL_VECTORS], const int g, panel_columns a,
                            vec sum[PANEL_VECTORS][PANEL_COLUMNS])
{
    UNROLL for (int c = 0; c < n_columns; c++, a.scales += a.scale_stride, a.extras += a.extra_stride)
    {
        const __m512 da = _mm512_set1_ps (load_float (a.scales + 4 * g));
        UNROLL for (int v = 0; v < n_vectors; v++)
        {
            if (g == 0) {
                part[v][c] = _mm512_mul_ps (da, to_float (sum[v][c]));
                continue;
            }
            part[v][c] = _mm512_fmadd_ps (da, to_float (sum[v][c]), part[v][c]);
            value[v][c] = _mm512_fmadd_ps (_mm512_loadu_ps (f[v]->d), part[v][c], value[v][c]);
            if (has_min (type))
                value[v][c] =
                    _mm512_fmadd_ps (_mm512_loadu_ps (f[v]->m), _mm512_set1_ps (load_float (a.extras)), value[v][c]);
        }
    }
}

/* The float step of blocks of 256. `scales` stands at the activations' block, `extras` at what belongs to it. */
INLINE void panel_end (const int type, const int n_vectors, const int n_columns,
                       __m512 value[PANEL_VECTORS][PANEL_COLUMNS], const factors *const f[PANEL_VECTORS],
                       const uint8_t *scales, const uint8_t *extras, panel_columns a,
                       vec acc[PANEL_VECTORS][PANEL_COLUMNS])
{
    UNROLL for (int c = 0; c < n_columns; c++, scales += a.scale_stride, extras += a.extra_stride)
    {
        vec msum[PANEL_VECTORS];
        UNROLL for (int v = 0; v < n_vectors; v++) msum[v] = _mm512_setzero_si512 ();
        if (has_min (type))
            UNROLL for (int j = 0; j < block_groups (type) / 2; j++)
            {
                const vec s = _mm512_set1_epi32 (load_4 (extras + 4 * j));
                UNROLL for (int v = 0; v < n_vectors; v++) msum[v] =
                    _mm512_dpwssd_epi32 (msum[v], load_vec (f[v]->min[j]), s);
            }
        const __m512 da = _mm512_set1_ps (load_float (scales));
        UNROLL for (int v = 0; v < n_vectors; v++)
        {
            value[v][c] =
                _mm512_fmadd_ps (_mm512_mul_ps (_mm512_loadu_ps (f[v]->d), da), to_float (acc[v][c]), value[v][c]);
            if (has_min (type))
                value[v][c] =
                    _mm512_fnmadd_ps (_mm512_mul_ps (_mm512_loadu_ps (f[v]->m), da), to_float (msum[v]), value[v][c]);
        }
    }
}

/* Results so far: `out` is read and written at each block, which leaves the registers to the sums. `lanes`: those that
 * `out` has (of two vectors, all), or none to begin with zeros. */
INLINE void load_values (const int n_vectors, const int n_columns, __m512 value[PANEL_VECTORS][PANEL_COLUMNS],
                         const float *out, size_t out_stride, __mmask16 lanes)
{
    UNROLL for (int v = 0; v < n_vectors; v++)
    {
        UNROLL for (int c = 0; c < n_columns; c++) value[v][c] =
            _mm512_maskz_loadu_ps (lanes, out + c * out_stride + 16 * v);
    }
}

INLINE void store_values (const int n_vectors, const int n_columns, __m512 value[PANEL_VECTORS][PANEL_COLUMNS],
                          float *out, size_t out_stride, __mmask16 lanes)
{
    UNROLL for (int v = 0; v < n_vectors; v++)
    {
        UNROLL for (int c = 0; c < n_columns; c++)
        {
            if (n_vectors == 1)
                _mm512_mask_storeu_ps (out + c * out_stride, lanes, value[v][c]);
            else
                _mm512_storeu_ps (out + c * out_stride + 16 * v, value[v][c]);
        }
    }
}

/* n_vectors x n_columns over n_blocks blocks, added to what the lanes of `old` hold in out. */
INLINE void panel_kernel (const int type, const int n_vectors, const int n_columns, float *out, size_t out_stride,
                          panel_weights w, panel_columns a, size_t n_blocks, __mmask16 lanes, __mmask16 old)
{
    const int width = block_width (type), steps = is_folded (type) ? 8 : group_steps (type), rounds = width / 4 / steps;
    __m512 value[PANEL_VECTORS][PANEL_COLUMNS], part[PANEL_VECTORS][PANEL_COLUMNS];
    for (size_t b = 0; b < n_blocks; b++, old = lanes) {
        const factors *f[PANEL_VECTORS];
        UNROLL for (int v = 0; v < n_vectors; v++) f[v] =
            (const factors *) (w.factors + ((size_t) (v * SLAB / width) + b) * factor_bytes (type));
        vec acc[PANEL_VECTORS][PANEL_COLUMNS], sum[PANEL_VECTORS][PANEL_COLUMNS];
        if (is_folded (type))
            panel_start (type, n_vectors, n_columns, acc, a, 0);
        else if (width == 256)
            UNROLL for (int v = 0; v < n_vectors; v++)
            {
                UNROLL for (int c = 0; c < n_columns; c++) acc[v][c] = _mm512_setzero_si512 ();
            }
        if (width == 32)
            UNROLL for (int g = 0; g < 2; g++)
            {
                panel_start (type, n_vectors, n_columns, sum, a, g);
                panel_steps (n_vectors, n_columns, steps, sum, w.bytes + g * steps * PANEL_VECTORS * 64,
                             a.q + g * steps * 4, a.q_stride);
                if (g == 1)
                    load_values (n_vectors, n_columns, value, out, out_stride, old);
                panel_half_end (type, n_vectors, n_columns, value, part, f, g, a, sum);
            }
        for (int g = 0; g < (width == 32 ? 0 : rounds); g++) {
            const uint8_t *bytes = w.bytes + g * steps * PANEL_VECTORS * 64, *q = a.q + g * steps * 4;
            if (is_folded (type)) {
                panel_steps (n_vectors, n_columns, steps, acc, bytes, q, a.q_stride);
                continue;
            }
            panel_start (type, n_vectors, n_columns, sum, a, g);
            panel_steps (n_vectors, n_columns, steps, sum, bytes, q, a.q_stride);
            UNROLL for (int v = 0; v < n_vectors; v++)
            {
                const vec scale = load_vec (f[v]->scale[g]);
                UNROLL for (int c = 0; c < n_columns; c++)
                {
                    acc[v][c] = _mm512_add_epi32 (acc[v][c], _mm512_mullo_epi32 (sum[v][c], scale));
                    PIN (acc[v][c]);
                }
            }
        }
        if (width == 256) {
            load_values (n_vectors, n_columns, value, out, out_stride, old);
            panel_end (type, n_vectors, n_columns, value, f, a.scales, a.extras, a, acc);
        }
        store_values (n_vectors, n_columns, value, out, out_stride, lanes);
        a.scales += width == 32 ? 8 : 4;
        w.bytes += width * 8 * PANEL_TILES;
        a.q += width;
        a.extras += type == Q2_K ? 32 : takes_totals (type) ? 4 : 4 * n_extras (type);
    }
}

/* n_blocks of one tile, to its place beside the panel's others; `t`: which half of a vector it is. */
INLINE void unpack_tile (const int type, uint8_t *bytes, uint8_t *factor, const int t, const uint8_t *packed,
                         size_t n_blocks, expand_fn expand_block)
{
    const int steps = group_steps (type), inner = inner_groups (type), outer = block_groups (type) / inner;
    for (size_t b = 0; b < n_blocks; b++, packed += block_bytes (type), factor += factor_bytes (type)) {
        factors *f = (factors *) factor;
        half scale[16];
        load_factors (type, true, f, t, scale, packed);
        int32_t folded[16][8];
        if (block_width (type) == 256 && !is_ternary (type))
            UNROLL for (int g = 0; g < block_groups (type); g++)
                store_half (is_folded (type) ? folded[g] : f->scale[g] + 8 * t, scale[g]);
        uint8_t expanded[EXPANDED_BYTES];
        if (is_expanded (type))
            expand_block (expanded, packed);
        const uint8_t *source = is_expanded (type) ? expanded : packed;
        for (int o = 0; o < outer; o++)
            UNROLL for (int i = 0; i < inner; i++)
            {
                UNROLL for (int k = 0; k < steps; k++)
                {
                    half w = fetch_unsigned (type, source, o, i, k);
                    if (is_folded (type) && !is_ternary (type))
                        w = fold (type, w, load_half (folded[o * inner + i]));
                    store_half (bytes, w);
                    bytes += PANEL_TILES * 32;
                }
            }
    }
}

/* The extras of one column's n_blocks blocks. */
INLINE void prepare_column (const int type, uint8_t *out, const int16_t *sums, size_t n_blocks)
{
    const int sums_each = block_width (type) / 16;
    for (size_t b = 0; b < n_blocks; b++, sums += sums_each, out += 4 * n_extras (type)) {
        if (is_raised (type)) {
            const int each = sums_each / (int) n_extras (type);
            UNROLL for (int j = 0; j < (int) n_extras (type); j++)
            {
                int32_t start = 0;
                UNROLL for (int i = 0; i < each; i++) start -= panel_offset (type) * sums[j * each + i];
                memcpy (out + 4 * j, &start, 4);
            }
        } else if (type == Q4_K || type == Q5_K) {
            half s = _mm256_madd_epi16 (load_half (sums), _mm256_set1_epi16 (1));
            s = _mm256_permute4x64_epi64 (_mm256_packs_epi32 (s, s), 0x08);
            _mm_storeu_si128 ((__m128i *) out, _mm256_castsi256_si128 (s));
        }
    }
}

/* -- Whole matrices ------------------------------------------------------------------------------------------------ */

/* A type's instances of the above, each a function of its own so that it has all registers. */
typedef struct kernel_set {
    size_t width, scale_width, block_bytes, factor_bytes, column_bytes; /* column_bytes: of a slab of a column */
    bool totals;                                                        /* extras are the activations' totals */
    void (*direct[DIRECT_COLUMNS + 1]) (float *, size_t, const uint8_t *, columns, size_t); /* by columns */
    void (*panel[PANEL_VECTORS + 1][PANEL_COLUMNS + 1]) (float *, size_t, panel_weights, panel_columns, size_t,
                                                         __mmask16, __mmask16); /* by vectors, columns */
    void (*unpack[VECTOR_TILES]) (uint8_t *, uint8_t *, const uint8_t *, size_t);
    void (*prepare) (uint8_t *, const int16_t *, size_t);
} kernel_set;

static void matmul_direct (const kernel_set *set, float *out, size_t out_stride, const uint8_t *tiles, size_t n_tiles,
                           const wl_activations *a)
{
    const size_t n_blocks = a->n / set->width, n_columns = a->n_rows,
                 first = n_columns <= DIRECT_COLUMNS ? n_columns : (n_columns + 1) / 2;
    const columns all = {.q = a->q,
                         .q_stride = a->q_stride,
                         .scales = a->scales,
                         .scale_stride = a->scale_stride,
                         .totals = a->totals,
                         .total_stride = a->total_stride,
                         .sums = a->sums,
                         .sum_stride = a->sum_stride};
    columns rest = all;
    rest.q += first * a->q_stride;
    rest.scales += first * a->scale_stride;
    rest.sums += first * a->sum_stride;
    if (rest.totals)
        rest.totals += first * a->total_stride;
    for (size_t t = 0; t < n_tiles; t++, tiles += n_blocks * set->block_bytes, out += 8) {
        set->direct[first](out, out_stride, tiles, all, n_blocks);
        if (n_columns > first)
            set->direct[n_columns - first](out + first * out_stride, out_stride, tiles, rest, n_blocks);
    }
}

/* All columns, in runs of about the same length: more than MAX_DIRECT_COLUMNS make runs of 4 to 6. */
static void multiply_panel (const kernel_set *set, const int n_vectors, float *out, size_t out_stride, const panel *p,
                            panel_columns at, size_t n_columns, size_t n_blocks, __mmask16 lanes, __mmask16 old)
{
    const panel_weights w = {p->bytes, (const uint8_t *) p->factors};
    for (size_t runs = (n_columns + PANEL_COLUMNS - 1) / PANEL_COLUMNS; runs > 0; runs--) {
        const size_t m = (n_columns + runs - 1) / runs;
        set->panel[n_vectors][m](out, out_stride, w, at, n_blocks, lanes, old);
        out += m * out_stride;
        at.q += m * at.q_stride;
        at.extras += m * at.extra_stride;
        at.scales += m * at.scale_stride;
        n_columns -= m;
    }
}

/* Columns [first, first + n_columns) of elements [k, k + n_blocks * width) against all tiles, added to out but for the
 * first elements. */
static void multiply_slab (const kernel_set *set, float *out, size_t out_stride, const uint8_t *tiles, size_t n_tiles,
                           const wl_activations *a, size_t first, size_t n_columns, size_t k, size_t n_blocks, panel *p)
{
    const size_t tile_bytes = a->n / set->width * set->block_bytes;
    panel_columns at = {
        .q = (const uint8_t *) a->q + first * a->q_stride + k,
        .q_stride = a->q_stride,
        .extras = (const uint8_t *) (a->sums + first * a->sum_stride + k / 16), /* Q2_K */
        .extra_stride = a->sum_stride * sizeof (int16_t),
        .scales = (const uint8_t *) (a->scales + first * a->scale_stride + k / set->scale_width),
        .scale_stride = a->scale_stride * sizeof (float),
    };
    if (set->totals) {
        at.extras = (const uint8_t *) (a->totals + first * a->total_stride + k / 32);
        at.extra_stride = a->total_stride * sizeof (float);
    }
    if (set->column_bytes) {
        for (size_t c = 0; c < n_columns; c++)
            set->prepare (p->columns + c * set->column_bytes, a->sums + (first + c) * a->sum_stride + k / 16, n_blocks);
        at.extras = p->columns;
        at.extra_stride = set->column_bytes;
    }
    tiles += k / set->width * set->block_bytes;
    out += first * out_stride;
    for (size_t t = 0; t < n_tiles;) {
        const size_t left = n_tiles - t, n = left >= PANEL_TILES    ? PANEL_TILES
                                             : left >= VECTOR_TILES ? VECTOR_TILES
                                                                    : 1;
        for (size_t i = 0; i < n; i++)
            set->unpack[i % VECTOR_TILES](
                p->bytes + i * 32, (uint8_t *) p->factors + i / VECTOR_TILES * (SLAB / set->width) * set->factor_bytes,
                tiles + (t + i) * tile_bytes, n_blocks);
        const __mmask16 lanes = n == 1 ? 0x00ff : 0xffff;
        multiply_panel (set, n == PANEL_TILES ? 2 : 1, out + 8 * t, out_stride, p, at, n_columns, n_blocks, lanes,
                        k ? lanes : 0);
        t += n;
    }
}

static void matmul (const kernel_set *set, float *out, size_t out_stride, const void *tiles, size_t n_tiles,
                    const wl_activations *a, void *scratch)
{
    if (a->n_rows <= MAX_DIRECT_COLUMNS) {
        if (a->n_rows)
            matmul_direct (set, out, out_stride, tiles, n_tiles, a);
        return;
    }
    panel *p = scratch;
    if (n_tiles % VECTOR_TILES) { /* what stands beside a tile that is alone is multiplied too */
        memset (p->bytes, 0, sizeof p->bytes);
        memset (p->factors, 0, sizeof p->factors);
    }
    size_t c = 0;
    for (size_t blocks = (a->n_rows + COLUMN_BLOCK - 1) / COLUMN_BLOCK; blocks > 0; blocks--) {
        const size_t n_columns = (a->n_rows - c + blocks - 1) / blocks;
        size_t block = 0, n_blocks = a->n / set->width, most = SLAB / set->width;
        for (size_t slabs = (n_blocks + most - 1) / most; slabs > 0; slabs--) { /* of about the same length */
            const size_t n = (n_blocks - block + slabs - 1) / slabs;
            multiply_slab (set, out, out_stride, tiles, n_tiles, a, c, n_columns, block * set->width, n, p);
            block += n;
        }
        c += n_columns;
    }
}

#define DEFINE_EXPAND(TYPE, name)                                                              \
    static __attribute__ ((noinline)) void name##_expand (uint8_t *out, const uint8_t *packed) \
    {                                                                                          \
        expand (TYPE, 1 << offset_shift (TYPE), out, packed);                                  \
    }

#define DEFINE_DIRECT(TYPE, name, expand_block, n_columns)                                   \
    static __attribute__ ((noinline)) void name##_direct_##n_columns (                       \
        float *out, size_t out_stride, const uint8_t *packed, columns a, size_t n_blocks)    \
    {                                                                                        \
        direct_kernel (TYPE, n_columns, out, out_stride, packed, a, n_blocks, expand_block); \
    }

#define DEFINE_PANEL(TYPE, name, n_vectors, n_columns)                                                     \
    static __attribute__ ((noinline)) void name##_panel_##n_vectors##_##n_columns (                        \
        float *out, size_t out_stride, panel_weights w, panel_columns a, size_t n_blocks, __mmask16 lanes, \
        __mmask16 old)                                                                                     \
    {                                                                                                      \
        panel_kernel (TYPE, n_vectors, n_columns, out, out_stride, w, a, n_blocks, lanes, old);            \
    }

#define DEFINE_UNPACK(TYPE, name, expand_block, t)                                                                    \
    static __attribute__ ((noinline)) void name##_unpack_##t (uint8_t *bytes, uint8_t *factor, const uint8_t *packed, \
                                                              size_t n_blocks)                                        \
    {                                                                                                                 \
        unpack_tile (TYPE, bytes, factor, t, packed, n_blocks, expand_block);                                         \
    }

#define DEFINE_MATMUL(TYPE, name, expand_block)                                                         \
    DEFINE_DIRECT (TYPE, name, expand_block, 1)                                                         \
    DEFINE_DIRECT (TYPE, name, expand_block, 2)                                                         \
    DEFINE_DIRECT (TYPE, name, expand_block, 3)                                                         \
    DEFINE_DIRECT (TYPE, name, expand_block, 4)                                                         \
    DEFINE_PANEL (TYPE, name, 1, 4)                                                                     \
    DEFINE_PANEL (TYPE, name, 1, 5)                                                                     \
    DEFINE_PANEL (TYPE, name, 1, 6)                                                                     \
    DEFINE_PANEL (TYPE, name, 2, 4)                                                                     \
    DEFINE_PANEL (TYPE, name, 2, 5)                                                                     \
    DEFINE_PANEL (TYPE, name, 2, 6)                                                                     \
    DEFINE_UNPACK (TYPE, name, expand_block, 0)                                                         \
    DEFINE_UNPACK (TYPE, name, expand_block, 1)                                                         \
    static void name##_prepare (uint8_t *to, const int16_t *sums, size_t n_blocks)                      \
    {                                                                                                   \
        prepare_column (TYPE, to, sums, n_blocks);                                                      \
    }                                                                                                   \
    static void avx512_matmul_##name (float *out, size_t out_stride, const void *tiles, size_t n_tiles, \
                                      const wl_activations *a, void *scratch)                           \
    {                                                                                                   \
        const size_t width = (size_t) block_width (TYPE);                                               \
        const kernel_set set = {                                                                        \
            .width = width,                                                                             \
            .scale_width = width == 256 ? 256 : 16,                                                     \
            .block_bytes = block_bytes (TYPE),                                                          \
            .factor_bytes = factor_bytes (TYPE),                                                        \
            .column_bytes = 4 * n_extras (TYPE) * SLAB / width,                                         \
            .totals = takes_totals (TYPE),                                                              \
            .direct = {NULL, name##_direct_1, name##_direct_2, name##_direct_3, name##_direct_4},       \
            .panel = {{NULL},                                                                           \
                      {NULL, NULL, NULL, NULL, name##_panel_1_4, name##_panel_1_5, name##_panel_1_6},   \
                      {NULL, NULL, NULL, NULL, name##_panel_2_4, name##_panel_2_5, name##_panel_2_6}},  \
            .unpack = {name##_unpack_0, name##_unpack_1},                                               \
            .prepare = name##_prepare,                                                                  \
        };                                                                                              \
        matmul (&set, out, out_stride, tiles, n_tiles, a, scratch);                                     \
    }

#include "simd8_matmul_list.h"

#endif
