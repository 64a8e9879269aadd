"""Packed weights are kept on disk: the next start, with whatever split, maps them, and nothing that goes wrong with them stops a worker."""
import subprocess

import pytest

from conftest import LINUX, free_port, wait_for

MODEL = "granite-q4_k_m.gguf"
PROMPT = ("--raw", "-p", "The sheep walk", "-n", 8, "--temp", 0)


@pytest.fixture
def answer(woolly, own_models, tmp_path):
    """answer (LAYERS…): one run over as many joined workers that share a cache, as run --json reports it."""
    cache = tmp_path / "cache"

    def run(*layers, flags=("--pack-cache-least", 1), folder=cache, run_flags=()):
        port = free_port()
        workers = [woolly.worker(port, f"w{i}", "--threads", 1, "--cache", folder, *flags) for i in range(len(layers))]
        started = woolly.start("run", "-m", own_models / MODEL, *PROMPT, "--json", "--listen", f"127.0.0.1:{port}", "--min-workers",
                               len(layers), "--layers", ",".join(layers), *run_flags)
        result = started.wait(60)
        assert result.code == 0 and result.err == "", repr(result)
        run.said = "".join(worker.err for worker in workers)
        for worker in workers:
            worker.popen.terminate()
            worker.wait(10)
        return result.json

    return run


def kept(report):
    return sum(stage["kept_bytes"] for stage in report["stages"])


def test_any_split_finds_what_another_packed(answer):
    plain = answer("0-5", flags=("--no-pack-cache",))
    first = answer("0-2", "3-5")
    whole = answer("0-5")
    again = answer("0-0", "1-4", "5-5")
    assert plain["tokens"] == first["tokens"] == whole["tokens"] == again["tokens"]
    assert kept(plain) == kept(first) == 0
    assert kept(whole) == kept(again) > sum(s["weight_bytes"] for s in whole["stages"]) / 2  # of the embedding nothing is packed
    assert "warning" not in answer.said


@pytest.mark.short
def test_nothing_is_kept_when_told_or_for_a_small_model(answer, tmp_path):
    for options in (dict(flags=("--pack-cache-least", 1, "--no-pack-cache")), dict(flags=()), dict(run_flags=("--no-pack-cache",))):
        answer("0-5", **options)
        assert not (tmp_path / "cache" / "packed").exists()


@pytest.mark.short
def test_a_cache_that_cannot_be_written_is_said_and_done_without(answer, tmp_path):
    (tmp_path / "file").write_text("no folder")
    report = answer("0-5", folder=tmp_path / "file" / "cache")
    assert kept(report) == 0 and len(report["tokens"]) == 8
    assert answer.said.count("warning: packed weights are not kept:") == 1


@pytest.mark.short
def test_a_cache_smaller_than_the_model_is_said_and_done_without(answer):
    report = answer("0-5", flags=("--pack-cache-least", 1, "--cache-size", "8K"))
    assert len(report["tokens"]) == 8 and "--cache-size" in answer.said


@pytest.mark.short
def test_damaged_tiles_are_packed_again(answer, tmp_path):
    tokens = answer("0-5")["tokens"]
    (tiles,) = (tmp_path / "cache" / "packed").glob("*/tiles")
    subprocess.run(["truncate", "-s", "0", tiles], check=True)
    report = answer("0-5")
    assert report["tokens"] == tokens and kept(report) == 0
    report = answer("0-5")
    assert report["tokens"] == tokens and kept(report) > 0


@pytest.mark.skipif(not LINUX, reason="reads /proc")
def test_workers_of_a_host_map_one_file(woolly, own_models, tmp_path):
    port = free_port()
    workers = [woolly.worker(port, f"w{i}", "--threads", 1, "--cache", tmp_path / "cache", "--pack-cache-least", 1) for i in range(2)]
    run = woolly.start("run", "-m", own_models / MODEL, *PROMPT[:-4], "-n", 900, "--ignore-eos", "--listen", f"127.0.0.1:{port}",
                       "--min-workers", 2)

    def maps(worker):
        lines = open(f"/proc/{worker.pid}/maps", encoding="utf-8").read().split("\n")
        return {tuple(line.split()[3:5]) for line in lines if line.endswith("/tiles") and " r--s " in line}

    wait_for(lambda: all(maps(worker) for worker in workers), 20, "both have mapped their tiles")
    assert maps(workers[0]) == maps(workers[1])
    run.wait(60)
