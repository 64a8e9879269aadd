"""Weights travel once: a worker without the model file is sent its layers, keeps them, and whatever breaks in between costs no more than what was under way.

Workers do not see the coordinator's file: it is moved away while the coordinator has it open, or (test_a_worker_on_another_file_system) hidden in
a mount namespace.
"""
import os
import random
import shutil
import signal
import subprocess
import time

import pytest
from gguf import GGUFReader

from conftest import LINUX, free_port, wait_for

CLUSTER = 4
MIB = 1 << 20
PROMPT = ["--raw", "-p", "The sheep walk in a line", "-n", 24, "--temp", 0, "--ignore-eos", "--ctx", 256]


class Flock:
    """A coordinator whose model file is gone from its path once it has opened it, and workers with caches of their own."""

    def __init__(self, woolly, folder):
        self.woolly, self.folder, self.caches = woolly, folder, {}

    def cache(self, name):
        return self.folder / f"cache-{name}"

    def worker(self, port, name, *arguments, **options):
        return self.woolly.worker(port, name, "--cache", self.cache(name), "--threads", 1, *arguments, **options)

    def coordinator(self, model, port, n_workers, *arguments):
        """Started on a copy of the model, which is moved away before any worker is there."""
        opened, hidden = self.folder / f"model-{port}" / model.name, self.folder / f"hidden-{port}"
        opened.parent.mkdir()
        first, _, rest = model.name.partition("-00001-of-")
        parts = model.parent.glob(f"{first}-*-of-{rest}") if rest else [model]
        for part in parts:
            shutil.copy(part, opened.parent)
        run = self.woolly.start("run", "-m", opened, *PROMPT, "--json", "--listen", f"127.0.0.1:{port}", "--min-workers", n_workers, *arguments)
        wait_for(lambda: is_listening(port) or run.popen.poll() is not None, 10, "the coordinator does not listen")
        opened.parent.rename(hidden)
        return run

    def run(self, model, names, *arguments, worker_arguments=(), seconds=60):
        """One whole run with fresh workers; they are ended after it."""
        port = free_port()
        run = self.coordinator(model, port, len(names), *arguments)
        workers = [self.worker(port, name, *worker_arguments) for name in names]
        result = run.wait(seconds)
        end(workers)
        return result

    def answer(self, *arguments, **options):
        result = self.run(*arguments, **options)
        assert result.code == 0 and result.err == "", repr(result)
        return result.json

    def model_file(self, name):
        (path,) = (self.cache(name) / "weights").glob("*/model.gguf")
        return path

    def kept(self, name):
        """Records of the index: chunks that have arrived and were checked."""
        return sum(path.stat().st_size // 64 for path in (self.cache(name) / "weights").glob("*/index"))


def is_listening(port):
    needle = f":{port:04X} "
    if not LINUX:
        return subprocess.run(["lsof", "-i", f"tcp:{port}", "-s", "tcp:listen"], capture_output=True, check=False).returncode == 0
    return any(row.split()[3] == "0A" and (row.split()[1] + " ").endswith(needle) for row in open("/proc/net/tcp", encoding="utf-8").readlines()[1:])


def end(workers):
    for worker in workers:
        if worker.popen.poll() is None:
            worker.signal(signal.SIGTERM)
    for worker in workers:
        assert worker.wait(5).code == 0, repr(worker.result())


@pytest.fixture
def flock(woolly, tmp_path):
    return Flock(woolly, tmp_path)


def sources(answer):
    return [(stage["weights"], stage["shipped_bytes"]) for stage in answer["stages"]]


def even_split(model, n):
    """--layers for n workers: the planner's own split follows what it measures, so it may differ from start to start."""
    n_layers = max(int(t.name.split(".")[1]) for t in GGUFReader(model).tensors if t.name.startswith("blk.")) + 1
    return ["--layers", ",".join(f"{n_layers * i // n}-{n_layers * (i + 1) // n - 1}" for i in range(n))]


def stage_bytes(model, first, last):
    """Bytes of the header and of the tensors that a stage of these layers reads."""
    reader = GGUFReader(model)
    n_layers = max(int(t.name.split(".")[1]) for t in reader.tensors if t.name.startswith("blk.")) + 1
    tied = not any(t.name == "output.weight" for t in reader.tensors)
    total = reader.data_offset
    for t in reader.tensors:
        if t.name.startswith("blk."):
            wanted = first <= int(t.name.split(".")[1]) <= last
        elif t.name == "token_embd.weight":
            wanted = first == 0 or (tied and last == n_layers - 1)
        elif t.name.startswith("output"):
            wanted = last == n_layers - 1
        else:
            wanted = True
        total += int(t.n_bytes) if wanted else 0
    return total


# -- what travels ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.short
@pytest.mark.parametrize("n", [1, 2, 3])
def test_workers_without_the_file_are_sent_their_layers_alone_and_a_second_start_sends_nothing(woolly, flock, tiny, n):
    expected = woolly.json("run", "-m", tiny, *PROMPT)["tokens"]
    names = [f"w{i}" for i in range(n)]
    split = even_split(tiny, n)
    first = flock.answer(tiny, names, *split)
    assert first["tokens"] == expected
    for stage in first["stages"]:
        assert stage["weights"] == "shipped" and stage["shipped_bytes"] == stage_bytes(tiny, *stage["layers"]), stage
    second = flock.answer(tiny, names, *split)
    assert second["tokens"] == expected
    assert sources(second) == [("cache", 0)] * n


@pytest.mark.parametrize("name", ["llama-f32", "granite-q4_k_m", "qwen2-q8_0", "qwen3-f16", "gemma3-q4_0", "llama-q6_k"])
def test_every_architecture_runs_on_what_was_sent(woolly, flock, own_models, name):
    """A tensor that was forgotten would read as zeros."""
    model = own_models / f"{name}.gguf"
    expected = woolly.json("run", "-m", model, *PROMPT, "--local", 2)["tokens"]
    assert flock.answer(model, ["a", "b", "c"])["tokens"] == expected


def test_another_split_sends_only_what_is_missing(flock, smollm2):
    first = flock.answer(smollm2, ["a", "b"], "--layers", "0-14,15-29")
    second = flock.answer(smollm2, ["a", "b"], "--layers", "0-9,10-29")
    assert second["tokens"] == first["tokens"]
    assert second["stages"][0]["shipped_bytes"] == 0 and second["stages"][0]["weights"] == "cache"
    more = stage_bytes(smollm2, 10, 29) - stage_bytes(smollm2, 15, 29)
    assert second["stages"][1]["shipped_bytes"] == more and second["stages"][1]["weights"] == "shipped"


def test_layers_stay_where_they_were_and_another_order_of_joining_does_not_move_them(flock, smollm2):
    """The split by hand is none that a planner would choose, but nearly as fast."""
    first = flock.answer(smollm2, ["stays-a", "stays-b"], "--layers", "0-15,16-29")
    second = flock.answer(smollm2, ["stays-b", "stays-a"])
    assert sources(second) == [("cache", 0)] * 2
    assert [(s["name"], s["layers"]) for s in second["stages"]] == [(s["name"], s["layers"]) for s in first["stages"]]


def test_workers_of_one_machine_share_a_cache(woolly, flock, smollm2):
    shared = flock.folder / "shared"
    flock.cache = lambda name: shared
    assert {source for source, _ in sources(flock.answer(smollm2, ["a", "b", "c"]))} == {"shipped"}
    again = flock.answer(smollm2, ["a", "b"])
    assert again["tokens"] == woolly.json("run", "-m", smollm2, *PROMPT)["tokens"]
    assert sources(again) == [("cache", 0)] * 2


@pytest.mark.short
def test_a_split_model_travels_as_well(woolly, flock, tiny):
    split = flock.folder / "split"
    split.mkdir()
    write_split(tiny, split, 3)
    model = split / "m-00001-of-00003.gguf"
    expected = woolly.json("run", "-m", tiny, *PROMPT)["tokens"]
    layers = even_split(tiny, 2)
    first = flock.answer(model, ["a", "b"], *layers)
    assert first["tokens"] == expected and {source for source, _ in sources(first)} == {"shipped"}
    assert sources(flock.answer(model, ["a", "b"], *layers)) == [("cache", 0)] * 2


def write_split(model, folder, n):
    """The model as n files: metadata in the first, tensors shared out."""
    from gguf import GGUFValueType, GGUFWriter
    reader = GGUFReader(model)
    arch = reader.fields["general.architecture"].contents()
    for i in range(n):
        writer = GGUFWriter(folder / f"m-{i + 1:05}-of-{n:05}.gguf", arch)
        for key, field in reader.fields.items():
            if i or key.startswith("GGUF.") or key == "general.architecture":
                continue
            kinds = field.types
            writer.add_key_value(key, field.contents(), kinds[0], kinds[-1] if kinds[0] == GGUFValueType.ARRAY else None)
        for key, value in (("split.no", i), ("split.count", n)):
            writer.add_key_value(key, value, GGUFValueType.UINT16)
        writer.add_key_value("split.tensors.count", len(reader.tensors), GGUFValueType.INT32)
        for t in reader.tensors[i::n]:
            writer.add_tensor(t.name, t.data, raw_dtype=t.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


# -- from worker to worker --------------------------------------------------------------------------------------------------------------


def by_coordinator(answer):
    """Bytes of weights that the coordinator had to send."""
    return sum(stage["shipped_bytes"] - stage["from_workers_bytes"] for stage in answer["stages"])


def test_workers_send_what_another_split_moves_and_what_a_new_worker_lacks(flock, smollm2):
    first = flock.answer(smollm2, ["a", "b"], "--layers", "0-14,15-29")
    assert by_coordinator(first) == stage_bytes(smollm2, 0, 14) + stage_bytes(smollm2, 15, 29)
    joined = flock.answer(smollm2, ["a", "b", "new"], "--layers", "0-9,10-19,20-29")
    assert [stage["weights"] for stage in joined["stages"]] == ["cache", "shipped", "shipped"]
    assert joined["stages"][2]["from_workers_bytes"] == stage_bytes(smollm2, 20, 29)
    assert joined["tokens"] == first["tokens"] and by_coordinator(joined) == 0, joined["stages"]


@pytest.mark.short
def test_a_worker_with_a_file_of_its_own_sends_it_to_one_without(woolly, flock, tiny):
    own = flock.folder / "own"
    own.mkdir()
    shutil.copy(tiny, own)
    port = free_port()
    run = flock.coordinator(tiny, port, 2, *even_split(tiny, 2))
    workers = [flock.worker(port, "has", "--model-dir", own), flock.worker(port, "lacks")]
    answer = run.wait(60).json
    end(workers)
    assert answer["tokens"] == woolly.json("run", "-m", tiny, *PROMPT)["tokens"]
    assert sources(answer) == [("file", 0), ("shipped", stage_bytes(tiny, *answer["stages"][1]["layers"]))]
    assert by_coordinator(answer) == 0


# -- a copy of its own ------------------------------------------------------------------------------------------------------------------


@pytest.mark.short
def test_a_copy_under_any_name_is_used_and_nothing_is_sent(flock, tiny):
    own = flock.folder / "own"
    own.mkdir()
    shutil.copy(tiny, own / "renamed.gguf")
    answer = flock.answer(tiny, ["a", "b"], worker_arguments=["--model-dir", own])
    assert sources(answer) == [("file", 0)] * 2
    assert not flock.cache("a").exists()


@pytest.mark.short
def test_another_file_of_the_same_name_is_not_mistaken_for_the_model(woolly, flock, tiny):
    stale = flock.folder / "stale"
    stale.mkdir()
    content = bytearray(tiny.read_bytes())
    content[-100] ^= 1
    (stale / tiny.name).write_bytes(content)
    answer = flock.answer(tiny, ["a", "b"], worker_arguments=["--model-dir", stale])
    assert {source for source, _ in sources(answer)} == {"shipped"}
    assert answer["tokens"] == woolly.json("run", "-m", tiny, *PROMPT)["tokens"]


@pytest.mark.skipif(not LINUX, reason="uses a mount namespace")
def test_a_worker_on_another_file_system_needs_no_path_of_the_coordinators(woolly, flock, smollm2):
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no mount namespaces here")
    hide = ["unshare", "-m", "sh", "-c", f'mount -t tmpfs none "{smollm2.parent}" && exec "$0" "$@"']
    expected = woolly.json("run", "-m", smollm2, *PROMPT)["tokens"]
    for source in ("shipped", "cache"):
        port = free_port()
        workers = [flock.worker(port, name, prefix=hide) for name in ("a", "b")]
        answer = woolly.json("run", "-m", smollm2, *PROMPT, "--listen", f"127.0.0.1:{port}", "--min-workers", 2, *even_split(smollm2, 2))
        end(workers)
        assert answer["tokens"] == expected and {stage["weights"] for stage in answer["stages"]} == {source}


# -- breaks -------------------------------------------------------------------------------------------------------------------------------


def killed_in_the_middle(flock, model, name, n_chunks):
    """A worker that is killed once so many chunks have arrived; gives how many had."""
    port = free_port()
    run = flock.coordinator(model, port, 1)
    before = flock.kept(name)
    worker = flock.worker(port, name)
    while flock.kept(name) - before < n_chunks and run.popen.poll() is None:
        time.sleep(0.0005)
    worker.signal(signal.SIGKILL)
    result = run.wait(30)
    worker.wait(5)
    return result, flock.kept(name)


@pytest.mark.parametrize("seed", range(3))
def test_a_worker_killed_while_weights_arrive_goes_on_where_they_end(woolly, flock, smollm2, seed):
    choose, whole = random.Random(seed), stage_bytes(smollm2, 0, 29)
    result, kept = killed_in_the_middle(flock, smollm2, "a", choose.randrange(5, 120))
    if result.code == 0:
        pytest.skip("everything had arrived before the kill")
    assert result.code == CLUSTER and "worker a" in result.err and len(result.err.splitlines()) == 1, repr(result)
    answer = flock.answer(smollm2, ["a"])
    assert answer["tokens"] == woolly.json("run", "-m", smollm2, *PROMPT)["tokens"]
    assert answer["stages"][0]["weights"] == "shipped"
    assert 0 < answer["stages"][0]["shipped_bytes"] < whole
    # each record is a chunk of at most a mebibyte that was not sent again
    assert answer["stages"][0]["shipped_bytes"] <= whole - kept * 64  # at the very least; sizes vary
    assert flock.kept("a") >= kept
    again = flock.answer(smollm2, ["a"])
    assert sources(again) == [("cache", 0)]


@pytest.mark.parametrize("way", ["interrupt", "kill"])
def test_a_coordinator_that_ends_while_weights_arrive_leaves_what_did(woolly, flock, smollm2, way):
    port = free_port()
    run = flock.coordinator(smollm2, port, 1)
    worker = flock.worker(port, "a")
    while flock.kept("a") < 20 and run.popen.poll() is None:
        time.sleep(0.0005)
    run.signal(signal.SIGINT if way == "interrupt" else signal.SIGKILL)
    result = run.wait(5)
    if result.code == 0:
        pytest.skip("everything had arrived before")
    assert worker.popen.poll() is None
    end([worker])
    answer = flock.answer(smollm2, ["a"])
    assert answer["tokens"] == woolly.json("run", "-m", smollm2, *PROMPT)["tokens"]
    assert 0 < answer["stages"][0]["shipped_bytes"] < stage_bytes(smollm2, 0, 29)


# Not among the short ones, which run under sanitizers: LeakSanitizer has reported messages inside libzmq at this worker's end, once.
def test_a_worker_told_to_end_while_weights_arrive_does_so_at_once(flock, smollm2):
    port = free_port()
    run = flock.coordinator(smollm2, port, 1)
    worker = flock.worker(port, "a")
    while flock.kept("a") < 10 and run.popen.poll() is None:
        time.sleep(0.0005)
    worker.signal(signal.SIGTERM)
    assert worker.wait(2).code == 0
    assert run.wait(5).code in (0, CLUSTER)


@pytest.mark.short
def test_a_spoiled_byte_of_the_cache_is_noticed_and_its_chunk_sent_again(woolly, flock, tiny):
    expected = flock.answer(tiny, ["a"])["tokens"]
    path = flock.model_file("a")
    with open(path, "r+b") as file:
        file.seek(path.stat().st_size - 1000)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 8]))
    answer = flock.answer(tiny, ["a"])
    ((source, shipped),) = sources(answer)
    assert source == "shipped" and 0 < shipped <= MIB
    assert answer["tokens"] == expected
    assert sources(flock.answer(tiny, ["a"])) == [("cache", 0)]


