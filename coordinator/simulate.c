/* An event simulation of requests over a pipeline; see simulate.h.
 *
 * Events are in a heap: a request arrives, a step arrives at a stage or back at the coordinator, a machine finishes what it does first. A machine's stages run side by side: stage i by itself would take
 * work_i seconds and keep the share u_i of the machine busy; while the shares of all that run add up to more than 1, each is slowed by that sum. So a machine holds its stages'
 * remaining work, and one event for whichever ends first; when what runs changes, the event of the old state is out of date (by its version). */
#include "simulate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/kernels/kernels.h"
#include "engine/memory.h"
#include "policy.h"

typedef enum event_kind { REQUEST_ARRIVES, STEP_ARRIVES, MACHINE_ENDS } event_kind;

typedef struct step step;

typedef struct event {
    double at;
    uint64_t order; /* of events at the same time: as they were made */
    event_kind kind;
    uint32_t index;   /* of the stage (n_stages: the coordinator), of the machine */
    uint64_t version; /* of the machine's state */
    step *step;
} event;

typedef struct entry {
    size_t request;
    uint32_t n_rows;
    bool draws;
} entry;

struct step {
    step *next;     /* in a stage's queue, or among the free ones */
    entry *entries; /* [room] */
    size_t n_entries, room;
    uint32_t n_rows, n_logit_rows;
    double few_positions, many_positions; /* attended, summed over rows: of streams, of prompts */
    uint32_t few_rows, many_rows;
    double *took_s; /* [n_stages] */
    bool decodes;
};

typedef struct sim_stage {
    uint32_t worker, machine, first, last;
    wl_correction corrections[2];    /* by itself and with the whole machine */
    double *layers_s[2], *head_s[2]; /* [max_rows + 1] by itself and with the whole machine, corrected */
    step *running, *queue, **queue_end;
    double work_left, share, took;
    double busy_s;
    wl_plan_link hop; /* to the next */
    double hop_free_at;
} sim_stage;

typedef struct sim_machine {
    double at; /* its stages' work_left is of this time */
    uint64_t version;
    uint32_t first, n; /* into stage_order */
} sim_machine;

typedef struct sim_request {
    size_t n_known, n_sent, chunk;
    uint32_t n_pages;
    bool admitted;
    size_t next; /* active ones, in order of arrival */
} sim_request;

struct wl_simulator {
    const wl_plan_request *request;
    const wl_plan *plan;
    wl_step_cost *cost;
    sim_stage *stages;
    uint32_t n_stages, max_rows; /* that tables are for */
    sim_machine *machines;
    uint32_t *stage_order; /* stages by machine */
    wl_plan_link first_hop;
    double hop_row_bytes;
    step *free_steps;

    /* of one run */
    event *heap;
    size_t n_events, heap_room;
    uint64_t n_ever, n_steps;
    double now;
    const wl_sim_options *options;
    wl_sim_request *requests;
    sim_request *states;
    size_t n_requests, first_active, last_active, n_waiting_from, n_arrived;
    size_t n_active, n_decoding, n_decode_steps, n_done;
    uint32_t n_free_pages, n_flights;
};

static const size_t none = SIZE_MAX;

/* -- events --------------------------------------------------------------------------------------------------------------------------------------- */

static bool is_before (const event *a, const event *b)
{
    return a->at < b->at || (a->at == b->at && a->order < b->order);
}

static bool push (wl_simulator *s, event e, wl_error *err)
{
    if (s->n_events == s->heap_room) {
        size_t room = s->heap_room ? s->heap_room * 2 : 256;
        event *grown = wl_resize (s->heap, room, sizeof *grown, err);
        if (!grown)
            return false;
        s->heap = grown;
        s->heap_room = room;
    }
    e.order = s->n_ever++;
    size_t at = s->n_events++;
    for (; at > 0 && is_before (&e, &s->heap[(at - 1) / 2]); at = (at - 1) / 2)
        s->heap[at] = s->heap[(at - 1) / 2];
    s->heap[at] = e;
    return true;
}

static event pop (wl_simulator *s)
{
    event first = s->heap[0], last = s->heap[--s->n_events];
    size_t at = 0;
    for (size_t child; (child = 2 * at + 1) < s->n_events; at = child) {
        if (child + 1 < s->n_events && is_before (&s->heap[child + 1], &s->heap[child]))
            child++;
        if (!is_before (&s->heap[child], &last))
            break;
        s->heap[at] = s->heap[child];
    }
    if (s->n_events)
        s->heap[at] = last;
    return first;
}

