/* Walking over values: what `for`, unpacking and filters see as Python's iter () and next ().
 *
 * Lists are walked in place. What Jinja makes generators of (map, select, a loop's condition) is computed item by
 * item as it is asked for, so that an error in an item nobody asks for does not happen, and a condition sees what
 * the loop's body has done. */
#include "template_private.h"

iterator *jinja_new_iterator (render *r, bool (*next) (render *, iterator *, value *, bool *), value source)
{
    iterator *it = jinja_new (r, 1, sizeof *it);
    if (it) {
        it->next = next;
        it->source = source;
        it->name = "generator";
    }
    return it;
}

/* Iterators may stand on iterators without end: map over map over map. */
bool jinja_next (render *r, iterator *it, value *out, bool *more)
{
    if (!jinja_enter (r) || !it->next (r, it, out, more))
        return false;
    jinja_leave (r);
    return true;
}

static bool next_nothing (render *r, iterator *it, value *out, bool *more)
{
    (void) it;
    (void) out;
    *more = false;
    return jinja_charge (r, 0);
}

static bool next_item (render *r, iterator *it, value *out, bool *more)
{
    *more = it->position < it->source.length;
    if (*more)
        *out = it->source.as.items[it->position++];
    return jinja_charge (r, 0);
}

static bool next_item_reversed (render *r, iterator *it, value *out, bool *more)
{
    *more = it->position < it->source.length;
    if (*more)
        *out = it->source.as.items[it->source.length - ++it->position];
    return jinja_charge (r, 0);
}

static bool next_character (render *r, iterator *it, value *out, bool *more)
{
    const char *at = it->source.as.text + it->position;
    *more = it->position < it->source.length;
    if (*more) {
        const char *next = at;
        uint32_t code = jinja_next_code_point (&next);
        it->position += next - at;
        *out = value_text (at, (size_t) (next - at), code < 0x80 ? TEXT_ASCII : 0); /* of Markup, too */
    }
    return jinja_charge (r, 0);
}

/* A dict or a view. `mode`: VIEW_KEYS …; a negative step is not needed: reversed has its own. */
static bool next_entry_at (render *r, iterator *it, uint32_t at, value *out)
{
    const entry *e = &it->source.as.dict->entries[at];
    if (it->mode != VIEW_ITEMS) {
        *out = it->mode == VIEW_KEYS ? e->key : e->item;
        return true;
    }
    value *pair = jinja_new (r, 2, sizeof *pair);
    if (!pair)
        return false;
    pair[0] = e->key;
    pair[1] = e->item;
    *out = value_sequence (VALUE_TUPLE, pair, 2);
    return true;
}

static bool next_entry (render *r, iterator *it, value *out, bool *more)
{
    *more = it->position < it->source.as.dict->count;
    return jinja_charge (r, 0) && (!*more || next_entry_at (r, it, (uint32_t) it->position++, out));
}

static bool next_entry_reversed (render *r, iterator *it, value *out, bool *more)
{
    *more = it->position < it->source.as.dict->count;
    return jinja_charge (r, 0) &&
           (!*more || next_entry_at (r, it, it->source.as.dict->count - (uint32_t) ++it->position, out));
}

bool jinja_item_of_range (const range *numbers, int64_t index, value *out)
{
    if (index < 0)
        index += numbers->count;
    if (index < 0 || index >= numbers->count)
        return false;
    *out = value_int (numbers->start + index * numbers->step);
    return true;
}

static bool next_number (render *r, iterator *it, value *out, bool *more)
{
    *more = jinja_item_of_range (it->source.as.range, it->position, out);
    it->position++;
    return jinja_charge (r, 0);
}

static bool next_number_reversed (render *r, iterator *it, value *out, bool *more)
{
    const range *numbers = it->source.as.range;
    *more = it->position < numbers->count && jinja_item_of_range (numbers, numbers->count - 1 - it->position, out);
    it->position++;
    return jinja_charge (r, 0);
}

bool jinja_can_iterate (value v)
{
    switch ((value_kind) v.kind) {
    case VALUE_UNDEFINED:
    case VALUE_TEXT:
    case VALUE_LIST:
    case VALUE_TUPLE:
    case VALUE_DICT:
    case VALUE_VIEW:
    case VALUE_RANGE:
    case VALUE_ITERATOR:
        return true;
    default:
        return false;
    }
}

bool jinja_iterate (render *r, value v, iterator **out)
{
    switch ((value_kind) v.kind) {
    case VALUE_UNDEFINED:
        *out = jinja_new_iterator (r, next_nothing, v);
        break;
    case VALUE_TEXT:
        *out = jinja_new_iterator (r, next_character, v);
        break;
    case VALUE_LIST:
    case VALUE_TUPLE:
        *out = jinja_new_iterator (r, next_item, v);
        break;
    case VALUE_DICT:
    case VALUE_VIEW:
        *out = jinja_new_iterator (r, next_entry, v);
        if (*out)
            (*out)->mode = v.kind == VALUE_DICT ? VIEW_KEYS : v.flags;
        break;
    case VALUE_RANGE:
        *out = jinja_new_iterator (r, next_number, v);
        break;
    case VALUE_ITERATOR:
        *out = v.as.iterator;
        break;
    default:
        *out = NULL;
        return jinja_fail (r, "'%s' object is not iterable", jinja_type_name (v));
    }
    return *out != NULL;
}

bool jinja_list_of (render *r, value v, value *out)
{
    if (is_sequence (v)) {
        *out = value_sequence (VALUE_LIST, v.as.items, v.length);
        return true;
    }
    iterator *it;
    value_list list = {0};
    value item;
    bool more;
    if (!jinja_iterate (r, v, &it))
        return false;
    for (;;) {
        if (!jinja_next (r, it, &item, &more))
            return false;
        if (!more)
            break;
        if (!jinja_append (r, &list, item))
            return false;
    }
    *out = value_of_list (&list);
    return true;
}

bool jinja_reversed (render *r, value v, bool *can, value *out)
{
    iterator *it = NULL;
    *can = true;
    switch ((value_kind) v.kind) {
    case VALUE_UNDEFINED:
        it = jinja_new_iterator (r, next_nothing, v);
        break;
    case VALUE_LIST:
    case VALUE_TUPLE:
        it = jinja_new_iterator (r, next_item_reversed, v);
        break;
    case VALUE_DICT:
    case VALUE_VIEW:
        it = jinja_new_iterator (r, next_entry_reversed, v);
        if (it)
            it->mode = v.kind == VALUE_DICT ? VIEW_KEYS : v.flags;
        break;
    case VALUE_RANGE:
        it = jinja_new_iterator (r, next_number_reversed, v);
        break;
    case VALUE_TEXT: {
        value backwards;
        if (!jinja_reversed_text (r, v, &backwards))
            return false;
        it = jinja_new_iterator (r, next_character, backwards);
        break;
    }
    default:
        *can = false;
        return true;
    }
    if (!it)
        return false;
    it->name = v.kind == VALUE_LIST ? "list_reverseiterator" : "reversed";
    *out = (value){.kind = VALUE_ITERATOR, .as.iterator = it};
    return true;
}
