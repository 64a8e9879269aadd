/* The kernel test program: what its files share.
 *
 * Every entry of every table that this CPU runs is compared with the scalar table bit for bit. */
#ifndef WL_TESTS_KERNELS_TEST_H
#define WL_TESTS_KERNELS_TEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/kernels/kernels.h"

typedef struct test_state {
    bool quick;
    uint64_t seed;
    size_t n_checks, n_failures;
    const char *isa, *what; /* what is being compared, for the message of a failure */
} test_state;

/* Random numbers, the same in every run. */
uint32_t random_u32 (test_state *t);
float random_unit (test_state *t);   /* in [-1, 1) */
float random_normal (test_state *t); /* roughly normal, with a heavy tail */
void random_bytes (test_state *t, void *out, size_t n);
size_t random_below (test_state *t, size_t n);
void fill_normal (test_state *t, float *out, size_t n);

/* Memory for a test; ends the program when there is none. */
void *test_alloc (size_t bytes);
void test_free (void *memory);

/* Counts a check; prints the first few failures. Returns `ok`. */
bool check (test_state *t, bool ok, const char *format, ...) __attribute__ ((format (printf, 3, 4)));
/* Equal bits, or both NaN. */
bool check_floats (test_state *t, const float *got, const float *expected, size_t n, const char *where);
bool check_bytes (test_state *t, const void *got, const void *expected, size_t n, const char *where);

/* All types with a format. */
extern const uint32_t all_types[];
extern const size_t n_all_types;

/* A random row of `n` elements as a file would hold it; 0 ordinary, 1 with extreme bytes, 2 with any f16 factors (inf,
 * NaN). */
enum { ROWS_ORDINARY, ROWS_EXTREME, ROWS_ANY };
void random_row (test_state *t, uint32_t type, void *row, size_t n, int kind);

/* Where a block's f16 factors stand (returns how many), and putting one there. MXFP4's is an exponent. */
size_t factor_offsets (uint32_t type, size_t offsets[2]);
void set_factor (uint32_t type, uint8_t *at, uint16_t half);

/* Activations of n_rows rows, quantized by `kernels`, with strides larger than need be. */
typedef struct test_activations {
    wl_activations a;
    float *x; /* [n_rows][n], what they were made from */
} test_activations;
void make_activations (test_state *t, test_activations *out, const wl_kernels *kernels, wl_activation_kind kind,
                       size_t n_rows, size_t n, bool extreme);
void free_activations (test_activations *a);

void test_formats (test_state *t);
void test_math (test_state *t);
void test_matmul (test_state *t, const wl_kernels *kernels);
void test_quantize (test_state *t, const wl_kernels *kernels);
void test_elementwise (test_state *t, const wl_kernels *kernels);
void test_attention (test_state *t, const wl_kernels *kernels);
void bench (test_state *t, const char *only_type);
/* The same product `rounds` times; prints the multiply-adds of each. False when there is no such table or type. */
bool multiply_rounds (test_state *t, const char *type_name, size_t rounds, size_t n_columns);

#endif
