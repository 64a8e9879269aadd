/* Values as text: Python's str and repr, HTML escaping, JSON as json.dumps writes it. */
#include "template_private.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* The shortest digits that read back as the same number, in CPython's layout: an exponent from 1e16 on and below
 * 1e-4. */
void jinja_format_float (double real, char out[32])
{
    if (isnan (real) || isinf (real)) {
        snprintf (out, 32, "%s", isnan (real) ? "nan" : real < 0 ? "-inf" : "inf");
        return;
    }
    char digits[32];
    int precision = 0;
    do
        snprintf (digits, sizeof digits, "%.*e", precision, real);
    while (strtod (digits, NULL) != real && ++precision < 17);
    int exponent = atoi (strchr (digits, 'e') + 1);
    if (exponent < -4 || exponent >= 16) {
        char *e = strchr (digits, 'e');
        snprintf (out, 32, "%.*se%c%02d", (int) (e - digits), digits, exponent < 0 ? '-' : '+', abs (exponent));
        return;
    }
    int decimals = precision - exponent;
    snprintf (out, 32, "%.*f", decimals > 1 ? decimals : 1, real);
}

/* -- repr -------------------------------------------------------------------------------------- */

static bool emit_text_repr (render *r, value v)
{
    bool double_quoted = memchr (v.as.text, '\'', v.length) && !memchr (v.as.text, '"', v.length);
    char quote = double_quoted ? '"' : '\'';
    bool markup = v.flags & TEXT_MARKUP;
    if ((markup && !jinja_emit_literal (r, "Markup(")) || !jinja_emit_char (r, quote))
        return false;
    const char *at = v.as.text, *end = at + v.length;
    while (at < end) {
        const char *from = at;
        uint32_t code = jinja_next_code_point (&at);
        bool ok;
        if (code == (uint32_t) quote || code == '\\')
            ok = jinja_emit_char (r, '\\') && jinja_emit_char (r, (char) code);
        else if (code == '\n' || code == '\r' || code == '\t')
            ok = jinja_emit_literal (r, code == '\n' ? "\\n" : code == '\r' ? "\\r" : "\\t");
        else if (jinja_is_printable (code))
            ok = jinja_emit (r, from, (size_t) (at - from));
        else
            ok = jinja_emit_format (r, code < 0x100 ? "\\x%02x" : code < 0x10000 ? "\\u%04x" : "\\U%08x", code);
        if (!ok)
            return false;
    }
    return jinja_emit_char (r, quote) && (!markup || jinja_emit_char (r, ')'));
}

static bool emit_items (render *r, value v)
{
    char open = v.kind == VALUE_LIST ? '[' : '(', close = v.kind == VALUE_LIST ? ']' : ')';
    if (!jinja_emit_char (r, open))
        return false;
    for (uint32_t i = 0; i < v.length; i++)
        if ((i && !jinja_emit_literal (r, ", ")) || !jinja_emit_repr (r, v.as.items[i]))
            return false;
    if (v.kind == VALUE_TUPLE && v.length == 1 && !jinja_emit_char (r, ','))
        return false;
    return jinja_emit_char (r, close);
}

static bool emit_dict (render *r, const dict *d)
{
    if (!jinja_emit_char (r, '{'))
        return false;
    for (uint32_t i = 0; i < d->count; i++)
        if ((i && !jinja_emit_literal (r, ", ")) || !jinja_emit_repr (r, d->entries[i].key) ||
            !jinja_emit_literal (r, ": ") || !jinja_emit_repr (r, d->entries[i].item))
            return false;
    return jinja_emit_char (r, '}');
}

static bool emit_view (render *r, value v)
{
    const dict *d = v.as.dict;
    if (!jinja_emit_literal (r, jinja_type_name (v)) || !jinja_emit_literal (r, "(["))
        return false;
    for (uint32_t i = 0; i < d->count; i++) {
        const entry *e = &d->entries[i];
        bool pairs = v.flags == VIEW_ITEMS;
        if ((i && !jinja_emit_literal (r, ", ")) || (pairs && !jinja_emit_char (r, '(')) ||
            (v.flags != VIEW_VALUES && !jinja_emit_repr (r, e->key)) || (pairs && !jinja_emit_literal (r, ", ")) ||
            (v.flags != VIEW_KEYS && !jinja_emit_repr (r, e->item)) || (pairs && !jinja_emit_char (r, ')')))
            return false;
    }
    return jinja_emit_literal (r, "])");
}

static bool emit_loop (render *r, loop_state *loop)
{
    int64_t length;
    return jinja_loop_length (r, loop, &length) &&
           jinja_emit_format (r, "<LoopContext %lld/%lld>", (long long) loop->index0 + 1, (long long) length);
}

