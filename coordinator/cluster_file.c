/* A described cluster; see cluster_file.h.
 *
 * A file says either what a machine was measured to do ("speed", as `plan --json` prints it), or a few figures from which a curve is made: one row streams the weights at "bandwidth"; n rows take as long,
 * or as long as their multiply-adds at "macs_per_s", whichever is longer; or as many times as long as "row_cost" says. */
#include "cluster_file.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/memory.h"
#include "options.h"

enum { FILE_LIMIT = 16 << 20, MOST_WORKERS = 4096, MOST_PAIRED = 1024, MOST_REQUESTS = 1000000 };

typedef struct reader {
    const char *path;
    wl_error *err;
} reader;

/* The coordinator's place, where none of the machines is its own. */
static const char elsewhere[] = "elsewhere";

typedef struct group { /* machines of one description */
    const char *name;
    uint32_t first_machine, n_machines, first_worker, n_workers; /* workers of each machine */
    bool whole_known;
} group;

static bool __attribute__ ((format (printf, 2, 3))) bad (const reader *r, const char *format, ...)
{
    char text[384];
    va_list args;
    va_start (args, format);
    vsnprintf (text, sizeof text, format, args);
    va_end (args);
    return wl_fail (r->err, WL_ERROR_INPUT, "%s: %s", r->path, text);
}

/* A number of an object; `fallback` where it is absent, unless that is NAN: then it must be there. */
static bool number (const reader *r, const json_t *object, const char *where, const char *key, double least,
                    double most, double fallback, double *out)
{
    const json_t *value = json_object_get (object, key);
    *out = value ? json_number_value (value) : fallback;
    if (!value && !isnan (fallback))
        return true;
    if (json_is_number (value) && *out >= least && *out <= most)
        return true;
    return bad (r, "%s.%s: %s: expected a number from %g to %g", where, key, value ? "out of range" : "missing", least,
                most);
}

static bool whole_number (const reader *r, const json_t *object, const char *where, const char *key, double most,
                          double fallback, uint32_t *out)
{
    double value;
    if (!number (r, object, where, key, 1, most, fallback, &value))
        return false;
    *out = (uint32_t) value;
    return value == *out || bad (r, "%s.%s: expected a whole number", where, key);
}

static bool read_link (const reader *r, const json_t *object, const char *where, wl_plan_link *out)
{
    return number (r, object, where, "latency_s", 0, 60, NAN, &out->latency_s) &&
           number (r, object, where, "bytes_per_s", 1, 1e15, NAN, &out->bytes_per_s);
}

/* -- machines ---------------------------------------------------------------------------------------------------------------------------------------- */

/* How many times as long as one row so many take. False, without a word, where the description has no curve. */
static bool row_cost (const json_t *curve, double rows, double *out)
{
    double below = 1, below_cost = 1, above = INFINITY, above_cost = 0;
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *) curve, key, value)
    {
        double at = strtod (key, NULL), cost = json_number_value (value);
        if (at <= rows && at > below) {
            below = at;
            below_cost = cost;
        }
        if (at >= rows && at < above) {
            above = at;
            above_cost = cost;
        }
    }
    if (!json_object_size (curve))
        return false;
    *out = above == INFINITY ? below_cost * rows / below
           : above <= below  ? above_cost
                             : below_cost + (above_cost - below_cost) * (rows - below) / (above - below);
    return true;
}

static bool check_row_cost (const reader *r, const json_t *curve, const char *where)
{
    const char *key;
    json_t *value;
    if (curve && !json_is_object (curve))
        return bad (r, "%s.row_cost: expected an object such as {\"1\": 1, \"8\": 1.5, \"128\": 12}", where);
    json_object_foreach ((json_t *) curve, key, value)
    {
        double rows = strtod (key, NULL), cost = json_number_value (value);
        if (!(rows >= 1 && rows <= 65536) || !(cost >= 1e-3 && cost <= 1e6))
            return bad (
                r, "%s.row_cost: \"%s\": expected a number of rows, and how many times as long as one row they take",
                where, key);
    }
    return true;
}

