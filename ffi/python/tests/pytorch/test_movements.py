"""Every operation that moves elements, of every type, contiguous or not."""

import pytest
import ranks
import torch
import torch.distributed as dist

ALL = [
    torch.bool,
    torch.int8,
    torch.uint8,
    torch.int16,
    torch.uint16,
    torch.int32,
    torch.uint32,
    torch.int64,
    torch.uint64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.complex64,
    torch.complex128,
]


def block(rank, dtype, count=6):
    return (torch.arange(count) % 2 + rank % 2).to(dtype) if dtype == torch.bool else (torch.arange(count) + 10 * rank).to(dtype)


def equal(found, wanted):
    if not torch.equal(found.contiguous().view(torch.uint8), wanted.contiguous().view(torch.uint8)):
        raise AssertionError(f"{found} where {wanted} is right")


def moves(rank, size):
    for dtype in ALL:
        mine, blocks = block(rank, dtype), [block(other, dtype) for other in range(size)]
        empty = lambda: torch.zeros(6, dtype=dtype)  # noqa: E731
        for root in range(size):
            x = mine.clone()
            dist.broadcast(x, root)
            equal(x, blocks[root])
            outs = [empty() for _ in range(size)] if rank == root else None
            dist.gather(mine, outs, dst=root)
            if rank == root:
                [equal(out, wanted) for out, wanted in zip(outs, blocks)]
            out = empty()
            dist.scatter(out, [b.clone() for b in blocks] if rank == root else None, src=root)
            equal(out, mine)
        outs = [empty() for _ in range(size)]
        dist.all_gather(outs, mine)
        [equal(out, wanted) for out, wanted in zip(outs, blocks)]
        out = torch.zeros(6 * size, dtype=dtype)
        dist.all_gather_into_tensor(out, mine)
        equal(out, torch.cat(blocks))
        # In place: the input is this rank's block of the output.
        out = torch.zeros(6 * size, dtype=dtype)
        out[6 * rank : 6 * rank + 6] = mine
        dist.all_gather_into_tensor(out, out[6 * rank : 6 * rank + 6])
        equal(out, torch.cat(blocks))
        # Rank r sends block r of what it has to each; all get the same from one.
        out = torch.zeros(6 * size, dtype=dtype)
        dist.all_to_all_single(out, torch.cat([mine] * size))
        equal(out, torch.cat(blocks))
        outs = [empty() for _ in range(size)]
        dist.all_to_all(outs, [mine.clone() for _ in range(size)])
        [equal(out, wanted) for out, wanted in zip(outs, blocks)]
    dist.barrier()


def uneven(rank, size):
    # Rank a sends a + b + 1 rows of two to rank b.
    sent, received = [rank + other + 1 for other in range(size)], [rank + other + 1 for other in range(size)]
    x = torch.full((sum(sent), 2), float(rank))
    out = torch.zeros(sum(received), 2)
    dist.all_to_all_single(out, x, received, sent)
    equal(out, torch.cat([torch.full((rows, 2), float(other)) for other, rows in enumerate(received)]))
    outs = [torch.zeros(rows) for rows in received]
    dist.all_to_all(outs, [torch.full((rows,), float(rank)) for rows in sent])
    for other, out in enumerate(outs):
        assert out.tolist() == [other] * received[other]
    outs = [torch.zeros(other + 1) for other in range(size)]
    dist.all_gather(outs, torch.full((rank + 1,), float(rank)))
    for other, out in enumerate(outs):
        assert out.tolist() == [other] * (other + 1)
    out = torch.zeros(rank + 1)
    dist.reduce_scatter(out, [torch.ones(other + 1) for other in range(size)])
    assert out.tolist() == [size] * (rank + 1)
    nothing = torch.zeros(0)
    dist.all_reduce(nothing)
    dist.all_gather_into_tensor(torch.zeros(0), nothing)
    # All to the first rank, none to the others.
    sent = [3] + [0] * (size - 1)
    received = [3] * size if rank == 0 else [0] * size
    out = torch.zeros(sum(received))
    dist.all_to_all_single(out, torch.full((3,), float(rank)), received, sent)
    assert out.tolist() == ([float(other) for other in range(size) for _ in range(3)] if rank == 0 else [])
    # Lists of views of one tensor, as mixtures of experts have them; the first is empty.
    sent, received = [0] + [2] * (size - 1), [0 if rank == 0 else 2] * size
    out, x = torch.zeros(sum(received)), torch.full((sum(sent),), float(rank))
    dist.all_to_all(list(out.split(received)), list(x.split(sent)))
    assert out.tolist() == ([] if rank == 0 else [float(other) for other in range(size) for _ in range(2)])


