/* Chat templates: small ones against what Jinja2 made of them (template_cases.h), whole ones of real models against the
 * transformers library where the shared goldens are at hand, and hostile ones against the evaluator's bounds. */
#include <dirent.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "engine/memory.h"
#include "engine/text/chat.h"
#include "engine/text/template.h"
#include "tests/unit/gguf_builder.h"
#include "tests/unit/template_cases.h"

static struct tm noon_of_pi_day (void)
{
    struct tm now = {.tm_year = 125, .tm_mon = 2, .tm_mday = 14, .tm_hour = 9, .tm_min = 26, .tm_sec = 53};
    timegm (&now); /* the days of week and year */
    return now;
}

static json_t *parse_json (const char *text)
{
    json_error_t problem;
    json_t *json = json_loads (text, JSON_ALLOW_NUL, &problem);
    if (!json)
        fail_msg ("a test's own JSON: %s", problem.text);
    return json;
}

/* Malloc'd, or NULL with the reason in *err. */
static char *render_bytes (const char *source, size_t source_length, const json_t *variables, size_t *length,
                           wl_error *err)
{
    struct tm now = noon_of_pi_day ();
    char *text = NULL;
    wl_template *parsed = wl_template_parse (source, source_length, err);
    if (parsed)
        text = wl_template_render (parsed, variables, &now, length, err);
    wl_template_free (&parsed);
    return text;
}

static char *render (const char *source, const char *variables, wl_error *err)
{
    size_t length;
    json_t *json = parse_json (variables);
    char *text = render_bytes (source, strlen (source), json, &length, err);
    json_decref (json);
    return text;
}

static void expect_text (const char *source, const char *variables, const char *expected)
{
    wl_error err = {0};
    char *text = render (source, variables, &err);
    if (!text)
        fail_msg ("%s: %s", source, err.text);
    assert_string_equal (text, expected);
    free (text);
}

static void expect_error (const char *source, const char *variables, const char *part)
{
    wl_error err = {0};
    char *text = render (source, variables, &err);
    if (text)
        fail_msg ("%s gave a text: %.60s", source, text);
    assert_int_equal (err.code, WL_ERROR_INPUT);
    if (!strstr (err.text, part))
        fail_msg ("%.60s: \"%s\" does not say \"%s\"", source, err.text, part);
    free (text);
}

/* -- Against Jinja2 ---------------------------------------------------------------------------- */

static void small_templates_give_what_jinja2_gives (void **state)
{
    (void) state;
    size_t n_wrong = 0;
    json_t *variables = parse_json (case_variables);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        wl_error err = {0};
        size_t length = 0;
        char *text = render_bytes (cases[i].source, strlen (cases[i].source), variables, &length, &err);
        bool same = text && cases[i].text ? length == cases[i].length && memcmp (text, cases[i].text, length) == 0
                                          : !text == !cases[i].text;
        if (!same) {
            print_error ("%s\n  gave     %s\n  expected %s\n", cases[i].source, text ? text : err.text,
                         cases[i].text ? cases[i].text : "an error");
            n_wrong++;
        }
        free (text);
    }
    json_decref (variables);
    assert_int_equal (n_wrong, 0);
}

static char *read_file (const char *folder, const char *name, const char *ending, size_t *length)
{
    char path[1024];
    snprintf (path, sizeof path, "%s/%s%s", folder, name, ending);
    FILE *file = fopen (path, "rb");
    if (!file)
        fail_msg ("%s cannot be opened", path);
    enum { ROOM = 1 << 20 };
    char *text = malloc (ROOM);
    assert_non_null (text);
    *length = fread (text, 1, ROOM - 1, file);
    text[*length] = 0;
    fclose (file);
    return text;
}

