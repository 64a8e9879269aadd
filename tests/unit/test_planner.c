/* The planner: splits are complete, the best there are, within memory, or refused with the figures; who would slow the rest is left out, and the plan says why. And the
 * simulator, which predicts by the scheduler's own decisions. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "coordinator/plan_search.h"
#include "coordinator/planner.h"
#include "coordinator/simulate.h"
#include "engine/memory.h"

#if defined(__OPTIMIZE__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
static const double planning_s = 0.1;
#else
static const double planning_s = 5;
#endif

enum { MOST_LAYERS = 126, D = 64 };

typedef struct fixture {
    wl_tensor embedding, norm, layers[MOST_LAYERS];
    wl_layer_plan plans[MOST_LAYERS];
    const wl_tensor *places[MOST_LAYERS][WL_N_ROLES];
    wl_model model;
} fixture;

/* A model whose layer i has 64 columns and rows[i] rows of F32, and an embedding (tied head) of n_vocab rows. */
static void make_model (fixture *f, uint32_t n_layers, const uint32_t *rows, uint32_t n_vocab)
{
    memset (f, 0, sizeof *f);
    f->embedding = (wl_tensor){.name = "token_embd.weight",
                               .type = WL_TYPE_F32,
                               .n_dims = 2,
                               .dims = {D, n_vocab, 1, 1},
                               .bytes = (uint64_t) n_vocab * D * 4};
    f->norm = (wl_tensor){
        .name = "output_norm.weight", .type = WL_TYPE_F32, .n_dims = 1, .dims = {D, 1, 1, 1}, .bytes = D * 4};
    for (uint32_t i = 0; i < n_layers; i++) {
        f->layers[i] = (wl_tensor){.name = "blk",
                                   .type = WL_TYPE_F32,
                                   .n_dims = 2,
                                   .dims = {D, rows[i], 1, 1},
                                   .bytes = (uint64_t) rows[i] * D * 4};
        f->places[i][WL_ROLE_FFN_UP] = &f->layers[i];
    }
    f->model = (wl_model){.n_layers = n_layers,
                          .d_model = D,
                          .d_ff = D,
                          .n_heads = 1,
                          .n_kv_heads = 1,
                          .head_dim = D,
                          .n_vocab = n_vocab,
                          .rope_dims = D,
                          .token_embedding = &f->embedding,
                          .output = &f->embedding,
                          .output_norm = &f->norm,
                          .tensors = f->places,
                          .layers = f->plans};
}

enum { MOST_WORKERS = 64 };

typedef struct cluster {
    wl_plan_worker workers[MOST_WORKERS];
    wl_plan_machine machines[MOST_WORKERS];
    char names[MOST_WORKERS][16];
    wl_cost *cost;
} cluster;

/* A machine that computes `speed` times as fast as the assumed one with one thread. */
static wl_speed speed_of (double speed)
{
    wl_speed s = wl_speed_assumed (1);
    for (size_t type = 0; type < WL_SPEED_TYPES; type++)
        for (size_t i = 0; i < WL_SPEED_ROWS; i++)
            s.seconds_per_weight[type][i] /= speed;
    s.attention_s[0] /= speed;
    s.attention_s[1] /= speed;
    return s;
}

/* n equal workers on machines of their own, with memory for anything, near one another. */
static void make_cluster (cluster *c, const fixture *f, uint32_t n)
{
    wl_error err = {0};
    memset (c, 0, sizeof *c);
    for (uint32_t i = 0; i < n; i++) {
        snprintf (c->names[i], sizeof c->names[i], "w%u", i);
        c->workers[i] = (wl_plan_worker){.name = c->names[i],
                                         .memory_bytes = UINT64_MAX / 1024,
                                         .speed = speed_of (1),
                                         .source = WL_SPEED_MEASURED,
                                         .machine = i,
                                         .link = {1e-7, 1e12}};
        c->machines[i].within = (wl_plan_link){1e-7, 1e12};
    }
    c->cost = wl_cost_new (&f->model, &err);
    assert_non_null (c->cost);
}

static wl_plan_request request_for (const fixture *f, const cluster *c, uint32_t n)
{
    return (wl_plan_request){.model = &f->model,
                             .cost = c->cost,
                             .workers = c->workers,
                             .n_workers = n,
                             .machines = c->machines,
                             .n_machines = n,
                             .n_pages = 1,
                             .max_rows = 128,
                             .max_logit_rows = 8,
                             .chunk_rows = 128};
}

static const uint32_t even_rows[MOST_LAYERS] = {
    [0 ... MOST_LAYERS - 1] = 4000,
};

