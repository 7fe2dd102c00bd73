"""The compiled part; use it by way of rccl."""

import sys
from collections.abc import Awaitable, Generator, Sequence
from datetime import timedelta
from types import GenericAlias, TracebackType
from typing import Any, Generic, Literal, Protocol, Self, TypeAlias, TypeVar, final, overload, type_check_only

from typing_extensions import Buffer

__all__ = [
    "Communicator",
    "Memory",
    "PreMulSum",
    "Stream",
    "UniqueId",
    "Work",
    "__version__",
    "command",
    "group_drop",
    "group_end",
    "group_spoil",
    "group_start",
    "leave_calls",
]

__version__: str

@type_check_only
class _DLPack(Protocol):
    def __dlpack__(self) -> Any: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...

@type_check_only
class _ArrayInterface(Protocol):
    @property
    def __array_interface__(self) -> dict[str, Any]: ...

@type_check_only
class _Tensor(Protocol):
    def data_ptr(self) -> int: ...

# Whatever has C-contiguous memory of the host.
_Array: TypeAlias = Buffer | _DLPack | _ArrayInterface | _Tensor
_X = TypeVar("_X", bound=_Array)
_Out = TypeVar("_Out", bound=_Array)
_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)
_Word: TypeAlias = Literal["sum", "prod", "min", "max", "avg", "band", "bor", "bxor"]
_Op: TypeAlias = _Word | PreMulSum
_Time: TypeAlias = float | timedelta

@final
class PreMulSum:
    """The sum of all ranks' elements, each first multiplied by its rank's factor; ranks may pass different ones."""

    @property
    def factor(self) -> float: ...
    def __new__(cls, factor: float) -> Self: ...

@final
class UniqueId:
    """Where the ranks of a communicator meet, and the key that they prove to each other. It pickles."""

    @staticmethod
    def create(**config: object) -> UniqueId: ...
    @staticmethod
    def from_bytes(bytes: bytes) -> UniqueId: ...
    def __bytes__(self) -> bytes: ...

@final
class Work(Generic[_T_co], Awaitable[_T_co]):
    """A call that is under way, or all calls of a group: wait for it, or await it in asyncio."""

    def wait(self, timeout: _Time | None = None) -> _T_co: ...
    def done(self) -> bool: ...
    def _ring(self, descriptor: int) -> None: ...
    def __await__(self) -> Generator[Any, None, _T_co]: ...
    def __class_getitem__(cls, key: object) -> GenericAlias: ...

@final
class Stream:
    """An order of calls; rccl.nccl.Stream is for use."""

    def synchronize(self, timeout: _Time | None = None) -> bool: ...
    def is_idle(self) -> bool: ...
    def wait_for(self, other: Stream) -> None: ...

@final
class Memory:
    """Registered memory as bytes."""

    def __len__(self) -> int: ...
    if sys.version_info >= (3, 12):
        def __buffer__(self, flags: int, /) -> memoryview: ...
        def __release_buffer__(self, view: memoryview, /) -> None: ...

