/* Values as Python sees them: types, truth, equality, order, keys of dicts. */
#include "template_private.h"

#include <math.h>

const char *jinja_type_name (value v)
{
    switch ((value_kind) v.kind) {
    case VALUE_MISSING:
    case VALUE_UNDEFINED:
        return "Undefined";
    case VALUE_NONE:
        return "NoneType";
    case VALUE_BOOL:
        return "bool";
    case VALUE_INT:
        return "int";
    case VALUE_FLOAT:
        return "float";
    case VALUE_TEXT:
        return v.flags & TEXT_MARKUP ? "Markup" : "str";
    case VALUE_LIST:
        return "list";
    case VALUE_TUPLE:
        return "tuple";
    case VALUE_DICT:
        return "dict";
    case VALUE_VIEW:
        return v.flags == VIEW_KEYS ? "dict_keys" : v.flags == VIEW_VALUES ? "dict_values" : "dict_items";
    case VALUE_RANGE:
        return "range";
    case VALUE_ITERATOR:
        return v.as.iterator ? v.as.iterator->name : "generator";
    case VALUE_NAMESPACE:
        return "Namespace";
    case VALUE_LOOP:
        return "LoopContext";
    case VALUE_MACRO:
        return "Macro";
    case VALUE_FUNCTION:
        return "function";
    case VALUE_METHOD:
        return "builtin_function_or_method";
    case VALUE_CYCLER:
        return "Cycler";
    case VALUE_JOINER:
        return "Joiner";
    case VALUE_SELF:
        return "TemplateReference";
    case VALUE_BLOCK:
        return "BlockReference";
    }
    return "object";
}

bool jinja_truth (value v)
{
    switch ((value_kind) v.kind) {
    case VALUE_MISSING:
    case VALUE_UNDEFINED:
    case VALUE_NONE:
        return false;
    case VALUE_BOOL:
        return v.as.truth;
    case VALUE_INT:
        return v.as.integer != 0;
    case VALUE_FLOAT:
        return v.as.real != 0;
    case VALUE_TEXT:
    case VALUE_LIST:
    case VALUE_TUPLE:
        return v.length != 0;
    case VALUE_DICT:
    case VALUE_VIEW:
        return v.as.dict->count != 0;
    case VALUE_RANGE:
        return v.as.range->count != 0;
    default:
        return true;
    }
}

/* Whether two values that are the same object in Python. Small things that CPython shares (numbers, texts) count as
 * the same. */
bool jinja_same (value a, value b)
{
    if (a.kind != b.kind)
        return false;
    switch ((value_kind) a.kind) {
    case VALUE_NONE:
        return true;
    case VALUE_BOOL:
        return a.as.truth == b.as.truth;
    case VALUE_INT:
        return a.as.integer == b.as.integer;
    case VALUE_FLOAT:
        return a.as.real == b.as.real;
    case VALUE_TEXT:
        return a.length == b.length && memcmp (a.as.text, b.as.text, a.length) == 0;
    case VALUE_LIST:
    case VALUE_TUPLE:
        return a.length == b.length && a.as.items == b.as.items;
    case VALUE_METHOD:
        return a.as.method == b.as.method;
    default:
        return a.as.dict == b.as.dict && a.flags == b.flags;
    }
}

/* -- Equality and order ------------------------------------------------------------------------ */

static int order_int_real (int64_t i, double d)
{
    if (d >= 0x1p63)
        return -1;
    if (d < -0x1p63)
        return 1;
    int64_t whole = (int64_t) d;
    if (i != whole)
        return i < whole ? -1 : 1;
    double rest = d - (double) whole;
    return rest > 0 ? -1 : rest < 0 ? 1 : 0;
}

