/* Characters of recent Unicode versions, for character classes that do not depend on the age of the PCRE2 library. Private to
 * engine/text. */
#ifndef ENGINE_TEXT_NEW_CHARACTERS_H
#define ENGINE_TEXT_NEW_CHARACTERS_H

#include <stdint.h>

/* A character that Unicode 13 knows already (PCRE2 10.35, 2020) and that every expression of pre_schemes.c treats as Unicode 16
 * has it treat `code`: of the same category, and inside and outside the same explicit ranges. `code` itself, where it is as
 * old. Its UTF-8 is never longer than that of `code`. */
uint32_t character_stand_in (uint32_t code);

#endif
