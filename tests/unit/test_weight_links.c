/* The weights link from both ends: the real server against workers that ask for nonsense, and the real fetching against a coordinator and workers, played here, that
 * answer with it. Nobody crashes, nothing that was not checked reaches the store, and what has arrived stays. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdatomic.h>

#include "peers.h"
#include "proto/weight_server.h"
#include "worker/weight_fetch.h"
#include "worker/weight_store.h"

enum { SOON_MS = 20000, EPOCH = 77, CHUNK = WL_WEIGHTS_CHUNK_BYTES, FILE_BYTES = 5 * CHUNK + 1234 };

static const model_shape shape = {
    .n_layers = 2, .d_model = 256, .d_ff = 512, .n_heads = 4, .n_kv_heads = 2, .n_vocab = 2000};
static const load_progress quiet = {0};

/* Somebody who sends weights. */
typedef struct player {
    const uint8_t *bytes;
    zsock_t *router;
    char *endpoint; /* NULL: does not play */
    pthread_t thread;
    atomic_bool over;
    atomic_uint n_asks, n_hashes; /* asked for bytes, for hashes */
    unsigned answers;             /* so many are sound; the others as `fault` says */
    int fault;
    wl_weights_range held;      /* of a worker; no bytes: nothing */
    const struct player *after; /* it tells what it has once this one was asked for some; NULL: at once */
} player;

enum { COORDINATOR, WORKER, OTHER_WORKER, N_PLAYERS };

typedef struct scene {
    char folder[64], model[96];
    wl_gguf *gguf;
    weight_store *store;
    uint8_t *bytes;            /* [FILE_BYTES] that are served */
    player players[N_PLAYERS]; /* the coordinator, and workers */
    unsigned n_warnings;
    char warning[512]; /* the last one */
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
    for (int i = 0; i < N_PLAYERS; i++)
        free (s->players[i].endpoint);
    free (s->bytes);
    snprintf (command, sizeof command, "rm -r '%s'", s->folder);
    free (s);
    return system (command);
}

/* -- the real server ---------------------------------------------------------------------------------------------------------------------- */

static wl_weight_server *start_server (scene *s, bool tcp, char endpoint[WL_WEIGHT_ENDPOINT_BYTES])
{
    wl_error err = {0};
    const wl_weight_server_options options = {.folder = tcp ? NULL : s->folder,
                                              .listen = tcp ? "tcp://0.0.0.0:1" : NULL};
    wl_weight_server *server = wl_weight_server_new (&options, &err);
    if (!server || !wl_weight_server_offer_model (server, EPOCH, s->gguf, &err) ||
        !wl_weight_server_endpoint (server, tcp ? "tcp://127.0.0.1:9" : "ipc:///x", endpoint, &err))
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
    char endpoint[WL_WEIGHT_ENDPOINT_BYTES];
    for (int tcp = 0; tcp < 2; tcp++) {
        wl_weight_server *server = start_server (s, tcp, endpoint);
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
        wl_weight_server_free (&server);
    }
}

static void a_server_refuses_what_lies_beyond_the_model_and_ignores_who_does_not_know_the_plan (void **state)
{
    scene *s = *state;
    char endpoint[WL_WEIGHT_ENDPOINT_BYTES];
    wl_weight_server *server = start_server (s, false, endpoint);
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
    wl_weight_server_free (&server);
}

/* A peer that asks for all and takes nothing holds no more than a queue of chunks, and delays nobody. */
static void a_peer_that_takes_nothing_does_not_hold_up_another (void **state)
{
    scene *s = *state;
    char endpoint[WL_WEIGHT_ENDPOINT_BYTES];
    wl_weight_server *server = start_server (s, true, endpoint);
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
    wl_weight_server_free (&server);
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
    ONCE_WRONG,    /* the first answer only */
    TWICE,         /* everything is sent twice */
    HANGS_UP,      /* closes its socket once, and is there again */
    DIES,          /* closes it for good */
    LIES,          /* other bytes, with their hash */
    TELLS_NOTHING, /* of what it has */
    TELLS_NONSENSE,
};

