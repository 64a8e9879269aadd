/* Any bytes as a GGUF file: opening it, and looking at all that it then says it holds. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "engine/gguf.h"
#include "engine/memory.h"

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

static uint64_t sum; /* so that reads are not optimized away */

static void touch (const void *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++)
        sum += ((const uint8_t *) bytes)[i];
}

static void look_at_pair (const wl_gguf *gguf, wl_gguf_pair pair)
{
    char *key = wl_copy_text (pair.key.data, pair.key.length, NULL);
    wl_text text;
    uint64_t u;
    int64_t i;
    double d;
    float f;
    bool b;
    if (!key)
        return;
    if (wl_gguf_text (gguf, key, &text))
        touch (text.data, text.length);
    sum += wl_gguf_u64 (gguf, key, &u) + wl_gguf_i64 (gguf, key, &i) + wl_gguf_f64 (gguf, key, &d) +
           wl_gguf_f32 (gguf, key, &f) + wl_gguf_bool (gguf, key, &b);
    for (size_t n = 0; n < pair.length; n++) {
        if (wl_gguf_array_text (gguf, key, n, &text))
            touch (text.data, text.length);
        sum += wl_gguf_array_i64 (gguf, key, n, &i) + wl_gguf_array_f32 (gguf, key, n, &f);
    }
    free (key);
}

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
    for (int header_only = 0; header_only < 2; header_only++) {
        wl_error err = {0};
        wl_gguf *gguf = header_only ? wl_gguf_open_header (data, size, "fuzz", &err)
                                    : wl_gguf_open_memory (data, size, "fuzz", &err);
        if (!gguf) {
            if (err.code != WL_ERROR_INPUT || !err.text[0])
                __builtin_trap ();
            continue;
        }
        wl_text header = wl_gguf_header (gguf);
        touch (header.data, header.length);
        for (size_t i = 0; i < wl_gguf_n_pairs (gguf); i++)
            look_at_pair (gguf, wl_gguf_pair_at (gguf, i));
        for (size_t i = 0; i < wl_gguf_n_tensors (gguf); i++) {
            const wl_tensor *t = wl_gguf_tensor (gguf, i);
            if (wl_gguf_find_tensor (gguf, t->name) != t || (t->data == NULL) != header_only)
                __builtin_trap ();
            if (t->data)
                touch (t->data, t->bytes);
        }
        wl_gguf_free (&gguf);
    }
    return 0;
}
