/* Getting weights from the coordinator and from other workers; see weight_fetch.h. */
#include "weight_fetch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/memory.h"
#include "weight_source.h"

enum {
    TURN_MS = 50,            /* how soon a cancelled load is noticed */
    SILENCE_MS = 30000,      /* then the connection to the coordinator is made anew */
    PATIENCE_MS = 120000,    /* then it is given up */
    STALL_MS = 10000,        /* then a worker is */
    TELL_EVERY_MS = 100,     /* asking a worker what it has: one that has not come to this plan yet does not answer */
    TELL_PATIENCE_MS = 1000, /* as long the coordinator is not asked for what such a worker may have */
    REACH_MS = 3000,         /* a worker to which there is no connection after it is given up */
    PEER_CREDIT = 8,         /* chunks asked of one worker */
    MAX_DAMAGED = 16,        /* chunks in a row that arrive from the coordinator with another hash */
    CHUNKS_A_REPORT = 4,
    MAX_SOURCES = 1 + WL_WEIGHTS_MAX_PEERS,
    COORDINATOR = 0,   /* the first source */
    LOOK_AHEAD = 4096, /* chunks */
};
_Static_assert(WEIGHT_FETCH_SLOTS <= 2 * WL_WEIGHTS_WINDOW,
               "answers for all slots have room in the coordinator's queue");

typedef enum chunk_state { CHUNK_WAITS, CHUNK_ASKED, CHUNK_DONE } chunk_state;

typedef struct missing_chunk {
    uint64_t offset;
    uint32_t part, length;
    uint32_t holders; /* bit i: source i has it */
    chunk_state state;
} missing_chunk;

/* A chunk under way. Asked of a worker, it is there when both the bytes and the coordinator's hash are. */
typedef struct asked_chunk {
    uint64_t id; /* of both askings; 0: free */
    missing_chunk *chunk;
    uint32_t from;            /* the source of the bytes */
    bool unsent, hash_unsent; /* the socket had no room for the asking */
    bool has_hash;            /* the coordinator's */
    wl_weights_chunk bytes;   /* a worker's, waiting for the hash; header NULL: not arrived */
    uint8_t hash[WL_WEIGHTS_HASH_BYTES];
} asked_chunk;

typedef struct fetch {
    weight_store *store;
    const weight_fetch_options *options;
    weight_source sources[MAX_SOURCES]; /* [n_sources], the coordinator first */
    uint32_t n_sources;
    missing_chunk *chunks; /* [n_chunks] as they lie in the files */
    size_t n_chunks, first_waiting, n_done;
    asked_chunk slots[WEIGHT_FETCH_SLOTS];
    uint32_t n_damaged;
    uint64_t last_id, done, done_by_workers, total;
    int64_t began_ms;
    weight_shipped *shipped;
} fetch;

/* -- which chunks ---------------------------------------------------------------------------------------------------------------------- */

static uint32_t chunk_length (const wl_weights_range *range, uint64_t at)
{
    uint64_t left = range->bytes - at;
    return left < WL_WEIGHTS_CHUNK_BYTES ? (uint32_t) left : WL_WEIGHTS_CHUNK_BYTES;
}

/* Lists what is not in the store, of the first n ranges; chunks NULL: counts only. Gives the bytes. */
static uint64_t list_missing (const weight_store *store, const wl_weights_range *ranges, size_t n,
                              missing_chunk *chunks, size_t *n_chunks)
{
    uint64_t missing = 0;
    *n_chunks = 0;
    for (size_t i = 0; i < n; i++)
        for (uint64_t at = 0; at < ranges[i].bytes; at += WL_WEIGHTS_CHUNK_BYTES) {
            uint32_t length = chunk_length (&ranges[i], at);
            if (weight_store_has (store, ranges[i].part, ranges[i].offset + at, length))
                continue;
            missing += length;
            if (chunks)
                chunks[*n_chunks] =
                    (missing_chunk){.part = ranges[i].part, .offset = ranges[i].offset + at, .length = length};
            ++*n_chunks;
        }
    return missing;
}

uint64_t weight_fetch_missing (const weight_store *store, const wl_weights_range *ranges, size_t n_ranges)
{
    size_t n;
    return list_missing (store, ranges, n_ranges, NULL, &n);
}

