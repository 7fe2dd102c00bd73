"""What the ranks of the tests' jobs do: `programs.py FILE FUNCTION ARGUMENTS` writes what FUNCTION returns to FILE, as JSON."""

import array
import asyncio
import atexit
import contextlib
import json
import os
import pickle
import signal
import socket
import sys
import threading
import time
import weakref
from pathlib import Path

import ml_dtypes
import numpy as np
import rccl

DTYPES = [
    np.int8, np.uint8, np.int32, np.uint32, np.int64, np.uint64, np.float16, np.float32, np.float64,
    ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2,
]  # fmt: skip
#: What is moved, but not reduced.
PLAIN = [
    "bool", "int16", "uint16", "complex64", "complex128", "longdouble", "M8[ns]", "m8[D]", "S5", "U3", "V7",
    ml_dtypes.int4, ml_dtypes.float8_e4m3b11fnuz, [("a", "f4"), ("b", "i2", 3)],
]  # fmt: skip
OPS = {
    "sum": lambda all: all.sum(0),
    "prod": lambda all: all.prod(0),
    "min": lambda all: all.min(0),
    "max": lambda all: all.max(0),
    "avg": lambda all: all.sum(0) / len(all),
    "band": np.bitwise_and.reduce,
    "bor": np.bitwise_or.reduce,
    "bxor": np.bitwise_xor.reduce,
}


def reached(name):
    """Tells the test that this rank is there."""
    Path(f"{sys.argv[1]}.{name}").touch()


def wait_until_reached(rank, name):
    """Until another rank of this job is there."""
    place = Path(sys.argv[1]).with_name(f"{rank}.{name}")
    until = time.monotonic() + 30
    while not place.exists():
        assert time.monotonic() < until, f"rank {rank} does not reach {name}"
        time.sleep(0.01)


def numbers(rank, count, dtype):
    """Small numbers that differ by rank and place, whose sums and products all types can hold exactly."""
    return ((np.arange(count) * 7 + rank * 3) % 2 + 1).astype(dtype)


def equal(given, expected, what):
    given, expected = np.asarray(given), np.asarray(expected)
    assert given.shape == expected.shape, f"{what}: {given.shape} instead of {expected.shape}"
    same = given.astype(np.float64) == expected.astype(np.float64)
    assert same.all(), f"{what}: {given[~same][:5]} instead of {expected[~same][:5]}"


def every_value():
    """Every collective, type, operator and root, in place and not, against plain arithmetic."""
    with rccl.Communicator.from_env() as comm:
        rank, size = comm.rank, comm.size
        calls = 0
        for dtype in DTYPES:
            for block in (0, 1, 5, 4099):
                calls += values(comm, rank, size, dtype, block)
        return calls


def values(comm, rank, size, dtype, block):
    whole = [numbers(other, block * size, dtype) for other in range(size)]
    all_, mine = np.stack(whole), whole[rank]
    wide = all_.astype(np.int64)
    calls = 0
    kept = mine.copy()
    for op, reduced in OPS.items():
        if op.startswith("b") and not np.issubdtype(dtype, np.integer):
            continue
        expected = reduced(wide)
        expected = np.trunc(expected) if np.issubdtype(dtype, np.integer) else expected
        expected = expected.astype(dtype)
        what = f"{op} {np.dtype(dtype).name} x{block} on {rank} of {size}"
        x = mine.copy()
        assert comm.all_reduce(x, op) is x
        equal(x, expected, what)
        out = np.zeros_like(mine)
        assert comm.all_reduce(mine, op, out=out) is out
        equal(out, expected, what)
        part = expected[rank * block : (rank + 1) * block]
        equal(comm.reduce_scatter(mine, op), part, what)
        x = mine.copy()
        place = x[rank * block : (rank + 1) * block]
        assert comm.reduce_scatter(x, op, out=place) is place
        equal(place, part, what)
        x = mine.copy()
        answer = comm.reduce(x, op, size - 1)
        assert (answer is x) == (rank == size - 1) and (answer is None) == (rank != size - 1)
        equal(x, expected if rank == size - 1 else mine, what)
        calls += 5
    what = f"{np.dtype(dtype).name} x{block} on {rank} of {size}"
    for root in range(size):
        x = mine.copy()
        assert comm.broadcast(x, root) is x
        equal(x, whole[root], what)
        out = np.zeros_like(mine)
        equal(comm.broadcast(mine, root, out=out), whole[root], what)
        gathered = comm.gather(mine, root)
        assert (gathered is None) == (rank != root)
        if rank == root:
            equal(gathered, all_, what)
            x = whole[root].copy()
            equal(comm.scatter(x, root), x[root * block : (root + 1) * block], what)
        else:
            out = np.zeros(block, dtype)
            assert comm.scatter(None, root, out=out) is out
            equal(out, whole[root][rank * block : (rank + 1) * block], what)
        calls += 4
    equal(comm.all_gather(mine), all_, what)
    out = np.zeros((size, block * size), dtype)
    out[rank] = mine
    assert comm.all_gather(out[rank], out=out) is out, "in place"
    equal(out, all_, what)
    expected = np.concatenate([theirs[rank * block : (rank + 1) * block] for theirs in whole])
    out = np.zeros_like(mine)
    assert comm.all_to_all(mine, out=out) is out
    equal(out, expected, what)
    equal(comm.all_to_all(mine), expected, what)
    if size > 1:
        nearest = np.zeros_like(mine)
        with rccl.group():
            comm.send(mine, (rank + 1) % size)
            comm.recv(nearest, (rank - 1) % size)
        equal(nearest, whole[(rank - 1) % size], what)
    equal(mine, kept, "what is read only")
    comm.barrier()
    return calls + 5


