"""Where YOLO's labels are looked for, and sets that have none, or not the same classes."""

from pathlib import Path

import pytest

from retinanet.data.formats.labels import Listing
from retinanet.data.formats.recognise import recognise
from retinanet.data.formats.yolo.sets import find_yolo
from retinanet.errors import DataError
from tests.data.formats.exports import picture, text, yolo_line
from tests.data.formats.reading import CAT, COW, boxes, complaint, read

NAMES = ("cow", "cat")


def labelled(image: Path, labels: Path, names: tuple[str, ...] = NAMES) -> None:
    """An image with a cow and a cat."""
    picture(image)
    text(labels, yolo_line(COW, names), yolo_line(CAT, names))


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("train/images", "train/labels"),
        ("train/Images", "train/Labels"),
        ("train/IMAGES", "train/LABELS"),
        ("train/image", "train/label"),
        ("train/img", "train/labels"),
        ("images_train", "labels_train"),
        ("train_images", "train_labels"),
        ("train-imgs/day1", "train-labels/day1"),
        ("train/images/img1", "train/labels/img1"),  # MOT's name of a film's frames
        ("train/images/img1", "train/images/labels1"),
        ("train", "train"),  # beside
        ("train/imagery", "train/imagery"),  # no such word: beside
    ],
)
@pytest.mark.parametrize("ending", ["txt", "TXT"])
@pytest.mark.parametrize("described", [True, False])
def test_folders_of_labels(
    tmp_path: Path, images: str, labels: str, ending: str, described: bool
) -> None:
    labelled(tmp_path / images / "a.b.jpg", tmp_path / labels / f"a.b.{ending}")
    if described:
        text(tmp_path / "data.yaml", f"train: {images}", "names: [cow, cat]")
    else:
        text(tmp_path / "classes.txt", *NAMES)
    assert boxes(read(find_yolo(Listing(tmp_path)), "train", tmp_path)) == [[COW, CAT]]


def test_labels_above_the_folder_of_the_data_are_not_its_own(tmp_path: Path) -> None:
    root = tmp_path / "my_images" / "cows"
    picture(root / "a.jpg")
    labelled(root / "b.jpg", root / "b.txt")
    text(root / "classes.txt", *NAMES)
    text(tmp_path / "my_labels" / "cows" / "a.txt", yolo_line(COW, NAMES))
    assert boxes(read(find_yolo(Listing(root)), "all", root)) == [[], [COW, CAT]]


def test_a_described_set_without_any_label_is_an_error(tmp_path: Path) -> None:
    """Roboflow's YOLOv5 OBB has its labels in labelTxt/: all images would be background."""
    text(tmp_path / "data.yaml", "train: train/images", "val: valid/images", "names: [cow, cat]")
    for folder in ("train", "valid"):
        for name in ("a", "b"):
            picture(tmp_path / folder / "images" / f"{name}.jpg")
    text(tmp_path / "train" / "labelTxt" / "a.txt", "20 30 70 30 70 70 20 70 cow 0")
    message = complaint(find_yolo(Listing(tmp_path)), "train", tmp_path)
    assert message == (
        f"{tmp_path}/train/images/a.jpg: no label file for it, nor for 1 other image; expected"
        f" {tmp_path}/train/labels/a.txt; put the labels there, or beside the images"
    )
    text(tmp_path / "train" / "labels" / "a.txt", yolo_line(COW, NAMES))
    labels = read(find_yolo(Listing(tmp_path)), "train", tmp_path)
    assert boxes(labels) == [[COW], []]
    assert "without any label" not in " ".join(labels.notes)


def test_a_folder_of_images_without_any_label_is_no_set(tmp_path: Path) -> None:
    text(tmp_path / "classes.txt", *NAMES)
    labelled(tmp_path / "train" / "a.jpg", tmp_path / "train" / "a.txt")
    for name in ("b", "c"):
        picture(tmp_path / "test" / f"{name}.jpg")
    sets = find_yolo(Listing(tmp_path))
    assert list(sets) == ["train"]  # from which a validation set is cut
    note = "the set test: 2 images without any label: not read"
    assert note in read(sets, "train", tmp_path).notes


def test_sets_that_have_become_one_folder_are_an_error(tmp_path: Path) -> None:
    """A data.yaml that outlived its folders: both would be trained and evaluated on."""
    labelled(tmp_path / "images" / "a.jpg", tmp_path / "labels" / "a.txt")
    lines = ["train: ../train/images", "val: ../valid/images", "names: [cow, cat]"]
    text(tmp_path / "data.yaml", *lines)
    with pytest.raises(DataError) as caught:
        find_yolo(Listing(tmp_path))
    assert str(caught.value) == (
        f"{tmp_path}/data.yaml: train: '../train/images' and val: '../valid/images' are both"
        f" {tmp_path}/images here; expected a folder each; correct them, or remove val:"
    )
    # One folder for both on purpose, as in coco128.yaml, whatever stands before it.
    text(tmp_path / "data.yaml", "train: images", "val: ../cows/images/", "names: [cow, cat]")
    assert sorted(find_yolo(Listing(tmp_path))) == ["train", "val"]


def test_each_set_has_the_classes_of_its_own_list(tmp_path: Path) -> None:
    """labelImg writes classes.txt into each folder, in the order in which it saw the classes."""
    for name, names in (("train", NAMES), ("val", NAMES[::-1])):
        labels = tmp_path / name / "labels"
        labelled(tmp_path / name / "images" / f"{name}.jpg", labels / f"{name}.txt", names)
        text(labels / "classes.txt", *names)
    sets = find_yolo(Listing(tmp_path))
    for name in ("train", "val"):
        assert boxes(read(sets, name, tmp_path)) == [[COW, CAT]]
    format_, sets = recognise(tmp_path)
    assert format_.title == "YOLO"
    data = format_.open(tmp_path, sets["val"], class_names=NAMES)
    assert data.load_annotations(0).round(6).tolist() == [[*COW[:4], 0], [*CAT[:4], 1]]
    # Without sets nothing tells which list counts.
    (tmp_path / "train").rename(tmp_path / "day")
    (tmp_path / "val").rename(tmp_path / "night")
    match = r"day/labels/classes\.txt and night/labels/classes\.txt list different classes; expect"
    with pytest.raises(DataError, match=match):
        find_yolo(Listing(tmp_path))
    text(tmp_path / "classes.txt", *NAMES)
    assert read(find_yolo(Listing(tmp_path)), "all", tmp_path).class_names == NAMES


def test_validation_is_a_set_too(tmp_path: Path) -> None:
    for name in ("train", "validation"):
        folder = tmp_path / name
        labelled(folder / "images" / "a.jpg", folder / "labels" / "a.txt")
    lines = [f"{name}: {name}/images" for name in ("train", "validation")]
    text(tmp_path / "data.yaml", *lines, "names: [cow, cat]")
    assert sorted(find_yolo(Listing(tmp_path))) == ["train", "val"]
