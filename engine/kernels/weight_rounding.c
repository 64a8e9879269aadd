/* Rounding rows of weights to a block format; see weight_rounding.h.
 *
 * Two kinds of formats: w = scale * q with q around 0 (Q4_0, Q5_0, Q8_0; in groups of 16 whose scales are integers
 * times d, Q3_K and Q6_K), and w = scale * q - min with q from 0 up, scales and mins being integers times d and dmin
 * (Q2_K, Q4_K, Q5_K). A block of the latter two is made in three steps: the best scales of each group by itself; the
 * integers nearest to them, with their neighbours tried; d and dmin by least squares over the whole block, for these
 * integers. Groups are multiples of 4 weights, so sums are over vectors of 4. */
#include "weight_rounding.h"

#include <stdbool.h>
#include <string.h>

#include "formats.h"
#include "math.h"

typedef float lanes __attribute__ ((vector_size (16)));
typedef int32_t masks __attribute__ ((vector_size (16)));

static const float least_scale = 1e-30f; /* below, a group is taken for zeros: its inverse must be finite */
static const float largest_f16 = 65504.0f;

/* -- Small parts --------------------------------------------------------------------------------------------------- */

static lanes load (const float *at)
{
    lanes v;
    memcpy (&v, at, sizeof v);
    return v;
}

static lanes lesser (lanes a, lanes b)
{
    masks less = a < b;
    return (lanes) (((masks) a & less) | ((masks) b & ~less));
}

static lanes greater (lanes a, lanes b)
{
    masks more = a > b;
    return (lanes) (((masks) a & more) | ((masks) b & ~more));
}

static float total (lanes v)
{
    return (v[0] + v[1]) + (v[2] + v[3]);
}

typedef struct range { /* of integers */
    float low, high;
} range;

static float clamp (float x, range r)
{
    return x < r.low ? r.low : x > r.high ? r.high : x;
}

/* Half to even; clamped first, so that it is exact. */
static float nearest (float x, range r)
{
    const float shift = 12582912.0f; /* 1.5 * 2^23 */
    return (clamp (x, r) + shift) - shift;
}

static lanes nearest_lanes (lanes x, range r)
{
    const float shift = 12582912.0f;
    lanes low = {r.low, r.low, r.low, r.low}, high = {r.high, r.high, r.high, r.high};
    return (lesser (greater (x, low), high) + shift) - shift;
}

/* As stored: d of what it is, rounded to f16, never infinite. */
static uint16_t store_f16 (float *d)
{
    const range finite = {-largest_f16, largest_f16};
    uint16_t bits = wl_f32_to_f16 (clamp (*d, finite));
    *d = wl_f16_to_f32 (bits);
    return bits;
}

static float inverse_of (float scale)
{
    return __builtin_fabsf (scale) < least_scale ? 0.0f : 1.0f / scale;
}

/* -- A group: w = scale * q - min ---------------------------------------------------------------------------------- */

typedef struct sums {
    float q, qq, x, xq;
} sums;

/* q = nearest ((x + min) / scale). */
static sums sum_group (const float *x, size_t n, float scale, float min, range r)
{
    lanes q_sum = {0}, qq = {0}, x_sum = {0}, xq = {0};
    float inverse = inverse_of (scale);
    for (size_t i = 0; i < n; i += 4) {
        lanes v = load (x + i), q = nearest_lanes ((v + min) * inverse, r);
        q_sum += q;
        qq += q * q;
        x_sum += v;
        xq += v * q;
    }
    return (sums){total (q_sum), total (qq), total (x_sum), total (xq)};
}

static float error_of (const float *x, size_t n, float scale, float min, range r)
{
    lanes sum = {0};
    float inverse = inverse_of (scale);
    for (size_t i = 0; i < n; i += 4) {
        lanes v = load (x + i), off = v - (nearest_lanes ((v + min) * inverse, r) * scale - min);
        sum += off * off;
    }
    return total (sum);
}

/* The scale of least error without a minimum. Positive or negative: the largest weight is negative in q's longer half. */
static float fit_scale (const float *x, size_t n, range r)
{
    enum { TRIES = 16 };
    float peak = 0, best = 0, best_gain = 0;
    for (size_t i = 0; i < n; i++)
        if (__builtin_fabsf (x[i]) > __builtin_fabsf (peak))
            peak = x[i];
    if (__builtin_fabsf (peak) < least_scale)
        return 0;
    for (int i = 0; i < TRIES; i++) {
        float scale = peak / r.low * (0.7f + 0.025f * (float) i);
        for (int round = 0; round < 2; round++) {
            sums s = sum_group (x, n, scale, 0, r);
            if (s.qq <= 0)
                break;
            scale = s.xq / s.qq;
            if (s.xq * scale > best_gain) { /* by as much the squared error is less than that of zeros */
                best_gain = s.xq * scale;
                best = scale;
            }
        }
    }
    return best;
}

