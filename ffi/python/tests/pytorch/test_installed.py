"""Compiling at first use, and what programs get that never heard of this package, by its entry points."""

import os
import pathlib
import subprocess
import sys
import time
import tomllib

import pytest
import torch

import rccl.torch
from rccl.torch import build

PACKAGES = pathlib.Path(rccl.torch.__file__).parents[2]
PROJECT = pathlib.Path(__file__).parents[2] / "pyproject.toml"

PROGRAM = """
import os, torch, torch.distributed as dist
dist.init_process_group(os.environ["PROGRAM_BACKEND"])
x = torch.ones(3)
dist.all_reduce(x)
assert x.tolist() == [dist.get_world_size()] * 3
group = dist.new_group()
outs = [torch.zeros(1) for _ in range(dist.get_world_size())]
dist.all_gather(outs, torch.tensor([float(dist.get_rank())]), group=group)
assert torch.cat(outs).tolist() == list(range(dist.get_world_size()))
backend = dist.group.WORLD._get_backend(torch.device("cpu"))
text = f"{dist.get_backend()} by {backend.name()}"
dist.destroy_process_group()
if dist.is_torchelastic_launched() and os.environ["RANK"] == "0":
    print(text, flush=True)
if backend.name() == "gloo":
    os._exit(0)  # on a busy machine the interpreter's end may abort in one of gloo's threads
"""


@pytest.fixture
def site(tmp_path):
    """Where the package looks installed: its entry points are found there."""
    information = tmp_path / "site" / "roceccl-0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: roceccl\nVersion: 0\n")
    groups = tomllib.loads(PROJECT.read_text())["project"]["entry-points"]
    lines = [f"[{group}]\n" + "".join(f"{name} = {at}\n" for name, at in of.items()) for group, of in groups.items()]
    (information / "entry_points.txt").write_text("".join(lines))
    return tmp_path / "site"


def torchrun(site, folder, size=2, **environment):
    program = folder / "program.py"
    program.write_text(PROGRAM)
    path = os.pathsep.join([str(site), str(PACKAGES)])
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}", str(program)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout


def test_the_name_is_enough(site, tmp_path):
    assert "rccl by rccl" in torchrun(site, tmp_path, PROGRAM_BACKEND="rccl")


@pytest.mark.skipif(not hasattr(torch.distributed.Backend, "_ensure_backend_registered"), reason="torch before 2.14")
def test_the_name_is_enough_where_torch_loads_no_extensions(site, tmp_path):
    """By the entry point of torch.distributed.backends, which is looked at when the name is."""
    assert "rccl by rccl" in torchrun(site, tmp_path, PROGRAM_BACKEND="rccl", TORCH_DEVICE_BACKEND_AUTOLOAD="0")


def test_programs_that_ask_for_gloo(site, tmp_path):
    assert "gloo by gloo" in torchrun(site, tmp_path, PROGRAM_BACKEND="gloo")
    assert "gloo by rccl" in torchrun(site, tmp_path, PROGRAM_BACKEND="gloo", RCCL_REPLACE_GLOO="1")


def python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(PACKAGES), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
    ).stdout


@pytest.mark.parametrize("broken", ["SIZE = 3", "raise ImportError('libgone.so: cannot open shared object file')"])
def test_torch_is_imported_whatever_is_wrong_with_the_package(site, tmp_path, broken):
    """A module of the user's that has its name, or one that cannot be loaded."""
    (tmp_path / "rccl.py").write_text(broken)
    code = "import torch\nprint(torch.ones(3).sum().item())"
    said = python(code, PYTHONPATH=os.pathsep.join([str(tmp_path), str(site), str(PACKAGES)]))
    assert "3.0\n" in said and "the backend is not there: " in said, said
    assert ("libgone.so" if "libgone" in broken else "rccl.torch") in said, said


ALONE = """
import torch, torch.distributed as dist, rccl.torch
print("imported")
try:
    dist.init_process_group("rccl", store=dist.HashStore(), rank=0, world_size=1)
except ImportError as error:
    print(error)
"""


def test_what_is_missing_is_said(tmp_path):
    said = python(ALONE, RCCL_TORCH_CACHE=str(tmp_path), CXX="no-such-compiler")
    assert "imported" in said and "no-such-compiler" in said and "apt-get install g++" in said, said
    compiler = tmp_path / "broken"
    compiler.write_text("#!/bin/sh\necho 'all.cpp:1: error: out of ideas'\nexit 1\n")
    compiler.chmod(0o755)
    said = python(ALONE, RCCL_TORCH_CACHE=str(tmp_path), CXX=str(compiler))
    assert "imported" in said and "out of ideas" in said and "status 1" in said, said
    said = python(ALONE, RCCL_TORCH_LIBRARY=str(tmp_path / "none.so"))
    assert "imported" in said and "none.so" in said, said
    said = python(ALONE, RCCL_TORCH_CACHE="/proc/none")
    assert "imported" in said and "RCCL_TORCH_CACHE" in said, said


def test_processes_that_come_together_compile_once(tmp_path):
    """A compiler that takes what was compiled before, slowly, and counts."""
    built = next((build._cache() / build._command()[1]).glob("*.so"))
    compiler = tmp_path / "slow"
    compiler.write_text(
        f'#!/bin/sh\necho once >>{tmp_path}/times\nsleep 1\nwhile [ "$1" != -o ]; do shift; done\ncp {built} "$2"\n'
    )
    compiler.chmod(0o755)
    code = "from rccl.torch import build\nprint(build.load().create.__name__)"
    environment = {**os.environ, "RCCL_TORCH_CACHE": str(tmp_path / "cache"), "CXX": str(compiler)}
    processes = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    end = time.monotonic() + 120
    said = [process.communicate(timeout=max(1.0, end - time.monotonic()))[0] for process in processes]
    assert said == ["create\n"] * 4
    assert (tmp_path / "times").read_text() == "once\n"
