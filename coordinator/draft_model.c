/* A draft model; see draft_model.h.
 *
 * The thread's loop: under the lock, gather() makes a step of what streams want next (tokens are copied, pages taken); without it, compute() runs the step and draws; under it again,
 * hand_over() gives the streams their guesses, unless what they rest on was taken back meanwhile (draft_sequence.h), and frees streams that were closed. */
#include "draft_model.h"

#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "draft_sequence.h"
#include "engine/kernels/kernels.h"
#include "engine/kv_cache.h"
#include "engine/machine.h"
#include "engine/memory.h"
#include "engine/stage.h"

enum { MAX_ROWS = 32 }; /* of a step: what the end may have to wait for */

struct wl_draft_stream { /* all of it under the lock, but for what belongs to the step that it is in */
    wl_draft_stream *next;
    wl_draft_sequence sequence;
    wl_sampling sampling;
    uint32_t *bias_tokens;
    float *bias_values;
    uint32_t *pages; /* [n_pages] held, room for all it may need */
    uint32_t n_pages;
    bool wanted, closed;
    bool in_step; /* the thread works for it: it is freed there */
    uint32_t *
        history; /* [n_history] the thread's, for a draw; room for as many as the sampler looks at. NULL: it looks at none */
    size_t most_history, n_history;
};

typedef struct part { /* of a step */
    wl_draft_stream *stream;
    wl_draft_job job;
    wl_sample sample;
    bool failed; /* its logits are no numbers */
} part;

struct wl_draft_model {
    wl_draft_model_options options;
    wl_gguf *gguf;
    wl_model *model;
    wl_thread_pool *pool;
    wl_stage *stage;
    wl_sampler *sampler;
    int32_t n_vocab; /* ids that both models have */
    pthread_t thread;
    bool is_started;
    void (*wake) (void *context);
    void *wake_context;

    /* the thread's own, once it runs */
    part parts[MAX_ROWS];
    wl_span spans[MAX_ROWS];
    int32_t tokens[MAX_ROWS];
    uint32_t logit_rows[MAX_ROWS];
    uint32_t n_parts, n_rows, n_logit_rows;
    float *logits; /* [MAX_ROWS, stride] */

    pthread_mutex_t lock;
    pthread_cond_t changed; /* there may be something to do */
    /* under the lock */
    bool is_stopping;
    wl_draft_stream *streams;
    uint32_t *free_pages; /* [n_free] */
    uint32_t n_free;
    wl_draft_beliefs beliefs;
    double guess_ns, read_ns;
};

/* -- streams --------------------------------------------------------------------------------------------------------------------------------------- */

static void give_back_pages (wl_draft_model *m, wl_draft_stream *s)
{
    while (s->n_pages > 0)
        m->free_pages[m->n_free++] = s->pages[--s->n_pages];
}

static bool take_pages (wl_draft_model *m, wl_draft_stream *s, size_t n_positions)
{
    size_t n = (n_positions + WL_KV_PAGE - 1) / WL_KV_PAGE;
    if (n > s->n_pages && n - s->n_pages > m->n_free)
        return false;
    while (s->n_pages < n)
        s->pages[s->n_pages++] = m->free_pages[--m->n_free];
    return true;
}

static void free_stream (wl_draft_stream *s)
{
    wl_draft_sequence_close (&s->sequence);
    free (s->bias_tokens);
    free (s->bias_values);
    free (s->pages);
    free (s->history);
    free (s);
}

static void remove_stream (wl_draft_model *m, wl_draft_stream *s)
{
    wl_draft_stream **place = &m->streams;
    while (*place != s)
        place = &(*place)->next;
    *place = s->next;
    give_back_pages (m, s);
    free_stream (s);
}

