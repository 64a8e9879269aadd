/* Block layouts: what a GGUF file stores (file_*), and how 8 rows of it lie interleaved in a tile (tile_*).
 *
 * One idea for all quantized formats: a row's packed bytes are cut into dwords, and the dwords of 8 rows stand side
 * by side,
 *     vector w = [row 0 dword w][row 1 dword w] … [row 7 dword w]                (32 bytes)
 * so that one 32-byte load, a shift and a mask give 4 consecutive elements of each of 8 rows, as the byte dot products
 * of AVX2 and NEON want them; activations are broadcast 4 bytes at a time. Such a group of 4 elements is called a step.
 * A tile is as long as the 8 rows were in the file, and holds the same bits.
 *
 * All members are bytes or inside packed structs: a tile or row may lie at any address. Both are little-endian, as GGUF
 * is. Format descriptions: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md and gguf-py's quants. */
#ifndef WL_ENGINE_KERNELS_FORMATS_H
#define WL_ENGINE_KERNELS_FORMATS_H

#include <stddef.h>
#include <stdint.h>

#include "kernels.h"

#define PACKED __attribute__ ((packed))

/* -- As the file stores them. Element order is said where a byte holds several. ------------------------------------ */

/* 32 elements: byte i of qs has element i in its low nibble and i + 16 in its high one; bit e of qh is element e's
 * fifth bit. */
typedef struct PACKED file_q4_0 {
    uint16_t d;
    uint8_t qs[16];
} file_q4_0; /* d (q - 8) */
typedef struct PACKED file_q4_1 {
    uint16_t d, m;
    uint8_t qs[16];
} file_q4_1; /* d q + m */
typedef struct PACKED file_q5_0 {
    uint16_t d;
    uint8_t qh[4];
    uint8_t qs[16];
} file_q5_0; /* d (q - 16) */
typedef struct PACKED file_q5_1 {
    uint16_t d, m;
    uint8_t qh[4];
    uint8_t qs[16];
} file_q5_1; /* d q + m */
typedef struct PACKED file_q8_0 {
    uint16_t d;
    int8_t qs[32];
} file_q8_0; /* d q */
typedef struct PACKED file_iq4_nl {
    uint16_t d;
    uint8_t qs[16];
} file_iq4_nl; /* d codebook[q] */

/* 256 elements.
 * Q2_K: half h, byte l (0..31), bits 2j: element 128 h + 32 j + l; scales[e / 16]: low nibble scale, high nibble min.
 * Q3_K: qs as Q2_K; hmask[l] bit (4 h + j) set adds 4; 16 scales of 6 bits: low 4 bits in bytes 0-7 (low nibbles:
 *       scales 0-7, high ones: 8-15), high 2 bits of scale i in byte 8 + i % 4 at bit 2 (i / 4); less 32.
 * Q4_K: chunk c of 64: 32 bytes, low nibbles element 64 c + l, high ones 64 c + 32 + l. 8 scales and 8 mins of 6 bits
 *       in 12 bytes: byte i: scale i; byte 4 + i: min i (low 6 bits, i < 4); byte 8 + i: low 4 bits of scale 4 + i and
 *       (high nibble) min 4 + i, whose upper 2 bits are the upper 2 bits of bytes i and 4 + i.
 * Q5_K: as Q4_K; bit j of qh[l] is the fifth bit of element 32 j + l.
 * Q6_K: half h: byte 64 h + l (l 0..63) of ql: low nibble element 128 h + l, high one 128 h + 64 + l; byte 32 h + l 
 *       (l 0..31) of qh, bits 2j: upper two bits of element 128 h + 32 j + l.
 * IQ4_XS: sub-block b: 16 bytes as Q4_0; scale b: low 4 bits nibble b of scales_l, high 2 bits at bit 2b of scales_h;
 *       less 32. */
