/* Whatever a peer sends is decoded within bounds or refused. The first byte chooses what the rest claims to be. What is decoded is walked, as its receivers
 * do, and encoded again, so that a part that lies outside the message would be seen. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proto/sampling.h"
#include "proto/weights.h"
#include "proto/wire.h"

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

static void encode_again (const ProtobufCMessage *message)
{
    size_t length = protobuf_c_message_get_packed_size (message);
    uint8_t *packed = malloc (length + 1);
    if (packed)
        protobuf_c_message_pack (message, packed);
    free (packed);
}

static void try_control (const uint8_t *data, size_t size)
{
    wl_error err = {0};
    Woolly__Control *control = wl_control_decode (data, size, &err);
    if (!control) {
        if (err.code == WL_OK)
            abort ();
        return;
    }
    if (control->kind_case == WOOLLY__CONTROL__KIND_HELLO)
        (void) wl_link_endpoint_ok (control->hello->data_endpoint);
    if (control->kind_case == WOOLLY__CONTROL__KIND_LOAD)
        (void) wl_link_endpoint_ok (control->load->next_endpoint);
    encode_again (&control->base);
    wl_control_free (&control);
}

/* As the last stage reads a pick, up to the draw. */
static uint64_t walk_pick (const Woolly__Pick *pick)
{
    wl_sampling sampling;
    uint64_t sum = pick->row;
    for (size_t i = 0; i < pick->n_history; i++)
        sum += pick->history[i];
    if (!pick->sampling || !wl_sampling_unpack (pick->sampling, &sampling, NULL))
        return sum;
    for (size_t i = 0; i < sampling.n_biases; i++)
        sum += sampling.bias_tokens[i] + (sampling.bias_values[i] > 0);
    return sum + sampling.seed + wl_sampling_history (&sampling);
}

static void try_step (const uint8_t *data, size_t size)
{
    wl_error err = {0};
    uint64_t sum = 0;
    Woolly__Step *step = wl_step_decode (data, size, &err);
    if (!step)
        return;
    for (size_t i = 0; i < step->n_spans; i++)
        for (size_t page = 0; page < step->spans[i]->n_pages; page++)
            sum += step->spans[i]->pages[page];
    for (size_t i = 0; i < step->n_picks; i++)
        sum += walk_pick (step->picks[i]);
    for (size_t i = 0; i < step->n_timings; i++)
        sum += step->timings[i]->ended_ns;
    encode_again (&step->base);
    wl_step_free (&step);
    if (sum == UINT64_C (0x123456789abcdef)) /* so that the walk is not left out */
        abort ();
}

static void try_result (const uint8_t *data, size_t size)
{
    wl_error err = {0};
    Woolly__Result *result = wl_result_decode (data, size, &err);
    if (!result)
        return;
    for (size_t i = 0; i < result->n_samples; i++) {
        wl_sample sample;
        wl_sample_unpack (result->samples[i], &sample);
        if (sample.n_alternatives > WL_SAMPLING_MAX_ALTERNATIVES)
            abort ();
    }
    encode_again (&result->base);
    wl_result_free (&result);
}

static void try_endpoint (const uint8_t *data, size_t size)
{
    char text[300], host[WL_HOST_BYTES];
    bool loopback, wildcard;
    size_t length = size < sizeof text - 1 ? size : sizeof text - 1;
    memcpy (text, data, length);
    text[length] = 0;
    if (wl_link_endpoint_ok (text) && strncmp (text, "tcp://", 6) == 0 &&
        !wl_link_host (text, host, &loopback, &wildcard))
        abort ();
}

static void try_ask (const uint8_t *data, size_t size)
{
    wl_error err = {0};
    Woolly__WeightsAsk *ask = wl_weights_ask_decode (data, size, &err);
    if (!ask)
        return;
    if ((ask->length == 0) != (ask->wanted == WOOLLY__WEIGHTS_WANTED__HOLDINGS) || ask->length > WL_WEIGHTS_CHUNK_BYTES)
        abort ();
    encode_again (&ask->base);
    wl_weights_ask_free (&ask);
}

static void try_chunk (const uint8_t *data, size_t size)
{
    wl_error err = {0};
    Woolly__WeightsChunk *chunk = wl_weights_chunk_decode (data, size, &err);
    if (!chunk)
        return;
    if (!chunk->refusal[0] && chunk->hash.len != WL_WEIGHTS_HASH_BYTES)
        abort ();
    encode_again (&chunk->base);
    wl_weights_header_free (&chunk);
}

/* What a worker says that it has: packed again it is the same, and each range holds itself. */
static void try_holdings (const uint8_t *data, size_t size)
{
    wl_error err = {0};
    size_t n = 0;
    wl_weights_range *held = wl_weights_holdings_unpack (data, size, &n, &err);
    uint8_t *packed = held ? malloc (size + 1) : NULL;
    if (!packed) {
        free (held);
        return;
    }
    wl_weights_holdings_pack (held, n, packed);
    if (n * WL_WEIGHTS_RANGE_BYTES != size || memcmp (packed, data, size) != 0)
        abort ();
    for (size_t i = 0; i < n; i++)
        if (!wl_weights_hold (held, n, held[i].part, held[i].offset + held[i].bytes - 1, 1) ||
            wl_weights_hold (held, i, held[i].part, held[i].offset, 1))
            abort ();
    free (packed);
    free (held);
}

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
    static void (*const kinds[]) (const uint8_t *, size_t) = {try_control, try_step,  try_result,  try_endpoint,
                                                              try_ask,     try_chunk, try_holdings};
    if (size > 0)
        kinds[data[0] % (sizeof kinds / sizeof kinds[0])](data + 1, size - 1);
    return 0;
}
