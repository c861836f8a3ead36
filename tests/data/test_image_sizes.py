"""Sizes of images, and those that cannot be read."""

import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retinanet.data import image_sizes
from retinanet.data.image_sizes import read_sizes
from retinanet.data.images import UNKNOWN, Size
from retinanet.data.problems import Problems
from retinanet.errors import DataError


def picture(path: Path, width: int = 40, height: int = 30) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height)).save(path)
    return path


def test_sizes_of_the_readable_and_problems_of_the_others(tmp_path: Path) -> None:
    paths = [picture(tmp_path / f"{k}.png", 40 + k) for k in range(200)]
    paths[150].write_text("<html>")
    paths[199].unlink()
    problems = Problems("f.csv")
    sizes = read_sizes(paths, np.arange(200) + 1, problems, absent=[199])
    assert sizes[:150] == [(30, 40 + k) for k in range(150)]
    assert sizes[150] == sizes[199] == UNKNOWN
    with pytest.raises(DataError, match=r"^f\.csv:151: .*150\.png: not an image [^\n]*$"):
        problems.raise_if_any()


def test_headers_are_read_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    meeting = threading.Barrier(4)

    def waiting(path: Path) -> tuple[Size, str]:
        meeting.wait(timeout=20)  # for three more threads
        return (1, 2), ""

    monkeypatch.setattr(image_sizes, "inspect_image", waiting)
    paths = [Path(f"{k}.jpg") for k in range(4)]
    assert read_sizes(paths, np.zeros(4, int), Problems("f.csv")) == [(1, 2)] * 4
