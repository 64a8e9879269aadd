/* The coordinator's cluster against workers that this test plays, sound and unsound: none makes it crash, hang or take a wrong result, and whoever is lost is
 * named within seconds. The cluster runs in a thread of its own, as its contract asks; the test is the peer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>

#include "coordinator/cluster.h"
#include "peers.h"

enum { SOON_MS = 20000, N_VOCAB = 48, D_MODEL = 32 };

static const model_shape small = {
    .n_layers = 4, .d_model = D_MODEL, .d_ff = 64, .n_heads = 4, .n_kv_heads = 2, .n_vocab = N_VOCAB};

typedef struct run { /* a cluster in its thread */
    pthread_t thread;
    wl_cluster_options options;
    wl_cluster_need need;
    char address[32], folder[64], model_path[96];
    uint16_t port;
    wl_gguf *gguf;
    wl_model *model;
    bool sends; /* one step, once it has started, and receives until something comes */
    atomic_bool started, over;
    atomic_bool give_up; /* what progress answers */
    _Atomic (wl_cluster *) cluster;
    /* read after joining the thread */
    wl_error err;
    bool received;
    uint64_t result_id;
    size_t payload_bytes;
} run;

static bool on_progress (void *context, const char *line)
{
    (void) line;
    return atomic_load (&((run *) context)->give_up);
}

static void *run_cluster (void *context)
{
    run *r = context;
    wl_cluster *cluster = wl_cluster_start (&r->options, &r->need, on_progress, r, &r->err);
    if (cluster) {
        atomic_store (&r->cluster, cluster);
        atomic_store (&r->started, true);
    }
    if (cluster && r->sends) {
        Woolly__Step step = WOOLLY__STEP__INIT;
        wl_packet packet;
        step.id = 1;
        r->received = wl_cluster_send (cluster, &step, &r->err) && wl_cluster_receive (cluster, -1, &packet, &r->err);
        if (r->received) {
            r->result_id = packet.result->id;
            r->payload_bytes = packet.payload_bytes;
            wl_packet_free (&packet);
        }
    }
    atomic_store (&r->cluster, NULL);
    wl_cluster_stop (&cluster);
    atomic_store (&r->over, true);
    return NULL;
}

