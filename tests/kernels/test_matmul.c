/* Matmul and quantization against scalar: every type, tile edge and column count. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels_test.h"

enum { MAX_TILES = 9, MAX_COLUMNS = 70 };

/* n_tiles tiles of random rows; the last `padding` rows are absent. */
static uint8_t *random_tiles (test_state *t, uint32_t type, size_t n_tiles, size_t n, int kind, size_t padding)
{
    const wl_format *f = wl_format_find (type);
    size_t row_bytes = n / f->block_elements * f->tile_bytes / 8, tile_bytes = row_bytes * 8;
    uint8_t *tiles = test_alloc (n_tiles * tile_bytes + 1), *rows = test_alloc (tile_bytes);
    for (size_t i = 0; i < n_tiles; i++) {
        const void *pointers[8];
        for (size_t r = 0; r < 8; r++) {
            random_row (t, type, rows + r * row_bytes, n, kind);
            pointers[r] = i * 8 + r + padding < n_tiles * 8 ? rows + r * row_bytes : NULL;
        }
        f->pack (tiles + i * tile_bytes, pointers, n);
    }
    test_free (rows);
    return tiles;
}

/* One shape: scalar once over everything, then the table over many smaller parts of it. */
static void compare_shape (test_state *t, const wl_kernels *kernels, uint32_t type, size_t n, int kind,
                           bool all_columns)
{
    const wl_format *f = wl_format_find (type);
    size_t tile_bytes = n / f->block_elements * f->tile_bytes, max_columns = t->quick ? 20 : MAX_COLUMNS;
    size_t stride = MAX_TILES * 8, out_stride = stride + 3;
    uint8_t *tiles = random_tiles (t, type, MAX_TILES, n, kind, 3);
    test_activations activations;
    make_activations (t, &activations, &wl_kernels_scalar, f->activation, max_columns, n, kind != ROWS_ORDINARY);
    float *expected = test_alloc (max_columns * stride * sizeof (float));
    float *got = test_alloc ((max_columns + 1) * out_stride * sizeof (float));
    void *scratch = test_alloc (kernels->scratch_bytes);
    wl_kernels_scalar.matmul[type](expected, stride, tiles, MAX_TILES, &activations.a, NULL);

    for (size_t n_tiles = 1; n_tiles <= MAX_TILES; n_tiles++)
        for (size_t n_columns = 1; n_columns <= max_columns; n_columns++) {
            bool edge = n_columns <= 9 || n_columns == max_columns;
            if (!(edge || (all_columns && n_tiles == 3)))
                continue;
            size_t first_tile = (MAX_TILES - n_tiles) / 2, first_column = n_columns % 2 ? max_columns - n_columns : 0;
            wl_activations a = activations.a;
            a.n_rows = n_columns;
            a.f32 += first_column * a.f32_stride;
            if (a.q) {
                a.q += first_column * a.q_stride;
                a.scales += first_column * a.scale_stride;
                a.sums += first_column * a.sum_stride;
                if (a.totals)
                    a.totals += first_column * a.total_stride;
            }
            for (size_t i = 0; i < (max_columns + 1) * out_stride; i++)
                got[i] = 12345.0f;
            kernels->matmul[type](got, out_stride, tiles + first_tile * tile_bytes, n_tiles, &a, scratch);
            char where[160];
            bool beyond = true;
            for (size_t c = 0; c <= max_columns; c++) {
                for (size_t i = c < n_columns ? n_tiles * 8 : 0; i < out_stride; i++)
                    beyond = beyond && got[c * out_stride + i] == 12345.0f;
                if (c >= n_columns)
                    continue;
                snprintf (where, sizeof where, "%s n %zu, %zu tiles, column %zu of %zu, rows kind %d",
                          wl_type_name (type), n, n_tiles, c, n_columns, kind);
                check_floats (t, got + c * out_stride, expected + (first_column + c) * stride + first_tile * 8,
                              n_tiles * 8, where);
            }
            check (t, beyond, "%s n %zu, %zu tiles, %zu columns: writes outside its rows", wl_type_name (type), n,
                   n_tiles, n_columns);
        }
    test_free (tiles);
    test_free (expected);
    test_free (got);
    test_free (scratch);
    free_activations (&activations);
}

