/* Attention: up to TILE query rows at once over the same keys and values. Included by each ISA's file.
 *
 * Scores: WIDE positions a vector, one or two vectors a group of 16; a key's element is converted from f16 once for all
 * rows. Values: WIDE elements of the head a vector, a position's weight broadcast. Rows see different ranges of positions (a
 * prompt's rows each end one later); scores are computed for the union and masked in the softmax, values in the range
 * common to all rows as one tile and what is left of each row alone: a value that a row does not see never enters its
 * arithmetic.
 *
 * q8_0 differs in how keys and values are read: int8 becomes f32 as f16 does, in as many instructions, and a scale is
 * applied once for 32 elements: to the sums of a key's, and to the weights before a value's. */
#ifndef WL_ENGINE_KERNELS_SIMD8_ATTENTION_H
#define WL_ENGINE_KERNELS_SIMD8_ATTENTION_H

#include <math.h>
#include <stdbool.h>

#include "engine/kernels/math.h"
#include "kernels.h"
#include "simd_wide.h"

enum {
    TILE = 6,
    BLOCK = WL_ATTENTION_BLOCK,
    PAGE = WL_KV_PAGE,
    GROUP = WL_KV_GROUP,
    MOST_VECTORS = 8,
    GROUP_VECTORS = GROUP / WIDE
};

/* The rows of a tile at one block of positions. p and o lie in scratch. */
typedef struct block_state {
    float *p; /* [TILE][BLOCK] scores, then weights */
    float *o; /* [TILE][width] */
    size_t width;
    size_t lo[TILE], end[TILE];   /* what each row sees of the block; empty when lo >= end */
    size_t union_lo, union_end;   /* what any row sees */
    size_t common_lo, common_end; /* what all rows see; may be empty */
    float m[TILE], l[TILE];
} block_state;

/* What has been merged so far. */
typedef struct merged_state {
    float m[TILE], l[TILE];
    bool begun[TILE];
} merged_state;

/* Scores from products: p[row * BLOCK + position]. */
INLINE void finish_scores (const int n_rows, const int n_groups, const wl_attention *a, fw acc[TILE][MOST_VECTORS],
                           float *p)
{
    const fw scale = setw (a->scale), cap = setw (a->softcap);
    const bool capped = a->softcap > 0.0f;
    UNROLL for (int r = 0; r < n_rows; r++)
    {
        UNROLL for (int v = 0; v < n_groups * GROUP_VECTORS; v++)
        {
            fw s = mulw (acc[r][v], scale);
            if (capped)
                s = mulw (cap, tanhw (divw (s, cap)));
            storew (p + r * BLOCK + v * WIDE, s);
        }
    }
}

/* Scores of n_groups * 16 positions whose keys start at k, for n_rows rows: p[row * BLOCK + position]. */
INLINE void score_groups (const int n_rows, const int n_groups, const wl_attention *a, const float *q,
                          const uint16_t *k, float *p)
{
    const size_t group_stride = GROUP * a->head_dim;
    fw acc[TILE][MOST_VECTORS];
    UNROLL for (int r = 0; r < n_rows; r++)
    {
        UNROLL for (int v = 0; v < n_groups * GROUP_VECTORS; v++) acc[r][v] = zerow ();
    }
    for (size_t d = 0; d < a->head_dim; d++, k += GROUP) {
        fw keys[MOST_VECTORS];
        UNROLL for (int v = 0; v < n_groups * GROUP_VECTORS; v++) keys[v] =
            loadw_f16 (k + v / GROUP_VECTORS * group_stride + v % GROUP_VECTORS * WIDE);
        UNROLL for (int r = 0; r < n_rows; r++)
        {
            fw query = splatw (q + r * a->q_stride + d);
            UNROLL for (int v = 0; v < n_groups * GROUP_VECTORS; v++) acc[r][v] = fmaw (query, keys[v], acc[r][v]);
        }
    }
    finish_scores (n_rows, n_groups, a, acc, p);
}

