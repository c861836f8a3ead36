"""Pickles of numpy arrays: read whole, or refused."""

import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch

from retinanet.weights.numpy_pickle import read_numpy_pickle
from tests.support.helpers import Touch

ARRAYS = [
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.array([1, -2], dtype=">i4"),  # of a machine that begins with the largest byte
    np.ones((3, 1), dtype=np.float16),
    np.array(7),
    np.array([1, 255], dtype=np.uint8),
]


@pytest.mark.parametrize("protocol", [0, 2, 3, 4])
@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype}{list(a.shape)}")
def test_arrays_come_back_as_tensors(tmp_path, array, protocol) -> None:
    content = OrderedDict(model={"a": array}, author="text", number=3)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    found = read_numpy_pickle(tmp_path / "a.pkl")
    assert (found["author"], found["number"]) == ("text", 3)
    expected = torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))
    assert found["model"]["a"].dtype == expected.dtype
    assert torch.equal(found["model"]["a"], expected)


def test_the_names_of_numpy_1_and_2(tmp_path) -> None:
    content = pickle.dumps(ARRAYS[0], protocol=3)
    names = [b"numpy.core.multiarray", b"numpy._core.multiarray"]
    found, other = names if names[0] in content else names[::-1]
    (tmp_path / "a.pkl").write_bytes(content.replace(found, other))
    assert torch.equal(read_numpy_pickle(tmp_path / "a.pkl"), torch.from_numpy(ARRAYS[0]))


@pytest.mark.parametrize("wrap", [lambda e: e, lambda e: {"model": {"a": e}}, lambda e: [e]])
def test_code_is_refused_and_not_run(tmp_path, wrap) -> None:
    target = tmp_path / "was_here"
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(wrap(Touch(target))))
    with pytest.raises(pickle.UnpicklingError, match=r"Unsupported global: (posix|nt)\.system"):
        read_numpy_pickle(tmp_path / "a.pkl")
    assert not target.exists()


def test_objects_are_no_numbers(tmp_path) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(np.array([{}], dtype=object), protocol=3))
    with pytest.raises(ValueError, match=r"array of type \|O8; expected numbers"):
        read_numpy_pickle(tmp_path / "a.pkl")
