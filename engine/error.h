/* Errors as values.
 *
 * Whatever can fail takes a `wl_error *` as its last argument, fills it, and returns false or NULL. Nothing in engine/ or
 * proto/ prints or exits; only the programs' mains and commands do, and they use `code` as the exit status.
 * The text is one line: what failed, on which file or host, and what to do about it. The first failure is kept: a later
 * wl_fail on the same struct (from cleanup, say) changes nothing. */
#ifndef WL_ENGINE_ERROR_H
#define WL_ENGINE_ERROR_H

#include <stdbool.h>

enum {
    WL_OK = 0,
    WL_ERROR_USAGE = 2,    /* wrong flags */
    WL_ERROR_INPUT = 3,    /* bad file: model, prompt, tokens, template */
    WL_ERROR_CLUSTER = 4,  /* no workers, model does not fit, lost worker */
    WL_ERROR_INTERNAL = 5, /* out of memory, operating system failure, a bug */
};

typedef struct wl_error {
    int code;       /* WL_OK or one of the above */
    char text[512]; /* NUL-terminated, no newline; longer text is cut */
} wl_error;

/* Records a failure and returns false, so that `return wl_fail (err, …)` reads well. `err` may be NULL. Thread: any, one at
 * a time per struct. Control characters in the formatted text (a hostile file's names) are replaced by '?'. */
bool wl_fail (wl_error *err, int code, const char *format, ...) __attribute__ ((format (printf, 3, 4)));

#endif
