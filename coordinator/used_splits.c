/* Splits that were used; see used_splits.h.
 *
 *   splits.json   {KEY: {"used_at": seconds since 1970, "stages": [[worker, first layer, last layer], …]}, …}
 *
 * Two coordinators that end at once may lose one another's entry, which costs one of them a plan of its own at the next start. */
#include "used_splits.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "engine/memory.h"

enum { FILE_LIMIT = 4 << 20 };

void wl_used_split_key (const uint8_t fingerprint[WL_FINGERPRINT_BYTES], const wl_plan_worker *workers, uint32_t n,
                        char out[WL_SPLIT_KEY_BYTES])
{
    crypto_generichash_state state;
    uint8_t hash[(WL_SPLIT_KEY_BYTES - 1) / 2];
    crypto_generichash_init (&state, NULL, 0, sizeof hash);
    crypto_generichash_update (&state, fingerprint, WL_FINGERPRINT_BYTES);
    for (uint32_t i = 0; i < n; i++) {
        const wl_plan_worker *w = &workers[i];
        crypto_generichash_update (&state, (const uint8_t *) w->name, strlen (w->name) + 1);
        crypto_generichash_update (&state, (const uint8_t *) &w->speed.n_threads, sizeof w->speed.n_threads);
    }
    crypto_generichash_final (&state, hash, sizeof hash);
    sodium_bin2hex (out, WL_SPLIT_KEY_BYTES, hash, sizeof hash);
}

static json_t *load_all (const char *path)
{
    struct stat status;
    bool readable = path && stat (path, &status) == 0 && status.st_size <= FILE_LIMIT;
    json_t *all = readable ? json_load_file (path, 0, NULL) : NULL;
    if (json_is_object (all))
        return all;
    json_decref (all);
    return json_object ();
}

static bool read_range (const json_t *json, wl_plan_range *out)
{
    json_int_t numbers[3];
    for (size_t i = 0; i < 3; i++) {
        const json_t *number = json_array_get (json, i);
        numbers[i] = json_integer_value (number);
        if (!json_is_integer (number) || numbers[i] < 0 || numbers[i] >= UINT32_MAX)
            return false;
    }
    *out = (wl_plan_range){(uint32_t) numbers[0], (uint32_t) numbers[1], (uint32_t) numbers[2]};
    return true;
}

wl_plan_range *wl_used_split_load (const char *key, uint32_t *n)
{
    char *path = wl_measured_path ("splits.json");
    json_t *all = load_all (path);
    const json_t *stages = json_object_get (json_object_get (all, key), "stages");
    size_t count = json_array_size (stages), read = 0;
    wl_plan_range *ranges = count && count <= UINT32_MAX ? wl_new (count, sizeof *ranges, NULL) : NULL;
    while (ranges && read < count && read_range (json_array_get (stages, read), &ranges[read]))
        read++;
    if (read < count) {
        free (ranges);
        ranges = NULL;
    }
    *n = ranges ? (uint32_t) count : 0;
    json_decref (all);
    free (path);
    return ranges;
}

/* Deletes those that were not used for the longest time, until there is room for one more. */
static void make_room (json_t *all)
{
    while (json_object_size (all) >= WL_USED_SPLITS) {
        const char *key, *oldest = NULL;
        json_int_t least = 0;
        json_t *entry;
        json_object_foreach (all, key, entry)
        {
            json_int_t at = json_integer_value (json_object_get (entry, "used_at"));
            if (!oldest || at < least) {
                oldest = key;
                least = at;
            }
        }
        json_object_del (all, oldest);
    }
}

void wl_used_split_store (const char *key, const wl_plan *plan)
{
    char *path = wl_measured_path ("splits.json");
    if (!path)
        return;
    json_t *all = load_all (path), *stages = json_array ();
    for (uint32_t i = 0; i < plan->n_stages; i++) {
        const wl_plan_stage *s = &plan->stages[i];
        json_array_append_new (stages,
                               json_pack ("[i,i,i]", (int) s->worker, (int) s->first_layer, (int) s->last_layer));
    }
    json_object_del (all, key);
    make_room (all);
    json_object_set_new (all, key, json_pack ("{s:I, s:o}", "used_at", (json_int_t) time (NULL), "stages", stages));
    wl_measured_write (path, all);
    json_decref (all);
    free (path);
}
