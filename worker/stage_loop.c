/* The data plane of a worker; see stage_loop.h.
 *
 * Orders travel in a slot under a mutex, with a word on the actor's pipe to wake the thread; `wanted_epoch` tells a busy thread that its plan is over. A step of
 * another epoch is dropped without a word (it belongs to a plan that ended). A step of this epoch that breaks a bound means that the coordinator
 * and this worker disagree about the plan: that is reported, since dropping it would leave the coordinator waiting. */
#include "stage_loop.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/machine.h"
#include "engine/memory.h"
#include "proto/sampling.h"

enum { MAX_TIMINGS = 4096, MAX_CANCELLED = 64, SEND_TURN_MS = 100, PROGRESS_EVERY_MS = 100, DROPPED_EVERY_MS = 1000 };

typedef struct id_range {
    uint64_t first, last;
} id_range;

struct stage_loop {
    zactor_t *actor; /* the control thread's */
    plan_offer offer;
    const char *address;

    pthread_mutex_t mutex;
    Woolly__Control *order;            /* under the mutex: the newest Load not yet begun */
    char *endpoint;                    /* under the mutex: set by the data thread before it is ready */
    wl_error start_error;              /* under the mutex, likewise */
    id_range cancelled[MAX_CANCELLED]; /* under the mutex: a ring; a range that is lost here only costs time */
    size_t n_cancelled;                /* under the mutex: ever, of this plan */

    atomic_uint_fast64_t wanted_epoch; /* set by the control thread; the data thread gives up whatever is of another */
    atomic_uint_fast64_t busy_ns, steps; /* added by the data thread, read by the control thread */

    /* the data thread's own */
    zsock_t *pipe, *pull;
    plan plan;
    bool has_plan;
    uint64_t progress_ns, dropped_ns; /* when those events were last sent */
};

/* -- events (data thread) --------------------------------------------------------------------------------------------------------------- */

static void send_event (stage_loop *loop, const stage_event *event, int flags)
{
    zmq_send (zsock_resolve (loop->pipe), event, sizeof *event, flags);
}

static void report_failure (stage_loop *loop, uint64_t epoch, const wl_error *error)
{
    stage_event event = {.kind = STAGE_FAILED, .epoch = epoch, .error = *error};
    send_event (loop, &event, 0);
}

static void report_dropped (stage_loop *loop, const wl_error *error)
{
    uint64_t now = wl_now_ns ();
    if (now - loop->dropped_ns < DROPPED_EVERY_MS * 1000000u)
        return;
    loop->dropped_ns = now;
    stage_event event = {.kind = STAGE_DROPPED, .error = *error};
    send_event (loop, &event, ZMQ_DONTWAIT);
}

static bool is_wanted (stage_loop *loop, uint64_t epoch)
{
    return atomic_load (&loop->wanted_epoch) == epoch;
}

/* -- a step --------------------------------------------------------------------------------------------------------------------------------- */

/* Checks what wl_stage_check does not see: the message's own counts, and that the payload is what they say. */
static bool check_step (const plan *p, const wl_packet *packet, wl_error *err)
{
    const Woolly__Step *step = packet->step;
    uint64_t expected =
        p->embeds || step->skipped ? 0 : (uint64_t) step->n_rows * wl_hop_row_bytes (p->hop, p->model->d_model);
    if (step->id <= p->last_id)
        return wl_fail (err, WL_ERROR_INTERNAL, "step %llu came after step %llu", (unsigned long long) step->id,
                        (unsigned long long) p->last_id);
    if (packet->payload_bytes != expected)
        return wl_fail (err, WL_ERROR_INTERNAL, "a step of %u rows with %zu bytes of activations, where %llu belong",
                        step->n_rows, packet->payload_bytes, (unsigned long long) expected);
    if (step->n_picks > p->max_logit_rows || step->n_timings >= MAX_TIMINGS)
        return wl_fail (err, WL_ERROR_INTERNAL, "a step with %zu picks and %zu timings, where %u picks are planned",
                        step->n_picks, step->n_timings, p->max_logit_rows);
    if (step->skipped)
        return true;
    if (step->n_rows == 0 || step->n_rows > p->max_rows || step->n_tokens != step->n_rows ||
        step->n_spans > step->n_rows)
        return wl_fail (err, WL_ERROR_INTERNAL,
                        "a step of %u rows with %zu tokens and %zu spans, where 1 to %u rows are planned", step->n_rows,
                        step->n_tokens, step->n_spans, p->max_rows);
    for (size_t i = 0; i < step->n_picks; i++)
        if (step->picks[i]->row >= step->n_rows || (i && step->picks[i]->row <= step->picks[i - 1]->row))
            return wl_fail (err, WL_ERROR_INTERNAL, "the picks of a step are out of order, or beyond its %u rows",
                            step->n_rows);
    return true;
}

