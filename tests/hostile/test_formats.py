"""Labelled folders from strangers: refused in a line, in no time, with nothing written."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from retinanet.data.datasets import Data
from retinanet.data.formats.recognise import recognise
from retinanet.errors import DataError, printable
from tests.data.formats.exports import labelme_json, picture, text, voc_xml, yolo_line
from tests.support.hostile import no_file

COW = (10, 20, 50, 60, "cow")
SECONDS = 5  # of the processor; each takes a few milliseconds, the slowest half a second


def opened(root: Path, kind: str | None = None) -> Data:
    """The only set of a folder, as --data opens it."""
    format_, sets = recognise(root, kind)
    return format_.open(root, next(iter(sets.values())))


def refused(root: Path, kind: str | None = None) -> str:
    """The message that a folder is refused with; it is short, and nothing was written."""
    before = {path: path.lstat().st_mtime_ns for path in root.rglob("*")}
    start = time.process_time()
    with pytest.raises(DataError) as caught:
        opened(root, kind)
    assert time.process_time() - start < SECONDS
    assert {path: path.lstat().st_mtime_ns for path in root.rglob("*")} == before
    lines = str(caught.value).split("\n")
    assert len(lines) <= 21
    assert all(len(line) < 1000 and printable(line) == line for line in lines)
    return str(caught.value)


def yolo(root: Path) -> Path:
    """Two images, labels of one."""
    picture(root / "images" / "a.jpg")
    picture(root / "images" / "b.jpg")
    text(root / "labels" / "a.txt", yolo_line(COW, ["cow"]))
    text(root / "classes.txt", "cow")
    return root


# ---- YAML

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]\n" for k in range(1, 12)
)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("names: &a [*a]\ntrain: images", "not YAML (found unconstructable recursive node"),
        (BOMB + "names: *a11\ntrain: images", "names is [[[...], [...]"),  # 9 ** 12 names
        (BOMB + "names: [cow]\ntrain: *a11", "train is [[[...], [...]"),
        (f"names: {'[' * 20_000}\ntrain: images", "not YAML (maximum recursion depth"),
        (f"train: images\nnames: [{'cow, ' * 250_000}]", "not YAML (more than 1,000,000 bytes)"),
        ('names: ["\\e[2J"]\ntrain: images', r"the class '\x1b[2J'; expected no control"),
        ("names: !!python/object/new:os.system [x]\ntrain: /etc", "'/etc' is not below"),
        (f"names: [cow]\ntrain: {'../' * 1000}etc", "is not below"),
        (f"names: [cow]\npath: {'a' * 10_000}\ntrain: {'b' * 10_000}", "is not below"),
        ('names: [cow]\ntrain: "images\\0"', r"train: 'images\x00' is not below"),
        ("names: [cow]\ntrain: \xe4\xff", "not YAML ("),
    ],
)
def test_yaml(tmp_path: Path, content: str, expected: str) -> None:
    yolo(tmp_path)
    (tmp_path / "data.yaml").write_bytes(content.encode("latin-1"))
    message = refused(tmp_path)
    assert message.startswith(f"{tmp_path / 'data.yaml'}: ")
    assert expected in message


def test_a_number_of_a_million_digits_is_a_name(tmp_path: Path) -> None:
    """To Python's own reader it is a number that cannot be written."""
    yolo(tmp_path)
    text(tmp_path / "data.yaml", "train: images", f"names: [{'1:' * 10_000}1, {'9' * 500_000}]")
    assert opened(tmp_path).num_classes() == 2


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "loop"])
@pytest.mark.parametrize(
    "name",
    [
        *("data.yaml", "classes.txt", "labels/b.txt"),
        *(f"labels/b.{kind}" for kind in ("xml", "json", "csv")),
    ],
)
def test_what_is_no_file_is_left_alone(tmp_path: Path, name: str, kind: str) -> None:
    yolo(tmp_path)
    (tmp_path / name).unlink(missing_ok=True)
    no_file(tmp_path / name, kind)
    if name == "labels/b.txt":
        assert refused(tmp_path).startswith(f"{tmp_path / name}: not a file; expected labels")
    elif name == "classes.txt":
        assert "no labels of a known format" in refused(tmp_path)
    else:
        assert len(opened(tmp_path)) == 2


