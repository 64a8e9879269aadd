/* The GGUF reader: what sound files say is found, and unsound ones are refused with a sentence. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/gguf.h"
#include "engine/memory.h"
#include "tests/unit/gguf_builder.h"

static const uint64_t dims_256x2[] = {256, 2}, dims_64[] = {64};

/* A file with a value of every kind and three tensors. */
static gguf_builder rich_builder (void)
{
    gguf_builder g = new_builder ();
    int8_t i8 = -8;
    int16_t i16 = -16;
    int32_t i32 = -32, numbers[] = {-1, 2, -3};
    int64_t i64 = -64;
    uint64_t u64 = UINT64_MAX;
    float f32 = 0.5f, floats[] = {0.25f, -0.5f};
    double f64 = 1e-3;
    uint8_t bools[] = {1, 0, 1};
    const char *texts[] = {"alpha", "", "gamma"};
    add_text (&g, "general.architecture", "llama");
    add_value (&g, "u8", 0, "\xff", 1);
    add_value (&g, "i8", 1, &i8, sizeof i8);
    add_u16 (&g, "u16", 65535);
    add_value (&g, "i16", 3, &i16, sizeof i16);
    add_u32 (&g, "u32", 4000000000u);
    add_value (&g, "i32", 5, &i32, sizeof i32);
    add_value (&g, "f32", 6, &f32, sizeof f32);
    add_bool (&g, "yes", 1);
    add_bool (&g, "no", 0);
    add_value (&g, "u64", 10, &u64, sizeof u64);
    add_value (&g, "i64", 11, &i64, sizeof i64);
    add_value (&g, "f64", 12, &f64, sizeof f64);
    add_array (&g, "numbers", 5, 3, numbers, sizeof numbers);
    add_array (&g, "floats", 6, 2, floats, sizeof floats);
    add_array (&g, "bools", 7, 3, bools, sizeof bools);
    add_texts (&g, "texts", texts, 3);
    add_array (&g, "nothing", 8, 0, NULL, 0);
    add_tensor (&g, "blk.0.ffn_up.weight", WL_TYPE_Q4_K, 2, dims_256x2, 0);
    add_tensor (&g, "output_norm.weight", WL_TYPE_F32, 1, dims_64, 288);
    add_tensor (&g, "half", WL_TYPE_F16, 1, dims_64, 544);
    g.data_bytes = 544 + 128;
    return g;
}

static wl_gguf *open_built (gguf_builder *g, uint8_t **file)
{
    size_t length;
    wl_error err = {0};
    *file = build (g, &length);
    wl_gguf *gguf = wl_gguf_open_memory (*file, length, "built.gguf", &err);
    if (!gguf)
        fail_msg ("%s", err.text);
    return gguf;
}

static void assert_text (wl_text text, const char *expected)
{
    assert_int_equal (text.length, strlen (expected));
    assert_memory_equal (text.data, expected, text.length);
}

/* -- Sound files ------------------------------------------------------------------------------------------------------------ */

static void values_of_every_kind_are_read (void **state)
{
    (void) state;
    for (uint32_t version = 2; version <= 3; version++) {
        gguf_builder g = rich_builder ();
        uint8_t *file;
        g.version = version;
        wl_gguf *gguf = open_built (&g, &file);
        uint32_t u = 0;
        uint64_t w = 0;
        int64_t i = 0;
        float f = 0;
        double d = 0;
        bool b = false;
        wl_text t;
        assert_int_equal (wl_gguf_version (gguf), version);
        assert_string_equal (wl_gguf_path (gguf), "built.gguf");
        assert_true (wl_gguf_text (gguf, "general.architecture", &t));
        assert_text (t, "llama");
        assert_true (wl_gguf_u32 (gguf, "u8", &u) && u == 255);
        assert_true (wl_gguf_u32 (gguf, "u16", &u) && u == 65535);
        assert_true (wl_gguf_u32 (gguf, "u32", &u) && u == 4000000000u);
        assert_true (wl_gguf_u64 (gguf, "u64", &w) && w == UINT64_MAX);
        assert_true (wl_gguf_i64 (gguf, "i8", &i) && i == -8);
        assert_true (wl_gguf_i64 (gguf, "i16", &i) && i == -16);
        assert_true (wl_gguf_i64 (gguf, "i32", &i) && i == -32);
        assert_true (wl_gguf_i64 (gguf, "i64", &i) && i == -64);
        assert_true (wl_gguf_f32 (gguf, "f32", &f) && f == 0.5f);
        assert_true (wl_gguf_f32 (gguf, "f64", &f) && f == 1e-3f);
        assert_true (wl_gguf_f64 (gguf, "f64", &d) && d == 1e-3);
        assert_true (wl_gguf_f32 (gguf, "i32", &f) && f == -32);
        assert_true (wl_gguf_bool (gguf, "yes", &b) && b);
        assert_true (wl_gguf_bool (gguf, "no", &b) && !b);
        wl_gguf_free (&gguf);
        assert_null (gguf);
        free (file);
    }
}