static wl_batch read_batch (plan *p, const Woolly__Step *step)
{
    for (size_t i = 0; i < step->n_spans; i++) {
        const Woolly__Span *span = step->spans[i];
        p->spans[i] = (wl_span){.n_rows = span->n_rows,
                                .first_position = span->first_position,
                                .pages = span->pages,
                                .n_pages = span->n_pages > UINT32_MAX ? UINT32_MAX : (uint32_t) span->n_pages,
                                .copies = span->copies,
                                .copied_page = span->copied_page};
    }
    for (size_t i = 0; i < step->n_picks; i++)
        p->logit_rows[i] = step->picks[i]->row;
    return (wl_batch){.n_rows = step->n_rows,
                      .n_spans = (uint32_t) step->n_spans,
                      .spans = p->spans,
                      .tokens = step->tokens,
                      .logit_rows = p->logit_rows,
                      .n_logit_rows = (uint32_t) step->n_picks};
}

/* Draws the tokens that picks ask for. Rows of a pick and spans both ascend, so one pass finds every row's position. */
static bool draw_samples (plan *p, const Woolly__Step *step, const float *logits, size_t *n_samples, wl_error *err)
{
    size_t stride = wl_stage_logit_stride (p->model), span = 0, span_start = 0;
    *n_samples = 0;
    for (size_t i = 0; i < step->n_picks; i++) {
        const Woolly__Pick *pick = step->picks[i];
        while (pick->row >= span_start + p->spans[span].n_rows)
            span_start += p->spans[span++].n_rows;
        if (!pick->sampling)
            continue;
        wl_sampling sampling;
        wl_sample *sample = &p->drawn[*n_samples];
        wl_draw draw = {.sampling = &sampling,
                        .position = (uint64_t) p->spans[span].first_position + (pick->row - span_start) + 1,
                        .history = pick->history,
                        .n_history = pick->n_history,
                        .mirostat_mu = pick->mirostat_mu};
        if (!wl_sampling_unpack (pick->sampling, &sampling, err) ||
            !wl_sampler_draw (p->sampler, logits + i * stride, &draw, sample, err))
            return false;
        Woolly__Sample *message = &p->samples[*n_samples];
        wl_sample_pack (sample, message);
        p->sample_places[(*n_samples)++] = message;
    }
    return true;
}

/* Moves the rows that the coordinator wants to the front, n_vocab apart. */
static uint32_t gather_raw_rows (const plan *p, const Woolly__Step *step, float *logits)
{
    size_t stride = wl_stage_logit_stride (p->model), n_vocab = p->model->n_vocab;
    uint32_t n = 0;
    for (size_t i = 0; i < step->n_picks; i++)
        if (step->picks[i]->raw_logits)
            memmove (logits + n++ * n_vocab, logits + i * stride, n_vocab * sizeof *logits);
    return n;
}

