/* Quantized matmul with NEON. Included by neon.c, where the products are SDOT's (ARMv8.2 dotprod), and by neon_i8mm.c,
 * where they are SMMLA's (ARMv8.6 i8mm).
 *
 * Weights become int8 with their offset taken out. SDOT multiplies 4 elements (a step) of 4 rows with one column's,
 * taken from a lane of a register that holds 4 steps of it: 16 multiply-adds. SMMLA multiplies 8 elements of 2 rows
 * with those of 2 columns: 32. Both add into int32; a group's sum is multiplied with the rows' scales (in the formats of
 * 32, as a float with the column's), and once a block there is a float step.
 *
 * Up to DIRECT_COLUMNS columns the tile is read as it is, with SDOT. For more, a slab of it is unpacked to a panel in
 * L1 and reused for all columns, 8 rows x 6 columns at a time: 12 sums of either kind, which is what it takes to hide
 * their latency. */
#ifndef WL_ENGINE_KERNELS_NEON_MATMUL_H
#define WL_ENGINE_KERNELS_NEON_MATMUL_H

#include "kernels.h"
#include "simd8_expand.h"
#include "simd8_tiles.h"

#if defined(__ARM_FEATURE_MATMUL_INT8)
#define USES_I8MM 1
#else
#define USES_I8MM 0
#endif

enum {
    DIRECT_COLUMNS = 4,
    PANEL_COLUMNS = 6,
    SLAB = 1024,       /* elements of a panel: 8 KiB */
    COLUMN_BLOCK = 96, /* columns prepared at a time; even */
};

typedef int32x4x2_t i8; /* 8 rows */

/* -- A block's factors --------------------------------------------------------------------------------------------- */

typedef struct factors {
    float d[8], m[8];     /* m: the format's m, or dmin */
    int32_t scale[16][8]; /* [group][row]; formats of 32 have none: theirs end here */
    int16_t min[16][8];
} factors;

INLINE size_t factor_bytes (const int type)
{
    return block_width (type) == 32 ? offsetof (factors, scale) : sizeof (factors);
}

INLINE void store_scale (factors *f, int group, int8x8_t scale)
{
    int16x8_t s = vmovl_s8 (scale);
    vst1q_s32 (f->scale[group], vmovl_s16 (vget_low_s16 (s)));
    vst1q_s32 (f->scale[group] + 4, vmovl_s16 (vget_high_s16 (s)));
}

INLINE void store_min (factors *f, int group, uint8x8_t min)
{
    vst1q_s16 (f->min[group], vreinterpretq_s16_u16 (vmovl_u8 (min)));
}

/* (v >> right) & mask; right < 0 shifts left. */
INLINE uint8x8_t masked_8 (uint8x8_t v, int right, int mask)
{
    return vand_u8 (vshl_u8 (v, vdup_n_s8 ((int8_t) -right)), vdup_n_u8 ((uint8_t) mask));
}

INLINE int8x8_t less_32 (uint8x8_t v)
{
    return vsub_s8 (vreinterpret_s8_u8 (v), vdup_n_s8 (32));
}

