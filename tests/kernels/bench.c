/* Timing: multiply-adds a clock of matmul with many columns, GB/s of the weights with one, and attention.
 *
 * A clock is measured: a chain of dependent additions does one a clock on every CPU of interest, timed beside each run,
 * since frequencies change and machines are shared. Time is the thread's own, which others' turns on its core do not
 * count in. The best of several runs counts. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "engine/kv_cache.h"
#include "kernels_test.h"

static double seconds (void)
{
    struct timespec ts;
    clock_gettime (CLOCK_THREAD_CPUTIME_ID, &ts);
    return (double) ts.tv_sec + 1e-9 * (double) ts.tv_nsec;
}

static double seconds_per_clock (void)
{
    uint64_t x = 1;
    double start = seconds ();
    for (int i = 0; i < 25000; i++) {
#if defined(__x86_64__)
        __asm__ volatile("add $1, %0\n\tadd $1, %0\n\tadd $1, %0\n\tadd $1, %0\n\t"
                         "add $1, %0\n\tadd $1, %0\n\tadd $1, %0\n\tadd $1, %0"
                         : "+r"(x));
#elif defined(__aarch64__)
        __asm__ volatile("add %0, %0, #1\n\tadd %0, %0, #1\n\tadd %0, %0, #1\n\tadd %0, %0, #1\n\t"
                         "add %0, %0, #1\n\tadd %0, %0, #1\n\tadd %0, %0, #1\n\tadd %0, %0, #1"
                         : "+r"(x));
#endif
    }
    return (seconds () - start) / 200000;
}

typedef struct timing {
    double best, clock; /* seconds */
} timing;

/* Best of runs for about half a second. */
static timing time_matmul (const wl_kernels *k, uint32_t type, float *out, size_t out_stride, const uint8_t *tiles,
                           size_t n_tiles, size_t chunk, const wl_activations *a, void *scratch)
{
    const wl_format *f = wl_format_find (type);
    size_t tile_bytes = a->n / f->block_elements * f->tile_bytes;
    timing t = {1e9, 1e9};
    double begun = seconds ();
    for (int i = 0; i < 3 || (seconds () - begun < 0.5 && i < 1000); i++) {
        double clock = seconds_per_clock (), start = seconds ();
        for (size_t j = 0; j < n_tiles; j += chunk)
            k->matmul[type](out + 8 * j, out_stride, tiles + j * tile_bytes, n_tiles - j < chunk ? n_tiles - j : chunk,
                            a, scratch);
        double took = seconds () - start;
        t.best = took < t.best ? took : t.best;
        t.clock = clock < t.clock ? clock : t.clock;
    }
    return t;
}

/* The matrix is filled by repeating one row's random bytes: values do not matter for time, but no NaN or subnormals. */
static uint8_t *bench_tiles (test_state *t, uint32_t type, size_t n_tiles, size_t n)
{
    const wl_format *f = wl_format_find (type);
    size_t row_bytes = n / f->block_elements * f->tile_bytes / 8;
    uint8_t *row = test_alloc (row_bytes), *tiles = test_alloc (n_tiles * row_bytes * 8);
    const void *rows[8];
    random_row (t, type, row, n, ROWS_ORDINARY);
    for (int r = 0; r < 8; r++)
        rows[r] = row;
    for (size_t i = 0; i < n_tiles; i++)
        f->pack (tiles + i * row_bytes * 8, rows, n);
    test_free (row);
    return tiles;
}

static void bench_type (test_state *t, const wl_kernels *k, uint32_t type)
{
    enum { N = 2048, GEMM_ROWS = 64, GEMM_COLUMNS = 512, GEMV_BYTES = 160 << 20 };
    static const size_t few[] = {1, 2, 3, 4, 6, 8, 16, 64};
    const wl_format *f = wl_format_find (type);
    size_t tile_bytes = N / f->block_elements * f->tile_bytes, n_tiles = GEMV_BYTES / tile_bytes;
    bool slow = k == &wl_kernels_scalar;
    if (slow)
        n_tiles = 4;
    uint8_t *tiles = bench_tiles (t, type, n_tiles, N);
    void *scratch = test_alloc (k->scratch_bytes);
    test_activations a;
    make_activations (t, &a, k, f->activation, slow ? 4 : GEMM_COLUMNS, N, false);
    float *out = test_alloc (few[sizeof few / sizeof few[0] - 1] * n_tiles * 8 * sizeof (float));
    size_t gemm_tiles = slow ? 4 : GEMM_ROWS / 8;
    timing gemm = time_matmul (k, type, out, gemm_tiles * 8, tiles, gemm_tiles, 8, &a.a, scratch);
    double macs = (double) a.a.n_rows * (double) gemm_tiles * 8 * N;
    printf ("%-8s %-7s %6.1f MAC/clk at %zu columns (%.2f GHz); GB/s by columns:", k->isa, wl_type_name (type),
            macs * gemm.clock / gemm.best, a.a.n_rows, 1e-9 / gemm.clock);
    for (size_t i = 0; i < sizeof few / sizeof few[0] && few[i] <= a.a.n_rows; i++) {
        wl_activations b = a.a;
        b.n_rows = few[i];
        timing gemv = time_matmul (k, type, out, n_tiles * 8, tiles, n_tiles, 32, &b, scratch);
        printf (" %zu: %.1f", few[i], (double) (n_tiles * tile_bytes) / gemv.best * 1e-9);
    }
    printf ("\n");
    fflush (stdout);
    test_free (tiles);
    test_free (scratch);
    test_free (out);
    free_activations (&a);
}

