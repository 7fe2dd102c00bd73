#!/usr/bin/env bash
# Hosts in one machine: network namespaces joined by veth pairs and a bridge, two ranks in each. RCCL_HOSTID tells them
# apart as hosts, so ranks share memory inside of one and speak TCP between them.
#
#   tests/hosts.sh [path of the rccl command]
#
# Needs root and iproute2; every step has a time limit.
set -euo pipefail

rccl=$(realpath "${1:-target/release/rccl}")
# shellcheck source=tests/namespaces.sh
. "$(dirname "$0")/namespaces.sh"

# start HOSTS ADDRESS ARGUMENTS...: two ranks a host of `rccl perf ARGUMENTS`.
start() {
    local hosts=$1 address=$2
    shift 2
    if ! ranks 2 "$hosts" "$address" "$rccl" perf "$@" || ! grep -q '# Out of bounds values : 0 OK' "$work/0"; then
        echo "FAILED: $hosts hosts, $address, $*" >&2
        tail -n 5 "$work"/*.err "$work/0" >&2
        exit 1
    fi
}

passed=0
check() {
    echo "hosts: $1"
    shift
    "$@"
    passed=$((passed + 1))
}

make_hosts 4
sweep="-b 8 -e 4M -f 8 -n 5 -w 1"
for hosts in 2 4; do
    for address in "10.77.0.1:47000" "[fd77::1]:47000"; do
        # shellcheck disable=SC2086
        for algorithm in hierarchical ring direct doubling; do
            check "$hosts hosts of two ranks, $address, all_reduce by $algorithm" \
                start "$hosts" "$address" all_reduce $sweep --algo "$algorithm"
        done
        for collective in all_gather reduce_scatter all_to_all; do
            check "$hosts hosts of two ranks, $address, $collective by hierarchical" \
                start "$hosts" "$address" "$collective" -b 64 -e 4M -f 8 -n 5 -w 1 --algo hierarchical
        done
        for collective in broadcast reduce; do
            # shellcheck disable=SC2086
            check "$hosts hosts of two ranks, $address, $collective" start "$hosts" "$address" "$collective" $sweep -r 1
        done
    done
done

# An asynchronous all_reduce over 1 Gbit/s hides behind computation: total within 15 % of the longer of the two. Other
# work on this machine lengthens the computation, so one of six tries is enough.
overlap() {
    local bench
    bench=$(dirname "$rccl")/overlap-bench
    for host in 0 1; do
        tc -n "$name-h$host" qdisc add dev eth0 root tbf rate 1gbit burst 256kb latency 50ms
    done
    for try in 1 2 3 4 5 6; do
        ranks 1 2 "10.77.0.1:4710$try" "$bench" 16M 5 || { tail -n 5 "$work"/*.err >&2; exit 1; }
        cat "$work/0"
        if awk '/larger of the two/ { exit !($NF <= 1.15) }' "$work/0"; then
            for host in 0 1; do tc -n "$name-h$host" qdisc del dev eth0 root; done
            return
        fi
    done
    echo "FAILED: an asynchronous all_reduce is not hidden" >&2
    exit 1
}
check "an asynchronous all_reduce of 16 MiB over 1 Gbit/s beside computation" overlap

# A whole mpirun over two hosts: its agent enters the namespace instead of calling ssh.
under_mpirun() {
    cat >"$work/agent" <<AGENT
#!/bin/sh
address=\$1; shift
exec ip netns exec $name-h\$((\${address##*.} - 1)) sh -c "\$*"
AGENT
    cat >"$work/rank" <<RANK
#!/bin/sh
export RCCL_HOSTID=\$(ip -4 -brief address show dev eth0)
exec "$rccl" perf all_reduce $sweep
RANK
    chmod +x "$work/agent" "$work/rank"
    OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 timeout 120 ip netns exec "$name-h0" \
        mpirun.openmpi --mca plm_rsh_agent "$work/agent" --mca oob_tcp_if_include eth0 --bind-to none --oversubscribe \
        -H 10.77.0.1:2,10.77.0.2:2 -np 4 "$work/rank" >"$work/0" 2>"$work/0.err" || {
        tail -n 20 "$work/0" "$work/0.err" >&2
        exit 1
    }
    grep -q '# Out of bounds values : 0 OK' "$work/0"
}
if command -v mpirun.openmpi >/dev/null; then
    check "mpirun over two hosts" under_mpirun
elif [ "${CI:-}" = true ]; then
    echo "mpirun.openmpi is missing" >&2
    exit 1
else
    echo "skipped: mpirun over two hosts (no mpirun.openmpi)"
fi

echo "$passed passed, 0 failed"
