/* What the files of a stage share: stage.c (loading, one step), attention.c, feed_forward.c. */
#ifndef WL_ENGINE_STAGE_PRIVATE_H
#define WL_ENGINE_STAGE_PRIVATE_H

#include "kv_cache.h"
#include "stage.h"
#include "weights.h"

/* Which representations of activations (bits of wl_activation_kind) the matrices want that read the same rows. */
typedef struct layer_inputs {
    unsigned qkv, output; /* attention: normed rows, gathered heads */
    unsigned normed,
        hidden; /* feed-forward: normed rows (of a mixture: router and shared expert), what down reads (the shared expert's) */
    unsigned expert_normed, expert_hidden;
} layer_inputs;

typedef struct stage_layer {
    wl_matrix *matrices[WL_N_ROLES]; /* one, or one an expert; NULL where the layer has none */
    float *vectors[WL_N_ROLES];      /* norms and biases; NULL where the layer has none */
    layer_inputs inputs;
} stage_layer;

/* One row's way through one expert. */
typedef struct expert_choice {
    uint32_t expert, slot; /* slot: the row of the expert buffers */
    float weight;
} expert_choice;

/* A mixture's work space: rows are sent to their experts through slots, sorted by expert. */
typedef struct mixture_space {
    float *router; /* [rows][router_stride] logits */
    size_t router_stride;
    expert_choice *choices; /* [rows][n_experts_used], the best first */
    uint32_t *slot_rows;    /* [slots] */
    uint32_t *slot_experts; /* [slots] */
    uint32_t *first_slots;  /* [n_experts + 1] */
    float *in, *out;        /* [slots][h_stride], [slots][y_stride] */
    wl_product *products;   /* [2 * n_experts] */
} mixture_space;

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
    float *output_norm, *output_norm_bias, *output_bias;
    uint8_t *weights;
    size_t weights_bytes; /* of the mapping */
    uint64_t held_bytes;
    wl_kv_cache kv;
    double
        *frequencies[2]; /* radians a position, [rope_dims / 2]; of global and of local layers (NULL: there are none) */

    /* Work space for max_rows rows. What the two halves of a layer use shares memory: they are never alive together. */
    float *x;                 /* [rows, d_model] the residual stream */
    float *h;                 /* [rows, max (d_model, q_width)] normed rows, attention results */
    float *y;                 /* [rows, y_stride] what goes back into the residual stream */
    float *shared;            /* qkv | q_heads | o_heads, or gate_up | the mixture's in | out */
    float *qkv;               /* [rows, qkv_stride]: q, k, v */
    float *q_heads, *o_heads; /* [kv_head][rows][group][head_dim] */
    float *gate_up;           /* [rows or slots, gate_up_stride]: gate, up */
    size_t h_stride, y_stride, q_width, kv_width, qkv_stride, gate_up_stride;
    mixture_space mixture;
    float *ones; /* [d_ff], for an activation without a gate */
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
    uint32_t *visible;        /* [threads][2][tile_rows * group] */
    float *sinks;             /* [threads][tile_rows * group] */
    const void **page_places; /* [threads][2][n_pages] */

    /* The step under way. */
    const wl_batch *batch;
    const float *in;
    float *logits;
};

/* Rows are shared out in chunks; a step of one row runs on the calling thread. */
typedef void (*row_fn) (wl_stage *stage, uint32_t layer_index, uint32_t row, size_t thread);
void run_rows (wl_stage *stage, row_fn fn, uint32_t layer_index, uint32_t n_rows);

/* Quantizes `source` (`n` elements) as row `row` of the activations in the wanted representations (bits of wl_activation_kind). */
void represent_row (wl_stage *stage, uint32_t row, const float *source, size_t n, unsigned wanted_kinds);

/* Products over activations of `n` elements; f32 ones stand at `f32`. next: see wl_multiply. */
void multiply (wl_stage *stage, const float *f32, size_t f32_stride, size_t n, wl_products products, wl_products next);

/* The first products of each half, and of the layer behind it: the next one, or (of the last) the output head's, or none. out [3]; returns how many. */
size_t attention_products (wl_stage *stage, uint32_t layer_index, wl_product out[3]);
size_t feed_forward_products (wl_stage *stage, uint32_t layer_index, wl_product out[3]);
size_t products_behind (wl_stage *stage, uint32_t layer_index, wl_product out[3]);

/* y = norm (x) of d_model elements by the model's kind of norm; a copy where weight is NULL. */
void norm_into (const wl_stage *stage, float *y, const float *x, const float *weight, const float *bias);
void add_bias (const wl_stage *stage, float *x, const float *bias, size_t n); /* bias NULL: nothing */

/* Ends a half for one row: x += residual_scale * post_norm (y + bias), with the layer's vectors of these roles if there are. */
void add_residual (wl_stage *stage, uint32_t layer_index, uint32_t row, wl_role bias, wl_role post_norm);

/* The two halves of a layer. Each begins with adding what the half before left in y to the residual stream x, and leaves its own result in y. */
void attention_half (wl_stage *stage, uint32_t layer_index);
void feed_forward_half (wl_stage *stage, uint32_t layer_index);

#endif
