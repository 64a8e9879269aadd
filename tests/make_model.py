#!/usr/bin/env python3
"""Writes the small models that the tests run: real architectures with random weights, 6 layers, 1 to 4 MB.

    make_model.py NAME OUT.gguf       one of them
    make_model.py --all FOLDER        all, as FOLDER/NAME.gguf
    make_model.py --list

They carry a byte-level BPE vocabulary of their own and a chat template, so that every command works on them. The same
name gives the same bytes. Each is chosen for something that can go wrong: see MODELS.

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

# width: d_model; heads * head_dim need not equal it. `types`: of the matrices, then exceptions by name.
MODELS = {
    # no dimension but the head's is a multiple of 8; the head is tied to the embedding; BOS is added
    "llama-f32": dict(arch="llama", width=84, heads=5, kv_heads=1, head_dim=24, ff=205, types={"": Type.F32}, tied=True, bos=True),
    "llama-f16": dict(arch="llama", width=84, heads=5, kv_heads=1, head_dim=24, ff=205, types={"": Type.F16}),
    # rows of 160 and 416: whole blocks of 32, not of 256
    "llama-q8_0": dict(arch="llama", width=160, heads=5, kv_heads=5, head_dim=32, ff=416, types={"": Type.Q8_0}, tied=True),
    "llama-q4_0": dict(arch="llama", width=160, heads=5, kv_heads=5, head_dim=32, ff=416, types={"": Type.Q4_0}),
    "llama-q4_1": dict(arch="llama", width=160, heads=5, kv_heads=5, head_dim=32, ff=416, types={"": Type.Q4_1}),
    "llama-q4_k": dict(arch="llama", width=256, heads=4, kv_heads=2, head_dim=64, ff=768, types={"": Type.Q4_K}),
    "llama-q6_k": dict(arch="llama", width=256, heads=4, kv_heads=2, head_dim=64, ff=768, types={"": Type.Q6_K}, tied=True),
    # the mix that Q4_K_M files have, under Granite's four scales
    "granite-q4_k_m": dict(arch="granite", width=256, heads=4, kv_heads=1, head_dim=64, ff=512,
                           types={"": Type.Q4_K, "attn_v": Type.Q6_K, "ffn_down": Type.Q6_K, "output": Type.Q6_K, "token_embd": Type.Q4_K}),
    "granite-q8_0": dict(arch="granite", width=128, heads=4, kv_heads=2, head_dim=32, ff=384, types={"": Type.Q8_0}, tied=True),
    "qwen2-q8_0": dict(arch="qwen2", width=128, heads=4, kv_heads=2, head_dim=32, ff=384, types={"": Type.Q8_0}, tied=True),
    # heads wider than the model
    "qwen3-f16": dict(arch="qwen3", width=96, heads=4, kv_heads=2, head_dim=40, ff=256, types={"": Type.F16}),
    # a window of 24 positions in five of six layers
    "gemma3-f16": dict(arch="gemma3", width=96, heads=4, kv_heads=1, head_dim=48, ff=160, types={"": Type.F16}, tied=True, bos=True),
    "gemma3-q4_0": dict(arch="gemma3", width=128, heads=4, kv_heads=1, head_dim=64, ff=256, types={"": Type.Q4_0}, tied=True, bos=True),
    # the types of few bits
    "llama-iq2_xxs": dict(arch="llama", width=256, heads=4, kv_heads=2, head_dim=64, ff=512, types={"": Type.IQ2_XXS}),
    "llama-iq2_xs": dict(arch="llama", width=256, heads=4, kv_heads=2, head_dim=64, ff=512, types={"": Type.IQ2_XS}, tied=True),
    "llama-iq2_s": dict(arch="llama", width=256, heads=4, kv_heads=2, head_dim=64, ff=512, types={"": Type.IQ2_S}),
    "llama-iq3_xxs": dict(arch="llama", width=256, heads=4, kv_heads=2, head_dim=64, ff=512, types={"": Type.IQ3_XXS}, tied=True),
    "llama-iq3_s": dict(arch="llama", width=256, heads=4, kv_heads=2, head_dim=64, ff=512, types={"": Type.IQ3_S}),
    "llama-iq1_s": dict(arch="llama", width=256, heads=4, kv_heads=2, head_dim=64, ff=512, types={"": Type.IQ1_S}, tied=True),
    "llama-iq1_m": dict(arch="llama", width=256, heads=4, kv_heads=2, head_dim=64, ff=512, types={"": Type.IQ1_M}),
    "llama-tq1_0": dict(arch="llama", width=256, heads=4, kv_heads=2, head_dim=64, ff=512, types={"": Type.TQ1_0}, tied=True),
    "llama-tq2_0": dict(arch="llama", width=256, heads=4, kv_heads=2, head_dim=64, ff=512, types={"": Type.TQ2_0}),
    "llama-mxfp4": dict(arch="llama", width=160, heads=5, kv_heads=5, head_dim=32, ff=416, types={"": Type.MXFP4}),
}
N_LAYERS = 6
CONTEXT = 1024
WINDOW = 24
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


def write_model(name, path):
    spec = MODELS[name]
    arch, width, heads, kv_heads, head_dim, ff = (spec[k] for k in ("arch", "width", "heads", "kv_heads", "head_dim", "ff"))
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    writer = GGUFWriter(path, arch)
    writer.add_name(f"test {name}")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(width)
    writer.add_block_count(N_LAYERS)
    writer.add_feed_forward_length(ff)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(50000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    if arch == "granite":
        writer.add_embedding_scale(6.0)
        writer.add_residual_scale(0.3)
        writer.add_attention_scale(1 / 48)
        writer.add_logit_scale(4.0)
    if arch == "gemma3":
        writer.add_sliding_window(WINDOW)
    n_vocab = add_vocabulary(writer, spec.get("bos", False))

    def matrix(tensor, rows, columns, spread):
        kind = tensor.split(".")[-2]
        quantization = spec["types"].get(kind, spec["types"][""])
        writer.add_tensor(tensor, random_matrix(rng, rows, columns, quantization, spread), raw_dtype=quantization)

    def vector(tensor, n, mean, spread):
        writer.add_tensor(tensor, (mean + spread * rng.standard_normal(n)).astype(np.float32))

    matrix("token_embd.weight", n_vocab, width, 0.3)
    for i in range(N_LAYERS):
        p = f"blk.{i}."
        vector(p + "attn_norm.weight", width, 1, 0.1)
        for which, n in (("q", heads), ("k", kv_heads), ("v", kv_heads)):
            matrix(p + f"attn_{which}.weight", n * head_dim, width, 1.5 * width ** -0.5)
            if arch == "qwen2":
                vector(p + f"attn_{which}.bias", n * head_dim, 0, 0.3)
        if arch in ("qwen3", "gemma3"):
            vector(p + "attn_q_norm.weight", head_dim, 1.5, 0.1)
            vector(p + "attn_k_norm.weight", head_dim, 1.5, 0.1)
        matrix(p + "attn_output.weight", width, heads * head_dim, (heads * head_dim) ** -0.5)
        vector(p + "ffn_norm.weight", width, 1, 0.1)
        matrix(p + "ffn_gate.weight", ff, width, width ** -0.5)
        matrix(p + "ffn_up.weight", ff, width, width ** -0.5)
        matrix(p + "ffn_down.weight", width, ff, 2 * ff ** -0.5)
        if arch == "gemma3":
            vector(p + "post_attention_norm.weight", width, 1, 0.1)
            vector(p + "post_ffw_norm.weight", width, 1, 0.1)
    vector("output_norm.weight", width, 1, 0.1)
    if not spec.get("tied"):
        matrix("output.weight", n_vocab, width, 3 * width ** -0.5)
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