static void give_step (wl_simulator *s, step *t)
{
    t->next = s->free_steps;
    s->free_steps = t;
}

/* -- machines ------------------------------------------------------------------------------------------------------------------------------------- */

static double demand (const wl_simulator *s, const sim_machine *m)
{
    double sum = 0;
    for (uint32_t i = 0; i < m->n; i++) {
        const sim_stage *stage = &s->stages[s->stage_order[m->first + i]];
        sum += stage->running ? stage->share : 0;
    }
    return sum > 1 ? sum : 1;
}

/* Brings the machine's work up to now. Called before what runs on it changes. */
static void advance (wl_simulator *s, sim_machine *m)
{
    double done = (s->now - m->at) / demand (s, m);
    for (uint32_t i = 0; i < m->n; i++) {
        sim_stage *stage = &s->stages[s->stage_order[m->first + i]];
        if (stage->running) {
            stage->work_left -= done;
            stage->took += s->now - m->at;
        }
    }
    m->at = s->now;
}

static bool expect_end (wl_simulator *s, sim_machine *m, wl_error *err)
{
    double least = INFINITY;
    for (uint32_t i = 0; i < m->n; i++) {
        const sim_stage *stage = &s->stages[s->stage_order[m->first + i]];
        if (stage->running && stage->work_left < least)
            least = stage->work_left;
    }
    m->version++;
    if (least == INFINITY)
        return true;
    return push (s,
                 (event){.at = s->now + (least > 0 ? least : 0) * demand (s, m),
                         .kind = MACHINE_ENDS,
                         .index = (uint32_t) (m - s->machines),
                         .version = m->version},
                 err);
}

/* Seconds of a step on a stage by itself (whole 0), or if it had the whole machine (1). */
static double step_s (const wl_simulator *s, const sim_stage *stage, const step *t, int whole)
{
    const wl_plan_worker *w = &s->request->workers[stage->worker];
    const wl_speed *speed = whole ? &s->request->machines[w->machine].whole : &w->speed;
    double seconds = stage->layers_s[whole][t->n_rows],
           correction = wl_correction_at (&stage->corrections[whole], t->n_rows);
    if (t->few_rows) {
        const wl_step_shape shape = {.rows = t->few_rows, .positions = t->few_positions / t->few_rows};
        seconds += correction * wl_cost_attention_s (s->request->cost, speed, stage->first, stage->last, &shape);
    }
    if (t->many_rows) {
        const wl_step_shape shape = {.rows = t->many_rows, .positions = t->many_positions / t->many_rows, .many = true};
        seconds += correction * wl_cost_attention_s (s->request->cost, speed, stage->first, stage->last, &shape);
    }
    return seconds + stage->head_s[whole][t->n_logit_rows];
}

static void begin (wl_simulator *s, sim_stage *stage)
{
    step *t = stage->queue;
    stage->running = t;
    if (!t)
        return;
    stage->queue = t->next;
    if (!stage->queue)
        stage->queue_end = &stage->queue;
    stage->work_left = step_s (s, stage, t, 0);
    stage->took = 0;
    stage->share = 1;
    if (s->request->machines[s->request->workers[stage->worker].machine].whole.n_threads)
        stage->share = step_s (s, stage, t, 1) / stage->work_left;
    if (stage->share > 1)
        stage->share = 1;
}

static bool arrive (wl_simulator *s, uint32_t index, step *t, wl_error *err)
{
    sim_stage *stage = &s->stages[index];
    sim_machine *m = &s->machines[stage->machine];
    t->next = NULL;
    *stage->queue_end = t;
    stage->queue_end = &t->next;
    if (stage->running)
        return true;
    advance (s, m);
    begin (s, stage);
    return expect_end (s, m, err);
}

static bool pass_on (wl_simulator *s, uint32_t index, step *t, wl_error *err)
{
    sim_stage *stage = &s->stages[index];
    double begin_s = stage->hop_free_at > s->now ? stage->hop_free_at : s->now;
    double bytes = index + 1 < s->n_stages ? (double) t->n_rows * s->hop_row_bytes : 0;
    stage->hop_free_at = begin_s + bytes / stage->hop.bytes_per_s;
    return push (
        s,
        (event){.at = stage->hop_free_at + stage->hop.latency_s, .kind = STEP_ARRIVES, .index = index + 1, .step = t},
        err);
}

