#!/usr/bin/env bash
# How good choices of algorithms are: every algorithm of every collective from 8 B to 64 MiB, on 2, 4 and 8 ranks in shared
# memory, over TCP, and on two hosts (network namespaces) that share memory inside and speak TCP between; each with what is
# chosen without a profile, and again with the profile that the first measurement gave. Takes half an hour.
#
#   [LAYOUTS='shm-2 ...'] [FACTOR=2] benches/tuner.sh [path of the rccl command [COLLECTIVE...]] >tuner.csv
#
# Needs root and iproute2, and a machine that does nothing else. Lines for benches/results/tuner.csv. Of many medians the
# least is partly luck: where the choice takes more than 10 % longer than the best, these two alone are measured again, three
# times with ten times the calls, and the last column has the median of the three ratios. On standard error: how many choices
# are still more than 10 % off.
set -euo pipefail

rccl=$(realpath "${1:-target/release/rccl}")
shift || true
layouts=${LAYOUTS:-shm-2 shm-4 shm-8 tcp-2 tcp-4 tcp-8 mixed-2 mixed-4 mixed-8}
factor=${FACTOR:-2}
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
    shm-*) "$rccl" tune --ranks "${layout#shm-}" --budget $budget -f "$factor" -o "$out" "$@" 2>&1 ;;
    tcp-*) RCCL_TRANSPORT=tcp "$rccl" tune --ranks "${layout#tcp-}" --budget $budget -f "$factor" -o "$out" "$@" 2>&1 ;;
    mixed-*)
        ranks $((${layout#mixed-} / 2)) 2 "10.77.0.1:$port" "$rccl" tune --budget $budget -f "$factor" -o "$out" "$@"
        cat "$work/0.err"
        ;;
    esac
}

# again LAYOUT PROFILE COLLECTIVE SIZE BEST CHOSEN: the ratio of these two, in three measurements of their own.
again() {
    local round
    for round in 1 2 3; do
        [ "$2" = none ] || export RCCL_TUNE_FILE=$work/profile-$1
        RCCL_ALGO=$3:${5%:*},${6%:*} budget=0.5 tune "$1" "$work/none" --check "$3" -b "$4" -e "$4" |
            awk -v of="$6" '$1 !~ /^#/ && NF > 5 {
                for (i = 6; i < NF; i++) { sub(",", "", $(i + 1)); time[$i] = $(i + 1) }
                least = -1
                for (one in time) if (time[one] + 0 > 0 && (least < 0 || time[one] < least)) least = time[one]
                printf "%.2f\n", least / time[of]
            }'
        unset RCCL_TUNE_FILE
    done | sort -n | sed -n 2p
}

# table LAYOUT PROFILE: from what tune tells to lines of the table.
table() {
    local collective size best chosen ratio
    awk '$1 !~ /^#/ && NF > 5 { print $1, $2, $3, $4, $5 }' >"$work/told"
    while read -r collective size best chosen ratio; do
        local second=
        if awk -v ratio="$ratio" 'BEGIN { exit !(ratio < 0.9) }'; then
            second=$(again "$1" "$2" "$collective" "$size" "$best" "$chosen" </dev/null)
        fi
        echo "$1,$2,$collective,$size,$best,$chosen,$ratio,$second"
    done <"$work/told"
}

make_hosts 2
echo "# benches/tuner.sh: best and chosen algorithm; ratio is the best's time over the chosen one's, again that of these two alone"
echo "layout,profile,collective,size,best,chosen,ratio,again"
for layout in $layouts; do
    tune "$layout" "$work/profile-$layout" "$@" | table "$layout" none
    RCCL_TUNE_FILE=$work/profile-$layout tune "$layout" "$work/none" --check "$@" | table "$layout" measured
done | tee "$work/all"
awk -F, '{ of = $1 " " $2; all[of]++; if ($7 < 0.9 && $8 < 0.9) worse[of]++ }
    END { for (of in all) printf "%s: %d of %d choices take more than 10 %% longer than the best\n", of, worse[of], all[of] }' \
    "$work/all" | sort >&2
