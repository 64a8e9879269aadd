/* How layers are split over workers; see planner.h. Here are the prices of a workload, the words for people, and what is refused; the search is in plan_search.c. */
#include "planner.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/kv_cache.h"
#include "engine/memory.h"
#include "engine/stage.h"
#include "plan_search.h"

enum {
    MOST_CANDIDATES = 256, /* beyond, the fastest are considered: a model has no more layers than that */
    TELL_APART = 96,       /* kinds are told apart by all their hops up to so many workers */
};

/* -- bytes -------------------------------------------------------------------------------------------------------------------------------------- */

static uint64_t weight_bytes (const wl_plan_request *r, uint32_t first, uint32_t last)
{
    const wl_model *m = r->model;
    uint64_t bytes = first == 0 ? wl_model_embedding_bytes (m) : 0;
    for (uint32_t layer = first; layer <= last; layer++)
        bytes += wl_model_layer_bytes (m, layer);
    return last + 1 == m->n_layers ? bytes + wl_model_head_bytes (m) : bytes;
}

static uint64_t needed (const wl_plan_request *r, uint32_t first, uint32_t last)
{
    wl_stage_options options = {
        .first_layer = first, .last_layer = last, .n_pages = r->n_pages, .kv = r->kv, .max_rows = r->max_rows};
    return wl_stage_memory_needed (r->model, &options);
}

static uint64_t logit_bytes (const wl_plan_request *r)
{
    return (uint64_t) r->max_logit_rows * wl_stage_logit_stride (r->model) * sizeof (float);
}

/* All that a stage needs: what wl_stage_new will allocate, and the logits of one step. */
static uint64_t stage_bytes (const wl_plan_request *r, uint32_t first, uint32_t last)
{
    return needed (r, first, last) + (last + 1 == r->model->n_layers ? logit_bytes (r) : 0);
}

static wl_step_shape chunk_shape (const wl_plan_request *r)
{
    return (wl_step_shape){.rows = r->chunk_rows, .logit_rows = 1, .positions = WL_PLAN_PROMPT / 2.0, .many = true};
}

static wl_step_shape decode_shape (double rows)
{
    return (wl_step_shape){
        .rows = rows, .logit_rows = rows, .positions = WL_PLAN_PROMPT + WL_PLAN_GENERATED / 2.0, .many = false};
}

static void describe (const wl_plan_request *r, uint32_t worker, uint32_t first, uint32_t last, wl_plan_stage *out)
{
    const wl_model *m = r->model;
    const wl_step_shape chunk = chunk_shape (r), one = decode_shape (1);
    out->worker = worker;
    out->first_layer = first;
    out->last_layer = last;
    out->weight_bytes = weight_bytes (r, first, last);
    out->kv_bytes = r->n_pages * wl_kv_page_bytes (r->kv, last - first + 1, m->n_kv_heads, m->head_dim);
    uint64_t all = stage_bytes (r, first, last);
    out->work_bytes = all > out->weight_bytes + out->kv_bytes ? all - out->weight_bytes - out->kv_bytes : 0;
    out->prefill_s = wl_plan_step_s (r, worker, 1, first, last, &chunk);
    out->decode_s = wl_plan_step_s (r, worker, 1, first, last, &one);
}

/* -- seconds -------------------------------------------------------------------------------------------------------------------------------------- */

wl_plan_link wl_plan_hop (const wl_plan_request *r, uint32_t from, uint32_t to)
{
    const wl_plan_worker *a = from < r->n_workers ? &r->workers[from] : NULL,
                         *b = to < r->n_workers ? &r->workers[to] : NULL;
    if (b && b->host_only && a && !a->host_only)
        return (wl_plan_link){INFINITY, 1};
    if (r->pairs)
        return r->pairs[(size_t) from * (r->n_workers + 1) + to];
    if (!a || !b)
        return a ? a->link : b ? b->link : (wl_plan_link){0, INFINITY};
    /* Workers of the coordinator's own machine that it reaches over the network are reached by one another that way too: they may be in containers. */
    if (a->machine == b->machine && (a->machine != 0 || (a->host_only && b->host_only)))
        return r->machines[a->machine].within;
    return (wl_plan_link){a->link.latency_s > b->link.latency_s ? a->link.latency_s : b->link.latency_s,
                          a->link.bytes_per_s < b->link.bytes_per_s ? a->link.bytes_per_s : b->link.bytes_per_s};
}

/* What `sharing` workers leave of a machine: each has at most its part of what all cores do together. */
static double shared (const wl_plan_request *r, uint32_t worker, uint32_t sharing, double own_s, double whole_s)
{
    const wl_plan_machine *machine = &r->machines[r->workers[worker].machine];
    double part = sharing > 1 && machine->whole.n_threads ? sharing * whole_s : 0;
    return part > own_s ? part : own_s;
}

wl_correction wl_plan_whole_correction (const wl_plan_request *r, uint32_t worker)
{
    const wl_plan_worker *w = &r->workers[worker];
    return wl_correction_or (&r->machines[w->machine].correction, &w->correction);
}

double wl_plan_step_s (const wl_plan_request *r, uint32_t worker, uint32_t sharing, uint32_t first, uint32_t last,
                       const wl_step_shape *shape)
{
    const wl_plan_worker *w = &r->workers[worker];
    double own = wl_cost_step_s (r->cost, &w->speed, &w->correction, first, last, shape), whole = 0;
    const wl_correction correction = wl_plan_whole_correction (r, worker);
    if (sharing > 1)
        whole = wl_cost_step_s (r->cost, &r->machines[w->machine].whole, &correction, first, last, shape);
    return shared (r, worker, sharing, own, whole);
}

