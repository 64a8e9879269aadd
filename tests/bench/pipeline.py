#!/usr/bin/env python3
"""What stages cost and what speculation brings, in one run: one process with all threads, against stages of one thread each.

  pipeline.py -m MODEL.gguf [--woolly build/bin/woolly] [-t 2] [--stages 2,4] [-p 512] [-n 48] [-b 8] [--rounds 5] [--only stages|speculation]
              [--draft SMALLER.gguf] [--json]

Stages: `woolly bench` with one local worker of -t threads takes turns with 2 and 4 workers of one thread. Speculation: `woolly run` on a text that repeats and on one that
does not (drawn at temperature 1), with --spec off, ngram and auto (and draft:SMALLER.gguf as it decides by itself, and always on), on one process and over the first number of
stages; the tokens must be the same in all of them.

Everything takes turns, round by round, so that a machine whose speed drifts drifts for all; ratios are taken within a round, and their median counts. `cpu` is
seconds of user and system time, which says more where others use the machine as well.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

CODE = """def parse_config(path):
    result = {}
    with open(path) as handle:
        for line in handle:
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            key, _, data = line.partition("=")
            result[key.strip()] = data.strip()
    return result


def merge_configs(base, override):
    result = dict(base)
    for key, data in override.items():
        if key in result and isinstance(result[key], dict):
            result[key] = merge_configs(result[key], data)
        else:
            result[key] = data
    return result
"""
REPEATS = (f"# The original file:\n\n{CODE}\n# The same file with the variable `handle` renamed to `source`, and nothing else changed:\n\n"
           + CODE.replace("handle", "source") + f"\n# Once more, the original file:\n\n{CODE[:24]}")
NOVEL = "The lighthouse keeper had not spoken to anyone for eleven days when the letter came. It said that"


def run(command):
    before = os.times()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    after = os.times()
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed: {done.stderr.strip()}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return json.loads(done.stdout), cpu


def layouts(a):
    """Name and flags of each way to use the machine."""
    return [(f"1x{a.threads}", ["--local", "1", "--threads", str(a.threads)])] + [
        (f"{n}x1", ["--local", str(n), "--threads", "1"]) for n in a.stages]


def stages_round(a, backwards):
    found = {}
    for name, flags in reversed(layouts(a)) if backwards else layouts(a):
        rows, cpu = run([a.woolly, "bench", "-m", a.model, "-p", str(a.prompt), "-n", str(a.tokens), "-b", f"1,{a.streams}", "-r", "1",
                         "--format", "json", *flags])
        for row in rows:
            found[row["test"], name] = row["tok_s"]
        found["cpu", name] = cpu
    return found


def kinds(a):
    """Name and flags of each way to guess."""
    found = {kind: ["--spec", kind] for kind in ("off", "ngram", "auto")}
    if a.draft:
        found["draft"] = ["--spec", f"draft:{a.draft}"]
        found["draft always"] = [*found["draft"], "--draft-always"]
    return found


def speculation_round(a, backwards):
    found, tokens = {}, {}
    ways = [(name, flags, kind) for name, flags in layouts(a)[:2] for kind in kinds(a)]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        for text, prompt, temperature in (("repeats", REPEATS, "0"), ("novel", NOVEL, "1")):
            file.seek(0)
            file.truncate()
            file.write(prompt)
            file.flush()
            for name, flags, kind in reversed(ways) if backwards else ways:
                out, cpu = run([a.woolly, "run", "-m", a.model, "--raw", "-f", file.name, "-n", str(4 * a.tokens), "--temp", temperature, "--seed", "7",
                                "--ignore-eos", "--json", *kinds(a)[kind], *flags])
                if tokens.setdefault(text, out["tokens"]) != out["tokens"]:
                    sys.exit(f"{name} --spec {kind}: other tokens on the text {text!r}")
                found[f"{text} {kind}", name] = out["timings"]["decode_tok_s"]
                found[f"{text} {kind} cpu", name] = cpu
                found[f"{text} {kind} accepted", name] = out["speculation"]["accepted"] / max(1, out["speculation"]["drafted"])
    return found


def row_of(rounds, test, name, baseline_test, baseline):
    ratios = sorted(r[test, name] / r[baseline_test, baseline] for r in rounds)
    return {"test": test, "layout": name, "tok_s": statistics.median(r[test, name] for r in rounds), "against": f"{baseline_test} {baseline}",
            "ratio": statistics.median(ratios), "least": ratios[0], "most": ratios[-1]}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("-m", dest="model", required=True)
    p.add_argument("--woolly", default="build/bin/woolly")
    p.add_argument("-t", dest="threads", type=int, default=2)
    p.add_argument("--stages", type=lambda text: [int(n) for n in text.split(",")], default=[2, 4])
    p.add_argument("-p", dest="prompt", type=int, default=512)
    p.add_argument("-n", dest="tokens", type=int, default=48)
    p.add_argument("-b", dest="streams", type=int, default=8)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--only", choices=["stages", "speculation"])
    p.add_argument("--draft")
    p.add_argument("--json", action="store_true")
    a = p.parse_args()
    rows, one = [], layouts(a)[0][0]
    if a.only != "speculation":
        rounds = [stages_round(a, i % 2) for i in range(a.rounds)]
        for test in dict.fromkeys(test for test, _ in rounds[0]):
            rows += [row_of(rounds, test, name, test, one) for name, _ in layouts(a)]
    if a.only != "stages":
        rounds = [speculation_round(a, i % 2) for i in range(a.rounds)]
        for name, _ in layouts(a)[:2]:
            for text in ("repeats", "novel"):
                for kind in kinds(a):
                    rows.append(row_of(rounds, f"{text} {kind}", name, f"{text} off", name))
                    rows[-1]["accepted"] = statistics.median(r[f"{text} {kind} accepted", name] for r in rounds)
                    rows[-1]["cpu"] = statistics.median(r[f"{text} {kind} cpu", name] for r in rounds)
    if a.json:
        print(json.dumps(rows, indent=1))
        return
    print("| test | layout | tok/s | against | ratio | least | most | accepted | cpu s |\n| --- | --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |")
    for r in rows:
        accepted, cpu = (f"{r[key]:.2f}" if key in r else "" for key in ("accepted", "cpu"))
        print(f"| {r['test']} | {r['layout']} | {r['tok_s']:.1f} | {r['against']} | {r['ratio']:.2f} | {r['least']:.2f} | {r['most']:.2f} | {accepted} | {cpu} |")


if __name__ == "__main__":
    main()
