"""Trains small models in every way that torch shares training among ranks, and prints the losses; by torchrun:

    torchrun --nproc-per-node 4 training.py BACKEND OUT.json
"""

import json
import os
import sys
import tempfile

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import checkpoint
from torch.distributed.checkpoint.state_dict import get_model_state_dict, set_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel, fully_shard
from torch.distributed.pipelining import PipelineStage, ScheduleGPipe
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

STEPS = 20


def model():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(16, 64), nn.Tanh(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 4))


def batch(step, rank):
    generator = torch.Generator().manual_seed(1000 * step + rank)
    x = torch.randn(8, 16, generator=generator)
    return x, torch.stack([x[:, :4].sum(1), x[:, 4:8].prod(1), x[:, 8].abs(), x[:, 9]], 1)


def train(wrapped, rank, steps=range(STEPS)):
    """The mean loss of all ranks, step by step."""
    optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for step in steps:
        x, y = batch(step, rank)
        loss = nn.functional.mse_loss(wrapped(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        mean = loss.detach().clone()
        dist.all_reduce(mean)
        losses.append(mean.item() / dist.get_world_size())
    return losses


def data_parallel(rank, size):
    return train(DistributedDataParallel(model(), bucket_cap_mb=0.002), rank)


def fsdp1(rank, size):
    return train(FullyShardedDataParallel(model(), device_id=torch.device("cpu")), rank)


def fsdp2(rank, size):
    sharded = model()
    for layer in sharded:
        if isinstance(layer, nn.Linear):
            fully_shard(layer)
    fully_shard(sharded)
    for module in sharded.modules():
        if isinstance(module, FSDPModule):
            module.set_allocate_memory_from_process_group_for_comm(True)
    return train(sharded, rank)


def tensor_parallel(rank, size):
    mesh = init_device_mesh("cpu", (size,))
    shared = parallelize_module(model(), mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})
    # All ranks of one model see the same batch.
    return train(shared, 0)


def pipelined(rank, size):
    layers = list(model())
    cut = [len(layers) * part // size for part in range(size + 1)]
    stage_module = nn.Sequential(*layers[cut[rank] : cut[rank + 1]])
    stage = PipelineStage(stage_module, rank, size, torch.device("cpu"))
    if torch.__version__.startswith("2.9."):
        # Its first messages are sent as int64 and received as float32, which gloo refuses too. Neither needs them.
        stage._get_init_p2p_neighbors_ops = list
    schedule = ScheduleGPipe(stage, n_microbatches=4, loss_fn=nn.functional.mse_loss)
    parameters = list(stage_module.parameters())
    optimizer = torch.optim.SGD(parameters, lr=0.05, momentum=0.9) if parameters else None
    losses = []
    for step in range(STEPS):
        x, y = batch(step, 0)
        if optimizer:
            optimizer.zero_grad()
        parts = []
        if rank == 0:
            schedule.step(x)
        elif rank == size - 1:
            schedule.step(target=y, losses=parts)
        else:
            schedule.step()
        if optimizer:
            optimizer.step()
        mean = torch.stack(parts).mean().detach() if parts else torch.zeros(())
        dist.broadcast(mean, size - 1)
        losses.append(mean.item())
    return losses


def from_a_checkpoint(rank, size):
    """Trains, saves, loads what was saved into a fresh model, and trains on."""
    folder = [tempfile.mkdtemp() if rank == 0 else None]
    dist.broadcast_object_list(folder, src=0)
    first = model()
    fully_shard(first)
    losses = train(first, rank, range(STEPS // 2))
    checkpoint.save({"model": get_model_state_dict(first)}, checkpoint_id=folder[0])
    second = model()
    fully_shard(second)
    state = {"model": get_model_state_dict(second)}
    checkpoint.load(state, checkpoint_id=folder[0])
    set_model_state_dict(second, state["model"])
    return losses + train(second, rank, range(STEPS // 2, STEPS))


WAYS = [data_parallel, fsdp1, fsdp2, tensor_parallel, pipelined, from_a_checkpoint]


def main():
    backend, path = sys.argv[1:]
    if backend == "rccl":
        import rccl.torch  # noqa: F401
    torch.set_num_threads(1)
    dist.init_process_group(backend)
    rank, size = dist.get_rank(), dist.get_world_size()
    losses = {way.__name__: way(rank, size) for way in WAYS}
    if rank == 0:
        with open(path, "w") as file:
            json.dump(losses, file)
    dist.destroy_process_group()
    # Not by way of the interpreter's end, which takes seconds.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
