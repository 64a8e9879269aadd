/* Packed weights kept in the cache folder; see pack_cache.h.
 *
 * Tiles are packed into a buffer that stays in the processor's cache and written from there in pieces of 2 MiB, each at a multiple of it: Linux then keeps such a piece as one
 * large page, and mapping it costs one entry, as streaming weights wants it. Writing (in place of packing into the mapping) makes a full disk an
 * error code and not a signal. What stands in a tensor's place is always the same, so that workers that fill it twice do no harm. */
#include "pack_cache.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#ifdef __APPLE__
#include <sys/sysctl.h>
#endif

#include "cache_folder.h"
#include "file_io.h"
#include "kernels/kernels.h"
#include "memory.h"
#include "weights.h"

enum { PIECE = 2 << 20, WINDOW_PIECES = 16, SAMPLE = 4096, VERSION = 1 };

typedef struct header {
    char magic[8];
    uint64_t version, n_slots, data_bytes, check;
} header;

typedef struct record {
    uint64_t bytes;
    uint64_t sample; /* hash of the first and last SAMPLE bytes of the tiles */
    uint64_t boot;   /* in which it was written; 0: the tiles are on the disk */
    uint64_t check;  /* hash of the above and the slot's number */
} record;

typedef struct slot {
    uint64_t offset, bytes; /* bytes 0: not a matrix that can be packed */
    record record;          /* as read, or as written since */
    bool is_used;           /* given out */
} slot;

struct wl_pack_cache {
    const wl_gguf *gguf;
    wl_cache_entry *entry;
    char *folder;
    uint64_t limit, data_bytes, boot, found_bytes;
    slot *slots; /* [n_slots], one for each tensor of the file */
    size_t n_slots;
    int index, tiles; /* files; -1: none */
    uint8_t *map;     /* of the whole of `tiles`, read only */
    uint8_t *fresh;   /* another, while there is packing; NULL: none */
    uint8_t *buffers; /* [threads][buffer_bytes] */
    size_t buffer_bytes;
    wl_error trouble;

    /* of the thread, which begins with the first filling, or when all is loaded: from then on records change under it alone */
    pthread_t keeper;
    bool has_keeper;
    size_t *filled;         /* [n_slots]: those to send to the disk, in order */
    atomic_size_t n_filled; /* of them: raised by the stage's thread, read by the keeper */
    atomic_bool is_loaded;  /* set by settle, read by the keeper */
    atomic_bool is_ending;  /* set by close, read by the keeper */
};

/* -- small parts ---------------------------------------------------------------------------------------------------------------------------- */

/* FNV-1a. Against accidents, not against malice: who can write the cache folder can do worse. */
static uint64_t hash_bytes (uint64_t hash, const void *bytes, size_t n)
{
    const uint8_t *b = bytes;
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ b[i]) * UINT64_C (0x100000001b3);
    return hash;
}

/* Its eight bytes, the lowest first. */
static uint64_t hash_number (uint64_t hash, uint64_t number)
{
    for (int i = 0; i < 64; i += 8)
        hash = (hash ^ (number >> i & 0xff)) * UINT64_C (0x100000001b3);
    return hash;
}

static const uint64_t hash_start = UINT64_C (0xcbf29ce484222325);

/* What tells this start of the machine from the last; 0 where the system does not say: then every record has to be on the disk. */
static uint64_t boot_number (void)
{
    char text[64] = "";
#ifdef __APPLE__
    size_t length = sizeof text;
    if (sysctlbyname ("kern.bootsessionuuid", text, &length, NULL, 0) != 0)
        return 0;
#else
    FILE *file = fopen ("/proc/sys/kernel/random/boot_id", "r");
    if (!file)
        return 0;
    if (!fgets (text, sizeof text, file))
        text[0] = 0;
    fclose (file);
#endif
    return text[0] ? hash_bytes (hash_start, text, strlen (text)) | 1 : 0;
}

