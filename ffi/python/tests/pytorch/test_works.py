"""Works and futures: calls return at once, and their ends are told."""

import datetime
import threading
import time
import weakref
from pathlib import Path

import ranks
import torch
import torch.distributed as dist

LATE = 0.2


def at_once(rank, size):
    if rank == 1:
        time.sleep(LATE)
    xs = [torch.full((1000,), float(rank + number)) for number in range(10)]
    began = time.monotonic()
    works = [dist.all_reduce(x, async_op=True) for x in xs]
    assert time.monotonic() - began < LATE / 2
    if rank == 0:
        assert not works[0].is_completed() and not works[-1].is_completed()
    # The last first: the order of waiting is free.
    for number, (x, work) in reversed(list(enumerate(zip(xs, works)))):
        work.wait()
        assert work.is_completed() and work.is_success()
        assert bool((x == sum(other + number for other in range(size))).all())
    # Nobody waits, and somebody asks.
    work = dist.all_reduce(xs[0], async_op=True)
    end = time.monotonic() + 20
    while not work.is_completed():
        assert time.monotonic() < end
    # Nobody does either, and nobody keeps the tensor.
    for _ in range(100):
        dist.all_reduce(torch.ones(10_000), async_op=True)
    dist.barrier()


def seen_by_profilers(rank, size):
    """An event lasts from the call to its end, though nobody waits for it then."""
    x, y = torch.ones(3, 4), torch.ones(2, size, 5)
    with torch.profiler.profile(record_shapes=True) as profiler:
        dist.barrier()  # one rank's profiler may take longer to begin
        if rank == 1:
            time.sleep(LATE)
        work = dist.all_reduce(x, async_op=True)
        outputs = [torch.empty_like(y) for _ in range(size)]
        dist.all_gather(outputs, y)
        time.sleep(2 * LATE)
        work.wait()
    events = {event.name: event for event in profiler.events() if event.name.startswith("rccl:")}
    assert set(events) == {"rccl:barrier", "rccl:all_reduce", "rccl:all_gather"}
    reduced = events["rccl:all_reduce"]
    assert reduced.is_async and reduced.input_shapes == [[3, 4]]
    assert events["rccl:all_gather"].input_shapes == [[2, size, 5]]
    lasted = reduced.time_range.elapsed_us() / 1e6
    assert LATE / 2 < lasted < 2 * LATE if rank == 0 else lasted < 2 * LATE, lasted


def nothing_is_kept(rank, size):
    """Tensors are let go of when somebody has waited for their call, though the group makes no other call."""
    peer = 1 - rank

    def by_all(x):
        assert dist.all_reduce(x) is None

    def by_all_later(x):
        dist.all_reduce(x, async_op=True).wait()

    def by_future(x):
        dist.all_reduce(x, async_op=True).get_future().wait()

    def sent(x):
        for work in [dist.irecv(x, peer), dist.isend(torch.ones(50_000), peer)]:
            work.wait()

    for call in (by_all, by_all_later, by_future, sent):
        x = torch.ones(50_000)
        alive = weakref.ref(x)
        call(x)
        del x
        end = time.monotonic() + 20
        while alive() is not None:
            # A future is completed on another thread, which may be about to let go.
            assert call is by_future and time.monotonic() < end, f"{call.__name__} keeps its tensor"
            time.sleep(0.001)
    # Nobody waits: later calls let go, also of what ended behind one that has not.
    late = dist.irecv(torch.ones(1), peer, tag=1)

    def exchange():
        x = torch.ones(10)
        work = dist.irecv(x, peer)
        dist.isend(torch.ones(10), peer).wait()
        return weakref.ref(x), work

    alive = [exchange()[0] for _ in range(100)]
    exchange()[1].wait()  # so all before have ended
    for _ in range(200):
        exchange()
    assert not any(there() is not None for there in alive)
    dist.isend(torch.ones(1), peer, tag=1).wait()
    late.wait()


def of_one_only(rank, size):
    """A wait waits for its own call, not for those behind it."""
    x, y = torch.ones(100), torch.ones(100)
    first = dist.all_reduce(x, async_op=True)
    if rank == 0:
        second = dist.all_reduce(y, async_op=True)
        first.wait()
        dist.send(torch.ones(1), 1)
    else:
        first.wait()
        dist.recv(torch.ones(1), 0)
        second = dist.all_reduce(y, async_op=True)
    second.wait()
    assert x.tolist() == y.tolist() == [2.0] * 100


def futures(rank, size):
    outs = [torch.zeros(3) for _ in range(size)]
    # Before the end, after it, and with nobody waiting for the work.
    work = dist.all_gather(outs, torch.full((3,), float(rank)), async_op=True)
    future = work.get_future()
    value = future.wait()
    assert [t.tolist() for t in value] == [[float(other)] * 3 for other in range(size)]
    assert [t.tolist() for t in outs] == [[float(other)] * 3 for other in range(size)]
    assert work.is_completed() and future.done()
    x = torch.ones(3)
    work = dist.all_reduce(x, async_op=True)
    work.wait()
    assert work.get_future().done() and work.get_future().wait()[0] is not None
    assert work.result()[0].tolist() == [size] * 3
    # What is to happen then, on a thread that may make calls of its own.
    called, seen = threading.Event(), []

    def then(future):
        seen.append(future.value()[0].clone())
        other = torch.full((2,), 3.0)
        seen.append(dist.all_reduce(other, async_op=True))
        seen.append(other)
        called.set()
        return 7

    x = torch.ones(3)
    chained = dist.all_reduce(x, async_op=True).get_future().then(then)
    assert called.wait(20) and chained.wait() == 7
    seen[1].wait()
    assert seen[0].tolist() == [size] * 3 and seen[2].tolist() == [3.0 * size] * 2