/* Group j's scale (and minimum) of 8 rows; s: where the tile's scales stand, [byte][row]. See formats.h. */
INLINE void load_group_factors (const int type, factors *f, const uint8_t *s, const int j)
{
    switch (type) {
    case Q2_K:
        store_scale (f, j, vreinterpret_s8_u8 (masked_8 (vld1_u8 (s + 8 * j), 0, 15)));
        store_min (f, j, masked_8 (vld1_u8 (s + 8 * j), 4, 15));
        return;
    case Q3_K: {
        uint8x8_t low = masked_8 (vld1_u8 (s + 8 * (j % 8)), j / 8 * 4, 15),
                  high = masked_8 (vld1_u8 (s + 8 * (8 + j % 4)), j / 4 * 2 - 4, 0x30);
        store_scale (f, j, less_32 (vorr_u8 (low, high)));
        return;
    }
    case Q4_K:
    case Q5_K:
        if (j < 4) {
            store_scale (f, j, vreinterpret_s8_u8 (masked_8 (vld1_u8 (s + 8 * j), 0, 63)));
            store_min (f, j, masked_8 (vld1_u8 (s + 8 * (4 + j)), 0, 63));
        } else {
            uint8x8_t low = vld1_u8 (s + 8 * (4 + j)), a = vld1_u8 (s + 8 * (j - 4)), b = vld1_u8 (s + 8 * j);
            store_scale (f, j, vreinterpret_s8_u8 (vorr_u8 (masked_8 (low, 0, 15), masked_8 (a, 2, 0x30))));
            store_min (f, j, vorr_u8 (masked_8 (low, 4, 15), masked_8 (b, 2, 0x30)));
        }
        return;
    case Q6_K:
        store_scale (f, j, vld1_s8 ((const int8_t *) s + 8 * j));
        return;
    default: { /* IQ4_XS */
        uint8x8_t low = masked_8 (vld1_u8 (s + 16 + 8 * (j / 2)), j % 2 * 4, 15),
                  high = masked_8 (vld1_u8 (s + 8 * (j / 4)), j % 4 * 2 - 4, 0x30);
        store_scale (f, j, less_32 (vorr_u8 (low, high)));
    }
    }
}

/* 8 groups, from group `first` on, whose scales 2 s + 1 have s in nibbles of a dword a row. */
INLINE void store_scales_nibbles (const int type, factors *f, const int first, b32 nibbles)
{
    UNROLL for (int g = 0; g < 8; g++)
    {
        UNROLL for (int i = 0; i < 2; i++)
        {
            uint32x4_t s = vshlq_u32 (vreinterpretq_u32_u8 (nibbles.val[i]), vdupq_n_s32 (-4 * g));
            s = vandq_u32 (s, vdupq_n_u32 ((uint32_t) scale_mask (type)));
            s = vaddq_u32 (vaddq_u32 (s, s), vdupq_n_u32 (1));
            vst1q_s32 (f->scale[first + g] + 4 * i, vreinterpretq_s32_u32 (s));
        }
    }
}

INLINE void load_factors (const int type, factors *f, const uint8_t *block)
{
    store8 (f->d, block_d (type, block));
    if (has_min (type)) /* m or dmin stands second */
        store8 (f->m, load8_f16 (block + 16));
    if (type == TQ1_0 || type == TQ2_0)
        UNROLL for (int g = 0; g < 8; g++)
        {
            vst1q_s32 (f->scale[g], vdupq_n_s32 (1));
            vst1q_s32 (f->scale[g] + 4, vdupq_n_s32 (1));
        }
    else if (is_expanded (type))
        UNROLL for (int half = 0; half < block_groups (type) / 8; half++)
            store_scales_nibbles (type, f, 8 * half, scale_nibbles (type, block, half));
    else if (block_width (type) == 256)
        UNROLL for (int j = 0; j < block_groups (type); j++)
            load_group_factors (type, f, block + (has_min (type) ? 32 : 16), j);
}

/* -- Steps shared by both kinds of kernels ------------------------------------------------------------------------- */

/* A block as int8 of all steps. */
typedef void (*expand_fn) (uint8_t *out, const uint8_t *packed);

/* Step k of the block's group, as int8 without its offset; expanded blocks have none. */
INLINE b32 fetch_signed (const int type, const uint8_t *block, int outer, const int inner, const int k)
{
    b32 v = fetch (type, block, outer, inner, k);
    uint8x16_t offset = vdupq_n_u8 ((uint8_t) (1 << offset_shift (type)));
    return has_offset (type) && !is_expanded (type)
               ? (b32) BOTH (vsubq_u8 (v.val[0], offset), vsubq_u8 (v.val[1], offset))
               : v;
}

INLINE i8 zero_i8 (void)
{
    return (i8) BOTH (vdupq_n_s32 (0), vdupq_n_s32 (0));
}