/* More columns than any table prepares at a time. */
static void compare_batch (test_state *t, const wl_kernels *kernels, uint32_t type)
{
    enum { N = 512, N_TILES = 5, N_COLUMNS = 1100, STRIDE = N_TILES * 8 };
    uint8_t *tiles = random_tiles (t, type, N_TILES, N, ROWS_ORDINARY, 0);
    test_activations activations;
    make_activations (t, &activations, &wl_kernels_scalar, wl_format_find (type)->activation, N_COLUMNS, N, false);
    float *expected = test_alloc (N_COLUMNS * STRIDE * sizeof (float));
    float *got = test_alloc (N_COLUMNS * STRIDE * sizeof (float));
    void *scratch = test_alloc (kernels->scratch_bytes);
    wl_kernels_scalar.matmul[type](expected, STRIDE, tiles, N_TILES, &activations.a, NULL);
    kernels->matmul[type](got, STRIDE, tiles, N_TILES, &activations.a, scratch);
    check_floats (t, got, expected, N_COLUMNS * STRIDE, wl_type_name (type));
    test_free (tiles);
    test_free (expected);
    test_free (got);
    test_free (scratch);
    free_activations (&activations);
}

/* MXFP4's factor is 2^(e - 128) for every e, subnormal ones too: weights of 2 and activations of 1, scaled so that no
 * product is lost. */
static void compare_exponents (test_state *t, const wl_kernels *kernels)
{
    enum { N_COLUMNS = 5 };
    const wl_format *f = wl_format_find (WL_TYPE_MXFP4);
    int8_t q[N_COLUMNS * 64];
    float scales[N_COLUMNS * 2], totals[N_COLUMNS] = {0}, got[N_COLUMNS * 8];
    int16_t sums[N_COLUMNS * 2];
    void *scratch = test_alloc (kernels->scratch_bytes);
    memset (q, 1, sizeof q);
    for (int e = 0; e < 256; e++) {
        uint8_t row[17], tile[8 * 17];
        memset (row, 0x22, sizeof row);
        row[0] = (uint8_t) e;
        const void *rows[8] = {NULL, row};
        f->pack (tile, rows, 32);
        int power = e < 128 ? 100 : -100;
        for (int i = 0; i < N_COLUMNS * 2; i++) {
            scales[i] = ldexpf (1.0f, power);
            sums[i] = 16;
        }
        wl_activations a = {.kind = f->activation,
                            .n = 32,
                            .q = q,
                            .q_stride = 64,
                            .scales = scales,
                            .scale_stride = 2,
                            .sums = sums,
                            .sum_stride = 2,
                            .totals = totals, /* not looked at: there are no minimums */
                            .total_stride = 1};
        for (a.n_rows = 1; a.n_rows <= N_COLUMNS; a.n_rows += N_COLUMNS - 1) {
            kernels->matmul[WL_TYPE_MXFP4](got, 8, tile, 1, &a, scratch);
            float expected = ldexpf (64.0f, power + e - 128), last = got[8 * (a.n_rows - 1) + 1];
            check (t, last == expected, "MXFP4's exponent %d: %g, should be %g", e, (double) last, (double) expected);
        }
    }
    test_free (scratch);
}

