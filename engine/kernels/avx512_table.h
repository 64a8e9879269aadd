/* The table for AVX-512 with VNNI: the quantized matmul and quantizing in its own terms; the rest as in the AVX2 table,
 * compiled again for twice the registers. Included by avx512.c, and by tests/kernels, which compile it for CPUs without
 * AVX-512. */
#ifndef WL_ENGINE_KERNELS_AVX512_TABLE_H
#define WL_ENGINE_KERNELS_AVX512_TABLE_H

#include "avx512_matmul.h"
#include "avx512_vectors.h"
#include "simd8_attention.h"
#include "simd8_elementwise.h"
#include "simd8_matmul_float.h"
#include "tables.h"

const wl_kernels wl_kernels_avx512vnni = {
    .isa = "avx512vnni",
    .scratch_bytes = sizeof (panel),
    .quantize_q8_16 = quantize_q8_16,
    .quantize_q8_256 = quantize_q8_256,
    .matmul =
        {
            [WL_TYPE_F32] = simd8_matmul_f32,          [WL_TYPE_F16] = simd8_matmul_f16,
            [WL_TYPE_BF16] = simd8_matmul_bf16,        [WL_TYPE_Q4_0] = avx512_matmul_q4_0,
            [WL_TYPE_Q4_1] = avx512_matmul_q4_1,       [WL_TYPE_Q5_0] = avx512_matmul_q5_0,
            [WL_TYPE_Q5_1] = avx512_matmul_q5_1,       [WL_TYPE_Q8_0] = avx512_matmul_q8_0,
            [WL_TYPE_IQ4_NL] = avx512_matmul_iq4_nl,   [WL_TYPE_Q2_K] = avx512_matmul_q2_k,
            [WL_TYPE_Q3_K] = avx512_matmul_q3_k,       [WL_TYPE_Q4_K] = avx512_matmul_q4_k,
            [WL_TYPE_Q5_K] = avx512_matmul_q5_k,       [WL_TYPE_Q6_K] = avx512_matmul_q6_k,
            [WL_TYPE_IQ4_XS] = avx512_matmul_iq4_xs,   [WL_TYPE_IQ2_XXS] = avx512_matmul_iq2_xxs,
            [WL_TYPE_IQ2_XS] = avx512_matmul_iq2_xs,   [WL_TYPE_IQ2_S] = avx512_matmul_iq2_s,
            [WL_TYPE_IQ3_XXS] = avx512_matmul_iq3_xxs, [WL_TYPE_IQ3_S] = avx512_matmul_iq3_s,
            [WL_TYPE_IQ1_S] = avx512_matmul_iq1_s,     [WL_TYPE_IQ1_M] = avx512_matmul_iq1_m,
            [WL_TYPE_TQ1_0] = avx512_matmul_tq1_0,     [WL_TYPE_TQ2_0] = avx512_matmul_tq2_0,
            [WL_TYPE_MXFP4] = avx512_matmul_mxfp4,
        },
    .attention = simd8_attention,
    .rms_norm = rms_norm,
    .layer_norm = layer_norm,
    .silu_mul = silu_mul,
    .gelu_mul = gelu_mul,
    .add_scaled = add_scaled,
    .rope_adjacent = rope_adjacent,
    .rope_halves = rope_halves,
    .to_f16 = to_f16,
};

#endif
