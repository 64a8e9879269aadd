/* Chat templates: a Jinja evaluator for what models' templates use, as the transformers library renders them.
 *
 * Semantics: Jinja2 (https://jinja.palletsprojects.com/en/stable/templates/) with autoescape off, trim_blocks and
 * lstrip_blocks on, a sandbox, loop controls, and the globals raise_exception, strftime_now, namespace, range,
 * dict; `tojson` keeps non-ASCII and does not escape HTML. Bounded in steps, depth and output, so that a hostile
 * template ends with an error.
 *
 * Thread: a parsed template is immutable; rendering may run from several threads at once. */
#ifndef WL_ENGINE_TEXT_TEMPLATE_H
#define WL_ENGINE_TEXT_TEMPLATE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <time.h>

#include "../error.h"

typedef struct wl_template wl_template;

/* Parses `length` bytes of template. NULL with WL_ERROR_INPUT ("template line 12: …"). */
wl_template *wl_template_parse (const char *source, size_t length, wl_error *err);
void wl_template_free (wl_template **tmpl);

/* Renders with `variables`, a JSON object (messages, tools, add_generation_prompt, bos_token, eos_token, and
 * whatever else the caller passes); key order of objects is kept. `now` is what strftime_now and date functions see
 * (broken-down local time). Returns malloc'd text with *length, or NULL with WL_ERROR_INPUT: the template's own
 * message (raise_exception), the failing line, or the bound that was exceeded. */
char *wl_template_render (const wl_template *tmpl, const json_t *variables, const struct tm *now, size_t *length,
                          wl_error *err);

#endif
