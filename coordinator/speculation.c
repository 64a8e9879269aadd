/* Guessing what comes next; see speculation.h.
 *
 * The index is a hash table of pairs of neighbouring tokens with chains to earlier occurrences, as in LZ77 coders: positions are inserted as they become known, and a
 * search walks at most SEARCH_DEPTH of them, comparing backwards. `source` is where the tokens that follow the match stand; guesses are read on from there, and
 * where they run into the end of what is known, from the guesses themselves: so a text with a period is continued without end. */
#include "speculation.h"

#include <stdlib.h>
#include <string.h>

#include "engine/memory.h"

enum { SEARCH_DEPTH = 32, LONGEST_MATCH = 64, N_CLASSES = 8, NONE = UINT32_MAX };

typedef struct record { /* how guesses after matches of one class of lengths have fared; older ones count less */
    double right, all;
} record;

struct wl_speculation {
    const int32_t *tokens;
    size_t capacity, n;
    uint32_t *heads;   /* [mask + 1] the latest position whose pair has this hash, or NONE */
    uint32_t *earlier; /* [capacity] the one before it */
    size_t mask;
    size_t source, match; /* match 0: there is none */
    record records[N_CLASSES];
};

bool wl_speculation_parse (const char *text, wl_speculation_kind *kind, const char **draft, wl_error *err)
{
    const char prefix[] = "draft:";
    bool is_draft = text && strncmp (text, prefix, strlen (prefix)) == 0;
    *kind = is_draft ? WL_SPECULATION_DRAFT : WL_SPECULATION_AUTO;
    if (draft)
        *draft = is_draft ? text + strlen (prefix) : NULL;
    if (is_draft && !text[strlen (prefix)])
        return wl_fail (err, WL_ERROR_USAGE, "--spec draft: which model? Name a GGUF file: --spec draft:MODEL");
    if (is_draft)
        return true;
    if (!text || strcmp (text, "auto") == 0)
        return true;
    if (strcmp (text, "off") == 0)
        *kind = WL_SPECULATION_OFF;
    else if (strcmp (text, "ngram") == 0)
        *kind = WL_SPECULATION_NGRAM;
    else
        return wl_fail (err, WL_ERROR_USAGE, "--spec %s: choose off, ngram, auto or draft:MODEL", text);
    return true;
}

wl_speculation *wl_speculation_new (const int32_t *tokens, size_t capacity, wl_error *err)
{
    wl_speculation *s = wl_new (1, sizeof *s, err);
    size_t size = 64;
    if (!s)
        return NULL;
    while (size < capacity && size < (size_t) 1 << 20)
        size *= 2;
    s->tokens = tokens;
    s->capacity = capacity < NONE ? capacity : NONE - 1;
    s->mask = size - 1;
    s->heads = wl_new (size, sizeof *s->heads, err);
    s->earlier = wl_new (capacity, sizeof *s->earlier, err);
    if (!s->heads || !s->earlier) {
        wl_speculation_free (&s);
        return NULL;
    }
    memset (s->heads, 0xff, size * sizeof *s->heads);
    return s;
}

void wl_speculation_free (wl_speculation **speculation)
{
    wl_speculation *s = *speculation;
    if (!s)
        return;
    free (s->heads);
    free (s->earlier);
    free (s);
    *speculation = NULL;
}

/* -- how likely ----------------------------------------------------------------------------------------------------------------------------- */

static size_t class_of (size_t match)
{
    static const size_t from[N_CLASSES] = {2, 3, 4, 5, 7, 10, 16, 32};
    size_t class = N_CLASSES - 1;
    while (class > 0 && match < from[class])
        class --;
    return class;
}

/* Before anything is seen, a match is believed in the more the longer it is; some observations weigh more than that. */
static double chance_of (const wl_speculation *s, size_t match)
{
    static const double before[N_CLASSES] = {0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.92};
    const double weight = 3;
    size_t class = class_of (match);
    const record *r = &s->records[class];
    return (r->right + before[class] * weight) / (r->all + weight);
}

static void learn (wl_speculation *s, size_t match, bool right)
{
    const double fade = 0.96;
    record *r = &s->records[class_of (match)];
    r->right = r->right * fade + (right ? 1 : 0);
    r->all = r->all * fade + 1;
}

/* -- matches -------------------------------------------------------------------------------------------------------------------------------- */

static size_t hash_at (const wl_speculation *s, size_t position)
{
    uint64_t pair = (uint64_t) (uint32_t) s->tokens[position - 1] << 32 | (uint32_t) s->tokens[position];
    pair *= UINT64_C (0x9e3779b97f4a7c15);
    return (size_t) (pair >> 40) & s->mask;
}

/* How many tokens that end at `earlier` equal those that end at `position`. */
static size_t match_length (const wl_speculation *s, size_t earlier, size_t position)
{
    size_t n = 0;
    while (n < LONGEST_MATCH && n <= earlier && s->tokens[earlier - n] == s->tokens[position - n])
        n++;
    return n;
}

/* Looks for the end of what is known (`position`, not yet inserted) further back; a match counts if it is longer than the one there is. */
static void search (wl_speculation *s, size_t position)
{
    uint32_t at = s->heads[hash_at (s, position)];
    for (int i = 0; i < SEARCH_DEPTH && at != NONE && s->match < LONGEST_MATCH; i++, at = s->earlier[at]) {
        size_t n = match_length (s, at, position);
        if (n >= 2 && n > s->match) {
            s->match = n;
            s->source = at + 1;
        }
    }
}

static void insert (wl_speculation *s, size_t position)
{
    uint32_t *head = &s->heads[hash_at (s, position)];
    s->earlier[position] = *head;
    *head = (uint32_t) position;
}

void wl_speculation_know (wl_speculation *s, size_t n_known, bool keep)
{
    bool prompt = s->n == 0; /* nothing was guessed about it, so only its end is looked for */
    for (; s->n < n_known && s->n < s->capacity; s->n++) {
        size_t position = s->n;
        if (s->match) {
            bool right = s->tokens[s->source] == s->tokens[position];
            learn (s, s->match, right);
            s->match = !right ? 0 : s->match < LONGEST_MATCH ? s->match + 1 : LONGEST_MATCH;
            s->source++;
        }
        if (position == 0)
            continue;
        if ((!prompt || position + 1 == n_known) && !(keep && s->match))
            search (s, position);
        insert (s, position);
    }
}

bool wl_speculation_guess (const wl_speculation *s, size_t ahead, int32_t *token, double *chance)
{
    if (!s->match)
        return false;
    *token = s->tokens[s->source + ahead];
    *chance = chance_of (s, s->match + ahead);
    return true;
}
