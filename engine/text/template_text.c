/* The methods of Python's str, but for those on letters (template_case.c).
 *
 * Positions and widths count code points; texts that are known to be ASCII skip the counting. Pieces that a method
 * cuts out share the bytes of the text. */
#include "template_private.h"

static value piece (value text, size_t from, size_t to)
{
    return value_text (text.as.text + from, to - from, text.flags);
}

static bool need_text (render *r, value v, const char *what)
{
    if (is_text (v))
        return true;
    if (v.kind == VALUE_UNDEFINED)
        return jinja_fail_undefined (r, v);
    return jinja_fail (r, "%s must be str, not %s", what, jinja_type_name (v));
}

static bool need_int (render *r, value v, int64_t fallback, int64_t *out)
{
    if (!is_given (v) || is_int (v)) {
        *out = is_given (v) ? int_of (v) : fallback;
        return true;
    }
    if (v.kind == VALUE_UNDEFINED)
        return jinja_fail_undefined (r, v);
    return jinja_fail (r, "'%s' object cannot be interpreted as an integer", jinja_type_name (v));
}

/* -- Stripping --------------------------------------------------------------------------------- */

enum { STRIP_LEFT = 1, STRIP_RIGHT = 2 };

/* `characters`: NULL: whitespace. */
static bool is_stripped (render *r, uint32_t code, const value *characters)
{
    if (!characters)
        return jinja_is_space (code);
    bool found = false;
    for (const char *at = characters->as.text, *end = at + characters->length; at < end && !found;)
        found = jinja_next_code_point (&at) == code;
    return jinja_charge (r, (size_t) characters->length * 8) && found;
}

static bool strip (render *r, value self, value characters, unsigned sides, value *out)
{
    const value *set = NULL;
    if (is_given (characters) && characters.kind != VALUE_NONE) {
        if (!is_text (characters))
            return jinja_fail (r, "strip arg must be None or str");
        set = &characters;
    }
    const char *start = self.as.text, *at = start, *end = at + self.length;
    while ((sides & STRIP_LEFT) && at < end && is_stripped (r, jinja_code_point_at (at), set))
        jinja_next_code_point (&at);
    while ((sides & STRIP_RIGHT) && end > at) {
        const char *last = jinja_previous_character (at, end);
        if (!is_stripped (r, jinja_code_point_at (last), set))
            break;
        end = last;
    }
    *out = piece (self, (size_t) (at - start), (size_t) (end - start));
    return jinja_charge (r, self.length - out->length);
}

static bool text_strip (render *r, value self, const value *args, const arguments *call, value *out)
{
    (void) call;
    return strip (r, self, args[0], STRIP_LEFT | STRIP_RIGHT, out);
}

static bool text_lstrip (render *r, value self, const value *args, const arguments *call, value *out)
{
    (void) call;
    return strip (r, self, args[0], STRIP_LEFT, out);
}

static bool text_rstrip (render *r, value self, const value *args, const arguments *call, value *out)
{
    (void) call;
    return strip (r, self, args[0], STRIP_RIGHT, out);
}

static bool begins_with (value text, value with)
{
    return with.length <= text.length && memcmp (text.as.text, with.as.text, with.length) == 0;
}

static bool finishes_with (value text, value with)
{
    return with.length <= text.length &&
           memcmp (text.as.text + text.length - with.length, with.as.text, with.length) == 0;
}

static bool text_removeprefix (render *r, value self, const value *args, const arguments *call, value *out)
{
    (void) call;
    if (!need_text (r, args[0], "removeprefix() argument"))
        return false;
    *out = piece (self, begins_with (self, args[0]) ? args[0].length : 0, self.length);
    return true;
}

static bool text_removesuffix (render *r, value self, const value *args, const arguments *call, value *out)
{
    (void) call;
    if (!need_text (r, args[0], "removesuffix() argument"))
        return false;
    *out = piece (self, 0, self.length - (finishes_with (self, args[0]) ? args[0].length : 0));
    return true;
}

