/* The definitions themselves: what the weight formats mean, and Woolly's own functions against libm. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "engine/kernels/formats.h"
#include "engine/kernels/math.h"
#include "kernels_test.h"

/* Sums over a block of 256 elements whose bytes follow a fixed pattern, computed with another implementation (gguf-py).
 * */
enum { Q8_K_TYPE = 15 }; /* never a weight's */

typedef struct known_sum {
    uint32_t type;
    double sum, weighted; /* sum of w_i, and of w_i * (i % 7 + 1) */
} known_sum;

static const known_sum known_sums[] = {
    {WL_TYPE_F32, 0x1.19d38b10caa01p+122, 0x1.302e9209c3b4ap+124},
    {WL_TYPE_F16, 0x1.166068b7b4000p+15, -0x1.1a8aa5d51c000p+15},
    {WL_TYPE_BF16, -0x1.2c9cc836b8c28p+120, -0x1.3b10ff52e264bp+122},
    {WL_TYPE_Q4_0, 0x1.531faf27f4800p+21, 0x1.4dfb5a43f7200p+23},
    {WL_TYPE_Q4_1, -0x1.0314fa0aee400p+19, -0x1.50b5b510e0280p+22},
    {WL_TYPE_Q5_0, -0x1.08ac0a2270000p+14, -0x1.2b9c1e4758000p+18},
    {WL_TYPE_Q5_1, 0x1.247689e056000p+21, 0x1.1bb16aac30000p+23},
    {WL_TYPE_Q8_0, 0x1.9f27560bb4000p+17, 0x1.29ae6867e8000p+15},
    {WL_TYPE_Q2_K, -0x1.e8fe1073a4000p+14, -0x1.f01264dfcc000p+16},
    {WL_TYPE_Q3_K, -0x1.ac58400000000p+11, -0x1.31fdfc0000000p+14},
    {WL_TYPE_Q4_K, -0x1.a1e877c700000p+28, -0x1.9b7d62e4c0000p+30},
    {WL_TYPE_Q5_K, -0x1.a1e6d9f000000p+28, -0x1.9b7baa8c40000p+30},
    {WL_TYPE_Q6_K, -0x1.5ce21c0000000p+21, -0x1.338b796000000p+24},
    {WL_TYPE_IQ4_NL, 0x1.30e4fe63f2b80p+25, 0x1.3611649f99dc0p+27},
    {WL_TYPE_IQ4_XS, -0x1.fa39520000000p+10, -0x1.8eea5bc000000p+13},
    {WL_TYPE_IQ2_XXS, 0x1.30745a0000000p+7, 0x1.4486f70000000p+9},
    {WL_TYPE_IQ2_XS, 0x1.12fc2c0000000p+6, 0x1.9215fc0000000p+7},
    {WL_TYPE_IQ2_S, 0x1.60e0180000000p+5, 0x1.142f700000000p+4},
    {WL_TYPE_IQ3_XXS, 0x1.d5de680000000p+7, 0x1.11d9140000000p+9},
    {WL_TYPE_IQ3_S, 0x1.0ee1000000000p+5, 0x1.9b9ff00000000p+8},
    {WL_TYPE_IQ1_S, -0x1.c4d0000000000p+3, -0x1.8fbfa00000000p+5},
    {WL_TYPE_IQ1_M, 0x1.ac34000000000p+20, -0x1.05a0e00000000p+23},
    {WL_TYPE_TQ1_0, 0x1.39b0000000000p+0, 0x1.d688000000000p+0},
    {WL_TYPE_TQ2_0, 0x1.e193000000000p+21, 0x1.a91b400000000p+23},
    {WL_TYPE_MXFP4, -0x1.7ffffff000640p+115, 0x1.040000077fe98p+120},
};

static void pattern_bytes (uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        bytes[i] = (uint8_t) (((i * 37 + 11) ^ (i >> 3)) & (i % 2 ? 0xfb : 0xff)); /* no f16 is inf or NaN */
}

