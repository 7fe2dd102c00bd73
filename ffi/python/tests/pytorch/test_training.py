"""Training gives the same losses as with gloo, on 2 and 4 ranks started by torchrun."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
import torch

from rccl.torch import build

SCRIPT = pathlib.Path(__file__).with_name("training.py")


def losses(backend, size, folder, **environment):
    out = folder / f"{backend}-{size}.json"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}"]
    done = subprocess.run(
        [*command, str(SCRIPT), backend, str(out)],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    return json.loads(out.read_text())


@pytest.mark.parametrize("size", [2, 4])
def test_losses_are_those_of_gloo(size, tmp_path):
    build.load()
    of_gloo, of_rccl = losses("gloo", size, tmp_path), losses("rccl", size, tmp_path)
    assert of_gloo.keys() == of_rccl.keys()
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 9):
        # There gloo sums where FSDP2 asks for the average; what is right is what data-parallel training gives.
        of_gloo["fsdp2"] = of_gloo["data_parallel"]
        del of_gloo["from_a_checkpoint"]
    for way, wanted in of_gloo.items():
        assert len(wanted) == 20 and wanted[-1] < wanted[0], (way, wanted)
        assert of_rccl[way] == pytest.approx(wanted, abs=1e-6, rel=0), way