/* Passes a step or a result on, with `bytes` of the buffer (NULL: without a payload), waiting while the receiver is behind. True also when the plan ended meanwhile. */
static bool pass_on (stage_loop *loop, const Woolly__Step *step, const Woolly__Result *result, send_buffer *buffer,
                     size_t bytes, wl_error *err)
{
    plan *p = &loop->plan;
    void *data = buffer ? buffer->data : NULL;
    void (*release) (void *, void *) = buffer ? plan_buffer_release : NULL;
    for (;;) {
        bool sent = step ? wl_step_send (p->next, step, data, bytes, release, buffer, SEND_TURN_MS, err)
                         : wl_result_send (p->next, result, data, bytes, release, buffer, SEND_TURN_MS, err);
        if (sent || err->code != WL_OK)
            return sent;
        if (!is_wanted (loop, p->epoch)) {
            if (buffer)
                plan_buffer_release (data, buffer);
            return true;
        }
    }
}

/* The buffer to compute into. All are taken only while the next stage is behind by as many steps, so a short nap costs nothing. NULL: the plan ended. */
static send_buffer *wait_for_buffer (stage_loop *loop)
{
    const struct timespec nap = {.tv_nsec = 200000};
    send_buffer *buffer;
    while (!(buffer = plan_buffer_take (&loop->plan))) {
        if (!is_wanted (loop, loop->plan.epoch))
            return NULL;
        nanosleep (&nap, NULL);
    }
    return buffer;
}

/* The step's timings with this stage's behind them, in the plan's work space. */
static bool append_timing (plan *p, const Woolly__Step *step, Woolly__Timing *own, wl_error *err)
{
    if (p->n_timing_room < step->n_timings + 1) {
        Woolly__Timing **grown = wl_resize (p->timing_places, step->n_timings + 1, sizeof *grown, err);
        if (!grown)
            return false;
        p->timing_places = grown;
        p->n_timing_room = step->n_timings + 1;
    }
    if (step->n_timings)
        memcpy (p->timing_places, step->timings, step->n_timings * sizeof *p->timing_places);
    p->timing_places[step->n_timings] = own;
    return true;
}

static bool send_result (stage_loop *loop, const Woolly__Step *step, size_t n_samples, send_buffer *buffer,
                         wl_error *err)
{
    plan *p = &loop->plan;
    Woolly__Result result = WOOLLY__RESULT__INIT;
    result.epoch = p->epoch;
    result.id = step->id;
    result.n_samples = n_samples;
    result.samples = p->sample_places;
    result.n_timings = step->n_timings + 1;
    result.timings = p->timing_places;
    result.n_raw_rows = gather_raw_rows (p, step, buffer->data);
    return pass_on (loop, NULL, &result, buffer, result.n_raw_rows * (size_t) p->model->n_vocab * sizeof (float), err);
}

static bool send_step (stage_loop *loop, const Woolly__Step *step, send_buffer *buffer, wl_error *err)
{
    plan *p = &loop->plan;
    Woolly__Step onward = *step;
    onward.n_timings = step->n_timings + 1;
    onward.timings = p->timing_places;
    return pass_on (loop, &onward, NULL, buffer, step->n_rows * wl_hop_row_bytes (p->hop, p->model->d_model), err);
}

static bool is_cancelled (stage_loop *loop, uint64_t id)
{
    bool found = false;
    pthread_mutex_lock (&loop->mutex);
    size_t n = loop->n_cancelled < MAX_CANCELLED ? loop->n_cancelled : MAX_CANCELLED;
    for (size_t i = 0; i < n && !found; i++)
        found = id >= loop->cancelled[i].first && id <= loop->cancelled[i].last;
    pthread_mutex_unlock (&loop->mutex);
    return found;
}

/* Passes a cancelled step on without computing it: the coordinator counts what is under way. */
static bool skip (stage_loop *loop, const Woolly__Step *step, Woolly__Timing *timing, wl_error *err)
{
    plan *p = &loop->plan;
    timing->began_ns = timing->ended_ns = timing->received_ns;
    if (!append_timing (p, step, timing, err))
        return false;
    if (p->heads) {
        Woolly__Result result = WOOLLY__RESULT__INIT;
        result.epoch = p->epoch;
        result.id = step->id;
        result.skipped = true;
        result.n_timings = step->n_timings + 1;
        result.timings = p->timing_places;
        return pass_on (loop, NULL, &result, NULL, 0, err);
    }
    Woolly__Step onward = WOOLLY__STEP__INIT;
    onward.epoch = p->epoch;
    onward.id = step->id;
    onward.skipped = true;
    onward.n_timings = step->n_timings + 1;
    onward.timings = p->timing_places;
    return pass_on (loop, &onward, NULL, NULL, 0, err);
}

