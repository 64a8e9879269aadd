/* What a hop costs beside a bare ZeroMQ ping-pong of as many bytes, and what rounding activations costs.
 *
 *   hop [--sizes 8192,65536,4194304] [--trips 400] [--rounds 9] [--transport ipc|tcp] [--json]
 *
 * Two pairs of processes, one message under way at a time, in turns: the bare pair sends a message back and forth over PAIR sockets with libzmq's defaults (the message that came is the
 * one that goes: nothing is copied or packed); the other one sends steps as stages do, with a header for as many rows of 2048 values, the payload without a copy from a buffer that is
 * free again when ZeroMQ says so, and takes them as a stage's thread does: poll on two sockets, then receive and decode. Half a round trip is a hop. Medians of rounds that take turns, so
 * that a busy machine is busy for both. The encoders are timed on a step of 128 rows. */
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/machine.h"
#include "engine/memory.h"
#include "proto/hop.h"
#include "proto/wire.h"

enum { WIDTH = 2048, MOST_SIZES = 16, MOST_ROUNDS = 101, PATIENCE_MS = 10000, PAGE_TOKENS = 16, BUFFERS = 3 };

/* A message of one byte ends the other side. */
typedef struct side {
    zsock_t *out, *in, *idle; /* the bare pair has one socket, both ways */
    void *pair;
    uint64_t next_id;
} side;

static void die (const char *what)
{
    fprintf (stderr, "hop: %s: %s\n", what, zmq_strerror (errno));
    exit (WL_ERROR_INTERNAL);
}

static void address_of (char out[160], const char *transport, const char *folder, int number)
{
    if (strcmp (transport, "tcp") == 0)
        snprintf (out, 160, "tcp://127.0.0.1:%d", 20000 + (int) (getpgrp () % 20000) + number);
    else
        snprintf (out, 160, "ipc://%s/%d", folder, number);
}

/* -- the bare pair -------------------------------------------------------------------------------------------------------------------------- */

static void open_bare (side *s, const char *address, bool binds)
{
    s->pair = zmq_socket (zmq_ctx_new (), ZMQ_PAIR);
    if (!s->pair || (binds ? zmq_bind (s->pair, address) : zmq_connect (s->pair, address)) != 0)
        die (address);
}

static bool bare_forward (side *s)
{
    zmq_msg_t message;
    zmq_msg_init (&message);
    if (zmq_msg_recv (&message, s->pair, 0) < 0)
        die ("receiving");
    size_t length = zmq_msg_size (&message);
    if (zmq_msg_send (&message, s->pair, 0) < 0)
        die ("sending");
    return length != 1;
}

static void bare_begin (side *s, size_t n)
{
    zmq_msg_t message;
    if (zmq_msg_init_size (&message, n) != 0)
        die ("a message");
    memset (zmq_msg_data (&message), 1, n);
    if (zmq_msg_send (&message, s->pair, 0) < 0)
        die ("sending");
}

static void bare_end (side *s)
{
    zmq_msg_t message;
    zmq_msg_init (&message);
    if (zmq_msg_recv (&message, s->pair, 0) < 0)
        die ("receiving");
    zmq_msg_close (&message);
}

/* -- steps ---------------------------------------------------------------------------------------------------------------------------------- */

typedef struct step_buffer {
    atomic_bool in_use; /* cleared by ZeroMQ's thread, as in worker/plan.c */
    uint8_t *bytes;
} step_buffer;

typedef struct step_parts {
    step_buffer buffers[BUFFERS];
    Woolly__Step step;
    Woolly__Span span, *spans[1];
    Woolly__Pick pick, *picks[1];
    Woolly__Sampling sampling;
    Woolly__Timing timing, *timings[1];
} step_parts;

static void release (void *bytes, void *context)
{
    (void) bytes;
    atomic_store_explicit (&((step_buffer *) context)->in_use, false, memory_order_release);
}