/* Plans, or fails the test with the reason. */
static wl_plan plan_of (const wl_plan_request *r)
{
    wl_plan plan;
    wl_error err = {0};
    if (!wl_plan_make (r, &plan, &err))
        fail_msg ("%s", err.text);
    uint32_t next = 0;
    for (uint32_t i = 0; i < plan.n_stages; i++) {
        assert_int_equal (plan.stages[i].first_layer, next);
        assert_true (plan.stages[i].last_layer >= plan.stages[i].first_layer);
        next = plan.stages[i].last_layer + 1;
    }
    assert_int_equal (next, r->model->n_layers);
    for (uint32_t i = 0; i < r->n_workers; i++)
        assert_true (plan.reasons[i][0]);
    return plan;
}

static uint32_t layers_of (const wl_plan *plan, uint32_t worker)
{
    for (uint32_t i = 0; i < plan->n_stages; i++)
        if (plan->stages[i].worker == worker)
            return plan->stages[i].last_layer - plan->stages[i].first_layer + 1;
    return 0;
}

/* -- the search against trying everything ------------------------------------------------------------------------------------------------------------- */

enum { TRIED_WORKERS = 4, TRIED_LAYERS = 6 };

typedef struct priced {
    plan_prices prices;
    double layers_s[TRIED_WORKERS * (TRIED_LAYERS + 1)], head_s[TRIED_WORKERS];
    double hops_s[(TRIED_WORKERS + 1) * (TRIED_WORKERS + 1)], transfers_s[(TRIED_WORKERS + 1) * (TRIED_WORKERS + 1)];
    double decode_layers_s[TRIED_WORKERS * (TRIED_LAYERS + 1)], decode_head_s[TRIED_WORKERS];
    double decode_transfers_s[(TRIED_WORKERS + 1) * (TRIED_WORKERS + 1)];
    uint64_t layer_bytes[TRIED_LAYERS + 1], memory_bytes[TRIED_WORKERS];
    bool required[TRIED_WORKERS];
    uint32_t kinds[TRIED_WORKERS];
} priced;

static double chance (void)
{
    return rand () / (RAND_MAX + 1.0);
}

static void draw_prices (priced *p, bool latency)
{
    uint32_t n = 1 + (uint32_t) rand () % TRIED_WORKERS, layers = 1 + (uint32_t) rand () % TRIED_LAYERS;
    memset (p, 0, sizeof *p);
    p->prices = (plan_prices){.n = n,
                              .n_layers = layers,
                              .layers_s = p->layers_s,
                              .head_s = p->head_s,
                              .hops_s = p->hops_s,
                              .transfers_s = p->transfers_s,
                              .decode_layers_s = p->decode_layers_s,
                              .decode_head_s = p->decode_head_s,
                              .decode_transfers_s = p->decode_transfers_s,
                              .layer_bytes = p->layer_bytes,
                              .first_bytes = (uint64_t) rand () % 5,
                              .last_bytes = (uint64_t) rand () % 5,
                              .work_bytes = 2,
                              .memory_bytes = p->memory_bytes,
                              .required = p->required,
                              .kinds = p->kinds,
                              .n_kinds = n,
                              .latency = latency,
                              .in_flight = 1 + rand () % 4};
    for (uint32_t i = 0; i < layers; i++)
        p->layer_bytes[i + 1] = p->layer_bytes[i] + 1 + (uint64_t) rand () % 5;
    for (uint32_t w = 0; w < n; w++) {
        double pace = 0.1 + chance () * 2;
        for (uint32_t i = 0; i < layers; i++) {
            size_t at = w * (layers + 1) + i;
            double seconds = pace * (0.5 + chance ());
            p->layers_s[at + 1] = p->layers_s[at] + seconds;
            p->decode_layers_s[at + 1] = p->decode_layers_s[at] + seconds * chance ();
        }
        p->head_s[w] = pace * chance ();
        p->decode_head_s[w] = p->head_s[w] * chance ();
        p->memory_bytes[w] = 4 + (uint64_t) rand () % 30;
        p->required[w] = rand () % 8 == 0;
        p->kinds[w] = w;
    }
    for (uint32_t i = 0; i < (n + 1) * (n + 1); i++) {
        p->transfers_s[i] = chance () * 0.5;
        p->decode_transfers_s[i] = p->transfers_s[i] * chance ();
        p->hops_s[i] = rand () % 12 == 0 ? INFINITY : p->transfers_s[i] + chance ();
    }
}

