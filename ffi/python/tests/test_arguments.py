"""What is refused, and how it is said. One rank is enough for that."""

import ctypes
import inspect
import pickle
import re
import threading
import types
from datetime import timedelta

import ml_dtypes
import numpy as np
import pytest
import rccl
from programs import PLAIN, Packed


@pytest.fixture
def comm():
    with rccl.Communicator.connect(rccl.UniqueId.create(), 0, 1, label="alone") as comm:
        yield comm


def read_only():
    array = np.ones(3)
    array.flags.writeable = False
    return array


def no_letter():
    array = np.ones(4, ml_dtypes.bfloat16)
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    "wrong, kind, words",
    [
        (read_only(), ValueError, "x is read-only"),
        (no_letter(), ValueError, "x is read-only"),
        (b"abc", ValueError, "x is read-only"),
        (Packed(read_only()), ValueError, "x is read-only"),
        (Packed(np.ones(3), versioned=False), ValueError, "x may be read-only, .*: DLPack before version 1.0"),
        (np.ones((4, 4))[:, 1], ValueError, "not one after the other"),
        (np.ones((4, 4)).T, ValueError, "not one after the other"),
        (np.ones(8, ml_dtypes.bfloat16)[::2], ValueError, "not one after the other"),
        (Packed(np.ones((4, 4)).T), ValueError, "not one after the other"),
        (memoryview(bytearray(8))[::2], ValueError, "not one after the other"),
        (np.asfortranarray(np.ones((4, 4), np.float32)), ValueError, "not one after the other"),
        (np.ones(4)[::-1], ValueError, "not one after the other"),
        (np.zeros(4, "M8[s]")[::2], ValueError, "not one after the other"),
        (np.broadcast_to(np.ones(1), (3,)), ValueError, "not one after the other"),
        (types.SimpleNamespace(__array_interface__={"typestr": ">f4"}), TypeError, "type >f4"),
        (types.SimpleNamespace(__array_interface__={"typestr": "<f4"}), TypeError, "does not say where"),
        (types.SimpleNamespace(__array_interface__={}), TypeError, "does not say where"),
        (Packed(np.ones(3, complex)), TypeError, "complex128"),
        (Packed(np.ones(3), device=(2, 1)), TypeError, "device 1 of DLPack's kind 2"),
        (types.SimpleNamespace(__cuda_array_interface__={}), TypeError, "GPU"),
        (types.SimpleNamespace(data_ptr=int, device=types.SimpleNamespace(type="cuda")), TypeError, "device"),
        ([1.0, 2.0], TypeError, "a list, has no memory"),
        (3.0, TypeError, "a float, has no memory"),
        (None, TypeError, "a NoneType, has no memory"),
    ],
)
def test_an_array_that_cannot_be_used(comm, wrong, kind, words):
    with pytest.raises(kind, match="^all_reduce: .*" + words.replace("(", r"\(")) as raised:
        comm.all_reduce(wrong)
    assert ";" in str(raised.value), "it says what to do"
    comm.all_reduce(np.ones(3))  # the communicator is as good as before


@pytest.mark.parametrize(
    "wrong, words",
    [
        (np.array([None]), "type object; .*broadcast_object"),
        (np.zeros(2, [("a", "f4"), ("b", "O")]), "'b', 'O'.*; .*broadcast_object"),
        ((ctypes.py_object * 2)(), "type <O"),
        (memoryview(bytearray(8)).cast("P"), "type P"),
        (np.array(["text"], np.dtypes.StringDType()), "StringDType"),
        (np.ones(3, ">f4"), "float32 in the other order of bytes; .*newbyteorder"),
        (np.ones(3, ">i2"), "int16 in the other order of bytes"),
        (np.zeros(3, ">M8[s]"), r"datetime64\[s\] in the other order of bytes"),
        (np.zeros(3, [("a", "f4"), ("b", ">i4")]), "in the other order of bytes"),
        (np.ones(3, np.dtype(ml_dtypes.bfloat16).newbyteorder(">")), "bfloat16 in the other order of bytes"),
        ((ctypes.c_float.__ctype_be__ * 2)(), "type >f"),
    ],
)
def test_elements_that_are_no_plain_memory_are_not_even_moved(comm, wrong, words):
    calls = (
        comm.all_reduce, comm.reduce, comm.reduce_scatter, comm.broadcast, comm.all_gather, comm.all_to_all, comm.gather,
        comm.scatter, lambda x: comm.send(x, 0), lambda x: comm.recv(x, 0),
        lambda out: comm.all_gather(np.ones(len(out)), out=out),
    )  # fmt: skip
    for call in calls:
        with pytest.raises(TypeError, match=words):
            call(wrong)


