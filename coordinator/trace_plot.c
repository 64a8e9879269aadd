/* A trace as a picture; see trace_plot.h.
 *
 * Each row goes through its bars once. Those with room are rectangles; the others add the time they fill to columns of some pixels, a sum for each kind of step, which are
 * then drawn as one stepped outline a kind, stacked. */
#include "trace_plot.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/memory.h"
#include "svg.h"

enum { WIDTH = 1200, RIGHT = 28, TOP = 112, LEAST_LEFT = 92, MOST_LEFT = 240, TABLE_ROW = 22, LETTER = 7 };

static const double least_bar = 2;     /* pixels that a bar of its own needs */
static const double column_width = 3;  /* of those that stand for bars without room */
static const double hop_distance = 10; /* pixels between lines of the same two rows */
static const size_t roomy_rows = 16;   /* more are drawn closer together */

static const char light[] = ".lane { fill: #f1f3f5 }\n"
                            ".prompt { fill: #0969da }\n"
                            ".decode { fill: #d4731c }\n"
                            ".stale { fill: #8c959f }\n"
                            ".other { fill: #8250df }\n"
                            ".hop { stroke: #1a7f37; stroke-width: 1.2; opacity: 0.8 }\n"
                            ".name { fill: #ffffff; font-size: 11px }\n";
static const char dark[] = ".lane { fill: #161b22 }\n"
                           ".prompt { fill: #1f6feb }\n"
                           ".decode { fill: #db8b3b }\n"
                           ".stale { fill: #6e7681 }\n"
                           ".other { fill: #986ee2 }\n"
                           ".hop { stroke: #3fb950 }\n"
                           ".name { fill: #ffffff }\n";

typedef struct row_sum { /* seconds */
    size_t n_steps;
    double kinds[WL_TRACE_KINDS], first, last;
} row_sum;

typedef struct drawing {
    const wl_trace *trace;
    const char *title;
    char subtitle[160];
    row_sum *sums; /* [n_rows] */
    size_t n_kinds[WL_TRACE_KINDS];
    double *columns; /* [WL_TRACE_KINDS][n_columns] time filled by steps without a bar, microseconds */
    size_t n_columns;
    double left, right, lane_height, lane_step;
    bool summed, thinned; /* some steps have no bar, some hops no line */
} drawing;

static double span_of (const drawing *d)
{
    double span = d->trace->to - d->trace->from;
    return span > 0 ? span : 1;
}

static double x_of (const drawing *d, double us)
{
    return d->left + (us - d->trace->from) / span_of (d) * (d->right - d->left);
}

static double lane_top (const drawing *d, size_t row)
{
    return TOP + (double) row * d->lane_step;
}

static void name_of (const wl_trace *t, size_t row, char *out, size_t room)
{
    if (t->rows[row].name)
        snprintf (out, room, "%s", t->rows[row].name);
    else
        snprintf (out, room, "%lld", (long long) t->rows[row].thread);
}

/* "12.3 ms", in the unit of the axis or of its own. */
static void format_time (char out[32], double us)
{
    if (us >= 999500)
        snprintf (out, 32, "%.3g s", us / 1e6);
    else if (us >= 999.5)
        snprintf (out, 32, "%.3g ms", us / 1e3);
    else
        snprintf (out, 32, "%.3g us", us);
}

/* -- sums ------------------------------------------------------------------------------------------------------------------------------------ */

static void add_up (drawing *d)
{
    const wl_trace *t = d->trace;
    double busy = 0;
    char span[32];
    for (size_t i = 0; i < t->n_bars; i++) {
        const wl_trace_bar *b = &t->bars[i];
        row_sum *sum = &d->sums[b->row];
        sum->first = sum->n_steps++ ? sum->first : b->from;
        sum->last = b->to > sum->last ? b->to : sum->last;
        sum->kinds[b->kind] += (b->to - b->from) / 1e6;
        busy += b->to - b->from;
        d->n_kinds[b->kind]++;
    }
    format_time (span, span_of (d));
    snprintf (d->subtitle, sizeof d->subtitle, "%zu %s, %zu steps, %s; %.0f%% of the stages' time is spent computing",
              t->n_rows, t->n_rows == 1 ? "stage" : "stages", d->sums[0].n_steps, span,
              100 * busy / span_of (d) / (double) t->n_rows);
}

