/* Bounded decoding of protobuf messages; see wire.h.
 *
 * A small message can describe many objects (two bytes make an empty sub-message of a hundred), so protobuf-c decodes into an allocator that counts down
 * from WL_HEADER_DECODED_LIMIT. After decoding, what protobuf leaves open is closed here: a oneof without a kind, absent sub-messages,
 * lists of any length, lists that belong together. */
#include "wire.h"

#include <stdlib.h>

#include "engine/memory.h"
#include "engine/text/sampler.h"
#include "proto/weights.h"

enum { OBJECT_OVERHEAD = 16 }; /* what malloc adds, so that many empty objects count too */

static void *take (void *data, size_t size)
{
    size_t *left = data;
    size_t wanted;
    if (__builtin_add_overflow (size, OBJECT_OVERHEAD, &wanted) || wanted > *left) {
        *left = 0;
        return NULL;
    }
    *left -= wanted;
    return wl_new (size, 1, NULL);
}

static void give_back (void *data, void *memory)
{
    (void) data;
    free (memory);
}

static ProtobufCMessage *decode (const ProtobufCMessageDescriptor *kind, const uint8_t *bytes, size_t length,
                                 wl_error *err)
{
    if (length > WL_HEADER_LIMIT) {
        wl_fail (err, WL_ERROR_CLUSTER, "a message of %zu bytes, where at most %d are allowed", length,
                 WL_HEADER_LIMIT);
        return NULL;
    }
    size_t left = WL_HEADER_DECODED_LIMIT;
    ProtobufCAllocator allocator = {.alloc = take, .free = give_back, .allocator_data = &left};
    ProtobufCMessage *message = protobuf_c_message_unpack (kind, &allocator, length, bytes);
    if (!message)
        wl_fail (err, WL_ERROR_CLUSTER,
                 left ? "a message that is no %s of this protocol" : "a %s message that describes too much",
                 kind->short_name);
    return message;
}

static void free_message (void *message)
{
    ProtobufCAllocator allocator = {.alloc = take, .free = give_back};
    if (message)
        protobuf_c_message_free_unpacked (message, &allocator);
}

static bool has_all (const void *array, size_t n)
{
    const void *const *places = array;
    for (size_t i = 0; i < n; i++)
        if (!places[i])
            return false;
    return true;
}

Woolly__Control *wl_control_decode (const uint8_t *bytes, size_t length, wl_error *err)
{
    Woolly__Control *message = (Woolly__Control *) decode (&woolly__control__descriptor, bytes, length, err);
    if (message &&
        (message->kind_case == WOOLLY__CONTROL__KIND__NOT_SET || !message->hello)) { /* any member of the union */
        wl_fail (err, WL_ERROR_CLUSTER, "a control message of no kind that this version knows");
        wl_control_free (&message);
    }
    if (message && message->kind_case == WOOLLY__CONTROL__KIND_LOAD &&
        !has_all (message->load->parts, message->load->n_parts)) {
        wl_fail (err, WL_ERROR_CLUSTER, "a plan with absent parts");
        wl_control_free (&message);
    }
    return message;
}

void wl_control_free (Woolly__Control **message)
{
    free_message (*message);
    *message = NULL;
}

static bool is_bounded_pick (const Woolly__Pick *pick)
{
    const Woolly__Sampling *s = pick->sampling;
    return pick->n_history <= WL_SAMPLING_MAX_HISTORY &&
           (!s || (s->n_bias_tokens <= WL_SAMPLING_MAX_BIASES && s->n_bias_values == s->n_bias_tokens));
}

static bool is_bounded_sample (const Woolly__Sample *sample)
{
    return sample->n_alternatives <= WL_SAMPLING_MAX_ALTERNATIVES &&
           sample->n_alternative_logprobs == sample->n_alternatives;
}