/* The request's sampler, but for what does not help a guess: reports, DRY, and biases of tokens that only the cluster's model has. */
static bool copy_sampling (wl_draft_stream *s, const wl_sampling *from, int32_t n_vocab, wl_error *err)
{
    s->sampling = *from;
    s->sampling.wants_logprob = true; /* how sure the draft is */
    s->sampling.n_alternatives = 0;
    s->sampling.dry_multiplier = 0;
    s->sampling.n_biases = 0;
    s->bias_tokens = wl_new (from->n_biases, sizeof *s->bias_tokens, err);
    s->bias_values = wl_new (from->n_biases, sizeof *s->bias_values, err);
    s->sampling.bias_tokens = s->bias_tokens;
    s->sampling.bias_values = s->bias_values;
    if (!s->bias_tokens || !s->bias_values)
        return false;
    for (size_t i = 0; i < from->n_biases; i++) {
        if (from->bias_tokens[i] >= (uint32_t) n_vocab)
            continue;
        s->bias_tokens[s->sampling.n_biases] = from->bias_tokens[i];
        s->bias_values[s->sampling.n_biases++] = from->bias_values[i];
    }
    return true;
}

wl_draft_stream *wl_draft_stream_open (wl_draft_model *m, const wl_sampling *sampling, size_t capacity, wl_error *err)
{
    wl_draft_stream *s = wl_new (1, sizeof *s, err);
    if (!s)
        return NULL;
    bool ok = wl_draft_sequence_open (&s->sequence, capacity, err) && copy_sampling (s, sampling, m->n_vocab, err);
    s->most_history = wl_sampling_history (&s->sampling);
    s->pages = ok ? wl_new (capacity / WL_KV_PAGE + 1, sizeof *s->pages, err) : NULL;
    s->history = ok ? wl_new (s->most_history, sizeof *s->history, err) : NULL;
    if (!s->pages || !s->history) {
        free_stream (s);
        return NULL;
    }
    pthread_mutex_lock (&m->lock);
    s->next = m->streams;
    m->streams = s;
    pthread_mutex_unlock (&m->lock);
    return s;
}

void wl_draft_stream_close (wl_draft_model *m, wl_draft_stream **stream)
{
    wl_draft_stream *s = *stream;
    if (!s)
        return;
    pthread_mutex_lock (&m->lock);
    s->closed = true;
    if (!s->in_step)
        remove_stream (m, s);
    pthread_mutex_unlock (&m->lock);
    *stream = NULL;
}

void wl_draft_stream_know (wl_draft_model *m, wl_draft_stream *s, const int32_t *tokens, size_t n_known)
{
    pthread_mutex_lock (&m->lock);
    wl_draft_sequence_know (&s->sequence, tokens, n_known, m->n_vocab, &m->beliefs);
    if (s->wanted)
        pthread_cond_signal (&m->changed);
    pthread_mutex_unlock (&m->lock);
}

void wl_draft_stream_want (wl_draft_model *m, wl_draft_stream *s, bool wanted)
{
    pthread_mutex_lock (&m->lock);
    if (wanted && !s->wanted)
        pthread_cond_signal (&m->changed);
    s->wanted = wanted;
    pthread_mutex_unlock (&m->lock);
}

void wl_draft_stream_forget (wl_draft_model *m, wl_draft_stream *s)
{
    pthread_mutex_lock (&m->lock);
    wl_draft_sequence_forget (&s->sequence);
    give_back_pages (m, s);
    pthread_cond_signal (&m->changed); /* others may have waited for them */
    pthread_mutex_unlock (&m->lock);
}

size_t wl_draft_stream_unread (wl_draft_model *m, const wl_draft_stream *s)
{
    pthread_mutex_lock (&m->lock);
    size_t n = s->sequence.n_known > s->sequence.n_computed ? s->sequence.n_known - s->sequence.n_computed : 0;
    pthread_mutex_unlock (&m->lock);
    return n;
}

bool wl_draft_stream_guess (wl_draft_model *m, const wl_draft_stream *s, size_t ahead, int32_t *token, double *chance)
{
    pthread_mutex_lock (&m->lock);
    bool is_there = wl_draft_sequence_guess (&s->sequence, &m->beliefs, ahead, token, chance);
    pthread_mutex_unlock (&m->lock);
    return is_there;
}

wl_draft_costs wl_draft_model_costs (wl_draft_model *m)
{
    pthread_mutex_lock (&m->lock);
    wl_draft_costs costs = {.guess_ns = m->guess_ns,
                            .read_ns = m->read_ns,
                            .acceptance = wl_draft_acceptance (&m->beliefs),
                            .n_threads = m->options.n_threads,
                            .n_cores = wl_machine_cores ()};
    pthread_mutex_unlock (&m->lock);
    return costs;
}

