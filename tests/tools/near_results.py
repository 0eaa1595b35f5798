#!/usr/bin/env python3
"""Compare the effects of a result file with the CPU's: near, within the limits of parity, exact zeros in the same places, but not the same
bits everywhere. Usage: near_results.py FILE CPU_FILE [ATTRIBUTE=TEXT ...]: attributes of FILE's /provenance that begin so."""
import os
import sys

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "parity"))
from compare import EFFECT_LIMITS, KL_COUNTS

largest, median = EFFECT_LIMITS["full"]
with h5py.File(sys.argv[1]) as got, h5py.File(sys.argv[2]) as want:
    names = []
    want.visititems(lambda name, item: names.append(name) if name.split("/")[-1] in ("kl", "kl_reverse", "js") else None)
    assert len(names) >= 3, names
    for name in names:
        a, b = got[name][()], want[name][()]
        assert np.array_equal(a == 0, b == 0) and np.isfinite(a).all(), name
        counts = b > KL_COUNTS
        error = np.abs(a - b)[counts] / b[counts]
        assert counts.any() and (error > 0).any(), name + ": the CPU's own values"
        assert error.max() < largest and np.median(error) < median, (name, error.max(), np.median(error))
    provenance = got["provenance"].attrs
    assert provenance["device"] != want["provenance"].attrs["device"]
    for argument in sys.argv[3:]:
        key, text = argument.split("=", 1)
        assert provenance[key].startswith(text), (key, provenance[key])
    print("near the CPU's:", ", ".join(names))
