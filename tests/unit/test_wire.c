/* Messages between processes, over real sockets: what is sent arrives, what is malformed is refused with a sentence, and nothing is copied or
 * allocated beyond what the header promises. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "engine/memory.h"
#include "peers.h"
#include "proto/fingerprint.h"

enum { SOON_MS = 5000 };

typedef struct pair { /* two connected sockets */
    zsock_t *from, *to;
    char *folder, *endpoint;
} pair;

static pair open_pair (wl_link_kind from, wl_link_kind to, bool ipc)
{
    wl_error err = {0};
    char address[256] = "tcp://127.0.0.1:*";
    pair p = {.folder = wl_socket_folder_new (&err)};
    if (ipc)
        snprintf (address, sizeof address, "ipc://%s/pair", p.folder);
    p.to = wl_link_new (to, WL_PAYLOAD_LIMIT, &err);
    p.from = wl_link_new (from, WL_PAYLOAD_LIMIT, &err);
    if (!p.folder || !p.to || !p.from || !wl_link_bind (p.to, address, NULL, &p.endpoint, &err) ||
        !wl_link_connect (p.from, p.endpoint, &err))
        fail_msg ("%s", err.text);
    return p;
}

static void close_pair (pair *p)
{
    zsock_destroy (&p->from);
    zsock_destroy (&p->to);
    wl_socket_folder_remove (p->folder);
    free (p->folder);
    free (p->endpoint);
}

/* -- control ------------------------------------------------------------------------------------------------------------------------ */

static void cross_control (bool ipc)
{
    pair p = open_pair (WL_LINK_DEALER, WL_LINK_ROUTER, ipc);
    Woolly__Hello hello = WOOLLY__HELLO__INIT;
    Woolly__Ping ping = WOOLLY__PING__INIT;
    Woolly__Control *got;
    zframe_t *peer = NULL;
    wl_error err = {0};
    hello.name = (char *) "dolly";
    hello.memory_bytes = UINT64_C (1) << 40;
    zmq_pollitem_t item = {.socket = zsock_resolve (p.from), .events = ZMQ_POLLOUT};
    assert_int_equal (zmq_poll (&item, 1, SOON_MS), 1);
    SEND_CONTROL (p.from, NULL, HELLO, hello, &hello);
    got = wl_control_receive (p.to, &peer, SOON_MS, &err);
    assert_non_null (got);
    assert_int_equal (got->kind_case, WOOLLY__CONTROL__KIND_HELLO);
    assert_string_equal (got->hello->name, "dolly");
    assert_true (got->hello->memory_bytes == UINT64_C (1) << 40);
    wl_control_free (&got);
    ping.sequence = 7;
    SEND_CONTROL (p.to, peer, PING, ping, &ping);
    got = wl_control_receive (p.from, NULL, SOON_MS, &err);
    assert_non_null (got);
    assert_true (got->ping->sequence == 7);
    wl_control_free (&got);
    zframe_destroy (&peer);
    close_pair (&p);
}

static void control_messages_cross_ipc_and_tcp_both_ways (void **state)
{
    (void) state;
    cross_control (true);
    cross_control (false);
}

static void nothing_within_the_time_is_no_error (void **state)
{
    (void) state;
    pair p = open_pair (WL_LINK_DEALER, WL_LINK_ROUTER, true);
    wl_error err = {0};
    wl_packet packet;
    zframe_t *peer;
    assert_null (wl_control_receive (p.to, &peer, 10, &err));
    assert_int_equal (err.code, WL_OK);
    assert_null (peer);
    close_pair (&p);
    p = open_pair (WL_LINK_PUSH, WL_LINK_PULL, true);
    assert_false (wl_step_receive (p.to, 10, &packet, &err));
    assert_int_equal (err.code, WL_OK);
    wl_packet_free (&packet);
    close_pair (&p);
}

