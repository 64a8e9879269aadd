/* Quantized matmul with AMX; included by avx512_table.h alone.
 *
 * A tile register holds 16 rows of 64 bytes. tdpbssd and tdpbsud take 64 elements of 16 columns (activations, signed)
 * and of 16 rows (weights, signed or unsigned) and add all 16 x 16 products of them to int32 sums, at once. A panel of
 * the AVX-512 matmul has weights in the order that they want: 16 steps of two tiles are a register. So unpacking and
 * the loops around it are those of avx512_matmul.h, and so is the float step of each block. Less than 16 columns are
 * left to it altogether.
 *
 * A step through scales would cost more than these multiplications. So blocks of 256 have them multiplied in: scale *
 * weight fits an int16, whose bytes are multiplied apart, 256 * upper + lower; a block is one pair of sums. (Where
 * is_folded (), it fits a byte.) In the formats of 32 the activations' scales change every 16 elements: a quarter of a
 * register is used.
 *
 * While a block's sums become floats, the registers multiply the next block.
 *
 * (Tile register here; in the other kernels a tile is 8 rows of packed weights.) */
#ifndef WL_ENGINE_KERNELS_AMX_MATMUL_H
#define WL_ENGINE_KERNELS_AMX_MATMUL_H

#include "avx512_matmul.h"

/* The instructions, written out: no compiler needs to be told of AMX, and all know what memory they read. tests/kernels
 * put others in their place. Register numbers are literal. `stride`: bytes from row to row. */
#if !defined(AMX_LOAD)
#define AMX_TEXT(x) #x
#define AMX_CONFIGURE(config) __asm__ volatile("ldtilecfg (%0)" : : "r"(config) : "memory")
#define AMX_RELEASE() __asm__ volatile("tilerelease" : : : "memory")
#define AMX_ZERO(t) __asm__ volatile("tilezero %%tmm" AMX_TEXT (t) : :)
#define AMX_LOAD(t, from, stride) \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" AMX_TEXT (t) : : "r"(from), "r"((size_t) (stride)) : "memory")
#define AMX_STORE(t, to, stride) \
    __asm__ volatile("tilestored %%tmm" AMX_TEXT (t) ", (%0,%1,1)" : : "r"(to), "r"((size_t) (stride)) : "memory")
/* sum += columns * weights */
#define AMX_MULTIPLY_SIGNED(sum, columns, weights) \
    __asm__ volatile("tdpbssd %%tmm" AMX_TEXT (weights) ", %%tmm" AMX_TEXT (columns) ", %%tmm" AMX_TEXT (sum) : :)
#define AMX_MULTIPLY_UNSIGNED(sum, columns, weights) \
    __asm__ volatile("tdpbsud %%tmm" AMX_TEXT (weights) ", %%tmm" AMX_TEXT (columns) ", %%tmm" AMX_TEXT (sum) : :)
#endif

enum {
    AMX_COLUMNS = 16,
    AMX_STEPS = 16, /* of 4 elements */
    STEP_BYTES = PANEL_TILES * 32,
};

/* The shapes of the registers: 0 to 3 are sums, 4 columns, 5 and 6 weights. */
typedef struct amx_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} amx_config;
_Static_assert(sizeof (amx_config) == 64, "as ldtilecfg reads it");

static const amx_config amx_256 = {
    .palette = 1, .row_bytes = {64, 64, 64, 64, 64, 64, 64}, .rows = {16, 16, 16, 16, 16, 16, 16}};
static const amx_config amx_32 = {.palette = 1, .row_bytes = {64, 64, 64, 64, 16, 64}, .rows = {16, 16, 16, 16, 16, 4}};

/* Sums of a block: [vector][lower and upper bytes, or halves of 32 elements][column][row] */
typedef int32_t amx_sums[PANEL_VECTORS][2][AMX_COLUMNS][16] __attribute__ ((aligned (64)));

typedef struct amx_panel {
    panel panel;
    uint8_t upper[PANEL_BYTES]; /* upper bytes of what panel.bytes has the lower ones of */
} amx_panel;
enum { AMX_UPPER = offsetof (amx_panel, upper) };

INLINE bool has_upper (const int type)
{
    return block_width (type) == 256 && !is_folded (type);
}

INLINE vec add_upper (vec lower, vec upper)
{
    return _mm512_add_epi32 (lower, _mm512_slli_epi32 (upper, 8));
}

