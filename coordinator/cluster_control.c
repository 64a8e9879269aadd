/* The control plane of a coordinator; see cluster_control.h.
 *
 * State is shared between the actor and its owner under one mutex, held only for bookkeeping: sockets never block (ZMQ_DONTWAIT). The first failure is kept;
 * what follows from it (other workers noticing) is not of interest. */
#include "cluster_control.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cluster_plan.h"
#include "engine/machine.h"
#include "engine/memory.h"
#include "local_workers.h"
#include "proto/speed.h"

enum {
    TURN_MS = 50, /* how soon the end of a local process is seen */
    BEAT_MS = 500,
    SILENCE_MS = 2500,
    SUSPENDED_MS = 1000, /* a turn that took so long means that this process was stopped, not its workers */
    MESSAGES_A_TURN = 256,
    MAX_REMOTE = 4096,
    NOTE_EVERY_MS = 1000,
    SMALL_PROBES = 4,
    LARGE_PROBES = 2, /* the first one may find the connection still feeling its way */
    LARGE_PROBE_BYTES = 512 << 10,
    PROBING_MS = 2000, /* at most, of a link */
    MAX_CANCELS = 64,
    CLOCK_AGE_MS = 20000, /* a slow answer counts again when the best one is as old */
    LEAVE_LINGER_MS = 200,
    CUT_OFF_MS = 300,
    KILL_MS = 1000,
};

enum { LOCAL, REMOTE, N_ROUTERS };

typedef enum member_state {
    MEMBER_STARTED, /* a local process that has not said Hello */
    MEMBER_JOINED,
    MEMBER_LOADING,
    MEMBER_READY,
    MEMBER_GONE,
} member_state;

typedef struct member {
    control_member public;
    member_state state;
    local_worker process; /* of a local one */
    int router;           /* LOCAL or REMOTE */
    zframe_t *peer;       /* its routing id there; NULL before it joined */
    int64_t heard_ms;
    uint64_t pong_sequence;
    uint64_t joined_order;
    int64_t clock_offset_ns, clock_known_ms; /* of its clock, and when that was measured */
    uint64_t round_trip_ns;                  /* of the ping that measured it; 0: none did */
    uint32_t n_probes;                       /* sent; small ones, and then large ones */
    uint64_t probe_sent_ns, quickest_probe_ns, quickest_large_ns;
    bool in_plan;
    uint32_t first_layer, last_layer;
    Woolly__LoadPhase phase; /* of loading, and how far */
    uint64_t done_bytes, total_bytes, from_workers_bytes;
} member;

typedef struct id_range {
    uint64_t first, last;
} id_range;

struct control {
    control_options options;
    zactor_t *actor; /* the owner's */

    pthread_mutex_t mutex; /* guards all of the following but what is marked as the actor's own */
    wl_error start_error;
    bool started;
    char *endpoints[N_ROUTERS];
    member **members;
    size_t n_members, room;
    uint32_t next_id;
    uint64_t n_joined; /* ever */
    wl_error failure;
    char refusal[256];
    const control_plan *plan;
    uint64_t sequence;             /* of the newest ping */
    bool wants_pong;               /* the owner waits for one */
    id_range cancels[MAX_CANCELS]; /* not yet sent */
    size_t n_cancels;

    /* the actor's own */
    zsock_t *routers[N_ROUTERS]; /* NULL where there is nothing to bind */
    int64_t beat_ms, turn_ms, noted_ms;
};

/* -- members (under the mutex) ------------------------------------------------------------------------------------------------------------- */

static member *add_member (control *c, wl_error *err)
{
    if (c->n_members == c->room) {
        size_t room = c->room ? c->room * 2 : 16;
        member **grown = wl_resize (c->members, room, sizeof *grown, err);
        if (!grown)
            return NULL;
        c->members = grown;
        c->room = room;
    }
    member *m = wl_new (1, sizeof *m, err);
    if (!m)
        return NULL;
    m->public.id = ++c->next_id;
    m->process.life_fd = -1;
    c->members[c->n_members++] = m;
    return m;
}

static void free_member (member *m)
{
    zframe_destroy (&m->peer);
    free (m);
}

static member *find_id (const control *c, uint32_t id)
{
    for (size_t i = 0; i < c->n_members; i++)
        if (c->members[i]->public.id == id)
            return c->members[i];
    return NULL;
}

static member *find_peer (const control *c, int router, zframe_t *peer)
{
    for (size_t i = 0; i < c->n_members; i++) {
        member *m = c->members[i];
        if (m->state != MEMBER_GONE && m->peer && m->router == router && zframe_eq (m->peer, peer))
            return m;
    }
    return NULL;
}