/* One golden conversation. False, with a line on stderr, if it differs. */
static bool golden_agrees (const char *name, const char *source, size_t source_length, const json_t *golden,
                           const char *key, const json_t *conversation)
{
    size_t length = 0;
    wl_error err = {0};
    json_t *variables = json_deep_copy (json_object_get (conversation, "input"));
    const json_t *expected = json_object_get (conversation, "text");
    json_object_set (variables, "bos_token", json_object_get (golden, "bos_token"));
    json_object_set (variables, "eos_token", json_object_get (golden, "eos_token"));
    char *text = render_bytes (source, source_length, variables, &length, &err);
    bool same = text && expected ? length == json_string_length (expected) &&
                                       memcmp (text, json_string_value (expected), length) == 0
                                 : !text == !expected;
    const char *reason = json_string_value (json_object_get (conversation, "error"));
    if (same && !text && strncmp (reason, "TemplateError: ", 15) == 0)
        same = strstr (err.text, reason + 15) != NULL; /* the template's own words */
    if (!same)
        print_error ("%s, %s: differs (%s)\n", name, key, text ? "texts" : err.text);
    free (text);
    json_decref (variables);
    return same;
}

static size_t check_golden (const char *folder, const char *name, size_t *n_wrong)
{
    size_t length, golden_length, n = 0;
    char *source = read_file (folder, name, ".jinja", &length);
    char *text = read_file (folder, name, ".json", &golden_length);
    json_t *golden = parse_json (text), *conversation;
    const char *key;
    json_object_foreach (json_object_get (golden, "cases"), key, conversation)
    {
        *n_wrong += !golden_agrees (name, source, length, golden, key, conversation);
        n++;
    }
    json_decref (golden);
    free (text);
    free (source);
    return n;
}

static void models_templates_give_what_transformers_gives (void **state)
{
    (void) state;
    char folder[1024];
    const char *shared = getenv ("WOOLLY_SHARED");
    snprintf (folder, sizeof folder, "%s/goldens/chat_templates", shared ? shared : "");
    DIR *all = shared ? opendir (folder) : NULL;
    if (!all) {
        print_message ("skipped: no shared goldens\n");
        return;
    }
    size_t n = 0, n_wrong = 0;
    for (const struct dirent *entry = readdir (all); entry; entry = readdir (all)) {
        char name[256];
        const char *ending = strstr (entry->d_name, ".jinja");
        if (!ending)
            continue;
        snprintf (name, sizeof name, "%.*s", (int) (ending - entry->d_name), entry->d_name);
        n += check_golden (folder, name, &n_wrong);
    }
    closedir (all);
    print_message ("%zu conversations\n", n);
    assert_int_equal (n_wrong, 0);
    assert_true (n > 200);
}

/* -- Messages ---------------------------------------------------------------------------------- */

static void a_templates_own_refusal_is_in_the_error (void **state)
{
    (void) state;
    expect_error ("{{ raise_exception('Roles must alternate: user/assistant') }}", "{}",
                  "Roles must alternate: user/assistant");
    expect_error ("{{ raise_exception('no ' ~ messages[0].role ~ ' here') }}", "{\"messages\": [{\"role\": \"tool\"}]}",
                  "no tool here");
}

static void errors_name_the_line (void **state)
{
    (void) state;
    expect_error ("a\nb\n{{ x.y.z }}", "{\"x\": {}}", "template line 3: 'dict object' has no attribute 'y'");
    expect_error ("a\r\n{% if %}", "{}", "template line 2: ");
    expect_error ("{# \n\n #}{% unknown %}", "{}", "template line 3: unknown or misplaced tag 'unknown'");
    expect_error ("\n{{ [1].append(2) }}", "{}", "line 2: access to attribute 'append' of 'list' object is unsafe.");
    expect_error ("{% macro m(a) %}{{ a + 1 }}{% endmacro %}\n\n{{ m() }}", "{}", "parameter 'a' was not provided");
}

