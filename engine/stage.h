/* A stage: a contiguous range of a model's layers, loaded, and its forward pass.
 *
 * The stage with layer 0 also embeds tokens; the stage with the last layer also applies the final norm and the output head. A step is a batch of
 * rows: one token each, of several sequences, decode and prefill mixed. Results of a row depend on its sequence's
 * tokens alone, never on what shares the batch (DESIGN.md, section 4).
 *
 * The KV cache is paged: pages of WL_KV_PAGE positions, ids handed out by the coordinator and the same on every stage. A stage obeys: it writes the K and
 * V of row position p into page pages[p / WL_KV_PAGE] of the row's span, and reads all earlier positions from there.
 *
 * Thread: one thread owns a stage; its pool's threads work under forward. */
#ifndef WL_ENGINE_STAGE_H
#define WL_ENGINE_STAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "kernels/kernels.h"
#include "model.h"
#include "pack_cache.h"
#include "thread_pool.h"

typedef struct wl_stage wl_stage;

typedef struct wl_stage_options {
    uint32_t first_layer, last_layer; /* inclusive */
    uint32_t n_pages;                 /* KV pages; memory is touched only as pages are used */
    wl_kv_type kv;                    /* what they hold: wl_kv_type_fits */
    uint32_t max_rows;                /* rows of the largest step */
    uint32_t context;          /* positions that sequences may reach: LongRoPE chooses by it; the same on every stage */
    const wl_kernels *kernels; /* from wl_kernels_find */
    wl_thread_pool *pool;      /* borrowed; must outlive the stage */
    wl_pack_cache *pack_cache; /* where packed weights are kept, borrowed likewise; NULL: nowhere */
} wl_stage_options;

/* Called while weights are packed, from the loading thread: done of total bytes. Returning false stops loading (WL_ERROR_CLUSTER "cancelled"). */
typedef bool (*wl_progress_fn) (void *context, uint64_t done_bytes, uint64_t total_bytes);

/* Packs the range's weights into tiles (pages of the file are dropped as they are used) and allocates KV and work space. `gguf` and `model` must
 * outlive the stage only if it embeds (rows of the embedding are read from the file). */
wl_stage *wl_stage_new (const wl_gguf *gguf, const wl_model *model, const wl_stage_options *options,
                        wl_progress_fn progress, void *progress_context, wl_error *err);
void wl_stage_free (wl_stage **stage);

/* What a stage of these options will need, before loading: weights + KV of n_pages + work space. */
uint64_t wl_stage_memory_needed (const wl_model *model, const wl_stage_options *options);
uint64_t
wl_stage_weight_bytes (const wl_stage *stage); /* packed weights held, the embedding (mapped from the file) included */

/* Rows of one sequence at consecutive positions. */
typedef struct wl_span {
    uint32_t n_rows;
    uint32_t first_position;
    const uint32_t *pages; /* [n_pages], n_pages * WL_KV_PAGE >= first_position + n_rows */
    uint32_t n_pages;
    bool copies;          /* first, copied_page is copied to the page of first_position, which begins inside of it */
    uint32_t copied_page; /* one that no row of the batch writes to */
} wl_span;

typedef struct wl_batch {
    uint32_t n_rows; /* sum of the spans'; <= max_rows */
    uint32_t n_spans;
    const wl_span *spans;
    const int32_t *tokens; /* [n_rows]; read by the first stage only */
    const uint32_t
        *logit_rows; /* [n_logit_rows], ascending: rows whose logits are wanted; read by the last stage only */
    uint32_t n_logit_rows;
} wl_batch;

/* WL_ERROR_INTERNAL saying which bound a batch breaks (rows, pages, token ids, positions): what a peer sends is checked here
 * before anything is touched. */
bool wl_stage_check (const wl_stage *stage, const wl_batch *batch, wl_error *err);

/* One step through the range.
 *  in   [n_rows, d_model] f32 hidden state from the previous stage; NULL for the first stage
 *  out  [n_rows, d_model] f32 for the next stage; for the last stage [n_logit_rows, wl_stage_logit_stride] f32
 * `in` is not modified; `out` must not overlap it. Both 64-byte aligned is faster, not required. False only when wl_stage_check fails. */
bool wl_stage_forward (wl_stage *stage, const wl_batch *batch, const float *in, float *out, wl_error *err);

/* Vocabulary size rounded up to whole tiles: elements between rows of logits. The padding holds 0. */
size_t wl_stage_logit_stride (const wl_model *model);

#endif
