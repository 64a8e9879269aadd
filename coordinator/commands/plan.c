/* woolly plan: how the model would be split, what memory each stage takes and what speed is predicted, without loading it.
 *
 * Over local workers no process is started: this machine is measured, or known. With --listen, workers join and say what they measured. With --simulate, machines, links and requests are
 * described in a file, and the scheduler's decisions are played through over them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "commands.h"
#include "coordinator/cluster_file.h"
#include "coordinator/flags.h"
#include "coordinator/plan_report.h"
#include "coordinator/policy.h"
#include "coordinator/scheduler.h"
#include "coordinator/session.h"
#include "coordinator/shapes.h"
#include "coordinator/text_out.h"
#include "engine/memory.h"

typedef struct flags {
    const char *model, *shape, *type, *simulate;
    bool json;
    wl_cluster_flags cluster;
} flags;

static void print_json (json_t *json)
{
    json_dumpf (json, stdout, JSON_COMPACT | JSON_REAL_PRECISION (9));
    putchar ('\n');
    json_decref (json);
}

/* -- a real cluster --------------------------------------------------------------------------------------------------------------------------------- */

static bool show_progress (void *context, const char *line)
{
    (void) context;
    wl_progress_show (line);
    return wl_interrupted ();
}

static bool plan_real (const flags *f, const wl_opened_model *opened, wl_error *err)
{
    enum { USUAL_CONTEXT = 4096 };
    wl_cluster_options options = f->cluster.options;
    uint32_t trained = opened->model->context_length;
    if (!wl_opened_model_fits (opened, options.context, err))
        return false;
    uint64_t context = options.context ? options.context : trained < USUAL_CONTEXT ? trained : USUAL_CONTEXT;
    wl_cluster_need need = {.gguf = opened->gguf,
                            .model = opened->model,
                            .n_pages = wl_scheduler_pages (context),
                            .max_rows = options.chunk > WL_POLICY_ROWS ? options.chunk : WL_POLICY_ROWS,
                            .max_logit_rows = 1,
                            .context = (uint32_t) context};
    options.plan_only = true;
    wl_interrupt_watch (NULL);
    wl_cluster *cluster = wl_cluster_start (&options, &need, show_progress, NULL, err);
    wl_progress_show (NULL);
    if (!cluster)
        return false;
    wl_cluster_planned planned = wl_cluster_plan (cluster);
    if (f->json)
        print_json (wl_plan_json (&planned, context));
    else
        wl_plan_print (&planned);
    wl_cluster_stop (&cluster);
    return true;
}

/* -- a described one -------------------------------------------------------------------------------------------------------------------------------- */

typedef struct outcome { /* of the requests of a mix */
    double wall_s, tok_s;
    uint64_t n_steps;
    double first_s[3], between_s[3], whole_s[3]; /* at 50, 90 and 99% */
    wl_sim_stage *stages;
} outcome;

static const double shares[3] = {0.5, 0.9, 0.99};

static int by_value (const void *a, const void *b)
{
    double x = *(const double *) a, y = *(const double *) b;
    return x < y ? -1 : x > y;
}

static void percentiles (double *values, size_t n, double out[3])
{
    qsort (values, n, sizeof *values, by_value);
    for (size_t i = 0; i < 3; i++)
        out[i] = n ? values[(size_t) ((double) (n - 1) * shares[i])] : 0;
}

static void summarize (const wl_sim_request *requests, size_t n, double *values, outcome *out)
{
    double tokens = 0;
    size_t many = 0;
    for (size_t i = 0; i < n; i++) {
        values[i] = requests[i].first_s - requests[i].arrival_s;
        tokens += requests[i].n_generated;
    }
    percentiles (values, n, out->first_s);
    for (size_t i = 0; i < n; i++)
        if (requests[i].n_generated > 1)
            values[many++] = (requests[i].done_s - requests[i].first_s) / (requests[i].n_generated - 1);
    percentiles (values, many, out->between_s);
    for (size_t i = 0; i < n; i++)
        values[i] = requests[i].done_s - requests[i].arrival_s;
    percentiles (values, n, out->whole_s);
    out->tok_s = out->wall_s > 0 ? tokens / out->wall_s : 0;
}

