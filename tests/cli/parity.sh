#!/usr/bin/env bash
# kosweep run against every golden answer, in both precisions.
set -euo pipefail
python=${KS_PYTHON:-/usr/bin/python3}
for precision in full fast; do
    echo "precision $precision"
    "$python" "$KS_ROOT/tests/parity/goldens.py" --kosweep "$KOSWEEP" --precision "$precision"
done