def every_movement():
    """Types that have no sum, by every call that moves elements, with blocks of one length and of different ones."""
    with rccl.Communicator.from_env() as comm:
        for dtype in PLAIN:
            for block in (0, 1, 1025):
                movements(comm, np.dtype(dtype), block)
        return True


def movements(comm, dtype, block):
    rank, size = comm.rank, comm.size
    # Any bytes will do, but a bool's.
    bytes_ = np.random.default_rng(5).integers(0, 2, size * size * block * dtype.itemsize, np.uint8)
    whole = bytes_.view(dtype).reshape(size, size * block)
    mine, root = whole[rank].copy(), size - 1
    part = slice(rank * block, (rank + 1) * block)

    def same(given, expected):
        assert given.dtype == dtype and given.tobytes() == expected.tobytes(), f"{dtype} x{block}"

    x = mine.copy()
    assert comm.broadcast(x, root) is x
    same(x, whole[root])
    same(comm.all_gather(mine), whole)
    same(comm.all_gather(mine, async_op=True).wait(), whole)
    out = np.zeros_like(whole)
    out[rank] = mine
    same(comm.all_gather(out[rank], out=out), whole)
    same(comm.all_to_all(mine), np.concatenate([theirs[part] for theirs in whole]))
    gathered = comm.gather(mine, root)
    if rank == root:
        same(gathered, whole)
    same(comm.scatter(mine if rank == root else None, root, out=np.zeros(block, dtype)), whole[root][part])
    nearest = np.zeros_like(mine)
    with rccl.group():
        comm.send(mine, (rank + 1) % size)
        comm.recv(nearest, (rank - 1) % size)
    same(nearest, whole[rank - 1])
    counts = [other + block for other in range(size)]
    all_ = whole.reshape(-1)[: sum(counts)] if block else np.zeros(sum(counts), dtype)
    begin = sum(counts[:rank])
    own = all_[begin : begin + counts[rank]].copy()
    same(comm.all_gather(own, counts=counts), all_)
    gathered = comm.gather(own, root, counts=counts if rank == root else True)
    if rank == root:
        same(gathered, all_)
        same(comm.scatter(all_.copy(), root, counts=counts), own)
    else:
        same(comm.scatter(None, root, counts=True, out=np.zeros_like(own)), own)
    received = comm.all_to_all(all_.copy(), send_counts=counts, recv_counts=[counts[rank]] * size)
    same(received, np.concatenate([own] * size))


def off_boundaries():
    """Elements at addresses that are no multiples of their size."""
    with rccl.Communicator.from_env() as comm:
        for dtype in DTYPES:
            size = np.dtype(dtype).itemsize
            for count in (3, 5000):
                x = np.zeros(count * size + 1, np.uint8)[1:].view(dtype)
                x[:] = numbers(comm.rank, count, dtype)
                expected = sum(numbers(other, count, np.float64) for other in range(comm.size))
                assert comm.all_reduce(x) is x
                equal(x, expected, np.dtype(dtype).name)
                equal(comm.all_gather(x), np.stack([x] * comm.size), np.dtype(dtype).name)
        return True


def unequal_blocks():
    with rccl.Communicator.from_env() as comm:
        rank, size = comm.rank, comm.size
        counts = [other + 1 for other in range(size)]
        all_ = np.arange(sum(counts), dtype=np.float32)
        begin = sum(counts[:rank])
        own = all_[begin : begin + counts[rank]].copy()
        equal(comm.all_gather(own, counts=counts), all_, "all_gather")
        equal(comm.reduce_scatter(all_, counts=counts), own * size, "reduce_scatter")
        gathered = comm.gather(own, 1, counts=counts if rank == 1 else True)
        assert (gathered is None) == (rank != 1)
        if rank == 1:
            equal(gathered, all_, "gather")
            equal(comm.scatter(all_, 1, counts=counts), own, "scatter")
        else:
            equal(comm.scatter(None, 1, counts=True, out=np.zeros_like(own)), own, "scatter")
        sent = np.concatenate([np.full(to + 1, rank, np.int32) for to in range(size)])
        received = comm.all_to_all(sent, send_counts=counts, recv_counts=[rank + 1] * size)
        equal(received, np.repeat(np.arange(size), rank + 1), "all_to_all")
        return True


