"""Many requests at once, whose prompts begin alike: each gets what it gets alone, and what is common is computed once."""
import json

import pytest

SYSTEM = "You are a shepherd who counts sheep in verse. Answer in one line, and never count the same sheep twice. "  # over a page of tokens
N_REQUESTS = 64


def make_prompts(path):
    """One of four questions or its beginning behind a common text, or a text of its own; lengths, seeds and temperatures of all kinds."""
    questions = ["How many sheep are there?", "How many sheep are there, and how many are black?", "Who counts them? " * 6, SYSTEM]
    lines = []
    for i in range(N_REQUESTS):
        prompt = f"{i} sheep on a hill" if i % 8 == 7 else SYSTEM + questions[i % 4][:10 + i * 3]
        line = {"prompt": prompt, "n": 140 if 8 < i < 16 else 4 + i % 13}  # some grow by pages
        if i % 2:
            line |= {"temp": 0.9, "seed": i}
        lines.append(json.dumps(line if i % 16 else prompt))
    path.write_text("\n".join(lines) + "\n")
    return [json.loads(line) for line in lines]


def answer_all(woolly, model, path, *arguments, seconds=120):
    """(answers in the order of prompts, summary)"""
    result = woolly.done("run", "-m", model, "--raw", "--prompts", path, "--json", "--ignore-eos", "-n", 9, "--temp", 0, *arguments, seconds=seconds)
    *answers, last = [json.loads(line) for line in result.out.splitlines()]
    assert sorted(answer["index"] for answer in answers) == list(range(len(answers)))
    return sorted(answers, key=lambda answer: answer["index"]), last["summary"]


# One row a stage count: flags beside it, and what must have happened meanwhile (of the summary's counts).
WAYS = {
    1: (["--chunk", 1024], "cached"),
    2: (["--chunk", 48, "--spec", "ngram", "--ctx", 512], "cached evicted preempted"),
    3: (["--chunk", 37, "--no-prefix-cache"], ""),
    4: (["--chunk", 16, "--spec", "ngram", "--parallel", 5], "cached"),
    5: (["--chunk", 256], "cached"),
    6: (["--spec", "ngram"], "cached"),
}


@pytest.mark.parametrize("name", ["llama-q4_1", "gemma3-q4_0"])
def test_64_requests_at_once_get_the_tokens_each_gets_alone(woolly, own_models, tmp_path, name):
    """Greedy and drawn, over 1 to 6 stages, in chunks of 16 to 1024, speculated or not, behind a beginning in common or computed whole, and preempted."""
    model, path = own_models / f"{name}.gguf", tmp_path / "prompts"
    prompts = make_prompts(path)
    expected, summary = answer_all(woolly, model, path, "--parallel", 1, "--no-prefix-cache", "--local", 1, "--spec", "off")
    assert summary["prompt_tokens_cached"] == 0 and summary["prefix_cache"]["kept_pages"] == 0
    for i in (0, 1, 7):  # one by one is what `run -p` does
        prompt = prompts[i] if isinstance(prompts[i], dict) else {"prompt": prompts[i]}
        alone = woolly.json("run", "-m", model, "--raw", "-p", prompt["prompt"], "-n", prompt.get("n", 9), "--ignore-eos",
                            "--temp", prompt.get("temp", 0), "--seed", prompt.get("seed", 0))
        assert alone["tokens"] == expected[i]["tokens"] and alone["text"] == expected[i]["text"]
        assert alone["prompt_tokens_cached"] == 0
    for stages, (arguments, happened) in WAYS.items():
        answers, summary = answer_all(woolly, model, path, "--threads", 1, "--local", stages, *arguments)
        for answer, right in zip(answers, expected, strict=True):
            for key in ("tokens", "text", "finish_reason", "prompt_tokens", "completion_tokens"):
                assert answer[key] == right[key], f"{stages} stages {arguments} change {key} of request {answer['index']}"
        pages = summary["prefix_cache"]
        assert pages["held_pages"] == 0
        assert summary["prompt_tokens_cached"] == sum(answer["prompt_tokens_cached"] for answer in answers)
        assert ("cached" in happened) == (summary["prompt_tokens_cached"] > 0.4 * summary["prompt_tokens"]), "though all came at once"
        assert ("preempted" in happened) == (pages["preempted"] > 0)
        assert ("evicted" in happened) <= (pages["evicted_pages"] > 0)
        assert ("ngram" in arguments) <= (summary["speculation"]["drafted"] > 0)
        times = summary["ttft_s"], summary["between_tokens_s"]
        assert times[0]["n"] == N_REQUESTS and times[1]["n"] == summary["completion_tokens"] - N_REQUESTS
        for time in times:
            assert 0 <= time["p50"] <= time["p90"] <= time["p99"] <= time["max"]


