"""The README's words and examples/python: what a number of ranks learns is what one learns."""

import pathlib
import re
import subprocess
import sys

import pytest

EXAMPLES = pathlib.Path(__file__).parents[3] / "examples" / "python"


def said(*command):
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=EXAMPLES,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout
    return [tuple(map(float, epoch)) for epoch in re.findall(r"loss ([\d.]+)  test accuracy ([\d.]+)", done.stdout)]


def test_digits():
    pytest.importorskip("numpy")
    alone = said("digits.py", 4)
    together = said("-m", "rccl", "run", "-n", 4, "--", sys.executable, "digits.py", 4)
    assert len(alone) == 4 and alone[-1][0] < alone[0][0] / 4 and alone[-1][1] > 90
    assert together == [pytest.approx(epoch, rel=1e-4) for epoch in alone]
