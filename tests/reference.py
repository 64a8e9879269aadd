#!/usr/bin/env python3
"""What a model's logits should be, computed once more in numpy, to hold Woolly's logits to.

    reference.py MODEL.gguf TOKENS.json [--as-woolly]        prints the best token and its log-probability at each position

Written from the descriptions of the architectures (Llama, Granite, Qwen2, Qwen3, Gemma 3), with weights dequantized by the gguf
package, so it shares nothing with Woolly's own code. Two forms:

  exact      weights as the file says, all else in float64 (or `dtype`): what an engine that rounds nothing would answer
  as_woolly  also rounds where Woolly's contract says it rounds: activations of each quantized matrix to int8 with one scale per
             16 or 256 values, K and V to float16. What is left is the order of float32 sums, so the two agree closely, and a
             mistake that int8 noise would hide shows.

Arrays: x [n_tokens, d_model]; weights [rows = out, columns = in]; q, k, v [n_tokens, heads, head_dim].
"""
import argparse
import json
import math

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFReader
from gguf.quants import dequantize

FLOAT_TYPES = (Type.F32, Type.F16, Type.BF16)
SHORT_TYPES = (Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0, Type.IQ4_NL, Type.MXFP4)


def silu(x):
    return x / (1 + np.exp(-x))


def gelu(x):
    return 0.5 * x * (1 + np.tanh((2 / math.pi) ** 0.5 * (x + 0.044715 * x ** 3)))


def round_to_int8(x, block):
    """Each run of `block` values as int8 times one float32 scale: magnitudes up to the largest are spread over 127 steps."""
    shape, dtype = x.shape, x.dtype
    x = x.astype(np.float32).reshape(-1, block)
    largest = np.abs(x).max(1, keepdims=True)
    with np.errstate(divide="ignore"):
        steps = np.where(largest > 0, np.float32(127) / largest, 0).astype(np.float32)
    return (np.rint(x * steps).astype(dtype) * (largest / np.float32(127))).reshape(shape)


