#!/usr/bin/env bash
# rccl doctor on soft-RoCE devices: what it says of one that works, and of each of the ways in which one can be broken.
#
#   tests/doctor.sh [path of the rccl command]
#
# Runs in the guests of tests/rxe, and wants what tests/rxe/setup.sh prepares. Where that is missing all is skipped with
# a word; with CI=true that is a failure.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
rxe=$here/rxe

# ---- in a guest: this script again, with the name of what to do

failed() {
    echo "FAILED: $*" >&2
    cat "$work/out" "$work/err" >&2
    exit 1
}

# expect STATUS COMMAND...: what the command says is kept for `says`.
expect() {
    local expected=$1 status=0
    shift
    timeout 120 "$@" >"$work/out" 2>"$work/err" </dev/null || status=$?
    [ $status -eq "$expected" ] || failed "$* ended with status $status instead of $expected"
}

# says WORDS: the last command's output has a line with these words.
says() {
    grep -qF -- "$1" "$work/out" || failed "nothing says \"$1\""
}

says_nothing_of() {
    ! grep -qF -- "$1" "$work/out" || failed "something says \"$1\""
}

# passed WORDS: counted by the script outside.
passed() {
    echo "passed: $1"
}

# A user without privileges.
nobody=(setpriv --reuid 65534 --regid 65534 --clear-groups --bounding-set -all)

in_one_device() {
    expect 0 "$rccl" doctor
    says "GID 1   10.7.0.1               RoCE v2    eth0       chosen, rail 0"
    says "GID 2   fd07::1                RoCE v2    eth0       usable, for peers to whom the chosen one does not lead"
    says "it is link-local, which leads to no other network"
    says "packets of 4096 bytes, eth0 up, MTU 4200"
    says "test: 64 KiB were registered and written from the port to itself"
    says "RDMA works on this host: rxe0 port 1 by 10.7.0.1."
    says_nothing_of ERROR
    passed "a device that works"

    expect 0 "$rccl" doctor --json
    python3 - "$work/out" <<'EOF' || failed "the JSON"
import json, sys
said = json.load(open(sys.argv[1]))
port = said["hosts"][0]["devices"][0]["ports"][0]
assert said["healthy"] and said["schema"] == 1, said
assert (port["rail"], port["active_mtu"], port["state"]) == (0, 4096, "active"), port
assert port["self_test_us"] > 0 and "rcvd_pkts" in port["counters"], port
assert [gid["use"] for gid in port["gids"]] == ["no", "chosen", "reserve"], port
assert port["gids"][0]["reason"]["code"] == "link-local", port
EOF
    passed "JSON"

    expect 0 "$rccl" doctor --ranks 2
    says "rxe0 port 1 10.7.0.1 - rxe0 port 1 10.7.0.1, packets of 4096 bytes: 64 KiB written in"
    passed "two ranks of one host"

    expect 0 env RCCL_IB_ADDR_FAMILY=AF_INET6 "$rccl" doctor
    says "RDMA works on this host: rxe0 port 1 by fd07::1."
    expect 0 env NCCL_IB_GID_INDEX=2 "$rccl" doctor
    says "rxe0 port 1 by fd07::1."
    expect 1 env RCCL_IB_GID_INDEX=0 "$rccl" doctor
    says "ERROR    host: no port of any RDMA device can be used"
    expect 1 env RCCL_IB_HCA=mlx5 "$rccl" doctor
    says "RCCL_IB_HCA: mlx5 is no port of this host; the devices are rxe0"
    expect 0 env RCCL_NET=tcp "$rccl" doctor
    says "RDMA is switched off by settings: ranks on other hosts are reached over TCP."
    passed "settings"

    expect 1 env RCCL_IBVERBS=/nowhere/libibverbs.so.1 "$rccl" doctor
    says "ERROR    library: /nowhere/libibverbs.so.1: not found"
    local library
    library=$(ldconfig -p | awk '/libibverbs.so.1 / && !seen { print $NF; seen = 1 }') # reads to the end, or ldconfig fails
    head -c 20000 "$library" >"$work/truncated.so"
    expect 1 env RCCL_IBVERBS="$work/truncated.so" "$rccl" doctor
    says "$work/truncated.so: not a usable shared library"
    expect 1 env RCCL_IBVERBS=libm.so.6 "$rccl" doctor
    says "libm.so.6: this library is not libibverbs"
    says "ranks on other hosts are reached over TCP"
    passed "libraries that are missing, truncated, foreign"

    expect 0 prlimit --memlock=unlimited "${nobody[@]}" "$rccl" doctor --local
    expect 1 prlimit --memlock=65536 "${nobody[@]}" "$rccl" doctor --local
    says "ERROR    process: this process may lock 64 KiB of memory (hard limit: 64 KiB)"
    says "LimitMEMLOCK=infinity"
    passed "64 KiB of locked memory"

    chmod 600 /dev/infiniband/uverbs0
    expect 1 prlimit --memlock=unlimited "${nobody[@]}" "$rccl" doctor --local
    says "ERROR    rxe0: ibv_open_device on rxe0 (/dev/infiniband/uverbs0): Permission denied"
    says "remedy  chmod 0666 /dev/infiniband/uverbs0"
    mv /dev/infiniband/uverbs0 /dev/uverbs0
    expect 1 "$rccl" doctor
    says "ERROR    rxe0: has no device file /dev/infiniband/uverbs0"
    mv /dev/uverbs0 /dev/infiniband/uverbs0
    passed "a device file that is closed or missing"

    ip address flush dev eth0 scope global
    expect 1 "$rccl" doctor
    says "ERROR    rxe0 port 1: none of its addresses can be used"
    says "remedy  an IPv4 or global IPv6 address: ip address add 10.7.0.1/24 dev eth0"
    passed "no address but a link-local one"

    ip link set eth0 down
    expect 1 "$rccl" doctor
    says "ERROR    rxe0 port 1: the port is down"
    says "remedy  ip link set dev eth0 up"
    passed "a port that is down"

    rdma link delete rxe0
    expect 0 "$rccl" doctor
    says "There is no RDMA device on this host: ranks on other hosts are reached over TCP."
    expect 1 env RCCL_NET=verbs "$rccl" doctor
    says "because RCCL_NET=verbs demands RDMA."
    passed "no device"
}

