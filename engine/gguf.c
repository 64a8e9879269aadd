/* GGUF files: mapped, checked once on opening, then only looked up; see gguf.h.
 *
 * Opening walks the header with a cursor that never passes the end of the file. Nothing is allocated before the file has
 * proved that it holds what the allocation is for: key-value pairs take at least MIN_PAIR_BYTES of file each, texts of an
 * array 8, and tensor descriptions are walked once before their table is made. So memory stays a small multiple of the
 * header's size whatever its counts say.
 *
 * Values stay in the mapping, unaligned, and are read with memcpy. A split model is several parts, each parsed the same
 * way; metadata is that of the first. */
#include "gguf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gguf_private.h"
#include "memory.h"

enum {
    MIN_PAIR_BYTES = 8 + 1 + 4 + 1,           /* key length, key, type, value */
    MIN_TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8, /* name length, name, n_dims, one dim, type, offset */
    MAX_KEY_BYTES = 65535,                    /* by the format */
    MAX_TENSOR_NAME_BYTES = 255,              /* the format says 64; some writers exceed it */
    DEFAULT_ALIGNMENT = 32,
    MIN_ALIGNMENT = 8,
    MAX_ALIGNMENT = 1 << 24,
    MAX_DIMS = 4,
};

/* -- Cursor ------------------------------------------------------------------------------------------------------------------ */

/* 1234567 as "1,234,567". */
typedef struct grouped {
    char text[32];
} grouped;

static grouped group (uint64_t number)
{
    grouped out;
    char *at = out.text + sizeof out.text - 1;
    *at = 0;
    int digits = 0;
    do {
        if (digits && digits % 3 == 0)
            *--at = ',';
        *--at = (char) ('0' + number % 10);
        number /= 10;
        digits++;
    } while (number);
    memmove (out.text, at, strlen (at) + 1);
    return out;
}

typedef struct cursor {
    const file_part *part;
    size_t at;
    const char *section; /* for errors: "metadata pair", "tensor description" */
    uint64_t item, n_items;
    wl_error *err;
} cursor;

static bool cut_short (const cursor *c, uint64_t wanted)
{
    return wl_fail (c->err, WL_ERROR_INPUT,
                    "%s: %s %llu of %llu ends past the file (needs %s bytes at %s; the file has %s): the download is "
                    "incomplete or damaged",
                    c->part->path, c->section, (unsigned long long) c->item + 1, (unsigned long long) c->n_items,
                    group (wanted).text, group (c->at).text, group (c->part->length).text);
}

static size_t left (const cursor *c)
{
    return c->part->length - c->at;
}

/* Copies `n` bytes out and passes them. */
static bool take (cursor *c, void *out, size_t n)
{
    if (n > left (c))
        return cut_short (c, n);
    memcpy (out, c->part->bytes + c->at, n);
    c->at += n;
    return true;
}

static bool skip (cursor *c, uint64_t n)
{
    if (n > left (c))
        return cut_short (c, n);
    c->at += (size_t) n;
    return true;
}

static bool take_text (cursor *c, wl_text *out)
{
    uint64_t length = 0;
    if (!take (c, &length, sizeof length))
        return false;
    out->data = (const char *) c->part->bytes + c->at;
    out->length = (size_t) length;
    return skip (c, length);
}

/* A name that other code handles as a C string: 1 to `limit` bytes, no NUL. */
static bool take_name (cursor *c, wl_text *out, size_t limit)
{
    if (!take_text (c, out))
        return false;
    if (out->length == 0 || out->length > limit || memchr (out->data, 0, out->length))
        return wl_fail (c->err, WL_ERROR_INPUT,
                        "%s: %s %llu has a name of %s bytes%s; 1 to %zu without NUL are allowed", c->part->path,
                        c->section, (unsigned long long) c->item + 1, group (out->length).text,
                        out->length && out->length <= limit ? " with a NUL in it" : "", limit);
    return true;
}

/* `name` as an argument of "%.*s", cut to a length that leaves room for the rest of an error's text. */
static int shown_length (wl_text name)
{
    return name.length < 80 ? (int) name.length : 80;
}

/* -- Metadata ---------------------------------------------------------------------------------------------------------------- */