/* The layers' part of a step, with what hops make of activations before and behind it. */
static bool forward (plan *p, const wl_packet *packet, const wl_batch *batch, void *out, wl_error *err)
{
    const float *in = p->embeds ? NULL : (const float *) (const void *) packet->payload; /* wire.c aligns it */
    size_t width = p->model->d_model;
    if (p->arrived) {
        wl_hop_decode (p->hop, packet->payload, batch->n_rows, width, p->arrived);
        in = p->arrived;
    }
    if (!p->leaving)
        return wl_stage_forward (p->stage, batch, in, out, err);
    if (!wl_stage_forward (p->stage, batch, in, p->leaving, err))
        return false;
    wl_hop_encode (p->hop, p->leaving, batch->n_rows, width, out);
    return true;
}

static bool compute (stage_loop *loop, const wl_packet *packet, Woolly__Timing *timing, wl_error *err)
{
    plan *p = &loop->plan;
    const Woolly__Step *step = packet->step;
    size_t n_samples = 0;
    wl_batch batch = read_batch (p, step);
    send_buffer *buffer = wait_for_buffer (loop);
    if (!buffer)
        return true;
    timing->began_ns = wl_now_ns ();
    if (!forward (p, packet, &batch, buffer->data, err) ||
        (p->heads && !draw_samples (p, step, buffer->data, &n_samples, err)) || !append_timing (p, step, timing, err)) {
        plan_buffer_release (buffer->data, buffer);
        return false;
    }
    timing->ended_ns = wl_now_ns ();
    atomic_fetch_add (&loop->busy_ns, timing->ended_ns - timing->began_ns);
    atomic_fetch_add (&loop->steps, 1);
    return p->heads ? send_result (loop, step, n_samples, buffer, err) : send_step (loop, step, buffer, err);
}

/* One step, from its arrival until it is on its way to the next stage. */
static bool carry_out (stage_loop *loop, const wl_packet *packet, wl_error *err)
{
    plan *p = &loop->plan;
    const Woolly__Step *step = packet->step;
    Woolly__Timing timing = WOOLLY__TIMING__INIT;
    timing.received_ns = wl_now_ns ();
    timing.freed_ns = p->idle_since_ns;
    if (!check_step (p, packet, err))
        return false;
    p->last_id = step->id;
    bool ok = step->skipped || is_cancelled (loop, step->id) ? skip (loop, step, &timing, err)
                                                             : compute (loop, packet, &timing, err);
    p->idle_since_ns = wl_now_ns ();
    return ok;
}

static void take_step (stage_loop *loop)
{
    wl_packet packet;
    wl_error err = {0};
    plan *p = &loop->plan;
    if (!wl_step_receive (loop->pull, 0, &packet, &err)) {
        if (err.code != WL_OK)
            report_dropped (loop, &err);
    } else if (loop->has_plan && !p->failed && packet.step->epoch == p->epoch && is_wanted (loop, p->epoch)) {
        if (!carry_out (loop, &packet, &err)) {
            p->failed = true;
            report_failure (loop, p->epoch, &err);
        }
    }
    wl_packet_free (&packet);
}

/* -- orders ------------------------------------------------------------------------------------------------------------------------------------ */

static bool on_progress (void *context, const load_state *state)
{
    stage_loop *loop = context;
    uint64_t epoch = loop->plan.epoch, now = wl_now_ns ();
    if (now - loop->progress_ns >= PROGRESS_EVERY_MS * 1000000u) {
        stage_event event = {.kind = STAGE_PROGRESS, .epoch = epoch, .state = *state};
        send_event (loop, &event, ZMQ_DONTWAIT);
        loop->progress_ns = now;
    }
    return is_wanted (loop, epoch);
}

