/* The NEON table for CPUs with i8mm: Apple M2, Neoverse V1 and N2, Cortex-A710 and later. */
#if defined(__aarch64__)

#include "neon_table.h"

const wl_kernels wl_kernels_neon_i8mm = NEON_TABLE ("i8mm");

#endif
