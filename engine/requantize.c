/* A copy of a model with its weights rounded to a smaller type; see requantize.h.
 *
 * First the header is made, which says where every tensor will stand; then the tensors are written in its order. Pairs of metadata are
 * copied as the bytes they are. */
#include "requantize.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "file_io.h"
#include "gguf_private.h"
#include "kernels/kernels.h"
#include "kernels/weight_rounding.h"
#include "memory.h"
#include "thread_pool.h"

enum { GGUF_VERSION = 3, BATCH_WEIGHTS = 1 << 20, PIECE_BYTES = 4 << 20, MAX_TYPE = 64 };

/* -- types ---------------------------------------------------------------------------------------------------------------------------------- */

bool wl_requantize_type (const char *name, uint32_t *type, wl_error *err)
{
    char list[128] = "";
    for (uint32_t t = 0; t < MAX_TYPE; t++) {
        if (!wl_round_row_find (t))
            continue;
        if (strcasecmp (wl_type_name (t), name) == 0) {
            *type = t;
            return true;
        }
        size_t length = strlen (list);
        snprintf (list + length, sizeof list - length, "%s%s", length ? ", " : "", wl_type_name (t));
    }
    return wl_fail (err, WL_ERROR_USAGE, "weights cannot be rounded to %s: choose one of %s", name, list);
}

/* GGUF's general.file_type: the type that most weights have. */
static uint32_t file_type (uint32_t type)
{
    switch (type) {
    case WL_TYPE_Q4_0:
        return 2;
    case WL_TYPE_Q5_0:
        return 8;
    case WL_TYPE_Q8_0:
        return 7;
    case WL_TYPE_Q2_K:
        return 10;
    case WL_TYPE_Q3_K:
        return 11;
    case WL_TYPE_Q4_K:
        return 14;
    case WL_TYPE_Q5_K:
        return 16;
    default:
        return 18; /* Q6_K */
    }
}

static bool is_smaller (uint32_t type, uint32_t than)
{
    return (uint64_t) wl_type_block_bytes (type) * wl_type_block_elements (than) <
           (uint64_t) wl_type_block_bytes (than) * wl_type_block_elements (type);
}

/* Matrices of weights, but for a router's, which is tiny and decides much. */
static bool is_matrix (const wl_tensor *t)
{
    size_t length = strlen (t->name), suffix = strlen (".weight");
    return t->n_dims >= 2 && length > suffix && strcmp (t->name + length - suffix, ".weight") == 0 &&
           !strstr (t->name, "ffn_gate_inp") && !strstr (t->name, "norm");
}

static bool is_head (const wl_tensor *t)
{
    return strcmp (t->name, "output.weight") == 0 || strcmp (t->name, "token_embd.weight") == 0;
}

/* -- the plan of the file ---------------------------------------------------------------------------------------------------------------- */

typedef struct placed { /* a tensor in the new file */
    const wl_tensor *source;
    uint32_t type;
    uint64_t offset, bytes; /* from the start of tensor data */
} placed;

typedef struct buffer {
    uint8_t *bytes;
    size_t length, room;
} buffer;

typedef struct job {
    const wl_gguf *gguf;
    const wl_requantize_options *options;
    placed *tensors;
    size_t n_tensors;
    buffer header;
    int file;
    uint64_t done_bytes;
    wl_thread_pool *pool;
    float *rows;      /* [threads][most_columns] */
    uint8_t *rounded; /* a batch of rows */
    uint64_t most_columns;
    uint64_t unseen_bytes; /* read since pages were given back */
} job;

static bool put (buffer *b, const void *bytes, size_t length, wl_error *err)
{
    if (length > b->room - b->length) {
        size_t room = (b->length + length) * 2;
        uint8_t *grown = wl_resize (b->bytes, room, 1, err);
        if (!grown)
            return false;
        b->bytes = grown;
        b->room = room;
    }
    memcpy (b->bytes + b->length, bytes, length);
    b->length += length;
    return true;
}

static bool put_u32 (buffer *b, uint32_t value, wl_error *err)
{
    return put (b, &value, sizeof value, err);
}

