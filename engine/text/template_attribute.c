/* x.name and x[index], as Jinja's sandbox lets templates see them.
 *
 * A dot asks Python's own attributes first (methods: so {}.items is the method even where there is a key "items"),
 * then the item; brackets the other way round. What is not there is undefined, not an error. Attributes with a
 * leading underscore, and methods that would change a list or a dict, are undefined too, and say so when they are
 * used. */
#include "template_private.h"

/* -- Methods of lists, tuples, dicts, ranges, numbers ------------------------------------------ */

static bool sequence_count (render *r, value self, const value *args, const arguments *call, value *out)
{
    (void) call;
    int64_t n = 0;
    bool same;
    if (!jinja_list_of (r, self, &self))
        return false;
    for (uint32_t i = 0; i < self.length; i++) {
        if (!jinja_equal (r, self.as.items[i], args[0], &same))
            return false;
        n += same;
    }
    *out = value_int (n);
    return true;
}

static bool sequence_index (render *r, value self, const value *args, const arguments *call, value *out)
{
    (void) call;
    int64_t first, last;
    bool same;
    const char *type = jinja_type_name (self);
    if (!jinja_list_of (r, self, &self))
        return false;
    if (!jinja_clamp_index (r, args[1], self.length, 0, 0, self.length, &first) ||
        !jinja_clamp_index (r, args[2], self.length, self.length, 0, self.length, &last))
        return false;
    for (int64_t i = first; i < last; i++) {
        if (!jinja_equal (r, self.as.items[i], args[0], &same))
            return false;
        if (same) {
            *out = value_int (i);
            return true;
        }
    }
    return jinja_fail (r, "%s.index(x): x not in %s", type, type);
}

static bool copy_self (render *r, value self, const value *args, const arguments *call, value *out)
{
    (void) args, (void) call;
    *out = self; /* nothing can change it */
    return jinja_charge (r, 0);
}

static bool dict_get (render *r, value self, const value *args, const arguments *call, value *out)
{
    (void) call;
    value *found;
    if (!jinja_find (r, self.as.dict, args[0], &found))
        return false;
    *out = found ? *found : is_given (args[1]) ? args[1] : value_none ();
    return true;
}

static bool dict_view (render *r, value self, uint8_t which, value *out)
{
    *out = (value){.kind = VALUE_VIEW, .flags = which, .as.dict = self.as.dict};
    return jinja_charge (r, 0);
}

static bool dict_keys (render *r, value self, const value *args, const arguments *call, value *out)
{
    (void) args, (void) call;
    return dict_view (r, self, VIEW_KEYS, out);
}

static bool dict_values (render *r, value self, const value *args, const arguments *call, value *out)
{
    (void) args, (void) call;
    return dict_view (r, self, VIEW_VALUES, out);
}

static bool dict_items (render *r, value self, const value *args, const arguments *call, value *out)
{
    (void) args, (void) call;
    return dict_view (r, self, VIEW_ITEMS, out);
}

static bool dict_fromkeys (render *r, value self, const value *args, const arguments *call, value *out)
{
    (void) self, (void) call;
    iterator *it;
    value key;
    bool more;
    dict *d = jinja_new_dict (r, 0);
    if (!d || !jinja_iterate (r, args[0], &it))
        return false;
    for (;;) {
        if (!jinja_next (r, it, &key, &more))
            return false;
        if (!more)
            break;
        if (!jinja_put (r, d, key, is_given (args[1]) ? args[1] : value_none ()))
            return false;
    }
    *out = (value){.kind = VALUE_DICT, .as.dict = d};
    return true;
}

static bool float_is_integer (render *r, value self, const value *args, const arguments *call, value *out)
{
    (void) args, (void) call;
    *out = value_bool (self.as.real - self.as.real == 0 && (self.as.real >= 0x1p62 || self.as.real <= -0x1p62 ||
                                                            self.as.real == (double) (int64_t) self.as.real));
    return jinja_charge (r, 0);
}

static bool int_bit_length (render *r, value self, const value *args, const arguments *call, value *out)
{
    (void) args, (void) call;
    int64_t n = 0;
    uint64_t magnitude = int_of (self) < 0 ? -(uint64_t) int_of (self) : (uint64_t) int_of (self);
    for (; magnitude; magnitude >>= 1)
        n++;
    *out = value_int (n);
    return jinja_charge (r, 0);
}

