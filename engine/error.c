/* Errors as values; see error.h. */
#include "error.h"

#include <stdarg.h>
#include <stdio.h>

bool wl_fail (wl_error *err, int code, const char *format, ...)
{
    if (!err || err->code != WL_OK)
        return false;
    err->code = code;
    va_list args;
    va_start (args, format);
    vsnprintf (err->text, sizeof err->text, format, args);
    va_end (args);
    for (unsigned char *c = (unsigned char *) err->text; *c; c++)
        if (*c < 0x20 || *c == 0x7f)
            *c = '?';
    return false;
}