/* Walks the texts of an array once and notes where each starts. */
static bool index_texts (cursor *c, pair *p)
{
    p->texts = wl_new (p->shown.length, sizeof *p->texts, c->err);
    if (!p->texts)
        return false;
    for (size_t i = 0; i < p->shown.length; i++) {
        wl_text text;
        p->texts[i] = c->at;
        if (!take_text (c, &text))
            return false;
    }
    return true;
}

static bool parse_array (cursor *c, pair *p)
{
    uint32_t element = 0;
    uint64_t length = 0, bytes;
    wl_text key = p->shown.key;
    if (!take (c, &element, sizeof element) || !take (c, &length, sizeof length))
        return false;
    if (element == WL_VALUE_ARRAY)
        return wl_fail (c->err, WL_ERROR_INPUT,
                        "%s: metadata \"%.*s\" is an array of arrays, which Woolly does not read", c->part->path,
                        shown_length (key), key.data);
    if (element > WL_VALUE_FLOAT64)
        return wl_fail (c->err, WL_ERROR_INPUT,
                        "%s: metadata \"%.*s\" is an array of unknown type %u: the file is damaged", c->part->path,
                        shown_length (key), key.data, element);
    size_t least = element == WL_VALUE_STRING ? 8 : gguf_value_bytes (element);
    if (__builtin_mul_overflow (length, least, &bytes))
        bytes = UINT64_MAX;
    if (bytes > left (c))
        return cut_short (c, bytes);
    p->shown.element = (wl_value_type) element;
    p->shown.length = (size_t) length;
    p->value = c->part->bytes + c->at;
    return element == WL_VALUE_STRING ? index_texts (c, p) : skip (c, bytes);
}

static bool parse_pair (cursor *c, file_part *part, size_t i)
{
    pair *p = &part->pairs[i];
    uint32_t type = 0;
    if (!take_name (c, &p->shown.key, MAX_KEY_BYTES))
        return false;
    wl_text key = p->shown.key;
    uint32_t index;
    bool is_new;
    if (!wl_name_table_add (&part->keys, key, &index, &is_new, c->err))
        return false;
    if (!is_new)
        return wl_fail (c->err, WL_ERROR_INPUT, "%s: metadata \"%.*s\" stands in the file twice: the file is damaged",
                        part->path, shown_length (key), key.data);
    if (!take (c, &type, sizeof type))
        return false;
    if (type > WL_VALUE_FLOAT64)
        return wl_fail (c->err, WL_ERROR_INPUT, "%s: metadata \"%.*s\" has unknown type %u: the file is damaged",
                        part->path, shown_length (key), key.data, type);
    p->shown.type = (wl_value_type) type;
    if (type == WL_VALUE_ARRAY)
        return parse_array (c, p);
    p->value = part->bytes + c->at;
    if (type == WL_VALUE_STRING) {
        wl_text text;
        return take_text (c, &text);
    }
    if (!skip (c, gguf_value_bytes (type)))
        return false;
    if (type == WL_VALUE_BOOL && *p->value > 1)
        return wl_fail (c->err, WL_ERROR_INPUT, "%s: metadata \"%.*s\" is a bool of value %u: the file is damaged",
                        part->path, shown_length (key), key.data, *p->value);
    return true;
}

/* -- One part ---------------------------------------------------------------------------------------------------------------- */

/* Says what a file that does not start with "GGUF" is, where that helps. */
static bool not_gguf (const file_part *part, wl_error *err)
{
    static const struct {
        const char *start, *meaning;
    } known[] = {
        {"version https://git-lfs", "it is a Git LFS pointer: fetch the model itself with `git lfs pull`"},
        {"<", "it looks like a web page: download the model's file itself"},
        {"PK\3\4", "it is a zip archive: unpack it"},
        {"lmgg", "it is in a format older than GGUF: convert the model again"},
        {"tjgg", "it is in a format older than GGUF: convert the model again"},
        {"fmgg", "it is in a format older than GGUF: convert the model again"},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        size_t n = strlen (known[i].start);
        if (part->length >= n && memcmp (part->bytes, known[i].start, n) == 0)
            return wl_fail (err, WL_ERROR_INPUT, "%s: not a GGUF file: %s", part->path, known[i].meaning);
    }
    return wl_fail (err, WL_ERROR_INPUT,
                    "%s: not a GGUF file (it does not start with \"GGUF\"): give a model in GGUF format", part->path);
}

