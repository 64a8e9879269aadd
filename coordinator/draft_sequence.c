/* What a draft model knows of one sequence; see draft_sequence.h. */
#include "draft_sequence.h"

#include <stdlib.h>

#include "engine/memory.h"

static const double least_chance = 0.2; /* of a guess and all before it: beyond that nothing is computed ahead */

/* -- beliefs ------------------------------------------------------------------------------------------------------------------------------------- */

static uint8_t class_of (double probability)
{
    static const double from[WL_DRAFT_CLASSES] = {0, 0.3, 0.5, 0.7, 0.85, 0.95, 0.99};
    uint8_t class = WL_DRAFT_CLASSES - 1;
    while (class > 0 && !(probability >= from[class]))
        class --;
    return class;
}

/* Before anything is seen, the draft is believed nearly as much as it believes itself; some observations weigh more than that. */
static double chance_of (const wl_draft_beliefs *b, uint8_t class)
{
    static const double before[WL_DRAFT_CLASSES] = {0.2, 0.4, 0.6, 0.75, 0.85, 0.92, 0.97};
    const double weight = 4;
    return (b->classes[class].right + before[class] * weight) / (b->classes[class].all + weight);
}

double wl_draft_acceptance (const wl_draft_beliefs *b)
{
    const double before = 0.75, weight = 8;
    return (b->any.right + before * weight) / (b->any.all + weight);
}

static void learn (wl_draft_beliefs *b, uint8_t class, bool right)
{
    const double fade = 0.97;
    double one = right ? 1 : 0;
    b->classes[class].right = b->classes[class].right * fade + one;
    b->classes[class].all = b->classes[class].all * fade + 1;
    b->any.right = b->any.right * fade + one;
    b->any.all = b->any.all * fade + 1;
    b->n_judged++;
    b->n_right += right;
}

/* -- the sequence ---------------------------------------------------------------------------------------------------------------------------------- */

bool wl_draft_sequence_open (wl_draft_sequence *s, size_t capacity, wl_error *err)
{
    *s = (wl_draft_sequence){.capacity = capacity};
    s->tokens = wl_new (capacity, sizeof *s->tokens, err);
    s->classes = wl_new (capacity, sizeof *s->classes, err);
    if (s->tokens && s->classes)
        return true;
    wl_draft_sequence_close (s);
    return false;
}

void wl_draft_sequence_close (wl_draft_sequence *s)
{
    free (s->tokens);
    free (s->classes);
    *s = (wl_draft_sequence){0};
}

void wl_draft_sequence_know (wl_draft_sequence *s, const int32_t *tokens, size_t n_known, int32_t n_vocab,
                             wl_draft_beliefs *beliefs)
{
    for (; s->n_known < n_known && s->n_known < s->capacity; s->n_known++) {
        size_t position = s->n_known;
        bool guessed = position < s->n_tokens, right = guessed && s->tokens[position] == tokens[position];
        if (guessed)
            learn (beliefs, s->classes[position], right);
        if (guessed && !right) {
            s->n_tokens = position;
            s->n_computed = s->n_computed < position ? s->n_computed : position;
            s->generation++;
        }
        s->tokens[position] = tokens[position];
        s->n_tokens = s->n_tokens > position ? s->n_tokens : position + 1;
        s->is_lost = s->is_lost || tokens[position] < 0 || tokens[position] >= n_vocab;
    }
}

/* Whether another guess is likely enough to be wanted. */
static bool looks_ahead (const wl_draft_sequence *s, const wl_draft_beliefs *beliefs)
{
    double chance = 1;
    if (s->n_tokens - s->n_known >= WL_DRAFT_AHEAD || s->n_tokens + 1 >= s->capacity)
        return false;
    for (size_t position = s->n_known; position < s->n_tokens; position++)
        chance *= chance_of (beliefs, s->classes[position]);
    return chance >= least_chance;
}

bool wl_draft_sequence_next (const wl_draft_sequence *s, const wl_draft_beliefs *beliefs, size_t max_rows,
                             wl_draft_job *job)
{
    if (s->is_lost || s->n_known == 0 || max_rows == 0 || s->n_computed >= s->n_tokens || !looks_ahead (s, beliefs))
        return false;
    size_t n = s->n_tokens - s->n_computed;
    *job = (wl_draft_job){.first = s->n_computed,
                          .n_rows = n < max_rows ? n : max_rows,
                          .draws = n <= max_rows,
                          .generation = s->generation};
    return true;
}

void wl_draft_sequence_done (wl_draft_sequence *s, const wl_draft_job *job, int32_t token, double probability,
                             wl_draft_beliefs *beliefs)
{
    size_t end = job->first + job->n_rows;
    if (job->generation != s->generation)
        return;
    s->n_computed = end;
    if (!job->draws)
        return;
    if (end == s->n_tokens) {
        s->classes[end] = class_of (probability);
        s->tokens[end] = token;
        s->n_tokens++;
    } else { /* the token itself was there sooner */
        learn (beliefs, class_of (probability), s->tokens[end] == token);
    }
}

void wl_draft_sequence_forget (wl_draft_sequence *s)
{
    s->n_computed = 0;
    s->generation++;
}

bool wl_draft_sequence_guess (const wl_draft_sequence *s, const wl_draft_beliefs *beliefs, size_t ahead, int32_t *token,
                              double *chance)
{
    if (ahead >= s->n_tokens - s->n_known)
        return false;
    *token = s->tokens[s->n_known + ahead];
    *chance = chance_of (beliefs, s->classes[s->n_known + ahead]);
    return true;
}
