/* What a model could reach on this machine; see roofline.h. */
#include "roofline.h"

#include <string.h>

#include "engine/kernels/peak.h"
#include "engine/kv_cache.h"
#include "engine/machine.h"
#include "engine/memory.h"

/* What else the machine does makes a slice slower and never faster; so slices are short and many, and the best one counts. */
enum {
    STREAM_BYTES = 256 << 20,
    SLICE_BYTES = 32 << 20,
    CHUNK_BYTES = 1 << 20,
    PASSES = 8,
    PEAK_SLICES = 80,
    CACHE_LINE = 64
};

/* -- the machine ------------------------------------------------------------------------------------------------------------------------------ */

typedef struct stream_job {
    const uint8_t *bytes;
    uint64_t *sums; /* [threads * CACHE_LINE / 8], so that reading is not left out */
} stream_job;

/* 32 bytes a load, where the baseline of the machine has vectors of 16 as two of them. */
typedef uint64_t lanes __attribute__ ((vector_size (32)));

static void stream_chunk (void *context, size_t chunk, size_t thread)
{
    enum { AHEAD = 2048, LINES = 4 };
    const stream_job *job = context;
    const uint8_t *at = job->bytes + chunk * CHUNK_BYTES, *end = at + CHUNK_BYTES;
    lanes sums[LINES] = {0};
    for (; at < end; at += LINES * CACHE_LINE)
        for (int line = 0; line < LINES; line++) {
            const lanes *both = (const lanes *) (const void *) (at + line * CACHE_LINE);
            __builtin_prefetch (at + line * CACHE_LINE + AHEAD);
            sums[line] ^= both[0] ^ both[1];
        }
    for (int line = 1; line < LINES; line++)
        sums[0] ^= sums[line];
    job->sums[thread * (CACHE_LINE / sizeof (uint64_t))] ^= sums[0][0] ^ sums[0][1] ^ sums[0][2] ^ sums[0][3];
}

static double measure_stream (wl_thread_pool *pool, const uint8_t *bytes, uint64_t *sums)
{
    double best = 0;
    for (size_t slice = 0; slice < (size_t) PASSES * (STREAM_BYTES / SLICE_BYTES); slice++) {
        stream_job job = {bytes + slice % (STREAM_BYTES / SLICE_BYTES) * SLICE_BYTES, sums};
        double start = wl_now_s ();
        wl_thread_pool_run (pool, SLICE_BYTES / CHUNK_BYTES, stream_chunk, &job);
        double rate = SLICE_BYTES / (wl_now_s () - start);
        best = rate > best ? rate : best;
    }
    return best;
}

typedef struct peak_job {
    const char *isa;
    uint64_t rounds;
    uint64_t multiply_adds; /* of one chunk: each writes the same */
} peak_job;

static void peak_chunk (void *context, size_t chunk, size_t thread)
{
    peak_job *job = context;
    (void) thread;
    uint64_t n = wl_peak_run (job->isa, job->rounds);
    if (chunk == 0)
        job->multiply_adds = n;
}

static double measure_peak (wl_thread_pool *pool, const char *isa)
{
    const double slice_s = 0.002;
    double best = 0;
    peak_job job = {.isa = isa, .rounds = 10000};
    size_t chunks = wl_thread_pool_size (pool);
    for (int slice = 0; slice < PEAK_SLICES; slice++) {
        double start = wl_now_s ();
        wl_thread_pool_run (pool, chunks, peak_chunk, &job);
        double took = wl_now_s () - start, rate = (double) job.multiply_adds * (double) chunks / took;
        if (took < slice_s / 2) { /* too short to time: longer, and once more */
            job.rounds *= 2;
            slice = -1;
            continue;
        }
        best = rate > best ? rate : best;
    }
    return best;
}

bool wl_machine_limits_measure (wl_machine_limits *limits, uint32_t n_threads, const char *isa, wl_error *err)
{
    bool ok = false;
    wl_thread_pool *pool = wl_thread_pool_new (n_threads, err);
    uint64_t *sums = wl_new_aligned (n_threads, CACHE_LINE, err);
    uint8_t *bytes = wl_map_pages (STREAM_BYTES + CHUNK_BYTES, err); /* prefetching runs over the end */
    if (!pool || !sums || !bytes)
        goto done;
    memset (bytes, 1, STREAM_BYTES + CHUNK_BYTES); /* pages that were never written are all the same one */
    double read = measure_stream (pool, bytes, sums), peak = measure_peak (pool, isa);
    limits->n_threads = n_threads;
    limits->instruction = wl_peak_instruction (isa);
    limits->read_bytes_s = read > limits->read_bytes_s ? read : limits->read_bytes_s;
    limits->multiply_adds_s = peak > limits->multiply_adds_s ? peak : limits->multiply_adds_s;
    ok = true;
done:
    if (bytes)
        wl_unmap_pages (bytes, STREAM_BYTES + CHUNK_BYTES);
    wl_free_aligned (sums);
    wl_thread_pool_free (&pool);
    return ok;
}

/* -- the model -------------------------------------------------------------------------------------------------------------------------------- */

/* Of `of` experts, those that `rows` rows meet which choose `used` each. */
static double experts_met (double of, double used, double rows)
{
    double missed = 1;
    for (double i = 0; i < rows && missed > 1e-9; i++)
        missed *= 1 - used / of;
    return of * (1 - missed);
}

/* KV cache positions that n rows from `first` on read, together: each reads all up to its own, or its window. */
static double positions_read (const wl_layer_plan *layer, uint32_t first, uint32_t n, bool is_prompt)
{
    double last = (double) first + n;
    if (is_prompt) /* rows of one sequence share what they read: it has to come from memory once */
        return layer->window && layer->window < n ? n : last;
    return layer->window && layer->window < last ? layer->window : last;
}

wl_token_cost wl_token_cost_of (const wl_model *m, wl_kv_type kv_type, uint32_t n_streams, uint32_t n_rows,
                                uint32_t first)
{
    double rows = (double) n_streams * n_rows, bytes = (double) wl_model_head_bytes (m), kv = 0, per_row = 0;
    double position_bytes = (double) wl_kv_position_bytes (kv_type, 1, m->n_kv_heads, m->head_dim);
    for (uint32_t i = 0; i < m->n_layers; i++) {
        double touched = (double) wl_model_touched_bytes (m, i), all = (double) wl_model_layer_bytes (m, i);
        if (m->n_experts >
            m->n_experts_used) { /* all = shared + experts, touched = shared + experts * used / n_experts */
            double experts = (all - touched) * m->n_experts / (m->n_experts - m->n_experts_used);
            touched = all - experts + experts * experts_met (m->n_experts, m->n_experts_used, rows) / m->n_experts;
        }
        bytes += touched;
        kv += position_bytes * positions_read (&m->layers[i], first, n_rows, n_rows > 1);
        for (unsigned role = 0; role < WL_N_ROLES; role++) {
            const wl_tensor *t = m->tensors[i][role];
            if (t && wl_role_is_matrix (role))
                per_row += (double) t->dims[0] * (double) t->dims[1] * (t->dims[2] > 1 ? m->n_experts_used : 1);
        }
    }
    double head = (double) m->output->dims[0] * (double) m->output->dims[1];
    return (wl_token_cost){.bytes = (bytes + kv * n_streams) / rows, .multiply_adds = per_row + head / n_rows};
}

double wl_roofline_limit (const wl_machine_limits *limits, const wl_token_cost *cost)
{
    double memory = limits->read_bytes_s / cost->bytes, compute = limits->multiply_adds_s / cost->multiply_adds;
    return memory < compute ? memory : compute;
}
