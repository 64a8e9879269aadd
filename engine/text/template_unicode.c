/* What the template evaluator knows of characters: CPython's str predicates and case mappings, and UTF-8 by code
 * points.
 *
 * The tables are generated (template_unicode.py). ASCII is answered without them. */
#include "template_private.h"

#include "utf8.h"

typedef struct run {
    uint32_t first, last, step;
} run;

typedef struct case_run {
    uint32_t first, last;
    int32_t step, delta;
} case_run;

typedef struct case_many {
    uint32_t code, to[3];
} case_many;

#include "template_unicode_tables.h"

#define N_OF(table) (sizeof (table) / sizeof (table)[0])

/* Runs are in ascending order and do not overlap. */
static bool is_in (const run *runs, size_t count, uint32_t code)
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (code > runs[middle].last)
            low = middle + 1;
        else
            high = middle;
    }
    return low < count && code >= runs[low].first && (code - runs[low].first) % runs[low].step == 0;
}

static bool is_ascii_letter (uint32_t code)
{
    return (code | 0x20) - 'a' < 26u;
}

bool jinja_is_alpha (uint32_t code)
{
    return code < 0x80 ? is_ascii_letter (code) : is_in (alpha_runs, N_OF (alpha_runs), code);
}

bool jinja_is_decimal (uint32_t code)
{
    return code < 0x80 ? code - '0' < 10u : is_in (decimal_runs, N_OF (decimal_runs), code);
}

bool jinja_is_digit (uint32_t code)
{
    return code < 0x80 ? code - '0' < 10u : is_in (digit_runs, N_OF (digit_runs), code);
}

bool jinja_is_numeric (uint32_t code)
{
    return code < 0x80 ? code - '0' < 10u : is_in (numeric_runs, N_OF (numeric_runs), code);
}

bool jinja_is_lower (uint32_t code)
{
    return code < 0x80 ? code - 'a' < 26u : is_in (lower_runs, N_OF (lower_runs), code);
}

bool jinja_is_upper (uint32_t code)
{
    return code < 0x80 ? code - 'A' < 26u : is_in (upper_runs, N_OF (upper_runs), code);
}

bool jinja_is_title (uint32_t code)
{
    return code >= 0x80 && is_in (title_runs, N_OF (title_runs), code);
}

bool jinja_is_printable (uint32_t code)
{
    return code < 0x80 ? code >= 0x20 && code != 0x7f : is_in (printable_runs, N_OF (printable_runs), code);
}

bool jinja_is_space (uint32_t code)
{
    if (code < 0x80)
        return code == ' ' || (code >= 9 && code <= 13) || (code >= 0x1c && code <= 0x1f);
    return code == 0x85 || code == 0xa0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200a) || code == 0x2028 ||
           code == 0x2029 || code == 0x202f || code == 0x205f || code == 0x3000;
}

/* Where splitlines splits. */
bool jinja_is_line_break (uint32_t code)
{
    return (code >= 10 && code <= 13) || (code >= 0x1c && code <= 0x1e) || code == 0x85 || code == 0x2028 ||
           code == 0x2029;
}

uint32_t jinja_decimal_value (uint32_t code)
{
    if (code < 0x80)
        return code - '0';
    /* Decimals come in tens, in order, and a run's first is a zero. */
    for (size_t i = 0; i < N_OF (decimal_runs); i++)
        if (code >= decimal_runs[i].first && code <= decimal_runs[i].last)
            return (code - decimal_runs[i].first) % 10;
    return 0;
}

static unsigned map_with (const case_run *runs, size_t n_runs, const case_many *many, size_t n_many, uint32_t code,
                          uint32_t out[3])
{
    out[0] = code;
    for (size_t i = 0; i < n_many; i++)
        if (many[i].code == code) {
            memcpy (out, many[i].to, sizeof many[i].to);
            return out[2] ? 3 : 2;
        }
    for (size_t i = 0; i < n_runs; i++)
        if (code >= runs[i].first && code <= runs[i].last && (code - runs[i].first) % (uint32_t) runs[i].step == 0) {
            out[0] = (uint32_t) ((int32_t) code + runs[i].delta);
            break;
        }
    return 1;
}

unsigned jinja_map_case (uint32_t code, letter_case to, uint32_t out[3])
{
    if (code < 0x80) {
        bool up = to == CASE_UPPER || to == CASE_TITLE;
        out[0] = up ? (code - 'a' < 26u ? code - 32 : code) : (code - 'A' < 26u ? code + 32 : code);
        return 1;
    }
    switch (to) {
    case CASE_LOWER:
        return map_with (to_lower, N_OF (to_lower), to_lower_many, N_OF (to_lower_many), code, out);
    case CASE_UPPER:
        return map_with (to_upper, N_OF (to_upper), to_upper_many, N_OF (to_upper_many), code, out);
    case CASE_TITLE:
        return map_with (to_title, N_OF (to_title), to_title_many, N_OF (to_title_many), code, out);
    case CASE_FOLD:
        return map_with (to_folded, N_OF (to_folded), to_folded_many, N_OF (to_folded_many), code, out);
    }
    out[0] = code;
    return 1;
}

/* -- UTF-8 ------------------------------------------------------------------------------------- */

uint32_t jinja_next_code_point (const char **at)
{
    size_t length = utf8_lead_length ((uint8_t) * *at);
    if (length == 0)
        length = 1; /* cannot be: texts are checked where they come in */
    uint32_t code = utf8_code_point (*at, length);
    *at += length;
    return code;
}

uint32_t jinja_code_point_at (const char *at)
{
    return jinja_next_code_point (&at);
}

const char *jinja_previous_character (const char *start, const char *at)
{
    do
        at--;
    while (at > start && ((uint8_t) *at & 0xc0) == 0x80);
    return at;
}

unsigned jinja_encode (uint32_t code, char out[4])
{
    if (code < 0x80) {
        out[0] = (char) code;
        return 1;
    }
    unsigned length = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (unsigned i = length - 1; i > 0; i--, code >>= 6)
        out[i] = (char) (0x80 | (code & 0x3f));
    out[0] = (char) ((0xf00u >> length & 0xf0) | code);
    return length;
}

uint8_t jinja_ascii_flag (const char *text, size_t length)
{
    uint8_t seen = 0;
    for (size_t i = 0; i < length; i++)
        seen |= (uint8_t) text[i];
    return seen < 0x80 ? TEXT_ASCII : 0;
}

size_t jinja_code_points (value text)
{
    if (text.flags & TEXT_ASCII)
        return text.length;
    size_t count = 0;
    for (uint32_t i = 0; i < text.length; i++)
        count += ((uint8_t) text.as.text[i] & 0xc0) != 0x80;
    return count;
}

size_t jinja_offset_of (value text, size_t index)
{
    if (text.flags & TEXT_ASCII)
        return index < text.length ? index : text.length;
    for (uint32_t i = 0; i < text.length; i++)
        if (((uint8_t) text.as.text[i] & 0xc0) != 0x80 && index-- == 0)
            return i;
    return text.length;
}
