#!/usr/bin/env python3
"""Writes a model of a real one's size and shape with random weights, to measure loading and speed without a download.

    make_large_model.py --vocab VOCABULARY.gguf [--shape granite-3.3-8b] [--layers N] [--seed N] OUT.gguf

Shapes: granite-3.3-8b (4.9 GB), granite-3.3-2b (1.5 GB), in the mix of types that Q4_K_M files have. The tokenizer is copied from a GGUF file that has
one (a vocabulary-only file will do); its size is the model's. The text that such a model writes means nothing, but it varies, and the work is
the real model's: weights are random bits under block scales that keep activations at the size they have in a trained model, so that
nothing overflows and nothing is zero. --layers makes a shallower one. Takes a minute, most of it the disk's, and less than 1 GB of memory.
"""
import argparse
import os
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFReader, GGUFValueType, GGUFWriter
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import dequantize

from make_model import TEMPLATE

# From the models' published configurations; the head is the embedding.
SHAPES = {
    "granite-3.3-8b": dict(layers=40, width=4096, ff=12800, heads=32, kv_heads=8, head_dim=128, attention_scale=1 / 128, logit_scale=16.0),
    "granite-3.3-2b": dict(layers=40, width=2048, ff=8192, heads=32, kv_heads=8, head_dim=64, attention_scale=1 / 64, logit_scale=8.0),
}
SAMPLE_BLOCKS = 4096


class Random:
    """Blocks of Q4_K and Q6_K whose weights have a wanted standard deviation."""

    def __init__(self, seed):
        self.rng = np.random.Generator(np.random.SFC64(seed))  # the fastest that numpy has

    def blocks(self, n, quantization):
        size = GGML_QUANT_SIZES[quantization][1]
        words = self.rng.integers(0, 1 << 64, (n * size + 7) // 8, dtype=np.uint64)
        return words.view(np.uint8)[:n * size].reshape(n, size)

    def matrix(self, rows, columns, quantization, spread):
        elements, size = GGML_QUANT_SIZES[quantization]
        blocks = self.blocks(rows * columns // elements, quantization)
        factors = self.rng.uniform(0.5, 1.5, len(blocks))
        set_scales(blocks, quantization, factors, 2.0 ** -7)
        sample = dequantize(blocks[:SAMPLE_BLOCKS], quantization)
        set_scales(blocks, quantization, factors, 2.0 ** -7 * spread / sample.std())
        return blocks.reshape(rows, columns // elements * size)

    def vector(self, n):
        return (1 + 0.1 * self.rng.standard_normal(n)).astype(np.float32)


def set_scales(blocks, quantization, factors, unit):
    def put(first, values):
        blocks[:, first:first + 2] = values.astype("<f2").view(np.uint8).reshape(-1, 2)

    if quantization == Type.Q6_K:
        put(blocks.shape[1] - 2, factors * unit)
    else:  # d, dmin: the mean of the quants is 7.5, and dmin takes it back
        put(0, factors * unit)
        put(2, factors * unit * 7.5)


def tensors_of(shape, n_vocab):
    """(name, rows or None of a vector, columns, type, spread) in the order of the file."""
    width, ff, layers = shape["width"], shape["ff"], shape["layers"]
    q, kv = shape["heads"] * shape["head_dim"], shape["kv_heads"] * shape["head_dim"]
    # The layers write far more than the embedding did: the head, which is the embedding, would otherwise find its own token again and again.
    yield "token_embd.weight", n_vocab, width, Type.Q6_K, 0.02
    for i in range(layers):
        # the first and last eighth of the layers, and every third between, get six bits for what is sensitive
        better = i < layers // 8 or i >= 7 * layers // 8 or (i - layers // 8) % 3 == 2
        mixed = Type.Q6_K if better else Type.Q4_K
        p = f"blk.{i}."
        yield p + "attn_norm.weight", None, width, Type.F32, 0
        yield p + "attn_q.weight", q, width, Type.Q4_K, 1.5 * width ** -0.5
        yield p + "attn_k.weight", kv, width, Type.Q4_K, 1.5 * width ** -0.5
        yield p + "attn_v.weight", kv, width, mixed, 3 * width ** -0.5
        yield p + "attn_output.weight", width, q, Type.Q4_K, 3 * q ** -0.5
        yield p + "ffn_norm.weight", None, width, Type.F32, 0
        yield p + "ffn_gate.weight", ff, width, Type.Q4_K, width ** -0.5
        yield p + "ffn_up.weight", ff, width, Type.Q4_K, width ** -0.5
        yield p + "ffn_down.weight", width, ff, mixed, 32 * ff ** -0.5
    yield "output_norm.weight", None, width, Type.F32, 0


def add_metadata(writer, name, shape, vocabulary):
    writer.add_name(f"{name}, random weights")
    writer.add_context_length(131072)
    writer.add_embedding_length(shape["width"])
    writer.add_block_count(shape["layers"])
    writer.add_feed_forward_length(shape["ff"])
    writer.add_head_count(shape["heads"])
    writer.add_head_count_kv(shape["kv_heads"])
    writer.add_rope_dimension_count(shape["head_dim"])
    writer.add_rope_freq_base(1e7)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_embedding_scale(12.0)
    writer.add_residual_scale(0.22)
    writer.add_attention_scale(shape["attention_scale"])
    writer.add_logit_scale(shape["logit_scale"])
    writer.add_file_type(15)  # Q4_K_M
    for key, field in vocabulary.fields.items():
        if key.startswith("tokenizer."):
            is_array = field.types[0] == GGUFValueType.ARRAY
            writer.add_key_value(key, field.contents(), field.types[0], field.types[-1] if is_array else None)
    if "tokenizer.chat_template" not in vocabulary.fields:
        writer.add_chat_template(TEMPLATE)


def write(path, name, shape, vocabulary_path, seed):
    vocabulary = GGUFReader(vocabulary_path)
    if "tokenizer.ggml.tokens" not in vocabulary.fields:
        raise SystemExit(f"{vocabulary_path}: has no vocabulary: give a GGUF file with tokenizer.ggml.tokens")
    n_vocab = len(vocabulary.fields["tokenizer.ggml.tokens"].data)
    random, tensors = Random(seed), list(tensors_of(shape, n_vocab))
    part = Path(f"{path}.{os.getpid()}")
    writer = GGUFWriter(part, "granite")
    try:
        add_metadata(writer, name, shape, vocabulary)
        for tensor, rows, columns, quantization, _ in tensors:
            elements, size = GGML_QUANT_SIZES[quantization]
            n_bytes = (rows or 1) * columns // elements * size
            if rows is None:
                writer.add_tensor_info(tensor, (columns,), np.dtype(np.float32), n_bytes)
            else:
                writer.add_tensor_info(tensor, (rows, columns // elements * size), np.dtype(np.uint8), n_bytes, raw_dtype=quantization)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for _, rows, columns, quantization, spread in tensors:
            writer.write_tensor_data(random.vector(columns) if rows is None else random.matrix(rows, columns, quantization, spread))
        writer.close()
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocab", required=True, metavar="FILE", help="GGUF file whose tokenizer is copied")
    parser.add_argument("--shape", choices=SHAPES, default="granite-3.3-8b")
    parser.add_argument("--layers", type=int, help="a shallower model")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("out")
    a = parser.parse_args()
    shape = dict(SHAPES[a.shape])
    shape["layers"] = a.layers or shape["layers"]
    write(a.out, a.shape, shape, a.vocab, a.seed)


if __name__ == "__main__":
    main()
