/* Requests over the pipeline; see scheduler.h. */
#include "scheduler.h"

#include <stdlib.h>
#include <string.h>

#include "engine/kernels/kernels.h"
#include "engine/memory.h"
#include "proto/sampling.h"

enum { DEFAULT_ROWS = 128, SPARE_STEPS = 1 };

struct wl_request {
    wl_request *next; /* in order of arrival */
    wl_request_options options;
    int32_t *tokens;   /* [n_prompt + max_tokens] prompt, then generated */
    uint32_t *history; /* the same tokens as wl_history_entry; NULL where no draw looks at them */
    double mirostat_mu;
    size_t n_known, n_sent, n_returned;
    uint32_t *pages;
    uint32_t n_pages;
    bool admitted;
};

typedef struct entry {   /* a request's part in a step */
    wl_request *request; /* NULL once the request has ended */
    size_t first_position, n_rows;
    size_t first_raw, n_raw; /* rows of logits it gets back */
    bool draws;
} entry;

typedef struct flight { /* a step under way */
    struct flight *next;
    uint64_t id;
    entry *entries;
    size_t n_entries;
} flight;

struct wl_scheduler {
    wl_cluster *cluster;
    wl_scheduler_options options;
    wl_request *requests;
    size_t n_active;
    flight *flights, **flights_end;
    uint32_t n_flights;
    uint64_t next_id;
    uint32_t *free_pages; /* stack */
    uint32_t n_free;
};

uint32_t wl_scheduler_default_rows (void)
{
    return DEFAULT_ROWS;
}

uint32_t wl_scheduler_pages (uint64_t tokens)
{
    uint64_t pages = (tokens + WL_KV_PAGE - 1) / WL_KV_PAGE;
    return pages > UINT32_MAX ? UINT32_MAX : (uint32_t) pages;
}

wl_scheduler *wl_scheduler_new (wl_cluster *cluster, const wl_scheduler_options *options, wl_error *err)
{
    wl_scheduler *s = wl_new (1, sizeof *s, err);
    if (!s)
        return NULL;
    s->cluster = cluster;
    s->options = *options;
    s->flights_end = &s->flights;
    s->next_id = 1;
    s->free_pages = wl_new (options->n_pages, sizeof *s->free_pages, err);
    if (!s->free_pages) {
        wl_scheduler_free (&s);
        return NULL;
    }
    for (uint32_t page = options->n_pages; page-- > 0;)
        s->free_pages[s->n_free++] = page;
    return s;
}

/* -- requests -------------------------------------------------------------------------------------------------------------------------------- */

static void free_request (wl_request *request)
{
    if (!request)
        return;
    free (request->tokens);
    free (request->history);
    free (request->pages);
    free (request);
}

static void free_flight (flight *f)
{
    if (!f)
        return;
    free (f->entries);
    free (f);
}

void wl_scheduler_free (wl_scheduler **scheduler)
{
    wl_scheduler *s = *scheduler;
    if (!s)
        return;
    for (wl_request *next, *r = s->requests; r; r = next) {
        next = r->next;
        free_request (r);
    }
    for (flight *next, *f = s->flights; f; f = next) {
        next = f->next;
        free_flight (f);
    }
    free (s->free_pages);
    free (s);
    *scheduler = NULL;
}

size_t wl_scheduler_active (const wl_scheduler *scheduler)
{
    return scheduler->n_active;
}

static void set_token (wl_request *r, size_t position, int32_t token)
{
    r->tokens[position] = token;
    if (r->history)
        r->history[position] = wl_history_entry (token, token >= 0 && (size_t) token < r->options.n_breakers &&
                                                            r->options.breakers[token]);
}

