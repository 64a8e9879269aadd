/* Tokenizers that GGUF files carry: byte-level BPE ("gpt2" with its pre-tokenizers) and SentencePiece ("llama").
 *
 * Built from metadata alone, so it works on vocabulary-only files. A tokenizer is immutable: any thread may use it at once
 * (each call makes its own PCRE2 match data). Detokenization streams through a wl_detokenizer, which holds back the bytes
 * of an incomplete UTF-8 character until the rest has come. */
#ifndef WL_ENGINE_TEXT_TOKENIZER_H
#define WL_ENGINE_TEXT_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../error.h"
#include "../gguf.h"

typedef struct wl_tokenizer wl_tokenizer;

/* Copies what it needs: the gguf may be freed after. NULL with WL_ERROR_INPUT naming the missing or unknown part (model, pre-tokenizer,
 * a token list of another length than its types, a merge that is no pair, …). */
wl_tokenizer *wl_tokenizer_new (const wl_gguf *gguf, wl_error *err);
void wl_tokenizer_free (wl_tokenizer **tokenizer);

size_t wl_tokenizer_n_tokens (const wl_tokenizer *tokenizer);
int32_t wl_tokenizer_bos (const wl_tokenizer *tokenizer); /* -1: none; likewise eos */
int32_t wl_tokenizer_eos (const wl_tokenizer *tokenizer);
/* Whether a generated `token` ends the answer: eos, eot, eom of the metadata, and control tokens known to end a turn
 * (<|im_end|>, <|eot_id|>, <end_of_turn>, <|end_of_text|>, …). */
bool wl_tokenizer_is_end (const wl_tokenizer *tokenizer, int32_t token);
bool wl_tokenizer_is_control (const wl_tokenizer *tokenizer, int32_t token);

/* The first id that does not stand for the same text in both, or -1: then they speak of the same tokens. Ids that only one of them has are different too, unless they are padding
 * (GGUF's type "unused"). */
int32_t wl_tokenizer_difference (const wl_tokenizer *a, const wl_tokenizer *b);

typedef struct wl_tokens {
    int32_t *ids; /* malloc'd */
    size_t count;
} wl_tokens;

/* Tokenizes `length` bytes (any bytes; invalid UTF-8 is tokenized byte for byte, never rejected).
 *  add_bos      whether the tokens that the model itself would add (BOS, EOS per tokenizer.ggml.add_*_token) are added
 *  parse_special whether the text of special tokens ("<|im_start|>") is recognised; false treats it as plain text
 * out->ids is replaced; the caller frees it. */
bool wl_tokenizer_encode (const wl_tokenizer *tokenizer, const char *text, size_t length, bool add_bos,
                          bool parse_special, wl_tokens *out, wl_error *err);

/* The bytes of one token; control tokens are empty unless `special`. The text is owned by the tokenizer; not NUL-terminated. False for an id
 * out of range. Undoes byte-level encoding, U+2581 and <0xXX>. */
bool wl_tokenizer_token_text (const wl_tokenizer *tokenizer, int32_t token, bool special, wl_text *out);

/* Streams tokens to text. */
typedef struct wl_detokenizer wl_detokenizer;
wl_detokenizer *wl_detokenizer_new (const wl_tokenizer *tokenizer, bool special, wl_error *err);
void wl_detokenizer_free (wl_detokenizer **detokenizer);
/* Adds a token; *out is the complete text that can be shown now (maybe empty), valid until the next call on it. A prefix of a UTF-8
 * character stays held; bytes that cannot become one are passed as they are. SentencePiece's leading space of a first token is dropped where
 * the model adds a space prefix. */
bool wl_detokenizer_add (wl_detokenizer *detokenizer, int32_t token, wl_text *out, wl_error *err);
/* What is still held, at the end of the answer. */
wl_text wl_detokenizer_flush (wl_detokenizer *detokenizer);

#endif