static void bind_router (player *p, const char *address)
{
    wl_error err = {0};
    char *bound = NULL;
    p->router = wl_link_new (WL_LINK_WEIGHTS_ROUTER, WL_WEIGHTS_ASK_LIMIT, &err);
    for (int64_t deadline = zclock_mono () + SOON_MS; !bound && zclock_mono () < deadline; zclock_sleep (5)) {
        err = (wl_error){0};
        wl_link_bind (p->router, address, NULL, &bound, &err);
    }
    if (!bound)
        fail_msg ("%s", err.text);
    if (p->endpoint) /* bound again, where its peers look for it */
        free (bound);
    else
        p->endpoint = bound;
}

static void hang_up (player *p, bool comes_back)
{
    char address[256];
    snprintf (address, sizeof address, "%s", p->endpoint);
    zsock_destroy (&p->router);
    if (comes_back)
        bind_router (p, address);
}

static void play_holdings (player *p, zframe_t *peer, const Woolly__WeightsAsk *asked)
{
    Woolly__WeightsChunk chunk = WOOLLY__WEIGHTS_CHUNK__INIT;
    uint8_t packed[WL_WEIGHTS_RANGE_BYTES], hash[WL_WEIGHTS_HASH_BYTES];
    size_t length = p->held.bytes ? sizeof packed : 0;
    wl_error err = {0};
    if (p->fault == TELLS_NOTHING ||
        (p->after && atomic_load (&p->after->n_asks) < 2 && p->after->fault != TELLS_NONSENSE))
        return;
    wl_weights_holdings_pack (&p->held, length ? 1 : 0, packed);
    if (p->fault == TELLS_NONSENSE)
        length = 7;
    wl_weights_hash (packed, length, hash);
    chunk.epoch = asked->epoch;
    chunk.id = asked->id;
    chunk.hash = (ProtobufCBinaryData){.len = sizeof hash, .data = hash};
    wl_weights_send (p->router, peer, &chunk, packed, length, NULL, NULL, &err);
}

static void play_hash (player *p, zframe_t *peer, const Woolly__WeightsAsk *asked)
{
    Woolly__WeightsChunk chunk = WOOLLY__WEIGHTS_CHUNK__INIT;
    uint8_t hash[WL_WEIGHTS_HASH_BYTES];
    wl_error err = {0};
    atomic_fetch_add (&p->n_hashes, 1);
    wl_weights_hash (p->bytes + asked->offset, asked->length, hash);
    chunk.epoch = asked->epoch;
    chunk.id = asked->id;
    chunk.hash = (ProtobufCBinaryData){.len = sizeof hash, .data = hash};
    wl_weights_send (p->router, peer, &chunk, NULL, 0, NULL, NULL, &err);
}

static void play_answer (player *p, zframe_t *peer, const Woolly__WeightsAsk *asked)
{
    unsigned n = atomic_fetch_add (&p->n_asks, 1);
    int fault = n < p->answers ? NO_FAULT : p->fault;
    wl_error err = {0};
    Woolly__WeightsChunk chunk = WOOLLY__WEIGHTS_CHUNK__INIT;
    uint8_t hash[WL_WEIGHTS_HASH_BYTES];
    size_t length = asked->length;
    uint8_t *copy = malloc (CHUNK + 1);
    memcpy (copy, p->bytes + asked->offset, length);
    if (fault == LIES)
        copy[length / 2] ^= 1;
    wl_weights_hash (copy, length, hash);
    chunk.epoch = asked->epoch + (fault == WRONG_EPOCH);
    chunk.id = asked->id + (fault == WRONG_ID ? 1000 : 0);
    chunk.hash = (ProtobufCBinaryData){.len = fault == SHORT_HASH ? 31 : 32, .data = hash};
    if (fault == WRONG_BYTES || (fault == ONCE_WRONG && n == p->answers))
        copy[length / 2] ^= 1;
    hash[3] ^= fault == WRONG_HASH;
    length = fault == CUT_SHORT ? length - 1 : fault == TOO_LONG ? length + 1 : fault == NO_BYTES ? 0 : length;
    if (fault == REFUSES)
        chunk.refusal = (char *) "not today";
    if (fault == NONSENSE)
        send_nonsense (p->router, peer, hash, 32);
    else if (fault != SAYS_NOTHING)
        wl_weights_send (p->router, peer, &chunk, copy, length, NULL, NULL, &err);
    if (fault == TWICE)
        wl_weights_send (p->router, peer, &chunk, copy, length, NULL, NULL, &err);
    free (copy);
    if ((fault == HANGS_UP || fault == DIES) && n == p->answers)
        hang_up (p, fault == HANGS_UP);
}