static void values_that_do_not_fit_leave_the_default (void **state)
{
    (void) state;
    gguf_builder g = rich_builder ();
    uint8_t *file;
    wl_gguf *gguf = open_built (&g, &file);
    uint32_t u = 7;
    uint64_t w = 7;
    int64_t i = 7;
    float f = 7;
    bool b = true;
    wl_text t = {"seven", 5};
    wl_value_type element;
    size_t length = 7;
    assert_false (wl_gguf_u32 (gguf, "absent", &u) || wl_gguf_u32 (gguf, "i8", &u) || wl_gguf_u32 (gguf, "u64", &u));
    assert_false (wl_gguf_u32 (gguf, "yes", &u) || wl_gguf_u32 (gguf, "f32", &u) || wl_gguf_u32 (gguf, "numbers", &u));
    assert_false (wl_gguf_u64 (gguf, "i64", &w) || wl_gguf_i64 (gguf, "u64", &i) ||
                  wl_gguf_i64 (gguf, "general.architecture", &i));
    assert_false (wl_gguf_f32 (gguf, "yes", &f) || wl_gguf_f32 (gguf, "texts", &f) || wl_gguf_bool (gguf, "u8", &b));
    assert_false (wl_gguf_text (gguf, "u8", &t) || wl_gguf_text (gguf, "texts", &t));
    assert_false (wl_gguf_array (gguf, "u8", &element, &length));
    assert_true (u == 7 && w == 7 && i == 7 && f == 7 && b && t.length == 5 && length == 7);
    wl_gguf_free (&gguf);
    free (file);
}

static void arrays_are_read_by_index (void **state)
{
    (void) state;
    gguf_builder g = rich_builder ();
    uint8_t *file;
    wl_gguf *gguf = open_built (&g, &file);
    wl_value_type element;
    size_t length;
    wl_text t;
    int64_t i;
    float f;
    assert_true (wl_gguf_array (gguf, "texts", &element, &length) && element == WL_VALUE_STRING && length == 3);
    assert_true (wl_gguf_array_text (gguf, "texts", 2, &t));
    assert_text (t, "gamma");
    assert_true (wl_gguf_array_text (gguf, "texts", 1, &t) && t.length == 0);
    assert_false (wl_gguf_array_text (gguf, "texts", 3, &t) || wl_gguf_array_text (gguf, "numbers", 0, &t));
    assert_true (wl_gguf_array_i64 (gguf, "numbers", 2, &i) && i == -3);
    assert_true (wl_gguf_array_i64 (gguf, "bools", 2, &i) && i == 1);
    assert_true (wl_gguf_array_f32 (gguf, "numbers", 0, &f) && f == -1);
    assert_true (wl_gguf_array_f32 (gguf, "floats", 1, &f) && f == -0.5f);
    assert_false (wl_gguf_array_i64 (gguf, "numbers", 3, &i) || wl_gguf_array_i64 (gguf, "texts", 0, &i) ||
                  wl_gguf_array_i64 (gguf, "floats", 0, &i));
    assert_true (wl_gguf_array (gguf, "nothing", &element, &length) && length == 0);
    assert_false (wl_gguf_array_text (gguf, "nothing", 0, &t));
    assert_int_equal (wl_gguf_n_pairs (gguf), 18);
    assert_text (wl_gguf_pair_at (gguf, 16).key, "texts");
    assert_int_equal (wl_gguf_pair_at (gguf, 16).length, 3);
    wl_gguf_free (&gguf);
    free (file);
}

