/* Weights that arrived, on disk; see weight_store.h.
 *
 * The index is appended to under a lock of its own (flock), held for one record, so that processes that fill the entry together never write into one another's; a
 * torn tail, which only a crash of the machine or a full disk leaves, is cut off by whoever appends next, and not read before. Records are
 * keyed by the entry: those of another model's index are as good as damaged ones.
 *
 * Order makes it safe: bytes, then their record; the time of change, then the flush, then the record of both. So whoever writes between these steps makes
 * the time differ, and the next opening looks at the bytes. */
#include "weight_store.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/cache_folder.h"
#include "engine/file_io.h"
#include "engine/memory.h"

enum {
    KEY_BYTES = 32, /* of the checksums */
    NAME_BYTES = 16,
    CHECK_BYTES = 8,
    RECORD_BYTES = 64,
    MAX_INDEX_BYTES = 1 << 30,
    FLUSH_BYTES = 16 << 20, /* so many are on their way to the disk while more arrive */
};

typedef enum record_kind { RECORD_HAVE = 1, RECORD_GONE, RECORD_SETTLED } record_kind;

typedef struct record {
    uint32_t kind, part;
    uint64_t offset; /* RECORD_SETTLED: the file's time of change, nanoseconds */
    uint32_t length;
    uint32_t unused;
    uint8_t hash[WL_WEIGHTS_HASH_BYTES];
    uint8_t check[CHECK_BYTES];
} record;
_Static_assert(sizeof (record) == RECORD_BYTES, "records have one size");

typedef struct stored_chunk {
    uint64_t offset;
    uint32_t part, length;
    uint32_t order; /* of its record */
    bool gone;
    uint8_t hash[WL_WEIGHTS_HASH_BYTES];
} stored_chunk;

typedef struct stored_part {
    uint64_t bytes;
    uint64_t changed_ns; /* when the store was opened */
    bool settled;        /* nothing recorded needs a look */
    bool touched;        /* by this process, since it was settled */
} stored_part;

struct weight_store {
    wl_cache_entry *entry;
    uint8_t key[KEY_BYTES];
    stored_part *parts; /* [n_parts] */
    uint32_t n_parts;
    stored_chunk *chunks; /* [n_chunks], by part and offset */
    size_t n_chunks, chunk_room;
    int index, file; /* descriptors; file: of part file_part */
    uint32_t file_part;
    uint64_t unflushed_from, unflushed_bytes; /* of the open file */
    char *first_path;
    pthread_t settler; /* if settles: it alone uses the descriptors until it is joined */
    bool settles;
};

bool load_progress_report (const load_progress *progress, const load_state *state, wl_error *err)
{
    return !progress->report || progress->report (progress->context, state) ||
           wl_fail (err, WL_ERROR_CLUSTER, "loading was cancelled");
}

void load_progress_warn (const load_progress *progress, const char *text)
{
    if (progress->warn)
        progress->warn (progress->context, text);
}

static bool disk_failed (const weight_store *s, const char *name, const char *what, wl_error *err)
{
    bool full = errno == ENOSPC || errno == EDQUOT || errno == EFBIG;
    return wl_fail (err, WL_ERROR_CLUSTER, "%s/%s: %s: %s%s", wl_cache_path (s->entry), name, what, strerror (errno),
                    full ? ": free some room, or name another folder with --cache DIR" : "");
}

/* -- files ------------------------------------------------------------------------------------------------------------------------------ */

enum { FILE_NAME_BYTES = 48 };

static void file_name (const weight_store *s, uint32_t part, char name[FILE_NAME_BYTES])
{
    if (s->n_parts == 1)
        snprintf (name, FILE_NAME_BYTES, "model.gguf");
    else
        snprintf (name, FILE_NAME_BYTES, "model-%05u-of-%05u.gguf", part + 1, s->n_parts);
}

static char *path_of (const weight_store *s, const char *name, wl_error *err)
{
    size_t length = strlen (wl_cache_path (s->entry)) + strlen (name) + 2;
    char *path = wl_new (length, 1, err);
    if (path)
        snprintf (path, length, "%s/%s", wl_cache_path (s->entry), name);
    return path;
}

static int open_in (const weight_store *s, const char *name, int flags, wl_error *err)
{
    char *path = path_of (s, name, err);
    int file = path ? open (path, flags | O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600) : -1;
    if (path && file < 0)
        disk_failed (s, name, "cannot be opened", err);
    free (path);
    return file;
}