/* A port that is free now. */
static uint16_t free_port (void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl (INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int fd = socket (AF_INET, SOCK_STREAM, 0);
    assert_int_equal (bind (fd, (struct sockaddr *) &address, sizeof address), 0);
    assert_int_equal (getsockname (fd, (struct sockaddr *) &address, &length), 0);
    close (fd);
    return ntohs (address.sin_port);
}

static run *prepare (uint32_t min_workers, bool sends)
{
    run *r = calloc (1, sizeof *r);
    wl_error err = {0};
    snprintf (r->folder, sizeof r->folder, "/tmp/woolly-test-XXXXXX");
    assert_non_null (mkdtemp (r->folder));
    snprintf (r->model_path, sizeof r->model_path, "%s/model.gguf", r->folder);
    assert_true (write_model (r->model_path, &small, false));
    r->gguf = wl_gguf_open (r->model_path, &err);
    r->model = r->gguf ? wl_model_new (r->gguf, &err) : NULL;
    if (!r->model)
        fail_msg ("%s", err.text);
    r->port = free_port ();
    snprintf (r->address, sizeof r->address, "127.0.0.1:%u", r->port);
    r->options = (wl_cluster_options){.listen = r->address, .min_workers = min_workers, .join_timeout_s = 60};
    r->need = (wl_cluster_need){.gguf = r->gguf, .model = r->model, .n_pages = 4, .max_rows = 8, .max_logit_rows = 2};
    r->sends = sends;
    return r;
}

static void launch (run *r)
{
    assert_int_equal (pthread_create (&r->thread, NULL, run_cluster, r), 0);
}

static run *begin (uint32_t min_workers, bool sends)
{
    run *r = prepare (min_workers, sends);
    launch (r);
    return r;
}

static bool comes_true (atomic_bool *flag, int timeout_ms)
{
    for (int64_t deadline = zclock_mono () + timeout_ms; !atomic_load (flag) && zclock_mono () < deadline;)
        zclock_sleep (2);
    return atomic_load (flag);
}

/* Waits for the thread's end, frees what finish has to, and returns its error. */
static wl_error end_run (run *r)
{
    if (!comes_true (&r->over, SOON_MS)) {
        atomic_store (&r->give_up, true);
        fail_msg ("the cluster does not end");
    }
    pthread_join (r->thread, NULL);
    wl_error err = r->err;
    wl_model_free (&r->model);
    wl_gguf_free (&r->gguf);
    unlink (r->model_path);
    rmdir (r->folder);
    return err;
}

/* -- workers that are none ---------------------------------------------------------------------------------------------------------------- */

typedef struct sheep {
    zsock_t *control, *data, *next; /* DEALER, PULL, PUSH to where Load said */
    char *data_endpoint;
    Woolly__Control *load; /* the newest */
    uint32_t index;
} sheep;

static sheep connect_sheep (const run *r)
{
    wl_error err = {0};
    char endpoint[64];
    static uint32_t count;
    sheep s = {.control = wl_link_new (WL_LINK_DEALER, WL_HEADER_LIMIT, &err),
               .data = wl_link_new (WL_LINK_PULL, WL_PAYLOAD_LIMIT, &err)};
    s.index = ++count;
    snprintf (endpoint, sizeof endpoint, "tcp://%s", r->address);
    if (!s.control || !s.data || !wl_link_bind (s.data, "tcp://127.0.0.1:*", NULL, &s.data_endpoint, &err) ||
        !wl_link_connect (s.control, endpoint, &err))
        fail_msg ("%s", err.text);
    zmq_pollitem_t item = {.socket = zsock_resolve (s.control), .events = ZMQ_POLLOUT};
    assert_int_equal (zmq_poll (&item, 1, SOON_MS), 1);
    return s;
}

static Woolly__Hello sound_hello (const sheep *s)
{
    Woolly__Hello hello = WOOLLY__HELLO__INIT;
    hello.protocol = WL_PROTOCOL;
    hello.name = (char *) (s->index % 2 ? "dolly\033[1m" : "shaun"); /* a name that would colour a terminal */
    hello.data_endpoint = s->data_endpoint;
    hello.n_threads = 1;
    hello.memory_bytes = UINT64_C (1) << 32;
    hello.isa = (char *) "scalar";
    return hello;
}

static void join_sheep (sheep *s)
{
    Woolly__Hello hello = sound_hello (s);
    SEND_CONTROL (s->control, NULL, HELLO, hello, &hello);
    Woolly__Control *welcome = await_control (s->control, NULL, WOOLLY__CONTROL__KIND_WELCOME, SOON_MS);
    assert_non_null (welcome);
    wl_control_free (&welcome);
}

static void await_load (sheep *s)
{
    wl_error err = {0};
    s->load = await_control (s->control, NULL, WOOLLY__CONTROL__KIND_LOAD, SOON_MS);
    assert_non_null (s->load);
    s->next = wl_link_new (WL_LINK_PUSH, WL_HEADER_LIMIT, &err);
    if (!wl_link_connect (s->next, s->load->load->next_endpoint, &err))
        fail_msg ("%s", err.text);
}

static void say_loaded (sheep *s, uint64_t epoch)
{
    Woolly__Loaded loaded = WOOLLY__LOADED__INIT;
    loaded.epoch = epoch;
    loaded.weight_bytes = 1000;
    SEND_CONTROL (s->control, NULL, LOADED, loaded, &loaded);
}

static void answer_pings (sheep *s, int timeout_ms)
{
    for (int64_t deadline = zclock_mono () + timeout_ms; zclock_mono () < deadline;) {
        Woolly__Control *ping = await_control (s->control, NULL, WOOLLY__CONTROL__KIND_PING, 50);
        if (!ping)
            continue;
        Woolly__Pong pong = WOOLLY__PONG__INIT;
        pong.sequence = ping->ping->sequence;
        SEND_CONTROL (s->control, NULL, PONG, pong, &pong);
        wl_control_free (&ping);
    }
}

static void free_sheep (sheep *s)
{
    zsock_destroy (&s->control);
    zsock_destroy (&s->data);
    zsock_destroy (&s->next);
    free (s->data_endpoint);
    wl_control_free (&s->load);
}

static void assert_error (wl_error err, int code, const char *text)
{
    if (err.code != code || !strstr (err.text, text))
        fail_msg ("expected %d \"%s\", got %d \"%s\"", code, text, err.code, err.text);
}

/* -- joining ------------------------------------------------------------------------------------------------------------------------------------ */

static void assert_refused (const run *r, Woolly__Hello hello, const char *reason)
{
    sheep s = connect_sheep (r);
    if (!hello.data_endpoint[0])
        hello.data_endpoint = s.data_endpoint;
    SEND_CONTROL (s.control, NULL, HELLO, hello, &hello);
    Woolly__Control *refused = await_control (s.control, NULL, WOOLLY__CONTROL__KIND_REFUSED, SOON_MS);
    assert_non_null (refused);
    if (!strstr (refused->refused->reason, reason))
        fail_msg ("\"%s\" lacks \"%s\"", refused->refused->reason, reason);
    wl_control_free (&refused);
    free_sheep (&s);
}

static void strangers_are_refused_with_a_reason (void **state)
{
    (void) state;
    run *r = begin (2, false);
    sheep none = {0};
    Woolly__Hello hello = sound_hello (&none);
    hello.data_endpoint = (char *) "";
    hello.protocol = WL_PROTOCOL + 1;
    assert_refused (r, hello, "protocol 5");
    hello.protocol = WL_PROTOCOL;
    hello.data_endpoint = (char *) "inproc://here";
    assert_refused (r, hello, "endpoint");
    hello.data_endpoint = (char *) "tcp://example.com:1";
    assert_refused (r, hello, "endpoint");
    atomic_store (&r->give_up, true);
    assert_error (end_run (r), WL_ERROR_CLUSTER, "interrupted");
    free (r);
}

/* Bytes that are no ZeroMQ at all. */
static void shout_at (const run *r)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl (INADDR_LOOPBACK), .sin_port = htons (r->port)};
    char noise[4096];
    memset (noise, 0xa5, sizeof noise);
    for (int i = 0; i < 10; i++) {
        int fd = socket (AF_INET, SOCK_STREAM, 0);
        for (int64_t deadline = zclock_mono () + SOON_MS;
             connect (fd, (struct sockaddr *) &address, sizeof address) != 0;) {
            if (zclock_mono () > deadline) /* it may not listen yet */
                fail_msg ("nobody listens on %s", r->address);
            zclock_sleep (2);
        }
        (void) !send (fd, i % 2 ? noise : "GET / HTTP/1.1\r\n\r\n", i % 2 ? sizeof noise : 18, MSG_NOSIGNAL);
        close (fd);
    }
}