static void a_vanished_peer_is_an_error_for_the_router (void **state)
{
    (void) state;
    pair p = open_pair (WL_LINK_DEALER, WL_LINK_ROUTER, true);
    Woolly__Ping ping = WOOLLY__PING__INIT;
    Woolly__Control message = WOOLLY__CONTROL__INIT;
    wl_error err = {0};
    zframe_t *nobody = zframe_new ("\0abcd", 5);
    message.kind_case = WOOLLY__CONTROL__KIND_PING;
    message.ping = &ping;
    assert_false (wl_control_send (p.to, nobody, &message, &err));
    assert_int_equal (err.code, WL_ERROR_CLUSTER);
    assert_non_null (strstr (err.text, "gone"));
    zframe_destroy (&nobody);
    close_pair (&p);
}

static void the_router_survives_nonsense (void **state)
{
    (void) state;
    pair p = open_pair (WL_LINK_DEALER, WL_LINK_ROUTER, true);
    static const uint8_t valid[] = {0x0a, 0x07, 0x08, 0x01, 0x12,
                                    0x03, 'a',  'b',  'c'}; /* Hello { protocol 1, name "abc" } */
    Woolly__Control *got = NULL;
    zframe_t *peer = NULL;
    size_t n_malformed = 0;
    send_nonsense (p.from, NULL, valid, sizeof valid);
    send_raw (p.from, NULL, (const char *[]){(const char *) valid}, (const size_t[]){sizeof valid}, 1);
    int64_t deadline = zclock_mono () + SOON_MS;
    while (zclock_mono () < deadline) {
        wl_error err = {0};
        zframe_destroy (&peer);
        got = wl_control_receive (p.to, &peer, 100, &err);
        n_malformed += err.code == WL_ERROR_CLUSTER;
        if (got && got->kind_case == WOOLLY__CONTROL__KIND_HELLO && strcmp (got->hello->name, "abc") == 0)
            break;
        wl_control_free (&got);
    }
    assert_non_null (got);
    assert_true (n_malformed > 200);
    wl_control_free (&got);
    zframe_destroy (&peer);
    close_pair (&p);
}

/* -- data ---------------------------------------------------------------------------------------------------------------------------- */

/* A step of n rows of one sequence, without picks. */
typedef struct sample_step {
    Woolly__Step message;
    Woolly__Span span, *spans[1];
    uint32_t pages[2];
    int32_t tokens[4];
} sample_step;

static void fill_step (sample_step *s, uint64_t id)
{
    *s = (sample_step){.pages = {3, 5}, .tokens = {10, 11, -1, 13}};
    woolly__step__init (&s->message);
    woolly__span__init (&s->span);
    s->span.n_rows = 4;
    s->span.first_position = 60;
    s->span.n_pages = 2;
    s->span.pages = s->pages;
    s->spans[0] = &s->span;
    s->message.epoch = 99;
    s->message.id = id;
    s->message.n_rows = 4;
    s->message.n_spans = 1;
    s->message.spans = s->spans;
    s->message.n_tokens = 4;
    s->message.tokens = s->tokens;
}

static atomic_int released; /* by ZeroMQ's thread, in the test that runs */

static void count_release (void *payload, void *context)
{
    (void) payload;
    (void) context;
    atomic_fetch_add (&released, 1);
}

static bool comes_to (atomic_int *value, int wanted)
{
    for (int64_t deadline = zclock_mono () + SOON_MS; atomic_load (value) != wanted && zclock_mono () < deadline;)
        zclock_sleep (1);
    return atomic_load (value) == wanted;
}

static void cross_step (bool ipc, size_t payload_bytes, bool copies)
{
    pair p = open_pair (WL_LINK_PUSH, WL_LINK_PULL, ipc);
    wl_error err = {0};
    wl_packet packet;
    sample_step step;
    atomic_store (&released, 0);
    uint8_t *payload = malloc (payload_bytes + 1);
    for (size_t i = 0; i < payload_bytes; i++)
        payload[i] = (uint8_t) (i * 31);
    fill_step (&step, 1);
    if (!wl_step_send (p.from, &step.message, payload, payload_bytes, copies ? NULL : count_release, NULL, SOON_MS,
                       &err))
        fail_msg ("%s", err.text);
    assert_true (wl_step_receive (p.to, SOON_MS, &packet, &err));
    assert_null (packet.result);
    assert_true (packet.step->epoch == 99 && packet.step->id == 1 && packet.step->n_tokens == 4);
    assert_int_equal (packet.step->tokens[2], -1);
    assert_int_equal (packet.step->spans[0]->pages[1], 5);
    assert_int_equal (packet.payload_bytes, payload_bytes);
    assert_memory_equal (packet.payload, payload, payload_bytes);
    assert_int_equal ((uintptr_t) packet.payload % sizeof (float), 0);
    if (!copies)
        assert_true (comes_to (&released, 1));
    wl_packet_free (&packet);
    wl_packet_free (&packet); /* again is harmless */
    close_pair (&p);
    assert_int_equal (atomic_load (&released), copies ? 0 : 1);
    free (payload);
}

