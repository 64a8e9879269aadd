/* The rotation speeds of RoPE (Su et al. 2021), with the scalings that models bring. Private to the engine. */
#ifndef WL_ENGINE_ROPE_H
#define WL_ENGINE_ROPE_H

#include "model.h"

/* Radians a position of each pair, [rope_dims / 2]; free with free(). For the windowed layers of a model (`local`) unscaled, from their own base.
 * `context`: positions that sequences may reach, which decides between LongRoPE's factors. */
double *rope_frequencies (const wl_model *model, bool local, uint32_t context, wl_error *err);

#endif
