/* run --prompts: many prompts over one cluster; see run_many.h.
 *
 * The file has one prompt a line: a JSON string, or an object of "prompt" and, where they differ from the flags, "n", "seed" and "temp". --parallel of them are under way at a time, the
 * next begins when one ends. Each answer is printed when it ends, as one line with its "index"; the last line is an object "summary". What is kept of an answer that has been
 * printed are counts, so memory does not grow with the number of prompts beyond their own tokens. */
#include "run_many.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/percentiles.h"
#include "engine/kernels/kernels.h"
#include "engine/machine.h"
#include "engine/memory.h"

enum { FILE_LIMIT = 256 << 20 };

typedef struct item { /* a line of the file */
    wl_tokens prompt;
    size_t n_tokens;
    wl_sampling sampling;
} item;

typedef struct summary {
    wl_percentiles first, between; /* to the first token, and from one to the next */
    uint64_t n_answers, n_prompt, n_cached, n_tokens;
} summary;

typedef struct slot { /* an answer under way */
    wl_answer answer;
    wl_request *request;
    size_t index; /* of its item */
    bool is_used, ended;
    const item *item;
    summary *summary;
} slot;

typedef struct batch {
    const wl_run_many_options *options;
    item *items;
    size_t n_items, n_begun;
    slot *slots;
    size_t n_slots;
    summary summary;
} batch;

/* -- the file ------------------------------------------------------------------------------------------------------------------------------- */

/* Takes a number of the object out of it; *found is false where there is none. */
static bool take_number (json_t *object, const char *key, double least, double most, double *out, bool *found,
                         wl_error *err)
{
    json_t *value = json_object_get (object, key);
    *found = value != NULL;
    if (!value)
        return true;
    *out = json_number_value (value);
    if (!json_is_number (value) || !(*out >= least && *out <= most))
        return wl_fail (err, WL_ERROR_INPUT, "\"%s\" is not a number from %g to %g", key, least, most);
    json_object_del (object, key);
    return true;
}

static bool read_item (const batch *b, json_t *line, item *out, wl_error *err)
{
    const double most_n = UINT32_MAX, most_seed = 9007199254740991.0 /* 2^53 - 1 */, most_temp = 100;
    const wl_run_many_options *o = b->options;
    json_t *prompt = json_is_object (line) ? json_object_get (line, "prompt") : line;
    double n = 0, seed = 0, temp = 0;
    bool has_n = false, has_seed = false, has_temp = false;
    if (!json_is_string (prompt))
        return wl_fail (err, WL_ERROR_INPUT, "neither a JSON string nor an object with a string \"prompt\"");
    if (!take_number (line, "n", 0, most_n, &n, &has_n, err) ||
        !take_number (line, "seed", 0, most_seed, &seed, &has_seed, err) ||
        !take_number (line, "temp", 0, most_temp, &temp, &has_temp, err))
        return false;
    if (json_is_object (line) && json_object_size (line) > 1) {
        void *at = json_object_iter (line);
        if (strcmp (json_object_iter_key (at), "prompt") == 0)
            at = json_object_iter_next (line, at);
        return wl_fail (err, WL_ERROR_INPUT, "\"%.40s\" is none of prompt, n, seed, temp", json_object_iter_key (at));
    }
    out->sampling = o->sampling->sampling;
    if (has_seed)
        out->sampling.seed = (uint64_t) seed;
    if (has_temp)
        out->sampling.temperature = (float) temp;
    uint32_t wanted = has_n ? (uint32_t) n : 0;
    return wl_prompt_encode (o->opened, json_string_value (prompt), json_string_length (prompt), &o->prompt,
                             &out->prompt, err) &&
           wl_prompt_plan_length (o->opened, o->cluster.context, has_n ? &wanted : o->n_tokens, out->prompt.count,
                                  &out->n_tokens, err);
}

