/* woolly bench: prefill, decode and several streams over the real pipeline.
 *
 * Tests are named as their users do: pp512 reads a prompt of 512 tokens and draws one; tg64 generates 64 tokens from a prompt of one; b8tg64 does so for eight
 * streams at once and counts the tokens of all. Each test runs once unmeasured and then -r times; the median stands beside the slowest and fastest run.
 * -p and -n may be lists too. Beside each rate stands what it is of the machine's limits (roofline.h), which are measured before and after the tests.
 * Tokens are drawn greedily and generation does not end early, so every run does the same work. Speculation is off unless --spec asks for it. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "commands.h"
#include "coordinator/flags.h"
#include "coordinator/plan_report.h"
#include "coordinator/plot.h"
#include "coordinator/roofline.h"
#include "coordinator/session.h"
#include "coordinator/shapes.h"
#include "coordinator/text_out.h"
#include "engine/kernels/kernels.h"
#include "engine/machine.h"
#include "engine/memory.h"

enum {
    MAX_TESTS = 64,
    MAX_LIST = 32,
    MAX_TOKENS = 1 << 24,
    MAX_STREAMS = 256,
    MAX_RUNS = 1000,
    NAME_LENGTH = 32,
    PATH_LENGTH = 1024
};

typedef struct test {
    char name[NAME_LENGTH];
    uint32_t n_streams, n_prompt, n_generated;
    bool counts_prompt; /* the rate is of prompt tokens, not of generated ones */
} test;

typedef struct result {
    const test *test;
    double median, slowest, fastest; /* tok/s */
    wl_token_cost cost;
    json_t *predicted;  /* what the plan said before; owned */
    json_t *times;      /* by cause, of each stage, over the measured runs; owned */
    json_t *hop, *hops; /* what carried activations, and how quickly; owned */
    json_t *kv;         /* what the KV cache held; owned */
} result;

typedef struct flags {
    const char *model, *shape, *type, *prompts, *lengths, *batches, *format, *plot;
    uint32_t n_runs;
    wl_cluster_flags cluster;
} flags;

/* -- what to run -------------------------------------------------------------------------------------------------------------------------------- */

/* "1,2,4" as numbers from `least` to `most`. */
static bool parse_list (const char *flag, const char *text, uint32_t least, uint32_t most, uint32_t *out, size_t *n,
                        wl_error *err)
{
    const char *at = text;
    *n = 0;
    do {
        char *end = NULL;
        unsigned long value = *at >= '0' && *at <= '9' ? strtoul (at, &end, 10) : ULONG_MAX;
        if (value < least || value > most || !end || (*end && (*end != ',' || !end[1])))
            return wl_fail (err, WL_ERROR_USAGE, "%s \"%s\": expected numbers from %u to %u, such as 1,2,4", flag, text,
                            least, most);
        if (*n == MAX_LIST)
            return wl_fail (err, WL_ERROR_USAGE, "%s \"%s\": more than %d numbers", flag, text, MAX_LIST);
        out[(*n)++] = (uint32_t) value;
        at = *end ? end + 1 : end;
    } while (*at);
    return true;
}

static bool add_test (test *tests, size_t *n, const test *t, wl_error *err)
{
    if (*n == MAX_TESTS)
        return wl_fail (err, WL_ERROR_USAGE, "-p, -n and -b ask for more than %d tests", MAX_TESTS);
    tests[(*n)++] = *t;
    return true;
}

static bool plan_tests (const flags *f, test *tests, size_t *n_tests, wl_error *err)
{
    uint32_t prompts[MAX_LIST], lengths[MAX_LIST], batches[MAX_LIST];
    size_t n_prompts, n_lengths, n_batches;
    *n_tests = 0;
    if (!parse_list ("-p", f->prompts, 0, MAX_TOKENS, prompts, &n_prompts, err) ||
        !parse_list ("-n", f->lengths, 0, MAX_TOKENS, lengths, &n_lengths, err) ||
        !parse_list ("-b", f->batches, 1, MAX_STREAMS, batches, &n_batches, err))
        return false;
    for (size_t i = 0; i < n_prompts; i++) {
        test t = {.n_streams = 1, .n_prompt = prompts[i], .n_generated = 1, .counts_prompt = true};
        snprintf (t.name, NAME_LENGTH, "pp%u", prompts[i]);
        if (prompts[i] && !add_test (tests, n_tests, &t, err))
            return false;
    }
    for (size_t i = 0; i < n_lengths; i++)
        for (size_t j = 0; lengths[i] && j < n_batches; j++) {
            test t = {.n_streams = batches[j], .n_prompt = 1, .n_generated = lengths[i]};
            if (batches[j] == 1)
                snprintf (t.name, NAME_LENGTH, "tg%u", lengths[i]);
            else
                snprintf (t.name, NAME_LENGTH, "b%utg%u", batches[j], lengths[i]);
            if (!add_test (tests, n_tests, &t, err))
                return false;
        }
    return *n_tests > 0 || wl_fail (err, WL_ERROR_USAGE, "nothing to measure: give -p or -n more than 0");
}