/* Every order of every choice of workers, every way to cut. */
static void try_all (const priced *p, plan_part *parts, uint32_t n_parts, uint32_t first, uint32_t used, double *best)
{
    const plan_prices *prices = &p->prices;
    if (first == prices->n_layers) {
        for (uint32_t w = 0; w < prices->n; w++)
            if (p->required[w] && !(used >> w & 1))
                return;
        double value = plan_value (prices, parts, n_parts);
        *best = value < *best ? value : *best;
        return;
    }
    for (uint32_t w = 0; w < prices->n; w++)
        for (uint32_t end = first + 1; end <= prices->n_layers && !(used >> w & 1); end++) {
            parts[n_parts] = (plan_part){w, first, end};
            if (plan_part_fits (prices, &parts[n_parts]))
                try_all (p, parts, n_parts + 1, end, used | 1u << w, best);
        }
}

/* What is found for the prices; its value. */
static double search_for (const priced *p, plan_part *parts, uint32_t *n_parts)
{
    double value = INFINITY;
    bool exact;
    wl_error err = {0};
    assert_true (plan_search (&p->prices, parts, n_parts, &value, &exact, &err));
    assert_true (exact);
    return value;
}

static void no_choice_order_or_cut_is_better (void **state)
{
    (void) state;
    int fit = 0;
    srand (11);
    for (int round = 0; round < 600; round++) {
        priced p;
        plan_part parts[TRIED_LAYERS], tried[TRIED_LAYERS];
        uint32_t n_parts;
        double best = INFINITY;
        draw_prices (&p, round % 2);
        double value = search_for (&p, parts, &n_parts);
        try_all (&p, tried, 0, 0, 0, &best);
        if (best == INFINITY) {
            assert_int_equal (n_parts, 0);
            continue;
        }
        fit++;
        assert_true (n_parts > 0);
        double own = plan_value (&p.prices, parts, n_parts);
        assert_true (fabs (own - value) <= 1e-9 * own);
        assert_true (own >= best * (1 - 1e-9));
        /* for throughput it may give up 2% for a shorter round trip */
        assert_true (own <= best * (p.prices.latency ? 1 + 1e-9 : 1.0215));
        for (uint32_t i = 0; i < n_parts; i++)
            assert_true (plan_part_fits (&p.prices, &parts[i]));
    }
    assert_true (fit > 200);
}

/* Every way to cut for these workers in their order, whose round trip is within a limit. */
static void try_cuts (const priced *p, plan_part *parts, uint32_t n_parts, uint32_t part, double round_trip,
                      double *best)
{
    const plan_prices *prices = &p->prices;
    uint32_t first = part ? parts[part - 1].end : 0;
    if (part == n_parts) {
        plan_prices by_itself = *prices;
        by_itself.latency = true;
        double value = plan_phases_s (prices, parts, n_parts);
        if (first == prices->n_layers && plan_value (&by_itself, parts, n_parts) <= round_trip)
            *best = value < *best ? value : *best;
        return;
    }
    for (uint32_t end = first + 1; end <= prices->n_layers; end++) {
        parts[part] = (plan_part){parts[part].worker, first, end};
        if (plan_part_fits (prices, &parts[part]))
            try_cuts (p, parts, n_parts, part + 1, round_trip, best);
    }
}

static void no_cut_is_better_for_prefill_and_decoding_one_after_the_other (void **state)
{
    (void) state;
    int moved = 0;
    srand (12);
    for (int round = 0; round < 600; round++) {
        priced p;
        plan_part parts[TRIED_LAYERS], tried[TRIED_LAYERS];
        uint32_t n_parts;
        double best = INFINITY;
        wl_error err = {0};
        draw_prices (&p, false);
        p.prices.in_flight = 8;
        double value = search_for (&p, parts, &n_parts);
        if (n_parts < 2)
            continue;
        double before = plan_phases_s (&p.prices, parts, n_parts);
        memcpy (tried, parts, sizeof tried);
        assert_true (plan_recut (&p.prices, parts, n_parts, &err));
        double own = plan_phases_s (&p.prices, parts, n_parts);
        moved += own < before * 0.99;
        try_cuts (&p, tried, n_parts, 0, value * p.prices.in_flight, &best);
        best = fmax (best, value); /* a shorter round trip than there was is not looked for */
        assert_true (own <= before * 1.0011 && own <= best * 1.003);
        for (uint32_t i = 0; i < n_parts; i++)
            assert_true (plan_part_fits (&p.prices, &parts[i]) && parts[i].first < parts[i].end &&
                         parts[i].first == (i ? parts[i - 1].end : 0));
        assert_int_equal (parts[n_parts - 1].end, p.prices.n_layers);
    }
    assert_true (moved > 5);
}

