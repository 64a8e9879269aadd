/* The matmul entries of a SIMD table: the functions that simd8_matmul_list.h defines as isa_matmul_TYPE, and the float ones. */
#ifndef WL_ENGINE_KERNELS_SIMD8_MATMUL_TABLE_H
#define WL_ENGINE_KERNELS_SIMD8_MATMUL_TABLE_H

#define MATMUL_TABLE(isa)                                                                                           \
    {                                                                                                               \
        [WL_TYPE_F32] = simd8_matmul_f32, [WL_TYPE_F16] = simd8_matmul_f16, [WL_TYPE_BF16] = simd8_matmul_bf16,     \
        [WL_TYPE_Q4_0] = isa##_matmul_q4_0, [WL_TYPE_Q4_1] = isa##_matmul_q4_1, [WL_TYPE_Q5_0] = isa##_matmul_q5_0, \
        [WL_TYPE_Q5_1] = isa##_matmul_q5_1, [WL_TYPE_Q8_0] = isa##_matmul_q8_0,                                     \
        [WL_TYPE_IQ4_NL] = isa##_matmul_iq4_nl, [WL_TYPE_Q2_K] = isa##_matmul_q2_k,                                 \
        [WL_TYPE_Q3_K] = isa##_matmul_q3_k, [WL_TYPE_Q4_K] = isa##_matmul_q4_k, [WL_TYPE_Q5_K] = isa##_matmul_q5_k, \
        [WL_TYPE_Q6_K] = isa##_matmul_q6_k, [WL_TYPE_IQ4_XS] = isa##_matmul_iq4_xs,                                 \
        [WL_TYPE_MXFP4] = isa##_matmul_mxfp4, [WL_TYPE_TQ2_0] = isa##_matmul_tq2_0,                                 \
        [WL_TYPE_IQ2_XXS] = isa##_matmul_iq2_xxs, [WL_TYPE_IQ2_XS] = isa##_matmul_iq2_xs,                           \
        [WL_TYPE_IQ2_S] = isa##_matmul_iq2_s, [WL_TYPE_IQ3_XXS] = isa##_matmul_iq3_xxs,                             \
        [WL_TYPE_IQ3_S] = isa##_matmul_iq3_s, [WL_TYPE_IQ1_S] = isa##_matmul_iq1_s,                                 \
        [WL_TYPE_IQ1_M] = isa##_matmul_iq1_m, [WL_TYPE_TQ1_0] = isa##_matmul_tq1_0,                                 \
    }

#endif
