"""Hops: what activations travel as, what rounding them changes and what it does not, and what is measured of them."""
import json

import numpy as np
import pytest

from conftest import random_tokens

PROMPT = "Three sheep walk over a hill. The first one says:"
ROW_BYTES = {"f32": lambda width: 4 * width, "f16": lambda width: 4 + 2 * width, "q8": lambda width: width + 4 * -(-width // 32)}


def told(result, hop):
    """The result, of a command that says on stderr that it rounds, and nothing else."""
    assert result.code == 0 and len(result.err.splitlines()) == 1, repr(result)
    assert f"--hop {hop} rounds activations" in result.err and "split into stages" in result.err, repr(result)
    return result


def logits(woolly, tmp_path, model, tokens, hop, *arguments):
    (tmp_path / "tokens.json").write_text(json.dumps(tokens))
    told(woolly("score", "-m", model, "--tokens", tmp_path / "tokens.json", "--logits", tmp_path / "logits", "--hop", hop, *arguments, seconds=120), hop)
    return np.fromfile(tmp_path / "logits", "<f4").reshape(len(tokens), -1)


@pytest.mark.parametrize("name, hop, most", [("llama-q4_1", "f16", 0.04), ("gemma3-q4_0", "q8", 0.08)])
def test_rounded_hops_are_near_f32_and_the_same_for_any_chunk_and_thread(woolly, own_models, tmp_path, name, hop, most):
    """Near: what the layers themselves round moves with any change of their input, by 0.02 here."""
    model, tokens = own_models / f"{name}.gguf", random_tokens(name, 150)
    exact = woolly.logits(model, tokens, "--local", 3, "--hop", "f32")
    assert np.array_equal(exact.view(np.uint32), woolly.logits(model, tokens).view(np.uint32))
    split = ["--layers", "0-1,2-3,4-5"]
    rounded = logits(woolly, tmp_path, model, tokens, hop, *split, "--threads", 1)
    error = np.linalg.norm(rounded - exact) / np.linalg.norm(exact)
    assert 0 < error < most, error
    for chunk, threads in ((16, 1), (37, 2)):
        again = logits(woolly, tmp_path, model, tokens, hop, *split, "--chunk", chunk, "--threads", threads)
        assert np.array_equal(rounded.view(np.uint32), again.view(np.uint32)), (chunk, threads)
    two = logits(woolly, tmp_path, model, tokens, hop, "--layers", "0-2,3-5", "--threads", 1)
    assert not np.array_equal(rounded.view(np.uint32), two.view(np.uint32)), "what the note says of the split"


def test_rounded_hops_are_the_same_with_scalar_kernels(woolly, own_models, tmp_path):
    model, tokens = own_models / "llama-q4_1.gguf", random_tokens("isa", 40)
    best = logits(woolly, tmp_path, model, tokens, "q8", "--layers", "0-2,3-5")
    assert np.array_equal(best.view(np.uint32), logits(woolly, tmp_path, model, tokens, "q8", "--layers", "0-2,3-5", "--isa", "scalar").view(np.uint32))


@pytest.mark.short
@pytest.mark.parametrize("hop", ["f32", "f16", "q8"])
def test_each_hop_tells_its_steps_its_bytes_and_how_long_they_took(woolly, own_models, hop):
    model = own_models / "llama-q4_1.gguf"
    result = woolly("run", "-m", model, "--raw", "-p", PROMPT, "-n", 20, "--ignore-eos", "--temp", 0, "--spec", "off", "--local", 3, "--threads", 1,
                    "--hop", hop, "--json", seconds=120)
    answer = (told(result, hop) if hop != "f32" else result).json
    width = woolly.json("inspect", "-m", model)["metadata"]["llama.embedding_length"]
    assert answer["hop"] == {"format": hop, "rounds": hop != "f32", "row_bytes": ROW_BYTES[hop](width)}
    rows = answer["prompt_tokens"] + 19
    assert [at["to"] for at in answer["hops"]] == [0, 1, 2, None]
    assert [at["bytes"] for at in answer["hops"]] == [0, rows * ROW_BYTES[hop](width), rows * ROW_BYTES[hop](width), 0]
    steps = answer["hops"][0]["steps"]
    assert steps >= 20 and all(at["steps"] == steps for at in answer["hops"])
    for at in answer["hops"]:  # with so small a model a stage is not always back in time to wait
        assert at["timed"] <= steps and (0 < at["least_s"] <= at["mean_s"] < 10 if at["timed"] else at["mean_s"] is at["least_s"] is None), at
    assert answer["hops"][-1]["timed"] == steps


def test_one_stage_rounds_nothing_and_says_nothing(woolly, own_models):
    model = own_models / "llama-q4_1.gguf"
    arguments = ["run", "-m", model, "--raw", "-p", PROMPT, "-n", 8, "--temp", 0, "--local", 1]
    answer = woolly.json(*arguments, "--hop", "q8")
    assert answer["hop"]["rounds"] is False
    assert answer["tokens"] == woolly.json(*arguments)["tokens"]


def test_streams_together_answer_with_rounded_hops_as_alone(woolly, own_models, tmp_path):
    """Windows of a score are computed beside one another; one window after the other gives the same."""
    model, tokens = own_models / "llama-q4_1.gguf", random_tokens("windows", 200)
    (tmp_path / "tokens.json").write_text(json.dumps(tokens))
    command = ["score", "-m", model, "--tokens", tmp_path / "tokens.json", "--layers", "0-2,3-5", "--hop", "q8", "--json"]
    together = told(woolly(*command, "--ctx", 64, "--stride", 32), "q8").json
    (tmp_path / "tokens.json").write_text(json.dumps(tokens[:64]))
    alone = told(woolly(*command), "q8").json
    assert together["hop"] == alone["hop"] and alone["hop"]["rounds"]
    assert [p["nll"] for p in together["positions"][:63]] == [p["nll"] for p in alone["positions"][:63]]


def test_an_unknown_hop_is_refused(woolly, tiny, expect_error):
    expect_error(2, "choose f32, f16 or q8", "run", "-m", tiny, "-p", "x", "--hop", "q4")


@pytest.mark.parametrize("transport", ["ipc", "tcp"])
def test_the_benchmark_of_hops_measures_both_sides_and_ends(woolly, transport):
    """Its figures are for people: a busy machine makes any of them."""
    found = woolly.start("--json", "--trips", 8, "--rounds", 1, "--sizes", "8192,100000", "--transport", transport, program="hop").wait(30).json
    assert [row["bytes"] for row in found["links"]] == [8192, 100000]
    assert all(row["bare_us"] > 0 and row["hop_us"] > 0 for row in found["links"])
    assert [row["hop"] for row in found["rounding"]] == ["f16", "q8"]