static bool is_live (const weight_source *s)
{
    return s->link && !s->dropped;
}

/* Whether some worker may yet tell that it has what nobody is known to have. */
static bool waits_for_peers (const fetch *f)
{
    bool waits = false;
    for (uint32_t i = COORDINATOR + 1; i < f->n_sources; i++)
        waits = waits || (is_live (&f->sources[i]) && !f->sources[i].tells);
    return waits && zclock_mono () - f->began_ms < TELL_PATIENCE_MS;
}

/* Whom to ask for a chunk: of the workers that have it the one with the least to send; the coordinator where none has it. False: nobody now. */
static bool choose_source (const fetch *f, const missing_chunk *chunk, bool waits, uint32_t *from)
{
    bool held = false, found = false;
    for (uint32_t i = COORDINATOR + 1; chunk->holders && i < f->n_sources; i++) {
        const weight_source *s = &f->sources[i];
        if (!is_live (s) || !(chunk->holders >> i & 1))
            continue;
        held = true;
        if (s->n_asked < PEER_CREDIT && (!found || s->n_asked < f->sources[*from].n_asked)) {
            found = true;
            *from = i;
        }
    }
    if (held || waits || f->sources[COORDINATOR].n_asked >= WL_WEIGHTS_WINDOW)
        return found;
    *from = COORDINATOR;
    return true;
}

/* -- asking ------------------------------------------------------------------------------------------------------------------------------ */

static bool send_ask (fetch *f, uint32_t source, uint64_t id, const missing_chunk *chunk, Woolly__WeightsWanted wanted)
{
    Woolly__WeightsAsk message = WOOLLY__WEIGHTS_ASK__INIT;
    wl_error unsent = {0};
    message.epoch = f->options->epoch;
    message.id = id;
    message.wanted = wanted;
    if (chunk) {
        message.part = chunk->part;
        message.offset = chunk->offset;
        message.length = chunk->length;
    }
    return wl_weights_ask (f->sources[source].link, &message, &unsent);
}

static void ask_hash (fetch *f, asked_chunk *slot)
{
    slot->hash_unsent = !send_ask (f, COORDINATOR, slot->id, slot->chunk, WOOLLY__WEIGHTS_WANTED__HASH);
}

static void ask_bytes (fetch *f, asked_chunk *slot)
{
    slot->unsent = !send_ask (f, slot->from, slot->id, slot->chunk, WOOLLY__WEIGHTS_WANTED__BYTES);
}

/* A new id each time: an answer to an earlier asking is no longer waited for. While a connection is made the socket may take nothing: then it is tried again. */
static void ask (fetch *f, asked_chunk *slot)
{
    weight_source *s = &f->sources[slot->from];
    slot->id = ++f->last_id;
    if (s->n_asked++ == 0)
        s->heard_ms = zclock_mono ();
    if (slot->from != COORDINATOR)
        ask_hash (f, slot);
    ask_bytes (f, slot);
}

static asked_chunk *free_slot (fetch *f)
{
    for (uint32_t i = 0; i < WEIGHT_FETCH_SLOTS; i++)
        if (f->slots[i].id == 0)
            return &f->slots[i];
    return NULL;
}

static void ask_again_unsent (fetch *f)
{
    for (uint32_t i = 0; i < WEIGHT_FETCH_SLOTS; i++) {
        asked_chunk *slot = &f->slots[i];
        if (slot->id && slot->unsent)
            ask_bytes (f, slot);
        if (slot->id && slot->hash_unsent)
            ask_hash (f, slot);
    }
}

/* Asks for what slots and credit have room for. Chunks are taken in the order in which they lie, past those whose holders have enough to send. */
static void ask_for_more (fetch *f)
{
    bool waits = waits_for_peers (f);
    asked_chunk *slot = free_slot (f);
    ask_again_unsent (f);
    while (f->first_waiting < f->n_chunks && f->chunks[f->first_waiting].state != CHUNK_WAITS)
        f->first_waiting++;
    for (size_t i = f->first_waiting; slot && i < f->n_chunks && i < f->first_waiting + LOOK_AHEAD; i++) {
        missing_chunk *chunk = &f->chunks[i];
        uint32_t from = COORDINATOR;
        if (chunk->state != CHUNK_WAITS || !choose_source (f, chunk, waits, &from))
            continue;
        chunk->state = CHUNK_ASKED;
        slot->chunk = chunk;
        slot->from = from;
        ask (f, slot);
        slot = free_slot (f);
    }
}

