#!/usr/bin/env bash
# What the world does to a result file while a sweep writes it, and to stdout and stderr. Every finished cell stays, and the sweep goes on
# from there to the same bits.
set -uo pipefail
. "$KS_ROOT/tests/tools/refusal.sh"
. "$KS_ROOT/tests/tools/under_way.sh"
short=(run --model "$model" --corpus "$corpus" --all-windows --threads 1)
python=/usr/bin/python3
same() {
    $python "$KS_ROOT/tests/tools/same_results.py" "$@" >"$work/stderr" 2>&1 || complain "the bits differ: $*"
}
"$KOSWEEP" "${short[@]}" --quiet --output "$work/whole.h5" >/dev/null

# ---- the file ----
begin() { # NAME
    mkdir "$work/$1"
    under_way "$1" "$KOSWEEP" "${sweep[@]}" --output "$work/$1/o.h5"
}
begin removed
rm "$work/removed/o.h5"
ended removed 4 'removed/o.h5: was removed or renamed .* saved in .*removed/o.h5' 60
holds "$work/removed/o.h5" 1 37799
[ "$(ls "$work/removed")" = o.h5 ] || complain "beside the file that was removed: $(ls "$work/removed")"

begin replaced
echo "somebody's" >"$work/other" && mv "$work/other" "$work/replaced/o.h5"
ended replaced 4 'replaced/o.h5: was replaced by another file .* saved in .*o.h5.saved' 60
grep -q 'warning: .*/o.h5.saved keeps what was finished' "$work/stderr" || complain "replaced: where is what was finished?"
holds "$work/replaced/o.h5.saved" 1 37799
[ "$(cat "$work/replaced/o.h5")" = "somebody's" ] || complain "the other file was touched"

begin folder
rm -r "$work/folder"
ended folder 4 'folder/o.h5: was removed or renamed .* cannot be saved: .*No such file' 60

# A second one leaves the first alone. Then writes in place fail, as on a disk that copies what it overwrites and is full.
begin second
for how in --resume --force ''; do
    # shellcheck disable=SC2086 # no option is no argument
    "$KOSWEEP" "${short[@]}" --quiet --output "$work/second/o.h5" $how >"$work/stdout" 2>"$work/stderr"
    status=$?
    if [ -n "$how" ]; then
        [ $status = 4 ] && grep -q 'second/o.h5: is being written by another kosweep' "$work/stderr" || complain "a second kosweep $how: $status"
    else
        [ $status = 2 ] && grep -q 'second/o.h5: exists' "$work/stderr" || complain "a second kosweep: $status"
    fi
done
kill -0 "$pid" || complain "the first kosweep has gone"
prlimit --pid "$pid" --fsize=100000
ended second 4 'second/o.h5: cannot be written' 60
grep -q 'warning: .*/o.h5 keeps what was saved before; --resume' "$work/stderr" || complain "second: what does the file hold?"
holds "$work/second/o.h5" 1 37799
under_way on "$KOSWEEP" "${sweep[@]}" --output "$work/second/o.h5" --resume
kill -HUP "$pid"
wait "$pid"
[ $? = 75 ] || complain "SIGHUP after --resume"

# ---- the model's file, cut short while it is mapped ----
cp -r "$KS_ROOT/models/box" "$work/box"
cut=(run --model "$work/box" --weights resident "${sweep[@]:3}")
for start in '' 'mpirun -x ASAN_OPTIONS=detect_leaks=0 -n 2'; do
    # shellcheck disable=SC2086 # no launcher is no word
    under_way cut $start "$KOSWEEP" "${cut[@]}" --output "$work/cut.h5" --force
    truncate -s 5000 "$work/box/model.safetensors"
    for _ in $(seq 600); do kill -0 "$pid" 2>/dev/null && sleep 0.1; done
    wait "$pid"
    status=$?
    cp "$work/cut.log" "$work/stderr"
    [ $status = 4 ] && grep -q "error: rank . on $(hostname): a model's file cannot be read any more" "$work/stderr" || complain "cut: $status"
    holds "$work/cut.h5" 1 37799
    cp "$KS_ROOT/models/box/model.safetensors" "$work/box"
done

# ---- a disk that fills up, a disk that cannot be written ----
mkdir "$work/disk"
if mount -t tmpfs -o size=32m tmpfs "$work/disk" 2>/dev/null; then
    trap 'umount "$work/disk"; rm -rf "$work"' EXIT
    # Short enough to end: the last publication finds no room.
    filled=(run --model "$KS_ROOT/models/box" --corpus "$KS_ROOT/corpus/attention_samples_universal.json" --all-windows --threads 1
        --checkpoint 0)
    "$KOSWEEP" "${filled[@]}" --quiet --output "$work/filled.h5" >/dev/null
    under_way disk env KS_CPU_ISA=generic "$KOSWEEP" "${filled[@]}" --output "$work/disk/o.h5"
    cat /dev/zero >"$work/disk/filler" 2>/dev/null
    ended disk 4 'disk/o.h5: cannot be written .*No space left.*finished stay in the file' 120
    holds "$work/disk/o.h5" 420 420
    rm "$work/disk/filler"
    "$KOSWEEP" "${filled[@]}" --resume --output "$work/disk/o.h5" >/dev/null 2>"$work/stderr" || complain "--resume when there is room again"
    same "$work/filled.h5" "$work/disk/o.h5"
    mount -o remount,ro "$work/disk"
    for how in --resume --force; do
        "$KOSWEEP" "${filled[@]}" $how --output "$work/disk/o.h5" >/dev/null 2>"$work/stderr"
        [ $? = 4 ] && grep -q 'disk/o.h5: .*Read-only file system' "$work/stderr" || complain "$how on a read-only disk"
    done
    same "$work/filled.h5" "$work/disk/o.h5"
else
    echo "no mount: full and read-only disks are not tested"
fi

# ---- stdout, stderr ----
# left STATUS PATTERN NAME: the sweep NAME ended with STATUS, its file is whole.
left() {
    local status
    status=$(cat "$work/status")
    [ "$status" = "$1" ] && { [ -z "$2" ] || grep -Eq -e "$2" "$work/stderr"; } || complain "$3: status $status"
    same "$work/whole.h5" "$work/$3.h5"
}
(
    KOSWEEP_PROGRESS=0.001 "$KOSWEEP" "${short[@]}" --output "$work/unread.h5" 2>&1 >/dev/null
    echo $? >"$work/status"
) | true
: >"$work/stderr"
left 0 '' unread
(
    "$KOSWEEP" "${short[@]}" --output "$work/untabled.h5" 2>"$work/stderr"
    echo $? >"$work/status"
) | true
left 4 'error: the tables cannot be written: Broken pipe' untabled
(
    "$KOSWEEP" "${short[@]}" --output "$work/closed.h5" <&- >&- 2>&-
    echo $? >"$work/status"
) 2>"$work/stderr"
left 4 '' closed
all_refused
