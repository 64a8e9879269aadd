/* UTF-8, as strictly as PCRE2 takes it: shortest forms only, no surrogates, nothing above U+10FFFF. */
#ifndef ENGINE_TEXT_UTF8_H
#define ENGINE_TEXT_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How many bytes a character that starts with `lead` has; 0 if none does. */
static inline size_t utf8_lead_length (uint8_t lead)
{
    if (lead < 0x80)
        return 1;
    if (lead < 0xc2 || lead > 0xf4)
        return 0;
    return lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
}

/* Whether `second` may follow `lead` (of a character of several bytes). */
static inline bool utf8_second_fits (uint8_t lead, uint8_t second)
{
    uint8_t low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    uint8_t high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    return second >= low && second <= high;
}

/* Length of the character at `text`; 0 if there is none, or it is cut off after `left` bytes. */
static inline size_t utf8_length (const char *text, size_t left)
{
    const uint8_t *s = (const uint8_t *) text;
    size_t length = left ? utf8_lead_length (s[0]) : 0;
    if (length < 2)
        return length;
    if (length > left || !utf8_second_fits (s[0], s[1]))
        return 0;
    for (size_t i = 2; i < length; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    return length;
}

/* Whether `text` starts with the beginning of a character that more bytes could complete. */
static inline bool utf8_is_cut_off (const char *text, size_t left)
{
    const uint8_t *s = (const uint8_t *) text;
    size_t length = left ? utf8_lead_length (s[0]) : 0;
    if (length <= left || (left > 1 && !utf8_second_fits (s[0], s[1])))
        return false;
    for (size_t i = 2; i < left; i++)
        if ((s[i] & 0xc0) != 0x80)
            return false;
    return true;
}

/* The code point of a character that utf8_length accepted. */
static inline uint32_t utf8_code_point (const char *text, size_t length)
{
    const uint8_t *s = (const uint8_t *) text;
    uint32_t code = length == 1 ? s[0] : s[0] & (0xffu >> (length + 1));
    for (size_t i = 1; i < length; i++)
        code = code << 6 | (s[i] & 0x3f);
    return code;
}

/* Writes a code point as UTF-8; its length. */
static inline size_t utf8_write (uint32_t code, char out[4])
{
    if (code < 0x80) {
        out[0] = (char) code;
        return 1;
    }
    size_t length = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = length - 1; i > 0; i--, code >>= 6)
        out[i] = (char) (0x80 | (code & 0x3f));
    out[0] = (char) (uint8_t) (0xf00u >> length | code);
    return length;
}

#endif