static void nonsense_on_the_control_link_is_dropped (void **state)
{
    (void) state;
    run *r = begin (2, false);
    sheep a = connect_sheep (r), noisy = connect_sheep (r);
    Woolly__Control message = WOOLLY__CONTROL__INIT;
    Woolly__Hello hello = sound_hello (&a);
    uint8_t valid[256];
    message.kind_case = WOOLLY__CONTROL__KIND_HELLO;
    message.hello = &hello;
    hello.protocol = 9; /* whatever is cut off it is refused, so that the count of workers is the test's */
    size_t length = woolly__control__pack (&message, valid);
    shout_at (r);
    send_nonsense (noisy.control, NULL, valid, length);
    say_loaded (&noisy, 1); /* sound, but of nobody */
    join_sheep (&a);
    say_loaded (&a, 1);                     /* of no plan */
    Woolly__Load load = WOOLLY__LOAD__INIT; /* what only coordinators send */
    Woolly__Welcome welcome = WOOLLY__WELCOME__INIT;
    SEND_CONTROL (a.control, NULL, LOAD, load, &load);
    SEND_CONTROL (a.control, NULL, WELCOME, welcome, &welcome);
    Woolly__Control *ping = await_control (a.control, NULL, WOOLLY__CONTROL__KIND_PING, SOON_MS);
    assert_non_null (ping); /* it lives, and counts a alone */
    wl_control_free (&ping);
    assert_false (atomic_load (&r->over));
    atomic_store (&r->give_up, true);
    assert_error (end_run (r), WL_ERROR_CLUSTER, "interrupted");
    free_sheep (&a);
    free_sheep (&noisy);
    free (r);
}

