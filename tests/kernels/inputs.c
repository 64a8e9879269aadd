/* Random weights and activations, ordinary and extreme. */
#include <math.h>
#include <string.h>

#include "kernels_test.h"

const uint32_t all_types[] = {WL_TYPE_F32,     WL_TYPE_F16,    WL_TYPE_BF16,  WL_TYPE_Q4_0,    WL_TYPE_Q4_1,
                              WL_TYPE_Q5_0,    WL_TYPE_Q5_1,   WL_TYPE_Q8_0,  WL_TYPE_Q2_K,    WL_TYPE_Q3_K,
                              WL_TYPE_Q4_K,    WL_TYPE_Q5_K,   WL_TYPE_Q6_K,  WL_TYPE_IQ4_NL,  WL_TYPE_IQ4_XS,
                              WL_TYPE_IQ2_XXS, WL_TYPE_IQ2_XS, WL_TYPE_IQ2_S, WL_TYPE_IQ3_XXS, WL_TYPE_IQ3_S,
                              WL_TYPE_IQ1_S,   WL_TYPE_IQ1_M,  WL_TYPE_TQ1_0, WL_TYPE_TQ2_0,   WL_TYPE_MXFP4};
const size_t n_all_types = sizeof all_types / sizeof all_types[0];

size_t factor_offsets (uint32_t type, size_t offsets[2])
{
    switch (type) {
    case WL_TYPE_Q4_1:
    case WL_TYPE_Q5_1:
    case WL_TYPE_Q4_K:
    case WL_TYPE_Q5_K:
        offsets[0] = 0;
        offsets[1] = 2;
        return 2;
    case WL_TYPE_Q2_K:
        offsets[0] = 80;
        offsets[1] = 82;
        return 2;
    case WL_TYPE_Q3_K:
        offsets[0] = 108;
        return 1;
    case WL_TYPE_Q6_K:
        offsets[0] = 208;
        return 1;
    case WL_TYPE_TQ1_0:
        offsets[0] = 52;
        return 1;
    case WL_TYPE_TQ2_0:
        offsets[0] = 64;
        return 1;
    case WL_TYPE_IQ1_M: /* in the upper bits of its scales: set_factor */
        offsets[0] = 48;
        return 1;
    default:
        offsets[0] = 0;
        return 1;
    }
}

/* Puts an f16 factor where `type` keeps it. */
void set_factor (uint32_t type, uint8_t *at, uint16_t half)
{
    if (type == WL_TYPE_IQ1_M)
        for (unsigned i = 0; i < 4; i++)
            at[2 * i + 1] = (uint8_t) ((at[2 * i + 1] & 15) | (half >> 4 * i & 15) << 4);
    else if (type == WL_TYPE_MXFP4) /* an exponent: near 1, or any */
        *at = (uint8_t) ((half & 0x7000) == 0x2000 ? 118 + half % 8 : half);
    else
        memcpy (at, &half, 2);
}

void random_row (test_state *t, uint32_t type, void *row, size_t n, int kind)
{
    const wl_format *f = wl_format_find (type);
    uint8_t *bytes = row;
    size_t block_bytes = f->tile_bytes / 8, n_blocks = n / f->block_elements;
    if (f->activation == WL_ACTIVATION_F32) {
        for (size_t i = 0; i < n; i++) {
            float x =
                kind == ROWS_EXTREME ? ldexpf (random_unit (t), (int) random_below (t, 200) - 100) : random_normal (t);
            uint32_t u;
            memcpy (&u, &x, 4);
            if (kind == ROWS_ANY && (random_u32 (t) & 7) == 0)
                u = random_u32 (t);
            uint16_t half =
                (uint16_t) (kind == ROWS_ORDINARY  ? 0x3c00 + random_below (t, 0x400) - (random_u32 (t) & 1) * 0x8000
                            : kind == ROWS_EXTREME ? random_u32 (t) % 0x7c00 + (random_u32 (t) & 1) * 0x8000
                                                   : random_u32 (t));
            if (type == WL_TYPE_F32)
                memcpy (bytes + 4 * i, &u, 4);
            else if (type == WL_TYPE_F16)
                memcpy (bytes + 2 * i, &half, 2);
            else {
                uint16_t top = (uint16_t) (u >> 16);
                memcpy (bytes + 2 * i, &top, 2);
            }
        }
        return;
    }
    random_bytes (t, row, n_blocks * block_bytes);
    for (size_t b = 0; b < n_blocks; b++, bytes += block_bytes) {
        size_t offsets[2], n_factors = factor_offsets (type, offsets);
        if (kind == ROWS_EXTREME &&
            (random_u32 (t) & 1)) /* runs of the largest and smallest codes: int16 chains at their limit */
            memset (bytes,
                    random_u32 (t) & 1   ? 0xff
                    : random_u32 (t) & 1 ? 0x7f
                    : random_u32 (t) & 1 ? 0x80
                                         : 0,
                    block_bytes);
        for (size_t i = 0; i < n_factors; i++) {
            uint16_t half = (uint16_t) (0x2000 + random_below (t, 0x1000) + (random_u32 (t) & 1) * 0x8000);
            if (kind == ROWS_EXTREME)
                half = (uint16_t) (random_below (t, 0x7c00) + (random_u32 (t) & 1) * 0x8000);
            if (kind == ROWS_ANY)
                half = (uint16_t) random_u32 (t);
            set_factor (type, bytes + offsets[i], half);
        }
    }
}

