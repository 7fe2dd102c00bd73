"""Calls that are submitted together."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from ._rccl import Work, group_drop, group_end, group_start


@contextmanager
def group(*, async_op: bool = False, timeout: float | timedelta | None = None) -> Iterator[Work[None]]:
    """Makes the calls of its block, on any communicators, as one when the block ends, and waits for all of them.

    Messages in it meet whatever their order: a ring of sends and receives never waits for itself. Nothing is made if the
    block raises. The arrays that methods return hold their results when the block has ended.

    With async_op=True the block's end does not wait. `as` gives the Work of the whole group, to be waited for or awaited
    after the block: until then the calls' arrays are their own, and it raises the first error of any of them.

    timeout= is the seconds that each call may take from when it begins, on all ranks. Calls in the block may have one, too:
    the shortest of all holds for the group. In a group in a group, calls belong to the outermost.
    """
    work = group_start(async_op, timeout)
    try:
        yield work
    except BaseException:
        group_drop()
        raise
    group_end()
