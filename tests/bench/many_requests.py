#!/usr/bin/env python3
"""Many requests over one cluster: whether each gets its own tokens, how long they wait, and whether memory stays flat.

  many_requests.py -m MODEL.gguf [--woolly build/bin/woolly] [--local 2] [-t 1] [--parallel 64] [-n 2000] [--tokens 8] [--json]

Three times `woolly run --prompts`. As many as --parallel one after another over one stage, without guesses and without a prefix cache, say what is right. The same
all at once over --local workers give the times to the first token and between tokens. Then -n and once --parallel more, --parallel of them always under way: resident
memory of the coordinator and of each worker is read when 2 --parallel, a quarter, half and all of -n are answered (before the first of these every page of KV cache has been touched).
Half of the requests are drawn at temperature 0.8, half begin with a text in common. Ends with 1 if a token differs.
"""
import argparse
import json
import random
import subprocess
import sys
import tempfile

COMMON = "Answer in one line. "
WORDS = "sheep walk over the old stone bridge while rain falls on seven quiet hills and nobody counts them".split()


def write_prompts(file, n, n_tokens):
    choose = random.Random(7)
    for i in range(n):
        text = f"{i} " + " ".join(choose.choice(WORDS) for _ in range(choose.randrange(3, 16)))
        line = {"prompt": COMMON * (i % 2) + text, "n": n_tokens + i % 5, "seed": i, "temp": 0.8 * (i // 2 % 2)}
        file.write(json.dumps(line) + "\n")
    file.flush()


def resident_bytes(pid):
    """{name: bytes} of a coordinator and its workers."""
    rows = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,rss="], capture_output=True, text=True, check=True).stdout.splitlines()
    table = {int(own): (int(parent), int(kib)) for own, parent, kib in (row.split() for row in rows)}
    workers = sorted(own for own, (parent, _) in table.items() if parent == pid)
    return {"coordinator": table[pid][1] * 1024, **{f"worker {i}": table[own][1] * 1024 for i, own in enumerate(workers)}}


def answer(a, path, marks, *flags):
    """({index: tokens}, summary, {answers: resident bytes})"""
    command = [a.woolly, "run", "-m", a.model, "--raw", "--prompts", path, "--ignore-eos", "--json", *map(str, flags)]
    answers, memory, summary = {}, {}, None
    with tempfile.TemporaryFile("w+") as errors, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process:
        for line in process.stdout:
            found = json.loads(line)
            if "summary" in found:
                summary = found["summary"]
                continue
            answers[found["index"]] = found["tokens"]
            if len(answers) in marks:
                memory[len(answers)] = resident_bytes(process.pid)
        if process.wait() != 0:
            errors.seek(0)
            sys.exit(f"{' '.join(command)} failed: {errors.read().strip()}")
    return answers, summary, memory


def times_of(summary):
    return {key: {name: value for name, value in summary[key].items() if name != "n"} for key in ("ttft_s", "between_tokens_s")}


def measure(a):
    cluster = ["--local", a.local, "--threads", a.threads, "--parallel", a.parallel]
    marks = [2 * a.parallel, a.requests // 4, a.requests // 2, a.requests]
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as few, tempfile.NamedTemporaryFile("w", suffix=".jsonl") as many:
        write_prompts(few, a.parallel, a.tokens)
        write_prompts(many, a.requests + a.parallel, a.tokens)
        right, _, _ = answer(a, few.name, (), "--local", 1, "--threads", a.threads, "--parallel", 1, "--no-prefix-cache", "--spec", "off")
        at_once, summary, _ = answer(a, few.name, (), *cluster)
        answers, whole, memory = answer(a, many.name, marks, *cluster)
    wrong = sum(found.get(i) != tokens for i, tokens in right.items() for found in (at_once, answers))
    return {"wrong": wrong,
            "at_once": {"answers": len(at_once), "tok_s": summary["tok_s"], **times_of(summary)},
            "many": {"answers": len(answers), "tok_s": whole["tok_s"], **times_of(whole)},
            "resident_bytes": memory}


def show(result):
    print("| requests | answered | tok/s | time | p50 ms | p90 ms | p99 ms | most ms |\n| --- | ---: | ---: | --- | ---: | ---: | ---: | ---: |")
    for name in ("at_once", "many"):
        row = result[name]
        for key, what in (("ttft_s", "to the first token"), ("between_tokens_s", "between tokens")):
            times = " | ".join(f"{1000 * row[key][part]:.0f}" for part in ("p50", "p90", "p99", "max"))
            print(f"| {name.replace('_', ' ')} | {row['answers']} | {row['tok_s']:.1f} | {what} | {times} |")
    memory = result["resident_bytes"]
    print("\n| resident MiB after | " + " | ".join(f"{n} answers" for n in memory) + " |\n| --- |" + " ---: |" * len(memory))
    for process in next(iter(memory.values())):
        print(f"| {process} | " + " | ".join(f"{row[process] / 2**20:.1f}" for row in memory.values()) + " |")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("-m", dest="model", required=True)
    p.add_argument("--woolly", default="build/bin/woolly")
    p.add_argument("--local", type=int, default=2)
    p.add_argument("-t", dest="threads", type=int, default=1)
    p.add_argument("--parallel", type=int, default=64)
    p.add_argument("-n", dest="requests", type=int, default=2000)
    p.add_argument("--tokens", type=int, default=8)
    p.add_argument("--json", action="store_true")
    a = p.parse_args()
    result = measure(a)
    if a.json:
        print(json.dumps(result, indent=1))
    else:
        show(result)
    if result["wrong"]:
        sys.exit(f"{result['wrong']} requests got other tokens than alone")


if __name__ == "__main__":
    main()
