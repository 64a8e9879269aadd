/* woolly inspect: what is in a GGUF file, and what would keep Woolly from running it.
 *
 * Reads the header only, so that it is fast on any size of model, and reports on files that it cannot run: tensors of types
 * without a kernel, architectures without a row, tokenizers without code. Those are findings, not failures; only a file that is no
 * sound GGUF fails. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "commands.h"
#include "coordinator/escape.h"
#include "coordinator/options.h"
#include "coordinator/text_out.h"
#include "engine/gguf.h"
#include "engine/kernels/kernels.h"
#include "engine/memory.h"
#include "engine/model.h"
#include "engine/text/tokenizer.h"

/* Types are counted by number: more than GGUF has. */
enum { N_TYPES = 64, MAX_PROBLEMS = N_TYPES + 2, SHOWN_ELEMENTS = 6, SHOWN_BYTES = 72 };

typedef struct report {
    const wl_gguf *gguf;
    struct {
        uint64_t n_tensors, bytes;
        const wl_tensor *first;
    } types[N_TYPES];
    uint64_t bytes; /* of all tensors */
    wl_error problems[MAX_PROBLEMS];
    size_t n_problems;
} report;

static void add_problem (report *r, const wl_error *problem)
{
    for (size_t i = 0; i < r->n_problems; i++)
        if (strcmp (r->problems[i].text, problem->text) == 0)
            return;
    if (r->n_problems < MAX_PROBLEMS)
        r->problems[r->n_problems++] = *problem;
}

static void count_types (report *r)
{
    for (size_t i = 0; i < wl_gguf_n_tensors (r->gguf); i++) {
        const wl_tensor *t = wl_gguf_tensor (r->gguf, i);
        if (t->type >= N_TYPES)
            continue;
        r->types[t->type].n_tensors++;
        r->types[t->type].bytes += t->bytes;
        r->bytes += t->bytes;
        if (!r->types[t->type].first)
            r->types[t->type].first = t;
    }
}

/* Whatever would stop the file from being loaded. Shortage of memory is the command's own failure. */
static bool find_problems (report *r, wl_error *err)
{
    for (uint32_t type = 0; type < N_TYPES; type++) {
        wl_error problem = {0};
        if (!r->types[type].first || wl_format_find (type))
            continue;
        wl_fail (&problem, WL_ERROR_INPUT, "tensor type %s is not supported (%" PRIu64 " tensors, the first is %s)",
                 wl_type_name (type), r->types[type].n_tensors, r->types[type].first->name);
        add_problem (r, &problem);
    }
    wl_error model_error = {0}, tokenizer_error = {0};
    wl_model *model = wl_model_new (r->gguf, &model_error);
    wl_tokenizer *tokenizer = wl_tokenizer_new (r->gguf, &tokenizer_error);
    wl_model_free (&model);
    wl_tokenizer_free (&tokenizer);
    const wl_error *found[] = {&model_error, &tokenizer_error};
    for (size_t i = 0; i < 2; i++) {
        if (found[i]->code == WL_ERROR_INPUT)
            add_problem (r, found[i]);
        else if (found[i]->code != WL_OK)
            return wl_fail (err, found[i]->code, "%s", found[i]->text);
    }
    return true;
}

/* -- Metadata -------------------------------------------------------------------------------------------------------------- */

static const char *value_type_name (wl_value_type type)
{
    static const char *const names[] = {"u8",   "i8",   "u16",   "i16", "u32", "i32", "f32",
                                        "bool", "text", "array", "u64", "i64", "f64"};
    return (size_t) type < sizeof names / sizeof names[0] ? names[type] : "?";
}

static json_t *scalar_json (const wl_gguf *gguf, const char *key, wl_value_type type)
{
    wl_text text;
    bool truth;
    int64_t integer;
    double real;
    if (type == WL_VALUE_STRING && wl_gguf_text (gguf, key, &text))
        return wl_json_text (text.data, text.length);
    if (type == WL_VALUE_BOOL && wl_gguf_bool (gguf, key, &truth))
        return json_boolean (truth);
    if (wl_gguf_i64 (gguf, key, &integer))
        return json_integer (integer);
    if (wl_gguf_f64 (gguf, key, &real) && isfinite (real)) /* JSON has no NaN; integers beyond 2^63 come here too */
        return json_real (real);
    return json_null ();
}

static void print_number (double value)
{
    if (value == floor (value) && fabs (value) < 1e15)
        printf ("%.0f", value);
    else
        printf ("%.7g", value);
}

static void print_text (wl_text text)
{
    size_t shown = text.length;
    if (shown > SHOWN_BYTES) {
        shown = SHOWN_BYTES;
        while (shown > 0 && ((unsigned char) text.data[shown] & 0xc0) == 0x80) /* not inside a character */
            shown--;
    }
    putchar ('"');
    wl_print_escaped (stdout, text.data, shown);
    printf (shown < text.length ? "…\" (%zu bytes)" : "\"", text.length);
}

