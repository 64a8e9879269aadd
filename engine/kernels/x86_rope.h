/* Rotating adjacent pairs in 8 floats at a time, for the x86 tables. */
#ifndef WL_ENGINE_KERNELS_X86_ROPE_H
#define WL_ENGINE_KERNELS_X86_ROPE_H

#include "kernels.h"
#include "simd8.h"

static void rope_adjacent (float *x, const float *cos, const float *sin, size_t n_pairs)
{
    size_t i = 0;
    for (; i + 4 <= n_pairs; i += 4) {
        __m128 c = _mm_loadu_ps (cos + i), s = _mm_loadu_ps (sin + i);
        __m256 cs = _mm256_set_m128 (_mm_unpackhi_ps (c, s), _mm_unpacklo_ps (c, s));
        __m256 sc = _mm256_permute_ps (cs, 0xb1);
        __m256 v = _mm256_loadu_ps (x + 2 * i);
        /* even lanes: a c - b s; odd lanes: a s + b c */
        __m256 rotated = _mm256_fmaddsub_ps (_mm256_moveldup_ps (v), cs, _mm256_mul_ps (_mm256_movehdup_ps (v), sc));
        _mm256_storeu_ps (x + 2 * i, rotated);
    }
    wl_kernels_scalar.rope_adjacent (x + 2 * i, cos + i, sin + i, n_pairs - i);
}

#endif
