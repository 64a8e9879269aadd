/* Chat templates, and variables for them.
 *
 * Input is a template, or a template, a NUL and the JSON of its variables. Whatever it is, it ends with a text that
 * is UTF-8 or with an error that says something, within the bounds. Mutations know the language's words, so that
 * they get past the parser. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "engine/text/template_private.h"
#include "engine/text/utf8.h"

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);
size_t LLVMFuzzerMutate (uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator (uint8_t *data, size_t size, size_t max_size, unsigned seed);

enum { FUZZ_STEPS = 200 * 1000 }; /* so that loops end soon */

static const char default_variables[] =
    "{\"messages\":[{\"role\":\"system\",\"content\":\"You are.\"},{\"role\":\"user\",\"content\":\"Hi <b> & é🎉\"},"
    "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":{\"a\":[1,2."
    "5,"
    "null,true]}}}]}],\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"get\",\"parameters\":{\"type\":"
    "\"object\"}}}],\"x\":3,\"f\":2.5,\"s\":\"Hello World\",\"u\":\"Grüße ΑΣ 日本\",\"l\":[3,1,2],\"d\":{\"b\":1,"
    "\"a\":"
    "{\"c\":\"deep\"},\"items\":7},\"n\":null,\"t\":true,\"e\":\"\",\"big\":9223372036854775807,\"objs\":[{\"n\":\"b\","
    "\"v\":2},{\"n\":\"A\",\"v\":1}]}";

static const char *const words[] = {
    "{{ ",
    " }}",
    "{% ",
    " %}",
    "{%- ",
    " -%}",
    "{# ",
    " #}",
    "for i in ",
    "endfor",
    "if ",
    "elif ",
    "else",
    "endif",
    "set a = ",
    "set ns.a = ",
    "endset",
    "macro m(a, b=1)",
    "endmacro",
    "call m()",
    "endcall",
    "caller()",
    "filter upper",
    "endfilter",
    "with a = 1",
    "endwith",
    "raw",
    "endraw",
    "break",
    "continue",
    "generation",
    "endgeneration",
    "block b",
    "endblock",
    "autoescape true",
    "endautoescape",
    " recursive",
    "loop",
    ".index",
    ".last",
    ".length",
    ".nextitem",
    ".previtem",
    ".cycle(",
    ".changed(",
    "loop(",
    "namespace(a=1)",
    "range(3)",
    "range(9, 0, -2)",
    "dict(",
    "cycler(",
    "joiner(",
    "strftime_now('%d')",
    "raise_exception('x')",
    " is defined",
    " is not ",
    " is string",
    " is mapping",
    " is divisibleby 3",
    " in ",
    " not in ",
    " and ",
    " or ",
    "not ",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    ".",
    " | ",
    " ~ ",
    " + ",
    " - ",
    " * ",
    " / ",
    " // ",
    " % ",
    " ** ",
    " == ",
    " < ",
    " >= ",
    "|join(',')",
    "|tojson",
    "|tojson(indent=2)",
    "|length",
    "|trim",
    "|list",
    "|map('upper')",
    "|map(attribute='n')",
    "|select('odd')",
    "|selectattr('role','equalto','user')",
    "|reject",
    "|default('q', true)",
    "|sort",
    "|unique",
    "|groupby('n')",
    "|batch(2, 'f')",
    "|slice(2)",
    "|dictsort",
    "|items",
    "|replace('a', 'b')",
    "|indent(2, true)",
    "|round(1)",
    "|int",
    "|float",
    "|first",
    "|last",
    "|reverse",
    "|sum",
    "|min",
    "|escape",
    "|safe",
    "|format(1)",
    "|truncate(5)",
    "|title",
    "|wordcount",
    "|urlencode",
    "|xmlattr",
    "|attr('a')",
    ".split(',')",
    ".rsplit(' ', 1)",
    ".strip('a')",
    ".upper()",
    ".format(1, a=2)",
    ".replace('', '-')",
    ".find('o')",
    ".startswith('H')",
    ".splitlines()",
    ".partition(' ')",
    ".title()",
    ".zfill(9)",
    ".center(9, '*')",
    ".get('b')",
    ".items()",
    ".keys()",
    "[1:]",
    "[::-1]",
    "[-2:9:3]",
    "messages",
    "tools",
    " x ",
    " f ",
    " s ",
    " u ",
    " l ",
    " d ",
    " n ",
    " big ",
    " objs ",
    " missing ",
    "ns",
    " 0 ",
    " 1 ",
    " -7 ",
    " 2.5 ",
    " 1e300 ",
    "9223372036854775807",
    "'a'",
    "'%5.2f|%s'",
    "'{:>5}{!r}{0[a].b}'",
    "'\\n'",
    "'é🎉'",
    "\"q\"",
    " if x else ",
    "*l",
    "**d",
    "none",
    "true",
    "\n",
    "  ",
};

size_t LLVMFuzzerCustomMutator (uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    const char *word = words[seed / 8 % (sizeof words / sizeof words[0])];
    size_t length = strlen (word), at = size ? seed / 1024 % (size + 1) : 0;
    if (seed % 4 != 0 || size + length > max_size)
        return LLVMFuzzerMutate (data, size, max_size);
    memmove (data + at + length, data + at, size - at);
    for (size_t i = 0; i < length; i++)
        data[at + i] = (uint8_t) word[i];
    return size + length;
}

static void check_result (const char *text, size_t length, const wl_error *err)
{
    if (!text && (err->code == WL_OK || err->text[0] == 0))
        abort ();
    if (text && (err->code != WL_OK || text[length] != 0))
        abort ();
    for (size_t i = 0, n; text && i < length; i += n)
        if (!(n = utf8_length (text + i, length - i)))
            abort ();
}

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
    static const struct tm now = {.tm_year = 125, .tm_mon = 2, .tm_mday = 14, .tm_wday = 5, .tm_yday = 72};
    const uint8_t *nul = size ? memchr (data, 0, size) : NULL;
    size_t source_length = nul ? (size_t) (nul - data) : size, length = 0;
    json_t *variables =
        nul ? json_loadb ((const char *) nul + 1, size - source_length - 1, JSON_ALLOW_NUL, NULL) : NULL;
    if (!variables)
        variables = json_loads (default_variables, 0, NULL);
    wl_error err = {0};
    char *text = NULL;
    wl_template *parsed = wl_template_parse ((const char *) data, source_length, &err);
    if (parsed)
        text = jinja_render (parsed, variables, &now, FUZZ_STEPS, &length, &err);
    check_result (text, length, &err);
    free (text);
    wl_template_free (&parsed);
    json_decref (variables);
    return 0;
}
