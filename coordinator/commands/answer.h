/* A prompt and its answer, as run has one and run --prompts many.
 *
 * An answer gathers what is drawn: text up to a stop string, tokens, log-probabilities, and when they came. */
#ifndef WL_COORDINATOR_ANSWER_H
#define WL_COORDINATOR_ANSWER_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "coordinator/session.h"
#include "coordinator/text_out.h"
#include "engine/text/sampler.h"
#include "engine/text/tokenizer.h"

typedef struct wl_prompt_options {
    bool raw;           /* the text itself; else the model's chat template is put around it */
    const char *system; /* the system message before it; NULL: none */
} wl_prompt_options;

/* The prompt's tokens. */
bool wl_prompt_encode (const wl_opened_model *opened, const char *text, size_t length, const wl_prompt_options *options,
                       wl_tokens *out, wl_error *err);

/* How many tokens to generate: `wanted` (-n), or by default what the context leaves. `context`: --ctx; 0: the model's own. */
bool wl_prompt_plan_length (const wl_opened_model *opened, uint32_t context, const uint32_t *wanted, size_t n_prompt,
                            size_t *n_tokens, wl_error *err);

typedef struct wl_answer_options {
    const wl_option_list *stops;
    bool logprobs, ignore_end;
    bool silent; /* else text goes to stdout as it comes */
} wl_answer_options;

typedef struct wl_answer {
    const wl_tokenizer *tokenizer;
    const wl_answer_options *options; /* borrowed */
    wl_detokenizer *detokenizer;
    wl_stop_filter filter;
    wl_buffer text;
    json_t *tokens, *logprobs; /* logprobs: NULL unless asked for */
    size_t n_tokens;
    size_t n_cached; /* of the prompt's tokens; the caller's to set */
    bool stopped;
    double added_s, first_s, last_s; /* when it was opened, and the first and last token came */
    wl_error err;                    /* of wl_answer_add */
} wl_answer;

/* To be closed also if this fails. */
bool wl_answer_open (wl_answer *answer, const wl_tokenizer *tokenizer, const wl_answer_options *options, wl_error *err);
void wl_answer_close (wl_answer *answer);
/* A token came. False: the answer ends with it; answer->err says if that is because something failed. */
bool wl_answer_add (wl_answer *answer, const wl_sample *sample);
/* No more tokens come. False with what failed, then or before. */
bool wl_answer_finish (wl_answer *answer, wl_error *err);
/* text, tokens, prompt_tokens, prompt_tokens_cached, completion_tokens, finish_reason, timings (ttft_s, prefill_tok_s of what was not cached, decode_tok_s) and, if asked for, logprobs. */
json_t *wl_answer_json (const wl_answer *answer, size_t n_prompt);

#endif
