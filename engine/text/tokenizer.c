/* Building a tokenizer from a GGUF's metadata; see tokenizer.h and vocabulary.h.
 *
 * All texts are copied into chunks, once decoded; pieces and tokens point there. Lists are checked against each other before use:
 * scores and types must be as many as tokens. */
#include "tokenizer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../memory.h"
#include "utf8.h"
#include "vocabulary.h"

/* -- Texts --------------------------------------------------------------------------------------------------------------- */

enum { CHUNK_BYTES = 1 << 16 };

struct text_chunk {
    text_chunk *next;
    size_t used, room;
    char bytes[];
};

/* `length` bytes that live as long as the tokenizer. */
static char *take_bytes (wl_tokenizer *t, size_t length, wl_error *err)
{
    text_chunk *chunk = t->chunks;
    if (!chunk || chunk->room - chunk->used < length) {
        size_t room = length > CHUNK_BYTES ? length : CHUNK_BYTES;
        chunk = wl_new (sizeof *chunk + room, 1, err);
        if (!chunk)
            return NULL;
        chunk->room = room;
        chunk->next = t->chunks;
        t->chunks = chunk;
    }
    char *bytes = chunk->bytes + chunk->used;
    chunk->used += length;
    return bytes;
}

static bool keep_text (wl_tokenizer *t, wl_text text, wl_text *kept, wl_error *err)
{
    char *bytes = take_bytes (t, text.length, err);
    if (!bytes)
        return false;
    memcpy (bytes, text.data, text.length);
    *kept = (wl_text){bytes, text.length};
    return true;
}

/* GPT-2 writes a byte as the character of the same number where that is printable, and the others as U+0100 and up, in
 * order. Gives the byte of a code point, or -1. */
static int byte_of_code_point (uint32_t code)
{
    if ((code >= 0x21 && code <= 0x7e) || (code >= 0xa1 && code <= 0xac) || (code >= 0xae && code <= 0xff))
        return (int) code;
    if (code < 0x100 || code > 0x143)
        return -1;
    code -= 0x100;
    return (int) (code <= 0x20 ? code : code <= 0x42 ? code - 0x21 + 0x7f : 0xad);
}

/* Undoes it. False if `text` has a character that stands for no byte; `out` has room for text.length. */
static bool decode_bytes (wl_text text, char *out, size_t *length)
{
    size_t n = 0;
    for (size_t at = 0; at < text.length;) {
        size_t step = utf8_length (text.data + at, text.length - at);
        int byte = step ? byte_of_code_point (utf8_code_point (text.data + at, step)) : -1;
        if (byte < 0)
            return false;
        out[n++] = (char) byte;
        at += step;
    }
    *length = n;
    return true;
}