wl_draft_facts wl_draft_model_facts (wl_draft_model *m)
{
    pthread_mutex_lock (&m->lock);
    wl_draft_facts facts = {.path = m->options.path,
                            .n_threads = m->options.n_threads,
                            .weight_bytes = wl_stage_weight_bytes (m->stage),
                            .n_judged = m->beliefs.n_judged,
                            .n_right = m->beliefs.n_right,
                            .guess_ns = m->guess_ns,
                            .read_ns = m->read_ns};
    pthread_mutex_unlock (&m->lock);
    const wl_model *model = m->model;
    facts.kv_bytes =
        m->options.n_pages * wl_kv_page_bytes (WL_KV_F16, model->n_layers, model->n_kv_heads, model->head_dim);
    return facts;
}

/* -- steps ------------------------------------------------------------------------------------------------------------------------------------------ */

/* The tokens before the guess that a stream's job draws. */
static void copy_history (wl_draft_stream *s, size_t end)
{
    s->n_history = s->most_history < end ? s->most_history : end;
    for (size_t i = 0; i < s->n_history; i++)
        s->history[i] = wl_history_entry (s->sequence.tokens[end - s->n_history + i], false);
}

static void add_part (wl_draft_model *m, wl_draft_stream *s, const wl_draft_job *job)
{
    m->spans[m->n_parts] = (wl_span){.n_rows = (uint32_t) job->n_rows,
                                     .first_position = (uint32_t) job->first,
                                     .pages = s->pages,
                                     .n_pages = (uint32_t) ((job->first + job->n_rows + WL_KV_PAGE - 1) / WL_KV_PAGE)};
    m->parts[m->n_parts++] = (part){.stream = s, .job = *job};
    memcpy (m->tokens + m->n_rows, s->sequence.tokens + job->first, job->n_rows * sizeof *m->tokens);
    m->n_rows += (uint32_t) job->n_rows;
    if (job->draws) {
        m->logit_rows[m->n_logit_rows++] = m->n_rows - 1;
        copy_history (s, job->first + job->n_rows);
    }
    s->in_step = true;
}

/* Makes the next step; false when nobody wants anything. Who gets no pages waits for those of others. */
static bool gather (wl_draft_model *m)
{
    wl_draft_job job;
    m->n_parts = m->n_rows = m->n_logit_rows = 0;
    for (wl_draft_stream *s = m->streams; s && m->n_rows < MAX_ROWS; s = s->next)
        if (s->wanted && wl_draft_sequence_next (&s->sequence, &m->beliefs, MAX_ROWS - m->n_rows, &job) &&
            take_pages (m, s, job.first + job.n_rows))
            add_part (m, s, &job);
    return m->n_parts > 0;
}

static bool compute (wl_draft_model *m, wl_error *err)
{
    size_t stride = wl_stage_logit_stride (m->model), row = 0;
    wl_batch batch = {.n_rows = m->n_rows,
                      .n_spans = m->n_parts,
                      .spans = m->spans,
                      .tokens = m->tokens,
                      .logit_rows = m->logit_rows,
                      .n_logit_rows = m->n_logit_rows};
    if (!wl_stage_forward (m->stage, &batch, NULL, m->logits, err))
        return false;
    for (uint32_t i = 0; i < m->n_parts; i++) {
        part *p = &m->parts[i];
        wl_error ignored = {0};
        if (!p->job.draws)
            continue;
        wl_draw draw = {.sampling = &p->stream->sampling,
                        .position = p->job.first + p->job.n_rows,
                        .history = p->stream->history,
                        .n_history = p->stream->n_history};
        p->failed = !wl_sampler_draw (m->sampler, m->logits + row++ * stride, &draw, &p->sample, &ignored);
    }
    return true;
}

