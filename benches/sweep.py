#!/usr/bin/env python3
"""Times every algorithm of a collective against the others, in one run, alternating: what `choose.rs` goes by.

    cargo build --release -p rccl-cli
    benches/sweep.py target/release/rccl > benches/results/algorithms.csv

Each line is the median over the rounds of `rccl perf`'s median call, in microseconds.
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
    "broadcast": ["binomial", "chain", "pipelined_tree", "scatter_allgather"],
}
LONGEST_EXCHANGE = 8 << 10


def measure(rccl, collective, ranks, transport, algorithm, sizes):
    """{(bytes, in place): median} of one run; nothing if it fails."""
    with tempfile.NamedTemporaryFile() as rows:
        command = [rccl, "perf", collective, "--ranks", str(ranks), "--transport", transport, "--algo", algorithm]
        command += ["-b", str(sizes[0]), "-e", str(sizes[1]), "-f", "8", "-n", "60", "-c", "0", "--json", rows.name]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=120, check=False)
        if done.returncode != 0:
            print(f"{' '.join(command)}: {done.stderr.decode()}", file=sys.stderr)
        parsed = [json.loads(line) for line in rows.read().splitlines() if line]
    return {(row["bytes"], row["in_place"]): row["time_us"]["median"] for row in parsed}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rccl", help="path of the rccl command")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ranks", default="2,4,8")
    options = parser.parse_args()
    print(f"# benches/sweep.py --rounds {options.rounds} --ranks {options.ranks}: registered memory, f32 sum")
    print(f"# {os.cpu_count()} cores, Linux {os.uname().release}, {datetime.date.today()}")
    print("collective,transport,ranks,algorithm,bytes,in_place,median_us,least_us,most_us")
    for collective, algorithms in ALGORITHMS.items():
        for transport in ["shm", "tcp"]:
            for ranks in map(int, options.ranks.split(",")):
                times = {}
                for _ in range(options.rounds):
                    for algorithm in algorithms:
                        largest = LONGEST_EXCHANGE if algorithm == "exchange" else 4 << 20
                        for key, time in measure(
                            options.rccl, collective, ranks, transport, algorithm, (8, largest)
                        ).items():
                            times.setdefault((algorithm, *key), []).append(time)
                for (algorithm, size, in_place), all_times in times.items():
                    row = [collective, transport, ranks, algorithm, size, str(in_place).lower()]
                    figures = [statistics.median(all_times), min(all_times), max(all_times)]
                    print(",".join(map(str, row + [f"{figure:.2f}" for figure in figures])), flush=True)


if __name__ == "__main__":
    main()
