#!/usr/bin/env bash
# kosweep plan: what it prints for one rank and for a thousand, on a generated corpus of a million cells.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
complain() {
    echo "$*"
    exit 1
}

/usr/bin/python3 - "$work/corpus.json" <<'PY'
import json, random, sys

random.seed(4)
samples = []
for i in range(8000):
    T = random.randint(20, 60)
    marker = random.randint(T // 2, T - 3)
    samples.append({"id": f"s{i}", "token_ids": [random.randrange(1000) for _ in range(T)], "marker_tokens": [marker],
                    "target_tokens": sorted(random.sample(range(marker), 4))})
json.dump({"_format_version": "2.0", "ids": samples}, open(sys.argv[1], "w"))
PY
plan() {
    "$KOSWEEP" plan --model "$KS_ROOT/models/box" --corpus "$work/corpus.json" --groups ids --all-windows --heads each --memory 4G \
        --output "$work/out.h5" "$@"
}
for ranks in 1 16 1024; do plan --ranks $ranks --json >"$work/$ranks.json"; done
/usr/bin/python3 - "$work" <<'PY'
import json, sys

plans = {n: json.load(open(f"{sys.argv[1]}/{n}.json")) for n in (1, 16, 1024)}
for n, p in plans.items():
    ranks = p["ranks"]
    assert len(ranks) == n and p["cells"] == 8000 * 126 == sum(r["cells"] for r in ranks), n
    assert abs(sum(r["flops"] for r in ranks) / p["flops"] - 1) < 1e-9, n
    assert p["passes"] == max(r["passes"] for r in ranks) and p["units"] >= 8000, n
    assert p["flops"] >= p["flops_whole"] == plans[1]["flops"], n
    compute = max(r["flops"] for r in ranks) / p["flops_per_second"]
    assert abs(p["compute_seconds"] / compute - 1) < 1e-9 and p["seconds"] >= max(compute, p["root_seconds"]) * (1 - 1e-9), n
    assert p["root_seconds"] >= p["cells"] * p["seconds_per_cell"] > 0, n
    ideal = p["flops_whole"] / n / p["flops_per_second"]
    assert abs(p["efficiency"] / (ideal / p["seconds"]) - 1) < 1e-9 and p["efficiency"] <= 1 + 1e-9, n
PY

# A line per rank where they are few, else their range.
[ "$(plan --ranks 16 | grep -c '^    rank')" = 16 ] || complain "16 ranks do not have 16 lines"
plan --ranks 1024 >"$work/text"
if grep -q '^    rank' "$work/text"; then complain "1024 ranks have lines of their own"; fi
grep -q 'a rank, min / mean / max: .* cells' "$work/text" || complain "1024 ranks have no summary"
grep -q 'efficiency .* %' "$work/text" || complain "no efficiency"
[ "$(find "$work" -name 'out*' | wc -l)" = 0 ] || complain "plan leaves files behind: $(ls "$work")"

# A folder that does not exist cannot be measured, which is no reason not to plan.
plan --output "$work/no/such/out.h5" | grep -q 'root .*not measured.*no/such' || complain "a missing folder is not named"