void test_matmul (test_state *t, const wl_kernels *kernels)
{
    static const size_t lengths[3][6] = {
        {1, 7, 64, 513, 1030, 0}, {32, 64, 96, 1024, 1056, 2080}, {256, 512, 1024, 1280, 2304, 0}};
    t->what = "matmul";
    compare_exponents (t, kernels);
    for (size_t i = 0; i < n_all_types; i++) {
        uint32_t type = all_types[i];
        if (!kernels->matmul[type]) {
            check (t, false, "%s is missing", wl_type_name (type));
            continue;
        }
        const size_t *n = lengths[wl_format_find (type)->activation];
        for (size_t j = 0; j < 6 && n[j]; j++)
            for (int kind = ROWS_ORDINARY; kind <= ROWS_ANY; kind++)
                if (!t->quick || j == (size_t) kind + 1)
                    compare_shape (t, kernels, type, n[j], kind, j == 2);
        if (!t->quick)
            compare_batch (t, kernels, type);
    }
}

/* -- Quantization -------------------------------------------------------------------------------------------------- */

static void compare_quantize (test_state *t, const wl_kernels *kernels, const float *x, size_t n, const char *where)
{
    int8_t *q[2];
    float *scales[2], *totals[2];
    int16_t *sums[2];
    for (int wide = 0; wide <= (n % 256 == 0); wide++) {
        size_t n_scales = n / (wide ? 256 : 16), n_sums = n / 16;
        for (int i = 0; i < 2; i++) {
            const wl_kernels *k = i ? kernels : &wl_kernels_scalar;
            q[i] = test_alloc (n);
            scales[i] = test_alloc (n_scales * sizeof (float));
            sums[i] = test_alloc (n_sums * sizeof (int16_t));
            totals[i] = test_alloc (n / 32 * sizeof (float));
            if (wide)
                k->quantize_q8_256 (q[i], scales[i], sums[i], x, n);
            else
                k->quantize_q8_16 (q[i], scales[i], sums[i], totals[i], x, n);
        }
        check_bytes (t, q[1], q[0], n, where);
        check_floats (t, scales[1], scales[0], n_scales, where);
        check_bytes (t, sums[1], sums[0], n_sums * sizeof (int16_t), where);
        if (!wide)
            check_floats (t, totals[1], totals[0], n / 32, where);
        for (size_t b = 0; b < n_sums; b++) { /* the definition: sums of q, |q| <= 127 */
            int sum = 0;
            bool within = true;
            for (size_t k = b * n / n_sums; k < (b + 1) * n / n_sums; k++) {
                sum += q[0][k];
                within = within && q[0][k] >= -127;
            }
            check (t, within && sum == sums[0][b], "%s: scalar's sum %zu is wrong", where, b);
        }
        for (int i = 0; i < 2; i++) {
            test_free (q[i]);
            test_free (scales[i]);
            test_free (sums[i]);
            test_free (totals[i]);
        }
    }
}

void test_quantize (test_state *t, const wl_kernels *kernels)
{
    t->what = "quantize";
    for (int round = 0; round < (t->quick ? 20 : 200); round++) {
        size_t n = 32 * (1 + random_below (t, 40));
        if (round % 2)
            n = 256 * (1 + random_below (t, 6));
        test_activations a;
        make_activations (t, &a, &wl_kernels_scalar, WL_ACTIVATION_F32, 2, n, true);
        float *x = test_alloc (n * sizeof (float)); /* of exactly n: an overrun is seen by the sanitizer */
        memcpy (x, a.x + a.a.f32_stride, n * sizeof (float));
        static const float specials[] = {INFINITY,  -INFINITY,        NAN,   0x1p-149f, -0x1p-149f,
                                         0x1p-126f, 0x1.fffffep+127f, -0.0f, 0x1p-120f, 0x1.fffffep-121f,
                                         127.0f,    -128.0f};
        if (round % 4 == 3)
            for (int i = 0; i < 3; i++)
                x[random_below (t, n)] = specials[random_below (t, sizeof specials / sizeof specials[0])];
        char where[64];
        snprintf (where, sizeof where, "n %zu, round %d", n, round);
        compare_quantize (t, kernels, x, n, where);
        test_free (x);
        free_activations (&a);
    }
}
