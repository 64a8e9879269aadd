/* A plan for people and for programs; see plan_report.h. */
#include "plan_report.h"

#include <stdio.h>
#include <string.h>

#include "cluster_file.h"
#include "engine/kv_cache.h"
#include "text_out.h"

enum { MOST_SHOWN = 24 }; /* left out, or machines, of very many */

static const char *objective_name (const wl_plan_request *r)
{
    return r->objective == WL_LATENCY ? "latency" : "throughput";
}

/* The least certain of the figures that the stages in use rest on. */
static const char *figures_of (const wl_cluster_planned *p)
{
    static const wl_speed_source by_doubt[] = {WL_SPEED_DEFAULT, WL_SPEED_DESCRIBED, WL_SPEED_CACHED,
                                               WL_SPEED_MEASURED};
    for (size_t i = 0; i < sizeof by_doubt / sizeof by_doubt[0]; i++)
        for (uint32_t s = 0; s < p->plan->n_stages; s++) {
            const wl_plan_worker *w = &p->request->workers[p->plan->stages[s].worker];
            if (w->source == by_doubt[i] || w->link_source == by_doubt[i])
                return wl_speed_source_name (by_doubt[i]);
        }
    return "assumed";
}

static bool is_used (const wl_cluster_planned *p, uint32_t worker)
{
    for (uint32_t i = 0; i < p->plan->n_stages; i++)
        if (p->plan->stages[i].worker == worker)
            return true;
    return false;
}

static bool same_speed (const wl_plan_worker *a, const wl_plan_worker *b)
{
    return a->source == b->source && a->link_source == b->link_source && a->link.latency_s == b->link.latency_s &&
           a->link.bytes_per_s == b->link.bytes_per_s && wl_speed_equal (&a->speed, &b->speed);
}

static void print_machines (const wl_cluster_planned *p)
{
    const wl_plan_worker *workers = p->request->workers;
    uint32_t n = p->request->n_workers, shown = 0;
    for (uint32_t i = 0, next; i < n && shown < MOST_SHOWN; i = next, shown++) {
        const wl_plan_worker *w = &workers[i];
        char more[48] = "";
        for (next = i + 1; next < n && same_speed (w, &workers[next]);)
            next++;
        if (next > i + 1)
            snprintf (more, sizeof more, " and %u like it", next - i - 1);
        printf ("%s%s: %u thread%s, %.1f GB/s of weights, %.0f G multiply-adds/s (%s)", w->name, more,
                w->speed.n_threads, w->speed.n_threads == 1 ? "" : "s", wl_speed_bandwidth (&w->speed) / 1e9,
                wl_speed_macs (&w->speed) / 1e9, wl_speed_source_name (w->source));
        if (wl_correction_is_known (&w->correction))
            printf (", corrected by real steps x%.2f x%.2f x%.2f", wl_correction_at (&w->correction, 1),
                    wl_correction_at (&w->correction, 8), wl_correction_at (&w->correction, 128));
        printf ("; link %.3f ms, %.2f GB/s (%s)\n", w->link.latency_s * 1e3, w->link.bytes_per_s / 1e9,
                wl_speed_source_name (w->link_source));
    }
}

