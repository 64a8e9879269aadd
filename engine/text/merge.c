/* From a word's bytes to tokens, by merging neighbours; see vocabulary.h.
 *
 * Byte-pair encoding starts from bytes (or characters) and joins the two neighbours whose merge ranks first, again and again; of
 * equal ranks the leftmost goes first. SentencePiece does the same with the score of the merged token as the rank. A heap holds
 * the candidates, so that a text without any white space takes n log n steps: a candidate that a merge has made stale stays in
 * the heap and is dropped when it comes up, recognised by its size. */
#include <stdlib.h>
#include <string.h>

#include "../memory.h"
#include "utf8.h"
#include "vocabulary.h"

/* A stretch of the word; those alive form a list in order. */
struct symbol {
    uint32_t start, length; /* length 0: merged into the symbol before it */
    int32_t before, after;  /* -1: none */
    uint32_t piece;         /* or NO_PIECE */
};

struct candidate {
    uint64_t order; /* rank << 32 | left: the smallest first */
    uint32_t right, merged;
    uint32_t length; /* of both together when the candidate was made */
};

bool add_id (id_list *list, int32_t id, wl_error *err)
{
    if (list->count == list->room) {
        size_t room = list->room ? list->room * 2 : 64;
        int32_t *grown = wl_resize (list->items, room, sizeof *grown, err);
        if (!grown)
            return false;
        list->items = grown;
        list->room = room;
    }
    list->items[list->count++] = id;
    return true;
}

void merger_free (merger *m)
{
    free (m->symbols);
    free (m->heap);
    memset (m, 0, sizeof *m);
}

/* -- Heap ------------------------------------------------------------------------------------------------------------------ */

static bool push (merger *m, candidate c, wl_error *err)
{
    if (m->heap_count == m->heap_room) {
        size_t room = m->heap_room ? m->heap_room * 2 : 64;
        candidate *grown = wl_resize (m->heap, room, sizeof *grown, err);
        if (!grown)
            return false;
        m->heap = grown;
        m->heap_room = room;
    }
    size_t at = m->heap_count++;
    while (at > 0 && m->heap[(at - 1) / 2].order > c.order) {
        m->heap[at] = m->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    m->heap[at] = c;
    return true;
}

static candidate pop (merger *m)
{
    candidate top = m->heap[0], last = m->heap[--m->heap_count];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= m->heap_count)
            break;
        if (child + 1 < m->heap_count && m->heap[child + 1].order < m->heap[child].order)
            child++;
        if (m->heap[child].order >= last.order)
            break;
        m->heap[at] = m->heap[child];
        at = child;
    }
    m->heap[at] = last;
    return top;
}

/* -- Merging ---------------------------------------------------------------------------------------------------------------- */

/* Whether two neighbours merge, and how soon. */
static bool find_merge (const wl_tokenizer *t, const char *word, const symbol *left, const symbol *right,
                        uint32_t *rank, uint32_t *merged)
{
    if (t->piece_ranks) {
        wl_text both = {word + left->start, (size_t) left->length + right->length};
        if (both.length > t->longest_piece || !wl_name_table_find (&t->pieces, both, merged))
            return false;
        *rank = t->piece_ranks[*merged];
        return true;
    }
    if (left->piece == NO_PIECE || right->piece == NO_PIECE)
        return false;
    uint64_t pair = (uint64_t) left->piece << 32 | right->piece;
    for (size_t at = hash_pair (pair, t->pieces.seed) & t->merge_mask;; at = (at + 1) & t->merge_mask) {
        const merge_slot *slot = &t->merges[at];
        if (slot->pair == pair) {
            *rank = slot->rank;
            *merged = slot->merged;
            return true;
        }
        if (slot->pair == NO_PAIR)
            return false;
    }
}

