/* Woolly's own elementary functions; see math.h.
 *
 * The f32 forms are written as the SIMD kernels compute them: no table, no branch in the middle of a formula, the range
 * limits as selections at the end. Coefficients are minimax fits on the reduced range. */
#include "engine/kernels/math.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "math_constants.h"

float wl_expf (float x)
{
    if (x > EXP_OVERFLOW)
        return INFINITY;
    if (x < EXP_UNDERFLOW)
        return 0.0f;
    if (x != x)
        return x;
    float shifted = fmaf (x, EXP_LOG2E, EXP_ROUND); /* the sum's last mantissa bits hold n */
    float n = shifted - EXP_ROUND;
    float r = fmaf (n, -EXP_LN2_HIGH, x);
    r = fmaf (n, -EXP_LN2_LOW, r);
    float p = EXP_C6;
    p = fmaf (p, r, EXP_C5);
    p = fmaf (p, r, EXP_C4);
    p = fmaf (p, r, EXP_C3);
    p = fmaf (p, r, EXP_C2);
    p = fmaf (p, r, 1.0f);
    p = fmaf (p, r, 1.0f);
    return p * wl_float_of ((wl_bits_of (shifted) << 23) + 0x3f800000u);
}

float wl_tanhf (float x)
{
    return 1.0f - 2.0f / (wl_expf (2.0f * x) + 1.0f);
}

float wl_siluf (float x)
{
    return x / (1.0f + wl_expf (-x));
}

float wl_geluf (float x)
{
    float cubic = fmaf (GELU_CUBIC * x * x, x, x);
    return (0.5f * x) * (1.0f + wl_tanhf (GELU_SCALE * cubic));
}

float wl_f16_to_f32 (uint16_t h)
{
    uint32_t sign = (uint32_t) (h & 0x8000) << 16, exponent = (h >> 10) & 31, fraction = h & 0x3ff;
    if (exponent == 31)
        return wl_float_of (sign | 0x7f800000u | (fraction ? 0x400000u | fraction << 13 : 0)); /* NaN becomes quiet */
    if (exponent == 0) { /* subnormal: fraction * 2^-24, exact */
        float magnitude = (float) fraction * 0x1p-24f;
        return wl_float_of (sign | wl_bits_of (magnitude));
    }
    return wl_float_of (sign | (exponent + 112) << 23 | fraction << 13);
}

uint16_t wl_f32_to_f16 (float x)
{
    uint32_t u = wl_bits_of (x), sign = u >> 16 & 0x8000, magnitude = u & 0x7fffffff;
    if (magnitude > 0x7f800000) /* NaN: quiet, payload cut */
        return (uint16_t) (sign | 0x7e00 | (magnitude >> 13 & 0x1ff));
    if (magnitude >= 0x477ff000) /* 65520 and more */
        return (uint16_t) (sign | 0x7c00);
    if (magnitude < 0x38800000) { /* below 2^-14: adding 0.5 leaves x / 2^-24, rounded half to even, in the last bits */
        float shifted = wl_float_of (magnitude) + 0.5f;
        return (uint16_t) (sign | (wl_bits_of (shifted) - 0x3f000000u));
    }
    uint32_t odd = magnitude >> 13 & 1;
    return (uint16_t) (sign | ((magnitude - 0x38000000u + 0xfff + odd) >> 13));
}

/* -- f64 ----------------------------------------------------------------------------------------------------------- */

static const double LN2_HIGH = 0x1.62e42fefa0000p-1; /* 17 zero bits at the end: n * LN2_HIGH is exact for |n| < 2^17 */
static const double LN2_LOW = 0x1.cf79abc9e3b3ap-40;

static double power_of_two (int n) /* -1022 <= n <= 1023 */
{
    uint64_t u = (uint64_t) (n + 1023) << 52;
    double x;
    memcpy (&x, &u, sizeof x);
    return x;
}

/* e^(x + low) for a |low| far below ulp (x). */
static double exp_with_tail (double x, double low)
{
    if (x != x)
        return x;
    if (x > 709.79)
        return (double) INFINITY;
    if (x < -745.2)
        return 0.0;
    double n = (double) (int) (x * 0x1.71547652b82fep+0 + (x < 0 ? -0.5 : 0.5));
    double r = fma (n, -LN2_HIGH, x);
    r = fma (n, -LN2_LOW, r) + low;
    double p = 1.0 / 6227020800.0; /* Taylor to r^13 / 13!, |r| <= 0.347 */
    static const double inverse_factorial[13] = {
        1.0,        1.0,         0.5,          1.0 / 6,       1.0 / 24,       1.0 / 120,      1.0 / 720,
        1.0 / 5040, 1.0 / 40320, 1.0 / 362880, 1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600};
    for (int i = 12; i >= 0; i--)
        p = fma (p, r, inverse_factorial[i]);
    int half = (int) n / 2; /* in two steps, so that results at both ends of the range come out right */
    return p * power_of_two (half) * power_of_two ((int) n - half);
}

