/* Tokenizers and detokenizers: against a slow and plain implementation of merging, against words cut by hand, and, where the shared
 * vocabularies are at hand, against the ids of the models' own tokenizers. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/memory.h"
#include "engine/text/pretokenizer.h"
#include "engine/text/tokenizer.h"
#include "tests/unit/gguf_builder.h"

/* -- Vocabularies of our own ------------------------------------------------------------------------------------------------- */

enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER = 4, UNUSED = 5, BYTE = 6, MAX_TOKENS = 1000 };

typedef struct vocabulary {
    char texts[MAX_TOKENS][40];
    int32_t types[MAX_TOKENS];
    float scores[MAX_TOKENS];
    size_t n;
    char merges[MAX_TOKENS][80];
    size_t n_merges;
} vocabulary;

static int32_t add (vocabulary *v, const char *text, int32_t type, float score)
{
    assert_true (v->n < MAX_TOKENS && strlen (text) < sizeof v->texts[0]);
    snprintf (v->texts[v->n], sizeof v->texts[0], "%s", text);
    v->types[v->n] = type;
    v->scores[v->n] = score;
    return (int32_t) v->n++;
}

/* A byte as GPT-2 writes it. */
static void write_byte (unsigned byte, char out[3])
{
    unsigned code = byte;
    if (byte <= 0x20)
        code = 0x100 + byte;
    else if (byte >= 0x7f && byte <= 0xa0)
        code = 0x121 + byte - 0x7f;
    else if (byte == 0xad)
        code = 0x143;
    size_t n = 0;
    if (code >= 0x80)
        out[n++] = (char) (0xc0 | code >> 6);
    out[n++] = (char) (code >= 0x80 ? 0x80 | (code & 0x3f) : code);
    out[n] = 0;
}

/* Merges "left right" (written as GPT-2 does) and the token it gives. */
static void add_merge (vocabulary *v, const char *left, const char *right)
{
    char text[80];
    snprintf (v->merges[v->n_merges++], sizeof v->merges[0], "%s %s", left, right);
    snprintf (text, sizeof text, "%s%s", left, right);
    for (size_t i = 0; i < v->n; i++)
        if (strcmp (v->texts[i], text) == 0)
            return;
    add (v, text, NORMAL, 0);
}

/* The 256 bytes, ids 0 to 255, then some merges and special tokens. */
static void make_byte_bpe (vocabulary *v)
{
    static const char *const merges[][2] = {
        {"t", "h"},     {"th", "e"}, {"Ġ", "the"}, {"h", "e"},   {"l", "l"},   {"he", "ll"}, {"hell", "o"},
        {"Ġ", "w"},     {"o", "r"},  {"Ġw", "or"}, {"l", "d"},   {"e", "l"},   {"a", "a"},   {"aa", "aa"},
        {"aaaa", "aa"}, {"Ã", "©"},  {"Ġ", "Ġ"},   {"ĠĠ", "ĠĠ"}, {"1", "2"},   {"'", "s"},   {"i", "n"},
        {"in", "g"},    {"Ċ", "Ċ"},  {"o", "o"},   {"b", "a"},   {"ba", "na"}, {"n", "a"}};
    memset (v, 0, sizeof *v);
    for (unsigned b = 0; b < 256; b++) {
        char text[3];
        write_byte (b, text);
        add (v, text, NORMAL, 0);
    }
    for (size_t i = 0; i < sizeof merges / sizeof merges[0]; i++)
        add_merge (v, merges[i][0], merges[i][1]);
    add (v, "<|endoftext|>", CONTROL, 0);
    add (v, "<|im_start|>", CONTROL, 0);
    add (v, "<|im_end|>", NORMAL, 0); /* a conversion's mistake */
    add (v, "<tool>", USER, 0);
    add (v, "<tool>>", USER, 0);
    add (v, "<|unk|>", UNKNOWN, 0);
    add (v, "<|spare|>", UNUSED, 0);
}

static int32_t id_of (const vocabulary *v, const char *text)
{
    for (size_t i = 0; i < v->n; i++)
        if (strcmp (v->texts[i], text) == 0)
            return (int32_t) i;
    fail_msg ("no token %s", text);
    return -1;
}

/* The metadata of a vocabulary; the caller adds more. `pre` may be NULL. */
static gguf_builder builder_of (const vocabulary *v, const char *model, const char *pre)
{
    gguf_builder g = new_builder ();
    const char **texts = malloc (MAX_TOKENS * sizeof *texts);
    assert_non_null (texts);
    add_text (&g, "tokenizer.ggml.model", model);
    if (pre)
        add_text (&g, "tokenizer.ggml.pre", pre);
    for (size_t i = 0; i < v->n; i++)
        texts[i] = v->texts[i];
    add_texts (&g, "tokenizer.ggml.tokens", texts, v->n);
    add_array (&g, "tokenizer.ggml.token_type", 5, v->n, v->types, v->n * sizeof v->types[0]);
    if (strcmp (model, "llama") == 0)
        add_array (&g, "tokenizer.ggml.scores", 6, v->n, v->scores, v->n * sizeof v->scores[0]);
    for (size_t i = 0; i < v->n_merges; i++)
        texts[i] = v->merges[i];
    if (strcmp (model, "llama") != 0)
        add_texts (&g, "tokenizer.ggml.merges", texts, v->n_merges);
    free (texts);
    return g;
}

static wl_tokenizer *tokenizer_of (gguf_builder *g, wl_error *err)
{
    size_t length;
    wl_error own = {0};
    uint8_t *file = build (g, &length);
    wl_gguf *gguf = wl_gguf_open_memory (file, length, "vocabulary.gguf", &own);
    if (!gguf)
        fail_msg ("%s", own.text);
    wl_tokenizer *t = wl_tokenizer_new (gguf, err ? err : &own);
    if (!t && !err)
        fail_msg ("%s", own.text);
    wl_gguf_free (&gguf);
    free (file); /* the tokenizer must not need it any more */
    return t;
}

static wl_tokenizer *make_tokenizer (const vocabulary *v, const char *model, const char *pre)
{
    gguf_builder g = builder_of (v, model, pre);
    return tokenizer_of (&g, NULL);
}

