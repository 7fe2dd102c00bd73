#!/usr/bin/env bash
# Runs a command where `srun` works: starts a Slurm of one node, this machine, and ends it after the command.
#
#   tests/slurm.sh COMMAND [ARGUMENT...]
#
# The command sees TEST_SRUN=1 and SLURM_CONF; its exit status is this script's. Wants root and Debian's slurm-wlm.
# Keys, sockets, ports, state and logs are this instance's own, so that a Slurm that already runs here is not touched.
set -euo pipefail

fail() {
    echo "tests/slurm.sh: $*" >&2
    exit 1
}

[ $# -gt 0 ] || fail "which command?"
[ "$(id -u)" = 0 ] || fail "slurmd starts the ranks' processes as root, and this is user $(id -un)"
for program in munge munged mungekey slurmctld slurmd srun sinfo squeue scancel; do
    command -v "$program" >/dev/null || fail "$program is missing; apt-get install slurm-wlm munge"
done
host=$(uname -n)
host=${host%%.*}
timeout 5 getent hosts "$host" >/dev/null || fail "ranks meet at the node's name, and $host has no address"

directory=$(mktemp -d)
daemons=()
command=

# Ends what runs here: first the command, then the jobs that it left, then the daemons, the last one first. Takes less
# than 30 seconds, after which `timeout --kill-after=30` would kill this.
finish() {
    local i
    trap '' HUP INT TERM
    if [ -n "$command" ]; then
        end "-$command"
    fi
    if [ ${#daemons[@]} -eq 3 ]; then
        # Jobs whose srun was killed have processes of their own, which do not end with slurmd.
        timeout 3 scancel --user=root >/dev/null 2>&1 || true
        timeout 5 bash -c 'while [ -n "$(squeue --noheader)" ]; do sleep 0.2; done' >/dev/null 2>&1 || true
    fi
    for ((i = ${#daemons[@]} - 1; i >= 0; i--)); do
        end "${daemons[i]}"
    done
    rm -rf "$directory"
}

# end PID: asks a child, or with a minus sign its process group, to end, and after five seconds insists.
end() {
    kill -- "$1" 2>/dev/null || true
    for _ in {1..50}; do
        kill -0 -- "$1" 2>/dev/null || break
        sleep 0.1
    done
    kill -KILL -- "$1" 2>/dev/null || true
    wait "${1#-}" 2>/dev/null || true
}

# start NAME COMMAND...: a daemon in a session of its own, so that a signal to this script's process group does not end
# it before its jobs; should this script be killed, the kernel kills the daemon.
start() {
    local name=$1
    shift
    setsid setpriv --pdeathsig KILL "$@" </dev/null >"$directory/$name.log" 2>&1 &
    daemons+=($!)
}

# await SECONDS WHAT COMMAND...: waits until the command succeeds while all daemons live.
await() {
    local deadline=$((SECONDS + $1)) what=$2 pid
    shift 2
    until timeout 5 "$@" >/dev/null 2>&1; do
        for pid in "${daemons[@]}"; do
            kill -0 "$pid" 2>/dev/null || deadline=0
        done
        if [ $SECONDS -ge $deadline ]; then
            tail -n 20 "$directory"/*.log >&2
            fail "$what"
        fi
        sleep 0.2
    done
}

trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# munged's clients may be any user, who must reach its socket.
chmod 711 "$directory"
mkdir "$directory/state" "$directory/spool"
read -r controller node < <(python3 -c '
import socket
sockets = [socket.create_server(("", 0)) for _ in range(2)]
print(*(s.getsockname()[1] for s in sockets))')

# The daemons meet on loopback. CPUs are those that we may use, whatever slurmd counts, and jobs share them: four ranks
# run on two cores. Killed steps have a second to end, not 30.
cat >"$directory/slurm.conf" <<END
ClusterName=rccl
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$controller
SlurmdPort=$node
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$directory/munge.socket
StateSaveLocation=$directory/state
SlurmdSpoolDir=$directory/spool
SlurmctldPidFile=$directory/slurmctld.pid
SlurmdPidFile=$directory/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
KillWait=1
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=all Nodes=$host Default=YES OverSubscribe=FORCE:4
END
# Nothing above wants control groups, which a container may not change. slurmd opens a plugin for them all the same:
# that of version 2 would ask systemd for a group, that of version 1 does nothing until it is used.
echo CgroupPlugin=cgroup/v1 >"$directory/cgroup.conf"
export SLURM_CONF=$directory/slurm.conf TEST_SRUN=1

mungekey --create --keyfile "$directory/munge.key"
start munged munged --foreground --socket "$directory/munge.socket" --key-file "$directory/munge.key" \
    --pid-file "$directory/munged.pid" --seed-file "$directory/munged.seed"
await 10 "munged does not answer" munge --socket "$directory/munge.socket" --no-input
start slurmctld slurmctld -D
start slurmd slurmd -D
await 30 "the node does not become idle" bash -c '[ "$(sinfo --noheader --format=%T)" = idle ]'

# In the background, since bash would keep a signal waiting until a command in the foreground ends; in a process group
# of its own, so that a signal ends what the command started too.
setsid "$@" &
command=$!
status=0
wait "$command" || status=$?
command=
exit $status
