"""Every architecture as its authors describe it, where test_reference.py and test_same_answer.py, which take all small models, do not look: that the
models can tell an architecture from its neighbours at all, long texts, and decoding."""
import numpy as np
import pytest

import make_model
from conftest import random_tokens
from reference import Reference, log_softmax, relative_error

# What is special about a model, and how the reference would read it if nothing were: tensors left out (by a part of their name), or metadata and
# fields of reference.Architecture in place of the model's own.
TRAITS = {
    "llama-factors-f16": ["rope_freqs"],
    "llama-yarn-f16": [{"rope.scaling.type": "none"}, {"rope.scaling.type": "linear"}, {"rope.scaling.yarn_beta_fast": 32.0},
                       {"rope.scaling.yarn_beta_slow": 1.0}, {"rope.scaling.attn_factor": 1.0}, {"yarn_rounds": False},
                       {"rope.scaling.original_context_length": 1024}],
    "llama-linear-f16": [{"rope.scaling.factor": 1.0}, {"halves": True}],
    "llama-old-linear-f16": [{"rope.scale_linear": 1.0}],
    "llama-bias-f16": ["attn_q.bias", "attn_k.bias", "attn_v.bias", "attn_output.bias", "ffn_gate.bias", "ffn_up.bias", "ffn_down.bias"],
    "mixtral-f16": [{"expert_used_count": 1}, {"expert_used_count": 3}],
    "granite-f16": [{"embedding_scale": 1.0}, {"residual_scale": 1.0}, {"attention.scale": 24 ** -0.5}, {"logit_scale": 1.0}, {"halves": True}],
    "granitemoe-f16": [{"expert_used_count": 2}, {"embedding_scale": 1.0}, {"residual_scale": 1.0}, {"attention.scale": 24 ** -0.5},
                       {"halves": True}],
    "granitemoe-shared-f16": [{"expert_used_count": 3}, "shexp"],
    "qwen2-f16": ["attn_q.bias", "attn_k.bias", "attn_v.bias", {"halves": False}],
    "qwen3-f16": ["attn_q_norm", "attn_k_norm"],
    "qwen3moe-f16": [{"expert_used_count": 3}, "attn_q_norm", "attn_k_norm", {"halves": False}],
    "gemma2-f16": [{"attn_logit_softcapping": 0.0}, {"final_logit_softcapping": 0.0}, {"attention.sliding_window": 25},
                   {"attention.sliding_window": 0}, {"period": 3}, {"all_windowed": True}, {"embedding_by_root": False}, {"activation": "silu"},
                   "post_attention_norm", "post_ffw_norm"],
    "gemma2-27b-f16": [{"wide_layers": 0}],
    "gemma3-f16": [{"attention.sliding_window": 25}, {"period": 5}, {"local_base": 0.0}, {"activation": "silu"}],
    "gemma3-linear-f16": [{"rope.scaling.factor": 1.0}, {"local_scaled": True}],
    "gemma3-period-f16": [{"attention.sliding_window_pattern": 6}, {"rope.freq_base_swa": 10000.0}],
    "phi3-f16": [{"attention.sliding_window": 0}, {"attention.sliding_window": 25}, {"halves": False}],
    "phi3-longrope-f16": ["rope_factors_long", {"rope.scaling.original_context_length": 1024}, {"rope.scaling.attn_factor": 1.0}],
    "smollm3-f16": [{"still_period": 0}, {"still_period": 3}, {"halves": True}],
    "olmo2-f16": ["attn_q_norm", "attn_k_norm", "post_attention_norm", "post_ffw_norm", {"halves": False}],
    "olmo3-f16": [{"attention.sliding_window": 0}, {"attention.sliding_window": 25}, {"rope.scaling.type": "none"}, {"local_scaled": True},
                  {"rope.scaling.yarn_attn_factor": 1.0}],
    "starcoder2-f16": [{"layer_norm": False, "attention.layer_norm_rms_epsilon": 1e-5}, {"activation": "silu"}, "attn_norm.bias", "ffn_norm.bias",
                       "output_norm.bias", "attn_q.bias", "attn_k.bias", "attn_v.bias", "attn_output.bias", "ffn_up.bias", "ffn_down.bias"],
    "command-r-f16": [{"layer_norm": False, "attention.layer_norm_rms_epsilon": 1e-5}, {"logit_scale_divides": True}, {"halves": True}],
    "command-r-plus-f16": ["attn_q_norm", "attn_k_norm"],
    "cohere2-f16": [{"attention.sliding_window": 0}, {"attention.sliding_window": 25}, {"global_turns": True}, {"period": 3}],
    "glm4-f16": [{"rope.dimension_count": 24}, {"halves": True}, "attn_q.bias", "attn_k.bias", "attn_v.bias", "post_attention_norm", "post_ffw_norm"],
    "gpt-oss-f16": ["attn_sinks", {"activation": "silu"}, {"yarn_rounds": True}, {"rope.scaling.type": "none"}, {"attention.sliding_window": 0},
                    {"attention.sliding_window": 25}, {"period": 3}, {"local_scaled": False}, {"expert_used_count": 3}, "attn_q.bias", "attn_k.bias",
                    "attn_v.bias", "attn_output.bias", "ffn_gate_inp.bias", "ffn_gate_exps.bias", "ffn_up_exps.bias", "ffn_down_exps.bias"],
}
# One of each kind of window, and no window
LONG = ("llama-f16", "phi3-f16", "gemma2-f16", "gemma3-period-f16", "cohere2-f16", "olmo3-f16", "gpt-oss-f16")