static wl_tokens encode (const wl_tokenizer *t, const char *text, size_t length, bool bos, bool special)
{
    wl_tokens tokens;
    wl_error err = {0};
    char *exact = malloc (length ? length : 1); /* so that a read past the end is seen */
    assert_non_null (exact);
    memcpy (exact, text, length);
    bool done = wl_tokenizer_encode (t, exact, length, bos, special, &tokens, &err);
    free (exact);
    if (!done)
        fail_msg ("%s", err.text);
    return tokens;
}

/* Expects the tokens of `text` to be the given ones, ended by -1. */
static void assert_tokens (const wl_tokenizer *t, const char *text, bool bos, bool special, const int32_t *expected)
{
    wl_tokens tokens = encode (t, text, strlen (text), bos, special);
    size_t n = 0;
    while (expected[n] >= 0)
        n++;
    bool same = tokens.count == n && (n == 0 || memcmp (tokens.ids, expected, n * sizeof *expected) == 0);
    if (!same) {
        print_error ("\"%s\":", text);
        for (size_t i = 0; i < tokens.count; i++)
            print_error (" %d", tokens.ids[i]);
        print_error (" instead of");
        for (size_t i = 0; i < n; i++)
            print_error (" %d", expected[i]);
        print_error ("\n");
    }
    free (tokens.ids);
    assert_true (same);
}

#define IDS(...) ((const int32_t[]){__VA_ARGS__, -1})
#define NO_IDS ((const int32_t[]){-1})

/* -- Merging ------------------------------------------------------------------------------------------------------------------- */

/* Merges the bytes of one word as the definition says, looking at all pairs each time; gives ids. */
static size_t merge_slowly (const vocabulary *v, const char *word, size_t length, int32_t *ids)
{
    static char parts[4096][40];
    size_t n = 0;
    for (size_t i = 0; i < length; i++)
        write_byte ((uint8_t) word[i], parts[n++]);
    for (;;) {
        size_t best = v->n_merges, at = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            char pair[100];
            snprintf (pair, sizeof pair, "%.39s %.39s", parts[i], parts[i + 1]);
            for (size_t m = 0; m < best; m++)
                if (strcmp (v->merges[m], pair) == 0) {
                    best = m;
                    at = i;
                }
        }
        if (best == v->n_merges)
            break;
        char both[80];
        snprintf (both, sizeof both, "%.39s%.39s", parts[at], parts[at + 1]);
        memcpy (parts[at], both, sizeof parts[at]);
        memmove (parts[at + 1], parts[at + 2], (n - at - 2) * sizeof parts[0]);
        n--;
    }
    for (size_t i = 0; i < n; i++)
        ids[i] = id_of (v, parts[i]);
    return n;
}

static void merges_go_by_rank_and_then_from_the_left (void **state)
{
    (void) state;
    static vocabulary v;
    static int32_t expected[4096];
    make_byte_bpe (&v);
    wl_tokenizer *t = make_tokenizer (&v, "gpt2", "gpt-2");
    srand (7);
    for (int round = 0; round < 3000; round++) {
        char word[200];
        size_t n = 1 + (size_t) rand () % (round % 10 ? 20 : 199);
        const char *letters = round % 3 ? "abnhelotring" : "ahe";
        for (size_t i = 0; i < n; i++)
            word[i] = letters[(size_t) rand () % strlen (letters)];
        size_t n_expected = merge_slowly (&v, word, n, expected);
        wl_tokens tokens = encode (t, word, n, false, true);
        assert_int_equal (tokens.count, n_expected);
        assert_memory_equal (tokens.ids, expected, n_expected * sizeof *expected);
        free (tokens.ids);
    }
    wl_tokenizer_free (&t);
    assert_null (t);
}

static void words_are_merged_one_by_one (void **state)
{
    (void) state;
    static vocabulary v;
    make_byte_bpe (&v);
    wl_tokenizer *t = make_tokenizer (&v, "gpt2", "gpt-2");
    assert_tokens (t, "hello the world", false, true,
                   IDS (id_of (&v, "hello"), id_of (&v, "Ġthe"), id_of (&v, "Ġwor"), id_of (&v, "ld")));
    assert_tokens (t, "é", false, true, IDS (id_of (&v, "Ã©")));
    assert_tokens (t, "", false, true, NO_IDS);
    assert_tokens (t, "12's", false, true, IDS (id_of (&v, "12"), id_of (&v, "'s")));
    wl_tokenizer_free (&t);
    t = make_tokenizer (&v, "gpt2", "starcoder"); /* digits one by one */
    assert_tokens (t, "12's", false, true, IDS ('1', '2', id_of (&v, "'s")));
    wl_tokenizer_free (&t);
}

static void a_word_that_is_a_token_ignores_merges_where_the_model_does (void **state)
{
    (void) state;
    static vocabulary v;
    make_byte_bpe (&v);
    int32_t banana = add (&v, "banana", NORMAL, 0);
    wl_tokenizer *t = make_tokenizer (&v, "gpt2", "qwen2");
    assert_tokens (t, "banana", false, true, IDS (id_of (&v, "bana"), id_of (&v, "na")));
    wl_tokenizer_free (&t);
    t = make_tokenizer (&v, "gpt2", "llama-bpe");
    assert_tokens (t, "banana", false, true, IDS (banana));
    wl_tokenizer_free (&t);
}

static void a_long_word_takes_no_quadratic_time (void **state)
{
    (void) state;
    static vocabulary v;
    enum { LENGTH = 1200000 }; /* pairs looked at over and over would be 10^12 */
    make_byte_bpe (&v);
    wl_tokenizer *t = make_tokenizer (&v, "gpt2", "gpt-2");
    char *text = malloc (LENGTH);
    assert_non_null (text);
    memset (text, 'a', LENGTH);
    wl_tokens tokens = encode (t, text, LENGTH, false, true);
    assert_int_equal (tokens.count,
                      LENGTH / 4); /* "aa" from the left, "aaaa" from the left; then nothing joins two of them */
    free (tokens.ids);
    free (text);
    wl_tokenizer_free (&t);
}

static void merges_of_parts_that_are_no_tokens_work (void **state)
{
    (void) state;
    static vocabulary v;
    make_byte_bpe (&v);
    snprintf (v.merges[v.n_merges++], sizeof v.merges[0], "x y"); /* "xy" is no token … */
    snprintf (v.merges[v.n_merges++], sizeof v.merges[0], "xy z");
    int32_t xyz = add (&v, "xyz", NORMAL, 0);
    wl_tokenizer *t = make_tokenizer (&v, "gpt2", "gpt-2");
    assert_tokens (t, "xyz", false, true, IDS (xyz));
    assert_tokens (t, "xyy", false, true, IDS ('x', 'y', 'y')); /* … so its bytes stand for it */
    wl_tokenizer_free (&t);
}

