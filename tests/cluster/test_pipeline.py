"""Speculation, chunks and the accounting of time: they change when things are computed, never what."""
import json
import os
import signal

import numpy as np
import pytest

import make_model
from conftest import SLOW, children_of, random_tokens, wait_for

REPEATING = "one two three four five six seven one two three four five six seven one two three " * 3
NOVEL = "Three sheep walk over a hill. The first one says:"
GREEDY = ["--temp", 0]
WARM = ["--temp", 0.9, "--top-k", 50, "--seed", 11]
PENALISED = ["--temp", 0.7, "--repeat-penalty", 1.2, "--seed", 3]  # a draw looks at the tokens before it, guesses among them


def run(woolly, model, prompt, *arguments, n=40, **options):
    return woolly.json("run", "-m", model, "--raw", "-p", prompt, "-n", n, "--ignore-eos", *arguments, seconds=120, **options)


def answers_and_speculation(woolly, model, *arguments):
    """Tokens and texts of the answers to both prompts, one after another, and how many guesses were made for them."""
    path = woolly.folder / "prompts"
    path.write_text(f"{json.dumps(REPEATING)}\n{json.dumps(NOVEL)}\n")
    out = woolly.done("run", "-m", model, "--raw", "--prompts", path, "--parallel", 1, "-n", 40, "--ignore-eos", "--json", *arguments, seconds=120).out
    *answers, last = [json.loads(line) for line in out.splitlines()]
    return [(answer["tokens"], answer["text"]) for answer in answers], last["summary"]["speculation"]


@pytest.mark.parametrize("sampling", [GREEDY, WARM, pytest.param(PENALISED, marks=pytest.mark.short)], ids=["greedy", "warm", "penalised"])
@pytest.mark.parametrize("name", ["llama-q4_1", "gemma3-q4_0"])
def test_speculation_does_not_change_the_tokens(woolly, own_models, name, sampling):
    model = own_models / f"{name}.gguf"
    expected, speculation = answers_and_speculation(woolly, model, *sampling, "--spec", "off", "--local", 1)
    assert len(expected) == 2 and speculation == {"drafted": 0, "accepted": 0}
    for workers, kind in ((1, "ngram"), (2, "auto"), (2, "ngram"), (4, "ngram"), (4, "auto")):
        answers, speculation = answers_and_speculation(woolly, model, *sampling, "--spec", kind, "--local", workers, "--threads", 1)
        assert answers == expected, f"{workers} workers, {kind}"
        assert speculation["accepted"] <= speculation["drafted"]
        assert kind == "auto" or sampling != GREEDY or speculation["drafted"] > 0


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_smollm2_continues_what_repeats_with_guesses_that_come_true(woolly, smollm2, workers):
    """How many are sent depends on what steps cost; most that are come true here."""
    expected = run(woolly, smollm2, REPEATING, *GREEDY, "--spec", "off", "--local", 1, n=64)
    answer = run(woolly, smollm2, REPEATING, *GREEDY, "--spec", "ngram", "--local", workers, "--threads", 1, n=64)
    assert answer["tokens"] == expected["tokens"]
    assert answer["speculation"]["accepted"] >= 10, answer["speculation"]
    warm = [run(woolly, smollm2, REPEATING, *WARM, "--spec", kind, "--local", workers, "--threads", 1, n=64)["tokens"] for kind in ("off", "ngram")]
    assert warm[0] == warm[1]


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_guesses_that_are_always_wrong_change_nothing(woolly, own_models, workers):
    """A prompt in which every pair of tokens occurs again with another follower each time, and random weights that follow none of them."""
    model = own_models / "llama-q4_1.gguf"
    words = " ".join(f"ab{'cdefghijklmnop'[i % 14]}" for i in range(200))
    expected = run(woolly, model, words, *WARM, "--spec", "off", "--local", 1, n=80)
    answer = run(woolly, model, words, *WARM, "--spec", "ngram", "--local", workers, "--threads", 1, n=80)
    assert answer["tokens"] == expected["tokens"]


def test_mirostat_is_not_speculated(woolly, smollm2):
    """Its draws depend on how the tokens before were drawn."""
    sampling = ["--mirostat", 2, "--temp", 0.8, "--seed", 5]
    answers = [run(woolly, smollm2, REPEATING, *sampling, "--spec", kind, "--local", 2, "--threads", 1, n=24) for kind in ("off", "ngram")]
    assert answers[0]["tokens"] == answers[1]["tokens"]
    assert answers[1]["speculation"]["drafted"] == 0


def test_an_answer_ends_where_it_would_without_guesses(woolly, smollm2):
    """By a stop text, by the number of tokens, and by one token alone, with guesses under way beyond the end."""
    for arguments in (["--stop", "six", "-n", 64], ["-n", 1], ["-n", 2], ["-n", 7]):
        answers = [woolly.json("run", "-m", smollm2, "--raw", "-p", REPEATING, "--ignore-eos", *GREEDY, "--spec", kind, "--local", 2, "--threads", 1,
                               *arguments, seconds=120) for kind in ("off", "ngram")]
        for key in ("tokens", "text", "finish_reason"):
            assert answers[0][key] == answers[1][key], arguments


