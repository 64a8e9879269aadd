/* A bounded folder of entries that processes share; see cache_folder.h.
 *
 * An entry may be deleted between the opening of its lock file and the locking: so the lock counts only if the path still leads to the locked file, and
 * else the opening starts over. Deleting is the same from the other side: an exclusive lock, had without waiting, then the files, the lock
 * file last. Sizes are what files occupy, not what they say: shipped weights are files with holes. */
#include "cache_folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "memory.h"

static const char *const kinds[] = {"weights", "packed"};
enum { N_KINDS = sizeof kinds / sizeof kinds[0], MODE = 0700, OPEN_ATTEMPTS = 100, BLOCK_BYTES = 512 };

struct wl_cache_entry {
    char *path;
    int lock;
};

char *wl_cache_folder (const char *given, wl_error *err)
{
    const char *own = getenv ("WOOLLY_CACHE"), *shared = getenv ("XDG_CACHE_HOME"), *home = getenv ("HOME");
    if (given && *given)
        return wl_copy_text (given, strlen (given), err);
    if (own && *own)
        return wl_copy_text (own, strlen (own), err);
    if (shared && *shared)
        return wl_join_path (shared, "woolly", err);
    if (home && *home)
        return wl_join_path (home, ".cache/woolly", err);
    wl_fail (err, WL_ERROR_CLUSTER, "no folder for the cache is known: name one with --cache DIR or WOOLLY_CACHE");
    return NULL;
}

/* -- one entry ------------------------------------------------------------------------------------------------------------------------ */

/* The folder and all above it. */
static bool make_folders (char *path, wl_error *err)
{
    for (char *at = path + 1;; at++) {
        if (*at && *at != '/')
            continue;
        char kept = *at;
        *at = 0;
        bool ok = mkdir (path, MODE) == 0 || errno == EEXIST;
        if (!ok)
            wl_fail (err, WL_ERROR_CLUSTER,
                     "%s: cannot be made: %s: name a folder for the cache that can be written, with --cache DIR or "
                     "WOOLLY_CACHE",
                     path, strerror (errno));
        *at = kept;
        if (!ok || !kept)
            return ok;
    }
}

