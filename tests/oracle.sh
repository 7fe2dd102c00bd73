#!/usr/bin/env bash
# The same random programs through rccl and through Open MPI, on 2 to 8 ranks, over shared memory and TCP; their results
# must be equal. Needs Open MPI (not MPICH) with its headers, and libclang.
#
# usage: tests/oracle.sh [CALLS [SEED]]
set -euo pipefail
cd "$(dirname "$0")/.."
calls=${1:-1500}
seed=${2:-$RANDOM}
wrapper=$(command -v mpicc.openmpi || command -v mpicc)
run=$(command -v mpirun.openmpi || command -v mpirun)
MPICC=$wrapper cargo build --release -p rccl-oracle --features mpi
# As root too, and with more ranks than processors. Open MPI's vectorised sums of 8 and 16 bits saturate instead of
# wrapping, which MPI allows.
mpi=("$run" --allow-run-as-root --oversubscribe --mca op ^avx --mca btl_vader_single_copy_mechanism none)
for ranks in 2 3 5 8; do
    for transport in shm tcp; do
        RCCL_TRANSPORT=$transport timeout 120 "${mpi[@]}" -x RCCL_TRANSPORT -n $ranks target/release/rccl-oracle "$calls" "$seed"
        seed=$((seed + 1))
    done
done
