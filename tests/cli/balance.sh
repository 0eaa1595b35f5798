#!/usr/bin/env bash
# Ranks of different speed end together: rank 1 is held up three quarters of the time, as on a core that others use too, and does less.
set -euo pipefail
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/braked" <<SH
#!/usr/bin/env bash
if [ "\$OMPI_COMM_WORLD_RANK" = 1 ]; then
    (while sleep 0.02 && kill -STOP \$\$ && sleep 0.06 && kill -CONT \$\$; do :; done) 2>/dev/null &
fi
exec "\$@"
SH
chmod +x "$work/braked"
sweep=(run --model "$KS_ROOT/models/box" --corpus "$KS_ROOT/corpus/attention_samples_universal.json" --all-windows --all-edges --heads each
    --include-baselines --threads 1)
mpirun -n 2 "$work/braked" "$KOSWEEP" "${sweep[@]}" --verbose --output "$work/two.h5" >/dev/null 2>"$work/stderr"
"$KOSWEEP" "${sweep[@]}" --quiet --output "$work/one.h5" >/dev/null
/usr/bin/python3 "$KS_ROOT/tests/tools/same_results.py" "$work/one.h5" "$work/two.h5"
grep ' passes, ' "$work/stderr"
/usr/bin/python3 - "$work/stderr" <<'PY'
import re, sys
ranks = {int(m[1]): [float(x) for x in m.groups()[1:]] for m in re.finditer(
    r"rank (\d+) on \S+: (\d+) passes, (\S+) FLOPs in (\S+) s, the last pass in (\S+) s, ended (\S+) s before", open(sys.argv[1]).read())}
assert sorted(ranks) == [0, 1], ranks
(_, fast, _, last0, end0), (_, slow, _, last1, end1) = ranks[0], ranks[1]
assert fast > 1.3 * slow, "rank 0 should have done much more than rank 1"
# One of them ended last; the other one could not have done another pass of the last one's size.
gap, pass_ = max(end0, end1), max(last0, last1)
assert gap <= pass_ + 0.5, (gap, pass_)
total = sum(r[2] for r in ranks.values()) / 2
assert pass_ < 0.25 * total, "the last passes are small"
print(f"rank 0 did {fast / slow:.1f} times as much; one ended {gap:.2f} s before the other, whose last pass took {pass_:.2f} s")
PY
