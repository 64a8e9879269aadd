"""A draft model's guesses: they change when tokens come, never which."""
import json
import signal

import pytest

PROMPT = "Three sheep walk over a hill. The first one says: how many of us are there? " * 2
SAMPLINGS = {
    "greedy": ["--temp", 0],
    "warm": ["--temp", 0.9, "--top-k", 50, "--seed", 11],
    "penalised": ["--temp", 0.7, "--repeat-penalty", 1.2, "--seed", 3],
}


@pytest.fixture(scope="module")
def target(own_models):
    return own_models / "llama-q4_k.gguf"


@pytest.fixture
def smaller(woolly, target, tmp_path):
    path = tmp_path / "smaller.gguf"
    assert woolly("requantize", "-m", target, "--type", "Q2_K", "-o", path).code == 0
    return path


def run(woolly, model, *arguments, n=96):
    return woolly.json("run", "-m", model, "--raw", "-p", PROMPT, "-n", n, "--ignore-eos", *arguments)


@pytest.mark.short
@pytest.mark.parametrize("name", SAMPLINGS)
def test_the_tokens_are_the_same_with_a_draft_model_and_without(woolly, target, smaller, name):
    sampling = SAMPLINGS[name]
    expected = run(woolly, target, *sampling, "--spec", "off", "--local", 1)
    judged = 0
    for workers in (1, 2):
        for draft in (smaller, target):
            answer = run(woolly, target, *sampling, "--spec", f"draft:{draft}", "--draft-always", "--local", workers, "--threads", 1)
            used, total = answer["speculation"]["draft"], answer["speculation"]
            assert answer["tokens"] == expected["tokens"] and answer["text"] == expected["text"], (workers, draft)
            assert used["drafted"] == total["drafted"] >= total["accepted"] == used["accepted"]
            assert used["on"] and used["weight_bytes"] > 0 and used["kv_bytes"] > 0
            judged += used["judged"]
            if draft == target:  # guesses what the model says, whatever is drawn from it, as long as its own cache is right
                assert used["right"] == used["judged"], used
    assert judged > 0


def test_many_requests_that_lose_their_pages_to_each_other_have_their_own_guesses(woolly, target, smaller, tmp_path):
    lines = [json.dumps({"prompt": PROMPT[: 20 + i * 9], "n": 100 + i, "temp": 0.8 * (i % 2), "seed": i}) for i in range(8)]
    (tmp_path / "prompts").write_text("\n".join(lines) + "\n")

    def answers(*arguments):
        result = woolly.done("run", "-m", target, "--raw", "--prompts", tmp_path / "prompts", "--json", "--ignore-eos", "--threads", 1, *arguments)
        *found, last = [json.loads(line) for line in result.out.splitlines()]
        return [a["tokens"] for a in sorted(found, key=lambda a: a["index"])], last["summary"]

    expected, _ = answers("--spec", "off")
    for draft in (smaller, target):
        tokens, summary = answers("--spec", f"draft:{draft}", "--draft-always", "--local", 2, "--ctx", 448)
        used = summary["speculation"]["draft"]
        assert tokens == expected
        assert summary["prefix_cache"]["preempted"] > 0 and used["judged"] > 20
        assert draft == smaller or used["right"] == used["judged"], used


def test_a_draft_that_does_not_pay_is_turned_off(woolly, target):
    """As large as the model, on the same cores."""
    answer = run(woolly, target, *SAMPLINGS["greedy"], "--spec", f"draft:{target}", "--draft-threads", 2, n=600)
    used = answer["speculation"]["draft"]
    assert used["threads"] == 2
    assert used["tries"] == used["failed"] + used["on"] and used["drafted"] < 300, used


@pytest.mark.short
def test_another_vocabulary_is_refused(woolly, target, tiny, shared, expect_error, tmp_path):
    other = shared / "models" / "tiny" / "qwen2-tiny-Q4_K_M.gguf"
    expect_error(3, "vocabulary is another", "run", "-m", target, "-p", "x", "--spec", f"draft:{other}")
    expect_error(3, "none.gguf", "run", "-m", target, "-p", "x", "--spec", f"draft:{tmp_path / 'none.gguf'}")
    expect_error(2, "draft:MODEL", "run", "-m", target, "-p", "x", "--spec", "draft:")
    expect_error(2, "--draft-threads", "run", "-m", target, "-p", "x", "--spec", f"draft:{tiny}", "--draft-threads", 0)
    expect_error(2, "give --spec draft:MODEL", "run", "-m", target, "-p", "x", "--draft-threads", 2)


@pytest.mark.short
def test_ctrl_c_ends_a_run_with_a_draft_model(woolly, target, smaller):
    process = woolly.start("run", "-m", target, "--raw", "-p", PROMPT, "-n", 900, "--ignore-eos", "--temp", 0, "--local", 2, "--threads", 1,
                           "--spec", f"draft:{smaller}", "--draft-always")
    process.wait_for_output()
    process.signal(signal.SIGINT)
    result = process.wait(10)
    assert result.code == 0 and result.err == "", repr(result)