/* Every stage of the machine whose work is done passes its step on and takes the next. */
static bool machine_ends (wl_simulator *s, sim_machine *m, wl_error *err)
{
    const double rounding = 1e-12;
    advance (s, m);
    for (uint32_t i = 0; i < m->n; i++) {
        uint32_t index = s->stage_order[m->first + i];
        sim_stage *stage = &s->stages[index];
        step *t = stage->running;
        if (!t || stage->work_left > rounding * (1 + s->now))
            continue;
        stage->busy_s += stage->took;
        t->took_s[index] = stage->took;
        begin (s, stage);
        if (!pass_on (s, index, t, err)) {
            give_step (s, t);
            return false;
        }
    }
    return expect_end (s, m, err);
}

/* -- the coordinator -------------------------------------------------------------------------------------------------------------------------------- */

static bool is_decoding (const wl_simulator *s, size_t i)
{
    return s->states[i].n_known > s->requests[i].n_prompt;
}

static bool is_ready (const wl_simulator *s, size_t i)
{
    return s->states[i].n_sent < s->states[i].n_known;
}

/* In order of arrival, as pages are free. */
static void admit (wl_simulator *s)
{
    while (s->n_waiting_from < s->n_arrived && s->states[s->n_waiting_from].n_pages <= s->n_free_pages) {
        size_t i = s->n_waiting_from++;
        s->n_free_pages -= s->states[i].n_pages;
        s->states[i].next = none;
        if (s->first_active == none)
            s->first_active = i;
        else
            s->states[s->last_active].next = i;
        s->last_active = i;
        s->n_active++;
    }
}

static bool add_entry (wl_simulator *s, step *t, size_t i, size_t n_rows, wl_error *err)
{
    sim_request *r = &s->states[i];
    if (t->n_entries == t->room) {
        size_t room = t->room ? t->room * 2 : 8;
        entry *grown = wl_resize (t->entries, room, sizeof *grown, err);
        if (!grown)
            return false;
        t->entries = grown;
        t->room = room;
    }
    bool draws = r->n_sent + n_rows == r->n_known;
    double positions = (double) n_rows * ((double) r->n_sent + ((double) n_rows + 1) / 2);
    t->entries[t->n_entries++] = (entry){i, (uint32_t) n_rows, draws};
    if (is_decoding (s, i)) {
        t->few_rows += (uint32_t) n_rows;
        t->few_positions += positions;
    } else {
        t->many_rows += (uint32_t) n_rows;
        t->many_positions += positions;
    }
    t->n_rows += (uint32_t) n_rows;
    t->n_logit_rows += draws;
    t->decodes = t->decodes || draws;
    r->n_sent += n_rows;
    return true;
}

static bool fill (wl_simulator *s, step *t, wl_error *err)
{
    size_t unread = 0, ready = 0,
           most_draws =
               s->options->max_logit_rows < s->options->max_rows ? s->options->max_logit_rows : s->options->max_rows;
    for (size_t i = s->first_active; i != none; i = s->states[i].next) {
        if (!is_decoding (s, i))
            unread += s->states[i].n_known - s->states[i].n_sent;
        else
            ready += is_ready (s, i);
    }
    size_t share = wl_policy_streams (s->cost, s->n_decoding, ready, s->n_decode_steps > 0, unread > 0);
    share = share < most_draws ? share : most_draws;
    for (size_t i = s->first_active; i != none && share; i = s->states[i].next)
        if (is_decoding (s, i) && is_ready (s, i)) {
            if (!add_entry (s, t, i, 1, err))
                return false;
            share--;
        }
    size_t rows = 0, most = 0;
    for (size_t i = s->first_active; i != none && unread; i = s->states[i].next) {
        if (is_decoding (s, i) || !is_ready (s, i))
            continue;
        if (most == 0)
            most = wl_policy_chunk (s->cost, s->options->chunk, &s->states[i].chunk, unread, s->options->max_rows,
                                    s->n_decoding > 0);
        size_t n = s->states[i].n_known - s->states[i].n_sent, room = s->options->max_rows - t->n_rows;
        room = room < most - rows ? room : most - rows;
        n = n < room ? n : room;
        if (n == 0 || t->n_logit_rows >= s->options->max_logit_rows)
            break;
        if (!add_entry (s, t, i, n, err))
            return false;
        rows += n;
    }
    return true;
}

