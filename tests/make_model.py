#!/usr/bin/env python3
"""Writes the small models that the tests run: real architectures with random weights, 4 to 64 layers, 1 to 5 MB.

    make_model.py NAME OUT.gguf       one of them
    make_model.py --all FOLDER        all, as FOLDER/NAME.gguf
    make_model.py --list

They carry a byte-level BPE vocabulary of their own and a chat template, so that every command works on them. The same
name gives the same bytes. Each is chosen for something that can go wrong: see MODELS. What an architecture's files hold beside what
Llama's do stands in PARTS; what it means stands in reference.py.

The quantizers of K-quants and codebook types are not needed: any bytes are valid blocks, so their weights are random bytes under
scales that give the wanted spread.
"""
import collections
import os
import sys
import zlib
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFWriter, TokenType
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import dequantize, quantize

WINDOW = 24
QKV, QKVO = ("attn_q", "attn_k", "attn_v"), ("attn_q", "attn_k", "attn_v", "attn_output")
AFTER = ("post_attention_norm", "post_ffw_norm")
# What the files of each architecture hold. norms: before attention and feed-forward; after: on what they give; bias: tensors that have one;
# qk_norm: weights for one head that all share, for each head, or for the whole row; ffn: gated, fused (one matrix: gate, then up) or plain.
PARTS = {
    "llama": {},
    "granite": {"meta": {"embedding_scale": 2.0, "residual_scale": 0.6, "attention.scale": 1 / 9, "logit_scale": 4.0}},
    "granitemoe": {"meta": {"embedding_scale": 2.0, "residual_scale": 0.6, "attention.scale": 1 / 9, "logit_scale": 4.0}},
    "qwen2": {"bias": QKV},
    "qwen3": {"qk_norm": "head"},
    "qwen3moe": {"qk_norm": "head"},
    "gemma2": {"after": AFTER, "meta": {"attention.sliding_window": WINDOW, "attn_logit_softcapping": 4.0, "final_logit_softcapping": 6.0}},
    "gemma3": {"after": AFTER, "qk_norm": "head", "meta": {"attention.sliding_window": WINDOW}},
    "phi3": {"qkv": "fused", "ffn": "fused"},
    "smollm3": {},
    "olmo2": {"norms": (), "after": AFTER, "qk_norm": "row"},
    "starcoder2": {"eps": "layer_norm", "norm_bias": True, "ffn": "plain", "bias": (*QKVO, "ffn_up", "ffn_down")},
    "command-r": {"eps": "layer_norm", "norms": ("attn_norm",), "meta": {"logit_scale": 0.25, "rope.scaling.type": "none"}},
    "cohere2": {"eps": "layer_norm", "norms": ("attn_norm",),
                "meta": {"logit_scale": 0.25, "rope.scaling.type": "none", "attention.sliding_window": WINDOW}},
    "glm4": {"after": AFTER, "ffn": "fused"},
    "gpt-oss": {"norms": ("attn_norm", "post_attention_norm"), "sinks": True, "reach": 3,
                "bias": (*QKVO, "ffn_gate_inp", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"),
                "meta": {"attention.sliding_window": WINDOW, "rope.scaling.type": "yarn", "rope.scaling.factor": 8.0,
                         "rope.scaling.original_context_length": 200, "rope.scaling.yarn_beta_fast": 8.0, "rope.scaling.yarn_beta_slow": 1.0}},
}


def row(arch, width, heads, kv_heads, head_dim, ff, types=Type.F16, **more):
    """width: d_model; heads * head_dim need not equal it. types: of the matrices, or with exceptions by name. more: parts that it has beside
    its architecture's (as in PARTS), and `layers`; `tied` to the embedding; `bos`; `rotary`: elements of a head that turn;
    `experts`: (how many, how many are used, width of each, width of one shared by all or 0); `factors`: tensors of divisors of RoPE's frequencies."""
    return {"arch": arch, "width": width, "heads": heads, "kv_heads": kv_heads, "head_dim": head_dim, "ff": ff,
            "types": types if isinstance(types, dict) else {"": types}, **PARTS[arch], **more,
            "meta": {**PARTS[arch].get("meta", {}), **more.get("meta", {})}}


YARN = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 256}
MODELS = {
    # no dimension but the head's is a multiple of 8; the head is tied to the embedding; BOS is added
    "llama-f32": row("llama", 84, 5, 1, 24, 205, Type.F32, tied=True, bos=True),
    "llama-f16": row("llama", 84, 5, 1, 24, 205),
    # rows of 160 and 416: whole blocks of 32, not of 256
    "llama-q8_0": row("llama", 160, 5, 5, 32, 416, Type.Q8_0, tied=True),
    "llama-q4_0": row("llama", 160, 5, 5, 32, 416, Type.Q4_0),
    "llama-q4_1": row("llama", 160, 5, 5, 32, 416, Type.Q4_1),
    "llama-q4_k": row("llama", 256, 4, 2, 64, 768, Type.Q4_K),
    "llama-q6_k": row("llama", 256, 4, 2, 64, 768, Type.Q6_K, tied=True),
    # Llama 3's long context: a divisor for each frequency; YaRN with ramps of its own; positions divided
    "llama-factors-f16": row("llama", 84, 6, 2, 24, 130, factors=("rope_freqs",)),
    "llama-yarn-f16": row("llama", 84, 5, 1, 24, 130, meta={**YARN, "rope.scaling.yarn_beta_fast": 4.0, "rope.scaling.yarn_beta_slow": 2.0,
                                                            "rope.scaling.attn_factor": 1.25}),
    "llama-linear-f16": row("llama", 72, 3, 3, 24, 130, meta={"rope.scaling.factor": 2.5}),  # which is linear if nothing else is said
    "llama-old-linear-f16": row("llama", 72, 3, 3, 24, 130, meta={"rope.scale_linear": 2.5}),
    "llama-bias-f16": row("llama", 84, 5, 1, 24, 130, bias=(*QKVO, "ffn_gate", "ffn_up", "ffn_down")),
    # Mixtral; the router stays in float32 as in real files
    "mixtral-f16": row("llama", 84, 5, 1, 24, 0, experts=(5, 2, 70, 0)),
    "mixtral-q8_0": row("llama", 96, 3, 1, 32, 0, Type.Q8_0, experts=(6, 2, 160, 0)),
    # the mix that Q4_K_M files have, under Granite's four scales
    "granite-q4_k_m": row("granite", 256, 4, 1, 64, 512, {"": Type.Q4_K, "attn_v": Type.Q6_K, "ffn_down": Type.Q6_K, "output": Type.Q6_K,
                                                          "token_embd": Type.Q4_K}),
    "granite-q8_0": row("granite", 128, 4, 2, 32, 384, Type.Q8_0, tied=True),
    "granite-f16": row("granite", 92, 6, 2, 24, 150),
    "granitemoe-f16": row("granitemoe", 84, 6, 3, 24, 0, tied=True, experts=(7, 3, 45, 0)),
    "granitemoe-shared-f16": row("granitemoe", 84, 6, 3, 24, 0, experts=(5, 2, 45, 77)),
    "granitemoe-shared-q8_0": row("granitemoe", 96, 3, 1, 32, 0, Type.Q8_0, tied=True, experts=(8, 3, 64, 128)),
    "qwen2-q8_0": row("qwen2", 128, 4, 2, 32, 384, Type.Q8_0, tied=True),
    "qwen2-f16": row("qwen2", 96, 6, 1, 16, 150),
    # heads wider than the model
    "qwen3-f16": row("qwen3", 96, 4, 2, 40, 256),
    "qwen3moe-f16": row("qwen3moe", 84, 4, 2, 40, 100, experts=(9, 4, 38, 0)),
    "qwen3moe-q4_k": row("qwen3moe", 256, 4, 1, 64, 512, {"": Type.Q4_K, "ffn_down_exps": Type.Q6_K}, experts=(5, 2, 256, 0)),
    # a window of 24 positions in every other layer; the 27B is known by its 46 layers and divides attention's scores otherwise
    "gemma2-f16": row("gemma2", 84, 4, 2, 24, 130, tied=True, bos=True),
    "gemma2-27b-f16": row("gemma2", 40, 2, 1, 32, 50, tied=True, bos=True, layers=46),
    # a window of 24 positions in five of six layers
    "gemma3-f16": row("gemma3", 96, 4, 1, 48, 160, tied=True, bos=True),
    "gemma3-q4_0": row("gemma3", 128, 4, 1, 64, 256, Type.Q4_0, tied=True, bos=True),
    # as from 4B on: RoPE of the global layers, and theirs alone, is scaled
    "gemma3-linear-f16": row("gemma3", 84, 4, 2, 24, 130, tied=True, bos=True, layers=7,
                             meta={"rope.scaling.type": "linear", "rope.scaling.factor": 8.0}),
    # a period, and a base of the windowed layers' RoPE, of its own
    "gemma3-period-f16": row("gemma3", 84, 4, 2, 24, 130, tied=True, bos=True,
                             meta={"attention.sliding_window_pattern": 3, "rope.freq_base_swa": 2000.0}),
    "phi3-f16": row("phi3", 96, 4, 2, 24, 130, meta={"attention.sliding_window": WINDOW}),
    # 3 of 4 elements of a head turn; other divisors for contexts of more than 64 positions
    "phi3-longrope-f16": row("phi3", 96, 3, 1, 32, 130, tied=True, rotary=24, factors=("rope_factors_short", "rope_factors_long"),
                             meta={"rope.scaling.original_context_length": 64, "rope.scaling.attn_factor": 1.25,
                                   "attention.sliding_window": 0}),
    "smollm3-f16": row("smollm3", 84, 6, 2, 24, 130, tied=True, layers=8),
    "olmo2-f16": row("olmo2", 96, 4, 4, 24, 130),
    # OLMo 3: a list of which layers have the window; the others, and they alone, have YaRN
    "olmo3-f16": row("olmo2", 96, 4, 2, 24, 130, layers=8,
                     meta={**YARN, "rope.scaling.yarn_attn_factor": 1.1386294, "rope.scaling.yarn_beta_fast": 32.0,
                           "rope.scaling.yarn_beta_slow": 1.0, "attention.sliding_window": WINDOW,
                           "attention.sliding_window_pattern": [True, True, True, False] * 2}),
    "starcoder2-f16": row("starcoder2", 96, 4, 1, 24, 210, tied=True),
    "starcoder2-q8_0": row("starcoder2", 96, 3, 1, 32, 224, Type.Q8_0),
    "command-r-f16": row("command-r", 96, 4, 4, 24, 130, tied=True),
    # Command R+ is known by its 64 layers: a norm of q and k with weights of each head's own
    "command-r-plus-f16": row("command-r", 48, 3, 1, 16, 60, tied=True, layers=64, qk_norm="heads"),
    "cohere2-f16": row("cohere2", 96, 4, 2, 24, 130, tied=True, layers=8),
    "glm4-f16": row("glm4", 84, 4, 2, 24, 130, rotary=12, bias=QKV),
    "glm4-q8_0": row("glm4", 96, 3, 1, 32, 160, Type.Q8_0, rotary=16),
    "gpt-oss-f16": row("gpt-oss", 84, 4, 2, 24, 40, experts=(5, 2, 40, 0)),
    "gpt-oss-q8_0": row("gpt-oss", 96, 4, 1, 32, 64, Type.Q8_0, experts=(6, 3, 64, 0)),
    # as its files are: experts in MXFP4
    "gpt-oss-mxfp4": row("gpt-oss", 96, 4, 2, 32, 64, {"": Type.Q8_0, "ffn_gate_exps": Type.MXFP4, "ffn_up_exps": Type.MXFP4,
                                                       "ffn_down_exps": Type.MXFP4}, experts=(6, 2, 64, 0)),
    # the types of few bits
    "llama-iq2_xxs": row("llama", 256, 4, 2, 64, 512, Type.IQ2_XXS),
    "llama-iq2_xs": row("llama", 256, 4, 2, 64, 512, Type.IQ2_XS, tied=True),
    "llama-iq2_s": row("llama", 256, 4, 2, 64, 512, Type.IQ2_S),
    "llama-iq3_xxs": row("llama", 256, 4, 2, 64, 512, Type.IQ3_XXS, tied=True),
    "llama-iq3_s": row("llama", 256, 4, 2, 64, 512, Type.IQ3_S),
    "llama-iq1_s": row("llama", 256, 4, 2, 64, 512, Type.IQ1_S, tied=True),
    "llama-iq1_m": row("llama", 256, 4, 2, 64, 512, Type.IQ1_M),
    "llama-tq1_0": row("llama", 256, 4, 2, 64, 512, Type.TQ1_0, tied=True),
    "llama-tq2_0": row("llama", 256, 4, 2, 64, 512, Type.TQ2_0),
    "llama-mxfp4": row("llama", 160, 5, 5, 32, 416, Type.MXFP4),
}
N_LAYERS = 6
CONTEXT = 1024
TEXT = """
The sheep walk in a line over the hill. One of them leads, the others follow, and none of them knows the whole way. What the
first one sees it passes on to the second, the second passes on to the third, and the last one says what lies ahead. A flock
that walks like this is as long as it has to be: where the path is narrow it gets longer, where the meadow is wide it gathers.
When a sheep is lost, the others close the gap and go on from where they were. They carry wool of 1, 2, 3 or 10 kilograms each, and
the farmer asks: who carries how much, and how fast does the line go? "As fast as the slowest of us," they say. It's the answer that
doesn't change, whether there are two of them or thirty. for (int i = 0; i < n; i++) sum += wool[i]; return sum / n;
"""
TEMPLATE = ("{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>\\n' }}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}")
SPECIAL = ["<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]


def byte_letters():
    """The letter that stands for each byte in a byte-level vocabulary: printable ones themselves, the others from U+0100 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters, next_letter = {}, 256
    for byte in range(256):
        letters[byte] = chr(byte if byte in printable else next_letter)
        next_letter += byte not in printable
    return letters


def learn_merges(text, count):
    """Byte-pair encoding: merge the most frequent pair of neighbours inside words, `count` times; ties go to the smaller pair."""
    letters = byte_letters()
    words = collections.Counter()
    for i, word in enumerate(text.split()):
        words[tuple(letters[b] for b in ((" " if i else "") + word).encode())] += 1
    merges = []
    for _ in range(count):
        pairs = collections.Counter()
        for word, times in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += times
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        merged = collections.Counter()
        for word, times in words.items():
            out, i = [], 0
            while i < len(word):
                if word[i:i + 2] == best:
                    out.append(word[i] + word[i + 1])
                    i += 2
                else:
                    out.append(word[i])
                    i += 1
            merged[tuple(out)] += times
        words = merged
    return merges


# Types whose blocks are random bytes, and where their d is (of Q4_K and Q5_K also dmin, next to it).
RANDOM_BLOCKS = {Type.Q4_K: 0, Type.Q5_K: 0, Type.Q6_K: 208, Type.IQ2_XXS: 0, Type.IQ2_XS: 0, Type.IQ2_S: 0, Type.IQ3_XXS: 0, Type.IQ3_S: 0,
                 Type.IQ1_S: 0, Type.IQ1_M: 48}


def random_matrix(rng, rows, columns, quantization, spread):
    """The bytes of a matrix as GGUF stores it: [rows, bytes a row] (or a float array), with a standard deviation of `spread`."""
    if quantization not in RANDOM_BLOCKS:
        values = rng.standard_normal((rows, columns))
        if quantization in (Type.TQ1_0, Type.TQ2_0):  # as these are meant: -1, 0 and 1 alike
            values = np.clip(np.rint(values), -1, 1) * 1.27
        values = (values * spread).astype(np.float32)
        return values if quantization == Type.F32 else quantize(values, quantization)
    elements, size = GGML_QUANT_SIZES[quantization]
    blocks = rng.integers(0, 256, (rows, columns // elements, size), dtype=np.uint8)
    factors = rng.uniform(0.5, 1.5, blocks.shape[:2])

    def set_factor(at, values):
        halves = values.astype("<f2")
        if quantization == Type.IQ1_M:  # 4 bits each at the top of four numbers
            words = blocks[..., at:at + 8].copy().view("<u2")
            bits = halves.view("<u2")[..., None] >> np.array([0, 4, 8, 12], dtype="<u2")
            blocks[..., at:at + 8] = ((words & 0x0fff) | (bits << 12)).astype("<u2").view(np.uint8)
        else:
            blocks[..., at:at + 2] = halves.view(np.uint8).reshape(*blocks.shape[:2], 2)

    def set_factors(unit):
        set_factor(RANDOM_BLOCKS[quantization], factors * unit)
        if quantization in (Type.Q4_K, Type.Q5_K):  # the mean of q is 7.5 or 15.5, and dmin takes it back
            set_factor(2, factors * unit * (7.5 if quantization == Type.Q4_K else 15.5))

    set_factors(2.0 ** -7)
    unit = 2.0 ** -7 * spread / dequantize(blocks.reshape(rows, -1), quantization).std()
    set_factors(unit)
    return blocks.reshape(rows, -1)


def add_vocabulary(writer, bos):
    letters = byte_letters()
    merges = learn_merges(TEXT, 160)
    tokens = SPECIAL + [letters[b] for b in range(256)] + [a + b for a, b in merges]
    types = [TokenType.CONTROL] * len(SPECIAL) + [TokenType.NORMAL] * (len(tokens) - len(SPECIAL))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([f"{a} {b}" for a, b in merges])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_add_bos_token(bos)
    writer.add_chat_template(TEMPLATE)
    return len(tokens)


def add_value(writer, key, value):
    if isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, list):
        writer.add_array(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    else:
        writer.add_uint32(key, value)


def add_metadata(writer, spec):
    heads, kv_heads, head_dim = spec["heads"], spec["kv_heads"], spec["head_dim"]
    count, used, expert_ff, shared_ff = spec.get("experts", (0, 0, 0, 0))
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(spec["width"])
    writer.add_block_count(spec.get("layers", N_LAYERS))
    writer.add_feed_forward_length(spec["ff"] or expert_ff)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    # Keys that a file of this architecture leaves out where they say nothing new.
    if heads * head_dim != spec["width"]:
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    if "rotary" in spec or spec["arch"] in ("llama", "granite", "granitemoe", "phi3", "cohere2"):
        writer.add_rope_dimension_count(spec.get("rotary", head_dim))
    writer.add_rope_freq_base(50000.0)
    if spec.get("eps") == "layer_norm":
        writer.add_layer_norm_eps(1e-5)
    else:
        writer.add_layer_norm_rms_eps(1e-5)
    if count:
        writer.add_expert_count(count)
        writer.add_expert_used_count(used)
    if count and spec["ff"]:
        writer.add_expert_feed_forward_length(expert_ff)
    if shared_ff:
        writer.add_expert_shared_feed_forward_length(shared_ff)
    for key, value in spec["meta"].items():
        add_value(writer, f"{spec['arch']}.{key}", value)


class TensorWriter:
    """Random tensors of the wanted kinds, in the order in which they are asked for."""

    def __init__(self, writer, spec, seed):
        self.writer, self.spec, self.rng = writer, spec, np.random.default_rng(seed)

    def vector(self, tensor, shape, mean, spread):
        self.writer.add_tensor(tensor, (mean + spread * self.rng.standard_normal(shape)).astype(np.float32))

    def matrix(self, tensor, rows, columns, spread, experts=0):
        """`tensor`.weight, and its bias if the model has it."""
        kind, types = tensor.split(".")[-1], self.spec["types"]
        quantization = Type.F32 if kind == "ffn_gate_inp" else types.get(kind, types[""])
        values = random_matrix(self.rng, (experts or 1) * rows, columns, quantization, spread)
        self.writer.add_tensor(tensor + ".weight", values.reshape(experts, rows, -1) if experts else values, raw_dtype=quantization)
        if kind in self.spec.get("bias", ()):
            self.vector(tensor + ".bias", (experts, rows) if experts else rows, 0, 0.3)

    def norm(self, tensor, width):
        self.vector(tensor + ".weight", width, 1, 0.1)
        if self.spec.get("norm_bias"):
            self.vector(tensor + ".bias", width, 0, 0.2)

    def attention(self, p):
        spec = self.spec
        width, head_dim, counts = spec["width"], spec["head_dim"], (spec["heads"], spec["kv_heads"], spec["kv_heads"])
        if spec.get("qkv") == "fused":
            self.matrix(p + "attn_qkv", sum(counts) * head_dim, width, 1.5 * width ** -0.5)
        else:
            for kind, n in zip(QKV, counts):
                self.matrix(p + kind, n * head_dim, width, 1.5 * width ** -0.5)
        for kind, n in zip(QKV[:2], counts):
            if spec.get("qk_norm"):
                shape = {"head": head_dim, "heads": (n, head_dim), "row": n * head_dim}[spec["qk_norm"]]
                self.vector(p + kind + "_norm.weight", shape, 1.5, 0.1)
        self.matrix(p + "attn_output", width, counts[0] * head_dim, (counts[0] * head_dim) ** -0.5)
        if spec.get("sinks"):
            self.vector(p + "attn_sinks.weight", counts[0], 1, 1)

    def feed_forward(self, p, ff, suffix="", experts=0):
        """suffix: _exps or _shexp."""
        width, kind = self.spec["width"], self.spec.get("ffn", "gated")
        reach = self.spec.get("reach", 1)
        if kind == "gated":
            self.matrix(p + "ffn_gate" + suffix, ff, width, reach * width ** -0.5, experts)
        self.matrix(p + "ffn_up" + suffix, 2 * ff if kind == "fused" else ff, width, reach * width ** -0.5, experts)
        self.matrix(p + "ffn_down" + suffix, width, ff, 2 * ff ** -0.5 / reach, experts)

    def layer(self, p):
        width = self.spec["width"]
        norms = self.spec.get("norms", ("attn_norm", "ffn_norm"))
        for norm in norms[:1]:
            self.norm(p + norm, width)
        self.attention(p)
        for norm in norms[1:]:
            self.norm(p + norm, width)
        if "experts" in self.spec:
            count, _, ff, shared_ff = self.spec["experts"]
            self.matrix(p + "ffn_gate_inp", count, width, 2 * width ** -0.5)
            self.feed_forward(p, ff, "_exps", count)
            if shared_ff:
                self.feed_forward(p, shared_ff, "_shexp")
        else:
            self.feed_forward(p, self.spec["ff"])
        for norm in self.spec.get("after", ()):
            self.norm(p + norm, width)


def write_model(name, path, types=None):
    """types: in place of the model's own."""
    spec = {**MODELS[name], "types": types} if types else MODELS[name]
    writer = GGUFWriter(path, spec["arch"])
    writer.add_name(f"test {name}")
    add_metadata(writer, spec)
    n_vocab = add_vocabulary(writer, spec.get("bos", False))
    tensors = TensorWriter(writer, spec, zlib.crc32(name.encode()))
    tensors.matrix("token_embd", n_vocab, spec["width"], 0.3)
    for i in range(spec.get("layers", N_LAYERS)):
        tensors.layer(f"blk.{i}.")
    tensors.norm("output_norm", spec["width"])
    if not spec.get("tied"):
        tensors.matrix("output", n_vocab, spec["width"], 3 * spec["width"] ** -0.5)
    for kind in spec.get("factors", ()):
        writer.add_tensor(kind + ".weight", tensors.rng.uniform(1, 6, spec.get("rotary", spec["head_dim"]) // 2).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make(name, folder):
    """The model's path in `folder`, written first if it is not there; whoever else writes it at the same time writes the same."""
    path = Path(folder) / f"{name}.gguf"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}")
        write_model(name, part)
        part.rename(path)
    return path


def main(arguments):
    if arguments == ["--list"]:
        print("\n".join(MODELS))
    elif len(arguments) == 2 and arguments[0] == "--all":
        for name in MODELS:
            print(make(name, arguments[1]))
    elif len(arguments) == 2 and arguments[0] in MODELS:
        write_model(arguments[0], arguments[1])
    else:
        sys.exit(__doc__.split("\n\n")[1])


if __name__ == "__main__":
    main(sys.argv[1:])
