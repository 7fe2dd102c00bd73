#!/usr/bin/env bash
# What `benches/rdma/run` does in each of the two guests: rank 1 runs what it is asked to, rank 0 asks and measures.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
release=$1 rounds=$2 largest=$3
port=7411

if [ "$RANK" = 1 ]; then
    exec timeout 280 python3 "$here/remote.py" serve "$port"
fi

cat >/tmp/agent <<EOF
#!/bin/sh
exec timeout 120 python3 $here/remote.py run "\$1" $port "\$@"
EOF
chmod +x /tmp/agent
trap '/tmp/agent $RXE_PEER stop || true' EXIT

sizes=(-b 8 -e "$largest" -f 8)
# rccl TRANSPORT: as two processes that are told who they are, as any launcher would.
rccl() {
    local common="RCCL_SIZE=2 RCCL_COMM_ID=$RXE_ADDRESS:29600 RCCL_KEY=000102030405060708090a0b0c0d0e0f"
    local command="$release/rccl perf all_reduce ${sizes[*]} -c 1 -n 100 --transport $1"
    /tmp/agent "$RXE_PEER" "env RCCL_RANK=1 $common $command >/dev/null" &
    local other=$!
    # shellcheck disable=SC2086
    timeout 100 env RCCL_RANK=0 $common $command --json /tmp/rows >/dev/null
    wait $other
    sed "s/^{/{\"library\":\"rccl $1\",/" /tmp/rows
}
open_mpi() {
    timeout 100 mpirun.openmpi --allow-run-as-root --host "$RXE_ADDRESS,$RXE_PEER" -np 2 \
        --mca plm_rsh_agent /tmp/agent --mca plm_rsh_no_tree_spawn 1 --mca pml ob1 --mca btl tcp,self \
        --mca btl_tcp_if_include eth0 --mca oob_tcp_if_include eth0 \
        "$release/rdma-peer-mpi" all_reduce 2 8 "$largest_bytes" 8 0 2000 "Open MPI tcp" tcp /tmp/rows >&2
    cat /tmp/rows
}
largest_bytes=$(numfmt --from=iec "$largest")
until /tmp/agent "$RXE_PEER" true 2>/dev/null; do sleep 0.2; done
for _ in $(seq "$rounds"); do
    rccl verbs
    open_mpi
    rccl tcp
done
