/* Where a worker has the model from; see model_source.h.
 *
 * What makes a file the right one is its fingerprint, never its name; the name only tells where to look first. Of a store only tensors that were sent are
 * read: the fingerprint of the whole is the coordinator's word, and each chunk's hash is checked when it arrives. */
#include "model_source.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/cache_folder.h"
#include "engine/machine.h"
#include "engine/memory.h"
#include "proto/fingerprint.h"

enum { MAX_HEADER_BYTES = 512 << 20, MAX_PARTS = 99999 };

/* -- a file of its own ------------------------------------------------------------------------------------------------------------------- */

static const char *base_name (const char *path)
{
    const char *slash = strrchr (path, '/');
    return slash ? slash + 1 : path;
}

/* Opens the file if it is the model; NULL with the reason otherwise. */
static wl_gguf *try_file (const char *path, const Woolly__Load *load, wl_error *err)
{
    uint8_t fingerprint[WL_FINGERPRINT_BYTES];
    wl_gguf *gguf = wl_gguf_open (path, err);
    if (gguf && wl_fingerprint (gguf, fingerprint, err)) {
        if (memcmp (fingerprint, load->fingerprint.data, WL_FINGERPRINT_BYTES) == 0)
            return gguf;
        wl_fail (err, WL_ERROR_CLUSTER,
                 "%s: not the coordinator's file, though of the same name (fingerprints differ): copy it from there",
                 path);
    }
    wl_gguf_free (&gguf);
    return NULL;
}

/* A file of another name in the folder: only one of the right size is worth opening. */
static wl_gguf *try_folder (const char *folder, const Woolly__Load *load, wl_error *err)
{
    wl_gguf *gguf = NULL;
    struct dirent *entry;
    DIR *listing = load->n_parts ? opendir (folder) : NULL;
    while (listing && !gguf && (entry = readdir (listing))) {
        wl_error other = {0}; /* of a file that may be any */
        struct stat status;
        size_t length = strlen (entry->d_name);
        if (length < 5 || strcmp (entry->d_name + length - 5, ".gguf") != 0)
            continue;
        char *path = wl_join_path (folder, entry->d_name, err);
        if (!path)
            break;
        if (stat (path, &status) == 0 && S_ISREG (status.st_mode) &&
            (uint64_t) status.st_size == load->parts[0]->file_bytes)
            gguf = try_file (path, load, &other);
        free (path);
    }
    if (listing)
        closedir (listing);
    return gguf;
}

/* Its own copy: of the file's name in --model-dir, at the coordinator's path, of any name in --model-dir. NULL, with the first reason that is about a file,
 * else what to do. */
static wl_gguf *find_own (const Woolly__Load *load, const char *model_dir, wl_error *err)
{
    const char *asked = load->model_path;
    char *named = model_dir && *base_name (asked) ? wl_join_path (model_dir, base_name (asked), err) : NULL;
    wl_gguf *gguf = named && access (named, R_OK) == 0 ? try_file (named, load, err) : NULL;
    free (named);
    if (gguf)
        return gguf;
    int reason = access (asked, R_OK) == 0 ? 0 : errno;
    wl_error at_path = {0};
    if (reason == 0)
        gguf = try_file (asked, load, &at_path);
    if (!gguf && model_dir)
        gguf = try_folder (model_dir, load, err);
    if (gguf)
        *err = (wl_error){0};
    else if (err->code == WL_OK && reason == 0)
        *err = at_path;
    else if (err->code == WL_OK)
        wl_fail (err, WL_ERROR_CLUSTER,
                 "%s: %s here: copy the model to this machine and name its folder with --model-dir", asked,
                 strerror (reason));
    return gguf;
}

/* -- the store ---------------------------------------------------------------------------------------------------------------------------- */

static bool check_parts (const Woolly__Load *load, wl_error *err)
{
    uint64_t headers = 0, files = 0;
    if (load->n_parts == 0 || load->n_parts > MAX_PARTS)
        return wl_fail (err, WL_ERROR_CLUSTER, "a plan of a model of %zu files, where 1 to %d are possible",
                        load->n_parts, MAX_PARTS);
    for (size_t i = 0; i < load->n_parts; i++) {
        const Woolly__ModelPart *part = load->parts[i];
        if (part->header_bytes == 0 || part->header_bytes > part->file_bytes || part->file_bytes > INT64_MAX / 2 ||
            __builtin_add_overflow (headers, part->header_bytes, &headers) || headers > MAX_HEADER_BYTES ||
            __builtin_add_overflow (files, part->file_bytes, &files))
            return wl_fail (err, WL_ERROR_CLUSTER,
                            "a plan of a model whose file %zu has %llu bytes, %llu of them header: out of bounds",
                            i + 1, (unsigned long long) part->file_bytes, (unsigned long long) part->header_bytes);
    }
    return true;
}

/* Gets what of the ranges is not there, after making room for it. */
static bool fetch_ranges (model_source *s, const Woolly__Load *load, const model_source_options *options,
                          const wl_weights_range *ranges, size_t n, const load_progress *progress, wl_error *err)
{
    uint64_t missing = weight_fetch_missing (s->store, ranges, n);
    const weight_fetch_options how = {.endpoint = load->weights_endpoint,
                                      .peers = (const char *const *) load->weights_peers,
                                      .n_peers = load->n_weights_peers,
                                      .epoch = load->epoch,
                                      .progress = progress};
    if (missing == 0)
        return true;
    uint64_t began = wl_now_ns ();
    char *folder = wl_cache_folder (options->cache, err);
    bool ok = folder && wl_cache_make_room (folder, options->cache_bytes, missing, err) &&
              weight_fetch (s->store, &how, ranges, n, &s->shipped, err);
    free (folder);
    s->shipping_ns += wl_now_ns () - began;
    if (s->shipped.bytes)
        s->from = WOOLLY__WEIGHTS_FROM__SHIPPED;
    return ok;
}

