/* The cache's folder: entries are found again, held by processes, and deleted least recently used first, never one that is in use. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "engine/cache_folder.h"
#include "engine/memory.h"
#include "folder.h"

enum { BYTES = 1 << 20 };

static wl_cache_entry *open_entry (const char *kind, const char *key)
{
    wl_error err = {0};
    wl_cache_entry *entry = wl_cache_open (folder, kind, key, &err);
    if (!entry)
        fail_msg ("%s", err.text);
    return entry;
}

static void path_in (char path[256], const char *kind, const char *key, const char *name)
{
    snprintf (path, 256, "%s/%s/%s/%s", folder, kind, key, name);
}

/* An entry of BYTES bytes that was last used this many seconds ago. */
static void add_entry (const char *kind, const char *key, int seconds)
{
    char path[256];
    wl_cache_entry *entry = open_entry (kind, key);
    path_in (path, kind, key, "data");
    FILE *file = fopen (path, "wb");
    for (int i = 0; i < BYTES; i++)
        fputc (i % 251, file);
    fclose (file);
    wl_cache_close (&entry);
    path_in (path, kind, key, "lock");
    const struct timespec when = {.tv_sec = time (NULL) - seconds};
    assert_int_equal (utimensat (AT_FDCWD, path, (const struct timespec[]){when, when}, 0), 0);
}

static bool is_there (const char *kind, const char *key)
{
    char path[256];
    path_in (path, kind, key, "data");
    return access (path, F_OK) == 0;
}

static void the_least_recently_used_entry_goes_first_whatever_its_kind (void **state)
{
    (void) state;
    wl_error err = {0};
    add_entry ("weights", "middle", 20);
    add_entry ("packed", "oldest", 30);
    add_entry ("weights", "newest", 10);
    assert_true (wl_cache_make_room (folder, 4 * BYTES, BYTES / 2, &err)); /* enough for all */
    assert_true (is_there ("packed", "oldest"));
    assert_true (wl_cache_make_room (folder, 3 * BYTES, BYTES / 2, &err));
    assert_false (is_there ("packed", "oldest"));
    assert_true (is_there ("weights", "middle") && is_there ("weights", "newest"));
    wl_cache_entry *used = open_entry ("weights", "middle"); /* makes it the newest */
    wl_cache_close (&used);
    assert_true (wl_cache_make_room (folder, 3 * BYTES / 2, BYTES / 4, &err));
    assert_true (is_there ("weights", "middle"));
    assert_false (is_there ("weights", "newest"));
}

static void an_entry_in_use_stays_and_the_error_has_the_figures (void **state)
{
    (void) state;
    wl_error err = {0};
    add_entry ("weights", "held", 100);
    add_entry ("weights", "free", 10);
    wl_cache_entry *entry = open_entry ("weights", "held");
    assert_false (wl_cache_make_room (folder, 2 * BYTES, 3 * BYTES / 2, &err));
    assert_int_equal (err.code, WL_ERROR_CLUSTER);
    assert_non_null (strstr (err.text, "--cache-size"));
    assert_true (is_there ("weights", "held"));
    assert_false (is_there ("weights", "free"));
    wl_cache_close (&entry);
    err = (wl_error){0};
    assert_true (wl_cache_make_room (folder, 2 * BYTES, 3 * BYTES / 2, &err));
    assert_false (is_there ("weights", "held"));
}

static void what_can_never_fit_deletes_nothing (void **state)
{
    (void) state;
    wl_error err = {0};
    add_entry ("weights", "free", 10);
    assert_false (wl_cache_make_room (folder, 2 * BYTES, 3 * BYTES, &err));
    assert_non_null (strstr (err.text, "--cache-size"));
    assert_true (is_there ("weights", "free"));
    err = (wl_error){0};
    assert_false (wl_cache_make_room (folder, UINT64_MAX, UINT64_MAX / 2, &err));
    assert_non_null (strstr (err.text, "disk"));
    assert_true (is_there ("weights", "free"));
}

