/* Opening and closing a plan; see plan.h.
 *
 * A Load comes from a peer, so every number is checked against the model file and this worker's offer before anything is allocated in proportion to it. */
#include "plan.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/cache_folder.h"
#include "engine/kv_cache.h"
#include "engine/machine.h"
#include "engine/memory.h"
#include "proto/fingerprint.h"

enum { MAX_ROWS = 1 << 16, MAX_PAGES = 1 << 26, MAX_THREADS = 1024 };

/* -- the message -------------------------------------------------------------------------------------------------------------------------- */

static bool check_load (const Woolly__Load *load, wl_error *err)
{
    if (load->fingerprint.len != WL_FINGERPRINT_BYTES)
        return wl_fail (err, WL_ERROR_CLUSTER, "the plan's fingerprint has %zu bytes, not %d", load->fingerprint.len,
                        WL_FINGERPRINT_BYTES);
    if (load->first_layer > load->last_layer || load->max_rows == 0 || load->max_rows > MAX_ROWS ||
        load->n_pages == 0 || load->n_pages > MAX_PAGES || load->n_threads > MAX_THREADS)
        return wl_fail (err, WL_ERROR_CLUSTER, "a plan out of bounds: layers %u-%u, %u rows, %u pages, %u threads",
                        load->first_layer, load->last_layer, load->max_rows, load->n_pages, load->n_threads);
    if (load->hop >= WL_N_HOPS)
        return wl_fail (err, WL_ERROR_CLUSTER,
                        "the plan's hops are of a kind %u that this version does not know: are all of one version?",
                        load->hop);
    if (load->kv >= WL_N_KV_TYPES)
        return wl_fail (err, WL_ERROR_CLUSTER,
                        "the plan's KV cache is of a type %u that this version does not know: are all of one version?",
                        load->kv);
    if (load->rope_choice >= WL_N_ROPE_CHOICES)
        return wl_fail (err, WL_ERROR_CLUSTER,
                        "the plan's RoPE scaling is of a kind %u that this version does not know: are all of one "
                        "version?",
                        load->rope_choice);
    if (load->weights_endpoint[0] && !wl_link_endpoint_ok (load->weights_endpoint))
        return wl_fail (err, WL_ERROR_CLUSTER, "the plan's source of weights \"%s\" is no endpoint",
                        load->weights_endpoint);
    if (load->n_weights_peers > WL_WEIGHTS_MAX_PEERS)
        return wl_fail (err, WL_ERROR_CLUSTER, "the plan names %zu workers with weights, where %d are allowed",
                        load->n_weights_peers, WL_WEIGHTS_MAX_PEERS);
    for (size_t i = 0; i < load->n_weights_peers; i++)
        if (!wl_link_endpoint_ok (load->weights_peers[i]))
            return wl_fail (err, WL_ERROR_CLUSTER, "the plan's worker with weights at \"%s\" is at no endpoint",
                            load->weights_peers[i]);
    if (!wl_link_endpoint_ok (load->next_endpoint))
        return wl_fail (err, WL_ERROR_CLUSTER, "the plan's next stage \"%s\" is no endpoint", load->next_endpoint);
    return true;
}

/* -- the model ---------------------------------------------------------------------------------------------------------------------------- */

static bool open_model (plan *p, const plan_offer *offer, const load_progress *progress, wl_error *err)
{
    const Woolly__Load *load = p->order->load;
    if (!model_source_open (&p->source, load, &offer->source, progress, err))
        return false;
    p->model = p->source.model;
    if (load->last_layer >= p->model->n_layers)
        return wl_fail (err, WL_ERROR_CLUSTER, "the plan's layers %u-%u: %s has %u", load->first_layer,
                        load->last_layer, wl_gguf_path (p->source.gguf), p->model->n_layers);
    if (!wl_kv_type_fits ((wl_kv_type) load->kv, p->model->head_dim, err))
        return false;
    p->embeds = load->first_layer == 0;
    p->heads = load->last_layer + 1 == p->model->n_layers;
    return true;
}

/* -- memory -------------------------------------------------------------------------------------------------------------------------------- */