/* The start of a block's multiplications; their sums stand in registers 2 * vector + part. */
INLINE void amx_multiply (const int type, const int n_vectors, const uint8_t *bytes, const uint8_t *q, size_t q_stride)
{
    AMX_ZERO (0);
    AMX_ZERO (1);
    AMX_ZERO (2);
    AMX_ZERO (3);
    if (block_width (type) == 32) {
        AMX_LOAD (4, q, q_stride);
        AMX_LOAD (5, bytes, STEP_BYTES);
        AMX_MULTIPLY_SIGNED (0, 4, 5);
        if (n_vectors == 2) {
            AMX_LOAD (5, bytes + 64, STEP_BYTES);
            AMX_MULTIPLY_SIGNED (2, 4, 5);
        }
        AMX_LOAD (4, q + 16, q_stride);
        AMX_LOAD (5, bytes + 4 * STEP_BYTES, STEP_BYTES);
        AMX_MULTIPLY_SIGNED (1, 4, 5);
        if (n_vectors == 2) {
            AMX_LOAD (5, bytes + 4 * STEP_BYTES + 64, STEP_BYTES);
            AMX_MULTIPLY_SIGNED (3, 4, 5);
        }
        return;
    }
    for (int i = 0; i < 64 / AMX_STEPS; i++, q += 4 * AMX_STEPS, bytes += AMX_STEPS * STEP_BYTES) {
        AMX_LOAD (4, q, q_stride);
        AMX_LOAD (5, bytes, STEP_BYTES);
        AMX_MULTIPLY_UNSIGNED (0, 4, 5);
        if (has_upper (type)) {
            AMX_LOAD (6, bytes + AMX_UPPER, STEP_BYTES);
            AMX_MULTIPLY_SIGNED (1, 4, 6);
        }
        if (n_vectors == 2) {
            AMX_LOAD (5, bytes + 64, STEP_BYTES);
            AMX_MULTIPLY_UNSIGNED (2, 4, 5);
            if (has_upper (type)) {
                AMX_LOAD (6, bytes + AMX_UPPER + 64, STEP_BYTES);
                AMX_MULTIPLY_SIGNED (3, 4, 6);
            }
        }
    }
}

INLINE void amx_store (const int type, const int n_vectors, amx_sums sums)
{
    const bool both = block_width (type) == 32 || has_upper (type);
    AMX_STORE (0, sums[0][0], 64);
    if (both)
        AMX_STORE (1, sums[0][1], 64);
    if (n_vectors == 2) {
        AMX_STORE (2, sums[1][0], 64);
        if (both)
            AMX_STORE (3, sums[1][1], 64);
    }
}

/* The float steps of a block for n_columns from column `c` of the sums on; `out` and `a` are at that column. */
INLINE void amx_end (const int type, const int n_vectors, const int n_columns, float *out, size_t out_stride,
                     const factors *const f[PANEL_VECTORS], columns a, const amx_sums sums, size_t c, __mmask16 lanes,
                     __mmask16 old)
{
    const bool halves = block_width (type) == 32;
    values_of value, part;
    UNROLL for (int g = 0; g < 1 + halves; g++)
    {
        sums_of sum;
        if (is_folded (type))
            panel_start (type, n_vectors, n_columns, sum, a, 0);
        UNROLL for (int v = 0; v < n_vectors; v++)
        {
            UNROLL for (int i = 0; i < n_columns; i++)
            {
                const vec first = load_vec (sums[v][g][c + (size_t) i]);
                sum[v][i] = is_folded (type)   ? _mm512_add_epi32 (sum[v][i], first)
                            : has_upper (type) ? add_upper (first, load_vec (sums[v][1][c + (size_t) i]))
                                               : first;
            }
        }
        if (g == halves)
            load_values (n_vectors, n_columns, value, out, out_stride, old);
        if (halves)
            end_half (type, n_vectors, n_columns, value, part, f, g, a, sum);
        else
            end_block (type, false, n_vectors, n_columns, value, f, a, sum);
    }
    store_values (n_vectors, n_columns, value, out, out_stride, lanes);
}

/* n_vectors x 16 columns over n_blocks blocks, of which columns from `first` on are added to what the lanes of `old`
 * hold in out. */
INLINE void amx_kernel (const int type, const int n_vectors, float *out, size_t out_stride, panel_weights w, columns a,
                        size_t first, size_t n_blocks, __mmask16 lanes, __mmask16 old)
{
    enum { AT_ONCE = 4 };
    const int width = block_width (type);
    amx_sums sums;
    amx_multiply (type, n_vectors, w.bytes, a.q, a.q_stride);
    for (size_t b = 0; b < n_blocks; b++, old = lanes) {
        amx_store (type, n_vectors, sums);
        w.bytes += width / 4 * STEP_BYTES;
        a.q += width;
        if (b + 1 < n_blocks)
            amx_multiply (type, n_vectors, w.bytes, a.q, a.q_stride);
        const factors *f[PANEL_VECTORS];
        UNROLL for (int v = 0; v < n_vectors; v++) f[v] =
            (const factors *) (w.factors + ((size_t) (v * SLAB / width) + b) * factor_bytes (type));
        size_t c = first;
        for (; c + AT_ONCE <= AMX_COLUMNS; c += AT_ONCE)
            amx_end (type, n_vectors, AT_ONCE, out + c * out_stride, out_stride, f, skip_columns (a, c), sums, c, lanes,
                     old);
        for (; c < AMX_COLUMNS; c++)
            amx_end (type, n_vectors, 1, out + c * out_stride, out_stride, f, skip_columns (a, c), sums, c, lanes, old);
        a.scales += width == 32 ? 8 : 4;
        a.extras += type == Q2_K ? 32 : takes_totals (type) ? 4 : 4 * n_extras (type);
    }
}

