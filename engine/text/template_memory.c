/* Memory, output and bounds of a template's parse and render.
 *
 * An arena takes chunks from the system and gives them out from front to back; it is dropped whole. Texts have an
 * arena of their own so that the text built last is often the last thing in it: then `a + b` appends in place, and
 * a template that builds its prompt by adding to one variable costs what it adds. Output and captures (macros, set
 * blocks, whatever builds a text piece by piece) share one growing buffer: a capture is the part of it behind a
 * mark. */
#include "template_private.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "../memory.h"

struct chunk {
    chunk *next;
    size_t room;
    max_align_t bytes[];
};

enum { FIRST_CHUNK_BYTES = 8 << 10, LARGEST_CHUNK_BYTES = 1 << 20 };

static bool take_memory (size_t *used, size_t bytes, wl_error *err)
{
    if (bytes > MAX_MEMORY_BYTES || *used > MAX_MEMORY_BYTES - bytes)
        return wl_fail (err, WL_ERROR_INPUT, "the template needs more than %d MiB of memory", MAX_MEMORY_BYTES >> 20);
    *used += bytes;
    return true;
}

static bool add_chunk (arena *a, size_t bytes, wl_error *err)
{
    size_t room = a->chunks ? a->chunks->room * 2 : FIRST_CHUNK_BYTES;
    if (room > LARGEST_CHUNK_BYTES)
        room = LARGEST_CHUNK_BYTES;
    if (room < bytes)
        room = bytes;
    size_t whole = sizeof (chunk) + room;
    if (whole < room || !take_memory (a->used, whole, err))
        return wl_fail (err, WL_ERROR_INPUT, "the template needs too much memory");
    chunk *c = wl_new (1, whole, err);
    if (!c)
        return false;
    c->room = room;
    c->next = a->chunks;
    a->chunks = c;
    a->next = (char *) c->bytes;
    a->end = a->next + room;
    return true;
}

void *jinja_arena_new (arena *a, size_t count, size_t size, wl_error *err)
{
    size_t bytes;
    if (__builtin_mul_overflow (count, size, &bytes) || bytes > MAX_MEMORY_BYTES) {
        wl_fail (err, WL_ERROR_INPUT, "the template needs more than %d MiB of memory", MAX_MEMORY_BYTES >> 20);
        return NULL;
    }
    size_t align = _Alignof(max_align_t), padding = -(uintptr_t) a->next % align; /* bytes may have been taken before */
    bytes = bytes ? bytes : 1;
    if (!a->next || (size_t) (a->end - a->next) < bytes + padding) {
        if (!add_chunk (a, bytes, err))
            return NULL;
        padding = 0;
    }
    void *memory = a->next + padding;
    a->next += padding + bytes;
    return memory; /* fresh from calloc */
}

char *jinja_arena_bytes (arena *a, size_t length, wl_error *err)
{
    if ((!a->next || (size_t) (a->end - a->next) < length) && !add_chunk (a, length, err))
        return NULL;
    char *bytes = a->next;
    a->next += length;
    return bytes;
}

bool jinja_arena_extend (arena *a, const char *text, size_t length, size_t more)
{
    if (!a->next || text + length != a->next || (size_t) (a->end - a->next) < more)
        return false;
    a->next += more;
    return true;
}

void jinja_arena_free (arena *a)
{
    while (a->chunks) {
        chunk *next = a->chunks->next;
        free (a->chunks);
        a->chunks = next;
    }
    a->next = a->end = NULL;
}

/* -- Bounds ------------------------------------------------------------------------------------ */

void jinja_report (render *r, const char *format, ...)
{
    char text[sizeof r->err->text];
    va_list args;
    va_start (args, format);
    vsnprintf (text, sizeof text, format, args);
    va_end (args);
    wl_fail (r->err, WL_ERROR_INPUT, "template line %u: %s", r->line, text);
}

bool jinja_charge (render *r, size_t work)
{
    r->steps_left -= 1 + (int64_t) (work / 64);
    return r->steps_left >= 0 || jinja_fail (r, "it runs too long (more than %lld steps)", (long long) r->n_steps);
}

bool jinja_enter (render *r)
{
    if (r->depth >= MAX_DEPTH)
        return jinja_fail (r, "too much is nested, or a macro calls itself without end (depth %d)", MAX_DEPTH);
    r->depth++;
    return true;
}

void *jinja_new (render *r, size_t count, size_t size)
{
    return jinja_arena_new (&r->objects, count, size, r->err);
}

char *jinja_new_bytes (render *r, size_t length)
{
    return jinja_charge (r, length) ? jinja_arena_bytes (&r->texts, length, r->err) : NULL;
}

bool jinja_copy_text (render *r, const char *text, size_t length, uint8_t flags, value *out)
{
    char *bytes = jinja_new_bytes (r, length);
    if (!bytes)
        return false;
    if (length)
        memcpy (bytes, text, length);
    *out = value_text (bytes, length, flags);
    return true;
}

bool jinja_append (render *r, value_list *list, value item)
{
    if (list->count == list->room) {
        uint32_t room = list->room ? list->room * 2 : 8;
        value *items = jinja_new (r, room, sizeof *items);
        if (!items)
            return false;
        if (list->count)
            memcpy (items, list->items, list->count * sizeof *items);
        list->items = items;
        list->room = room;
    }
    list->items[list->count++] = item;
    return jinja_charge (r, 0);
}

/* -- Output ------------------------------------------------------------------------------------ */

/* Room for `length` more bytes behind output_length. */
static bool make_room (render *r, size_t length)
{
    if (length > MAX_OUTPUT_BYTES || r->output_length > MAX_OUTPUT_BYTES - length)
        return jinja_fail (r, "it makes more than %d MiB of text", MAX_OUTPUT_BYTES >> 20);
    size_t needed = r->output_length + length + 1;
    if (needed <= r->output_room)
        return true;
    size_t room = r->output_room ? r->output_room : 4096;
    while (room < needed)
        room *= 2;
    if (!take_memory (&r->memory_used, room - r->output_room, r->err))
        return false;
    char *grown = wl_resize (r->output, room, 1, r->err);
    if (!grown)
        return false;
    r->output = grown;
    r->output_room = room;
    return true;
}

bool jinja_emit (render *r, const char *bytes, size_t length)
{
    if (!jinja_charge (r, length) || !make_room (r, length))
        return false;
    if (length)
        memcpy (r->output + r->output_length, bytes, length);
    r->output_length += length;
    return true;
}

bool jinja_emit_repeated (render *r, char byte, size_t count)
{
    if (!jinja_charge (r, count) || !make_room (r, count))
        return false;
    if (count)
        memset (r->output + r->output_length, byte, count);
    r->output_length += count;
    return true;
}

bool jinja_emit_code_point (render *r, uint32_t code)
{
    char bytes[4];
    return jinja_emit (r, bytes, jinja_encode (code, bytes));
}

bool jinja_emit_format (render *r, const char *format, ...)
{
    char text[128];
    va_list args;
    va_start (args, format);
    int length = vsnprintf (text, sizeof text, format, args);
    va_end (args);
    if (length < 0 || (size_t) length >= sizeof text)
        return jinja_fail (r, "a number is too long to print");
    return jinja_emit (r, text, (size_t) length);
}

bool jinja_capture_end (render *r, size_t mark, value *out)
{
    size_t length = r->output_length - mark;
    r->output_length = mark;
    if (length == 0) {
        *out = value_literal ("");
        return true;
    }
    const char *text = r->output + mark;
    return jinja_copy_text (r, text, length, jinja_ascii_flag (text, length), out);
}