static const struct {
    size_t head_dim, group, n_queries;
    uint32_t last;
} attentions[] = {{128, 6, 1, 511},  {128, 6, 1, 4095},  {128, 4, 1, 4095}, {64, 1, 1, 1023},
                  {128, 6, 64, 511}, {128, 6, 64, 4095}, {64, 3, 64, 1023}, {256, 4, 16, 1023}};

/* n_rows query rows (groups of heads) against `last` positions. */
static void bench_attention (test_state *t, const wl_kernels *k, wl_kv_type kv_type, size_t head_dim, size_t group,
                             size_t n_queries, uint32_t last)
{
    enum { MAX_PAGES = 128 };
    uint16_t *k_pages[MAX_PAGES], *v_pages[MAX_PAGES]; /* of q8_0 the elements are these bits, and the scales behind */
    size_t n_rows = group * n_queries, n_pages = last / WL_KV_PAGE + 1;
    size_t page_bytes = (size_t) wl_kv_page_bytes (kv_type, 1, 1, (uint32_t) head_dim) / 2;
    for (size_t i = 0; i < n_pages; i++) {
        k_pages[i] = test_alloc (WL_KV_PAGE * head_dim * 2);
        v_pages[i] = test_alloc (WL_KV_PAGE * head_dim * 2);
        for (size_t j = 0; j < WL_KV_PAGE * head_dim; j++) {
            k_pages[i][j] = (uint16_t) (0x2c00 + random_below (t, 0x800));
            v_pages[i][j] = (uint16_t) (0x3400 + random_below (t, 0x800));
        }
    }
    float *q = test_alloc (n_rows * head_dim * sizeof (float)), *out = test_alloc (n_rows * head_dim * sizeof (float));
    float *scratch = test_alloc (wl_attention_scratch (n_rows, head_dim) * sizeof (float));
    uint32_t *first = test_alloc (n_rows * 4), *lasts = test_alloc (n_rows * 4);
    fill_normal (t, q, n_rows * head_dim);
    double pairs = 0;
    for (size_t i = 0; i < n_rows; i++) {
        lasts[i] = last - (uint32_t) (n_queries - 1 - i / group);
        pairs += lasts[i] + 1.0;
    }
    wl_attention a = {.n_rows = n_rows,
                      .head_dim = head_dim,
                      .q = q,
                      .q_stride = head_dim,
                      .out = out,
                      .out_stride = head_dim,
                      .first = first,
                      .last = lasts,
                      .kv_type = kv_type,
                      .k_pages = (const void *const *) k_pages,
                      .v_pages = (const void *const *) v_pages,
                      .scale = 0.09f,
                      .scratch = scratch};
    timing best = {1e9, 1e9};
    double begun = seconds ();
    for (int i = 0; i < 3 || seconds () - begun < 0.3; i++) {
        double clock = seconds_per_clock (), start = seconds ();
        k->attention (&a);
        double took = seconds () - start;
        best.best = took < best.best ? took : best.best;
        best.clock = clock < best.clock ? clock : best.clock;
    }
    printf ("%-8s attention %s head_dim %zu, %zu heads x %zu queries, %u positions: %.1f MAC/clk, %.1f GB/s of KV\n",
            k->isa, wl_kv_type_name (kv_type), head_dim, group, n_queries, last + 1,
            pairs * (double) head_dim * 2 * best.clock / best.best,
            (double) (last + 1) * (double) (2 * page_bytes) / WL_KV_PAGE / best.best * 1e-9);
    for (size_t i = 0; i < n_pages; i++) {
        test_free (k_pages[i]);
        test_free (v_pages[i]);
    }
    void *all[] = {q, out, scratch, first, lasts};
    for (size_t i = 0; i < 5; i++)
        test_free (all[i]);
}

