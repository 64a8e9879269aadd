/* The weights link from both ends: the real server against workers that ask for nonsense, and the real fetching against a coordinator, played here, that answers with
 * it. Nobody crashes, nothing that was not checked reaches the store, and what has arrived stays. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdatomic.h>

#include "coordinator/weight_server.h"
#include "peers.h"
#include "worker/weight_fetch.h"
#include "worker/weight_store.h"

enum { SOON_MS = 20000, EPOCH = 77, CHUNK = WL_WEIGHTS_CHUNK_BYTES, FILE_BYTES = 5 * CHUNK + 1234 };

static const model_shape shape = {
    .n_layers = 2, .d_model = 256, .d_ff = 512, .n_heads = 4, .n_kv_heads = 2, .n_vocab = 2000};
static const load_progress quiet = {0};

typedef struct scene {
    char folder[64], model[96];
    wl_gguf *gguf;
    weight_store *store;
    /* the played server */
    zsock_t *router;
    char *endpoint;
    pthread_t thread;
    atomic_bool over;
    atomic_uint n_asks;
    unsigned answers; /* so many are sound; the others as `fault` says */
    int fault;
    uint8_t *bytes; /* [FILE_BYTES] that it serves */
} scene;

static int make_scene (void **state)
{
    scene *s = calloc (1, sizeof *s);
    wl_error err = {0};
    snprintf (s->folder, sizeof s->folder, "/tmp/woolly-test-XXXXXX");
    if (!mkdtemp (s->folder))
        return -1;
    snprintf (s->model, sizeof s->model, "%s/model.gguf", s->folder);
    if (!write_model (s->model, &shape, false))
        return -1;
    s->gguf = wl_gguf_open (s->model, &err);
    s->bytes = malloc (FILE_BYTES);
    for (size_t i = 0; i < FILE_BYTES; i++)
        s->bytes[i] = (uint8_t) (i * 2654435761u >> 20);
    *state = s;
    return s->gguf ? 0 : -1;
}

static int end_scene (void **state)
{
    scene *s = *state;
    char command[128];
    weight_store_close (&s->store);
    wl_gguf_free (&s->gguf);
    free (s->endpoint);
    free (s->bytes);
    snprintf (command, sizeof command, "rm -r '%s'", s->folder);
    free (s);
    return system (command);
}

/* -- the real server ---------------------------------------------------------------------------------------------------------------------- */

static weight_server *start_server (scene *s, bool tcp, char endpoint[WEIGHT_ENDPOINT_BYTES])
{
    wl_error err = {0};
    const weight_server_options options = {
        .gguf = s->gguf, .folder = tcp ? NULL : s->folder, .listen = tcp ? "tcp://0.0.0.0:1" : NULL, .epoch = EPOCH};
    weight_server *server = weight_server_new (&options, &err);
    if (!server || !weight_server_endpoint (server, tcp ? "tcp://127.0.0.1:9" : "ipc:///x", endpoint, &err))
        fail_msg ("%s", err.text);
    return server;
}

static zsock_t *connect_to (const char *endpoint)
{
    wl_error err = {0};
    zsock_t *link = wl_link_new (WL_LINK_WEIGHTS_DEALER, WL_WEIGHTS_CHUNK_BYTES, &err);
    if (!link || !wl_link_connect (link, endpoint, &err))
        fail_msg ("%s", err.text);
    return link;
}

static void ask (zsock_t *link, uint64_t epoch, uint64_t id, uint32_t part, uint64_t offset, uint32_t length)
{
    wl_error err = {0};
    Woolly__WeightsAsk message = WOOLLY__WEIGHTS_ASK__INIT;
    message.epoch = epoch;
    message.id = id;
    message.part = part;
    message.offset = offset;
    message.length = length;
    if (!wl_weights_ask (link, &message, &err))
        fail_msg ("%s", err.text);
}

static void await_chunk (zsock_t *link, wl_weights_chunk *chunk, uint64_t id)
{
    wl_error err = {0};
    if (!wl_weights_receive_chunk (link, SOON_MS, chunk, &err))
        fail_msg ("no chunk: %s", err.text);
    assert_true (chunk->header->id == id);
}

