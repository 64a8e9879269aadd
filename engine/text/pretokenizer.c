/* Cutting text into words by the steps of a scheme; see pretokenizer.h and pre_schemes.h.
 *
 * Matching runs with PCRE2's compiled code where the system allows it. Text is checked once: where it is not UTF-8, or
 * has characters newer than PCRE2's tables may be, a copy is matched in which these are replaced (see_character). */
#include "pretokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "../memory.h"
#include "new_characters.h"
#include "pre_schemes.h"
#include "utf8.h"

/* -- Compiling ------------------------------------------------------------------------------------------------------------ */

struct pretokenizer {
    const pre_scheme *scheme;
    pcre2_general_context *memory;
    pcre2_code *codes[MAX_PRE_STEPS];
    size_t n_steps;
};

static void *pcre2_take (size_t bytes, void *unused)
{
    (void) unused;
    return wl_new (1, bytes, NULL);
}

static void pcre2_give (void *memory, void *unused)
{
    (void) unused;
    free (memory);
}

static bool compile_step (pretokenizer *p, const pre_step *step, pcre2_compile_context *context, wl_error *err)
{
    int number;
    PCRE2_SIZE at;
    pcre2_code *code = pcre2_compile ((PCRE2_SPTR) step->expression, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP,
                                      &number, &at, context);
    if (!code) {
        char reason[128] = "";
        pcre2_get_error_message (number, (PCRE2_UCHAR *) reason, sizeof reason);
        return wl_fail (err, WL_ERROR_INTERNAL, "pre-tokenizer %s, step %zu, does not compile: %s at %zu",
                        p->scheme->name, p->n_steps + 1, reason, (size_t) at);
    }
    pcre2_jit_compile (code,
                       PCRE2_JIT_COMPLETE); /* where it is refused, matching interprets: slower, the same result */
    p->codes[p->n_steps++] = code;
    return true;
}

pretokenizer *pretokenizer_new (wl_text name, const char *path, wl_error *err)
{
    const pre_scheme *scheme = pre_scheme_find (name.length ? name : (wl_text){"default", 7});
    if (!scheme) {
        wl_fail (err, WL_ERROR_INPUT,
                 "%s: pre-tokenizer \"%.*s\" (tokenizer.ggml.pre) is not known to this version of Woolly", path,
                 name.length < 80 ? (int) name.length : 80, name.data);
        return NULL;
    }
    pcre2_compile_context *context = NULL;
    pretokenizer *p = wl_new (1, sizeof *p, err);
    if (!p)
        return NULL;
    bool ok = false;
    p->scheme = scheme;
    p->memory = pcre2_general_context_create (pcre2_take, pcre2_give, NULL);
    context = p->memory ? pcre2_compile_context_create (p->memory) : NULL;
    if (!context) {
        wl_fail (err, WL_ERROR_INTERNAL, "out of memory: a pre-tokenizer is wanted");
        goto done;
    }
    pcre2_set_newline (context, PCRE2_NEWLINE_LF);
    ok = true;
    for (size_t i = 0; ok && i < MAX_PRE_STEPS && scheme->steps[i].expression; i++)
        ok = compile_step (p, &scheme->steps[i], context, err);
done:
    pcre2_compile_context_free (context);
    if (!ok)
        pretokenizer_free (&p);
    return p;
}

void pretokenizer_free (pretokenizer **owned)
{
    pretokenizer *p = *owned;
    if (!p)
        return;
    for (size_t i = 0; i < p->n_steps; i++)
        pcre2_code_free (p->codes[i]);
    pcre2_general_context_free (p->memory);
    free (p);
    *owned = NULL;
}

pretokenizer_traits pretokenizer_get_traits (const pretokenizer *p)
{
    return p->scheme->traits;
}

/* -- Splitting ------------------------------------------------------------------------------------------------------------ */

static bool add_span (spans *list, size_t start, size_t end, wl_error *err)
{
    if (start == end)
        return true;
    if (list->count == list->room) {
        size_t room = list->room ? list->room * 2 : 64;
        span *grown = wl_resize (list->items, room, sizeof *grown, err);
        if (!grown)
            return false;
        list->items = grown;
        list->room = room;
    }
    list->items[list->count++] = (span){(uint32_t) start, (uint32_t) (end - start)};
    return true;
}

/* Cuts before each group of three of the digits in text[start, end), counted from the right. *done, where the last piece ended,
 * moves to the last cut. */
static bool cut_before_groups_of_3 (spans *list, const char *text, size_t start, size_t end, size_t *done,
                                    wl_error *err)
{
    size_t n_digits = 0;
    for (size_t at = start; at < end; at += utf8_length (text + at, end - at))
        n_digits++;
    for (size_t at = start; at < end; at += utf8_length (text + at, end - at), n_digits--) {
        if (n_digits % 3 != 0)
            continue;
        if (!add_span (list, *done, at, err))
            return false;
        *done = at;
    }
    return true;
}