static const callable list_methods[] = {
    {"count", "/value", 1, sequence_count},
    {"index", "/value,start,stop", 1, sequence_index},
    {"copy", "", 0, copy_self},
};
static const callable dict_methods[] = {
    {"get", "/key,default", 1, dict_get}, {"items", "", 0, dict_items},
    {"keys", "", 0, dict_keys},           {"values", "", 0, dict_values},
    {"copy", "", 0, copy_self},           {"fromkeys", "/iterable,value", 1, dict_fromkeys},
};
static const callable float_methods[] = {{"is_integer", "", 0, float_is_integer}};
static const callable int_methods[] = {{"bit_length", "", 0, int_bit_length}};

/* -- Objects of Jinja's own -------------------------------------------------------------------- */

static bool cycler_next (render *r, value self, const value *args, const arguments *call, value *out)
{
    (void) args, (void) call;
    cycler *c = self.as.cycler;
    *out = c->items[c->position];
    c->position = (c->position + 1) % c->count;
    return jinja_charge (r, 0);
}

static bool cycler_reset (render *r, value self, const value *args, const arguments *call, value *out)
{
    (void) args, (void) call;
    self.as.cycler->position = 0;
    *out = value_none ();
    return jinja_charge (r, 0);
}

static bool loop_cycle (render *r, value self, const value *args, const arguments *call, value *out)
{
    (void) args;
    if (call->n_positional == 0 || call->n_named)
        return jinja_fail (r, "no items for cycling given");
    *out = call->positional[self.as.loop->index0 % call->n_positional];
    return jinja_charge (r, 0);
}

static bool loop_changed (render *r, value self, const value *args, const arguments *call, value *out)
{
    (void) args;
    loop_state *loop = self.as.loop;
    value now = value_sequence (VALUE_TUPLE, call->positional, call->n_positional);
    bool same = false;
    if (call->n_named)
        return jinja_fail (r, "changed() takes no keyword arguments");
    if (loop->has_changed_value && !jinja_equal (r, loop->changed_value, now, &same))
        return false;
    loop->changed_value = now; /* arguments live as long as the render */
    loop->has_changed_value = true;
    *out = value_bool (!same);
    return true;
}

static const callable cycler_methods[] = {{"next", "", 0, cycler_next}, {"reset", "", 0, cycler_reset}};
static const callable loop_methods[] = {{"cycle", NULL, 0, loop_cycle}, {"changed", NULL, 0, loop_changed}};

static bool loop_attribute (render *r, loop_state *loop, value name, value *out, bool *found)
{
    int64_t length;
    value next;
    *found = true;
    if (text_is (name, "index0") || text_is (name, "index")) {
        *out = value_int (loop->index0 + (name.length == 5));
    } else if (text_is (name, "first")) {
        *out = value_bool (loop->index0 == 0);
    } else if (text_is (name, "last") || text_is (name, "nextitem")) {
        if (!jinja_loop_peek (r, loop, &next))
            return false;
        *out = name.length == 4  ? value_bool (!is_given (next))
               : is_given (next) ? next
                                 : value_undefined (UNDEFINED_HINT, "there is no next item", 21);
    } else if (text_is (name, "previtem")) {
        *out = loop->index0 > 0 ? loop->before : value_undefined (UNDEFINED_HINT, "there is no previous item", 25);
    } else if (text_is (name, "length") || text_is (name, "revindex") || text_is (name, "revindex0")) {
        if (!jinja_loop_length (r, loop, &length))
            return false;
        *out = value_int (name.length == 6 ? length : length - loop->index0 - (name.length == 9));
    } else if (text_is (name, "depth0") || text_is (name, "depth")) {
        *out = value_int (loop->depth0 + (name.length == 5));
    } else {
        *found = false;
    }
    return true;
}

static bool macro_attribute (render *r, const macro *m, value name, value *out, bool *found)
{
    const node *n = m->node;
    *found = true;
    if (text_is (name, "name")) {
        *out = m->name;
    } else if (text_is (name, "caller")) {
        *out = value_bool (n->flags & MACRO_CALLER);
    } else if (text_is (name, "catch_kwargs")) {
        *out = value_bool (n->flags & MACRO_KWARGS);
    } else if (text_is (name, "catch_varargs")) {
        *out = value_bool (n->flags & MACRO_VARARGS);
    } else if (text_is (name, "arguments")) {
        value_list list = {0};
        for (uint32_t i = 0; i < n->items.count; i++)
            if (!jinja_append (r, &list, n->items.items[i]->constant))
                return false;
        *out = value_sequence (VALUE_TUPLE, list.items, list.count);
    } else {
        *found = false;
    }
    return true;
}

