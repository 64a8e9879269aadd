/* What an opened GGUF file holds. For gguf.c, which opens it, and gguf_values.c, which looks things up. */
#ifndef ENGINE_GGUF_PRIVATE_H
#define ENGINE_GGUF_PRIVATE_H

#include "gguf.h"
#include "name_table.h"

typedef struct pair {
    wl_gguf_pair shown;
    const uint8_t *value; /* an array's first element */
    uint64_t *texts;      /* of a text array: where element i's length stands, from the start of the part */
} pair;

typedef struct file_part {
    char *path;
    const uint8_t *bytes;
    size_t length;
    bool is_mapped;
    uint32_t version;
    uint64_t n_tensors;
    pair *pairs;
    size_t n_pairs;
    wl_name_table keys;
    char *tensor_names; /* NUL-terminated, one behind the other */
    size_t tensors_at;  /* where the tensor descriptions start */
    size_t header_end;  /* where tensor data starts */
    uint64_t alignment;
} file_part;

struct wl_gguf {
    file_part *parts;
    size_t n_parts;
    uint64_t file_bytes;
    wl_tensor *tensors;
    size_t n_tensors;
    wl_name_table tensor_table;
    bool header_only;
};

/* Bytes of one metadata value; 0 for texts, arrays and unknown types. */
size_t gguf_value_bytes (uint32_t type);

/* NULL if the part has no such key. */
const pair *gguf_find_pair (const file_part *part, const char *key);

/* The pair's value if it is an integer from 0 to `limit`; false otherwise, also for NULL. */
bool gguf_pair_u64 (const pair *p, uint64_t limit, uint64_t *out);

#endif