wl_request *wl_scheduler_add (wl_scheduler *s, const wl_request_options *options, wl_error *err)
{
    uint64_t total = (uint64_t) options->n_prompt + options->max_tokens;
    uint32_t pages = wl_scheduler_pages (total);
    if (options->n_prompt == 0) {
        wl_fail (err, WL_ERROR_INPUT, "the prompt is empty: there is nothing to continue");
        return NULL;
    }
    if (pages > s->options.n_pages) {
        wl_fail (err, WL_ERROR_USAGE,
                 "a request of %llu tokens does not fit the context of %llu: choose a larger --ctx or a smaller -n",
                 (unsigned long long) total, (unsigned long long) s->options.n_pages * WL_KV_PAGE);
        return NULL;
    }
    wl_request *request = wl_new (1, sizeof *request, err);
    if (!request)
        return NULL;
    request->options = *options;
    request->options.prompt = NULL;
    request->mirostat_mu = wl_sampling_first_mu (&options->sampling);
    request->tokens = wl_new (total, sizeof *request->tokens, err);
    request->pages = wl_new (pages, sizeof *request->pages, err);
    bool remembers = options->max_tokens && wl_sampling_history (&options->sampling);
    if (remembers)
        request->history = wl_new (total, sizeof *request->history, err);
    if (!request->tokens || !request->pages || (remembers && !request->history)) {
        free_request (request);
        return NULL;
    }
    for (size_t i = 0; i < options->n_prompt; i++)
        set_token (request, i, options->prompt[i]);
    request->n_known = options->n_prompt;
    request->n_pages = pages;
    wl_request **end = &s->requests;
    while (*end)
        end = &(*end)->next;
    *end = request;
    s->n_active++;
    return request;
}

void wl_scheduler_cancel (wl_scheduler *s, wl_request *request)
{
    wl_request **place = &s->requests;
    while (*place && *place != request)
        place = &(*place)->next;
    if (!*place)
        return;
    *place = request->next;
    for (flight *f = s->flights; f; f = f->next)
        for (size_t i = 0; i < f->n_entries; i++)
            if (f->entries[i].request == request)
                f->entries[i].request = NULL;
    if (request->admitted)
        for (uint32_t i = 0; i < request->n_pages; i++)
            s->free_pages[s->n_free++] = request->pages[i];
    free_request (request);
    s->n_active--;
}

/* Gives waiting requests their pages, in order of arrival: a later small one does not overtake. */
static void admit (wl_scheduler *s)
{
    for (wl_request *r = s->requests; r; r = r->next) {
        if (r->admitted)
            continue;
        if (r->n_pages > s->n_free)
            return;
        for (uint32_t i = 0; i < r->n_pages; i++)
            r->pages[i] = s->free_pages[--s->n_free];
        r->admitted = true;
    }
}

/* -- building a step ----------------------------------------------------------------------------------------------------------------------- */

typedef struct draft { /* a step being built */
    Woolly__Step message;
    Woolly__Span *spans;
    Woolly__Span **span_places;
    Woolly__Pick *picks;
    Woolly__Pick **pick_places;
    Woolly__Sampling *samplings;
    int32_t *tokens;
    entry *entries;
    size_t n_entries, n_rows, n_picks;
} draft;

static void free_draft (draft *d)
{
    free (d->spans);
    free (d->span_places);
    free (d->picks);
    free (d->pick_places);
    free (d->samplings);
    free (d->tokens);
    free (d->entries);
}

static bool open_draft (draft *d, size_t max_entries, size_t max_rows, size_t max_picks, wl_error *err)
{
    *d = (draft){0};
    woolly__step__init (&d->message);
    d->spans = wl_new (max_entries, sizeof *d->spans, err);
    d->span_places = wl_new (max_entries, sizeof *d->span_places, err);
    d->picks = wl_new (max_picks, sizeof *d->picks, err);
    d->pick_places = wl_new (max_picks, sizeof *d->pick_places, err);
    d->samplings = wl_new (max_picks, sizeof *d->samplings, err);
    d->tokens = wl_new (max_rows, sizeof *d->tokens, err);
    d->entries = wl_new (max_entries, sizeof *d->entries, err);
    return d->spans && d->span_places && d->picks && d->pick_places && d->samplings && d->tokens && d->entries;
}

/* The pick of a row of `r`. When it `draws`, the token goes to `position`. */
static void add_pick (draft *d, size_t row, const wl_request *r, size_t position, bool draws, bool raw)
{
    Woolly__Pick *pick = &d->picks[d->n_picks];
    woolly__pick__init (pick);
    pick->row = (uint32_t) row;
    pick->raw_logits = raw;
    if (draws) {
        pick->sampling = &d->samplings[d->n_picks];
        wl_sampling_pack (&r->options.sampling, pick->sampling);
        pick->mirostat_mu = r->mirostat_mu;
    }
    if (draws && r->history) {
        size_t wanted = wl_sampling_history (&r->options.sampling);
        pick->n_history = wanted < position ? wanted : position;
        pick->history = r->history + position - pick->n_history;
    }
    d->pick_places[d->n_picks++] = pick;
}

