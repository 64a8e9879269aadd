/* Pre-tokenizers: the regular expressions by which byte-level BPE models cut text into words before merging. Private to
 * engine/text. */
#ifndef ENGINE_TEXT_PRETOKENIZER_H
#define ENGINE_TEXT_PRETOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../error.h"
#include "../gguf.h"

enum { MAX_TEXT_BYTES = 1 << 30 }; /* so that three times as much can be counted in 32 bits */

typedef struct pretokenizer pretokenizer;

/* What a name in tokenizer.ggml.pre also says about its models. */
typedef struct pretokenizer_traits {
    bool adds_bos;        /* unless the metadata says otherwise */
    bool ignores_merges;  /* a word that is a token becomes it, whatever the merges say */
    bool is_raw;          /* tokens are UTF-8 with U+2581 for spaces, as SentencePiece's, not byte-level */
    bool always_adds_bos; /* whatever the metadata says */
    bool joins_newlines;  /* newlines that together are a token become it, whatever the merges say */
    bool merges_by_id;    /* where the file has no merges, those with the lower id go first */
} pretokenizer_traits;

typedef struct span {
    uint32_t start, length;
} span;

typedef struct spans {
    span *items;
    size_t count, room;
} spans;

/* Compiles the pre-tokenizer called `name` (empty: "default"). NULL with WL_ERROR_INPUT naming it if it is unknown. */
pretokenizer *pretokenizer_new (wl_text name, const char *path, wl_error *err);
void pretokenizer_free (pretokenizer **owned);
pretokenizer_traits pretokenizer_get_traits (const pretokenizer *p);

/* Cuts `text` (any bytes, at most MAX_TEXT_BYTES) into words that cover it without gaps; words->items is replaced, the caller frees it.
 * Bytes that are not UTF-8 are classified as U+FFFD is. Thread: any. */
bool pretokenizer_split (const pretokenizer *p, const char *text, size_t length, spans *words, wl_error *err);

#endif
