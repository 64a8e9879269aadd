/* The plan of a cluster; see cluster_plan.h. */
#include "cluster_plan.h"

#include <stdlib.h>
#include <string.h>

#include "engine/machine.h"
#include "engine/memory.h"
#include "link_speed.h"
#include "policy.h"

bool cluster_is_host_only (const char *data_endpoint)
{
    char host[WL_HOST_BYTES];
    bool loopback, wildcard;
    return !wl_link_host (data_endpoint, host, &loopback, &wildcard) || loopback;
}

static wl_plan_request request_for (const wl_cluster_options *o, const wl_cluster_need *need)
{
    return (wl_plan_request){.model = need->model,
                             .objective = o->latency ? WL_LATENCY : WL_THROUGHPUT,
                             .layers = o->layers,
                             .n_pages = need->n_pages,
                             .kv = o->kv,
                             .max_rows = need->max_rows,
                             .max_logit_rows = need->max_logit_rows,
                             .hop = o->hop,
                             .chunk_rows = o->chunk ? o->chunk : need->max_rows};
}

bool cluster_plan_check (const wl_cluster_options *options, const wl_cluster_need *need, wl_error *err)
{
    wl_plan_request request = request_for (options, need);
    return wl_plan_check (&request, options->n_local, err);
}

/* -- who there is ---------------------------------------------------------------------------------------------------------------------------------- */

/* The machine that a member is on, by what it said; a new one if no other member is on it. 0 is this one. */
static uint32_t find_machine (const control_member *members, const uint32_t *machines, uint32_t i, uint32_t *n_machines,
                              const char *own_id)
{
    const control_member *m = &members[i];
    if (m->number || cluster_is_host_only (m->data_endpoint) || (m->machine[0] && strcmp (m->machine, own_id) == 0))
        return 0;
    for (uint32_t k = 0; k < i && m->machine[0]; k++)
        if (strcmp (members[k].machine, m->machine) == 0)
            return machines[k];
    return (*n_machines)++;
}

static void describe_remote (wl_plan_worker *w, const control_member *m, wl_plan_link here, const wl_cost *cost)
{
    bool host_only = cluster_is_host_only (m->data_endpoint);
    w->memory_bytes = m->memory_bytes;
    w->speed = m->own_known ? m->own : wl_speed_assumed (m->n_threads ? m->n_threads : 1);
    w->source = !m->own_known ? WL_SPEED_DEFAULT : m->own_cached ? WL_SPEED_CACHED : WL_SPEED_MEASURED;
    w->correction = m->own_known ? wl_correction_load (&m->own, wl_cost_kind (cost)) : (wl_correction){0};
    w->host_only = host_only;
    w->required = host_only; /* whoever starts workers on this host has chosen their number, as with --local */
    w->link = host_only ? here : wl_link_speed_assumed ();
    w->link_source = host_only ? WL_SPEED_CACHED : WL_SPEED_DEFAULT;
    if (!host_only && m->link_known) {
        w->link = (wl_plan_link){m->link_latency_s, m->link_bytes_per_s};
        w->link_source = WL_SPEED_MEASURED;
    }
}

/* -- noise ------------------------------------------------------------------------------------------------------------------------------------------- */

static bool is_same_kind (const wl_plan_worker *a, const wl_plan_worker *b)
{
    return a->source != WL_SPEED_DEFAULT && b->source != WL_SPEED_DEFAULT && a->speed.n_threads == b->speed.n_threads &&
           strcmp (a->speed.cpu, b->speed.cpu) == 0 && strcmp (a->speed.isa, b->speed.isa) == 0;
}

static bool is_near (double a, double b)
{
    const double noise = 1.05;
    return a <= b * noise && b <= a * noise;
}

/* What messages take varies more, and where it is next to nothing it does not matter. */
static bool is_near_link (wl_plan_link a, wl_plan_link b)
{
    const double noise = 1.25, nothing_s = 5e-5;
    double apart = a.latency_s > b.latency_s ? a.latency_s - b.latency_s : b.latency_s - a.latency_s;
    return (apart < nothing_s || (a.latency_s <= b.latency_s * noise && b.latency_s <= a.latency_s * noise)) &&
           a.bytes_per_s <= b.bytes_per_s * noise && b.bytes_per_s <= a.bytes_per_s * noise;
}

