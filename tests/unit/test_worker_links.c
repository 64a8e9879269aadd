/* A real woolly-worker against a coordinator that this test plays, sound and unsound: no message makes it crash or hang, heartbeats are answered beside
 * compute, and it ends or goes back to joining when it should. The program is found in $WOOLLY_BIN, or beside this one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "engine/kernels/kernels.h"
#include "engine/model.h"
#include "peers.h"
#include "proto/fingerprint.h"
#include "proto/hop.h"
#include "proto/weights.h"

#ifdef __APPLE__
extern char **environ; /* POSIX declares it nowhere; glibc does */
#endif

enum { SOON_MS = 30000, N_VOCAB = 48, D_MODEL = 32, PAGES = 4, ROWS = 8 };

static const model_shape small = {
    .n_layers = 2, .d_model = D_MODEL, .d_ff = 64, .n_heads = 4, .n_kv_heads = 2, .n_vocab = N_VOCAB};
/* Steps of this one take a good part of a second. */
static const model_shape slow = {
    .n_layers = 6, .d_model = 256, .d_ff = 2048, .n_heads = 8, .n_kv_heads = 8, .n_vocab = N_VOCAB};
enum { SLOW_ROWS = 2048, SLOW_PAGES = 128 };
/* Loading this one takes a while: 200 MB of output head. */
static const model_shape large = {
    .n_layers = 1, .d_model = 256, .d_ff = 256, .n_heads = 8, .n_kv_heads = 8, .n_vocab = 200000};

typedef struct stage_under_test {
    char folder[64], model[96], worker_binary[PATH_MAX];
    const char *model_folder; /* --model-dir */
    char *control_endpoint, *results_endpoint;
    zsock_t *control, *results, *data; /* ROUTER, PULL, PUSH to the worker's data socket */
    zframe_t *peer;
    Woolly__Control *hello; /* of the worker */
    pid_t pid;
    int life_fd; /* write end of --parent-fd's pipe; -1: none */
    uint64_t epoch;
    uint8_t fingerprint[WL_FINGERPRINT_BYTES];
} stage_under_test;

static stage_under_test *current; /* of this program's single thread: what a failed test leaves behind */

/* -- the worker's process ------------------------------------------------------------------------------------------------------------------ */

static void find_binary (char path[PATH_MAX])
{
    const char *folder = getenv ("WOOLLY_BIN");
    char own[PATH_MAX];
    ssize_t length = readlink ("/proc/self/exe", own, sizeof own - 1);
    if (folder || length <= 0) {
        snprintf (path, PATH_MAX, "%s/woolly-worker", folder ? folder : ".");
        return;
    }
    own[length] = 0;
    *strrchr (own, '/') = 0;
    snprintf (path, PATH_MAX, "%.4000s/woolly-worker", own);
}

