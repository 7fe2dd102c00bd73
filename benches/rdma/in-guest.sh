#!/usr/bin/env bash
# What `benches/rdma/run` does in each of the two guests: rank 1 runs what it is asked to, rank 0 asks and measures.
#
#   in-guest.sh RELEASE ROUNDS LARGEST LIBRARY...
#
# RELEASE is the folder of the programs; a LIBRARY is one of the functions below. Rank 0 prints rows of JSON.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
release=$1 rounds=$2 largest=$3
shift 3
port=7411
end=$(numfmt --from=iec "$largest")
budget_ms=1500 # of one size, of what chooses its own number of calls

# Open MPI's daemon wants to find it on the other guest too.
cat >/tmp/agent <<AGENT
#!/bin/sh
host=\$1
shift
exec timeout 250 python3 $here/remote.py run "\$host" $port "\$@"
AGENT
chmod +x /tmp/agent
if [ "$RANK" = 1 ]; then
    exec timeout "$RXE_TIMEOUT" python3 "$here/remote.py" serve "$port"
fi
there() { /tmp/agent "$RXE_PEER" "$@"; }
trap 'there stop' EXIT

# timed TRANSPORT OPTION...: rccl as two processes that are told who they are, as any launcher would.
timed() {
    local common="RCCL_SIZE=2 RCCL_COMM_ID=$RXE_ADDRESS:29600 RCCL_KEY=000102030405060708090a0b0c0d0e0f"
    local command="timeout 100 $release/rccl perf all_reduce -f 8 --transport $* --json /tmp/rows"
    there "env RCCL_RANK=1 $common $command" >/tmp/other 2>&1 &
    local other=$!
    # shellcheck disable=SC2086 # lists of words
    env RCCL_RANK=0 $common $command >/tmp/said 2>&1 || cat /tmp/said >&2
    wait $other || cat /tmp/other >&2
    cat /tmp/rows
    rm /tmp/rows
}

# Fewer calls of the sizes that take long.
rccl() {
    timed "$1" -b 8 -e "$((end < 32768 ? end : 32768))" -n 100
    [ "$end" -lt 262144 ] || timed "$1" -b 256K -e "$largest" -w 2 -n 8
}
verbs() { rccl verbs | sed 's/^{/{"library":"rccl verbs",/'; }
tcp() { rccl tcp | sed 's/^{/{"library":"rccl TCP",/'; }

open_mpi() {
    timeout 120 mpirun.openmpi --allow-run-as-root --host "$RXE_ADDRESS,$RXE_PEER" -np 2 \
        --mca plm_rsh_agent /tmp/agent --mca plm_rsh_no_tree_spawn 1 --mca oob_tcp_if_include eth0 \
        --mca pml ob1 --mca btl tcp,self --mca btl_tcp_if_include eth0 \
        "$release/rdma-peer-mpi" all_reduce 2 8 "$end" 8 0 $budget_ms "Open MPI TCP" tcp /tmp/rows >&2
    cat /tmp/rows
    rm /tmp/rows
}

# Its ranks meet through files, which are copied to where the other one looks: rank 0 writes two and then waits, rank 1
# writes its second when it has seen rank 0's.
gloo() {
    local store=/tmp/store
    local start="exec timeout 100 env PEERS_SIZE=2 PEERS_STORE=$store"
    local command="$release/rdma-peer-gloo all_reduce 2 8 $end 8 0 $budget_ms Gloo\ TCP tcp /tmp/rows"
    # await NUMBER: until so many files are there.
    local await='await() { for i in $(seq 150); do [ $(ls '$store' | wc -l) -lt $1 ] || break; sleep 0.5; done; }'
    # Files appear whole, under another name than they are unpacked by.
    local take="mkdir $store.new && tar x -C $store.new && mv -n $store.new/* $store; rm -r $store.new"
    mkdir $store
    there mkdir $store
    there "$start PEERS_ADDRESS=$RXE_PEER PEERS_RANK=1 $command" >&2 &
    local other=$!
    sh -c "$start PEERS_ADDRESS=$RXE_ADDRESS PEERS_RANK=0 $command" >&2 &
    local own=$! files
    files=$(sh -c "$await; await 2; cd $store; tar c ./* | base64 -w0")
    there "echo $files | base64 -d | ($take)"
    files=$(there "$await; await 4; cd $store; tar c ./* | base64 -w0")
    base64 -d <<<"$files" | sh -c "$take"
    wait $own
    wait $other
    there rm -r $store
    rm -r $store
    cat /tmp/rows
    rm /tmp/rows
}

for _ in {1..100}; do
    ! there true 2>/dev/null || break
    sleep 0.2
done
for _ in $(seq "$rounds"); do
    for library in "$@"; do
        # One that fails leaves the others their turn.
        "$library" || echo "$library did not work" >&2
    done
done
