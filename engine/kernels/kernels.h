/* The kernel table: every computation whose speed depends on the instruction set.
 *
 * One table per ISA. scalar.c fills all entries and is the definition; avx2.c, avx512.c (two tables, the second for AMX),
 * neon.c and neon_i8mm.c fill theirs.
 * wl_kernels_find() picks by CPU flags. Every entry of every table must equal the scalar one bit for bit, for every
 * shape (tests/kernels proves it): all are compiled with -ffp-contract=off, use explicit fused multiply-adds, and keep
 * one fixed chain of operations per output element, whatever the tile, batch or thread count:
 *
 *  - SIMD lanes are weight *rows* (matmul), KV *positions* (scores) or head *elements* (weighted values), never a split
 *    of one sum; so the shape of a tile cannot change a result. The two true reductions (sum of squares, sum of
 *    exponentials) run over 8 virtual lanes, element i in lane i % 8, ascending, and end in the tree
 *    ((l0+l4)+(l2+l6)) + ((l1+l5)+(l3+l7)).
 *  - Quantized matmul: inside a block all sums are exact int32; blocks are added in ascending order by fma in f32:
 *      Q4_0 Q5_0 Q8_0 IQ4_NL MXFP4
 *                             t = fma (da_1, (float) isum_1, da_0 * (float) isum_0); acc = fma (dw, t, acc)
 *      Q4_1 Q5_1              likewise, and then acc = fma (mw, total, acc)
 *      Q3_K Q6_K IQ4_XS IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ3_XXS IQ3_S TQ1_0 TQ2_0
 *                             acc = fma (dw * da, (float) isum, acc)          isum = sum_j scale_j * sum_k q_k a_k
 *      Q2_K Q4_K Q5_K         acc = fma (dw * da, (float) isum, acc); acc = fma (-(dmin * da), (float) msum, acc)
 *    with dw, mw, dmin the block's f16 factors as f32, da the activation block's scale (da_0, da_1: of the two halves of
 *    16, whose sums are isum_0 and isum_1), total the sum of the block's activations, isum with the type's offset (8, 16,
 *    32, …) taken in exactly, msum = sum_j min_j * S_j with S_j sums of quantized activations. int to float rounds half
 *    to even. t and total may overflow where activations come near 2^110: the result is then inf or NaN. The IQ types' weights are d (1/2 + s) / 4 * g, or d (2 s + 1) (g +- 1/8), with g from a codebook; here scale
 *    = 2 s + 1, and q = g and dw = d / 8 (IQ2), g and d / 4 (IQ3_XXS), g and d (IQ3_S), 8 g +- 1 and d / 8 (IQ1). TQ:
 *    scale = 1. MXFP4: q is twice the element, dw half the exponent's power of two. The largest isum, of IQ3_XXS, is 256
 *    * 127 * 62 * 31 < 2^26.
 *  - F32, F16, BF16: acc = fma (w_k, x_k, acc), k ascending, from 0.
 *  - acc starts at +0.
 *
 * Thread: every entry may be called from any thread at once on disjoint outputs; tables are immutable. */
#ifndef WL_ENGINE_KERNELS_KERNELS_H
#define WL_ENGINE_KERNELS_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../gguf.h"

/* -- Weights: tiles of 8 rows -------------------------------------------------------------------------------------- */

enum { WL_TILE_ROWS = 8, WL_TYPE_LIMIT = 40 };

/* How the activations a matrix is multiplied with are represented; a property of the weight's type alone. */
typedef enum wl_activation_kind {
    WL_ACTIVATION_F32,    /* F32, F16, BF16 weights */
    WL_ACTIVATION_Q8_16,  /* 32-wide formats: int8, one f32 scale and one int16 sum per 16. A scale per 32 is what other
                             engines have; halves cut the noise of the logits (KL divergence) by 45% for one more
                             multiplication beside each 32. */
    WL_ACTIVATION_Q8_256, /* K-quants: int8, one f32 scale per 256, int16 sums per 16 */
} wl_activation_kind;

/* A weight type that Woolly computes with. */
typedef struct wl_format {
    wl_type type;
    wl_activation_kind activation;
    uint32_t block_elements; /* columns must be a multiple: 1, 32 or 256 */
    uint32_t tile_bytes;     /* of one block of 8 interleaved rows; = 8 * the file's block bytes */

    /* The type's definition: dequantizes `n` elements (whole blocks) of one row as the file stores it. */
    void (*dequantize) (float *out, const void *row, size_t n);

    /* Interleaves 8 rows of `n` elements as the file stores them into a tile of n / block_elements * tile_bytes bytes
     * (64-byte aligned not required). rows[i] == NULL packs zeros (padding after the last row). */
    void (*pack) (void *tile, const void *const rows[8], size_t n);
} wl_format;

/* NULL when Woolly cannot compute with `type`. */
const wl_format *wl_format_find (uint32_t type);

