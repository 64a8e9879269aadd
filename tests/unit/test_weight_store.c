/* Shipped weights on a worker's disk: what was recorded is found again, whatever tore or spoiled the files is noticed, and nothing that was not checked passes. */
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
#include "folder.h"
#include "worker/weight_store.h"

enum { RECORD = 64, CHUNK = 1000, N_CHUNKS = 20, FILE_BYTES = 100000, HEADER_BYTES = 500 };

static const uint8_t fingerprint[32] = {1, 2, 3};
static const load_progress quiet = {0};

/* -- helpers -------------------------------------------------------------------------------------------------------------------------- */

static weight_store *try_open (size_t n_parts, bool check_all, const load_progress *progress, wl_error *err)
{
    Woolly__ModelPart parts[3] = {WOOLLY__MODEL_PART__INIT, WOOLLY__MODEL_PART__INIT, WOOLLY__MODEL_PART__INIT};
    Woolly__ModelPart *places[3] = {&parts[0], &parts[1], &parts[2]};
    for (int i = 0; i < 3; i++) {
        parts[i].file_bytes = FILE_BYTES;
        parts[i].header_bytes = HEADER_BYTES;
    }
    return weight_store_open (folder, fingerprint, places, n_parts, check_all, progress, err);
}

static weight_store *open_parts (size_t n_parts, bool check_all)
{
    wl_error err = {0};
    weight_store *store = try_open (n_parts, check_all, &quiet, &err);
    if (!store)
        fail_msg ("%s", err.text);
    return store;
}

static weight_store *open_store (void)
{
    return open_parts (1, false);
}

static void fill (uint8_t bytes[CHUNK], uint32_t part, uint64_t offset)
{
    for (size_t i = 0; i < CHUNK; i++)
        bytes[i] = (uint8_t) (offset / CHUNK * 7 + i * 13 + part * 31 + 1);
}

static void put_chunk (weight_store *store, uint32_t part, int index)
{
    wl_error err = {0};
    uint8_t bytes[CHUNK], hash[WL_WEIGHTS_HASH_BYTES];
    uint64_t offset = (uint64_t) index * CHUNK;
    fill (bytes, part, offset);
    wl_weights_hash (bytes, CHUNK, hash);
    if (!weight_store_put (store, part, offset, bytes, CHUNK, hash, &err))
        fail_msg ("%s", err.text);
}

static void settle (weight_store *store)
{
    wl_error err = {0};
    if (!weight_store_settle (store, &err))
        fail_msg ("%s", err.text);
}

/* A store of N_CHUNKS chunks. */
static void make_store (bool settled)
{
    weight_store *store = open_store ();
    for (int i = 0; i < N_CHUNKS; i++)
        put_chunk (store, 0, i);
    if (settled)
        settle (store);
    weight_store_close (&store);
}

static int count (const weight_store *store, uint32_t part)
{
    int n = 0;
    for (int i = 0; i < FILE_BYTES / CHUNK; i++)
        n += weight_store_has (store, part, (uint64_t) i * CHUNK, CHUNK);
    return n;
}

/* The one entry of the folder, and a file in it. */
static void path_of (char path[512], const char *name)
{
    char kind[128];
    snprintf (kind, sizeof kind, "%s/weights", folder);
    DIR *listing = opendir (kind);
    struct dirent *entry;
    assert_non_null (listing);
    while ((entry = readdir (listing)) && entry->d_name[0] == '.')
        ;
    assert_non_null (entry);
    snprintf (path, 512, "%s/%s/%s", kind, entry ? entry->d_name : "", name);
    closedir (listing);
}

static off_t size_of (const char *name)
{
    char path[512];
    struct stat status;
    path_of (path, name);
    assert_int_equal (stat (path, &status), 0);
    return status.st_size;
}

static void spoil (const char *name, off_t at)
{
    char path[512];
    uint8_t byte = 0;
    path_of (path, name);
    int file = open (path, O_RDWR);
    assert_int_equal (pread (file, &byte, 1, at), 1);
    byte ^= 0x10;
    assert_int_equal (pwrite (file, &byte, 1, at), 1);
    close (file);
}

