"""YOLO folders as Darknet, labelImg, makesense.ai and unpacked archives lay them out."""

from collections.abc import Callable
from pathlib import Path

import pytest

from retinanet.data.formats.labels import Listing
from retinanet.data.formats.recognise import recognise
from retinanet.data.formats.yolo.sets import find_yolo
from retinanet.errors import DataError
from tests.data.formats.exports import picture, text, yolo_line
from tests.data.formats.reading import CAT, COW, boxes, read

NAMES = ("cow", "cat")


def labelled(image: Path, labels: Path) -> None:
    """An image with a cow and a cat."""
    picture(image)
    text(labels, yolo_line(COW, NAMES), yolo_line(CAT, NAMES))


def darknet(root: Path) -> Path:
    """Darknet's own: data/obj.data, which names lists and classes as seen from above."""
    data = root / "data"
    lines = ["classes = 2", "train = data/train.txt", "valid = data/test.txt"]
    text(data / "obj.data", *lines, "names = data/obj.names", "backup = backup/")
    text(data / "obj.names", *NAMES)
    for name, listed in (("a", "train"), ("b", "test")):
        labelled(data / "obj" / f"{name}.jpg", data / "obj" / f"{name}.txt")
        text(data / f"{listed}.txt", f"data/obj/{name}.jpg")
    text(root / "cfg" / "yolov4.cfg", "[net]", "batch=64")
    return root


def named_otherwise(root: Path) -> Path:
    """The same with names of one's own, the images in images/."""
    text(root / "cows.data", "train=train.txt", "valid=test.txt", "names=cows.names")
    text(root / "cows.names", *NAMES)
    for name, listed in (("a", "train"), ("b", "test")):
        labelled(root / "images" / f"{name}.jpg", root / "labels" / f"{name}.txt")
        text(root / f"{listed}.txt", f"/content/darknet/images/{name}.jpg")
    return root


def in_a_folder(root: Path) -> Path:
    """An archive that was unpacked into a folder of its own name, beside what macOS adds."""
    inner = root / "cows"
    lines = ["train: ../train/images", "val: ../valid/images", "test: ../test/images"]
    text(inner / "data.yaml", *lines, "names: [cow, cat]")
    for name, folder in (("a", "train"), ("b", "valid")):
        place = inner / folder
        labelled(place / "images" / f"{name}.jpg", place / "labels" / f"{name}.txt")
    text(root / "__MACOSX" / "cows" / "._data.yaml", "Mac OS X")
    return root


@pytest.mark.parametrize("export", [darknet, named_otherwise, in_a_folder])
def test_described_sets(tmp_path: Path, export: Callable[[Path], Path]) -> None:
    root = export(tmp_path)
    sets = find_yolo(Listing(root))
    assert sorted(sets) == ["train", "val"]
    for name, stem in (("train", "a"), ("val", "b")):
        labels = read(sets, name, root)
        assert labels.class_names == NAMES
        assert [path.stem for path in labels.paths] == [stem]
        assert boxes(labels) == [[COW, CAT]]
    (file,) = Listing(root).files(".data", ".yaml")
    assert sorted(find_yolo(Listing(file))) == ["train", "val"]


def labels_elsewhere(root: Path) -> Path:
    """labelImg with a folder to save in: the labels there, with the classes."""
    text(root / "txt" / "classes.txt", *NAMES)
    for name in ("a", "b"):
        labelled(root / "photos" / f"{name}.jpg", root / "txt" / f"{name}.txt")
    return root


def makesense(root: Path) -> Path:
    """makesense.ai: labels.txt names the classes."""
    text(root / "labels.txt", *NAMES)
    for name in ("a", "b"):
        labelled(root / f"{name}.jpg", root / f"{name}.txt")
    return root


@pytest.mark.parametrize("export", [labels_elsewhere, makesense])
def test_undivided_folders(tmp_path: Path, export: Callable[[Path], Path]) -> None:
    root = export(tmp_path)
    labels = read(find_yolo(Listing(root)), "all", root)
    assert labels.class_names == NAMES
    assert boxes(labels) == [[COW, CAT]] * 2


def test_labels_elsewhere_need_an_image_each(tmp_path: Path) -> None:
    root = labels_elsewhere(tmp_path)
    (root / "photos" / "b.jpg").unlink()
    format_, sets = recognise(root)
    with pytest.raises(DataError, match=r"txt/b\.txt: labels without an image"):
        format_.open(root, sets["all"])
    # Beside images in two folders it would not be known whose they are.
    picture(root / "more" / "a.jpg")
    with pytest.raises(DataError, match="no labels of a known format"):
        recognise(root)


def test_a_validation_set_that_is_not_there_is_said(tmp_path: Path) -> None:
    root = in_a_folder(tmp_path) / "cows"
    for file in sorted((root / "valid").rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    (root / "valid").rmdir()
    sets = find_yolo(Listing(root))
    assert sorted(sets) == ["train"]
    note = f"{root / 'data.yaml'}: val: '../valid/images' is not there"
    assert note in read(sets, "train", root).notes
    text(root / "data.yaml", "train: gone", "val: gone", "names: [cow, cat]")
    with pytest.raises(DataError, match="train: 'gone' is not below"):
        find_yolo(Listing(root))


def test_two_descriptions_are_an_error_that_names_them(tmp_path: Path) -> None:
    for name in ("day", "night"):
        in_a_folder(tmp_path / name)
    match = r"2 files that describe sets, such as day/cows/data\.yaml and night/cows/data\.yaml;"
    with pytest.raises(DataError, match=match):
        find_yolo(Listing(tmp_path))
    # One that is nearer, or has the usual name beside another, is the one that is meant.
    root = in_a_folder(tmp_path / "day") / "cows"
    text(root / "old.yaml", "train: train/images", "names: [dog]")
    assert read(find_yolo(Listing(root)), "train", root).class_names == NAMES
    assert sorted(find_yolo(Listing(tmp_path / "day"))) == ["train", "val"]
    # One at the top whose sets are not there is an error, not passed over for another one.
    text(tmp_path / "data.yaml", "train: gone", "names: [cow]")
    with pytest.raises(DataError, match="train: 'gone' is not below"):
        find_yolo(Listing(tmp_path))


@pytest.mark.parametrize("more", [[], ["data.yaml"]])
def test_classes_that_nothing_names(tmp_path: Path, more: list[str]) -> None:
    labelled(tmp_path / "images" / "a.jpg", tmp_path / "labels" / "a.txt")
    for name in more:
        text(tmp_path / name, "train: images", "val: images", "nc: 2")
    with pytest.raises(DataError, match=r"a\.txt is YOLO's, and nothing names the classes: add"):
        recognise(tmp_path)


def test_darknet_without_its_names(tmp_path: Path) -> None:
    root = darknet(tmp_path)
    (root / "data" / "obj.names").unlink()
    with pytest.raises(DataError, match=r"names: 'data/obj\.names' is not there; expected a file"):
        find_yolo(Listing(root / "data" / "obj.data"))
