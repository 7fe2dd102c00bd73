"""Calls that are submitted together."""

from collections.abc import Iterator
from contextlib import contextmanager

from ._rccl import group_drop, group_end, group_start


@contextmanager
def group() -> Iterator[None]:
    """Makes the calls of its block, on any communicators, as one when the block ends, and waits for all of them.

    Messages in it meet whatever their order: a ring of sends and receives never waits for itself. Nothing is made if the
    block raises. The arrays that methods return hold their results when the block has ended.
    """
    group_start()
    try:
        yield
    except BaseException:
        group_drop()
        raise
    group_end()
