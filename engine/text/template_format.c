/* Python's two formatting languages, "%-5.2f" % x and "{:>5}".format (x), and reading numbers from text.
 *
 * Both end in the same few steps: a number becomes a sign, a prefix and digits, which are padded to a width. */
#include "template_private.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

enum {
    MAX_PRECISION = 500, /* digits behind the point; CPython allows more, no prompt needs them */
    NUMBER_BYTES = 1024, /* 1e308 with MAX_PRECISION decimals fits */
};

typedef struct format_spec {
    uint32_t fill;
    char align; /* '<', '>', '^', '=' (padding behind the sign); 0: the type's own */
    char sign;  /* '+', ' ', or '-' for only minus */
    bool alternate;
    char grouping; /* ',', '_' or 0 */
    int64_t width;
    int32_t precision; /* -1: none */
    char type;         /* 0: none */
} format_spec;

/* -- Padding ----------------------------------------------------------------------------------- */

static bool emit_fill (render *r, uint32_t fill, int64_t count)
{
    char bytes[4];
    unsigned length = jinja_encode (fill, bytes);
    if (count <= 0)
        return true;
    if (count > MAX_OUTPUT_BYTES)
        return jinja_fail (r, "a width of %lld is too much", (long long) count);
    if (length == 1)
        return jinja_emit_repeated (r, bytes[0], (size_t) count);
    for (int64_t i = 0; i < count; i++)
        if (!jinja_emit (r, bytes, length))
            return false;
    return true;
}

static bool emit_padded (render *r, value text, const format_spec *spec, char default_align)
{
    char align = spec->align ? spec->align : default_align;
    int64_t padding = spec->width > 0 ? spec->width - (int64_t) jinja_code_points (text) : 0;
    int64_t left = align == '>' ? padding : align == '^' ? padding / 2 : 0;
    if (padding <= 0)
        return jinja_emit (r, text.as.text, text.length);
    return emit_fill (r, spec->fill, left) && jinja_emit (r, text.as.text, text.length) &&
           emit_fill (r, spec->fill, padding - left);
}

/* Emits digits[0..whole) with a separator every `every` digits, filled up with zeros to `room` characters (0: none). */
static bool emit_grouped (render *r, const char *digits, size_t whole, char separator, unsigned every, int64_t room)
{
    size_t count = whole;
    while ((int64_t) (count + (count - 1) / every) < room && count < NUMBER_BYTES)
        count++;
    for (size_t i = 0; i < count; i++) {
        size_t left = count - i; /* digits from here on */
        if (i && left % every == 0 && !jinja_emit_char (r, separator))
            return false;
        if (!jinja_emit_char (r, left > whole ? '0' : digits[whole - left]))
            return false;
    }
    return true;
}

/* `digits`: the number without sign; a whole part, then whatever follows it. */
static bool emit_number (render *r, const format_spec *spec, bool negative, const char *prefix, const char *digits)
{
    char head[4] = "";
    size_t n_head = 0;
    if (negative || spec->sign == '+' || spec->sign == ' ')
        head[n_head++] = negative ? '-' : spec->sign;
    for (; *prefix && n_head + 1 < sizeof head; prefix++)
        head[n_head++] = *prefix;
    bool hexadecimal = spec->type == 'x' || spec->type == 'X';
    size_t whole = strspn (digits, hexadecimal ? "0123456789abcdefABCDEF" : "0123456789");
    bool inside = spec->align == '=';
    int64_t rest = (int64_t) (n_head + strlen (digits) - whole);
    int64_t room = inside && spec->fill == '0' && spec->width > rest ? spec->width - rest : 0;
    unsigned every = hexadecimal || spec->type == 'b' || spec->type == 'o' ? 4 : 3;
    size_t mark = jinja_capture (r);
    value text;
    if (inside && !jinja_emit (r, head, n_head))
        return false;
    size_t body = jinja_capture (r);
    if ((!inside && !jinja_emit (r, head, n_head)) ||
        !(spec->grouping && whole ? emit_grouped (r, digits, whole, spec->grouping, every, room)
                                  : jinja_emit (r, digits, whole)) ||
        !jinja_emit_literal (r, digits + whole) || !jinja_capture_end (r, body, &text))
        return false;
    if (inside)
        return emit_fill (r, spec->fill, spec->width - (int64_t) n_head - text.length) &&
               jinja_emit (r, text.as.text, text.length);
    jinja_capture_drop (r, mark);
    return emit_padded (r, text, spec, '>');
}

