/* A trace as --trace writes it (Chrome trace events, step_times.c), read back: rows of bars, and hops between rows.
 *
 * Other programs' traces pass as well as they are made of complete events ("X"), thread names and flows. */
#ifndef WL_COORDINATOR_TRACE_FILE_H
#define WL_COORDINATOR_TRACE_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "engine/error.h"

/* By the first word of a bar's name. */
typedef enum wl_trace_kind {
    WL_TRACE_PROMPT,
    WL_TRACE_DECODE,
    WL_TRACE_STALE,
    WL_TRACE_OTHER,
    WL_TRACE_KINDS
} wl_trace_kind;
const char *wl_trace_kind_name (wl_trace_kind kind);

typedef struct wl_trace_bar { /* microseconds */
    double from, to;
    uint32_t row;
    wl_trace_kind kind;
    const char *name; /* the trace's */
} wl_trace_bar;

typedef struct wl_trace_hop {
    double from, to;
    uint32_t from_row, to_row;
} wl_trace_hop;

typedef struct wl_trace_row {
    int64_t process, thread;
    const char *name; /* the trace's; NULL: it has none */
} wl_trace_row;

typedef struct wl_trace {
    wl_trace_row *rows; /* [n_rows] in the order of their numbers */
    wl_trace_bar *bars; /* [n_bars] by row, then by time */
    wl_trace_hop *hops; /* [n_hops] by time */
    size_t n_rows, n_bars, n_hops;
    double from, to; /* of all bars */
    void *json;      /* owns the names */
} wl_trace;

/* WL_ERROR_INPUT for what is no such file, or holds no bar. On failure nothing is left to free. */
bool wl_trace_read (const char *path, wl_trace *trace, wl_error *err);
void wl_trace_free (wl_trace *trace);

#endif