def test_prefixes_are_shared_in_a_q8_0_cache_too(woolly, tiny, tmp_path):
    path = tmp_path / "prompts"
    prompts = make_prompts(path)[:16]
    path.write_text("".join(json.dumps(prompt) + "\n" for prompt in prompts))
    expected, _ = answer_all(woolly, tiny, path, "--parallel", 1, "--no-prefix-cache", "--kv", "q8_0")
    answers, summary = answer_all(woolly, tiny, path, "--local", 2, "--spec", "ngram", "--kv", "q8_0")
    assert summary["prompt_tokens_cached"] > 0
    assert [answer["tokens"] for answer in answers] == [answer["tokens"] for answer in expected]


@pytest.mark.short
def test_a_prompt_that_was_read_before_is_not_computed_again(woolly, tiny, tmp_path):
    path = tmp_path / "prompts"
    path.write_text((json.dumps(SYSTEM) + "\n") * 3)
    answers, _ = answer_all(woolly, tiny, path, "--parallel", 1, "--local", 2)
    assert [answer["prompt_tokens_cached"] for answer in answers] == [0] + [answers[0]["prompt_tokens"] - 1] * 2
    assert answers[0]["tokens"] == answers[1]["tokens"] == answers[2]["tokens"]


@pytest.mark.parametrize("line,code,needle", [
    ("{", 3, "line 2: not JSON"),
    ("[1]", 3, "line 2: neither a JSON string nor an object"),
    ('{"n": 3}', 3, "line 2: neither a JSON string nor an object"),
    ('{"prompt": "x", "n": -1}', 3, 'line 2: "n" is not a number from 0'),
    ('{"prompt": "x", "temp": "warm"}', 3, 'line 2: "temp" is not a number'),
    ('{"prompt": "x", "stop": "y"}', 3, 'line 2: "stop" is none of prompt'),
    ('{"prompt": "x", "n": 4000000000}', 2, "line 2: -n 4000000000 after a prompt"),
], ids=["no-json", "list", "no-prompt", "negative", "text", "unknown", "too-long"])
def test_a_line_that_is_no_prompt_is_refused_by_its_number(tiny, tmp_path, expect_error, line, code, needle):
    path = tmp_path / "prompts"
    path.write_text(f'"one"\n{line}\n')
    expect_error(code, needle, "run", "-m", tiny, "--raw", "--prompts", path, "--json", within=2)


def test_flags_that_do_not_go_together_are_refused(tiny, tmp_path, expect_error):
    path = tmp_path / "prompts"
    path.write_text("\n\n")
    expect_error(3, "no prompts", "run", "-m", tiny, "--raw", "--prompts", path, "--json")
    expect_error(2, "--json", "run", "-m", tiny, "--prompts", path)
    expect_error(2, "choose one", "run", "-m", tiny, "--prompts", path, "-p", "x", "--json")
    expect_error(2, "--parallel", "run", "-m", tiny, "--prompts", path, "--json", "--parallel", 0)
    expect_error(2, "--prompts", "run", "-m", tiny, "-p", "x", "--parallel", 3)
