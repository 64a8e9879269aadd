/* Template source to tokens.
 *
 * Between tags everything is data; its edges depend on the tags beside it, as Jinja2's lexer does with trim_blocks
 * and lstrip_blocks on: `-` strips all whitespace on its side; without a sign a block or comment tag drops the
 * newline behind it, and the blanks before it when they are all that its line has; `+` keeps those. Variable tags
 * only know `-`. Inside a tag a closing `}}` or `%}` counts only when no bracket is open, so {{ {'a': {}}}} lexes. */
#include "template_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "utf8.h"

static bool fail_at (lexer *l, const char *what)
{
    return wl_fail (l->err, WL_ERROR_INPUT, "template line %u: %s", l->line, what);
}

bool jinja_lexer_start (lexer *l, const char *source, size_t length, arena *a, wl_error *err)
{
    *l = (lexer){.line = 1, .line_starting = true, .arena = a, .err = err};
    if (length > MAX_SOURCE_BYTES)
        return wl_fail (err, WL_ERROR_INPUT, "the template has %zu bytes: more than %d are not read", length,
                        MAX_SOURCE_BYTES);
    char *copy = jinja_arena_bytes (a, length + 1, err);
    if (!copy)
        return false;
    for (size_t i = 0; i < length;) {
        if (source[i] == '\r') {
            copy[l->length++] = '\n';
            i += i + 1 < length && source[i + 1] == '\n' ? 2 : 1;
            continue;
        }
        size_t n = utf8_length (source + i, length - i);
        if (n == 0)
            return wl_fail (err, WL_ERROR_INPUT, "the template is not UTF-8 (byte %zu)", i);
        memcpy (copy + l->length, source + i, n);
        l->length += n;
        i += n;
    }
    if (l->length && copy[l->length - 1] == '\n')
        l->length--;
    copy[l->length] = 0; /* so that looking one byte ahead is safe */
    l->source = copy;
    return true;
}

static void count_lines (lexer *l, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++)
        l->line += l->source[i] == '\n';
}

/* Moves to `to`, counting lines. */
static void move_to (lexer *l, size_t to)
{
    count_lines (l, l->at, to);
    l->at = to;
    l->line_starting = to > 0 && l->source[to - 1] == '\n';
}

static size_t skip_space (const lexer *l, size_t at)
{
    while (at < l->length) {
        const char *next = l->source + at;
        if (!jinja_is_space (jinja_next_code_point (&next)))
            break;
        at = (size_t) (next - l->source);
    }
    return at;
}

static bool starts (const lexer *l, size_t at, const char *text)
{
    size_t n = strlen (text);
    return at <= l->length && l->length - at >= n && memcmp (l->source + at, text, n) == 0;
}

/* Where the data before a tag ends, which starts at `begin`: less what the tag strips. */
static size_t data_end (const lexer *l, size_t from, size_t begin, char sign, bool is_variable, bool line_starting)
{
    const char *s = l->source;
    size_t end = begin;
    if (sign == '-') {
        while (end > from) {
            const char *previous = jinja_previous_character (s + from, s + end);
            if (!jinja_is_space (jinja_code_point_at (previous)))
                break;
            end = (size_t) (previous - s);
        }
        return end;
    }
    if (sign == '+' || is_variable)
        return end;
    size_t line = end;
    while (line > from && s[line - 1] != '\n')
        line--;
    if ((line > from || line_starting) && line < end && skip_space (l, line) >= end)
        return line;
    return end;
}

static void give_data (const lexer *l, token *out, uint32_t line, size_t from, size_t end)
{
    *out = (token){.kind = TOKEN_DATA, .line = line};
    out->value = value_text (l->source + from, end - from, 0);
}

/* `at` is behind an opening `{%` with its sign: where the tag `{% NAME %}` ends, 0 if this is another tag. `trims`:
 * whether `+%}` is allowed and a newline after a plain `%}` is part of it. */
