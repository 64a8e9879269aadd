#!/usr/bin/env python3
"""Woolly beside llama.cpp in one run: prefill, decode and several streams of one model on this machine.

  compare.py -m MODEL.gguf --llama DIR [--woolly build/bin/woolly] [-t 2] [-p 512] [-n 64] [-b 8] [--rounds 5] [--local 1] [--isa NAME] [--json]

DIR holds llama-bench and llama-batched-bench (llama.cpp, Release, native). The programs take turns, round by round, so that a machine whose
speed drifts drifts for both; a ratio is taken within each round and the median of the ratios is what counts. Absolute figures are medians too.
"""
import argparse, json, statistics, subprocess, sys

def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{command[0]} failed: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else done.returncode}")
    return done.stdout

def woolly(a):
    threads = max(1, a.threads // a.local)
    rows = json.loads(run([a.woolly, "bench", "-m", a.model, "-p", str(a.prompt), "-n", str(a.tokens), "-b", f"1,{a.streams}", "-r", "1",
                           "--local", str(a.local), "--threads", str(threads), "--format", "json", *(["--isa", a.isa] if a.isa else [])]))
    return {r["test"]: r["tok_s"] for r in rows}

def llama(a):
    rows = json.loads(run([f"{a.llama}/llama-bench", "-m", a.model, "-t", str(a.threads), "-p", str(a.prompt), "-n", str(a.tokens), "-r", "1",
                           "-o", "json"]))
    out = {}
    for r in rows:
        out[f"pp{r['n_prompt']}" if r["n_prompt"] else f"tg{r['n_gen']}"] = r["avg_ts"]
    # one JSON line: pp is the prompt's length, pl the number of streams, speed_tg the rate of all streams together
    text = run([f"{a.llama}/llama-batched-bench", "-m", a.model, "-t", str(a.threads), "-c", str((a.tokens + 1) * a.streams + 256),
                "-npp", "1", "-ntg", str(a.tokens), "-npl", str(a.streams), "--output-format", "jsonl"])
    row = json.loads([line for line in text.splitlines() if line.startswith("{")][-1])
    out[f"b{a.streams}tg{a.tokens}"] = row["speed_tg"]
    return out

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("-m", dest="model", required=True)
    p.add_argument("--llama", required=True)
    p.add_argument("--woolly", default="build/bin/woolly")
    p.add_argument("-t", dest="threads", type=int, default=2)
    p.add_argument("-p", dest="prompt", type=int, default=512)
    p.add_argument("-n", dest="tokens", type=int, default=64)
    p.add_argument("-b", dest="streams", type=int, default=8)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--local", type=int, default=1, help="stages, with the threads shared out")
    p.add_argument("--isa", help="kernels for Woolly, of those the CPU has; llama.cpp takes the best it was built for")
    p.add_argument("--json", action="store_true")
    a = p.parse_args()
    rounds = []
    for i in range(a.rounds):
        rounds.append((woolly(a), llama(a)) if i % 2 == 0 else tuple(reversed((llama(a), woolly(a)))))
    rows = []
    for test in rounds[0][0]:
        ours, theirs = [r[0][test] for r in rounds], [r[1][test] for r in rounds]
        ratios = sorted(x / y for x, y in zip(ours, theirs))
        rows.append({"test": test, "woolly": statistics.median(ours), "llama.cpp": statistics.median(theirs),
                     "ratio": statistics.median(ratios), "ratio_min": ratios[0], "ratio_max": ratios[-1]})
    if a.json:
        print(json.dumps(rows, indent=1))
        return
    print(f"| test | Woolly tok/s | llama.cpp tok/s | ratio | least | most |\n| --- | ---: | ---: | ---: | ---: | ---: |")
    for r in rows:
        print(f"| {r['test']} | {r['woolly']:.1f} | {r['llama.cpp']:.1f} | {r['ratio']:.2f} | {r['ratio_min']:.2f} | {r['ratio_max']:.2f} |")

if __name__ == "__main__":
    main()
