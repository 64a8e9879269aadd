/* Whether the draft model guesses, and for which requests; see scheduler.h, draft_policy.h and draft_model.h. */
#include "engine/machine.h"
#include "scheduler_private.h"

enum { BEHIND = 8 }; /* tokens that the draft model has not read, beyond which it is behind */

void scheduler_draft_start (wl_scheduler *s)
{
    for (uint32_t i = 0; i < s->n_stages; i++) {
        wl_cluster_stage stage;
        wl_cluster_stage_info (s->cluster, i, &stage);
        s->n_local_threads += stage.is_local ? stage.n_threads : 0;
    }
    s->draft_policy.always = s->options.draft_always;
}

bool scheduler_draft_open (wl_scheduler *s, wl_request *r, wl_error *err)
{
    if (!s->options.draft)
        return true;
    r->drafted =
        wl_draft_stream_open (s->options.draft, &r->options.sampling, r->options.n_prompt + r->options.max_tokens, err);
    if (!r->drafted)
        return false;
    scheduler_draft_know (s, r);
    r->by_draft = wl_draft_policy_is_on (&s->draft_policy);
    wl_draft_stream_want (s->options.draft, r->drafted, r->by_draft);
    return true;
}

void scheduler_draft_know (wl_scheduler *s, const wl_request *r)
{
    if (r->drafted)
        wl_draft_stream_know (s->options.draft, r->drafted, r->tokens, r->n_known);
}

/* Whether what guesses can still gain for a request is more than what reading its tokens costs the others. Where the draft has cores of its own, reading costs them nothing. */
static bool is_worth_reading (const wl_scheduler *s, const wl_request *r, size_t n_streams, const wl_draft_costs *costs)
{
    if (s->draft_policy.always || r->by_draft || !costs->is_crowded)
        return true;
    size_t left = r->options.n_prompt + r->options.max_tokens - r->n_known;
    return wl_draft_policy_gain (&s->draft_policy, n_streams, costs) * (double) left >
           costs->read_ns * (double) wl_draft_stream_unread (s->options.draft, r->drafted);
}

/* Who guesses for `r`. */
static void choose_source (wl_scheduler *s, wl_request *r, bool is_on, size_t n_streams, const wl_draft_costs *costs)
{
    bool wanted = is_on && is_worth_reading (s, r, n_streams, costs);
    wl_draft_stream_want (s->options.draft, r->drafted, wanted);
    if (r->n_sent <= r->n_known)
        r->by_draft = wanted;
}

void scheduler_draft_turn (wl_scheduler *s, uint64_t n_drawn)
{
    size_t n_streams = 0, n_unread = 0;
    bool reads = false;
    if (!s->options.draft)
        return;
    for (const wl_request *r = s->requests; r; r = r->next) {
        size_t unread = r->drafted && r->by_draft ? wl_draft_stream_unread (s->options.draft, r->drafted) : 0;
        n_streams += r->admitted && scheduler_is_decoding (r);
        reads = reads || (r->admitted && !scheduler_is_decoding (r));
        n_unread = unread > BEHIND && unread > n_unread ? unread : n_unread;
    }
    wl_draft_costs costs = wl_draft_model_costs (s->options.draft);
    costs.is_crowded = s->n_local_threads && s->n_local_threads + costs.n_threads > costs.n_cores;
    if (n_streams) /* stages take about the same time each */
        costs.stage_ns = wl_step_cost_all (s->cost, n_streams) / (double) n_streams * s->n_local_threads / s->n_stages;
    wl_draft_policy_add (&s->draft_policy, reads ? 0 : n_streams, n_drawn, n_unread, wl_now_ns (), &costs);
    bool is_on = wl_draft_policy_is_on (&s->draft_policy);
    for (wl_request *r = s->requests; r; r = r->next)
        if (r->drafted)
            choose_source (s, r, is_on, n_streams, &costs);
}
