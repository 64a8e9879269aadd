/* run --prompts: many prompts over one cluster. */
#ifndef WL_COORDINATOR_RUN_MANY_H
#define WL_COORDINATOR_RUN_MANY_H

#include "answer.h"
#include "coordinator/flags.h"

typedef struct wl_run_many_options {
    const wl_opened_model *opened;
    const char *path;         /* of the prompts */
    const uint32_t *n_tokens; /* -n; NULL: not given */
    uint32_t n_parallel;
    wl_prompt_options prompt;
    wl_answer_options answer;
    const wl_sampling_flags *sampling;
    wl_cluster_options cluster;
} wl_run_many_options;

bool wl_run_many (const wl_run_many_options *options, wl_error *err);

#endif
