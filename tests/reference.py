#!/usr/bin/env python3
"""What a model's logits should be, computed once more in numpy, to hold Woolly's logits to.

    reference.py MODEL.gguf TOKENS.json [--as-woolly]        prints the best token and its log-probability at each position

Written from the descriptions of the architectures: their papers and their authors' code. Weights are dequantized by the gguf package, so it
shares nothing with Woolly's own code. Two forms:

  exact      weights as the file says, all else in float64 (or `dtype`): what an engine that rounds nothing would answer
  as_woolly  also rounds where Woolly's contract says it rounds: activations of each quantized matrix to int8 with one scale per
             16 or 256 values, K and V to float16. What is left is the order of float32 sums, so the two agree closely, and a
             mistake that int8 noise would hide shows.

What a file says of itself is taken from the file: a bias, a norm, a fused matrix, experts or sinks are there if their tensor is, and
numbers come from its metadata. What it does not say stands in ARCHITECTURES, the one table of differences.

Arrays: x [n_tokens, d_model]; weights [rows = out, columns = in], of experts [expert, rows, columns]; q, k, v [n_tokens, heads, head_dim].
"""
import argparse
import dataclasses
import json
import math

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFReader
from gguf.quants import dequantize

FLOAT_TYPES = (Type.F32, Type.F16, Type.BF16)
SHORT_TYPES = (Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0, Type.IQ4_NL, Type.MXFP4)


# -- the architectures --------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Architecture:
    """How one differs from Llama, which is: x += attention (rms_norm (x)); x += feed_forward (rms_norm (x)), layer by layer."""
    halves: bool = False  # RoPE turns element i of a head with i + dims/2; Llama's files have 2 i with 2 i + 1
    layer_norm: bool = False  # norms subtract the mean first
    parallel: bool = False  # feed-forward takes what attention takes: x += attention (norm (x)) + feed_forward (norm (x))
    attention_norm: str = "attn_norm"  # the tensors' names; where a file has no such tensor there is no norm at that place
    feed_forward_norm: str = "ffn_norm"
    attention_after: str = "post_attention_norm"  # norms of what a branch gives, before it is added
    feed_forward_after: str = "post_ffw_norm"
    activation: str = "silu"
    embedding_by_root: bool = False  # the embedding is multiplied by sqrt (d_model)
    logit_scale_divides: bool = True
    period: int = 1  # of layers with a window (if the file has one), the last of each run of so many has none; 1 would be: none has a window
    all_windowed: bool = False
    window: int = 0  # for a file that does not say
    local_base: float = 0.0  # RoPE's base of windowed layers, if not that of the others
    local_scaled: bool = True  # windowed layers' RoPE is scaled as the others'
    global_turns: bool = True  # layers without window have RoPE at all
    still_period: int = 0  # the last of each run of so many layers has no RoPE
    yarn_rounds: bool = True  # YaRN's range of frequencies is widened to whole numbers
    wide_layers: int = 0  # the size of so many layers scales attention by (d_model / heads)^-1/2, not by head_dim^-1/2


ARCHITECTURES = {
    "llama": Architecture(),  # also Mistral and, with experts, Mixtral
    "granite": Architecture(),
    "granitemoe": Architecture(),
    "qwen2": Architecture(halves=True),
    "qwen3": Architecture(halves=True),
    "qwen3moe": Architecture(halves=True),
    "gemma2": Architecture(halves=True, activation="gelu", embedding_by_root=True, period=2, window=4096, wide_layers=46),
    "gemma3": Architecture(halves=True, activation="gelu", embedding_by_root=True, period=6, wide_layers=62, local_base=10000.0,
                           local_scaled=False),
    "phi3": Architecture(halves=True, all_windowed=True),
    "smollm3": Architecture(still_period=4),
    "olmo2": Architecture(halves=True, period=4, local_scaled=False),  # also OLMo 3, which has a window
    "starcoder2": Architecture(halves=True, layer_norm=True, activation="gelu"),
    "command-r": Architecture(layer_norm=True, parallel=True, logit_scale_divides=False),
    "cohere2": Architecture(layer_norm=True, parallel=True, logit_scale_divides=False, period=4, global_turns=False),
    "glm4": Architecture(),
    "gpt-oss": Architecture(halves=True, activation="clamped", period=2, yarn_rounds=False, feed_forward_norm="post_attention_norm",
                            attention_after=""),
}


def silu(x):
    return x * 0.5 * (1 + np.tanh(x / 2))  # x / (1 + exp (-x)), which overflows


def gelu(x):
    """The tanh form, which all of these models were trained with."""
    return 0.5 * x * (1 + np.tanh((2 / math.pi) ** 0.5 * (x + 0.044715 * x ** 3)))


