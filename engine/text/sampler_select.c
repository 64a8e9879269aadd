/* The best candidates of a row without sorting it; see sampler_private.h.
 *
 * One pass over the row finds each block's best. A selection of the k best keeps them in a heap whose root is the worst, and skips blocks whose best is not
 * better than it: with k of 40 nearly all. Only what asks for the whole vocabulary in order pays for a sort, by radix. */
#include <math.h>

#include "sampler_private.h"

enum {
    HEAP_LIMIT = 4096, /* from here on sorting all is faster */
    FEW = 32,          /* up to here sorting by insertion is */
    RADIX_BITS = 11,
    RADIX = 1 << RADIX_BITS,
    RADIX_PASSES = 3, /* of the upper 32 bits; ids are in order already */
};

bool sampler_scan (wl_sampler *s, const float *row, candidate *best)
{
    static const uint32_t finite_from = ~(0x7f7fffffu ^ 0x80000000u); /* order of the largest number */
    uint32_t best_order = UINT32_MAX, not_numbers = 0;
    size_t n_blocks = (s->n_vocab + SAMPLER_BLOCK - 1) / SAMPLER_BLOCK, best_block = 0;
    for (size_t b = 0; b < n_blocks; b++) {
        float block[SAMPLER_BLOCK];
        size_t start = b * SAMPLER_BLOCK, n = s->n_vocab - start < SAMPLER_BLOCK ? s->n_vocab - start : SAMPLER_BLOCK;
        const float *from = row + start;
        if (n < SAMPLER_BLOCK) {
            for (size_t i = 0; i < SAMPLER_BLOCK; i++)
                block[i] = i < n ? from[i] : -INFINITY;
            from = block;
        }
        int32_t highest = INT32_MIN; /* in signed order, whose maximum SIMD has */
        uint32_t bad = 0;
        for (size_t i = 0; i < SAMPLER_BLOCK; i++) {
            uint32_t bits;
            float positive_zero = from[i] + 0.0f;
            memcpy (&bits, &positive_zero, sizeof bits);
            int32_t magnitude = (int32_t) (bits & 0x7fffffffu), sign = (int32_t) bits >> 31;
            int32_t ascending = (int32_t) bits ^ (int32_t) ((uint32_t) sign >> 1);
            bad |= (uint32_t) (0x7f800000 - magnitude); /* its sign: NaN */
            highest = ascending > highest ? ascending : highest;
        }
        uint32_t order = ~((uint32_t) highest ^ 0x80000000u);
        not_numbers |= bad;
        s->block_best[b] = order;
        if (order < best_order) {
            best_order = order;
            best_block = b;
        }
    }
    if (not_numbers >> 31 || best_order < finite_from || best_order == logit_order (-INFINITY))
        return false;
    size_t i = best_block * SAMPLER_BLOCK;
    while (logit_order (row[i]) != best_order)
        i++;
    *best = (uint64_t) best_order << 32 | i;
    return true;
}

/* -- the k best -- */

/* Restores the heap whose root, the worst of n, was replaced. */
static void sift_down (candidate *heap, size_t n)
{
    for (size_t i = 0;;) {
        size_t child = 2 * i + 1;
        if (child >= n)
            return;
        if (child + 1 < n && heap[child + 1] > heap[child])
            child++;
        if (heap[child] <= heap[i])
            return;
        candidate swap = heap[i];
        heap[i] = heap[child];
        heap[child] = swap;
        i = child;
    }
}

static void sift_up (candidate *heap, size_t i)
{
    while (i > 0 && heap[i] > heap[(i - 1) / 2]) {
        candidate swap = heap[i];
        heap[i] = heap[(i - 1) / 2];
        heap[(i - 1) / 2] = swap;
        i = (i - 1) / 2;
    }
}

/* The best `wanted` of what is at least as good as `least`, as a heap. */
static size_t select_in_heap (wl_sampler *s, const float *row, uint32_t least, size_t wanted)
{
    candidate *heap = s->candidates;
    size_t n = 0;
    for (size_t b = 0; b * SAMPLER_BLOCK < s->n_vocab; b++) {
        /* An equal one with a higher id is worse than the root. */
        if (s->block_best[b] > least || (n == wanted && s->block_best[b] >= heap[0] >> 32))
            continue;
        size_t start = b * SAMPLER_BLOCK;
        size_t end = s->n_vocab - start < SAMPLER_BLOCK ? s->n_vocab : start + SAMPLER_BLOCK;
        for (size_t i = start; i < end; i++) {
            candidate next = candidate_of (row[i], i);
            if (next >> 32 > least)
                continue;
            if (n < wanted) {
                heap[n] = next;
                sift_up (heap, n++);
            } else if (next < heap[0]) {
                heap[0] = next;
                sift_down (heap, n);
            }
        }
    }
    return n;
}

static void sort_heap (candidate *heap, size_t n)
{
    while (n > 1) {
        candidate worst = heap[0];
        heap[0] = heap[--n];
        heap[n] = worst;
        sift_down (heap, n);
    }
}

/* -- all, in order -- */

static size_t gather (wl_sampler *s, const float *row, uint32_t least)
{
    size_t n = 0;
    for (size_t b = 0; b * SAMPLER_BLOCK < s->n_vocab; b++) {
        size_t start = b * SAMPLER_BLOCK;
        size_t end = s->n_vocab - start < SAMPLER_BLOCK ? s->n_vocab : start + SAMPLER_BLOCK;
        for (size_t i = start; s->block_best[b] <= least && i < end; i++) {
            candidate next = candidate_of (row[i], i);
            s->candidates[n] = next; /* n <= i: there is room */
            n += next >> 32 <= least;
        }
    }
    return n;
}

static void sort_by_insertion (candidate *c, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        candidate moved = c[i];
        size_t at = i;
        for (; at > 0 && c[at - 1] > moved; at--)
            c[at] = c[at - 1];
        c[at] = moved;
    }
}

/* Ids ascend in s->candidates, so a stable sort of the upper halves orders all. */
static void sort_by_radix (wl_sampler *s, size_t n)
{
    candidate *from = s->candidates, *to = s->sorting;
    for (int pass = 0; pass < RADIX_PASSES; pass++) {
        int shift = 32 + pass * RADIX_BITS;
        uint32_t places[RADIX] = {0}, place = 0;
        for (size_t i = 0; i < n; i++)
            places[from[i] >> shift & (RADIX - 1)]++;
        for (size_t digit = 0; digit < RADIX; digit++) {
            uint32_t count = places[digit];
            places[digit] = place;
            place += count;
        }
        for (size_t i = 0; i < n; i++)
            to[places[from[i] >> shift & (RADIX - 1)]++] = from[i];
        candidate *swap = from;
        from = to;
        to = swap;
    }
    s->candidates = from;
    s->sorting = to;
}

size_t sampler_select (wl_sampler *s, const float *row, double floor, size_t wanted)
{
    uint32_t least = logit_order (-INFINITY) - 1; /* any number */
    if (floor > -3.0e38) {
        float rounded = (float) floor; /* the least f32 that is at least `floor` */
        if ((double) rounded < floor)
            rounded = nextafterf (rounded, INFINITY);
        least = logit_order (rounded);
    }
    if (wanted && wanted <= HEAP_LIMIT && wanted < s->n_vocab) {
        size_t n = select_in_heap (s, row, least, wanted);
        sort_heap (s->candidates, n);
        return n;
    }
    size_t n = gather (s, row, least);
    if (n <= FEW)
        sort_by_insertion (s->candidates, n);
    else
        sort_by_radix (s, n);
    return wanted && wanted < n ? wanted : n;
}
