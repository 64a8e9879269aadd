/* woolly requantize: a smaller copy of a model, as a draft model for --spec draft:MODEL or for a machine with less memory. */
#include <stdio.h>

#include "commands.h"
#include "coordinator/options.h"
#include "coordinator/session.h"
#include "engine/gguf.h"
#include "engine/machine.h"
#include "engine/requantize.h"

typedef struct requantize_flags {
    const char *model, *type, *head, *out;
    uint32_t n_threads;
} requantize_flags;

static bool show (void *context, uint64_t done, uint64_t total)
{
    const requantize_flags *f = context;
    char line[160];
    const double gb = 1e9;
    snprintf (line, sizeof line, "rounding to %s: %.1f of %.1f GB", f->type, (double) done / gb, (double) total / gb);
    wl_progress_show (line);
    return wl_interrupted ();
}

static bool requantize (requantize_flags *f, wl_error *err)
{
    wl_requantize_options options = {
        .n_threads = f->n_threads ? f->n_threads : wl_machine_cores (), .progress = show, .context = f};
    wl_requantized made;
    const double mb = 1e6;
    if (!wl_requantize_type (f->type, &options.type, err) ||
        !wl_requantize_type (f->head ? f->head : f->type, &options.head_type, err))
        return false;
    wl_gguf *gguf = wl_gguf_open (f->model, err);
    if (!gguf)
        return false;
    wl_interrupt_watch (NULL);
    bool ok = wl_requantize (gguf, &options, f->out, &made, err);
    wl_progress_show (NULL);
    if (ok)
        fprintf (stderr, "%s: %zu tensors rounded, %zu copied; %.0f MB of weights are %.0f MB now\n", f->out,
                 made.n_rounded, made.n_copied, (double) made.bytes_before / mb, (double) made.bytes_after / mb);
    wl_gguf_free (&gguf);
    return ok;
}

int wl_command_requantize (int argc, char **argv)
{
    requantize_flags f = {0};
    wl_error err = {0};
    bool help;
    const wl_option own[] = {
        {'m', "model", WL_OPTION_TEXT, &f.model, "MODEL", "GGUF file; of a split model the first one", NULL},
        {0, "type", WL_OPTION_TEXT, &f.type, "TYPE", "Q2_K, Q3_K, Q4_0, Q4_K, Q5_0, Q5_K, Q6_K or Q8_0", NULL},
        {0, "head", WL_OPTION_TEXT, &f.head, "TYPE", "of the head and the embedding; --type's by default", NULL},
        {'o', "output", WL_OPTION_TEXT, &f.out, "OUT.gguf", "the file to write", NULL},
        {0, "threads", WL_OPTION_U32, &f.n_threads, "N", "all cores by default", NULL},
    };
    const wl_option_table table = {own, sizeof own / sizeof own[0]};
    if (!wl_options_parse ("requantize -m MODEL --type TYPE -o OUT.gguf", &table, 1, argc, argv, NULL, &help, &err) ||
        help)
        goto done;
    if (!f.model)
        wl_fail (&err, WL_ERROR_USAGE, "which model? Name a GGUF file with -m MODEL");
    else if (!f.type)
        wl_fail (&err, WL_ERROR_USAGE, "to which type? Name one with --type, such as Q4_K");
    else if (!f.out)
        wl_fail (&err, WL_ERROR_USAGE, "where to? Name the file to write with -o OUT.gguf");
    else if (f.n_threads > 1024)
        wl_fail (&err, WL_ERROR_USAGE, "--threads %u: at most 1024", f.n_threads);
    else
        requantize (&f, &err);
done:
    return err.code == WL_OK ? 0 : wl_command_failed ("requantize", &err);
}
