/* Whole rows of logits in f64: what costs a vocabulary's worth of work per token, written so that compilers turn it into SIMD.
 *
 * Sums run over eight virtual lanes (element i goes to lane i mod 8) and one reduction tree, so that their bits do not depend on the width of the
 * machine's registers; the exponential uses +, - and * alone, since fma is a library call on the oldest CPUs that Woolly runs on. Thread: any. */
#ifndef WL_ENGINE_TEXT_ROW_MATH_H
#define WL_ENGINE_TEXT_ROW_MATH_H

#include <stddef.h>

/* values[i] = e^values[i], within 2 ulp, for values of at most 700; less than -700 gives 0. */
void wl_row_exp (double *values, size_t n);

/* Sum of e^((row[i] - peak) / temperature) over a row whose largest element is `peak`; -inf adds 0. Where `moment` is not NULL it is set to the sum
 * of e^x * x with x = (row[i] - peak) / temperature, which makes an entropy. */
double wl_row_sum_exp (const float *row, size_t n, double peak, double temperature, double *moment);

/* ln (sum of e^row[i]); -inf for a row without a finite element. */
double wl_row_log_sum_exp (const float *row, size_t n);

/* Population standard deviation of the elements that are not -inf, in two passes. */
double wl_row_deviation (const float *row, size_t n);

#endif
