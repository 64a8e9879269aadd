/* Requests over the pipeline; see scheduler.h. */
#include "scheduler.h"

#include <stdlib.h>
#include <string.h>

#include "engine/kernels/kernels.h"
#include "engine/memory.h"
#include "policy.h"
#include "proto/sampling.h"
#include "scheduler_private.h"

uint32_t wl_scheduler_default_rows (void)
{
    return WL_POLICY_ROWS;
}

uint32_t wl_scheduler_guess_rows (wl_speculation_kind speculation)
{
    return speculation == WL_SPECULATION_OFF ? 0 : SCHEDULER_MAX_GUESSES;
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
    s->pages = s->times ? wl_page_pool_new (options->n_pages, err) : NULL;
    if (!s->pages)
        wl_scheduler_free (&s);
    else if (options->draft)
        scheduler_draft_start (s);
    return s;
}

/* -- requests -------------------------------------------------------------------------------------------------------------------------------- */

static void free_request (wl_scheduler *s, wl_request *request)
{
    if (request->drafted)
        wl_draft_stream_close (s->options.draft, &request->drafted);
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
        free_request (s, r);
    }
    for (flight *next, *f = s->flights; f; f = next) {
        next = f->next;
        free_flight (f);
    }
    wl_step_times_free (&s->times);
    wl_step_cost_free (&s->cost);
    wl_page_pool_free (&s->pages);
    free (s);
    *scheduler = NULL;
}

void wl_scheduler_speculation (const wl_scheduler *scheduler, uint64_t *drafted, uint64_t *accepted)
{
    *drafted = scheduler->n_drafted;
    *accepted = scheduler->n_accepted;
}

wl_draft_use wl_scheduler_draft_use (const wl_scheduler *s)
{
    return (wl_draft_use){.drafted = s->n_drafted_by_model,
                          .accepted = s->n_accepted_by_model,
                          .is_on = s->options.draft && wl_draft_policy_is_on (&s->draft_policy),
                          .n_tries = s->draft_policy.n_tries,
                          .n_failed = s->draft_policy.n_failed};
}

uint64_t wl_scheduler_preempted (const wl_scheduler *scheduler)
{
    return scheduler->n_preempted;
}

wl_prefix_counts wl_scheduler_prefixes (const wl_scheduler *s)
{
    wl_page_counts pages = wl_page_pool_counts (s->pages);
    return (wl_prefix_counts){.prompt_tokens = s->n_prompt_tokens,
                              .cached_tokens = s->n_cached_tokens,
                              .copied_pages = s->n_copied_pages,
                              .evicted_pages = pages.evicted,
                              .free_pages = pages.free,
                              .kept_pages = pages.kept,
                              .held_pages = pages.held};
}

wl_step_times *wl_scheduler_times (wl_scheduler *scheduler)
{
    return scheduler->times;
}

size_t wl_scheduler_active (const wl_scheduler *scheduler)
{
    return scheduler->n_active;
}

void scheduler_set_token (wl_request *r, size_t position, int32_t token)
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
    request->copied_page = WL_NO_PAGE;
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
        free_request (s, request);
        return NULL;
    }
    for (size_t i = 0; i < options->n_prompt; i++)
        scheduler_set_token (request, i, options->prompt[i]);
    request->n_known = options->n_prompt;
    if (guesses)
        wl_speculation_know (request->speculation, request->n_known, false);
    if (guesses && !scheduler_draft_open (s, request, err)) {
        free_request (s, request);
        return NULL;
    }
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
    scheduler_give_back_pages (s, request);
    free_request (s, request);
    s->n_active--;
    cancel_stale (s);
}

/* Takes a request's pages away. It starts again later from the tokens it has, and goes on as if nothing had happened. */
static void preempt (wl_scheduler *s, wl_request *r)
{
    scheduler_give_back_pages (s, r);
    r->n_sent = 0;
    r->chunk = 0;
    r->generation++;
    s->n_preempted++;
    if (r->drafted)
        wl_draft_stream_forget (s->options.draft, r->drafted);
    cancel_stale (s);
}