static void a_hello_said_twice_is_one_worker (void **state)
{
    (void) state;
    run *r = begin (2, false);
    sheep a = connect_sheep (r), b = connect_sheep (r);
    for (int i = 0; i < 5; i++)
        join_sheep (&a);
    assert_null (await_control (a.control, NULL, WOOLLY__CONTROL__KIND_LOAD, 300));
    join_sheep (&b);
    await_load (&a); /* the second one starts it */
    await_load (&b);
    assert_int_equal (b.load->load->first_layer, 0); /* the order is that of names, not of joining */
    assert_int_equal (b.load->load->last_layer + 1, a.load->load->first_layer);
    assert_int_equal (a.load->load->last_layer, small.n_layers - 1);
    assert_string_equal (b.load->load->next_endpoint, a.data_endpoint);
    atomic_store (&r->give_up, true);
    assert_error (end_run (r), WL_ERROR_CLUSTER, "interrupted");
    free_sheep (&a);
    free_sheep (&b);
    free (r);
}

static void too_few_joining_is_an_error_that_says_what_to_do (void **state)
{
    (void) state;
    run *r = prepare (3, false);
    r->options.join_timeout_s = 0.5f;
    launch (r);
    sheep a = connect_sheep (r);
    sheep none = {0};
    Woolly__Hello other = sound_hello (&none);
    other.data_endpoint = (char *) "";
    other.protocol = 7;
    join_sheep (&a);
    assert_refused (r, other, "protocol 7");
    wl_error err = end_run (r);
    assert_error (err, WL_ERROR_CLUSTER, "only 1 of 3 workers joined within 0.5 s");
    assert_non_null (strstr (err.text, "woolly-worker --join 127.0.0.1"));
    assert_non_null (strstr (err.text, "protocol 7"));
    free_sheep (&a);
    free (r);
}

static void a_worker_that_leaves_before_the_plan_is_not_counted (void **state)
{
    (void) state;
    run *r = begin (2, false);
    sheep a = connect_sheep (r), b = connect_sheep (r);
    Woolly__Leave leave = WOOLLY__LEAVE__INIT;
    join_sheep (&a);
    SEND_CONTROL (a.control, NULL, LEAVE, leave, &leave);
    Woolly__Hello older = sound_hello (&a); /* what answers it has read what came before */
    older.protocol = 7;
    SEND_CONTROL (a.control, NULL, HELLO, hello, &older);
    Woolly__Control *refused = await_control (a.control, NULL, WOOLLY__CONTROL__KIND_REFUSED, SOON_MS);
    assert_non_null (refused);
    wl_control_free (&refused);
    join_sheep (&b);
    assert_null (await_control (b.control, NULL, WOOLLY__CONTROL__KIND_LOAD, 300));
    join_sheep (&a); /* and back again */
    await_load (&b);
    await_load (&a);
    atomic_store (&r->give_up, true);
    assert_error (end_run (r), WL_ERROR_CLUSTER, "interrupted");
    free_sheep (&a);
    free_sheep (&b);
    free (r);
}

/* -- loading --------------------------------------------------------------------------------------------------------------------------------------- */

