"""Groups of some ranks of another, which it makes itself: ``Backend::split``."""

import datetime
import time

import pytest
import ranks
import torch
import torch.distributed as dist

if not hasattr(dist.ProcessGroup, "split_group"):
    pytest.skip("process groups split since torch 2.9", allow_module_level=True)

DistBackendError = dist.DistBackendError
RELEASE = tuple(map(int, torch.__version__.split(".")[:2]))


def seconds(number):
    return datetime.timedelta(seconds=number)


def world():
    return dist.distributed_c10d._get_default_group()


def cpu(group):
    return group._get_backend(torch.device("cpu"))


def work_in(group, members):
    """Every kind of call in ``group``, whose ranks are ``members`` of the world, in this order."""
    me, size = members.index(dist.get_rank()), len(members)
    assert (group.rank(), group.size()) == (me, size)
    assert cpu(group).name() == "rccl" and (cpu(group).rank(), cpu(group).size()) == (me, size)
    x = torch.full((1000,), float(dist.get_rank()))
    group.allreduce(x).wait()
    assert bool((x == sum(members)).all()), (members, x)
    outs = [torch.zeros(1) for _ in members]
    group.allgather(outs, torch.tensor([float(dist.get_rank())])).wait()
    assert torch.cat(outs).tolist() == members
    for root, member in enumerate(members):
        x = torch.full((3,), float(dist.get_rank()))
        group.broadcast(x, root).wait()
        assert x.tolist() == [member] * 3
    if size > 1:
        if me == 0:
            group.send([torch.tensor([7.0])], size - 1, 3).wait()
        elif me == size - 1:
            x = torch.zeros(1)
            group.recv([x], 0, 3).wait()
            assert x.item() == 7.0
    group.barrier().wait()


def halves(rank, size):
    mine = [member for member in range(size) if member % 2 == rank % 2]
    half = world().split_group(mine, group_name=f"half {rank % 2}", group_desc="a half")
    assert half.group_name == f"half {rank % 2}" and half.group_desc == "a half"
    work_in(half, mine)
    calls = cpu(half)._get_sequence_number_for_group()
    work_in(world(), list(range(size)))
    assert cpu(half)._get_sequence_number_for_group() == calls
    # Both at work at once: neither takes what is the other's.
    x, y = torch.full((50000,), float(rank)), torch.ones(50000)
    works = [half.allreduce(x), world().allreduce(y)]
    for work in works:
        work.wait()
    assert bool((x == sum(mine)).all()) and bool((y == size).all())
    cpu(half).shutdown()
    assert "shut down" in ranks.text_of(lambda: half.barrier().wait())
    work_in(world(), list(range(size)))


def a_rank_in_no_group(rank, size):
    members = [0, size - 1]
    group = world().split_group(members, group_name="ends")
    if rank in members:
        work_in(group, members)
    else:
        assert group is None
    alone = world().split_group([rank], group_name=f"alone {rank}")
    work_in(alone, [rank])
    work_in(world(), list(range(size)))


def of_a_split(rank, size):
    mine = [0, 2] if rank % 2 == 0 else [1, 3]
    half = world().split_group(mine, group_name=f"half {rank % 2}")
    # Ranks are the half's; both halves give the same name.
    half_rank = mine.index(rank)
    quarter = half.split_group([half_rank], group_name=f"quarter {half_rank}")
    whole = half.split_group([0, 1], group_name="whole")
    work_in(quarter, [rank])
    work_in(whole, mine)
    # One after the other of the same ranks, each gone before the next.
    for number in range(3):
        again = whole.split_group([0, 1], group_name=f"again {number}")
        work_in(again, mine)
        cpu(again).shutdown()
    work_in(half, mine)
    work_in(world(), list(range(size)))


