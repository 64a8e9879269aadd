/* GGUF files: metadata and tensors, mapped and checked.
 *
 * Format: "GGUF" magic, version 2 or 3, little-endian; counts, key-value pairs, tensor descriptions, then aligned tensor data
 * (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md). The file is mapped read-only. Every count, length, offset
 * and dimension product is checked against the file's size before it is used and nothing is allocated in proportion to a
 * number that the file's size does not back: a hostile file gets WL_ERROR_INPUT and a sentence.
 *
 * A wl_gguf is immutable after opening: any thread may read it. */
#ifndef WL_ENGINE_GGUF_H
#define WL_ENGINE_GGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"

/* Element types of tensors: GGUF's numbers. */
typedef enum wl_type {
    WL_TYPE_F32 = 0,
    WL_TYPE_F16 = 1,
    WL_TYPE_Q4_0 = 2,
    WL_TYPE_Q4_1 = 3,
    WL_TYPE_Q5_0 = 6,
    WL_TYPE_Q5_1 = 7,
    WL_TYPE_Q8_0 = 8,
    WL_TYPE_Q2_K = 10,
    WL_TYPE_Q3_K = 11,
    WL_TYPE_Q4_K = 12,
    WL_TYPE_Q5_K = 13,
    WL_TYPE_Q6_K = 14,
    WL_TYPE_IQ2_XXS = 16,
    WL_TYPE_IQ2_XS = 17,
    WL_TYPE_IQ3_XXS = 18,
    WL_TYPE_IQ1_S = 19,
    WL_TYPE_IQ4_NL = 20,
    WL_TYPE_IQ3_S = 21,
    WL_TYPE_IQ2_S = 22,
    WL_TYPE_IQ4_XS = 23,
    WL_TYPE_IQ1_M = 29,
    WL_TYPE_BF16 = 30,
    WL_TYPE_TQ1_0 = 34,
    WL_TYPE_TQ2_0 = 35,
    WL_TYPE_MXFP4 = 39,
} wl_type;

/* Name ("Q4_K"), elements a block and bytes a block. NULL / 0 for a number GGUF does not use. Storage facts only: whether
 * Woolly can compute with a type is the kernels' word (wl_format_find in kernels.h). */
const char *wl_type_name (uint32_t type);
uint32_t wl_type_block_elements (uint32_t type);
uint32_t wl_type_block_bytes (uint32_t type);

typedef struct wl_tensor {
    const char *name; /* NUL-terminated, owned by the wl_gguf */
    uint32_t type;    /* a wl_type; may be one Woolly cannot compute with */
    uint32_t n_dims;  /* 1 to 4 */
    uint64_t dims[4]; /* dims[0] = columns (inner, contiguous), dims[1] = rows, …; unused ones are 1 */
    uint64_t bytes;   /* of the data */
    uint64_t offset;  /* of the data, from the start of its file */
    uint32_t part;    /* index of the file of a split model, 0 otherwise */
    const void *data; /* mapped; `bytes` long; NULL after wl_gguf_open_header */
} wl_tensor;

typedef enum wl_value_type { /* GGUF's numbers */
                             WL_VALUE_UINT8 = 0,
                             WL_VALUE_INT8 = 1,
                             WL_VALUE_UINT16 = 2,
                             WL_VALUE_INT16 = 3,
                             WL_VALUE_UINT32 = 4,
                             WL_VALUE_INT32 = 5,
                             WL_VALUE_FLOAT32 = 6,
                             WL_VALUE_BOOL = 7,
                             WL_VALUE_STRING = 8,
                             WL_VALUE_ARRAY = 9,
                             WL_VALUE_UINT64 = 10,
                             WL_VALUE_INT64 = 11,
                             WL_VALUE_FLOAT64 = 12,
} wl_value_type;

typedef struct wl_text { /* bytes in the mapping: not NUL-terminated */
    const char *data;
    size_t length;
} wl_text;

typedef struct wl_gguf wl_gguf;

/* Opens `path`. If it is the first part of a split model (name-00001-of-0000N.gguf, split.count > 1), opens all parts and
 * joins their tensors. NULL with WL_ERROR_INPUT and a one-line reason: missing, not GGUF, truncated (with the sizes), … */
