/* A trace as a picture: a row for each stage, a bar for each step, lines for hops, over a common axis of time.
 *
 * Steps that are too short for a bar of their own are drawn together, as high as the share of time that they fill: so any length of trace can be read, and the file
 * stays small. */
#ifndef WL_COORDINATOR_TRACE_PLOT_H
#define WL_COORDINATOR_TRACE_PLOT_H

#include "trace_file.h"

/* Writes `path` as a whole or not at all. WL_ERROR_USAGE where it cannot be written. */
bool wl_trace_plot_write (const char *path, const char *title, const wl_trace *trace, wl_error *err);

#endif