/* As a disk would spoil it: the file's time of change stays. */
static void spoil_in_silence (const char *name, off_t at)
{
    char path[512];
    struct stat before;
    path_of (path, name);
    assert_int_equal (stat (path, &before), 0);
    spoil (name, at);
#ifdef __APPLE__
    const struct timespec times[2] = {before.st_atimespec, before.st_mtimespec};
#else
    const struct timespec times[2] = {before.st_atim, before.st_mtim};
#endif
    assert_int_equal (utimensat (AT_FDCWD, path, times, 0), 0);
}

static void cut (const char *name, off_t length)
{
    char path[512];
    path_of (path, name);
    assert_int_equal (truncate (path, length), 0);
}

typedef struct watch {
    int calls, stop_at;
} watch;

static bool on_progress (void *context, const load_state *state)
{
    watch *w = context;
    assert_int_equal (state->phase, WOOLLY__LOAD_PHASE__CHECKING);
    assert_true (state->done_bytes <= state->total_bytes);
    return ++w->calls != w->stop_at;
}

/* Chunks that an opening compared with their hashes. */
static int checked_on_opening (bool check_all, int *left)
{
    wl_error err = {0};
    watch w = {0};
    const load_progress progress = {.report = on_progress, .context = &w};
    weight_store *store = try_open (1, check_all, &progress, &err);
    if (!store)
        fail_msg ("%s", err.text);
    *left = count (store, 0);
    settle (store);
    weight_store_close (&store);
    return w.calls;
}

/* -- what is kept ------------------------------------------------------------------------------------------------------------------------ */

static void what_was_put_is_there_at_the_next_opening_and_has_the_bytes (void **state)
{
    (void) state;
    uint8_t expected[CHUNK], got[CHUNK];
    make_store (true);
    weight_store *store = open_store ();
    assert_int_equal (count (store, 0), N_CHUNKS);
    assert_false (weight_store_has (store, 0, 0, CHUNK - 1)); /* of another length */
    assert_false (weight_store_has (store, 0, 1, CHUNK));
    assert_false (weight_store_has (store, 1, 0, CHUNK));
    int file = open (weight_store_path (store), O_RDONLY);
    assert_int_equal (pread (file, got, CHUNK, 5 * CHUNK), CHUNK);
    fill (expected, 0, 5 * CHUNK);
    assert_memory_equal (got, expected, CHUNK);
    close (file);
    assert_int_equal (size_of ("model.gguf"), FILE_BYTES);
    weight_store_close (&store);
}

static void a_settled_store_is_opened_without_reading_its_bytes (void **state)
{
    (void) state;
    int left;
    make_store (true);
    assert_int_equal (checked_on_opening (false, &left), 0);
    assert_int_equal (left, N_CHUNKS);
    assert_int_equal (checked_on_opening (true, &left), N_CHUNKS);
    assert_int_equal (left, N_CHUNKS);
}

static void a_store_that_was_left_in_the_middle_is_checked_once (void **state)
{
    (void) state;
    int left;
    make_store (false);
    assert_int_equal (checked_on_opening (false, &left), N_CHUNKS);
    assert_int_equal (left, N_CHUNKS);
    assert_int_equal (checked_on_opening (false, &left), 0);
    assert_int_equal (left, N_CHUNKS);
}

static void settling_behind_is_done_when_the_store_is_closed (void **state)
{
    (void) state;
    int left;
    make_store (false);
    weight_store *store = open_store ();
    weight_store_settle_behind (store);
    weight_store_close (&store);
    assert_int_equal (checked_on_opening (false, &left), 0);
    assert_int_equal (left, N_CHUNKS);
}

