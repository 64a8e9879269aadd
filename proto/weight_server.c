/* Ships weights; see weight_server.h.
 *
 * A chunk is read into memory of its own, hashed while it is in the processor's cache, and given to ZeroMQ without a copy. A mapped model's pages are let go every few
 * chunks: the system keeps the file cached, this process holds none of it. An answer that a worker's queue has no room for is dropped: the worker
 * has asked for more than it may, or will ask again. */
#include "weight_server.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "engine/memory.h"

enum { LOCAL, REMOTE, N_ROUTERS, ASKS_A_TURN = 16, CHUNKS_A_DROP = 8 };

struct wl_weight_server {
    char *endpoints[N_ROUTERS];
    int wake[2]; /* signalled to end the thread */
    pthread_t thread;
    bool runs;

    pthread_mutex_t mutex; /* guards the offer; held while one answer is made */
    bool offers;
    wl_weight_offer offer;
    wl_weights_range *ranges; /* the offer's */
    const wl_gguf *gguf;      /* what offer_model offers */
    uint32_t n_mapped;        /* chunks read of it since its pages were let go */

    /* the thread's own once it runs */
    zsock_t *routers[N_ROUTERS]; /* NULL: not wanted */
};

/* -- the thread -------------------------------------------------------------------------------------------------------------------------- */

static void chunk_release (void *bytes, void *context)
{
    (void) context;
    free (bytes);
}

static void refuse (zsock_t *router, zframe_t *peer, Woolly__WeightsChunk *chunk, const char *reason)
{
    wl_error unsent = {0};
    chunk->refusal = (char *) reason;
    wl_weights_send (router, peer, chunk, NULL, 0, NULL, NULL, &unsent);
}

/* Sends these bytes, which are taken over, or the hash of them alone. */
static void send_bytes (zsock_t *router, zframe_t *peer, const Woolly__WeightsChunk *header, uint8_t *bytes,
                        size_t length, bool hash_alone)
{
    uint8_t hash[WL_WEIGHTS_HASH_BYTES];
    wl_error unsent = {0};
    Woolly__WeightsChunk chunk = *header;
    wl_weights_hash (bytes, length, hash);
    chunk.hash = (ProtobufCBinaryData){.len = sizeof hash, .data = hash};
    if (hash_alone) {
        free (bytes);
        wl_weights_send (router, peer, &chunk, NULL, 0, NULL, NULL, &unsent);
    } else {
        wl_weights_send (router, peer, &chunk, bytes, length, chunk_release, NULL, &unsent);
    }
}

static void send_holdings (const wl_weight_server *s, zsock_t *router, zframe_t *peer,
                           const Woolly__WeightsChunk *chunk)
{
    size_t n = s->offer.n_ranges < WL_WEIGHTS_MAX_HELD ? s->offer.n_ranges : WL_WEIGHTS_MAX_HELD;
    uint8_t *packed = wl_new (n + 1, WL_WEIGHTS_RANGE_BYTES, NULL);
    if (!packed)
        return; /* it will be asked for again */
    wl_weights_holdings_pack (s->ranges, n, packed);
    send_bytes (router, peer, chunk, packed, n * WL_WEIGHTS_RANGE_BYTES, false);
}

/* Under the mutex. */
static void answer (wl_weight_server *s, zsock_t *router, zframe_t *peer, const Woolly__WeightsAsk *ask)
{
    Woolly__WeightsChunk chunk = WOOLLY__WEIGHTS_CHUNK__INIT;
    if (!s->offers || ask->epoch != s->offer.epoch)
        return;
    chunk.epoch = ask->epoch;
    chunk.id = ask->id;
    if (ask->wanted == WOOLLY__WEIGHTS_WANTED__HOLDINGS) {
        send_holdings (s, router, peer, &chunk);
        return;
    }
    if (!wl_weights_hold (s->ranges, s->offer.n_ranges, ask->part, ask->offset, ask->length)) {
        refuse (router, peer, &chunk, "the bytes that were asked for are not there");
        return;
    }
    uint8_t *bytes = wl_new (ask->length, 1, NULL);
    if (bytes && s->offer.read (s->offer.context, ask->part, ask->offset, ask->length, bytes)) {
        send_bytes (router, peer, &chunk, bytes, ask->length, ask->wanted == WOOLLY__WEIGHTS_WANTED__HASH);
        return;
    }
    refuse (router, peer, &chunk, bytes ? "its file cannot be read" : "it is out of memory");
    free (bytes);
}