/* The same of q8_0; `scales` are the first block's, from the first position on. */
INLINE void score_groups_q8_0 (const int n_rows, const int n_groups, const wl_attention *a, const float *q,
                               const int8_t *k, const uint16_t *scales, float *p)
{
    const size_t group_stride = GROUP * a->head_dim;
    fw acc[TILE][MOST_VECTORS], part[TILE][MOST_VECTORS];
    UNROLL for (int r = 0; r < n_rows; r++)
    {
        UNROLL for (int v = 0; v < n_groups * GROUP_VECTORS; v++) acc[r][v] = zerow ();
    }
    for (size_t d = 0; d < a->head_dim; scales += PAGE) {
        UNROLL for (int r = 0; r < n_rows; r++)
        {
            UNROLL for (int v = 0; v < n_groups * GROUP_VECTORS; v++) part[r][v] = zerow ();
        }
        for (size_t end = d + WL_KV_SCALED; d < end; d++, k += GROUP) {
            fw keys[MOST_VECTORS];
            UNROLL for (int v = 0; v < n_groups * GROUP_VECTORS; v++) keys[v] =
                loadw_i8 (k + v / GROUP_VECTORS * group_stride + v % GROUP_VECTORS * WIDE);
            UNROLL for (int r = 0; r < n_rows; r++)
            {
                fw query = splatw (q + r * a->q_stride + d);
                UNROLL for (int v = 0; v < n_groups * GROUP_VECTORS; v++) part[r][v] =
                    fmaw (query, keys[v], part[r][v]);
            }
        }
        UNROLL for (int v = 0; v < n_groups * GROUP_VECTORS; v++)
        {
            fw scale = loadw_f16 (scales + v * WIDE);
            UNROLL for (int r = 0; r < n_rows; r++) acc[r][v] = fmaw (part[r][v], scale, acc[r][v]);
        }
    }
    finish_scores (n_rows, n_groups, a, acc, p);
}

/* Groups run together, so that there are chains enough to hide the latency of fma. */
INLINE int groups_at_once (const int n_rows)
{
    const int narrow = n_rows == 1 ? 4 : n_rows <= 3 ? 2 : 1;
    return WIDE == 8 || n_rows == 1 ? narrow : 2 * narrow; /* of a page there are but 4 */
}

/* The scales of a page of q8_0: [head_dim / 32][PAGE]. */
INLINE const uint16_t *scales_of (const wl_attention *a, const void *page)
{
    return (const uint16_t *) (const void *) ((const int8_t *) page + PAGE * a->head_dim);
}

/* Scores of all positions that a row sees (and of their neighbours in the same groups). */
INLINE void score_block (const int n_rows, const wl_attention *a, const block_state *s, const float *q)
{
    const size_t span = GROUP * (size_t) groups_at_once (n_rows);
    for (size_t t = s->union_lo / span * span; t < s->union_end; t += span) {
        const void *page = a->k_pages[t / PAGE];
        if (page && a->kv_type == WL_KV_F16) /* absent: between the ranges of two rows, seen by none */
            score_groups (n_rows, groups_at_once (n_rows), a, q, (const uint16_t *) page + t % PAGE * a->head_dim,
                          s->p + t % BLOCK);
        else if (page)
            score_groups_q8_0 (n_rows, groups_at_once (n_rows), a, q, (const int8_t *) page + t % PAGE * a->head_dim,
                               scales_of (a, page) + t % PAGE, s->p + t % BLOCK);
    }
}

/* Turns the scores [lo, hi] (within the block) into weights; the block's maximum and sum. */
static void softmax_block (float *p, size_t lo, size_t hi, float *m, float *l)
{
    const f8 lowest = set8 (-INFINITY);
    const size_t start = lo & ~(size_t) 7;
    f8 top = lowest;
    for (size_t t = start; t <= hi; t += 8)
        top = top8 (select8 (within8 (t, lo, hi), load8 (p + t), lowest), top); /* skips NaN */
    *m = top_lane8 (top);
    const f8 max = set8 (*m);
    f8 sum = zero8 ();
    for (size_t t = start; t <= hi; t += 8) {
        f8 weight = exp8 (sub8 (load8 (p + t), max));
        weight = select8 (within8 (t, lo, hi), weight, zero8 ());
        sum = add8 (sum, weight);
        store8 (p + t, weight);
    }
    *l = sum_lanes8 (sum);
}

