/* Command-line flags as tables; see options.h. */
#include "options.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands/commands.h"
#include "engine/memory.h"

static const wl_option *find_option (const wl_option_table *tables, size_t n_tables, const char *name, size_t length,
                                     bool is_letter)
{
    for (size_t t = 0; t < n_tables; t++)
        for (size_t i = 0; i < tables[t].count; i++) {
            const wl_option *o = &tables[t].options[i];
            if (is_letter ? (o->letter && length == 1 && name[0] == o->letter)
                          : (o->name && strlen (o->name) == length && memcmp (o->name, name, length) == 0))
                return o;
        }
    return NULL;
}

static void print_help (const char *summary, const wl_option_table *tables, size_t n_tables)
{
    printf ("usage: woolly %s\n\n", summary);
    for (size_t t = 0; t < n_tables; t++)
        for (size_t i = 0; i < tables[t].count; i++) {
            const wl_option *o = &tables[t].options[i];
            char flag[96];
            int used = 0;
            if (o->letter)
                used += snprintf (flag, sizeof flag, "-%c%s", o->letter, o->name ? ", " : "");
            if (o->name)
                used += snprintf (flag + used, sizeof flag - (size_t) used, "--%s", o->name);
            if (o->argument)
                snprintf (flag + used, sizeof flag - (size_t) used, " %s", o->argument);
            printf ("  %-28s %s\n", flag, o->help);
        }
}

/* Stores `text` into the variable that `o` is bound to. */
static bool store_value (const wl_option *o, const char *shown, const char *text, const char *command, wl_error *err)
{
    char *end = NULL;
    errno = 0;
    switch (o->kind) {
    case WL_OPTION_FLAG:
    case WL_OPTION_CLEAR:
        return true; /* handled by the caller */
    case WL_OPTION_TEXT:
        *(const char **) o->value = text;
        return true;
    case WL_OPTION_LIST: {
        wl_option_list *list = o->value;
        if (list->count == sizeof list->values / sizeof list->values[0])
            return wl_fail (err, WL_ERROR_USAGE, "%s is given more than %zu times", shown, list->count);
        list->values[list->count++] = text;
        return true;
    }
    case WL_OPTION_U32:
    case WL_OPTION_U64: {
        unsigned long long limit = o->kind == WL_OPTION_U32 ? UINT32_MAX : UINT64_MAX;
        unsigned long long v = strtoull (text, &end, 10);
        if (errno || *end || end == text || text[0] < '0' || text[0] > '9' || v > limit)
            return wl_fail (err, WL_ERROR_USAGE,
                            "%s wants a whole number from 0 to %llu, not \"%s\": see woolly %s --help", shown, limit,
                            text, command);
        if (o->kind == WL_OPTION_U32)
            *(uint32_t *) o->value = (uint32_t) v;
        else
            *(uint64_t *) o->value = v;
        return true;
    }
    case WL_OPTION_F32: {
        float v = strtof (text, &end);
        if (*end || end == text || !isfinite (v))
            return wl_fail (err, WL_ERROR_USAGE, "%s wants a number, not \"%s\": see woolly %s --help", shown, text,
                            command);
        *(float *) o->value = v;
        return true;
    }
    }
    return wl_fail (err, WL_ERROR_INTERNAL, "%s has an unknown kind", shown);
}

bool wl_options_parse (const char *summary, const wl_option_table *tables, size_t n_tables, int argc, char **argv,
                       wl_option_list *rest, bool *help, wl_error *err)
{
    const char *command = argv[0];
    *help = false;
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i];
        if (strcmp (arg, "--help") == 0 || strcmp (arg, "-h") == 0) {
            print_help (summary, tables, n_tables);
            *help = true;
            return true;
        }
        if (arg[0] != '-' || (arg[1] == 0)) {
            if (!rest)
                return wl_fail (err, WL_ERROR_USAGE, "unexpected argument \"%s\": see woolly %s --help", arg, command);
            if (rest->count == sizeof rest->values / sizeof rest->values[0])
                return wl_fail (err, WL_ERROR_USAGE, "too many arguments");
            rest->values[rest->count++] = arg;
            continue;
        }
        bool is_letter = arg[1] != '-';
        const char *name = arg + (is_letter ? 1 : 2);
        const char *equals = is_letter ? NULL : strchr (name, '=');
        size_t length = equals ? (size_t) (equals - name) : strlen (name);
        const wl_option *o = find_option (tables, n_tables, name, length, is_letter);
        if (!o)
            return wl_fail (err, WL_ERROR_USAGE, "unknown flag %s: see woolly %s --help", arg, command);
        char shown[64];
        snprintf (shown, sizeof shown, "%.*s", (int) (length + (is_letter ? 1 : 2)), arg);
        if (o->given)
            *o->given = true;
        if (o->kind == WL_OPTION_FLAG || o->kind == WL_OPTION_CLEAR) {
            if (equals)
                return wl_fail (err, WL_ERROR_USAGE, "%s takes no value: see woolly %s --help", shown, command);
            *(bool *) o->value = o->kind == WL_OPTION_FLAG;
            continue;
        }
        const char *text = equals ? equals + 1 : NULL;
        if (!text) {
            if (i + 1 >= argc)
                return wl_fail (err, WL_ERROR_USAGE, "%s wants a value (%s): see woolly %s --help", shown,
                                o->argument ? o->argument : "VALUE", command);
            text = argv[++i];
        }
        if (!store_value (o, shown, text, command, err))
            return false;
    }
    return true;
}

char *wl_read_file (const char *path, size_t limit, size_t *length, wl_error *err)
{
    FILE *file = strcmp (path, "-") == 0 ? stdin : fopen (path, "rb");
    if (!file) {
        wl_fail (err, WL_ERROR_INPUT, "%s: cannot be opened: %s", path, strerror (errno));
        return NULL;
    }
    char *text = NULL;
    size_t used = 0, room = 0;
    for (;;) {
        if (used + 1 >= room) {
            room = room ? room * 2 : 4096;
            char *grown = wl_resize (text, room, 1, err);
            if (!grown)
                goto failed;
            text = grown;
        }
        size_t got = fread (text + used, 1, room - used - 1, file);
        if (got == 0)
            break;
        used += got;
        if (used > limit) {
            wl_fail (err, WL_ERROR_INPUT, "%s: larger than %zu bytes, the most that is read here", path, limit);
            goto failed;
        }
    }
    if (ferror (file)) {
        wl_fail (err, WL_ERROR_INPUT, "%s: cannot be read: %s", path, strerror (errno));
        goto failed;
    }
    if (file != stdin)
        fclose (file);
    text[used] = 0;
    *length = used;
    return text;
failed:
    if (file != stdin)
        fclose (file);
    free (text);
    return NULL;
}

int wl_command_failed (const char *name, const wl_error *err)
{
    fprintf (stderr, "woolly %s: %s\n", name, err->text);
    return err->code;
}