static bool describe_speed (const reader *r, const json_t *machine, const char *where, uint32_t threads, wl_speed *out)
{
    double bandwidth, macs, attention, factor;
    const json_t *curve = json_object_get (machine, "row_cost");
    if (!number (r, machine, where, "bandwidth", 1e6, 1e15, NAN, &bandwidth) ||
        !number (r, machine, where, "macs_per_s", 1e6, 1e18, NAN, &macs) ||
        !number (r, machine, where, "attention_macs_per_s", 1e6, 1e18, macs / 4, &attention) ||
        !check_row_cost (r, curve, where))
        return false;
    *out = (wl_speed){.n_threads = threads,
                      .n_cores = threads,
                      .attention_s = {1 / attention, 1 / attention},
                      .element_s = WL_SPEED_ELEMENT_S,
                      .dispatch_s = WL_SPEED_DISPATCH_S};
    for (size_t type = 0; type < WL_SPEED_TYPES; type++)
        for (size_t i = 0; i < WL_SPEED_ROWS; i++) {
            const wl_format *format = wl_format_find (wl_speed_types[type]);
            double stream = (double) format->tile_bytes / format->block_elements / WL_TILE_ROWS / bandwidth;
            double compute = wl_speed_rows[i] / macs;
            out->seconds_per_weight[type][i] = row_cost (curve, wl_speed_rows[i], &factor) ? stream * factor
                                               : stream > compute                          ? stream
                                                                                           : compute;
        }
    return wl_speed_is_sound (out) ||
           bad (r, "%s: its figures make no machine: a weight would take less than 1e-16 s or more than 1e-3 s", where);
}

static bool read_correction (const reader *r, const json_t *machine, const char *where, const char *key,
                             wl_correction *out)
{
    const json_t *list = json_object_get (machine, key);
    *out = (wl_correction){{1, 1, 1}, {0}};
    if (!list)
        return true;
    for (size_t i = 0; i < WL_CORRECTIONS; i++) {
        out->factor[i] = json_number_value (json_array_get (list, i));
        out->n[i] = 1;
        if (!(out->factor[i] >= 0.01 && out->factor[i] <= 100) || json_array_size (list) != WL_CORRECTIONS)
            return bad (r, "%s.%s: expected three numbers from 0.01 to 100, for 1, 8 and 128 rows", where, key);
    }
    return true;
}

static bool read_speeds (const reader *r, const json_t *machine, const char *where, wl_plan_worker *w,
                         wl_plan_machine *m, uint32_t n_workers, bool *whole_known)
{
    const json_t *own = json_object_get (machine, "speed"), *whole = json_object_get (machine, "whole_speed");
    uint32_t threads;
    if (!whole_number (r, machine, where, "threads", 65536, 1, &threads))
        return false;
    if (own && !wl_speed_from_json (own, &w->speed))
        return bad (r, "%s.speed: not what `woolly plan --json` prints there", where);
    if (!own && !describe_speed (r, machine, where, threads, &w->speed))
        return false;
    w->source = WL_SPEED_DESCRIBED;
    m->whole = w->speed;
    if (whole && !wl_speed_from_json (whole, &m->whole))
        return bad (r, "%s.whole_speed: not what `woolly plan --json` prints there", where);
    *whole_known = whole || n_workers == 1 || !own; /* described figures are the whole machine's */
    if (!*whole_known)
        m->whole = (wl_speed){0};
    return read_correction (r, machine, where, "correction", &w->correction) &&
           read_correction (r, machine, where, "whole_correction", &m->correction);
}

static bool read_group (const reader *r, const json_t *machine, size_t index, wl_cluster_file *out, group *g)
{
    char where[64];
    double memory;
    wl_plan_worker w = {.link_source = WL_SPEED_DESCRIBED};
    wl_plan_machine m = {0};
    snprintf (where, sizeof where, "machines[%zu]", index);
    if (!number (r, machine, where, "memory_bytes", 1e6, 1e16, NAN, &memory) ||
        !read_speeds (r, machine, where, &w, &m, g->n_workers, &g->whole_known))
        return false;
    w.required = json_is_true (json_object_get (machine, "required"));
    w.memory_bytes = (uint64_t) memory /
                     (out->input.n_machines > 1 ? g->n_workers : 1); /* of one machine, whatever their sum leaves */
    for (uint32_t k = 0; k < g->n_machines; k++) {
        out->input.machines[g->first_machine + k] = m;
        for (uint32_t i = 0; i < g->n_workers; i++) {
            uint32_t at = g->first_worker + k * g->n_workers + i;
            char *name = out->input.names[at];
            if (g->n_machines == 1 && g->n_workers == 1)
                snprintf (name, sizeof out->input.names[at], "%.60s", g->name);
            else if (g->n_workers == 1)
                snprintf (name, sizeof out->input.names[at], "%.60s-%u", g->name, k + 1);
            else if (g->n_machines == 1)
                snprintf (name, sizeof out->input.names[at], "%.60s.%u", g->name, i + 1);
            else
                snprintf (name, sizeof out->input.names[at], "%.60s-%u.%u", g->name, k + 1, i + 1);
            w.name = name;
            w.machine = g->first_machine + k;
            out->input.workers[at] = w;
        }
    }
    return true;
}

