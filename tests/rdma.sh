#!/usr/bin/env bash
# rccl over RDMA from end to end, in the guests of tests/rxe: its own tests, its command, and faults of the network.
#
#   tests/rdma.sh [SUITE...]
#
# A SUITE is one of the functions from `own` on; without any, all run. Wants what tests/rxe/setup.sh
# prepares, and target/release/rccl. Where the guests are missing all is skipped with a word; with CI=true that is a
# failure.
#
#   RCCL_SOAK     calls of the soak in one guest (600)
# shellcheck disable=SC2016 # much is in single quotes for the guests' shells
set -euo pipefail
cd "$(dirname "$0")/.."
rxe=$PWD/tests/rxe
# shellcheck source=tests/rxe/boot.sh
why=$(. "$rxe/boot.sh" && missing)
if [ -n "$why" ] && [ "${CI:-}" = true ]; then
    echo "$why" >&2
    exit 1
elif [ -n "$why" ]; then
    echo "skipped: $why"
    exit
fi
rccl=$PWD/target/release/rccl
[ -x "$rccl" ] || { echo "no $rccl: run cargo build --release" >&2; exit 1; }
passed=0

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
cargo test -p rccl --no-run 2>&1 | tee "$work/built" | grep -E '^error' && { cat "$work/built"; exit 1; }

# program NAME: the path of a test program of rccl.
program() {
    local path
    path=$(sed -nE "s,^ *Executable tests/$1\.rs \((.*)\)\$,\1,p" "$work/built")
    [ -n "$path" ] || { echo "cargo built no test program $1" >&2; exit 1; }
    echo "$PWD/$path"
}

# guest SECONDS COMMAND...: one of the commands of tests/rxe.
guest() {
    local seconds=$1 command=$2
    shift 2
    RXE_TIMEOUT=$seconds "$rxe/$command" "$@"
}

suite() {
    local began=$SECONDS
    echo "--- rdma: $1"
    "$1"
    echo "--- rdma: $1 ($((SECONDS - began)) s)"
    passed=$((passed + 1))
}

# For a guest's shell: runs a test program, all of whose tests run even if some fail.
in_guest='failed=0
    tests() { local began=$SECONDS; "$@" || failed=1; echo "${1##*/}: $((SECONDS - began)) s"; }
    cd rccl
    export TEST_TRANSPORT=verbs # which a device in software takes long enough for
    '

# rccl's own tests: programs whose tests go over any transport, and those of other programs that have verbs in their names.
own() {
    local script=$in_guest name
    for name in messages work; do
        script+="tests $(program $name) --test-threads=2; "
    done
    for name in killed forked collectives; do
        script+="tests $(program $name) verbs --nocapture; "
    done
    guest 600 run bash -c "$script"'exit $failed'
}

[ $# -gt 0 ] || set -- own
for name in "$@"; do
    suite "$name"
done
echo "$passed passed, 0 failed"
