/* Jinja's filters on sequences. Those that Jinja writes as generators give iterators here: they print, count and
 * fail alike. */
#include "template_private.h"

#define FILTER(name) static bool name (render *r, value self, const value *args, const arguments *call, value *out)
#define UNUSED (void) args, (void) call

static bool flag (value v)
{
    return is_given (v) && jinja_truth (v);
}

/* sorted () takes its `reverse` as an int. */
static bool reverse_flag (render *r, value v, bool *out)
{
    *out = is_int (v) && int_of (v) != 0;
    return !is_given (v) || is_int (v) ||
           jinja_fail (r, "'%s' object cannot be interpreted as an integer", jinja_type_name (v));
}

/* A list of its own, to be rearranged. */
static bool copied_list (render *r, value v, value **items, uint32_t *count)
{
    value list;
    if (!jinja_list_of (r, v, &list))
        return false;
    *items = jinja_new (r, list.length, sizeof **items);
    *count = list.length;
    if (*items && list.length)
        memcpy (*items, list.as.items, list.length * sizeof **items);
    return *items && jinja_charge (r, list.length * sizeof **items);
}

static bool ignore_case (render *r, value v, value *out)
{
    const arguments none = {0};
    *out = v;
    return !is_text (v) || jinja_call_native (r, "filter", jinja_find_text_method ("lower", 5), v, &none, out);
}

/* What an item is compared by: its attribute, in lower case unless `case_sensitive`. */
static bool key_of (render *r, value item, value attribute, value fallback, bool case_sensitive, value *out)
{
    return jinja_attribute_path (r, item, attribute, fallback, out) && (case_sensitive || ignore_case (r, *out, out));
}

static const value not_given = {.kind = VALUE_MISSING};

/* -- Generators -------------------------------------------------------------------------------- */

enum { MODE_MAP, MODE_SELECT, MODE_REJECT };

/* Python evaluates `if value:` when the generator is first asked. */
static bool start_source (render *r, iterator *it, bool *empty)
{
    *empty = !it->inner && !jinja_truth (it->source);
    return *empty || it->inner || jinja_iterate (r, it->source, &it->inner);
}

static bool next_mapped (render *r, iterator *it, value *out, bool *more)
{
    value item;
    bool empty;
    if (!start_source (r, it, &empty))
        return false;
    *more = false;
    if (empty)
        return true;
    if (!jinja_next (r, it->inner, &item, more))
        return false;
    if (!*more)
        return true;
    return it->call ? jinja_call_native (r, "filter", it->call, item, it->call_arguments, out)
                    : jinja_attribute_path (r, item, it->attribute, it->fallback, out);
}

static bool next_selected (render *r, iterator *it, value *out, bool *more)
{
    value looked_at, verdict;
    bool empty;
    if (!start_source (r, it, &empty))
        return false;
    *more = false;
    while (!empty) {
        if (!jinja_next (r, it->inner, out, more))
            return false;
        if (!*more)
            break;
        if (!jinja_attribute_path (r, *out, it->attribute, not_given, &looked_at))
            return false;
        verdict = looked_at;
        if (it->call && !jinja_call_native (r, "test", it->call, looked_at, it->call_arguments, &verdict))
            return false;
        if (jinja_truth (verdict) == (it->mode == MODE_SELECT))
            break;
    }
    return true;
}

/* The arguments behind the first `skipped` positional ones. */
static const arguments *rest_of (render *r, const arguments *call, uint32_t skipped)
{
    arguments *rest = jinja_new (r, 1, sizeof *rest);
    if (rest) {
        *rest = *call;
        rest->positional += skipped;
        rest->n_positional -= skipped;
    }
    return rest;
}

/* A filter or test that a template names in a text; fails when the generator runs, as Jinja does. */
static bool fail_when_run (render *r, value self, const value *args, const arguments *call, value *out)
{
    (void) self, (void) args, (void) call, (void) out;
    return jinja_fail (r, "a filter such as map or select wants the name of a filter or test, and this is none");
}

static const callable unknown = {"unknown", NULL, 0, fail_when_run};

static bool attribute_mapping (render *r, iterator *it, const arguments *call)
{
    it->fallback = value_none ();
    for (uint32_t i = 0; i < call->n_named; i++) {
        value name = call->named[i].name;
        if (text_is (name, "attribute"))
            it->attribute = call->named[i].item;
        else if (text_is (name, "default"))
            it->fallback = call->named[i].item;
        else
            return jinja_fail (r, "Unexpected keyword argument '%.*s'", (int) name.length, name.as.text);
    }
    return true;
}