class Reference:
    def __init__(self, path, as_woolly=False, dtype=np.float64):
        reader = GGUFReader(path)
        self.dtype = dtype
        self.meta = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("tokenizer.")}
        self.tensors = {tensor.name: tensor for tensor in reader.tensors}
        self.as_woolly = as_woolly
        self.dequantized = {}
        self.arch = self.meta["general.architecture"]
        self.n_layers = self.get("block_count")
        self.width = self.get("embedding_length")
        self.heads = self.get("attention.head_count")
        self.kv_heads = self.get("attention.head_count_kv", self.heads)
        self.head_dim = self.get("attention.key_length", self.width // self.heads)
        self.rope_dims = self.get("rope.dimension_count", self.head_dim)
        self.eps = self.get("attention.layer_norm_rms_epsilon")
        self.rope_base = self.get("rope.freq_base", 10000.0)
        # Which elements of a head turn together: Llama's GGUFs have neighbours, the others the two halves.
        self.neighbours = self.arch in ("llama", "granite")
        granite, gemma = self.arch == "granite", self.arch == "gemma3"
        self.embedding_scale = self.get("embedding_scale", 1.0) if granite else self.width ** 0.5 if gemma else 1.0
        self.residual_scale = self.get("residual_scale", 1.0) if granite else 1.0
        self.attention_scale = self.get("attention.scale") if granite else self.head_dim ** -0.5
        self.logit_divisor = self.get("logit_scale", 1.0) if granite else 1.0
        self.window = self.get("attention.sliding_window", 0) if gemma else 0
        self.activation = gelu if gemma else silu

    def get(self, key, default=None):
        return self.meta.get(f"{self.arch}.{key}", default)

    def weight(self, name):
        if name not in self.dequantized:
            tensor = self.tensors[name]
            values = dequantize(tensor.data, tensor.tensor_type).reshape(tensor.shape[::-1])
            self.dequantized[name] = values.astype(self.dtype, copy=False)
        return self.dequantized[name]

    def multiply(self, x, name):
        kind = self.tensors[name].tensor_type
        if self.as_woolly and kind not in FLOAT_TYPES:
            x = round_to_int8(x, 16 if kind in SHORT_TYPES else 256)
        return x @ self.weight(name).T

    def norm(self, x, name):
        """Root-mean-square norm over the last axis."""
        return x / np.sqrt(np.mean(x * x, -1, keepdims=True) + self.eps) * self.weight(name)

    def turn(self, x, base):
        """Rotary embedding: pair i of a head at position p turns by p * base^(-2 i / dims)."""
        n, pairs = len(x), self.rope_dims // 2
        angles = np.arange(n)[:, None] * base ** (-np.arange(pairs) / pairs)
        cos, sin = np.cos(angles)[:, None].astype(self.dtype), np.sin(angles)[:, None].astype(self.dtype)
        first = slice(0, 2 * pairs, 2) if self.neighbours else slice(0, pairs)
        second = slice(1, 2 * pairs, 2) if self.neighbours else slice(pairs, 2 * pairs)
        out = x.copy()
        out[..., first] = x[..., first] * cos - x[..., second] * sin
        out[..., second] = x[..., first] * sin + x[..., second] * cos
        return out

    def heads_of(self, x, layer, which, n_heads):
        name = f"blk.{layer}.attn_{which}"
        y = self.multiply(x, name + ".weight")
        if name + ".bias" in self.tensors:
            y = y + self.weight(name + ".bias")
        y = y.reshape(len(x), n_heads, self.head_dim)
        return self.norm(y, name + "_norm.weight") if name + "_norm.weight" in self.tensors else y

    def attention(self, x, layer):
        local = self.window and (layer + 1) % 6 != 0
        base = 10000.0 if local else self.rope_base
        q = self.turn(self.heads_of(x, layer, "q", self.heads), base)
        k = self.turn(self.heads_of(x, layer, "k", self.kv_heads), base)
        v = self.heads_of(x, layer, "v", self.kv_heads)
        if self.as_woolly:
            k, v = (np.clip(a, -65504, 65504).astype(np.float16).astype(self.dtype) for a in (k, v))
        ages = np.arange(len(x))[:, None] - np.arange(len(x))[None, :]
        visible = (ages >= 0) & (ages < self.window if local else True)
        out = np.empty_like(q)
        for head in range(self.heads):
            group = head // (self.heads // self.kv_heads)
            scores = np.where(visible, q[:, head] @ k[:, group].T * self.attention_scale, -np.inf)
            weights = np.exp(scores - scores.max(1, keepdims=True))
            out[:, head] = weights @ v[:, group] / weights.sum(1, keepdims=True)
        return self.multiply(out.reshape(len(x), -1), f"blk.{layer}.attn_output.weight")

    def feed_forward(self, x, layer):
        gate = self.activation(self.multiply(x, f"blk.{layer}.ffn_gate.weight"))
        return self.multiply(gate * self.multiply(x, f"blk.{layer}.ffn_up.weight"), f"blk.{layer}.ffn_down.weight")

    def logits(self, tokens):
        """[n_tokens, n_vocab]."""
        tensor = self.tensors["token_embd.weight"]
        rows = dequantize(tensor.data[np.asarray(tokens)], tensor.tensor_type)
        x = rows.reshape(len(tokens), self.width).astype(self.dtype) * self.embedding_scale
        for layer in range(self.n_layers):
            for branch, before, after in ((self.attention, "attn_norm", "post_attention_norm"),
                                          (self.feed_forward, "ffn_norm", "post_ffw_norm")):
                y = branch(self.norm(x, f"blk.{layer}.{before}.weight"), layer)
                if f"blk.{layer}.{after}.weight" in self.tensors:
                    y = self.norm(y, f"blk.{layer}.{after}.weight")
                x = x + y * self.residual_scale
        head = "output.weight" if "output.weight" in self.tensors else "token_embd.weight"
        return self.multiply(self.norm(x, "output_norm.weight"), head) / self.logit_divisor


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