/* Starts it, quiet on stderr; with_parent: as a coordinator would, on a pipe. */
static void start_worker (stage_under_test *t, bool with_parent)
{
    int ends[2] = {-1, -1};
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init (&files);
    posix_spawn_file_actions_addopen (&files, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    t->life_fd = -1;
    if (with_parent) {
        assert_int_equal (pipe (ends), 0);
        fcntl (ends[1], F_SETFD, FD_CLOEXEC);
        posix_spawn_file_actions_adddup2 (&files, ends[0], 30);
    }
    char *const argv[] = {t->worker_binary,
                          (char *) "--join",
                          t->control_endpoint,
                          (char *) "--name",
                          (char *) "dolly",
                          (char *) "--threads",
                          (char *) "1",
                          (char *) "--model-dir",
                          (char *) (t->model_folder ? t->model_folder : "/nonexistent"),
                          with_parent ? (char *) "--parent-fd" : NULL,
                          (char *) "30",
                          NULL};
    int rc = posix_spawn (&t->pid, t->worker_binary, &files, NULL, argv, environ);
    posix_spawn_file_actions_destroy (&files);
    if (with_parent) {
        close (ends[0]);
        t->life_fd = ends[1];
    }
    if (rc != 0)
        fail_msg ("%s: %s", t->worker_binary, strerror (rc));
}

/* Its exit status as from waitpid; fails when it has not ended in time. */
static int await_end (stage_under_test *t, int timeout_ms)
{
    int status = 0;
    for (int64_t deadline = zclock_mono () + timeout_ms; t->pid > 0;) {
        if (waitpid (t->pid, &status, WNOHANG) == t->pid) {
            t->pid = 0;
            return status;
        }
        if (zclock_mono () > deadline)
            break;
        zclock_sleep (5);
    }
    fail_msg ("the worker is still there after %d ms", timeout_ms);
    return -1;
}

/* Kills it, and removes what it could not: the folder of its own data socket. */
static void kill_worker (stage_under_test *t)
{
    char folder[256] = "";
    if (t->pid > 0) {
        kill (t->pid, SIGKILL);
        waitpid (t->pid, NULL, 0);
    }
    t->pid = 0;
    if (t->hello && strncmp (t->hello->hello->data_endpoint, "ipc://", 6) == 0)
        snprintf (folder, sizeof folder, "%s", t->hello->hello->data_endpoint + 6);
    if (folder[0]) {
        *strrchr (folder, '/') = 0;
        wl_socket_folder_remove (folder);
    }
}

static void assert_alive (const stage_under_test *t)
{
    assert_int_equal (waitpid (t->pid, NULL, WNOHANG), 0);
}

/* -- the coordinator's side ------------------------------------------------------------------------------------------------------------------ */

static void open_control (stage_under_test *t)
{
    wl_error err = {0};
    char *same = NULL;
    t->control = wl_link_new (WL_LINK_ROUTER, WL_HEADER_LIMIT, &err);
    /* the socket before it may still be closing */
    for (int64_t deadline = zclock_mono () + SOON_MS; !same && zclock_mono () < deadline; zclock_sleep (5)) {
        err = (wl_error){0};
        wl_link_bind (t->control, t->control_endpoint, NULL, &same, &err);
    }
    if (!same)
        fail_msg ("%s", err.text);
    free (same);
}

static void welcome (stage_under_test *t)
{
    Woolly__Welcome message = WOOLLY__WELCOME__INIT;
    wl_error err = {0};
    wl_control_free (&t->hello);
    t->hello = await_control (t->control, &t->peer, WOOLLY__CONTROL__KIND_HELLO, SOON_MS);
    assert_non_null (t->hello);
    SEND_CONTROL (t->control, t->peer, WELCOME, welcome, &message);
    zsock_destroy (&t->data);
    t->data = wl_link_new (WL_LINK_PUSH, WL_HEADER_LIMIT, &err);
    if (!wl_link_connect (t->data, t->hello->hello->data_endpoint, &err))
        fail_msg ("%s", err.text);
}

/* A worker of this model, joined and welcomed. */
static stage_under_test *begin (const model_shape *shape, bool tcp, bool with_parent)
{
    stage_under_test *t = current = calloc (1, sizeof *t);
    wl_error err = {0};
    char address[128];
    find_binary (t->worker_binary);
    snprintf (t->folder, sizeof t->folder, "/tmp/woolly-test-XXXXXX");
    assert_non_null (mkdtemp (t->folder));
    snprintf (t->model, sizeof t->model, "%s/model.gguf", t->folder);
    assert_true (write_model (t->model, shape, shape != &small));
    wl_gguf *gguf = wl_gguf_open (t->model, &err);
    if (!gguf || !wl_fingerprint (gguf, t->fingerprint, &err))
        fail_msg ("%s", err.text);
    wl_gguf_free (&gguf);
    t->results = wl_link_new (WL_LINK_PULL, WL_PAYLOAD_LIMIT, &err);
    snprintf (address, sizeof address, "ipc://%s/results", t->folder);
    if (!wl_link_bind (t->results, address, NULL, &t->results_endpoint, &err))
        fail_msg ("%s", err.text);
    t->control = wl_link_new (WL_LINK_ROUTER, WL_HEADER_LIMIT, &err);
    snprintf (address, sizeof address, tcp ? "tcp://127.0.0.1:*" : "ipc://%s/control", t->folder);
    if (!wl_link_bind (t->control, address, NULL, &t->control_endpoint, &err))
        fail_msg ("%s", err.text);
    start_worker (t, with_parent);
    welcome (t);
    return t;
}

static void finish (stage_under_test *t)
{
    kill_worker (t);
    zsock_destroy (&t->control);
    zsock_destroy (&t->results);
    zsock_destroy (&t->data);
    zframe_destroy (&t->peer);
    wl_control_free (&t->hello);
    if (t->life_fd >= 0)
        close (t->life_fd);
    unlink (t->model);
    wl_socket_folder_remove (t->folder);
    free (t->control_endpoint);
    free (t->results_endpoint);
    free (t);
    current = NULL;
}

static int clean_up (void **state)
{
    (void) state;
    if (current)
        finish (current);
    return 0;
}

static void assert_answers_pings (stage_under_test *t)
{
    Woolly__Ping ping = WOOLLY__PING__INIT;
    static uint64_t sequence; /* of this single thread: no two pings of a run are alike */
    ping.sequence = ++sequence;
    SEND_CONTROL (t->control, t->peer, PING, ping, &ping);
    for (;;) {
        Woolly__Control *pong = await_control (t->control, NULL, WOOLLY__CONTROL__KIND_PONG, SOON_MS);
        assert_non_null (pong);
        bool mine = pong->pong->sequence == sequence;
        wl_control_free (&pong);
        if (mine)
            return;
    }
}

static Woolly__Load sound_load (stage_under_test *t)
{
    Woolly__Load load = WOOLLY__LOAD__INIT;
    load.epoch = ++t->epoch;
    load.model_path = t->model;
    load.fingerprint.data = t->fingerprint;
    load.fingerprint.len = sizeof t->fingerprint;
    load.first_layer = 0;
    load.last_layer = 1;
    load.n_threads = 1;
    load.n_pages = PAGES;
    load.max_rows = ROWS;
    load.max_logit_rows = ROWS;
    load.next_endpoint = t->results_endpoint;
    return load;
}

static void load_soundly (stage_under_test *t, const Woolly__Load *load)
{
    SEND_CONTROL (t->control, t->peer, LOAD, load, (Woolly__Load *) load);
    Woolly__Control *loaded = await_control (t->control, NULL, WOOLLY__CONTROL__KIND_LOADED, SOON_MS);
    assert_non_null (loaded);
    assert_true (loaded->loaded->epoch == t->epoch);
    assert_true (loaded->loaded->weight_bytes > 0);
    wl_control_free (&loaded);
}

/* -- steps ---------------------------------------------------------------------------------------------------------------------------------------- */

typedef struct test_step { /* two rows of one sequence; the second one's token is drawn and its logits returned */
    Woolly__Step message;
    Woolly__Span span, *spans[2];
    Woolly__Pick pick, *picks[2];
    Woolly__Sampling sampling;
    uint32_t pages[1];
    int32_t tokens[2];
} test_step;

static void fill_step (test_step *s, const stage_under_test *t, uint64_t id)
{
    *s = (test_step){.tokens = {1, 2}};
    woolly__step__init (&s->message);
    woolly__span__init (&s->span);
    woolly__pick__init (&s->pick);
    woolly__sampling__init (&s->sampling);
    s->span.n_rows = 2;
    s->span.n_pages = 1;
    s->span.pages = s->pages;
    s->spans[0] = s->spans[1] = &s->span;
    s->sampling.top_p = 1;
    s->pick.row = 1;
    s->pick.raw_logits = true;
    s->pick.sampling = &s->sampling;
    s->picks[0] = s->picks[1] = &s->pick;
    s->message.epoch = t->epoch;
    s->message.id = id;
    s->message.n_rows = 2;
    s->message.n_spans = 1;
    s->message.spans = s->spans;
    s->message.n_tokens = 2;
    s->message.tokens = s->tokens;
    s->message.n_picks = 1;
    s->message.picks = s->picks;
}

static void send_step (stage_under_test *t, const test_step *s, const void *payload, size_t length)
{
    wl_error err = {0};
    if (!wl_step_send (t->data, &s->message, (void *) payload, length, NULL, NULL, SOON_MS, &err))
        fail_msg ("%s", err.text);
}

/* A sound step with this id comes back with a token and its logits. */
static void assert_computes (stage_under_test *t, uint64_t id)
{
    test_step s;
    wl_packet packet;
    wl_error err = {0};
    fill_step (&s, t, id);
    send_step (t, &s, NULL, 0);
    if (!wl_result_receive (t->results, SOON_MS, &packet, &err))
        fail_msg ("no result: %s", err.text);
    assert_true (packet.result->epoch == t->epoch && packet.result->id == id);
    assert_int_equal (packet.result->n_samples, 1);
    assert_int_equal (packet.result->n_raw_rows, 1);
    assert_int_equal (packet.result->n_timings, 1);
    assert_int_equal (packet.payload_bytes, N_VOCAB * sizeof (float));
    const float *logits = (const float *) (const void *) packet.payload;
    for (int i = 0; i < N_VOCAB; i++) /* temperature 0: the best one */
        assert_true (logits[i] <= logits[packet.result->samples[0]->token]);
    wl_packet_free (&packet);
}

/* -- joining ------------------------------------------------------------------------------------------------------------------------------------- */

static void a_hello_says_who_and_where (void **state)
{
    (void) state;
    for (int tcp = 0; tcp < 2; tcp++) {
        stage_under_test *t = begin (&small, tcp, false);
        const Woolly__Hello *hello = t->hello->hello;
        assert_int_equal (hello->protocol, WL_PROTOCOL);
        assert_string_equal (hello->name, "dolly");
        assert_int_equal (hello->n_threads, 1);
        assert_true (hello->memory_bytes > 1 << 20);
        assert_int_equal (hello->pid, t->pid);
        assert_true (wl_link_endpoint_ok (hello->data_endpoint));
        assert_int_equal (strncmp (hello->data_endpoint, tcp ? "tcp://127.0.0.1:" : "ipc://", tcp ? 16 : 6), 0);
        assert_answers_pings (t);
        finish (t);
    }
}

static void a_refused_worker_ends_with_the_cluster_code (void **state)
{
    (void) state;
    stage_under_test *t = begin (&small, false, false);
    kill_worker (t);
    start_worker (t, false);
    Woolly__Refused refused = WOOLLY__REFUSED__INIT;
    Woolly__Control *hello = await_control (t->control, &t->peer, WOOLLY__CONTROL__KIND_HELLO, SOON_MS);
    assert_non_null (hello);
    wl_control_free (&hello);
    refused.reason = (char *) "not you";
    SEND_CONTROL (t->control, t->peer, REFUSED, refused, &refused);
    int status = await_end (t, SOON_MS);
    assert_true (WIFEXITED (status));
    assert_int_equal (WEXITSTATUS (status), WL_ERROR_CLUSTER);
    finish (t);
}

static void a_worker_joins_the_next_coordinator (void **state)
{
    (void) state;
    for (int tcp = 0; tcp < 2; tcp++) {
        stage_under_test *t = begin (&small, tcp, false);
        Woolly__Load load = sound_load (t);
        load_soundly (t, &load);
        int64_t since = zclock_mono ();
        zsock_destroy (&t->control); /* killed: no Leave */
        open_control (t);
        welcome (t);
        assert_in_range (zclock_mono () - since, 0,
                         8000); /* by the broken connection, sooner than by 10 s of silence */
        load = sound_load (t);
        load_soundly (t, &load);
        assert_computes (t, 1);
        Woolly__Leave leave = WOOLLY__LEAVE__INIT; /* ended properly */
        SEND_CONTROL (t->control, t->peer, LEAVE, leave, &leave);
        welcome (t);
        assert_answers_pings (t);
        finish (t);
    }
}

/* -- malformed control messages -------------------------------------------------------------------------------------------------------------------- */

static void control_nonsense_is_dropped (void **state)
{
    (void) state;
    stage_under_test *t = begin (&small, false, false);
    Woolly__Control message = WOOLLY__CONTROL__INIT;
    Woolly__Load load = sound_load (t);
    uint8_t valid[512];
    message.kind_case = WOOLLY__CONTROL__KIND_LOAD;
    message.load = &load;
    size_t length = woolly__control__pack (&message, valid);
    send_nonsense (t->control, t->peer, valid,
                   length - 20); /* cuts within the last fields would still be sound plans */
    assert_answers_pings (t);
    Woolly__Hello hello = WOOLLY__HELLO__INIT; /* what only workers send */
    Woolly__Loaded loaded = WOOLLY__LOADED__INIT;
    SEND_CONTROL (t->control, t->peer, HELLO, hello, &hello);
    SEND_CONTROL (t->control, t->peer, LOADED, loaded, &loaded);
    assert_answers_pings (t);
    assert_alive (t);
    finish (t);
}

static void assert_load_fails (stage_under_test *t, const Woolly__Load *load, int code, const char *reason)
{
    SEND_CONTROL (t->control, t->peer, LOAD, load, (Woolly__Load *) load);
    Woolly__Control *failed = await_control (t->control, NULL, WOOLLY__CONTROL__KIND_FAILED, SOON_MS);
    if (!failed) {
        fail_msg ("no failure, where \"%s\" was expected", reason);
        return; /* which clang's analyzer does not know fail_msg never does */
    }
    assert_true (failed->failed->epoch == load->epoch);
    if (!strstr (failed->failed->text, reason))
        fail_msg ("\"%s\" lacks \"%s\"", failed->failed->text, reason);
    assert_int_equal (failed->failed->code, code);
    wl_control_free (&failed);
    assert_answers_pings (t);
}

static void plans_out_of_bounds_are_refused_with_a_reason (void **state)
{
    (void) state;
    stage_under_test *t = begin (&small, false, false);
    uint8_t other[WL_FINGERPRINT_BYTES] = {0};
    Woolly__Load load;
#define REFUSED(change, code, reason)               \
    do {                                            \
        load = sound_load (t);                      \
        change;                                     \
        assert_load_fails (t, &load, code, reason); \
    } while (0)
    REFUSED (load.fingerprint.len = 31, WL_ERROR_CLUSTER, "31 bytes");
    REFUSED (load.fingerprint.len = 0, WL_ERROR_CLUSTER, "0 bytes");
    REFUSED (load.fingerprint.data = other, WL_ERROR_CLUSTER, "fingerprints differ");
    REFUSED (load.last_layer = 2, WL_ERROR_CLUSTER, "has 2");
    REFUSED (load.last_layer = UINT32_MAX, WL_ERROR_CLUSTER, "has 2");
    REFUSED (load.first_layer = 2, WL_ERROR_CLUSTER, "out of bounds");
    REFUSED (load.max_rows = 0, WL_ERROR_CLUSTER, "out of bounds");
    REFUSED (load.max_rows = UINT32_MAX, WL_ERROR_CLUSTER, "out of bounds");
    REFUSED (load.n_pages = 0, WL_ERROR_CLUSTER, "out of bounds");
    REFUSED (load.n_pages = UINT32_MAX, WL_ERROR_CLUSTER, "out of bounds");
    REFUSED (load.n_pages = 1 << 26, WL_ERROR_CLUSTER, "need");
    REFUSED (load.n_threads = UINT32_MAX, WL_ERROR_CLUSTER, "out of bounds");
    REFUSED (load.hop = WL_N_HOPS, WL_ERROR_CLUSTER, "hops");
    REFUSED (load.hop = UINT32_MAX, WL_ERROR_CLUSTER, "hops");
    REFUSED (load.rope_choice = WL_N_ROPE_CHOICES, WL_ERROR_CLUSTER, "RoPE");
    REFUSED (load.rope_choice = WL_ROPE_YARN, WL_ERROR_USAGE, "by how much");
    REFUSED ((load.rope_choice = WL_ROPE_YARN, load.rope_factor = NAN), WL_ERROR_USAGE, "--rope-factor");
    REFUSED ((load.rope_choice = WL_ROPE_LINEAR, load.rope_factor = 2, load.rope_context = UINT32_MAX), WL_ERROR_USAGE,
             "raise the factor");
    REFUSED (load.kv = WL_N_KV_TYPES, WL_ERROR_CLUSTER, "KV cache");
    REFUSED (load.kv = UINT32_MAX, WL_ERROR_CLUSTER, "KV cache");
    REFUSED (load.next_endpoint = (char *) "inproc://x", WL_ERROR_CLUSTER, "no endpoint");
    REFUSED (load.next_endpoint = (char *) "", WL_ERROR_CLUSTER, "no endpoint");
    char *peers[WL_WEIGHTS_MAX_PEERS + 1];
    for (size_t i = 0; i <= WL_WEIGHTS_MAX_PEERS; i++)
        peers[i] = (char *) "tcp://127.0.0.1:9";
    REFUSED ((load.weights_peers = peers, load.n_weights_peers = WL_WEIGHTS_MAX_PEERS + 1), WL_ERROR_CLUSTER,
             "16 are allowed");
    peers[1] = (char *) "tcp://some.name:9";
    REFUSED ((load.weights_peers = peers, load.n_weights_peers = 2), WL_ERROR_CLUSTER, "no endpoint");
    REFUSED (load.model_path = (char *) "", WL_ERROR_CLUSTER, "--model-dir");
    REFUSED (load.model_path = (char *) "/nonexistent/model.gguf", WL_ERROR_CLUSTER, "--model-dir");
    REFUSED (load.model_path = (char *) "/dev/null", WL_ERROR_INPUT, "/dev/null");
    REFUSED (load.model_path = t->folder, WL_ERROR_INPUT, t->folder);
    REFUSED (load.isa = (char *) "abacus", WL_ERROR_USAGE, "abacus");
#undef REFUSED
    load = sound_load (t);
    load_soundly (t, &load); /* none of it has hurt */
    assert_computes (t, 1);
    finish (t);
}

static void a_model_is_found_by_its_name_in_the_model_folder (void **state)
{
    (void) state;
    stage_under_test *t = begin (&small, false, false);
    kill_worker (t);
    t->model_folder = t->folder;
    start_worker (t, false);
    welcome (t);
    Woolly__Load load = sound_load (t);
    load.model_path = (char *) "/on/another/machine/model.gguf";
    load_soundly (t, &load);
    assert_computes (t, 1);
    finish (t);
}

static void a_newer_plan_replaces_one_that_is_loading (void **state)
{
    (void) state;
    stage_under_test *t = begin (&small, false, false);
    for (int i = 0; i < 20; i++) {
        Woolly__Load load = sound_load (t);
        SEND_CONTROL (t->control, t->peer, LOAD, load, &load);
    }
    Woolly__Control *loaded;
    do {
        loaded = await_control (t->control, NULL, WOOLLY__CONTROL__KIND_LOADED, SOON_MS);
        assert_non_null (loaded);
        bool newest = loaded->loaded->epoch == t->epoch;
        wl_control_free (&loaded);
        if (newest)
            break;
    } while (true);
    assert_computes (t, 1);
    finish (t);
}

/* -- malformed steps ---------------------------------------------------------------------------------------------------------------------------------- */

/* Bytes that are no ZeroMQ at all. */
static void shout_at (const char *endpoint)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char noise[4096];
    memset (noise, 0xa5, sizeof noise);
    int fd = socket (AF_UNIX, SOCK_STREAM, 0);
    snprintf (address.sun_path, sizeof address.sun_path, "%s", endpoint + strlen ("ipc://"));
    assert_int_equal (connect (fd, (struct sockaddr *) &address, sizeof address), 0);
    (void) !send (fd, noise, sizeof noise, MSG_NOSIGNAL);
    close (fd);
}