static void the_time_is_the_callers (void **state)
{
    (void) state;
    expect_text ("{{ strftime_now('%d %B %Y %H:%M:%S %a %j') }}", "{}", "14 March 2025 09:26:53 Fri 073");
    json_t *none = json_object ();
    wl_error err = {0};
    size_t length;
    wl_template *parsed = wl_template_parse ("{{ strftime_now('%d') }}", 24, &err);
    assert_non_null (parsed);
    assert_null (wl_template_render (parsed, none, NULL, &length, &err));
    assert_int_equal (err.code, WL_ERROR_INPUT);
    wl_template_free (&parsed);
    json_decref (none);
}

/* -- What comes in ----------------------------------------------------------------------------- */

static void texts_with_nul_bytes_pass_through (void **state)
{
    (void) state;
    static const char source[] = "[{{ x }}|{{ x|length }}|{{ x == 'a\\0b' }}]", expected[] = "[a\0b|3|True]";
    wl_error err = {0};
    size_t length = 0;
    json_t *variables = json_pack ("{s:o}", "x", json_stringn ("a\0b", 3));
    char *text = render_bytes (source, sizeof source - 1, variables, &length, &err);
    assert_non_null (text);
    assert_int_equal (length, sizeof expected - 1);
    assert_memory_equal (text, expected, sizeof expected);
    free (text);
    json_decref (variables);
}

static void what_is_not_utf_8_is_refused (void **state)
{
    (void) state;
    wl_error err = {0};
    size_t length;
    json_t *variables = json_object ();
    assert_null (wl_template_parse ("a\xff", 2, &err));
    assert_int_equal (err.code, WL_ERROR_INPUT);
    err = (wl_error){0};
    json_object_set_new (variables, "x", json_stringn_nocheck ("\xc3", 1));
    assert_null (render_bytes ("{{ x }}", 7, variables, &length, &err));
    assert_int_equal (err.code, WL_ERROR_INPUT);
    json_decref (variables);
}

static void variables_that_are_no_object_are_refused (void **state)
{
    (void) state;
    expect_error ("a", "[]", "JSON object");
}

static void integers_beyond_64_bits_are_an_error (void **state)
{
    (void) state;
    expect_text ("{{ 9223372036854775807 }} {{ -9223372036854775807 - 1 }}", "{}",
                 "9223372036854775807 -9223372036854775808");
    expect_error ("{{ 9223372036854775808 }}", "{}", "64 bits");
    expect_error ("{{ 9223372036854775807 + 1 }}", "{}", "64 bits");
    expect_error ("{{ (-9223372036854775807 - 1) // -1 }}", "{}", "64 bits");
    expect_error ("{{ 10 ** 19 }}", "{}", "64 bits");
    expect_error ("{{ '99999999999999999999'|int }}", "{}", "64 bits");
    expect_text ("{{ (-9223372036854775807 - 1) % -1 }}{{ 'abc'[::-9223372036854775807] }}", "{}", "0c");
}

static void a_later_turn_of_a_loop_sees_what_an_earlier_one_did (void **state)
{
    (void) state;
    expect_text (
        "{% set ns = namespace(n=0) %}{% for i in x if ns.n < 2 %}{{ i }}{% set ns.n = ns.n + 1 %}{% endfor %}",
        "{\"x\": [7, 8, 9]}", "78");
}

/* -- Bounds ------------------------------------------------------------------------------------ */