/* Has `file` be of this part. One is open at a time: a split model may have more parts than a process may have open files. */
static bool turn_to (weight_store *s, uint32_t part, wl_error *err)
{
    char name[FILE_NAME_BYTES];
    if (s->file >= 0 && s->file_part == part)
        return true;
    if (s->file >= 0)
        close (s->file);
    file_name (s, part, name);
    s->file = open_in (s, name, 0, err);
    s->file_part = part;
    s->unflushed_bytes = 0;
    return s->file >= 0;
}

static bool read_change (weight_store *s, uint64_t *changed_ns, uint64_t *bytes, wl_error *err)
{
    struct stat status;
    char name[FILE_NAME_BYTES];
    file_name (s, s->file_part, name);
    if (fstat (s->file, &status) != 0)
        return disk_failed (s, name, "cannot be read", err);
#ifdef __APPLE__
    const struct timespec changed = status.st_mtimespec;
#else
    const struct timespec changed = status.st_mtim;
#endif
    *changed_ns = (uint64_t) changed.tv_sec * 1000000000u + (uint64_t) changed.tv_nsec;
    *bytes = (uint64_t) status.st_size;
    return true;
}

/* Each file has the size of the model's own, and a hole where nothing was written. */
static bool open_files (weight_store *s, wl_error *err)
{
    for (uint32_t part = 0; part < s->n_parts; part++) {
        stored_part *p = &s->parts[part];
        uint64_t bytes = 0;
        char name[FILE_NAME_BYTES];
        file_name (s, part, name);
        if (!turn_to (s, part, err) || !read_change (s, &p->changed_ns, &bytes, err))
            return false;
        if (bytes == p->bytes)
            continue;
        if (ftruncate (s->file, (off_t) p->bytes) != 0)
            return disk_failed (s, name, "cannot be made as large as the model", err);
        if (!read_change (s, &p->changed_ns, &bytes, err))
            return false;
    }
    char name[FILE_NAME_BYTES];
    file_name (s, 0, name);
    s->first_path = path_of (s, name, err);
    return s->first_path != NULL;
}

/* Bytes that could be read. */
static size_t read_from (int file, uint64_t offset, uint32_t length, uint8_t *buffer)
{
    size_t got = 0;
    while (got < length) {
        ssize_t n = pread (file, buffer + got, length - got, (off_t) (offset + got));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break; /* what cannot be read is as good as lost */
        got += (size_t) n;
    }
    return got;
}

static bool read_chunk (weight_store *s, const stored_chunk *chunk, uint8_t *buffer, bool *sound, wl_error *err)
{
    uint8_t hash[WL_WEIGHTS_HASH_BYTES];
    if (!turn_to (s, chunk->part, err))
        return false;
    size_t got = read_from (s->file, chunk->offset, chunk->length, buffer);
    wl_weights_hash (buffer, got, hash);
    *sound = got == chunk->length && memcmp (hash, chunk->hash, sizeof hash) == 0;
    return true;
}

/* -- the index ---------------------------------------------------------------------------------------------------------------------------- */

static void sign (const weight_store *s, const record *r, uint8_t check[CHECK_BYTES])
{
    uint8_t full[crypto_generichash_BYTES_MIN];
    crypto_generichash (full, sizeof full, (const uint8_t *) r, offsetof (record, check), s->key, sizeof s->key);
    memcpy (check, full, CHECK_BYTES);
}

static bool lock_index (const weight_store *s, wl_error *err)
{
    while (flock (s->index, LOCK_EX) != 0)
        if (errno != EINTR)
            return disk_failed (s, "index", "cannot be locked", err);
    return true;
}

static bool append_locked (weight_store *s, const record *r, wl_error *err)
{
    struct stat status;
    if (fstat (s->index, &status) != 0)
        return disk_failed (s, "index", "cannot be read", err);
    if (status.st_size % RECORD_BYTES && ftruncate (s->index, status.st_size / RECORD_BYTES * RECORD_BYTES) != 0)
        return disk_failed (s, "index", "cannot be repaired", err);
    ssize_t written;
    do
        written = write (s->index, r, sizeof *r);
    while (written < 0 && errno == EINTR);
    if (written == (ssize_t) sizeof *r)
        return true;
    if (written >= 0)
        errno = ENOSPC;
    return disk_failed (s, "index", "cannot be written", err);
}

