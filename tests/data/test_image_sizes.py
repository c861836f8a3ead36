"""Images against annotations: which folder holds them, and their sizes."""

import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retinanet.data import image_sizes
from retinanet.data.annotations import group_by_image
from retinanet.data.image_finder import find_root
from retinanet.data.image_sizes import read_sizes
from retinanet.data.images import UNKNOWN, Size
from retinanet.data.problems import Problems
from retinanet.errors import DataError


def picture(path: Path, width: int = 40, height: int = 30) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height)).save(path)
    return path


def test_the_root_is_the_folder_that_lacks_fewest(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for path in (one / "a.jpg", two / "a.jpg", two / "sub/b.jpg"):
        picture(path)
    names = ["a.jpg", "sub/b.jpg", "c.jpg"]

    def found(names: list[str]) -> tuple[Path, list[int], Problems]:
        lines = np.arange(len(names)) + 1
        problems = Problems("f.csv")
        nothing = np.zeros((5, 0))
        data = group_by_image(names, lines, lines[:0], nothing, lines[:0], problems)
        return *find_root([one, two], data, "correct the path", problems), problems

    assert found(names[:1])[:2] == (one, [])
    assert found(names[:2])[:2] == (two, [])
    root, absent, problems = found(names)
    assert (root, absent) == (two, [2])
    with pytest.raises(
        DataError, match=r"^f\.csv:3: no image 'c\.jpg' in .*one and .*two; expected"
    ):
        problems.raise_if_any()


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
