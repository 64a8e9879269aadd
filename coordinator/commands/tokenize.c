/* woolly tokenize: text to token ids. Needs the vocabulary only, so it works on files without tensors. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "coordinator/escape.h"
#include "coordinator/options.h"
#include "engine/gguf.h"
#include "engine/text/tokenizer.h"

enum { TEXT_LIMIT = 256 << 20 };

typedef struct tokenize_flags {
    const char *model, *prompt, *file;
    bool add_bos, parse_special, json;
} tokenize_flags;

static void print_json (const wl_tokens *tokens)
{
    printf ("{\"ids\":[");
    for (size_t i = 0; i < tokens->count; i++)
        printf ("%s%d", i ? "," : "", tokens->ids[i]);
    printf ("]}\n");
}

/* One line a token: its id, and its bytes in quotes. */
static void print_lines (const wl_tokenizer *tokenizer, const wl_tokens *tokens)
{
    for (size_t i = 0; i < tokens->count; i++) {
        wl_text text;
        wl_tokenizer_token_text (tokenizer, tokens->ids[i], true, &text);
        printf ("%d '", tokens->ids[i]);
        wl_print_escaped (stdout, text.data, text.length);
        printf ("'\n");
    }
}

static bool tokenize (const tokenize_flags *f, wl_error *err)
{
    bool ok = false;
    char *read = NULL;
    const char *text = f->prompt;
    size_t length = text ? strlen (text) : 0;
    wl_tokens tokens = {0};
    wl_tokenizer *tokenizer = NULL;
    wl_gguf *gguf = wl_gguf_open (f->model, err);
    if (!gguf)
        return false;
    tokenizer = wl_tokenizer_new (gguf, err);
    if (!tokenizer)
        goto done;
    if (!text)
        text = read = wl_read_file (f->file ? f->file : "-", TEXT_LIMIT, &length, err);
    if (!text || !wl_tokenizer_encode (tokenizer, text, length, f->add_bos, f->parse_special, &tokens, err))
        goto done;
    if (f->json)
        print_json (&tokens);
    else
        print_lines (tokenizer, &tokens);
    if (fflush (stdout) != 0) {
        wl_fail (err, WL_ERROR_INTERNAL, "the output cannot be written");
        goto done;
    }
    ok = true;
done:
    free (tokens.ids);
    free (read);
    wl_tokenizer_free (&tokenizer);
    wl_gguf_free (&gguf);
    return ok;
}

int wl_command_tokenize (int argc, char **argv)
{
    tokenize_flags f = {.add_bos = true, .parse_special = true};
    wl_error err = {0};
    bool help;
    const wl_option own[] = {
        {'m', "model", WL_OPTION_TEXT, &f.model, "MODEL", "GGUF file; one with a vocabulary alone will do", NULL},
        {'p', "prompt", WL_OPTION_TEXT, &f.prompt, "TEXT", "the text", NULL},
        {'f', "file", WL_OPTION_TEXT, &f.file, "FILE", "read the text from a file (stdin without -p and -f)", NULL},
        {0, "no-bos", WL_OPTION_CLEAR, &f.add_bos, NULL, "leave out the tokens that the model would add", NULL},
        {0, "no-special", WL_OPTION_CLEAR, &f.parse_special, NULL, "take special tokens in the text for plain text",
         NULL},
        {0, "json", WL_OPTION_FLAG, &f.json, NULL, "print {\"ids\":[…]}", NULL},
    };
    const wl_option_table table = {own, sizeof own / sizeof own[0]};
    if (!wl_options_parse ("tokenize -m MODEL [-p TEXT | -f FILE] [flags]", &table, 1, argc, argv, NULL, &help, &err) ||
        help)
        goto done;
    if (!f.model)
        wl_fail (&err, WL_ERROR_USAGE, "which model? Name a GGUF file with -m MODEL");
    else if (f.prompt && f.file)
        wl_fail (&err, WL_ERROR_USAGE, "-p and -f both give a text: choose one");
    else
        tokenize (&f, &err);
done:
    return err.code == WL_OK ? 0 : wl_command_failed ("tokenize", &err);
}
