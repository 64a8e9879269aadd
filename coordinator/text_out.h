/* Generated text on its way out: stop strings, and bytes that JSON can hold. */
#ifndef WL_COORDINATOR_TEXT_OUT_H
#define WL_COORDINATOR_TEXT_OUT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "engine/error.h"
#include "engine/gguf.h" /* wl_text */
#include "options.h"

/* A growing piece of text. */
typedef struct wl_buffer {
    char *data;
    size_t length, room;
} wl_buffer;
bool wl_buffer_add (wl_buffer *buffer, const char *bytes, size_t length, wl_error *err);

/* Finds stop strings over the boundaries of tokens. Text that may still become one is held back. */
typedef struct wl_stop_filter {
    wl_option_list stops; /* borrowed strings */
    wl_buffer text;       /* [n_shown by the last call][held back] */
    size_t n_shown;
    bool stopped;
} wl_stop_filter;

/* False with WL_ERROR_USAGE for an empty stop string. */
bool wl_stop_filter_init (wl_stop_filter *filter, const wl_option_list *stops, wl_error *err);
void wl_stop_filter_free (wl_stop_filter *filter);
/* Takes more text; *out is what may be shown now, valid until the next call. Sets filter->stopped when a stop string was found: what came before the earliest one is shown, the rest
 * is dropped. `last`: no more text will come, so nothing is held back. */
bool wl_stop_filter_add (wl_stop_filter *filter, wl_text text, bool last, wl_text *out, wl_error *err);

/* A JSON string of any bytes: what is not UTF-8 becomes U+FFFD. NULL when memory is short. */
json_t *wl_json_text (const char *bytes, size_t length);

#endif