/* -- axis ------------------------------------------------------------------------------------------------------------------------------------ */

/* 1, 2 or 5 times a power of ten, for about ten marks. */
static double mark_distance (double span)
{
    double rough = span / 10, power = pow (10, floor (log10 (rough)));
    return rough > 5 * power ? 10 * power : rough > 2 * power ? 5 * power : rough > power ? 2 * power : power;
}

static void put_axis (FILE *out, const drawing *d, double bottom)
{
    double distance = mark_distance (span_of (d)), unit = distance >= 1e5 ? 1e6 : distance >= 100 ? 1e3 : 1;
    int places = distance >= unit ? 0 : distance * 10 >= unit * 0.999 ? 1 : 2;
    char text[64];
    int n = (int) (span_of (d) / distance);
    for (int i = 0; i <= n; i++) {
        double x = x_of (d, d->trace->from + i * distance);
        wl_svg_line (out, "grid", x, TOP - 8, x, bottom);
        snprintf (text, sizeof text, "%.*f", places, i * distance / unit);
        wl_svg_text (out, x, bottom + 16, "middle", text);
    }
    snprintf (text, sizeof text, "%s since the first step",
              unit > 1e5 ? "seconds"
              : unit > 1 ? "milliseconds"
                         : "microseconds");
    wl_svg_text (out, (d->left + d->right) / 2, bottom + 36, "middle", text);
}

/* -- rows ------------------------------------------------------------------------------------------------------------------------------------ */

static void put_bar (FILE *out, const drawing *d, const wl_trace_bar *b)
{
    char from[32], took[32];
    double x = x_of (d, b->from), width = x_of (d, b->to) - x, y = lane_top (d, b->row);
    double gap = width > 4 ? 0.5 : 0; /* so that one ends where the next begins */
    fprintf (out, "<rect class=\"%s\" x=\"%.2f\" y=\"%.1f\" width=\"%.2f\" height=\"%.1f\"%s><title>",
             wl_trace_kind_name (b->kind), x, y, width - gap, d->lane_height, width > 6 ? " rx=\"1.5\"" : "");
    wl_svg_put (out, b->name);
    format_time (from, b->from - d->trace->from);
    format_time (took, b->to - b->from);
    fprintf (out, ": %s, at %s</title></rect>\n", took, from);
    if (width > (double) strlen (b->name) * LETTER + 6 && d->lane_height >= 16)
        fprintf (out, "<text class=\"name\" x=\"%.1f\" y=\"%.1f\">", x + 4, y + d->lane_height / 2 + 4);
    else
        return;
    wl_svg_put (out, b->name);
    fputs ("</text>\n", out);
}

/* Adds a short step's time to the columns that it covers. */
static void fill_columns (drawing *d, const wl_trace_bar *b)
{
    double width = span_of (d) / (double) d->n_columns, from = b->from - d->trace->from, to = b->to - d->trace->from;
    size_t column = (size_t) (from / width);
    d->summed = true;
    for (; column < d->n_columns && from < to; column++) {
        double end = (double) (column + 1) * width, part = (end < to ? end : to) - from;
        if (part > 0)
            d->columns[(size_t) b->kind * d->n_columns + column] += part;
        from = end;
    }
}

/* The outline of one kind, over the kinds before it. */
static void put_columns (FILE *out, const drawing *d, size_t row, wl_trace_kind kind)
{
    double width = span_of (d) / (double) d->n_columns, step = (d->right - d->left) / (double) d->n_columns;
    double bottom = lane_top (d, row) + d->lane_height;
    bool open = false;
    for (size_t c = 0; c < d->n_columns; c++) {
        double below = 0, own = d->columns[(size_t) kind * d->n_columns + c] / width;
        for (size_t k = 0; k < (size_t) kind; k++)
            below += d->columns[k * d->n_columns + c] / width;
        if (own <= 0)
            continue;
        own = below + own > 1 ? 1 - below : own; /* bars that overlap, in others' traces */
        if (!open)
            fprintf (out, "<path class=\"%s\" d=\"", wl_trace_kind_name (kind));
        open = true;
        double x = d->left + (double) c * step, height = own > 0 ? own * d->lane_height : 0;
        fprintf (out, "M%.1f %.1fh%.2fv%.1fh-%.2fz", x, bottom - below * d->lane_height, step, -height, step);
    }
    if (open)
        fputs ("\"/>\n", out);
}