static bool append (weight_store *s, record r, wl_error *err)
{
    sign (s, &r, r.check);
    if (!lock_index (s, err))
        return false;
    bool ok = append_locked (s, &r, err);
    flock (s->index, LOCK_UN);
    return ok;
}

static bool is_sound (const weight_store *s, const record *r)
{
    uint8_t check[CHECK_BYTES];
    sign (s, r, check);
    if (memcmp (check, r->check, CHECK_BYTES) != 0 || r->part >= s->n_parts)
        return false;
    uint64_t bytes = s->parts[r->part].bytes;
    return r->kind == RECORD_SETTLED ||
           (r->length && r->length <= WL_WEIGHTS_CHUNK_BYTES && r->length <= bytes && r->offset <= bytes - r->length);
}

static bool take_record (weight_store *s, const record *r, wl_error *err)
{
    stored_part *part = &s->parts[r->part];
    if (r->kind == RECORD_SETTLED) {
        part->settled = r->offset == part->changed_ns;
        return true;
    }
    part->settled = false;
    if (s->n_chunks == s->chunk_room) {
        size_t room = s->chunk_room ? s->chunk_room * 2 : 256;
        stored_chunk *grown = wl_resize (s->chunks, room, sizeof *grown, err);
        if (!grown)
            return false;
        s->chunks = grown;
        s->chunk_room = room;
    }
    stored_chunk *chunk = &s->chunks[s->n_chunks];
    *chunk = (stored_chunk){.offset = r->offset,
                            .part = r->part,
                            .length = r->length,
                            .order = (uint32_t) s->n_chunks,
                            .gone = r->kind != RECORD_HAVE};
    memcpy (chunk->hash, r->hash, sizeof chunk->hash);
    s->n_chunks++;
    return true;
}

static int by_place (const stored_chunk *a, const stored_chunk *b)
{
    if (a->part != b->part)
        return a->part < b->part ? -1 : 1;
    return a->offset < b->offset ? -1 : a->offset > b->offset;
}

static int by_place_and_order (const void *a, const void *b)
{
    const stored_chunk *x = a, *y = b;
    int place = by_place (x, y);
    return place ? place : x->order < y->order ? -1 : x->order > y->order;
}

/* Of the records of one place the last one counts. */
static void sort_chunks (weight_store *s)
{
    size_t kept = 0;
    if (s->n_chunks)
        qsort (s->chunks, s->n_chunks, sizeof *s->chunks, by_place_and_order);
    for (size_t i = 0; i < s->n_chunks; i++) {
        bool is_last = i + 1 == s->n_chunks || by_place (&s->chunks[i], &s->chunks[i + 1]) != 0;
        if (is_last && !s->chunks[i].gone)
            s->chunks[kept++] = s->chunks[i];
    }
    s->n_chunks = kept;
}

static bool read_index (weight_store *s, wl_error *err)
{
    enum { BATCH = 1024 };
    struct stat status;
    bool ok = false;
    uint64_t at = 0;
    s->index = open_in (s, "index", O_APPEND, err);
    record *batch = s->index >= 0 ? wl_new (BATCH, sizeof *batch, err) : NULL;
    if (!batch)
        return false;
    if (fstat (s->index, &status) != 0 || status.st_size > MAX_INDEX_BYTES) {
        wl_fail (err, WL_ERROR_CLUSTER, "%s: its index is damaged: delete this folder", wl_cache_path (s->entry));
        goto done;
    }
    for (;;) {
        ssize_t n = pread (s->index, batch, BATCH * sizeof *batch, (off_t) at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            disk_failed (s, "index", "cannot be read", err);
            goto done;
        }
        size_t whole = (size_t) n / sizeof *batch; /* the torn rest is not read */
        for (size_t i = 0; i < whole; i++)
            if (is_sound (s, &batch[i]) && !take_record (s, &batch[i], err))
                goto done;
        if (whole == 0)
            break;
        at += whole * sizeof *batch;
    }
    sort_chunks (s);
    ok = true;
done:
    free (batch);
    return ok;
}

/* -- checking ------------------------------------------------------------------------------------------------------------------------------ */

static bool needs_check (const weight_store *s, const stored_chunk *chunk, bool check_all)
{
    return check_all || !s->parts[chunk->part].settled;
}

static bool forget (weight_store *s, const stored_chunk *chunk, wl_error *err)
{
    return append (
        s, (record){.kind = RECORD_GONE, .part = chunk->part, .offset = chunk->offset, .length = chunk->length}, err);
}