/* -- Searching --------------------------------------------------------------------------------- */

/* The part of `self` that optional start and end arguments choose. *first is its first code point's number; -1 if
 * start is behind the end of the text, where not even "" is found. */
static bool choose_part (render *r, value self, value start, value end, value *part, int64_t *first)
{
    if (!is_given (start) && !is_given (end)) {
        *part = self;
        *first = 0;
        return true;
    }
    int64_t length = (int64_t) jinja_code_points (self), last;
    if (!jinja_clamp_index (r, start, length, 0, 0, length + 1, first) ||
        !jinja_clamp_index (r, end, length, length, 0, length, &last) || !jinja_charge (r, self.length))
        return false;
    if (*first > last) {
        *first = -1;
        *part = piece (self, 0, 0);
        return true;
    }
    *part = piece (self, jinja_offset_of (self, (size_t) *first), jinja_offset_of (self, (size_t) last));
    return true;
}

/* Where `what` first (or last) is in `text`, in bytes; -1: nowhere. */
static int64_t search (value text, value what, bool from_end)
{
    if (what.length > text.length)
        return -1;
    if (!from_end) {
        if (what.length == 0)
            return 0;
        const char *found = memmem (text.as.text, text.length, what.as.text, what.length);
        return found ? found - text.as.text : -1;
    }
    for (int64_t at = (int64_t) text.length - what.length; at >= 0; at--)
        if (what.length == 0 ||
            (text.as.text[at] == what.as.text[0] && memcmp (text.as.text + at, what.as.text, what.length) == 0))
            return at;
    return -1;
}

/* Bytes looked at in the worst case: memmem is linear, the way back is not. */
static size_t search_work (value text, value what, bool from_end)
{
    return from_end ? (size_t) text.length * (what.length / 64 + 1) : text.length;
}

static bool find_number (render *r, value self, const value *args, bool from_end, int64_t *out)
{
    value part;
    int64_t first;
    if (!need_text (r, args[0], "the argument of find") || !choose_part (r, self, args[1], args[2], &part, &first))
        return false;
    if (!jinja_charge (r, search_work (part, args[0], from_end)))
        return false;
    int64_t at = first < 0 ? -1 : search (part, args[0], from_end);
    *out = at < 0 ? -1 : first + (int64_t) jinja_code_points (piece (part, 0, (size_t) at));
    return true;
}

static bool text_find (render *r, value self, const value *args, const arguments *call, value *out)
{
    (void) call;
    int64_t at = 0;
    bool ok = find_number (r, self, args, false, &at);
    *out = value_int (at);
    return ok;
}

static bool text_rfind (render *r, value self, const value *args, const arguments *call, value *out)
{
    (void) call;
    int64_t at = 0;
    bool ok = find_number (r, self, args, true, &at);
    *out = value_int (at);
    return ok;
}

static bool text_index (render *r, value self, const value *args, const arguments *call, value *out)
{
    return text_find (r, self, args, call, out) && (out->as.integer >= 0 || jinja_fail (r, "substring not found"));
}

static bool text_rindex (render *r, value self, const value *args, const arguments *call, value *out)
{
    return text_rfind (r, self, args, call, out) && (out->as.integer >= 0 || jinja_fail (r, "substring not found"));
}

static bool text_count (render *r, value self, const value *args, const arguments *call, value *out)
{
    (void) call;
    value part;
    int64_t first, n = 0;
    if (!need_text (r, args[0], "the argument of count") || !choose_part (r, self, args[1], args[2], &part, &first) ||
        !jinja_charge (r, part.length))
        return false;
    if (first >= 0 && args[0].length == 0)
        n = (int64_t) jinja_code_points (part) + 1;
    while (first >= 0 && args[0].length) {
        int64_t at = search (part, args[0], false);
        if (at < 0)
            break;
        part = piece (part, (size_t) at + args[0].length, part.length);
        n++;
        if (!jinja_charge (r, 0))
            return false;
    }
    *out = value_int (n);
    return true;
}