static double whole_step_s (const cluster_plan *p, const wl_plan_worker *w, const wl_step_shape *shape)
{
    return wl_cost_step_s (p->cost, &w->speed, NULL, 0, p->request.model->n_layers - 1, shape);
}

/* Workers that differ by less than measurements do are taken to be equal, so that the plan does not depend on it. On one machine, with as many threads, they are: what disturbed
 * one's measuring made it slower. On another machine of the same kind, and behind a link of the same kind, within a twentieth for this model. */
static void settle (cluster_plan *p, uint32_t n_local, uint32_t chunk_rows)
{
    const wl_step_shape chunk = {.rows = chunk_rows, .logit_rows = 1, .many = true}, one = {.rows = 1, .logit_rows = 1};
    for (uint32_t i = n_local; i < p->input.n_workers; i++)
        for (uint32_t k = n_local; k < i; k++) {
            wl_plan_worker *a = &p->input.workers[k], *b = &p->input.workers[i];
            if (a->machine == b->machine && is_same_kind (a, b)) {
                wl_speed_at_least (&a->speed, &b->speed);
                wl_speed_at_least (&b->speed, &a->speed);
            }
        }
    for (uint32_t i = n_local; i < p->input.n_workers; i++)
        for (uint32_t k = n_local; k < i; k++) {
            wl_plan_worker *a = &p->input.workers[k], *b = &p->input.workers[i];
            if (!is_same_kind (a, b) || !is_near (whole_step_s (p, a, &chunk), whole_step_s (p, b, &chunk)) ||
                !is_near (whole_step_s (p, a, &one), whole_step_s (p, b, &one)))
                continue;
            b->speed = a->speed;
            if (a->host_only == b->host_only && is_near_link (a->link, b->link))
                b->link = a->link;
            break;
        }
}

static bool gather (cluster_plan *p, const wl_cluster_options *o, uint32_t local_threads, uint64_t memory_bytes,
                    const control_member *members, uint32_t n, wl_error *err)
{
    char own_id[40];
    uint32_t n_machines = 1, n_local = 0;
    uint32_t *machines = wl_new (n, sizeof *machines, err);
    if (!machines)
        return false;
    wl_machine_id (own_id);
    for (uint32_t i = 0; i < n; i++) {
        machines[i] = find_machine (members, machines, i, &n_machines, own_id);
        n_local += members[i].number > 0;
    }
    bool ok = wl_plan_input_new (&p->input, n, n_machines, err);
    uint64_t each = n_local == n ? memory_bytes : memory_bytes / (n_local ? n_local : 1);
    wl_plan_link here = {0};
    if (ok && n_local)
        ok = wl_plan_input_local (&p->input, n_local, local_threads, o->isa, each, o->measures_anew, p->cost, err);
    else if (ok)
        p->input.machines[0].within = wl_link_speed_here (o->measures_anew, &p->input.within_source);
    if (ok)
        here = p->input.machines[0].within;
    for (uint32_t i = n_local; ok && i < n; i++) {
        wl_plan_worker *w = &p->input.workers[i];
        wl_plan_machine *machine = &p->input.machines[machines[i]];
        describe_remote (w, &members[i], here, p->cost);
        snprintf (p->input.names[i], sizeof p->input.names[i], "%s", members[i].name);
        w->name = p->input.names[i];
        w->machine = machines[i];
        w->required = w->required || o->use_all;
        machine->within = here; /* measured on this host: a kernel's ipc differs little between machines */
        if (!machine->whole.n_threads && members[i].whole_known)
            machine->whole = members[i].whole;
        else if (!machine->whole.n_threads && members[i].own_known &&
                 members[i].own.n_threads >= members[i].own.n_cores)
            machine->whole = members[i].own;
        if (machine->whole.n_threads && members[i].whole_known)
            wl_speed_at_least (&machine->whole, &members[i].whole);
        if (machine->whole.n_threads && members[i].own_known)
            wl_speed_at_least (&machine->whole, &members[i].own);
    }
    if (ok)
        settle (p, n_local, p->request.chunk_rows);
    for (uint32_t i = 0; ok && i < n_machines; i++)
        if (p->input.machines[i].whole.n_threads)
            p->input.machines[i].correction =
                wl_correction_load_together (&p->input.machines[i].whole, wl_cost_kind (p->cost));
    free (machines);
    return ok;
}

/* -- the plan ----------------------------------------------------------------------------------------------------------------------------------------- */