/* -- prices of the workload ------------------------------------------------------------------------------------------------------------------------- */

typedef struct workload {
    double chunks, prompts, decode_rows, decode_steps; /* of all streams */
    double in_flight;                                  /* decode steps: what all streams make, dealt into so many */
    double scale;                                      /* to eight requests */
} workload;

/* For streams that are dealt over `n_steps` steps. */
static workload workload_for (const wl_plan_request *r, uint32_t n_steps)
{
    double chunks = ceil ((double) WL_PLAN_PROMPT / r->chunk_rows);
    if (r->objective == WL_LATENCY) /* the other chunks follow the first */
        return (workload){1, 1, 1, WL_PLAN_GENERATED, 1, 1};
    double streams = n_steps > WL_PLAN_STREAMS ? n_steps : WL_PLAN_STREAMS,
           rows = ceil (WL_PLAN_STREAMS / (double) n_steps);
    return (workload){.chunks = chunks * streams,
                      .prompts = streams,
                      .decode_rows = rows,
                      .decode_steps = WL_PLAN_GENERATED * streams / rows,
                      .in_flight = streams / rows,
                      .scale = WL_PLAN_STREAMS / streams};
}

typedef struct pricing {
    plan_prices prices;
    uint32_t *candidates; /* [prices.n] workers, kinds next to one another */
    uint32_t *kinds;      /* [prices.n] */
    uint64_t *layer_bytes;
    uint32_t *sharing; /* [n_machines] workers that are taken to be at work there */
} pricing;

static void free_pricing (pricing *p)
{
    free (p->prices.layers_s);
    free (p->prices.decode_layers_s);
    free (p->prices.head_s);
    free (p->prices.decode_head_s);
    free (p->prices.hops_s);
    free (p->prices.transfers_s);
    free (p->prices.decode_transfers_s);
    free (p->prices.memory_bytes);
    free (p->prices.required);
    free (p->candidates);
    free (p->kinds);
    free (p->layer_bytes);
    free (p->sharing);
    *p = (pricing){0};
}

static bool open_pricing (pricing *p, const wl_plan_request *r, wl_error *err)
{
    size_t n = r->n_workers, layers = r->model->n_layers, most = n < MOST_CANDIDATES ? n : MOST_CANDIDATES;
    *p = (pricing){.candidates = wl_new (n, sizeof *p->candidates, err),
                   .kinds = wl_new (n, sizeof *p->kinds, err),
                   .layer_bytes = wl_new (layers + 1, sizeof *p->layer_bytes, err),
                   .sharing = wl_new (r->n_machines, sizeof *p->sharing, err)};
    p->prices.n_layers = r->model->n_layers;
    p->prices.latency = r->objective == WL_LATENCY;
    p->prices.layers_s = wl_new (most * (layers + 1), sizeof (double), err);
    p->prices.decode_layers_s = wl_new (most * (layers + 1), sizeof (double), err);
    p->prices.head_s = wl_new (most, sizeof (double), err);
    p->prices.decode_head_s = wl_new (most, sizeof (double), err);
    p->prices.hops_s = wl_new ((most + 1) * (most + 1), sizeof (double), err);
    p->prices.transfers_s = wl_new ((most + 1) * (most + 1), sizeof (double), err);
    p->prices.decode_transfers_s = wl_new ((most + 1) * (most + 1), sizeof (double), err);
    p->prices.memory_bytes = wl_new (most, sizeof (uint64_t), err);
    p->prices.required = wl_new (most, sizeof (bool), err);
    p->prices.layer_bytes = p->layer_bytes;
    p->prices.kinds = p->kinds;
    if (p->candidates && p->kinds && p->layer_bytes && p->sharing && p->prices.layers_s && p->prices.decode_layers_s &&
        p->prices.head_s && p->prices.decode_head_s && p->prices.hops_s && p->prices.transfers_s &&
        p->prices.decode_transfers_s && p->prices.memory_bytes && p->prices.required)
        return true;
    free_pricing (p);
    return false;
}

/* Memory adds up by layer, apart from work space and what the ends have; so differences of ranges give the parts. */
static void price_memory (const wl_plan_request *r, pricing *p)
{
    uint32_t last = r->model->n_layers - 1;
    uint64_t embedding = wl_model_embedding_bytes (r->model);
    p->prices.first_bytes = embedding;
    p->prices.last_bytes = logit_bytes (r);
    if (last == 0) {
        p->layer_bytes[1] = needed (r, 0, 0) - embedding;
        return;
    }
    for (uint32_t i = 0; i < last; i++)
        p->layer_bytes[i + 1] =
            p->layer_bytes[i] + needed (r, i, i + 1) - needed (r, i + 1, i + 1) - (i == 0 ? embedding : 0);
    p->prices.work_bytes = needed (r, 0, 0) - embedding - p->layer_bytes[1];
    p->layer_bytes[last + 1] = p->layer_bytes[last] + needed (r, last, last) - p->prices.work_bytes;
}

/* The workload without its prompts. */
static workload decoding_of (const workload *w)
{
    workload decoding = *w;
    decoding.chunks = decoding.prompts = 0;
    return decoding;
}