/* Scale and minimum, neither negative, of least squared error for the integers of s. */
static void solve (const sums *s, size_t n, float *scale, float *min)
{
    float count = (float) n, determinant = count * s->qq - s->q * s->q;
    if (determinant > 0) {
        *scale = (count * s->xq - s->x * s->q) / determinant;
        *min = (*scale * s->q - s->x) / count;
    }
    if (*min < 0) {
        *min = 0;
        *scale = s->qq > 0 ? s->xq / s->qq : 0;
    }
    if (*scale < 0)
        *scale = 0;
}

static void fit_affine (const float *x, size_t n, range r, float *best_scale, float *best_min)
{
    enum { TRIES = 3 };
    float low = 0, high = x[0], best = __builtin_inff (), step = 0.45f / r.high;
    for (size_t i = 0; i < n; i++) {
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
    }
    *best_scale = 0;
    *best_min = -low;
    if (high - low < least_scale)
        return;
    for (int below = 0; below < TRIES; below++)
        for (int above = 0; above < TRIES; above++) { /* from wherever the ends are cut off */
            float min = -low * (1 - step * (float) below);
            float scale = (high * (1 - step * (float) above) + min) / r.high;
            for (int round = 0; round < 2 && scale >= least_scale; round++) {
                sums s = sum_group (x, n, scale, min, r);
                solve (&s, n, &scale, &min);
                float error = error_of (x, n, scale, min, r);
                if (error < best) {
                    best = error;
                    *best_scale = scale;
                    *best_min = min;
                }
            }
        }
}

/* -- Blocks of 32: Q4_0, Q5_0, Q8_0 -------------------------------------------------------------------------------- */

/* d, and the 32 integers with `offset` added. */
static uint16_t round_32 (uint8_t q[32], const float *x, range r, int offset)
{
    float d = fit_scale (x, 32, r);
    uint16_t bits = store_f16 (&d);
    float inverse = inverse_of (d);
    for (size_t i = 0; i < 32; i++)
        q[i] = (uint8_t) ((int) nearest (x[i] * inverse, r) + offset);
    return bits;
}

static void round_q4_0 (void *row, const float *x, size_t n)
{
    for (file_q4_0 *b = row; n; n -= 32, x += 32, b++) {
        uint8_t q[32];
        b->d = round_32 (q, x, (range){-8, 7}, 8);
        for (size_t i = 0; i < 16; i++)
            b->qs[i] = (uint8_t) (q[i] | q[i + 16] << 4);
    }
}

static void round_q5_0 (void *row, const float *x, size_t n)
{
    for (file_q5_0 *b = row; n; n -= 32, x += 32, b++) {
        uint8_t q[32];
        b->d = round_32 (q, x, (range){-16, 15}, 16);
        memset (b->qh, 0, sizeof b->qh);
        for (size_t i = 0; i < 32; i++)
            b->qh[i / 8] |= (uint8_t) (q[i] >> 4 << (i % 8));
        for (size_t i = 0; i < 16; i++)
            b->qs[i] = (uint8_t) ((q[i] & 15) | (q[i + 16] & 15) << 4);
    }
}

static void round_q8_0 (void *row, const float *x, size_t n)
{
    for (file_q8_0 *b = row; n; n -= 32, x += 32, b++) {
        uint8_t q[32];
        b->d = round_32 (q, x, (range){-127, 127}, 0);
        memcpy (b->qs, q, sizeof q);
    }
}

/* -- Blocks of 256 without minimums: Q3_K, Q6_K -------------------------------------------------------------------- */

enum { SCALED_GROUP = 16, N_SCALED = 256 / SCALED_GROUP };

typedef struct scaled_block {
    uint16_t d;
    int8_t scale[N_SCALED];
    int8_t q[256];
} scaled_block;

/* The integer near scale / d with which the group fares best. */
static float choose_scale (const float *x, float scale, float d, range r, range scales)
{
    float base = nearest (scale * inverse_of (d), scales), best = base, least = __builtin_inff ();
    for (int i = -1; i <= 1; i++) {
        float at = clamp (base + (float) i, scales), error = error_of (x, SCALED_GROUP, d * at, 0, r);
        if (error < least) {
            least = error;
            best = at;
        }
    }
    return best;
}

