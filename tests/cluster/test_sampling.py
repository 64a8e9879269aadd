"""Sampling over a whole cluster: what the flags say is what the last stage draws, however many stages there are."""
import json

import pytest
from gguf import GGUFReader

import make_model
from sampling_reference import expected, f32

PROMPT = "Three sheep walk over a hill. Three sheep walk over a"
SAMPLERS = {
    "temperature": ["--temp", 1.3, "--top-k", 0, "--top-p", 1, "--min-p", 0],
    "dynatemp": ["--dynatemp-range", 0.5, "--dynatemp-exp", 1.5],
    "top-k": ["--top-k", 5],
    "top-p": ["--top-k", 0, "--top-p", 0.7],
    "min-p": ["--top-k", 0, "--top-p", 1, "--min-p", 0.1],
    "typical": ["--typical", 0.5],
    "top-nsigma": ["--top-nsigma", 1.5],
    "xtc": ["--xtc-probability", 0.5, "--xtc-threshold", 0.1],
    "dry": ["--dry-multiplier", 0.8, "--dry-base", 2, "--dry-allowed-length", 1, "--dry-penalty-last-n", 20, "--dry-sequence-breaker", "."],
    "mirostat": ["--mirostat", 2, "--mirostat-ent", 4, "--mirostat-lr", 0.3],
    "penalties": ["--repeat-penalty", 1.3, "--repeat-last-n", 12, "--presence-penalty", 0.4, "--frequency-penalty", 0.3],
    "logit-bias": ["--logit-bias", "300=4", "--logit-bias", "301+2.5", "--logit-bias", "302-inf", "--logit-bias", "303=-inf", "--logit-bias", "304-1e1"],
}
CASES = {  # the same in the formulation's words; defaults are the command line's
    "temperature": {"temperature": 1.3, "top_k": 0, "top_p": 1, "min_p": 0},
    "dynatemp": {"dynatemp_range": 0.5, "dynatemp_exponent": 1.5},
    "top-k": {"top_k": 5},
    "top-p": {"top_k": 0, "top_p": 0.7},
    "min-p": {"top_k": 0, "top_p": 1, "min_p": 0.1},
    "typical": {"typical_p": 0.5},
    "top-nsigma": {"top_n_sigma": 1.5},
    "xtc": {"xtc_probability": 0.5, "xtc_threshold": 0.1},
    "dry": {"dry_multiplier": 0.8, "dry_base": 2, "dry_allowed_length": 1, "dry_last_n": 20},
    "mirostat": {"mirostat": 2, "mirostat_entropy": 4, "mirostat_rate": 0.3, "top_k": 0, "top_p": 1, "min_p": 0},
    "penalties": {"repeat_penalty": 1.3, "repeat_last_n": 12, "presence_penalty": 0.4, "frequency_penalty": 0.3},
    "logit-bias": {"biases": [[300, 4], [301, 2.5], [302, None], [303, None], [304, -10]]},
}
DEFAULTS = {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05}


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_draws_the_same_with_1_2_and_3_stages_and_speculation(woolly, smollm2, name):
    def answer(workers, speculation):
        return woolly.json("run", "-m", smollm2, "--raw", "-p", PROMPT, "-n", 32, "--ignore-eos", "--seed", 12, "--local", workers,
                           "--spec", speculation, *SAMPLERS[name])
    expected = answer(1, "off")["tokens"]
    guessed = answer(3, "ngram")
    assert answer(2, "off")["tokens"] == guessed["tokens"] == expected
    assert (guessed["speculation"]["drafted"] > 0) == (name != "mirostat")  # whose draws depend on one another


@pytest.mark.short
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_token_is_the_one_the_formula_gives_for_the_models_logits(woolly, tiny, name):
    """History, breakers, mu and position are those of the sequence as it grew."""
    answer = woolly.json("run", "-m", tiny, "--raw", "-p", PROMPT, "-n", 40, "--ignore-eos", "--seed", 7, "--local", 2, "--spec", "ngram",
                         *SAMPLERS[name])
    prompt = woolly.json("tokenize", "-m", tiny, "-p", PROMPT)["ids"]
    tokens = prompt + answer["tokens"]
    texts = GGUFReader(tiny).fields["tokenizer.ggml.tokens"].contents()
    case, logits = {**DEFAULTS, **CASES[name], "seed": 7}, woolly.logits(tiny, tokens)
    mu = 2 * f32(case.get("mirostat_entropy", 0))
    for position in range(len(prompt), len(tokens)):
        case["history"] = [[token, "." in texts[token]] for token in tokens[:position]]
        token, mu = expected(logits[position - 1], case, position, mu)
        assert tokens[position] == token, f"at position {position}"


@pytest.mark.short
def test_a_bias_forbids_or_forces_a_token(woolly, tiny):
    run = ["run", "-m", tiny, "--raw", "-p", PROMPT, "-n", 12, "--ignore-eos", "--temp", 0]
    first = woolly.json(*run)["tokens"]
    for form in (f"{first[0]}=-inf", f"{first[0]}-inf", f"{first[0]}-1000", f"{first[0]}=-1000"):
        assert first[0] not in woolly.json(*run, "--logit-bias", form)["tokens"]
    for form in ("17=100", "17+100", "17=1e2", "17+100.0"):
        assert woolly.json(*run, "--logit-bias", form)["tokens"] == [17] * 12
    assert woolly.json(*run, "--logit-bias", f"{first[0]}=0")["tokens"] == first


