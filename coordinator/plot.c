/* A roofline plot as SVG; see plot.h.
 *
 * Both axes are logarithmic. To the left of the ridge the roof rises: there the memory limits. A test's point hangs below the roof by what it leaves unused, and its whisker
 * spans its slowest and fastest run. Tests of equal intensity would print their names over one another, so names are pushed apart, and a table below the axes
 * has the figures. */
#include "plot.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/memory.h"

enum { WIDTH = 860, LEFT = 86, RIGHT = 28, TOP = 76, PLOT_HEIGHT = 360, ROW_HEIGHT = 22, LABEL_HEIGHT = 15 };

typedef struct axis {
    double low, high; /* values at its ends */
    double from, to;  /* coordinates of them */
} axis;

static double place (const axis *a, double value)
{
    return a->from + (log (value) - log (a->low)) / (log (a->high) - log (a->low)) * (a->to - a->from);
}

/* Text of files may hold what XML gives a meaning, or does not allow at all. */
static void put_text (FILE *out, const char *text)
{
    for (const unsigned char *c = (const unsigned char *) text; *c; c++) {
        if (*c == '&')
            fputs ("&amp;", out);
        else if (*c == '<')
            fputs ("&lt;", out);
        else if (*c == '>')
            fputs ("&gt;", out);
        else if (*c < 0x20 || *c == 0x7f)
            fputc (' ', out);
        else if (c[0] == 0xef && c[1] == 0xbf && c[2] >= 0xbe) /* U+FFFE and U+FFFF */
            c += 2;
        else
            fputc (*c, out);
    }
}

static void text_at (FILE *out, double x, double y, const char *class, const char *text)
{
    fprintf (out, "<text x=\"%.1f\" y=\"%.1f\" class=\"%s\">", x, y, class);
    put_text (out, text);
    fputs ("</text>\n", out);
}

/* 3 significant digits with the thousands' letter. */
static void format_si (char text[24], double value)
{
    static const char *const letters[] = {"", "k", "M", "G", "T", "P"};
    int i = 0;
    for (; value >= 999.5 && i < 5; i++)
        value /= 1000;
    snprintf (text, 24, "%.*f%s%s",
              value >= 99.5   ? 0
              : value >= 9.95 ? 1
                              : 2,
              value, *letters[i] ? " " : "", letters[i]);
}

/* Plain rules for light backgrounds, which every viewer knows, and others over them for dark ones. */
static const char style[] = "<style>\n"
                            "text { font: 13px system-ui, sans-serif; fill: #1f2328 }\n"
                            ".paper { fill: #ffffff }\n"
                            ".title { font-size: 17px; font-weight: 600 }\n"
                            ".faint, .end, .middle { fill: #59636e }\n"
                            ".end, .row-end { text-anchor: end }\n"
                            ".middle { text-anchor: middle }\n"
                            ".roof { fill: none; stroke: #0969da; stroke-width: 2.5 }\n"
                            ".roof-name { fill: #0969da }\n"
                            ".grid { stroke: #d1d9e0; stroke-width: 1 }\n"
                            ".gap { stroke: #bc4c00; stroke-width: 1.2; stroke-dasharray: 2 4 }\n"
                            ".spread { stroke: #bc4c00; stroke-width: 3; stroke-linecap: round; opacity: 0.55 }\n"
                            ".leader { stroke: #59636e; stroke-width: 0.8 }\n"
                            ".point { fill: #bc4c00; stroke: #ffffff; stroke-width: 1.5 }\n"
                            "@media (prefers-color-scheme: dark) {\n"
                            "text { fill: #f0f6fc }\n"
                            ".paper { fill: #0d1117 }\n"
                            ".faint, .end, .middle { fill: #9198a1 }\n"
                            ".roof { stroke: #4493f8 }\n"
                            ".roof-name { fill: #4493f8 }\n"
                            ".grid { stroke: #3d444d }\n"
                            ".gap, .spread { stroke: #f0883e }\n"
                            ".leader { stroke: #9198a1 }\n"
                            ".point { fill: #f0883e; stroke: #0d1117 }\n"
                            "}\n"
                            "</style>\n";

static double roof_at (const wl_machine_limits *limits, double intensity)
{
    double memory = limits->read_bytes_s * intensity;
    return memory < limits->multiply_adds_s ? memory : limits->multiply_adds_s;
}

static double intensity_of (const wl_plot_point *p)
{
    return p->cost.multiply_adds / p->cost.bytes;
}