/* What the step's time says: of guesses alone, or of reading. */
static void take_time (wl_draft_model *m, double ns)
{
    const double pace = 0.2, more = 0.15; /* of one more sequence in a step, as in draft_policy.c */
    if (m->n_rows == m->n_logit_rows)
        m->guess_ns += pace * (ns / (1 + more * (m->n_rows - 1)) - m->guess_ns);
    else if (m->n_rows >= MAX_ROWS / 2)
        m->read_ns += pace * (ns / m->n_rows - m->read_ns);
}

static void hand_over (wl_draft_model *m)
{
    for (uint32_t i = 0; i < m->n_parts; i++) {
        part *p = &m->parts[i];
        wl_draft_stream *s = p->stream;
        s->in_step = false;
        if (s->closed)
            remove_stream (m, s);
        else if (p->failed)
            s->sequence.is_lost = true;
        else
            wl_draft_sequence_done (&s->sequence, &p->job, p->sample.token, exp ((double) p->sample.logprob),
                                    &m->beliefs);
    }
}

static void *work (void *context)
{
    wl_draft_model *m = context;
    wl_error failure = {0};
    pthread_mutex_lock (&m->lock);
    while (!m->is_stopping) {
        if (!gather (m)) {
            pthread_cond_wait (&m->changed, &m->lock);
            continue;
        }
        pthread_mutex_unlock (&m->lock);
        uint64_t began = wl_now_ns ();
        bool ok = compute (m, &failure);
        double ns = (double) (wl_now_ns () - began);
        pthread_mutex_lock (&m->lock);
        for (uint32_t i = 0; !ok && i < m->n_parts; i++)
            m->parts[i].failed = true;
        take_time (m, ns);
        hand_over (m);
        if (m->n_logit_rows)
            m->wake (m->wake_context);
    }
    pthread_mutex_unlock (&m->lock);
    return NULL;
}

/* -- opening ----------------------------------------------------------------------------------------------------------------------------------------- */

static bool check_vocabulary (wl_draft_model *m, wl_error *err)
{
    const wl_tokenizer *target = m->options.tokenizer;
    wl_tokenizer *own = wl_tokenizer_new (m->gguf, err);
    if (!own)
        return false;
    int32_t different = wl_tokenizer_difference (target, own);
    size_t n_own = wl_tokenizer_n_tokens (own), n_target = wl_tokenizer_n_tokens (target);
    wl_tokenizer_free (&own);
    if (different < 0)
        return true;
    return wl_fail (
        err, WL_ERROR_INPUT,
        "--spec draft:%s: its vocabulary is another (%zu tokens, the model has %zu; token %d differs): choose a "
        "draft of the model's family, or make one with woolly requantize",
        m->options.path, n_own, n_target, different);
}

static bool check_memory (const wl_draft_model *m, const wl_stage_options *options, wl_error *err)
{
    uint64_t needed = wl_stage_memory_needed (m->model, options), available = wl_memory_available ();
    if (available == 0 || needed <= available)
        return true;
    return wl_fail (
        err, WL_ERROR_CLUSTER,
        "--spec draft:%s needs %llu MiB of this machine's memory, which has %llu MiB left: choose a smaller draft "
        "or a smaller --ctx",
        m->options.path, (unsigned long long) (needed >> 20), (unsigned long long) (available >> 20));
}

static bool load (wl_draft_model *m, wl_progress_fn progress, void *context, wl_error *err)
{
    const wl_model *model = m->model;
    wl_stage_options options = {.last_layer = model->n_layers - 1,
                                .n_pages = m->options.n_pages,
                                .max_rows = MAX_ROWS,
                                .context = m->options.context,
                                .kv = WL_KV_F16,
                                .kernels = wl_kernels_find (m->options.isa, err)};
    if (!options.kernels || !check_memory (m, &options, err))
        return false;
    options.pool = m->pool = wl_thread_pool_new (m->options.n_threads, err);
    m->stage = m->pool ? wl_stage_new (m->gguf, model, &options, progress, context, err) : NULL;
    m->n_vocab = (int32_t) (model->n_vocab < m->options.target->n_vocab ? model->n_vocab : m->options.target->n_vocab);
    m->sampler = m->stage ? wl_sampler_new ((size_t) m->n_vocab, err) : NULL;
    m->logits = m->sampler ? wl_new_aligned (MAX_ROWS, wl_stage_logit_stride (model) * sizeof *m->logits, err) : NULL;
    m->free_pages = m->logits ? wl_new (m->options.n_pages, sizeof *m->free_pages, err) : NULL;
    for (uint32_t i = 0; m->free_pages && i < m->options.n_pages; i++)
        m->free_pages[m->n_free++] = m->options.n_pages - 1 - i;
    return m->free_pages;
}

