/* What activations become between stages: the rounding is that of the formulas in hop.h, written here once more in plain arithmetic, and a row's bytes depend on it alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/kernels/math.h"
#include "proto/hop.h"

enum { MOST = 300 };

typedef struct row {
    size_t width;
    float values[MOST], back[MOST];
    uint8_t bytes[MOST * 4 + 64];
} row;

static uint32_t state_of_chance = 1;

static uint32_t chance (void)
{
    state_of_chance = state_of_chance * 1664525u + 1013904223u;
    return state_of_chance >> 8;
}

/* Activations look like this: most near 0, a few large. */
static float activation (void)
{
    double uniform = (chance () % 20001 - 10000.0) / 10000;
    return (float) (uniform * uniform * uniform * (chance () % 50 == 0 ? 300 : 4));
}

static void there_and_back (row *r, wl_hop hop)
{
    size_t bytes = wl_hop_row_bytes (hop, r->width);
    memset (r->bytes, 0xa5, sizeof r->bytes);
    wl_hop_encode (hop, r->values, 1, r->width, r->bytes);
    for (size_t i = bytes; i < sizeof r->bytes; i++)
        assert_int_equal (r->bytes[i], 0xa5);
    wl_hop_decode (hop, r->bytes, 1, r->width, r->back);
}

static void names_are_read_and_others_refused (void **state)
{
    (void) state;
    wl_error err = {0};
    wl_hop hop;
    for (wl_hop h = 0; h < WL_N_HOPS; h++)
        assert_true (wl_hop_parse (wl_hop_name (h), &hop, &err) && hop == h);
    assert_false (wl_hop_parse ("q4", &hop, &err));
    assert_int_equal (err.code, WL_ERROR_USAGE);
    assert_non_null (strstr (err.text, "f32, f16 or q8"));
}

static void rows_have_the_bytes_that_the_header_says (void **state)
{
    (void) state;
    assert_int_equal (wl_hop_row_bytes (WL_HOP_F32, 1536), 1536 * 4);
    assert_int_equal (wl_hop_row_bytes (WL_HOP_F16, 1536), 4 + 1536 * 2);
    assert_int_equal (wl_hop_row_bytes (WL_HOP_Q8, 1536), 1536 + 1536 / 32 * 4);
    assert_int_equal (wl_hop_row_bytes (WL_HOP_Q8, 33), 33 + 2 * 4);
    assert_int_equal (wl_hop_row_bytes (WL_HOP_Q8, 1), 1 + 4);
}

static void f32_passes_unchanged (void **state)
{
    (void) state;
    row r = {.width = MOST};
    for (size_t i = 0; i < r.width; i++)
        r.values[i] = activation ();
    there_and_back (&r, WL_HOP_F32);
    assert_memory_equal (r.values, r.back, r.width * sizeof (float));
}

static void every_f16_value_passes_f16_unchanged (void **state)
{
    (void) state;
    row r;
    for (uint32_t first = 0; first < 0x10000; first += 256) {
        r.width = 256;
        for (uint32_t i = 0; i < 256; i++) {
            r.values[i] = wl_f16_to_f32 ((uint16_t) (first + i));
            if (!(fabsf (r.values[i]) < 32768)) /* a row with larger ones is scaled */
                r.values[i] = 0;
        }
        there_and_back (&r, WL_HOP_F16);
        assert_memory_equal (r.values, r.back, r.width * sizeof (float));
    }
}

/* Against the engine's own conversion, a scalar one. */
static void f16_rounds_half_to_even (void **state)
{
    (void) state;
    row r;
    for (int round = 0; round < 3000; round++) {
        r.width = 1 + chance () % MOST;
        for (size_t i = 0; i < r.width; i++) { /* of all magnitudes, halves among them */
            uint16_t code = (uint16_t) (chance () % 0x7800);
            float low = wl_f16_to_f32 (code), high = wl_f16_to_f32 ((uint16_t) (code + 1));
            float between =
                chance () % 3 ? low + (high - low) / 2 : low + (high - low) * (float) (chance () % 1000) / 1000;
            r.values[i] = chance () % 2 ? -between : between;
            r.values[i] = fabsf (r.values[i]) < 32768 ? r.values[i] : 1;
        }
        there_and_back (&r, WL_HOP_F16);
        for (size_t i = 0; i < r.width; i++)
            assert_true (r.back[i] == wl_f16_to_f32 (wl_f32_to_f16 (r.values[i])));
    }
}

static void huge_values_keep_f16s_precision (void **state)
{
    (void) state;
    row r;
    for (int exponent = 14; exponent < 128; exponent++) {
        r.width = 40;
        for (size_t i = 0; i < r.width; i++)
            r.values[i] = ldexpf (1 + (float) (chance () % 1000) / 1001, exponent - (int) (i % 4)) * (i % 2 ? -1 : 1);
        there_and_back (&r, WL_HOP_F16);
        for (size_t i = 0; i < r.width; i++)
            assert_true (fabsf (r.back[i] - r.values[i]) <= fabsf (r.values[i]) * 0.000489f); /* 2^-11 */
    }
}

