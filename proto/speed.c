/* What a worker measured of itself, as a message; see speed.h. */
#include "proto/speed.h"

#include <stdio.h>
#include <string.h>

void wl_speed_pack (const wl_speed *s, bool cached, Woolly__Speed *m)
{
    woolly__speed__init (m);
    m->cpu = (char *) s->cpu; /* protobuf-c's types know no const; packing only reads */
    m->isa = (char *) s->isa;
    m->n_threads = s->n_threads;
    m->n_cores = s->n_cores;
    m->measured_at = s->measured_at;
    m->n_seconds_per_weight = (size_t) WL_SPEED_TYPES * WL_SPEED_ROWS;
    m->seconds_per_weight = (double *) s->seconds_per_weight[0];
    m->n_attention_s = 2;
    m->attention_s = (double *) s->attention_s;
    m->element_s = s->element_s;
    m->dispatch_s = s->dispatch_s;
    m->cached = cached;
}

static void copy_printable (char *out, size_t size, const char *text)
{
    snprintf (out, size, "%s", text);
    for (unsigned char *c = (unsigned char *) out; *c; c++)
        if (*c < 0x20 || *c == 0x7f)
            *c = '?';
}

bool wl_speed_unpack (const Woolly__Speed *m, wl_speed *s, bool *cached)
{
    *s = (wl_speed){0};
    *cached = false;
    if (!m || m->n_seconds_per_weight != (size_t) WL_SPEED_TYPES * WL_SPEED_ROWS || m->n_attention_s != 2)
        return false;
    copy_printable (s->cpu, sizeof s->cpu, m->cpu);
    copy_printable (s->isa, sizeof s->isa, m->isa);
    s->n_threads = m->n_threads;
    s->n_cores = m->n_cores;
    s->measured_at = m->measured_at;
    memcpy (s->seconds_per_weight, m->seconds_per_weight, sizeof s->seconds_per_weight);
    memcpy (s->attention_s, m->attention_s, sizeof s->attention_s);
    s->element_s = m->element_s;
    s->dispatch_s = m->dispatch_s;
    *cached = m->cached;
    return wl_speed_is_sound (s);
}
