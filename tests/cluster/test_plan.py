"""Plans: what machines and links were measured to do decides, a described cluster is simulated, and a file that describes none is refused with the place and the reason."""
import json
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