static void take_asks (wl_weight_server *s, zsock_t *router)
{
    for (int i = 0; i < ASKS_A_TURN; i++) {
        wl_error err = {0};
        zframe_t *peer = NULL;
        Woolly__WeightsAsk *ask = wl_weights_receive_ask (router, &peer, &err);
        if (!ask && err.code == WL_OK)
            return;
        if (ask) {
            pthread_mutex_lock (&s->mutex);
            answer (s, router, peer, ask);
            pthread_mutex_unlock (&s->mutex);
        }
        zframe_destroy (&peer);
        wl_weights_ask_free (&ask);
    }
}

static void *run (void *context)
{
    wl_weight_server *s = context;
    for (;;) {
        zmq_pollitem_t items[1 + N_ROUTERS] = {{.fd = s->wake[0], .events = ZMQ_POLLIN}};
        int n = 1;
        for (int i = 0; i < N_ROUTERS; i++)
            if (s->routers[i])
                items[n++] = (zmq_pollitem_t){.socket = zsock_resolve (s->routers[i]), .events = ZMQ_POLLIN};
        if ((zmq_poll (items, n, -1) < 0 && errno != EINTR) || items[0].revents)
            break;
        for (int i = 0; i < N_ROUTERS; i++)
            if (s->routers[i])
                take_asks (s, s->routers[i]);
    }
    for (int i = 0; i < N_ROUTERS; i++)
        zsock_destroy (&s->routers[i]);
    return NULL;
}

/* -- what is offered ---------------------------------------------------------------------------------------------------------------------- */

/* Under the mutex. */
static void clear_offer (wl_weight_server *s)
{
    if (s->gguf)
        wl_gguf_drop_pages (s->gguf);
    free (s->ranges);
    s->ranges = NULL;
    s->gguf = NULL;
    s->offers = false;
}

static bool replace_offer (wl_weight_server *s, const wl_weight_offer *offer, const wl_gguf *gguf, wl_error *err)
{
    wl_weights_range *copy = wl_new (offer->n_ranges + 1, sizeof *copy, err);
    if (!copy)
        return false;
    if (offer->n_ranges)
        memcpy (copy, offer->ranges, offer->n_ranges * sizeof *copy);
    pthread_mutex_lock (&s->mutex);
    clear_offer (s);
    s->offer = *offer;
    s->offer.ranges = s->ranges = copy;
    s->gguf = gguf;
    s->n_mapped = 0;
    s->offers = true;
    pthread_mutex_unlock (&s->mutex);
    return true;
}

bool wl_weight_server_offer (wl_weight_server *s, const wl_weight_offer *offer, wl_error *err)
{
    return replace_offer (s, offer, NULL, err);
}

static bool read_model (void *context, uint32_t part, uint64_t offset, uint32_t length, uint8_t *out)
{
    wl_weight_server *s = context;
    memcpy (out, wl_gguf_part_at (s->gguf, part).bytes + offset, length);
    if (++s->n_mapped >= CHUNKS_A_DROP) {
        wl_gguf_drop_pages (s->gguf);
        s->n_mapped = 0;
    }
    return true;
}

bool wl_weight_server_offer_model (wl_weight_server *s, uint64_t epoch, const wl_gguf *gguf, wl_error *err)
{
    size_t n = wl_gguf_n_parts (gguf);
    wl_weights_range *whole = wl_new (n, sizeof *whole, err);
    for (size_t i = 0; whole && i < n; i++)
        whole[i] = (wl_weights_range){.part = (uint32_t) i, .bytes = wl_gguf_part_at (gguf, i).file_bytes};
    const wl_weight_offer offer = {epoch, whole, n, read_model, s};
    bool ok = whole && replace_offer (s, &offer, gguf, err);
    free (whole);
    return ok;
}

void wl_weight_server_withdraw (wl_weight_server *s)
{
    pthread_mutex_lock (&s->mutex);
    clear_offer (s);
    pthread_mutex_unlock (&s->mutex);
}

