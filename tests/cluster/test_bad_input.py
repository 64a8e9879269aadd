"""Every wrong flag, file and cluster is one line on stderr, the right exit code, soon, and leaves nothing running."""
import os
import random
import shutil
import socket

import numpy as np
import pytest
from gguf import GGUFReader, GGUFWriter

from conftest import BIN, free_port, tries

USAGE, INPUT, CLUSTER = 2, 3, 4


@pytest.fixture
def copy_of_tiny(tiny, tmp_path):
    """A writable copy of the tiny model."""
    return shutil.copy(tiny, tmp_path / "copy.gguf")


# -- models -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.short
@pytest.mark.parametrize("command", [["run", "-p", "Hi"], ["score", "-f", "/dev/null"], ["plan"], ["inspect"], ["tokenize", "-p", "Hi"]],
                         ids=lambda command: command[0])
def test_a_missing_model_is_named(expect_error, tmp_path, command):
    expect_error(INPUT, "nowhere.gguf", *command, "-m", tmp_path / "nowhere.gguf")


@pytest.mark.short
@pytest.mark.parametrize("content", [b"", b"G", b"GGUF", b"Once upon a time\n" * 100, b"GGUF" + b"\xff" * 4096, bytes(4096)],
                         ids=["empty", "one byte", "magic alone", "text", "magic and ones", "zeros"])
def test_a_file_that_is_no_model_is_named(expect_error, tmp_path, content):
    (tmp_path / "story.gguf").write_bytes(content)
    expect_error(INPUT, "story.gguf", "run", "-m", tmp_path / "story.gguf", "-p", "Hi", "--local", 2)


@pytest.mark.short
def test_a_folder_is_no_model(expect_error, tmp_path):
    expect_error(INPUT, str(tmp_path), "run", "-m", tmp_path, "-p", "Hi")


def check_truncations(expect_error, model, path, count):
    """`path` is a copy of `model` that is cut shorter and shorter."""
    end = max(int(t.data_offset) + int(t.n_bytes) for t in GGUFReader(model).tensors)
    places = random.Random(4).sample(range(end), count)
    for place in sorted(places, reverse=True):
        os.truncate(path, place)
        expect_error(INPUT, path.name, "run", "-m", path, "-p", "Hi", "-n", 1, "--local", 2)


def test_smollm2_cut_at_100_random_places_is_refused(expect_error, smollm2, tmp_path):
    path = tmp_path / "cut.gguf"
    shutil.copy(smollm2, path)
    check_truncations(expect_error, smollm2, path, 100)


@pytest.mark.short
def test_a_model_cut_inside_its_header_is_refused(expect_error, tiny, tmp_path):
    """Most of a large file is tensors; a small one has its cuts in metadata and names as well."""
    header = min(int(t.data_offset) for t in GGUFReader(tiny).tensors)
    path = tmp_path / "cut.gguf"
    content = tiny.read_bytes()
    for place in random.Random(5).sample(range(header), tries(60)):
        path.write_bytes(content[:place])
        expect_error(INPUT, "cut.gguf", "run", "-m", path, "-p", "Hi", "-n", 1, "--local", 2)


@pytest.mark.short
def test_a_header_with_any_byte_damaged_never_crashes(woolly, tiny, tmp_path):
    """It may still be a valid model; otherwise it is refused with one line. Either way, no crash and no hang."""
    content = bytearray(tiny.read_bytes())
    header = min(int(t.data_offset) for t in GGUFReader(tiny).tensors)
    choose, path = random.Random(6), tmp_path / "damaged.gguf"
    for _ in range(tries(80)):
        damaged = content[:]
        for _ in range(choose.randrange(1, 4)):
            damaged[choose.randrange(header)] = choose.randrange(256)
        path.write_bytes(damaged)
        result = woolly("run", "-m", path, "-p", "Hi", "-n", 1, "--ctx", 64, seconds=10)
        assert result.code in (0, INPUT, USAGE, CLUSTER), repr(result)
        assert result.code == 0 or len(result.err.splitlines()) == 1, repr(result)