static bool read_items (batch *b, wl_error *err)
{
    const char *path = b->options->path;
    size_t length, n_lines = 0;
    char *text = wl_read_file (path, FILE_LIMIT, &length, err);
    bool ok = text != NULL;
    for (size_t i = 0; ok && i < length; i++)
        n_lines += text[i] == '\n';
    b->items = ok ? wl_new (n_lines + 1, sizeof *b->items, err) : NULL;
    ok = b->items != NULL;
    size_t at = 0, number = 0;
    while (ok && at < length) {
        const char *end = memchr (text + at, '\n', length - at);
        size_t n = end ? (size_t) (end - text) - at : length - at;
        json_error_t problem;
        wl_error why = {0};
        number++;
        if (strspn (text + at, " \t\r") < n) { /* not blank */
            json_t *line = json_loadb (text + at, n, JSON_DECODE_ANY | JSON_ALLOW_NUL, &problem);
            if (!line)
                ok = wl_fail (err, WL_ERROR_INPUT, "%s, line %zu: not JSON: %s", path, number, problem.text);
            else if (!read_item (b, line, &b->items[b->n_items++], &why))
                ok = wl_fail (err, why.code, "%s, line %zu: %s", path, number, why.text);
            json_decref (line);
        }
        at += n + 1;
    }
    free (text);
    if (ok && b->n_items == 0)
        ok = wl_fail (err, WL_ERROR_INPUT, "%s: no prompts: write one JSON string or object a line", path);
    return ok;
}

static int by_pages_falling (const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *) a, y = *(const uint32_t *) b;
    return (x < y) - (x > y);
}

/* Positions of KV cache with which the n_slots longest of all could be under way together. */
static bool count_positions (const batch *b, uint64_t *positions, uint32_t *longest, wl_error *err)
{
    uint32_t *pages = wl_new (b->n_items, sizeof *pages, err);
    if (!pages)
        return false;
    *positions = *longest = 0;
    for (size_t i = 0; i < b->n_items; i++) {
        uint64_t n = (uint64_t) b->items[i].prompt.count + b->items[i].n_tokens;
        pages[i] = wl_scheduler_pages (n);
        *longest = n > *longest ? (uint32_t) n : *longest;
    }
    qsort (pages, b->n_items, sizeof *pages, by_pages_falling);
    for (size_t i = 0; i < b->n_slots; i++)
        *positions += (uint64_t) pages[i] * WL_KV_PAGE;
    free (pages);
    return true;
}

/* -- answers ---------------------------------------------------------------------------------------------------------------------------------- */

static bool on_token (void *context, const wl_sample *sample)
{
    slot *s = context;
    double before = s->answer.last_s;
    bool goes_on = wl_answer_add (&s->answer, sample);
    if (s->answer.n_tokens == 1)
        wl_percentiles_add (&s->summary->first, s->answer.first_s - s->answer.added_s);
    else
        wl_percentiles_add (&s->summary->between, s->answer.last_s - before);
    s->ended = !goes_on || s->answer.n_tokens == s->item->n_tokens;
    return goes_on;
}

static void on_begin (void *context, size_t n_tokens)
{
    slot *s = context;
    s->answer.n_cached = n_tokens;
}

static bool begin_next (batch *b, slot *s, wl_scheduler *scheduler, wl_error *err)
{
    const wl_run_many_options *o = b->options;
    item *next = &b->items[b->n_begun];
    *s = (slot){.index = b->n_begun++, .is_used = true, .item = next, .summary = &b->summary};
    if (!wl_answer_open (&s->answer, o->opened->tokenizer, &o->answer, err))
        return false;
    s->ended = next->n_tokens == 0;
    if (s->ended)
        return true;
    s->request = wl_scheduler_add (scheduler,
                                   &(wl_request_options){.prompt = next->prompt.ids,
                                                         .n_prompt = next->prompt.count,
                                                         .max_tokens = next->n_tokens,
                                                         .sampling = next->sampling,
                                                         .breakers = o->sampling->breakers,
                                                         .n_breakers = o->sampling->n_breakers,
                                                         .context = s,
                                                         .on_token = on_token,
                                                         .on_begin = on_begin},
                                   err);
    return s->request != NULL;
}

