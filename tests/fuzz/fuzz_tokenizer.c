/* Texts for tokenizers, and vocabularies for texts.
 *
 * Input that starts with "GGUF" is a vocabulary, for a text that holds pieces of it. Other input is a text, behind a byte that chooses
 * the pre-tokenizer and the kind of tokenizer, all built on one small vocabulary: words must cover the text, and tokens must give it
 * back byte for byte. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/text/pretokenizer.h"
#include "engine/text/tokenizer.h"
#include "tests/unit/gguf_builder.h"

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

static const char *const pre_names[] = {
    "default",   "gpt-2", "llama-bpe", "qwen2",      "qwen35",     "deepseek-llm", "deepseek-coder", "deepseek-v3",
    "falcon",    "bloom", "viking",    "tekken",     "gpt-4o",     "tiny_aya",     "kimi-k2",        "superbpe",
    "starcoder", "afmoe", "youtu",     "exaone-moe", "bailingmoe", "seed-coder",   "jais-2",         "gemma4"};
enum { N_NAMES = sizeof pre_names / sizeof pre_names[0], N_KINDS = N_NAMES + 1 };

/* One tokenizer for each pre-tokenizer, and SentencePiece last. Made on the first input, kept until the process ends. */
static wl_tokenizer *tokenizers[N_KINDS];

static void write_utf8 (unsigned code, char out[3])
{
    size_t n = 0;
    if (code >= 0x80)
        out[n++] = (char) (0xc0 | code >> 6);
    out[n++] = (char) (code >= 0x80 ? 0x80 | (code & 0x3f) : code);
    out[n] = 0;
}

static unsigned gpt2_code (unsigned byte)
{
    return byte <= 0x20                   ? 0x100 + byte
           : byte >= 0x7f && byte <= 0xa0 ? 0x121 + byte - 0x7f
           : byte == 0xad                 ? 0x143
                                          : byte;
}

static wl_tokenizer *make_tokenizer (size_t kind)
{
    static char texts[300][16];
    const char *pointers[300];
    static const char *const more[] = {"th", "the", "Ġthe", "aa", "aaaa",    "ĠĠ",
                                       "ll", "in",  "ing",  "Ġ",  "<|end|>", "<t>"};
    static const char *const merges[] = {"t h", "th e", "Ġ the", "a a", "aa aa", "Ġ Ġ", "l l", "i n", "in g"};
    int32_t types[300];
    float scores[300];
    bool is_raw = kind == N_NAMES || strcmp (pre_names[kind], "gemma4") == 0;
    size_t n = 0, length;
    for (; n < 256; n++) {
        if (is_raw)
            snprintf (texts[n], sizeof texts[n], "<0x%02X>", (unsigned) n);
        else
            write_utf8 (gpt2_code ((unsigned) n), texts[n]);
        types[n] = is_raw ? 6 : 1;
    }
    for (size_t i = 0; i < sizeof more / sizeof more[0]; i++, n++) {
        const char *text = more[i];
        if (is_raw && strncmp (text, "Ġ", strlen ("Ġ")) == 0)
            snprintf (texts[n], sizeof texts[n], "▁%s", strcmp (text, "ĠĠ") == 0 ? "▁" : text + strlen ("Ġ"));
        else
            snprintf (texts[n], sizeof texts[n], "%s", text);
        types[n] = text[0] == '<' ? (text[1] == '|' ? 3 : 4) : 1;
    }
    for (size_t i = 0; i < n; i++) {
        pointers[i] = texts[i];
        scores[i] = -(float) i;
    }
    gguf_builder g = new_builder ();
    add_text (&g, "tokenizer.ggml.model", kind == N_NAMES ? "llama" : "gpt2");
    add_text (&g, "tokenizer.ggml.pre", kind == N_NAMES ? "default" : pre_names[kind]);
    add_texts (&g, "tokenizer.ggml.tokens", pointers, n);
    add_array (&g, "tokenizer.ggml.token_type", 5, n, types, n * sizeof types[0]);
    add_array (&g, "tokenizer.ggml.scores", 6, n, scores, n * sizeof scores[0]);
    add_texts (&g, "tokenizer.ggml.merges", merges, is_raw ? 0 : sizeof merges / sizeof merges[0]);
    add_bool (&g, "tokenizer.ggml.add_space_prefix", 0);
    uint8_t *file = build (&g, &length);
    wl_gguf *gguf = wl_gguf_open_memory (file, length, "own", NULL);
    wl_tokenizer *t = gguf ? wl_tokenizer_new (gguf, NULL) : NULL;
    wl_gguf_free (&gguf);
    free (file);
    if (!t)
        __builtin_trap ();
    return t;
}