/* Remote members that are gone and in no plan leave nothing to report. */
static void forget_gone (control *c)
{
    size_t kept = 0;
    for (size_t i = 0; i < c->n_members; i++) {
        member *m = c->members[i];
        if (m->state == MEMBER_GONE && !m->in_plan && m->public.number == 0)
            free_member (m);
        else
            c->members[kept++] = m;
    }
    c->n_members = kept;
}

/* Records that a member is lost, and as a failure if anything depends on it: "worker NAME (layers 15-29) <what>". */
static void __attribute__ ((format (printf, 4, 5))) lose (control *c, member *m, int code, const char *format, ...)
{
    char what[384], layers[48] = "";
    va_list args;
    if (m->state == MEMBER_GONE)
        return;
    va_start (args, format);
    vsnprintf (what, sizeof what, format, args);
    va_end (args);
    if (m->in_plan)
        snprintf (layers, sizeof layers, " (layers %u-%u)", m->first_layer, m->last_layer);
    if (m->in_plan || m->public.number)
        wl_fail (&c->failure, code, "worker %s%s %s", m->public.name, layers, what);
    m->state = MEMBER_GONE;
    wl_wake_signal (c->options.wake_end);
}

/* -- sending (actor) ---------------------------------------------------------------------------------------------------------------------------- */

static bool send_to (control *c, int router, zframe_t *peer, const Woolly__Control *message)
{
    wl_error err = {0};
    return wl_control_send (c->routers[router], peer, message, &err);
}

static void send_welcome (control *c, int router, zframe_t *peer)
{
    Woolly__Welcome welcome = WOOLLY__WELCOME__INIT;
    Woolly__Control message = WOOLLY__CONTROL__INIT;
    welcome.heartbeat_ms = BEAT_MS;
    message.kind_case = WOOLLY__CONTROL__KIND_WELCOME;
    message.welcome = &welcome;
    send_to (c, router, peer, &message);
}

static void refuse (control *c, int router, zframe_t *peer, const char *reason)
{
    Woolly__Refused refused = WOOLLY__REFUSED__INIT;
    Woolly__Control message = WOOLLY__CONTROL__INIT;
    refused.reason = (char *) reason;
    message.kind_case = WOOLLY__CONTROL__KIND_REFUSED;
    message.refused = &refused;
    send_to (c, router, peer, &message);
    snprintf (c->refusal, sizeof c->refusal, "%s", reason);
    wl_wake_signal (c->options.wake_end);
}

/* The next message of those that measure a link. The worker answers each at once. */
static void send_probe (control *c, member *m)
{
    Woolly__Probe probe = WOOLLY__PROBE__INIT;
    Woolly__Control message = WOOLLY__CONTROL__INIT;
    uint8_t *zeros = NULL;
    message.kind_case = WOOLLY__CONTROL__KIND_PROBE;
    message.probe = &probe;
    probe.sequence = ++m->n_probes;
    if (m->n_probes > SMALL_PROBES) {
        probe.payload.data = zeros = wl_new (LARGE_PROBE_BYTES, 1, NULL);
        probe.payload.len = zeros ? LARGE_PROBE_BYTES : 0;
    }
    m->probe_sent_ns = wl_now_ns ();
    send_to (c, m->router, m->peer, &message);
    free (zeros);
}

static void send_leave (control *c, const member *m, const char *reason)
{
    Woolly__Leave leave = WOOLLY__LEAVE__INIT;
    Woolly__Control message = WOOLLY__CONTROL__INIT;
    leave.reason = (char *) reason;
    message.kind_case = WOOLLY__CONTROL__KIND_LEAVE;
    message.leave = &leave;
    send_to (c, m->router, m->peer, &message);
}

static bool has_joined (const member *m)
{
    return m->state == MEMBER_JOINED || m->state == MEMBER_LOADING || m->state == MEMBER_READY;
}

/* Pings everyone with the newest sequence number. */
static void beat (control *c)
{
    Woolly__Ping ping = WOOLLY__PING__INIT;
    Woolly__Control message = WOOLLY__CONTROL__INIT;
    message.kind_case = WOOLLY__CONTROL__KIND_PING;
    message.ping = &ping;
    for (size_t i = 0; i < c->n_members; i++) {
        member *m = c->members[i];
        if (!has_joined (m))
            continue;
        ping.sequence = c->sequence;
        ping.sent_ns = wl_now_ns ();
        if (!send_to (c, m->router, m->peer, &message) && m->router == REMOTE)
            lose (c, m, WL_ERROR_CLUSTER, "stopped answering: its connection is closed");
    }
}

