/* What drawings as SVG share: files that stand by themselves (no scripts, fonts or links), for light and dark backgrounds as the viewer prefers.
 *
 * Classes that every drawing has: paper, title, faint (grey), end and middle (grey, anchored there), row-end (anchored at the end), grid. A drawing brings rules for its own. */
#ifndef WL_COORDINATOR_SVG_H
#define WL_COORDINATOR_SVG_H

#include <stdbool.h>
#include <stdio.h>

#include "engine/error.h"

typedef struct wl_svg_page {
    double width, height, left; /* left: where title and subtitle begin */
    const char *title, *subtitle;
    const char *light, *dark; /* CSS rules of the drawing's own classes; the latter come over the former */
} wl_svg_page;

/* From <svg> to the subtitle. The drawing follows, and </svg>. */
void wl_svg_begin (FILE *out, const wl_svg_page *page);

/* Text as XML wants it: of files, it may hold what XML gives a meaning, or does not allow at all. */
void wl_svg_put (FILE *out, const char *text);
void wl_svg_text (FILE *out, double x, double y, const char *class, const char *text);
void wl_svg_line (FILE *out, const char *class, double x1, double y1, double x2, double y2);

/* Writes `path` as a whole or not at all. WL_ERROR_USAGE, naming the flag, where it cannot be written. */
bool wl_svg_write (const char *path, const char *flag, void (*draw) (FILE *out, void *context), void *context,
                   wl_error *err);

#endif
