/* Dynamic programming over splits; see plan_search.h.
 *
 * A node is a worker at a place in the pipeline; edges say who may come before. best[node][b] is the least sum of stage times and hops of any way to compute the layers before b that ends
 * with this node. For throughput, a limit P is tried: every stage and transfer must be within P, and of the ways that are, the one with the least sum, which is the round trip, must be within
 * P times the steps in flight. What is feasible at P is feasible above it, so bisection finds the least P.
 *
 * Then cuts are moved (plan_recut). All requests' prompts come before what they generate, so what counts is the slowest stage of prefill plus the slowest of decoding, two different ones if only
 * the last has the head. For a limit on decoding, bisection finds the least limit on prefill; lower limits on decoding are tried, each just under what the last one led to.
 *
 * Two kinds of graph: where workers are of few kinds, a node is (how many of each kind are used, the kind of the last), which covers every order and choice; else a node is a position in a
 * given order, and several orders are tried. */
#include "plan_search.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/memory.h"

enum { MAX_NODES = 4096, EXACT_WORK = 110000, BISECTIONS = 40 };
static const double close_enough = 1e-3, worth_it = 1.02; /* a worker that gains less than 2% is left out */

typedef struct node {
    uint32_t worker; /* whose prices it has */
    bool starts, ends;
    uint32_t first_before, n_before; /* into graph.before */
} node;

typedef struct graph {
    node *nodes;
    uint32_t n_nodes;
    uint32_t *before; /* nodes that may come right before */
    uint32_t n_before;
    double *best;         /* [n_nodes][n_layers + 1] */
    uint32_t *came_layer; /* [n_nodes][n_layers + 1] where the last part begins */
    double *entry;        /* [n_nodes][n_layers + 1] */
    uint32_t *queue;      /* [n_layers] of the node at hand: where its part may begin */
} graph;

static void free_graph (graph *g)
{
    free (g->nodes);
    free (g->before);
    free (g->best);
    free (g->came_layer);
    free (g->entry);
    free (g->queue);
    *g = (graph){0};
}

static bool open_graph (graph *g, const plan_prices *p, uint32_t n_nodes, size_t n_before, wl_error *err)
{
    size_t cells = (size_t) n_nodes * (p->n_layers + 1);
    *g = (graph){.nodes = wl_new (n_nodes, sizeof *g->nodes, err),
                 .before = wl_new (n_before, sizeof *g->before, err),
                 .best = wl_new (cells, sizeof *g->best, err),
                 .came_layer = wl_new (cells, sizeof *g->came_layer, err),
                 .entry = wl_new (cells, sizeof *g->entry, err),
                 .queue = wl_new (p->n_layers, sizeof *g->queue, err)};
    if (g->nodes && g->before && g->best && g->came_layer && g->entry && g->queue)
        return true;
    free_graph (g);
    return false;
}

/* -- prices ----------------------------------------------------------------------------------------------------------------------------------------- */

typedef struct limits { /* seconds of a stage, or of a transfer */
    double whole, prefill, decode;
} limits;

static double part_s (const plan_prices *p, const plan_part *part, const double *layers_s, const double *head_s)
{
    const double *before = layers_s + (size_t) part->worker * (p->n_layers + 1);
    return before[part->end] - before[part->first] + (part->end == p->n_layers ? head_s[part->worker] : 0);
}

double plan_part_s (const plan_prices *p, const plan_part *part)
{
    return part_s (p, part, p->layers_s, p->head_s);
}

static double decode_part_s (const plan_prices *p, const plan_part *part)
{
    return part_s (p, part, p->decode_layers_s, p->decode_head_s);
}

static bool is_within (const plan_prices *p, const plan_part *part, const limits *most)
{
    double whole = plan_part_s (p, part);
    if (whole > most->whole)
        return false;
    if (most->prefill == INFINITY && most->decode == INFINITY)
        return true;
    double decode = decode_part_s (p, part);
    return decode <= most->decode && whole - decode <= most->prefill;
}

bool plan_part_fits (const plan_prices *p, const plan_part *part)
{
    uint64_t bytes = p->work_bytes + p->layer_bytes[part->end] - p->layer_bytes[part->first];
    bytes += part->first == 0 ? p->first_bytes : 0;
    bytes += part->end == p->n_layers ? p->last_bytes : 0;
    return bytes <= p->memory_bytes[part->worker];
}

static size_t hop_index (const plan_prices *p, uint32_t from, uint32_t to)
{
    return (size_t) from * (p->n + 1) + to;
}