static void tensors_are_described_and_lie_where_the_file_says (void **state)
{
    (void) state;
    gguf_builder g = rich_builder ();
    uint8_t *file;
    wl_gguf *gguf = open_built (&g, &file);
    assert_int_equal (wl_gguf_n_tensors (gguf), 3);
    const wl_tensor *t = wl_gguf_find_tensor (gguf, "output_norm.weight");
    assert_non_null (t);
    assert_ptr_equal (t, wl_gguf_tensor (gguf, 1));
    assert_true (t->n_dims == 1 && t->dims[0] == 64 && t->dims[1] == 1 && t->dims[3] == 1 && t->bytes == 256);
    assert_true (t->offset % 32 == 0 && (const uint8_t *) t->data == file + t->offset &&
                 *(const uint8_t *) t->data == 288 % 256);
    assert_int_equal (wl_gguf_tensor (gguf, 0)->bytes, 288);
    assert_int_equal (wl_gguf_header (gguf).length + 288, t->offset);
    assert_null (wl_gguf_find_tensor (gguf, "output_norm"));
    assert_null (wl_gguf_tensor (gguf, 3));
    wl_gguf_drop_pages (gguf); /* memory that is not mapped stays as it is */
    assert_int_equal (*(const uint8_t *) t->data, 288 % 256);
    wl_gguf_free (&gguf);
    free (file);
}

static void ten_thousand_tensors_are_found_by_name (void **state)
{
    (void) state;
    gguf_builder g = new_builder ();
    uint8_t *file;
    char name[32];
    for (unsigned i = 0; i < 10000; i++) {
        snprintf (name, sizeof name, "blk.%u.weight", i);
        add_tensor (&g, name, WL_TYPE_F32, 1, dims_64, 256 * (uint64_t) i);
    }
    g.data_bytes = 256 * 10000;
    wl_gguf *gguf = open_built (&g, &file);
    for (unsigned i = 0; i < 10000; i++) {
        snprintf (name, sizeof name, "blk.%u.weight", i);
        assert_ptr_equal (wl_gguf_find_tensor (gguf, name), wl_gguf_tensor (gguf, i));
    }
    assert_null (wl_gguf_find_tensor (gguf, "blk.10000.weight"));
    wl_gguf_free (&gguf);
    free (file);
}

static void a_header_alone_describes_its_tensors (void **state)
{
    (void) state;
    gguf_builder g = rich_builder ();
    uint8_t *file;
    wl_error err = {0};
    wl_gguf *whole = open_built (&g, &file);
    wl_text header = wl_gguf_header (whole);
    assert_null (wl_gguf_open_memory (header.data, header.length, "header", &err));
    wl_gguf *gguf = wl_gguf_open_header (header.data, header.length, "header", NULL);
    assert_non_null (gguf);
    const wl_tensor *t = wl_gguf_find_tensor (gguf, "half");
    assert_true (t && !t->data && t->bytes == 128 && t->offset == wl_gguf_find_tensor (whole, "half")->offset);
    wl_gguf_free (&gguf);
    wl_gguf_free (&whole);
    free (file);
}

static void a_vocabulary_without_tensors_opens (void **state)
{
    (void) state;
    gguf_builder g = new_builder ();
    uint8_t *file;
    const char *texts[] = {"a", "b"};
    add_texts (&g, "tokenizer.ggml.tokens", texts, 2);
    wl_gguf *gguf = open_built (&g, &file);
    assert_int_equal (wl_gguf_n_tensors (gguf), 0);
    wl_gguf_free (&gguf);
    free (file);
}

static void alignment_is_what_the_file_says (void **state)
{
    (void) state;
    gguf_builder g = new_builder ();
    uint8_t *file;
    add_u32 (&g, "general.alignment", 128);
    add_tensor (&g, "t", WL_TYPE_F32, 1, dims_64, 128);
    g.alignment = 128;
    g.data_bytes = 128 + 256;
    wl_gguf *gguf = open_built (&g, &file);
    assert_int_equal (wl_gguf_tensor (gguf, 0)->offset % 128, 0);
    assert_int_equal (*(const uint8_t *) wl_gguf_tensor (gguf, 0)->data, 128);
    wl_gguf_free (&gguf);
    free (file);
}

/* -- Unsound files ---------------------------------------------------------------------------------------------------------- */

