"""The end of the interpreter: communicators that are open say goodbye, and what ended it if that was an exception."""

import atexit
import sys
import weakref

from ._rccl import Communicator, leave_calls

LIVE: weakref.WeakSet[Communicator] = weakref.WeakSet()


def _leave() -> None:
    # The interpreter keeps what it printed last. One that is talked to goes on after an exception.
    raised = None if hasattr(sys, "ps1") else getattr(sys, "last_value", None)
    why = None if raised is None else f"{type(raised).__name__}: {raised}"
    for communicator in list(LIVE):
        communicator._leave(why)
    if why is not None and (groups := sys.modules.get("rccl.torch")) is not None:
        groups._leave(why)
    leave_calls()


atexit.register(_leave)