/* Opens and locks `path`; -1 with errno, EAGAIN where somebody else holds it. */
static int open_locked (const char *path, int flags, int operation)
{
    struct stat held, named;
    int file = open (path, flags | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (file < 0)
        return -1;
    while (flock (file, operation) != 0)
        if (errno != EINTR)
            goto failed;
    if (fstat (file, &held) == 0 && stat (path, &named) == 0 && held.st_ino == named.st_ino &&
        held.st_dev == named.st_dev)
        return file;
    errno = ENOENT;
failed:;
    int reason = errno == EWOULDBLOCK ? EAGAIN : errno;
    close (file);
    errno = reason;
    return -1;
}

static bool take_hold (wl_cache_entry *entry, wl_error *err)
{
    char *lock = wl_join_path (entry->path, "lock", err);
    for (int attempt = 0; lock && entry->lock < 0; attempt++) {
        if (!make_folders (entry->path, err))
            break;
        entry->lock = open_locked (lock, O_CREAT, LOCK_SH);
        if (entry->lock < 0 && (errno != ENOENT || attempt == OPEN_ATTEMPTS)) { /* ENOENT: it was just being deleted */
            wl_fail (err, WL_ERROR_CLUSTER,
                     "%s: cannot be opened: %s: name a folder for the cache that can be written, with --cache DIR or "
                     "WOOLLY_CACHE",
                     lock, strerror (errno));
            break;
        }
    }
    free (lock);
    return entry->lock >= 0;
}

wl_cache_entry *wl_cache_open (const char *folder, const char *kind, const char *key, wl_error *err)
{
    wl_cache_entry *entry = wl_new (1, sizeof *entry, err);
    if (!entry)
        return NULL;
    entry->lock = -1;
    char *of_kind = wl_join_path (folder, kind, err);
    entry->path = of_kind ? wl_join_path (of_kind, key, err) : NULL;
    free (of_kind);
    if (!entry->path || !take_hold (entry, err))
        wl_cache_close (&entry);
    else
        futimens (entry->lock, NULL);
    return entry;
}

const char *wl_cache_path (const wl_cache_entry *entry)
{
    return entry->path;
}

void wl_cache_close (wl_cache_entry **entry)
{
    wl_cache_entry *e = *entry;
    if (!e)
        return;
    if (e->lock >= 0) {
        futimens (e->lock, NULL);
        close (e->lock);
    }
    free (e->path);
    free (e);
    *entry = NULL;
}

/* -- all entries ------------------------------------------------------------------------------------------------------------------------ */

typedef struct found_entry {
    char *path;
    uint64_t bytes;
    struct timespec used;
} found_entry;

typedef struct found_entries {
    found_entry *entries;
    size_t count, room;
} found_entries;

/* Calls back for every name in a folder but the two dots. A folder that is not there is empty. */
static bool each_name (const char *folder,
                       bool (*visit) (const char *folder, const char *name, void *context, wl_error *err),
                       void *context, wl_error *err)
{
    bool ok = true;
    DIR *listing = opendir (folder);
    struct dirent *found;
    if (!listing)
        return true;
    while (ok && (found = readdir (listing)))
        if (strcmp (found->d_name, ".") != 0 && strcmp (found->d_name, "..") != 0)
            ok = visit (folder, found->d_name, context, err);
    closedir (listing);
    return ok;
}

static bool add_size (const char *folder, const char *name, void *context, wl_error *err)
{
    found_entry *entry = context;
    struct stat status;
    char *path = wl_join_path (folder, name, err);
    if (!path)
        return false;
    if (lstat (path, &status) == 0 && S_ISREG (status.st_mode)) {
        entry->bytes += (uint64_t) status.st_blocks * BLOCK_BYTES;
        if (strcmp (name, "lock") == 0)
#ifdef __APPLE__
            entry->used = status.st_mtimespec;
#else
            entry->used = status.st_mtim;
#endif
    }
    free (path);
    return true;
}

static bool add_entry (const char *folder, const char *name, void *context, wl_error *err)
{
    found_entries *all = context;
    struct stat status;
    char *path = wl_join_path (folder, name, err);
    if (!path)
        return false;
    if (lstat (path, &status) != 0 || !S_ISDIR (status.st_mode)) {
        free (path);
        return true;
    }
    if (all->count == all->room) {
        size_t room = all->room ? all->room * 2 : 16;
        found_entry *grown = wl_resize (all->entries, room, sizeof *grown, err);
        if (!grown) {
            free (path);
            return false;
        }
        all->entries = grown;
        all->room = room;
    }
    found_entry *entry = &all->entries[all->count++];
    *entry = (found_entry){.path = path};
    return each_name (path, add_size, entry, err);
}

static int by_use (const void *a, const void *b)
{
    const struct timespec *x = &((const found_entry *) a)->used, *y = &((const found_entry *) b)->used;
    if (x->tv_sec != y->tv_sec)
        return x->tv_sec < y->tv_sec ? -1 : 1;
    return x->tv_nsec < y->tv_nsec ? -1 : x->tv_nsec > y->tv_nsec;
}

static bool delete_file (const char *folder, const char *name, void *context, wl_error *err)
{
    (void) context;
    char *path = strcmp (name, "lock") != 0 ? wl_join_path (folder, name, err) : NULL;
    if (path)
        unlink (path);
    free (path);
    return true;
}

/* False when somebody holds it. */
static bool delete_entry (const found_entry *entry, wl_error *err)
{
    char *path = wl_join_path (entry->path, "lock", err);
    int lock = path ? open_locked (path, O_CREAT, LOCK_EX | LOCK_NB) : -1;
    if (lock >= 0) {
        each_name (entry->path, delete_file, NULL, err);
        unlink (path);
        rmdir (entry->path);
        close (lock);
    }
    free (path);
    return lock >= 0;
}

static bool too_small (const char *folder, uint64_t wanted, uint64_t bound, uint64_t in_use, wl_error *err)
{
    return wl_fail (
        err, WL_ERROR_CLUSTER,
        "%s: %.1f MB are needed, where %.1f MB are allowed and %.1f MB in use: allow more with --cache-size", folder,
        (double) wanted / 1e6, (double) bound / 1e6, (double) in_use / 1e6);
}

/* Bytes that the file system of the nearest folder that exists could still give. */
static uint64_t room_left (const char *folder)
{
    struct statvfs system;
    char path[4096];
    snprintf (path, sizeof path, "%s", folder);
    while (statvfs (path, &system) != 0) {
        char *slash = strrchr (path, '/');
        if (!slash || slash == path)
            return UINT64_MAX;
        *slash = 0;
    }
    return (uint64_t) system.f_bavail * system.f_frsize;
}

bool wl_cache_make_room (const char *folder, uint64_t limit, uint64_t wanted, wl_error *err)
{
    found_entries all = {0};
    uint64_t used = 0, left = room_left (folder), kept = 0;
    bool ok = true;
    for (int kind = 0; ok && kind < N_KINDS; kind++) {
        char *path = wl_join_path (folder, kinds[kind], err);
        ok = path && each_name (path, add_entry, &all, err);
        free (path);
    }
    for (size_t i = 0; i < all.count; i++)
        used += all.entries[i].bytes;
    if (all.count)
        qsort (all.entries, all.count, sizeof *all.entries, by_use);
    uint64_t bound = limit ? limit : (left < UINT64_MAX - used ? left + used : UINT64_MAX) / 2;
    if (ok && wanted > left && wanted - left > used)
        ok = wl_fail (err, WL_ERROR_CLUSTER,
                      "%s: %.1f MB are needed and the disk has %.1f MB left: free some, or name another folder with "
                      "--cache DIR",
                      folder, (double) wanted / 1e6, (double) left / 1e6);
    else if (ok && wanted > bound)
        ok = too_small (folder, wanted, bound, 0, err);
    for (size_t i = 0; ok && i < all.count && (used > bound || wanted > bound - used || wanted > left); i++) {
        uint64_t bytes = all.entries[i].bytes;
        if (!delete_entry (&all.entries[i], err)) {
            kept += bytes;
            continue;
        }
        used -= bytes;
        left = left > UINT64_MAX - bytes ? UINT64_MAX : left + bytes;
    }
    if (ok && (wanted > left || used > bound || wanted > bound - used))
        ok = too_small (folder, wanted, wanted > left ? left : bound, kept, err);
    for (size_t i = 0; i < all.count; i++)
        free (all.entries[i].path);
    free (all.entries);
    return ok;
}
