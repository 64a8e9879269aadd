/* Packed weights kept on disk: what is found again is what packing makes, and nothing that is torn, stale or damaged is ever taken for it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/memory.h"
#include "engine/pack_cache.h"
#include "engine/weights.h"
#include "tests/unit/gguf_builder.h"

enum { HEADER_BYTES = 40, RECORD_BYTES = 32, N_TENSORS = 5, SLOT = 2 << 20 };

static char folder[64];
static uint8_t *file;
static wl_gguf *gguf;
static wl_thread_pool *pool;

/* Matrices of several types, one with rows that are no multiple of 8, one of three experts, one larger than a slot, and a vector. */
static int make_model (void **state)
{
    (void) state;
    wl_error err = {0};
    size_t length;
    gguf_builder g = new_builder ();
    add_tensor (&g, "a", WL_TYPE_Q4_K, 2, (const uint64_t[]){512, 19}, 0);
    uint64_t at = 19 * 2 * 144;
    add_tensor (&g, "b", WL_TYPE_Q6_K, 3, (const uint64_t[]){256, 16, 3}, at);
    at += 16 * 3 * 210;
    add_tensor (&g, "c", WL_TYPE_F32, 1, (const uint64_t[]){64}, at);
    at += 64 * 4;
    add_tensor (&g, "d", WL_TYPE_Q8_0, 2, (const uint64_t[]){2048, 2000}, at);
    at += 2000 * 64 * 34;
    add_tensor (&g, "e", WL_TYPE_F16, 2, (const uint64_t[]){40, 9}, at);
    g.data_bytes = at + 40 * 9 * 2;
    file = build (&g, &length);
    for (size_t i = 0; i < length; i++) /* the builder's bytes repeat; make blocks differ, behind the header */
        if (i > 512)
            file[i] = (uint8_t) (i * 2654435761u >> 13);
    gguf = wl_gguf_open_memory (file, length, "test.gguf", &err);
    pool = wl_thread_pool_new (2, &err);
    if (!gguf || !pool)
        fail_msg ("%s", err.text);
    snprintf (folder, sizeof folder, "/tmp/woolly-test-XXXXXX");
    return mkdtemp (folder) ? 0 : -1;
}

static int remove_model (void **state)
{
    (void) state;
    char command[256];
    wl_gguf_free (&gguf);
    wl_thread_pool_free (&pool);
    free (file);
    snprintf (command, sizeof command, "chmod -R u+w '%s' && rm -r '%s'", folder, folder);
    return system (command);
}

static wl_pack_cache *open_cache (void)
{
    wl_error err = {0};
    wl_pack_cache *cache = wl_pack_cache_open (gguf, "key", folder, 0, &err);
    if (!cache)
        fail_msg ("%s", err.text);
    return cache;
}

static const wl_tensor *tensor_of (const char *name)
{
    return wl_gguf_find_tensor (gguf, name);
}

/* Whether the tiles are what packing into memory gives. */
static void check_tiles (const uint8_t *tiles, const char *name)
{
    wl_error err = {0};
    const wl_tensor *t = tensor_of (name);
    uint64_t each = wl_matrix_bytes (t);
    assert_non_null (tiles);
    for (uint64_t i = 0; i < t->dims[2]; i++) {
        wl_matrix matrix;
        uint8_t *memory = wl_new_aligned ((size_t) each, 1, &err);
        wl_matrix_pack (&matrix, t, i, memory, gguf, pool);
        assert_memory_equal (tiles + i * each, memory, matrix.n_tiles * matrix.tile_bytes);
        wl_free_aligned (memory);
    }
}

/* Gets all matrices, checks them, and returns how many bytes were there before. */
static uint64_t load_all (void)
{
    wl_pack_cache *cache = open_cache ();
    static const char *const names[] = {"a", "b", "d", "e"};
    for (size_t i = 0; i < 4; i++)
        check_tiles (wl_pack_cache_tiles (cache, tensor_of (names[i]), pool), names[i]);
    assert_string_equal (wl_pack_cache_trouble (cache), "");
    uint64_t found = wl_pack_cache_found_bytes (cache);
    wl_pack_cache_settle (cache);
    wl_pack_cache_close (&cache);
    return found;
}

