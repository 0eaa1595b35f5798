#!/usr/bin/env python3
"""Kills a sweep at random moments, resumes it, and checks that nothing finished is lost and the final bits are those of an undisturbed run.

usage: soak.py KOSWEEP KILLS [SEED]

Each kill hits the root, another rank, all ranks, the launcher, or launcher and ranks together, with SIGKILL: two of three at any moment from
the start of the program to its end, one of three while a whole file is being published or just was. After each the file must open (or not
be there yet), every cell with a status must hold the undisturbed run's values in all arrays, and no cell or baseline that was finished
before may be missing. A job of which somebody was killed must end within 10 seconds, all its ranks included. A file that is complete is
compared as a whole, then the next one begins.
"""
import collections
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

import h5py
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
SAME = ROOT / "tests/tools/same_results.py"
# Open MPI 4's mpirun can lock itself up when a rank is killed while it connects (in MPI_Init). It says this, and no rank is left then.
LAUNCHER_BUG = "PMIX ERROR: UNREACHABLE"
CONFIG = """{
  "models": [{"path": "%(root)s/models/box"}, {"name": "again", "path": "%(root)s/tests/goldens/models/a_qwen2"}],
  "corpus": "%(root)s/%(corpus)s",
  "sweeps": [{"name": "triangle", "windows": "all"},
             {"name": "all_edge", "edges": "all-marker", "windows": "all"},
             {"name": "positions", "windows": "each-layer", "positions": "all"},
             {"name": "heads", "windows": "all", "heads": "each"},
             {"name": "dose", "windows": [[1, 3]], "kind": "scale", "values": [0, 0.5, 2]}]
}"""


def environment():
    e = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", OMPI_MCA_rmaps_base_oversubscribe="1")
    e["ASAN_OPTIONS"] = "detect_leaks=0"  # Open MPI's
    return e


def command(kosweep, config, output, ranks, weights):
    c = [kosweep, "run", config, "--output", output, "--resume", "--quiet", "--checkpoint", "0", "--threads", "1", "--weights", weights]
    return (["mpirun", "-n", str(ranks)] if ranks > 1 else []) + c


def ranks_of(launcher):
    """{rank: pid} of the launcher's children that are ranks."""
    found = {}
    for task in pathlib.Path(f"/proc/{launcher}/task").glob("*/children"):
        for pid in task.read_text().split():
            try:
                env = pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            except OSError:
                continue
            rank = [v.split(b"=")[1] for v in env if v.startswith(b"OMPI_COMM_WORLD_RANK=")]
            if rank:
                found[int(rank[0])] = int(pid)
    return found


def kill(process, ranks, whom, rng):
    """Kills. ([PID of a rank], False if there was nobody left to kill)."""
    pids = {}
    try:
        if ranks == 1:
            os.kill(process.pid, signal.SIGKILL)
            return [], process.wait() == -signal.SIGKILL
        pids = ranks_of(process.pid)
        if whom == "launcher and ranks":
            victims = [process.pid, *pids.values()]
        elif whom == "launcher":
            victims = [process.pid]
        elif whom == "all":
            victims = list(pids.values())
        elif whom == "root":
            victims = [pids[0]] if 0 in pids else []
        else:
            others = [p for r, p in pids.items() if r]
            victims = [rng.choice(others)] if others else []
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        return list(pids.values()), bool(victims)
    except ProcessLookupError:
        return list(pids.values()), False


def await_moment(process, delay, changes, tmp):
    """Sleeps for `delay`, or until the file that is being built has come or gone `changes` times."""
    end = time.monotonic() + (60 if changes else delay)
    there, seen = os.path.exists(tmp), 0
    while time.monotonic() < end and process.poll() is None and (not changes or seen < changes):
        time.sleep(0.0003 if changes else min(0.05, max(0, end - time.monotonic())))
        if changes and os.path.exists(tmp) != there:
            there, seen = not there, seen + 1