/* o[row][0 .. WIDE * n_vectors) += weights times n positions' values; v and p are those of the first position. */
INLINE void add_values (const int n_rows, const int n_vectors, float *o, size_t o_stride, const float *p,
                        const uint16_t *v, size_t v_stride, size_t n)
{
    fw acc[TILE][MOST_VECTORS];
    UNROLL for (int r = 0; r < n_rows; r++)
    {
        UNROLL for (int i = 0; i < n_vectors; i++) acc[r][i] = loadw (o + r * o_stride + WIDE * i);
    }
    for (size_t t = 0; t < n; t++, v += v_stride) {
        fw values[MOST_VECTORS];
        UNROLL for (int i = 0; i < n_vectors; i++) values[i] = loadw_f16 (v + WIDE * i);
        UNROLL for (int r = 0; r < n_rows; r++)
        {
            fw weight = splatw (p + r * BLOCK + t);
            UNROLL for (int i = 0; i < n_vectors; i++) acc[r][i] = fmaw (weight, values[i], acc[r][i]);
        }
    }
    UNROLL for (int r = 0; r < n_rows; r++)
    {
        UNROLL for (int i = 0; i < n_vectors; i++) storew (o + r * o_stride + WIDE * i, acc[r][i]);
    }
}

INLINE int vectors_at_once (const int n_rows)
{
    return n_rows == 1 ? 8 : n_rows <= 3 ? 4 : 2;
}

/* One page's n values from position `at` of the page on; `weights` [TILE][BLOCK] are those of the same positions. */
INLINE void value_page (const int n_rows, const wl_attention *a, size_t width, float *o, const float *weights,
                        const uint16_t *page, size_t at, size_t n)
{
    const int wide = vectors_at_once (n_rows);
    const uint16_t *v = page + at * a->head_dim;
    size_t d = 0;
    for (; d + WIDE * (size_t) wide <= a->head_dim; d += WIDE * (size_t) wide)
        add_values (n_rows, wide, o + d, width, weights, v + d, a->head_dim, n);
    if (wide > 2)
        for (; d + 2 * WIDE <= a->head_dim; d += 2 * WIDE)
            add_values (n_rows, 2, o + d, width, weights, v + d, a->head_dim, n);
    for (; d + WIDE <= a->head_dim; d += WIDE)
        add_values (n_rows, 1, o + d, width, weights, v + d, a->head_dim, n);
    for (; d < a->head_dim; d++)
        for (int r = 0; r < n_rows; r++)
            for (size_t t = 0; t < n; t++)
                o[r * width + d] =
                    fmaf (weights[r * BLOCK + t], wl_f16_to_f32 (v[t * a->head_dim + d]), o[r * width + d]);
}

/* add_values of q8_0: weights [TILE][PAGE] have the scale in them. */
INLINE void add_values_q8_0 (const int n_rows, const int n_vectors, float *o, size_t o_stride, const float *weights,
                             const int8_t *v, size_t v_stride, size_t n)
{
    fw acc[TILE][MOST_VECTORS];
    UNROLL for (int r = 0; r < n_rows; r++)
    {
        UNROLL for (int i = 0; i < n_vectors; i++) acc[r][i] = loadw (o + r * o_stride + WIDE * i);
    }
    for (size_t t = 0; t < n; t++, v += v_stride) {
        fw values[MOST_VECTORS];
        UNROLL for (int i = 0; i < n_vectors; i++) values[i] = loadw_i8 (v + WIDE * i);
        UNROLL for (int r = 0; r < n_rows; r++)
        {
            fw weight = splatw (weights + r * PAGE + t);
            UNROLL for (int i = 0; i < n_vectors; i++) acc[r][i] = fmaw (weight, values[i], acc[r][i]);
        }
    }
    UNROLL for (int r = 0; r < n_rows; r++)
    {
        UNROLL for (int i = 0; i < n_vectors; i++) storew (o + r * o_stride + WIDE * i, acc[r][i]);
    }
}