static void send_cancels (control *c)
{
    Woolly__Cancel cancel = WOOLLY__CANCEL__INIT;
    Woolly__Control message = WOOLLY__CONTROL__INIT;
    message.kind_case = WOOLLY__CONTROL__KIND_CANCEL;
    message.cancel = &cancel;
    for (size_t i = 0; i < c->n_cancels; i++)
        for (size_t k = 0; k < c->n_members; k++) {
            const member *m = c->members[k];
            if (!m->in_plan || m->state != MEMBER_READY)
                continue;
            cancel.epoch = c->plan->epoch;
            cancel.first_id = c->cancels[i].first;
            cancel.last_id = c->cancels[i].last;
            send_to (c, m->router, m->peer, &message);
        }
    c->n_cancels = 0;
}

static void send_load (control *c, const control_stage *stage)
{
    const control_plan *plan = c->plan;
    member *m = find_id (c, stage->member);
    Woolly__Load load = WOOLLY__LOAD__INIT;
    Woolly__Control message = WOOLLY__CONTROL__INIT;
    if (!m || m->state != MEMBER_JOINED)
        return; /* control_load has noted it */
    load.epoch = plan->epoch;
    load.model_path = (char *) plan->model_path;
    load.fingerprint.data = (uint8_t *) plan->fingerprint;
    load.fingerprint.len = 32;
    load.first_layer = stage->first_layer;
    load.last_layer = stage->last_layer;
    load.n_threads = stage->n_threads;
    load.n_pages = plan->n_pages;
    load.max_rows = plan->max_rows;
    load.max_logit_rows = plan->max_logit_rows;
    load.context = plan->context;
    load.no_pack_cache = plan->no_pack_cache;
    load.hop = plan->hop;
    load.kv = plan->kv;
    load.rope_choice = plan->rope.choice;
    load.rope_factor = plan->rope.factor;
    load.rope_context = plan->rope.context;
    load.next_endpoint = (char *) stage->next_endpoint;
    load.weights_endpoint = (char *) stage->weights_endpoint;
    load.weights_peers = (char **) stage->weights_peers;
    load.n_weights_peers = stage->n_weights_peers;
    load.parts = plan->parts;
    load.n_parts = plan->n_parts;
    load.isa = (char *) plan->isa;
    message.kind_case = WOOLLY__CONTROL__KIND_LOAD;
    message.load = &load;
    m->state = MEMBER_LOADING;
    if (!send_to (c, m->router, m->peer, &message))
        lose (c, m, WL_ERROR_CLUSTER, "left before it could be loaded");
}

/* -- receiving (actor, under the mutex) ------------------------------------------------------------------------------------------------------------ */

/* A text of a peer's, cut and made printable. */
static void copy_text (char *out, size_t room, const char *text)
{
    snprintf (out, room, "%s", text);
    for (unsigned char *c = (unsigned char *) out; *c; c++)
        if (*c < 0x20 || *c == 0x7f)
            *c = '?';
}

/* The started process that this Hello comes from, if it is one: only who may enter the folder can say so. */
static member *find_started (const control *c, int router, uint64_t pid)
{
    for (size_t i = 0; i < c->n_members && router == LOCAL; i++)
        if (c->members[i]->state == MEMBER_STARTED && (uint64_t) c->members[i]->process.pid == pid)
            return c->members[i];
    return NULL;
}

static size_t count_remote (const control *c)
{
    size_t n = 0;
    for (size_t i = 0; i < c->n_members; i++)
        n += c->members[i]->public.number == 0 && c->members[i]->state != MEMBER_GONE;
    return n;
}

/* Whoever had this data endpoint before has been started anew. */
static void lose_predecessor (control *c, const char *data_endpoint)
{
    for (size_t i = 0; i < c->n_members; i++)
        if (has_joined (c->members[i]) && strcmp (c->members[i]->public.data_endpoint, data_endpoint) == 0)
            lose (c, c->members[i], WL_ERROR_CLUSTER, "dropped its layers and joined anew");
}

/* What a worker measured of itself; its link is measured now, where one leads to another host. */
static void take_measures (control *c, member *m, const Woolly__Hello *hello)
{
    bool whole_cached;
    copy_text (m->public.machine, sizeof m->public.machine, hello->machine);
    m->public.own_known = wl_speed_unpack (hello->own, &m->public.own, &m->public.own_cached);
    m->public.whole_known = wl_speed_unpack (hello->whole, &m->public.whole, &whole_cached);
    m->public.link_pending = m->router == REMOTE && !cluster_is_host_only (m->public.data_endpoint);
    if (m->public.link_pending)
        send_probe (c, m);
}

