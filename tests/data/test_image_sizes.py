"""Sizes of images, and those that cannot be read."""

import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retinanet.data import image_sizes
from retinanet.data.annotations import group_by_image
from retinanet.data.image_sizes import check_sizes, read_sizes
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


def checked(
    boxes: list[list[float]], claimed: tuple[int, int], *, strict: bool = False
) -> Problems:
    """Problems of an image of 40 x 30 pixels whose file says another height and width."""
    problems = Problems("f.json", strict)
    columns = np.zeros((5, len(boxes)))
    columns[:4] = np.array(boxes, float).T
    lines = np.zeros(len(boxes), int)
    data = group_by_image(["a.jpg"], np.zeros(1, int), lines, columns, lines, problems)
    check_sizes(data, np.array([claimed]), ["a.jpg"], [(30, 40)], problems)
    return problems


def test_images_that_were_made_smaller_after_labelling() -> None:
    """Of 80 x 60 pixels when two of three boxes were drawn beyond 40 x 30."""
    boxes: list[list[float]] = [[1, 2, 70, 20], [5, 5, 30, 59], [1, 1, 9, 9]]
    with pytest.raises(DataError) as error:
        checked(boxes, (60, 80)).raise_if_any()
    assert str(error.value) == (
        "f.json: 'a.jpg' is 40 x 30 pixels, and 80 x 60 in the file; 2 of 3 boxes lie in the latter"
        " alone; scale them to the images"
    )
    # One of three alone, or one that lies in neither: perhaps the file's size is what is wrong.
    for other in ([boxes[0], *boxes[2:] * 2], [*boxes[:2], [1, 2, 99, 20]]):
        problems = checked(other, (60, 80))
        problems.raise_if_any()
        assert problems.repaired["image size that is not the file's"] == 1


def test_images_of_another_size_than_the_file_says_are_named() -> None:
    problems = checked([[1, 2, 15, 9]], (15, 20))
    problems.raise_if_any()
    assert problems.remarks == [
        "1 image of another size than the file says: 'a.jpg' is 40 x 30 pixels, and 20 x 15 in"
        " the file; boxes are taken as they are; scale them if the images were resized after"
        " labelling"
    ]
    with pytest.raises(DataError, match="20 x 15 pixels; expected 40 x 30 as in the file"):
        checked([[1, 2, 15, 9]], (15, 20), strict=True).raise_if_any()
