"""A worker takes the memory of its layers, and says how much."""
import signal

import pytest
from gguf import GGUFReader

from conftest import LINUX, children_of, free_port, wait_for

MIB = 1 << 20
CONTEXT = 512


def sizes_of(path):
    """([bytes of each layer], of the embedding, of the head, of KV cache a position and layer) by the gguf package's reader."""
    reader = GGUFReader(path)
    fields = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("tokenizer.")}
    arch = fields["general.architecture"]
    heads, width = fields[f"{arch}.attention.head_count"], fields[f"{arch}.embedding_length"]
    head_dim = fields.get(f"{arch}.attention.key_length", width // heads)
    kv = fields.get(f"{arch}.attention.head_count_kv", heads) * head_dim * 2 * 2
    tensors = {t.name: int(t.n_bytes) for t in reader.tensors}
    layers = [sum(size for name, size in tensors.items() if name.startswith(f"blk.{i}.")) for i in range(fields[f"{arch}.block_count"])]
    embedding = tensors["token_embd.weight"]
    return layers, embedding, tensors.get("output.weight", embedding) + tensors["output_norm.weight"], kv


def resident_bytes(pid, kind="VmRSS"):
    for line in open(f"/proc/{pid}/status", encoding="utf-8"):
        if line.startswith(kind + ":"):
            return int(line.split()[1]) * 1024
    return 0


def limit(stage, kv_bytes):
    n_layers = stage["layers"][1] - stage["layers"][0] + 1
    return 1.05 * stage["weight_bytes"] + CONTEXT * n_layers * kv_bytes + 64 * MIB


@pytest.mark.parametrize("split", ["0-29", "0-14,15-29", "0-9,10-19,20-29"])
def test_a_stage_takes_its_layers_bytes(woolly, smollm2, split):
    layers, embedding, head, kv_bytes = sizes_of(smollm2)
    workers = split.count(",") + 1
    answer = woolly.json("run", "-m", smollm2, "-p", "Hi", "-n", 8, "--ctx", CONTEXT, "--local", workers, "--layers", split)
    whole = sum(layers) + embedding + head
    assert len(answer["stages"]) == workers
    for i, stage in enumerate(answer["stages"]):
        first, last = stage["layers"]
        expected = sum(layers[first:last + 1]) + (i == 0) * embedding + (i == workers - 1) * head
        assert abs(stage["weight_bytes"] / expected - 1) < 0.01, stage
        if workers <= 2:
            assert abs(stage["weight_bytes"] / whole - 1 / workers) < 0.02, stage
        # Of the embedding only the rows that were looked up are in memory: the file's pages are its store.
        assert stage["weight_bytes"] * 0.5 < stage["rss_bytes"] <= limit(stage, kv_bytes), stage


@pytest.mark.skipif(not LINUX, reason="reads /proc")
def test_the_system_agrees_about_a_workers_memory(woolly, smollm2):
    """From outside, in the middle of a run, its peak while loading included."""
    _, _, _, kv_bytes = sizes_of(smollm2)
    port = free_port()
    workers = {f"w{i}": woolly.worker(port, f"w{i}") for i in range(2)}
    run = woolly.start("run", "-m", smollm2, "--raw", "-p", "Once", "-n", 500, "--ignore-eos", "--ctx", CONTEXT, "--json",
                       "--listen", f"127.0.0.1:{port}", "--min-workers", 2)
    result = run.wait(60)
    assert result.code == 0, repr(result)
    for stage in result.json["stages"]:
        pid = workers[stage["name"]].pid
        peak = resident_bytes(pid, "VmHWM")
        assert peak <= limit(stage, kv_bytes) + 16 * MIB, f"{stage}: peak {peak}"
        assert stage["rss_bytes"] <= peak + MIB  # the system counts a thread's pages in batches


@pytest.mark.skipif(not LINUX, reason="reads /proc")
def test_the_coordinator_holds_no_weights(woolly, smollm2):
    run = woolly.start("run", "-m", smollm2, "--raw", "-p", "Once", "-n", 4000, "--ignore-eos", "--local", 2)
    run.wait_for_output(20)
    resident = resident_bytes(run.pid)
    assert resident < 64 * MIB, f"{resident}"
    run.signal(signal.SIGINT)
    run.wait(3)


@pytest.mark.skipif(not LINUX, reason="reads /proc")
def test_a_joined_worker_gives_its_memory_back(woolly, smollm2):
    port = free_port()
    worker = woolly.worker(port, "w0")
    for _ in range(3):
        woolly.json("run", "-m", smollm2, "-p", "Hi", "-n", 2, "--ctx", CONTEXT, "--listen", f"127.0.0.1:{port}")
        wait_for(lambda: resident_bytes(worker.pid) < 64 * MIB, 3, "the weights stay")
    assert not children_of(worker.pid)