static void free_up (asked_chunk *slot)
{
    wl_weights_chunk_free (&slot->bytes);
    memset (slot, 0, sizeof *slot);
}

/* Gives a chunk back, for another source. */
static void give_back (fetch *f, asked_chunk *slot)
{
    size_t place = (size_t) (slot->chunk - f->chunks);
    slot->chunk->state = CHUNK_WAITS;
    f->first_waiting = place < f->first_waiting ? place : f->first_waiting;
    free_up (slot);
}

/* -- sources ------------------------------------------------------------------------------------------------------------------------------ */

static void drop_peer (fetch *f, uint32_t source, const char *reason)
{
    weight_source *s = &f->sources[source];
    char text[512];
    snprintf (text, sizeof text, "the worker at %s %s: its weights are asked of others", s->endpoint, reason);
    load_progress_warn (f->options->progress, text);
    weight_source_close (s);
    s->dropped = true;
    s->n_asked = 0;
    for (uint32_t i = 0; i < WEIGHT_FETCH_SLOTS; i++)
        if (f->slots[i].id && f->slots[i].from == source)
            give_back (f, &f->slots[i]);
}

/* What was under way on the connection before it is lost. */
static bool reach_coordinator (fetch *f, wl_error *err)
{
    weight_source *s = &f->sources[COORDINATOR];
    if (!weight_source_open (s, err))
        return false;
    for (uint32_t i = 0; i < WEIGHT_FETCH_SLOTS; i++) {
        asked_chunk *slot = &f->slots[i];
        if (slot->id && slot->from == COORDINATOR) {
            slot->id = ++f->last_id;
            ask_bytes (f, slot);
        } else if (slot->id && !slot->has_hash) {
            ask_hash (f, slot);
        }
    }
    return true;
}

static bool open_sources (fetch *f, wl_error *err)
{
    const weight_fetch_options *o = f->options;
    f->sources[COORDINATOR].endpoint = o->endpoint;
    f->sources[COORDINATOR].heard_ms = f->began_ms;
    f->n_sources = 1;
    for (size_t i = 0; i < o->n_peers && f->n_sources < MAX_SOURCES; i++) {
        wl_error unopened = {0};
        f->sources[f->n_sources].endpoint = o->peers[i];
        if (weight_source_open (&f->sources[f->n_sources++], &unopened))
            continue;
        drop_peer (f, f->n_sources - 1, unopened.text);
    }
    return reach_coordinator (f, err);
}

static void watch_peer (fetch *f, uint32_t source, int64_t now)
{
    weight_source *s = &f->sources[source];
    int stall_ms = f->options->stall_ms ? f->options->stall_ms : STALL_MS;
    weight_source_look (s);
    if (s->broken)
        drop_peer (f, source, "closed its connection");
    else if (s->n_asked && now - s->heard_ms >= stall_ms)
        drop_peer (f, source, "has stopped sending");
    else if (!s->connected && now - s->opened_ms >= REACH_MS)
        drop_peer (f, source, "cannot be reached (is its port open to this machine?)");
    else if (!s->tells && now - s->told_ms >= TELL_EVERY_MS &&
             send_ask (f, source, UINT64_MAX, NULL, WOOLLY__WEIGHTS_WANTED__HOLDINGS))
        s->told_ms = now;
}

static bool watch_coordinator (fetch *f, int64_t now, wl_error *err)
{
    weight_source *s = &f->sources[COORDINATOR];
    if (now - s->heard_ms > PATIENCE_MS)
        return wl_fail (err, WL_ERROR_CLUSTER,
                        "%s: no weights have come from there for %d s: is its port open to this machine?", s->endpoint,
                        PATIENCE_MS / 1000);
    weight_source_look (s);
    bool silent = now - s->heard_ms >= SILENCE_MS && now - s->opened_ms >= SILENCE_MS;
    return (!silent && !s->broken) || reach_coordinator (f, err);
}

