"""The answer does not depend on how many stages, workers and threads compute it, nor on how they are connected."""
import json

import numpy as np
import pytest

import make_model
from conftest import free_port, random_tokens

PROMPT = "Three sheep walk over a hill. The first one says:"
N_TOKENS = 24


@pytest.fixture(scope="module")
def answers():
    """Answers of one worker with one thread, kept for the module."""
    return {}


def greedy(woolly, model, *arguments, n=N_TOKENS):
    return woolly.json("run", "-m", model, "-p", PROMPT, "-n", n, "--temp", 0, "--ignore-eos", *arguments, seconds=120)["tokens"]


def one_worker_answer(woolly, answers, model):
    if model not in answers:
        answers[model] = greedy(woolly, model, "--local", 1, "--threads", 1)
    return answers[model]


def greedy_and_drawn(woolly, model, *arguments):
    """(tokens of a greedy answer and of three drawn with a seed each, names of the stages): one after another, over one cluster."""
    path = woolly.folder / "prompts"
    lines = [{"prompt": PROMPT, "n": N_TOKENS, "temp": 0}, *({"prompt": PROMPT, "n": N_TOKENS, "temp": 1, "seed": seed} for seed in (1, 2, 3))]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    out = woolly.done("run", "-m", model, "--prompts", path, "--parallel", 1, "--ignore-eos", "--json", *arguments, seconds=120).out
    *found, last = [json.loads(line) for line in out.splitlines()]
    assert [answer["index"] for answer in found] == [0, 1, 2, 3]
    return [answer["tokens"] for answer in found], [stage["name"] for stage in last["summary"]["stages"]]


@pytest.fixture(scope="module")
def smollm2_answers(smollm2):
    """smollm2_answers (WOOLLY): what SmolLM2 says over one worker with one thread, once a module."""
    kept = []

    def compute(woolly):
        if not kept:
            kept.extend(greedy_and_drawn(woolly, smollm2, "--local", 1, "--threads", 1)[0])
            assert kept[0] == greedy(woolly, smollm2, "--local", 1, "--threads", 1)
            assert len({tuple(tokens) for tokens in kept}) == 4 and all(len(tokens) == N_TOKENS for tokens in kept)
        return kept

    return compute


@pytest.mark.parametrize("workers,threads", [(1, 2), (2, 1), (3, 2), (5, 1), (7, 2), (30, 1)])
def test_smollm2_answers_the_same_over_ipc(woolly, smollm2, smollm2_answers, workers, threads):
    """Greedy, and drawn: by the seed alone."""
    expected = smollm2_answers(woolly)
    tokens, stages = greedy_and_drawn(woolly, smollm2, "--local", workers, "--threads", threads)
    assert tokens == expected and len(stages) == workers


@pytest.mark.parametrize("workers,threads", [(1, 1), (2, 2), (3, 1), (30, 1)])
def test_smollm2_answers_the_same_over_tcp(woolly, smollm2, smollm2_answers, workers, threads):
    expected = smollm2_answers(woolly)
    port = free_port()
    for i in range(workers):
        woolly.worker(port, f"w{i}", "--threads", threads)
    tokens, stages = greedy_and_drawn(woolly, smollm2, "--listen", f"127.0.0.1:{port}", "--min-workers", workers)
    assert tokens == expected
    assert sorted(stages) == sorted(f"w{i}" for i in range(workers))


@pytest.mark.short
def test_local_and_joined_workers_together_answer_the_same(woolly, tiny, answers):
    port = free_port()
    woolly.worker(port, "far")
    answer = woolly.json("run", "-m", tiny, "-p", PROMPT, "-n", N_TOKENS, "--temp", 0, "--ignore-eos",
                         "--local", 2, "--listen", f"127.0.0.1:{port}", "--min-workers", 1)
    assert len(answer["stages"]) == 3 and "far" in [stage["name"] for stage in answer["stages"]]
    assert answer["tokens"] == one_worker_answer(woolly, answers, tiny)


@pytest.mark.parametrize("layers", ["0,1-5", "0-4,5", "0,1,2,3,4,5", "0-1,2-3,4-5"])
def test_any_split_answers_the_same(woolly, tiny, answers, layers):
    assert greedy(woolly, tiny, "--layers", layers) == one_worker_answer(woolly, answers, tiny)