/* Exactly, as Python does: an int is not rounded to compare with a float. */
static int order_numbers (value a, value b, bool *unordered)
{
    *unordered = (a.kind == VALUE_FLOAT && isnan (a.as.real)) || (b.kind == VALUE_FLOAT && isnan (b.as.real));
    if (*unordered)
        return 1;
    if (a.kind == VALUE_FLOAT && b.kind == VALUE_FLOAT)
        return a.as.real < b.as.real ? -1 : a.as.real > b.as.real;
    if (a.kind == VALUE_FLOAT)
        return -order_int_real (int_of (b), a.as.real);
    if (b.kind == VALUE_FLOAT)
        return order_int_real (int_of (a), b.as.real);
    return int_of (a) < int_of (b) ? -1 : int_of (a) > int_of (b);
}

static int order_texts (value a, value b)
{
    uint32_t shorter = a.length < b.length ? a.length : b.length;
    int order = shorter ? memcmp (a.as.text, b.as.text, shorter) : 0; /* UTF-8 keeps the order of code points */
    return order ? order : a.length < b.length ? -1 : a.length > b.length;
}

static bool equal_dicts (render *r, dict *a, dict *b, bool *out)
{
    *out = a->count == b->count;
    for (uint32_t i = 0; i < a->count && *out; i++) {
        value *other;
        if (!jinja_find (r, b, a->entries[i].key, &other))
            return false;
        if (!other)
            *out = false;
        else if (!jinja_equal (r, a->entries[i].item, *other, out))
            return false;
    }
    return true;
}

static bool equal_ranges (const range *a, const range *b)
{
    return a->count == b->count && (a->count == 0 || (a->start == b->start && (a->count == 1 || a->step == b->step)));
}

bool jinja_equal (render *r, value a, value b, bool *out)
{
    bool unordered;
    *out = false;
    if (is_number (a) && is_number (b)) {
        *out = order_numbers (a, b, &unordered) == 0;
        return jinja_charge (r, 0);
    }
    if (a.kind != b.kind)
        return true;
    switch ((value_kind) a.kind) {
    case VALUE_UNDEFINED:
        *out = true;
        return true;
    case VALUE_TEXT:
        *out = a.length == b.length && memcmp (a.as.text, b.as.text, a.length) == 0;
        return jinja_charge (r, *out ? a.length : 0);
    case VALUE_LIST:
    case VALUE_TUPLE:
        if (a.length != b.length)
            return true;
        if (!jinja_enter (r))
            return false;
        *out = true;
        for (uint32_t i = 0; i < a.length && *out; i++)
            if (!jinja_equal (r, a.as.items[i], b.as.items[i], out))
                return false;
        jinja_leave (r);
        return jinja_charge (r, 0);
    case VALUE_DICT:
        if (!jinja_enter (r) || !equal_dicts (r, a.as.dict, b.as.dict, out))
            return false;
        jinja_leave (r);
        return jinja_charge (r, 0);
    case VALUE_RANGE:
        *out = equal_ranges (a.as.range, b.as.range);
        return true;
    default:
        *out = jinja_same (a, b);
        return true;
    }
}

bool jinja_order (render *r, value a, value b, const char *sign, int *out, bool *unordered)
{
    *unordered = false;
    if (is_number (a) && is_number (b)) {
        *out = order_numbers (a, b, unordered);
        return jinja_charge (r, 0);
    }
    if (is_text (a) && is_text (b)) {
        *out = order_texts (a, b);
        return jinja_charge (r, a.length < b.length ? a.length : b.length);
    }
    if (a.kind == VALUE_UNDEFINED || b.kind == VALUE_UNDEFINED)
        return jinja_fail_undefined (r, a.kind == VALUE_UNDEFINED ? a : b);
    if (!is_sequence (a) || a.kind != b.kind)
        return jinja_fail (r, "'%s' not supported between instances of '%s' and '%s'", sign, jinja_type_name (a),
                           jinja_type_name (b));
    if (!jinja_enter (r))
        return false;
    uint32_t i = 0;
    for (bool equal = true; i < a.length && i < b.length; i++) {
        if (!jinja_equal (r, a.as.items[i], b.as.items[i], &equal))
            return false;
        if (!equal)
            break;
    }
    if (i < a.length && i < b.length) {
        if (!jinja_order (r, a.as.items[i], b.as.items[i], sign, out, unordered))
            return false;
    } else {
        *out = a.length < b.length ? -1 : a.length > b.length;
    }
    jinja_leave (r);
    return jinja_charge (r, 0);
}

