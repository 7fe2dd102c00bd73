"""Runs the conformance tests of c10d backends that every torch brings along.

    python conformance.py [-v] [TestBackend.test_all_reduce_sum ...]

``torch/testing/_internal/distributed/distributed_test.py`` is torch's own suite. Its decorators keep many tests for the backends
that torch knows by name, so a run takes the name of one of them for those decorators:

=================  ==========================================================================================
``BACKEND``        what is tested ("rccl")
``AS``             whose tests: "gloo", or "mpi" (all_to_all, groups)
``WORLD_SIZE``     how many ranks (2)
``TEST_TIMEOUT``   how many seconds one test may take (100)
``EXCEPT``         tests that are not run, separated by commas
=================  ==========================================================================================

Ranks are forked, not started anew: that saves the seconds that ``import torch`` takes, for every rank of every test.
"""

import ast
import inspect
import os
import pathlib

BACKEND = os.environ.setdefault("BACKEND", "rccl")
GUISE = os.environ.get("AS", "gloo")
RANKS = int(os.environ.setdefault("WORLD_SIZE", "2"))
os.environ.setdefault("INIT_METHOD", "env://")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch  # noqa: E402
import torch.multiprocessing  # noqa: E402
from torch.testing._internal import common_distributed  # noqa: E402

if BACKEND == "rccl":
    import rccl.torch  # noqa: F401
    from rccl.torch import build

    build.load()  # once, before the first test's clock runs
torch.set_num_threads(1)

# The decorators read these when the suite is imported.
for feature in ("gpu", "ddp", "subgroup", "plugin"):
    common_distributed.DistTestCases.backend_feature[feature].add(BACKEND)
common_distributed.TIMEOUT_DEFAULT = int(os.environ.get("TEST_TIMEOUT", "100"))
os.environ["BACKEND"] = GUISE
from torch.testing._internal.distributed import distributed_test as suite  # noqa: E402

suite.BACKEND = BACKEND  # what init_process_group is called with


def without_hope() -> set[str]:
    """Tests that would start ranks only to find that they want a GPU or other numbers of ranks."""
    found = set()
    for node in ast.walk(ast.parse(pathlib.Path(suite.__file__).read_text())):
        if not isinstance(node, ast.FunctionDef) or not node.name.startswith("test_"):
            continue
        for decorator in map(ast.unparse, node.decorator_list):
            gpu = decorator.startswith(("skip_if_no_gpu", "skip_if_lt_x_gpu", "nccl_skip_if", "skip_if_rocm"))
            few = decorator.startswith("skip_if_small_worldsize") and RANKS < (3 if GUISE == "mpi" else 8)
            odd = decorator.startswith("skip_if_odd_worldsize") and RANKS % 2 and GUISE != "mpi"
            if gpu or few or odd:
                found.add(node.name)
    return found


class TestBackend(suite.TestDistBackend, suite.DistributedTest._DistTestBase):
    def setUp(self):
        super().setUp()
        self._start_processes(torch.multiprocessing.get_context("fork").Process)


def refused_by_name() -> set[str]:
    """Some older torch's monitored_barrier itself refused every group that is not called gloo."""
    by_name = "only implemented for GLOO" in inspect.getsource(torch.distributed.monitored_barrier)
    return {name for name in dir(TestBackend) if by_name and BACKEND != "gloo" and "monitored_barrier_gloo" in name}


left_out = without_hope() | refused_by_name() | set(filter(None, os.environ.get("EXCEPT", "").split(",")))
# It is asked for by name when a test is set up.
for name in left_out - {"test_ddp_has_finalized"}:
    setattr(TestBackend, name, None)

if __name__ == "__main__":
    from torch.testing._internal.common_utils import run_tests

    run_tests()