static uint64_t all_bytes (void)
{
    return wl_matrix_bytes (tensor_of ("a")) + 3 * wl_matrix_bytes (tensor_of ("b")) +
           wl_matrix_bytes (tensor_of ("d")) + wl_matrix_bytes (tensor_of ("e"));
}

/* The path of a file in the one entry that there is. */
static void entry_path (char path[512], const char *name)
{
    char kind[128];
    snprintf (kind, sizeof kind, "%s/packed", folder);
    DIR *listing = opendir (kind);
    struct dirent *found;
    assert_non_null (listing);
    path[0] = 0;
    while ((found = readdir (listing)))
        if (found->d_name[0] != '.')
            snprintf (path, 512, "%s/%.200s/%s", kind, found->d_name, name);
    closedir (listing);
    assert_true (path[0]);
}

static int open_entry_file (const char *name)
{
    char path[512];
    entry_path (path, name);
    int descriptor = open (path, O_RDWR);
    assert_true (descriptor >= 0);
    return descriptor;
}

static void flip_byte (const char *name, off_t at)
{
    int descriptor = open_entry_file (name);
    uint8_t byte;
    assert_int_equal (pread (descriptor, &byte, 1, at), 1);
    byte ^= 0x10;
    assert_int_equal (pwrite (descriptor, &byte, 1, at), 1);
    close (descriptor);
}

/* -- tests ---------------------------------------------------------------------------------------------------------------------------------- */

static void test_what_was_packed_is_found_by_the_next_start (void **state)
{
    (void) state;
    assert_int_equal (load_all (), 0);
    assert_int_equal (load_all (), all_bytes ());
}

static void test_every_split_fills_and_finds_the_same_places (void **state)
{
    (void) state;
    wl_pack_cache *first = open_cache (), *second = open_cache ();
    check_tiles (wl_pack_cache_tiles (first, tensor_of ("a"), pool), "a");
    check_tiles (wl_pack_cache_tiles (second, tensor_of ("d"), pool), "d");
    wl_pack_cache_close (&first);
    wl_pack_cache_close (&second);
    assert_int_equal (load_all (), wl_matrix_bytes (tensor_of ("a")) + wl_matrix_bytes (tensor_of ("d")));
}

static void test_what_is_no_matrix_of_the_file_is_left_to_the_caller (void **state)
{
    (void) state;
    wl_pack_cache *cache = open_cache ();
    wl_tensor stranger = *tensor_of ("a");
    assert_null (wl_pack_cache_tiles (cache, tensor_of ("c"), pool));
    assert_null (wl_pack_cache_tiles (cache, &stranger, pool));
    assert_string_equal (wl_pack_cache_trouble (cache), "");
    wl_pack_cache_close (&cache);
}

static void test_damage_anywhere_in_the_index_is_noticed (void **state)
{
    (void) state;
    load_all ();
    for (off_t at = 0; at < HEADER_BYTES + N_TENSORS * RECORD_BYTES; at++) {
        flip_byte ("index", at);
        if (at < HEADER_BYTES)
            assert_int_equal (load_all (), 0);
        else
            assert_in_range (load_all (), all_bytes () - wl_matrix_bytes (tensor_of ("d")), all_bytes ());
        assert_int_equal (load_all (), all_bytes ());
    }
}

static void test_an_index_cut_short_or_empty_is_made_anew (void **state)
{
    (void) state;
    for (off_t length = 0; length < HEADER_BYTES + N_TENSORS * RECORD_BYTES; length += 7) {
        load_all ();
        int descriptor = open_entry_file ("index");
        assert_int_equal (ftruncate (descriptor, length), 0);
        close (descriptor);
        assert_int_equal (load_all (), 0);
    }
}

