/* Names to indices by open addressing with linear probing; see name_table.h. */
#include "name_table.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "memory.h"

enum { MAX_NAMES = INT32_MAX };

static uint64_t mix (uint64_t a, uint64_t b)
{
    unsigned __int128 product = (unsigned __int128) a * b;
    return (uint64_t) product ^ (uint64_t) (product >> 64);
}

/* Multiply-and-fold over 8-byte words, keyed by the seed. */
static uint64_t hash_text (wl_text text, uint64_t seed)
{
    uint64_t hash = seed ^ text.length;
    for (size_t i = 0; i < text.length; i += 8) {
        uint64_t word = 0;
        memcpy (&word, text.data + i, text.length - i < 8 ? text.length - i : 8);
        hash = mix (hash ^ word ^ 0x9e3779b97f4a7c15u, seed | 1);
    }
    return mix (hash, 0xd6e8feb86659fd93u);
}

/* The slot of `name`, or the empty one where it would go. */
static uint32_t *find_slot (const wl_name_table *table, wl_text name)
{
    for (size_t at = hash_text (name, table->seed) & table->mask;; at = (at + 1) & table->mask) {
        uint32_t *slot = &table->slots[at];
        if (*slot == 0)
            return slot;
        wl_text other = table->names[*slot - 1];
        if (other.length == name.length && (name.length == 0 || memcmp (other.data, name.data, name.length) == 0))
            return slot;
    }
}

/* Replaces the slots by at least 2 * room empty ones and enters the names again. */
static bool set_room (wl_name_table *table, size_t room, wl_error *err)
{
    size_t n_slots = 8;
    while (n_slots / 2 < room)
        n_slots *= 2;
    uint32_t *slots = wl_new (n_slots, sizeof *slots, err);
    wl_text *names = slots ? wl_resize (table->names, room, sizeof *names, err) : NULL;
    if (!names) {
        free (slots);
        return false;
    }
    free (table->slots);
    table->slots = slots;
    table->names = names;
    table->room = room;
    table->mask = n_slots - 1;
    for (size_t i = 0; i < table->count; i++)
        *find_slot (table, names[i]) = (uint32_t) i + 1;
    return true;
}

bool wl_name_table_init (wl_name_table *table, size_t expected, wl_error *err)
{
    struct timespec now;
    memset (table, 0, sizeof *table);
    clock_gettime (CLOCK_MONOTONIC, &now);
    table->seed = mix ((uint64_t) now.tv_nsec ^ (uint64_t) (uintptr_t) table, 0x9e3779b97f4a7c15u);
    if (expected > MAX_NAMES)
        return wl_fail (err, WL_ERROR_INPUT, "%zu names are more than a file may have", expected);
    return set_room (table, expected ? expected : 1, err);
}

void wl_name_table_free (wl_name_table *table)
{
    free (table->names);
    free (table->slots);
    memset (table, 0, sizeof *table);
}

bool wl_name_table_add (wl_name_table *table, wl_text name, uint32_t *index, bool *is_new, wl_error *err)
{
    uint32_t *slot = find_slot (table, name);
    if (is_new)
        *is_new = *slot == 0;
    if (*slot == 0) {
        if (table->count == table->room) {
            if (table->room >= MAX_NAMES / 2)
                return wl_fail (err, WL_ERROR_INPUT, "more than %d names", MAX_NAMES / 2);
            if (!set_room (table, table->room * 2, err))
                return false;
            slot = find_slot (table, name);
        }
        table->names[table->count++] = name;
        *slot = (uint32_t) table->count;
    }
    *index = *slot - 1;
    return true;
}

bool wl_name_table_find (const wl_name_table *table, wl_text name, uint32_t *index)
{
    if (table->count == 0)
        return false;
    uint32_t slot = *find_slot (table, name);
    *index = slot - 1;
    return slot != 0;
}