static void a_spoiled_byte_costs_its_chunk_and_no_other (void **state)
{
    (void) state;
    int left;
    make_store (true);
    spoil ("model.gguf", 7 * CHUNK + 3);
    assert_int_equal (checked_on_opening (false, &left), N_CHUNKS);
    assert_int_equal (left, N_CHUNKS - 1);
    weight_store *store = open_store ();
    assert_false (weight_store_has (store, 0, 7 * CHUNK, CHUNK));
    put_chunk (store, 0, 7);
    settle (store);
    weight_store_close (&store);
    store = open_store ();
    assert_int_equal (count (store, 0), N_CHUNKS);
    weight_store_close (&store);
}

static void what_a_disk_spoils_in_silence_is_found_when_asked_for (void **state)
{
    (void) state;
    int left;
    make_store (true);
    spoil_in_silence ("model.gguf", 0);
    assert_int_equal (checked_on_opening (false, &left), 0); /* that is what asking is for */
    assert_int_equal (left, N_CHUNKS);
    checked_on_opening (true, &left);
    assert_int_equal (left, N_CHUNKS - 1);
    checked_on_opening (false, &left); /* and stays forgotten, though the store is settled */
    assert_int_equal (left, N_CHUNKS - 1);
}

static void files_that_were_cut_or_removed_cost_what_was_lost (void **state)
{
    (void) state;
    int left;
    make_store (true);
    cut ("model.gguf", 10 * CHUNK + 1);
    checked_on_opening (false, &left);
    assert_int_equal (left, 10);
    assert_int_equal (size_of ("model.gguf"), FILE_BYTES);
    char path[512];
    path_of (path, "model.gguf");
    assert_int_equal (unlink (path), 0);
    checked_on_opening (false, &left);
    assert_int_equal (left, 0);
}

/* -- the index ---------------------------------------------------------------------------------------------------------------------------- */

static void an_index_torn_at_any_byte_keeps_what_was_whole (void **state)
{
    (void) state;
    make_store (false);
    off_t whole = size_of ("index");
    assert_int_equal (whole, N_CHUNKS * RECORD);
    for (off_t length = whole - 1; length >= 0; length -= 7) {
        int left, whole_records = (int) (length / RECORD);
        cut ("index", length);
        weight_store *store = open_store ();
        assert_int_equal (count (store, 0), whole_records);
        put_chunk (store, 0, whole_records); /* mends the tail */
        weight_store_close (&store);
        assert_int_equal (size_of ("index"), (whole_records + 1) * RECORD);
        store = open_store ();
        left = count (store, 0);
        weight_store_close (&store);
        assert_int_equal (left, whole_records + 1);
    }
}

static void a_spoiled_record_is_as_good_as_none (void **state)
{
    (void) state;
    make_store (true);
    for (int at = 0; at < RECORD; at++) {
        spoil ("index", 3 * RECORD + at);
        weight_store *store = open_store ();
        int left = count (store, 0);
        bool has = weight_store_has (store, 0, 3 * CHUNK, CHUNK);
        weight_store_close (&store);
        assert_int_equal (left, N_CHUNKS - 1);
        assert_false (has);
        spoil ("index", 3 * RECORD + at); /* and back */
    }
}

static void an_index_of_noise_is_an_empty_one (void **state)
{
    (void) state;
    char path[512];
    uint32_t random = 12345;
    weight_store *store = open_store ();
    weight_store_close (&store);
    path_of (path, "index");
    FILE *file = fopen (path, "wb");
    for (int i = 0; i < 100 * RECORD + 17; i++) {
        random = random * 1664525 + 1013904223;
        fputc ((int) (random >> 24), file);
    }
    fclose (file);
    store = open_store ();
    assert_int_equal (count (store, 0), 0);
    put_chunk (store, 0, 1);
    weight_store_close (&store);
    store = open_store ();
    assert_int_equal (count (store, 0), 1);
    weight_store_close (&store);
}