static void endless_templates_end_with_an_error (void **state)
{
    (void) state;
    const char *deep = "too much is nested", *long_run = "runs too long", *large = "memory", *much = "MiB of text";
    const struct {
        const char *source, *reason;
    } hostile[] = {
        {"{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", long_run},
        {"{% set s = 'ab' * 1000000 %}{% for i in range(99999) %}{{ 'zz' in s }}{% endfor %}", long_run},
        {"{{ ('a' * 1000000).rfind('a' * 500000 ~ 'b') }}", long_run},
        {"{{ ('x' * 99999).strip('y' * 99999 ~ 'x') }}", long_run},
        {"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", deep},
        {"{% macro m(x=m()) %}{% endmacro %}{{ m() }}", deep},
        {"{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}", deep},
        {"{% set n = namespace(x=[]) %}{% for i in range(9999) %}{% set n.x = [n.x] %}{% endfor %}{{ n.x }}", deep},
        {"{% set n = namespace(x=[]) %}{% for i in range(9999) %}{% set n.x = [n.x] %}{% endfor %}{{ n.x|tojson }}",
         deep},
        {"{% set n = namespace() %}{% set n.n = n %}{{ n }}", deep},
        {"{% set n = namespace(x=[1]) %}{% for i in range(9999) %}{% set n.x = n.x|map('abs') %}{% endfor %}"
         "{{ n.x|list }}",
         deep},
        {"{% set n = namespace(s='abcdefgh') %}{% for i in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}", large},
        {"{{ 'a' * 1000000000000 }}", large},
        {"{{ [1] * 1000000000000 }}", large},
        {"{{ [1]|batch(1000000000000, 1)|list }}", large},
        {"{{ 'a' * 17000000 }}", much},
        {"{{ ('a' * 1000000)|replace('a', 'b' * 1000) }}", much},
        {"{{ 'a'.center(1000000000) }}", much},
        {"{{ '%1000000000d' % 1 }}", "too much"},
        {"{{ '{:1000000000}'.format(1) }}", "too much"},
        {"{{ range(1000000000) }}", "Range too big"},
        {"{{ strftime_now('%900Y') }}", "too much"},
    };
    for (size_t i = 0; i < sizeof hostile / sizeof hostile[0]; i++)
        expect_error (hostile[i].source, "{}", hostile[i].reason);
}

/* `count` times `piece`, between two texts. */
static char *repeat (const char *before, const char *piece, size_t count, const char *after)
{
    size_t size = strlen (piece);
    char *text = malloc (strlen (before) + size * count + strlen (after) + 1), *at = text;
    assert_non_null (text);
    at = stpcpy (at, before);
    for (size_t i = 0; i < count; i++)
        at = stpcpy (at, piece);
    stpcpy (at, after);
    return text;
}

static void deep_and_large_sources_are_refused (void **state)
{
    (void) state;
    const struct {
        const char *before, *piece, *after;
    } hostile[] = {
        {"{{ ", "(", "1 }}"},  {"{{ ", "[", " }}"},    {"{{ ", "not ", "1 }}"},
        {"{{ ", "-", "1 }}"},  {"{{ ", "1+", "1 }}"},  {"{{ ", "a.", "a }}"},
        {"{{ a", "|e", " }}"}, {"", "{% if a %}", ""}, {"", "{% for a in b %}", ""},
    };
    for (size_t i = 0; i < sizeof hostile / sizeof hostile[0]; i++) {
        char *source = repeat (hostile[i].before, hostile[i].piece, 20000, hostile[i].after);
        expect_error (source, "{}", "inside each other");
        free (source);
    }
    char *source = repeat ("", "x", 2000000, "");
    expect_error (source, "{}", "bytes");
    free (source);
    char many[40], *all = malloc (40 * 5000), *at = all;
    assert_non_null (all);
    for (int i = 0; i < 5000; i++) {
        snprintf (many, sizeof many, "{%% set a%d = 1 %%}", i);
        at = stpcpy (at, many);
    }
    expect_error (all, "{}", "variables in one scope");
    free (all);
}

static void deeply_nested_variables_are_refused (void **state)
{
    (void) state;
    char *lists = repeat ("{\"x\": ", "[", 1000, ""), *text = repeat (lists, "]", 1000, "}");
    expect_error ("{{ x }}", text, "too much is nested");
    free (lists);
    free (text);
}

/* -- Memory and threads ------------------------------------------------------------------------ */

