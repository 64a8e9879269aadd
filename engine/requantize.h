/* A copy of a model with its weights rounded to a smaller type: for a draft model that guesses what the model itself will say.
 *
 * Matrices are rounded; norms, biases, an expert router and what is as small already are copied, and so is the metadata, but for general.file_type and what said
 * that the model was split: the copy is one file. Rows are taken one at a time, so memory stays at some megabytes whatever the model's size. The file
 * is written under another name and renamed when it is whole.
 *
 * Thread: any. */
#ifndef WL_ENGINE_REQUANTIZE_H
#define WL_ENGINE_REQUANTIZE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "gguf.h"

typedef struct wl_requantize_options {
    uint32_t type;      /* of the layers' weights */
    uint32_t head_type; /* of the head and the embedding; may be the same */
    size_t n_threads;
    /* Called now and then; may be NULL. Return true to give up: WL_ERROR_INTERNAL "interrupted". */
    bool (*progress) (void *context, uint64_t done_bytes, uint64_t total_bytes); /* of the source */
    void *context;
} wl_requantize_options;

typedef struct wl_requantized {
    uint64_t bytes_before, bytes_after; /* of tensors */
    size_t n_rounded, n_copied;         /* tensors */
} wl_requantized;

/* "Q2_K" and so on, in any case. WL_ERROR_USAGE, with the list, for what nothing is rounded to. */
bool wl_requantize_type (const char *name, uint32_t *type, wl_error *err);

/* WL_ERROR_INPUT where rows are no whole number of blocks or hold what is no number, or where the file cannot be written; nothing is at `path` then that was not before. */
bool wl_requantize (const wl_gguf *gguf, const wl_requantize_options *options, const char *path, wl_requantized *out,
                    wl_error *err);

#endif
