/* The most multiply-adds that a core can do: the instruction itself, over and over on registers, without the loads, additions and scales around it. What real
 * kernels reach is measured against this. */
#ifndef WL_ENGINE_KERNELS_PEAK_H
#define WL_ENGINE_KERNELS_PEAK_H

#include <stdint.h>

/* Runs about `rounds` rounds on this thread and returns how many int8 multiply-adds they were. `isa` is the name of a kernel table that this CPU runs. */
uint64_t wl_peak_run (const char *isa, uint64_t rounds);
/* The instruction that is run for it. */
const char *wl_peak_instruction (const char *isa);

#endif
