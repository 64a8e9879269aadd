/* Which kernel tables this CPU runs, and which of them to take.
 *
 * One row per instruction set, the slowest first; the best is the last one whose CPU check passes. */
#include "kernels.h"

#include <stdio.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

#include "tables.h"

typedef struct isa_row {
    const wl_kernels *table;
    bool (*runs_here) (void);
} isa_row;

static bool always (void)
{
    return true;
}

#if defined(__x86_64__)
static bool has_avx2 (void)
{
    unsigned a, b, c, d; /* f16c by hand: older clangs do not know its name */
    return __builtin_cpu_supports ("avx2") && __builtin_cpu_supports ("fma") && __get_cpuid (1, &a, &b, &c, &d) &&
           (c & bit_F16C);
}

static bool has_avx512vnni (void) /* each is true only where the system keeps the 512-bit registers */
{
    return has_avx2 () && __builtin_cpu_supports ("avx512f") && __builtin_cpu_supports ("avx512bw") &&
           __builtin_cpu_supports ("avx512dq") && __builtin_cpu_supports ("avx512vl") &&
           __builtin_cpu_supports ("avx512vnni");
}

/* Tile registers are state that Linux keeps for a process only when asked; other systems have no known way. */
static bool has_amx (void)
{
    bool allowed = false;
#if defined(__linux__)
    enum { AMX_TILE = 1 << 24, AMX_INT8 = 1 << 25 };                 /* of CPUID 7 edx */
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };            /* of arch_prctl: ARCH_REQ_XCOMP_PERM */
    const unsigned tile_state = 3 << 17, both = AMX_TILE | AMX_INT8; /* of XCR0: the configuration and the data */
    unsigned a, b, c, d, xcr0, upper;
    if (!has_avx512vnni () || !__get_cpuid_count (7, 0, &a, &b, &c, &d) || (d & both) != both)
        return false;
    __asm__ volatile("xgetbv" : "=a"(xcr0), "=d"(upper) : "c"(0));
    allowed = (xcr0 & tile_state) == tile_state && syscall (SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
#endif
    return allowed;
}
#elif defined(__aarch64__) && defined(__APPLE__)
static bool system_says (const char *name)
{
    int value = 0;
    size_t size = sizeof value;
    return sysctlbyname (name, &value, &size, NULL, 0) == 0 && value != 0;
}

static bool has_dotprod (void)
{
    return system_says ("hw.optional.arm.FEAT_DotProd");
}

static bool has_i8mm (void)
{
    return has_dotprod () && system_says ("hw.optional.arm.FEAT_I8MM");
}
#elif defined(__aarch64__) && defined(__linux__)
static bool has_dotprod (void)
{
    return getauxval (AT_HWCAP) & 1ul << 20; /* HWCAP_ASIMDDP: by number, since older headers lack the names */
}

static bool has_i8mm (void)
{
    return has_dotprod () && (getauxval (AT_HWCAP2) & 1ul << 13); /* HWCAP2_I8MM */
}
#elif defined(__aarch64__)
static bool has_dotprod (void)
{
    return false; /* no way to ask is known here */
}

static bool has_i8mm (void)
{
    return false;
}
#endif

static const isa_row isa_rows[] = {
    {&wl_kernels_scalar, always},
#if defined(__x86_64__)
    {&wl_kernels_avx2, has_avx2},
    {&wl_kernels_avx512vnni, has_avx512vnni},
    {&wl_kernels_amx, has_amx},
#elif defined(__aarch64__)
    {&wl_kernels_neon, has_dotprod},
    {&wl_kernels_neon_i8mm, has_i8mm},
#endif
};
enum { N_ISA_ROWS = sizeof isa_rows / sizeof isa_rows[0] };

const wl_kernels *wl_kernels_find (const char *name, wl_error *err)
{
    bool automatic = !name || strcmp (name, "auto") == 0;
    char names[128] = "";
    size_t used = 0;
    for (size_t i = N_ISA_ROWS; i-- > 0;) {
        const isa_row *row = &isa_rows[i];
        if (!row->runs_here ())
            continue;
        if (automatic || strcmp (name, row->table->isa) == 0)
            return row->table;
        int length = snprintf (names + used, sizeof names - used, "%s%s", used ? ", " : "", row->table->isa);
        if (length > 0 && used + (size_t) length < sizeof names)
            used += (size_t) length;
    }
    wl_fail (err, WL_ERROR_USAGE, "--isa %s: this CPU or this build lacks it; there is: auto, %s", name, names);
    return NULL;
}

size_t wl_kernels_all (const wl_kernels **out, size_t limit)
{
    size_t n = 0;
    for (size_t i = 0; i < N_ISA_ROWS && n < limit; i++)
        if (isa_rows[i].runs_here ())
            out[n++] = isa_rows[i].table;
    return n;
}

size_t wl_kernels_skipped (const char **out, size_t limit)
{
    size_t n = 0;
    for (size_t i = 0; i < N_ISA_ROWS && n < limit; i++)
        if (!isa_rows[i].runs_here ())
            out[n++] = isa_rows[i].table->isa;
    return n;
}

size_t wl_attention_scratch (size_t n_rows, size_t head_dim)
{
    (void) n_rows; /* tables work through a few rows at a time */
    size_t width = (head_dim + 15) / 16 * 16;
    return 8 * (WL_ATTENTION_BLOCK + width) + 64;
}