static void steps_cross_with_their_payload_and_release_it_once (void **state)
{
    (void) state;
    static const size_t sizes[] = {0, 4, 36, 1000, 8192, 100004, 5 << 20};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        for (int kind = 0; kind < 4; kind++)
            cross_step (kind & 1, sizes[i], kind & 2);
}

static void results_cross_with_samples_and_logits (void **state)
{
    (void) state;
    pair p = open_pair (WL_LINK_PUSH, WL_LINK_PULL, true);
    Woolly__Result result = WOOLLY__RESULT__INIT;
    Woolly__Sample sample = WOOLLY__SAMPLE__INIT, *samples[1] = {&sample};
    float logits[3] = {1.5f, -2, 0};
    wl_error err = {0};
    wl_packet packet;
    sample.token = 42;
    sample.logprob = -0.25f;
    result.n_samples = 1;
    result.samples = samples;
    result.n_raw_rows = 1;
    assert_true (wl_result_send (p.from, &result, logits, sizeof logits, NULL, NULL, SOON_MS, &err));
    assert_true (wl_result_receive (p.to, SOON_MS, &packet, &err));
    assert_int_equal (packet.result->samples[0]->token, 42);
    assert_memory_equal (packet.payload, logits, sizeof logits);
    wl_packet_free (&packet);
    close_pair (&p);
}

static void a_full_queue_leaves_the_bytes_with_the_sender (void **state)
{
    (void) state;
    enum { PAYLOAD = 1 << 20, MOST = 200 };
    pair p = open_pair (WL_LINK_PUSH, WL_LINK_PULL, true);
    wl_error err = {0};
    sample_step step;
    atomic_store (&released, 0);
    int sent = 0;
    uint8_t *payload = calloc (1, PAYLOAD);
    fill_step (&step, 1);
    while (sent < MOST &&
           wl_step_send (p.from, &step.message, payload, PAYLOAD, count_release, NULL, sent ? 50 : SOON_MS, &err))
        sent++;
    assert_int_equal (err.code, WL_OK);
    assert_in_range (sent, 1, MOST - 1);
    close_pair (&p);
    assert_true (comes_to (&released, sent)); /* what was sent, and not the one that was not */
    free (payload);
}

static void without_a_receiver_nothing_is_sent (void **state)
{
    (void) state;
    wl_error err = {0};
    sample_step step;
    atomic_store (&released, 0);
    zsock_t *link = wl_link_new (WL_LINK_PUSH, WL_HEADER_LIMIT, &err);
    fill_step (&step, 1);
    assert_true (wl_link_connect (link, "ipc:///tmp/woolly-nobody-is-here", &err));
    assert_false (wl_step_send (link, &step.message, step.tokens, 4, count_release, NULL, 20, &err));
    assert_int_equal (err.code, WL_OK);
    zsock_destroy (&link);
    assert_int_equal (atomic_load (&released), 0);
}

