"""torch's all_reduce by rccl and by gloo, in turn in one run::

    OMP_NUM_THREADS=1 torchrun --nproc-per-node 4 torch_all_reduce.py [--sizes BYTES...] [--dtype float32] [--each] [--csv FILE]

Of each size and backend: rounds, one backend after the other, each of many calls behind a barrier. A round's figure is the time a call
takes on the slowest rank; shown are median, minimum and maximum of the rounds. With ``--each`` every call is timed, again on the slowest
rank, and shown are the median and the 99th percentile of all rounds' calls, as tensor-parallel inference feels them.
"""

import argparse
import csv
import json
import platform
import statistics
import time

import torch
import torch.distributed as dist

import rccl.torch  # noqa: F401

COLUMNS = ["ranks", "dtype", "bytes", "backend", "median_us", "min_us", "max_us", "rounds", "calls"]


def measure(tensor, group, calls):
    """Microseconds a call, on the slowest rank."""
    dist.barrier(group)
    began = time.perf_counter()
    for _ in range(calls):
        dist.all_reduce(tensor, group=group)
    took = torch.tensor([(time.perf_counter() - began) / calls * 1e6])
    dist.all_reduce(took, dist.ReduceOp.MAX, group=group)
    return took.item()


def measure_each(tensor, group, calls):
    """Microseconds of every call, on its slowest rank."""
    took = torch.empty(calls, dtype=torch.float64)
    dist.barrier(group)
    for call in range(calls):
        began = time.perf_counter()
        dist.all_reduce(tensor, group=group)
        took[call] = (time.perf_counter() - began) * 1e6
    dist.all_reduce(took, dist.ReduceOp.MAX, group=group)
    return took.tolist()


def show_each(size, length, groups, tensor, calls, rounds):
    times = {name: [] for name in groups}
    for _ in range(rounds):
        for name, group in groups.items():
            times[name] += measure_each(tensor, group, calls[name])
    rows = {name: statistics.quantiles(of, n=100, method="inclusive") for name, of in times.items()}
    if dist.get_rank() == 0:
        (ours, theirs) = ((row[49], row[98]) for row in rows.values())
        print(
            f"{size} ranks {length:>9} B  p50 rccl {ours[0]:9.1f} us  gloo {theirs[0]:9.1f} us {theirs[0] / ours[0]:6.2f} x"
            f"  p99 rccl {ours[1]:9.1f} us  gloo {theirs[1]:9.1f} us {theirs[1] / ours[1]:6.2f} x",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[4096 << n for n in range(15)], help="bytes (default: 4 KiB to 64 MiB)")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--budget", type=float, default=0.08, help="seconds that a round takes about")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--each", action="store_true", help="time every call: p50 and p99")
    parser.add_argument("--csv")
    parser.add_argument("--json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    dist.init_process_group("rccl")
    rank, size = dist.get_rank(), dist.get_world_size()
    groups = {"rccl": dist.group.WORLD, "gloo": dist.new_group(backend="gloo")}
    dtype = getattr(torch, options.dtype)
    rows = []
    for length in options.sizes:
        tensor = torch.zeros(length // dtype.itemsize, dtype=dtype)
        first = {name: measure(tensor, group, 5) for name, group in groups.items()}
        calls = {name: max(3, min(2000, int(options.budget * 1e6 / us))) for name, us in first.items()}
        if options.each:
            show_each(size, length, groups, tensor, calls, options.rounds)
            continue
        rounds = {name: [] for name in groups}
        for _ in range(options.rounds):
            for name, group in groups.items():
                rounds[name].append(measure(tensor, group, calls[name]))
        for name, figures in rounds.items():
            median = statistics.median(figures)
            rows.append([size, options.dtype, length, name, median, min(figures), max(figures), len(figures), calls[name]])
        if rank == 0:
            ours, theirs = rows[-2], rows[-1]
            print(
                f"{size} ranks {length:>9} B  rccl {ours[4]:9.1f} us ({ours[5]:.1f} to {ours[6]:.1f})"
                f"  gloo {theirs[4]:9.1f} us ({theirs[5]:.1f} to {theirs[6]:.1f})  {theirs[4] / ours[4]:5.2f} x",
                flush=True,
            )
    if rank == 0 and options.csv:
        with open(options.csv, "w", newline="") as file:
            csv.writer(file).writerows([COLUMNS, *rows])
    if rank == 0 and options.json:
        facts = {"torch": torch.__version__, "machine": platform.machine(), "rows": [dict(zip(COLUMNS, row)) for row in rows]}
        with open(options.json, "w") as file:
            json.dump(facts, file, indent=1)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