static bool has_edge (render *r, value self, const value *args, bool (*test) (value, value), const char *name,
                      value *out)
{
    value part;
    int64_t first;
    bool found = false;
    if (!choose_part (r, self, args[1], args[2], &part, &first))
        return false;
    const value *edges = args[0].kind == VALUE_TUPLE ? args[0].as.items : &args[0];
    uint32_t count = args[0].kind == VALUE_TUPLE ? args[0].length : 1;
    for (uint32_t i = 0; i < count && !found; i++) {
        if (!is_text (edges[i]))
            return jinja_fail (r, "%s first arg must be str or a tuple of str, not %s", name,
                               jinja_type_name (edges[i]));
        found = first >= 0 && test (part, edges[i]);
    }
    *out = value_bool (found);
    return jinja_charge (r, 0);
}

static bool text_startswith (render *r, value self, const value *args, const arguments *call, value *out)
{
    (void) call;
    return has_edge (r, self, args, begins_with, "startswith", out);
}

static bool text_endswith (render *r, value self, const value *args, const arguments *call, value *out)
{
    (void) call;
    return has_edge (r, self, args, finishes_with, "endswith", out);
}

/* -- Splitting and joining --------------------------------------------------------------------- */

static bool split_at_space (render *r, value self, int64_t limit, value_list *list)
{
    const char *start = self.as.text, *at = start, *end = at + self.length;
    for (;;) {
        while (at < end && jinja_is_space (jinja_code_point_at (at)))
            jinja_next_code_point (&at);
        if (at >= end)
            return true;
        const char *from = at;
        if (list->count >= limit)
            return jinja_append (r, list, piece (self, (size_t) (from - start), self.length));
        while (at < end && !jinja_is_space (jinja_code_point_at (at)))
            jinja_next_code_point (&at);
        if (!jinja_append (r, list, piece (self, (size_t) (from - start), (size_t) (at - start))))
            return false;
    }
}

static bool split_at (render *r, value self, value separator, int64_t limit, value_list *list)
{
    value rest = self;
    while (list->count < limit) {
        int64_t at = search (rest, separator, false);
        if (at < 0)
            break;
        if (!jinja_append (r, list, piece (rest, 0, (size_t) at)))
            return false;
        rest = piece (rest, (size_t) at + separator.length, rest.length);
    }
    return jinja_append (r, list, rest);
}

static bool rsplit_at_space (render *r, value self, int64_t limit, value_list *list)
{
    const char *start = self.as.text, *at = start + self.length;
    for (;;) {
        while (at > start && jinja_is_space (jinja_code_point_at (jinja_previous_character (start, at))))
            at = jinja_previous_character (start, at);
        if (at <= start)
            return true;
        const char *end = at;
        if (list->count >= limit)
            return jinja_append (r, list, piece (self, 0, (size_t) (end - start)));
        while (at > start && !jinja_is_space (jinja_code_point_at (jinja_previous_character (start, at))))
            at = jinja_previous_character (start, at);
        if (!jinja_append (r, list, piece (self, (size_t) (at - start), (size_t) (end - start))))
            return false;
    }
}

static bool rsplit_at (render *r, value self, value separator, int64_t limit, value_list *list)
{
    value rest = self;
    while (list->count < limit) {
        int64_t at = search (rest, separator, true);
        if (at < 0)
            break;
        if (!jinja_append (r, list, piece (rest, (size_t) at + separator.length, rest.length)))
            return false;
        rest = piece (rest, 0, (size_t) at);
    }
    return jinja_append (r, list, rest);
}