def factors():
    with rccl.Communicator.from_env() as comm:
        for dtype in DTYPES:
            x = np.full(9, 2, dtype)
            comm.all_reduce(x, rccl.PreMulSum(comm.rank + 1))
            equal(x, np.full(9, sum(2 * (rank + 1) for rank in range(comm.size))), np.dtype(dtype).name)
        return True


def without_blocking():
    """Works: waited for, awaited, many at once, dropped, and in another thread."""
    with rccl.Communicator.from_env() as comm:
        size = comm.size
        x = np.ones(1000, np.float32)
        work = comm.all_reduce(x, async_op=True)
        assert isinstance(work, rccl.Work)
        assert work.wait() is x and work.done() and work.wait() is x
        equal(x, np.full(1000, size), "wait")
        works = [comm.all_reduce(np.full(n + 1, n, np.int64), async_op=True) for n in range(50)]
        for n, work in enumerate(works):
            equal(work.wait(timeout=30), np.full(n + 1, n * size), "many")
        comm.all_reduce(x, async_op=True)  # its object goes at once, the array stays
        comm.barrier()
        equal(x, np.full(1000, size * size), "dropped")
        if comm.rank == 1:
            wait_until_reached(0, "many dropped")
        freed = []
        for n in range(2000):
            x = np.full(3, n)
            weakref.finalize(x, freed.append, n)
            comm.all_reduce(x, async_op=True)
        if comm.rank == 0:
            assert len(freed) == 0, "their calls have not ended"
            reached("many dropped")
        comm.barrier()
        comm.barrier(async_op=True).wait()
        assert len(freed) == 1999, "calls that ended keep their arrays"

        async def program():
            one = comm.all_gather(np.full(3, comm.rank), async_op=True)
            two = comm.broadcast(np.full(2, comm.rank), 1, async_op=True)
            ticks = 0

            async def tick():
                nonlocal ticks
                while True:
                    ticks += 1
                    await asyncio.sleep(0.001)

            beside = asyncio.create_task(tick())
            gathered, told = await asyncio.gather(one, two)
            if comm.rank == 1:
                await asyncio.sleep(0.2)
            await comm.barrier(async_op=True)
            beside.cancel()
            return gathered, told, ticks

        gathered, told, ticks = asyncio.run(program())
        equal(gathered, np.repeat(np.arange(size), 3).reshape(size, 3), "await")
        equal(told, [1, 1], "await")
        assert ticks >= 3, "the loop stood still"

        answers = []
        work = comm.barrier(async_op=True)
        threads = [threading.Thread(target=lambda: answers.append(work.wait())) for _ in range(3)]
        [thread.start() for thread in threads]
        [thread.join(30) for thread in threads]
        assert answers == [None] * 3
        return True


def groups_without_blocking():
    """Groups that go on when their block is over: waited for, awaited, many at once, dropped."""
    with rccl.Communicator.from_env() as comm:
        rank, size = comm.rank, comm.size
        twin = comm.duplicate()

        def begin(n, **how):
            x, y, z = np.full(1000, n), np.full(3, rank), np.zeros(3, int)
            with rccl.group(async_op=True, **how) as work:
                assert comm.all_reduce(x) is x
                table = twin.all_gather(y)
                comm.send(y, (rank + 1) % size)
                assert comm.recv(z, (rank - 1) % size) is z
            return work, (x, table, z)

        def check(n, x, table, z):
            equal(x, np.full(1000, n * size), "all_reduce")
            equal(table, np.repeat(np.arange(size), 3).reshape(size, 3), "all_gather")
            equal(z, [(rank - 1) % size] * 3, "recv")

        work, results = begin(7)
        assert work.wait() is None and work.done() and work.wait(timeout=0) is None
        check(7, *results)
        begun = [begin(n, timeout=60) for n in range(20)]
        for n, (work, results) in enumerate(begun):
            assert work.wait(timeout=30) is None
            check(n, *results)

        async def program():
            begun = [begin(n) for n in range(5)]
            if rank == 1:
                await asyncio.sleep(0.2)
            assert await asyncio.gather(*(work for work, _ in begun)) == [None] * 5
            return begun

        for n, (_, results) in enumerate(asyncio.run(program())):
            check(n, *results)
        results = begin(3)[1]  # its Work goes at once, the arrays stay
        comm.barrier()
        twin.barrier()
        check(3, *results)
        if rank == 1:
            wait_until_reached(0, "waited")
            begin(1)[0].wait()
        else:
            work, results = begin(1)
            error = raises(lambda: work.wait(timeout=0.1))
            assert isinstance(error, rccl.TimeoutError) and "group of 4 calls: all_reduce i64 x1000 sum" in error.op
            assert not work.done() and "under way" in repr(work)
            reached("waited")
            work.wait()
            check(1, *results)
        twin.close()
        return True


