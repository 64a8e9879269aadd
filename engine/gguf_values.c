/* Looking things up in an opened GGUF file; see gguf.h. Nothing here can fail on the file: opening has checked it. */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "gguf_private.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "GGUF values are read in place: a little-endian machine is needed"
#endif

size_t gguf_value_bytes (uint32_t type)
{
    static const uint8_t bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return type < sizeof bytes ? bytes[type] : 0;
}

const pair *gguf_find_pair (const file_part *part, const char *key)
{
    uint32_t i;
    return wl_name_table_find (&part->keys, (wl_text){key, strlen (key)}, &i) ? &part->pairs[i] : NULL;
}

static uint64_t load_u64 (const uint8_t *at)
{
    uint64_t v;
    memcpy (&v, at, sizeof v);
    return v;
}

/* An integer of any width; false for other types. Widened to hold both u64 and i64. */
static bool read_integer (wl_value_type type, const uint8_t *at, __int128 *out)
{
    size_t bytes = gguf_value_bytes (type);
    bool is_signed =
        type == WL_VALUE_INT8 || type == WL_VALUE_INT16 || type == WL_VALUE_INT32 || type == WL_VALUE_INT64;
    if (type == WL_VALUE_FLOAT32 || type == WL_VALUE_FLOAT64 || type == WL_VALUE_BOOL || bytes == 0)
        return false;
    uint64_t raw = 0;
    memcpy (&raw, at, bytes);
    unsigned shift = 64 - 8 * (unsigned) bytes;
    *out = is_signed ? (__int128) ((int64_t) (raw << shift) >> shift) : (__int128) raw;
    return true;
}

static bool read_f64 (wl_value_type type, const uint8_t *at, double *out)
{
    __int128 integer;
    float narrow;
    if (type == WL_VALUE_FLOAT64) {
        memcpy (out, at, sizeof *out);
        return true;
    }
    if (type == WL_VALUE_FLOAT32) {
        memcpy (&narrow, at, sizeof narrow);
        *out = narrow;
        return true;
    }
    if (!read_integer (type, at, &integer))
        return false;
    *out = (double) integer;
    return true;
}

static bool read_f32 (wl_value_type type, const uint8_t *at, float *out)
{
    double wide;
    if (!read_f64 (type, at, &wide))
        return false;
    *out = (float) wide;
    return true;
}

bool gguf_pair_u64 (const pair *p, uint64_t limit, uint64_t *out)
{
    __int128 value;
    if (!p || !read_integer (p->shown.type, p->value, &value) || value < 0 || value > limit)
        return false;
    *out = (uint64_t) value;
    return true;
}

const char *wl_gguf_path (const wl_gguf *gguf)
{
    return gguf->parts[0].path;
}

uint32_t wl_gguf_version (const wl_gguf *gguf)
{
    return gguf->parts[0].version;
}

uint64_t wl_gguf_file_bytes (const wl_gguf *gguf)
{
    return gguf->file_bytes;
}

wl_text wl_gguf_header (const wl_gguf *gguf)
{
    const file_part *first = &gguf->parts[0];
    size_t length = first->header_end < first->length ? first->header_end : first->length;
    return (wl_text){(const char *) first->bytes, length};
}

size_t wl_gguf_n_parts (const wl_gguf *gguf)
{
    return gguf->n_parts;
}

wl_gguf_part wl_gguf_part_at (const wl_gguf *gguf, size_t index)
{
    const file_part *part = &gguf->parts[index];
    return (wl_gguf_part){.bytes = part->bytes,
                          .file_bytes = part->length,
                          .header_bytes = part->header_end < part->length ? part->header_end : part->length};
}

size_t wl_gguf_n_tensors (const wl_gguf *gguf)
{
    return gguf->n_tensors;
}

const wl_tensor *wl_gguf_tensor (const wl_gguf *gguf, size_t index)
{
    return index < gguf->n_tensors ? &gguf->tensors[index] : NULL;
}

const wl_tensor *wl_gguf_find_tensor (const wl_gguf *gguf, const char *name)
{
    uint32_t i;
    return wl_name_table_find (&gguf->tensor_table, (wl_text){name, strlen (name)}, &i) ? &gguf->tensors[i] : NULL;
}

void wl_gguf_drop_pages (const wl_gguf *gguf)
{
    for (size_t i = 0; i < gguf->n_parts; i++)
        if (gguf->parts[i].is_mapped)
            madvise ((void *) gguf->parts[i].bytes, gguf->parts[i].length, MADV_DONTNEED);
}

