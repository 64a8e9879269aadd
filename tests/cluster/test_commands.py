"""The commands beside run: score, plan, inspect, tokenize."""
import json
import math
import subprocess

import numpy as np
import pytest
from gguf import GGUFReader

import make_model
from conftest import SHARED, SMOLLM2
from reference import log_softmax

TEXT = "The others close the gap and go on from where they were. 1, 2, 3 {x = y;}"


# -- score --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.short
def test_score_reports_what_its_logits_say(woolly, tiny, tmp_path):
    tokens = list(range(5, 45))
    (tmp_path / "tokens.json").write_text(json.dumps(tokens))
    report = woolly.json("score", "-m", tiny, "--tokens", tmp_path / "tokens.json", "--top", 7, "--local", 2)
    logits = woolly.logits(tiny, tokens)
    logprobs = log_softmax(logits)
    assert report["tokens"] == tokens and len(report["positions"]) == 40
    for i, row in enumerate(report["positions"]):
        order = np.argsort(-logits[i], kind="stable")[:7]
        assert [token for token, _ in row["top"]] == order.tolist()
        assert np.allclose([logprob for _, logprob in row["top"]], logprobs[i][order], atol=1e-5)
        assert math.isclose(row["logsumexp"], logits[i].astype(float)[0] - logprobs[i][0], abs_tol=1e-5)
        if i + 1 < len(tokens):
            assert math.isclose(row["nll"], -logprobs[i][tokens[i + 1]], abs_tol=1e-5)
    mean = -np.mean([logprobs[i][token] for i, token in enumerate(tokens[1:])])
    assert math.isclose(report["mean_nll"], mean, abs_tol=1e-5) and math.isclose(report["perplexity"], math.exp(mean), rel_tol=1e-4)


def test_score_of_a_text_is_score_of_its_tokens(woolly, tiny, tmp_path):
    (tmp_path / "text").write_text(TEXT)
    ids = woolly.json("tokenize", "-m", tiny, "-f", tmp_path / "text", "--no-special")["ids"]
    (tmp_path / "tokens.json").write_text(json.dumps(ids))
    assert woolly.json("score", "-m", tiny, "-f", tmp_path / "text") == woolly.json("score", "-m", tiny, "--tokens", tmp_path / "tokens.json")


@pytest.mark.parametrize("count", [1, 2, 63, 64, pytest.param(65, marks=pytest.mark.short), 1024])
def test_score_takes_any_length_up_to_the_context(woolly, tiny, count):
    tokens = [5 + i * 7 % 400 for i in range(count)]
    logits = woolly.logits(tiny, tokens, "--local", 2)
    assert logits.shape == (count, 421) and np.isfinite(logits).all()
    if count > 2:
        first = woolly.logits(tiny, tokens[:2])
        assert np.array_equal(first, logits[:2]), "what comes later changes what was"


def test_score_json_agrees_with_a_golden(woolly, smollm2, shared, tmp_path):
    golden = json.loads((shared / f"goldens/{SMOLLM2.removesuffix('.gguf')}.prose.json").read_text())
    (tmp_path / "tokens.json").write_text(json.dumps(golden["tokens"]))
    report = woolly.json("score", "-m", smollm2, "--tokens", tmp_path / "tokens.json", "--local", 3)
    assert abs(report["mean_nll"] - golden["mean_nll"]) < 0.02


# -- plan ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.short
@pytest.mark.parametrize("workers", [1, 2, 3, 6])
def test_a_plan_covers_all_layers_once(woolly, tiny, workers):
    plan = woolly.json("plan", "-m", tiny, "--local", workers)
    stages = plan["stages"]
    assert len(stages) == workers
    assert [layer for stage in stages for layer in range(stage["layers"][0], stage["layers"][1] + 1)] == list(range(6))
    assert all(stage["weight_bytes"] > 0 and stage["kv_bytes"] > 0 for stage in stages)


def test_a_run_follows_the_plan(woolly, own_models):
    for name in ("llama-q6_k", "granite-q4_k_m", "gemma3-q4_0"):
        model = own_models / f"{name}.gguf"
        plan = woolly.json("plan", "-m", model, "--local", 3)
        run = woolly.json("run", "-m", model, "-p", "Hi", "-n", 2, "--local", 3)
        assert [s["layers"] for s in plan["stages"]] == [s["layers"] for s in run["stages"]]
        for planned, real in zip(plan["stages"], run["stages"]):
            assert abs(planned["weight_bytes"] - real["weight_bytes"]) <= 0.02 * real["weight_bytes"] + 4096


