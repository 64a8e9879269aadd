/* Quantized matmul with AVX2.
 *
 * A vector holds 4 consecutive elements (a step) of each of a tile's 8 rows; 4 bytes of an activation row are broadcast
 * against it:
 *     vpmaddubsw  8 rows x 2 pairs, int16          added up over a chain of steps
 *     vpmaddwd    with [scale, scale] of each row  -> 8 rows, int32
 * and once a block the int32 sum becomes one float step (in the formats of 32 there is one sum for each half). That is 32 multiply-adds an
 * instruction with no shuffles and no sum across lanes. Zen 3 starts two of these multiplications a clock; the
 * additions between them compete for the same pipes, so the fewer the better.
 *
 * Few columns (decode): the tile is read as it is, so that the weights stream from memory once, prefetched. From four on,
 * up to 8 columns share what is fetched from a tile: their dwords are interleaved beforehand, so that one pointer reaches
 * them all. More than 8 take turns at a part of a tile, which stays in L1.
 *
 * Many columns: a slab of two tiles is unpacked to a panel in L1 and reused for all columns, 16 rows x 3 columns at a
 * time in registers (5 loads for 6 multiplications; 8 x 6 would need 7).
 *
 * Two things are done for all columns beforehand, the second for panels only:
 *   - Where the format has an offset (q - 8, q - 32, ...), a chain starts at -offset * (sums of the activation pairs).
 *     Its end is then the sum of the signed weights' products, which int16 holds over the whole group although the
 *     unsigned ones do not: additions wrap around, and only the end needs to fit. For Q6_K: 4 * 2 * 127 * 32 = 32512.
 *   - Weights that use all of int8 (Q8_0, IQ4) leave no room for even two products in int16; they are unpacked to int16
 *     (with the scale multiplied in) and so are the activations, for vpmaddwd. */
#if defined(__x86_64__)

#include "avx2_tiles.h"

#include <string.h>

enum {
    DIRECT_COLUMNS = 8,
    FEW_COLUMNS = 3,     /* read where they are; more are interleaved */
    FEW_SLAB = 8192,     /* elements that are prepared at a time, of few columns */
    DIRECT_SLAB = 2048,  /* and of more: 8 columns within half of L1 */
    DIRECT_AT_MOST = 24, /* columns: from here on a panel is faster */
    PANEL_TILES = 2,
    PANEL_COLUMNS = 3,
    PANEL_BYTES = 16384,   /* of PANEL_TILES: half of L1 */
    COLUMN_BLOCK = 192,    /* columns prepared at a time */
    PREFETCH_BYTES = 2048, /* ahead of what a tile's kernel reads */
};

/* -- Steps shared by both kinds of kernels ------------------------------------------------------------------------- */

/* acc += s16 pairs times `scales`, which differ by tile. */
INLINE void add_chain (const int n_tiles, const int n_columns, vec acc[2][DIRECT_COLUMNS], vec s16[2][DIRECT_COLUMNS],
                       const vec scales[2])
{
    UNROLL for (int c = 0; c < n_columns; c++)
    {
        UNROLL for (int t = 0; t < n_tiles; t++)
        {
            vec sum = _mm256_madd_epi16 (s16[t][c], scales[t]);
            acc[t][c] = _mm256_add_epi32 (acc[t][c], sum);
            if (n_tiles * n_columns <= 6)
                PIN (acc[t][c]);
        }
    }
}

INLINE void clear (const int n_tiles, const int n_columns, vec acc[2][DIRECT_COLUMNS])
{
    UNROLL for (int c = 0; c < n_columns; c++)
    {
        UNROLL for (int t = 0; t < n_tiles; t++) acc[t][c] = _mm256_setzero_si256 ();
    }
}

/* The float step of a block of 256: 8 rows of one column. msum belongs to the second step, if the type has one. */
INLINE __m256 float_step (const int type, __m256 value, const factors *f, float scale, vec isum, vec msum)
{
    __m256 da = _mm256_set1_ps (scale);
    value = _mm256_fmadd_ps (_mm256_mul_ps (_mm256_loadu_ps (f->d), da), _mm256_cvtepi32_ps (isum), value);
    if (has_min (type))
        value = _mm256_fnmadd_ps (_mm256_mul_ps (_mm256_loadu_ps (f->m), da), _mm256_cvtepi32_ps (msum), value);
    return value;
}

/* Results so far, of n_tiles x n_columns. */
INLINE void load_values (const int n_tiles, const int n_columns, __m256 value[2][DIRECT_COLUMNS], const float *out,
                         size_t out_stride)
{
    UNROLL for (int t = 0; t < n_tiles; t++)
    {
        UNROLL for (int c = 0; c < n_columns; c++) value[t][c] = _mm256_loadu_ps (out + c * out_stride + 8 * t);
    }
}

INLINE void store_values (const int n_tiles, const int n_columns, __m256 value[2][DIRECT_COLUMNS], float *out,
                          size_t out_stride)
{
    UNROLL for (int t = 0; t < n_tiles; t++)
    {
        UNROLL for (int c = 0; c < n_columns; c++) _mm256_storeu_ps (out + c * out_stride + 8 * t, value[t][c]);
    }
}