/* -- links ---------------------------------------------------------------------------------------------------------------------------------------------- */

static const group *find_group (const group *groups, size_t n, const char *name)
{
    for (size_t i = 0; i < n && name; i++)
        if (strcmp (groups[i].name, name) == 0)
            return &groups[i];
    return NULL;
}

static bool is_in (const group *g, uint32_t machine)
{
    return machine >= g->first_machine && machine - g->first_machine < g->n_machines;
}

/* Sets the link between all machines of one group and all of another (or the same), both ways. `coordinator`: the machine it is on. */
static void set_pairs (wl_plan_input *in, const group *a, const group *b, uint32_t coordinator, wl_plan_link link)
{
    uint32_t n = in->n_workers;
    for (uint32_t x = 0; x <= n; x++)
        for (uint32_t y = 0; y <= n; y++) {
            uint32_t mx = x < n ? in->workers[x].machine : coordinator,
                     my = y < n ? in->workers[y].machine : coordinator;
            if (mx != my && ((is_in (a, mx) && is_in (b, my)) || (is_in (b, mx) && is_in (a, my))))
                in->pairs[(size_t) x * (n + 1) + y] = link;
        }
}

static bool read_links (const reader *r, const json_t *root, wl_cluster_file *out, const group *groups, size_t n_groups)
{
    wl_plan_input *in = &out->input;
    const json_t *links = json_object_get (root, "links"), *within = json_object_get (links, "within"),
                 *between = json_object_get (links, "between");
    wl_plan_link common, inside = {2e-5, 5e9};
    uint32_t n = in->n_workers;
    const char *on = json_string_value (json_object_get (root, "coordinator"));
    const group *home = on ? find_group (groups, n_groups + 1, on) : &groups[0];
    if (!home)
        return bad (r, "coordinator: no machine is called \"%s\"", on);
    if (!read_link (r, links, "links", &common) || (within && !read_link (r, within, "links.within", &inside)))
        return false;
    for (uint32_t i = 0; i < in->n_machines; i++)
        in->machines[i].within = inside;
    for (uint32_t i = 0; i < n; i++)
        in->workers[i].link = in->workers[i].machine == home->first_machine ? inside : common;
    if (n > MOST_PAIRED) /* too many for a table: all links between machines are the common one */
        return !json_array_size (between) ||
               bad (r, "links.between: at most %d workers can have links of their own", MOST_PAIRED);
    in->pairs = wl_new ((size_t) (n + 1) * (n + 1), sizeof *in->pairs, r->err);
    if (!in->pairs)
        return false;
    for (uint32_t x = 0; x <= n; x++)
        for (uint32_t y = 0; y <= n; y++) {
            uint32_t mx = x < n ? in->workers[x].machine : home->first_machine,
                     my = y < n ? in->workers[y].machine : home->first_machine;
            in->pairs[(size_t) x * (n + 1) + y] = mx == my ? inside : common;
        }
    for (size_t i = 0; i < json_array_size (between); i++) {
        char where[64];
        wl_plan_link link;
        const json_t *pair = json_array_get (between, i);
        const char *from = json_string_value (json_object_get (pair, "from")),
                   *to = json_string_value (json_object_get (pair, "to"));
        const group *a = find_group (groups, n_groups + 1, from), *b = find_group (groups, n_groups + 1, to);
        snprintf (where, sizeof where, "links.between[%zu]", i);
        if (!a || !b)
            return bad (r, "%s: no machine is called \"%s\"", where, !from || !to ? "" : a ? to : from);
        if (!read_link (r, pair, where, &link))
            return false;
        set_pairs (in, a, b, home->first_machine, link);
    }
    return true;
}

/* -- requests ------------------------------------------------------------------------------------------------------------------------------------------- */

static bool read_range (const reader *r, const json_t *mix, const char *key, uint32_t out[2])
{
    const json_t *range = json_object_get (mix, key);
    for (size_t i = 0; i < 2; i++) {
        double value = json_number_value (json_is_array (range) ? json_array_get (range, i) : range);
        if (!(value >= 1 && value <= 10000000) || (json_is_array (range) && json_array_size (range) != 2))
            return bad (r, "requests.%s: expected a number of tokens, or two: the fewest and the most", key);
        out[i] = (uint32_t) value;
    }
    return out[0] <= out[1] || bad (r, "requests.%s: the fewest are more than the most", key);
}

