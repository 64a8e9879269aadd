/* The table of pre-tokenizers. Private to engine/text.
 *
 * A scheme is a list of steps, as in the models' own tokenizer.json: each step cuts every piece that the steps before it have
 * left, its matches and what lies between them becoming pieces of their own ("Isolated"). A step looks at one piece at a time, so
 * look-around never sees past a piece's ends. */
#ifndef ENGINE_TEXT_PRE_SCHEMES_H
#define ENGINE_TEXT_PRE_SCHEMES_H

#include "pretokenizer.h"

enum { MAX_PRE_STEPS = 6 };

typedef enum pre_step_kind {
    STEP_MATCHES,            /* cut out each match */
    STEP_GROUPS_OF_3,        /* matches are runs of digits: cut them out, and in threes from the right */
    STEP_BEFORE_GROUPS_OF_3, /* matches are runs of digits: cut before each three from the right, and nowhere else */
} pre_step_kind;

typedef struct pre_step {
    const char *expression; /* PCRE2 with UTF and UCP; NULL: no more steps */
    pre_step_kind kind;
} pre_step;

typedef struct pre_scheme {
    const char *name;
    const pre_step *steps; /* MAX_PRE_STEPS, or ended by one without an expression */
    pretokenizer_traits traits;
} pre_scheme;

/* NULL if no pre-tokenizer has that name. */
const pre_scheme *pre_scheme_find (wl_text name);

#endif
