/* What run, score and bench have in common: a model opened, a cluster started over it, progress shown, and the figures to report. */
#ifndef WL_COORDINATOR_SESSION_H
#define WL_COORDINATOR_SESSION_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "cluster.h"
#include "engine/gguf.h"
#include "engine/model.h"
#include "engine/text/tokenizer.h"
#include "scheduler.h"

/* A model file as the coordinator needs it. The tokenizer is NULL only where `wants_tokenizer` was false. */
typedef struct wl_opened_model {
    wl_gguf *gguf;
    wl_model *model;
    wl_tokenizer *tokenizer;
} wl_opened_model;

/* `rope` as the flags say (flags.h). */
bool wl_opened_model_open (wl_opened_model *opened, const char *path, const wl_rope_order *rope, bool wants_tokenizer,
                           wl_error *err);
/* WL_ERROR_USAGE, with the figures and what to do, when --ctx (0: not given) is more than the model's context. */
bool wl_opened_model_fits (const wl_opened_model *opened, uint32_t context, wl_error *err);
void wl_opened_model_close (wl_opened_model *opened);

typedef struct wl_session {
    wl_cluster *cluster;
    wl_draft_model *draft; /* NULL without --spec draft:MODEL */
    wl_scheduler *scheduler;
    double load_s;
    uint64_t *busy_before; /* [stages] when work began; see wl_session_begin */
    double began_s;
} wl_session;

/* Starts the cluster for requests of at most `context` positions together (--ctx overrides) and steps with at most `max_logit_rows` rows of logits. WL_ERROR_USAGE
 * when the context is more than the model was trained for, with the figures. */
bool wl_session_open (wl_session *session, const wl_opened_model *opened, const wl_cluster_options *options,
                      uint64_t context, uint32_t max_logit_rows, wl_error *err);
void wl_session_close (wl_session *session);

/* Marks the start of work, for busy_fraction. */
void wl_session_begin (wl_session *session);
/* The "stages" array of --json: name, layers, weight_bytes (kept_bytes of them came packed from the cache), rss_bytes (mapped_bytes of
 * them pages of files, shared by the processes of a host), busy_fraction, threads, isa, and time by cause (step_times.h). */
json_t *wl_session_stages (wl_session *session);
/* Where each stage's time went since wl_session_begin, in seconds by cause. */
json_t *wl_session_times (wl_session *session);
/* The "hop" object: what activations travel as, whether that rounds what stages compute, and the bytes of a row. */
json_t *wl_session_hop (wl_session *session);
/* The "kv" object: what the KV cache holds, and the bytes of a position in all layers. */
json_t *wl_session_kv (wl_session *session);
/* The "hops" array, since wl_session_begin: "to" stage 0, 1, … and the coordinator (null): how many steps passed, bytes of activations, and seconds on the way (mean and least of the
 * `timed` steps for which the receiver was waiting; null where there was none). */
json_t *wl_session_hops (wl_session *session);
/* The "prefix_cache" object. */
json_t *wl_session_prefixes (const wl_session *session);
/* Sets what run reports of the cluster: stages, speculation, recoveries, predicted, hop, hops, kv, prefix_cache. */
void wl_session_report (wl_session *session, json_t *report);
/* The "speculation" object: guesses "drafted" and "accepted"; with a draft model "draft": its own of them, the pace, the share of its guesses that came true whether they
 * were sent or not, its memory, and whether it paid. */
json_t *wl_session_speculation (const wl_session *session);

/* Ctrl-C: the first wakes the scheduler and makes this true; a second ends the process at once with 130. wl_interrupt_watch installs it for the cluster of a session
 * (NULL: none yet). */
void wl_interrupt_watch (wl_cluster *cluster);
bool wl_interrupted (void);

/* One line of progress on stderr, rewritten in place, if stderr is a terminal; NULL clears it. */
void wl_progress_show (const char *line);

#endif
