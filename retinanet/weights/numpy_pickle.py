"""Pickles of numpy arrays, as detectron2's model zoo has them; what they name is never called."""

from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch

from retinanet.weights.pickle_check import LimitedUnpickler, mapped


class _Type:
    """Stands in for numpy.dtype: keeps its code and its byte order."""

    def __init__(self, code: str, *flags: object) -> None:
        self.code = code

    def __setstate__(self, state: tuple[object, ...]) -> None:
        self.code = f"{state[1]}{self.code}"


class _Array:
    """Stands in for numpy.ndarray: keeps its shape, its type and its bytes."""

    def __init__(self, *nothing: object) -> None:
        self.values = np.zeros(0)

    def __setstate__(self, state: tuple[int, tuple[int, ...], _Type, bool, bytes]) -> None:
        _, shape, dtype, by_column, content = state
        if dtype.code.lstrip("<>|=")[:1] not in "fiu":
            raise ValueError(f"an array of type {dtype.code}; expected numbers")
        values = np.frombuffer(content, dtype.code).reshape(shape, order="F" if by_column else "C")
        self.values = np.array(values, dtype=values.dtype.newbyteorder("="))


def _new_array(*nothing: object) -> _Array:
    return _Array()


def _latin1(text: str, encoding: str) -> bytes:
    """Bytes as old pickles hold them: text in latin-1."""
    return text.encode("latin1")


_NAMES = {
    "collections.OrderedDict": OrderedDict,
    "numpy.dtype": _Type,
    "numpy.ndarray": _Array,
    "numpy.core.multiarray._reconstruct": _new_array,
    "numpy._core.multiarray._reconstruct": _new_array,
    "_codecs.encode": _latin1,
}


def _plain(value: object, levels: int = 3) -> object:
    """A value with tensors where arrays were, in dicts not deeper than any project's."""
    if isinstance(value, dict) and levels:
        return {key: _plain(item, levels - 1) for key, item in value.items()}
    return torch.from_numpy(value.values) if isinstance(value, _Array) else value


def read_numpy_pickle(path: Path) -> object:
    """Read a pickle of dicts, numbers, text and numpy arrays; the arrays become tensors.

    Raises:
        Exception: of any kind; the file is damaged, or it names anything else.
    """
    with mapped(path) as stream:
        return _plain(LimitedUnpickler(stream, path.stat().st_size, _NAMES).load())