@pytest.mark.parametrize("dtype", PLAIN, ids=str)
def test_elements_that_move_are_not_reduced_and_it_is_said_what_to_do(comm, dtype):
    x = np.zeros(2, dtype)
    name = re.escape(str(x.dtype) if x.dtype.fields else x.dtype.name)
    for call in (comm.all_reduce, comm.reduce, comm.reduce_scatter):
        with pytest.raises(TypeError, match=f"^{call.__name__}: elements of type {name} can be moved, but not reduced; "):
            call(x)
    for wrong in (np.zeros(2, "f4"), np.zeros(2, [("other", "i1")])):
        with pytest.raises(rccl.ArgumentError, match=f"x has {name} and out has"):
            comm.broadcast(x, out=wrong)
    assert comm.broadcast(np.zeros((0, 3), dtype)).shape == (0, 3)
    assert comm.all_gather(np.zeros((), dtype)).shape == (1,)
    if dtype in ("bool", "int16", "uint16", "complex64", "complex128"):
        assert comm.empty((2, 3), dtype).dtype == dtype


def test_arrays_that_do_not_fit_each_other(comm):
    wrong = [
        (lambda: comm.all_reduce(np.ones(3), out=np.ones(4)), "out has 4 elements where 3 belong"),
        (lambda: comm.all_reduce(np.ones(3), out=np.ones(3, "f4")), "x has float64 and out has float32"),
        (lambda: comm.all_reduce(np.ones(3), out=read_only()), "out is read-only"),
        (lambda: comm.all_gather(np.ones(3), out=read_only()), "out is read-only"),
        (lambda: comm.all_reduce(np.ones(9), out=np.ones((3, 3)).T), "the elements of out are not one after the other"),
        (lambda: comm.all_gather(np.ones(3), counts=[3, 4]), "counts has 2 entries for 1 ranks"),
        (lambda: comm.all_gather(np.ones(3), counts=[4]), "x has 3 elements where 4 belong"),
        (lambda: comm.all_gather(np.ones(3), counts=[2**64 - 1]), "x has 3 elements"),
        (lambda: comm.reduce_scatter(np.ones(3), counts=[4]), "x has 3 elements where 4 belong"),
        (lambda: comm.all_to_all(np.ones(3), send_counts=[3]), "one of send_counts and recv_counts"),
        (lambda: comm.gather(np.ones(3), counts=True), "counts without numbers"),
        (lambda: comm.scatter(None), "no x"),
        (lambda: comm.broadcast(np.ones(3), 1), "root 1 in a communicator of 1 ranks"),
        (lambda: comm.reduce(np.ones(3), root=7), "root 7 in a communicator of 1 ranks"),
        (lambda: comm.send(np.ones(3), 0), "rank 0 is this rank itself"),
        (lambda: comm.recv(np.ones(3), 9), "9"),
        (lambda: comm.all_reduce(np.ones(3), "band"), "the operator band on elements of type f64"),
        (lambda: comm.shrink([0]), "rank 0"),
        (lambda: comm.barrier(timeout=-1), "timeout is -1"),
        (lambda: comm.barrier(timeout=float("nan")), "timeout is NaN"),
        (lambda: comm.broadcast_object(1, timeout=-1), "timeout is -1"),
    ]
    for function, words in wrong:
        with pytest.raises(rccl.ArgumentError) as raised:
            function()
        error = raised.value
        assert words in str(error) and isinstance(error, ValueError) and error.code == "RCCL-1001", error
        assert error.hint and error.cause and error.op, vars(error)
    for dtype in ("f4", "i2"):
        whole = np.ones(8, dtype)
        for call in (comm.broadcast, comm.all_gather, comm.all_to_all, comm.scatter):
            with pytest.raises(rccl.ArgumentError, match="overlap"):
                call(whole[:4], out=whole[2:6])
    whole = np.ones(8, "f4")
    with pytest.raises(rccl.ArgumentError, match="overlap"):
        comm.all_reduce(whole[:4], out=whole[2:6])


@pytest.mark.parametrize("op", ["", "summ", "premulsum", "SUM ", 3, None, rccl.PreMulSum])
def test_an_operator_that_is_none(comm, op):
    with pytest.raises((ValueError, TypeError), match="operator"):
        comm.all_reduce(np.ones(3), op)


def test_a_factor_that_no_element_can_be(comm):
    with pytest.raises(ValueError, match="0.5"):
        comm.all_reduce(np.ones(3, np.int32), rccl.PreMulSum(0.5))
    assert comm.all_reduce(np.full(2, 4, np.int32), rccl.PreMulSum(3)).tolist() == [12, 12]


