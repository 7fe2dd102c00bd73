"""What can go wrong, as exceptions that carry what the library knows."""

from __future__ import annotations

import builtins
from typing import Any


class Error(RuntimeError):
    """A call failed; its text says who, where, in which call, what was seen, the first cause and what to do.

    What is not known, or makes no sense for an error, is None.
    """

    code: str | None  #: stable, for programs and for `rccl explain`
    rank: int | None  #: this process's, in its communicator
    host: str | None  #: this process's
    pid: int | None  #: this process's
    op: str | None  #: the call, with type, count, operator and root
    sequence: int | None  #: the number of the call that failed first, in its communicator
    peer: int | None  #: the rank that is to blame, or that was missed first
    cause: str | None  #: the first cause, the same on all ranks
    hint: str | None  #: what to do

    def __init__(
        self,
        text: str = "",
        *,
        code: str | None = None,
        rank: int | None = None,
        host: str | None = None,
        pid: int | None = None,
        op: str | None = None,
        sequence: int | None = None,
        peer: int | None = None,
        cause: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(text)
        self.code = code
        self.rank = rank
        self.host = host
        self.pid = pid
        self.op = op
        self.sequence = sequence
        self.peer = peer
        self.cause = cause
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (type(self), self.args, self.__dict__)


class ArgumentError(Error, ValueError):
    """An argument or a setting that can never be right. Nothing was sent, and the communicator is as good as before."""


class MismatchError(Error):
    """Ranks made different calls."""


class TimeoutError(Error, builtins.TimeoutError):
    """A call did not end within its deadline, or a wait within its own."""


class PeerLostError(Error, ConnectionError):
    """A process ended, or the way to it broke."""


def _again(kind: type[Error], arguments: tuple[str], fields: dict[str, Any]) -> Error:
    error = kind(*arguments)
    error.__dict__.update(fields)
    return error