static void test_tiles_cut_short_or_zeroed_are_packed_anew (void **state)
{
    (void) state;
    load_all ();
    int descriptor = open_entry_file ("tiles");
    assert_int_equal (ftruncate (descriptor, 2 * SLOT + 100000), 0); /* in the midst of d */
    assert_int_equal (load_all (),
                      all_bytes () - wl_matrix_bytes (tensor_of ("d")) - wl_matrix_bytes (tensor_of ("e")));
    assert_int_equal (ftruncate (descriptor, 0), 0);
    assert_int_equal (load_all (), 0);
    close (descriptor);
    flip_byte ("tiles", 100);
    assert_int_equal (load_all (), all_bytes () - wl_matrix_bytes (tensor_of ("a")));
}

/* As pack_cache.c has it. */
static uint64_t hash_bytes (uint64_t hash, const void *data, size_t n)
{
    const uint8_t *b = data;
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ b[i]) * UINT64_C (0x100000001b3);
    return hash;
}

static void test_tiles_of_a_boot_that_ended_before_they_were_on_the_disk_are_packed_anew (void **state)
{
    (void) state;
    load_all ();
    int descriptor = open_entry_file ("index");
    uint64_t record[4], number = 0;
    assert_int_equal (pread (descriptor, record, sizeof record, HEADER_BYTES), sizeof record);
    for (int kind = 0; kind < 2; kind++) {
        record[2] = kind ? 12345 : 0; /* an unknown boot, or on the disk */
        record[3] = hash_bytes (hash_bytes (UINT64_C (0xcbf29ce484222325), record, 24), &number, sizeof number);
        assert_int_equal (pwrite (descriptor, record, sizeof record, HEADER_BYTES), sizeof record);
        assert_int_equal (load_all (), all_bytes () - (kind ? wl_matrix_bytes (tensor_of ("a")) : 0));
    }
    record[2] = 0; /* said to be on the disk, under the checksum of another boot's record */
    assert_int_equal (pwrite (descriptor, record, sizeof record, HEADER_BYTES), sizeof record);
    assert_int_equal (load_all (), all_bytes () - wl_matrix_bytes (tensor_of ("a")));
    close (descriptor);
}

static void test_settling_marks_tiles_as_on_the_disk (void **state)
{
    (void) state;
    wl_pack_cache *cache = open_cache ();
    check_tiles (wl_pack_cache_tiles (cache, tensor_of ("a"), pool), "a");
    int descriptor = open_entry_file ("index");
    uint64_t record[4];
    assert_int_equal (pread (descriptor, record, sizeof record, HEADER_BYTES), sizeof record);
    assert_int_not_equal (record[2], 0);
    wl_pack_cache_settle (cache);
    for (int i = 0; i < 10000 && record[2]; i++) {
        usleep (1000);
        assert_int_equal (pread (descriptor, record, sizeof record, HEADER_BYTES), sizeof record);
    }
    assert_int_equal (record[2], 0);
    close (descriptor);
    wl_pack_cache_close (&cache);
}

static void test_a_worker_killed_while_packing_leaves_nothing_that_is_used_later (void **state)
{
    (void) state;
    for (int round = 0; round < 20; round++) {
        char path[512];
        pid_t child = fork ();
        if (child == 0) {
            wl_error err = {0};
            wl_thread_pool *own = wl_thread_pool_new (2, &err); /* threads do not survive a fork */
            wl_pack_cache *cache = own ? wl_pack_cache_open (gguf, "key", folder, 0, &err) : NULL;
            if (cache)
                for (size_t i = 0; i < N_TENSORS; i++)
                    wl_pack_cache_tiles (cache, wl_gguf_tensor (gguf, i), own);
            pause ();
        }
        struct stat status;
        snprintf (path, sizeof path, "%s/packed", folder);
        while (stat (path, &status) != 0)
            usleep (100);
        usleep ((useconds_t) (round * 400)); /* somewhere in the midst; any moment must do */
        kill (child, SIGKILL);
        waitpid (child, NULL, 0);
        assert_in_range (load_all (), 0, all_bytes ());
        assert_int_equal (load_all (), all_bytes ());
        remove_model (NULL);
        make_model (NULL);
    }
}

