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
#include "simd8_matmul_table.h"
#include "tables.h"
#include "x86_rope.h"

const wl_kernels wl_kernels_avx512vnni = {
    .isa = "avx512vnni",
    .scratch_bytes = sizeof (panel),
    .quantize_q8_16 = quantize_q8_16,
    .quantize_q8_256 = quantize_q8_256,
    .matmul = MATMUL_TABLE (avx512),
    .attention = simd8_attention,
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

#endif
