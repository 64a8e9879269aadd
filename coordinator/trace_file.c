/* Reading a trace; see trace_file.h. */
#include "trace_file.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/memory.h"
#include "options.h"

enum { FILE_LIMIT = 256 << 20, MOST_ROWS = 1024 };

static const double latest_us = 1e15;

typedef struct open_hop { /* its start was read */
    double from;
    uint32_t row;
} open_hop;

typedef struct reader {
    const char *path;
    wl_trace *trace;
    size_t bars_room, hops_room;
    open_hop *open; /* [n_open] */
    size_t n_open, open_room;
    json_t *open_ids; /* id: index into open */
    uint32_t last_row;
    wl_error *err;
} reader;

static const char *const kind_names[WL_TRACE_KINDS] = {"prompt", "decode", "stale", "other"};

const char *wl_trace_kind_name (wl_trace_kind kind)
{
    return kind_names[kind];
}

static wl_trace_kind kind_of (const char *name)
{
    size_t length = strcspn (name, " ");
    for (wl_trace_kind kind = 0; kind < WL_TRACE_OTHER; kind++)
        if (strlen (kind_names[kind]) == length && strncmp (name, kind_names[kind], length) == 0)
            return kind;
    return WL_TRACE_OTHER;
}

/* One more element at the end of an array of n. */
static void *grow (void *array, size_t n, size_t *room, size_t size, wl_error *err)
{
    if (n < *room)
        return array;
    size_t wanted = *room ? *room * 2 : 64;
    void *grown = wl_resize (array, wanted, size, err);
    if (grown)
        *room = wanted;
    return grown;
}

static bool bad (const reader *r, size_t event, const char *what)
{
    return wl_fail (r->err, WL_ERROR_INPUT, "%s: event %zu %s: expected a trace as --trace writes it", r->path, event,
                    what);
}

static bool time_of (const json_t *event, const char *key, double *out)
{
    const json_t *value = json_object_get (event, key);
    *out = json_number_value (value);
    return json_is_number (value) && *out >= 0 && *out <= latest_us;
}

/* The row of an event's thread; a new one if it is the first of it. */
static bool find_row (reader *r, const json_t *event, size_t index, uint32_t *row)
{
    wl_trace *t = r->trace;
    int64_t process = json_integer_value (json_object_get (event, "pid"));
    int64_t thread = json_integer_value (json_object_get (event, "tid"));
    for (size_t i = 0; i < t->n_rows; i++) {
        *row = (uint32_t) ((i + r->last_row) % t->n_rows);
        if (t->rows[*row].process == process && t->rows[*row].thread == thread) {
            r->last_row = *row;
            return true;
        }
    }
    if (t->n_rows == MOST_ROWS)
        return bad (r, index, "is of one row too many");
    *row = (uint32_t) t->n_rows++;
    t->rows[*row] = (wl_trace_row){.process = process, .thread = thread};
    return true;
}

static bool read_bar (reader *r, const json_t *event, size_t index)
{
    wl_trace *t = r->trace;
    const char *name = json_string_value (json_object_get (event, "name"));
    double from, took;
    wl_trace_bar bar = {.name = name ? name : ""};
    if (!time_of (event, "ts", &from) || !time_of (event, "dur", &took))
        return bad (r, index, "has no sound ts and dur");
    if (!find_row (r, event, index, &bar.row))
        return false;
    wl_trace_bar *bars = grow (t->bars, t->n_bars, &r->bars_room, sizeof *bars, r->err);
    if (!bars)
        return false;
    bar.from = from;
    bar.to = from + took;
    bar.kind = kind_of (bar.name);
    t->bars = bars;
    t->bars[t->n_bars++] = bar;
    return true;
}

/* A flow's id is a text or a number. */
static bool id_of (const json_t *event, char id[64])
{
    const json_t *value = json_object_get (event, "id");
    if (json_is_string (value) && json_string_length (value) < 64)
        snprintf (id, 64, "%s", json_string_value (value));
    else if (json_is_integer (value))
        snprintf (id, 64, "%lld", (long long) json_integer_value (value));
    else
        return false;
    return true;
}

static bool begin_hop (reader *r, const char *id, double at, uint32_t row)
{
    open_hop *open = grow (r->open, r->n_open, &r->open_room, sizeof *open, r->err);
    if (!open)
        return false;
    r->open = open;
    r->open[r->n_open] = (open_hop){at, row};
    if (json_object_set_new (r->open_ids, id, json_integer ((json_int_t) r->n_open)) != 0)
        return wl_fail (r->err, WL_ERROR_INTERNAL, "out of memory for the trace's hops");
    r->n_open++;
    return true;
}

/* An end without a start is passed over: its start may lie before what was recorded. */
static bool end_hop (reader *r, const char *id, double at, uint32_t row)
{
    wl_trace *t = r->trace;
    const json_t *index = json_object_get (r->open_ids, id);
    if (!index)
        return true;
    const open_hop *start = &r->open[json_integer_value (index)];
    wl_trace_hop *hops = grow (t->hops, t->n_hops, &r->hops_room, sizeof *hops, r->err);
    if (!hops)
        return false;
    t->hops = hops;
    t->hops[t->n_hops++] = (wl_trace_hop){start->from, at > start->from ? at : start->from, start->row, row};
    json_object_del (r->open_ids, id);
    return true;
}