@final
class Communicator:
    """A group of ranks that call collectives together."""

    # Of the forms of a call the last is for a program that decides while it runs whether it blocks.

    @staticmethod
    def from_env(*, timeout: _Time | None = None, label: str = "", **config: object) -> Communicator: ...
    @staticmethod
    def connect(
        id: UniqueId, rank: int, size: int, *, timeout: _Time | None = None, label: str = "", **config: object
    ) -> Communicator: ...
    @property
    def rank(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def local_rank(self) -> int: ...
    @property
    def label(self) -> str: ...
    @overload
    def all_reduce(
        self,
        x: _X,
        op: _Op = "sum",
        *,
        out: None = None,
        async_op: Literal[False] = False,
        timeout: _Time | None = None,
    ) -> _X: ...
    @overload
    def all_reduce(
        self,
        x: _X,
        op: _Op = "sum",
        *,
        out: None = None,
        async_op: Literal[True],
        timeout: _Time | None = None,
    ) -> Work[_X]: ...
    @overload
    def all_reduce(
        self,
        x: _Array,
        op: _Op = "sum",
        *,
        out: _Out,
        async_op: Literal[False] = False,
        timeout: _Time | None = None,
    ) -> _Out: ...
    @overload
    def all_reduce(
        self,
        x: _Array,
        op: _Op = "sum",
        *,
        out: _Out,
        async_op: Literal[True],
        timeout: _Time | None = None,
    ) -> Work[_Out]: ...
    @overload
    def all_reduce(
        self,
        x: _Array,
        op: _Op = "sum",
        *,
        out: _Array | None = None,
        async_op: bool,
        timeout: _Time | None = None,
    ) -> Any: ...
    @overload
    def broadcast(
        self,
        x: _X,
        root: int = 0,
        *,
        out: None = None,
        async_op: Literal[False] = False,
        timeout: _Time | None = None,
    ) -> _X: ...
    @overload
    def broadcast(
        self,
        x: _X,
        root: int = 0,
        *,
        out: None = None,
        async_op: Literal[True],
        timeout: _Time | None = None,
    ) -> Work[_X]: ...
    @overload
    def broadcast(
        self,
        x: _Array,
        root: int = 0,
        *,
        out: _Out,
        async_op: Literal[False] = False,
        timeout: _Time | None = None,
    ) -> _Out: ...
    @overload
    def broadcast(
        self,
        x: _Array,
        root: int = 0,
        *,
        out: _Out,
        async_op: Literal[True],
        timeout: _Time | None = None,
    ) -> Work[_Out]: ...
    @overload
    def broadcast(
        self,
        x: _Array,
        root: int = 0,
        *,
        out: _Array | None = None,
        async_op: bool,
        timeout: _Time | None = None,
    ) -> Any: ...
    @overload
    def reduce(
        self,
        x: _X,
        op: _Op = "sum",
        root: int = 0,
        *,
        out: None = None,
        async_op: Literal[False] = False,
        timeout: _Time | None = None,
    ) -> _X | None: ...
    @overload
    def reduce(
        self,
        x: _X,
        op: _Op = "sum",
        root: int = 0,
        *,
        out: None = None,
        async_op: Literal[True],
        timeout: _Time | None = None,
    ) -> Work[_X | None]: ...
    @overload
    def reduce(
        self,
        x: _Array,
        op: _Op = "sum",
        root: int = 0,
        *,
        out: _Out,
        async_op: Literal[False] = False,
        timeout: _Time | None = None,
    ) -> _Out | None: ...
    @overload
    def reduce(
        self,
        x: _Array,
        op: _Op = "sum",
        root: int = 0,
        *,
        out: _Out,
        async_op: Literal[True],
        timeout: _Time | None = None,
    ) -> Work[_Out | None]: ...
    @overload
    def reduce(
        self,
        x: _Array,
        op: _Op = "sum",
        root: int = 0,
        *,
        out: _Array | None = None,
        async_op: bool,
        timeout: _Time | None = None,
    ) -> Any: ...
    @overload
    def all_gather(
        self,
        x: _Array,
        *,
        out: None = None,
        counts: Sequence[int] | None = None,
        async_op: Literal[False] = False,
        timeout: _Time | None = None,
    ) -> Any: ...
    @overload
    def all_gather(
        self,
        x: _Array,
        *,
        out: None = None,
        counts: Sequence[int] | None = None,
        async_op: Literal[True],
        timeout: _Time | None = None,
    ) -> Work[Any]: ...
    @overload
    def all_gather(
        self,
        x: _Array,
        *,
        out: _Out,
        counts: Sequence[int] | None = None,
        async_op: Literal[False] = False,
        timeout: _Time | None = None,
    ) -> _Out: ...
    @overload
    def all_gather(
        self,
        x: _Array,
        *,
        out: _Out,
        counts: Sequence[int] | None = None,
        async_op: Literal[True],
        timeout: _Time | None = None,
    ) -> Work[_Out]: ...
    @overload
    def all_gather(
        self,
        x: _Array,
        *,
        out: _Array | None = None,
        counts: Sequence[int] | None = None,
        async_op: bool,
        timeout: _Time | None = None,
    ) -> Any: ...
    @overload
    def reduce_scatter(
        self,
        x: _Array,
        op: _Op = "sum",
        *,
        out: None = None,
        counts: Sequence[int] | None = None,
        async_op: Literal[False] = False,
        timeout: _Time | None = None,
    ) -> Any: ...
    @overload
    def reduce_scatter(
        self,
        x: _Array,
        op: _Op = "sum",
        *,
        out: None = None,
        counts: Sequence[int] | None = None,
        async_op: Literal[True],
        timeout: _Time | None = None,
    ) -> Work[Any]: ...
    @overload
    def reduce_scatter(
        self,
        x: _Array,
        op: _Op = "sum",
        *,
        out: _Out,
        counts: Sequence[int] | None = None,
        async_op: Literal[False] = False,
        timeout: _Time | None = None,
    ) -> _Out: ...
    @overload
    def reduce_scatter(
        self,
        x: _Array,
        op: _Op = "sum",
        *,
        out: _Out,
        counts: Sequence[int] | None = None,
        async_op: Literal[True],
        timeout: _Time | None = None,
    ) -> Work[_Out]: ...
    @overload
    def reduce_scatter(
        self,
        x: _Array,
        op: _Op = "sum",
        *,
        out: _Array | None = None,
        counts: Sequence[int] | None = None,
        async_op: bool,
        timeout: _Time | None = None,
    ) -> Any: ...
    @overload
    def all_to_all(
        self,
        x: _Array,
        *,
        out: None = None,
        send_counts: Sequence[int] | None = None,
        recv_counts: Sequence[int] | None = None,
        async_op: Literal[False] = False,
        timeout: _Time | None = None,
    ) -> Any: ...
    @overload
    def all_to_all(
        self,
        x: _Array,
        *,
        out: None = None,
        send_counts: Sequence[int] | None = None,
        recv_counts: Sequence[int] | None = None,
        async_op: Literal[True],
        timeout: _Time | None = None,
    ) -> Work[Any]: ...
    @overload
    def all_to_all(
        self,
        x: _Array,
        *,
        out: _Out,
        send_counts: Sequence[int] | None = None,
        recv_counts: Sequence[int] | None = None,
        async_op: Literal[False] = False,
        timeout: _Time | None = None,
    ) -> _Out: ...
    @overload
    def all_to_all(
        self,
        x: _Array,
        *,
        out: _Out,
        send_counts: Sequence[int] | None = None,
        recv_counts: Sequence[int] | None = None,
        async_op: Literal[True],
        timeout: _Time | None = None,
    ) -> Work[_Out]: ...
    @overload
    def all_to_all(
        self,
        x: _Array,
        *,
        out: _Array | None = None,
        send_counts: Sequence[int] | None = None,
        recv_counts: Sequence[int] | None = None,
        async_op: bool,
        timeout: _Time | None = None,
    ) -> Any: ...
    @overload
    def gather(
        self,
        x: _Array,
        root: int = 0,
        *,
        out: None = None,
        counts: Sequence[int] | bool | None = None,
        async_op: Literal[False] = False,
        timeout: _Time | None = None,
    ) -> Any: ...
    @overload
    def gather(
        self,
        x: _Array,
        root: int = 0,
        *,
        out: None = None,
        counts: Sequence[int] | bool | None = None,
        async_op: Literal[True],
        timeout: _Time | None = None,
    ) -> Work[Any]: ...
    @overload
    def gather(
        self,
        x: _Array,
        root: int = 0,
        *,
        out: _Out,
        counts: Sequence[int] | bool | None = None,
        async_op: Literal[False] = False,
        timeout: _Time | None = None,
    ) -> _Out | None: ...
    @overload
    def gather(
        self,
        x: _Array,
        root: int = 0,
        *,
        out: _Out,
        counts: Sequence[int] | bool | None = None,
        async_op: Literal[True],
        timeout: _Time | None = None,
    ) -> Work[_Out | None]: ...
    @overload
    def gather(
        self,
        x: _Array,
        root: int = 0,
        *,
        out: _Array | None = None,
        counts: Sequence[int] | bool | None = None,
        async_op: bool,
        timeout: _Time | None = None,
    ) -> Any: ...
    @overload
    def scatter(
        self,
        x: _Array | None,
        root: int = 0,
        *,
        out: None = None,
        counts: Sequence[int] | bool | None = None,
        async_op: Literal[False] = False,
        timeout: _Time | None = None,
    ) -> Any: ...
    @overload
    def scatter(
        self,
        x: _Array | None,
        root: int = 0,
        *,
        out: None = None,
        counts: Sequence[int] | bool | None = None,
        async_op: Literal[True],
        timeout: _Time | None = None,
    ) -> Work[Any]: ...
    @overload
    def scatter(
        self,
        x: _Array | None,
        root: int = 0,
        *,
        out: _Out,
        counts: Sequence[int] | bool | None = None,
        async_op: Literal[False] = False,
        timeout: _Time | None = None,
    ) -> _Out: ...
    @overload
    def scatter(
        self,
        x: _Array | None,
        root: int = 0,
        *,
        out: _Out,
        counts: Sequence[int] | bool | None = None,
        async_op: Literal[True],
        timeout: _Time | None = None,
    ) -> Work[_Out]: ...
    @overload
    def scatter(
        self,
        x: _Array | None,
        root: int = 0,
        *,
        out: _Array | None = None,
        counts: Sequence[int] | bool | None = None,
        async_op: bool,
        timeout: _Time | None = None,
    ) -> Any: ...
    @overload
    def send(self, x: _Array, to: int, *, async_op: Literal[False] = False, timeout: _Time | None = None) -> None: ...
    @overload
    def send(self, x: _Array, to: int, *, async_op: Literal[True], timeout: _Time | None = None) -> Work[None]: ...
    @overload
    def send(self, x: _Array, to: int, *, async_op: bool, timeout: _Time | None = None) -> Any: ...
    @overload
    def recv(self, x: _X, source: int, *, async_op: Literal[False] = False, timeout: _Time | None = None) -> _X: ...
    @overload
    def recv(self, x: _X, source: int, *, async_op: Literal[True], timeout: _Time | None = None) -> Work[_X]: ...
    @overload
    def recv(self, x: _Array, source: int, *, async_op: bool, timeout: _Time | None = None) -> Any: ...
    @overload
    def barrier(self, *, async_op: Literal[False] = False, timeout: _Time | None = None) -> None: ...
    @overload
    def barrier(self, *, async_op: Literal[True], timeout: _Time | None = None) -> Work[None]: ...
    @overload
    def barrier(self, *, async_op: bool, timeout: _Time | None = None) -> Any: ...
    @overload
    def broadcast_object(
        self, o: _T, root: int = 0, *, async_op: Literal[False] = False, timeout: _Time | None = None
    ) -> _T: ...
    @overload
    def broadcast_object(self, o: _T, root: int = 0, *, async_op: Literal[True], timeout: _Time | None = None) -> Work[_T]: ...
    @overload
    def broadcast_object(self, o: _T, root: int = 0, *, async_op: bool, timeout: _Time | None = None) -> Any: ...
    def split(self, color: int | None, key: int = 0) -> Communicator | None: ...
    def duplicate(self) -> Communicator: ...
    def shrink(self, excluded: Sequence[int]) -> Communicator: ...
    def unique_id(self) -> UniqueId: ...
    def grow(self, size: int, id: UniqueId | None = None) -> Communicator: ...
    def empty(self, shape: int | Sequence[int], dtype: object = None) -> Any: ...
    def check(self) -> None: ...
    def abort(self, why: str = "") -> None: ...
    def close(self) -> None: ...
    def _leave(self, why: str | None = None) -> None: ...
    def _raw(
        self,
        collective: str,
        dtype: int,
        op: int | None,
        root: int | None,
        count: int,
        input: int,
        output: int,
        stream: Stream | None = None,
    ) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> bool: ...

def leave_calls() -> None: ...
def group_start(async_op: bool = False, timeout: _Time | None = None) -> Work[None]: ...
def group_end() -> None: ...
def group_drop() -> None: ...
def group_spoil(why: str) -> None: ...
def command(again: Sequence[str], arguments: Sequence[str]) -> int: ...
