#!/usr/bin/env python3
"""What a hop costs, beside a bare ZeroMQ ping-pong of as many bytes, in one run.

  hop.py [-m MODEL.gguf] [--bin build/bin] [--sizes 8192,65536,4194304] [--rounds 9] [-n 64] [--json]

Links: `hop` (tests/bench/hop.c) takes turns between both, over ipc and tcp. With a model, `woolly run` over two local stages of one thread follows, each round beside a ping-pong of a
row's bytes: what its `hops` say of the one between the stages. There the receiving thread has slept since its last step, on a core that may have other work, and the step's header was decoded.
"""
import argparse
import json
import statistics
import subprocess


def run(*command):
    return json.loads(subprocess.run([str(part) for part in command], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True).stdout)


def stage_rounds(a):
    rows = []
    for _ in range(a.rounds):
        answer = run(f"{a.bin}/woolly", "run", "-m", a.model, "--raw", "-p", "Three sheep", "-n", a.tokens, "--ignore-eos", "--temp", 0, "--spec", "off", "--local", 2,
                     "--threads", 1, "--json")
        hop, size = answer["hops"][1], answer["hop"]["row_bytes"]
        bare = run(f"{a.bin}/hop", "--json", "--rounds", 1, "--sizes", size)["links"][0]["bare_us"]
        rows.append({"bytes": size, "bare_us": bare, "hop_us": 1e6 * hop["mean_s"], "least_us": 1e6 * hop["least_s"]})
    return rows


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("-m", dest="model")
    p.add_argument("--bin", default="build/bin")
    p.add_argument("--sizes", default="8192,65536,4194304")
    p.add_argument("--rounds", type=int, default=9)
    p.add_argument("-n", dest="tokens", type=int, default=64)
    p.add_argument("--json", action="store_true")
    a = p.parse_args()
    found = {transport: run(f"{a.bin}/hop", "--json", "--transport", transport, "--sizes", a.sizes, "--rounds", a.rounds) for transport in ("ipc", "tcp")}
    stages = stage_rounds(a) if a.model else []
    if a.json:
        print(json.dumps({"links": {name: one["links"] for name, one in found.items()}, "rounding": found["ipc"]["rounding"], "stages": stages}, indent=1))
        return
    print("| link | bytes | bare us | hop us | ratio | least | most |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, one in found.items():
        for row in one["links"]:
            print(f"| {name} | {row['bytes']} | {row['bare_us']:.1f} | {row['hop_us']:.1f} | {row['ratio']:.2f} | {row['least']:.2f} | {row['most']:.2f} |")
    if stages:
        ratios = sorted(row["hop_us"] / row["bare_us"] for row in stages)
        bare, hop, least = (statistics.median(row[key] for row in stages) for key in ("bare_us", "hop_us", "least_us"))
        print(f"| two stages | {stages[0]['bytes']} | {bare:.1f} | {hop:.1f} (least {least:.1f}) | {statistics.median(ratios):.2f} | {ratios[0]:.2f} | {ratios[-1]:.2f} |")
    print("\n| 128 rows of 2048 as | encode us | decode us | saved us at 1 Gbit/s |\n| --- | ---: | ---: | ---: |")
    for row in found["ipc"]["rounding"]:
        print(f"| {row['hop']} | {row['encode_us']:.0f} | {row['decode_us']:.0f} | {row['saved_us']:.0f} |")


if __name__ == "__main__":
    main()