@pytest.mark.parametrize("name", TRAITS)
def test_a_model_shows_what_it_was_made_for(own_models, name):
    """A reference that lacks a trait errs far more than the engine may, so an engine that lacks it fails."""
    path, tokens = own_models / f"{name}.gguf", random_tokens(name, 90)
    exact = Reference(path).logits(tokens)
    for trait in TRAITS[name]:
        other = Reference(path, changes=trait if isinstance(trait, dict) else None)
        if isinstance(trait, str):
            other.tensors = {tensor: value for tensor, value in other.tensors.items() if trait not in tensor}
            assert len(other.tensors) < len(Reference(path).tensors)
        assert relative_error(other.logits(tokens), exact) > 0.05, trait


@pytest.mark.parametrize("name", LONG)
def test_a_text_of_several_chunks_and_many_windows_is_right_at_every_position(woolly, own_models, exact_logits, name):
    tokens, path = random_tokens(name, 300), own_models / f"{name}.gguf"
    expected = exact_logits(path, tokens, as_woolly=True)
    logits = woolly.logits(path, tokens, "--local", 2)
    errors = np.linalg.norm(logits - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert (errors < 0.01).all(), np.flatnonzero(errors >= 0.01)


def test_long_contexts_turn_by_divisors_of_their_own(woolly, own_models):
    """Which are those of the context that is allotted, so that a text that grows does not change what it said."""
    path, tokens = own_models / "phi3-longrope-f16.gguf", random_tokens("short", 40)
    reference = Reference(path, as_woolly=True)
    short, long = reference.logits(tokens), reference.logits(tokens, context=65)
    assert relative_error(short, long) > 0.1
    assert relative_error(woolly.logits(path, tokens), short) < 1e-3
    assert relative_error(woolly.logits(path, tokens, "--ctx", 64), short) < 1e-3
    assert relative_error(woolly.logits(path, tokens, "--ctx", 65), long) < 1e-3


YARN = {"rope.scaling.type": "yarn", "rope.scaling.attn_factor": 1.0, "rope.scaling.original_context_length": 1024}


@pytest.mark.parametrize("name,flags,changes,count", [
    ("llama-f16", ["yarn", "--ctx", 1280], {**YARN, "rope.scaling.factor": 1.25}, 1250),  # beyond the model's own context of 1024
    ("gemma3-f16", ["yarn", "--rope-factor", 8], {**YARN, "rope.scaling.factor": 8.0}, 90),  # windowed layers are not scaled
    ("llama-yarn-f16", ["yarn", "--ctx", 2048], {**YARN, "rope.scaling.factor": 8.0, "rope.scaling.original_context_length": 256}, 90),
    ("olmo3-f16", ["yarn", "--ctx", 2048], {**YARN, "rope.scaling.factor": 8.0, "rope.scaling.original_context_length": 256,
                                            "rope.scaling.yarn_attn_factor": 0.1 * np.log(8) + 1}, 90),
    ("llama-yarn-f16", ["none"], {"rope.scaling.type": "none", "rope.scaling.attn_factor": 1.0}, 90),
    ("qwen2-f16", ["linear", "--ctx", 4096], {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}, 90),
    ("llama-linear-f16", ["linear", "--ctx", 2048], {"rope.scaling.factor": 2048 / 410}, 90),  # 1024 is what 2.5 times 410 gave
], ids=lambda value: "-".join(map(str, value)) if isinstance(value, list) else None)
def test_scaling_by_flags_is_that_of_a_file_that_declares_it(woolly, own_models, name, flags, changes, count):
    path, tokens = own_models / f"{name}.gguf", random_tokens(name, count)
    logits = woolly.logits(path, tokens, "--rope-scaling", *flags)
    assert relative_error(logits, Reference(path, as_woolly=True, changes=changes).logits(tokens)) < 1e-3
    assert relative_error(logits[:90], woolly.logits(path, tokens[:90])) > 0.02, "though the model's own is another"
    if count > 1024:
        for arguments in (["--local", 2, "--chunk", 50], ["--local", 4, "--threads", 1]):
            again = woolly.logits(path, tokens, "--rope-scaling", *flags, *arguments)
            assert np.array_equal(again.view(np.uint32), logits.view(np.uint32)), f"{arguments} changes the logits"


def test_a_context_beyond_the_models_own_is_refused_unless_it_is_scaled(own_models, expect_error):
    def refused(needle, *flags, command="run", name="llama-f16"):
        prompt = ["-p", "x"] if command == "run" else []
        result = expect_error(2, needle, command, "-m", own_models / f"{name}.gguf", *prompt, *flags)
        assert "--" in result.err

    for command in ("run", "plan"):
        refused("more than the 1024 positions", "--ctx", 1025, command=command)
        refused("--rope-scaling yarn", "--ctx", 1025, command=command)
    refused("more than the 256 positions", "--ctx", 1024, "--rope-scaling", "none", name="llama-yarn-f16")
    refused("by how much", "--rope-scaling", "yarn")
    refused("within the original context of 1024", "--rope-scaling", "yarn", "--ctx", 1024)
    refused("raise the factor", "--rope-scaling", "yarn", "--ctx", 2049, "--rope-factor", 2)
    refused("more than 1", "--rope-scaling", "yarn", "--rope-factor", 0.5)
    refused("needs --rope-scaling", "--rope-factor", 2)
    refused("none, linear or yarn", "--rope-scaling", "ntk", "--ctx", 2048)
    refused("LongRoPE", "--rope-scaling", "yarn", "--ctx", 2048, name="phi3-longrope-f16")


@pytest.mark.parametrize("name", make_model.MODELS)
def test_decoding_past_the_window_finds_what_prefill_scores(woolly, own_models, name):
    """One token at a time and many at once go through different shapes of the same kernels. The tokens are drawn from nearly flat distributions, as
    these models, left to themselves, soon repeat one token, which any mistake repeats too."""
    model, prompt = own_models / f"{name}.gguf", "Three sheep walk over a hill."
    run = woolly.json("run", "-m", model, "--raw", "-p", prompt, "-n", 48, "--temp", 9, "--top-k", 0, "--top-p", 1, "--min-p", 0, "--seed", 1,
                      "--ignore-eos", "--local", 2, "--spec", "off", "--logprobs", 1)
    ids = woolly.json("tokenize", "-m", model, "-p", prompt)["ids"]
    scores = log_softmax(woolly.logits(model, ids + run["tokens"]))[len(ids) - 1:-1]
    assert len(set(run["tokens"])) > 24 and len(scores) == 48
    for row, token, step in zip(scores, run["tokens"], run["logprobs"]):
        assert step["id"] == token and abs(step["logprob"] - row[token]) < 1e-4
