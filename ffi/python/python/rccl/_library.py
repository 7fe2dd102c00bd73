"""Where the C interface is, for what is compiled against it."""

from pathlib import Path

from . import _rccl


def library() -> str:
    """The shared object that holds the C interface: this package's own, so that a process has one engine."""
    return _rccl.__file__


def include_directory() -> str:
    """The folder of roceccl.h."""
    return str(Path(__file__).parent / "include")