static bool parse_preamble (file_part *part, cursor *c, uint64_t *n_pairs)
{
    wl_error *err = c->err;
    if (part->length == 0)
        return wl_fail (err, WL_ERROR_INPUT, "%s: the file is empty", part->path);
    if (part->length < 4 || memcmp (part->bytes, "GGUF", 4) != 0)
        return not_gguf (part, err);
    c->at = 4;
    if (!take (c, &part->version, sizeof part->version))
        return false;
    if (part->version != 0 && (part->version & 0xffff) == 0)
        return wl_fail (
            err, WL_ERROR_INPUT,
            "%s: a big-endian GGUF file: convert it to little-endian (gguf_convert_endian.py of the gguf package)",
            part->path);
    if (part->version != 2 && part->version != 3)
        return wl_fail (err, WL_ERROR_INPUT, "%s: GGUF version %u; Woolly reads 2 and 3: convert the model again",
                        part->path, part->version);
    if (!take (c, &part->n_tensors, 8) || !take (c, n_pairs, 8))
        return false;
    if (*n_pairs > left (c) / MIN_PAIR_BYTES || *n_pairs >= UINT32_MAX)
        return wl_fail (err, WL_ERROR_INPUT,
                        "%s: says it has %s metadata pairs, more than its %s bytes can hold: the "
                        "download is incomplete or damaged",
                        part->path, group (*n_pairs).text, group (part->length).text);
    if (part->n_tensors > left (c) / MIN_TENSOR_BYTES || part->n_tensors >= UINT32_MAX)
        return wl_fail (err, WL_ERROR_INPUT,
                        "%s: says it has %s tensors, more than its %s bytes can describe: the download "
                        "is incomplete or damaged",
                        part->path, group (part->n_tensors).text, group (part->length).text);
    return true;
}

static bool find_alignment (file_part *part, wl_error *err)
{
    const pair *p = gguf_find_pair (part, "general.alignment");
    part->alignment = DEFAULT_ALIGNMENT;
    if (p && !gguf_pair_u64 (p, MAX_ALIGNMENT, &part->alignment))
        part->alignment = 0;
    if (part->alignment < MIN_ALIGNMENT || (part->alignment & (part->alignment - 1)) != 0)
        return wl_fail (err, WL_ERROR_INPUT,
                        "%s: general.alignment is not a power of two from %d to %d: the file is damaged", part->path,
                        MIN_ALIGNMENT, MAX_ALIGNMENT);
    return true;
}

/* Walks the tensor descriptions without keeping them: proves that they are in the file and adds up their names. */
static bool measure_tensors (cursor *c, const file_part *part, size_t *name_bytes)
{
    *name_bytes = 0;
    c->section = "tensor description";
    c->n_items = part->n_tensors;
    for (c->item = 0; c->item < part->n_tensors; c->item++) {
        wl_text name;
        uint32_t n_dims = 0;
        if (!take_name (c, &name, MAX_TENSOR_NAME_BYTES) || !take (c, &n_dims, sizeof n_dims))
            return false;
        if (n_dims < 1 || n_dims > MAX_DIMS)
            return wl_fail (c->err, WL_ERROR_INPUT, "%s: tensor %.*s has %u dimensions; 1 to %d are allowed",
                            part->path, shown_length (name), name.data, n_dims, MAX_DIMS);
        if (!skip (c, 8 * (uint64_t) n_dims + 4 + 8))
            return false;
        *name_bytes += name.length + 1;
    }
    return true;
}

/* Everything up to the tensor data, except the tensor table itself. */
static bool parse_header (file_part *part, wl_error *err)
{
    cursor c = {.part = part, .section = "the header's field", .n_items = 4, .err = err};
    uint64_t n_pairs = 0;
    size_t name_bytes;
    if (!parse_preamble (part, &c, &n_pairs))
        return false;
    part->pairs = wl_new ((size_t) n_pairs, sizeof *part->pairs, err);
    if (!part->pairs || !wl_name_table_init (&part->keys, (size_t) n_pairs, err))
        return false;
    c.section = "metadata pair";
    c.n_items = n_pairs;
    for (c.item = 0; c.item < n_pairs; c.item++) {
        part->n_pairs = (size_t) c.item + 1; /* counted first, so that a half-parsed one is freed */
        if (!parse_pair (&c, part, (size_t) c.item))
            return false;
    }
    part->tensors_at = c.at;
    if (!find_alignment (part, err) || !measure_tensors (&c, part, &name_bytes))
        return false;
    part->tensor_names = wl_new (name_bytes, 1, err);
    part->header_end = (c.at + (size_t) part->alignment - 1) & ~((size_t) part->alignment - 1);
    return part->tensor_names != NULL;
}