/* -- Activations --------------------------------------------------------------------------------------------------- */

/* `n_rows` rows of `n` elements in one representation. Strides are in elements. Row r: q + r * q_stride, and so on.
 * Q8_16:  scales[n / 16], sums[n / 16], totals[n / 32];   Q8_256: scales[n / 256], sums[n / 16].
 *
 * One block (16 or 256 values), exactly: amax = the largest magnitude, magnitudes compared as integers of their bits
 * (so inf wins over numbers and NaN over inf).
 *   amax < WL_QUANTIZE_LEAST:  scale = 0, all q = 0 (such a block counts as zero: 127 / amax would overflow)
 *   amax not finite:           scale = amax, all q = 0 (products become NaN, so that the fault shows)
 *   else:                      scale = amax / 127.0f;  q = round-half-even (x * (127.0f / amax)), which is within +-127
 * sums are sums of q; total = fma (scale_1, (float) sum_1, scale_0 * (float) sum_0) of two blocks of 16. */
#define WL_QUANTIZE_LEAST 0x1p-120f

typedef struct wl_activations {
    wl_activation_kind kind;
    size_t n_rows, n;
    const float *f32;
    size_t f32_stride;
    int8_t *q; /* rows 64-byte aligned */
    size_t q_stride;
    float *scales;
    size_t scale_stride;
    int16_t *sums;
    size_t sum_stride;
    float *totals;
    size_t total_stride;
} wl_activations;

/* -- Attention ----------------------------------------------------------------------------------------------------- */

/* What a KV cache holds. */
typedef enum wl_kv_type { WL_KV_F16, WL_KV_Q8_0, WL_N_KV_TYPES } wl_kv_type;

/* KV pages: WL_KV_PAGE positions of one kv head.
 *   K page: [WL_KV_PAGE / 16][head_dim][16]   so that a vector holds one element of several positions
 *   V page: [WL_KV_PAGE][head_dim]
 * WL_KV_F16: f16 elements; values beyond the f16 range are clamped to +-65504 on storing.
 * WL_KV_Q8_0: int8 elements, and behind them the page's f16 scales, [head_dim / 32][WL_KV_PAGE]: one for 32 elements of
 * a position's head; head_dim is a multiple of 32. An element stands for scale * q; to_q8_0 rounds.
 * Attention runs over fixed blocks of WL_ATTENTION_BLOCK positions, aligned to multiples of it. */
enum { WL_KV_PAGE = 64, WL_KV_GROUP = 16, WL_ATTENTION_BLOCK = 256, WL_KV_SCALED = 32 };

/* The definition, for query row i with visible positions t in [first[i], last[i]]:
 *   per block of positions b, ascending, skipping blocks that hold no visible position:
 *     s_t = (sum_d by fma, d ascending, from 0, of q_d k_td) * scale
 *     with softcap > 0:  s_t = softcap * tanh (s_t / softcap)      (wl_tanhf of math.h)
 *     m_b = max s_t;  p_t = expf (s_t - m_b), 0 for invisible t;  l_b = sum p_t (8 virtual lanes, lane t % 8)
 *     o_b[d] = fma chain over visible t ascending from 0 of p_t v_td
 *   merged in order, from the first block's (m, l, o) as it is:
 *     M = max (m, m_b); a = expf (m - M); c = expf (m_b - M); l = fma (l, a, l_b * c); o = fma (o, a, o_b * c); m = M
 *   with a sink (gpt-oss), one more block of one position with s = sink, p = 1 and v = 0, last:
 *     M = max (m, sink); a = expf (m - M); l = fma (l, a, expf (sink - M)); o = o * a
 *   out[d] = o[d] / l
 * With WL_KV_Q8_0 a scale is applied once for its 32 elements: the sum of s_t is
 *     sum_b by fma, b ascending, from 0, of (sum_d by fma, d ascending in block b, from 0, of q_d k8_td) kscale_tb
 *   and the chain of o_b[d] is of (p_t * vscale_tb) v8_td, with int8 k8 and v8 as f32, b the block of d.
 * max (x, y) is x > y ? x : y from -inf on, so that NaN never becomes the maximum. K of invisible positions inside a
 * block of 16 may be read, V of them is not.
 * Rows are the query heads of one kv group and of consecutive positions; all read the same pages. */
typedef struct wl_attention {
    size_t n_rows, head_dim;
    const float *q; /* [n_rows] rows at q_stride */
    size_t q_stride;
    float *out; /* [n_rows] rows at out_stride; head_dim (of V) elements each */
    size_t out_stride;
    const uint32_t *first, *last; /* [n_rows] visible positions, both inclusive */
    wl_kv_type kv_type;
    const void *const
        *k_pages; /* page of position t: [t / WL_KV_PAGE]; pages outside of all [first, last] may be NULL */
    const void *const *v_pages;
    float scale, softcap; /* softcap 0: none */
    const float *sinks;   /* [n_rows] or NULL */
    float *scratch;       /* wl_attention_scratch (n_rows, head_dim) floats, 64-byte aligned */
} wl_attention;