/* A step whose activations have n bytes. */
static void make_step (step_parts *p, size_t n)
{
    wl_error err = {0};
    size_t rows = n / (WIDTH * sizeof (float)) ? n / (WIDTH * sizeof (float)) : 1;
    woolly__step__init (&p->step);
    woolly__span__init (&p->span);
    woolly__pick__init (&p->pick);
    woolly__sampling__init (&p->sampling);
    woolly__timing__init (&p->timing);
    for (int i = 0; i < BUFFERS; i++) {
        p->buffers[i].bytes = wl_new (n, 1, &err);
        if (!p->buffers[i].bytes)
            die ("a buffer");
        memset (p->buffers[i].bytes, 1, n);
    }
    p->span.n_rows = (uint32_t) rows;
    p->span.n_pages = (rows + PAGE_TOKENS - 1) / PAGE_TOKENS;
    p->span.pages = wl_new (p->span.n_pages, sizeof *p->span.pages, &err);
    p->step.n_rows = (uint32_t) rows;
    p->step.n_tokens = rows;
    p->step.tokens = wl_new (rows, sizeof *p->step.tokens, &err);
    if (!p->span.pages || !p->step.tokens)
        die ("a step");
    for (size_t i = 0; i < rows; i++)
        p->step.tokens[i] = (int32_t) (i * 7919 % 150000);
    p->sampling.temperature = 0.8f;
    p->pick.row = (uint32_t) rows - 1;
    p->pick.sampling = &p->sampling;
    p->timing.freed_ns = p->timing.received_ns = p->timing.began_ns = p->timing.ended_ns = wl_now_ns ();
    p->spans[0] = &p->span;
    p->picks[0] = &p->pick;
    p->timings[0] = &p->timing;
    p->step.spans = p->spans;
    p->step.picks = p->picks;
    p->step.timings = p->timings;
    p->step.n_spans = p->step.n_picks = p->step.n_timings = 1;
}

static void free_step (step_parts *p)
{
    for (int i = 0; i < BUFFERS; i++) {
        while (atomic_load_explicit (&p->buffers[i].in_use, memory_order_acquire))
            ;
        free (p->buffers[i].bytes);
    }
    free (p->span.pages);
    free (p->step.tokens);
}

static void send_step (side *s, step_parts *p, size_t n)
{
    wl_error err = {0};
    step_buffer *b = NULL;
    while (!b)
        for (int i = 0; i < BUFFERS && !b; i++)
            if (!atomic_load_explicit (&p->buffers[i].in_use, memory_order_acquire))
                b = &p->buffers[i];
    atomic_store_explicit (&b->in_use, true, memory_order_relaxed);
    p->step.id = ++s->next_id;
    if (!wl_step_send (s->out, &p->step, b->bytes, n, release, b, PATIENCE_MS, &err))
        die ("a step");
}

static void receive_step (side *s, wl_packet *packet)
{
    wl_error err = {0};
    zmq_pollitem_t items[2] = {{.socket = zsock_resolve (s->idle), .events = ZMQ_POLLIN},
                               {.socket = zsock_resolve (s->in), .events = ZMQ_POLLIN}};
    do
        if (zmq_poll (items, 2, PATIENCE_MS) <= 0)
            die ("waiting for a step");
    while (!(items[1].revents & ZMQ_POLLIN));
    if (!wl_step_receive (s->in, 0, packet, &err))
        die ("a step was expected");
}

static void open_steps (side *s, const char *own, const char *other)
{
    wl_error err = {0};
    char *bound = NULL;
    s->in = wl_link_new (WL_LINK_PULL, WL_PAYLOAD_LIMIT, &err);
    s->out = wl_link_new (WL_LINK_PUSH, WL_HEADER_LIMIT, &err);
    s->idle = zsock_new (ZMQ_PAIR); /* stands for the pipe of orders */
    if (!s->in || !s->out || !s->idle || !wl_link_bind (s->in, own, NULL, &bound, &err) ||
        !wl_link_connect (s->out, other, &err))
        die (err.text);
    free (bound);
}

/* -- the other side ------------------------------------------------------------------------------------------------------------------------- */

static void answer_bare (const char *address)
{
    side s = {0};
    open_bare (&s, address, false);
    while (bare_forward (&s))
        ;
    zmq_close (s.pair);
}

static void answer_steps (const char *own, const char *other)
{
    side s = {0};
    step_parts parts = {0};
    size_t made = 0, n;
    wl_link_start_process ();
    open_steps (&s, own, other);
    do {
        wl_packet packet;
        receive_step (&s, &packet);
        n = packet.payload_bytes;
        if (n != made && n > 1) {
            free_step (&parts);
            make_step (&parts, n);
            made = n;
        }
        if (n > 1)
            send_step (&s, &parts, n);
        wl_packet_free (&packet);
    } while (n > 1);
    free_step (&parts);
    zsock_destroy (&s.in);
    zsock_destroy (&s.out);
    zsock_destroy (&s.idle);
}

