#!/usr/bin/env bash
# The guests of tests/rxe: that they do what their users rely on, and that their RoCE devices work.
#
#   tests/rxe.sh
#
# Wants what tests/rxe/setup.sh prepares. Where that is missing all is skipped with a word; with CI=true that is a
# failure.
# shellcheck disable=SC2016 # much is in single quotes for the guests' shells
set -euo pipefail
cd "$(dirname "$0")/.."
rxe=$PWD/tests/rxe
# shellcheck source=tests/rxe/or-skip.sh
. "$rxe/or-skip.sh"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
# The guests' own files: none may be left.
export TMPDIR=$work/guests RXE_TIMEOUT=240
mkdir "$TMPDIR"
passed=0

check() {
    local name=$1 began=$SECONDS
    shift
    "$@"
    [ -z "$(ls "$TMPDIR")" ] || broken "$name left $(ls "$TMPDIR")"
    echo "rxe: $name ($((SECONDS - began)) s)"
    passed=$((passed + 1))
}

broken() {
    echo "FAILED: $*" >&2
    tail -n 40 "$work"/{out,err} >&2
    echo "$passed passed, 1 failed"
    exit 1
}

# guest STATUS COMMAND...: runs one of the commands of tests/rxe, whose output is then in $work/out and $work/err.
guest() {
    local expected=$1 command=$2 status=0
    shift 2
    "$rxe/$command" "$@" >"$work/out" 2>"$work/err" </dev/null || status=$?
    [ $status -eq "$expected" ] || broken "$command ended with status $status instead of $expected"
}

# says FILE LINE: one of the lines that a command said is this.
says() {
    grep -qxF -- "$2" "$work/$1" || broken "no line \"$2\" in its $1"
}