static double cpu_s (void)
{
    struct timespec t;
    clock_gettime (CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double) t.tv_sec + (double) t.tv_nsec * 1e-9;
}

static void sixty_four_workers_and_126_layers_are_planned_in_100_ms (void **state)
{
    (void) state;
    static fixture f;
    static cluster c;
    make_model (&f, 126, even_rows, 1000);
    for (int variant = 0; variant < 4; variant++) {
        make_cluster (&c, &f, MOST_WORKERS);
        for (uint32_t i = 0; i < MOST_WORKERS && variant; i++) {
            c.workers[i].speed = speed_of (variant == 2 ? 1 + i % 2 : 1 + i * 0.05);
            c.workers[i].link.latency_s = 1e-5 * (1 + i % 7);
        }
        wl_plan_request r = request_for (&f, &c, MOST_WORKERS);
        r.objective = variant == 3 ? WL_LATENCY : WL_THROUGHPUT;
        wl_plan plan = {0};
        double took = INFINITY;
        for (int attempt = 0; attempt < 3; attempt++) { /* other processes take the caches from it */
            wl_plan_free (&plan);
            double begun = cpu_s ();
            plan = plan_of (&r);
            double own = cpu_s () - begun;
            took = own < took ? own : took;
        }
        print_message ("%.1f ms for %s workers: %u stages\n", took * 1e3,
                       variant == 0   ? "equal"
                       : variant == 2 ? "two kinds of"
                                      : "different",
                       plan.n_stages);
        assert_true (took < planning_s);
        wl_plan_free (&plan);
        wl_cost_free (&c.cost);
    }
}

/* -- who takes part -------------------------------------------------------------------------------------------------------------------------------------- */

static void equal_workers_get_equal_shares_and_a_faster_one_more (void **state)
{
    (void) state;
    fixture f;
    cluster c;
    make_model (&f, 30, even_rows, 8);
    make_cluster (&c, &f, 3);
    wl_plan_request r = request_for (&f, &c, 3);
    wl_plan plan = plan_of (&r);
    assert_int_equal (plan.n_stages, 3);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal (layers_of (&plan, i), 10);
    wl_plan_free (&plan);
    c.workers[1].speed = speed_of (3);
    plan = plan_of (&r);
    assert_in_range (layers_of (&plan, 1), 18, 19); /* one more shortens the round trip, which three steps share */
    assert_in_range (layers_of (&plan, 0), 5, 6);
    wl_plan_free (&plan);
    wl_cost_free (&c.cost);
}

/* Whatever else tells them apart: here, memory that none of them needs all of. */
static void workers_that_make_no_difference_keep_their_order (void **state)
{
    static fixture f;
    cluster c;
    (void) state;
    make_model (&f, 30, even_rows, 64);
    make_cluster (&c, &f, 4);
    for (uint32_t i = 0; i < 4; i++)
        c.workers[i].memory_bytes -= i;
    wl_plan_request r = request_for (&f, &c, 4);
    for (r.objective = WL_THROUGHPUT; r.objective <= WL_LATENCY; r.objective++) {
        wl_plan plan = plan_of (&r);
        for (uint32_t i = 1; i < plan.n_stages; i++)
            assert_true (plan.stages[i - 1].worker < plan.stages[i].worker);
        wl_plan_free (&plan);
    }
    wl_cost_free (&c.cost);
}

static bool keeps (const wl_plan_request *request, const wl_plan_range *kept, uint32_t n_kept)
{
    wl_plan_request r = *request;
    r.kept = kept;
    r.n_kept = n_kept;
    wl_plan plan = plan_of (&r);
    bool same = plan.n_stages == n_kept;
    for (uint32_t i = 0; same && i < n_kept; i++)
        same = plan.stages[i].worker == kept[i].worker && plan.stages[i].first_layer == kept[i].first_layer &&
               plan.stages[i].last_layer == kept[i].last_layer;
    assert_true (!plan.is_kept || same);
    wl_plan_free (&plan);
    return same;
}