static bool run_mix (const flags *f, const wl_cluster_file *file, const wl_cluster_planned *planned, outcome *out,
                     wl_error *err)
{
    const wl_sim_options options = {.max_rows = planned->request->max_rows,
                                    .max_logit_rows = planned->request->max_logit_rows,
                                    .chunk = f->cluster.options.chunk,
                                    .n_pages = planned->request->n_pages};
    wl_sim_request *requests = wl_request_mix_new (&file->mix, err);
    double *values = wl_new (file->mix.count, sizeof *values, err);
    wl_simulator *simulator = wl_simulator_new (planned->request, planned->plan, err);
    out->stages = wl_new (planned->plan->n_stages, sizeof *out->stages, err);
    bool ok =
        requests && values && simulator && out->stages &&
        wl_simulate (simulator, &options, requests, file->mix.count, &out->wall_s, &out->n_steps, out->stages, err);
    if (ok)
        summarize (requests, file->mix.count, values, out);
    wl_simulator_free (&simulator);
    free (values);
    free (requests);
    return ok;
}

static void print_outcome (const wl_cluster_file *file, const wl_cluster_planned *planned, const outcome *o)
{
    const struct {
        const char *name;
        const double *at;
    } rows[] = {{"first token", o->first_s}, {"between tokens", o->between_s}, {"whole request", o->whole_s}};
    printf ("\nsimulated: %u requests of %u to %u tokens, %u to %u generated, %g a second, %u at once: %.1f s, %.1f "
            "tok/s generated, %llu steps\n",
            file->mix.count, file->mix.prompt[0], file->mix.prompt[1], file->mix.generated[0], file->mix.generated[1],
            file->mix.per_second, file->mix.slots, o->wall_s, o->tok_s, (unsigned long long) o->n_steps);
    printf ("%-16s %10s %10s %10s\n", "seconds", "50%", "90%", "99%");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        printf ("%-16s %10.3f %10.3f %10.3f\n", rows[i].name, rows[i].at[0], rows[i].at[1], rows[i].at[2]);
    double least = 1, most = 0;
    for (uint32_t i = 0; i < planned->plan->n_stages && o->wall_s > 0; i++) {
        double busy = o->stages[i].busy_s / o->wall_s;
        least = busy < least ? busy : least;
        most = busy > most ? busy : most;
    }
    printf ("stages were busy %.0f%% to %.0f%% of the time\n", least * 100, most * 100);
}

static json_t *outcome_json (const wl_cluster_planned *planned, const outcome *o)
{
    json_t *busy = json_array ();
    for (uint32_t i = 0; i < planned->plan->n_stages; i++)
        json_array_append_new (busy, json_real (o->wall_s > 0 ? o->stages[i].busy_s / o->wall_s : 0));
    return json_pack ("{s:f, s:f, s:I, s:[f,f,f], s:[f,f,f], s:[f,f,f], s:o}", "wall_s", o->wall_s, "generated_tok_s",
                      o->tok_s, "steps", (json_int_t) o->n_steps, "first_token_s", o->first_s[0], o->first_s[1],
                      o->first_s[2], "between_tokens_s", o->between_s[0], o->between_s[1], o->between_s[2], "request_s",
                      o->whole_s[0], o->whole_s[1], o->whole_s[2], "busy_fraction", busy);
}

/* KV for as many requests as are at once, each as long as the longest. */
static uint32_t pages_for (const flags *f, const wl_cluster_file *file, const wl_model *model)
{
    uint64_t longest = WL_PLAN_PROMPT + WL_PLAN_GENERATED, slots = WL_PLAN_STREAMS;
    if (file->mix.count) {
        longest = (uint64_t) file->mix.prompt[1] + file->mix.generated[1];
        slots = file->mix.slots;
    }
    longest = longest > model->context_length ? model->context_length : longest;
    uint64_t pages = f->cluster.options.context ? wl_scheduler_pages (f->cluster.options.context)
                                                : slots * wl_scheduler_pages (longest);
    return pages > UINT32_MAX ? UINT32_MAX : (uint32_t) pages;
}