static void round_scaled (scaled_block *b, const float *x, range r, range scales)
{
    float fitted[N_SCALED], d = 0, xq = 0, qq = 0;
    for (size_t j = 0; j < N_SCALED; j++) {
        fitted[j] = fit_scale (x + j * SCALED_GROUP, SCALED_GROUP, r);
        if (__builtin_fabsf (fitted[j]) > __builtin_fabsf (d))
            d = fitted[j];
    }
    d /= scales.low;
    for (size_t j = 0; j < N_SCALED; j++) {
        float scale = choose_scale (x + j * SCALED_GROUP, fitted[j], d, r, scales);
        sums s = sum_group (x + j * SCALED_GROUP, SCALED_GROUP, d * scale, 0, r);
        b->scale[j] = (int8_t) scale;
        xq += scale * s.xq;
        qq += scale * scale * s.qq;
    }
    d = qq > 0 ? xq / qq : 0;
    b->d = store_f16 (&d);
    for (size_t j = 0; j < N_SCALED; j++) {
        float inverse = inverse_of (d * (float) b->scale[j]);
        for (size_t i = j * SCALED_GROUP; i < (j + 1) * SCALED_GROUP; i++)
            b->q[i] = (int8_t) nearest (x[i] * inverse, r);
    }
}

static void round_q3_k (void *row, const float *x, size_t n)
{
    for (file_q3_k *b = row; n; n -= 256, x += 256, b++) {
        scaled_block s;
        round_scaled (&s, x, (range){-4, 3}, (range){-32, 31});
        memset (b, 0, sizeof *b);
        b->d = s.d;
        for (unsigned j = 0; j < N_SCALED; j++) {
            unsigned scale = (unsigned) (s.scale[j] + 32);
            b->scales[j % 8] |= (uint8_t) ((scale & 15) << (j / 8 * 4));
            b->scales[8 + j % 4] |= (uint8_t) (scale >> 4 << (j / 4 * 2));
        }
        for (unsigned e = 0; e < 256; e++) {
            unsigned q = (unsigned) (s.q[e] + 4);
            b->qs[e / 128 * 32 + e % 32] |= (uint8_t) ((q & 3) << (e % 128 / 32 * 2));
            b->hmask[e % 32] |= (uint8_t) (q >> 2 << (e / 32));
        }
    }
}

static void round_q6_k (void *row, const float *x, size_t n)
{
    for (file_q6_k *b = row; n; n -= 256, x += 256, b++) {
        scaled_block s;
        round_scaled (&s, x, (range){-32, 31}, (range){-128, 127});
        memset (b, 0, sizeof *b);
        b->d = s.d;
        memcpy (b->scales, s.scale, sizeof b->scales);
        for (unsigned e = 0; e < 256; e++) {
            unsigned q = (unsigned) (s.q[e] + 32), half = e / 128;
            b->ql[half * 64 + e % 64] |= (uint8_t) ((q & 15) << (e % 128 / 64 * 4));
            b->qh[half * 32 + e % 32] |= (uint8_t) (q >> 4 << (e % 128 / 32 * 2));
        }
    }
}

/* -- Blocks of 256 with minimums: Q2_K, Q4_K, Q5_K ----------------------------------------------------------------- */

typedef struct affine_block {
    uint16_t d, dmin;
    uint8_t scale[16], min[16];
    uint8_t q[256];
} affine_block;

typedef struct affine_shape {
    size_t group;      /* weights */
    range q, integers; /* of weights; of scales and mins */
} affine_shape;

/* The integers near scale / d and min / dmin with which the group fares best. */
static void choose_pair (const float *x, const affine_shape *shape, float d, float dmin, float *scale, float *min)
{
    const range *r = &shape->integers;
    float scale_base = nearest (*scale * inverse_of (d), *r), min_base = nearest (*min * inverse_of (dmin), *r);
    float least = __builtin_inff ();
    for (int i = -1; i <= 1; i++)
        for (int k = -1; k <= 1; k++) {
            float at = clamp (scale_base + (float) i, *r), below = clamp (min_base + (float) k, *r);
            float error = error_of (x, shape->group, d * at, dmin * below, shape->q);
            if (error < least) {
                least = error;
                *scale = at;
                *min = below;
            }
        }
}

/* d and dmin of least squared error for the block's integers: the normal equations of w = d (scale q) - dmin min. */
static void solve_block (const affine_shape *shape, const float *x, const float *scale, const float *min, float *d,
                         float *dmin)
{
    double aa = 0, ab = 0, bb = 0, ax = 0, bx = 0;
    for (size_t j = 0; j < 256 / shape->group; j++) {
        sums s = sum_group (x + j * shape->group, shape->group, *d * scale[j], *dmin * min[j], shape->q);
        double a = scale[j], b = min[j];
        aa += a * a * s.qq;
        ab -= a * b * s.q;
        bb += b * b * (double) shape->group;
        ax += a * s.xq;
        bx -= b * s.x;
    }
    double determinant = aa * bb - ab * ab;
    if (determinant > 1e-6 * aa * bb) {
        float new_d = (float) ((ax * bb - bx * ab) / determinant),
              new_dmin = (float) ((bx * aa - ax * ab) / determinant);
        if (new_d > 0 && new_dmin >= 0) {
            *d = new_d;
            *dmin = new_dmin;
        }
    } else if (bb <= 0 && aa > 0 && ax > 0) {
        *d = (float) (ax / aa);
    }
}