INLINE f8 to_float8 (i8 v)
{
    return (f8) BOTH (vcvtq_f32_s32 (v.val[0]), vcvtq_f32_s32 (v.val[1]));
}

/* 8 groups of sum_j min_j S_j. (A lane has to be a literal.) */
INLINE i8 add_mins (i8 total, const int16_t min[8][8], int16x8_t sums)
{
#define ADD_MIN(j)                                                             \
    total.val[0] = vmlal_laneq_s16 (total.val[0], vld1_s16 (min[j]), sums, j), \
    total.val[1] = vmlal_laneq_s16 (total.val[1], vld1_s16 (min[j] + 4), sums, j)
    ADD_MIN (0);
    ADD_MIN (1);
    ADD_MIN (2);
    ADD_MIN (3);
    ADD_MIN (4);
    ADD_MIN (5);
    ADD_MIN (6);
    ADD_MIN (7);
#undef ADD_MIN
    return total;
}

/* sum_j min_j S_j of 8 rows. */
INLINE i8 sum_of_mins (const int type, const factors *f, const int16_t *sums)
{
    const int16x8_t lower = vld1q_s16 (sums), upper = vld1q_s16 (sums + 8);
    if (block_groups (type) == 8)
        return add_mins (zero_i8 (), f->min, vpaddq_s16 (lower, upper));
    return add_mins (add_mins (zero_i8 (), f->min, lower), f->min + 8, upper);
}

/* The float step of a block of 256: 8 rows of one column. `sums` are those of the activations just multiplied. */
INLINE f8 float_step (const int type, f8 value, const factors *f, float scale, i8 isum, const int16_t *sums)
{
    f8 da = set8 (scale);
    value = fma8 (mul8 (load8 (f->d), da), to_float8 (isum), value);
    if (has_min (type))
        value = fma8 (negate8 (mul8 (load8 (f->m), da)), to_float8 (sum_of_mins (type, f, sums)), value);
    return value;
}

/* The float step of a block of 32. `part`: scale * sum of the first half; `scale`, `isum`: of the second. */
INLINE f8 float_step_32 (const int type, f8 value, const factors *f, f8 part, float scale, i8 isum, const float *total)
{
    value = fma8 (load8 (f->d), fma8 (set8 (scale), to_float8 (isum), part), value);
    return has_min (type) ? fma8 (load8 (f->m), set8 (*total), value) : value;
}

/* acc += scale * sum, or without scales the sum itself. */
INLINE i8 add_group (const int type, i8 acc, i8 sum, const int32_t *scale)
{
    if (block_width (type) == 32)
        return sum;
    return (i8) BOTH (vmlaq_s32 (acc.val[0], sum.val[0], vld1q_s32 (scale)),
                      vmlaq_s32 (acc.val[1], sum.val[1], vld1q_s32 (scale + 4)));
}

/* sum += a step of 8 rows times the step in lane k of x. */
INLINE i8 dot_step (i8 sum, b32 w, int8x16_t x, const int k)
{
    int8x16_t low = vreinterpretq_s8_u8 (w.val[0]), high = vreinterpretq_s8_u8 (w.val[1]);
    switch (k) { /* the lane has to be a literal */
    case 0:
        return (i8) BOTH (vdotq_laneq_s32 (sum.val[0], low, x, 0), vdotq_laneq_s32 (sum.val[1], high, x, 0));
    case 1:
        return (i8) BOTH (vdotq_laneq_s32 (sum.val[0], low, x, 1), vdotq_laneq_s32 (sum.val[1], high, x, 1));
    case 2:
        return (i8) BOTH (vdotq_laneq_s32 (sum.val[0], low, x, 2), vdotq_laneq_s32 (sum.val[1], high, x, 2));
    default:
        return (i8) BOTH (vdotq_laneq_s32 (sum.val[0], low, x, 3), vdotq_laneq_s32 (sum.val[1], high, x, 3));
    }
}

typedef struct columns {
    const int8_t *q;
    const float *scales, *totals;
    const int16_t *sums;
    size_t q_stride, scale_stride, total_stride, sum_stride;
} columns;

