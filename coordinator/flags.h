/* Flags that several commands share, as tables for wl_options_parse, and what they fill. */
#ifndef WL_COORDINATOR_FLAGS_H
#define WL_COORDINATOR_FLAGS_H

#include "cluster.h"
#include "engine/text/sampler.h"
#include "engine/text/tokenizer.h"
#include "options.h"

/* -- cluster -- */

enum { WL_CLUSTER_FLAGS = 24 };

typedef struct wl_cluster_flags {
    wl_cluster_options options;
    const char *objective, *hop, *kv, *rope_scaling;
    bool rope_factor_given;
    wl_rope_order rope; /* for wl_opened_model_open */
    bool draft_threads_given;
    wl_option table[WL_CLUSTER_FLAGS]; /* points into this struct: do not copy it */
} wl_cluster_flags;

/* Defaults, and the table bound to them. */
wl_option_table wl_cluster_flags_init (wl_cluster_flags *flags);
/* What the flags say together: WL_ERROR_USAGE for combinations that make no sense; fills what follows from others (as many local workers
 * as --layers has ranges). */
bool wl_cluster_flags_finish (wl_cluster_flags *flags, wl_error *err);

/* -- sampling (sampling_flags.c) -- */

enum { WL_SAMPLING_FLAGS = 24, WL_MAX_BIAS_FLAGS = 256 };

typedef struct wl_sampling_flags {
    wl_sampling sampling; /* its lists are those below */
    bool *breakers;       /* [n_breakers] for DRY, where it is on; see scheduler.h. Owned */
    size_t n_breakers;

    /* what was given */
    bool given[WL_SAMPLING_FLAGS];
    wl_option_list biases, breaker_texts;
    uint32_t bias_tokens[WL_MAX_BIAS_FLAGS];
    float bias_values[WL_MAX_BIAS_FLAGS];
    wl_option table[WL_SAMPLING_FLAGS]; /* points into this struct: do not copy it */
} wl_sampling_flags;

/* Defaults, and the table bound to them. */
wl_option_table wl_sampling_flags_init (wl_sampling_flags *flags);
/* Checks ranges and combinations; draws a seed where none was given. Before a model is opened. */
bool wl_sampling_flags_finish (wl_sampling_flags *flags, wl_error *err);
/* Checks token ids against the model, and finds the tokens that break DRY's sequences. */
bool wl_sampling_flags_bind (wl_sampling_flags *flags, const wl_tokenizer *tokenizer, wl_error *err);
void wl_sampling_flags_free (wl_sampling_flags *flags);

#endif
