/* The forward pass: against the exact reference's logits, and against itself. A result may not depend on how the layers are split, how a prompt is cut into steps,
 * what shares a step, how many threads work, or which kernels run. Models and logits of the reference are read from $WOOLLY_SHARED if it is there. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>
#include <sodium.h>

#include "engine/kv_cache.h"
#include "engine/memory.h"
#include "engine/stage.h"

enum { N_PAGES = 9, MAX_ROWS = 96, FEW_TOKENS = 33 };

typedef struct fixture {
    wl_gguf *gguf;
    wl_model *model;
    json_t *golden;
    int32_t *tokens;
    uint32_t n_tokens;
} fixture;

static const char *const tiny_models[] = {
    "granite-tiny-BF16",   "granite-tiny-F16",    "granite-tiny-IQ4_NL", "granite-tiny-IQ4_XS", "granite-tiny-Q2_K",
    "granite-tiny-Q3_K_M", "granite-tiny-Q4_0",   "granite-tiny-Q4_1",   "granite-tiny-Q4_K_M", "granite-tiny-Q5_0",
    "granite-tiny-Q5_1",   "granite-tiny-Q5_K_M", "granite-tiny-Q6_K",   "granite-tiny-Q8_0",   "llama-tiny-Q4_K_M",
    "qwen2-tiny-Q4_K_M",   "qwen3-tiny-Q4_K_M"};
enum { N_TINY = sizeof tiny_models / sizeof tiny_models[0] };

/* False where the references are not on this machine. */
static bool open_fixture (fixture *f, const char *name)
{
    const char *shared = getenv ("WOOLLY_SHARED");
    char path[1024];
    wl_error err = {0};
    *f = (fixture){0};
    snprintf (path, sizeof path, "%s/goldens/tiny/%s.json", shared ? shared : "", name);
    f->golden = shared ? json_load_file (path, 0, NULL) : NULL;
    if (!f->golden)
        return false;
    snprintf (path, sizeof path, "%s/models/tiny/%s.gguf", shared, name);
    f->gguf = wl_gguf_open (path, &err);
    if (f->gguf)
        f->model = wl_model_new (f->gguf, &err);
    if (!f->model) {
        fail_msg ("%s", err.text);
        return false;
    }
    json_t *ids = json_object_get (f->golden, "tokens");
    f->n_tokens = (uint32_t) json_array_size (ids);
    f->tokens = calloc (f->n_tokens, sizeof *f->tokens);
    for (uint32_t i = 0; i < f->n_tokens; i++)
        f->tokens[i] = (int32_t) json_integer_value (json_array_get (ids, i));
    return true;
}

static void close_fixture (fixture *f)
{
    wl_model_free (&f->model);
    wl_gguf_free (&f->gguf);
    json_decref (f->golden);
    free (f->tokens);
}

typedef struct shape { /* how a computation is laid out; results must not depend on it */
    uint32_t n_stages, n_threads, rows_per_step;
    bool shares_steps; /* another sequence of the same tokens, shifted, rides along in each step */
    const wl_kernels *kernels;
    bool copies_pages; /* each step that begins inside a page has it copied to another one first */
    wl_kv_type kv;     /* this one they do depend on */
} shape;

