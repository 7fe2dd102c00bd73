"""A program with hints, all of which hold: a checker accepts it, and it runs."""

import asyncio
from array import array
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeAlias, assert_type

import numpy as np
import rccl
from numpy.typing import NDArray
from rccl import nccl

Floats = NDArray[np.float32]
Numbers: TypeAlias = "array[float]"


def calls(comm: rccl.Communicator, x: Floats) -> None:
    assert_type(comm.rank, int)
    assert_type(comm.all_reduce(x), Floats)
    assert_type(comm.all_reduce(x, "max", timeout=5), Floats)
    assert_type(comm.all_reduce(x, rccl.PreMulSum(0.5), async_op=True), rccl.Work[Floats])
    assert_type(comm.all_reduce(x, async_op=True).wait(timeout=timedelta(seconds=5)), Floats)
    numbers = array("d", [1, 2])
    assert_type(comm.broadcast(numbers), Numbers)
    assert_type(comm.broadcast(numbers, out=x.astype(np.float64)[:2]), NDArray[np.float64])
    assert_type(comm.reduce(x, root=0), Floats | None)
    assert_type(comm.all_gather(x, out=np.empty_like(x)), Floats)
    assert_type(comm.all_gather(x), Any)
    assert_type(comm.all_to_all(x, send_counts=[len(x)], recv_counts=(len(x),)), Any)
    assert_type(comm.barrier(), None)
    assert_type(comm.barrier(async_op=True), rccl.Work[None])
    assert_type(comm.all_reduce(x, async_op=len(x) > 1000), Any)
    assert_type(comm.broadcast_object({"epoch": 1}), dict[str, int])
    assert_type(comm.split(0, key=-comm.rank), rccl.Communicator | None)
    assert_type(comm.duplicate(), rccl.Communicator)
    comm.all_reduce(comm.empty((2, 3), "bfloat16"))
    with rccl.group(async_op=True, timeout=5.0) as work:
        comm.send(x, 0)
        assert_type(comm.recv(np.empty_like(x), 0), Floats)
    assert_type(work, rccl.Work[None])
    work.wait()


async def awaited(comm: rccl.Communicator, x: Floats) -> Floats:
    return await comm.all_reduce(x, async_op=True)


def low_level(x: Floats) -> None:
    stream = nccl.Stream()
    comm = nccl.NcclCommunicator(1, nccl.get_unique_id(), 0)
    comm.allReduce(x.ctypes.data, x.ctypes.data, x.size, nccl.NCCL_FLOAT, nccl.NCCL_SUM, stream.ptr)
    stream.synchronize()
    comm.destroy()


def failure(call: Callable[[], object]) -> rccl.Error:
    try:
        call()
    except rccl.Error as error:
        assert_type(error.peer, int | None)
        assert_type(error.hint, str | None)
        return error
    raise AssertionError("it did not raise")


def main() -> None:
    with rccl.Communicator.from_env(label="typed", init_timeout=30) as comm:
        x = np.ones(4, np.float32)
        calls(comm, x)
        assert_type(asyncio.run(awaited(comm, x)), Floats)
        low_level(x)
        assert isinstance(failure(lambda: comm.broadcast(x, root=99)), rccl.ArgumentError)


if __name__ == "__main__":
    main()
