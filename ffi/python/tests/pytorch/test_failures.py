"""What goes wrong is told in the exception, in the library's own words."""

import datetime
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import ranks
import torch
import torch.distributed as dist

DistBackendError = dist.DistBackendError
AllgatherOptions = torch._C._distributed_c10d.AllgatherOptions
AllToAllOptions = torch._C._distributed_c10d.AllToAllOptions


def mismatches(rank, size):
    group = dist.new_group()
    calls = [
        lambda: dist.all_reduce(torch.ones(10), group=group),
        lambda: dist.all_reduce(torch.ones(11), group=group),
    ]
    said = ranks.text_of(calls[rank], DistBackendError)
    for words in ("rccl all_reduce", "RCCL-2001", "mismatch at op #1", "rank 0 all_reduce f32 x10 sum", "rank 1 all_reduce f32 x11 sum"):
        assert words in said, said
    # The same again, from the work and its future, which both know it.
    work = dist.all_reduce(torch.ones(1), group=group, async_op=True)
    future = work.get_future()
    assert "mismatch" in ranks.text_of(work.wait, DistBackendError)
    assert "mismatch" in ranks.text_of(future.wait)
    assert not work.is_success() and work.is_completed()
    # And from several calls as one work.
    group = dist.new_group()
    cpu = torch.device("cpu")
    group._start_coalescing(cpu)
    dist.all_reduce(torch.ones(2), group=group, async_op=True)
    dist.all_reduce(torch.ones(3 + rank), group=group, async_op=True)
    work = group._end_coalescing(cpu)
    future = work.get_future()
    assert "mismatch" in ranks.text_of(work.wait, DistBackendError)
    assert "mismatch" in ranks.text_of(future.wait)
    assert not work.is_success() and work.is_completed()
    # Other groups are as good as before.
    x = torch.ones(1)
    dist.all_reduce(x)
    assert x.item() == size


def time_outs(rank, size):
    group = dist.new_group(timeout=datetime.timedelta(seconds=1))
    dist.barrier(group)
    if rank == 0:
        began = time.monotonic()
        said = ranks.text_of(lambda: dist.all_reduce(torch.ones(1), group=group), DistBackendError)
        took = time.monotonic() - began
        assert " timeout " in said and "RCCL-2003" in said and "rank 1" in said, said
        assert 0.9 < took < 8, took
        # A deadline of one call only, shorter than the group's.
        other = dist.new_group()
        options = dist.AllreduceOptions()
        options.timeout = datetime.timedelta(seconds=0.3)
        began = time.monotonic()
        said = ranks.text_of(other.allreduce([torch.ones(1)], options).wait, DistBackendError)
        assert " timeout " in said and time.monotonic() - began < 8, said
        # Of messages, which leave nothing broken behind.
        third, fourth = (dist.new_group(timeout=datetime.timedelta(seconds=0.5)) for _ in range(2))
        for source in (1, None):
            began = time.monotonic()
            said = ranks.text_of(lambda: dist.recv(torch.ones(1), source, group=third), DistBackendError)
            assert " timeout " in said and "no message with tag 0" in said, said
            assert 0.4 < time.monotonic() - began < 8
        work = dist.irecv(torch.ones(1), 1, group=third)
        assert " timeout " in ranks.text_of(work.get_future().wait)
        # One too long to be sent before it is received.
        began = time.monotonic()
        said = ranks.text_of(lambda: dist.send(torch.ones(1 << 22), 1, group=fourth), DistBackendError)
        assert " timeout " in said and time.monotonic() - began < 8, said
    else:
        dist.new_group()
        third = dist.new_group(timeout=datetime.timedelta(seconds=0.5))
        dist.new_group(timeout=datetime.timedelta(seconds=0.5))
    dist.barrier()
    x = torch.full((1,), float(rank))
    if rank == 1:
        dist.send(x, 0, group=third)
    else:
        dist.recv(x, 1, group=third)
        assert x.item() == 1.0


def a_death(rank, size):
    dist.barrier()
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    began = time.monotonic()
    said = ranks.text_of(lambda: dist.all_reduce(torch.ones(1)), DistBackendError)
    assert "rank 1" in said and "pid" in said and "RCCL-2002" in said, said
    assert time.monotonic() - began < 5
    # Of a message that it would have sent, and of one of anybody's.
    said = ranks.text_of(lambda: dist.recv(torch.ones(1), 1), DistBackendError)
    assert "rank 1" in said, said
    said = ranks.text_of(lambda: dist.recv(torch.ones(1)), DistBackendError)
    assert "rank 1" in said, said
    assert time.monotonic() - began < 10


