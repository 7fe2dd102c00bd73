#!/usr/bin/env bash
# The PyTorch backend against the torch of each virtual environment that is named:
#
#   tests/torch.sh [--brief] VENV...
#
# tests/torchrun-venv.sh makes one, and tests/python.sh puts roceccl there.
#
# First the project's own tests, then torch's conformance suite on 2, 3 and 4 ranks, as gloo, as mpi, and instead of gloo: by programs
# that ask for that and get this backend (RCCL_REPLACE_GLOO). With --brief only on 2. Each must run as many tests as it does
# in torch 2.15, or 10 fewer of older ones. One test is left out: it expects the name of a backend that torch brings along.
# With CI=true torch's own runner wants packages of its CI, so that suite does not see it.
set -uo pipefail
cd "$(dirname "$0")/.."
guises=("instead-of-gloo 2 84" "gloo 3 84" "gloo 4 87" "mpi 2 69" "mpi 3 85" "mpi 4 85")
[ "${1:-}" != --brief ] || { guises=("instead-of-gloo 2 84" "gloo 2 84"); shift; }
[ $# -gt 0 ] || { sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 2; }
export OMP_NUM_THREADS=1
tests=$PWD/ffi/python/tests/pytorch
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=() passed=0

# ran FILE: how many tests it says have passed, by pytest or unittest; a command that is no test counts as one.
ran() {
    awk '/^Ran [0-9]+ tests/ { n = $2 }
        /^OK \(/ && match($0, /skipped=[0-9]+/) { n -= substr($0, RSTART + 8, RLENGTH - 8) }
        match($0, /(^|[ =])[0-9]+ passed/) { n = substr($0, RSTART, RLENGTH); gsub(/[^0-9]/, "", n) }
        END { print n == "" ? 1 : n }' "$1"
}

# run NAME SECONDS LEAST COMMAND...: the command in a time limit, with so many tests at least; of its output what counts.
run() {
    local name=$1 seconds=$2 least=$3 began=$SECONDS
    shift 3
    if (cd "$work" && timeout --kill-after=30 "$seconds" "$@") >"$work/log" 2>&1 && [ "$(ran "$work/log")" -ge "$least" ]; then
        passed=$((passed + $(ran "$work/log")))
        echo "$name: $(grep -aE '^(Ran [0-9]+ tests|OK|=+ .*passed|[0-9]+ passed)' "$work/log" | tr '\n' ' ') ($((SECONDS - began)) s)"
    else
        echo "$name: FAILED ($((SECONDS - began)) s, $(ran "$work/log") passed where $least are wanted)"
        grep -aE '^(FAIL|ERROR|FAILED|E ) |Error: ' "$work/log" | grep -av gpuGetDeviceCount | cut -c 1-400 | tail -n 60
        failed+=("$name")
    fi
}

for venv; do
    python=$(cd "$venv/bin" && pwd)/python
    timeout 300 "$python" -m pip install --quiet --disable-pip-version-check pytest expecttest || exit 1
    version=$("$python" -c 'import torch; print(torch.__version__)')
    run "torch $version: the backend is compiled" 300 1 "$python" -c 'from rccl.torch import build; build.load()'
    # The splits of process groups are tested since 2.9, and the examples, which take as long as all the rest, with one torch.
    own=46 but=(--ignore "$tests/test_examples.py")
    [[ $version != 2.15.* ]] || { own=60; but=(); }
    run "torch $version: own tests" 600 "$own" "$python" -m pytest -q -p no:cacheprovider "${but[@]}" "$tests"
    for guise in "${guises[@]}"; do
        read -r as ranks least <<<"$guise"
        [[ $version == 2.15.* ]] || least=$((least - 10))
        by=(BACKEND=rccl AS="$as")
        [ "$as" != instead-of-gloo ] || by=(BACKEND=gloo AS=gloo RCCL_REPLACE_GLOO=1)
        run "torch $version: conformance as $as, $ranks ranks" 600 "$least" env -u CI "${by[@]}" WORLD_SIZE="$ranks" \
            EXCEPT=test_ddp_logging_data_cpu "$python" -W ignore "$tests/conformance.py"
    done
done
echo "$passed passed, ${#failed[@]} failed"
[ ${#failed[@]} -eq 0 ] || { printf 'failed: %s\n' "${failed[@]}"; exit 1; }