def test_numbers_that_are_none_of_ours(comm):
    for function in (
        lambda: comm.broadcast(np.ones(3), -1),
        lambda: comm.broadcast(np.ones(3), 2**40),
        lambda: comm.split(-1),
        lambda: comm.empty(-1),
        lambda: comm.all_gather(np.ones(3), counts=[-1]),
    ):
        with pytest.raises((OverflowError, TypeError, ValueError)):
            function()
    with pytest.raises(TypeError, match="object is no type of elements"):
        comm.empty(3, "object")
    with pytest.raises(rccl.Error):
        comm.empty(2**62)


def test_settings():
    with pytest.raises(rccl.ArgumentError, match="did you mean RCCL_NSOCKS"):
        rccl.Communicator.from_env(nsock=3)
    with pytest.raises(rccl.ArgumentError, match="RCCL_NSOCKS=many") as raised:
        rccl.UniqueId.create(nsocks="many")
    assert raised.value.hint.startswith("expected ") and str(raised.value).endswith(raised.value.hint)
    with rccl.Communicator.from_env(init_timeout=0.5, late_warn=2, shm_disable=True, timeout=3) as comm:
        assert (comm.rank, comm.size, comm.local_rank) == (0, 1, 0)


def test_joining_says_who_is_missing():
    id = rccl.UniqueId.create()
    with pytest.raises(rccl.Error, match="missing 1") as raised:
        rccl.Communicator.connect(id, 0, 2, init_timeout=0.5)
    error = raised.value
    assert error.code == "RCCL-1003" and error.rank == 0 and error.hint and error.cause
    with pytest.raises(rccl.ArgumentError, match="rank 2 of 2 ranks"):
        rccl.Communicator.connect(id, 2, 2)


def test_ids_pickle_and_what_belongs_to_a_process_does_not(comm):
    id = rccl.UniqueId.create()
    same = pickle.loads(pickle.dumps(id))
    assert same == id and hash(same) == hash(id) and bytes(same) == bytes(id) and len(bytes(id)) == 128
    assert same != rccl.UniqueId.create() and bytes(id).hex() not in repr(id)
    assert rccl.UniqueId.from_bytes(bytes(id)) == id
    for wrong in (b"", bytes(128), bytes(id) + b"\0"):
        with pytest.raises(rccl.ArgumentError, match="id"):
            rccl.UniqueId.from_bytes(wrong)
    for object in (comm, comm.barrier(async_op=True)):
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(object)


def test_groups(comm):
    x, y = np.ones(3), np.zeros(3)
    with rccl.group():
        comm.send(x, 0)
        comm.recv(y, 0)
        comm.all_reduce(x)
    assert y.tolist() == [1, 1, 1]
    with pytest.raises(rccl.ArgumentError, match=r"in a group; .*rccl.group\(async_op=True\)"), rccl.group():
        comm.barrier(async_op=True)
    with pytest.raises(rccl.ArgumentError, match="root 5"), rccl.group():
        comm.broadcast(x, 5)
    with pytest.raises(rccl.ArgumentError), rccl.group():
        comm.send(x, 0)  # nobody receives it
    with pytest.raises(RuntimeError, match="no group"):
        rccl.nccl.groupEnd()
    with pytest.raises(rccl.ArgumentError, match="in a group"), rccl.group():
        comm.broadcast_object(x)
    comm.barrier()


def test_groups_that_do_not_block(comm):
    x, y = np.ones(3), np.zeros(3)
    with rccl.group(async_op=True, timeout=30) as work:
        assert not work.done() and "open" in repr(work)
        with pytest.raises(rccl.ArgumentError, match="the group is still open"):
            work.wait()
        comm.send(x, 0, timeout=timedelta(seconds=20))
        comm.recv(y, 0)
        with rccl.group() as inner:
            assert inner is work, "the outermost makes all calls"
    assert isinstance(work, rccl.Work) and work.wait() is None and work.done() and y.tolist() == [1, 1, 1]
    assert repr(work) == "<rccl.Work: group of 2 calls: send f64 x3 to rank 0, recv f64 x3 from rank 0, ended>"
    with rccl.group() as work:
        comm.barrier()
    assert work.done() and work.wait() is None
    with rccl.group(async_op=True) as work:
        pass
    assert work.wait() is None
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(work)