/* -- running ------------------------------------------------------------------------------------------------------------------------------------ */

static bool on_token (void *context, const wl_sample *sample)
{
    (void) context;
    (void) sample;
    return !wl_interrupted ();
}

/* Seconds of one run. */
static bool run_once (wl_session *session, const wl_opened_model *opened, const test *t, double *seconds, wl_error *err)
{
    int32_t *prompt = wl_new (t->n_prompt, sizeof *prompt, err);
    bool ok = false;
    if (!prompt)
        return false;
    double start = wl_now_s ();
    for (uint32_t stream = 0; stream < t->n_streams; stream++) {
        /* Any tokens will do; different ones for each stream, the same in every run. */
        for (uint32_t i = 0; i < t->n_prompt; i++)
            prompt[i] =
                (int32_t) ((uint64_t) (stream + 1) * 7919 % opened->model->n_vocab * (i + 1) % opened->model->n_vocab);
        wl_request_options request = {.prompt = prompt,
                                      .n_prompt = t->n_prompt,
                                      .max_tokens = t->n_generated,
                                      .sampling = {.top_p = 1},
                                      .on_token = on_token};
        if (!wl_scheduler_add (session->scheduler, &request, err))
            goto done;
    }
    while (wl_scheduler_active (session->scheduler))
        if (!wl_scheduler_turn (session->scheduler, -1, err))
            goto done;
    *seconds = wl_now_s () - start;
    ok = wl_interrupted () ? wl_fail (err, WL_ERROR_CLUSTER, "interrupted") : true;
done:
    free (prompt);
    return ok;
}

static int by_value (const void *a, const void *b)
{
    double x = *(const double *) a, y = *(const double *) b;
    return x < y ? -1 : x > y;
}

static bool measure (wl_session *session, const wl_opened_model *opened, const test *t, uint32_t n_runs, uint32_t chunk,
                     result *out, wl_error *err)
{
    double *rates = wl_new (n_runs, sizeof *rates, err), seconds;
    bool ok = rates && run_once (session, opened, t, &seconds, err);
    double tokens = (double) t->n_streams * (t->counts_prompt ? t->n_prompt : t->n_generated);
    wl_step_times_reset (wl_scheduler_times (session->scheduler));
    for (uint32_t i = 0; ok && i < n_runs; i++) {
        char line[80];
        snprintf (line, sizeof line, "%.31s: run %u of %u", t->name, i + 1, n_runs);
        wl_progress_show (line);
        ok = run_once (session, opened, t, &seconds, err);
        rates[i] = tokens / seconds;
    }
    wl_progress_show (NULL);
    if (ok) {
        qsort (rates, n_runs, sizeof *rates, by_value);
        double median = n_runs % 2 ? rates[n_runs / 2] : (rates[n_runs / 2 - 1] + rates[n_runs / 2]) / 2;
        /* decoding, a step is half way through its positions on average */
        wl_token_cost cost = wl_token_cost_of (opened->model, wl_cluster_plan (session->cluster).request->kv,
                                               t->n_streams, t->counts_prompt ? t->n_prompt : 1,
                                               t->counts_prompt ? 0 : t->n_prompt + t->n_generated / 2);
        *out = (result){.test = t,
                        .median = median,
                        .slowest = rates[0],
                        .fastest = rates[n_runs - 1],
                        .cost = cost,
                        .times = wl_session_times (session),
                        .hop = wl_session_hop (session),
                        .hops = wl_session_hops (session),
                        .kv = wl_session_kv (session)};
        wl_cluster_planned planned = wl_cluster_plan (session->cluster);
        ok = wl_predict_test (planned.request, planned.plan, chunk, t->n_streams, t->n_prompt, t->n_generated, &seconds,
                              err);
        out->predicted = wl_plan_predicted_json (&planned);
        json_object_set_new (out->predicted, "tok_s", json_real (tokens / seconds)); /* of this test */
    }
    free (rates);
    return ok;
}

