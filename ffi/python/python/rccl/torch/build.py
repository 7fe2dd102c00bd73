"""Compiles the backend when it is first needed, and keeps it.

The backend is C++ against the headers of the torch that is installed, whose interface differs from release to release. So it
is compiled here, once for each torch, and kept under ``$XDG_CACHE_HOME/rccl/torch`` (``~/.cache`` without that). Processes
that come at the same time wait for the one that compiles.

========================  =========================================================================
``RCCL_TORCH_CACHE``      where what was compiled is kept
``RCCL_TORCH_LIBRARY``    the library to use, instead of the one in this package
``RCCL_TORCH_INCLUDE``    the folder with its ``roceccl.h``
``CXX``                   the compiler, instead of ``g++``, ``c++`` or ``clang++``
========================  =========================================================================
"""

import contextlib
import ctypes
import fcntl
import hashlib
import importlib.machinery
import importlib.util
import os
import shutil
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

MODULE = "rccl_torch"
FOLDER = Path(__file__).resolve().parent
#: How long a process waits for another one that compiles.
PATIENCE = 600.0


class Command(NamedTuple):
    """What compiles the module, without input and output."""

    flags: list[str]
    link: list[str]


class BuildError(ImportError):
    """The backend could not be compiled; says what is missing."""


def library() -> Path:
    """The library whose functions the backend calls: the one that this process has, or will have, for ``import rccl``."""
    if named := os.environ.get("RCCL_TORCH_LIBRARY"):
        return _existing(Path(named), "RCCL_TORCH_LIBRARY names it")
    found = importlib.util.find_spec("rccl._rccl")
    if found is None or found.origin is None:
        raise BuildError("rccl.torch: the module rccl._rccl is missing; install roceccl with pip")
    return Path(found.origin)


def include() -> Path:
    """The folder with the library's header."""
    named = os.environ.get("RCCL_TORCH_INCLUDE")
    folder = Path(named) if named else FOLDER.parent / "include"
    _existing(folder / "roceccl.h", "RCCL_TORCH_INCLUDE names its folder" if named else "the package has it")
    return folder


def load() -> ModuleType:
    """The compiled module. Compiles it if nobody did for this torch, this library and these sources."""
    library_path = library()
    command, key = _command()
    built = _cache() / key / f"{MODULE}.so"
    if not built.exists():
        _build(command, built)
    # The functions that the module calls. A library that the process has already is found, not loaded again.
    ctypes.CDLL(str(library_path), mode=ctypes.RTLD_GLOBAL)
    loader = importlib.machinery.ExtensionFileLoader(MODULE, str(built))
    spec = importlib.machinery.ModuleSpec(MODULE, loader, origin=str(built))
    spec.has_location = True
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def _existing(path: Path, why: str) -> Path:
    if not path.is_file():
        raise BuildError(f"rccl.torch: there is no {path} ({why})")
    return path


def _cache() -> Path:
    if named := os.environ.get("RCCL_TORCH_CACHE"):
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "rccl" / "torch"


def _sources() -> list[Path]:
    return sorted(FOLDER.glob("*.cpp"))


def _command() -> tuple[Command, str]:
    """The command, and the name of what comes out of it."""
    import torch

    release = tuple(int(number) for number in torch.__version__.split("+")[0].split(".")[:2])
    root = Path(torch.__file__).parent
    flags = [
        "-std=c++20" if release >= (2, 9) else "-std=c++17",
        "-O2",
        "-fPIC",
        "-shared",
        "-Wno-suggest-override",
        "-fvisibility=hidden",
        f"-DRCCL_TORCH_MODULE={MODULE}",
        f"-D_GLIBCXX_USE_CXX11_ABI={int(torch._C._GLIBCXX_USE_CXX11_ABI)}",
    ]
    # Older ones must be told with what torch's own Python types were made, to share them.
    for name in ("COMPILER_TYPE", "STDLIB", "BUILD_ABI"):
        if value := getattr(torch._C, f"_PYBIND11_{name}", None):
            flags.append(f'-DPYBIND11_{name}="{value}"')
    digest = hashlib.sha256()
    for part in [torch.__version__, sysconfig.get_config_var("SOABI") or "", *flags]:
        digest.update(part.encode() + b"\0")
    for path in [*_sources(), *sorted(FOLDER.glob("*.h")), include() / "roceccl.h"]:
        digest.update(path.read_bytes())
    folders = [FOLDER, include(), root / "include", root / "include/torch/csrc/api/include"]
    flags += [f"-I{folder}" for folder in folders] + [f"-I{sysconfig.get_paths()['include']}"]
    link = [f"-L{root / 'lib'}", "-lc10", "-ltorch", "-ltorch_cpu", "-ltorch_python"]
    return Command(flags, link), f"{torch.__version__}-{digest.hexdigest()[:16]}"


def _compiler() -> str:
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "c++", "clang++"]
    for name in names:
        if found := shutil.which(name):
            return found
    raise BuildError(
        f"rccl.torch: no C++ compiler ({', '.join(names)}) was found, which compiles the backend for this torch once; install"
        " g++ (apt-get install g++, dnf install gcc-c++), or name another one in CXX"
    )


def _build(command: Command, built: Path) -> None:
    compiler = _compiler()
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if not header.is_file():
        raise BuildError(
            f"rccl.torch: Python's headers are missing ({header}), which the backend is compiled with; install them"
            " (apt-get install python3-dev, dnf install python3-devel)"
        )
    try:
        built.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BuildError(
            f"rccl.torch: what is compiled cannot be kept in {built.parent}: {error}; name another folder in RCCL_TORCH_CACHE"
        ) from error
    with _locked(built.with_suffix(".lock")):
        if not built.exists():
            _compile(compiler, command, built)


def _compile(compiler: str, command: Command, built: Path) -> None:
    with tempfile.TemporaryDirectory(dir=built.parent) as folder:
        # All at once: most of the time goes into torch's headers.
        all_sources = Path(folder) / "all.cpp"
        all_sources.write_text("".join(f'#include "{path.name}"\n' for path in _sources()))
        output = Path(folder) / built.name
        line = [compiler, *command.flags, "-o", str(output), str(all_sources), *command.link]
        done = subprocess.run(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        if done.returncode != 0:
            log = built.with_suffix(".log")
            log.write_text(" ".join(line) + "\n" + done.stdout)
            errors = [text for text in done.stdout.splitlines() if "error" in text or "cannot find" in text]
            first = "\n  ".join((errors or done.stdout.splitlines())[:5])
            raise BuildError(
                f"rccl.torch: {compiler} could not compile the backend (status {done.returncode}); all that it said is in"
                f" {log}:\n  {first}\nA C++20 compiler (g++ 10 or later) and the headers of this torch are needed."
            )
        os.replace(output, built)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds a lock that ends with its process."""
    end = time.monotonic() + PATIENCE
    with open(path, "w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise BuildError(
                        f"rccl.torch: another process has been compiling for {PATIENCE:.0f} s (it holds {path})"
                    ) from None
                time.sleep(0.1)
        yield
