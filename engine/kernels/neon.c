/* The NEON table for ARMv8.2 with dotprod: Apple M1, Neoverse N1, Cortex-A76 and later. */
#if defined(__aarch64__)

#include "neon_table.h"

#if USES_I8MM
/* The compiler was told that i8mm is there; the kernels of neon_matmul.h would then use it, and this table run where
 * they cannot. */
#error "compile neon.c without i8mm: -march=armv8.2-a+dotprod"
#endif

const wl_kernels wl_kernels_neon = NEON_TABLE ("neon");

#endif
