/* Blocks of the IQ1, IQ2, IQ3 and TQ1_0 types as bytes, before they are multiplied: what their tiles hold is in
 * formats.h. Included by each ISA's file.
 *
 * A codebook's entry is 8 (or 4) elements of one row, and a step is 4 elements of 8 rows. So a group of 8 elements takes
 * 8 lookups, one a row, and one transposition in dwords; signs are then made masks for all rows at once. The bytes of a
 * block stay in L1. */
#ifndef WL_ENGINE_KERNELS_SIMD8_EXPAND_H
#define WL_ENGINE_KERNELS_SIMD8_EXPAND_H

#include "simd8_tiles.h"

enum { EXPANDED_BYTES = 64 * 32 };

/* Where `member` of the rows stands in the tile. */
#define IN_TILE(block, type, member) ((block) + 8 * offsetof (row_##type, member))

/* -- Scales -------------------------------------------------------------------------------------------------------- */

/* Bits `mask` of a scale's nibble. */
INLINE int scale_mask (const int type)
{
    return type == IQ1_S || type == IQ1_M ? 7 : 15;
}

/* A dword a row: nibble g is the scale of group 8 * half + g; of IQ1_S and IQ1_M, in its lower 3 bits. */
INLINE b32 scale_nibbles (const int type, const uint8_t *block, const int half)
{
    b32 v = set_b32 (0);
    switch (type) {
    case IQ2_XXS:
    case IQ3_XXS: {
        const uint8_t *signs = type == IQ2_XXS ? IN_TILE (block, iq2_xxs, signs) : IN_TILE (block, iq3_xxs, signs);
        UNROLL for (int s = 0; s < 8; s++) v = or_b32 (v, masked_b32 (load_b32 (signs + 32 * s), 7 - s, 1 << s));
        return v;
    }
    case IQ1_S:
        UNROLL for (int p = 0; p < 4; p++) v =
            or_b32 (v, masked_b32 (load_b32 (IN_TILE (block, iq1_s, qh) + 32 * p), 3 - p, 0x11 << p));
        return v;
    case IQ1_M: {
        b32 low = load_b32 (IN_TILE (block, iq1_m, scales));
        if (half == 0)
            return low;
        b32 words = load_words_twice_b32 (IN_TILE (block, iq1_m, scales_h));
        b32 upper = or_b32 (and_b32 (masked_b32 (words, -1, 0x66), set_dwords_b32 (0x0000ffff)),
                            and_b32 (masked_b32 (words, 1, 0x66), set_dwords_b32 (0xffff0000)));
        return or_b32 (upper, masked_b32 (low, 3, 0x11));
    }
    case IQ2_XS:
        return load_b32 (IN_TILE (block, iq2_xs, scales) + 32 * half);
    case IQ2_S:
        return load_b32 (IN_TILE (block, iq2_s, scales) + 32 * half);
    default:
        return load_b32 (IN_TILE (block, iq3_s, scales));
    }
}

/* -- Codebooks ----------------------------------------------------------------------------------------------------- */

/* Indices of codebook entries: byte or word 4 r + j of an array is row r's of group j. */
typedef struct indices {
    const uint8_t *bytes;
    const uint16_t *words;
} indices;

INLINE size_t index_at (indices from, int i)
{
    return from.words ? from.words[i] : from.bytes[i];
}

/* Group j of 8 elements: two steps. */
INLINE void look_up_8 (const uint64_t *grid, indices from, const int j, b32 *first, b32 *second)
{
    const uint64_t *entry[8];
    UNROLL for (int r = 0; r < 8; r++) entry[r] = grid + index_at (from, 4 * r + j);
    gather_8_b32 (entry, first, second);
}

INLINE b32 look_up_4 (const uint32_t *grid, indices from, const int j)
{
    const uint32_t *entry[8];
    UNROLL for (int r = 0; r < 8; r++) entry[r] = grid + index_at (from, 4 * r + j);
    return gather_4_b32 (entry);
}