/* Floats of scratch that any table's attention needs. */
size_t wl_attention_scratch (size_t n_rows, size_t head_dim);

/* -- The table ----------------------------------------------------------------------------------------------------- */

/* out[c * out_stride + r] = row r (of 8 * n_tiles) times activation row c (of a->n_rows). `tiles` holds n_tiles tiles
 * one after another; a->kind is the format's. Writes all 8 * n_tiles rows, padding included. `scratch`: 64-byte
 * aligned, wl_kernels.scratch_bytes, one per thread.
 * Speed: with more than 4 columns, each call prepares the columns anew and takes tiles in pairs; 8 or 16 tiles a call
 * make that small, an odd number leaves one tile to a slower kernel. With few columns any number will do. */
typedef void (*wl_matmul_fn) (float *out, size_t out_stride, const void *tiles, size_t n_tiles, const wl_activations *a,
                              void *scratch);

typedef struct wl_kernels {
    const char *isa;      /* "scalar", "avx2", … as for --isa */
    size_t scratch_bytes; /* per thread, for matmul */
    bool reads_halves; /* with few columns, the tiles of a call are read as two runs side by side, half of them each */

    /* x[n] -> q, scales, sums (and totals) of one row. n is a multiple of 32 or 256. */
    void (*quantize_q8_16) (int8_t *q, float *scales, int16_t *sums, float *totals, const float *x, size_t n);
    void (*quantize_q8_256) (int8_t *q, float *scales, int16_t *sums, const float *x, size_t n);

    wl_matmul_fn matmul[WL_TYPE_LIMIT]; /* NULL where wl_format_find gives NULL */

    void (*attention) (const wl_attention *a);

    /* y = x / sqrt (mean (x^2) + eps) * w:  r = 1 / sqrtf (sum / n + eps);  y_i = (x_i * r) * w_i. sum by fma in 8
     * virtual lanes.
     * y may be x. w NULL: y_i = x_i * r. */
    void (*rms_norm) (float *y, const float *x, const float *w, size_t n, float eps);
    /* mean m = sum / n; v = sum ((x - m)^2) / n; r = 1 / sqrtf (v + eps); y_i = fma ((x_i - m) * r, w_i, b_i); b NULL:
     * product only.
     * Both sums in 8 virtual lanes, the second by fma. y may be x. */
    void (*layer_norm) (float *y, const float *x, const float *w, const float *b, size_t n, float eps);

    /* y_i = act (gate_i) * up_i; y may be either input. silu (x) = x / (1 + expf (-x)); gelu: the tanh form, math.h. */
    void (*silu_mul) (float *y, const float *gate, const float *up, size_t n);
    void (*gelu_mul) (float *y, const float *gate, const float *up, size_t n);

    /* y_i = fma (x_i, scale, y_i) */
    void (*add_scaled) (float *y, const float *x, float scale, size_t n);

    /* Rotates the first 2 * n_pairs elements of one head in place by angles whose cos and sin are given:
     *   adjacent: pairs (2i, 2i+1);  halves: pairs (i, i + n_pairs)
     *   a' = fma (a, c, -(b * s));  b' = fma (a, s, b * c) */
    void (*rope_adjacent) (float *x, const float *cos, const float *sin, size_t n_pairs);
    void (*rope_halves) (float *x, const float *cos, const float *sin, size_t n_pairs);

    /* f32 -> f16, round half to even, clamped to +-65504 (NaN stays NaN): KV storing. */
    void (*to_f16) (uint16_t *y, const float *x, size_t n);

    /* f32 -> q8_0, n a multiple of WL_KV_SCALED: KV storing. Of 32 values, with amax the largest magnitude:
     *   scale = amax / 127 as to_f16 rounds it; r = 1 / scale, 0 where the scale is 0
     *   q = round-half-even of x * r clamped to +-127
     * Where one is NaN the scale is NaN and all q are 0, so that the fault shows. */
    void (*to_q8_0) (int8_t *q, uint16_t *scales, const float *x, size_t n);
} wl_kernels;

extern const wl_kernels wl_kernels_scalar;

/* The table by --isa name, or the best this CPU runs when `name` is NULL or "auto". NULL with WL_ERROR_USAGE if the
 * name is unknown or this CPU lacks it (the text lists what it has). */
const wl_kernels *wl_kernels_find (const char *name, wl_error *err);

/* Tables that this CPU runs, scalar first; returns how many, at most `limit` written. For tests and benchmarks. */
size_t wl_kernels_all (const wl_kernels **out, size_t limit);
/* Names of tables compiled in that this CPU does not run (for "skipped" lines). */
size_t wl_kernels_skipped (const char **out, size_t limit);

#endif