static double transfer_s (const wl_plan_request *r, const workload *w, wl_plan_link link)
{
    double rows = w->chunks * r->chunk_rows + w->decode_steps * w->decode_rows;
    return rows * (double) wl_hop_row_bytes (r->hop, r->model->d_model) / link.bytes_per_s * w->scale;
}

static void price_hops (const wl_plan_request *r, pricing *p, const workload *w)
{
    uint32_t n = p->prices.n;
    double steps = w->chunks + w->decode_steps;
    const workload decoding = decoding_of (w);
    for (uint32_t a = 0; a <= n; a++)
        for (uint32_t b = 0; b <= n; b++) {
            size_t i = (size_t) a * (n + 1) + b;
            wl_plan_link link =
                wl_plan_hop (r, a < n ? p->candidates[a] : r->n_workers, b < n ? p->candidates[b] : r->n_workers);
            bool tokens_only = a == n || b == n;
            p->prices.transfers_s[i] = tokens_only ? 0 : transfer_s (r, w, link);
            p->prices.decode_transfers_s[i] = tokens_only ? 0 : transfer_s (r, &decoding, link);
            p->prices.hops_s[i] = steps * link.latency_s * w->scale + p->prices.transfers_s[i];
        }
}

/* Seconds of the workload in one layer at some speed, or in the head. */
static double layer_s (const wl_plan_request *r, const workload *w, const wl_speed *speed,
                       const wl_correction *correction, uint32_t layer)
{
    const wl_step_shape chunk = chunk_shape (r), decode = decode_shape (w->decode_rows);
    double prefill = w->chunks > 0 ? w->chunks * wl_cost_layer_s (r->cost, speed, correction, layer, &chunk) : 0;
    return (prefill + w->decode_steps * wl_cost_layer_s (r->cost, speed, correction, layer, &decode)) * w->scale;
}

static double head_s (const wl_plan_request *r, const workload *w, const wl_speed *speed,
                      const wl_correction *correction)
{
    const wl_step_shape decode = decode_shape (w->decode_rows), first = {.rows = 1, .logit_rows = 1};
    double prefill = w->prompts > 0 ? w->prompts * wl_cost_head_s (r->cost, speed, correction, &first) : 0;
    return (prefill + w->decode_steps * wl_cost_head_s (r->cost, speed, correction, &decode)) * w->scale;
}

/* Of candidate i: `layers_s` [n_layers + 1] of the layers before each, and its head. */
static void price_worker (const wl_plan_request *r, const pricing *p, const workload *w, uint32_t i, double *layers_s,
                          double *head)
{
    uint32_t worker = p->candidates[i];
    const wl_plan_worker *v = &r->workers[worker];
    const wl_speed *whole = &r->machines[v->machine].whole;
    uint32_t sharing = p->prices.latency ? 1 : p->sharing[v->machine];
    const wl_correction correction = wl_plan_whole_correction (r, worker);
    bool crowded = sharing > 1 && whole->n_threads;
    for (uint32_t layer = 0; layer < p->prices.n_layers; layer++) {
        uint32_t like = wl_cost_like (r->cost, layer);
        double seconds = layers_s[like + 1] - layers_s[like];
        if (like == layer)
            seconds = shared (r, worker, sharing, layer_s (r, w, &v->speed, &v->correction, layer),
                              crowded ? layer_s (r, w, whole, &correction, layer) : 0);
        layers_s[layer + 1] = layers_s[layer] + seconds;
    }
    *head = shared (r, worker, sharing, head_s (r, w, &v->speed, &v->correction),
                    crowded ? head_s (r, w, whole, &correction) : 0);
}

static void price_layers (const wl_plan_request *r, pricing *p, const workload *w)
{
    const workload decoding = decoding_of (w);
    for (uint32_t i = 0; i < p->prices.n; i++) {
        const wl_plan_worker *v = &r->workers[p->candidates[i]];
        size_t row = (size_t) i * (p->prices.n_layers + 1);
        price_worker (r, p, w, i, p->prices.layers_s + row, &p->prices.head_s[i]);
        price_worker (r, p, &decoding, i, p->prices.decode_layers_s + row, &p->prices.decode_head_s[i]);
        p->prices.memory_bytes[i] = v->memory_bytes;
        p->prices.required[i] = v->required;
    }
}

/* -- kinds -------------------------------------------------------------------------------------------------------------------------------------------- */

static bool same_link (wl_plan_link a, wl_plan_link b)
{
    return a.latency_s == b.latency_s && a.bytes_per_s == b.bytes_per_s;
}

static bool same_worker (const wl_plan_request *r, const uint32_t *sharing, uint32_t x, uint32_t y)
{
    const wl_plan_worker *a = &r->workers[x], *b = &r->workers[y];
    bool same = a->memory_bytes == b->memory_bytes && a->required == b->required && a->host_only == b->host_only &&
                (a->machine == b->machine || (sharing[a->machine] == 1 && sharing[b->machine] == 1)) &&
                wl_speed_equal (&a->speed, &b->speed) && wl_correction_equal (&a->correction, &b->correction);
    if (!same || (!r->pairs && r->n_workers > TELL_APART))
        return same && same_link (a->link, b->link);
    for (uint32_t z = 0; same && z <= r->n_workers; z++)
        if (z != x && z != y)
            same = same_link (wl_plan_hop (r, x, z), wl_plan_hop (r, y, z)) &&
                   same_link (wl_plan_hop (r, z, x), wl_plan_hop (r, z, y));
    return same && same_link (wl_plan_hop (r, x, y), wl_plan_hop (r, y, x));
}