/* Values for one row: several characters, so that each block meets some. */
static void fill_row (test_state *t, float *x, size_t n, bool extreme)
{
    for (size_t i = 0; i < n;) {
        size_t run = 32 * (1 + random_below (t, 8));
        unsigned character = extreme ? random_u32 (t) % 8 : 0;
        float size = ldexpf (1.0f + random_unit (t) * 0.5f, (int) random_below (t, 60) - 30);
        for (; run && i < n; run--, i++)
            switch (character) {
            case 1:
                x[i] = size;
                break; /* all at +127 */
            case 2:
                x[i] = -size;
                break;
            case 3:
                x[i] = random_u32 (t) & 1 ? size : -size;
                break;
            case 4:
                x[i] = 0.0f;
                break;
            case 5:
                x[i] = random_unit (t) * 0x1p-125f;
                break; /* too small to quantize */
            case 6:
                x[i] = ((float) random_below (t, 255) - 127.0f) * 0.5f;
                break; /* ties */
            default:
                x[i] = random_normal (t) * (extreme ? size : 1.0f);
                break;
            }
    }
}

void make_activations (test_state *t, test_activations *out, const wl_kernels *kernels, wl_activation_kind kind,
                       size_t n_rows, size_t n, bool extreme)
{
    wl_activations *a = &out->a;
    *a = (wl_activations){.kind = kind, .n_rows = n_rows, .n = n};
    a->f32_stride = n + 5;
    out->x = test_alloc (n_rows * a->f32_stride * sizeof (float));
    for (size_t r = 0; r < n_rows; r++)
        fill_row (t, out->x + r * a->f32_stride, n, extreme && r % 3 != 0);
    a->f32 = out->x;
    if (kind == WL_ACTIVATION_F32)
        return;
    size_t width = kind == WL_ACTIVATION_Q8_16 ? 16 : 256;
    a->q_stride = (n + 63) / 64 * 64 + 64;
    a->scale_stride = n / width + 3;
    a->sum_stride = n / 16 + 1;
    a->q = test_alloc (n_rows * a->q_stride);
    a->scales = test_alloc (n_rows * a->scale_stride * sizeof (float));
    a->sums = test_alloc (n_rows * a->sum_stride * sizeof (int16_t));
    if (width == 16) {
        a->total_stride = n / 32 + 5;
        a->totals = test_alloc (n_rows * a->total_stride * sizeof (float));
    }
    for (size_t r = 0; r < n_rows; r++) {
        int8_t *q = a->q + r * a->q_stride;
        float *scales = a->scales + r * a->scale_stride;
        int16_t *sums = a->sums + r * a->sum_stride;
        const float *x = out->x + r * a->f32_stride;
        if (width == 16)
            kernels->quantize_q8_16 (q, scales, sums, a->totals + r * a->total_stride, x, n);
        else
            kernels->quantize_q8_256 (q, scales, sums, x, n);
    }
}

void free_activations (test_activations *out)
{
    test_free (out->x);
    test_free (out->a.q);
    test_free (out->a.scales);
    test_free (out->a.sums);
    test_free (out->a.totals);
}