/* -- Numbers to digits ------------------------------------------------------------------------- */

static void int_digits (uint64_t magnitude, unsigned base, bool upper, char out[72])
{
    const char *symbols = upper ? "0123456789ABCDEF" : "0123456789abcdef";
    char reversed[72];
    unsigned n = 0;
    do {
        reversed[n++] = symbols[magnitude % base];
        magnitude /= base;
    } while (magnitude);
    for (unsigned i = 0; i < n; i++)
        out[i] = reversed[n - 1 - i];
    out[n] = 0;
}

static uint64_t magnitude_of (int64_t i)
{
    return i < 0 ? -(uint64_t) i : (uint64_t) i;
}

/* Digits of a finite or other |real| for types e, f, g and their capitals. */
static void real_digits (double real, char type, int precision, bool alternate, char out[NUMBER_BYTES])
{
    char format[16];
    snprintf (format, sizeof format, alternate ? "%%#.*%c" : "%%.*%c", type);
    if (isfinite (real))
        snprintf (out, NUMBER_BYTES, format, precision, fabs (real));
    else
        snprintf (out, NUMBER_BYTES, "%s", isnan (real) ? (type < 'a' ? "NAN" : "nan") : (type < 'a' ? "INF" : "inf"));
}

/* format (real, ".N"): like g, but with a ".0", and an exponent one digit earlier. */
static void general_digits (double real, int precision, char out[NUMBER_BYTES])
{
    if (precision == 0)
        precision = 1;
    char probe[NUMBER_BYTES];
    real_digits (real, 'e', precision - 1, false, probe);
    char *e = strchr (probe, 'e');
    int exponent = e ? atoi (e + 1) : 0;
    if (!e || (exponent >= -4 && exponent + 1 <= precision - 1)) {
        real_digits (real, 'g', precision, false, out);
        size_t length = strlen (out);
        if (isfinite (real) && !strchr (out, '.') && !strchr (out, 'e'))
            snprintf (out + length, NUMBER_BYTES - length, ".0");
        return;
    }
    char *end = e;
    if (strchr (probe, '.'))
        while (end[-1] == '0')
            end--;
    if (end[-1] == '.')
        end--;
    snprintf (out, NUMBER_BYTES, "%.*s%s", (int) (end - probe), probe, e);
}

static bool emit_real (render *r, const format_spec *spec, double real)
{
    char digits[NUMBER_BYTES];
    bool percent = spec->type == '%';
    char type = percent ? 'f' : spec->type == 'n' ? 'g' : spec->type;
    if (spec->precision > MAX_PRECISION)
        return jinja_fail (r, "a precision of %d is too much", spec->precision);
    if (percent)
        real *= 100;
    if (type)
        real_digits (real, type, spec->precision < 0 ? 6 : spec->precision, spec->alternate, digits);
    else if (spec->precision >= 0)
        general_digits (real, spec->precision, digits);
    else
        jinja_format_float (fabs (real), digits);
    size_t length = strlen (digits);
    if (percent)
        snprintf (digits + length, sizeof digits - length, "%%");
    return emit_number (r, spec, signbit (real) && !isnan (real), "", digits);
}