def time_out(rank, size):
    """What is given, what the parent has, and what the options say."""
    members = list(range(size))
    patient = world().split_group(members, group_name="patient")
    hasty = patient.split_group(members, timeout=seconds(1), group_name="hasty")
    work_in(patient, members)
    work_in(hasty, members)
    if rank == 0:
        began = time.monotonic()
        said = ranks.text_of(lambda: hasty.allreduce(torch.ones(1)).wait(), DistBackendError)
        took = time.monotonic() - began
        assert " timeout " in said and "RCCL-2003" in said and "hasty" in said, said
        assert 0.9 < took < 8, took
    # The others come when that group is long broken; the one it came of has its own time.
    if rank == 1:
        time.sleep(2.5)
    work_in(patient, members)
    work_in(world(), members)


def one_that_does_not_come(rank, size):
    """The parent's ranks are not asked; who waits says how long it did, and the parent is as good as before."""
    if rank == 0:
        began = time.monotonic()
        said = ranks.text_of(lambda: world().split_group([0, 1], timeout=seconds(1), group_name="few"))
        took = time.monotonic() - began
        assert "rccl init" in said and "1 of 2 ranks arrived; missing 1" in said, said
        assert took < 8, took
    dist.barrier()
    work_in(world(), list(range(size)))


def nonsense(rank, size):
    for wrong in ([0, size], [-1, 0], [size + 5, 1000]):
        began = time.monotonic()
        said = ranks.text_of(lambda: world().split_group(wrong, timeout=seconds(20), group_name="wrong"))
        bad = next(number for number in wrong if not 0 <= number < size)
        assert "rccl split" in said and f"rank {bad}" in said and f"{size} ranks" in said, said
        assert time.monotonic() - began < 5, wrong
    assert "empty" in ranks.text_of(lambda: world().split_group([], group_name="wrong"))
    assert "duplicate" in ranks.text_of(lambda: world().split_group([0, 0], group_name="wrong"))
    work_in(world(), list(range(size)))
    cpu(world()).shutdown()
    said = ranks.text_of(lambda: world().split_group([0, 1], timeout=seconds(20), group_name="late"))
    assert "rccl split" in said and "shut down" in said, said


def of_distributed(rank, size):
    """The function of torch.distributed, whose groups its other functions know."""
    mine = [0, 1] if rank < 2 else [2, 3]
    half = dist.split_group(split_ranks=[[0, 1], [2, 3]], timeout=seconds(20), group_desc="a half")
    assert dist.get_process_group_ranks(half) == mine and half.group_desc == "a half"
    assert dist.get_backend(half) == "rccl"
    x = torch.full((4,), float(rank))
    dist.all_reduce(x, group=half)
    assert x.tolist() == [sum(mine)] * 4
    everything = [None] * 2
    dist.all_gather_object(everything, rank, group=half)
    assert everything == mine
    # Of the half, of which each rank is one.
    alone = dist.split_group(half, [[0], [1]])
    assert dist.get_process_group_ranks(alone) == [rank]
    dist.all_reduce(x, group=alone)
    assert x.tolist() == [sum(mine)] * 4
    some = dist.split_group(split_ranks=[[1, 3]])
    if rank in (1, 3):
        assert dist.get_process_group_ranks(some) == [1, 3]
        dist.broadcast(x, 3, group=some)
        assert x.tolist() == [5] * 4
    else:
        assert some in (None, dist.GroupMember.NON_GROUP_MEMBER)
    dist.destroy_process_group(half)
    dist.barrier()
    for wrong in (None, [], [[0, 0]], [[]]):
        assert "cannot" in ranks.text_of(lambda: dist.split_group(split_ranks=wrong), ValueError)


@pytest.mark.parametrize("size", [1, 2, 4, 5])
def test_halves(size):
    ranks.run(size, halves)


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("function", [time_out, nonsense, one_that_does_not_come], ids=lambda function: function.__name__)
def test_what_can_go_wrong(size, function):
    ranks.run(size, function)


def test_a_rank_in_no_group():
    ranks.run(4, a_rank_in_no_group)


def test_of_a_split():
    ranks.run(4, of_a_split)


@pytest.mark.skipif(RELEASE < (2, 15), reason="before torch 2.15 the function is for accelerators; process groups split")
def test_of_distributed():
    ranks.run(4, of_distributed)
