/* Jinja's filters on single values: texts, numbers, JSON. Those on sequences are in template_sequences.c. */
#include "template_private.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define FILTER(name) static bool name (render *r, value self, const value *args, const arguments *call, value *out)
#define UNUSED (void) r, (void) args, (void) call

static bool flag (value v)
{
    return is_given (v) && jinja_truth (v);
}

static bool int_argument (render *r, value v, int64_t fallback, int64_t *out)
{
    if (is_given (v) && !is_int (v))
        return v.kind == VALUE_UNDEFINED
                   ? jinja_fail_undefined (r, v)
                   : jinja_fail (r, "'%s' object cannot be interpreted as an integer", jinja_type_name (v));
    *out = is_given (v) ? int_of (v) : fallback;
    return true;
}

/* The str method of that name, on str (self). */
static bool text_method (render *r, const char *method, value self, const arguments *call, value *out)
{
    value text;
    if (!jinja_to_text (r, self, &text) ||
        !jinja_call_native (r, "filter", jinja_find_text_method (method, strlen (method)), text, call, out))
        return false;
    out->flags |= is_text (*out) ? text.flags & TEXT_MARKUP : 0;
    return true;
}

/* -- Texts ------------------------------------------------------------------------------------- */

FILTER (filter_upper)
{
    UNUSED;
    return text_method (r, "upper", self, call, out);
}

FILTER (filter_lower)
{
    UNUSED;
    return text_method (r, "lower", self, call, out);
}

FILTER (filter_capitalize)
{
    UNUSED;
    return text_method (r, "capitalize", self, call, out);
}

FILTER (filter_trim)
{
    UNUSED;
    const arguments strip = {.positional = args, .n_positional = is_given (args[0])};
    return text_method (r, "strip", self, &strip, out);
}

FILTER (filter_center)
{
    UNUSED;
    value width = is_given (args[0]) ? args[0] : value_int (80);
    const arguments center = {.positional = &width, .n_positional = 1};
    return text_method (r, "center", self, &center, out);
}

FILTER (filter_string)
{
    UNUSED;
    return jinja_to_text (r, self, out);
}

static bool starts_word (uint32_t code)
{
    return code == '-' || code == '(' || code == '{' || code == '[' || code == '<' || jinja_is_space (code);
}

/* Not str.title: words begin behind blanks, - ( { [ <, and the rest of a word is small. */
FILTER (filter_title)
{
    UNUSED;
    value text, part;
    if (!jinja_to_text (r, self, &text))
        return false;
    size_t mark = jinja_capture (r);
    const char *at = text.as.text, *end = at + text.length;
    while (at < end) {
        const char *from = at;
        bool separator = starts_word (jinja_code_point_at (at));
        while (at < end && starts_word (jinja_code_point_at (at)) == separator)
            jinja_next_code_point (&at);
        const char *second = from;
        jinja_next_code_point (&second);
        part = value_text (from, (size_t) (second - from), 0);
        if (!jinja_emit_case (r, part, CASE_UPPER))
            return false;
        part = value_text (second, (size_t) (at - second), 0);
        if (!jinja_emit_case (r, part, CASE_LOWER))
            return false;
    }
    return jinja_capture_end (r, mark, out);
}

FILTER (filter_replace)
{
    UNUSED;
    value texts[3];
    if (!jinja_to_text (r, self, &self) || !jinja_to_text (r, args[0], &texts[0]) ||
        !jinja_to_text (r, args[1], &texts[1]))
        return false;
    self.flags &= (uint8_t) ~TEXT_MARKUP;
    texts[2] = is_given (args[2]) && args[2].kind != VALUE_NONE ? args[2] : value_int (-1);
    const arguments replace = {.positional = texts, .n_positional = 3};
    return text_method (r, "replace", self, &replace, out);
}

