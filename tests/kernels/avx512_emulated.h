/* AVX-512 in terms of AVX2, for CPUs without it: put before engine/kernels/avx512_table.h when that is compiled a second
 * time as the table "avx512vnni (emulated)", so that its arithmetic is proved on every x86-64 machine.
 *
 * SIMDe has portable code for the intrinsics. What it lacks is written here; what occurs thousands of times is kept out
 * of line, or the compiler would take minutes. */
#ifndef WL_TESTS_AVX512_EMULATED_H
#define WL_TESTS_AVX512_EMULATED_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpragmas"
#pragma GCC diagnostic ignored "-Wunknown-warning-option"
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wshadow"
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>
#pragma GCC diagnostic pop

#define UNROLL /* leaves loops alone, see simd8.h */
#define OUT_OF_LINE static __attribute__ ((noinline, unused))

OUT_OF_LINE __m512i emulated_dpbusd_512 (__m512i sum, __m512i a, __m512i b)
{
    return simde_mm512_dpbusd_epi32 (sum, a, b);
}
#undef _mm512_dpbusd_epi32
#define _mm512_dpbusd_epi32 emulated_dpbusd_512

OUT_OF_LINE __m256i emulated_dpbusd_256 (__m256i sum, __m256i a, __m256i b)
{
    return simde_mm256_dpbusd_epi32 (sum, a, b);
}
#undef _mm256_dpbusd_epi32
#define _mm256_dpbusd_epi32 emulated_dpbusd_256

OUT_OF_LINE __m128i emulated_dpbusd_128 (__m128i sum, __m128i a, __m128i b)
{
    return simde_mm_dpbusd_epi32 (sum, a, b);
}
#undef _mm_dpbusd_epi32
#define _mm_dpbusd_epi32 emulated_dpbusd_128

OUT_OF_LINE __m512i emulated_dpwssd_512 (__m512i sum, __m512i a, __m512i b)
{
    return simde_mm512_dpwssd_epi32 (sum, a, b);
}
#undef _mm512_dpwssd_epi32
#define _mm512_dpwssd_epi32 emulated_dpwssd_512

OUT_OF_LINE __m256i emulated_dpwssd_256 (__m256i sum, __m256i a, __m256i b)
{
    return simde_mm256_dpwssd_epi32 (sum, a, b);
}
#undef _mm256_dpwssd_epi32
#define _mm256_dpwssd_epi32 emulated_dpwssd_256

/* -- What SIMDe lacks ---------------------------------------------------------------------------------------------- */

typedef union lanes {
    __m512 f;
    __m512i i;
    __m256 f8[2];
    __m256i i8[2];
    float f32[16];
    int32_t i32[16];
} lanes;

/* Sums wrap here; SIMDe's are those of C, where they must not. */
#define EMULATE_SUM(name)                                      \
    OUT_OF_LINE __m512i emulated_##name (__m512i x, __m512i y) \
    {                                                          \
        lanes a = {.i = x}, b = {.i = y}, r;                   \
        for (int h = 0; h < 2; h++)                            \
            r.i8[h] = _mm256_##name (a.i8[h], b.i8[h]);        \
        return r.i;                                            \
    }
EMULATE_SUM (add_epi8)
EMULATE_SUM (add_epi32)
EMULATE_SUM (sub_epi32)
#undef _mm512_add_epi8
#define _mm512_add_epi8 emulated_add_epi8
#undef _mm512_add_epi32
#define _mm512_add_epi32 emulated_add_epi32
#undef _mm512_sub_epi32
#define _mm512_sub_epi32 emulated_sub_epi32

OUT_OF_LINE __m512 emulated_cvtepi32_ps (__m512i v)
{
    lanes a = {.i = v}, r;
    for (int h = 0; h < 2; h++)
        r.f8[h] = _mm256_cvtepi32_ps (a.i8[h]);
    return r.f;
}
#undef _mm512_cvtepi32_ps
#define _mm512_cvtepi32_ps emulated_cvtepi32_ps

OUT_OF_LINE __m512 emulated_cvtph_ps (__m256i v)
{
    lanes r;
    r.f8[0] = _mm256_cvtph_ps (_mm256_castsi256_si128 (v));
    r.f8[1] = _mm256_cvtph_ps (_mm256_extracti128_si256 (v, 1));
    return r.f;
}
#undef _mm512_cvtph_ps
#define _mm512_cvtph_ps emulated_cvtph_ps

