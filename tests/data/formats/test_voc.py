"""Folders of Pascal VOC: the sets, the boxes, and what is said of them."""

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from retinanet.data.formats.labels import Listing
from retinanet.data.formats.voc import find_voc
from tests.data.formats.exports import picture, text, voc_xml
from tests.data.formats.reading import CAT, COW, boxes, complaint, read


def voc_devkit(root: Path) -> Path:
    """The layout of VOC itself, with lists of names."""
    base = root / "VOC2012"
    for name, found in (("2007_1", [COW, CAT]), ("2007_2", []), ("2007_3", [CAT])):
        picture(base / "JPEGImages" / f"{name}.jpg")
        text(base / "Annotations" / f"{name}.xml", voc_xml(f"{name}.jpg", found))
    lists = base / "ImageSets" / "Main"
    text(lists / "train.txt", "2007_1", "2007_2")
    text(lists / "val.txt", "2007_3")
    text(lists / "trainval.txt", "2007_1", "2007_2", "2007_3")
    text(lists / "cow_train.txt", "2007_1  1", "2007_2 -1")
    return root


def voc_beside(root: Path) -> Path:
    """Roboflow's VOC export: `.xml` beside the images, in split folders."""
    for folder, found in (("train", [COW, CAT]), ("valid", [CAT])):
        picture(root / folder / "a.jpg")
        text(root / folder / "a.xml", voc_xml("a.jpg", found))
    picture(root / "train" / "b.jpg")
    text(root / "train" / "b.xml", voc_xml("b.jpg", []))
    return root


@pytest.mark.parametrize("export", [voc_devkit, voc_beside])
def test_voc_folders(tmp_path: Path, export: Callable[[Path], Path]) -> None:
    root = export(tmp_path)
    found = find_voc(Listing(root))
    assert sorted(found) == ["train", "val"]
    train = read(found, "train", root)
    assert train.class_names == ("cat", "cow")  # by name
    assert boxes(train) == [[COW, CAT], []]
    assert boxes(read(found, "val", root)) == [[CAT]]


def test_images_that_no_file_describes_are_counted_set_by_set(tmp_path: Path) -> None:
    root = voc_beside(tmp_path)
    for name in ("train/c.jpg", "train/d.png", "valid/c.jpg"):
        picture(root / name)
    sets = find_voc(Listing(root))
    assert read(sets, "train", root).notes == ("2 images without an annotation file: left out",)
    assert read(sets, "val", root).notes == ("1 images without an annotation file: left out",)
    with_lists = voc_devkit(tmp_path / "lists")  # an image that no list names is none of a set
    assert read(find_voc(Listing(with_lists)), "val", with_lists).notes == ()


def test_a_listed_name_without_its_file_is_said(tmp_path: Path) -> None:
    root = voc_devkit(tmp_path)
    (root / "VOC2012" / "Annotations" / "2007_3.xml").unlink()
    assert f"no '2007_3.xml' below {root}; add it" in complaint(
        find_voc(Listing(root)), "val", root
    )


def test_an_image_is_found_by_its_own_name_before_the_name_inside(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "renamed.png")
    picture(tmp_path / "images" / "old.png")
    text(tmp_path / "annotations" / "renamed.xml", voc_xml("old.png", [COW]))
    text(tmp_path / "annotations" / "other.xml", voc_xml("old.png", [CAT]))
    labels = read(find_voc(Listing(tmp_path)), "all", tmp_path)
    assert [path.name for path in labels.paths] == ["old.png", "renamed.png"]


def test_difficult_boxes_and_fractions_are_kept(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    odd = (10.5, 20.25, 50, 60, "cow")
    text(tmp_path / "a.xml", voc_xml("a.jpg", [odd, CAT], difficult={1: 1}))
    picture(tmp_path / "b.jpg")
    text(tmp_path / "b.xml", voc_xml("b.jpg", [CAT, CAT, COW], difficult={2: 1}))
    labels = read(find_voc(Listing(tmp_path)), "all", tmp_path)
    assert boxes(labels) == [[odd, CAT], [CAT, COW]]  # the repeated one is left out
    assert [labels.annotations.difficult_of(k).tolist() for k in (0, 1)] == [[False, True]] * 2
    (note,) = labels.notes
    assert note.startswith("2 difficult boxes: trained on; they count in COCO's AP, and neither")
    some = pickle.loads(pickle.dumps(labels.annotations.only([1])))
    assert some.difficult_of(-1).tolist() == [False, True]


@pytest.mark.parametrize(("least", "said"), [(0, False), (1, True), (2, False)])
def test_corners_that_may_count_from_one_are_taken_as_written_and_said_once(
    tmp_path: Path, least: int, said: bool
) -> None:
    for name in ("a", "b"):
        picture(tmp_path / f"{name}.jpg")
        text(tmp_path / f"{name}.xml", voc_xml(f"{name}.jpg", [(least, 3, 100, 80, "cow")]))
    labels = read(find_voc(Listing(tmp_path)), "all", tmp_path)
    assert boxes(labels) == [[(least, 3, 100, 80, "cow")]] * 2
    assert [note[:30] for note in labels.notes] == ["no corner is 0, and some are 1"] * said


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "boom">'
    + "".join(f'<!ENTITY b{k} "{"&b;" * 10 if not k else f"&b{k - 1};" * 10}">' for k in range(12))
    + "]><annotation><filename>&b11;</filename></annotation>"
)
EXTERNAL = (
    '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
    "<annotation><filename>&x;</filename></annotation>"
)