FILTER (filter_indent)
{
    UNUSED;
    value indent = is_given (args[0]) ? args[0] : value_int (4), lines;
    bool blank = flag (args[2]);
    if (!is_text (self))
        return self.kind == VALUE_UNDEFINED ? jinja_fail_undefined (r, self)
                                            : jinja_fail (r, "indent wants a string, not %s", jinja_type_name (self));
    if (!is_text (indent) && !jinja_binary (r, OP_MUL, value_literal (" "), indent, &indent))
        return false;
    const arguments none = {0};
    if (!jinja_concat_text (r, self, value_literal ("\n"), &self) ||
        !text_method (r, "splitlines", self, &none, &lines))
        return false;
    size_t mark = jinja_capture (r);
    if (flag (args[1]) && !jinja_emit_value (r, indent))
        return false;
    for (uint32_t i = 0; i < lines.length; i++) {
        value line = lines.as.items[i];
        if ((i && !jinja_emit_char (r, '\n')) || (i && (line.length || blank) && !jinja_emit_value (r, indent)) ||
            !jinja_emit_value (r, line))
            return false;
    }
    if (!jinja_capture_end (r, mark, out))
        return false;
    out->flags |= self.flags & TEXT_MARKUP;
    return true;
}

FILTER (filter_truncate)
{
    UNUSED;
    int64_t length, leeway, own;
    bool has, kill_words = flag (args[1]);
    value end = is_given (args[2]) ? args[2] : value_literal ("...");
    if (!int_argument (r, args[0], 255, &length) ||
        !int_argument (r, args[3].kind == VALUE_NONE ? value_of_kind (VALUE_MISSING) : args[3], 5, &leeway) ||
        !jinja_length (r, self, &has, &own))
        return false;
    if (!has || !is_text (end))
        return jinja_fail (r, "truncate wants strings");
    int64_t end_length = (int64_t) jinja_code_points (end);
    if (length < end_length)
        return jinja_fail (r, "expected length >= %lld, got %lld", (long long) end_length, (long long) length);
    if (leeway < 0)
        return jinja_fail (r, "expected leeway >= 0, got %lld", (long long) leeway);
    if (own <= length || own - length <= leeway) {
        *out = self;
        return true;
    }
    if (!is_text (self))
        return jinja_fail (r, "truncate wants a string, not %s", jinja_type_name (self));
    value kept = value_text (self.as.text, jinja_offset_of (self, (size_t) (length - end_length)), self.flags);
    if (!kill_words)
        for (uint32_t i = kept.length; i > 0; i--)
            if (kept.as.text[i - 1] == ' ') {
                kept.length = i - 1;
                break;
            }
    return jinja_concat_text (r, kept, end, out);
}

FILTER (filter_wordcount)
{
    UNUSED;
    value text;
    int64_t n = 0;
    bool in_word = false;
    if (!jinja_to_text (r, self, &text))
        return false;
    for (const char *at = text.as.text, *end = at + text.length; at < end;) {
        uint32_t code = jinja_next_code_point (&at);
        bool word = code == '_' || jinja_is_alnum (code);
        n += word && !in_word;
        in_word = word;
    }
    *out = value_int (n);
    return jinja_charge (r, text.length);
}

FILTER (filter_format)
{
    (void) args;
    value text, operand;
    if (call->n_positional && call->n_named)
        return jinja_fail (r, "can't handle positional and keyword arguments at the same time");
    operand = value_sequence (VALUE_TUPLE, call->positional, call->n_positional);
    if (call->n_named) {
        dict *d = jinja_new_dict (r, call->n_named);
        if (!d || !jinja_fill_dict (r, d, "format", call))
            return false;
        operand = (value){.kind = VALUE_DICT, .as.dict = d};
    }
    return jinja_to_text (r, self, &text) && jinja_format_percent (r, text, operand, out);
}

FILTER (filter_escape)
{
    UNUSED;
    return jinja_escape (r, self, out);
}

FILTER (filter_forceescape)
{
    UNUSED;
    if (!jinja_to_text (r, self, &self))
        return false;
    self.flags &= (uint8_t) ~TEXT_MARKUP;
    return jinja_escape (r, self, out);
}

FILTER (filter_safe)
{
    UNUSED;
    if (!jinja_to_text (r, self, out))
        return false;
    out->flags |= TEXT_MARKUP;
    return true;
}

