"""Messages: order, tags, from anybody, in both directions at once."""

import ranks
import torch
import torch.distributed as dist


def tags(rank, size):
    """What is sent first waits for its receive; messages with one tag come in order."""
    if rank == 0:
        works = [dist.isend(torch.full((count,), float(tag)), 1, tag=tag) for tag, count in [(1, 100_000), (2, 3), (3, 5)]]
        works += [dist.isend(torch.tensor([float(number)]), 1, tag=4) for number in range(20)]
        for work in works:
            work.wait()
    elif rank == 1:
        for tag, count in [(3, 5), (1, 100_000), (2, 3)]:
            x = torch.zeros(count)
            assert dist.recv(x, 0, tag=tag) == 0
            assert bool((x == tag).all())
        xs = [torch.zeros(1) for _ in range(20)]
        for work in [dist.irecv(x, 0, tag=4) for x in xs]:
            work.wait()
        assert [x.item() for x in xs] == list(range(20))


def both_ways(rank, size):
    """Receives that are asked for first keep no send from leaving, and none waits for collectives."""
    peer = 1 - rank
    xs = [torch.zeros(count) for count in (1, 1000, 1_000_000)]
    receives = [dist.irecv(x, peer) for x in xs]
    total = torch.ones(5)
    dist.all_reduce(total)
    sends = [dist.isend(torch.full_like(x, rank + 1.0), peer) for x in xs]
    for work in sends + receives:
        work.wait()
        assert work.is_completed()
    assert all(bool((x == peer + 1).all()) for x in xs) and total.tolist() == [2.0] * 5
    for dtype in (torch.bool, torch.int16, torch.bfloat16, torch.complex64, torch.float8_e5m2):
        x, out = torch.ones(4).to(dtype), torch.zeros(4).to(dtype)
        works = [dist.isend(x, peer), dist.irecv(out, peer)]
        [work.wait() for work in works]
        assert torch.equal(out.view(torch.uint8), x.view(torch.uint8))


def from_anybody(rank, size):
    if rank == 0:
        seen = []
        for _ in range(size - 1):
            x = torch.zeros(3)
            source = dist.recv(x, tag=7)
            assert x.tolist() == [source] * 3
            seen.append(source)
        assert sorted(seen) == list(range(1, size))
        # One who is named, while anybody may come too.
        anyone, named = torch.zeros(1), torch.zeros(1)
        works = [dist.irecv(anyone, tag=1), dist.irecv(named, 1, tag=2)]
        dist.barrier()
        [work.wait() for work in works]
        assert named.item() == 10.0 and anyone.item() == 5.0
        # A receive of anybody's leaves questions open on all lanes; they disturb nobody.
        for peer in range(1, size):
            dist.recv(named, peer)
            assert named.item() == peer
    else:
        dist.send(torch.full((3,), float(rank)), 0, tag=7)
        dist.barrier()
        if rank == 1:
            dist.send(torch.tensor([10.0]), 0, tag=2)
        if rank == 2:
            dist.send(torch.tensor([5.0]), 0, tag=1)
        dist.send(torch.tensor([float(rank)]), 0)


def in_a_ring(rank, size):
    x, out = torch.full((300_000,), float(rank)), torch.zeros(300_000)
    for _ in range(5):
        operations = [
            dist.P2POp(dist.isend, x, (rank + 1) % size),
            dist.P2POp(dist.irecv, out, (rank - 1) % size),
        ]
        for work in dist.batch_isend_irecv(operations):
            work.wait()
        assert bool((out == (rank - 1) % size).all())
    objects = [None]
    if rank == 0:
        dist.send_object_list([{"a": 1}], 1)
    if rank == 1:
        dist.recv_object_list(objects, 0)
        assert objects == [{"a": 1}]


def wrong_ones(rank, size):
    group = dist.distributed_c10d._get_default_group()
    assert "itself" in ranks.text_of(lambda: group.send([torch.ones(1)], rank, 0))
    assert "rank 9" in ranks.text_of(lambda: group.recv([torch.ones(1)], 9, 0))
    # A message of another length: both ends hear of it, and the group works on.
    if rank == 0:
        said = ranks.text_of(lambda: dist.send(torch.ones(100_000), 1))
    else:
        said = ranks.text_of(lambda: dist.recv(torch.ones(99), 0))
    assert "mismatch" in said and "x100000" in said and "x99" in said, said
    x = torch.ones(1)
    dist.all_reduce(x)
    assert x.item() == 2.0
    # One that had arrived before anybody wanted it.
    if rank == 1:
        dist.send(torch.ones(4), 0, tag=5)
        dist.send(torch.ones(4), 0, tag=6)
    else:
        x = torch.zeros(4)
        dist.recv(x, 1, tag=6)
        said = ranks.text_of(lambda: dist.recv(torch.zeros(4, dtype=torch.int32), 1, tag=5))
        assert "mismatch" in said and "rank 1 sent 4" in said, said


def test_tags():
    ranks.run(2, tags)


def test_both_ways_at_once():
    ranks.run(2, both_ways)


def test_from_anybody():
    ranks.run(3, from_anybody)
    ranks.run(4, from_anybody)


def test_rings():
    ranks.run(2, in_a_ring)
    ranks.run(3, in_a_ring)


def test_wrong_ones():
    ranks.run(2, wrong_ones)
