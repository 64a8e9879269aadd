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
    uint32_t chunk; /* for the next start */
    bool no_prefix_cache;
} fixture;

typedef struct request {
    int32_t prompt[200];
    wl_request_options options;
    wl_request *handle; /* NULL once it has ended */
    int32_t tokens[MOST_TOKENS];
    size_t n_tokens;
    size_t n_cached, n_begun;
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
    wl_scheduler_options scheduling = {.n_pages = n_pages,
                                       .max_rows = MAX_ROWS,
                                       .max_logit_rows = MAX_ROWS,
                                       .chunk = f->chunk,
                                       .no_prefix_cache = f->no_prefix_cache,
                                       .speculation = speculation};
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
    f->no_prefix_cache = true;
    start (f, 1, wl_scheduler_pages (CONTEXT), WL_SPECULATION_OFF);
    for (size_t i = 0; i < N_REQUESTS; i++) {
        add (f, &expected[i]);
        finish (f);
        assert_int_equal (expected[i].n_tokens, expected[i].options.max_tokens);
    }
    stop (f);
    f->no_prefix_cache = false;
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

/* -- shared beginnings --------------------------------------------------------------------------------------------------------------------- */

enum { N_SHARING = 64 };

static void on_begin (void *context, size_t n_tokens)
{
    request *r = context;
    r->n_cached = n_tokens;
    r->n_begun++;
}

/* Three families of prompts. They part inside the first page, at the end of a page, inside a later one, or not at all; lengths end on pages and beside them. */
static void make_sharing (request *requests)
{
    static const size_t lengths[] = {128, 150, 64, 200, 129, 192, 63, 140};
    for (size_t i = 0; i < N_SHARING; i++) {
        request *r = &requests[i];
        size_t parting = i % 5 == 0 ? 40 : i % 5 == 1 ? 128 : i % 5 == 2 ? 135 : SIZE_MAX;
        *r = (request){.options = {.prompt = r->prompt, .context = r, .on_token = on_token, .on_begin = on_begin}};
        r->options.n_prompt = lengths[i / 2 % 8];
        for (size_t k = 0; k < r->options.n_prompt; k++)
            r->prompt[k] = (int32_t) ((k * k * 5 + k / 7 + i % 3 * 11 + (k >= parting ? i : 0)) % N_VOCAB);
        r->options.max_tokens = 6 + i % 23;
        r->options.sampling = wl_sampling_default ();
        r->options.sampling.seed = i / 4;
        r->options.sampling.temperature = i % 2 ? 0.8f : 0;
    }
}

/* Each by itself over one stage, without guesses, all of it computed. Made once, for all tests. */
static const request *expected_sharing (fixture *f)
{
    static request expected[N_SHARING];
    if (expected[0].n_tokens)
        return expected;
    make_sharing (expected);
    f->no_prefix_cache = true;
    start (f, 1, wl_scheduler_pages (CONTEXT), WL_SPECULATION_OFF);
    for (size_t i = 0; i < N_SHARING; i++) {
        add (f, &expected[i]);
        finish (f);
        assert_int_equal (expected[i].n_cached, 0);
    }
    assert_int_equal (wl_scheduler_prefixes (f->scheduler).cached_tokens, 0);
    stop (f);
    f->no_prefix_cache = false;
    return expected;
}

static void requests_that_begin_alike_share_pages_and_get_their_own_tokens (void **state)
{
    (void) state;
    static const uint32_t stages[] = {1, 2, 3, 6}, chunks[] = {0, 1, 16, 31};
    static request requests[N_SHARING];
    fixture f;
    open_fixture (&f);
    const request *expected = expected_sharing (&f);
    for (size_t round = 0; round < sizeof stages / sizeof stages[0]; round++) {
        size_t n_cached = 0, n_prompt = 0;
        uint32_t n_pages = 4 * N_SHARING; /* each has room for its own */
        f.chunk = chunks[round];
        make_sharing (requests);
        start (&f, stages[round] < small.n_layers ? stages[round] : small.n_layers, n_pages,
               round % 2 ? WL_SPECULATION_NGRAM : WL_SPECULATION_OFF);
        for (size_t i = 0; i < N_SHARING; i++) {
            add (&f, &requests[i]);
            if (round && i % 8 == 7)
                turn (&f);
        }
        finish (&f);
        for (size_t i = 0; i < N_SHARING; i++) {
            assert_same (requests, expected, i);
            assert_int_equal (requests[i].n_begun, 1);
            assert_true (requests[i].n_cached < requests[i].options.n_prompt);
            n_cached += requests[i].n_cached;
            n_prompt += requests[i].options.n_prompt;
        }
        wl_prefix_counts counts = wl_scheduler_prefixes (f.scheduler);
        assert_int_equal (counts.prompt_tokens, n_prompt);
        assert_int_equal (counts.cached_tokens, n_cached);
        assert_true (n_cached > n_prompt / 3); /* though they came at once */
        assert_int_equal (counts.held_pages, 0);
        assert_int_equal (counts.free_pages + counts.kept_pages, n_pages);

        make_sharing (requests); /* once more: all but the last token of each is there */
        for (size_t i = 0; i < N_SHARING; i++) {
            add (&f, &requests[i]);
            finish (&f);
            assert_same (requests, expected, i);
            assert_int_equal (requests[i].n_cached, requests[i].options.n_prompt - 1);
        }
        assert_true (wl_scheduler_prefixes (f.scheduler).copied_pages > counts.copied_pages);
        stop (&f);
    }
    close_fixture (&f);
}

static void shared_pages_are_evicted_and_taken_back_without_changing_a_token (void **state)
{
    (void) state;
    static request requests[N_SHARING];
    fixture f;
    open_fixture (&f);
    const request *expected = expected_sharing (&f);
    for (uint32_t n_pages = 5; n_pages <= 13; n_pages += 8) {
        make_sharing (requests);
        start (&f, 2, n_pages, WL_SPECULATION_NGRAM);
        for (size_t i = 0; i < N_SHARING; i++)
            add (&f, &requests[i]);
        finish (&f);
        for (size_t i = 0; i < N_SHARING; i++)
            assert_same (requests, expected, i);
        wl_prefix_counts counts = wl_scheduler_prefixes (f.scheduler);
        assert_true (counts.evicted_pages > 0 && counts.cached_tokens > 0);
        assert_int_equal (counts.held_pages, 0);
        stop (&f);
    }
    close_fixture (&f);
}

/* Pages that these hold among them, at least what is needed and at most what could be: all that is known, and guesses. */
static void assert_held (const fixture *f, const request *requests)
{
    enum { GUESSES = 16 };
    size_t least = 0, most = 0;
    for (size_t i = 0; i < N_SHARING; i++)
        if (requests[i].handle) {
            size_t n = requests[i].options.n_prompt + requests[i].n_tokens;
            least += wl_scheduler_pages (n);
            most += wl_scheduler_pages (n + GUESSES);
        }
    uint32_t held = wl_scheduler_prefixes (f->scheduler).held_pages;
    assert_true (held <= most);
    if (f->no_prefix_cache)
        assert_true (held >= least);
}

static size_t count_begun (const request *requests)
{
    size_t n = 0;
    for (size_t i = 0; i < N_SHARING; i++)
        n += requests[i].n_begun;
    return n;
}

static void half_of_64_requests_cancelled_in_the_middle_free_their_pages_at_once (void **state)
{
    (void) state;
    static request requests[N_SHARING];
    fixture f;
    open_fixture (&f);
    const request *expected = expected_sharing (&f);
    for (int shares = 0; shares < 2; shares++) {
        f.no_prefix_cache = !shares;
        make_sharing (requests);
        start (&f, 2, 4 * N_SHARING, WL_SPECULATION_NGRAM);
        for (size_t i = 0; i < N_SHARING; i++)
            add (&f, &requests[i]);
        for (size_t begun = 0; begun < N_SHARING;) { /* until each has begun and some have drawn */
            turn (&f);
            begun = count_begun (requests);
        }
        size_t n_active = wl_scheduler_active (f.scheduler);
        assert_true (n_active > N_SHARING / 2);
        uint32_t before = wl_scheduler_prefixes (f.scheduler).held_pages;
        for (size_t i = 0; i < N_SHARING; i += 2)
            if (requests[i].handle) {
                wl_scheduler_cancel (f.scheduler, requests[i].handle);
                requests[i].handle = NULL;
                n_active--;
            }
        assert_int_equal (wl_scheduler_active (f.scheduler), n_active);
        assert_true (wl_scheduler_prefixes (f.scheduler).held_pages < before);
        assert_held (&f, requests);
        finish (&f);
        for (size_t i = 1; i < N_SHARING; i += 2)
            assert_same (requests, expected, i);
        wl_prefix_counts counts = wl_scheduler_prefixes (f.scheduler);
        assert_int_equal (counts.held_pages, 0);
        assert_int_equal (counts.free_pages + counts.kept_pages, 4 * N_SHARING);
        if (!shares)
            assert_int_equal (counts.kept_pages, 0);

        request again[1] = {requests[0]}; /* what was cancelled is asked for again, and takes what had been computed */
        again[0].options.prompt = again[0].prompt;
        again[0].options.context = again;
        again[0].n_tokens = 0;
        add (&f, again);
        finish (&f);
        assert_same (again, expected, 0);
        stop (&f);
    }
    close_fixture (&f);
}

static void requests_that_wait_for_room_begin_in_the_turn_after_others_are_cancelled (void **state)
{
    (void) state;
    static request requests[N_SHARING];
    fixture f;
    open_fixture (&f);
    const request *expected = expected_sharing (&f);
    f.no_prefix_cache = true;
    make_sharing (requests);
    start (&f, 2, N_SHARING, WL_SPECULATION_NGRAM);
    for (size_t i = 0; i < N_SHARING; i++)
        add (&f, &requests[i]);
    while (requests[0].n_tokens < 2) /* in the middle: some draw, some are read, some wait for room */
        turn (&f);
    size_t begun = count_begun (requests);
    assert_in_range (begun, 2, N_SHARING - 1);
    for (size_t i = 0; i < N_SHARING; i++)
        if (requests[i].n_begun && requests[i].handle) {
            wl_scheduler_cancel (f.scheduler, requests[i].handle);
            requests[i].handle = NULL;
        }
    assert_int_equal (wl_scheduler_prefixes (f.scheduler).free_pages, N_SHARING);
    turn (&f); /* steps with rows of those that are gone are still under way, over the same pages */
    assert_true (count_begun (requests) > begun);
    finish (&f);
    for (size_t i = 0; i < N_SHARING; i++)
        if (i >= begun)
            assert_same (requests, expected, i);
    stop (&f);
    close_fixture (&f);
}

/* Whoever waits for another's pages goes on by itself if that one is cancelled before they are computed. */
static void a_request_that_waits_for_anothers_pages_computes_them_if_that_one_is_cancelled (void **state)
{
    (void) state;
    static request requests[N_SHARING];
    fixture f;
    open_fixture (&f);
    const request *expected = expected_sharing (&f);
    f.chunk = 16;
    make_sharing (requests);
    start (&f, 2, 4 * N_SHARING, WL_SPECULATION_OFF);
    add (&f, &requests[3]);
    add (&f, &requests[9]); /* the same family */
    turn (&f);
    assert_int_equal (requests[3].n_begun, 1);
    assert_int_equal (requests[9].n_begun, 0);
    wl_scheduler_cancel (f.scheduler, requests[3].handle);
    turn (&f);
    assert_int_equal (requests[9].n_begun, 1);
    finish (&f);
    assert_same (requests, expected, 9);
    assert_true (requests[9].n_cached < 64);
    stop (&f);
    close_fixture (&f);
}

typedef struct raw_rows {
    float logits[200][N_VOCAB];
    bool came[200];
} raw_rows;

static void on_logits (void *context, size_t position, const float *logits)
{
    raw_rows *rows = context;
    assert_false (rows->came[position]);
    rows->came[position] = true;
    memcpy (rows->logits[position], logits, sizeof rows->logits[position]);
}

static void wanted_logits_are_computed_and_the_same_behind_a_cached_beginning (void **state)
{
    (void) state;
    static request requests[N_SHARING];
    static const size_t firsts[] = {0, 63, 64, 100, 128, 199};
    static raw_rows whole, rows;
    fixture f;
    wl_error err = {0};
    open_fixture (&f);
    make_sharing (requests);
    start (&f, 2, 64, WL_SPECULATION_OFF);
    wl_request_options options = {.prompt = requests[6].prompt,
                                  .n_prompt = requests[6].options.n_prompt,
                                  .raw_logits = true,
                                  .context = &whole,
                                  .on_logits = on_logits};
    assert_int_equal (options.n_prompt, 200);
    assert_non_null (wl_scheduler_add (f.scheduler, &options, &err));
    finish (&f);
    assert_int_equal (wl_scheduler_prefixes (f.scheduler).cached_tokens, 0);
    for (size_t i = 0; i < sizeof firsts / sizeof firsts[0]; i++) {
        uint64_t before = wl_scheduler_prefixes (f.scheduler).cached_tokens;
        memset (&rows, 0, sizeof rows);
        options.first_raw = firsts[i];
        options.context = &rows;
        assert_non_null (wl_scheduler_add (f.scheduler, &options, &err));
        finish (&f);
        assert_int_equal (wl_scheduler_prefixes (f.scheduler).cached_tokens - before, firsts[i]);
        for (size_t position = 0; position < 200; position++) {
            assert_int_equal (rows.came[position], position >= firsts[i]);
            if (rows.came[position])
                assert_memory_equal (rows.logits[position], whole.logits[position], sizeof rows.logits[position]);
        }
    }
    stop (&f);
    close_fixture (&f);
}

int main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (a_request_gets_its_own_tokens_among_others_over_any_stages_with_and_without_guesses),
        cmocka_unit_test (requests_that_lose_their_pages_go_on_with_the_same_tokens),
        cmocka_unit_test (cancelled_requests_free_their_pages_at_once_and_disturb_nobody),
        cmocka_unit_test (requests_that_begin_alike_share_pages_and_get_their_own_tokens),
        cmocka_unit_test (shared_pages_are_evicted_and_taken_back_without_changing_a_token),
        cmocka_unit_test (half_of_64_requests_cancelled_in_the_middle_free_their_pages_at_once),
        cmocka_unit_test (requests_that_wait_for_room_begin_in_the_turn_after_others_are_cancelled),
        cmocka_unit_test (a_request_that_waits_for_anothers_pages_computes_them_if_that_one_is_cancelled),
        cmocka_unit_test (wanted_logits_are_computed_and_the_same_behind_a_cached_beginning),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