/* Dwords that are prepared for a block of one column, in `extras`:
 *   offset:         -offset * [sum of the even pairs, sum of the odd pairs], int16, of each chain of steps: where
 *                   it starts
 *   Q4_K Q5_K:      [S_2j, S_2j+1], int16: sums of two groups */
INLINE size_t n_extras (const int type)
{
    return has_offset (type)              ? (size_t) (block_width (type) / 4 / signed_chain_steps (type))
           : type == Q4_K || type == Q5_K ? 4
                                          : 0;
}

/* `extras` are the activations' totals as they are. */
INLINE bool takes_totals (const int type)
{
    return block_width (type) == 32 && has_min (type);
}

/* Bytes of `extras` from a block to the next; Q2_K's are the activations' sums as they are. */
INLINE size_t extra_bytes (const int type)
{
    return type == Q2_K ? 32 : takes_totals (type) ? 4 : 4 * n_extras (type);
}

/* A run of columns at a kernel's first element. Strides are in bytes. */
typedef struct columns {
    const uint8_t *q, *extras, *scales;
    size_t q_stride, extra_stride, scale_stride;
} columns;

/* Steps of a chain, and where in `extras` the chains of a group start (NULL: from nothing). */
INLINE int chain_of (const int type)
{
    return has_offset (type) ? signed_chain_steps (type) : chain_steps (type);
}

INLINE const uint8_t *starts_of (const int type, const uint8_t *extras, int group)
{
    return has_offset (type) ? extras + 4 * (group * (group_steps (type) / chain_of (type))) : NULL;
}

/* One step of n_tiles x n_columns; where the chain starts, from `starts` (NULL: from nothing). Of signed weights the
 * activation takes over the sign. */
INLINE void chain_step (const int type, const int n_tiles, const int n_columns, vec s16[2][DIRECT_COLUMNS],
                        const vec w[2], const uint8_t *q, size_t q_stride, const bool start, const uint8_t *starts,
                        size_t starts_stride)
{
    vec magnitude[2];
    UNROLL for (int t = 0; t < n_tiles; t++) magnitude[t] = is_signed (type) ? _mm256_abs_epi8 (w[t]) : w[t];
    UNROLL for (int c = 0; c < n_columns; c++)
    {
        vec x = broadcast_4 (q + c * q_stride), product[2];
        PIN (x);
        UNROLL for (int t = 0; t < n_tiles; t++)
        {
            product[t] = _mm256_maddubs_epi16 (magnitude[t], is_signed (type) ? _mm256_sign_epi8 (x, w[t]) : x);
            PIN (product[t]);
        }
        if (start && starts) {
            x = broadcast_4 (starts + c * starts_stride);
            PIN (x);
        }
        UNROLL for (int t = 0; t < n_tiles; t++)
        {
            if (!start)
                add_in_place_16 (&s16[t][c], product[t]);
            else
                s16[t][c] = starts ? _mm256_add_epi16 (x, product[t]) : product[t];
            PIN (s16[t][c]);
        }
    }
}

INLINE __m256 broadcast_float (const uint8_t *p)
{
    float v;
    memcpy (&v, p, 4);
    return _mm256_set1_ps (v);
}

/* A half of a block of 32 of n_tiles x n_columns: to `part` goes scale * sum. The second half adds its own and makes
 * the float step. `scales` stands at the half, `extras` at the block. */
INLINE void half_end (const int type, const int n_tiles, const int n_columns, __m256 value[2][DIRECT_COLUMNS],
                      __m256 part[2][DIRECT_COLUMNS], const factors *const f[2], const bool second,
                      const uint8_t *scales, const uint8_t *extras, columns a, vec acc[2][DIRECT_COLUMNS])
{
    UNROLL for (int c = 0; c < n_columns; c++, scales += a.scale_stride, extras += a.extra_stride)
    {
        const __m256 da = broadcast_float (scales);
        UNROLL for (int t = 0; t < n_tiles; t++)
        {
            const __m256 sum = _mm256_cvtepi32_ps (acc[t][c]);
            part[t][c] = second ? _mm256_fmadd_ps (da, sum, part[t][c]) : _mm256_mul_ps (da, sum);
            if (second)
                value[t][c] = _mm256_fmadd_ps (_mm256_loadu_ps (f[t]->d), part[t][c], value[t][c]);
            if (second && has_min (type))
                value[t][c] = _mm256_fmadd_ps (_mm256_loadu_ps (f[t]->m), broadcast_float (extras), value[t][c]);
        }
    }
}

/* The float step of blocks of 256, n_tiles x n_columns. `scales` stands at the activations' block, `extras` at what
 * belongs to it, its dwords `apart` from one another. */