static void on_warning (void *context, const char *text)
{
    stage_loop *loop = context;
    stage_event event = {.kind = STAGE_WARNED, .epoch = loop->plan.epoch};
    snprintf (event.error.text, sizeof event.error.text, "%s", text);
    send_event (loop, &event, ZMQ_DONTWAIT);
}

static void close_plan (stage_loop *loop)
{
    if (loop->has_plan)
        plan_close (&loop->plan);
    loop->has_plan = false;
}

static void begin_load (stage_loop *loop)
{
    wl_error err = {0};
    pthread_mutex_lock (&loop->mutex);
    Woolly__Control *order = loop->order;
    loop->order = NULL;
    pthread_mutex_unlock (&loop->mutex);
    if (!order)
        return;
    uint64_t epoch = order->load->epoch;
    close_plan (loop);
    atomic_store (&loop->busy_ns, 0);
    atomic_store (&loop->steps, 0);
    const load_progress progress = {on_progress, loop, on_warning};
    loop->has_plan = plan_open (&loop->plan, order, &loop->offer, &progress, &err);
    if (!loop->has_plan) {
        if (is_wanted (loop, epoch)) /* else it was cancelled */
            report_failure (loop, epoch, &err);
        return;
    }
    loop->plan.idle_since_ns = wl_now_ns ();
    stage_event event = {.kind = STAGE_LOADED,
                         .epoch = epoch,
                         .weight_bytes = wl_stage_weight_bytes (loop->plan.stage),
                         .shipped = loop->plan.source.shipped,
                         .shipping_ns = loop->plan.source.shipping_ns,
                         .weights = loop->plan.source.from,
                         .kept_bytes = loop->plan.pack_cache ? wl_pack_cache_found_bytes (loop->plan.pack_cache) : 0,
                         .n_threads = (uint32_t) wl_thread_pool_size (loop->plan.pool)};
    snprintf (event.isa, sizeof event.isa, "%s", loop->plan.isa);
    send_event (loop, &event, 0);
}

/* Obeys one word of the control thread; false when it was the last. */
static bool obey (stage_loop *loop)
{
    char word[16] = "";
    int length = zmq_recv (zsock_resolve (loop->pipe), word, sizeof word - 1, ZMQ_DONTWAIT);
    if (length < 0)
        return true;
    if (strcmp (word, "LOAD") == 0)
        begin_load (loop);
    else if (strcmp (word, "DROP") == 0)
        close_plan (loop);
    return strcmp (word, "END") != 0 && strcmp (word, "$TERM") != 0;
}

static bool open_pull (stage_loop *loop)
{
    wl_error err = {0};
    char *endpoint = NULL;
    loop->pull = wl_link_new (WL_LINK_PULL, WL_PAYLOAD_LIMIT, &err);
    bool ok = loop->pull && wl_link_bind (loop->pull, loop->address, NULL, &endpoint, &err);
    pthread_mutex_lock (&loop->mutex);
    loop->endpoint = endpoint;
    loop->start_error = err;
    pthread_mutex_unlock (&loop->mutex);
    return ok;
}

static void run (zsock_t *pipe, void *args)
{
    stage_loop *loop = args;
    loop->pipe = pipe;
    wl_machine_compute_thread ();
    bool running = open_pull (loop);
    zsock_signal (pipe, 0);
    while (running) {
        zmq_pollitem_t items[2] = {{.socket = zsock_resolve (pipe), .events = ZMQ_POLLIN},
                                   {.socket = zsock_resolve (loop->pull), .events = ZMQ_POLLIN}};
        if (zmq_poll (items, 2, -1) < 0 && errno != EINTR)
            break; /* ZeroMQ ended below us: the process exits */
        if (items[0].revents & ZMQ_POLLIN)
            running = obey (loop);
        else if (items[1].revents & ZMQ_POLLIN)
            take_step (loop);
    }
    close_plan (loop);
    zsock_destroy (&loop->pull);
    stage_event event = {.kind = STAGE_ENDED};
    send_event (loop, &event, ZMQ_DONTWAIT);
    pthread_mutex_lock (
        &loop->mutex); /* all of the above happens before what the control thread does under the mutex */
    pthread_mutex_unlock (&loop->mutex);
}

