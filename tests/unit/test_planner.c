/* The planner: splits are contiguous, complete, as even as possible, within memory, or refused with the figures. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "coordinator/planner.h"

enum { MOST_LAYERS = 40, D = 64 };

typedef struct fixture {
    wl_tensor embedding, norm, layers[MOST_LAYERS];
    wl_layer_plan plans[MOST_LAYERS];
    const wl_tensor *places[MOST_LAYERS][WL_N_ROLES];
    wl_model model;
} fixture;

/* A model whose layer i has 64 columns and rows[i] rows of F32, and an embedding (tied head) of n_vocab rows. */
static void make_model (fixture *f, uint32_t n_layers, const uint32_t *rows, uint32_t n_vocab)
{
    memset (f, 0, sizeof *f);
    f->embedding = (wl_tensor){.name = "token_embd.weight",
                               .type = WL_TYPE_F32,
                               .n_dims = 2,
                               .dims = {D, n_vocab, 1, 1},
                               .bytes = (uint64_t) n_vocab * D * 4};
    f->norm = (wl_tensor){
        .name = "output_norm.weight", .type = WL_TYPE_F32, .n_dims = 1, .dims = {D, 1, 1, 1}, .bytes = D * 4};
    for (uint32_t i = 0; i < n_layers; i++) {
        f->layers[i] = (wl_tensor){.name = "blk",
                                   .type = WL_TYPE_F32,
                                   .n_dims = 2,
                                   .dims = {D, rows[i], 1, 1},
                                   .bytes = (uint64_t) rows[i] * D * 4};
        f->places[i][WL_ROLE_FFN_UP] = &f->layers[i];
    }
    f->model = (wl_model){.n_layers = n_layers,
                          .d_model = D,
                          .d_ff = D,
                          .n_heads = 1,
                          .n_kv_heads = 1,
                          .head_dim = D,
                          .n_vocab = n_vocab,
                          .rope_dims = D,
                          .token_embedding = &f->embedding,
                          .output = &f->embedding,
                          .output_norm = &f->norm,
                          .tensors = f->places,
                          .layers = f->plans};
}

static wl_plan_request request_for (const fixture *f, const wl_plan_worker *workers, uint32_t n)
{
    return (wl_plan_request){
        .model = &f->model, .workers = workers, .n_workers = n, .n_pages = 1, .max_rows = 1, .max_logit_rows = 1};
}

static uint64_t largest (const wl_plan_stage *stages, uint32_t n)
{
    uint64_t most = 0;
    for (uint32_t i = 0; i < n; i++)
        most = stages[i].weight_bytes > most ? stages[i].weight_bytes : most;
    return most;
}

/* Tries every way to cut, for comparison. */
static uint64_t best_by_trial (const fixture *f, uint32_t first, uint32_t n_stages)
{
    uint64_t best = UINT64_MAX, bytes = first == 0 ? f->embedding.bytes : 0;
    for (uint32_t last = first; last + n_stages <= f->model.n_layers; last++) {
        bytes += f->layers[last].bytes;
        uint64_t rest = n_stages == 1 ? 0 : best_by_trial (f, last + 1, n_stages - 1), own = bytes;
        if (n_stages == 1) {
            if (last + 1 < f->model.n_layers)
                continue;
            own += f->embedding.bytes + f->norm.bytes;
        }
        uint64_t worst = own > rest ? own : rest;
        best = worst < best ? worst : best;
    }
    return best;
}

static void splits_are_complete_and_as_even_as_any (void **state)
{
    (void) state;
    const wl_plan_worker workers[] = {
        {"a", UINT64_MAX}, {"b", UINT64_MAX}, {"c", UINT64_MAX}, {"d", UINT64_MAX}, {"e", UINT64_MAX}};
    srand (7);
    for (int round = 0; round < 200; round++) {
        fixture f;
        uint32_t rows[10], n_layers = 1 + (uint32_t) rand () % 10, n_stages;
        for (uint32_t i = 0; i < n_layers; i++)
            rows[i] = 1 + (uint32_t) rand () % 100;
        make_model (&f, n_layers, rows, 1 + (uint32_t) rand () % 300);
        for (uint32_t n = 1; n <= 5 && n <= n_layers; n++) {
            wl_plan_stage stages[5];
            wl_error err = {0};
            wl_plan_request request = request_for (&f, workers, n);
            assert_true (wl_plan_split (&request, stages, &n_stages, &err));
            assert_int_equal (n_stages, n);
            uint32_t next = 0;
            for (uint32_t i = 0; i < n; i++) {
                assert_int_equal (stages[i].worker, i);
                assert_int_equal (stages[i].first_layer, next);
                assert_true (stages[i].last_layer >= stages[i].first_layer);
                next = stages[i].last_layer + 1;
            }
            assert_int_equal (next, n_layers);
            assert_int_equal (largest (stages, n), best_by_trial (&f, 0, n));
        }
    }
}

