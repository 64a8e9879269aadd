"""Every sampler against a plain numpy formulation of its formula (tests/sampling_reference.py): the same token at every position."""
import json
import subprocess

import numpy as np
import pytest

from conftest import BIN
from sampling_reference import by_rank, expected, f32, filtered, penalised, softmax, temperature

pytestmark = pytest.mark.short
N_VOCAB = 1009  # a last block that is not whole
N_ROWS = 7


# -- the sampler ---------------------------------------------------------------------------------------------------------------------------


def run_sampler(rows, cases, folder):
    (folder / "logits").write_bytes(rows.astype("<f4").tobytes())
    program = subprocess.run([BIN / "sample", folder / "logits", str(rows.shape[1])], input="\n".join(json.dumps(case) for case in cases) + "\n",
                             capture_output=True, text=True, check=False)
    assert program.returncode == 0, program.stderr
    return [json.loads(line) for line in program.stdout.splitlines()]


@pytest.fixture(scope="module")
def rows():
    """Rows of several shapes: a bell, a peaked one, a flat one, one with equal logits, one with forbidden tokens, one far from zero, one of
    neighbours in f32."""
    random = np.random.default_rng(7)
    r = random.normal(0, 3, (N_ROWS, N_VOCAB)).astype(np.float32)
    r[1, random.choice(N_VOCAB, 5, replace=False)] += 14
    r[2] /= 30
    r[3] = np.round(r[3])
    r[4, random.choice(N_VOCAB, 500, replace=False)] = -np.inf
    r[5] = r[5] * 2 - 300
    r[6] = 1 + random.permutation(N_VOCAB).astype(np.float32) * np.finfo(np.float32).eps
    return r


def history_of(seed, n=60, breaks=7):
    """Repetitive, with every seventh token a breaker."""
    random = np.random.default_rng(seed)
    return [[int(t), bool(t % breaks == 0)] for t in random.choice([3, 7, 20, 21, 22, 500, 1008], n)]


LOOPING = [[t, False] for t in [5, 6, 7, 8] * 12]
SETS = {
    "temperature": [{"temperature": t} for t in (0.2, 1, 1.7)],
    "greedy": [{"temperature": 0}, {"temperature": 0, "repeat_penalty": 1.5, "history": history_of(1)}, {"temperature": 0, "top_k": 5, "top_p": 0.5}],
    "dynatemp": [{"temperature": 1, "dynatemp_range": 1}, {"temperature": 1.2, "dynatemp_range": 0.7, "dynatemp_exponent": 2.5},
                 {"temperature": 0.8, "dynatemp_range": 0.3, "dynatemp_exponent": 0.4, "biases": [[i, None] for i in range(300)]}],
    "top_k": [{"top_k": k} for k in (1, 2, 40, 1000, 1009, 100000)],
    "top_p": [{"top_p": p} for p in (0.01, 0.3, 0.9, 0.999)] + [{"top_p": 0.8, "top_k": 50}],
    "min_p": [{"min_p": p} for p in (0.001, 0.05, 0.5, 1)] + [{"min_p": 0.1, "top_k": 20, "temperature": 2}, {"min_p": 0.1, "top_p": 0.6}],
    "typical": [{"typical_p": p} for p in (0.05, 0.2, 0.5, 0.95)] + [{"typical_p": 0.5, "top_k": 30}, {"typical_p": 0.7, "top_p": 0.9, "min_p": 0.02},
                                                                        {"typical_p": 0.2, "min_p": 0.7}],
    "top_n_sigma": [{"top_n_sigma": n} for n in (0.01, 1, 2.5)] + [{"top_n_sigma": 1, "temperature": 3, "top_k": 7},
                                                                  {"top_n_sigma": 1, "biases": [[400, 4], *([i, -50] for i in range(300))]}],
    "xtc": [{"xtc_probability": 1, "xtc_threshold": t} for t in (0, 0.02, 0.1, 0.5)] + [{"xtc_probability": 0.5, "xtc_threshold": 0.05, "min_p": 0.02}],
    "mirostat": [{"mirostat": 2, "mirostat_entropy": e, "mirostat_rate": r} for e, r in ((3, 0.1), (6, 0.5), (0.5, 1))]
                + [{"mirostat": 2, "mirostat_entropy": 4, "mirostat_rate": 0.3, "temperature": 1.6}],
    "penalties": [{"repeat_penalty": 1.3, "history": history_of(2)}, {"presence_penalty": 2, "history": history_of(3)},
                  {"frequency_penalty": 0.7, "history": history_of(4)}, {"frequency_penalty": -0.9, "presence_penalty": -1, "history": history_of(5)},
                  {"repeat_penalty": 0.7, "repeat_last_n": 9, "frequency_penalty": 0.3, "presence_penalty": 0.2, "top_k": 40, "history": history_of(6)}],
    "dry": [{"dry_multiplier": 0.8, "history": LOOPING}, {"dry_multiplier": 3, "dry_base": 1.1, "history": history_of(7)},
            {"dry_multiplier": 2, "dry_allowed_length": 1, "history": history_of(8)}, {"dry_multiplier": 2, "dry_last_n": 10, "history": history_of(9)},
            {"dry_multiplier": 1, "dry_base": 1, "dry_allowed_length": 5, "history": LOOPING + history_of(10) + LOOPING[:18]},
            {"dry_multiplier": 5, "history": history_of(11, breaks=3)}, {"dry_multiplier": 1, "history": []}, {"dry_multiplier": 1, "history": LOOPING[:1]}],
    "bias": [{"biases": [[17, 12]]}, {"biases": [[i, None] for i in range(0, 1009, 2)]}, {"biases": [[5, -3.5], [6, 0.25]], "top_k": 10}],
}
SETS["all"] = [{"temperature": 0.9, "dynatemp_range": 0.4, "top_n_sigma": 3, "top_k": 60, "typical_p": 0.97, "top_p": 0.98, "min_p": 0.003, "xtc_probability": 0.5,
                "xtc_threshold": 0.08, "repeat_penalty": 1.1, "frequency_penalty": 0.1, "presence_penalty": 0.1, "dry_multiplier": 0.8,
                "biases": [[21, 2], [3, None]], "history": history_of(12)}]


