"""Images found under their names, in other places and spellings, and never outside the data."""

import os
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retinanet.data.annotations import NO_ROWS, group_by_image
from retinanet.data.image_finder import Found, Places, find_images
from retinanet.data.problems import Problems
from retinanet.errors import DataError

DATA = ("images/train/a.jpg", "images/val/a.jpg", "images/train/b.jpg", "c.JPG", "day1/d.jpg",
        "e f.png", "x/twice.jpg", "y/twice.jpg")  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of data with the images `DATA`, and one image beside it."""
    folder = tmp_path_factory.mktemp("outside") / "data"
    for name in ("../outside.jpg", *DATA, unicodedata.normalize("NFD", "é.jpg")):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 3)).save(path)
    return folder


def found(root: Path, *names: str, climbs: bool = False, **options: Any) -> tuple[Found, Problems]:
    """Images of a file with a name a line, from its second line on."""
    lines = np.arange(len(names)) + 2
    problems = Problems("f.csv", **options)
    data = group_by_image(names, lines, NO_ROWS, np.zeros((5, 0)), NO_ROWS, problems)
    roots = [root / "images/train", root / "train", root / "images", root]
    return find_images(data, Places(roots, root, climbs, "correct the path"), problems), problems


def test_the_first_folder_that_holds_all_counts(root: Path) -> None:
    for names, folder in (
        (["a.jpg", "b.jpg"], "images/train"),
        (["train/a.jpg", "val/a.jpg"], "images"),
        (["images/val/a.jpg"], ""),
    ):
        result, problems = found(root, *names)
        assert result == (root / folder, names, [])
        assert problems.repaired == {}


def test_images_below_a_folder_that_no_one_expected(tmp_path: Path) -> None:
    Image.new("RGB", (4, 3)).save(tmp_path / "a.jpg")
    (tmp_path / "photos").mkdir()
    (tmp_path / "a.jpg").rename(tmp_path / "photos" / "a.jpg")
    result, problems = found(tmp_path, "a.jpg")  # there is neither images/ nor train/
    assert (result.root / result.files[0]).is_file()
    assert problems.repaired == {"image path that is another one here": 1}


def test_where_none_holds_all_the_folder_that_lacks_fewest_counts(root: Path) -> None:
    """Of `train/a.jpg` and `val/a.jpg` the first two folders have none, `images` has both."""
    names = ["train/a.jpg", "val/a.jpg", "z.jpg"]
    result, problems = found(root, *names)
    assert result == (root / "images", names, [2])
    with pytest.raises(DataError, match=r"^f\.csv:4: no image 'z\.jpg' in "):
        problems.raise_if_any()


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("train\\a.jpg", "images/train/a.jpg"),  # of Windows
        ("images\\val\\a.jpg", "images/val/a.jpg"),
        ("/data/upload/1/b.jpg", "images/train/b.jpg"),  # of a server
        ("C:\\Users\\ann\\val\\a.jpg", "images/val/a.jpg"),
        ("https://host/photos/b.jpg?token=1", "images/train/b.jpg"),
        ("/data/local-files/?d=day1/d.jpg", "day1/d.jpg"),
        ("../val/a.jpg", "images/val/a.jpg"),
        ("../../photos/b.jpg", "images/train/b.jpg"),
        ("project/day1/d.jpg", "day1/d.jpg"),  # from above the data
        ("d.jpg", "day1/d.jpg"),  # from within
        ("B.JPG", "images/train/b.jpg"),
        ("c.jpg", "c.JPG"),
        ("b", "images/train/b.jpg"),
        ("day1/d", "day1/d.jpg"),
        ("e%20f.png", "e f.png"),
        ("\u00e9.jpg", "e\u0301.jpg"),
        ("/srv/x/a.jpg", ""),  # in two folders
        ("day2/d.jpg", ""),  # another day's
        ("outside.jpg", ""),
        ("../outside.jpg", ""),
        ("twice.jpg", ""),
        ("", ""),
        ("a\x00/b.jpg", "images/train/b.jpg"[:0]),
    ],
)
def test_other_places_and_spellings(root: Path, name: str, file: str) -> None:
    result, problems = found(root, name, "b.jpg")
    assert result.absent == [] if file else [0]
    if not file:
        return
    path = os.path.normpath(result.root / result.files[0])
    assert unicodedata.normalize("NFC", path) == unicodedata.normalize("NFC", str(root / file))
    assert problems.repaired == {"image path that is another one here": 1}
    with pytest.raises(DataError, match=r"^f\.csv:2: no image .* in .*; expected .*; correct the"):
        found(root, name, "b.jpg", strict=True)[1].raise_if_any()


def test_an_absolute_path_that_exists_is_itself_where_that_is_allowed(root: Path) -> None:
    outside = str(root.parent / "outside.jpg")
    assert found(root, outside, climbs=True)[0] == (root / "images/train", [outside], [])
    assert found(root, outside)[0].absent == [0]


def test_names_of_one_base_are_not_taken_for_each_other(root: Path) -> None:
    """`/cam1/b.jpg` and `/cam2/b.jpg` are two images, though one is there."""
    assert found(root, "/cam1/b.jpg", "/cam2/b.jpg")[0].absent == [0, 1]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["b.jpeg"], "no image 'b.jpeg' in .*train and .*train .the nearest is '.*b.jpg'.; expect"),
        (["day2/d.jpg"], "there is 'day1/d.jpg', in another folder"),
        (["twice.jpg"], "2 may be meant, such as 'x/twice.jpg' and 'y/twice.jpg'"),
        (["/etc/passwd"], "it leaves the image folder, and no image below .* is called 'passwd'"),
        (["p", "q", "r", "s", "t", "u"], "no image 'p' in .*, nor 'q', 'r', 's' and 2 more.*;"),
    ],
)
def test_missing_images_are_said_once(root: Path, names: list[str], message: str) -> None:
    with pytest.raises(DataError, match=rf"^f\.csv:2: [^\n]*{message}[^\n]*$"):
        found(root, *names)[1].raise_if_any()


def test_missing_images_may_be_left_out_each_by_name(root: Path) -> None:
    result, problems = found(root, "p", "b.jpg", "q", skip_images=True)
    assert result.absent == [0, 2]
    assert [note[:33] for note in problems.remarks] == [
        "Skipped: f.csv:2: no image 'p' in", "Skipped: f.csv:4: no image 'q' in"
    ]  # fmt: skip
