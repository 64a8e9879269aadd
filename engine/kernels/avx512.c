/* The tables for CPUs with AVX-512 and VNNI (Zen 4, Ice Lake and later), and with AMX (Sapphire Rapids and later). */
#if defined(__x86_64__)

#include "avx512_table.h"

#endif