def impatience():
    """A wait that ends before its call, which goes on."""
    with rccl.Communicator.from_env() as comm:
        x = np.ones(10)
        if comm.rank == 1:
            time.sleep(1)
            comm.all_reduce(x)
        else:
            work = comm.all_reduce(x, async_op=True)
            began = time.monotonic()
            try:
                work.wait(timeout=0.2)
            except rccl.TimeoutError as error:
                assert isinstance(error, TimeoutError) and error.op == "all_reduce f64 x10 sum", error.op
                assert error.hint == "it goes on: wait again, or abort the communicator" and error.hint in str(error)
                assert 0.15 < time.monotonic() - began < 0.9
            else:
                raise AssertionError("it did not raise")
            assert not work.done()
            assert work.wait() is x
        equal(x, np.full(10, comm.size), "the call")
        return True


def beside():
    """Threads of Python run while one waits in a call."""
    with rccl.Communicator.from_env() as comm:
        ended = threading.Event()
        ticks = []

        def tick():
            while not ended.wait(0.01):
                ticks.append(1)

        comm.barrier()
        thread = threading.Thread(target=tick)
        thread.start()
        if comm.rank == 1:
            time.sleep(1)
        comm.barrier()
        ended.set()
        thread.join(30)
        return len(ticks)


def fields(error):
    """An exception as JSON, by way of pickle."""
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error) and type(copy) is type(error)
    bases = [base.__name__ for base in type(error).__mro__]
    return {"bases": bases, "text": str(error), "words": str(error.__cause__)} | vars(copy)


def refuse_to_load():
    raise ValueError("it does not load")


class Unloadable:
    """Can be pickled, but not the other way."""

    def __reduce__(self):
        return refuse_to_load, ()


def raises(function):
    try:
        function()
    except Exception as error:
        return error
    raise AssertionError("it did not raise")


def mismatch():
    comm = rccl.Communicator.from_env(label="dp")
    x = np.ones(1000, np.float32 if comm.rank == 0 else np.int32)
    comm.barrier()
    error = raises(lambda: comm.all_reduce(x, "sum" if comm.rank == 0 else "max"))
    again = raises(lambda: comm.barrier())
    assert again.cause == error.cause and again.op == "barrier"
    assert str(raises(comm.check)) == str(error)
    comm.close()
    return fields(error)


def late():
    """Rank 1 comes too late for a call with a deadline."""
    comm = rccl.Communicator.from_env(timeout=30)
    comm.barrier()
    if comm.rank == 1:
        time.sleep(2)
        return fields(raises(lambda: comm.barrier()))
    began = time.monotonic()
    error = raises(lambda: comm.all_reduce(np.ones(3), timeout=0.3))
    assert time.monotonic() - began < 1.5
    return fields(error)


def late_object():
    """Rank 1 comes too late with its object."""
    comm = rccl.Communicator.from_env(timeout=30)
    comm.barrier()
    if comm.rank == 1:
        time.sleep(2)
        # What a root sends may have gone before it hears of the failure.
        return fields(raises(lambda: (comm.broadcast_object([1], 1), comm.barrier())))
    return fields(raises(lambda: comm.broadcast_object(None, 1, timeout=0.3)))


def late_in_background():
    comm = rccl.Communicator.from_env()
    comm.barrier()
    if comm.rank == 1:
        time.sleep(2)
        return fields(raises(lambda: comm.barrier()))
    return fields(raises(lambda: comm.all_reduce(np.ones(3), async_op=True, timeout=0.3).wait()))


def late_in_a_group(where):
    """Rank 1 comes too late for a group with a deadline."""
    comm = rccl.Communicator.from_env(timeout=30)
    comm.barrier()
    if comm.rank == 1:
        time.sleep(2)
        return fields(raises(lambda: comm.barrier()))
    limits = {"group": (0.3, None), "call": (None, 0.3), "both": (20, 0.3), "background": (0.3, 25)}
    of_group, of_call = limits[where]

    def call():
        with rccl.group(timeout=of_group, async_op=where == "background") as work:
            comm.all_reduce(np.ones(3), timeout=of_call)
            comm.barrier()
        assert where == "background", "it blocks"
        work.wait()

    began = time.monotonic()
    error = raises(call)
    assert time.monotonic() - began < 1.5
    comm.close()  # what broke it has been raised
    return fields(error)


