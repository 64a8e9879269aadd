/* woolly plan: how the model would be split over local workers, and what memory each stage would take, without running. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "commands.h"
#include "coordinator/flags.h"
#include "coordinator/planner.h"
#include "coordinator/scheduler.h"
#include "coordinator/session.h"
#include "coordinator/text_out.h"
#include "engine/memory.h"

typedef struct named_worker {
    char name[32];
} named_worker;

static void print_text (const wl_opened_model *opened, const wl_plan_stage *stages, uint32_t n,
                        const wl_plan_worker *workers)
{
    printf ("%s: %u layers over %u worker%s\n\n", opened->model->name, opened->model->n_layers, n, n == 1 ? "" : "s");
    printf ("%-12s %-10s %12s %12s %12s\n", "worker", "layers", "weights MB", "KV MB", "work MB");
    for (uint32_t i = 0; i < n; i++) {
        char layers[32];
        snprintf (layers, sizeof layers, "%u-%u", stages[i].first_layer, stages[i].last_layer);
        printf ("%-12s %-10s %12.1f %12.1f %12.1f\n", workers[stages[i].worker].name, layers,
                (double) stages[i].weight_bytes / 1e6, (double) stages[i].kv_bytes / 1e6,
                (double) stages[i].work_bytes / 1e6);
    }
}

static void print_json (const wl_opened_model *opened, const wl_plan_stage *stages, uint32_t n,
                        const wl_plan_worker *workers, uint64_t context)
{
    json_t *array = json_array ();
    for (uint32_t i = 0; i < n; i++)
        json_array_append_new (
            array, json_pack ("{s:s, s:[i,i], s:I, s:I, s:I}", "name", workers[stages[i].worker].name, "layers",
                              (int) stages[i].first_layer, (int) stages[i].last_layer, "weight_bytes",
                              (json_int_t) stages[i].weight_bytes, "kv_bytes", (json_int_t) stages[i].kv_bytes,
                              "work_bytes", (json_int_t) stages[i].work_bytes));
    json_t *json = json_pack ("{s:o, s:s, s:i, s:I, s:o}", "model",
                              wl_json_text (opened->model->name, strlen (opened->model->name)), "architecture",
                              opened->model->architecture, "n_layers", (int) opened->model->n_layers, "context",
                              (json_int_t) context, "stages", array);
    json_dumpf (json, stdout, JSON_COMPACT);
    putchar ('\n');
    json_decref (json);
}

static bool plan_local (const wl_cluster_options *options, const wl_opened_model *opened, bool as_json, wl_error *err)
{
    uint32_t n = options->n_local, n_stages;
    uint64_t memory = wl_memory_available ();
    uint64_t context = options->context                       ? options->context
                       : opened->model->context_length < 4096 ? opened->model->context_length
                                                              : 4096;
    wl_plan_stage *stages = wl_new (n, sizeof *stages, err);
    wl_plan_worker *workers = wl_new (n, sizeof *workers, err);
    named_worker *names = wl_new (n, sizeof *names, err);
    bool ok = false;
    if (!stages || !workers || !names)
        goto done;
    for (uint32_t i = 0; i < n; i++) {
        snprintf (names[i].name, sizeof names[i].name, "local-%u", i + 1);
        workers[i] = (wl_plan_worker){names[i].name, memory};
    }
    wl_plan_request request = {.model = opened->model,
                               .workers = workers,
                               .n_workers = n,
                               .layers = options->layers,
                               .n_pages = wl_scheduler_pages (context),
                               .max_rows = wl_scheduler_default_rows (),
                               .max_logit_rows = 1,
                               .share_one_machine = true,
                               .machine_bytes = memory};
    if (!wl_plan_split (&request, stages, &n_stages, err))
        goto done;
    if (as_json)
        print_json (opened, stages, n_stages, workers, context);
    else
        print_text (opened, stages, n_stages, workers);
    ok = true;
done:
    free (stages);
    free (workers);
    free (names);
    return ok;
}

int wl_command_plan (int argc, char **argv)
{
    const char *path = NULL;
    bool as_json = false, help;
    wl_cluster_flags cluster;
    wl_opened_model opened = {0};
    wl_error err = {0};
    const wl_option own[] = {
        {'m', "model", WL_OPTION_TEXT, &path, "MODEL", "GGUF file", NULL},
        {0, "json", WL_OPTION_FLAG, &as_json, NULL, "print one JSON object", NULL},
    };
    const wl_option_table tables[] = {{own, sizeof own / sizeof own[0]}, wl_cluster_flags_init (&cluster)};
    if (!wl_options_parse ("plan -m MODEL [--local N] [flags]", tables, 2, argc, argv, NULL, &help, &err) || help)
        goto done;
    if (!wl_cluster_flags_finish (&cluster, &err))
        goto done;
    if (cluster.options.listen)
        wl_fail (&err, WL_ERROR_USAGE, "plan shows local workers only: leave --listen out and give --local N");
    else if (wl_opened_model_open (&opened, path, false, &err))
        plan_local (&cluster.options, &opened, as_json, &err);
done:
    wl_opened_model_close (&opened);
    return err.code == WL_OK ? 0 : wl_command_failed ("plan", &err);
}