static step *take_step (wl_simulator *s, wl_error *err)
{
    step *t = s->free_steps;
    if (t) {
        s->free_steps = t->next;
        *t = (step){.entries = t->entries, .room = t->room, .took_s = t->took_s};
        return t;
    }
    t = wl_new (1, sizeof *t, err);
    double *took_s = t ? wl_new (s->n_stages, sizeof *took_s, err) : NULL;
    if (!took_s) {
        free (t);
        return NULL;
    }
    t->took_s = took_s;
    return t;
}

static bool send_steps (wl_simulator *s, wl_error *err)
{
    admit (s);
    while (s->n_active && s->n_flights < wl_policy_steps (s->n_stages)) {
        step *t = take_step (s, err);
        if (!t)
            return false;
        bool ok = fill (s, t, err);
        if (!ok || t->n_rows == 0) {
            give_step (s, t);
            return ok;
        }
        s->n_flights++;
        s->n_steps++;
        s->n_decode_steps += t->decodes;
        if (!push (s, (event){.at = s->now + s->first_hop.latency_s, .kind = STEP_ARRIVES, .index = 0, .step = t},
                   err)) {
            give_step (s, t);
            return false;
        }
    }
    return true;
}

static void end_request (wl_simulator *s, size_t i)
{
    size_t before = none;
    for (size_t k = s->first_active; k != i; k = s->states[k].next)
        before = k;
    if (before == none)
        s->first_active = s->states[i].next;
    else
        s->states[before].next = s->states[i].next;
    if (s->last_active == i)
        s->last_active = before;
    s->n_free_pages += s->states[i].n_pages;
    s->requests[i].done_s = s->now;
    s->n_active--;
    s->n_decoding -= is_decoding (s, i);
    s->n_done++;
}

static void settle (wl_simulator *s, step *t)
{
    s->n_flights--;
    s->n_decode_steps -= t->decodes;
    for (uint32_t i = 0; i < s->n_stages && wl_policy_teaches (t->n_rows, t->n_logit_rows); i++)
        wl_step_cost_add (s->cost, i, t->n_rows, (uint64_t) (t->took_s[i] * 1e9));
    for (size_t k = 0; k < t->n_entries; k++) {
        size_t i = t->entries[k].request;
        if (!t->entries[k].draws)
            continue;
        if (!is_decoding (s, i)) {
            s->requests[i].first_s = s->now;
            s->n_decoding++;
        }
        s->states[i].n_known++;
        if (s->states[i].n_known - s->requests[i].n_prompt == s->requests[i].n_generated)
            end_request (s, i);
    }
    give_step (s, t);
}

static bool take_event (wl_simulator *s, const event *e, wl_error *err)
{
    s->now = e->at;
    switch (e->kind) {
    case REQUEST_ARRIVES:
        s->n_arrived++;
        if (s->n_arrived < s->n_requests &&
            !push (s, (event){.at = s->requests[s->n_arrived].arrival_s, .kind = REQUEST_ARRIVES}, err))
            return false;
        /* requests that come at once are all there before a step is made up */
        return s->n_events && s->heap[0].kind == REQUEST_ARRIVES && s->heap[0].at <= s->now ? true
                                                                                            : send_steps (s, err);
    case STEP_ARRIVES:
        if (e->index < s->n_stages)
            return arrive (s, e->index, e->step, err);
        settle (s, e->step);
        return send_steps (s, err);
    case MACHINE_ENDS:
        return e->version != s->machines[e->index].version || machine_ends (s, &s->machines[e->index], err);
    }
    return true;
}

/* -- all of it --------------------------------------------------------------------------------------------------------------------------------------- */