/* -- for the control thread -------------------------------------------------------------------------------------------------------------------- */

static void free_loop (stage_loop **loop)
{
    stage_loop *l = *loop;
    zactor_destroy (&l->actor);
    pthread_mutex_lock (&l->mutex);
    wl_control_free (&l->order);
    free (l->endpoint);
    pthread_mutex_unlock (&l->mutex);
    pthread_mutex_destroy (&l->mutex);
    free (l);
    *loop = NULL;
}

stage_loop *stage_loop_new (const plan_offer *offer, wl_weight_server *server, const char *address, char **endpoint,
                            wl_error *err)
{
    stage_loop *loop = wl_new (1, sizeof *loop, err);
    if (!loop)
        return NULL;
    loop->offer = *offer;
    loop->offer.source.server = server;
    loop->address = address;
    pthread_mutex_init (&loop->mutex, NULL);
    loop->actor = zactor_new (run, loop);
    pthread_mutex_lock (&loop->mutex);
    bool ok = loop->endpoint != NULL;
    if (!ok)
        *err = loop->start_error;
    *endpoint = loop->endpoint;
    loop->endpoint = NULL;
    pthread_mutex_unlock (&loop->mutex);
    if (!ok)
        free_loop (&loop);
    return loop;
}

void stage_loop_load (stage_loop *loop, Woolly__Control *order)
{
    pthread_mutex_lock (&loop->mutex);
    wl_control_free (&loop->order);
    atomic_store (&loop->wanted_epoch, order->load->epoch);
    loop->n_cancelled = 0;
    loop->order = order; /* from here on the data thread may take and free it */
    pthread_mutex_unlock (&loop->mutex);
    zmq_send (zactor_resolve (loop->actor), "LOAD", 4, ZMQ_DONTWAIT);
}

void stage_loop_drop (stage_loop *loop)
{
    pthread_mutex_lock (&loop->mutex);
    wl_control_free (&loop->order);
    pthread_mutex_unlock (&loop->mutex);
    atomic_store (&loop->wanted_epoch, 0);
    zmq_send (zactor_resolve (loop->actor), "DROP", 4, ZMQ_DONTWAIT);
}

void stage_loop_cancel (stage_loop *loop, uint64_t epoch, uint64_t first_id, uint64_t last_id)
{
    pthread_mutex_lock (&loop->mutex);
    if (atomic_load (&loop->wanted_epoch) == epoch)
        loop->cancelled[loop->n_cancelled++ % MAX_CANCELLED] = (id_range){first_id, last_id};
    pthread_mutex_unlock (&loop->mutex);
}

zsock_t *stage_loop_pipe (stage_loop *loop)
{
    return zactor_sock (loop->actor);
}

bool stage_loop_next_event (stage_loop *loop, stage_event *event)
{
    return zmq_recv (zactor_resolve (loop->actor), event, sizeof *event, ZMQ_DONTWAIT) == (int) sizeof *event;
}

void stage_loop_counters (stage_loop *loop, uint64_t *busy_ns, uint64_t *steps)
{
    *busy_ns = atomic_load (&loop->busy_ns);
    *steps = atomic_load (&loop->steps);
}

bool stage_loop_free (stage_loop **loop, int patience_ms)
{
    stage_loop *l = *loop;
    if (!l)
        return true;
    stage_loop_drop (l);
    zmq_send (zactor_resolve (l->actor), "END", 3, ZMQ_DONTWAIT);
    stage_event event = {0};
    uint64_t deadline = wl_now_ns () + (uint64_t) patience_ms * 1000000u;
    while (event.kind != STAGE_ENDED) {
        zmq_pollitem_t item = {.socket = zactor_resolve (l->actor), .events = ZMQ_POLLIN};
        uint64_t now = wl_now_ns ();
        if (now >= deadline)
            return false;
        zmq_poll (&item, 1, (long) ((deadline - now) / 1000000u) + 1);
        while (event.kind != STAGE_ENDED && stage_loop_next_event (l, &event))
            ;
    }
    free_loop (loop);
    return true;
}