static void *play (void *context)
{
    player *p = context;
    while (p->router && !atomic_load (&p->over)) {
        wl_error err = {0};
        zframe_t *peer = NULL;
        zmq_pollitem_t item = {.socket = zsock_resolve (p->router), .events = ZMQ_POLLIN};
        zmq_poll (&item, 1, 10);
        Woolly__WeightsAsk *asked = wl_weights_receive_ask (p->router, &peer, &err);
        if (asked && asked->wanted == WOOLLY__WEIGHTS_WANTED__HOLDINGS)
            play_holdings (p, peer, asked);
        else if (asked && asked->wanted == WOOLLY__WEIGHTS_WANTED__HASH)
            play_hash (p, peer, asked);
        else if (asked)
            play_answer (p, peer, asked);
        zframe_destroy (&peer);
        wl_weights_ask_free (&asked);
    }
    zsock_destroy (&p->router);
    return NULL;
}

/* Has somebody play: so many sound answers, and then this fault. */
static void start_player (scene *s, int which, unsigned answers, int fault, wl_weights_range held)
{
    player *p = &s->players[which];
    char address[96];
    p->bytes = s->bytes;
    p->answers = answers;
    p->fault = fault;
    p->held = held;
    atomic_store (&p->n_asks, 0);
    atomic_store (&p->n_hashes, 0);
    atomic_store (&p->over, false);
    snprintf (address, sizeof address, "ipc://%s/played-%d-%d", s->folder, which, fault);
    bind_router (p, address);
    assert_int_equal (pthread_create (&p->thread, NULL, play, p), 0);
}

