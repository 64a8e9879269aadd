/* A worker's life; see session.h.
 *
 * Two states: joining (Hello is repeated until answered) and joined (pings are answered, plans taken). A joined worker goes back to joining when the coordinator
 * says so, when its connection breaks, or when no ping came for SILENCE_MS: a plan without a coordinator is worth nothing, and its memory
 * may be wanted by the next one. Each joining starts with a fresh socket, so nothing of an earlier coordinator can arrive later. */
#include "session.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/machine.h"
#include "engine/memory.h"
#include "proto/speed.h"
#include "stage_loop.h"

enum {
    HELLO_EVERY_MS = 500,
    SILENCE_MS = 10000,
    SUSPENDED_MS = 2000, /* a turn that took so long means that this process was stopped, not its coordinator */
    COMPLAIN_EVERY_MS = 1000,
    MESSAGES_A_TURN = 64,
    LEAVE_LINGER_MS = 200,
    END_PATIENCE_MS = 500,
};

typedef struct session {
    const session_options *options;
    char *address;                                   /* the coordinator's control endpoint */
    char *data_address;                              /* what the data socket binds */
    char *data_endpoint;                             /* what peers connect to */
    char weights_endpoint[WL_WEIGHT_ENDPOINT_BYTES]; /* likewise, those that lack weights; "": nobody */
    wl_weight_server *weights;                       /* NULL: none */
    stage_loop *loop;
    zsock_t *link, *monitor; /* open as long as the session runs */
    unsigned n_links;
    bool joined;
    uint64_t epoch; /* of the newest Load */
    int64_t hello_ms, heard_ms, turn_ms, complained_ms;
    const char *isa;
    uint32_t n_threads;
    char machine[40];
    struct {
        wl_speed speed;
        bool known, cached;
    } own, whole; /* measured with n_threads, and with all cores */
    bool done, left;
} session;

/* -- words for people --------------------------------------------------------------------------------------------------------------------- */

static void print_line (const session *s, const char *format, va_list args)
{
    char text[1024];
    vsnprintf (text, sizeof text, format, args);
    for (unsigned char *c = (unsigned char *) text; *c; c++)
        if (*c < 0x20 || *c == 0x7f)
            *c = '?';
    fprintf (stderr, "woolly-worker %s: %s\n", s->options->name, text);
}

/* One line per change of state. A local worker is its coordinator's business, which tells what matters. */
static void __attribute__ ((format (printf, 2, 3))) say (const session *s, const char *format, ...)
{
    if (s->options->is_local)
        return;
    va_list args;
    va_start (args, format);
    print_line (s, format, args);
    va_end (args);
}

/* About what a peer did wrong; at most one a second. */
static void __attribute__ ((format (printf, 2, 3))) complain (session *s, const char *format, ...)
{
    int64_t now = zclock_mono ();
    if (s->complained_ms && now - s->complained_ms < COMPLAIN_EVERY_MS)
        return;
    s->complained_ms = now;
    va_list args;
    va_start (args, format);
    print_line (s, format, args);
    va_end (args);
}

/* -- the control link ------------------------------------------------------------------------------------------------------------------------ */

static void close_link (session *s)
{
    if (s->link)
        zmq_socket_monitor (zsock_resolve (s->link), NULL, 0);
    zsock_destroy (&s->link);
    zsock_destroy (&s->monitor);
    s->joined = false;
}

/* A socket that tells when the connection breaks: seconds earlier than missing pings would. */
static bool open_monitor (session *s, wl_error *err)
{
    char endpoint[64];
    snprintf (endpoint, sizeof endpoint, "inproc://control-%u", ++s->n_links);
    s->monitor = zsock_new (ZMQ_PAIR);
    if (!s->monitor || zmq_socket_monitor (zsock_resolve (s->link), endpoint, ZMQ_EVENT_DISCONNECTED) != 0 ||
        zmq_connect (zsock_resolve (s->monitor), endpoint) != 0)
        return wl_fail (err, WL_ERROR_INTERNAL, "the control link cannot be watched: %s", zmq_strerror (errno));
    return true;
}

static bool open_link (session *s, wl_error *err)
{
    s->link = wl_link_new (WL_LINK_DEALER, WL_HEADER_LIMIT, err);
    if (s->link && open_monitor (s, err) && wl_link_connect (s->link, s->address, err))
        return true;
    close_link (s);
    return false;
}

