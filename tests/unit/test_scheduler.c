/* Requests over real workers: whatever shares the pipeline with a request, however its guesses fare and however often it loses its pages, it gets the tokens that it gets
 * alone over one stage. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "coordinator/scheduler.h"
#include "engine/kernels/kernels.h"
#include "peers.h"

enum { N_VOCAB = 48, N_REQUESTS = 12, MOST_TOKENS = 300, CONTEXT = 4096, MAX_ROWS = 32, TURN_MS = 20000 };

static const model_shape small = {
    .n_layers = 4, .d_model = 32, .d_ff = 64, .n_heads = 4, .n_kv_heads = 2, .n_vocab = N_VOCAB};

typedef struct fixture {
    char folder[64], model_path[96], binary[512];
    wl_gguf *gguf;
    wl_model *model;
    wl_cluster *cluster;
    wl_scheduler *scheduler;
} fixture;

typedef struct request {
    int32_t prompt[200];
    wl_request_options options;
    wl_request *handle; /* NULL once it has ended */
    int32_t tokens[MOST_TOKENS];
    size_t n_tokens;
} request;

static bool on_token (void *context, const wl_sample *sample)
{
    request *r = context;
    r->tokens[r->n_tokens++] = sample->token;
    if (r->n_tokens == r->options.max_tokens)
        r->handle = NULL;
    return true;
}

/* Prompts with and without repetition, short and long, drawn greedily and not. */
static void make_requests (request *requests, size_t extra_tokens)
{
    for (size_t i = 0; i < N_REQUESTS; i++) {
        request *r = &requests[i];
        *r = (request){.options = {.prompt = r->prompt, .context = r, .on_token = on_token}};
        r->options.n_prompt = i % 3 ? 5 + i * 16 : 1 + i;
        for (size_t k = 0; k < r->options.n_prompt; k++)
            r->prompt[k] = (int32_t) (i % 2 ? k % (3 + i) : (k * k * 7 + i) % N_VOCAB);
        r->options.max_tokens = extra_tokens + 20 + i * 6;
        r->options.sampling = wl_sampling_default ();
        r->options.sampling.seed = 100 + i;
        r->options.sampling.temperature = i % 4 == 1 ? 0 : 0.9f;
        if (i % 4 == 2)
            r->options.sampling.repeat_penalty = 1.3f;
    }
}

static void open_fixture (fixture *f)
{
    wl_error err = {0};
    const char *folder = getenv ("WOOLLY_BIN");
    *f = (fixture){0};
    snprintf (f->binary, sizeof f->binary, "%s/woolly-worker", folder ? folder : "build/bin");
    snprintf (f->folder, sizeof f->folder, "/tmp/woolly-test-XXXXXX");
    assert_non_null (mkdtemp (f->folder));
    snprintf (f->model_path, sizeof f->model_path, "%s/model.gguf", f->folder);
    assert_true (write_model (f->model_path, &small, false));
    f->gguf = wl_gguf_open (f->model_path, &err);
    f->model = f->gguf ? wl_model_new (f->gguf, &err) : NULL;
    if (!f->model)
        fail_msg ("%s", err.text);
    wl_link_start_process ();
}

static void close_fixture (fixture *f)
{
    wl_model_free (&f->model);
    wl_gguf_free (&f->gguf);
    unlink (f->model_path);
    rmdir (f->folder);
}

static void start (fixture *f, uint32_t n_stages, uint32_t n_pages, wl_speculation_kind speculation)
{
    wl_error err = {0};
    wl_cluster_options options = {
        .n_local = n_stages, .n_threads = 1, .join_timeout_s = 60, .worker_binary = f->binary};
    wl_cluster_need need = {.gguf = f->gguf,
                            .model = f->model,
                            .n_pages = n_pages,
                            .max_rows = MAX_ROWS,
                            .max_logit_rows = MAX_ROWS,
                            .context = CONTEXT};
    wl_scheduler_options scheduling = {
        .n_pages = n_pages, .max_rows = MAX_ROWS, .max_logit_rows = MAX_ROWS, .speculation = speculation};
    f->cluster = wl_cluster_start (&options, &need, NULL, NULL, &err);
    f->scheduler = f->cluster ? wl_scheduler_new (f->cluster, &scheduling, &err) : NULL;
    if (!f->scheduler)
        fail_msg ("%s", err.text);
}

static void stop (fixture *f)
{
    wl_scheduler_free (&f->scheduler);
    wl_cluster_stop (&f->cluster);
}

static void turn (fixture *f)
{
    wl_error err = {0};
    if (!wl_scheduler_turn (f->scheduler, TURN_MS, &err))
        fail_msg ("%s", err.text);
}

static void add (fixture *f, request *r)
{
    wl_error err = {0};
    r->handle = wl_scheduler_add (f->scheduler, &r->options, &err);
    if (!r->handle)
        fail_msg ("%s", err.text);
}

static void finish (fixture *f)
{
    while (wl_scheduler_active (f->scheduler))
        turn (f);
}

