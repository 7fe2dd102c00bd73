#!/usr/bin/env bash
# Hosts in one machine: network namespaces joined by veth pairs and a bridge, two ranks in each. RCCL_HOSTID tells them
# apart as hosts, so ranks share memory inside of one and speak TCP between them.
#
#   tests/hosts.sh [path of the rccl command]
#
# Needs root and iproute2. Everything that it makes is named after this process and removed at the end, also when it
# fails or is interrupted; every step has a time limit.
set -euo pipefail

rccl=$(realpath "${1:-target/release/rccl}")
name=rccl$$
bridge=br$$
made=()

cleanup() {
    for host in "${made[@]}"; do
        ip netns pids "$host" 2>/dev/null | xargs -r kill -KILL 2>/dev/null || true
        ip netns del "$host" 2>/dev/null || true
    done
    ip netns del "$name-net" 2>/dev/null || true
    [ -z "${work:-}" ] || rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
work=$(mktemp -d)

# The bridge lives in a namespace of its own, so that the machine's network is not touched.
make_hosts() {
    ip netns add "$name-net"
    ip -n "$name-net" link add "$bridge" type bridge
    ip -n "$name-net" link set "$bridge" up
    for i in $(seq 0 $(($1 - 1))); do
        local host=$name-h$i
        ip netns add "$host"
        made+=("$host")
        ip -n "$host" link set lo up
        ip -n "$host" link add eth0 type veth peer name "port$i" netns "$name-net"
        ip -n "$name-net" link set "port$i" master "$bridge" up
        ip -n "$host" address add "10.77.0.$((i + 1))/24" dev eth0
        ip -n "$host" address add "fd77::$((i + 1))/64" dev eth0 nodad
        ip -n "$host" link set eth0 up
    done
}

# start HOSTS ADDRESS ARGUMENTS...: two ranks a host of `rccl perf ARGUMENTS`; the output of rank 0 is kept in $work/0.
start() {
    local hosts=$1 address=$2 size=$(($1 * 2)) pids=() failed=0
    shift 2
    for rank in $(seq 0 $((size - 1))); do
        local host=$((rank / 2))
        RCCL_RANK=$rank RCCL_SIZE=$size RCCL_COMM_ID=$address RCCL_HOSTID=host$host RCCL_KEY=000102030405060708090a0b0c0d0e0f \
            timeout 120 ip netns exec "$name-h$host" "$rccl" perf "$@" >"$work/$rank" 2>"$work/$rank.err" &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do
        wait "$pid" || failed=1
    done
    if [ $failed = 1 ] || ! grep -q '# Out of bounds values : 0 OK' "$work/0"; then
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
        local pids=()
        for rank in 0 1; do
            RCCL_RANK=$rank RCCL_SIZE=2 RCCL_COMM_ID=10.77.0.1:4710$try RCCL_HOSTID=host$rank \
                RCCL_KEY=000102030405060708090a0b0c0d0e0f \
                timeout 60 ip netns exec "$name-h$rank" "$bench" 16M 5 >"$work/$rank" 2>"$work/$rank.err" &
            pids+=($!)
        done
        for pid in "${pids[@]}"; do
            wait "$pid" || { tail -n 5 "$work"/*.err >&2; exit 1; }
        done
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
