/* What the scheduler decides; see policy.h. */
#include "policy.h"

enum { SPARE_STEPS = 1 }; /* beyond one a stage, so that the first stage has the next one when it is done */

static const double longest_wait_ns = 250e6; /* of decoding streams for a prompt's chunk, on each stage */

uint32_t wl_policy_steps (uint32_t n_stages)
{
    return n_stages + SPARE_STEPS;
}

size_t wl_policy_streams (wl_step_cost *cost, size_t n_decoding, size_t n_ready, bool others_under_way,
                          bool prompts_wait)
{
    if (n_ready == 0)
        return 0;
    size_t groups = wl_step_cost_groups (cost, n_decoding);
    return others_under_way && !prompts_wait && n_ready < n_decoding / groups ? 0 : (n_decoding + groups - 1) / groups;
}

size_t wl_policy_chunk (const wl_step_cost *cost, size_t fixed, size_t *chosen, size_t n_unread, size_t max_rows,
                        bool streams_wait)
{
    if (fixed)
        return fixed;
    if (*chosen == 0)
        *chosen = wl_step_cost_chunk (cost, n_unread, max_rows);
    return streams_wait ? wl_step_cost_within (cost, *chosen, longest_wait_ns) : *chosen;
}

bool wl_policy_teaches (size_t n_rows, size_t n_logit_rows)
{
    enum { FEW_ROWS = 16 };
    return n_rows > FEW_ROWS || n_logit_rows >= n_rows;
}
