#!/usr/bin/env bash
# all_reduce across four hosts (network namespaces) that send and receive RATE: by a flat ring, which passes the ranks in
# their order and does not know of hosts, by rccl's ring, which passes host after host, by both hierarchical algorithms, by
# the one that is chosen, and by a profile that `rccl tune` has measured just before; with two ranks on each host, side by
# side or dealt out in turn, and with 1, 2 and 5 ranks on three hosts. SIZES are options of `rccl perf`; with the usual ones
# it takes a quarter of an hour, and writes lines for benches/results/hosts.csv. PLACEMENTS are of block, round-robin and
# unequal.
#
#   benches/hosts.sh [path of the rccl command [RATE [SIZES [PLACEMENTS]]]] >hosts.csv
#
# Needs root and iproute2, and a machine that does nothing else. The algorithms take turns, three rounds. The last column
# says how many times as fast as rccl's ring they are.
set -euo pipefail

rccl=$(realpath "${1:-target/release/rccl}")
rate=${2:-1gbit}
read -ra sizes <<<"${3:--b 8 -e 16M -f 8}"
placements=${4:-block round-robin unequal}
# shellcheck source=tests/namespaces.sh
. "$(dirname "$0")/../tests/namespaces.sh"

burst=32kb
bound=1 # else ranks of different hosts, which do not know of each other, all spin on the same processors
port=47400

# measure ALGORITHM: lines of "bytes us" of the out-of-place calls.
measure() {
    local by=(--algo "$1") apart=
    case $1 in chosen | tuned) by=() ;; flat) by=(--algo ring) apart=1 ;; esac
    case $1 in tuned) export RCCL_TUNE_FILE=$work/profile ;; *) unset RCCL_TUNE_FILE ;; esac
    port=$((port + 1))
    if ! ranks 2 4 "10.77.0.1:$port" "$rccl" perf all_reduce "${sizes[@]}" -w 1 -n 3 "${by[@]}" --json "$work/json"; then
        echo "FAILED: $1 with ranks on hosts $placed" >&2
        tail -n 5 "$work"/*.err >&2
        exit 1
    fi
    sed -nE 's/.*"bytes":([0-9]+),.*"in_place":false,.*"median":([0-9.]+),.*"wrong":0,.*/\1 \2/p' "$work/json"
}

make_hosts 4
shape "$rate" 4
echo "# benches/hosts.sh: hosts of $rate in network namespaces, a processor each; medians of calls, and of three rounds"
echo "placement,algorithm,bytes,us,ring/us"
for layout in "block:0 0 1 1 2 2 3 3" "round-robin:0 1 2 3 0 1 2 3" "unequal:0 1 1 2 2 2 2 2"; do
    name_of=${layout%%:*}
    [[ " $placements " = *" $name_of "* ]] || continue
    placed=${layout#*:}
    : >"$work/times"
    rm -f "$work/profile"
    unset RCCL_TUNE_FILE
    ranks 2 4 "10.77.0.1:47399" "$rccl" tune all_reduce "${sizes[@]}" --budget 0.05 -o "$work/profile"
    for round in 1 2 3; do
        for algorithm in flat ring hierarchical hierarchical_halving chosen tuned; do
            measure "$algorithm" | sed "s/^/$algorithm /" >>"$work/times"
        done
    done
    sort -k1,1 -k2,2n -k3,3n "$work/times" | awk -v placement="$name_of" '
        { time[$1 " " $2, ++times[$1 " " $2]] = $3 }
        END {
            for (cell in times) {
                split(cell, of)
                ring = time["ring " of[2], 2]
                printf "%s,%s,%d,%.1f,%.2f\n", placement, of[1], of[2], time[cell, 2], ring / time[cell, 2]
            }
        }' | sort -t, -k2,2 -k3,3n | tee /dev/stderr
done