def patience(rank, size):
    """A wait that is given a time gives up after it; the call goes on."""
    if rank == 1:
        time.sleep(LATE)
    x = torch.ones(3)
    work = dist.all_reduce(x, async_op=True)
    if rank == 0:
        said = ranks.text_of(lambda: work.wait(datetime.timedelta(seconds=LATE / 8)))
        assert " timeout " in said and "goes on" in said, said
    work.wait()
    assert x.tolist() == [size] * 3
    if rank == 0:
        y = torch.zeros(1)
        work = dist.irecv(y, 1)
        assert " timeout " in ranks.text_of(lambda: work.wait(datetime.timedelta(seconds=LATE / 8)))
        dist.barrier()
        work.wait()
        assert y.item() == 4.0
    else:
        dist.barrier()
        dist.send(torch.tensor([4.0]), 0)


def from_threads(rank, size):
    """Threads that share a process group in an order that is the same on all ranks, each with one of its own."""
    groups = [dist.new_group() for _ in range(3)]
    wrong = []

    def work(group, number):
        try:
            for _ in range(50):
                x = torch.full((number * 1000 + 1,), 1.0)
                dist.all_reduce(x, group=group)
                assert bool((x == size).all())
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(group, number)) for number, group in enumerate(groups)]
    [thread.start() for thread in threads]
    [thread.join(60) for thread in threads]
    assert not wrong and not any(thread.is_alive() for thread in threads), wrong


def numbers(rank, size):
    group = dist.distributed_c10d._get_default_group()._get_backend(torch.device("cpu"))
    before = group._get_sequence_number_for_group()
    for _ in range(3):
        dist.all_reduce(torch.ones(1))
    dist.barrier()
    assert group._get_sequence_number_for_group() == before + 4


def mapped_of(address):
    """What is mapped there."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        begin, end = (int(part, 16) for part in line.split(" ", 1)[0].split("-"))
        if begin <= address < end:
            return line[73:]
    return ""


def registered_memory(rank, size):
    group = dist.distributed_c10d._get_default_group()
    backend = group._get_backend(torch.device("cpu"))
    assert backend.supports_tensor_alloc(torch.device("cpu"))
    for dtype in (torch.float32, torch.bfloat16, torch.int64):
        x = backend.allocate_tensor(1000, dtype=dtype, device=torch.device("cpu"))
        assert x.dtype == dtype and x.shape == (1000,)
        assert mapped_of(x.data_ptr()).startswith("/memfd:rccl"), "memory that other ranks can map"
        x.fill_(rank + 1)
        dist.all_reduce(x)
        assert bool((x == sum(range(1, size + 1))).all())
        view = x[10:20]
        del x
        assert bool((view == view[0]).all())


def memory_of_fsdp(rank, size):
    from torch.distributed.fsdp import fully_shard

    backend = dist.distributed_c10d._get_default_group()._get_backend(torch.device("cpu"))
    kind, sizes = type(backend), []
    allocate = kind.allocate_tensor

    def counted(self, size, **options):
        sizes.append(size)
        return allocate(self, size, **options)

    kind.allocate_tensor = counted
    layer = fully_shard(torch.nn.Linear(64, 32))
    layer.set_allocate_memory_from_process_group_for_comm(True)
    layer(torch.ones(4, 64)).sum().backward()
    return sizes


def test_fsdp_takes_registered_memory():
    for sizes in ranks.run(2, memory_of_fsdp).values():
        # What is gathered, and what is reduced: the weights and biases of all ranks, the bias's rows rounded up.
        assert len(sizes) >= 2 and min(sizes) >= (64 * 32 + 32) // 2, sizes


def the_timeout_of_a_group(rank, size):
    group = dist.distributed_c10d._get_default_group()
    backend = group._get_backend(torch.device("cpu"))
    if not hasattr(backend, "_set_default_timeout"):
        return
    backend._set_default_timeout(datetime.timedelta(milliseconds=300))
    if rank == 0:
        began = time.monotonic()
        try:
            dist.all_reduce(torch.ones(1))
        except RuntimeError as error:
            assert "timed out" in str(error), error
            assert 0.25 < time.monotonic() - began < 20
        else:
            raise AssertionError("nobody else came")


def test_a_group_has_the_timeout_that_it_was_given():
    ranks.run(2, the_timeout_of_a_group)


def test_calls_return_at_once():
    ranks.run(2, at_once)


def test_a_wait_is_for_one_call():
    ranks.run(2, of_one_only)


def test_futures():
    ranks.run(2, futures)
    ranks.run(3, futures)


def test_waits_with_a_time():
    ranks.run(2, patience)


def test_threads_with_groups_of_their_own():
    ranks.run(2, from_threads)


def test_sequence_numbers():
    ranks.run(2, numbers)


def test_nothing_is_kept():
    ranks.run(2, nothing_is_kept)


def test_registered_memory():
    ranks.run(2, registered_memory)


def test_profilers_see_calls_to_their_end():
    ranks.run(2, seen_by_profilers)
