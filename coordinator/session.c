/* What run, score and bench have in common; see session.h. */
#include "session.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/kv_cache.h"
#include "engine/machine.h"
#include "engine/memory.h"
#include "plan_report.h"
#include "planner.h"

/* -- progress and Ctrl-C: the one place with process-wide state, since signals and the terminal are process-wide ------------------------------------ */

static volatile sig_atomic_t interrupts;
static _Atomic (wl_cluster *) interrupted_cluster; /* read by the handler */

static void on_interrupt (int signal_number)
{
    (void) signal_number;
    if (++interrupts > 1)
        _exit (130);
    wl_cluster *cluster = atomic_load (&interrupted_cluster);
    if (cluster)
        wl_cluster_interrupt (cluster);
}

void wl_interrupt_watch (wl_cluster *cluster)
{
    atomic_store (&interrupted_cluster, cluster);
    struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = SA_RESTART};
    sigaction (SIGINT, &action, NULL);
    sigaction (SIGTERM, &action, NULL);
}

bool wl_interrupted (void)
{
    return interrupts > 0;
}

void wl_progress_show (const char *line)
{
    if (!isatty (STDERR_FILENO))
        return;
    fprintf (stderr, "\r\033[K%s", line ? line : "");
    fflush (stderr);
}

static bool show_start (void *context, const char *line)
{
    (void) context;
    wl_progress_show (line);
    return wl_interrupted ();
}

/* -- model -------------------------------------------------------------------------------------------------------------------------------- */

bool wl_opened_model_open (wl_opened_model *opened, const char *path, const wl_rope_order *rope, bool wants_tokenizer,
                           wl_error *err)
{
    *opened = (wl_opened_model){0};
    if (!path)
        return wl_fail (err, WL_ERROR_USAGE, "which model? Name a GGUF file with -m MODEL");
    opened->gguf = wl_gguf_open (path, err);
    if (opened->gguf)
        opened->model = wl_model_new_scaled (opened->gguf, rope, err);
    if (opened->model && wants_tokenizer)
        opened->tokenizer = wl_tokenizer_new (opened->gguf, err);
    if (opened->model && opened->tokenizer && wl_tokenizer_n_tokens (opened->tokenizer) > opened->model->n_vocab)
        wl_fail (err, WL_ERROR_INPUT,
                 "%s: the tokenizer has %zu tokens and the embedding only %u rows: the file is damaged", path,
                 wl_tokenizer_n_tokens (opened->tokenizer), opened->model->n_vocab);
    if (err->code == WL_OK)
        return true;
    wl_opened_model_close (opened);
    return false;
}

bool wl_opened_model_fits (const wl_opened_model *opened, uint32_t context, wl_error *err)
{
    uint32_t trained = opened->model->context_length;
    if (context <= trained)
        return true;
    return wl_fail (err, WL_ERROR_USAGE,
                    "--ctx %u is more than the %u positions this model was trained for: choose at most %u, or extend "
                    "them with --rope-scaling yarn",
                    context, trained, trained);
}

void wl_opened_model_close (wl_opened_model *opened)
{
    wl_tokenizer_free (&opened->tokenizer);
    wl_model_free (&opened->model);
    wl_gguf_free (&opened->gguf);
}

/* -- session ---------------------------------------------------------------------------------------------------------------------------------- */

/* What --insecure allows is said, each time. */
static void warn_if_plain (const wl_cluster_options *options)
{
    wl_error ignored = {0}; /* wl_cluster_start finds what is wrong with the address */
    bool loopback = true;
    char *address =
        options->listen && options->insecure ? wl_link_address (options->listen, &loopback, &ignored) : NULL;
    if (address && !loopback)
        fprintf (stderr, "woolly: warning: links on %s are not encrypted: use a network that you trust\n", address);
    free (address);
}

/* Whether activations are rounded on their way: only where there is a way. */
static bool hops_round (const wl_cluster *cluster)
{
    return wl_cluster_plan (cluster).request->hop != WL_HOP_F32 && wl_cluster_n_stages (cluster) > 1;
}