/* Sizes `t` from its dims and type, and checks that the file holds its data. */
static bool place_tensor (const file_part *part, wl_tensor *t, bool header_only, wl_error *err)
{
    uint64_t elements = 1, end;
    for (uint32_t d = 0; d < t->n_dims; d++) {
        if (t->dims[d] == 0)
            return wl_fail (err, WL_ERROR_INPUT, "%s: tensor %.80s has a dimension of 0: the file is damaged",
                            part->path, t->name);
        if (__builtin_mul_overflow (elements, t->dims[d], &elements))
            return wl_fail (err, WL_ERROR_INPUT,
                            "%s: tensor %.80s has more elements than any file can hold: the file is damaged",
                            part->path, t->name);
    }
    const char *type = wl_type_name (t->type);
    uint32_t block_elements = wl_type_block_elements (t->type);
    if (!type)
        return wl_fail (err, WL_ERROR_INPUT,
                        "%s: tensor %.80s has type %u, which Woolly does not know: convert the model to another type",
                        part->path, t->name, t->type);
    if (t->dims[0] % block_elements)
        return wl_fail (err, WL_ERROR_INPUT,
                        "%s: tensor %.80s has rows of %s elements, not a multiple of %s's %u: the file is "
                        "damaged",
                        part->path, t->name, group (t->dims[0]).text, type, block_elements);
    if (t->offset % part->alignment)
        return wl_fail (err, WL_ERROR_INPUT,
                        "%s: tensor %.80s starts at %s, which is not aligned to %s: the file is damaged", part->path,
                        t->name, group (t->offset).text, group (part->alignment).text);
    bool fits = !__builtin_mul_overflow (elements / block_elements, wl_type_block_bytes (t->type), &t->bytes) &&
                !__builtin_add_overflow (t->offset, part->header_end, &t->offset) &&
                !__builtin_add_overflow (t->offset, t->bytes, &end);
    if (!fits || (!header_only && end > part->length))
        return wl_fail (
            err, WL_ERROR_INPUT,
            "%s: tensor %.80s ends past the file (needs %s bytes at %s; the file has %s): the download is incomplete",
            part->path, t->name, group (t->bytes).text, group (t->offset).text, group (part->length).text);
    t->data = header_only ? NULL : part->bytes + t->offset;
    return true;
}

/* Appends the part's tensors to the table, which has room for them. measure_tensors has walked the same bytes: the cursor
 * cannot fail here. */
static bool parse_tensors (wl_gguf *gguf, uint32_t part_index, wl_error *err)
{
    const file_part *part = &gguf->parts[part_index];
    cursor c = {
        .part = part, .at = part->tensors_at, .section = "tensor description", .n_items = part->n_tensors, .err = err};
    char *names = part->tensor_names;
    for (c.item = 0; c.item < part->n_tensors; c.item++) {
        wl_tensor *t = &gguf->tensors[gguf->n_tensors];
        wl_text name;
        uint32_t index;
        bool is_new;
        if (!take_name (&c, &name, MAX_TENSOR_NAME_BYTES) || !take (&c, &t->n_dims, sizeof t->n_dims))
            return false;
        for (uint32_t d = 0; d < MAX_DIMS; d++) {
            t->dims[d] = 1;
            if (d < t->n_dims && !take (&c, &t->dims[d], sizeof t->dims[d]))
                return false;
        }
        if (!take (&c, &t->type, sizeof t->type) || !take (&c, &t->offset, sizeof t->offset))
            return false;
        memcpy (names, name.data, name.length); /* the NUL behind it is there */
        t->name = names;
        t->part = part_index;
        names += name.length + 1;
        if (!place_tensor (part, t, gguf->header_only, err))
            return false;
        if (!wl_name_table_add (&gguf->tensor_table, (wl_text){t->name, name.length}, &index, &is_new, err))
            return false;
        if (!is_new)
            return wl_fail (err, WL_ERROR_INPUT, "%s: tensor %.80s stands in the model twice: the file is damaged",
                            part->path, t->name);
        gguf->n_tensors++;
    }
    return true;
}

