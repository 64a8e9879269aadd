/* Special tokens: what they are for, and finding their text; see vocabulary.h.
 *
 * GGUF names only some roles by id, and conversions err in tokens' types; so, as is usual, tokens are also known by their text. A
 * token that ends a turn or belongs to fill-in-the-middle is a control token whatever type the file gives it. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "../memory.h"
#include "vocabulary.h"

typedef enum role {
    ROLE_EOT,
    ROLE_EOM,
    ROLE_FIM_PREFIX,
    ROLE_FIM_SUFFIX,
    ROLE_FIM_MIDDLE,
    ROLE_FIM_PAD,
    ROLE_FIM_REPOSITORY,
    ROLE_FIM_SEPARATOR,
    N_ROLES,
    ROLE_END,   /* ends a generation; any number of tokens */
    ROLE_SHOWN, /* structure of an answer that readers need: not control, even if the file says so */
} role;

/* Metadata keys of a role; the second is an older name. */
static const char *const role_keys[N_ROLES][2] = {
    [ROLE_EOT] = {"tokenizer.ggml.eot_token_id", NULL},
    [ROLE_EOM] = {"tokenizer.ggml.eom_token_id", NULL},
    [ROLE_FIM_PREFIX] = {"tokenizer.ggml.fim_pre_token_id", "tokenizer.ggml.prefix_token_id"},
    [ROLE_FIM_SUFFIX] = {"tokenizer.ggml.fim_suf_token_id", "tokenizer.ggml.suffix_token_id"},
    [ROLE_FIM_MIDDLE] = {"tokenizer.ggml.fim_mid_token_id", "tokenizer.ggml.middle_token_id"},
    [ROLE_FIM_PAD] = {"tokenizer.ggml.fim_pad_token_id", NULL},
    [ROLE_FIM_REPOSITORY] = {"tokenizer.ggml.fim_rep_token_id", NULL},
    [ROLE_FIM_SEPARATOR] = {"tokenizer.ggml.fim_sep_token_id", NULL},
};

/* Texts of a role, used where no key names a token: the first that is there. */
static const struct {
    const char *text;
    role role;
} known_texts[] = {
    {"<|eot_id|>", ROLE_EOT},
    {"<|im_end|>", ROLE_EOT},
    {"<|end|>", ROLE_EOT},
    {"<end_of_turn>", ROLE_EOT},
    {"<|endoftext|>", ROLE_EOT},
    {"<|end_of_text|>", ROLE_EOT},
    {"<EOT>", ROLE_EOT},
    {"_<EOT>", ROLE_EOT},
    {"[EOT]", ROLE_EOT},
    {"<｜end▁of▁sentence｜>", ROLE_EOT},
    {"<end_of_utterance>", ROLE_EOT},
    {"<|eom_id|>", ROLE_EOM},
    {"<|fim_prefix|>", ROLE_FIM_PREFIX},
    {"<fim-prefix>", ROLE_FIM_PREFIX},
    {"<fim_prefix>", ROLE_FIM_PREFIX},
    {"<｜fim▁begin｜>", ROLE_FIM_PREFIX},
    {"<PRE>", ROLE_FIM_PREFIX},
    {"▁<PRE>", ROLE_FIM_PREFIX},
    {"<|code_prefix|>", ROLE_FIM_PREFIX},
    {"<|prefix|>", ROLE_FIM_PREFIX},
    {"<|fim_suffix|>", ROLE_FIM_SUFFIX},
    {"<fim-suffix>", ROLE_FIM_SUFFIX},
    {"<fim_suffix>", ROLE_FIM_SUFFIX},
    {"<｜fim▁hole｜>", ROLE_FIM_SUFFIX},
    {"<SUF>", ROLE_FIM_SUFFIX},
    {"▁<SUF>", ROLE_FIM_SUFFIX},
    {"<|code_suffix|>", ROLE_FIM_SUFFIX},
    {"<|suffix|>", ROLE_FIM_SUFFIX},
    {"<|fim_middle|>", ROLE_FIM_MIDDLE},
    {"<fim-middle>", ROLE_FIM_MIDDLE},
    {"<fim_middle>", ROLE_FIM_MIDDLE},
    {"<｜fim▁end｜>", ROLE_FIM_MIDDLE},
    {"<MID>", ROLE_FIM_MIDDLE},
    {"▁<MID>", ROLE_FIM_MIDDLE},
    {"<|code_middle|>", ROLE_FIM_MIDDLE},
    {"<|middle|>", ROLE_FIM_MIDDLE},
    {"<|fim_pad|>", ROLE_FIM_PAD},
    {"<fim-pad>", ROLE_FIM_PAD},
    {"<fim_pad>", ROLE_FIM_PAD},
    {"<PAD>", ROLE_FIM_PAD},
    {"[PAD]", ROLE_FIM_PAD},
    {"<|fim_repo|>", ROLE_FIM_REPOSITORY},
    {"<|repo_name|>", ROLE_FIM_REPOSITORY},
    {"<fim-repo>", ROLE_FIM_REPOSITORY},
    {"<REPO>", ROLE_FIM_REPOSITORY},
    {"<reponame>", ROLE_FIM_REPOSITORY},
    {"<|file_sep|>", ROLE_FIM_SEPARATOR},
    {"<|eot_id|>", ROLE_END},
    {"<|im_end|>", ROLE_END},
    {"<|end|>", ROLE_END},
    {"<|return|>", ROLE_END},
    {"<|call|>", ROLE_END},
    {"<|flush|>", ROLE_END},
    {"<|calls|>", ROLE_END},
    {"<end_of_turn>", ROLE_END},
    {"<|endoftext|>", ROLE_END},
    {"</s>", ROLE_END},
    {"<|eom_id|>", ROLE_END},
    {"<EOT>", ROLE_END},
    {"_<EOT>", ROLE_END},
    {"[EOT]", ROLE_END},
    {"[EOS]", ROLE_END},
    {"<|end_of_text|>", ROLE_END},
    {"<end_of_utterance>", ROLE_END},
    {"<eos>", ROLE_END},
    {"<turn|>", ROLE_END},
    {"<|tool_response>", ROLE_END},
    {"<｜end▁of▁sentence｜>", ROLE_END},
    {"[e~[", ROLE_END},
    {"<|channel|>", ROLE_SHOWN},
    {"<|message|>", ROLE_SHOWN},
    {"<|start|>", ROLE_SHOWN},
    {"<|constrain|>", ROLE_SHOWN},
};
enum { N_KNOWN_TEXTS = sizeof known_texts / sizeof known_texts[0] };