static void take_hello (control *c, int router, zframe_t *peer, const Woolly__Hello *hello)
{
    char reason[256];
    wl_error err = {0};
    member *m = find_peer (c, router, peer);
    if (m && m->state == MEMBER_JOINED) { /* its welcome was still under way */
        send_welcome (c, router, peer);
        return;
    }
    if (hello->protocol != WL_PROTOCOL) {
        snprintf (reason, sizeof reason,
                  "it speaks protocol %u, the coordinator %d: install the same version of Woolly on both",
                  hello->protocol, WL_PROTOCOL);
        refuse (c, router, peer, reason);
        return;
    }
    if (!wl_link_endpoint_ok (hello->data_endpoint) ||
        strlen (hello->data_endpoint) >= sizeof m->public.data_endpoint) {
        refuse (c, router, peer, "its data endpoint cannot be connected to");
        return;
    }
    if (hello->weights_endpoint[0] && (!wl_link_endpoint_ok (hello->weights_endpoint) ||
                                       strlen (hello->weights_endpoint) >= sizeof m->public.weights_endpoint)) {
        refuse (c, router, peer, "its weights endpoint cannot be connected to");
        return;
    }
    lose_predecessor (c, hello->data_endpoint);
    forget_gone (c);
    m = find_started (c, router, hello->pid);
    if (!m && count_remote (c) >= MAX_REMOTE) {
        refuse (c, router, peer, "the cluster is full");
        return;
    }
    if (!m) {
        m = add_member (c, &err);
        if (m)
            copy_text (m->public.name, sizeof m->public.name, hello->name[0] ? hello->name : "without a name");
    }
    zframe_t *id = m ? zframe_dup (peer) : NULL;
    if (!id)
        return; /* out of memory: it will say Hello again */
    copy_text (m->public.isa, sizeof m->public.isa, hello->isa);
    memcpy (m->public.data_endpoint, hello->data_endpoint, strlen (hello->data_endpoint) + 1);
    memcpy (m->public.weights_endpoint, hello->weights_endpoint, strlen (hello->weights_endpoint) + 1);
    m->public.n_threads = hello->n_threads;
    m->public.memory_bytes = hello->memory_bytes;
    m->router = router;
    m->peer = id;
    m->state = MEMBER_JOINED;
    m->heard_ms = zclock_mono ();
    m->joined_order = ++c->n_joined;
    send_welcome (c, router, peer);
    take_measures (c, m, hello);
    wl_wake_signal (c->options.wake_end);
}

/* Half of a round trip lies on either side of the answer; the quickest one says it best. */
static void compare_clocks (member *m, const Woolly__Pong *pong)
{
    uint64_t now = wl_now_ns ();
    int64_t now_ms = zclock_mono ();
    if (m->router == LOCAL || pong->sent_ns > now || pong->clock_ns == 0)
        return;
    uint64_t round_trip = now - pong->sent_ns;
    if (m->round_trip_ns && round_trip > m->round_trip_ns && now_ms - m->clock_known_ms < CLOCK_AGE_MS)
        return;
    m->round_trip_ns = round_trip ? round_trip : 1;
    m->clock_known_ms = now_ms;
    m->clock_offset_ns = (int64_t) (pong->clock_ns - (pong->sent_ns + round_trip / 2));
}

static void take_pong (control *c, member *m, const Woolly__Pong *pong)
{
    compare_clocks (m, pong);
    m->pong_sequence = pong->sequence;
    m->public.rss_bytes = pong->rss_bytes;
    m->public.mapped_bytes = pong->mapped_bytes;
    m->public.busy_ns = pong->busy_ns;
    if (c->wants_pong)
        wl_wake_signal (c->options.wake_end);
}

/* From the quickest small round trip, and how much longer `large_ns` a large message took. */
static void know_link (control *c, member *m, uint64_t large_ns)
{
    const double least_s = 1e-6;
    double extra = ((double) large_ns - (double) m->quickest_probe_ns) * 1e-9;
    m->public.link_latency_s = (double) m->quickest_probe_ns * 1e-9 / 2;
    m->public.link_bytes_per_s = LARGE_PROBE_BYTES / (extra > least_s ? extra : least_s);
    m->public.link_known = true;
    m->public.link_pending = false;
    wl_wake_signal (c->options.wake_end);
}

