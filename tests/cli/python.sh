#!/usr/bin/env bash
# The code of docs/python.md, in one piece, on a layer scan; its numbers are those of kosweep-stats. KS_PYTHON names a python that has h5py,
# xarray and pandas, if /usr/bin/python3 has not.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=${KS_PYTHON:-/usr/bin/python3}
if ! "$python" -c 'import h5py, pandas, xarray' 2>/dev/null; then
    echo "$python lacks h5py, xarray or pandas: docs/python.md was not tested"
    exit 77
fi
"$KOSWEEP" run --model "$KS_ROOT/models/box" --corpus "$KS_ROOT/corpus/attention_samples_universal.json" --groups python_doctest,rust_test \
    --scan-layers --backend cpu --threads 1 --quiet --output "$work/results.h5" >/dev/null
"$KOSWEEP_STATS" csv "$work/results.h5" >"$work/cells.csv"
awk '/^```python$/ { on = 1; next } /^```/ { on = 0 } on' "$KS_ROOT/docs/python.md" >"$work/page.py"
cat >>"$work/page.py" <<'PY'

# ---- the test ----
import pandas as pd

cells = pd.read_csv("cells.csv", float_precision="round_trip")
assert len(table) == len(cells) == 120 and set(curves.dims) == {"group", "window"}
both = table.merge(cells, on=["layer_start", "sample"], suffixes=("", "_csv"))
assert len(both) == 120
for name in ("kl", "js", "p_top", "floor"):
    assert (both[name] == both[name + "_csv"]).all(), name
assert (both["group"] == both["group_csv"]).all()
means = cells.groupby(["layer_start", "group"])["kl"].mean()
assert np.allclose(summary["mean"], means, rtol=1e-13, atol=0) and (summary["n"] == 10).all()
assert 0 < summary["above"].mean() < 1
PY
(cd "$work" && PYTHONDONTWRITEBYTECODE=1 "$python" page.py >said 2>&1) || {
    cat "$work/said"
    exit 1
}
grep -q "^python_doctest layer [0-5] mean KL" "$work/said" || {
    echo "python.sh: no line for python_doctest: $(cat "$work/said")"
    exit 1
}