void wl_plan_print (const wl_cluster_planned *p)
{
    const wl_plan_request *r = p->request;
    uint32_t n = p->plan->n_stages, left_out = r->n_workers - n, shown = 0;
    printf ("%s: %u layers over %u worker%s, for %s\n\n", r->model->name, r->model->n_layers, n, n == 1 ? "" : "s",
            objective_name (r));
    printf ("%-12s %-10s %12s %12s %12s %11s %10s  %s\n", "worker", "layers", "weights MB", "KV MB", "work MB",
            "chunk ms", "token ms", "why");
    for (uint32_t i = 0; i < n; i++) {
        const wl_plan_stage *s = &p->plan->stages[i];
        char layers[32];
        snprintf (layers, sizeof layers, "%u-%u", s->first_layer, s->last_layer);
        printf ("%-12s %-10s %12.1f %12.1f %12.1f %11.2f %10.2f  %s\n", r->workers[s->worker].name, layers,
                (double) s->weight_bytes / 1e6, (double) s->kv_bytes / 1e6, (double) s->work_bytes / 1e6,
                s->prefill_s * 1e3, s->decode_s * 1e3, p->plan->reasons[s->worker]);
    }
    for (uint32_t i = 0; i < r->n_workers && shown < MOST_SHOWN; i++)
        if (!is_used (p, i)) {
            printf ("%-12s %-10s %12s %12s %12s %11s %10s  %s\n", r->workers[i].name, "-", "", "", "", "", "",
                    p->plan->reasons[i]);
            shown++;
        }
    if (left_out > shown)
        printf ("and %u more are left out\n", left_out - shown);
    printf ("\n");
    print_machines (p);
    if (r->n_machines > 1 && !r->pairs)
        printf ("Links between workers of different machines are taken to be as slow as the slower of both to the "
                "coordinator.\n");
    printf (
        "\npredicted: prefill %.2f tok/s (512 tokens), decode %.2f tok/s, eight streams %.2f tok/s; from %s figures\n",
        p->prediction->prefill, p->prediction->decode, p->prediction->eight, figures_of (p));
}

json_t *wl_plan_predicted_json (const wl_cluster_planned *p)
{
    return json_pack ("{s:f, s:f, s:f, s:s, s:s}", "prefill_tok_s", p->prediction->prefill, "decode_tok_s",
                      p->prediction->decode, "streams8_tok_s", p->prediction->eight, "objective",
                      objective_name (p->request), "figures", figures_of (p));
}

static json_t *stage_json (const wl_cluster_planned *p, const wl_plan_stage *s)
{
    const wl_plan_worker *w = &p->request->workers[s->worker];
    return json_pack ("{s:s, s:[i,i], s:I, s:I, s:I, s:f, s:f, s:s, s:s, s:s, s:{s:f, s:f}}", "name", w->name, "layers",
                      (int) s->first_layer, (int) s->last_layer, "weight_bytes", (json_int_t) s->weight_bytes,
                      "kv_bytes", (json_int_t) s->kv_bytes, "work_bytes", (json_int_t) s->work_bytes, "prefill_s",
                      s->prefill_s, "decode_s", s->decode_s, "why", p->plan->reasons[s->worker], "figures",
                      wl_speed_source_name (w->source), "link_figures", wl_speed_source_name (w->link_source), "link",
                      "latency_s", w->link.latency_s, "bytes_per_s", w->link.bytes_per_s);
}

json_t *wl_plan_json (const wl_cluster_planned *p, uint64_t context)
{
    const wl_model *m = p->request->model;
    json_t *stages = json_array (), *left_out = json_array ();
    for (uint32_t i = 0; i < p->plan->n_stages; i++)
        json_array_append_new (stages, stage_json (p, &p->plan->stages[i]));
    for (uint32_t i = 0; i < p->request->n_workers; i++)
        if (!is_used (p, i))
            json_array_append_new (
                left_out, json_pack ("{s:s, s:s}", "name", p->request->workers[i].name, "why", p->plan->reasons[i]));
    return json_pack ("{s:o, s:s, s:i, s:I, s:s, s:o, s:o, s:o, s:f, s:b, s:o}", "model",
                      wl_json_text (m->name, strlen (m->name)), "architecture", m->architecture, "n_layers",
                      (int) m->n_layers, "context", (json_int_t) context, "kv", wl_kv_type_name (p->request->kv),
                      "stages", stages, "left_out", left_out, "predicted", wl_plan_predicted_json (p), "objective_s",
                      p->plan->objective_s, "exact", (int) p->plan->exact, "cluster", wl_cluster_file_of (p->request));
}