static void test_a_folder_that_cannot_be_written_is_an_error (void **state)
{
    (void) state;
    char path[512];
    wl_error err = {0};
    snprintf (path, sizeof path, "%s/file", folder);
    FILE *plain = fopen (path, "w");
    fclose (plain);
    assert_null (wl_pack_cache_open (gguf, "key", path, 0, &err));
    assert_int_equal (err.code, WL_ERROR_CLUSTER);
    assert_non_null (strstr (err.text, "file"));
}

static void test_a_write_that_fails_is_said_once_and_nothing_half_written_counts (void **state)
{
    (void) state;
    struct rlimit unlimited, small = {.rlim_cur = 2 * SLOT + 200000};
    wl_pack_cache *cache = open_cache ();
    getrlimit (RLIMIT_FSIZE, &unlimited);
    small.rlim_max = unlimited.rlim_max;
    signal (SIGXFSZ, SIG_IGN);
    assert_int_equal (setrlimit (RLIMIT_FSIZE, &small), 0);
    check_tiles (wl_pack_cache_tiles (cache, tensor_of ("a"), pool), "a");
    assert_null (wl_pack_cache_tiles (cache, tensor_of ("d"), pool));
    assert_non_null (strstr (wl_pack_cache_trouble (cache), "tiles: cannot be written: "));
    assert_null (wl_pack_cache_tiles (cache, tensor_of ("b"), pool)); /* there would be room, but it has given up */
    setrlimit (RLIMIT_FSIZE, &unlimited);
    signal (SIGXFSZ, SIG_DFL);
    wl_pack_cache_close (&cache);
    assert_int_equal (load_all (), wl_matrix_bytes (tensor_of ("a")));
}

static void test_more_than_the_limit_is_not_kept (void **state)
{
    (void) state;
    wl_error err = {0};
    wl_pack_cache *cache = wl_pack_cache_open (gguf, "key", folder, 1 << 20, &err);
    assert_non_null (cache);
    check_tiles (wl_pack_cache_tiles (cache, tensor_of ("a"), pool), "a");
    assert_null (wl_pack_cache_tiles (cache, tensor_of ("d"), pool));
    assert_non_null (strstr (wl_pack_cache_trouble (cache), "--cache-size"));
    wl_pack_cache_close (&cache);
}

static void test_failing_allocations_are_errors_and_leak_nothing (void **state)
{
    (void) state;
    for (unsigned nth = 1; nth < 60; nth++) {
        wl_error err = {0};
        wl_memory_fail_after (nth);
        wl_pack_cache *cache = wl_pack_cache_open (gguf, "key", folder, 0, &err);
        const uint8_t *tiles = cache ? wl_pack_cache_tiles (cache, tensor_of ("b"), pool) : NULL;
        wl_memory_fail_after (0);
        if (!cache)
            assert_int_not_equal (err.code, WL_OK);
        else if (!tiles)
            assert_string_not_equal (wl_pack_cache_trouble (cache), "");
        else
            check_tiles (tiles, "b");
        wl_pack_cache_close (&cache);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown (test_##name, make_model, remove_model)

int main (void)
{
    const struct CMUnitTest tests[] = {
        TEST (what_was_packed_is_found_by_the_next_start),
        TEST (every_split_fills_and_finds_the_same_places),
        TEST (what_is_no_matrix_of_the_file_is_left_to_the_caller),
        TEST (damage_anywhere_in_the_index_is_noticed),
        TEST (an_index_cut_short_or_empty_is_made_anew),
        TEST (tiles_cut_short_or_zeroed_are_packed_anew),
        TEST (tiles_of_a_boot_that_ended_before_they_were_on_the_disk_are_packed_anew),
        TEST (settling_marks_tiles_as_on_the_disk),
        TEST (a_worker_killed_while_packing_leaves_nothing_that_is_used_later),
        TEST (a_folder_that_cannot_be_written_is_an_error),
        TEST (a_write_that_fails_is_said_once_and_nothing_half_written_counts),
        TEST (more_than_the_limit_is_not_kept),
        TEST (failing_allocations_are_errors_and_leak_nothing),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