OUT_OF_LINE __m512i emulated_cvtps_epi32 (__m512 v)
{
    lanes a = {.f = v}, r;
    for (int h = 0; h < 2; h++)
        r.i8[h] = _mm256_cvtps_epi32 (a.f8[h]);
    return r.i;
}
#undef _mm512_cvtps_epi32
#define _mm512_cvtps_epi32 emulated_cvtps_epi32

/* SIMDe's wants a number, which clang does not see in an inline function. */
OUT_OF_LINE __m512i emulated_srli_epi16 (__m512i v, unsigned n)
{
    const __m128i count = _mm_cvtsi32_si128 ((int) n);
    lanes a = {.i = v}, r;
    for (int h = 0; h < 2; h++)
        r.i8[h] = _mm256_srl_epi16 (a.i8[h], count);
    return r.i;
}
#undef _mm512_srli_epi16
#define _mm512_srli_epi16 emulated_srli_epi16

#define EMULATE_WIDENING(name)                           \
    OUT_OF_LINE __m512i emulated_##name (__m128i v)      \
    {                                                    \
        lanes r;                                         \
        r.i8[0] = _mm256_##name (v);                     \
        r.i8[1] = _mm256_##name (_mm_srli_si128 (v, 8)); \
        return r.i;                                      \
    }
EMULATE_WIDENING (cvtepu8_epi32)
EMULATE_WIDENING (cvtepi8_epi32)
#undef _mm512_cvtepu8_epi32
#define _mm512_cvtepu8_epi32 emulated_cvtepu8_epi32
#undef _mm512_cvtepi8_epi32
#define _mm512_cvtepi8_epi32 emulated_cvtepi8_epi32

OUT_OF_LINE __m128i emulated_cvtepi32_epi8 (__m512i v)
{
    lanes a = {.i = v};
    int8_t r[16];
    for (int i = 0; i < 16; i++)
        r[i] = (int8_t) (a.i32[i] & 255);
    return _mm_loadu_si128 ((const __m128i *) r);
}
#undef _mm512_cvtepi32_epi8
#define _mm512_cvtepi32_epi8 emulated_cvtepi32_epi8

OUT_OF_LINE __m512 emulated_fmadd (__m512 x, __m512 y, __m512 z)
{
    lanes a = {.f = x}, b = {.f = y}, c = {.f = z}, r;
    for (int h = 0; h < 2; h++)
        r.f8[h] = _mm256_fmadd_ps (a.f8[h], b.f8[h], c.f8[h]);
    return r.f;
}
#undef _mm512_fmadd_ps
#define _mm512_fmadd_ps emulated_fmadd

OUT_OF_LINE __m512 emulated_fnmadd (__m512 x, __m512 y, __m512 z)
{
    lanes a = {.f = x}, b = {.f = y}, c = {.f = z}, r;
    for (int h = 0; h < 2; h++)
        r.f8[h] = _mm256_fnmadd_ps (a.f8[h], b.f8[h], c.f8[h]);
    return r.f;
}
#undef _mm512_fnmadd_ps
#define _mm512_fnmadd_ps emulated_fnmadd

/* Touches no more than the lanes it is told, so that the sanitizer sees the rest. */
OUT_OF_LINE __m512 emulated_maskz_loadu (__mmask16 mask, const float *p)
{
    lanes r = {.f = _mm512_setzero_ps ()};
    for (int i = 0; i < 16; i++)
        if (mask >> i & 1)
            r.f32[i] = p[i];
    return r.f;
}
#undef _mm512_maskz_loadu_ps
#define _mm512_maskz_loadu_ps emulated_maskz_loadu

OUT_OF_LINE void emulated_mask_storeu (float *p, __mmask16 mask, __m512 v)
{
    lanes a = {.f = v};
    for (int i = 0; i < 16; i++)
        if (mask >> i & 1)
            p[i] = a.f32[i];
}
#undef _mm512_mask_storeu_ps
#define _mm512_mask_storeu_ps emulated_mask_storeu

#endif