/* Compares the recorded chunks with their hashes where nothing says that they are as they were. */
static bool check_chunks (weight_store *s, bool check_all, const load_progress *progress, wl_error *err)
{
    load_state state = {.phase = WOOLLY__LOAD_PHASE__CHECKING};
    size_t kept = 0;
    bool ok = false;
    uint8_t *buffer = NULL;
    for (size_t i = 0; i < s->n_chunks; i++)
        state.total_bytes += needs_check (s, &s->chunks[i], check_all) ? s->chunks[i].length : 0;
    if (state.total_bytes == 0)
        return true;
    buffer = wl_new (WL_WEIGHTS_CHUNK_BYTES, 1, err);
    if (!buffer)
        return false;
    for (size_t i = 0; i < s->n_chunks; i++) {
        stored_chunk *chunk = &s->chunks[i];
        bool sound = true;
        if (needs_check (s, chunk, check_all)) {
            if (!read_chunk (s, chunk, buffer, &sound, err) || (!sound && !forget (s, chunk, err)))
                goto done;
            state.done_bytes += chunk->length;
            if (!load_progress_report (progress, &state, err))
                goto done;
            s->parts[chunk->part].touched = true; /* what was found sound is worth a new record of the file's time */
        }
        if (sound)
            s->chunks[kept++] = *chunk;
    }
    s->n_chunks = kept;
    ok = true;
done:
    free (buffer);
    return ok;
}

/* -- for the rest of the worker ------------------------------------------------------------------------------------------------------------ */

static void add_number (crypto_generichash_state *hash, uint64_t number)
{
    uint8_t bytes[8];
    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t) (number >> 8 * i);
    crypto_generichash_update (hash, bytes, sizeof bytes);
}

/* What tells entries apart: the model, its files' sizes, and how they are cut. */
static void make_key (const uint8_t *fingerprint, Woolly__ModelPart *const *parts, size_t n_parts,
                      uint8_t key[KEY_BYTES])
{
    crypto_generichash_state hash;
    crypto_generichash_init (&hash, NULL, 0, KEY_BYTES);
    crypto_generichash_update (&hash, fingerprint, 32);
    add_number (&hash, WL_WEIGHTS_CHUNK_BYTES);
    for (size_t i = 0; i < n_parts; i++) {
        add_number (&hash, parts[i]->file_bytes);
        add_number (&hash, parts[i]->header_bytes);
    }
    crypto_generichash_final (&hash, key, KEY_BYTES);
}

weight_store *weight_store_open (const char *folder, const uint8_t *fingerprint, Woolly__ModelPart *const *parts,
                                 size_t n_parts, bool check_all, const load_progress *progress, wl_error *err)
{
    char name[2 * NAME_BYTES + 1];
    if (sodium_init () < 0) {
        wl_fail (err, WL_ERROR_INTERNAL, "libsodium could not be initialised");
        return NULL;
    }
    weight_store *s = wl_new (1, sizeof *s, err);
    if (!s)
        return NULL;
    s->index = s->file = -1;
    make_key (fingerprint, parts, n_parts, s->key);
    sodium_bin2hex (name, sizeof name, s->key, NAME_BYTES);
    s->parts = wl_new (n_parts, sizeof *s->parts, err);
    s->entry = s->parts ? wl_cache_open (folder, "weights", name, err) : NULL;
    if (!s->entry) {
        weight_store_close (&s);
        return NULL;
    }
    s->n_parts = (uint32_t) n_parts;
    for (size_t i = 0; i < n_parts; i++)
        s->parts[i].bytes = parts[i]->file_bytes;
    if (!open_files (s, err) || !read_index (s, err) || !check_chunks (s, check_all, progress, err))
        weight_store_close (&s);
    return s;
}

void weight_store_close (weight_store **store)
{
    weight_store *s = *store;
    if (!s)
        return;
    if (s->settles)
        pthread_join (s->settler, NULL);
    if (s->index >= 0)
        close (s->index);
    if (s->file >= 0)
        close (s->file);
    wl_cache_close (&s->entry);
    free (s->parts);
    free (s->chunks);
    free (s->first_path);
    free (s);
    *store = NULL;
}

const char *weight_store_path (const weight_store *store)
{
    return store->first_path;
}

bool weight_store_has (const weight_store *s, uint32_t part, uint64_t offset, uint32_t length)
{
    const stored_chunk wanted = {.part = part, .offset = offset};
    size_t low = 0, high = s->n_chunks;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = by_place (&s->chunks[middle], &wanted);
        if (order == 0)
            return s->chunks[middle].length == length;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return false;
}