static void bench_small (test_state *t, const wl_kernels *k)
{
    enum { N = 8192, ROUNDS = 200 };
    float *x = test_alloc (N * 4), *y = test_alloc (N * 4), *scales = test_alloc (N), *totals = test_alloc (N);
    int8_t *q = test_alloc (N);
    int16_t *sums = test_alloc (N);
    fill_normal (t, x, N);
    fill_normal (t, y, N);
    const char *names[] = {"rms_norm", "silu_mul", "gelu_mul", "quantize_q8_256", "quantize_q8_16"};
    printf ("%-8s clocks an element:", k->isa);
    for (int f = 0; f < 5; f++) {
        double best = 1e9, clock = 1e9;
        for (int i = 0; i < ROUNDS; i++) {
            double c = seconds_per_clock (), start = seconds ();
            switch (f) {
            case 0:
                k->rms_norm (y, x, x, N, 1e-5f);
                break;
            case 1:
                k->silu_mul (y, x, x, N);
                break;
            case 2:
                k->gelu_mul (y, x, x, N);
                break;
            case 3:
                k->quantize_q8_256 (q, scales, sums, x, N);
                break;
            default:
                k->quantize_q8_16 (q, scales, sums, totals, x, N);
                break;
            }
            double took = seconds () - start;
            best = took < best ? took : best;
            clock = c < clock ? c : clock;
        }
        printf (" %s %.2f", names[f], best / clock / N);
    }
    printf ("\n");
    void *all[] = {x, y, scales, totals, q, sums};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        test_free (all[i]);
}

static void bench_pack (uint32_t type)
{
    enum { N = 2048, TILES = 64 };
    const wl_format *f = wl_format_find (type);
    size_t row_bytes = N / f->block_elements * f->tile_bytes / 8;
    uint8_t *rows = test_alloc (TILES * 8 * row_bytes), *tile = test_alloc (TILES * 8 * row_bytes);
    double best = 1e9;
    for (int i = 0; i < 20; i++) {
        double start = seconds ();
        for (size_t j = 0; j < TILES; j++) {
            const void *pointers[8];
            for (size_t r = 0; r < 8; r++)
                pointers[r] = rows + (j * 8 + r) * row_bytes;
            f->pack (tile + j * 8 * row_bytes, pointers, N);
        }
        double took = seconds () - start;
        best = took < best ? took : best;
    }
    printf ("pack %-7s %.2f GB/s\n", wl_type_name (type), (double) (TILES * 8 * row_bytes) / best * 1e-9);
    test_free (rows);
    test_free (tile);
}

void bench (test_state *t, const char *only_type)
{
    const char *only_isa = t->isa;
    const wl_kernels *tables[16];
    size_t n = wl_kernels_all (tables, 16);
    for (size_t i = 0; i < n_all_types; i++)
        if (!only_type || strcmp (only_type, wl_type_name (all_types[i])) == 0)
            bench_pack (all_types[i]);
    for (size_t i = 0; i < n; i++) {
        if (only_isa && strcmp (only_isa, tables[i]->isa) != 0)
            continue;
        for (size_t j = 0; j < n_all_types; j++)
            if (!only_type || strcmp (only_type, wl_type_name (all_types[j])) == 0)
                bench_type (t, tables[i], all_types[j]);
        if (only_type && strcmp (only_type, "attention") != 0)
            continue;
        bench_small (t, tables[i]);
        for (wl_kv_type kv = 0; kv < WL_N_KV_TYPES; kv++)
            for (size_t j = 0; j < sizeof attentions / sizeof attentions[0]; j++)
                bench_attention (t, tables[i], kv, attentions[j].head_dim, attentions[j].group, attentions[j].n_queries,
                                 attentions[j].last);
    }
}

bool multiply_rounds (test_state *t, const char *type_name, size_t rounds, size_t n_columns)
{
    enum { N = 2048, TILES = 8, ROWS = TILES * WL_TILE_ROWS };
    wl_error err = {0};
    const wl_kernels *k = wl_kernels_find (t->isa, &err);
    size_t i = 0;
    while (i < n_all_types && (!type_name || strcmp (type_name, wl_type_name (all_types[i])) != 0))
        i++;
    if (!k || i == n_all_types) {
        fprintf (stderr, "kernels: --multiply wants --isa of this CPU and --type\n");
        return false;
    }
    const uint32_t type = all_types[i];
    uint8_t *tiles = bench_tiles (t, type, TILES, N);
    void *scratch = test_alloc (k->scratch_bytes);
    float *out = test_alloc (n_columns * ROWS * sizeof (float));
    test_activations a;
    make_activations (t, &a, k, wl_format_find (type)->activation, n_columns, N, false);
    for (size_t r = 0; r < rounds; r++)
        k->matmul[type](out, ROWS, tiles, TILES, &a.a, scratch);
    printf ("%zu multiply-adds a round\n", n_columns * ROWS * N);
    free_activations (&a);
    test_free (out);
    test_free (scratch);
    test_free (tiles);
    return true;
}
