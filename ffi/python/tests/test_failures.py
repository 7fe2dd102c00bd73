"""What is raised when something breaks, on all ranks."""

import os
import signal
import time
from pathlib import Path

import pytest
from jobs import Job, run


def advises(error, words):
    """Its last words say what to do, and are a field too."""
    assert words in error["hint"] and error["text"].endswith("; " + error["hint"]), error
    assert error["hint"] not in error["cause"], error


def test_a_mismatch_names_both_calls_on_every_rank():
    for rank, error in enumerate(run(2, "mismatch")):
        assert "MismatchError" in error["bases"] and "Error" in error["bases"]
        assert (error["code"], error["rank"], error["peer"], error["sequence"]) == ("RCCL-2001", rank, 1 - rank, 2)
        advises(error, "all ranks make the same calls in the same order")
        assert error["op"] == ("all_reduce i32 x1000 max" if rank else "all_reduce f32 x1000 sum")
        assert error["text"].startswith("dp: mismatch at op #2: ") and error["cause"] in error["text"]
        for call in ("rank 0 all_reduce f32 x1000 sum", "rank 1 all_reduce i32 x1000 max"):
            assert call in error["cause"]


@pytest.mark.parametrize("program", ["late", "late_in_background"])
def test_a_call_with_a_deadline_fails_on_all_ranks_and_names_who_is_missing(program):
    errors = run(2, program)
    for error in errors:
        assert error["bases"].count("TimeoutError") == 2, "ours and Python's"
        assert error["code"] == "RCCL-2003" and error["sequence"] == 2
        advises(error, "see what keeps the missing ranks")
        assert "timed out after 0.3 s on rank 0" in error["text"] and "rank 1 is in no call" in error["cause"]
    assert errors[0]["peer"] == 1 and errors[0]["op"] == "all_reduce f64 x3 sum"


def test_an_object_with_a_deadline_fails_on_all_ranks():
    errors = run(2, "late_object")
    for error in errors:
        assert error["code"] == "RCCL-2003" and "timed out after 0.3 s on rank 0" in error["text"]
        advises(error, "see what keeps the missing ranks")
    assert errors[0]["peer"] == 1 and errors[0]["op"] == "broadcast u64 x1 root 1"


@pytest.mark.parametrize("where", ["group", "call", "both", "background"])
def test_a_group_with_a_deadline_fails_on_all_ranks_and_names_who_is_missing(where):
    errors = run(2, "late_in_a_group", where)
    for rank, error in enumerate(errors):
        assert error["bases"].count("TimeoutError") == 2, "ours and Python's"
        assert (error["code"], error["rank"], error["sequence"]) == ("RCCL-2003", rank, 2)
        assert "timed out after 0.3 s on rank 0" in error["text"] and "rank 1 is in no call" in error["cause"]
        assert error["cause"] in error["text"] and error["pid"] and error["host"]
        advises(error, "RCCL_TIMEOUT")
    assert errors[0]["peer"] == 1 and errors[0]["op"] == "group of 2 calls: all_reduce f64 x3 sum, barrier"


@pytest.mark.parametrize("async_op", [False, True])
def test_a_mismatch_in_a_group_names_both_calls(async_op):
    for rank, error in enumerate(run(2, "mismatch_in_a_group", async_op)):
        assert "MismatchError" in error["bases"]
        assert (error["code"], error["rank"], error["peer"], error["sequence"]) == ("RCCL-2001", rank, 1 - rank, 3)
        assert error["text"].startswith("dp: mismatch at op #3: ") and error["cause"] in error["text"]
        for call in ("rank 0 all_reduce f32 x10000 sum", "rank 1 all_reduce f32 x10000 max"):
            assert call in error["cause"]
        assert error["op"].startswith("group of 2 calls: broadcast f32 x10000 root 0, all_reduce f32 x10000 ")


def test_a_killed_rank_is_named_by_the_others():
    with Job(3, "killed") as job:
        for rank in range(3):
            job.wait_for(rank, "there")
        time.sleep(0.3)
        at = time.time()
        os.kill(job.pid(1), signal.SIGKILL)
        ended = job.ends()
        pid = job.pid(1)
    assert ended[1].status == -signal.SIGKILL
    for end in (ended[0], ended[2]):
        error = end.answer
        assert "PeerLostError" in error["bases"] and "ConnectionError" in error["bases"]
        assert (error["code"], error["peer"], error["op"]) == ("RCCL-2002", 1, "all_reduce f64 x100 sum")
        assert f"pid {pid}" in error["text"] and "rank 1" in error["cause"]
        advises(error, "see what rank 1 printed last")
        assert error["at"] - at < 3