static void tell_of_rounding (const wl_cluster *cluster)
{
    if (hops_round (cluster))
        fprintf (
            stderr,
            "woolly: note: --hop %s rounds activations between stages: answers may differ from those of --hop f32, "
            "and change with the split into stages (--layers fixes it)\n",
            wl_hop_name (wl_cluster_plan (cluster).request->hop));
}

static bool show_draft (void *context, uint64_t done_bytes, uint64_t total_bytes)
{
    (void) context;
    char line[80];
    snprintf (line, sizeof line, "loading the draft model: %u%%",
              total_bytes ? (unsigned) (100 * done_bytes / total_bytes) : 100);
    wl_progress_show (line);
    return !wl_interrupted ();
}

static void wake_scheduler (void *cluster)
{
    wl_cluster_interrupt (cluster);
}

/* Before the cluster, whose workers then see how much memory is left. */
static bool open_draft_model (wl_session *s, const wl_opened_model *opened, const wl_cluster_options *options,
                              const char *path, const wl_cluster_need *need, wl_error *err)
{
    wl_tokenizer *own = opened->tokenizer ? NULL : wl_tokenizer_new (opened->gguf, err);
    wl_draft_model_options draft = {.path = path,
                                    .n_threads = options->draft_threads,
                                    .n_pages = need->n_pages,
                                    .context = need->context,
                                    .isa = options->isa,
                                    .tokenizer = own ? own : opened->tokenizer,
                                    .target = opened->model};
    if (draft.tokenizer)
        s->draft = wl_draft_model_open (&draft, show_draft, NULL, err);
    wl_progress_show (NULL);
    wl_tokenizer_free (&own);
    if (!s->draft)
        return false;
    wl_draft_facts facts = wl_draft_model_facts (s->draft);
    if (!isatty (STDERR_FILENO))
        return true;
    fprintf (stderr, "woolly: draft model %s: %llu MiB of weights, at most %llu MiB of KV cache, %u thread%s\n", path,
             (unsigned long long) (facts.weight_bytes >> 20), (unsigned long long) (facts.kv_bytes >> 20),
             facts.n_threads, facts.n_threads == 1 ? "" : "s");
    return true;
}

bool wl_session_open (wl_session *s, const wl_opened_model *opened, const wl_cluster_options *options, uint64_t context,
                      uint32_t max_logit_rows, wl_error *err)
{
    *s = (wl_session){0};
    uint64_t positions = options->context ? options->context : context;
    if (!wl_opened_model_fits (opened, options->context, err))
        return false;
    double start = wl_now_s ();
    uint32_t rows = wl_scheduler_default_rows ();
    wl_scheduler_options scheduling = {.n_pages = wl_scheduler_pages (positions),
                                       .max_rows = options->chunk > rows ? options->chunk : rows,
                                       .chunk = options->chunk,
                                       .no_prefix_cache = options->no_prefix_cache,
                                       .trace = options->trace};
    const char *draft;
    if (!wl_speculation_parse (options->speculation, &scheduling.speculation, &draft, err))
        return false;
    uint32_t logit_rows = max_logit_rows + wl_scheduler_guess_rows (scheduling.speculation);
    scheduling.max_logit_rows = logit_rows < scheduling.max_rows ? logit_rows : scheduling.max_rows;
    wl_cluster_need need = {.gguf = opened->gguf,
                            .model = opened->model,
                            .n_pages = scheduling.n_pages,
                            .max_rows = scheduling.max_rows,
                            .max_logit_rows = scheduling.max_logit_rows,
                            .context = options->longest         ? options->longest
                                       : positions < UINT32_MAX ? (uint32_t) positions
                                                                : UINT32_MAX};
    warn_if_plain (options);
    wl_interrupt_watch (NULL);
    if (!draft || open_draft_model (s, opened, options, draft, &need, err))
        s->cluster = wl_cluster_start (options, &need, show_start, NULL, err);
    wl_progress_show (NULL);
    scheduling.draft = s->draft;
    scheduling.draft_always = options->draft_always;
    if (s->cluster && (!draft || wl_draft_model_start (s->draft, wake_scheduler, s->cluster, err)))
        s->scheduler = wl_scheduler_new (s->cluster, &scheduling, err);
    if (s->scheduler)
        s->busy_before = wl_new (wl_cluster_n_stages (s->cluster), sizeof *s->busy_before, err);
    if (!s->busy_before) {
        wl_session_close (s);
        return false;
    }
    wl_interrupt_watch (s->cluster);
    tell_of_rounding (s->cluster);
    s->load_s = wl_now_s () - start;
    return true;
}

