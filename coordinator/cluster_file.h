/* A described cluster, for `woolly plan --simulate CLUSTER.json`: machines, links and the requests they get. README.md describes the format. */
#ifndef WL_COORDINATOR_CLUSTER_FILE_H
#define WL_COORDINATOR_CLUSTER_FILE_H

#include "plan_input.h"
#include "simulate.h"

typedef struct wl_request_mix {
    uint32_t count;                   /* 0: none described */
    double per_second;                /* they come at random with this mean rate; 0: all at once */
    uint32_t prompt[2], generated[2]; /* tokens, evenly spread between both */
    uint32_t slots;                   /* at once, each with room for the longest */
    uint64_t seed;
} wl_request_mix;

typedef struct wl_cluster_file {
    char name[96];
    wl_plan_input input;
    wl_request_mix mix;
} wl_cluster_file;

/* WL_ERROR_INPUT names the file, the place in it and what is expected there. `cost` says which corrections apply. Nothing is left to free on failure. */
bool wl_cluster_file_read (const char *path, wl_cluster_file *out, wl_error *err);
void wl_cluster_file_free (wl_cluster_file *file);

/* The requests of a mix, in order of arrival: the same for the same seed. */
wl_sim_request *wl_request_mix_new (const wl_request_mix *mix, wl_error *err);

/* The same format, of a cluster that was measured. */
json_t *wl_cluster_file_of (const wl_plan_request *request);

#endif
