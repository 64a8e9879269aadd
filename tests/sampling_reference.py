"""A plain numpy formulation of sampling, for tests to hold the programs to.

It sorts, masks and renormalises the whole vocabulary step by step as the papers write it, in float64, and knows nothing of how the sampler finds the
same. The random number is a function of (seed, position), repeated here, so whole tokens are foretold and not only frequencies. A case is a dict of
the fields of wl_sampling (engine/text/sampler.h) that are on, "history" ([[token, breaks sequences], ...]) and "biases" ([[token, value], ...], None: -inf).
"""
import numpy as np

MASK = (1 << 64) - 1
STEP = 0x9E3779B97F4A7C15
MARGIN = 1e-9  # a draw nearer to the boundary between two tokens may go either way


def mix(z):
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
    return z ^ z >> 31


def uniform(seed, position, stream=0):
    state = mix((seed + STEP) & MASK)
    if stream:
        state = mix((state + stream * STEP) & MASK)
    return (mix((state + (position + 1) * STEP) & MASK) >> 11) / 2**53


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def f32(x):
    return np.float64(np.float32(x))


def penalised(logits, case):
    l = logits.copy()
    recent = [token for token, _ in case.get("history", [])][-case.get("repeat_last_n", 64):]
    for token in set(recent):
        r = f32(case.get("repeat_penalty", 1) or 1)
        l[token] = l[token] / r if l[token] > 0 else l[token] * r
        l[token] -= recent.count(token) * f32(case.get("frequency_penalty", 0)) + f32(case.get("presence_penalty", 0))
    return f32(l) if recent else l


def dry(logits, case):
    """As first described: for every earlier place where the last tokens stand, walk backwards as far as they agree."""
    l, history = logits.copy(), case.get("history", [])[-case.get("dry_last_n", 1024):]
    multiplier = f32(case.get("dry_multiplier", 0))
    if not multiplier or not history or history[-1][1]:
        return l
    longest = {}
    for i in range(len(history) - 1):
        next_token, next_breaks = history[i + 1]
        if next_breaks:
            continue
        length = 0
        while i - length >= 0 and history[i - length] == history[-1 - length] and not history[i - length][1]:
            length += 1
        longest[next_token] = max(length, longest.get(next_token, 0))
    for token, length in longest.items():
        if length >= case.get("dry_allowed_length", 2) and length > 0:
            l[token] = f32(l[token] - multiplier * f32(case.get("dry_base", 1.75)) ** (length - case.get("dry_allowed_length", 2)))
    return l


def biased(logits, case):
    l = logits.copy()
    for token, value in case.get("biases", []):
        l[token] = -np.inf if value is None else f32(l[token] + f32(value))
    return l


def temperature(l, case):
    t, spread = f32(case.get("temperature", 1)), f32(case.get("dynatemp_range", 0))
    if not spread:
        return t
    p = softmax(l)[np.isfinite(l)]
    entropy = -(p[p > 0] * np.log(p[p > 0])).sum()
    low, high = t - spread, t + spread
    return low + (high - low) * (entropy / np.log(len(p))) ** f32(case.get("dynatemp_exponent", 1))


def by_rank(l):
    return np.lexsort((np.arange(len(l)), -l))


def keep(l, kept):
    masked = np.full_like(l, -np.inf)
    masked[kept] = l[kept]
    return masked


def filtered(l, adjusted, raw, case, position):
    """l: logits over temperature; adjusted: before it."""
    if case.get("top_n_sigma"):
        sigma = raw[np.isfinite(raw)].std()
        l = keep(l, adjusted >= adjusted.max() - f32(case["top_n_sigma"]) * sigma)
    if case.get("top_k"):
        l = keep(l, by_rank(l)[:case["top_k"]])
    if 0 < case.get("typical_p", 0) < 1:
        p = softmax(l)
        with np.errstate(divide="ignore"):
            surprise = -np.log(p)
        entropy = (p[p > 0] * surprise[p > 0]).sum()
        rank = np.empty(len(l), int)
        rank[by_rank(l)] = np.arange(len(l))
        outwards = np.where(surprise < entropy, -rank, rank)  # among equal ones
        order = np.lexsort((outwards, np.abs(surprise - entropy)))
        n = np.searchsorted(np.cumsum(p[order]), f32(case["typical_p"]) * (1 - 1e-15)) + 1
        l = keep(l, order[:n])
    if case.get("top_p", 1) < 1:
        p, order = softmax(l), by_rank(l)
        n = np.searchsorted(np.cumsum(p[order]), f32(case["top_p"])) + 1
        l = keep(l, order[:n])
    if case.get("min_p"):
        p = softmax(l)
        l = keep(l, p >= f32(case["min_p"]) * p.max())
    if case.get("xtc_probability") and uniform(case["seed"], position, 1) < f32(case["xtc_probability"]):
        p, order = softmax(l), by_rank(l)
        top = [token for token in order if np.isfinite(l[token]) and p[token] >= f32(case.get("xtc_threshold", 0.1))]
        l = keep(l, np.setdiff1d(np.arange(len(l)), top[:-1]))
    return l


def drawn(l, case, position):
    p, order = softmax(l), by_rank(l)
    u, sums = uniform(case["seed"], position), np.cumsum(p[order])
    place = min(np.searchsorted(sums, u, side="right"), np.isfinite(l).sum() - 1)
    assert np.abs(sums - u).min() > MARGIN, "a draw on a boundary: choose another seed"
    return int(order[place]), p


def expected(logits, case, position, mu):
    """(token, mu) by the formulation."""
    raw = logits.astype(np.float64)
    adjusted = biased(dry(penalised(raw, case), case), case)
    t = temperature(adjusted, case)
    if t == 0:
        return int(by_rank(adjusted)[0]), mu
    l = adjusted / t
    if case.get("mirostat") == 2:
        with np.errstate(divide="ignore"):
            surprise = -np.log2(softmax(l))
        l = keep(l, (surprise <= mu) | (np.arange(len(l)) == by_rank(l)[0]))
        token, p = drawn(l, case, position)
        return token, mu - f32(case["mirostat_rate"]) * (-np.log2(p[token]) - f32(case["mirostat_entropy"]))
    return drawn(filtered(l, adjusted, raw, case, position), case, position)[0], mu
