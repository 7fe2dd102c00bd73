"""Awaiting a Work in asyncio. The library's thread writes to a descriptor that the loop looks at: it never runs Python."""

import asyncio
import os
from typing import Any

from ._rccl import Work


async def end_of(work: Work[Any]) -> Any:
    """The answer of a call, or its error."""
    while not work.done():  # a group has several ends
        await _next_end(work)
    return work.wait()


async def _next_end(work: Work[Any]) -> None:
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    try:
        loop.add_reader(bell, lambda: None if ended.done() else ended.set_result(None))
        try:
            work._ring(bell)
            await ended
        finally:
            loop.remove_reader(bell)
    finally:
        os.close(bell)
