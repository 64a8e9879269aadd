/* Cutting text into words by the steps of a scheme; see pretokenizer.h and pre_schemes.h.
 *
 * Matching runs with PCRE2's compiled code where the system allows it. Text is checked to be UTF-8 once; text that is not is
 * matched as a copy in which each bad byte is U+FFFD. */
#include "pretokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "../memory.h"
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

/* Cuts the digits in [start, end) so that every piece but the first has three. */
static bool add_groups_of_3 (spans *list, const char *text, size_t start, size_t end, wl_error *err)
{
    size_t n_digits = 0;
    for (size_t at = start; at < end; at += utf8_length (text + at, end - at))
        n_digits++;
    size_t from = start;
    for (size_t at = start; at < end; n_digits--) {
        if (n_digits % 3 == 0) {
            if (!add_span (list, from, at, err))
                return false;
            from = at;
        }
        at += utf8_length (text + at, end - at);
    }
    return add_span (list, from, end, err);
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
    size_t base = piece.start, length = piece.length;
    size_t done = 0, from = 0;
    while (from < length) {
        int found = match_from (code, text + base, length, from, match, err);
        if (found < 0)
            return false;
        if (found == 0)
            break;
        if (ends[0] == ends[1]) { /* no expression here matches emptiness; an endless loop is no answer if one did */
            from = ends[1] + 1;
            continue;
        }
        if (!add_span (out, base + done, base + ends[0], err))
            return false;
        if (!(kind == STEP_GROUPS_OF_3 ? add_groups_of_3 (out, text, base + ends[0], base + ends[1], err)
                                       : add_span (out, base + ends[0], base + ends[1], err)))
            return false;
        done = from = ends[1];
    }
    return add_span (out, base + done, base + length, err);
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

/* Length of the valid UTF-8 at the start of `text`. */
static size_t valid_prefix (const char *text, size_t length)
{
    size_t at = 0;
    while (at < length) {
        size_t n = (text[at] & 0x80) ? utf8_length (text + at, length - at) : 1;
        if (n == 0)
            break;
        at += n;
    }
    return at;
}

/* Splits a copy in which every byte that is not UTF-8 stands as U+FFFD, and maps the words back. */
static bool split_invalid (const pretokenizer *p, const char *text, size_t length, spans *words, wl_error *err)
{
    char *copy = wl_new (length, 3, err);
    if (!copy)
        return false;
    size_t n = 0;
    for (size_t at = 0; at < length;) {
        size_t step = utf8_length (text + at, length - at);
        memcpy (copy + n, step ? text + at : "\xef\xbf\xbd", step ? step : 3);
        n += step ? step : 3;
        at += step ? step : 1;
    }
    bool ok = split_valid (p, copy, n, words, err);
    size_t at = 0, copied = 0; /* the same place in text and in copy */
    for (size_t i = 0; ok && i < words->count; i++) {
        span *word = &words->items[i];
        size_t start = at, end = (size_t) word->start + word->length;
        while (copied < end) {
            size_t step = utf8_length (text + at, length - at);
            copied += step ? step : 3;
            at += step ? step : 1;
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
    if (valid_prefix (text, length) == length)
        return split_valid (p, text, length, words, err);
    return split_invalid (p, text, length, words, err);
}