/* 7 sign bits a byte, and the eighth that makes the number of ones even. */
INLINE b32 complete_signs (b32 v)
{
    static const int8_t odd[16] = {0, -128, -128, 0, -128, 0, 0, -128, -128, 0, 0, -128, 0, -128, -128, 0};
    b32 folded = masked_b32 (xor_b32 (v, masked_b32 (v, 4, 7)), 0, 15);
    return or_b32 (masked_b32 (v, 0, 127), lookup_b32 (odd, folded));
}

/* offset + v, or offset - v where the sign has the bit. */
INLINE b32 add_signed (b32 v, b32 signs, uint32_t bits, const int offset)
{
    b32 negative = test_b32 (signs, set_dwords_b32 (bits));
    return add_b32 (xor_b32 (v, negative), sub_b32 (set_b32 (offset), negative));
}

/* Upper index bits of sub-block s; `which`: of a type with two vectors of indices a sub-block. */
INLINE b32 high_bits (const int type, const uint8_t *block, int s, const int which)
{
    switch (type) {
    case IQ2_XS:
        return masked_b32 (load_b32 (IN_TILE (block, iq2_xs, signs) + 32 * s), 7, 1);
    case IQ2_S:
        return masked_b32 (shift_right_b32 (load_b32 (IN_TILE (block, iq2_s, qh) + s / 4 * 32), s % 4 * 2), 0, 3);
    case IQ3_S:
        return masked_b32 (shift_right_b32 (load_b32 (IN_TILE (block, iq3_s, qh) + s / 4 * 32), s % 4 * 2 + which), 0,
                           1);
    case IQ1_S:
        return masked_b32 (shift_right_b32 (load_b32 (IN_TILE (block, iq1_s, qh) + s / 2 * 32), s % 2 * 4), 0, 7);
    default:
        return masked_b32 (shift_right_b32 (load_b32 (IN_TILE (block, iq1_m, qh) + s / 2 * 32), s % 2 * 4), 0, 7);
    }
}

INLINE bool has_four (const int type)
{
    return type == IQ3_XXS || type == IQ3_S;
}

INLINE bool has_wide_indices (const int type)
{
    return type != IQ2_XXS && type != IQ3_XXS;
}

/* Where the indices' bytes stand: one vector a sub-block, or two. */
INLINE const uint8_t *index_bytes (const int type, const uint8_t *block)
{
    return type == IQ1_M ? IN_TILE (block, iq1_m, qs) : IN_TILE (block, iq1_s, qs); /* as in all others */
}

/* All wide indices of a block. They are stored well before they are used, which hides how long that takes. */
INLINE void widen_indices (const int type, uint16_t words[16][32], const uint8_t *block)
{
    const uint8_t *bytes = index_bytes (type, block);
    for (int s = 0; s < 8; s++)
        UNROLL for (int which = 0; which < 1 + has_four (type); which++, bytes += 32) store_words_b32 (
            words[s * (1 + has_four (type)) + which], load_b32 (bytes), high_bits (type, block, s, which));
}

INLINE b32 signs_of (const int type, const uint8_t *block, int s)
{
    switch (type) {
    case IQ2_XXS:
        return complete_signs (load_b32 (IN_TILE (block, iq2_xxs, signs) + 32 * s));
    case IQ2_XS:
        return complete_signs (load_b32 (IN_TILE (block, iq2_xs, signs) + 32 * s));
    case IQ3_XXS:
        return complete_signs (load_b32 (IN_TILE (block, iq3_xxs, signs) + 32 * s));
    case IQ2_S:
        return load_b32 (IN_TILE (block, iq2_s, signs) + 32 * s);
    default:
        return load_b32 (IN_TILE (block, iq3_s, signs) + 32 * s);
    }
}

/* IQ1: what is added to the entries of sub-block s: byte j (all alike in IQ1_S) for group j. */
INLINE b32 shifts_of (const int type, const uint8_t *block, int s, b32 scales, const int offset)
{
    b32 v = type == IQ1_S ? spread_b32 (scales, s / 2) : load_b32 (IN_TILE (block, iq1_m, qh) + s / 2 * 32);
    b32 less = test_b32 (v, set_b32 (s % 2 ? 0x80 : 0x08));
    return add_b32 (or_b32 (less, set_b32 (1)), set_b32 (offset)); /* -1 or 1 */
}

