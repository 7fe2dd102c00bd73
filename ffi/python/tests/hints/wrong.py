"""Mistakes that a checker finds, each with what it calls it."""

import numpy as np
import rccl
from rccl import nccl

id: str = rccl.UniqueId.create()  # refused: assignment
rccl.Communicator.connect("host:1234", 0, 1)  # refused: arg-type
comm = rccl.Communicator.from_env(timeout="5 s")  # refused: arg-type
x = np.ones(4)

comm.all_reduce([1.0, 2.0])  # refused: call-overload
comm.all_reduce(x, "mean")  # refused: call-overload
comm.all_reduce(x, "sum", x)  # refused: call-overload
comm.all_reduce(x, async_op=True).sum()  # refused: attr-defined
comm.all_gather(x, count=[4])  # refused: call-overload
comm.reduce(x).sum()  # refused: union-attr
comm.send(x)  # refused: call-overload
comm.recv(x, "0")  # refused: call-overload
comm.split(0).barrier()  # refused: union-attr
comm.rank = 1  # refused: misc
comm.allreduce(x)  # refused: attr-defined
rccl.PreMulSum(0.5).factor = 1.0  # refused: misc
rccl.group(True)  # refused: call-arg


class Mine(rccl.Communicator):  # refused: misc
    pass


def peer(error: rccl.Error) -> int:
    return error.peer  # refused: return-value


nccl.NcclCommunicator(1, "id", 0)  # refused: arg-type