static const char busy_source[] =
    "{%- macro show(m, k=1) -%}{{ m.role|upper ~ ':' ~ m['content']|trim }}{{ caller() if k == 2 }}{%- endmacro -%}\n"
    "{% set ns = namespace(n=0, s='') %}{% for m in messages if m.role != 'skip' %}{{ show(m) }}{% set ns.s = ns.s + "
    "'x' * 900 %}"
    "{{ loop.index ~ '/' ~ loop.length }}{% set ns.n = ns.n + m|tojson(indent=2)|length %}{% else %}none{% endfor %}"
    "{% call show(messages[0], k=2) %}in{% endcall %}{% filter replace('a', 'b') %}{{ "
    "messages|map(attribute='role')|join(',') }}"
    "{% endfilter %}{{ ns.n }}{{ ns.s|length }}{{ '{:>8}'.format('é') ~ '%05.1f' % 2.5 }}{{ "
    "messages|groupby('role')|length }}"
    "{{ range(200)|list|sort(reverse=true)|first }}{{ dict(a=1, **{'b': 2}).items()|list }}";
static const char busy_variables[] = "{\"messages\": [{\"role\": \"user\", \"content\": \" a \"},"
                                     "{\"role\": \"skip\"}, {\"role\": \"assistant\", \"content\": \"b\\u00e9\"}]}";

static void every_failing_allocation_is_an_error (void **state)
{
    (void) state;
    json_t *variables = parse_json (busy_variables);
    unsigned nth = 1;
    for (;; nth++) {
        wl_error err = {0};
        size_t length;
        wl_memory_fail_after (nth);
        char *text = render_bytes (busy_source, sizeof busy_source - 1, variables, &length, &err);
        wl_memory_fail_after (0);
        if (text) {
            free (text);
            break;
        }
        assert_int_equal (err.code, WL_ERROR_INTERNAL);
    }
    assert_true (nth > 5);
    json_decref (variables);
}

typedef struct shared_render {
    const wl_template *parsed;
    const json_t *variables;
    const char *expected;
    bool same;
} shared_render;

static void *render_often (void *argument)
{
    shared_render *s = argument;
    struct tm now = noon_of_pi_day ();
    s->same = true;
    for (int i = 0; i < 200 && s->same; i++) {
        size_t length;
        wl_error err = {0};
        char *text = wl_template_render (s->parsed, s->variables, &now, &length, &err);
        s->same = text && strcmp (text, s->expected) == 0;
        free (text);
    }
    return NULL;
}

static void one_template_renders_on_several_threads (void **state)
{
    (void) state;
    enum { N_THREADS = 4 };
    wl_error err = {0};
    pthread_t threads[N_THREADS];
    shared_render shared[N_THREADS];
    json_t *variables = parse_json (busy_variables);
    char *expected = render (busy_source, busy_variables, &err);
    wl_template *parsed = wl_template_parse (busy_source, sizeof busy_source - 1, &err);
    assert_non_null (expected);
    assert_non_null (parsed);
    for (int i = 0; i < N_THREADS; i++) {
        shared[i] = (shared_render){parsed, variables, expected, false};
        assert_int_equal (pthread_create (&threads[i], NULL, render_often, &shared[i]), 0);
    }
    for (int i = 0; i < N_THREADS; i++) {
        pthread_join (threads[i], NULL);
        assert_true (shared[i].same);
    }
    wl_template_free (&parsed);
    free (expected);
    json_decref (variables);
}

/* -- A model's own template -------------------------------------------------------------------- */

static const char *const token_texts[] = {"<unk>", "<s>", "</s>", "hi"};

static gguf_builder model_with_tokens (void)
{
    gguf_builder g = new_builder ();
    add_texts (&g, "tokenizer.ggml.tokens", token_texts, 4);
    add_u32 (&g, "tokenizer.ggml.bos_token_id", 1);
    add_u32 (&g, "tokenizer.ggml.eos_token_id", 2);
    return g;
}

