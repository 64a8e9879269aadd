/* kernels: proves every kernel table equal to the scalar one, bit for bit; with --bench, times them.
 *
 *   kernels [--quick] [--isa NAME]           the comparison; ends with PASS or FAIL
 *   kernels --bench [--type NAME]            multiply-adds a clock and GB/s of each type and table
 *   kernels --multiply ROUNDS COLUMNS --isa NAME --type NAME   the same product ROUNDS times, for who counts instructions */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include "amx_emulated.h"
#include "engine/kernels/peak.h"
#include "engine/kernels/tables.h"
#endif
#include "kernels_test.h"

uint32_t random_u32 (test_state *t)
{
    t->seed = t->seed * 6364136223846793005u + 1442695040888963407u;
    uint32_t x = (uint32_t) (t->seed >> 32);
    x ^= x >> 15;
    return x * 0x9e3779b1u ^ (uint32_t) (t->seed >> 40);
}

size_t random_below (test_state *t, size_t n)
{
    return (size_t) (((uint64_t) random_u32 (t) * n) >> 32);
}

float random_unit (test_state *t)
{
    return (float) (int32_t) random_u32 (t) * 0x1p-31f;
}

float random_normal (test_state *t)
{
    float sum = random_unit (t) + random_unit (t) + random_unit (t);
    return (random_u32 (t) & 63) == 0 ? 8 * sum : sum;
}

void random_bytes (test_state *t, void *out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ((uint8_t *) out)[i] = (uint8_t) (random_u32 (t) >> 11);
}

void fill_normal (test_state *t, float *out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = random_normal (t);
}

void *test_alloc (size_t bytes)
{
    void *memory = NULL;
    if (posix_memalign (&memory, 64, bytes + 64) != 0) {
        fprintf (stderr, "kernels: out of memory: %zu bytes\n", bytes);
        exit (5);
    }
    memset (memory, 0, bytes + 64);
    return memory;
}

void test_free (void *memory)
{
    free (memory);
}

bool check (test_state *t, bool ok, const char *format, ...)
{
    t->n_checks++;
    if (ok)
        return true;
    if (t->n_failures++ < 40) {
        va_list args;
        va_start (args, format);
        fprintf (stderr, "FAILED %s %s: ", t->isa, t->what);
        vfprintf (stderr, format, args);
        fputc ('\n', stderr);
        va_end (args);
    }
    return false;
}

bool check_floats (test_state *t, const float *got, const float *expected, size_t n, const char *where)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t a, b;
        memcpy (&a, &got[i], 4);
        memcpy (&b, &expected[i], 4);
        if (a != b && !(got[i] != got[i] && expected[i] != expected[i]))
            return check (t, false, "%s: element %zu is %.9g (%08x), scalar has %.9g (%08x)", where, i, (double) got[i],
                          a, (double) expected[i], b);
    }
    return check (t, true, "%s", where);
}

bool check_bytes (test_state *t, const void *got, const void *expected, size_t n, const char *where)
{
    const uint8_t *a = got, *b = expected;
    for (size_t i = 0; i < n; i++)
        if (a[i] != b[i])
            return check (t, false, "%s: byte %zu is %u, scalar has %u", where, i, a[i], b[i]);
    return check (t, true, "%s", where);
}

/* -- Tables for other CPUs ----------------------------------------------------------------------------------------- */

enum { MAX_TABLES = 16, MAX_EMULATED = 3 };
static const char refused[] = "amx (instructions emulated)";

#if defined(__x86_64__)

#if defined(WOOLLY_AVX512_EMULATED)
extern const wl_kernels wl_kernels_avx512_emulated, wl_kernels_amx_emulated;
#endif

static bool has (const char *isa)
{
    wl_error err = {0};
    return wl_kernels_find (isa, &err) != NULL;
}

static void add_table (wl_kernels out[MAX_EMULATED], size_t *n, const wl_kernels *table, const char *name)
{
    out[*n] = *table;
    out[*n].isa = name;
    ++*n;
}

