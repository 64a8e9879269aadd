/* The template evaluator's entry: parse, and render with JSON variables; see template.h. */
#include "template_private.h"

#include <stdlib.h>

#include "../memory.h"
#include "utf8.h"

wl_template *wl_template_parse (const char *source, size_t length, wl_error *err)
{
    wl_template *t = wl_new (1, sizeof *t, err);
    if (!t)
        return NULL;
    t->arena.used = &t->memory_used;
    if (!jinja_parse_template (t, source, length, err))
        wl_template_free (&t);
    return t;
}

void wl_template_free (wl_template **t)
{
    if (!*t)
        return;
    jinja_arena_free (&(*t)->arena);
    free (*t);
    *t = NULL;
}

/* -- JSON to values ---------------------------------------------------------------------------- */

/* Texts point into the JSON, which outlives the render. They are checked: Jansson can be made to hold what is not
 * UTF-8. */
static bool convert_text (render *r, const char *text, size_t length, value *out)
{
    if (length > UINT32_MAX)
        return jinja_fail (r, "a text of %zu bytes is too long", length);
    *out = value_text (text, length, jinja_ascii_flag (text, length));
    for (size_t i = 0, n; !out->flags && i < length; i += n)
        if (!(n = utf8_length (text + i, length - i)))
            return jinja_fail (r, "a text among the variables is not UTF-8");
    return jinja_charge (r, length);
}

static bool convert (render *r, const json_t *json, value *out);

static bool convert_array (render *r, const json_t *json, value *out)
{
    size_t count = json_array_size (json);
    value *items = jinja_new (r, count, sizeof *items);
    if (!items)
        return false;
    for (size_t i = 0; i < count; i++)
        if (!convert (r, json_array_get (json, i), &items[i]))
            return false;
    *out = value_sequence (VALUE_LIST, items, count);
    return true;
}

/* Keys of a JSON object differ, so they go in unsearched. */
static bool convert_object (render *r, const json_t *json, dict *d)
{
    for (void *at = json_object_iter ((json_t *) json); at; at = json_object_iter_next ((json_t *) json, at)) {
        entry *e = &d->entries[d->count];
        const char *key = json_object_iter_key (at);
        if (!convert_text (r, key, strlen (key), &e->key) || !convert (r, json_object_iter_value (at), &e->item))
            return false;
        d->count++;
    }
    return true;
}

static bool convert_nested (render *r, const json_t *json, value *out)
{
    if (!jinja_enter (r))
        return false;
    if (json_is_array (json)) {
        if (!convert_array (r, json, out))
            return false;
    } else {
        dict *d = jinja_new_dict (r, json_object_size (json));
        if (!d || !convert_object (r, json, d))
            return false;
        *out = (value){.kind = VALUE_DICT, .as.dict = d};
    }
    jinja_leave (r);
    return true;
}

static bool convert (render *r, const json_t *json, value *out)
{
    switch (json_typeof (json)) {
    case JSON_OBJECT:
    case JSON_ARRAY:
        return convert_nested (r, json, out);
    case JSON_STRING:
        return convert_text (r, json_string_value (json), json_string_length (json), out);
    case JSON_INTEGER:
        *out = value_int (json_integer_value (json));
        break;
    case JSON_REAL:
        *out = value_float (json_real_value (json));
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        *out = value_bool (json_is_true (json));
        break;
    case JSON_NULL:
        *out = value_none ();
        break;
    }
    return jinja_charge (r, 0);
}

/* -- Rendering --------------------------------------------------------------------------------- */

static bool render_all (render *r, const json_t *variables)
{
    value given;
    r->variables = jinja_new_dict (r, 0);
    r->exported = jinja_new_dict (r, 0);
    if (!r->variables || !r->exported || !jinja_add_globals (r, r->variables) || !convert (r, variables, &given))
        return false;
    const arguments call = {.positional = &given, .n_positional = 1};
    return jinja_fill_dict (r, r->variables, "render", &call) && jinja_run_template (r) && jinja_emit (r, "", 0);
}

char *wl_template_render (const wl_template *tmpl, const json_t *variables, const struct tm *now, size_t *length,
                          wl_error *err)
{
    return jinja_render (tmpl, variables, now, MAX_STEPS, length, err);
}

char *jinja_render (const wl_template *tmpl, const json_t *variables, const struct tm *now, int64_t n_steps,
                    size_t *length, wl_error *err)
{
    wl_error own = {0}; /* err may be NULL, or already hold a failure */
    render r = {.tmpl = tmpl, .now = now, .err = &own, .n_steps = n_steps, .steps_left = n_steps, .line = 1};
    char *text = NULL;
    r.objects.used = r.texts.used = &r.memory_used;
    if (!json_is_object (variables))
        wl_fail (&own, WL_ERROR_INPUT, "the template's variables have to be a JSON object");
    else if (render_all (&r, variables))
        text = wl_resize (r.output, r.output_length + 1, 1, &own);
    if (text) {
        text[r.output_length] = 0;
        *length = r.output_length;
    } else {
        free (r.output);
        wl_fail (err, own.code, "%s", own.text);
    }
    jinja_arena_free (&r.objects);
    jinja_arena_free (&r.texts);
    return text;
}