def in_other_orders(rank, size):
    def turned():
        return torch.zeros(5, 4).t()  # not contiguous

    wanted = torch.arange(20.0).reshape(4, 5)
    x = turned()
    x.copy_(wanted * (rank + 1))
    dist.all_reduce(x)
    equal(x, wanted * sum(range(1, size + 1)))
    x = turned()
    if rank == 0:
        x.copy_(wanted)
    dist.broadcast(x, 0)
    equal(x, wanted)
    outs = [turned() for _ in range(size)]
    source = turned()
    source.copy_(wanted + rank)
    dist.all_gather(outs, source)
    for other, out in enumerate(outs):
        equal(out, wanted + other)
    whole = torch.zeros(size, 2, 3).transpose(0, 2)
    dist.all_gather_into_tensor(whole, torch.full((3 * 2 * 1,), float(rank)))
    equal(whole.reshape(-1), torch.cat([torch.full((6,), float(other)) for other in range(size)]))
    x = turned()
    if rank == 0:
        x.copy_(wanted)
        dist.send(x, 1)
    elif rank == 1:
        dist.recv(x, 0)
        equal(x, wanted)
    # torch.distributed refuses these, and its groups copy them; backends take them.
    x = torch.full((2,), 1 + 2j).conj()
    dist.distributed_c10d._get_default_group()._get_backend(torch.device("cpu")).allreduce([x]).wait()
    assert x.tolist() == [size * (1 - 2j)] * 2
    x = torch.ones(3, requires_grad=True)
    dist.all_reduce(x.detach())
    assert x.tolist() == [size] * 3


def of_sparse_tensors(rank, size):
    def tensor(rank):
        places = torch.tensor([[0, rank, rank + 1, rank], [1, 0, 2, 0]])
        return torch.sparse_coo_tensor(places, torch.tensor([[1.0, 2.0]] * 4) * (rank + 1), (size + 1, 3, 2))

    wanted = sum(tensor(other).to_dense() for other in range(size))
    x = tensor(rank)
    dist.all_reduce(x)
    equal(x.to_dense(), wanted)
    # Some have none, and other calls come between.
    x = tensor(rank) if rank == 0 else torch.sparse_coo_tensor(
        torch.zeros(2, 0, dtype=torch.int64), torch.zeros(0, 2), (size + 1, 3, 2)
    )
    work = dist.all_reduce(x, async_op=True)
    y = torch.ones(2)
    dist.all_reduce(y)
    work.wait()
    equal(x.to_dense(), tensor(0).to_dense())
    assert y.tolist() == [size, size]
    said = ranks.text_of(lambda: dist.all_reduce(tensor(rank), dist.ReduceOp.MAX))
    assert "sum only" in said, said


def of_objects(rank, size):
    everything = [None] * size
    dist.all_gather_object(everything, {"rank": rank})
    assert everything == [{"rank": other} for other in range(size)]
    names = [f"from {rank}"]
    dist.broadcast_object_list(names, src=1)
    assert names == ["from 1"]
    mine = [None]
    dist.scatter_object_list(mine, list(range(size)) if rank == 0 else None, src=0)
    assert mine == [rank]


def together(rank, size):
    xs = [torch.full((count,), float(rank + 1)) for count in (1, 500, 3, 70000, 2)]
    with dist._coalescing_manager():
        for x in xs:
            dist.all_reduce(x)
    total = sum(range(1, size + 1))
    assert all(bool((x == total).all()) for x in xs)
    outs = [torch.zeros(2 * size), torch.zeros(3 * size)]
    with dist._coalescing_manager(async_ops=True) as works:
        for out, count in zip(outs, (2, 3)):
            dist.all_gather_into_tensor(out, torch.full((count,), float(rank)))
    works.wait()
    for out, count in zip(outs, (2, 3)):
        assert out.tolist() == [float(other) for other in range(size) for _ in range(count)]
    outs = [torch.zeros(2), torch.zeros(3)]
    with dist._coalescing_manager():
        for out in outs:
            dist.reduce_scatter_tensor(out, torch.ones(len(out) * size))
    assert all(bool((out == size).all()) for out in outs)
    # Calls of different kinds, as one work.
    group = dist.distributed_c10d._get_default_group()
    group._start_coalescing(torch.device("cpu"))
    x, y = torch.ones(4), torch.full((3,), float(rank))
    dist.all_reduce(x, async_op=True)
    dist.broadcast(y, 1, async_op=True)
    work = group._end_coalescing(torch.device("cpu"))
    future = work.get_future()
    work.wait()
    future.wait()
    assert x.tolist() == [size] * 4 and y.tolist() == [1.0] * 3
    both = [[torch.zeros(2), torch.zeros(3)] for _ in range(size)]
    group.allgather_coalesced(both, [torch.full((2,), float(rank)), torch.full((3,), rank + 0.5)]).wait()
    assert [[each.tolist() for each in of_rank] for of_rank in both] == [[[r] * 2, [r + 0.5] * 3] for r in range(size)]
    # Nothing is done of a list in which one tensor is refused.
    x = torch.ones(1000).t()
    refused = [x, torch.ones(3, dtype=torch.int16)]
    options = dist.AllreduceCoalescedOptions()
    assert "Short" in ranks.text_of(lambda: group.allreduce_coalesced(refused, options).wait())
    dist.all_reduce(y)
    assert x.tolist() == [1] * 1000 and y.tolist() == [size] * 3


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("function", [moves, uneven, of_sparse_tensors], ids=lambda function: function.__name__)
def test_of_every_size(size, function):
    ranks.run(size, function)


@pytest.mark.parametrize("function", [in_other_orders, of_objects, together], ids=lambda function: function.__name__)
def test_on_three(function):
    ranks.run(3, function)
