/* Norms, activations, rotations and f16 storing against scalar, at every length around a vector's. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "engine/kernels/math.h"
#include "kernels_test.h"

enum { MAX_LENGTH = 4096 };

static const float specials[] = {0.0f,       -0.0f,    INFINITY, -INFINITY, NAN,    1.0f,    -1.0f,
                                 88.37f,     88.38f,   -87.33f,  -87.34f,   1e30f,  -1e30f,  0x1p-149f,
                                 -0x1p-140f, 65504.0f, 65520.0f, -65519.9f, 6e-8f,  2.9e-8f, 100.0f,
                                 -100.0f,    44.2f,    -43.7f,   -88.37f,   87.33f, 44.185f, -43.665f};

typedef struct buffers {
    float *x, *y, *w, *b, *got, *expected;
    uint16_t *half_got, *half_expected;
} buffers;

static void fill (test_state *t, float *x, size_t n, bool special)
{
    float size = ldexpf (1.0f, (int) random_below (t, 12) - 4);
    for (size_t i = 0; i < n; i++)
        x[i] = special && (random_u32 (t) & 3) == 0 ? specials[random_below (t, sizeof specials / sizeof specials[0])]
                                                    : size * random_normal (t);
}

/* q8_0 of x: the same bytes as scalar's; and scalar's are as near as its scale allows. */
static void compare_q8_0 (test_state *t, const wl_kernels *k, buffers *s, size_t n, const char *where)
{
    int8_t *got = (int8_t *) s->got, *expected = (int8_t *) s->expected;
    t->what = "to_q8_0";
    memset (got, 0x55, n + 8);
    memset (expected, 0x55, n + 8);
    memset (s->half_got, 0x55, (n + 8) * 2);
    memset (s->half_expected, 0x55, (n + 8) * 2);
    wl_kernels_scalar.to_q8_0 (expected, s->half_expected, s->x, n);
    k->to_q8_0 (got, s->half_got, s->x, n);
    check_bytes (t, got, expected, n + 8, where);
    check_bytes (t, s->half_got, s->half_expected, (n + 8) * 2, where);
    bool near = true;
    for (size_t i = 0; i < n; i++) {
        float scale = wl_f16_to_f32 (s->half_expected[i / WL_KV_SCALED]), error = s->x[i] - scale * expected[i];
        /* a scale near f16's least is rounded by up to half of that; beyond f16's range x is clamped */
        if (fabsf (s->x[i]) <= 127 * 65504.0f && scale < 65504.0f)
            near = near && fabsf (error) <= 0.5625f * scale + 127 * 0x1p-25f;
        else
            near = near && (isnan (scale) || isnan (s->x[i]) || scale == 65504.0f);
    }
    check (t, near, "%s: scalar is off by more than half a scale", where);
}

static void compare_length (test_state *t, const wl_kernels *k, buffers *s, size_t n, bool special)
{
    const wl_kernels *scalar = &wl_kernels_scalar;
    char where[64];
    fill (t, s->x, n, special);
    fill (t, s->y, n, special);
    fill (t, s->w, n, false);
    fill (t, s->b, n, false);
    snprintf (where, sizeof where, "n %zu%s", n, special ? ", special values" : "");
#define COMPARE(name, ...)                                   \
    do {                                                     \
        t->what = name;                                      \
        for (int i = 0; i < 2; i++) {                        \
            const wl_kernels *table = i ? k : scalar;        \
            float *out = i ? s->got : s->expected;           \
            memcpy (out, s->x, (n + 8) * sizeof (float));    \
            __VA_ARGS__;                                     \
        }                                                    \
        check_floats (t, s->got, s->expected, n + 8, where); \
    } while (0)

    COMPARE ("silu_mul", table->silu_mul (out, s->x, s->y, n));
    COMPARE ("silu_mul in place", table->silu_mul (out, out, s->y, n));
    COMPARE ("gelu_mul", table->gelu_mul (out, s->x, s->y, n));
    COMPARE ("gelu_mul onto up", table->gelu_mul (out, s->y, out, n));
    COMPARE ("add_scaled", table->add_scaled (out, s->y, 0.22f, n));
    COMPARE ("rope_adjacent", table->rope_adjacent (out, s->w, s->b, n / 2));
    COMPARE ("rope_halves", table->rope_halves (out, s->w, s->b, n / 2));
    if (n) {
        COMPARE ("rms_norm", table->rms_norm (out, s->x, s->w, n, 1e-5f));
        COMPARE ("rms_norm in place, no weight", table->rms_norm (out, out, NULL, n, 1e-6f));
        COMPARE ("layer_norm", table->layer_norm (out, s->x, s->w, s->b, n, 1e-5f));
        COMPARE ("layer_norm in place, no bias", table->layer_norm (out, out, s->w, NULL, n, 1e-5f));
    }
    t->what = "to_f16";
    memset (s->half_got, 0x55, (n + 8) * 2);
    memset (s->half_expected, 0x55, (n + 8) * 2);
    scalar->to_f16 (s->half_expected, s->x, n);
    k->to_f16 (s->half_got, s->x, n);
    check_bytes (t, s->half_got, s->half_expected, (n + 8) * 2, where);
    if (n % WL_KV_SCALED == 0)
        compare_q8_0 (t, k, s, n, where);
}

/* The exponential inside silu and gelu, at very many points. */
static void sweep (test_state *t, const wl_kernels *k, buffers *s)
{
    for (size_t i = 0; i < MAX_LENGTH; i++)
        s->y[i] = 1.0f;
    for (int round = 0; round < (t->quick ? 60 : 600); round++) {
        float range = round % 3 == 0 ? 100.0f : round % 3 == 1 ? 10.0f : 0.5f;
        for (size_t i = 0; i < MAX_LENGTH; i++)
            s->x[i] = range * random_unit (t);
        t->what = "silu_mul sweep";
        wl_kernels_scalar.silu_mul (s->expected, s->x, s->y, MAX_LENGTH);
        k->silu_mul (s->got, s->x, s->y, MAX_LENGTH);
        check_floats (t, s->got, s->expected, MAX_LENGTH, "random points");
        t->what = "gelu_mul sweep";
        wl_kernels_scalar.gelu_mul (s->expected, s->x, s->y, MAX_LENGTH);
        k->gelu_mul (s->got, s->x, s->y, MAX_LENGTH);
        check_floats (t, s->got, s->expected, MAX_LENGTH, "random points");
    }
}

void test_elementwise (test_state *t, const wl_kernels *kernels)
{
    buffers s;
    float **members[] = {&s.x, &s.y, &s.w, &s.b, &s.got, &s.expected};
    for (size_t i = 0; i < 6; i++)
        *members[i] = test_alloc ((MAX_LENGTH + 8) * sizeof (float));
    s.half_got = test_alloc ((MAX_LENGTH + 8) * 2);
    s.half_expected = test_alloc ((MAX_LENGTH + 8) * 2);
    for (int special = 0; special < 2; special++) {
        for (size_t n = 0; n <= 70; n++)
            compare_length (t, kernels, &s, n, special);
        for (size_t n = 576; n <= MAX_LENGTH; n += t->quick ? 1760 : 176)
            compare_length (t, kernels, &s, n, special);
    }
    sweep (t, kernels, &s);
    for (size_t i = 0; i < 6; i++)
        test_free (*members[i]);
    test_free (s.half_got);
    test_free (s.half_expected);
}
