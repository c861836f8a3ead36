"""A sample and a run of it that was never stopped, made once for the tests of this folder."""

from pathlib import Path

import pytest

import train
from retinanet.data.shapes import SampleData, write_shapes
from tests.support.narrow import narrow_network
from tests.support.processes import Forked
from tests.support.runs import flags


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> SampleData:
    return write_shapes(
        tmp_path_factory.mktemp("data") / "shapes", train_images=5, val_images=2, seed=3
    )


@pytest.fixture(scope="session")
def whole(sample: SampleData, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run that was never stopped: its folder and what it said."""
    folder = tmp_path_factory.mktemp("whole")
    with narrow_network():
        code, said, errors = Forked(train.main, flags(sample, folder)).end()
    assert code == 0, errors
    return folder, said
