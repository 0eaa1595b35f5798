#!/usr/bin/env python3
"""What kosweep does on one GPU, against what the GPU can do and against Hugging Face transformers on it: one command, no downloads.

    cmake -S . -B build -DKS_BENCH=ON && cmake --build build -j && bench/gpu.py --build build --output gpu.md

Makes models of published shapes with random weights (synthetic.py), measures, and prints a Markdown table with the bar beside each figure.
Parts (--parts, default all): peak, scan, triangle, hf, streamed, cold; docs/benchmarks.md says what each measures. `--backend cpu --shape
tiny` runs all of them on the processor in seconds: it proves this program, its figures mean nothing.

Counting: `kosweep plan` counts 2 FLOPs for each multiply-add that the sweep needs, once. With bf16 weights the CUDA backend makes three bf16
products of each one of states and of the head, two (full) or one (fast) of each one of effects in the layers: "products done" counts those,
and is what the share of the peak is taken from. (Attention is counted as if it were products too: 0.3 % for a 7B shape.)
"""
import argparse
import ctypes
import json
import mmap
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import synthetic

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
PARTS = ("peak", "scan", "triangle", "hf", "streamed", "cold")
LAYERS, TRIANGLE = "--scan-layers", "--all-windows"
RESIDENT = ("--weights", "resident")
TRIANGLE_FLOPS = 1.3e15  # the bars' triangle: a product of each multiply-add, once
UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class Failed(Exception):
    pass


