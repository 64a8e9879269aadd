/* What a message between two processes of this machine costs; see link_speed.h.
 *
 * A thread stands in for the other process: the messages take the same way through the kernel. The quickest of many round trips counts, since what else runs only makes them slower. */
#include "link_speed.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/machine.h"
#include "engine/memory.h"
#include "proto/wire.h"

enum {
    SMALL_BYTES = 256,
    LARGE_BYTES = 1 << 20,
    SMALL_TRIPS = 60,
    LARGE_TRIPS = 8,
    PATIENCE_MS = 1000,
    FRESH_DAYS = 30
};

typedef struct ends { /* of two links, there and back; each end is used by one thread */
    zsock_t *there_out, *there_in, *back_out, *back_in;
} ends;

/* Answers each message with a small one; an empty one, or none within PATIENCE_MS, ends it. */
static void *answer (void *context)
{
    const ends *e = context;
    char small[SMALL_BYTES] = "";
    for (;;) {
        zmq_pollitem_t item = {.socket = zsock_resolve (e->there_in), .events = ZMQ_POLLIN};
        zmq_msg_t message;
        if (zmq_poll (&item, 1, PATIENCE_MS) <= 0 || zmq_msg_init (&message) != 0)
            return NULL;
        int length = zmq_msg_recv (&message, zsock_resolve (e->there_in), ZMQ_DONTWAIT);
        zmq_msg_close (&message);
        item = (zmq_pollitem_t){.socket = zsock_resolve (e->back_out),
                                .events = ZMQ_POLLOUT}; /* not before it is connected */
        if (length <= 0 || zmq_poll (&item, 1, PATIENCE_MS) <= 0 ||
            zmq_send (zsock_resolve (e->back_out), small, sizeof small, ZMQ_DONTWAIT) < 0)
            return NULL;
    }
}

/* Seconds of one round trip; negative: none. */
static double trip (const ends *e, const char *bytes, size_t n)
{
    char small[SMALL_BYTES];
    zmq_pollitem_t item = {.socket = zsock_resolve (e->back_in), .events = ZMQ_POLLIN},
                   out = {.socket = zsock_resolve (e->there_out), .events = ZMQ_POLLOUT};
    if (zmq_poll (&out, 1, PATIENCE_MS) <= 0)
        return -1;
    double begun = wl_now_s ();
    if (zmq_send (zsock_resolve (e->there_out), bytes, n, 0) < 0 || zmq_poll (&item, 1, PATIENCE_MS) <= 0 ||
        zmq_recv (zsock_resolve (e->back_in), small, sizeof small, ZMQ_DONTWAIT) < 0)
        return -1;
    return wl_now_s () - begun;
}

static bool open_ends (ends *e, const char *folder, wl_error *err)
{
    char there[256], back[256];
    char *there_bound = NULL, *back_bound = NULL;
    snprintf (there, sizeof there, "ipc://%s/there", folder);
    snprintf (back, sizeof back, "ipc://%s/back", folder);
    e->there_in = wl_link_new (WL_LINK_PULL, WL_PAYLOAD_LIMIT, err);
    e->back_in = wl_link_new (WL_LINK_PULL, WL_PAYLOAD_LIMIT, err);
    e->there_out = wl_link_new (WL_LINK_PUSH, WL_PAYLOAD_LIMIT, err);
    e->back_out = wl_link_new (WL_LINK_PUSH, WL_PAYLOAD_LIMIT, err);
    bool ok = e->there_in && e->back_in && e->there_out && e->back_out &&
              wl_link_bind (e->there_in, there, NULL, &there_bound, err) &&
              wl_link_bind (e->back_in, back, NULL, &back_bound, err) &&
              wl_link_connect (e->there_out, there_bound, err) && wl_link_connect (e->back_out, back_bound, err);
    free (there_bound);
    free (back_bound);
    return ok;
}

/* The quickest of n trips of so many bytes. */
static double quickest (const ends *e, const char *bytes, size_t n_bytes, int n)
{
    double best = INFINITY;
    for (int i = 0; i < n; i++) {
        double took = trip (e, bytes, n_bytes);
        if (took < 0)
            return INFINITY;
        best = took < best ? took : best;
    }
    return best;
}

static bool measure (wl_plan_link *out)
{
    wl_error err = {0};
    ends e = {0};
    pthread_t thread;
    bool running = false, ok = false;
    char *folder = wl_socket_folder_new (&err), *bytes = wl_new (LARGE_BYTES, 1, &err);
    if (!folder || !bytes || !open_ends (&e, folder, &err))
        goto done;
    running = pthread_create (&thread, NULL, answer, &e) == 0;
    if (!running)
        goto done;
    double small = quickest (&e, bytes, SMALL_BYTES, SMALL_TRIPS),
           large = quickest (&e, bytes, LARGE_BYTES, LARGE_TRIPS);
    zmq_send (zsock_resolve (e.there_out), bytes, 0, ZMQ_DONTWAIT);
    ok = small < 1 && large < 10;
    double extra = large - small > 1e-6 ? large - small : 1e-6;
    *out = (wl_plan_link){small / 2, LARGE_BYTES / extra};
done:
    if (running)
        pthread_join (thread, NULL);
    zsock_destroy (&e.there_out);
    zsock_destroy (&e.there_in);
    zsock_destroy (&e.back_out);
    zsock_destroy (&e.back_in);
    if (folder)
        wl_socket_folder_remove (folder);
    free (folder);
    free (bytes);
    return ok;
}

static bool is_sound (const wl_plan_link *link)
{
    return link->latency_s > 0 && link->latency_s < 1 && link->bytes_per_s > 1e3 && link->bytes_per_s < 1e13;
}

static bool read_kept (const char *path, wl_plan_link *out)
{
    char cpu[WL_SPEED_CPU_BYTES];
    json_t *json = path ? json_load_file (path, 0, NULL) : NULL;
    const char *kept_cpu = json_string_value (json_object_get (json, "cpu"));
    json_int_t at = json_integer_value (json_object_get (json, "measured_at")), now = (json_int_t) time (NULL);
    wl_machine_cpu (cpu, sizeof cpu);
    *out = (wl_plan_link){json_number_value (json_object_get (json, "latency_s")),
                          json_number_value (json_object_get (json, "bytes_per_s"))};
    bool ok = kept_cpu && strcmp (kept_cpu, cpu) == 0 && at <= now && now - at < FRESH_DAYS * 86400 && is_sound (out);
    json_decref (json);
    return ok;
}

wl_plan_link wl_link_speed_here (bool fresh, wl_speed_source *source)
{
    char cpu[WL_SPEED_CPU_BYTES];
    wl_plan_link link;
    char *path = wl_measured_path ("ipc.json");
    *source = WL_SPEED_CACHED;
    if (fresh || !read_kept (path, &link)) {
        bool ok = measure (&link) && is_sound (&link);
        *source = ok ? WL_SPEED_MEASURED : WL_SPEED_DEFAULT;
        wl_machine_cpu (cpu, sizeof cpu);
        if (ok && path) {
            json_t *json = json_pack ("{s:s, s:I, s:f, s:f}", "cpu", cpu, "measured_at", (json_int_t) time (NULL),
                                      "latency_s", link.latency_s, "bytes_per_s", link.bytes_per_s);
            wl_measured_write (path, json);
            json_decref (json);
        }
        if (!ok)
            link = (wl_plan_link){5e-5, 2e9};
    }
    free (path);
    return link;
}

wl_plan_link wl_link_speed_assumed (void)
{
    return (wl_plan_link){2e-4, 1.1e8};
}