@pytest.mark.short
def test_the_end_token_ends_the_answer_unless_it_is_ignored_or_forbidden(woolly, tiny):
    run = ["run", "-m", tiny, "--raw", "-p", PROMPT, "-n", 6, "--temp", 0]
    ended = woolly.json(*run, "--logit-bias", "1=100")
    assert (ended["tokens"], ended["text"], ended["finish_reason"]) == ([1], "", "stop")
    ignored = woolly.json(*run, "--logit-bias", "1=100", "--ignore-eos")
    assert (ignored["tokens"], ignored["text"], ignored["finish_reason"]) == ([1] * 6, "", "length")
    forbidden = woolly.json(*run, "--logit-bias", "1=-inf", "--logit-bias", "9=100")
    assert (forbidden["tokens"], forbidden["finish_reason"]) == ([9] * 6, "length")


# -- stop strings --------------------------------------------------------------------------------------------------------------------------


def forced(woolly, model, text, n, *arguments):
    """The answer of a model made to say the bytes of `text` once, one token each."""
    tokens = GGUFReader(model).fields["tokenizer.ggml.tokens"].contents()
    letters = make_model.byte_letters()
    ids = [tokens.index(letters[byte]) for byte in text.encode()]
    assert len(set(ids)) == len(ids), "a token can have its turn once"
    biases = [part for i, token in enumerate(ids) for part in ("--logit-bias", f"{token}={900 - 20 * i}")]
    answer = woolly.json("run", "-m", model, "--raw", "-p", "?", "-n", n, "--temp", 0, "--presence-penalty", 100, "--frequency-penalty", 100, *biases, *arguments)
    assert answer["tokens"] == ids[:len(answer["tokens"])]
    return answer


@pytest.mark.short
@pytest.mark.parametrize("text,stop,shown", [
    ("abcde", "cd", "ab"), ("abcde", "e", "abcd"), ("abcde", "abcde", ""), ("abcde", "bd", "abcde"), ("abcde", "def", "abcde"),
    ("a🐑b", "🐑", "a"), ("a🐑b", "🐑b", "a"), ("ab🐑", "b🐑", "a"), ("é🐑", "é🐑", ""), ("🐑e", "é", "🐑e"), ("€x", "€x!", "€x"),
])
def test_a_stop_string_is_found_over_tokens_and_inside_characters(woolly, tiny, text, stop, shown):
    answer = forced(woolly, tiny, text, len(text.encode()), "--stop", "never", "--stop", stop)
    assert answer["text"] == shown
    assert answer["finish_reason"] == ("stop" if shown != text else "length")


@pytest.mark.short
def test_an_unfinished_character_at_the_end_is_shown_as_one(woolly, tiny):
    assert forced(woolly, tiny, "a🐑", 3)["text"] == "a\ufffd\ufffd"


# -- logprobs --------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.short
@pytest.mark.parametrize("n", [0, 1, 20])
def test_logprobs_are_those_that_score_gives(woolly, tiny, tmp_path, n):
    answer = woolly.json("run", "-m", tiny, "--raw", "-p", PROMPT, "-n", 16, "--ignore-eos", "--temp", 1.5, "--seed", 3, "--repeat-penalty", 1.5, "--logprobs", n)
    prompt = woolly.json("tokenize", "-m", tiny, "-p", PROMPT)["ids"]
    (tmp_path / "tokens.json").write_text(json.dumps(prompt + answer["tokens"]))
    positions = woolly.json("score", "-m", tiny, "--tokens", tmp_path / "tokens.json")["positions"][len(prompt) - 1:]
    assert len(answer["logprobs"]) == 16
    for token, entry, position in zip(answer["tokens"], answer["logprobs"], positions, strict=False):
        assert entry["id"] == token and entry["logprob"] == pytest.approx(-position["nll"], abs=1e-5)
        assert [[top["id"], pytest.approx(top["logprob"], abs=1e-5)] for top in entry["top"]] == position["top"][:n]
        assert isinstance(entry["text"], str)
    readable = woolly.json("run", "-m", tiny, "--raw", "-p", "?", "-n", 1, "--temp", 0, "--logit-bias", "17=100", "--logprobs", 1)
    assert readable["logprobs"][0]["text"] == readable["text"]


@pytest.mark.short
def test_without_logprobs_there_are_none(woolly, tiny):
    assert "logprobs" not in woolly.json("run", "-m", tiny, "-p", PROMPT, "-n", 2)


