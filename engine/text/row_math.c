/* Whole rows of logits in f64; see row_math.h. */
#include "row_math.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "../kernels/math.h"

enum { LANES = 8 };

/* GCC's and clang's vectors, of the two doubles that every CPU has registers for. */
typedef double pair __attribute__ ((vector_size (2 * sizeof (double))));
typedef int64_t words __attribute__ ((vector_size (2 * sizeof (int64_t))));

static const pair LEAST = {-700, -700}; /* e^-700 is still a normal number */
static const pair LOG2E = {0x1.71547652b82fep+0, 0x1.71547652b82fep+0};
static const pair ROUND = {0x1.8p52, 0x1.8p52}; /* adding it leaves the nearest whole number in the last bits */
static const pair LN2_HIGH = {0x1.62e42fefa0000p-1,
                              0x1.62e42fefa0000p-1}; /* n * LN2_HIGH is exact for the n that occur */
static const pair LN2_LOW = {0x1.cf79abc9e3b3ap-40, 0x1.cf79abc9e3b3ap-40};
static const words ONE_BITS = {(int64_t) 1023 << 52, (int64_t) 1023 << 52}; /* of 1.0 */

/* The larger of x and LEAST. */
static inline pair clamp (pair x)
{
    words low = (words) (x < LEAST);
    return (pair) (((words) x & ~low) | ((words) LEAST & low));
}

/* e^x, 0 below LEAST: n = round (x log2 e), r = x - n ln 2, the Taylor series of e^r to r^13, times 2^n. */
static inline pair exp_pair (pair x)
{
#define BOTH(c) ((pair){c, c})
    words low = (words) (x < LEAST);
    x = (pair) ((words) x & ~low);
    pair shifted = x * LOG2E + ROUND, n = shifted - ROUND, r = x - n * LN2_HIGH - n * LN2_LOW;
    pair p = BOTH (1.0 / 6227020800.0);
    p = p * r + BOTH (1.0 / 479001600);
    p = p * r + BOTH (1.0 / 39916800);
    p = p * r + BOTH (1.0 / 3628800);
    p = p * r + BOTH (1.0 / 362880);
    p = p * r + BOTH (1.0 / 40320);
    p = p * r + BOTH (1.0 / 5040);
    p = p * r + BOTH (1.0 / 720);
    p = p * r + BOTH (1.0 / 120);
    p = p * r + BOTH (1.0 / 24);
    p = p * r + BOTH (1.0 / 6);
    p = p * r + BOTH (0.5);
    p = p * r + BOTH (1.0);
    p = p * r + BOTH (1.0);
    p *= (pair) (((words) shifted << 52) + ONE_BITS);
    return (pair) ((words) p & ~low);
#undef BOTH
}

static void exp_lanes (double x[LANES])
{
    for (int j = 0; j < LANES; j += 2) {
        pair v = {x[j], x[j + 1]};
        v = exp_pair (v);
        x[j] = v[0];
        x[j + 1] = v[1];
    }
}

static void clamp_lanes (double x[LANES])
{
    for (int j = 0; j < LANES; j += 2) {
        pair v = {x[j], x[j + 1]};
        v = clamp (v);
        x[j] = v[0];
        x[j + 1] = v[1];
    }
}

static double tree (const double s[LANES])
{
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

void wl_row_exp (double *values, size_t n)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        exp_lanes (values + i);
    if (i == n)
        return;
    double rest[LANES] = {0};
    memcpy (rest, values + i, (n - i) * sizeof *values);
    exp_lanes (rest);
    memcpy (values + i, rest, (n - i) * sizeof *values);
}

double wl_row_sum_exp (const float *row, size_t n, double peak, double temperature, double *moment)
{
    double sum[LANES] = {0}, weighted[LANES] = {0};
    for (size_t i = 0; i < n; i += LANES) {
        float part[LANES] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY};
        double x[LANES], e[LANES];
        if (n - i >= LANES)
            memcpy (part, row + i, sizeof part);
        else
            memcpy (part, row + i, (n - i) * sizeof *part);
        for (int j = 0; j < LANES; j++)
            e[j] = x[j] = ((double) part[j] - peak) / temperature;
        exp_lanes (e);
        clamp_lanes (x);
        for (int j = 0; j < LANES; j++) {
            sum[j] += e[j];
            weighted[j] += e[j] * x[j];
        }
    }
    if (moment)
        *moment = tree (weighted);
    return tree (sum);
}

double wl_row_log_sum_exp (const float *row, size_t n)
{
    float peak = -INFINITY;
    for (size_t i = 0; i < n; i++)
        peak = row[i] > peak ? row[i] : peak;
    if (peak == -INFINITY)
        return (double) -INFINITY;
    return (double) peak + wl_log (wl_row_sum_exp (row, n, (double) peak, 1, NULL));
}

double wl_row_deviation (const float *row, size_t n)
{
    double sum[LANES] = {0}, squares[LANES] = {0};
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        if (row[i] != -INFINITY) {
            sum[i % LANES] += (double) row[i];
            count++;
        }
    if (count == 0)
        return 0;
    double mean = tree (sum) / (double) count;
    for (size_t i = 0; i < n; i++)
        if (row[i] != -INFINITY) {
            double d = (double) row[i] - mean;
            squares[i % LANES] += d * d;
        }
    return sqrt (tree (squares) / (double) count);
}
