/* Text from files on its way to a terminal; see escape.h. */
#include "escape.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* Bytes of the character at `s` if it is one that may be printed as it is, else 0. */
static size_t printable_length (const uint8_t *s, size_t left)
{
    if (s[0] < 0x80)
        return s[0] >= 0x20 && s[0] != 0x7f && s[0] != '\\' && s[0] != '\'' && s[0] != '"';
    size_t length = s[0] < 0xc2 || s[0] > 0xf4 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
    if (length == 0 || length > left)
        return 0;
    for (size_t i = 1; i < length; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    bool is_overlong = (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xf0 && s[1] < 0x90);
    bool is_outside = (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf4 && s[1] > 0x8f);
    bool is_control = s[0] == 0xc2 && s[1] < 0xa0;
    return is_overlong || is_outside || is_control ? 0 : length;
}

void wl_print_escaped (FILE *out, const char *bytes, size_t length)
{
    static const char named[] = "\n\r\t\\'\"", letters[] = "nrt\\'\"";
    for (size_t at = 0; at < length;) {
        size_t n = printable_length ((const uint8_t *) bytes + at, length - at);
        const char *name = bytes[at] ? strchr (named, bytes[at]) : NULL;
        if (n > 0)
            fwrite (bytes + at, 1, n, out);
        else if (name)
            fprintf (out, "\\%c", letters[name - named]);
        else
            fprintf (out, "\\x%02x", (unsigned) (uint8_t) bytes[at]);
        at += n ? n : 1;
    }
}
