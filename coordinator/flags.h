/* Flags that several commands share, as tables for wl_options_parse, and what they fill. */
#ifndef WL_COORDINATOR_FLAGS_H
#define WL_COORDINATOR_FLAGS_H

#include "cluster.h"
#include "engine/text/sampler.h"
#include "options.h"

/* -- cluster -- */

enum { WL_CLUSTER_FLAGS = 10, WL_SAMPLING_FLAGS = 5 };

typedef struct wl_cluster_flags {
    wl_cluster_options options;
    wl_option table[WL_CLUSTER_FLAGS]; /* points into this struct: do not copy it */
} wl_cluster_flags;

/* Defaults, and the table bound to them. */
wl_option_table wl_cluster_flags_init (wl_cluster_flags *flags);
/* What the flags say together: WL_ERROR_USAGE for combinations that make no sense; fills what follows from others (as many local workers
 * as --layers has ranges). */
bool wl_cluster_flags_finish (wl_cluster_flags *flags, wl_error *err);

/* -- sampling -- */

typedef struct wl_sampling_flags {
    wl_sampling sampling;
    bool seed_given;
    wl_option table[WL_SAMPLING_FLAGS];
} wl_sampling_flags;

wl_option_table wl_sampling_flags_init (wl_sampling_flags *flags);
/* Checks ranges; draws a seed where none was given. */
bool wl_sampling_flags_finish (wl_sampling_flags *flags, wl_error *err);

#endif
