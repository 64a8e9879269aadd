/* The cluster as the coordinator sees it; see cluster.h. Workers and their control links are cluster_control.c's; here is what is done with them: waiting for
 * them, the plan, and the data links at both ends of the pipeline.
 *
 * Order of stages: local workers by number, then those whose data socket only this host can reach, then the others, both by name. So a stage never has to
 * reach into another host's loopback, and the same workers get the same layers each time, whose weights they have kept. */
#include "cluster.h"

#include <limits.h>
#include <poll.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster_control.h"
#include "cluster_plan.h"
#include "engine/machine.h"
#include "engine/memory.h"
#include "local_workers.h"
#include "proto/fingerprint.h"
#include "proto/weight_server.h"

enum { POLL_MS = 50, SEND_TURN_MS = 100, FRESH_MS = 200 };

typedef struct stage {
    uint32_t member;
    wl_plan_stage plan;
    char next_endpoint[256];
    char weights_endpoint[WL_WEIGHT_ENDPOINT_BYTES];
    char *weights_peers[WL_WEIGHTS_MAX_PEERS]; /* other stages' members' */
    control_member last_seen;
} stage;

struct wl_cluster {
    wl_cluster_options options;
    const wl_cluster_need *need; /* only while starting */
    wl_cluster_progress_fn progress;
    void *progress_context;

    int wake[2];
    atomic_bool interrupted; /* set by wl_cluster_interrupt (a signal handler), taken by whoever waits */
    char *folder;            /* of ipc sockets; NULL without local workers */
    char *listen;            /* "tcp://…" */
    control *control;
    zsock_t *push, *pull;                 /* to the first stage, from the last */
    char *results_local, *results_remote; /* where the last stage finds pull: over ipc, over tcp */
    uint64_t memory_bytes;                /* this machine's, before any worker started */

    uint64_t epoch;
    uint32_t n_vocab;
    control_member *members; /* [n_members] in pipeline order */
    uint32_t n_members;
    stage *stages; /* [n_stages] */
    uint32_t n_stages;
    uint8_t fingerprint[WL_FINGERPRINT_BYTES];
    char *model_path;
    control_plan plan;
    control_stage *control_stages;
    wl_weight_server *weights;       /* only while starting */
    Woolly__ModelPart *parts;        /* [n_parts], the model's files */
    Woolly__ModelPart **part_places; /* to each of them */
    int64_t shipping_ms;             /* since when weights are on their way; 0: they are not */
    cluster_plan *planned;
};

/* -- starting: who takes part --------------------------------------------------------------------------------------------------------------- */

/* Shows a line; false with an error when the user has had enough. */
static bool show (wl_cluster *c, const char *line, wl_error *err)
{
    bool stop = c->progress && c->progress (c->progress_context, line);
    return !stop || wl_fail (err, WL_ERROR_CLUSTER, "interrupted");
}

static uint32_t count_ranges (const char *layers)
{
    uint32_t n = 1;
    for (const char *at = layers; *at; at++)
        n += *at == ',';
    return n;
}

/* How many workers must join by themselves: with --layers, as many as it has ranges for. */
static uint32_t remote_wanted (const wl_cluster *c)
{
    uint32_t wanted = c->listen ? c->options.min_workers : 0;
    uint32_t ranges = c->options.layers && c->listen ? count_ranges (c->options.layers) : 0;
    return ranges > c->options.n_local + wanted ? ranges - c->options.n_local : wanted;
}

/* Threads of a local worker. */
static uint32_t local_threads (const wl_cluster *c)
{
    uint32_t n = c->options.n_local, shared = wl_machine_cores () / (n ? n : 1);
    return c->options.n_threads ? c->options.n_threads : shared ? shared : 1;
}

static bool plan_for (wl_cluster *c, const control_member *members, uint32_t n, const uint8_t *fingerprint,
                      wl_error *err)
{
    cluster_plan_free (c->planned);
    return cluster_plan_make (c->planned, &c->options, c->need, local_threads (c), c->memory_bytes, members, n,
                              fingerprint, err);
}

/* With local workers only, the plan is known before any process is started: what is wrong with it is said at once. */
static bool check_local_plan (wl_cluster *c, wl_error *err)
{
    uint32_t n = c->options.n_local;
    if (!cluster_plan_check (&c->options, c->need, err))
        return false;
    control_member *members = wl_new (n, sizeof *members, err);
    for (uint32_t i = 0; members && i < n; i++) {
        members[i].number = i + 1;
        snprintf (members[i].name, sizeof members[i].name, "local-%u", i + 1);
    }
    bool ok = members && plan_for (c, members, n, NULL, err);
    free (members);
    return ok;
}

