/* A folder of its own for each test: set-up and tear-down. */
#ifndef TESTS_FOLDER_H
#define TESTS_FOLDER_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char folder[64];

static int make_folder (void **state)
{
    (void) state;
    snprintf (folder, sizeof folder, "/tmp/woolly-test-XXXXXX");
    return mkdtemp (folder) ? 0 : -1;
}

static int remove_folder (void **state)
{
    (void) state;
    char command[128];
    snprintf (command, sizeof command, "rm -r '%s'", folder);
    return system (command);
}

#endif
