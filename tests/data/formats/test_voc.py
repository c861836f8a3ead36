"""Folders of Pascal VOC: the sets, the boxes, and what is said of them."""

import math
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
    assert read(sets, "val", root).notes == ("1 image without an annotation file: left out",)
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
    assert note.startswith("2 difficult boxes: trained on; counted in COCO's AP, and neither")
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


LABELME_XML = (
    "<annotation><filename>a.jpg</filename><folder></folder><imagesize><nrows>80</nrows>"
    "<ncols>100</ncols></imagesize>{}</annotation>"
)
POLYGON = (
    "<object><name>{}</name><deleted>{}</deleted><parts><hasparts></hasparts></parts>"
    "<polygon>{}<username></username></polygon></object>"
)


def polygon(name: str, *points: tuple[int, int], deleted: int = 0) -> str:
    """An object as LabelMe's XML has it, of CVAT too."""
    parts = "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in points)
    return POLYGON.format(name, deleted, parts)


def test_polygons_of_labelme_xml_and_rotated_boxes_become_boxes(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    shapes = polygon("cat", (5, 8), (90, 30), (40, 70)), polygon("cow", (1, 2), deleted=1)
    text(tmp_path / "a.xml", LABELME_XML.format("".join(shapes)))
    picture(tmp_path / "b.jpg")
    # 40 x 20 around (30, 40), turned by 90 degrees: 20 x 40, from (20, 20) to (40, 60).
    numbers = {"cx": 30, "cy": 40, "w": 40, "h": 20, "angle": math.pi / 2}
    tags = "".join(f"<{tag}>{number}</{tag}>" for tag, number in numbers.items())
    turned = f"<object><type>robndbox</type><name>cow</name><robndbox>{tags}</robndbox></object>"
    text(tmp_path / "b.xml", voc_xml("b.jpg", [CAT]).replace("<object>", f"{turned}<object>"))
    labels = read(find_voc(Listing(tmp_path)), "all", tmp_path)
    assert boxes(labels) == [[CAT], [(20, 20, 40, 60, "cow"), CAT]]
    said = ["1 polygon became the box around it", "1 rotated box became the box around it"]
    assert [note for note in labels.notes if "became" in note] == said
    text(tmp_path / "a.xml", LABELME_XML.format(polygon("cow")))
    message = complaint(find_voc(Listing(tmp_path)), "all", tmp_path)
    assert "a.xml: object 0: bndbox []; expected xmin" in message


def test_a_mask_beside_the_labels_is_not_taken_for_the_image(tmp_path: Path) -> None:
    """Oxford's pets: annotations/xmls/a.xml, annotations/trimaps/a.png, images/a.jpg."""
    picture(tmp_path / "images" / "a.jpg")
    picture(tmp_path / "annotations" / "trimaps" / "a.png")
    file = tmp_path / "annotations" / "xmls" / "a.xml"
    text(file, voc_xml("a.jpg", [COW]))
    (path,) = read(find_voc(Listing(tmp_path)), "all", tmp_path).paths
    assert path == tmp_path / "images" / "a.jpg"
    text(file, voc_xml("a", [COW]))  # nothing tells the two apart
    message = complaint(find_voc(Listing(tmp_path)), "all", tmp_path)
    assert "a.xml: 2 images may be meant, such as " in message


def test_utf_16(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    xml = '<?xml version="1.0" encoding="UTF-16"?>' + voc_xml("a.jpg", [COW])
    (tmp_path / "a.xml").write_bytes(xml.encode("utf-16"))
    assert boxes(read(find_voc(Listing(tmp_path)), "all", tmp_path)) == [[COW]]


@pytest.mark.parametrize(
    "lists",
    [
        {"ImageSets/Main/Train.txt": ["a"], "ImageSets/Main/Validation.txt": ["my cow"]},
        {"imagesets/main/train.txt": ["a"], "imagesets/main/val.txt": ["my cow"]},
        {"ImageSets/train.txt": ["a"], "ImageSets/test.txt": ["my cow"]},
        # VoTT, which has no other lists: of each class, with whether it is there.
        {
            "ImageSets/Main/cow_train.txt": ["a.jpg 1"],
            "ImageSets/Main/cow_val.txt": ["my cow.jpg -1"],
            "ImageSets/Main/cat_train.txt": ["a.jpg -1"],
            "ImageSets/Main/cat_val.txt": ["my cow.jpg 1"],
        },
        # PaddleDetection: the image and its labels.
        {"train.txt": ["images/a.jpg xml/a.xml"], "val.txt": ["images/my cow.jpg xml/c.xml"]},
        {"train_list.txt": ["./images/a.jpg\txml/a.xml"], "val_list.txt": ["my cow"]},
    ],
)
def test_lists_of_every_kind_name_the_sets(tmp_path: Path, lists: dict[str, list[str]]) -> None:
    for name, box in (("a", COW), ("my cow", CAT), ("rest", CAT)):
        picture(tmp_path / "images" / f"{name}.jpg")
        text(tmp_path / "xml" / f"{name}.xml", voc_xml(f"{name}.jpg", [box]))
    for place, lines in lists.items():
        text(tmp_path / place, *lines)
    sets = find_voc(Listing(tmp_path))
    second = "test" if "ImageSets/test.txt" in lists else "val"
    assert sorted(sets) == sorted(["train", second])
    train, val = (read(sets, name, tmp_path) for name in ("train", second))
    assert [boxes(train), boxes(val)] == [[[COW]], [[CAT]]]
    assert train.notes == val.notes == ("1 annotation file in no list of a set: left out",)


@pytest.mark.parametrize(
    "lists",
    [
        {"annotations/test.txt": ["a 1 1 1"]},  # nothing to train on
        {"annotations/trainval.txt": ["a 1 1 1", "gone 1 1 1"]},  # of more than is there
        {"train.txt": ["Notes on the training"]},
        {"annotations/list.txt": ["a"]},
    ],
)
def test_other_texts_are_no_lists(tmp_path: Path, lists: dict[str, list[str]]) -> None:
    for name in ("a", "b"):
        picture(tmp_path / f"{name}.jpg")
        text(tmp_path / f"{name}.xml", voc_xml(f"{name}.jpg", [COW]))
    for place, lines in lists.items():
        text(tmp_path / place, *lines)
    assert list(find_voc(Listing(tmp_path))) == ["all"]
