/* Names to indices: tensors and metadata keys of a GGUF file, pieces of a vocabulary.
 *
 * Indices count up from 0 in the order of adding. The names' bytes belong to the caller and must outlive the table. Names come
 * from files, so the hash is keyed by a seed that differs from table to table: a file cannot be made to collide.
 *
 * Thread: immutable once filled, then any thread may look up. */
#ifndef WL_ENGINE_NAME_TABLE_H
#define WL_ENGINE_NAME_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "gguf.h"

typedef struct wl_name_table {
    wl_text *names;  /* [count] */
    uint32_t *slots; /* [mask + 1]: index + 1, or 0; at most half full */
    size_t count, room, mask;
    uint64_t seed;
} wl_name_table;

/* Room for `expected` names before the table grows. On failure the table is empty and safe to free. */
bool wl_name_table_init (wl_name_table *table, size_t expected, wl_error *err);
void wl_name_table_free (wl_name_table *table);

/* Adds `name`, or finds it if it is there already (*is_new says which; may be NULL). */
bool wl_name_table_add (wl_name_table *table, wl_text name, uint32_t *index, bool *is_new, wl_error *err);

/* False if absent, or if the table is empty. */
bool wl_name_table_find (const wl_name_table *table, wl_text name, uint32_t *index);

#endif
