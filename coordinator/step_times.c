/* Where the stages' time went; see step_times.h.
 *
 * All times are brought to this process's clock first. A peer's figures are only ever added up: nonsense makes nonsense sums, and nothing else. */
#include "step_times.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/machine.h"
#include "engine/memory.h"

struct wl_step_times {
    wl_cluster *cluster;
    uint32_t n_stages;
    wl_stage_time *sums; /* [n_stages] */
    wl_hop_time *hops;   /* [n_stages + 1] */
    uint64_t *ended_ns;  /* [n_stages] of the step before; 0: there was none */
    FILE *trace;
    uint64_t began_ns;
    const char *separator; /* before the next event */
};

/* -- trace --------------------------------------------------------------------------------------------------------------------------------- */

/* Timestamps are in microseconds. */
static void __attribute__ ((format (printf, 2, 3))) write_event (wl_step_times *t, const char *format, ...)
{
    va_list args;
    if (!t->trace)
        return;
    fputs (t->separator, t->trace);
    t->separator = ",\n";
    va_start (args, format);
    vfprintf (t->trace, format, args);
    va_end (args);
}

static bool open_trace (wl_step_times *t, const char *path, wl_error *err)
{
    t->trace = fopen (path, "w");
    if (!t->trace)
        return wl_fail (err, WL_ERROR_USAGE, "--trace %s: cannot be written: choose another place", path);
    t->separator = "[\n";
    for (uint32_t i = 0; i < t->n_stages; i++)
        write_event (t, "{\"ph\":\"M\",\"name\":\"thread_name\",\"pid\":1,\"tid\":%u,\"args\":{\"name\":\"stage %u\"}}",
                     i + 1, i);
    return true;
}

static double trace_us (const wl_step_times *t, uint64_t ns)
{
    return ns > t->began_ns ? (double) (ns - t->began_ns) * 1e-3 : 0;
}

static void trace_step (wl_step_times *t, uint32_t stage, const wl_step_sent *sent, const Woolly__Result *result,
                        uint64_t left_ns, uint64_t began_ns, uint64_t ended_ns)
{
    unsigned long long id = (unsigned long long) result->id;
    if (!t->trace || began_ns >= ended_ns)
        return;
    write_event (
        t,
        "{\"ph\":\"X\",\"name\":\"%s %zu\",\"pid\":1,\"tid\":%u,\"ts\":%.3f,\"dur\":%.3f,\"args\":{\"step\":%llu,"
        "\"rows\":%zu}}",
        sent->kind, sent->n_rows, stage + 1, trace_us (t, began_ns), (double) (ended_ns - began_ns) * 1e-3, id,
        sent->n_rows);
    if (stage == 0)
        return;
    write_event (t, "{\"ph\":\"s\",\"name\":\"hop\",\"id\":\"%llu.%u\",\"pid\":1,\"tid\":%u,\"ts\":%.3f}", id, stage,
                 stage, trace_us (t, left_ns));
    write_event (t, "{\"ph\":\"f\",\"bp\":\"e\",\"name\":\"hop\",\"id\":\"%llu.%u\",\"pid\":1,\"tid\":%u,\"ts\":%.3f}",
                 id, stage, stage + 1, trace_us (t, began_ns));
}

/* -- sums ---------------------------------------------------------------------------------------------------------------------------------- */

wl_step_times *wl_step_times_new (wl_cluster *cluster, const char *trace_path, wl_error *err)
{
    wl_step_times *t = wl_new (1, sizeof *t, err);
    if (!t)
        return NULL;
    t->cluster = cluster;
    t->n_stages = wl_cluster_n_stages (cluster);
    t->began_ns = wl_now_ns ();
    t->sums = wl_new (t->n_stages, sizeof *t->sums, err);
    t->ended_ns = wl_new (t->n_stages, sizeof *t->ended_ns, err);
    t->hops = wl_new (t->n_stages + 1, sizeof *t->hops, err);
    if (!t->sums || !t->ended_ns || !t->hops || (trace_path && !open_trace (t, trace_path, err)))
        wl_step_times_free (&t);
    return t;
}

void wl_step_times_free (wl_step_times **times)
{
    wl_step_times *t = *times;
    if (!t)
        return;
    if (t->trace) {
        fputs ("\n]\n", t->trace);
        fclose (t->trace);
    }
    free (t->sums);
    free (t->hops);
    free (t->ended_ns);
    free (t);
    *times = NULL;
}

void wl_step_times_reset (wl_step_times *t)
{
    memset (t->sums, 0, t->n_stages * sizeof *t->sums);
    memset (t->hops, 0, (t->n_stages + 1) * sizeof *t->hops);
    memset (t->ended_ns, 0, t->n_stages * sizeof *t->ended_ns);
}

wl_stage_time wl_step_times_of (const wl_step_times *t, uint32_t stage)
{
    return t->sums[stage];
}

wl_hop_time wl_step_times_hop (const wl_step_times *t, uint32_t stage)
{
    return t->hops[stage];
}

static void add_hop (wl_hop_time *hop, size_t n_rows, bool timed, int64_t on_way)
{
    uint64_t ns =
        on_way > 0 ? (uint64_t) on_way : 0; /* clocks of two hosts may disagree by more than a quick hop takes */
    hop->n_steps++;
    hop->n_rows += n_rows;
    if (!timed)
        return;
    hop->least_ns = hop->n_timed++ == 0 || ns < hop->least_ns ? ns : hop->least_ns;
    hop->sum_ns += ns;
}

static bool are_sound (const wl_step_times *t, const Woolly__Result *result)
{
    if (result->n_timings != t->n_stages)
        return false;
    for (uint32_t i = 0; i < t->n_stages; i++) {
        const Woolly__Timing *at = result->timings[i];
        if (at->freed_ns > at->received_ns || at->received_ns > at->began_ns || at->began_ns > at->ended_ns)
            return false;
    }
    return true;
}

bool wl_step_times_add (wl_step_times *t, const wl_step_sent *sent, const Woolly__Result *result)
{
    uint64_t left_ns = sent->sent_ns; /* the stage before, or here */
    if (!are_sound (t, result))
        return false;
    for (uint32_t i = 0; i < t->n_stages; i++) {
        const Woolly__Timing *at = result->timings[i];
        int64_t offset = wl_cluster_clock_offset (t->cluster, i);
        wl_stage_time *sum = &t->sums[i];
        uint64_t left_there = left_ns + (uint64_t) offset;
        uint64_t waited = at->received_ns - at->freed_ns;
        int64_t on_way = (int64_t) (at->received_ns - left_there);
        uint64_t hop = on_way <= 0 ? 0 : (uint64_t) on_way < waited ? (uint64_t) on_way : waited;
        add_hop (&t->hops[i], result->skipped ? 0 : sent->n_rows, at->freed_ns <= left_there, on_way);
        if (t->ended_ns[i]) { /* time before the first step is nobody's */
            sum->hop += hop;
            sum->starved += waited - hop;
            if (at->freed_ns > t->ended_ns[i])
                sum->blocked += at->freed_ns - t->ended_ns[i];
        }
        sum->blocked += at->began_ns - at->received_ns;
        sum->compute += at->ended_ns - at->began_ns;
        t->ended_ns[i] = at->ended_ns;
        uint64_t ended_here = at->ended_ns - (uint64_t) offset;
        trace_step (t, i, sent, result, left_ns, at->began_ns - (uint64_t) offset, ended_here);
        left_ns = ended_here;
    }
    add_hop (&t->hops[t->n_stages], sent->n_rows, true, (int64_t) (wl_now_ns () - left_ns));
    return true;
}
