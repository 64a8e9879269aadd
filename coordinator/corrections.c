/* What real steps taught about predictions; see corrections.h.
 *
 * The median of a run's quotients counts, so that moments in which the machine was busy elsewhere do not; half of it is the next factor, the other half what was known. */
#include "corrections.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/memory.h"

enum { ROOM = 128, ENOUGH = 3, MOST_FILE = 1 << 20 };
static const double least = 0.2, most = 10; /* what is beyond says more about the moment than about the machine */

struct wl_lessons {
    const wl_speed *speed;
    const wl_cost *cost;
    bool together;
    double quotients[WL_CORRECTIONS][ROOM];
    uint32_t n[WL_CORRECTIONS], seen[WL_CORRECTIONS];
};

static void name_entry (const wl_speed *speed, bool together, const char *kind, char *out, size_t size)
{
    /* what corrects figures says nothing about those that are measured in another way */
    snprintf (out, size, "%s|%s|%u%s|%s|%d", speed->cpu, speed->isa, speed->n_threads, together ? " together" : "",
              kind, WL_SPEED_VERSION);
}

static json_t *load_all (char **path)
{
    *path = wl_measured_path ("corrections.json");
    json_t *all = *path ? json_load_file (*path, 0, NULL) : NULL;
    if (json_is_object (all))
        return all;
    json_decref (all);
    return json_object ();
}

static wl_correction read_entry (const json_t *entry)
{
    wl_correction c = {{1, 1, 1}, {0}};
    for (size_t i = 0; i < WL_CORRECTIONS; i++) {
        double factor = json_number_value (json_array_get (json_object_get (entry, "factor"), i));
        json_int_t n = json_integer_value (json_array_get (json_object_get (entry, "n"), i));
        if (factor >= least && factor <= most && n > 0) {
            c.factor[i] = factor;
            c.n[i] = n > 1000000 ? 1000000 : (uint32_t) n;
        }
    }
    return c;
}

static wl_correction load (const wl_speed *speed, bool together, const char *kind)
{
    char name[256], *path;
    json_t *all = load_all (&path);
    name_entry (speed, together, kind, name, sizeof name);
    wl_correction c = read_entry (json_object_get (all, name));
    json_decref (all);
    free (path);
    return c;
}

wl_correction wl_correction_load (const wl_speed *speed, const char *kind)
{
    return load (speed, false, kind);
}

wl_correction wl_correction_load_together (const wl_speed *whole, const char *kind)
{
    const wl_correction together = load (whole, true, kind), alone = load (whole, false, kind);
    return wl_correction_or (&together, &alone);
}

wl_lessons *wl_lessons_new (const wl_speed *speed, const wl_cost *cost, bool together, wl_error *err)
{
    wl_lessons *l = wl_new (1, sizeof *l, err);
    if (l) {
        l->speed = speed;
        l->cost = cost;
        l->together = together;
    }
    return l;
}

void wl_lessons_add (wl_lessons *l, uint32_t first_layer, uint32_t last_layer, const wl_step_shape *shape,
                     double seconds)
{
    size_t slot = shape->rows <= 2                        ? 0
                  : shape->rows >= 3 && shape->rows <= 12 ? 1
                  : shape->rows >= 48                     ? 2
                                                          : WL_CORRECTIONS;
    double predicted = wl_cost_step_s (l->cost, l->speed, NULL, first_layer, last_layer, shape);
    if (slot == WL_CORRECTIONS || !(predicted > 0) || !(seconds > 0))
        return;
    uint32_t at = l->seen[slot]++ % ROOM;
    l->quotients[slot][at] = seconds / predicted;
    l->n[slot] = l->n[slot] < ROOM ? l->n[slot] + 1 : ROOM;
}

static int by_value (const void *a, const void *b)
{
    double x = *(const double *) a, y = *(const double *) b;
    return x < y ? -1 : x > y;
}

void wl_lessons_free (wl_lessons **lessons)
{
    wl_lessons *l = *lessons;
    char name[256], *path;
    bool changed = false;
    if (!l)
        return;
    json_t *all = load_all (&path);
    name_entry (l->speed, l->together, wl_cost_kind (l->cost), name, sizeof name);
    wl_correction c = read_entry (json_object_get (all, name));
    for (size_t i = 0; i < WL_CORRECTIONS; i++) {
        if (l->n[i] < ENOUGH)
            continue;
        qsort (l->quotients[i], l->n[i], sizeof (double), by_value);
        double median = l->quotients[i][l->n[i] / 2];
        if (median < least || median > most)
            continue;
        c.factor[i] = c.n[i] ? (c.factor[i] + median) / 2 : median;
        c.n[i] += c.n[i] < 1000000 ? l->n[i] : 0;
        changed = true;
    }
    if (changed && path) {
        json_object_set_new (all, name,
                             json_pack ("{s:[f,f,f], s:[i,i,i]}", "factor", c.factor[0], c.factor[1], c.factor[2], "n",
                                        (int) c.n[0], (int) c.n[1], (int) c.n[2]));
        wl_measured_write (path, all);
    }
    json_decref (all);
    free (path);
    free (l);
    *lessons = NULL;
}
