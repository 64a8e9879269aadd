/* Getting weights from the coordinator; see weight_fetch.h. */
#include "weight_fetch.h"

#include <errno.h>
#include <sodium.h>
#include <string.h>

#include "engine/memory.h"

enum {
    TURN_MS = 50,         /* how soon a cancelled load is noticed */
    SILENCE_MS = 30000,   /* then the connection is made anew */
    PATIENCE_MS = 120000, /* then it is given up */
    MAX_DAMAGED = 16,     /* chunks in a row that arrive with another hash */
    CHUNKS_A_REPORT = 4,
};

typedef struct asked_chunk {
    uint64_t id; /* 0: free */
    uint64_t offset;
    uint32_t part, length;
    bool unsent; /* the socket had no room for the asking */
} asked_chunk;

typedef struct fetch {
    weight_store *store;
    const weight_fetch_options *options;
    const weight_range *ranges;
    size_t n_ranges;
    zsock_t *link, *monitor; /* the latter tells when the connection breaks */
    size_t range;            /* the next chunk to ask for: of this range, this far into it */
    uint64_t at;
    asked_chunk window[WL_WEIGHTS_WINDOW];
    uint32_t n_asked, n_damaged;
    uint64_t last_id, done, total;
    int64_t heard_ms, connected_ms;
} fetch;

/* -- which chunks ---------------------------------------------------------------------------------------------------------------------- */

static uint32_t chunk_length (const weight_range *range, uint64_t at)
{
    uint64_t left = range->bytes - at;
    return left < WL_WEIGHTS_CHUNK_BYTES ? (uint32_t) left : WL_WEIGHTS_CHUNK_BYTES;
}

uint64_t weight_fetch_missing (const weight_store *store, const weight_range *ranges, size_t n_ranges)
{
    uint64_t missing = 0;
    for (size_t i = 0; i < n_ranges; i++)
        for (uint64_t at = 0; at < ranges[i].bytes; at += WL_WEIGHTS_CHUNK_BYTES) {
            uint32_t length = chunk_length (&ranges[i], at);
            if (!weight_store_has (store, ranges[i].part, ranges[i].offset + at, length))
                missing += length;
        }
    return missing;
}

/* Steps to the next chunk that is not in the store; false when there is none. */
static bool next_missing (fetch *f, asked_chunk *chunk)
{
    while (f->range < f->n_ranges) {
        const weight_range *range = &f->ranges[f->range];
        if (f->at >= range->bytes) {
            f->range++;
            f->at = 0;
            continue;
        }
        *chunk =
            (asked_chunk){.part = range->part, .offset = range->offset + f->at, .length = chunk_length (range, f->at)};
        f->at += WL_WEIGHTS_CHUNK_BYTES;
        if (!weight_store_has (f->store, chunk->part, chunk->offset, chunk->length))
            return true;
    }
    return false;
}

/* -- asking ------------------------------------------------------------------------------------------------------------------------------ */

/* A new id each time: an answer to an earlier asking is no longer waited for. While a connection is made the socket may take nothing: then it is tried again. */
static void ask (fetch *f, asked_chunk *chunk)
{
    Woolly__WeightsAsk message = WOOLLY__WEIGHTS_ASK__INIT;
    wl_error unsent = {0};
    chunk->id = ++f->last_id;
    message.epoch = f->options->epoch;
    message.id = chunk->id;
    message.part = chunk->part;
    message.offset = chunk->offset;
    message.length = chunk->length;
    chunk->unsent = !wl_weights_ask (f->link, &message, &unsent);
}

/* Asks for what the window has room for. */
static void ask_for_more (fetch *f)
{
    for (uint32_t i = 0; i < WL_WEIGHTS_WINDOW; i++) {
        asked_chunk *chunk = &f->window[i];
        if (chunk->id == 0 && next_missing (f, chunk))
            f->n_asked++;
        else if (!chunk->unsent)
            continue;
        ask (f, chunk);
    }
}

static void close_link (fetch *f)
{
    if (f->link)
        zmq_socket_monitor (zsock_resolve (f->link), NULL, 0);
    zsock_destroy (&f->link);
    zsock_destroy (&f->monitor);
}

static bool open_monitor (fetch *f, wl_error *err)
{
    char endpoint[64];
    /* a name of its own: the one before it may still be closing */
    snprintf (endpoint, sizeof endpoint, "inproc://weights-%08x%08x", randombytes_random (), randombytes_random ());
    f->monitor = zsock_new (ZMQ_PAIR);
    if (!f->monitor || zmq_socket_monitor (zsock_resolve (f->link), endpoint, ZMQ_EVENT_DISCONNECTED) != 0 ||
        zmq_connect (zsock_resolve (f->monitor), endpoint) != 0)
        return wl_fail (err, WL_ERROR_INTERNAL, "the weights link cannot be watched: %s", zmq_strerror (errno));
    return true;
}

