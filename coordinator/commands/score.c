/* woolly score: log-probabilities and perplexity of given tokens or text; raw logits for those who compare engines.
 *
 * Text longer than the context is scored in windows, as the field does it (transformers documentation, "Perplexity of fixed-length models"): a window of --ctx
 * positions begins every --stride tokens of text, and of each only the tokens that no earlier window has counted count, so every token counts once. Where the model adds
 * a BOS, every window has one before its tokens, and it is one of its positions. What counts: every token but the very first position of the input, which
 * nothing predicts. A counted token of a later window has at least ctx - stride positions before it. Text that fits one window is scored as without --stride. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "commands.h"
#include "coordinator/flags.h"
#include "coordinator/session.h"
#include "engine/kernels/kernels.h"
#include "engine/kernels/math.h"
#include "engine/memory.h"
#include "engine/stage.h"
#include "engine/text/row_math.h"

enum { TEXT_LIMIT = 256 << 20, LOGIT_BYTES = 16 << 20, MAX_TOP = 1000, WINDOWS_AT_ONCE = 2 };

typedef struct ranked {
    float logit;
    int32_t token;
} ranked;

typedef struct scoring {
    const int32_t *tokens; /* [n_tokens] of the whole input, BOS included */
    size_t n_tokens, n_vocab;
    bool has_bos;            /* tokens[0] is one that the model adds */
    uint32_t window, stride; /* positions, tokens; stride 0: all in one window */
    bool as_json;
    uint32_t n_top;
    ranked *top; /* [n_top] of one position */
    json_t *positions;
    size_t n_scored; /* positions done, in order */
    double nll_sum, nll_squares;
    FILE *logits;
    const char *logits_path;
    wl_error err;
} scoring;

/* -- positions ---------------------------------------------------------------------------------------------------------------------------------------------- */

/* The best n_top logits, best first, ties by id. Returns how many. */
static uint32_t rank (scoring *s, const float *logits)
{
    uint32_t n = 0;
    for (size_t i = 0; i < s->n_vocab; i++) {
        if (n == s->n_top && (n == 0 || logits[i] <= s->top[n - 1].logit))
            continue;
        uint32_t at = n < s->n_top ? n++ : n - 1;
        while (at > 0 && s->top[at - 1].logit < logits[i]) {
            s->top[at] = s->top[at - 1];
            at--;
        }
        s->top[at] = (ranked){logits[i], (int32_t) i};
    }
    return n;
}

static void add_position (scoring *s, const float *logits, double total, json_t *nll)
{
    json_t *top = json_array ();
    uint32_t n = rank (s, logits);
    for (uint32_t i = 0; i < n; i++)
        json_array_append_new (top, json_pack ("[i,f]", (int) s->top[i].token, (double) s->top[i].logit - total));
    json_array_append_new (s->positions, json_pack ("{s:f, s:o, s:o}", "logsumexp", total, "top", top, "nll", nll));
}

/* Takes the logits behind token `position` of the whole input. */
static void score_position (scoring *s, size_t position, const float *logits)
{
    double total = wl_row_log_sum_exp (logits, s->n_vocab), nll = 0;
    bool counts = position + 1 < s->n_tokens;
    if (position != s->n_scored++)
        wl_fail (&s->err, WL_ERROR_INTERNAL, "the logits of position %zu came out of order", position);
    if (counts) {
        nll = total - (double) logits[s->tokens[position + 1]];
        s->nll_sum += nll;
        s->nll_squares += nll * nll;
    }
    if (s->as_json)
        add_position (s, logits, total, counts ? json_real (nll) : json_null ());
    if (s->logits && fwrite (logits, sizeof *logits, s->n_vocab, s->logits) != s->n_vocab)
        wl_fail (&s->err, WL_ERROR_INPUT, "%s: cannot be written: %s", s->logits_path, strerror (errno));
    char line[80];
    snprintf (line, sizeof line, "scoring: %zu of %zu tokens", position + 1, s->n_tokens);
    wl_progress_show (counts ? line : NULL);
}

/* -- windows ------------------------------------------------------------------------------------------------------------------------------------------------- */

/* Window i, in places of the whole input: its row r follows token begin + r (row 0 follows a BOS where there is one, whatever token is there), and
 * rows from `first` on are scored, up to the last one, which follows token end - 1. */
