/* Measuring this machine; see speed.h.
 *
 * Weights are zeros: kernels have no branch that depends on them, and zeros hold no subnormal factors. They lie in a mapping larger than a last-level cache, so that one row
 * streams from memory. The best of several short slices counts: what disturbs a slice only makes it slower, and a plan is made for the machine, not for the moment. */
#include "speed.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "machine.h"
#include "memory.h"
#include "thread_pool.h"
#include "weights.h"

const uint32_t wl_speed_rows[WL_SPEED_ROWS] = {1, 2, 4, 8, 16, 32, 64, 128};
const wl_type wl_speed_types[WL_SPEED_TYPES] = {WL_TYPE_Q4_K, WL_TYPE_Q6_K, WL_TYPE_Q8_0,
                                                WL_TYPE_Q4_0, WL_TYPE_Q4_1, WL_TYPE_F16};

enum {
    COLUMNS = 2048,
    WEIGHT_BYTES = 80 << 20,
    MATRIX_ROWS = 2048, /* of one product, as large as a layer's */
    HEAD_DIM = 128,
    HEADS = 4, /* query heads that share a kv head */
    QUERIES = 64,
    POSITIONS = 512,
    BETWEEN_LOOKS = 32, /* at a clock, which takes as long as what is short */
};
static const double slice_s = 0.0004, point_s = 0.006; /* for each type and number of rows */

/* Seconds of a clock that leaves out what other processes took from a single thread. With more threads only the wall's tells how well they shared. */
static double clock_s (size_t n_threads)
{
    struct timespec t;
    if (n_threads > 1 || clock_gettime (CLOCK_THREAD_CPUTIME_ID, &t) != 0)
        return wl_now_s ();
    return (double) t.tv_sec + (double) t.tv_nsec * 1e-9;
}

/* -- products ---------------------------------------------------------------------------------------------------------------------------------- */

typedef struct bench {
    const wl_kernels *kernels;
    wl_thread_pool *pool;
    uint8_t *weights; /* [WEIGHT_BYTES] */
    uint8_t *scratch; /* [threads][scratch_stride] */
    size_t scratch_stride;
    float *f32, *out; /* [128, COLUMNS], [128, MATRIX_ROWS] */
    int8_t *q;
    float *scales, *totals;
    int16_t *sums;
} bench;

static wl_activation_set activations (const bench *b)
{
    wl_activation_set set = {0};
    for (int kind = 0; kind < 3; kind++)
        set.kinds[kind] = (wl_activations){.kind = (wl_activation_kind) kind,
                                           .n_rows = 128,
                                           .n = COLUMNS,
                                           .f32 = b->f32,
                                           .f32_stride = COLUMNS,
                                           .q = b->q,
                                           .q_stride = COLUMNS,
                                           .scales = b->scales,
                                           .scale_stride = COLUMNS / 16,
                                           .sums = b->sums,
                                           .sum_stride = COLUMNS / 16,
                                           .totals = b->totals,
                                           .total_stride = COLUMNS / 32};
    return set;
}

/* One product of the matrix at *at, and on to the next; returns its weights. */
static size_t multiply_next (const bench *b, const wl_format *format, size_t n_tiles, uint32_t n_rows, size_t *at)
{
    const wl_activation_set set = activations (b);
    size_t tile_bytes = COLUMNS / format->block_elements * format->tile_bytes;
    if (*at + n_tiles > WEIGHT_BYTES / tile_bytes)
        *at = 0;
    const wl_matrix matrix = {.format = format,
                              .tiles = b->weights + *at * tile_bytes,
                              .n_tiles = n_tiles,
                              .tile_bytes = tile_bytes,
                              .rows = n_tiles * WL_TILE_ROWS,
                              .columns = COLUMNS};
    const wl_product product = {&matrix, b->out, MATRIX_ROWS, 0, n_rows};
    wl_multiply (b->pool, b->kernels, &set, (wl_products){&product, 1}, (wl_products){0}, b->scratch,
                 b->scratch_stride);
    *at += n_tiles;
    return n_tiles * WL_TILE_ROWS * COLUMNS;
}

