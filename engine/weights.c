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

/* How a job is cut: items are of so many tiles of one product, once for each group of rows (about the same number of each product's). */
typedef struct cut {
    size_t item_tiles, n_groups, group_items;
    size_t least;      /* items taken at a time, in a job of few rows */
    size_t call_tiles; /* tiles that one call of a kernel takes at most */
    bool in_batch;     /* many rows: items are taken one at a time */
} cut;

typedef struct multiply_job {
    const wl_kernels *kernels;
    const wl_activation_set *set;
    wl_products products;
    cut cut;
    uint8_t *scratch;
    size_t scratch_stride;
} multiply_job;

static size_t items_of (const wl_product *product, size_t item_tiles)
{
    return (product->matrix->n_tiles + item_tiles - 1) / item_tiles;
}

static cut cut_of (wl_products products, size_t n_threads)
{
    /* A batch takes whole panels, not so many that its results leave L2, in items small enough to even out over the threads. With rows enough to be worth unpacking a panel for each
     * group of them, the threads take different rows: so each finds in its cache what it wrote in the step before.
     * Few rows stream their weights in runs as long as may be, and only the last ones are short; some kernels take tiles in pairs. */
    enum {
        BATCH_ROWS = 24,
        GROUP_ROWS = 128,
        BATCH_ITEMS_PER_THREAD = 6,
        PANEL_TILES = 4,
        BATCH_TILES = 16,
        PAIR = 2,
        RANGES_PER_THREAD = 8,
        LEAST_TILES = 32,
        FEW_ROWS = 8,
        CALL_TILES = 32
    };
    size_t total = 0, n_rows = 0, least_rows = SIZE_MAX;
    for (size_t i = 0; i < products.n; i++) {
        const size_t n = products.list[i].n_rows;
        total += products.list[i].matrix->n_tiles;
        n_rows = n > n_rows ? n : n_rows;
        least_rows = n < least_rows ? n : least_rows;
    }
    cut c = {.item_tiles = PAIR,
             .n_groups = 1,
             .call_tiles = n_rows > FEW_ROWS ? CALL_TILES : SIZE_MAX,
             .in_batch = n_rows > BATCH_ROWS};
    if (c.in_batch) {
        if (least_rows >= 2 * GROUP_ROWS)
            c.n_groups = least_rows / GROUP_ROWS < n_threads ? least_rows / GROUP_ROWS : n_threads;
        const size_t wanted = total * c.n_groups / (n_threads * BATCH_ITEMS_PER_THREAD);
        c.item_tiles = wanted > BATCH_TILES   ? BATCH_TILES
                       : wanted > PANEL_TILES ? wanted / PANEL_TILES * PANEL_TILES
                       : wanted > PAIR        ? PANEL_TILES
                       : wanted > 1           ? PAIR
                                              : 1;
    }
    const size_t least = total / (n_threads * RANGES_PER_THREAD);
    c.least = (least > LEAST_TILES ? LEAST_TILES : least < PAIR ? PAIR : least) / PAIR;
    for (size_t i = 0; i < products.n; i++)
        c.group_items += items_of (&products.list[i], c.item_tiles);
    return c;
}

/* Tiles of one product. */
typedef struct piece {
    const wl_product *product;
    size_t first, n;
} piece;

/* The first piece of items [*item, end), at most max_tiles of it; *item is moved behind it. */
static piece next_piece (wl_products products, size_t item_tiles, size_t *item, size_t end, size_t max_tiles)
{
    const wl_product *p = products.list;
    size_t at = *item;
    for (size_t n; at >= (n = items_of (p, item_tiles)); p++)
        at -= n;
    const size_t items_left = end - *item, items_here = items_of (p, item_tiles) - at,
                 n_items = items_left < items_here ? items_left : items_here, first = at * item_tiles,
                 tiles_left = p->matrix->n_tiles - first;
    size_t tiles = n_items * item_tiles < tiles_left ? n_items * item_tiles : tiles_left;
    tiles = tiles < max_tiles ? tiles : max_tiles;
    *item += (tiles + item_tiles - 1) / item_tiles;
    return (piece){p, first, tiles};
}