typedef struct window {
    scoring *scoring;
    size_t begin, end, first;
} window;

static size_t count_windows (const scoring *s)
{
    if (s->stride == 0 || s->n_tokens <= s->window)
        return 1;
    return 1 + (s->n_tokens - s->window + s->stride - 1) / s->stride;
}

/* A window but the last leaves out its last token, which would only predict one that the next window counts. */
static window plan_window (scoring *s, size_t i)
{
    bool last = i + 1 == count_windows (s);
    window w = {.scoring = s, .begin = i * s->stride};
    w.end = last ? s->n_tokens : w.begin + s->window - 1;
    w.first = i ? s->window - s->stride - 1 : 0;
    return w;
}

static void on_logits (void *context, size_t row, const float *logits)
{
    const window *w = context;
    score_position (w->scoring, w->begin + row, logits);
}

static bool add_window (window *w, wl_scheduler *scheduler, int32_t *room, wl_error *err)
{
    const scoring *s = w->scoring;
    size_t n = w->end - w->begin;
    memcpy (room, s->tokens + w->begin, n * sizeof *room);
    if (s->has_bos)
        room[0] = s->tokens[0];
    wl_request_options request = {
        .prompt = room, .n_prompt = n, .raw_logits = true, .first_raw = w->first, .context = w, .on_logits = on_logits};
    return wl_scheduler_add (scheduler, &request, err) != NULL;
}

/* Two windows at a time, so that the pipeline does not run empty between them. */
static bool score_windows (scoring *s, wl_scheduler *scheduler, wl_error *err)
{
    bool ok = false;
    size_t n = count_windows (s), added = 0;
    window *windows = wl_new (n, sizeof *windows, err);
    int32_t *room = wl_new (s->n_tokens < s->window ? s->n_tokens : s->window, sizeof *room, err);
    if (!windows || !room)
        goto done;
    while (added < n || wl_scheduler_active (scheduler)) {
        if (added < n && wl_scheduler_active (scheduler) < WINDOWS_AT_ONCE) {
            windows[added] = plan_window (s, added);
            if (!add_window (&windows[added++], scheduler, room, err))
                goto done;
            continue;
        }
        if (!wl_scheduler_turn (scheduler, -1, err))
            goto done;
        if (wl_interrupted ()) {
            wl_fail (err, WL_ERROR_CLUSTER, "interrupted");
            goto done;
        }
        if (s->err.code != WL_OK) {
            *err = s->err;
            goto done;
        }
    }
    ok = true;
done:
    free (windows);
    free (room);
    return ok;
}

/* -- input --------------------------------------------------------------------------------------------------------------------------------------------------- */

static bool read_tokens (const char *path, uint32_t n_vocab, wl_tokens *out, wl_error *err)
{
    size_t length;
    json_error_t problem;
    char *text = wl_read_file (path, TEXT_LIMIT, &length, err);
    json_t *array = text ? json_loadb (text, length, 0, &problem) : NULL;
    bool ok = false;
    if (!text)
        goto done;
    if (!json_is_array (array) || json_array_size (array) == 0) {
        wl_fail (err, WL_ERROR_INPUT, "%s: expected a JSON array of token ids, such as [1, 2, 3]%s%s", path,
                 array ? "" : ": ", array ? "" : problem.text);
        goto done;
    }
    out->count = json_array_size (array);
    out->ids = wl_new (out->count, sizeof *out->ids, err);
    if (!out->ids)
        goto done;
    for (size_t i = 0; i < out->count; i++) {
        json_t *id = json_array_get (array, i);
        if (!json_is_integer (id) || json_integer_value (id) < 0 || json_integer_value (id) >= n_vocab) {
            wl_fail (err, WL_ERROR_INPUT, "%s: element %zu is not a token id from 0 to %u", path, i, n_vocab - 1);
            goto done;
        }
        out->ids[i] = (int32_t) json_integer_value (id);
    }
    ok = true;
done:
    json_decref (array);
    free (text);
    return ok;
}

static bool read_input (const char *tokens_path, const char *text_path, const wl_opened_model *opened, wl_tokens *out,
                        wl_error *err)
{
    size_t length;
    if (tokens_path)
        return read_tokens (tokens_path, opened->model->n_vocab, out, err);
    char *text = wl_read_file (text_path, TEXT_LIMIT, &length, err);
    bool ok = text && wl_tokenizer_encode (opened->tokenizer, text, length, true, false, out, err);
    free (text);
    return ok;
}