INLINE void block_end (const int type, const int n_tiles, const int n_columns, __m256 value[2][DIRECT_COLUMNS],
                       const factors *const f[2], const int apart, const uint8_t *scales, const uint8_t *extras,
                       columns a, vec acc[2][DIRECT_COLUMNS])
{
    UNROLL for (int c = 0; c < n_columns; c++, scales += a.scale_stride, extras += a.extra_stride)
    {
        vec msum[2] = {_mm256_setzero_si256 (), _mm256_setzero_si256 ()};
        if (has_min (type))
            UNROLL for (int j = 0; j < block_groups (type) / 2; j++)
            {
                vec s = broadcast_4 (extras + 4 * j * apart);
                UNROLL for (int t = 0; t < n_tiles; t++) msum[t] =
                    _mm256_add_epi32 (msum[t], _mm256_madd_epi16 (s, load_256 (f[t]->min[j])));
            }
        float scale;
        memcpy (&scale, scales, 4);
        UNROLL for (int t = 0; t < n_tiles; t++) value[t][c] =
            float_step (type, value[t][c], f[t], scale, acc[t][c], msum[t]);
    }
}

/* -- Few columns: from the packed tile ----------------------------------------------------------------------------- */

/* A block as bytes of all steps, with their offset. */
typedef void (*expand_fn) (uint8_t *out, const uint8_t *packed);

/* How far apart an interleaved column's dwords lie: [step][8 columns]. */
INLINE int spread (const int n_columns)
{
    return n_columns > FEW_COLUMNS ? DIRECT_COLUMNS : 1;
}

/* One group of steps. */
INLINE void direct_group (const int type, const int n_columns, vec acc[2][DIRECT_COLUMNS], const uint8_t *source,
                          const factors *f, int outer, const int inner, columns a)
{
    const int steps = group_steps (type), chain = chain_of (type), g = outer * inner_groups (type) + inner;
    const int dword = 4 * spread (n_columns);
    const uint8_t *starts = has_offset (type) ? a.extras + dword * (g * (steps / chain)) : NULL;
    const vec scale[2] = {block_width (type) == 32 ? _mm256_set1_epi16 (1) : load_256 (f->scale[g])};
    vec s16[2][DIRECT_COLUMNS];
    UNROLL for (int k = 0; k < steps; k++)
    {
        vec w[2] = {fetch (type, source, outer, inner, k)};
        PIN (w[0]);
        chain_step (type, 1, n_columns, s16, w, a.q + (g * steps + k) * dword, a.q_stride, k % chain == 0,
                    starts ? starts + dword * (k / chain) : NULL, a.extra_stride);
        if (k % chain == chain - 1)
            add_chain (1, n_columns, acc, s16, scale);
    }
}

/* One tile, n_blocks blocks, added to out. `expand_block`: of types that are expanded. */
INLINE void direct_kernel (const int type, const int n_columns, float *out, size_t out_stride, const uint8_t *packed,
                           columns a, size_t n_blocks, expand_fn expand_block)
{
    const int inner = inner_groups (type), outer = block_groups (type) / inner, width = block_width (type);
    const size_t part = block_bytes (type) / (size_t) outer; /* prefetched in each round */
    const int apart = spread (n_columns);
    if (apart > 1)
        a.q_stride = a.extra_stride = a.scale_stride = 4; /* known now */
    __m256 value[2][DIRECT_COLUMNS], half_value[2][DIRECT_COLUMNS];
    load_values (1, n_columns, value, out, out_stride);
    for (size_t b = 0; b < n_blocks;
         b++, packed += block_bytes (type), a.q += apart * width, a.extras += apart * (int) extra_bytes (type)) {
        factors own;
        load_factors (type, &own, packed);
        const factors *f[2] = {&own};
        uint8_t bytes[EXPANDED_BYTES];
        if (is_expanded (type))
            expand_block (bytes, packed);
        const uint8_t *source = is_expanded (type) ? bytes : packed;
        vec acc[2][DIRECT_COLUMNS];
        clear (1, n_columns, acc);
        for (int o = 0; o < outer; o++) {
            for (size_t line = 0; line < part; line += 64)
                _mm_prefetch ((const char *) packed + PREFETCH_BYTES + (size_t) o * part + line, _MM_HINT_T0);
            UNROLL for (int i = 0; i < inner; i++)
            {
                direct_group (type, n_columns, acc, source, &own, o, i, a);
                if (width == 32) {
                    half_end (type, 1, n_columns, value, half_value, f, i == 1, a.scales + 4 * i * apart, a.extras, a,
                              acc);
                    clear (1, n_columns, acc);
                }
            }
        }
        if (width == 256)
            block_end (type, 1, n_columns, value, f, apart, a.scales, a.extras, a, acc);
        a.scales += apart * (width == 32 ? 8 : 4);
    }
    store_values (1, n_columns, value, out, out_stride);
}

/* -- Many columns: from an unpacked panel -------------------------------------------------------------------------- */

/* Elements of a panel. */
INLINE size_t slab (const int type)
{
    return PANEL_BYTES / PANEL_TILES / WL_TILE_ROWS / (is_signed (type) ? 2 : 1);
}

typedef struct panel {
    uint8_t bytes[PANEL_BYTES]; /* [step][tile][8 rows][4], or int16 [step][2][tile][8 rows][2] */
    uint8_t factors[PANEL_TILES * 4 * sizeof (factors)]; /* [tile][block] */
    uint8_t
        columns[COLUMN_BLOCK * PANEL_BYTES / PANEL_TILES / WL_TILE_ROWS]; /* [column]: int16 activations, or extras */
} panel;
_Static_assert(sizeof (panel) <= AVX2_MATMUL_SCRATCH, "the panel must fit the scratch that the table asks for");
_Static_assert(sizeof (panel) > PANEL_TILES * 32 * offsetof (factors, scale), "");

