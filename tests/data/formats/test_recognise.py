"""Folders of any format: recognised, opened, and alike whatever the format."""

from pathlib import Path

import pytest
import torch

from retinanet.data.datasets import LabelledImages
from retinanet.data.formats.recognise import recognise
from retinanet.data.transforms import evaluation_transform
from retinanet.errors import DataError
from tests.data.formats.exports import labelme_json, picture, text, voc_xml, yolo_line

BOXES = {"a": [(10, 20, 50, 60, "cow"), (5, 8, 90, 70, "cat")], "b": [(33, 11, 71, 64, "cow")]}
NAMES = ("cat", "cow")


def export(root: Path, kind: str) -> Path:
    """The same two images and three boxes in a format."""
    for name, boxes in BOXES.items():
        picture(root / "images" / f"{name}.png")
        if kind == "yolo":
            text(root / "labels" / f"{name}.txt", *(yolo_line(box, NAMES) for box in boxes))
        elif kind == "voc":
            text(root / "annotations" / f"{name}.xml", voc_xml(f"{name}.png", boxes))
        else:
            text(root / "images" / f"{name}.json", labelme_json(f"{name}.png", boxes))
    if kind == "yolo":
        text(root / "classes.txt", *NAMES)
    return root


def opened(root: Path, **more: object) -> LabelledImages:
    """The undivided set of a folder."""
    _, sets = recognise(root)
    return LabelledImages(root, sets["all"], evaluation_transform(64, 96), **more)  # type: ignore[arg-type]


def test_the_same_labels_in_any_format_give_the_same_samples(tmp_path: Path) -> None:
    sets = [opened(export(tmp_path / kind, kind)) for kind in ("yolo", "voc", "labelme")]
    first = sets[0]
    assert first.class_names == NAMES
    for other in sets[1:]:
        assert other.class_names == NAMES
        assert other.image_names == first.image_names == ["images/a.png", "images/b.png"]
        for k in range(2):
            for key in ("img", "annot"):
                assert torch.equal(first[k][key], other[k][key])  # type: ignore[literal-required]


def test_two_formats_are_an_error_that_names_both(tmp_path: Path) -> None:
    export(tmp_path, "yolo")
    export(tmp_path, "voc")
    with pytest.raises(DataError, match="labels of YOLO and Pascal VOC; expected one format"):
        recognise(tmp_path)
    format_, _ = recognise(tmp_path, "voc")
    assert format_.title == "Pascal VOC"


def test_nothing_there_and_nothing_known(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=r"no labels of a known format; expected one of YOLO: data"):
        recognise(tmp_path)
    with pytest.raises(DataError, match=r"expected one of Pascal VOC: a \.xml an image; COCO and"):
        recognise(tmp_path, "voc")
    with pytest.raises(DataError, match="no such file or folder"):
        recognise(tmp_path / "gone")


def test_all_problems_are_told_at_once_and_clipping_is_counted(tmp_path: Path) -> None:
    root = export(tmp_path, "voc")
    odd = [(-3, 5, 40, 50, "cow"), (120, 5, 140, 50, "cow"), (90, 70, 90, 75, "cat")]
    text(root / "annotations" / "a.xml", voc_xml("a.png", odd))
    with pytest.raises(DataError) as caught:
        opened(root)
    place = root / "annotations" / "a.xml"
    assert str(caught.value).splitlines() == [
        f"{place}: object 2: x2 (90) is not greater than x1 (90); expected x1,y1,x2,y2;"
        " correct or remove the box",
        f"{place}: object 1: box 120,5,140,50 lies outside 'images/a.png'; expected 0,0 to 100,80;"
        " correct or remove the box",
    ]
    text(root / "annotations" / "a.xml", voc_xml("a.png", odd[:1]))
    assert opened(root).repaired == {"box clipped to its image": 1}
    with pytest.raises(DataError, match="object 0: box -3,5,40,50 reaches outside"):
        opened(root, strict=True)


def test_classes_are_mapped_by_name(tmp_path: Path) -> None:
    root = export(tmp_path, "voc")
    mapped = opened(root, class_names=("cow", "dog", "cat"))
    assert mapped.load_annotations(0)[:, 4].tolist() == [0, 2]
    with pytest.raises(DataError, match=r"classes \['cow'\] are not of the model \(\['cat'\]\)"):
        opened(root, class_names=("cat",))


def test_some_of_the_images_can_be_kept(tmp_path: Path) -> None:
    data = opened(export(tmp_path, "labelme"))
    second = data.load_annotations(1)
    data.keep([1])
    assert len(data) == 1
    assert data.image_names == ["images/b.png"]
    assert (data.load_annotations(0) == second).all()
    assert data.image_path(0).name == "b.png"