static void records_of_another_model_do_not_count (void **state)
{
    (void) state;
    wl_error err = {0};
    char path[512], other[512], command[1200];
    uint8_t another[32] = {9};
    Woolly__ModelPart part = WOOLLY__MODEL_PART__INIT, *places[1] = {&part};
    part.file_bytes = FILE_BYTES;
    part.header_bytes = HEADER_BYTES;
    make_store (true);
    path_of (path, "index");
    weight_store *store = weight_store_open (folder, another, places, 1, false, &quiet, &err);
    assert_non_null (store);
    snprintf (other, sizeof other, "%s", weight_store_path (store));
    weight_store_close (&store);
    *strrchr (other, '/') = 0;
    snprintf (command, sizeof command, "cp '%s' '%s/index'", path, other);
    assert_int_equal (system (command), 0);
    store = weight_store_open (folder, another, places, 1, false, &quiet, &err);
    assert_non_null (store);
    assert_int_equal (count (store, 0), 0);
    weight_store_close (&store);
}

static void an_index_too_large_to_be_one_is_refused (void **state)
{
    (void) state;
    wl_error err = {0};
    weight_store *store = open_store ();
    weight_store_close (&store);
    cut ("index", ((off_t) 1 << 30) + 1);
    assert_null (try_open (1, false, &quiet, &err));
    assert_int_equal (err.code, WL_ERROR_CLUSTER);
    assert_non_null (strstr (err.text, "delete"));
}

/* -- several files, several processes ------------------------------------------------------------------------------------------------------- */

static void the_parts_of_a_split_model_are_files_that_a_reader_finds (void **state)
{
    (void) state;
    weight_store *store = open_parts (3, false);
    for (int i = 0; i < 6; i++)
        put_chunk (store, (uint32_t) i % 3, i);
    settle (store);
    const char *name = strrchr (weight_store_path (store), '/');
    assert_string_equal (name, "/model-00001-of-00003.gguf");
    weight_store_close (&store);
    assert_int_equal (size_of ("model-00003-of-00003.gguf"), FILE_BYTES);
    store = open_parts (3, false);
    for (uint32_t part = 0; part < 3; part++)
        assert_int_equal (count (store, part), 2);
    weight_store_close (&store);
}

static void processes_fill_one_store_together (void **state)
{
    (void) state;
    enum { PROCESSES = 4 };
    pid_t pids[PROCESSES];
    for (int p = 0; p < PROCESSES; p++) {
        pids[p] = fork ();
        if (pids[p] == 0) {
            weight_store *store = open_store ();
            for (int i = p; i < 100; i += PROCESSES)
                put_chunk (store, 0, i);
            settle (store);
            weight_store_close (&store);
            _exit (0);
        }
    }
    for (int p = 0; p < PROCESSES; p++) {
        int status = -1;
        waitpid (pids[p], &status, 0);
        assert_int_equal (status, 0);
    }
    weight_store *store = open_store ();
    assert_int_equal (count (store, 0), 100);
    weight_store_close (&store);
}

/* -- failures --------------------------------------------------------------------------------------------------------------------------------- */

static void a_check_can_be_cancelled_and_loses_nothing (void **state)
{
    (void) state;
    wl_error err = {0};
    watch w = {.stop_at = 5};
    int left;
    const load_progress progress = {.report = on_progress, .context = &w};
    make_store (false);
    assert_null (try_open (1, false, &progress, &err));
    assert_non_null (strstr (err.text, "cancelled"));
    assert_int_equal (w.calls, 5);
    checked_on_opening (false, &left);
    assert_int_equal (left, N_CHUNKS);
}

static void bytes_beyond_the_file_are_refused (void **state)
{
    (void) state;
    uint8_t bytes[CHUNK] = {0}, hash[WL_WEIGHTS_HASH_BYTES] = {0};
    const struct {
        uint32_t part;
        uint64_t offset;
    } places[] = {{1, 0}, {UINT32_MAX, 0}, {0, FILE_BYTES - CHUNK + 1}, {0, UINT64_MAX}, {0, UINT64_MAX - CHUNK + 1}};
    weight_store *store = open_store ();
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        wl_error err = {0};
        assert_false (weight_store_put (store, places[i].part, places[i].offset, bytes, CHUNK, hash, &err));
        assert_int_equal (err.code, WL_ERROR_INTERNAL);
    }
    weight_store_close (&store);
    assert_int_equal (size_of ("index"), 0);
}