def test_a_group_that_was_given_up(comm):
    x = np.ones(3)
    with pytest.raises(KeyError), rccl.group(async_op=True) as work:
        comm.recv(x, 0)
        raise KeyError
    for async_op in (False, True):
        with pytest.raises(rccl.ArgumentError, match="receives from itself"), rccl.group(async_op=async_op) as other:
            comm.recv(x, 0)
        with pytest.raises(rccl.ArgumentError, match="nothing of the group was made"):
            other.wait()
    assert work.done() and "not made" in repr(work)
    with pytest.raises(rccl.ArgumentError, match="nothing of the group was made"):
        work.wait()
    with pytest.raises(rccl.ArgumentError, match="a group in it was given up"), rccl.group():
        comm.recv(x, 0)
        with pytest.raises(KeyError), rccl.group():
            raise KeyError
        comm.recv(x, 0)
    with pytest.raises(rccl.ArgumentError, match="root 5"), rccl.group() as work:
        with pytest.raises(rccl.ArgumentError, match="root 5"):
            comm.broadcast(x, 5)
        comm.recv(x, 0)
    with pytest.raises(rccl.ArgumentError, match="the outermost group"), rccl.group(), rccl.group(async_op=True):
        pass
    for wrong in (-1, float("nan")):
        with pytest.raises(rccl.ArgumentError, match="timeout is"), rccl.group(timeout=wrong):
            pass
        with pytest.raises(rccl.ArgumentError, match="timeout is"), rccl.group():
            comm.barrier(timeout=wrong)
    with pytest.raises(TypeError):
        rccl.group(True)
    with pytest.raises(TypeError, match="int16"), rccl.group():
        comm.all_reduce(np.ones(3, np.int16))
    assert comm.all_reduce(x).tolist() == [1, 1, 1], "no group is open, and the communicator as good as before"


def test_a_communicator_that_was_closed():
    comm = rccl.Communicator.connect(rccl.UniqueId.create(), 0, 1, label="rows")
    assert repr(comm) == '<rccl.Communicator "rows": rank 0 of 1>' and comm.label == "rows"
    comm.close()
    comm.close()
    with pytest.raises(rccl.Error, match="rows: used after finish") as raised:
        comm.barrier()
    assert raised.value.code == "RCCL-1006" and raised.value.hint.startswith("call finish after the last call")
    comm = rccl.Communicator.from_env()
    comm.abort("enough")
    with pytest.raises(rccl.Error, match="enough"):
        comm.check()
    comm.close()


def test_any_object_with_memory(comm):
    numbers = (ctypes.c_float * 3)(1, 2, 3)
    assert comm.all_reduce(numbers) is numbers and list(numbers) == [1, 2, 3]
    x = np.ones(3, np.float32)
    bare = types.SimpleNamespace(__array_interface__=x.__array_interface__)
    comm.all_reduce(bare, rccl.PreMulSum(3))
    assert x.tolist() == [3, 3, 3]
    scalar = np.array(2.0)
    assert comm.all_reduce(scalar) is scalar
    assert comm.all_gather(scalar).shape == (1,)
    assert comm.reduce_scatter(np.ones((4, 3))).shape == (4, 3)
    assert comm.all_reduce(np.ones((0, 3))).shape == (0, 3)
    assert comm.all_to_all(np.ones((2, 3))).shape == (2, 3)


def test_threads_share_a_communicator(comm):
    arrays = [np.full(1000, n) for n in range(8)]
    threads = [threading.Thread(target=lambda x=x: [comm.all_reduce(x) for _ in range(100)]) for x in arrays]
    [thread.start() for thread in threads]
    [thread.join(30) for thread in threads]
    assert [x[0] for x in arrays] == list(range(8))


def test_everything_public_says_what_it_does():
    for thing in (rccl.Communicator, rccl.Work, rccl.UniqueId, rccl.PreMulSum, rccl.group, rccl.nccl):
        assert thing.__doc__
    for class_ in (rccl.Communicator, rccl.Work, rccl.nccl.NcclCommunicator, rccl.nccl.Stream):
        assert class_.__doc__
        for name, method in inspect.getmembers(class_):
            if not name.startswith("_"):
                assert method.__doc__, name
    assert str(inspect.signature(rccl.Communicator.all_reduce)) == (
        "(self, /, x, op='sum', *, out=None, async_op=False, timeout=None)"
    )
    assert list(inspect.signature(rccl.group).parameters) == ["async_op", "timeout"]
    for name, method in inspect.getmembers(rccl.nccl.NcclCommunicator, inspect.isfunction):
        if name in ("allReduce", "reduce", "broadcast", "bcast", "reduceScatter", "allGather", "send", "recv"):
            assert list(inspect.signature(method).parameters)[-1] == "stream", "as in cupy"