/* From element k of column `first` on. */
INLINE columns columns_of (const wl_activations *a, size_t first, size_t k)
{
    const bool wide = a->kind == WL_ACTIVATION_Q8_256;
    return (columns){.q = a->q + first * a->q_stride + k,
                     .q_stride = a->q_stride,
                     .scales = a->scales + first * a->scale_stride + k / (wide ? 256 : 16),
                     .scale_stride = a->scale_stride,
                     .totals = wide ? NULL : a->totals + first * a->total_stride + k / 32,
                     .total_stride = a->total_stride,
                     .sums = a->sums + first * a->sum_stride + k / 16,
                     .sum_stride = a->sum_stride};
}

/* -- Few columns: from the packed tile ----------------------------------------------------------------------------- */

/* `expand_block`: of types that are expanded. */
INLINE void direct_kernel (const int type, const int n_columns, float *out, size_t out_stride, const uint8_t *packed,
                           columns a, size_t n_blocks, expand_fn expand_block)
{
    const int steps = group_steps (type), inner = inner_groups (type), outer = block_groups (type) / inner;
    const int width = block_width (type);
    f8 value[4], part[4];
    UNROLL for (int c = 0; c < n_columns; c++) value[c] = zero8 ();
    for (size_t b = 0; b < n_blocks; b++, packed += block_bytes (type), a.q += width, a.sums += width / 16) {
        factors f;
        load_factors (type, &f, packed);
        uint8_t bytes[EXPANDED_BYTES];
        if (is_expanded (type))
            expand_block (bytes, packed);
        const uint8_t *source = is_expanded (type) ? bytes : packed;
        i8 acc[4], sum[4];
        UNROLL for (int c = 0; c < n_columns; c++) acc[c] = zero_i8 ();
        for (int o = 0; o < outer; o++) {
            UNROLL for (int i = 0; i < inner; i++)
            {
                const int g = o * inner + i;
                int8x16_t x[4];
                UNROLL for (int c = 0; c < n_columns; c++) sum[c] = zero_i8 ();
                UNROLL for (int k = 0; k < steps; k++)
                {
                    b32 w = fetch_signed (type, source, o, i, k);
                    UNROLL for (int c = 0; c < n_columns; c++)
                    {
                        if (k % 4 == 0)
                            x[c] = vld1q_s8 (a.q + c * a.q_stride + (g * steps + k) * 4);
                        sum[c] = dot_step (sum[c], w, x[c], k % 4);
                    }
                }
                UNROLL for (int c = 0; c < n_columns; c++)
                {
                    acc[c] = add_group (type, acc[c], sum[c], f.scale[g]);
                    const float da = a.scales[c * a.scale_stride + i];
                    if (width == 32 && i == 0)
                        part[c] = mul8 (set8 (da), to_float8 (acc[c]));
                    else if (width == 32)
                        value[c] =
                            float_step_32 (type, value[c], &f, part[c], da, acc[c], a.totals + c * a.total_stride);
                }
            }
        }
        if (width == 256)
            UNROLL for (int c = 0; c < n_columns; c++) value[c] =
                float_step (type, value[c], &f, a.scales[c * a.scale_stride], acc[c], a.sums + c * a.sum_stride);
        a.scales += width == 32 ? 2 : 1;
        a.totals += width == 32 ? 1 : 0;
    }
    UNROLL for (int c = 0; c < n_columns; c++) store8 (out + c * out_stride, value[c]);
}

/* -- More columns: from an unpacked panel -------------------------------------------------------------------------- */

typedef struct panel {
    uint8_t weights[SLAB * WL_TILE_ROWS];  /* SDOT: [step][8 rows][4]; SMMLA: [pair of steps][4 pairs of rows][2][8] */
    uint8_t factors[4 * sizeof (factors)]; /* [block] */
    int8_t columns[USES_I8MM ? COLUMN_BLOCK * SLAB : 64]; /* SMMLA: [pair of columns][8 elements][2][8] */
} panel;
_Static_assert(sizeof (((panel *) 0)->factors) >= SLAB / 32 * offsetof (factors, scale),
               "factors of the formats of 32");

