/* The AVX-512 table compiled a second time, in terms of AVX2: see avx512_emulated.h. */
#if defined(WOOLLY_AVX512_EMULATED)

#include "avx512_emulated.h"

#define wl_kernels_avx512vnni wl_kernels_avx512_emulated
#include "engine/kernels/avx512_table.h"

#endif
