/* AMX for CPUs without it, as the Intel manual describes it (volume 2, ldtilecfg, tileloadd, tdpbssd, …). What the
 * manual answers with a fault ends the program with a sentence: a bad configuration, registers whose shapes do not fit
 * one another or that are the same, and any use before ldtilecfg or after tilerelease.
 *
 * Two tables are proved by it: the one compiled in terms of AVX2, whose AMX_ macros are these functions
 * (avx512_emulated.c); and on CPUs that have AVX-512 the program's own, whose instructions the CPU refuses and a signal
 * handler then does. The test has one thread. */
#ifndef WL_TESTS_AMX_EMULATED_H
#define WL_TESTS_AMX_EMULATED_H

#include <stdbool.h>
#include <stddef.h>

void emulated_configure (const void *config); /* 64 bytes */
void emulated_release (void);
void emulated_zero (unsigned tile);
void emulated_load (unsigned tile, const void *from, size_t stride);
void emulated_store (unsigned tile, void *to, size_t stride);
/* sum += a * b; the bytes of a are signed. */
void emulated_multiply (unsigned sum, unsigned a, unsigned b, bool b_signed);

/* True after tilerelease, or where nothing was configured yet: what a kernel must leave behind. */
bool emulated_is_released (void);

/* From now on AMX instructions of this program are emulated. False where this system or CPU has no way to. */
bool emulate_refused_instructions (void);

#define AMX_CONFIGURE(config) emulated_configure (config)
#define AMX_RELEASE() emulated_release ()
#define AMX_ZERO(t) emulated_zero (t)
#define AMX_LOAD(t, from, stride) emulated_load (t, from, stride)
#define AMX_STORE(t, to, stride) emulated_store (t, to, stride)
#define AMX_MULTIPLY_SIGNED(sum, columns, weights) emulated_multiply (sum, columns, weights, true)
#define AMX_MULTIPLY_UNSIGNED(sum, columns, weights) emulated_multiply (sum, columns, weights, false)

#endif
