/* What this machine offers to computing; see machine.h. */
#include "machine.h"

#include <errno.h>
#include <stdio.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#ifdef __linux__
#include <sched.h>
#include <sys/syscall.h>

static uint32_t affinity_cores (void)
{
    cpu_set_t set;
    if (sched_getaffinity (0, sizeof set, &set) != 0)
        return 0; /* more cores than the set has bits for: the caller asks otherwise */
    return (uint32_t) CPU_COUNT (&set);
}

/* A container's quota in whole cores, rounded up; 0 without one. */
static uint32_t quota_cores (void)
{
    FILE *file = fopen ("/sys/fs/cgroup/cpu.max", "r");
    unsigned long quota = 0, period = 0;
    if (!file)
        return 0;
    if (fscanf (file, "%lu %lu", &quota, &period) != 2) /* "max 100000" is no quota */
        quota = 0;
    fclose (file);
    return quota && period ? (uint32_t) ((quota + period - 1) / period) : 0;
}

void wl_machine_compute_thread (void)
{
    struct { /* sched_setattr's argument in its first version: the C library need not have it */
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t slice_ns, deadline_ns, period_ns;
    } long_slice = {.size = sizeof long_slice, .policy = SCHED_OTHER, .slice_ns = 100000000}; /* the longest there is */
    errno = 0;
    long_slice.nice = getpriority (PRIO_PROCESS, 0);
    if (errno == 0)
        syscall (SYS_sched_setattr, 0, &long_slice, 0); /* refused, it costs time only */
}
#else
static uint32_t affinity_cores (void)
{
    return 0;
}

static uint32_t quota_cores (void)
{
    return 0;
}

void wl_machine_compute_thread (void)
{
}
#endif

uint32_t wl_machine_cores (void)
{
    uint32_t cores = affinity_cores (), quota = quota_cores ();
    if (cores == 0) {
        long online = sysconf (_SC_NPROCESSORS_ONLN);
        cores = online > 0 ? (uint32_t) online : 1;
    }
    return quota && quota < cores ? quota : cores;
}

uint64_t wl_now_ns (void)
{
    struct timespec t;
    clock_gettime (CLOCK_MONOTONIC, &t);
    return (uint64_t) t.tv_sec * 1000000000u + (uint64_t) t.tv_nsec;
}

double wl_now_s (void)
{
    return (double) wl_now_ns () * 1e-9;
}
