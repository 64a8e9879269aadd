/* Who a plan is made for; see plan_input.h. */
#include "plan_input.h"

#include <stdio.h>
#include <stdlib.h>

#include "corrections.h"
#include "engine/machine.h"
#include "engine/memory.h"
#include "link_speed.h"

bool wl_plan_input_new (wl_plan_input *in, uint32_t n_workers, uint32_t n_machines, wl_error *err)
{
    *in = (wl_plan_input){.n_workers = n_workers, .n_machines = n_machines};
    in->workers = wl_new (n_workers, sizeof *in->workers, err);
    in->machines = wl_new (n_machines, sizeof *in->machines, err);
    in->names = wl_new (n_workers, sizeof *in->names, err);
    if (in->workers && in->machines && in->names)
        return true;
    wl_plan_input_free (in);
    return false;
}

void wl_plan_input_free (wl_plan_input *in)
{
    free (in->workers);
    free (in->machines);
    free (in->names);
    free (in->pairs);
    *in = (wl_plan_input){0};
}

bool wl_plan_input_local (wl_plan_input *in, uint32_t n_local, uint32_t n_threads, const char *isa,
                          uint64_t memory_bytes, bool fresh, const wl_cost *cost, wl_error *err)
{
    wl_error unmeasured = {0};
    wl_speed own, whole;
    wl_speed_source source = WL_SPEED_DEFAULT, whole_source = WL_SPEED_DEFAULT;
    uint32_t cores = wl_machine_cores ();
    const wl_kernels *kernels = wl_kernels_find (isa, err);
    if (!kernels)
        return false;
    bool known = wl_speed_obtain (kernels, n_threads, fresh, &own, &source, &unmeasured);
    if (!known) { /* too little memory to measure in: the plan says so */
        own = wl_speed_assumed (n_threads);
        source = WL_SPEED_DEFAULT;
    }
    whole = own;
    whole_source = source;
    if (known && n_threads != cores)
        known = wl_speed_obtain (kernels, cores, fresh, &whole, &whole_source, &unmeasured);
    if (known)
        wl_speed_at_least (&whole, &own);
    in->machines[0].whole = known ? whole : (wl_speed){0};
    in->whole_source = whole_source;
    in->machines[0].within = wl_link_speed_here (fresh, &in->within_source);
    wl_correction correction = wl_correction_load (&own, wl_cost_kind (cost));
    for (uint32_t i = 0; i < n_local; i++) {
        snprintf (in->names[i], sizeof in->names[i], "local-%u", i + 1);
        in->workers[i] = (wl_plan_worker){.name = in->names[i],
                                          .memory_bytes = memory_bytes,
                                          .speed = own,
                                          .source = source,
                                          .correction = correction,
                                          .required = true,
                                          .host_only = true,
                                          .link = in->machines[0].within,
                                          .link_source = in->within_source};
    }
    return true;
}

void wl_plan_input_fill (const wl_plan_input *in, wl_plan_request *r)
{
    r->workers = in->workers;
    r->n_workers = in->n_workers;
    r->machines = in->machines;
    r->n_machines = in->n_machines;
    r->pairs = in->pairs;
}