static void a_load_tells_all_that_a_worker_needs (void **state)
{
    (void) state;
    run *r = begin (1, false);
    sheep a = connect_sheep (r);
    join_sheep (&a);
    await_load (&a);
    const Woolly__Load *load = a.load->load;
    assert_true (load->epoch != 0);
    assert_int_equal (load->fingerprint.len, 32);
    assert_string_equal (load->model_path, r->model_path);
    assert_int_equal (load->n_pages, 4);
    assert_int_equal (load->max_rows, 8);
    assert_int_equal (load->max_logit_rows, 2);
    assert_int_equal (strncmp (load->next_endpoint, "tcp://127.0.0.1:", 16), 0);
    say_loaded (&a, load->epoch + 1); /* of another plan: not this one's */
    answer_pings (&a, 300);
    assert_false (atomic_load (&r->started));
    say_loaded (&a, load->epoch);
    assert_true (comes_true (&r->started, SOON_MS));
    assert_int_equal (end_run (r).code, WL_OK);
    Woolly__Control *leave = await_control (a.control, NULL, WOOLLY__CONTROL__KIND_LEAVE, SOON_MS);
    assert_non_null (leave);
    wl_control_free (&leave);
    free_sheep (&a);
    free (r);
}

static void a_worker_that_cannot_load_is_named (void **state)
{
    (void) state;
    run *r = begin (1, false);
    sheep a = connect_sheep (r);
    Woolly__Failed failed = WOOLLY__FAILED__INIT;
    join_sheep (&a);
    await_load (&a);
    failed.code = WL_ERROR_INPUT;
    failed.text = (char *) "no grass";
    failed.epoch = a.load->load->epoch + 1; /* not of this plan */
    SEND_CONTROL (a.control, NULL, FAILED, failed, &failed);
    answer_pings (&a, 300);
    assert_false (atomic_load (&r->over));
    failed.epoch--;
    SEND_CONTROL (a.control, NULL, FAILED, failed, &failed);
    wl_error err = end_run (r);
    assert_error (err, WL_ERROR_INPUT, "no grass");
    assert_null (strchr (err.text, '\033'));
    assert_non_null (strstr (err.text, "(layers 0-3)"));
    free_sheep (&a);
    free (r);
}

static void a_worker_that_leaves_while_loading_is_named (void **state)
{
    (void) state;
    run *r = begin (1, false);
    sheep a = connect_sheep (r);
    Woolly__Leave leave = WOOLLY__LEAVE__INIT;
    join_sheep (&a);
    await_load (&a);
    leave.reason = (char *) "lunch";
    SEND_CONTROL (a.control, NULL, LEAVE, leave, &leave);
    assert_error (end_run (r), WL_ERROR_CLUSTER, "left: lunch");
    free_sheep (&a);
    free (r);
}

static void a_worker_that_joins_anew_has_lost_its_layers (void **state)
{
    (void) state;
    run *r = begin (1, false);
    sheep a = connect_sheep (r);
    join_sheep (&a);
    await_load (&a);
    Woolly__Hello hello = sound_hello (&a);
    SEND_CONTROL (a.control, NULL, HELLO, hello, &hello);
    assert_error (end_run (r), WL_ERROR_CLUSTER, "joined anew");
    free_sheep (&a);
    free (r);
}

static void a_worker_that_vanishes_is_noticed_at_once_and_a_silent_one_within_three_seconds (void **state)
{
    (void) state;
    for (int silent = 0; silent < 2; silent++) {
        run *r = begin (1, true);
        sheep a = connect_sheep (r);
        join_sheep (&a);
        await_load (&a);
        say_loaded (&a, a.load->load->epoch);
        assert_true (comes_true (&r->started, SOON_MS));
        int64_t since = zclock_mono ();
        if (!silent)
            zsock_destroy (&a.control);
        assert_error (end_run (r), WL_ERROR_CLUSTER, "stopped answering");
        assert_in_range (zclock_mono () - since, silent ? 2000 : 0, silent ? 4500 : 1500);
        free_sheep (&a);
        free (r);
    }
}

/* -- results ----------------------------------------------------------------------------------------------------------------------------------------- */