/* Merges two sorted halves of numbers[low..high). */
static bool merge (render *r, const value *keys, uint32_t *numbers, uint32_t *spare, uint32_t low, uint32_t middle,
                   uint32_t high, bool reverse)
{
    uint32_t left = low, right = middle, to = low;
    while (left < middle && right < high) {
        int order;
        bool unordered;
        if (!jinja_order (r, keys[numbers[right]], keys[numbers[left]], "<", &order, &unordered))
            return false;
        bool take_right = !unordered && (reverse ? order > 0 : order < 0);
        spare[to++] = take_right ? numbers[right++] : numbers[left++];
    }
    while (left < middle)
        spare[to++] = numbers[left++];
    while (right < high)
        spare[to++] = numbers[right++];
    memcpy (numbers + low, spare + low, (high - low) * sizeof *numbers);
    return true;
}

bool jinja_sort (render *r, value *keys, value *items, uint32_t count, bool reverse)
{
    uint32_t *numbers = jinja_new (r, count, sizeof *numbers), *spare = jinja_new (r, count, sizeof *spare);
    value *copy = jinja_new (r, count, sizeof *copy);
    if (!numbers || !spare || !copy)
        return false;
    for (uint32_t i = 0; i < count; i++)
        numbers[i] = i;
    for (uint32_t width = 1; width < count; width *= 2)
        for (uint32_t low = 0; low + width < count; low += 2 * width) {
            uint32_t high = count - low > 2 * width ? low + 2 * width : count;
            if (!merge (r, keys, numbers, spare, low, low + width, high, reverse))
                return false;
        }
    if (count)
        memcpy (copy, items, count * sizeof *copy);
    for (uint32_t i = 0; i < count; i++)
        items[i] = copy[numbers[i]];
    for (uint32_t i = 0; i < count; i++)
        copy[i] = keys[i];
    for (uint32_t i = 0; i < count; i++)
        keys[i] = copy[numbers[i]];
    return true;
}

/* -- Undefined --------------------------------------------------------------------------------- */

/* What Jinja calls the type in messages. */
static const char *object_name (uint16_t kind)
{
    return kind == VALUE_NONE ? "None" : jinja_type_name (value_of_kind (kind));
}

bool jinja_undefined_message (render *r, value u, value *out)
{
    size_t mark = jinja_capture (r);
    const char *object = object_name (u.detail), *suffix = u.detail == VALUE_NONE ? "" : " object";
    bool ok;
    if (u.flags == UNDEFINED_ELEMENT) {
        ok = jinja_emit_format (r, "%s%s has no element %lld", object, suffix, (long long) u.as.integer);
        return ok && jinja_capture_end (r, mark, out);
    }
    value name = value_text (u.as.text, u.length, 0);
    switch (u.flags) {
    case UNDEFINED_NAME:
        ok = jinja_emit_repr (r, name) && jinja_emit_literal (r, " is undefined");
        break;
    case UNDEFINED_ATTRIBUTE:
        ok = jinja_emit_format (r, "'%s%s' has no attribute ", object, suffix) && jinja_emit_repr (r, name);
        break;
    case UNDEFINED_UNSAFE:
        ok = jinja_emit_literal (r, "access to attribute ") && jinja_emit_repr (r, name) &&
             jinja_emit_format (r, " of '%s' object is unsafe.", jinja_type_name (value_of_kind (u.detail)));
        break;
    case UNDEFINED_PARAMETER:
        ok = jinja_emit_literal (r, "parameter ") && jinja_emit_repr (r, name) &&
             jinja_emit_literal (r, " was not provided");
        break;
    default:
        ok = jinja_emit (r, name.as.text, name.length);
        break;
    }
    return ok && jinja_capture_end (r, mark, out);
}

