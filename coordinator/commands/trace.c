/* woolly trace: draws a file that --trace wrote. */
#include <string.h>

#include "commands.h"
#include "coordinator/options.h"
#include "coordinator/text_out.h"
#include "coordinator/trace_plot.h"

static bool draw (const char *path, const char *svg, wl_error *err)
{
    wl_trace trace;
    const char *slash = strrchr (path, '/'), *name = slash ? slash + 1 : path;
    if (!wl_trace_read (path, &trace, err))
        return false;
    json_t *title = wl_json_text (name, strlen (name)); /* a file's name need not be UTF-8 */
    bool ok = title ? wl_trace_plot_write (svg, json_string_value (title), &trace, err)
                    : wl_fail (err, WL_ERROR_INTERNAL, "out of memory for a title");
    json_decref (title);
    wl_trace_free (&trace);
    return ok;
}

int wl_command_trace (int argc, char **argv)
{
    const char *svg = NULL;
    wl_option_list files = {0};
    wl_error err = {0};
    bool help;
    const wl_option own[] = {
        {0, "svg", WL_OPTION_TEXT, &svg, "OUT.svg", "where the picture goes", NULL},
    };
    const wl_option_table tables[] = {{own, sizeof own / sizeof own[0]}};
    if (!wl_options_parse ("trace FILE.json --svg OUT.svg", tables, 1, argc, argv, &files, &help, &err) || help)
        goto done;
    if (files.count != 1)
        wl_fail (&err, WL_ERROR_USAGE, "which trace? Name one file that --trace wrote: see woolly trace --help");
    else if (!svg)
        wl_fail (&err, WL_ERROR_USAGE, "where to? Name a file with --svg OUT.svg");
    else
        draw (files.values[0], svg, &err);
done:
    return err.code == WL_OK ? 0 : wl_command_failed ("trace", &err);
}