/* Brings workers of a kind together, in the order in which each kind first comes; those that only this host can reach come first by themselves. */
static void sort_kinds (const wl_plan_request *r, pricing *p)
{
    uint32_t n = p->prices.n, done = 0;
    p->prices.n_kinds = 0;
    while (done < n) {
        uint32_t model = p->candidates[done];
        p->kinds[done++] = p->prices.n_kinds;
        for (uint32_t i = done; i < n && n <= MOST_CANDIDATES; i++) {
            if (!same_worker (r, p->sharing, model, p->candidates[i]))
                continue;
            uint32_t moved = p->candidates[i];
            for (uint32_t k = i; k > done; k--)
                p->candidates[k] = p->candidates[k - 1];
            p->candidates[done] = moved;
            p->kinds[done++] = p->prices.n_kinds;
        }
        p->prices.n_kinds++;
    }
}

/* Of very many workers, those that are required and the fastest for a layer that they have the memory for. */
static bool choose_candidates (const wl_plan_request *r, pricing *p, const bool *excluded, wl_error *err)
{
    const wl_step_shape shape = decode_shape (1);
    uint32_t n = 0;
    double *seconds = wl_new (r->n_workers, sizeof *seconds, err);
    if (!seconds)
        return false;
    for (uint32_t i = 0; i < r->n_workers; i++) {
        const wl_plan_worker *w = &r->workers[i];
        if (excluded && excluded[i])
            continue;
        seconds[i] =
            w->required ? 0 : wl_cost_layer_s (r->cost, &w->speed, &w->correction, 0, &shape) + w->link.latency_s;
        if (n == MOST_CANDIDATES) {
            uint32_t slowest = 0;
            for (uint32_t k = 1; k < n; k++)
                slowest = seconds[p->candidates[k]] >= seconds[p->candidates[slowest]] ? k : slowest;
            if (seconds[i] >= seconds[p->candidates[slowest]])
                continue;
            memmove (p->candidates + slowest, p->candidates + slowest + 1, (n - slowest - 1) * sizeof *p->candidates);
            n--;
        }
        p->candidates[n++] = i;
    }
    p->prices.n = n;
    for (uint32_t i = 0; i < r->n_machines; i++)
        p->sharing[i] = 0;
    for (uint32_t i = 0; i < n; i++)
        p->sharing[r->workers[p->candidates[i]].machine]++;
    free (seconds);
    return true;
}

/* -- the best split of some workers --------------------------------------------------------------------------------------------------------------------- */

typedef struct found {
    plan_part *parts; /* [n_layers] of workers of the request */
    uint32_t n;
    double value;
    bool exact;
} found;

static void price (const wl_plan_request *r, pricing *p, const workload *w)
{
    p->prices.in_flight = w->in_flight;
    price_layers (r, p, w);
    price_hops (r, p, w);
}

/* The next number of steps to deal streams over: each that changes how many rows a step has; beyond eight, what was found, and then halves. 0: none. */
static uint32_t fewer_steps (uint32_t tried, uint32_t n_parts)
{
    static const uint32_t by_rows[] = {8, 4, 3, 2, 1};
    if (tried > WL_PLAN_STREAMS)
        return n_parts > WL_PLAN_STREAMS && n_parts < tried ? n_parts
               : tried > 2 * WL_PLAN_STREAMS                ? tried / 2
                                                            : WL_PLAN_STREAMS;
    for (size_t i = 0; i < sizeof by_rows / sizeof by_rows[0]; i++)
        if (by_rows[i] < tried)
            return by_rows[i];
    return 0;
}

/* What steps cost depends on how many the streams are dealt over, so every number is tried: no more than a pipeline of what was found takes at once. */
static bool search_among (const wl_plan_request *r, const bool *excluded, bool use_memory, found *out, wl_error *err)
{
    enum { PATIENCE = 2, MANY = 16 };
    pricing p;
    plan_part *parts = wl_new (r->model->n_layers, sizeof *parts, err);
    bool ok = parts && open_pricing (&p, r, err);
    if (!ok) {
        free (parts);
        return false;
    }
    ok = choose_candidates (r, &p, excluded, err);
    uint32_t n_steps = p.prices.n < r->model->n_layers ? p.prices.n : r->model->n_layers, in_vain = 0;
    out->n = 0;
    out->value = INFINITY;
    if (ok && p.prices.n) {
        sort_kinds (r, &p);
        price_memory (r, &p);
    }
    while (ok && n_steps && in_vain < PATIENCE) {
        uint32_t n_parts;
        double value = out->value; /* to be beaten */
        workload w = workload_for (r, n_steps);
        price (r, &p, &w);
        for (uint32_t i = 0; !use_memory && i < p.prices.n; i++)
            p.prices.memory_bytes[i] = UINT64_MAX;
        ok = plan_search (&p.prices, parts, &n_parts, &value, &out->exact, err);
        if (!ok || (n_parts == 0 && out->n == 0))
            break;
        in_vain += out->n && p.prices.n > MANY;
        if (n_parts && w.in_flight <= n_parts + 1) {
            out->value = value;
            out->n = n_parts;
            memcpy (out->parts, parts, n_parts * sizeof *parts);
            in_vain = 0;
        }
        n_steps = r->objective == WL_LATENCY ? 0 : fewer_steps (n_steps, n_parts ? n_parts : out->n);
    }
    for (uint32_t i = 0; ok && i < out->n; i++)
        out->parts[i].worker = p.candidates[out->parts[i].worker];
    free_pricing (&p);
    free (parts);
    return ok;
}