static bool check_listen (wl_cluster *c, wl_error *err)
{
    bool loopback;
    if (!c->options.listen)
        return true;
    c->listen = wl_link_address (c->options.listen, &loopback, err);
    if (!c->listen)
        return false;
    if (strncmp (c->listen, "tcp://", 6) != 0)
        return wl_fail (err, WL_ERROR_USAGE, "--listen %s: expected HOST:PORT", c->options.listen);
    if (!loopback && !c->options.insecure)
        return wl_fail (err, WL_ERROR_USAGE,
                        "--listen %s: prompts and activations would travel unencrypted beyond this host: add "
                        "--insecure on a network that "
                        "you trust",
                        c->options.listen);
    return true;
}

static bool start_local (wl_cluster *c, wl_error *err)
{
    uint32_t n = c->options.n_local;
    char *binary = n ? local_worker_binary (c->options.worker_binary, err) : NULL;
    bool ok = n == 0 || (binary && control_start_local (c->control, binary, n, local_threads (c), err));
    free (binary);
    return ok;
}

static bool report_missing (wl_cluster *c, uint32_t n_local, uint32_t n_remote, wl_error *err)
{
    char refusal[256];
    control_last_refusal (c->control, refusal, sizeof refusal);
    const char *address = c->options.listen;
    double seconds = (double) c->options.join_timeout_s;
    if (n_local < c->options.n_local)
        return wl_fail (err, WL_ERROR_CLUSTER,
                        "only %u of %u local workers answered within %g s: the machine is busy, or the worker "
                        "program is of another version",
                        n_local, c->options.n_local, seconds);
    return wl_fail (
        err, WL_ERROR_CLUSTER,
        "only %u of %u workers joined within %g s on %s: start `woolly-worker --join %s` on each machine%s%s", n_remote,
        remote_wanted (c), seconds, c->listen, address, refusal[0] ? "; one was refused: " : "", refusal);
}

/* Waits until enough have joined; their number is in n_members. */
static bool wait_for_members (wl_cluster *c, wl_error *err)
{
    int64_t deadline = zclock_mono () + (int64_t) ((double) c->options.join_timeout_s * 1000);
    uint32_t wanted = remote_wanted (c);
    for (;;) {
        char line[160];
        uint32_t n_local = 0, n_pending = 0;
        size_t n = control_joined (c->control, NULL, 0);
        control_member *members = wl_new (n, sizeof *members, err);
        if (!members)
            return false;
        size_t filled = control_joined (c->control, members, n);
        n = filled < n ? filled : n;
        for (size_t i = 0; i < n; i++)
            n_local += members[i].number > 0;
        for (size_t i = 0; i < n; i++)
            n_pending += members[i].link_pending;
        free (c->members);
        c->members = members;
        c->n_members = (uint32_t) n;
        uint32_t n_remote = (uint32_t) n - n_local;
        if (control_failed (c->control, err))
            return false;
        bool enough = n_local >= c->options.n_local && n_remote >= wanted;
        if (enough && n_pending == 0)
            return true;
        if (!enough && zclock_mono () >= deadline)
            return report_missing (c, n_local, n_remote, err);
        if (c->listen)
            snprintf (line, sizeof line, "waiting for workers on %s: %u of %u joined", c->listen, n_remote, wanted);
        else
            snprintf (line, sizeof line, "starting workers: %u of %u", n_local, c->options.n_local);
        if (!show (c, line, err))
            return false;
        struct pollfd item = {.fd = c->wake[0], .events = POLLIN};
        poll (&item, 1, POLL_MS);
        wl_wake_drain (c->wake[0]);
    }
}

/* Local ones first, then those that only this host can reach, then the rest; each by name. */
static int reach (const control_member *m)
{
    return m->number ? 0 : cluster_is_host_only (m->data_endpoint) ? 1 : 2;
}

