/* woolly template: a conversation as a model's chat template writes it, for checking templates and for building
 * prompts elsewhere. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <jansson.h>

#include "commands.h"
#include "coordinator/options.h"
#include "engine/gguf.h"
#include "engine/text/chat.h"
#include "engine/text/template.h"

enum { FILE_LIMIT = 64 << 20 };

typedef struct flags {
    const char *model, *file, *bos, *eos, *messages, *tools, *now;
    bool prompt; /* add_generation_prompt */
} flags;

static json_t *read_json (const char *path, wl_error *err)
{
    size_t length;
    json_error_t problem;
    char *text = wl_read_file (path, FILE_LIMIT, &length, err);
    if (!text)
        return NULL;
    json_t *json = json_loadb (text, length, JSON_DECODE_ANY | JSON_ALLOW_NUL, &problem);
    if (!json)
        wl_fail (err, WL_ERROR_INPUT, "%s: not JSON: line %d: %s", path, problem.line, problem.text);
    free (text);
    return json;
}

/* Takes `value`; NULL is a text that is not UTF-8. */
static void set_variable (json_t *variables, const char *name, json_t *value, wl_error *err)
{
    if (json_object_set_new (variables, name, value) != 0)
        wl_fail (err, WL_ERROR_INPUT, "%s cannot be given to the template: it is not UTF-8, or there is no memory",
                 name);
}

/* What the template sees: the object of --messages, or an object around its array; tools; the flags. */
static json_t *read_variables (const flags *f, wl_error *err)
{
    json_t *given = read_json (f->messages, err), *variables = NULL;
    if (json_is_array (given))
        variables = json_pack ("{s:O}", "messages", given);
    else if (json_is_object (given) && json_is_array (json_object_get (given, "messages")))
        variables = json_incref (given);
    else if (given)
        wl_fail (err, WL_ERROR_INPUT, "%s: expected an array of messages, or an object with one under \"messages\"",
                 f->messages);
    json_decref (given);
    if (!variables)
        return NULL;
    json_t *tools = f->tools ? read_json (f->tools, err) : NULL;
    if (f->tools && !json_is_array (tools))
        wl_fail (err, WL_ERROR_INPUT, "%s: expected an array of tools", f->tools);
    if (tools)
        set_variable (variables, "tools", tools, err);
    if (!f->prompt || !json_object_get (variables, "add_generation_prompt"))
        set_variable (variables, "add_generation_prompt", json_boolean (f->prompt), err);
    if (f->bos)
        set_variable (variables, "bos_token", json_string (f->bos), err);
    if (f->eos)
        set_variable (variables, "eos_token", json_string (f->eos), err);
    if (err->code == WL_OK)
        return variables;
    json_decref (variables);
    return NULL;
}

static bool read_time (const char *text, struct tm *now, wl_error *err)
{
    if (!text) {
        time_t seconds = time (NULL);
        localtime_r (&seconds, now);
        return true;
    }
    static const char *const formats[] = {"%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d"};
    const char *end = NULL;
    for (size_t i = 0; i < sizeof formats / sizeof formats[0] && !end; i++) {
        memset (now, 0, sizeof *now);
        end = strptime (text, formats[i], now);
    }
    if (end && *end == '.') /* parts of a second: no template asks for them */
        end += 1 + strspn (end + 1, "0123456789");
    int day = now->tm_mday;
    if (end && (*end == 0 || strcmp (end, "Z") == 0) && timegm (now) != (time_t) -1 && now->tm_mday == day)
        return true; /* timegm has filled in the days of week and year, and moved what was no date (30 February) */
    return wl_fail (err, WL_ERROR_USAGE, "--now \"%s\": expected a time such as 2025-03-14T09:26:53", text);
}

static char *render_file (const char *path, const json_t *variables, const struct tm *now, size_t *length,
                          wl_error *err)
{
    size_t source_length;
    char *source = wl_read_file (path, FILE_LIMIT, &source_length, err), *text = NULL;
    wl_template *parsed = source ? wl_template_parse (source, source_length, err) : NULL;
    if (parsed)
        text = wl_template_render (parsed, variables, now, length, err);
    wl_template_free (&parsed);
    free (source);
    return text;
}

static void render (const flags *f, wl_error *err)
{
    struct tm now;
    size_t length;
    char *text = NULL;
    wl_gguf *gguf = NULL;
    json_t *variables = read_time (f->now, &now, err) ? read_variables (f, err) : NULL;
    if (variables && f->file)
        text = render_file (f->file, variables, &now, &length, err);
    else if (variables && (gguf = wl_gguf_open (f->model, err)))
        text = wl_chat_render (gguf, variables, &now, &length, err);
    if (text && (fwrite (text, 1, length, stdout) != length || fflush (stdout) != 0))
        wl_fail (err, WL_ERROR_INTERNAL, "the text cannot be written: %s", strerror (errno));
    free (text);
    wl_gguf_free (&gguf);
    json_decref (variables);
}

int wl_command_template (int argc, char **argv)
{
    flags f = {.prompt = true};
    bool help;
    wl_error err = {0};
    const wl_option own[] = {
        {'m', "model", WL_OPTION_TEXT, &f.model, "MODEL", "GGUF file whose template is used", NULL},
        {0, "template", WL_OPTION_TEXT, &f.file, "FILE", "a template in place of a model's", NULL},
        {0, "bos", WL_OPTION_TEXT, &f.bos, "TEXT", "bos_token", NULL},
        {0, "eos", WL_OPTION_TEXT, &f.eos, "TEXT", "eos_token", NULL},
        {0, "messages", WL_OPTION_TEXT, &f.messages, "FILE.json",
         "an array of messages, or an object with variables of the template", NULL},
        {0, "tools", WL_OPTION_TEXT, &f.tools, "FILE.json", "an array of tools", NULL},
        {0, "no-generation-prompt", WL_OPTION_CLEAR, &f.prompt, NULL, "end after the last message", NULL},
        {0, "now", WL_OPTION_TEXT, &f.now, "TIME", "what the template takes for the time, as 2025-03-14T09:26:53 (now)",
         NULL},
    };
    const wl_option_table table = {own, sizeof own / sizeof own[0]};
    if (!wl_options_parse ("template (-m MODEL | --template FILE) --messages FILE.json [flags]", &table, 1, argc, argv,
                           NULL, &help, &err) ||
        help)
        goto done;
    if (!f.model == !f.file)
        wl_fail (&err, WL_ERROR_USAGE, "give either -m MODEL or --template FILE");
    else if (!f.messages)
        wl_fail (&err, WL_ERROR_USAGE, "which conversation? Name a file with --messages FILE.json");
    else
        render (&f, &err);
done:
    return err.code == WL_OK ? 0 : wl_command_failed ("template", &err);
}
