/* The methods of Python's str that change letters' case or ask what the characters are. */
#include "template_private.h"

/* -- Case -------------------------------------------------------------------------------------- */

static bool is_cased (uint32_t code)
{
    return jinja_is_lower (code) || jinja_is_upper (code) || jinja_is_title (code);
}

/* Marks and apostrophes that do not end a word, as far as the final sigma cares. */
static bool is_case_ignorable (uint32_t code)
{
    return code == '\'' || code == '.' || code == ':' || code == '^' || code == '`' || code == 0xad || code == 0xb7 ||
           code == 0x2018 || code == 0x2019 || (code >= 0x300 && code <= 0x36f);
}

/* Whether the capital sigma at `at` ends a word: a cased character before it, none behind it. */
static bool is_final_sigma (value text, const char *at)
{
    const char *start = text.as.text, *end = start + text.length, *back = at, *next = at;
    bool before = false;
    while (back > start && !before) {
        back = jinja_previous_character (start, back);
        uint32_t code = jinja_code_point_at (back);
        if (!is_case_ignorable (code)) {
            before = is_cased (code);
            break;
        }
    }
    jinja_next_code_point (&next);
    while (before && next < end) {
        uint32_t code = jinja_next_code_point (&next);
        if (!is_case_ignorable (code))
            return !is_cased (code);
    }
    return before;
}

static bool emit_mapped (render *r, uint32_t code, letter_case to)
{
    uint32_t mapped[3];
    unsigned n = jinja_map_case (code, to, mapped);
    for (unsigned i = 0; i < n; i++)
        if (!jinja_emit_code_point (r, mapped[i]))
            return false;
    return true;
}

static bool emit_lower (render *r, value text, const char *at)
{
    uint32_t code = jinja_code_point_at (at);
    if (code == 0x3a3)
        return jinja_emit_code_point (r, is_final_sigma (text, at) ? 0x3c2 : 0x3c3);
    return emit_mapped (r, code, CASE_LOWER);
}

bool jinja_emit_case (render *r, value text, letter_case to)
{
    const char *at = text.as.text, *end = at + text.length;
    while (at < end) {
        const char *from = at;
        uint32_t code = jinja_next_code_point (&at);
        if (!(to == CASE_LOWER ? emit_lower (r, text, from) : emit_mapped (r, code, to)))
            return false;
    }
    return true;
}

static bool convert_case (render *r, value self, letter_case to, value *out)
{
    size_t mark = jinja_capture (r);
    return jinja_emit_case (r, self, to) && jinja_capture_end (r, mark, out);
}

static bool text_upper (render *r, value self, const value *args, const arguments *call, value *out)
{
    (void) args, (void) call;
    return convert_case (r, self, CASE_UPPER, out);
}

static bool text_lower (render *r, value self, const value *args, const arguments *call, value *out)
{
    (void) args, (void) call;
    return convert_case (r, self, CASE_LOWER, out);
}

static bool text_casefold (render *r, value self, const value *args, const arguments *call, value *out)
{
    (void) args, (void) call;
    return convert_case (r, self, CASE_FOLD, out);
}

static bool text_capitalize (render *r, value self, const value *args, const arguments *call, value *out)
{
    (void) args, (void) call;
    size_t mark = jinja_capture (r);
    const char *at = self.as.text, *end = at + self.length;
    if (at < end && !emit_mapped (r, jinja_next_code_point (&at), CASE_TITLE))
        return false;
    for (; at < end; jinja_next_code_point (&at))
        if (!emit_lower (r, self, at))
            return false;
    return jinja_capture_end (r, mark, out);
}

static bool text_title (render *r, value self, const value *args, const arguments *call, value *out)
{
    (void) args, (void) call;
    size_t mark = jinja_capture (r);
    bool in_word = false;
    for (const char *at = self.as.text, *end = at + self.length; at < end; jinja_next_code_point (&at)) {
        uint32_t code = jinja_code_point_at (at);
        if (!(in_word ? emit_lower (r, self, at) : emit_mapped (r, code, CASE_TITLE)))
            return false;
        in_word = is_cased (code);
    }
    return jinja_capture_end (r, mark, out);
}

static bool text_swapcase (render *r, value self, const value *args, const arguments *call, value *out)
{
    (void) args, (void) call;
    size_t mark = jinja_capture (r);
    for (const char *at = self.as.text, *end = at + self.length; at < end; jinja_next_code_point (&at)) {
        uint32_t code = jinja_code_point_at (at);
        bool ok = jinja_is_upper (code)   ? emit_lower (r, self, at)
                  : jinja_is_lower (code) ? emit_mapped (r, code, CASE_UPPER)
                                          : jinja_emit_code_point (r, code);
        if (!ok)
            return false;
    }
    return jinja_capture_end (r, mark, out);
}

