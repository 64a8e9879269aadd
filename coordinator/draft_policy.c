/* Whether a draft model pays; see draft_policy.h. */
#include "draft_policy.h"

enum {
    WATCHED = 8,
    TRIED = 12,
    TRIED_LEAST = 4,
    KEPT = 32,
    FIRST_REST = 128,
    LONGEST_REST = 16384,
    SEEN_ANEW = 2048
}; /* tokens */

/* What makes a trial worth while: this much of the time of a token, expected. On a crowded machine the draft was measured while stages did nothing, and both are slower together. */
static const double least_gain = 0.06, least_gain_crowded = 0.2;
static const double fails = 1.15; /* of the time without, after some tokens of a trial: it is over */
static const double keeps = 0.98; /* of the time without, measured: at most that, and it stays on */

bool wl_draft_policy_is_on (const wl_draft_policy *p)
{
    return p->always || p->state != WL_DRAFT_RESTS;
}

double wl_draft_policy_gain (const wl_draft_policy *p, size_t n_streams, const wl_draft_costs *costs)
{
    const double more = 0.15; /* what another sequence in the same step of the draft costs, of the first */
    if (n_streams == 0 || n_streams > WL_DRAFT_STREAMS)
        return 0;
    double n = (double) n_streams, plain = p->plain_ns[n_streams];
    double guess = costs->guess_ns * (1 + more * (n - 1)) / n;
    double wrong = 1 - costs->acceptance, with = guess + wrong * plain;
    double busy = (guess * costs->n_threads + costs->stage_ns * (1 + wrong)) / costs->n_cores;
    return plain - (with > busy ? with : busy);
}

static void begin_window (wl_draft_policy *p, uint64_t now_ns)
{
    p->n_tokens = 0;
    p->began_ns = now_ns;
}

/* A trial failed, or it has stopped paying. */
static void rest (wl_draft_policy *p)
{
    p->state = WL_DRAFT_RESTS;
    p->n_rested = 0;
    p->n_failed++;
    p->rests = p->rests == 0 ? FIRST_REST : p->rests * 2 < LONGEST_REST ? p->rests * 2 : LONGEST_REST;
}

/* The pace without it is not known, or was measured long ago. */
static void see_anew (wl_draft_policy *p)
{
    p->state = WL_DRAFT_RESTS;
    p->rests = 0;
    p->n_rested = 0;
}

/* The window's pace is that without the draft. */
static void watch (wl_draft_policy *p, double ns, const wl_draft_costs *costs)
{
    const double pace = 0.5;
    double *plain = &p->plain_ns[p->n_streams];
    *plain = *plain > 0 ? *plain + pace * (ns - *plain) : ns;
    p->n_rested += p->n_tokens;
    double least = *plain * (costs->is_crowded ? least_gain_crowded : least_gain);
    if (p->n_rested < p->rests || wl_draft_policy_gain (p, p->n_streams, costs) < least)
        return;
    p->state = WL_DRAFT_TRIED;
    p->n_on = 0;
    p->patience_ns = 0;
    p->n_tries++;
}

/* The window's pace is that with the draft. */
static void judge (wl_draft_policy *p, double ns)
{
    p->n_on += p->n_tokens;
    if (ns > p->plain_ns[p->n_streams] * keeps)
        rest (p);
    else if (p->n_on >= SEEN_ANEW)
        see_anew (p);
    else
        p->state = WL_DRAFT_ON;
}

/* It is on, and reads what it has missed: that it may take three times as long as it should. */
static void wait_for_it (wl_draft_policy *p, size_t n_unread, uint64_t now_ns, const wl_draft_costs *costs)
{
    double patience = 3 * costs->read_ns * (double) n_unread + TRIED * p->plain_ns[p->n_streams];
    if (p->patience_ns == 0)
        p->patience_ns = now_ns + (uint64_t) patience;
    else if (now_ns > p->patience_ns)
        rest (p);
    begin_window (p, now_ns);
}

/* Before the window is full: it will not come out well. */
static bool is_too_slow (const wl_draft_policy *p, size_t most, double elapsed)
{
    double plain = p->plain_ns[p->n_streams];
    bool fails_early = p->state == WL_DRAFT_TRIED && p->n_tokens >= p->n_streams * TRIED_LEAST &&
                       elapsed > fails * plain * (double) p->n_tokens;
    return fails_early || elapsed > plain * (double) most;
}

void wl_draft_policy_add (wl_draft_policy *p, size_t n_streams, size_t n_tokens, size_t n_unread, uint64_t now_ns,
                          const wl_draft_costs *costs)
{
    bool comparable = n_streams && n_streams <= WL_DRAFT_STREAMS && n_streams == p->n_streams && p->began_ns;
    bool on = p->state != WL_DRAFT_RESTS;
    if (p->always)
        return;
    if (!comparable) {
        p->n_streams = n_streams <= WL_DRAFT_STREAMS ? n_streams : 0;
        if (on && p->n_streams && p->plain_ns[p->n_streams] == 0)
            see_anew (p);
        begin_window (p, now_ns);
        return;
    }
    if (on && n_unread) {
        wait_for_it (p, n_unread, now_ns, costs);
        return;
    }
    size_t most = n_streams * (on ? p->state == WL_DRAFT_ON ? KEPT : TRIED : WATCHED);
    double elapsed = (double) (now_ns - p->began_ns);
    p->patience_ns = 0;
    p->n_tokens += n_tokens;
    bool too_slow = on && is_too_slow (p, most, elapsed);
    if (p->n_tokens < most && !too_slow)
        return;
    double ns = elapsed / (double) (p->n_tokens ? p->n_tokens : 1);
    if (on)
        judge (p, ns);
    else
        watch (p, ns, costs);
    begin_window (p, now_ns);
}
