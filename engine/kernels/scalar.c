/* The scalar kernels: the definition of every entry of the table; see kernels.h for the formulas.
 *
 * Written to be read beside the contract, not to be fast. They also run wherever no other table does. */
#include "kernels.h"

#include <math.h>
#include <string.h>

#include "engine/kernels/math.h"
#include "formats.h"

/* -- Quantizing activations ---------------------------------------------------------------------------------------- */

static uint32_t magnitude_bits (float x)
{
    uint32_t u;
    memcpy (&u, &x, sizeof u);
    return u & 0x7fffffff;
}

/* One block of `n` values. Magnitudes are compared as integers, so that infinities and NaN win. */
static void quantize_block (int8_t *q, float *scale, const float *x, size_t n)
{
    uint32_t top = 0;
    for (size_t i = 0; i < n; i++)
        if (magnitude_bits (x[i]) > top)
            top = magnitude_bits (x[i]);
    float amax;
    memcpy (&amax, &top, sizeof amax);
    bool usable = amax >= WL_QUANTIZE_LEAST && amax <= 0x1.fffffep+127f;
    *scale = usable ? amax / 127.0f : amax < WL_QUANTIZE_LEAST ? 0.0f : amax;
    float inverse = usable ? 127.0f / amax : 0.0f;
    for (size_t i = 0; i < n; i++)
        q[i] = usable ? (int8_t) (int) nearbyintf (x[i] * inverse) : 0;
}

static int16_t sum_of (const int8_t *q, size_t n)
{
    int sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += q[i];
    return (int16_t) sum;
}

/* First half, then second half, each a scale times a whole number. */
static float add_halves (const float scales[2], int32_t first, int32_t second)
{
    return fmaf (scales[1], (float) second, scales[0] * (float) first);
}

static void quantize_q8_16 (int8_t *q, float *scales, int16_t *sums, float *totals, const float *x, size_t n)
{
    for (size_t b = 0; b < n / 16; b++) {
        quantize_block (q + 16 * b, scales + b, x + 16 * b, 16);
        sums[b] = sum_of (q + 16 * b, 16);
    }
    for (size_t b = 0; b < n / 32; b++)
        totals[b] = add_halves (scales + 2 * b, sums[2 * b], sums[2 * b + 1]);
}

static void quantize_q8_256 (int8_t *q, float *scales, int16_t *sums, const float *x, size_t n)
{
    for (size_t b = 0; b < n / 256; b++)
        quantize_block (q + 256 * b, scales + b, x + 256 * b, 256);
    for (size_t g = 0; g < n / 16; g++)
        sums[g] = sum_of (q + 16 * g, 16);
}

/* -- Matmul -------------------------------------------------------------------------------------------------------- */

static int32_t dot_16 (const int8_t *w, const int8_t *a)
{
    int32_t dot = 0;
    for (size_t k = 0; k < 16; k++)
        dot += w[k] * a[k];
    return dot;
}

/* One row of an unpacked block of 256, times as much of an activation row. */
static float add_256 (float acc, const plain_block *w, unsigned r, bool has_min, const int8_t *a, float da)
{
    int32_t isum = 0, msum = 0;
    for (size_t j = 0; j < 16; j++) {
        isum += w->scale[r][j] * dot_16 (w->q[r] + 16 * j, a + 16 * j);
        msum += w->min[r][j] * sum_of (a + 16 * j, 16);
    }
    acc = fmaf (w->d[r] * da, (float) isum, acc);
    if (has_min)
        acc = fmaf (w->m[r] * da, (float) msum, acc);
    return acc;
}

/* The same of 32. */
static float add_32 (float acc, const plain_block *w, unsigned r, bool has_min, const int8_t *a, const float da[2],
                     float total)
{
    acc = fmaf (w->d[r], add_halves (da, dot_16 (w->q[r], a), dot_16 (w->q[r] + 16, a + 16)), acc);
    if (has_min)
        acc = fmaf (w->m[r], total, acc);
    return acc;
}