def test_labels_that_cannot_be_listed_are_not_taken_for_missing(tmp_path: Path) -> None:
    yolo(tmp_path)
    shutil.rmtree(tmp_path / "labels")
    no_file(tmp_path / "labels", "loop")
    assert refused(tmp_path).startswith(f"{tmp_path / 'labels'}: Too many levels of symbolic links")


# ---- label files and lists


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (f"0 {'9' * 1_000_000} 0.5 0.1 0.1", "finite; correct it"),
        (f"{'9' * 300} 0.5 0.5 0.1 0.1", "class 99999999999999999999; expected 0 to 0"),
        (f"0 {'0.5 ' * 100_001}", "100002 numbers; expected"),
        ("0 0.5 0.5 0.1 0.1\0", r"'0 0.5 0.5 0.1 0.1\x00'; expected"),
        ("\ud800 0.5 0.5 0.1 0.1", "' 0.5 0.5 0.1 0.1'; expected"),
        ("0 0.5 0.5 1e-400 1e-400", "x2 (50) is not greater than x1 (50)"),
    ],
)
def test_yolo_lines(tmp_path: Path, line: str, expected: str) -> None:
    yolo(tmp_path)
    (tmp_path / "labels" / "a.txt").write_bytes(line.encode(errors="surrogatepass"))
    message = refused(tmp_path)
    assert message.startswith(f"{tmp_path / 'labels' / 'a.txt'}:1: ")
    assert expected in message.replace("\ufffd", "")


def test_a_list_of_hostile_paths(tmp_path: Path) -> None:
    """Nothing outside the folder is found, and a million folders do not take an hour."""
    root = yolo(tmp_path / "data")
    picture(tmp_path / "secret.jpg")
    lines = ["../secret.jpg", str(tmp_path / "secret.jpg"), "a/" * 500_000, "x" * 10_000, "\0", "/"]
    text(root / "train.txt", "images/a.jpg", *lines, "~/x", "$HOME/x", "file:///etc/passwd")
    text(root / "data.yaml", "train: train.txt", "names: [cow]")
    message = refused(root)
    assert [line.split(": ")[0].rpartition(":")[2] for line in message.split("\n")] == [
        *("2", "3", "4", "5", "6", "7", "8", "9", "10")
    ]


def test_names_that_no_terminal_should_see(tmp_path: Path) -> None:
    """Of files, in bytes that are no UTF-8 and with line ends."""
    root = os.fsencode(tmp_path)
    for name, content in ((b"\xff\n\x1b[2J", voc_xml("a.jpg", [COW])), (b"b", "<annotation>")):
        Path(os.fsdecode(os.path.join(root, name + b".xml"))).write_text(content)
    assert r"\n\x1b[2J.xml: no image 'a.jpg' below" in refused(tmp_path)


# ---- XML


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("<annotation>" + "<object>" * 100_000, "not XML"),
        ("<annotation>" + "<a>" * 100_000 + "</a>" * 100_000 + "</annotation>", ""),
        ('<?xml version="1.0" encoding="utf-7"?><annotation/>', "not XML"),
        ('<?xml version="1.0" encoding="gb2312"?><annotation/>', "not XML (multi-byte encodings"),
        ("<annotation>\x01</annotation>", "not XML"),
        ("<annotation>\xff</annotation>", "not XML"),
        (voc_xml("a.jpg", [(1, 2, float("nan"), 4, "cow")]), "expected xmin, ymin, xmax, ymax"),
        (voc_xml("a.jpg", [COW]).replace("50", "9" * 1_000_000), "expected xmin, ymin, xmax, ymax"),
        (voc_xml("a.jpg", [(*COW[:4], "c" * 10_000 + "&#10;w")]), "expected no control characters"),
        (voc_xml("a.jpg", [COW]).replace("<width>100<", "<width>1000000000<"), ""),  # not believed
        (voc_xml("x" * 10_000 + ".jpg", [COW]), ""),  # its own name counts
    ],
)
def test_xml(tmp_path: Path, content: str, expected: str) -> None:
    for name in ("a", "b"):
        picture(tmp_path / f"{name}.jpg")
    (tmp_path / "a.xml").write_bytes(content.encode("latin-1"))
    text(tmp_path / "b.xml", voc_xml("b.jpg", [COW]))
    if expected:
        message = refused(tmp_path)
        assert message.startswith(f"{tmp_path / 'a.xml'}: ")
        assert expected in message
    else:
        assert opened(tmp_path).class_names == ("cow",)


# ---- JSON