static bool watch_sources (fetch *f, wl_error *err)
{
    int64_t now = zclock_mono ();
    for (uint32_t i = COORDINATOR + 1; i < f->n_sources; i++)
        if (is_live (&f->sources[i]))
            watch_peer (f, i, now);
    return watch_coordinator (f, now, err);
}

/* -- arriving ------------------------------------------------------------------------------------------------------------------------------ */

/* Notes which of the missing chunks a worker has. */
static void take_holdings (fetch *f, uint32_t source, const wl_weights_chunk *answer)
{
    weight_source *s = &f->sources[source];
    wl_error malformed = {0};
    size_t n;
    wl_weights_range *held = wl_weights_holdings_unpack (answer->bytes, answer->length, &n, &malformed);
    if (!held) {
        drop_peer (f, source, malformed.text);
        return;
    }
    s->tells = true;
    for (size_t i = 0; i < f->n_chunks; i++) {
        missing_chunk *chunk = &f->chunks[i];
        if (wl_weights_hold (held, n, chunk->part, chunk->offset, chunk->length))
            chunk->holders |= UINT32_C (1) << source;
    }
    free (held);
}

/* Writes a chunk whose hash was compared. */
static bool keep (fetch *f, asked_chunk *slot, const uint8_t *bytes, wl_error *err)
{
    missing_chunk *chunk = slot->chunk;
    bool by_worker = slot->from != COORDINATOR;
    if (!weight_store_put (f->store, chunk->part, chunk->offset, bytes, chunk->length, slot->hash, err))
        return false;
    f->shipped->bytes += chunk->length;
    f->shipped->from_workers_bytes += by_worker ? chunk->length : 0;
    f->done += chunk->length;
    f->done_by_workers += by_worker ? chunk->length : 0;
    f->n_done++;
    chunk->state = CHUNK_DONE;
    free_up (slot);
    return true;
}

static bool has_hash (const asked_chunk *slot, const wl_weights_chunk *answer)
{
    uint8_t hash[WL_WEIGHTS_HASH_BYTES];
    if (answer->length != slot->chunk->length)
        return false;
    wl_weights_hash (answer->bytes, answer->length, hash);
    return memcmp (hash, slot->hash, sizeof hash) == 0;
}

/* A worker's bytes and the coordinator's hash are both there. */
static bool compare (fetch *f, asked_chunk *slot, wl_error *err)
{
    if (has_hash (slot, &slot->bytes))
        return keep (f, slot, slot->bytes.bytes, err);
    drop_peer (f, slot->from, "sends other bytes than the model's (check its memory and disk)");
    return true;
}

static bool take_from_coordinator (fetch *f, asked_chunk *slot, const wl_weights_chunk *answer, wl_error *err)
{
    weight_source *s = &f->sources[COORDINATOR];
    if (answer->header->refusal[0])
        return wl_fail (err, WL_ERROR_CLUSTER, "the coordinator sends no weights: %.200s", answer->header->refusal);
    memcpy (slot->hash, answer->header->hash.data, sizeof slot->hash);
    if (slot->from != COORDINATOR) {
        slot->has_hash = true;
        return !slot->bytes.header || compare (f, slot, err);
    }
    if (!has_hash (slot, answer)) {
        slot->id = ++f->last_id;
        ask_bytes (f, slot);
        return ++f->n_damaged < MAX_DAMAGED ||
               wl_fail (err, WL_ERROR_CLUSTER,
                        "%s: weights arrive damaged again and again: check this machine's memory and network",
                        s->endpoint);
    }
    f->n_damaged = 0;
    s->n_asked--;
    return keep (f, slot, answer->bytes, err);
}

/* Takes the answer over. */
static bool take_from_peer (fetch *f, asked_chunk *slot, wl_weights_chunk *answer, wl_error *err)
{
    if (answer->header->refusal[0]) {
        char reason[256];
        snprintf (reason, sizeof reason, "sends nothing more (%.200s)", answer->header->refusal);
        drop_peer (f, slot->from, reason);
        return true;
    }
    if (slot->bytes.header)
        return true; /* sent twice */
    f->sources[slot->from].n_asked--;
    slot->bytes = *answer;
    zmq_msg_init (&slot->bytes.frame);
    zmq_msg_move (&slot->bytes.frame, &answer->frame);
    slot->bytes.bytes = zmq_msg_data (&slot->bytes.frame);
    answer->header = NULL;
    zmq_msg_close (&answer->frame);
    return !slot->has_hash || compare (f, slot, err);
}