static void dequantize_known (test_state *t)
{
    for (size_t i = 0; i < sizeof known_sums / sizeof known_sums[0]; i++) {
        const wl_format *f = wl_format_find (known_sums[i].type);
        uint8_t bytes[256 * 4];
        float w[256];
        double sum = 0, weighted = 0;
        pattern_bytes (bytes, sizeof bytes);
        f->dequantize (w, bytes, 256);
        for (int j = 0; j < 256; j++) {
            sum += (double) w[j];
            weighted += (double) w[j] * (j % 7 + 1);
        }
        check (t, sum == known_sums[i].sum && weighted == known_sums[i].weighted,
               "%s: sums are %.17g, %.17g; should be %.17g, %.17g", wl_type_name (known_sums[i].type), sum, weighted,
               known_sums[i].sum, known_sums[i].weighted);
    }
}

/* Sum over a codebook of element * (place % 251 + 1), which gguf-py's has too. */
static int64_t codebook_sum (const void *grid, size_t n_bytes)
{
    const int8_t *values = grid;
    int64_t sum = 0;
    for (size_t i = 0; i < n_bytes; i++)
        sum += values[i] * (int64_t) (i % 251 + 1);
    return sum;
}

static void codebooks_are_the_formats (test_state *t)
{
    const int64_t sums[] = {
        codebook_sum (iq2_xxs_grid, sizeof iq2_xxs_grid), codebook_sum (iq2_xs_grid, sizeof iq2_xs_grid),
        codebook_sum (iq2_s_grid, sizeof iq2_s_grid),     codebook_sum (iq1_grid, sizeof iq1_grid),
        codebook_sum (iq3_xxs_grid, sizeof iq3_xxs_grid), codebook_sum (iq3_s_grid, sizeof iq3_s_grid)};
    static const int64_t known[] = {4822435, 10096824, 21014389, -25816, 3311648, 1582278};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        check (t, sums[i] == known[i], "codebook %zu sums to %lld, should be %lld", i, (long long) sums[i],
               (long long) known[i]);
}

static void exponents_are_powers_of_two (test_state *t)
{
    for (int e = 0; e < 256; e++) {
        uint8_t block[17];
        float w[32];
        memset (block, 0x22, sizeof block); /* twice 1 */
        block[0] = (uint8_t) e;
        wl_format_find (WL_TYPE_MXFP4)->dequantize (w, block, 32);
        check (t, w[0] == ldexpf (1.0f, e - 127) && w[31] == w[0], "MXFP4's exponent %d: 1 is %g", e, (double) w[0]);
    }
}

/* The largest product that a block can make: every activation 127, with the sign that makes the term positive. It must
 * be the exact sum's, so no int32 has overflowed. */
static void largest_sums_are_exact (test_state *t, uint32_t type)
{
    const wl_format *f = wl_format_find (type);
    size_t offsets[2], n_factors = factor_offsets (type, offsets);
    uint8_t row[256], tile[256 * 8];
    int64_t worst = 0;
    for (int fill = 0; fill < 256; fill++) {
        const void *rows[8] = {row};
        memset (row, fill, sizeof row);
        for (size_t i = 0; i < n_factors; i++)
            set_factor (type, row + offsets[i], 0x3c00);
        f->pack (tile, rows, 256);
        plain_block plain;
        find_unpack_block ((wl_type) type) (&plain, tile);
        int8_t q[256];
        int16_t sums[16];
        int64_t isum = 0, msum = 0;
        for (int e = 0; e < 256; e++) {
            int64_t w = plain.q[0][e] * (int64_t) plain.scale[0][e / 16];
            q[e] = w < 0 ? -127 : 127;
            isum += w * q[e];
            msum += plain.min[0][e / 16] * q[e];
            sums[e / 16] = (int16_t) ((e % 16 ? sums[e / 16] : 0) + q[e]);
        }
        /* SIMD kernels add products of weights that are too large by an offset of at most 64 */
        worst = isum + 64 * 256 * 127 * 31 > worst ? isum + 64 * 256 * 127 * 31 : worst;
        float out[8], scale = 1.0f;
        wl_activations a = {.kind = f->activation, .n_rows = 1, .n = 256, .q = q, .scales = &scale, .sums = sums};
        wl_kernels_scalar.matmul[type](out, 8, tile, 1, &a, NULL);
        float expected = fmaf (plain.m[0], (float) msum, plain.d[0] * (float) isum);
        check (t, out[0] == expected, "%s filled with %d: the product is %g, should be %g", wl_type_name (type), fill,
               (double) out[0], (double) expected);
    }
    check (t, worst > 0 && worst <= INT32_MAX, "%s: sums reach %lld", wl_type_name (type), (long long) worst);
}

