/* woolly run: answer one prompt.
 *
 * The text streams to stdout as it comes, everything else goes to stderr. Ctrl-C ends the generation: what has come is kept, the exit code is 0; a
 * second one ends the process at once with 130. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "commands.h"
#include "coordinator/flags.h"
#include "coordinator/plan_report.h"
#include "coordinator/session.h"
#include "coordinator/text_out.h"
#include "engine/machine.h"
#include "engine/text/chat.h"

enum { DEFAULT_TOKENS = 512, PROMPT_LIMIT = 64 << 20 };

typedef struct flags {
    const char *model, *prompt, *file, *system;
    uint32_t n_tokens, n_alternatives;
    bool n_given, logprobs, raw, json, ignore_end;
    wl_option_list stops;
    wl_cluster_flags cluster;
    wl_sampling_flags sampling;
} flags;

typedef struct answer {
    const wl_tokenizer *tokenizer;
    const flags *flags;
    wl_detokenizer *detokenizer;
    wl_stop_filter filter;
    wl_buffer text;
    json_t *tokens, *logprobs; /* logprobs: NULL unless asked for */
    size_t n_tokens;
    bool stopped;
    double added_s, first_s, last_s;
    wl_error err; /* of a callback */
} answer;

/* -- prompt -------------------------------------------------------------------------------------------------------------------------------- */

static bool encode_chat (const flags *f, const wl_opened_model *opened, const char *prompt, size_t length,
                         wl_tokens *out, wl_error *err)
{
    bool ok = false;
    char *text = NULL;
    size_t text_length;
    json_t *content = wl_json_text (prompt, length), *messages = json_array (), *variables = NULL;
    if (f->system)
        json_array_append_new (messages, json_pack ("{s:s, s:o}", "role", "system", "content",
                                                    wl_json_text (f->system, strlen (f->system))));
    json_array_append_new (messages, json_pack ("{s:s, s:o}", "role", "user", "content", content));
    variables = json_pack ("{s:o, s:b}", "messages", messages, "add_generation_prompt", 1);
    if (!variables) {
        wl_fail (err, WL_ERROR_INTERNAL, "out of memory for the prompt");
        goto done;
    }
    time_t seconds = time (NULL);
    struct tm now;
    localtime_r (&seconds, &now);
    text = wl_chat_render (opened->gguf, variables, &now, &text_length, err);
    /* The template writes the model's own BOS, so none is added. */
    ok = text && wl_tokenizer_encode (opened->tokenizer, text, text_length, false, true, out, err);
done:
    free (text);
    json_decref (variables);
    return ok;
}

static bool encode_prompt (const flags *f, const wl_opened_model *opened, wl_tokens *out, wl_error *err)
{
    char *read = NULL;
    const char *prompt = f->prompt;
    size_t length = prompt ? strlen (prompt) : 0;
    if (!prompt)
        prompt = read = wl_read_file (f->file ? f->file : "-", PROMPT_LIMIT, &length, err);
    if (!prompt)
        return false;
    bool ok = f->raw ? wl_tokenizer_encode (opened->tokenizer, prompt, length, true, true, out, err)
                     : encode_chat (f, opened, prompt, length, out, err);
    free (read);
    return ok;
}

/* How many tokens to generate: -n, or by default what the context leaves. */
static bool plan_length (const flags *f, const wl_opened_model *opened, size_t n_prompt, size_t *n_tokens,
                         wl_error *err)
{
    uint64_t context = f->cluster.options.context ? f->cluster.options.context : opened->model->context_length;
    if (n_prompt >= context)
        return wl_fail (err, WL_ERROR_INPUT, "the prompt has %zu tokens and the context %llu: shorten it%s", n_prompt,
                        (unsigned long long) context, f->cluster.options.context ? " or raise --ctx" : "");
    uint64_t room = context - n_prompt;
    if (f->n_given && f->n_tokens > room)
        return wl_fail (err, WL_ERROR_USAGE,
                        "-n %u after a prompt of %zu tokens is more than the context of %llu: choose at most %llu",
                        f->n_tokens, n_prompt, (unsigned long long) context, (unsigned long long) room);
    *n_tokens = f->n_given ? f->n_tokens : room < DEFAULT_TOKENS ? (size_t) room : DEFAULT_TOKENS;
    return true;
}

/* -- answer ------------------------------------------------------------------------------------------------------------------------------------- */

static bool show_text (answer *a, wl_text text, bool last)
{
    wl_text shown;
    if (!wl_stop_filter_add (&a->filter, text, last, &shown, &a->err) ||
        !wl_buffer_add (&a->text, shown.data, shown.length, &a->err))
        return false;
    if (!a->flags->json && shown.length) {
        fwrite (shown.data, 1, shown.length, stdout);
        fflush (stdout);
    }
    return true;
}