in_four_devices() {
    expect 0 "$rccl" doctor
    for i in 0 1 2 3; do
        says "chosen, rail $i"
    done
    # Here no address reaches itself: guest/four-devices.sh sends all packets over the wire.
    says "test: 64 KiB were registered and written from the port to rxe1 port 1"
    expect 0 env RCCL_IB_HCA=^=rxe1,rxe3:1 "$rccl" doctor
    says "RDMA works on this host: rxe0 port 1 by 10.8.0.1, rxe2 port 1 by 10.8.0.3."
    # shellcheck disable=SC2016 # for the ranks' shells
    expect 0 "$rccl" run -n 2 --no-prefix -- \
        sh -c 'RCCL_IB_HCA=rxe$((2 * RANK)),rxe$((2 * RANK + 1)) exec "$0" doctor' "$rccl"
    says "rxe0 port 1 10.8.0.1 - rxe2 port 1 10.8.0.3, packets of 4096 bytes: 64 KiB written in"
    says "rxe1 port 1 10.8.0.2 - rxe3 port 1 10.8.0.4, packets of 4096 bytes: 64 KiB written in"
    says "(pairs: 1, rails in all: 2)"
    passed "four devices"

    ip link set nic1 down
    expect 0 "$rccl" doctor
    says "WARNING  rxe1 port 1: the port is down"
    says "RDMA works on this host: rxe0 port 1 by 10.8.0.1, rxe2 port 1 by 10.8.0.3, rxe3 port 1 by 10.8.0.4."
    says "chosen, rail 3"
    passed "one of four is down"
}