static size_t whole_tag_end (const lexer *l, size_t at, const char *name, bool trims)
{
    at = skip_space (l, at);
    if (!starts (l, at, name))
        return 0;
    at = skip_space (l, at + strlen (name));
    if (starts (l, at, "-%}"))
        return skip_space (l, at + 3);
    if (trims && starts (l, at, "+%}"))
        return at + 3;
    if (starts (l, at, "%}"))
        return at + 2 + (trims && l->source[at + 2] == '\n' && at + 2 < l->length);
    return 0;
}

/* A raw block's text, as data. */
static bool lex_raw (lexer *l, token *out)
{
    size_t from = l->at;
    for (size_t at = from; at + 1 < l->length; at++) {
        if (!starts (l, at, "{%"))
            continue;
        char sign = l->source[at + 2];
        size_t end = whole_tag_end (l, at + 2 + (sign == '-' || sign == '+'), "endraw", true);
        if (!end)
            continue;
        give_data (l, out, l->line, from, data_end (l, from, at, sign, false, l->line_starting));
        move_to (l, end);
        l->in_raw = false;
        return true;
    }
    /* Nothing behind {% raw %} is no error: Jinja only misses an end when there is text that wants one. */
    give_data (l, out, l->line, from, from);
    l->in_raw = false;
    return from == l->length || fail_at (l, "Missing end of raw directive");
}

static bool skip_comment (lexer *l, size_t at)
{
    for (size_t i = at; i + 1 < l->length; i++) {
        if (l->source[i] != '#' || l->source[i + 1] != '}')
            continue;
        size_t end = i + 2;
        char sign = i > at ? l->source[i - 1] : 0;
        if (sign == '-')
            end = skip_space (l, end);
        else if (sign != '+' && end < l->length && l->source[end] == '\n')
            end++;
        move_to (l, end);
        return true;
    }
    return at == l->length || fail_at (l, "Missing end of comment tag");
}

/* The next tag's opening from `at` on; the source's length if there is none. */
static size_t find_tag (const lexer *l, size_t at)
{
    while (at + 1 < l->length) {
        const char *brace = memchr (l->source + at, '{', l->length - 1 - at);
        if (!brace)
            break;
        at = (size_t) (brace - l->source);
        if (brace[1] == '{' || brace[1] == '%' || brace[1] == '#')
            return at;
        at++;
    }
    return l->length;
}

/* Data up to the next tag, whose begin is left pending; comments vanish; out->kind is TOKEN_DATA, maybe empty. */
static bool lex_data (lexer *l, token *out)
{
    size_t from = l->at;
    size_t begin = find_tag (l, from);
    uint32_t line = l->line;
    bool line_starting = l->line_starting;
    if (begin == l->length) {
        give_data (l, out, line, from, begin);
        move_to (l, begin);
        return true;
    }
    char type = l->source[begin + 1], sign = l->source[begin + 2];
    size_t at = begin + 2 + (sign == '-' || sign == '+');
    give_data (l, out, line, from, data_end (l, from, begin, sign, type == '{', line_starting));
    move_to (l, at);
    if (type == '#')
        return skip_comment (l, at);
    size_t raw = type == '%' ? whole_tag_end (l, at, "raw", false) : 0;
    if (raw) {
        move_to (l, raw);
        l->in_raw = true;
        return true;
    }
    l->pending = type == '{' ? TOKEN_VARIABLE_BEGIN : TOKEN_BLOCK_BEGIN;
    return true;
}

/* -- Inside a tag ------------------------------------------------------------------------------ */

