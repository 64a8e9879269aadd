/* How layers are split over workers; see planner.h.
 *
 * The smallest possible size of the largest stage is found by bisection: for a given limit, giving every worker in turn as many layers as the limit and
 * its memory allow, while leaving one for each worker still to come, succeeds exactly when any split succeeds. */
#include "planner.h"

#include <stdlib.h>
#include <string.h>

#include "engine/kv_cache.h"
#include "engine/memory.h"
#include "engine/stage.h"

static wl_stage_options stage_options (const wl_plan_request *r, uint32_t first, uint32_t last)
{
    return (wl_stage_options){.first_layer = first, .last_layer = last, .n_pages = r->n_pages, .max_rows = r->max_rows};
}

static uint64_t weight_bytes (const wl_plan_request *r, uint32_t first, uint32_t last)
{
    const wl_model *m = r->model;
    uint64_t bytes = first == 0 ? wl_model_embedding_bytes (m) : 0;
    for (uint32_t layer = first; layer <= last; layer++)
        bytes += wl_model_layer_bytes (m, layer);
    return last + 1 == m->n_layers ? bytes + wl_model_head_bytes (m) : bytes;
}

/* All that a stage needs: what wl_stage_new will allocate, and the logits of one step. */
static uint64_t stage_bytes (const wl_plan_request *r, uint32_t first, uint32_t last)
{
    wl_stage_options options = stage_options (r, first, last);
    uint64_t bytes = wl_stage_memory_needed (r->model, &options);
    if (last + 1 == r->model->n_layers)
        bytes += (uint64_t) r->max_logit_rows * wl_stage_logit_stride (r->model) * sizeof (float);
    return bytes;
}

static void describe (const wl_plan_request *r, uint32_t worker, uint32_t first, uint32_t last, wl_plan_stage *out)
{
    const wl_model *m = r->model;
    out->worker = worker;
    out->first_layer = first;
    out->last_layer = last;
    out->weight_bytes = weight_bytes (r, first, last);
    out->kv_bytes = r->n_pages * wl_kv_page_bytes (last - first + 1, m->n_kv_heads, m->head_dim);
    uint64_t all = stage_bytes (r, first, last);
    out->work_bytes = all > out->weight_bytes + out->kv_bytes ? all - out->weight_bytes - out->kv_bytes : 0;
}

/* -- a split by hand ------------------------------------------------------------------------------------------------------------------ */

static bool parse_layers (const wl_plan_request *r, wl_plan_stage *stages, uint32_t *n_stages, wl_error *err)
{
    const char *text = r->layers;
    uint32_t next = 0, n_layers = r->model->n_layers, n = 0;
    for (const char *at = text; *at;) {
        char *end;
        if (*at < '0' || *at > '9')
            return wl_fail (err, WL_ERROR_USAGE, "--layers \"%s\": expected ranges such as 0-19,20-39", text);
        unsigned long first = strtoul (at, &end, 10), last = first;
        at = end;
        if (*at == '-') {
            if (at[1] < '0' || at[1] > '9')
                return wl_fail (err, WL_ERROR_USAGE, "--layers \"%s\": expected ranges such as 0-19,20-39", text);
            last = strtoul (at + 1, &end, 10);
            at = end;
        }
        if (*at == ',' && at[1])
            at++;
        else if (*at)
            return wl_fail (err, WL_ERROR_USAGE, "--layers \"%s\": expected ranges such as 0-19,20-39", text);
        if (first != next)
            return wl_fail (err, WL_ERROR_USAGE, "--layers \"%s\": layer %u is %s", text,
                            first > next ? next : (uint32_t) first, first > next ? "in no range" : "in two ranges");
        if (last < first || last >= n_layers)
            return wl_fail (err, WL_ERROR_USAGE,
                            "--layers \"%s\": the range %lu-%lu is not within the model's layers 0-%u", text, first,
                            last, n_layers - 1);
        if (n == r->n_workers)
            return wl_fail (err, WL_ERROR_USAGE, "--layers \"%s\": more ranges than the %u workers", text,
                            r->n_workers);
        describe (r, n, (uint32_t) first, (uint32_t) last, &stages[n]);
        n++;
        next = (uint32_t) last + 1;
    }
    if (next != n_layers)
        return wl_fail (err, WL_ERROR_USAGE, "--layers \"%s\": layers %u-%u are in no range", text, next, n_layers - 1);
    if (n != r->n_workers)
        return wl_fail (err, WL_ERROR_USAGE, "--layers \"%s\": %u ranges for %u workers", text, n, r->n_workers);
    *n_stages = n;
    return true;
}