/* Logits of all tokens, [n_tokens, stride]. */
static float *compute (const fixture *f, const shape *as)
{
    wl_error err = {0};
    size_t stride = wl_stage_logit_stride (f->model);
    wl_thread_pool *pool = wl_thread_pool_new (as->n_threads, &err);
    wl_stage *stages[16] = {0};
    float *logits = wl_new_aligned (f->n_tokens * stride, sizeof (float), &err);
    float *in = wl_new_aligned (2 * MAX_ROWS * f->model->d_model, sizeof (float), &err);
    float *out = wl_new_aligned (2 * MAX_ROWS * stride, sizeof (float), &err);
    for (uint32_t i = 0; i < as->n_stages; i++) {
        wl_stage_options options = {.first_layer = f->model->n_layers * i / as->n_stages,
                                    .last_layer = f->model->n_layers * (i + 1) / as->n_stages - 1,
                                    .n_pages = N_PAGES,
                                    .kv = as->kv,
                                    .max_rows = 2 * MAX_ROWS,
                                    .kernels = as->kernels,
                                    .pool = pool};
        stages[i] = wl_stage_new (f->gguf, f->model, &options, NULL, NULL, &err);
        if (!stages[i])
            fail_msg ("%s", err.text);
    }
    uint32_t pages[2][4] = {{5, 0, 3, 6}, {1, 7, 2, 4}};
    uint32_t spare = 8;
    for (uint32_t at = 0; at < f->n_tokens; at += as->rows_per_step) {
        uint32_t n = f->n_tokens - at < as->rows_per_step ? f->n_tokens - at : as->rows_per_step;
        int32_t tokens[2 * MAX_ROWS];
        uint32_t rows[MAX_ROWS];
        uint32_t n_guests = as->shares_steps ? n : 0;
        wl_span spans[2];
        uint32_t n_spans = 0;
        if (n_guests)
            spans[n_spans++] = (wl_span){n_guests, at, pages[1], 4, false, 0};
        uint32_t moved = pages[0][at / WL_KV_PAGE]; /* the page that the step goes on in, if it does not begin one */
        bool moves = as->copies_pages && at % WL_KV_PAGE;
        if (moves) {
            pages[0][at / WL_KV_PAGE] = spare;
            spare = moved;
        }
        spans[n_spans++] = (wl_span){n, at, pages[0], 4, moves, moved};
        for (uint32_t i = 0; i < n_guests; i++)
            tokens[i] = f->tokens[(at + i + 7) % f->n_tokens];
        for (uint32_t i = 0; i < n; i++) {
            tokens[n_guests + i] = f->tokens[at + i];
            rows[i] = n_guests + i;
        }
        wl_batch batch = {n + n_guests, n_spans, spans, tokens, rows, n};
        for (uint32_t i = 0; i < as->n_stages; i++) {
            if (!wl_stage_forward (stages[i], &batch, i ? in : NULL, out, &err))
                fail_msg ("%s", err.text);
            if (i + 1 < as->n_stages)
                memcpy (in, out, (size_t) batch.n_rows * f->model->d_model * sizeof *in);
        }
        memcpy (logits + at * stride, out, n * stride * sizeof *out);
    }
    for (uint32_t i = 0; i < as->n_stages; i++)
        wl_stage_free (&stages[i]);
    wl_thread_pool_free (&pool);
    wl_free_aligned (in);
    wl_free_aligned (out);
    return logits;
}

static void logits_are_as_near_the_exact_reference_as_the_peers (void **state)
{
    (void) state;
    for (size_t i = 0; i < N_TINY; i++) {
        fixture f;
        if (!open_fixture (&f, tiny_models[i])) {
            print_message ("skipped: no reference for %s\n", tiny_models[i]);
            continue;
        }
        float *logits = compute (&f, &(shape){1, 2, MAX_ROWS, false, wl_kernels_find (NULL, NULL), false, WL_KV_F16});
        size_t n_vocab = f.model->n_vocab, stride = wl_stage_logit_stride (f.model);
        float *exact = malloc (n_vocab * sizeof *exact);
        double difference = 0, norm = 0;
        json_t *positions = json_object_get (f.golden, "positions"),
               *rows = json_object_get (f.golden, "logits_f32_le_base64");
        for (size_t p = 0; p < json_array_size (positions); p++) {
            size_t length, position = (size_t) json_integer_value (json_array_get (positions, p));
            json_t *text = json_array_get (rows, p);
            assert_int_equal (sodium_base642bin ((unsigned char *) exact, n_vocab * sizeof *exact,
                                                 json_string_value (text), json_string_length (text), "", &length, NULL,
                                                 sodium_base64_VARIANT_ORIGINAL),
                              0);
            assert_int_equal (length, n_vocab * sizeof *exact);
            for (size_t v = 0; v < n_vocab; v++) {
                double d = (double) logits[position * stride + v] - (double) exact[v];
                difference += d * d;
                norm += (double) exact[v] * (double) exact[v];
            }
        }
        double error = sqrt (difference / norm),
               peer = json_number_value (json_object_get (f.golden, "peer_relative_error"));
        print_message ("%-22s relative error %.6f, the peer's %.6f, ratio %.3f\n", tiny_models[i], error, peer,
                       error / peer);
        /* float weights: both are at the level of f32 and f16 rounding */
        assert_true (error <= 1.1 * peer || error < 5e-4);
        free (exact);
        wl_free_aligned (logits);
        close_fixture (&f);
    }
}

