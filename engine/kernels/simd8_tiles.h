/* How the SIMD kernels read packed tiles: what each quantized type is like, and its weights step by step (4 elements of
 * 8 rows). Included by each ISA's file.
 *
 * A type is a constant here, so that always_inline kernels over the type see constants only. */
#ifndef WL_ENGINE_KERNELS_SIMD8_TILES_H
#define WL_ENGINE_KERNELS_SIMD8_TILES_H

#include <stdbool.h>

#include "formats.h"
#include "simd8.h"

/* -- What the types are like --------------------------------------------------------------------------------------- */

enum {
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    IQ4_NL,
    MXFP4, /* of 32 */
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
    IQ4_XS,
    TQ2_0, /* of 256 */
    IQ2_XXS,
    IQ2_XS,
    IQ2_S,
    IQ3_XXS,
    IQ3_S,
    IQ1_S,
    IQ1_M,
    TQ1_0 /* expanded: simd8_expand.h */
};

INLINE size_t block_bytes (const int type)
{
    static const size_t bytes[] = {
        [Q4_0] = sizeof (tile_q4_0),        [Q4_1] = sizeof (tile_q4_1),      [Q5_0] = sizeof (tile_q5_0),
        [Q5_1] = sizeof (tile_q5_1),        [Q8_0] = sizeof (tile_q8_0),      [IQ4_NL] = sizeof (tile_iq4_nl),
        [MXFP4] = 8 * sizeof (row_mxfp4),   [Q2_K] = sizeof (tile_q2_k),      [Q3_K] = sizeof (tile_q3_k),
        [Q4_K] = sizeof (tile_q4_k),        [Q5_K] = sizeof (tile_q5_k),      [Q6_K] = sizeof (tile_q6_k),
        [IQ4_XS] = sizeof (tile_iq4_xs),    [TQ2_0] = 8 * sizeof (row_tq2_0), [IQ2_XXS] = 8 * sizeof (row_iq2_xxs),
        [IQ2_XS] = 8 * sizeof (row_iq2_xs), [IQ2_S] = 8 * sizeof (row_iq2_s), [IQ3_XXS] = 8 * sizeof (row_iq3_xxs),
        [IQ3_S] = 8 * sizeof (row_iq3_s),   [IQ1_S] = 8 * sizeof (row_iq1_s), [IQ1_M] = 8 * sizeof (row_iq1_m),
        [TQ1_0] = 8 * sizeof (row_tq1_0),
    };
    return bytes[type];
}

INLINE int block_width (const int type)
{
    return type >= Q2_K ? 256 : 32;
}

/* Blocks whose weights are made bytes a block at a time, before they are multiplied. */
INLINE bool is_expanded (const int type)
{
    return type >= IQ2_XXS;
}

/* Steps that share a scale, of the weights or (formats of 32) of the activations: 8 (32 elements) or 4. */
INLINE int group_steps (const int type)
{
    return type == Q4_K || type == Q5_K || type == IQ4_XS || type == IQ2_XXS || type == IQ3_XXS || type == IQ3_S ||
                   type == IQ1_S || type == TQ1_0 || type == TQ2_0
               ? 8
               : 4;
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

INLINE bool has_offset (const int type)
{
    return type == Q4_0 || type == Q5_0 || type == MXFP4 || type == Q3_K || type == Q6_K || type >= TQ2_0;
}

/* Weights up to 43 or 62. */
INLINE bool is_large (const int type)
{
    return type == IQ2_XXS || type == IQ2_XS || type == IQ2_S || type == IQ3_XXS;
}

INLINE int offset_shift (const int type) /* offset = 1 << shift, of types that have one */
{
    return type == Q4_0                                                                       ? 3
           : type == Q5_0 || type == MXFP4 || type == IQ3_S || type == IQ1_S || type == IQ1_M ? 4
           : type == Q3_K                                                                     ? 2
           : type == Q6_K                                                                     ? 5
           : is_large (type)                                                                  ? 6
                                                                                              : 0;
}

/* What the format's d is multiplied with, as its scales and weights are whole numbers here. */
INLINE float d_factor (const int type)
{
    return type == IQ2_XXS || type == IQ2_XS || type == IQ2_S || type == IQ1_S || type == IQ1_M ? 0.125f
           : type == IQ3_XXS                                                                    ? 0.25f
                                                                                                : 1.0f;
}

/* The 8 rows' d (times its factor) of a block. */
INLINE f8 block_d (const int type, const uint8_t *block)
{
    if (type == MXFP4)
        return load8_e8m0 (block);
    f8 d = load8_f16 (block); /* first in every tile */
    return d_factor (type) == 1.0f ? d : mul8 (d, set8 (d_factor (type)));
}

/* A second float step for minimums. */
INLINE bool has_min (const int type)
{
    return type == Q4_1 || type == Q5_1 || type == Q2_K || type == Q4_K || type == Q5_K;
}

/* -- Fetching 4 elements of 8 rows from a packed tile -------------------------------------------------------------- */

/* Groups are fetched inner_groups at a time, so that shifts are constants: group = outer * inner_groups + inner. */
INLINE int inner_groups (const int type)
{
    return type == Q2_K || type == Q3_K || type == Q6_K ? 8
           : type == TQ2_0                              ? 4
           : type == IQ4_XS || is_expanded (type)       ? 1
                                                        : 2;
}

/* MXFP4's codebook with its offset. */
static const int8_t mxfp4_raised[16] = {16, 17, 18, 19, 20, 22, 24, 28, 16, 15, 14, 13, 12, 10, 8, 4};

/* b32 fetch (type, block, outer, inner, k). `block`: the packed one, or the expanded. */
#define FETCH fetch
#define STEP b32
#define BLOCK const uint8_t *
#define LOAD(block, offset) load_b32 ((block) + (offset))
#define MASKED masked_b32
#define SHIFT_RIGHT shift_right_b32
#define OR or_b32
#define LOOK_UP lookup_b32
#include "simd8_fetch.h"

#endif