/* -- Questions about all characters ------------------------------------------------------------ */

static bool all_are (render *r, value self, bool (*test) (uint32_t), bool if_empty, value *out)
{
    bool all = self.length || if_empty;
    for (const char *at = self.as.text, *end = at + self.length; at < end && all;)
        all = test (jinja_next_code_point (&at));
    *out = value_bool (all);
    return jinja_charge (r, self.length);
}

static bool is_alnum (uint32_t code)
{
    return jinja_is_alnum (code);
}

static bool is_ascii (uint32_t code)
{
    return code < 0x80;
}

#define ALL_ARE(name, test, if_empty)                                                              \
    static bool name (render *r, value self, const value *args, const arguments *call, value *out) \
    {                                                                                              \
        (void) args, (void) call;                                                                  \
        return all_are (r, self, test, if_empty, out);                                             \
    }
ALL_ARE (text_isalnum, is_alnum, false)
ALL_ARE (text_isalpha, jinja_is_alpha, false)
ALL_ARE (text_isascii, is_ascii, true)
ALL_ARE (text_isdecimal, jinja_is_decimal, false)
ALL_ARE (text_isdigit, jinja_is_digit, false)
ALL_ARE (text_isnumeric, jinja_is_numeric, false)
ALL_ARE (text_isprintable, jinja_is_printable, true)
ALL_ARE (text_isspace, jinja_is_space, false)

static bool text_isidentifier (render *r, value self, const value *args, const arguments *call, value *out)
{
    (void) args, (void) call;
    bool yes = self.length > 0;
    for (const char *at = self.as.text, *start = at, *end = at + self.length; at < end && yes;) {
        bool first = at == start;
        uint32_t code = jinja_next_code_point (&at);
        yes = code == '_' || (first ? jinja_is_alpha (code) : jinja_is_alnum (code));
    }
    *out = value_bool (yes);
    return jinja_charge (r, self.length);
}

/* islower and isupper: something cased, and nothing of another case. */
static bool one_case (render *r, value self, bool (*wanted) (uint32_t), value *out)
{
    bool any = false, other = false;
    for (const char *at = self.as.text, *end = at + self.length; at < end && !other;) {
        uint32_t code = jinja_next_code_point (&at);
        any = any || wanted (code);
        other = is_cased (code) && !wanted (code);
    }
    *out = value_bool (any && !other);
    return jinja_charge (r, self.length);
}

static bool text_islower (render *r, value self, const value *args, const arguments *call, value *out)
{
    (void) args, (void) call;
    return one_case (r, self, jinja_is_lower, out);
}

static bool text_isupper (render *r, value self, const value *args, const arguments *call, value *out)
{
    (void) args, (void) call;
    return one_case (r, self, jinja_is_upper, out);
}

static bool text_istitle (render *r, value self, const value *args, const arguments *call, value *out)
{
    (void) args, (void) call;
    bool any = false, in_word = false, yes = true;
    for (const char *at = self.as.text, *end = at + self.length; at < end && yes;) {
        uint32_t code = jinja_next_code_point (&at);
        bool capital = jinja_is_upper (code) || jinja_is_title (code), small = jinja_is_lower (code);
        yes = !(capital && in_word) && !(small && !in_word);
        in_word = capital || small;
        any = any || in_word;
    }
    *out = value_bool (any && yes);
    return jinja_charge (r, self.length);
}

static const callable methods[] = {
    {"capitalize", "", 0, text_capitalize},
    {"casefold", "", 0, text_casefold},
    {"isalnum", "", 0, text_isalnum},
    {"isalpha", "", 0, text_isalpha},
    {"isascii", "", 0, text_isascii},
    {"isdecimal", "", 0, text_isdecimal},
    {"isdigit", "", 0, text_isdigit},
    {"isidentifier", "", 0, text_isidentifier},
    {"islower", "", 0, text_islower},
    {"isnumeric", "", 0, text_isnumeric},
    {"isprintable", "", 0, text_isprintable},
    {"isspace", "", 0, text_isspace},
    {"istitle", "", 0, text_istitle},
    {"isupper", "", 0, text_isupper},
    {"lower", "", 0, text_lower},
    {"swapcase", "", 0, text_swapcase},
    {"title", "", 0, text_title},
    {"upper", "", 0, text_upper},
};

const callable *jinja_find_case_method (const char *name, size_t length)
{
    return jinja_find_in (methods, sizeof methods / sizeof methods[0], name, length);
}