static uint32_t stages_on (const cluster_plan *p, uint32_t machine)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < p->plan.n_stages; i++)
        n += p->input.workers[p->plan.stages[i].worker].machine == machine;
    return n;
}

static bool open_lessons (cluster_plan *p, wl_error *err)
{
    p->lessons = wl_new (p->plan.n_stages, sizeof *p->lessons, err);
    p->together = wl_new (p->input.n_machines, sizeof *p->together, err);
    p->spans = wl_new ((size_t) CLUSTER_SPANS * p->plan.n_stages, sizeof *p->spans, err);
    bool ok = p->lessons && p->together && p->spans;
    for (uint32_t i = 0; ok && i < p->input.n_machines; i++) {
        const wl_speed *whole = &p->input.machines[i].whole;
        if (!whole->n_threads || stages_on (p, i) < 2)
            continue;
        p->together[i] = wl_lessons_new (whole, p->cost, true, err);
        ok = p->together[i] != NULL;
    }
    for (uint32_t i = 0; ok && i < p->plan.n_stages; i++) {
        const wl_plan_worker *w = &p->input.workers[p->plan.stages[i].worker];
        if (w->source == WL_SPEED_DEFAULT)
            continue;
        p->lessons[i] = wl_lessons_new (&w->speed, p->cost, false, err);
        ok = p->lessons[i] != NULL;
    }
    return ok;
}

bool cluster_plan_make (cluster_plan *p, const wl_cluster_options *options, const wl_cluster_need *need,
                        uint32_t local_threads, uint64_t memory_bytes, const control_member *members, uint32_t n,
                        const uint8_t *fingerprint, wl_error *err)
{
    bool all_local = true;
    *p = (cluster_plan){.request = request_for (options, need)};
    for (uint32_t i = 0; i < n; i++)
        all_local = all_local && members[i].number;
    p->cost = wl_cost_new (need->model, err);
    bool ok = p->cost && gather (p, options, local_threads, memory_bytes, members, n, err);
    if (ok) {
        wl_plan_input_fill (&p->input, &p->request);
        p->request.cost = p->cost;
        p->request.share_one_machine = all_local;
        p->request.machine_bytes = memory_bytes;
        if (fingerprint && !all_local) {
            wl_used_split_key (fingerprint, p->input.workers, n, p->key);
            p->kept = wl_used_split_load (p->key, &p->request.n_kept);
            p->request.kept = p->kept;
        }
        ok = wl_plan_make (&p->request, &p->plan, err) &&
             wl_predict (&p->request, &p->plan, options->chunk, &p->prediction, err) && open_lessons (p, err);
    }
    if (!ok)
        cluster_plan_free (p);
    return ok;
}

void cluster_plan_loaded (const cluster_plan *p)
{
    if (p->key[0])
        wl_used_split_store (p->key, &p->plan);
}

void cluster_plan_free (cluster_plan *p)
{
    for (uint32_t i = 0; p->lessons && i < p->plan.n_stages; i++)
        wl_lessons_free (&p->lessons[i]);
    for (uint32_t i = 0; p->together && i < p->input.n_machines; i++)
        wl_lessons_free (&p->together[i]);
    free (p->lessons);
    free (p->together);
    free (p->spans);
    free (p->kept);
    wl_plan_free (&p->plan);
    wl_plan_input_free (&p->input);
    wl_cost_free (&p->cost);
    *p = (cluster_plan){0};
}

/* -- what steps teach ----------------------------------------------------------------------------------------------------------------------------------- */

void cluster_plan_sent (cluster_plan *p, const Woolly__Step *step)
{
    double positions = 0;
    bool many = false, alone = p->n_sent == p->n_back;
    for (size_t i = 0; i < step->n_spans; i++) {
        const Woolly__Span *span = step->spans[i];
        positions += span->n_rows * (span->first_position + (span->n_rows + 1) / 2.0);
        many = many || span->n_rows > 1;
    }
    for (uint64_t i = p->n_back; i < p->n_sent; i++)
        p->flights[i % CLUSTER_FLIGHTS].alone = false;
    if (p->n_sent - p->n_back == CLUSTER_FLIGHTS)
        p->n_back++; /* the oldest is forgotten: it teaches nothing */
    p->flights[p->n_sent++ % CLUSTER_FLIGHTS] =
        (cluster_flight){.id = step->id,
                         .shape = {.rows = step->n_rows,
                                   .logit_rows = (double) step->n_picks,
                                   .positions = step->n_rows ? positions / step->n_rows : 0,
                                   .many = many},
                         .alone = alone};
}

