/* woolly: the coordinator's command line. Each subcommand is a row of the table below and a file in commands/. */
#include <stdio.h>
#include <string.h>

#include "commands/commands.h"

typedef struct command {
    const char *name;
    int (*run) (int argc, char **argv);
    const char *summary;
} command;

static const command commands[] = {
    {"run", wl_command_run, "answer one prompt"},
    {"score", wl_command_score, "log-probabilities and perplexity of given tokens or text"},
    {"bench", wl_command_bench, "measure prefill, decode and several streams"},
    {"plan", wl_command_plan, "show how the model would be split, without running"},
    {"trace", wl_command_trace, "draw what each stage did when, from a file of --trace"},
    {"inspect", wl_command_inspect, "show a model's metadata and tensors"},
    {"tokenize", wl_command_tokenize, "turn text into token ids"},
    {"template", wl_command_template, "render a chat template"},
    {"requantize", wl_command_requantize, "write a smaller copy of a model"},
};
enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

static void print_usage (FILE *out)
{
    fprintf (out, "usage: woolly COMMAND [flags]      (woolly COMMAND --help lists them)\n\n");
    for (size_t i = 0; i < N_COMMANDS; i++)
        fprintf (out, "  %-10s %s\n", commands[i].name, commands[i].summary);
}

int main (int argc, char **argv)
{
    if (argc < 2) {
        print_usage (stderr);
        return WL_ERROR_USAGE;
    }
    if (strcmp (argv[1], "--help") == 0 || strcmp (argv[1], "-h") == 0 || strcmp (argv[1], "help") == 0) {
        print_usage (stdout);
        return 0;
    }
    if (strcmp (argv[1], "--version") == 0) {
        printf ("woolly %s\n", WOOLLY_VERSION);
        return 0;
    }
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (strcmp (argv[1], commands[i].name) == 0)
            return commands[i].run (argc - 1, argv + 1);
    fprintf (stderr, "woolly: unknown command \"%s\": run `woolly --help` for the list\n", argv[1]);
    return WL_ERROR_USAGE;
}
