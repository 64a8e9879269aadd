/* woolly score: log-probabilities and perplexity of given tokens or text; raw logits for those who compare engines. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "commands.h"
#include "coordinator/flags.h"
#include "coordinator/session.h"
#include "engine/kernels/math.h"
#include "engine/memory.h"
#include "engine/stage.h"

enum { TEXT_LIMIT = 256 << 20, LOGIT_BYTES = 16 << 20, MAX_TOP = 1000 };

typedef struct ranked {
    float logit;
    int32_t token;
} ranked;

typedef struct scoring {
    const int32_t *tokens;
    size_t n_tokens, n_vocab;
    uint32_t n_top;
    ranked *top; /* [n_top] of one position */
    json_t *positions;
    double nll_sum;
    FILE *logits;
    const char *logits_path;
    wl_error err;
} scoring;

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

static double log_sum_exp (const float *logits, size_t n)
{
    double peak = -INFINITY, sum = 0;
    for (size_t i = 0; i < n; i++)
        if ((double) logits[i] > peak)
            peak = (double) logits[i];
    for (size_t i = 0; i < n; i++)
        sum += wl_exp ((double) logits[i] - peak);
    return peak + wl_log (sum);
}

static void on_logits (void *context, size_t position, const float *logits)
{
    scoring *s = context;
    double total = log_sum_exp (logits, s->n_vocab);
    json_t *top = json_array (), *nll = json_null ();
    uint32_t n = rank (s, logits);
    for (uint32_t i = 0; i < n; i++)
        json_array_append_new (top, json_pack ("[i,f]", (int) s->top[i].token, (double) s->top[i].logit - total));
    if (position + 1 < s->n_tokens) {
        double value = total - (double) logits[s->tokens[position + 1]];
        s->nll_sum += value;
        nll = json_real (value);
    }
    json_array_append_new (s->positions, json_pack ("{s:f, s:o, s:o}", "logsumexp", total, "top", top, "nll", nll));
    if (s->logits && fwrite (logits, sizeof *logits, s->n_vocab, s->logits) != s->n_vocab)
        wl_fail (&s->err, WL_ERROR_INPUT, "%s: cannot be written: %s", s->logits_path, strerror (errno));
    char line[80];
    snprintf (line, sizeof line, "scoring: %zu of %zu tokens", position + 1, s->n_tokens);
    wl_progress_show (position + 1 < s->n_tokens ? line : NULL);
}

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

static void print_result (const scoring *s, bool as_json)
{
    size_t n_scored = s->n_tokens - 1;
    double mean = n_scored ? s->nll_sum / (double) n_scored : 0;
    if (!as_json) {
        printf ("tokens      %zu\nmean nll    %.5f\nperplexity  %.4f\n", s->n_tokens, mean, exp (mean));
        return;
    }
    json_t *tokens = json_array ();
    for (size_t i = 0; i < s->n_tokens; i++)
        json_array_append_new (tokens, json_integer (s->tokens[i]));
    json_t *json = json_pack ("{s:o, s:f, s:f, s:O}", "tokens", tokens, "mean_nll", mean, "perplexity", exp (mean),
                              "positions", s->positions);
    json_dumpf (json, stdout, JSON_COMPACT | JSON_REAL_PRECISION (9));
    putchar ('\n');
    json_decref (json);
}

static bool score (scoring *s, const wl_opened_model *opened, const wl_cluster_options *cluster, bool as_json,
                   wl_error *err)
{
    wl_session session = {0};
    bool ok = false;
    size_t row_bytes = wl_stage_logit_stride (opened->model) * sizeof (float);
    uint32_t rows = row_bytes < LOGIT_BYTES ? (uint32_t) (LOGIT_BYTES / row_bytes) : 1;
    if (rows > wl_scheduler_default_rows ())
        rows = wl_scheduler_default_rows ();
    wl_request_options request = {
        .prompt = s->tokens, .n_prompt = s->n_tokens, .raw_logits = true, .context = s, .on_logits = on_logits};
    s->positions = json_array ();
    s->top = wl_new (s->n_top + 1, sizeof *s->top, err);
    if (!s->top || !wl_session_open (&session, opened, cluster, s->n_tokens, rows, err) ||
        !wl_scheduler_add (session.scheduler, &request, err))
        goto done;
    while (wl_scheduler_active (session.scheduler)) {
        if (!wl_scheduler_turn (session.scheduler, -1, err))
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
    wl_progress_show (NULL);
    if (s->logits && fflush (s->logits) != 0) {
        wl_fail (err, WL_ERROR_INPUT, "%s: cannot be written: %s", s->logits_path, strerror (errno));
        goto done;
    }
    print_result (s, as_json);
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
    bool as_json = false, help;
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
        {0, "json", WL_OPTION_FLAG, &as_json, NULL, "print one JSON object", NULL},
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
    if (!wl_opened_model_open (&opened, path, text_path != NULL, &err) ||
        !read_input (tokens_path, text_path, &opened, &tokens, &err))
        goto done;
    if (tokens.count == 0 || tokens.count > opened.model->context_length) {
        wl_fail (&err, WL_ERROR_INPUT, "%s: %zu tokens, where 1 to the model's context of %u can be scored",
                 tokens_path ? tokens_path : text_path, tokens.count, opened.model->context_length);
        goto done;
    }
    s.tokens = tokens.ids;
    s.n_tokens = tokens.count;
    s.n_vocab = opened.model->n_vocab;
    if (s.logits_path && !(s.logits = fopen (s.logits_path, "wb"))) {
        wl_fail (&err, WL_ERROR_INPUT, "%s: cannot be written: %s", s.logits_path, strerror (errno));
        goto done;
    }
    score (&s, &opened, &cluster.options, as_json, &err);
done:
    if (s.logits && fclose (s.logits) != 0)
        wl_fail (&err, WL_ERROR_INPUT, "%s: cannot be written: %s", s.logits_path, strerror (errno));
    free (tokens.ids);
    wl_opened_model_close (&opened);
    return err.code == WL_OK ? 0 : wl_command_failed ("score", &err);
}