/* value_page of q8_0; `weights` [TILE][BLOCK] are those from the page's first position on. */
INLINE void value_page_q8_0 (const int n_rows, const wl_attention *a, size_t width, float *o, const float *weights,
                             const int8_t *page, size_t at, size_t n)
{
    enum { SCALED_VECTORS = WL_KV_SCALED / WIDE };
    const int wide = vectors_at_once (n_rows) < SCALED_VECTORS ? vectors_at_once (n_rows) : SCALED_VECTORS;
    const int8_t *v = page + at * a->head_dim;
    const uint16_t *scales = scales_of (a, page);
    float scaled[TILE * PAGE];
    for (size_t d = 0; d < a->head_dim; scales += PAGE) {
        for (size_t t = at / 8 * 8; t < at + n; t += 8) {
            f8 scale = load8_f16 (scales + t);
            UNROLL for (int r = 0; r < n_rows; r++)
                store8 (scaled + r * PAGE + t, mul8 (load8 (weights + r * BLOCK + t), scale));
        }
        for (size_t end = d + WL_KV_SCALED; d < end; d += WIDE * (size_t) wide)
            add_values_q8_0 (n_rows, wide, o + d, width, scaled + at, v + d, a->head_dim, n);
    }
}

/* The positions [lo, end) of one block, page by page so that a page's values are in L1 for all slices of the head. */
INLINE void value_block (const int n_rows, const wl_attention *a, const block_state *s, float *o, const float *p,
                         size_t lo, size_t end)
{
    while (lo < end) {
        const size_t start = lo / PAGE * PAGE, n = (end < start + PAGE ? end : start + PAGE) - lo;
        const void *page = a->v_pages[lo / PAGE];
        if (a->kv_type == WL_KV_F16)
            value_page (n_rows, a, s->width, o, p + lo % BLOCK, page, lo - start, n);
        else
            value_page_q8_0 (n_rows, a, s->width, o, p + start % BLOCK, page, lo - start, n);
        lo += n;
    }
}

/* Every row's values of the block, positions ascending: those before the common range, the common range, those after
 * it. */
INLINE void all_values (const int n_rows, const wl_attention *a, const block_state *s)
{
    memset (s->o, 0, (size_t) n_rows * s->width * sizeof (float));
    const bool common = n_rows > 1 && s->common_lo < s->common_end;
    for (int r = 0; r < n_rows; r++)
        value_block (1, a, s, s->o + r * s->width, s->p + r * BLOCK, s->lo[r], common ? s->common_lo : s->end[r]);
    if (!common)
        return;
    value_block (n_rows, a, s, s->o, s->p, s->common_lo, s->common_end);
    for (int r = 0; r < n_rows; r++)
        value_block (1, a, s, s->o + r * s->width, s->p + r * BLOCK, s->common_end, s->end[r]);
}

/* out = first ? o : out * keep + o * add */
static void merge (float *out, const float *o, size_t n, bool first, float keep, float add)
{
    size_t d = 0;
    const f8 k = set8 (keep), f = set8 (add);
    if (first) {
        memcpy (out, o, n * sizeof *out);
        return;
    }
    for (; d + 8 <= n; d += 8)
        store8 (out + d, fma8 (load8 (out + d), k, mul8 (load8 (o + d), f)));
    for (; d < n; d++)
        out[d] = fmaf (out[d], keep, o[d] * add);
}