static bool read_event (reader *r, const json_t *event, size_t index)
{
    const char *phase = json_string_value (json_object_get (event, "ph"));
    char id[64];
    double at;
    uint32_t row;
    if (!phase)
        return bad (r, index, "has no \"ph\"");
    if (strcmp (phase, "X") == 0)
        return read_bar (r, event, index);
    if (strcmp (phase, "M") == 0) {
        const char *name = json_string_value (json_object_get (event, "name"));
        if (!name || strcmp (name, "thread_name") != 0)
            return true;
        if (!find_row (r, event, index, &row))
            return false;
        r->trace->rows[row].name = json_string_value (json_object_get (json_object_get (event, "args"), "name"));
        return true;
    }
    bool starts = strcmp (phase, "s") == 0;
    if (!starts && strcmp (phase, "f") != 0)
        return true;
    if (!id_of (event, id) || !time_of (event, "ts", &at))
        return bad (r, index, "has no sound id and ts");
    return find_row (r, event, index, &row) && (starts ? begin_hop (r, id, at, row) : end_hop (r, id, at, row));
}

/* -- order -------------------------------------------------------------------------------------------------------------------------------------- */

static int by_number (const void *a, const void *b)
{
    const wl_trace_row *p = a, *q = b;
    if (p->process != q->process)
        return p->process < q->process ? -1 : 1;
    return p->thread < q->thread ? -1 : p->thread > q->thread;
}

static int by_row_and_time (const void *a, const void *b)
{
    const wl_trace_bar *p = a, *q = b;
    if (p->row != q->row)
        return p->row < q->row ? -1 : 1;
    return p->from < q->from ? -1 : p->from > q->from;
}

static int by_time (const void *a, const void *b)
{
    const wl_trace_hop *p = a, *q = b;
    return p->from < q->from ? -1 : p->from > q->from;
}

/* Rows were numbered as they came. */
static bool put_in_order (wl_trace *t, wl_error *err)
{
    wl_trace_row *rows = wl_new (t->n_rows, sizeof *rows, err);
    uint32_t *places = wl_new (t->n_rows, sizeof *places, err);
    bool ok = rows && places;
    if (ok) {
        memcpy (rows, t->rows, t->n_rows * sizeof *rows);
        qsort (rows, t->n_rows, sizeof *rows, by_number);
        for (uint32_t i = 0; i < t->n_rows; i++)
            for (uint32_t k = 0; k < t->n_rows; k++)
                if (by_number (&t->rows[i], &rows[k]) == 0)
                    places[i] = k;
        memcpy (t->rows, rows, t->n_rows * sizeof *rows);
        for (size_t i = 0; i < t->n_bars; i++)
            t->bars[i].row = places[t->bars[i].row];
        for (size_t i = 0; i < t->n_hops; i++) {
            t->hops[i].from_row = places[t->hops[i].from_row];
            t->hops[i].to_row = places[t->hops[i].to_row];
        }
        qsort (t->bars, t->n_bars, sizeof *t->bars, by_row_and_time);
        if (t->n_hops)
            qsort (t->hops, t->n_hops, sizeof *t->hops, by_time);
        t->from = INFINITY;
        for (size_t i = 0; i < t->n_bars; i++) {
            t->from = t->bars[i].from < t->from ? t->bars[i].from : t->from;
            t->to = t->bars[i].to > t->to ? t->bars[i].to : t->to;
        }
    }
    free (rows);
    free (places);
    return ok;
}

/* -- all of it ------------------------------------------------------------------------------------------------------------------------------------ */

static bool read_events (reader *r, json_t *root)
{
    json_t *events = json_is_object (root) ? json_object_get (root, "traceEvents") : root, *event;
    size_t i;
    if (!json_is_array (events))
        return wl_fail (r->err, WL_ERROR_INPUT, "%s: no array of events: expected a trace as --trace writes it",
                        r->path);
    r->open_ids = json_object ();
    r->trace->rows = wl_new (MOST_ROWS, sizeof *r->trace->rows, r->err);
    if (!r->open_ids || !r->trace->rows)
        return wl_fail (r->err, WL_ERROR_INTERNAL, "out of memory for the trace %s", r->path);
    json_array_foreach (events, i, event) if (!read_event (r, event, i)) return false;
    if (r->trace->n_bars == 0)
        return wl_fail (r->err, WL_ERROR_INPUT, "%s: a trace without a step: nothing was run while it was written",
                        r->path);
    return put_in_order (r->trace, r->err);
}

bool wl_trace_read (const char *path, wl_trace *trace, wl_error *err)
{
    json_error_t trouble;
    size_t length;
    reader r = {.path = path, .trace = trace, .err = err};
    *trace = (wl_trace){0};
    char *text = wl_read_file (path, FILE_LIMIT, &length, err);
    if (!text)
        return false;
    json_t *root = json_loadb (text, length, 0, &trouble);
    free (text);
    trace->json = root;
    bool ok = root ? read_events (&r, root)
                   : wl_fail (err, WL_ERROR_INPUT, "%s: line %d: no JSON (%s): is the trace complete?", path,
                              trouble.line, trouble.text);
    free (r.open);
    json_decref (r.open_ids);
    if (!ok)
        wl_trace_free (trace);
    return ok;
}

void wl_trace_free (wl_trace *trace)
{
    free (trace->rows);
    free (trace->bars);
    free (trace->hops);
    json_decref (trace->json);
    *trace = (wl_trace){0};
}