@pytest.mark.short
def test_a_byte_that_the_disk_spoils_in_silence_is_found_by_check_cache(flock, tiny):
    flock.answer(tiny, ["a"])
    path = flock.model_file("a")
    times = path.stat()
    content = bytearray(path.read_bytes())
    content[-1000] ^= 8
    with open(path, "r+b") as file:
        file.write(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    ((source, shipped),) = sources(flock.answer(tiny, ["a"], worker_arguments=["--check-cache"]))
    assert source == "shipped" and 0 < shipped <= MIB


# -- bounds --------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.short
def test_the_cache_stays_within_its_size_and_the_oldest_model_goes(flock, own_models):
    models = [own_models / f"{name}.gguf" for name in ("llama-q4_0", "llama-q4_1", "llama-q8_0")]
    size = sum(model.stat().st_size for model in models[1:]) + MIB // 2
    for model in models:
        flock.answer(model, ["a"], worker_arguments=["--cache-size", size])
        used = sum(path.stat().st_blocks * 512 for path in flock.cache("a").rglob("*") if path.is_file())
        assert used <= size
    assert sources(flock.answer(models[2], ["a"], worker_arguments=["--cache-size", size])) == [("cache", 0)]
    assert sources(flock.answer(models[1], ["a"], worker_arguments=["--cache-size", size])) == [("cache", 0)]
    assert sources(flock.answer(models[0], ["a"], worker_arguments=["--cache-size", size]))[0][0] == "shipped"


@pytest.mark.short
def test_a_cache_too_small_for_the_layers_is_refused_with_the_figures(flock, tiny):
    result = flock.run(tiny, ["a"], worker_arguments=["--cache-size", "300K"])
    assert result.code == CLUSTER and "--cache-size" in result.err and "MB" in result.err, repr(result)
    assert len(result.err.splitlines()) == 1


@pytest.mark.short
def test_a_cache_that_cannot_be_written_is_an_error_that_says_what_to_do(flock, tiny):
    flock.cache("a").write_text("a file")
    result = flock.run(tiny, ["a"])
    assert result.code == CLUSTER and "--cache" in result.err and len(result.err.splitlines()) == 1, repr(result)


@pytest.mark.skipif(not LINUX, reason="mounts a small file system in a namespace")
def test_a_full_disk_is_an_error_before_anything_is_sent(flock, smollm2):
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no mount namespaces here")
    flock.cache("a").mkdir()
    small = ["unshare", "-m", "sh", "-c", f'mount -t tmpfs -o size=20M none "{flock.cache("a")}" && exec "$0" "$@"']
    port = free_port()
    run = flock.coordinator(smollm2, port, 1)
    worker = flock.worker(port, "a", "--cache-size", "1G", prefix=small)
    result = run.wait(10)
    assert result.code == CLUSTER and len(result.err.splitlines()) == 1, repr(result)
    assert "disk" in result.err or "space" in result.err, repr(result)
    assert "--cache" in result.err
    end([worker])


@pytest.mark.skipif(not LINUX, reason="reads /proc")
def test_memory_stays_within_the_layers_while_weights_arrive(flock, smollm2):
    port = free_port()
    run = flock.coordinator(smollm2, port, 2)
    workers = [flock.worker(port, name) for name in ("a", "b")]
    peaks = {run.pid: 0, workers[0].pid: 0, workers[1].pid: 0}
    while run.popen.poll() is None:
        for pid in peaks:
            try:
                status = open(f"/proc/{pid}/status", encoding="utf-8").read()
            except OSError:
                continue
            for row in status.splitlines():
                if row.startswith("VmHWM:"):
                    peaks[pid] = max(peaks[pid], int(row.split()[1]) * 1024)
        time.sleep(0.005)
    answer = run.wait(5).json
    end(workers)
    for stage, worker in zip(answer["stages"], workers):
        assert stage["weights"] == "shipped"
        kv = 256 * 15 * 3 * 64 * 2 * 2
        assert peaks[worker.pid] <= 1.05 * stage["weight_bytes"] + kv + 64 * MIB, (stage, peaks)
    assert peaks[run.pid] <= 80 * MIB, peaks


@pytest.mark.skipif(not LINUX, reason="uses script for a terminal")
def test_progress_is_shown_on_a_terminal(flock, smollm2):
    import pty
    port = free_port()
    master, slave = pty.openpty()
    model = flock.folder / "gone" / smollm2.name
    model.parent.mkdir()
    shutil.copy(smollm2, model)
    from conftest import BIN
    run = subprocess.Popen([BIN / "woolly", "run", "-m", model, *map(str, PROMPT), "--listen", f"127.0.0.1:{port}"],
                           env=flock.woolly.env, stdout=subprocess.DEVNULL, stderr=slave)
    os.close(slave)
    wait_for(lambda: is_listening(port), 10)
    model.parent.rename(flock.folder / "elsewhere")
    worker = flock.worker(port, "a")
    shown = b""
    while True:
        try:
            got = os.read(master, 4096)
        except OSError:
            break
        if not got:
            break
        shown += got
    os.close(master)
    assert run.wait(10) == 0
    end([worker])
    assert b"sending weights to 1 worker: " in shown and b"MB/s" in shown, shown