static bool connection_broke (session *s)
{
    bool broke = false;
    uint8_t event[6]; /* number (16 bits), value (32 bits); a second frame holds the address */
    char address[256];
    while (zmq_recv (zsock_resolve (s->monitor), event, sizeof event, ZMQ_DONTWAIT) >= 0) {
        uint16_t number;
        memcpy (&number, event, sizeof number);
        broke = broke || number == ZMQ_EVENT_DISCONNECTED;
        zmq_recv (zsock_resolve (s->monitor), address, sizeof address, ZMQ_DONTWAIT);
    }
    return broke;
}

static void tell (session *s, const Woolly__Control *message)
{
    wl_error err = {0};
    if (!wl_control_send (s->link, NULL, message, &err) && s->joined &&
        message->kind_case != WOOLLY__CONTROL__KIND_PONG)
        complain (s, "%s", err.text); /* a lost coordinator is noticed by other means */
}

/* -- what a worker says ------------------------------------------------------------------------------------------------------------------------- */

static void send_hello (session *s)
{
    const session_options *o = s->options;
    Woolly__Hello hello = WOOLLY__HELLO__INIT;
    Woolly__Control message = WOOLLY__CONTROL__INIT;
    hello.protocol = WL_PROTOCOL;
    hello.name = (char *) o->name;
    hello.token = (char *) (o->token ? o->token : "");
    hello.data_endpoint = s->data_endpoint;
    hello.weights_endpoint = s->weights_endpoint;
    hello.n_threads = s->n_threads;
    hello.memory_bytes = o->offer.memory_bytes;
    hello.isa = (char *) s->isa;
    hello.pid = (uint64_t) getpid ();
    hello.machine = s->machine;
    Woolly__Speed own, whole;
    if (s->own.known) {
        wl_speed_pack (&s->own.speed, s->own.cached, &own);
        hello.own = &own;
    }
    if (s->whole.known) {
        wl_speed_pack (&s->whole.speed, s->whole.cached, &whole);
        hello.whole = &whole;
    }
    message.kind_case = WOOLLY__CONTROL__KIND_HELLO;
    message.hello = &hello;
    tell (s, &message);
    s->hello_ms = zclock_mono ();
}

static void send_pong (session *s, const Woolly__Ping *ping)
{
    Woolly__Pong pong = WOOLLY__PONG__INIT;
    Woolly__Control message = WOOLLY__CONTROL__INIT;
    pong.sequence = ping->sequence;
    pong.sent_ns = ping->sent_ns;
    pong.rss_bytes = wl_memory_resident ();
    pong.mapped_bytes = wl_memory_resident_mapped ();
    stage_loop_counters (s->loop, &pong.busy_ns, &pong.steps);
    pong.clock_ns = wl_now_ns ();
    message.kind_case = WOOLLY__CONTROL__KIND_PONG;
    message.pong = &pong;
    tell (s, &message);
}

static void send_probed (session *s, const Woolly__Probe *probe)
{
    Woolly__Probed probed = WOOLLY__PROBED__INIT;
    Woolly__Control message = WOOLLY__CONTROL__INIT;
    probed.sequence = probe->sequence;
    message.kind_case = WOOLLY__CONTROL__KIND_PROBED;
    message.probed = &probed;
    tell (s, &message);
}

static void send_leave (session *s)
{
    Woolly__Leave leave = WOOLLY__LEAVE__INIT;
    Woolly__Control message = WOOLLY__CONTROL__INIT;
    leave.reason = (char *) "it was told to end";
    message.kind_case = WOOLLY__CONTROL__KIND_LEAVE;
    message.leave = &leave;
    tell (s, &message);
}

static void send_failed (session *s, uint64_t epoch, const wl_error *error)
{
    Woolly__Failed failed = WOOLLY__FAILED__INIT;
    Woolly__Control message = WOOLLY__CONTROL__INIT;
    failed.epoch = epoch;
    failed.code = (uint32_t) error->code;
    failed.text = (char *) error->text;
    message.kind_case = WOOLLY__CONTROL__KIND_FAILED;
    message.failed = &failed;
    tell (s, &message);
}

