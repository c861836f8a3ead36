"""The listing of a folder: once for all formats, and of files alone."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from retinanet.data.formats.labels import Listing
from retinanet.data.formats.recognise import FORMATS, recognise
from retinanet.errors import DataError
from tests.data.formats.exports import picture, text
from tests.data.formats.test_recognise import export


def count_listings(monkeypatch: pytest.MonkeyPatch, root: Path) -> Counter[str]:
    """The number of times that each folder below `root` is listed from now on."""
    counts: Counter[str] = Counter()
    for name in ("scandir", "listdir"):
        plain = getattr(os, name)

        def counting(folder: Any = ".", plain: Any = plain) -> Any:
            if not isinstance(folder, int) and Path(folder).is_relative_to(root):
                counts[os.fspath(folder)] += 1
            return plain(folder)

        monkeypatch.setattr(os, name, counting)
    return counts


@pytest.mark.parametrize("kind", FORMATS)
def test_every_folder_is_listed_once(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = export(tmp_path / "data", kind)
    for k in range(20):  # empty ones, which no format has a reason to look at again
        (root / "more" / str(k)).mkdir(parents=True)
    counts = count_listings(monkeypatch, root)
    format_, sets = recognise(root)
    format_.open(root, sets["all"])
    assert {counts[str(root / "more" / str(k))] for k in range(20)} == {1}
    # Labels of YOLO, and images of CSV and COCO files, are looked for in their folder once more.
    assert counts[str(root / "images")] <= 3


def test_only_visible_regular_files_are_listed(tmp_path: Path) -> None:
    good = picture(tmp_path / "b" / "good.jpg")
    (tmp_path / "a.jpg").symlink_to(good)
    for name in ("pipe.jpg", "pipe.xml"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "lost.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "itself.jpg").symlink_to(tmp_path / "itself.jpg")
    (tmp_path / "folder.jpg").mkdir()
    picture(tmp_path / ".thumbnails" / "good.jpg")
    picture(tmp_path / "._good.jpg")
    text(tmp_path / "LABELS.CSV", "a.jpg,1,2,3,4,cow")
    listing = Listing(tmp_path)
    assert listing.images == [tmp_path / "a.jpg", good]
    assert listing.files(".xml") == []
    assert listing.files(".csv") == [tmp_path / "LABELS.CSV"]
    assert listing.images_in(tmp_path / "b") == [good]
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "b")  # which the listing does not follow
    assert listing.images_in(link) == [link / "good.jpg"]
    assert Listing(good).images == [good]


@pytest.mark.parametrize("kind", ["yolo", "voc", "labelme"])
def test_images_that_are_pipes_are_none(tmp_path: Path, kind: str) -> None:
    root = export(tmp_path, kind)
    (root / "images" / "b.png").unlink()
    os.mkfifo(root / "images" / "b.png")
    os.mkfifo(root / "images" / "c.png")
    format_, sets = recognise(root)
    with pytest.raises(DataError, match=r"labels without an image|no image 'b\.png' below"):
        format_.open(root, sets["all"])
