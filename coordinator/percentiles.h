/* Percentiles of any number of durations in fixed memory: counted in bins that are 2% wide, so what is told is within 1% of the truth (the largest is exact).
 *
 * From 1 microsecond to 3 hours; what is shorter or longer counts as these. Thread: the owner's. */
#ifndef WL_COORDINATOR_PERCENTILES_H
#define WL_COORDINATOR_PERCENTILES_H

#include <jansson.h>
#include <stdint.h>

enum { WL_PERCENTILE_BINS = 1170 };

typedef struct wl_percentiles { /* all zeros at first */
    uint64_t counts[WL_PERCENTILE_BINS], n;
    double largest;
} wl_percentiles;

void wl_percentiles_add (wl_percentiles *p, double seconds);
/* The least duration that at least this fraction (0 to 1) of all do not exceed; 0 when there are none. */
double wl_percentiles_at (const wl_percentiles *p, double fraction);
/* {"n", "p50", "p90", "p99", "max"} */
json_t *wl_percentiles_json (const wl_percentiles *p);

#endif
