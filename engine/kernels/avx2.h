/* What the AVX2 files share; private to avx2*.c. */
#ifndef WL_ENGINE_KERNELS_AVX2_H
#define WL_ENGINE_KERNELS_AVX2_H

#include "kernels.h"
#include "simd8.h"

/* Keeps a vector where the source has it. Both compilers otherwise move loads and additions across a whole unrolled
 * tile (GCC's scheduler, clang's reassociation) until 16 registers no longer hold it and half of the instructions are
 * spills. */
#define PIN(v) __asm__ volatile("" : "+x"(v))

/* *sum += v, in the register where the sum is: GCC else adds into v's and moves the result. */
INLINE void add_in_place_16 (__m256i *sum, __m256i v)
{
    __asm__ volatile("vpaddw %1, %0, %0" : "+x"(*sum) : "x"(v));
}

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

/* avx2_matmul.c */
enum { AVX2_MATMUL_SCRATCH = 224 * 1024 };
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
void avx2_matmul_iq2_xxs (float *, size_t, const void *, size_t, const wl_activations *, void *);
void avx2_matmul_iq2_xs (float *, size_t, const void *, size_t, const wl_activations *, void *);
void avx2_matmul_iq2_s (float *, size_t, const void *, size_t, const wl_activations *, void *);
void avx2_matmul_iq3_xxs (float *, size_t, const void *, size_t, const wl_activations *, void *);
void avx2_matmul_iq3_s (float *, size_t, const void *, size_t, const wl_activations *, void *);
void avx2_matmul_iq1_s (float *, size_t, const void *, size_t, const wl_activations *, void *);
void avx2_matmul_iq1_m (float *, size_t, const void *, size_t, const wl_activations *, void *);
void avx2_matmul_tq1_0 (float *, size_t, const void *, size_t, const wl_activations *, void *);
void avx2_matmul_tq2_0 (float *, size_t, const void *, size_t, const wl_activations *, void *);
void avx2_matmul_mxfp4 (float *, size_t, const void *, size_t, const wl_activations *, void *);

#endif