void wl_session_close (wl_session *s)
{
    atomic_store (&interrupted_cluster, NULL);
    wl_scheduler_free (&s->scheduler);
    wl_draft_model_close (&s->draft); /* its thread wakes the cluster's */
    if (s->cluster)
        wl_cluster_stop (&s->cluster);
    free (s->busy_before);
    s->busy_before = NULL;
}

static json_t *describe_draft (const wl_session *s)
{
    wl_draft_use use = wl_scheduler_draft_use (s->scheduler);
    wl_draft_facts facts = wl_draft_model_facts (s->draft);
    return json_pack ("{s:s, s:I, s:I, s:I, s:I, s:b, s:i, s:i, s:f, s:f, s:i, s:I, s:I}", "model", facts.path,
                      "drafted", (json_int_t) use.drafted, "accepted", (json_int_t) use.accepted, "judged",
                      (json_int_t) facts.n_judged, "right", (json_int_t) facts.n_right, "on", (int) use.is_on, "tries",
                      (int) use.n_tries, "failed", (int) use.n_failed, "guess_s", facts.guess_ns * 1e-9, "read_s",
                      facts.read_ns * 1e-9, "threads", (int) facts.n_threads, "weight_bytes",
                      (json_int_t) facts.weight_bytes, "kv_bytes", (json_int_t) facts.kv_bytes);
}

json_t *wl_session_speculation (const wl_session *s)
{
    uint64_t drafted, accepted;
    wl_scheduler_speculation (s->scheduler, &drafted, &accepted);
    json_t *json = json_pack ("{s:I, s:I}", "drafted", (json_int_t) drafted, "accepted", (json_int_t) accepted);
    if (s->draft)
        json_object_set_new (json, "draft", describe_draft (s));
    return json;
}

json_t *wl_session_hop (wl_session *s)
{
    const wl_plan_request *request = wl_cluster_plan (s->cluster).request;
    return json_pack ("{s:s, s:b, s:I}", "format", wl_hop_name (request->hop), "rounds", (int) hops_round (s->cluster),
                      "row_bytes", (json_int_t) wl_hop_row_bytes (request->hop, request->model->d_model));
}

json_t *wl_session_kv (wl_session *s)
{
    const wl_plan_request *request = wl_cluster_plan (s->cluster).request;
    return json_pack ("{s:s, s:I}", "type", wl_kv_type_name (request->kv), "position_bytes",
                      (json_int_t) wl_kv_position_bytes (request->kv, request->model->n_layers,
                                                         request->model->n_kv_heads, request->model->head_dim));
}

static json_t *seconds_or_null (uint64_t n, double ns)
{
    return n ? json_real (ns * 1e-9) : json_null ();
}

json_t *wl_session_hops (wl_session *s)
{
    const wl_plan_request *request = wl_cluster_plan (s->cluster).request;
    uint64_t row_bytes = wl_hop_row_bytes (request->hop, request->model->d_model);
    uint32_t n_stages = wl_cluster_n_stages (s->cluster);
    json_t *hops = json_array ();
    for (uint32_t i = 0; i <= n_stages; i++) {
        wl_hop_time hop = wl_step_times_hop (wl_scheduler_times (s->scheduler), i);
        uint64_t bytes = i > 0 && i < n_stages ? hop.n_rows * row_bytes : 0; /* the others carry tokens */
        json_array_append_new (
            hops,
            json_pack ("{s:o, s:I, s:I, s:I, s:o, s:o}", "to", i < n_stages ? json_integer (i) : json_null (), "steps",
                       (json_int_t) hop.n_steps, "bytes", (json_int_t) bytes, "timed", (json_int_t) hop.n_timed,
                       "mean_s",
                       seconds_or_null (hop.n_timed, (double) hop.sum_ns / (double) (hop.n_timed ? hop.n_timed : 1)),
                       "least_s", seconds_or_null (hop.n_timed, (double) hop.least_ns)));
    }
    return hops;
}

