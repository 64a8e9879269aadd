/* A prompt and its answer; see answer.h. */
#include "answer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/machine.h"
#include "engine/text/chat.h"

enum { DEFAULT_TOKENS = 512 };

/* -- prompt -------------------------------------------------------------------------------------------------------------------------------- */

static bool encode_chat (const wl_opened_model *opened, const char *prompt, size_t length, const char *system,
                         wl_tokens *out, wl_error *err)
{
    bool ok = false;
    char *text = NULL;
    size_t text_length;
    json_t *content = wl_json_text (prompt, length), *messages = json_array (), *variables = NULL;
    if (system)
        json_array_append_new (
            messages, json_pack ("{s:s, s:o}", "role", "system", "content", wl_json_text (system, strlen (system))));
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

bool wl_prompt_encode (const wl_opened_model *opened, const char *text, size_t length, const wl_prompt_options *options,
                       wl_tokens *out, wl_error *err)
{
    return options->raw ? wl_tokenizer_encode (opened->tokenizer, text, length, true, true, out, err)
                        : encode_chat (opened, text, length, options->system, out, err);
}

bool wl_prompt_plan_length (const wl_opened_model *opened, uint32_t context, const uint32_t *wanted, size_t n_prompt,
                            size_t *n_tokens, wl_error *err)
{
    uint64_t most = context ? context : opened->model->context_length;
    if (n_prompt >= most)
        return wl_fail (err, WL_ERROR_INPUT, "the prompt has %zu tokens and the context %llu: shorten it%s", n_prompt,
                        (unsigned long long) most,
                        context ? " or raise --ctx" : ", or extend that with --ctx N --rope-scaling yarn");
    uint64_t room = most - n_prompt;
    if (wanted && *wanted > room)
        return wl_fail (err, WL_ERROR_USAGE,
                        "-n %u after a prompt of %zu tokens is more than the context of %llu: choose at most %llu",
                        *wanted, n_prompt, (unsigned long long) most, (unsigned long long) room);
    *n_tokens = wanted ? *wanted : room < DEFAULT_TOKENS ? (size_t) room : DEFAULT_TOKENS;
    return true;
}

/* -- answer ------------------------------------------------------------------------------------------------------------------------------------- */

static bool show_text (wl_answer *a, wl_text text, bool last)
{
    wl_text shown;
    if (!wl_stop_filter_add (&a->filter, text, last, &shown, &a->err) ||
        !wl_buffer_add (&a->text, shown.data, shown.length, &a->err))
        return false;
    if (!a->options->silent && shown.length) {
        fwrite (shown.data, 1, shown.length, stdout);
        fflush (stdout);
    }
    return true;
}

/* A token with its log-probability, as --logprobs shows it. Bytes that are no whole character become U+FFFD in its text. */
static json_t *logprob_json (const wl_answer *a, int32_t token, float logprob)
{
    wl_text text;
    wl_tokenizer_token_text (a->tokenizer, token, true, &text);
    return json_pack ("{s:i, s:o, s:f}", "id", (int) token, "text", wl_json_text (text.data, text.length), "logprob",
                      (double) logprob);
}

static void add_logprobs (wl_answer *a, const wl_sample *sample)
{
    json_t *entry = logprob_json (a, sample->token, sample->logprob), *top = json_array ();
    for (uint32_t i = 0; i < sample->n_alternatives; i++)
        json_array_append_new (top,
                               logprob_json (a, (int32_t) sample->alternatives[i], sample->alternative_logprobs[i]));
    json_object_set_new (entry, "top", top);
    json_array_append_new (a->logprobs, entry);
}

bool wl_answer_add (wl_answer *a, const wl_sample *sample)
{
    wl_text text;
    a->last_s = wl_now_s ();
    if (a->n_tokens++ == 0)
        a->first_s = a->last_s;
    json_array_append_new (a->tokens, json_integer (sample->token));
    if (a->logprobs)
        add_logprobs (a, sample);
    if (!a->options->ignore_end && wl_tokenizer_is_end (a->tokenizer, sample->token)) {
        a->stopped = true;
        return false;
    }
    if (!wl_detokenizer_add (a->detokenizer, sample->token, &text, &a->err) || !show_text (a, text, false))
        return false;
    a->stopped = a->filter.stopped;
    return !a->stopped && !wl_interrupted ();
}

bool wl_answer_open (wl_answer *a, const wl_tokenizer *tokenizer, const wl_answer_options *options, wl_error *err)
{
    *a = (wl_answer){.tokenizer = tokenizer,
                     .options = options,
                     .tokens = json_array (),
                     .logprobs = options->logprobs ? json_array () : NULL};
    if (!wl_stop_filter_init (&a->filter, options->stops, err))
        return false;
    a->detokenizer = wl_detokenizer_new (tokenizer, false, err);
    a->added_s = wl_now_s ();
    return a->detokenizer != NULL;
}

void wl_answer_close (wl_answer *a)
{
    wl_detokenizer_free (&a->detokenizer);
    wl_stop_filter_free (&a->filter);
    free (a->text.data);
    json_decref (a->tokens);
    json_decref (a->logprobs);
    *a = (wl_answer){0};
}

bool wl_answer_finish (wl_answer *a, wl_error *err)
{
    if (a->err.code != WL_OK || !show_text (a, wl_detokenizer_flush (a->detokenizer), true)) {
        *err = a->err;
        return false;
    }
    a->stopped = a->stopped || a->filter.stopped;
    return true;
}

json_t *wl_answer_json (const wl_answer *a, size_t n_prompt)
{
    double ttft = a->n_tokens ? a->first_s - a->added_s : 0, decode_s = a->last_s - a->first_s;
    json_t *json = json_pack (
        "{s:o, s:O, s:I, s:I, s:I, s:s, s:{s:f, s:f, s:f}}", "text", wl_json_text (a->text.data, a->text.length),
        "tokens", a->tokens, "prompt_tokens", (json_int_t) n_prompt, "prompt_tokens_cached", (json_int_t) a->n_cached,
        "completion_tokens", (json_int_t) a->n_tokens, "finish_reason",
        a->stopped || wl_interrupted () ? "stop" : "length", "timings", "ttft_s", ttft, "prefill_tok_s",
        ttft > 0 ? (double) (n_prompt - a->n_cached) / ttft : 0.0, "decode_tok_s",
        a->n_tokens > 1 && decode_s > 0 ? (double) (a->n_tokens - 1) / decode_s : 0.0);
    if (a->logprobs)
        json_object_set (json, "logprobs", a->logprobs);
    return json;
}
