/* Operators with Python's semantics: arithmetic, joining and repeating, comparison, membership, slices. */
#include "template_private.h"

#include <math.h>

static const char *symbol_of (binary_operator op)
{
    static const char *const symbols[] = {"+", "-", "*", "/", "//", "%", "** or pow()"};
    return symbols[op];
}

static bool fail_operands (render *r, binary_operator op, value a, value b)
{
    if (a.kind == VALUE_UNDEFINED || b.kind == VALUE_UNDEFINED)
        return jinja_fail_undefined (r, a.kind == VALUE_UNDEFINED ? a : b);
    if (op == OP_ADD && (is_text (a) || is_sequence (a)))
        return jinja_fail (r, "can only concatenate %s (not \"%s\") to %s", jinja_type_name (a), jinja_type_name (b),
                           jinja_type_name (a));
    return jinja_fail (r, "unsupported operand type(s) for %s: '%s' and '%s'", symbol_of (op), jinja_type_name (a),
                       jinja_type_name (b));
}

/* -- Numbers ----------------------------------------------------------------------------------- */

bool jinja_floor_divide (int64_t a, int64_t b, int64_t *quotient, int64_t *remainder)
{
    if (a == INT64_MIN && b == -1)
        return false;
    *quotient = a / b;
    *remainder = a % b;
    if (*remainder != 0 && (*remainder < 0) != (b < 0)) {
        *quotient -= 1;
        *remainder += b;
    }
    return true;
}

static bool power_of_ints (int64_t base, int64_t exponent, int64_t *out)
{
    int64_t result = 1;
    while (exponent > 0) {
        if ((exponent & 1) && __builtin_mul_overflow (result, base, &result))
            return false;
        exponent >>= 1;
        if (exponent && __builtin_mul_overflow (base, base, &base))
            return false;
    }
    *out = result;
    return true;
}

static bool calculate_ints (render *r, binary_operator op, int64_t a, int64_t b, value *out)
{
    int64_t result = 0, rest;
    bool fits = true;
    if (b == 0 && (op == OP_DIV || op == OP_FLOORDIV || op == OP_MOD))
        return jinja_fail (r, "%s", op == OP_DIV ? "division by zero" : "integer division or modulo by zero");
    switch (op) {
    case OP_ADD:
        fits = !__builtin_add_overflow (a, b, &result);
        break;
    case OP_SUB:
        fits = !__builtin_sub_overflow (a, b, &result);
        break;
    case OP_MUL:
        fits = !__builtin_mul_overflow (a, b, &result);
        break;
    case OP_DIV:
        *out = value_float ((double) a / (double) b);
        return true;
    case OP_FLOORDIV:
        fits = jinja_floor_divide (a, b, &result, &rest);
        break;
    case OP_MOD:
        fits = b == -1 || jinja_floor_divide (a, b, &rest, &result); /* anything modulo -1 is 0 */
        break;
    case OP_POW:
        if (b < 0 && a == 0)
            return jinja_fail (r, "0.0 cannot be raised to a negative power");
        if (b < 0) {
            *out = value_float (pow ((double) a, (double) b));
            return true;
        }
        fits = power_of_ints (a, b, &result);
        break;
    }
    if (!fits)
        return jinja_fail (r, "the result of %s does not fit in 64 bits", symbol_of (op));
    *out = value_int (result);
    return true;
}

/* Python's float // and %: the remainder has the divisor's sign. */
static void divide_reals (double a, double b, double *quotient, double *remainder)
{
    double rest = fmod (a, b), whole = (a - rest) / b;
    if (rest != 0) {
        if ((b < 0) != (rest < 0)) {
            rest += b;
            whole -= 1;
        }
    } else {
        rest = copysign (0, b);
    }
    if (whole != 0) {
        double down = floor (whole);
        whole = whole - down > 0.5 ? down + 1 : down;
    } else {
        whole = copysign (0, a / b);
    }
    *quotient = whole;
    *remainder = rest;
}

static bool calculate_reals (render *r, binary_operator op, double a, double b, value *out)
{
    double quotient, remainder, result = 0;
    if (b == 0 && (op == OP_DIV || op == OP_FLOORDIV || op == OP_MOD))
        return jinja_fail (r, "%s",
                           op == OP_DIV   ? "float division by zero"
                           : op == OP_MOD ? "float modulo"
                                          : "float floor division by zero");
    switch (op) {
    case OP_ADD:
        result = a + b;
        break;
    case OP_SUB:
        result = a - b;
        break;
    case OP_MUL:
        result = a * b;
        break;
    case OP_DIV:
        result = a / b;
        break;
    case OP_FLOORDIV:
    case OP_MOD:
        divide_reals (a, b, &quotient, &remainder);
        result = op == OP_MOD ? remainder : quotient;
        break;
    case OP_POW:
        if (a == 0 && b < 0)
            return jinja_fail (r, "0.0 cannot be raised to a negative power");
        result = pow (a, b);
        if (a < 0 && isfinite (a) && isfinite (b) && b != floor (b))
            return jinja_fail (r, "a root of a negative number is complex, which templates here do not know");
        if (isinf (result) && isfinite (a) && isfinite (b))
            return jinja_fail (r, "Numerical result out of range");
        break;
    }
    *out = value_float (result);
    return true;
}