@pytest.mark.parametrize(
    ("xml", "expected"),
    [
        (BOMB, "a DOCTYPE; expected none, as it may declare entities"),
        (EXTERNAL, "a DOCTYPE; expected none, as it may declare entities"),
        ("<annotation><object>", "not XML"),
        ("<annotation>&undeclared;</annotation>", "not XML"),
        ("<annotation><object><name> </name></object></annotation>", "object 0: no name"),
        (
            "<annotation><object><name>a</name><bndbox><xmin>1</xmin><ymin>x</ymin><xmax>3</xmax>"
            "<ymax>4</ymax></bndbox></object></annotation>",
            "object 0: bndbox ['1', 'x', '3', '4']; expected xmin, ymin, xmax, ymax",
        ),
        (
            "<annotation><object><name>a</name></object></annotation>",
            "object 0: bndbox []; expected",
        ),
    ],
)
def test_wrong_voc_files(tmp_path: Path, xml: str, expected: str) -> None:
    picture(tmp_path / "a.jpg")
    picture(tmp_path / "b.jpg")
    text(tmp_path / "a.xml", xml)
    text(tmp_path / "b.xml", voc_xml("b.jpg", [COW]))
    message = complaint(find_voc(Listing(tmp_path)), "all", tmp_path)
    assert message.startswith(f"{tmp_path / 'a.xml'}: ")
    assert expected in message


def test_a_voc_file_without_its_image(tmp_path: Path) -> None:
    text(tmp_path / "a.xml", voc_xml("a.jpg", [COW]))
    assert f"no image 'a.jpg' below {tmp_path}" in complaint(
        find_voc(Listing(tmp_path)), "all", tmp_path
    )


@pytest.mark.parametrize("places", [("train", "val"), ("annotations/train", "annotations/val")])
def test_images_of_one_name_in_several_folders(tmp_path: Path, places: tuple[str, str]) -> None:
    for place, box in zip(places, (COW, CAT), strict=True):
        text(tmp_path / place / "a.xml", voc_xml("a.jpg", [box]))
        picture(tmp_path / place.replace("annotations", "images") / "pictures" / "a.jpg")
    sets = find_voc(Listing(tmp_path))
    assert boxes(read(sets, "train", tmp_path)) == [[COW]]
    labels = read(sets, "val", tmp_path)
    assert boxes(labels) == [[CAT]]
    assert "val" in labels.paths[0].parts
    text(tmp_path / "a.xml", voc_xml("a.jpg", [COW]))
    message = complaint(find_voc(Listing(tmp_path)), "all", tmp_path)
    assert "a.xml: 2 images may be meant, such as " in message


@pytest.mark.parametrize("name", ["a", "a.jpg", "a.xml", "day/a", "./JPEGImages/day/a.JPG"])
def test_names_in_lists(tmp_path: Path, name: str) -> None:
    """With the folders below Annotations/, as CVAT writes them; with endings."""
    for root in (tmp_path / "VOC2007", tmp_path / "VOC2012"):
        boxes_ = [COW] if root.name == "VOC2007" else [CAT]
        text(root / "Annotations" / "day" / "a.xml", voc_xml("day/a.jpg", boxes_))
        picture(root / "JPEGImages" / "day" / "a.jpg")
    text(tmp_path / "VOC2012" / "ImageSets" / "Main" / "train.txt", f"{name}  1")
    labels = read(find_voc(Listing(tmp_path)), "train", tmp_path)
    assert boxes(labels) == [[CAT]]


def test_files_of_other_tools_are_passed_over(tmp_path: Path) -> None:
    for k in range(5):
        text(tmp_path / f"0{k}.xml", "<annotations><image name='a.jpg'/></annotations>")
    assert find_voc(Listing(tmp_path)) == {}
    picture(tmp_path / "a.jpg")
    text(tmp_path / "a.xml", voc_xml("a.jpg", [COW]))
    assert boxes(read(find_voc(Listing(tmp_path)), "all", tmp_path)) == [[COW]]