static bool open_stage (wl_simulator *s, uint32_t i, wl_error *err)
{
    const wl_plan_stage *planned = &s->plan->stages[i];
    const wl_plan_worker *w = &s->request->workers[planned->worker];
    sim_stage *stage = &s->stages[i];
    uint32_t next = i + 1 < s->n_stages ? s->plan->stages[i + 1].worker : s->request->n_workers;
    stage->worker = planned->worker;
    stage->first = planned->first_layer;
    stage->last = planned->last_layer;
    stage->machine = w->machine;
    stage->hop = wl_plan_hop (s->request, planned->worker, next);
    stage->queue_end = &stage->queue;
    stage->corrections[0] = w->correction;
    stage->corrections[1] = wl_plan_whole_correction (s->request, stage->worker);
    for (int whole = 0; whole < 2; whole++) {
        const wl_speed *speed = whole ? &s->request->machines[w->machine].whole : &w->speed;
        const wl_correction *correction = &stage->corrections[whole];
        stage->layers_s[whole] = wl_new (s->max_rows + 1, sizeof (double), err);
        stage->head_s[whole] = wl_new (s->max_rows + 1, sizeof (double), err);
        if (!stage->layers_s[whole] || !stage->head_s[whole])
            return false;
        for (uint32_t rows = 1; rows <= s->max_rows && speed->n_threads; rows++) {
            const wl_step_shape shape = {.rows = rows, .logit_rows = rows};
            stage->layers_s[whole][rows] = wl_cost_layers_s (s->request->cost, speed, stage->first, stage->last, rows) *
                                           wl_correction_at (correction, rows);
            if (stage->last + 1 == s->request->model->n_layers)
                stage->head_s[whole][rows] = wl_cost_head_s (s->request->cost, speed, correction, &shape);
        }
    }
    return true;
}

/* How many stages can compute at once: as many as a machine has cores for, on each. */
static uint32_t count_parallel (const wl_simulator *s)
{
    uint32_t n = 0;
    for (uint32_t m = 0; m < s->request->n_machines; m++) {
        uint32_t most = 1, here = s->machines[m].n, cores = s->request->machines[m].whole.n_threads;
        for (uint32_t i = 0; i < here; i++) {
            uint32_t threads =
                s->request->workers[s->stages[s->stage_order[s->machines[m].first + i]].worker].speed.n_threads;
            most = threads > most ? threads : most;
        }
        uint32_t at_once = cores == 0 ? here : cores / most ? cores / most : 1;
        n += here < at_once ? here : at_once;
    }
    return n;
}

wl_simulator *wl_simulator_new (const wl_plan_request *request, const wl_plan *plan, wl_error *err)
{
    wl_simulator *s = wl_new (1, sizeof *s, err);
    if (!s)
        return NULL;
    s->request = request;
    s->plan = plan;
    s->n_stages = plan->n_stages;
    s->max_rows = request->max_rows;
    s->hop_row_bytes = (double) wl_hop_row_bytes (request->hop, request->model->d_model);
    s->stages = wl_new (s->n_stages, sizeof *s->stages, err);
    s->machines = wl_new (request->n_machines, sizeof *s->machines, err);
    s->stage_order = wl_new (s->n_stages, sizeof *s->stage_order, err);
    bool ok = s->stages && s->machines && s->stage_order;
    for (uint32_t i = 0; ok && i < s->n_stages; i++)
        ok = open_stage (s, i, err);
    for (uint32_t m = 0, at = 0; ok && m < request->n_machines; m++) {
        s->machines[m].first = at;
        for (uint32_t i = 0; i < s->n_stages; i++)
            if (s->stages[i].machine == m)
                s->stage_order[at++] = i;
        s->machines[m].n = at - s->machines[m].first;
    }
    if (ok)
        s->cost = wl_step_cost_new (s->n_stages, count_parallel (s), err);
    if (!s->cost) {
        wl_simulator_free (&s);
        return NULL;
    }
    s->first_hop = wl_plan_hop (request, request->n_workers, plan->stages[0].worker);
    return s;
}

static void free_steps (step *t)
{
    for (step *next; t; t = next) {
        next = t->next;
        free (t->entries);
        free (t->took_s);
        free (t);
    }
}

/* Ends a run in the middle, too. */
static void clear (wl_simulator *s)
{
    for (size_t i = 0; i < s->n_events; i++)
        if (s->heap[i].step)
            give_step (s, s->heap[i].step);
    for (uint32_t i = 0; i < s->n_stages; i++) {
        sim_stage *stage = &s->stages[i];
        for (step *t = stage->queue, *next; t; t = next) {
            next = t->next;
            give_step (s, t);
        }
        if (stage->running)
            give_step (s, stage->running);
        stage->running = stage->queue = NULL;
        stage->queue_end = &stage->queue;
        stage->busy_s = stage->hop_free_at = 0;
    }
    for (uint32_t m = 0; m < s->request->n_machines; m++)
        s->machines[m].at = 0;
    free (s->states);
    s->states = NULL;
    s->n_events = 0;
    s->n_flights = 0;
    s->n_decode_steps = 0;
}

