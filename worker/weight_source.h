/* One place that weights come from, the coordinator or another worker, as the fetching worker sees it: its link, and what it has.
 *
 * Thread: the data thread, which owns the sockets. */
#ifndef WL_WORKER_WEIGHT_SOURCE_H
#define WL_WORKER_WEIGHT_SOURCE_H

#include "proto/weights.h"

typedef struct weight_source {
    const char *endpoint;   /* borrowed */
    zsock_t *link;          /* NULL: closed */
    zsock_t *monitor;       /* tells of its connection */
    bool connected, broken; /* ever; since */
    int64_t opened_ms;      /* when the link was */
    int64_t heard_ms;       /* the last answer, or when it was last asked after having had nothing to answer */
    uint32_t n_asked;       /* chunks whose bytes are asked of it */
    bool tells;             /* its holdings have arrived */
    int64_t told_ms;        /* when they were last asked for */
    bool dropped;
} weight_source;

/* Opens its link, or opens it anew: what was under way on it is lost. False: nothing is open. */
bool weight_source_open (weight_source *s, wl_error *err);
void weight_source_close (weight_source *s);

/* Reads what happened to its connection into connected and broken. */
void weight_source_look (weight_source *s);

#endif