static bool has_named (const arguments *call, const char *name)
{
    for (uint32_t i = 0; i < call->n_named; i++)
        if (text_is (call->named[i].name, name))
            return true;
    return false;
}

FILTER (filter_map)
{
    (void) args;
    iterator *it = jinja_new_iterator (r, next_mapped, self);
    if (!it)
        return false;
    *out = (value){.kind = VALUE_ITERATOR, .as.iterator = it};
    if (call->n_positional == 0 && has_named (call, "attribute"))
        return attribute_mapping (r, it, call);
    if (call->n_positional == 0) {
        it->call = &unknown;
        it->call_arguments = call;
        return true;
    }
    value name = call->positional[0];
    it->call = is_text (name) ? jinja_find_filter (name.as.text, name.length) : NULL;
    it->call = it->call ? it->call : &unknown;
    return (it->call_arguments = rest_of (r, call, 1)) != NULL;
}

static bool select_items (render *r, value self, const arguments *call, bool by_attribute, uint8_t mode, value *out)
{
    iterator *it = jinja_new_iterator (r, next_selected, self);
    if (!it)
        return false;
    it->mode = mode;
    *out = (value){.kind = VALUE_ITERATOR, .as.iterator = it};
    if (by_attribute && call->n_positional == 0)
        return jinja_fail (r, "Missing parameter for attribute name");
    it->attribute = by_attribute ? call->positional[0] : not_given;
    uint32_t at = by_attribute;
    if (call->n_positional <= at)
        return true;
    value name = call->positional[at];
    it->call = is_text (name) ? jinja_find_test (name.as.text, name.length) : NULL;
    it->call = it->call ? it->call : &unknown;
    return (it->call_arguments = rest_of (r, call, at + 1)) != NULL;
}

FILTER (filter_select)
{
    (void) args;
    return select_items (r, self, call, false, MODE_SELECT, out);
}

FILTER (filter_reject)
{
    (void) args;
    return select_items (r, self, call, false, MODE_REJECT, out);
}

FILTER (filter_selectattr)
{
    (void) args;
    return select_items (r, self, call, true, MODE_SELECT, out);
}

FILTER (filter_rejectattr)
{
    (void) args;
    return select_items (r, self, call, true, MODE_REJECT, out);
}

/* Whatever makes a list, made when it is first asked for: by then its arguments have to be out of the caller's
 * stack. */
static bool next_deferred (render *r, iterator *it, value *out, bool *more)
{
    value list;
    if (!it->inner && (!it->call->run (r, it->source, it->call_arguments->positional, it->call_arguments, &list) ||
                       !jinja_iterate (r, list, &it->inner)))
        return false;
    return jinja_next (r, it->inner, out, more);
}

static bool defer (render *r, value self, const value *args, const callable *make, value *out)
{
    iterator *it = jinja_new_iterator (r, next_deferred, self);
    arguments *call = jinja_new (r, 1, sizeof *call);
    value *kept = jinja_new (r, 2, sizeof *kept);
    if (!it || !call || !kept)
        return false;
    memcpy (kept, args, 2 * sizeof *kept);
    call->positional = kept;
    it->call = make;
    it->call_arguments = call;
    *out = (value){.kind = VALUE_ITERATOR, .as.iterator = it};
    return true;
}