static bool split (render *r, value self, const value *args, bool from_end, value *out)
{
    value_list list = {0};
    int64_t limit;
    bool at_space = !is_given (args[0]) || args[0].kind == VALUE_NONE, ok;
    if (!at_space && !need_text (r, args[0], "the separator of split"))
        return false;
    if (!at_space && args[0].length == 0)
        return jinja_fail (r, "empty separator");
    size_t work = search_work (self, at_space ? self : args[0], from_end && !at_space);
    if (!need_int (r, args[1], -1, &limit) || !jinja_charge (r, work))
        return false;
    if (limit < 0)
        limit = INT64_MAX;
    if (from_end)
        ok = at_space ? rsplit_at_space (r, self, limit, &list) : rsplit_at (r, self, args[0], limit, &list);
    else
        ok = at_space ? split_at_space (r, self, limit, &list) : split_at (r, self, args[0], limit, &list);
    if (!ok)
        return false;
    for (uint32_t i = 0; from_end && i < list.count / 2; i++) {
        value kept = list.items[i];
        list.items[i] = list.items[list.count - 1 - i];
        list.items[list.count - 1 - i] = kept;
    }
    *out = value_of_list (&list);
    return true;
}

static bool text_split (render *r, value self, const value *args, const arguments *call, value *out)
{
    (void) call;
    return split (r, self, args, false, out);
}

static bool text_rsplit (render *r, value self, const value *args, const arguments *call, value *out)
{
    (void) call;
    return split (r, self, args, true, out);
}

static bool text_splitlines (render *r, value self, const value *args, const arguments *call, value *out)
{
    (void) call;
    value_list list = {0};
    int64_t keep;
    if (!need_int (r, args[0], 0, &keep))
        return false;
    const char *start = self.as.text, *end = start + self.length, *at = start, *from = start;
    while (at < end) {
        const char *line_end = at;
        uint32_t code = jinja_next_code_point (&at);
        if (!jinja_is_line_break (code))
            continue;
        if (code == '\r' && at < end && *at == '\n')
            at++;
        if (!jinja_append (r, &list, piece (self, (size_t) (from - start), (size_t) ((keep ? at : line_end) - start))))
            return false;
        from = at;
    }
    if (from < end && !jinja_append (r, &list, piece (self, (size_t) (from - start), self.length)))
        return false;
    *out = value_of_list (&list);
    return jinja_charge (r, self.length);
}

static bool partition (render *r, value self, value separator, bool from_end, value *out)
{
    value *parts = jinja_new (r, 3, sizeof *parts);
    if (!parts || !need_text (r, separator, "the separator of partition"))
        return false;
    if (separator.length == 0)
        return jinja_fail (r, "empty separator");
    if (!jinja_charge (r, search_work (self, separator, from_end)))
        return false;
    int64_t at = search (self, separator, from_end);
    value empty = piece (self, 0, 0);
    parts[0] = at >= 0 ? piece (self, 0, (size_t) at) : from_end ? empty : self;
    parts[1] = at >= 0 ? separator : empty;
    parts[2] = at >= 0 ? piece (self, (size_t) at + separator.length, self.length) : from_end ? self : empty;
    *out = value_sequence (VALUE_TUPLE, parts, 3);
    return true;
}

static bool text_partition (render *r, value self, const value *args, const arguments *call, value *out)
{
    (void) call;
    return partition (r, self, args[0], false, out);
}

static bool text_rpartition (render *r, value self, const value *args, const arguments *call, value *out)
{
    (void) call;
    return partition (r, self, args[0], true, out);
}

static bool text_join (render *r, value self, const value *args, const arguments *call, value *out)
{
    (void) call;
    value list;
    bool markup = self.flags & TEXT_MARKUP;
    if (!jinja_list_of (r, args[0], &list))
        return false;
    size_t mark = jinja_capture (r);
    for (uint32_t i = 0; i < list.length; i++) {
        value item = list.as.items[i];
        if (i && !jinja_emit (r, self.as.text, self.length))
            return false;
        if (!markup && !is_text (item))
            return jinja_fail (r, "sequence item %u: expected str instance, %s found", i, jinja_type_name (item));
        if (!(markup ? jinja_emit_escaped (r, item) : jinja_emit (r, item.as.text, item.length)))
            return false;
    }
    return jinja_capture_end (r, mark, out);
}