static void a_split_that_was_used_is_kept_unless_another_is_a_tenth_faster (void **state)
{
    static fixture f;
    cluster c;
    (void) state;
    make_model (&f, 30, even_rows, 64);
    make_cluster (&c, &f, 3);
    wl_plan_request r = request_for (&f, &c, 2);
    c.workers[0].required = c.workers[1].required = true;
    const wl_plan_range near[] = {{0, 0, 15}, {1, 16, 29}}, other_order[] = {{1, 0, 13}, {0, 14, 29}},
                        far[] = {{0, 0, 16}, {1, 17, 29}};
    assert_true (keeps (&r, near, 2));
    assert_true (keeps (&r, other_order, 2));
    assert_false (keeps (&r, far, 2));
    /* what is no split of this model over these workers, and what does not fit any more */
    const wl_plan_range no_split[][2] = {
        {{0, 0, 15}, {1, 17, 29}}, {{0, 0, 15}, {1, 16, 28}},
        {{0, 0, 15}, {1, 16, 30}}, {{0, 0, 15}, {0, 16, 29}},
        {{0, 0, 15}, {2, 16, 29}}, {{0, 0, 15}, {1, 15, 29}},
        {{0, 1, 15}, {1, 16, 29}}, {{0, 0, UINT32_MAX - 1}, {1, 16, 29}},
    };
    for (size_t i = 0; i < sizeof no_split / sizeof no_split[0]; i++)
        assert_false (keeps (&r, no_split[i], 2));
    assert_false (keeps (&r, (const wl_plan_range[]){{0, 0, 29}}, 1)); /* not all that are required */
    wl_plan plan = plan_of (&r);
    c.workers[0].memory_bytes = plan.stages[0].weight_bytes + plan.stages[0].kv_bytes + plan.stages[0].work_bytes;
    wl_plan_free (&plan);
    assert_false (keeps (&r, near, 2));
    wl_cost_free (&c.cost);
}

static void a_worker_that_would_slow_the_rest_is_left_out_and_told_why (void **state)
{
    (void) state;
    fixture f;
    cluster c;
    make_model (&f, 30, even_rows, 8);
    make_cluster (&c, &f, 3);
    c.workers[1].speed = speed_of (0.01);
    wl_plan_request r = request_for (&f, &c, 3);
    wl_plan plan = plan_of (&r);
    assert_int_equal (plan.n_stages, 2);
    assert_int_equal (layers_of (&plan, 1), 0);
    assert_non_null (strstr (plan.reasons[1], "left out"));
    assert_non_null (strstr (plan.reasons[1], "against"));
    double without = plan.objective_s;
    wl_plan_free (&plan);
    c.workers[1].required = true;
    plan = plan_of (&r);
    assert_true (layers_of (&plan, 1) >= 1);
    assert_true (plan.objective_s > without);
    wl_plan_free (&plan);
    wl_cost_free (&c.cost);
}

static void a_far_worker_is_left_out_where_its_hops_cost_more_than_it_computes (void **state)
{
    (void) state;
    fixture f;
    cluster c;
    make_model (&f, 30, even_rows, 8);
    make_cluster (&c, &f, 2);
    for (int objective = 0; objective < 2; objective++) {
        wl_plan_request r = request_for (&f, &c, 2);
        r.objective = objective ? WL_LATENCY : WL_THROUGHPUT;
        c.workers[1].speed = speed_of (objective ? 2 : 1);
        c.workers[1].link.latency_s = 1e-7;
        wl_plan near = plan_of (&r);
        assert_true (layers_of (&near, 1) > 0);
        c.workers[1].link.latency_s = 0.5;
        wl_plan far = plan_of (&r);
        assert_int_equal (layers_of (&far, 1), 0);
        assert_non_null (strstr (far.reasons[1], "hop"));
        wl_plan_free (&near);
        wl_plan_free (&far);
    }
    wl_cost_free (&c.cost);
}

static void workers_of_a_far_site_stay_together (void **state)
{
    (void) state;
    fixture f;
    cluster c;
    wl_plan_link pairs[5 * 5];
    make_model (&f, 24, even_rows, 8);
    make_cluster (&c, &f, 4);
    for (uint32_t i = 0; i < 4; i++)
        c.workers[i].memory_bytes = 8000000; /* none can be left out */
    for (uint32_t a = 0; a < 5; a++)
        for (uint32_t b = 0; b < 5; b++) {
            bool far =
                (a % 2 == 1 && a < 4) != (b % 2 == 1 && b < 4); /* w1 and w3 are elsewhere, the coordinator here */
            pairs[a * 5 + b] = (wl_plan_link){far ? 0.05 : 1e-5, 1e9};
        }
    wl_plan_request r = request_for (&f, &c, 4);
    r.pairs = pairs;
    wl_plan plan = plan_of (&r);
    uint32_t crossings = 0, before = 4;
    for (uint32_t i = 0; i <= plan.n_stages; i++) {
        uint32_t at = i < plan.n_stages ? plan.stages[i].worker : 4;
        crossings += pairs[before * 5 + at].latency_s > 0.01;
        before = at;
    }
    assert_int_equal (plan.n_stages, 4);
    assert_int_equal (crossings, 2);
    wl_plan_free (&plan);
    wl_cost_free (&c.cost);
}