/* What the rows see of the block that starts at `start`. */
INLINE void find_ranges (const int n_rows, block_state *s, const uint32_t *first, const uint32_t *last, size_t start)
{
    s->union_lo = s->common_end = SIZE_MAX;
    s->union_end = s->common_lo = 0;
    for (int r = 0; r < n_rows; r++) {
        size_t lo = first[r] > start ? first[r] : start,
               end = last[r] < start + BLOCK ? (size_t) last[r] + 1 : start + BLOCK;
        if (lo < end) {
            s->union_lo = lo < s->union_lo ? lo : s->union_lo;
            s->union_end = end > s->union_end ? end : s->union_end;
        }
        s->common_lo = lo > s->common_lo ? lo : s->common_lo;
        s->common_end = end < s->common_end ? end : s->common_end;
        s->lo[r] = lo;
        s->end[r] = end;
    }
}

static void merge_row (const wl_attention *a, const block_state *s, merged_state *merged, int r, float *out)
{
    float m = merged->m[r], block_m = s->m[r], keep = 0, add = 0, top = block_m;
    const float *o = s->o + r * s->width;
    if (!merged->begun[r]) {
        merged->l[r] = s->l[r];
    } else {
        top = block_m > m ? block_m : m;
        keep = wl_expf (m - top);
        add = wl_expf (block_m - top);
        merged->l[r] = fmaf (merged->l[r], keep, s->l[r] * add);
    }
    merge (out, o, a->head_dim, !merged->begun[r], keep, add);
    merged->m[r] = top;
    merged->begun[r] = true;
}

static void finish_row (const wl_attention *a, float m, float l, const float *sink, float *out)
{
    size_t d = 0;
    if (sink) {
        float top = *sink > m ? *sink : m, keep = wl_expf (m - top);
        l = fmaf (l, keep, wl_expf (*sink - top));
        for (size_t i = 0; i < a->head_dim; i++)
            out[i] *= keep;
    }
    for (; d + 8 <= a->head_dim; d += 8)
        store8 (out + d, div8 (load8 (out + d), set8 (l)));
    for (; d < a->head_dim; d++)
        out[d] /= l;
}

/* Rows [row, row + n_rows). */
INLINE void attend_rows (const int n_rows, const wl_attention *a, size_t row)
{
    const float *q = a->q + row * a->q_stride;
    float *out = a->out + row * a->out_stride;
    const uint32_t *first = a->first + row, *last = a->last + row;
    block_state s = {.p = a->scratch, .o = a->scratch + TILE * BLOCK, .width = (a->head_dim + 15) / 16 * 16};
    merged_state merged = {0};
    size_t lowest = first[0], highest = last[0];
    for (int r = 1; r < n_rows; r++) {
        lowest = first[r] < lowest ? first[r] : lowest;
        highest = last[r] > highest ? last[r] : highest;
    }
    for (size_t start = lowest / BLOCK * BLOCK; start <= highest; start += BLOCK) {
        find_ranges (n_rows, &s, first, last, start);
        if (s.union_lo >= s.union_end)
            continue;
        score_block (n_rows, a, &s, q);
        for (int r = 0; r < n_rows; r++)
            if (s.lo[r] < s.end[r])
                softmax_block (s.p + r * BLOCK, s.lo[r] - start, s.end[r] - 1 - start, &s.m[r], &s.l[r]);
        all_values (n_rows, a, &s);
        for (int r = 0; r < n_rows; r++)
            if (s.lo[r] < s.end[r])
                merge_row (a, &s, &merged, r, out + r * a->out_stride);
    }
    for (int r = 0; r < n_rows; r++)
        finish_row (a, merged.m[r], merged.l[r], a->sinks ? &a->sinks[row + (size_t) r] : NULL,
                    out + r * a->out_stride);
}

static void simd8_attention (const wl_attention *a)
{
    size_t row = 0;
    for (; row + 6 <= a->n_rows; row += 6)
        attend_rows (6, a, row);
    switch (a->n_rows - row) {
    case 1:
        attend_rows (1, a, row);
        break;
    case 2:
        attend_rows (2, a, row);
        break;
    case 3:
        attend_rows (3, a, row);
        break;
    case 4:
        attend_rows (4, a, row);
        break;
    case 5:
        attend_rows (5, a, row);
        break;
    default:
        break;
    }
}

#endif