/* -- measuring -------------------------------------------------------------------------------------------------------------------------------- */

static int by_value (const void *a, const void *b)
{
    double p = *(const double *) a, q = *(const double *) b;
    return p < q ? -1 : p > q;
}

/* The median one-way time of `n` trips, seconds. */
static double trips (side *bare, side *steps, step_parts *parts, size_t bytes, size_t n, double *took)
{
    for (size_t i = 0; i < n; i++) {
        double since = wl_now_s ();
        if (bare) {
            bare_begin (bare, bytes);
            bare_end (bare);
        } else {
            wl_packet packet;
            send_step (steps, parts, bytes);
            receive_step (steps, &packet);
            wl_packet_free (&packet);
        }
        took[i] = (wl_now_s () - since) / 2;
    }
    qsort (took, n, sizeof *took, by_value);
    return took[n / 2];
}

typedef struct options {
    size_t sizes[MOST_SIZES], n_sizes, n_trips, n_rounds;
    const char *transport;
    bool json;
} options;

static void measure (const options *o, side *bare, side *steps)
{
    double bare_s[MOST_ROUNDS], steps_s[MOST_ROUNDS], ratios[MOST_ROUNDS];
    wl_error err = {0};
    double *took = wl_new (o->n_trips, sizeof *took, &err);
    if (!took)
        die (err.text);
    for (size_t i = 0; i < o->n_sizes; i++) {
        step_parts parts = {0};
        size_t bytes = o->sizes[i], n = bytes > 1 << 20 ? 1 + o->n_trips / 10 : o->n_trips;
        make_step (&parts, bytes);
        trips (bare, NULL, NULL, bytes, 1 + n / 4, took);
        trips (NULL, steps, &parts, bytes, 1 + n / 4, took);
        for (size_t round = 0; round < o->n_rounds; round++) {
            bare_s[round] = trips (bare, NULL, NULL, bytes, n, took);
            steps_s[round] = trips (NULL, steps, &parts, bytes, n, took);
            ratios[round] = steps_s[round] / bare_s[round];
        }
        free_step (&parts);
        qsort (bare_s, o->n_rounds, sizeof *bare_s, by_value);
        qsort (steps_s, o->n_rounds, sizeof *steps_s, by_value);
        qsort (ratios, o->n_rounds, sizeof *ratios, by_value);
        size_t middle = o->n_rounds / 2;
        printf (o->json ? "%s{\"bytes\": %zu, \"bare_us\": %.2f, \"hop_us\": %.2f, \"ratio\": %.3f, \"least\": %.3f, "
                          "\"most\": %.3f}"
                        : "%s| %zu | %.1f | %.1f | %.2f | %.2f | %.2f |\n",
                o->json && i ? ", " : "", bytes, bare_s[middle] * 1e6, steps_s[middle] * 1e6, ratios[middle], ratios[0],
                ratios[o->n_rounds - 1]);
    }
    free (took);
}

static void time_rounding (const options *o)
{
    enum { ROWS = 128, TURNS = 40 };
    wl_error err = {0};
    float *rows = wl_new ((size_t) ROWS * WIDTH, sizeof *rows, &err);
    uint8_t *bytes = wl_new ((size_t) ROWS * WIDTH, sizeof *rows, &err);
    if (!rows || !bytes)
        die (err.text);
    for (size_t i = 0; i < (size_t) ROWS * WIDTH; i++)
        rows[i] = (float) (i % 977) * 0.01f - 4;
    for (wl_hop hop = WL_HOP_F16; hop < WL_N_HOPS; hop++) {
        double encode = 1, decode = 1;
        for (int i = 0; i < TURNS; i++) { /* the quickest: others only make it slower */
            double a = wl_now_s ();
            wl_hop_encode (hop, rows, ROWS, WIDTH, bytes);
            double b = wl_now_s ();
            wl_hop_decode (hop, bytes, ROWS, WIDTH, rows);
            double c = wl_now_s ();
            encode = b - a < encode ? b - a : encode;
            decode = c - b < decode ? c - b : decode;
        }
        size_t full = (size_t) ROWS * WIDTH * sizeof (float), sent = ROWS * wl_hop_row_bytes (hop, WIDTH);
        double saved = (double) (full - sent) * 8 / 1e9; /* seconds of a gigabit link */
        printf (o->json ? "%s{\"hop\": \"%s\", \"encode_us\": %.1f, \"decode_us\": %.1f, \"saved_us\": %.1f}"
                        : "%s| %s | %.1f | %.1f | %.1f |\n",
                o->json && hop > WL_HOP_F16 ? ", " : "", wl_hop_name (hop), encode * 1e6, decode * 1e6, saved * 1e6);
    }
    free (rows);
    free (bytes);
}

