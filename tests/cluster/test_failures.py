"""Processes that die, stop or are interrupted in the middle: an error soon, what was said so far shown, and nothing left running."""
import os
import signal
import subprocess

import pytest

from conftest import BIN, LINUX, children_of, free_port, is_running, wait_for

CLUSTER = 4


@pytest.fixture
def endless(woolly, smollm2):
    """endless (arguments…): an answer that would take a minute, once its first words are out."""

    def start(*arguments, **options):
        run = woolly.start("run", "-m", smollm2, "--raw", "-p", "Once upon a time", "-n", 4000, "--temp", 0, "--ignore-eos",
                           *arguments, **options)
        run.wait_for_output(20)
        return run

    return start


def workers_of(run, count):
    """Its local workers' processes."""
    workers = children_of(run.pid)
    assert len(workers) == count, workers
    return sorted(workers)


def expect_lost_worker(run, seconds):
    result = run.wait(seconds)
    assert result.code == CLUSTER, repr(result)
    assert len(result.err.splitlines()) == 1, repr(result)
    assert result.out, "what was said before is lost"
    return result


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_killed_worker_is_an_error_within_3_s(endless, which):
    run = endless("--local", 3)
    os.kill(workers_of(run, 3)[which], signal.SIGKILL)
    result = expect_lost_worker(run, 3)
    assert f"local-{which + 1}" in result.err, repr(result)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_stopped_worker_is_an_error_within_4_s(endless, which):
    run = endless("--local", 3)
    stopped = workers_of(run, 3)[which]
    os.kill(stopped, signal.SIGSTOP)
    expect_lost_worker(run, 4)
    wait_for(lambda: not is_running(stopped), 2, "the stopped worker stays")


def test_a_killed_worker_that_had_joined_is_an_error_that_names_it(woolly, endless):
    port = free_port()
    workers = [woolly.worker(port, f"far-{i}") for i in range(2)]
    run = endless("--listen", f"127.0.0.1:{port}", "--min-workers", 2)
    workers[1].signal(signal.SIGKILL)
    assert "far-1" in expect_lost_worker(run, 3).err
    assert workers[0].popen.poll() is None, "the worker that is left should wait for the next coordinator"


def test_a_worker_that_lost_its_coordinator_serves_the_next_one(woolly, endless, smollm2):
    port = free_port()
    workers = [woolly.worker(port, f"far-{i}") for i in range(2)]
    run = endless("--listen", f"127.0.0.1:{port}", "--min-workers", 2)
    run.signal(signal.SIGKILL)
    run.wait(1)
    answer = woolly.json("run", "-m", smollm2, "-p", "Hi", "-n", 4, "--listen", f"127.0.0.1:{port}", "--min-workers", 2, "--join-timeout", 20)
    assert len(answer["stages"]) == 2
    assert all(worker.popen.poll() is None for worker in workers)


@pytest.mark.parametrize("when", ["generating", "loading"])
def test_workers_of_a_killed_coordinator_end_within_2_s(woolly, smollm2, when):
    run = woolly.start("run", "-m", smollm2, "--raw", "-p", "Once", "-n", 4000, "--temp", 0, "--ignore-eos", "--local", 3)
    if when == "generating":
        run.wait_for_output(20)
    workers = wait_for(lambda: len(children_of(run.pid)) == 3 and children_of(run.pid), 10)
    run.signal(signal.SIGKILL)
    run.wait(1)
    wait_for(lambda: not any(is_running(pid) for pid in workers), 2, "workers are left")


@pytest.mark.skipif(not LINUX, reason="a stopped process can only be ended by the system's parent-death signal, which Linux has")
def test_a_stopped_worker_of_a_killed_coordinator_ends_too(endless):
    run = endless("--local", 3)
    workers = workers_of(run, 3)
    os.kill(workers[1], signal.SIGSTOP)
    run.signal(signal.SIGKILL)
    run.wait(1)
    wait_for(lambda: not any(is_running(pid) for pid in workers), 2, "workers are left")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_waiting_worker_ends_when_it_is_told_to(woolly, number):
    worker = woolly.worker(free_port(), "idle")
    wait_for(lambda: len(list_threads(worker.pid)) > 1 or not LINUX, 5)
    worker.signal(number)
    result = worker.wait(2)
    assert result.code == 0, repr(result)


def list_threads(pid):
    return os.listdir(f"/proc/{pid}/task") if LINUX else [1, 2]


def test_ctrl_c_keeps_what_was_said(woolly, endless, smollm2):
    run = endless("--local", 2)
    run.signal(signal.SIGINT)
    result = run.wait(2)
    assert result.code == 0, repr(result)
    assert result.err == ""
    whole = woolly.done("run", "-m", smollm2, "--raw", "-p", "Once upon a time", "-n", 400, "--temp", 0, "--ignore-eos").out
    assert len(result.out) >= 20 and whole.startswith(result.out[:len(whole)])


def test_ctrl_c_with_json_prints_the_object(woolly, smollm2):
    run = woolly.start("run", "-m", smollm2, "--raw", "-p", "Once", "-n", 4000, "--temp", 0, "--ignore-eos", "--local", 2, "--json")
    wait_for(lambda: len(children_of(run.pid)) == 2, 10)
    wait_for(lambda: busy_seconds(run.pid) > 1.0 or not LINUX, 20)
    run.signal(signal.SIGINT)
    result = run.wait(3)
    assert result.code == 0, repr(result)
    answer = result.json
    assert 0 < answer["completion_tokens"] < 4000 and answer["completion_tokens"] == len(answer["tokens"])


def busy_seconds(pid):
    """CPU time of its children: they have loaded and compute."""
    total = 0
    for child in children_of(pid):
        fields = open(f"/proc/{child}/stat", encoding="utf-8").read().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_waiting_for_workers_ends_the_run(woolly, smollm2, number):
    run = woolly.start("run", "-m", smollm2, "-p", "Hi", "--listen", f"127.0.0.1:{free_port()}", "--min-workers", 2)
    wait_for(lambda: len(list_threads(run.pid)) > 2 or not LINUX, 5)
    run.signal(number)
    result = run.wait(2)
    assert result.code != 0 and len(result.err.splitlines()) == 1, repr(result)


def test_a_second_ctrl_c_ends_at_once(endless):
    """A stopped worker holds up the clean end, so that the second signal finds the first still at work."""
    run = endless("--local", 2)
    os.kill(workers_of(run, 2)[0], signal.SIGSTOP)
    run.signal(signal.SIGINT)
    try:
        run.popen.wait(0.2)
    except subprocess.TimeoutExpired:
        run.signal(signal.SIGINT)
    result = run.wait(1)
    assert result.code in (0, 130), repr(result)


def test_a_closed_output_ends_the_run(woolly, smollm2):
    """As in `woolly run … | head -c 10`: nobody reads on, so nothing computes on."""
    read_end, write_end = os.pipe()
    run = subprocess.Popen([BIN / "woolly", "run", "-m", smollm2, "--raw", "-p", "Once", "-n", "4000", "--temp", "0", "--ignore-eos",
                            "--local", "2"], stdout=write_end, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, env=woolly.env)
    os.close(write_end)
    try:
        assert os.read(read_end, 10)
        os.close(read_end)
        run.wait(5)
    finally:
        run.kill()
        run.wait()
