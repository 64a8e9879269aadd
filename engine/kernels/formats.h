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

/* -- A block of a tile as plain numbers, for the scalar kernels and tests ------------------------------------------ */

/* w = d * scale * q + m * min; m negative for the K-quants that subtract. q has the type's offset taken in. */
typedef struct plain_block {
    float d[8], m[8];     /* m: Q4_1 Q5_1 m, Q2_K Q4_K Q5_K -dmin, else 0 */
    int8_t q[8][256];     /* [row][element] */
    int16_t scale[8][16]; /* [row][element / 16]; 1 in the 32-wide formats */
    int16_t min[8][16];   /* likewise; 1 in Q4_1 and Q5_1 */
} plain_block;

/* NULL for F32, F16, BF16, whose tiles are plain: [element][8 rows]. */
typedef void (*unpack_block_fn) (plain_block *out, const void *tile_block);
unpack_block_fn find_unpack_block (wl_type type);

extern const int8_t iq4_codebook[16];

#endif