def an_abort(rank, size):
    group = dist.new_group()
    dist.barrier(group)
    dist.barrier()
    backend = group._get_backend(torch.device("cpu"))
    if rank == 0:
        work = dist.all_reduce(torch.ones(1), group=group, async_op=True)
        message = dist.irecv(torch.ones(1), 1, group=group)
        backend.abort()
        assert "abort" in ranks.text_of(work.wait, DistBackendError).lower()
        assert "abort" in ranks.text_of(message.wait, DistBackendError).lower()
    dist.barrier()
    if rank == 1:
        said = ranks.text_of(lambda: dist.barrier(group), DistBackendError)
        assert "rank 0" in said and "abort" in said.lower(), said


def an_interrupt(rank, size, kind):
    group = dist.new_group()

    def all_reduce(x, **options):
        return dist.all_reduce(x, group=group, **options)

    def left():
        all_reduce(torch.ones(1), async_op=True)
        dist.destroy_process_group(group)

    all_reduce(torch.ones(3).to_sparse())
    dist.barrier()
    dense, send = lambda: all_reduce(torch.ones(1)), lambda: dist.send(torch.ones(1), 0, group=group)
    sparse, barrier = lambda: all_reduce(torch.ones(3).to_sparse()), lambda: group.monitored_barrier()
    interrupted, told = {
        "collective": (dense, dense),
        "work": (lambda: all_reduce(torch.ones(1), async_op=True).wait(), dense),
        "sparse": (sparse, sparse),
        "message": (lambda: dist.recv(torch.ones(1), 1, group=group), send),
        "of any rank": (lambda: dist.recv(torch.ones(1), group=group), send),
        "monitored barrier": (barrier, barrier),
        "shutdown": (left, dense),
    }[kind]
    if rank == 0:
        sent = []
        threading.Timer(0.5, lambda: (sent.append(time.monotonic()), os.kill(os.getpid(), signal.SIGINT))).start()
        try:
            interrupted()
        except KeyboardInterrupt:
            assert time.monotonic() - sent[0] < 0.5
        else:
            raise AssertionError("it raised nothing")
    else:
        if rank == 1:
            time.sleep(3)
        if told is not send or rank == 1:
            said = ranks.text_of(told, DistBackendError)
            assert "rank 0" in said and "KeyboardInterrupt (Ctrl-C)" in said, said
    # Other groups are as good as before.
    dist.barrier()
    if kind == "sparse":
        dist.barrier(group)


def shut_down(rank, size):
    group = dist.new_group()
    x = torch.ones(1000)
    work = dist.all_reduce(x, group=group, async_op=True)
    backend = group._get_backend(torch.device("cpu"))
    dist.destroy_process_group(group)
    work.wait()
    assert bool((x == size).all())
    said = ranks.text_of(lambda: backend.barrier().wait(), DistBackendError)
    assert "shut down" in said, said
    dist.barrier()


def bad_arguments(rank, size):
    group = dist.distributed_c10d._get_default_group()
    backend = group._get_backend(torch.device("cpu"))
    x = torch.ones(4)
    for call, words in [
        (lambda: backend.allreduce([x.to("meta")]), "on meta"),
        (lambda: backend.allreduce([x, x]), "one tensor is needed, not 2"),
        (lambda: backend.broadcast([x.to_sparse()], dist.BroadcastOptions()), "dense"),
        (lambda: backend.allgather([[torch.ones(3), torch.ones(3)]], [x], AllgatherOptions()), "input has 4"),
        (lambda: backend.allgather([[x, x.int()]], [x], AllgatherOptions()), "one type"),
        (lambda: backend._allgather_base(torch.ones(7), x, AllgatherOptions()), "output has 7"),
        (lambda: backend.alltoall_base(torch.ones(4), x, [1, 2], [2, 2], AllToAllOptions()), "splits"),
    ]:
        said = ranks.text_of(call)
        assert words in said and "rccl" in said, said
    options = dist.BroadcastOptions()
    options.rootRank = 5
    assert "rank 5 is no root" in ranks.text_of(lambda: backend.broadcast([x], options))
    # Input and output overlap.
    whole = torch.ones(12)
    said = ranks.text_of(lambda: backend._allgather_base(whole[:8], whole[5:9], AllgatherOptions()))
    assert "overlap" in said, said
    dist.all_reduce(x)
    assert x.tolist() == [size] * 4


