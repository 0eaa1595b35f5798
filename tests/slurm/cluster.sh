#!/usr/bin/env bash
# A Slurm cluster of two nodes on this host, for tests: munged, slurmctld and two slurmd on loopback, all files in one directory.
set -uo pipefail
usage() {
    cat <<'HELP'
usage: tests/slurm/cluster.sh start DIR [CPUS]    starts it with CPUS (default 4) pretended cores a node; DIR is made
       tests/slurm/cluster.sh stop DIR            ends its jobs and its daemons
       tests/slurm/cluster.sh check               only says whether this host can run it

Then `. DIR/env` gives srun, sbatch, scancel and the like the way to it. An installed Slurm is left alone.
Needs the packages slurm-wlm and munge, and root. Exit status 77: this host cannot run it, with the reason on stderr.
HELP
}
fail() {
    echo "cluster.sh: $*" >&2
    exit 1
}

# The daemons stand in sbin, which a user's PATH may lack.
PATH=$PATH:/usr/sbin:/sbin

check() {
    local reason='' tool
    for tool in munged mungekey slurmctld slurmd srun sbatch scancel scontrol; do
        command -v $tool >/dev/null || reason="$tool is not installed (Debian: slurm-wlm and munge)"
    done
    [ "$(id -u)" = 0 ] || reason="slurmd needs root"
    getent hosts "$(hostname)" >/dev/null || reason="this host's own name ($(hostname)) has no address, and Slurm's daemons look it up"
    [ -z "$reason" ] || { echo "cluster.sh: skipped: $reason" >&2 && exit 77; }
}

# Ports that are free now. Another process may take one before the daemons do; start() then tries again.
free_ports() {
    python3 - <<'PY'
import socket
sockets = [socket.socket() for _ in range(3)]
for s in sockets:
    s.bind(("127.0.0.1", 0))
print(*(s.getsockname()[1] for s in sockets))
PY
}

configure() { # DIR CPUS
    local dir=$1 host ports
    host=$(hostname -s)
    read -ra ports < <(free_ports)
    cat >"$dir/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=${ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge/socket,cred_expire=5
CredType=cred/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation=$dir/state
SlurmctldPidFile=$dir/slurmctld.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdSpoolDir=$dir/spool.%n
SlurmdPidFile=$dir/slurmd.%n.pid
SlurmdLogFile=$dir/slurmd.%n.log
TmpFS=$dir/tmp.%n
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
JobRequeue=1
KillWait=30
MinJobAge=300
SchedulerParameters=sched_interval=2,batch_sched_delay=0,bf_interval=2
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=${ports[1]} CPUs=$2 RealMemory=20000
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=${ports[2]} CPUs=$2 RealMemory=20000
PartitionName=test Nodes=n1,n2 Default=YES MaxTime=INFINITE OverSubscribe=NO
CONF
    echo 'CgroupPlugin=cgroup/v1' >"$dir/cgroup.conf"
    # Slurm's tools take options from the environment too; those of a job that runs this test are not meant for this cluster.
    cat >"$dir/env" <<ENV
unset \$(compgen -e | grep -E '^(SLURM|SBATCH|SALLOC|SRUN|PMIX|PMI|OMPI)_')
export SLURM_CONF=$dir/slurm.conf
# Both nodes have the same host name, and Open MPI would take their shared memory for one.
export OMPI_MCA_btl=self,tcp OMPI_MCA_btl_tcp_if_include=lo
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
ENV
}

stop() { # DIR
    local dir=$1 pid file
    [ -d "$dir" ] || return 0
    # The jobs first: without its daemon nobody ends a job's processes.
    [ ! -f "$dir/slurmctld.pid" ] || (
        . "$dir/env"
        timeout 10 scontrol ping || exit
        timeout 10 scancel --quiet --full --signal=KILL --user=root
        timeout 10 scancel --quiet --user=root
        for _ in $(seq 50); do
            [ -n "$(timeout 10 squeue --noheader)" ] || break
            sleep 0.2
        done
    ) >/dev/null 2>&1
    for file in "$dir"/slurmd.*.pid "$dir/slurmctld.pid" "$dir/munge/pid"; do
        [ -f "$file" ] || continue
        read -r pid <"$file" || continue
        # A daemon's pid stays in its file if the daemon was killed; only a process that names this directory is ours.
        running() { grep -aqsF "$dir" "/proc/$pid/cmdline"; }
        running && kill "$pid"
        for _ in $(seq 50); do running || break; sleep 0.1; done
        running && kill -KILL "$pid"
        rm -f "$file"
    done
    return 0
}

begin() { # DIR CPUS: one attempt
    local dir=$1 node
    configure "$dir" "$2"
    # --force: the directory may be closed to all but root, which is enough here.
    munged --force --key-file="$dir/munge/key" --socket="$dir/munge/socket" --pid-file="$dir/munge/pid" --log-file="$dir/munge/log" \
        --seed-file="$dir/munge/seed" --num-threads=2 2>>"$dir/munge/log" || return 1
    slurmctld -c -f "$dir/slurm.conf" || return 1
    for node in n1 n2; do
        slurmd -N $node -f "$dir/slurm.conf" || return 1
    done
    # sinfo calls nodes idle before they take jobs.
    local until=$((SECONDS + 15))
    while [ $SECONDS -lt $until ]; do
        (. "$dir/env" && timeout 5 srun -I1 -N2 -n2 true) >/dev/null 2>"$dir/ready.log" && return 0
        sleep 0.25
    done
    return 1
}

start() { # DIR CPUS
    local dir
    mkdir -p "$1" && dir=$(realpath "$1") || fail "$1: the directory cannot be made"
    [ ${#dir} -le 60 ] || fail "$dir: a path of at most 60 characters is needed, because sockets lie in it"
    [ ! -f "$dir/slurm.conf" ] || fail "$dir already holds a cluster"
    mkdir -p "$dir/munge" "$dir/state" "$dir"/{spool,tmp}.{n1,n2}
    chmod 0755 "$dir" "$dir/munge"
    mungekey --create --keyfile="$dir/munge/key" || fail "no key"
    for _ in 1 2 3; do
        begin "$dir" "$2" && return 0
        stop "$dir"
    done
    tail -n 5 "$dir"/*.log "$dir/munge/log" >&2
    fail "the cluster does not come up"
}

case "${1:-}" in
start) [ $# -ge 2 ] || { usage >&2 && exit 2; }; check && start "$2" "${3:-4}" ;;
stop) [ $# = 2 ] || { usage >&2 && exit 2; }; stop "$(realpath "$2")" ;;
check) check ;;
-h | --help) usage ;;
*) usage >&2 && exit 2 ;;
esac
