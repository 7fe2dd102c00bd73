#!/usr/bin/env bash
# rccl over RDMA from end to end, in the guests of tests/rxe: its own tests, its command, and faults of the network.
#
#   tests/rdma.sh [SUITE...]
#
# A SUITE is one of the functions from `own` on; without any, all run. Wants what tests/rxe/setup.sh
# prepares. Where the guests are missing all is skipped with a word; with CI=true that is a failure.
#
#   RCCL_SOAK            calls of the soak in one guest (600)
#   TEST_COMMUNICATORS   communicators that are made and destroyed (200)
# shellcheck disable=SC2016 # much is in single quotes for the guests' shells
set -euo pipefail
cd "$(dirname "$0")/.."
rxe=$PWD/tests/rxe
# shellcheck source=tests/rxe/or-skip.sh
. "$rxe/or-skip.sh"
passed=0
export TEST_COMMUNICATORS=${TEST_COMMUNICATORS:-200}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

# Builds the command, too, which tests of its crate run.
names=(messages work every_collective split killed forked soak collectives fixed rdma rdma_denied rdma_addresses)
tests/program.sh "${names[@]}" >"$work/programs"
rccl=$PWD/target/debug/rccl

# program NAME: the path of a test program of rccl.
program() {
    grep "/$1-[0-9a-f]*\$" "$work/programs" || { echo "no test program $1 was asked for" >&2; exit 1; }
}

# guest SECONDS COMMAND...: one of the commands of tests/rxe.
guest() {
    local seconds=$1 command=$2
    shift 2
    RXE_TIMEOUT=$seconds "$rxe/$command" "$@"
}

broken() {
    echo "FAILED: $*" >&2
    echo "$passed passed, 1 failed"
    exit 1
}

suite() {
    local began=$SECONDS
    echo "--- rdma: $1"
    "$1" || broken "$1"
    echo "--- rdma: $1 ($((SECONDS - began)) s)"
    passed=$((passed + 1))
}

# For a guest's shell: runs a test program, all of whose tests run even if some fail.
in_guest='failed=0
    tests() { local began=$SECONDS; "$@" || failed=1; echo "${1##*/}: $((SECONDS - began)) s"; }
    cd rccl
    export TEST_TRANSPORT=verbs # which a device in software takes long enough for
    '

# rccl's own tests: programs whose tests go over any transport, and those of other programs that have verbs in their
# names.
own() {
    local script=$in_guest name
    for name in messages work every_collective; do
        script+="tests $(program $name) --test-threads=2; "
    done
    script+="tests $(program split) --skip a_thousand; " # which `promises` does
    for name in killed forked soak collectives fixed; do
        script+="tests $(program $name) verbs --nocapture; "
    done
    guest 900 run bash -c "$script"'exit $failed'
}

# What only RDMA promises, and what stands in its way.
promises() {
    guest 300 run bash -c "$in_guest"'
        tests '"$(program rdma)"' --nocapture --test-threads=1
        tests '"$(program rdma_denied)"' --nocapture --test-threads=1
        exit $failed'
}

# The command: every type, every collective.
perf() {
    guest 200 run bash -ec '
        rccl='"$rccl"'
        $rccl perf all_reduce --ranks 2 --transport verbs -d all -b 8 -e 128K -f 128 -n 2 -w 1 --json /tmp/report
        grep -q "\"transport\": *\"verbs\"" /tmp/report
        for collective in all_gather broadcast reduce_scatter all_to_all sendrecv; do
            $rccl perf $collective --ranks 4 --transport verbs -b 256K -e 256K -n 2 -w 1 --json /tmp/report
            grep -q "\"transport\": *\"verbs\"" /tmp/report
        done'
}

# For the shells of two guests: `ranks EACH COMMAND...` runs so many ranks in each, and fails if one of them does. Every
# job has a port of its own, as that of the one before may still be in use.
in_guests='set -eo pipefail
    cd rccl
    export RCCL_NET=verbs RCCL_INIT_TIMEOUT=60 RCCL_TIMEOUT=50
    ranks() {
        local each=$1 started=() process status=0
        shift
        MASTER_PORT=$((MASTER_PORT + 1))
        for ((i = 0; i < each; i++)); do
            LOCAL_RANK=$i RANK=$((RANK * each + i)) WORLD_SIZE=$((2 * each)) "$@" &
            started+=($!)
        done
        for process in "${started[@]}"; do wait "$process" || status=1; done
        return $status
    }
    '

# Two guests: every collective, and random programs, on 2 ranks and on 4; and a port with two addresses.
between() {
    guest 300 two-guests bash -c "$in_guests"'
        soak="'"$(program soak)"' --exact rank --nocapture"
        TEST_TASK="1 300 65536" ranks 1 $soak
        TEST_TASK="2 300 65536" ranks 2 $soak
        collectives="'"$(program every_collective)"' --exact rank_of_a_launcher --nocapture"
        TEST_LAUNCHED=1 ranks 1 $collectives
        TEST_LAUNCHED=1 ranks 2 $collectives
        # One of the two uses an address of its port that is not its best, as no other leads to the only one of its peer.
        [ "$RANK" = 0 ] || export RCCL_IB_ADDR_FAMILY=AF_INET6
        ranks 1 '"$rccl"' perf all_reduce -b 1K -e 1K -n 2 -w 1 | tee /tmp/report
        [ "$RANK" = 1 ] || grep -q "verbs  0-1: .*fd07::1/64 .* to .* fd07::2/64" /tmp/report'
}

