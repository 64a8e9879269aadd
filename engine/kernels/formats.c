/* The weight formats: dequantizing a row as the file stores it, and interleaving 8 rows into a tile; see formats.h. */
#include "formats.h"

#include <string.h>

#include "math.h"

const int8_t iq4_codebook[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

/* -- Small parts --------------------------------------------------------------------------------------------------- */

/* Scale (or min) j of Q4_K and Q5_K. Byte i of the 12 stands at scales[i * stride]: stride 1 in a file, 8 in a tile. */
static void q4_k_scale (const uint8_t *scales, size_t stride, unsigned j, int *scale, int *min)
{
    if (j < 4) {
        *scale = scales[j * stride] & 63;
        *min = scales[(j + 4) * stride] & 63;
    } else {
        unsigned low = scales[(j + 4) * stride];
        *scale = (int) ((low & 15) | (scales[(j - 4) * stride] >> 6 << 4));
        *min = (int) ((low >> 4) | (scales[j * stride] >> 6 << 4));
    }
}

static int q3_k_scale (const uint8_t *scales, size_t stride, unsigned j)
{
    unsigned low = scales[(j % 8) * stride] >> (j / 8 * 4) & 15;
    unsigned high = scales[(8 + j % 4) * stride] >> (j / 4 * 2) & 3;
    return (int) (low | high << 4) - 32;
}

static int iq4_xs_scale (const uint8_t *low, const uint8_t *high, size_t stride, unsigned j)
{
    return (int) ((low[j / 2 * stride] >> (j % 2 * 4) & 15) | (high[j / 4 * stride] >> (j % 4 * 2) & 3) << 4) - 32;
}

static unsigned nibble (unsigned byte, unsigned high)
{
    return high ? byte >> 4 : byte & 15;
}

/* -- Dequantizing -------------------------------------------------------------------------------------------------- */

static void dequantize_f32 (float *out, const void *row, size_t n)
{
    memcpy (out, row, n * sizeof (float));
}

static void dequantize_f16 (float *out, const void *row, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy (&h, (const char *) row + 2 * i, 2);
        out[i] = wl_f16_to_f32 (h);
    }
}

static void dequantize_bf16 (float *out, const void *row, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy (&h, (const char *) row + 2 * i, 2);
        uint32_t u = (uint32_t) h << 16;
        memcpy (&out[i], &u, 4);
    }
}

static void dequantize_q4_0 (float *out, const void *row, size_t n)
{
    const file_q4_0 *b = row;
    for (; n; n -= 32, b++) {
        float d = wl_f16_to_f32 (b->d);
        for (unsigned i = 0; i < 32; i++)
            *out++ = d * (float) ((int) nibble (b->qs[i % 16], i / 16) - 8);
    }
}

static void dequantize_q4_1 (float *out, const void *row, size_t n)
{
    const file_q4_1 *b = row;
    for (; n; n -= 32, b++) {
        float d = wl_f16_to_f32 (b->d), m = wl_f16_to_f32 (b->m);
        for (unsigned i = 0; i < 32; i++)
            *out++ = d * (float) nibble (b->qs[i % 16], i / 16) + m;
    }
}

static unsigned fifth_bit (const uint8_t qh[4], unsigned i)
{
    return qh[i / 8] >> (i % 8) & 1;
}

static void dequantize_q5_0 (float *out, const void *row, size_t n)
{
    const file_q5_0 *b = row;
    for (; n; n -= 32, b++) {
        float d = wl_f16_to_f32 (b->d);
        for (unsigned i = 0; i < 32; i++)
            *out++ = d * (float) ((int) (nibble (b->qs[i % 16], i / 16) | fifth_bit (b->qh, i) << 4) - 16);
    }
}