static bool fetch_headers (model_source *s, const Woolly__Load *load, const model_source_options *options,
                           const load_progress *progress, wl_error *err)
{
    wl_weights_range *headers = wl_new (load->n_parts, sizeof *headers, err);
    if (!headers)
        return false;
    for (size_t i = 0; i < load->n_parts; i++)
        headers[i] = (wl_weights_range){.part = (uint32_t) i, .bytes = load->parts[i]->header_bytes};
    bool ok = fetch_ranges (s, load, options, headers, load->n_parts, progress, err);
    free (headers);
    return ok;
}

static bool open_described (model_source *s, const Woolly__Load *load, wl_error *err)
{
    const wl_rope_order rope = {(wl_rope_choice) load->rope_choice, load->rope_factor, load->rope_context};
    s->model = wl_model_new_scaled (s->gguf, &rope, err);
    return s->model != NULL;
}

static bool open_stored (model_source *s, const Woolly__Load *load, wl_error *err)
{
    wl_model_free (&s->model);
    wl_gguf_free (&s->gguf);
    s->gguf = wl_gguf_open (weight_store_path (s->store), err);
    return s->gguf && open_described (s, load, err);
}

static bool read_stored (void *context, uint32_t part, uint64_t offset, uint32_t length, uint8_t *out)
{
    const model_source *s = context;
    return weight_store_read (s->store, part, offset, length, out);
}

/* Has other workers get what the store held when it was opened. */
static bool offer_stored (model_source *s, const Woolly__Load *load, wl_weight_server *server, wl_error *err)
{
    if (!server)
        return true;
    wl_weight_offer offer = {.epoch = load->epoch, .read = read_stored, .context = s};
    wl_weights_range *held = weight_store_held (s->store, &offer.n_ranges, err);
    offer.ranges = held;
    bool ok = held && wl_weight_server_offer (server, &offer, err);
    s->server = ok ? server : NULL;
    free (held);
    return ok;
}

static bool offer_own (model_source *s, const Woolly__Load *load, wl_weight_server *server, wl_error *err)
{
    if (!server)
        return true;
    bool ok = wl_weight_server_offer_model (server, load->epoch, s->gguf, err);
    s->server = ok ? server : NULL;
    return ok;
}

static bool open_store (model_source *s, const Woolly__Load *load, const model_source_options *options,
                        const load_progress *progress, wl_error *err)
{
    if (!check_parts (load, err))
        return false;
    char *folder = wl_cache_folder (options->cache, err);
    if (folder)
        s->store = weight_store_open (folder, load->fingerprint.data, load->parts, load->n_parts, options->check_cache,
                                      progress, err);
    free (folder);
    s->from = WOOLLY__WEIGHTS_FROM__CACHE;
    return s->store && offer_stored (s, load, options->server, err) &&
           fetch_headers (s, load, options, progress, err) && open_stored (s, load, err);
}

/* -- both --------------------------------------------------------------------------------------------------------------------------------- */

bool model_source_open (model_source *s, const Woolly__Load *load, const model_source_options *options,
                        const load_progress *progress, wl_error *err)
{
    wl_error own = {0};
    *s = (model_source){.from = WOOLLY__WEIGHTS_FROM__FILE};
    s->gguf = find_own (load, options->model_dir, &own);
    bool ok = false;
    if (s->gguf) {
        ok = open_described (s, load, err) && offer_own (s, load, options->server, err);
    } else if (load->weights_endpoint[0]) {
        ok = open_store (s, load, options, progress, err);
    } else {
        *err = own;
    }
    if (!ok)
        model_source_close (s);
    return ok;
}

static int by_place (const void *a, const void *b)
{
    const wl_weights_range *x = a, *y = b;
    if (x->part != y->part)
        return x->part < y->part ? -1 : 1;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

bool model_source_fill (model_source *s, const Woolly__Load *load, const model_source_options *options,
                        const load_progress *progress, wl_error *err)
{
    if (!s->store)
        return true;
    size_t n = wl_model_stage_tensors (s->model, load->first_layer, load->last_layer, NULL, 0);
    uint64_t before = s->shipped.bytes;
    const wl_tensor **tensors = wl_new (n, sizeof *tensors, err);
    wl_weights_range *ranges = wl_new (n, sizeof *ranges, err);
    bool ok = tensors && ranges;
    if (ok) {
        wl_model_stage_tensors (s->model, load->first_layer, load->last_layer, tensors, n);
        for (size_t i = 0; i < n; i++)
            ranges[i] = (wl_weights_range){tensors[i]->part, tensors[i]->offset, tensors[i]->bytes};
        qsort (ranges, n, sizeof *ranges, by_place); /* the order in which they lie on the coordinator's disk */
        ok = fetch_ranges (s, load, options, ranges, n, progress, err);
    }
    free (tensors);
    free (ranges);
    /* What was mapped before may, on some system, not see what was written since. */
    ok = ok && (s->shipped.bytes == before || open_stored (s, load, err));
    if (ok)
        weight_store_settle_behind (s->store);
    return ok;
}

void model_source_close (model_source *s)
{
    if (s->server)
        wl_weight_server_withdraw (s->server);
    s->server = NULL;
    wl_model_free (&s->model);
    wl_gguf_free (&s->gguf);
    weight_store_close (&s->store);
}