static void put_axes (FILE *out, const axis *x, const axis *y)
{
    char text[24];
    for (int power = (int) ceil (log2 (x->low)); power <= (int) floor (log2 (x->high)); power += 2) {
        double v = ldexp (1, power);
        fprintf (out, "<line class=\"grid\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n", place (x, v), y->from,
                 place (x, v), y->to);
        snprintf (text, sizeof text, "%g", v);
        text_at (out, place (x, v), y->from + 18, "middle", text);
    }
    for (int step = 3 * (int) floor (log10 (y->low)); step <= 3 * (int) ceil (log10 (y->high)); step++) {
        static const double steps[] = {1, 2, 5};
        int in_decade = ((step % 3) + 3) % 3;
        double v = steps[in_decade] * pow (10, (step - in_decade) / 3.0);
        if (v < y->low || v > y->high)
            continue;
        fprintf (out, "<line class=\"grid\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n", x->from, place (y, v),
                 x->to, place (y, v));
        format_si (text, v);
        text_at (out, x->from - 8, place (y, v) + 4, "end", text);
    }
    text_at (out, (x->from + x->to) / 2, y->from + 38, "middle", "multiply-adds for each byte read");
    fprintf (out, "<text class=\"middle\" transform=\"translate(20 %.1f) rotate(-90)\">multiply-adds a second</text>\n",
             (y->from + y->to) / 2);
}

static void put_roof (FILE *out, const axis *x, const axis *y, const wl_machine_limits *limits)
{
    char text[96], rate[24];
    double ridge = limits->multiply_adds_s / limits->read_bytes_s, start = y->low / limits->read_bytes_s;
    start = start < x->low ? x->low : start;
    ridge = ridge < x->low ? x->low : ridge > x->high ? x->high : ridge;
    fprintf (out, "<polyline class=\"roof\" points=\"%.1f,%.1f %.1f,%.1f %.1f,%.1f\"/>\n", place (x, start),
             place (y, roof_at (limits, start)), place (x, ridge), place (y, roof_at (limits, ridge)), x->to,
             place (y, roof_at (limits, x->high)));
    format_si (rate, limits->multiply_adds_s);
    snprintf (text, sizeof text, "%s multiply-adds/s (%s)", rate, limits->instruction);
    fprintf (out, "<text class=\"roof-name\" text-anchor=\"end\" x=\"%.1f\" y=\"%.1f\">", x->to,
             place (y, limits->multiply_adds_s) - 9);
    put_text (out, text);
    double dx = place (x, ridge) - place (x, start);
    double dy = place (y, roof_at (limits, ridge)) - place (y, roof_at (limits, start));
    format_si (rate, limits->read_bytes_s);
    fprintf (
        out,
        "</text>\n<text class=\"roof-name\" text-anchor=\"middle\" transform=\"translate(%.1f %.1f) rotate(%.2f)\">"
        "%sB/s read</text>\n",
        place (x, start) + dx / 2 - 6, place (y, roof_at (limits, start)) + dy / 2 - 8, atan2 (dy, dx) * 57.29578,
        rate);
}

typedef struct label {
    const wl_plot_point *point;
    double x, y;   /* of the point */
    double text_y; /* where its name goes, to the right of the point */
} label;

static int by_height (const void *a, const void *b)
{
    double p = ((const label *) a)->text_y, q = ((const label *) b)->text_y;
    return p < q ? -1 : p > q;
}

/* Names that would cover one another move down. */
static void spread_labels (label *labels, size_t n)
{
    enum { NAME_WIDTH = 64 };
    qsort (labels, n, sizeof *labels, by_height);
    for (size_t i = 1; i < n; i++)
        for (size_t j = 0; j < i; j++)
            if (fabs (labels[i].x - labels[j].x) < NAME_WIDTH && labels[i].text_y < labels[j].text_y + LABEL_HEIGHT &&
                labels[i].text_y > labels[j].text_y - LABEL_HEIGHT)
                labels[i].text_y = labels[j].text_y + LABEL_HEIGHT;
}

static void put_points (FILE *out, const axis *x, const axis *y, const wl_machine_limits *limits, label *labels,
                        const wl_plot_point *points, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const wl_plot_point *p = &points[i];
        double at = place (x, intensity_of (p)), macs = p->cost.multiply_adds;
        labels[i] = (label){p, at, place (y, p->tok_s * macs), place (y, p->tok_s * macs) + 4};
        fprintf (out, "<line class=\"gap\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n", at, labels[i].y, at,
                 place (y, roof_at (limits, intensity_of (p))));
        fprintf (out, "<line class=\"spread\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n", at,
                 place (y, p->tok_s_min * macs), at, place (y, p->tok_s_max * macs));
        fprintf (out, "<circle class=\"point\" cx=\"%.1f\" cy=\"%.1f\" r=\"5.5\"/>\n", at, labels[i].y);
    }
    spread_labels (labels, n);
    for (size_t i = 0; i < n; i++) {
        const label *l = &labels[i];
        bool is_moved = l->text_y > l->y + 8, is_last = l->x > x->to - 60;
        if (is_moved)
            fprintf (out, "<line class=\"leader\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n", l->x, l->y,
                     l->x + (is_last ? -9 : 9), l->text_y - 4);
        text_at (out, l->x + (is_last ? -11 : 11), l->text_y, is_last ? "row-end" : "name", l->point->name);
    }
}