void jinja_report_undefined (render *r, value u)
{
    value message;
    if (jinja_undefined_message (r, u, &message))
        jinja_report (r, "%.*s", (int) message.length, message.as.text);
}

/* -- Dicts ------------------------------------------------------------------------------------- */

enum { SEARCHED_IN_ORDER = 8 }; /* entries up to which a dict needs no index */

dict *jinja_new_dict (render *r, size_t room)
{
    dict *d = jinja_new (r, 1, sizeof *d);
    if (!d)
        return NULL;
    if (room > 0) {
        d->entries = jinja_new (r, room, sizeof *d->entries);
        if (!d->entries)
            return NULL;
    }
    d->room = (uint32_t) room;
    return d;
}

static bool hashable_at (value v, unsigned depth)
{
    if (v.kind == VALUE_LIST || v.kind == VALUE_DICT || (v.kind == VALUE_VIEW && v.flags != VIEW_VALUES) || depth > 50)
        return false;
    for (uint32_t i = 0; v.kind == VALUE_TUPLE && i < v.length; i++)
        if (!hashable_at (v.as.items[i], depth + 1))
            return false;
    return true;
}

bool jinja_hashable (value v)
{
    return hashable_at (v, 0);
}

static uint64_t mix (uint64_t hash, uint64_t more)
{
    hash = (hash ^ more) * 0x9e3779b97f4a7c15u;
    return hash ^ hash >> 29;
}

/* Equal keys hash alike: 1, 1.0 and True. Of hashable values only. */
static uint64_t hash_of (value v)
{
    uint64_t hash = 0;
    switch ((value_kind) v.kind) {
    case VALUE_BOOL:
    case VALUE_INT:
        return mix (1, (uint64_t) int_of (v));
    case VALUE_FLOAT:
        if (v.as.real >= -0x1p63 && v.as.real < 0x1p63 && v.as.real == floor (v.as.real))
            return mix (1, (uint64_t) (int64_t) v.as.real);
        memcpy (&hash, &v.as.real, sizeof hash);
        return mix (2, hash);
    case VALUE_TEXT:
        for (uint32_t i = 0; i < v.length; i += 8) {
            uint64_t word = 0;
            memcpy (&word, v.as.text + i, v.length - i < 8 ? v.length - i : 8);
            hash = mix (hash, word);
        }
        return mix (hash, v.length);
    case VALUE_TUPLE:
        for (uint32_t i = 0; i < v.length; i++)
            hash = mix (hash, hash_of (v.as.items[i]));
        return mix (hash, v.length);
    default:
        return mix (3, v.kind);
    }
}

static bool same_key (render *r, value a, value b, bool *out)
{
    if (is_text (a) && is_text (b)) {
        *out = a.length == b.length && memcmp (a.as.text, b.as.text, a.length) == 0;
        return true;
    }
    return jinja_equal (r, a, b, out);
}

/* Every step is charged: keys may be chosen to collide. */
static bool index_entry (render *r, dict *d, uint32_t number)
{
    uint32_t at = (uint32_t) hash_of (d->entries[number].key) & (d->index_room - 1);
    size_t n_steps = 0;
    for (; d->index[at]; n_steps++)
        at = (at + 1) & (d->index_room - 1);
    d->index[at] = number + 1;
    return jinja_charge (r, n_steps * 64);
}

static bool make_index (render *r, dict *d)
{
    uint32_t room = 32;
    while (room < d->count * 2)
        room *= 2;
    d->index = jinja_new (r, room, sizeof *d->index);
    if (!d->index)
        return false;
    d->index_room = room;
    for (uint32_t i = 0; i < d->count; i++)
        if (!index_entry (r, d, i))
            return false;
    return true;
}

