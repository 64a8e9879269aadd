/* What feed_forward.c and mixture.c share. Private to the stage. */
#ifndef WL_ENGINE_FEED_FORWARD_H
#define WL_ENGINE_FEED_FORWARD_H

#include "stage_private.h"

/* The model's activation of one row's gate and up (each [n]), in place of gate; up is scratch afterwards. Without a gate, up's values stand in gate. */
void activate (const wl_stage *stage, float *gate, float *up, size_t n);

/* The mixture of experts of a layer: reads the normed rows h, which are represented for router and shared expert; leaves its result in y. */
void mix_experts (wl_stage *stage, uint32_t layer_index);

/* The first products of a layer with experts: the router's and the shared expert's; returns how many. */
size_t router_products (wl_stage *stage, uint32_t layer_index, wl_product out[3]);

#endif