static bool consider (const wl_tokenizer *t, merger *m, const char *word, int32_t left, int32_t right, wl_error *err)
{
    uint32_t rank, merged;
    if (left < 0 || right < 0 || !find_merge (t, word, &m->symbols[left], &m->symbols[right], &rank, &merged))
        return true;
    candidate c = {.order = (uint64_t) rank << 32 | (uint32_t) left,
                   .right = (uint32_t) right,
                   .merged = merged,
                   .length = m->symbols[left].length + m->symbols[right].length};
    return push (m, c, err);
}

/* Cuts the word into bytes, or characters; a byte that starts no character is a symbol of its own. */
static bool cut_symbols (const wl_tokenizer *t, merger *m, const char *word, size_t length, size_t *n_symbols,
                         wl_error *err)
{
    if (length > m->symbols_room) {
        symbol *grown = wl_resize (m->symbols, length, sizeof *grown, err);
        if (!grown)
            return false;
        m->symbols = grown;
        m->symbols_room = length;
    }
    size_t n = 0;
    for (size_t at = 0; at < length; n++) {
        size_t step = t->kind == KIND_BYTE_BPE ? 1 : utf8_length (word + at, length - at);
        step = step ? step : 1;
        uint32_t piece = NO_PIECE;
        if (t->kind == KIND_BYTE_BPE)
            piece = t->byte_pieces[(uint8_t) word[at]];
        else if (!wl_name_table_find (&t->pieces, (wl_text){word + at, step}, &piece))
            piece = NO_PIECE;
        m->symbols[n] = (symbol){.start = (uint32_t) at,
                                 .length = (uint32_t) step,
                                 .before = (int32_t) n - 1,
                                 .after = at + step < length ? (int32_t) n + 1 : -1,
                                 .piece = piece};
        at += step;
    }
    *n_symbols = n;
    return true;
}

/* The tokens of a symbol that has none of its own: its bytes. Where one of them has no token, SentencePiece gives the unknown token
 * for the symbol, and byte-level BPE leaves the byte out, as the tokenizers that models are trained with do. */
static bool add_bytes (const wl_tokenizer *t, const char *bytes, size_t length, id_list *out, wl_error *err)
{
    bool is_missing = false;
    for (size_t i = 0; i < length; i++)
        is_missing |= t->byte_tokens[(uint8_t) bytes[i]] < 0;
    if (is_missing && t->unknown >= 0 && t->kind != KIND_BYTE_BPE)
        return add_id (out, t->unknown, err);
    for (size_t i = 0; i < length; i++) {
        int32_t id = t->byte_tokens[(uint8_t) bytes[i]];
        if (id >= 0 && !add_id (out, id, err))
            return false;
    }
    return true;
}

bool merge_word (const wl_tokenizer *t, merger *m, const char *word, size_t length, id_list *out, wl_error *err)
{
    size_t n;
    if (length == 0)
        return true;
    if (!cut_symbols (t, m, word, length, &n, err))
        return false;
    m->heap_count = 0;
    for (size_t i = 1; i < n; i++)
        if (!consider (t, m, word, (int32_t) i - 1, (int32_t) i, err))
            return false;
    while (m->heap_count > 0) {
        candidate c = pop (m);
        int32_t left = (int32_t) (uint32_t) c.order;
        symbol *l = &m->symbols[left], *r = &m->symbols[c.right];
        if (l->length == 0 || r->length == 0 || l->length + r->length != c.length)
            continue; /* stale */
        l->length = c.length;
        l->piece = c.merged;
        l->after = r->after;
        r->length = 0;
        if (r->after >= 0)
            m->symbols[r->after].before = left;
        if (!consider (t, m, word, l->before, left, err) || !consider (t, m, word, left, l->after, err))
            return false;
    }
    for (int32_t i = 0; i >= 0; i = m->symbols[i].after) {
        const symbol *s = &m->symbols[i];
        int32_t id = s->piece == NO_PIECE ? -1 : piece_token (t, s->piece);
        if (!(id >= 0 ? add_id (out, id, err) : add_bytes (t, word + s->start, s->length, out, err)))
            return false;
    }
    return true;
}