@pytest.mark.parametrize("name", make_model.MODELS)
def test_logits_are_the_same_bytes_for_any_split_threads_and_kernels(woolly, own_models, name):
    """Over a prompt long enough for several chunks of prefill and several pages of KV cache."""
    model = own_models / f"{name}.gguf"
    tokens = random_tokens(name, 160)
    expected = woolly.logits(model, tokens, "--local", 1, "--threads", 1)
    assert np.isfinite(expected).all() and expected.shape == (160, 421)
    for n_tokens, arguments in ((160, ["--local", 6, "--threads", 2]), (70, ["--isa", "scalar", "--local", 3])):  # more tokens change nothing before them
        logits = woolly.logits(model, tokens[:n_tokens], *arguments)
        assert np.array_equal(logits.view(np.uint32), expected[:n_tokens].view(np.uint32)), f"{arguments} changes the logits"


@pytest.mark.parametrize("name", ["granite-q8_0", "gemma3-q4_0"])
def test_a_q8_0_cache_gives_the_same_bytes_for_any_split_and_is_near_f16(woolly, own_models, name):
    """Near: what the layers themselves round moves with any change of their input, by 0.02 here."""
    model, tokens = own_models / f"{name}.gguf", random_tokens(name, 150)
    exact, rounded = woolly.logits(model, tokens), woolly.logits(model, tokens, "--kv", "q8_0", "--threads", 1)
    error = np.linalg.norm(rounded - exact) / np.linalg.norm(exact)
    assert 0 < error < 0.06, error
    for arguments in (["--local", 2, "--chunk", 17], ["--local", 4, "--threads", 1], ["--isa", "scalar", "--local", 3]):
        logits = woolly.logits(model, tokens, "--kv", "q8_0", *arguments)
        assert np.array_equal(logits.view(np.uint32), rounded.view(np.uint32)), f"{arguments} changes the logits"


def test_a_q8_0_cache_is_half_as_large_and_refused_where_heads_do_not_fit(woolly, own_models, expect_error):
    model = own_models / "gemma3-q4_0.gguf"  # 6 layers, 1 KV head of 64 elements
    for kv, size in (("f16", 2), ("q8_0", 34 / 32)):
        plan = woolly.json("plan", "-m", model, "--local", 2, "--ctx", 512, "--kv", kv)
        assert plan["kv"] == kv and sum(stage["kv_bytes"] for stage in plan["stages"]) == 6 * 2 * 64 * 512 * size
        run = woolly.json("run", "-m", model, "--raw", "-p", PROMPT, "-n", 4, "--kv", kv)
        assert run["kv"] == {"type": kv, "position_bytes": 6 * 2 * 64 * size}
    expect_error(2, "heads have 24", "run", "-m", own_models / "llama-f16.gguf", "-p", "x", "--kv", "q8_0")
    expect_error(2, "choose f16 or q8_0", "run", "-m", model, "-p", "x", "--kv", "q4_0")


def test_decoding_gives_the_tokens_that_prefill_scores_best(woolly, own_models, tmp_path):
    """One token at a time and many at once go through different shapes of the same kernels; the arg-max must agree exactly."""
    for name in ("llama-q4_1", "granite-q4_k_m", "gemma3-q4_0"):
        model = own_models / f"{name}.gguf"
        run = woolly.json("run", "-m", model, "--raw", "-p", PROMPT, "-n", 40, "--temp", 0, "--ignore-eos", "--local", 2)
        ids = woolly.json("tokenize", "-m", model, "-p", PROMPT)["ids"]
        assert run["prompt_tokens"] == len(ids)
        best = woolly.logits(model, ids + run["tokens"]).argmax(1)
        assert best[len(ids) - 1:-1].tolist() == run["tokens"]


def test_workers_that_joined_serve_one_coordinator_after_another(woolly, tiny, answers):
    port = free_port()
    workers = [woolly.worker(port, f"w{i}") for i in range(2)]
    for _ in range(3):
        answer = woolly.json("run", "-m", tiny, "-p", PROMPT, "-n", N_TOKENS, "--temp", 0, "--ignore-eos",
                             "--listen", f"127.0.0.1:{port}", "--min-workers", 2)
        assert answer["tokens"] == one_worker_answer(woolly, answers, tiny)
    assert all(worker.popen.poll() is None for worker in workers)


def test_workers_may_come_after_the_coordinator(woolly, tiny, answers):
    port = free_port()
    run = woolly.start("run", "-m", tiny, "-p", PROMPT, "-n", N_TOKENS, "--temp", 0, "--ignore-eos", "--json",
                       "--listen", f"127.0.0.1:{port}", "--min-workers", 2)
    for i in range(2):
        woolly.worker(port, f"w{i}")
    result = run.wait(20)
    assert result.code == 0, repr(result)
    assert json.loads(result.out)["tokens"] == one_worker_answer(woolly, answers, tiny)