/* What a step of n_rows takes, over the first page. */
static bool time_step (wl_draft_model *m, uint32_t n_rows, uint32_t first, double *ns, wl_error *err)
{
    uint32_t page = 0, last = n_rows - 1;
    int32_t tokens[MAX_ROWS] = {0};
    wl_span span = {.n_rows = n_rows, .first_position = first, .pages = &page, .n_pages = 1};
    wl_batch batch = {
        .n_rows = n_rows, .n_spans = 1, .spans = &span, .tokens = tokens, .logit_rows = &last, .n_logit_rows = 1};
    uint64_t began = wl_now_ns ();
    if (!wl_stage_forward (m->stage, &batch, NULL, m->logits, err))
        return false;
    *ns = (double) (wl_now_ns () - began);
    return true;
}

static bool measure (wl_draft_model *m, wl_error *err)
{
    enum { READ = WL_KV_PAGE / 2 < MAX_ROWS / 2 ? WL_KV_PAGE / 2 : MAX_ROWS / 2, TIMES = 3 };
    double ns;
    if (!time_step (m, READ, 0, &ns, err)) /* which brings the weights in */
        return false;
    for (uint32_t i = 0; i < TIMES; i++) {
        if (!time_step (m, 1, READ + i, &ns, err))
            return false;
        m->guess_ns = i == 0 || ns < m->guess_ns ? ns : m->guess_ns;
    }
    if (!time_step (m, READ, 0, &ns, err))
        return false;
    m->read_ns = ns / READ;
    return true;
}

wl_draft_model *wl_draft_model_open (const wl_draft_model_options *options, wl_progress_fn progress, void *context,
                                     wl_error *err)
{
    wl_draft_model *m = wl_new (1, sizeof *m, err);
    if (!m)
        return NULL;
    m->options = *options;
    pthread_mutex_init (&m->lock, NULL);
    pthread_cond_init (&m->changed, NULL);
    m->gguf = wl_gguf_open (options->path, err);
    m->model = m->gguf ? wl_model_new (m->gguf, err) : NULL;
    if (!m->model || !check_vocabulary (m, err) || !load (m, progress, context, err) || !measure (m, err))
        wl_draft_model_close (&m);
    return m;
}

bool wl_draft_model_start (wl_draft_model *m, void (*wake) (void *context), void *context, wl_error *err)
{
    sigset_t all, before;
    m->wake = wake;
    m->wake_context = context;
    sigfillset (&all);
    pthread_sigmask (SIG_SETMASK, &all, &before); /* signals are the main thread's */
    int rc = pthread_create (&m->thread, NULL, work, m);
    pthread_sigmask (SIG_SETMASK, &before, NULL);
    m->is_started = rc == 0;
    return rc == 0 || wl_fail (err, WL_ERROR_INTERNAL, "the draft model's thread cannot start: %s", strerror (rc));
}

void wl_draft_model_close (wl_draft_model **draft)
{
    wl_draft_model *m = *draft;
    if (!m)
        return;
    if (m->is_started) {
        pthread_mutex_lock (&m->lock);
        m->is_stopping = true;
        pthread_cond_signal (&m->changed);
        pthread_mutex_unlock (&m->lock);
        pthread_join (m->thread, NULL);
    }
    while (m->streams)
        remove_stream (m, m->streams);
    wl_stage_free (&m->stage);
    wl_sampler_free (&m->sampler);
    wl_thread_pool_free (&m->pool);
    wl_model_free (&m->model);
    wl_gguf_free (&m->gguf);
    wl_free_aligned (m->logits);
    free (m->free_pages);
    pthread_cond_destroy (&m->changed);
    pthread_mutex_destroy (&m->lock);
    free (m);
    *draft = NULL;
}