static void take_probed (control *c, member *m, const Woolly__Probed *probed)
{
    uint64_t took = wl_now_ns () - m->probe_sent_ns;
    if (!m->public.link_pending || probed->sequence != m->n_probes)
        return;
    uint64_t *quickest = m->n_probes > SMALL_PROBES ? &m->quickest_large_ns : &m->quickest_probe_ns;
    if (*quickest == 0 || took < *quickest)
        *quickest = took;
    if (m->n_probes < SMALL_PROBES + LARGE_PROBES)
        send_probe (c, m);
    else
        know_link (c, m, m->quickest_large_ns);
}

/* A slow link shows in how long the large message is under way already; one that answers nothing stays unknown. */
static void end_probing (control *c, member *m)
{
    uint64_t waited = wl_now_ns () - m->probe_sent_ns;
    if (!m->public.link_pending || waited < (uint64_t) PROBING_MS * 1000000)
        return;
    if (m->n_probes > SMALL_PROBES)
        know_link (c, m, m->quickest_large_ns ? m->quickest_large_ns : waited);
    m->public.link_pending = false;
    wl_wake_signal (c->options.wake_end);
}

static void take_loaded (control *c, member *m, const Woolly__Loaded *loaded)
{
    if (m->state != MEMBER_LOADING || loaded->epoch != c->plan->epoch)
        return;
    m->state = MEMBER_READY;
    m->public.weight_bytes = m->done_bytes = loaded->weight_bytes;
    m->phase = WOOLLY__LOAD_PHASE__PACKING;
    m->public.shipped_bytes = loaded->shipped_bytes;
    m->public.from_workers_bytes = loaded->from_workers_bytes;
    m->public.shipping_ns = loaded->shipping_ns;
    m->public.weights = loaded->weights;
    m->public.rss_bytes = loaded->rss_bytes;
    m->public.kept_bytes = loaded->kept_bytes;
    m->public.n_threads = loaded->n_threads;
    copy_text (m->public.isa, sizeof m->public.isa, loaded->isa);
    wl_wake_signal (c->options.wake_end);
}

static void take_failed (control *c, member *m, const Woolly__Failed *failed)
{
    if (!c->plan || failed->epoch != c->plan->epoch || !m->in_plan)
        return;
    int code =
        failed->code >= WL_ERROR_USAGE && failed->code <= WL_ERROR_INTERNAL ? (int) failed->code : WL_ERROR_INTERNAL;
    lose (c, m, code, "failed: %.300s", failed->text);
}

static void take_message (control *c, int router, zframe_t *peer, const Woolly__Control *message)
{
    if (message->kind_case == WOOLLY__CONTROL__KIND_HELLO) {
        take_hello (c, router, peer, message->hello);
        return;
    }
    member *m = find_peer (c, router, peer);
    if (!m)
        return; /* of one that was given up, or that never said Hello */
    m->heard_ms = zclock_mono ();
    switch (message->kind_case) {
    case WOOLLY__CONTROL__KIND_PONG:
        take_pong (c, m, message->pong);
        return;
    case WOOLLY__CONTROL__KIND_PROBED:
        take_probed (c, m, message->probed);
        return;
    case WOOLLY__CONTROL__KIND_PROGRESS:
        if (m->state == MEMBER_LOADING && message->progress->epoch == c->plan->epoch) {
            m->phase = message->progress->phase;
            m->done_bytes = message->progress->done_bytes;
            m->total_bytes = message->progress->total_bytes;
            m->from_workers_bytes = message->progress->from_workers_bytes;
            wl_wake_signal (c->options.wake_end);
        }
        return;
    case WOOLLY__CONTROL__KIND_LOADED:
        take_loaded (c, m, message->loaded);
        return;
    case WOOLLY__CONTROL__KIND_FAILED:
        take_failed (c, m, message->failed);
        return;
    case WOOLLY__CONTROL__KIND_LEAVE:
        lose (c, m, WL_ERROR_CLUSTER, "left: %.300s", message->leave->reason);
        return;
    default:
        return; /* what only coordinators send */
    }
}

/* One line about a malformed message; at most one a second. Nobody but who may enter the folder, or reach --listen, can cause it. */
static void note_dropped (control *c, int router, const wl_error *error)
{
    int64_t now = zclock_mono ();
    if (c->noted_ms && now - c->noted_ms < NOTE_EVERY_MS)
        return;
    c->noted_ms = now;
    fprintf (stderr, "woolly: dropped a message on %s: %s\n", c->endpoints[router], error->text);
}

