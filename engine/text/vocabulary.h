/* What a tokenizer holds, and the parts it is made of. Private to engine/text; see tokenizer.h for the whole.
 *
 *  tokenizer.c       builds it from a GGUF's metadata
 *  special_tokens.c  roles of tokens (end, control, …) and finding their text
 *  merge.c           from a word's bytes to tokens
 *  encode.c          from text to tokens
 *  detokenizer.c     and back
 *
 * Byte-level models write a token's bytes as printable characters (GPT-2's table, space as U+0120). That is undone on loading: from
 * then on pieces are plain bytes, for words of text as for tokens. */
#ifndef ENGINE_TEXT_VOCABULARY_H
#define ENGINE_TEXT_VOCABULARY_H

#include "../name_table.h"
#include "pretokenizer.h"
#include "tokenizer.h"

typedef enum tokenizer_kind {
    KIND_BYTE_BPE, /* "gpt2": merges by rank over bytes */
    KIND_RAW_BPE,  /* "gemma4": merges by rank over characters, space as U+2581, bytes as <0xXX> */
    KIND_SPM,      /* "llama": merges by score over characters, space as U+2581, bytes as <0xXX> */
} tokenizer_kind;

typedef enum token_type { /* GGUF's numbers */
                          TOKEN_UNDEFINED = 0,
                          TOKEN_NORMAL = 1,
                          TOKEN_UNKNOWN = 2,
                          TOKEN_CONTROL = 3,
                          TOKEN_USER_DEFINED = 4,
                          TOKEN_UNUSED = 5,
                          TOKEN_BYTE = 6,
} token_type;

typedef struct vocabulary_entry {
    wl_text literal; /* as the file writes it: what is looked for in text where the token is special */
    wl_text text;    /* the bytes it stands for */
    uint8_t type;
    bool ends;        /* a generation */
    bool strips_left; /* white space before its text belongs to it; likewise right, after */
    bool strips_right;
} vocabulary_entry;

/* Special tokens ordered by their text. */
typedef struct special_list {
    int32_t *ids;
    size_t count;
    uint32_t first[257]; /* those that start with byte b: ids[first[b]] to ids[first[b + 1] - 1] */
} special_list;

/* A merge of two pieces. */
typedef struct merge_slot {
    uint64_t pair; /* left piece << 32 | right piece; NO_PAIR: free */
    uint32_t rank, merged;
} merge_slot;

#define NO_PAIR UINT64_MAX
#define NO_PIECE UINT32_MAX

typedef struct text_chunk text_chunk;

struct wl_tokenizer {
    tokenizer_kind kind;
    pretokenizer *pretokenizer; /* NULL for KIND_SPM */
    pretokenizer_traits traits;
    vocabulary_entry *tokens;
    size_t n_tokens;
    text_chunk *chunks; /* all texts */

    /* Pieces: tokens' bytes, and parts of merges that are no tokens. */
    wl_name_table pieces;
    int32_t *piece_tokens; /* [n_token_pieces]; later pieces are no tokens */
    uint32_t *
        piece_ranks; /* [n_token_pieces]: which merge comes first, where the merged text decides; NULL: `merges` decide */
    size_t n_token_pieces;
    size_t longest_piece; /* bytes */
    merge_slot *merges;
    size_t merge_mask;
    uint32_t byte_pieces[256]; /* of KIND_BYTE_BPE */
    int32_t byte_tokens[256];  /* -1: none */

    special_list all_specials;  /* what is recognised with parse_special */
    special_list user_specials; /* … and without */

    int32_t bos, eos, unknown; /* -1: none */
    bool adds_bos, adds_eos, adds_space_prefix;
};

/* -- special_tokens.c ---------------------------------------------------------------------------------------------------- */

/* From the metadata and the tokens' literals: bos, eos, unknown; tokens' `ends`, `strips_…`; types of tokens that the file gives
 * another type than their text calls for. */
void resolve_special_tokens (wl_tokenizer *t, const wl_gguf *gguf);

/* Fills the two lists. */
bool list_special_tokens (wl_tokenizer *t, wl_error *err);

/* The longest token of the list that `text` starts with; -1 if none does. */
int32_t match_special (const wl_tokenizer *t, const special_list *list, const char *text, size_t length);

/* -- merge.c ----------------------------------------------------------------------------------------------------------------- */

typedef struct id_list {
    int32_t *items;
    size_t count, room;
} id_list;

bool add_id (id_list *list, int32_t id, wl_error *err);

/* Scratch that words share; zeroed before the first. */
typedef struct symbol symbol;
typedef struct candidate candidate;
typedef struct merger {
    symbol *symbols;
    candidate *heap;
    size_t symbols_room, heap_room, heap_count;
} merger;

/* Appends the tokens of one word (of all the text, for KIND_SPM). */
bool merge_word (const wl_tokenizer *t, merger *m, const char *word, size_t length, id_list *out, wl_error *err);
void merger_free (merger *m);

static inline uint64_t hash_pair (uint64_t pair, uint64_t seed)
{
    unsigned __int128 product = (unsigned __int128) (pair ^ seed) * 0x9e3779b97f4a7c15u;
    return (uint64_t) product ^ (uint64_t) (product >> 64);
}

static inline int32_t piece_token (const wl_tokenizer *t, uint32_t piece)
{
    return piece < t->n_token_pieces ? t->piece_tokens[piece] : -1;
}

#endif