static void a_server_sends_what_it_is_asked_for_and_its_hash (void **state)
{
    scene *s = *state;
    char endpoint[WEIGHT_ENDPOINT_BYTES];
    for (int tcp = 0; tcp < 2; tcp++) {
        weight_server *server = start_server (s, tcp, endpoint);
        assert_int_equal (strncmp (endpoint, tcp ? "tcp://127.0.0.1:" : "ipc://", tcp ? 16 : 6), 0);
        zsock_t *link = connect_to (endpoint);
        wl_gguf_part part = wl_gguf_part_at (s->gguf, 0);
        uint8_t hash[WL_WEIGHTS_HASH_BYTES];
        for (uint64_t offset = 0, id = 1; offset < part.file_bytes; offset += CHUNK, id++) {
            wl_weights_chunk chunk = {0};
            uint32_t length = part.file_bytes - offset < CHUNK ? (uint32_t) (part.file_bytes - offset) : CHUNK;
            ask (link, EPOCH, id, 0, offset, length);
            await_chunk (link, &chunk, id);
            assert_string_equal (chunk.header->refusal, "");
            assert_int_equal (chunk.length, length);
            assert_memory_equal (chunk.bytes, part.bytes + offset, length);
            wl_weights_hash (chunk.bytes, chunk.length, hash);
            assert_memory_equal (chunk.header->hash.data, hash, sizeof hash);
            wl_weights_chunk_free (&chunk);
        }
        zsock_destroy (&link);
        weight_server_free (&server);
    }
}

static void a_server_refuses_what_lies_beyond_the_model_and_ignores_who_does_not_know_the_plan (void **state)
{
    scene *s = *state;
    char endpoint[WEIGHT_ENDPOINT_BYTES];
    weight_server *server = start_server (s, false, endpoint);
    zsock_t *link = connect_to (endpoint);
    uint64_t size = wl_gguf_part_at (s->gguf, 0).file_bytes;
    const struct {
        uint32_t part;
        uint64_t offset;
        uint32_t length;
    } beyond[] = {{1, 0, 10},          {UINT32_MAX, 0, 10},     {0, size, 1},     {0, size - 9, 10},
                  {0, UINT64_MAX, 10}, {0, UINT64_MAX - 5, 10}, {0, size, CHUNK}, {0, UINT64_MAX - CHUNK, CHUNK}};
    for (uint64_t i = 0; i < sizeof beyond / sizeof beyond[0]; i++) {
        wl_weights_chunk chunk = {0};
        ask (link, EPOCH, i + 1, beyond[i].part, beyond[i].offset, beyond[i].length);
        await_chunk (link, &chunk, i + 1);
        assert_true (chunk.header->refusal[0] && chunk.length == 0);
        wl_weights_chunk_free (&chunk);
    }
    ask (link, EPOCH + 1, 100, 0, 0, 10);
    ask (link, EPOCH, 101, 0, 0, 0); /* no chunk is of no bytes, nor larger than the largest */
    ask (link, EPOCH, 102, 0, 0, CHUNK + 1);
    const uint8_t noise[] = {0xff, 0xff, 0xff, 1, 2, 3};
    send_nonsense (link, NULL, noise, sizeof noise);
    ask (link, EPOCH, 103, 0, 0, 10); /* the only one of these that is answered */
    wl_weights_chunk chunk = {0};
    await_chunk (link, &chunk, 103);
    assert_int_equal (chunk.length, 10);
    wl_weights_chunk_free (&chunk);
    zsock_destroy (&link);
    weight_server_free (&server);
}

/* A peer that asks for all and takes nothing holds no more than a queue of chunks, and delays nobody. */
static void a_peer_that_takes_nothing_does_not_hold_up_another (void **state)
{
    scene *s = *state;
    char endpoint[WEIGHT_ENDPOINT_BYTES];
    weight_server *server = start_server (s, true, endpoint);
    zsock_t *greedy = connect_to (endpoint), *honest = connect_to (endpoint);
    for (uint64_t id = 1; id <= 30; id++)
        ask (greedy, EPOCH, id, 0, 0, CHUNK);
    for (uint64_t id = 1; id <= 20; id++) {
        wl_weights_chunk chunk = {0};
        ask (honest, EPOCH, id, 0, id, 1000);
        await_chunk (honest, &chunk, id);
        wl_weights_chunk_free (&chunk);
    }
    zsock_destroy (&greedy);
    zsock_destroy (&honest);
    weight_server_free (&server);
}