static void end_players (scene *s)
{
    for (int i = 0; i < N_PLAYERS; i++) {
        player *p = &s->players[i];
        if (!p->endpoint)
            continue;
        atomic_store (&p->over, true);
        pthread_join (p->thread, NULL);
        free (p->endpoint);
        p->endpoint = NULL;
    }
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

typedef struct watch {
    scene *scene;
    int64_t give_up_ms; /* 0: never */
} watch;

static bool on_progress (void *context, const load_state *state)
{
    const watch *w = context;
    assert_int_equal (state->phase, WOOLLY__LOAD_PHASE__ARRIVING);
    assert_true (state->done_bytes <= state->total_bytes && state->from_workers_bytes <= state->done_bytes);
    return !w->give_up_ms || zclock_mono () < w->give_up_ms;
}

static void on_warning (void *context, const char *text)
{
    const watch *w = context;
    w->scene->n_warnings++;
    snprintf (w->scene->warning, sizeof w->scene->warning, "%s", text);
}

static const wl_weights_range nothing = {0}, everything = {.bytes = FILE_BYTES};
static const wl_weights_range ranges[] = {
    {0, 0, 1000}, {0, 1000, 2 * CHUNK + 5}, {0, 3 * CHUNK, 100}, {0, 4 * CHUNK, CHUNK}};
enum { N_RANGES = 4, N_CHUNKS = 6, ALL_BYTES = 1000 + 2 * CHUNK + 5 + 100 + CHUNK };

/* Fetches everything from those who play, and ends them; gives the error, and what had arrived. */
static wl_error fetch (scene *s, int give_up_after_ms, weight_shipped *shipped)
{
    wl_error err = {0};
    watch w = {s, give_up_after_ms ? zclock_mono () + give_up_after_ms : 0};
    const load_progress progress = {on_progress, &w, on_warning};
    const char *peers[N_PLAYERS];
    weight_fetch_options options = {.endpoint = s->players[COORDINATOR].endpoint,
                                    .peers = peers,
                                    .epoch = EPOCH,
                                    .progress = &progress,
                                    .stall_ms = 300};
    for (int i = WORKER; i < N_PLAYERS; i++)
        if (s->players[i].endpoint)
            peers[options.n_peers++] = s->players[i].endpoint;
    if (!s->store)
        open_played_store (s);
    s->n_warnings = 0;
    *shipped = (weight_shipped){0};
    bool ok = weight_fetch (s->store, &options, ranges, N_RANGES, shipped, &err);
    assert_true (ok == (err.code == WL_OK));
    end_players (s);
    return err;
}

/* All from a coordinator that plays this part. */
static wl_error fetch_from (scene *s, unsigned answers, int fault, int give_up_after_ms, uint64_t *shipped)
{
    weight_shipped counts;
    start_player (s, COORDINATOR, answers, fault, nothing);
    wl_error err = fetch (s, give_up_after_ms, &counts);
    assert_true (counts.from_workers_bytes == 0 && s->n_warnings == 0);
    *shipped = counts.bytes;
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
    assert_int_equal (atomic_load (&s->players[COORDINATOR].n_asks), N_CHUNKS);
    assert_complete (s);
    assert_int_equal (fetch_from (s, UINT32_MAX, NO_FAULT, 0, &shipped).code, WL_OK);
    assert_true (shipped == 0 && atomic_load (&s->players[COORDINATOR].n_asks) == 0);
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
    assert_true (shipped == ALL_BYTES && atomic_load (&s->players[COORDINATOR].n_asks) == N_CHUNKS + 1);
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

/* -- played workers -------------------------------------------------------------------------------------------------------------------------- */

static void what_workers_have_comes_from_them_and_its_hashes_from_the_coordinator (void **state)
{
    scene *s = *state;
    weight_shipped shipped;
    start_player (s, COORDINATOR, UINT32_MAX, NO_FAULT, nothing);
    start_player (s, WORKER, UINT32_MAX, NO_FAULT, everything);
    start_player (s, OTHER_WORKER, UINT32_MAX, NO_FAULT, everything);
    wl_error err = fetch (s, SOON_MS, &shipped);
    if (err.code != WL_OK)
        fail_msg ("%s", err.text);
    assert_true (shipped.bytes == ALL_BYTES && shipped.from_workers_bytes == ALL_BYTES && s->n_warnings == 0);
    assert_int_equal (atomic_load (&s->players[COORDINATOR].n_asks), 0);
    assert_int_equal (atomic_load (&s->players[COORDINATOR].n_hashes), N_CHUNKS);
    assert_int_equal (atomic_load (&s->players[WORKER].n_asks) + atomic_load (&s->players[OTHER_WORKER].n_asks),
                      N_CHUNKS);
    assert_complete (s);
}

static void what_no_worker_has_comes_from_the_coordinator (void **state)
{
    scene *s = *state;
    weight_shipped shipped;
    start_player (s, COORDINATOR, UINT32_MAX, NO_FAULT, nothing);
    start_player (s, WORKER, UINT32_MAX, NO_FAULT, nothing);
    start_player (s, OTHER_WORKER, UINT32_MAX, NO_FAULT, (wl_weights_range){.offset = 3 * CHUNK, .bytes = 2 * CHUNK});
    wl_error err = fetch (s, SOON_MS, &shipped);
    if (err.code != WL_OK)
        fail_msg ("%s", err.text);
    assert_true (shipped.bytes == ALL_BYTES && shipped.from_workers_bytes == 100 + CHUNK && s->n_warnings == 0);
    assert_int_equal (atomic_load (&s->players[WORKER].n_asks), 0);
    assert_int_equal (atomic_load (&s->players[COORDINATOR].n_asks), N_CHUNKS - 2);
    assert_complete (s);
}

/* Whatever goes wrong with one worker in the middle, the others send what it did not, and nothing of it that was wrong is kept. */
static void a_worker_that_fails_is_dropped_for_the_others_with_a_warning (void **state)
{
    scene *s = *state;
    const struct {
        int fault;
        const char *reason;
    } cases[] = {{DIES, "closed"},           {SAYS_NOTHING, "stopped"},  {WRONG_BYTES, "other bytes"},
                 {LIES, "other bytes"},      {CUT_SHORT, "other bytes"}, {TOO_LONG, ""},
                 {REFUSES, "not today"},     {NONSENSE, "stopped"},      {WRONG_ID, "stopped"},
                 {TELLS_NONSENSE, "no list"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (int other = 0; other < 2; other++) {
            weight_shipped shipped;
            char command[160];
            weight_store_close (&s->store);
            snprintf (command, sizeof command, "rm -rf '%s/weights'", s->folder);
            assert_int_equal (system (command), 0);
            start_player (s, COORDINATOR, UINT32_MAX, NO_FAULT, nothing);
            start_player (s, WORKER, 1, cases[i].fault, everything);
            s->players[OTHER_WORKER].after = &s->players[WORKER];
            if (other)
                start_player (s, OTHER_WORKER, UINT32_MAX, NO_FAULT, everything);
            wl_error err = fetch (s, SOON_MS, &shipped);
            if (err.code != WL_OK)
                fail_msg ("fault %d: %s", cases[i].fault, err.text);
            if (s->n_warnings != 1 || !strstr (s->warning, cases[i].reason))
                fail_msg ("fault %d: %u warnings, the last: %s", cases[i].fault, s->n_warnings, s->warning);
            assert_true (shipped.bytes == ALL_BYTES && (shipped.from_workers_bytes == ALL_BYTES) == other);
            assert_complete (s);
        }
}

static void a_worker_that_does_not_tell_what_it_has_is_not_waited_for_long (void **state)
{
    scene *s = *state;
    weight_shipped shipped;
    int64_t began = zclock_mono ();
    start_player (s, COORDINATOR, UINT32_MAX, NO_FAULT, nothing);
    start_player (s, WORKER, UINT32_MAX, TELLS_NOTHING, everything);
    wl_error err = fetch (s, SOON_MS, &shipped);
    if (err.code != WL_OK)
        fail_msg ("%s", err.text);
    assert_true (shipped.bytes == ALL_BYTES && shipped.from_workers_bytes == 0);
    assert_true (zclock_mono () - began < SOON_MS / 2);
    assert_complete (s);
}

static void a_coordinator_that_hangs_up_on_hashes_is_asked_for_them_again (void **state)
{
    scene *s = *state;
    weight_shipped shipped;
    start_player (s, COORDINATOR, 1, HANGS_UP, nothing);
    start_player (s, WORKER, UINT32_MAX, NO_FAULT, (wl_weights_range){.offset = 1000, .bytes = 2 * CHUNK + 5});
    wl_error err = fetch (s, SOON_MS, &shipped);
    if (err.code != WL_OK)
        fail_msg ("%s", err.text);
    assert_true (shipped.bytes == ALL_BYTES && shipped.from_workers_bytes == 2 * CHUNK + 5);
    assert_complete (s);
}

/* -- what a worker's server offers ----------------------------------------------------------------------------------------------------------- */

static bool read_nothing_but_threes (void *context, uint32_t part, uint64_t offset, uint32_t length, uint8_t *out)
{
    (void) part;
    (void) offset;
    memset (out, 3, length);
    return atomic_load ((atomic_bool *) context);
}

static void a_server_tells_what_it_has_and_refuses_the_rest_until_it_is_withdrawn (void **state)
{
    scene *s = *state;
    char endpoint[WL_WEIGHT_ENDPOINT_BYTES];
    wl_error err = {0};
    wl_weights_chunk chunk = {0};
    atomic_bool can_read = true;
    const wl_weights_range held[] = {{0, 10, 90}, {0, 200, 50}, {2, 0, 7}};
    const wl_weight_offer offer = {EPOCH, held, 3, read_nothing_but_threes, &can_read};
    wl_weight_server *server = start_server (s, true, endpoint);
    zsock_t *link = connect_to (endpoint);
    if (!wl_weight_server_offer (server, &offer, &err))
        fail_msg ("%s", err.text);
    Woolly__WeightsAsk tell = WOOLLY__WEIGHTS_ASK__INIT;
    tell.epoch = EPOCH;
    tell.id = 1;
    tell.wanted = WOOLLY__WEIGHTS_WANTED__HOLDINGS;
    assert_true (wl_weights_ask (link, &tell, &err));
    await_chunk (link, &chunk, 1);
    size_t n = 0;
    wl_weights_range *told = wl_weights_holdings_unpack (chunk.bytes, chunk.length, &n, &err);
    assert_true (told && n == 3);
    for (size_t i = 0; told && i < n; i++)
        assert_true (told[i].part == held[i].part && told[i].offset == held[i].offset &&
                     told[i].bytes == held[i].bytes);
    free (told);
    wl_weights_chunk_free (&chunk);
    ask (link, EPOCH, 2, 0, 10, 90);
    await_chunk (link, &chunk, 2);
    assert_true (chunk.length == 90 && chunk.bytes[0] == 3 && chunk.bytes[89] == 3);
    wl_weights_chunk_free (&chunk);
    const struct {
        uint32_t part;
        uint64_t offset;
        uint32_t length;
    } not_there[] = {{0, 9, 2}, {0, 10, 91}, {0, 100, 1}, {0, 199, 51}, {1, 0, 1}, {2, 7, 1}, {3, 0, 1}};
    for (uint64_t i = 0; i < sizeof not_there / sizeof not_there[0]; i++) {
        ask (link, EPOCH, 10 + i, not_there[i].part, not_there[i].offset, not_there[i].length);
        await_chunk (link, &chunk, 10 + i);
        assert_true (chunk.header->refusal[0] && chunk.length == 0);
        wl_weights_chunk_free (&chunk);
    }
    can_read = false;
    ask (link, EPOCH, 20, 2, 0, 7);
    await_chunk (link, &chunk, 20);
    assert_non_null (strstr (chunk.header->refusal, "cannot be read"));
    wl_weights_chunk_free (&chunk);
    wl_weight_server_withdraw (server);
    ask (link, EPOCH, 21, 2, 0, 7);
    assert_false (wl_weights_receive_chunk (link, 100, &chunk, &err));
    zsock_destroy (&link);
    wl_weight_server_free (&server);
}

static void holdings_that_are_no_ranges_are_refused (void **state)
{
    (void) state;
    const wl_weights_range cases[][2] = {{{0, 5, 0}, {1, 0, 1}},
                                         {{1, 0, 1}, {0, 0, 1}},
                                         {{0, 0, 10}, {0, 9, 1}},
                                         {{0, UINT64_MAX, 1}, {1, 0, 1}},
                                         {{0, 5, 5}, {0, 5, 5}}};
    const wl_weights_range sound[2] = {{0, 0, 10}, {0, 10, 1}};
    uint8_t packed[2 * WL_WEIGHTS_RANGE_BYTES];
    size_t n;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        wl_error err = {0};
        wl_weights_holdings_pack (cases[i], 2, packed);
        assert_null (wl_weights_holdings_unpack (packed, sizeof packed, &n, &err));
        assert_int_equal (err.code, WL_ERROR_CLUSTER);
    }
    wl_error err = {0};
    wl_weights_holdings_pack (sound, 2, packed);
    assert_null (wl_weights_holdings_unpack (packed, sizeof packed - 1, &n, &err));
    wl_weights_range *ranges_back = wl_weights_holdings_unpack (packed, sizeof packed, &n, &err);
    assert_true (ranges_back && n == 2);
    assert_true (wl_weights_hold (ranges_back, n, 0, 10, 1) && !wl_weights_hold (ranges_back, n, 0, 11, 1));
    free (ranges_back);
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
        IN_A_SCENE (what_workers_have_comes_from_them_and_its_hashes_from_the_coordinator),
        IN_A_SCENE (what_no_worker_has_comes_from_the_coordinator),
        IN_A_SCENE (a_worker_that_fails_is_dropped_for_the_others_with_a_warning),
        IN_A_SCENE (a_worker_that_does_not_tell_what_it_has_is_not_waited_for_long),
        IN_A_SCENE (a_coordinator_that_hangs_up_on_hashes_is_asked_for_them_again),
        IN_A_SCENE (a_server_tells_what_it_has_and_refuses_the_rest_until_it_is_withdrawn),
        cmocka_unit_test (holdings_that_are_no_ranges_are_refused),
    };
    return cmocka_run_group_tests_name ("weight_links", tests, start_links, end_links);
}