/* A limit on the size of files stands for a full disk. */
static void a_full_disk_is_an_error_that_says_what_to_do_and_keeps_what_was_there (void **state)
{
    (void) state;
    pid_t pid = fork ();
    if (pid == 0) {
        wl_error err = {0};
        uint8_t bytes[CHUNK], hash[WL_WEIGHTS_HASH_BYTES];
        weight_store *store = open_store ();
        put_chunk (store, 0, 0);
        signal (SIGXFSZ, SIG_IGN);
        setrlimit (RLIMIT_FSIZE, &(struct rlimit){5 * CHUNK, 5 * CHUNK});
        fill (bytes, 0, 7 * CHUNK);
        wl_weights_hash (bytes, CHUNK, hash);
        bool ok = weight_store_put (store, 0, 7 * CHUNK, bytes, CHUNK, hash, &err);
        bool right = !ok && err.code == WL_ERROR_CLUSTER && strstr (err.text, "--cache") && strstr (err.text, folder);
        _exit (right ? 0 : 1);
    }
    int status = -1;
    waitpid (pid, &status, 0);
    assert_int_equal (status, 0);
    weight_store *store = open_store ();
    assert_int_equal (count (store, 0), 1);
    weight_store_close (&store);
}

static void failing_allocations_are_errors_and_lose_nothing (void **state)
{
    (void) state;
    int left;
    make_store (false);
    for (unsigned nth = 1; nth < 24; nth++) {
        wl_error err = {0};
        wl_memory_fail_after (nth);
        weight_store *store = try_open (1, true, &quiet, &err);
        wl_memory_fail_after (0);
        assert_true (store || err.code == WL_ERROR_INTERNAL);
        weight_store_close (&store);
    }
    checked_on_opening (false, &left);
    assert_int_equal (left, N_CHUNKS);
}

#define IN_A_FOLDER(test) cmocka_unit_test_setup_teardown (test, make_folder, remove_folder)

int main (void)
{
    const struct CMUnitTest tests[] = {
        IN_A_FOLDER (what_was_put_is_there_at_the_next_opening_and_has_the_bytes),
        IN_A_FOLDER (a_settled_store_is_opened_without_reading_its_bytes),
        IN_A_FOLDER (a_store_that_was_left_in_the_middle_is_checked_once),
        IN_A_FOLDER (settling_behind_is_done_when_the_store_is_closed),
        IN_A_FOLDER (a_spoiled_byte_costs_its_chunk_and_no_other),
        IN_A_FOLDER (what_a_disk_spoils_in_silence_is_found_when_asked_for),
        IN_A_FOLDER (files_that_were_cut_or_removed_cost_what_was_lost),
        IN_A_FOLDER (an_index_torn_at_any_byte_keeps_what_was_whole),
        IN_A_FOLDER (a_spoiled_record_is_as_good_as_none),
        IN_A_FOLDER (an_index_of_noise_is_an_empty_one),
        IN_A_FOLDER (records_of_another_model_do_not_count),
        IN_A_FOLDER (an_index_too_large_to_be_one_is_refused),
        IN_A_FOLDER (the_parts_of_a_split_model_are_files_that_a_reader_finds),
        IN_A_FOLDER (processes_fill_one_store_together),
        IN_A_FOLDER (a_check_can_be_cancelled_and_loses_nothing),
        IN_A_FOLDER (bytes_beyond_the_file_are_refused),
        IN_A_FOLDER (a_full_disk_is_an_error_that_says_what_to_do_and_keeps_what_was_there),
        IN_A_FOLDER (failing_allocations_are_errors_and_lose_nothing),
    };
    return cmocka_run_group_tests_name ("weight_store", tests, NULL, NULL);
}