/* The slowest stage or transfer of each phase. */
static limits slowest_of (const plan_prices *p, const plan_part *parts, uint32_t n_parts)
{
    limits slowest = {0};
    uint32_t from = p->n;
    for (uint32_t i = 0; i <= n_parts; i++) {
        uint32_t to = i < n_parts ? parts[i].worker : p->n;
        double whole = i < n_parts ? plan_part_s (p, &parts[i]) : 0,
               decode = i < n_parts ? decode_part_s (p, &parts[i]) : 0;
        double transfer = p->transfers_s[hop_index (p, from, to)],
               decode_transfer = p->decode_transfers_s[hop_index (p, from, to)];
        slowest.whole = fmax (slowest.whole, fmax (whole, transfer));
        slowest.decode = fmax (slowest.decode, fmax (decode, decode_transfer));
        slowest.prefill = fmax (slowest.prefill, fmax (whole - decode, transfer - decode_transfer));
        from = to;
    }
    return slowest;
}

static double round_trip_s (const plan_prices *p, const plan_part *parts, uint32_t n_parts)
{
    double seconds = 0;
    uint32_t from = p->n;
    for (uint32_t i = 0; i <= n_parts; i++) {
        uint32_t to = i < n_parts ? parts[i].worker : p->n;
        seconds += p->hops_s[hop_index (p, from, to)] + (i < n_parts ? plan_part_s (p, &parts[i]) : 0);
        from = to;
    }
    return seconds;
}

double plan_value (const plan_prices *p, const plan_part *parts, uint32_t n_parts)
{
    double round_trip = round_trip_s (p, parts, n_parts);
    return p->latency ? round_trip : fmax (round_trip / p->in_flight, slowest_of (p, parts, n_parts).whole);
}

static double phases_s (const plan_prices *p, const plan_part *parts, uint32_t n_parts)
{
    limits slowest = slowest_of (p, parts, n_parts);
    return slowest.prefill + slowest.decode;
}

double plan_phases_s (const plan_prices *p, const plan_part *parts, uint32_t n_parts)
{
    double round_trip = round_trip_s (p, parts, n_parts);
    return p->latency ? round_trip : fmax (round_trip / p->in_flight, phases_s (p, parts, n_parts));
}

/* -- one pass --------------------------------------------------------------------------------------------------------------------------------------------- */

/* entry[node][a]: the least sum before a part of this node that begins with layer a. */
static void enter (const plan_prices *p, graph *g, const node *at, double limit)
{
    size_t width = p->n_layers + 1;
    double *entry = g->entry + (size_t) (at - g->nodes) * width;
    for (uint32_t a = 0; a <= p->n_layers; a++)
        entry[a] = INFINITY;
    if (at->starts)
        entry[0] = p->hops_s[hop_index (p, p->n, at->worker)];
    for (uint32_t i = 0; i < at->n_before; i++) {
        uint32_t before = g->before[at->first_before + i];
        size_t index = hop_index (p, g->nodes[before].worker, at->worker);
        const double *best = g->best + before * width, hop = p->hops_s[index];
        if (p->transfers_s[index] > limit || hop == INFINITY)
            continue;
        for (uint32_t a = 1; a < p->n_layers; a++) {
            double sum = best[a] + hop;
            entry[a] = sum < entry[a] ? sum : entry[a];
        }
    }
}

/* Who comes before a part of this node that begins with layer a, a > 0: whose sum it was. */
static uint32_t came_from (const plan_prices *p, const graph *g, uint32_t index, uint32_t a, double limit)
{
    size_t width = p->n_layers + 1;
    const node *at = &g->nodes[index];
    for (uint32_t i = 0; i < at->n_before; i++) {
        uint32_t before = g->before[at->first_before + i];
        size_t hop = hop_index (p, g->nodes[before].worker, at->worker);
        if (p->transfers_s[hop] <= limit && g->best[before * width + a] + p->hops_s[hop] == g->entry[index * width + a])
            return before;
    }
    return UINT32_MAX;
}

/* best[b]: a part [a, b) adds before[b] - before[a], so the least entry[a] - before[a] is wanted, of the a that memory and limit allow. As b grows those begin further on, so a
 * queue of candidates, each better than all before it, gives it in one pass. */
