/* The AVX-512 and AMX tables compiled a second time, in terms of AVX2 and C: see avx512_emulated.h, amx_emulated.h. */
#if defined(WOOLLY_AVX512_EMULATED)

#include "avx512_emulated.h"
#include "amx_emulated.h"

#define wl_kernels_avx512vnni wl_kernels_avx512_emulated
#define wl_kernels_amx wl_kernels_amx_emulated
#include "engine/kernels/avx512_table.h"

#endif
