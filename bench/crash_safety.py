#!/usr/bin/env python3
"""What it costs that a sweep survives: a layer scan with results saved every few seconds against one pass that is saved at its end.

usage: bench/crash_safety.py KOSWEEP MODEL [--runs N] [--corpus FILE] [--against KOSWEEP]

Runs on one core in turn, so that what else the machine does meets all alike; prints medians of processor time (user and system) and wall
time, and the median of the pairs' ratios. --against: another build (of an older version) with its own default options, in the same turns.
"""
import argparse
import os
import statistics
import subprocess
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def run(command):
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}: ended with status {status}")
    return usage.ru_utime + usage.ru_stime, time.perf_counter() - begin


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("kosweep")
    parser.add_argument("model")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--corpus", default=os.path.join(ROOT, "corpus", "attention_samples_universal.json"))
    parser.add_argument("--against")
    a = parser.parse_args()
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[-1]})
    with tempfile.TemporaryDirectory() as folder:
        sweep = ["run", "--model", a.model, "--corpus", a.corpus, "--scan-layers", "--floor", "off", "--threads", "1", "--quiet", "--force",
                 "--output", f"{folder}/a.h5"]
        ways = {"one pass, saved at its end": [a.kosweep, *sweep, "--checkpoint", "86400"], "default": [a.kosweep, *sweep],
                "--checkpoint 4": [a.kosweep, *sweep, "--checkpoint", "4"]}
        if a.against:
            ways["other build"] = [a.against, *sweep]
        times = {name: [] for name in ways}
        for _ in range(a.runs):
            for name, command in ways.items():
                times[name].append(run(command))
    base = next(iter(ways))
    print(f"{'':28s}  CPU s  wall s  CPU against the first: median of {a.runs} turns (least, most)")
    for name, t in times.items():
        ratios = [100 * (x[0] / y[0] - 1) for x, y in zip(t, times[base])]
        print(f"{name:28s} {statistics.median(x[0] for x in t):6.2f} {statistics.median(x[1] for x in t):7.2f}"
              f"  {statistics.median(ratios):+.2f} % ({min(ratios):+.2f}, {max(ratios):+.2f})")


main()