def result_of(command, hint=""):
    """Standard output of a command."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as e:
        raise Failed(f"{command[0]}: {e.strerror}{hint}") from e
    if done.returncode:
        raise Failed(f"{' '.join(command)}: ended with status {done.returncode}: {done.stderr.strip()[-300:]}{hint}")
    return done.stdout.strip()


def try_result_of(command):
    try:
        return result_of(command)
    except Failed:
        return None


class DeviceMemory:
    """Used memory of the GPU that CUDA would take first, asked of NVML every 10 ms: its peak, beyond what was used before."""

    class Info(ctypes.Structure):
        _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]

    def __init__(self):
        self.nvml, self.gpu = None, ctypes.c_void_p()
        first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0] or "0"
        try:
            nvml = ctypes.CDLL("libnvidia-ml.so.1")
        except OSError:
            return
        if nvml.nvmlInit_v2():
            return
        if first.isdigit():
            failed = nvml.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(int(first)), ctypes.byref(self.gpu))
        else:
            failed = nvml.nvmlDeviceGetHandleByUUID(first.encode(), ctypes.byref(self.gpu))
        self.nvml = None if failed else nvml

    def used(self):
        info = self.Info()
        return 0 if self.nvml.nvmlDeviceGetMemoryInfo(self.gpu, ctypes.byref(info)) else info.used

    def peak_while(self, wait):
        """What wait() returns, and the peak; None without NVML."""
        if not self.nvml:
            return wait(), None
        before = most = self.used()
        ended = threading.Event()

        def watch():
            nonlocal most
            while not ended.wait(0.01):
                most = max(most, self.used())

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            result = wait()
        finally:
            ended.set()
            thread.join()
        return result, most - before


class Model:
    """A model of a published shape."""

    def __init__(self, bench, shape, layers):
        self.bench, self.shape, self.config = bench, shape, synthetic.configuration(shape, layers)
        self.layers, self.bytes, self.runs = self.config["num_hidden_layers"], synthetic.weight_bytes(self.config), {}
        self.path = os.path.join(bench.models, f"{shape}-{self.layers}-layers-{bench.args.samples}-samples")
        self.corpus = os.path.join(self.path, "corpus.json")
        whole = self.layers == synthetic.SHAPES[shape]["num_hidden_layers"]
        self.name = f"{shape} shape" + ("" if whole else f", {self.layers} layers")

    def fits_on_disk(self):
        there = os.path.exists(os.path.join(self.path, "config.json"))
        return there or shutil.disk_usage(self.bench.models).free > 1.02 * self.bytes

    def make(self):
        """In a process of its own: what it uses would count as the peak memory of processes that are started later."""
        if not self.fits_on_disk():
            raise Failed(f"{self.path}: needs {self.bytes / 1e9:.1f} GB of disk; --models names another place, --layers cuts layers")
        begin = time.perf_counter()
        result_of([sys.executable, os.path.join(HERE, "synthetic.py"), self.shape, self.path, "--layers", str(self.layers), "--samples",
                   str(self.bench.args.samples)])
        self.bench.say(f"{self.path}: {self.bytes / 1e9:.2f} GB, {time.perf_counter() - begin:.1f} s")


class Bench:
    def __init__(self, args):
        self.args, self.gpu, self.rows, self.failed = args, args.backend == "cuda", [], []
        self.kosweep = os.path.join(args.build, "kosweep")
        self.products = {"state": 3, "full": 2, "fast": 1} if self.gpu else {"state": 1, "full": 1, "fast": 1}
        self.peak_facts, self.hf_versions, self.memory = None, "", DeviceMemory()
        self.scratch = tempfile.mkdtemp(prefix="kosweep-bench-")
        self.results = os.path.join(self.scratch, "run.json")
        self.models = args.models or os.path.join(self.scratch, "models")
        os.makedirs(self.models, exist_ok=True)
        self._main = None  # made at its first use

    def say(self, text):
        print(f"gpu.py: {text}", file=sys.stderr, flush=True)

    def row(self, measure, value, bar=""):
        self.rows.append((measure, value, bar))
        self.say(f"{measure}: {value}")

    def main_model(self):
        if not self._main:
            model = Model(self, self.args.shape, self.args.layers)
            model.make()
            self._main = model
        return self._main

    def verdict(self, met):
        """The bars are for one GPU of the H100/H200 class."""
        return (": met" if met else ": NOT met") if self.gpu else ""

    # ---- kosweep ----

    def options(self, model, sweep, precision, weights, samples, group="bench"):
        """samples: how many, evenly of all; 0: all."""
        n, all_samples = samples, self.args.samples
        some = ["--samples", ",".join(f"{group[0]}{i * all_samples // n:02d}" for i in range(n))] if 0 < n < all_samples else []
        return ["--model", model.path, "--corpus", model.corpus, "--groups", group, *some, sweep, "--floor", "off", "--backend",
                self.args.backend, "--precision", precision, *weights]

    def plan(self, model, sweep, precision, weights=RESIDENT, samples=0):
        """(FLOPs that are needed, FLOPs of the products done)."""
        def ask(*what):
            return json.loads(result_of([self.kosweep, "plan", "--json", *self.options(model, *what)]))

        p = ask(sweep, precision, weights, samples)
        trunk = ask(LAYERS, precision, weights, samples, "trunk")["flops_whole"]
        states = trunk + p["flops"] - p["flops_whole"]  # of a sample that is cut, the trunk is computed again
        head = 2.0 * model.config["hidden_size"] * model.config["vocab_size"] * p["branches"]
        n = self.products
        return p["flops"], n["state"] * (states + head) + n[precision] * (p["flops"] - states - head)

    def run(self, model, sweep, precision, weights=RESIDENT, samples=0, runs=0):
        """The run whose computing time is the median of --runs (or of `runs` new ones): {whole, computing: seconds, host, device: peak
        bytes}. The last one's results are in self.results."""
        key = (sweep, precision, weights, samples)
        if key in model.runs and not runs:
            return model.runs[key]
        command = [self.kosweep, "run", *self.options(model, *key), "--force", "--output", self.results]
        results = []
        for _ in range(runs or self.args.runs):
            with open(os.path.join(self.scratch, "stderr"), "w+", encoding="utf-8") as log:
                def whole_run():
                    begin = time.perf_counter()
                    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log)
                    _, status, usage = os.wait4(process.pid, 0)
                    return status, usage, time.perf_counter() - begin

                (status, usage, whole), device = self.memory.peak_while(whole_run) if self.gpu else (whole_run(), None)
                log.seek(0)
                text = log.read()
            done = re.search(r": done in ([0-9.]+) s", text)
            if status or not done:
                raise Failed(f"{' '.join(command)}: ended with status {status}: {text.strip()[-300:]}")
            results.append({"whole": whole, "computing": max(0.01, float(done.group(1))), "host": usage.ru_maxrss * 1024, "device": device})
        results.sort(key=lambda r: r["computing"])
        found = dict(results[(len(results) - 1) // 2], n=len(results))
        return model.runs.setdefault(key, found) if not runs else found

    def kls(self, model):
        """{sample: [KL of layer]} of the layer scan in full."""
        self.run(model, LAYERS, "full", runs=1)
        with open(self.results, encoding="utf-8") as f:
            found = {}
            for e in json.load(f)["experiments"]:
                for s in e["sample_results"]:
                    found.setdefault(s["id"], [None] * model.layers)[e["layer"]] = s["kl_divergence"]
        return found

    # ---- the GPU's peak ----

    def peak(self):
        """FLOP/s that the device reaches in products, measured once, now."""
        if self.peak_facts is None:
            c = synthetic.configuration(self.args.shape, self.args.layers)
            D, F, Q = c["hidden_size"], c["intermediate_size"], c["num_attention_heads"] * synthetic.head_size(c)
            if self.gpu:
                shapes = {"q": (Q, D), "o": (D, Q), "up": (F, D), "down": (D, F), "head": (c["vocab_size"], D)}
                command = [os.path.join(self.args.build, "bench_gemm_peak"), "--seconds", str(self.args.peak_seconds),
                           *(f"{self.args.rows}x{n}x{k}" for n, k in shapes.values())]
                self.peak_facts = json.loads(result_of(command, " (-DKS_BENCH=ON builds it where the CUDA toolkit is)"))
                self.peak_facts["named"] = list(zip(shapes, self.peak_facts["products"]))
            else:
                model = self.main_model()
                plan = result_of([self.kosweep, "plan", "--json", *self.options(model, LAYERS, "full", RESIDENT, 0)])
                self.peak_facts = {"peak_tflops": json.loads(plan)["flops_per_second"] * 1e-12}
        return self.peak_facts["peak_tflops"] * 1e12

    def part_peak(self):
        peak, f = self.peak(), self.peak_facts
        if not self.gpu:
            self.row("speed of the processor's own product (kosweep plan), in place of a peak", f"{peak / 1e9:.0f} GFLOP/s")
            return
        self.row(f"bf16 GEMM peak (cuBLASLt, best of shapes, {self.args.peak_seconds:g} s each)",
                 f"{peak / 1e12:.0f} TFLOP/s (n = {f['peak_n']}, result {f['peak_result']})")
        self.row(f"the same for {self.args.shape}'s products: {self.args.rows} rows, fp32 results, no split-K",
                 ", ".join(f"{name} {p['tflops']:.0f} ({1e14 * p['tflops'] / peak:.0f} %)" for name, p in f["named"]))
        self.row("copies: pinned host memory to device, device to device", f"{f['h2d_gb_per_s']:.1f}, {f['d2d_gb_per_s']:.0f} GB/s")

    # ---- sweeps ----

    def memory_text(self, r):
        device = "" if not self.gpu else "device ?, " if r["device"] is None else f"device {r['device'] / 1e9:.2f} GB, "
        return f"{device}host {r['host'] / 1e9:.3g} GB"

    def speed_text(self, plan, r):
        needed, done = plan
        return (f"{r['computing']:.2f} s computing, {r['whole']:.2f} s the whole program (median of {r['n']}); {needed:.3g} FLOPs needed, "
                f"{done:.3g} of products done: {done / r['computing'] * 1e-12:.3g} TFLOP/s, "
                f"{100 * done / r['computing'] / self.peak():.0f} % of the peak")

    def sweeps(self, sweep, what, cells, bars):
        model = self.main_model()
        for precision in ("full", "fast"):
            plan, r = self.plan(model, sweep, precision), self.run(model, sweep, precision)
            bar = ""
            if precision in bars:
                as_bar = r["computing"] * TRIANGLE_FLOPS / plan[0]
                share = plan[1] / r["computing"] / self.peak()
                bar = (f"<= {bars[precision]:g} s at {TRIANGLE_FLOPS * 1e-15:g}e15 FLOPs{self.verdict(as_bar <= bars[precision])} ({as_bar:.3g} s); "
                       f">= 60 % of the peak{self.verdict(share >= 0.6)}")
            self.row(f"{what}, {model.name}, {cells} cells, `{precision}`", self.speed_text(plan, r), bar)
            self.row(f"its memory, `{precision}`", self.memory_text(r))
            if self.args.device:
                p = json.loads(result_of([self.kosweep, "plan", "--json", "--device", self.args.device,
                                          *self.options(model, sweep, precision, RESIDENT, 0)]))
                self.row(f"what `kosweep plan --device {self.args.device}` predicts, `{precision}`",
                         f"{p['seconds']:.2g} s, {p['device']['products_flops']:.3g} FLOPs of products done, {p['memory_bytes'] / 1e9:.2f} GB")

    def part_scan(self):
        self.sweeps(LAYERS, "layer scan", self.main_model().layers * self.args.samples, {})

    def part_triangle(self):
        n = self.main_model().layers
        self.sweeps(TRIANGLE, "full triangle", n * (n + 1) // 2 * self.args.samples, {"full": 6.0, "fast": 3.5})

    # ---- Hugging Face ----

    def part_hf(self):
        python = self.args.python
        if try_result_of([python, "-c", "import torch, transformers"]) is None:
            self.row("Hugging Face transformers", f"not run: {python} has no torch and transformers (--python names one that has)")
            return
        model = self.main_model()
        ours, want = self.run(model, LAYERS, "full"), self.kls(model)
        for dtype, bar in (("float32", 30), ("bfloat16", 20)):
            out = os.path.join(self.scratch, f"hf-{dtype}.json")
            done = subprocess.run([python, os.path.join(HERE, "hf_published.py"), "--model", model.path, "--corpus", model.corpus, "--groups",
                                   "bench", "--samples", str(self.args.hf_samples), "--layers", str(self.args.hf_layers), "--device",
                                   self.args.backend, "--dtype", dtype, "--output", out], capture_output=True, text=True,
                                  env={**os.environ, "HF_HUB_OFFLINE": "1"}, check=False)
            if done.returncode:
                self.row(f"Hugging Face eager, {dtype}", "not run: " + (done.stderr.strip().splitlines() or ["?"])[-1][:200].replace("|", "/"))
                continue
            with open(out, encoding="utf-8") as f:
                hf = json.load(f)
            self.hf_versions = hf["versions"]
            cells, all_cells = hf["samples"] * len(hf["layers"]), self.args.samples * model.layers
            seconds = hf["seconds"] * all_cells / cells
            scaled = f"{hf['seconds']:.1f} s for {cells} cells" + ("" if cells == all_cells else f", {seconds:.1f} s extrapolated to {all_cells}")
            ratio = seconds / ours["computing"]
            self.row(f"Hugging Face eager, {dtype}, batch 1, two forwards a cell, loading not counted", scaled)
            self.row("that / kosweep's layer scan, `full` (computing; whole program)", f"{ratio:.1f}; {seconds / ours['whole']:.1f}",
                     f">= {bar}{self.verdict(ratio >= bar)}")
            self.compare(dtype, hf, want)

    def compare(self, dtype, hf, want):
        """Relative distance of Hugging Face's KLs from kosweep's, where they are above 1e-6 and 1e-4 nats."""
        pairs = [(kl, want[s][l]) for s, kls in hf["kl"].items() for l, kl in zip(hf["layers"], kls)]
        zeros = [a for a, b in pairs if b == 0]
        texts, far = [], dtype == "float32" and any(abs(a) > 1e-6 for a in zeros)
        for low, high in ((1e-6, 1e-4), (1e-4, float("inf"))):
            errors = [abs(a - b) / b for a, b in pairs if low <= b < high]
            if errors:
                texts.append(f"KL above {low:g}{'' if high > 1 else f', to {high:g}'}: median {statistics.median(errors):.1e}, largest {max(errors):.1e} ({len(errors)} cells)")
            far |= dtype == "float32" and low == 1e-4 and any(not e <= 0.02 for e in errors)
        self.row(f"relative distance of {dtype} KLs from kosweep `full`", "; ".join(texts) or "no KL above 1e-6 to compare")
        if far:
            self.failed.append("hf: a KL above 1e-4 differs by more than 2 %, or one that is 0 does not: the two do not compute the "
                               "same thing")

    # ---- a model larger than the memory ----

    def part_streamed(self):
        a = self.args
        limit = int(float(a.limit[:-1]) * UNITS[a.limit[-1]]) if a.limit[-1] in UNITS else int(a.limit)
        model = Model(self, a.big_shape, a.big_layers)
        while not model.fits_on_disk() and model.layers > 1:
            model = Model(self, a.big_shape, model.layers - 1)
        if self.gpu and a.big_shape != "tiny" and model.bytes < 1.5 * limit:
            self.row(f"{model.name} in {a.limit}", f"not run: its {model.bytes / 1e9:.1f} GB need no streaming, and the disk holds no more")
            return
        model.make()
        some = a.big_samples if 0 < a.big_samples < a.samples else 0
        what = f"triangle, {model.name}, {some or a.samples} samples, `full`"
        streamed = ("--weights", "streamed" if a.big_shape == "tiny" else "auto", "--memory", a.limit)
        plan, r = self.plan(model, TRIANGLE, "full", streamed, some), self.run(model, TRIANGLE, "full", streamed, some, runs=1)
        used = r["device"] if self.gpu else r["host"]
        kept = "memory kept" if used is None else f"memory kept{self.verdict(used <= limit)}"
        self.row(f"{what}, {a.limit} of memory", f"{self.speed_text(plan, r)}; {self.memory_text(r)}", f"{kept} ({limit / 1e9:.2f} GB)")
        big_enough = not self.gpu or (self.peak() and self.peak_facts["memory_bytes"] > 1.25 * model.bytes)
        base, some = (model, some) if big_enough else (self.main_model(), 0)
        base_plan = self.plan(base, TRIANGLE, "full", samples=some)
        base_run = self.run(base, TRIANGLE, "full", samples=some, runs=1 if big_enough else 0)
        self.row(f"{'the same' if big_enough else 'triangle, ' + base.name}, resident", self.speed_text(base_plan, base_run))
        share = plan[1] / r["computing"] / (base_plan[1] / base_run["computing"])
        whose = "" if big_enough else f" (the device does not hold this model: the {base.name} stands in)"
        self.row(f"streamed / resident speed per FLOP{whose}", f"{100 * share:.0f} %", f">= 80 %{self.verdict(share >= 0.8)}")

    # ---- cold start ----

    def part_cold(self):
        model = self.main_model()
        files = [os.path.join(model.path, n) for n in sorted(os.listdir(model.path)) if n.endswith(".safetensors")]
        size = sum(os.path.getsize(f) for f in files)
        times = {"one thread": [], "eight threads": [], "scan": []}
        for _ in range(self.args.runs):
            for name, work in (("one thread", lambda: read_all(files, 1)), ("eight threads", lambda: read_all(files, 8)),
                               ("scan", lambda: self.run(model, LAYERS, "full", runs=1)["whole"])):
                how, left = drop_caches(files)
                times[name].append(work())
        scan, one, eight = (statistics.median(times[name]) for name in ("scan", "one thread", "eight threads"))
        seconds, threads = min((one, "one thread"), (eight, "eight threads"))
        self.row(f"reading the {size / 1e9:.3g} GB of weights, cold ({how}; {100 * left:.0f} % still cached after it)",
                 f"{seconds:.2f} s, {size / seconds * 1e-9:.2f} GB/s ({threads}; median of {self.args.runs}, in turn with the scan)")
        self.row("layer scan, `full`, cold, the whole program", f"{scan:.2f} s")
        note = "" if left < 0.02 else " (the cache was not dropped: no figure)"
        self.row("cold layer scan / reading the weights" + note, f"{scan / seconds:.2f}",
                 f"<= 1.15{self.verdict(scan <= 1.15 * seconds) if not note else ''}")

    # ---- the report ----

    def machine(self):
        lines = []
        if self.gpu:
            facts = try_result_of(["nvidia-smi", "--query-gpu=name,driver_version,power.limit,clocks.max.sm,memory.total", "--format=csv,noheader"])
            lines.append("GPU: " + (facts or "nvidia-smi is not there").splitlines()[0])
            if self.peak_facts:
                f = self.peak_facts
                lines.append(f"CUDA {f['runtime_cuda']} (driver for {f['driver_cuda']}), cuBLASLt {f['cublaslt']}, compute capability "
                             f"{f['compute_capability']}")
        else:
            lines.append("No GPU: a trial of this program on the processor. The bars are for a GPU, the figures mean nothing")
        cpu = re.search(r"model name\s*: (.*)", open("/proc/cpuinfo", encoding="utf-8").read())
        lines.append(f"host: {cpu.group(1) if cpu else platform.machine()}, {len(os.sched_getaffinity(0))} cores, Linux {platform.release()}")
        version = try_result_of([self.kosweep, "--version"]) or "?"
        commit = try_result_of(["git", "-C", ROOT, "describe", "--always", "--dirty"])
        lines.append(version.splitlines()[0] + (f", commit {commit}" if commit else "") + (f"; {self.hf_versions}" if self.hf_versions else ""))
        lines.append(f"`bench/gpu.py {' '.join(sys.argv[1:])}`")
        return "\n".join(f"- {line}" for line in lines)

    def report(self):
        table = "\n".join(f"| {m} | {v} | {b} |" for m, v, b in self.rows)
        return f"{self.machine()}\n\n| measure | value | bar |\n|---|---|---|\n{table}\n"


def read_all(files, threads):
    """Seconds to read the files from beginning to end."""
    CHUNK = 16 << 20

    def read(job):
        fd = os.open(job[0], os.O_RDONLY)
        os.posix_fadvise(fd, job[1], CHUNK, os.POSIX_FADV_SEQUENTIAL)
        buffer, at = bytearray(CHUNK), 0
        while at < CHUNK and (n := os.preadv(fd, [memoryview(buffer)[at:]], job[1] + at)):
            at += n
        os.close(fd)

    jobs = [(f, at) for f in files for at in range(0, os.path.getsize(f), CHUNK)]
    begin = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(read, jobs))
    return time.perf_counter() - begin


def cached(files):
    """The share of the files' pages that is in the page cache (mincore)."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype, libc.mmap.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
    libc.mincore.argtypes, libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p], [ctypes.c_void_p, ctypes.c_size_t]
    pages = there = 0
    for path in files:
        fd, size = os.open(path, os.O_RDONLY), os.path.getsize(path)
        address = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
        os.close(fd)
        state = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
        if address == ctypes.c_void_p(-1).value or libc.mincore(address, size, state):
            raise Failed(f"{path}: mincore: {os.strerror(ctypes.get_errno())}")
        libc.munmap(address, size)
        pages += len(state)
        there += sum(map((1).__and__, state))
    return there / pages


def drop_caches(files):
    """Takes the files out of the page cache: (how, the share that is still in it)."""
    for path in files:
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)
    if (left := cached(files)) < 0.02:
        return "posix_fadvise", left
    try:
        with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as f:
            f.write("1")
    except OSError:
        return "posix_fadvise", left
    return "drop_caches", cached(files)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default=os.path.join(ROOT, "build"))
    parser.add_argument("--backend", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--shape", default="qwen2.5-coder-7b", choices=synthetic.SHAPES)
    parser.add_argument("--layers", type=int, default=0, help="only so many layers of it")
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--runs", type=int, default=3, help="of each sweep; the median counts")
    parser.add_argument("--models", help="keep the models in this directory and use what is there (default: a temporary one)")
    parser.add_argument("--output", help="write the table there too")
    parser.add_argument("--rows", type=int, default=16384, help="rows of the model's products in the part peak")
    parser.add_argument("--peak-seconds", type=float, default=1)
    parser.add_argument("--device", help="this GPU's name in kosweep plan --device: its prediction beside what is measured")
    parser.add_argument("--python", default=os.environ.get("KS_PYTHON", sys.executable), help="one with torch and transformers (KS_PYTHON)")
    parser.add_argument("--hf-samples", type=int, default=4, help="samples that Hugging Face does; 0: all")
    parser.add_argument("--hf-layers", type=int, default=0, help="layers that Hugging Face cuts; 0: all")
    parser.add_argument("--big-shape", choices=synthetic.SHAPES, help="of the part streamed (default qwen2.5-coder-32b; with tiny: tiny)")
    parser.add_argument("--big-layers", type=int, default=0)
    parser.add_argument("--big-samples", type=int, default=5, help="0: all")
    parser.add_argument("--limit", help="memory of the part streamed (default 16G; with tiny: 64M)")
    a = parser.parse_args()
    tiny = a.shape == "tiny"
    a.big_shape, a.limit = a.big_shape or ("tiny" if tiny else "qwen2.5-coder-32b"), a.limit or ("64M" if tiny else "16G")
    a.parts = a.parts.split(",")
    if unknown := [p for p in a.parts if p not in PARTS]:
        parser.error(f"--parts: no part is named {unknown[0]}; there are {', '.join(PARTS)}")
    if not re.fullmatch(r"[0-9.]+[KMG]?", a.limit):
        parser.error(f"--limit: bytes, or a number and K, M or G, expected; found {a.limit}")
    if a.samples < 1 or a.runs < 1:
        parser.error("--samples and --runs must be positive")
    if not os.access(os.path.join(a.build, "kosweep"), os.X_OK):
        parser.error(f"--build: there is no kosweep in {a.build}")
    return a


def main():
    bench = Bench(arguments())
    try:
        for part in (p for p in PARTS if p in bench.args.parts):
            try:
                getattr(bench, "part_" + part)()
            except Failed as e:
                bench.failed.append(f"{part}: {e}")
                bench.say(f"{part}: {e}")
        text = bench.report()
        print(text, end="")
        if bench.args.output:
            with open(bench.args.output, "w", encoding="utf-8") as f:
                f.write(text)
    finally:
        shutil.rmtree(bench.scratch, ignore_errors=True)
    if bench.failed:
        sys.exit("\n".join("gpu.py: failed: " + f for f in bench.failed))


if __name__ == "__main__":
    main()