# -- flags -------------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag,arguments", [
    ("--typical", ["--typical", 1.5]), ("--typical", ["--typical", 0.5, "--temp", 0]), ("--top-nsigma", ["--top-nsigma", -1]),
    ("--dynatemp-range", ["--dynatemp-range", 0.9]), ("--dynatemp-exp", ["--dynatemp-exp", 2]),
    ("--dynatemp-exp", ["--dynatemp-range", 0.5, "--dynatemp-exp", 0]), ("--xtc-probability", ["--xtc-probability", 1.1]),
    ("--xtc-threshold", ["--xtc-threshold", 0.1]), ("--xtc-threshold", ["--xtc-probability", 1, "--xtc-threshold", 0.6]),
    ("--repeat-penalty", ["--repeat-penalty", -1]), ("--repeat-penalty", ["--repeat-penalty", "nan"]), ("--presence-penalty", ["--presence-penalty", 101]),
    ("--frequency-penalty", ["--frequency-penalty", "much"]), ("--repeat-last-n", ["--repeat-last-n", 64]),
    ("--repeat-last-n", ["--repeat-penalty", 1.1, "--repeat-last-n", 0]), ("--repeat-last-n", ["--repeat-penalty", 1.1, "--repeat-last-n", 9000]),
    ("--repeat-last-n", ["--repeat-penalty", 1.1, "--repeat-last-n", -1]), ("--dry-multiplier", ["--dry-multiplier", -0.1]),
    ("--dry-base", ["--dry-base", 2]), ("--dry-base", ["--dry-multiplier", 1, "--dry-base", 0.5]),
    ("--dry-allowed-length", ["--dry-multiplier", 1, "--dry-allowed-length", 0]), ("--dry-penalty-last-n", ["--dry-multiplier", 1, "--dry-penalty-last-n", 0]),
    ("--dry-sequence-breaker", ["--dry-sequence-breaker", ":"]), ("--dry-sequence-breaker", ["--dry-multiplier", 1, "--dry-sequence-breaker", ""]),
    ("--dry-sequence-breaker", ["--dry-multiplier", 1, "--dry-sequence-breaker", "no token says this"]),
    ("--mirostat", ["--mirostat", 1]), ("--mirostat", ["--mirostat", 2, "--temp", 0]), ("--mirostat-ent", ["--mirostat-ent", 5]),
    ("--mirostat-ent", ["--mirostat", 2, "--mirostat-ent", 0]), ("--mirostat-lr", ["--mirostat", 2, "--mirostat-lr", 2]),
    ("--top-k", ["--mirostat", 2, "--top-k", 40]), ("--top-p", ["--mirostat", 2, "--top-p", 0.9]), ("--min-p", ["--mirostat", 2, "--min-p", 0.1]),
    ("--typical", ["--mirostat", 2, "--typical", 0.5]), ("--top-nsigma", ["--mirostat", 2, "--top-nsigma", 1]),
    ("--xtc-probability", ["--mirostat", 2, "--xtc-probability", 1]),
    ("--logit-bias", ["--logit-bias", "5"]), ("--logit-bias", ["--logit-bias", "five=1"]), ("--logit-bias", ["--logit-bias", "5="]),
    ("--logit-bias", ["--logit-bias", "5=inf"]), ("--logit-bias", ["--logit-bias", "5+inf"]), ("--logit-bias", ["--logit-bias", "5=nan"]),
    ("--logit-bias", ["--logit-bias", "5=1001"]), ("--logit-bias", ["--logit-bias", "5=1x"]), ("--logit-bias", ["--logit-bias", "5=0x1"]),
    ("--logit-bias", ["--logit-bias", "5--1"]), ("--logit-bias", ["--logit-bias", "-5=1"]), ("--logit-bias", ["--logit-bias", "421=1"]),
    ("--logit-bias", ["--logit-bias", "99999999999999999999=1"]), ("--logit-bias", ["--logit-bias", "5=1", "--logit-bias", "5=2"]),
    ("--logprobs", ["--logprobs", 3]), ("--logprobs", ["--json", "--logprobs", 21]), ("--json-schema", ["--json-schema", "{}"]),
], ids=str)
def test_a_sampling_flag_that_makes_no_sense_is_refused_by_name(expect_error, tiny, flag, arguments):
    expect_error(2, flag, "run", "-m", tiny, "-p", "Hi", *arguments)


@pytest.mark.short
def test_a_sampler_that_is_off_may_keep_its_tunings(woolly, tiny):
    """So that a script can switch one off by one flag."""
    woolly.done("run", "-m", tiny, "-p", "Hi", "-n", 1, "--xtc-probability", 0, "--xtc-threshold", 0.1, "--mirostat", 0, "--mirostat-ent", 4,
                "--dry-multiplier", 0, "--dry-base", 2, "--repeat-penalty", 1, "--repeat-last-n", 9)


@pytest.mark.short
def test_many_stop_strings_and_biases_may_be_given(woolly, tiny):
    stops = [part for i in range(100) for part in ("--stop", f"never {i}")]
    biases = [part for token in range(100, 300) for part in ("--logit-bias", f"{token}=-inf")]
    tokens = woolly.json("run", "-m", tiny, "-p", "Hi", "-n", 8, "--temp", 1, "--seed", 2, "--ignore-eos", *stops, *biases)["tokens"]
    assert not set(tokens) & set(range(100, 300))