static void data_nonsense_is_dropped (void **state)
{
    (void) state;
    stage_under_test *t = begin (&small, false, false);
    test_step s;
    uint8_t valid[256];
    fill_step (&s, t, 1);
    size_t length = woolly__step__pack (&s.message, valid);
    send_nonsense (t->data, NULL, valid, length); /* before there is a plan */
    Woolly__Load load = sound_load (t);
    load_soundly (t, &load);
    fill_step (&s, t, 1);
    length = woolly__step__pack (&s.message, valid);
    shout_at (t->hello->hello->data_endpoint);
    send_nonsense (t->data, NULL, valid, length);
    fill_step (&s, t, 5); /* of a plan that ended, or never was */
    s.message.epoch = t->epoch + 1;
    send_step (t, &s, NULL, 0);
    s.message.epoch = 0;
    send_step (t, &s, NULL, 0);
    assert_computes (t, 1);
    assert_answers_pings (t);
    finish (t);
}

typedef void (*spoil_fn) (test_step *s);
static void spoil_tokens (test_step *s)
{
    s->message.n_tokens = 1;
}
static void spoil_token (test_step *s)
{
    s->tokens[0] = N_VOCAB;
}
static void spoil_negative_token (test_step *s)
{
    s->tokens[1] = -1;
}
static void spoil_rows (test_step *s)
{
    s->message.n_rows = ROWS + 1;
}
static void spoil_no_rows (test_step *s)
{
    s->message.n_rows = 0;
}
static void spoil_all_rows (test_step *s)
{
    s->message.n_rows = UINT32_MAX;
}
static void spoil_spans (test_step *s)
{
    s->message.n_spans = 2;
}
static void spoil_no_spans (test_step *s)
{
    s->message.n_spans = 0;
}
static void spoil_span (test_step *s)
{
    s->span.n_rows = UINT32_MAX;
}
static void spoil_page (test_step *s)
{
    s->pages[0] = PAGES;
}
static void spoil_no_pages (test_step *s)
{
    s->span.n_pages = 0;
}
static void spoil_position (test_step *s)
{
    s->span.first_position = UINT32_MAX;
}
static const uint32_t beyond_the_vocabulary = UINT32_MAX;
static const float one = 1;