static void round_affine (affine_block *b, const float *x, const affine_shape *shape)
{
    float scale[16], min[16], d = 0, dmin = 0;
    size_t n = 256 / shape->group;
    for (size_t j = 0; j < n; j++) {
        fit_affine (x + j * shape->group, shape->group, shape->q, &scale[j], &min[j]);
        d = scale[j] > d ? scale[j] : d;
        dmin = min[j] > dmin ? min[j] : dmin;
    }
    d /= shape->integers.high;
    dmin /= shape->integers.high;
    for (size_t j = 0; j < n; j++)
        choose_pair (x + j * shape->group, shape, d, dmin, &scale[j], &min[j]);
    solve_block (shape, x, scale, min, &d, &dmin);
    b->d = store_f16 (&d);
    b->dmin = store_f16 (&dmin);
    for (size_t j = 0; j < n; j++) {
        float inverse = inverse_of (d * scale[j]);
        b->scale[j] = (uint8_t) scale[j];
        b->min[j] = (uint8_t) min[j];
        for (size_t i = j * shape->group; i < (j + 1) * shape->group; i++)
            b->q[i] = (uint8_t) nearest ((x[i] + dmin * min[j]) * inverse, shape->q);
    }
}

static void round_q2_k (void *row, const float *x, size_t n)
{
    static const affine_shape shape = {16, {0, 3}, {0, 15}};
    for (file_q2_k *b = row; n; n -= 256, x += 256, b++) {
        affine_block s;
        round_affine (&s, x, &shape);
        memset (b, 0, sizeof *b);
        b->d = s.d;
        b->dmin = s.dmin;
        for (unsigned j = 0; j < 16; j++)
            b->scales[j] = (uint8_t) (s.scale[j] | s.min[j] << 4);
        for (unsigned e = 0; e < 256; e++)
            b->qs[e / 128 * 32 + e % 32] |= (uint8_t) (s.q[e] << (e % 128 / 32 * 2));
    }
}

static void store_q4_k_scales (uint8_t out[12], const affine_block *s)
{
    for (unsigned j = 0; j < 4; j++) {
        out[j] = (uint8_t) (s->scale[j] | s->scale[j + 4] >> 4 << 6);
        out[j + 4] = (uint8_t) (s->min[j] | s->min[j + 4] >> 4 << 6);
        out[j + 8] = (uint8_t) ((s->scale[j + 4] & 15) | (s->min[j + 4] & 15) << 4);
    }
}

static void round_q4_k (void *row, const float *x, size_t n)
{
    static const affine_shape shape = {32, {0, 15}, {0, 63}};
    for (file_q4_k *b = row; n; n -= 256, x += 256, b++) {
        affine_block s;
        round_affine (&s, x, &shape);
        b->d = s.d;
        b->dmin = s.dmin;
        store_q4_k_scales (b->scales, &s);
        for (unsigned i = 0; i < 128; i++)
            b->qs[i] = (uint8_t) (s.q[i / 32 * 64 + i % 32] | s.q[i / 32 * 64 + 32 + i % 32] << 4);
    }
}

static void round_q5_k (void *row, const float *x, size_t n)
{
    static const affine_shape shape = {32, {0, 31}, {0, 63}};
    for (file_q5_k *b = row; n; n -= 256, x += 256, b++) {
        affine_block s;
        round_affine (&s, x, &shape);
        b->d = s.d;
        b->dmin = s.dmin;
        store_q4_k_scales (b->scales, &s);
        memset (b->qh, 0, sizeof b->qh);
        for (unsigned e = 0; e < 256; e++)
            b->qh[e % 32] |= (uint8_t) (s.q[e] >> 4 << (e / 32));
        for (unsigned i = 0; i < 128; i++)
            b->qs[i] = (uint8_t) ((s.q[i / 32 * 64 + i % 32] & 15) | (s.q[i / 32 * 64 + 32 + i % 32] & 15) << 4);
    }
}

wl_round_row_fn wl_round_row_find (uint32_t type)
{
    switch (type) {
    case WL_TYPE_Q4_0:
        return round_q4_0;
    case WL_TYPE_Q5_0:
        return round_q5_0;
    case WL_TYPE_Q8_0:
        return round_q8_0;
    case WL_TYPE_Q2_K:
        return round_q2_k;
    case WL_TYPE_Q3_K:
        return round_q3_k;
    case WL_TYPE_Q4_K:
        return round_q4_k;
    case WL_TYPE_Q5_K:
        return round_q5_k;
    case WL_TYPE_Q6_K:
        return round_q6_k;
    default:
        return NULL;
    }
}
