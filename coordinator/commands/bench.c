/* woolly bench: prefill, decode and several streams over the real pipeline.
 *
 * Tests are named as their users do: pp512 reads a prompt of 512 tokens and draws one; tg64 generates 64 tokens from a prompt of one; b8tg64 does so for eight
 * streams at once and counts the tokens of all. Each test runs once unmeasured and then -r times; the median stands beside the slowest and fastest run.
 * Tokens are drawn greedily and generation does not end early, so every run does the same work. Speculation is off unless --spec asks for it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "commands.h"
#include "coordinator/flags.h"
#include "coordinator/session.h"
#include "coordinator/shapes.h"
#include "coordinator/text_out.h"
#include "engine/kernels/kernels.h"
#include "engine/memory.h"

enum { MAX_TESTS = 32, MAX_STREAMS = 256, MAX_RUNS = 1000, NAME_LENGTH = 32, PATH_LENGTH = 1024 };

typedef struct test {
    char name[NAME_LENGTH];
    uint32_t n_streams, n_prompt, n_generated;
    bool counts_prompt; /* the rate is of prompt tokens, not of generated ones */
} test;

typedef struct result {
    const test *test;
    double median, slowest, fastest; /* tok/s */
    json_t *times;                   /* by cause, of each stage, over the measured runs; owned */
} result;

typedef struct flags {
    const char *model, *shape, *type, *batches, *format;
    uint32_t n_prompt, n_generated, n_runs;
    wl_cluster_flags cluster;
} flags;

/* -- what to run -------------------------------------------------------------------------------------------------------------------------------- */

static bool plan_tests (const flags *f, test *tests, size_t *n_tests, wl_error *err)
{
    size_t n = 0;
    if (f->n_prompt) {
        tests[n] = (test){.n_streams = 1, .n_prompt = f->n_prompt, .n_generated = 1, .counts_prompt = true};
        snprintf (tests[n++].name, NAME_LENGTH, "pp%u", f->n_prompt);
    }
    for (const char *at = f->batches; f->n_generated && *at;) {
        char *end;
        unsigned long streams = strtoul (at, &end, 10);
        if (*at < '0' || *at > '9' || streams == 0 || streams > MAX_STREAMS || (*end && (*end != ',' || !end[1])))
            return wl_fail (err, WL_ERROR_USAGE, "-b \"%s\": expected numbers of streams from 1 to %d, such as 1,2,4,8",
                            f->batches, MAX_STREAMS);
        if (n == MAX_TESTS)
            return wl_fail (err, WL_ERROR_USAGE, "-b \"%s\": more than %d tests", f->batches, MAX_TESTS - 1);
        tests[n] = (test){.n_streams = (uint32_t) streams, .n_prompt = 1, .n_generated = f->n_generated};
        if (streams == 1)
            snprintf (tests[n++].name, NAME_LENGTH, "tg%u", f->n_generated);
        else
            snprintf (tests[n++].name, NAME_LENGTH, "b%lutg%u", streams, f->n_generated);
        at = *end ? end + 1 : end;
    }
    *n_tests = n;
    return n > 0 || wl_fail (err, WL_ERROR_USAGE, "nothing to measure: give -p or -n more than 0");
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

static bool measure (wl_session *session, const wl_opened_model *opened, const test *t, uint32_t n_runs, result *out,
                     wl_error *err)
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
        *out = (result){t, n_runs % 2 ? rates[n_runs / 2] : (rates[n_runs / 2 - 1] + rates[n_runs / 2]) / 2, rates[0],
                        rates[n_runs - 1], wl_session_times (session)};
    }
    free (rates);
    return ok;
}

/* -- reporting ---------------------------------------------------------------------------------------------------------------------------------- */