static bool text_is (wl_text text, const char *other)
{
    return text.length == strlen (other) && memcmp (text.data, other, text.length) == 0;
}

/* The token whose literal is `text`; -1 if none. Linear: only for a few looks while loading. */
static int32_t find_literal (const wl_tokenizer *t, const char *text)
{
    for (size_t i = 0; i < t->n_tokens; i++)
        if (text_is (t->tokens[i].literal, text))
            return (int32_t) i;
    return -1;
}

/* A token id from the metadata; one that is out of range counts as absent (some files say -1 or 2^32 - 1 for "none"). */
static bool id_of_key (const wl_tokenizer *t, const wl_gguf *gguf, const char *key, int32_t *id)
{
    uint32_t value;
    if (!key || !wl_gguf_u32 (gguf, key, &value) || value >= t->n_tokens)
        return false;
    *id = (int32_t) value;
    return true;
}

static bool name_contains (wl_text name, const char *part)
{
    size_t n = strlen (part);
    for (size_t i = 0; i + n <= name.length; i++) {
        size_t k = 0;
        while (k < n && tolower ((unsigned char) name.data[i + k]) == part[k])
            k++;
        if (k == n)
            return true;
    }
    return false;
}

/* White space around special tokens: GGUF has no field for it, so it is known by the model's name. */
static void set_strips (wl_tokenizer *t, const wl_gguf *gguf)
{
    wl_text name = {NULL, 0}, pre = {NULL, 0}, arch = {NULL, 0};
    const char *mask = NULL;
    wl_gguf_text (gguf, "general.name", &name);
    wl_gguf_text (gguf, "tokenizer.ggml.pre", &pre);
    wl_gguf_text (gguf, "general.architecture", &arch);
    if (name_contains (pre, "jina-v2-de") || name_contains (pre, "jina-v2-es") || name_contains (pre, "jina-v2-code") ||
        name_contains (arch, "nomic-bert-moe") || name_contains (arch, "jina-bert-v3"))
        mask = "<mask>";
    else if (name_contains (name, "phi-3") || name_contains (name, "phi3"))
        for (size_t i = 0; i < t->n_tokens; i++) {
            vocabulary_entry *k = &t->tokens[i];
            bool is_special = k->type == TOKEN_CONTROL || k->type == TOKEN_USER_DEFINED || k->type == TOKEN_UNKNOWN;
            k->strips_right = (is_special || text_is (k->literal, "</s>")) && !text_is (k->literal, "<unk>") &&
                              !text_is (k->literal, "<s>") && !text_is (k->literal, "<|endoftext|>");
        }
    else if (name_contains (name, "modern-bert"))
        mask = "[MASK]";
    int32_t id = mask ? find_literal (t, mask) : -1;
    if (id >= 0)
        t->tokens[id].strips_left = true;
}