static void spoil_far_position (test_step *s)
{
    s->span.first_position = 1 << 20;
}
static void spoil_pick (test_step *s)
{
    s->pick.row = 2;
}
static void spoil_picks (test_step *s)
{
    s->message.n_picks = 2;
}
static void spoil_sampling (test_step *s)
{
    s->sampling.temperature = -1;
}
static void spoil_history (test_step *s)
{
    s->pick.n_history = 1;
    s->pick.history = (uint32_t *) &beyond_the_vocabulary;
}
static void spoil_bias (test_step *s)
{
    s->sampling.n_bias_tokens = s->sampling.n_bias_values = 1;
    s->sampling.bias_tokens = (uint32_t *) &beyond_the_vocabulary;
    s->sampling.bias_values = (float *) &one;
}
static void spoil_id (test_step *s)
{
    s->message.id = 0;
}

static void a_step_of_this_plan_that_breaks_a_bound_is_reported (void **state)
{
    (void) state;
    static const spoil_fn spoils[] = {spoil_tokens,   spoil_token,    spoil_negative_token, spoil_rows, spoil_no_rows,
                                      spoil_all_rows, spoil_spans,    spoil_no_spans,       spoil_span, spoil_page,
                                      spoil_no_pages, spoil_position, spoil_far_position,   spoil_pick, spoil_picks,
                                      spoil_sampling, spoil_history,  spoil_bias,           spoil_id};
    stage_under_test *t = begin (&small, false, false);
    const float payload[2 * D_MODEL] = {0};
    for (size_t i = 0; i < sizeof spoils / sizeof spoils[0] + 1; i++) {
        test_step s;
        Woolly__Load load = sound_load (t);
        load_soundly (t, &load);
        assert_computes (t, 1);
        fill_step (&s, t, 2);
        bool by_payload = i == sizeof spoils / sizeof spoils[0]; /* activations for the first stage */
        if (!by_payload)
            spoils[i](&s);
        send_step (t, &s, by_payload ? payload : NULL, by_payload ? sizeof payload : 0);
        Woolly__Control *failed = await_control (t->control, NULL, WOOLLY__CONTROL__KIND_FAILED, SOON_MS);
        if (!failed) {
            fail_msg ("spoil %zu is not reported", i);
            return;
        }
        assert_true (failed->failed->epoch == t->epoch && failed->failed->text[0]);
        wl_control_free (&failed);
    }
    assert_alive (t);
    finish (t);
}