static void matmul_quantized (wl_type type, bool has_min, float *out, size_t out_stride, const void *tiles,
                              size_t n_tiles, const wl_activations *a)
{
    const wl_format *format = wl_format_find (type);
    unpack_block_fn unpack = find_unpack_block (type);
    size_t width = format->block_elements, n_blocks = a->n / width;
    const uint8_t *block = tiles;
    for (size_t t = 0; t < n_tiles; t++, out += WL_TILE_ROWS) {
        for (size_t c = 0; c < a->n_rows; c++)
            memset (out + c * out_stride, 0, WL_TILE_ROWS * sizeof (float));
        for (size_t b = 0; b < n_blocks; b++, block += format->tile_bytes) {
            plain_block w;
            unpack (&w, block);
            for (size_t c = 0; c < a->n_rows; c++)
                for (unsigned r = 0; r < WL_TILE_ROWS; r++) {
                    float *acc = &out[c * out_stride + r];
                    const int8_t *q = a->q + c * a->q_stride + b * width;
                    const float *scales = a->scales + c * a->scale_stride;
                    *acc = width == 32
                               ? add_32 (*acc, &w, r, has_min, q, scales + 2 * b, a->totals[c * a->total_stride + b])
                               : add_256 (*acc, &w, r, has_min, q, scales[b]);
                }
        }
    }
}

