/* woolly run: answer one prompt, or many of a file (run_many.c).
 *
 * The text streams to stdout as it comes, everything else goes to stderr. Ctrl-C ends the generation: what has come is kept, the exit code is 0; a
 * second one ends the process at once with 130. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "answer.h"
#include "commands.h"
#include "coordinator/flags.h"
#include "coordinator/session.h"
#include "coordinator/simulate.h"
#include "engine/machine.h"
#include "run_many.h"

enum { PROMPT_LIMIT = 64 << 20, DEFAULT_PARALLEL = 64, MOST_PARALLEL = 1024 };

typedef struct flags {
    const char *model, *prompt, *file, *prompts;
    uint32_t n_tokens, n_alternatives, n_parallel;
    bool n_given, parallel_given, json;
    wl_option_list stops;
    wl_prompt_options prompt_options;
    wl_answer_options answer;
    wl_cluster_flags cluster;
    wl_sampling_flags sampling;
} flags;

static bool encode_prompt (const flags *f, const wl_opened_model *opened, wl_tokens *out, wl_error *err)
{
    char *read = NULL;
    const char *prompt = f->prompt;
    size_t length = prompt ? strlen (prompt) : 0;
    if (!prompt)
        prompt = read = wl_read_file (f->file ? f->file : "-", PROMPT_LIMIT, &length, err);
    bool ok = prompt && wl_prompt_encode (opened, prompt, length, &f->prompt_options, out, err);
    free (read);
    return ok;
}

static bool on_token (void *context, const wl_sample *sample)
{
    wl_answer *a = context;
    if (a->n_tokens == 0)
        wl_progress_show (NULL);
    return wl_answer_add (a, sample);
}

static void on_begin (void *context, size_t n_tokens)
{
    wl_answer *a = context;
    a->n_cached = n_tokens;
}

static void on_prefill (void *context, size_t done, size_t total)
{
    (void) context;
    char line[80];
    snprintf (line, sizeof line, "reading the prompt: %zu of %zu tokens", done, total);
    if (done < total)
        wl_progress_show (line);
}

/* What the plan said of this very run, beside what the timings say: as many tokens of a prompt read, as many generated, nothing guessed. */
static json_t *predict_run (const wl_answer *a, const flags *f, const wl_session *session, size_t n_prompt,
                            wl_error *err)
{
    wl_cluster_planned planned = wl_cluster_plan (session->cluster);
    uint32_t n_read = (uint32_t) (n_prompt - a->n_cached), n_drawn = (uint32_t) a->n_tokens,
             chunk = f->cluster.options.chunk;
    double first_s = 0, all_s = 0;
    if (n_read == 0 || n_drawn == 0)
        return json_null ();
    if (!wl_predict_test (planned.request, planned.plan, chunk, 1, n_read, 1, &first_s, err) ||
        !wl_predict_test (planned.request, planned.plan, chunk, 1, n_read, n_drawn, &all_s, err))
        return NULL;
    return json_pack ("{s:f, s:f, s:f}", "ttft_s", first_s, "prefill_tok_s", n_read / first_s, "decode_tok_s",
                      n_drawn > 1 ? (n_drawn - 1) / (all_s - first_s) : 0.0);
}

static bool print_json (const wl_answer *a, const flags *f, wl_session *session, size_t n_prompt, wl_error *err)
{
    json_t *json = wl_answer_json (a, n_prompt), *run = predict_run (a, f, session, n_prompt, err);
    if (run) {
        json_object_set_new (json_object_get (json, "timings"), "load_s", json_real (session->load_s));
        json_object_set_new (json, "seed", json_integer ((json_int_t) f->sampling.sampling.seed));
        wl_session_report (session, json);
        json_object_set_new (json_object_get (json, "predicted"), "run", run);
        json_dumpf (json, stdout, JSON_COMPACT | JSON_REAL_PRECISION (9));
        putchar ('\n');
    }
    json_decref (json);
    return run != NULL;
}

static bool generate (const flags *f, const wl_opened_model *opened, const wl_tokens *prompt, size_t n_tokens,
                      wl_error *err)
{
    wl_session session = {0};
    wl_answer a;
    bool ok = false;
    if (!wl_answer_open (&a, opened->tokenizer, &f->answer, err) ||
        !wl_session_open (&session, opened, &f->cluster.options, prompt->count + n_tokens, 1, err))
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
                                  .on_begin = on_begin,
                                  .on_prefill = on_prefill};
    if (n_tokens && !wl_scheduler_add (session.scheduler, &request, err))
        goto done;
    while (wl_scheduler_active (session.scheduler) && !wl_interrupted ())
        if (!wl_scheduler_turn (session.scheduler, -1, err))
            goto done;
    wl_progress_show (NULL);
    if (!wl_answer_finish (&a, err))
        goto done;
    ok = !f->json || print_json (&a, f, &session, prompt->count, err);
    if (!f->json && isatty (STDOUT_FILENO))
        putchar ('\n');
done:
    wl_progress_show (NULL);
    wl_session_close (&session);
    wl_answer_close (&a);
    return ok;
}

