/* The subcommands, one file each. `argv[0]` is the command's name. A command parses its flags, does its work, prints results to
 * stdout and everything else to stderr, and returns the exit code (0, or a wl_error code whose text it printed with
 * wl_command_failed). */
#ifndef WL_COORDINATOR_COMMANDS_H
#define WL_COORDINATOR_COMMANDS_H

#include "engine/error.h"

int wl_command_run (int argc, char **argv);
int wl_command_score (int argc, char **argv);
int wl_command_plan (int argc, char **argv);
int wl_command_inspect (int argc, char **argv);
int wl_command_tokenize (int argc, char **argv);
int wl_command_template (int argc, char **argv);
int wl_command_bench (int argc, char **argv);
int wl_command_requantize (int argc, char **argv);
int wl_command_trace (int argc, char **argv);

/* Prints "woolly COMMAND: TEXT" as one line on stderr; returns err->code. */
int wl_command_failed (const char *command, const wl_error *err);

#endif
