#!/usr/bin/env bash
# Ten kills at random moments lose nothing (tests/soak.py says what is checked). More of them: tests/soak.py build/kosweep 200
exec /usr/bin/python3 "$KS_ROOT/tests/soak.py" "$KOSWEEP" 10
