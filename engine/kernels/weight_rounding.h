/* Rounding rows of weights to a block format: the way back from wl_format's `dequantize`, for making smaller models.
 *
 * Each group of weights gets the scale (and minimum) of least squared error: several are tried, each is improved by
 * least squares over the integers it leads to, and what the format's own rounding of scales does is taken into account.
 * No result of a model depends on this: it is how a file is made, not how it is computed with. Thread: any. */
#ifndef WL_ENGINE_KERNELS_WEIGHT_ROUNDING_H
#define WL_ENGINE_KERNELS_WEIGHT_ROUNDING_H

#include <stddef.h>
#include <stdint.h>

/* `n` weights, finite and a whole number of blocks, to `row` as a file stores them. */
typedef void (*wl_round_row_fn) (void *row, const float *weights, size_t n);

/* NULL for a type that nothing is rounded to: all but Q4_0, Q5_0, Q8_0 and Q2_K to Q6_K. */
wl_round_row_fn wl_round_row_find (uint32_t type);

#endif