#if USES_I8MM

/* Sums of one pair of columns: [pair of rows] of r0c0 r0c1 r1c0 r1c1. */
typedef struct sums_2x8 {
    int32x4_t pair[4];
} sums_2x8;

INLINE i8 column_of (sums_2x8 s, const int which)
{
    return which ? (i8) BOTH (vuzp2q_s32 (s.pair[0], s.pair[1]), vuzp2q_s32 (s.pair[2], s.pair[3]))
                 : (i8) BOTH (vuzp1q_s32 (s.pair[0], s.pair[1]), vuzp1q_s32 (s.pair[2], s.pair[3]));
}

/* acc = or += scale * the group's sums, of n_columns columns (an even number; an odd one's last is not used). */
INLINE void panel_group (const int type, const int n_columns, sums_2x8 acc[3], const uint8_t *w, const int8_t *x,
                         size_t x_stride, const int32_t *scale)
{
    sums_2x8 sum[3];
    UNROLL for (int c = 0; c < n_columns / 2; c++)
    {
        UNROLL for (int r = 0; r < 4; r++) sum[c].pair[r] = vdupq_n_s32 (0);
    }
    UNROLL for (int k = 0; k < group_steps (type) / 2; k++)
    {
        int8x16_t rows[4];
        UNROLL for (int r = 0; r < 4; r++) rows[r] = vld1q_s8 ((const int8_t *) w + 64 * k + 16 * r);
        UNROLL for (int c = 0; c < n_columns / 2; c++)
        {
            int8x16_t pair = vld1q_s8 (x + c * x_stride + 16 * k);
            UNROLL for (int r = 0; r < 4; r++) sum[c].pair[r] = vmmlaq_s32 (sum[c].pair[r], rows[r], pair);
        }
    }
    if (block_width (type) == 32) {
        UNROLL for (int c = 0; c < n_columns / 2; c++) acc[c] = sum[c];
        return;
    }
    UNROLL for (int r = 0; r < 4; r++)
    {
        int32x4_t s = vcombine_s32 (vdup_n_s32 (scale[2 * r]), vdup_n_s32 (scale[2 * r + 1]));
        UNROLL for (int c = 0; c < n_columns / 2; c++) acc[c].pair[r] = vmlaq_s32 (acc[c].pair[r], sum[c].pair[r], s);
    }
}

typedef sums_2x8 panel_sums[3];
#define PANEL_SUM(acc, c) column_of ((acc)[(c) / 2], (c) % 2)

INLINE void clear (const int n_columns, panel_sums acc)
{
    UNROLL for (int c = 0; c < n_columns / 2; c++)
    {
        UNROLL for (int r = 0; r < 4; r++) acc[c].pair[r] = vdupq_n_s32 (0);
    }
}

#else

INLINE void panel_group (const int type, const int n_columns, i8 acc[6], const uint8_t *w, const int8_t *x,
                         size_t x_stride, const int32_t *scale)
{
    i8 sum[6];
    int8x16_t steps[6];
    UNROLL for (int c = 0; c < n_columns; c++) sum[c] = zero_i8 ();
    UNROLL for (int k = 0; k < group_steps (type); k++)
    {
        b32 rows = load_b32 (w + 32 * k);
        UNROLL for (int c = 0; c < n_columns; c++)
        {
            if (k % 4 == 0)
                steps[c] = vld1q_s8 (x + c * x_stride + 4 * k);
            sum[c] = dot_step (sum[c], rows, steps[c], k % 4);
        }
    }
    UNROLL for (int c = 0; c < n_columns; c++) acc[c] = add_group (type, acc[c], sum[c], scale);
}

typedef i8 panel_sums[6];
#define PANEL_SUM(acc, c) ((acc)[c])

INLINE void clear (const int n_columns, panel_sums acc)
{
    UNROLL for (int c = 0; c < n_columns; c++) acc[c] = zero_i8 ();
}

#endif