/* A filter `name` that defers `name`_list, which takes at most two arguments. */
#define DEFERRED(name)                                              \
    FILTER (name)                                                   \
    {                                                               \
        static const callable make = {#name, NULL, 0, name##_list}; \
        (void) call;                                                \
        return defer (r, self, args, &make, out);                   \
    }

FILTER (filter_items_list)
{
    UNUSED;
    *out = value_sequence (VALUE_LIST, NULL, 0);
    if (self.kind == VALUE_UNDEFINED)
        return true;
    if (self.kind != VALUE_DICT)
        return jinja_fail (r, "Can only get item pairs from a mapping.");
    return jinja_list_of (r, (value){.kind = VALUE_VIEW, .flags = VIEW_ITEMS, .as.dict = self.as.dict}, out);
}
DEFERRED (filter_items)

FILTER (filter_unique_list)
{
    (void) call;
    iterator *it;
    value_list list = {0};
    value item, key, *seen;
    bool more;
    dict *keys = jinja_new_dict (r, 0);
    if (!keys || !jinja_iterate (r, self, &it))
        return false;
    for (;;) {
        if (!jinja_next (r, it, &item, &more))
            return false;
        if (!more)
            break;
        if (!key_of (r, item, args[1], not_given, flag (args[0]), &key) || !jinja_find (r, keys, key, &seen))
            return false;
        if (!seen && (!jinja_put (r, keys, key, value_none ()) || !jinja_append (r, &list, item)))
            return false;
    }
    *out = value_of_list (&list);
    return true;
}
DEFERRED (filter_unique)

static bool count_argument (render *r, value v, int64_t *out)
{
    if (v.kind == VALUE_UNDEFINED)
        return jinja_fail_undefined (r, v);
    if (!is_int (v))
        return jinja_fail (r, "'%s' object cannot be interpreted as an integer", jinja_type_name (v));
    *out = int_of (v);
    return true;
}

FILTER (filter_batch_list)
{
    (void) call;
    value list, fill = is_given (args[1]) ? args[1] : value_none ();
    value_list rows = {0};
    int64_t width;
    if (!jinja_list_of (r, self, &list) || !count_argument (r, args[0], &width))
        return false;
    if (width < 1)
        width = list.length ? (int64_t) list.length : 1; /* a row is only cut when it is exactly full */
    for (int64_t at = 0; at < list.length; at += width) {
        value row = value_sequence (VALUE_LIST, list.as.items + at,
                                    (size_t) (list.length - at < width ? list.length - at : width));
        if (fill.kind != VALUE_NONE && row.length < width) {
            value_list filled = {0};
            for (int64_t i = 0; i < width; i++)
                if (!jinja_append (r, &filled, i < row.length ? row.as.items[i] : fill))
                    return false;
            row = value_of_list (&filled);
        }
        if (!jinja_append (r, &rows, row))
            return false;
    }
    *out = value_of_list (&rows);
    return true;
}
DEFERRED (filter_batch)

FILTER (filter_slice_list)
{
    (void) call;
    value list, fill = is_given (args[1]) ? args[1] : value_none ();
    value_list columns = {0};
    int64_t n, offset = 0;
    if (!jinja_list_of (r, self, &list) || !count_argument (r, args[0], &n))
        return false;
    if (n == 0)
        return jinja_fail (r, "integer division or modulo by zero");
    for (int64_t i = 0; i < n; i++) {
        int64_t each = list.length / n, longer = list.length % n;
        int64_t start = offset + i * each;
        offset += i < longer;
        int64_t end = offset + (i + 1) * each;
        value column = value_sequence (VALUE_LIST, list.length ? list.as.items + start : NULL, (size_t) (end - start));
        if (fill.kind != VALUE_NONE && i >= longer) {
            value_list filled = {0};
            for (uint32_t k = 0; k <= column.length; k++)
                if (!jinja_append (r, &filled, k < column.length ? column.as.items[k] : fill))
                    return false;
            column = value_of_list (&filled);
        }
        if (!jinja_append (r, &columns, column))
            return false;
    }
    *out = value_of_list (&columns);
    return true;
}
DEFERRED (filter_slice)

/* -- Ends, order, sums ------------------------------------------------------------------------- */

FILTER (filter_first)
{
    UNUSED;
    iterator *it;
    bool more;
    if (!jinja_iterate (r, self, &it) || !jinja_next (r, it, out, &more))
        return false;
    if (!more)
        *out = value_undefined (UNDEFINED_HINT, "No first item, sequence was empty.", 34);
    return true;
}

FILTER (filter_last)
{
    UNUSED;
    value backwards;
    bool can, more;
    if (!jinja_reversed (r, self, &can, &backwards))
        return false;
    if (!can)
        return jinja_fail (r, "'%s' object is not reversible", jinja_type_name (self));
    if (!jinja_next (r, backwards.as.iterator, out, &more))
        return false;
    if (!more)
        *out = value_undefined (UNDEFINED_HINT, "No last item, sequence was empty.", 33);
    return true;
}

FILTER (filter_reverse)
{
    UNUSED;
    bool can;
    value *items;
    uint32_t count;
    if (is_text (self))
        return jinja_reversed_text (r, self, out);
    if (!jinja_reversed (r, self, &can, out))
        return false;
    if (can)
        return true;
    if (!jinja_can_iterate (self))
        return jinja_fail (r, "argument must be iterable");
    if (!copied_list (r, self, &items, &count))
        return false;
    for (uint32_t i = 0; i < count / 2; i++) {
        value kept = items[i];
        items[i] = items[count - 1 - i];
        items[count - 1 - i] = kept;
    }
    *out = value_sequence (VALUE_LIST, items, count);
    return true;
}

FILTER (filter_list)
{
    UNUSED;
    return jinja_list_of (r, self, out);
}

/* The list of an item's attributes "a,b": what sort compares. */
static bool sort_key (render *r, value item, value attribute, bool case_sensitive, value *out)
{
    value_list keys = {0};
    value key;
    if (!is_text (attribute)) {
        if (!key_of (r, item, attribute, not_given, case_sensitive, &key) || !jinja_append (r, &keys, key))
            return false;
    }
    for (uint32_t at = 0; is_text (attribute) && at <= attribute.length; at++) {
        uint32_t from = at;
        while (at < attribute.length && attribute.as.text[at] != ',')
            at++;
        value path = value_text (attribute.as.text + from, at - from, attribute.flags);
        if (!key_of (r, item, path, not_given, case_sensitive, &key) || !jinja_append (r, &keys, key))
            return false;
    }
    *out = value_of_list (&keys);
    return true;
}

FILTER (filter_sort)
{
    (void) call;
    value *items, *keys;
    uint32_t count;
    bool reverse;
    if (!reverse_flag (r, args[0], &reverse) || !copied_list (r, self, &items, &count) ||
        !(keys = jinja_new (r, count, sizeof *keys)))
        return false;
    for (uint32_t i = 0; i < count; i++)
        if (!sort_key (r, items[i], args[2], flag (args[1]), &keys[i]))
            return false;
    *out = value_sequence (VALUE_LIST, items, count);
    return jinja_sort (r, keys, items, count, reverse);
}

FILTER (filter_dictsort)
{
    (void) call;
    value *items, *keys, by = is_given (args[1]) ? args[1] : value_literal ("key");
    uint32_t count;
    bool reverse;
    if (!is_text (by) || (!text_is (by, "key") && !text_is (by, "value")))
        return jinja_fail (r, "You can only sort by either \"key\" or \"value\"");
    if (self.kind == VALUE_UNDEFINED)
        return jinja_fail_undefined (r, self);
    if (self.kind != VALUE_DICT)
        return jinja_fail (r, "'%s' object has no attribute 'items'", jinja_type_name (self));
    value pairs = {.kind = VALUE_VIEW, .flags = VIEW_ITEMS, .as.dict = self.as.dict};
    if (!reverse_flag (r, args[2], &reverse) || !copied_list (r, pairs, &items, &count) ||
        !(keys = jinja_new (r, count, sizeof *keys)))
        return false;
    for (uint32_t i = 0; i < count; i++) {
        value key = items[i].as.items[text_is (by, "key") ? 0 : 1];
        if (!key_of (r, key, value_none (), not_given, flag (args[0]), &keys[i]))
            return false;
    }
    *out = value_sequence (VALUE_LIST, items, count);
    return jinja_sort (r, keys, items, count, reverse);
}

FILTER (filter_groupby)
{
    (void) call;
    value *items, *keys, key;
    uint32_t count;
    value_list groups = {0};
    bool case_sensitive = flag (args[2]), same = false;
    if (!copied_list (r, self, &items, &count) || !(keys = jinja_new (r, count, sizeof *keys)))
        return false;
    for (uint32_t i = 0; i < count; i++)
        if (!key_of (r, items[i], args[0], args[1], case_sensitive, &keys[i]))
            return false;
    if (!jinja_sort (r, keys, items, count, false))
        return false;
    for (uint32_t from = 0, to; from < count; from = to) {
        for (to = from + 1; to < count; to++) {
            if (!jinja_equal (r, keys[from], keys[to], &same))
                return false;
            if (!same)
                break;
        }
        value *pair = jinja_new (r, 2, sizeof *pair);
        if (!pair || !jinja_attribute_path (r, items[from], args[0], args[1], &key))
            return false;
        pair[0] = case_sensitive ? keys[from] : key;
        pair[1] = value_sequence (VALUE_LIST, items + from, to - from);
        value group = value_sequence (VALUE_TUPLE, pair, 2);
        group.flags = TUPLE_GROUP;
        if (!jinja_append (r, &groups, group))
            return false;
    }
    *out = value_of_list (&groups);
    return true;
}

static bool extreme (render *r, value self, const value *args, const char *sign, value *out)
{
    iterator *it;
    value item, key, best_key = value_none ();
    bool more, unordered, has_best = false;
    int order;
    *out = value_undefined (UNDEFINED_HINT, "No aggregated item, sequence was empty.", 39);
    if (!jinja_iterate (r, self, &it))
        return false;
    for (;;) {
        if (!jinja_next (r, it, &item, &more))
            return false;
        if (!more)
            return true;
        if (!key_of (r, item, args[1], not_given, flag (args[0]), &key))
            return false;
        if (has_best && !jinja_order (r, key, best_key, sign, &order, &unordered))
            return false;
        if (has_best && (unordered || (*sign == '<' ? order >= 0 : order <= 0)))
            continue;
        has_best = true;
        best_key = key;
        *out = item;
    }
}

FILTER (filter_min)
{
    (void) call;
    return extreme (r, self, args, "<", out);
}

FILTER (filter_max)
{
    (void) call;
    return extreme (r, self, args, ">", out);
}

FILTER (filter_sum)
{
    (void) call;
    iterator *it;
    value item, sum = is_given (args[1]) ? args[1] : value_int (0);
    bool more, by_attribute = is_given (args[0]) && args[0].kind != VALUE_NONE;
    if (is_text (sum))
        return jinja_fail (r, "sum() can't sum strings [use ''.join(seq) instead]");
    if (!jinja_iterate (r, self, &it))
        return false;
    for (;;) {
        if (!jinja_next (r, it, &item, &more))
            return false;
        if (!more)
            break;
        if ((by_attribute && !jinja_attribute_path (r, item, args[0], not_given, &item)) ||
            !jinja_binary (r, OP_ADD, sum, item, &sum))
            return false;
    }
    *out = sum;
    return true;
}

FILTER (filter_join)
{
    (void) call;
    value list, separator = is_given (args[0]) ? args[0] : value_literal (""), item;
    bool by_attribute = is_given (args[1]) && args[1].kind != VALUE_NONE;
    if (!jinja_list_of (r, self, &list) || !jinja_to_text (r, separator, &separator))
        return false;
    bool escapes = false;
    for (uint32_t i = 0; r->autoescape && i < list.length; i++)
        escapes = escapes || (is_text (list.as.items[i]) && (list.as.items[i].flags & TEXT_MARKUP));
    escapes = escapes || (r->autoescape && (separator.flags & TEXT_MARKUP));
    size_t mark = jinja_capture (r);
    for (uint32_t i = 0; i < list.length; i++) {
        item = list.as.items[i];
        if (by_attribute && !jinja_attribute_path (r, item, args[1], not_given, &item))
            return false;
        if (i && !(escapes ? jinja_emit_escaped (r, separator) : jinja_emit_value (r, separator)))
            return false;
        if (!(escapes ? jinja_emit_escaped (r, item) : jinja_emit_value (r, item)))
            return false;
    }
    if (!jinja_capture_end (r, mark, out))
        return false;
    out->flags |= escapes ? TEXT_MARKUP : 0;
    return true;
}

static const callable filters[] = {
    {"batch", "linecount,fill_with", 1, filter_batch},
    {"dictsort", "case_sensitive,by,reverse", 0, filter_dictsort},
    {"first", "", 0, filter_first},
    {"groupby", "attribute,default,case_sensitive", 1, filter_groupby},
    {"items", "", 0, filter_items},
    {"join", "d,attribute", 0, filter_join},
    {"last", "", 0, filter_last},
    {"list", "", 0, filter_list},
    {"map", NULL, 0, filter_map},
    {"max", "case_sensitive,attribute", 0, filter_max},
    {"min", "case_sensitive,attribute", 0, filter_min},
    {"reject", NULL, 0, filter_reject},
    {"rejectattr", NULL, 0, filter_rejectattr},
    {"reverse", "", 0, filter_reverse},
    {"select", NULL, 0, filter_select},
    {"selectattr", NULL, 0, filter_selectattr},
    {"slice", "slices,fill_with", 1, filter_slice},
    {"sort", "reverse,case_sensitive,attribute", 0, filter_sort},
    {"sum", "attribute,start", 0, filter_sum},
    {"unique", "case_sensitive,attribute", 0, filter_unique},
};

const callable *jinja_find_sequence_filter (const char *name, size_t length)
{
    return jinja_find_in (filters, sizeof filters / sizeof filters[0], name, length);
}