/* -- a split as it is --------------------------------------------------------------------------------------------------------------------------- */

/* Seconds of the workload on these parts. Stages of one machine take what they need of it while others wait, so together they are as slow as the machine and each as slow as its own
 * threads; where there are several machines, each stage is taken to have its share. The prices are left as those of its own threads, or of its share. */
static double price_parts (const wl_plan_request *r, pricing *p, const workload *w, const plan_part *parts, uint32_t n)
{
    uint32_t *sharing = &p->sharing[r->workers[p->candidates[0]].machine], all = *sharing;
    double together = 0;
    price (r, p, w);
    if (all == 1 || all < n || r->objective == WL_LATENCY)
        return plan_phases_s (&p->prices, parts, n);
    for (uint32_t i = 0; i < n; i++)
        together += plan_part_s (&p->prices, &parts[i]) / n;
    *sharing = 1;
    price (r, p, w);
    *sharing = all;
    return fmax (together, plan_phases_s (&p->prices, parts, n));
}

/* Prices for just the workers of a split, dealt over as many steps as suits it, which is left in *best; `parts` [n] of them. *phases_s: seconds of the workload, as if there were no other
 * workers: INFINITY where one cannot reach the next, or memory is short. */
static bool price_split (const wl_plan_request *r, const plan_part *split, uint32_t n, pricing *p, plan_part *parts,
                         workload *best, double *phases_s, wl_error *err)
{
    bool *excluded = wl_new (r->n_workers, sizeof *excluded, err);
    bool ok = excluded && open_pricing (p, r, err);
    *phases_s = INFINITY;
    for (uint32_t i = 0; ok && i < r->n_workers; i++)
        excluded[i] = true;
    for (uint32_t i = 0; ok && i < n; i++)
        excluded[split[i].worker] = false;
    ok = ok && choose_candidates (r, p, excluded, err);
    free (excluded);
    if (!ok || p->prices.n != n)
        return ok;
    price_memory (r, p);
    for (uint32_t i = 0; i < n; i++) {
        parts[i] = split[i];
        for (parts[i].worker = 0; p->candidates[parts[i].worker] != split[i].worker;)
            parts[i].worker++;
    }
    for (uint32_t n_steps = n; n_steps;) {
        workload w = workload_for (r, n_steps);
        double seconds = price_parts (r, p, &w, parts, n);
        if (seconds < *phases_s) {
            *phases_s = seconds;
            *best = w;
        }
        n_steps = r->objective == WL_LATENCY ? 0 : fewer_steps (n_steps, n);
    }
    for (uint32_t i = 0; i < n; i++)
        if (!plan_part_fits (&p->prices, &parts[i]))
            *phases_s = INFINITY;
    return true;
}

static bool split_value (const wl_plan_request *r, const plan_part *split, uint32_t n, double *value, wl_error *err)
{
    pricing p = {0};
    workload best;
    plan_part *parts = wl_new (n, sizeof *parts, err);
    bool ok = parts && price_split (r, split, n, &p, parts, &best, value, err);
    free_pricing (&p);
    free (parts);
    return ok;
}

/* Moves the cuts of what was found to where prefill and decoding, one after the other, take the least. */
static bool recut (const wl_plan_request *r, found *best, wl_error *err)
{
    pricing p = {0};
    workload w;
    plan_part *parts = wl_new (r->model->n_layers, sizeof *parts, err);
    bool ok = parts && price_split (r, best->parts, best->n, &p, parts, &w, &best->value, err);
    if (ok && best->value < INFINITY && r->objective == WL_THROUGHPUT) {
        price_parts (r, &p, &w, parts, best->n);
        ok = plan_recut (&p.prices, parts, best->n, err);
        best->value = price_parts (r, &p, &w, parts, best->n);
        for (uint32_t i = 0; i < best->n; i++)
            best->parts[i] = (plan_part){p.candidates[parts[i].worker], parts[i].first, parts[i].end};
    }
    free_pricing (&p);
    free (parts);
    return ok;
}

/* -- the best of all ------------------------------------------------------------------------------------------------------------------------------- */

/* Machines whose workers hinder one another are tried with fewer of them: first without those that were not used anyway, then without the last one, while that helps. */
static bool search (const wl_plan_request *r, bool use_memory, found *best, wl_error *err)
{
    found other = {.parts = wl_new (r->model->n_layers, sizeof *other.parts, err)};
    bool *excluded = wl_new (r->n_workers, sizeof *excluded, err), *used = wl_new (r->n_workers, sizeof *used, err);
    uint32_t *sharing = wl_new (r->n_machines, sizeof *sharing, err);
    bool ok = other.parts && excluded && used && sharing && search_among (r, NULL, use_memory, best, err),
         changed = true;
    while (ok && changed && best->n && r->objective == WL_THROUGHPUT) {
        changed = false;
        memset (used, 0, r->n_workers * sizeof *used);
        memset (sharing, 0, r->n_machines * sizeof *sharing);
        for (uint32_t i = 0; i < best->n; i++)
            used[best->parts[i].worker] = true;
        for (uint32_t i = 0; i < r->n_workers; i++)
            sharing[r->workers[i].machine] += !excluded[i];
        for (uint32_t i = 0; i < r->n_workers; i++)
            if (!used[i] && !excluded[i] && sharing[r->workers[i].machine] > 1)
                changed = excluded[i] = true;
        for (uint32_t i = r->n_workers; !changed && i-- > 0;)
            if (used[i] && !r->workers[i].required && sharing[r->workers[i].machine] > 1 && !excluded[i])
                changed = excluded[i] = true;
        if (!changed)
            break;
        ok = search_among (r, excluded, use_memory, &other, err);
        changed = other.n && other.value < best->value * 1.0001;
        if (changed) {
            found swapped = *best;
            *best = other;
            other = swapped;
        }
    }
    if (ok && best->n && use_memory)
        ok = recut (r, best, err);
    free (sharing);
    free (used);
    free (excluded);
    free (other.parts);
    return ok;
}