static bool wants_logits (const wl_request *r, size_t position)
{
    return r->options.raw_logits && position >= r->options.first_raw && position < r->options.n_prompt;
}

/* Adds the next `n` unsent tokens of a request. */
static void add_entry (draft *d, wl_request *r, size_t n)
{
    bool draws = r->options.max_tokens > 0 && r->n_sent + n == r->n_known;
    Woolly__Span *span = &d->spans[d->n_entries];
    woolly__span__init (span);
    span->n_rows = (uint32_t) n;
    span->first_position = (uint32_t) r->n_sent;
    span->pages = r->pages;
    span->n_pages = wl_scheduler_pages (r->n_sent + n);
    d->span_places[d->n_entries] = span;
    entry *e = &d->entries[d->n_entries++];
    *e = (entry){.request = r, .first_position = r->n_sent, .n_rows = n, .draws = draws};
    for (size_t i = 0; i < n; i++) {
        bool last = i + 1 == n, raw = wants_logits (r, r->n_sent + i);
        d->tokens[d->n_rows + i] = r->tokens[r->n_sent + i];
        if (raw && e->n_raw++ == 0)
            e->first_raw = r->n_sent + i;
        if (raw || (last && draws))
            add_pick (d, d->n_rows + i, r, r->n_sent + n, last && draws, raw);
    }
    d->n_rows += n;
    r->n_sent += n;
}

static bool is_decoding (const wl_request *r)
{
    return r->n_known > r->options.n_prompt;
}

/* Decoding sequences are dealt over as many steps as there are stages, so that all stages have one to work on. */
static size_t decode_share (const wl_scheduler *s)
{
    size_t decoding = 0, stages = wl_cluster_n_stages (s->cluster);
    for (const wl_request *r = s->requests; r; r = r->next)
        decoding += r->admitted && is_decoding (r);
    return (decoding + stages - 1) / stages;
}

static void fill_draft (wl_scheduler *s, draft *d)
{
    size_t share = decode_share (s);
    for (wl_request *r = s->requests; r && share > 0; r = r->next)
        if (r->admitted && is_decoding (r) && r->n_sent < r->n_known && d->n_rows < s->options.max_rows &&
            d->n_picks < s->options.max_logit_rows) {
            add_entry (d, r, 1);
            share--;
        }
    for (wl_request *r = s->requests; r; r = r->next) {
        if (!r->admitted || is_decoding (r) || r->n_sent >= r->n_known)
            continue;
        size_t n = r->n_known - r->n_sent, room = s->options.max_rows - d->n_rows;
        size_t logit_room = s->options.max_logit_rows - d->n_picks;
        if (n > room)
            n = room;
        size_t unread = r->options.first_raw > r->n_sent ? r->options.first_raw - r->n_sent : 0;
        if (r->options.raw_logits && n > unread + logit_room)
            n = unread + logit_room;
        if (n == 0 || logit_room == 0)
            break;
        add_entry (d, r, n);
    }
}

/* Sends one step if there is anything to send; *sent tells. */
static bool send_step (wl_scheduler *s, bool *sent, wl_error *err)
{
    draft d;
    bool ok = false;
    flight *f = NULL;
    size_t most = s->n_active < s->options.max_rows ? s->n_active : s->options.max_rows;
    *sent = false;
    if (!open_draft (&d, most, s->options.max_rows, s->options.max_rows, err))
        goto done;
    fill_draft (s, &d);
    if (d.n_rows == 0) {
        ok = true;
        goto done;
    }
    f = wl_new (1, sizeof *f, err);
    if (!f)
        goto done;
    d.message.id = f->id = s->next_id++;
    d.message.n_rows = (uint32_t) d.n_rows;
    d.message.n_spans = d.n_entries;
    d.message.spans = d.span_places;
    d.message.n_tokens = d.n_rows;
    d.message.tokens = d.tokens;
    d.message.n_picks = d.n_picks;
    d.message.picks = d.pick_places;
    f->entries = d.entries;
    f->n_entries = d.n_entries;
    d.entries = NULL;
    *s->flights_end = f;
    s->flights_end = &f->next;
    s->n_flights++;
    ok = *sent = wl_cluster_send (s->cluster, &d.message, err);
done:
    free_draft (&d);
    return ok;
}

