/* A stage's weights: matrices packed into tiles, in one mapping; vectors as f32.
 *
 * Packing reads the file's rows once, interleaves eight at a time, and lets the file's pages go, so that memory holds one copy. Tiles are as
 * large as the file's blocks; only the last tile of a matrix whose rows are no multiple of 8 is padded.
 * Thread: the stage's; the pool helps packing and multiplying. */
#ifndef WL_ENGINE_WEIGHTS_H
#define WL_ENGINE_WEIGHTS_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "gguf.h"
#include "kernels/kernels.h"
#include "thread_pool.h"

typedef struct wl_matrix {
    const wl_format *format; /* NULL: the stage has no such matrix */
    const uint8_t *tiles;    /* [n_tiles][tile_bytes], 64-byte aligned start; borrowed from a mapping */
    size_t n_tiles, tile_bytes;
    size_t rows, columns;
} wl_matrix;

/* Bytes that the tiles of one matrix of a tensor take, rounded up to the alignment. A tensor holds dims[2] matrices: experts, or one. */
uint64_t wl_matrix_bytes (const wl_tensor *tensor);

/* A matrix of `tensor` whose tiles are packed already; NULL: they will be elsewhere, only the shape is wanted. */
void wl_matrix_place (wl_matrix *matrix, const wl_tensor *tensor, const uint8_t *tiles);
/* Packs the index-th matrix of `tensor` to `memory` (wl_matrix_bytes long, 64-byte aligned), dropping the pages of its file as they are used. */
void wl_matrix_pack (wl_matrix *matrix, const wl_tensor *tensor, uint64_t index, uint8_t *memory, const wl_gguf *gguf,
                     wl_thread_pool *pool);
/* Has the system read what packing wants from the tile on. */
void wl_matrix_read_ahead (const wl_matrix *matrix, const wl_tensor *tensor, uint64_t index, size_t tile, size_t bytes,
                           const wl_gguf *gguf);
/* Packs n tiles of it, from the first-th on, to `out`, by this thread alone. */
void wl_matrix_pack_tiles (const wl_matrix *matrix, const wl_tensor *tensor, uint64_t index, size_t first, size_t n,
                           uint8_t *out);

/* All elements of a tensor that is no matrix as aligned f32; free with wl_free_aligned. */
float *wl_vector_load (const wl_tensor *tensor, wl_error *err);

/* Rows of activations in every representation that some matrix wants. */
typedef struct wl_activation_set {
    wl_activations kinds[3]; /* by wl_activation_kind; .f32 of WL_ACTIVATION_F32 borrowed from the producer */
} wl_activation_set;

/* Rows first_row … first_row + n_rows - 1 of the activations times a matrix: out[(first_row + c) * stride + r]; r up to 8 * n_tiles, padding included. */
typedef struct wl_product {
    const wl_matrix *matrix;
    float *out;
    size_t stride;
    size_t first_row, n_rows;
} wl_product;

/* Products of equal columns. */
typedef struct wl_products {
    const wl_product *list;
    size_t n;
} wl_products;

/* All of them in one job. `next`: those that the next job is likely to be (n = 0: not known); threads that are done before others fetch the weights they take first there.
 * `scratch` [threads][scratch_stride] bytes. */
void wl_multiply (wl_thread_pool *pool, const wl_kernels *kernels, const wl_activation_set *set, wl_products products,
                  wl_products next, uint8_t *scratch, size_t scratch_stride);

#endif