static bool put_u64 (buffer *b, uint64_t value, wl_error *err)
{
    return put (b, &value, sizeof value, err);
}

static bool put_text (buffer *b, const char *text, size_t length, wl_error *err)
{
    return put_u64 (b, length, err) && put (b, text, length, err);
}

static bool is_replaced (wl_text key)
{
    static const char type[] = "general.file_type", split[] = "split.";
    return (key.length == sizeof type - 1 && memcmp (key.data, type, key.length) == 0) ||
           (key.length >= sizeof split - 1 && memcmp (key.data, split, sizeof split - 1) == 0);
}

static bool put_pairs (job *j, wl_error *err)
{
    static const char key[] = "general.file_type";
    const file_part *part = &j->gguf->parts[0];
    bool ok = true;
    for (size_t i = 0; ok && i < part->n_pairs; i++) {
        const char *from = part->pairs[i].shown.key.data - sizeof (uint64_t);
        const char *to = i + 1 < part->n_pairs ? part->pairs[i + 1].shown.key.data - sizeof (uint64_t)
                                               : (const char *) part->bytes + part->tensors_at;
        if (!is_replaced (part->pairs[i].shown.key))
            ok = put (&j->header, from, (size_t) (to - from), err);
    }
    return ok && put_text (&j->header, key, sizeof key - 1, err) && put_u32 (&j->header, WL_VALUE_UINT32, err) &&
           put_u32 (&j->header, file_type (j->options->type), err);
}

static bool put_description (buffer *b, const placed *t, wl_error *err)
{
    bool ok = put_text (b, t->source->name, strlen (t->source->name), err) && put_u32 (b, t->source->n_dims, err);
    for (uint32_t d = 0; ok && d < t->source->n_dims; d++)
        ok = put_u64 (b, t->source->dims[d], err);
    return ok && put_u32 (b, t->type, err) && put_u64 (b, t->offset, err);
}

static bool make_header (job *j, wl_error *err)
{
    const file_part *part = &j->gguf->parts[0];
    uint64_t n_pairs = 1;
    for (size_t i = 0; i < part->n_pairs; i++)
        n_pairs += !is_replaced (part->pairs[i].shown.key);
    bool ok = put (&j->header, "GGUF", 4, err) && put_u32 (&j->header, GGUF_VERSION, err) &&
              put_u64 (&j->header, j->n_tensors, err) && put_u64 (&j->header, n_pairs, err) && put_pairs (j, err);
    for (size_t i = 0; ok && i < j->n_tensors; i++)
        ok = put_description (&j->header, &j->tensors[i], err);
    while (ok && j->header.length % part->alignment)
        ok = put (&j->header, "", 1, err);
    return ok;
}

/* The type a tensor gets, and whether that is possible. */
static bool choose_type (const job *j, placed *t, wl_error *err)
{
    const wl_tensor *source = t->source;
    uint32_t wanted = is_head (source) ? j->options->head_type : j->options->type;
    const char *path = wl_gguf_path (j->gguf);
    t->type = source->type;
    if (!is_matrix (source) || !is_smaller (wanted, source->type))
        return true;
    if (!wl_format_find (source->type))
        return wl_fail (
            err, WL_ERROR_INPUT,
            "%s: tensor %.80s is of type %s, which Woolly does not compute with: requantize from another file", path,
            source->name, wl_type_name (source->type) ? wl_type_name (source->type) : "unknown");
    if (source->dims[0] % wl_type_block_elements (wanted) != 0)
        return wl_fail (err, WL_ERROR_INPUT,
                        "%s: tensor %.80s has rows of %llu weights, and %s takes them by %u: choose a type with blocks "
                        "of 32, such as Q4_0",
                        path, source->name, (unsigned long long) source->dims[0], wl_type_name (wanted),
                        wl_type_block_elements (wanted));
    t->type = wanted;
    return true;
}

