/* Jinja's tests: x is name (arguments). */
#include "template_private.h"

#define TEST(name) static bool name (render *r, value self, const value *args, const arguments *call, value *out)

/* A test that only looks at the value. */
#define PLAIN_TEST(name, condition)    \
    TEST (name)                        \
    {                                  \
        (void) args, (void) call;      \
        *out = value_bool (condition); \
        return jinja_charge (r, 0);    \
    }

PLAIN_TEST (is_defined, self.kind != VALUE_UNDEFINED)
PLAIN_TEST (is_undefined, self.kind == VALUE_UNDEFINED)
PLAIN_TEST (is_none, self.kind == VALUE_NONE)
PLAIN_TEST (is_boolean, self.kind == VALUE_BOOL)
PLAIN_TEST (is_false, self.kind == VALUE_BOOL && !self.as.truth)
PLAIN_TEST (is_true, self.kind == VALUE_BOOL && self.as.truth)
PLAIN_TEST (is_integer, self.kind == VALUE_INT)
PLAIN_TEST (is_float, self.kind == VALUE_FLOAT)
PLAIN_TEST (is_numeric, is_number (self))
PLAIN_TEST (is_string, is_text (self))
PLAIN_TEST (is_mapping, self.kind == VALUE_DICT)
PLAIN_TEST (is_iterable, jinja_can_iterate (self) || self.kind == VALUE_LOOP)
PLAIN_TEST (is_a_sequence, is_text (self) || is_sequence (self) || self.kind == VALUE_DICT ||
                               self.kind == VALUE_RANGE || self.kind == VALUE_UNDEFINED)
PLAIN_TEST (is_callable, jinja_is_callable (self))
PLAIN_TEST (is_escaped, is_text (self) && (self.flags & TEXT_MARKUP))
PLAIN_TEST (is_sameas, jinja_same (self, args[0]))
PLAIN_TEST (is_filter, is_text (self) && jinja_find_filter (self.as.text, self.length))
PLAIN_TEST (is_test, is_text (self) && jinja_find_test (self.as.text, self.length))

/* What str () of the value says of its case. */
static bool ask_text (render *r, value self, const char *method, value *out)
{
    value text;
    const arguments none = {0};
    return jinja_to_text (r, self, &text) &&
           jinja_call_native (r, "method", jinja_find_text_method (method, strlen (method)), text, &none, out);
}

TEST (is_lower)
{
    (void) args, (void) call;
    return ask_text (r, self, "islower", out);
}

TEST (is_upper)
{
    (void) args, (void) call;
    return ask_text (r, self, "isupper", out);
}

static bool remainder_is (render *r, value self, value divisor, int64_t wanted, value *out)
{
    value remainder;
    bool equal;
    if (!jinja_binary (r, OP_MOD, self, divisor, &remainder) || !jinja_equal (r, remainder, value_int (wanted), &equal))
        return false;
    *out = value_bool (equal);
    return true;
}

TEST (is_odd)
{
    (void) args, (void) call;
    return remainder_is (r, self, value_int (2), 1, out);
}

TEST (is_even)
{
    (void) args, (void) call;
    return remainder_is (r, self, value_int (2), 0, out);
}

TEST (is_divisible)
{
    (void) call;
    return remainder_is (r, self, args[0], 0, out);
}

static bool compare (render *r, comparison op, value a, value b, value *out)
{
    bool holds;
    if (!jinja_compare (r, op, a, b, &holds))
        return false;
    *out = value_bool (holds);
    return true;
}

#define COMPARISON_TEST(name, op)                   \
    TEST (name)                                     \
    {                                               \
        (void) call;                                \
        return compare (r, op, self, args[0], out); \
    }

COMPARISON_TEST (is_eq, CMP_EQ)
COMPARISON_TEST (is_ne, CMP_NE)
COMPARISON_TEST (is_lt, CMP_LT)
COMPARISON_TEST (is_le, CMP_LE)
COMPARISON_TEST (is_gt, CMP_GT)
COMPARISON_TEST (is_ge, CMP_GE)
COMPARISON_TEST (is_in, CMP_IN)

static const callable tests[] = {
    {"odd", "", 0, is_odd},
    {"even", "", 0, is_even},
    {"divisibleby", "num", 1, is_divisible},
    {"defined", "", 0, is_defined},
    {"undefined", "", 0, is_undefined},
    {"filter", "", 0, is_filter},
    {"test", "", 0, is_test},
    {"none", "", 0, is_none},
    {"boolean", "", 0, is_boolean},
    {"false", "", 0, is_false},
    {"true", "", 0, is_true},
    {"integer", "", 0, is_integer},
    {"float", "", 0, is_float},
    {"lower", "", 0, is_lower},
    {"upper", "", 0, is_upper},
    {"string", "", 0, is_string},
    {"mapping", "", 0, is_mapping},
    {"number", "", 0, is_numeric},
    {"sequence", "", 0, is_a_sequence},
    {"iterable", "", 0, is_iterable},
    {"callable", "", 0, is_callable},
    {"sameas", "other", 1, is_sameas},
    {"escaped", "", 0, is_escaped},
    {"in", "seq", 1, is_in},
    {"==", "/other", 1, is_eq},
    {"eq", "/other", 1, is_eq},
    {"equalto", "/other", 1, is_eq},
    {"!=", "/other", 1, is_ne},
    {"ne", "/other", 1, is_ne},
    {">", "/other", 1, is_gt},
    {"gt", "/other", 1, is_gt},
    {"greaterthan", "/other", 1, is_gt},
    {">=", "/other", 1, is_ge},
    {"ge", "/other", 1, is_ge},
    {"<", "/other", 1, is_lt},
    {"lt", "/other", 1, is_lt},
    {"lessthan", "/other", 1, is_lt},
    {"<=", "/other", 1, is_le},
    {"le", "/other", 1, is_le},
};

const callable *jinja_find_test (const char *name, size_t length)
{
    return jinja_find_in (tests, sizeof tests / sizeof tests[0], name, length);
}