static void extend (const plan_prices *p, graph *g, const node *at, const limits *most)
{
    size_t width = p->n_layers + 1, row = (size_t) (at - g->nodes) * width;
    const double *before = p->layers_s + (size_t) at->worker * width;
    const double *entry = g->entry + row;
    uint32_t first = 0, head = 0, tail = 0;
    g->best[row] = INFINITY;
    for (uint32_t b = 1; b <= p->n_layers; b++) {
        double own = entry[b - 1] - before[b - 1];
        while (tail > head && entry[g->queue[tail - 1]] - before[g->queue[tail - 1]] >= own)
            tail--;
        g->queue[tail++] = b - 1;
        for (; first < b; first++) {
            const plan_part part = {at->worker, first, b};
            if (is_within (p, &part, most) && plan_part_fits (p, &part))
                break;
        }
        while (head < tail && g->queue[head] < first)
            head++;
        uint32_t came = head < tail ? g->queue[head] : 0;
        const plan_part part = {at->worker, came, b};
        g->best[row + b] = head < tail ? entry[came] + plan_part_s (p, &part) : INFINITY;
        g->came_layer[row + b] = came;
    }
}

/* The least sum over all ways, and the way: INFINITY where there is none. */
static double solve (const plan_prices *p, graph *g, const limits *most, plan_part *parts, uint32_t *n_parts)
{
    size_t width = p->n_layers + 1;
    double least = INFINITY;
    uint32_t at = UINT32_MAX, layer = p->n_layers, n = 0;
    for (uint32_t i = 0; i < g->n_nodes; i++) {
        enter (p, g, &g->nodes[i], most->whole);
        extend (p, g, &g->nodes[i], most);
        double whole = g->best[i * width + p->n_layers] + p->hops_s[hop_index (p, g->nodes[i].worker, p->n)];
        if (g->nodes[i].ends && whole < least) {
            least = whole;
            at = i;
        }
    }
    for (; at != UINT32_MAX; n++) {
        uint32_t first = g->came_layer[at * width + layer];
        parts[n] = (plan_part){g->nodes[at].worker, first, layer};
        at = first ? came_from (p, g, at, first, most->whole) : UINT32_MAX;
        layer = first;
    }
    for (uint32_t i = 0; i < n / 2; i++) {
        plan_part swapped = parts[i];
        parts[i] = parts[n - 1 - i];
        parts[n - 1 - i] = swapped;
    }
    *n_parts = n;
    return least;
}

static double solve_within (const plan_prices *p, graph *g, double whole, plan_part *parts, uint32_t *n_parts)
{
    const limits most = {whole, INFINITY, INFINITY};
    return solve (p, g, &most, parts, n_parts);
}

/* The best of this graph, if it beats `value`; parts and value are then replaced. scratch [n_layers]. */
static void improve (const plan_prices *p, graph *g, plan_part *parts, uint32_t *n_parts, double *value,
                     plan_part *scratch)
{
    uint32_t n;
    double low = 0;
    if (*value == INFINITY || p->latency) {
        low = solve_within (p, g, INFINITY, scratch, &n) / p->in_flight; /* no round trip is shorter */
        double found = n ? plan_value (p, scratch, n) : INFINITY;
        if (found >= *value)
            return;
        *value = found;
        *n_parts = n;
        memcpy (parts, scratch, n * sizeof *parts);
        if (p->latency)
            return;
    } else if (solve_within (p, g, *value * 0.999, scratch, &n) > *value * 0.999 * p->in_flight) {
        return;
    }
    double high = *value;
    for (int i = 0; i < BISECTIONS && high - low > close_enough * high; i++) {
        double middle = (low + high) / 2;
        if (solve_within (p, g, middle, scratch, &n) > middle * p->in_flight) {
            low = middle;
            continue;
        }
        double found = plan_value (p, scratch, n);
        high = found < middle ? found : middle;
        *value = high;
        *n_parts = n;
        memcpy (parts, scratch, n * sizeof *parts);
    }
    /* Of all that come within 2% of it, the one with the shortest round trip. */
    solve_within (p, g, high * worth_it, scratch, &n);
    double found = n ? plan_value (p, scratch, n) : INFINITY;
    if (found <= high * worth_it) {
        *value = found;
        *n_parts = n;
        memcpy (parts, scratch, n * sizeof *parts);
    }
}

/* -- graphs ------------------------------------------------------------------------------------------------------------------------------------------------- */

/* A node for each place of an order; between two of them no required worker may be passed over. */
static bool ordered_graph (graph *g, const plan_prices *p, const uint32_t *order, wl_error *err)
{
    if (!open_graph (g, p, p->n, (size_t) p->n * p->n / 2 + 1, err))
        return false;
    g->n_nodes = p->n;
    for (uint32_t i = 0; i < p->n; i++) {
        node *at = &g->nodes[i];
        *at = (node){.worker = order[i], .starts = true, .ends = true, .first_before = g->n_before};
        for (uint32_t k = i; k-- > 0;) {
            g->before[g->n_before++] = k;
            at->n_before++;
            if (p->required[order[k]]) {
                at->starts = false;
                break;
            }
        }
        for (uint32_t k = i + 1; k < p->n; k++)
            at->ends = at->ends && !p->required[order[k]];
    }
    return true;
}