static void take_messages (control *c, int router)
{
    for (int i = 0; i < MESSAGES_A_TURN; i++) {
        zframe_t *peer = NULL;
        wl_error err = {0};
        Woolly__Control *message = wl_control_receive (c->routers[router], &peer, 0, &err);
        if (!message && err.code == WL_OK)
            return;
        if (message)
            take_message (c, router, peer, message);
        else
            note_dropped (c, router, &err);
        zframe_destroy (&peer);
        wl_control_free (&message);
    }
}

/* -- time (actor, under the mutex) ---------------------------------------------------------------------------------------------------------------- */

static void watch_processes (control *c)
{
    for (size_t i = 0; i < c->n_members; i++) {
        member *m = c->members[i];
        int status;
        char text[64];
        if (!local_worker_ended (&m->process, &status))
            continue;
        local_worker_describe (status, text, sizeof text);
        lose (c, m, WL_ERROR_CLUSTER, "%s%s", text, m->state == MEMBER_STARTED ? " before it joined" : "");
    }
}

static void keep_time (control *c)
{
    int64_t now = zclock_mono ();
    bool suspended = now - c->turn_ms > SUSPENDED_MS;
    c->turn_ms = now;
    watch_processes (c);
    for (size_t i = 0; i < c->n_members; i++) {
        member *m = c->members[i];
        if (suspended)
            m->heard_ms = now;
        end_probing (c, m);
        if (has_joined (m) && now - m->heard_ms > SILENCE_MS)
            lose (c, m, WL_ERROR_CLUSTER, "stopped answering");
    }
    if (now - c->beat_ms >= BEAT_MS) {
        c->beat_ms = now;
        c->sequence++;
        beat (c);
    }
}

/* -- the actor ------------------------------------------------------------------------------------------------------------------------------------- */

static bool open_routers (control *c)
{
    wl_error err = {0};
    char local[256] = "";
    if (c->options.folder)
        snprintf (local, sizeof local, "ipc://%s/control", c->options.folder);
    const char *addresses[N_ROUTERS] = {[LOCAL] = c->options.folder ? local : NULL, [REMOTE] = c->options.listen};
    for (int i = 0; i < N_ROUTERS && err.code == WL_OK; i++) {
        if (!addresses[i])
            continue;
        c->routers[i] = wl_link_new (WL_LINK_ROUTER, WL_HEADER_LIMIT, &err);
        if (c->routers[i])
            wl_link_bind (c->routers[i], addresses[i], NULL, &c->endpoints[i], &err);
    }
    c->start_error = err;
    c->started = err.code == WL_OK;
    return c->started;
}

/* Obeys one word of the owner; false when it was the last. */
static bool obey (control *c, zsock_t *pipe)
{
    char word[16] = "";
    if (zmq_recv (zsock_resolve (pipe), word, sizeof word - 1, ZMQ_DONTWAIT) < 0)
        return true;
    if (strcmp (word, "LOAD") == 0)
        for (uint32_t i = 0; i < c->plan->n_stages; i++)
            send_load (c, &c->plan->stages[i]);
    else if (strcmp (word, "PING") == 0)
        beat (c);
    else if (strcmp (word, "CANCEL") == 0)
        send_cancels (c);
    return strcmp (word, "$TERM") != 0;
}

static void turn (control *c)
{
    for (int i = 0; i < N_ROUTERS; i++)
        if (c->routers[i])
            take_messages (c, i);
    keep_time (c);
}

static bool any_process (control *c)
{
    int status;
    bool any = false;
    for (size_t i = 0; i < c->n_members; i++) {
        local_worker_ended (&c->members[i]->process, &status);
        any = any || c->members[i]->process.pid > 0;
    }
    return any;
}

/* Everyone is told to leave. Local processes are waited for with growing impatience. */
static void send_away (control *c)
{
    const struct timespec moment = {.tv_nsec = 2000000};
    int64_t start = zclock_mono ();
    bool cut_off = false;
    for (size_t i = 0; i < c->n_members; i++) {
        if (has_joined (c->members[i]))
            send_leave (c, c->members[i], "its work is done");
        else /* one that is still starting, or that stopped answering, hears nothing */
            local_worker_release (&c->members[i]->process);
    }
    while (any_process (c) && zclock_mono () - start < KILL_MS) {
        if (!cut_off && zclock_mono () - start >= CUT_OFF_MS) {
            for (size_t i = 0; i < c->n_members; i++)
                local_worker_release (&c->members[i]->process);
            cut_off = true;
        }
        nanosleep (&moment, NULL);
    }
    for (size_t i = 0; i < c->n_members; i++)
        local_worker_kill (&c->members[i]->process);
}

