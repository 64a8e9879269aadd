/* Requests over the pipeline; see scheduler.h. */
#include "scheduler.h"

#include <stdlib.h>
#include <string.h>

#include "engine/kernels/kernels.h"
#include "engine/memory.h"
#include "proto/sampling.h"
#include "step_cost.h"

enum {
    DEFAULT_ROWS = 128,
    SPARE_STEPS = 1,  /* under way beyond one a stage, so that the first stage has the next one when it is done */
    MAX_GUESSES = 15, /* a step */
};

static const double longest_wait_ns = 250e6;  /* of decoding streams for a prompt's chunk, on each stage */
static const double eager_chance = 0.8;       /* what WL_SPECULATION_NGRAM takes a guess for, at least */
static const double least_chance_ahead = 0.5; /* of guesses that go ahead of any known token: they can delay it */

struct wl_request {
    wl_request *next; /* in order of arrival */
    wl_request_options options;
    int32_t *tokens;   /* [n_prompt + max_tokens] prompt, then generated */
    uint32_t *history; /* the same tokens as wl_history_entry; NULL where no draw looks at them */
    double mirostat_mu;
    size_t n_known, n_sent, n_returned; /* tokens[n_known..n_sent) are guesses under way */
    uint64_t generation;                /* raised whenever guesses under way turn out wrong */
    wl_speculation *speculation;        /* NULL: none */
    size_t n_guesses;                   /* that the step being built gives it */
    uint64_t last_step;                 /* the id of the newest one that carries it */
    size_t chunk;                       /* rows of its prompt a step; 0: not yet chosen */
    uint32_t *pages;
    uint32_t n_pages;
    bool admitted;
};

typedef struct entry {   /* a request's part in a step */
    wl_request *request; /* NULL once the request has ended */
    size_t first_position, n_rows;
    size_t first_raw, n_raw; /* rows of logits it gets back */
    size_t n_draws;          /* its last rows draw a token each */
    uint64_t generation;     /* of the request; another one since: it is stale */
} entry;

typedef struct flight { /* a step under way */
    struct flight *next;
    uint64_t id, sent_ns;
    entry *entries;
    size_t n_entries, n_rows, n_picks;
    bool decodes; /* some entry generates */
    bool cancelled;
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
    uint32_t n_stages, n_parallel; /* stages; those of them that can compute at once */
    wl_step_cost *cost;
    wl_step_times *times;
    uint64_t n_drafted, n_accepted;
};

uint32_t wl_scheduler_default_rows (void)
{
    return DEFAULT_ROWS;
}

uint32_t wl_scheduler_guess_rows (wl_speculation_kind speculation)
{
    return speculation == WL_SPECULATION_OFF ? 0 : MAX_GUESSES;
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
    s->n_stages = wl_cluster_n_stages (cluster);
    s->n_parallel = wl_cluster_n_parallel (cluster);
    s->cost = wl_step_cost_new (s->n_stages, s->n_parallel, err);
    s->times = s->cost ? wl_step_times_new (cluster, options->trace, err) : NULL;
    s->free_pages = s->times ? wl_new (options->n_pages, sizeof *s->free_pages, err) : NULL;
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
    wl_speculation_free (&request->speculation);
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
    wl_step_times_free (&s->times);
    wl_step_cost_free (&s->cost);
    free (s->free_pages);
    free (s);
    *scheduler = NULL;
}

void wl_scheduler_speculation (const wl_scheduler *scheduler, uint64_t *drafted, uint64_t *accepted)
{
    *drafted = scheduler->n_drafted;
    *accepted = scheduler->n_accepted;
}