typedef struct kinds {                       /* of workers: first index and how many */
    uint32_t first[32], count[32], step[32]; /* step: of the state's number */
    uint32_t n, n_states;
} kinds;

/* Whether counting covers it within reason. */
static bool count_kinds (const plan_prices *p, kinds *k)
{
    uint64_t states = 1;
    *k = (kinds){0};
    if (p->n_kinds > 32)
        return false;
    for (uint32_t i = 0; i < p->n; i++) {
        if (i == 0 || p->kinds[i] != p->kinds[i - 1])
            k->first[k->n++] = i;
        k->count[k->n - 1]++;
    }
    for (uint32_t i = 0; i < k->n && states < MAX_NODES; i++) {
        k->step[i] = (uint32_t) states;
        states *= k->count[i] + 1;
    }
    k->n_states = (uint32_t) states;
    return states * k->n <= MAX_NODES && states * k->n * k->n * p->n_layers <= EXACT_WORK * 4;
}

static uint32_t used_of (const kinds *k, uint32_t state, uint32_t kind)
{
    return state / k->step[kind] % (k->count[kind] + 1);
}

/* Node (state, kind): after using these numbers of each kind, the last of them of this one. Of ways that cost the same the first that is met counts, so later kinds come first
 * among nodes and among what may come before: workers keep their order where it does not matter. */
static uint32_t node_of (const kinds *k, uint32_t state, uint32_t kind)
{
    return state * k->n + k->n - 1 - kind;
}

static bool counted_graph (graph *g, const plan_prices *p, const kinds *k, wl_error *err)
{
    uint32_t n = k->n_states * k->n;
    if (!open_graph (g, p, n, (size_t) n * k->n + 1, err))
        return false;
    g->n_nodes = n;
    for (uint32_t state = 0; state < k->n_states; state++)
        for (uint32_t kind = 0; kind < k->n; kind++) {
            node *at = &g->nodes[node_of (k, state, kind)];
            uint32_t used = used_of (k, state, kind);
            *at = (node){.worker = k->first[kind] + (used ? used - 1 : 0), .first_before = g->n_before};
            if (used == 0)
                continue; /* no such node: nobody can reach it */
            uint32_t earlier = state - k->step[kind];
            at->starts = earlier == 0;
            at->ends = true;
            for (uint32_t other = k->n; other-- > 0;) {
                bool full = used_of (k, state, other) == k->count[other];
                at->ends = at->ends && (full || !p->required[k->first[other]]);
                if (earlier && used_of (k, earlier, other)) {
                    g->before[g->n_before++] = node_of (k, earlier, other);
                    at->n_before++;
                }
            }
        }
    return true;
}

/* -- orders ------------------------------------------------------------------------------------------------------------------------------------------------- */

/* Each next one is the nearest to the one before, the faster of two; from the coordinator on. */
static void order_by_nearness (const plan_prices *p, uint32_t *order)
{
    uint32_t from = p->n;
    for (uint32_t i = 0; i < p->n; i++)
        order[i] = i;
    for (uint32_t i = 0; i < p->n; i++) {
        uint32_t best = i;
        for (uint32_t k = i + 1; k < p->n; k++) {
            double gain = p->hops_s[hop_index (p, from, order[best])] - p->hops_s[hop_index (p, from, order[k])];
            const double *a = p->layers_s + (size_t) order[best] * (p->n_layers + 1),
                         *b = p->layers_s + (size_t) order[k] * (p->n_layers + 1);
            if (gain > 0 || (gain == 0 && b[p->n_layers] < a[p->n_layers]))
                best = k;
        }
        uint32_t chosen = order[best];
        for (uint32_t k = best; k > i; k--)
            order[k] = order[k - 1];
        order[i] = chosen;
        from = chosen;
    }
}

/* By speed, fastest first or last. */
static void order_by_speed (const plan_prices *p, uint32_t *order, bool fastest_first)
{
    size_t width = p->n_layers + 1;
    for (uint32_t i = 0; i < p->n; i++) {
        uint32_t at = i;
        double own = p->layers_s[i * width + p->n_layers];
        for (; at > 0; at--) {
            double before = p->layers_s[order[at - 1] * width + p->n_layers];
            if (fastest_first ? before <= own : before >= own)
                break;
            order[at] = order[at - 1];
        }
        order[at] = i;
    }
}