static void q8_rounds_each_block_by_its_largest_value (void **state)
{
    (void) state;
    row r;
    for (int round = 0; round < 3000; round++) {
        r.width = 1 + chance () % MOST;
        for (size_t i = 0; i < r.width; i++)
            r.values[i] = activation ();
        there_and_back (&r, WL_HOP_Q8);
        for (size_t block = 0; block < r.width; block += 32) {
            size_t end = block + 32 < r.width ? block + 32 : r.width;
            float most = 0;
            for (size_t i = block; i < end; i++)
                most = fabsf (r.values[i]) > most ? fabsf (r.values[i]) : most;
            float scale = most / 127, inverse = scale > 0 ? 1 / scale : 0;
            for (size_t i = block; i < end; i++) {
                float product = r.values[i] * inverse;
                assert_true (r.back[i] == rintf (product) * scale);
                assert_true (fabsf (r.back[i] - r.values[i]) <= scale * 0.5001f);
            }
        }
    }
}

static void halves_go_to_the_even_number_in_q8 (void **state)
{
    (void) state;
    row r = {.width = 8, .values = {127, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f, -127}};
    static const float expected[8] = {127, 0, 2, 2, 0, -2, -2, -127};
    there_and_back (&r, WL_HOP_Q8);
    for (size_t i = 0; i < 8; i++)
        assert_true (r.back[i] == expected[i]);
}

static void a_block_too_small_to_scale_is_zeros (void **state)
{
    (void) state;
    row r = {.width = 64};
    for (size_t i = 0; i < 32; i++) {
        r.values[i] = FLT_TRUE_MIN * (float) i;
        r.values[32 + i] = FLT_MIN * 127 * (float) (1 + i);
    }
    there_and_back (&r, WL_HOP_Q8);
    for (size_t i = 0; i < 32; i++) {
        assert_true (r.back[i] == 0);
        assert_true (r.back[32 + i] > 0 && isfinite (r.back[32 + i]));
    }
}

static void what_is_not_finite_stays_so_and_hurts_no_other_block (void **state)
{
    (void) state;
    static const float strange[] = {INFINITY, -INFINITY, NAN};
    for (size_t kind = 0; kind < 3; kind++) {
        row r = {.width = 96};
        for (size_t i = 0; i < r.width; i++)
            r.values[i] = (float) i;
        r.values[40] = strange[kind];
        there_and_back (&r, WL_HOP_Q8);
        assert_false (isfinite (r.back[40]));
        for (size_t i = 0; i < 32; i++)
            assert_true (fabsf (r.back[i] - r.values[i]) < 0.2f && fabsf (r.back[64 + i] - r.values[64 + i]) < 0.5f);
        there_and_back (&r, WL_HOP_F16);
        assert_true (kind == 2 ? isnan (r.back[40]) : r.back[40] == strange[kind]);
        for (size_t i = 0; i < r.width; i++)
            assert_true (i == 40 || r.back[i] == (float) i);
    }
}

static void a_row_is_the_same_bytes_whatever_is_around_it (void **state)
{
    (void) state;
    enum { ROWS = 7, WIDTH = 75 };
    float rows[ROWS * WIDTH];
    uint8_t together[ROWS * WIDTH * 4], alone[WIDTH * 4];
    for (size_t i = 0; i < ROWS * WIDTH; i++)
        rows[i] = activation () * (i / WIDTH == 3 ? 1e6f : 1);
    for (wl_hop hop = 0; hop < WL_N_HOPS; hop++) {
        size_t bytes = wl_hop_row_bytes (hop, WIDTH);
        wl_hop_encode (hop, rows, ROWS, WIDTH, together);
        for (size_t i = 0; i < ROWS; i++) {
            wl_hop_encode (hop, rows + i * WIDTH, 1, WIDTH, alone);
            assert_memory_equal (alone, together + i * bytes, bytes);
        }
    }
}

/* Under the sanitized builds this proves that no bytes of a peer do harm. */
static void any_bytes_can_be_decoded (void **state)
{
    (void) state;
    row r;
    for (int round = 0; round < 2000; round++) {
        r.width = 1 + chance () % MOST;
        for (size_t i = 0; i < sizeof r.bytes; i++)
            r.bytes[i] = (uint8_t) (chance () % 3 ? chance () : 0xff);
        for (wl_hop hop = 0; hop < WL_N_HOPS; hop++)
            wl_hop_decode (hop, r.bytes, 1, r.width, r.back);
    }
}

int main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (names_are_read_and_others_refused),
        cmocka_unit_test (rows_have_the_bytes_that_the_header_says),
        cmocka_unit_test (f32_passes_unchanged),
        cmocka_unit_test (every_f16_value_passes_f16_unchanged),
        cmocka_unit_test (f16_rounds_half_to_even),
        cmocka_unit_test (huge_values_keep_f16s_precision),
        cmocka_unit_test (q8_rounds_each_block_by_its_largest_value),
        cmocka_unit_test (halves_go_to_the_even_number_in_q8),
        cmocka_unit_test (a_block_too_small_to_scale_is_zeros),
        cmocka_unit_test (what_is_not_finite_stays_so_and_hurts_no_other_block),
        cmocka_unit_test (a_row_is_the_same_bytes_whatever_is_around_it),
        cmocka_unit_test (any_bytes_can_be_decoded),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
