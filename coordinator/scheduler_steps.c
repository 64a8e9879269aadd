/* What goes into a step; see scheduler.h.
 *
 * Decoding streams first, a token each and, where that pays, guesses behind it; then a chunk of the prompts that wait. When there is neither and a stage would be idle,
 * guesses alone, ahead of what is known. How many of each is step_cost.c's to say. */
#include <stdlib.h>

#include "engine/kernels/kernels.h"
#include "engine/machine.h"
#include "engine/memory.h"
#include "policy.h"
#include "proto/sampling.h"
#include "scheduler_private.h"

static const double eager_chance = 0.8; /* what WL_SPECULATION_NGRAM and draft_always take a guess for, at least */
static const double least_chance_ahead = 0.5; /* of guesses that go ahead of any known token: they can delay it */

/* -- a step being built ----------------------------------------------------------------------------------------------------------------------- */

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
    span->copies = r->copied_page != WL_NO_PAGE;
    span->copied_page = span->copies ? r->copied_page : 0;
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

bool scheduler_is_decoding (const wl_request *r)
{
    return r->n_known > r->options.n_prompt && r->n_sent + 1 >= r->n_known;
}

static bool is_ready (const wl_request *r)
{
    return r->admitted && r->n_sent < r->n_known;
}

/* How many decoding streams the next step takes. */
static size_t decode_share (const wl_scheduler *s, bool prompts_wait)
{
    size_t decoding = 0, ready = 0;
    bool others = false;
    for (const wl_request *r = s->requests; r; r = r->next)
        if (r->admitted && scheduler_is_decoding (r)) {
            decoding++;
            ready += is_ready (r);
        }
    for (const flight *f = s->flights; f && !others; f = f->next)
        others = f->decodes && !f->cancelled;
    return wl_policy_streams (s->cost, decoding, ready, others, prompts_wait);
}

/* -- guesses ------------------------------------------------------------------------------------------------------------------------------- */

/* The guess for the position `ahead` of the known ones. *chance: that it is right if those before it are. */
static bool guess_at (const wl_scheduler *s, const wl_request *r, size_t ahead, int32_t *token, double *chance)
{
    bool eager = r->by_draft ? s->options.draft_always : s->options.speculation == WL_SPECULATION_NGRAM;
    if (r->by_draft ? !wl_draft_stream_guess (s->options.draft, r->drafted, ahead, token, chance)
                    : !wl_speculation_guess (r->speculation, ahead, token, chance))
        return false;
    if (eager && *chance < eager_chance)
        *chance = eager_chance;
    return true;
}

/* Writes the guess that follows those under way and the n_guesses of this step. False when there is none. *chance: that it and all before it are right. */
static bool guess_next (const wl_scheduler *s, wl_request *r, double *chance)
{
    size_t end = r->options.n_prompt + r->options.max_tokens;
    size_t sent = r->n_sent > r->n_known ? r->n_sent : r->n_known, position = sent + r->n_guesses;
    int32_t token = 0;
    *chance = 1;
    if (!r->speculation || position + 1 >= end || position >= (size_t) r->n_pages * WL_KV_PAGE)
        return false;
    for (size_t ahead = 0; ahead <= position - r->n_known; ahead++) {
        double one;
        if (!guess_at (s, r, ahead, &token, &one))
            return false;
        *chance *= one;
    }
    scheduler_set_token (r, position, token);
    return true;
}

/* Gives out guesses, the likeliest first, among the requests of `chosen`, whose known tokens make n_rows rows: as many as pay. At least `least` likely. */
static void give_guesses (const wl_scheduler *s, wl_request *const *chosen, size_t n_chosen, size_t n_rows, size_t room,
                          double least)
{
    double gains[SCHEDULER_MAX_GUESSES] = {0};
    wl_request *given[SCHEDULER_MAX_GUESSES];
    size_t n = 0;
    while (n < SCHEDULER_MAX_GUESSES && n < room) {
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

/* -- rows ---------------------------------------------------------------------------------------------------------------------------------- */

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
        if (is_ready (r) && scheduler_is_decoding (r))
            choose_waiting (chosen, &n, share, r);
    if (!prompts_wait)
        give_guesses (s, chosen, n, n, room - n, 0);
    for (size_t i = 0; i < n; i++)
        add_entry (d, chosen[i], 1 + chosen[i]->n_guesses);
}

/* Unsent tokens of prompts, and of what was preempted and is read again. */
static size_t count_unread (const wl_scheduler *s)
{
    size_t n = 0;
    for (const wl_request *r = s->requests; r; r = r->next)
        if (is_ready (r) && !scheduler_is_decoding (r))
            n += r->n_known - r->n_sent;
    return n;
}

static void add_prompts (wl_scheduler *s, draft *d, size_t unread)
{
    size_t rows = 0, most = 0;
    bool others_wait = false;
    for (const wl_request *r = s->requests; r && !others_wait; r = r->next)
        others_wait = r->admitted && scheduler_is_decoding (r);
    for (wl_request *r = s->requests; r; r = r->next) {
        if (!is_ready (r) || scheduler_is_decoding (r))
            continue;
        if (most == 0)
            most = wl_policy_chunk (s->cost, s->options.chunk, &r->chunk, unread, s->options.max_rows, others_wait);
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

bool scheduler_send_step (wl_scheduler *s, bool *sent, wl_error *err)
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
        scheduler_copied (s, e->request);
        size_t n_guesses = end <= known ? 0 : end - known < e->n_rows ? end - known : e->n_rows;
        s->n_drafted += n_guesses;
        s->n_drafted_by_model += e->request->by_draft ? n_guesses : 0;
    }
    f->sent_ns = wl_now_ns ();
    d.entries = NULL;
    *s->flights_end = f;
    s->flights_end = &f->next;
    s->n_flights++;
    ok = *sent = wl_cluster_send (s->cluster, &d.message, err);
done:
    free_draft (&d);
    return ok;
}