/* -- cuts ------------------------------------------------------------------------------------------------------------------------------------------ */

/* All of these workers, in this order. */
static bool chain_graph (graph *g, const plan_prices *p, const plan_part *parts, uint32_t n_parts, wl_error *err)
{
    if (!open_graph (g, p, n_parts, n_parts, err))
        return false;
    g->n_nodes = n_parts;
    for (uint32_t i = 0; i < n_parts; i++) {
        g->nodes[i] = (node){.worker = parts[i].worker,
                             .starts = i == 0,
                             .ends = i + 1 == n_parts,
                             .first_before = i,
                             .n_before = i > 0};
        g->before[i] = i ? i - 1 : 0;
    }
    return true;
}

/* The split of this chain with the least slowest stage of prefill, of those within a limit on decoding and on the round trip. *least: no limit on prefill below it is met; raised. */
static bool least_prefill (const plan_prices *p, graph *g, double decode, double round_trip, double *least,
                           plan_part *parts, plan_part *scratch)
{
    uint32_t n;
    limits most = {INFINITY, INFINITY, decode};
    if (solve (p, g, &most, parts, &n) > round_trip)
        return false;
    double high = slowest_of (p, parts, n).prefill;
    while (high - *least > close_enough * high) {
        most.prefill = (*least + high) / 2;
        if (solve (p, g, &most, scratch, &n) > round_trip) {
            *least = most.prefill;
            continue;
        }
        double found = slowest_of (p, scratch, n).prefill;
        high = found < most.prefill ? found : most.prefill;
        memcpy (parts, scratch, n * sizeof *parts);
    }
    return true;
}

bool plan_recut (const plan_prices *p, plan_part *parts, uint32_t n_parts, wl_error *err)
{
    enum { MOST_LIMITS = 64 };
    graph g;
    double best = phases_s (p, parts, n_parts), least = 0, decode = INFINITY;
    double round_trip = plan_value (p, parts, n_parts) * p->in_flight * (1 + close_enough);
    plan_part *found = wl_new (p->n_layers, sizeof *found, err), *scratch = wl_new (p->n_layers, sizeof *scratch, err);
    bool ok = found && scratch && chain_graph (&g, p, parts, n_parts, err);
    for (int i = 0; ok && i < MOST_LIMITS && least < best; i++) {
        if (!least_prefill (p, &g, decode, round_trip, &least, found, scratch))
            break;
        double value = phases_s (p, found, n_parts);
        if (value < best) {
            best = value;
            memcpy (parts, found, n_parts * sizeof *parts);
        }
        decode = slowest_of (p, found, n_parts).decode * (1 - close_enough);
    }
    if (ok)
        free_graph (&g);
    free (found);
    free (scratch);
    return ok;
}

bool plan_search (const plan_prices *p, plan_part *parts, uint32_t *n_parts, double *value, bool *exact, wl_error *err)
{
    enum { ORDERS = 5, MANY = 32 };
    graph g = {0};
    kinds k;
    bool ok = false;
    plan_part *scratch = wl_new (p->n_layers, sizeof *scratch, err);
    uint32_t *order = wl_new (p->n, sizeof *order, err);
    *n_parts = 0;
    *exact = count_kinds (p, &k);
    if (!scratch || !order)
        goto done;
    if (*exact) {
        ok = counted_graph (&g, p, &k, err);
        if (ok)
            improve (p, &g, parts, n_parts, value, scratch);
        goto done;
    }
    for (int attempt = 0; attempt < ORDERS; attempt++) {
        if (p->n > MANY && attempt != 1 && attempt != 2)
            continue; /* by nearness, and the fastest first */
        for (uint32_t i = 0; i < p->n; i++)
            order[i] = i;
        if (attempt == 1 || attempt == 4)
            order_by_nearness (p, order);
        else if (attempt)
            order_by_speed (p, order, attempt == 2);
        for (uint32_t i = 0; attempt == 4 && i < p->n / 2; i++) {
            uint32_t swapped = order[i];
            order[i] = order[p->n - 1 - i];
            order[p->n - 1 - i] = swapped;
        }
        ok = ordered_graph (&g, p, order, err);
        if (!ok)
            goto done;
        improve (p, &g, parts, n_parts, value, scratch);
        free_graph (&g);
    }
done:
    free_graph (&g);
    free (order);
    free (scratch);
    return ok;
}
