/* What the AVX2 files share; private to avx2*.c. */
#ifndef WL_ENGINE_KERNELS_AVX2_H
#define WL_ENGINE_KERNELS_AVX2_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels.h"
#include "math_constants.h"

#define INLINE static inline __attribute__ ((always_inline))

/* Loops over constants that must vanish: their bodies index arrays of registers. */
#if defined(__clang__)
#define UNROLL _Pragma ("clang loop unroll(full)")
#else
#define UNROLL _Pragma ("GCC unroll 16")
#endif

/* Keeps a vector where the source has it. Both compilers otherwise move loads and additions across a whole unrolled tile (GCC's
 * scheduler, clang's reassociation) until 16 registers no longer hold it and half of the instructions are spills. */
#define PIN(v) __asm__ volatile ("" : "+x"(v))

INLINE __m256i load_256 (const void *p)
{
    return _mm256_loadu_si256 (p);
}

/* The 4 bytes at p in all 8 dwords. */
INLINE __m256i broadcast_4 (const void *p)
{
    int32_t v;
    __builtin_memcpy (&v, p, 4);
    return _mm256_set1_epi32 (v);
}

/* (l0+l4)+(l2+l6) + ((l1+l5)+(l3+l7)) */
INLINE float sum_lanes_256 (__m256 v)
{
    __m128 fours = _mm_add_ps (_mm256_castps256_ps128 (v), _mm256_extractf128_ps (v, 1)); /* 0+4, 1+5, 2+6, 3+7 */
    __m128 twos = _mm_add_ps (fours, _mm_movehl_ps (fours, fours));
    return _mm_cvtss_f32 (_mm_add_ss (twos, _mm_movehdup_ps (twos)));
}

/* wl_expf of 8 lanes. */
INLINE __m256 exp_256 (__m256 x)
{
    __m256 shifted = _mm256_fmadd_ps (x, _mm256_set1_ps (EXP_LOG2E), _mm256_set1_ps (EXP_ROUND));
    __m256 n = _mm256_sub_ps (shifted, _mm256_set1_ps (EXP_ROUND));
    __m256 r = _mm256_fmadd_ps (n, _mm256_set1_ps (-EXP_LN2_HIGH), x);
    r = _mm256_fmadd_ps (n, _mm256_set1_ps (-EXP_LN2_LOW), r);
    __m256 p = _mm256_set1_ps (EXP_C6), one = _mm256_set1_ps (1.0f);
    p = _mm256_fmadd_ps (p, r, _mm256_set1_ps (EXP_C5));
    p = _mm256_fmadd_ps (p, r, _mm256_set1_ps (EXP_C4));
    p = _mm256_fmadd_ps (p, r, _mm256_set1_ps (EXP_C3));
    p = _mm256_fmadd_ps (p, r, _mm256_set1_ps (EXP_C2));
    p = _mm256_fmadd_ps (p, r, one);
    p = _mm256_fmadd_ps (p, r, one);
    __m256i power = _mm256_add_epi32 (_mm256_slli_epi32 (_mm256_castps_si256 (shifted), 23), _mm256_castps_si256 (one));
    __m256 y = _mm256_mul_ps (p, _mm256_castsi256_ps (power));
    __m256 infinity = _mm256_set1_ps (__builtin_inff ());
    y = _mm256_blendv_ps (y, infinity, _mm256_cmp_ps (x, _mm256_set1_ps (EXP_OVERFLOW), _CMP_GT_OQ));
    y = _mm256_andnot_ps (_mm256_cmp_ps (x, _mm256_set1_ps (EXP_UNDERFLOW), _CMP_LT_OQ), y);
    return _mm256_blendv_ps (y, x, _mm256_cmp_ps (x, x, _CMP_UNORD_Q));
}

/* wl_tanhf of 8 lanes. */
INLINE __m256 tanh_256 (__m256 x)
{
    __m256 one = _mm256_set1_ps (1.0f), two = _mm256_set1_ps (2.0f);
    return _mm256_sub_ps (one, _mm256_div_ps (two, _mm256_add_ps (exp_256 (_mm256_mul_ps (two, x)), one)));
}

/* avx2_matmul.c, avx2_matmul_float.c, avx2_attention.c */
enum { AVX2_MATMUL_SCRATCH = 224 * 1024 };
void avx2_matmul_f32 (float *, size_t, const void *, size_t, const wl_activations *, void *);
void avx2_matmul_f16 (float *, size_t, const void *, size_t, const wl_activations *, void *);
void avx2_matmul_bf16 (float *, size_t, const void *, size_t, const wl_activations *, void *);
void avx2_matmul_q4_0 (float *, size_t, const void *, size_t, const wl_activations *, void *);
void avx2_matmul_q4_1 (float *, size_t, const void *, size_t, const wl_activations *, void *);
void avx2_matmul_q5_0 (float *, size_t, const void *, size_t, const wl_activations *, void *);
void avx2_matmul_q5_1 (float *, size_t, const void *, size_t, const wl_activations *, void *);
void avx2_matmul_q8_0 (float *, size_t, const void *, size_t, const wl_activations *, void *);
void avx2_matmul_iq4_nl (float *, size_t, const void *, size_t, const wl_activations *, void *);
void avx2_matmul_q2_k (float *, size_t, const void *, size_t, const wl_activations *, void *);
void avx2_matmul_q3_k (float *, size_t, const void *, size_t, const wl_activations *, void *);
void avx2_matmul_q4_k (float *, size_t, const void *, size_t, const wl_activations *, void *);
void avx2_matmul_q5_k (float *, size_t, const void *, size_t, const wl_activations *, void *);
void avx2_matmul_q6_k (float *, size_t, const void *, size_t, const wl_activations *, void *);
void avx2_matmul_iq4_xs (float *, size_t, const void *, size_t, const wl_activations *, void *);
void avx2_attention (const wl_attention *a);

#endif
