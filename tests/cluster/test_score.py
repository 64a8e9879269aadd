"""`woolly score` in windows: perplexity of texts longer than the context, against a numpy reading of the logits of each window."""
import json

import numpy as np
import pytest

from conftest import random_tokens

TEXT = "Three sheep walk over a hill. The first one says that the gap is close, and the others follow it through the night. " * 6


def nll_of(logits, tokens):
    """Nats of each token after the first, by plain numpy."""
    l = logits.astype(np.float64)
    peaks = l.max(1)
    return (np.log(np.exp(l - peaks[:, None]).sum(1)) + peaks)[:-1] - l[np.arange(len(tokens) - 1), tokens[1:]]


def windowed(woolly, model, tokens, ctx, stride, bos):
    """By the definition: begins every `stride` tokens; of each window the tokens that none before has counted."""
    text = tokens[1:] if bos is not None else tokens
    room, counted, done, begin = ctx - (bos is not None), [], 0, 0
    while True:
        end = min(begin + room, len(text))
        window = ([bos] if bos is not None else []) + text[begin:end]
        nll = nll_of(woolly.logits(model, window), window)  # of window[1:]
        new = end - done
        counted += nll[-new:].tolist() if new < len(window) else nll.tolist()
        done, begin = end, begin + stride
        if end == len(text):
            return counted


@pytest.mark.parametrize("name,bos", [("llama-q4_0", None), ("llama-f32", 0)], ids=["no BOS", "BOS"])
@pytest.mark.parametrize("ctx,stride", [(64, 32), (64, 63), (40, 1), (97, 30), (2, 1)], ids=str)
def test_windows_count_what_the_definition_says(woolly, own_models, tmp_path, name, bos, ctx, stride):
    model = own_models / f"{name}.gguf"
    text = TEXT if stride > 1 else TEXT[:90 if ctx > 2 else 30]  # each window is a process here
    (tmp_path / "text").write_text(text)
    tokens = woolly.json("tokenize", "-m", model, "-p", text)["ids"]
    assert (tokens[0] == 0) == (bos is not None)
    report = woolly.json("score", "-m", model, "-f", tmp_path / "text", "--ctx", ctx, "--stride", stride, "--top", 2, "--local", 2)
    counted = windowed(woolly, model, tokens, ctx, stride, bos)
    assert report["tokens"] == tokens and report["counted"] == len(counted) == len(tokens) - 1
    assert [p["nll"] for p in report["positions"]] == [pytest.approx(nll, abs=1e-6) for nll in counted] + [None]
    assert report["mean_nll"] == pytest.approx(np.mean(counted), rel=1e-8)
    assert report["perplexity"] == pytest.approx(np.exp(np.mean(counted)), rel=1e-8)
    error = np.std(counted, ddof=1) / np.sqrt(len(counted)) * np.exp(np.mean(counted))
    assert report["perplexity_error"] == pytest.approx(error, rel=1e-6)


@pytest.mark.short
def test_text_that_fits_one_window_is_scored_as_without(woolly, tiny, tmp_path):
    (tmp_path / "text").write_text("Three sheep walk over a hill.")
    plain = woolly.json("score", "-m", tiny, "-f", tmp_path / "text")
    assert plain["windows"] == 1
    for ctx in (len(plain["tokens"]), 512):
        assert woolly.json("score", "-m", tiny, "-f", tmp_path / "text", "--ctx", ctx, "--stride", 3) == plain


@pytest.mark.short
def test_the_result_is_the_same_for_any_number_of_stages_and_of_tokens_or_text(woolly, tiny, tmp_path):
    (tmp_path / "text").write_text(TEXT)
    (tmp_path / "tokens.json").write_text(json.dumps(woolly.json("tokenize", "-m", tiny, "-p", TEXT)["ids"]))
    windows = ["--ctx", 64, "--stride", 16]
    one = woolly.json("score", "-m", tiny, "-f", tmp_path / "text", *windows, "--threads", 1)
    assert woolly.json("score", "-m", tiny, "-f", tmp_path / "text", *windows, "--local", 3) == one
    assert woolly.json("score", "-m", tiny, "--tokens", tmp_path / "tokens.json", *windows) == one


@pytest.mark.short
def test_logits_of_windows_are_written_a_row_a_token(woolly, tiny, tmp_path):
    tokens = random_tokens(5, 150)
    (tmp_path / "tokens.json").write_text(json.dumps(tokens))
    report = woolly.json("score", "-m", tiny, "--tokens", tmp_path / "tokens.json", "--ctx", 50, "--stride", 20, "--logits", tmp_path / "logits")
    logits = np.fromfile(tmp_path / "logits", "<f4").reshape(len(tokens), -1)
    assert nll_of(logits, tokens) == pytest.approx([p["nll"] for p in report["positions"][:-1]], abs=1e-6)


def test_the_figures_are_printed_for_people(woolly, tiny, tmp_path):
    (tmp_path / "text").write_text(TEXT)
    report = woolly.json("score", "-m", tiny, "-f", tmp_path / "text", "--ctx", 64, "--stride", 32)
    out = woolly.done("score", "-m", tiny, "-f", tmp_path / "text", "--ctx", 64, "--stride", 32).out.decode()
    assert f"counted     {report['counted']}\n" in out and f"windows     {report['windows']} of 64 positions, stride 32\n" in out
    assert f"perplexity  {report['perplexity']:.4f} +- {report['perplexity_error']:.4f}\n" in out


@pytest.mark.parametrize("code,needle,arguments", [
    (2, "--stride 0", ["--ctx", 64, "--stride", 0]), (2, "--stride 64", ["--ctx", 64, "--stride", 64]), (2, "--ctx", ["--stride", 8]),
    (2, "--ctx 5000", ["--ctx", 5000, "--stride", 8]), (3, "--stride", ["--ctx", 64]),
], ids=str)
def test_windows_that_make_no_sense_are_refused(expect_error, tiny, tmp_path, code, needle, arguments):
    (tmp_path / "text").write_text(TEXT)
    expect_error(code, needle, "score", "-m", tiny, "-f", tmp_path / "text", *arguments)


def test_smollm2_is_less_perplexed_by_prose_than_by_its_reverse(woolly, smollm2, tmp_path):
    (tmp_path / "prose").write_text(TEXT)
    (tmp_path / "reverse").write_text(TEXT[::-1])
    forward, backward = (woolly.json("score", "-m", smollm2, "-f", tmp_path / name, "--ctx", 64, "--stride", 32, "--top", 0) for name in ("prose", "reverse"))
    assert 1 < forward["perplexity"] < backward["perplexity"]