static bool plan_described (const flags *f, const wl_opened_model *opened, wl_error *err)
{
    wl_cluster_file file;
    wl_plan plan = {0};
    wl_prediction prediction;
    outcome out = {0};
    wl_cost *cost = NULL;
    uint32_t chunk = f->cluster.options.chunk;
    if (!wl_cluster_file_read (f->simulate, &file, err))
        return false;
    wl_plan_request request = {.model = opened->model,
                               .objective = f->cluster.options.latency ? WL_LATENCY : WL_THROUGHPUT,
                               .layers = f->cluster.options.layers,
                               .n_pages = pages_for (f, &file, opened->model),
                               .kv = f->cluster.options.kv,
                               .max_rows = chunk > WL_POLICY_ROWS ? chunk : WL_POLICY_ROWS,
                               .max_logit_rows = file.mix.slots > WL_PLAN_STREAMS ? file.mix.slots : WL_PLAN_STREAMS,
                               .hop = f->cluster.options.hop,
                               .share_one_machine = file.input.n_machines == 1,
                               .machine_bytes = file.input.workers[0].memory_bytes};
    request.max_logit_rows = request.max_logit_rows < request.max_rows ? request.max_logit_rows : request.max_rows;
    request.chunk_rows = chunk ? chunk : request.max_rows;
    wl_plan_input_fill (&file.input, &request);
    for (uint32_t i = 0; f->cluster.options.use_all && i < file.input.n_workers; i++)
        file.input.workers[i].required = true;
    request.cost = cost = wl_cost_new (opened->model, err);
    const wl_cluster_planned planned = {&request, &plan, &file.input, &prediction};
    bool ok = cost && wl_plan_make (&request, &plan, err) && wl_predict (&request, &plan, chunk, &prediction, err) &&
              (file.mix.count == 0 || run_mix (f, &file, &planned, &out, err));
    if (ok && f->json) {
        json_t *json = wl_plan_json (&planned, (uint64_t) request.n_pages * WL_KV_PAGE);
        json_object_set_new (json, "simulated", file.mix.count ? outcome_json (&planned, &out) : json_true ());
        json_object_set_new (json, "name", wl_json_text (file.name, strlen (file.name)));
        print_json (json);
    } else if (ok) {
        printf ("%s (simulated)\n", file.name);
        wl_plan_print (&planned);
        if (file.mix.count)
            print_outcome (&file, &planned, &out);
    }
    free (out.stages);
    wl_plan_free (&plan);
    wl_cost_free (&cost);
    wl_cluster_file_free (&file);
    return ok;
}

/* -- the command -------------------------------------------------------------------------------------------------------------------------------------- */

static bool plan (const flags *f, wl_error *err)
{
    wl_opened_model opened = {0};
    char *made = NULL;
    bool ok = true;
    if (f->shape)
        ok = (made = wl_shape_temporary (f->shape, f->type, err)) != NULL;
    ok = ok && wl_opened_model_open (&opened, made ? made : f->model, &f->cluster.rope, false, err) &&
         (f->simulate ? plan_described (f, &opened, err) : plan_real (f, &opened, err));
    wl_opened_model_close (&opened);
    if (made)
        unlink (made);
    free (made);
    return ok;
}

int wl_command_plan (int argc, char **argv)
{
    flags f = {.type = "Q4_K_M"};
    wl_error err = {0};
    bool help;
    const wl_option own[] = {
        {'m', "model", WL_OPTION_TEXT, &f.model, "MODEL", "GGUF file", NULL},
        {0, "shape", WL_OPTION_TEXT, &f.shape, "NAME", "in place of a file: a model of this shape", NULL},
        {0, "type", WL_OPTION_TEXT, &f.type, "TYPE", "its file type (Q4_K_M)", NULL},
        {0, "simulate", WL_OPTION_TEXT, &f.simulate, "CLUSTER.json",
         "plan for machines described in a file, and play requests through", NULL},
        {0, "json", WL_OPTION_FLAG, &f.json, NULL, "print one JSON object", NULL},
    };
    const wl_option_table tables[] = {{own, sizeof own / sizeof own[0]}, wl_cluster_flags_init (&f.cluster)};
    if (!wl_options_parse (
            "plan (-m MODEL | --shape NAME) [--local N | --listen HOST:PORT | --simulate CLUSTER.json] [flags]", tables,
            2, argc, argv, NULL, &help, &err) ||
        help)
        goto done;
    if (!wl_cluster_flags_finish (&f.cluster, &err))
        goto done;
    if (f.model && f.shape)
        wl_fail (&err, WL_ERROR_USAGE, "-m and --shape both name a model: choose one");
    else if (f.simulate && (f.cluster.options.listen || f.cluster.options.local_given))
        wl_fail (&err, WL_ERROR_USAGE, "--simulate describes the workers: leave --local and --listen out");
    else
        plan (&f, &err);
done:
    return err.code == WL_OK ? 0 : wl_command_failed ("plan", &err);
}