/* Opens bytes in a block of their own, so that a read past them is seen; expects WL_ERROR_INPUT with `reason` in its text. */
static void assert_refused (const void *data, size_t length, const char *reason)
{
    wl_error err = {0};
    uint8_t *copy = malloc (length ? length : 1);
    assert_non_null (copy);
    memcpy (copy, data, length);
    wl_gguf *gguf = wl_gguf_open_memory (copy, length, "bad.gguf", &err);
    free (copy);
    assert_null (gguf);
    if (err.code != WL_ERROR_INPUT || !strstr (err.text, reason) || strncmp (err.text, "bad.gguf: ", 10) != 0)
        fail_msg ("code %d, \"%s\" instead of \"%s\"", err.code, err.text, reason);
}

static void assert_build_refused (gguf_builder *g, const char *reason)
{
    size_t length;
    uint8_t *file = build (g, &length);
    assert_refused (file, length, reason);
    free (file);
}

static void what_is_no_gguf_file_is_said_to_be_none (void **state)
{
    (void) state;
    const char *story = "Once upon a time there was no model in this file at all.";
    assert_refused ("", 0, "empty");
    assert_refused ("GGU", 3, "not a GGUF file");
    assert_refused (story, strlen (story), "not a GGUF file");
    assert_refused ("version https://git-lfs.github.com/spec/v1\n", 43, "Git LFS");
    assert_refused ("<!DOCTYPE html><html>", 21, "web page");
    assert_refused ("lmgg\1\0\0\0", 8, "older than GGUF");
    assert_refused ("GGUF\0\0\0\3", 8, "big-endian");
    assert_refused ("GGUF\1\0\0\0", 8, "version 1");
    assert_refused ("GGUF\4\0\0\0", 8, "version 4");
    assert_refused ("GGUF\3\0\0", 7, "ends past the file");
}

static void counts_beyond_the_file_are_refused (void **state)
{
    (void) state;
    uint64_t counts[] = {UINT64_MAX, UINT64_MAX / 8, (uint64_t) 1 << 40, 100};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        gguf_builder g = rich_builder ();
        g.n_tensors = counts[i];
        assert_build_refused (&g, counts[i] == 100 ? "incomplete or damaged" : "tensors, more than");
        g = rich_builder ();
        g.n_pairs = counts[i];
        assert_build_refused (&g, counts[i] == 100 ? "damaged" : "metadata pairs, more than");
        if (counts[i] == 100)
            continue;
        g = new_builder ();
        put_u64 (add_key (&g, "text", 8), counts[i]);
        assert_build_refused (&g, "ends past the file");
        for (uint32_t type = 0; type <= 12; type++) {
            if (type == 9)
                continue;
            g = new_builder ();
            add_array (&g, "array", type, counts[i], "abc", 3);
            assert_build_refused (&g, "ends past the file");
        }
    }
}

static void unsound_metadata_is_refused (void **state)
{
    (void) state;
    gguf_builder g = new_builder ();
    add_value (&g, "key", 13, "abcdefgh", 8);
    assert_build_refused (&g, "unknown type 13");
    g = new_builder ();
    add_array (&g, "key", 13, 1, "abcdefgh", 8);
    assert_build_refused (&g, "array of unknown type 13");
    g = new_builder ();
    add_array (&g, "key", 9, 1, "abcdefgh", 8);
    assert_build_refused (&g, "array of arrays");
    g = new_builder ();
    add_bool (&g, "key", 7);
    assert_build_refused (&g, "bool of value 7");
    g = new_builder ();
    add_u32 (&g, "key", 1);
    add_text (&g, "key", "again");
    assert_build_refused (&g, "\"key\" stands in the file twice");
    g = new_builder ();
    add_u32 (&g, "", 1);
    assert_build_refused (&g, "name of 0 bytes");
    g = new_builder ();
    put_text (&g.pairs, "a\0b", 3);
    put_u32 (&g.pairs, 4);
    put_u32 (&g.pairs, 4);
    g.n_pairs++;
    assert_build_refused (&g, "NUL");
    const uint32_t alignments[] = {0, 1, 4, 24, 33, 1u << 25, UINT32_MAX};
    for (size_t i = 0; i < sizeof alignments / sizeof alignments[0]; i++) {
        g = new_builder ();
        add_u32 (&g, "general.alignment", alignments[i]);
        assert_build_refused (&g, "general.alignment");
    }
    g = new_builder ();
    add_text (&g, "general.alignment", "32");
    assert_build_refused (&g, "general.alignment");
}

/* A file whose only tensor is the given one, with 4096 bytes of data. */
static void assert_tensor_refused (const char *name, uint32_t type, uint32_t n_dims, const uint64_t *dims,
                                   uint64_t offset, const char *reason)
{
    gguf_builder g = new_builder ();
    add_tensor (&g, name, type, n_dims, dims, offset);
    g.data_bytes = 4096;
    assert_build_refused (&g, reason);
}