/* -- a split by hand ------------------------------------------------------------------------------------------------------------------ */

/* `stages` NULL: it is only checked. */
static bool parse_layers (const wl_plan_request *r, wl_plan_stage *stages, wl_plan *plan, wl_error *err)
{
    const char *text = r->layers;
    uint32_t next = 0, n_layers = r->model->n_layers, n = 0;
    for (const char *at = text; *at;) {
        char *end;
        if (*at < '0' || *at > '9')
            return wl_fail (err, WL_ERROR_USAGE, "--layers \"%s\": expected ranges such as 0-19,20-39", text);
        unsigned long first = strtoul (at, &end, 10), last = first;
        at = end;
        if (*at == '-') {
            if (at[1] < '0' || at[1] > '9')
                return wl_fail (err, WL_ERROR_USAGE, "--layers \"%s\": expected ranges such as 0-19,20-39", text);
            last = strtoul (at + 1, &end, 10);
            at = end;
        }
        if (*at == ',' && at[1])
            at++;
        else if (*at)
            return wl_fail (err, WL_ERROR_USAGE, "--layers \"%s\": expected ranges such as 0-19,20-39", text);
        if (first != next)
            return wl_fail (err, WL_ERROR_USAGE, "--layers \"%s\": layer %u is %s", text,
                            first > next ? next : (uint32_t) first, first > next ? "in no range" : "in two ranges");
        if (last < first || last >= n_layers)
            return wl_fail (err, WL_ERROR_USAGE,
                            "--layers \"%s\": the range %lu-%lu is not within the model's layers 0-%u", text, first,
                            last, n_layers - 1);
        if (n == r->n_workers)
            return wl_fail (err, WL_ERROR_USAGE, "--layers \"%s\": more ranges than the %u workers", text,
                            r->n_workers);
        if (stages)
            describe (r, n, (uint32_t) first, (uint32_t) last, &stages[n]);
        n++;
        next = (uint32_t) last + 1;
    }
    if (next != n_layers)
        return wl_fail (err, WL_ERROR_USAGE, "--layers \"%s\": layers %u-%u are in no range", text, next, n_layers - 1);
    if (n != r->n_workers)
        return wl_fail (err, WL_ERROR_USAGE, "--layers \"%s\": %u ranges for %u workers", text, n, r->n_workers);
    plan->n_stages = n;
    return true;
}

/* -- does it fit? -------------------------------------------------------------------------------------------------------------------------- */

static bool check_memory (const wl_plan_request *r, const wl_plan_stage *stages, uint32_t n, wl_error *err)
{
    const double mb = 1e6;
    uint64_t total = 0;
    for (uint32_t i = 0; i < n; i++) {
        const wl_plan_stage *s = &stages[i];
        const wl_plan_worker *w = &r->workers[s->worker];
        uint64_t need = s->weight_bytes + s->kv_bytes + s->work_bytes;
        total += need;
        if (need > w->memory_bytes)
            return wl_fail (err, WL_ERROR_CLUSTER,
                            "the model does not fit: worker %s would need %.1f MB for layers %u-%u (weights %.1f, KV "
                            "%.1f, work %.1f) and "
                            "has %.1f MB: add workers or memory, or choose a smaller --ctx or model",
                            w->name, (double) need / mb, s->first_layer, s->last_layer, (double) s->weight_bytes / mb,
                            (double) s->kv_bytes / mb, (double) s->work_bytes / mb, (double) w->memory_bytes / mb);
    }
    if (r->share_one_machine && total > r->machine_bytes)
        return wl_fail (err, WL_ERROR_CLUSTER,
                        "the model does not fit: its %u stages need %.1f MB together and this machine has %.1f MB "
                        "left: add a machine, or "
                        "choose a smaller --ctx or model",
                        n, (double) total / mb, (double) r->machine_bytes / mb);
    return true;
}

/* -- why ------------------------------------------------------------------------------------------------------------------------------------------------- */

static const char *workload_name (const wl_plan_request *r)
{
    return r->objective == WL_LATENCY ? "a request by itself" : "eight requests";
}

/* Seconds of the workload on a stage. */
static double workload_s (const wl_plan_request *r, const wl_plan_stage *s, uint32_t n_stages)
{
    workload w = workload_for (r, n_stages);
    const wl_step_shape decode = decode_shape (w.decode_rows);
    return (w.chunks * s->prefill_s +
            w.decode_steps * wl_plan_step_s (r, s->worker, 1, s->first_layer, s->last_layer, &decode)) *
           w.scale;
}

