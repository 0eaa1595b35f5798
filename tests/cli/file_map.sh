#!/usr/bin/env bash
# README.md's table has every source file, and no file that is gone.
set -euo pipefail
cd "$KS_ROOT"
/usr/bin/python3 - <<'PY'
import pathlib, re, sys

rows = []
for line in pathlib.Path("README.md").read_text().splitlines():
    if not line.startswith("|"):
        continue
    for quoted in re.findall(r"`((?:src|analysis)/[^`]*)`", line.split("|")[1]):
        braces = re.search(r"\{([^}]*)\}", quoted)
        for part in braces.group(1).split(",") if braces else [""]:
            rows.append(quoted.replace(braces.group(0), part) if braces else quoted)
files = {str(p) for room in ("src", "analysis") for p in pathlib.Path(room).rglob("*.[ch]")}
faults = [f"README.md: no row for {f}" for f in sorted(files - set(rows))]
faults += [f"README.md: there is no {f}" for f in sorted(set(rows) - files)]
faults += [f"README.md: two rows for {f}" for f in sorted({f for f in rows if rows.count(f) > 1})]
if len(files) < 50:
    faults.append(f"only {len(files)} files found: is this the right folder?")
sys.exit("\n".join(faults) or 0)
PY
