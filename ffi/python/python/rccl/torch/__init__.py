"""The backend "rccl" of ``torch.distributed``, for tensors on the CPU::

    import rccl.torch
    torch.distributed.init_process_group("rccl")

Where roceccl is installed by pip, ``import rccl.torch`` can be left out. With ``RCCL_REPLACE_GLOO=1`` in the environment programs
that ask for "gloo" get it too, unchanged. It is compiled when the first process group is made (:mod:`rccl.torch.build`).
"""

import functools
import os
import types
from datetime import timedelta
from typing import Any

__all__ = ["register", "replace_gloo"]

_module: types.ModuleType | None = None


def register() -> None:
    """Makes "rccl" known to ``torch.distributed``. Importing this module does it too."""
    import torch.distributed as dist

    if not dist.is_available() or "RCCL" in dist.Backend._plugins:
        return
    dist.Backend.register_backend("rccl", _create, extended_api=True, devices=["cpu"])


def autoload() -> None:
    """:func:`register`, and :func:`replace_gloo` if the environment says so: what ``import torch`` has done."""
    register()
    if os.environ.get("RCCL_REPLACE_GLOO", "") not in ("", "0"):
        replace_gloo()


def replace_gloo() -> None:
    """Has ``init_process_group("gloo")`` make this backend from now on. Its groups say "gloo" when they are asked."""
    import torch.distributed as dist
    from torch.distributed import distributed_c10d as c10d

    if not dist.is_available():
        return
    register()
    # Not as torch's own type: DDP's logger takes what has that for torch's object, and reads what is not there.
    if hasattr(dist.Backend, "_ensure_backend_registered"):
        dist.Backend.register_backend("gloo", _create, extended_api=True, devices=["cpu"])
    elif hasattr(c10d, "ProcessGroupGloo") and not isinstance(c10d.ProcessGroupGloo, _InsteadOf):
        # Before 2.14 gloo is no plugin: its class is called by name, and what comes of it gets its type.
        c10d.ProcessGroupGloo = _InsteadOf(c10d.ProcessGroupGloo)
        dist.Backend.backend_type_map["gloo"] = dist.ProcessGroup.BackendType.CUSTOM
        dist.ProcessGroup._register_backend = _as_what_it_is(dist.ProcessGroup._register_backend)


def _as_what_it_is(register: Any) -> Any:
    """``ProcessGroup._register_backend`` that is not told that this backend is gloo."""
    from torch._C._distributed_c10d import ProcessGroup

    @functools.wraps(register)
    def registered(group: Any, device: Any, kind: Any, backend: Any = None) -> None:
        ours = backend is not None and backend.name() == "rccl"
        register(group, device, ProcessGroup.BackendType.CUSTOM if ours else kind, backend)

    return registered


class _InsteadOf:
    """Stands where a class of c10d is called and asked for its instances."""

    def __init__(self, replaced: Any) -> None:
        self._replaced = replaced

    def __call__(self, store: Any, rank: int, size: int, timeout: timedelta) -> Any:
        backend = _new(store, rank, size, timeout, "gloo")
        backend.options = types.SimpleNamespace()  # torch notes there what the group is
        return backend

    def __instancecheck__(self, instance: object) -> bool:
        from torch._C._distributed_c10d import Backend

        return isinstance(instance, Backend)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._replaced, name)


def _leave(why: str) -> None:
    """Tells all other ranks of this process's groups why it ends."""
    if _module is not None:
        _module.abort_all(why)


def _create(options: Any, _backend_options: object) -> Any:
    return _new(options.store, options.group_rank, options.group_size, options.timeout, options.group_id)


def _new(store: Any, rank: int, size: int, timeout: timedelta, label: str) -> Any:
    global _module
    if _module is None:
        from .. import _exit as _exit  # it tells the other ranks what ended the program
        from . import build

        _module = build.load()
    return _module.create(store, rank, size, timeout, str(label))


register()
