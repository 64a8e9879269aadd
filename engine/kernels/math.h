/* Woolly's own elementary functions, so that every platform and ISA computes the same bits.
 *
 * Only +, -, *, /, sqrt and fma are used, which IEEE 754 rounds correctly everywhere. The f32 forms here are the
 * definition of what the SIMD kernels compute lane by lane; the f64 forms serve tables and sampling, where speed does
 * not matter. Thread: any. */
#ifndef WL_ENGINE_KERNELS_MATH_H
#define WL_ENGINE_KERNELS_MATH_H

#include <stdint.h>
#include <string.h>

/* An f32 as its bits, and back. */
static inline uint32_t wl_bits_of (float x)
{
    uint32_t bits;
    memcpy (&bits, &x, sizeof bits);
    return bits;
}

static inline float wl_float_of (uint32_t bits)
{
    float x;
    memcpy (&x, &bits, sizeof x);
    return x;
}

/* e^x in f32, within 2 ulp: n = round-half-even (x * log2 e); r = x - n ln 2 in two fma steps; polynomial in r; times
 * 2^n.
 * x below -87.33 gives 0, above 88.37 gives +inf, NaN gives NaN. */
float wl_expf (float x);
/* tanh (x) = 1 - 2 / (expf (2x) + 1), exact at the limits; the error near 0 is absolute, about 1e-7. */
float wl_tanhf (float x);
/* x / (1 + expf (-x)) */
float wl_siluf (float x);
/* 0.5 x (1 + tanh (0.79788456 (x + 0.044715 x^3))), as (0.5 x) * (1 + tanhf (0.79788456 * fma ((0.044715 * x) * x, x,
 * x))) */
float wl_geluf (float x);

/* f16 bits <-> f32, exactly; to f16 rounds half to even, overflow gives infinity. */
float wl_f16_to_f32 (uint16_t h);
uint16_t wl_f32_to_f16 (float x);

/* f64: within a few ulp. */
double wl_exp (double x);
double wl_log (double x);                            /* x > 0 */
double wl_pow (double base, double exponent);        /* base > 0 */
void wl_sincos (double x, double *sin, double *cos); /* |x| < 2^30 */

#endif
