#!/usr/bin/env bash
# kosweep tokens against the golden ids, ranges, markers and targets.
set -euo pipefail
exec "${KS_PYTHON:-/usr/bin/python3}" "$KS_ROOT/tests/parity/tokens.py" --kosweep "$KOSWEEP"