static void read_options (options *o, int argc, char **argv)
{
    *o = (options){.sizes = {8192, 65536, 4 << 20}, .n_sizes = 3, .n_trips = 400, .n_rounds = 9, .transport = "ipc"};
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp (argv[i], "--json") == 0) {
            o->json = true;
            continue;
        }
        if (strcmp (argv[i], "--sizes") == 0) {
            char *at = (char *) value;
            for (o->n_sizes = 0; *at && o->n_sizes < MOST_SIZES; at += *at == ',')
                o->sizes[o->n_sizes++] = strtoull (at, &at, 10);
        } else if (strcmp (argv[i], "--trips") == 0) {
            o->n_trips = strtoull (value, NULL, 10);
        } else if (strcmp (argv[i], "--rounds") == 0) {
            o->n_rounds = strtoull (value, NULL, 10);
        } else if (strcmp (argv[i], "--transport") == 0) {
            o->transport = value;
        } else {
            o->n_trips = 0;
        }
        i++;
    }
    bool ok = o->n_trips && o->n_sizes && o->n_rounds && o->n_rounds <= MOST_ROUNDS;
    for (size_t i = 0; i < o->n_sizes; i++)
        ok = ok && o->sizes[i] > 1 && o->sizes[i] <= WL_PAYLOAD_LIMIT;
    if (ok)
        return;
    fprintf (stderr,
             "usage: hop [--sizes 8192,65536,4194304] [--trips 400] [--rounds 9] [--transport ipc|tcp] [--json]\n");
    exit (WL_ERROR_USAGE);
}

int main (int argc, char **argv)
{
    options o;
    wl_error err = {0};
    char bare_address[160], here[160], there[160];
    side bare = {0}, steps = {0};
    read_options (&o, argc, argv);
    char *folder = wl_socket_folder_new (&err);
    if (!folder)
        die (err.text);
    address_of (bare_address, o.transport, folder, 0);
    address_of (here, o.transport, folder, 1);
    address_of (there, o.transport, folder, 2);
    pid_t children[2];
    for (int i = 0; i < 2; i++)
        if ((children[i] = fork ()) == 0) { /* before this process has a ZeroMQ context */
            if (i == 0)
                answer_bare (bare_address);
            else
                answer_steps (there, here);
            _exit (0);
        }
    wl_link_start_process ();
    open_bare (&bare, bare_address, true);
    open_steps (&steps, here, there);
    printf (o.json
                ? "{\"links\": ["
                : "| bytes | bare us | hop us | ratio | least | most |\n| ---: | ---: | ---: | ---: | ---: | ---: |\n");
    measure (&o, &bare, &steps);
    printf (
        o.json
            ? "], \"rounding\": ["
            : "\n| 128 rows of 2048 | encode us | decode us | saved us at 1 Gbit/s |\n| --- | ---: | ---: | ---: |\n");
    time_rounding (&o);
    printf (o.json ? "]}\n" : "");
    uint8_t last = 0;
    step_parts parts = {0};
    make_step (&parts, 2);
    zmq_send (bare.pair, &last, 1, 0);
    (void) !wl_step_send (steps.out, &parts.step, &last, 1, NULL, NULL, PATIENCE_MS, &err);
    for (int i = 0; i < 2; i++)
        waitpid (children[i], NULL, 0);
    free_step (&parts);
    zsock_destroy (&steps.in);
    zsock_destroy (&steps.out);
    zsock_destroy (&steps.idle);
    wl_socket_folder_remove (folder);
    free (folder);
    return 0;
}