static bool connection_broke (const fetch *f)
{
    bool broke = false;
    uint8_t event[6]; /* and a second frame with the address */
    char address[256];
    while (zmq_recv (zsock_resolve (f->monitor), event, sizeof event, ZMQ_DONTWAIT) >= 0) {
        broke = true;
        zmq_recv (zsock_resolve (f->monitor), address, sizeof address, ZMQ_DONTWAIT);
    }
    return broke;
}

/* What was under way on the connection before it is lost. */
static bool connect_anew (fetch *f, wl_error *err)
{
    close_link (f);
    f->link = wl_link_new (WL_LINK_WEIGHTS_DEALER, WL_WEIGHTS_CHUNK_BYTES, err);
    if (!f->link || !open_monitor (f, err) || !wl_link_connect (f->link, f->options->endpoint, err))
        return false;
    f->connected_ms = zclock_mono ();
    for (uint32_t i = 0; i < WL_WEIGHTS_WINDOW; i++)
        if (f->window[i].id)
            ask (f, &f->window[i]);
    return true;
}

/* -- arriving ------------------------------------------------------------------------------------------------------------------------------ */

/* One answer; what nobody waits for is passed over. */
static bool take_chunk (fetch *f, const wl_weights_chunk *chunk, uint64_t *shipped_bytes, wl_error *err)
{
    const Woolly__WeightsChunk *header = chunk->header;
    asked_chunk *asked = NULL;
    uint8_t hash[WL_WEIGHTS_HASH_BYTES];
    for (uint32_t i = 0; i < WL_WEIGHTS_WINDOW && header->id; i++)
        if (f->window[i].id == header->id)
            asked = &f->window[i];
    if (!asked || header->epoch != f->options->epoch)
        return true;
    f->heard_ms = zclock_mono ();
    if (header->refusal[0])
        return wl_fail (err, WL_ERROR_CLUSTER, "the coordinator sends no weights: %.200s", header->refusal);
    wl_weights_hash (chunk->bytes, chunk->length, hash);
    if (chunk->length != asked->length || memcmp (hash, header->hash.data, sizeof hash) != 0) {
        ask (f, asked);
        return ++f->n_damaged < MAX_DAMAGED ||
               wl_fail (err, WL_ERROR_CLUSTER,
                        "%s: weights arrive damaged again and again: check this machine's memory and network",
                        f->options->endpoint);
    }
    f->n_damaged = 0;
    if (!weight_store_put (f->store, asked->part, asked->offset, chunk->bytes, asked->length, hash, err))
        return false;
    *shipped_bytes += asked->length;
    f->done += asked->length;
    asked->id = 0;
    f->n_asked--;
    return true;
}

/* What has arrived, or nothing for TURN_MS. */
static bool turn (fetch *f, uint64_t *shipped_bytes, wl_error *err)
{
    wl_error malformed = {0};
    int64_t now = zclock_mono ();
    bool ok = true;
    ask_for_more (f);
    for (int i = 0; ok && i < CHUNKS_A_REPORT; i++) {
        wl_weights_chunk chunk = {0};
        if (!wl_weights_receive_chunk (f->link, i ? 0 : TURN_MS, &chunk, &malformed) && malformed.code == WL_OK)
            break;
        if (chunk.header)
            ok = take_chunk (f, &chunk, shipped_bytes, err);
        wl_weights_chunk_free (&chunk);
        ask_for_more (f);
    }
    if (!ok || !load_progress_report (f->options->progress, WOOLLY__LOAD_PHASE__ARRIVING, f->done, f->total, err))
        return false;
    if (now - f->heard_ms > PATIENCE_MS)
        return wl_fail (err, WL_ERROR_CLUSTER,
                        "%s: no weights have come from there for %d s: is its port open to this machine?",
                        f->options->endpoint, PATIENCE_MS / 1000);
    bool silent = now - f->heard_ms >= SILENCE_MS && now - f->connected_ms >= SILENCE_MS;
    return (!silent && !connection_broke (f)) || connect_anew (f, err);
}

bool weight_fetch (weight_store *store, const weight_fetch_options *options, const weight_range *ranges,
                   size_t n_ranges, uint64_t *shipped_bytes, wl_error *err)
{
    fetch f = {.store = store,
               .options = options,
               .ranges = ranges,
               .n_ranges = n_ranges,
               .total = weight_fetch_missing (store, ranges, n_ranges),
               .heard_ms = zclock_mono ()};
    bool ok = f.total == 0 || connect_anew (&f, err);
    if (ok && f.total)
        ask_for_more (&f);
    while (ok && f.n_asked)
        ok = turn (&f, shipped_bytes, err);
    close_link (&f);
    return ok;
}
