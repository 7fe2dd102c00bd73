# Makes rxe devices. Sourced by the scripts beside it.
# shellcheck shell=bash

# await SECONDS WHAT COMMAND...: waits until the command succeeds.
await() {
    local end=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        if [ $SECONDS -ge $end ]; then
            echo "$what" >&2
            return 1
        fi
        sleep 0.1
    done
}

# add_device NAME NETDEV: an rxe device over a network device, which has its addresses already: a device's table of GIDs
# begins with the link-local one and goes on in the order of the addresses, so that index 1 is always IPv4.
add_device() {
    local state=/sys/class/infiniband/$1/ports/1/state
    rdma link add "$1" type rxe netdev "$2"
    await 5 "$1 over $2 did not become active in 5 s" grep -q ACTIVE "$state"
}