/* Matches at or after `from` in the piece. 1: found; 0: no more; -1: failed. */
static int match_from (const pcre2_code *code, const char *piece, size_t length, size_t from, pcre2_match_data *match,
                       wl_error *err)
{
    int rc = pcre2_match (code, (PCRE2_SPTR) piece, length, from, PCRE2_NO_UTF_CHECK, match, NULL);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = pcre2_match (code, (PCRE2_SPTR) piece, length, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, match, NULL);
    if (rc == PCRE2_ERROR_NOMATCH)
        return 0;
    if (rc >= 0)
        return 1;
    char reason[128] = "";
    pcre2_get_error_message (rc, (PCRE2_UCHAR *) reason, sizeof reason);
    wl_fail (err, WL_ERROR_INTERNAL, "pre-tokenizer failed on a piece of %zu bytes: %s", length, reason);
    return -1;
}

/* Cuts one piece of `text` by one step; the pieces go to `out`. */
static bool cut_piece (const pcre2_code *code, pre_step_kind kind, const char *text, span piece,
                       pcre2_match_data *match, spans *out, wl_error *err)
{
    const PCRE2_SIZE *ends = pcre2_get_ovector_pointer (match);
    const size_t base = piece.start, length = piece.length;
    size_t done = base; /* text[base, done) is cut */
    for (size_t from = 0; from < length;) {
        int found = match_from (code, text + base, length, from, match, err);
        if (found < 0)
            return false;
        if (found == 0)
            break;
        size_t start = base + ends[0], end = base + ends[1];
        from = ends[1] > from ? ends[1]
                              : from + 1; /* no expression here matches emptiness; if one did, the loop must end */
        if (kind != STEP_BEFORE_GROUPS_OF_3) {
            if (!add_span (out, done, start, err))
                return false;
            done = start;
        }
        if (kind != STEP_MATCHES && !cut_before_groups_of_3 (out, text, start, end, &done, err))
            return false;
        if (kind != STEP_BEFORE_GROUPS_OF_3) {
            if (!add_span (out, done, end, err))
                return false;
            done = end;
        }
    }
    return add_span (out, done, base + length, err);
}

/* Splits valid UTF-8. */
static bool split_valid (const pretokenizer *p, const char *text, size_t length, spans *words, wl_error *err)
{
    bool ok = add_span (words, 0, length, err);
    for (size_t s = 0; ok && s < p->n_steps; s++) {
        pcre2_match_data *match = pcre2_match_data_create (1, p->memory);
        if (!match)
            return wl_fail (err, WL_ERROR_INTERNAL, "out of memory: match data is wanted");
        spans next = {0};
        for (size_t i = 0; ok && i < words->count; i++)
            ok = cut_piece (p->codes[s], p->scheme->steps[s].kind, text, words->items[i], match, &next, err);
        pcre2_match_data_free (match);
        free (words->items);
        *words = next;
    }
    return ok;
}

/* The character at `text` as it is matched: U+FFFD for a byte that is not UTF-8, a stand-in for a new character. Gives its bytes in
 * `text`; *seen_length is what is in `seen`. */
static size_t see_character (const char *text, size_t left, char seen[4], size_t *seen_length)
{
    size_t length = utf8_length (text, left);
    uint32_t code = length ? character_stand_in (utf8_code_point (text, length)) : 0xfffd;
    *seen_length = utf8_write (code, seen);
    return length ? length : 1;
}

/* Whether `text` can be matched as it is. */
static bool is_plain (const char *text, size_t length)
{
    char seen[4];
    size_t seen_length;
    for (size_t at = 0; at < length;) {
        if (!(text[at] & 0x80)) {
            at++;
            continue;
        }
        size_t step = see_character (text + at, length - at, seen, &seen_length);
        if (seen_length != step || memcmp (seen, text + at, step) != 0)
            return false;
        at += step;
    }
    return true;
}

/* Splits a copy of the characters as they are matched, and maps the words back. */
static bool split_seen (const pretokenizer *p, const char *text, size_t length, spans *words, wl_error *err)
{
    char seen[4], *copy = wl_new (length, 3, err); /* a bad byte becomes three, nothing else grows */
    if (!copy)
        return false;
    size_t n = 0, seen_length;
    for (size_t at = 0; at < length;) {
        at += see_character (text + at, length - at, seen, &seen_length);
        memcpy (copy + n, seen, seen_length);
        n += seen_length;
    }
    bool ok = split_valid (p, copy, n, words, err);
    size_t at = 0, copied = 0; /* the same place in text and in copy */
    for (size_t i = 0; ok && i < words->count; i++) {
        span *word = &words->items[i];
        size_t start = at, end = (size_t) word->start + word->length;
        while (copied < end) {
            at += see_character (text + at, length - at, seen, &seen_length);
            copied += seen_length;
        }
        *word = (span){(uint32_t) start, (uint32_t) (at - start)};
    }
    free (copy);
    return ok;
}

bool pretokenizer_split (const pretokenizer *p, const char *text, size_t length, spans *words, wl_error *err)
{
    *words = (spans){0};
    if (length > MAX_TEXT_BYTES)
        return wl_fail (err, WL_ERROR_INPUT, "a text of %zu bytes is too long to tokenize: at most %d are taken",
                        length, MAX_TEXT_BYTES);
    return is_plain (text, length) ? split_valid (p, text, length, words, err)
                                   : split_seen (p, text, length, words, err);
}