/* -- Files -------------------------------------------------------------------------------------------------------------------- */

static bool map_file (file_part *part, wl_error *err)
{
    bool ok = false;
    struct stat info;
    int file = open (part->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO without a writer must not block */
    if (file < 0)
        return wl_fail (err, WL_ERROR_INPUT, "%s: cannot be opened: %s", part->path, strerror (errno));
    if (fstat (file, &info) != 0) {
        wl_fail (err, WL_ERROR_INPUT, "%s: cannot be read: %s", part->path, strerror (errno));
        goto done;
    }
    if (!S_ISREG (info.st_mode)) {
        wl_fail (err, WL_ERROR_INPUT, "%s: %s, not a GGUF file", part->path,
                 S_ISDIR (info.st_mode) ? "is a directory" : "is no regular file");
        goto done;
    }
    part->length = (size_t) info.st_size;
    if (part->length > 0) {
        void *bytes = mmap (NULL, part->length, PROT_READ, MAP_PRIVATE, file, 0);
        if (bytes == MAP_FAILED) {
            wl_fail (err, WL_ERROR_INTERNAL, "%s: cannot be mapped (%s bytes): %s", part->path,
                     group (part->length).text, strerror (errno));
            goto done;
        }
        part->bytes = bytes;
        part->is_mapped = true;
    }
    ok = true;
done:
    close (file);
    return ok;
}

/* Adds an empty part at the end. */
static file_part *add_part (wl_gguf *gguf, const char *path, wl_error *err)
{
    char *copy = wl_copy_text (path, strlen (path), err);
    file_part *grown = copy ? wl_resize (gguf->parts, gguf->n_parts + 1, sizeof *grown, err) : NULL;
    if (!grown) {
        free (copy);
        return NULL;
    }
    gguf->parts = grown;
    file_part *added = &grown[gguf->n_parts++];
    memset (added, 0, sizeof *added);
    added->path = copy;
    return added;
}

/* The number behind a split key of `part`, or `missing`. */
static uint64_t split_number (const file_part *part, const char *key, uint64_t missing)
{
    uint64_t value = missing;
    gguf_pair_u64 (gguf_find_pair (part, key), UINT64_MAX, &value);
    return value;
}

static bool open_part (wl_gguf *gguf, const char *path, uint64_t index, uint64_t n_parts, wl_error *err)
{
    file_part *part = add_part (gguf, path, err);
    if (!part || !map_file (part, err) || !parse_header (part, err))
        return false;
    if (split_number (part, "split.no", UINT64_MAX) != index || split_number (part, "split.count", 0) != n_parts)
        return wl_fail (err, WL_ERROR_INPUT,
                        "%s: is not part %llu of %llu, as its name says: download the model's parts again", path,
                        (unsigned long long) index + 1, (unsigned long long) n_parts);
    return true;
}

/* Opens parts 2 to n of a split model beside the first: NAME-00001-of-0000N.gguf. */
static bool open_other_parts (wl_gguf *gguf, uint64_t n_parts, wl_error *err)
{
    const char *first = gguf->parts[0].path;
    char tail[64];
    snprintf (tail, sizeof tail, "-00001-of-%05llu.gguf", (unsigned long long) n_parts);
    size_t length = strlen (first), tail_length = strlen (tail);
    if (!gguf->parts[0].is_mapped || length < tail_length || strcmp (first + length - tail_length, tail) != 0)
        return wl_fail (
            err, WL_ERROR_INPUT,
            "%s: is the first of %llu parts, so its name must end in %s and the other parts must lie beside it", first,
            (unsigned long long) n_parts, tail);
    char *path = wl_copy_text (first, length, err);
    if (!path)
        return false;
    bool ok = true;
    for (uint64_t i = 1; ok && i < n_parts; i++) {
        snprintf (path + length - tail_length, tail_length + 1, "-%05llu-of-%05llu.gguf", (unsigned long long) i + 1,
                  (unsigned long long) n_parts);
        ok = open_part (gguf, path, i, n_parts, err);
    }
    free (path);
    return ok;
}

static bool open_split (wl_gguf *gguf, wl_error *err)
{
    const file_part *first = &gguf->parts[0];
    uint64_t number = split_number (first, "split.no", 0), n_parts = split_number (first, "split.count", 1);
    if (n_parts <= 1 || gguf->header_only)
        return true;
    if (n_parts > 99999)
        return wl_fail (err, WL_ERROR_INPUT, "%s: split.count is %llu: the file is damaged", first->path,
                        (unsigned long long) n_parts);
    if (number != 0)
        return wl_fail (err, WL_ERROR_INPUT, "%s: is part %llu of %llu of a split model: give the first part",
                        first->path, (unsigned long long) number + 1, (unsigned long long) n_parts);
    return open_other_parts (gguf, n_parts, err);
}

/* With part 0 in memory: parses it, opens the others, and builds the tensor table over all. */
static bool finish_open (wl_gguf *gguf, wl_error *err)
{
    if (!parse_header (&gguf->parts[0], err) || !open_split (gguf, err))
        return false;
    uint64_t n_tensors = 0, said;
    for (size_t i = 0; i < gguf->n_parts; i++) {
        n_tensors += gguf->parts[i].n_tensors;
        gguf->file_bytes += gguf->parts[i].length;
    }
    said = split_number (&gguf->parts[0], "split.tensors.count", n_tensors);
    if (!gguf->header_only && gguf->n_parts > 1 && said != n_tensors)
        return wl_fail (err, WL_ERROR_INPUT,
                        "%s: the model has %llu tensors and its parts hold %llu: download them again",
                        gguf->parts[0].path, (unsigned long long) said, (unsigned long long) n_tensors);
    if (n_tensors >= UINT32_MAX)
        return wl_fail (err, WL_ERROR_INPUT, "%s: the parts hold %llu tensors, too many", gguf->parts[0].path,
                        (unsigned long long) n_tensors);
    gguf->tensors = wl_new ((size_t) n_tensors, sizeof *gguf->tensors, err);
    if (!gguf->tensors || !wl_name_table_init (&gguf->tensor_table, (size_t) n_tensors, err))
        return false;
    for (size_t i = 0; i < gguf->n_parts; i++)
        if (!parse_tensors (gguf, (uint32_t) i, err))
            return false;
    return true;
}

static wl_gguf *new_gguf (const char *path, wl_error *err)
{
    wl_gguf *gguf = wl_new (1, sizeof *gguf, err);
    if (!gguf)
        return NULL;
    if (!add_part (gguf, path, err))
        wl_gguf_free (&gguf);
    return gguf;
}

wl_gguf *wl_gguf_open (const char *path, wl_error *err)
{
    wl_gguf *gguf = new_gguf (path, err);
    if (gguf && (!map_file (&gguf->parts[0], err) || !finish_open (gguf, err)))
        wl_gguf_free (&gguf);
    return gguf;
}

static wl_gguf *open_bytes (const void *bytes, size_t length, const char *name, bool header_only, wl_error *err)
{
    wl_gguf *gguf = new_gguf (name, err);
    if (!gguf)
        return NULL;
    gguf->parts[0].bytes = bytes;
    gguf->parts[0].length = length;
    gguf->header_only = header_only;
    if (!finish_open (gguf, err))
        wl_gguf_free (&gguf);
    return gguf;
}

wl_gguf *wl_gguf_open_memory (const void *bytes, size_t length, const char *name, wl_error *err)
{
    return open_bytes (bytes, length, name, false, err);
}

wl_gguf *wl_gguf_open_header (const void *bytes, size_t length, const char *name, wl_error *err)
{
    return open_bytes (bytes, length, name, true, err);
}

void wl_gguf_free (wl_gguf **gguf)
{
    wl_gguf *g = *gguf;
    if (!g)
        return;
    for (size_t i = 0; i < g->n_parts; i++) {
        file_part *p = &g->parts[i];
        for (size_t k = 0; k < p->n_pairs; k++)
            free (p->pairs[k].texts);
        free (p->pairs);
        wl_name_table_free (&p->keys);
        free (p->tensor_names);
        free (p->path);
        if (p->is_mapped)
            munmap ((void *) p->bytes, p->length);
    }
    free (g->parts);
    free (g->tensors);
    wl_name_table_free (&g->tensor_table);
    free (g);
    *gguf = NULL;
}