static void a_later_stage_wants_exactly_its_activations (void **state)
{
    (void) state;
    enum { SIZES = 5 };
    stage_under_test *t = begin (&small, false, false);
    float payload[3 * D_MODEL];
    for (int i = 0; i < 3 * D_MODEL; i++)
        payload[i] = (float) i * 0.01f;
    for (size_t i = 0; i < SIZES * WL_N_HOPS; i++) {
        wl_hop hop = (wl_hop) (i / SIZES);
        size_t right = 2 * wl_hop_row_bytes (hop, D_MODEL), sizes[SIZES] = {0, 4, right - 1, right + 4, right};
        size_t size = sizes[i % SIZES];
        test_step s;
        wl_packet packet = {0};
        wl_error err = {0};
        Woolly__Load load = sound_load (t);
        load.first_layer = 1;
        load.hop = hop;
        load_soundly (t, &load);
        fill_step (&s, t, 1);
        send_step (t, &s, payload, size);
        if (size == right) {
            assert_true (wl_result_receive (t->results, SOON_MS, &packet, &err));
            wl_packet_free (&packet);
        } else {
            Woolly__Control *failed = await_control (t->control, NULL, WOOLLY__CONTROL__KIND_FAILED, SOON_MS);
            assert_non_null (failed);
            assert_non_null (strstr (failed->failed->text, "activations"));
            wl_control_free (&failed);
        }
    }
    finish (t);
}