typedef struct PACKED file_q2_k {
    uint8_t scales[16];
    uint8_t qs[64];
    uint16_t d, dmin;
} file_q2_k;
typedef struct PACKED file_q3_k {
    uint8_t hmask[32];
    uint8_t qs[64];
    uint8_t scales[12];
    uint16_t d;
} file_q3_k;
typedef struct PACKED file_q4_k {
    uint16_t d, dmin;
    uint8_t scales[12];
    uint8_t qs[128];
} file_q4_k;
typedef struct PACKED file_q5_k {
    uint16_t d, dmin;
    uint8_t scales[12];
    uint8_t qh[32];
    uint8_t qs[128];
} file_q5_k;
typedef struct PACKED file_q6_k {
    uint8_t ql[128];
    uint8_t qh[64];
    int8_t scales[16];
    uint16_t d;
} file_q6_k;
typedef struct PACKED file_iq4_xs {
    uint16_t d;
    uint8_t scales_h[2], scales_l[4];
    uint8_t qs[128];
} file_iq4_xs;

/* 256 elements, in groups of 8 that a codebook entry (IQ1, IQ2) or two (IQ3, 4 elements each) and 8 signs describe. A
 * scale s stands for 2 s + 1. Sub-block b: 32 elements, groups 4 b + j.
 * IQ2_XXS: sub-block: 4 indices; a number of 32 bits: 7 sign bits of group j at bit 7 j, the scale in the upper 4.
 * IQ2_XS: group: index in the lower 9 bits, 7 sign bits above. Scales of 16 elements, low nibble first.
 * IQ2_S: qs: lower 8 index bits; signs: 8 a group; 2 upper index bits of group 4 b + j at bit 2 j of qh[b]; scales as
 *        IQ2_XS.
 * IQ3_XXS: indices; a number of 32 bits for each sub-block as in IQ2_XXS.
 * IQ3_S: qs: lower 8 index bits, the ninth of index 8 b + i at bit i of qh[b]; signs: 8 a group; scales of 32 elements.
 * IQ1_S: lower 8 index bits; qh: 3 upper ones of group 4 b + j at bit 3 j of qh[b], the sub-block's scale at bit 12, and
 *        bit 15: its elements are 1/8 less than the entry, else 1/8 more.
 * IQ1_M: as IQ1_S, but with 4 bits a group in qh (low nibble first), whose upper one says less or more; scales of 16
 *        elements at bit 3 (k % 4) of scales[k / 4], whose upper 4 bits hold bits 4 i of d in scales[i].
 * Of 7 sign bits the eighth follows: the number of ones is even.
 * TQ1_0: 5 elements (4 in qh) a byte: element n is the integer part of 3 (byte * 3^n mod 256) / 256, less 1. Byte i
 *        holds elements 32 n + i (i < 32); 160 + 16 n + (i - 32) (i < 48); qh[i]: 240 + 4 n + i.
 * TQ2_0: qs as Q2_K; less 1. */
typedef struct PACKED file_iq2_xxs {
    uint16_t d;
    struct PACKED {
        uint8_t index[4];
        uint32_t signs;
    } sub[8];
} file_iq2_xxs; /* d / 8 * scale * entry */
typedef struct PACKED file_iq2_xs {
    uint16_t d, qs[32];
    uint8_t scales[8];
} file_iq2_xs; /* d / 8 * scale * entry */
typedef struct PACKED file_iq2_s {
    uint16_t d;
    uint8_t qs[32], signs[32], qh[8], scales[8];
} file_iq2_s; /* d / 8 * scale * entry */
typedef struct PACKED file_iq3_xxs {
    uint16_t d;
    uint8_t qs[64];
    uint32_t signs[8];
} file_iq3_xxs; /* d / 4 * scale * entry */
typedef struct PACKED file_iq3_s {
    uint16_t d;
    uint8_t qs[64], qh[8], signs[32], scales[4];
} file_iq3_s; /* d * scale * entry */
typedef struct PACKED file_iq1_s {
    uint16_t d;
    uint8_t qs[32];
    uint16_t qh[8];
} file_iq1_s; /* d * scale * (entry +- 1/8) */
typedef struct PACKED file_iq1_m {
    uint8_t qs[32], qh[16];
    uint16_t scales[4];
} file_iq1_m; /* d * scale * (entry +- 1/8) */
typedef struct PACKED file_tq1_0 {
    uint8_t qs[48], qh[4];
    uint16_t d;
} file_tq1_0; /* d q */
typedef struct PACKED file_tq2_0 {
    uint8_t qs[64];
    uint16_t d;
} file_tq2_0; /* d q */

