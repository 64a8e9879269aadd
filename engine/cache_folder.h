/* The folder in which a worker keeps what it would otherwise fetch or make again, bounded in size.
 *
 *   FOLDER/KIND/KEY/…     an entry: files that belong together, such as the shipped weights of one model
 *
 * Whoever uses an entry holds a shared lock (flock) on the file `lock` in it, so that it ends with the process, whatever ends it. Only entries that nobody
 * holds are ever deleted, those first that were not used for the longest time: the time of `lock` is that of the last use. Processes share the
 * folder freely; what happens inside of an entry is the business of its kind.
 * Thread: any, each its own entries. */
#ifndef WL_ENGINE_CACHE_FOLDER_H
#define WL_ENGINE_CACHE_FOLDER_H

#include <stdbool.h>
#include <stdint.h>

#include "error.h"

typedef struct wl_cache_entry wl_cache_entry;

/* `given` (--cache), else $WOOLLY_CACHE, $XDG_CACHE_HOME/woolly, ~/.cache/woolly; malloc'd. It need not exist. */
char *wl_cache_folder (const char *given, wl_error *err);

/* Opens or makes an entry and holds it. `kind` and `key` are names of folders. WL_ERROR_CLUSTER where the folder cannot be written. */
wl_cache_entry *wl_cache_open (const char *folder, const char *kind, const char *key, wl_error *err);
const char *wl_cache_path (const wl_cache_entry *entry);
void wl_cache_close (wl_cache_entry **entry);

/* Deletes entries of all kinds, least recently used first, until those left and `wanted` more bytes are within `limit`, and the file system has the room. limit 0: half
 * of what the entries take and the file system could still give. WL_ERROR_CLUSTER with the figures where what is left is in use. */
bool wl_cache_make_room (const char *folder, uint64_t limit, uint64_t wanted, wl_error *err);

#endif
