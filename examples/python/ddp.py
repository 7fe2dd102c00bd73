"""Data-parallel training with PyTorch's DistributedDataParallel. All that is rccl's here is the name of the backend.

    torchrun --standalone --nproc-per-node 4 ddp.py [--backend gloo] [--epochs 20]
"""

import training
from torch.nn.parallel import DistributedDataParallel

if __name__ == "__main__":
    training.main(DistributedDataParallel, __doc__)