static void order_members (wl_cluster *c)
{
    for (uint32_t i = 1; i < c->n_members; i++) { /* insertion: those of one name stay as they joined */
        control_member m = c->members[i];
        uint32_t at = i;
        for (; at > 0; at--) {
            const control_member *before = &c->members[at - 1];
            int difference = reach (before) - reach (&m);
            difference = difference ? difference : (before->number > m.number) - (before->number < m.number);
            if (difference < 0 || (difference == 0 && strcmp (before->name, m.name) <= 0))
                break;
            c->members[at] = *before;
        }
        c->members[at] = m;
    }
    /* Those beyond the split by hand, or, where nobody may be left out, beyond a layer each, stand by. */
    uint32_t most = c->listen && c->options.layers ? count_ranges (c->options.layers) : c->need->model->n_layers;
    bool all_count =
        c->options.layers || c->options.use_all || (c->n_members && reach (&c->members[c->n_members - 1]) < 2);
    if (c->listen && all_count && c->n_members > most && most >= c->options.n_local + remote_wanted (c))
        c->n_members = most;
}

/* -- starting: the plan -------------------------------------------------------------------------------------------------------------------------- */

static bool make_plan (wl_cluster *c, wl_error *err)
{
    const wl_plan *plan = &c->planned->plan;
    if (!wl_fingerprint (c->need->gguf, c->fingerprint, err) ||
        !plan_for (c, c->members, c->n_members, c->fingerprint, err))
        return false;
    c->n_stages = plan->n_stages;
    c->stages = wl_new (c->n_stages, sizeof *c->stages, err);
    c->control_stages = wl_new (c->n_stages, sizeof *c->control_stages, err);
    if (!c->stages || !c->control_stages)
        return false;
    for (uint32_t i = 0; i < c->n_stages; i++) {
        c->stages[i].plan = plan->stages[i];
        c->stages[i].last_seen = c->members[plan->stages[i].worker];
        c->stages[i].member = c->stages[i].last_seen.id;
    }
    return true;
}

/* Where the last stage sends results: the ipc address, or an address of this host that its host can reach. */
static bool open_results (wl_cluster *c, wl_error *err)
{
    const char *last = c->stages[c->n_stages - 1].last_seen.data_endpoint;
    char address[256], host[WL_HOST_BYTES], any_host[WL_HOST_BYTES];
    size_t logits = (size_t) c->need->max_logit_rows * c->need->model->n_vocab * sizeof (float);
    bool loopback, wildcard;
    char **endpoint = &c->results_local;
    c->pull = wl_link_new (WL_LINK_PULL, logits > WL_HEADER_LIMIT ? logits : WL_HEADER_LIMIT, err);
    if (!c->pull)
        return false;
    snprintf (address, sizeof address, "ipc://%s/results", c->folder);
    const char *advertised = NULL;
    if (strncmp (last, "ipc://", 6) != 0) {
        if (!wl_link_host (c->listen, host, &loopback, &wildcard))
            return wl_fail (err, WL_ERROR_INTERNAL, "a worker on %s, without --listen", last);
        if (wildcard && !wl_link_local_host (last, any_host, &loopback, err))
            return false;
        advertised = wildcard ? any_host : NULL;
        bool brackets = strchr (host, ':');
        snprintf (address, sizeof address, "tcp://%s%s%s:*", brackets ? "[" : "", host, brackets ? "]" : "");
        endpoint = &c->results_remote;
    }
    if (!wl_link_bind (c->pull, address, advertised, endpoint, err))
        return false;
    snprintf (c->stages[c->n_stages - 1].next_endpoint, sizeof c->stages[0].next_endpoint, "%s", *endpoint);
    return true;
}

/* The name under which other machines look for the model: absolute, where there is such a file. */
static char *model_path (const wl_gguf *gguf, wl_error *err)
{
    char path[PATH_MAX];
    const char *given = wl_gguf_path (gguf);
    const char *shown = realpath (given, path) ? path : given;
    return wl_copy_text (shown, strlen (shown), err);
}

static bool describe_parts (wl_cluster *c, wl_error *err)
{
    size_t n = wl_gguf_n_parts (c->need->gguf);
    c->parts = wl_new (n, sizeof *c->parts, err);
    c->part_places = wl_new (n, sizeof *c->part_places, err);
    if (!c->parts || !c->part_places)
        return false;
    for (size_t i = 0; i < n; i++) {
        wl_gguf_part part = wl_gguf_part_at (c->need->gguf, i);
        woolly__model_part__init (&c->parts[i]);
        c->parts[i].file_bytes = part.file_bytes;
        c->parts[i].header_bytes = part.header_bytes;
        c->part_places[i] = &c->parts[i];
    }
    return true;
}