static void two_stages_of_one_machine_never_run_faster_than_the_machine (void **state)
{
    (void) state;
    fixture f;
    cluster c;
    wl_prediction one, two;
    wl_error err = {0};
    make_model (&f, 30, even_rows, 8);
    make_cluster (&c, &f, 2);
    /* each thread by itself has all of the memory's bandwidth, and half of the arithmetic */
    wl_speed whole = speed_of (2), half = speed_of (1);
    for (size_t type = 0; type < WL_SPEED_TYPES; type++)
        half.seconds_per_weight[type][0] = whole.seconds_per_weight[type][0];
    c.machines[0] = (wl_plan_machine){.whole = whole, .within = {1e-7, 1e12}};
    c.machines[0].whole.n_threads = 2;
    c.workers[0].speed = whole;
    wl_plan_request r = request_for (&f, &c, 1);
    wl_plan plan = plan_of (&r);
    assert_true (wl_predict (&r, &plan, 0, &one, &err));
    wl_plan_free (&plan);
    for (uint32_t i = 0; i < 2; i++)
        c.workers[i] = (wl_plan_worker){.name = c.names[i],
                                        .memory_bytes = UINT64_MAX / 1024,
                                        .speed = half,
                                        .required = true,
                                        .link = {1e-7, 1e12}};
    r.n_workers = 2;
    plan = plan_of (&r);
    assert_true (wl_predict (&r, &plan, 0, &two, &err));
    assert_true (two.prefill <= one.prefill * 1.001 && two.prefill > one.prefill * 0.6);
    assert_true (two.decode <= one.decode * 1.001 && two.decode > one.decode * 0.9);
    assert_true (two.eight <= one.eight * 1.001);
    wl_plan_free (&plan);
    wl_cost_free (&c.cost);
}

/* -- memory ------------------------------------------------------------------------------------------------------------------------------------------------ */

static void a_small_worker_gets_what_fits_it (void **state)
{
    (void) state;
    fixture f;
    cluster c;
    make_model (&f, 30, even_rows, 8);
    make_cluster (&c, &f, 2);
    c.workers[0].memory_bytes = 9000000;
    wl_plan_request r = request_for (&f, &c, 2);
    wl_plan plan = plan_of (&r);
    assert_true (layers_of (&plan, 0) >= 1 && layers_of (&plan, 0) < 12);
    for (uint32_t i = 0; i < plan.n_stages; i++)
        if (plan.stages[i].worker == 0) {
            assert_true (plan.stages[i].weight_bytes + plan.stages[i].kv_bytes + plan.stages[i].work_bytes <=
                         c.workers[0].memory_bytes);
            assert_non_null (strstr (plan.reasons[0], "memory"));
        }
    wl_plan_free (&plan);
    wl_cost_free (&c.cost);
}

static void what_does_not_fit_is_refused_with_the_figures (void **state)
{
    (void) state;
    fixture f;
    cluster c;
    wl_plan plan;
    wl_error err = {0}, together = {0};
    make_model (&f, 4, even_rows, 8);
    make_cluster (&c, &f, 2);
    c.workers[0].memory_bytes = c.workers[1].memory_bytes = 1000;
    wl_plan_request r = request_for (&f, &c, 2);
    assert_false (wl_plan_make (&r, &plan, &err));
    assert_int_equal (err.code, WL_ERROR_CLUSTER);
    assert_non_null (strstr (err.text, "worker w"));
    assert_non_null (strstr (err.text, "MB"));
    c.workers[0].memory_bytes = c.workers[1].memory_bytes = 4000000;
    c.workers[0].required = c.workers[1].required = true;
    r.share_one_machine = true;
    r.machine_bytes = 4000000; /* each half fits, both do not */
    assert_false (wl_plan_make (&r, &plan, &together));
    assert_int_equal (together.code, WL_ERROR_CLUSTER);
    assert_non_null (strstr (together.text, "together"));
    wl_cost_free (&c.cost);
}

/* -- by hand ----------------------------------------------------------------------------------------------------------------------------------------------- */

