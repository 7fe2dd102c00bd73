"""Data-parallel training with NumPy: every rank has the whole network and its share of each batch, and one all_reduce a step adds
the gradients up. Any number of ranks learns the same.

    python -m rccl run -n 4 -- python digits.py [EPOCHS]
"""

import sys

import images
import numpy as np
import rccl

BATCH, HIDDEN, RATE, MOMENTUM = 64, 32, 0.2, 0.9


class Network:
    """64 pixels, a layer of tanh, a softmax of 10. All its numbers are one array, and so are its gradients: one call moves them."""

    def __init__(self, comm):
        shapes = [(64, HIDDEN), (HIDDEN,), (HIDDEN, 10), (10,)]
        sizes = [int(np.prod(shape)) for shape in shapes]
        self.numbers = np.zeros(sum(sizes), np.float32)
        self.gradient = comm.empty(sum(sizes), "float32")  # registered: the other ranks read it in place
        cuts = np.cumsum(sizes)[:-1]

        def views(of):
            return [part.reshape(shape) for part, shape in zip(np.split(of, cuts), shapes)]

        self.weights, self.gradients = views(self.numbers), views(self.gradient)
        random = np.random.default_rng(comm.rank)  # rank 0's count; the broadcast below sees to that
        for weight in self.weights[::2]:
            weight[:] = random.normal(0, weight.shape[0] ** -0.5, weight.shape)
        comm.broadcast(self.numbers)

    def probabilities(self, pixels):
        first, first_bias, second, second_bias = self.weights
        hidden = np.tanh(pixels @ first + first_bias)
        scores = hidden @ second + second_bias
        scores = np.exp(scores - scores.max(1, keepdims=True))
        return hidden, scores / scores.sum(1, keepdims=True)

    def learn(self, pixels, digits):
        """Sets the gradient of the sum of these images' losses, which it returns."""
        hidden, found = self.probabilities(pixels)
        loss = -np.log(found[np.arange(len(digits)), digits]).sum()
        found[np.arange(len(digits)), digits] -= 1
        below = found @ self.weights[2].T * (1 - hidden**2)
        for place, value in zip(self.gradients, (pixels.T @ below, below.sum(0), hidden.T @ found, found.sum(0))):
            place[:] = value
        return loss


def main(epochs):
    with rccl.Communicator.from_env(label="digits") as comm:
        train, test = images.load()
        network = Network(comm)
        velocity = np.zeros_like(network.numbers)
        order = np.random.default_rng(42)
        for epoch in range(1, epochs + 1):
            loss, shuffled = 0.0, order.permutation(len(train[1]))
            for at in range(0, len(shuffled), BATCH):
                batch = shuffled[at : at + BATCH]
                mine = batch[comm.rank :: comm.size]
                loss += network.learn(train[0][mine], train[1][mine])
                comm.all_reduce(network.gradient)
                velocity *= MOMENTUM
                velocity -= RATE / len(batch) * network.gradient
                network.numbers += velocity
            mine = slice(comm.rank, None, comm.size)
            right = (network.probabilities(test[0][mine])[1].argmax(1) == test[1][mine]).sum()
            loss, right = comm.all_reduce(np.array([loss, right], np.float64))
            if comm.rank == 0:
                print(f"epoch {epoch:2}  loss {loss / len(train[1]):.6f}  test accuracy {100 * right / len(test[1]):.2f} %")
        # The same on all ranks, to the last bit.
        first = comm.broadcast(network.numbers.copy())
        assert (first == network.numbers).all(), f"rank {comm.rank} has other weights than rank 0"


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