INLINE void expand_entries (const int type, const int offset, uint8_t *out, const uint8_t *block)
{
    const uint64_t *grid = type == IQ2_XXS  ? iq2_xxs_grid
                           : type == IQ2_XS ? iq2_xs_grid
                           : type == IQ2_S  ? iq2_s_grid
                                            : iq1_grid;
    const uint32_t *grid_4 = type == IQ3_XXS ? iq3_xxs_grid : iq3_s_grid;
    const bool four = has_four (type), shifted = type == IQ1_S || type == IQ1_M;
    const b32 scales = type == IQ1_S ? scale_nibbles (type, block, 0) : set_b32 (0);
    uint16_t words[16][32];
    if (has_wide_indices (type))
        widen_indices (type, words, block);
    for (int s = 0; s < 8; s++, out += 256) {
        indices from[2];
        UNROLL for (int i = 0; i < 1 + four; i++)
        {
            const int at = s * (1 + four) + i;
            from[i] = has_wide_indices (type) ? (indices){NULL, words[at]}
                                              : (indices){index_bytes (type, block) + 32 * at, NULL};
        }
        const b32 signs = shifted ? shifts_of (type, block, s, scales, offset) : signs_of (type, block, s);
        UNROLL for (int j = 0; j < 4; j++)
        {
            b32 first, second, of_group = type == IQ1_S ? signs : spread_b32 (signs, j);
            if (four) {
                first = look_up_4 (grid_4, from[j / 2], j % 2 * 2);
                second = look_up_4 (grid_4, from[j / 2], j % 2 * 2 + 1);
            } else
                look_up_8 (grid, from[0], j, &first, &second);
            store_b32 (out + 64 * j,
                       shifted ? add_b32 (first, of_group) : add_signed (first, of_group, 0x08040201, offset));
            store_b32 (out + 64 * j + 32,
                       shifted ? add_b32 (second, of_group) : add_signed (second, of_group, 0x80402010, offset));
        }
    }
}

/* -- Ternary digits ------------------------------------------------------------------------------------------------ */

/* n_digits steps, `apart` bytes from each other: digits - 1 + offset. Bytes are less 128, to be compared as int8. */
INLINE void expand_digits (uint8_t *out, size_t apart, const int n_digits, const uint8_t *packed, const int offset)
{
    b32 v = xor_b32 (load_b32 (packed), set_b32 (0x80));
    UNROLL for (int n = 0; n < n_digits; n++, out += apart)
    {
        /* 3 * byte / 256: is it at least 256, is it at least 512? */
        b32 one = greater_b32 (v, set_b32 (85 - 128)), two = greater_b32 (v, set_b32 (170 - 128));
        store_b32 (out, sub_b32 (sub_b32 (set_b32 (offset - 1), one), two));
        v = add_b32 (v, add_b32 (v, v)); /* 3 (b - 128) = 3 b - 128 modulo 256 */
    }
}

INLINE void expand_ternary (const int offset, uint8_t *out, const uint8_t *block)
{
    const uint8_t *packed = IN_TILE (block, tq1_0, qs);
    for (int w = 0; w < 8; w++)
        expand_digits (out + 32 * w, 8 * 32, 5, packed + 32 * w, offset);
    for (int w = 0; w < 4; w++)
        expand_digits (out + 32 * (40 + w), 4 * 32, 5, packed + 32 * (8 + w), offset);
    expand_digits (out + 32 * 60, 32, 4, packed + 32 * 12, offset);
}

/* -------------------------------------------------------------------------------------------------------------------*/

/* EXPANDED_BYTES of weights plus `offset`, step by step. */
INLINE void expand (const int type, const int offset, uint8_t *out, const uint8_t *block)
{
    if (type == TQ1_0)
        expand_ternary (offset, out, block);
    else
        expand_entries (type, offset, out, block);
}

#endif
