"""What ``import torch`` calls for :mod:`rccl.torch` (entry points ``torch.backends``).

It stands outside of that package: whatever keeps ``rccl`` from being imported, a library that is missing or a module of the
user's that has the same name, must not keep torch from it.
"""

import warnings


def autoload() -> None:
    """Makes the backend known to torch, or warns why it is not there."""
    try:
        import rccl.torch

        rccl.torch.autoload()
    except Exception as error:
        warnings.warn(f"rccl.torch: the backend is not there: {error}", stacklevel=2)