Woolly__Step *wl_step_decode (const uint8_t *bytes, size_t length, wl_error *err)
{
    Woolly__Step *step = (Woolly__Step *) decode (&woolly__step__descriptor, bytes, length, err);
    if (step && !(has_all (step->spans, step->n_spans) && has_all (step->picks, step->n_picks) &&
                  has_all (step->timings, step->n_timings))) {
        wl_fail (err, WL_ERROR_CLUSTER, "a step with absent parts");
        wl_step_free (&step);
    }
    for (size_t i = 0; step && i < step->n_picks; i++)
        if (!is_bounded_pick (step->picks[i])) {
            wl_fail (
                err, WL_ERROR_CLUSTER,
                "a step with a pick of %zu tokens of history, where at most %d are allowed, or an unsound logit bias",
                step->picks[i]->n_history, WL_SAMPLING_MAX_HISTORY);
            wl_step_free (&step);
        }
    return step;
}

void wl_step_free (Woolly__Step **step)
{
    free_message (*step);
    *step = NULL;
}

Woolly__Result *wl_result_decode (const uint8_t *bytes, size_t length, wl_error *err)
{
    Woolly__Result *result = (Woolly__Result *) decode (&woolly__result__descriptor, bytes, length, err);
    if (result && !(has_all (result->samples, result->n_samples) && has_all (result->timings, result->n_timings))) {
        wl_fail (err, WL_ERROR_CLUSTER, "a result with absent parts");
        wl_result_free (&result);
    }
    for (size_t i = 0; result && i < result->n_samples; i++)
        if (!is_bounded_sample (result->samples[i])) {
            wl_fail (err, WL_ERROR_CLUSTER,
                     "a result with a sample of %zu alternatives, where at most %d with a logprob each are allowed",
                     result->samples[i]->n_alternatives, WL_SAMPLING_MAX_ALTERNATIVES);
            wl_result_free (&result);
        }
    return result;
}

void wl_result_free (Woolly__Result **result)
{
    free_message (*result);
    *result = NULL;
}

/* -- weights ------------------------------------------------------------------------------------------------------------------------------ */

Woolly__WeightsAsk *wl_weights_ask_decode (const uint8_t *bytes, size_t length, wl_error *err)
{
    Woolly__WeightsAsk *ask = (Woolly__WeightsAsk *) decode (&woolly__weights_ask__descriptor, bytes, length, err);
    if (!ask)
        return NULL;
    bool holdings = ask->wanted == WOOLLY__WEIGHTS_WANTED__HOLDINGS;
    bool known =
        holdings || ask->wanted == WOOLLY__WEIGHTS_WANTED__BYTES || ask->wanted == WOOLLY__WEIGHTS_WANTED__HASH;
    if (known && (holdings ? ask->length == 0 : ask->length > 0 && ask->length <= WL_WEIGHTS_CHUNK_BYTES))
        return ask;
    wl_fail (err, WL_ERROR_CLUSTER, "%u bytes of weights are asked for, where 1 to %d are a chunk", ask->length,
             WL_WEIGHTS_CHUNK_BYTES);
    wl_weights_ask_free (&ask);
    return NULL;
}

void wl_weights_ask_free (Woolly__WeightsAsk **ask)
{
    free_message (*ask);
    *ask = NULL;
}

Woolly__WeightsChunk *wl_weights_chunk_decode (const uint8_t *bytes, size_t length, wl_error *err)
{
    Woolly__WeightsChunk *chunk =
        (Woolly__WeightsChunk *) decode (&woolly__weights_chunk__descriptor, bytes, length, err);
    if (chunk && !chunk->refusal[0] && chunk->hash.len != WL_WEIGHTS_HASH_BYTES) {
        wl_fail (err, WL_ERROR_CLUSTER, "a chunk of weights with a hash of %zu bytes, not %d", chunk->hash.len,
                 WL_WEIGHTS_HASH_BYTES);
        wl_weights_header_free (&chunk);
    }
    return chunk;
}

void wl_weights_header_free (Woolly__WeightsChunk **header)
{
    free_message (*header);
    *header = NULL;
}