static void dequantize_q5_1 (float *out, const void *row, size_t n)
{
    const file_q5_1 *b = row;
    for (; n; n -= 32, b++) {
        float d = wl_f16_to_f32 (b->d), m = wl_f16_to_f32 (b->m);
        for (unsigned i = 0; i < 32; i++)
            *out++ = d * (float) (nibble (b->qs[i % 16], i / 16) | fifth_bit (b->qh, i) << 4) + m;
    }
}

static void dequantize_q8_0 (float *out, const void *row, size_t n)
{
    const file_q8_0 *b = row;
    for (; n; n -= 32, b++) {
        float d = wl_f16_to_f32 (b->d);
        for (unsigned i = 0; i < 32; i++)
            *out++ = d * (float) b->qs[i];
    }
}

static void dequantize_iq4_nl (float *out, const void *row, size_t n)
{
    const file_iq4_nl *b = row;
    for (; n; n -= 32, b++) {
        float d = wl_f16_to_f32 (b->d);
        for (unsigned i = 0; i < 32; i++)
            *out++ = d * (float) iq4_codebook[nibble (b->qs[i % 16], i / 16)];
    }
}

static void dequantize_q2_k (float *out, const void *row, size_t n)
{
    const file_q2_k *b = row;
    for (; n; n -= 256, b++) {
        float d = wl_f16_to_f32 (b->d), dmin = wl_f16_to_f32 (b->dmin);
        for (unsigned e = 0; e < 256; e++) {
            float scale = d * (float) (b->scales[e / 16] & 15), min = dmin * (float) (b->scales[e / 16] >> 4);
            *out++ = scale * (float) (b->qs[e / 128 * 32 + e % 32] >> (e % 128 / 32 * 2) & 3) - min;
        }
    }
}

static void dequantize_q3_k (float *out, const void *row, size_t n)
{
    const file_q3_k *b = row;
    for (; n; n -= 256, b++) {
        float d = wl_f16_to_f32 (b->d);
        for (unsigned e = 0; e < 256; e++) {
            int low = b->qs[e / 128 * 32 + e % 32] >> (e % 128 / 32 * 2) & 3, high = b->hmask[e % 32] >> (e / 32) & 1;
            *out++ = d * (float) q3_k_scale (b->scales, 1, e / 16) * (float) (low + 4 * high - 4);
        }
    }
}

static void dequantize_q4_k (float *out, const void *row, size_t n)
{
    const file_q4_k *b = row;
    for (; n; n -= 256, b++) {
        float d = wl_f16_to_f32 (b->d), dmin = wl_f16_to_f32 (b->dmin);
        for (unsigned j = 0; j < 8; j++) {
            int scale, min;
            q4_k_scale (b->scales, 1, j, &scale, &min);
            for (unsigned l = 0; l < 32; l++)
                *out++ = d * (float) scale * (float) nibble (b->qs[j / 2 * 32 + l], j % 2) - dmin * (float) min;
        }
    }
}

static void dequantize_q5_k (float *out, const void *row, size_t n)
{
    const file_q5_k *b = row;
    for (; n; n -= 256, b++) {
        float d = wl_f16_to_f32 (b->d), dmin = wl_f16_to_f32 (b->dmin);
        for (unsigned j = 0; j < 8; j++) {
            int scale, min;
            q4_k_scale (b->scales, 1, j, &scale, &min);
            for (unsigned l = 0; l < 32; l++) {
                unsigned q = nibble (b->qs[j / 2 * 32 + l], j % 2) | (b->qh[l] >> j & 1) << 4;
                *out++ = d * (float) scale * (float) q - dmin * (float) min;
            }
        }
    }
}

static void dequantize_q6_k (float *out, const void *row, size_t n)
{
    const file_q6_k *b = row;
    for (; n; n -= 256, b++) {
        float d = wl_f16_to_f32 (b->d);
        for (unsigned e = 0; e < 256; e++) {
            unsigned h = e / 128, low = nibble (b->ql[h * 64 + e % 64], e % 128 / 64);
            unsigned high = b->qh[h * 32 + e % 32] >> (e % 128 / 32 * 2) & 3, group = e / 16;
            *out++ = d * (float) b->scales[group] * (float) ((int) (low | high << 4) - 32);
        }
    }
}

