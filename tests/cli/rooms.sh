#!/usr/bin/env bash
# A room includes only rooms before it, and each foreign library's header is included by the files that own it.
set -euo pipefail
cd "$KS_ROOT"
/usr/bin/python3 - <<'PY'
import pathlib, re, sys

may_include = {"base": {"base"}}
before = ["base"]
for room in ["input", "model", "plan", "compute", "sweep"]:
    before.append(room)
    may_include[room] = set(before)
may_include["compute"].add("kernels")  # the CUDA backend's
may_include["cli"] = {*before, "cli", "analysis"}
may_include["analysis"] = {"base", "analysis"}

owners = {
    r"mpi\.h": {"src/sweep/comm.c"},
    r"hdf5(_hl)?\.h|H5.*\.h": {"src/base/h5.h", "src/sweep/results_h5.h", "src/sweep/results_h5.c"},
    r"cjson/.*": {"src/base/json.h"},
    r"gsl/.*": {"analysis/distributions.c"},
    r"cairo.*\.h": {"analysis/plot_private.h", "analysis/plot_draw.c"},
    r"pcre2\.h": {"src/input/tokenizer_regex.c"},
    r"cuda.*\.h|cublas.*\.h": {"src/compute/cuda/gpu_cuda.c"},
    r"nccl\.h": {"src/compute/cuda/gpu_nccl.c"},
    r"dlfcn\.h": {"src/compute/backend.c", "src/compute/cuda/gpu_nccl.c"},
    r"utf8proc\.h": {"src/input/tokenizer_unicode.c", "src/input/corpus.c"},
    r"pthread\.h": {"src/compute/cpu/pool.c", "src/model/ring.c", "src/sweep/comm.c", "src/sweep/run.c"},
}
also = {"src/sweep/resume.c": {"analysis/reader.h"}}
faults, seen = [], 0
for path in sorted([*pathlib.Path("src").rglob("*.[ch]"), *pathlib.Path("analysis").glob("*.[ch]")]):
    room = path.parts[1] if path.parts[0] == "src" else "analysis"
    for number, line in enumerate(path.read_text().splitlines(), 1):
        match = re.match(r'\s*#\s*include\s*(["<])([^">]*)', line)
        if not match:
            continue
        seen += 1
        kind, name = match.groups()
        if kind == '"':
            if name.split("/")[0] not in may_include[room] and name not in also.get(str(path), ()) and not (path.parent / name).exists():
                faults.append(f"{path}:{number}: {room} includes {name}")
        else:
            for pattern, files in owners.items():
                if re.fullmatch(pattern, name) and str(path) not in files:
                    faults.append(f"{path}:{number}: {name} belongs to {', '.join(sorted(files))}")
if seen < 100:
    faults.append(f"only {seen} includes found: is this the right folder?")
sys.exit("\n".join(faults) or 0)
PY