typedef struct panel_weights {
    const uint8_t *bytes, *factors;
} panel_weights;

/* A step of int16 weights: the even elements, then the odd ones. q: their two dwords lie 32 bytes apart. */
INLINE void panel_step_16 (const int n_tiles, const int n_columns, vec acc[2][DIRECT_COLUMNS], const uint8_t *w,
                           const uint8_t *q, size_t q_stride)
{
    UNROLL for (int half = 0; half < 2; half++)
    {
        vec v[2];
        UNROLL for (int t = 0; t < n_tiles; t++)
        {
            v[t] = load_256 (w + (half * PANEL_TILES + t) * 32);
            PIN (v[t]);
        }
        UNROLL for (int c = 0; c < n_columns; c++)
        {
            vec x = broadcast_4 (q + c * q_stride + half * 32), product[2];
            PIN (x);
            UNROLL for (int t = 0; t < n_tiles; t++)
            {
                product[t] = _mm256_madd_epi16 (v[t], x);
                PIN (product[t]);
            }
            UNROLL for (int t = 0; t < n_tiles; t++)
            {
                acc[t][c] = _mm256_add_epi32 (acc[t][c], product[t]);
                PIN (acc[t][c]);
            }
        }
    }
}

/* One group of steps: acc += scales * sum. */
INLINE void panel_group (const int type, const int n_tiles, const int n_columns, vec acc[2][DIRECT_COLUMNS],
                         panel_weights w, const factors *const f[2], int g, columns a)
{
    const int steps = group_steps (type), chain = chain_of (type);
    if (is_signed (type)) {
        UNROLL for (int k = 0; k < steps; k++)
            panel_step_16 (n_tiles, n_columns, acc, w.bytes + (g * steps + k) * PANEL_TILES * 64,
                           a.q + (g * steps + k) / 8 * 64 + (g * steps + k) % 8 * 4, a.q_stride);
        return;
    }
    const uint8_t *starts = starts_of (type, a.extras, g);
    vec s16[2][DIRECT_COLUMNS], scales[2];
    UNROLL for (int k = 0; k < steps; k++)
    {
        vec v[2];
        UNROLL for (int t = 0; t < n_tiles; t++)
        {
            v[t] = load_256 (w.bytes + ((g * steps + k) * PANEL_TILES + t) * 32);
            PIN (v[t]);
        }
        chain_step (type, n_tiles, n_columns, s16, v, a.q + (g * steps + k) * 4, a.q_stride, k % chain == 0,
                    starts ? starts + 4 * (k / chain) : NULL, a.extra_stride);
        if (k % chain == chain - 1) {
            UNROLL for (int t = 0; t < n_tiles; t++) scales[t] =
                block_width (type) == 32 ? _mm256_set1_epi16 (1) : load_256 (f[t]->scale[g]);
            add_chain (n_tiles, n_columns, acc, s16, scales);
        }
    }
}

/* n_tiles x n_columns over n_blocks blocks, added to out. */
INLINE void panel_kernel (const int type, const int n_tiles, const int n_columns, float *out, size_t out_stride,
                          panel_weights w, columns a, size_t n_blocks)
{
    const int width = block_width (type), element_bytes = is_signed (type) ? 2 : 1;
    __m256 value[2][DIRECT_COLUMNS], part[2][DIRECT_COLUMNS];
    for (size_t b = 0; b < n_blocks; b++) {
        const factors *f[2];
        UNROLL for (int t = 0; t < n_tiles; t++) f[t] =
            (const factors *) (w.factors + ((size_t) t * (slab (type) / (size_t) width) + b) * factor_bytes (type));
        vec acc[2][DIRECT_COLUMNS];
        clear (n_tiles, n_columns, acc);
        if (width == 256) {
            for (int g = 0; g < block_groups (type); g++)
                panel_group (type, n_tiles, n_columns, acc, w, f, g, a);
            load_values (n_tiles, n_columns, value, out, out_stride);
            block_end (type, n_tiles, n_columns, value, f, 1, a.scales, a.extras, a, acc);
        } else {
            panel_group (type, n_tiles, n_columns, acc, w, f, 0, a);
            half_end (type, n_tiles, n_columns, value, part, f, false, a.scales, a.extras, a, acc);
            clear (n_tiles, n_columns, acc);
            panel_group (type, n_tiles, n_columns, acc, w, f, 1, a);
            load_values (n_tiles, n_columns, value, out, out_stride);
            half_end (type, n_tiles, n_columns, value, part, f, true, a.scales + 4, a.extras, a, acc);
        }
        store_values (n_tiles, n_columns, value, out, out_stride);
        a.scales += width == 32 ? 8 : 4;
        w.bytes += width * 8 * PANEL_TILES * element_bytes;
        a.q += width * element_bytes;
        a.extras += extra_bytes (type);
    }
}

/* -- Unpacking a panel --------------------------------------------------------------------------------------------- */

INLINE void split_to_16 (vec v, vec *even, vec *odd)
{
    *even = _mm256_srai_epi16 (_mm256_slli_epi16 (v, 8), 8);
    *odd = _mm256_srai_epi16 (v, 8);
}