/* -- reporting ---------------------------------------------------------------------------------------------------------------------------------- */

/* What the rows have in common. */
typedef struct report {
    const flags *flags;
    const char *model;
    size_t n_stages;
    int threads; /* of each stage */
    const char *isa;
    const wl_machine_limits *limits; /* NULL: not of this machine alone */
} report;

static void fractions_of (const report *r, const result *x, double *bandwidth, double *multiply_adds)
{
    *bandwidth = x->median * x->cost.bytes / r->limits->read_bytes_s;
    *multiply_adds = x->median * x->cost.multiply_adds / r->limits->multiply_adds_s;
}

static json_t *roofline_json (const report *r, const result *x)
{
    double bandwidth, multiply_adds;
    if (!r->limits)
        return json_null ();
    fractions_of (r, x, &bandwidth, &multiply_adds);
    double limit = wl_roofline_limit (r->limits, &x->cost);
    return json_pack ("{s:f, s:f, s:s, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:s}", "read_bytes_s",
                      r->limits->read_bytes_s, "multiply_adds_s", r->limits->multiply_adds_s, "instruction",
                      r->limits->instruction, "threads", (int) r->limits->n_threads, "bytes_per_token", x->cost.bytes,
                      "multiply_adds_per_token", x->cost.multiply_adds, "bandwidth_fraction", bandwidth,
                      "multiply_add_fraction", multiply_adds, "limit_tok_s", limit, "fraction", x->median / limit,
                      "limited_by", bandwidth > multiply_adds ? "memory" : "multiply-adds");
}

static void print_json (const report *r, const result *results, size_t n)
{
    json_t *rows = json_array ();
    for (size_t i = 0; i < n; i++) {
        const result *x = &results[i];
        json_t *row = json_pack ("{s:s, s:f, s:f, s:f, s:i, s:o, s:i, s:i, s:s, s:O}", "test", x->test->name, "tok_s",
                                 x->median, "tok_s_min", x->slowest, "tok_s_max", x->fastest, "runs",
                                 (int) r->flags->n_runs, "model", wl_json_text (r->model, strlen (r->model)), "stages",
                                 (int) r->n_stages, "threads", r->threads, "isa", r->isa, "times", x->times);
        json_object_set_new (row, "roofline", roofline_json (r, x));
        json_object_set (row, "predicted", x->predicted);
        json_object_set (row, "hop", x->hop);
        json_object_set (row, "hops", x->hops);
        json_object_set (row, "kv", x->kv);
        json_array_append_new (rows, row);
    }
    json_dumpf (rows, stdout, JSON_INDENT (1) | JSON_REAL_PRECISION (6));
    putchar ('\n');
    json_decref (rows);
}

static void print_rows (const report *r, const result *results, size_t n)
{
    bool csv = strcmp (r->flags->format, "csv") == 0;
    const char *row = csv ? "%s,%s,%s,%s,%s,%s,%s,%s,%s,%s,%s\n"
                          : "| %-10s | %6s | %7s | %-10s | %10s | %10s | %10s | %10s | %11s | %12s | %16s |\n";
    printf (row, "test", "stages", "threads", "isa", "tok_s", "tok_s_min", "tok_s_max",
            csv ? "predicted_tok_s" : "predicted", "limit_tok_s", csv ? "bandwidth_fraction" : "of bandwidth",
            csv ? "multiply_add_fraction" : "of multiply-adds");
    if (!csv)
        printf ("| ---------- | -----: | ------: | ---------- | ---------: | ---------: | ---------: | ---------: | "
                "----------: | -----------: | ---------------: |\n");
    for (size_t i = 0; i < n; i++) {
        const result *x = &results[i];
        char cells[9][16] = {0};
        double bandwidth, multiply_adds;
        snprintf (cells[0], 16, "%zu", r->n_stages);
        snprintf (cells[1], 16, "%d", r->threads);
        snprintf (cells[2], 16, "%.2f", x->median);
        snprintf (cells[3], 16, "%.2f", x->slowest);
        snprintf (cells[4], 16, "%.2f", x->fastest);
        if (r->limits) {
            fractions_of (r, x, &bandwidth, &multiply_adds);
            snprintf (cells[5], 16, "%.2f", wl_roofline_limit (r->limits, &x->cost));
            snprintf (cells[6], 16, "%.3f", bandwidth);
            snprintf (cells[7], 16, "%.3f", multiply_adds);
        }
        snprintf (cells[8], 16, "%.2f", json_real_value (json_object_get (x->predicted, "tok_s")));
        printf (row, x->test->name, cells[0], cells[1], r->isa, cells[2], cells[3], cells[4], cells[8], cells[5],
                cells[6], cells[7]);
    }
    if (!csv && r->limits)
        printf ("\nThis machine, %u threads: %.1f GB/s read, %.0f G multiply-adds/s (%s).\n", r->limits->n_threads,
                r->limits->read_bytes_s / 1e9, r->limits->multiply_adds_s / 1e9, r->limits->instruction);
}

