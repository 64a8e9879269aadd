/* Percentiles of durations; see percentiles.h. */
#include "percentiles.h"

#include <math.h>

static const double shortest_s = 1e-6, bin_width = 1.02; /* each bin reaches to bin_width times where it begins */

void wl_percentiles_add (wl_percentiles *p, double seconds)
{
    double bin = seconds > shortest_s ? log (seconds / shortest_s) / log (bin_width) : 0;
    p->counts[bin < WL_PERCENTILE_BINS ? (size_t) bin : WL_PERCENTILE_BINS - 1]++;
    p->n++;
    p->largest = seconds > p->largest ? seconds : p->largest;
}

double wl_percentiles_at (const wl_percentiles *p, double fraction)
{
    double wanted = ceil (fraction * (double) p->n);
    uint64_t before = 0;
    for (size_t bin = 0; bin < WL_PERCENTILE_BINS && p->n; bin++) {
        before += p->counts[bin];
        if ((double) before >= wanted && before) {
            double middle = shortest_s * pow (bin_width, (double) bin + 0.5);
            return middle < p->largest ? middle : p->largest;
        }
    }
    return p->largest;
}

json_t *wl_percentiles_json (const wl_percentiles *p)
{
    return json_pack ("{s:I, s:f, s:f, s:f, s:f}", "n", (json_int_t) p->n, "p50", wl_percentiles_at (p, 0.5), "p90",
                      wl_percentiles_at (p, 0.9), "p99", wl_percentiles_at (p, 0.99), "max", p->largest);
}