static void results_do_not_depend_on_stages_steps_threads_company_or_kernels (void **state)
{
    (void) state;
    static const struct {
        const char *name;
        wl_kv_type kv;
    } models[] = {{"granite-tiny-Q4_K_M", WL_KV_F16},
                  {"granite-tiny-Q4_1", WL_KV_F16},
                  {"granite-tiny-F16", WL_KV_F16},
                  {"qwen3-tiny-Q4_K_M", WL_KV_F16},
                  {"qwen3-tiny-Q4_K_M", WL_KV_Q8_0}};
    for (size_t i = 0; i < sizeof models / sizeof models[0]; i++) {
        fixture f;
        wl_kv_type kv = models[i].kv;
        if (!open_fixture (&f, models[i].name)) {
            print_message ("skipped: no %s\n", models[i].name);
            continue;
        }
        f.n_tokens = f.n_tokens < FEW_TOKENS ? f.n_tokens : FEW_TOKENS; /* the scalar kernels take their time */
        float *expected = compute (&f, &(shape){1, 1, MAX_ROWS, false, &wl_kernels_scalar, false, kv});
        const wl_kernels *all[8];
        size_t n_isas = wl_kernels_all (all, 8);
        for (size_t isa = 0; isa < n_isas; isa++) {
            const shape shapes[] = {
                {1, 1, MAX_ROWS, false, all[isa], false, kv}, {2, 2, 17, false, all[isa], true, kv},
                {1, 2, 1, false, all[isa], false, kv},        {f.model->n_layers, 1, 5, true, all[isa], true, kv},
                {2, 3, 1, true, all[isa], false, kv},         {1, 2, 64, true, all[isa], false, kv}};
            for (size_t j = 0; j < sizeof shapes / sizeof shapes[0]; j++) {
                float *got = compute (&f, &shapes[j]);
                size_t bytes = f.n_tokens * wl_stage_logit_stride (f.model) * sizeof *got;
                if (memcmp (got, expected, bytes) != 0)
                    fail_msg ("%s, %s: %s kernels, %u stages, %u threads, %u rows a step differ", models[i].name,
                              wl_kv_type_name (kv), all[isa]->isa, shapes[j].n_stages, shapes[j].n_threads,
                              shapes[j].rows_per_step);
                wl_free_aligned (got);
            }
        }
        wl_free_aligned (expected);
        close_fixture (&f);
    }
}

static void a_q8_0_cache_is_near_an_f16_one_in_half_its_memory (void **state)
{
    (void) state;
    fixture f;
    if (!open_fixture (&f, "granite-tiny-F16")) {
        print_message ("skipped: no model\n");
        return;
    }
    const wl_model *m = f.model;
    const wl_kernels *best = wl_kernels_find (NULL, NULL);
    float *exact = compute (&f, &(shape){1, 2, MAX_ROWS, false, best, false, WL_KV_F16}),
          *rounded = compute (&f, &(shape){1, 2, MAX_ROWS, false, best, false, WL_KV_Q8_0});
    double difference = 0, norm = 0;
    for (size_t i = 0; i < f.n_tokens * wl_stage_logit_stride (m); i++) {
        double d = (double) rounded[i] - (double) exact[i];
        difference += d * d;
        norm += (double) exact[i] * (double) exact[i];
    }
    print_message ("relative difference %.6f\n", sqrt (difference / norm));
    assert_true (difference > 0 && sqrt (difference / norm) < 0.01);
    wl_stage_options options = {.last_layer = m->n_layers - 1, .n_pages = 1000, .max_rows = 1};
    uint64_t needed[WL_N_KV_TYPES], pages[WL_N_KV_TYPES];
    for (wl_kv_type kv = 0; kv < WL_N_KV_TYPES; kv++) {
        options.kv = kv;
        needed[kv] = wl_stage_memory_needed (m, &options);
        pages[kv] = 1000 * wl_kv_page_bytes (kv, m->n_layers, m->n_kv_heads, m->head_dim);
    }
    assert_int_equal (pages[WL_KV_Q8_0], pages[WL_KV_F16] * 34 / 64);
    assert_int_equal (needed[WL_KV_F16] - needed[WL_KV_Q8_0], pages[WL_KV_F16] - pages[WL_KV_Q8_0]);
    wl_free_aligned (exact);
    wl_free_aligned (rounded);
    close_fixture (&f);
}

