/* A draft model: a smaller model of the same vocabulary, on the coordinator's machine, that guesses what the cluster's model will say.
 *
 * It is one stage with all of the model's layers, and a thread that computes with it while the cluster computes: for each request the tokens that it has not read yet, then one guess after the
 * other, each drawn from its own logits by the request's sampler at the guess's position (the same random number as the token's own draw has, so where both distributions agree, so do the
 * draws). Several requests share its steps. A request's KV pages are its own here, with no sharing of prefixes; whose pages cannot be had gets no guesses.
 *
 * Nothing that it says changes a result: the scheduler sends a guess as a further row, and it counts only where it equals what that row's predecessor draws (scheduler.h). So it draws
 * without DRY, whose tables are the request's.
 *
 * Threads: one calls all functions; the draft's own thread takes what they leave under a lock, computes without it, and sleeps while there is nothing to guess. No
 * function waits for a step but wl_draft_model_close. */
#ifndef WL_COORDINATOR_DRAFT_MODEL_H
#define WL_COORDINATOR_DRAFT_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "draft_policy.h"
#include "engine/error.h"
#include "engine/model.h"
#include "engine/stage.h"
#include "engine/text/sampler.h"
#include "engine/text/tokenizer.h"

typedef struct wl_draft_model wl_draft_model;
typedef struct wl_draft_stream wl_draft_stream; /* one request's */

typedef struct wl_draft_model_options {
    const char *path;
    uint32_t n_threads;            /* that compute, at least 1 */
    uint32_t n_pages;              /* of KV cache, for all requests together; memory is touched only as they are used */
    uint32_t context;              /* positions that a request may reach */
    const char *isa;               /* NULL: the best there is */
    const wl_tokenizer *tokenizer; /* of the cluster's model, for comparison */
    const wl_model *target;        /* likewise */
} wl_draft_model_options;

/* Loads it, with `progress` as for wl_stage_new, and measures its pace. WL_ERROR_INPUT when its vocabulary is another, WL_ERROR_CLUSTER when it does not fit this machine's memory, besides what is wrong with the file. */
wl_draft_model *wl_draft_model_open (const wl_draft_model_options *options, wl_progress_fn progress, void *context,
                                     wl_error *err);
/* Starts the thread. `wake` is called on it, with the lock held, whenever there are new guesses. */
bool wl_draft_model_start (wl_draft_model *draft, void (*wake) (void *context), void *context, wl_error *err);
/* Ends the thread (within a step) and frees all; streams too. */
void wl_draft_model_close (wl_draft_model **draft);

/* For a request of at most `capacity` tokens; `sampling` is copied, its lists too. */
wl_draft_stream *wl_draft_stream_open (wl_draft_model *draft, const wl_sampling *sampling, size_t capacity,
                                       wl_error *err);
void wl_draft_stream_close (wl_draft_model *draft, wl_draft_stream **stream);

/* The first n_known of `tokens` are known now. */
void wl_draft_stream_know (wl_draft_model *draft, wl_draft_stream *stream, const int32_t *tokens, size_t n_known);
/* Whether guesses are wanted. None at first. */
void wl_draft_stream_want (wl_draft_model *draft, wl_draft_stream *stream, bool wanted);
/* Gives its KV pages back; it reads everything again when guesses are next wanted. */
void wl_draft_stream_forget (wl_draft_model *draft, wl_draft_stream *stream);
/* Known tokens that it has not read yet. */
size_t wl_draft_stream_unread (wl_draft_model *draft, const wl_draft_stream *stream);
/* The guess for the position `ahead` of the known ones, and the chance that it is right if those before it are. False: there is none yet. */
bool wl_draft_stream_guess (wl_draft_model *draft, const wl_draft_stream *stream, size_t ahead, int32_t *token,
                            double *chance);

/* All but stage_ns, which the caller knows. */
wl_draft_costs wl_draft_model_costs (wl_draft_model *draft);

typedef struct wl_draft_facts { /* for reports */
    const char *path;
    uint32_t n_threads;
    uint64_t weight_bytes, kv_bytes; /* kv_bytes: at most, all pages */
    uint64_t n_judged, n_right;      /* guesses that a token has come for, sent or not, and those that equal it */
    double guess_ns, read_ns;
} wl_draft_facts;
wl_draft_facts wl_draft_model_facts (wl_draft_model *draft);

#endif