static void dequantize_iq4_xs (float *out, const void *row, size_t n)
{
    const file_iq4_xs *b = row;
    for (; n; n -= 256, b++) {
        float d = wl_f16_to_f32 (b->d);
        for (unsigned e = 0; e < 256; e++) {
            float scale = d * (float) iq4_xs_scale (b->scales_l, b->scales_h, 1, e / 32);
            *out++ = scale * (float) iq4_codebook[nibble (b->qs[e / 32 * 16 + e % 16], e % 32 / 16)];
        }
    }
}

/* -- Packing ------------------------------------------------------------------------------------------------------- */

static const uint8_t zero_block[256]; /* stands for a row of padding; larger than any file block */

/* n dwords of each of 8 rows, from byte `at` on, side by side. */
static void interleave_dwords (void *out, const uint8_t *const rows[8], size_t at, size_t n)
{
    uint8_t *o = out;
    for (size_t w = 0; w < n; w++)
        for (int r = 0; r < 8; r++, o += 4)
            memcpy (o, rows[r] + at + 4 * w, 4);
}

/* n bytes of each of 8 rows, from byte `at` on: [byte][row]. */
static void interleave_bytes (void *out, const uint8_t *const rows[8], size_t at, size_t n)
{
    uint8_t *o = out;
    for (size_t i = 0; i < n; i++)
        for (int r = 0; r < 8; r++)
            *o++ = rows[r][at + i];
}

static void interleave_f16 (void *out, const uint8_t *const rows[8], size_t at)
{
    for (int r = 0; r < 8; r++)
        memcpy ((uint8_t *) out + 2 * r, rows[r] + at, 2);
}

/* Bits 0, 4, 8, … 28 of x, side by side. */
static uint8_t gather_nibble_ends (uint32_t x)
{
    x &= 0x11111111;
    x = (x | x >> 3) & 0x03030303;
    x = (x | x >> 6) & 0x000f000f;
    return (uint8_t) (x | x >> 12);
}

/* Fifth bits: from bit e of 32 to byte e % 4, bit e / 4. */
static void interleave_fifth_bits (void *out, const uint8_t *const rows[8], size_t at)
{
    uint8_t *o = out;
    for (int r = 0; r < 8; r++) {
        uint32_t bits;
        memcpy (&bits, rows[r] + at, 4);
        for (unsigned i = 0; i < 4; i++)
            *o++ = gather_nibble_ends (bits >> i);
    }
}