static void a_step_that_breaks_a_bound_is_refused (void **state)
{
    (void) state;
    fixture f;
    if (!open_fixture (&f, "llama-tiny-Q4_K_M")) {
        print_message ("skipped: no model\n");
        return;
    }
    wl_error err = {0};
    wl_thread_pool *pool = wl_thread_pool_new (1, &err);
    wl_stage_options options = {.last_layer = f.model->n_layers - 1,
                                .n_pages = N_PAGES,
                                .max_rows = MAX_ROWS,
                                .kernels = &wl_kernels_scalar,
                                .pool = pool};
    wl_stage *stage = wl_stage_new (f.gguf, f.model, &options, NULL, NULL, &err);
    assert_non_null (stage);
    const uint32_t pages[] = {0, 1}, wild[] = {0, N_PAGES};
    const int32_t tokens[] = {1, 2}, no_tokens[] = {1, (int32_t) f.model->n_vocab}, negative[] = {-1, 0};
    const uint32_t rows[] = {0, 1}, unordered[] = {1, 0}, outside[] = {0, 2};
    const wl_span good = {2, 0, pages, 1, false, 0}, beyond = {2, 63, pages, 1, false, 0},
                  wrapped = {2, UINT32_MAX, pages, 2, false, 0}, wild_pages = {2, 0, wild, 2, false, 0},
                  many_pages = {2, 0, pages, N_PAGES + 1, false, 0}, empty = {0, 0, pages, 1, false, 0},
                  three = {3, 0, pages, 1, false, 0}, copies = {2, 5, pages, 1, true, N_PAGES - 1},
                  copies_nothing = {2, 5, pages, 1, true, N_PAGES}, copies_at_start = {2, 64, pages, 2, true, 0};
    const struct {
        wl_batch batch;
        bool ok;
    } cases[] = {
        {{2, 1, &good, tokens, rows, 2}, true},
        {{2, 1, &beyond, tokens, rows, 2}, false},
        {{2, 1, &wrapped, tokens, rows, 2}, false},
        {{2, 1, &wild_pages, tokens, rows, 2}, false},
        {{2, 1, &many_pages, tokens, rows, 2}, false},
        {{2, 1, &empty, tokens, rows, 2}, false},
        {{2, 1, &three, tokens, rows, 2}, false},
        {{2, 0, NULL, tokens, rows, 2}, false},
        {{0, 0, NULL, tokens, rows, 0}, false},
        {{2, 1, &good, no_tokens, rows, 2}, false},
        {{2, 1, &good, negative, rows, 2}, false},
        {{2, 1, &good, tokens, unordered, 2}, false},
        {{2, 1, &good, tokens, outside, 2}, false},
        {{MAX_ROWS + 1, 1, &good, tokens, rows, 2}, false},
        {{2, 1, &copies, tokens, rows, 2}, true},
        {{2, 1, &copies_nothing, tokens, rows, 2}, false},
        {{2, 1, &copies_at_start, tokens, rows, 2}, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        wl_error why = {0};
        if (wl_stage_check (stage, &cases[i].batch, &why) != cases[i].ok)
            fail_msg ("case %zu: %s", i, why.text);
        assert_int_equal (why.code == WL_OK, cases[i].ok);
    }
    wl_stage_free (&stage);
    wl_thread_pool_free (&pool);
    close_fixture (&f);
}

static void loading_survives_any_failing_allocation (void **state)
{
    (void) state;
    fixture f;
    if (!open_fixture (&f, "qwen2-tiny-Q4_K_M")) {
        print_message ("skipped: no model\n");
        return;
    }
    wl_error err = {0};
    wl_thread_pool *pool = wl_thread_pool_new (1, &err);
    wl_stage_options options = {.last_layer = f.model->n_layers - 1,
                                .n_pages = N_PAGES,
                                .max_rows = 4,
                                .kernels = &wl_kernels_scalar,
                                .pool = pool};
    bool loaded = false;
    for (unsigned nth = 1; !loaded; nth++) {
        wl_error why = {0};
        wl_memory_fail_after (nth);
        wl_stage *stage = wl_stage_new (f.gguf, f.model, &options, NULL, NULL, &why);
        wl_memory_fail_after (0);
        loaded = stage != NULL;
        assert_int_equal (why.code, loaded ? WL_OK : WL_ERROR_INTERNAL);
        wl_stage_free (&stage);
        assert_true (nth < 500);
    }
    wl_thread_pool_free (&pool);
    close_fixture (&f);
}

int main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (logits_are_as_near_the_exact_reference_as_the_peers),
        cmocka_unit_test (results_do_not_depend_on_stages_steps_threads_company_or_kernels),
        cmocka_unit_test (a_q8_0_cache_is_near_an_f16_one_in_half_its_memory),
        cmocka_unit_test (a_step_that_breaks_a_bound_is_refused),
        cmocka_unit_test (loading_survives_any_failing_allocation),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