def mismatch_in_a_group(async_op):
    """The second call of a group is another one on rank 1."""
    comm = rccl.Communicator.from_env(label="dp")
    x = np.ones(10_000, np.float32)
    comm.barrier()

    def call():
        with rccl.group(async_op=async_op) as work:
            comm.broadcast(x, 0)
            comm.all_reduce(x, "sum" if comm.rank == 0 else "max")
        assert async_op, "it blocks"
        work.wait()

    error = raises(call)
    assert str(raises(comm.check)) == str(error)
    comm.close()
    return fields(error)


def killed():
    """Rank 1 waits to be killed, the others for rank 1."""
    comm = rccl.Communicator.from_env()
    comm.barrier()
    reached("there")
    if comm.rank == 1:
        time.sleep(60)
    error = raises(lambda: comm.all_reduce(np.ones(100)))
    return fields(error) | {"at": time.time()}


def interrupted(kind):
    """All wait for rank 1, which sleeps; rank 0 is interrupted."""
    comm = rccl.Communicator.from_env()
    comm.barrier()
    for _ in range(3 if kind == "repeated" else 0):
        comm.all_reduce(np.ones(100))
    if comm.rank == 1:
        time.sleep(3)
        return fields(raises(lambda: comm.barrier()))
    waits = {
        "blocking": lambda: comm.all_reduce(np.ones(100)),
        "repeated": lambda: comm.all_reduce(np.ones(100)),
        "work": lambda: comm.all_reduce(np.ones(100), async_op=True).wait(),
        "split": lambda: comm.split(0),
        "group": lambda: in_group(comm),
        "group's work": lambda: in_group(comm, async_op=True),
        "stream": lambda: on_stream(comm),
    }
    reached("there")
    try:
        waits[kind]()
    except KeyboardInterrupt:
        return {"interrupted": time.time()}
    except rccl.Error as error:
        return fields(error)


def in_group(comm, async_op=False):
    with rccl.group(async_op=async_op) as work:
        comm.send(np.ones(10), 1)
        comm.recv(np.ones(10), 1)
    work.wait()


def on_stream(comm):
    from rccl import _rccl

    x, stream = np.ones(100), _rccl.Stream()
    comm._raw("all_reduce", rccl.nccl.NCCL_DOUBLE, rccl.nccl.NCCL_SUM, None, 100, x.ctypes.data, x.ctypes.data, stream)
    stream.synchronize()


def link_lost():
    """The sockets that carry data end, and the processes live."""

    def sockets():
        found = set()
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                place = os.readlink(f"/proc/self/fd/{name}")
                if place.startswith("socket:"):
                    found.add((int(name), place))
        return found

    with rccl.Communicator.from_env(label="dp", transport="tcp") as comm:
        before = sockets()
        reached("counted")
        wait_until_reached(1 - comm.rank, "counted")  # the first to call makes the link of both
        equal(comm.all_reduce(np.ones(3)), [comm.size] * 3, "before")
        links = sockets() - before
        assert links, "links are made when they are needed"
        reached("there")
        wait_until_reached(1 - comm.rank, "there")
        if comm.rank == 0:
            for descriptor, _ in links:
                with socket.socket(fileno=os.dup(descriptor)) as link:
                    link.shutdown(socket.SHUT_RDWR)
        return fields(raises(lambda: comm.all_reduce(np.ones(3))))


def ends_alone(kind):
    """Rank 0 ends while the others are stopped, and hear no goodbye."""
    comm = rccl.Communicator.from_env()
    comm.barrier()
    if comm.rank > 0:
        reached("there")
        os.kill(os.getpid(), signal.SIGSTOP)
        return
    for rank in range(1, comm.size):
        wait_until_reached(rank, "there")
    time.sleep(0.2)
    if kind == "under way":
        comm.all_reduce(np.ones(1000), async_op=True)
    atexit.register(lambda: reached("leaving"))  # the last that is registered is the first that is called


def interrupted_joining():
    reached("there")
    try:
        rccl.Communicator.from_env()
    except KeyboardInterrupt:
        return {"interrupted": time.time()}


def uncaught(guarded):
    """Rank 0 fails while the others wait for it."""
    comm = rccl.Communicator.from_env()
    comm.barrier()
    if comm.rank == 0:
        if guarded:
            with comm:
                raise FileNotFoundError("no such data")
        raise FileNotFoundError("no such data")
    return fields(raises(lambda: comm.barrier()))


def farewell(how):
    """Rank 0 ends while the others still call, without it."""
    comm = rccl.Communicator.from_env()
    rest = comm.split(None if comm.rank == 0 else 0)
    if comm.rank == 0:
        if how == "guarded":
            with comm:
                sys.exit()
        if how == "under way":
            # The call is all that is left of the communicator.
            comm.recv(np.ones(1), 1, async_op=True)
            del comm
        sys.exit()
    time.sleep(0.5)
    for _ in range(10):
        rest.barrier()
    return True


