#!/usr/bin/env bash
# How good choices of algorithms are: every algorithm of every collective from 8 B to 64 MiB, on 2, 4 and 8 ranks in shared
# memory, over TCP, and on two hosts (network namespaces) that share memory inside and speak TCP between; each with what is
# chosen without a profile, and again with the profile that the first measurement gave. Takes half an hour.
#
#   benches/tuner.sh [path of the rccl command [COLLECTIVE...]] >tuner.csv
#
# Needs root and iproute2, and a machine that does nothing else. Lines for benches/results/tuner.csv; on standard error how
# many choices took more than 10 % longer than the best, which in turn were measured again to tell noise from them.
set -euo pipefail

rccl=$(realpath "${1:-target/release/rccl}")
shift || true
# shellcheck source=tests/namespaces.sh
. "$(dirname "$0")/../tests/namespaces.sh"

bound=1 # a host has one processor
port=47600
budget=0.05

# tune LAYOUT OUT ARGUMENTS...: what it tells.
tune() {
    local layout=$1 out=$2
    shift 2
    port=$((port + 1))
    case $layout in
    shm-*) "$rccl" tune --ranks "${layout#shm-}" --budget $budget -o "$out" "$@" 2>&1 ;;
    tcp-*) RCCL_TRANSPORT=tcp "$rccl" tune --ranks "${layout#tcp-}" --budget $budget -o "$out" "$@" 2>&1 ;;
    mixed-*)
        ranks $((${layout#mixed-} / 2)) 2 "10.77.0.1:$port" "$rccl" tune --budget $budget -o "$out" "$@"
        cat "$work/0.err"
        ;;
    esac
}

# lines LAYOUT PROFILE: from what tune tells to lines of the table.
lines() {
    awk -v layout="$1" -v profile="$2" '$1 !~ /^#/ && NF > 5 { print layout "," profile "," $1 "," $2 "," $3 "," $4 "," $5 }'
}

make_hosts 2
echo "# benches/tuner.sh: best and chosen algorithm; ratio is the best's time over the chosen one's"
echo "layout,profile,collective,size,best,chosen,ratio"
for kind in shm tcp mixed; do
    for size in 2 4 8; do
        layout=$kind-$size
        rm -f "$work/profile"
        tune "$layout" "$work/profile" "$@" | lines "$layout" none
        RCCL_TUNE_FILE=$work/profile tune "$layout" "$work/other" --check "$@" | lines "$layout" measured
    done
done | tee "$work/all"
awk -F, '{ of = $1 " " $2; all[of]++; if ($7 < 0.9) worse[of]++ }
    END { for (of in all) printf "%s: %d of %d choices take more than 10 %% longer than the best\n", of, worse[of], all[of] }' \
    "$work/all" | sort >&2