/* A token with its log-probability, as --logprobs shows it. Bytes that are no whole character become U+FFFD in its text. */
static json_t *logprob_json (const answer *a, int32_t token, float logprob)
{
    wl_text text;
    wl_tokenizer_token_text (a->tokenizer, token, true, &text);
    return json_pack ("{s:i, s:o, s:f}", "id", (int) token, "text", wl_json_text (text.data, text.length), "logprob",
                      (double) logprob);
}

static void add_logprobs (answer *a, const wl_sample *sample)
{
    json_t *entry = logprob_json (a, sample->token, sample->logprob), *top = json_array ();
    for (uint32_t i = 0; i < sample->n_alternatives; i++)
        json_array_append_new (top,
                               logprob_json (a, (int32_t) sample->alternatives[i], sample->alternative_logprobs[i]));
    json_object_set_new (entry, "top", top);
    json_array_append_new (a->logprobs, entry);
}

static bool on_token (void *context, const wl_sample *sample)
{
    answer *a = context;
    wl_text text;
    a->last_s = wl_now_s ();
    if (a->n_tokens++ == 0) {
        a->first_s = a->last_s;
        wl_progress_show (NULL);
    }
    json_array_append_new (a->tokens, json_integer (sample->token));
    if (a->logprobs)
        add_logprobs (a, sample);
    if (!a->flags->ignore_end && wl_tokenizer_is_end (a->tokenizer, sample->token)) {
        a->stopped = true;
        return false;
    }
    if (!wl_detokenizer_add (a->detokenizer, sample->token, &text, &a->err) || !show_text (a, text, false))
        return false;
    a->stopped = a->filter.stopped;
    return !a->stopped && !wl_interrupted ();
}

static void on_prefill (void *context, size_t done, size_t total)
{
    (void) context;
    char line[80];
    snprintf (line, sizeof line, "reading the prompt: %zu of %zu tokens", done, total);
    if (done < total)
        wl_progress_show (line);
}

static void print_json (const answer *a, wl_session *session, size_t n_prompt)
{
    double ttft = a->n_tokens ? a->first_s - a->added_s : 0, decode_s = a->last_s - a->first_s;
    json_t *json =
        json_pack ("{s:o, s:O, s:I, s:I, s:s, s:{s:f, s:f, s:f, s:f}, s:o, s:o, s:i, s:I}", "text",
                   wl_json_text (a->text.data, a->text.length), "tokens", a->tokens, "prompt_tokens",
                   (json_int_t) n_prompt, "completion_tokens", (json_int_t) a->n_tokens, "finish_reason",
                   a->stopped || wl_interrupted () ? "stop" : "length", "timings", "load_s", session->load_s, "ttft_s",
                   ttft, "prefill_tok_s", ttft > 0 ? (double) n_prompt / ttft : 0.0, "decode_tok_s",
                   a->n_tokens > 1 && decode_s > 0 ? (double) (a->n_tokens - 1) / decode_s : 0.0, "stages",
                   wl_session_stages (session), "speculation", wl_session_speculation (session), "recoveries", 0,
                   "seed", (json_int_t) a->flags->sampling.sampling.seed);
    wl_cluster_planned planned = wl_cluster_plan (session->cluster);
    json_object_set_new (json, "predicted", wl_plan_predicted_json (&planned));
    json_object_set_new (json, "hop", wl_session_hop (session));
    json_object_set_new (json, "hops", wl_session_hops (session));
    if (a->logprobs)
        json_object_set (json, "logprobs", a->logprobs);
    json_dumpf (json, stdout, JSON_COMPACT | JSON_REAL_PRECISION (9));
    putchar ('\n');
    json_decref (json);
}