/* A stage whose worker may have weights that the worker of another one lacks, and can be reached from there. */
static void add_weights_peer (wl_cluster *c, stage *to, uint32_t from, uint32_t *n)
{
    char *endpoint = from < c->n_stages ? c->stages[from].last_seen.weights_endpoint : "";
    bool reachable = !cluster_is_host_only (endpoint) || cluster_is_host_only (to->last_seen.data_endpoint);
    if (endpoint[0] && reachable && *n < WL_WEIGHTS_MAX_PEERS)
        to->weights_peers[(*n)++] = endpoint;
}

/* The nearest stages first: another split moves layers to them and from them. Local workers have this process's own file. */
static uint32_t find_weights_peers (wl_cluster *c, uint32_t index)
{
    uint32_t n = 0;
    if (c->stages[index].last_seen.number)
        return 0;
    for (uint32_t distance = 1; distance < c->n_stages; distance++) {
        add_weights_peer (c, &c->stages[index], index - distance, &n); /* wraps: no stage */
        add_weights_peer (c, &c->stages[index], index + distance, &n);
    }
    return n;
}

static bool start_load (wl_cluster *c, wl_error *err)
{
    c->model_path = model_path (c->need->gguf, err);
    if (!c->model_path)
        return false;
    do
        randombytes_buf (&c->epoch, sizeof c->epoch);
    while (c->epoch == 0);
    const wl_weight_server_options serving = {c->folder, c->listen};
    c->weights = wl_weight_server_new (&serving, err);
    if (!c->weights || !wl_weight_server_offer_model (c->weights, c->epoch, c->need->gguf, err) ||
        !describe_parts (c, err))
        return false;
    for (uint32_t i = 0; i < c->n_stages; i++) {
        stage *s = &c->stages[i];
        if (i + 1 < c->n_stages)
            snprintf (s->next_endpoint, sizeof s->next_endpoint, "%s", c->stages[i + 1].last_seen.data_endpoint);
        if (!wl_weight_server_endpoint (c->weights, s->last_seen.data_endpoint, s->weights_endpoint, err))
            return false;
        c->control_stages[i] =
            (control_stage){.member = s->member,
                            .first_layer = s->plan.first_layer,
                            .last_layer = s->plan.last_layer,
                            .n_threads = s->last_seen.number ? s->last_seen.n_threads : c->options.n_threads,
                            .next_endpoint = s->next_endpoint,
                            .weights_endpoint = s->weights_endpoint,
                            .weights_peers = s->weights_peers,
                            .n_weights_peers = find_weights_peers (c, i)};
    }
    c->plan = (control_plan){.epoch = c->epoch,
                             .model_path = c->model_path,
                             .isa = c->options.isa ? c->options.isa : "",
                             .fingerprint = c->fingerprint,
                             .parts = c->part_places,
                             .n_parts = wl_gguf_n_parts (c->need->gguf),
                             .n_pages = c->need->n_pages,
                             .max_rows = c->need->max_rows,
                             .max_logit_rows = c->need->max_logit_rows,
                             .context = c->need->context,
                             .no_pack_cache = c->options.no_pack_cache,
                             .hop = c->options.hop,
                             .kv = c->options.kv,
                             .rope = c->need->model->rope_order,
                             .stages = c->control_stages,
                             .n_stages = c->n_stages};
    control_load (c->control, &c->plan);
    return true;
}

static void describe_loading (wl_cluster *c, const control_progress *p, uint64_t total, char line[160])
{
    enum { ROOM = 160 };
    int64_t now = zclock_mono ();
    const double mb = 1e6;
    char by_workers[48] = "";
    c->shipping_ms = p->n_arriving == 0 ? 0 : c->shipping_ms ? c->shipping_ms : now;
    double seconds = (double) (now - c->shipping_ms) / 1000;
    if (p->from_workers_bytes)
        snprintf (by_workers, sizeof by_workers, " (%.0f MB by workers)", (double) p->from_workers_bytes / mb);
    if (p->n_arriving)
        snprintf (line, ROOM, "sending weights to %u worker%s: %.0f of %.0f MB%s, %.0f MB/s", p->n_arriving,
                  p->n_arriving == 1 ? "" : "s", (double) p->arrived_bytes / mb, (double) p->arriving_bytes / mb,
                  by_workers, seconds > 0 ? (double) p->arrived_bytes / mb / seconds : 0.0);
    else if (p->n_checking)
        snprintf (line, ROOM, "checking weights kept by %u worker%s: %.0f of %.0f MB", p->n_checking,
                  p->n_checking == 1 ? "" : "s", (double) p->checked_bytes / mb, (double) p->checking_bytes / mb);
    else
        snprintf (line, ROOM, "loading: %.1f of %.1f GB, %u of %u workers ready", (double) p->packed_bytes / 1e9,
                  (double) total / 1e9, p->n_ready, c->n_stages);
}

