/* From text to tokens; see tokenizer.h and vocabulary.h.
 *
 * Special tokens are found first, the longest at the leftmost place; what lies between them is cut into words by the
 * pre-tokenizer (SentencePiece takes it whole) and merged. */
#include <stdlib.h>
#include <string.h>

#include "../memory.h"
#include "vocabulary.h"

#define SPACE_MARK "\xe2\x96\x81" /* U+2581, SentencePiece's space */

typedef struct encoder {
    const wl_tokenizer *t;
    merger merger;
    id_list ids;
    char *marked; /* text with its spaces marked */
    size_t marked_room;
    wl_error *err;
} encoder;

/* Replaces spaces by U+2581, and puts one in front if `prefix`. */
static bool mark_spaces (encoder *e, const char *text, size_t length, bool prefix, size_t *marked_length)
{
    size_t room = (length + 1) * 3, n = 0;
    if (room > e->marked_room) {
        char *grown = wl_resize (e->marked, room, 1, e->err);
        if (!grown)
            return false;
        e->marked = grown;
        e->marked_room = room;
    }
    if (prefix) {
        memcpy (e->marked, SPACE_MARK, 3);
        n = 3;
    }
    for (size_t i = 0; i < length; i++) {
        if (text[i] == ' ') {
            memcpy (e->marked + n, SPACE_MARK, 3);
            n += 3;
        } else {
            e->marked[n++] = text[i];
        }
    }
    *marked_length = n;
    return true;
}

/* A word that becomes one token without merging. */
static bool find_whole_word (const wl_tokenizer *t, const char *word, size_t length, int32_t *id)
{
    uint32_t piece;
    bool is_whole = t->traits.ignores_merges;
    if (!is_whole && t->traits.joins_newlines) {
        is_whole = true;
        for (size_t i = 0; i < length; i++)
            is_whole &= word[i] == '\n';
    }
    if (!is_whole || length > t->longest_piece || !wl_name_table_find (&t->pieces, (wl_text){word, length}, &piece))
        return false;
    *id = piece_token (t, piece);
    return *id >= 0;
}

static bool encode_words (encoder *e, const char *text, size_t length)
{
    spans words;
    bool ok = pretokenizer_split (e->t->pretokenizer, text, length, &words, e->err);
    for (size_t i = 0; ok && i < words.count; i++) {
        const char *word = text + words.items[i].start;
        size_t word_length = words.items[i].length;
        int32_t id;
        if (find_whole_word (e->t, word, word_length, &id))
            ok = add_id (&e->ids, id, e->err);
        else
            ok = merge_word (e->t, &e->merger, word, word_length, &e->ids, e->err);
    }
    free (words.items);
    return ok;
}

/* Text between special tokens. */
static bool encode_plain (encoder *e, const char *text, size_t length)
{
    size_t n;
    if (length == 0)
        return true;
    switch (e->t->kind) {
    case KIND_BYTE_BPE:
        return encode_words (e, text, length);
    case KIND_RAW_BPE:
        return mark_spaces (e, text, length, false, &n) && encode_words (e, e->marked, n);
    case KIND_SPM:
        return mark_spaces (e, text, length, e->t->adds_space_prefix, &n) &&
               merge_word (e->t, &e->merger, e->marked, n, &e->ids, e->err);
    }
    return false;
}

/* White space as tokens that strip their surroundings see it. */
static bool is_space (char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool encode_all (encoder *e, const char *text, size_t length, const special_list *specials)
{
    const wl_tokenizer *t = e->t;
    size_t plain = 0, at = 0; /* text[plain, at) holds no special token */
    while (at < length) {
        int32_t id = match_special (t, specials, text + at, length - at);
        if (id < 0) {
            at++;
            continue;
        }
        size_t end = at;
        while (t->tokens[id].strips_left && end > plain && is_space (text[end - 1]))
            end--;
        if (!encode_plain (e, text + plain, end - plain) || !add_id (&e->ids, id, e->err))
            return false;
        at += t->tokens[id].literal.length;
        while (t->tokens[id].strips_right && at < length && is_space (text[at]))
            at++;
        plain = at;
    }
    return encode_plain (e, text + plain, length - plain);
}

bool wl_tokenizer_encode (const wl_tokenizer *tokenizer, const char *text, size_t length, bool add_bos,
                          bool parse_special, wl_tokens *out, wl_error *err)
{
    encoder e = {.t = tokenizer, .err = err};
    *out = (wl_tokens){NULL, 0};
    if (length > MAX_TEXT_BYTES / 3)
        return wl_fail (err, WL_ERROR_INPUT, "a text of %zu bytes is too long to tokenize: at most %d are taken",
                        length, MAX_TEXT_BYTES / 3);
    bool ok = !(add_bos && tokenizer->adds_bos && tokenizer->bos >= 0) || add_id (&e.ids, tokenizer->bos, err);
    ok = ok && encode_all (&e, text, length, parse_special ? &tokenizer->all_specials : &tokenizer->user_specials);
    if (ok && add_bos && tokenizer->adds_eos && tokenizer->eos >= 0)
        ok = add_id (&e.ids, tokenizer->eos, err);
    merger_free (&e.merger);
    free (e.marked);
    if (!ok) {
        free (e.ids.items);
        return false;
    }
    *out = (wl_tokens){e.ids.items, e.ids.count};
    return true;
}