/* -- SentencePiece ------------------------------------------------------------------------------------------------------------- */

static void make_spm (vocabulary *v)
{
    static const char *const pieces[] = {"▁",   "a", "b",  "c",  "▁a", "ab", "bc", "abc",
                                         "▁ab", "é", "▁▁", "aa", "\n", "<",  ">",  "x"};
    static const float scores[] = {-20, -21, -22, -23, -3, -2, -1, -9, -4, -24, -5, -6, -25, -26, -27, -28};
    memset (v, 0, sizeof *v);
    add (v, "<unk>", UNKNOWN, 0);
    add (v, "<s>", CONTROL, 0);
    add (v, "</s>", CONTROL, 0);
    for (unsigned b = 0; b < 256; b++) {
        char text[8];
        snprintf (text, sizeof text, "<0x%02X>", b);
        add (v, text, BYTE, 0);
    }
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++)
        add (v, pieces[i], NORMAL, scores[i]);
    add (v, "<user>", USER, 0);
}

static void scores_decide_what_sentencepiece_merges_first (void **state)
{
    (void) state;
    static vocabulary v;
    make_spm (&v);
    wl_tokenizer *t = make_tokenizer (&v, "llama", NULL);
    /* bc (-1) goes before ab (-2) and ▁a (-3) */
    assert_tokens (t, "abc", false, true, IDS (id_of (&v, "▁a"), id_of (&v, "bc")));
    assert_tokens (t, "ab", false, true, IDS (id_of (&v, "▁ab")));
    assert_tokens (t, "aaa", false, true, IDS (id_of (&v, "▁a"), id_of (&v, "aa")));
    assert_tokens (t, "", false, true, NO_IDS);
    assert_tokens (t, "abc", true, true, IDS (1, id_of (&v, "▁a"), id_of (&v, "bc")));
    assert_tokens (t, " a", false, true, IDS (id_of (&v, "▁"), id_of (&v, "▁a"))); /* before ▁▁ (-5) */
    wl_tokenizer_free (&t);
    v.scores[id_of (&v, "bc")] = 0.5f;
    v.scores[id_of (&v, "ab")] = 2;
    t = make_tokenizer (&v, "llama", NULL);
    assert_tokens (t, "abc", false, true, IDS (id_of (&v, "▁ab"), id_of (&v, "c"))); /* now ab goes first */
    wl_tokenizer_free (&t);
}

static void sentencepiece_falls_back_to_bytes_and_then_to_unknown (void **state)
{
    (void) state;
    static vocabulary v;
    make_spm (&v);
    wl_tokenizer *t = make_tokenizer (&v, "llama", NULL);
    assert_tokens (t, "éö", false, true, IDS (id_of (&v, "▁"), id_of (&v, "é"), 3 + 0xc3, 3 + 0xb6));
    assert_tokens (t, "\xff", false, true, IDS (id_of (&v, "▁"), 3 + 0xff));
    wl_tokenizer_free (&t);
    strcpy (v.texts[3 + 0xb6], "gone"); /* ö has a byte without a token: one unknown for the character */
    t = make_tokenizer (&v, "llama", NULL);
    assert_tokens (t, "ö", false, true, IDS (id_of (&v, "▁"), 0));
    wl_tokenizer_free (&t);
}

static void a_space_stands_before_the_text_and_after_special_tokens (void **state)
{
    (void) state;
    static vocabulary v;
    make_spm (&v);
    int32_t user = id_of (&v, "<user>"), a = id_of (&v, "a"), prefixed = id_of (&v, "▁a");
    wl_tokenizer *t = make_tokenizer (&v, "llama", NULL);
    assert_tokens (t, "a<user>a</s>a", false, true, IDS (prefixed, user, prefixed, 2, prefixed));
    wl_tokenizer_free (&t);
    gguf_builder g = builder_of (&v, "llama", NULL);
    add_bool (&g, "tokenizer.ggml.add_space_prefix", 0);
    t = tokenizer_of (&g, NULL);
    assert_tokens (t, "a<user>a</s>a", false, true, IDS (a, user, a, 2, a));
    wl_tokenizer_free (&t);
}

static void gemma4_merges_by_rank_over_characters (void **state)
{
    (void) state;
    static vocabulary v;
    make_spm (&v);
    static const char *const merges[][2] = {{"▁", "a"}, {"b", "c"}, {"▁a", "bc"}, {"\n", "\n"}};
    for (size_t i = 0; i < 4; i++)
        add_merge (&v, merges[i][0], merges[i][1]);
    int32_t three = add (&v, "\n\n\n", NORMAL, 0);
    gguf_builder g = builder_of (&v, "gemma4", NULL);
    add_u32 (&g, "tokenizer.ggml.bos_token_id", 1);
    wl_tokenizer *t = tokenizer_of (&g, NULL);
    assert_tokens (t, "abc abc", true, true, IDS (1, id_of (&v, "a"), id_of (&v, "bc"), id_of (&v, "▁abc")));
    assert_tokens (t, "a\n\n\nö", false, true, IDS (id_of (&v, "a"), three, 3 + 0xc3, 3 + 0xb6));
    wl_tokenizer_free (&t);
}

/* -- Special tokens -------------------------------------------------------------------------------------------------------------- */

static void special_tokens_are_found_and_user_tokens_even_in_plain_text (void **state)
{
    (void) state;
    static vocabulary v;
    make_byte_bpe (&v);
    wl_tokenizer *t = make_tokenizer (&v, "gpt2", "gpt-2");
    int32_t start = id_of (&v, "<|im_start|>"), tool = id_of (&v, "<tool>"), longer = id_of (&v, "<tool>>"),
            the = id_of (&v, "the");
    assert_tokens (t, "the<|im_start|>the", false, true, IDS (the, start, the));
    assert_tokens (t, "<tool>the<tool>>>", false, true, IDS (tool, the, longer, '>'));
    assert_tokens (t, "<tool>the", false, false, IDS (tool, the));
    assert_tokens (t, "<|im_start|><|im_end|>", false, true, IDS (start, id_of (&v, "<|im_end|>")));
    assert_tokens (t, "<|unk|>", false, true, IDS (id_of (&v, "<|unk|>")));
    assert_tokens (t, "<tool", false, true, IDS ('<', 't', id_of (&v, "oo"), 'l')); /* cut off: text */
    wl_tokens tokens = encode (t, "<|im_start|>", 12, false, false);
    assert_int_equal (tokens.count, 12); /* plain text: no merges apply */
    free (tokens.ids);
    assert_true (wl_tokenizer_is_control (t, start) && !wl_tokenizer_is_control (t, tool) &&
                 !wl_tokenizer_is_control (t, -1));
    assert_true (wl_tokenizer_is_control (t, id_of (&v, "<|im_end|>"))); /* by its text */
    wl_tokenizer_free (&t);
}

