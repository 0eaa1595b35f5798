#!/usr/bin/env python3
"""A layer scan on one core: its speed against the core's peak, its memory against the plan's prediction, its start.

usage: bench/sweep.py [--build DIR] [--model DIR] [--corpus FILE] [--runs N]

Prints one Markdown table. The build must have been configured with -DKS_BENCH=ON (the core's peak comes from bench_gemm). Wall times
of a busy machine mean little: user seconds of one thread are what the share of the peak is taken from.
"""
import argparse
import json
import os
import re
import subprocess
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def run(command):
    """(wall seconds, user + system seconds, peak resident bytes, standard output) of a command."""
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}: ended with status {status}")
    return time.perf_counter() - begin, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, output


def median(values):
    return sorted(values)[len(values) // 2]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--build", default=os.path.join(ROOT, "build"))
    parser.add_argument("--model", default=os.path.join(ROOT, "models", "smollm2-135m"))
    parser.add_argument("--corpus", default=os.path.join(ROOT, "corpus", "attention_samples_universal.json"))
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    kosweep = os.path.join(arguments.build, "kosweep")
    what = ["--model", arguments.model, "--corpus", arguments.corpus, "--threads", "1"]
    core = sorted(os.sched_getaffinity(0))[-1]
    os.sched_setaffinity(0, {core})

    bench = subprocess.run([os.path.join(arguments.build, "bench_gemm"), "--ours", "--quick", "--rows", "1"], capture_output=True,
                           text=True, check=True).stdout
    peak = 1e9 * float(re.search(r"peak of one core (\d+)", bench).group(1))
    rows = [("peak of one core (register-only FMA)", f"{peak / 1e9:.0f} GFLOP/s")]
    with tempfile.TemporaryDirectory() as folder:
        for name, options in (("with floor", []), ("without floor", ["--floor", "off"])):
            plan = json.loads(run([kosweep, "plan", "--json", *what, *options])[3])
            rows.append((f"plan, {name}", f"{plan['flops']:.4g} FLOPs; two forwards a cell: {plan['flops_plain'] / plan['flops']:.2f} times as many"))
            times = [run([kosweep, "run", *what, *options, "--quiet", "--force", "--output", f"{folder}/a.h5"]) for _ in range(arguments.runs)]
            cpu, wall = median([t[1] for t in times]), median([t[0] for t in times])
            rows.append((f"layer scan, {name}", f"{cpu:.2f} s of the core ({wall:.2f} s wall): {plan['flops'] / cpu / 1e9:.0f} GFLOP/s, "
                                                f"{100 * plan['flops'] / cpu / peak:.1f} % of the peak"))
        for source in ("streamed", "resident"):
            plan = json.loads(run([kosweep, "plan", "--json", *what, "--weights", source])[3])
            used = run([kosweep, "run", *what, "--weights", source, "--quiet", "--force", "--output", f"{folder}/a.h5"])[2]
            rows.append((f"peak memory, {source}", f"{used / 1e6:.1f} MB; planned {plan['memory_bytes'] / 1e6:.1f} MB "
                                                   f"({plan['activation_bytes'] / 1e6:.1f} activations, {plan['weight_bytes'] / 1e6:.1f} weights): "
                                                   f"ratio {used / plan['memory_bytes']:.3f}"))
        tiny = os.path.join(ROOT, "tests", "goldens")
        start = [run([kosweep, "run", "--model", f"{tiny}/models/a_qwen2", "--corpus", f"{tiny}/corpus/a_qwen2.json", "--groups", "ids",
                      "--quiet", "--force", "--output", f"{folder}/t.h5"])[0] for _ in range(9)]
        rows.append(("start to first table, tiny model", f"{median(start):.3f} s"))
    print("| measure | value |\n|---|---|")
    for name, value in rows:
        print(f"| {name} | {value} |")


main()