/* Seconds a weight: products of matrices one behind another in memory, round and round, in slices until the point's time is used. Kernels without SIMD are a hundred
 * times slower, so a small product comes first; where that alone takes a slice, it is all there is. */
static double time_products (const bench *b, wl_type type, uint32_t n_rows)
{
    const wl_format *format = wl_format_find (type);
    size_t at = 0, n_tiles = 2, threads = wl_thread_pool_size (b->pool);
    double start = wl_now_s (), best = INFINITY;
    do {
        double begun = clock_s (threads), took;
        size_t weights = 0;
        do {
            weights += multiply_next (b, format, n_tiles, n_rows, &at);
            took = clock_s (threads) - begun;
        } while (took < slice_s && n_tiles > 2);
        bool is_first = n_tiles == 2;
        if (!is_first || took > slice_s)
            best = took / (double) weights < best ? took / (double) weights : best;
        if (took <= slice_s)
            n_tiles = MATRIX_ROWS / WL_TILE_ROWS;
    } while (best == INFINITY || wl_now_s () - start < point_s);
    return best;
}

/* -- attention ----------------------------------------------------------------------------------------------------------------------------------- */

typedef struct attention_job {
    const wl_kernels *kernels;
    size_t n_rows;
    float *q, *out, *scratch; /* a part for each thread */
    size_t row_floats, scratch_floats;
    uint16_t *kv; /* [2][POSITIONS, HEAD_DIM] a thread */
    const uint32_t *first, *last;
} attention_job;

static void attend (void *context, size_t chunk, size_t thread)
{
    const attention_job *job = context;
    const void *k_pages[POSITIONS / WL_KV_PAGE], *v_pages[POSITIONS / WL_KV_PAGE];
    const uint16_t *kv = job->kv + thread * 2 * POSITIONS * HEAD_DIM;
    (void) chunk;
    for (size_t i = 0; i < POSITIONS / WL_KV_PAGE; i++) {
        k_pages[i] = kv + i * WL_KV_PAGE * HEAD_DIM;
        v_pages[i] = kv + (POSITIONS + i * WL_KV_PAGE) * HEAD_DIM;
    }
    const wl_attention a = {.n_rows = job->n_rows,
                            .head_dim = HEAD_DIM,
                            .q = job->q + thread * job->row_floats,
                            .q_stride = HEAD_DIM,
                            .out = job->out + thread * job->row_floats,
                            .out_stride = HEAD_DIM,
                            .first = job->first,
                            .last = job->last,
                            .k_pages = k_pages,
                            .v_pages = v_pages,
                            .scale = 0.1f,
                            .scratch = job->scratch + thread * job->scratch_floats};
    job->kernels->attention (&a);
}

/* Seconds a multiply-add (two for each query head, position and element) with all threads at work. */
static bool time_attention (const bench *b, double out[2], wl_error *err)
{
    enum { ROWS = HEADS * QUERIES };
    size_t threads = wl_thread_pool_size (b->pool);
    uint32_t first[ROWS] = {0}, last[ROWS];
    attention_job job = {.kernels = b->kernels,
                         .row_floats = ROWS * HEAD_DIM,
                         .scratch_floats = (wl_attention_scratch (ROWS, HEAD_DIM) + 15) / 16 * 16,
                         .first = first,
                         .last = last};
    for (size_t i = 0; i < ROWS; i++)
        last[i] = POSITIONS - 1;
    job.q = wl_new_aligned (threads * job.row_floats, sizeof (float), err);
    job.out = wl_new_aligned (threads * job.row_floats, sizeof (float), err);
    job.scratch = wl_new_aligned (threads * job.scratch_floats, sizeof (float), err);
    job.kv = wl_new_aligned (threads * 2 * POSITIONS * HEAD_DIM, sizeof (uint16_t), err);
    bool ok = job.q && job.out && job.scratch && job.kv;
    for (int many = 0; ok && many < 2; many++) {
        job.n_rows = many ? ROWS : HEADS;
        out[many] = INFINITY;
        for (double start = wl_now_s (); out[many] == INFINITY || wl_now_s () - start < point_s;) {
            double begun = clock_s (threads), took;
            size_t calls = 0;
            do {
                wl_thread_pool_run (b->pool, threads, attend, &job);
                calls += threads;
                took = clock_s (threads) - begun;
            } while (took < slice_s);
            double each = took / ((double) calls * (double) job.n_rows * POSITIONS * HEAD_DIM * 2);
            out[many] = each < out[many] ? each : out[many];
        }
    }
    wl_free_aligned (job.q);
    wl_free_aligned (job.out);
    wl_free_aligned (job.scratch);
    wl_free_aligned (job.kv);
    return ok;
}