static bool place_tensors (job *j, wl_requantized *out, wl_error *err)
{
    uint64_t alignment = j->gguf->parts[0].alignment, at = 0;
    j->n_tensors = wl_gguf_n_tensors (j->gguf);
    j->tensors = wl_new (j->n_tensors, sizeof *j->tensors, err);
    for (size_t i = 0; j->tensors && i < j->n_tensors; i++) {
        placed *t = &j->tensors[i];
        t->source = wl_gguf_tensor (j->gguf, i);
        if (!choose_type (j, t, err))
            return false;
        bool rounds = t->type != t->source->type;
        if (rounds) /* smaller than the source, which is in a file: no overflow */
            t->bytes = t->source->bytes / wl_type_block_bytes (t->source->type) *
                       wl_type_block_elements (t->source->type) / wl_type_block_elements (t->type) *
                       wl_type_block_bytes (t->type);
        else
            t->bytes = t->source->bytes;
        if (rounds && t->source->dims[0] > j->most_columns)
            j->most_columns = t->source->dims[0];
        out->n_rounded += rounds;
        out->n_copied += !rounds;
        out->bytes_before += t->source->bytes;
        out->bytes_after += t->bytes;
        t->offset = at;
        at += (t->bytes + alignment - 1) / alignment * alignment;
    }
    return j->tensors != NULL;
}

/* -- writing ------------------------------------------------------------------------------------------------------------------------------- */

static bool write_piece (const job *j, const void *bytes, size_t length, uint64_t offset, wl_error *err)
{
    if (wl_write_at (j->file, bytes, length, offset))
        return true;
    return wl_fail (err, WL_ERROR_INPUT, "the output cannot be written: %s", strerror (errno));
}

static bool is_done (job *j, size_t bytes, uint64_t total, wl_error *err)
{
    const uint64_t most_unseen = 64 << 20;
    j->done_bytes += bytes;
    j->unseen_bytes += bytes;
    if (j->unseen_bytes > most_unseen) {
        wl_gguf_drop_pages (j->gguf);
        j->unseen_bytes = 0;
    }
    if (j->options->progress && j->options->progress (j->options->context, j->done_bytes, total))
        return wl_fail (err, WL_ERROR_INTERNAL, "interrupted");
    return true;
}

typedef struct batch {
    const job *job;
    const uint8_t *source; /* its first row */
    uint64_t columns, source_bytes, rounded_bytes;
    const wl_format *format;
    wl_round_row_fn round;
    atomic_bool unsound; /* set by any thread, read when all are done */
} batch;

static void round_row (void *context, size_t row, size_t thread)
{
    batch *b = context;
    float *weights = b->job->rows + thread * b->job->most_columns;
    bool finite = true;
    b->format->dequantize (weights, b->source + row * b->source_bytes, b->columns);
    for (size_t i = 0; i < b->columns; i++)
        finite = finite && isfinite (weights[i]);
    if (finite)
        b->round (b->job->rounded + row * b->rounded_bytes, weights, b->columns);
    else
        atomic_store (&b->unsound, true);
}

static uint64_t batch_rows (uint64_t columns)
{
    return columns < BATCH_WEIGHTS ? BATCH_WEIGHTS / columns : 1;
}

static bool write_rounded (job *j, const placed *t, uint64_t at, uint64_t total, wl_error *err)
{
    const wl_tensor *source = t->source;
    batch b = {.job = j,
               .columns = source->dims[0],
               .format = wl_format_find (source->type),
               .round = wl_round_row_find (t->type)};
    b.source_bytes = b.columns / wl_type_block_elements (source->type) * wl_type_block_bytes (source->type);
    b.rounded_bytes = b.columns / wl_type_block_elements (t->type) * wl_type_block_bytes (t->type);
    uint64_t n_rows = source->bytes / b.source_bytes, most = batch_rows (b.columns);
    for (uint64_t row = 0; row < n_rows; row += most) {
        uint64_t n = n_rows - row < most ? n_rows - row : most;
        b.source = (const uint8_t *) source->data + row * b.source_bytes;
        wl_thread_pool_run (j->pool, (size_t) n, round_row, &b);
        if (atomic_load (&b.unsound))
            return wl_fail (err, WL_ERROR_INPUT, "%s: tensor %.80s holds what is no number: the file is damaged",
                            wl_gguf_path (j->gguf), source->name);
        if (!write_piece (j, j->rounded, (size_t) (n * b.rounded_bytes), at + row * b.rounded_bytes, err) ||
            !is_done (j, (size_t) (n * b.source_bytes), total, err))
            return false;
    }
    return true;
}