/* One block of 8 rows. The tile's members are filled from the file's members of the same name. */
#define TILE_AT(type, member) ((uint8_t *) tile + offsetof (tile_##type, member))
#define FILE_BYTES(type, member) (sizeof (((file_##type *) 0)->member))
#define PACK_F16(type, member) interleave_f16 (TILE_AT (type, member), rows, offsetof (file_##type, member))
#define PACK_BYTES(type, member) \
    interleave_bytes (TILE_AT (type, member), rows, offsetof (file_##type, member), FILE_BYTES (type, member))
#define PACK_DWORDS(type, member) \
    interleave_dwords (TILE_AT (type, member), rows, offsetof (file_##type, member), FILE_BYTES (type, member) / 4)
#define PACK_FIFTH_BITS(type, member) \
    interleave_fifth_bits (TILE_AT (type, member), rows, offsetof (file_##type, member))

/* Defines pack_TYPE from the statements that fill one tile block. */
#define DEFINE_PACK(type, block_elements, ...)                                                               \
    static void pack_##type (void *out, const void *const sources[8], size_t n)                              \
    {                                                                                                        \
        tile_##type *tile = out;                                                                             \
        for (size_t b = 0; b < n / (block_elements); b++, tile++) {                                          \
            const uint8_t *rows[8];                                                                          \
            for (int r = 0; r < 8; r++)                                                                      \
                rows[r] = sources[r] ? (const uint8_t *) sources[r] + b * sizeof (file_##type) : zero_block; \
            __VA_ARGS__                                                                                      \
        }                                                                                                    \
    }

DEFINE_PACK (q4_0, 32, PACK_F16 (q4_0, d); PACK_DWORDS (q4_0, qs);)
DEFINE_PACK (q4_1, 32, PACK_F16 (q4_1, d); PACK_F16 (q4_1, m); PACK_DWORDS (q4_1, qs);)
DEFINE_PACK (q5_0, 32, PACK_F16 (q5_0, d); PACK_FIFTH_BITS (q5_0, qh); PACK_DWORDS (q5_0, qs);)
DEFINE_PACK (q5_1, 32, PACK_F16 (q5_1, d); PACK_F16 (q5_1, m); PACK_FIFTH_BITS (q5_1, qh); PACK_DWORDS (q5_1, qs);)
DEFINE_PACK (q8_0, 32, PACK_F16 (q8_0, d); PACK_DWORDS (q8_0, qs);)
DEFINE_PACK (iq4_nl, 32, PACK_F16 (iq4_nl, d); PACK_DWORDS (iq4_nl, qs);)
DEFINE_PACK (q2_k, 256, PACK_F16 (q2_k, d); PACK_F16 (q2_k, dmin); PACK_BYTES (q2_k, scales); PACK_DWORDS (q2_k, qs);)
DEFINE_PACK (q3_k, 256, PACK_F16 (q3_k, d); PACK_BYTES (q3_k, scales); PACK_DWORDS (q3_k, hmask);
             PACK_DWORDS (q3_k, qs);)
DEFINE_PACK (q4_k, 256, PACK_F16 (q4_k, d); PACK_F16 (q4_k, dmin); PACK_BYTES (q4_k, scales); PACK_DWORDS (q4_k, qs);)
DEFINE_PACK (q5_k, 256, PACK_F16 (q5_k, d); PACK_F16 (q5_k, dmin); PACK_BYTES (q5_k, scales); PACK_DWORDS (q5_k, qh);
             PACK_DWORDS (q5_k, qs);)
DEFINE_PACK (q6_k, 256, PACK_F16 (q6_k, d); PACK_BYTES (q6_k, scales); PACK_DWORDS (q6_k, ql); PACK_DWORDS (q6_k, qh);)
DEFINE_PACK (iq4_xs, 256, PACK_F16 (iq4_xs, d); PACK_BYTES (iq4_xs, scales_h); PACK_BYTES (iq4_xs, scales_l);
             PACK_DWORDS (iq4_xs, qs);)

static void pack_f32 (void *tile, const void *const rows[8], size_t n)
{
    char *o = tile;
    for (size_t i = 0; i < n; i++)
        for (int r = 0; r < 8; r++, o += 4)
            memcpy (o, rows[r] ? (const uint8_t *) rows[r] + 4 * i : zero_block, 4);
}

static void pack_16_bit (void *tile, const void *const rows[8], size_t n) /* f16 and bf16 */
{
    char *o = tile;
    for (size_t i = 0; i < n; i++)
        for (int r = 0; r < 8; r++, o += 2)
            memcpy (o, rows[r] ? (const uint8_t *) rows[r] + 2 * i : zero_block, 2);
}

/* -- Tile blocks as plain numbers ---------------------------------------------------------------------------------- */

/* Dword vectors: byte of row r at byte index l of its packed bytes. */
#define AT(vectors, r, l) ((vectors)[(l) / 4][r][(l) % 4])

/* Runs `body` for each row r with d (and m) set and neutral scales. */
#define DEFINE_UNPACK(type, m_value, ...)                         \
    static void unpack_##type (plain_block *p, const void *block) \
    {                                                             \
        const tile_##type *t = block;                             \
        for (unsigned r = 0; r < 8; r++) {                        \
            p->d[r] = wl_f16_to_f32 (t->d[r]);                    \
            p->m[r] = (m_value);                                  \
            __VA_ARGS__                                           \
        }                                                         \
    }
#define DEFINE_UNPACK_32(type, m_value, value)                                                        \
    DEFINE_UNPACK (type, m_value, for (unsigned j = 0; j < 2; j++) p->scale[r][j] = p->min[r][j] = 1; \
                   for (unsigned e = 0; e < 32; e++) p->q[r][e] = (int8_t) (value);)

#define NIBBLE_32 (int) nibble (AT (t->qs, r, e % 16), e / 16)
#define FIFTH_32 (t->qh[r][e % 4] >> (e / 4) & 1)

DEFINE_UNPACK_32 (q4_0, 0.0f, NIBBLE_32 - 8)
DEFINE_UNPACK_32 (q4_1, wl_f16_to_f32 (t->m[r]), NIBBLE_32)
DEFINE_UNPACK_32 (q5_0, 0.0f, (NIBBLE_32 | FIFTH_32 << 4) - 16)
DEFINE_UNPACK_32 (q5_1, wl_f16_to_f32 (t->m[r]), NIBBLE_32 | FIFTH_32 << 4)
DEFINE_UNPACK_32 (q8_0, 0.0f, AT (t->qs, r, e))
DEFINE_UNPACK_32 (iq4_nl, 0.0f, iq4_codebook[NIBBLE_32])

#define TWO_BITS(vectors) (AT (vectors, r, e / 128 * 32 + e % 32) >> (e % 128 / 32 * 2) & 3)

DEFINE_UNPACK (
    q2_k, -wl_f16_to_f32 (t->dmin[r]), for (unsigned j = 0; j < 16; j++) {
        p->scale[r][j] = t->scales[j][r] & 15;
        p->min[r][j] = t->scales[j][r] >> 4;
    } for (unsigned e = 0; e < 256; e++) p->q[r][e] = TWO_BITS (t->qs);)

DEFINE_UNPACK (
    q3_k, 0.0f,
    for (unsigned j = 0; j < 16; j++) {
        p->scale[r][j] = (int16_t) q3_k_scale (&t->scales[0][r], 8, j);
        p->min[r][j] = 0;
    } for (unsigned e = 0; e < 256; e++)
        p->q[r][e] = (int8_t) (TWO_BITS (t->qs) + (AT (t->hmask, r, e % 32) >> (e / 32) & 1) * 4 - 4);)

#define Q4_K_SCALES                                            \
    for (unsigned j = 0; j < 16; j++) {                        \
        int scale, min;                                        \
        q4_k_scale (&t->scales[0][r], 8, j / 2, &scale, &min); \
        p->scale[r][j] = (int16_t) scale;                      \
        p->min[r][j] = (int16_t) min;                          \
    }
#define Q4_K_NIBBLE nibble (AT (t->qs, r, e / 64 * 32 + e % 32), e % 64 / 32)

DEFINE_UNPACK (q4_k, -wl_f16_to_f32 (t->dmin[r]),
               Q4_K_SCALES for (unsigned e = 0; e < 256; e++) p->q[r][e] = (int8_t) Q4_K_NIBBLE;)
DEFINE_UNPACK (q5_k, -wl_f16_to_f32 (t->dmin[r]),
               Q4_K_SCALES for (unsigned e = 0; e < 256; e++)
                   p->q[r][e] = (int8_t) (Q4_K_NIBBLE | (AT (t->qh, r, e % 32) >> (e / 32) & 1) << 4);)

DEFINE_UNPACK (
    q6_k, 0.0f,
    for (unsigned j = 0; j < 16; j++) {
        p->scale[r][j] = t->scales[j][r];
        p->min[r][j] = 0;
    } for (unsigned e = 0; e < 256; e++) p->q[r][e] =
        (int8_t) ((int) (nibble (AT (t->ql, r, e / 128 * 64 + e % 64), e % 128 / 64) | TWO_BITS (t->qh) << 4) - 32);)

DEFINE_UNPACK (
    iq4_xs, 0.0f,
    for (unsigned j = 0; j < 16; j++) {
        p->scale[r][j] = (int16_t) iq4_xs_scale (&t->scales_l[0][r], &t->scales_h[0][r], 8, j / 2);
        p->min[r][j] = 0;
    } for (unsigned e = 0; e < 256; e++)
        p->q[r][e] = iq4_codebook[nibble (AT (t->qs, r, e / 32 * 16 + e % 16), e % 32 / 16)];)

/* -- The table ----------------------------------------------------------------------------------------------------- */

#define FORMAT_32(TYPE, type)                                                                         \
    {                                                                                                 \
        WL_TYPE_##TYPE, WL_ACTIVATION_Q8_16, 32, sizeof (tile_##type), dequantize_##type, pack_##type \
    }
#define FORMAT_256(TYPE, type)                                                                          \
    {                                                                                                   \
        WL_TYPE_##TYPE, WL_ACTIVATION_Q8_256, 256, sizeof (tile_##type), dequantize_##type, pack_##type \
    }

static const wl_format formats[] = {
    {WL_TYPE_F32, WL_ACTIVATION_F32, 1, 32, dequantize_f32, pack_f32},
    {WL_TYPE_F16, WL_ACTIVATION_F32, 1, 16, dequantize_f16, pack_16_bit},
    {WL_TYPE_BF16, WL_ACTIVATION_F32, 1, 16, dequantize_bf16, pack_16_bit},
    FORMAT_32 (Q4_0, q4_0),
    FORMAT_32 (Q4_1, q4_1),
    FORMAT_32 (Q5_0, q5_0),
    FORMAT_32 (Q5_1, q5_1),
    FORMAT_32 (Q8_0, q8_0),
    FORMAT_32 (IQ4_NL, iq4_nl),
    FORMAT_256 (Q2_K, q2_k),
    FORMAT_256 (Q3_K, q3_k),
    FORMAT_256 (Q4_K, q4_k),
    FORMAT_256 (Q5_K, q5_k),
    FORMAT_256 (Q6_K, q6_k),
    FORMAT_256 (IQ4_XS, iq4_xs),
};

const wl_format *wl_format_find (uint32_t type)
{
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++)
        if ((uint32_t) formats[i].type == type)
            return &formats[i];
    for (size_t i = 0; i < N_LOW_BIT_FORMATS; i++)
        if ((uint32_t) low_bit_formats[i].type == type)
            return &low_bit_formats[i];
    return NULL;
}

unpack_block_fn find_unpack_block (wl_type type)
{
    switch ((int) type) {
    case WL_TYPE_Q4_0:
        return unpack_q4_0;
    case WL_TYPE_Q4_1:
        return unpack_q4_1;
    case WL_TYPE_Q5_0:
        return unpack_q5_0;
    case WL_TYPE_Q5_1:
        return unpack_q5_1;
    case WL_TYPE_Q8_0:
        return unpack_q8_0;
    case WL_TYPE_IQ4_NL:
        return unpack_iq4_nl;
    case WL_TYPE_Q2_K:
        return unpack_q2_k;
    case WL_TYPE_Q3_K:
        return unpack_q3_k;
    case WL_TYPE_Q4_K:
        return unpack_q4_k;
    case WL_TYPE_Q5_K:
        return unpack_q5_k;
    case WL_TYPE_Q6_K:
        return unpack_q6_k;
    case WL_TYPE_IQ4_XS:
        return unpack_iq4_xs;
    default:
        return find_unpack_low_bit (type);
    }
}