/* Bytes of one send buffer: a step's hidden states, or its rows of logits. */
static bool buffer_bytes (const plan *p, size_t *bytes, wl_error *err)
{
    size_t rows = p->heads ? p->max_logit_rows : p->max_rows, in;
    size_t row_bytes =
        p->heads ? wl_stage_logit_stride (p->model) * sizeof (float) : wl_hop_row_bytes (p->hop, p->model->d_model);
    if (__builtin_mul_overflow (rows ? rows : 1, row_bytes, bytes) || *bytes > WL_PAYLOAD_LIMIT ||
        __builtin_mul_overflow ((size_t) p->max_rows, p->model->d_model * sizeof (float), &in) || in > WL_PAYLOAD_LIMIT)
        return wl_fail (err, WL_ERROR_CLUSTER,
                        "steps of %u rows, %u of them with logits, are more than a message may hold (%d bytes)",
                        p->max_rows, p->max_logit_rows, WL_PAYLOAD_LIMIT);
    return true;
}

static bool check_memory (const plan *p, const wl_stage_options *options, size_t send_bytes, const plan_offer *offer,
                          wl_error *err)
{
    uint32_t n_layers = options->last_layer - options->first_layer + 1;
    uint64_t kv, need, page = wl_kv_page_bytes (options->kv, n_layers, p->model->n_kv_heads, p->model->head_dim);
    if (__builtin_mul_overflow (page, options->n_pages, &kv) || kv > UINT64_MAX / 4)
        return wl_fail (err, WL_ERROR_CLUSTER,
                        "a KV cache of %u pages is more than any machine has: choose a smaller --ctx",
                        options->n_pages);
    need = wl_stage_memory_needed (p->model, options) + send_bytes;
    if (offer->memory_bytes && need > offer->memory_bytes)
        return wl_fail (err, WL_ERROR_CLUSTER,
                        "layers %u-%u need %.1f MB and this worker has %.1f MB: give it fewer layers or more memory",
                        options->first_layer, options->last_layer, (double) need / 1e6,
                        (double) offer->memory_bytes / 1e6);
    return true;
}

static bool open_buffers (plan *p, size_t bytes, wl_error *err)
{
    /* Logits leave only for `score`, and are large: one buffer. Hidden states: one being filled, one being sent, one to spare. */
    uint32_t wanted = p->heads ? 1 : PLAN_SEND_BUFFERS;
    for (uint32_t i = 0; i < wanted; i++) {
        send_buffer *b = wl_new (1, sizeof *b, err);
        if (!b)
            return false;
        p->buffers[p->n_buffers++] = b;
        b->bytes = bytes;
        b->data = wl_map_pages (bytes, err);
        if (!b->data)
            return false;
    }
    return true;
}

static bool is_in_use (const send_buffer *b)
{
    return atomic_load_explicit (&b->in_use, memory_order_acquire);
}

send_buffer *plan_buffer_take (plan *p)
{
    for (uint32_t i = 0; i < p->n_buffers; i++)
        if (!is_in_use (p->buffers[i])) {
            atomic_store_explicit (&p->buffers[i]->in_use, true, memory_order_relaxed);
            return p->buffers[i];
        }
    return NULL;
}

void plan_buffer_release (void *bytes, void *context)
{
    (void) bytes;
    send_buffer *b = context;
    atomic_store_explicit (&b->in_use, false, memory_order_release);
}

/* After the socket is closed ZeroMQ lets go of its messages within moments, from its own thread. Should it not, the memory is left to it. */
static void close_buffers (plan *p)
{
    enum { PATIENCE_MS = 2000 };
    const struct timespec moment = {.tv_nsec = 1000000};
    for (uint32_t i = 0; i < p->n_buffers; i++) {
        send_buffer *b = p->buffers[i];
        for (int ms = 0; ms < PATIENCE_MS && is_in_use (b); ms++)
            nanosleep (&moment, NULL);
        if (is_in_use (b))
            continue;
        wl_unmap_pages (b->data, b->bytes);
        free (b);
    }
}

/* -- all of it -------------------------------------------------------------------------------------------------------------------------------- */

static bool open_work_space (plan *p, wl_error *err)
{
    p->spans = wl_new (p->max_rows, sizeof *p->spans, err);
    p->logit_rows = wl_new (p->max_rows, sizeof *p->logit_rows, err);
    p->samples = wl_new (p->max_logit_rows, sizeof *p->samples, err);
    p->sample_places = wl_new (p->max_logit_rows, sizeof *p->sample_places, err);
    size_t elements = (size_t) p->max_rows * p->model->d_model; /* within bounds: buffer_bytes */
    if (p->hop != WL_HOP_F32 && ((!p->embeds && !(p->arrived = wl_new (elements, sizeof *p->arrived, err))) ||
                                 (!p->heads && !(p->leaving = wl_new (elements, sizeof *p->leaving, err)))))
        return false;
    if (!p->spans || !p->logit_rows || !p->samples || !p->sample_places)
        return false;
    if (!p->heads)
        return true;
    p->drawn = wl_new (p->max_logit_rows, sizeof *p->drawn, err);
    p->sampler = wl_sampler_new (p->model->n_vocab, err);
    return p->drawn && p->sampler;
}

