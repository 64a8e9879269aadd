/* Rotation speeds; see rope.h. Computed once a load in f64, so that a position's angle is exact to the last f32 bit wherever it is computed. */
#include "rope.h"

#include <math.h>
#include <stdlib.h>

#include "kernels/math.h"
#include "memory.h"
#include "weights.h"

/* The pair that turns `turns` times over the training context: YaRN, https://arxiv.org/abs/2309.00071, section 3.2. */
static double pair_of_turns (const wl_model *m, double turns)
{
    const double pi = 3.14159265358979323846;
    return m->rope_dims * wl_log (m->rope_scaling.original_context / (turns * 2 * pi)) /
           (2 * wl_log ((double) m->rope_base));
}

/* How much of pair i's speed is kept (the rest is divided by the factor): all where it turns often, nothing where it turns less than beta_slow times. */
static double kept_speed (const wl_model *m, uint32_t i)
{
    if (!m->rope_scaling.yarn)
        return 0;
    double low = pair_of_turns (m, (double) m->rope_scaling.beta_fast);
    double high = pair_of_turns (m, (double) m->rope_scaling.beta_slow);
    if (!m->rope_scaling.unrounded) {
        low = floor (low);
        high = ceil (high);
    }
    low = low < 0 ? 0 : low;
    high = high > m->rope_dims - 1 ? m->rope_dims - 1 : high;
    double ramp = (i - low) / (high - low < 0.001 ? 0.001 : high - low);
    return ramp <= 0 ? 1 : ramp >= 1 ? 0 : 1 - ramp;
}

double *rope_frequencies (const wl_model *m, bool local, uint32_t context, wl_error *err)
{
    uint32_t n_pairs = m->rope_dims / 2;
    bool is_long = m->rope_factors_long && context > m->rope_scaling.original_context;
    const wl_tensor *tensor = is_long ? m->rope_factors_long : m->rope_factors;
    double *frequencies = wl_new (n_pairs, sizeof *frequencies, err);
    float *factors = tensor ? wl_vector_load (tensor, err) : NULL;
    if (!frequencies || (tensor && !factors)) {
        free (frequencies);
        wl_free_aligned (factors);
        return NULL;
    }
    for (uint32_t i = 0; i < n_pairs; i++) {
        double base = (double) (local ? m->rope_base_local : m->rope_base);
        double speed = wl_pow (base, -2.0 * i / m->rope_dims) / (factors ? (double) factors[i] : 1.0);
        double kept = local ? 1 : kept_speed (m, i);
        frequencies[i] = speed * kept + speed / (double) m->rope_scaling.factor * (1 - kept);
    }
    wl_free_aligned (factors);
    return frequencies;
}