/* The one that came last among those that can be preempted: scores are not, since they have handed out what they would compute again. */
static wl_request *find_victim (const wl_scheduler *s)
{
    wl_request *victim = NULL;
    for (wl_request *r = s->requests; r; r = r->next)
        if (r->admitted && !r->options.raw_logits)
            victim = r;
    return victim;
}

/* Every request under way gets pages for the token it sends next, if need be from whoever came last; and, where many are free, for guesses. */
static void keep_growing (wl_scheduler *s)
{
    for (wl_request *r = s->requests; r; r = r->next) {
        uint64_t most = r->options.n_prompt + r->options.max_tokens;
        uint64_t ahead = (r->n_sent > r->n_known ? r->n_sent : r->n_known) + SCHEDULER_MAX_GUESSES;
        while (r->admitted && !scheduler_take_pages (s, r, wl_scheduler_pages (r->n_known)))
            preempt (s, find_victim (s)); /* r itself at the latest */
        if (r->admitted && r->speculation && wl_page_pool_available (s->pages) > s->n_active)
            scheduler_take_pages (s, r, wl_scheduler_pages (ahead < most ? ahead : most));
    }
}

/* Whether it will want more pages than it holds. */
static bool may_grow (const wl_request *r)
{
    return r->admitted && r->n_pages < wl_scheduler_pages (r->options.n_prompt + r->options.max_tokens);
}

/* Waiting requests begin in order of arrival, a later small one does not overtake; with a page left for each one under way that will want one, so that none is turned out at once. Only those
 * that wait for another's pages are passed over: they begin when these are computed. */
static void admit (wl_scheduler *s)
{
    uint32_t n_growing = 0;
    begin_result result = BEGIN_DONE;
    for (const wl_request *r = s->requests; r; r = r->next)
        n_growing += may_grow (r);
    for (wl_request *r = s->requests; r && result != BEGIN_NO_ROOM; r = r->next) {
        if (r->admitted)
            continue;
        result = scheduler_begin (s, r, n_growing);
        n_growing += may_grow (r);
    }
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
    s->n_drawn++;
    s->n_accepted += *holds;
    s->n_accepted_by_model += *holds && r->by_draft;
    if (guessed && !*holds) {
        r->n_sent = position;
        r->n_returned = r->n_returned < position ? r->n_returned : position;
        r->generation++;
    }
    scheduler_set_token (r, position, drawn.token);
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
    if (r->options.on_prefill && r->n_known == r->options.n_prompt) {
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
    scheduler_share_pages (s, r);
    if (r->speculation && e->n_draws)
        wl_speculation_know (r->speculation, r->n_known, r->n_sent > r->n_known && !r->by_draft);
    if (e->n_draws)
        scheduler_draft_know (s, r);
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

/* A step's kind, for a trace. Every row of a decoding stream draws, guesses among them; of a prompt at most the last does. */
static const char *kind_of (const flight *f)
{
    bool reads = false;
    for (size_t i = 0; i < f->n_entries; i++)
        reads = reads || f->entries[i].n_draws < f->entries[i].n_rows;
    return f->cancelled ? "stale" : reads ? "prompt" : "decode";
}

/* What a result says about time. */
static bool take_times (wl_scheduler *s, const flight *f, const Woolly__Result *message, wl_error *err)
{
    wl_step_sent sent = {f->sent_ns, f->n_rows, kind_of (f)};
    if (!wl_step_times_add (s->times, &sent, message))
        return wl_fail (err, WL_ERROR_CLUSTER,
                        "a result without a timing of every stage: are all workers of this version?");
    if (message->skipped || !wl_policy_teaches (f->n_rows, f->n_picks))
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
    uint64_t drawn_before = s->n_drawn;
    if (ok && !message->skipped)
        ok = settle_entries (s, f, packet, err);
    scheduler_draft_turn (s, s->n_drawn - drawn_before);
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
    keep_growing (s);
    admit (s);
    for (bool sent = true; sent && s->n_active && s->n_flights < wl_policy_steps (s->n_stages);)
        if (!scheduler_send_step (s, &sent, err))
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
