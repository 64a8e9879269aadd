/* From tokens to text; see tokenizer.h.
 *
 * Tokens end anywhere inside a UTF-8 character. What could still become one is held back, at most three bytes; all else is
 * passed on at once, valid or not. */
#include <stdlib.h>
#include <string.h>

#include "../memory.h"
#include "utf8.h"
#include "vocabulary.h"

struct wl_detokenizer {
    const wl_tokenizer *tokenizer;
    bool special;
    bool has_text; /* some token has given text before: a space is no longer the prefix's */
    char *text;    /* what the last call gave out, then what it held back */
    size_t shown, held, room;
};

bool wl_tokenizer_token_text (const wl_tokenizer *tokenizer, int32_t token, bool special, wl_text *out)
{
    *out = (wl_text){"", 0};
    if (token < 0 || (size_t) token >= tokenizer->n_tokens)
        return false;
    const vocabulary_entry *k = &tokenizer->tokens[token];
    if (special || k->type == TOKEN_NORMAL || k->type == TOKEN_USER_DEFINED || k->type == TOKEN_BYTE)
        *out = k->text;
    return true;
}

wl_detokenizer *wl_detokenizer_new (const wl_tokenizer *tokenizer, bool special, wl_error *err)
{
    wl_detokenizer *d = wl_new (1, sizeof *d, err);
    if (!d)
        return NULL;
    d->tokenizer = tokenizer;
    d->special = special;
    return d;
}

void wl_detokenizer_free (wl_detokenizer **detokenizer)
{
    if (!*detokenizer)
        return;
    free ((*detokenizer)->text);
    free (*detokenizer);
    *detokenizer = NULL;
}

/* Where the unfinished character at the end of `text` starts; `length` if there is none. */
static size_t cut_off_at (const char *text, size_t length)
{
    for (size_t back = 1; back <= 3 && back <= length; back++) {
        uint8_t byte = (uint8_t) text[length - back];
        if ((byte & 0xc0) == 0x80)
            continue;
        return utf8_is_cut_off (text + length - back, back) ? length - back : length;
    }
    return length;
}

bool wl_detokenizer_add (wl_detokenizer *detokenizer, int32_t token, wl_text *out, wl_error *err)
{
    wl_detokenizer *d = detokenizer;
    wl_text text;
    *out = (wl_text){"", 0};
    if (!wl_tokenizer_token_text (d->tokenizer, token, d->special, &text))
        return wl_fail (err, WL_ERROR_INTERNAL, "token %d is outside the vocabulary of %zu tokens", token,
                        d->tokenizer->n_tokens);
    if (!d->has_text && text.length > 0) {
        d->has_text = true;
        if (d->tokenizer->adds_space_prefix && text.data[0] == ' ')
            text = (wl_text){text.data + 1, text.length - 1};
    }
    size_t length = d->held + text.length;
    if (length > d->room) {
        char *grown = wl_resize (d->text, length < 64 ? 64 : length * 2, 1, err);
        if (!grown)
            return false;
        d->room = length < 64 ? 64 : length * 2;
        d->text = grown;
    }
    if (length == 0)
        return true;
    memmove (d->text, d->text + d->shown, d->held);
    memcpy (d->text + d->held, text.data, text.length);
    d->shown = cut_off_at (d->text, length);
    d->held = length - d->shown;
    *out = (wl_text){d->text, d->shown};
    return true;
}

wl_text wl_detokenizer_flush (wl_detokenizer *detokenizer)
{
    wl_text rest = {detokenizer->held ? detokenizer->text + detokenizer->shown : "", detokenizer->held};
    detokenizer->held = 0;
    return rest;
}