FILTER (filter_xmlattr)
{
    UNUSED;
    if (self.kind != VALUE_DICT)
        return jinja_fail (r, "xmlattr wants a dict, not %s", jinja_type_name (self));
    size_t mark = jinja_capture (r);
    const dict *d = self.as.dict;
    bool any = false, space = !is_given (args[0]) || jinja_truth (args[0]);
    for (uint32_t i = 0; i < d->count; i++) {
        value key = d->entries[i].key, item = d->entries[i].item;
        if (item.kind == VALUE_NONE || item.kind == VALUE_UNDEFINED)
            continue;
        if (!is_text (key))
            return jinja_fail (r, "expected string or bytes-like object, got '%s'", jinja_type_name (key));
        for (uint32_t k = 0; k < key.length; k++)
            if (key.as.text[k] && strchr (" \t\n\r\f\v/>=", key.as.text[k]))
                return jinja_fail (r, "Invalid character in attribute name");
        if (((any || space) && !jinja_emit_char (r, ' ')) || !jinja_emit_escaped (r, key) ||
            !jinja_emit_literal (r, "=\"") || !jinja_emit_escaped (r, item) || !jinja_emit_char (r, '"'))
            return false;
        any = true;
    }
    return jinja_capture_end (r, mark, out);
}

static bool emit_quoted (render *r, value v, const char *safe, bool plus)
{
    value text;
    if (!jinja_to_text (r, v, &text))
        return false;
    for (uint32_t i = 0; i < text.length; i++) {
        unsigned char c = (unsigned char) text.as.text[i];
        bool plain = c < 0x80 && c && (jinja_is_alnum (c) || strchr ("_.-~", c) || strchr (safe, c));
        if (!(plain              ? jinja_emit_char (r, (char) c)
              : plus && c == ' ' ? jinja_emit_char (r, '+')
                                 : jinja_emit_format (r, "%%%02X", c)))
            return false;
    }
    return true;
}

FILTER (filter_urlencode)
{
    UNUSED;
    size_t mark = jinja_capture (r);
    iterator *it;
    value pair, list;
    bool more;
    if (is_text (self) || !jinja_can_iterate (self))
        return emit_quoted (r, self, "/", false) && jinja_capture_end (r, mark, out);
    if (self.kind == VALUE_DICT)
        self = (value){.kind = VALUE_VIEW, .flags = VIEW_ITEMS, .as.dict = self.as.dict};
    if (!jinja_iterate (r, self, &it))
        return false;
    for (bool first = true;; first = false) {
        if (!jinja_next (r, it, &pair, &more))
            return false;
        if (!more)
            break;
        if (!jinja_list_of (r, pair, &list))
            return false;
        if (list.length != 2)
            return jinja_fail (r, "urlencode wants pairs");
        if ((!first && !jinja_emit_char (r, '&')) || !emit_quoted (r, list.as.items[0], "", true) ||
            !jinja_emit_char (r, '=') || !emit_quoted (r, list.as.items[1], "", true))
            return false;
    }
    return jinja_capture_end (r, mark, out);
}

/* -- Numbers ----------------------------------------------------------------------------------- */

/* int (v); *ok is false where Python raises TypeError or ValueError. */
static bool to_int (render *r, value v, int64_t base, bool *ok, value *out)
{
    bool overflow = false;
    int64_t i = 0;
    *ok = true;
    if (v.kind == VALUE_UNDEFINED)
        return jinja_fail_undefined (r, v);
    if (is_text (v)) {
        if (base != 0 && (base < 2 || base > 36)) {
            *ok = false;
            return true;
        }
        *ok = jinja_parse_int (v, (int) base, &i, &overflow);
    } else if (is_int (v)) {
        i = int_of (v);
    } else if (v.kind == VALUE_FLOAT && !isnan (v.as.real)) {
        if (isinf (v.as.real))
            return jinja_fail (r, "cannot convert float infinity to integer");
        overflow = v.as.real >= 0x1p63 || v.as.real < -0x1p63;
        i = overflow ? 0 : (int64_t) v.as.real;
    } else {
        *ok = false;
    }
    if (overflow)
        return jinja_fail (r, "an integer does not fit in 64 bits");
    *out = value_int (i);
    return true;
}

FILTER (filter_int)
{
    UNUSED;
    int64_t base;
    bool ok;
    double real;
    if (!int_argument (r, args[1], 10, &base) || !to_int (r, self, base, &ok, out))
        return false;
    if (ok)
        return true;
    *out = is_given (args[0]) ? args[0] : value_int (0);
    if (is_text (self) && jinja_parse_float (self, &real) && isfinite (real)) /* "42.23" is 42 */
        return to_int (r, value_float (real), 10, &ok, out);
    return true;
}

