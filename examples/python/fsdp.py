"""The training of ddp.py with PyTorch's FSDP2: every rank keeps a part of each layer's numbers, and of the optimizer's.

    torchrun --standalone --nproc-per-node 4 fsdp.py [--backend gloo] [--epochs 20]
"""

import torch.distributed as dist
import training
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard


def shard(network):
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for layer in (network[0], network[2]):
        fully_shard(layer, mesh=mesh)
    fully_shard(network, mesh=mesh)
    for module in network.modules():
        if isinstance(module, FSDPModule):  # what is sent lies in memory that the backend has registered
            module.set_allocate_memory_from_process_group_for_comm(True)
    return network


if __name__ == "__main__":
    training.main(shard, __doc__)