static bool print_answer (batch *b, slot *s, wl_error *err)
{
    item *its = &b->items[s->index];
    if (!wl_answer_finish (&s->answer, err))
        return false;
    json_t *json = wl_answer_json (&s->answer, its->prompt.count);
    json_object_set_new (json, "index", json_integer ((json_int_t) s->index));
    json_object_set_new (json, "seed", json_integer ((json_int_t) its->sampling.seed));
    json_dumpf (json, stdout, JSON_COMPACT | JSON_REAL_PRECISION (9));
    putchar ('\n');
    fflush (stdout);
    json_decref (json);
    b->summary.n_answers++;
    b->summary.n_prompt += its->prompt.count;
    b->summary.n_cached += s->answer.n_cached;
    b->summary.n_tokens += s->answer.n_tokens;
    wl_answer_close (&s->answer);
    free (its->prompt.ids);
    its->prompt.ids = NULL;
    s->is_used = false;
    return true;
}

static bool answer_all (batch *b, wl_session *session, wl_error *err)
{
    while (!wl_interrupted ()) {
        size_t n_used = 0;
        for (size_t i = 0; i < b->n_slots; i++) {
            slot *s = &b->slots[i];
            if (s->is_used && s->ended && !print_answer (b, s, err))
                return false;
            if (!s->is_used && b->n_begun < b->n_items && !begin_next (b, s, session->scheduler, err))
                return false;
            n_used += s->is_used;
        }
        if (n_used == 0)
            return true;
        if (!wl_scheduler_turn (session->scheduler, -1, err))
            return false;
        char line[80];
        snprintf (line, sizeof line, "%llu of %zu answered, %zu under way", (unsigned long long) b->summary.n_answers,
                  b->n_items, n_used);
        wl_progress_show (line);
    }
    for (size_t i = 0; i < b->n_slots; i++) /* Ctrl-C: what has come is kept */
        if (b->slots[i].is_used && !print_answer (b, &b->slots[i], err))
            return false;
    return true;
}

static void print_summary (const batch *b, wl_session *session, double seconds)
{
    const summary *s = &b->summary;
    json_t *json =
        json_pack ("{s:I, s:I, s:I, s:I, s:f, s:f, s:o, s:o, s:f}", "answers", (json_int_t) s->n_answers,
                   "prompt_tokens", (json_int_t) s->n_prompt, "prompt_tokens_cached", (json_int_t) s->n_cached,
                   "completion_tokens", (json_int_t) s->n_tokens, "seconds", seconds, "tok_s",
                   seconds > 0 ? (double) s->n_tokens / seconds : 0.0, "ttft_s", wl_percentiles_json (&s->first),
                   "between_tokens_s", wl_percentiles_json (&s->between), "load_s", session->load_s);
    wl_session_report (session, json);
    json = json_pack ("{s:o}", "summary", json);
    json_dumpf (json, stdout, JSON_COMPACT | JSON_REAL_PRECISION (9));
    putchar ('\n');
    json_decref (json);
}

bool wl_run_many (const wl_run_many_options *options, wl_error *err)
{
    batch b = {.options = options};
    wl_session session = {0};
    wl_cluster_options cluster = options->cluster;
    uint64_t positions = 0;
    bool ok = false;
    if (!read_items (&b, err))
        goto done;
    b.n_slots = b.n_items < options->n_parallel ? b.n_items : options->n_parallel;
    b.slots = wl_new (b.n_slots, sizeof *b.slots, err);
    if (!b.slots || !count_positions (&b, &positions, &cluster.longest, err) ||
        !wl_session_open (&session, options->opened, &cluster, positions, (uint32_t) b.n_slots, err))
        goto done;
    wl_session_begin (&session);
    double start = wl_now_s ();
    if (!answer_all (&b, &session, err))
        goto done;
    wl_progress_show (NULL);
    print_summary (&b, &session, wl_now_s () - start);
    ok = true;
done:
    wl_progress_show (NULL);
    wl_session_close (&session);
    for (size_t i = 0; b.slots && i < b.n_slots; i++)
        wl_answer_close (&b.slots[i].answer);
    for (size_t i = 0; b.items && i < b.n_items; i++)
        free (b.items[i].prompt.ids);
    free (b.slots);
    free (b.items);
    return ok;
}
