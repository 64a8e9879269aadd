/* A roofline plot as SVG; see plot.h.
 *
 * Both axes are logarithmic. To the left of the ridge the roof rises: there the memory limits. A test's point hangs below the roof by what it leaves unused, and its whisker
 * spans its slowest and fastest run. Tests of equal intensity would print their names over one another, so names are pushed apart, and a table below the axes
 * has the figures. */
#include "plot.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/memory.h"
#include "svg.h"

enum { WIDTH = 860, LEFT = 86, RIGHT = 28, TOP = 76, PLOT_HEIGHT = 360, ROW_HEIGHT = 22, LABEL_HEIGHT = 15 };

typedef struct axis {
    double low, high; /* values at its ends */
    double from, to;  /* coordinates of them */
} axis;

static double place (const axis *a, double value)
{
    return a->from + (log (value) - log (a->low)) / (log (a->high) - log (a->low)) * (a->to - a->from);
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

static const char light[] = ".roof { fill: none; stroke: #0969da; stroke-width: 2.5 }\n"
                            ".roof-name { fill: #0969da }\n"
                            ".gap { stroke: #bc4c00; stroke-width: 1.2; stroke-dasharray: 2 4 }\n"
                            ".spread { stroke: #bc4c00; stroke-width: 3; stroke-linecap: round; opacity: 0.55 }\n"
                            ".leader { stroke: #59636e; stroke-width: 0.8 }\n"
                            ".point { fill: #bc4c00; stroke: #ffffff; stroke-width: 1.5 }\n";
static const char dark[] = ".roof { stroke: #4493f8 }\n"
                           ".roof-name { fill: #4493f8 }\n"
                           ".gap, .spread { stroke: #f0883e }\n"
                           ".leader { stroke: #9198a1 }\n"
                           ".point { fill: #f0883e; stroke: #0d1117 }\n";

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
        wl_svg_line (out, "grid", place (x, v), y->from, place (x, v), y->to);
        snprintf (text, sizeof text, "%g", v);
        wl_svg_text (out, place (x, v), y->from + 18, "middle", text);
    }
    for (int step = 3 * (int) floor (log10 (y->low)); step <= 3 * (int) ceil (log10 (y->high)); step++) {
        static const double steps[] = {1, 2, 5};
        int in_decade = ((step % 3) + 3) % 3;
        double v = steps[in_decade] * pow (10, (step - in_decade) / 3.0);
        if (v < y->low || v > y->high)
            continue;
        wl_svg_line (out, "grid", x->from, place (y, v), x->to, place (y, v));
        format_si (text, v);
        wl_svg_text (out, x->from - 8, place (y, v) + 4, "end", text);
    }
    wl_svg_text (out, (x->from + x->to) / 2, y->from + 38, "middle", "multiply-adds for each byte read");
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
    wl_svg_put (out, text);
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
        wl_svg_line (out, "gap", at, labels[i].y, at, place (y, roof_at (limits, intensity_of (p))));
        wl_svg_line (out, "spread", at, place (y, p->tok_s_min * macs), at, place (y, p->tok_s_max * macs));
        fprintf (out, "<circle class=\"point\" cx=\"%.1f\" cy=\"%.1f\" r=\"5.5\"/>\n", at, labels[i].y);
    }
    spread_labels (labels, n);
    for (size_t i = 0; i < n; i++) {
        const label *l = &labels[i];
        bool is_moved = l->text_y > l->y + 8, is_last = l->x > x->to - 60;
        if (is_moved)
            wl_svg_line (out, "leader", l->x, l->y, l->x + (is_last ? -9 : 9), l->text_y - 4);
        wl_svg_text (out, l->x + (is_last ? -11 : 11), l->text_y, is_last ? "row-end" : "name", l->point->name);
    }
}

static void put_table (FILE *out, double top, const wl_machine_limits *limits, const wl_plot_point *points, size_t n)
{
    static const char *const heads[] = {"tok/s", "least", "most", "limit", "of it", "of bandwidth", "of multiply-adds"};
    static const double ends[] = {220, 300, 380, 460, 530, 660, 810};
    enum { COLUMNS = sizeof ends / sizeof ends[0] };
    wl_svg_text (out, LEFT, top, "faint", "test");
    for (size_t c = 0; c < COLUMNS; c++)
        wl_svg_text (out, ends[c], top, "end", heads[c]);
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
        wl_svg_text (out, LEFT, y, "name", p->name);
        for (size_t c = 0; c < COLUMNS; c++) {
            char cell[32];
            snprintf (cell, sizeof cell, c < 4 ? "%.2f" : "%.0f%%", values[c]);
            wl_svg_text (out, ends[c], y, "row-end", cell);
        }
    }
}

typedef struct drawing {
    const char *title, *subtitle;
    const wl_machine_limits *limits;
    const wl_plot_point *points;
    label *labels; /* [n] */
    size_t n;
} drawing;

static void draw (FILE *out, void *context)
{
    const drawing *d = context;
    const wl_plot_point *points = d->points;
    double ridge = d->limits->multiply_adds_s / d->limits->read_bytes_s;
    axis x = {ridge / 4, ridge * 4, LEFT, WIDTH - RIGHT};
    axis y = {d->limits->multiply_adds_s / 4, d->limits->multiply_adds_s * 2, TOP + PLOT_HEIGHT, TOP};
    for (size_t i = 0; i < d->n; i++) {
        double at = intensity_of (&points[i]), least = points[i].tok_s_min * points[i].cost.multiply_adds;
        x.low = at / 2 < x.low ? at / 2 : x.low;
        x.high = at * 2.5 > x.high ? at * 2.5 : x.high;
        y.low = least / 2 < y.low ? least / 2 : y.low;
    }
    const wl_svg_page page = {.width = WIDTH,
                              .height = TOP + PLOT_HEIGHT + 84 + ((double) d->n + 1) * ROW_HEIGHT,
                              .left = LEFT,
                              .title = d->title,
                              .subtitle = d->subtitle,
                              .light = light,
                              .dark = dark};
    wl_svg_begin (out, &page);
    put_axes (out, &x, &y);
    put_roof (out, &x, &y, d->limits);
    put_points (out, &x, &y, d->limits, d->labels, points, d->n);
    put_table (out, y.from + 72, d->limits, points, d->n);
    fputs ("</svg>\n", out);
}

bool wl_plot_write (const char *path, const char *title, const char *subtitle, const wl_machine_limits *limits,
                    const wl_plot_point *points, size_t n_points, wl_error *err)
{
    drawing d = {title, subtitle, limits, points, wl_new (n_points, sizeof (label), err), n_points};
    bool ok = d.labels && wl_svg_write (path, "--plot", draw, &d, err);
    free (d.labels);
    return ok;
}