static void a_small_worker_gets_what_fits_it (void **state)
{
    (void) state;
    fixture f;
    const uint32_t rows[8] = {1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000};
    wl_plan_worker workers[] = {{"small", 900 * 1000}, {"big", UINT64_MAX}};
    wl_plan_stage stages[2];
    uint32_t n;
    wl_error err = {0};
    make_model (&f, 8, rows, 8);
    wl_plan_request request = request_for (&f, workers, 2);
    assert_true (wl_plan_split (&request, stages, &n, &err));
    assert_true (stages[0].weight_bytes + stages[0].kv_bytes + stages[0].work_bytes <= workers[0].memory_bytes);
    assert_int_equal (stages[0].last_layer, 2);
}

static void what_does_not_fit_is_refused_with_the_figures (void **state)
{
    (void) state;
    fixture f;
    const uint32_t rows[4] = {1000, 1000, 1000, 1000};
    wl_plan_worker workers[] = {{"tiny-1", 1000}, {"tiny-2", 1000}};
    wl_plan_stage stages[2];
    uint32_t n;
    wl_error err = {0}, together = {0};
    make_model (&f, 4, rows, 8);
    wl_plan_request request = request_for (&f, workers, 2);
    assert_false (wl_plan_split (&request, stages, &n, &err));
    assert_int_equal (err.code, WL_ERROR_CLUSTER);
    assert_non_null (strstr (err.text, "tiny-1"));
    assert_non_null (strstr (err.text, "MB"));
    workers[0].memory_bytes = workers[1].memory_bytes = 900 * 1000;
    request.share_one_machine = true;
    request.machine_bytes = 900 * 1000; /* each half fits, both do not */
    assert_false (wl_plan_split (&request, stages, &n, &together));
    assert_int_equal (together.code, WL_ERROR_CLUSTER);
}

static void a_split_by_hand_must_be_whole (void **state)
{
    (void) state;
    fixture f;
    const uint32_t rows[6] = {1, 1, 1, 1, 1, 1};
    const wl_plan_worker workers[] = {{"a", UINT64_MAX}, {"b", UINT64_MAX}};
    const char *const good[] = {"0-2,3-5", "0,1-5", "0-4,5"};
    const char *const bad[] = {
        "0-1,3-5", "0-3,3-5", "0-2,3-6", "0-5",  "0-1,2-3,4-5", "1-2,3-5", "0-2,3-4", "",
        "a-b",     "0-2;3-5", "0-2,",    ",0-5", "2-0,3-5",     "0-,1-5",  "-1-5",    "0-2,3-99999999999999999999"};
    make_model (&f, 6, rows, 8);
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        wl_plan_stage stages[2];
        uint32_t n;
        wl_error err = {0};
        wl_plan_request request = request_for (&f, workers, 2);
        request.layers = good[i];
        if (!wl_plan_split (&request, stages, &n, &err))
            fail_msg ("%s: %s", good[i], err.text);
        assert_int_equal (stages[0].first_layer, 0);
        assert_int_equal (stages[1].last_layer, 5);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        wl_plan_stage stages[2];
        uint32_t n;
        wl_error err = {0};
        wl_plan_request request = request_for (&f, workers, 2);
        request.layers = bad[i];
        if (wl_plan_split (&request, stages, &n, &err))
            fail_msg ("\"%s\" was accepted", bad[i]);
        assert_int_equal (err.code, WL_ERROR_USAGE);
    }
}

static void more_workers_than_layers_are_refused (void **state)
{
    (void) state;
    fixture f;
    const uint32_t rows[1] = {1};
    const wl_plan_worker workers[] = {{"a", UINT64_MAX}, {"b", UINT64_MAX}};
    wl_plan_stage stages[2];
    uint32_t n;
    wl_error err = {0};
    make_model (&f, 1, rows, 8);
    wl_plan_request request = request_for (&f, workers, 2);
    assert_false (wl_plan_split (&request, stages, &n, &err));
    assert_int_equal (err.code, WL_ERROR_USAGE);
}

int main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (splits_are_complete_and_as_even_as_any),
        cmocka_unit_test (a_small_worker_gets_what_fits_it),
        cmocka_unit_test (what_does_not_fit_is_refused_with_the_figures),
        cmocka_unit_test (a_split_by_hand_must_be_whole),
        cmocka_unit_test (more_workers_than_layers_are_refused),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