/* Whether the first token is the BOS that the model adds to text. */
static bool begins_with_bos (const scoring *s, const wl_tokenizer *tokenizer, bool *has_bos, wl_error *err)
{
    wl_tokens added = {0};
    if (!wl_tokenizer_encode (tokenizer, "", 0, true, false, &added, err))
        return false;
    int32_t bos = wl_tokenizer_bos (tokenizer);
    *has_bos = added.count > 0 && added.ids[0] == bos && s->tokens[0] == bos;
    free (added.ids);
    return true;
}

/* Settles what a window is, and that the input fits. */
static bool plan_windows (scoring *s, const char *path, const wl_opened_model *opened, uint32_t context, wl_error *err)
{
    uint32_t trained = opened->model->context_length;
    s->window = context ? context : trained;
    if (!wl_opened_model_fits (opened, context, err))
        return false;
    if (s->stride && !context)
        return wl_fail (err, WL_ERROR_USAGE, "--stride %u needs --ctx N, the positions of a window: choose 2 to %u",
                        s->stride, trained);
    if (s->stride && s->stride >= s->window)
        return wl_fail (err, WL_ERROR_USAGE,
                        "--stride %u: choose 1 to %u, so that every token of a window of %u has one before it",
                        s->stride, s->window - 1, s->window);
    if (!s->stride && s->n_tokens > s->window)
        return wl_fail (err, WL_ERROR_INPUT,
                        "%s: %zu tokens, where 1 to the context of %u can be scored at once: choose --ctx N --stride N "
                        "to score it in windows",
                        path, s->n_tokens, s->window);
    return !s->stride || begins_with_bos (s, opened->tokenizer, &s->has_bos, err);
}

/* -- the command ------------------------------------------------------------------------------------------------------------------------------------------------ */

/* The standard error of the mean is s / sqrt (n) with s the sample's standard deviation; that of the perplexity follows to first order, as e^x grows by e^x. */
static void print_result (const scoring *s, wl_session *session)
{
    size_t n = s->n_tokens - 1;
    double mean = n ? s->nll_sum / (double) n : 0, perplexity = wl_exp (mean), spread = 0;
    if (n > 1)
        spread = (s->nll_squares - (double) n * mean * mean) / (double) (n - 1);
    double error = spread > 0 ? perplexity * sqrt (spread / (double) n) : 0;
    if (!s->as_json) {
        printf ("tokens      %zu\n", s->n_tokens);
        if (s->stride)
            printf ("windows     %zu of %u positions, stride %u\n", count_windows (s), s->window, s->stride);
        printf ("counted     %zu\nmean nll    %.5f\nperplexity  %.4f +- %.4f\n", n, mean, perplexity, error);
        return;
    }
    json_t *tokens = json_array ();
    for (size_t i = 0; i < s->n_tokens; i++)
        json_array_append_new (tokens, json_integer (s->tokens[i]));
    json_t *json = json_pack ("{s:o, s:I, s:I, s:f, s:f, s:f, s:O}", "tokens", tokens, "windows",
                              (json_int_t) count_windows (s), "counted", (json_int_t) n, "mean_nll", mean, "perplexity",
                              perplexity, "perplexity_error", error, "positions", s->positions);
    json_object_set_new (json, "hop", wl_session_hop (session));
    json_object_set_new (json, "kv", wl_session_kv (session));
    json_dumpf (json, stdout, JSON_COMPACT | JSON_REAL_PRECISION (9));
    putchar ('\n');
    json_decref (json);
}