static void a_split_by_hand_must_be_whole (void **state)
{
    (void) state;
    fixture f;
    cluster c;
    const char *const good[] = {"0-2,3-5", "0,1-5", "0-4,5"};
    const char *const bad[] = {
        "0-1,3-5", "0-3,3-5", "0-2,3-6", "0-5",  "0-1,2-3,4-5", "1-2,3-5", "0-2,3-4", "",
        "a-b",     "0-2;3-5", "0-2,",    ",0-5", "2-0,3-5",     "0-,1-5",  "-1-5",    "0-2,3-99999999999999999999"};
    make_model (&f, 6, even_rows, 8);
    make_cluster (&c, &f, 2);
    wl_plan_request r = request_for (&f, &c, 2);
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        r.layers = good[i];
        wl_plan plan = plan_of (&r);
        assert_int_equal (plan.n_stages, 2);
        assert_true (plan.objective_s > 0);
        wl_plan_free (&plan);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        wl_plan plan;
        wl_error err = {0}, checked = {0};
        r.layers = bad[i];
        if (wl_plan_make (&r, &plan, &err) || wl_plan_check (&r, 2, &checked))
            fail_msg ("\"%s\" was accepted", bad[i]);
        assert_int_equal (err.code, WL_ERROR_USAGE);
        assert_string_equal (err.text, checked.text);
    }
    wl_cost_free (&c.cost);
}

static void more_required_workers_than_layers_are_refused (void **state)
{
    (void) state;
    fixture f;
    cluster c;
    wl_plan plan;
    wl_error err = {0};
    make_model (&f, 1, even_rows, 8);
    make_cluster (&c, &f, 2);
    wl_plan_request r = request_for (&f, &c, 2);
    plan = plan_of (&r); /* one is enough */
    assert_int_equal (plan.n_stages, 1);
    wl_plan_free (&plan);
    c.workers[0].required = c.workers[1].required = true;
    assert_false (wl_plan_make (&r, &plan, &err));
    assert_int_equal (err.code, WL_ERROR_USAGE);
    wl_cost_free (&c.cost);
}

/* -- the simulator ------------------------------------------------------------------------------------------------------------------------------------------- */

static void one_stream_takes_its_stages_and_hops_one_after_another (void **state)
{
    (void) state;
    fixture f;
    cluster c;
    wl_prediction got;
    wl_error err = {0};
    make_model (&f, 24, even_rows, 8);
    make_cluster (&c, &f, 3);
    for (uint32_t i = 0; i < 3; i++) {
        c.workers[i].link = (wl_plan_link){0.001, 1e9};
        c.workers[i].required = true;
    }
    wl_plan_request r = request_for (&f, &c, 3);
    wl_plan plan = plan_of (&r);
    assert_true (wl_predict (&r, &plan, 0, &got, &err));
    double round_trip = 4 * 0.001;
    for (uint32_t i = 0; i < 3; i++)
        round_trip += plan.stages[i].decode_s;
    assert_true (got.decode > 0.95 / round_trip && got.decode < 1.1 / round_trip); /* early positions attend to less */
    assert_true (got.eight > got.decode * 2);
    wl_plan_free (&plan);
    wl_cost_free (&c.cost);
}

/* Over a link that takes longer than computing, prompts are read as fast as their bytes pass. */
static void smaller_hops_are_counted_by_the_plan_and_the_simulator (void **state)
{
    (void) state;
    fixture f;
    cluster c;
    double objective_s[WL_N_HOPS], prefill[WL_N_HOPS];
    wl_error err = {0};
    make_model (&f, 24, even_rows, 8);
    make_cluster (&c, &f, 2);
    for (uint32_t i = 0; i < 2; i++) {
        c.workers[i].link = (wl_plan_link){1e-5, 1e4};
        c.workers[i].required = true;
    }
    wl_plan_request r = request_for (&f, &c, 2);
    for (r.hop = 0; r.hop < WL_N_HOPS; r.hop++) {
        wl_prediction got;
        wl_plan plan = plan_of (&r);
        assert_true (wl_predict (&r, &plan, 0, &got, &err));
        objective_s[r.hop] = plan.objective_s;
        prefill[r.hop] = got.prefill;
        wl_plan_free (&plan);
    }
    for (wl_hop hop = WL_HOP_F16; hop < WL_N_HOPS; hop++) {
        double part = (double) wl_hop_row_bytes (hop, D) / (double) wl_hop_row_bytes (WL_HOP_F32, D);
        assert_true (objective_s[hop] > 0.98 * part * objective_s[0] &&
                     objective_s[hop] < 1.02 * part * objective_s[0]);
        assert_true (prefill[hop] * part > 0.95 * prefill[0] && prefill[hop] * part < 1.05 * prefill[0]);
    }
    wl_cost_free (&c.cost);
}