static bool other_attribute (render *r, value object, value name, value *out, bool *found)
{
    *found = true;
    if (object.kind == VALUE_CYCLER && text_is (name, "current"))
        *out = object.as.cycler->items[object.as.cycler->position];
    else if (object.kind == VALUE_RANGE && text_is (name, "start"))
        *out = value_int (object.as.range->start);
    else if (object.kind == VALUE_RANGE && text_is (name, "stop"))
        *out = value_int (object.as.range->stop);
    else if (object.kind == VALUE_RANGE && text_is (name, "step"))
        *out = value_int (object.as.range->step);
    else if (object.kind == VALUE_TUPLE && (object.flags & TUPLE_GROUP) && text_is (name, "grouper"))
        *out = object.as.items[0];
    else if (object.kind == VALUE_TUPLE && (object.flags & TUPLE_GROUP) && text_is (name, "list"))
        *out = object.as.items[1];
    else if (object.kind == VALUE_SELF) {
        *found = false;
        for (uint32_t i = 0; i < r->tmpl->n_blocks && !*found; i++) {
            const node *block = r->tmpl->blocks[i];
            *found = block->constant.length == name.length &&
                     memcmp (block->constant.as.text, name.as.text, name.length) == 0;
            if (*found)
                *out = (value){.kind = VALUE_BLOCK, .as.block = block};
        }
    } else if (is_number (object) && (text_is (name, "real") || text_is (name, "numerator")))
        *out = is_int (object) ? value_int (int_of (object)) : object;
    else if (is_number (object) && text_is (name, "imag"))
        *out = object.kind == VALUE_FLOAT ? value_float (0) : value_int (0);
    else
        *found = false;
    return true;
}

/* -- What Python objects have ------------------------------------------------------------------ */

#define N_OF(table) (sizeof (table) / sizeof (table)[0])

const callable *jinja_find_in (const callable *table, size_t count, const char *name, size_t length)
{
    for (size_t i = 0; i < count; i++)
        if (strlen (table[i].name) == length && memcmp (table[i].name, name, length) == 0)
            return &table[i];
    return NULL;
}

static const callable *find_method (value object, value name)
{
    const char *text = name.as.text;
    size_t length = name.length;
    switch ((value_kind) object.kind) {
    case VALUE_TEXT:
        return jinja_find_text_method (text, length);
    case VALUE_LIST:
        return jinja_find_in (list_methods, N_OF (list_methods), text, length);
    case VALUE_TUPLE:
    case VALUE_RANGE:
        return jinja_find_in (list_methods, N_OF (list_methods) - 1, text, length); /* no copy */
    case VALUE_DICT:
        return jinja_find_in (dict_methods, N_OF (dict_methods), text, length);
    case VALUE_FLOAT:
        return jinja_find_in (float_methods, N_OF (float_methods), text, length);
    case VALUE_INT:
    case VALUE_BOOL:
        return jinja_find_in (int_methods, N_OF (int_methods), text, length);
    case VALUE_CYCLER:
        return jinja_find_in (cycler_methods, N_OF (cycler_methods), text, length);
    case VALUE_LOOP:
        return jinja_find_in (loop_methods, N_OF (loop_methods), text, length);
    default:
        return NULL;
    }
}

static bool is_one_of (value name, const char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (text_is (name, names[i]))
            return true;
    return false;
}

/* Attributes that exist in Python and that the sandbox hides. */
static bool is_unsafe (value object, value name)
{
    static const char *const of_lists[] = {"append", "clear", "pop", "reverse", "insert", "sort", "extend", "remove"};
    static const char *const of_dicts[] = {"clear", "pop", "popitem", "setdefault", "update"};
    static const char *const of_all[] = {
        "__class__", "__delattr__",      "__dir__",    "__doc__",  "__eq__",          "__format__",
        "__ge__",    "__getattribute__", "__gt__",     "__hash__", "__init__",        "__init_subclass__",
        "__le__",    "__lt__",           "__ne__",     "__new__",  "__reduce__",      "__reduce_ex__",
        "__repr__",  "__setattr__",      "__sizeof__", "__str__",  "__subclasshook__"};
    if (name.length == 0)
        return false;
    if (name.as.text[0] == '_')
        return is_one_of (name, of_all, N_OF (of_all));
    return (object.kind == VALUE_LIST && is_one_of (name, of_lists, N_OF (of_lists))) ||
           (object.kind == VALUE_DICT && is_one_of (name, of_dicts, N_OF (of_dicts)));
}