/* log (x) as an unevaluated sum high + low, good to about 2^-60 relative. */
static void log_with_tail (double x, double *high, double *low)
{
    uint64_t u;
    int e = 0;
    if (x < 0x1p-1022) { /* subnormal */
        x *= 0x1p54;
        e = -54;
    }
    memcpy (&u, &x, sizeof u);
    e += (int) (u >> 52) - 1023;
    u = (u & 0xfffffffffffffull) | 0x3ff0000000000000ull;
    double m;
    memcpy (&m, &u, sizeof m);
    if (m > 1.4142135623730951) {
        m *= 0.5;
        e++;
    }
    /* log m = 2 atanh (s), s = (m - 1) / (m + 1): 2s with its rounding error, then the rest of the series. */
    double numerator = m - 1.0, denominator = m + 1.0;
    double denominator_error = m - (denominator - 1.0);
    double s = numerator / denominator;
    double s_low = (fma (-s, denominator, numerator) - s * denominator_error) / denominator;
    double z = s * s, p = 1.0 / 23;
    for (int k = 21; k >= 3; k -= 2)
        p = fma (p, z, 1.0 / k);
    double rest = 2.0 * s * z * p + 2.0 * s_low;
    double a = e * LN2_HIGH, b = 2.0 * s; /* |a| >= |b| unless e == 0 */
    double sum = a + b;
    double error = e ? b - (sum - a) : 0.0;
    rest += error + e * LN2_LOW;
    *high = sum + rest;
    *low = rest - (*high - sum);
}

double wl_exp (double x)
{
    return exp_with_tail (x, 0.0);
}

double wl_log (double x)
{
    double high, low;
    if (!(x > 0.0) || x > 0x1.fffffffffffffp+1023)
        return x == 0.0 ? (double) -INFINITY : x > 0.0 ? x : (double) NAN;
    log_with_tail (x, &high, &low);
    return high;
}

double wl_pow (double base, double exponent)
{
    double high, low;
    if (!(base > 0.0) || base > 0x1.fffffffffffffp+1023)
        return base == 0.0 && exponent > 0 ? 0.0 : (double) NAN;
    log_with_tail (base, &high, &low);
    double product = exponent * high;
    if (!(product < 1000.0 && product > -1000.0))
        return exp_with_tail (product, 0.0);
    return exp_with_tail (product, fma (exponent, high, -product) + exponent * low);
}

void wl_sincos (double x, double *sin, double *cos)
{
    if (!(x < 0x1p30 && x > -0x1p30)) {
        *sin = *cos = (double) NAN;
        return;
    }
    int64_t n = (int64_t) (x * 0x1.45f306dc9c883p-1 + (x < 0 ? -0.5 : 0.5)); /* 2 / pi */
    double r = fma ((double) -n, 0x1.921fb54442d18p+0, x);                   /* pi / 2 in three parts */
    r = fma ((double) -n, 0x1.1a62633145c07p-54, r);
    r = fma ((double) -n, -0x1.f1976b7ed8fbcp-110, r);
    double z = r * r, s = 1.0 / 355687428096000.0, c = -1.0 / 6402373705728000.0; /* 17!, 18! */
    static const double sin_terms[8] = {1.0,          -1.0 / 6,        1.0 / 120,        -1.0 / 5040,
                                        1.0 / 362880, -1.0 / 39916800, 1.0 / 6227020800, -1.0 / 1307674368000};
    static const double cos_terms[9] = {1.0,
                                        -0.5,
                                        1.0 / 24,
                                        -1.0 / 720,
                                        1.0 / 40320,
                                        -1.0 / 3628800,
                                        1.0 / 479001600,
                                        -1.0 / 87178291200,
                                        1.0 / 20922789888000};
    for (int i = 7; i >= 1; i--)
        s = fma (s, z, sin_terms[i]);
    s = fma (s * z, r, r);
    for (int i = 8; i >= 0; i--)
        c = fma (c, z, cos_terms[i]);
    bool swap = n & 1;
    double sine = swap ? c : s, cosine = swap ? s : c;
    *sin = n & 2 ? -sine : sine;
    *cos = (n + 1) & 2 ? -cosine : cosine;
}
