/* Constants of the f32 functions of math.c, shared with the SIMD forms of them in each ISA's file. */
#ifndef WL_ENGINE_KERNELS_MATH_CONSTANTS_H
#define WL_ENGINE_KERNELS_MATH_CONSTANTS_H

#define EXP_OVERFLOW 88.37f     /* above: +inf */
#define EXP_UNDERFLOW (-87.33f) /* below: 0; so 2^n is always a normal number */
#define EXP_LOG2E 0x1.715476p+0f
#define EXP_ROUND 0x1.8p+23f /* x + this rounds x half to even to an integer, held in the low mantissa bits */
#define EXP_LN2_HIGH 0x1.62e4p-1f
#define EXP_LN2_LOW 0x1.7f7d1cp-20f
#define EXP_C2 0.5f /* (e^r - 1 - r) / r^2 = C2 + C3 r + … on |r| <= ln 2 / 2, error 7e-8 */
#define EXP_C3 0x1.5554dcp-3f
#define EXP_C4 0x1.555518p-5f
#define EXP_C5 0x1.120be2p-7f
#define EXP_C6 0x1.6d117cp-10f

#define GELU_SCALE 0.79788456f /* sqrt (2 / pi) */
#define GELU_CUBIC 0.044715f

#endif