static void put_lanes (FILE *out, const drawing *d)
{
    for (size_t row = 0; row < d->trace->n_rows; row++)
        fprintf (out, "<rect class=\"lane\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"/>\n", d->left,
                 lane_top (d, row), d->right - d->left, d->lane_height);
}

static void put_steps (FILE *out, drawing *d)
{
    const wl_trace *t = d->trace;
    size_t bar = 0;
    for (size_t row = 0; row < t->n_rows; row++) {
        char name[96];
        double y = lane_top (d, row);
        name_of (t, row, name, sizeof name);
        wl_svg_text (out, d->left - 10, y + d->lane_height / 2 + 4.5, "row-end", name);
        memset (d->columns, 0, WL_TRACE_KINDS * d->n_columns * sizeof *d->columns);
        for (; bar < t->n_bars && t->bars[bar].row == row; bar++) {
            const wl_trace_bar *b = &t->bars[bar];
            if ((b->to - b->from) / span_of (d) * (d->right - d->left) >= least_bar)
                put_bar (out, d, b);
            else
                fill_columns (d, b);
        }
        for (wl_trace_kind kind = 0; kind < WL_TRACE_KINDS; kind++)
            put_columns (out, d, row, kind);
    }
}

/* From the end of a bar to the beginning of the next row's, between the rows; those too near the one before are left out. */
static void put_hops (FILE *out, drawing *d, double *last)
{
    const wl_trace *t = d->trace;
    for (size_t i = 0; i < t->n_rows; i++)
        last[i] = -INFINITY;
    for (size_t i = 0; i < t->n_hops; i++) {
        const wl_trace_hop *h = &t->hops[i];
        double from = x_of (d, h->from), to = x_of (d, h->to);
        bool down = h->to_row > h->from_row;
        if (h->from_row == h->to_row || to < d->left || from > d->right)
            continue;
        if (to - last[h->to_row] < hop_distance) {
            d->thinned = true;
            continue;
        }
        last[h->to_row] = to;
        wl_svg_line (out, "hop", from, lane_top (d, h->from_row) + (down ? d->lane_height : 0), to,
                     lane_top (d, h->to_row) + (down ? 0 : d->lane_height));
    }
}

/* -- around them ------------------------------------------------------------------------------------------------------------------------------ */

static double put_key (FILE *out, const char *class, double x, const char *text)
{
    const double y = 84;
    if (strcmp (class, "hop") == 0)
        wl_svg_line (out, class, x, y - 9, x + 12, y + 1);
    else if (class[0])
        fprintf (out, "<rect class=\"%s\" x=\"%.1f\" y=\"%.1f\" width=\"12\" height=\"12\" rx=\"1.5\"/>\n", class, x,
                 y - 10);
    wl_svg_text (out, x + (class[0] ? 18 : 0), y, "faint", text);
    return x + (class[0] ? 18 : 0) + (double) strlen (text) * LETTER + 18;
}

static void put_legend (FILE *out, const drawing *d)
{
    static const char *const texts[WL_TRACE_KINDS] = {"prompt", "decode", "stale (guesses that were wrong)", "other"};
    double x = d->left;
    for (wl_trace_kind kind = 0; kind < WL_TRACE_KINDS; kind++)
        if (d->n_kinds[kind])
            x = put_key (out, wl_trace_kind_name (kind), x, texts[kind]);
    if (d->trace->n_hops)
        x = put_key (out, "hop", x, d->thinned ? "hop (some of them)" : "hop");
    if (d->summed)
        put_key (out, "", x, "lower: many short steps, as high as the share of time they fill");
}

