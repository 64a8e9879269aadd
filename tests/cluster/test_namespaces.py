"""Three hosts on one machine: network namespaces on a bridge, their links held to 1 Gbit/s, one of them behind a delay. Plans follow what is measured, and come true.

Needs root (CAP_NET_ADMIN), iproute2 and /dev/net/tun; skipped with the reason elsewhere. Speeds are compared where the delay decides them: those that the
processors decide are for tests/bench/predictions.py on a quiet machine.
"""
import os
import subprocess
import sys

import pytest

from conftest import LINUX, ROOT

pytestmark = pytest.mark.skipif(not LINUX, reason="network namespaces are Linux's")
ADDRESS, PORT = "198.51.100.{}", 7000
DELAY_S, LONG_S = 0.02, 0.1
RUN = "run", "--raw", "-p", "The sheep walk in a line", "-n", 8, "--temp", 0, "--ignore-eos", "--spec", "off", "--json"


def command(*arguments):
    return subprocess.run(arguments, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


@pytest.fixture(autouse=True, scope="module")
def may_make_networks():
    """Skips where a namespace with a link that is held, and with a tap interface, cannot be made."""
    name = f"woolly-{os.getpid() % 100000:x}"
    steps = [["ip", "netns", "add", name], ["ip", "-n", name, "tuntap", "add", "dev", "t", "mode", "tap"],
             ["tc", "-n", name, "qdisc", "add", "dev", "t", "root", "tbf", "rate", "1gbit", "burst", "64kb", "latency", "50ms"]]
    try:
        failed = next((f"{' '.join(step)}: {result.stderr.strip()}" for step in steps if (result := command(*step)).returncode != 0), None)
        command("ip", "netns", "delete", name)
    except OSError as error:
        failed = f"{error.filename} (iproute2) is not installed"
    if failed:
        pytest.skip(f"no networks can be made here: {failed}")


class Hosts:
    """Namespaces x, y and z with 198.51.100.1 to .3. Whoever is named in `delays` is behind that many seconds each way."""

    count = 0  # interfaces of a namespace that was deleted live on for a moment, so names are not used again

    def __init__(self, **delays):
        Hosts.count += 1
        self.tag = f"{os.getpid() % 100000:x}{Hosts.count:x}"
        self.bridge = f"wb{self.tag}"
        self.names = [f"woolly-{self.tag}-{letter}" for letter in "xyz"]
        self.delays = [delays.get(letter) for letter in "xyz"]
        self.lines = []

    def __enter__(self):
        try:
            self.must("ip", "link", "add", self.bridge, "type", "bridge")
            self.must("ip", "link", "set", self.bridge, "up")
            for i in range(3):
                self.add_host(i)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for line in self.lines:
            line.kill()
            line.wait()
        for name in self.names:
            command("ip", "netns", "delete", name)
        command("ip", "link", "delete", self.bridge)

    def must(self, *step):
        result = command(*step)
        assert result.returncode == 0, f"{' '.join(step)}: {result.stderr.strip()}"

    def add_host(self, i):
        name, end, inside = self.names[i], f"w{self.tag}{i}", f"i{self.tag}{i}"
        self.must("ip", "netns", "add", name)
        if self.delays[i]:
            line = subprocess.Popen([sys.executable, ROOT / "tests" / "delay_line.py", end, inside, str(self.delays[i])], stdout=subprocess.PIPE,
                                    stderr=subprocess.PIPE, text=True)
            self.lines.append(line)
            assert line.stdout.readline() == "ready\n", line.stderr.read()
            self.must("ip", "link", "set", inside, "netns", name)
        else:
            self.must("ip", "link", "add", end, "type", "veth", "peer", "name", inside, "netns", name)
        self.must("ip", "link", "set", end, "master", self.bridge, "up")
        self.must("ip", "-n", name, "address", "add", f"{ADDRESS.format(i + 1)}/24", "dev", inside)
        self.must("ip", "-n", name, "link", "set", inside, "up")
        self.must("ip", "-n", name, "link", "set", "lo", "up")
        self.must("tc", "-n", name, "qdisc", "add", "dev", inside, "root", "tbf", "rate", "1gbit", "burst", "64kb", "latency", "50ms")

    def prefix(self, i):
        return ["ip", "netns", "exec", self.names[i]]


def over(woolly, hosts, *arguments):
    """What `woolly …` on the first host prints as JSON, over a worker of one thread on each of the others: near and far."""
    try:
        for i, name in ((1, "near"), (2, "far")):
            woolly.start("--join", f"{ADDRESS.format(1)}:{PORT}", "--insecure", "--threads", 1, "--name", name, program="woolly-worker",
                         prefix=hosts.prefix(i))
        result = woolly.start(*arguments, "--listen", f"{ADDRESS.format(1)}:{PORT}", "--min-workers", 2, "--insecure",
                              prefix=hosts.prefix(0)).wait(60)
        assert result.code == 0, repr(result)
        return result.json
    finally:
        woolly.close()


def names(report):
    return [stage["name"] for stage in report["stages"]]


def test_two_near_hosts_share_the_layers_and_a_delay_is_as_slow_as_predicted(woolly, smollm2):
    with Hosts() as hosts:
        near = over(woolly, hosts, "plan", "-m", smollm2, "--json")
    with Hosts(z=DELAY_S) as hosts:
        run = over(woolly, hosts, *RUN, "-m", smollm2, "--use-all")
    assert set(names(near)) == {"near", "far"}, near["left_out"]
    assert all(s["link_figures"] == "measured" and s["link"]["latency_s"] < DELAY_S / 2 for s in near["stages"])
    assert run["predicted"]["run"]["decode_tok_s"] == pytest.approx(run["timings"]["decode_tok_s"], rel=0.15), run["predicted"]


def test_a_worker_behind_a_long_delay_is_left_out_and_that_is_faster(woolly, smollm2):
    with Hosts(z=LONG_S) as hosts:
        alone, both = (over(woolly, hosts, *RUN, "-m", smollm2, *flags) for flags in ((), ("--use-all",)))
    assert names(alone) == ["near"] and set(names(both)) == {"near", "far"}
    for key in ("prefill_tok_s", "decode_tok_s"):
        assert alone["timings"][key] > both["timings"][key], key
        assert alone["predicted"]["run"][key] > both["predicted"]["run"][key], key
