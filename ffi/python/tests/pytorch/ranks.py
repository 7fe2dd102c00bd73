"""Runs a function on several ranks of one process group, each a forked process."""

import datetime
import multiprocessing
import os
import tempfile
import time
import traceback

import torch
import torch.distributed as dist

import rccl.torch  # noqa: F401  registers the backend
from rccl.torch import build

#: Seconds that a function may take on all ranks.
DEADLINE = 120.0

torch.set_num_threads(1)
if build.load() is None:  # compiled before any clock runs
    raise AssertionError("no module")


def run(size, function, *arguments, backend="rccl", timeout=30.0, dies=()):
    """Calls ``function(rank, size, *arguments)`` on every rank; raises what the first of them raised.

    Ranks in ``dies`` are expected to be killed. Returns what the others returned, by rank.
    """
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        pipes, processes = [], []
        for rank in range(size):
            receiver, sender = context.Pipe(duplex=False)
            options = (backend, f"{folder}/store", rank, size, timeout, sender, function, arguments)
            process = context.Process(target=_rank, args=options, daemon=True)
            process.start()
            sender.close()
            pipes.append(receiver)
            processes.append(process)
        end = time.monotonic() + DEADLINE
        said = {}
        try:
            for rank, pipe in enumerate(pipes):
                if rank in dies:
                    continue
                if not pipe.poll(max(0.0, end - time.monotonic())):
                    raise AssertionError(f"rank {rank} has not ended within {DEADLINE:.0f} s; said so far: {said}")
                try:
                    said[rank] = pipe.recv()
                except EOFError:
                    processes[rank].join(10)
                    raise AssertionError(f"rank {rank} ended with status {processes[rank].exitcode}") from None
        finally:
            for process in processes:
                process.join(10 if len(said) + len(dies) == size else 0)
                if process.is_alive():
                    process.kill()
                    process.join()
    wrong = [f"rank {rank}:\n{text}" for rank, (right, text) in said.items() if not right]
    if wrong:
        raise AssertionError("\n".join(wrong))
    return {rank: value for rank, (_, value) in said.items()}


def _rank(backend, path, rank, size, timeout, sender, function, arguments):
    try:
        dist.init_process_group(
            backend,
            init_method=f"file://{path}",
            rank=rank,
            world_size=size,
            timeout=datetime.timedelta(seconds=timeout),
        )
        value = function(rank, size, *arguments)
        sender.send((True, value))
        # Groups that a test broke on purpose are left, too.
        dist.destroy_process_group()
    except BaseException:
        sender.send((False, traceback.format_exc()))
    finally:
        sender.close()
        os._exit(0)


def text_of(function, kind=RuntimeError):
    """What the exception says that ``function`` raises."""
    try:
        function()
    except kind as error:
        return str(error)
    raise AssertionError("it raised nothing")