def shape(*points: object) -> str:
    """A LabelMe file with one rectangle, its numbers as they are given."""
    inner = ", ".join(f"[{x}, {y}]" for x, y in points)  # type: ignore[misc]
    return labelme_json("a.jpg", []).replace(
        '"shapes": []', f'"shapes": [{{"label": "cow", "points": [{inner}]}}]'
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"shapes": ' + "[" * 100_000, "not JSON (maximum recursion depth"),
        (shape((1, 2), (3, "9" * 1_000_000), (5, 6)), "not JSON (Exceeds the limit"),
        (shape((1, 2), (3, "NaN"), (5, 6)), "expected 3 or more"),
        (shape((1, 2), (3, "-Infinity"), (5, 6)), "expected 3 or more"),
        (shape((1, 2), (3, "9" * 400), (5, 6)), "expected 3 or more"),
        (shape((1, 2), (3, '"9"'), ("{}", 6)), "expected 3 or more"),
        ('{"shapes": [\xff', "not JSON"),
        (labelme_json("a.jpg", [(*COW[:4], "c\x1b[2J")]), r"class 'c\x1b[2J'; expected no control"),
    ],
)
def test_labelme(tmp_path: Path, content: str, expected: str) -> None:
    for name in ("a", "b"):
        picture(tmp_path / f"{name}.jpg")
    (tmp_path / "a.json").write_bytes(content.encode("latin-1"))
    text(tmp_path / "b.json", labelme_json("b.jpg", [COW]))
    message = refused(tmp_path)
    assert message.startswith(f"{tmp_path / 'a.json'}: ")
    assert expected in message


def coco(annotation: str = "", size: str = "100", image: str = "1") -> str:
    """A COCO file of one image and one box, parts of it as they are given."""
    box = annotation or '"bbox": [1, 2, 30, 40]'
    return (
        f'{{"images": [{{"id": {image}, "file_name": "a.jpg", "width": {size}, "height": 80}}],'
        f' "annotations": [{{"id": 1, "image_id": 1, "category_id": 1, {box}}}],'
        ' "categories": [{"id": 1, "name": "cow"}]}'
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (coco('"segmentation": ' + "[" * 100_000), "maximum recursion depth"),
        (coco(image="9" * 1_000_000), "Exceeds the limit"),
        (coco('"bbox": [1, 2, 3, 1e400]'), "annotations[0]: bbox [1, 2, 3, inf]; expected four"),
        (coco('"bbox": [1, 2, 3, NaN]'), "annotations[0]: bbox [1, 2, 3, nan]; expected four"),
        (coco(f'"bbox": [1, 2, 3, {"9" * 4000}]'), "expected four numbers"),
        (coco(image="null"), "images[0]: id is None; expected id, file_name"),
        (coco('"bbox": {}'), "annotations[0]: bbox {}; expected four numbers"),
    ],
)
def test_coco(tmp_path: Path, content: str, expected: str) -> None:
    picture(tmp_path / "a.jpg")
    text(tmp_path / "all.json", content)
    message = refused(tmp_path)
    assert str(tmp_path / "all.json") in message
    assert expected in message


def test_a_size_of_a_thousand_million_pixels_is_not_believed(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    text(tmp_path / "all.json", coco(size="999999999"))
    data = opened(tmp_path)
    assert data.image_size(0) == (80, 100)
    assert data.repaired == {"image size that is not the file's": 1}


@pytest.mark.parametrize(
    "name", ["../secret.jpg", "/etc/hosts", "x" * 10_000, "\0", "a/../../secret.jpg", "..", ""]
)
@pytest.mark.parametrize("kind", ["voc", "labelme", "coco"])
def test_an_image_outside_the_folder_is_never_found(tmp_path: Path, kind: str, name: str) -> None:
    root = tmp_path / "data"
    picture(tmp_path / "secret.jpg")
    picture(root / "images" / "b.jpg")
    if kind == "labelme":
        text(root / "images" / "c.json", labelme_json(name, [COW]))
    elif kind == "voc":
        text(root / "images" / "c.xml", voc_xml(name.replace("\0", ""), [COW]))
    else:
        box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}
        content = {"images": [{"id": 1, "file_name": name}], "annotations": [box]}
        categories = {"categories": [{"id": 1, "name": "cow"}]}
        text(root / "annotations.json", json.dumps({**content, **categories}))
    assert "no image " in refused(root, kind)
