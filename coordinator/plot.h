/* A roofline plot as SVG: how much a test computes for each byte it has to read, how fast it was, and what the machine allows.
 *
 * One file that stands by itself (no scripts, fonts or links), for light and dark backgrounds as the viewer prefers. */
#ifndef WL_COORDINATOR_PLOT_H
#define WL_COORDINATOR_PLOT_H

#include <stddef.h>

#include "roofline.h"

typedef struct wl_plot_point {
    const char *name; /* "pp512" */
    double tok_s, tok_s_min, tok_s_max;
    wl_token_cost cost;
} wl_plot_point;

/* Writes `path` as a whole or not at all. Texts are UTF-8 and may hold anything that is. WL_ERROR_USAGE where it cannot be written. */
bool wl_plot_write (const char *path, const char *title, const char *subtitle, const wl_machine_limits *limits,
                    const wl_plot_point *points, size_t n_points, wl_error *err);

#endif