/* A product with a unit vector finds each weight in the tile: pack keeps what dequantize reads. */
static void pack_keeps_weights (test_state *t, uint32_t type, size_t n)
{
    const wl_format *f = wl_format_find (type);
    size_t row_bytes = n / f->block_elements * f->tile_bytes / 8;
    uint8_t *rows = test_alloc (8 * row_bytes), *tile = test_alloc (8 * row_bytes);
    float *w = test_alloc (n * sizeof (float)), *x = test_alloc (n * sizeof (float)),
          *scales = test_alloc (n * sizeof (float)), *totals = test_alloc (n / 32 * sizeof (float));
    int8_t *q = test_alloc (n);
    int16_t *sums = test_alloc (n * sizeof (int16_t));
    const void *pointers[8];
    for (size_t r = 0; r < 8; r++) {
        random_row (t, type, rows + r * row_bytes, n, ROWS_ORDINARY);
        pointers[r] = r == 5 ? NULL : rows + r * row_bytes;
    }
    f->pack (tile, pointers, n);
    wl_activations a = {
        .kind = f->activation, .n_rows = 1, .n = n, .f32 = x, .q = q, .scales = scales, .sums = sums, .totals = totals};
    size_t bad = 0;
    for (size_t k = 0; k < n; k++) {
        float out[8];
        x[k] = 127.0f;
        if (f->activation == WL_ACTIVATION_Q8_16)
            wl_kernels_scalar.quantize_q8_16 (q, scales, sums, totals, x, n);
        else if (f->activation == WL_ACTIVATION_Q8_256)
            wl_kernels_scalar.quantize_q8_256 (q, scales, sums, x, n);
        wl_kernels_scalar.matmul[type](out, 8, tile, 1, &a, NULL);
        x[k] = 0.0f;
        for (size_t r = 0; r < 8; r++) {
            f->dequantize (w, rows + r * row_bytes, n);
            double expected = r == 5 ? 0.0 : 127.0 * (double) w[k], size = fabs (expected) + 127 * 63 * 0.5;
            bad += !(fabs ((double) out[r] - expected) <= 1e-6 * size);
        }
    }
    check (t, bad == 0, "%s, n %zu: %zu weights differ between pack and dequantize", wl_type_name (type), n, bad);
    void *all[] = {rows, tile, w, x, scales, totals, q, sums};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        test_free (all[i]);
}

void test_formats (test_state *t)
{
    t->what = "formats";
    dequantize_known (t);
    codebooks_are_the_formats (t);
    exponents_are_powers_of_two (t);
    for (size_t i = 0; i < n_all_types; i++) {
        uint32_t type = all_types[i];
        const wl_format *f = wl_format_find (type);
        check (t,
               f && f->type == (wl_type) type && f->tile_bytes == 8 * wl_type_block_bytes (type) &&
                   f->block_elements == wl_type_block_elements (type),
               "%s: the format disagrees with GGUF's sizes", wl_type_name (type));
        pack_keeps_weights (t, type, 256);
        pack_keeps_weights (t, type, 512);
        if (f && f->activation == WL_ACTIVATION_Q8_256)
            largest_sums_are_exact (t, type);
    }
    check (t, !wl_format_find (Q8_K_TYPE) && !wl_format_find (12345) && !wl_kernels_scalar.matmul[Q8_K_TYPE],
           "a type without kernels has a format");
    wl_error err = {0};
    check (t,
           wl_kernels_find ("auto", NULL) && wl_kernels_find ("scalar", NULL) == &wl_kernels_scalar &&
               !wl_kernels_find ("mmx", &err) && err.code == WL_ERROR_USAGE && strstr (err.text, "scalar"),
           "finding a table by name: %s", err.text);
}

/* -- math.h -------------------------------------------------------------------------------------------------------- */

static double ulps (double got, double expected, bool single)
{
    double next = single ? (double) nextafterf ((float) expected, INFINITY) - (double) (float) expected
                         : nextafter (expected, (double) INFINITY) - expected;
    return fabs (got - expected) / fabs (next);
}