# Two guests, one of whose addresses goes and comes.
addresses() {
    guest 180 two-guests bash -c "$in_guests"'
        for test in between_calls in_calls in_another_place_of_the_table; do # each a job
            TEST_NETDEV=eth0 ranks 1 '"$(program rdma_addresses)"' --nocapture --exact $test
        done'
}

# Two guests with a network that loses, delays and reorders packets. Lost packets that no later one tells of are sent again
# after half a second; the usual 4 seconds would make this take minutes.
disturbed() {
    guest 300 two-guests bash -c "$in_guests"'
        export RCCL_IB_TIMEOUT=17
        soak="'"$(program soak)"' --exact rank --nocapture"
        for trouble in "loss 2%" "delay 5ms 2ms" "delay 3ms reorder 25% 50%"; do
            tc qdisc add dev eth0 root netem $trouble
            began=$SECONDS
            TEST_TASK="3 200 65536" ranks 1 $soak
            tc -s qdisc show dev eth0 | grep -E "netem|dropped"
            tc qdisc del dev eth0 root
            echo "$trouble: $((SECONDS - began)) s"
        done'
}

# For the shell of a guest with four devices: two ranks of `rccl perf all_reduce`, for whom time runs while they are disturbed.
disturbing='cd /dev/shm
    export RCCL_SIZE=2 RCCL_KEY=000102030405060708090a0b0c0d0e0f RCCL_TRANSPORT=verbs,tcp RCCL_TIMEOUT=100
    status=0
    # start PORT DEVICES DEVICES ARGUMENTS...: starts both, each with devices of its own, and returns when their calls have
    # begun.
    start() {
        local devices=("$2" "$3")
        export RCCL_COMM_ID=127.0.0.1:$1
        shift 3
        : >out0 # of the run before
        timeout 200 env RCCL_RANK=0 RCCL_IB_HCA="=${devices[0]}" $rccl perf all_reduce "$@" >out0 2>&1 & zero=$!
        timeout 200 env RCCL_RANK=1 RCCL_IB_HCA="=${devices[1]}" $rccl perf all_reduce "$@" >out1 2>&1 & one=$!
        for ((i = 0; i < 300; i++)); do ! grep -q "Using ranks" out0 || break; sleep 0.2; done
        sleep 4
    }
    finish() {
        wait $zero || status=1
        wait $one || status=1
        cat out0 out1
    }
    # moved SO FILE...: how often a link moved so, by these outputs.
    moved() {
        local so=$1
        shift
        cat "$@" | grep -c "WARN the link over verbs .* failed: .* it goes on over $so"
    }
    rccl=$0
    '

# Ports that go down in the middle of calls of 64 MiB, one after the other: the link moves to the rail that is left, then
# to TCP, and the results are right. Then a device that is deleted under such a call, which soft-RoCE lets it end: the
# kernel waits until nobody has the device open.
moves() {
    guest 280 four-devices bash -c "$disturbing"'
        start 29600 rxe0,rxe1 rxe2,rxe3 -b 64M -e 64M -n 2 -w 1 -c 1
        ip link set nic0 down
        sleep 4
        ip link set nic1 down
        finish
        # Either the port'"'"'s event or a failed write comes first; what is wrong with the ports is told in any case.
        [ $(moved "fresh queue pairs on rxe1 .*(rxe0 port 1: it" out0) = 1 ] &&
            [ $(moved "TCP.*(rxe0 port 1: it.*; rxe1 port 1: it" out0) = 1 ] || { echo "it did not move so"; status=1; }

        ip link set nic0 up
        ip link set nic1 up
        sleep 1
        start 29601 rxe0,rxe1 rxe2,rxe3 -b 64M -e 64M -n 2 -w 1 -c 1
        timeout 200 rdma link delete rxe0 & deletion=$!
        finish
        wait $deletion || status=1
        test ! -e /sys/class/infiniband/rxe0 || { echo "rxe0 is there"; status=1; }
        exit $status' "$rccl"
}

# A network that carries no packet of RDMA for a while, in the middle of calls of 64 MiB: queue pairs use up their retries and
# are in the error state. The link goes on over fresh ones, and after three over TCP. (Packets are dropped where they
# arrive: where they leave, soft-RoCE does nothing else than to try again.)
cut() {
    guest 280 four-devices bash -c "$disturbing"'
        export RCCL_IB_TIMEOUT=14 # half a second for all retries
        tc qdisc add dev nic2 clsact
        cut() {
            tc filter add dev nic2 ingress protocol ip u32 match ip protocol 17 0xff match ip dport 4791 0xffff action drop
            sleep $1
            tc -s filter show dev nic2 ingress | grep -oE "dropped [1-9][0-9]*" || { echo "nothing was dropped"; status=1; }
            tc filter del dev nic2 ingress
        }
        start 29602 rxe0 rxe2 -b 64M -e 64M -n 2 -w 1 -c 1
        cut 0.7
        sleep 4
        cut 5
        finish
        # Both ends may see it at once.
        [ $(moved "fresh queue pairs" out0 out1) -ge 1 ] && [ $(moved "TCP" out0 out1) -ge 1 ] ||
            { echo "it did not move so"; status=1; }
        exit $status' "$rccl"
}

[ $# -gt 0 ] || set -- own promises perf between disturbed addresses moves cut
for name in "$@"; do
    suite "$name"
done
echo "$passed passed, 0 failed"