bool jinja_negate (render *r, value v, value *out)
{
    if (v.kind == VALUE_UNDEFINED)
        return jinja_fail_undefined (r, v);
    if (v.kind == VALUE_FLOAT) {
        *out = value_float (-v.as.real);
        return true;
    }
    if (!is_int (v))
        return jinja_fail (r, "bad operand type for unary -: '%s'", jinja_type_name (v));
    return calculate_ints (r, OP_SUB, 0, int_of (v), out);
}

/* -- Joining and repeating --------------------------------------------------------------------- */

bool jinja_concat_text (render *r, value a, value b, value *out)
{
    uint8_t flags = (uint8_t) ((a.flags & b.flags & TEXT_ASCII) | (a.flags & TEXT_MARKUP));
    if (a.length > MAX_MEMORY_BYTES || b.length > MAX_MEMORY_BYTES)
        return jinja_fail (r, "a text is too long");
    if (b.length == 0 || a.length == 0) {
        *out = b.length == 0 ? a : b;
        out->flags = b.length == 0 ? a.flags : flags;
        return true;
    }
    size_t length = (size_t) a.length + b.length;
    if (jinja_arena_extend (&r->texts, a.as.text, a.length, b.length)) {
        if (!jinja_charge (r, b.length))
            return false;
        memcpy ((char *) a.as.text + a.length, b.as.text, b.length); /* the arena's own bytes, behind a */
        *out = value_text (a.as.text, length, flags);
        return true;
    }
    char *text = jinja_new_bytes (r, length);
    if (!text)
        return false;
    memcpy (text, a.as.text, a.length);
    memcpy (text + a.length, b.as.text, b.length);
    *out = value_text (text, length, flags);
    return true;
}

/* Markup escapes what is added to it. */
static bool add_texts (render *r, value a, value b, value *out)
{
    bool markup = (a.flags | b.flags) & TEXT_MARKUP;
    if (markup && (!jinja_escape (r, a, &a) || !jinja_escape (r, b, &b)))
        return false;
    return jinja_concat_text (r, a, b, out);
}

static bool add_sequences (render *r, value a, value b, value *out)
{
    if ((size_t) a.length + b.length > MAX_MEMORY_BYTES / sizeof (value))
        return jinja_fail (r, "a list is too long");
    size_t count = (size_t) a.length + b.length;
    value *items = jinja_new (r, count, sizeof *items);
    if (!items || !jinja_charge (r, count * sizeof *items))
        return false;
    if (a.length)
        memcpy (items, a.as.items, a.length * sizeof *items);
    if (b.length)
        memcpy (items + a.length, b.as.items, b.length * sizeof *items);
    *out = value_sequence (a.kind, items, count);
    return true;
}

static bool repeat (render *r, value v, int64_t times, value *out)
{
    bool text = is_text (v);
    size_t size = text ? 1 : sizeof (value), length = v.length * size, total;
    if (times < 0)
        times = 0;
    if (__builtin_mul_overflow (length, (size_t) times, &total) || total > MAX_MEMORY_BYTES)
        return jinja_fail (r, "repeating %u %s %lld times takes too much memory", v.length, text ? "bytes" : "items",
                           (long long) times);
    char *bytes = text ? jinja_new_bytes (r, total) : jinja_new (r, 1, total);
    if (!bytes || !jinja_charge (r, total))
        return false;
    const char *from = text ? v.as.text : (const char *) v.as.items;
    for (size_t at = 0; at < total; at += length)
        memcpy (bytes + at, from, length);
    if (text)
        *out = value_text (bytes, total, v.flags);
    else
        *out = value_sequence (v.kind, (const value *) (const void *) bytes, total / size);
    return true;
}