/* -- for the owner ------------------------------------------------------------------------------------------------------------------------ */

static bool open_router (wl_weight_server *s, int which, const char *address, wl_error *err)
{
    s->routers[which] = wl_link_new (WL_LINK_WEIGHTS_ROUTER, WL_WEIGHTS_ASK_LIMIT, err);
    return s->routers[which] && wl_link_bind (s->routers[which], address, NULL, &s->endpoints[which], err);
}

static void write_tcp (char endpoint[WL_WEIGHT_ENDPOINT_BYTES], const char *host, const char *port)
{
    bool brackets = strchr (host, ':');
    snprintf (endpoint, WL_WEIGHT_ENDPOINT_BYTES, "tcp://%s%s%s:%s", brackets ? "[" : "", host, brackets ? "]" : "",
              port);
}

static bool open_routers (wl_weight_server *s, const wl_weight_server_options *options, wl_error *err)
{
    char address[WL_WEIGHT_ENDPOINT_BYTES], host[WL_HOST_BYTES];
    bool loopback, wildcard;
    if (options->folder) {
        snprintf (address, sizeof address, "ipc://%s/weights", options->folder);
        if (!open_router (s, LOCAL, address, err))
            return false;
    }
    if (!options->listen)
        return true;
    if (!wl_link_host (options->listen, host, &loopback, &wildcard))
        return wl_fail (err, WL_ERROR_INTERNAL, "%s: no tcp endpoint", options->listen);
    write_tcp (address, host, "*");
    return open_router (s, REMOTE, address, err);
}

wl_weight_server *wl_weight_server_new (const wl_weight_server_options *options, wl_error *err)
{
    sigset_t all, before;
    wl_weight_server *s = wl_new (1, sizeof *s, err);
    if (!s)
        return NULL;
    s->wake[0] = s->wake[1] = -1;
    pthread_mutex_init (&s->mutex, NULL);
    if (wl_wake_open (s->wake, err) && open_routers (s, options, err)) {
        sigfillset (&all); /* signals are for other threads */
        pthread_sigmask (SIG_BLOCK, &all, &before);
        int rc = pthread_create (&s->thread, NULL, run, s);
        pthread_sigmask (SIG_SETMASK, &before, NULL);
        s->runs = rc == 0;
        if (rc != 0)
            wl_fail (err, WL_ERROR_INTERNAL, "a thread could not be started: %s", strerror (rc));
    }
    if (!s->runs)
        wl_weight_server_free (&s);
    return s;
}

void wl_weight_server_free (wl_weight_server **server)
{
    wl_weight_server *s = *server;
    if (!s)
        return;
    if (s->runs) {
        wl_wake_signal (s->wake[1]);
        pthread_join (s->thread, NULL);
    }
    for (int i = 0; i < N_ROUTERS; i++) {
        zsock_destroy (&s->routers[i]);
        free (s->endpoints[i]);
    }
    wl_wake_close (s->wake);
    clear_offer (s);
    pthread_mutex_destroy (&s->mutex);
    free (s);
    *server = NULL;
}

bool wl_weight_server_endpoint (const wl_weight_server *s, const char *data_endpoint,
                                char endpoint[WL_WEIGHT_ENDPOINT_BYTES], wl_error *err)
{
    char host[WL_HOST_BYTES];
    bool loopback, wildcard;
    int which = s->endpoints[LOCAL] && strncmp (data_endpoint, "ipc://", 6) == 0 ? LOCAL : REMOTE;
    const char *bound = s->endpoints[which];
    if (!bound)
        return wl_fail (err, WL_ERROR_INTERNAL, "%s: a worker on no link of weights", data_endpoint);
    snprintf (endpoint, WL_WEIGHT_ENDPOINT_BYTES, "%s", bound);
    if (!wl_link_host (bound, host, &loopback, &wildcard) || !wildcard)
        return true;
    /* bound to all addresses: the one that reaches this worker */
    if (!wl_link_local_host (data_endpoint, host, &loopback, err))
        return false;
    write_tcp (endpoint, host, strrchr (bound, ':') + 1);
    return true;
}