static void print_scalar (const wl_gguf *gguf, const char *key, wl_value_type type)
{
    wl_text text;
    bool truth;
    int64_t integer;
    uint64_t large;
    double real = 0;
    if (type == WL_VALUE_STRING && wl_gguf_text (gguf, key, &text))
        print_text (text);
    else if (type == WL_VALUE_BOOL && wl_gguf_bool (gguf, key, &truth))
        printf (truth ? "true" : "false");
    else if (wl_gguf_i64 (gguf, key, &integer))
        printf ("%" PRId64, integer);
    else if (wl_gguf_u64 (gguf, key, &large))
        printf ("%" PRIu64, large);
    else if (wl_gguf_f64 (gguf, key, &real))
        print_number (real);
}

static void print_array (const wl_gguf *gguf, const char *key, const wl_gguf_pair *pair)
{
    for (size_t i = 0; i < pair->length && i < SHOWN_ELEMENTS; i++) {
        wl_text text;
        int64_t integer;
        float real = 0;
        printf ("%s", i ? ", " : "");
        if (wl_gguf_array_text (gguf, key, i, &text))
            print_text (text);
        else if (wl_gguf_array_i64 (gguf, key, i, &integer))
            printf ("%" PRId64, integer);
        else if (wl_gguf_array_f32 (gguf, key, i, &real))
            print_number (real);
    }
    if (pair->length > SHOWN_ELEMENTS)
        printf (", …");
}

/* -- Output ------------------------------------------------------------------------------------------------------------------- */

static bool print_metadata (const report *r, wl_error *err)
{
    printf ("\nmetadata\n");
    for (size_t i = 0; i < wl_gguf_n_pairs (r->gguf); i++) {
        wl_gguf_pair pair = wl_gguf_pair_at (r->gguf, i);
        char type[40], *key = wl_copy_text (pair.key.data, pair.key.length, err);
        if (!key)
            return false;
        bool is_array = pair.type == WL_VALUE_ARRAY;
        if (is_array)
            snprintf (type, sizeof type, "%s[%zu]", value_type_name (pair.element), pair.length);
        else
            snprintf (type, sizeof type, "%s", value_type_name (pair.type));
        printf ("  ");
        wl_print_escaped (stdout, pair.key.data, pair.key.length);
        printf ("%*s %-12s ", pair.key.length < 44 ? 44 - (int) pair.key.length : 0, "", type);
        if (is_array)
            print_array (r->gguf, key, &pair);
        else
            print_scalar (r->gguf, key, pair.type);
        putchar ('\n');
        free (key);
    }
    return true;
}

static void print_tensors (const report *r)
{
    printf ("\ntensors\n");
    for (size_t i = 0; i < wl_gguf_n_tensors (r->gguf); i++) {
        const wl_tensor *t = wl_gguf_tensor (r->gguf, i);
        char dims[96];
        int used = 0;
        for (uint32_t d = 0; d < t->n_dims; d++)
            used += snprintf (dims + used, sizeof dims - (size_t) used, "%s%" PRIu64, d ? " x " : "", t->dims[d]);
        printf ("  ");
        wl_print_escaped (stdout, t->name, strlen (t->name));
        printf ("%*s %-8s %-24s %12" PRIu64 "\n", strlen (t->name) < 44 ? 44 - (int) strlen (t->name) : 0, "",
                wl_type_name (t->type), dims, t->bytes);
    }
    printf ("\ntotals\n");
    for (uint32_t type = 0; type < N_TYPES; type++)
        if (r->types[type].n_tensors)
            printf ("  %-8s %6" PRIu64 " tensors %16" PRIu64 " bytes\n", wl_type_name (type), r->types[type].n_tensors,
                    r->types[type].bytes);
    printf ("  %-8s %6zu tensors %16" PRIu64 " bytes\n", "all", wl_gguf_n_tensors (r->gguf), r->bytes);
}

static bool show_text (const report *r, wl_error *err)
{
    printf ("%s: GGUF version %u, %" PRIu64 " bytes, %zu metadata pairs, %zu tensors\n", wl_gguf_path (r->gguf),
            wl_gguf_version (r->gguf), wl_gguf_file_bytes (r->gguf), wl_gguf_n_pairs (r->gguf),
            wl_gguf_n_tensors (r->gguf));
    if (!print_metadata (r, err))
        return false;
    print_tensors (r);
    printf (r->n_problems ? "\nWoolly cannot run it:\n" : "\nWoolly can run it.\n");
    for (size_t i = 0; i < r->n_problems; i++)
        printf ("  %s\n", r->problems[i].text);
    return true;
}