bool jinja_find (render *r, dict *d, value key, value **found)
{
    bool same = false;
    *found = NULL;
    if (!jinja_hashable (key))
        return jinja_fail (r, "unhashable type: '%s'", jinja_type_name (key));
    if (d->count <= SEARCHED_IN_ORDER) {
        for (uint32_t i = 0; i < d->count; i++) {
            if (!same_key (r, d->entries[i].key, key, &same))
                return false;
            if (same) {
                *found = &d->entries[i].item;
                break;
            }
        }
        return jinja_charge (r, key.kind == VALUE_TEXT ? key.length : 0);
    }
    if (d->index_room < d->count * 2 && !make_index (r, d))
        return false;
    uint32_t at = (uint32_t) hash_of (key) & (d->index_room - 1);
    for (; d->index[at]; at = (at + 1) & (d->index_room - 1)) {
        entry *e = &d->entries[d->index[at] - 1];
        if (!same_key (r, e->key, key, &same) || !jinja_charge (r, 0))
            return false;
        if (same) {
            *found = &e->item;
            break;
        }
    }
    return jinja_charge (r, key.kind == VALUE_TEXT ? key.length : 0);
}

value *jinja_find_literal (render *r, dict *d, const char *key)
{
    value *found;
    return jinja_find (r, d, value_literal (key), &found) ? found : NULL;
}

bool jinja_put (render *r, dict *d, value key, value item)
{
    value *found;
    if (!jinja_find (r, d, key, &found))
        return false;
    if (found) {
        *found = item;
        return true;
    }
    if (d->count == d->room) {
        uint32_t room = d->room ? d->room * 2 : 8;
        entry *entries = jinja_new (r, room, sizeof *entries);
        if (!entries)
            return false;
        if (d->count)
            memcpy (entries, d->entries, d->count * sizeof *entries);
        d->entries = entries;
        d->room = room;
    }
    d->entries[d->count++] = (entry){key, item};
    if (d->index_room >= d->count * 2)
        return index_entry (r, d, d->count - 1);
    d->index_room = 0; /* made anew, larger, when next searched */
    return true;
}

/* Two items of `pair`, which may be any iterable. */
static bool split_pair (render *r, value pair, uint32_t number, value *key, value *item)
{
    value list;
    if (!jinja_can_iterate (pair))
        return jinja_fail (r, "cannot convert dictionary update sequence element #%u to a sequence", number);
    if (!jinja_list_of (r, pair, &list))
        return false;
    if (list.length != 2)
        return jinja_fail (r, "dictionary update sequence element #%u has length %u; 2 is required", number,
                           list.length);
    *key = list.as.items[0];
    *item = list.as.items[1];
    return true;
}

bool jinja_fill_dict (render *r, dict *d, const char *function, const arguments *call)
{
    if (call->n_positional > 1)
        return jinja_fail (r, "%s expected at most 1 argument, got %u", function, call->n_positional);
    if (call->n_positional == 1 && call->positional[0].kind == VALUE_DICT) {
        const dict *from = call->positional[0].as.dict;
        for (uint32_t i = 0; i < from->count; i++)
            if (!jinja_put (r, d, from->entries[i].key, from->entries[i].item))
                return false;
    } else if (call->n_positional == 1) {
        iterator *it;
        value pair, key, item;
        bool more;
        if (!jinja_iterate (r, call->positional[0], &it))
            return false;
        for (uint32_t i = 0;; i++) {
            if (!jinja_next (r, it, &pair, &more))
                return false;
            if (!more)
                break;
            if (!split_pair (r, pair, i, &key, &item) || !jinja_put (r, d, key, item))
                return false;
        }
    }
    for (uint32_t i = 0; i < call->n_named; i++)
        if (!jinja_put (r, d, call->named[i].name, call->named[i].item))
            return false;
    return true;
}