def is_running(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def finished(path):
    """{place: values} of everything that the file says is finished."""
    found = {}
    if not os.path.exists(path):
        return found
    with h5py.File(path, "r") as f:
        for model, m in f["models"].items():
            done = m["baseline/status"][:]
            for s in np.flatnonzero(done):
                found[(model, "baseline", int(s))] = b"".join(
                    [m["baseline"][k][s].tobytes() for k in ("top_ids", "top_p", "entropy", "floor")]
                    + [m["attention/strength"][:, s].tobytes(), m["attention/by_head"][:, :, s].tobytes(), m["attention/uniform"][s].tobytes()])
            for sweep, w in m["sweeps"].items():
                status = w["status"][:]
                arrays = [w[k][:] for k in sorted(w) if w[k].ndim >= status.ndim and w[k].shape[:status.ndim] == status.shape]
                for at in zip(*np.nonzero(status)):
                    found[(model, sweep, *map(int, at))] = b"".join(a[at].tobytes() for a in arrays)
    return found


def main():
    kosweep, kills = os.path.realpath(sys.argv[1]), int(sys.argv[2])
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else random.randrange(10 ** 6)
    rng = random.Random(seed)
    print(f"seed {seed}")
    with tempfile.TemporaryDirectory() as folder:
        config, reference, output = (os.path.join(folder, n) for n in ("c.json", "reference.h5", "o.h5"))
        corpus = os.path.join(folder, "corpus.json")
        make_corpus(corpus)
        pathlib.Path(config).write_text(CONFIG % {"root": ROOT, "corpus": os.path.relpath(corpus, ROOT)})
        begin = time.monotonic()
        subprocess.run(command(kosweep, config, reference, 1, "resident"), check=True, stdout=subprocess.DEVNULL, env=environment())
        usual = time.monotonic() - begin
        truth = finished(reference)
        print(f"an undisturbed run takes {usual:.2f} s and finishes {len(truth)} cells and baselines")
        done, files, kept, slowest, publications, launcher_hangs = 0, 0, {}, 0, 0, 0
        hits = collections.Counter()
        while done < kills:
            ranks, weights = rng.choice([1, 2, 3, 5]), rng.choice(["resident", "streamed"])
            whom = "root" if ranks == 1 else rng.choice(["root", "worker", "all", "launcher", "launcher and ranks"])
            delay = rng.random() * usual + (0.3 if ranks > 1 else 0)
            changes = rng.choice([0, 0, rng.randint(1, 8)])
            with open(os.path.join(folder, "stderr"), "w+") as stderr:
                start = time.monotonic()
                p = subprocess.Popen(command(kosweep, config, output, ranks, weights), stdout=subprocess.DEVNULL, stderr=stderr,
                                     env=environment(), start_new_session=True)
                await_moment(p, delay, changes, output + ".tmp")
                began = time.monotonic() - start
                left, hit = kill(p, ranks, whom, rng) if p.poll() is None else ([], False)
                begin, hangs = time.monotonic(), False
                try:
                    status = p.wait(timeout=10 if hit else 120)
                    while any(map(is_running, left)):
                        if time.monotonic() - begin > 10:
                            raise subprocess.TimeoutExpired(p.args, 10)
                        time.sleep(0.01)
                except subprocess.TimeoutExpired:
                    hangs, left = True, [pid for pid in left if is_running(pid)]
                    for pid in [p.pid, *left]:
                        os.kill(pid, signal.SIGKILL)
                stderr.seek(0)
                said = stderr.read()
            if hangs and (left or LAUNCHER_BUG not in said):
                sys.exit(f"kill {done} ({whom} of {ranks} after {began:.2f} s): the job did not end: {said}")
            launcher_hangs += hangs
            slowest = max(slowest, time.monotonic() - begin) if hit and not hangs else slowest
            if not hit and status:
                sys.exit(f"a run that was not disturbed ended with {status}: {said}")
            usual *= 1.02 if hit else 0.9  # what is left to do, and how busy the machine is, vary: five of six moments shall hit
            done += hit
            hits[whom] += hit
            publications += hit and changes > 0
            now = finished(output)
            wrong = [k for k, v in now.items() if truth.get(k) != v]
            lost = [k for k in kept if k not in now]
            if wrong or lost:
                sys.exit(f"kill {done} ({whom} of {ranks} after {began:.2f} s): {len(wrong)} wrong {wrong[:3]}, {len(lost)} lost {lost[:3]}\n{said}")
            kept = now
            if not hit and len(now) == len(truth):
                subprocess.run([sys.executable, SAME, reference, output], check=True, stdout=subprocess.DEVNULL)
                os.remove(output)
                files, kept = files + 1, {}
        # Whatever stands there is finished and compared, too.
        subprocess.run(command(kosweep, config, output, 1, "resident"), check=True, stdout=subprocess.DEVNULL, env=environment())
        subprocess.run([sys.executable, SAME, reference, output], check=True, stdout=subprocess.DEVNULL)
        print(f"{dict(hits)}; {publications} at a publication")
        print(f"{done} kills, {files + 1} files finished and equal, no finished cell lost; a killed job ended within {slowest:.1f} s"
              + (f"; {launcher_hangs} times the launcher alone hung" if launcher_hangs else ""))


def make_corpus(path):
    """The models have different vocabularies, so samples are token ids."""
    rng = random.Random(7)
    samples = [{"id": f"s{i}", "token_ids": [rng.randrange(5, 90) for _ in range(60 + 3 * i)], "marker_tokens": [10 + i],
                "target_tokens": [1, 3, 5 + i % 4]} for i in range(12)]
    pathlib.Path(path).write_text(json.dumps({"_format_version": "2.0", "python_doctest": samples[:6], "rust_test": samples[6:]}))


if __name__ == "__main__":
    main()