static void a_killed_process_holds_nothing (void **state)
{
    (void) state;
    wl_error err = {0};
    int ready[2];
    char byte = 0;
    add_entry ("packed", "held", 10);
    assert_int_equal (pipe (ready), 0);
    pid_t pid = fork ();
    if (pid == 0) {
        wl_error error = {0};
        wl_cache_entry *entry = wl_cache_open (folder, "packed", "held", &error);
        (void) !write (ready[1], entry ? "y" : "n", 1);
        pause ();
        _exit (0);
    }
    assert_int_equal (read (ready[0], &byte, 1), 1);
    assert_int_equal (byte, 'y');
    assert_false (wl_cache_make_room (folder, BYTES, BYTES, &err));
    assert_true (is_there ("packed", "held"));
    kill (pid, SIGKILL);
    waitpid (pid, NULL, 0);
    err = (wl_error){0};
    assert_true (wl_cache_make_room (folder, BYTES, BYTES, &err));
    assert_false (is_there ("packed", "held"));
    close (ready[0]);
    close (ready[1]);
}

static void an_unwritable_folder_is_an_error_that_says_what_to_do (void **state)
{
    (void) state;
    wl_error err = {0};
    assert_null (wl_cache_open ("/proc/nowhere", "weights", "key", &err));
    assert_int_equal (err.code, WL_ERROR_CLUSTER);
    assert_non_null (strstr (err.text, "--cache"));
    char path[96];
    snprintf (path, sizeof path, "%s/file", folder);
    fclose (fopen (path, "w"));
    err = (wl_error){0};
    assert_null (wl_cache_open (path, "weights", "key", &err));
    assert_non_null (strstr (err.text, "--cache"));
}

static void the_folder_is_the_one_given_or_the_environments (void **state)
{
    (void) state;
    wl_error err = {0};
    const struct {
        const char *given, *own, *shared, *home, *folder;
    } cases[] = {{"/g", "/o", "/s", "/h", "/g"},
                 {NULL, "/o", "/s", "/h", "/o"},
                 {"", "", "/s", "/h", "/s/woolly"},
                 {NULL, "", "", "/h", "/h/.cache/woolly"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        setenv ("WOOLLY_CACHE", cases[i].own, 1);
        setenv ("XDG_CACHE_HOME", cases[i].shared, 1);
        setenv ("HOME", cases[i].home, 1);
        char *chosen = wl_cache_folder (cases[i].given, &err);
        assert_string_equal (chosen, cases[i].folder);
        free (chosen);
    }
    unsetenv ("HOME");
    assert_null (wl_cache_folder (NULL, &err));
    assert_non_null (strstr (err.text, "--cache"));
}

static void failing_allocations_are_errors_and_delete_nothing (void **state)
{
    (void) state;
    add_entry ("weights", "a", 10);
    for (unsigned nth = 1; nth < 12; nth++) {
        wl_error err = {0};
        wl_memory_fail_after (nth);
        wl_cache_entry *entry = wl_cache_open (folder, "weights", "a", &err);
        wl_memory_fail_after (0);
        assert_true (entry || err.code == WL_ERROR_INTERNAL);
        wl_cache_close (&entry);
        err = (wl_error){0};
        wl_memory_fail_after (nth);
        bool ok = wl_cache_make_room (folder, 10 * BYTES, BYTES, &err);
        wl_memory_fail_after (0);
        assert_true (ok || err.code == WL_ERROR_INTERNAL);
    }
    assert_true (is_there ("weights", "a"));
}

int main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown (the_least_recently_used_entry_goes_first_whatever_its_kind, make_folder,
                                         remove_folder),
        cmocka_unit_test_setup_teardown (an_entry_in_use_stays_and_the_error_has_the_figures, make_folder,
                                         remove_folder),
        cmocka_unit_test_setup_teardown (what_can_never_fit_deletes_nothing, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown (a_killed_process_holds_nothing, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown (an_unwritable_folder_is_an_error_that_says_what_to_do, make_folder,
                                         remove_folder),
        cmocka_unit_test_setup_teardown (failing_allocations_are_errors_and_delete_nothing, make_folder, remove_folder),
        cmocka_unit_test (the_folder_is_the_one_given_or_the_environments),
    };
    return cmocka_run_group_tests_name ("cache_folder", tests, NULL, NULL);
}