static void send_loaded (session *s, const stage_event *event)
{
    Woolly__Loaded loaded = WOOLLY__LOADED__INIT;
    Woolly__Control message = WOOLLY__CONTROL__INIT;
    loaded.epoch = event->epoch;
    loaded.weight_bytes = event->weight_bytes;
    loaded.rss_bytes = wl_memory_resident ();
    loaded.kept_bytes = event->kept_bytes;
    loaded.isa = (char *) event->isa;
    loaded.n_threads = event->n_threads;
    loaded.shipped_bytes = event->shipped.bytes;
    loaded.from_workers_bytes = event->shipped.from_workers_bytes;
    loaded.shipping_ns = event->shipping_ns;
    loaded.weights = event->weights;
    message.kind_case = WOOLLY__CONTROL__KIND_LOADED;
    message.loaded = &loaded;
    tell (s, &message);
}

static void send_progress (session *s, const stage_event *event)
{
    Woolly__Progress progress = WOOLLY__PROGRESS__INIT;
    Woolly__Control message = WOOLLY__CONTROL__INIT;
    progress.epoch = event->epoch;
    progress.done_bytes = event->state.done_bytes;
    progress.total_bytes = event->state.total_bytes;
    progress.phase = event->state.phase;
    progress.from_workers_bytes = event->state.from_workers_bytes;
    message.kind_case = WOOLLY__CONTROL__KIND_PROGRESS;
    message.progress = &progress;
    tell (s, &message);
}

/* -- what it hears ------------------------------------------------------------------------------------------------------------------------------- */

/* Back to joining. The coordinator may have moved to another address of the same name. */
static bool start_joining (session *s, wl_error *err)
{
    wl_error unresolved = {0};
    bool loopback;
    stage_loop_drop (s->loop);
    close_link (s);
    s->epoch = 0;
    char *address = wl_link_address (s->options->join, &loopback, &unresolved);
    if (address) { /* else it is looked for where it was */
        free (s->address);
        s->address = address;
    }
    return open_link (s, err);
}

static void take_load (session *s, Woolly__Control **message)
{
    const Woolly__Load *load = (*message)->load;
    if (load->epoch == 0) {
        complain (s, "dropped a plan without an epoch");
        return;
    }
    say (s, "loading layers %u-%u of %s", load->first_layer, load->last_layer, load->model_path);
    s->epoch = load->epoch;
    stage_loop_load (s->loop, *message);
    *message = NULL;
}

/* Handles one control message; false ends the session. */
static bool take_message (session *s, Woolly__Control **message, wl_error *err)
{
    const Woolly__Control *m = *message;
    s->heard_ms = zclock_mono ();
    if (!s->joined) {
        if (m->kind_case == WOOLLY__CONTROL__KIND_REFUSED)
            return wl_fail (err, WL_ERROR_CLUSTER, "the coordinator at %s refuses this worker: %s", s->address,
                            m->refused->reason);
        if (m->kind_case != WOOLLY__CONTROL__KIND_WELCOME)
            return true;
        s->joined = true;
        say (s, "joined %s", s->address);
        return true;
    }
    switch (m->kind_case) {
    case WOOLLY__CONTROL__KIND_PING:
        send_pong (s, m->ping);
        return true;
    case WOOLLY__CONTROL__KIND_PROBE:
        send_probed (s, m->probe);
        return true;
    case WOOLLY__CONTROL__KIND_LOAD:
        take_load (s, message);
        return true;
    case WOOLLY__CONTROL__KIND_CANCEL:
        stage_loop_cancel (s->loop, m->cancel->epoch, m->cancel->first_id, m->cancel->last_id);
        return true;
    case WOOLLY__CONTROL__KIND_LEAVE:
        if (s->options->is_local) {
            s->done = true;
            return true;
        }
        say (s, "the coordinator ended (%s); waiting for it at %s", m->leave->reason, s->options->join);
        return start_joining (s, err);
    case WOOLLY__CONTROL__KIND_WELCOME: /* the answer to a repeated Hello */
        return true;
    default:
        complain (s, "dropped a message that no coordinator sends");
        return true;
    }
}