/* 32 elements as Q4_0; e: an exponent (OCP Microscaling's E8M0, of half the value as the codebook has twice the
 * elements'). */
typedef struct PACKED file_mxfp4 {
    uint8_t e;
    uint8_t qs[16];
} file_mxfp4; /* 2^(e - 128) codebook[q] */

/* -- Tiles: 8 rows of one block. [..][8] is by row; qs[w][row][4] are vectors of dwords. --------------------------- */

typedef struct PACKED tile_q4_0 {
    uint16_t d[8];
    uint8_t qs[4][8][4];
} tile_q4_0;
typedef struct PACKED tile_q4_1 {
    uint16_t d[8], m[8];
    uint8_t qs[4][8][4];
} tile_q4_1;
/* qh: byte i of a row's dword holds, at bit s, the fifth bit of element 4 s + i: one vector serves all 8 steps by
 * shifts. */
typedef struct PACKED tile_q5_0 {
    uint16_t d[8];
    uint8_t qh[8][4];
    uint8_t qs[4][8][4];
} tile_q5_0;
typedef struct PACKED tile_q5_1 {
    uint16_t d[8], m[8];
    uint8_t qh[8][4];
    uint8_t qs[4][8][4];
} tile_q5_1;
typedef struct PACKED tile_q8_0 {
    uint16_t d[8];
    int8_t qs[8][8][4];
} tile_q8_0;
typedef struct PACKED tile_iq4_nl {
    uint16_t d[8];
    uint8_t qs[4][8][4];
} tile_iq4_nl;

typedef struct PACKED tile_q2_k {
    uint16_t d[8], dmin[8];
    uint8_t scales[16][8];
    uint8_t qs[16][8][4];
} tile_q2_k;
typedef struct PACKED tile_q3_k {
    uint16_t d[8];
    uint8_t scales[12][8];
    uint8_t hmask[8][8][4];
    uint8_t qs[16][8][4];
} tile_q3_k;
typedef struct PACKED tile_q4_k {
    uint16_t d[8], dmin[8];
    uint8_t scales[12][8];
    uint8_t qs[32][8][4];
} tile_q4_k;
typedef struct PACKED tile_q5_k {
    uint16_t d[8], dmin[8];
    uint8_t scales[12][8];
    uint8_t qh[8][8][4];
    uint8_t qs[32][8][4];
} tile_q5_k;
typedef struct PACKED tile_q6_k {
    uint16_t d[8];
    int8_t scales[16][8];
    uint8_t ql[32][8][4];
    uint8_t qh[16][8][4];
} tile_q6_k;
typedef struct PACKED tile_iq4_xs {
    uint16_t d[8];
    uint8_t scales_h[2][8], scales_l[4][8];
    uint8_t qs[32][8][4];
} tile_iq4_xs;

/* The other types' bits are put in another order first, a row at a time. A tile is then 8 such rows interleaved: d (and
 * scales_h) by 2 bytes, e by 1, the rest by dwords. So what stands at byte i of a row stands at 8 i of the tile, and is
 * in a vector of dwords whose byte j belongs to group j of a sub-block of 32, or to element j of a step.
 *
 * Scales are nibbles of a dword, or two, of each row: group g at bit 4 (g % 8) of dword g / 8. Where a file has no such
 * dword (IQ2_XXS, IQ3_XXS, IQ1_S) its bits fill what other bytes have to spare.
 *   signs: 8 bits of group g. IQ2_XXS, IQ3_XXS: 7; bit 7 of signs[4 b + j] is bit 8 j + b of the scales.
 *                             IQ2_XS: 7; bit 7 is the index's ninth bit.
 *   qh:    IQ2_S: bits 2 i of byte 4 u + j: group j of sub-block 4 u + i.
 *          IQ3_S: bit 2 i + h of byte 4 u + j: index 4 h + j of sub-block 4 u + i.
 *          IQ1: nibble i of byte 4 p + j: group j of sub-block 2 p + i; 3 index bits, and (IQ1_M) the sign of 1/8.
 *               IQ1_S: bit 3 of nibble i of byte 4 p + j is bit 8 j + 4 i + p of the scales, whose nibbles have a
 *               scale's 3 bits and the sign of 1/8.
 *   IQ1_M's scales of 3 bits: those of groups 0 to 7 fill the dword but for the upper bit of each nibble. There are the
 *               lower bits of groups 8 to 15; their upper two, as bits 1 and 2 of the nibbles of a dword x, are in
 *               scales_h: (x & 0x6666) >> 1 | (x >> 16 & 0x6666) << 1. */