static void print_results (const flags *f, const wl_opened_model *opened, wl_session *session, const result *results,
                           size_t n)
{
    json_t *stages = wl_session_stages (session);
    size_t n_stages = json_array_size (stages);
    json_t *first = json_array_get (stages, 0);
    int threads = (int) json_integer_value (json_object_get (first, "threads"));
    const char *isa = json_string_value (json_object_get (first, "isa"));
    if (strcmp (f->format, "json") == 0) {
        json_t *rows = json_array ();
        for (size_t i = 0; i < n; i++)
            json_array_append_new (
                rows,
                json_pack ("{s:s, s:f, s:f, s:f, s:i, s:o, s:i, s:i, s:s, s:O}", "test", results[i].test->name, "tok_s",
                           results[i].median, "tok_s_min", results[i].slowest, "tok_s_max", results[i].fastest, "runs",
                           (int) f->n_runs, "model", wl_json_text (opened->model->name, strlen (opened->model->name)),
                           "stages", (int) n_stages, "threads", threads, "isa", isa, "times", results[i].times));
        json_dumpf (rows, stdout, JSON_INDENT (1) | JSON_REAL_PRECISION (6));
        putchar ('\n');
        json_decref (rows);
    } else {
        bool csv = strcmp (f->format, "csv") == 0;
        const char *row = csv ? "%s,%s,%s,%s,%s,%s,%s\n" : "| %-10s | %6s | %7s | %-10s | %10s | %10s | %10s |\n";
        printf (row, "test", "stages", "threads", "isa", "tok_s", "tok_s_min", "tok_s_max");
        if (!csv)
            printf ("| ---------- | -----: | ------: | ---------- | ---------: | ---------: | ---------: |\n");
        for (size_t i = 0; i < n; i++) {
            char cells[5][16];
            snprintf (cells[0], 16, "%zu", n_stages);
            snprintf (cells[1], 16, "%d", threads);
            snprintf (cells[2], 16, "%.2f", results[i].median);
            snprintf (cells[3], 16, "%.2f", results[i].slowest);
            snprintf (cells[4], 16, "%.2f", results[i].fastest);
            printf (row, results[i].test->name, cells[0], cells[1], isa, cells[2], cells[3], cells[4]);
        }
    }
    json_decref (stages);
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
    if (!plan_tests (f, tests, &n_tests, err) || (f->shape && !make_shape (f, made, err)) ||
        !wl_opened_model_open (&opened, f->shape ? made : f->model, false, err))
        goto done;
    for (size_t i = 0; i < n_tests; i++) {
        /* each stream has pages of its own */
        uint64_t positions =
            (uint64_t) tests[i].n_streams * wl_scheduler_pages (tests[i].n_prompt + tests[i].n_generated) * WL_KV_PAGE;
        context = positions > context ? positions : context;
        most_streams = tests[i].n_streams > most_streams ? tests[i].n_streams : most_streams;
        if (tests[i].n_prompt + tests[i].n_generated > opened.model->context_length) {
            wl_fail (err, WL_ERROR_USAGE, "%s is longer than the model's context of %u", tests[i].name,
                     opened.model->context_length);
            goto done;
        }
    }
    wl_cluster_options cluster = f->cluster.options;
    cluster.no_pack_cache |= f->shape != NULL; /* nobody will want those again */
    if (!wl_session_open (&session, &opened, &cluster, context, most_streams, err))
        goto done;
    wl_session_begin (&session);
    for (size_t i = 0; i < n_tests; i++)
        if (!measure (&session, &opened, &tests[i], f->n_runs, &results[i], err))
            goto done;
    print_results (f, &opened, &session, results, n_tests);
    ok = true;
done:
    wl_progress_show (NULL);
    for (size_t i = 0; i < n_tests; i++)
        json_decref (results[i].times);
    wl_session_close (&session);
    wl_opened_model_close (&opened);
    if (made[0])
        unlink (made);
    return ok;
}

int wl_command_bench (int argc, char **argv)
{
    flags f = {.type = "Q4_K_M", .batches = "1,2,4,8", .format = "md", .n_prompt = 512, .n_generated = 64, .n_runs = 3};
    wl_error err = {0};
    bool help;
    const wl_option own[] = {
        {'m', "model", WL_OPTION_TEXT, &f.model, "MODEL", "GGUF file", NULL},
        {0, "shape", WL_OPTION_TEXT, &f.shape, "NAME", "in place of a file: a model of this shape with weights of zero",
         NULL},
        {0, "type", WL_OPTION_TEXT, &f.type, "TYPE", "its file type (Q4_K_M)", NULL},
        {'p', "prompt", WL_OPTION_U32, &f.n_prompt, "N", "tokens of the prompt test; 0 leaves it out (512)", NULL},
        {'n', "tokens", WL_OPTION_U32, &f.n_generated, "N", "tokens generated; 0 leaves it out (64)", NULL},
        {'b', "batch", WL_OPTION_TEXT, &f.batches, "LIST", "numbers of streams (1,2,4,8)", NULL},
        {'r', "runs", WL_OPTION_U32, &f.n_runs, "N", "measured runs of each test (3)", NULL},
        {0, "format", WL_OPTION_TEXT, &f.format, "md|csv|json", "how to print (md)", NULL},
    };
    const wl_option_table tables[] = {{own, sizeof own / sizeof own[0]}, wl_cluster_flags_init (&f.cluster)};
    if (!wl_options_parse ("bench (-m MODEL | --shape NAME) [-p N] [-n N] [-b LIST] [flags]", tables, 2, argc, argv,
                           NULL, &help, &err) ||
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
    else if (f.n_runs == 0 || f.n_runs > MAX_RUNS)
        wl_fail (&err, WL_ERROR_USAGE, "-r %u: choose 1 to %d", f.n_runs, MAX_RUNS);
    else if (strcmp (f.format, "md") != 0 && strcmp (f.format, "csv") != 0 && strcmp (f.format, "json") != 0)
        wl_fail (&err, WL_ERROR_USAGE, "--format %s: choose md, csv or json", f.format);
    else
        bench (&f, &err);
done:
    return err.code == WL_OK ? 0 : wl_command_failed ("bench", &err);
}