static void bos_and_eos_are_added_as_the_file_says (void **state)
{
    (void) state;
    static vocabulary v;
    make_byte_bpe (&v);
    int32_t end = id_of (&v, "<|endoftext|>"), the = id_of (&v, "the");
    for (int bos = 0; bos < 2; bos++)
        for (int eos = 0; eos < 2; eos++) {
            gguf_builder g = builder_of (&v, "gpt2", "llama-bpe");
            add_bool (&g, "tokenizer.ggml.add_bos_token", (uint8_t) bos);
            add_bool (&g, "tokenizer.ggml.add_eos_token", (uint8_t) eos);
            add_u32 (&g, "tokenizer.ggml.bos_token_id", 5);
            add_u32 (&g, "tokenizer.ggml.eos_token_id", (uint32_t) end);
            wl_tokenizer *t = tokenizer_of (&g, NULL);
            assert_true (wl_tokenizer_bos (t) == 5 && wl_tokenizer_eos (t) == end);
            assert_tokens (t, "the", true, true,
                           bos && eos ? IDS (5, the, end)
                           : bos      ? IDS (5, the)
                           : eos      ? IDS (the, end)
                                      : IDS (the));
            assert_tokens (t, "the", false, true, IDS (the));
            wl_tokenizer_free (&t);
        }
    gguf_builder g = builder_of (&v, "gpt2", "llama-bpe"); /* adds BOS unless told otherwise */
    add_u32 (&g, "tokenizer.ggml.bos_token_id", 5);
    wl_tokenizer *t = tokenizer_of (&g, NULL);
    assert_tokens (t, "the", true, true, IDS (5, the));
    wl_tokenizer_free (&t);
    g = builder_of (&v, "gpt2", "llama-bpe"); /* no such token: nothing is added */
    add_u32 (&g, "tokenizer.ggml.bos_token_id", UINT32_MAX);
    t = tokenizer_of (&g, NULL);
    assert_int_equal (wl_tokenizer_bos (t), -1);
    assert_tokens (t, "the", true, true, IDS (the));
    wl_tokenizer_free (&t);
}

static void white_space_after_phi3s_special_tokens_belongs_to_them (void **state)
{
    (void) state;
    static vocabulary v;
    make_spm (&v);
    int32_t user = id_of (&v, "<user>"), prefixed = id_of (&v, "▁a");
    gguf_builder g = builder_of (&v, "llama", NULL);
    add_text (&g, "general.name", "Phi-3 mini");
    wl_tokenizer *t = tokenizer_of (&g, NULL);
    assert_tokens (t, "<user> \n a", false, true, IDS (user, prefixed));
    assert_tokens (t, "<s> a", false, true, IDS (1, id_of (&v, "▁"), prefixed)); /* but not after this one */
    wl_tokenizer_free (&t);
}

static void white_space_before_a_mask_belongs_to_it (void **state)
{
    (void) state;
    static vocabulary v;
    make_byte_bpe (&v);
    int32_t mask = add (&v, "<mask>", CONTROL, 0), the = id_of (&v, "the");
    wl_tokenizer *t = make_tokenizer (&v, "gpt2", "jina-v2-code");
    assert_tokens (t, "the \n <mask> the", false, true, IDS (the, mask, id_of (&v, "Ġthe")));
    assert_tokens (t, "  <mask>", false, true, IDS (mask));
    assert_tokens (t, "the <tool>", false, true, IDS (the, id_of (&v, "Ġ"), id_of (&v, "<tool>")));
    wl_tokenizer_free (&t);
}

static void tokens_that_end_an_answer_are_known_by_id_and_by_text (void **state)
{
    (void) state;
    static vocabulary v;
    make_byte_bpe (&v);
    int32_t call = add (&v, "<|call|>", CONTROL, 0), back = add (&v, "<|return|>", CONTROL, 0),
            end = add (&v, "<|end|>", CONTROL, 0);
    gguf_builder g = builder_of (&v, "gpt2", "gpt-2");
    add_u32 (&g, "tokenizer.ggml.eos_token_id", 65);
    add_u32 (&g, "tokenizer.ggml.eot_token_id", 66);
    add_u32 (&g, "tokenizer.ggml.eom_token_id", 67);
    wl_tokenizer *t = tokenizer_of (&g, NULL);
    for (int32_t id = 65; id <= 67; id++)
        assert_true (wl_tokenizer_is_end (t, id));
    assert_true (wl_tokenizer_is_end (t, id_of (&v, "<|im_end|>")) &&
                 wl_tokenizer_is_end (t, id_of (&v, "<|endoftext|>")));
    assert_true (wl_tokenizer_is_end (t, call) && wl_tokenizer_is_end (t, back));
    assert_false (wl_tokenizer_is_end (t, end)); /* with those two, it ends a message only */
    assert_false (wl_tokenizer_is_end (t, 68) || wl_tokenizer_is_end (t, id_of (&v, "<|im_start|>")) ||
                  wl_tokenizer_is_end (t, -1) || wl_tokenizer_is_end (t, (int32_t) v.n));
    wl_tokenizer_free (&t);
}

/* -- Pre-tokenizers ------------------------------------------------------------------------------------------------------------ */

/* `words` is the text with a bar between words. */
static void assert_words (const char *name, const char *words)
{
    char text[512], cut[512];
    size_t n = 0, n_cut = 0;
    wl_error err = {0};
    spans list;
    for (const char *c = words; *c; c++)
        if (*c != '|')
            text[n++] = *c;
    pretokenizer *p = pretokenizer_new ((wl_text){name, strlen (name)}, "here", &err);
    if (!p || !pretokenizer_split (p, text, n, &list, &err))
        fail_msg ("%s: %s", name, err.text);
    for (size_t i = 0; i < list.count; i++) {
        if (i)
            cut[n_cut++] = '|';
        memcpy (cut + n_cut, text + list.items[i].start, list.items[i].length);
        n_cut += list.items[i].length;
    }
    cut[n_cut] = 0;
    free (list.items);
    pretokenizer_free (&p);
    if (strcmp (cut, words) != 0)
        fail_msg ("%s cuts %s instead of %s", name, cut, words);
}

