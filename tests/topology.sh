#!/usr/bin/env bash
# What rccl finds of real interfaces, and which of them it talks over: network namespaces as hosts, joined by veth pairs.
#
#   tests/topology.sh [path of the rccl command]
#
# Needs root, iproute2 and Python 3. Where namespaces cannot be made it is skipped with a word, and with CI=true fails.
# Every step has a time limit.
set -euo pipefail

rccl=$(realpath "${1:-target/debug/rccl}")
# shellcheck source=tests/namespaces.sh
. "$(dirname "$0")/namespaces.sh"
passed=0

if ! why=$(ip netns add "$name-probe" 2>&1); then
    [ "${CI:-}" != true ] || { echo "no network namespaces: $why" >&2; exit 1; }
    echo "skipped: no network namespaces ($why)"
    exit
fi
made+=("$name-probe")

# space NAME...: makes namespaces.
space() {
    local one
    for one; do
        ip netns add "$name-$one"
        made+=("$name-$one")
        ip -n "$name-$one" link set lo up
    done
}

# wire SPACE INTERFACE ADDRESS SPACE INTERFACE ADDRESS: joins two by a pair; an ADDRESS may be -.
wire() {
    ip -n "$name-$1" link add "$2" type veth peer name "$5" netns "$name-$4"
    [ "$3" = - ] || ip -n "$name-$1" address add "$3" dev "$2"
    [ "$6" = - ] || ip -n "$name-$4" address add "$6" dev "$5"
    ip -n "$name-$1" link set "$2" up
    ip -n "$name-$4" link set "$5" up
}

fail() {
    echo "FAILED: $*" >&2
    echo "$passed passed, 1 failed"
    exit 1
}

check() {
    echo "topology: $1"
    shift
    "$@"
    passed=$((passed + 1))
}

# shows SPACE LINE...: these lines are in what `rccl topo` shows there.
shows() {
    local space=$1 line
    shift
    timeout 30 ip netns exec "$name-$space" "$rccl" topo >"$work/tree"
    for line; do
        grep -qxF -- "$line" "$work/tree" || { cat "$work/tree" >&2; fail "$space does not show \"$line\""; }
    done
}

# A host with a pair to a switch, a bridge over another pair with a container's pair as its other port, and macvlans on
# it: in the bridge's own namespace, and in a container.
space host switch container
wire host eth0 10.66.0.1/24 switch port0 -
wire host eth1 - switch port1 -
ip -n "$name-host" link add br0 type bridge
ip -n "$name-host" link set eth1 master br0
ip -n "$name-host" address add 10.66.1.1/24 dev br0
ip -n "$name-host" link set br0 up
ip -n "$name-host" link add inner type veth peer name outer
ip -n "$name-host" link set outer master br0 up
ip -n "$name-host" link set inner up
ip -n "$name-host" link add macvlan0 link eth0 type macvlan mode bridge
ip -n "$name-host" address add 10.66.0.7/24 dev macvlan0
ip -n "$name-host" link set macvlan0 up
ip -n "$name-host" link add macvlan1 link eth0 type macvlan mode bridge
ip -n "$name-host" link set macvlan1 netns "$name-container"
ip -n "$name-container" link set macvlan1 up
ip -n "$name-host" link add docker0 type bridge
ip -n "$name-host" address add 172.17.0.1/16 dev docker0
ip -n "$name-host" link set docker0 up

carriers() {
    shows host \
        "  eth0, paired with an interface of another namespace, up, 10 Gb/s, MTU 1500" \
        "  br0, bridge of eth1 and outer, carried by eth1, up, 10 Gb/s, MTU 1500" \
        "  inner, paired with outer, carried by eth1, up, 10 Gb/s, MTU 1500" \
        "  macvlan0, macvlan on eth0, up, 10 Gb/s, MTU 1500" \
        "  docker0, bridge without ports, up, MTU 1500" \
        "    10.66.0.7/24"
    shows container "  macvlan1, macvlan on an interface of another namespace, up, 10 Gb/s, MTU 1500"
}
check "pairs, bridges and macvlans show what carries them" carriers