/* n_blocks of one tile, to its place beside the panel's others. */
INLINE void unpack_tile (const int type, uint8_t *bytes, uint8_t *factor, const uint8_t *packed, size_t n_blocks,
                         expand_fn expand_block)
{
    const int steps = group_steps (type), inner = inner_groups (type), outer = block_groups (type) / inner;
    for (size_t b = 0; b < n_blocks; b++, packed += block_bytes (type), factor += factor_bytes (type)) {
        factors *f = (factors *) factor;
        load_factors (type, f, packed);
        uint8_t expanded[EXPANDED_BYTES];
        if (is_expanded (type))
            expand_block (expanded, packed);
        const uint8_t *source = is_expanded (type) ? expanded : packed;
        for (int o = 0; o < outer; o++)
            UNROLL for (int i = 0; i < inner; i++)
            {
                UNROLL for (int k = 0; k < steps; k++)
                {
                    vec v = fetch (type, source, o, i, k), even, odd;
                    if (!is_signed (type)) {
                        store_256 (bytes, v);
                        bytes += PANEL_TILES * 32;
                        continue;
                    }
                    split_to_16 (v, &even, &odd);
                    if (block_width (type) == 256) {
                        vec scale = load_256 (f->scale[o * inner + i]);
                        even = _mm256_mullo_epi16 (even, scale);
                        odd = _mm256_mullo_epi16 (odd, scale);
                    }
                    store_256 (bytes, even);
                    store_256 (bytes + PANEL_TILES * 32, odd);
                    bytes += PANEL_TILES * 64;
                }
            }
    }
}

/* -- Preparing columns --------------------------------------------------------------------------------------------- */

#define shuffle_dwords(a, b, order) \
    _mm256_castps_si256 (_mm256_shuffle_ps (_mm256_castsi256_ps (a), _mm256_castsi256_ps (b), order))

/* Sums of the even and of the odd pairs of 8 groups of 16 bytes, as int16 dwords in order. */
INLINE vec pair_sums_128 (const int8_t *q)
{
    vec v[4];
    UNROLL for (int i = 0; i < 4; i++) v[i] = _mm256_maddubs_epi16 (_mm256_set1_epi8 (1), load_256 (q + 32 * i));
    vec a = _mm256_add_epi16 (_mm256_unpacklo_epi32 (v[0], v[1]), _mm256_unpackhi_epi32 (v[0], v[1]));
    vec b = _mm256_add_epi16 (_mm256_unpacklo_epi32 (v[2], v[3]), _mm256_unpackhi_epi32 (v[2], v[3]));
    vec sums = _mm256_add_epi16 (_mm256_unpacklo_epi64 (a, b), _mm256_unpackhi_epi64 (a, b));
    return _mm256_permutevar8x32_epi32 (sums, _mm256_setr_epi32 (0, 4, 1, 5, 2, 6, 3, 7));
}

/* Those of 8 groups of 8 bytes. */
INLINE vec pair_sums_64 (const int8_t *q)
{
    vec a = _mm256_maddubs_epi16 (_mm256_set1_epi8 (1), load_256 (q)),
        b = _mm256_maddubs_epi16 (_mm256_set1_epi8 (1), load_256 (q + 32));
    vec sums = _mm256_add_epi16 (shuffle_dwords (a, b, 0x88), shuffle_dwords (a, b, 0xdd));
    return _mm256_permute4x64_epi64 (sums, 0xd8);
}

/* The same of the two groups of a block of 32, as the low two dwords. */
INLINE __m128i pair_sums_32 (const int8_t *q)
{
    vec v = _mm256_maddubs_epi16 (_mm256_set1_epi8 (1), load_256 (q));
    v = _mm256_add_epi16 (v, _mm256_shuffle_epi32 (v, 0x4e));
    v = _mm256_add_epi16 (v, _mm256_shuffle_epi32 (v, 0xb1));
    return _mm_unpacklo_epi32 (_mm256_castsi256_si128 (v), _mm256_extracti128_si256 (v, 1));
}

/* A column's activations as int16, for panel_step_16. */
static void widen_column (uint8_t *out, const int8_t *q, size_t n)
{
    for (size_t i = 0; i < n; i += 32) {
        vec even, odd;
        split_to_16 (load_256 (q + i), &even, &odd);
        store_256 (out + 2 * i, even);
        store_256 (out + 2 * i + 32, odd);
    }
}

/* The extras of one column's n_blocks blocks. */
INLINE void prepare_column (const int type, uint8_t *out, const int8_t *q, const int16_t *sums, size_t n_blocks)
{
    const size_t n = n_blocks * (size_t) block_width (type);
    if (has_offset (type) && block_width (type) == 256) {
        const size_t step = signed_chain_steps (type) == 4 ? 128 : 64;
        for (size_t i = 0; i < n; i += step, out += 32) {
            vec s = step == 128 ? pair_sums_128 (q + i) : pair_sums_64 (q + i);
            store_256 (out, _mm256_sub_epi16 (_mm256_setzero_si256 (), _mm256_slli_epi16 (s, offset_shift (type))));
        }
    } else if (has_offset (type))
        for (size_t i = 0; i < n; i += 32, out += 8) {
            __m128i s = _mm_slli_epi16 (pair_sums_32 (q + i), offset_shift (type));
            _mm_storel_epi64 ((__m128i *) out, _mm_sub_epi16 (_mm_setzero_si128 (), s));
        }
    else if (type == Q4_K || type == Q5_K)
        for (size_t b = 0; b < n_blocks; b++, out += 16) {
            vec s = _mm256_madd_epi16 (load_256 (sums + 16 * b), _mm256_set1_epi16 (1));
            s = _mm256_permute4x64_epi64 (_mm256_packs_epi32 (s, s), 0x08);
            _mm_storeu_si128 ((__m128i *) out, _mm256_castsi256_si128 (s));
        }
}

