/* Builds GGUF files in memory, sound ones and, since every part can be put in by hand, unsound ones. For tests only: it aborts when
 * memory is short. */
#ifndef TESTS_GGUF_BUILDER_H
#define TESTS_GGUF_BUILDER_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct bytes {
    uint8_t *data;
    size_t length, room;
} bytes;

typedef struct gguf_builder {
    uint32_t version;
    uint64_t n_pairs, n_tensors;
    bytes pairs, tensors;
    size_t data_bytes; /* behind the header */
    size_t alignment;
} gguf_builder;

static inline void put (bytes *b, const void *data, size_t length)
{
    if (b->length + length > b->room) {
        b->room = (b->length + length) * 2;
        b->data = realloc (b->data, b->room);
        if (!b->data)
            abort ();
    }
    if (length)
        memcpy (b->data + b->length, data, length);
    b->length += length;
}

static inline void put_u32 (bytes *b, uint32_t value)
{
    put (b, &value, sizeof value);
}

static inline void put_u64 (bytes *b, uint64_t value)
{
    put (b, &value, sizeof value);
}

static inline void put_text (bytes *b, const char *text, size_t length)
{
    put_u64 (b, length);
    put (b, text, length);
}

static inline gguf_builder new_builder (void)
{
    return (gguf_builder){.version = 3, .alignment = 32};
}

/* A key and the type of its value, which the caller puts behind it. */
static inline bytes *add_key (gguf_builder *g, const char *key, uint32_t type)
{
    put_text (&g->pairs, key, strlen (key));
    put_u32 (&g->pairs, type);
    g->n_pairs++;
    return &g->pairs;
}

static inline void add_value (gguf_builder *g, const char *key, uint32_t type, const void *value, size_t length)
{
    put (add_key (g, key, type), value, length);
}

static inline void add_u32 (gguf_builder *g, const char *key, uint32_t value)
{
    add_value (g, key, 4, &value, sizeof value);
}

static inline void add_u16 (gguf_builder *g, const char *key, uint16_t value)
{
    add_value (g, key, 2, &value, sizeof value);
}

static inline void add_bool (gguf_builder *g, const char *key, uint8_t value)
{
    add_value (g, key, 7, &value, sizeof value);
}

static inline void add_text (gguf_builder *g, const char *key, const char *text)
{
    put_text (add_key (g, key, 8), text, strlen (text));
}

/* An array of `count` elements of `type`, `length` bytes together. */
static inline void add_array (gguf_builder *g, const char *key, uint32_t type, uint64_t count, const void *elements,
                              size_t length)
{
    bytes *b = add_key (g, key, 9);
    put_u32 (b, type);
    put_u64 (b, count);
    put (b, elements, length);
}

static inline void add_texts (gguf_builder *g, const char *key, const char *const *texts, size_t count)
{
    add_array (g, key, 8, count, NULL, 0);
    for (size_t i = 0; i < count; i++)
        put_text (&g->pairs, texts[i], strlen (texts[i]));
}

static inline void add_tensor (gguf_builder *g, const char *name, uint32_t type, uint32_t n_dims, const uint64_t *dims,
                               uint64_t offset)
{
    put_text (&g->tensors, name, strlen (name));
    put_u32 (&g->tensors, n_dims);
    for (uint32_t d = 0; d < n_dims; d++)
        put_u64 (&g->tensors, dims[d]);
    put_u32 (&g->tensors, type);
    put_u64 (&g->tensors, offset);
    g->n_tensors++;
}

/* The file, in a block of exactly its size, for the caller to free. Data bytes count 0, 1, 2, … The builder is empty after. */
static inline uint8_t *build (gguf_builder *g, size_t *length)
{
    bytes file = {0};
    put (&file, "GGUF", 4);
    put_u32 (&file, g->version);
    put_u64 (&file, g->n_tensors);
    put_u64 (&file, g->n_pairs);
    put (&file, g->pairs.data, g->pairs.length);
    put (&file, g->tensors.data, g->tensors.length);
    while (g->data_bytes && file.length % g->alignment)
        put (&file, "", 1);
    uint8_t counting[256];
    for (size_t i = 0; i < sizeof counting; i++)
        counting[i] = (uint8_t) i;
    for (size_t i = 0; i < g->data_bytes; i += sizeof counting)
        put (&file, counting, g->data_bytes - i < sizeof counting ? g->data_bytes - i : sizeof counting);
    free (g->pairs.data);
    free (g->tensors.data);
    memset (g, 0, sizeof *g);
    uint8_t *exact = malloc (file.length);
    if (!exact)
        abort ();
    memcpy (exact, file.data, file.length);
    free (file.data);
    *length = file.length;
    return exact;
}

#endif
