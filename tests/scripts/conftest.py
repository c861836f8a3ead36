"""A sample and a finished run of it, made once for all tests of the scripts."""

from pathlib import Path

import pytest

import train
from retinanet.data.shapes import SampleData, write_shapes
from tests.support.helpers import SMALL, csv_flags
from tests.support.narrow import narrow_network


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> SampleData:
    return write_shapes(
        tmp_path_factory.mktemp("data") / "shapes", train_images=6, val_images=4, seed=1
    )


@pytest.fixture(scope="session")
def run(sample: SampleData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished CSV run, of a narrow network."""
    folder = tmp_path_factory.mktemp("run")
    flags = [*csv_flags(sample), "--csv_val", str(sample.csv_val), "--output_dir", str(folder)]
    with narrow_network():
        assert train.main(["--dataset", "csv", *flags, *SMALL]) == 0
    return folder