/* -- Interleaving columns ------------------------------------------------------------------------------------------ */

INLINE void transpose_8x8 (vec v[8])
{
    vec a[8], b[8];
    UNROLL for (int i = 0; i < 8; i += 2)
    {
        a[i] = _mm256_unpacklo_epi32 (v[i], v[i + 1]);
        a[i + 1] = _mm256_unpackhi_epi32 (v[i], v[i + 1]);
    }
    UNROLL for (int i = 0; i < 8; i += 4)
    {
        UNROLL for (int j = 0; j < 2; j++)
        {
            b[i + 2 * j] = _mm256_unpacklo_epi64 (a[i + j], a[i + j + 2]);
            b[i + 2 * j + 1] = _mm256_unpackhi_epi64 (a[i + j], a[i + j + 2]);
        }
    }
    UNROLL for (int i = 0; i < 4; i++)
    {
        v[i] = _mm256_permute2x128_si256 (b[i], b[i + 4], 0x20);
        v[i + 4] = _mm256_permute2x128_si256 (b[i], b[i + 4], 0x31);
    }
}

/* What kernels of a few columns are given: their extras in rows, and all that is interleaved, per group. Bytes an
 * element: 1, at most 1/2 of extras, at most 1/4 of scales. */
typedef struct direct_scratch {
    uint8_t rows[DIRECT_COLUMNS * DIRECT_SLAB / 2];
    uint8_t groups[DIRECT_AT_MOST / DIRECT_COLUMNS][DIRECT_COLUMNS * DIRECT_SLAB * 7 / 4];
} direct_scratch;
_Static_assert(sizeof (direct_scratch) <= AVX2_MATMUL_SCRATCH, "");
_Static_assert(FEW_COLUMNS *FEW_SLAB / 2 <= AVX2_MATMUL_SCRATCH, "");

/* -- Whole matrices ------------------------------------------------------------------------------------------------ */

/* A type's instances of the above, each a function of its own so that it has all registers. */
typedef struct kernel_set {
    size_t width, scale_width, block_bytes, factor_bytes, slab;
    size_t prepared_bytes; /* extras to be prepared for a block of a column */
    size_t extra_step;     /* extra_bytes */
    bool totals;           /* extras are the activations' totals */
    bool wide;             /* a panel's activations are int16 */
    void (*direct[DIRECT_COLUMNS + 1]) (float *, size_t, const uint8_t *, columns, size_t); /* by columns */
    void (*panel[PANEL_TILES + 1][PANEL_COLUMNS + 1]) (float *, size_t, panel_weights, columns, size_t); /* by tiles,
                                                                                                            columns */
    void (*unpack) (uint8_t *, uint8_t *, const uint8_t *, size_t);
    void (*prepare) (uint8_t *, const int8_t *, const int16_t *, size_t);
} kernel_set;

/* Columns [first, first + n_columns) of `a` from element k on, n_blocks blocks; what they want beside is put in `memory`. */
static columns prepared (const kernel_set *set, const wl_activations *a, size_t first, size_t n_columns, size_t k,
                         size_t n_blocks, const bool wide, uint8_t *memory)
{
    columns at = {
        .q = (const uint8_t *) a->q + first * a->q_stride + k,
        .q_stride = a->q_stride,
        .extras = (const uint8_t *) (a->sums + first * a->sum_stride + k / 16), /* Q2_K's */
        .extra_stride = a->sum_stride * sizeof (int16_t),
        .scales = (const uint8_t *) (a->scales + first * a->scale_stride + k / set->scale_width),
        .scale_stride = a->scale_stride * sizeof (float),
    };
    if (set->totals) {
        at.extras = (const uint8_t *) (a->totals + first * a->total_stride + k / 32);
        at.extra_stride = a->total_stride * sizeof (float);
    }
    const size_t bytes = n_blocks * (wide ? 2 * set->width : set->prepared_bytes);
    if (bytes == 0)
        return at;
    for (size_t c = 0; c < n_columns; c++) {
        const int8_t *q = a->q + (first + c) * a->q_stride + k;
        if (wide)
            widen_column (memory + c * bytes, q, n_blocks * set->width);
        else
            set->prepare (memory + c * bytes, q, a->sums + (first + c) * a->sum_stride + k / 16, n_blocks);
    }
    *(wide ? &at.q : &at.extras) = memory;
    *(wide ? &at.q_stride : &at.extra_stride) = bytes;
    return at;
}