def parts():
    with rccl.Communicator.from_env() as comm:
        rank, size = comm.rank, comm.size
        part = comm.split(rank % 2, -rank)
        members = sorted((r for r in range(size) if r % 2 == rank % 2), reverse=True)
        assert (part.rank, part.size) == (members.index(rank), len(members))
        equal(part.all_gather(np.array([rank])), [[r] for r in members], "split")
        assert (comm.split(None if rank == 0 else 5) is None) == (rank == 0)
        twin = comm.duplicate()
        assert (twin.rank, twin.size) == (rank, size)
        twin.barrier()
        # One rank more, which is the first process's second.
        meeting = comm.broadcast_object(comm.unique_id() if rank == 0 else None)
        joined = []
        newcomer = threading.Thread(target=lambda: joined.append(rccl.Communicator.connect(meeting, size, size + 1)))
        if rank == 0:
            newcomer.start()
        grown = comm.grow(size + 1, meeting if rank == 0 else None)
        assert (grown.rank, grown.size) == (rank, size + 1)
        if rank == 0:
            newcomer.join(30)
            other = joined.pop()
            last = other.all_gather(np.array([size]), async_op=True)
        equal(grown.all_gather(np.array([rank])), [[r] for r in range(size + 1)], "growth")
        if rank == 0:
            last.wait()
            other.close()
        grown.close()
        if rank > 0:
            rest = comm.shrink([0])
            assert (rest.rank, rest.size) == (rank - 1, size - 1)
            rest.barrier()
        assert comm.local_rank == rank
        sent = {"an": ["object", None], "of": rank} if rank == 1 else None
        assert comm.broadcast_object(sent, 1) == {"an": ["object", None], "of": 1}
        assert comm.broadcast_object(b"", 0, timeout=30) == b""
        works = [comm.broadcast_object([rank, n, "x" * n * 1000], n % size, async_op=True) for n in range(20)]
        after = comm.all_reduce(np.ones(3), async_op=True)
        for n, work in reversed(list(enumerate(works))):
            assert work.wait() == [n % size, n, "x" * n * 1000] and work.wait() is work.wait()
        equal(after.wait(), [size] * 3, "behind objects")

        async def program():
            return await comm.broadcast_object(sent, 1, async_op=True)

        assert asyncio.run(program()) == {"an": ["object", None], "of": 1}
        work = comm.broadcast_object(Unloadable(), 0, async_op=True)
        if rank > 0:
            assert [str(raises(work.wait)) for _ in range(2)] == ["it does not load"] * 2
        return True


def kinds():
    """Every kind of array, as what is read, written, and made."""
    with rccl.Communicator.from_env() as comm:
        size = comm.size
        plain = array.array("d", [1, 2, 3])
        assert comm.all_reduce(plain) is plain and list(plain) == [size, 2 * size, 3 * size]
        data = bytearray(b"\x01\x02")
        comm.all_reduce(data)
        assert data == bytes([size, 2 * size])
        data.append(1)  # nothing holds it any more
        work = comm.all_reduce(data, async_op=True)
        try:
            data.append(1)
            assert work.done(), "it is held while the call is under way"
        except BufferError:
            pass
        work.wait()
        view = memoryview(bytearray(8)).cast("I")
        view[0], view[1] = 3, 4
        comm.all_reduce(view)
        assert view.tolist() == [3 * size, 4 * size]
        equal(comm.all_gather(b"\x07"), [[7]] * size, "bytes are read")
        equal(comm.all_reduce(Packed(np.ones(3)), out=np.zeros(3)), [size] * 3, "DLPack")
        packed = Packed(np.ones(3))
        comm.all_reduce(packed)
        equal(packed.array, [size] * 3, "DLPack in place")
        for dtype in DTYPES:
            memory = comm.empty((2, 3), dtype)
            assert memory.shape == (2, 3) and memory.dtype == dtype and not memory.astype(float).any()
            memory[:] = 1
            comm.all_reduce(memory)
            equal(memory, np.full((2, 3), size), "registered memory")
        assert comm.empty(0).size == 0 and comm.empty(4).dtype == np.float32 and comm.empty((), "int8").shape == ()
        kept = comm.empty(5, np.float64)
        del memory
    kept[:] = 1  # memory outlives its communicator
    return kept.sum()


class Packed:
    """An array that is known by DLPack alone."""

    def __init__(self, array, device=(1, 0), versioned=True):
        self.array, self.device, self.versioned = array, device, versioned

    def __dlpack_device__(self):
        return self.device

    def __dlpack__(self, **arguments):
        if not self.versioned and arguments:
            raise TypeError("no arguments")
        return self.array.__dlpack__(**arguments)


