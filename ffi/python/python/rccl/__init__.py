"""Collective communication between processes and hosts, for memory of the CPU.

>>> import rccl, numpy
>>> with rccl.Communicator.from_env() as comm:       # rccl run, mpirun, srun, torchrun, or one rank
...     x = comm.all_reduce(numpy.ones(4))
"""

from . import nccl
from ._group import group
from ._library import include_directory, library
from ._rccl import Communicator, PreMulSum, UniqueId, Work, __version__
from .errors import ArgumentError, Error, MismatchError, PeerLostError, TimeoutError

__all__ = [
    "ArgumentError",
    "Communicator",
    "Error",
    "MismatchError",
    "PeerLostError",
    "PreMulSum",
    "TimeoutError",
    "UniqueId",
    "Work",
    "__version__",
    "group",
    "include_directory",
    "library",
    "nccl",
]