static void unsound_tensors_are_refused (void **state)
{
    (void) state;
    const uint64_t zero[] = {0}, zero_rows[] = {64, 0}, huge[] = {(uint64_t) 1 << 62},
                   product[] = {(uint64_t) 1 << 33, (uint64_t) 1 << 33};
    const uint64_t five[] = {1, 1, 1, 1, 1}, odd[] = {100}, large[] = {2048}, wraps[] = {(uint64_t) 1 << 63, 2};
    char long_name[300];
    memset (long_name, 'n', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = 0;
    assert_tensor_refused ("t", WL_TYPE_F32, 0, NULL, 0, "0 dimensions");
    assert_tensor_refused ("t", WL_TYPE_F32, 5, five, 0, "5 dimensions");
    assert_tensor_refused ("t", WL_TYPE_F32, 1, zero, 0, "dimension of 0");
    assert_tensor_refused ("t", WL_TYPE_F32, 2, zero_rows, 0, "dimension of 0");
    assert_tensor_refused ("t", WL_TYPE_F32, 1, huge, 0, "ends past the file");
    assert_tensor_refused ("t", WL_TYPE_F32, 2, product, 0, "more elements");
    assert_tensor_refused ("t", WL_TYPE_F32, 2, wraps, 0, "more elements");
    assert_tensor_refused ("t", WL_TYPE_Q4_0, 1, odd, 0, "rows of 100 elements");
    assert_tensor_refused ("t", WL_TYPE_F32, 1, dims_64, 16, "not aligned");
    assert_tensor_refused ("t", WL_TYPE_F32, 1, large, 0, "needs 8,192 bytes");
    assert_tensor_refused ("t", WL_TYPE_F32, 1, dims_64, 3872, "the download is incomplete");
    assert_tensor_refused ("t", WL_TYPE_F32, 1, dims_64, UINT64_MAX - 31, "ends past the file");
    assert_tensor_refused ("t", 4, 1, dims_64, 0, "type 4");
    assert_tensor_refused ("t", UINT32_MAX, 1, dims_64, 0, "does not know");
    assert_tensor_refused ("", WL_TYPE_F32, 1, dims_64, 0, "name of 0 bytes");
    assert_tensor_refused (long_name, WL_TYPE_F32, 1, dims_64, 0, "name of 299 bytes");
    gguf_builder g = new_builder ();
    add_tensor (&g, "twin", WL_TYPE_F32, 1, dims_64, 0);
    add_tensor (&g, "twin", WL_TYPE_F32, 1, dims_64, 256);
    g.data_bytes = 512;
    assert_build_refused (&g, "twin stands in the model twice");
}

static void a_file_cut_at_any_byte_is_refused (void **state)
{
    (void) state;
    gguf_builder g = rich_builder ();
    size_t length;
    uint8_t *file = build (&g, &length);
    for (size_t cut = 0; cut < length; cut++)
        assert_refused (file, cut, cut == 0 ? "empty" : cut < 4 ? "not a GGUF file" : "the");
    free (file);
}

static void damaged_bytes_never_reach_past_the_file (void **state)
{
    (void) state;
    gguf_builder g = rich_builder ();
    size_t length;
    uint8_t *file = build (&g, &length);
    unsigned opened = 0;
    srand (5);
    for (unsigned round = 0; round < 20000; round++) {
        uint8_t *damaged = malloc (length);
        wl_error err = {0};
        assert_non_null (damaged);
        memcpy (damaged, file, length);
        for (int n = rand () % 3 + 1; n > 0; n--)
            damaged[4 + (size_t) rand () % (length - 700)] = (uint8_t) (rand () % 4 ? rand () : 0xff * (rand () % 2));
        wl_gguf *gguf = wl_gguf_open_memory (damaged, length, "damaged", &err);
        assert_true (gguf ? err.code == WL_OK : err.code == WL_ERROR_INPUT);
        for (size_t i = 0; gguf && i < wl_gguf_n_tensors (gguf); i++) {
            const wl_tensor *t = wl_gguf_tensor (gguf, i);
            assert_true (t->bytes <= length && (const uint8_t *) t->data + t->bytes <= damaged + length);
        }
        opened += gguf != NULL;
        wl_gguf_free (&gguf);
        free (damaged);
    }
    assert_in_range (opened, 1000, 19000); /* else the damage was not what the test thinks */
    free (file);
}

static void failing_allocations_are_reported (void **state)
{
    (void) state;
    gguf_builder g = rich_builder ();
    size_t length;
    uint8_t *file = build (&g, &length);
    wl_gguf *gguf = NULL;
    unsigned n = 1;
    for (; !gguf && n < 100; n++) {
        wl_error err = {0};
        wl_memory_fail_after (n);
        gguf = wl_gguf_open_memory (file, length, "short of memory", &err);
        if (!gguf)
            assert_int_equal (err.code, WL_ERROR_INTERNAL);
    }
    wl_memory_fail_after (0);
    assert_in_range (n, 8, 40);
    wl_gguf_free (&gguf);
    free (file);
}

/* -- Files on disk ------------------------------------------------------------------------------------------------------------ */

typedef struct folder {
    char path[64];
} folder;

static int make_folder (void **state)
{
    static folder f; /* of this program's single thread */
    snprintf (f.path, sizeof f.path, "/tmp/woolly-gguf-XXXXXX");
    *state = &f;
    return mkdtemp (f.path) ? 0 : -1;
}

static int remove_folder (void **state)
{
    char command[128];
    snprintf (command, sizeof command, "rm -rf '%s'", ((folder *) *state)->path);
    return system (command);
}

static void write_built (const char *path, gguf_builder *g)
{
    size_t length;
    uint8_t *file = build (g, &length);
    FILE *out = fopen (path, "wb");
    assert_non_null (out);
    assert_int_equal (fwrite (file, 1, length, out), length);
    fclose (out);
    free (file);
}

static void assert_file_refused (const char *path, const char *reason)
{
    wl_error err = {0};
    assert_null (wl_gguf_open (path, &err));
    if (err.code != WL_ERROR_INPUT || !strstr (err.text, reason) || !strstr (err.text, path))
        fail_msg ("code %d, \"%s\" instead of \"%s\"", err.code, err.text, reason);
}

static void a_file_is_mapped_and_what_is_no_file_is_refused (void **state)
{
    const folder *f = *state;
    char path[128];
    snprintf (path, sizeof path, "%s/model.gguf", f->path);
    gguf_builder g = rich_builder ();
    write_built (path, &g);
    wl_gguf *gguf = wl_gguf_open (path, NULL);
    assert_non_null (gguf);
    const wl_tensor *t = wl_gguf_find_tensor (gguf, "half");
    wl_gguf_drop_pages (gguf);
    assert_int_equal (*(const uint8_t *) t->data, 544 % 256);
    assert_true (wl_gguf_file_bytes (gguf) == t->offset + t->bytes);
    wl_gguf_free (&gguf);
    assert_file_refused (f->path, "directory");
    snprintf (path, sizeof path, "%s/nowhere.gguf", f->path);
    assert_file_refused (path, "cannot be opened");
    snprintf (path, sizeof path, "%s/pipe.gguf", f->path);
    assert_int_equal (mkfifo (path, 0600), 0);
    assert_file_refused (path, "no regular file");
}

/* Part `number` of `count`, with one tensor; part 0 also holds metadata. */
static void write_part (const folder *f, unsigned number, unsigned count, unsigned said_number, const char *tensor)
{
    char path[128];
    gguf_builder g = new_builder ();
    if (number == 0)
        add_text (&g, "general.architecture", "llama");
    add_u16 (&g, "split.no", (uint16_t) said_number);
    add_u16 (&g, "split.count", (uint16_t) count);
    add_u32 (&g, "split.tensors.count", count);
    add_tensor (&g, tensor, WL_TYPE_F32, 1, dims_64, 32 * number);
    g.data_bytes = 256 + 32 * number;
    snprintf (path, sizeof path, "%s/big-%05u-of-%05u.gguf", f->path, number + 1, count);
    write_built (path, &g);
}

static void the_parts_of_a_split_model_are_joined (void **state)
{
    const folder *f = *state;
    char path[128];
    wl_text text;
    write_part (f, 0, 3, 0, "first");
    write_part (f, 1, 3, 1, "second");
    write_part (f, 2, 3, 2, "third");
    snprintf (path, sizeof path, "%s/big-00001-of-00003.gguf", f->path);
    wl_error err = {0};
    wl_gguf *gguf = wl_gguf_open (path, &err);
    if (!gguf)
        fail_msg ("%s", err.text);
    assert_int_equal (wl_gguf_n_tensors (gguf), 3);
    assert_true (wl_gguf_text (gguf, "general.architecture", &text));
    const wl_tensor *t = wl_gguf_find_tensor (gguf, "third");
    assert_true (t && t->part == 2 && *(const uint8_t *) t->data == 64);
    assert_int_equal (wl_gguf_find_tensor (gguf, "first")->part, 0);
    wl_gguf_free (&gguf);
}

static void an_unsound_split_model_is_refused (void **state)
{
    const folder *f = *state;
    char first[128], other[128];
    snprintf (first, sizeof first, "%s/big-00001-of-00003.gguf", f->path);
    snprintf (other, sizeof other, "%s/big-00002-of-00003.gguf", f->path);
    write_part (f, 0, 3, 0, "first");
    write_part (f, 2, 3, 2, "third");
    unlink (other);
    wl_error err = {0};
    assert_null (wl_gguf_open (first, &err));
    assert_non_null (strstr (err.text, "big-00002-of-00003.gguf: cannot be opened"));
    write_part (f, 1, 3, 2, "second");
    assert_file_refused (other, "give the first part");
    err = (wl_error){0};
    assert_null (wl_gguf_open (first, &err));
    assert_non_null (strstr (err.text, "is not part 2 of 3"));
    write_part (f, 1, 3, 1, "first");
    err = (wl_error){0};
    assert_null (wl_gguf_open (first, &err));
    assert_non_null (strstr (err.text, "first stands in the model twice"));
    snprintf (other, sizeof other, "%s/renamed.gguf", f->path);
    assert_int_equal (rename (first, other), 0);
    assert_file_refused (other, "-00001-of-00003.gguf");
}

static void shared_files_cut_at_random_places_are_refused (void **state)
{
    (void) state;
    const char *shared = getenv ("WOOLLY_SHARED");
    char path[512];
    snprintf (path, sizeof path, "%s/models/tiny/qwen2-tiny-Q4_K_M.gguf", shared ? shared : "");
    FILE *in = shared ? fopen (path, "rb") : NULL;
    if (!in) {
        print_message ("skipped: WOOLLY_SHARED names no folder with the tiny models\n");
        skip ();
    }
    fseek (in, 0, SEEK_END);
    size_t length = (size_t) ftell (in);
    uint8_t *file = malloc (length);
    assert_non_null (file);
    rewind (in);
    assert_int_equal (fread (file, 1, length, in), length);
    fclose (in);
    wl_gguf *gguf = wl_gguf_open_memory (file, length, path, NULL);
    assert_non_null (gguf);
    size_t header = wl_gguf_header (gguf).length;
    wl_gguf_free (&gguf);
    srand (6);
    for (int i = 0; i < 200; i++) {
        size_t cut = 4 + ((size_t) rand () << 15 ^ (size_t) rand ()) % (i % 2 ? length - 4 : header);
        assert_refused (file, cut, "the download is incomplete");
    }
    free (file);
}

int main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (values_of_every_kind_are_read),
        cmocka_unit_test (values_that_do_not_fit_leave_the_default),
        cmocka_unit_test (arrays_are_read_by_index),
        cmocka_unit_test (tensors_are_described_and_lie_where_the_file_says),
        cmocka_unit_test (ten_thousand_tensors_are_found_by_name),
        cmocka_unit_test (a_header_alone_describes_its_tensors),
        cmocka_unit_test (a_vocabulary_without_tensors_opens),
        cmocka_unit_test (alignment_is_what_the_file_says),
        cmocka_unit_test (what_is_no_gguf_file_is_said_to_be_none),
        cmocka_unit_test (counts_beyond_the_file_are_refused),
        cmocka_unit_test (unsound_metadata_is_refused),
        cmocka_unit_test (unsound_tensors_are_refused),
        cmocka_unit_test (a_file_cut_at_any_byte_is_refused),
        cmocka_unit_test (damaged_bytes_never_reach_past_the_file),
        cmocka_unit_test (failing_allocations_are_reported),
        cmocka_unit_test_setup_teardown (a_file_is_mapped_and_what_is_no_file_is_refused, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown (the_parts_of_a_split_model_are_joined, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown (an_unsound_split_model_is_refused, make_folder, remove_folder),
        cmocka_unit_test (shared_files_cut_at_random_places_are_refused),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
