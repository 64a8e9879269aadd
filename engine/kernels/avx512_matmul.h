/* Quantized matmul with AVX-512 VNNI; included by avx512_table.h alone.
 *
 * A step is 4 consecutive elements of each of 16 rows, those of two tiles, against 4 bytes of an activation row
 * broadcast. vpdpbusd multiplies it and adds it to int32 sums at once; a sum is multiplied with the rows' scales where
 * the scale changes (in the formats of 32 as a float, with the column's), and once a block becomes one float step.
 *
 * Few columns (decode): tiles are read as they are, two at a time, and stream from memory once, prefetched. The two are
 * half of the matrix apart, so that each is one long run of memory.
 *
 * More columns: a slab of four tiles is unpacked to a panel in L1 and reused for all columns, 32 rows x 6 columns at a
 * time in registers (12 sums of a group, 12 of a block, and 8 loads for 12 multiplications). Meanwhile the tiles that
 * are unpacked next are prefetched. Where weights are raised by an offset, a sum starts at -offset * (sum of the
 * activations), so taking it out costs a broadcast in place of a zero. Where scale times weight fits a byte, it is
 * multiplied in when unpacking.
 *
 * A Zen 4 core does 64 of these multiply-adds a clock in 256 and in 512 bits alike; half as many instructions leave its
 * other units room. Cores with two 512-bit units (Zen 5, Xeons) do 128. */
#ifndef WL_ENGINE_KERNELS_AVX512_MATMUL_H
#define WL_ENGINE_KERNELS_AVX512_MATMUL_H

#include <string.h>

#include "avx512_tiles.h"

enum {
    MAX_DIRECT_COLUMNS = 8, /* more use a panel */
    VECTOR_TILES = 2,
    PANEL_VECTORS = 2,
    PANEL_TILES = PANEL_VECTORS * VECTOR_TILES,
    PANEL_COLUMNS = 6,
    SLAB = 640,                                      /* elements of a panel at most */
    PANEL_BYTES = SLAB * PANEL_TILES * WL_TILE_ROWS, /* with a run's columns and results it fits L1 */
    COLUMN_BLOCK = 512,                              /* columns prepared at a time */
    MAX_EXTRAS = 16,                                 /* int32 or float, of 256 elements of a column */
    PREFETCH_BYTES = 4096,                           /* ahead in each tile, as few columns stream the weights */
    LINE = 64,
};

typedef vec sums_of[PANEL_VECTORS][MAX_DIRECT_COLUMNS];
typedef __m512 values_of[PANEL_VECTORS][MAX_DIRECT_COLUMNS];

/* Columns at a block. Strides are in bytes. `extras` are
 *   formats of 32 with a minimum: the activations' totals
 *   else, from packed tiles and of Q2_K: the activations' sums
 *   else: what prepare_column () makes of the sums. */
typedef struct columns {
    const uint8_t *q, *extras, *scales;
    size_t q_stride, extra_stride, scale_stride;
} columns;

/* A block as bytes of all steps, with their offset. */
typedef void (*expand_fn) (uint8_t *out, const uint8_t *packed);

INLINE int32_t load_4 (const void *p)
{
    int32_t v;
    memcpy (&v, p, 4);
    return v;
}

INLINE int16_t load_2 (const void *p)
{
    int16_t v;
    memcpy (&v, p, 2);
    return v;
}

INLINE float load_float (const void *p)
{
    float v;
    memcpy (&v, p, 4);
    return v;
}

INLINE __m512 to_float (vec v)
{
    return _mm512_cvtepi32_ps (v);
}

/* -- What both ways share: n_vectors x n_columns ------------------------------------------------------------------- */

INLINE bool takes_totals (const int type)
{
    return block_width (type) == 32 && has_min (type);
}

/* One step: w times 4 elements of each column. */
INLINE void multiply_step (const int n_vectors, const int n_columns, sums_of sum, const vec w[PANEL_VECTORS],
                           const uint8_t *q, size_t q_stride)
{
    UNROLL for (int c = 0; c < n_columns; c++)
    {
        const vec x = _mm512_set1_epi32 (load_4 (q + c * q_stride));
        UNROLL for (int v = 0; v < n_vectors; v++)
        {
            sum[v][c] = _mm512_dpbusd_epi32 (sum[v][c], w[v], x);
            PIN (sum[v][c]);
        }
    }
}

