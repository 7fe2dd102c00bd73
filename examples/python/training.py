"""What ddp.py and fsdp.py share: a network that learns to read digits, whatever spreads it over the ranks."""

import argparse

import images
import torch
import torch.distributed as dist

BATCH = 64


def main(spread, words):
    """Trains what ``spread(network)`` makes of a network, with the backend and for the epochs of the command line."""
    parser = argparse.ArgumentParser(description=words.splitlines()[0])
    parser.add_argument("--backend", default="rccl", help="rccl, or gloo to compare")
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    dist.init_process_group(options.backend)
    torch.manual_seed(0)  # all ranks begin alike
    network = spread(torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.Tanh(), torch.nn.Linear(32, 10)))
    train(network, options.epochs)
    dist.destroy_process_group()


def train(network, epochs):
    rank, size = dist.get_rank(), dist.get_world_size()
    (pixels, digits), test = (tuple(map(torch.from_numpy, part)) for part in images.load())
    optimizer = torch.optim.SGD(network.parameters(), lr=0.2, momentum=0.9)
    order = torch.Generator().manual_seed(42)
    for epoch in range(1, epochs + 1):
        total = torch.zeros(2)
        for batch in torch.randperm(len(digits), generator=order).split(BATCH):
            mine = batch[rank::size]
            loss = torch.nn.functional.cross_entropy(network(pixels[mine]), digits[mine], reduction="sum")
            optimizer.zero_grad()
            (loss * size / len(batch)).backward()  # what spreads the network takes the mean over the ranks
            optimizer.step()
            total[0] += loss.detach()
        with torch.no_grad():
            total[1] = (network(test[0][rank::size]).argmax(1) == test[1][rank::size]).sum()
        dist.all_reduce(total)
        if rank == 0:
            loss, right = total[0].item() / len(digits), total[1].item() / len(test[1])
            print(f"epoch {epoch:2}  loss {loss:.8f}  test accuracy {100 * right:.2f} %", flush=True)
