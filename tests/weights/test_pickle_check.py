"""Files that ask for more than they hold are refused before they are loaded; honest ones load.

Sizes here are small, so that a file that is let through does no harm: it fails its test.
"""

import codecs
import pickle
import struct
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from retinanet.errors import DataError
from retinanet.weights.safe_load import read_file
from tests.support.zips import repacked, saved


class Call:
    """Unpickles as the result of a call."""

    def __init__(self, function: Callable[..., object], *given: object) -> None:
        self.function, self.given = function, given

    def __reduce__(self) -> tuple[object, ...]:
        return self.function, self.given


ATTRIBUTES = {str(k): k for k in range(1000)}
LARGE = 10**6  # numbers or bytes that a file of a few hundred bytes does not hold
TEXT, PAIRS = "a" * 10_000, [(str(k), k) for k in range(1000)]


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (Call(bytearray, LARGE), "more than tensors and settings"),
        (Call(Counter, "ab"), "more than tensors and settings"),
        (Call(complex, 1), "more than tensors and settings"),
        (Call(torch.Tensor, LARGE), "more than tensors and settings"),
        (Call(torch.UntypedStorage, LARGE), "more than tensors and settings"),
        (Call(torch.device, "cpu"), "more than tensors and settings"),
        (torch.zeros(2).to_sparse(), "more than tensors and settings"),
        (torch.zeros(LARGE, device="meta"), "more than tensors and settings"),
        # a type that a storage's id must name is no function to call
        (Call(torch.FloatStorage, LARGE), "damaged or no checkpoint"),
        (torch.zeros(1).expand(LARGE), "claims more numbers than the file holds"),
        # a short file that copies one of its parts again and again
        ([Call(codecs.encode, TEXT, "latin1") for _ in range(100)], "more than the file holds"),
        ([Call(OrderedDict, PAIRS) for _ in range(1000)], "more than the file holds"),
    ],
    ids=lambda value: None if isinstance(value, str) else str(getattr(value, "function", "")),
)
def test_what_the_file_does_not_hold(
    tmp_path: Path, content: object, complaint: str, legacy: bool
) -> None:
    file = tmp_path / "a.pt"
    file.write_bytes(saved({"a": content}, _use_new_zipfile_serialization=not legacy))
    with pytest.raises(DataError, match=complaint):
        read_file(file)


class SharedState:
    """Pickles as an object whose attributes are in the file once, however many there are."""

    def __reduce__(self) -> tuple[Any, ...]:
        return OrderedDict, (), ATTRIBUTES


def test_attributes_that_are_copied_again_and_again(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(saved([SharedState() for _ in range(1000)]))
    with pytest.raises(DataError, match="makes more than the file holds"):
        read_file(tmp_path / "a.pt")


def with_count(content: bytes, count: int) -> bytes:
    """The pickle of one tensor of one number, whose storage claims another count."""
    one = b"K\x01N" if b"K\x01N" in content else b"K\x01t"
    assert content.count(one) == 1
    return content.replace(one, b"J" + struct.pack("<i", count) + one[-1:])


def test_a_storage_that_claims_more_than_there_is(tmp_path: Path) -> None:
    file = tmp_path / "a.pt"
    legacy = saved(torch.ones(1), _use_new_zipfile_serialization=False)
    zipped = repacked(
        saved(torch.ones(1)),
        lambda name, entry: with_count(entry, LARGE) if name.endswith("data.pkl") else entry,
    )
    for content in (with_count(legacy, LARGE), zipped):
        file.write_bytes(content)
        with pytest.raises(DataError, match="its tensors claim more bytes than the file has"):
            read_file(file)


@pytest.mark.parametrize("name", ["a.pt", "a.pkl"])
@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".",  # BYTEARRAY8: a length, no bytes
        b"\x80\x02X" + struct.pack("<I", 2**32 - 1) + b"a.",  # BINUNICODE
        b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"a.",  # BINBYTES8
        b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b"a.",  # FRAME
        b"\x80\x02]r" + struct.pack("<I", 2**32 - 1) + b".",  # LONG_BINPUT
    ],
    ids=["bytearray", "text", "bytes", "frame", "memo"],
)
def test_lengths_that_are_only_claimed(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    if name == "a.pkl" and content.startswith(b"\x80\x02]"):
        assert read_file(tmp_path / name) == []  # an empty list, noted under a large number
        return
    with pytest.raises(DataError, match="damaged or no checkpoint"):
        read_file(tmp_path / name)


class SharedArray:
    """Pickles as an array whose bytes are in the file once, however many there are."""

    function, given, state = np.zeros(10_000).__reduce__()

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.given, self.state


def test_a_numpy_pickle_that_copies_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps([SharedArray() for _ in range(100)], protocol=3))
    with pytest.raises(DataError, match="makes more than the file holds"):
        read_file(tmp_path / "a.pkl")


def test_a_zip_behind_a_pickle_is_not_the_file_that_torch_reads(tmp_path: Path) -> None:
    bomb = saved({"a": Call(bytearray, LARGE)}, _use_new_zipfile_serialization=False)
    (tmp_path / "a.pt").write_bytes(bomb + saved({"a": torch.zeros(1)}))
    with pytest.raises(DataError, match="more than tensors and settings"):
        read_file(tmp_path / "a.pt")


# ---- honest files ----


def every_kind_of_number() -> dict[str, torch.Tensor]:
    kinds = "float32 float64 float16 bfloat16 int64 int32 int16 int8 uint8 bool".split()
    return {kind: torch.ones(2, 3, dtype=getattr(torch, kind)) for kind in kinds}


def optimizer_state(kind: type[torch.optim.Optimizer], **settings: float) -> dict[str, Any]:
    """The state of an optimizer after a step, as states of runs hold it."""
    parameter = nn.Parameter(torch.ones(3))
    optimizer = kind([parameter], lr=0.1, **settings)
    parameter.sum().backward()
    optimizer.step()
    return optimizer.state_dict()


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    "content",
    [
        every_kind_of_number(),
        optimizer_state(torch.optim.Adam),
        optimizer_state(torch.optim.SGD, momentum=0.9),
        {"settings": {"a": [1, 2.5, None, True, "text"], "b": (1, (2, 3))}, "large": 10**30},
        OrderedDict(w=torch.ones(2, 3).T, part=torch.arange(9)[2:5], none=torch.ones(0)),
        {"a": (shared := torch.ones(3)), "b": shared, "c": shared[1:]},
        nn.Parameter(torch.ones(2)),
        {"score": np.float64(0.5)},
        Call(OrderedDict, [["a", 1], ["b", 2]]),  # as Python 2 wrote it
    ],
    ids=[
        *("numbers", "adam", "sgd", "settings", "views", "shared", "parameter", "numpy", "python2")
    ],
)
def test_honest_files_load(tmp_path: Path, content: object, legacy: bool) -> None:
    file = tmp_path / "a.pt"
    file.write_bytes(saved(content, _use_new_zipfile_serialization=not legacy))
    found = read_file(file)
    assert type(found).__name__ != "NoneType"
    if isinstance(content, dict) and all(isinstance(v, torch.Tensor) for v in content.values()):
        assert isinstance(found, dict)
        assert all(torch.equal(found[name], value) for name, value in content.items())