static void each_pre_tokenizer_cuts_as_its_models_do (void **state)
{
    (void) state;
    assert_words ("gpt-2", "It|'s| 2024|,| it|'|S|  | two|\n\n|\n|x");
    assert_words ("default", "Is| it| |202|4|?!| |200|0|$$");
    assert_words ("starcoder", "It|'s| |2|0|2|4| é|²");
    assert_words ("llama-bpe", "It|'S| |202|4| (|ab|  | two|\n\n\n|x| \n");
    assert_words ("qwen2", "It|'S| |2|0|(x|).\r\n|!!\n");
    assert_words ("qwen35", "नमस्ते| |1|!");
    assert_words ("jais-2", "a|    |  | b");
    assert_words ("deepseek-llm", "Hi|\n| there|,| |日本語| |1|2|   ");
    assert_words ("deepseek-coder", "Hi|\n| there|,| +=|日本語| |1|2");
    assert_words ("deepseek-v3", "Hi| there|,| +=|日本語|123|4|.x|\n");
    assert_words ("falcon", "Hi|,| it|'|s| |200|0| |$|5|`|x");
    assert_words ("bloom", "Hi| there|, (|ok|).");
    assert_words ("viking", "Hi| a|1|2");
    assert_words ("tekken", "Some|Camel|Case| |1|2| HTTPServer|'s|//\n");
    assert_words ("gpt-4o", "Some|Camel|Case's| |123|4| HTTPServer|//\n");
    assert_words ("tiny_aya", "1|234|567| a");
    assert_words ("superbpe", "over the fence |1|234| times");
    assert_words ("kimi-k2", "Hi|你好|Camel|Case's| |123|4");
    assert_words ("bailingmoe", "It|'S| |1|2|\n\n");
    assert_words ("seed-coder", "It|'S| |1|2|!|\n\n");
    assert_words ("afmoe", "1|234|567|日本|.x|!");
    assert_words ("exaone-moe", "Hi there all|!\n|\n");
    assert_words ("minicpm5", "It|'s| |123|4");
    assert_words ("gemma4", "a b c|\n\n|d");
    assert_words ("laguna", "a| b|\n\n|d");
    assert_words ("youtu", "한국|日本|Camel|Case's|1|2");
    assert_words ("spark2_5", "Hi|1|2|3|4|日本|!|\n|\n");
    assert_words ("chameleon", "a|    |  | b|IMGIMGABZ|.|.|1|2");
    assert_words ("ufakzeka", "Ankara|'da| |1");
}

static void every_name_of_the_table_compiles (void **state)
{
    (void) state;
    static const char *const names[] = {"default",
                                        "llama3",
                                        "llama-v3",
                                        "llama-bpe",
                                        "falcon3",
                                        "falcon-h1",
                                        "pixtral",
                                        "midm-2.0",
                                        "lfm2",
                                        "dbrx",
                                        "smaug-bpe",
                                        "chatglm-bpe",
                                        "glm4",
                                        "jais-2",
                                        "minicpm5",
                                        "deepseek-llm",
                                        "deepseek-coder",
                                        "deepseek-v3",
                                        "deepseek-r1-qwen",
                                        "hunyuan-dense",
                                        "joyai-llm",
                                        "youtu",
                                        "falcon",
                                        "starcoder",
                                        "refact",
                                        "command-r",
                                        "smollm",
                                        "codeshell",
                                        "exaone",
                                        "exaone4",
                                        "exaone-moe",
                                        "minerva-7b",
                                        "gpt-2",
                                        "phi-2",
                                        "mpt",
                                        "olmo",
                                        "jais",
                                        "trillion",
                                        "granite-docling",
                                        "roberta-bpe",
                                        "modern-bert",
                                        "qwen2",
                                        "qwen35",
                                        "megrez",
                                        "stablelm2",
                                        "hunyuan",
                                        "solar-open",
                                        "grok-2",
                                        "poro-chat",
                                        "bloom",
                                        "gpt3-finnish",
                                        "viking",
                                        "tekken",
                                        "chameleon",
                                        "gpt-4o",
                                        "llama4",
                                        "kanana2",
                                        "minimax-m2",
                                        "tiny_aya",
                                        "kimi-k2",
                                        "superbpe",
                                        "bailingmoe",
                                        "bailingmoe2",
                                        "llada-moe",
                                        "seed-coder",
                                        "afmoe",
                                        "gemma4",
                                        ""};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        wl_error err = {0};
        pretokenizer *p = pretokenizer_new ((wl_text){names[i], strlen (names[i])}, "here", &err);
        if (!p)
            fail_msg ("%s", err.text);
        pretokenizer_free (&p);
    }
}

static void words_cover_any_bytes_without_gaps (void **state)
{
    (void) state;
    static const char *const names[] = {"gpt-2",  "llama-bpe", "deepseek-v3", "tiny_aya", "superbpe",
                                        "gpt-4o", "kimi-k2",   "afmoe",       "default"};
    srand (8);
    for (size_t k = 0; k < sizeof names / sizeof names[0]; k++) {
        pretokenizer *p = pretokenizer_new ((wl_text){names[k], strlen (names[k])}, "here", NULL);
        assert_non_null (p);
        for (int round = 0; round < 1000; round++) {
            size_t n = (size_t) rand () % 60, at = 0;
            char *text = malloc (n + 1);
            spans words;
            assert_non_null (text);
            for (size_t i = 0; i < n; i++)
                text[i] = (char) (round % 2 ? rand () : "a1 \n'\xe2\x82\xac\xf0\x9f\x99\x82"[rand () % 12]);
            assert_true (pretokenizer_split (p, text, n, &words, NULL));
            for (size_t i = 0; i < words.count; i++) {
                assert_true (words.items[i].start == at && words.items[i].length > 0);
                at += words.items[i].length;
            }
            assert_int_equal (at, n);
            free (words.items);
            free (text);
        }
        pretokenizer_free (&p);
    }
}