/* Whether a stage had its machine for itself: no other of its stages was at work, or, for a step that computes more than it reads, there are cores for all of them. */
static bool was_undisturbed (const cluster_plan *p, uint32_t stage, const cluster_flight *f)
{
    enum { COMPUTING_ROWS = 48 };
    uint32_t machine = p->input.workers[p->plan.stages[stage].worker].machine, n = 0, threads = 0;
    for (uint32_t i = 0; i < p->plan.n_stages; i++) {
        const wl_plan_worker *w = &p->input.workers[p->plan.stages[i].worker];
        n += w->machine == machine;
        threads += w->machine == machine ? w->speed.n_threads : 0;
    }
    return f->alone || n == 1 ||
           (f->shape.rows >= COMPUTING_ROWS && threads <= p->input.machines[machine].whole.n_threads);
}

/* How much of a span the stages of a machine computed in others, on average: of those results that are in the ring. */
static double others_at_work (const cluster_plan *p, uint32_t stage, const cluster_span *span, uint32_t machine)
{
    uint64_t sum = 0;
    for (uint32_t k = 0; k < CLUSTER_SPANS && k < p->n_results; k++)
        for (uint32_t i = 0; i < p->plan.n_stages; i++) {
            const cluster_span *other = &p->spans[(size_t) k * p->plan.n_stages + i];
            uint64_t from = other->began_ns > span->began_ns ? other->began_ns : span->began_ns,
                     to = other->ended_ns < span->ended_ns ? other->ended_ns : span->ended_ns;
            if (i != stage && p->input.workers[p->plan.stages[i].worker].machine == machine && to > from)
                sum += to - from;
        }
    return (double) sum / (double) (span->ended_ns - span->began_ns);
}

/* A step teaches what a machine does with all its cores if its stages kept them all at work meanwhile: had it had them for itself, it would have taken its share of the time. What other
 * stages did then is known once the steps behind it are back. */
static void learn_together (cluster_plan *p)
{
    const double saturated = 0.9;
    uint64_t behind = p->plan.n_stages < CLUSTER_SPANS / 2 ? p->plan.n_stages : CLUSTER_SPANS / 2;
    if (p->n_results <= behind)
        return;
    uint64_t slot = (p->n_results - 1 - behind) % CLUSTER_SPANS;
    for (uint32_t i = 0; i < p->plan.n_stages; i++) {
        const wl_plan_stage *stage = &p->plan.stages[i];
        const wl_plan_worker *w = &p->input.workers[stage->worker];
        const cluster_span *span = &p->spans[slot * p->plan.n_stages + i];
        if (!p->together[w->machine] || span->ended_ns <= span->began_ns)
            continue;
        double busy = 1 + others_at_work (p, i, span, w->machine);
        if (busy * w->speed.n_threads >= saturated * p->input.machines[w->machine].whole.n_threads)
            wl_lessons_add (p->together[w->machine], stage->first_layer, stage->last_layer, &p->shapes[slot],
                            (double) (span->ended_ns - span->began_ns) * 1e-9 / busy);
    }
}

void cluster_plan_back (cluster_plan *p, const Woolly__Result *result)
{
    const cluster_flight *f = NULL;
    while (p->n_back < p->n_sent && (!f || f->id < result->id))
        f = &p->flights[p->n_back++ % CLUSTER_FLIGHTS];
    if (!f || f->id != result->id || result->skipped || result->n_timings != p->plan.n_stages)
        return;
    uint64_t slot = p->n_results++ % CLUSTER_SPANS;
    p->shapes[slot] = f->shape;
    for (uint32_t i = 0; i < p->plan.n_stages; i++) {
        const Woolly__Timing *t = result->timings[i];
        const wl_plan_stage *stage = &p->plan.stages[i];
        p->spans[slot * p->plan.n_stages + i] = (cluster_span){t->began_ns, t->ended_ns};
        if (p->lessons[i] && t->ended_ns > t->began_ns && was_undisturbed (p, i, f))
            wl_lessons_add (p->lessons[i], stage->first_layer, stage->last_layer, &f->shape,
                            (double) (t->ended_ns - t->began_ns) * 1e-9);
    }
    learn_together (p);
}
