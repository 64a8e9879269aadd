/* kernels: proves every kernel table equal to the scalar one, bit for bit; with --bench, times them.
 *
 *   kernels [--quick] [--isa NAME]           the comparison; ends with PASS or FAIL
 *   kernels --bench [--type NAME]            multiply-adds a clock and GB/s of each type and table */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

#if defined(WOOLLY_AVX512_EMULATED)
extern const wl_kernels wl_kernels_avx512_emulated;

static bool can_emulate (void) /* in terms of AVX2 */
{
    wl_error err = {0};
    return wl_kernels_find ("avx2", &err) != NULL;
}
#endif

int main (int argc, char **argv)
{
    test_state t = {.seed = 20240607, .isa = "scalar", .what = ""};
    bool benchmark = false;
    const char *only_isa = NULL, *only_type = NULL;
    for (int i = 1; i < argc; i++) {
        if (strcmp (argv[i], "--quick") == 0)
            t.quick = true;
        else if (strcmp (argv[i], "--bench") == 0)
            benchmark = true;
        else if (strcmp (argv[i], "--isa") == 0 && i + 1 < argc)
            only_isa = argv[++i];
        else if (strcmp (argv[i], "--type") == 0 && i + 1 < argc)
            only_type = argv[++i];
        else {
            fprintf (stderr, "usage: kernels [--quick] [--isa NAME] | --bench [--isa NAME] [--type NAME]\n");
            return 2;
        }
    }
    if (benchmark) {
        t.isa = only_isa;
        bench (&t, only_type);
        return 0;
    }
    test_math (&t);
    test_formats (&t);
    const wl_kernels *tables[17];
    size_t n = wl_kernels_all (tables, 16);
#if defined(WOOLLY_AVX512_EMULATED)
    wl_kernels emulated = wl_kernels_avx512_emulated;
    emulated.isa = "avx512vnni (emulated)";
    if (can_emulate ())
        tables[n++] = &emulated;
#endif
    for (size_t i = 1; i < n; i++) {
        if (only_isa && strcmp (only_isa, tables[i]->isa) != 0)
            continue;
        size_t before = t.n_checks;
        t.isa = tables[i]->isa;
        test_quantize (&t, tables[i]);
        test_elementwise (&t, tables[i]);
        test_attention (&t, tables[i]);
        test_matmul (&t, tables[i]);
        printf ("%s: %zu checks against scalar\n", tables[i]->isa, t.n_checks - before);
    }
    const char *skipped[16];
    size_t n_skipped = wl_kernels_skipped (skipped, 16);
    for (size_t i = 0; i < n_skipped; i++)
        printf ("%s: skipped, this CPU lacks it\n", skipped[i]);
#if defined(__x86_64__) && !defined(WOOLLY_AVX512_EMULATED)
    printf ("avx512vnni (emulated): skipped, this build found no SIMDe (libsimde-dev)\n");
#endif
    printf ("%s: %zu checks, %zu failures\n", t.n_failures ? "FAIL" : "PASS", t.n_checks, t.n_failures);
    return t.n_failures ? 1 : 0;
}