/* -- the rest of a layer ---------------------------------------------------------------------------------------------------------------------- */

/* Passes over elements as a layer makes them: norms, rounding, rotation, activation, the sums; those of the feed-forward part are wider. */
static size_t pass_over_row (const bench *b, float *out)
{
    enum { WIDE = COLUMNS, NARROW = COLUMNS / 4 };
    const wl_kernels *k = b->kernels;
    const float *x = b->f32, *ones = b->f32 + COLUMNS;
    for (int half = 0; half < 2; half++) {
        k->rms_norm (out, x, ones, NARROW, 1e-5f);
        k->quantize_q8_256 (b->q, b->scales, b->sums, out, NARROW);
        k->add_scaled (out, x, 1, NARROW);
    }
    k->rope_halves (out, ones, ones, NARROW / 2);
    k->quantize_q8_256 (b->q, b->scales, b->sums, out, NARROW);
    k->silu_mul (out, x, ones, WIDE);
    k->quantize_q8_256 (b->q, b->scales, b->sums, out, WIDE);
    return (size_t) 8 * NARROW + (size_t) 2 * WIDE;
}

static double time_elements (const bench *b)
{
    double best = INFINITY;
    for (double start = wl_now_s (); best == INFINITY || wl_now_s () - start < point_s;) {
        double begun = clock_s (1), took;
        size_t n = 0;
        do {
            for (int i = 0; i < BETWEEN_LOOKS; i++)
                n += pass_over_row (b, b->out);
            took = clock_s (1) - begun;
        } while (took < slice_s);
        best = took / (double) n < best ? took / (double) n : best;
    }
    return best;
}

static void do_nothing (void *context, size_t chunk, size_t thread)
{
    (void) context, (void) chunk, (void) thread;
}

static double time_dispatch (const bench *b)
{
    const double least_s = 1e-12; /* that a file can hold */
    size_t threads = wl_thread_pool_size (b->pool);
    double best = INFINITY;
    for (double start = wl_now_s (); best == INFINITY || wl_now_s () - start < point_s;) {
        double begun = clock_s (threads), took;
        size_t n = 0;
        do {
            for (int i = 0; i < BETWEEN_LOOKS; i++, n++)
                wl_thread_pool_run (b->pool, threads, do_nothing, NULL);
            took = clock_s (threads) - begun;
        } while (took < slice_s);
        best = took / (double) n < best ? took / (double) n : best;
    }
    return best > least_s ? best : least_s;
}

/* -- all of it ----------------------------------------------------------------------------------------------------------------------------------- */

static bool open_bench (bench *b, const wl_kernels *kernels, uint32_t n_threads, wl_error *err)
{
    const size_t rows = 128;
    *b = (bench){.kernels = kernels, .scratch_stride = (kernels->scratch_bytes + 63) / 64 * 64};
    b->pool = wl_thread_pool_new (n_threads, err);
    b->weights = wl_map_pages (WEIGHT_BYTES, err);
    b->scratch = wl_new_aligned (n_threads, b->scratch_stride, err);
    b->f32 = wl_new_aligned (rows * COLUMNS, sizeof (float), err);
    b->out = wl_new_aligned (rows * MATRIX_ROWS, sizeof (float), err);
    b->q = wl_new_aligned (rows * COLUMNS, 1, err);
    b->scales = wl_new_aligned (rows * COLUMNS / 16, sizeof (float), err);
    b->sums = wl_new_aligned (rows * COLUMNS / 16, sizeof (int16_t), err);
    b->totals = wl_new_aligned (rows * COLUMNS / 32, sizeof (float), err);
    if (!b->pool || !b->weights || !b->scratch || !b->f32 || !b->out || !b->q || !b->scales || !b->sums || !b->totals)
        return false;
    memset (b->weights, 0, WEIGHT_BYTES); /* pages that were never written are all the same one */
    for (size_t i = 0; i < rows * COLUMNS; i++) {
        b->f32[i] = 0.5f;
        b->q[i] = 64;
    }
    for (size_t i = 0; i < rows * COLUMNS / 16; i++) {
        b->scales[i] = 0x1p-7f;
        b->sums[i] = 64 * 16;
    }
    for (size_t i = 0; i < rows * COLUMNS / 32; i++)
        b->totals[i] = 0.5f * 32;
    return true;
}