static bool read_mix (const reader *r, const json_t *root, wl_request_mix *out)
{
    const json_t *mix = json_object_get (root, "requests");
    double seed;
    *out = (wl_request_mix){0};
    if (!mix)
        return true;
    if (!whole_number (r, mix, "requests", "count", MOST_REQUESTS, NAN, &out->count) ||
        !number (r, mix, "requests", "per_second", 0, 1e6, 0, &out->per_second) ||
        !whole_number (r, mix, "requests", "slots", 4096, 8, &out->slots) ||
        !number (r, mix, "requests", "seed", 0, 1e15, 1, &seed) || !read_range (r, mix, "prompt_tokens", out->prompt) ||
        !read_range (r, mix, "generated_tokens", out->generated))
        return false;
    out->seed = (uint64_t) seed;
    return true;
}

/* SplitMix64 (Steele, Lea, Flood 2014): from 0 to below 1. */
static double draw (uint64_t *state)
{
    uint64_t z = (*state += UINT64_C (0x9e3779b97f4a7c15));
    z = (z ^ z >> 30) * UINT64_C (0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C (0x94d049bb133111eb);
    return (double) ((z ^ z >> 31) >> 11) * 0x1p-53;
}

static uint32_t draw_between (uint64_t *state, const uint32_t range[2])
{
    return range[0] + (uint32_t) (draw (state) * (range[1] - range[0] + 1.0));
}

wl_sim_request *wl_request_mix_new (const wl_request_mix *mix, wl_error *err)
{
    uint64_t state = mix->seed;
    double at = 0;
    wl_sim_request *requests = wl_new (mix->count, sizeof *requests, err);
    for (uint32_t i = 0; requests && i < mix->count; i++) {
        if (mix->per_second > 0)
            at += -log (1 - draw (&state)) / mix->per_second;
        requests[i].arrival_s = at;
        requests[i].n_prompt = draw_between (&state, mix->prompt);
        requests[i].n_generated = draw_between (&state, mix->generated);
    }
    return requests;
}

/* -- the file --------------------------------------------------------------------------------------------------------------------------------------------- */

static bool read_groups (const reader *r, const json_t *machines, group *groups, uint32_t *n_machines,
                         uint32_t *n_workers)
{
    *n_machines = *n_workers = 0;
    for (size_t i = 0; i < json_array_size (machines); i++) {
        char where[64];
        const json_t *machine = json_array_get (machines, i);
        group *g = &groups[i];
        snprintf (where, sizeof where, "machines[%zu]", i);
        g->name = json_string_value (json_object_get (machine, "name"));
        if (!g->name || !*g->name || find_group (groups, i, g->name))
            return bad (r, "%s.name: expected a name of its own", where);
        if (!whole_number (r, machine, where, "count", MOST_WORKERS, 1, &g->n_machines) ||
            !whole_number (r, machine, where, "workers", 64, 1, &g->n_workers))
            return false;
        g->first_machine = *n_machines;
        g->first_worker = *n_workers;
        *n_machines += g->n_machines;
        *n_workers += g->n_machines * g->n_workers;
        if (*n_workers > MOST_WORKERS)
            return bad (r, "machines: more than %d workers", MOST_WORKERS);
    }
    groups[json_array_size (machines)] = (group){.name = elsewhere, .first_machine = *n_machines, .n_machines = 1};
    return *n_machines > 0 || bad (r, "machines: expected a list of machines");
}

static bool read_all (const reader *r, const json_t *root, wl_cluster_file *out)
{
    const json_t *machines = json_object_get (root, "machines");
    const char *name = json_string_value (json_object_get (root, "name"));
    uint32_t n_machines, n_workers;
    group *groups = wl_new (json_array_size (machines) + 1, sizeof *groups, r->err); /* and elsewhere */
    bool ok = groups && read_groups (r, machines, groups, &n_machines, &n_workers) &&
              wl_plan_input_new (&out->input, n_workers, n_machines, r->err);
    snprintf (out->name, sizeof out->name, "%s", name ? name : "a described cluster");
    for (size_t i = 0; ok && i < json_array_size (machines); i++)
        ok = read_group (r, json_array_get (machines, i), i, out, &groups[i]);
    ok = ok && read_links (r, root, out, groups, json_array_size (machines)) && read_mix (r, root, &out->mix);
    free (groups);
    return ok;
}

bool wl_cluster_file_read (const char *path, wl_cluster_file *out, wl_error *err)
{
    const reader r = {path, err};
    json_error_t why;
    size_t length;
    *out = (wl_cluster_file){0};
    char *text = wl_read_file (path, FILE_LIMIT, &length, err);
    if (!text)
        return false;
    json_t *root = json_loadb (text, length, JSON_REJECT_DUPLICATES, &why);
    bool ok = root || bad (&r, "line %d: %s", why.line, why.text);
    const json_t *cluster = json_object_get (root, "cluster"); /* of what `plan --json` printed */
    ok = ok && (json_is_object (root) || bad (&r, "expected an object with machines and links"));
    ok = ok && read_all (&r, cluster ? cluster : root, out);
    if (!ok)
        wl_cluster_file_free (out);
    json_decref (root);
    free (text);
    return ok;
}

void wl_cluster_file_free (wl_cluster_file *file)
{
    wl_plan_input_free (&file->input);
}

/* -- writing ------------------------------------------------------------------------------------------------------------------------------------------------ */

static json_t *link_json (wl_plan_link link)
{
    return json_pack ("{s:f, s:f}", "latency_s", link.latency_s, "bytes_per_s", link.bytes_per_s);
}

/* The first worker on a machine, and how many there are. */
static uint32_t first_on (const wl_plan_request *r, uint32_t machine, uint32_t *n)
{
    uint32_t first = 0;
    *n = 0;
    for (uint32_t i = r->n_workers; i-- > 0;)
        if (r->workers[i].machine == machine) {
            first = i;
            ++*n;
        }
    return first;
}

static void add_correction (json_t *json, const char *key, const wl_correction *c)
{
    if (wl_correction_is_known (c))
        json_object_set_new (
            json, key,
            json_pack ("[f,f,f]", wl_correction_at (c, 1), wl_correction_at (c, 8), wl_correction_at (c, 128)));
}

static json_t *machine_json (const wl_plan_request *r, uint32_t machine, uint32_t first, uint32_t n)
{
    const wl_plan_worker *w = &r->workers[first]; /* all workers of one machine are written as its first one */
    const wl_speed *whole = &r->machines[machine].whole;
    double memory = (double) w->memory_bytes * (r->share_one_machine ? 1 : n);
    json_t *json = json_pack ("{s:s, s:i, s:f, s:b, s:i, s:o}", "name", w->name, "workers", (int) n, "memory_bytes",
                              memory, "required", (int) w->required, "threads", (int) w->speed.n_threads, "speed",
                              wl_speed_to_json (&w->speed));
    if (whole->n_threads)
        json_object_set_new (json, "whole_speed", wl_speed_to_json (whole));
    add_correction (json, "correction", &w->correction);
    const wl_correction effective = wl_plan_whole_correction (r, first);
    if (wl_correction_is_known (&r->machines[machine].correction))
        add_correction (json, "whole_correction", &effective);
    return json;
}

static void add_between (json_t *between, const char *from, const char *to, wl_plan_link link)
{
    if (isfinite (link.latency_s) && isfinite (link.bytes_per_s))
        json_array_append_new (between, json_pack ("{s:s, s:s, s:f, s:f}", "from", from, "to", to, "latency_s",
                                                   link.latency_s, "bytes_per_s", link.bytes_per_s));
}

json_t *wl_cluster_file_of (const wl_plan_request *r)
{
    enum { MOST_WRITTEN = 64 };
    json_t *machines = json_array (), *between = json_array ();
    uint32_t n_home, n, n_other;
    uint32_t home = first_on (r, 0, &n_home);
    wl_plan_link common = {1e-3, 1e8}; /* of pairs beyond MOST_WRITTEN */
    for (uint32_t m = 0; m < r->n_machines; m++) {
        uint32_t first = first_on (r, m, &n);
        if (n == 0)
            continue;
        json_array_append_new (machines, machine_json (r, m, first, n));
        if (m > 0 && m < MOST_WRITTEN)
            add_between (between, n_home ? r->workers[home].name : elsewhere, r->workers[first].name,
                         wl_plan_hop (r, r->n_workers, first));
        for (uint32_t k = 1; k < m && m < MOST_WRITTEN; k++) {
            uint32_t other = first_on (r, k, &n_other);
            if (n_other)
                add_between (between, r->workers[other].name, r->workers[first].name, wl_plan_hop (r, other, first));
        }
        common = m > 0 ? r->workers[first].link : common;
    }
    json_t *links = link_json (common);
    json_object_set_new (links, "within", link_json (r->machines[0].within));
    json_object_set_new (links, "between", between);
    return json_pack ("{s:s, s:o, s:o}", "coordinator", n_home ? r->workers[home].name : elsewhere, "machines",
                      machines, "links", links);
}
