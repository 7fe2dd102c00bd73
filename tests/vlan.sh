#!/usr/bin/env bash
# Real VLANs, which many kernels of containers and small machines cannot make, in the guests of tests/rxe: what carries them,
# and that two hosts talk over one when it is what they share.
#
#   tests/vlan.sh [path of the rccl command]
#
# Wants what tests/rxe/setup.sh prepares. Where the guests are missing it is skipped with a word; with CI=true that is a
# failure.
# shellcheck disable=SC2016 # what is in single quotes is for the guests' shells
set -euo pipefail
rccl=$(realpath "${1:-target/debug/rccl}")
cd "$(dirname "$0")/.."
rxe=$PWD/tests/rxe
# shellcheck source=tests/rxe/or-skip.sh
. "$rxe/or-skip.sh"
passed=0

check() {
    echo "vlan: $1"
    shift
    "$@" || { echo "FAILED: $*" >&2; echo "$passed passed, 1 failed"; exit 1; }
    passed=$((passed + 1))
}

# A VLAN on the card, a macvlan on the VLAN, and a bridge of the VLAN and a container's pair.
carriers() {
    RXE_TIMEOUT=120 "$rxe/run" bash -ec '
        modprobe -a 8021q bridge veth
        modprobe macvlan 2>/dev/null || true
        ip link add link eth0 name eth0.7 type vlan id 7
        ip link add link eth0 name eth0.8 type vlan id 8
        ip address add 10.9.7.1/24 dev eth0.7
        ip link add br0 type bridge
        ip link add inner type veth peer name outer
        ip link set eth0.8 master br0
        ip link set outer master br0
        for one in eth0.7 eth0.8 br0 inner outer; do ip link set $one up; done
        # The kernel may say up to a second later that a link is up.
        for one in eth0.7 eth0.8 br0 inner outer; do
            for _ in {1..100}; do
                grep -qx up /sys/class/net/$one/operstate && break
                sleep 0.1
            done
        done
        rdma link show
        timeout 60 "$0" topo >/tmp/tree
        cat /tmp/tree
        shows() { grep -qxE -- "$1" /tmp/tree || { echo "this is not shown: $1"; exit 1; }; }
        shows "  eth0\.7, vlan on eth0, up,.* MTU 4200"
        shows "    10\.9\.7\.1/24"
        shows "  br0, bridge of eth0\.8 and outer, carried by eth0, up,.*"
        shows "  inner, paired with outer, carried by eth0, up,.*"
        shows "      GID [0-9]+ 10\.9\.7\.1, RoCE v2, eth0\.7"' "$rccl"
}

# Two guests share a VLAN, over which rank 1 comes to rank 0.
between() {
    RXE_TIMEOUT=180 "$rxe/two-guests" bash -ec '
        modprobe 8021q
        ip link add link eth0 name eth0.7 type vlan id 7
        ip address add 10.9.7.$((RANK + 1))/24 dev eth0.7
        ip link set eth0.7 up
        sent() { cat /sys/class/net/eth0.7/statistics/tx_bytes; }
        before=$(sent)
        RCCL_NET=tcp RCCL_COMM_ID=10.9.7.1:47400 RCCL_RANK=$RANK RCCL_SIZE=2 RCCL_INIT_TIMEOUT=60 \
            RCCL_KEY=000102030405060708090a0b0c0d0e0f timeout 120 "$0" perf all_reduce -b 1M -e 1M -n 2 -w 1
        echo "$(($(sent) - before)) bytes by the VLAN"
        [ $(($(sent) - before)) -gt 2000000 ]' "$rccl"
}

[ $# -gt 0 ] && shift
check "what carries a VLAN, and its addresses as RoCE addresses" carriers
check "two hosts talk over the VLAN that they share" between
echo "$passed passed, 0 failed"
