/* Sampling parameters and samples as messages; see sampling.h. */
#include "proto/sampling.h"

#include <string.h>

void wl_sampling_pack (const wl_sampling *s, Woolly__Sampling *m)
{
    woolly__sampling__init (m);
    m->temperature = s->temperature;
    m->top_k = s->top_k;
    m->top_p = s->top_p;
    m->min_p = s->min_p;
    m->seed = s->seed;
    m->typical_p = s->typical_p;
    m->top_n_sigma = s->top_n_sigma;
    m->dynatemp_range = s->dynatemp_range;
    m->dynatemp_exponent = s->dynatemp_exponent;
    m->xtc_probability = s->xtc_probability;
    m->xtc_threshold = s->xtc_threshold;
    m->repeat_penalty = s->repeat_penalty;
    m->presence_penalty = s->presence_penalty;
    m->frequency_penalty = s->frequency_penalty;
    m->repeat_last_n = s->repeat_last_n;
    m->dry_multiplier = s->dry_multiplier;
    m->dry_base = s->dry_base;
    m->dry_allowed_length = s->dry_allowed_length;
    m->dry_last_n = s->dry_last_n;
    m->mirostat = s->mirostat;
    m->mirostat_entropy = s->mirostat_entropy;
    m->mirostat_rate = s->mirostat_rate;
    m->wants_logprob = s->wants_logprob;
    m->n_alternatives = s->n_alternatives;
    m->n_bias_tokens = m->n_bias_values = s->n_biases;
    m->bias_tokens = (uint32_t *) s->bias_tokens; /* protobuf-c's types know no const; packing only reads */
    m->bias_values = (float *) s->bias_values;
}

bool wl_sampling_unpack (const Woolly__Sampling *m, wl_sampling *s, wl_error *err)
{
    wl_error why = {0};
    *s = (wl_sampling){.temperature = m->temperature,
                       .top_k = m->top_k,
                       .top_p = m->top_p,
                       .min_p = m->min_p,
                       .seed = m->seed,
                       .typical_p = m->typical_p,
                       .top_n_sigma = m->top_n_sigma,
                       .dynatemp_range = m->dynatemp_range,
                       .dynatemp_exponent = m->dynatemp_exponent,
                       .xtc_probability = m->xtc_probability,
                       .xtc_threshold = m->xtc_threshold,
                       .repeat_penalty = m->repeat_penalty,
                       .presence_penalty = m->presence_penalty,
                       .frequency_penalty = m->frequency_penalty,
                       .repeat_last_n = m->repeat_last_n,
                       .dry_multiplier = m->dry_multiplier,
                       .dry_base = m->dry_base,
                       .dry_allowed_length = m->dry_allowed_length,
                       .dry_last_n = m->dry_last_n,
                       .mirostat = m->mirostat,
                       .mirostat_entropy = m->mirostat_entropy,
                       .mirostat_rate = m->mirostat_rate,
                       .wants_logprob = m->wants_logprob,
                       .n_alternatives = m->n_alternatives,
                       .n_biases = m->n_bias_tokens,
                       .bias_tokens = m->bias_tokens,
                       .bias_values = m->bias_values};
    if (m->n_bias_values != m->n_bias_tokens)
        return wl_fail (err, WL_ERROR_INTERNAL, "a step's logit bias has %zu tokens and %zu values", m->n_bias_tokens,
                        m->n_bias_values);
    if (!wl_sampling_check (s, &why))
        return wl_fail (err, WL_ERROR_INTERNAL, "a step's sampling: %s", why.text);
    return true;
}

void wl_sample_pack (const wl_sample *s, Woolly__Sample *m)
{
    woolly__sample__init (m);
    m->token = s->token;
    m->logprob = s->logprob;
    m->n_alternatives = m->n_alternative_logprobs = s->n_alternatives;
    m->alternatives = (uint32_t *) s->alternatives;
    m->alternative_logprobs = (float *) s->alternative_logprobs;
    m->mirostat_mu = s->mirostat_mu;
}

void wl_sample_unpack (const Woolly__Sample *m, wl_sample *s)
{
    *s = (wl_sample){.token = m->token, .logprob = m->logprob, .mirostat_mu = m->mirostat_mu};
    s->n_alternatives = (uint32_t) m->n_alternatives;
    for (size_t i = 0; i < m->n_alternatives; i++) {
        s->alternatives[i] = m->alternatives[i];
        s->alternative_logprobs[i] = m->alternative_logprobs[i];
    }
}