static bool emit_simple (render *r, value v)
{
    char real[32];
    switch ((value_kind) v.kind) {
    case VALUE_NONE:
        return jinja_emit_literal (r, "None");
    case VALUE_BOOL:
        return jinja_emit_literal (r, v.as.truth ? "True" : "False");
    case VALUE_INT:
        return jinja_emit_format (r, "%lld", (long long) v.as.integer);
    case VALUE_FLOAT:
        jinja_format_float (v.as.real, real);
        return jinja_emit_literal (r, real);
    case VALUE_RANGE: {
        const range *n = v.as.range;
        if (n->step == 1)
            return jinja_emit_format (r, "range(%lld, %lld)", (long long) n->start, (long long) n->stop);
        return jinja_emit_format (r, "range(%lld, %lld, %lld)", (long long) n->start, (long long) n->stop,
                                  (long long) n->step);
    }
    case VALUE_MACRO:
        if (v.as.macro->name.kind == VALUE_NONE)
            return jinja_emit_literal (r, "<Macro anonymous>");
        return jinja_emit_literal (r, "<Macro ") && jinja_emit_repr (r, v.as.macro->name) && jinja_emit_char (r, '>');
    case VALUE_UNDEFINED:
        return jinja_emit_literal (r, "Undefined");
    default: /* Python shows an address here, which no prompt can rely on */
        return jinja_emit_format (r, "<%s object>", jinja_type_name (v));
    }
}

bool jinja_emit_repr (render *r, value v)
{
    bool ok;
    if (!jinja_enter (r))
        return false;
    switch ((value_kind) v.kind) {
    case VALUE_TEXT:
        ok = emit_text_repr (r, v);
        break;
    case VALUE_LIST:
    case VALUE_TUPLE:
        ok = emit_items (r, v);
        break;
    case VALUE_DICT:
        ok = emit_dict (r, v.as.dict);
        break;
    case VALUE_NAMESPACE:
        ok = jinja_emit_literal (r, "<Namespace ") && emit_dict (r, v.as.dict) && jinja_emit_char (r, '>');
        break;
    case VALUE_VIEW:
        ok = emit_view (r, v);
        break;
    case VALUE_LOOP:
        ok = emit_loop (r, v.as.loop);
        break;
    default:
        ok = emit_simple (r, v);
        break;
    }
    jinja_leave (r);
    return ok;
}

bool jinja_emit_value (render *r, value v)
{
    if (is_text (v))
        return jinja_emit (r, v.as.text, v.length);
    if (v.kind == VALUE_UNDEFINED)
        return true;
    return jinja_emit_repr (r, v);
}

bool jinja_to_text (render *r, value v, value *out)
{
    if (is_text (v)) {
        *out = v;
        return true;
    }
    size_t mark = jinja_capture (r);
    return jinja_emit_value (r, v) && jinja_capture_end (r, mark, out);
}

bool jinja_repr (render *r, value v, value *out)
{
    size_t mark = jinja_capture (r);
    return jinja_emit_repr (r, v) && jinja_capture_end (r, mark, out);
}

/* -- HTML -------------------------------------------------------------------------------------- */

bool jinja_emit_escaped (render *r, value v)
{
    value text;
    if (!jinja_to_text (r, v, &text))
        return false;
    if (text.flags & TEXT_MARKUP)
        return jinja_emit (r, text.as.text, text.length);
    uint32_t done = 0;
    for (uint32_t i = 0; i < text.length; i++) {
        char c = text.as.text[i];
        const char *entity = c == '&'    ? "&amp;"
                             : c == '<'  ? "&lt;"
                             : c == '>'  ? "&gt;"
                             : c == '"'  ? "&#34;"
                             : c == '\'' ? "&#39;"
                                         : NULL;
        if (!entity)
            continue;
        if (!jinja_emit (r, text.as.text + done, i - done) || !jinja_emit_literal (r, entity))
            return false;
        done = i + 1;
    }
    return jinja_emit (r, text.as.text + done, text.length - done);
}

bool jinja_escape (render *r, value v, value *out)
{
    size_t mark = jinja_capture (r);
    if (!jinja_emit_escaped (r, v) || !jinja_capture_end (r, mark, out))
        return false;
    out->flags |= TEXT_MARKUP;
    return true;
}

/* -- JSON -------------------------------------------------------------------------------------- */

static bool emit_json_escape (render *r, uint32_t code)
{
    static const char letters[] = "\"\\\b\f\n\r\t", escapes[] = "\"\\bfnrt";
    const char *letter = code && code < 0x80 ? strchr (letters, (int) code) : NULL;
    if (letter)
        return jinja_emit_char (r, '\\') && jinja_emit_char (r, escapes[letter - letters]);
    if (code < 0x10000)
        return jinja_emit_format (r, "\\u%04x", code);
    code -= 0x10000;
    return jinja_emit_format (r, "\\u%04x\\u%04x", 0xd800 + (code >> 10), 0xdc00 + (code & 0x3ff));
}

