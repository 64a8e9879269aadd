/* The formats of few bits: IQ1, IQ2, IQ3 with their codebooks, ternary TQ1_0 and TQ2_0, and MXFP4; see formats.h.
 *
 * All have one shape: d * scale * q with small integers q, so they share the kernels of the other formats without
 * minimums. Steps of scales by halves and entries +- 1/8 are multiplied through to integers, and the power of two is
 * taken into d. Every product below is exact in f32 (at most 11 + 5 + 6 bits), so its order does not matter.
 *
 * A tile is made of rows whose bits are in another order than the file's (formats.h says which): `arrange` makes one,
 * and unpack takes them out again. */
#include "formats.h"

#include <string.h>

#include "math.h"

const int8_t mxfp4_codebook[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/* -- Small parts --------------------------------------------------------------------------------------------------- */

/* 7 sign bits and the eighth, which makes the number of ones even. */
static unsigned even_signs (unsigned signs)
{
    return signs | (unsigned) __builtin_parity (signs) << 7;
}

static uint64_t two_entries (const uint32_t *grid, unsigned first, unsigned second)
{
    return grid[first] | (uint64_t) grid[second] << 32;
}

/* A group of 8 elements: an entry's bytes, negative where `signs` has a one, and `more`. */
static void group_values (int8_t q[8], uint64_t entry, unsigned signs, int more)
{
    for (unsigned i = 0; i < 8; i++) {
        int value = (int8_t) (entry >> (8 * i));
        q[i] = (int8_t) ((signs >> i & 1 ? -value : value) + more);
    }
}

static void put_group (float *out, float scale, uint64_t entry, unsigned signs, int more)
{
    int8_t q[8];
    group_values (q, entry, signs, more);
    for (unsigned i = 0; i < 8; i++)
        out[i] = scale * (float) q[i];
}

static float odd_scale (unsigned nibble) /* 2 s + 1 */
{
    return (float) (2 * nibble + 1);
}

static unsigned nibble (const uint8_t *bytes, unsigned i)
{
    return bytes[i / 2] >> (i % 2 * 4) & 15;
}

static float exponent_value (unsigned e) /* 2^(e - 128) */
{
    uint32_t bits = e < 2 ? UINT32_C (0x00200000) << e : (uint32_t) (e - 1) << 23;
    float value;
    memcpy (&value, &bits, sizeof value);
    return value;
}

/* Ternary digit n of a byte: 0, 1 or 2. */
static int digit (uint8_t byte, unsigned n)
{
    static const uint8_t powers[5] = {1, 3, 9, 27, 81};
    return (uint8_t) (byte * powers[n]) * 3 >> 8;
}

/* -- Dequantizing -------------------------------------------------------------------------------------------------- */

static void dequantize_iq2_xxs (float *out, const void *row, size_t n)
{
    const file_iq2_xxs *b = row;
    for (; n; n -= 256, b++)
        for (unsigned s = 0; s < 8; s++) {
            uint32_t signs = b->sub[s].signs;
            float scale = wl_f16_to_f32 (b->d) * odd_scale (signs >> 28) * 0.125f;
            for (unsigned j = 0; j < 4; j++, out += 8)
                put_group (out, scale, iq2_xxs_grid[b->sub[s].index[j]], even_signs (signs >> 7 * j & 127), 0);
        }
}

static void dequantize_iq2_xs (float *out, const void *row, size_t n)
{
    const file_iq2_xs *b = row;
    for (; n; n -= 256, b++)
        for (unsigned g = 0; g < 32; g++, out += 8) {
            float scale = wl_f16_to_f32 (b->d) * odd_scale (nibble (b->scales, g / 2)) * 0.125f;
            put_group (out, scale, iq2_xs_grid[b->qs[g] & 511], even_signs (b->qs[g] >> 9), 0);
        }
}

static void dequantize_iq2_s (float *out, const void *row, size_t n)
{
    const file_iq2_s *b = row;
    for (; n; n -= 256, b++)
        for (unsigned g = 0; g < 32; g++, out += 8) {
            float scale = wl_f16_to_f32 (b->d) * odd_scale (nibble (b->scales, g / 2)) * 0.125f;
            unsigned high = b->qh[g / 4] >> (g % 4 * 2) & 3;
            put_group (out, scale, iq2_s_grid[b->qs[g] | high << 8], b->signs[g], 0);
        }
}

static void dequantize_iq3_xxs (float *out, const void *row, size_t n)
{
    const file_iq3_xxs *b = row;
    for (; n; n -= 256, b++)
        for (unsigned g = 0; g < 32; g++, out += 8) {
            uint32_t signs = b->signs[g / 4];
            float scale = wl_f16_to_f32 (b->d) * odd_scale (signs >> 28) * 0.25f;
            put_group (out, scale, two_entries (iq3_xxs_grid, b->qs[2 * g], b->qs[2 * g + 1]),
                       even_signs (signs >> (g % 4 * 7) & 127), 0);
        }
}

static void dequantize_iq3_s (float *out, const void *row, size_t n)
{
    const file_iq3_s *b = row;
    for (; n; n -= 256, b++)
        for (unsigned g = 0; g < 32; g++, out += 8) {
            float scale = wl_f16_to_f32 (b->d) * odd_scale (nibble (b->scales, g / 4));
            unsigned high = b->qh[g / 4] >> (g % 4 * 2);
            put_group (
                out, scale,
                two_entries (iq3_s_grid, b->qs[2 * g] | (high & 1) << 8, b->qs[2 * g + 1] | (high >> 1 & 1) << 8),
                b->signs[g], 0);
        }
}

static void dequantize_iq1_s (float *out, const void *row, size_t n)
{
    const file_iq1_s *b = row;
    for (; n; n -= 256, b++)
        for (unsigned g = 0; g < 32; g++, out += 8) {
            unsigned qh = b->qh[g / 4], high = qh >> (g % 4 * 3) & 7;
            float scale = wl_f16_to_f32 (b->d) * odd_scale (qh >> 12 & 7) * 0.125f;
            put_group (out, scale, iq1_grid[b->qs[g] | high << 8], 0, qh >> 15 ? -1 : 1);
        }
}

/* d, which is spread over the upper bits of the scales. */
static uint16_t iq1_m_d (const file_iq1_m *b)
{
    unsigned d = 0;
    for (unsigned i = 0; i < 4; i++)
        d |= (unsigned) b->scales[i] >> 12 << (4 * i);
    return (uint16_t) d;
}

static unsigned iq1_m_scale (const file_iq1_m *b, unsigned k)
{
    return b->scales[k / 4] >> (k % 4 * 3) & 7;
}

static void dequantize_iq1_m (float *out, const void *row, size_t n)
{
    const file_iq1_m *b = row;
    for (; n; n -= 256, b++)
        for (unsigned g = 0; g < 32; g++, out += 8) {
            unsigned high = nibble (b->qh, g);
            float scale = wl_f16_to_f32 (iq1_m_d (b)) * odd_scale (iq1_m_scale (b, g / 2)) * 0.125f;
            put_group (out, scale, iq1_grid[b->qs[g] | (high & 7) << 8], 0, high & 8 ? -1 : 1);
        }
}

static void dequantize_tq1_0 (float *out, const void *row, size_t n)
{
    const file_tq1_0 *b = row;
    for (; n; n -= 256, b++, out += 256) {
        float d = wl_f16_to_f32 (b->d);
        for (unsigned i = 0; i < 32; i++)
            for (unsigned k = 0; k < 5; k++)
                out[32 * k + i] = d * (float) (digit (b->qs[i], k) - 1);
        for (unsigned i = 0; i < 16; i++)
            for (unsigned k = 0; k < 5; k++)
                out[160 + 16 * k + i] = d * (float) (digit (b->qs[32 + i], k) - 1);
        for (unsigned i = 0; i < 4; i++)
            for (unsigned k = 0; k < 4; k++)
                out[240 + 4 * k + i] = d * (float) (digit (b->qh[i], k) - 1);
    }
}

static void dequantize_tq2_0 (float *out, const void *row, size_t n)
{
    const file_tq2_0 *b = row;
    for (; n; n -= 256, b++) {
        float d = wl_f16_to_f32 (b->d);
        for (unsigned e = 0; e < 256; e++)
            *out++ = d * (float) ((b->qs[e / 128 * 32 + e % 32] >> (e % 128 / 32 * 2) & 3) - 1);
    }
}

static void dequantize_mxfp4 (float *out, const void *row, size_t n)
{
    const file_mxfp4 *b = row;
    for (; n; n -= 32, b++)
        for (unsigned e = 0; e < 32; e++)
            *out++ = exponent_value (b->e) * (float) mxfp4_codebook[b->qs[e % 16] >> (e / 16 * 4) & 15];
}

/* -- A row in a tile's order --------------------------------------------------------------------------------------- */

/* Bit 7 of the signs of sub-block s: the bits s of the scales' bytes. */
static void arrange_signs (uint8_t signs[4], uint32_t file_signs, unsigned s, uint32_t scales)
{
    for (unsigned j = 0; j < 4; j++)
        signs[j] = (uint8_t) ((file_signs >> 7 * j & 127) | (scales >> (8 * j + s) & 1) << 7);
}

static void arrange_iq2_xxs (void *out, const void *block)
{
    row_iq2_xxs *w = out;
    const file_iq2_xxs *b = block;
    uint32_t scales = 0;
    for (unsigned s = 0; s < 8; s++)
        scales |= b->sub[s].signs >> 28 << 4 * s;
    w->d = b->d;
    for (unsigned s = 0; s < 8; s++) {
        memcpy (w->qs + 4 * s, b->sub[s].index, 4);
        arrange_signs (w->signs + 4 * s, b->sub[s].signs, s, scales);
    }
}

static void arrange_iq3_xxs (void *out, const void *block)
{
    row_iq3_xxs *w = out;
    const file_iq3_xxs *b = block;
    uint32_t scales = 0;
    for (unsigned s = 0; s < 8; s++)
        scales |= b->signs[s] >> 28 << 4 * s;
    w->d = b->d;
    memcpy (w->qs, b->qs, 64);
    for (unsigned s = 0; s < 8; s++)
        arrange_signs (w->signs + 4 * s, b->signs[s], s, scales);
}

static void arrange_iq2_xs (void *out, const void *block)
{
    row_iq2_xs *w = out;
    const file_iq2_xs *b = block;
    w->d = b->d;
    for (unsigned g = 0; g < 32; g++) {
        unsigned q = b->qs[g];
        w->qs[g] = (uint8_t) q;
        w->signs[g] = (uint8_t) (q >> 9 | (q >> 8 & 1) << 7);
    }
    memcpy (w->scales, b->scales, 8);
}

static void arrange_iq2_s (void *out, const void *block)
{
    row_iq2_s *w = out;
    const file_iq2_s *b = block;
    w->d = b->d;
    memcpy (w->qs, b->qs, 32);
    memcpy (w->signs, b->signs, 32);
    memset (w->qh, 0, 8);
    for (unsigned g = 0; g < 32; g++)
        w->qh[g / 16 * 4 + g % 4] |= (uint8_t) ((b->qh[g / 4] >> (g % 4 * 2) & 3) << (g / 4 % 4 * 2));
    memcpy (w->scales, b->scales, 8);
}

static void arrange_iq3_s (void *out, const void *block)
{
    row_iq3_s *w = out;
    const file_iq3_s *b = block;
    w->d = b->d;
    memcpy (w->qs, b->qs, 64);
    memcpy (w->signs, b->signs, 32);
    memset (w->qh, 0, 8);
    for (unsigned s = 0; s < 8; s++)
        for (unsigned j = 0; j < 4; j++) { /* indices j and 4 + j */
            unsigned two = (b->qh[s] >> j & 1) | (b->qh[s] >> (4 + j) & 1) << 1;
            w->qh[s / 4 * 4 + j] |= (uint8_t) (two << (s % 4 * 2));
        }
    memcpy (w->scales, b->scales, 4);
}

static void arrange_iq1_s (void *out, const void *block)
{
    row_iq1_s *w = out;
    const file_iq1_s *b = block;
    w->d = b->d;
    memcpy (w->qs, b->qs, 32);
    uint32_t scales = 0;
    for (unsigned s = 0; s < 8; s++)
        scales |= (uint32_t) b->qh[s] >> 12 << 4 * s;
    for (unsigned p = 0; p < 4; p++)
        for (unsigned j = 0; j < 4; j++) {
            unsigned low = (b->qh[2 * p] >> 3 * j & 7) | (scales >> (8 * j + p) & 1) << 3;
            unsigned high = (b->qh[2 * p + 1] >> 3 * j & 7) | (scales >> (8 * j + 4 + p) & 1) << 3;
            w->qh[4 * p + j] = (uint8_t) (low | high << 4);
        }
}

static void arrange_iq1_m (void *out, const void *block)
{
    row_iq1_m *w = out;
    const file_iq1_m *b = block;
    w->d = iq1_m_d (b);
    memcpy (w->qs, b->qs, 32);
    for (unsigned p = 0; p < 4; p++)
        for (unsigned j = 0; j < 4; j++)
            w->qh[4 * p + j] = (uint8_t) (nibble (b->qh, 8 * p + j) | nibble (b->qh, 8 * p + 4 + j) << 4);
    uint32_t low = 0, high = 0;
    for (unsigned k = 0; k < 8; k++) {
        low |= (uint32_t) iq1_m_scale (b, k) << 4 * k;
        high |= (uint32_t) iq1_m_scale (b, 8 + k) << 4 * k;
    }
    w->scales[0] = low | (high & 0x11111111) << 3;
    w->scales_h = (uint16_t) ((high & 0x6666) >> 1 | (high >> 16 & 0x6666) << 1);
}

static void arrange_tq1_0 (void *out, const void *block)
{
    row_tq1_0 *w = out;
    const file_tq1_0 *b = block;
    w->d = b->d;
    memcpy (w->qs, b->qs, 48);
    memcpy (w->qs + 48, b->qh, 4);
}

static void arrange_tq2_0 (void *out, const void *block)
{
    row_tq2_0 *w = out;
    const file_tq2_0 *b = block;
    w->d = b->d;
    memcpy (w->qs, b->qs, 64);
}

static void arrange_mxfp4 (void *out, const void *block)
{
    memcpy (out, block, sizeof (row_mxfp4));
}

/* -- Packing ------------------------------------------------------------------------------------------------------- */

enum { ROW_BYTES = 128 };

/* What stands before the dwords of a row: numbers of `unit` bytes. */
static size_t head_bytes (size_t row_bytes)
{
    return row_bytes % 4 ? row_bytes % 4 : 4;
}

static size_t head_unit (size_t row_bytes)
{
    return row_bytes % 2 ? 1 : 2;
}

/* Where byte `at` of row r stands in the tile's block. */
static size_t place (size_t row_bytes, size_t at, size_t r)
{
    size_t head = head_bytes (row_bytes), unit = at < head ? head_unit (row_bytes) : 4;
    size_t from = at < head ? 0 : head;
    return 8 * from + (at - from) / unit * unit * 8 + r * unit + (at - from) % unit;
}

static void interleave (uint8_t *tile, uint8_t rows[8][ROW_BYTES], size_t row_bytes)
{
    size_t head = head_bytes (row_bytes), unit = head_unit (row_bytes);
    for (size_t at = 0; at < head; at += unit)
        for (int r = 0; r < 8; r++, tile += unit)
            memcpy (tile, rows[r] + at, unit);
    for (size_t at = head; at < row_bytes; at += 4)
        for (int r = 0; r < 8; r++, tile += 4)
            memcpy (tile, rows[r] + at, 4);
}

static void pack (void *out, const void *const sources[8], size_t n_blocks, size_t row_bytes,
                  void (*arrange) (void *, const void *))
{
    static const uint8_t zero_block[ROW_BYTES]; /* stands for a row of padding */
    uint8_t *tile = out;
    for (size_t b = 0; b < n_blocks; b++, tile += 8 * row_bytes) {
        uint8_t rows[8][ROW_BYTES];
        for (int r = 0; r < 8; r++)
            arrange (rows[r], sources[r] ? (const uint8_t *) sources[r] + b * row_bytes : zero_block);
        interleave (tile, rows, row_bytes);
    }
}

#define DEFINE_PACK(type, block_elements)                                                       \
    _Static_assert(sizeof (row_##type) == sizeof (file_##type), "a tile is as long as 8 rows"); \
    _Static_assert(sizeof (row_##type) <= ROW_BYTES, "");                                       \
    static void pack_##type (void *out, const void *const sources[8], size_t n)                 \
    {                                                                                           \
        pack (out, sources, n / (block_elements), sizeof (row_##type), arrange_##type);         \
    }

DEFINE_PACK (iq2_xxs, 256)
DEFINE_PACK (iq2_xs, 256)
DEFINE_PACK (iq2_s, 256)
DEFINE_PACK (iq3_xxs, 256)
DEFINE_PACK (iq3_s, 256)
DEFINE_PACK (iq1_s, 256)
DEFINE_PACK (iq1_m, 256)
DEFINE_PACK (tq1_0, 256)
DEFINE_PACK (tq2_0, 256)
DEFINE_PACK (mxfp4, 32)

/* -- Tile blocks as plain numbers ---------------------------------------------------------------------------------- */

static void take_row (void *row, const void *block, size_t row_bytes, size_t r)
{
    for (size_t at = 0; at < row_bytes; at++)
        ((uint8_t *) row)[at] = ((const uint8_t *) block)[place (row_bytes, at, r)];
}

/* 8 nibbles of scales, from scale `first` (of 16 elements) on; each for n_each of them. */
static void set_scales (int16_t scale[16], uint32_t nibbles, unsigned mask, unsigned first, unsigned n_each)
{
    for (unsigned i = 0; i < 8 * n_each; i++)
        scale[first + i] = (int16_t) (2 * (nibbles >> i / n_each * 4 & mask) + 1);
}

/* The scales that fill bit 7 of the signs. */
static uint32_t scales_of_signs (const uint8_t signs[32])
{
    uint32_t scales = 0;
    for (unsigned g = 0; g < 32; g++)
        scales |= (uint32_t) (signs[g] >> 7) << (g % 4 * 8 + g / 4);
    return scales;
}

/* Those that fill bits 3 and 7 of IQ1_S's qh. */
static uint32_t scales_of_qh (const uint8_t qh[16])
{
    uint32_t scales = 0;
    for (unsigned i = 0; i < 16; i++)
        scales |= (uint32_t) (qh[i] >> 3 & 1) << (i % 4 * 8 + i / 4) | (uint32_t) (qh[i] >> 7)
                                                                           << (i % 4 * 8 + 4 + i / 4);
    return scales;
}

/* Sets row r's q and scales: `w` is the row, `each` stands for a loop over its groups of 8 elements. */
#define DEFINE_UNPACK(type, factor, set_row)                      \
    static void unpack_##type (plain_block *p, const void *block) \
    {                                                             \
        for (unsigned r = 0; r < 8; r++) {                        \
            row_##type w;                                         \
            take_row (&w, block, sizeof w, r);                    \
            p->d[r] = (factor);                                   \
            p->m[r] = 0;                                          \
            for (unsigned j = 0; j < 16; j++) {                   \
                p->scale[r][j] = 1;                               \
                p->min[r][j] = 0;                                 \
            }                                                     \
            set_row (p->q[r], p->scale[r], &w);                   \
        }                                                         \
    }

static void set_iq2_xxs (int8_t *q, int16_t *scale, const row_iq2_xxs *w)
{
    set_scales (scale, scales_of_signs (w->signs), 15, 0, 2);
    for (unsigned g = 0; g < 32; g++)
        group_values (q + 8 * g, iq2_xxs_grid[w->qs[g]], even_signs (w->signs[g] & 127), 0);
}

static void set_iq2_xs (int8_t *q, int16_t *scale, const row_iq2_xs *w)
{
    set_scales (scale, w->scales[0], 15, 0, 1);
    set_scales (scale, w->scales[1], 15, 8, 1);
    for (unsigned g = 0; g < 32; g++)
        group_values (q + 8 * g, iq2_xs_grid[w->qs[g] | w->signs[g] >> 7 << 8], even_signs (w->signs[g] & 127), 0);
}

static void set_iq2_s (int8_t *q, int16_t *scale, const row_iq2_s *w)
{
    set_scales (scale, w->scales[0], 15, 0, 1);
    set_scales (scale, w->scales[1], 15, 8, 1);
    for (unsigned g = 0; g < 32; g++) {
        unsigned high = w->qh[g / 16 * 4 + g % 4] >> (g / 4 % 4 * 2) & 3;
        group_values (q + 8 * g, iq2_s_grid[w->qs[g] | high << 8], w->signs[g], 0);
    }
}

static void set_iq3_xxs (int8_t *q, int16_t *scale, const row_iq3_xxs *w)
{
    set_scales (scale, scales_of_signs (w->signs), 15, 0, 2);
    for (unsigned g = 0; g < 32; g++)
        group_values (q + 8 * g, two_entries (iq3_xxs_grid, w->qs[2 * g], w->qs[2 * g + 1]),
                      even_signs (w->signs[g] & 127), 0);
}

static unsigned iq3_s_index (const row_iq3_s *w, unsigned i)
{
    return w->qs[i] | (w->qh[i / 32 * 4 + i % 4] >> (i / 4 % 8) & 1u) << 8;
}

static void set_iq3_s (int8_t *q, int16_t *scale, const row_iq3_s *w)
{
    set_scales (scale, w->scales[0], 15, 0, 2);
    for (unsigned g = 0; g < 32; g++)
        group_values (q + 8 * g, two_entries (iq3_s_grid, iq3_s_index (w, 2 * g), iq3_s_index (w, 2 * g + 1)),
                      w->signs[g], 0);
}

/* Group g's bits of qh. */
static unsigned iq1_high (const uint8_t qh[16], unsigned g)
{
    return qh[g / 8 * 4 + g % 4] >> (g / 4 % 2 * 4) & 15;
}

static void set_iq1_s (int8_t *q, int16_t *scale, const row_iq1_s *w)
{
    uint32_t scales = scales_of_qh (w->qh);
    set_scales (scale, scales, 7, 0, 2);
    for (unsigned g = 0; g < 32; g++)
        group_values (q + 8 * g, iq1_grid[w->qs[g] | (iq1_high (w->qh, g) & 7) << 8], 0,
                      scales >> g / 4 * 4 & 8 ? -1 : 1);
}

static void set_iq1_m (int8_t *q, int16_t *scale, const row_iq1_m *w)
{
    uint32_t upper = (w->scales_h & UINT32_C (0x3333)) << 1 | (w->scales_h & UINT32_C (0xcccc)) << 15;
    set_scales (scale, w->scales[0], 7, 0, 1);
    set_scales (scale, upper | (w->scales[0] >> 3 & 0x11111111), 7, 8, 1);
    for (unsigned g = 0; g < 32; g++) {
        unsigned high = iq1_high (w->qh, g);
        group_values (q + 8 * g, iq1_grid[w->qs[g] | (high & 7) << 8], 0, high & 8 ? -1 : 1);
    }
}

static void set_tq1_0 (int8_t *q, int16_t *scale, const row_tq1_0 *w)
{
    (void) scale;
    for (unsigned e = 0; e < 256; e++) {
        unsigned byte = e < 160 ? e % 32 : e < 240 ? 32 + e % 16 : 48 + e % 4;
        unsigned n = e < 160 ? e / 32 : e < 240 ? (e - 160) / 16 : (e - 240) / 4;
        q[e] = (int8_t) (digit (w->qs[byte], n) - 1);
    }
}

static void set_tq2_0 (int8_t *q, int16_t *scale, const row_tq2_0 *w)
{
    (void) scale;
    for (unsigned e = 0; e < 256; e++)
        q[e] = (int8_t) ((w->qs[e / 128 * 32 + e % 32] >> (e % 128 / 32 * 2) & 3) - 1);
}

static void set_mxfp4 (int8_t *q, int16_t *scale, const row_mxfp4 *w)
{
    (void) scale;
    for (unsigned e = 0; e < 32; e++)
        q[e] = mxfp4_codebook[w->qs[e % 16] >> (e / 16 * 4) & 15];
}

DEFINE_UNPACK (iq2_xxs, wl_f16_to_f32 (w.d) * 0.125f, set_iq2_xxs)
DEFINE_UNPACK (iq2_xs, wl_f16_to_f32 (w.d) * 0.125f, set_iq2_xs)
DEFINE_UNPACK (iq2_s, wl_f16_to_f32 (w.d) * 0.125f, set_iq2_s)
DEFINE_UNPACK (iq3_xxs, wl_f16_to_f32 (w.d) * 0.25f, set_iq3_xxs)
DEFINE_UNPACK (iq3_s, wl_f16_to_f32 (w.d), set_iq3_s)
DEFINE_UNPACK (iq1_s, wl_f16_to_f32 (w.d) * 0.125f, set_iq1_s)
DEFINE_UNPACK (iq1_m, wl_f16_to_f32 (w.d) * 0.125f, set_iq1_m)
DEFINE_UNPACK (tq1_0, wl_f16_to_f32 (w.d), set_tq1_0)
DEFINE_UNPACK (tq2_0, wl_f16_to_f32 (w.d), set_tq2_0)
DEFINE_UNPACK (mxfp4, exponent_value (w.e), set_mxfp4)

/* -- The table ----------------------------------------------------------------------------------------------------- */

#define FORMAT(TYPE, type, activation, elements)                                                      \
    {                                                                                                 \
        WL_TYPE_##TYPE, activation, elements, 8 * sizeof (row_##type), dequantize_##type, pack_##type \
    }

const wl_format low_bit_formats[N_LOW_BIT_FORMATS] = {
    FORMAT (IQ2_XXS, iq2_xxs, WL_ACTIVATION_Q8_256, 256), FORMAT (IQ2_XS, iq2_xs, WL_ACTIVATION_Q8_256, 256),
    FORMAT (IQ2_S, iq2_s, WL_ACTIVATION_Q8_256, 256),     FORMAT (IQ3_XXS, iq3_xxs, WL_ACTIVATION_Q8_256, 256),
    FORMAT (IQ3_S, iq3_s, WL_ACTIVATION_Q8_256, 256),     FORMAT (IQ1_S, iq1_s, WL_ACTIVATION_Q8_256, 256),
    FORMAT (IQ1_M, iq1_m, WL_ACTIVATION_Q8_256, 256),     FORMAT (TQ1_0, tq1_0, WL_ACTIVATION_Q8_256, 256),
    FORMAT (TQ2_0, tq2_0, WL_ACTIVATION_Q8_256, 256),     FORMAT (MXFP4, mxfp4, WL_ACTIVATION_Q8_16, 32),
};

unpack_block_fn find_unpack_low_bit (wl_type type)
{
    switch ((int) type) {
    case WL_TYPE_IQ2_XXS:
        return unpack_iq2_xxs;
    case WL_TYPE_IQ2_XS:
        return unpack_iq2_xs;
    case WL_TYPE_IQ2_S:
        return unpack_iq2_s;
    case WL_TYPE_IQ3_XXS:
        return unpack_iq3_xxs;
    case WL_TYPE_IQ3_S:
        return unpack_iq3_s;
    case WL_TYPE_IQ1_S:
        return unpack_iq1_s;
    case WL_TYPE_IQ1_M:
        return unpack_iq1_m;
    case WL_TYPE_TQ1_0:
        return unpack_tq1_0;
    case WL_TYPE_TQ2_0:
        return unpack_tq2_0;
    case WL_TYPE_MXFP4:
        return unpack_mxfp4;
    default:
        return NULL;
    }
}