/* -- a played server ------------------------------------------------------------------------------------------------------------------------ */

enum fault {
    NO_FAULT,
    WRONG_BYTES,
    WRONG_HASH,
    CUT_SHORT,
    TOO_LONG,
    NO_BYTES,
    REFUSES,
    WRONG_ID,
    WRONG_EPOCH,
    SAYS_NOTHING,
    SHORT_HASH,
    NONSENSE,
    ONCE_WRONG, /* the first answer only */
    TWICE,      /* everything is sent twice */
    HANGS_UP,   /* closes its socket once, and is there again */
};

static void bind_router (scene *s, const char *address)
{
    wl_error err = {0};
    char *bound = NULL;
    s->router = wl_link_new (WL_LINK_WEIGHTS_ROUTER, WL_WEIGHTS_ASK_LIMIT, &err);
    for (int64_t deadline = zclock_mono () + SOON_MS; !bound && zclock_mono () < deadline; zclock_sleep (5)) {
        err = (wl_error){0};
        wl_link_bind (s->router, address, NULL, &bound, &err);
    }
    if (!bound)
        fail_msg ("%s", err.text);
    if (s->endpoint) /* bound again, where its peers look for it */
        free (bound);
    else
        s->endpoint = bound;
}

static void play_answer (scene *s, zframe_t *peer, const Woolly__WeightsAsk *asked)
{
    unsigned n = atomic_fetch_add (&s->n_asks, 1);
    int fault = n < s->answers ? NO_FAULT : s->fault;
    wl_error err = {0};
    Woolly__WeightsChunk chunk = WOOLLY__WEIGHTS_CHUNK__INIT;
    uint8_t hash[WL_WEIGHTS_HASH_BYTES];
    size_t length = asked->length;
    uint8_t *copy = malloc (CHUNK + 1);
    memcpy (copy, s->bytes + asked->offset, length);
    wl_weights_hash (copy, length, hash);
    chunk.epoch = asked->epoch + (fault == WRONG_EPOCH);
    chunk.id = asked->id + (fault == WRONG_ID ? 1000 : 0);
    chunk.hash = (ProtobufCBinaryData){.len = fault == SHORT_HASH ? 31 : 32, .data = hash};
    if (fault == WRONG_BYTES || (fault == ONCE_WRONG && n == s->answers))
        copy[length / 2] ^= 1;
    hash[3] ^= fault == WRONG_HASH;
    length = fault == CUT_SHORT ? length - 1 : fault == TOO_LONG ? length + 1 : fault == NO_BYTES ? 0 : length;
    if (fault == REFUSES)
        chunk.refusal = (char *) "not today";
    if (fault == NONSENSE)
        send_nonsense (s->router, peer, hash, 32);
    else if (fault != SAYS_NOTHING)
        wl_weights_send (s->router, peer, &chunk, copy, length, NULL, NULL, &err);
    if (fault == TWICE)
        wl_weights_send (s->router, peer, &chunk, copy, length, NULL, NULL, &err);
    free (copy);
    if (fault == HANGS_UP && n == s->answers) {
        char address[256];
        snprintf (address, sizeof address, "%s", s->endpoint);
        zsock_destroy (&s->router);
        bind_router (s, address);
    }
}

static void *play (void *context)
{
    scene *s = context;
    while (!atomic_load (&s->over)) {
        wl_error err = {0};
        zframe_t *peer = NULL;
        zmq_pollitem_t item = {.socket = zsock_resolve (s->router), .events = ZMQ_POLLIN};
        zmq_poll (&item, 1, 10);
        Woolly__WeightsAsk *asked = wl_weights_receive_ask (s->router, &peer, &err);
        if (asked)
            play_answer (s, peer, asked);
        zframe_destroy (&peer);
        wl_weights_ask_free (&asked);
    }
    zsock_destroy (&s->router);
    return NULL;
}

