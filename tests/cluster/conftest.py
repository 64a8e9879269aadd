"""What all cluster tests share: the programs under test, models, goldens, and the check that no process outlives its test.

Environment: WOOLLY_BIN (folder of the programs; build/bin), WOOLLY_CACHE (models, as for the programs), WOOLLY_SHARED (goldens; ../shared beside the
repository, tests that need it are skipped without), WOOLLY_SLOW (factor on time limits, for sanitized builds).
"""
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
import make_model  # noqa: E402
from reference import Reference  # noqa: E402

BIN = Path(os.environ.get("WOOLLY_BIN", ROOT / "build" / "bin")).resolve()
SHARED = Path(os.environ.get("WOOLLY_SHARED", ROOT.parent / "shared"))
CACHE = Path(os.environ.get("WOOLLY_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "woolly")
SLOW = float(os.environ.get("WOOLLY_SLOW", 1))
SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"
LINUX = sys.platform == "linux"


def pytest_configure(config):
    config.addinivalue_line("markers", "short: also run under the sanitizers")


def pytest_report_header():
    return f"programs: {BIN}; shared: {SHARED if SHARED.is_dir() else 'absent'}"


def tries(count):
    """How many inputs a test tries that has endless ones: a quarter of them where each takes ten times as long; the fuzz targets try more."""
    return count if SLOW == 1 else count // 4


# -- processes --------------------------------------------------------------------------------------------------------------------


def wait_for(condition, seconds, what=""):
    """Polls until condition() is true and returns what it gave; fails after `seconds`."""
    end = time.monotonic() + seconds * SLOW
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"not within {seconds} s: {what or condition}"
        time.sleep(0.01)


def children_of(pid):
    """Processes whose parent is `pid`."""
    if not LINUX:
        rows = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout.split("\n")
        return [int(row.split()[0]) for row in rows if row.strip() and int(row.split()[1]) == pid]
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def is_running(pid):
    """Whether it exists and is no zombie."""
    if not LINUX:
        state = subprocess.run(["ps", "-o", "state=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout.strip()
        return bool(state) and not state.startswith("Z")
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def processes_of(mark):
    """Live processes that carry WOOLLY_TEST=mark in their environment: those of one test, however they were started."""
    if not LINUX:
        rows = subprocess.run(["ps", "-A", "-E", "-ww", "-o", "pid=,command="], capture_output=True, text=True, check=True).stdout
        return [int(row.split()[0]) for row in rows.split("\n") if f"WOOLLY_TEST={mark}" in row]
    needle, found = f"WOOLLY_TEST={mark}\0".encode(), []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if needle in environ.read_bytes() + b"\0":
                found.append(int(environ.parent.name))
        except OSError:
            continue
    return [pid for pid in found if pid != os.getpid() and is_running(pid)]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def random_tokens(seed, count):
    """Ordinary tokens of the own models' vocabulary."""
    choose = random.Random(seed)
    return [choose.randrange(5, 420) for _ in range(count)]


class Result:
    def __init__(self, arguments, code, out, err, seconds):
        self.arguments, self.code, self.out, self.err, self.seconds = arguments, code, out, err.decode(errors="replace"), seconds

    @property
    def json(self):
        return json.loads(self.out)

    def __repr__(self):
        command = " ".join(str(a) for a in self.arguments)
        return f"`{command}` gave {self.code} after {self.seconds:.2f} s; stdout {self.out[-300:]!r}; stderr {self.err[-1000:]!r}"


class Process:
    """A program running in the background; its output goes to files, so that it never blocks."""

    def __init__(self, arguments, env, folder, stdin=subprocess.DEVNULL, prefix=()):
        self.arguments = arguments
        self.out_file = tempfile.NamedTemporaryFile(dir=folder, delete=False)
        self.err_file = tempfile.NamedTemporaryFile(dir=folder, delete=False)
        self.started = time.monotonic()
        self.popen = subprocess.Popen([*prefix, *map(str, arguments)], stdin=stdin, stdout=self.out_file, stderr=self.err_file, env=env)
        self.pid = self.popen.pid

    @property
    def out(self):
        return Path(self.out_file.name).read_bytes()

    @property
    def err(self):
        return Path(self.err_file.name).read_text(errors="replace")

    def signal(self, number):
        self.popen.send_signal(number)

    def wait_for_output(self, n_bytes=1, seconds=20):
        def arrived():
            assert self.popen.poll() is None, f"ended early: {self.result()!r}"
            return len(self.out) >= n_bytes
        wait_for(arrived, seconds, f"{n_bytes} bytes from {self.arguments}: {self.err}")

    def result(self):
        return Result(self.arguments, self.popen.returncode, self.out, self.err.encode(), time.monotonic() - self.started)

    def wait(self, seconds=60):
        """The result, once it has ended; fails if it has not within `seconds`."""
        try:
            self.popen.wait(seconds * SLOW)
        except subprocess.TimeoutExpired:
            pytest.fail(f"still running after {seconds} s: {self.arguments}; stderr {self.err!r}")
        return self.result()

    def close(self):
        if self.popen.poll() is None:
            self.popen.kill()
            self.popen.wait()
        for file in (self.out_file, self.err_file):
            file.close()
            os.unlink(file.name)


class Woolly:
    """Runs the programs for one test."""

    def __init__(self, mark, folder):
        self.mark, self.folder, self.processes = mark, folder, []
        self.temporary = tempfile.mkdtemp(prefix="wt-")  # the programs'; short, as the path of a socket has to be
        self.env = {**os.environ, "WOOLLY_TEST": mark, "TMPDIR": self.temporary}

    def start(self, *arguments, program="woolly", bin_folder=BIN, **options):
        path = Path(bin_folder) / program
        process = Process([path, *arguments], self.env, self.folder, **options)
        self.processes.append(process)
        return process

    def __call__(self, *arguments, stdin=None, seconds=60, **options):
        """Runs `woolly arguments…` to its end. stdin: bytes, or nothing at all."""
        if stdin is None:
            return self.start(*arguments, **options).wait(seconds)
        with tempfile.TemporaryFile(dir=self.folder) as file:
            file.write(stdin)
            file.seek(0)
            return self.start(*arguments, stdin=file, **options).wait(seconds)

    def done(self, *arguments, **options):
        """As a call, and it must succeed with nothing on stderr."""
        result = self(*arguments, **options)
        assert result.code == 0 and result.err == "", repr(result)
        return result

    def json(self, *arguments, **options):
        return self.done(*arguments, "--json", **options).json

    def worker(self, port, name, *arguments, **options):
        return self.start("--join", f"127.0.0.1:{port}", "--name", name, *arguments, program="woolly-worker", **options)

    def logits(self, model, tokens, *arguments, seconds=120):
        """What `woolly score --logits` writes for these tokens: [n_tokens, n_vocab]."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        (folder / "tokens.json").write_text(json.dumps(tokens))
        self.done("score", "-m", model, "--tokens", folder / "tokens.json", "--logits", folder / "logits", *arguments, seconds=seconds)
        logits = np.fromfile(folder / "logits", "<f4")
        assert logits.size % len(tokens) == 0
        return logits.reshape(len(tokens), -1)

    def close(self):
        """Ends what the test started; tells whether anything was, or had been, killed."""
        killed = any(process.popen.poll() in (None, -signal.SIGKILL) for process in self.processes)
        for process in self.processes:
            process.close()
        self.processes = []
        return killed


@pytest.fixture
def woolly(request, tmp_path):
    """The programs. After the test, whatever it started must have ended by itself within 2 s, its own Popen objects aside, and have left no file.
    (The test's own programs are killed, so a worker that it started may leave its folder of sockets.)"""
    digest = hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]
    runner = Woolly(f"{digest}-{os.getpid()}", tmp_path)
    yield runner
    killed = runner.close()
    end, left = time.monotonic() + 2 * SLOW, processes_of(runner.mark)
    while left and time.monotonic() < end:
        time.sleep(0.02)
        left = processes_of(runner.mark)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    files = [str(path) for path in Path(runner.temporary).rglob("*") if path.is_file() or path.is_socket()]
    shutil.rmtree(runner.temporary)
    assert not left, f"processes outlived the test: {left}"
    assert killed or not files, f"files are left: {files}"


@pytest.fixture
def expect_error(woolly):
    """expect_error (CODE, "part of the text", arguments…): one line on stderr, this exit code, within a second, and nothing left."""

    def check(code, needle, *arguments, within=1.0, **options):
        result = woolly(*arguments, seconds=20, **options)
        assert result.code == code, repr(result)
        lines = result.err.splitlines()
        assert len(lines) == 1 and result.err.endswith("\n"), f"not one line: {result!r}"
        assert needle.lower() in lines[0].lower(), f"{needle!r} is not in: {result!r}"
        assert result.seconds < within * SLOW, repr(result)
        wait_for(lambda: not processes_of(woolly.mark), 1, "processes are left")
        return result

    return check


# -- models -----------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def own_models():
    """Folder of the models of make_model.py; made once for this build and version of the script."""
    version = hashlib.sha256(Path(make_model.__file__).read_bytes()).hexdigest()[:12]
    folder = BIN.parent / "test-models" / version
    for name in make_model.MODELS:
        make_model.make(name, folder)
    return folder


@pytest.fixture(scope="session")
def tiny(own_models):
    """The model that tests use which are not about the model."""
    return own_models / "llama-q4_0.gguf"


@pytest.fixture(scope="session")
def smollm2():
    path = CACHE / "models" / SMOLLM2
    if not path.exists():
        pytest.skip(f"{path} is not there: tests/run.sh fetches it")
    return path


@pytest.fixture(scope="session")
def shared():
    if not (SHARED / "goldens").is_dir():
        pytest.skip("the folder with goldens (WOOLLY_SHARED) is not there")
    return SHARED


@pytest.fixture(scope="session")
def exact_logits():
    """exact_logits (PATH, TOKENS): the reference's logits, computed once a session."""
    references, results = {}, {}

    def compute(path, tokens, as_woolly=False, dtype=np.float64):
        key = (path, as_woolly, dtype)
        if key not in references:
            references[key] = Reference(path, as_woolly, dtype)
        if (key, tuple(tokens)) not in results:
            results[key, tuple(tokens)] = references[key].logits(tokens)
        return results[key, tuple(tokens)]

    return compute