static bool take_messages (session *s, wl_error *err)
{
    for (int i = 0; i < MESSAGES_A_TURN && !s->done; i++) {
        wl_error malformed = {0};
        Woolly__Control *message = wl_control_receive (s->link, NULL, 0, &malformed);
        if (!message && malformed.code == WL_OK)
            return true;
        if (!message) {
            complain (s, "dropped a control message: %s", malformed.text);
            continue;
        }
        bool ok = take_message (s, &message, err);
        wl_control_free (&message);
        if (!ok)
            return false;
    }
    return true;
}

static void say_shipped (const session *s, const stage_event *event)
{
    char by_workers[64] = "";
    const weight_shipped *shipped = &event->shipped;
    if (shipped->bytes == 0)
        return;
    if (shipped->from_workers_bytes)
        snprintf (by_workers, sizeof by_workers, " (%.1f MB by other workers)",
                  (double) shipped->from_workers_bytes / 1e6);
    say (s, "was sent %.1f MB of weights%s, %.0f MB/s", (double) shipped->bytes / 1e6, by_workers,
         (double) shipped->bytes * 1e3 / ((double) event->shipping_ns + 1));
}

static void take_events (session *s)
{
    stage_event event;
    while (stage_loop_next_event (s->loop, &event)) {
        if (event.kind == STAGE_DROPPED)
            complain (s, "dropped a message on %s: %s", s->data_endpoint, event.error.text);
        if (event.epoch != s->epoch)
            continue;
        if (event.kind == STAGE_PROGRESS) {
            send_progress (s, &event);
        } else if (event.kind == STAGE_WARNED) {
            say (s, "warning: %s", event.error.text);
        } else if (event.kind == STAGE_LOADED) {
            send_loaded (s, &event);
            say_shipped (s, &event);
            say (s, "ready: %.1f MB of weights, %u threads, %s", (double) event.weight_bytes / 1e6, event.n_threads,
                 event.isa);
        } else if (event.kind == STAGE_FAILED) {
            send_failed (s, event.epoch, &event.error);
            say (s, "%s", event.error.text);
        }
    }
}

/* -- the loop ------------------------------------------------------------------------------------------------------------------------------------- */

/* What time alone brings about. */
static bool keep_time (session *s, wl_error *err)
{
    int64_t now = zclock_mono ();
    if (now - s->turn_ms > SUSPENDED_MS)
        s->heard_ms = now;
    s->turn_ms = now;
    if (!s->joined && now - s->hello_ms >= HELLO_EVERY_MS)
        send_hello (s);
    if (s->joined && now - s->heard_ms > SILENCE_MS) {
        say (s, "no sign of the coordinator for %d s; waiting for it at %s", SILENCE_MS / 1000, s->options->join);
        return start_joining (s, err);
    }
    return true;
}

static bool turn (session *s, int wake_end, wl_error *err)
{
    enum { TURN_MS = 250 };
    zmq_pollitem_t items[4] = {{.fd = wake_end, .events = ZMQ_POLLIN},
                               {.socket = zsock_resolve (stage_loop_pipe (s->loop)), .events = ZMQ_POLLIN},
                               {.socket = zsock_resolve (s->link), .events = ZMQ_POLLIN},
                               {.socket = zsock_resolve (s->monitor), .events = ZMQ_POLLIN}};
    zmq_poll (items, 4, TURN_MS);
    if (items[0].revents & ZMQ_POLLIN) {
        s->done = s->left = true;
        return true;
    }
    take_events (s);
    bool broke = connection_broke (s); /* asked first: what arrived before the break is read after it */
    if (!take_messages (s, err))
        return false;
    if (!s->done && broke && s->joined) {
        say (s, "lost the coordinator; waiting for it at %s", s->options->join);
        if (!start_joining (s, err))
            return false;
    }
    return keep_time (s, err);
}

/* Where the data socket binds: beside the control socket on this host, else on the interface that reaches the coordinator. */
static bool choose_data_address (session *s, wl_error *err)
{
    char text[256], host[WL_HOST_BYTES];
    bool loopback;
    if (s->options->folder) {
        snprintf (text, sizeof text, "ipc://%s/worker-%ld", s->options->folder, (long) getpid ());
    } else {
        if (!wl_link_local_host (s->address, host, &loopback, err))
            return false;
        if (!loopback && !s->options->insecure)
            return wl_fail (err, WL_ERROR_USAGE,
                            "--join %s: prompts and activations would travel unencrypted beyond this host: add "
                            "--insecure on a network that "
                            "you trust",
                            s->options->join);
        bool brackets = strchr (host, ':');
        snprintf (text, sizeof text, "tcp://%s%s%s:*", brackets ? "[" : "", host, brackets ? "]" : "");
    }
    s->data_address = wl_copy_text (text, strlen (text), err);
    return s->data_address != NULL;
}