static bool answer (const flags *f, const wl_opened_model *opened, wl_error *err)
{
    wl_tokens prompt = {0};
    size_t n_tokens = 0;
    if (f->prompts)
        return wl_run_many (&(wl_run_many_options){.opened = opened,
                                                   .path = f->prompts,
                                                   .n_tokens = f->n_given ? &f->n_tokens : NULL,
                                                   .n_parallel = f->n_parallel,
                                                   .prompt = f->prompt_options,
                                                   .answer = f->answer,
                                                   .sampling = &f->sampling,
                                                   .cluster = f->cluster.options},
                            err);
    bool ok = encode_prompt (f, opened, &prompt, err) &&
              wl_prompt_plan_length (opened, f->cluster.options.context, f->n_given ? &f->n_tokens : NULL, prompt.count,
                                     &n_tokens, err) &&
              generate (f, opened, &prompt, n_tokens, err);
    free (prompt.ids);
    return ok;
}

static bool finish_flags (flags *f, wl_error *err)
{
    f->answer.stops = &f->stops;
    f->answer.silent = f->json;
    if (f->answer.logprobs && !f->json)
        return wl_fail (err, WL_ERROR_USAGE, "--logprobs shows in the object of --json: give both");
    if ((f->prompt != NULL) + (f->file != NULL) + (f->prompts != NULL) > 1)
        return wl_fail (err, WL_ERROR_USAGE, "%s and %s both give a prompt: choose one", f->prompt ? "-p" : "-f",
                        f->prompt && f->file ? "-f" : "--prompts");
    if (f->prompts && !f->json)
        return wl_fail (err, WL_ERROR_USAGE, "--prompts prints a JSON object for each answer: give --json too");
    if (f->parallel_given && !f->prompts)
        return wl_fail (err, WL_ERROR_USAGE, "--parallel is for many prompts: give --prompts FILE too");
    if (f->n_parallel == 0 || f->n_parallel > MOST_PARALLEL)
        return wl_fail (err, WL_ERROR_USAGE, "--parallel %u: choose 1 to %d", f->n_parallel, MOST_PARALLEL);
    if (f->prompt_options.raw && f->prompt_options.system)
        return wl_fail (err, WL_ERROR_USAGE, "--system needs the chat template, which --raw leaves out");
    return true;
}

int wl_command_run (int argc, char **argv)
{
    flags f = {.n_parallel = DEFAULT_PARALLEL};
    wl_error err = {0};
    wl_opened_model opened = {0};
    bool help;
    const wl_option own[] = {
        {'m', "model", WL_OPTION_TEXT, &f.model, "MODEL", "GGUF file", NULL},
        {'p', "prompt", WL_OPTION_TEXT, &f.prompt, "TEXT", "the prompt", NULL},
        {'f', "file", WL_OPTION_TEXT, &f.file, "FILE", "read the prompt from a file (stdin without -p and -f)", NULL},
        {'n', "tokens", WL_OPTION_U32, &f.n_tokens, "N", "tokens to generate at most (512, or what the context leaves)",
         &f.n_given},
        {0, "prompts", WL_OPTION_TEXT, &f.prompts, "FILE",
         "many prompts, one JSON string or object a line, answered together; needs --json, which then prints a line "
         "each",
         NULL},
        {0, "parallel", WL_OPTION_U32, &f.n_parallel, "N", "with --prompts: how many are under way at a time (64)",
         &f.parallel_given},
        {0, "system", WL_OPTION_TEXT, &f.prompt_options.system, "TEXT", "system message before the prompt", NULL},
        {0, "raw", WL_OPTION_FLAG, &f.prompt_options.raw, NULL, "the prompt is the text itself: no chat template",
         NULL},
        {0, "json", WL_OPTION_FLAG, &f.json, NULL, "print one JSON object with text, tokens and timings", NULL},
        {0, "stop", WL_OPTION_LIST, &f.stops, "TEXT", "end before this text; may be repeated", NULL},
        {0, "logprobs", WL_OPTION_U32, &f.n_alternatives, "N",
         "with --json: each token's log-probability and the N best tokens', at most 20", &f.answer.logprobs},
        {0, "ignore-eos", WL_OPTION_FLAG, &f.answer.ignore_end, NULL, "go on after the model's end token", NULL},
    };
    const wl_option_table tables[] = {
        {own, sizeof own / sizeof own[0]}, wl_sampling_flags_init (&f.sampling), wl_cluster_flags_init (&f.cluster)};
    if (!wl_options_parse ("run -m MODEL [-p TEXT | -f FILE | --prompts FILE] [-n N] [flags]", tables, 3, argc, argv,
                           NULL, &help, &err) ||
        help)
        goto done;
    f.sampling.sampling.wants_logprob = f.answer.logprobs;
    f.sampling.sampling.n_alternatives = f.n_alternatives;
    if (!wl_cluster_flags_finish (&f.cluster, &err) || !wl_sampling_flags_finish (&f.sampling, &err) ||
        !finish_flags (&f, &err))
        goto done;
    if (wl_opened_model_open (&opened, f.model, &f.cluster.rope, true, &err) &&
        wl_sampling_flags_bind (&f.sampling, opened.tokenizer, &err))
        answer (&f, &opened, &err);
done:
    wl_sampling_flags_free (&f.sampling);
    wl_opened_model_close (&opened);
    return err.code == WL_OK ? 0 : wl_command_failed ("run", &err);
}
