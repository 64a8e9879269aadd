/* What the files of a stage share: stage.c (loading, one step), attention.c, feed_forward.c. */
#ifndef WL_ENGINE_STAGE_PRIVATE_H
#define WL_ENGINE_STAGE_PRIVATE_H

#include "kv_cache.h"
#include "stage.h"
#include "weights.h"

typedef struct stage_layer {
    wl_matrix q, k, v, output, gate, up, down;
    float *vectors[WL_N_ROLES]; /* norms and biases; NULL where the layer has none */
} stage_layer;

/* Rows of one span that one call of the attention kernel takes. */
typedef struct attention_tile {
    uint32_t span, first_row, n_rows;
} attention_tile;

typedef struct row_place {
    uint32_t span, position;
} row_place;

struct wl_stage {
    const wl_model *model;
    const wl_gguf *gguf;
    wl_stage_options options;
    uint32_t n_layers;
    bool embeds, heads;  /* holds the first layer, the last layer */
    stage_layer *layers; /* [n_layers] */
    wl_matrix head;
    float *output_norm;
    uint8_t *weights;
    size_t weights_bytes; /* of the mapping */
    uint64_t held_bytes;
    wl_kv_cache kv;
    double *frequencies
        [2]; /* radians a position, [rope_dims / 2]; of global and of local layers (the same pointer if equal) */

    /* Work space for max_rows rows. q, k, v and their rotated forms share memory with gate and up: they are never alive together. */
    float *x;      /* [rows, d_model] the residual stream */
    float *h;      /* [rows, max (d_model, q_width)] normed rows, attention results */
    float *y;      /* [rows, y_stride] what goes back into the residual stream */
    float *shared; /* q | k | v | q_heads | o_heads, or gate | up */
    float *q, *k, *v;
    float *q_heads, *o_heads; /* [kv_head][rows][group][head_dim] */
    float *gate, *up;
    size_t h_stride, y_stride, q_stride, kv_stride, ff_stride;
    wl_activation_set activations;
    float *rope[2]; /* [rows][rope_dims]: cos then sin; global, local */
    row_place *places;
    attention_tile *tiles;
    uint32_t n_tiles;
    uint32_t group, tile_rows; /* query heads a KV head; rows of an attention tile */
    uint8_t *scratch;          /* [threads][scratch_stride] */
    size_t scratch_stride;
    float *attention_scratch; /* [threads][attention_stride] */
    size_t attention_stride;
    uint32_t *visible;            /* [threads][2][tile_rows * group] */
    const uint16_t **page_places; /* [threads][2][n_pages] */

    /* The step under way. */
    const wl_batch *batch;
    const float *in;
};

/* Rows are shared out in chunks; a step of one row runs on the calling thread. */
typedef void (*row_fn) (wl_stage *stage, uint32_t layer_index, uint32_t row, size_t thread);
void run_rows (wl_stage *stage, row_fn fn, uint32_t layer_index, uint32_t n_rows);

/* Quantizes row `row` of `source` (`n` elements) in every representation that one of the given matrices wants, and points the set's f32 rows at
 * `base` (stride `stride`). */
void represent_row (wl_stage *stage, uint32_t row, const float *source, size_t n, unsigned wanted_kinds);
unsigned kinds_wanted (const wl_matrix *const *matrices, size_t n);
void multiply (wl_stage *stage, const float *f32, size_t f32_stride, size_t n, size_t n_rows,
               const wl_product *products, size_t n_products);

/* The two halves of a layer: each reads stage->x, adds its result to the residual stream through stage->y. `pending` is the vector of the post-norm,
 * or NULL, of what stands in stage->y and is not yet added to x. */
void attention_half (wl_stage *stage, uint32_t layer_index);
void feed_forward_half (wl_stage *stage, uint32_t layer_index);

/* x += residual_scale * (post_norm ? norm (y) : y) for one row. */
void add_residual (wl_stage *stage, uint32_t row, const float *post_norm);

#endif