/* Tokens of `text`, if it can be tokenized; with `returns`, their bytes must be the text's. */
static void encode_and_return (const wl_tokenizer *t, const char *text, size_t length, bool returns)
{
    wl_error err = {0};
    wl_tokens tokens;
    if (!wl_tokenizer_encode (t, text, length, !returns, true, &tokens, &err))
        __builtin_trap ();
    wl_detokenizer *d = wl_detokenizer_new (t, true, NULL);
    size_t at = 0;
    for (size_t i = 0; d && i <= tokens.count; i++) {
        wl_text part = i == tokens.count ? wl_detokenizer_flush (d) : (wl_text){"", 0};
        if (i < tokens.count && !wl_detokenizer_add (d, tokens.ids[i], &part, NULL))
            __builtin_trap ();
        if (returns && (part.length > length - at || memcmp (text + at, part.data, part.length) != 0))
            __builtin_trap ();
        at += part.length;
    }
    if (returns && at != length)
        __builtin_trap ();
    wl_detokenizer_free (&d);
    free (tokens.ids);
}

static void try_vocabulary (const uint8_t *data, size_t size)
{
    wl_gguf *gguf = wl_gguf_open_header (data, size, "fuzz", NULL);
    wl_error err = {0};
    wl_tokenizer *t = gguf ? wl_tokenizer_new (gguf, &err) : NULL;
    wl_gguf_free (&gguf);
    if (!t)
        return;
    size_t start = size > 400 ? size - 400 : 0;
    encode_and_return (t, (const char *) data + start, size - start, false);
    wl_tokenizer_free (&t);
}

static void check_words (size_t kind, const char *text, size_t length)
{
    spans words;
    size_t at = 0;
    pretokenizer *p = pretokenizer_new ((wl_text){pre_names[kind], strlen (pre_names[kind])}, "own", NULL);
    if (!p || !pretokenizer_split (p, text, length, &words, NULL))
        __builtin_trap ();
    for (size_t i = 0; i < words.count; i++) {
        if (words.items[i].start != at || words.items[i].length == 0)
            __builtin_trap ();
        at += words.items[i].length;
    }
    if (at != length)
        __builtin_trap ();
    free (words.items);
    pretokenizer_free (&p);
}

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
    if (size >= 4 && memcmp (data, "GGUF", 4) == 0) {
        try_vocabulary (data, size);
        return 0;
    }
    if (size < 2)
        return 0;
    size_t kind = data[0] % N_KINDS;
    if (!tokenizers[kind])
        tokenizers[kind] = make_tokenizer (kind);
    if (kind < N_NAMES && data[1] % 8 == 0) /* compiling takes longer than the rest */
        check_words (kind, (const char *) data + 1, size - 1);
    bool is_raw = kind == N_NAMES || strcmp (pre_names[kind], "gemma4") == 0;
    bool has_mark = is_raw && memmem (data + 1, size - 1, "\xe2\x96\x81", 3); /* U+2581 comes back as a space */
    encode_and_return (tokenizers[kind], (const char *) data + 1, size - 1, !has_mark);
    return 0;
}
