/* The tables for AVX-512 with VNNI, and for AMX besides: the quantized matmul and quantizing in their own terms; the
 * rest as in the AVX2 table, compiled again for twice the registers, and for twice their width where that changes no
 * result. Included by avx512.c, and by tests/kernels, which compile it for CPUs without them. */
#ifndef WL_ENGINE_KERNELS_AVX512_TABLE_H
#define WL_ENGINE_KERNELS_AVX512_TABLE_H

#define WIDE 16

#include "amx_matmul.h"
#include "avx512_matmul.h"
#include "avx512_vectors.h"
#include "simd8_attention.h"
#include "simd8_elementwise.h"
#include "simd8_matmul_float.h"
#include "simd8_matmul_table.h"
#include "tables.h"
#include "x86_rope.h"

#define TABLE(name, matmul_isa, scratch)                                                                        \
    {                                                                                                           \
        .isa = (name), .scratch_bytes = sizeof (scratch), .quantize_q8_16 = quantize_q8_16,                     \
        .quantize_q8_256 = quantize_q8_256, .matmul = MATMUL_TABLE (matmul_isa), .attention = simd8_attention,  \
        .rms_norm = rms_norm, .layer_norm = layer_norm, .silu_mul = silu_mul, .gelu_mul = gelu_mul,             \
        .add_scaled = add_scaled, .rope_adjacent = rope_adjacent, .rope_halves = rope_halves, .to_f16 = to_f16, \
        .to_q8_0 = to_q8_0, .reads_halves = true,                                                               \
    }

const wl_kernels wl_kernels_avx512vnni = TABLE ("avx512vnni", avx512, panel);
const wl_kernels wl_kernels_amx = TABLE ("amx", amx, amx_panel);

#endif