wl_weights_range *weight_store_held (const weight_store *s, size_t *n, wl_error *err)
{
    wl_weights_range *held = wl_new (s->n_chunks, sizeof *held, err);
    size_t count = 0;
    for (size_t i = 0; held && i < s->n_chunks; i++) {
        const stored_chunk *chunk = &s->chunks[i];
        wl_weights_range *last = count ? &held[count - 1] : NULL;
        bool same = last && last->part == chunk->part;
        uint64_t end = chunk->offset + chunk->length;
        if (same && chunk->offset <= last->offset + last->bytes)
            last->bytes = end > last->offset + last->bytes ? end - last->offset : last->bytes;
        else
            held[count++] = (wl_weights_range){chunk->part, chunk->offset, chunk->length};
    }
    *n = count;
    return held;
}

bool weight_store_read (const weight_store *s, uint32_t part, uint64_t offset, uint32_t length, uint8_t *out)
{
    char name[FILE_NAME_BYTES];
    wl_error unopened = {0};
    file_name (s, part, name);
    char *path = path_of (s, name, &unopened);
    int file = path ? open (path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;
    bool ok = file >= 0 && read_from (file, offset, length, out) == length;
    if (file >= 0)
        close (file);
    free (path);
    return ok;
}

/* Starts the way to the disk of what has gathered, so that settling finds little left to wait for. */
static void flush_behind (weight_store *s, uint64_t offset, uint32_t length)
{
#ifdef __linux__
    if (s->unflushed_bytes == 0 || offset < s->unflushed_from)
        s->unflushed_from = offset;
    s->unflushed_bytes += length;
    if (s->unflushed_bytes < FLUSH_BYTES)
        return;
    sync_file_range (s->file, (off_t) s->unflushed_from, (off_t) (offset + length - s->unflushed_from),
                     SYNC_FILE_RANGE_WRITE);
    s->unflushed_bytes = 0;
#else
    (void) s;
    (void) offset;
    (void) length;
#endif
}

bool weight_store_put (weight_store *s, uint32_t part, uint64_t offset, const void *bytes, uint32_t length,
                       const uint8_t hash[WL_WEIGHTS_HASH_BYTES], wl_error *err)
{
    if (part >= s->n_parts || length > s->parts[part].bytes || offset > s->parts[part].bytes - length)
        return wl_fail (err, WL_ERROR_INTERNAL, "%u bytes of weights at %llu are beyond the model's file", length,
                        (unsigned long long) offset);
    if (!turn_to (s, part, err))
        return false;
    s->parts[part].touched = true;
    if (!wl_write_at (s->file, bytes, length, offset)) {
        char name[FILE_NAME_BYTES];
        file_name (s, part, name);
        return disk_failed (s, name, "weights cannot be written", err);
    }
    flush_behind (s, offset, length);
    record r = {.kind = RECORD_HAVE, .part = part, .offset = offset, .length = length};
    memcpy (r.hash, hash, sizeof r.hash);
    return append (s, r, err);
}

static bool flush (const weight_store *s)
{
#ifdef __APPLE__
    return fsync (s->file) == 0;
#else
    return fdatasync (s->file) == 0;
#endif
}

bool weight_store_settle (weight_store *s, wl_error *err)
{
    for (uint32_t part = 0; part < s->n_parts; part++) {
        uint64_t changed_ns = 0, bytes;
        char name[FILE_NAME_BYTES];
        file_name (s, part, name);
        if (!s->parts[part].touched)
            continue;
        if (!turn_to (s, part, err) || !read_change (s, &changed_ns, &bytes, err))
            return false;
        if (!flush (s))
            return disk_failed (s, name, "weights cannot be written", err);
        if (!append (s, (record){.kind = RECORD_SETTLED, .part = part, .offset = changed_ns}, err))
            return false;
        s->parts[part].touched = false;
    }
    return true;
}

static void *settle_behind (void *context)
{
    wl_error unsettled = {0}; /* then the next opening looks at the bytes */
    weight_store_settle (context, &unsettled);
    return NULL;
}

void weight_store_settle_behind (weight_store *s)
{
    bool any = false;
    for (uint32_t part = 0; part < s->n_parts; part++)
        any = any || s->parts[part].touched;
    s->settles = any && pthread_create (&s->settler, NULL, settle_behind, s) == 0;
}