/* Of what packing makes of sample rows of every type, so that it changes with any change of a layout. */
static uint64_t layout_number (void)
{
    enum { ROW = 1024, BLOCKS = 2, PLAIN = 32 };
    static const char version[] = "woolly tiles";
    uint8_t rows[WL_TILE_ROWS][ROW], tile[WL_TILE_ROWS * ROW];
    const void *sources[WL_TILE_ROWS];
    uint64_t hash = hash_bytes (hash_start, version, sizeof version);
    uint32_t noise = 1;
    for (size_t r = 0; r < WL_TILE_ROWS; r++) {
        sources[r] = rows[r];
        for (size_t i = 0; i < ROW; i++) {
            noise = noise * 1664525 + 1013904223;
            rows[r][i] = (uint8_t) (noise >> 24);
        }
    }
    for (uint32_t type = 0; type < WL_TYPE_LIMIT; type++) {
        const wl_format *format = wl_format_find (type);
        size_t blocks = format && format->block_elements == 1 ? PLAIN : BLOCKS;
        if (!format || blocks * format->tile_bytes > sizeof tile)
            continue;
        memset (tile, 0, sizeof tile);
        format->pack (tile, sources, blocks * format->block_elements);
        hash = hash_bytes (hash, &type, sizeof type);
        hash = hash_bytes (hash, tile, blocks * format->tile_bytes);
    }
    return hash;
}

static bool fail_file (const wl_pack_cache *cache, const char *name, wl_error *err)
{
    return wl_fail (err, WL_ERROR_CLUSTER, "%s/%s: cannot be written: %s", wl_cache_path (cache->entry), name,
                    strerror (errno));
}

/* -- records -------------------------------------------------------------------------------------------------------------------------------- */

static uint64_t record_check (const record *r, size_t number)
{
    return hash_number (hash_number (hash_number (hash_number (hash_start, r->bytes), r->sample), r->boot), number);
}

static uint64_t sample_hash (const uint8_t *tiles, uint64_t bytes)
{
    size_t n = bytes < SAMPLE ? (size_t) bytes : SAMPLE;
    return hash_bytes (hash_bytes (hash_start, tiles, n), tiles + bytes - n, n);
}

static uint64_t record_place (size_t number)
{
    return sizeof (header) + (uint64_t) number * sizeof (record);
}

/* Whether the slot's tiles can be used as they are. */
static bool is_there (const wl_pack_cache *cache, size_t number)
{
    const slot *s = &cache->slots[number];
    const record *r = &s->record;
    return s->bytes && r->bytes == s->bytes && r->check == record_check (r, number) &&
           (r->boot == 0 || r->boot == cache->boot) && r->sample == sample_hash (cache->map + s->offset, s->bytes);
}

static bool write_record (wl_pack_cache *cache, size_t number, uint64_t boot)
{
    slot *s = &cache->slots[number];
    record r = {.bytes = s->bytes, .sample = sample_hash (cache->map + s->offset, s->bytes), .boot = boot};
    r.check = record_check (&r, number);
    if (!wl_write_at (cache->index, &r, sizeof r, record_place (number)))
        return false;
    s->record = r;
    return true;
}

/* -- opening -------------------------------------------------------------------------------------------------------------------------------- */

static bool lay_out (wl_pack_cache *cache, wl_error *err)
{
    uint64_t at = 0;
    cache->n_slots = wl_gguf_n_tensors (cache->gguf);
    cache->slots = wl_new (cache->n_slots, sizeof *cache->slots, err);
    cache->filled = wl_new (cache->n_slots, sizeof *cache->filled, err);
    if (!cache->slots || !cache->filled)
        return false;
    for (size_t i = 0; i < cache->n_slots; i++) {
        const wl_tensor *t = wl_gguf_tensor (cache->gguf, i);
        const wl_format *format = wl_format_find (t->type);
        slot *s = &cache->slots[i];
        if (!format || t->n_dims < 2 || t->n_dims > 3 || t->dims[0] % format->block_elements)
            continue;
        s->offset = at;
        if (__builtin_mul_overflow (wl_matrix_bytes (t), t->dims[2], &s->bytes) || s->bytes > (UINT64_C (1) << 60) ||
            __builtin_add_overflow (at, (s->bytes + PIECE - 1) / PIECE * PIECE, &at) || at > INT64_MAX || at > SIZE_MAX)
            return wl_fail (err, WL_ERROR_CLUSTER, "%s: packed it would be too large for a file",
                            wl_gguf_path (cache->gguf));
    }
    cache->data_bytes = at;
    if (at == 0)
        return wl_fail (err, WL_ERROR_CLUSTER, "%s: has no matrices to keep", wl_gguf_path (cache->gguf));
    return true;
}