static void characters_newer_than_the_library_are_classified (void **state)
{
    (void) state;
    assert_words ("deepseek-v3", "a| 🫨🫩|b");              /* symbols of Unicode 15 and 16 */
    assert_words ("llama-bpe", "\U00031350\U000323af|1");       /* letters of Unicode 15 */
    assert_words ("llama-bpe", "x|\U00010d40\U00010d41|!");     /* digits of Unicode 16 */
    assert_words ("gpt-4o", "\U00010d70|\U00010d50\U00010d70"); /* a small letter; a capital and a small one */
    assert_words ("kimi-k2", "\U00031350|a");
}

/* -- Detokenizing ---------------------------------------------------------------------------------------------------------------- */

/* What a detokenizer gives for tokens, one by one, '|' between calls; then what it still holds. */
static void assert_stream (const wl_tokenizer *t, const int32_t *ids, const char *expected)
{
    char shown[512];
    size_t n = 0;
    wl_detokenizer *d = wl_detokenizer_new (t, false, NULL);
    assert_non_null (d);
    for (size_t i = 0; ids[i] >= 0; i++) {
        wl_text text;
        assert_true (wl_detokenizer_add (d, ids[i], &text, NULL));
        memcpy (shown + n, text.data, text.length);
        n += text.length;
        shown[n++] = '|';
    }
    wl_text rest = wl_detokenizer_flush (d);
    memcpy (shown + n, rest.data, rest.length);
    n += rest.length;
    shown[n] = 0;
    wl_detokenizer_free (&d);
    assert_string_equal (shown, expected);
}

static void whole_characters_are_shown_and_cut_ones_held_back (void **state)
{
    (void) state;
    static vocabulary v;
    make_byte_bpe (&v);
    wl_tokenizer *t = make_tokenizer (&v, "gpt2", "gpt-2");
    assert_stream (t, IDS (id_of (&v, "hello"), id_of (&v, "Ġthe")), "hello| the|");
    assert_stream (t, IDS (0xe2, 0x82, 0xac, 'x'), "||€|x|");
    assert_stream (t, IDS ('a', 0xf0, 0x9f, 0x99, 0x82), "a||||🙂|");
    assert_stream (t, IDS (0xe2, 0x82), "||\xe2\x82"); /* never completed: given at the end */
    assert_stream (t, IDS (0xe2, 'x'), "|\xe2x|");     /* cannot become a character any more */
    assert_stream (t, IDS (0xe0, 0x80, 'x'), "|\xe0\x80|x|");
    assert_stream (t, IDS (0xff, 0x80), "\xff|\x80|");
    assert_stream (t, IDS ('a', id_of (&v, "<|im_start|>"), 'b', id_of (&v, "<tool>")), "a||b|<tool>|");
    wl_text text;
    wl_error err = {0};
    wl_detokenizer *d = wl_detokenizer_new (t, true, NULL);
    assert_true (wl_detokenizer_add (d, id_of (&v, "<|im_start|>"), &text, NULL) && text.length == 12);
    assert_false (wl_detokenizer_add (d, (int32_t) v.n, &text, &err));
    assert_int_equal (err.code, WL_ERROR_INTERNAL);
    wl_detokenizer_free (&d);
    assert_false (wl_tokenizer_token_text (t, -1, true, &text) ||
                  wl_tokenizer_token_text (t, (int32_t) v.n, true, &text));
    assert_true (wl_tokenizer_token_text (t, id_of (&v, "<|spare|>"), false, &text) && text.length == 0);
    wl_tokenizer_free (&t);
}

static void the_space_that_was_put_before_the_text_is_taken_away (void **state)
{
    (void) state;
    static vocabulary v;
    make_spm (&v);
    wl_tokenizer *t = make_tokenizer (&v, "llama", NULL);
    assert_stream (t, IDS (1, id_of (&v, "▁a"), id_of (&v, "▁ab"), 3 + 0xe2, 3 + 0x82, 3 + 0xac), "|a| ab|||€|");
    wl_tokenizer_free (&t);
    gguf_builder g = builder_of (&v, "llama", NULL);
    add_bool (&g, "tokenizer.ggml.add_space_prefix", 0);
    t = tokenizer_of (&g, NULL);
    assert_stream (t, IDS (1, id_of (&v, "▁a")), "| a|");
    wl_tokenizer_free (&t);
}

static void any_bytes_survive_tokens_and_back (void **state)
{
    (void) state;
    static vocabulary bytes_v, spm_v;
    make_byte_bpe (&bytes_v);
    make_spm (&spm_v);
    wl_tokenizer *tokenizers[] = {make_tokenizer (&bytes_v, "gpt2", "llama-bpe"),
                                  make_tokenizer (&spm_v, "llama", NULL)};
    srand (9);
    for (int round = 0; round < 4000; round++) {
        const wl_tokenizer *t = tokenizers[round % 2];
        char text[80], back[400];
        size_t n = (size_t) rand () % sizeof text, n_back = 0;
        for (size_t i = 0; i < n; i++)
            text[i] = (char) (round % 3 ? rand () : "ab \n\xe2\x96\x82\xc3"[rand () % 8]);
        wl_tokens tokens = encode (t, text, n, false, false);
        wl_detokenizer *d = wl_detokenizer_new (t, true, NULL);
        wl_text part;
        for (size_t i = 0; i <= tokens.count; i++) {
            if (i == tokens.count)
                part = wl_detokenizer_flush (d);
            else
                assert_true (wl_detokenizer_add (d, tokens.ids[i], &part, NULL));
            assert_true (n_back + part.length < sizeof back);
            memcpy (back + n_back, part.data, part.length);
            n_back += part.length;
        }
        assert_int_equal (n_back, n);
        assert_memory_equal (back, text, n);
        wl_detokenizer_free (&d);
        free (tokens.ids);
    }
    wl_tokenizer_free (&tokenizers[0]);
    wl_tokenizer_free (&tokenizers[1]);
}

/* -- Unsound files, short memory, threads -------------------------------------------------------------------------------------- */

static void assert_refused (gguf_builder *g, const char *reason)
{
    wl_error err = {0};
    assert_null (tokenizer_of (g, &err));
    if (err.code != WL_ERROR_INPUT || !strstr (err.text, reason) || !strstr (err.text, "vocabulary.gguf"))
        fail_msg ("code %d, \"%s\" instead of \"%s\"", err.code, err.text, reason);
}