static bool score (scoring *s, const wl_opened_model *opened, const wl_cluster_options *cluster, wl_error *err)
{
    wl_session session = {0};
    wl_cluster_options options = *cluster;
    bool ok = false;
    size_t row_bytes = wl_stage_logit_stride (opened->model) * sizeof (float);
    uint32_t rows = row_bytes < LOGIT_BYTES ? (uint32_t) (LOGIT_BYTES / row_bytes) : 1;
    if (rows > wl_scheduler_default_rows ())
        rows = wl_scheduler_default_rows ();
    uint64_t positions = s->n_tokens;
    if (count_windows (s) > 1) { /* room for those under way, in whole pages */
        positions = (uint64_t) wl_scheduler_pages (s->window) * WL_KV_PAGE * WINDOWS_AT_ONCE;
        options.context = 0;
    }
    s->positions = json_array ();
    s->top = wl_new (s->n_top + 1, sizeof *s->top, err);
    if (!s->top || !wl_session_open (&session, opened, &options, positions, rows, err) ||
        !score_windows (s, session.scheduler, err))
        goto done;
    wl_progress_show (NULL);
    if (s->logits && fflush (s->logits) != 0) {
        wl_fail (err, WL_ERROR_INPUT, "%s: cannot be written: %s", s->logits_path, strerror (errno));
        goto done;
    }
    print_result (s, &session);
    ok = true;
done:
    wl_progress_show (NULL);
    wl_session_close (&session);
    json_decref (s->positions);
    free (s->top);
    return ok;
}

int wl_command_score (int argc, char **argv)
{
    const char *path = NULL, *tokens_path = NULL, *text_path = NULL;
    bool help, stride_given = false;
    scoring s = {.n_top = 20};
    wl_cluster_flags cluster;
    wl_opened_model opened = {0};
    wl_tokens tokens = {0};
    wl_error err = {0};
    const wl_option own[] = {
        {'m', "model", WL_OPTION_TEXT, &path, "MODEL", "GGUF file", NULL},
        {0, "tokens", WL_OPTION_TEXT, &tokens_path, "FILE.json", "a JSON array of token ids", NULL},
        {'f', "file", WL_OPTION_TEXT, &text_path, "TEXTFILE", "text to tokenize and score", NULL},
        {0, "top", WL_OPTION_U32, &s.n_top, "N", "best tokens listed a position (20)", NULL},
        {0, "logits", WL_OPTION_TEXT, &s.logits_path, "FILE", "write raw logits: little-endian f32 [n_tokens, n_vocab]",
         NULL},
        {0, "stride", WL_OPTION_U32, &s.stride, "N",
         "score in windows of --ctx positions, of which each counts N tokens more", &stride_given},
        {0, "json", WL_OPTION_FLAG, &s.as_json, NULL, "print one JSON object", NULL},
    };
    const wl_option_table tables[] = {{own, sizeof own / sizeof own[0]}, wl_cluster_flags_init (&cluster)};
    if (!wl_options_parse ("score -m MODEL (--tokens FILE.json | -f TEXTFILE) [flags]", tables, 2, argc, argv, NULL,
                           &help, &err) ||
        help)
        goto done;
    if (!wl_cluster_flags_finish (&cluster, &err))
        goto done;
    if (!tokens_path == !text_path) {
        wl_fail (&err, WL_ERROR_USAGE, "give either --tokens FILE.json or -f TEXTFILE");
        goto done;
    }
    if (s.n_top > MAX_TOP) {
        wl_fail (&err, WL_ERROR_USAGE, "--top %u: choose 0 to %d", s.n_top, MAX_TOP);
        goto done;
    }
    if (stride_given && s.stride == 0) {
        wl_fail (&err, WL_ERROR_USAGE, "--stride 0: choose 1 or more");
        goto done;
    }
    if (!wl_opened_model_open (&opened, path, &cluster.rope, text_path || stride_given, &err) ||
        !read_input (tokens_path, text_path, &opened, &tokens, &err))
        goto done;
    const char *input = tokens_path ? tokens_path : text_path;
    if (tokens.count == 0) {
        wl_fail (&err, WL_ERROR_INPUT, "%s: no tokens, so there is nothing to score", input);
        goto done;
    }
    s.tokens = tokens.ids;
    s.n_tokens = tokens.count;
    s.n_vocab = opened.model->n_vocab;
    if (!plan_windows (&s, input, &opened, cluster.options.context, &err))
        goto done;
    if (s.logits_path && !(s.logits = fopen (s.logits_path, "wb"))) {
        wl_fail (&err, WL_ERROR_INPUT, "%s: cannot be written: %s", s.logits_path, strerror (errno));
        goto done;
    }
    score (&s, &opened, &cluster.options, &err);
done:
    if (s.logits && fclose (s.logits) != 0)
        wl_fail (&err, WL_ERROR_INPUT, "%s: cannot be written: %s", s.logits_path, strerror (errno));
    free (tokens.ids);
    wl_opened_model_close (&opened);
    return err.code == WL_OK ? 0 : wl_command_failed ("score", &err);
}