/* What this machine can do, for the coordinator's plan, which works with what it has when there is nothing. A coordinator knows its own machine, so its local workers
 * have nothing to say. */
static void measure (session *s, const wl_kernels *kernels)
{
    wl_error ignored = {0};
    wl_speed_source source;
    uint32_t cores = wl_machine_cores ();
    bool anew = s->options->measures_anew;
    if (s->options->is_local)
        return;
    wl_machine_id (s->machine);
    s->own.known = wl_speed_obtain (kernels, s->n_threads, anew, &s->own.speed, &source, &ignored);
    s->own.cached = source == WL_SPEED_CACHED;
    if (cores == s->n_threads || !s->own.known)
        return;
    s->whole.known = wl_speed_obtain (kernels, cores, anew, &s->whole.speed, &source, &ignored);
    s->whole.cached = source == WL_SPEED_CACHED;
}

/* Where other workers get what this one has of a model, on the data socket's interface. Local workers have the coordinator's own file. */
static bool open_weights (session *s, wl_error *err)
{
    if (s->options->folder)
        return true;
    const wl_weight_server_options serving = {.listen = s->data_address};
    s->weights = wl_weight_server_new (&serving, err);
    return s->weights && wl_weight_server_endpoint (s->weights, s->address, s->weights_endpoint, err);
}

static bool open_session (session *s, wl_error *err)
{
    const session_options *o = s->options;
    bool loopback;
    const wl_kernels *kernels = wl_kernels_find (o->offer.isa, err);
    if (!kernels)
        return false;
    s->isa = kernels->isa;
    s->n_threads = o->offer.n_threads ? o->offer.n_threads : wl_machine_cores ();
    s->address = wl_link_address (o->join, &loopback, err);
    if (!s->address)
        return false;
    if (!wl_link_endpoint_ok (s->address))
        return wl_fail (err, WL_ERROR_USAGE, "--join %s: that is no coordinator's address: expected HOST:PORT",
                        o->join);
    if (!choose_data_address (s, err))
        return false;
    measure (s, kernels);
    if (!open_weights (s, err))
        return false;
    s->loop = stage_loop_new (&o->offer, s->weights, s->data_address, &s->data_endpoint, err);
    if (!s->loop || !open_link (s, err))
        return false;
    say (s, "joining %s (data on %s, %u threads, %s, %.1f GB)", o->join, s->data_endpoint, s->n_threads, s->isa,
         (double) o->offer.memory_bytes / 1e9);
    if (s->own.known)
        say (s, "%s: %.1f GB/s of weights, %.0f G multiply-adds/s", s->own.cached ? "measured before" : "measured",
             wl_speed_bandwidth (&s->own.speed) / 1e9, wl_speed_macs (&s->own.speed) / 1e9);
    return true;
}

session_end session_run (const session_options *options, int wake_end, wl_error *err)
{
    session s = {.options = options, .turn_ms = zclock_mono (), .hello_ms = -HELLO_EVERY_MS};
    session_end end = SESSION_FAILED;
    if (!open_session (&s, err))
        goto done;
    while (!s.done && turn (&s, wake_end, err))
        ;
    if (s.left) {
        send_leave (&s);
        zsock_set_linger (s.link, LEAVE_LINGER_MS);
        say (&s, "leaving");
    }
    if (err->code == WL_OK)
        end = SESSION_LEFT;
done:
    close_link (&s);
    if (!stage_loop_free (&s.loop, END_PATIENCE_MS) && end == SESSION_LEFT)
        end = SESSION_BUSY;
    free (s.address);
    if (s.loop)
        return end; /* its thread still uses the rest */
    wl_weight_server_free (&s.weights);
    free (s.data_address);
    free (s.data_endpoint);
    return end;
}