static bool text_replace (render *r, value self, const value *args, const arguments *call, value *out)
{
    (void) call;
    value old = args[0], new = args[1];
    int64_t limit;
    if ((self.flags & TEXT_MARKUP) && !jinja_escape (r, new, &new))
        return false;
    if (!need_text (r, old, "replace() argument 1") || !need_text (r, new, "replace() argument 2") ||
        !need_int (r, args[2], -1, &limit))
        return false;
    size_t mark = jinja_capture (r);
    value rest = self;
    for (; limit != 0; limit--) {
        int64_t at = search (rest, old, false);
        if (at < 0)
            break;
        if (old.length == 0) { /* before each character, and at the end */
            const char *next = rest.as.text;
            if (!jinja_emit (r, new.as.text, new.length))
                return false;
            if (rest.length == 0)
                break;
            jinja_next_code_point (&next);
            if (!jinja_emit (r, rest.as.text, (size_t) (next - rest.as.text)))
                return false;
            rest = piece (rest, (size_t) (next - rest.as.text), rest.length);
            continue;
        }
        if (!jinja_emit (r, rest.as.text, (size_t) at) || !jinja_emit (r, new.as.text, new.length))
            return false;
        rest = piece (rest, (size_t) at + old.length, rest.length);
    }
    return jinja_emit (r, rest.as.text, rest.length) && jinja_capture_end (r, mark, out) &&
           jinja_charge (r, self.length);
}

/* -- Widths ------------------------------------------------------------------------------------ */

static bool pad (render *r, value self, int64_t left, int64_t right, value fill, value *out)
{
    if (is_given (fill) && (!is_text (fill) || jinja_code_points (fill) != 1))
        return jinja_fail (r, "The fill character must be exactly one character long");
    if (!is_given (fill))
        fill = value_literal (" ");
    size_t mark = jinja_capture (r);
    for (int64_t i = 0; i < left; i++)
        if (!jinja_emit (r, fill.as.text, fill.length))
            return false;
    if (!jinja_emit (r, self.as.text, self.length))
        return false;
    for (int64_t i = 0; i < right; i++)
        if (!jinja_emit (r, fill.as.text, fill.length))
            return false;
    return jinja_capture_end (r, mark, out);
}

/* *missing: how many code points `self` lacks to the width asked for. */
static bool missing_width (render *r, value self, value width, int64_t *wanted, int64_t *missing)
{
    if (!need_int (r, width, 0, wanted))
        return false;
    *missing = *wanted > MAX_OUTPUT_BYTES ? MAX_OUTPUT_BYTES + 1 : *wanted - (int64_t) jinja_code_points (self);
    if (*missing < 0)
        *missing = 0;
    return jinja_charge (r, self.length);
}

static bool text_center (render *r, value self, const value *args, const arguments *call, value *out)
{
    (void) call;
    int64_t wanted, missing;
    if (!missing_width (r, self, args[0], &wanted, &missing))
        return false;
    int64_t left = missing / 2 + (missing & wanted & 1);
    return pad (r, self, left, missing - left, args[1], out);
}

static bool text_ljust (render *r, value self, const value *args, const arguments *call, value *out)
{
    (void) call;
    int64_t wanted, missing;
    return missing_width (r, self, args[0], &wanted, &missing) && pad (r, self, 0, missing, args[1], out);
}

static bool text_rjust (render *r, value self, const value *args, const arguments *call, value *out)
{
    (void) call;
    int64_t wanted, missing;
    return missing_width (r, self, args[0], &wanted, &missing) && pad (r, self, missing, 0, args[1], out);
}

