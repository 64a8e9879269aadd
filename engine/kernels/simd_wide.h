/* Vectors as wide as a register: `fw`, of WIDE floats, for the kernels of simd8_*.h in which a lane is an element and the
 * width cannot change a result. AVX-512's table defines WIDE as 16 before it includes them; else they are those of
 * simd8.h. */
#ifndef WL_ENGINE_KERNELS_SIMD_WIDE_H
#define WL_ENGINE_KERNELS_SIMD_WIDE_H

#include "simd8.h"

#if defined(WIDE)

typedef __m512 fw;

INLINE fw loadw (const float *p)
{
    return _mm512_loadu_ps (p);
}
INLINE void storew (float *p, fw v)
{
    _mm512_storeu_ps (p, v);
}
INLINE fw loadw_f16 (const void *p)
{
    return _mm512_cvtph_ps (_mm256_loadu_si256 ((const __m256i *) p));
}
INLINE fw loadw_i8 (const int8_t *p)
{
    return _mm512_cvtepi32_ps (_mm512_cvtepi8_epi32 (_mm_loadu_si128 ((const __m128i *) p)));
}
INLINE fw setw (float x)
{
    return _mm512_set1_ps (x);
}
INLINE fw splatw (const float *p)
{
    return _mm512_set1_ps (*p);
}
INLINE fw zerow (void)
{
    return _mm512_setzero_ps ();
}
INLINE fw addw (fw a, fw b)
{
    return _mm512_add_ps (a, b);
}
INLINE fw subw (fw a, fw b)
{
    return _mm512_sub_ps (a, b);
}
INLINE fw mulw (fw a, fw b)
{
    return _mm512_mul_ps (a, b);
}
INLINE fw divw (fw a, fw b)
{
    return _mm512_div_ps (a, b);
}
INLINE fw fmaw (fw a, fw b, fw c)
{
    return _mm512_fmadd_ps (a, b, c);
}
INLINE fw negatew (fw a)
{
    return _mm512_castsi512_ps (_mm512_xor_si512 (_mm512_castps_si512 (a), _mm512_set1_epi32 (INT32_MIN)));
}
INLINE __mmask16 greaterw (fw a, fw b)
{
    return _mm512_cmp_ps_mask (a, b, _CMP_GT_OQ);
}
INLINE __mmask16 is_nanw (fw a)
{
    return _mm512_cmp_ps_mask (a, a, _CMP_UNORD_Q);
}
INLINE fw selectw (__mmask16 mask, fw a, fw b)
{
    return _mm512_mask_blend_ps (mask, b, a);
}
INLINE fw power_of_twow (fw x)
{
    __m512i bits = _mm512_slli_epi32 (_mm512_castps_si512 (x), 23);
    return _mm512_castsi512_ps (_mm512_add_epi32 (bits, _mm512_set1_epi32 (0x3f800000)));
}

DEFINE_VECTOR_FUNCTIONS (fw, w)

#else

#define WIDE 8
typedef f8 fw;
#define loadw load8
#define storew store8
#define loadw_f16 load8_f16
#define loadw_i8 load8_i8
#define setw set8
#define splatw splat8
#define zerow zero8
#define addw add8
#define mulw mul8
#define divw div8
#define fmaw fma8
#define negatew negate8
#define expw exp8
#define tanhw tanh8

#endif

#endif
