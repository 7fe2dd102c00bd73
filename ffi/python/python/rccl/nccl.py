"""The low level, in the manner of cupy.cuda.nccl: addresses and counts, NCCL's names and numbers, memory of the host.

Addresses are integers (`array.ctypes.data`, `tensor.data_ptr()`); that there are as many elements as a call says, until it
has ended, is the caller's promise.

A stream is the `ptr` of a Stream, or None or 0: then a call returns when its result is there, and in a group groupEnd does.
On a Stream a call returns at once; Stream.synchronize waits for it, and raises its failure.

>>> stream = nccl.Stream()
>>> comm.allReduce(x.ctypes.data, x.ctypes.data, x.size, nccl.NCCL_FLOAT, nccl.NCCL_SUM, stream.ptr)
>>> stream.synchronize()
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, NoReturn
from weakref import WeakValueDictionary

from . import _rccl
from ._rccl import Communicator, UniqueId, group_end, group_spoil, group_start
from .errors import ArgumentError, Error, MismatchError, PeerLostError, TimeoutError

NCCL_INT8 = NCCL_CHAR = 0
NCCL_UINT8 = 1
NCCL_INT32 = NCCL_INT = 2
NCCL_UINT32 = 3
NCCL_INT64 = 4
NCCL_UINT64 = 5
NCCL_FLOAT16 = NCCL_HALF = 6
NCCL_FLOAT32 = NCCL_FLOAT = 7
NCCL_FLOAT64 = NCCL_DOUBLE = 8
NCCL_BFLOAT16 = 9
NCCL_FLOAT8E4M3 = 10
NCCL_FLOAT8E5M2 = 11

NCCL_SUM = 0
NCCL_PROD = 1
NCCL_MAX = 2
NCCL_MIN = 3
NCCL_AVG = 4

_RESULTS = {
    0: "NCCL_SUCCESS",
    2: "NCCL_SYSTEM_ERROR",
    3: "NCCL_INTERNAL_ERROR",
    4: "NCCL_INVALID_ARGUMENT",
    5: "NCCL_INVALID_USAGE",
    6: "NCCL_REMOTE_ERROR",
    8: "NCCL_TIMEOUT",
}


class NcclError(RuntimeError):
    """A call failed. `status` is NCCL's number; the text is the library's; `__cause__` is the rccl.Error with all it says."""

    def __init__(self, status: int, text: str = "") -> None:
        self.status = status
        self.text = text
        super().__init__(f"{_RESULTS.get(status, status)}: {text}" if text else str(_RESULTS.get(status, status)))

    def __reduce__(self) -> tuple[type[NcclError], tuple[int, str]]:
        return type(self), (self.status, self.text)


def _status(error: Error) -> int:
    match error:
        case ArgumentError():
            return 4
        case MismatchError():
            return 5
        case TimeoutError():
            return 8
        case PeerLostError():
            return 6
    # `rccl explain` lists the codes.
    return {"RCCL-1003": 6, "RCCL-1004": 2, "RCCL-1005": 5, "RCCL-1006": 5, "RCCL-2004": 6}.get(error.code or "", 3)


def _made(function: Callable[..., Any], *arguments: object) -> Any:
    try:
        return function(*arguments)
    except Error as error:
        raise NcclError(_status(error), str(error)) from error


def get_version() -> int:
    """The version of NCCL whose interface this is, as NCCL counts."""
    return 22907


def get_build_version() -> int:
    """The same: what was built is what runs."""
    return get_version()


def get_unique_id() -> tuple[int, ...]:
    """An id, as cupy has it: 128 integers from -128 to 127."""
    return tuple(byte - 256 if byte > 127 else byte for byte in bytes(_made(UniqueId.create)))


def groupStart() -> None:
    """Begins a group: the calls of this thread until groupEnd are one submission."""
    group_start()


def groupEnd() -> None:
    """Ends a group; the outermost makes its calls, and returns when all have ended, or at once if all are on streams."""
    _made(group_end)


#: Above what an address can be, and never used twice: a stream of CUDA's, or one that is gone, is none of these.
_PTRS = itertools.count(1 << 62)
_STREAMS: WeakValueDictionary[int, Stream] = WeakValueDictionary()


class Stream:
    """An order of calls, across communicators, in the manner of cupy.cuda.Stream. Calls go on by themselves, also when the
    object is gone; no call can be made on it then."""

    ptr: int  #: what calls take as stream

    def __init__(self) -> None:
        self._stream = _rccl.Stream()
        self.ptr = next(_PTRS)
        _STREAMS[self.ptr] = self

    @property
    def done(self) -> bool:
        """Whether all calls on it have ended, well or not."""
        return self._stream.is_idle()

    def synchronize(self, timeout: float | timedelta | None = None) -> None:
        """Blocks until all calls on it have ended. Raises the first failure since it was asked last, and NCCL_TIMEOUT if
        they have not ended after so many seconds; they go on then."""
        if not _made(self._stream.synchronize, timeout):
            raise NcclError(8, f"synchronize: the stream's calls have not ended after {timeout} s, and go on: wait again")

    def wait_stream(self, other: Stream) -> None:
        """What is made on this stream from now on begins after what was made on the other so far."""
        self._stream.wait_for(other._stream)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Stream cannot be pickled: its calls belong to this process")


def _stream_at(ptr: int, name: str) -> _rccl.Stream:
    stream = _STREAMS.get(ptr)
    if stream is None:
        text = f"{name}: stream {ptr!r} is none of rccl's: pass the ptr of a Stream that lives, None or 0"
        group_spoil(text)
        raise NcclError(4, text)
    return stream._stream


class NcclCommunicator:
    """A communicator of `ndev` ranks, of which this process is `rank`; all have `commId` from one get_unique_id."""

    def __init__(self, ndev: int, commId: tuple[int, ...] | bytes, rank: int) -> None:
        if not isinstance(commId, (bytes, bytearray)):
            commId = bytes(byte % 256 for byte in commId)
        self._communicator: Communicator = _made(
            lambda: Communicator.connect(UniqueId.from_bytes(bytes(commId)), rank, ndev)
        )

    @staticmethod
    def initAll(devices: int | Sequence[int]) -> list[NcclCommunicator]:
        """Communicators of all ranks in this one process, in order of rank: so many, or one for each of a list, whose numbers
        say nothing here. One thread makes their calls between groupStart and groupEnd, or on a stream for each."""
        ndev = devices if isinstance(devices, int) else len(devices)
        if not 1 <= ndev <= 4096:
            raise NcclError(4, f"initAll: {ndev} devices, where 1 to 4096 are possible")
        id = get_unique_id()
        with ThreadPoolExecutor(ndev) as threads:
            return list(threads.map(lambda rank: NcclCommunicator(ndev, id, rank), range(ndev)))

    def _call(
        self,
        name: str,
        datatype: int,
        op: int | None,
        root: int | None,
        count: int,
        sendbuf: int,
        recvbuf: int,
        stream: int | None,
    ) -> None:
        on = _stream_at(stream, name) if stream else None
        try:
            _made(self._communicator._raw, name, datatype, op, root, count, sendbuf, recvbuf, on)
        except (OverflowError, TypeError) as error:  # no such number
            group_spoil(f"{name}: {error}")
            raise NcclError(4, f"{name}: {error}") from error

    def allReduce(
        self, sendbuf: int, recvbuf: int, count: int, datatype: int, op: int, stream: int | None = None
    ) -> None:
        """In place where both addresses are one."""
        self._call("all_reduce", datatype, op, None, count, sendbuf, recvbuf, stream)

    def reduce(
        self, sendbuf: int, recvbuf: int, count: int, datatype: int, op: int, root: int, stream: int | None = None
    ) -> None:
        """Only the root's recvbuf is written."""
        self._call("reduce", datatype, op, root, count, sendbuf, recvbuf, stream)

    def broadcast(
        self, sendbuff: int, recvbuff: int, count: int, datatype: int, root: int, stream: int | None = None
    ) -> None:
        """Only the root's sendbuff is read."""
        self._call("broadcast", datatype, None, root, count, sendbuff, recvbuff, stream)

    def bcast(self, buff: int, count: int, datatype: int, root: int, stream: int | None = None) -> None:
        """As broadcast, in place."""
        self.broadcast(buff, buff, count, datatype, root, stream)

    def reduceScatter(
        self, sendbuf: int, recvbuf: int, recvcount: int, datatype: int, op: int, stream: int | None = None
    ) -> None:
        """sendbuf has recvcount elements for each rank."""
        self._call("reduce_scatter", datatype, op, None, recvcount, sendbuf, recvbuf, stream)

    def allGather(self, sendbuf: int, recvbuf: int, count: int, datatype: int, stream: int | None = None) -> None:
        """recvbuf has count elements for each rank."""
        self._call("all_gather", datatype, None, None, count, sendbuf, recvbuf, stream)

    def send(self, sendbuf: int, count: int, datatype: int, peer: int, stream: int | None = None) -> None:
        """To this rank itself in a group only."""
        self._call("send", datatype, None, peer, count, sendbuf, 0, stream)

    def recv(self, recvbuf: int, count: int, datatype: int, peer: int, stream: int | None = None) -> None:
        """From this rank itself in a group only."""
        self._call("recv", datatype, None, peer, count, 0, recvbuf, stream)

    def rank_id(self) -> int:
        """This communicator's rank."""
        return self._communicator.rank

    def size(self) -> int:
        """How many ranks there are."""
        return self._communicator.size

    def device_id(self) -> NoReturn:
        """Refused: there is none."""
        raise NcclError(5, "device_id: a communicator has no CUDA device")

    def check_async_error(self) -> None:
        """Raises what broke the communicator, if something did."""
        _made(self._communicator.check)

    def abort(self) -> None:
        """Current and later calls of all ranks fail."""
        self._communicator.abort("ncclCommAbort was called")

    def destroy(self) -> None:
        """Leaves the communicator after this rank's last call."""
        _made(self._communicator.close)

    def __reduce__(self) -> NoReturn:
        raise TypeError("an NcclCommunicator cannot be pickled: pass the id, and make it in the other process")