static bool generate (const flags *f, const wl_opened_model *opened, const wl_tokens *prompt, size_t n_tokens,
                      wl_error *err)
{
    wl_session session = {0};
    answer a = {.tokenizer = opened->tokenizer,
                .flags = f,
                .tokens = json_array (),
                .logprobs = f->logprobs ? json_array () : NULL};
    bool ok = false;
    if (!wl_stop_filter_init (&a.filter, &f->stops, err))
        goto done;
    a.detokenizer = wl_detokenizer_new (opened->tokenizer, false, err);
    if (!a.detokenizer || !wl_session_open (&session, opened, &f->cluster.options, prompt->count + n_tokens, 1, err))
        goto done;
    wl_session_begin (&session);
    a.added_s = wl_now_s ();
    wl_request_options request = {.prompt = prompt->ids,
                                  .n_prompt = prompt->count,
                                  .max_tokens = n_tokens,
                                  .sampling = f->sampling.sampling,
                                  .breakers = f->sampling.breakers,
                                  .n_breakers = f->sampling.n_breakers,
                                  .context = &a,
                                  .on_token = on_token,
                                  .on_prefill = on_prefill};
    if (n_tokens && !wl_scheduler_add (session.scheduler, &request, err))
        goto done;
    while (wl_scheduler_active (session.scheduler) && !wl_interrupted ())
        if (!wl_scheduler_turn (session.scheduler, -1, err))
            goto done;
    wl_progress_show (NULL);
    if (a.err.code != WL_OK || !show_text (&a, wl_detokenizer_flush (a.detokenizer), true)) {
        *err = a.err;
        goto done;
    }
    a.stopped = a.stopped || a.filter.stopped;
    if (f->json)
        print_json (&a, &session, prompt->count);
    else if (isatty (STDOUT_FILENO))
        putchar ('\n');
    ok = true;
done:
    wl_progress_show (NULL);
    wl_session_close (&session);
    wl_detokenizer_free (&a.detokenizer);
    wl_stop_filter_free (&a.filter);
    free (a.text.data);
    json_decref (a.tokens);
    json_decref (a.logprobs);
    return ok;
}

int wl_command_run (int argc, char **argv)
{
    flags f = {0};
    wl_error err = {0};
    wl_opened_model opened = {0};
    wl_tokens prompt = {0};
    size_t n_tokens = 0;
    bool help;
    wl_sampling *sampling = &f.sampling.sampling;
    const wl_option own[] = {
        {'m', "model", WL_OPTION_TEXT, &f.model, "MODEL", "GGUF file", NULL},
        {'p', "prompt", WL_OPTION_TEXT, &f.prompt, "TEXT", "the prompt", NULL},
        {'f', "file", WL_OPTION_TEXT, &f.file, "FILE", "read the prompt from a file (stdin without -p and -f)", NULL},
        {'n', "tokens", WL_OPTION_U32, &f.n_tokens, "N", "tokens to generate at most (512, or what the context leaves)",
         &f.n_given},
        {0, "system", WL_OPTION_TEXT, &f.system, "TEXT", "system message before the prompt", NULL},
        {0, "raw", WL_OPTION_FLAG, &f.raw, NULL, "the prompt is the text itself: no chat template", NULL},
        {0, "json", WL_OPTION_FLAG, &f.json, NULL, "print one JSON object with text, tokens and timings", NULL},
        {0, "stop", WL_OPTION_LIST, &f.stops, "TEXT", "end before this text; may be repeated", NULL},
        {0, "logprobs", WL_OPTION_U32, &f.n_alternatives, "N",
         "with --json: each token's log-probability and the N best tokens', at most 20", &f.logprobs},
        {0, "ignore-eos", WL_OPTION_FLAG, &f.ignore_end, NULL, "go on after the model's end token", NULL},
    };
    const wl_option_table tables[] = {
        {own, sizeof own / sizeof own[0]}, wl_sampling_flags_init (&f.sampling), wl_cluster_flags_init (&f.cluster)};
    if (!wl_options_parse ("run -m MODEL [-p TEXT | -f FILE] [-n N] [flags]", tables, 3, argc, argv, NULL, &help,
                           &err) ||
        help)
        goto done;
    sampling->wants_logprob = f.logprobs;
    sampling->n_alternatives = f.n_alternatives;
    if (!wl_cluster_flags_finish (&f.cluster, &err) || !wl_sampling_flags_finish (&f.sampling, &err))
        goto done;
    if (f.logprobs && !f.json)
        wl_fail (&err, WL_ERROR_USAGE, "--logprobs shows in the object of --json: give both");
    else if (f.prompt && f.file)
        wl_fail (&err, WL_ERROR_USAGE, "-p and -f both give a prompt: choose one");
    else if (f.raw && f.system)
        wl_fail (&err, WL_ERROR_USAGE, "--system needs the chat template, which --raw leaves out");
    else if (wl_opened_model_open (&opened, f.model, true, &err) &&
             wl_sampling_flags_bind (&f.sampling, opened.tokenizer, &err) &&
             encode_prompt (&f, &opened, &prompt, &err) && plan_length (&f, &opened, prompt.count, &n_tokens, &err))
        generate (&f, &opened, &prompt, n_tokens, &err);
done:
    wl_sampling_flags_free (&f.sampling);
    free (prompt.ids);
    wl_opened_model_close (&opened);
    return err.code == WL_OK ? 0 : wl_command_failed ("run", &err);
}
