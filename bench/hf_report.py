"""hf_report.py DIRECTORY - the table at the end of vs_hf.sh: seconds, ratios, and distance of the KLs from kosweep's."""
import glob
import json
import os
import sys

import h5py
import numpy as np

folder = sys.argv[1]
with open(os.path.join(folder, "kosweep.times")) as f:
    runs = [[float(x) for x in line.split()] for line in f]
ours, ours_cpu = min(r[0] for r in runs), min(r[1] + r[2] for r in runs)
with h5py.File(os.path.join(folder, "kosweep.h5")) as f:
    model = next(iter(f["models"].values()))
    ids = [i.decode() for i in model["samples/id"][:]]
    kl = model["sweeps/layers/kl"][:]

print(f"{'':28} {'seconds':>9} {'ratio':>7} {'CPU s':>9} {'ratio':>7}   relative distance of KL from kosweep's: KL < 1e-6, < 1e-4, above (median)")
print(f"{'kosweep --threads 1':28} {ours:9.2f} {1:7.2f} {ours_cpu:9.2f} {1:7.2f}")
far = False
for program in ("batched", "published"):
    runs = [json.load(open(path)) for path in glob.glob(os.path.join(folder, f"{program}.*.json"))]
    seconds, cpu = (min(r[key] * len(ids) / r["samples"] for r in runs) for key in ("seconds", "cpu_seconds"))
    want = np.array([kl[:, ids.index(s)] for s in runs[0]["kl"]])
    got = np.array(list(runs[0]["kl"].values()))
    zero = want == 0
    distance = np.abs(got - want) / np.where(zero, 1, want)
    bands = [(want < 1e-6) & ~zero, (want >= 1e-6) & (want < 1e-4), want >= 1e-4]
    medians = "  ".join(f"{np.median(distance[b]):.1e} ({b.sum()})" if b.any() else "- (0)" for b in bands)
    scaled = "" if runs[0]["samples"] == len(ids) else f", scaled from {runs[0]['samples']} samples"
    print(f"{runs[0]['name']:28} {seconds:9.2f} {seconds / ours:7.2f} {cpu:9.2f} {cpu / ours_cpu:7.2f}   {medians}{scaled}")
    far |= bool((distance[bands[2]] > 0.02).any()) or not np.allclose(got[zero], 0, atol=1e-6)
if far:
    sys.exit("hf_report: a KL above 1e-4 differs by more than 2 %, or one that is 0 does not: the two do not compute the same thing")