static void what_a_file_lacks_is_named (void **state)
{
    (void) state;
    static vocabulary v;
    static const char *const two[] = {"a", "b"}, *const bad_merges[] = {"a", "a ", " a", "ab", ""};
    make_byte_bpe (&v);
    gguf_builder g = new_builder ();
    assert_refused (&g, "tokenizer.ggml.model");
    g = builder_of (&v, "bert", NULL);
    assert_refused (&g, "\"bert\"");
    g = builder_of (&v, "t5", NULL);
    assert_refused (&g, "\"t5\"");
    g = builder_of (&v, "gpt2", "wizardry");
    assert_refused (&g, "\"wizardry\"");
    g = new_builder ();
    add_text (&g, "tokenizer.ggml.model", "gpt2");
    assert_refused (&g, "tokenizer.ggml.tokens");
    g = new_builder ();
    add_text (&g, "tokenizer.ggml.model", "gpt2");
    add_texts (&g, "tokenizer.ggml.tokens", two, 2);
    assert_refused (&g, "tokenizer.ggml.merges");
    g = new_builder ();
    add_text (&g, "tokenizer.ggml.model", "llama");
    add_texts (&g, "tokenizer.ggml.tokens", two, 2);
    assert_refused (&g, "tokenizer.ggml.scores");
    g = new_builder ();
    add_text (&g, "tokenizer.ggml.model", "llama");
    add_texts (&g, "tokenizer.ggml.tokens", two, 2);
    add_array (&g, "tokenizer.ggml.token_type", 5, 1, "\1\0\0\0", 4);
    assert_refused (&g, "1 elements for 2 tokens");
    g = new_builder ();
    add_text (&g, "tokenizer.ggml.model", "llama");
    add_texts (&g, "tokenizer.ggml.tokens", two, 2);
    add_texts (&g, "tokenizer.ggml.scores", two, 2);
    assert_refused (&g, "wrong type");
    for (size_t i = 0; i < sizeof bad_merges / sizeof bad_merges[0]; i++) {
        g = new_builder ();
        add_text (&g, "tokenizer.ggml.model", "gpt2");
        add_texts (&g, "tokenizer.ggml.tokens", two, 2);
        add_texts (&g, "tokenizer.ggml.merges", bad_merges + i, 1);
        assert_refused (&g, "merge 0");
    }
}

static void failing_allocations_are_reported (void **state)
{
    (void) state;
    static vocabulary v;
    make_byte_bpe (&v);
    gguf_builder g = builder_of (&v, "gpt2", "llama-bpe");
    size_t length;
    uint8_t *file = build (&g, &length);
    wl_gguf *gguf = wl_gguf_open_memory (file, length, "short of memory", NULL);
    assert_non_null (gguf);
    wl_tokenizer *t = NULL;
    unsigned failures = 0;
    for (unsigned n = 1; n < 100; n++) { /* one may fail unharmed: that of the compiled expressions */
        wl_error err = {0};
        wl_tokenizer_free (&t);
        wl_memory_fail_after (n);
        t = wl_tokenizer_new (gguf, &err);
        wl_memory_fail_after (0);
        assert_int_equal (err.code, t ? WL_OK : WL_ERROR_INTERNAL);
        failures += t == NULL;
    }
    assert_true (t && failures > 10);
    wl_tokens tokens = {0};
    failures = 0;
    for (unsigned n = 1; n < 100; n++) {
        wl_error err = {0};
        free (tokens.ids);
        wl_memory_fail_after (n);
        bool done =
            wl_tokenizer_encode (t, "hello \xff the <|im_start|> world aaaaaaaaaaaa", 40, true, true, &tokens, &err);
        wl_memory_fail_after (0);
        assert_true (done ? tokens.count > 0 : err.code == WL_ERROR_INTERNAL && !tokens.ids);
        failures += !done;
    }
    assert_true (tokens.ids && failures > 5);
    free (tokens.ids);
    wl_tokenizer_free (&t);
    wl_gguf_free (&gguf);
    free (file);
}

static void damaged_vocabularies_are_refused_or_work (void **state)
{
    (void) state;
    static vocabulary v;
    make_byte_bpe (&v);
    gguf_builder g = builder_of (&v, "gpt2", "gpt-2");
    size_t length;
    uint8_t *file = build (&g, &length);
    unsigned opened = 0;
    srand (10);
    for (int round = 0; round < 2000; round++) {
        uint8_t *damaged = malloc (length);
        wl_error err = {0};
        assert_non_null (damaged);
        memcpy (damaged, file, length);
        for (int n = rand () % 3 + 1; n > 0; n--)
            damaged[24 + (size_t) rand () % (length - 24)] = (uint8_t) rand ();
        wl_gguf *gguf = wl_gguf_open_memory (damaged, length, "damaged", NULL);
        wl_tokenizer *t = gguf ? wl_tokenizer_new (gguf, &err) : NULL;
        assert_true (!gguf || t || err.code == WL_ERROR_INPUT);
        wl_gguf_free (&gguf);
        free (damaged);
        if (t) {
            wl_tokens tokens = encode (t, "hello <|im_start|> wörld <tool>", 33, true, true);
            for (size_t i = 0; i < tokens.count; i++)
                assert_in_range (tokens.ids[i], 0, wl_tokenizer_n_tokens (t) - 1);
            free (tokens.ids);
            opened++;
        }
        wl_tokenizer_free (&t);
    }
    assert_in_range (opened, 100, 1999);
    free (file);
}

typedef struct job {
    const wl_tokenizer *tokenizer;
    char text[400];
    int32_t expected[400];
    size_t n_expected;
    bool same;
} job;

static void *encode_many (void *context)
{
    job *j = context;
    j->same = true;
    for (int i = 0; i < 300; i++) {
        wl_tokens tokens;
        if (!wl_tokenizer_encode (j->tokenizer, j->text, sizeof j->text, false, true, &tokens, NULL)) {
            j->same = false;
            break;
        }
        j->same &=
            tokens.count == j->n_expected && memcmp (tokens.ids, j->expected, tokens.count * sizeof (int32_t)) == 0;
        free (tokens.ids);
    }
    return NULL;
}

