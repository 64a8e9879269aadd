/* Choosing the next token from one row of logits.
 *
 * The random number is a function of (seed, position) alone and whatever else a draw depends on is handed in with it, so a token does not depend
 * on how its request was batched, speculated, moved or replayed, and the stage that samples keeps no state. All arithmetic is f64 with +, -, *, /
 * and Woolly's own exp and log (math.h, row_math.h), in a fixed order, so the same logits give the same token on every platform.
 *
 * Candidates are ordered by logit, descending, ties by id, ascending. p is the softmax of what the steps before have left, always renormalised; every filter
 * keeps at least one candidate. The order of steps, and where each comes from:
 *
 *  1. Penalties, on the logit l of each token of the last repeat_last_n (prompt included): repeat_penalty r: l / r if l > 0, else l * r (Keskar et al. 2019,
 *     CTRL, section 4.1); then l - count * frequency_penalty - presence_penalty (OpenAI API reference, "frequency and presence penalties").
 *  2. DRY (p-e-w 2024, "DRY: a modern repetition penalty", text-generation-webui pull request 5677): a token that would continue a repetition of the last
 *     m >= dry_allowed_length tokens loses dry_multiplier * dry_base ^ (m - dry_allowed_length). m is the longest such repetition within the last dry_last_n tokens; it
 *     reaches over no breaker, and a breaker is never penalised.
 *  3. Logit bias: l + bias; -inf forbids the token. Each of 1 to 3 rounds what it changes to f32.
 *  4. Temperature: l / T (Ackley et al. 1985). Dynamic (kalomaze 2023, "entropy sampling" in koboldcpp): T = T0 - range + 2 * range *
 *     (H / ln n) ^ exponent with H the entropy of softmax (l) over all n tokens that are not forbidden.
 *  5. Top-n-sigma (Tang et al. 2024, "Top-n-sigma: not all logits are you need"): l >= max - n * sigma before the temperature; sigma is the population standard
 *     deviation of the model's own finite logits (before 1 to 3, so that a ban does not widen it).
 *  6. Top-k (Fan et al. 2018): the k best.
 *  7. Locally typical (Meister et al. 2022): those whose -ln p is nearest to the entropy H of p, until they hold typical_p. What is kept is a run of ranks:
 *     equal tokens are taken from the typical one outwards, and the more probable side first.
 *  8. Top-p (Holtzman et al. 2020): the best ones until they hold top_p.
 *  9. Min-p (Nguyen et al. 2024): p >= min_p * the best one's.
 * 10. XTC (p-e-w 2024, "Exclude top choices", text-generation-webui pull request 6335): with probability xtc_probability all with p >= xtc_threshold but the
 *     least probable one of them are taken away.
 * 11. Draw: the first candidate at which the sum of p passes the random number.
 *
 * Mirostat 2 (Basu et al. 2021, "Mirostat", and the authors' code) takes the place of 5 to 10: keeps -log2 p <= mu, and after the draw mu becomes mu - rate * (surprise - entropy) where
 * surprise = -log2 of the drawn token's renormalised p. mu starts at 2 * entropy.
 *
 * Temperature 0 is greedy: the first candidate after 1 to 3. Top-n-sigma, top-k, top-p and min-p always keep that one, so they change nothing; what would is refused
 * (wl_sampling_check).
 *
 * Speculation: a row needs its own history, which holds the speculated tokens before it, and nothing of the result of another row, unless
 * wl_sampling_depends_on_draws.
 * Thread: functions are pure; a scratch belongs to one thread. */
#ifndef WL_ENGINE_TEXT_SAMPLER_H
#define WL_ENGINE_TEXT_SAMPLER_H

#include <stddef.h>
#include <stdint.h>

#include "../error.h"

enum {
    WL_SAMPLING_MAX_HISTORY = 8192,    /* tokens: of repeat_last_n and dry_last_n */
    WL_SAMPLING_MAX_BIASES = 1024,     /* entries of logit bias */
    WL_SAMPLING_MAX_ALTERNATIVES = 20, /* n_alternatives */
};