static void open_played_store (scene *s)
{
    static const uint8_t fingerprint[32] = {5};
    wl_error err = {0};
    Woolly__ModelPart part = WOOLLY__MODEL_PART__INIT, *places[1] = {&part};
    part.file_bytes = FILE_BYTES;
    part.header_bytes = 1000;
    weight_store_close (&s->store);
    s->store = weight_store_open (s->folder, fingerprint, places, 1, false, &quiet, &err);
    if (!s->store)
        fail_msg ("%s", err.text);
}

typedef struct patience {
    int64_t give_up_ms; /* 0: never */
} patience;

static bool on_progress (void *context, Woolly__LoadPhase phase, uint64_t done, uint64_t total)
{
    const patience *p = context;
    assert_int_equal (phase, WOOLLY__LOAD_PHASE__ARRIVING);
    assert_true (done <= total);
    return !p->give_up_ms || zclock_mono () < p->give_up_ms;
}

static const weight_range ranges[] = {
    {0, 0, 1000}, {0, 1000, 2 * CHUNK + 5}, {0, 3 * CHUNK, 100}, {0, 4 * CHUNK, CHUNK}};
enum { N_RANGES = 4, N_CHUNKS = 6, ALL_BYTES = 1000 + 2 * CHUNK + 5 + 100 + CHUNK };

/* Fetches everything from a server that plays this part; gives the error, and what had arrived. */
static wl_error fetch_from (scene *s, unsigned answers, int fault, int give_up_after_ms, uint64_t *shipped)
{
    wl_error err = {0};
    patience p = {give_up_after_ms ? zclock_mono () + give_up_after_ms : 0};
    const load_progress progress = {on_progress, &p};
    char address[96];
    s->answers = answers;
    s->fault = fault;
    atomic_store (&s->n_asks, 0);
    atomic_store (&s->over, false);
    if (!s->store)
        open_played_store (s);
    snprintf (address, sizeof address, "ipc://%s/played-%d", s->folder, fault);
    free (s->endpoint);
    s->endpoint = NULL;
    bind_router (s, address);
    assert_int_equal (pthread_create (&s->thread, NULL, play, s), 0);
    const weight_fetch_options options = {s->endpoint, EPOCH, &progress};
    *shipped = 0;
    bool ok = weight_fetch (s->store, &options, ranges, N_RANGES, shipped, &err);
    assert_true (ok == (err.code == WL_OK));
    atomic_store (&s->over, true);
    pthread_join (s->thread, NULL);
    return err;
}

static void assert_complete (scene *s)
{
    open_played_store (s);
    assert_true (weight_fetch_missing (s->store, ranges, N_RANGES) == 0);
    FILE *file = fopen (weight_store_path (s->store), "rb");
    uint8_t *got = malloc (FILE_BYTES);
    assert_non_null (file);
    assert_int_equal (fread (got, 1, FILE_BYTES, file), FILE_BYTES);
    for (int i = 0; i < N_RANGES; i++)
        assert_memory_equal (got + ranges[i].offset, s->bytes + ranges[i].offset, ranges[i].bytes);
    for (uint64_t at = 3 * CHUNK + 100; at < 4 * CHUNK; at++)
        assert_int_equal (got[at], 0); /* what was not asked for is a hole */
    fclose (file);
    free (got);
}

static void everything_arrives_once (void **state)
{
    scene *s = *state;
    uint64_t shipped;
    wl_error err = fetch_from (s, UINT32_MAX, NO_FAULT, 0, &shipped);
    assert_int_equal (err.code, WL_OK);
    assert_true (shipped == ALL_BYTES);
    assert_int_equal (atomic_load (&s->n_asks), N_CHUNKS);
    assert_complete (s);
    assert_int_equal (fetch_from (s, UINT32_MAX, NO_FAULT, 0, &shipped).code, WL_OK);
    assert_true (shipped == 0 && atomic_load (&s->n_asks) == 0);
}