static void the_data_link_survives_nonsense (void **state)
{
    (void) state;
    pair p = open_pair (WL_LINK_PUSH, WL_LINK_PULL, true);
    sample_step step;
    wl_packet packet;
    wl_error sent = {0};
    uint8_t valid[256];
    size_t n_malformed = 0;
    bool found = false;
    fill_step (&step, 1000);
    size_t length = woolly__step__pack (&step.message, valid);
    zmq_pollitem_t item = {.socket = zsock_resolve (p.from), .events = ZMQ_POLLOUT};
    assert_int_equal (zmq_poll (&item, 1, SOON_MS), 1);
    /* the queue is short: nonsense goes out from a thread's worth of turns, received in between */
    for (size_t cut = 0; cut < length; cut++) {
        wl_error err = {0};
        send_raw (p.from, NULL, (const char *[]){(const char *) valid}, (const size_t[]){cut}, 1);
        send_raw (p.from, NULL, (const char *[]){(const char *) valid, "abcd", "ef"}, (const size_t[]){cut, 4, 2}, 3);
        for (int i = 0; i < 2; i++) {
            err = (wl_error){0};
            assert_false (wl_step_receive (p.to, SOON_MS, &packet, &err));
            n_malformed += err.code == WL_ERROR_CLUSTER;
            wl_packet_free (&packet);
        }
    }
    assert_int_equal (n_malformed, 2 * length);
    assert_true (wl_step_send (p.from, &step.message, step.tokens, 4, NULL, NULL, SOON_MS, &sent));
    found = wl_step_receive (p.to, SOON_MS, &packet, &sent);
    assert_true (found && packet.step->id == 1000);
    wl_packet_free (&packet);
    close_pair (&p);
}

static void a_frame_beyond_the_limit_is_not_taken_in (void **state)
{
    (void) state;
    wl_error err = {0};
    char *endpoint = NULL;
    wl_packet packet;
    sample_step step;
    zsock_t *to = wl_link_new (WL_LINK_PULL, 1 << 16, &err), *from = wl_link_new (WL_LINK_PUSH, 1 << 16, &err);
    uint8_t *payload = calloc (1, 1 << 17);
    fill_step (&step, 1);
    assert_true (wl_link_bind (to, "tcp://127.0.0.1:*", NULL, &endpoint, &err));
    assert_true (wl_link_connect (from, endpoint, &err));
    assert_true (wl_step_send (from, &step.message, payload, 1 << 17, NULL, NULL, SOON_MS, &err));
    assert_false (wl_step_receive (to, 200, &packet, &err)); /* the connection is closed instead */
    assert_int_equal (err.code, WL_OK);
    wl_packet_free (&packet);
    assert_true (
        wl_step_send (from, &step.message, payload, 1 << 10, NULL, NULL, SOON_MS, &err)); /* and opened again */
    assert_true (wl_step_receive (to, SOON_MS, &packet, &err));
    wl_packet_free (&packet);
    zsock_destroy (&from);
    zsock_destroy (&to);
    free (endpoint);
    free (payload);
}

/* -- decoding ------------------------------------------------------------------------------------------------------------------------- */

static void what_is_no_message_is_refused (void **state)
{
    (void) state;
    wl_error err = {0};
    assert_null (wl_control_decode ((const uint8_t *) "", 0, &err)); /* a Control of no kind */
    assert_non_null (strstr (err.text, "no kind"));
    err = (wl_error){0};
    assert_null (wl_control_decode ((const uint8_t *) "\xfa\x07\x00", 3, &err)); /* field 127: of a later version */
    assert_non_null (strstr (err.text, "no kind"));
    err = (wl_error){0};
    assert_null (wl_step_decode ((const uint8_t *) "\xff\xff\xff", 3, &err));
    assert_int_equal (err.code, WL_ERROR_CLUSTER);
    err = (wl_error){0};
    uint8_t *large = calloc (1, WL_HEADER_LIMIT + 1);
    assert_null (wl_result_decode (large, WL_HEADER_LIMIT + 1, &err));
    assert_non_null (strstr (err.text, "allowed"));
    free (large);
}

static void a_small_message_cannot_describe_much (void **state)
{
    (void) state;
    wl_error err = {0};
    size_t length = WL_HEADER_LIMIT;
    uint8_t *encoded = malloc (length);
    for (size_t i = 0; i < length; i += 2) { /* two million empty spans */
        encoded[i] = 0x22;
        encoded[i + 1] = 0;
    }
    assert_null (wl_step_decode (encoded, length, &err));
    assert_non_null (strstr (err.text, "too much"));
    err = (wl_error){0};
    Woolly__Step *step = wl_step_decode (encoded, 20000, &err); /* ten thousand are none too many */
    assert_non_null (step);
    assert_int_equal (step->n_spans, 10000);
    wl_step_free (&step);
    free (encoded);
}

