"""The handwritten digits of ../data, for the programs here."""

import pathlib

import numpy as np

FILE = pathlib.Path(__file__).parent.parent / "data" / "digits.bin"


def load(path=FILE):
    """Training and test images, 4 to 1, in an order that is random and the same on every rank: ``(pixels, digits)`` of each,
    pixels from 0 to 1, a row of 64 for each image."""
    rows = np.fromfile(path, np.uint8).reshape(-1, 65)
    rows = np.random.default_rng(7).permutation(rows)
    pixels, digits = rows[:, :64].astype(np.float32) / 16, rows[:, 64].astype(np.int64)
    train = len(rows) * 4 // 5
    return (pixels[:train], digits[:train]), (pixels[train:], digits[train:])