static bool wait_until_loaded (wl_cluster *c, wl_error *err)
{
    uint64_t total = 0;
    for (uint32_t i = 0; i < c->n_stages; i++)
        total += c->stages[i].plan.weight_bytes;
    for (;;) {
        char line[160];
        if (control_failed (c->control, err))
            return false;
        control_progress progress = control_load_progress (c->control);
        if (progress.n_ready == c->n_stages)
            return true;
        describe_loading (c, &progress, total, line);
        if (!show (c, line, err))
            return false;
        struct pollfd item = {.fd = c->wake[0], .events = POLLIN};
        poll (&item, 1, POLL_MS);
        wl_wake_drain (c->wake[0]);
    }
}

static bool start (wl_cluster *c, wl_error *err)
{
    if (!wl_wake_open (c->wake, err) || !check_listen (c, err))
        return false;
    c->memory_bytes = wl_memory_available ();
    if (!c->listen && !check_local_plan (c, err))
        return false;
    if (!c->listen && c->options.plan_only)
        return true;        /* that was it */
    if (c->options.n_local) /* workers remove it when this process is killed; without them it would stay behind */
        c->folder = wl_socket_folder_new (err);
    if (err->code != WL_OK)
        return false;
    const control_options options = {.folder = c->folder, .listen = c->listen, .wake_end = c->wake[1]};
    c->control = control_new (&options, err);
    if (!c->control || !start_local (c, err) || !wait_for_members (c, err))
        return false;
    order_members (c);
    if (!make_plan (c, err))
        return false;
    if (c->options.plan_only)
        return true;
    if (!open_results (c, err) || !start_load (c, err) || !wait_until_loaded (c, err))
        return false;
    wl_weight_server_free (&c->weights);
    cluster_plan_loaded (c->planned);
    c->push = wl_link_new (WL_LINK_PUSH, WL_HEADER_LIMIT, err);
    return c->push && wl_link_connect (c->push, c->stages[0].last_seen.data_endpoint, err);
}

wl_cluster *wl_cluster_start (const wl_cluster_options *options, const wl_cluster_need *need,
                              wl_cluster_progress_fn progress, void *progress_context, wl_error *err)
{
    wl_link_start_process ();
    wl_cluster *c = wl_new (1, sizeof *c, err);
    if (!c)
        return NULL;
    c->options = *options;
    c->need = need;
    c->n_vocab = need->model->n_vocab;
    c->progress = progress;
    c->progress_context = progress_context;
    c->wake[0] = c->wake[1] = -1;
    c->planned = wl_new (1, sizeof *c->planned, err);
    if (!c->planned || !start (c, err)) {
        wl_cluster_stop (&c);
        return NULL;
    }
    c->need = NULL; /* the plan keeps the model, which is there as long as the cluster */
    return c;
}

void wl_cluster_stop (wl_cluster **cluster)
{
    wl_cluster *c = *cluster;
    if (!c)
        return;
    zsock_destroy (&c->push);
    zsock_destroy (&c->pull);
    control_free (&c->control);
    wl_weight_server_free (&c->weights); /* after workers were told to leave: until then they would ask it again */
    if (c->folder)
        wl_socket_folder_remove (c->folder);
    wl_wake_close (c->wake);
    free (c->folder);
    free (c->listen);
    free (c->results_local);
    free (c->results_remote);
    free (c->members);
    free (c->stages);
    free (c->control_stages);
    free (c->parts);
    free (c->part_places);
    if (c->planned)
        cluster_plan_free (c->planned);
    free (c->planned);
    free (c->model_path);
    free (c);
    *cluster = NULL;
}

/* -- running ----------------------------------------------------------------------------------------------------------------------------------------- */

wl_cluster_planned wl_cluster_plan (const wl_cluster *c)
{
    return (wl_cluster_planned){&c->planned->request, &c->planned->plan, &c->planned->input, &c->planned->prediction};
}

uint32_t wl_cluster_n_stages (const wl_cluster *cluster)
{
    return cluster->n_stages;
}