typedef struct PACKED row_iq2_xxs {
    uint16_t d;
    uint8_t qs[32], signs[32];
} row_iq2_xxs;
typedef struct PACKED row_iq2_xs {
    uint16_t d;
    uint8_t qs[32], signs[32];
    uint32_t scales[2];
} row_iq2_xs;
typedef struct PACKED row_iq2_s {
    uint16_t d;
    uint8_t qs[32], signs[32], qh[8];
    uint32_t scales[2];
} row_iq2_s;
typedef struct PACKED row_iq3_xxs {
    uint16_t d;
    uint8_t qs[64], signs[32];
} row_iq3_xxs;
typedef struct PACKED row_iq3_s {
    uint16_t d;
    uint8_t qs[64], signs[32], qh[8];
    uint32_t scales[1];
} row_iq3_s;
typedef struct PACKED row_iq1_s {
    uint16_t d;
    uint8_t qs[32], qh[16];
} row_iq1_s;
typedef struct PACKED row_iq1_m {
    uint16_t d, scales_h;
    uint8_t qs[32], qh[16];
    uint32_t scales[1];
} row_iq1_m;
typedef struct PACKED row_tq1_0 {
    uint16_t d;
    uint8_t qs[52]; /* and qh */
} row_tq1_0;
typedef struct PACKED row_tq2_0 {
    uint16_t d;
    uint8_t qs[64];
} row_tq2_0;
typedef struct PACKED row_mxfp4 {
    uint8_t e;
    uint8_t qs[16];
} row_mxfp4;

/* -- A block of a tile as plain numbers, for the scalar kernels and tests ------------------------------------------ */

/* w = d * scale * q + m * min; m negative for the K-quants that subtract. q has the type's offset taken in. */
typedef struct plain_block {
    float d[8], m[8];     /* d: times low_bit_factor; m: Q4_1 Q5_1 m, Q2_K Q4_K Q5_K -dmin, else 0 */
    int8_t q[8][256];     /* [row][element] */
    int16_t scale[8][16]; /* [row][element / 16]; 1 in the formats without */
    int16_t min[8][16];   /* likewise; 1 in Q4_1 and Q5_1 */
} plain_block;

/* NULL for F32, F16, BF16, whose tiles are plain: [element][8 rows]. */
typedef void (*unpack_block_fn) (plain_block *out, const void *tile_block);
unpack_block_fn find_unpack_block (wl_type type);

/* formats_low_bit.c: IQ1, IQ2, IQ3, TQ1_0, TQ2_0 and MXFP4. */
enum { N_LOW_BIT_FORMATS = 10 };
extern const wl_format low_bit_formats[N_LOW_BIT_FORMATS];
unpack_block_fn find_unpack_low_bit (wl_type type);

extern const int8_t iq4_codebook[16];
extern const int8_t mxfp4_codebook[16]; /* twice the elements of e2m1 */

/* codebooks.c: the entries, an element a byte, the first lowest. IQ1's are times 8. */
extern const uint64_t iq2_xxs_grid[256], iq2_xs_grid[512], iq2_s_grid[1024], iq1_grid[2048];
extern const uint32_t iq3_xxs_grid[256], iq3_s_grid[512];

/* The largest magnitude of an integer weight, and of a scale, whose bounds the SIMD kernels rely on. */
enum {
    LARGEST_IQ1 = 9,
    LARGEST_IQ2 = 43,
    LARGEST_IQ3_XXS = 62,
    LARGEST_IQ3_S = 15,
    LARGEST_TQ = 2,
    LARGEST_MXFP4 = 12,
    LARGEST_IQ_SCALE = 31
};
_Static_assert(256 * 127 * LARGEST_IQ3_XXS * LARGEST_IQ_SCALE < INT32_MAX, "isum of every IQ type is an int32");

#endif