/* dwords[c][i], strides in bytes, as [i][8 columns]. */
static void interleave (uint8_t *out, const uint8_t *rows, size_t stride, size_t n_columns, size_t n_dwords)
{
    size_t i = 0;
    for (; i + 8 <= n_dwords; i += 8) {
        vec v[8];
        for (size_t c = 0; c < 8; c++)
            v[c] = load_256 (rows + (c < n_columns ? c : 0) * stride + 4 * i);
        transpose_8x8 (v);
        for (size_t j = 0; j < 8; j++)
            store_256 (out + (i + j) * 32, v[j]);
    }
    for (; i < n_dwords; i++)
        for (size_t c = 0; c < n_columns; c++)
            memcpy (out + (8 * i + c) * 4, rows + c * stride + 4 * i, 4);
}

/* The columns `at` interleaved, n_blocks blocks. */
static columns interleaved (const kernel_set *set, columns at, size_t n_columns, size_t n_blocks, uint8_t *memory)
{
    const size_t dwords = n_blocks * set->width / 4, extras = n_blocks * set->extra_step / 4,
                 scales = n_blocks * set->width / set->scale_width;
    columns to = {.q = memory, .extras = memory + 32 * dwords, .scales = memory + 32 * (dwords + extras)};
    interleave (memory, at.q, at.q_stride, n_columns, dwords);
    interleave (memory + 32 * dwords, at.extras, at.extra_stride, n_columns, extras);
    interleave (memory + 32 * (dwords + extras), at.scales, at.scale_stride, n_columns, scales);
    return to;
}

/* Up to FEW_COLUMNS columns. */
static void matmul_few (const kernel_set *set, float *out, size_t out_stride, const uint8_t *tiles, size_t n_tiles,
                        const wl_activations *a, uint8_t *scratch)
{
    const size_t tile_bytes = a->n / set->width * set->block_bytes;
    for (size_t k = 0; k < a->n; k += FEW_SLAB) {
        const size_t n_blocks = (a->n - k < FEW_SLAB ? a->n - k : FEW_SLAB) / set->width;
        const columns at = prepared (set, a, 0, a->n_rows, k, n_blocks, false, scratch);
        const uint8_t *tile = tiles + k / set->width * set->block_bytes;
        for (size_t t = 0; t < n_tiles; t++, tile += tile_bytes)
            set->direct[a->n_rows](out + 8 * t, out_stride, tile, at, n_blocks);
    }
}

/* More, in equal groups of up to 8; a tile's part is read from memory for the first of them. */
static void matmul_groups (const kernel_set *set, float *out, size_t out_stride, const uint8_t *tiles, size_t n_tiles,
                           const wl_activations *a, direct_scratch *scratch)
{
    const size_t tile_bytes = a->n / set->width * set->block_bytes;
    const size_t n_groups = (a->n_rows + DIRECT_COLUMNS - 1) / DIRECT_COLUMNS;
    for (size_t k = 0; k < a->n; k += DIRECT_SLAB) {
        const size_t n_blocks = (a->n - k < DIRECT_SLAB ? a->n - k : DIRECT_SLAB) / set->width;
        columns at[DIRECT_AT_MOST / DIRECT_COLUMNS];
        size_t first[DIRECT_AT_MOST / DIRECT_COLUMNS + 1];
        for (size_t g = 0; g <= n_groups; g++)
            first[g] = a->n_rows * g / n_groups;
        for (size_t g = 0; g < n_groups; g++) {
            const size_t n = first[g + 1] - first[g];
            at[g] = prepared (set, a, first[g], n, k, n_blocks, false, scratch->rows);
            at[g] = interleaved (set, at[g], n, n_blocks, scratch->groups[g]);
        }
        const uint8_t *tile = tiles + k / set->width * set->block_bytes;
        for (size_t t = 0; t < n_tiles; t++, tile += tile_bytes)
            for (size_t g = 0; g < n_groups; g++)
                set->direct[first[g + 1] - first[g]](out + first[g] * out_stride + 8 * t, out_stride, tile, at[g],
                                                     n_blocks);
    }
}

/* Columns [first, first + n_columns) of elements [k, k + n_blocks * width) against all tiles. */
static void multiply_slab (const kernel_set *set, float *out, size_t out_stride, const uint8_t *tiles, size_t n_tiles,
                           const wl_activations *a, size_t first, size_t n_columns, size_t k, size_t n_blocks, panel *p)
{
    const size_t tile_bytes = a->n / set->width * set->block_bytes;
    const columns at = prepared (set, a, first, n_columns, k, n_blocks, set->wide, p->columns);
    const panel_weights w = {p->bytes, p->factors};
    tiles += k / set->width * set->block_bytes;
    for (size_t t = 0; t < n_tiles; t += PANEL_TILES) {
        const size_t n = n_tiles - t < PANEL_TILES ? n_tiles - t : PANEL_TILES;
        for (size_t i = 0; i < n; i++)
            set->unpack (p->bytes + i * 32, p->factors + i * (set->slab / set->width) * set->factor_bytes,
                         tiles + (t + i) * tile_bytes, n_blocks);
        columns some = at;
        for (size_t c = 0; c < n_columns;) {
            const size_t m = n_columns - c < PANEL_COLUMNS ? n_columns - c : PANEL_COLUMNS;
            set->panel[n][m](out + (first + c) * out_stride + 8 * t, out_stride, w, some, n_blocks);
            some.q += m * some.q_stride;
            some.extras += m * some.extra_stride;
            some.scales += m * some.scale_stride;
            c += m;
        }
    }
}