uint32_t wl_cluster_n_parallel (const wl_cluster *c)
{
    uint32_t n_local = 0, most_threads = 1, cores = wl_machine_cores ();
    for (uint32_t i = 0; i < c->n_stages; i++) {
        const control_member *m = &c->stages[i].last_seen;
        n_local += m->number > 0;
        if (m->number && m->n_threads > most_threads)
            most_threads = m->n_threads;
    }
    uint32_t at_once = cores / most_threads ? cores / most_threads : 1;
    return c->n_stages - n_local + (n_local < at_once ? n_local : at_once);
}

void wl_cluster_stage_info (wl_cluster *c, uint32_t index, wl_cluster_stage *out)
{
    stage *s = &c->stages[index];
    control_member *m = &s->last_seen;
    control_describe (c->control, s->member, c->wake[0], FRESH_MS, m);
    *out = (wl_cluster_stage){.first_layer = s->plan.first_layer,
                              .last_layer = s->plan.last_layer,
                              .n_threads = m->n_threads,
                              .weight_bytes = m->weight_bytes,
                              .rss_bytes = m->rss_bytes,
                              .kept_bytes = m->kept_bytes,
                              .mapped_bytes = m->mapped_bytes,
                              .busy_ns = m->busy_ns,
                              .shipped_bytes = m->shipped_bytes,
                              .from_workers_bytes = m->from_workers_bytes,
                              .shipping_ns = m->shipping_ns,
                              .weights_from = m->weights == WOOLLY__WEIGHTS_FROM__SHIPPED ? "shipped"
                                              : m->weights == WOOLLY__WEIGHTS_FROM__CACHE ? "cache"
                                                                                          : "file",
                              .memory_bytes = m->memory_bytes,
                              .is_local = m->number > 0};
    snprintf (out->name, sizeof out->name, "%s", m->name);
    snprintf (out->isa, sizeof out->isa, "%s", m->isa);
}

void wl_cluster_cancel (wl_cluster *c, uint64_t first_id, uint64_t last_id)
{
    control_cancel (c->control, first_id, last_id);
}

int64_t wl_cluster_clock_offset (wl_cluster *c, uint32_t index)
{
    return control_clock_offset (c->control, c->stages[index].member);
}

bool wl_cluster_send (wl_cluster *c, Woolly__Step *step, wl_error *err)
{
    step->epoch = c->epoch;
    for (;;) {
        if (control_failed (c->control, err))
            return false;
        if (wl_step_send (c->push, step, NULL, 0, NULL, NULL, SEND_TURN_MS, err)) {
            cluster_plan_sent (c->planned, step);
            return true;
        }
        if (err->code != WL_OK)
            return false;
    }
}

/* Whether a packet is a result of this plan that holds what it says. */
static bool is_valid (const wl_cluster *c, const wl_packet *packet)
{
    const Woolly__Result *result = packet->result;
    if (result->epoch != c->epoch ||
        packet->payload_bytes != (uint64_t) result->n_raw_rows * c->n_vocab * sizeof (float))
        return false;
    for (size_t i = 0; i < result->n_samples; i++)
        if (result->samples[i]->token < 0 || (uint32_t) result->samples[i]->token >= c->n_vocab)
            return false;
    return true;
}

bool wl_cluster_receive (wl_cluster *c, int timeout_ms, wl_packet *out, wl_error *err)
{
    int64_t deadline = zclock_mono () + timeout_ms;
    memset (out, 0, sizeof *out);
    for (;;) {
        wl_error malformed = {0};
        int64_t left = deadline - zclock_mono ();
        if (control_failed (c->control, err) || atomic_exchange (&c->interrupted, false))
            return false;
        if (wl_result_receive (c->pull, 0, out, &malformed)) {
            if (is_valid (c, out)) {
                cluster_plan_back (c->planned, out->result);
                return true;
            }
            wl_packet_free (out);
            continue;
        }
        if (malformed.code != WL_OK)
            continue;
        if (timeout_ms >= 0 && left <= 0)
            return false;
        zmq_pollitem_t items[2] = {{.socket = zsock_resolve (c->pull), .events = ZMQ_POLLIN},
                                   {.fd = c->wake[0], .events = ZMQ_POLLIN}};
        zmq_poll (items, 2, timeout_ms < 0 ? -1 : (long) left);
        if (items[1].revents)
            wl_wake_drain (c->wake[0]);
    }
}

void wl_cluster_interrupt (wl_cluster *cluster)
{
    atomic_store (&cluster->interrupted, true);
    wl_wake_signal (cluster->wake[1]);
}