static void explain_stage (const wl_plan_request *r, wl_plan *plan, uint32_t i)
{
    const wl_plan_stage *s = &plan->stages[i];
    char *reason = plan->reasons[s->worker];
    double slowest = 0, own = workload_s (r, s, plan->n_stages);
    for (uint32_t k = 0; k < plan->n_stages; k++) {
        double other = workload_s (r, &plan->stages[k], plan->n_stages);
        slowest = other > slowest ? other : slowest;
    }
    uint32_t last = r->model->n_layers - 1;
    bool full =
        (s->last_layer < last &&
         stage_bytes (r, s->first_layer, s->last_layer + 1) > r->workers[s->worker].memory_bytes) ||
        (s->first_layer > 0 && stage_bytes (r, s->first_layer - 1, s->last_layer) > r->workers[s->worker].memory_bytes);
    if (r->layers)
        snprintf (reason, WL_PLAN_REASON_BYTES, "as --layers says");
    else if (plan->is_kept)
        snprintf (reason, WL_PLAN_REASON_BYTES, "as at the last start: its weights are there");
    else if (plan->n_stages == 1)
        snprintf (reason, WL_PLAN_REASON_BYTES, "all layers: %s",
                  r->n_workers == 1 ? "the only worker" : "more stages would be slower");
    else if (full)
        snprintf (reason, WL_PLAN_REASON_BYTES, "as many layers as its memory holds");
    else if (own >= slowest * 0.999)
        snprintf (reason, WL_PLAN_REASON_BYTES, "the slowest stage: it sets the pace");
    else
        snprintf (reason, WL_PLAN_REASON_BYTES, "%.0f%% of the slowest stage's time", own / slowest * 100);
}

/* What using it would have meant. */
static bool explain_absence (const wl_plan_request *r, wl_plan *plan, uint32_t worker, bool compare, wl_error *err)
{
    char *reason = plan->reasons[worker];
    const wl_plan_worker *w = &r->workers[worker];
    const wl_step_shape one = decode_shape (1);
    uint32_t middle = r->model->n_layers / 2;
    double layer = wl_plan_step_s (r, worker, 1, middle, middle, &one), slowest = 0;
    if (stage_bytes (r, middle, middle) > w->memory_bytes) {
        snprintf (reason, WL_PLAN_REASON_BYTES, "left out: a layer needs %.1f MB and it has %.1f MB",
                  (double) stage_bytes (r, middle, middle) / 1e6, (double) w->memory_bytes / 1e6);
        return true;
    }
    for (uint32_t i = 0; i < plan->n_stages; i++)
        slowest = plan->stages[i].decode_s > slowest ? plan->stages[i].decode_s : slowest;
    if (!compare) {
        snprintf (reason, WL_PLAN_REASON_BYTES,
                  "left out: a layer takes it %.2f ms, and the slowest stage in use %.2f ms", layer * 1e3,
                  slowest * 1e3);
        return true;
    }
    wl_plan_request with = *r;
    found other = {.parts = wl_new (r->model->n_layers, sizeof *other.parts, err)};
    wl_plan_worker *workers = wl_new (r->n_workers, sizeof *workers, err);
    bool ok = other.parts && workers;
    if (ok) {
        memcpy (workers, r->workers, r->n_workers * sizeof *workers);
        workers[worker].required = true;
        with.workers = workers;
        ok = search (&with, true, &other, err);
    }
    uint32_t layers = 0;
    for (uint32_t i = 0; i < other.n; i++)
        layers = other.parts[i].worker == worker ? other.parts[i].end - other.parts[i].first : layers;
    if (ok && other.n && other.value > plan->objective_s * 1.0001)
        snprintf (
            reason, WL_PLAN_REASON_BYTES,
            "left out: with %u layer%s there, %s would take %.2f s against %.2f s (%.2f ms a layer, %.2f ms a hop)",
            layers, layers == 1 ? "" : "s", workload_name (r), other.value, plan->objective_s, layer * 1e3,
            w->link.latency_s * 1e3);
    else if (plan->is_kept)
        snprintf (reason, WL_PLAN_REASON_BYTES,
                  "left out as at the last start: it would make %s less than %.0f%% faster", workload_name (r),
                  (WL_PLAN_WORTH_MOVING - 1) * 100);
    else
        snprintf (reason, WL_PLAN_REASON_BYTES, "left out: it would make %s less than 2%% faster", workload_name (r));
    free (workers);
    free (other.parts);
    return ok;
}

static bool explain (const wl_plan_request *r, wl_plan *plan, wl_error *err)
{
    enum { COMPARED = 6, MANY = 16 };
    uint32_t compared = 0, most = r->n_workers > MANY ? 0 : COMPARED; /* each takes as long as planning does */
    bool ok = true;
    for (uint32_t i = 0; i < plan->n_stages; i++)
        explain_stage (r, plan, i);
    for (uint32_t i = 0; ok && i < r->n_workers; i++)
        if (!plan->reasons[i][0])
            ok = explain_absence (r, plan, i, compared++ < most, err);
    return ok;
}

/* -- the split that was used before -------------------------------------------------------------------------------------------------------------- */

/* Whether the split that was used before is a split of this model over these workers, with all that have to take part. */
static bool is_whole (const wl_plan_request *r, const plan_part *parts, uint32_t n)
{
    uint32_t next = 0, n_required = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (parts[i].worker >= r->n_workers || parts[i].first != next || parts[i].end <= next)
            return false;
        for (uint32_t k = 0; k < i; k++)
            if (parts[k].worker == parts[i].worker)
                return false;
        next = parts[i].end;
        n_required += r->workers[parts[i].worker].required;
    }
    for (uint32_t i = 0; i < r->n_workers; i++)
        n_required -= r->workers[i].required;
    return next == r->model->n_layers && n_required == 0;
}