/* Exceptions among ending tokens. */
static void correct_ends (wl_tokenizer *t, const int32_t found[N_KNOWN_TEXTS])
{
    int32_t end = -1, s = -1;
    bool returns = false, calls = false, flushes = false, is_plain_s = false;
    for (size_t i = 0; i < N_KNOWN_TEXTS; i++) {
        if (known_texts[i].role != ROLE_END || found[i] < 0)
            continue;
        const char *text = known_texts[i].text;
        if (strcmp (text, "<|end|>") == 0)
            end = found[i];
        if (strcmp (text, "</s>") == 0)
            s = found[i];
        returns |= strcmp (text, "<|return|>") == 0;
        calls |= strcmp (text, "<|call|>") == 0 || strcmp (text, "<|calls|>") == 0;
        flushes |= strcmp (text, "<|flush|>") == 0;
        is_plain_s |= strcmp (text, "<|tool_response>") == 0;
    }
    /* Harmony: <|end|> ends a message, and <|return|> or <|call|> the turn; Solar likewise. */
    if (end >= 0 && calls && (returns || flushes)) {
        t->tokens[end].ends = false;
        t->tokens[end].type = TOKEN_USER_DEFINED;
    }
    /* Gemma 4: </s> is HTML. */
    if (s >= 0 && is_plain_s) {
        t->tokens[s].ends = false;
        t->tokens[s].type = TOKEN_NORMAL;
    }
}

static void find_known_texts (const wl_tokenizer *t, int32_t found[N_KNOWN_TEXTS])
{
    for (size_t k = 0; k < N_KNOWN_TEXTS; k++)
        found[k] = -1;
    for (size_t i = 0; i < t->n_tokens; i++) {
        wl_text literal = t->tokens[i].literal;
        if (literal.length < 4 || !strchr ("<[_\xe2", literal.data[0]) || literal.data[0] == 0)
            continue;
        for (size_t k = 0; k < N_KNOWN_TEXTS; k++)
            if (found[k] < 0 && text_is (literal, known_texts[k].text))
                found[k] = (int32_t) i;
    }
}

/* Which token has each role, from the metadata or else from the texts. */
static void find_roles (wl_tokenizer *t, const wl_gguf *gguf, const int32_t found[N_KNOWN_TEXTS],
                        int32_t roles[N_ROLES])
{
    for (int r = 0; r < N_ROLES; r++) {
        roles[r] = -1;
        if (id_of_key (t, gguf, role_keys[r][0], &roles[r]) || id_of_key (t, gguf, role_keys[r][1], &roles[r]))
            continue;
        for (size_t k = 0; k < N_KNOWN_TEXTS && roles[r] < 0; k++)
            if ((int) known_texts[k].role == r && found[k] >= 0) {
                roles[r] = found[k];
                t->tokens[found[k]].type = TOKEN_CONTROL;
            }
    }
}

