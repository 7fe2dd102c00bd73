#!/usr/bin/env python3
"""Times every algorithm of each collective against the others, in one run, alternating: what `choose.rs` goes by.

    cargo build --release -p rccl-cli
    benches/sweep.py target/release/rccl > benches/results/algorithms.csv
    benches/sweep.py target/release/rccl --collectives gather,scatter --ranks 16 --largest 256K

Each line is the median over the rounds of `rccl perf`'s median call, in microseconds. Sizes are `rccl perf`'s: of
collectives that have a block for each rank, of all blocks; `choose.rs` goes by the bytes of one. The sizes of these begin
at an element for each rank. Algorithms for several hosts are left out: there is one host.
"""

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile

ALGORITHMS = {
    "all_reduce": ["exchange", "direct", "doubling", "halving", "ring", "tree"],
    "broadcast": ["direct", "binomial", "chain", "pipelined_tree", "scatter_allgather"],
    "reduce": ["direct", "binomial", "chain", "pipelined_tree", "reduce_gather"],
    "reduce_scatter": ["direct", "ring", "bruck"],
    "all_gather": ["direct", "ring", "bruck"],
    "scatter": ["direct", "binomial", "pairwise"],
    "gather": ["direct", "binomial", "pairwise"],
    "all_to_all": ["direct", "bruck", "pairwise"],
}
WITHOUT_BLOCKS = ["all_reduce", "broadcast", "reduce"]
LONGEST_EXCHANGE = 8 << 10


def measure(rccl, collective, ranks, transport, algorithm, largest):
    """{(bytes, in place): median} of one run; nothing if it fails."""
    smallest = 8 if collective in WITHOUT_BLOCKS else max(8, 4 * ranks)
    with tempfile.NamedTemporaryFile() as rows:
        command = [rccl, "perf", collective, "--ranks", str(ranks), "--transport", transport, "--algo", algorithm]
        command += ["-b", str(smallest), "-e", str(largest), "-f", "8", "-n", "60", "-c", "0", "--json", rows.name]
        try:
            done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=120, check=False)
            trouble = done.stderr.decode() if done.returncode != 0 else None
        except subprocess.TimeoutExpired:
            trouble = "not done within 120 seconds"
        if trouble:
            print(f"{' '.join(command)}: {trouble}", file=sys.stderr)
        parsed = [json.loads(line) for line in rows.read().splitlines() if line]
    return {(row["bytes"], row["in_place"]): row["time_us"]["median"] for row in parsed}


def parse_size(text):
    """Bytes, as `rccl perf` reads them: a number, or one with K or M."""
    shift = {"K": 10, "M": 20}.get(text[-1:].upper(), 0)
    return int(text[:-1] if shift else text) << shift


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rccl", help="path of the rccl command")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ranks", default="2,4,8")
    parser.add_argument("--collectives", default=",".join(ALGORITHMS), help="default: all")
    parser.add_argument("--transports", default="shm,tcp")
    parser.add_argument("--largest", default=4 << 20, type=parse_size, metavar="SIZE", help="default: 4M")
    options = parser.parse_args()
    unknown = set(options.collectives.split(",")) - set(ALGORITHMS)
    if unknown:
        parser.error(f"no algorithms are known of {', '.join(sorted(unknown))}; of these: {', '.join(ALGORITHMS)}")
    print(f"# benches/sweep.py --rounds {options.rounds} --ranks {options.ranks}: registered memory, f32, sum")
    print(f"# {os.cpu_count()} cores, Linux {os.uname().release}, {datetime.date.today()}")
    print("collective,transport,ranks,algorithm,bytes,in_place,median_us,least_us,most_us")
    for collective in options.collectives.split(","):
        algorithms = ALGORITHMS[collective]
        for transport in options.transports.split(","):
            for ranks in map(int, options.ranks.split(",")):
                times = {}
                for _ in range(options.rounds):
                    for algorithm in algorithms:
                        largest = min(options.largest, LONGEST_EXCHANGE if algorithm == "exchange" else 1 << 40)
                        for key, time in measure(
                            options.rccl, collective, ranks, transport, algorithm, largest
                        ).items():
                            times.setdefault((algorithm, *key), []).append(time)
                for (algorithm, size, in_place), all_times in times.items():
                    row = [collective, transport, ranks, algorithm, size, str(in_place).lower()]
                    figures = [statistics.median(all_times), min(all_times), max(all_times)]
                    print(",".join(map(str, row + [f"{figure:.2f}" for figure in figures])), flush=True)


if __name__ == "__main__":
    main()