/* What a thread is likely to take next of a batch: the first parts of its tiles, so that it does not begin with waiting for memory. */
static void prefetch_item (const multiply_job *job, size_t item)
{
    enum { TILES = 4, BYTES = 2304, LINE = 64, L2 = 2 };
    item %= job->cut.group_items;
    const piece p = next_piece (job->products, job->cut.item_tiles, &item, item + 1, TILES);
    const wl_matrix *m = p.product->matrix;
    for (size_t t = p.first; t < p.first + p.n; t++)
        for (size_t i = 0; i < BYTES && i < m->tile_bytes; i += LINE)
            __builtin_prefetch (m->tiles + t * m->tile_bytes + i, 0, L2);
}

/* n rows of the set from `first` on. */
static wl_activations rows_from (const wl_activation_set *set, wl_activation_kind kind, size_t first, size_t n)
{
    wl_activations rows = set->kinds[kind];
    rows.n_rows = n;
    if (rows.kind == WL_ACTIVATION_F32) {
        rows.f32 += first * rows.f32_stride;
        return rows;
    }
    rows.q += first * rows.q_stride;
    rows.scales += first * rows.scale_stride;
    rows.sums += first * rows.sum_stride;
    if (rows.totals)
        rows.totals += first * rows.total_stride;
    return rows;
}

static void multiply_piece (const multiply_job *job, piece tiles, size_t group, size_t thread)
{
    const wl_product *p = tiles.product;
    const wl_matrix *m = p->matrix;
    const size_t first = p->first_row + p->n_rows * group / job->cut.n_groups,
                 end = p->first_row + p->n_rows * (group + 1) / job->cut.n_groups;
    const wl_activations rows = rows_from (job->set, m->format->activation, first, end - first);
    job->kernels->matmul[m->format->type](p->out + first * p->stride + tiles.first * WL_TILE_ROWS, p->stride,
                                          m->tiles + tiles.first * m->tile_bytes, tiles.n, &rows,
                                          job->scratch + thread * job->scratch_stride);
}

static void multiply_range (void *context, size_t first, size_t end, size_t thread)
{
    const multiply_job *job = context;
    while (first < end)
        multiply_piece (job, next_piece (job->products, job->cut.item_tiles, &first, end, job->cut.call_tiles), 0,
                        thread);
}

static void multiply_item (void *context, size_t chunk, size_t thread)
{
    const multiply_job *job = context;
    size_t item = chunk % job->cut.group_items;
    prefetch_item (job, item + 1);
    multiply_piece (job, next_piece (job->products, job->cut.item_tiles, &item, item + 1, SIZE_MAX),
                    chunk / job->cut.group_items, thread);
}

/* Where each thread begins to read in a job of few rows. */
static void expect (wl_thread_pool *pool, const wl_kernels *kernels, wl_products next)
{
    enum { BYTES = 128 << 10 }; /* of each of two runs: a thread's cache holds them beside a step's rows */
    const size_t n_threads = wl_thread_pool_size (pool);
    const cut c = cut_of (next, n_threads);
    for (size_t thread = 0; thread < n_threads; thread++) {
        wl_memory_runs runs = {0};
        size_t first, end;
        wl_thread_pool_first_range (pool, c.group_items, c.least, thread, &first, &end);
        if (first < end && !c.in_batch) {
            const piece p = next_piece (next, c.item_tiles, &first, end, c.call_tiles);
            const wl_matrix *m = p.product->matrix;
            const size_t half = p.n / 2 * m->tile_bytes;
            runs.bytes = half < BYTES ? half : BYTES;
            runs.at[0] = m->tiles + p.first * m->tile_bytes;
            runs.at[1] = runs.at[0] + (kernels->reads_halves ? half : runs.bytes);
        }
        wl_thread_pool_expect (pool, thread, runs);
    }
}

void wl_multiply (wl_thread_pool *pool, const wl_kernels *kernels, const wl_activation_set *set, wl_products products,
                  wl_products next, uint8_t *scratch, size_t scratch_stride)
{
    multiply_job job = {kernels, set, products, cut_of (products, wl_thread_pool_size (pool)), scratch, scratch_stride};
    expect (pool, kernels, next);
    if (job.cut.in_batch)
        wl_thread_pool_run (pool, job.cut.n_groups * job.cut.group_items, multiply_item, &job);
    else
        wl_thread_pool_run_ranges (pool, job.cut.group_items, job.cut.least, multiply_range, &job);
}
