"""What calls compute, on real processes."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from jobs import run
from rccl import nccl


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_every_collective_type_and_operator_gives_what_plain_arithmetic_says(ranks):
    calls = run(ranks, "every_value")
    assert min(calls) == max(calls) > 1000


def test_values_between_processes_that_share_no_memory():
    assert len(run(2, "every_value", RCCL_SHM_DISABLE="1")) == 2


@pytest.mark.parametrize("ranks", [2, 4])
def test_blocks_of_different_lengths(ranks):
    assert all(run(ranks, "unequal_blocks"))


@pytest.mark.parametrize("ranks", [2, 3])
def test_types_that_are_only_moved(ranks):
    assert all(run(ranks, "every_movement"))


def test_elements_at_any_address():
    assert all(run(2, "off_boundaries"))


def test_operands_multiplied_by_each_ranks_factor():
    assert all(run(2, "factors"))


def test_calls_that_do_not_block():
    assert all(run(3, "without_blocking"))


def test_groups_that_do_not_block():
    assert all(run(2, "groups_without_blocking"))


def test_other_threads_run_while_one_waits():
    assert min(run(2, "beside")) > 10


def test_a_wait_may_end_before_its_call():
    assert all(run(2, "impatience"))


def test_communicators_of_some_ranks_and_objects():
    assert all(run(4, "parts"))


def test_every_kind_of_array():
    assert run(2, "kinds") == [5, 5]


def test_the_low_level():
    for errors in run(2, "low_level"):
        assert all(error.startswith("NCCL_INVALID_ARGUMENT: ") for error in errors)
        assert "99" in errors[0] and "99" in errors[1] and "null pointer" in errors[2]
        assert "root 99" in errors[3] and "no memory is that large" in errors[4]


def test_the_low_level_on_streams():
    for rank, error in enumerate(run(2, "streams")):
        assert "MismatchError" in error["bases"] and error["code"] == "RCCL-2001" and error["rank"] == rank
        assert "rank 0 all_reduce f32 x4 max" in error["text"] and "rank 1 all_reduce f32 x4 sum" in error["text"]


@pytest.mark.parametrize("devices", [1, 3, [0, 2], (5,)])
def test_all_ranks_in_one_process(devices):
    comms = nccl.NcclCommunicator.initAll(devices)
    size = devices if isinstance(devices, int) else len(devices)
    assert [(comm.rank_id(), comm.size()) for comm in comms] == [(rank, size) for rank in range(size)]
    arrays, streams = [np.zeros(1000) for _ in comms], [nccl.Stream() for _ in comms]
    total = sum(range(1, size + 1))
    for _ in range(3):
        nccl.groupStart()
        for rank, (comm, x) in enumerate(zip(comms, arrays)):
            x[:] = rank + 1
            comm.allReduce(x.ctypes.data, x.ctypes.data, x.size, nccl.NCCL_DOUBLE, nccl.NCCL_MAX)
        nccl.groupEnd()
        assert all((x == size).all() for x in arrays)
        for rank, (comm, x, stream) in enumerate(zip(comms, arrays, streams)):
            x[:] = rank + 1
            comm.allReduce(x.ctypes.data, x.ctypes.data, x.size, nccl.NCCL_DOUBLE, nccl.NCCL_SUM, stream.ptr)
        for x, stream in zip(arrays, streams):
            stream.synchronize(30)
            assert (x == total).all()
    with pytest.raises(nccl.NcclError, match="no CUDA device"):
        comms[0].device_id()
    with ThreadPoolExecutor(size) as threads:
        list(threads.map(nccl.NcclCommunicator.destroy, comms))


@pytest.mark.parametrize("devices", [0, -1, [], 1_000_000])
def test_a_number_of_ranks_that_cannot_be(devices):
    with pytest.raises(nccl.NcclError, match="NCCL_INVALID_ARGUMENT: initAll: ") as raised:
        nccl.NcclCommunicator.initAll(devices)
    assert raised.value.status == 4


def test_a_forked_child_is_told():
    assert run(2, "forked") == [0, 0]


def test_tensors():
    pytest.importorskip("torch")
    for errors in run(2, "tensors"):
        for word, (text, of_the_kind) in errors.items():
            assert word in text and of_the_kind, errors