/* -- equal bytes -------------------------------------------------------------------------------------------------------------------------- */

/* Splits so that no stage has more than `limit` bytes of weights; with `use_memory`, nor more of everything than its worker has. */
static bool split_within (const wl_plan_request *r, uint64_t limit, bool use_memory, wl_plan_stage *stages)
{
    uint32_t n_layers = r->model->n_layers, first = 0;
    for (uint32_t w = 0; w < r->n_workers; w++) {
        uint32_t left_for_others = r->n_workers - w - 1, end = first; /* [first, end) is taken */
        while (end < n_layers - left_for_others && weight_bytes (r, first, end) <= limit &&
               (!use_memory || stage_bytes (r, first, end) <= r->workers[w].memory_bytes))
            end++;
        if (end == first)
            return false;
        stages[w].worker = w;
        stages[w].first_layer = first;
        stages[w].last_layer = end - 1;
        first = end;
    }
    return first == n_layers;
}

static bool split_evenly (const wl_plan_request *r, bool use_memory, wl_plan_stage *stages)
{
    uint64_t low = 0, high = weight_bytes (r, 0, r->model->n_layers - 1);
    if (!split_within (r, high, use_memory, stages))
        return false;
    while (low < high) { /* invariant: `high` succeeds, everything below `low` fails */
        uint64_t middle = low + (high - low) / 2;
        if (split_within (r, middle, use_memory, stages))
            high = middle;
        else
            low = middle + 1;
    }
    return split_within (r, high, use_memory, stages);
}

/* -- does it fit? -------------------------------------------------------------------------------------------------------------------------- */

static bool check_memory (const wl_plan_request *r, const wl_plan_stage *stages, uint32_t n, wl_error *err)
{
    const double mb = 1e6;
    uint64_t total = 0;
    for (uint32_t i = 0; i < n; i++) {
        const wl_plan_stage *s = &stages[i];
        const wl_plan_worker *w = &r->workers[s->worker];
        uint64_t need = s->weight_bytes + s->kv_bytes + s->work_bytes;
        total += need;
        if (need > w->memory_bytes)
            return wl_fail (err, WL_ERROR_CLUSTER,
                            "the model does not fit: worker %s would need %.1f MB for layers %u-%u (weights %.1f, KV "
                            "%.1f, work %.1f) and "
                            "has %.1f MB: add workers or memory, or choose a smaller --ctx or model",
                            w->name, (double) need / mb, s->first_layer, s->last_layer, (double) s->weight_bytes / mb,
                            (double) s->kv_bytes / mb, (double) s->work_bytes / mb, (double) w->memory_bytes / mb);
    }
    if (r->share_one_machine && total > r->machine_bytes)
        return wl_fail (err, WL_ERROR_CLUSTER,
                        "the model does not fit: its %u stages need %.1f MB together and this machine has %.1f MB "
                        "left: add a machine, or "
                        "choose a smaller --ctx or model",
                        n, (double) total / mb, (double) r->machine_bytes / mb);
    return true;
}

bool wl_plan_split (const wl_plan_request *r, wl_plan_stage *stages, uint32_t *n_stages, wl_error *err)
{
    uint32_t n_layers = r->model->n_layers;
    if (r->n_workers == 0)
        return wl_fail (err, WL_ERROR_CLUSTER, "there are no workers to split the model over");
    if (r->n_workers > n_layers)
        return wl_fail (err, WL_ERROR_USAGE,
                        "%u workers for a model of %u layers: a stage needs at least one layer, so use at most %u",
                        r->n_workers, n_layers, n_layers);
    if (r->layers) {
        if (!parse_layers (r, stages, n_stages, err))
            return false;
    } else {
        /* Where no split respects every worker's memory, the even one gives the error its figures. */
        if (!split_evenly (r, true, stages))
            split_evenly (r, false, stages);
        *n_stages = r->n_workers;
        for (uint32_t i = 0; i < *n_stages; i++)
            describe (r, i, stages[i].first_layer, stages[i].last_layer, &stages[i]);
    }
    return check_memory (r, stages, *n_stages, err);
}