bool jinja_binary (render *r, binary_operator op, value a, value b, value *out)
{
    if (is_int (a) && is_int (b))
        return calculate_ints (r, op, int_of (a), int_of (b), out);
    if (is_number (a) && is_number (b))
        return calculate_reals (r, op, real_of (a), real_of (b), out);
    if (op == OP_ADD && is_text (a) && is_text (b))
        return add_texts (r, a, b, out);
    if (op == OP_ADD && is_sequence (a) && a.kind == b.kind)
        return add_sequences (r, a, b, out);
    if (op == OP_MOD && is_text (a))
        return jinja_format_percent (r, a, b, out);
    if (op == OP_MUL && (is_text (a) || is_sequence (a)) && is_int (b))
        return repeat (r, a, int_of (b), out);
    if (op == OP_MUL && (is_text (b) || is_sequence (b)) && is_int (a))
        return repeat (r, b, int_of (a), out);
    return fail_operands (r, op, a, b);
}

/* -- Comparison and membership ----------------------------------------------------------------- */

bool jinja_contains (render *r, value container, value item, bool *out)
{
    *out = false;
    if (is_text (container)) {
        if (!is_text (item))
            return jinja_fail (r, "'in <string>' requires string as left operand, not %s", jinja_type_name (item));
        *out = item.length == 0 || (item.length <= container.length &&
                                    memmem (container.as.text, container.length, item.as.text, item.length) != NULL);
        return jinja_charge (r, container.length);
    }
    if (container.kind == VALUE_DICT || (container.kind == VALUE_VIEW && container.flags == VIEW_KEYS)) {
        value *found;
        if (!jinja_find (r, container.as.dict, item, &found))
            return false;
        *out = found != NULL;
        return true;
    }
    if (!jinja_can_iterate (container))
        return jinja_fail (r, "argument of type '%s' is not iterable", jinja_type_name (container));
    iterator *it;
    value other;
    bool more = true;
    if (!jinja_iterate (r, container, &it))
        return false;
    while (!*out) {
        if (!jinja_next (r, it, &other, &more))
            return false;
        if (!more)
            break;
        if (!jinja_equal (r, other, item, out))
            return false;
    }
    return true;
}

bool jinja_compare (render *r, comparison op, value a, value b, bool *out)
{
    static const char *const symbols[] = {"==", "!=", "<", "<=", ">", ">=", "in", "not in"};
    int order = 0;
    bool unordered = false;
    if (op == CMP_EQ || op == CMP_NE) {
        if (!jinja_equal (r, a, b, out))
            return false;
        *out = *out == (op == CMP_EQ);
        return true;
    }
    if (op == CMP_IN || op == CMP_NOT_IN) {
        if (!jinja_contains (r, b, a, out))
            return false;
        *out = *out == (op == CMP_IN);
        return true;
    }
    if (!jinja_order (r, a, b, symbols[op], &order, &unordered))
        return false;
    *out = !unordered && (op == CMP_LT ? order < 0 : op == CMP_LE ? order <= 0 : op == CMP_GT ? order > 0 : order >= 0);
    return true;
}

/* -- Lengths and slices ------------------------------------------------------------------------ */

bool jinja_length (render *r, value v, bool *has, int64_t *out)
{
    *has = true;
    switch ((value_kind) v.kind) {
    case VALUE_UNDEFINED:
        *out = 0;
        return true;
    case VALUE_TEXT:
        *out = (int64_t) jinja_code_points (v);
        return jinja_charge (r, v.flags & TEXT_ASCII ? 0 : v.length);
    case VALUE_LIST:
    case VALUE_TUPLE:
        *out = v.length;
        return true;
    case VALUE_DICT:
    case VALUE_VIEW:
        *out = v.as.dict->count;
        return true;
    case VALUE_RANGE:
        *out = v.as.range->count;
        return true;
    case VALUE_LOOP:
        return jinja_loop_length (r, v.as.loop, out);
    default:
        *has = false;
        return true;
    }
}

bool jinja_clamp_index (render *r, value index, int64_t length, int64_t fallback, int64_t low, int64_t high,
                        int64_t *out)
{
    if (index.kind == VALUE_NONE || index.kind == VALUE_MISSING) {
        *out = fallback;
        return true;
    }
    if (!is_int (index))
        return jinja_fail (r, "slice indices must be integers or None or have an __index__ method");
    int64_t i = int_of (index);
    if (i < 0 && i >= -length - 1)
        i += length;
    *out = i < low ? low : i > high ? high : i;
    return true;
}

