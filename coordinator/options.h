/* Command-line flags as tables.
 *
 * A command lists its flags in one or more tables (its own, and shared ones such as the cluster's) that bind each flag to a
 * variable; wl_options_parse fills them, or explains what is wrong with which flag. `--help` is made from the same tables. */
#ifndef WL_COORDINATOR_OPTIONS_H
#define WL_COORDINATOR_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/error.h"

typedef enum wl_option_kind {
    WL_OPTION_FLAG,  /* bool *: set to true */
    WL_OPTION_CLEAR, /* bool *: set to false (--no-…) */
    WL_OPTION_TEXT,  /* const char ** */
    WL_OPTION_LIST,  /* wl_option_list *: may be given several times */
    WL_OPTION_U32,   /* uint32_t * */
    WL_OPTION_U64,   /* uint64_t * */
    WL_OPTION_F32,   /* float * */
} wl_option_kind;

typedef struct wl_option_list {
    const char *values[256];
    size_t count;
} wl_option_list;

typedef struct wl_option {
    char letter;      /* 0: none */
    const char *name; /* without the dashes; NULL: only the letter */
    wl_option_kind kind;
    void *value;
    const char *argument; /* "MODEL", for --help; NULL for flags */
    const char *help;
    bool *given; /* set to true when the flag was present; may be NULL */
} wl_option;

typedef struct wl_option_table {
    const wl_option *options;
    size_t count;
} wl_option_table;

/* Parses argv[1..]. Positional arguments are an error unless `rest` is given: then they are collected there. On `--help` prints
 * `summary` and the flags to stdout and sets *help. False with WL_ERROR_USAGE ("--top-k wants a whole number, not \"x\": see woolly run --help").
 * Thread: main, before others start. */
bool wl_options_parse (const char *summary, const wl_option_table *tables, size_t n_tables, int argc, char **argv,
                       wl_option_list *rest, bool *help, wl_error *err);

/* Reads a whole file ("-": stdin) into malloc'd memory with a NUL behind it; more than `limit` bytes, a directory or a missing file is
 * WL_ERROR_INPUT. */
char *wl_read_file (const char *path, size_t limit, size_t *length, wl_error *err);

#endif