@pytest.mark.short
def test_an_unknown_architecture_is_named(expect_error, tmp_path):
    writer = GGUFWriter(tmp_path / "new.gguf", "quantumsheep")
    writer.add_block_count(1)
    writer.add_tensor("token_embd.weight", np.zeros((8, 8), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    expect_error(INPUT, "quantumsheep", "run", "-m", tmp_path / "new.gguf", "-p", "Hi")


@pytest.mark.short
def test_a_control_character_in_a_file_stays_out_of_the_terminal(expect_error, tmp_path):
    writer = GGUFWriter(tmp_path / "evil.gguf", "evil\x1b]0;owned\x07\n")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    result = expect_error(INPUT, "evil", "run", "-m", tmp_path / "evil.gguf", "-p", "Hi")
    assert result.err.rstrip("\n").isprintable()


@pytest.mark.short
@pytest.mark.parametrize("content", ["", "[", "{}", "[]", "[1, 2", "[1.5]", '["1"]', "[-1]", "[421]", "[99999999999999999999]", "[null]", "1"])
def test_bad_tokens_are_refused(expect_error, tiny, tmp_path, content):
    (tmp_path / "tokens.json").write_text(content)
    expect_error(INPUT, "tokens.json", "score", "-m", tiny, "--tokens", tmp_path / "tokens.json")


@pytest.mark.short
def test_missing_prompt_and_token_files_are_named(expect_error, tiny, tmp_path):
    expect_error(INPUT, "nowhere", "run", "-m", tiny, "-f", tmp_path / "nowhere")
    expect_error(INPUT, "nowhere", "score", "-m", tiny, "-f", tmp_path / "nowhere")
    expect_error(INPUT, "nowhere", "score", "-m", tiny, "--tokens", tmp_path / "nowhere")
    expect_error(INPUT, "nowhere", "tokenize", "-m", tiny, "-f", tmp_path / "nowhere")


@pytest.mark.short
def test_a_logits_file_that_cannot_be_written_is_named(expect_error, tiny, tmp_path):
    (tmp_path / "tokens.json").write_text("[1, 2, 3]")
    expect_error(INPUT, "nowhere", "score", "-m", tiny, "--tokens", tmp_path / "tokens.json", "--logits", tmp_path / "nowhere" / "logits")


@pytest.mark.short
def test_a_prompt_longer_than_the_context_is_refused(expect_error, tiny, tmp_path):
    (tmp_path / "long").write_text("sheep " * 3000)
    expect_error(INPUT, "1024", "run", "-m", tiny, "-f", tmp_path / "long")
    expect_error(INPUT, "32", "run", "-m", tiny, "--ctx", 32, "-p", "sheep and more sheep " * 20)


# -- flags ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.short
@pytest.mark.parametrize("arguments", [
    ["run"], ["run", "-p", "Hi"], ["score", "-m", "MODEL"], ["score", "-m", "MODEL", "--tokens", "a", "-f", "b"], ["fly"],
    ["run", "-m", "MODEL", "--nonsense"], ["run", "-m", "MODEL", "-p", "Hi", "-n", "many"], ["run", "-m", "MODEL", "-p", "Hi", "-n", "-1"],
    ["run", "-m", "MODEL", "-p", "Hi", "-n"], ["run", "-m", "MODEL", "-p", "Hi", "more"], ["run", "-m", "MODEL", "-p", "Hi", "--local", "0"],
    ["run", "-m", "MODEL", "-p", "Hi", "--local", "1000000"], ["run", "-m", "MODEL", "-p", "Hi", "--threads", "99999999"],
    ["run", "-m", "MODEL", "-p", "Hi", "--temp", "warm"], ["run", "-m", "MODEL", "-p", "Hi", "--temp", "-1"],
    ["run", "-m", "MODEL", "-p", "Hi", "--temp", "nan"], ["run", "-m", "MODEL", "-p", "Hi", "--top-p", "2"],
    ["run", "-m", "MODEL", "-p", "Hi", "--min-p", "-0.5"], ["run", "-m", "MODEL", "-p", "Hi", "--seed", "1e3"],
    ["run", "-m", "MODEL", "-p", "Hi", "-f", "file"], ["run", "-m", "MODEL", "-p", "Hi", "--stop", ""],
    ["run", "-m", "MODEL", "-p", "Hi", "--ctx", "5000"], ["run", "-m", "MODEL", "-p", "Hi", "-n", "5000"],
    ["run", "-m", "MODEL", "-p", "Hi", "--isa", "abacus"], ["run", "-m", "MODEL", "-p", "Hi", "--json=yes"],
    ["run", "-m", "MODEL", "-p", "Hi", "--listen", "host"], ["run", "-m", "MODEL", "-p", "Hi", "--listen", "127.0.0.1:99999"],
    ["run", "-m", "MODEL", "-p", "Hi", "--listen", "127.0.0.1:7000", "--min-workers", "0"],
    ["run", "-m", "MODEL", "-p", "Hi", "--join-timeout", "-1"],
    ["run", "-m", "MODEL", "-p", "Hi", "--listen", "0.0.0.0:7000"], ["run", "-m", "MODEL", "-p", "Hi", "--listen", "*:7000"],
], ids=" ".join)
def test_wrong_flags_are_refused(expect_error, tiny, arguments):
    expect_error(USAGE, "woolly", *[tiny if a == "MODEL" else a for a in arguments])


@pytest.mark.short
@pytest.mark.parametrize("arguments", [["--nonsense"], ["--threads", "x"], ["--memory", "12Q"], ["--memory", "-1"], ["--join", "nohost"],
                                       ["--join", "127.0.0.1:99999"], ["--join", "192.0.2.1:7000"], ["--name", ""], ["more"]], ids=" ".join)
def test_wrong_flags_of_a_worker_are_refused(expect_error, arguments):
    expect_error(USAGE, "woolly-worker", *arguments, program="woolly-worker")


@pytest.mark.short
@pytest.mark.parametrize("program", ["woolly", "woolly-worker"])
def test_help_and_version_go_to_stdout(woolly, program):
    assert b"usage" in woolly.done("--help", program=program).out
    assert b"0." in woolly.done("--version", program=program).out


@pytest.mark.short
def test_more_workers_than_layers_are_refused(expect_error, tiny):
    expect_error(USAGE, "7", "run", "-m", tiny, "-p", "Hi", "--local", 7)
    expect_error(USAGE, "7", "plan", "-m", tiny, "--local", 7)


def test_31_workers_are_too_many_for_smollm2(expect_error, smollm2):
    expect_error(USAGE, "30", "run", "-m", smollm2, "-p", "Hi", "--local", 31)


@pytest.mark.short
@pytest.mark.parametrize("layers", ["0-1,3-5", "0-3,2-5", "0-2,3-4", "1-2,3-5", "0-2,3-6", "3-5,0-2", "2-0,3-5", "0-5,", ",0-5", "0-2,,3-5",
                                    "0-2;3-5", "a-b", "-1-5", "0-99999999999999999999", "0--5", "", "0-2,3-5x"])
def test_layers_with_a_hole_an_overlap_or_a_slip_are_refused(expect_error, tiny, layers):
    expect_error(USAGE, "layers", "run", "-m", tiny, "-p", "Hi", "--layers", layers)
    expect_error(USAGE, "layers", "plan", "-m", tiny, "--layers", layers)


@pytest.mark.short
@pytest.mark.parametrize("local,layers", [(3, "0-2,3-5"), (1, "0-2,3-5"), (2, "0-5")])
def test_layers_need_as_many_ranges_as_workers(expect_error, tiny, local, layers):
    expect_error(USAGE, "layers", "run", "-m", tiny, "-p", "Hi", "--local", local, "--layers", layers)


# -- clusters ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.short
def test_a_missing_worker_program_is_named(expect_error, tiny, tmp_path):
    shutil.copy(BIN / "woolly", tmp_path / "woolly")
    expect_error(CLUSTER, "woolly-worker", "run", "-m", tiny, "-p", "Hi", "--local", 2, bin_folder=tmp_path)


@pytest.mark.short
@pytest.mark.parametrize("worker", ["/bin/false", "/bin/true", "/dev/null", "/"])
def test_a_worker_program_that_is_none_fails_soon(expect_error, tiny, worker):
    expect_error(CLUSTER, "worker", "run", "-m", tiny, "-p", "Hi", "--local", 2, "--worker-binary", worker)


@pytest.mark.short
def test_a_port_in_use_is_named(expect_error, tiny):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        expect_error(CLUSTER, str(port), "run", "-m", tiny, "-p", "Hi", "--listen", f"127.0.0.1:{port}")


@pytest.mark.short
def test_no_worker_within_the_join_timeout_is_an_error(expect_error, tiny):
    address = f"127.0.0.1:{free_port()}"
    result = expect_error(CLUSTER, address, "run", "-m", tiny, "-p", "Hi", "--listen", address, "--join-timeout", 0.5, within=1.5)
    assert result.seconds > 0.4


def test_too_few_workers_within_the_join_timeout_are_an_error(expect_error, woolly, tiny):
    port = free_port()
    worker = woolly.worker(port, "only")
    result = woolly("run", "-m", tiny, "-p", "Hi", "--listen", f"127.0.0.1:{port}", "--min-workers", 2, "--join-timeout", 1)
    assert result.code == CLUSTER and len(result.err.splitlines()) == 1, repr(result)
    assert "1" in result.err and "2" in result.err
    assert worker.popen.poll() is None


@pytest.mark.short
def test_a_model_that_does_not_fit_is_refused_with_the_figures(woolly, tiny):
    port = free_port()
    for i in range(2):
        woolly.worker(port, f"w{i}", "--memory", "1M")
    result = woolly("run", "-m", tiny, "-p", "Hi", "--listen", f"127.0.0.1:{port}", "--min-workers", 2)
    assert result.code == CLUSTER and len(result.err.splitlines()) == 1, repr(result)
    assert "MB" in result.err and result.out == b"", repr(result)


def test_smollm2_fits_over_workers_of_which_none_could_hold_it_alone(woolly, smollm2):
    port = free_port()
    for i in range(3):
        woolly.worker(port, f"w{i}", "--memory", "150M")
    arguments = ["-m", smollm2, "-p", "Hi", "-n", 4, "--temp", 0, "--ctx", 256, "--listen", f"127.0.0.1:{port}"]
    assert len(woolly.json("run", *arguments, "--min-workers", 3)["stages"]) == 3
