/* Generated text on its way out; see text_out.h. */
#include "text_out.h"

#include <stdlib.h>
#include <string.h>

#include "engine/memory.h"

bool wl_buffer_add (wl_buffer *b, const char *bytes, size_t length, wl_error *err)
{
    if (b->length + length + 1 > b->room) {
        size_t room = (b->length + length + 1) * 2;
        char *grown = wl_resize (b->data, room, 1, err);
        if (!grown)
            return false;
        b->data = grown;
        b->room = room;
    }
    if (length)
        memcpy (b->data + b->length, bytes, length);
    b->length += length;
    b->data[b->length] = 0;
    return true;
}

/* -- stop strings ------------------------------------------------------------------------------------------------------------------------------ */

bool wl_stop_filter_init (wl_stop_filter *f, const wl_option_list *stops, wl_error *err)
{
    *f = (wl_stop_filter){.stops = *stops};
    for (size_t i = 0; i < stops->count; i++)
        if (!stops->values[i][0])
            return wl_fail (err, WL_ERROR_USAGE, "an empty --stop would stop at once: leave it out");
    return true;
}

void wl_stop_filter_free (wl_stop_filter *f)
{
    free (f->text.data);
    f->text = (wl_buffer){0};
}

/* Where the earliest stop string begins in `text`, or `length`. */
static size_t find_stop (const wl_stop_filter *f, const char *text, size_t length)
{
    size_t earliest = length;
    for (size_t i = 0; i < f->stops.count; i++) {
        const char *at = memmem (text, length, f->stops.values[i], strlen (f->stops.values[i]));
        if (at && (size_t) (at - text) < earliest)
            earliest = (size_t) (at - text);
    }
    return earliest;
}

/* Length of the longest end of `text` that begins a stop string. */
static size_t open_end (const wl_stop_filter *f, const char *text, size_t length)
{
    size_t longest = 0;
    for (size_t i = 0; i < f->stops.count; i++) {
        const char *stop = f->stops.values[i];
        size_t most = strlen (stop) - 1;
        for (size_t n = most < length ? most : length; n > longest; n--)
            if (memcmp (text + length - n, stop, n) == 0)
                longest = n;
    }
    return longest;
}

bool wl_stop_filter_add (wl_stop_filter *f, wl_text text, bool last, wl_text *out, wl_error *err)
{
    *out = (wl_text){"", 0};
    if (f->stopped)
        return true;
    if (f->stops.count == 0) {
        *out = text;
        return true;
    }
    wl_buffer *b = &f->text;
    b->length -= f->n_shown;
    if (b->length)
        memmove (b->data, b->data + f->n_shown, b->length);
    f->n_shown = 0;
    if (!wl_buffer_add (b, text.data, text.length, err))
        return false;
    size_t stop = find_stop (f, b->data, b->length);
    f->stopped = stop < b->length;
    f->n_shown = f->stopped ? stop : last ? b->length : b->length - open_end (f, b->data, b->length);
    *out = (wl_text){b->data, f->n_shown};
    return true;
}

/* -- JSON -------------------------------------------------------------------------------------------------------------------------------------------- */

/* Bytes of the well-formed UTF-8 character at `text`, or 0 (Unicode 15, table 3-7). */
static size_t character_length (const unsigned char *text, size_t length)
{
    unsigned char c = text[0], low = 0x80, high = 0xbf;
    size_t n = c < 0x80 ? 1 : c >= 0xc2 && c <= 0xdf ? 2 : c >= 0xe0 && c <= 0xef ? 3 : c >= 0xf0 && c <= 0xf4 ? 4 : 0;
    if (n == 0 || n > length)
        return 0;
    if (c == 0xe0)
        low = 0xa0;
    else if (c == 0xed)
        high = 0x9f;
    else if (c == 0xf0)
        low = 0x90;
    else if (c == 0xf4)
        high = 0x8f;
    for (size_t i = 1; i < n; i++, low = 0x80, high = 0xbf)
        if (text[i] < low || text[i] > high)
            return 0;
    return n;
}

json_t *wl_json_text (const char *bytes, size_t length)
{
    wl_buffer clean = {0};
    wl_error err = {0};
    for (size_t at = 0; at < length;) {
        size_t n = character_length ((const unsigned char *) bytes + at, length - at);
        if (!(n ? wl_buffer_add (&clean, bytes + at, n, &err) : wl_buffer_add (&clean, "\xef\xbf\xbd", 3, &err))) {
            free (clean.data);
            return NULL;
        }
        at += n ? n : 1;
    }
    json_t *json = json_stringn_nocheck (clean.data ? clean.data : "", clean.length);
    free (clean.data);
    return json;
}