@pytest.mark.short
def test_a_worker_killed_while_guesses_are_under_way_is_an_error_and_no_hang(woolly, own_models):
    model = own_models / "llama-q4_1.gguf"
    process = woolly.start("run", "-m", model, "--raw", "-p", REPEATING, "-n", 500, "--ignore-eos", *GREEDY, "--spec", "ngram", "--local", 2, "--threads", 1)
    process.wait_for_output()
    os.kill(max(children_of(process.pid)), signal.SIGKILL)
    result = process.wait(20)
    assert result.code == 4 and "local-" in result.err, repr(result)
    assert len(result.err.splitlines()) == 1, repr(result)


def test_an_unknown_kind_of_speculation_is_refused(woolly, tiny, expect_error):
    expect_error(2, "choose off, ngram, auto or draft:MODEL", "run", "-m", tiny, "-p", "x", "--spec", "magic")
    expect_error(2, "--chunk", "run", "-m", tiny, "-p", "x", "--chunk", 5000)


# -- chunks -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", make_model.MODELS[:2] if isinstance(make_model.MODELS, (list, tuple)) else list(make_model.MODELS)[:2])
def test_logits_are_the_same_bytes_for_any_chunk(woolly, own_models, name):
    model = own_models / f"{name}.gguf"
    tokens = random_tokens(name, 300)
    expected = woolly.logits(model, tokens, "--local", 1, "--threads", 1, "--chunk", 300)
    for chunk, workers in ((1, 2), (16, 1), (16, 4), (37, 3), (128, 2), (1024, 2)):
        logits = woolly.logits(model, tokens, "--chunk", chunk, "--local", workers)
        assert np.array_equal(logits.view(np.uint32), expected.view(np.uint32)), f"chunks of {chunk} over {workers} workers"


@pytest.mark.parametrize("chunk", [16, 48, 1024])
def test_smollm2_answers_the_same_for_any_chunk(woolly, smollm2, chunk):
    prompt = NOVEL * 20
    expected = run(woolly, smollm2, prompt, *WARM, "--local", 1, "--spec", "off", n=16)["tokens"]
    assert run(woolly, smollm2, prompt, *WARM, "--local", 2, "--threads", 1, "--chunk", chunk, n=16)["tokens"] == expected


# -- time -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.short
def test_the_time_of_each_stage_is_told_by_cause_and_adds_up(woolly, own_models):
    answer = run(woolly, own_models / "llama-q4_1.gguf", NOVEL, *GREEDY, "--spec", "off", "--local", 3, "--threads", 1, n=60)
    spans = []
    for stage in answer["stages"]:
        time = stage["time"]
        assert set(time) == {"compute_s", "hop_s", "starved_s", "blocked_s"}
        assert all(value >= 0 for value in time.values()) and time["compute_s"] > 0
        spans.append(sum(time.values()))
    whole = answer["timings"]["ttft_s"] + 59 / answer["timings"]["decode_tok_s"]
    for span in spans:  # from the first step's arrival to the last one's end, which are a step apart from stage to stage
        assert 0.5 * whole < span <= 1.05 * whole, (spans, whole)
    one_at_a_time = [stage["time"]["compute_s"] for stage in answer["stages"]]
    # With one stream, a stage waits at least while the others compute. Sanitized builds run beside compilers, and what a stage waits for a processor counts as computing.
    part = 0.5 if SLOW == 1 else 0.25
    for index, stage in enumerate(answer["stages"]):
        assert stage["time"]["starved_s"] + stage["time"]["hop_s"] > part * (sum(one_at_a_time) - one_at_a_time[index])


def test_a_trace_holds_every_step_of_every_stage(woolly, own_models, tmp_path):
    path = tmp_path / "trace.json"
    answer = run(woolly, own_models / "llama-q4_1.gguf", NOVEL, *GREEDY, "--spec", "off", "--local", 2, "--threads", 1, "--trace", path, n=20)
    events = json.loads(path.read_text())
    bars = [event for event in events if event["ph"] == "X"]
    names = [event["args"]["name"] for event in events if event["ph"] == "M"]
    assert names == ["stage 0", "stage 1"]
    for stage in (1, 2):
        own = [bar for bar in bars if bar["tid"] == stage]
        steps = [bar["args"]["step"] for bar in own]
        assert steps == sorted(set(steps)) and sum(bar["args"]["rows"] for bar in own) == answer["prompt_tokens"] + 19
        assert all(bar["ts"] >= 0 and bar["dur"] > 0 for bar in own)
        assert all(a["ts"] + a["dur"] <= b["ts"] + 0.002 for a, b in zip(own, own[1:])), "a stage computes one step at a time"
    starts, ends = ([event["id"] for event in events if event["ph"] == phase] for phase in "sf")
    assert starts == ends and len(starts) == len(bars) // 2


def test_a_trace_that_cannot_be_written_is_refused(woolly, tiny, tmp_path, expect_error):
    expect_error(2, "--trace", "run", "-m", tiny, "-p", "x", "-n", 1, "--trace", tmp_path / "no" / "trace.json", within=5)