static void run (zsock_t *pipe, void *args)
{
    control *c = args;
    pthread_mutex_lock (&c->mutex);
    bool running = open_routers (c);
    c->turn_ms = zclock_mono ();
    pthread_mutex_unlock (&c->mutex);
    zsock_signal (pipe, 0);
    while (running) {
        zmq_pollitem_t items[1 + N_ROUTERS] = {{.socket = zsock_resolve (pipe), .events = ZMQ_POLLIN}};
        int n = 1;
        for (int i = 0; i < N_ROUTERS; i++)
            if (c->routers[i])
                items[n++] = (zmq_pollitem_t){.socket = zsock_resolve (c->routers[i]), .events = ZMQ_POLLIN};
        if (zmq_poll (items, n, TURN_MS) < 0 && errno != EINTR)
            break; /* ZeroMQ ended below us: the process exits */
        pthread_mutex_lock (&c->mutex);
        if (items[0].revents & ZMQ_POLLIN)
            running = obey (c, pipe);
        if (running)
            turn (c);
        pthread_mutex_unlock (&c->mutex);
    }
    pthread_mutex_lock (&c->mutex);
    send_away (c);
    for (int i = 0; i < N_ROUTERS; i++) {
        if (c->routers[i])
            zsock_set_linger (c->routers[i], LEAVE_LINGER_MS);
        zsock_destroy (&c->routers[i]);
    }
    pthread_mutex_unlock (&c->mutex);
}

/* -- for the owner ------------------------------------------------------------------------------------------------------------------------------------ */

/* CZMQ takes a signal while it waits for an actor as the end of waiting; so signals wait until that is over. The actor inherits the mask: handlers run in other threads. */
static void block_signals (sigset_t *before)
{
    sigset_t blocked;
    sigemptyset (&blocked);
    sigaddset (&blocked, SIGINT);
    sigaddset (&blocked, SIGTERM);
    sigaddset (&blocked, SIGHUP);
    sigaddset (&blocked, SIGCHLD);
    sigaddset (&blocked, SIGWINCH);
    pthread_sigmask (SIG_BLOCK, &blocked, before);
}

control *control_new (const control_options *options, wl_error *err)
{
    sigset_t before;
    control *c = wl_new (1, sizeof *c, err);
    if (!c)
        return NULL;
    c->options = *options;
    pthread_mutex_init (&c->mutex, NULL);
    block_signals (&before);
    c->actor = zactor_new (run, c);
    pthread_sigmask (SIG_SETMASK, &before, NULL);
    pthread_mutex_lock (&c->mutex);
    bool ok = c->started;
    if (!ok)
        *err = c->start_error;
    pthread_mutex_unlock (&c->mutex);
    if (!ok)
        control_free (&c);
    return c;
}

void control_free (control **control_pointer)
{
    control *c = *control_pointer;
    sigset_t before;
    if (!c)
        return;
    block_signals (&before);
    zactor_destroy (&c->actor);
    if (c->options
            .folder) /* nobody is left to do it, and a second Ctrl-C that waits ends this process when it is let in */
        wl_socket_folder_remove (c->options.folder);
    pthread_sigmask (SIG_SETMASK, &before, NULL);
    pthread_mutex_lock (&c->mutex); /* after the actor's last use of it */
    for (size_t i = 0; i < c->n_members; i++)
        free_member (c->members[i]);
    free (c->members);
    for (int i = 0; i < N_ROUTERS; i++)
        free (c->endpoints[i]);
    pthread_mutex_unlock (&c->mutex);
    pthread_mutex_destroy (&c->mutex);
    free (c);
    *control_pointer = NULL;
}

bool control_start_local (control *c, const char *binary, uint32_t n, uint32_t n_threads, wl_error *err)
{
    bool ok = true;
    for (uint32_t i = 1; i <= n && ok; i++) {
        pthread_mutex_lock (&c->mutex); /* so that its Hello finds it in the list */
        member *m = add_member (c, err);
        ok = m != NULL;
        if (m) {
            snprintf (m->public.name, sizeof m->public.name, "local-%u", i);
            m->public.number = i;
            const local_worker_options options = {binary, c->endpoints[LOCAL], m->public.name, n_threads};
            ok = local_worker_start (&m->process, &options, err);
        }
        pthread_mutex_unlock (&c->mutex);
    }
    return ok;
}

static int by_joining (const void *a, const void *b)
{
    const member *x = *(const member *const *) a, *y = *(const member *const *) b;
    return x->joined_order < y->joined_order ? -1 : x->joined_order > y->joined_order;
}