static void failing_allocations_are_reported (void **state)
{
    (void) state;
    sample_step step;
    uint8_t encoded[256];
    unsigned n_failed = 0;
    fill_step (&step, 1);
    size_t length = woolly__step__pack (&step.message, encoded);
    for (unsigned nth = 1;; nth++) {
        wl_error err = {0};
        wl_memory_fail_after (nth);
        Woolly__Step *decoded = wl_step_decode (encoded, length, &err);
        wl_memory_fail_after (0);
        if (decoded) {
            wl_step_free (&decoded);
            break;
        }
        assert_int_equal (err.code, WL_ERROR_CLUSTER);
        n_failed++;
    }
    assert_in_range (n_failed, 4, 100);
}

/* -- addresses -------------------------------------------------------------------------------------------------------------------------- */

static void addresses_are_what_they_say (void **state)
{
    (void) state;
    static const struct {
        const char *text, *address;
        bool loopback;
    } cases[] = {{"127.0.0.1:7000", "tcp://127.0.0.1:7000", true},
                 {":7000", "tcp://127.0.0.1:7000", true},
                 {"7000", "tcp://127.0.0.1:7000", true},
                 {"[::1]:7000", "tcp://[::1]:7000", true},
                 {"*:7000", "tcp://0.0.0.0:7000", false},
                 {"0.0.0.0:0", "tcp://0.0.0.0:0", false},
                 {"192.0.2.7:65535", "tcp://192.0.2.7:65535", false},
                 {"localhost:7000", "tcp://127.0.0.1:7000", true},
                 {"tcp://10.1.2.3:80", "tcp://10.1.2.3:80", false},
                 {"ipc:///tmp/x", "ipc:///tmp/x", true}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        wl_error err = {0};
        bool loopback = !cases[i].loopback;
        char *address = wl_link_address (cases[i].text, &loopback, &err);
        if (!address)
            fail_msg ("%s: %s", cases[i].text, err.text);
        assert_string_equal (address, cases[i].address);
        assert_int_equal (loopback, cases[i].loopback);
        free (address);
    }
}

static void what_is_no_address_is_a_usage_error (void **state)
{
    (void) state;
    static const char *const texts[] = {"",
                                        "host",
                                        "host:",
                                        "host:65536",
                                        "host:-1",
                                        "host:1x",
                                        "host:01",
                                        "::1:7000",
                                        "a b:1",
                                        "a;b:1",
                                        "[::1]",
                                        "[::1:7000",
                                        "host.invalid:7000",
                                        "ipc://relative",
                                        "ipc://",
                                        "inproc://a",
                                        "%s%n:1",
                                        "256.256.256.256:1"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        wl_error err = {0};
        bool loopback;
        char *address = wl_link_address (texts[i], &loopback, &err);
        if (address)
            fail_msg ("\"%s\" became %s", texts[i], address);
        assert_int_equal (err.code, WL_ERROR_USAGE);
    }
}

