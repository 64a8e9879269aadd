/* What a step costs; see step_cost.h.
 *
 * A slot keeps a point of the curve: rows and the quotient of measured and prior time, smoothed. Between points the quotient is blended, so that where little was measured
 * the prior gives the shape, and where much was, the points do. One measurement moves a slot by a factor of two at most: a machine that is busy elsewhere for a
 * moment changes little.
 *
 * Between numbers of groups that cost about the same, the one in use stays: going over from one to another leaves stages idle for most of a round.
 *
 * What is not chosen is not measured, so a figure from a bad moment would stand for ever, and so would one from before other programs came or went. Hence the numbers of
 * groups worth comparing are tried again now and then, the more rarely the dearer they looked. */
#include "step_cost.h"

#include <stdlib.h>

#include "engine/memory.h"

enum { EXACT_ROWS = 8, N_SLOTS = 32, LEAST_CHUNK = 16, CHUNK_GRAIN = 8, OLD_STEPS = 64 };

typedef struct point {
    double rows, quotient; /* 0: not measured */
    uint64_t step;         /* that measured it last */
} point;

struct wl_step_cost {
    uint32_t n_stages, n_parallel;
    uint64_t n_steps;         /* measured */
    size_t n_streams;         /* when the number of groups was last asked */
    uint32_t n_groups;        /* the best then; 0: never asked */
    point (*points)[N_SLOTS]; /* [n_stages] */
};

wl_step_cost *wl_step_cost_new (uint32_t n_stages, uint32_t n_parallel, wl_error *err)
{
    wl_step_cost *cost = wl_new (1, sizeof *cost, err);
    if (!cost)
        return NULL;
    cost->n_stages = n_stages;
    cost->n_parallel = n_parallel < 1 ? 1 : n_parallel > n_stages ? n_stages : n_parallel;
    cost->points = wl_new (n_stages, sizeof *cost->points, err);
    if (!cost->points)
        wl_step_cost_free (&cost);
    return cost;
}

void wl_step_cost_free (wl_step_cost **cost)
{
    if (*cost)
        free ((*cost)->points);
    free (*cost);
    *cost = NULL;
}

/* -- the curve ---------------------------------------------------------------------------------------------------------------------------- */

/* Milliseconds of some machine. One or two rows cost what reading the weights costs; the multiplications show from three on. What a step costs beside its rows
 * (weights are unpacked once) is worth six rows. */
static double prior_ns (size_t n_rows)
{
    static const double few[] = {0, 1.0, 1.0, 1.1, 1.2, 1.4, 1.6, 1.8, 2.0};
    return 1e6 * (n_rows < sizeof few / sizeof few[0] ? few[n_rows] : 0.9 + 0.15 * (double) n_rows);
}

/* Counts up to EXACT_ROWS have a slot each; beyond, two slots to a doubling. */
static size_t slot_of (size_t n_rows)
{
    if (n_rows <= EXACT_ROWS)
        return n_rows ? n_rows - 1 : 0;
    size_t slot = EXACT_ROWS, from = EXACT_ROWS;
    while (slot + 2 < N_SLOTS && n_rows > 2 * from) {
        from *= 2;
        slot += 2;
    }
    return slot + (2 * n_rows > 3 * from);
}

void wl_step_cost_add (wl_step_cost *cost, uint32_t stage, size_t n_rows, uint64_t ns)
{
    const double most = 2;
    cost->n_steps += stage == 0;
    point *at = &cost->points[stage][slot_of (n_rows)];
    double now = (double) (ns ? ns : 1) / prior_ns (n_rows);
    if (at->rows == 0) {
        *at = (point){(double) n_rows, now, cost->n_steps};
        return;
    }
    if (now > at->quotient * most)
        now = at->quotient * most;
    double pace = cost->n_steps - at->step > OLD_STEPS ? 0.5 : 0.25;
    at->step = cost->n_steps;
    at->quotient += pace * (now - at->quotient);
    at->rows += pace * ((double) n_rows - at->rows);
}

static double stage_ns (const wl_step_cost *cost, uint32_t stage, size_t n_rows)
{
    const point *points = cost->points[stage], *below = NULL, *above = NULL;
    double rows = (double) n_rows, quotient = 1;
    for (const point *p = points; p < points + N_SLOTS && !above; p++) { /* their rows ascend with their slots */
        if (p->rows > 0 && p->rows >= rows)
            above = p;
        else if (p->rows > 0)
            below = p;
    }
    if (below && above)
        quotient =
            below->quotient + (above->quotient - below->quotient) * (rows - below->rows) / (above->rows - below->rows);
    else if (below || above)
        quotient = below ? below->quotient : above->quotient;
    return quotient * prior_ns (n_rows);
}

double wl_step_cost_all (const wl_step_cost *cost, size_t n_rows)
{
    double sum = 0;
    for (uint32_t i = 0; i < cost->n_stages; i++)
        sum += stage_ns (cost, i, n_rows);
    return sum;
}