void wl_simulator_free (wl_simulator **simulator)
{
    wl_simulator *s = *simulator;
    if (!s)
        return;
    if (s->stages && s->machines)
        clear (s);
    for (uint32_t i = 0; s->stages && i < s->n_stages; i++)
        for (int whole = 0; whole < 2; whole++) {
            free (s->stages[i].layers_s[whole]);
            free (s->stages[i].head_s[whole]);
        }
    free_steps (s->free_steps);
    wl_step_cost_free (&s->cost);
    free (s->heap);
    free (s->stages);
    free (s->machines);
    free (s->stage_order);
    free (s);
    *simulator = NULL;
}

bool wl_simulate (wl_simulator *s, const wl_sim_options *options, wl_sim_request *requests, size_t n, double *wall_s,
                  uint64_t *n_steps, wl_sim_stage *stages, wl_error *err)
{
    s->options = options;
    s->requests = requests;
    s->n_requests = n;
    s->now = 0;
    s->first_active = s->last_active = none;
    s->n_waiting_from = s->n_arrived = s->n_active = s->n_decoding = s->n_done = 0;
    s->n_steps = 0;
    s->n_free_pages = options->n_pages;
    s->states = wl_new (n, sizeof *s->states, err);
    bool ok = s->states && options->max_rows <= s->max_rows;
    for (size_t i = 0; ok && i < n; i++) {
        uint64_t tokens = (uint64_t) requests[i].n_prompt + requests[i].n_generated,
                 pages = (tokens + WL_KV_PAGE - 1) / WL_KV_PAGE;
        s->states[i].n_known = requests[i].n_prompt;
        s->states[i].n_pages = pages > UINT32_MAX ? UINT32_MAX : (uint32_t) pages;
        if (pages > options->n_pages)
            ok = wl_fail (err, WL_ERROR_USAGE,
                          "a request of %llu tokens does not fit the context of %llu: choose a larger --ctx",
                          (unsigned long long) tokens, (unsigned long long) options->n_pages * WL_KV_PAGE);
    }
    if (ok && n)
        ok = push (s, (event){.at = requests[0].arrival_s, .kind = REQUEST_ARRIVES}, err);
    while (ok && s->n_events && s->n_done < n) {
        event e = pop (s);
        ok = take_event (s, &e, err);
    }
    *wall_s = s->now;
    *n_steps = s->n_steps;
    for (uint32_t i = 0; stages && i < s->n_stages; i++)
        stages[i].busy_s = s->stages[i].busy_s;
    clear (s);
    return ok;
}

/* -- predictions --------------------------------------------------------------------------------------------------------------------------------------- */

bool wl_predict_test (const wl_plan_request *request, const wl_plan *plan, uint32_t chunk, uint32_t n_streams,
                      uint32_t n_prompt, uint32_t n_generated, double *seconds, wl_error *err)
{
    uint64_t n_steps;
    wl_simulator *s = wl_simulator_new (request, plan, err);
    wl_sim_request *requests = wl_new (n_streams, sizeof *requests, err);
    const wl_sim_options options = {.max_rows = request->max_rows,
                                    .max_logit_rows = n_streams < request->max_rows ? n_streams : request->max_rows,
                                    .chunk = chunk,
                                    .n_pages = UINT32_MAX};
    for (uint32_t i = 0; requests && i < n_streams; i++)
        requests[i] = (wl_sim_request){.n_prompt = n_prompt, .n_generated = n_generated};
    /* as `bench` does: once for the scheduler to learn, and then for good */
    bool ok = s && requests && wl_simulate (s, &options, requests, n_streams, seconds, &n_steps, NULL, err) &&
              wl_simulate (s, &options, requests, n_streams, seconds, &n_steps, NULL, err);
    free (requests);
    wl_simulator_free (&s);
    return ok;
}

bool wl_predict (const wl_plan_request *request, const wl_plan *plan, uint32_t chunk, wl_prediction *out, wl_error *err)
{
    enum { TOKENS = 64 };
    double prefill = 1, decode = 1, eight = 1;
    bool ok = wl_predict_test (request, plan, chunk, 1, WL_PLAN_PROMPT, 1, &prefill, err) &&
              wl_predict_test (request, plan, chunk, 1, 1, TOKENS, &decode, err) &&
              wl_predict_test (request, plan, chunk, WL_PLAN_STREAMS, 1, TOKENS, &eight, err);
    *out = (wl_prediction){WL_PLAN_PROMPT / prefill, TOKENS / decode, (double) WL_PLAN_STREAMS * TOKENS / eight};
    return ok;
}
