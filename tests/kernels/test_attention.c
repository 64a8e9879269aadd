/* Attention against scalar: head sizes, windows, caps, sinks, page and block edges; poison where no row may look. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "engine/kernels/math.h"
#include "engine/kv_cache.h"
#include "kernels_test.h"

enum { MAX_POSITIONS = 1100, MAX_ROWS = 26, N_PAGES = MAX_POSITIONS / WL_KV_PAGE + 1 };

typedef struct attention_case {
    size_t n_rows, head_dim;
    uint32_t first[MAX_ROWS], last[MAX_ROWS];
    float scale, softcap;
    bool sinks;
    wl_kv_type kv_type;
} attention_case;

/* Random keys and values; those that no row sees are NaN, pages that no row sees are absent. */
static void put_f16 (test_state *t, const attention_case *c, void *k_page, void *v_page, size_t p, bool seen,
                     float size)
{
    uint16_t *k = k_page, *v = v_page;
    for (size_t d = 0; d < c->head_dim; d++) {
        k[(p / 16 * c->head_dim + d) * 16 + p % 16] = seen ? wl_f32_to_f16 (size * random_normal (t)) : 0x7e00;
        v[p * c->head_dim + d] = seen ? wl_f32_to_f16 (random_normal (t)) : 0x7e00;
    }
}

static void put_q8_0 (test_state *t, const attention_case *c, void *k_page, void *v_page, size_t p, bool seen,
                      float size)
{
    int8_t *k = k_page, *v = v_page;
    uint16_t *k_scales = (uint16_t *) (void *) (k + WL_KV_PAGE * c->head_dim),
             *v_scales = (uint16_t *) (void *) (v + WL_KV_PAGE * c->head_dim);
    for (size_t d = 0; d < c->head_dim; d++) {
        k[(p / 16 * c->head_dim + d) * 16 + p % 16] = (int8_t) ((int) random_below (t, 255) - 127);
        v[p * c->head_dim + d] = (int8_t) ((int) random_below (t, 255) - 127);
    }
    for (size_t b = 0; b < c->head_dim / WL_KV_SCALED; b++) {
        k_scales[b * WL_KV_PAGE + p] = seen ? wl_f32_to_f16 (size * (1.1f + random_unit (t)) / 127) : 0x7e00;
        v_scales[b * WL_KV_PAGE + p] = seen ? wl_f32_to_f16 ((1.1f + random_unit (t)) / 127) : 0x7e00;
    }
}

static void make_pages (test_state *t, const attention_case *c, void **k_pages, void **v_pages, float size)
{
    size_t bytes = (size_t) wl_kv_page_bytes (c->kv_type, 1, 1, (uint32_t) c->head_dim) / 2;
    for (size_t page = 0; page < N_PAGES; page++) {
        k_pages[page] = v_pages[page] = NULL;
        for (size_t i = 0; i < c->n_rows && !k_pages[page]; i++)
            if (c->first[i] / WL_KV_PAGE <= page && page <= c->last[i] / WL_KV_PAGE) {
                k_pages[page] = test_alloc (bytes);
                v_pages[page] = test_alloc (bytes);
            }
        for (size_t p = 0; k_pages[page] && p < WL_KV_PAGE; p++) {
            bool seen = false;
            for (size_t i = 0; i < c->n_rows; i++)
                seen = seen || (c->first[i] <= page * WL_KV_PAGE + p && page * WL_KV_PAGE + p <= c->last[i]);
            (c->kv_type == WL_KV_F16 ? put_f16 : put_q8_0) (t, c, k_pages[page], v_pages[page], p, seen, size);
        }
    }
}

static void compare_case (test_state *t, const wl_kernels *kernels, const attention_case *c, float size)
{
    void *k_pages[N_PAGES], *v_pages[N_PAGES];
    make_pages (t, c, k_pages, v_pages, size);
    size_t q_stride = c->head_dim + 3, out_stride = c->head_dim + 5;
    float *q = test_alloc (c->n_rows * q_stride * sizeof (float)), sinks[MAX_ROWS];
    float *out[2];
    fill_normal (t, q, c->n_rows * q_stride);
    fill_normal (t, sinks, MAX_ROWS);
    float *scratch = test_alloc (wl_attention_scratch (c->n_rows, c->head_dim) * sizeof (float));
    for (int i = 0; i < 2; i++) {
        out[i] = test_alloc (c->n_rows * out_stride * sizeof (float));
        wl_attention a = {
            .n_rows = c->n_rows,
            .head_dim = c->head_dim,
            .q = q,
            .q_stride = q_stride,
            .out = out[i],
            .out_stride = out_stride,
            .first = c->first,
            .last = c->last,
            .kv_type = c->kv_type,
            .k_pages = (const void *const *) k_pages,
            .v_pages = (const void *const *) v_pages,
            .scale = c->scale,
            .softcap = c->softcap,
            .sinks = c->sinks ? sinks : NULL,
            .scratch = scratch,
        };
        (i ? kernels : &wl_kernels_scalar)->attention (&a);
    }
    char where[160];
    snprintf (where, sizeof where, "%s, %zu rows, head_dim %zu, first row sees %u-%u, last row %u-%u, softcap %g%s",
              wl_kv_type_name (c->kv_type), c->n_rows, c->head_dim, c->first[0], c->last[0], c->first[c->n_rows - 1],
              c->last[c->n_rows - 1], (double) c->softcap, c->sinks ? ", sinks" : "");
    check_floats (t, out[1], out[0], c->n_rows * out_stride, where);
    bool finite = true;
    for (size_t i = 0; i < c->n_rows * out_stride; i++)
        finite = finite && isfinite (out[0][i]);
    check (t, finite, "%s: scalar looked at a hidden position", where);
    for (size_t page = 0; page < N_PAGES; page++) {
        test_free (k_pages[page]);
        test_free (v_pages[page]);
    }
    test_free (q);
    test_free (out[0]);
    test_free (out[1]);
    test_free (scratch);
}

