"""New arrays, of the kinds that there are here."""

import math
from typing import Any

# Letters of the buffer protocol, for memory without NumPy.
_LETTERS = {
    "int8": "b",
    "uint8": "B",
    "bool": "?",
    "int16": "h",
    "uint16": "H",
    "int32": "i",
    "uint32": "I",
    "int64": "q",
    "uint64": "Q",
    "float16": "e",
    "float32": "f",
    "float64": "d",
}


def _numpy() -> Any:
    try:
        import numpy
    except ImportError:
        return None
    return numpy


def _dtype(numpy: Any, name: str) -> Any:
    """NumPy's type, or ml_dtypes'."""
    try:
        return numpy.dtype(name)
    except TypeError:
        pass
    try:
        import ml_dtypes
    except ImportError:
        raise TypeError(f"NumPy has {name} by the package ml_dtypes: pip install ml_dtypes") from None
    return numpy.dtype(getattr(ml_dtypes, name))


def like(array: Any, shape: tuple[int, ...], dtype: str) -> Any:
    """A new array of the kind of another one."""
    if hasattr(array, "new_empty"):
        return array.new_empty(shape)
    numpy = _numpy()
    if numpy is None:
        return over(bytearray(math.prod(shape) * memoryview(array).itemsize), shape, dtype)
    if isinstance(array, numpy.ndarray):
        return numpy.empty(shape, array.dtype)
    return numpy.empty(shape, _dtype(numpy, dtype))


def over(memory: Any, shape: tuple[int, ...], dtype: str) -> Any:
    """An array of elements that lie in memory."""
    numpy = _numpy()
    if numpy is not None:
        return numpy.frombuffer(memory, _dtype(numpy, dtype)).reshape(shape)
    if dtype not in _LETTERS:
        raise TypeError(f"only NumPy has arrays of {dtype}: pip install numpy ml_dtypes")
    view: Any = memoryview(memory)  # of elements whose type only dtype says
    # memoryview has no shape with a 0 in it.
    return view.cast(_LETTERS[dtype], shape) if math.prod(shape) else view.cast(_LETTERS[dtype])