as_if_here() {
    (cd "$rxe/guest" && RCCL_WORDS="two  words" RXE_ENV="MINE ABSENT" MINE='a "b" $c' SECRET_TOKEN=x OTHER=x \
        guest 7 run -- bash -c '
            echo "$PWD|$RCCL_WORDS|$MINE|${ABSENT-unset}|${SECRET_TOKEN-unset}|${OTHER-unset}|$RCCL_TEST_RDMA|$1"
            echo "on the other stream" >&2
            echo written >'"$work"'/only-in-the-guest && cat '"$work"'/only-in-the-guest
            cat # its input is empty
            sleep 1000 & # ends with the command
            exit 7' name "an  argument")
    says out "$rxe/guest|two  words|a \"b\" \$c|unset|unset|unset|1|an  argument"
    says out written
    [ "$(cat "$work/err")" = "on the other stream" ] || broken "more than its standard error"
    [ ! -e "$work/only-in-the-guest" ] || broken "the guest wrote to this machine"
}

long_output() {
    guest 0 run seq 300000
    seq 300000 | cmp - "$work/out" || broken "the output is not whole"
}

closed_output() {
    local status=0
    RXE_TIMEOUT=60 "$rxe/run" yes 2>"$work/err" | head -n 1 >"$work/out" || status=${PIPESTATUS[0]}
    says out y
    [ "$status" -eq 141 ] || broken "status $status instead of 141, that of SIGPIPE"
}

deadline() {
    RXE_TIMEOUT=15 guest 124 run sleep 1000
    says err "the guest was killed: it did not end in 15 s; RXE_TIMEOUT sets another number"
}

panic() {
    guest 125 run sh -c 'echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger; sleep 1000'
    grep -q "Kernel panic - not syncing: sysrq triggered crash" "$work/err" || broken "nothing of the kernel's panic"
}

# ended_by SIGNAL STATUS: a runner that gets a signal ends, and its guest too.
ended_by() {
    local runner status=0
    : >"$work/out" # which the check before left: the runner may begin after the first look
    "$rxe/run" sh -c 'echo running; sleep 1000' >"$work/out" 2>"$work/err" </dev/null &
    runner=$!
    for _ in {1..600}; do
        ! grep -q running "$work/out" || break
        sleep 0.1
    done
    says out running
    kill "-$1" $runner
    wait $runner 2>/dev/null || status=$?
    [ $status -eq "$2" ] || broken "$1 gave status $status instead of $2"
    for _ in {1..100}; do
        pgrep -f "qemu.*$TMPDIR" >/dev/null || break
        sleep 0.1
    done
    ! pgrep -f "qemu.*$TMPDIR" || broken "QEMU still runs 10 s after $1"
    [ "$1" != KILL ] || rm -rf "${TMPDIR:?}"/* # which nobody could do for it
}

cargo_runner() {
    CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER=$rxe/run RXE_TIMEOUT=300 \
        cargo test -p rccl-schedule --lib >"$work/out" 2>"$work/err" || broken "cargo test"
    grep -q "^test result: ok" "$work/out" || broken "no tests"
}

# For the guests' shells. `exchange SERVER CLIENT COMMAND...` runs a program of perftest or rdma-core's examples between
# two devices of one guest; `serve` and `call` are its halves in two guests. All are short, and end after 60 s.
exchange() {
    local server=$1 client=$2
    shift 2
    serve "$@" -d "$server" &
    call 127.0.0.1 "$@" -d "$client"
    wait $!
}

serve() {
    timeout 60 "$@" >/tmp/served 2>&1 || { echo "serving $*: status $?"; cat /tmp/served; exit 1; }
}

# The server may not be listening yet. These programs do not wait for it.
call() {
    local to=$1 try
    shift
    for try in {1..30}; do
        timeout 60 "$@" "$to" >/tmp/called 2>&1 && break
        if [ "$try" = 30 ] || ! grep -qi "couldn't connect" /tmp/called; then
            echo "calling $to by $*:"
            cat /tmp/called
            exit 1
        fi
        sleep 1
    done
    grep -E '^ *[0-9]+ (iters|  )' /tmp/called
}
in_guest="set -e; $(declare -f exchange serve call)"

one_device() {
    guest 0 run bash -c "$in_guest"'
        port=/sys/class/infiniband/rxe0/ports/1
        for gid in 0 1 2; do echo "$(cat $port/gids/$gid) $(cat $port/gid_attrs/types/$gid)"; done
        ulimit -l
        exchange rxe0 rxe0 ibv_rc_pingpong -g 1 -n 200
        exchange rxe0 rxe0 ibv_rc_pingpong -g 2 -n 200 -e
        exchange rxe0 rxe0 ib_write_bw -x 1 -s 65536 -n 100 -F
        exchange rxe0 rxe0 ib_write_lat -x 1 -s 8 -n 200 -F'
    says out "fe80:0000:0000:0000:5054:00ff:fe00:0000 RoCE v2"
    says out "0000:0000:0000:0000:0000:ffff:0a07:0001 RoCE v2"
    says out "fd07:0000:0000:0000:0000:0000:0000:0001 RoCE v2"
    says out unlimited
}

two_guests() {
    guest 0 two-guests bash -c "$in_guest"'
        echo "$RANK of $WORLD_SIZE at $RXE_ADDRESS, its peer at $RXE_PEER, all meet at $MASTER_ADDR:$MASTER_PORT"
        ping -c 3 -i 0.2 -q $RXE_PEER | grep received
        both() { if [ $RANK = 0 ]; then serve "$@"; else call $RXE_PEER "$@"; fi; }
        both ibv_rc_pingpong -d rxe0 -g 1 -n 200
        both ib_write_bw -d rxe0 -x 1 -s 65536 -n 100 -u 20 -F
        both ib_write_lat -d rxe0 -x 1 -s 8 -n 200 -u 20 -F'
    says out "0: 0 of 2 at 10.7.0.1, its peer at 10.7.0.2, all meet at 10.7.0.1:29500"
    says out "1: 1 of 2 at 10.7.0.2, its peer at 10.7.0.1, all meet at 10.7.0.1:29500"
}

two_statuses() {
    guest 5 two-guests bash -c 'echo "$(hostname) ends" >&2; [ $RANK = 0 ] || exit 5'
    says err "0: guest0 ends"
    says err "1: guest1 ends"
    says err "rank 1 ended with status 5"
}

# Every device to the next, over the bridge: the packets are counted there. One is set down, the others go
# on, and it comes back.
four_devices() {
    guest 0 four-devices bash -c "$in_guest"'
        sent() { cat /sys/class/net/nic$1/statistics/tx_packets; }
        for i in 0 1 2 3; do
            next=$(((i + 1) % 4)) before=$(sent $i)
            exchange rxe$i rxe$next ibv_rc_pingpong -g 1 -n 200
            [ $(($(sent $i) - before)) -ge 200 ] || { echo "packets of nic$i took another way"; exit 1; }
        done
        tc qdisc add dev nic0 root netem loss 2%
        exchange rxe0 rxe1 ib_write_bw -x 1 -s 4096 -n 200 -F
        tc -s qdisc show dev nic0 | grep dropped
        tc qdisc del dev nic0 root
        ip link set nic0 down
        exchange rxe2 rxe3 ib_write_bw -x 1 -s 65536 -n 100 -F
        '"$rxe"'/guest/connect.sh 0
        exchange rxe0 rxe1 ib_write_bw -x 1 -s 65536 -n 100 -F'
}

check "the command's surroundings, output and status" as_if_here
check "2 MB of output" long_output
check "output that nobody reads" closed_output
check "a deadline" deadline
check "a guest that breaks down" panic
check "ended by SIGTERM" ended_by TERM 143
check "ended by SIGKILL" ended_by KILL 137
check "cargo's runner" cargo_runner
check "one device" one_device
check "two guests" two_guests
check "the statuses of two guests" two_statuses
check "four devices" four_devices
echo "$passed passed, 0 failed"
