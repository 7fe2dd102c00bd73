"""What calls compute, on real processes."""

import pytest
from jobs import run


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_every_collective_type_and_operator_gives_what_plain_arithmetic_says(ranks):
    calls = run(ranks, "every_value")
    assert min(calls) == max(calls) > 1000


def test_values_between_processes_that_share_no_memory():
    assert len(run(2, "every_value", RCCL_SHM_DISABLE="1")) == 2


@pytest.mark.parametrize("ranks", [2, 4])
def test_blocks_of_different_lengths(ranks):
    assert all(run(ranks, "unequal_blocks"))


def test_operands_multiplied_by_each_ranks_factor():
    assert all(run(2, "factors"))


def test_calls_that_do_not_block():
    assert all(run(3, "without_blocking"))


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
        assert "root 99" in errors[3] and "no memory is that large" in errors[4] and "stream" in errors[5]


def test_a_forked_child_is_told():
    assert run(2, "forked") == [0, 0]


def test_tensors():
    pytest.importorskip("torch")
    for errors in run(2, "tensors"):
        for word, (text, of_the_kind) in errors.items():
            assert word in text and of_the_kind, errors
