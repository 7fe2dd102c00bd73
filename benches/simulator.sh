#!/usr/bin/env bash
# What `rccl simulate` predicts against what is measured, between hosts (network namespaces) that send and receive
# 200 Mbit/s: all_reduce by ring, tree and hierarchical of 64 KiB, 1 MiB and 16 MiB, 2 ranks on 2 hosts, 4 on 2, 8 on 4.
# Takes five minutes, and writes lines for benches/results/simulator.csv.
#
#   benches/simulator.sh [path of the rccl command] >simulator.csv
#
# Needs root and iproute2, and a machine that does nothing else. The rate is low so that the network, not this machine's
# processors, is what takes the time. What is more than 25 % off, or stands in another order, is told on standard error,
# and the status is 1 then.
set -euo pipefail

rccl=$(realpath "${1:-target/release/rccl}")
# shellcheck source=tests/namespaces.sh
. "$(dirname "$0")/../tests/namespaces.sh"

rate=200             # Mbit/s, as tbf counts it: whole frames
payload=0.956        # of it: 1448 of the 1514 bytes of a frame
frame_us=60.6        # what a frame takes at that rate, and waits on its way through a switch
algorithms=ring,tree,hierarchical
port=47200
bound=1              # else ranks of different hosts, which do not know of each other, all spin on the same processors

# measure EACH HOSTS ARGUMENTS...: medians of the out-of-place calls of rank 0, lines of "bytes us".
measure() {
    local each=$1 hosts=$2
    shift 2
    port=$((port + 1))
    if ! ranks "$each" "$hosts" "10.77.0.1:$port" "$rccl" perf all_reduce "$@" --json "$work/json"; then
        echo "FAILED: $each ranks on each of $hosts hosts: $*" >&2
        tail -n 5 "$work"/*.err >&2
        exit 1
    fi
    sed -nE 's/.*"bytes":([0-9]+),.*"in_place":false,.*"median":([0-9.]+),.*"wrong":0,.*/\1 \2/p' "$work/json"
}

make_hosts 4

# What a message costs beside its bytes is this machine's, so it is measured: 8 bytes both ways at once, unhindered.
measure 1 2 -b 8 -e 8 -n 200 -w 20 --algo exchange >"$work/short"
one_way=$(awk '{ print $2 }' "$work/short")
shape ${rate}mbit 4
echo "a message takes $one_way us; $rate Mbit/s" >&2

# cluster EACH: the cluster that the hosts are.
cluster() {
    awk -v each="$1" -v rate=$rate -v payload=$payload -v one_way="$one_way" -v frame=$frame_us 'BEGIN {
        print "[hosts]\nranks = " each "\nreduce_gb_per_s = 4\ncopy_gb_per_s = 4\nmemory_gb_per_s = 8"
        print "[network]\nrails = 1\nrail_gbit_per_s = " rate * payload / 1000
        print "rail_latency_us = " (one_way * 0.6 + frame) / 2
        print "send_us = " one_way * 0.2 "\nreceive_us = " one_way * 0.2 "\ncopy_gb_per_s = 4"
        print "[local]\nsend_us = 0.2\nreceive_us = 0.2"
    }'
}

: >"$work/table"
for layout in "1 2" "2 2" "2 4"; do
    read -r each hosts <<<"$layout"
    cluster "$each" >"$work/cluster.toml"
    for algorithm in ${algorithms//,/ }; do
        "$rccl" simulate all_reduce --ranks $((each * hosts)) --bytes 64K,1M,16M --algo "$algorithm" \
            --cluster "$work/cluster.toml" --json - |
            sed -nE 's/.*"bytes":([0-9]+),.*"time_us":([0-9.]+)[,}].*/\1 \2/p' >"$work/predicted"
        measure "$each" "$hosts" -b 64K -e 16M -f 16 -n 3 -w 1 --algo "$algorithm" >"$work/measured"
        join "$work/predicted" "$work/measured" | sed "s/^/$((each * hosts)) $hosts $algorithm /" >>"$work/table"
    done
done
awk '
    BEGIN { print "ranks,hosts,algorithm,bytes,predicted_us,measured_us,predicted/measured" }
    {
        ratio = $5 / $6
        printf "%d,%d,%s,%d,%.0f,%.0f,%.2f\n", $1, $2, $3, $4, $5, $6, ratio
        if (ratio < 0.75 || ratio > 1.25) off($3 " of " $4 " bytes on " $1 " ranks is " ratio " of what is measured")
        for (i in cell) {
            split(i, of)
            split(cell[i], times)
            order = log($6 / times[2])
            turned = (order > log(1.25) && $5 < times[1]) || (order < -log(1.25) && $5 > times[1])
            if (of[1] == $1 && of[2] == $4 && turned) off($3 " and " of[3] " of " $4 " bytes on " $1 " ranks stand the other way round")
        }
        cell[$1 " " $4 " " $3] = $5 " " $6
    }
    function off(what) {
        print what >"/dev/stderr"
        bad++
    }
    END { exit NR != 27 || bad > 0 }' "$work/table"