def clamped_swiglu(gate, up):
    """gpt-oss: SwiGLU of a clamped gate with a steeper sigmoid, times a clamped up, plus one."""
    gate, up = np.minimum(gate, 7), np.clip(up, -7, 7)
    return silu(1.702 * gate) / 1.702 * (up + 1)


GATED = {"silu": lambda gate, up: silu(gate) * up, "gelu": lambda gate, up: gelu(gate) * up, "clamped": clamped_swiglu}
UNGATED = {"silu": silu, "gelu": gelu}


def round_to_int8(x, block):
    """Each run of `block` values as int8 times one float32 scale: magnitudes up to the largest are spread over 127 steps."""
    shape, dtype = x.shape, x.dtype
    x = x.astype(np.float32).reshape(-1, block)
    largest = np.abs(x).max(1, keepdims=True)
    with np.errstate(divide="ignore"):
        steps = np.where(largest > 0, np.float32(127) / largest, 0).astype(np.float32)
    return (np.rint(x * steps).astype(dtype) * (largest / np.float32(127))).reshape(shape)


# -- the forward pass -------------------------------------------------------------------------------------------------------------


class Reference:
    """changes: metadata (keys without the architecture's name) and fields of Architecture in place of the model's own."""

    def __init__(self, path, as_woolly=False, dtype=np.float64, changes=None):
        reader = GGUFReader(path)
        changes = changes or {}
        self.dtype = dtype
        self.meta = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("tokenizer.")}
        self.tensors = {tensor.name: tensor for tensor in reader.tensors}
        self.as_woolly = as_woolly
        self.dequantized = {}
        self.arch = self.meta["general.architecture"]
        fields = {field.name for field in dataclasses.fields(Architecture)}
        self.row = dataclasses.replace(ARCHITECTURES[self.arch], **{key: value for key, value in changes.items() if key in fields})
        self.meta |= {f"{self.arch}.{key}": value for key, value in changes.items() if key not in fields}
        self.n_layers = self.get("block_count")
        self.width = self.get("embedding_length")
        self.heads = self.get("attention.head_count")
        self.kv_heads = self.get("attention.head_count_kv", self.heads)
        self.head_dim = self.get("attention.key_length", self.width // self.heads)
        self.rope_dims = self.get("rope.dimension_count", self.head_dim)
        self.eps = self.get("attention.layer_norm_epsilon" if self.row.layer_norm else "attention.layer_norm_rms_epsilon")
        self.window = self.get("attention.sliding_window", self.row.window)
        wide = self.row.wide_layers == self.n_layers
        self.attention_scale = self.get("attention.scale", (self.width // self.heads if wide else self.head_dim) ** -0.5)

    def get(self, key, default=None):
        return self.meta.get(f"{self.arch}.{key}", default)

    def has(self, name):
        return name in self.tensors

    def weight(self, name):
        if name not in self.dequantized:
            tensor = self.tensors[name]
            values = dequantize(tensor.data, tensor.tensor_type).reshape(tensor.shape[::-1])
            self.dequantized[name] = values.astype(self.dtype, copy=False)
        return self.dequantized[name]

    def multiply(self, x, name, expert=None):
        """x times a matrix (or one expert's), plus its bias if there is one. name: without .weight."""
        kind = self.tensors[name + ".weight"].tensor_type
        if self.as_woolly and kind not in FLOAT_TYPES:
            x = round_to_int8(x, 16 if kind in SHORT_TYPES else 256)
        which = slice(None) if expert is None else expert
        y = x @ self.weight(name + ".weight")[which].T
        return y + self.weight(name + ".bias")[which] if self.has(name + ".bias") else y

    def norm(self, x, name):
        """Over the last axis; x itself where the model has no such norm. name: without .weight."""
        if not self.has(name + ".weight"):
            return x
        if self.row.layer_norm:
            x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt(np.mean(x * x, -1, keepdims=True) + self.eps) * self.weight(name + ".weight")
        return x + self.weight(name + ".bias") if self.has(name + ".bias") else x

    def windowed(self, layer):
        """Whether a position sees only so many, itself among them, as the window is long."""
        if not self.window:
            return False
        pattern = self.get("attention.sliding_window_pattern", self.row.period)
        if isinstance(pattern, list):
            return bool(pattern[layer])
        return self.row.all_windowed or (layer + 1) % pattern != 0

    # -- RoPE: pair i of a head at position p turns by p * frequency[i]; the result is multiplied by one number

    def yarn(self, frequencies, base, factor):
        """Peng et al. 2023: a frequency that turns more than beta_fast times within the original context is kept, one that turns less than beta_slow
        times is divided, those between are mixed."""
        dims, context = self.rope_dims, self.get("rope.scaling.original_context_length", self.get("context_length"))
        low, high = (dims * math.log(context / (self.get(f"rope.scaling.yarn_beta_{which}", default) * 2 * math.pi)) / (2 * math.log(base))
                     for which, default in (("fast", 32.0), ("slow", 1.0)))
        if self.row.yarn_rounds:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, dims - 1)
        divided = np.clip((np.arange(dims // 2) - low) / max(high - low, 0.001), 0, 1)
        return frequencies / factor * divided + frequencies * (1 - divided)

    def rope(self, layer, context):
        """(frequencies, magnitude), or None for a layer without RoPE. context: positions that the KV cache is made for."""
        local, row = self.windowed(layer), self.row
        if not (local or row.global_turns) or row.still_period and (layer + 1) % row.still_period == 0:
            return None
        base = self.get("rope.freq_base", 10000.0)
        if local:
            base = self.get("rope.freq_base_swa", row.local_base or base)
        frequencies = base ** (-2 * np.arange(self.rope_dims // 2) / self.rope_dims)
        if local and not row.local_scaled:
            return frequencies, 1.0
        long = context > self.get("rope.scaling.original_context_length", self.get("context_length"))
        for name in ("rope_freqs", "rope_factors_long" if long else "rope_factors_short"):
            if self.has(name + ".weight"):
                frequencies = frequencies / self.weight(name + ".weight")
        kind, factor = self.get("rope.scaling.type", "linear"), self.get("rope.scaling.factor", self.get("rope.scale_linear", 1.0))
        magnitude = self.get("rope.scaling.attn_factor", 1.0)
        if kind == "linear":
            frequencies = frequencies / factor
        elif kind == "yarn":
            frequencies = self.yarn(frequencies, base, factor)
            magnitude *= self.get("rope.scaling.yarn_attn_factor", 0.1 * math.log(factor) + 1)
        return frequencies, magnitude

    def turn(self, x, rope):
        if rope is None:
            return x
        frequencies, magnitude = rope
        angles = np.arange(len(x))[:, None] * frequencies
        cos, sin = ((magnitude * f(angles))[:, None].astype(self.dtype) for f in (np.cos, np.sin))
        pairs = len(frequencies)
        first = slice(0, pairs) if self.row.halves else slice(0, 2 * pairs, 2)
        second = slice(pairs, 2 * pairs) if self.row.halves else slice(1, 2 * pairs, 2)
        out = x.copy()
        out[..., first] = x[..., first] * cos - x[..., second] * sin
        out[..., second] = x[..., first] * sin + x[..., second] * cos
        return out

    # -- a layer

    def heads_of(self, x, layer):
        """q, k, v before RoPE. Norms of q and k have weights for one head, for each head or for all heads as one row."""
        p, counts = f"blk.{layer}.attn_", (self.heads, self.kv_heads, self.kv_heads)
        if self.has(p + "qkv.weight"):
            ends = np.cumsum(counts) * self.head_dim
            rows = np.split(self.multiply(x, p + "qkv"), ends[:2], axis=1)
        else:
            rows = [self.multiply(x, p + which) for which in "qkv"]
        out = []
        for y, which, n in zip(rows, "qkv", counts):
            name, shape = f"{p}{which}_norm", (len(x), n, self.head_dim)
            of_row = self.has(name + ".weight") and self.weight(name + ".weight").shape == (n * self.head_dim,) != (self.head_dim,)
            out.append(self.norm(y, name).reshape(shape) if of_row else self.norm(y.reshape(shape), name))
        return out

    def attention(self, x, layer, context):
        q, k, v = self.heads_of(x, layer)
        rope = self.rope(layer, context)
        q, k = self.turn(q, rope), self.turn(k, rope)
        if self.as_woolly:
            k, v = (np.clip(a, -65504, 65504).astype(np.float16).astype(self.dtype) for a in (k, v))
        ages = np.arange(len(x))[:, None] - np.arange(len(x))[None, :]
        visible = (ages >= 0) & (ages < self.window if self.windowed(layer) else True)
        cap, sinks = self.get("attn_logit_softcapping", 0.0), f"blk.{layer}.attn_sinks.weight"
        out = np.empty_like(q)
        for head in range(self.heads):
            group = head // (self.heads // self.kv_heads)
            scores = q[:, head] @ k[:, group].T * self.attention_scale
            scores = np.where(visible, np.tanh(scores / cap) * cap if cap else scores, -np.inf)
            # A sink is one more position to attend to, where there is nothing.
            sink = np.full((len(x), 1), self.weight(sinks)[head] if self.has(sinks) else -np.inf, self.dtype)
            largest = np.maximum(scores.max(1, keepdims=True), sink)
            weights = np.exp(scores - largest)
            out[:, head] = weights @ v[:, group] / (weights.sum(1, keepdims=True) + np.exp(sink - largest))
        return self.multiply(out.reshape(len(x), -1), f"blk.{layer}.attn_output")

    def gated(self, x, layer, suffix="", expert=None):
        up = self.multiply(x, f"blk.{layer}.ffn_up{suffix}", expert)
        down = self.tensors[f"blk.{layer}.ffn_down{suffix}.weight"]
        if self.has(f"blk.{layer}.ffn_gate{suffix}.weight"):
            y = GATED[self.row.activation](self.multiply(x, f"blk.{layer}.ffn_gate{suffix}", expert), up)
        elif up.shape[1] == 2 * down.shape[0]:  # one matrix holds gate, then up
            y = GATED[self.row.activation](*np.split(up, 2, axis=1))
        else:
            y = UNGATED[self.row.activation](up)
        return self.multiply(y, f"blk.{layer}.ffn_down{suffix}", expert)

    def feed_forward(self, x, layer):
        """One, or a mixture of the experts that a router likes best, by the softmax of how much it likes them, and one that all tokens share."""
        p = f"blk.{layer}.ffn_"
        if not self.has(p + "gate_inp.weight"):
            return self.gated(x, layer)
        liking = self.multiply(x, p + "gate_inp")
        chosen = np.argsort(-liking, axis=1, kind="stable")[:, :self.get("expert_used_count")]
        shares = np.exp(np.take_along_axis(liking, chosen, 1) - liking.max(1, keepdims=True))
        shares *= self.get("expert_weights_scale", 1.0) / shares.sum(1, keepdims=True)
        out = np.zeros_like(x)
        for expert in range(liking.shape[1]):
            tokens, places = np.nonzero(chosen == expert)
            out[tokens] += shares[tokens, places, None] * self.gated(x[tokens], layer, "_exps", expert)
        return out + self.gated(x, layer, "_shexp") if self.has(p + "up_shexp.weight") else out

    def logits(self, tokens, context=None):
        """[n_tokens, n_vocab]. context: positions that the KV cache is made for, if they are more than the tokens."""
        row, context = self.row, context or len(tokens)
        tensor = self.tensors["token_embd.weight"]
        rows = dequantize(tensor.data[np.asarray(tokens)], tensor.tensor_type)
        x = rows.reshape(len(tokens), self.width).astype(self.dtype)
        x = x * (self.width ** 0.5 if row.embedding_by_root else self.get("embedding_scale", 1.0))
        scale = self.get("residual_scale", 1.0)
        for layer in range(self.n_layers):
            p = f"blk.{layer}."
            inner = self.norm(x, p + row.attention_norm)
            attended = self.norm(self.attention(inner, layer, context), p + row.attention_after)
            if row.parallel:
                x = x + attended + self.feed_forward(inner, layer)
                continue
            x = x + attended * scale
            y = self.feed_forward(self.norm(x, p + row.feed_forward_norm), layer)
            x = x + self.norm(y, p + row.feed_forward_after) * scale
        logits = self.multiply(self.norm(x, "output_norm"), "output" if self.has("output.weight") else "token_embd")
        scale = self.get("logit_scale", 1.0)
        logits = logits / scale if row.logit_scale_divides else logits * scale
        cap = self.get("final_logit_softcapping", 0.0)
        return np.tanh(logits / cap) * cap if cap else logits


# -- comparing ----------------------------------------------------------------------------------------------------------------


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def relative_error(logits, expected):
    """||a - b|| / ||b|| over all positions together."""
    expected = np.asarray(expected, np.float64)
    return float(np.linalg.norm(np.asarray(logits, np.float64) - expected) / np.linalg.norm(expected))


def divergence(expected, logits):
    """Kullback-Leibler divergence of the distributions that two sets of logits give, in nats a position."""
    p, q = log_softmax(expected), log_softmax(logits)
    return (np.exp(p) * (p - q)).sum(-1)


def divergence_of_best(best, logits):
    """The same where of the expected distribution only the best tokens are known, as [id, log-probability] pairs a position.

    All others are one lump on both sides. Lumping can only lower a divergence, so this is a lower bound of it, and a tight one
    where the best tokens hold nearly all of the probability.
    """
    out = []
    for row, pairs in zip(log_softmax(logits), best):
        ids = [int(token) for token, _ in pairs]
        p, q = np.exp([logprob for _, logprob in pairs]), np.exp(row[ids])
        p, q = np.append(p, max(1 - p.sum(), 1e-12)), np.append(q, max(1 - q.sum(), 1e-12))
        out.append(float((p * np.log(p / q)).sum()))
    return np.array(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("model")
    parser.add_argument("tokens")
    parser.add_argument("--as-woolly", action="store_true")
    a = parser.parse_args()
    with open(a.tokens) as file:
        tokens = json.load(file)
    for position, row in enumerate(log_softmax(Reference(a.model, a.as_woolly).logits(tokens))):
        print(position, tokens[position], int(row.argmax()), f"{row.max():.5f}")


if __name__ == "__main__":
    main()