@pytest.mark.parametrize("name", SETS)
def test_every_token_is_the_one_the_formula_gives(rows, tmp_path, name):
    cases = [{"seed": 1000 + i, "row": row, "positions": 40, "position": 11 * i, **case}
             for i, case in enumerate(SETS[name]) for row in range(N_ROWS)]
    for case, samples in zip(cases, run_sampler(rows, cases, tmp_path), strict=True):
        mu = 2 * f32(case.get("mirostat_entropy", 0)) if case.get("mirostat") else 0
        for i, (token, _, next_mu, _) in enumerate(samples):
            wanted, mu = expected(rows[case["row"]], case, case["position"] + i, mu)
            assert token == wanted, f"{case} at position {case['position'] + i}"
            assert next_mu == pytest.approx(mu, abs=1e-9)
            mu = next_mu


def test_logprobs_are_of_the_models_own_distribution(rows, tmp_path):
    case = {"seed": 3, "positions": 8, "wants_logprob": True, "n_alternatives": 20, "top_k": 3, "temperature": 2,
            "biases": [[int(rows[0].argmax()), None]], "history": LOOPING, "repeat_penalty": 1.5}
    cases = [{**case, "row": row} for row in range(N_ROWS)]
    for case, samples in zip(cases, run_sampler(rows, cases, tmp_path), strict=True):
        l = rows[case["row"]].astype(np.float64)
        logprobs = l - l.max() - np.log(np.exp(l - l.max()).sum())
        for token, logprob, _, alternatives in samples:
            assert logprob == pytest.approx(logprobs[token], rel=1e-6)
            assert [t for t, _ in alternatives] == by_rank(l)[:20].tolist()
            assert [p for _, p in alternatives] == pytest.approx(logprobs[by_rank(l)[:20]], rel=1e-6)


def test_a_large_vocabulary_is_drawn_from_like_a_small_one(tmp_path):
    """Enough candidates for every way of selecting them."""
    big = np.random.default_rng(8).normal(0, 4, (1, 50_000)).astype(np.float32)
    cases = [{"seed": 5, "positions": 60, **case} for case in ({}, {"top_k": 40}, {"top_k": 5000}, {"min_p": 0.01}, {"top_p": 0.7},
                                                             {"mirostat": 2, "mirostat_entropy": 8, "mirostat_rate": 0.1}, {"typical_p": 0.3})]
    for case, samples in zip(cases, run_sampler(big, cases, tmp_path), strict=True):
        mu = 2 * f32(case.get("mirostat_entropy", 0))
        for position, (token, _, next_mu, _) in enumerate(samples):
            assert token == expected(big[0], case, position, mu)[0], case
            mu = next_mu


@pytest.mark.parametrize("name,case", [("top_k", {"top_k": 6}), ("typical", {"typical_p": 0.6}), ("xtc", {"xtc_probability": 0.3, "xtc_threshold": 0.1}),
                                       ("dynatemp", {"dynatemp_range": 0.9}), ("penalties", {"repeat_penalty": 1.4, "history": history_of(2)})])
def test_frequencies_over_many_seeds_are_the_probabilities(rows, tmp_path, name, case):
    """What the exact comparison cannot see: that the random numbers themselves are even and their two streams independent."""
    n, row = 4000, rows[1]
    cases = [{"seed": seed, "row": 1, "position": 77, **case} for seed in range(n)]
    counts = np.bincount([samples[0][0] for samples in run_sampler(rows, cases, tmp_path)], minlength=N_VOCAB)
    raw = row.astype(np.float64)
    adjusted = penalised(raw, case)
    l = adjusted / temperature(adjusted, case)
    on = softmax(filtered(l, adjusted, raw, {**case, "xtc_probability": min(1, case.get("xtc_probability", 0) * 1e9), "seed": 0}, 0))
    off = softmax(filtered(l, adjusted, raw, {**case, "xtc_probability": 0}, 0))
    p = case.get("xtc_probability", 0) * on + (1 - case.get("xtc_probability", 0)) * off
    assert (np.abs(counts / n - p) <= 5 * np.sqrt(p * (1 - p) / n) + 1e-3).all(), name


def test_what_makes_no_sense_is_refused(rows, tmp_path):
    (tmp_path / "logits").write_bytes(rows.tobytes())
    for case, flag in (({"temperature": -1}, "--temp"), ({"mirostat": 1}, "--mirostat"), ({"mirostat": 2, "top_k": 5}, "--top-k"),
                       ({"dynatemp_range": 2}, "--dynatemp-range"), ({"xtc_probability": 1, "xtc_threshold": 0.6}, "--xtc-threshold"),
                       ({"temperature": 0, "typical_p": 0.5}, "--typical"), ({"biases": [[1, 2000]]}, "--logit-bias"),
                       ({"n_alternatives": 21}, "--logprobs"), ({"dry_multiplier": 1, "dry_last_n": 8193}, "--dry-penalty-last-n")):
        program = subprocess.run([BIN / "sample", tmp_path / "logits", str(N_VOCAB)], input=json.dumps(case), capture_output=True, text=True, check=False)
        assert program.returncode == 2 and flag in program.stderr, case
