/* Ships weights; see weight_server.h.
 *
 * A chunk is hashed where it is mapped and then copied into its message, while it is in the processor's cache. The mapping's pages are let go every few
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

struct weight_server {
    weight_server_options options;
    char *endpoints[N_ROUTERS];
    int wake[2]; /* signalled to end the thread */
    pthread_t thread;
    bool runs;
    /* the thread's own once it runs */
    zsock_t *routers[N_ROUTERS]; /* NULL: not wanted */
    uint32_t n_mapped;           /* chunks read since the pages were let go */
};

/* -- the thread -------------------------------------------------------------------------------------------------------------------------- */

static void refuse (weight_server *s, zsock_t *router, zframe_t *peer, Woolly__WeightsChunk *chunk, const char *reason)
{
    wl_error unsent = {0};
    (void) s;
    chunk->refusal = (char *) reason;
    wl_weights_send (router, peer, chunk, NULL, 0, NULL, NULL, &unsent);
}

static void answer (weight_server *s, zsock_t *router, zframe_t *peer, const Woolly__WeightsAsk *ask)
{
    Woolly__WeightsChunk chunk = WOOLLY__WEIGHTS_CHUNK__INIT;
    uint8_t hash[WL_WEIGHTS_HASH_BYTES];
    wl_error unsent = {0};
    if (ask->epoch != s->options.epoch)
        return;
    chunk.epoch = ask->epoch;
    chunk.id = ask->id;
    if (ask->part >= wl_gguf_n_parts (s->options.gguf)) {
        refuse (s, router, peer, &chunk, "the model has no such file");
        return;
    }
    wl_gguf_part part = wl_gguf_part_at (s->options.gguf, ask->part);
    if (ask->length > part.file_bytes || ask->offset > part.file_bytes - ask->length) {
        refuse (s, router, peer, &chunk, "the bytes that were asked for lie beyond the model's file");
        return;
    }
    const uint8_t *bytes = part.bytes + ask->offset;
    wl_weights_hash (bytes, ask->length, hash);
    chunk.hash = (ProtobufCBinaryData){.len = sizeof hash, .data = hash};
    wl_weights_send (router, peer, &chunk, (void *) bytes, ask->length, NULL, NULL, &unsent);
    if (++s->n_mapped >= CHUNKS_A_DROP) {
        wl_gguf_drop_pages (s->options.gguf);
        s->n_mapped = 0;
    }
}

static void take_asks (weight_server *s, zsock_t *router)
{
    for (int i = 0; i < ASKS_A_TURN; i++) {
        wl_error err = {0};
        zframe_t *peer = NULL;
        Woolly__WeightsAsk *ask = wl_weights_receive_ask (router, &peer, &err);
        if (!ask && err.code == WL_OK)
            return;
        if (ask)
            answer (s, router, peer, ask);
        zframe_destroy (&peer);
        wl_weights_ask_free (&ask);
    }
}

static void *run (void *context)
{
    weight_server *s = context;
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
    wl_gguf_drop_pages (s->options.gguf);
    return NULL;
}

/* -- for the owner ------------------------------------------------------------------------------------------------------------------------ */

static bool open_router (weight_server *s, int which, const char *address, wl_error *err)
{
    s->routers[which] = wl_link_new (WL_LINK_WEIGHTS_ROUTER, WL_WEIGHTS_ASK_LIMIT, err);
    return s->routers[which] && wl_link_bind (s->routers[which], address, NULL, &s->endpoints[which], err);
}

static void write_tcp (char endpoint[WEIGHT_ENDPOINT_BYTES], const char *host, const char *port)
{
    bool brackets = strchr (host, ':');
    snprintf (endpoint, WEIGHT_ENDPOINT_BYTES, "tcp://%s%s%s:%s", brackets ? "[" : "", host, brackets ? "]" : "", port);
}

static bool open_routers (weight_server *s, wl_error *err)
{
    char address[WEIGHT_ENDPOINT_BYTES], host[WL_HOST_BYTES];
    bool loopback, wildcard;
    if (s->options.folder) {
        snprintf (address, sizeof address, "ipc://%s/weights", s->options.folder);
        if (!open_router (s, LOCAL, address, err))
            return false;
    }
    if (!s->options.listen)
        return true;
    if (!wl_link_host (s->options.listen, host, &loopback, &wildcard))
        return wl_fail (err, WL_ERROR_INTERNAL, "%s: no tcp endpoint", s->options.listen);
    write_tcp (address, host, "*");
    return open_router (s, REMOTE, address, err);
}

weight_server *weight_server_new (const weight_server_options *options, wl_error *err)
{
    sigset_t all, before;
    weight_server *s = wl_new (1, sizeof *s, err);
    if (!s)
        return NULL;
    s->options = *options;
    s->wake[0] = s->wake[1] = -1;
    if (wl_wake_open (s->wake, err) && open_routers (s, err)) {
        sigfillset (&all); /* signals are for other threads */
        pthread_sigmask (SIG_BLOCK, &all, &before);
        int rc = pthread_create (&s->thread, NULL, run, s);
        pthread_sigmask (SIG_SETMASK, &before, NULL);
        s->runs = rc == 0;
        if (rc != 0)
            wl_fail (err, WL_ERROR_INTERNAL, "a thread could not be started: %s", strerror (rc));
    }
    if (!s->runs)
        weight_server_free (&s);
    return s;
}

void weight_server_free (weight_server **server)
{
    weight_server *s = *server;
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
    free (s);
    *server = NULL;
}

bool weight_server_endpoint (const weight_server *s, const char *data_endpoint, char endpoint[WEIGHT_ENDPOINT_BYTES],
                             wl_error *err)
{
    char host[WL_HOST_BYTES];
    bool loopback, wildcard;
    int which = s->endpoints[LOCAL] && strncmp (data_endpoint, "ipc://", 6) == 0 ? LOCAL : REMOTE;
    const char *bound = s->endpoints[which];
    if (!bound)
        return wl_fail (err, WL_ERROR_INTERNAL, "%s: a worker on no link of weights", data_endpoint);
    snprintf (endpoint, WEIGHT_ENDPOINT_BYTES, "%s", bound);
    if (!wl_link_host (bound, host, &loopback, &wildcard) || !wildcard)
        return true;
    /* bound to all addresses: the one that reaches this worker */
    if (!wl_link_local_host (data_endpoint, host, &loopback, err))
        return false;
    write_tcp (endpoint, host, strrchr (bound, ':') + 1);
    return true;
}