def test_a_link_that_breaks_names_both_ends():
    for rank, error in enumerate(run(2, "link_lost")):
        assert "PeerLostError" in error["bases"] and "ConnectionError" in error["bases"]
        assert (error["code"], error["rank"], error["peer"], error["sequence"]) == ("RCCL-2005", rank, 1 - rank, 2)
        assert error["op"] == "all_reduce f64 x3 sum" and error["text"].startswith("dp: ")
        assert "the tcp link between rank" in error["cause"]
        advises(error, "RCCL_SOCKET_IFNAME")


@pytest.mark.parametrize("kind", ["idle", "under way"])
def test_the_end_of_the_interpreter_waits_for_nobody(kind):
    with Job(3, "ends_alone", kind) as job:
        job.wait_for(0, "leaving")
        at = time.monotonic()
        status = job.processes[0][0].wait(20)
        took = time.monotonic() - at
        said = job.said(0)
    assert status == 0, said
    assert took < 2, "a second, and what Python takes itself on a busy machine"


@pytest.mark.parametrize("kind", ["blocking", "repeated", "work", "split", "group", "group's work", "stream"])
def test_ctrl_c_raises_at_once_and_is_what_the_others_are_told(kind):
    with Job(3, "interrupted", kind) as job:
        job.wait_for(0, "there")
        time.sleep(0.3)
        at = time.time()
        os.kill(job.pid(0), signal.SIGINT)
        ended = job.ends()
    assert ended[0].status == 0, ended[0].said
    assert ended[0].answer["interrupted"] - at < 0.2
    others = ended[1:] if kind in ("blocking", "repeated") else ended[1:2]
    for end in others:
        error = end.answer
        assert error["code"] == "RCCL-2004" and error["peer"] == 0
        assert "rank 0" in error["cause"] and "KeyboardInterrupt" in error["cause"]
        advises(error, "see what rank 0 printed, if that does not say enough")


def masks(pid):
    """A process's threads, and the signals that each blocks."""
    for place in Path(f"/proc/{pid}/task").iterdir():
        try:
            status = (place / "status").read_text()
        except OSError:
            continue  # it has ended
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        yield fields["Name"], int(fields["SigBlk"], 16)


@pytest.mark.parametrize("program", [["interrupted_joining"], ["interrupted", "work"]])
def test_no_handler_runs_on_the_librarys_threads(program):
    with Job(3, *program) as job:
        if program == ["interrupted_joining"]:
            job.processes[1][0].kill()  # it never comes
        job.wait_for(0, "there")
        end = time.monotonic() + 20
        while len(ours := {name: blocked for name, blocked in masks(job.pid(0)) if name.startswith("rccl")}) < 2:
            assert time.monotonic() < end, ours
            time.sleep(0.05)
        os.kill(job.pid(0), signal.SIGINT)
    assert "rccl-control" in ours, ours
    for name, blocked in ours.items():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGPIPE, signal.SIGCHLD, signal.SIGALRM):
            assert blocked >> (number - 1) & 1, f"{name} can be interrupted by {number!r}"


def test_ctrl_c_while_joining():
    with Job(2, "interrupted_joining") as job:
        job.processes[1][0].kill()  # rank 1 never comes
        job.wait_for(0, "there")
        time.sleep(0.3)
        at = time.time()
        os.kill(job.pid(0), signal.SIGINT)
        ended = job.ends()
    assert ended[0].status == 0, ended[0].said
    assert ended[0].answer["interrupted"] - at < 0.2


@pytest.mark.parametrize("guarded", [True, False])
def test_an_exception_that_ends_a_rank_is_the_first_cause(guarded):
    with Job(2, "uncaught", guarded) as job:
        ended = job.ends()
    assert ended[0].status == 1 and "FileNotFoundError: no such data" in ended[0].said
    assert ended[1].status == 0, ended[1].said
    error = ended[1].answer
    assert error["code"] == "RCCL-2004" and error["peer"] == 0
    assert "FileNotFoundError: no such data" in error["cause"]
    advises(error, "see what rank 0 printed")


@pytest.mark.parametrize("how", ["plain", "guarded", "under way"])
def test_the_end_of_a_rank_disturbs_nobody_who_does_without_it(how):
    assert run(3, "farewell", how) == [None, True, True]
