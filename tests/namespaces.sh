# shellcheck shell=bash
# Hosts in one machine: network namespaces joined by veth pairs and a bridge. To be sourced by scripts that run ranks in
# them. Needs root and iproute2. Everything is named after this process and removed when it ends, also when it fails or
# is interrupted; so are namespaces that the script makes itself and adds to `made`, and the folder $work.
#
#   make_hosts N         namespaces $name-h0, $name-h1 ... with addresses 10.77.0.1/24, fd77::1/64 and so on, on eth0
#   shape RATE N         every host sends and receives at most so much, e.g. 200mbit, after a burst of 4kb, or of $burst:
#                        a timer of this machine lets at most one burst through, so high rates need longer ones
#   unshape N
#   ranks EACH HOSTS ADDRESS COMMAND...
#                        so many ranks on each host; output in $work/RANK and $work/RANK.err; fails if one of them does.
#                        With bound=1 a host has one processor of this machine, so that its ranks know that they share it;
#                        placed="0 1 1 2" says the host of every rank, in the place of EACH; with apart=1 ranks do not know
#                        which of them are on one host

name=rccl$$
bridge=br$$
made=()
work=$(mktemp -d)

cleanup() {
    for host in "${made[@]}"; do
        ip netns pids "$host" 2>/dev/null | xargs -r kill -KILL 2>/dev/null || true
        ip netns del "$host" 2>/dev/null || true
    done
    ip netns del "$name-net" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

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

# Both ways, and with room for a few frames only, so that not even short messages go faster; the queue is never full.
shape() {
    for i in $(seq 0 $(($2 - 1))); do
        tc -n "$name-h$i" qdisc replace dev eth0 root tbf rate "$1" burst "${burst:-4kb}" limit 64mb
        tc -n "$name-net" qdisc replace dev "port$i" root tbf rate "$1" burst "${burst:-4kb}" limit 64mb
    done
}

unshape() {
    for i in $(seq 0 $(($1 - 1))); do
        tc -n "$name-h$i" qdisc del dev eth0 root
        tc -n "$name-net" qdisc del dev "port$i" root
    done
}

# RCCL_HOSTID tells namespaces apart as hosts, so ranks share memory inside of one and speak TCP between them.
ranks() {
    local each=$1 hosts=$2 address=$3 pids=() failed=0
    local size=$((each * hosts)) of=()
    shift 3
    if [ -n "${placed:-}" ]; then
        read -ra of <<<"$placed"
        size=${#of[@]}
    fi
    for rank in $(seq 0 $((size - 1))); do
        local host=${of[$rank]:-$((rank / each))}
        local on=()
        [ -z "${bound:-}" ] || on=(taskset -c $((host % $(nproc))))
        RCCL_RANK=$rank RCCL_SIZE=$size RCCL_COMM_ID=$address RCCL_HOSTID=host$host${apart:+-$rank} RCCL_KEY=000102030405060708090a0b0c0d0e0f \
            timeout 120 "${on[@]}" ip netns exec "$name-h$host" "$@" >"$work/$rank" 2>"$work/$rank.err" &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do
        wait "$pid" || failed=1
    done
    return $failed
}
