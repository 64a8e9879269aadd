#!/usr/bin/env python3
"""What plans promise, beside what runs do: `woolly bench` over 1, 2 and 4 workers of one thread.

  predictions.py -m MODEL.gguf [--woolly build/bin/woolly] [-t 1] [--stages 1,2,4] [-p 512] [-n 24] [-b 8] [--rounds 2] [--json]

`plan` is what `woolly plan` says before anything runs (of 512 and 64 tokens), `simulator` the event simulation of the very test, which `bench` makes before it measures. Both rest on
what this machine was measured to do and on what steps of earlier runs taught; so the first round of a machine that has run nothing yet (WOOLLY_CACHE names an empty folder)
shows measurements alone, and the rounds after it what is learned. Ratios are of the prediction to the speed: above 1 the plan promised too much. Layouts take turns, round by round.
Each time the machine is measured anew, just before: its memory may be a third faster or slower from one quarter of an hour to the next.
`others` is the part of the machine that other processes used meanwhile (Linux): where it was more than a twentieth, a measurement is made again, up to --tries times, and the
least disturbed counts.
"""
import argparse
import json
import os
import time

from pipeline import run

PLANNED = {"pp": "prefill_tok_s", "tg": "decode_tok_s", "b8": "streams8_tok_s"}


def processor_s():
    """Seconds that all processors were used, by anybody; 0 where the system does not say."""
    try:
        with open("/proc/stat", encoding="ascii") as file:
            used = file.readline().split()
    except OSError:
        return 0
    return sum(int(used[i]) for i in (1, 2, 3, 6, 7, 8)) / os.sysconf("SC_CLK_TCK")


def measure_once(a, n):
    flags = ["-m", a.model, "--local", str(n), "--threads", str(a.threads)]
    begun, used = time.monotonic(), processor_s()
    plan, plan_cpu = run([a.woolly, "plan", "--json", "--measure", *flags])
    rows, cpu = run([a.woolly, "bench", "-p", str(a.prompt), "-n", str(a.tokens), "-b", f"1,{a.streams}", "-r", "1", "--format", "json", *flags])
    others = max(0, processor_s() - used - plan_cpu - cpu) / (time.monotonic() - begun) / os.cpu_count()
    return {row["test"]: {"tok_s": row["tok_s"], "simulator": row["predicted"]["tok_s"], "plan": plan["predicted"].get(PLANNED.get(row["test"][:2])),
                          "others": others} for row in rows}


def measure(a, n):
    found = None
    for _ in range(a.tries):
        again = measure_once(a, n)
        disturbed = next(iter(again.values()))["others"]
        found = again if found is None or disturbed < next(iter(found.values()))["others"] else found
        if disturbed < 0.05:
            break
    return found


def rows_of(rounds, layout, test):
    for i, found in enumerate(rounds):
        yield {"round": i + 1, "test": test, "stages": layout, **found[layout][test]}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("-m", dest="model", required=True)
    p.add_argument("--woolly", default="build/bin/woolly")
    p.add_argument("-t", dest="threads", type=int, default=1)
    p.add_argument("--stages", type=lambda text: [int(n) for n in text.split(",")], default=[1, 2, 4])
    p.add_argument("-p", dest="prompt", type=int, default=512)
    p.add_argument("-n", dest="tokens", type=int, default=24)
    p.add_argument("-b", dest="streams", type=int, default=8)
    p.add_argument("--rounds", type=int, default=2)
    p.add_argument("--tries", type=int, default=3)
    p.add_argument("--json", action="store_true")
    a = p.parse_args()
    rounds = [{n: measure(a, n) for n in (reversed(a.stages) if i % 2 else a.stages)} for i in range(a.rounds)]
    rows = [row for n in a.stages for test in rounds[0][n] for row in rows_of(rounds, n, test)]
    if a.json:
        print(json.dumps(rows, indent=1))
        return
    print("| test | stages | round | tok/s | plan | ratio | simulator | ratio | others |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for r in rows:
        plan = f"{r['plan']:.1f} | {r['plan'] / r['tok_s']:.2f}" if r["plan"] else " | "
        print(f"| {r['test']} | {r['stages']} | {r['round']} | {r['tok_s']:.1f} | {plan} | {r['simulator']:.1f} | {r['simulator'] / r['tok_s']:.2f} | {r['others']:.2f} |")


if __name__ == "__main__":
    main()
