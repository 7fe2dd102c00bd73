"""The package: the command, the C interface in its library, the example of its page."""

import ctypes
import re
import subprocess
import sys
from pathlib import Path

import pytest
import rccl

HERE = Path(__file__).parent


def command(*arguments, status=0, **options):
    ended = subprocess.run(
        [sys.executable, "-m", "rccl", *arguments], capture_output=True, text=True, timeout=90, **options
    )
    assert ended.returncode == status, ended.stderr
    return ended


def test_the_command():
    assert command("--version").stdout.startswith(f"rccl {rccl.__version__} (commit ")
    assert "RCCL_TIMEOUT" in command("env").stdout
    assert "RCCL-2001" in command("explain", "RCCL-2001").stdout
    assert "unrecognized" in command("nothing", status=2).stderr
    assert "is no code" in command("explain", "x", status=2).stderr


def test_the_command_starts_ranks_of_itself():
    program = "import os; print(os.environ['RANK'], 'of', os.environ['WORLD_SIZE'])"
    said = command("run", "-n", "2", "--", sys.executable, "-c", program).stdout
    assert sorted(said.splitlines()) == ["[0] 0 of 2", "[1] 1 of 2"]
    assert command("run", "-n", "2", "--", sys.executable, "-c", "raise SystemExit(7)", status=7)
    table = command("perf", "all_reduce", "--ranks", "2", "-e", "1K").stdout
    assert "Out of bounds values : 0 OK" in table


def test_the_example_of_the_page(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (HERE.parent / "README.md").read_text(), re.S)
    program = tmp_path / "mean.py"
    program.write_text(blocks[0])
    said = command("run", "-n", "4", "--", sys.executable, str(program)).stdout
    assert said == "[0] [1.5, 1.5, 1.5, 1.5] (4, 4)\n"


def test_the_library_is_the_c_interface_too():
    header = (Path(rccl.include_directory()) / "roceccl.h").read_text()
    names = set(re.findall(r"^(?:rcclResult_t|const char \*) ?\*?(rccl\w+)\(", header, re.M))
    assert len(names) > 40
    library = ctypes.CDLL(rccl.library())
    for name in names:
        assert hasattr(library, name), name
    version = ctypes.c_int()
    assert library.rcclGetVersion(ctypes.byref(version)) == 0
    assert f"0.{version.value // 100 % 100}.{version.value % 100}" == rccl.__version__


def test_torch_would_find_the_backend():
    """Loading brings in nothing of this package, as that might be what does not load; tests/pytorch has the rest."""
    program = """
import sys
from importlib.metadata import entry_points
[entry] = entry_points(group="torch.distributed.backends", name="rccl")
assert entry.value == "rccl.torch:register"
[entry] = entry_points(group="torch.backends", name="rccl")
assert callable(entry.load()) and "rccl" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


@pytest.mark.parametrize("name", ["numpy", "ml_dtypes", "torch"])
def test_importing_brings_in_nothing_else(name):
    program = f"import sys, rccl; assert {name!r} not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


def test_memory_without_numpy():
    program = """
import sys
sys.modules["numpy"] = None
import rccl
with rccl.Communicator.from_env() as comm:
    x = comm.empty((2, 3), "int32")
    assert isinstance(x, memoryview) and x.shape == (2, 3) and x.tolist() == [[0] * 3] * 2
    x[1, 2] = 5
    gathered = comm.all_gather(x)
    assert gathered.shape == (1, 2, 3) and gathered.tolist() == [x.tolist()], gathered.tolist()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