static void threads_share_a_tokenizer (void **state)
{
    (void) state;
    static vocabulary v;
    static job jobs[4];
    pthread_t threads[4];
    make_byte_bpe (&v);
    wl_tokenizer *t = make_tokenizer (&v, "gpt2", "gpt-4o");
    for (size_t k = 0; k < 4; k++) {
        jobs[k].tokenizer = t;
        for (size_t i = 0; i < sizeof jobs[k].text; i++)
            jobs[k].text[i] = "the hello world 12 aaaa\xc3\xa9\n"[(i * (k + 3)) % 26];
        wl_tokens tokens = encode (t, jobs[k].text, sizeof jobs[k].text, false, true);
        jobs[k].n_expected = tokens.count;
        memcpy (jobs[k].expected, tokens.ids, tokens.count * sizeof (int32_t));
        free (tokens.ids);
    }
    for (size_t k = 0; k < 4; k++)
        assert_int_equal (pthread_create (&threads[k], NULL, encode_many, &jobs[k]), 0);
    for (size_t k = 0; k < 4; k++) {
        pthread_join (threads[k], NULL);
        assert_true (jobs[k].same);
    }
    wl_tokenizer_free (&t);
}

/* -- Shared vocabularies --------------------------------------------------------------------------------------------------------- */

static char *read_all (const char *path, size_t *length)
{
    FILE *in = fopen (path, "rb");
    if (!in)
        return NULL;
    fseek (in, 0, SEEK_END);
    *length = (size_t) ftell (in);
    rewind (in);
    char *data = malloc (*length + 1);
    assert_non_null (data);
    assert_int_equal (fread (data, 1, *length, in), *length);
    data[*length] = 0;
    fclose (in);
    return data;
}

/* Every text of NAME.inp gives the ids on its line of NAME.out; 47 of them. */
static void check_vocabulary (const char *folder, const char *name)
{
    static const char separator[] = "\n__ggml_vocab_test__\n";
    char path[600];
    size_t length, ids_length, n = 0;
    wl_error err = {0};
    snprintf (path, sizeof path, "%s/vocabs/%s.gguf.inp", folder, name);
    char *texts = read_all (path, &length);
    snprintf (path, sizeof path, "%s/vocabs/%s.gguf.out", folder, name);
    char *ids = read_all (path, &ids_length);
    snprintf (path, sizeof path, "%s/vocabs/%s.gguf", folder, name);
    wl_gguf *gguf = wl_gguf_open (path, &err);
    wl_tokenizer *t = gguf ? wl_tokenizer_new (gguf, &err) : NULL;
    if (!t || !texts || !ids)
        fail_msg ("%s: %s", name, err.text);
    char *text = texts, *line = ids;
    for (bool more = true; more; n++) {
        char *end = strstr (text, separator), *line_end = strchr (line, '\n');
        more = end != NULL;
        if (end)
            *end = 0;
        if (line_end)
            *line_end = 0;
        wl_tokens tokens = encode (t, text, strlen (text), false, false);
        char *rest = line;
        for (size_t i = 0; i < tokens.count; i++)
            if (tokens.ids[i] != strtol (rest, &rest, 10))
                fail_msg ("%s: \"%s\": token %zu is %d, of: %s", name, text, i, tokens.ids[i], line);
        assert_int_equal (strspn (rest, " "), strlen (rest));
        free (tokens.ids);
        text = end ? end + sizeof separator - 1 : text;
        line = line_end ? line_end + 1 : line + strlen (line);
    }
    assert_int_equal (n, 47);
    wl_tokenizer_free (&t);
    wl_gguf_free (&gguf);
    free (texts);
    free (ids);
}

static void shared_vocabularies_give_the_ids_of_the_models_own_tokenizers (void **state)
{
    (void) state;
    static const char *const names[] = {"ggml-vocab-gpt-2", "ggml-vocab-llama-bpe", "ggml-vocab-llama-spm",
                                        "ggml-vocab-qwen2", "ggml-vocab-refact",    "ggml-vocab-starcoder"};
    const char *shared = getenv ("WOOLLY_SHARED");
    char path[600];
    size_t length;
    snprintf (path, sizeof path, "%s/vocabs/%s.gguf.out", shared ? shared : "", names[0]);
    char *probe = shared ? read_all (path, &length) : NULL;
    if (!probe) {
        print_message ("skipped: WOOLLY_SHARED names no folder with vocabularies\n");
        skip ();
    }
    free (probe);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        check_vocabulary (shared, names[i]);
}

int main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (merges_go_by_rank_and_then_from_the_left),
        cmocka_unit_test (words_are_merged_one_by_one),
        cmocka_unit_test (a_word_that_is_a_token_ignores_merges_where_the_model_does),
        cmocka_unit_test (a_long_word_takes_no_quadratic_time),
        cmocka_unit_test (merges_of_parts_that_are_no_tokens_work),
        cmocka_unit_test (scores_decide_what_sentencepiece_merges_first),
        cmocka_unit_test (sentencepiece_falls_back_to_bytes_and_then_to_unknown),
        cmocka_unit_test (a_space_stands_before_the_text_and_after_special_tokens),
        cmocka_unit_test (gemma4_merges_by_rank_over_characters),
        cmocka_unit_test (special_tokens_are_found_and_user_tokens_even_in_plain_text),
        cmocka_unit_test (bos_and_eos_are_added_as_the_file_says),
        cmocka_unit_test (white_space_after_phi3s_special_tokens_belongs_to_them),
        cmocka_unit_test (white_space_before_a_mask_belongs_to_it),
        cmocka_unit_test (tokens_that_end_an_answer_are_known_by_id_and_by_text),
        cmocka_unit_test (each_pre_tokenizer_cuts_as_its_models_do),
        cmocka_unit_test (every_name_of_the_table_compiles),
        cmocka_unit_test (words_cover_any_bytes_without_gaps),
        cmocka_unit_test (characters_newer_than_the_library_are_classified),
        cmocka_unit_test (whole_characters_are_shown_and_cut_ones_held_back),
        cmocka_unit_test (the_space_that_was_put_before_the_text_is_taken_away),
        cmocka_unit_test (any_bytes_survive_tokens_and_back),
        cmocka_unit_test (what_a_file_lacks_is_named),
        cmocka_unit_test (failing_allocations_are_reported),
        cmocka_unit_test (damaged_vocabularies_are_refused_or_work),
        cmocka_unit_test (threads_share_a_tokenizer),
        cmocka_unit_test (shared_vocabularies_give_the_ids_of_the_models_own_tokenizers),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
