"""Plans: what machines and links were measured to do decides, a described cluster is simulated, and a file that describes none is refused with the place and the reason."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

INPUT, USAGE = 3, 2
CLUSTERS = Path(__file__).resolve().parents[1] / "clusters"
MACHINE = {"name": "m", "memory_bytes": 4e9, "bandwidth": 2e10, "macs_per_s": 1e11}
LINK = {"latency_s": 1e-4, "bytes_per_s": 1e9}


def described(tmp_path, machines, links=None, **more):
    path = tmp_path / "cluster.json"
    path.write_text(json.dumps({"machines": machines, "links": {**LINK, **(links or {})}, **more}))
    return path


@pytest.mark.short
@pytest.mark.parametrize("name,shape", [("four-macs-thunderbolt", "llama-3.3-70b"), ("64-boxes-ethernet", "llama-3.1-405b"),
                                        ("two-sites-50ms", "granite-3.3-8b")])
def test_described_clusters_are_planned_and_played_through(woolly, name, shape):
    report = woolly.json("plan", "--shape", shape, "--simulate", CLUSTERS / f"{name}.json", seconds=120)
    layers = [layer for s in report["stages"] for layer in range(s["layers"][0], s["layers"][1] + 1)]
    assert layers == list(range(report["n_layers"]))
    assert report["predicted"]["figures"] == "described"
    assert report["simulated"]["first_token_s"][0] <= report["simulated"]["first_token_s"][2]
    assert all(0 < busy <= 1.0001 for busy in report["simulated"]["busy_fraction"])


@pytest.mark.short
def test_what_a_plan_prints_can_be_simulated_again(woolly, tiny, tmp_path):
    plan = woolly.json("plan", "-m", tiny, "--local", 2)
    assert plan["predicted"]["figures"] in ("measured", "cached")
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    again = woolly.json("plan", "-m", tiny, "--simulate", tmp_path / "plan.json")
    assert [s["layers"] for s in again["stages"]] == [s["layers"] for s in plan["stages"]]
    for key in ("prefill_tok_s", "decode_tok_s", "streams8_tok_s"):
        assert abs(again["predicted"][key] / plan["predicted"][key] - 1) < 0.02


@pytest.mark.short
def test_a_slow_machine_is_left_out_and_the_plan_says_why(woolly, tiny, tmp_path):
    path = described(tmp_path, [MACHINE, {**MACHINE, "name": "slow", "bandwidth": 1e8, "macs_per_s": 1e9}])
    report = woolly.json("plan", "-m", tiny, "--simulate", path)
    assert [s["name"] for s in report["stages"]] == ["m"]
    assert report["left_out"][0]["name"] == "slow" and "left out" in report["left_out"][0]["why"]
    report = woolly.json("plan", "-m", tiny, "--simulate", path, "--use-all")
    assert {s["name"] for s in report["stages"]} == {"m", "slow"}


@pytest.mark.short
@pytest.mark.parametrize("text,needle", [
    ("", "line"), ("[]", "object"), ("{}", "machines"), ('{"machines": [', "line 1"),
    (json.dumps({"machines": [{**MACHINE, "bandwidth": "fast"}], "links": LINK}), "machines[0].bandwidth"),
    (json.dumps({"machines": [{**MACHINE, "memory_bytes": -1}], "links": LINK}), "machines[0].memory_bytes"),
    (json.dumps({"machines": [{k: v for k, v in MACHINE.items() if k != "macs_per_s"}], "links": LINK}), "macs_per_s: missing"),
    (json.dumps({"machines": [MACHINE, MACHINE], "links": LINK}), "machines[1].name"),
    (json.dumps({"machines": [{**MACHINE, "count": 1.5}], "links": LINK}), "whole number"),
    (json.dumps({"machines": [{**MACHINE, "count": 100000}], "links": LINK}), "count"),
    (json.dumps({"machines": [{**MACHINE, "row_cost": {"0": 1}}], "links": LINK}), "row_cost"),
    (json.dumps({"machines": [{**MACHINE, "speed": {}}], "links": LINK}), "machines[0].speed"),
    (json.dumps({"machines": [MACHINE], "links": {"latency_s": 1}}), "links.bytes_per_s"),
    (json.dumps({"machines": [MACHINE], "links": {**LINK, "between": [{"from": "m", "to": "x", **LINK}]}}), '"x"'),
    (json.dumps({"machines": [MACHINE], "links": LINK, "coordinator": "x"}), "coordinator"),
    (json.dumps({"machines": [MACHINE], "links": LINK, "requests": {"count": 1, "prompt_tokens": [9, 1], "generated_tokens": 1}}),
     "requests.prompt_tokens"),
])
def test_a_file_that_describes_no_cluster_is_refused_with_place_and_reason(expect_error, tiny, tmp_path, text, needle):
    path = tmp_path / "cluster.json"
    path.write_text(text)
    result = expect_error(INPUT, needle, "plan", "-m", tiny, "--simulate", path)
    assert str(path) in result.err


@pytest.mark.short
def test_a_missing_file_and_flags_that_contradict_are_refused(expect_error, tiny, tmp_path):
    expect_error(INPUT, "absent.json", "plan", "-m", tiny, "--simulate", tmp_path / "absent.json")
    expect_error(USAGE, "--local", "plan", "-m", tiny, "--simulate", "x.json", "--local", 2)
    expect_error(USAGE, "--objective", "plan", "-m", tiny, "--objective", "fame")


# -- three hosts ------------------------------------------------------------------------------------------------------------------------

RELAY = """
import asyncio, sys
listen, to, delay = sys.argv[1], sys.argv[2], float(sys.argv[3])
async def pump(reader, writer):
    loop, queue = asyncio.get_running_loop(), asyncio.Queue()
    async def drain():
        while True:
            at, data = await queue.get()
            await asyncio.sleep(max(0, at - loop.time()))
            if not data:
                writer.close()
                return
            writer.write(data)
            await writer.drain()
    task = asyncio.create_task(drain())
    while True:
        data = await reader.read(65536)
        queue.put_nowait((loop.time() + delay, data))
        if not data:
            break
    await task