static bool emit_int (render *r, const format_spec *spec, int64_t i)
{
    char digits[72];
    char type = spec->type ? spec->type : 'd';
    unsigned base = type == 'b' ? 2 : type == 'o' ? 8 : type == 'x' || type == 'X' ? 16 : 10;
    const char *prefix = !spec->alternate ? ""
                         : type == 'b'    ? "0b"
                         : type == 'o'    ? "0o"
                         : type == 'x'    ? "0x"
                         : type == 'X'    ? "0X"
                                          : "";
    int_digits (magnitude_of (i), base, type == 'X', digits);
    return emit_number (r, spec, i < 0, prefix, digits);
}

static bool emit_cut (render *r, value text, const format_spec *spec)
{
    if (spec->precision >= 0)
        text.length = (uint32_t) jinja_offset_of (text, (size_t) spec->precision);
    return emit_padded (r, text, spec, '<');
}

static bool ascii_repr (render *r, value v, value *out)
{
    value shown;
    if (!jinja_repr (r, v, &shown))
        return false;
    size_t mark = jinja_capture (r);
    for (const char *at = shown.as.text, *end = at + shown.length; at < end;) {
        uint32_t code = jinja_next_code_point (&at);
        bool ok = code < 0x80 ? jinja_emit_char (r, (char) code)
                              : jinja_emit_format (r,
                                                   code < 0x100     ? "\\x%02x"
                                                   : code < 0x10000 ? "\\u%04x"
                                                                    : "\\U%08x",
                                                   code);
        if (!ok)
            return false;
    }
    return jinja_capture_end (r, mark, out);
}

/* -- "…" % … ----------------------------------------------------------------------------------- */

typedef struct percent_state {
    value operand;
    uint32_t used; /* items of a tuple, or the one operand */
    bool is_mapping;
} percent_state;

static bool next_operand (render *r, percent_state *s, value *out)
{
    uint32_t count = s->operand.kind == VALUE_TUPLE ? s->operand.length : 1;
    if (s->used >= count)
        return jinja_fail (r, "not enough arguments for format string");
    *out = s->operand.kind == VALUE_TUPLE ? s->operand.as.items[s->used] : s->operand;
    s->used++;
    return true;
}

/* A number in the format, or `*`: the next operand. -1 if there is none. */
static bool percent_number (render *r, percent_state *s, const char **at, const char *end, int64_t *out)
{
    *out = -1;
    if (*at < end && **at == '*') {
        value v;
        (*at)++;
        if (!next_operand (r, s, &v))
            return false;
        if (!is_int (v))
            return jinja_fail (r, "* wants int");
        *out = int_of (v);
        return true;
    }
    for (; *at < end && **at >= '0' && **at <= '9'; (*at)++) {
        *out = (*out < 0 ? 0 : *out) * 10 + (**at - '0');
        if (*out > MAX_OUTPUT_BYTES)
            return jinja_fail (r, "a width or precision in a format is too much");
    }
    return true;
}

static bool percent_flags (render *r, percent_state *s, const char **at, const char *end, format_spec *spec, bool *zero)
{
    for (; *at < end && strchr ("-+ #0", **at) && **at; (*at)++) {
        if (**at == '-')
            spec->align = '<';
        else if (**at == '+' || (**at == ' ' && spec->sign != '+'))
            spec->sign = **at;
        else if (**at == '#')
            spec->alternate = true;
        else if (**at == '0')
            *zero = true;
    }
    int64_t number;
    if (!percent_number (r, s, at, end, &number))
        return false;
    spec->width = number < -1 ? -number : number;
    if (number < -1)
        spec->align = '<';
    if (*at < end && **at == '.') {
        (*at)++;
        if (!percent_number (r, s, at, end, &number))
            return false;
        spec->precision = number < 0 ? 0 : number > MAX_OUTPUT_BYTES ? MAX_OUTPUT_BYTES : (int32_t) number;
    }
    while (*at < end && (**at == 'h' || **at == 'l' || **at == 'L'))
        (*at)++;
    return *at < end || jinja_fail (r, "incomplete format");
}

