/* What templates can call by name: range, dict, namespace, cycler, joiner, and transformers' raise_exception and
 * strftime_now. */
#include "template_private.h"

#include <stdio.h>

static bool want_int (render *r, value v, int64_t *out)
{
    if (v.kind == VALUE_UNDEFINED)
        return jinja_fail_undefined (r, v);
    if (!is_int (v))
        return jinja_fail (r, "'%s' object cannot be interpreted as an integer", jinja_type_name (v));
    *out = int_of (v);
    return true;
}

static bool make_range (render *r, value self, const value *args, const arguments *call, value *out)
{
    (void) self, (void) call;
    range *n = jinja_new (r, 1, sizeof *n);
    if (!n)
        return false;
    n->step = 1;
    bool has_start = is_given (args[1]);
    if ((has_start && !want_int (r, args[0], &n->start)) || !want_int (r, args[has_start ? 1 : 0], &n->stop) ||
        (is_given (args[2]) && !want_int (r, args[2], &n->step)))
        return false;
    if (n->step == 0)
        return jinja_fail (r, "range() arg 3 must not be zero");
    uint64_t step = n->step > 0 ? (uint64_t) n->step : -(uint64_t) n->step, span = 0;
    if (n->step > 0 && n->stop > n->start)
        span = (uint64_t) n->stop - (uint64_t) n->start;
    if (n->step < 0 && n->stop < n->start)
        span = (uint64_t) n->start - (uint64_t) n->stop;
    uint64_t count = span ? (span - 1) / step + 1 : 0;
    if (count > MAX_RANGE)
        return jinja_fail (r, "Range too big. The sandbox blocks ranges larger than MAX_RANGE (%d).", MAX_RANGE);
    n->count = (uint32_t) count;
    *out = (value){.kind = VALUE_RANGE, .as.range = n};
    return true;
}

static bool make_dict (render *r, value self, const value *args, const arguments *call, value *out)
{
    (void) self, (void) args;
    dict *d = jinja_new_dict (r, call->n_named);
    *out = (value){.kind = VALUE_DICT, .as.dict = d};
    return d && jinja_fill_dict (r, d, "dict", call);
}

static bool make_namespace (render *r, value self, const value *args, const arguments *call, value *out)
{
    (void) self, (void) args;
    dict *d = jinja_new_dict (r, call->n_named);
    *out = (value){.kind = VALUE_NAMESPACE, .as.dict = d};
    return d && jinja_fill_dict (r, d, "namespace", call);
}

static bool make_cycler (render *r, value self, const value *args, const arguments *call, value *out)
{
    (void) self, (void) args;
    cycler *c = jinja_new (r, 1, sizeof *c);
    if (!c)
        return false;
    if (call->n_positional == 0 || call->n_named)
        return jinja_fail (r, "cycler: at least one item has to be provided, and none by name");
    c->items = call->positional;
    c->count = call->n_positional;
    *out = (value){.kind = VALUE_CYCLER, .as.cycler = c};
    return true;
}

static bool make_joiner (render *r, value self, const value *args, const arguments *call, value *out)
{
    (void) self, (void) call;
    cycler *c = jinja_new (r, 1, sizeof *c);
    value *separator = jinja_new (r, 1, sizeof *separator);
    if (!c || !separator)
        return false;
    *separator = is_given (args[0]) ? args[0] : value_literal (", ");
    c->items = separator;
    c->count = 1;
    *out = (value){.kind = VALUE_JOINER, .as.cycler = c};
    return true;
}

static bool raise_exception (render *r, value self, const value *args, const arguments *call, value *out)
{
    (void) self, (void) call, (void) out;
    value message;
    if (!jinja_to_text (r, args[0], &message))
        return false;
    return wl_fail (r->err, WL_ERROR_INPUT, "the chat template refuses these messages: %.*s", (int) message.length,
                    message.as.text);
}

/* One directive, from its % to its letter. Those that ask for what a time of day without a zone lacks give what
 * Python gives. */
static bool emit_directive (render *r, const char *directive, size_t length)
{
    char format[32], text[256];
    char letter = directive[length - 1];
    if (letter == 'f')
        return jinja_emit_literal (r, "000000");
    if (letter == 'z' || letter == 'Z')
        return true;
    if (length + 2 > sizeof format)
        return jinja_fail (r, "a time format is too long");
    /* A blank in front, so that an empty result differs from a failure. */
    snprintf (format, sizeof format, " %.*s", (int) length, directive);
    size_t written = strftime (text, sizeof text, format, r->now);
    return written ? jinja_emit (r, text + 1, written - 1) : jinja_fail (r, "a time format gives too much text");
}

static bool strftime_now (render *r, value self, const value *args, const arguments *call, value *out)
{
    (void) self, (void) call;
    if (!is_text (args[0]))
        return jinja_fail (r, "strftime_now wants a format, not %s", jinja_type_name (args[0]));
    if (!r->now)
        return jinja_fail (r, "it asks for the time, which was not given");
    size_t mark = jinja_capture (r);
    const char *at = args[0].as.text, *end = at + args[0].length;
    while (at < end) {
        const char *from = at;
        if (*at != '%') {
            while (at < end && *at != '%')
                at++;
            if (!jinja_emit (r, from, (size_t) (at - from)))
                return false;
            continue;
        }
        at++;
        while (at < end && strchr ("_-0^#123456789EO", *at) && *at)
            at++;
        if (at == end || !*at || (unsigned char) *at >= 0x80)
            return jinja_fail (r, "a time format ends in the middle of a directive");
        at++;
        if (!emit_directive (r, from, (size_t) (at - from)))
            return false;
    }
    return jinja_capture_end (r, mark, out);
}

static const callable globals[] = {
    {"range", "/start,stop,step", 1, make_range},
    {"dict", NULL, 0, make_dict},
    {"namespace", NULL, 0, make_namespace},
    {"cycler", NULL, 0, make_cycler},
    {"joiner", "sep", 0, make_joiner},
    {"raise_exception", "message", 1, raise_exception},
    {"strftime_now", "format", 1, strftime_now},
};

bool jinja_add_globals (render *r, dict *d)
{
    for (size_t i = 0; i < sizeof globals / sizeof globals[0]; i++)
        if (!jinja_put (r, d, value_literal (globals[i].name),
                        (value){.kind = VALUE_FUNCTION, .as.function = &globals[i]}))
            return false;
    return true;
}