/* The tag's end, if it is here and no bracket is open. */
static bool lex_tag_end (lexer *l, token *out)
{
    if (l->n_brackets)
        return false;
    bool is_variable = l->inside == TOKEN_VARIABLE_BEGIN;
    const char *close = is_variable ? "}}" : "%}";
    size_t end;
    if (l->source[l->at] == '-' && starts (l, l->at + 1, close))
        end = skip_space (l, l->at + 3);
    else if (!is_variable && l->source[l->at] == '+' && starts (l, l->at + 1, close))
        end = l->at + 3;
    else if (starts (l, l->at, close))
        end = l->at + 2 + (!is_variable && l->at + 2 < l->length && l->source[l->at + 2] == '\n');
    else
        return false;
    *out = (token){.kind = is_variable ? TOKEN_VARIABLE_END : TOKEN_BLOCK_END, .line = l->line};
    l->inside = TOKEN_END;
    move_to (l, end);
    return true;
}

static int hex_digit (char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* \xhh, \uhhhh, \Uhhhhhhhh behind their letter. */
static bool unescape_hex (lexer *l, size_t *at, size_t end, unsigned digits, uint32_t *code)
{
    *code = 0;
    for (unsigned i = 0; i < digits; i++, (*at)++) {
        int digit = *at < end ? hex_digit (l->source[*at]) : -1;
        if (digit < 0)
            return fail_at (l, "truncated escape in a string: \\x wants 2 hexadecimal digits, \\u 4, \\U 8");
        *code = *code << 4 | (uint32_t) digit;
    }
    if (*code > 0x10ffff || (*code >= 0xd800 && *code <= 0xdfff))
        return fail_at (l, "an escape in a string is no character (a surrogate, or beyond U+10FFFF)");
    return true;
}

/* What follows a backslash, at *at. Writes at most 11 bytes. */
static bool unescape_one (lexer *l, size_t *at, size_t end, char **to)
{
    static const char letters[] = "\\'\"abfnrtv", meanings[] = "\\'\"\a\b\f\n\r\t\v";
    const char *s = l->source;
    char c = s[*at];
    const char *letter = c ? strchr (letters, c) : NULL;
    uint32_t code;
    if (letter) {
        (*at)++;
        *(*to)++ = meanings[letter - letters];
        return true;
    }
    if (c == '\n') {
        (*at)++; /* a continued line */
        return true;
    }
    if (c >= '0' && c <= '7') {
        code = 0;
        for (int i = 0; i < 3 && *at < end && s[*at] >= '0' && s[*at] <= '7'; i++)
            code = code * 8 + (uint32_t) (s[(*at)++] - '0');
    } else if (c == 'x' || c == 'u' || c == 'U') {
        (*at)++;
        if (!unescape_hex (l, at, end, c == 'x' ? 2 : c == 'u' ? 4 : 8, &code))
            return false;
    } else if (c == 'N') {
        return fail_at (l, "a string uses \\N{name}: write the character itself");
    } else if ((unsigned char) c >= 0x80) {
        /* Jinja escapes non-ASCII before unescaping, so that a backslash before it escapes the escape. */
        const char *next = s + *at;
        code = jinja_next_code_point (&next);
        *at = (size_t) (next - s);
        char escape[12];
        int n = snprintf (escape, sizeof escape,
                          code < 0x100     ? "\\x%02x"
                          : code < 0x10000 ? "\\u%04x"
                                           : "\\U%08x",
                          code);
        memcpy (*to, escape, (size_t) n);
        *to += n;
        return true;
    } else {
        *(*to)++ = '\\'; /* an unknown escape stays */
        return true;
    }
    *to += jinja_encode (code, *to);
    return true;
}

static bool lex_text (lexer *l, token *out)
{
    const char *s = l->source;
    size_t from = l->at + 1, end = from;
    size_t n_escapes = 0;
    for (; end < l->length && s[end] != s[l->at]; end++)
        if (s[end] == '\\' && end + 1 < l->length) {
            n_escapes++;
            end++;
        }
    if (end >= l->length)
        return fail_at (l, "a string is not closed");
    *out = (token){.kind = TOKEN_TEXT, .line = l->line};
    if (n_escapes == 0) {
        out->value = value_text (s + from, end - from, jinja_ascii_flag (s + from, end - from));
        move_to (l, end + 1);
        return true;
    }
    /* An escape takes 2 bytes of source or more and gives at most 11. */
    char *text = jinja_arena_bytes (l->arena, end - from + 10 * n_escapes, l->err);
    if (!text)
        return false;
    char *to = text;
    for (size_t at = from; at < end;) {
        if (s[at] != '\\') {
            *to++ = s[at++];
            continue;
        }
        at++;
        if (!unescape_one (l, &at, end, &to))
            return false;
    }
    out->value = value_text (text, (size_t) (to - text), jinja_ascii_flag (text, (size_t) (to - text)));
    move_to (l, end + 1);
    return true;
}

static bool is_digit (char c)
{
    return c >= '0' && c <= '9';
}

/* Digits with single underscores between them; `at` itself if there is none. */
static size_t skip_digits (const char *s, size_t at)
{
    while (is_digit (s[at])) {
        at++;
        if (s[at] == '_' && is_digit (s[at + 1]))
            at++;
    }
    return at;
}

/* Where a float that starts at `at` ends; 0 if it is none. The source is NUL-terminated. */
static size_t float_end (const char *s, size_t at)
{
    size_t end = skip_digits (s, at);
    bool has_fraction = s[end] == '.' && is_digit (s[end + 1]);
    if (has_fraction)
        end = skip_digits (s, end + 1);
    if (s[end] == 'e' || s[end] == 'E') {
        size_t exponent = end + 1 + (s[end + 1] == '+' || s[end + 1] == '-');
        if (is_digit (s[exponent]))
            return skip_digits (s, exponent);
    }
    return has_fraction ? end : 0;
}

static size_t integer_end (const char *s, size_t at, int *base)
{
    *base = 10;
    if (s[at] == '0') {
        char letter = s[at + 1] | 0x20;
        int b = letter == 'b' ? 2 : letter == 'o' ? 8 : letter == 'x' ? 16 : 0;
        size_t end = at + 2;
        while (b) {
            size_t digit = end + (s[end] == '_');
            int d = hex_digit (s[digit]);
            if (d < 0 || d >= b)
                break;
            end = digit + 1;
        }
        if (b && end > at + 2) {
            *base = b;
            return end;
        }
        for (end = at + 1; s[end] == '0' || (s[end] == '_' && s[end + 1] == '0'); end++)
            ;
        return end;
    }
    return skip_digits (s, at);
}

static bool lex_number (lexer *l, token *out)
{
    const char *s = l->source;
    char digits[512];
    int base = 0;
    bool after_dot = l->at > 0 && s[l->at - 1] == '.'; /* x.0.1 is two indexes */
    size_t end = after_dot ? 0 : float_end (s, l->at);
    if (!end)
        end = integer_end (s, l->at, &base);
    size_t n = 0;
    for (size_t i = l->at + (base != 0 && base != 10 ? 2 : 0); i < end; i++)
        if (s[i] != '_') {
            if (n + 1 == sizeof digits)
                return fail_at (l, "a number is too long");
            digits[n++] = s[i];
        }
    digits[n] = 0;
    *out = (token){.kind = TOKEN_NUMBER, .line = l->line};
    if (base == 0) {
        out->value = value_float (strtod (digits, NULL));
    } else {
        errno = 0;
        out->value = value_int (strtoll (digits, NULL, base));
        if (errno)
            return fail_at (l, "an integer does not fit in 64 bits");
    }
    move_to (l, end);
    return true;
}

static bool lex_name (lexer *l, token *out)
{
    size_t end = l->at;
    while (end < l->length) {
        const char *next = l->source + end;
        uint32_t code = jinja_next_code_point (&next);
        if (code != '_' && !jinja_is_alnum (code))
            break;
        end = (size_t) (next - l->source);
    }
    if (end == l->at) {
        char what[64];
        const char *next = l->source + l->at;
        uint32_t code = jinja_next_code_point (&next);
        snprintf (what, sizeof what, "unexpected character %.*s (U+%04X) in a tag",
                  (int) (next - l->source - (long) l->at), l->source + l->at, code);
        return fail_at (l, what);
    }
    *out = (token){.kind = TOKEN_NAME, .line = l->line};
    out->value = value_text (l->source + l->at, end - l->at, 0);
    out->value.flags = jinja_ascii_flag (out->value.as.text, out->value.length);
    move_to (l, end);
    return true;
}

static const struct {
    const char *text;
    token_kind kind;
} operators[] = {
    {"**", TOKEN_POW},      {"//", TOKEN_FLOORDIV}, {"==", TOKEN_EQ},      {"!=", TOKEN_NE},      {">=", TOKEN_GE},
    {"<=", TOKEN_LE},       {"+", TOKEN_ADD},       {"-", TOKEN_SUB},      {"*", TOKEN_MUL},      {"/", TOKEN_DIV},
    {"%", TOKEN_MOD},       {"~", TOKEN_TILDE},     {"[", TOKEN_LBRACKET}, {"]", TOKEN_RBRACKET}, {"(", TOKEN_LPAREN},
    {")", TOKEN_RPAREN},    {"{", TOKEN_LBRACE},    {"}", TOKEN_RBRACE},   {">", TOKEN_GT},       {"<", TOKEN_LT},
    {"=", TOKEN_ASSIGN},    {".", TOKEN_DOT},       {":", TOKEN_COLON},    {"|", TOKEN_PIPE},     {",", TOKEN_COMMA},
    {";", TOKEN_SEMICOLON},
};

static bool check_bracket (lexer *l, char c)
{
    char closing = c == '(' ? ')' : c == '[' ? ']' : c == '{' ? '}' : 0;
    if (closing) {
        if (l->n_brackets == sizeof l->brackets)
            return fail_at (l, "too many brackets are open");
        l->brackets[l->n_brackets++] = closing;
    } else if (c == ')' || c == ']' || c == '}') {
        char what[64];
        if (l->n_brackets && l->brackets[l->n_brackets - 1] == c) {
            l->n_brackets--;
            return true;
        }
        if (l->n_brackets)
            snprintf (what, sizeof what, "unexpected '%c', expected '%c'", c, l->brackets[l->n_brackets - 1]);
        else
            snprintf (what, sizeof what, "unexpected '%c'", c);
        return fail_at (l, what);
    }
    return true;
}

static bool lex_in_tag (lexer *l, token *out)
{
    move_to (l, skip_space (l, l->at));
    *out = (token){.kind = TOKEN_END, .line = l->line};
    if (l->at >= l->length || lex_tag_end (l, out))
        return true;
    char c = l->source[l->at];
    if (is_digit (c))
        return lex_number (l, out);
    if (c == '"' || c == '\'')
        return lex_text (l, out);
    for (size_t i = 0; i < sizeof operators / sizeof operators[0]; i++)
        if (starts (l, l->at, operators[i].text)) {
            out->kind = operators[i].kind;
            if (!check_bracket (l, c))
                return false;
            move_to (l, l->at + strlen (operators[i].text));
            return true;
        }
    return lex_name (l, out);
}

bool jinja_lexer_next (lexer *l, token *out)
{
    for (;;) {
        if (l->pending != TOKEN_END) {
            *out = (token){.kind = l->pending, .line = l->line};
            l->inside = l->pending;
            l->pending = TOKEN_END;
            return true;
        }
        if (l->inside != TOKEN_END)
            return lex_in_tag (l, out);
        if (l->in_raw) {
            if (!lex_raw (l, out))
                return false;
        } else if (l->at >= l->length) {
            *out = (token){.kind = TOKEN_END, .line = l->line};
            return true;
        } else if (!lex_data (l, out)) {
            return false;
        }
        if (out->value.length) {
            out->value.flags = jinja_ascii_flag (out->value.as.text, out->value.length);
            return true;
        }
    }
}