/* Every step-th code point of `text`, `count` of them from code point `start`. */
static bool pick_characters (render *r, value text, int64_t start, int64_t step, int64_t count, value *out)
{
    size_t mark = jinja_capture (r);
    const char *first = text.as.text, *end = first + text.length;
    const char *at = first + jinja_offset_of (text, (size_t) start);
    for (int64_t i = 0; i < count; i++) {
        const char *next = at;
        jinja_next_code_point (&next);
        if (!jinja_emit (r, at, (size_t) (next - at)))
            return false;
        if (i + 1 == count)
            break;
        for (int64_t k = 0; k < step && at < end; k++)
            jinja_next_code_point (&at);
        for (int64_t k = 0; k > step && at > first; k--)
            at = jinja_previous_character (first, at);
        if (!jinja_charge (r, (size_t) (step < 0 ? -step : step)))
            return false;
    }
    if (!jinja_capture_end (r, mark, out))
        return false;
    out->flags |= text.flags & TEXT_MARKUP;
    return true;
}

static bool slice_text (render *r, value text, int64_t start, int64_t step, int64_t count, value *out)
{
    if (!jinja_charge (r, text.flags & TEXT_ASCII ? 0 : text.length))
        return false;
    if (step != 1 && count > 1)
        return pick_characters (r, text, start, step, count, out);
    size_t from = jinja_offset_of (text, (size_t) start);
    value rest = value_text (text.as.text + from, text.length - from, text.flags);
    *out = value_text (rest.as.text, jinja_offset_of (rest, (size_t) count), text.flags);
    return true;
}

static bool slice_range (render *r, const range *from, int64_t first, int64_t last, int64_t step, int64_t count,
                         value *out)
{
    range *part = jinja_new (r, 1, sizeof *part);
    int64_t *ends[2];
    int64_t indexes[2] = {first, last};
    if (!part)
        return false;
    ends[0] = &part->start;
    ends[1] = &part->stop;
    if (__builtin_mul_overflow (from->step, step, &part->step))
        return jinja_fail (r, "the step of a range does not fit in 64 bits");
    for (int i = 0; i < 2; i++)
        if (__builtin_mul_overflow (indexes[i], from->step, ends[i]) ||
            __builtin_add_overflow (from->start, *ends[i], ends[i]))
            return jinja_fail (r, "the end of a range does not fit in 64 bits");
    part->count = (uint32_t) count;
    *out = (value){.kind = VALUE_RANGE, .as.range = part};
    return true;
}

static bool slice_items (render *r, value v, int64_t start, int64_t step, int64_t count, value *out)
{
    if (step == 1 || count <= 1) {
        *out = value_sequence (v.kind, v.length ? v.as.items + (count ? start : 0) : NULL, (size_t) count);
        return true;
    }
    value *items = jinja_new (r, (size_t) count, sizeof *items);
    if (!items || !jinja_charge (r, (size_t) count * sizeof *items))
        return false;
    for (int64_t i = 0; i < count; i++)
        items[i] = v.as.items[start + i * step];
    *out = value_sequence (v.kind, items, (size_t) count);
    return true;
}

bool jinja_slice (render *r, value v, value start, value stop, value step, value *out)
{
    int64_t length, first, last, by = 1, count = 0;
    bool has;
    if (v.kind == VALUE_UNDEFINED)
        return jinja_fail_undefined (r, v);
    if (v.kind == VALUE_DICT)
        return jinja_fail (r, "unhashable type: 'slice'");
    if (!is_text (v) && !is_sequence (v) && v.kind != VALUE_RANGE)
        return jinja_fail (r, "'%s' object is not subscriptable", jinja_type_name (v));
    if (!jinja_length (r, v, &has, &length))
        return false;
    if (step.kind != VALUE_NONE) {
        if (!is_int (step))
            return jinja_fail (r, "slice indices must be integers or None or have an __index__ method");
        by = int_of (step);
        if (by == 0)
            return jinja_fail (r, "slice step cannot be zero");
        /* Farther than the whole in one step is as far as any. */
        by = by > length + 1 ? length + 1 : by < -length - 1 ? -length - 1 : by;
    }
    bool up = by > 0;
    if (!jinja_clamp_index (r, start, length, up ? 0 : length - 1, up ? 0 : -1, up ? length : length - 1, &first) ||
        !jinja_clamp_index (r, stop, length, up ? length : -1, up ? 0 : -1, up ? length : length - 1, &last))
        return false;
    if (up && first < last)
        count = (last - first - 1) / by + 1;
    if (!up && first > last)
        count = (first - last - 1) / -by + 1;
    if (v.kind == VALUE_RANGE)
        return slice_range (r, v.as.range, first, last, by, count, out);
    return is_text (v) ? slice_text (r, v, count ? first : 0, by, count, out)
                       : slice_items (r, v, count ? first : 0, by, count, out);
}

bool jinja_reversed_text (render *r, value text, value *out)
{
    return jinja_slice (r, text, value_none (), value_none (), value_int (-1), out);
}