@pytest.mark.short
def test_fixed_layers_are_planned_as_given(woolly, tiny):
    plan = woolly.json("plan", "-m", tiny, "--layers", "0-0,1-4,5-5")
    assert [stage["layers"] for stage in plan["stages"]] == [[0, 0], [1, 4], [5, 5]]
    assert b"1-4" in woolly.done("plan", "-m", tiny, "--layers", "0,1-4,5").out


# -- inspect --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.short
@pytest.mark.parametrize("name", ["llama-f32", "granite-q4_k_m", "gemma3-q4_0"])
def test_inspect_lists_every_tensor_and_key(woolly, own_models, name):
    reader = GGUFReader(own_models / f"{name}.gguf")
    text = woolly.done("inspect", "-m", own_models / f"{name}.gguf").out.decode()
    report = woolly.json("inspect", "-m", own_models / f"{name}.gguf")
    assert {t["name"]: t["type"] for t in report["tensors"]} == {t.name: t.tensor_type.name for t in reader.tensors}
    assert all(t.name in text for t in reader.tensors)
    for key, field in reader.fields.items():
        if not key.startswith("GGUF."):
            assert key in report["metadata"] and key in text
            if isinstance(field.contents(), (int, str)):
                assert report["metadata"][key] == field.contents()


# -- tokenize ---------------------------------------------------------------------------------------------------------------------------


def split_by_merges(text):
    """Byte-pair encoding of one piece, by rank of the merges."""
    letters, ranks = make_model.byte_letters(), {pair: i for i, pair in enumerate(make_model.learn_merges(make_model.TEXT, 160))}
    parts = [letters[b] for b in text.encode()]
    while True:
        pairs = [(ranks[pair], i) for i, pair in enumerate(zip(parts, parts[1:])) if pair in ranks]
        if not pairs:
            return parts
        _, i = min(pairs)
        parts[i:i + 2] = [parts[i] + parts[i + 1]]


@pytest.mark.short
def test_tokenize_follows_the_merges(woolly, tiny):
    tokens = GGUFReader(tiny).fields["tokenizer.ggml.tokens"].contents()
    for pieces in (["The", " others", " close", " the", " gap"], ["It", "'s", " 1984", "!"], ["çà", " 🐑"], [" " * 3, " wool"]):
        expected = [tokens.index(part) for piece in pieces for part in split_by_merges(piece)]
        assert woolly.json("tokenize", "-m", tiny, "-p", "".join(pieces))["ids"] == expected


@pytest.mark.short
def test_tokenize_leaves_out_bos_and_special_tokens_when_told(woolly, own_models):
    model = own_models / "llama-f32.gguf"  # adds BOS (0)
    plain = woolly.json("tokenize", "-m", model, "-p", "sheep<|end|>", "--no-bos", "--no-special")["ids"]
    special = woolly.json("tokenize", "-m", model, "-p", "sheep<|end|>", "--no-bos")["ids"]
    assert special[-1] == 1 and 1 not in plain and len(plain) > len(special)
    assert woolly.json("tokenize", "-m", model, "-p", "sheep<|end|>")["ids"] == [0] + special


def test_tokenize_agrees_with_the_goldens(woolly, smollm2, shared):
    golden = json.loads((shared / f"goldens/tokens/{SMOLLM2.removesuffix('.gguf')}.json").read_text())
    for case in golden["cases"]:
        text = case["text"].encode()
        assert woolly.json("tokenize", "-m", smollm2, "--no-bos", stdin=text)["ids"] == case["ids"], case["text"]
        assert woolly.json("tokenize", "-m", smollm2, "--no-bos", "--no-special", stdin=text)["ids"] == case["ids_no_special"], case["text"]


@pytest.mark.parametrize("path", sorted(SHARED.glob("vocabs/ggml-vocab-*.gguf")), ids=lambda path: path.stem)
def test_tokenize_works_on_a_vocabulary_alone(woolly, path):
    result = woolly("tokenize", "-m", path, "-p", "Hello world", "--json")
    if result.code == 3 and "spm" in path.stem:
        pytest.skip(f"not supported yet: {result.err.strip()}")
    assert result.code == 0 and len(result.json["ids"]) >= 2, repr(result)


# -- the tree ----------------------------------------------------------------------------------------------------------------------------


def test_own_models_are_the_same_bytes_each_time(own_models, tmp_path):
    """So that a failure seen on one machine is seen on another."""
    make_model.write_model("granite-q4_k_m", tmp_path / "again.gguf")
    assert subprocess.run(["cmp", own_models / "granite-q4_k_m.gguf", tmp_path / "again.gguf"], check=False).returncode == 0