static void close_bench (bench *b)
{
    wl_free_aligned (b->totals);
    wl_free_aligned (b->sums);
    wl_free_aligned (b->scales);
    wl_free_aligned (b->q);
    wl_free_aligned (b->out);
    wl_free_aligned (b->f32);
    wl_free_aligned (b->scratch);
    if (b->weights)
        wl_unmap_pages (b->weights, WEIGHT_BYTES);
    wl_thread_pool_free (&b->pool);
}

bool wl_speed_measure (const wl_kernels *kernels, uint32_t n_threads, wl_speed *out, wl_error *err)
{
    bench b;
    *out = (wl_speed){.n_threads = n_threads, .n_cores = wl_machine_cores (), .measured_at = (uint64_t) time (NULL)};
    wl_machine_cpu (out->cpu, sizeof out->cpu);
    snprintf (out->isa, sizeof out->isa, "%s", kernels->isa);
    bool ok = open_bench (&b, kernels, n_threads, err);
    for (size_t type = 0; ok && type < WL_SPEED_TYPES; type++)
        for (size_t i = 0; i < WL_SPEED_ROWS; i++)
            out->seconds_per_weight[type][i] = time_products (&b, wl_speed_types[type], wl_speed_rows[i]);
    ok = ok && time_attention (&b, out->attention_s, err);
    if (ok) {
        out->element_s = time_elements (&b);
        out->dispatch_s = time_dispatch (&b);
    }
    close_bench (&b);
    return ok;
}

/* -- reading the curve --------------------------------------------------------------------------------------------------------------------------- */

/* The measured type whose kernel works most like that of `type`, and how many bytes a weight of it has. */
static size_t closest (wl_type type, double *bytes_ratio)
{
    const wl_format *format = wl_format_find (type), *other;
    size_t best = 0;
    double least = INFINITY, bytes = format ? (double) format->tile_bytes / format->block_elements / 8 : 0;
    *bytes_ratio = 1;
    for (size_t i = 0; i < WL_SPEED_TYPES; i++) {
        other = wl_format_find (wl_speed_types[i]);
        if (wl_speed_types[i] == type)
            return i;
        if (!format || !other || other->activation != format->activation)
            continue;
        double theirs = (double) other->tile_bytes / other->block_elements / 8, apart = fabs (theirs - bytes);
        if (apart < least) {
            least = apart;
            best = i;
            *bytes_ratio = bytes / theirs;
        }
    }
    return best;
}

double wl_speed_weight_s (const wl_speed *speed, wl_type type, double rows)
{
    double ratio, seconds;
    const double *curve = speed->seconds_per_weight[closest (type, &ratio)];
    size_t i = 0;
    if (rows <= 1) {
        seconds = curve[0];
    } else if (rows >= wl_speed_rows[WL_SPEED_ROWS - 1]) {
        seconds = curve[WL_SPEED_ROWS - 1] * rows / wl_speed_rows[WL_SPEED_ROWS - 1];
    } else {
        while (rows > wl_speed_rows[i + 1])
            i++;
        double from = wl_speed_rows[i], part = (rows - from) / (wl_speed_rows[i + 1] - from);
        seconds = curve[i] + (curve[i + 1] - curve[i]) * part;
    }
    double stream = curve[0] * ratio; /* its own bytes have to come from memory */
    return seconds > stream ? seconds : stream;
}