static int open_file (const wl_pack_cache *cache, const char *name, int flags)
{
    char path[4096];
    int n = snprintf (path, sizeof path, "%s/%s", wl_cache_path (cache->entry), name);
    if (n >= (int) sizeof path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    return open (path, flags | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600);
}

/* An index without records, made aside and put in place whole. `replaces`: one that is damaged; else whoever was first wins. */
static bool make_index (const wl_pack_cache *cache, const header *h, bool replaces, wl_error *err)
{
    char aside[64], from[4096], to[4096];
    snprintf (aside, sizeof aside, "index.%ld", (long) getpid ());
    snprintf (from, sizeof from, "%s/%s", wl_cache_path (cache->entry), aside);
    snprintf (to, sizeof to, "%s/index", wl_cache_path (cache->entry));
    int file = open_file (cache, aside, O_CREAT | O_TRUNC);
    bool ok = file >= 0 && ftruncate (file, (off_t) record_place (cache->n_slots)) == 0 &&
              wl_write_at (file, h, sizeof *h, 0) && fsync (file) == 0;
    if (ok)
        ok = replaces ? rename (from, to) == 0 : link (from, to) == 0 || errno == EEXIST;
    if (!ok)
        fail_file (cache, "index", err);
    if (file >= 0) {
        unlink (from);
        close (file);
    }
    return ok;
}

/* Opens the index and reads its records; makes it where there is none, or none that fits. */
static bool open_index (wl_pack_cache *cache, wl_error *err)
{
    header wanted = {.version = VERSION, .n_slots = cache->n_slots, .data_bytes = cache->data_bytes}, found;
    memcpy (wanted.magic, "WLPACKED", sizeof wanted.magic);
    wanted.check = hash_bytes (hash_start, &wanted, offsetof (header, check));
    for (int attempt = 0; attempt < 2; attempt++) {
        cache->index = open_file (cache, "index", 0);
        if (cache->index < 0 && (errno != ENOENT || !make_index (cache, &wanted, false, err)))
            return err->code == WL_OK ? fail_file (cache, "index", err) : false;
        if (cache->index < 0)
            cache->index = open_file (cache, "index", 0);
        if (cache->index < 0)
            return fail_file (cache, "index", err);
        struct stat status;
        if (wl_read_at (cache->index, &found, sizeof found, 0) && memcmp (&found, &wanted, sizeof found) == 0 &&
            fstat (cache->index, &status) == 0 && (uint64_t) status.st_size == record_place (cache->n_slots))
            break;
        close (cache->index);
        cache->index = -1;
        if (!make_index (cache, &wanted, true, err))
            return false;
    }
    if (cache->index < 0)
        return wl_fail (err, WL_ERROR_CLUSTER, "%s/index: changes while it is opened", wl_cache_path (cache->entry));
    for (size_t i = 0; i < cache->n_slots; i++)
        if (!wl_read_at (cache->index, &cache->slots[i].record, sizeof (record), record_place (i)))
            return fail_file (cache, "index", err);
    return true;
}

static bool open_tiles (wl_pack_cache *cache, wl_error *err)
{
    struct stat status;
    cache->tiles = open_file (cache, "tiles", O_CREAT);
    if (cache->tiles < 0 || fstat (cache->tiles, &status) != 0)
        return fail_file (cache, "tiles", err);
    /* only ever longer: others may have it mapped */
    if ((uint64_t) status.st_size < cache->data_bytes && ftruncate (cache->tiles, (off_t) cache->data_bytes) != 0)
        return fail_file (cache, "tiles", err);
    void *map = mmap (NULL, (size_t) cache->data_bytes, PROT_READ, MAP_SHARED, cache->tiles, 0);
    if (map == MAP_FAILED)
        return fail_file (cache, "tiles", err);
    cache->map = map;
#ifdef MADV_HUGEPAGE
    madvise (map, (size_t) cache->data_bytes, MADV_HUGEPAGE); /* a hint: refusal is no error */
#endif
    return true;
}

static void close_fresh (wl_pack_cache *cache)
{
    if (cache->fresh)
        munmap (cache->fresh, (size_t) cache->data_bytes);
    cache->fresh = NULL;
}

wl_pack_cache *wl_pack_cache_open (const wl_gguf *gguf, const char *key, const char *folder, uint64_t limit,
                                   wl_error *err)
{
    char name[160];
    wl_pack_cache *cache = wl_new (1, sizeof *cache, err);
    if (!cache)
        return NULL;
    cache->gguf = gguf;
    cache->limit = limit;
    cache->boot = boot_number ();
    cache->index = cache->tiles = -1;
    snprintf (name, sizeof name, "%.128s-%016llx", key, (unsigned long long) layout_number ());
    cache->folder = wl_copy_text (folder, strlen (folder), err);
    if (!cache->folder || !lay_out (cache, err))
        goto failed;
    cache->entry = wl_cache_open (folder, "packed", name, err);
    if (cache->entry && open_index (cache, err) && open_tiles (cache, err))
        return cache;
failed:
    wl_pack_cache_close (&cache);
    return NULL;
}

void wl_pack_cache_close (wl_pack_cache **cache)
{
    wl_pack_cache *c = *cache;
    if (!c)
        return;
    if (c->has_keeper) {
        atomic_store (&c->is_ending, true);
        pthread_join (c->keeper, NULL);
    }
    close_fresh (c);
    if (c->map)
        munmap (c->map, (size_t) c->data_bytes);
    if (c->tiles >= 0)
        close (c->tiles);
    if (c->index >= 0)
        close (c->index);
    wl_cache_close (&c->entry);
    wl_free_aligned (c->buffers);
    free (c->slots);
    free (c->filled);
    free (c->folder);
    free (c);
    *cache = NULL;
}

/* -- the disk ------------------------------------------------------------------------------------------------------------------------------- */

/* Does `work` on a slot's tiles, piece by piece; false once the cache is being closed. */
static bool each_piece (wl_pack_cache *cache, const slot *s, size_t piece, bool (*work) (uint8_t *at, size_t bytes))
{
    for (uint64_t at = 0; at < s->bytes; at += piece) {
        size_t n = s->bytes - at < piece ? (size_t) (s->bytes - at) : piece;
        n = (n + SAMPLE - 1) / SAMPLE * SAMPLE; /* slots stand apart by whole pieces */
        if (atomic_load (&cache->is_ending) || !work (cache->map + s->offset + at, n))
            return false;
    }
    return true;
}

/* Maps large pages where there are any, reading them if need be. */
static bool bring_in (uint8_t *at, size_t bytes)
{
#ifdef MADV_POPULATE_READ
    if (madvise (at, bytes, MADV_POPULATE_READ) == 0)
        return true;
#endif
    posix_madvise (at, bytes, POSIX_MADV_WILLNEED);
    return true;
}

static bool put_out (uint8_t *at, size_t bytes)
{
    return msync (at, bytes, MS_SYNC) == 0;
}

/* While there is packing: has the system begin to write what is packed, so that it never has so much to write that packing is held up for it. */
static void send_filled (wl_pack_cache *cache)
{
#ifdef __linux__
    const struct timespec nap = {.tv_nsec = 20000000};
    for (size_t n = 0; !atomic_load (&cache->is_loaded) && !atomic_load (&cache->is_ending);) {
        if (n == atomic_load_explicit (&cache->n_filled, memory_order_acquire)) {
            nanosleep (&nap, NULL);
            continue;
        }
        const slot *s = &cache->slots[cache->filled[n++]];
        for (uint64_t at = 0; at < s->bytes && !atomic_load (&cache->is_ending); at += PIECE)
            sync_file_range (cache->tiles, (off_t) (s->offset + at), PIECE, SYNC_FILE_RANGE_WRITE);
    }
#else
    (void) cache;
#endif
}

static void *keep (void *context)
{
    wl_pack_cache *cache = context;
    bool any = false;
    send_filled (cache);
    if (!atomic_load (&cache->is_loaded))
        return NULL;
    for (size_t i = 0; i < cache->n_slots; i++)
        if (cache->slots[i].is_used && !each_piece (cache, &cache->slots[i], PIECE, bring_in))
            return NULL;
    for (size_t i = 0; i < cache->n_slots; i++) {
        slot *s = &cache->slots[i];
        if (!s->is_used || s->record.boot == 0)
            continue;
        if (!each_piece (cache, s, (size_t) PIECE * WINDOW_PIECES, put_out))
            return NULL;
        any = write_record (cache, i, 0) || any;
    }
    if (any)
        fsync (cache->index);
    return NULL;
}

/* Packing and mapping go on without it. */
static void start_keeper (wl_pack_cache *cache)
{
    cache->has_keeper = cache->has_keeper || pthread_create (&cache->keeper, NULL, keep, cache) == 0;
}

/* -- packing -------------------------------------------------------------------------------------------------------------------------------- */

typedef struct fill_job {
    wl_pack_cache *cache;
    const wl_matrix *matrix; /* its shape */
    const wl_tensor *tensor;
    uint64_t index;       /* of the matrix in the tensor */
    uint64_t begin, end;  /* its tiles' place in the file */
    uint64_t first_piece; /* of this window */
    atomic_int failure;   /* errno of whichever thread's write failed */
} fill_job;

/* Has the system find memory for a piece before it is written: reading a hole does that by many threads at once, writing only under the file's lock. It is most
 * of the work where memory is slow to come, as in virtual machines. */
static void have_memory (const wl_pack_cache *cache, uint64_t offset)
{
#ifdef MADV_POPULATE_READ
    if (cache->fresh && madvise (cache->fresh + offset, PIECE, MADV_POPULATE_READ) == 0)
        madvise (cache->fresh + offset, PIECE, MADV_DONTNEED);
#else
    (void) cache;
    (void) offset;
#endif
}

/* The mapping that this takes, of its own since it wants large pages and nothing read ahead of them. A hint: refusal is no error. */
static void open_fresh (wl_pack_cache *cache)
{
#ifdef MADV_POPULATE_READ
    if (cache->fresh)
        return;
    void *map = mmap (NULL, (size_t) cache->data_bytes, PROT_READ, MAP_SHARED, cache->tiles, 0);
    if (map == MAP_FAILED)
        return;
    madvise (map, (size_t) cache->data_bytes, MADV_HUGEPAGE);
    madvise (map, (size_t) cache->data_bytes, MADV_RANDOM);
    cache->fresh = map;
#else
    (void) cache;
#endif
}

/* Packs and writes one piece: what of the matrix lies between two multiples of PIECE. The tiles at its ends may reach into the neighbours. */
static void fill_piece (void *context, size_t chunk, size_t thread)
{
    fill_job *job = context;
    const wl_matrix *m = job->matrix;
    uint64_t from = (job->first_piece + chunk) * PIECE, to = from + PIECE;
    uint8_t *buffer = job->cache->buffers + thread * job->cache->buffer_bytes;
    from = from < job->begin ? job->begin : from;
    to = to > job->end ? job->end : to;
    size_t first = (size_t) ((from - job->begin) / m->tile_bytes);
    size_t end = (size_t) ((to - job->begin + m->tile_bytes - 1) / m->tile_bytes);
    if (atomic_load_explicit (&job->failure, memory_order_relaxed))
        return;
    wl_matrix_pack_tiles (m, job->tensor, job->index, first, end - first, buffer);
    if (to - from == PIECE) /* less than that is for writing to fit */
        have_memory (job->cache, from);
    if (!wl_write_at (job->cache->tiles, buffer + (from - job->begin - (uint64_t) first * m->tile_bytes),
                      (size_t) (to - from), from))
        atomic_store (&job->failure, errno ? errno : EIO);
}

/* Buffers for the threads, large enough for a piece and a tile at either end. */
static bool have_buffers (wl_pack_cache *cache, size_t tile_bytes, wl_thread_pool *pool, wl_error *err)
{
    size_t bytes = (PIECE + 2 * tile_bytes + SAMPLE - 1) / SAMPLE * SAMPLE;
    if (bytes <= cache->buffer_bytes)
        return true;
    wl_free_aligned (cache->buffers);
    cache->buffer_bytes = 0;
    cache->buffers = wl_new_aligned (wl_thread_pool_size (pool), bytes, err);
    cache->buffer_bytes = cache->buffers ? bytes : 0;
    return cache->buffers != NULL;
}

static bool fill_matrix (wl_pack_cache *cache, const wl_tensor *tensor, uint64_t index, uint64_t offset,
                         wl_thread_pool *pool, wl_error *err)
{
    wl_matrix matrix;
    wl_matrix_place (&matrix, tensor, NULL);
    if (!have_buffers (cache, matrix.tile_bytes, pool, err))
        return false;
    fill_job job = {.cache = cache,
                    .matrix = &matrix,
                    .tensor = tensor,
                    .index = index,
                    .begin = offset,
                    .end = offset + (uint64_t) matrix.n_tiles * matrix.tile_bytes};
    uint64_t first = job.begin / PIECE, last = (job.end - 1) / PIECE;
    for (uint64_t at = first; at <= last; at += WINDOW_PIECES) {
        uint64_t n = last - at + 1 < WINDOW_PIECES ? last - at + 1 : WINDOW_PIECES;
        job.first_piece = at;
        uint64_t next = (at + n) * PIECE > job.end ? job.end : (at + n) * PIECE;
        wl_matrix_read_ahead (&matrix, tensor, index, (size_t) ((next - job.begin) / matrix.tile_bytes),
                              (size_t) PIECE * WINDOW_PIECES, cache->gguf);
        wl_thread_pool_run (pool, (size_t) n, fill_piece, &job);
        wl_gguf_drop_pages (cache->gguf);
    }
    errno = atomic_load (&job.failure);
    return errno == 0 || fail_file (cache, "tiles", err);
}

static bool fill (wl_pack_cache *cache, size_t number, const wl_tensor *tensor, wl_thread_pool *pool, wl_error *err)
{
    const slot *s = &cache->slots[number];
    if (!wl_cache_make_room (cache->folder, cache->limit, s->bytes, err))
        return false;
    open_fresh (cache);
    start_keeper (cache);
    for (uint64_t i = 0; i < tensor->dims[2]; i++)
        if (!fill_matrix (cache, tensor, i, s->offset + i * wl_matrix_bytes (tensor), pool, err))
            return false;
    if (!write_record (cache, number, cache->boot))
        return fail_file (cache, "index", err);
    size_t n = atomic_load_explicit (&cache->n_filled, memory_order_relaxed);
    if (n < cache->n_slots) {
        cache->filled[n] = number;
        atomic_store_explicit (&cache->n_filled, n + 1, memory_order_release);
    }
    return true;
}

const uint8_t *wl_pack_cache_tiles (wl_pack_cache *cache, const wl_tensor *tensor, wl_thread_pool *pool)
{
    size_t number = 0;
    while (number < cache->n_slots && wl_gguf_tensor (cache->gguf, number) != tensor)
        number++;
    if (number == cache->n_slots || cache->slots[number].bytes == 0)
        return NULL;
    slot *s = &cache->slots[number];
    if (is_there (cache, number))
        cache->found_bytes += s->is_used ? 0 : s->bytes;
    else if (cache->boot == 0 || cache->trouble.code != WL_OK || !fill (cache, number, tensor, pool, &cache->trouble))
        return NULL;
    s->is_used = true;
    return cache->map + s->offset;
}

const char *wl_pack_cache_trouble (const wl_pack_cache *cache)
{
    return cache->trouble.text;
}

uint64_t wl_pack_cache_found_bytes (const wl_pack_cache *cache)
{
    return cache->found_bytes;
}

/* -- after loading --------------------------------------------------------------------------------------------------------------------------- */

void wl_pack_cache_settle (wl_pack_cache *cache)
{
    close_fresh (cache);
    wl_free_aligned (cache->buffers);
    cache->buffers = NULL;
    cache->buffer_bytes = 0;
    atomic_store (&cache->is_loaded, true); /* with all that came before */
    start_keeper (cache);
}
