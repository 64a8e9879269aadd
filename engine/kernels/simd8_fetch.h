/* One step's weights from a packed tile: 4 elements of 8 rows, or of the 16 rows of two tiles. Included once for each,
 * where FETCH is its name, STEP its vector, BLOCK what holds the packed block, and LOAD (block, offset), MASKED,
 * SHIFT_RIGHT, OR and LOOK_UP say how those are read and worked on; undefines them. */
INLINE STEP FETCH (const int type, BLOCK block, int outer, const int inner, const int k)
{
    const int quarter = inner / 2,
              step = inner % 2 * 4 + k; /* of 128 elements in the types of 16 groups, of the block in those of 32 */
    switch (type) {
    case Q4_0:
    case Q4_1:
    case IQ4_NL: {
        STEP v = LOAD (block, (type == Q4_1 ? offsetof (tile_q4_1, qs) : offsetof (tile_q4_0, qs)) + k * 32);
        v = MASKED (v, inner * 4, 15);
        return type == IQ4_NL ? LOOK_UP (iq4_codebook, v) : v;
    }
    case Q5_0:
    case Q5_1: {
        size_t qh = type == Q5_0 ? offsetof (tile_q5_0, qh) : offsetof (tile_q5_1, qh);
        STEP v = MASKED (LOAD (block, qh + 32 + k * 32), inner * 4, 15);
        return OR (v, MASKED (LOAD (block, qh), step - 4, 16));
    }
    case Q8_0:
        return LOAD (block, offsetof (tile_q8_0, qs) + step * 32);
    case MXFP4:
        return LOOK_UP (mxfp4_raised, MASKED (LOAD (block, 8 * offsetof (row_mxfp4, qs) + k * 32), inner * 4, 15));
    case TQ2_0:
        return MASKED (LOAD (block, 8 * offsetof (row_tq2_0, qs) + (outer * 8 + k) * 32), 2 * inner, 3);
    case Q2_K:
        return MASKED (LOAD (block, offsetof (tile_q2_k, qs) + (outer * 8 + step) * 32), 2 * quarter, 3);
    case Q3_K: {
        STEP low = MASKED (LOAD (block, offsetof (tile_q3_k, qs) + (outer * 8 + step) * 32), 2 * quarter, 3);
        STEP high = LOAD (block, offsetof (tile_q3_k, hmask) + step * 32);
        high = SHIFT_RIGHT (high, 4 * outer);
        return OR (low, MASKED (high, quarter - 2, 4));
    }
    case Q4_K:
        return MASKED (LOAD (block, offsetof (tile_q4_k, qs) + (outer * 8 + k) * 32), 4 * inner, 15);
    case Q5_K: {
        STEP low = MASKED (LOAD (block, offsetof (tile_q5_k, qs) + (outer * 8 + k) * 32), 4 * inner, 15);
        STEP high = LOAD (block, offsetof (tile_q5_k, qh) + k * 32);
        high = SHIFT_RIGHT (high, 2 * outer);
        return OR (low, MASKED (high, inner - 4, 16));
    }
    case Q6_K: {
        STEP low = LOAD (block, offsetof (tile_q6_k, ql) + (outer * 16 + quarter % 2 * 8 + step) * 32);
        STEP high = LOAD (block, offsetof (tile_q6_k, qh) + (outer * 8 + step) * 32);
        return OR (MASKED (low, quarter / 2 * 4, 15), MASKED (high, 2 * quarter - 4, 0x30));
    }
    case IQ4_XS:
        return LOOK_UP (iq4_codebook,
                        MASKED (LOAD (block, offsetof (tile_iq4_xs, qs) + (outer * 4 + k % 4) * 32), k / 4 * 4, 15));
    default:
        return LOAD (block, (outer * group_steps (type) + k) * 32);
    }
}

#undef FETCH
#undef STEP
#undef BLOCK
#undef LOAD
#undef MASKED
#undef SHIFT_RIGHT
#undef OR
#undef LOOK_UP