/* -- results -------------------------------------------------------------------------------------------------------------------------------- */

typedef struct returned { /* what a result still holds */
    const Woolly__Result *message;
    size_t next_sample;
    const float *raw; /* next raw row */
    size_t n_raw, n_vocab;
} returned;

/* Hands one entry's share of the result to its request. */
static bool settle_entry (wl_scheduler *s, const entry *e, returned *back, wl_error *err)
{
    wl_request *r = e->request;
    const Woolly__Sample *sample = NULL;
    if (e->draws) {
        if (back->next_sample == back->message->n_samples)
            return wl_fail (err, WL_ERROR_CLUSTER,
                            "the last stage sent too few samples: are all workers of this version?");
        sample = back->message->samples[back->next_sample++];
    }
    if (!r)
        return true;
    r->n_returned = e->first_position + e->n_rows;
    if (r->options.on_prefill && e->first_position < r->options.n_prompt)
        r->options.on_prefill (r->options.context, r->n_returned, r->options.n_prompt);
    bool goes_on = r->n_returned < r->n_known || r->options.max_tokens > 0;
    if (sample) {
        wl_sample drawn;
        wl_sample_unpack (sample, &drawn);
        set_token (r, r->n_known++, drawn.token);
        r->mirostat_mu = drawn.mirostat_mu;
        size_t generated = r->n_known - r->options.n_prompt;
        goes_on = r->options.on_token (r->options.context, &drawn) && generated < r->options.max_tokens;
    }
    if (!goes_on)
        wl_scheduler_cancel (s, r);
    return true;
}

/* Raw rows come in the order of picks, which is that of entries and rows. Cancelled requests' rows are passed over. */
static bool deliver_logits (const flight *f, returned *back, wl_error *err)
{
    for (size_t i = 0; i < f->n_entries; i++) {
        const entry *e = &f->entries[i];
        for (size_t row = 0; row < e->n_raw; row++) {
            if (back->n_raw == 0)
                return wl_fail (err, WL_ERROR_CLUSTER,
                                "the last stage sent too few rows of logits: are all workers of this version?");
            if (e->request)
                e->request->options.on_logits (e->request->options.context, e->first_raw + row, back->raw);
            back->raw += back->n_vocab;
            back->n_raw--;
        }
    }
    return true;
}

static bool settle (wl_scheduler *s, const wl_packet *packet, wl_error *err)
{
    flight *f = s->flights;
    const Woolly__Result *message = packet->result;
    if (!f || f->id != message->id)
        return wl_fail (err, WL_ERROR_CLUSTER, "step %llu came back out of order", (unsigned long long) message->id);
    s->flights = f->next;
    if (!s->flights)
        s->flights_end = &s->flights;
    s->n_flights--;
    returned back = {
        .message = message, .raw = (const float *) (const void *) packet->payload, .n_raw = message->n_raw_rows};
    if (back.n_raw)
        back.n_vocab = packet->payload_bytes / sizeof (float) / back.n_raw;
    bool ok = deliver_logits (f, &back, err);
    for (size_t i = 0; ok && i < f->n_entries; i++)
        ok = settle_entry (s, &f->entries[i], &back, err);
    free_flight (f);
    return ok;
}

bool wl_scheduler_turn (wl_scheduler *s, int timeout_ms, wl_error *err)
{
    admit (s);
    for (bool sent = true; sent && s->n_active && s->n_flights < wl_cluster_n_stages (s->cluster) + SPARE_STEPS;)
        if (!send_step (s, &sent, err))
            return false;
    if (s->n_flights == 0)
        return true;
    wl_packet packet;
    if (!wl_cluster_receive (s->cluster, timeout_ms, &packet, err))
        return err->code == WL_OK;
    bool ok = settle (s, &packet, err);
    wl_packet_free (&packet);
    return ok;
}