def monitored(rank, size):
    # Some older torch.distributed.monitored_barrier wants a group that is called gloo.
    group = dist.distributed_c10d._get_default_group()
    group.monitored_barrier()
    second = datetime.timedelta(seconds=1)
    if rank == 0:
        said = ranks.text_of(lambda: group.monitored_barrier(second, wait_all_ranks=True))
        assert "Ranks 1, 2 failed to pass monitoredBarrier in 1000 ms" in said, said
    dist.barrier()
    if rank != 1:
        said = ranks.text_of(lambda: group.monitored_barrier(second))
        assert ("Rank 1 failed to pass" if rank == 0 else "Rank 2 successfully reached") in said, said
    dist.barrier()


def a_fork(rank, size):
    """A child has nothing of the group but its name; the parent is not disturbed."""
    x = torch.ones(4)
    dist.all_reduce(x)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            dist.all_reduce(x)
            os.write(writer, b"it raised nothing")
        except RuntimeError as error:
            os.write(writer, str(error).encode())
        os._exit(0)
    os.waitpid(child, 0)
    said = os.read(reader, 4000).decode()
    assert "rccl all_reduce" in said and f"is its child {child}" in said, said
    dist.all_reduce(x)
    assert x.tolist() == [float(size * size)] * 4


def test_mismatches():
    ranks.run(2, mismatches)


def test_time_outs():
    ranks.run(2, time_outs)


def test_a_death():
    ranks.run(3, a_death, dies=(1,))


def test_an_abort():
    ranks.run(2, an_abort)


KINDS = ["collective", "work", "sparse", "message", "of any rank", "monitored barrier", "shutdown"]


@pytest.mark.parametrize("kind", KINDS)
def test_ctrl_c_raises_at_once_and_is_what_the_others_are_told(kind):
    ranks.run(3, an_interrupt, kind)


def programs(tmp_path, code, ranks=(0, 1)):
    """Ranks of two, in interpreters of their own."""
    code = f"""
import sys, time
import torch
import torch.distributed as dist
rank = int(sys.argv[2])
def join():
    dist.init_process_group("rccl", init_method=sys.argv[1], rank=rank, world_size=2)
{code}
"""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    program = [sys.executable, "-c", code, f"file://{tmp_path}/store"]
    return [subprocess.Popen([*program, str(rank)], text=True, **streams) for rank in ranks]


def ended(processes):
    """What each has said on its standard output and error."""
    try:
        return [process.communicate(timeout=60) for process in processes]
    finally:
        [process.kill() for process in processes]


def test_an_exception_that_ends_a_rank_is_the_first_cause(tmp_path):
    code = """
join()
dist.barrier()
if rank == 0:
    raise FileNotFoundError("no such data")
dist.all_reduce(torch.ones(1))
"""
    said = ended(programs(tmp_path, code))[1][1]
    assert "rank 0" in said and "FileNotFoundError: no such data" in said, said


# Rank 0 waits for the other one, and rank 1 for what rank 0 puts into the store.
@pytest.mark.parametrize("rank", [0, 1])
def test_ctrl_c_while_joining(tmp_path, rank):
    code = """
import rccl.torch.build
rccl.torch.build.load()
print("there", flush=True)
try:
    join()
except KeyboardInterrupt:
    print(time.monotonic(), flush=True)
"""
    [process] = programs(tmp_path, code, [rank])
    try:
        assert process.stdout.readline() == "there\n", process.stderr.read()
        time.sleep(1.5)
        sent = time.monotonic()
        process.send_signal(signal.SIGINT)
    finally:
        threading.Timer(60, process.kill).start()
        [(said, wrong)] = ended([process])
    assert process.returncode == 0 and float(said) - sent < 0.5, said + wrong


def test_a_rank_0_that_never_comes(tmp_path):
    code = """
import datetime
second = datetime.timedelta(seconds=1)
dist.init_process_group("rccl", init_method=sys.argv[1], rank=rank, world_size=2, timeout=second)
"""
    [(_, wrong)] = ended(programs(tmp_path, code, [1]))
    assert "rank 0 of the group has put no id into the store within the timeout of 1000 ms" in wrong, wrong


@pytest.mark.parametrize("last", ["", "dist.all_reduce(torch.ones(1), async_op=True)"])
def test_programs_may_end_without_leaving(tmp_path, last):
    processes = programs(tmp_path, f"join()\ndist.all_reduce(torch.ones(1))\n{last}")
    said = ended(processes)
    assert [process.returncode for process in processes] == [0, 0], said
    assert all("Traceback" not in wrong and "ERROR" not in wrong for _, wrong in said), said


def test_shutting_down_ends_what_was_begun():
    ranks.run(2, shut_down)


def test_a_fork():
    ranks.run(2, a_fork)


def test_bad_arguments():
    ranks.run(2, bad_arguments)


def test_monitored_barriers():
    ranks.run(3, monitored)