static bool text_zfill (render *r, value self, const value *args, const arguments *call, value *out)
{
    (void) call;
    int64_t wanted, missing;
    if (!missing_width (r, self, args[0], &wanted, &missing))
        return false;
    size_t mark = jinja_capture (r);
    size_t sign = self.length && (self.as.text[0] == '+' || self.as.text[0] == '-');
    return jinja_emit (r, self.as.text, sign) && jinja_emit_repeated (r, '0', (size_t) missing) &&
           jinja_emit (r, self.as.text + sign, self.length - sign) && jinja_capture_end (r, mark, out);
}

static bool text_expandtabs (render *r, value self, const value *args, const arguments *call, value *out)
{
    (void) call;
    int64_t size, column = 0;
    if (!need_int (r, args[0], 8, &size))
        return false;
    size_t mark = jinja_capture (r);
    for (const char *at = self.as.text, *end = at + self.length; at < end;) {
        const char *from = at;
        uint32_t code = jinja_next_code_point (&at);
        if (code == '\t') {
            int64_t blanks = size > 0 ? size - column % size : 0;
            if (!jinja_emit_repeated (r, ' ', (size_t) blanks))
                return false;
            column += blanks;
            continue;
        }
        column = code == '\n' || code == '\r' ? 0 : column + 1;
        if (!jinja_emit (r, from, (size_t) (at - from)))
            return false;
    }
    return jinja_capture_end (r, mark, out);
}

/* -- format ------------------------------------------------------------------------------------ */

static bool text_format (render *r, value self, const value *args, const arguments *call, value *out)
{
    (void) args;
    return jinja_format_braces (r, self, call, NULL, out);
}

static bool text_format_map (render *r, value self, const value *args, const arguments *call, value *out)
{
    if (args[0].kind != VALUE_DICT)
        return jinja_fail (r, "format_map() wants a dict, not %s", jinja_type_name (args[0]));
    return jinja_format_braces (r, self, call, args[0].as.dict, out);
}

static const callable methods[] = {
    {"center", "/width,fillchar", 1, text_center},
    {"count", "/sub,start,end", 1, text_count},
    {"endswith", "/suffix,start,end", 1, text_endswith},
    {"expandtabs", "tabsize", 0, text_expandtabs},
    {"find", "/sub,start,end", 1, text_find},
    {"format", NULL, 0, text_format},
    {"format_map", "/mapping", 1, text_format_map},
    {"index", "/sub,start,end", 1, text_index},
    {"join", "/iterable", 1, text_join},
    {"ljust", "/width,fillchar", 1, text_ljust},
    {"lstrip", "/chars", 0, text_lstrip},
    {"partition", "/sep", 1, text_partition},
    {"removeprefix", "/prefix", 1, text_removeprefix},
    {"removesuffix", "/suffix", 1, text_removesuffix},
    {"replace", "/old,new,count", 2, text_replace},
    {"rfind", "/sub,start,end", 1, text_rfind},
    {"rindex", "/sub,start,end", 1, text_rindex},
    {"rjust", "/width,fillchar", 1, text_rjust},
    {"rpartition", "/sep", 1, text_rpartition},
    {"rsplit", "sep,maxsplit", 0, text_rsplit},
    {"rstrip", "/chars", 0, text_rstrip},
    {"split", "sep,maxsplit", 0, text_split},
    {"splitlines", "keepends", 0, text_splitlines},
    {"startswith", "/prefix,start,end", 1, text_startswith},
    {"strip", "/chars", 0, text_strip},
    {"zfill", "/width", 1, text_zfill},
};

const callable *jinja_find_text_method (const char *name, size_t length)
{
    const callable *found = jinja_find_in (methods, sizeof methods / sizeof methods[0], name, length);
    return found ? found : jinja_find_case_method (name, length);
}
