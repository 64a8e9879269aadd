/* F32, F16 and BF16 matmul in vectors of 8 floats: rows as lanes, one fma chain an output. Included by each ISA's file.
 *
 * A chain's fma waits 4 clocks for the one before it, and two or more can start a clock: so at least 8 chains run at
 * once, from several tiles where there are few columns. */
#ifndef WL_ENGINE_KERNELS_SIMD8_MATMUL_FLOAT_H
#define WL_ENGINE_KERNELS_SIMD8_MATMUL_FLOAT_H

#include <stdbool.h>

#include "kernels.h"
#include "simd8.h"

enum { F32, F16, BF16, MAX_TILES = 8, MAX_COLUMNS = 6, FLOAT_SLAB = 512 };

INLINE size_t step_bytes (const int type)
{
    return type == F32 ? 32 : 16;
}

/* Element k of 8 rows. */
INLINE f8 load_step (const int type, const uint8_t *p)
{
    return type == F32 ? load8 ((const float *) p) : type == F16 ? load8_f16 (p) : load8_bf16 (p);
}

/* n elements of n_tiles x n_columns, from 0 or (`more`) from what out holds. */
INLINE void float_kernel (const int type, const int n_tiles, const int n_columns, bool more, float *out,
                          size_t out_stride, const uint8_t *tiles, size_t tile_bytes, const float *x, size_t x_stride,
                          size_t n)
{
    f8 acc[MAX_TILES][MAX_COLUMNS];
    UNROLL for (int t = 0; t < n_tiles; t++)
    {
        UNROLL for (int c = 0; c < n_columns; c++) acc[t][c] = more ? load8 (out + c * out_stride + 8 * t) : zero8 ();
    }
    for (size_t k = 0; k < n; k++, tiles += step_bytes (type)) {
        f8 w[MAX_TILES];
        if (n_columns > 1)
            UNROLL for (int t = 0; t < n_tiles; t++) w[t] = load_step (type, tiles + t * tile_bytes);
        UNROLL for (int c = 0; c < n_columns; c++)
        {
            f8 value = splat8 (x + c * x_stride + k);
            UNROLL for (int t = 0; t < n_tiles; t++) acc[t][c] =
                fma8 (n_columns > 1 ? w[t] : load_step (type, tiles + t * tile_bytes), value, acc[t][c]);
        }
    }
    UNROLL for (int t = 0; t < n_tiles; t++)
    {
        UNROLL for (int c = 0; c < n_columns; c++) store8 (out + c * out_stride + 8 * t, acc[t][c]);
    }
}

/* Few columns: as many tiles at once as it takes to hide the chains' latency. */
INLINE void few_columns (const int type, const int wide, const int n_columns, float *out, size_t out_stride,
                         const uint8_t *tiles, size_t n_tiles, const wl_activations *a)
{
    const size_t tile_bytes = a->n * step_bytes (type);
    size_t t = 0;
    for (; t + (size_t) wide <= n_tiles; t += (size_t) wide)
        float_kernel (type, wide, n_columns, false, out + 8 * t, out_stride, tiles + t * tile_bytes, tile_bytes, a->f32,
                      a->f32_stride, a->n);
    for (; t < n_tiles; t++)
        float_kernel (type, 1, n_columns, false, out + 8 * t, out_stride, tiles + t * tile_bytes, tile_bytes, a->f32,
                      a->f32_stride, a->n);
}

/* Many columns: a slab of two tiles stays in L1 and serves all columns. */
INLINE void many_columns (const int type, const int wide, float *out, size_t out_stride, const uint8_t *tiles,
                          const wl_activations *a)
{
    const size_t tile_bytes = a->n * step_bytes (type);
    for (size_t k = 0; k < a->n; k += FLOAT_SLAB, tiles += FLOAT_SLAB * step_bytes (type)) {
        const size_t n = a->n - k < FLOAT_SLAB ? a->n - k : FLOAT_SLAB;
        const float *x = a->f32 + k;
        float *o = out;
        size_t c = 0;
        for (; c + 6 <= a->n_rows; c += 6, o += 6 * out_stride, x += 6 * a->f32_stride)
            float_kernel (type, wide, 6, k != 0, o, out_stride, tiles, tile_bytes, x, a->f32_stride, n);
        for (; c + 2 <= a->n_rows; c += 2, o += 2 * out_stride, x += 2 * a->f32_stride)
            float_kernel (type, wide, 2, k != 0, o, out_stride, tiles, tile_bytes, x, a->f32_stride, n);
        if (c < a->n_rows)
            float_kernel (type, wide, 1, k != 0, o, out_stride, tiles, tile_bytes, x, a->f32_stride, n);
    }
}

INLINE void matmul_float (const int type, float *out, size_t out_stride, const uint8_t *tiles, size_t n_tiles,
                          const wl_activations *a)
{
    switch (a->n_rows) {
    case 0:
        return;
    case 1:
        few_columns (type, 8, 1, out, out_stride, tiles, n_tiles, a);
        return;
    case 2:
        few_columns (type, 4, 2, out, out_stride, tiles, n_tiles, a);
        return;
    case 3:
        few_columns (type, 4, 3, out, out_stride, tiles, n_tiles, a);
        return;
    case 4:
        few_columns (type, 3, 4, out, out_stride, tiles, n_tiles, a);
        return;
    default:
        break;
    }
    size_t t = 0;
    for (; t + 2 <= n_tiles; t += 2)
        many_columns (type, 2, out + 8 * t, out_stride, tiles + t * a->n * step_bytes (type), a);
    if (t < n_tiles)
        many_columns (type, 1, out + 8 * t, out_stride, tiles + t * a->n * step_bytes (type), a);
}

#define DEFINE_SIMD8_MATMUL(TYPE, name)                                                                \
    static void simd8_matmul_##name (float *out, size_t out_stride, const void *tiles, size_t n_tiles, \
                                     const wl_activations *a, void *scratch)                           \
    {                                                                                                  \
        (void) scratch;                                                                                \
        matmul_float (TYPE, out, out_stride, tiles, n_tiles, a);                                       \
    }

DEFINE_SIMD8_MATMUL (F32, f32)
DEFINE_SIMD8_MATMUL (F16, f16)
DEFINE_SIMD8_MATMUL (BF16, bf16)

#endif