# Both guests run this; rank 0's command prints.
in_two_guests() {
    rank0_says() { [ "$RANK" != 0 ] || says "$1"; }
    expect 0 "$rccl" doctor
    rank0_says "rxe0 port 1 10.7.0.1 - rxe0 port 1 10.7.0.2, packets of 4096 bytes: 64 KiB written in"
    rank0_says "RDMA works between all pairs that were tried (pairs: 1, rails in all: 1)."
    [ "$RANK" = 0 ] || [ ! -s "$work/out" ] || failed "rank 1 prints"
    passed "two hosts"

    # What one port can do and the other cannot.
    [ "$RANK" = 0 ] || ip link set eth0 mtu 1500
    expect 0 "$rccl" doctor
    rank0_says "rxe0 port 1 10.7.0.1 has packets of 4096 bytes, rxe0 port 1 10.7.0.2 of 1024"
    rank0_says "WARNING  rxe0 port 1: packets of 1024 bytes, because eth0 has an MTU of 1500"
    [ "$RANK" = 0 ] || ip link set eth0 mtu 4200
    passed "different MTUs"

    family=AF_INET6
    [ "$RANK" = 0 ] || family=AF_INET
    expect 1 env RCCL_IB_ADDR_FAMILY=$family "$rccl" doctor
    rank0_says "shares a subnet with one of"
    rank0_says "RCCL_IB_ADDR_FAMILY: AF_INET on rank 1; AF_INET6 on rank 0"
    passed "settings that do not fit together"

    [ "$RANK" = 0 ] || tc qdisc add dev eth0 ingress
    # A path that loses packets of more than 4 KiB. The header's length is in bytes 2 and 3.
    [ "$RANK" = 0 ] || tc filter add dev eth0 ingress protocol ip prio 1 u32 \
        match ip protocol 17 0xff match u16 0x1000 0xf000 at 2 action drop
    expect 1 "$rccl" doctor
    rank0_says "a short packet came through and a full one did not"
    rank0_says "jumbo frames on the switches between them"
    passed "full packets are lost"

    [ "$RANK" = 0 ] || tc filter add dev eth0 ingress protocol ip prio 2 u32 \
        match ip protocol 17 0xff match ip dport 4791 0xffff action drop
    expect 1 "$rccl" doctor
    rank0_says "ERROR    rank 0 (guest0) and rank 1 (guest1): rxe0 port 1 10.7.0.1 - rxe0 port 1 10.7.0.2: at rank 0: no write was acknowledged"
    rank0_says "allow UDP port 4791"
    rank0_says "RDMA does not work between these ranks: TCP is used there."
    passed "a firewall for UDP port 4791"
}

if [ "${1:-}" = --inside ]; then
    rccl=$3
    work=$(mktemp -d) # gone with the guest
    "in_$2"
    exit
fi

# ---- outside

rccl=$(realpath "${1:-target/release/rccl}")
# shellcheck source=tests/rxe/or-skip.sh
. "$rxe/or-skip.sh"

output=$(mktemp)
trap 'rm -f "$output" "$output.now"' EXIT
trap 'exit 130' INT TERM
export RXE_TIMEOUT=${RXE_TIMEOUT:-400}

# guest COMMAND WHAT: runs in_WHAT in a guest, or in two.
guest() {
    local status=0 began=$SECONDS
    # shellcheck disable=SC2031 # boot.sh has a `here` of its own, in a subshell
    "$rxe/$1" "$here/doctor.sh" --inside "$2" "$rccl" 2>&1 </dev/null | tee "$output.now" || status=$?
    cat "$output.now" >>"$output"
    echo "doctor: $2 ($((SECONDS - began)) s)"
    if [ $status -ne 0 ]; then
        echo "$(grep -c 'passed: ' "$output") passed, 1 failed"
        exit 1
    fi
}

guest run one_device
guest four-devices four_devices
guest two-guests two_guests
echo "$(grep -c 'passed: ' "$output") passed, 0 failed"