/* What this CPU runs with help; the rest is named. */
static size_t emulated_tables (wl_kernels out[MAX_EMULATED])
{
    size_t n = 0;
#if defined(WOOLLY_AVX512_EMULATED)
    if (has ("avx2")) {
        add_table (out, &n, &wl_kernels_avx512_emulated, "avx512vnni (emulated)");
        add_table (out, &n, &wl_kernels_amx_emulated, "amx (emulated)");
    }
#else
    printf ("avx512vnni (emulated), amx (emulated): skipped, this build found no SIMDe (libsimde-dev)\n");
#endif
    if (!has ("amx")) {
        if (has ("avx512vnni") && emulate_refused_instructions ())
            add_table (out, &n, &wl_kernels_amx, refused);
        else
            printf ("%s: skipped, this needs Linux and a CPU with AVX-512\n", refused);
    }
    return n;
}

static bool left_no_state (void)
{
    return emulated_is_released ();
}

#else

static size_t emulated_tables (wl_kernels out[MAX_EMULATED])
{
    (void) out;
    return 0;
}

static bool left_no_state (void)
{
    return true;
}

#endif

/* -------------------------------------------------------------------------------------------------------------------*/

int main (int argc, char **argv)
{
    test_state t = {.seed = 20240607, .isa = "scalar", .what = ""};
    bool benchmark = false;
    size_t rounds = 0, columns = 0;
    const char *only_isa = NULL, *only_type = NULL;
    for (int i = 1; i < argc; i++) {
        if (strcmp (argv[i], "--quick") == 0)
            t.quick = true;
        else if (strcmp (argv[i], "--bench") == 0)
            benchmark = true;
        else if (strcmp (argv[i], "--multiply") == 0 && i + 2 < argc) {
            rounds = strtoul (argv[++i], NULL, 10);
            columns = strtoul (argv[++i], NULL, 10);
        } else if (strcmp (argv[i], "--isa") == 0 && i + 1 < argc)
            only_isa = argv[++i];
        else if (strcmp (argv[i], "--type") == 0 && i + 1 < argc)
            only_type = argv[++i];
        else {
            fprintf (stderr, "usage: kernels [--quick] [--isa NAME] | --bench [--isa NAME] [--type NAME] |\n"
                             "       --multiply ROUNDS COLUMNS --isa NAME --type NAME\n");
            return 2;
        }
    }
    if (benchmark) {
        t.isa = only_isa;
        bench (&t, only_type);
        return 0;
    }
    if (rounds) {
        t.isa = only_isa;
        return multiply_rounds (&t, only_type, rounds, columns) ? 0 : 2;
    }
    test_math (&t);
    test_formats (&t);
    const wl_kernels *tables[MAX_TABLES + MAX_EMULATED];
    wl_kernels emulated[MAX_EMULATED];
    size_t n = wl_kernels_all (tables, MAX_TABLES), n_emulated = emulated_tables (emulated);
    for (size_t i = 0; i < n_emulated; i++)
        tables[n++] = &emulated[i];
    for (size_t i = 1; i < n; i++) {
        if (only_isa && strcmp (only_isa, tables[i]->isa) != 0)
            continue;
        const size_t before = t.n_checks;
        const bool quick = t.quick;
        t.isa = tables[i]->isa;
        t.quick = quick || strcmp (t.isa, refused) == 0; /* a signal for each instruction takes long */
        test_quantize (&t, tables[i]);
        test_elementwise (&t, tables[i]);
        test_attention (&t, tables[i]);
        test_matmul (&t, tables[i]);
#if defined(__x86_64__)
        if (strcmp (t.isa, refused) == 0)
            check (&t, wl_peak_run ("amx", 3) == 3 * wl_peak_run ("amx", 1), "the peak's rounds are not counted");
#endif
        check (&t, left_no_state (), "the tile registers are not released");
        printf ("%s: %zu checks against scalar\n", tables[i]->isa, t.n_checks - before);
        t.quick = quick;
    }
    const char *skipped[MAX_TABLES];
    size_t n_skipped = wl_kernels_skipped (skipped, MAX_TABLES);
    for (size_t i = 0; i < n_skipped; i++)
        printf ("%s: skipped, this CPU lacks it\n", skipped[i]);
    printf ("%s: %zu checks, %zu failures\n", t.n_failures ? "FAIL" : "PASS", t.n_checks, t.n_failures);
    return t.n_failures ? 1 : 0;
}
