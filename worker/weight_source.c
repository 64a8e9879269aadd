/* One place that weights come from; see weight_source.h. */
#include "weight_source.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

void weight_source_close (weight_source *s)
{
    if (s->link)
        zmq_socket_monitor (zsock_resolve (s->link), NULL, 0);
    zsock_destroy (&s->link);
    zsock_destroy (&s->monitor);
}

static bool open_monitor (weight_source *s, wl_error *err)
{
    char endpoint[64];
    /* a name of its own: the one before it may still be closing */
    snprintf (endpoint, sizeof endpoint, "inproc://weights-%08x%08x", randombytes_random (), randombytes_random ());
    s->monitor = zsock_new (ZMQ_PAIR);
    if (!s->monitor ||
        zmq_socket_monitor (zsock_resolve (s->link), endpoint, ZMQ_EVENT_CONNECTED | ZMQ_EVENT_DISCONNECTED) != 0 ||
        zmq_connect (zsock_resolve (s->monitor), endpoint) != 0)
        return wl_fail (err, WL_ERROR_INTERNAL, "the weights link cannot be watched: %s", zmq_strerror (errno));
    return true;
}

bool weight_source_open (weight_source *s, wl_error *err)
{
    weight_source_close (s);
    s->broken = false;
    s->opened_ms = zclock_mono ();
    s->link = wl_link_new (WL_LINK_WEIGHTS_DEALER, WL_WEIGHTS_CHUNK_BYTES, err);
    if (s->link && open_monitor (s, err) && wl_link_connect (s->link, s->endpoint, err))
        return true;
    weight_source_close (s);
    return false;
}

void weight_source_look (weight_source *s)
{
    uint8_t event[6]; /* number (16 bits), value (32 bits); a second frame holds the address */
    char address[256];
    while (zmq_recv (zsock_resolve (s->monitor), event, sizeof event, ZMQ_DONTWAIT) >= 0) {
        uint16_t number;
        memcpy (&number, event, sizeof number);
        s->connected = s->connected || number == ZMQ_EVENT_CONNECTED;
        s->broken = s->broken || number == ZMQ_EVENT_DISCONNECTED;
        zmq_recv (zsock_resolve (s->monitor), address, sizeof address, ZMQ_DONTWAIT);
    }
}