/* acc += sum * scale of group g */
INLINE void add_scaled_sums (const int n_vectors, const int n_columns, sums_of acc, sums_of sum,
                             const factors *const f[PANEL_VECTORS], int g)
{
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

INLINE void set_zero (const int n_vectors, const int n_columns, sums_of acc)
{
    UNROLL for (int v = 0; v < n_vectors; v++)
    {
        UNROLL for (int c = 0; c < n_columns; c++) acc[v][c] = _mm512_setzero_si512 ();
    }
}

/* Half `g` of a block of 32: to `part` goes scale * sum. The second half adds its own and makes the float step. */
INLINE void end_half (const int type, const int n_vectors, const int n_columns, values_of value, values_of part,
                      const factors *const f[PANEL_VECTORS], const int g, columns a, sums_of sum)
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

/* The float step of a block of 256. direct: minimums go with 16 sums and hold the offset, too. */
INLINE void end_block (const int type, const bool direct, const int n_vectors, const int n_columns, values_of value,
                       const factors *const f[PANEL_VECTORS], columns a, sums_of acc)
{
    const int n_pairs = direct ? 8 : block_groups (type) / 2;
    const bool raised = direct && is_raised (type);
    UNROLL for (int c = 0; c < n_columns; c++, a.scales += a.scale_stride, a.extras += a.extra_stride)
    {
        vec msum[PANEL_VECTORS];
        UNROLL for (int v = 0; v < n_vectors; v++) msum[v] = _mm512_setzero_si512 ();
        if (has_min (type) || raised)
            UNROLL for (int j = 0; j < n_pairs; j++)
            {
                const vec s = _mm512_set1_epi32 (load_4 (a.extras + 4 * j));
                UNROLL for (int v = 0; v < n_vectors; v++) msum[v] =
                    _mm512_dpwssd_epi32 (msum[v], load_vec (f[v]->min[j]), s);
            }
        const __m512 da = _mm512_set1_ps (load_float (a.scales));
        UNROLL for (int v = 0; v < n_vectors; v++)
        {
            const vec isum = raised ? _mm512_sub_epi32 (acc[v][c], msum[v]) : acc[v][c];
            value[v][c] = _mm512_fmadd_ps (_mm512_mul_ps (_mm512_loadu_ps (f[v]->d), da), to_float (isum), value[v][c]);
            if (has_min (type))
                value[v][c] =
                    _mm512_fnmadd_ps (_mm512_mul_ps (_mm512_loadu_ps (f[v]->m), da), to_float (msum[v]), value[v][c]);
        }
    }
}

/* -- Few columns: from packed tiles -------------------------------------------------------------------------------- */

/* Where the results of two tiles go: `upper` is where the second's are behind the first's. Strides are in floats. */
typedef struct results {
    float *out;
    size_t stride, upper;
} results;

INLINE void prefetch_pair (pair p, size_t offset, const size_t n)
{
    UNROLL for (size_t i = 0; i < n; i += LINE)
    {
        _mm_prefetch ((const char *) p.block + offset + i, _MM_HINT_T1);
        _mm_prefetch ((const char *) p.block + p.apart + offset + i, _MM_HINT_T1);
    }
}

/* Group g of all columns: sum = its products, from where it starts. */
INLINE void direct_group (const int type, const int n_columns, sums_of sum, pair source, int outer, const int inner,
                          columns a)
{
    const int steps = group_steps (type), g = outer * inner_groups (type) + inner;
    UNROLL for (int c = 0; c < n_columns; c++)
    {
        const bool start = block_width (type) == 32 && is_raised (type);
        sum[0][c] = start ? _mm512_set1_epi32 (-(load_2 (a.extras + c * a.extra_stride + (size_t) (2 * g)) *
                                                 (1 << raised_shift (type))))
                          : _mm512_setzero_si512 ();
    }
    UNROLL for (int k = 0; k < steps; k++)
    {
        const vec w[PANEL_VECTORS] = {fetch_unsigned (type, source, outer, inner, k)};
        multiply_step (1, n_columns, sum, w, a.q + (g * steps + k) * 4, a.q_stride);
    }
}

/* Two tiles, n_blocks blocks, from 0. `expand_block`: of types that are expanded. */
INLINE void direct_kernel (const int type, const int n_columns, results to, pair packed, columns a, size_t n_blocks,
                           expand_fn expand_block)
{
    const int inner = inner_groups (type), outer = block_groups (type) / inner, width = block_width (type);
    const size_t share = block_bytes (type) / (size_t) outer; /* prefetched in each round */
    values_of value, part;
    UNROLL for (int c = 0; c < n_columns; c++) value[0][c] = _mm512_setzero_ps ();
    for (size_t b = 0; b < n_blocks; b++) {
        factors block;
        const factors *const f[PANEL_VECTORS] = {&block};
        vec scale[16];
        load_factors (type, false, &block, scale, packed);
        if (width == 256 && !is_ternary (type))
            UNROLL for (int g = 0; g < block_groups (type); g++) store_vec (block.scale[g], scale[g]);
        uint8_t bytes[VECTOR_TILES][EXPANDED_BYTES];
        if (is_expanded (type)) {
            expand_block (bytes[0], packed.block);
            expand_block (bytes[1], packed.block + packed.apart);
        }
        const pair source = is_expanded (type) ? (pair){bytes[0], sizeof bytes[0]} : packed;
        sums_of acc, sum;
        set_zero (1, n_columns, acc);
        for (int o = 0; o < outer; o++) {
            prefetch_pair (packed, PREFETCH_BYTES + (size_t) o * share, share);
            UNROLL for (int i = 0; i < inner; i++)
            {
                direct_group (type, n_columns, sum, source, o, i, a);
                if (width == 32)
                    end_half (type, 1, n_columns, value, part, f, i, a, sum);
                else if (is_ternary (type))
                    UNROLL for (int c = 0; c < n_columns; c++) acc[0][c] = _mm512_add_epi32 (acc[0][c], sum[0][c]);
                else
                    add_scaled_sums (1, n_columns, acc, sum, f, o * inner + i);
            }
        }
        if (width == 256)
            end_block (type, true, 1, n_columns, value, f, a, acc);
        packed.block += block_bytes (type);
        a.q += width;
        a.scales += width == 32 ? 8 : 4;
        a.extras += width == 32 ? 4 : 32;
    }
    UNROLL for (int c = 0; c < n_columns; c++, to.out += to.stride)
    {
        _mm256_storeu_ps (to.out + to.upper, upper_floats (value[0][c]));
        _mm256_storeu_ps (to.out, _mm512_castps512_ps256 (value[0][c]));
    }
}

/* -- More columns: from an unpacked panel -------------------------------------------------------------------------- */

/* Dwords that are prepared for a block of one column, in `extras`:
 *   raised weights:  -offset * S of each sum, int32: where it starts
 *   Q4_K Q5_K:       [S_2j, S_2j+1], int16: sums of two groups */
INLINE size_t n_extras (const int type)
{
    return is_raised (type)               ? (is_folded (type) ? 1 : (size_t) block_groups (type))
           : type == Q4_K || type == Q5_K ? 4
                                          : 0;
}

typedef struct panel {
    uint8_t bytes[PANEL_BYTES];                  /* [step][tile][8 rows][4] */
    factors factors[PANEL_VECTORS * SLAB / 256]; /* [vector][block], of factor_bytes each */
    uint8_t columns[COLUMN_BLOCK * SLAB / 256 * MAX_EXTRAS * 4];
} panel;
_Static_assert(sizeof (factors) * SLAB / 256 >= SLAB / 32 * offsetof (factors, min), "blocks of 32");

typedef struct panel_weights {
    const uint8_t *bytes, *factors;
} panel_weights;

/* Where the sums of a group start. */
INLINE void panel_start (const int type, const int n_vectors, const int n_columns, sums_of sum, columns a, int g)
{
    UNROLL for (int c = 0; c < n_columns; c++)
    {
        const vec start = is_raised (type) ? _mm512_set1_epi32 (load_4 (a.extras + c * a.extra_stride + 4 * g))
                                           : _mm512_setzero_si512 ();
        UNROLL for (int v = 0; v < n_vectors; v++) sum[v][c] = start;
    }
}

/* `steps` steps. */
INLINE void panel_steps (const int n_vectors, const int n_columns, const int steps, sums_of sum, const uint8_t *bytes,
                         const uint8_t *q, size_t q_stride)
{
    UNROLL for (int k = 0; k < steps; k++)
    {
        vec w[PANEL_VECTORS];
        UNROLL for (int v = 0; v < n_vectors; v++)
        {
            w[v] = load_vec (bytes + (k * PANEL_VECTORS + v) * 64);
            PIN (w[v]);
        }
        multiply_step (n_vectors, n_columns, sum, w, q + 4 * k, q_stride);
    }
}

/* Results so far: `out` is read and written at each block, which leaves the registers to the sums. `lanes`: those that
 * `out` has (of two vectors, all), or none to begin with zeros. */
INLINE void load_values (const int n_vectors, const int n_columns, values_of value, const float *out, size_t out_stride,
                         __mmask16 lanes)
{
    UNROLL for (int v = 0; v < n_vectors; v++)
    {
        UNROLL for (int c = 0; c < n_columns; c++) value[v][c] =
            _mm512_maskz_loadu_ps (lanes, out + c * out_stride + 16 * v);
    }
}

INLINE void store_values (const int n_vectors, const int n_columns, values_of value, float *out, size_t out_stride,
                          __mmask16 lanes)
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
INLINE void panel_run (const int type, const int n_vectors, const int n_columns, float *out, size_t out_stride,
                       panel_weights w, columns a, size_t n_blocks, __mmask16 lanes, __mmask16 old)
{
    const int width = block_width (type), steps = is_folded (type) ? 8 : group_steps (type), rounds = width / 4 / steps;
    values_of value, part;
    for (size_t b = 0; b < n_blocks; b++, old = lanes) {
        const factors *f[PANEL_VECTORS];
        UNROLL for (int v = 0; v < n_vectors; v++) f[v] =
            (const factors *) (w.factors + ((size_t) (v * SLAB / width) + b) * factor_bytes (type));
        sums_of acc, sum;
        if (is_folded (type))
            panel_start (type, n_vectors, n_columns, acc, a, 0);
        else if (width == 256)
            set_zero (n_vectors, n_columns, acc);
        if (width == 32)
            UNROLL for (int g = 0; g < 2; g++)
            {
                panel_start (type, n_vectors, n_columns, sum, a, g);
                panel_steps (n_vectors, n_columns, steps, sum, w.bytes + g * steps * PANEL_VECTORS * 64,
                             a.q + g * steps * 4, a.q_stride);
                if (g == 1)
                    load_values (n_vectors, n_columns, value, out, out_stride, old);
                end_half (type, n_vectors, n_columns, value, part, f, g, a, sum);
            }
        for (int g = 0; g < (width == 32 ? 0 : rounds); g++) {
            const uint8_t *bytes = w.bytes + g * steps * PANEL_VECTORS * 64, *q = a.q + g * steps * 4;
            if (is_folded (type)) {
                panel_steps (n_vectors, n_columns, steps, acc, bytes, q, a.q_stride);
                continue;
            }
            panel_start (type, n_vectors, n_columns, sum, a, g);
            panel_steps (n_vectors, n_columns, steps, sum, bytes, q, a.q_stride);
            add_scaled_sums (n_vectors, n_columns, acc, sum, f, g);
        }
        if (width == 256) {
            load_values (n_vectors, n_columns, value, out, out_stride, old);
            end_block (type, false, n_vectors, n_columns, value, f, a, acc);
        }
        store_values (n_vectors, n_columns, value, out, out_stride, lanes);
        a.scales += width == 32 ? 8 : 4;
        w.bytes += width * 8 * PANEL_TILES;
        a.q += width;
        a.extras += type == Q2_K ? 32 : takes_totals (type) ? 4 : 4 * n_extras (type);
    }
}

INLINE columns skip_columns (columns a, size_t n)
{
    a.q += n * a.q_stride;
    a.extras += n * a.extra_stride;
    a.scales += n * a.scale_stride;
    return a;
}

/* What is unpacked next: the lines of each of n_tiles tiles that are not prefetched yet, and how many are in each run. */
typedef struct upcoming {
    const uint8_t *lines;
    size_t n_tiles, tile_bytes, left, each;
} upcoming;

INLINE void prefetch_share (upcoming *next)
{
    const size_t n = next->left < next->each ? next->left : next->each;
    for (size_t i = 0; i < n; i++, next->lines += LINE)
        for (size_t t = 0; t < next->n_tiles; t++)
            _mm_prefetch ((const char *) next->lines + t * next->tile_bytes, _MM_HINT_T1);
    next->left -= n;
}

/* n_runs runs of n_columns each. */
INLINE void panel_kernel (const int type, const int n_vectors, const int n_columns, float *out, size_t out_stride,
                          panel_weights w, columns a, size_t n_runs, size_t n_blocks, __mmask16 lanes, __mmask16 old,
                          upcoming *next)
{
    for (; n_runs > 0; n_runs--, out += n_columns * out_stride, a = skip_columns (a, (size_t) n_columns)) {
        UNROLL for (int c = 0; c < n_columns; c++)
        {
            UNROLL for (int v = 0; v < n_vectors; v++)
                _mm_prefetch ((const char *) (out + c * out_stride + 16 * v), _MM_HINT_T0);
        }
        prefetch_share (next);
        panel_run (type, n_vectors, n_columns, out, out_stride, w, a, n_blocks, lanes, old);
    }
}

/* One step to a panel; upper: see unpack_pair (). */
INLINE void unpack_step (const int type, const size_t upper, uint8_t *bytes, pair source, int outer, const int inner,
                         const int k, const int32_t *scale)
{
    if (upper && !is_folded (type)) {
        const vec w = fetch_signed (type, source, outer, inner, k);
        if (block_width (type) == 32)
            store_vec (bytes, w);
        else
            store_products (bytes, bytes + upper, w, load_vec (scale));
        return;
    }
    vec w = fetch_unsigned (type, source, outer, inner, k);
    if (is_folded (type) && !is_ternary (type))
        w = fold (type, w, load_vec (scale));
    store_vec (bytes, w);
}

/* n_blocks of two tiles, to their place beside the panel's others. upper: 0 where weights are to be unsigned bytes; for
 * AMX, how far behind the lower bytes of products scale * weight the upper ones go. */
INLINE void unpack_pair (const int type, const size_t upper, uint8_t *bytes, uint8_t *factor, pair packed,
                         size_t n_blocks, expand_fn expand_block)
{
    const int steps = group_steps (type), inner = inner_groups (type), outer = block_groups (type) / inner;
    for (size_t b = 0; b < n_blocks; b++, packed.block += block_bytes (type), factor += factor_bytes (type)) {
        factors *f = (factors *) factor;
        vec scale[16];
        load_factors (type, true, f, scale, packed);
        int32_t folded[16][16];
        int32_t (*scales)[16] = is_folded (type) ? folded : f->scale;
        if (block_width (type) == 256 && !is_ternary (type))
            UNROLL for (int g = 0; g < block_groups (type); g++) store_vec (scales[g], scale[g]);
        uint8_t expanded[VECTOR_TILES][EXPANDED_BYTES];
        if (is_expanded (type)) {
            expand_block (expanded[0], packed.block);
            expand_block (expanded[1], packed.block + packed.apart);
        }
        const pair source = is_expanded (type) ? (pair){expanded[0], sizeof expanded[0]} : packed;
        for (int o = 0; o < outer; o++)
            UNROLL for (int i = 0; i < inner; i++)
            {
                UNROLL for (int k = 0; k < steps; k++)
                {
                    unpack_step (type, upper, bytes, source, o, i, k, scales[o * inner + i]);
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
        if (is_raised (type) && n_extras (type) == 16) {
            const __m256i less = _mm256_set1_epi32 (-panel_offset (type));
            UNROLL for (int i = 0; i < 16; i += 8) store_b32 (
                out + 4 * i,
                _mm256_mullo_epi32 (_mm256_cvtepi16_epi32 (_mm_loadu_si128 ((const __m128i *) (sums + i))), less));
        } else if (is_raised (type) && block_width (type) == 256) {
            const b32 v = _mm256_madd_epi16 (load_b32 (sums), _mm256_set1_epi16 ((int16_t) -panel_offset (type)));
            if (is_folded (type)) {
                __m128i s = _mm_add_epi32 (_mm256_castsi256_si128 (v), _mm256_extracti128_si256 (v, 1));
                s = _mm_add_epi32 (s, _mm_shuffle_epi32 (s, 0x4e));
                const int32_t start = _mm_cvtsi128_si32 (s) + _mm_extract_epi32 (s, 1);
                memcpy (out, &start, 4);
            } else
                store_b32 (out, v);
        } else if (is_raised (type)) {
            UNROLL for (int j = 0; j < sums_each; j++)
            {
                const int32_t start = -panel_offset (type) * sums[j];
                memcpy (out + 4 * j, &start, 4);
            }
        } else if (type == Q4_K || type == Q5_K) {
            __m256i s = _mm256_madd_epi16 (load_b32 (sums), _mm256_set1_epi16 (1));
            s = _mm256_permute4x64_epi64 (_mm256_packs_epi32 (s, s), 0x08);
            _mm_storeu_si128 ((__m128i *) out, _mm256_castsi256_si128 (s));
        }
    }
}

/* -- Whole matrices ------------------------------------------------------------------------------------------------ */

/* A type's instances of the above, each a function of its own so that it has all registers. */
typedef struct kernel_set kernel_set;
struct kernel_set {
    size_t width, scale_width, block_bytes, factor_bytes, column_bytes;      /* column_bytes: of a slab of a column */
    bool totals;                                                             /* extras are the activations' totals */
    void (*direct[MAX_DIRECT_COLUMNS + 1]) (results, pair, columns, size_t); /* by columns */
    void (*panel[PANEL_VECTORS + 1][PANEL_COLUMNS + 1]) (float *, size_t, panel_weights, columns, size_t, size_t,
                                                         __mmask16, __mmask16, upcoming *); /* by vectors, columns */
    void (*unpack) (uint8_t *, uint8_t *, pair, size_t);
    void (*prepare) (uint8_t *, const int16_t *, size_t);
    void (*multiply) (const kernel_set *, int, float *, size_t, const panel *, columns, size_t, size_t, __mmask16,
                      __mmask16, upcoming *); /* multiply_panel (), or AMX's */
};

/* The columns from `first` on, elements from k on, with the activations' own extras. */
static columns columns_at (const kernel_set *set, const wl_activations *a, size_t first, size_t k)
{
    columns at = {
        .q = (const uint8_t *) a->q + first * a->q_stride + k,
        .q_stride = a->q_stride,
        .extras = (const uint8_t *) (a->sums + first * a->sum_stride + k / 16),
        .extra_stride = a->sum_stride * sizeof (int16_t),
        .scales = (const uint8_t *) (a->scales + first * a->scale_stride + k / set->scale_width),
        .scale_stride = a->scale_stride * sizeof (float),
    };
    if (set->totals) {
        at.extras = (const uint8_t *) (a->totals + first * a->total_stride + k / 32);
        at.extra_stride = a->total_stride * sizeof (float);
    }
    return at;
}

/* Tile t goes with the one half of all tiles behind it; of an odd number the last is alone. */
static void matmul_direct (const kernel_set *set, float *out, size_t out_stride, const uint8_t *tiles, size_t n_tiles,
                           const wl_activations *a)
{
    const size_t n_blocks = a->n / set->width, tile_bytes = n_blocks * set->block_bytes, n_pairs = n_tiles / 2;
    const columns all = columns_at (set, a, 0, 0);
    for (size_t t = 0; t < n_pairs; t++)
        set->direct[a->n_rows]((results){out + 8 * t, out_stride, 8 * n_pairs},
                               (pair){tiles + t * tile_bytes, n_pairs * tile_bytes}, all, n_blocks);
    if (n_tiles % 2)
        set->direct[a->n_rows]((results){out + 8 * (n_tiles - 1), out_stride, 0},
                               (pair){tiles + (n_tiles - 1) * tile_bytes, 0}, all, n_blocks);
}

/* All columns, in runs of about the same length: more than MAX_DIRECT_COLUMNS make runs of 4 to 6. */
static void multiply_panel (const kernel_set *set, const int n_vectors, float *out, size_t out_stride, const panel *p,
                            columns at, size_t n_columns, size_t n_blocks, __mmask16 lanes, __mmask16 old,
                            upcoming *next)
{
    const panel_weights w = {p->bytes, (const uint8_t *) p->factors};
    const size_t n_runs = (n_columns + PANEL_COLUMNS - 1) / PANEL_COLUMNS, m = n_columns / n_runs,
                 n_longer = n_columns % n_runs;
    next->each = (next->left + n_runs - 1) / n_runs;
    if (n_longer)
        set->panel[n_vectors][m + 1](out, out_stride, w, at, n_longer, n_blocks, lanes, old, next);
    set->panel[n_vectors][m](out + n_longer * (m + 1) * out_stride, out_stride, w,
                             skip_columns (at, n_longer * (m + 1)), n_runs - n_longer, n_blocks, lanes, old, next);
}

/* Columns [first, first + n_columns) of elements [k, k + n_blocks * width) against all tiles, added to out but for the
 * first elements. */
static void multiply_slab (const kernel_set *set, float *out, size_t out_stride, const uint8_t *tiles, size_t n_tiles,
                           const wl_activations *a, size_t first, size_t n_columns, size_t k, size_t n_blocks, panel *p)
{
    const size_t tile_bytes = a->n / set->width * set->block_bytes, slab_bytes = n_blocks * set->block_bytes;
    columns at = columns_at (set, a, first, k);
    if (set->column_bytes) {
        for (size_t c = 0; c < n_columns; c++)
            set->prepare (p->columns + c * set->column_bytes, a->sums + (first + c) * a->sum_stride + k / 16, n_blocks);
        at.extras = p->columns;
        at.extra_stride = set->column_bytes;
    }
    out += first * out_stride;
    for (size_t t = 0; t < n_tiles;) {
        const size_t left = n_tiles - t, n = left >= PANEL_TILES    ? PANEL_TILES
                                             : left >= VECTOR_TILES ? VECTOR_TILES
                                                                    : 1;
        const uint8_t *packed = tiles + t * tile_bytes + k / set->width * set->block_bytes;
        for (size_t i = 0; i < n; i += VECTOR_TILES)
            set->unpack (p->bytes + i * 32,
                         (uint8_t *) p->factors + i / VECTOR_TILES * (SLAB / set->width) * set->factor_bytes,
                         (pair){packed + i * tile_bytes, n == 1 ? 0 : tile_bytes}, n_blocks);
        /* then come the next tiles, or the first tiles' next slab */
        const bool more = left > n;
        upcoming next = {
            .lines = more ? packed + n * tile_bytes : packed - t * tile_bytes + slab_bytes,
            .n_tiles = more ? (left - n < PANEL_TILES ? left - n : PANEL_TILES)
                       : k + n_blocks * set->width < a->n && n_tiles > n ? PANEL_TILES
                                                                         : 0,
            .tile_bytes = tile_bytes,
            .left = slab_bytes / LINE,
        };
        const __mmask16 lanes = n == 1 ? 0x00ff : 0xffff;
        set->multiply (set, n == PANEL_TILES ? 2 : 1, out + 8 * t, out_stride, p, at, n_columns, n_blocks, lanes,
                       k ? lanes : 0, &next);
        t += n;
    }
}

static void matmul_slabs (const kernel_set *set, float *out, size_t out_stride, const void *tiles, size_t n_tiles,
                          const wl_activations *a, void *scratch)
{
    size_t c = 0;
    for (size_t blocks = (a->n_rows + COLUMN_BLOCK - 1) / COLUMN_BLOCK; blocks > 0; blocks--) {
        const size_t n_columns = (a->n_rows - c + blocks - 1) / blocks;
        size_t block = 0, n_blocks = a->n / set->width, most = SLAB / set->width;
        for (size_t slabs = (n_blocks + most - 1) / most; slabs > 0; slabs--) { /* of about the same length */
            const size_t n = (n_blocks - block + slabs - 1) / slabs;
            multiply_slab (set, out, out_stride, tiles, n_tiles, a, c, n_columns, block * set->width, n, scratch);
            block += n;
        }
        c += n_columns;
    }
}

static void matmul (const kernel_set *set, float *out, size_t out_stride, const void *tiles, size_t n_tiles,
                    const wl_activations *a, void *scratch)
{
    if (a->n_rows > MAX_DIRECT_COLUMNS)
        matmul_slabs (set, out, out_stride, tiles, n_tiles, a, scratch);
    else if (a->n_rows)
        matmul_direct (set, out, out_stride, tiles, n_tiles, a);
}

#define DEFINE_EXPAND(TYPE, name)                                                              \
    static __attribute__ ((noinline)) void name##_expand (uint8_t *out, const uint8_t *packed) \
    {                                                                                          \
        expand (TYPE, 1 << offset_shift (TYPE), out, packed);                                  \
    }

#define DEFINE_DIRECT(TYPE, name, expand_block, n_columns)                                                \
    static __attribute__ ((noinline)) void name##_direct_##n_columns (results to, pair packed, columns a, \
                                                                      size_t n_blocks)                    \
    {                                                                                                     \
        direct_kernel (TYPE, n_columns, to, packed, a, n_blocks, expand_block);                           \
    }

#define DEFINE_PANEL(TYPE, name, n_vectors, n_columns)                                                              \
    static __attribute__ ((noinline)) void name##_panel_##n_vectors##_##n_columns (                                 \
        float *out, size_t out_stride, panel_weights w, columns a, size_t n_runs, size_t n_blocks, __mmask16 lanes, \
        __mmask16 old, upcoming *next)                                                                              \
    {                                                                                                               \
        panel_kernel (TYPE, n_vectors, n_columns, out, out_stride, w, a, n_runs, n_blocks, lanes, old, next);       \
    }

#define DEFINE_MATMUL(TYPE, name, expand_block)                                                                       \
    DEFINE_DIRECT (TYPE, name, expand_block, 1)                                                                       \
    DEFINE_DIRECT (TYPE, name, expand_block, 2)                                                                       \
    DEFINE_DIRECT (TYPE, name, expand_block, 3)                                                                       \
    DEFINE_DIRECT (TYPE, name, expand_block, 4)                                                                       \
    DEFINE_DIRECT (TYPE, name, expand_block, 5)                                                                       \
    DEFINE_DIRECT (TYPE, name, expand_block, 6)                                                                       \
    DEFINE_DIRECT (TYPE, name, expand_block, 7)                                                                       \
    DEFINE_DIRECT (TYPE, name, expand_block, 8)                                                                       \
    DEFINE_PANEL (TYPE, name, 1, 4)                                                                                   \
    DEFINE_PANEL (TYPE, name, 1, 5)                                                                                   \
    DEFINE_PANEL (TYPE, name, 1, 6)                                                                                   \
    DEFINE_PANEL (TYPE, name, 2, 4)                                                                                   \
    DEFINE_PANEL (TYPE, name, 2, 5)                                                                                   \
    DEFINE_PANEL (TYPE, name, 2, 6)                                                                                   \
    static                                                                                                            \
        __attribute__ ((noinline)) void name##_unpack (uint8_t *bytes, uint8_t *factor, pair packed, size_t n_blocks) \
    {                                                                                                                 \
        unpack_pair (TYPE, 0, bytes, factor, packed, n_blocks, expand_block);                                         \
    }                                                                                                                 \
    static void name##_prepare (uint8_t *to, const int16_t *sums, size_t n_blocks)                                    \
    {                                                                                                                 \
        prepare_column (TYPE, to, sums, n_blocks);                                                                    \
    }                                                                                                                 \
    static void avx512_matmul_##name (float *out, size_t out_stride, const void *tiles, size_t n_tiles,               \
                                      const wl_activations *a, void *scratch)                                         \
    {                                                                                                                 \
        const size_t width = (size_t) block_width (TYPE);                                                             \
        const kernel_set set = {                                                                                      \
            .width = width,                                                                                           \
            .scale_width = width == 256 ? 256 : 16,                                                                   \
            .block_bytes = block_bytes (TYPE),                                                                        \
            .factor_bytes = factor_bytes (TYPE),                                                                      \
            .column_bytes = 4 * n_extras (TYPE) * SLAB / width,                                                       \
            .totals = takes_totals (TYPE),                                                                            \
            .direct = {NULL, name##_direct_1, name##_direct_2, name##_direct_3, name##_direct_4, name##_direct_5,     \
                       name##_direct_6, name##_direct_7, name##_direct_8},                                            \
            .panel = {{NULL},                                                                                         \
                      {NULL, NULL, NULL, NULL, name##_panel_1_4, name##_panel_1_5, name##_panel_1_6},                 \
                      {NULL, NULL, NULL, NULL, name##_panel_2_4, name##_panel_2_5, name##_panel_2_6}},                \
            .unpack = name##_unpack,                                                                                  \
            .prepare = name##_prepare,                                                                                \
            .multiply = multiply_panel,                                                                               \
        };                                                                                                            \
        matmul (&set, out, out_stride, tiles, n_tiles, a, scratch);                                                   \
    }

#include "simd8_matmul_list.h"

#endif