static bool write_copied (job *j, const placed *t, uint64_t at, uint64_t total, wl_error *err)
{
    for (uint64_t done = 0; done < t->bytes; done += PIECE_BYTES) {
        size_t n = t->bytes - done < PIECE_BYTES ? (size_t) (t->bytes - done) : PIECE_BYTES;
        if (!write_piece (j, (const uint8_t *) t->source->data + done, n, at + done, err) ||
            !is_done (j, n, total, err))
            return false;
    }
    return true;
}

static bool write_file (job *j, uint64_t total, wl_error *err)
{
    bool ok = write_piece (j, j->header.bytes, j->header.length, 0, err);
    uint64_t end = j->header.length, alignment = j->gguf->parts[0].alignment;
    for (size_t i = 0; ok && i < j->n_tensors; i++) {
        const placed *t = &j->tensors[i];
        uint64_t at = j->header.length + t->offset;
        ok = t->type == t->source->type ? write_copied (j, t, at, total, err) : write_rounded (j, t, at, total, err);
        end = at + (t->bytes + alignment - 1) / alignment * alignment;
    }
    /* The last tensor is padded as well, as some readers want it. */
    return ok && ((ftruncate (j->file, (off_t) end) == 0 && fsync (j->file) == 0) ||
                  wl_fail (err, WL_ERROR_INPUT, "the output cannot be written: %s", strerror (errno)));
}

static bool open_scratch (job *j, wl_error *err)
{
    const wl_requantize_options *o = j->options;
    size_t rows = 0;
    for (size_t i = 0; i < j->n_tensors; i++) {
        const placed *t = &j->tensors[i];
        uint64_t columns = t->source->dims[0];
        size_t n = (size_t) (batch_rows (columns) * (columns / wl_type_block_elements (t->type)) *
                             wl_type_block_bytes (t->type));
        rows = t->type != t->source->type && n > rows ? n : rows;
    }
    j->pool = wl_thread_pool_new (o->n_threads, err);
    j->rows = j->pool ? wl_new (o->n_threads * j->most_columns, sizeof *j->rows, err) : NULL;
    j->rounded = j->rows ? wl_new (rows, 1, err) : NULL;
    return j->rounded != NULL;
}

/* Beside the output, so that it can be renamed. */
static char *temporary_name (const char *path, wl_error *err)
{
    size_t room = strlen (path) + 32;
    char *name = wl_new (room, 1, err);
    if (name)
        snprintf (name, room, "%s.%ld.part", path, (long) getpid ());
    return name;
}

bool wl_requantize (const wl_gguf *gguf, const wl_requantize_options *options, const char *path, wl_requantized *out,
                    wl_error *err)
{
    job j = {.gguf = gguf, .options = options, .file = -1};
    char *temporary = NULL;
    bool ok = false;
    *out = (wl_requantized){0};
    if (!place_tensors (&j, out, err) || !make_header (&j, err) || !open_scratch (&j, err))
        goto done;
    temporary = temporary_name (path, err);
    if (!temporary)
        goto done;
    j.file = open (temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (j.file < 0) {
        wl_fail (err, WL_ERROR_INPUT, "%s: the output cannot be written: %s", path, strerror (errno));
        goto done;
    }
    ok = write_file (&j, out->bytes_before, err);
    if (ok && rename (temporary, path) != 0)
        ok = wl_fail (err, WL_ERROR_INPUT, "%s: the output cannot be written: %s", path, strerror (errno));
done:
    if (j.file >= 0)
        close (j.file);
    if (j.file >= 0 && temporary && !ok)
        unlink (temporary);
    free (temporary);
    free (j.rounded);
    free (j.rows);
    wl_thread_pool_free (&j.pool);
    free (j.header.bytes);
    free (j.tensors);
    return ok;
}