void wl_gguf_read_ahead (const wl_gguf *gguf, const void *data, size_t bytes)
{
    const uintptr_t at = (uintptr_t) data, into_page = at % (uintptr_t) sysconf (_SC_PAGESIZE);
    for (size_t i = 0; i < gguf->n_parts; i++) {
        const file_part *p = &gguf->parts[i];
        uintptr_t start = (uintptr_t) p->bytes, end = start + p->length;
        if (!p->is_mapped || at < start || at >= end)
            continue;
        size_t length = end - at < bytes ? end - at : bytes;
        posix_madvise ((char *) data - into_page, into_page + length, POSIX_MADV_WILLNEED);
    }
}

bool wl_gguf_u64 (const wl_gguf *gguf, const char *key, uint64_t *out)
{
    return gguf_pair_u64 (gguf_find_pair (&gguf->parts[0], key), UINT64_MAX, out);
}

bool wl_gguf_u32 (const wl_gguf *gguf, const char *key, uint32_t *out)
{
    uint64_t wide;
    if (!gguf_pair_u64 (gguf_find_pair (&gguf->parts[0], key), UINT32_MAX, &wide))
        return false;
    *out = (uint32_t) wide;
    return true;
}

bool wl_gguf_i64 (const wl_gguf *gguf, const char *key, int64_t *out)
{
    const pair *p = gguf_find_pair (&gguf->parts[0], key);
    __int128 value;
    if (!p || !read_integer (p->shown.type, p->value, &value) || value > INT64_MAX)
        return false;
    *out = (int64_t) value;
    return true;
}

bool wl_gguf_f64 (const wl_gguf *gguf, const char *key, double *out)
{
    const pair *p = gguf_find_pair (&gguf->parts[0], key);
    return p && read_f64 (p->shown.type, p->value, out);
}

bool wl_gguf_f32 (const wl_gguf *gguf, const char *key, float *out)
{
    const pair *p = gguf_find_pair (&gguf->parts[0], key);
    return p && read_f32 (p->shown.type, p->value, out);
}

bool wl_gguf_bool (const wl_gguf *gguf, const char *key, bool *out)
{
    const pair *p = gguf_find_pair (&gguf->parts[0], key);
    if (!p || p->shown.type != WL_VALUE_BOOL)
        return false;
    *out = *p->value != 0;
    return true;
}

bool wl_gguf_text (const wl_gguf *gguf, const char *key, wl_text *out)
{
    const pair *p = gguf_find_pair (&gguf->parts[0], key);
    if (!p || p->shown.type != WL_VALUE_STRING)
        return false;
    *out = (wl_text){(const char *) p->value + 8, (size_t) load_u64 (p->value)};
    return true;
}

/* The pair when it is an array with an element `index`. */
static const pair *find_element (const wl_gguf *gguf, const char *key, size_t index)
{
    const pair *p = gguf_find_pair (&gguf->parts[0], key);
    return p && p->shown.type == WL_VALUE_ARRAY && index < p->shown.length ? p : NULL;
}

bool wl_gguf_array (const wl_gguf *gguf, const char *key, wl_value_type *element, size_t *length)
{
    const pair *p = gguf_find_pair (&gguf->parts[0], key);
    if (!p || p->shown.type != WL_VALUE_ARRAY)
        return false;
    *element = p->shown.element;
    *length = p->shown.length;
    return true;
}

bool wl_gguf_array_text (const wl_gguf *gguf, const char *key, size_t index, wl_text *out)
{
    const pair *p = find_element (gguf, key, index);
    if (!p || !p->texts)
        return false;
    const uint8_t *at = gguf->parts[0].bytes + p->texts[index];
    *out = (wl_text){(const char *) at + 8, (size_t) load_u64 (at)};
    return true;
}

bool wl_gguf_array_i64 (const wl_gguf *gguf, const char *key, size_t index, int64_t *out)
{
    const pair *p = find_element (gguf, key, index);
    __int128 value;
    if (!p || p->shown.element == WL_VALUE_STRING)
        return false;
    wl_value_type type = p->shown.element == WL_VALUE_BOOL ? WL_VALUE_UINT8 : p->shown.element;
    if (!read_integer (type, p->value + index * gguf_value_bytes (type), &value) || value > INT64_MAX)
        return false;
    *out = (int64_t) value;
    return true;
}

bool wl_gguf_array_f32 (const wl_gguf *gguf, const char *key, size_t index, float *out)
{
    const pair *p = find_element (gguf, key, index);
    return p && p->shown.element != WL_VALUE_STRING &&
           read_f32 (p->shown.element, p->value + index * gguf_value_bytes (p->shown.element), out);
}

size_t wl_gguf_n_pairs (const wl_gguf *gguf)
{
    return gguf->parts[0].n_pairs;
}

wl_gguf_pair wl_gguf_pair_at (const wl_gguf *gguf, size_t index)
{
    return index < gguf->parts[0].n_pairs ? gguf->parts[0].pairs[index].shown : (wl_gguf_pair){0};
}
