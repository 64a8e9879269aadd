/* Getting weights from the coordinator; see weight_fetch.h. */
#include "weight_fetch.h"

#include <string.h>

#include "engine/memory.h"

enum {
    TURN_MS = 50,        /* how soon a cancelled load is noticed */
    SILENCE_MS = 10000,  /* then the connection is made anew */
    PATIENCE_MS = 60000, /* then it is given up */
    MAX_DAMAGED = 16,    /* chunks in a row that arrive with another hash */
    CHUNKS_A_REPORT = 4,
};

typedef struct asked_chunk {
    uint64_t id; /* 0: free */
    uint64_t offset;
    uint32_t part, length;
} asked_chunk;

typedef struct fetch {
    weight_store *store;
    const weight_fetch_options *options;
    const weight_range *ranges;
    size_t n_ranges;
    zsock_t *link;
    size_t range; /* the next chunk to ask for: of this range, this far into it */
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

/* A new id each time: an answer to an earlier asking is no longer waited for. */
static bool ask (fetch *f, asked_chunk *chunk, wl_error *err)
{
    Woolly__WeightsAsk message = WOOLLY__WEIGHTS_ASK__INIT;
    chunk->id = ++f->last_id;
    message.epoch = f->options->epoch;
    message.id = chunk->id;
    message.part = chunk->part;
    message.offset = chunk->offset;
    message.length = chunk->length;
    return wl_weights_ask (f->link, &message, err);
}

static bool ask_for_more (fetch *f, wl_error *err)
{
    for (uint32_t i = 0; i < WL_WEIGHTS_WINDOW; i++) {
        asked_chunk *chunk = &f->window[i];
        if (chunk->id)
            continue;
        if (!next_missing (f, chunk)) {
            chunk->id = 0;
            return true;
        }
        f->n_asked++;
        if (!ask (f, chunk, err))
            return false;
    }
    return true;
}

static bool connect_anew (fetch *f, wl_error *err)
{
    zsock_destroy (&f->link);
    f->link = wl_link_new (WL_LINK_WEIGHTS_DEALER, WL_WEIGHTS_CHUNK_BYTES, err);
    if (!f->link || !wl_link_connect (f->link, f->options->endpoint, err))
        return false;
    f->connected_ms = zclock_mono ();
    for (uint32_t i = 0; i < WL_WEIGHTS_WINDOW; i++)
        if (f->window[i].id && !ask (f, &f->window[i], err))
            return false;
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
        if (++f->n_damaged < MAX_DAMAGED)
            return ask (f, asked, err);
        return wl_fail (err, WL_ERROR_CLUSTER,
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
    for (int i = 0; ok && i < CHUNKS_A_REPORT; i++) {
        wl_weights_chunk chunk = {0};
        if (!wl_weights_receive_chunk (f->link, i ? 0 : TURN_MS, &chunk, &malformed) && malformed.code == WL_OK)
            break;
        if (chunk.header)
            ok = take_chunk (f, &chunk, shipped_bytes, err) && ask_for_more (f, err);
        wl_weights_chunk_free (&chunk);
    }
    if (!ok || !load_progress_report (f->options->progress, WOOLLY__LOAD_PHASE__ARRIVING, f->done, f->total, err))
        return false;
    if (now - f->heard_ms > PATIENCE_MS)
        return wl_fail (err, WL_ERROR_CLUSTER,
                        "%s: no weights have come from there for %d s: is its port open to this machine?",
                        f->options->endpoint, PATIENCE_MS / 1000);
    return now - f->heard_ms < SILENCE_MS || now - f->connected_ms < SILENCE_MS || connect_anew (f, err);
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
    bool ok = f.total == 0 || (connect_anew (&f, err) && ask_for_more (&f, err));
    while (ok && f.n_asked)
        ok = turn (&f, shipped_bytes, err);
    zsock_destroy (&f.link);
    return ok;
}