static bool plot_results (const report *r, const result *results, size_t n, wl_error *err)
{
    wl_plot_point points[MAX_TESTS];
    char subtitle[160];
    json_t *title = wl_json_text (r->model, strlen (r->model));
    if (!title)
        return wl_fail (err, WL_ERROR_INTERNAL, "out of memory for the plot");
    for (size_t i = 0; i < n; i++)
        points[i] = (wl_plot_point){results[i].test->name, results[i].median, results[i].slowest, results[i].fastest,
                                    results[i].cost};
    snprintf (subtitle, sizeof subtitle, "woolly %s, %zu stage%s of %d thread%s, %.20s; median of %u runs",
              WOOLLY_VERSION, r->n_stages, r->n_stages == 1 ? "" : "s", r->threads, r->threads == 1 ? "" : "s", r->isa,
              r->flags->n_runs);
    bool ok = wl_plot_write (r->flags->plot, json_string_value (title), subtitle, r->limits, points, n, err);
    json_decref (title);
    return ok;
}

/* A model of zeros of the wanted shape, in a file that nobody else sees; removed after use. */
static bool make_shape (const flags *f, char path[PATH_LENGTH], wl_error *err)
{
    const char *folder = getenv ("TMPDIR");
    snprintf (path, PATH_LENGTH, "%s/woolly-shape-XXXXXX", folder && *folder ? folder : "/tmp");
    int file = mkstemp (path);
    if (file < 0)
        return wl_fail (err, WL_ERROR_INTERNAL, "%s: no temporary file can be made there: set TMPDIR", path);
    close (file);
    if (wl_shape_write (path, f->shape, f->type, err))
        return true;
    unlink (path);
    return false;
}

static bool bench (const flags *f, wl_error *err)
{
    test tests[MAX_TESTS];
    result results[MAX_TESTS] = {0};
    size_t n_tests = 0;
    uint32_t most_streams = 1;
    uint64_t context = 0;
    wl_opened_model opened = {0};
    wl_session session = {0};
    bool ok = false;
    char made[PATH_LENGTH] = "";
    json_t *stages = NULL;
    wl_machine_limits limits = {0};
    if (!plan_tests (f, tests, &n_tests, err) || (f->shape && !make_shape (f, made, err)) ||
        !wl_opened_model_open (&opened, f->shape ? made : f->model, &f->cluster.rope, false, err))
        goto done;
    for (size_t i = 0; i < n_tests; i++) {
        /* each stream has pages of its own */
        uint64_t positions =
            (uint64_t) tests[i].n_streams * wl_scheduler_pages (tests[i].n_prompt + tests[i].n_generated) * WL_KV_PAGE;
        context = positions > context ? positions : context;
        most_streams = tests[i].n_streams > most_streams ? tests[i].n_streams : most_streams;
        if (tests[i].n_prompt + tests[i].n_generated > opened.model->context_length) {
            wl_fail (err, WL_ERROR_USAGE,
                     "%s is longer than the model's context of %u: extend it with --rope-scaling yarn", tests[i].name,
                     opened.model->context_length);
            goto done;
        }
    }
    wl_cluster_options cluster = f->cluster.options;
    cluster.no_prefix_cache = true;            /* each run reads the same prompts, and is to compute them */
    cluster.no_pack_cache |= f->shape != NULL; /* nobody will want those again */
    if (!wl_session_open (&session, &opened, &cluster, context, most_streams, err))
        goto done;
    stages = wl_session_stages (&session);
    json_t *first = json_array_get (stages, 0);
    report r = {.flags = f,
                .model = opened.model->name,
                .n_stages = json_array_size (stages),
                .threads = (int) json_integer_value (json_object_get (first, "threads")),
                .isa = json_string_value (json_object_get (first, "isa")),
                .limits = f->cluster.options.listen ? NULL : &limits};
    uint32_t n_threads = (uint32_t) r.n_stages * (uint32_t) r.threads;
    if (r.limits && !wl_machine_limits_measure (&limits, n_threads, r.isa, err))
        goto done;
    wl_session_begin (&session);
    for (size_t i = 0; i < n_tests; i++)
        if (!measure (&session, &opened, &tests[i], f->n_runs, f->cluster.options.chunk, &results[i], err))
            goto done;
    if (r.limits && !wl_machine_limits_measure (&limits, n_threads, r.isa, err))
        goto done;
    if (strcmp (f->format, "json") == 0)
        print_json (&r, results, n_tests);
    else
        print_rows (&r, results, n_tests);
    ok = !f->plot || plot_results (&r, results, n_tests, err);
done:
    wl_progress_show (NULL);
    for (size_t i = 0; i < n_tests; i++) {
        json_decref (results[i].predicted);
        json_decref (results[i].times);
        json_decref (results[i].hop);
        json_decref (results[i].hops);
        json_decref (results[i].kv);
    }
    json_decref (stages);
    wl_session_close (&session);
    wl_opened_model_close (&opened);
    if (made[0])
        unlink (made);
    return ok;
}

