/* The tables of the instruction sets that this build has; private to engine/kernels. */
#ifndef WL_ENGINE_KERNELS_TABLES_H
#define WL_ENGINE_KERNELS_TABLES_H

#include "kernels.h"

#if defined(__x86_64__)
extern const wl_kernels wl_kernels_avx2;
extern const wl_kernels wl_kernels_avx512vnni;
extern const wl_kernels wl_kernels_amx;
#elif defined(__aarch64__)
extern const wl_kernels wl_kernels_neon;
extern const wl_kernels wl_kernels_neon_i8mm;
#endif

#endif