static void complain (const plan *p, const char *text)
{
    if (p->complains && *text)
        fprintf (stderr, "woolly-worker: warning: packed weights are not kept: %s\n", text);
}

/* Where packed weights of this model are kept, if anywhere: loading goes on without. */
static void open_pack_cache (plan *p, const plan_offer *offer)
{
    const Woolly__Load *load = p->order->load;
    char key[2 * WL_FINGERPRINT_BYTES + 1];
    wl_error trouble = {0};
    uint64_t least = offer->pack_least_bytes ? offer->pack_least_bytes : PLAN_PACK_LEAST_BYTES;
    p->complains = !offer->is_local || p->embeds;
    if (offer->no_pack_cache || load->no_pack_cache || wl_gguf_file_bytes (p->source.gguf) < least)
        return;
    for (size_t i = 0; i < WL_FINGERPRINT_BYTES; i++)
        snprintf (key + 2 * i, 3, "%02x", load->fingerprint.data[i]);
    char *folder = wl_cache_folder (offer->source.cache, &trouble);
    if (folder)
        p->pack_cache = wl_pack_cache_open (p->source.gguf, key, folder, offer->source.cache_bytes, &trouble);
    complain (p, trouble.text);
    free (folder);
}

static bool report_packing (void *context, uint64_t done_bytes, uint64_t total_bytes)
{
    const load_progress *progress = context;
    const load_state state = {
        .phase = WOOLLY__LOAD_PHASE__PACKING, .done_bytes = done_bytes, .total_bytes = total_bytes};
    return load_progress_report (progress, &state, NULL);
}

bool plan_open (plan *p, Woolly__Control *order, const plan_offer *offer, const load_progress *progress, wl_error *err)
{
    *p = (plan){.order = order, .epoch = order->load->epoch};
    const Woolly__Load *load = order->load;
    size_t send_bytes;
    if (!check_load (load, err) || !open_model (p, offer, progress, err))
        goto failed;
    p->max_rows = load->max_rows;
    p->hop = (wl_hop) load->hop;
    p->max_logit_rows = load->max_logit_rows < load->max_rows ? load->max_logit_rows : load->max_rows;
    wl_stage_options options = {.first_layer = load->first_layer,
                                .last_layer = load->last_layer,
                                .n_pages = load->n_pages,
                                .kv = (wl_kv_type) load->kv,
                                .max_rows = load->max_rows,
                                .context = load->context};
    options.kernels = wl_kernels_find (load->isa[0] ? load->isa : offer->isa, err);
    if (!options.kernels)
        goto failed;
    p->isa = options.kernels->isa;
    if (!buffer_bytes (p, &send_bytes, err) || !check_memory (p, &options, send_bytes, offer, err))
        goto failed;
    uint32_t n_threads = load->n_threads ? load->n_threads : offer->n_threads ? offer->n_threads : wl_machine_cores ();
    p->pool = wl_thread_pool_new (n_threads, err);
    if (!p->pool || !open_buffers (p, send_bytes, err) || !open_work_space (p, err))
        goto failed;
    options.pool = p->pool;
    if (!model_source_fill (&p->source, load, &offer->source, progress, err))
        goto failed;
    p->model = p->source.model;
    open_pack_cache (p, offer);
    options.pack_cache = p->pack_cache;
    p->stage = wl_stage_new (p->source.gguf, p->model, &options, report_packing, (void *) progress, err);
    if (!p->stage)
        goto failed;
    if (p->pack_cache) {
        complain (p, wl_pack_cache_trouble (p->pack_cache));
        wl_pack_cache_settle (p->pack_cache);
    }
    p->next = wl_link_new (WL_LINK_PUSH, WL_HEADER_LIMIT, err);
    if (p->next && wl_link_connect (p->next, load->next_endpoint, err))
        return true;
failed:
    plan_close (p);
    return false;
}

void plan_close (plan *p)
{
    zsock_destroy (&p->next);
    close_buffers (p);
    wl_stage_free (&p->stage);
    wl_pack_cache_close (&p->pack_cache);
    wl_thread_pool_free (&p->pool);
    wl_sampler_free (&p->sampler);
    model_source_close (&p->source);
    free (p->spans);
    free (p->logit_rows);
    free (p->drawn);
    free (p->samples);
    free (p->sample_places);
    free (p->timing_places);
    free (p->arrived);
    free (p->leaving);
    wl_control_free (&p->order);
    *p = (plan){0};
}