static void send_result (sheep *s, uint64_t epoch, uint64_t id, int32_t token, uint32_t n_raw, size_t payload_bytes)
{
    static float payload[3 * N_VOCAB];
    Woolly__Result result = WOOLLY__RESULT__INIT;
    Woolly__Sample sample = WOOLLY__SAMPLE__INIT, *samples[1] = {&sample};
    wl_error err = {0};
    sample.token = token;
    result.epoch = epoch;
    result.id = id;
    result.n_samples = 1;
    result.samples = samples;
    result.n_raw_rows = n_raw;
    if (!wl_result_send (s->next, &result, payload, payload_bytes, NULL, NULL, SOON_MS, &err))
        fail_msg ("%s", err.text);
}

static void only_the_sound_result_of_this_plan_is_taken (void **state)
{
    (void) state;
    run *r = begin (1, true);
    sheep a = connect_sheep (r);
    wl_packet packet;
    wl_error err = {0};
    join_sheep (&a);
    await_load (&a);
    uint64_t epoch = a.load->load->epoch;
    say_loaded (&a, epoch);
    assert_true (wl_step_receive (a.data, SOON_MS, &packet, &err));
    assert_true (packet.step->epoch == epoch && packet.step->id == 1);
    wl_packet_free (&packet);
    send_nonsense (a.next, NULL, (const uint8_t *) "\x08\x01\x10\x02", 4);
    send_result (&a, epoch + 1, 101, 1, 0, 0);
    send_result (&a, 0, 102, 1, 0, 0);
    send_result (&a, epoch, 103, N_VOCAB, 0, 0);
    send_result (&a, epoch, 104, -1, 0, 0);
    send_result (&a, epoch, 105, 1, 1, N_VOCAB * 4 - 4);
    send_result (&a, epoch, 106, 1, 0, 4);
    send_result (&a, epoch, 107, 1, UINT32_MAX, 4);
    send_result (&a, epoch, 7, 1, 2, 2 * N_VOCAB * 4);
    wl_error failure = end_run (r);
    assert_int_equal (failure.code, WL_OK);
    assert_true (r->received);
    assert_true (r->result_id == 7);
    assert_int_equal (r->payload_bytes, 2 * N_VOCAB * 4);
    free_sheep (&a);
    free (r);
}

static void an_interrupt_ends_waiting_without_an_error (void **state)
{
    (void) state;
    run *r = begin (1, true);
    sheep a = connect_sheep (r);
    wl_packet packet;
    wl_error err = {0};
    join_sheep (&a);
    await_load (&a);
    say_loaded (&a, a.load->load->epoch);
    assert_true (wl_step_receive (a.data, SOON_MS, &packet, &err)); /* it waits for a result now, or soon */
    wl_packet_free (&packet);
    wl_cluster_interrupt (atomic_load (&r->cluster));
    wl_error failure = end_run (r);
    assert_int_equal (failure.code, WL_OK);
    assert_false (r->received);
    free_sheep (&a);
    free (r);
}

int main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (strangers_are_refused_with_a_reason),
        cmocka_unit_test (nonsense_on_the_control_link_is_dropped),
        cmocka_unit_test (a_hello_said_twice_is_one_worker),
        cmocka_unit_test (too_few_joining_is_an_error_that_says_what_to_do),
        cmocka_unit_test (a_worker_that_leaves_before_the_plan_is_not_counted),
        cmocka_unit_test (a_load_tells_all_that_a_worker_needs),
        cmocka_unit_test (a_worker_that_cannot_load_is_named),
        cmocka_unit_test (a_worker_that_leaves_while_loading_is_named),
        cmocka_unit_test (a_worker_that_joins_anew_has_lost_its_layers),
        cmocka_unit_test (a_worker_that_vanishes_is_noticed_at_once_and_a_silent_one_within_three_seconds),
        cmocka_unit_test (only_the_sound_result_of_this_plan_is_taken),
        cmocka_unit_test (an_interrupt_ends_waiting_without_an_error),
    };
    return cmocka_run_group_tests (tests, start_links, end_links);
}