static void matmul (const kernel_set *set, float *out, size_t out_stride, const void *tiles, size_t n_tiles,
                    const wl_activations *a, void *scratch)
{
    for (size_t c = 0; c < a->n_rows; c++)
        memset (out + c * out_stride, 0, n_tiles * WL_TILE_ROWS * sizeof (float));
    if (a->n_rows <= DIRECT_AT_MOST) {
        if (a->n_rows > FEW_COLUMNS)
            matmul_groups (set, out, out_stride, tiles, n_tiles, a, scratch);
        else if (a->n_rows)
            matmul_few (set, out, out_stride, tiles, n_tiles, a, scratch);
        return;
    }
    for (size_t c = 0; c < a->n_rows; c += COLUMN_BLOCK)
        for (size_t k = 0; k < a->n; k += set->slab) {
            const size_t n_columns = a->n_rows - c < COLUMN_BLOCK ? a->n_rows - c : COLUMN_BLOCK;
            const size_t n = a->n - k < set->slab ? a->n - k : set->slab;
            multiply_slab (set, out, out_stride, tiles, n_tiles, a, c, n_columns, k, n / set->width, scratch);
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

#define DEFINE_PANEL(TYPE, name, n_tiles, n_columns)                                \
    static __attribute__ ((noinline)) void name##_panel_##n_tiles##_##n_columns (   \
        float *out, size_t out_stride, panel_weights w, columns a, size_t n_blocks) \
    {                                                                               \
        panel_kernel (TYPE, n_tiles, n_columns, out, out_stride, w, a, n_blocks);   \
    }

#define DEFINE_MATMUL(TYPE, name, expand_block)                                                                   \
    DEFINE_DIRECT (TYPE, name, expand_block, 1)                                                                   \
    DEFINE_DIRECT (TYPE, name, expand_block, 2)                                                                   \
    DEFINE_DIRECT (TYPE, name, expand_block, 3)                                                                   \
    DEFINE_DIRECT (TYPE, name, expand_block, 4)                                                                   \
    DEFINE_DIRECT (TYPE, name, expand_block, 5)                                                                   \
    DEFINE_DIRECT (TYPE, name, expand_block, 6)                                                                   \
    DEFINE_DIRECT (TYPE, name, expand_block, 7)                                                                   \
    DEFINE_DIRECT (TYPE, name, expand_block, 8)                                                                   \
    DEFINE_PANEL (TYPE, name, 1, 1)                                                                               \
    DEFINE_PANEL (TYPE, name, 1, 2)                                                                               \
    DEFINE_PANEL (TYPE, name, 1, 3)                                                                               \
    DEFINE_PANEL (TYPE, name, 2, 1)                                                                               \
    DEFINE_PANEL (TYPE, name, 2, 2)                                                                               \
    DEFINE_PANEL (TYPE, name, 2, 3)                                                                               \
    static void name##_unpack (uint8_t *bytes, uint8_t *f, const uint8_t *packed, size_t n_blocks)                \
    {                                                                                                             \
        unpack_tile (TYPE, bytes, f, packed, n_blocks, expand_block);                                             \
    }                                                                                                             \
    static void name##_prepare (uint8_t *to, const int8_t *q, const int16_t *sums, size_t n_blocks)               \
    {                                                                                                             \
        prepare_column (TYPE, to, q, sums, n_blocks);                                                             \
    }                                                                                                             \
    void avx2_matmul_##name (float *out, size_t out_stride, const void *tiles, size_t n_tiles,                    \
                             const wl_activations *a, void *scratch)                                              \
    {                                                                                                             \
        const size_t width = (size_t) block_width (TYPE);                                                         \
        const kernel_set set = {                                                                                  \
            .width = width,                                                                                       \
            .scale_width = width == 256 ? 256 : 16,                                                               \
            .block_bytes = block_bytes (TYPE),                                                                    \
            .factor_bytes = factor_bytes (TYPE),                                                                  \
            .slab = slab (TYPE),                                                                                  \
            .prepared_bytes = 4 * n_extras (TYPE),                                                                \
            .extra_step = extra_bytes (TYPE),                                                                     \
            .totals = takes_totals (TYPE),                                                                        \
            .wide = is_signed (TYPE),                                                                             \
            .direct = {NULL, name##_direct_1, name##_direct_2, name##_direct_3, name##_direct_4, name##_direct_5, \
                       name##_direct_6, name##_direct_7, name##_direct_8},                                        \
            .panel = {{NULL},                                                                                     \
                      {NULL, name##_panel_1_1, name##_panel_1_2, name##_panel_1_3},                               \
                      {NULL, name##_panel_2_1, name##_panel_2_2, name##_panel_2_3}},                              \
            .unpack = name##_unpack,                                                                              \
            .prepare = name##_prepare,                                                                            \
        };                                                                                                        \
        matmul (&set, out, out_stride, tiles, n_tiles, a, scratch);                                               \
    }

#include "simd8_matmul_list.h"

#endif