static void answers_that_are_never_sound_are_an_error_and_what_was_stays (void **state)
{
    scene *s = *state;
    const int faults[] = {WRONG_BYTES, WRONG_HASH, CUT_SHORT, TOO_LONG, NO_BYTES};
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        uint64_t shipped, missing_before;
        open_played_store (s);
        missing_before = weight_fetch_missing (s->store, ranges, N_RANGES);
        wl_error err = fetch_from (s, 1, faults[i], 0, &shipped);
        assert_int_equal (err.code, WL_ERROR_CLUSTER);
        if (!strstr (err.text, "damaged"))
            fail_msg ("fault %d: %s", faults[i], err.text);
        open_played_store (s);
        assert_true (weight_fetch_missing (s->store, ranges, N_RANGES) == missing_before - shipped);
        assert_true (shipped > 0);
    }
    uint64_t shipped;
    assert_int_equal (fetch_from (s, UINT32_MAX, NO_FAULT, 0, &shipped).code, WL_OK);
    assert_complete (s);
}

static void a_refusal_is_an_error_with_its_reason (void **state)
{
    uint64_t shipped;
    wl_error err = fetch_from (*state, 2, REFUSES, 0, &shipped);
    assert_int_equal (err.code, WL_ERROR_CLUSTER);
    assert_non_null (strstr (err.text, "not today"));
}

static void answers_to_nothing_are_passed_over_until_the_load_is_cancelled (void **state)
{
    scene *s = *state;
    const int faults[] = {WRONG_ID, WRONG_EPOCH, SAYS_NOTHING, SHORT_HASH, NONSENSE};
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        uint64_t shipped;
        int64_t began = zclock_mono ();
        wl_error err = fetch_from (s, (unsigned) i, faults[i], 300, &shipped);
        assert_int_equal (err.code, WL_ERROR_CLUSTER);
        assert_non_null (strstr (err.text, "cancelled"));
        assert_true (zclock_mono () - began < SOON_MS);
    }
}

static void one_damaged_answer_is_asked_for_again (void **state)
{
    scene *s = *state;
    uint64_t shipped;
    wl_error err = fetch_from (s, 3, ONCE_WRONG, 0, &shipped);
    assert_int_equal (err.code, WL_OK);
    assert_true (shipped == ALL_BYTES && atomic_load (&s->n_asks) == N_CHUNKS + 1);
    assert_complete (s);
}

static void what_arrives_twice_counts_once (void **state)
{
    scene *s = *state;
    uint64_t shipped;
    wl_error err = fetch_from (s, 0, TWICE, 0, &shipped);
    assert_int_equal (err.code, WL_OK);
    assert_true (shipped == ALL_BYTES);
    assert_complete (s);
}

static void a_connection_that_breaks_is_made_anew_and_the_rest_asked_for_again (void **state)
{
    scene *s = *state;
    uint64_t shipped;
    wl_error err = fetch_from (s, 2, HANGS_UP, SOON_MS, &shipped);
    if (err.code != WL_OK)
        fail_msg ("%s", err.text);
    assert_true (shipped == ALL_BYTES);
    assert_complete (s);
}

#define IN_A_SCENE(test) cmocka_unit_test_setup_teardown (test, make_scene, end_scene)

int main (void)
{
    const struct CMUnitTest tests[] = {
        IN_A_SCENE (a_server_sends_what_it_is_asked_for_and_its_hash),
        IN_A_SCENE (a_server_refuses_what_lies_beyond_the_model_and_ignores_who_does_not_know_the_plan),
        IN_A_SCENE (a_peer_that_takes_nothing_does_not_hold_up_another),
        IN_A_SCENE (everything_arrives_once),
        IN_A_SCENE (answers_that_are_never_sound_are_an_error_and_what_was_stays),
        IN_A_SCENE (a_refusal_is_an_error_with_its_reason),
        IN_A_SCENE (answers_to_nothing_are_passed_over_until_the_load_is_cancelled),
        IN_A_SCENE (one_damaged_answer_is_asked_for_again),
        IN_A_SCENE (what_arrives_twice_counts_once),
        IN_A_SCENE (a_connection_that_breaks_is_made_anew_and_the_rest_asked_for_again),
    };
    return cmocka_run_group_tests_name ("weight_links", tests, start_links, end_links);
}