/* Each request by itself over one stage without guesses. */
static void make_expected (fixture *f, request *expected, size_t extra_tokens)
{
    make_requests (expected, extra_tokens);
    start (f, 1, wl_scheduler_pages (CONTEXT), WL_SPECULATION_OFF);
    for (size_t i = 0; i < N_REQUESTS; i++) {
        add (f, &expected[i]);
        finish (f);
        assert_int_equal (expected[i].n_tokens, expected[i].options.max_tokens);
    }
    stop (f);
}

static void assert_same (const request *requests, const request *expected, size_t i)
{
    assert_int_equal (requests[i].n_tokens, expected[i].n_tokens);
    assert_memory_equal (requests[i].tokens, expected[i].tokens, expected[i].n_tokens * sizeof (int32_t));
}

static void a_request_gets_its_own_tokens_among_others_over_any_stages_with_and_without_guesses (void **state)
{
    (void) state;
    static const wl_speculation_kind kinds[] = {WL_SPECULATION_OFF, WL_SPECULATION_NGRAM, WL_SPECULATION_AUTO};
    static request expected[N_REQUESTS], requests[N_REQUESTS];
    fixture f;
    open_fixture (&f);
    make_expected (&f, expected, 0);
    for (uint32_t stages = 1; stages <= 4; stages++) {
        uint64_t drafted, accepted;
        make_requests (requests, 0);
        start (&f, stages, wl_scheduler_pages (CONTEXT), kinds[stages % 3]);
        for (size_t i = 0; i < N_REQUESTS; i++) { /* they join one after another, and leave when they are done */
            add (&f, &requests[i]);
            if (i % 2)
                turn (&f);
        }
        finish (&f);
        for (size_t i = 0; i < N_REQUESTS; i++)
            assert_same (requests, expected, i);
        wl_scheduler_speculation (f.scheduler, &drafted, &accepted);
        assert_true (accepted <= drafted);
        if (kinds[stages % 3] == WL_SPECULATION_OFF)
            assert_int_equal (drafted, 0);
        if (kinds[stages % 3] == WL_SPECULATION_NGRAM)
            assert_true (drafted > 0);
        assert_int_equal (wl_scheduler_preempted (f.scheduler), 0);
        stop (&f);
    }
    close_fixture (&f);
}

static void requests_that_lose_their_pages_go_on_with_the_same_tokens (void **state)
{
    enum { LONG = 180 };
    (void) state;
    static request expected[N_REQUESTS], requests[N_REQUESTS];
    fixture f;
    open_fixture (&f);
    make_expected (&f, expected, LONG);
    uint32_t largest = 0;
    for (size_t i = 0; i < N_REQUESTS; i++) {
        uint32_t pages = wl_scheduler_pages (expected[i].options.n_prompt + expected[i].options.max_tokens);
        largest = pages > largest ? pages : largest;
    }
    for (uint32_t stages = 1; stages <= 3; stages++) {
        make_requests (requests, LONG);
        start (&f, stages, largest + stages, stages == 1 ? WL_SPECULATION_OFF : WL_SPECULATION_NGRAM);
        for (size_t i = 0; i < N_REQUESTS; i++)
            add (&f, &requests[i]);
        finish (&f);
        for (size_t i = 0; i < N_REQUESTS; i++)
            assert_same (requests, expected, i);
        assert_true (wl_scheduler_preempted (f.scheduler) > 0);
        stop (&f);
    }
    close_fixture (&f);
}

static void cancelled_requests_free_their_pages_at_once_and_disturb_nobody (void **state)
{
    (void) state;
    static request expected[N_REQUESTS], requests[N_REQUESTS], late;
    fixture f;
    open_fixture (&f);
    make_expected (&f, expected, 0);
    make_requests (requests, 0);
    start (&f, 2, wl_scheduler_pages (CONTEXT), WL_SPECULATION_NGRAM);
    for (size_t i = 0; i < N_REQUESTS; i++)
        add (&f, &requests[i]);
    for (int i = 0; i < 12; i++)
        turn (&f);
    for (size_t i = 1; i < N_REQUESTS; i += 2)
        if (requests[i].handle)
            wl_scheduler_cancel (f.scheduler, requests[i].handle);
    finish (&f);
    for (size_t i = 0; i < N_REQUESTS; i += 2)
        assert_same (requests, expected, i);
    late = (request){.options = {.prompt = late.prompt,
                                 .n_prompt = 200,
                                 .max_tokens = 2,
                                 .context = &late,
                                 .on_token = on_token,
                                 .sampling = {.top_p = 1}}};
    add (&f, &late); /* steps that were cancelled may still be under way */
    finish (&f);
    assert_int_equal (late.n_tokens, 2);
    stop (&f);
    close_fixture (&f);
}

int main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (a_request_gets_its_own_tokens_among_others_over_any_stages_with_and_without_guesses),
        cmocka_unit_test (requests_that_lose_their_pages_go_on_with_the_same_tokens),
        cmocka_unit_test (cancelled_requests_free_their_pages_at_once_and_disturb_nobody),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