async def serve(reader, writer):
    try:
        there, back = await asyncio.open_connection(*to.rsplit(":", 1))
    except OSError:
        writer.close()
        return
    await asyncio.gather(pump(reader, back), pump(there, writer), return_exceptions=True)
async def main():
    server = await asyncio.start_server(serve, *listen.rsplit(":", 1))
    print("ready", flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


def command(*arguments):
    return subprocess.run(arguments, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


@pytest.fixture
def three_hosts(request):
    """Prefixes of three namespaces on a bridge: 198.51.100.1 to .3, each link held to 1 Gbit/s."""
    tag = f"{os.getpid() % 100000:x}"
    names = [f"woolly-{tag}-{h}" for h in "xyz"]
    bridge = f"wb{tag}"
    request.addfinalizer(lambda: [command("ip", "netns", "delete", n) for n in names] + [command("ip", "link", "delete", bridge)])
    steps = [["ip", "link", "add", bridge, "type", "bridge"], ["ip", "link", "set", bridge, "up"]]
    for i, name in enumerate(names):
        end, inside = f"w{tag}{i}", f"i{tag}{i}"
        steps += [["ip", "netns", "add", name], ["ip", "link", "add", end, "type", "veth", "peer", "name", inside, "netns", name],
                  ["ip", "link", "set", end, "master", bridge, "up"],
                  ["ip", "-n", name, "address", "add", f"198.51.100.{i + 1}/24", "dev", inside],
                  ["ip", "-n", name, "link", "set", inside, "up"], ["ip", "-n", name, "link", "set", "lo", "up"],
                  ["ip", "netns", "exec", name, "tc", "qdisc", "add", "dev", inside, "root", "tbf", "rate", "1gbit", "burst", "64kb",
                   "latency", "50ms"]]
    for step in steps:
        try:
            result = command(*step)
        except OSError:
            pytest.skip(f"{step[0]} (iproute2) is not installed")
        if result.returncode != 0:
            pytest.skip(f"no network namespaces with held links here: {' '.join(step)}: {result.stderr.strip()}")
    return [["ip", "netns", "exec", name] for name in names]


def plan_over(woolly, hosts, model, delay_s):
    """Plan of a coordinator on host 1, with a worker of one thread each on hosts 2 and 3, the latter behind a delay."""
    relay = None
    far = "198.51.100.1:7000"
    if delay_s:
        relay = subprocess.Popen([*hosts[2], sys.executable, "-c", RELAY, "198.51.100.3:7001", "198.51.100.1:7000", str(delay_s)],
                                 stdout=subprocess.PIPE, text=True)
        assert relay.stdout.readline() == "ready\n"
        far = "198.51.100.3:7001"
    try:
        for name, prefix, address in (("near", hosts[1], "198.51.100.1:7000"), ("far", hosts[2], far)):
            woolly.start("--join", address, "--insecure", "--threads", 1, "--name", name, program="woolly-worker", prefix=prefix)
        result = woolly.start("plan", "-m", model, "--listen", "198.51.100.1:7000", "--min-workers", 2, "--insecure", "--json",
                              prefix=hosts[0]).wait(60)
        assert result.code == 0, repr(result)
        return result.json
    finally:
        woolly.close()
        if relay:
            relay.kill()
            relay.wait()


def test_a_delay_is_measured_and_a_worker_behind_a_long_one_is_left_out(woolly, three_hosts, smollm2):
    near, slower, far = (plan_over(woolly, three_hosts, smollm2, delay) for delay in (0, 0.02, 0.1))
    assert {s["name"] for s in near["stages"]} == {"near", "far"}, near["left_out"]
    assert all(s["link_figures"] == "measured" and s["link"]["latency_s"] < 0.01 for s in near["stages"])
    assert len(slower["stages"]) == 1 or slower["predicted"]["decode_tok_s"] < 0.5 * near["predicted"]["decode_tok_s"]
    assert [s["name"] for s in far["stages"]] == ["near"], [s["link"] for s in far["stages"]]
    assert far["left_out"][0]["name"] == "far" and "hop" in far["left_out"][0]["why"]
