/* What this machine offers to computing: cores and a clock. Thread: any. */
#ifndef WL_ENGINE_MACHINE_H
#define WL_ENGINE_MACHINE_H

#include <stdint.h>

/* Cores this process may use, at least 1: those of its affinity mask, and no more than its control group's CPU quota. */
uint32_t wl_machine_cores (void);

/* The monotonic clock: the same moment in nanoseconds and in seconds, from some start. */
uint64_t wl_now_ns (void);
double wl_now_s (void);

/* Tells the system that the calling thread computes for long at a time, so that one which wakes to pass a message on goes first where both want the same core (Linux 6.12 and later, by
 * a long time slice; nothing elsewhere). */
void wl_machine_compute_thread (void);

#endif