/* What `g`'s template makes of variables; ends `g`. */
static char *render_chat (gguf_builder *g, const char *variables, wl_error *err)
{
    size_t file_length, length;
    uint8_t *file = build (g, &file_length);
    struct tm now = noon_of_pi_day ();
    json_t *json = parse_json (variables);
    char *text = NULL;
    wl_gguf *gguf = wl_gguf_open_memory (file, file_length, "model.gguf", err);
    if (gguf)
        text = wl_chat_render (gguf, json, &now, &length, err);
    wl_gguf_free (&gguf);
    free (file);
    json_decref (json);
    return text;
}

static void a_models_template_sees_its_tokens (void **state)
{
    (void) state;
    wl_error err = {0};
    gguf_builder g = model_with_tokens ();
    add_text (&g, "tokenizer.chat_template",
              "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}{{ unk_token is defined }}");
    char *text = render_chat (&g, "{\"messages\": [{\"content\": \"x\"}]}", &err);
    assert_non_null (text);
    assert_string_equal (text, "<s>x</s>False");
    free (text);
    g = model_with_tokens ();
    add_u32 (&g, "tokenizer.ggml.unknown_token_id", 0);
    add_text (&g, "tokenizer.chat_template", "{{ bos_token }}{{ unk_token }}");
    text = render_chat (&g, "{\"bos_token\": \"mine\"}", &err);
    assert_non_null (text);
    assert_string_equal (text, "mine<unk>");
    free (text);
}

static void tools_choose_the_template_made_for_them (void **state)
{
    (void) state;
    const struct {
        const char *variables, *expected;
    } uses[] = {{"{}", "plain"}, {"{\"tools\": []}", "plain"}, {"{\"tools\": [1]}", "with tools"}};
    for (size_t i = 0; i < sizeof uses / sizeof uses[0]; i++) {
        wl_error err = {0};
        gguf_builder g = model_with_tokens ();
        add_text (&g, "tokenizer.chat_template", "plain");
        add_text (&g, "tokenizer.chat_template.tool_use", "with tools");
        char *text = render_chat (&g, uses[i].variables, &err);
        assert_non_null (text);
        assert_string_equal (text, uses[i].expected);
        free (text);
    }
}

static void a_model_without_template_says_raw (void **state)
{
    (void) state;
    wl_error err = {0};
    gguf_builder g = model_with_tokens ();
    assert_null (render_chat (&g, "{}", &err));
    assert_int_equal (err.code, WL_ERROR_INPUT);
    assert_non_null (strstr (err.text, "--raw"));
}

int main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (small_templates_give_what_jinja2_gives),
        cmocka_unit_test (models_templates_give_what_transformers_gives),
        cmocka_unit_test (a_templates_own_refusal_is_in_the_error),
        cmocka_unit_test (errors_name_the_line),
        cmocka_unit_test (the_time_is_the_callers),
        cmocka_unit_test (texts_with_nul_bytes_pass_through),
        cmocka_unit_test (what_is_not_utf_8_is_refused),
        cmocka_unit_test (variables_that_are_no_object_are_refused),
        cmocka_unit_test (integers_beyond_64_bits_are_an_error),
        cmocka_unit_test (a_later_turn_of_a_loop_sees_what_an_earlier_one_did),
        cmocka_unit_test (endless_templates_end_with_an_error),
        cmocka_unit_test (deep_and_large_sources_are_refused),
        cmocka_unit_test (deeply_nested_variables_are_refused),
        cmocka_unit_test (every_failing_allocation_is_an_error),
        cmocka_unit_test (one_template_renders_on_several_threads),
        cmocka_unit_test (a_models_template_sees_its_tokens),
        cmocka_unit_test (tools_choose_the_template_made_for_them),
        cmocka_unit_test (a_model_without_template_says_raw),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