static bool percent_int (render *r, format_spec *spec, value v)
{
    bool whole = strchr ("oxX", spec->type) != NULL;
    int64_t i;
    if (v.kind == VALUE_UNDEFINED)
        return jinja_fail_undefined (r, v);
    if (!is_int (v) && (whole || v.kind != VALUE_FLOAT))
        return jinja_fail (r, "%%%c format: %s is required, not %s", spec->type, whole ? "an integer" : "a real number",
                           jinja_type_name (v));
    if (is_int (v))
        i = int_of (v);
    else if (v.as.real > -0x1p63 && v.as.real < 0x1p63)
        i = (int64_t) v.as.real;
    else
        return jinja_fail (r, "cannot convert a float of that size to an integer");
    char digits[72], padded[MAX_PRECISION + 72];
    if (spec->precision > MAX_PRECISION)
        return jinja_fail (r, "a precision of %d is too much", spec->precision);
    int_digits (magnitude_of (i), spec->type == 'o' ? 8 : whole ? 16 : 10, spec->type == 'X', digits);
    int zeros = spec->precision - (int) strlen (digits);
    memset (padded, '0', sizeof padded);
    memcpy (padded + (zeros > 0 ? zeros : 0), digits, strlen (digits) + 1);
    const char *prefix = !spec->alternate || !whole ? "" : spec->type == 'o' ? "0o" : spec->type == 'x' ? "0x" : "0X";
    return emit_number (r, spec, i < 0, prefix, padded);
}