FILTER (filter_float)
{
    UNUSED;
    double real;
    if (self.kind == VALUE_UNDEFINED)
        return jinja_fail_undefined (r, self);
    if (is_number (self))
        *out = value_float (real_of (self));
    else if (is_text (self) && jinja_parse_float (self, &real))
        *out = value_float (real);
    else
        *out = is_given (args[0]) ? args[0] : value_float (0);
    return true;
}

FILTER (filter_abs)
{
    UNUSED;
    if (!is_number (self))
        return jinja_fail (r, "bad operand type for abs(): '%s'", jinja_type_name (self));
    if (self.kind == VALUE_FLOAT) {
        *out = value_float (fabs (self.as.real));
        return true;
    }
    *out = value_int (int_of (self));
    return int_of (self) >= 0 || jinja_negate (r, self, out);
}

/* To the nearest multiple of 10^digits, halves to even. */
static int64_t round_int (int64_t i, int64_t digits)
{
    int64_t unit = 1;
    for (int64_t k = 0; k < digits; k++)
        if (__builtin_mul_overflow (unit, 10, &unit))
            return 0;
    int64_t rest = i % unit, down = i - rest, half = unit / 2;
    int64_t size = rest < 0 ? -rest : rest;
    bool up = unit > 1 && (size > half || (size == half && (down / unit) % 2 != 0));
    if (up && __builtin_add_overflow (down, rest < 0 ? -unit : unit, &down))
        return i - rest;
    return down;
}

/* round (real, digits): the decimal that printf finds nearest, as CPython does. */
static double round_real (double real, int64_t digits)
{
    char text[700];
    if (!isfinite (real) || digits > 323)
        return real;
    if (digits < -308)
        return copysign (0, real);
    if (digits < 0) {
        double unit = pow (10, (double) -digits), scaled = real / unit;
        double nearest = round (scaled);
        if (fabs (scaled - nearest) == 0.5)
            nearest = 2 * round (scaled / 2);
        return nearest * unit;
    }
    snprintf (text, sizeof text, "%.*f", (int) digits, real);
    return strtod (text, NULL);
}

FILTER (filter_round)
{
    UNUSED;
    int64_t precision;
    value method = is_given (args[1]) ? args[1] : value_literal ("common");
    if (!int_argument (r, args[0], 0, &precision))
        return false;
    if (!is_text (method) || (!text_is (method, "common") && !text_is (method, "ceil") && !text_is (method, "floor")))
        return jinja_fail (r, "method must be common, ceil or floor");
    if (!is_number (self))
        return self.kind == VALUE_UNDEFINED && !text_is (method, "common")
                   ? jinja_fail_undefined (r, self)
                   : jinja_fail (r, "type %s doesn't define __round__ method", jinja_type_name (self));
    if (text_is (method, "common")) {
        *out = is_int (self) ? value_int (precision < 0 ? round_int (int_of (self), -precision) : int_of (self))
                             : value_float (round_real (self.as.real, precision));
        return true;
    }
    double unit = pow (10, (double) precision), scaled = real_of (self) * unit;
    if (!isfinite (scaled) || unit == 0)
        return jinja_fail (r, "a number is too large to round");
    *out = value_float ((text_is (method, "ceil") ? ceil (scaled) : floor (scaled)) / unit);
    return true;
}

