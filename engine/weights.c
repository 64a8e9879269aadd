/* A stage's weights and their products; see weights.h. */
#include "weights.h"

#include "memory.h"

/* WINDOW_BYTES: as much of a file as is in memory beside what was packed from it. */
enum { ALIGNMENT = 64, PACK_TILES = 16, WINDOW_BYTES = 16 << 20 };

/* -- packing -------------------------------------------------------------------------------------------------------------------- */

static size_t tiles_of (uint64_t rows)
{
    return (size_t) ((rows + WL_TILE_ROWS - 1) / WL_TILE_ROWS);
}

static size_t tile_bytes_of (const wl_tensor *tensor, const wl_format *format)
{
    return (size_t) (tensor->dims[0] / format->block_elements) * format->tile_bytes;
}

uint64_t wl_matrix_bytes (const wl_tensor *tensor)
{
    const wl_format *format = wl_format_find (tensor->type);
    uint64_t bytes = (uint64_t) tiles_of (tensor->dims[1]) * tile_bytes_of (tensor, format);
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

void wl_matrix_place (wl_matrix *matrix, const wl_tensor *tensor, const uint8_t *tiles)
{
    const wl_format *format = wl_format_find (tensor->type);
    *matrix = (wl_matrix){
        .format = format,
        .tiles = tiles,
        .n_tiles = tiles_of (tensor->dims[1]),
        .tile_bytes = tile_bytes_of (tensor, format),
        .rows = (size_t) tensor->dims[1],
        .columns = (size_t) tensor->dims[0],
    };
}

void wl_matrix_pack_tiles (const wl_matrix *m, const wl_tensor *tensor, uint64_t index, size_t first, size_t n,
                           uint8_t *out)
{
    uint64_t matrix_bytes = tensor->bytes / tensor->dims[2];
    const uint8_t *data = (const uint8_t *) tensor->data + index * matrix_bytes;
    size_t row_bytes = (size_t) (matrix_bytes / tensor->dims[1]);
    for (size_t tile = 0; tile < n; tile++) {
        const void *rows[WL_TILE_ROWS];
        for (size_t i = 0; i < WL_TILE_ROWS; i++) {
            size_t row = (first + tile) * WL_TILE_ROWS + i;
            rows[i] = row < m->rows ? data + row * row_bytes : NULL;
        }
        m->format->pack (out + tile * m->tile_bytes, rows, m->columns);
    }
}

void wl_matrix_read_ahead (const wl_matrix *m, const wl_tensor *tensor, uint64_t index, size_t tile, size_t bytes,
                           const wl_gguf *gguf)
{
    /* a tile takes as many bytes as its rows in the file; what follows the tensor there is mostly what is packed next */
    const uint8_t *data = (const uint8_t *) tensor->data + index * (tensor->bytes / tensor->dims[2]);
    wl_gguf_read_ahead (gguf, data + tile * m->tile_bytes, bytes);
}

typedef struct pack_job {
    const wl_matrix *matrix;
    const wl_tensor *tensor;
    uint64_t index;
    uint8_t *memory;
    size_t first, end; /* tiles of this window */
} pack_job;

static void pack_chunk (void *context, size_t chunk, size_t thread)
{
    (void) thread;
    const pack_job *job = context;
    size_t first = job->first + chunk * PACK_TILES;
    size_t n = job->end - first < PACK_TILES ? job->end - first : PACK_TILES;
    wl_matrix_pack_tiles (job->matrix, job->tensor, job->index, first, n,
                          job->memory + first * job->matrix->tile_bytes);
}

void wl_matrix_pack (wl_matrix *matrix, const wl_tensor *tensor, uint64_t index, uint8_t *memory, const wl_gguf *gguf,
                     wl_thread_pool *pool)
{
    wl_matrix_place (matrix, tensor, memory);
    pack_job job = {.matrix = matrix, .tensor = tensor, .index = index, .memory = memory};
    size_t window = WINDOW_BYTES / matrix->tile_bytes + 1;
    for (; job.first < matrix->n_tiles; job.first = job.end) {
        job.end = matrix->n_tiles - job.first < window ? matrix->n_tiles : job.first + window;
        wl_matrix_read_ahead (matrix, tensor, index, job.end, WINDOW_BYTES, gguf);
        wl_thread_pool_run (pool, (job.end - job.first + PACK_TILES - 1) / PACK_TILES, pack_chunk, &job);
        wl_gguf_drop_pages (gguf);
    }
}

float *wl_vector_load (const wl_tensor *tensor, wl_error *err)
{
    size_t n = (size_t) (tensor->dims[0] * tensor->dims[1]);
    float *vector = wl_new_aligned (n, sizeof *vector, err);
    if (vector)
        wl_format_find (tensor->type)->dequantize (vector, tensor->data, n);
    return vector;
}

/* -- products ------------------------------------------------------------------------------------------------------------------- */

typedef struct multiply_job {
    const wl_kernels *kernels;
    const wl_activation_set *set;
    const wl_product *products;
    size_t n_products;
    size_t tiles_per_chunk;
    uint8_t *scratch;
    size_t scratch_stride;
    size_t n_threads;
    bool in_batch;
} multiply_job;

static size_t chunks_of (const wl_product *product, size_t tiles_per_chunk)
{
    return (product->matrix->n_tiles + tiles_per_chunk - 1) / tiles_per_chunk;
}

/* The product that a chunk belongs to, and its first tile there; NULL: there are no so many chunks. */
static const wl_product *find_product (const multiply_job *job, size_t chunk, size_t *first_tile)
{
    const wl_product *p = job->products, *end = p + job->n_products;
    for (size_t n; p < end && chunk >= (n = chunks_of (p, job->tiles_per_chunk)); p++)
        chunk -= n;
    *first_tile = chunk * job->tiles_per_chunk;
    return p < end ? p : NULL;
}

/* What a thread is likely to take next: the first parts of its tiles, so that it does not begin with waiting for memory. */
static void prefetch_chunk (const multiply_job *job, size_t chunk)
{
    enum { TILES = 4, BYTES = 2304, LINE = 64, L2 = 2 };
    size_t first;
    const wl_product *p = find_product (job, chunk, &first);
    if (!p)
        return;
    const wl_matrix *m = p->matrix;
    for (size_t t = first; t < first + TILES && t < m->n_tiles; t++)
        for (size_t i = 0; i < BYTES && i < m->tile_bytes; i += LINE)
            __builtin_prefetch (m->tiles + t * m->tile_bytes + i, 0, L2);
}

static void multiply_chunk (void *context, size_t chunk, size_t thread)
{
    const multiply_job *job = context;
    if (job->in_batch)
        prefetch_chunk (job, chunk + job->n_threads);
    size_t first;
    const wl_product *p = find_product (job, chunk, &first);
    const wl_matrix *m = p->matrix;
    size_t n_tiles = m->n_tiles - first < job->tiles_per_chunk ? m->n_tiles - first : job->tiles_per_chunk;
    wl_activations rows = job->set->kinds[m->format->activation];
    rows.n_rows = p->n_rows;
    if (rows.kind == WL_ACTIVATION_F32) {
        rows.f32 += p->first_row * rows.f32_stride;
    } else {
        rows.q += p->first_row * rows.q_stride;
        rows.scales += p->first_row * rows.scale_stride;
        rows.sums += p->first_row * rows.sum_stride;
        if (rows.totals)
            rows.totals += p->first_row * rows.total_stride;
    }
    job->kernels->matmul[m->format->type](p->out + p->first_row * p->stride + first * WL_TILE_ROWS, p->stride,
                                          m->tiles + first * m->tile_bytes, n_tiles, &rows,
                                          job->scratch + thread * job->scratch_stride);
}

void wl_multiply (wl_thread_pool *pool, const wl_kernels *kernels, const wl_activation_set *set,
                  const wl_product *products, size_t n_products, uint8_t *scratch, size_t scratch_stride)
{
    /* Chunks small enough to even out over the threads, large enough to stream and to be worth the preparation of a few rows;
     * a batch takes whole panels, not so many that its results leave L2. */
    enum { CHUNKS_PER_THREAD = 6, BATCH_ROWS = 24, PANEL_TILES = 4, BATCH_TILES = 16, STREAM_TILES = 32 };
    multiply_job job = {kernels, set, products, n_products, 0, scratch, scratch_stride, wl_thread_pool_size (pool),
                        false};
    size_t total = 0, n_chunks = 0, n_rows = 0;
    for (size_t i = 0; i < n_products; i++) {
        total += products[i].matrix->n_tiles;
        n_rows = products[i].n_rows > n_rows ? products[i].n_rows : n_rows;
    }
    job.in_batch = n_rows > BATCH_ROWS;
    size_t wanted = total / (job.n_threads * CHUNKS_PER_THREAD);
    size_t most = job.in_batch ? BATCH_TILES : STREAM_TILES;
    if (job.in_batch && wanted > PANEL_TILES / 2)
        wanted = wanted < PANEL_TILES ? PANEL_TILES : wanted - wanted % PANEL_TILES;
    else
        wanted += wanted & 1; /* some kernels take tiles in pairs */
    job.tiles_per_chunk = wanted < 1 ? 1 : wanted > most ? most : wanted;
    for (size_t i = 0; i < n_products; i++)
        n_chunks += chunks_of (&products[i], job.tiles_per_chunk);
    wl_thread_pool_run (pool, n_chunks, multiply_chunk, &job);
}