static void f32_functions (test_state *t)
{
    double worst = 0;
    for (int i = 0; i < 100000; i++) {
        float x = random_unit (t) * (i & 1 ? 87.3f : 1.0f);
        double u = ulps ((double) wl_expf (x), exp ((double) x), true);
        worst = u > worst ? u : worst;
        double e = 1.0 / (1.0 + exp (-(double) x)) * (double) x;
        check (t, fabs ((double) wl_siluf (x) - e) <= 3e-7 * fabs (e) + 1e-38, "silu (%g)", (double) x);
        check (t, fabs ((double) wl_tanhf (x) - tanh ((double) x)) < 3e-7, "tanh (%g)", (double) x);
        double inner = 0.79788456080286536 * ((double) x + 0.044715 * pow ((double) x, 3));
        check (t,
               fabs ((double) wl_geluf (x) - 0.5 * (double) x * (1 + tanh (inner))) <= 3e-7 * (1 + fabs ((double) x)),
               "gelu (%g)", (double) x);
    }
    check (t, worst < 2.0, "expf is off by %g ulp", worst);
    check (t,
           wl_expf (0.0f) == 1.0f && wl_expf (-0.0f) == 1.0f && wl_expf (89.0f) == INFINITY &&
               wl_expf (-88.0f) == 0.0f && isnan (wl_expf (NAN)) && wl_expf (-INFINITY) == 0.0f &&
               wl_expf (INFINITY) == INFINITY,
           "expf at its limits");
    check (t, wl_tanhf (100.0f) == 1.0f && wl_tanhf (-100.0f) == -1.0f && wl_tanhf (0.0f) == 0.0f,
           "tanhf at its limits");
}

static void f16_conversion (test_state *t)
{
    bool exact = true, round_trip = true;
    for (unsigned h = 0; h < 0x7c00; h++) { /* ascending numbers: value, and the rounding of each midpoint to even */
        float x = wl_f16_to_f32 ((uint16_t) h);
        unsigned e = h >> 10, f = h & 0x3ff;
        exact = exact && (double) x == (e ? ldexp (1024 + f, (int) e - 25) : ldexp (f, -24));
        float next = h == 0x7bff ? 65536.0f : wl_f16_to_f32 ((uint16_t) (h + 1)), middle = (x + next) / 2;
        round_trip = round_trip && wl_f32_to_f16 (x) == h && wl_f32_to_f16 (-x) == (h | 0x8000) &&
                     wl_f32_to_f16 (middle) == (h & 1 ? h + 1 : h) && wl_f32_to_f16 (nextafterf (middle, 0)) == h &&
                     wl_f32_to_f16 (nextafterf (middle, INFINITY)) == h + 1;
    }
    check (t, exact, "f16 to f32 is inexact");
    check (t, round_trip, "f32 to f16 rounds wrongly");
    check (t,
           wl_f32_to_f16 (INFINITY) == 0x7c00 && (wl_f32_to_f16 (NAN) & 0x7fff) > 0x7c00 &&
               isnan (wl_f16_to_f32 (0x7c01)) && wl_f16_to_f32 (0xfc00) == -INFINITY && wl_f32_to_f16 (0x1p-26f) == 0,
           "f16 at its limits");
}

static void f64_functions (test_state *t)
{
    double worst[4] = {0};
    for (int i = 0; i < 100000; i++) {
        double x = (double) random_unit (t) + (double) random_unit (t) * 0x1p-31, s, c;
        double wide = x * 700, base = exp (wide / 35), angle = i & 1 ? x * 10 : x * 0x1p29;
        wl_sincos (angle, &s, &c);
        double u[4] = {ulps (wl_exp (wide), exp (wide), false), ulps (wl_log (base), log (base), false),
                       ulps (wl_pow (base, x * 20), pow (base, x * 20), false), 0};
        double us = ulps (s, sin (angle), false), uc = ulps (c, cos (angle), false);
        u[3] = us > uc ? us : uc;
        for (int j = 0; j < 4; j++)
            worst[j] = u[j] > worst[j] ? u[j] : worst[j];
    }
    check (t, worst[0] < 3 && worst[1] < 3 && worst[2] < 3 && worst[3] < 4,
           "exp, log, pow, sincos are off by %g, %g, %g, %g ulp", worst[0], worst[1], worst[2], worst[3]);
    check (t,
           wl_log (1.0) == 0.0 && wl_exp (0.0) == 1.0 && wl_pow (2.0, 10.0) == 1024.0 && isinf (wl_exp (800.0)) &&
               wl_exp (-800.0) == 0.0,
           "f64 functions at exact points");
}

void test_math (test_state *t)
{
    t->what = "math";
    f32_functions (t);
    f16_conversion (t);
    f64_functions (t);
}