static void a_middle_stage_passes_activations_and_the_header_on (void **state)
{
    (void) state;
    stage_under_test *t = begin (&small, false, false);
    float exact[2 * D_MODEL];
    for (wl_hop hop = 0; hop < WL_N_HOPS; hop++) {
        test_step s;
        wl_packet packet;
        wl_error err = {0};
        uint8_t expected[sizeof exact];
        size_t expected_bytes = 2 * wl_hop_row_bytes (hop, D_MODEL);
        Woolly__Load load = sound_load (t);
        load.last_layer = 0;
        load.hop = hop;
        load_soundly (t, &load);
        fill_step (&s, t, 1);
        send_step (t, &s, NULL, 0);
        assert_true (wl_step_receive (t->results, SOON_MS, &packet, &err));
        assert_true (packet.step->epoch == t->epoch && packet.step->id == 1 && packet.step->n_timings == 1);
        assert_int_equal (packet.step->n_picks, 1);
        assert_int_equal (packet.step->spans[0]->n_rows, 2);
        assert_int_equal (packet.payload_bytes, expected_bytes);
        if (hop == WL_HOP_F32)
            memcpy (exact, packet.payload, sizeof exact);
        wl_hop_encode (hop, exact, 2, D_MODEL, expected); /* the others round just what f32 carries */
        assert_memory_equal (packet.payload, expected, expected_bytes);
        wl_packet_free (&packet);
    }
    finish (t);
}