/* One answer; what nobody waits for is passed over. */
static bool take_answer (fetch *f, uint32_t source, wl_weights_chunk *answer, wl_error *err)
{
    const Woolly__WeightsChunk *header = answer->header;
    asked_chunk *asked = NULL;
    if (header->epoch != f->options->epoch)
        return true;
    for (uint32_t i = 0; i < WEIGHT_FETCH_SLOTS && header->id; i++)
        if (f->slots[i].id == header->id && (source == COORDINATOR || f->slots[i].from == source))
            asked = &f->slots[i];
    bool tells = source != COORDINATOR && header->id == UINT64_MAX && !f->sources[source].tells;
    if (!asked && !tells)
        return true;
    f->sources[source].heard_ms = zclock_mono ();
    if (tells)
        take_holdings (f, source, answer);
    else
        return source == COORDINATOR ? take_from_coordinator (f, asked, answer, err)
                                     : take_from_peer (f, asked, answer, err);
    return true;
}

/* Waits until something arrives, at most TURN_MS. */
static void wait_for_answers (fetch *f)
{
    zmq_pollitem_t items[MAX_SOURCES];
    int n = 0;
    for (uint32_t i = 0; i < f->n_sources; i++)
        if (is_live (&f->sources[i]))
            items[n++] = (zmq_pollitem_t){.socket = zsock_resolve (f->sources[i].link), .events = ZMQ_POLLIN};
    zmq_poll (items, n, TURN_MS);
}

/* Some of what has arrived from one source. */
static bool take_answers (fetch *f, uint32_t source, wl_error *err)
{
    bool ok = true;
    for (int i = 0; ok && i < CHUNKS_A_REPORT && is_live (&f->sources[source]); i++) {
        wl_weights_chunk answer = {0};
        wl_error malformed = {0};
        if (!wl_weights_receive_chunk (f->sources[source].link, 0, &answer, &malformed) && malformed.code == WL_OK)
            break;
        if (answer.header)
            ok = take_answer (f, source, &answer, err);
        wl_weights_chunk_free (&answer);
        ask_for_more (f);
    }
    return ok;
}

static bool turn (fetch *f, wl_error *err)
{
    const load_state state = {.phase = WOOLLY__LOAD_PHASE__ARRIVING,
                              .done_bytes = f->done,
                              .total_bytes = f->total,
                              .from_workers_bytes = f->done_by_workers};
    ask_for_more (f);
    wait_for_answers (f);
    for (uint32_t i = 0; i < f->n_sources; i++)
        if (!take_answers (f, i, err))
            return false;
    return load_progress_report (f->options->progress, &state, err) && watch_sources (f, err);
}

/* -- all of it ------------------------------------------------------------------------------------------------------------------------------ */

bool weight_fetch (weight_store *store, const weight_fetch_options *options, const wl_weights_range *ranges,
                   size_t n_ranges, weight_shipped *shipped, wl_error *err)
{
    size_t n;
    if (list_missing (store, ranges, n_ranges, NULL, &n) == 0)
        return true;
    fetch *f = wl_new (1, sizeof *f, err);
    if (!f)
        return false;
    f->store = store;
    f->options = options;
    f->shipped = shipped;
    f->began_ms = zclock_mono ();
    f->chunks = wl_new (n, sizeof *f->chunks, err);
    bool ok = f->chunks != NULL;
    if (ok) {
        f->total = list_missing (store, ranges, n_ranges, f->chunks, &f->n_chunks);
        ok = open_sources (f, err);
    }
    while (ok && f->n_done < f->n_chunks)
        ok = turn (f, err);
    for (uint32_t i = 0; i < WEIGHT_FETCH_SLOTS; i++)
        wl_weights_chunk_free (&f->slots[i].bytes);
    for (uint32_t i = 0; i < f->n_sources; i++)
        weight_source_close (&f->sources[i]);
    free (f->chunks);
    free (f);
    return ok;
}