typedef struct wl_sampling {
    float temperature; /* 0: greedy */
    uint32_t top_k;    /* 0: off */
    float top_p;       /* 1: off */
    float min_p;       /* 0: off */
    uint64_t seed;
    float typical_p;             /* 0 and 1: off */
    float top_n_sigma;           /* 0: off */
    float dynatemp_range;        /* 0: off; at most temperature */
    float dynatemp_exponent;     /* more than 0 */
    float xtc_probability;       /* 0: off */
    float xtc_threshold;         /* at most 0.5: beyond it no two tokens reach it */
    float repeat_penalty;        /* 0 and 1: off */
    float presence_penalty;      /* 0: off; below 0 encourages; likewise frequency_penalty */
    float frequency_penalty;     /* for each occurrence */
    uint32_t repeat_last_n;      /* tokens that these three look at */
    float dry_multiplier;        /* 0: off */
    float dry_base;              /* at least 1 */
    uint32_t dry_allowed_length; /* at least 1 */
    uint32_t dry_last_n;         /* tokens that DRY looks at */
    uint32_t mirostat;           /* 0: off; 2 */
    float mirostat_entropy;      /* the surprise aimed at, in bits */
    float mirostat_rate;         /* how fast mu follows */
    bool wants_logprob;          /* the drawn token's logprob is computed */
    uint32_t n_alternatives;     /* and the best tokens' with it */
    size_t n_biases;             /* entries of the next two */
    const uint32_t *bias_tokens; /* borrowed; each at most once */
    const float *bias_values;    /* finite or -inf */
} wl_sampling;

/* What the command line starts from: temperature 0.8, top-k 40, top-p 0.95, min-p 0.05, seed 0 (the caller draws one when the user gave none), the rest off; what
 * belongs to a sampler that is off has the usual value (DRY base 1.75, length 2, the last 1024; penalties over the last 64; XTC threshold 0.1; Mirostat 5, 0.1). */
wl_sampling wl_sampling_default (void);
/* WL_ERROR_USAGE naming the flag, its value and its range, or the two that contradict each other. Token ids are not looked at. */
bool wl_sampling_check (const wl_sampling *sampling, wl_error *err);
/* Whether a draw depends on how earlier tokens were drawn, not only on which they are: then a row cannot be drawn before the one
 * before it was (no speculation). True for mirostat alone, whose mu does. */
bool wl_sampling_depends_on_draws (const wl_sampling *sampling);
/* How many of the sequence's last tokens a draw wants to see: 0 to WL_SAMPLING_MAX_HISTORY. */
size_t wl_sampling_history (const wl_sampling *sampling);
/* The mu of a sequence's first draw. */
double wl_sampling_first_mu (const wl_sampling *sampling);

/* A token of a history: whether it breaks sequences for DRY goes with it. */
static inline uint32_t wl_history_entry (int32_t token, bool breaks)
{
    return (uint32_t) token << 1 | breaks;
}

typedef struct wl_sampler wl_sampler; /* scratch for one vocabulary size */
wl_sampler *wl_sampler_new (size_t n_vocab, wl_error *err);
void wl_sampler_free (wl_sampler **sampler);

/* All that a draw depends on besides the logits. */
typedef struct wl_draw {
    const wl_sampling *sampling; /* checked */
    uint64_t position;           /* the index that the new token will have in its sequence */
    const uint32_t *
        history; /* [n_history] wl_history_entry of the tokens before it, oldest first; more than is wanted does no harm */
    size_t n_history;
    double mirostat_mu;
} wl_draw;

typedef struct wl_sample {
    int32_t token;
    float
        logprob; /* ln of the token's probability under the unmodified logits; 0 unless wanted. Likewise the alternatives' */
    uint32_t
        n_alternatives; /* the best tokens under the unmodified logits, best first; fewer than asked for where the vocabulary is smaller */
    uint32_t alternatives[WL_SAMPLING_MAX_ALTERNATIVES];
    float alternative_logprobs[WL_SAMPLING_MAX_ALTERNATIVES];
    double mirostat_mu; /* for the next draw of the sequence */
} wl_sample;

/* logits[n_vocab], finite or -inf. A row with NaN or without any finite logit, or tokens out of range in history or bias, fail with WL_ERROR_INTERNAL. */
bool wl_sampler_draw (wl_sampler *sampler, const float *logits, const wl_draw *draw, wl_sample *out, wl_error *err);

/* Uniform in [0, 1) with 53 bits from (seed, position): two rounds of the SplitMix64 finalizer (Steele et al. 2014). Other streams of the same generator pass
 * the mixed seed through one more round: stream 0 draws the token, stream 1 decides whether XTC acts. */
double wl_sampling_uniform (uint64_t seed, uint64_t position, uint32_t stream);

#endif