/* What comes back for a step of this id is empty: it was not computed. */
static void assert_skips (stage_under_test *t, uint64_t id)
{
    wl_packet packet;
    wl_error err = {0};
    if (!wl_result_receive (t->results, SOON_MS, &packet, &err))
        fail_msg ("no result: %s", err.text);
    assert_true (packet.result->id == id && packet.result->skipped);
    assert_int_equal (packet.result->n_samples, 0);
    assert_int_equal (packet.payload_bytes, 0);
    assert_int_equal (packet.result->n_timings, 1);
    wl_packet_free (&packet);
}

static void cancel (stage_under_test *t, uint64_t epoch, uint64_t first_id, uint64_t last_id)
{
    Woolly__Cancel message = WOOLLY__CANCEL__INIT;
    message.epoch = epoch;
    message.first_id = first_id;
    message.last_id = last_id;
    SEND_CONTROL (t->control, t->peer, CANCEL, cancel, &message);
    assert_answers_pings (t); /* it has been read */
}

static void a_cancelled_step_is_passed_on_without_being_computed (void **state)
{
    (void) state;
    stage_under_test *t = begin (&small, false, false);
    test_step s;
    Woolly__Load load = sound_load (t);
    load_soundly (t, &load);
    cancel (t, t->epoch, 2, 3);
    cancel (t, t->epoch + 1, 1, 9); /* of another plan */
    assert_computes (t, 1);
    for (uint64_t id = 2; id <= 3; id++) {
        fill_step (&s, t, id);
        send_step (t, &s, NULL, 0);
        assert_skips (t, id);
    }
    assert_computes (t, 4);
    for (uint64_t id = 100; id < 200;
         id++) /* more than are remembered: the oldest are computed, which only costs time */
        cancel (t, t->epoch, id, id);
    fill_step (&s, t, 199);
    send_step (t, &s, NULL, 0);
    assert_skips (t, 199);
    load = sound_load (t); /* another plan forgets them */
    load_soundly (t, &load);
    assert_computes (t, 199);
    finish (t);
}

static void a_step_that_was_skipped_before_goes_on_as_one (void **state)
{
    (void) state;
    stage_under_test *t = begin (&small, false, false);
    Woolly__Load load = sound_load (t);
    Woolly__Step skipped = WOOLLY__STEP__INIT;
    wl_error err = {0};
    char payload[8] = "";
    load.first_layer = 1;
    load_soundly (t, &load);
    skipped.epoch = t->epoch;
    skipped.id = 1;
    skipped.skipped = true;
    assert_true (wl_step_send (t->data, &skipped, NULL, 0, NULL, NULL, SOON_MS, &err));
    assert_skips (t, 1);
    skipped.id = 2; /* with a payload it is unsound */
    assert_true (wl_step_send (t->data, &skipped, payload, sizeof payload, NULL, NULL, SOON_MS, &err));
    Woolly__Control *failed = await_control (t->control, NULL, WOOLLY__CONTROL__KIND_FAILED, SOON_MS);
    assert_non_null (failed);
    wl_control_free (&failed);
    finish (t);
}

/* -- while it computes ------------------------------------------------------------------------------------------------------------------------------------ */

/* Sends one long step of the slow model. */
static void keep_busy (stage_under_test *t)
{
    Woolly__Step step = WOOLLY__STEP__INIT;
    Woolly__Span span = WOOLLY__SPAN__INIT, *spans[1] = {&span};
    static int32_t tokens[SLOW_ROWS];
    static uint32_t pages[SLOW_PAGES];
    wl_error err = {0};
    Woolly__Load load = sound_load (t);
    load.last_layer = slow.n_layers - 1;
    load.max_rows = SLOW_ROWS;
    load.max_logit_rows = 1;
    load.n_pages = SLOW_PAGES;
    load_soundly (t, &load);
    for (uint32_t i = 0; i < SLOW_PAGES; i++)
        pages[i] = i;
    span.n_rows = SLOW_ROWS;
    span.n_pages = SLOW_PAGES;
    span.pages = pages;
    step.epoch = t->epoch;
    step.id = 1;
    step.n_rows = SLOW_ROWS;
    step.n_spans = 1;
    step.spans = spans;
    step.n_tokens = SLOW_ROWS;
    step.tokens = tokens;
    if (!wl_step_send (t->data, &step, NULL, 0, NULL, NULL, SOON_MS, &err))
        fail_msg ("%s", err.text);
}