static bool emit_json_text (render *r, value v, bool ensure_ascii)
{
    if (!jinja_emit_char (r, '"'))
        return false;
    const char *at = v.as.text, *end = at + v.length, *done = at;
    while (at < end) {
        const char *from = at;
        uint32_t code = jinja_next_code_point (&at);
        if (code >= 0x20 && code != '"' && code != '\\' && (!ensure_ascii || code < 0x7f))
            continue;
        if (!jinja_emit (r, done, (size_t) (from - done)) || !emit_json_escape (r, code))
            return false;
        done = at;
    }
    return jinja_emit (r, done, (size_t) (end - done)) && jinja_emit_char (r, '"');
}

static bool emit_json_float (render *r, double real)
{
    char text[32];
    jinja_format_float (real, text);
    return jinja_emit_literal (r, isnan (real) ? "NaN" : isinf (real) ? (real < 0 ? "-Infinity" : "Infinity") : text);
}

static bool emit_json_key (render *r, value key, const json_style *style)
{
    if (is_text (key))
        return emit_json_text (r, key, style->ensure_ascii);
    if (!jinja_emit_char (r, '"'))
        return false;
    bool ok = key.kind == VALUE_NONE    ? jinja_emit_literal (r, "null")
              : key.kind == VALUE_BOOL  ? jinja_emit_literal (r, key.as.truth ? "true" : "false")
              : key.kind == VALUE_FLOAT ? emit_json_float (r, key.as.real)
              : key.kind == VALUE_INT
                  ? jinja_emit_format (r, "%lld", (long long) key.as.integer)
                  : jinja_fail (r, "keys must be str, int, float, bool or None, not %s", jinja_type_name (key));
    return ok && jinja_emit_char (r, '"');
}

static bool emit_json_newline (render *r, const json_style *style, unsigned level)
{
    if (!style->has_indent)
        return true;
    if (!jinja_emit_char (r, '\n'))
        return false;
    for (unsigned i = 0; i < level; i++)
        if (!jinja_emit (r, style->indent.as.text, style->indent.length))
            return false;
    return true;
}

static bool emit_json_list (render *r, value v, const json_style *style, unsigned level)
{
    if (v.length == 0)
        return jinja_emit_literal (r, "[]");
    if (!jinja_emit_char (r, '['))
        return false;
    for (uint32_t i = 0; i < v.length; i++)
        if ((i && !jinja_emit_value (r, style->item_separator)) || !emit_json_newline (r, style, level + 1) ||
            !jinja_emit_json (r, v.as.items[i], style, level + 1))
            return false;
    return emit_json_newline (r, style, level) && jinja_emit_char (r, ']');
}

static bool emit_json_dict (render *r, const dict *d, const json_style *style, unsigned level)
{
    entry *entries = d->entries;
    if (d->count == 0)
        return jinja_emit_literal (r, "{}");
    if (style->sort_keys) {
        value *keys = jinja_new (r, d->count, sizeof *keys), *items = jinja_new (r, d->count, sizeof *items);
        entries = jinja_new (r, d->count, sizeof *entries);
        if (!keys || !items || !entries)
            return false;
        for (uint32_t i = 0; i < d->count; i++) {
            keys[i] = d->entries[i].key;
            items[i] = d->entries[i].item;
        }
        if (!jinja_sort (r, keys, items, d->count, false))
            return false;
        for (uint32_t i = 0; i < d->count; i++)
            entries[i] = (entry){keys[i], items[i]};
    }
    if (!jinja_emit_char (r, '{'))
        return false;
    for (uint32_t i = 0; i < d->count; i++)
        if ((i && !jinja_emit_value (r, style->item_separator)) || !emit_json_newline (r, style, level + 1) ||
            !emit_json_key (r, entries[i].key, style) || !jinja_emit_value (r, style->key_separator) ||
            !jinja_emit_json (r, entries[i].item, style, level + 1))
            return false;
    return emit_json_newline (r, style, level) && jinja_emit_char (r, '}');
}

bool jinja_emit_json (render *r, value v, const json_style *style, unsigned level)
{
    bool ok;
    if (!jinja_enter (r))
        return false;
    switch ((value_kind) v.kind) {
    case VALUE_NONE:
        ok = jinja_emit_literal (r, "null");
        break;
    case VALUE_BOOL:
        ok = jinja_emit_literal (r, v.as.truth ? "true" : "false");
        break;
    case VALUE_INT:
        ok = jinja_emit_format (r, "%lld", (long long) v.as.integer);
        break;
    case VALUE_FLOAT:
        ok = emit_json_float (r, v.as.real);
        break;
    case VALUE_TEXT:
        ok = emit_json_text (r, v, style->ensure_ascii);
        break;
    case VALUE_LIST:
    case VALUE_TUPLE:
        ok = emit_json_list (r, v, style, level);
        break;
    case VALUE_DICT:
        ok = emit_json_dict (r, v.as.dict, style, level);
        break;
    default:
        ok = jinja_fail (r, "Object of type %s is not JSON serializable", jinja_type_name (v));
        break;
    }
    jinja_leave (r);
    return ok;
}