static json_t *metadata_json (const report *r, wl_error *err)
{
    json_t *metadata = json_object ();
    for (size_t i = 0; metadata && i < wl_gguf_n_pairs (r->gguf); i++) {
        wl_gguf_pair pair = wl_gguf_pair_at (r->gguf, i);
        char *key = wl_copy_text (pair.key.data, pair.key.length, err);
        json_t *value =
            !key ? NULL
            : pair.type == WL_VALUE_ARRAY
                ? json_pack ("{s:s, s:I}", "array", value_type_name (pair.element), "length", (json_int_t) pair.length)
                : scalar_json (r->gguf, key, pair.type);
        json_t *name = key ? wl_json_text (pair.key.data, pair.key.length) : NULL; /* the key as UTF-8 */
        if (json_object_set_new_nocheck (metadata, name ? json_string_value (name) : "", value) != 0) {
            json_decref (metadata);
            metadata = NULL;
        }
        json_decref (name);
        free (key);
    }
    return metadata;
}

static json_t *tensors_json (const report *r)
{
    json_t *tensors = json_array ();
    for (size_t i = 0; i < wl_gguf_n_tensors (r->gguf); i++) {
        const wl_tensor *t = wl_gguf_tensor (r->gguf, i);
        json_t *dims = json_array ();
        for (uint32_t d = 0; d < t->n_dims; d++)
            json_array_append_new (dims, json_integer ((json_int_t) t->dims[d]));
        json_array_append_new (tensors, json_pack ("{s:o, s:s, s:o, s:I, s:I, s:i}", "name",
                                                   wl_json_text (t->name, strlen (t->name)), "type",
                                                   wl_type_name (t->type), "dims", dims, "bytes", (json_int_t) t->bytes,
                                                   "offset", (json_int_t) t->offset, "part", (int) t->part));
    }
    return tensors;
}

static bool show_json (const report *r, wl_error *err)
{
    json_t *metadata = metadata_json (r, err), *totals = json_object (), *problems = json_array ();
    for (uint32_t type = 0; type < N_TYPES; type++)
        if (r->types[type].n_tensors)
            json_object_set_new (totals, wl_type_name (type),
                                 json_pack ("{s:I, s:I}", "tensors", (json_int_t) r->types[type].n_tensors, "bytes",
                                            (json_int_t) r->types[type].bytes));
    for (size_t i = 0; i < r->n_problems; i++)
        json_array_append_new (problems, wl_json_text (r->problems[i].text, strlen (r->problems[i].text)));
    const char *path = wl_gguf_path (r->gguf);
    json_t *json = json_pack (
        "{s:o, s:i, s:I, s:o, s:o, s:o, s:I, s:o}", "path", wl_json_text (path, strlen (path)), "version",
        (int) wl_gguf_version (r->gguf), "file_bytes", (json_int_t) wl_gguf_file_bytes (r->gguf), "metadata", metadata,
        "tensors", tensors_json (r), "totals", totals, "tensor_bytes", (json_int_t) r->bytes, "problems", problems);
    if (!json)
        return wl_fail (err, WL_ERROR_INTERNAL, "out of memory: a report of %zu tensors is wanted",
                        wl_gguf_n_tensors (r->gguf));
    json_dumpf (json, stdout, JSON_COMPACT);
    putchar ('\n');
    json_decref (json);
    return true;
}

static bool inspect (const char *path, bool as_json, wl_error *err)
{
    bool ok = false;
    report *r = NULL;
    wl_gguf *gguf = wl_gguf_open (path, err);
    if (!gguf)
        return false;
    r = wl_new (1, sizeof *r, err);
    if (!r)
        goto done;
    r->gguf = gguf;
    count_types (r);
    ok = find_problems (r, err) && (as_json ? show_json (r, err) : show_text (r, err));
    if (ok && fflush (stdout) != 0)
        ok = wl_fail (err, WL_ERROR_INTERNAL, "the output cannot be written");
done:
    free (r);
    wl_gguf_free (&gguf);
    return ok;
}

int wl_command_inspect (int argc, char **argv)
{
    const char *path = NULL;
    bool as_json = false, help;
    wl_error err = {0};
    const wl_option own[] = {
        {'m', "model", WL_OPTION_TEXT, &path, "MODEL", "GGUF file", NULL},
        {0, "json", WL_OPTION_FLAG, &as_json, NULL, "print one JSON object", NULL},
    };
    const wl_option_table table = {own, sizeof own / sizeof own[0]};
    if (!wl_options_parse ("inspect -m MODEL [--json]", &table, 1, argc, argv, NULL, &help, &err) || help)
        goto done;
    if (!path)
        wl_fail (&err, WL_ERROR_USAGE, "which model? Name a GGUF file with -m MODEL");
    else
        inspect (path, as_json, &err);
done:
    return err.code == WL_OK ? 0 : wl_command_failed ("inspect", &err);
}