void wl_session_begin (wl_session *s)
{
    for (uint32_t i = 0; i < wl_cluster_n_stages (s->cluster); i++) {
        wl_cluster_stage stage;
        wl_cluster_stage_info (s->cluster, i, &stage);
        s->busy_before[i] = stage.busy_ns;
    }
    wl_step_times_reset (wl_scheduler_times (s->scheduler));
    s->began_s = wl_now_s ();
}

static json_t *time_of (wl_session *s, uint32_t stage)
{
    wl_stage_time time = wl_step_times_of (wl_scheduler_times (s->scheduler), stage);
    return json_pack ("{s:f, s:f, s:f, s:f}", "compute_s", (double) time.compute * 1e-9, "hop_s",
                      (double) time.hop * 1e-9, "starved_s", (double) time.starved * 1e-9, "blocked_s",
                      (double) time.blocked * 1e-9);
}

json_t *wl_session_times (wl_session *s)
{
    json_t *times = json_array ();
    for (uint32_t i = 0; i < wl_cluster_n_stages (s->cluster); i++)
        json_array_append_new (times, time_of (s, i));
    return times;
}

json_t *wl_session_stages (wl_session *s)
{
    json_t *stages = json_array ();
    double elapsed_ns = (wl_now_s () - s->began_s) * 1e9;
    for (uint32_t i = 0; i < wl_cluster_n_stages (s->cluster); i++) {
        wl_cluster_stage stage;
        wl_cluster_stage_info (s->cluster, i, &stage);
        double busy = elapsed_ns > 0 ? (double) (stage.busy_ns - s->busy_before[i]) / elapsed_ns : 0;
        json_t *json = json_pack (
            "{s:s, s:[i,i], s:I, s:I, s:f, s:i, s:s, s:s, s:I}", "name", stage.name, "layers", (int) stage.first_layer,
            (int) stage.last_layer, "weight_bytes", (json_int_t) stage.weight_bytes, "rss_bytes",
            (json_int_t) stage.rss_bytes, "busy_fraction", busy > 1 ? 1.0 : busy, "threads", (int) stage.n_threads,
            "isa", stage.isa, "weights", stage.weights_from, "shipped_bytes", (json_int_t) stage.shipped_bytes);
        json_object_set_new (json, "time", time_of (s, i));
        json_object_set_new (json, "from_workers_bytes", json_integer ((json_int_t) stage.from_workers_bytes));
        json_object_set_new (json, "shipping_s", json_real ((double) stage.shipping_ns * 1e-9));
        json_object_set_new (json, "kept_bytes", json_integer ((json_int_t) stage.kept_bytes));
        json_object_set_new (json, "mapped_bytes", json_integer ((json_int_t) stage.mapped_bytes));
        json_array_append_new (stages, json);
    }
    return stages;
}

json_t *wl_session_prefixes (const wl_session *s)
{
    wl_prefix_counts counts = wl_scheduler_prefixes (s->scheduler);
    return json_pack ("{s:I, s:I, s:I, s:I, s:i, s:i, s:i, s:I}", "prompt_tokens", (json_int_t) counts.prompt_tokens,
                      "cached_tokens", (json_int_t) counts.cached_tokens, "copied_pages",
                      (json_int_t) counts.copied_pages, "evicted_pages", (json_int_t) counts.evicted_pages,
                      "free_pages", (int) counts.free_pages, "kept_pages", (int) counts.kept_pages, "held_pages",
                      (int) counts.held_pages, "preempted", (json_int_t) wl_scheduler_preempted (s->scheduler));
}

void wl_session_report (wl_session *s, json_t *report)
{
    wl_cluster_planned planned = wl_cluster_plan (s->cluster);
    json_object_set_new (report, "stages", wl_session_stages (s));
    json_object_set_new (report, "speculation", wl_session_speculation (s));
    json_object_set_new (report, "recoveries", json_integer (0));
    json_object_set_new (report, "predicted", wl_plan_predicted_json (&planned));
    json_object_set_new (report, "hop", wl_session_hop (s));
    json_object_set_new (report, "hops", wl_session_hops (s));
    json_object_set_new (report, "kv", wl_session_kv (s));
    json_object_set_new (report, "prefix_cache", wl_session_prefixes (s));
}