void resolve_special_tokens (wl_tokenizer *t, const wl_gguf *gguf)
{
    static const role ending_roles[] = {ROLE_EOT, ROLE_EOM, ROLE_FIM_PAD, ROLE_FIM_REPOSITORY, ROLE_FIM_SEPARATOR};
    int32_t found[N_KNOWN_TEXTS], roles[N_ROLES];
    t->bos = t->kind == KIND_SPM && t->n_tokens > 1 ? 1 : -1;
    t->eos = t->kind == KIND_SPM && t->n_tokens > 2 ? 2 : -1;
    t->unknown = t->kind == KIND_SPM ? 0 : -1;
    id_of_key (t, gguf, "tokenizer.ggml.bos_token_id", &t->bos);
    id_of_key (t, gguf, "tokenizer.ggml.eos_token_id", &t->eos);
    id_of_key (t, gguf, "tokenizer.ggml.unknown_token_id", &t->unknown);

    find_known_texts (t, found);
    find_roles (t, gguf, found, roles);
    for (size_t i = 0; i < sizeof ending_roles / sizeof ending_roles[0]; i++)
        if (roles[ending_roles[i]] >= 0)
            t->tokens[roles[ending_roles[i]]].ends = true;
    for (size_t k = 0; k < N_KNOWN_TEXTS; k++) {
        if (found[k] < 0)
            continue;
        if (known_texts[k].role == ROLE_END) {
            t->tokens[found[k]].ends = true;
            t->tokens[found[k]].type = TOKEN_CONTROL;
        } else if (known_texts[k].role == ROLE_SHOWN) {
            t->tokens[found[k]].type = TOKEN_USER_DEFINED;
        }
    }
    if (t->eos >= 0)
        t->tokens[t->eos].ends = true;
    correct_ends (t, found);
    set_strips (t, gguf);
}

/* -- Finding them in text -------------------------------------------------------------------------------------------------- */

typedef struct keyed_id {
    wl_text text;
    int32_t id;
} keyed_id;

static int by_text (const void *left, const void *right)
{
    const keyed_id *a = left, *b = right;
    size_t n = a->text.length < b->text.length ? a->text.length : b->text.length;
    int order = memcmp (a->text.data, b->text.data, n);
    if (order == 0 && a->text.length != b->text.length)
        order = a->text.length < b->text.length ? -1 : 1;
    return order ? order : (a->id > b->id) - (a->id < b->id);
}

static bool is_special (const vocabulary_entry *k, bool with_control)
{
    if (k->literal.length == 0)
        return false;
    return k->type == TOKEN_USER_DEFINED || (with_control && (k->type == TOKEN_CONTROL || k->type == TOKEN_UNKNOWN));
}

static bool fill_list (const wl_tokenizer *t, bool with_control, special_list *list, wl_error *err)
{
    size_t n = 0;
    for (size_t i = 0; i < t->n_tokens; i++)
        n += is_special (&t->tokens[i], with_control);
    keyed_id *keyed = wl_new (n, sizeof *keyed, err);
    list->ids = keyed ? wl_new (n, sizeof *list->ids, err) : NULL;
    if (!list->ids) {
        free (keyed);
        return false;
    }
    list->count = n;
    n = 0;
    for (size_t i = 0; i < t->n_tokens; i++)
        if (is_special (&t->tokens[i], with_control))
            keyed[n++] = (keyed_id){t->tokens[i].literal, (int32_t) i};
    qsort (keyed, n, sizeof *keyed, by_text);
    for (size_t i = 0; i < n; i++) {
        list->ids[i] = keyed[i].id;
        list->first[(uint8_t) keyed[i].text.data[0] + 1]++;
    }
    for (size_t b = 0; b < 256; b++)
        list->first[b + 1] += list->first[b];
    free (keyed);
    return true;
}

bool list_special_tokens (wl_tokenizer *t, wl_error *err)
{
    return fill_list (t, true, &t->all_specials, err) && fill_list (t, false, &t->user_specials, err);
}

/* In ids[low, high), which agree in their first `depth` bytes and are longer: the first whose byte at `depth` is at least
 * `byte`. */
static size_t lower_bound (const wl_tokenizer *t, const int32_t *ids, size_t low, size_t high, size_t depth,
                           unsigned byte)
{
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if ((uint8_t) t->tokens[ids[middle]].literal.data[depth] < byte)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

int32_t match_special (const wl_tokenizer *t, const special_list *list, const char *text, size_t length)
{
    uint8_t byte = (uint8_t) text[0];
    size_t low = list->first[byte], high = list->first[byte + 1];
    int32_t best = -1;
    for (size_t depth = 1; low < high; depth++) {
        for (; low < high && t->tokens[list->ids[low]].literal.length == depth; low++) /* shorter ones sort first */
            if (best < 0 || t->tokens[best].literal.length < depth)
                best = list->ids[low];
        if (depth == length)
            break;
        byte = (uint8_t) text[depth];
        low = lower_bound (t, list->ids, low, high, depth, byte);
        high = lower_bound (t, list->ids, low, high, depth, byte + 1u);
    }
    return best;
}