/* One tile x n_columns over n_blocks blocks, added to out; n_used of the columns are real. a.q, a.q_stride: of columns,
 * or (SMMLA) of pairs of columns. */
INLINE void panel_kernel (const int type, const int n_columns, float *out, size_t out_stride, const panel *p, columns a,
                          size_t n_blocks, int n_used)
{
    const int group_elements = 4 * group_steps (type);
    const uint8_t *w = p->weights, *factor = p->factors;
    for (size_t b = 0; b < n_blocks; b++, factor += factor_bytes (type), a.sums += 16, a.scales++) {
        const factors *f = (const factors *) factor;
        panel_sums acc;
        clear (n_columns, acc);
        for (int g = 0; g < block_groups (type); g++, w += group_elements * 8, a.q += group_elements * (1 + USES_I8MM))
            panel_group (type, n_columns, acc, w, a.q, a.q_stride, f->scale[g]);
        UNROLL for (int c = 0; c < n_columns; c++) if (c < n_used) store8 (
            out + c * out_stride, float_step (type, load8 (out + c * out_stride), f, a.scales[c * a.scale_stride],
                                              PANEL_SUM (acc, c), a.sums + c * a.sum_stride));
    }
}

/* The same for the formats of 32. */
INLINE void panel_kernel_32 (const int type, const int n_columns, float *out, size_t out_stride, const panel *p,
                             columns a, size_t n_blocks, int n_used)
{
    const uint8_t *w = p->weights, *factor = p->factors;
    for (size_t b = 0; b < n_blocks; b++, factor += factor_bytes (type), a.scales += 2, a.totals++) {
        const factors *f = (const factors *) factor;
        panel_sums acc;
        f8 part[PANEL_COLUMNS];
        clear (PANEL_COLUMNS, acc); /* what an instance leaves out */
        panel_group (type, n_columns, acc, w, a.q, a.q_stride, NULL);
        UNROLL for (int c = 0; c < n_columns; c++) part[c] =
            c < n_used ? mul8 (set8 (a.scales[c * a.scale_stride]), to_float8 (PANEL_SUM (acc, c))) : zero8 ();
        panel_group (type, n_columns, acc, w + 16 * 8, a.q + 16 * (1 + USES_I8MM), a.q_stride, NULL);
        UNROLL for (int c = 0; c < n_columns; c++) if (c < n_used)
            store8 (out + c * out_stride,
                    float_step_32 (type, load8 (out + c * out_stride), f, part[c], a.scales[c * a.scale_stride + 1],
                                   PANEL_SUM (acc, c), a.totals + c * a.total_stride));
        w += 32 * 8;
        a.q += 32 * (1 + USES_I8MM);
    }
}

/* Two steps of 8 rows, side by side or with the elements of each row together. */
INLINE void store_two_steps (uint8_t *out, b32 first, b32 second)
{
#if USES_I8MM
    UNROLL for (int half = 0; half < 2; half++)
    {
        uint32x4_t a = vreinterpretq_u32_u8 (first.val[half]), b = vreinterpretq_u32_u8 (second.val[half]);
        vst1q_u8 (out + 32 * half, vreinterpretq_u8_u32 (vzip1q_u32 (a, b)));
        vst1q_u8 (out + 32 * half + 16, vreinterpretq_u8_u32 (vzip2q_u32 (a, b)));
    }
#else
    store_b32 (out, first);
    store_b32 (out + 32, second);
#endif
}

INLINE void unpack_tile (const int type, panel *p, const uint8_t *packed, size_t n_blocks, expand_fn expand_block)
{
    const int inner = inner_groups (type), outer = block_groups (type) / inner;
    uint8_t *w = p->weights, *factor = p->factors;
    for (size_t b = 0; b < n_blocks; b++, packed += block_bytes (type), factor += factor_bytes (type)) {
        load_factors (type, (factors *) factor, packed);
        uint8_t bytes[EXPANDED_BYTES];
        if (is_expanded (type))
            expand_block (bytes, packed);
        const uint8_t *source = is_expanded (type) ? bytes : packed;
        for (int o = 0; o < outer; o++)
            UNROLL for (int i = 0; i < inner; i++)
            {
                UNROLL for (int k = 0; k < group_steps (type); k += 2, w += 64)
                    store_two_steps (w, fetch_signed (type, source, o, i, k), fetch_signed (type, source, o, i, k + 1));
            }
    }
}