/* The definition itself: with scales of a power of two and few bits, both types hold the same numbers. */
static void compare_types (test_state *t)
{
    enum { DIM = 64, ROWS = 3, LAST = 300, PAGES = LAST / WL_KV_PAGE + 1 };
    void *pages[WL_N_KV_TYPES][2][PAGES];
    float q[ROWS * DIM], out[WL_N_KV_TYPES][ROWS * DIM];
    const uint32_t first[ROWS] = {0}, last[ROWS] = {LAST - 2, LAST - 1, LAST};
    float *scratch = test_alloc (wl_attention_scratch (ROWS, DIM) * sizeof (float));
    fill_normal (t, q, ROWS * DIM);
    for (size_t i = 0; i < 2 * PAGES; i++) {
        bool is_k = i < PAGES;
        uint16_t *half = pages[WL_KV_F16][!is_k][i % PAGES] = test_alloc (WL_KV_PAGE * DIM * sizeof *half);
        int8_t *bytes = pages[WL_KV_Q8_0][!is_k][i % PAGES] = test_alloc ((size_t) WL_KV_PAGE * (DIM + DIM / 16));
        uint16_t *scales = (uint16_t *) (void *) (bytes + WL_KV_PAGE * DIM);
        for (size_t j = 0; j < DIM / WL_KV_SCALED * WL_KV_PAGE; j++)
            scales[j] = wl_f32_to_f16 (ldexpf (1, -(int) random_below (t, 8)));
        for (size_t p = 0; p < WL_KV_PAGE; p++)
            for (size_t d = 0; d < DIM; d++) {
                size_t at = is_k ? (p / 16 * DIM + d) * 16 + p % 16 : p * DIM + d;
                bytes[at] = (int8_t) ((int) random_below (t, 15) - 7);
                half[at] = wl_f32_to_f16 (bytes[at] * wl_f16_to_f32 (scales[d / WL_KV_SCALED * WL_KV_PAGE + p]));
            }
    }
    for (wl_kv_type type = 0; type < WL_N_KV_TYPES; type++)
        wl_kernels_scalar.attention (&(wl_attention){.n_rows = ROWS,
                                                     .head_dim = DIM,
                                                     .q = q,
                                                     .q_stride = DIM,
                                                     .out = out[type],
                                                     .out_stride = DIM,
                                                     .first = first,
                                                     .last = last,
                                                     .kv_type = type,
                                                     .k_pages = (const void *const *) pages[type][0],
                                                     .v_pages = (const void *const *) pages[type][1],
                                                     .scale = 0.05f,
                                                     .scratch = scratch});
    float worst = 0;
    for (size_t i = 0; i < ROWS * DIM; i++)
        worst = fmaxf (worst, fabsf (out[WL_KV_F16][i] - out[WL_KV_Q8_0][i]));
    check (t, worst < 1e-5f, "the same numbers as f16 and as q8_0 differ by %g", (double) worst);
    for (size_t i = 0; i < WL_N_KV_TYPES * 2 * PAGES; i++)
        test_free (pages[i / PAGES / 2][i / PAGES % 2][i % PAGES]);
    test_free (scratch);
}

static void test_kv_type (test_state *t, const wl_kernels *kernels, wl_kv_type kv_type)
{
    static const size_t head_dims[] = {64, 80, 96, 128, 256, 8, 20, 40, 192};
    static const uint32_t edges[] = {0,   1,   7,   15,  16,  17,  63,   64,   65,  127,
                                     255, 256, 257, 511, 512, 600, 1023, 1024, 1099};
    for (size_t h = 0; h < sizeof head_dims / sizeof head_dims[0]; h++) {
        if (kv_type == WL_KV_Q8_0 && head_dims[h] % WL_KV_SCALED)
            continue;
        for (int round = 0; round < (t->quick ? 12 : 60); round++) {
            attention_case c = {.head_dim = head_dims[h], .scale = 0.11f, .kv_type = kv_type};
            c.n_rows = round < 26 ? 1 + (size_t) round % MAX_ROWS : 1 + random_below (t, MAX_ROWS);
            c.softcap = round % 3 == 1 ? 20.0f : 0.0f;
            c.sinks = round % 5 == 2;
            size_t group = 1 + random_below (t, 8); /* query heads a position */
            uint32_t at = edges[random_below (t, sizeof edges / sizeof edges[0])];
            uint32_t window = round % 4 == 0 ? 1 + (uint32_t) random_below (t, 300) : MAX_POSITIONS;
            for (size_t i = 0; i < c.n_rows; i++) {
                uint32_t last = at + (uint32_t) (i / group);
                c.last[i] = last < MAX_POSITIONS ? last : MAX_POSITIONS - 1;
                c.first[i] = c.last[i] >= window ? c.last[i] - window + 1 : 0;
                if (round % 7 == 6) { /* ranges that need not touch each other */
                    c.last[i] = (uint32_t) random_below (t, MAX_POSITIONS);
                    c.first[i] = (uint32_t) random_below (t, c.last[i] + 1u);
                }
            }
            compare_case (t, kernels, &c, round % 6 == 5 ? 40.0f : 1.0f);
        }
    }
}

void test_attention (test_state *t, const wl_kernels *kernels)
{
    t->what = "attention";
    test_kv_type (t, kernels, WL_KV_F16);
    test_kv_type (t, kernels, WL_KV_Q8_0);
    compare_types (t);
}
