"""The hints, as mypy reads them: in the package, against the compiled part, and from a user's program."""

import re
import subprocess
import sys
from pathlib import Path

import rccl

HERE = Path(__file__).parent


def mypy(*arguments, module="mypy", folder=HERE):
    """What it says of a run, and its status."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    return ended.returncode, ended.stdout + ended.stderr


def of_user(program, cache):
    """As a user checks a program over the installed package."""
    return mypy("--strict", "--config-file=", "--cache-dir", cache, HERE / "hints" / program)


def test_the_package_is_what_its_hints_say(tmp_path):
    status, said = mypy("--cache-dir", tmp_path, folder=HERE.parent)
    assert status == 0 and re.search(r"no issues found in \d\d source files", said), said


def test_the_compiled_part_is_what_its_stub_says(tmp_path):
    status, said = mypy("rccl._rccl", module="mypy.stubtest", folder=tmp_path)
    assert status == 0 and "no issues found in 1 module" in said, said


def test_a_program_that_is_right_is_accepted_and_runs(tmp_path):
    status, said = of_user("right.py", tmp_path)
    assert status == 0, said
    subprocess.run([sys.executable, HERE / "hints" / "right.py"], check=True, timeout=60)


def test_every_mistake_is_found(tmp_path):
    lines = (HERE / "hints" / "wrong.py").read_text().splitlines()
    expected = {
        (number, *line.split("# refused: ")[1:]) for number, line in enumerate(lines, 1) if "# refused: " in line
    }
    status, said = of_user("wrong.py", tmp_path)
    found = re.findall(r"wrong\.py:(\d+): error: .*\[([\w-]+)\]$", said, re.M)
    assert status == 1 and {(int(line), code) for line, code in found} == expected, said
    assert len(expected) > 15


def test_checkers_are_told_that_there_are_hints():
    for name in ("py.typed", "_rccl.pyi"):
        assert (Path(rccl.__file__).parent / name).is_file(), name