/* -- Whole matrices ------------------------------------------------------------------------------------------------ */

/* A type's instances of the above. */
typedef struct kernel_set {
    size_t width, block_bytes;
    void (*direct[DIRECT_COLUMNS + 1]) (float *, size_t, const uint8_t *, columns, size_t); /* by columns */
    void (*panel[PANEL_COLUMNS + 1]) (float *, size_t, const panel *, columns, size_t,
                                      int); /* by columns: 1 (SDOT), 2, 4, 6 */
    void (*unpack) (panel *, const uint8_t *, size_t);
} kernel_set;

static void matmul_direct (const kernel_set *set, float *out, size_t out_stride, const uint8_t *tiles, size_t n_tiles,
                           columns a, size_t n_columns, size_t n)
{
    const size_t n_blocks = n / set->width;
    for (size_t t = 0; t < n_tiles; t++, tiles += n_blocks * set->block_bytes)
        set->direct[n_columns](out + 8 * t, out_stride, tiles, a, n_blocks);
}

/* Lays n elements of the columns side by side in pairs, and points `a` at them. */
static void prepare_columns (panel *p, columns *a, size_t n_columns, size_t n)
{
#if USES_I8MM
    int8_t *out = p->columns;
    for (size_t c = 0; c < n_columns; c += 2) {
        const int8_t *first = a->q + c * a->q_stride,
                     *second = c + 1 < n_columns ? first + a->q_stride : first; /* odd: any */
        for (size_t i = 0; i < n; i += 16, out += 32) {
            int64x2_t x = vreinterpretq_s64_s8 (vld1q_s8 (first + i)), y = vreinterpretq_s64_s8 (vld1q_s8 (second + i));
            vst1q_s8 (out, vreinterpretq_s8_s64 (vzip1q_s64 (x, y)));
            vst1q_s8 (out + 16, vreinterpretq_s8_s64 (vzip2q_s64 (x, y)));
        }
    }
    a->q = p->columns;
    a->q_stride = 2 * n;
#else
    (void) p;
    (void) a;
    (void) n_columns;
    (void) n;
#endif
}

/* Columns of the kernel that comes next. SMMLA takes pairs, the last of which may be half used. */
static size_t columns_at_once (size_t left)
{
    if (left >= PANEL_COLUMNS)
        return PANEL_COLUMNS;
    return USES_I8MM ? (left + 1) / 2 * 2 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
}

/* All columns of `a` at n_blocks blocks of every tile. */
static void multiply_slab (const kernel_set *set, float *out, size_t out_stride, const uint8_t *tiles,
                           size_t tile_bytes, size_t n_tiles, columns a, size_t n_columns, size_t n_blocks, panel *p)
{
    prepare_columns (p, &a, n_columns, n_blocks * set->width);
    for (size_t t = 0; t < n_tiles; t++) {
        set->unpack (p, tiles + t * tile_bytes, n_blocks);
        columns some = a;
        for (size_t c = 0; c < n_columns;) {
            const size_t left = n_columns - c, m = columns_at_once (left);
            set->panel[m](out + c * out_stride + 8 * t, out_stride, p, some, n_blocks, (int) (left < m ? left : m));
            some.q += (USES_I8MM ? m / 2 : m) * some.q_stride;
            some.scales += m * some.scale_stride;
            some.sums += m * some.sum_stride;
            some.totals += m * some.total_stride;
            c += m;
        }
    }
}