#define DEFINE_MATMUL(TYPE, name, has_min)                                                       \
    static void matmul_##name (float *out, size_t out_stride, const void *tiles, size_t n_tiles, \
                               const wl_activations *a, void *scratch)                           \
    {                                                                                            \
        (void) scratch;                                                                          \
        matmul_quantized (WL_TYPE_##TYPE, has_min, out, out_stride, tiles, n_tiles, a);          \
    }

DEFINE_MATMUL (Q4_0, q4_0, false)
DEFINE_MATMUL (Q4_1, q4_1, true)
DEFINE_MATMUL (Q5_0, q5_0, false)
DEFINE_MATMUL (Q5_1, q5_1, true)
DEFINE_MATMUL (Q8_0, q8_0, false)
DEFINE_MATMUL (IQ4_NL, iq4_nl, false)
DEFINE_MATMUL (Q2_K, q2_k, true)
DEFINE_MATMUL (Q3_K, q3_k, false)
DEFINE_MATMUL (Q4_K, q4_k, true)
DEFINE_MATMUL (Q5_K, q5_k, true)
DEFINE_MATMUL (Q6_K, q6_k, false)
DEFINE_MATMUL (IQ4_XS, iq4_xs, false)
DEFINE_MATMUL (IQ2_XXS, iq2_xxs, false)
DEFINE_MATMUL (IQ2_XS, iq2_xs, false)
DEFINE_MATMUL (IQ2_S, iq2_s, false)
DEFINE_MATMUL (IQ3_XXS, iq3_xxs, false)
DEFINE_MATMUL (IQ3_S, iq3_s, false)
DEFINE_MATMUL (IQ1_S, iq1_s, false)
DEFINE_MATMUL (IQ1_M, iq1_m, false)
DEFINE_MATMUL (TQ1_0, tq1_0, false)
DEFINE_MATMUL (TQ2_0, tq2_0, false)
DEFINE_MATMUL (MXFP4, mxfp4, false)

/* F32, F16, BF16: a tile is [element][8 rows]. */
static void matmul_float (const wl_format *format, float *out, size_t out_stride, const void *tiles, size_t n_tiles,
                          const wl_activations *a)
{
    const uint8_t *step = tiles;
    for (size_t t = 0; t < n_tiles; t++, out += WL_TILE_ROWS) {
        for (size_t c = 0; c < a->n_rows; c++)
            memset (out + c * out_stride, 0, WL_TILE_ROWS * sizeof (float));
        for (size_t k = 0; k < a->n; k++, step += format->tile_bytes) {
            float w[WL_TILE_ROWS];
            format->dequantize (w, step, WL_TILE_ROWS);
            for (size_t c = 0; c < a->n_rows; c++)
                for (size_t r = 0; r < WL_TILE_ROWS; r++)
                    out[c * out_stride + r] = fmaf (w[r], a->f32[c * a->f32_stride + k], out[c * out_stride + r]);
        }
    }
}

#define DEFINE_MATMUL_FLOAT(TYPE, name)                                                          \
    static void matmul_##name (float *out, size_t out_stride, const void *tiles, size_t n_tiles, \
                               const wl_activations *a, void *scratch)                           \
    {                                                                                            \
        (void) scratch;                                                                          \
        matmul_float (wl_format_find (WL_TYPE_##TYPE), out, out_stride, tiles, n_tiles, a);      \
    }

DEFINE_MATMUL_FLOAT (F32, f32)
DEFINE_MATMUL_FLOAT (F16, f16)
DEFINE_MATMUL_FLOAT (BF16, bf16)

/* -- Attention ----------------------------------------------------------------------------------------------------- */

/* The tree that ends a reduction over 8 virtual lanes. */
static float sum_lanes (const float l[8])
{
    return ((l[0] + l[4]) + (l[2] + l[6])) + ((l[1] + l[5]) + (l[3] + l[7]));
}

static float f16_product (const wl_attention *a, const float *q, size_t t)
{
    const uint16_t *k = a->k_pages[t / WL_KV_PAGE];
    k += t % WL_KV_PAGE / WL_KV_GROUP * WL_KV_GROUP * a->head_dim + t % WL_KV_GROUP;
    float s = 0.0f;
    for (size_t d = 0; d < a->head_dim; d++)
        s = fmaf (q[d], wl_f16_to_f32 (k[d * WL_KV_GROUP]), s);
    return s;
}

static float q8_0_product (const wl_attention *a, const float *q, size_t t)
{
    const int8_t *page = a->k_pages[t / WL_KV_PAGE];
    const int8_t *k = page + t % WL_KV_PAGE / WL_KV_GROUP * WL_KV_GROUP * a->head_dim + t % WL_KV_GROUP;
    const uint16_t *scales = (const uint16_t *) (const void *) (page + WL_KV_PAGE * a->head_dim) + t % WL_KV_PAGE;
    float s = 0.0f;
    for (size_t b = 0; b < a->head_dim / WL_KV_SCALED; b++) {
        float part = 0.0f;
        for (size_t d = b * WL_KV_SCALED; d < (b + 1) * WL_KV_SCALED; d++)
            part = fmaf (q[d], (float) k[d * WL_KV_GROUP], part);
        s = fmaf (part, wl_f16_to_f32 (scales[b * WL_KV_PAGE]), s);
    }
    return s;
}

static float score (const wl_attention *a, const float *q, size_t t)
{
    float s = (a->kv_type == WL_KV_F16 ? f16_product (a, q, t) : q8_0_product (a, q, t)) * a->scale;
    return a->softcap > 0.0f ? a->softcap * wl_tanhf (s / a->softcap) : s;
}

/* o += weight times the value at t. */
static void add_value (const wl_attention *a, size_t t, float weight, float *o)
{
    if (a->kv_type == WL_KV_F16) {
        const uint16_t *page = a->v_pages[t / WL_KV_PAGE], *v = page + t % WL_KV_PAGE * a->head_dim;
        for (size_t d = 0; d < a->head_dim; d++)
            o[d] = fmaf (weight, wl_f16_to_f32 (v[d]), o[d]);
        return;
    }
    const int8_t *page = a->v_pages[t / WL_KV_PAGE], *v = page + t % WL_KV_PAGE * a->head_dim;
    const uint16_t *scales = (const uint16_t *) (const void *) (page + WL_KV_PAGE * a->head_dim) + t % WL_KV_PAGE;
    for (size_t d = 0; d < a->head_dim; d++)
        o[d] = fmaf (weight * wl_f16_to_f32 (scales[d / WL_KV_SCALED * WL_KV_PAGE]), (float) v[d], o[d]);
}

/* The block of positions that holds [lo, hi]: its maximum and sum, and o [head_dim]. */
static void attend_block (const wl_attention *a, const float *q, size_t lo, size_t hi, float *m, float *l, float *o)
{
    float p[WL_ATTENTION_BLOCK], lanes[8] = {0};
    *m = -INFINITY;
    for (size_t t = lo; t <= hi; t++) {
        p[t - lo] = score (a, q, t);
        if (p[t - lo] > *m)
            *m = p[t - lo];
    }
    memset (o, 0, a->head_dim * sizeof *o);
    for (size_t t = lo; t <= hi; t++) {
        float weight = wl_expf (p[t - lo] - *m);
        lanes[t % 8] += weight;
        add_value (a, t, weight, o);
    }
    *l = sum_lanes (lanes);
}

static void attend_row (const wl_attention *a, const float *q, size_t first, size_t last, const float *sink, float *out)
{
    float m = 0, l = 0, *block_o = a->scratch;
    for (size_t lo = first; lo <= last; lo = (lo / WL_ATTENTION_BLOCK + 1) * WL_ATTENTION_BLOCK) {
        size_t end = (lo / WL_ATTENTION_BLOCK + 1) * WL_ATTENTION_BLOCK - 1;
        size_t hi = end < last ? end : last;
        if (lo == first) {
            attend_block (a, q, lo, hi, &m, &l, out);
            continue;
        }
        float block_m, block_l;
        attend_block (a, q, lo, hi, &block_m, &block_l, block_o);
        float top = block_m > m ? block_m : m, keep = wl_expf (m - top), add = wl_expf (block_m - top);
        l = fmaf (l, keep, block_l * add);
        for (size_t d = 0; d < a->head_dim; d++)
            out[d] = fmaf (out[d], keep, block_o[d] * add);
        m = top;
    }
    if (sink) {
        float top = *sink > m ? *sink : m, keep = wl_expf (m - top);
        l = fmaf (l, keep, wl_expf (*sink - top));
        for (size_t d = 0; d < a->head_dim; d++)
            out[d] = out[d] * keep;
    }
    for (size_t d = 0; d < a->head_dim; d++)
        out[d] = out[d] / l;
}

static void attention (const wl_attention *a)
{
    for (size_t i = 0; i < a->n_rows; i++)
        attend_row (a, a->q + i * a->q_stride, a->first[i], a->last[i], a->sinks ? &a->sinks[i] : NULL,
                    a->out + i * a->out_stride);
}

/* -- Norms and elementwise ----------------------------------------------------------------------------------------- */

static void rms_norm (float *y, const float *x, const float *w, size_t n, float eps)
{
    float lanes[8] = {0};
    for (size_t i = 0; i < n; i++)
        lanes[i % 8] = fmaf (x[i], x[i], lanes[i % 8]);
    float r = 1.0f / sqrtf (sum_lanes (lanes) / (float) n + eps);
    for (size_t i = 0; i < n; i++)
        y[i] = w ? x[i] * r * w[i] : x[i] * r;
}

static void layer_norm (float *y, const float *x, const float *w, const float *b, size_t n, float eps)
{
    float sums[8] = {0}, squares[8] = {0};
    for (size_t i = 0; i < n; i++)
        sums[i % 8] += x[i];
    float mean = sum_lanes (sums) / (float) n;
    for (size_t i = 0; i < n; i++)
        squares[i % 8] = fmaf (x[i] - mean, x[i] - mean, squares[i % 8]);
    float r = 1.0f / sqrtf (sum_lanes (squares) / (float) n + eps);
    for (size_t i = 0; i < n; i++)
        y[i] = b ? fmaf ((x[i] - mean) * r, w[i], b[i]) : (x[i] - mean) * r * w[i];
}

static void silu_mul (float *y, const float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = wl_siluf (gate[i]) * up[i];
}

static void gelu_mul (float *y, const float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = wl_geluf (gate[i]) * up[i];
}

static void add_scaled (float *y, const float *x, float scale, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = fmaf (x[i], scale, y[i]);
}

static void rotate (float *a, float *b, float c, float s)
{
    float x = *a, y = *b;
    *a = fmaf (x, c, -(y * s));
    *b = fmaf (x, s, y * c);
}

static void rope_adjacent (float *x, const float *cos, const float *sin, size_t n_pairs)
{
    for (size_t i = 0; i < n_pairs; i++)
        rotate (&x[2 * i], &x[2 * i + 1], cos[i], sin[i]);
}

static void rope_halves (float *x, const float *cos, const float *sin, size_t n_pairs)
{
    for (size_t i = 0; i < n_pairs; i++)
        rotate (&x[i], &x[i + n_pairs], cos[i], sin[i]);
}

static void to_f16 (uint16_t *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float v = x[i];
        v = v > 65504.0f ? 65504.0f : v < -65504.0f ? -65504.0f : v;
        y[i] = wl_f32_to_f16 (v);
    }
}

static void to_q8_0 (int8_t *q, uint16_t *scales, const float *x, size_t n)
{
    for (; n > 0; n -= WL_KV_SCALED, x += WL_KV_SCALED, q += WL_KV_SCALED, scales++) {
        float amax = 0.0f;
        bool numbers = true;
        for (size_t i = 0; i < WL_KV_SCALED; i++) {
            amax = fabsf (x[i]) > amax ? fabsf (x[i]) : amax;
            numbers = numbers && !isnan (x[i]);
        }
        amax = numbers ? amax / 127.0f : NAN;
        to_f16 (scales, &amax, 1);
        float scale = wl_f16_to_f32 (*scales), r = scale > 0.0f ? 1.0f / scale : 0.0f;
        for (size_t i = 0; i < WL_KV_SCALED; i++) {
            float y = numbers ? x[i] * r : 0.0f;
            q[i] = (int8_t) (int) nearbyintf (y > 127.0f ? 127.0f : y < -127.0f ? -127.0f : y);
        }
    }
}

const wl_kernels wl_kernels_scalar = {
    .isa = "scalar",
    .scratch_bytes = 0,
    .quantize_q8_16 = quantize_q8_16,
    .quantize_q8_256 = quantize_q8_256,
    .matmul =
        {
            [WL_TYPE_F32] = matmul_f32,         [WL_TYPE_F16] = matmul_f16,       [WL_TYPE_BF16] = matmul_bf16,
            [WL_TYPE_Q4_0] = matmul_q4_0,       [WL_TYPE_Q4_1] = matmul_q4_1,     [WL_TYPE_Q5_0] = matmul_q5_0,
            [WL_TYPE_Q5_1] = matmul_q5_1,       [WL_TYPE_Q8_0] = matmul_q8_0,     [WL_TYPE_IQ4_NL] = matmul_iq4_nl,
            [WL_TYPE_Q2_K] = matmul_q2_k,       [WL_TYPE_Q3_K] = matmul_q3_k,     [WL_TYPE_Q4_K] = matmul_q4_k,
            [WL_TYPE_Q5_K] = matmul_q5_k,       [WL_TYPE_Q6_K] = matmul_q6_k,     [WL_TYPE_IQ4_XS] = matmul_iq4_xs,
            [WL_TYPE_IQ2_XXS] = matmul_iq2_xxs, [WL_TYPE_IQ2_XS] = matmul_iq2_xs, [WL_TYPE_IQ2_S] = matmul_iq2_s,
            [WL_TYPE_IQ3_XXS] = matmul_iq3_xxs, [WL_TYPE_IQ3_S] = matmul_iq3_s,   [WL_TYPE_IQ1_S] = matmul_iq1_s,
            [WL_TYPE_IQ1_M] = matmul_iq1_m,     [WL_TYPE_TQ1_0] = matmul_tq1_0,   [WL_TYPE_TQ2_0] = matmul_tq2_0,
            [WL_TYPE_MXFP4] = matmul_mxfp4,
        },
    .attention = attention,
    .rms_norm = rms_norm,
    .layer_norm = layer_norm,
    .silu_mul = silu_mul,
    .gelu_mul = gelu_mul,
    .add_scaled = add_scaled,
    .rope_adjacent = rope_adjacent,
    .rope_halves = rope_halves,
    .to_f16 = to_f16,
    .to_q8_0 = to_q8_0,
};