FILTER (filter_filesizeformat)
{
    UNUSED;
    static const char *const decimal[] = {"kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"};
    static const char *const binary[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"};
    bool is_binary = flag (args[0]);
    double bytes, base = is_binary ? 1024 : 1000, unit = base;
    size_t mark = jinja_capture (r);
    if (is_number (self))
        bytes = real_of (self);
    else if (!is_text (self) || !jinja_parse_float (self, &bytes))
        return jinja_fail (r, "could not convert %s to float", jinja_type_name (self));
    if (bytes == 1)
        return jinja_emit_literal (r, "1 Byte") && jinja_capture_end (r, mark, out);
    if (bytes < base)
        return jinja_emit_format (r, "%lld Bytes", (long long) bytes) && jinja_capture_end (r, mark, out);
    size_t i = 0;
    for (; i < 7 && bytes >= unit * base; i++)
        unit *= base;
    return jinja_emit_format (r, "%.1f %s", bytes / unit, is_binary ? binary[i] : decimal[i]) &&
           jinja_capture_end (r, mark, out);
}

/* -- Values of any kind ------------------------------------------------------------------------ */

FILTER (filter_default)
{
    UNUSED;
    bool replaced = self.kind == VALUE_UNDEFINED || (flag (args[1]) && !jinja_truth (self));
    *out = !replaced ? self : is_given (args[0]) ? args[0] : value_literal ("");
    return true;
}

FILTER (filter_length)
{
    UNUSED;
    bool has;
    int64_t length = 0;
    if (!jinja_length (r, self, &has, &length))
        return false;
    *out = value_int (length);
    return has || jinja_fail (r, "object of type '%s' has no len()", jinja_type_name (self));
}

FILTER (filter_attr)
{
    UNUSED;
    bool found;
    if (!is_text (args[0]))
        return jinja_fail (r, "attribute name must be string, not '%s'", jinja_type_name (args[0]));
    if (!jinja_own_attribute (r, self, args[0], out, &found))
        return false;
    if (!found) {
        *out = value_undefined (UNDEFINED_ATTRIBUTE, args[0].as.text, args[0].length);
        out->detail = self.kind;
    }
    return true;
}

/* transformers' own: nothing is escaped for HTML. */
FILTER (filter_tojson)
{
    UNUSED;
    json_style style = {.ensure_ascii = flag (args[0]), .sort_keys = flag (args[3])};
    value indent = args[1], separators = args[2];
    style.has_indent = is_given (indent) && indent.kind != VALUE_NONE;
    style.item_separator = value_literal (style.has_indent ? "," : ", ");
    style.key_separator = value_literal (": ");
    if (style.has_indent) {
        style.indent = indent;
        if (!is_text (indent) && !jinja_binary (r, OP_MUL, value_literal (" "), indent, &style.indent))
            return false;
    }
    if (is_given (separators) && separators.kind != VALUE_NONE) {
        if (!is_sequence (separators) || separators.length != 2 || !is_text (separators.as.items[0]) ||
            !is_text (separators.as.items[1]))
            return jinja_fail (r, "tojson wants two strings as separators");
        style.item_separator = separators.as.items[0];
        style.key_separator = separators.as.items[1];
    }
    size_t mark = jinja_capture (r);
    return jinja_emit_json (r, self, &style, 0) && jinja_capture_end (r, mark, out);
}

static const callable filters[] = {
    {"abs", "", 0, filter_abs},
    {"attr", "name", 1, filter_attr},
    {"capitalize", "", 0, filter_capitalize},
    {"center", "width", 0, filter_center},
    {"count", "", 0, filter_length},
    {"d", "default_value,boolean", 0, filter_default},
    {"default", "default_value,boolean", 0, filter_default},
    {"e", "", 0, filter_escape},
    {"escape", "", 0, filter_escape},
    {"filesizeformat", "binary", 0, filter_filesizeformat},
    {"float", "default", 0, filter_float},
    {"forceescape", "", 0, filter_forceescape},
    {"format", NULL, 0, filter_format},
    {"indent", "width,first,blank", 0, filter_indent},
    {"int", "default,base", 0, filter_int},
    {"length", "", 0, filter_length},
    {"lower", "", 0, filter_lower},
    {"replace", "old,new,count", 2, filter_replace},
    {"round", "precision,method", 0, filter_round},
    {"safe", "", 0, filter_safe},
    {"string", "", 0, filter_string},
    {"title", "", 0, filter_title},
    {"tojson", "ensure_ascii,indent,separators,sort_keys", 0, filter_tojson},
    {"trim", "chars", 0, filter_trim},
    {"truncate", "length,killwords,end,leeway", 0, filter_truncate},
    {"upper", "", 0, filter_upper},
    {"urlencode", "", 0, filter_urlencode},
    {"wordcount", "", 0, filter_wordcount},
    {"xmlattr", "autospace", 0, filter_xmlattr},
};

const callable *jinja_find_filter (const char *name, size_t length)
{
    const callable *found = jinja_find_in (filters, sizeof filters / sizeof filters[0], name, length);
    return found ? found : jinja_find_sequence_filter (name, length);
}

/* Jinja's filters that are not here: by chance (random), or for pages and people only. */
bool jinja_is_refused_filter (const char *name, size_t length)
{
    static const char *const names[] = {"pprint", "random", "striptags", "urlize", "wordwrap"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strlen (names[i]) == length && memcmp (names[i], name, length) == 0)
            return true;
    return false;
}
