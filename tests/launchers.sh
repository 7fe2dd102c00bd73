#!/usr/bin/env bash
# One unchanged `rccl perf` under every launcher.
#
#   tests/launchers.sh [path of the rccl command]
#
# TEST_TORCHRUN names a torchrun; TEST_SRUN=1, which tests/slurm.sh sets, says that srun works. A launcher that is
# missing is skipped with a word; with CI=true that is a failure.
set -euo pipefail
rccl=$(realpath "${1:-target/release/rccl}")
perf=("$rccl" perf all_reduce -b 8 -e 1M -f 32 -n 20)
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
passed=0

absent() {
    if [ "${CI:-}" = true ]; then
        echo "$1 is missing" >&2
        exit 1
    fi
    echo "skipped: $1 is missing"
}

# under LAUNCHER ...: the launcher's words go before the command's.
under() {
    local output
    command -v "$1" >/dev/null || { absent "$1"; return; }
    output=$(timeout 120 "$@" "${perf[@]}" 2>&1) || { echo "FAILED: $*: $output" >&2; exit 1; }
    grep -q '# Out of bounds values : 0 OK' <<<"$output" || { echo "FAILED: $*: $output" >&2; exit 1; }
    grep -q 'nRanks 4' <<<"$output" || { echo "FAILED: $* did not give 4 ranks: $output" >&2; exit 1; }
    echo "launcher: $1"
    passed=$((passed + 1))
}

under mpirun.openmpi -np 4 --oversubscribe
under mpiexec.hydra -n 4
under "$rccl" run -n 4 --
under "${TEST_TORCHRUN:-torchrun}" --standalone --nproc-per-node 4 --no-python
if [ -n "${TEST_SRUN:-}" ]; then
    under srun -n 4 --overcommit --mpi=none
else
    absent "a Slurm (TEST_SRUN=1)"
fi

# Nobody but variables.
plain() {
    local port pids=() output
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    output=$(mktemp)
    for rank in 0 1 2 3; do
        RANK=$rank WORLD_SIZE=4 MASTER_ADDR=127.0.0.1 MASTER_PORT=$port timeout 120 "${perf[@]}" >>"$output" 2>&1 &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do
        wait "$pid" || { cat "$output" >&2; exit 1; }
    done
    grep -q '# Out of bounds values : 0 OK' "$output" || { cat "$output" >&2; exit 1; }
    rm -f "$output"
    echo "launcher: RANK and WORLD_SIZE"
    passed=$((passed + 1))
}
plain
echo "$passed passed, 0 failed"
