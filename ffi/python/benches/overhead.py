"""What a call of 8 bytes takes from Python, and from Rust in the same minute, in turns.

    python ffi/python/benches/overhead.py [RANKS] [ROUNDS]

Prints the fastest, the median and the slowest of the rounds, in microseconds; each is the median of 20 x 1000 calls in
Python, and in Rust the mean of 20000 by `rccl perf`, blocking or started and waited for.
"""

import json
import statistics
import subprocess
import sys
import time

import numpy as np
import rccl


def measure():
    comm = rccl.Communicator.from_env()
    kinds = {"NumPy": np.zeros(2, np.float32), "bytearray": bytearray(8)}
    try:
        import torch

        kinds["torch"] = torch.zeros(2)
    except ImportError:
        pass
    medians = {kind: median(lambda x=x: comm.all_reduce(x)) for kind, x in kinds.items()}
    medians["out="] = median(lambda x=kinds["NumPy"], out=np.zeros(2, np.float32): comm.all_reduce(x, out=out))
    medians["async_op"] = median(lambda x=kinds["NumPy"]: comm.all_reduce(x, async_op=True).wait())
    if comm.rank == 0:
        print(json.dumps(medians))


def median(call, rounds=20, calls=1000):
    times = []
    for _ in range(rounds + 2):
        began = time.perf_counter()
        for _ in range(calls):
            call()
        times.append((time.perf_counter() - began) / calls * 1e6)
    return statistics.median(times[2:])


def rust(ranks, *manner):
    """The time in place of `rccl perf`."""
    command = ["perf", "all_reduce", "--ranks", ranks, "-b", "8", "-e", "8", "-n", "20000", "-w", "2000", *manner]
    table = run(command)
    row = next(line.split() for line in table.splitlines() if line.strip() and not line.startswith("#"))
    return float(row[9])


def run(command):
    command = [sys.executable, "-m", "rccl", *command]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


def main(ranks="2", rounds="5"):
    all_ = {}
    for _ in range(int(rounds)):
        one = {"Rust": rust(ranks), "Rust async": rust(ranks, "--async")}
        program = ["run", "-n", ranks, "--bind", "--no-prefix", "--", sys.executable, __file__, "--measure"]
        one |= json.loads(run(program))
        for name, value in one.items():
            all_.setdefault(name, []).append(value)
    for name, values in all_.items():
        print(f"{name:10} {min(values):6.2f} {statistics.median(values):6.2f} {max(values):6.2f}")


if __name__ == "__main__":
    measure() if sys.argv[1:] == ["--measure"] else main(*sys.argv[1:])