int wl_command_bench (int argc, char **argv)
{
    flags f = {.type = "Q4_K_M", .prompts = "512", .lengths = "64", .batches = "1,2,4,8", .format = "md", .n_runs = 3};
    wl_error err = {0};
    bool help;
    const wl_option own[] = {
        {'m', "model", WL_OPTION_TEXT, &f.model, "MODEL", "GGUF file", NULL},
        {0, "shape", WL_OPTION_TEXT, &f.shape, "NAME", "in place of a file: a model of this shape with weights of zero",
         NULL},
        {0, "type", WL_OPTION_TEXT, &f.type, "TYPE", "its file type (Q4_K_M)", NULL},
        {'p', "prompt", WL_OPTION_TEXT, &f.prompts, "LIST", "tokens of the prompt tests; 0 leaves them out (512)",
         NULL},
        {'n', "tokens", WL_OPTION_TEXT, &f.lengths, "LIST", "tokens generated; 0 leaves it out (64)", NULL},
        {'b', "batch", WL_OPTION_TEXT, &f.batches, "LIST", "numbers of streams (1,2,4,8)", NULL},
        {'r', "runs", WL_OPTION_U32, &f.n_runs, "N", "measured runs of each test (3)", NULL},
        {0, "format", WL_OPTION_TEXT, &f.format, "md|csv|json", "how to print (md)", NULL},
        {0, "plot", WL_OPTION_TEXT, &f.plot, "FILE.svg", "also draw the tests below the machine's roofline", NULL},
    };
    const wl_option_table tables[] = {{own, sizeof own / sizeof own[0]}, wl_cluster_flags_init (&f.cluster)};
    if (!wl_options_parse ("bench (-m MODEL | --shape NAME) [-p LIST] [-n LIST] [-b LIST] [flags]", tables, 2, argc,
                           argv, NULL, &help, &err) ||
        help)
        goto done;
    if (!f.cluster.options.speculation) /* what it makes up repeats itself: rates would be of that */
        f.cluster.options.speculation = "off";
    if (!wl_cluster_flags_finish (&f.cluster, &err))
        goto done;
    if (f.model && f.shape)
        wl_fail (&err, WL_ERROR_USAGE, "-m and --shape both name a model: choose one");
    else if (f.shape && f.cluster.options.listen)
        wl_fail (&err, WL_ERROR_USAGE,
                 "--shape makes its model on this machine, for local workers: leave --listen out");
    else if (f.plot && f.cluster.options.listen)
        wl_fail (&err, WL_ERROR_USAGE,
                 "--plot draws the limits of this machine, for local workers: leave --listen out");
    else if (f.n_runs == 0 || f.n_runs > MAX_RUNS)
        wl_fail (&err, WL_ERROR_USAGE, "-r %u: choose 1 to %d", f.n_runs, MAX_RUNS);
    else if (strcmp (f.format, "md") != 0 && strcmp (f.format, "csv") != 0 && strcmp (f.format, "json") != 0)
        wl_fail (&err, WL_ERROR_USAGE, "--format %s: choose md, csv or json", f.format);
    else
        bench (&f, &err);
done:
    return err.code == WL_OK ? 0 : wl_command_failed ("bench", &err);
}
