#!/usr/bin/env bash
# The comparison with the golden answers notices one wrong element, wherever it is.
set -euo pipefail
exec "${KS_PYTHON:-/usr/bin/python3}" "$KS_ROOT/tests/parity/goldens.py" --self-test "$KS_ROOT/tests/goldens"