def tensors():
    import torch

    with rccl.Communicator.from_env() as comm:
        size = comm.size
        for dtype in (torch.int8, torch.uint8, torch.int32, torch.int64, torch.float16, torch.bfloat16, torch.float32,
                      torch.float64, torch.float8_e4m3fn, torch.float8_e5m2):  # fmt: skip
            x = torch.ones(5).to(dtype)
            assert comm.all_reduce(x) is x
            assert x.to(torch.float64).eq(size).all(), dtype
            gathered = comm.all_gather(x)
            assert gathered.shape == (size, 5) and gathered.dtype == dtype
        for dtype in (torch.bool, torch.int16, torch.uint16, torch.complex64, torch.complex128):
            x = torch.tensor([comm.rank, 1, 0]).to(dtype)
            gathered = comm.all_gather(x)
            expected = torch.tensor([[rank, 1, 0] for rank in range(size)]).to(dtype)
            assert gathered.dtype == dtype and torch.equal(gathered, expected), gathered
            assert torch.equal(comm.broadcast(x, 1), expected[1])
        conjugated = torch.ones(3, dtype=torch.complex64).conj()
        wrong = {
            "sparse": torch.eye(3).to_sparse(),
            "complex64": torch.ones(3, dtype=torch.complex64),
            "bool": torch.ones(3, dtype=torch.bool),
            "meta": torch.ones(3, device="meta"),
            "contiguous": torch.ones(3, 4).t(),
            "negated": torch._neg_view(torch.ones(3)),
        }
        errors = {word: raises(lambda x=x: comm.all_reduce(x)) for word, x in wrong.items()}
        errors["conjugated"] = raises(lambda: comm.broadcast(conjugated))
        errors["qint8"] = raises(lambda: comm.broadcast(torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)))
        return {word: [str(error), isinstance(error, (TypeError, ValueError))] for word, error in errors.items()}


def low_level_communicator():
    from rccl import nccl

    place = Path(os.environ["RCCL_COMM_ID"].removeprefix("file://") + ".id")
    rank, size = int(os.environ["RCCL_RANK"]), int(os.environ["RCCL_SIZE"])
    if rank == 0:
        place.with_suffix(".new").write_text(json.dumps(nccl.get_unique_id()))
        place.with_suffix(".new").rename(place)
    until = time.monotonic() + 30
    while not place.exists() and time.monotonic() < until:
        time.sleep(0.01)
    return nccl, nccl.NcclCommunicator(size, tuple(json.loads(place.read_text())), rank), rank, size


def low_level():
    nccl, comm, rank, size = low_level_communicator()
    assert (comm.rank_id(), comm.size()) == (rank, size) and nccl.get_version() > 22900
    x, out = np.full(4, rank + 1, np.float32), np.zeros(4, np.float32)
    total = sum(range(1, size + 1))
    address = lambda array: array.ctypes.data
    comm.allReduce(address(x), address(out), 4, nccl.NCCL_FLOAT, nccl.NCCL_SUM)
    equal(out, [total] * 4, "allReduce")
    out[:] = 0
    comm.reduce(address(x), address(out), 4, nccl.NCCL_FLOAT, nccl.NCCL_MAX, 1, 0)
    equal(out, [size if rank == 1 else 0] * 4, "reduce")
    comm.broadcast(address(x), address(out), 4, nccl.NCCL_FLOAT, 1)
    equal(out, [2] * 4, "broadcast")
    comm.bcast(address(out), 4, nccl.NCCL_FLOAT, 0)
    all_ = np.zeros((size, 4), np.float32)
    comm.allGather(address(x), address(all_), 4, nccl.NCCL_FLOAT)
    equal(all_, [[r + 1] * 4 for r in range(size)], "allGather")
    comm.reduceScatter(address(all_), address(out), 4, nccl.NCCL_FLOAT, nccl.NCCL_SUM)
    equal(out, [(rank + 1) * size] * 4, "reduceScatter")
    nccl.groupStart()
    comm.send(address(x), 4, nccl.NCCL_FLOAT, (rank + 1) % size)
    comm.recv(address(out), 4, nccl.NCCL_FLOAT, (rank - 1) % size)
    nccl.groupEnd()
    equal(out, [(rank - 1) % size + 1] * 4, "send and recv")
    comm.check_async_error()
    errors = [
        raises(lambda: comm.allReduce(address(x), address(out), 4, 99, nccl.NCCL_SUM)),
        raises(lambda: comm.allReduce(address(x), address(out), 4, nccl.NCCL_FLOAT, 99)),
        raises(lambda: comm.allReduce(0, address(out), 4, nccl.NCCL_FLOAT, nccl.NCCL_SUM)),
        raises(lambda: comm.bcast(address(x), 4, nccl.NCCL_FLOAT, 99)),
        raises(lambda: comm.bcast(address(x), 2**62, nccl.NCCL_FLOAT, 0)),
    ]
    assert [error.status for error in errors] == [4] * 5, errors
    comm.destroy()
    return [str(error) for error in errors]