static void put_table (FILE *out, double top, const wl_machine_limits *limits, const wl_plot_point *points, size_t n)
{
    static const char *const heads[] = {"tok/s", "least", "most", "limit", "of it", "of bandwidth", "of multiply-adds"};
    static const double ends[] = {220, 300, 380, 460, 530, 660, 810};
    enum { COLUMNS = sizeof ends / sizeof ends[0] };
    text_at (out, LEFT, top, "faint", "test");
    for (size_t c = 0; c < COLUMNS; c++)
        text_at (out, ends[c], top, "end", heads[c]);
    for (size_t i = 0; i < n; i++) {
        const wl_plot_point *p = &points[i];
        double y = top + (double) (i + 1) * ROW_HEIGHT, limit = wl_roofline_limit (limits, &p->cost);
        double values[COLUMNS] = {p->tok_s,
                                  p->tok_s_min,
                                  p->tok_s_max,
                                  limit,
                                  100 * p->tok_s / limit,
                                  100 * p->tok_s * p->cost.bytes / limits->read_bytes_s,
                                  100 * p->tok_s * p->cost.multiply_adds / limits->multiply_adds_s};
        text_at (out, LEFT, y, "name", p->name);
        for (size_t c = 0; c < COLUMNS; c++) {
            char cell[32];
            snprintf (cell, sizeof cell, c < 4 ? "%.2f" : "%.0f%%", values[c]);
            text_at (out, ends[c], y, "row-end", cell);
        }
    }
}

static void draw (FILE *out, const char *title, const char *subtitle, const wl_machine_limits *limits,
                  const wl_plot_point *points, label *labels, size_t n)
{
    double ridge = limits->multiply_adds_s / limits->read_bytes_s;
    axis x = {ridge / 4, ridge * 4, LEFT, WIDTH - RIGHT};
    axis y = {limits->multiply_adds_s / 4, limits->multiply_adds_s * 2, TOP + PLOT_HEIGHT, TOP};
    for (size_t i = 0; i < n; i++) {
        double at = intensity_of (&points[i]), least = points[i].tok_s_min * points[i].cost.multiply_adds;
        x.low = at / 2 < x.low ? at / 2 : x.low;
        x.high = at * 2.5 > x.high ? at * 2.5 : x.high;
        y.low = least / 2 < y.low ? least / 2 : y.low;
    }
    int height = TOP + PLOT_HEIGHT + 84 + (int) (n + 1) * ROW_HEIGHT;
    fprintf (
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" role=\"img\">\n"
        "<title>",
        WIDTH, height, WIDTH, height);
    put_text (out, title);
    fprintf (out, "</title>\n%s<rect class=\"paper\" width=\"100%%\" height=\"100%%\"/>\n", style);
    text_at (out, LEFT, 32, "title", title);
    text_at (out, LEFT, 54, "faint", subtitle);
    put_axes (out, &x, &y);
    put_roof (out, &x, &y, limits);
    put_points (out, &x, &y, limits, labels, points, n);
    put_table (out, y.from + 72, limits, points, n);
    fputs ("</svg>\n", out);
}

bool wl_plot_write (const char *path, const char *title, const char *subtitle, const wl_machine_limits *limits,
                    const wl_plot_point *points, size_t n_points, wl_error *err)
{
    bool ok = false;
    FILE *out = NULL;
    size_t length = strlen (path) + 32;
    label *labels = wl_new (n_points, sizeof *labels, err);
    char *aside = wl_new (length, 1, err);
    if (!labels || !aside)
        goto done;
    snprintf (aside, length, "%s.%ld", path, (long) getpid ());
    out = fopen (aside, "w");
    if (out)
        draw (out, title, subtitle, limits, points, labels, n_points);
    bool written = out && !ferror (out);
    written = out && fclose (out) == 0 && written;
    ok = written && rename (aside, path) == 0;
    if (!ok) {
        wl_fail (err, WL_ERROR_USAGE, "--plot %s: cannot be written: %s", path, strerror (errno));
        unlink (aside);
    }
done:
    free (labels);
    free (aside);
    return ok;
}
