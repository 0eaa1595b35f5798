#!/usr/bin/env bash
# What the machine refuses: folders, full disks, memory, devices. One message, status 4, the former file byte for byte.
set -uo pipefail
. "$KS_ROOT/tests/tools/refusal.sh"

run() { # STATUS PATTERN OPTIONS...
    local status=$1 pattern=$2
    shift 2
    refused "$status" "$pattern" "$KOSWEEP" run --model "$model" --corpus "$corpus" --threads 1 --quiet "$@"
}

# ---- places that cannot be written ----
run 4 'no/such/new.h5: .*No such file' --output "$out/no/such/new.h5"
run 4 'kept.h5/new.h5: .*Not a directory' --output "$out/kept.h5/new.h5"
run 4 '/proc/new.h5: ' --output /proc/new.h5
echo '{}' >"$work/kept.json"
run 2 'kept.json: exists.*--force' --output "$work/kept.json"
[ "$(cat "$work/kept.json")" = '{}' ] || complain "kept.json was touched"

# ---- full disks ----
# limited BLOCKS COMMAND...: no file may grow above so many KiB.
limited() {
    (
        ulimit -f "$1"
        shift
        exec "$@"
    )
}
refused 4 'new.h5: cannot be written' limited 20 "$KOSWEEP" run --model "$model" --corpus "$corpus" --quiet --output "$out/new.h5"
refused 4 'kept.h5: cannot be written' limited 20 "$KOSWEEP" run --model "$model" --corpus "$corpus" --quiet --output "$out/kept.h5" --force
mkdir "$work/disk"
if mount -t tmpfs -o size=48k tmpfs "$work/disk" 2>/dev/null; then
    trap 'umount "$work/disk"; rm -rf "$work"' EXIT
    echo "somebody's results" >"$work/disk/old.h5"
    run 4 'disk/old.h5: cannot be written.*No space' --output "$work/disk/old.h5" --force
    [ "$(ls "$work/disk")" = old.h5 ] && [ "$(cat "$work/disk/old.h5")" = "somebody's results" ] || complain "the full disk holds: $(ls "$work/disk")"
    # Room for one file, but not for two: the last publication fails, and every cell is there.
    mount -o remount,size=96k "$work/disk"
    run 4 'disk/old.h5: cannot be written.*No space.*finished stay' --output "$work/disk/old.h5" --force
    [ "$(ls "$work/disk")" = old.h5 ] || complain "the full disk holds: $(ls "$work/disk")"
    "$KOSWEEP" run --model "$model" --corpus "$corpus" --threads 1 --quiet --output "$work/whole.h5" >/dev/null 2>"$work/stderr"
    /usr/bin/python3 - "$work/whole.h5" "$work/disk/old.h5" <<'PY' || complain "old.h5 lacks cells"
import sys, h5py
files = [h5py.File(name) for name in sys.argv[1:]]
kl = [f["models/a_qwen2/sweeps/layers/kl"][()].tobytes() for f in files]
sys.exit(kl[0] != kl[1] or not files[1]["models/a_qwen2/sweeps/layers/status"][()].all())
PY
fi
for command in run plan tokens; do
    "$KOSWEEP" $command --model "$model" --corpus "$corpus" --quiet --output "$work/$command.h5" >/dev/full 2>"$work/stderr"
    [ $? = 4 ] && grep -q 'error: .*cannot be written: No space' "$work/stderr" || complain "$command >/dev/full"
done
"$KOSWEEP" model "$model" >/dev/full 2>"$work/stderr"
[ $? = 4 ] && grep -q 'error: stdout cannot be written: No space' "$work/stderr" || complain "model >/dev/full"

# ---- memory ----
run 4 'memory' --memory 1K --output "$out/new.h5"
run 4 'a_qwen2: .*--memory' --memory 48M --output "$out/new.h5"
run 4 'memory' --memory 49400K --weights streamed --output "$out/new.h5"
run 4 'memory' --memory 49400K --weights resident --output "$out/new.h5"
# The sanitizers need terabytes of addresses.
if ! grep -q __asan_init "$KOSWEEP"; then
    for megabytes in 120 90 80 70 60; do
        # Enough to start, too little to finish; where it fails depends on the libraries' size, that it says so does not.
        (
            ulimit -v $((megabytes * 1024))
            exec "$KOSWEEP" run --model "$model" --corpus "$corpus" --threads 1 --quiet --output "$out/new.h5"
        ) >"$work/stdout" 2>"$work/stderr"
        case $? in
        0) rm "$out/new.h5" ;;
        4 | 127) [ "$(grep -c error: "$work/stderr")" = 1 ] || complain "$megabytes MiB of addresses" ;;
        *) complain "$megabytes MiB of addresses" ;;
        esac
        # What was finished may stay.
        [ ! -e "$out/new.h5" ] || "$KOSWEEP_STATS" csv "$out/new.h5" >/dev/null 2>"$work/stderr" || complain "$megabytes MiB: new.h5"
        rm -f "$out/new.h5"
        [ "$(ls "$out")" = kept.h5 ] || complain "left behind: $(ls "$out")"
    done
fi

# ---- devices ----
KS_CPU_ISA=vax run 2 'vax' --output "$out/new.h5"
if ! [ -e /dev/nvidia0 ]; then run 4 'cuda' --backend cuda --output "$out/new.h5"; fi

# ---- the demo's folder ----
cp "$KOSWEEP" "$work/kosweep"
(cd / && KOSWEEP_HOME=$work refused 3 'config/demo.json.*KOSWEEP_HOME' "$work/kosweep" demo) || failures=1
all_refused