static void only_plain_endpoints_are_taken_from_peers (void **state)
{
    (void) state;
    static const char *const good[] = {"tcp://127.0.0.1:1", "tcp://[fe80::1]:65535", "ipc:///tmp/a"};
    static const char *const bad[] = {"",
                                      "tcp://",
                                      "tcp://127.0.0.1",
                                      "tcp://127.0.0.1:0",
                                      "tcp://127.0.0.1:*",
                                      "tcp://*:80",
                                      "tcp://0.0.0.0:80",
                                      "tcp://localhost:80",
                                      "tcp://example.com:80",
                                      "tcp://127.0.0.1:80;127.0.0.1:81",
                                      "inproc://x",
                                      "ipc://@x",
                                      "ipc:///",
                                      "ipc:///tmp/",
                                      "pgm://1.2.3.4:5",
                                      "udp://1.2.3.4:5",
                                      "tcp://:80",
                                      "TCP://127.0.0.1:80",
                                      "tcp://127.0.0.1:80 ",
                                      "tcp://127.0.0.1:99999",
                                      "ws://127.0.0.1:80"};
    char long_path[300] = "ipc:///";
    memset (long_path + 7, 'a', 200);
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        if (!wl_link_endpoint_ok (good[i]))
            fail_msg ("%s is refused", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (wl_link_endpoint_ok (bad[i]))
            fail_msg ("%s is taken", bad[i]);
    assert_false (wl_link_endpoint_ok (long_path));
}

static void a_port_in_use_and_a_foreign_address_are_said (void **state)
{
    (void) state;
    wl_error err = {0};
    char *endpoint = NULL, *other = NULL;
    zsock_t *first = wl_link_new (WL_LINK_ROUTER, 1000, &err), *second = wl_link_new (WL_LINK_ROUTER, 1000, &err);
    assert_true (wl_link_bind (first, "tcp://127.0.0.1:*", NULL, &endpoint, &err));
    assert_false (wl_link_bind (second, endpoint, NULL, &other, &err));
    assert_int_equal (err.code, WL_ERROR_CLUSTER);
    assert_non_null (strstr (err.text, "in use"));
    err = (wl_error){0};
    assert_false (wl_link_bind (second, "tcp://192.0.2.1:7000", NULL, &other, &err));
    assert_non_null (strstr (err.text, "no such address"));
    err = (wl_error){0};
    assert_false (wl_link_bind (second, "nonsense", NULL, &other, &err));
    assert_int_equal (err.code, WL_ERROR_USAGE);
    assert_null (other);
    zsock_destroy (&first);
    zsock_destroy (&second);
    free (endpoint);
}

static void a_wildcard_is_advertised_by_an_address (void **state)
{
    (void) state;
    wl_error err = {0};
    char *endpoint = NULL;
    char host[WL_HOST_BYTES];
    bool loopback;
    zsock_t *link = wl_link_new (WL_LINK_PULL, 1000, &err);
    assert_true (wl_link_bind (link, "tcp://0.0.0.0:*", "192.0.2.9", &endpoint, &err));
    assert_int_equal (strncmp (endpoint, "tcp://192.0.2.9:", 16), 0);
    assert_true (wl_link_endpoint_ok (endpoint));
    assert_true (wl_link_local_host ("tcp://127.0.0.1:7000", host, &loopback, &err));
    assert_string_equal (host, "127.0.0.1");
    assert_true (loopback);
    zsock_destroy (&link);
    free (endpoint);
}

static void a_socket_folder_is_private_and_goes_with_its_sockets (void **state)
{
    (void) state;
    wl_error err = {0};
    struct stat status;
    pair p = open_pair (WL_LINK_PUSH, WL_LINK_PULL, true);
    assert_int_equal (stat (p.folder, &status), 0);
    assert_int_equal (status.st_mode & 0777, 0700);
    wl_socket_folder_remove (p.folder);
    assert_int_not_equal (stat (p.folder, &status), 0);
    char *another = wl_socket_folder_new (&err);
    assert_string_not_equal (another, p.folder);
    wl_socket_folder_remove (another);
    free (another);
    close_pair (&p);
}

static void waking_is_seen_until_drained (void **state)
{
    (void) state;
    wl_error err = {0};
    int ends[2];
    assert_true (wl_wake_open (ends, &err));
    zmq_pollitem_t item = {.fd = ends[0], .events = ZMQ_POLLIN};
    assert_int_equal (zmq_poll (&item, 1, 0), 0);
    for (int i = 0; i < 100000; i++) /* more than a pipe holds: none blocks */
        wl_wake_signal (ends[1]);
    assert_int_equal (zmq_poll (&item, 1, 0), 1);
    wl_wake_drain (ends[0]);
    assert_int_equal (zmq_poll (&item, 1, 0), 0);
    wl_wake_close (ends);
}

/* -- fingerprints ----------------------------------------------------------------------------------------------------------------------- */

static void fingerprint_of (const uint8_t *file, size_t length, uint8_t out[WL_FINGERPRINT_BYTES])
{
    wl_error err = {0};
    wl_gguf *gguf = wl_gguf_open_memory (file, length, "model", &err);
    if (!gguf || !wl_fingerprint (gguf, out, &err))
        fail_msg ("%s", err.text);
    wl_gguf_free (&gguf);
}

static void a_fingerprint_tells_files_apart (void **state)
{
    (void) state;
    const uint64_t dims[2] = {64, 256};
    uint8_t a[WL_FINGERPRINT_BYTES], b[WL_FINGERPRINT_BYTES];
    gguf_builder g = new_builder ();
    size_t length;
    add_text (&g, "general.name", "dolly");
    add_tensor (&g, "t", 0, 2, dims, 0);
    g.data_bytes = 64 * 256 * sizeof (float);
    uint8_t *file = build (&g, &length);
    fingerprint_of (file, length, a);
    fingerprint_of (file, length, b);
    assert_memory_equal (a, b, sizeof a);
    static const size_t from_end[] = {1, 4096, 64 * 256 * 4, 64 * 256 * 4 - 4095};
    for (size_t i = 0; i < sizeof from_end / sizeof from_end[0];
         i++) { /* first and last of both samples of the tensor */
        file[length - from_end[i]] ^= 1;
        fingerprint_of (file, length, b);
        assert_memory_not_equal (a, b, sizeof a);
        file[length - from_end[i]] ^= 1;
    }
    uint8_t *name = memmem (file, length, "dolly", 5);
    name[0] = 'D';
    fingerprint_of (file, length, b);
    assert_memory_not_equal (a, b, sizeof a);
    free (file);
}

static void a_header_alone_has_no_fingerprint (void **state)
{
    (void) state;
    const uint64_t dims[1] = {64};
    uint8_t out[WL_FINGERPRINT_BYTES];
    wl_error err = {0};
    gguf_builder g = new_builder ();
    size_t length;
    add_tensor (&g, "t", 0, 1, dims, 0);
    g.data_bytes = 256;
    uint8_t *file = build (&g, &length);
    wl_gguf *gguf = wl_gguf_open_header (file, length - 256, "model", &err);
    assert_non_null (gguf);
    assert_false (wl_fingerprint (gguf, out, &err));
    wl_gguf_free (&gguf);
    free (file);
}

int main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (control_messages_cross_ipc_and_tcp_both_ways),
        cmocka_unit_test (nothing_within_the_time_is_no_error),
        cmocka_unit_test (a_vanished_peer_is_an_error_for_the_router),
        cmocka_unit_test (the_router_survives_nonsense),
        cmocka_unit_test (steps_cross_with_their_payload_and_release_it_once),
        cmocka_unit_test (results_cross_with_samples_and_logits),
        cmocka_unit_test (a_full_queue_leaves_the_bytes_with_the_sender),
        cmocka_unit_test (without_a_receiver_nothing_is_sent),
        cmocka_unit_test (the_data_link_survives_nonsense),
        cmocka_unit_test (a_frame_beyond_the_limit_is_not_taken_in),
        cmocka_unit_test (what_is_no_message_is_refused),
        cmocka_unit_test (a_small_message_cannot_describe_much),
        cmocka_unit_test (failing_allocations_are_reported),
        cmocka_unit_test (addresses_are_what_they_say),
        cmocka_unit_test (what_is_no_address_is_a_usage_error),
        cmocka_unit_test (only_plain_endpoints_are_taken_from_peers),
        cmocka_unit_test (a_port_in_use_and_a_foreign_address_are_said),
        cmocka_unit_test (a_wildcard_is_advertised_by_an_address),
        cmocka_unit_test (a_socket_folder_is_private_and_goes_with_its_sockets),
        cmocka_unit_test (waking_is_seen_until_drained),
        cmocka_unit_test (a_fingerprint_tells_files_apart),
        cmocka_unit_test (a_header_alone_has_no_fingerprint),
    };
    return cmocka_run_group_tests (tests, start_links, end_links);
}