# sent SPACE INTERFACE: bytes.
sent() { ip -n "$name-$1" -json -statistics link show dev "$2" | python3 -c '
import json, sys
print(json.load(sys.stdin)[0]["stats64"]["tx"]["bytes"])'; }

# job MEETING SPACE...: an all_reduce of 4 MiB by a ring between a rank in each; leaves the seconds that it took in `took`.
job() {
    local meeting=$1 pids=() rank=0 failed=0 one began=$SECONDS
    shift
    for one; do
        RCCL_RANK=$rank RCCL_SIZE=$# RCCL_COMM_ID=$meeting RCCL_HOSTID=$one RCCL_INIT_TIMEOUT=30 RCCL_TIMEOUT=30 \
            RCCL_KEY=000102030405060708090a0b0c0d0e0f \
            timeout 60 ip netns exec "$name-$one" "$rccl" perf all_reduce -b 4M -e 4M -n 2 -w 1 --algo ring \
            >"$work/$rank" 2>"$work/$rank.err" &
        pids+=($!)
        rank=$((rank + 1))
    done
    for one in "${pids[@]}"; do wait "$one" || failed=1; done
    if [ $failed = 1 ] || ! grep -q '# Out of bounds values : 0 OK' "$work/0"; then
        tail -n 5 "$work"/*.err "$work/0" >&2
        fail "the job of $*"
    fi
    took=$((SECONDS - began))
}

# Three hosts, each pair of which has a network of its own; every host sends what it knows no way for into a hole. Each
# has a bridge of containers with the same address, whose container runs, made first so that its addresses are listed
# first.
space a b c
for one in a b c; do
    space "$one-container"
    ip -n "$name-$one" link add br-c type bridge
    ip -n "$name-$one" address add 172.18.0.1/16 dev br-c
    wire "$one" cport - "$one-container" eth0 172.18.0.2/16
    ip -n "$name-$one" link set cport master br-c
    ip -n "$name-$one" link set br-c up
    ip -n "$name-$one" link add docker0 type bridge
    ip -n "$name-$one" address add 172.17.0.1/16 dev docker0
    ip -n "$name-$one" link set docker0 up
done
wire a ab 10.67.1.1/24 b ab 10.67.1.2/24
wire a ac 10.67.2.1/24 c ac 10.67.2.3/24
wire b bc 10.67.3.2/24 c bc 10.67.3.3/24
for one in a b c; do
    # One with a carrier that nobody answers behind.
    space "$one-hole"
    wire "$one" hole 192.0.2.1/24 "$one-hole" eth0 -
    # What the kernel sends of itself would hide who tries to get through.
    ip netns exec "$name-$one" sysctl -qw net.ipv6.conf.hole.disable_ipv6=1
    ip -n "$name-$one" route add default via 192.0.2.9
    ip -n "$name-$one" neighbour add 192.0.2.9 lladdr 02:00:00:00:00:09 dev hole
done
# Who does not start in the root's own subnet reaches it all the same.
ip -n "$name-b" route add 10.67.2.1/32 via 10.67.1.1
ip -n "$name-c" route add 10.67.1.1/32 via 10.67.2.1

each_its_own() {
    local one before=() after least=2000000 index
    local wires=("a ab" "b bc" "c ac" "a br-c" "b br-c" "c br-c" "a docker0" "b docker0" "c docker0" "b hole" "c hole")
    for one in "${wires[@]}"; do
        # shellcheck disable=SC2086 # two words
        before+=("$(sent $one)")
    done
    job 10.67.1.1:47300 a b c
    for index in "${!wires[@]}"; do
        # shellcheck disable=SC2086
        after=$(($(sent ${wires[index]}) - before[index]))
        echo "    ${wires[index]}: $after bytes sent"
        case ${wires[index]} in
            *hole) [ "$after" -eq 0 ] || fail "a way that leads nowhere was tried" ;;
            *br-c | *docker0) [ "$after" -lt 10000 ] || fail "${wires[index]} was chosen" ;;
            # A ring of three sends 2/3 of 4 MiB twice from each rank to the next, in each of three calls.
            *) [ "$after" -gt $least ] || fail "${wires[index]} was not chosen" ;;
        esac
    done
}
check "each peer is reached by the network that it shares, and none by bridges that all hosts have" each_its_own

# The same with addresses that rank 0 tells in a file, where it does not know who will come on which network.
by_file() {
    local before after
    before=$(sent a br-c)
    job "file://$work/meeting" a b
    after=$(($(sent a br-c) - before))
    [ "$after" -lt 10000 ] || fail "br-c was chosen ($after bytes)"
    [ "$took" -lt 15 ] || fail "the meeting took $took s"
}
check "a meeting by file leaves bridges out, too" by_file

# topo_of MEETING SPACE...: what a job with a rank in each shows, with the arguments $options; in $work/RANK. In
# $work/SPACE may be a command lldpctl.
topo_of() {
    local pids=() rank=0 one meeting=$1
    shift
    for one; do
        # shellcheck disable=SC2086 # words
        RCCL_RANK=$rank RCCL_SIZE=$# RCCL_COMM_ID=$meeting RCCL_INIT_TIMEOUT=30 RCCL_TIMEOUT=30 PATH="$work/$one:$PATH" \
            RCCL_KEY=000102030405060708090a0b0c0d0e0f \
            timeout 60 ip netns exec "$name-$one" "$rccl" topo ${options:-} >"$work/$rank" 2>"$work/$rank.err" &
        pids+=($!)
        rank=$((rank + 1))
    done
    for one in "${pids[@]}"; do wait "$one" || { cat "$work"/*.err >&2; fail "rccl topo of a job"; }; done
}

# shown LINE...: all of them by rank 0.
shown() {
    local line
    for line; do
        grep -qxF -- "$line" "$work/0" || { cat "$work/0" >&2; fail "\"$line\" is not shown"; }
    done
}

# Four ranks on three hosts, as a job.
job_wide() {
    topo_of 10.67.1.1:47301 a a b c
    shown "job of 4 ranks on 3 hosts" \
        "  subnet 10.67.1.0/24: ab of hosts 0-1" \
        "  subnet 10.67.2.0/24: ac of hosts 0,2" \
        "  subnet 10.67.3.0/24: bc of hosts 1-2" \
        "  addresses of several hosts, which lead to none: 192.0.2.1"
    [ ! -s "$work/1" ] || fail "rank 1 tells, too"
    ! grep -q 172.18.0.1 "$work/0" || fail "a bridge of containers joins hosts"
}
check "a job's hosts, ranks and subnets" job_wide

# Four hosts on one switch, of which each says that it is another leaf; then one has no lldpd.
leaves_by_lldp() {
    local one index=1
    space four
    for one in d e f g; do
        space "$one"
        wire "$one" eth0 "10.68.0.$index/24" four "port$index" -
        mkdir "$work/$one"
        printf '#!/bin/sh\necho %s\n' "'{\"lldp\": [{\"interface\": [{\"name\": \"eth0\",
            \"chassis\": [{\"name\": [{\"value\": \"leaf$((index % 2))\"}]}]}]}]}'" >"$work/$one/lldpctl"
        chmod +x "$work/$one/lldpctl"
        index=$((index + 1))
    done
    ip -n "$name-four" link add br0 type bridge
    ip -n "$name-four" link set br0 up
    for index in 1 2 3 4; do ip -n "$name-four" link set "port$index" master br0; done
    options=--rings topo_of 10.68.0.1:47310 d e f g
    shown "rings over 4 hosts, 4 ranks" "  ring 0: rail 0, 4 hops between hosts, 2 from leaf to leaf" "    0 | 2 | 1 | 3" \
        "leaves are told apart by the switches that lldpd names"
    rm "$work/g/lldpctl"
    options=--rings topo_of 10.68.0.1:47311 d e f g
    shown "    0 | 1 | 2 | 3" \
        "which leaf switches the hosts hang on is not known: lldpd or --cluster FILE would tell"
}
check "rings of a job pass leaf after leaf, where lldpd knows them" leaves_by_lldp

leaves_by_subnet() {
    options=--rings topo_of 10.67.1.1:47312 a b c
    shown "rings over 3 hosts, 3 ranks" \
        "leaves are told apart by subnets: lldpd does not name the switches of all ports"
}
check "subnets tell leaves apart where lldpd does not" leaves_by_subnet

echo "$passed passed, 0 failed"
