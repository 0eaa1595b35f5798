# Sourced by mpirun.sh and by the scripts in slurm/: the site's environment, and which program. $launch is this folder.
# shellcheck shell=bash
launch=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

say() {
    local script=${self:-$0} # $self: where $0 is Slurm's copy of a script
    echo "${script##*/}: $*" >&2
}
fail() { # STATUS MESSAGE
    say "$2"
    exit "$1"
}

if [ -z "${KS_SITE_ENV:-}" ] && [ -f "$launch/site.env" ]; then KS_SITE_ENV=$launch/site.env; fi
if [ -n "${KS_SITE_ENV:-}" ]; then
    [ -r "$KS_SITE_ENV" ] || fail 2 "KS_SITE_ENV: $KS_SITE_ENV cannot be read"
    # shellcheck source=/dev/null
    . "$KS_SITE_ENV"
    export KS_SITE_ENV
fi

if [ -z "${KOSWEEP:-}" ]; then
    KOSWEEP=kosweep
    [ ! -x "$launch/../build/kosweep" ] || KOSWEEP=$(realpath "$launch/../build/kosweep")
fi
KOSWEEP_STATS=${KOSWEEP_STATS:-$KOSWEEP-stats}
for program in "$KOSWEEP" "$KOSWEEP_STATS"; do
    command -v "$program" >/dev/null || fail 2 "$program: no such program; set KOSWEEP"
done
export KOSWEEP KOSWEEP_STATS