double wl_step_cost_slowest (const wl_step_cost *cost, size_t n_rows)
{
    double most = 0;
    for (uint32_t i = 0; i < cost->n_stages; i++) {
        double ns = stage_ns (cost, i, n_rows);
        most = ns > most ? ns : most;
    }
    return most;
}

/* -- what follows --------------------------------------------------------------------------------------------------------------------------- */

/* n equal chunks keep n_parallel stages at work, but for the time in which the first and the last of them pass the other stages. */
static double prefill_ns (const wl_step_cost *cost, size_t n_chunks, size_t n_rows)
{
    double all = wl_step_cost_all (cost, n_rows), slowest = wl_step_cost_slowest (cost, n_rows);
    double parallel = cost->n_parallel;
    double shared = (double) n_chunks * all / parallel, serial = (double) n_chunks * slowest;
    return (shared > serial ? shared : serial) + (parallel - 1) * all / cost->n_stages;
}

size_t wl_step_cost_chunk (const wl_step_cost *cost, size_t n_tokens, size_t max_rows)
{
    size_t best = 0;
    double best_ns = 0;
    for (size_t rows = LEAST_CHUNK; rows <= max_rows || best == 0; rows += CHUNK_GRAIN) {
        size_t most = rows < max_rows ? rows : max_rows;
        size_t n_chunks = (n_tokens + most - 1) / most;
        size_t equal = n_chunks ? (n_tokens + n_chunks - 1) / n_chunks : most;
        double ns = prefill_ns (cost, n_chunks, equal);
        if (best == 0 || ns < best_ns) {
            best = equal;
            best_ns = ns;
        }
        if (most >= n_tokens)
            break;
    }
    return best ? best : 1;
}

size_t wl_step_cost_within (const wl_step_cost *cost, size_t most, double longest_ns)
{
    while (most > LEAST_CHUNK && wl_step_cost_slowest (cost, most) > longest_ns)
        most = most > LEAST_CHUNK + CHUNK_GRAIN ? most - CHUNK_GRAIN : LEAST_CHUNK;
    return most;
}

/* Nanoseconds of a round in which every stream moves on by a token, dealt into n groups. */
static double round_ns (const wl_step_cost *cost, size_t n_streams, uint32_t n)
{
    size_t rows = (n_streams + n - 1) / n;
    double all = wl_step_cost_all (cost, rows), slowest = n * wl_step_cost_slowest (cost, rows);
    double shared = n * all / cost->n_parallel, ns = all > slowest ? all : slowest;
    return ns > shared ? ns : shared;
}

/* Whether what n groups cost was measured so long ago, for how dear it looked beside the best, that it should be tried again. */
static bool is_doubtful (const wl_step_cost *cost, size_t n_streams, uint32_t n, double best_ns)
{
    double dearer = round_ns (cost, n_streams, n) / best_ns, patience = dearer * dearer;
    return (double) (cost->n_steps - cost->points[0][slot_of ((n_streams + n - 1) / n)].step) >
           OLD_STEPS * patience * patience;
}

uint32_t wl_step_cost_groups (wl_step_cost *cost, size_t n_streams)
{
    const double difference = 0.95; /* that makes more groups, or others than there are, worth the unrest */
    /* Where one stage at a time computes, one step of all rows is never dearer than several of some: nothing is to be learned there from a machine's noise. */
    uint32_t most = cost->n_parallel > 1 ? cost->n_stages + 1 : 1, best = 1;
    double best_ns = 0;
    for (uint32_t n = 1; n <= most && n <= n_streams; n++) {
        double ns = round_ns (cost, n_streams, n);
        if (n == 1 || ns < best_ns * difference) {
            best = n;
            best_ns = ns;
        }
    }
    if (cost->n_groups && cost->n_groups <= most && cost->n_groups <= n_streams && n_streams == cost->n_streams &&
        best_ns > round_ns (cost, n_streams, cost->n_groups) * difference) {
        best = cost->n_groups;
        best_ns = round_ns (cost, n_streams, best);
    }
    cost->n_groups = best;
    cost->n_streams = n_streams;
    /* The two that matter: all streams at once, with the machine's memory to themselves, and as many groups as can compute at once. */
    const uint32_t others[] = {1, cost->n_parallel};
    for (size_t i = 0; cost->n_parallel > 1 && i < 2; i++)
        if (others[i] != best && others[i] <= n_streams && is_doubtful (cost, n_streams, others[i], best_ns))
            return others[i];
    return best;
}

size_t wl_step_cost_guesses (const wl_step_cost *cost, size_t n_rows, double base, const double *gains, size_t n)
{
    const double difference = 1.005;
    size_t best = 0;
    double tokens = base, best_rate = n_rows ? base / wl_step_cost_all (cost, n_rows) : 0;
    for (size_t i = 0; i < n; i++) {
        tokens += gains[i];
        double rate = tokens / wl_step_cost_all (cost, n_rows + i + 1);
        if (rate > best_rate * difference) {
            best = i + 1;
            best_rate = rate;
        }
    }
    return best;
}