/* The byte of "<0x0A>", or -1. */
static int byte_of_hex (wl_text text)
{
    int byte = 0;
    if (text.length != 6 || memcmp (text.data, "<0x", 3) != 0 || text.data[5] != '>')
        return -1;
    for (int i = 3; i < 5; i++) {
        char c = text.data[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                           : -1;
        if (digit < 0)
            return -1;
        byte = byte * 16 + digit;
    }
    return byte;
}

/* U+2581 becomes a space. `out` has room for text.length. */
static size_t unmark_spaces (wl_text text, char *out)
{
    size_t n = 0;
    for (size_t at = 0; at < text.length;) {
        if (text.length - at >= 3 && memcmp (text.data + at, "\xe2\x96\x81", 3) == 0) {
            out[n++] = ' ';
            at += 3;
        } else {
            out[n++] = text.data[at++];
        }
    }
    return n;
}

/* -- Tokens ---------------------------------------------------------------------------------------------------------------- */

static bool load_kind (wl_tokenizer *t, const wl_gguf *gguf, wl_error *err)
{
    static const struct {
        const char *name;
        tokenizer_kind kind;
    } kinds[] = {{"gpt2", KIND_BYTE_BPE}, {"gemma4", KIND_RAW_BPE}, {"llama", KIND_SPM}};
    wl_text name;
    if (!wl_gguf_text (gguf, "tokenizer.ggml.model", &name))
        return wl_fail (err, WL_ERROR_INPUT, "%s: has no tokenizer (tokenizer.ggml.model): convert the model again",
                        wl_gguf_path (gguf));
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (strlen (kinds[i].name) == name.length && memcmp (kinds[i].name, name.data, name.length) == 0) {
            t->kind = kinds[i].kind;
            return true;
        }
    return wl_fail (
        err, WL_ERROR_INPUT,
        "%s: tokenizer kind \"%.*s\" (tokenizer.ggml.model) is not supported; Woolly has gpt2, llama and gemma4",
        wl_gguf_path (gguf), name.length < 80 ? (int) name.length : 80, name.data);
}

/* An array of the metadata that must have one element a token. *is_there says whether it exists. */
static bool check_list (const wl_gguf *gguf, const char *key, bool is_text, size_t n_tokens, bool *is_there,
                        wl_error *err)
{
    wl_value_type element;
    size_t length;
    *is_there = wl_gguf_array (gguf, key, &element, &length);
    if (!*is_there)
        return true;
    if ((element == WL_VALUE_STRING) != is_text)
        return wl_fail (err, WL_ERROR_INPUT, "%s: %s has elements of a wrong type: the file is damaged",
                        wl_gguf_path (gguf), key);
    if (length != n_tokens)
        return wl_fail (err, WL_ERROR_INPUT, "%s: %s has %zu elements for %zu tokens: the file is damaged",
                        wl_gguf_path (gguf), key, length, n_tokens);
    return true;
}

static bool load_tokens (wl_tokenizer *t, const wl_gguf *gguf, wl_error *err)
{
    wl_value_type element;
    bool has_types;
    if (!wl_gguf_array (gguf, "tokenizer.ggml.tokens", &element, &t->n_tokens) || element != WL_VALUE_STRING ||
        t->n_tokens == 0)
        return wl_fail (err, WL_ERROR_INPUT,
                        "%s: has no list of tokens (tokenizer.ggml.tokens): convert the model again",
                        wl_gguf_path (gguf));
    if (t->n_tokens > INT32_MAX / 2)
        return wl_fail (err, WL_ERROR_INPUT, "%s: has %zu tokens, more than Woolly takes", wl_gguf_path (gguf),
                        t->n_tokens);
    if (!check_list (gguf, "tokenizer.ggml.token_type", false, t->n_tokens, &has_types, err))
        return false;
    t->tokens = wl_new (t->n_tokens, sizeof *t->tokens, err);
    if (!t->tokens)
        return false;
    for (size_t i = 0; i < t->n_tokens; i++) {
        wl_text text = {"", 0};
        int64_t type = TOKEN_NORMAL;
        wl_gguf_array_text (gguf, "tokenizer.ggml.tokens", i, &text);
        if (has_types)
            wl_gguf_array_i64 (gguf, "tokenizer.ggml.token_type", i, &type);
        t->tokens[i].type = type >= TOKEN_NORMAL && type <= TOKEN_BYTE ? (uint8_t) type : TOKEN_UNDEFINED;
        if (!keep_text (t, text, &t->tokens[i].literal, err))
            return false;
    }
    return true;
}

/* The bytes that each token stands for. */
static bool load_token_texts (wl_tokenizer *t, wl_error *err)
{
    for (size_t i = 0; i < t->n_tokens; i++) {
        vocabulary_entry *k = &t->tokens[i];
        int byte = byte_of_hex (k->literal);
        k->text = k->literal;
        if (k->type != TOKEN_NORMAL && !(k->type == TOKEN_BYTE && byte >= 0))
            continue;
        char *bytes = take_bytes (t, k->literal.length, err);
        if (!bytes)
            return false;
        size_t length = 1;
        if (k->type == TOKEN_BYTE)
            bytes[0] = (char) byte;
        else if (t->kind != KIND_BYTE_BPE)
            length = unmark_spaces (k->literal, bytes);
        else if (!decode_bytes (k->literal, bytes, &length))
            continue; /* not byte-level: as it is */
        k->text = (wl_text){bytes, length};
    }
    return true;
}

/* -- Pieces ---------------------------------------------------------------------------------------------------------------- */

/* What a literal is looked up as: its bytes, for byte-level models. False if it is no piece of such a model. `buffer` has room. */
static bool piece_text (const wl_tokenizer *t, wl_text literal, char *buffer, wl_text *piece)
{
    *piece = literal;
    if (t->kind != KIND_BYTE_BPE)
        return literal.length > 0;
    piece->data = buffer;
    return decode_bytes (literal, buffer, &piece->length) && piece->length > 0;
}

/* Adds a piece, or finds it. */
static bool add_piece (wl_tokenizer *t, wl_text piece, uint32_t *index, wl_error *err)
{
    if (wl_name_table_find (&t->pieces, piece, index))
        return true;
    if (piece.length > t->longest_piece)
        t->longest_piece = piece.length;
    wl_text kept;
    return keep_text (t, piece, &kept, err) && wl_name_table_add (&t->pieces, kept, index, NULL, err);
}

/* A buffer for the longest literal or merge of the file. */
static char *new_buffer (const wl_gguf *gguf, wl_error *err)
{
    static const char *const keys[] = {"tokenizer.ggml.tokens", "tokenizer.ggml.merges"};
    size_t longest = 0;
    for (size_t k = 0; k < 2; k++) {
        wl_text text;
        for (size_t i = 0; wl_gguf_array_text (gguf, keys[k], i, &text); i++)
            longest = text.length > longest ? text.length : longest;
    }
    return wl_new (longest, 1, err);
}

/* The tokens' pieces. Of two tokens with the same text the first is the piece's token. */
static bool load_pieces (wl_tokenizer *t, char *buffer, wl_error *err)
{
    t->piece_tokens = wl_new (t->n_tokens, sizeof *t->piece_tokens, err);
    if (!t->piece_tokens || !wl_name_table_init (&t->pieces, t->n_tokens, err))
        return false;
    for (size_t i = 0; i < t->n_tokens; i++) {
        wl_text piece;
        uint32_t index;
        if (!piece_text (t, t->tokens[i].literal, buffer, &piece))
            continue;
        if (!add_piece (t, piece, &index, err))
            return false;
        if (index == t->n_token_pieces)
            t->piece_tokens[t->n_token_pieces++] = (int32_t) i;
    }
    return true;
}

/* Maps floats to integers in falling order: the highest score is the lowest rank. */
static uint32_t rank_of_score (float score)
{
    uint32_t bits;
    score = isnan (score) ? -INFINITY : score == 0 ? 0 : score; /* -0 is 0 */
    memcpy (&bits, &score, sizeof bits);
    return bits & 0x80000000u ? bits : ~bits & 0x7fffffffu;
}

/* Ranks by the tokens' scores. */
static bool load_scores (wl_tokenizer *t, const wl_gguf *gguf, wl_error *err)
{
    bool is_there;
    if (!check_list (gguf, "tokenizer.ggml.scores", false, t->n_tokens, &is_there, err))
        return false;
    if (!is_there)
        return wl_fail (err, WL_ERROR_INPUT,
                        "%s: has no scores of tokens (tokenizer.ggml.scores): convert the model again",
                        wl_gguf_path (gguf));
    t->piece_ranks = wl_new (t->n_token_pieces, sizeof *t->piece_ranks, err);
    if (!t->piece_ranks)
        return false;
    for (size_t i = 0; i < t->n_token_pieces; i++) {
        float score = 0;
        wl_gguf_array_f32 (gguf, "tokenizer.ggml.scores", (size_t) t->piece_tokens[i], &score);
        t->piece_ranks[i] = rank_of_score (score);
    }
    return true;
}

/* Ranks by the tokens' ids, as tiktoken merges. */
static bool rank_by_id (wl_tokenizer *t, wl_error *err)
{
    t->piece_ranks = wl_new (t->n_token_pieces, sizeof *t->piece_ranks, err);
    for (size_t i = 0; t->piece_ranks && i < t->n_token_pieces; i++)
        t->piece_ranks[i] = (uint32_t) t->piece_tokens[i];
    return t->piece_ranks != NULL;
}

/* -- Merges ---------------------------------------------------------------------------------------------------------------- */

static void add_merge (wl_tokenizer *t, uint32_t left, uint32_t right, uint32_t rank, uint32_t merged)
{
    uint64_t pair = (uint64_t) left << 32 | right;
    size_t at = hash_pair (pair, t->pieces.seed) & t->merge_mask;
    while (t->merges[at].pair != NO_PAIR && t->merges[at].pair != pair)
        at = (at + 1) & t->merge_mask;
    if (t->merges[at].pair == NO_PAIR) /* of two ranks for a pair the first counts */
        t->merges[at] = (merge_slot){pair, rank, merged};
}

/* "left right": enters the merge of two pieces. */
static bool load_merge (wl_tokenizer *t, wl_text line, size_t index, char *buffer, const char *path, wl_error *err)
{
    const char *space = line.length > 2 ? memchr (line.data + 1, ' ', line.length - 2) : NULL;
    if (!space)
        return wl_fail (err, WL_ERROR_INPUT,
                        "%s: merge %zu (tokenizer.ggml.merges) is no pair of pieces: the file is damaged", path, index);
    wl_text left = {line.data, (size_t) (space - line.data)};
    wl_text right = {space + 1, line.length - left.length - 1};
    wl_text left_piece, right_piece, both;
    if (!piece_text (t, left, buffer, &left_piece) || !piece_text (t, right, buffer + left_piece.length, &right_piece))
        return true; /* characters that stand for no byte: it can never apply */
    if (t->kind != KIND_BYTE_BPE) {
        memcpy (buffer, left.data, left.length);
        memcpy (buffer + left.length, right.data, right.length);
    }
    both = (wl_text){buffer, left_piece.length + right_piece.length};
    uint32_t left_index, right_index, merged;
    if (!add_piece (t, left_piece, &left_index, err) || !add_piece (t, right_piece, &right_index, err) ||
        !add_piece (t, both, &merged, err))
        return false;
    add_merge (t, left_index, right_index, (uint32_t) index, merged);
    return true;
}

static bool load_merges (wl_tokenizer *t, const wl_gguf *gguf, char *buffer, wl_error *err)
{
    wl_value_type element;
    size_t n, n_slots = 8;
    if (!wl_gguf_array (gguf, "tokenizer.ggml.merges", &element, &n) || element != WL_VALUE_STRING) {
        if (t->traits.merges_by_id)
            return rank_by_id (t, err);
        return wl_fail (err, WL_ERROR_INPUT, "%s: has no merges (tokenizer.ggml.merges): convert the model again",
                        wl_gguf_path (gguf));
    }
    if (n > INT32_MAX / 4)
        return wl_fail (err, WL_ERROR_INPUT, "%s: has %zu merges, more than Woolly takes", wl_gguf_path (gguf), n);
    while (n_slots / 2 < n)
        n_slots *= 2;
    t->merges = wl_new (n_slots, sizeof *t->merges, err);
    if (!t->merges)
        return false;
    t->merge_mask = n_slots - 1;
    for (size_t i = 0; i < n_slots; i++)
        t->merges[i].pair = NO_PAIR;
    for (size_t i = 0; i < n; i++) {
        wl_text line = {"", 0};
        wl_gguf_array_text (gguf, "tokenizer.ggml.merges", i, &line);
        if (!load_merge (t, line, i, buffer, wl_gguf_path (gguf), err))
            return false;
    }
    return true;
}

/* Tokens of single bytes, and the symbols that words start from. */
static bool load_bytes (wl_tokenizer *t, wl_error *err)
{
    for (unsigned b = 0; b < 256; b++) {
        char byte = (char) b, hex[8];
        uint32_t piece;
        snprintf (hex, sizeof hex, "<0x%02X>", b);
        if (t->kind == KIND_BYTE_BPE) {
            if (!t->piece_ranks && !add_piece (t, (wl_text){&byte, 1}, &t->byte_pieces[b], err))
                return false;
            if (t->piece_ranks && !wl_name_table_find (&t->pieces, (wl_text){&byte, 1}, &t->byte_pieces[b]))
                t->byte_pieces[b] = NO_PIECE;
            t->byte_tokens[b] = piece_token (t, t->byte_pieces[b]);
        } else if (wl_name_table_find (&t->pieces, (wl_text){hex, 6}, &piece) ||
                   (t->kind == KIND_SPM && wl_name_table_find (&t->pieces, (wl_text){&byte, 1}, &piece))) {
            t->byte_tokens[b] = piece_token (t, piece);
        } else {
            t->byte_tokens[b] = -1;
        }
    }
    return true;
}

/* -- The whole ---------------------------------------------------------------------------------------------------------------- */

/* Which pre-tokenizer, and what the model adds to a text. */
static bool load_habits (wl_tokenizer *t, const wl_gguf *gguf, wl_error *err)
{
    wl_text pre = {"", 0};
    if (t->kind == KIND_SPM) {
        t->adds_bos = true;
        t->adds_space_prefix = true;
    } else {
        wl_gguf_text (gguf, "tokenizer.ggml.pre", &pre);
        if (t->kind == KIND_RAW_BPE)
            pre = (wl_text){"gemma4", 6};
        t->pretokenizer = pretokenizer_new (pre, wl_gguf_path (gguf), err);
        if (!t->pretokenizer)
            return false;
        t->traits = pretokenizer_get_traits (t->pretokenizer);
        t->adds_bos = t->traits.adds_bos;
        if (t->traits.is_raw)
            t->kind = KIND_RAW_BPE;
    }
    wl_gguf_bool (gguf, "tokenizer.ggml.add_bos_token", &t->adds_bos);
    wl_gguf_bool (gguf, "tokenizer.ggml.add_eos_token", &t->adds_eos);
    if (t->kind == KIND_SPM)
        wl_gguf_bool (gguf, "tokenizer.ggml.add_space_prefix", &t->adds_space_prefix);
    t->adds_bos |= t->traits.always_adds_bos;
    return true;
}

static bool load_all (wl_tokenizer *t, const wl_gguf *gguf, char *buffer, wl_error *err)
{
    if (!load_kind (t, gguf, err) || !load_habits (t, gguf, err) || !load_tokens (t, gguf, err))
        return false;
    resolve_special_tokens (t, gguf);
    return load_token_texts (t, err) && load_pieces (t, buffer, err) &&
           (t->kind == KIND_SPM ? load_scores (t, gguf, err) : load_merges (t, gguf, buffer, err)) &&
           load_bytes (t, err) && list_special_tokens (t, err);
}

wl_tokenizer *wl_tokenizer_new (const wl_gguf *gguf, wl_error *err)
{
    wl_tokenizer *t = wl_new (1, sizeof *t, err);
    char *buffer = t ? new_buffer (gguf, err) : NULL;
    if (!buffer || !load_all (t, gguf, buffer, err))
        wl_tokenizer_free (&t);
    free (buffer);
    return t;
}

void wl_tokenizer_free (wl_tokenizer **tokenizer)
{
    wl_tokenizer *t = *tokenizer;
    if (!t)
        return;
    pretokenizer_free (&t->pretokenizer);
    free (t->all_specials.ids);
    free (t->user_specials.ids);
    free (t->merges);
    free (t->piece_ranks);
    free (t->piece_tokens);
    wl_name_table_free (&t->pieces);
    free (t->tokens);
    while (t->chunks) {
        text_chunk *next = t->chunks->next;
        free (t->chunks);
        t->chunks = next;
    }
    free (t);
    *tokenizer = NULL;
}

size_t wl_tokenizer_n_tokens (const wl_tokenizer *tokenizer)
{
    return tokenizer->n_tokens;
}

int32_t wl_tokenizer_bos (const wl_tokenizer *tokenizer)
{
    return tokenizer->bos;
}

int32_t wl_tokenizer_eos (const wl_tokenizer *tokenizer)
{
    return tokenizer->eos;
}

bool wl_tokenizer_is_end (const wl_tokenizer *tokenizer, int32_t token)
{
    return token >= 0 && (size_t) token < tokenizer->n_tokens && tokenizer->tokens[token].ends;
}

bool wl_tokenizer_is_control (const wl_tokenizer *tokenizer, int32_t token)
{
    return token >= 0 && (size_t) token < tokenizer->n_tokens && tokenizer->tokens[token].type == TOKEN_CONTROL;
}

int32_t wl_tokenizer_difference (const wl_tokenizer *a, const wl_tokenizer *b)
{
    const wl_tokenizer *longer = a->n_tokens > b->n_tokens ? a : b;
    for (size_t i = 0; i < longer->n_tokens; i++) {
        if (i >= a->n_tokens || i >= b->n_tokens) {
            if (longer->tokens[i].type != TOKEN_UNUSED)
                return (int32_t) i;
            continue;
        }
        wl_text one = a->tokens[i].literal, other = b->tokens[i].literal;
        if (one.length != other.length || memcmp (one.data, other.data, one.length) != 0)
            return (int32_t) i;
    }
    return -1;
}