wl_gguf *wl_gguf_open (const char *path, wl_error *err);
/* The same over bytes in memory (fuzzers, tests); the bytes must outlive the result. */
wl_gguf *wl_gguf_open_memory (const void *bytes, size_t length, const char *name, wl_error *err);
/* Over a header alone (wl_gguf_header of a file that is elsewhere): tensors are described, their `data` is NULL. Of a split model only
 * the first part's tensors are there. */
wl_gguf *wl_gguf_open_header (const void *bytes, size_t length, const char *name, wl_error *err);
void wl_gguf_free (wl_gguf **gguf);

const char *wl_gguf_path (const wl_gguf *gguf);
uint32_t wl_gguf_version (const wl_gguf *gguf);
uint64_t wl_gguf_file_bytes (const wl_gguf *gguf); /* all parts together */
/* The header (all before the tensor data) of part 0, for fingerprints and shipping. */
wl_text wl_gguf_header (const wl_gguf *gguf);

/* The files of the model, for shipping: all of their bytes, mapped, and how many of them are the header. */
typedef struct wl_gguf_part {
    const uint8_t *bytes;
    uint64_t file_bytes, header_bytes;
} wl_gguf_part;
size_t wl_gguf_n_parts (const wl_gguf *gguf);
wl_gguf_part wl_gguf_part_at (const wl_gguf *gguf, size_t index);

size_t wl_gguf_n_tensors (const wl_gguf *gguf);
const wl_tensor *wl_gguf_tensor (const wl_gguf *gguf, size_t index);
const wl_tensor *wl_gguf_find_tensor (const wl_gguf *gguf, const char *name); /* NULL if absent */

/* Takes the file's pages out of this process's memory (not out of the system's cache); what is read again comes back. The whole file, since a fault maps as
 * much around it as the cache holds in one piece, which may be megabytes of neighbouring tensors. Costs microseconds. Thread: any. */
void wl_gguf_drop_pages (const wl_gguf *gguf);
/* Has the system read `bytes` from `data` on, inside of the mapped file, in the background; what is beyond its end is left out. */
void wl_gguf_read_ahead (const wl_gguf *gguf, const void *data, size_t bytes);

/* Metadata. The getters return false when the key is absent or of another kind (any integer width counts as an integer if the
 * value fits; f32 and f64 and integers count as float); *out is then unchanged, so a caller sets its default first. */
bool wl_gguf_u32 (const wl_gguf *gguf, const char *key, uint32_t *out);
bool wl_gguf_u64 (const wl_gguf *gguf, const char *key, uint64_t *out);
bool wl_gguf_i64 (const wl_gguf *gguf, const char *key, int64_t *out);
bool wl_gguf_f32 (const wl_gguf *gguf, const char *key, float *out);
bool wl_gguf_f64 (const wl_gguf *gguf, const char *key, double *out);
bool wl_gguf_bool (const wl_gguf *gguf, const char *key, bool *out);
bool wl_gguf_text (const wl_gguf *gguf, const char *key, wl_text *out);

/* Arrays: length, or false when absent or not an array. Elements of fixed-width arrays by index (converted as above); text
 * arrays by index in O(1) (an index of offsets is built on opening). array_i64 reads bools as 0 and 1. */
bool wl_gguf_array (const wl_gguf *gguf, const char *key, wl_value_type *element, size_t *length);
bool wl_gguf_array_text (const wl_gguf *gguf, const char *key, size_t index, wl_text *out);
bool wl_gguf_array_i64 (const wl_gguf *gguf, const char *key, size_t index, int64_t *out);
bool wl_gguf_array_f32 (const wl_gguf *gguf, const char *key, size_t index, float *out);

/* Key-value pairs in file order, for `inspect`. */
typedef struct wl_gguf_pair {
    wl_text key;
    wl_value_type type;
    wl_value_type element; /* of an array */
    size_t length;         /* of an array */
} wl_gguf_pair;
size_t wl_gguf_n_pairs (const wl_gguf *gguf);
wl_gguf_pair wl_gguf_pair_at (const wl_gguf *gguf, size_t index);

#endif
