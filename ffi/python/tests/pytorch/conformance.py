"""Runs the conformance tests of c10d backends that every torch brings along.

    python conformance.py [-v] [TestBackend.test_all_reduce_sum ...]

``torch/testing/_internal/distributed/distributed_test.py`` is torch's own suite. Its decorators keep many tests for the backends
that torch knows by name, so a run takes the name of one of them for those decorators:

=================  ==========================================================================================
``BACKEND``        what is tested ("rccl"); "gloo" is torch's, or rccl's with ``RCCL_REPLACE_GLOO=1``
``AS``             whose tests: "gloo", or "mpi" (all_to_all, groups)
``WORLD_SIZE``     how many ranks (2)
``TEST_TIMEOUT``   how many seconds one test may take (100)
``EXCEPT``         tests that are not run, separated by commas
=================  ==========================================================================================

Ranks are forked, not started anew: that saves the seconds that ``import torch`` takes, for every rank of every test.
"""

import ast
import functools
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

OURS = BACKEND == "rccl" or os.environ.get("RCCL_REPLACE_GLOO", "") not in ("", "0")
if OURS:
    import rccl.torch
    from rccl.torch import build

    build.load()  # once, before the first test's clock runs
    rccl.torch.autoload()  # as `import torch` does where the package is installed with its entry point
torch.set_num_threads(1)

# The decorators read these when the suite is imported.
for feature in ("gpu", "ddp", "subgroup", "plugin"):
    common_distributed.DistTestCases.backend_feature[feature].add(BACKEND)
common_distributed.TIMEOUT_DEFAULT = int(os.environ.get("TEST_TIMEOUT", "100"))
os.environ["BACKEND"] = GUISE
from torch.testing._internal.distributed import distributed_test as suite  # noqa: E402

suite.BACKEND = BACKEND  # what init_process_group is called with


def by_its_own_name(found):
    """A ``get_profiling_event`` that knows: profilers see calls as "rccl:...", also where rccl stands in for gloo."""

    @functools.wraps(found)
    def events(name, *rest, **named):
        seen = found(name.replace("gloo:", "rccl:"), *rest, **named)
        for event in seen:
            event.name = event.name.replace("rccl:", f"{BACKEND}:")
        return seen

    return events


if OURS:
    suite.get_profiling_event = by_its_own_name(suite.get_profiling_event)
    suite.PROFILING_SUPPORTED_BACKENDS.append(BACKEND)
    suite.SEND_RECV_PROFILING_SUPPORTED_BACKENDS.append(BACKEND)


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


def whose_it_is(initialize):
    """An ``init_process_group`` after which the backend is known to be rccl's, whatever the group says of itself."""

    @functools.wraps(initialize)
    def initialized(*arguments, **named):
        initialize(*arguments, **named)
        made_by = torch.distributed.group.WORLD._get_backend(torch.device("cpu")).name()
        assert made_by == "rccl", f"a group of {made_by}'s was made, not of rccl's"

    return initialized


if OURS:
    torch.distributed.init_process_group = whose_it_is(torch.distributed.init_process_group)


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