static void every_request_of_a_mix_ends_and_waits_for_pages (void **state)
{
    (void) state;
    enum { REQUESTS = 2000 };
    fixture f;
    cluster c;
    wl_error err = {0};
    double wall, crowded;
    uint64_t steps;
    make_model (&f, 24, even_rows, 8);
    make_cluster (&c, &f, 4);
    wl_plan_request r = request_for (&f, &c, 4);
    wl_plan plan = plan_of (&r);
    wl_simulator *s = wl_simulator_new (&r, &plan, &err);
    wl_sim_request *requests = wl_new (REQUESTS, sizeof *requests, &err);
    wl_sim_stage stages[4];
    assert_true (s && requests);
    for (int pages = 256; pages >= 4; pages = pages == 256 ? 4 : 0) {
        const wl_sim_options options = {.max_rows = 128, .max_logit_rows = 64, .n_pages = (uint32_t) pages};
        for (uint32_t i = 0; i < REQUESTS; i++)
            requests[i] = (wl_sim_request){.arrival_s = i * 1e-4, .n_prompt = 1 + i % 150, .n_generated = 1 + i % 40};
        assert_true (
            wl_simulate (s, &options, requests, REQUESTS, pages == 256 ? &wall : &crowded, &steps, stages, &err));
        for (uint32_t i = 0; i < REQUESTS; i++) {
            assert_true (requests[i].first_s > requests[i].arrival_s);
            assert_true (requests[i].done_s >= requests[i].first_s);
        }
        assert_true (steps > 0);
        for (uint32_t i = 0; i < plan.n_stages; i++)
            assert_true (stages[i].busy_s > 0 && stages[i].busy_s <= (pages == 256 ? wall : crowded) * 1.000001);
    }
    assert_true (crowded > wall * 1.5);
    requests[0] = (wl_sim_request){.n_prompt = 500, .n_generated = 1};
    const wl_sim_options small = {.max_rows = 128, .max_logit_rows = 64, .n_pages = 4};
    assert_false (wl_simulate (s, &small, requests, 1, &wall, &steps, NULL, &err));
    assert_int_equal (err.code, WL_ERROR_USAGE);
    free (requests);
    wl_simulator_free (&s);
    wl_plan_free (&plan);
    wl_cost_free (&c.cost);
}

static void a_failing_allocation_anywhere_is_an_error (void **state)
{
    (void) state;
    fixture f;
    cluster c;
    uint32_t failures = 0;
    make_model (&f, 8, even_rows, 8);
    for (unsigned nth = 1;; nth++) {
        wl_error err = {0};
        wl_plan plan;
        wl_prediction prediction;
        make_cluster (&c, &f, 3);
        c.workers[2].speed = speed_of (0.01);
        wl_plan_request r = request_for (&f, &c, 3);
        r.kept = (const wl_plan_range[]){{0, 0, 4}, {1, 5, 7}};
        r.n_kept = 2;
        wl_memory_fail_after (nth);
        bool ok = wl_plan_make (&r, &plan, &err);
        if (ok) {
            ok = wl_predict (&r, &plan, 0, &prediction, &err);
            wl_plan_free (&plan);
        }
        wl_memory_fail_after (0);
        wl_cost_free (&c.cost);
        if (ok)
            break;
        assert_int_equal (err.code, WL_ERROR_INTERNAL);
        failures++;
    }
    assert_true (failures > 20);
}

int main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (no_choice_order_or_cut_is_better),
        cmocka_unit_test (no_cut_is_better_for_prefill_and_decoding_one_after_the_other),
        cmocka_unit_test (sixty_four_workers_and_126_layers_are_planned_in_100_ms),
        cmocka_unit_test (equal_workers_get_equal_shares_and_a_faster_one_more),
        cmocka_unit_test (workers_that_make_no_difference_keep_their_order),
        cmocka_unit_test (a_split_that_was_used_is_kept_unless_another_is_a_tenth_faster),
        cmocka_unit_test (a_worker_that_would_slow_the_rest_is_left_out_and_told_why),
        cmocka_unit_test (a_far_worker_is_left_out_where_its_hops_cost_more_than_it_computes),
        cmocka_unit_test (workers_of_a_far_site_stay_together),
        cmocka_unit_test (two_stages_of_one_machine_never_run_faster_than_the_machine),
        cmocka_unit_test (a_small_worker_gets_what_fits_it),
        cmocka_unit_test (what_does_not_fit_is_refused_with_the_figures),
        cmocka_unit_test (a_split_by_hand_must_be_whole),
        cmocka_unit_test (more_required_workers_than_layers_are_refused),
        cmocka_unit_test (one_stream_takes_its_stages_and_hops_one_after_another),
        cmocka_unit_test (smaller_hops_are_counted_by_the_plan_and_the_simulator),
        cmocka_unit_test (every_request_of_a_mix_ends_and_waits_for_pages),
        cmocka_unit_test (a_failing_allocation_anywhere_is_an_error),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