/* multiply_panel () of 16 columns or more. The last run begins early where they are no multiple of 16, and gives only
 * the columns that are left: no register's shape changes. */
INLINE void amx_panel_kernels (const int type, const int n_vectors, float *out, size_t out_stride, const panel *p,
                               columns at, size_t n_columns, size_t n_blocks, __mmask16 lanes, __mmask16 old,
                               upcoming *next)
{
    const panel_weights w = {p->bytes, (const uint8_t *) p->factors};
    const size_t n_runs = (n_columns + AMX_COLUMNS - 1) / AMX_COLUMNS;
    next->each = (next->left + n_runs - 1) / n_runs;
    for (size_t run = 0; run < n_runs; run++) {
        const size_t from = run * AMX_COLUMNS, start = from + AMX_COLUMNS <= n_columns ? from : n_columns - AMX_COLUMNS;
        prefetch_share (next);
        amx_kernel (type, n_vectors, out + start * out_stride, out_stride, w, skip_columns (at, start), from - start,
                    n_blocks, lanes, old);
    }
}

/* Registers have their shapes, and the thread the state that holds them, from here to the end only. */
static void amx_matmul (const kernel_set *set, float *out, size_t out_stride, const void *tiles, size_t n_tiles,
                        const wl_activations *a, void *scratch)
{
    AMX_CONFIGURE (set->width == 32 ? &amx_32 : &amx_256);
    matmul_slabs (set, out, out_stride, tiles, n_tiles, a, scratch);
    AMX_RELEASE ();
}

#define DEFINE_AMX_PANEL(TYPE, name, n_vectors)                                                                    \
    static __attribute__ ((noinline)) void name##_amx_##n_vectors (float *out, size_t out_stride, const panel *p,  \
                                                                   columns at, size_t n_columns, size_t n_blocks,  \
                                                                   __mmask16 lanes, __mmask16 old, upcoming *next) \
    {                                                                                                              \
        amx_panel_kernels (TYPE, n_vectors, out, out_stride, p, at, n_columns, n_blocks, lanes, old, next);        \
    }

#undef DEFINE_EXPAND
#define DEFINE_EXPAND(TYPE, name)
#undef DEFINE_MATMUL
#define DEFINE_MATMUL(TYPE, name, expand_block)                                                                  \
    DEFINE_AMX_PANEL (TYPE, name, 1)                                                                             \
    DEFINE_AMX_PANEL (TYPE, name, 2)                                                                             \
    static void name##_amx (const kernel_set *set, int n_vectors, float *out, size_t out_stride, const panel *p, \
                            columns at, size_t n_columns, size_t n_blocks, __mmask16 lanes, __mmask16 old,       \
                            upcoming *next)                                                                      \
    {                                                                                                            \
        (void) set;                                                                                              \
        (n_vectors == 2 ? name##_amx_2 : name##_amx_1) (out, out_stride, p, at, n_columns, n_blocks, lanes, old, \
                                                        next);                                                   \
    }                                                                                                            \
    static __attribute__ ((noinline)) void name##_amx_unpack (uint8_t *bytes, uint8_t *factor, pair packed,      \
                                                              size_t n_blocks)                                   \
    {                                                                                                            \
        unpack_pair (TYPE, AMX_UPPER, bytes, factor, packed, n_blocks, expand_block);                            \
    }                                                                                                            \
    static void amx_matmul_##name (float *out, size_t out_stride, const void *tiles, size_t n_tiles,             \
                                   const wl_activations *a, void *scratch)                                       \
    {                                                                                                            \
        if (a->n_rows < AMX_COLUMNS) {                                                                           \
            avx512_matmul_##name (out, out_stride, tiles, n_tiles, a, scratch);                                  \
            return;                                                                                              \
        }                                                                                                        \
        const size_t width = (size_t) block_width (TYPE);                                                        \
        const bool prepared = is_folded (TYPE) || has_min (TYPE); /* other weights have no offset left */        \
        const kernel_set set = {                                                                                 \
            .width = width,                                                                                      \
            .scale_width = width == 256 ? 256 : 16,                                                              \
            .block_bytes = block_bytes (TYPE),                                                                   \
            .factor_bytes = factor_bytes (TYPE),                                                                 \
            .column_bytes = prepared ? 4 * n_extras (TYPE) * SLAB / width : 0,                                   \
            .totals = takes_totals (TYPE),                                                                       \
            .unpack = name##_amx_unpack,                                                                         \
            .prepare = name##_prepare,                                                                           \
            .multiply = name##_amx,                                                                              \
        };                                                                                                       \
        amx_matmul (&set, out, out_stride, tiles, n_tiles, a, scratch);                                          \
    }

#include "simd8_matmul_list.h"

#endif