/* Puts the split that was used before in the place of the best one, unless that is worth moving weights. */
static bool keep_split (const wl_plan_request *r, found *best, bool *is_kept, wl_error *err)
{
    double before = INFINITY, now = INFINITY;
    if (r->n_kept > r->model->n_layers)
        return true;
    plan_part *parts = wl_new (r->model->n_layers, sizeof *parts, err);
    if (!parts)
        return false;
    bool ok = true;
    for (uint32_t i = 0; i < r->n_kept; i++)
        parts[i] = (plan_part){r->kept[i].worker, r->kept[i].first_layer, r->kept[i].last_layer + 1};
    if (is_whole (r, parts, r->n_kept))
        ok = split_value (r, parts, r->n_kept, &before, err) && split_value (r, best->parts, best->n, &now, err);
    if (ok && before < INFINITY && before <= now * WL_PLAN_WORTH_MOVING) {
        *is_kept = best->n != r->n_kept || memcmp (parts, best->parts, best->n * sizeof *parts) != 0;
        best->n = r->n_kept;
        best->value = before;
        memcpy (best->parts, parts, best->n * sizeof *parts);
    }
    free (parts);
    return ok;
}

/* -- all of it -------------------------------------------------------------------------------------------------------------------------------------------- */

static bool split (const wl_plan_request *r, wl_plan *plan, wl_error *err)
{
    found best = {.parts = wl_new (r->model->n_layers, sizeof *best.parts, err)};
    bool ok = best.parts && search (r, true, &best, err);
    bool fits = ok && best.n;
    if (fits && r->n_kept)
        ok = keep_split (r, &best, &plan->is_kept, err);
    if (ok && !fits) /* what would have been best gives the error its figures */
        ok = search (r, false, &best, err);
    plan->n_stages = ok ? best.n : 0;
    plan->exact = best.exact;
    plan->objective_s = best.value;
    for (uint32_t i = 0; i < plan->n_stages; i++)
        describe (r, best.parts[i].worker, best.parts[i].first, best.parts[i].end - 1, &plan->stages[i]);
    free (best.parts);
    if (ok && !plan->n_stages)
        return wl_fail (err, WL_ERROR_CLUSTER,
                        "no order of the workers lets each reach the next: let them join over the network");
    ok = ok && check_memory (r, plan->stages, plan->n_stages, err);
    return ok &&
           (fits ||
            wl_fail (
                err, WL_ERROR_CLUSTER,
                "the model does not fit these workers: add workers or memory, or choose a smaller --ctx or model"));
}

/* What a split by hand is worth, for comparison. */
static bool price_by_hand (const wl_plan_request *r, wl_plan *plan, wl_error *err)
{
    plan_part *parts = wl_new (plan->n_stages, sizeof *parts, err);
    for (uint32_t i = 0; parts && i < plan->n_stages; i++)
        parts[i] = (plan_part){plan->stages[i].worker, plan->stages[i].first_layer, plan->stages[i].last_layer + 1};
    bool ok = parts && split_value (r, parts, plan->n_stages, &plan->objective_s, err);
    free (parts);
    return ok;
}

static bool check_count (const wl_plan_request *r, uint32_t n_required, wl_error *err)
{
    return n_required <= r->model->n_layers ||
           wl_fail (err, WL_ERROR_USAGE,
                    "%u workers for a model of %u layers: a stage needs at least one layer, so use at most %u",
                    n_required, r->model->n_layers, r->model->n_layers);
}

bool wl_plan_check (const wl_plan_request *request, uint32_t n_workers, wl_error *err)
{
    wl_plan plan;
    wl_plan_request r = *request;
    r.n_workers = n_workers;
    return wl_kv_type_fits (r.kv, r.model->head_dim, err) && check_count (&r, n_workers, err) &&
           (!r.layers || parse_layers (&r, NULL, &plan, err));
}

bool wl_plan_make (const wl_plan_request *r, wl_plan *plan, wl_error *err)
{
    uint32_t n_required = 0;
    *plan = (wl_plan){0};
    if (r->n_workers == 0)
        return wl_fail (err, WL_ERROR_CLUSTER, "there are no workers to split the model over");
    for (uint32_t i = 0; i < r->n_workers; i++)
        n_required += r->workers[i].required;
    if (!wl_kv_type_fits (r->kv, r->model->head_dim, err) ||
        !check_count (r, r->layers ? r->n_workers : n_required, err))
        return false;
    plan->stages = wl_new (r->n_workers, sizeof *plan->stages, err);
    plan->reasons = wl_new (r->n_workers, sizeof *plan->reasons, err);
    bool ok = plan->stages && plan->reasons;
    if (r->layers)
        ok = ok && parse_layers (r, plan->stages, plan, err) && check_memory (r, plan->stages, plan->n_stages, err) &&
             price_by_hand (r, plan, err);
    else
        ok = ok && split (r, plan, err);
    ok = ok && explain (r, plan, err);
    if (!ok)
        wl_plan_free (plan);
    return ok;
}

void wl_plan_free (wl_plan *plan)
{
    free (plan->stages);
    free (plan->reasons);
    *plan = (wl_plan){0};
}