static void put_table (FILE *out, const drawing *d, double top)
{
    static const char *const heads[] = {"steps",   "computing", "prompt s", "decode s",
                                        "stale s", "other s",   "waiting s"};
    enum { COLUMNS = sizeof heads / sizeof heads[0], FIRST_KIND = 2 };
    const double first_end = d->left + 80, apart = 110;
    char cell[96];
    wl_svg_text (out, d->left - 10, top, "end", "stage");
    for (size_t row = 0; row <= d->trace->n_rows; row++) {
        double y = top + (double) row * TABLE_ROW, x = first_end;
        const row_sum *sum = row ? &d->sums[row - 1] : NULL;
        double busy = 0, whole = sum ? (sum->last - sum->first) / 1e6 : 0;
        for (size_t k = 0; sum && k < WL_TRACE_KINDS; k++)
            busy += sum->kinds[k];
        if (sum) {
            name_of (d->trace, row - 1, cell, sizeof cell);
            wl_svg_text (out, d->left - 10, y, "row-end", cell);
        }
        for (size_t c = 0; c < COLUMNS; c++) {
            bool is_kind = c >= FIRST_KIND && c < FIRST_KIND + WL_TRACE_KINDS;
            if (is_kind && !d->n_kinds[c - FIRST_KIND])
                continue;
            if (!sum)
                snprintf (cell, sizeof cell, "%s", heads[c]);
            else if (c == 0)
                snprintf (cell, sizeof cell, "%zu", sum->n_steps);
            else if (c == 1)
                snprintf (cell, sizeof cell, "%.0f%%", whole > 0 ? 100 * busy / whole : 0);
            else
                snprintf (cell, sizeof cell, "%.3f",
                          is_kind        ? sum->kinds[c - FIRST_KIND]
                          : whole > busy ? whole - busy
                                         : 0);
            wl_svg_text (out, x, y, sum ? "row-end" : "end", cell);
            x += apart;
        }
    }
}

static void draw (FILE *out, void *context)
{
    drawing *d = context;
    const wl_trace *t = d->trace;
    double bottom = lane_top (d, t->n_rows) - (d->lane_step - d->lane_height) + 6, *last = d->columns;
    const wl_svg_page page = {.width = WIDTH,
                              .height = bottom + 72 + ((double) t->n_rows + 1) * TABLE_ROW,
                              .left = d->left,
                              .title = d->title,
                              .subtitle = d->subtitle,
                              .light = light,
                              .dark = dark};
    wl_svg_begin (out, &page);
    put_lanes (out, d);
    put_axis (out, d, bottom);
    put_steps (out, d);
    put_hops (out, d, last); /* columns are free again, and at least as many as rows */
    put_legend (out, d);
    put_table (out, d, bottom + 72);
    fputs ("</svg>\n", out);
}

bool wl_trace_plot_write (const char *path, const char *title, const wl_trace *trace, wl_error *err)
{
    bool roomy = trace->n_rows <= roomy_rows;
    drawing d = {.trace = trace,
                 .title = title,
                 .left = LEAST_LEFT,
                 .right = WIDTH - RIGHT,
                 .lane_height = roomy ? 34 : 14,
                 .lane_step = roomy ? 54 : 24};
    for (size_t row = 0; row < trace->n_rows; row++) {
        char name[96];
        name_of (trace, row, name, sizeof name);
        double wanted = (double) strlen (name) * LETTER + 24;
        d.left = wanted > d.left ? (wanted < MOST_LEFT ? wanted : MOST_LEFT) : d.left;
    }
    d.n_columns = (size_t) ((d.right - d.left) / column_width);
    size_t room = WL_TRACE_KINDS * d.n_columns;
    d.sums = wl_new (trace->n_rows, sizeof *d.sums, err);
    d.columns = wl_new (room > trace->n_rows ? room : trace->n_rows, sizeof *d.columns, err);
    bool ok = d.sums && d.columns;
    if (ok) {
        add_up (&d);
        ok = wl_svg_write (path, "--svg", draw, &d, err);
    }
    free (d.sums);
    free (d.columns);
    return ok;
}