static bool percent_char (render *r, const format_spec *spec, value v)
{
    char bytes[4];
    if (is_int (v)) {
        int64_t code = int_of (v);
        if (code < 0 || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
            return jinja_fail (r, "%%c arg not in range(0x110000)");
        return emit_padded (r, value_text (bytes, jinja_encode ((uint32_t) code, bytes), 0), spec, '>');
    }
    if (!is_text (v) || jinja_code_points (v) != 1)
        return jinja_fail (r, "%%c requires int or char");
    return emit_padded (r, v, spec, '>');
}

/* One conversion, at its type letter. */
static bool percent_convert (render *r, format_spec *spec, bool zero, value v, bool markup)
{
    value text;
    if (zero && !spec->align && !strchr ("srac", spec->type)) {
        spec->fill = '0';
        spec->align = '=';
    }
    switch (spec->type) {
    case 's':
    case 'r':
    case 'a':
        if (!(spec->type == 's'   ? jinja_to_text (r, v, &text)
              : spec->type == 'r' ? jinja_repr (r, v, &text)
                                  : ascii_repr (r, v, &text)))
            return false;
        if (markup && !jinja_escape (r, text, &text))
            return false;
        if (spec->precision >= 0)
            text.length = (uint32_t) jinja_offset_of (text, (size_t) spec->precision);
        return emit_padded (r, text, spec, '>');
    case 'c':
        return percent_char (r, spec, v);
    case 'd':
    case 'i':
    case 'u':
    case 'o':
    case 'x':
    case 'X':
        return percent_int (r, spec, v);
    case 'e':
    case 'E':
    case 'f':
    case 'F':
    case 'g':
    case 'G':
        if (v.kind == VALUE_UNDEFINED)
            return jinja_fail_undefined (r, v);
        if (!is_number (v))
            return jinja_fail (r, "must be real number, not %s", jinja_type_name (v));
        return emit_real (r, spec, real_of (v));
    default:
        return jinja_fail (r, "unsupported format character in a %% format");
    }
}

static bool percent_one (render *r, percent_state *s, const char **at, const char *end, bool markup)
{
    format_spec spec = {.fill = ' ', .width = -1, .precision = -1};
    bool zero = false, has_key = false;
    value v = value_none ();
    if (*at < end && **at == '(') {
        const char *from = ++*at;
        for (unsigned depth = 1; depth; (*at)++) {
            if (*at >= end)
                return jinja_fail (r, "incomplete format key");
            depth += **at == '(';
            depth -= **at == ')';
        }
        value *found = NULL, key = value_text (from, (size_t) (*at - 1 - from), 0);
        if (!s->is_mapping || s->operand.kind != VALUE_DICT)
            return jinja_fail (r, "format requires a mapping");
        if (!jinja_find (r, s->operand.as.dict, key, &found))
            return false;
        if (!found)
            return jinja_fail (r, "a %% format names the key '%.*s', which is not there", (int) key.length,
                               key.as.text);
        v = *found;
        has_key = true;
    }
    if (!percent_flags (r, s, at, end, &spec, &zero))
        return false;
    spec.type = *(*at)++;
    if (spec.type == '%')
        return jinja_emit_char (r, '%');
    return (has_key || next_operand (r, s, &v)) && percent_convert (r, &spec, zero, v, markup);
}

bool jinja_format_percent (render *r, value format, value operand, value *out)
{
    percent_state s = {.operand = operand};
    s.is_mapping = operand.kind == VALUE_DICT || operand.kind == VALUE_LIST || operand.kind == VALUE_RANGE ||
                   operand.kind == VALUE_UNDEFINED;
    bool markup = format.flags & TEXT_MARKUP;
    size_t mark = jinja_capture (r);
    const char *at = format.as.text, *end = at + format.length;
    while (at < end) {
        const char *percent = memchr (at, '%', (size_t) (end - at));
        if (!percent)
            percent = end;
        if (!jinja_emit (r, at, (size_t) (percent - at)))
            return false;
        at = percent;
        if (at < end && (at++, !percent_one (r, &s, &at, end, markup)))
            return false;
    }
    uint32_t given = operand.kind == VALUE_TUPLE ? operand.length : 1;
    if (s.used < given && !s.is_mapping)
        return jinja_fail (r, "not all arguments converted during string formatting");
    if (!jinja_capture_end (r, mark, out))
        return false;
    out->flags |= format.flags & TEXT_MARKUP;
    return true;
}

/* -- "{}".format ------------------------------------------------------------------------------- */

typedef struct braces_state {
    const arguments *call;
    dict *mapping; /* of format_map; NULL: named arguments */
    uint32_t next_automatic;
    bool is_manual, is_automatic;
    bool markup;
} braces_state;

static bool format_braces (render *r, braces_state *s, value format, unsigned depth);

static bool spec_number (const char **at, const char *end, int64_t *out)
{
    bool any = false;
    for (*out = 0; *at < end && **at >= '0' && **at <= '9'; (*at)++, any = true)
        if (*out <= MAX_OUTPUT_BYTES) /* more is too much anyway */
            *out = *out * 10 + (**at - '0');
    return any;
}

/* [[fill]align][sign][#][0][width][grouping][.precision][type] */
static bool parse_spec (render *r, value text, format_spec *spec)
{
    const char *at = text.as.text, *end = at + text.length;
    int64_t number;
    *spec = (format_spec){.fill = ' ', .width = -1, .precision = -1};
    if (at < end) {
        const char *next = at;
        uint32_t first = jinja_next_code_point (&next);
        if (next < end && *next && strchr ("<>=^", *next)) {
            spec->fill = first;
            spec->align = *next;
            at = next + 1;
        } else if (first && first < 0x80 && strchr ("<>=^", (int) first)) {
            spec->align = (char) first;
            at++;
        }
    }
    if (at < end && *at && strchr ("+- ", *at))
        spec->sign = *at++;
    if (at < end && *at == 'z')
        at++;
    if (at < end && *at == '#') {
        spec->alternate = true;
        at++;
    }
    if (at < end && *at == '0') {
        if (!spec->align) {
            spec->fill = '0';
            spec->align = '0'; /* '=' for numbers, nothing for texts */
        }
        at++;
    }
    if (spec_number (&at, end, &number))
        spec->width = number;
    if (at < end && (*at == ',' || *at == '_'))
        spec->grouping = *at++;
    if (at < end && *at == '.') {
        at++;
        if (!spec_number (&at, end, &number))
            return jinja_fail (r, "Format specifier missing precision");
        spec->precision = number > MAX_OUTPUT_BYTES ? MAX_OUTPUT_BYTES : (int32_t) number;
    }
    if (at < end)
        spec->type = *at++;
    return at == end || jinja_fail (r, "Invalid format specifier '%.*s'", (int) text.length, text.as.text);
}

static bool fail_type (render *r, const format_spec *spec, value v)
{
    return jinja_fail (r, "Unknown format code '%c' for object of type '%s'", spec->type, jinja_type_name (v));
}

/* format (v, text). */
static bool emit_formatted (render *r, value v, value text)
{
    format_spec spec;
    if (text.length == 0)
        return jinja_emit_value (r, v);
    if (!parse_spec (r, text, &spec))
        return false;
    if (is_text (v)) {
        if (spec.type && spec.type != 's')
            return fail_type (r, &spec, v);
        if (spec.align == '=' || spec.sign || spec.alternate || spec.grouping)
            return jinja_fail (r, "that format is not allowed for a string");
        spec.align = spec.align == '0' ? '<' : spec.align;
        return emit_cut (r, v, &spec);
    }
    if (!is_number (v))
        return jinja_fail (r, "unsupported format string passed to %s.__format__", jinja_type_name (v));
    spec.align = spec.align == '0' ? '=' : spec.align;
    bool known = spec.type == 0 || strchr (is_int (v) ? "bcdoxXneEfFgG%" : "neEfFgG%", spec.type);
    if (!known)
        return fail_type (r, &spec, v);
    if (is_int (v) && (spec.type == 0 || strchr ("bcdoxXn", spec.type))) {
        if (spec.precision >= 0)
            return jinja_fail (r, "Precision not allowed in integer format specifier");
        return spec.type == 'c' ? percent_char (r, &spec, v) : emit_int (r, &spec, int_of (v));
    }
    return emit_real (r, &spec, real_of (v));
}

/* The object that the first part of a field names: a position or a name; `automatic`: the next position. */
static bool braces_object (render *r, braces_state *s, value name, bool automatic, value *out)
{
    int64_t number = 0;
    bool overflow, is_number_name = name.length > 0;
    for (uint32_t i = 0; i < name.length; i++)
        is_number_name = is_number_name && name.as.text[i] >= '0' && name.as.text[i] <= '9';
    if (automatic || is_number_name) {
        s->is_manual = s->is_manual || is_number_name;
        s->is_automatic = s->is_automatic || !is_number_name;
        if (s->is_manual && s->is_automatic)
            return jinja_fail (r, "cannot switch between manual field specification and automatic field numbering");
        if (is_number_name && (!jinja_parse_int (name, 10, &number, &overflow) || overflow))
            return jinja_fail (r, "Too many decimal digits in format string");
        if (!is_number_name)
            number = s->next_automatic++;
        if (s->mapping || number >= s->call->n_positional)
            return jinja_fail (r, "Replacement index %lld out of range for positional args tuple", (long long) number);
        *out = s->call->positional[number];
        return true;
    }
    value *found = NULL;
    if ((s->mapping && !jinja_find (r, s->mapping, name, &found)) || !jinja_charge (r, (size_t) s->call->n_named * 8))
        return false;
    for (uint32_t i = 0; !s->mapping && i < s->call->n_named; i++) {
        value given = s->call->named[i].name;
        if (given.length == name.length && memcmp (given.as.text, name.as.text, name.length) == 0) {
            *out = s->call->named[i].item;
            return true;
        }
    }
    if (!found)
        return jinja_fail (r, "format names '%.*s', which is not given", (int) name.length, name.as.text);
    *out = *found;
    return true;
}

/* name.attribute[index]… */
static bool braces_field (render *r, braces_state *s, const char *at, const char *end, value *out)
{
    const char *from = at;
    while (at < end && *at != '.' && *at != '[')
        at++;
    if (!braces_object (r, s, value_text (from, (size_t) (at - from), 0), from == end, out))
        return false;
    while (at < end) {
        bool attribute = *at++ == '.';
        from = at;
        while (at < end && (attribute ? *at != '.' && *at != '[' : *at != ']'))
            at++;
        value name = value_text (from, (size_t) (at - from), jinja_ascii_flag (from, (size_t) (at - from)));
        if (name.length == 0)
            return jinja_fail (r, "Empty attribute in format string");
        int64_t index;
        bool overflow;
        if (!attribute) {
            if (at >= end)
                return jinja_fail (r, "Missing ']' in format string");
            at++;
            if (at < end && *at != '.' && *at != '[')
                return jinja_fail (r, "Only '.' or '[' may follow ']' in format field specifier");
            if (*from >= '0' && *from <= '9' && jinja_parse_int (name, 10, &index, &overflow) && !overflow)
                name = value_int (index);
        }
        if (!(attribute ? jinja_attribute (r, *out, name, out) : jinja_item (r, *out, name, out)))
            return false;
    }
    return true;
}

/* What stands between { and }. */
static bool braces_one (render *r, braces_state *s, const char *at, const char *end, unsigned depth)
{
    const char *from = at, *stop = at;
    value v, spec = value_literal ("");
    char conversion = 0;
    bool in_index = false;
    for (; stop < end && (in_index || (*stop != '!' && *stop != ':')); stop++)
        in_index = *stop == '[' || (in_index && *stop != ']');
    if (!braces_field (r, s, from, stop, &v))
        return false;
    if (stop < end && *stop == '!') {
        if (end - stop < 2 || (end - stop > 2 && stop[2] != ':'))
            return jinja_fail (r, "expected ':' after conversion specifier");
        conversion = stop[1];
        stop += 2;
    }
    if (stop < end)
        spec = value_text (stop + 1, (size_t) (end - stop - 1), 0);
    if (conversion && !(conversion == 's'   ? jinja_to_text (r, v, &v)
                        : conversion == 'r' ? jinja_repr (r, v, &v)
                        : conversion == 'a' ? ascii_repr (r, v, &v)
                                            : jinja_fail (r, "Unknown conversion specifier '%c'", conversion)))
        return false;
    if (memchr (spec.as.text, '{', spec.length) || memchr (spec.as.text, '}', spec.length)) {
        size_t mark = jinja_capture (r);
        if (!format_braces (r, s, spec, depth + 1) || !jinja_capture_end (r, mark, &spec))
            return false;
    }
    if (!s->markup)
        return emit_formatted (r, v, spec);
    size_t mark = jinja_capture (r);
    value shown = v;
    if (spec.length && (!emit_formatted (r, v, spec) || !jinja_capture_end (r, mark, &shown)))
        return false;
    return jinja_emit_escaped (r, shown);
}

static bool format_braces (render *r, braces_state *s, value format, unsigned depth)
{
    const char *at = format.as.text, *end = at + format.length;
    if (depth > 1)
        return jinja_fail (r, "Max string recursion exceeded");
    while (at < end) {
        char c = *at++;
        if (c != '{' && c != '}') {
            const char *from = at - 1;
            while (at < end && *at != '{' && *at != '}')
                at++;
            if (!jinja_emit (r, from, (size_t) (at - from)))
                return false;
            continue;
        }
        if (at < end && *at == c) {
            at++;
            if (!jinja_emit_char (r, c))
                return false;
            continue;
        }
        if (c == '}')
            return jinja_fail (r, "Single '}' encountered in format string");
        const char *from = at;
        for (unsigned open = 1; open; at++) {
            if (at >= end)
                return jinja_fail (r, "expected '}' before end of string");
            open += *at == '{';
            open -= *at == '}';
        }
        if (!braces_one (r, s, from, at - 1, depth))
            return false;
    }
    return true;
}

bool jinja_format_braces (render *r, value format, const arguments *call, dict *mapping, value *out)
{
    braces_state s = {.call = call, .mapping = mapping, .markup = format.flags & TEXT_MARKUP};
    size_t mark = jinja_capture (r);
    if (!format_braces (r, &s, format, 0) || !jinja_capture_end (r, mark, out))
        return false;
    out->flags |= format.flags & TEXT_MARKUP;
    return true;
}

/* -- Reading numbers --------------------------------------------------------------------------- */

/* Strips whitespace, makes digits ASCII and drops single underscores between digits. False if that leaves nothing,
 * something non-ASCII, or more than fits. */
static bool clean_number (value text, char out[256])
{
    const char *at = text.as.text, *end = at + text.length;
    size_t n = 0;
    while (at < end && jinja_is_space (jinja_code_point_at (at)))
        jinja_next_code_point (&at);
    while (at < end && jinja_is_space (jinja_code_point_at (jinja_previous_character (at, end))))
        end = jinja_previous_character (at, end);
    bool after_digit = false;
    while (at < end) {
        uint32_t code = jinja_next_code_point (&at);
        if (jinja_is_decimal (code))
            code = '0' + jinja_decimal_value (code);
        bool digit = code < 0x80 && ((code >= '0' && code <= '9') || ((code | 0x20) >= 'a' && (code | 0x20) <= 'z'));
        if (code == '_') {
            if (!after_digit || at >= end || *at == '_')
                return false;
            after_digit = false;
            continue;
        }
        if (code >= 0x80 || n + 2 > 256)
            return false;
        out[n++] = (char) code;
        after_digit = digit;
    }
    out[n] = 0;
    return n > 0;
}

bool jinja_parse_int (value text, int base, int64_t *out, bool *overflow)
{
    char digits[256];
    *overflow = false;
    if (!clean_number (text, digits))
        return false;
    const char *at = digits;
    bool negative = *at == '-';
    if (*at == '-' || *at == '+')
        at++;
    if (at[0] == '0' && at[1]) {
        char letter = at[1] | 0x20;
        int prefix = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 0;
        if (prefix && (base == 0 || base == prefix)) {
            base = prefix;
            at += 2;
        } else if (base == 0 && strspn (at, "0") != strlen (at)) {
            return false;
        }
    }
    if (base == 0)
        base = 10;
    uint64_t magnitude = 0;
    if (!*at)
        return false;
    for (; *at; at++) {
        int letter = *at | 0x20;
        int digit = *at >= '0' && *at <= '9' ? *at - '0' : letter >= 'a' && letter <= 'z' ? letter - 'a' + 10 : 99;
        if (digit >= base)
            return false;
        if (__builtin_mul_overflow (magnitude, (uint64_t) base, &magnitude) ||
            __builtin_add_overflow (magnitude, (uint64_t) digit, &magnitude) || magnitude > (uint64_t) INT64_MAX)
            *overflow = true;
    }
    *out = negative ? -(int64_t) magnitude : (int64_t) magnitude;
    if (*overflow)
        *out = 0;
    return true;
}

bool jinja_parse_float (value text, double *out)
{
    char digits[256];
    if (!clean_number (text, digits))
        return false;
    const char *at = digits + (digits[0] == '-' || digits[0] == '+');
    if (strcasecmp (at, "inf") != 0 && strcasecmp (at, "infinity") != 0 && strcasecmp (at, "nan") != 0 &&
        (*at == 0 || strspn (at, "0123456789.eE+-") != strlen (at)))
        return false;
    char *end;
    *out = strtod (digits, &end);
    return *end == 0;
}