static void matmul (const kernel_set *set, float *out, size_t out_stride, const void *tiles, size_t n_tiles,
                    const wl_activations *a, void *scratch)
{
    if (a->n_rows == 0)
        return;
    if (a->n_rows <= DIRECT_COLUMNS) {
        matmul_direct (set, out, out_stride, tiles, n_tiles, columns_of (a, 0, 0), a->n_rows, a->n);
        return;
    }
    for (size_t c = 0; c < a->n_rows; c++)
        memset (out + c * out_stride, 0, n_tiles * WL_TILE_ROWS * sizeof (float));
    const size_t tile_bytes = a->n / set->width * set->block_bytes;
    for (size_t c = 0; c < a->n_rows; c += COLUMN_BLOCK)
        for (size_t k = 0; k < a->n; k += SLAB) {
            const size_t n_columns = a->n_rows - c < COLUMN_BLOCK ? a->n_rows - c : COLUMN_BLOCK;
            multiply_slab (set, out + c * out_stride, out_stride,
                           (const uint8_t *) tiles + k / set->width * set->block_bytes, tile_bytes, n_tiles,
                           columns_of (a, c, k), n_columns, (a->n - k < SLAB ? a->n - k : SLAB) / set->width, scratch);
        }
}

#define DEFINE_EXPAND(TYPE, name)                                                              \
    static __attribute__ ((noinline)) void name##_expand (uint8_t *out, const uint8_t *packed) \
    {                                                                                          \
        expand (TYPE, 0, out, packed);                                                         \
    }

#define DEFINE_DIRECT(TYPE, name, expand_block, n_columns)                                   \
    static __attribute__ ((noinline)) void name##_direct_##n_columns (                       \
        float *out, size_t out_stride, const uint8_t *packed, columns a, size_t n_blocks)    \
    {                                                                                        \
        direct_kernel (TYPE, n_columns, out, out_stride, packed, a, n_blocks, expand_block); \
    }

#define DEFINE_PANEL(TYPE, name, n_columns)                                                                            \
    static __attribute__ ((noinline)) void name##_panel_##n_columns (float *out, size_t out_stride, const panel *p,    \
                                                                     columns a, size_t n_blocks, int n_used)           \
    {                                                                                                                  \
        (block_width (TYPE) == 32 ? panel_kernel_32 : panel_kernel) (TYPE, n_columns, out, out_stride, p, a, n_blocks, \
                                                                     n_used);                                          \
    }

#define DEFINE_MATMUL(TYPE, name, expand_block)                                                          \
    DEFINE_DIRECT (TYPE, name, expand_block, 1)                                                          \
    DEFINE_DIRECT (TYPE, name, expand_block, 2)                                                          \
    DEFINE_DIRECT (TYPE, name, expand_block, 3)                                                          \
    DEFINE_DIRECT (TYPE, name, expand_block, 4)                                                          \
    DEFINE_PANEL (TYPE, name, 1)                                                                         \
    DEFINE_PANEL (TYPE, name, 2)                                                                         \
    DEFINE_PANEL (TYPE, name, 4)                                                                         \
    DEFINE_PANEL (TYPE, name, 6)                                                                         \
    static void name##_unpack (panel *p, const uint8_t *packed, size_t n_blocks)                         \
    {                                                                                                    \
        unpack_tile (TYPE, p, packed, n_blocks, expand_block);                                           \
    }                                                                                                    \
    static void neon_matmul_##name (float *out, size_t out_stride, const void *tiles, size_t n_tiles,    \
                                    const wl_activations *a, void *scratch)                              \
    {                                                                                                    \
        const kernel_set set = {                                                                         \
            .width = (size_t) block_width (TYPE),                                                        \
            .block_bytes = block_bytes (TYPE),                                                           \
            .direct = {NULL, name##_direct_1, name##_direct_2, name##_direct_3, name##_direct_4},        \
            .panel = {NULL, name##_panel_1, name##_panel_2, NULL, name##_panel_4, NULL, name##_panel_6}, \
            .unpack = name##_unpack,                                                                     \
        };                                                                                               \
        matmul (&set, out, out_stride, tiles, n_tiles, a, scratch);                                      \
    }

#include "simd8_matmul_list.h"

#endif