void wl_speed_at_least (wl_speed *speed, const wl_speed *other)
{
    double *own = speed->seconds_per_weight[0];
    const double *theirs = other->seconds_per_weight[0];
    for (size_t i = 0; i < (size_t) WL_SPEED_TYPES * WL_SPEED_ROWS; i++)
        own[i] = theirs[i] < own[i] ? theirs[i] : own[i];
    for (size_t i = 0; i < 2; i++)
        speed->attention_s[i] =
            other->attention_s[i] < speed->attention_s[i] ? other->attention_s[i] : speed->attention_s[i];
    speed->element_s = other->element_s < speed->element_s ? other->element_s : speed->element_s;
    speed->dispatch_s = other->dispatch_s < speed->dispatch_s ? other->dispatch_s : speed->dispatch_s;
}

double wl_speed_bandwidth (const wl_speed *speed)
{
    const wl_format *format = wl_format_find (WL_TYPE_Q4_K);
    return (double) format->tile_bytes / format->block_elements / WL_TILE_ROWS / speed->seconds_per_weight[0][0];
}

double wl_speed_macs (const wl_speed *speed)
{
    return wl_speed_rows[WL_SPEED_ROWS - 1] / speed->seconds_per_weight[0][WL_SPEED_ROWS - 1];
}

wl_speed wl_speed_assumed (uint32_t n_threads)
{
    const double bandwidth = n_threads > 2 ? 3e10 : 1.2e10 * n_threads, macs = 6e10 * n_threads;
    wl_speed s = {.n_threads = n_threads,
                  .n_cores = n_threads,
                  .attention_s = {1e-10 / n_threads, 5e-11 / n_threads},
                  .element_s = WL_SPEED_ELEMENT_S,
                  .dispatch_s = WL_SPEED_DISPATCH_S};
    snprintf (s.cpu, sizeof s.cpu, "unknown");
    snprintf (s.isa, sizeof s.isa, "unknown");
    for (size_t type = 0; type < WL_SPEED_TYPES; type++)
        for (size_t i = 0; i < WL_SPEED_ROWS; i++) {
            const wl_format *format = wl_format_find (wl_speed_types[type]);
            double stream = (double) format->tile_bytes / format->block_elements / WL_TILE_ROWS / bandwidth;
            double compute = wl_speed_rows[i] / macs * (format->activation == WL_ACTIVATION_F32 ? 4 : 1);
            s.seconds_per_weight[type][i] = stream > compute ? stream : compute;
        }
    return s;
}

bool wl_speed_equal (const wl_speed *a, const wl_speed *b)
{
    bool equal = strcmp (a->cpu, b->cpu) == 0 && strcmp (a->isa, b->isa) == 0 && a->n_threads == b->n_threads &&
                 a->n_cores == b->n_cores && a->attention_s[0] == b->attention_s[0] &&
                 a->attention_s[1] == b->attention_s[1] && a->element_s == b->element_s &&
                 a->dispatch_s == b->dispatch_s;
    for (size_t type = 0; type < WL_SPEED_TYPES; type++)
        for (size_t i = 0; i < WL_SPEED_ROWS; i++)
            equal = equal && a->seconds_per_weight[type][i] == b->seconds_per_weight[type][i];
    return equal;
}

bool wl_speed_is_sound (const wl_speed *s)
{
    const double least = 1e-16, most = 1e-3, most_wait = 1;
    bool ok = s->n_threads >= 1 && s->n_threads <= 65536 && s->n_cores >= 1 && s->n_cores <= 65536;
    for (size_t type = 0; type < WL_SPEED_TYPES; type++)
        for (size_t i = 0; i < WL_SPEED_ROWS; i++)
            ok = ok && s->seconds_per_weight[type][i] >= least && s->seconds_per_weight[type][i] <= most;
    for (size_t i = 0; i < 2; i++)
        ok = ok && s->attention_s[i] >= least && s->attention_s[i] <= most;
    return ok && s->element_s >= least && s->element_s <= most && s->dispatch_s >= least && s->dispatch_s <= most_wait;
}

const char *wl_speed_source_name (wl_speed_source source)
{
    static const char *const names[] = {"assumed", "measured", "cached", "described"};
    return names[source];
}