size_t control_joined (control *c, control_member *out, size_t room)
{
    size_t n = 0;
    pthread_mutex_lock (&c->mutex);
    if (c->n_members)
        qsort (c->members, c->n_members, sizeof *c->members, by_joining);
    for (size_t i = 0; i < c->n_members; i++) {
        if (c->members[i]->state != MEMBER_JOINED)
            continue;
        if (n < room)
            out[n] = c->members[i]->public;
        n++;
    }
    pthread_mutex_unlock (&c->mutex);
    return n;
}

void control_last_refusal (control *c, char *text, size_t room)
{
    pthread_mutex_lock (&c->mutex);
    snprintf (text, room, "%s", c->refusal);
    pthread_mutex_unlock (&c->mutex);
}

void control_load (control *c, const control_plan *plan)
{
    pthread_mutex_lock (&c->mutex);
    c->plan = plan;
    for (uint32_t i = 0; i < plan->n_stages; i++) {
        const control_stage *stage = &plan->stages[i];
        member *m = find_id (c, stage->member);
        if (!m) { /* it left since it was counted, and is forgotten */
            wl_fail (&c->failure, WL_ERROR_CLUSTER, "a worker left before it could be loaded: start again");
            continue;
        }
        m->in_plan = true;
        m->first_layer = stage->first_layer;
        m->last_layer = stage->last_layer;
        if (m->state == MEMBER_GONE)
            wl_fail (&c->failure, WL_ERROR_CLUSTER, "worker %s left before it could be loaded", m->public.name);
    }
    pthread_mutex_unlock (&c->mutex);
    zmq_send (zactor_resolve (c->actor), "LOAD", 4, ZMQ_DONTWAIT);
}

control_progress control_load_progress (control *c)
{
    control_progress p = {0};
    pthread_mutex_lock (&c->mutex);
    for (size_t i = 0; i < c->n_members; i++) {
        const member *m = c->members[i];
        if (!m->in_plan)
            continue;
        p.n_ready += m->state == MEMBER_READY;
        if (m->phase == WOOLLY__LOAD_PHASE__ARRIVING) {
            p.n_arriving++;
            p.arrived_bytes += m->done_bytes;
            p.from_workers_bytes += m->from_workers_bytes;
            p.arriving_bytes += m->total_bytes;
        } else if (m->phase == WOOLLY__LOAD_PHASE__CHECKING) {
            p.n_checking++;
            p.checked_bytes += m->done_bytes;
            p.checking_bytes += m->total_bytes;
        } else {
            p.packed_bytes += m->done_bytes;
        }
    }
    pthread_mutex_unlock (&c->mutex);
    return p;
}

bool control_failed (control *c, wl_error *err)
{
    pthread_mutex_lock (&c->mutex);
    bool failed = c->failure.code != WL_OK;
    if (failed)
        *err = c->failure;
    pthread_mutex_unlock (&c->mutex);
    return failed;
}

void control_cancel (control *c, uint64_t first_id, uint64_t last_id)
{
    pthread_mutex_lock (&c->mutex);
    bool room = c->n_cancels < MAX_CANCELS;
    if (room)
        c->cancels[c->n_cancels++] = (id_range){first_id, last_id};
    pthread_mutex_unlock (&c->mutex);
    if (room)
        zmq_send (zactor_resolve (c->actor), "CANCEL", 6, ZMQ_DONTWAIT);
}

int64_t control_clock_offset (control *c, uint32_t id)
{
    pthread_mutex_lock (&c->mutex);
    const member *m = find_id (c, id);
    int64_t offset = m ? m->clock_offset_ns : 0;
    pthread_mutex_unlock (&c->mutex);
    return offset;
}

bool control_describe (control *c, uint32_t id, int wake_fd, int timeout_ms, control_member *out)
{
    int64_t deadline = zclock_mono () + timeout_ms;
    pthread_mutex_lock (&c->mutex);
    uint64_t wanted = ++c->sequence;
    c->wants_pong = true;
    pthread_mutex_unlock (&c->mutex);
    zmq_send (zactor_resolve (c->actor), "PING", 4, ZMQ_DONTWAIT);
    for (;;) {
        pthread_mutex_lock (&c->mutex);
        const member *m = find_id (c, id);
        int64_t left = deadline - zclock_mono ();
        bool done = !m || !has_joined (m) || m->pong_sequence >= wanted || left <= 0;
        if (m)
            *out = m->public;
        c->wants_pong = !done;
        pthread_mutex_unlock (&c->mutex);
        if (done)
            return m != NULL;
        struct pollfd item = {.fd = wake_fd, .events = POLLIN};
        poll (&item, 1, (int) left);
        wl_wake_drain (wake_fd);
    }
}