wl_step_times *wl_scheduler_times (wl_scheduler *scheduler)
{
    return scheduler->times;
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
    bool guesses = s->options.speculation != WL_SPECULATION_OFF && options->max_tokens > 1 &&
                   !wl_sampling_depends_on_draws (&options->sampling);
    if (guesses && request->tokens)
        request->speculation = wl_speculation_new (request->tokens, total, err);
    if (!request->tokens || !request->pages || (remembers && !request->history) || (guesses && !request->speculation)) {
        free_request (request);
        return NULL;
    }
    for (size_t i = 0; i < options->n_prompt; i++)
        set_token (request, i, options->prompt[i]);
    request->n_known = options->n_prompt;
    if (guesses)
        wl_speculation_know (request->speculation, request->n_known, false);
    request->n_pages = pages;
    wl_request **end = &s->requests;
    while (*end)
        end = &(*end)->next;
    *end = request;
    s->n_active++;
    return request;
}

static bool is_stale (const entry *e)
{
    return !e->request || e->generation != e->request->generation;
}

/* Tells the stages which steps under way are of no use to anyone any more. */
static void cancel_stale (wl_scheduler *s)
{
    for (flight *f = s->flights; f; f = f->next) {
        bool stale = !f->cancelled;
        for (size_t i = 0; stale && i < f->n_entries; i++)
            stale = is_stale (&f->entries[i]);
        if (!stale)
            continue;
        f->cancelled = true;
        wl_cluster_cancel (s->cluster, f->id, f->id);
    }
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
    cancel_stale (s);
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
    wl_request **chosen; /* work space */
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
    free (d->chosen);
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
    d->chosen = wl_new (max_entries, sizeof (wl_request *), err);
    return d->chosen && d->spans && d->span_places && d->picks && d->pick_places && d->samplings && d->tokens &&
           d->entries;
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

/* Adds the next `n` unsent tokens of a request, its n_guesses behind the known ones among them. */
static void add_entry (draft *d, wl_request *r, size_t n)
{
    size_t end = r->n_sent + n;
    /* Rows from the last known token's on draw. */
    size_t first_draw = r->options.max_tokens == 0 ? end : r->n_sent + 1 > r->n_known ? r->n_sent : r->n_known - 1;
    Woolly__Span *span = &d->spans[d->n_entries];
    woolly__span__init (span);
    span->n_rows = (uint32_t) n;
    span->first_position = (uint32_t) r->n_sent;
    span->pages = r->pages;
    span->n_pages = wl_scheduler_pages (end);
    d->span_places[d->n_entries] = span;
    entry *e = &d->entries[d->n_entries++];
    *e = (entry){.request = r,
                 .first_position = r->n_sent,
                 .n_rows = n,
                 .n_draws = end > first_draw ? end - first_draw : 0,
                 .generation = r->generation};
    for (size_t position = r->n_sent; position < end; position++) {
        bool draws = position >= first_draw, raw = wants_logits (r, position);
        if (raw && e->n_raw++ == 0)
            e->first_raw = position;
        if (raw || draws)
            add_pick (d, d->n_rows, r, position + 1, draws, raw);
        d->tokens[d->n_rows++] = r->tokens[position];
    }
    r->n_sent = end;
    r->n_guesses = 0;
}

static bool is_decoding (const wl_request *r)
{
    return r->n_known > r->options.n_prompt;
}

static bool is_ready (const wl_request *r)
{
    return r->admitted && r->n_sent < r->n_known;
}

/* How many decoding streams the next step takes: they are dealt over as many steps as make a round of all of them the shortest. 0: so few are ready that it is better
 * to wait for the others, which are under way. */
static size_t decode_share (const wl_scheduler *s, bool prompts_wait)
{
    size_t decoding = 0, ready = 0;
    bool others = false;
    for (const wl_request *r = s->requests; r; r = r->next)
        if (r->admitted && is_decoding (r)) {
            decoding++;
            ready += is_ready (r);
        }
    for (const flight *f = s->flights; f && !others; f = f->next)
        others = f->decodes && !f->cancelled;
    if (ready == 0)
        return 0;
    size_t groups = wl_step_cost_groups (s->cost, decoding);
    return others && !prompts_wait && ready < decoding / groups ? 0 : (decoding + groups - 1) / groups;
}

/* -- guesses */

/* Writes the guess that follows those under way and the n_guesses of this step. False when there is none. *chance: that it and all before it are right. */
static bool guess_next (const wl_scheduler *s, wl_request *r, double *chance)
{
    size_t end = r->options.n_prompt + r->options.max_tokens;
    size_t sent = r->n_sent > r->n_known ? r->n_sent : r->n_known, position = sent + r->n_guesses;
    int32_t token = 0;
    *chance = 1;
    if (!r->speculation || position + 1 >= end)
        return false;
    for (size_t ahead = 0; ahead <= position - r->n_known; ahead++) {
        double one;
        if (!wl_speculation_guess (r->speculation, ahead, &token, &one))
            return false;
        if (s->options.speculation == WL_SPECULATION_NGRAM && one < eager_chance)
            one = eager_chance;
        *chance *= one;
    }
    set_token (r, position, token);
    return true;
}

/* Gives out guesses, the likeliest first, among the requests of `chosen`, whose known tokens make n_rows rows: as many as pay. At least `least` likely. */
static void give_guesses (const wl_scheduler *s, wl_request *const *chosen, size_t n_chosen, size_t n_rows, size_t room,
                          double least)
{
    double gains[MAX_GUESSES] = {0};
    wl_request *given[MAX_GUESSES];
    size_t n = 0;
    while (n < MAX_GUESSES && n < room) {
        wl_request *likeliest = NULL;
        for (size_t i = 0; i < n_chosen; i++) {
            double chance;
            if (guess_next (s, chosen[i], &chance) && chance >= least && chance > gains[n]) {
                gains[n] = chance;
                likeliest = chosen[i];
            }
        }
        if (!likeliest)
            break;
        likeliest->n_guesses++;
        given[n++] = likeliest;
    }
    size_t paying = wl_step_cost_guesses (s->cost, n_rows, (double) n_rows, gains, n);
    while (n > paying)
        given[--n]->n_guesses--;
}

static size_t logit_room (const wl_scheduler *s, const draft *d)
{
    return s->options.max_logit_rows - d->n_picks;
}

/* -- rows */

/* Adds a request to the `most` that have waited longest; a step's id tells how long. */
static void choose_waiting (wl_request **chosen, size_t *n, size_t most, wl_request *r)
{
    size_t at = *n;
    while (at > 0 && chosen[at - 1]->last_step > r->last_step)
        at--;
    if (at >= most)
        return;
    *n += *n < most;
    for (size_t i = *n - 1; i > at; i--)
        chosen[i] = chosen[i - 1];
    chosen[at] = r;
}

static void add_decoding (wl_scheduler *s, draft *d, wl_request **chosen, bool prompts_wait)
{
    size_t share = decode_share (s, prompts_wait), n = 0;
    size_t room = s->options.max_rows < s->options.max_logit_rows ? s->options.max_rows : s->options.max_logit_rows;
    share = share < room ? share : room;
    for (wl_request *r = s->requests; r && share; r = r->next)
        if (is_ready (r) && is_decoding (r))
            choose_waiting (chosen, &n, share, r);
    if (!prompts_wait)
        give_guesses (s, chosen, n, n, room - n, 0);
    for (size_t i = 0; i < n; i++)
        add_entry (d, chosen[i], 1 + chosen[i]->n_guesses);
}

/* Unsent tokens of prompts. */
static size_t count_unread (const wl_scheduler *s)
{
    size_t n = 0;
    for (const wl_request *r = s->requests; r; r = r->next)
        if (is_ready (r) && !is_decoding (r))
            n += r->n_known - r->n_sent;
    return n;
}

static size_t chunk_of (const wl_scheduler *s, wl_request *r, size_t unread, bool others_wait)
{
    if (s->options.chunk)
        return s->options.chunk;
    if (r->chunk == 0)
        r->chunk = wl_step_cost_chunk (s->cost, unread, s->options.max_rows);
    return others_wait ? wl_step_cost_within (s->cost, r->chunk, longest_wait_ns) : r->chunk;
}

static void add_prompts (wl_scheduler *s, draft *d, size_t unread)
{
    size_t rows = 0, most = 0;
    bool others_wait = false;
    for (const wl_request *r = s->requests; r && !others_wait; r = r->next)
        others_wait = r->admitted && is_decoding (r);
    for (wl_request *r = s->requests; r; r = r->next) {
        if (!is_ready (r) || is_decoding (r))
            continue;
        if (most == 0)
            most = chunk_of (s, r, unread, others_wait);
        size_t n = r->n_known - r->n_sent, room = s->options.max_rows - d->n_rows, picks = logit_room (s, d);
        room = room < most - rows ? room : most - rows;
        n = n < room ? n : room;
        size_t silent = r->options.first_raw > r->n_sent ? r->options.first_raw - r->n_sent : 0;
        if (r->options.raw_logits && n > silent + picks)
            n = silent + picks;
        if (n == 0 || picks == 0)
            break;
        add_entry (d, r, n);
        rows += n;
    }
}

/* Stages would be idle: guesses go ahead of what is not known yet. */
static void add_guesses (wl_scheduler *s, draft *d, wl_request **chosen)
{
    size_t n = 0,
           room = s->options.max_rows < s->options.max_logit_rows ? s->options.max_rows : s->options.max_logit_rows;
    for (wl_request *r = s->requests; r; r = r->next)
        if (r->admitted && r->speculation && r->n_sent >= r->n_known && n < s->options.max_rows)
            chosen[n++] = r;
    give_guesses (s, chosen, n, 0, room, least_chance_ahead);
    for (size_t i = 0; i < n; i++)
        if (chosen[i]->n_guesses)
            add_entry (d, chosen[i], chosen[i]->n_guesses);
}

static void fill_draft (wl_scheduler *s, draft *d)
{
    size_t unread = count_unread (s);
    add_decoding (s, d, d->chosen, unread > 0);
    add_prompts (s, d, unread);
    if (d->n_rows == 0 && s->n_flights < s->n_parallel)
        add_guesses (s, d, d->chosen);
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
    f->n_rows = d.n_rows;
    f->n_picks = d.n_picks;
    for (size_t i = 0; i < d.n_entries; i++) {
        const entry *e = &d.entries[i];
        size_t end = e->first_position + e->n_rows, known = e->request->n_known;
        f->decodes = f->decodes || e->n_draws;
        d.entries[i].request->last_step = f->id;
        s->n_drafted += end <= known ? 0 : end - known < e->n_rows ? end - known : e->n_rows;
    }
    f->sent_ns = wl_step_times_now_ns ();
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

/* Takes the token drawn for the first position that is not known. *holds: a guess stood there and is right, so the rows behind it count. False: the request ended, and is
 * gone. */
static bool take_token (wl_scheduler *s, wl_request *r, const Woolly__Sample *sample, bool *holds)
{
    wl_sample drawn;
    size_t position = r->n_known++;
    bool guessed = r->n_sent > position;
    wl_sample_unpack (sample, &drawn);
    *holds = guessed && r->tokens[position] == drawn.token;
    s->n_accepted += *holds;
    if (guessed && !*holds) {
        r->n_sent = position;
        r->generation++;
    }
    set_token (r, position, drawn.token);
    r->mirostat_mu = drawn.mirostat_mu;
    bool goes_on =
        r->options.on_token (r->options.context, &drawn) && r->n_known - r->options.n_prompt < r->options.max_tokens;
    if (!goes_on)
        wl_scheduler_cancel (s, r);
    return goes_on;
}

/* Hands one entry's share of the result to its request. */
static bool settle_entry (wl_scheduler *s, const entry *e, returned *back, wl_error *err)
{
    wl_request *r = e->request;
    Woolly__Sample *const *samples = back->message->samples + back->next_sample;
    if (e->n_draws > back->message->n_samples - back->next_sample)
        return wl_fail (err, WL_ERROR_CLUSTER, "the last stage sent too few samples: are all workers of this version?");
    back->next_sample += e->n_draws;
    if (is_stale (e))
        return true;
    r->n_returned = e->first_position + e->n_rows;
    if (r->options.on_prefill && e->first_position < r->options.n_prompt) {
        size_t done = r->n_returned < r->options.n_prompt ? r->n_returned : r->options.n_prompt;
        r->options.on_prefill (r->options.context, done, r->options.n_prompt);
    }
    if (e->n_draws == 0 && r->n_returned >= r->n_known && r->options.max_tokens == 0) {
        wl_scheduler_cancel (s, r);
        return true;
    }
    bool holds = true;
    for (size_t i = 0; i < e->n_draws && holds; i++)
        if (!take_token (s, r, samples[i], &holds))
            return true;
    if (r->speculation && e->n_draws)
        wl_speculation_know (r->speculation, r->n_known, r->n_sent > r->n_known);
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

/* What a result says about time. */
static bool take_times (wl_scheduler *s, const flight *f, const Woolly__Result *message, wl_error *err)
{
    enum { FEW_ROWS = 16 };
    wl_step_sent sent = {f->sent_ns, f->n_rows, f->cancelled ? "stale" : f->decodes ? "decode" : "prompt"};
    if (!wl_step_times_add (s->times, &sent, message))
        return wl_fail (err, WL_ERROR_CLUSTER,
                        "a result without a timing of every stage: are all workers of this version?");
    /* A few rows of a prompt lack the head's part, by which decoding steps of as many rows are longer. */
    if (message->skipped || (f->n_rows <= FEW_ROWS && f->n_picks < f->n_rows))
        return true;
    for (uint32_t i = 0; i < s->n_stages; i++)
        wl_step_cost_add (s->cost, i, f->n_rows, message->timings[i]->ended_ns - message->timings[i]->began_ns);
    return true;
}

static bool settle_entries (wl_scheduler *s, const flight *f, const wl_packet *packet, wl_error *err)
{
    const Woolly__Result *message = packet->result;
    returned back = {
        .message = message, .raw = (const float *) (const void *) packet->payload, .n_raw = message->n_raw_rows};
    if (back.n_raw)
        back.n_vocab = packet->payload_bytes / sizeof (float) / back.n_raw;
    bool ok = deliver_logits (f, &back, err);
    for (size_t i = 0; ok && i < f->n_entries; i++)
        ok = settle_entry (s, &f->entries[i], &back, err);
    return ok;
}

static bool settle (wl_scheduler *s, const wl_packet *packet, wl_error *err)
{
    flight *f = s->flights;
    const Woolly__Result *message = packet->result;
    if (!f || f->id != message->id)
        return wl_fail (err, WL_ERROR_CLUSTER, "step %llu came back out of order", (unsigned long long) message->id);
    bool ok = take_times (s, f, message, err);
    if (ok && message->skipped && !f->cancelled)
        ok = wl_fail (err, WL_ERROR_CLUSTER, "step %llu was skipped, though nobody cancelled it",
                      (unsigned long long) message->id);
    f->cancelled = true; /* it is back, and stays in the list as long as callbacks may end requests */
    if (ok && !message->skipped)
        ok = settle_entries (s, f, packet, err);
    s->flights = f->next;
    if (!s->flights)
        s->flights_end = &s->flights;
    s->n_flights--;
    free_flight (f);
    cancel_stale (s);
    return ok;
}

bool wl_scheduler_turn (wl_scheduler *s, int timeout_ms, wl_error *err)
{
    admit (s);
    for (bool sent = true; sent && s->n_active && s->n_flights < s->n_stages + SPARE_STEPS;)
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