def streams():
    """Calls of the low level on streams."""
    nccl, comm, rank, size = low_level_communicator()
    address = lambda array: array.ctypes.data
    stream, other = nccl.Stream(), nccl.Stream()
    assert stream.done and stream.ptr and stream.ptr != other.ptr
    stream.synchronize()
    x, sums, all_ = np.full(4, rank + 1, np.float32), np.zeros(4, np.float32), np.zeros((size, 4), np.float32)
    if rank == 1:
        wait_until_reached(0, "alone")
    comm.allReduce(address(x), address(sums), 4, nccl.NCCL_FLOAT, nccl.NCCL_SUM, stream.ptr)
    other.wait_stream(stream)
    comm.allGather(address(sums), address(all_), 4, nccl.NCCL_FLOAT, other.ptr)
    if rank == 0:
        assert not stream.done and not other.done, "it blocked"
        error = raises(lambda: stream.synchronize(0.05))
        assert error.status == 8 and "0.05" in str(error), error
        reached("alone")
    other.synchronize()
    assert stream.done and other.done
    equal(all_, [[sum(range(1, size + 1))] * 4] * size, "on streams")
    if rank == 1:
        wait_until_reached(0, "grouped")
    nccl.groupStart()
    comm.send(address(x), 4, nccl.NCCL_FLOAT, (rank + 1) % size, stream.ptr)
    comm.recv(address(sums), 4, nccl.NCCL_FLOAT, (rank - 1) % size, stream.ptr)
    assert stream.done, "nothing is made before the group ends"
    nccl.groupEnd()
    if rank == 0:
        assert not stream.done, "the end of the group blocked"
        reached("grouped")
    stream.synchronize(30)
    equal(sums, [(rank - 1) % size + 1] * 4, "in a group")
    nccl.groupStart()
    comm.bcast(address(sums), 4, nccl.NCCL_FLOAT, 0, stream.ptr)
    comm.bcast(address(x), 4, nccl.NCCL_FLOAT, 0)
    nccl.groupEnd()
    assert stream.done, "a call on no stream has the group's end wait"
    equal(x, [1] * 4, "without a stream")
    gone = other.ptr
    del other
    for wrong in (1, 2, 12345, -1, 2**63, stream.ptr + 1000, address(x), gone, "stream", 0.5, True):
        error = raises(lambda wrong=wrong: comm.bcast(address(x), 4, nccl.NCCL_FLOAT, 0, wrong))
        assert isinstance(error, nccl.NcclError) and error.status == 4 and f"stream {wrong!r}" in str(error), error
    for says, wrong in (
        (f"stream {gone}", lambda: comm.bcast(address(x), 4, nccl.NCCL_FLOAT, 0, gone)),
        ("99", lambda: comm.bcast(address(x), 4, 99, 0)),
        ("send: ", lambda: comm.send(address(x), 4, nccl.NCCL_FLOAT, -1)),
        ("send: ", lambda: comm.send(address(x), 2**70, nccl.NCCL_FLOAT, 0)),
        ("out of range", lambda: comm.allReduce(address(x), address(x), 4, nccl.NCCL_FLOAT, 256)),
    ):
        nccl.groupStart()
        comm.recv(address(x), 4, nccl.NCCL_FLOAT, (rank + 1) % size)  # nobody sends it
        refused = raises(wrong)
        assert isinstance(refused, nccl.NcclError) and refused.status == 4 and says in str(refused), refused
        error = raises(nccl.groupEnd)
        assert error.status == 4 and "nothing of it was made: " in str(error) and says in str(error), error
    assert isinstance(raises(lambda: pickle.dumps(stream)), TypeError)
    comm.allReduce(address(x), address(sums), 4, nccl.NCCL_FLOAT, nccl.NCCL_SUM, None)
    comm.allReduce(address(x), address(sums), 4, nccl.NCCL_FLOAT, nccl.NCCL_SUM if rank else nccl.NCCL_MAX, stream.ptr)
    error = raises(stream.synchronize)
    assert error.status == 5 and str(error) == f"NCCL_INVALID_USAGE: {error.__cause__}", error
    stream.synchronize()  # it was told
    assert raises(comm.check_async_error).status == 5
    comm.destroy()
    return fields(error.__cause__)


def forked():
    comm = rccl.Communicator.from_env()
    child = os.fork()
    if child == 0:
        error = raises(lambda: comm.barrier())
        os._exit(0 if error.code == "RCCL-1005" and error.hint == "create a communicator after fork" else 1)
    _, status = os.waitpid(child, 0)
    comm.barrier()
    comm.close()
    return status


if __name__ == "__main__":
    answer = globals()[sys.argv[2]](*json.loads(sys.argv[3]))
    Path(sys.argv[1] + ".new").write_text(json.dumps(answer))
    Path(sys.argv[1] + ".new").rename(sys.argv[1])