bool jinja_own_attribute (render *r, value object, value name, value *out, bool *found)
{
    *found = true;
    if (object.kind == VALUE_NAMESPACE) {
        value *item;
        if (!jinja_find (r, object.as.dict, name, &item))
            return false;
        *found = item != NULL;
        if (item)
            *out = *item;
        return true;
    }
    if (is_unsafe (object, name)) {
        *out = value_undefined (UNDEFINED_UNSAFE, name.as.text, name.length);
        out->detail = object.kind;
        return true;
    }
    if (object.kind == VALUE_UNDEFINED)
        return jinja_fail_undefined (r, object);
    const callable *method = find_method (object, name);
    if (method) {
        bound_method *bound = jinja_new (r, 1, sizeof *bound);
        if (!bound)
            return false;
        *bound = (bound_method){object, method};
        *out = (value){.kind = VALUE_METHOD, .as.method = bound};
        return true;
    }
    if (object.kind == VALUE_LOOP)
        return loop_attribute (r, object.as.loop, name, out, found);
    if (object.kind == VALUE_MACRO)
        return macro_attribute (r, object.as.macro, name, out, found);
    return other_attribute (r, object, name, out, found);
}

/* -- Items ------------------------------------------------------------------------------------- */

static bool item_of_text (render *r, value text, int64_t index, value *out, bool *found)
{
    int64_t length = (int64_t) jinja_code_points (text);
    if (index < 0)
        index += length;
    *found = index >= 0 && index < length;
    if (!*found)
        return jinja_charge (r, 0);
    return jinja_slice (r, text, value_int (index), value_int (index + 1), value_none (), out);
}

/* object[key] where Python has it; *found is false for its TypeError, KeyError and IndexError. */
static bool own_item (render *r, value object, value key, value *out, bool *found)
{
    *found = false;
    if (object.kind == VALUE_UNDEFINED)
        return jinja_fail_undefined (r, object);
    if (object.kind == VALUE_DICT) {
        value *item = NULL;
        if (jinja_hashable (key) && !jinja_find (r, object.as.dict, key, &item))
            return false;
        *found = item != NULL;
        if (item)
            *out = *item;
        return true;
    }
    if (object.kind == VALUE_SELF && is_text (key))
        return other_attribute (r, object, key, out, found);
    if (!is_int (key))
        return true;
    int64_t index = int_of (key);
    if (is_text (object))
        return item_of_text (r, object, index, out, found);
    if (object.kind == VALUE_RANGE) {
        *found = jinja_item_of_range (object.as.range, index, out);
        return true;
    }
    if (!is_sequence (object))
        return true;
    if (index < 0)
        index += object.length;
    *found = index >= 0 && index < object.length;
    if (*found)
        *out = object.as.items[index];
    return true;
}

static bool not_there (render *r, value object, value key, value *out)
{
    if (is_int (key)) {
        *out = (value){.kind = VALUE_UNDEFINED, .flags = UNDEFINED_ELEMENT, .as.integer = int_of (key)};
    } else if (is_text (key)) {
        *out = value_undefined (UNDEFINED_ATTRIBUTE, key.as.text, key.length);
    } else {
        value shown;
        size_t mark = jinja_capture (r);
        if (!jinja_emit_format (r, "%s object has no element ", jinja_type_name (object)) ||
            !jinja_emit_repr (r, key) || !jinja_capture_end (r, mark, &shown))
            return false;
        *out = value_undefined (UNDEFINED_HINT, shown.as.text, shown.length);
    }
    out->detail = object.kind;
    return true;
}

bool jinja_attribute (render *r, value object, value name, value *out)
{
    bool found;
    if (!jinja_own_attribute (r, object, name, out, &found))
        return false;
    if (!found && !own_item (r, object, name, out, &found))
        return false;
    return found || not_there (r, object, name, out);
}

bool jinja_item (render *r, value object, value key, value *out)
{
    bool found;
    if (!own_item (r, object, key, out, &found))
        return false;
    if (!found && is_text (key) && !jinja_own_attribute (r, object, key, out, &found))
        return false;
    return found || not_there (r, object, key, out);
}

bool jinja_attribute_path (render *r, value object, value path, value fallback, value *out)
{
    *out = object;
    if (path.kind == VALUE_NONE || !is_given (path))
        return true;
    bool has_fallback = is_given (fallback) && fallback.kind != VALUE_NONE;
    if (!is_text (path)) {
        if (!jinja_item (r, object, path, out))
            return false;
        if (has_fallback && out->kind == VALUE_UNDEFINED)
            *out = fallback;
        return true;
    }
    for (uint32_t at = 0; at <= path.length; at++) {
        uint32_t from = at;
        bool digits = true;
        for (; at < path.length && path.as.text[at] != '.'; at++)
            digits = digits && path.as.text[at] >= '0' && path.as.text[at] <= '9';
        value key = value_text (path.as.text + from, at - from, path.flags);
        int64_t index;
        bool overflow;
        if (digits && key.length && jinja_parse_int (key, 10, &index, &overflow) && !overflow)
            key = value_int (index);
        if (!jinja_item (r, *out, key, out))
            return false;
        if (has_fallback && out->kind == VALUE_UNDEFINED)
            *out = fallback;
    }
    return true;
}