static void pings_are_answered_while_a_step_is_computed (void **state)
{
    (void) state;
    stage_under_test *t = begin (&slow, false, false);
    wl_packet packet;
    wl_error err = {0};
    int n_pongs = 0;
    keep_busy (t);
    while (!wl_result_receive (t->results, 0, &packet, &err)) {
        assert_int_equal (err.code, WL_OK);
        assert_answers_pings (t);
        n_pongs++;
    }
    assert_true (n_pongs >= 5); /* one that waited for the step would have let none through */
    wl_packet_free (&packet);
    finish (t);
}

static void pings_are_answered_while_weights_are_packed (void **state)
{
    (void) state;
    stage_under_test *t = begin (&large, false, false);
    Woolly__Load load = sound_load (t);
    Woolly__Control *message;
    wl_error err = {0};
    load.last_layer = 0;
    SEND_CONTROL (t->control, t->peer, LOAD, load, &load);
    Woolly__Ping ping = WOOLLY__PING__INIT;
    SEND_CONTROL (t->control, t->peer, PING, ping, &ping);
    zframe_t *from = NULL;
    do { /* whatever comes before the end of loading */
        zframe_destroy (&from);
        message = wl_control_receive (t->control, &from, SOON_MS, &err);
        assert_non_null (message);
        assert_int_not_equal (message->kind_case, WOOLLY__CONTROL__KIND_LOADED);
        assert_int_not_equal (message->kind_case, WOOLLY__CONTROL__KIND_FAILED);
        bool answered = message->kind_case == WOOLLY__CONTROL__KIND_PONG;
        wl_control_free (&message);
        if (answered)
            break;
    } while (true);
    zframe_destroy (&from);
    message = await_control (t->control, NULL, WOOLLY__CONTROL__KIND_LOADED, SOON_MS);
    assert_non_null (message);
    wl_control_free (&message);
    finish (t);
}

static void a_worker_ends_with_its_parent_while_it_computes (void **state)
{
    (void) state;
    stage_under_test *t = begin (&slow, false, true);
    keep_busy (t);
    close (t->life_fd);
    t->life_fd = -1;
    int status = await_end (t, 2000);
    assert_true (WIFEXITED (status) && WEXITSTATUS (status) == 0);
    assert_int_not_equal (access (t->results_endpoint + strlen ("ipc://"), F_OK),
                          0); /* the parent's sockets are cleared away */
    finish (t);
}

static void a_signal_makes_a_worker_say_goodbye_and_end (void **state)
{
    (void) state;
    for (int busy = 0; busy < 2; busy++) {
        stage_under_test *t = begin (busy ? &slow : &small, busy, false);
        if (busy)
            keep_busy (t);
        kill (t->pid, busy ? SIGINT : SIGTERM);
        Woolly__Control *leave = await_control (t->control, NULL, WOOLLY__CONTROL__KIND_LEAVE, SOON_MS);
        assert_non_null (leave);
        wl_control_free (&leave);
        int status = await_end (t, 5000);
        assert_true (WIFEXITED (status) && WEXITSTATUS (status) == 0);
        finish (t);
    }
}

static int start (void **state)
{
    char binary[PATH_MAX];
    find_binary (binary);
    if (access (binary, X_OK) != 0) {
        fprintf (stderr, "%s: %s: set WOOLLY_BIN\n", binary, strerror (errno));
        return 1;
    }
    return start_links (state);
}

int main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown (a_hello_says_who_and_where, clean_up),
        cmocka_unit_test_teardown (a_refused_worker_ends_with_the_cluster_code, clean_up),
        cmocka_unit_test_teardown (a_worker_joins_the_next_coordinator, clean_up),
        cmocka_unit_test_teardown (control_nonsense_is_dropped, clean_up),
        cmocka_unit_test_teardown (plans_out_of_bounds_are_refused_with_a_reason, clean_up),
        cmocka_unit_test_teardown (a_model_is_found_by_its_name_in_the_model_folder, clean_up),
        cmocka_unit_test_teardown (a_newer_plan_replaces_one_that_is_loading, clean_up),
        cmocka_unit_test_teardown (data_nonsense_is_dropped, clean_up),
        cmocka_unit_test_teardown (a_step_of_this_plan_that_breaks_a_bound_is_reported, clean_up),
        cmocka_unit_test_teardown (a_later_stage_wants_exactly_its_activations, clean_up),
        cmocka_unit_test_teardown (a_middle_stage_passes_activations_and_the_header_on, clean_up),
        cmocka_unit_test_teardown (a_cancelled_step_is_passed_on_without_being_computed, clean_up),
        cmocka_unit_test_teardown (a_step_that_was_skipped_before_goes_on_as_one, clean_up),
        cmocka_unit_test_teardown (pings_are_answered_while_a_step_is_computed, clean_up),
        cmocka_unit_test_teardown (pings_are_answered_while_weights_are_packed, clean_up),
        cmocka_unit_test_teardown (a_worker_ends_with_its_parent_while_it_computes, clean_up),
        cmocka_unit_test_teardown (a_signal_makes_a_worker_say_goodbye_and_end, clean_up),
    };
    return cmocka_run_group_tests (tests, start, end_links);
}
