/* Text from files on its way to a terminal. */
#ifndef WL_COORDINATOR_ESCAPE_H
#define WL_COORDINATOR_ESCAPE_H

#include <stddef.h>
#include <stdio.h>

/* Prints bytes in a form that a terminal shows and does not obey: UTF-8 as it is, control characters, quotes, backslashes and bytes
 * that are not UTF-8 as \n, \', \\ or \x1b. */
void wl_print_escaped (FILE *out, const char *bytes, size_t length);

#endif
