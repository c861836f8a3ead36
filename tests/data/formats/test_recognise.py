"""Folders of any format: recognised, opened, and alike whatever the format."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from retinanet.data.batches import collater
from retinanet.data.datasets import CSVDataset, Data
from retinanet.data.formats.recognise import FORMATS, recognise
from retinanet.data.transforms import evaluation_transform
from retinanet.errors import DataError
from retinanet.evaluation.confusion import confusion_matrix
from retinanet.evaluation.measure import measure
from retinanet.model import resnet18
from retinanet.postprocess import Detections
from tests.data.formats.exports import coco_json, labelme_json, picture, text, voc_xml, yolo_line
from tests.support.narrow import narrow_network
from tests.support.paths import SHARED

BLOOD_CELLS = SHARED / "data" / "blood_cells"
BOXES = {"a": [(10, 20, 50, 60, "cow"), (5, 8, 90, 70, "cat")], "b": [(33, 11, 71, 64, "cow")]}
NAMES = ("cat", "cow")


def write_labels(
    image: Path, kind: str, boxes: Any, names: Sequence[str], size: tuple[int, int] = (100, 80)
) -> None:
    """The labels of an image in `images/`, where a format has them."""
    root, stem = image.parents[1], image.stem
    if kind == "yolo":
        text(root / "labels" / f"{stem}.txt", *(yolo_line(box, names, size) for box in boxes))
    elif kind == "voc":
        text(root / "annotations" / f"{stem}.xml", voc_xml(image.name, boxes))
    elif kind == "labelme":
        text(root / "images" / f"{stem}.json", labelme_json(image.name, boxes))


def write_whole(root: Path, kind: str, by_image: dict[str, Any], names: Sequence[str]) -> None:
    """The file of all labels and their classes, of a format that has one."""
    if kind == "yolo":
        text(root / "classes.txt", *names)
    elif kind == "coco":
        text(root / "annotations" / "instances_default.json", coco_json(by_image, names))
    elif kind == "csv":
        # In another order than the images' names.
        rows = [(image, *box) for image, own in reversed(by_image.items()) for box in own]
        header = "filename,class,xmin,xmax,ymin,ymax"
        lines = [f"{i},{name},{x1},{x2},{y1},{y2}" for i, x1, y1, x2, y2, name in rows]
        text(root / "labels.csv", header, *lines)


def export(root: Path, kind: str) -> Path:
    """The same two images and three boxes in a format."""
    for name, boxes in BOXES.items():
        write_labels(picture(root / "images" / f"{name}.png"), kind, boxes, NAMES)
    write_whole(root, kind, {f"{name}.png": boxes for name, boxes in BOXES.items()}, NAMES)
    return root


def opened(root: Path, **more: object) -> Data:
    """The undivided set of a folder."""
    format_, sets = recognise(root)
    return format_.open(root, sets["all"], evaluation_transform(64, 96), **more)


def test_the_same_labels_in_any_format_give_the_same_samples(tmp_path: Path) -> None:
    sets = [opened(export(tmp_path / kind, kind)) for kind in FORMATS]
    first = sets[0]
    assert first.class_names == NAMES
    for other in sets[1:]:
        assert other.class_names == NAMES
        assert other.image_names == first.image_names == ["images/a.png", "images/b.png"]
        for k in range(2):
            for key in ("img", "annot"):
                assert torch.equal(first[k][key], other[k][key])  # type: ignore[literal-required]


def test_difficult_boxes_count_in_cocos_ap_and_not_in_vocs(tmp_path: Path) -> None:
    """Two cows are easy, one is difficult; one easy cow is found, and the difficult one twice.

    VOC: of 2 annotations the best detection finds one, and no other detection counts: precision 1
    up to recall 1/2, AP 0.5. COCO: of 3 annotations 2 are found by the best two detections, so
    precision is 1 up to recall 2/3, 67 of 101 points.
    """
    cows = [(0, 0, 20, 20, "cow"), (40, 0, 60, 20, "cow"), (0, 40, 20, 60, "cow")]
    picture(tmp_path / "a.jpg")
    text(tmp_path / "a.xml", voc_xml("a.jpg", cows, difficult={1: 1}))
    format_, sets = recognise(tmp_path)
    data = format_.open(tmp_path, sets["all"])
    boxes = torch.tensor([[0, 0, 20, 20], [40, 0, 60, 20], [40, 0, 60, 19]]).double()
    found = [Detections(torch.tensor([0.9, 0.8, 0.7]), torch.zeros(3).long(), boxes)]
    scores = measure(data, found)
    assert scores.numbers["mAP"] == 0.5
    assert scores.coco.stats["AP50"] == pytest.approx(67 / 101)
    (row,) = scores.curves.classes
    assert (row.num_annotations, row.precision, row.recall) == (2, 1, 0.5)
    matrix = confusion_matrix(scores.matches or (), 1, 0.5)
    assert matrix.tolist() == [[1, 1], [0, 0]]  # one found, one missed, none false


def test_two_formats_are_an_error_that_names_both(tmp_path: Path) -> None:
    export(tmp_path, "yolo")
    export(tmp_path, "voc")
    with pytest.raises(DataError, match="labels of YOLO and Pascal VOC; expected one format"):
        recognise(tmp_path)
    format_, _ = recognise(tmp_path, "voc")
    assert format_.title == "Pascal VOC"


def test_nothing_there_and_nothing_known(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=r"known format among 1 \.jpg; expected one of YOLO: data"):
        recognise(tmp_path)
    with pytest.raises(DataError, match=r"expected one of Pascal VOC: a \.xml an image$"):
        recognise(tmp_path, "voc")
    text(tmp_path / "a.csv", "fichier,gauche")
    with pytest.raises(DataError, match=r"; --data .*a\.csv says what is wrong with it$"):
        recognise(tmp_path)
    with pytest.raises(DataError, match="no such file or folder"):
        recognise(tmp_path / "gone")


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("annotations.xml", '<?xml version="1.0"?><annotations><image name="a.jpg"><box label="c"',
         r"annotations\.xml is CVAT's own XML, which is not read: export as COCO 1\.0"),
        ("via_project.json", '{"_via_settings": {}, "_via_img_metadata": {}}',
         "is VIA's project, which is not read: export the annotations as CSV or COCO"),
        ("project-1.json", '[{"id": 1, "annotations": [{"id": 2,\n "result": []}], "data": {}}]',
         "is Label Studio's own format"),
        ("project-1.csv", 'image,id,label\na.jpg,1,"[{""x"":1,""rectanglelabels"":[""cow""]}]"',
         "is Label Studio's own format"),
        ("cows-export.json", '{"name": "cows", "assets": {"1": {"asset": {}, "regions": []}}}',
         "is VoTT's JSON"),
        ("_annotations.createml.json", '[{"image": "a.jpg", "annotations": [{"label": "cow", '
         '"coordinates": {"x": 1}}]}]', "is CreateML's"),
        ("ann/a.jpg.json", '{"objects": [{"classTitle": "cow", "points": {"exterior": []}}]}',
         "is Supervisely's"),
        ("_annotations.txt", "a.jpg 10,20,50,60,0", "is Keras YOLO's list"),
        ("via_region_data.json", '{"a.jpg1": {"regions": [{"shape_attributes": {"name": "x"}}]}}',
         "is VIA's JSON"),
        ("annotations/a.json", '{"version": "2.0", "annotations": [{"bounding_box": {"h": 4.0}}]}',
         "is V7 Darwin's JSON"),
        ("annotations/default.json", '{"info": {}, "categories": {"label": {"labels": []}}}',
         "is Datumaro's JSON"),
        ("labels.json", '{"labels": {"a": [{"label": "cow", "bounding_box": [0.1, 0.2]}]}}',
         "is FiftyOne's JSON"),
        ("label_2/a.txt", "cow 0.00 0 -1.5 20 30 70 70 1.5 1.6 3.7 0 0 0 0", "is KITTI's labels"),
        ("labelTxt/a.txt", "imagesource:x\ngsd:0.1\n20 30 70 30 70 70 20 70 cow 0", "is DOTA's"),
        ("annotations/a.txt", "20,30,50,40,1,4,0,0", "is VisDrone's labels"),
        ("cows.zip", "PK", r"; unpack .*cows\.zip and give the folder"),
    ],
)  # fmt: skip
def test_formats_that_are_not_read_are_called_by_name(
    tmp_path: Path, name: str, content: str, found: str
) -> None:
    picture(tmp_path / "a.jpg")
    text(tmp_path / name, content)
    with pytest.raises(DataError, match=f"no labels of a known format among .*{found}"):
        recognise(tmp_path)
    with pytest.raises(DataError, match=found) as caught:
        recognise(tmp_path / name)
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_of_one_image_is_asked_for_its_folder(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    files = {"a.json": labelme_json("a.jpg", []), "a.xml": voc_xml("a.jpg", [])}
    for name, content in files.items():
        text(tmp_path / name, content)
        with pytest.raises(
            DataError, match=rf"a\.\w+ is \w.*, of one image; .*give --data {tmp_path}$"
        ):
            recognise(tmp_path / name)


def test_coco_is_not_taken_for_another_tool_s(tmp_path: Path) -> None:
    """A category called as another tool's key."""
    picture(tmp_path / "a.jpg")
    content = coco_json({"a.jpg": [(10, 20, 50, 60, "result")]}, ["result"])
    keys = json.loads(content)
    order = ("annotations", "images", "categories")
    file = text(tmp_path / "a.json", json.dumps({key: keys[key] for key in order}))
    assert recognise(file)[0].title == "COCO"


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


def test_fractions_of_an_image_that_is_skipped_are_no_problem(tmp_path: Path) -> None:
    root = export(tmp_path, "yolo")
    (root / "images" / "b.png").write_bytes(b"no image")
    with pytest.raises(DataError) as caught:
        opened(root)
    assert len(str(caught.value).splitlines()) == 1
    assert opened(root, skip_unreadable=True).image_names == ["images/a.png"]


def test_classes_are_mapped_by_name(tmp_path: Path) -> None:
    root = export(tmp_path, "voc")
    mapped = opened(root, class_names=("cow", "dog", "cat"))
    assert mapped.load_annotations(0)[:, 4].tolist() == [0, 2]
    known = opened(root, class_names=("cat",))
    assert [len(known.load_annotations(k)) for k in range(2)] == [1, 0]
    assert known.repaired == {"box of a class that the model does not know": 2}
    with pytest.raises(DataError, match=r"object 0: a box of 'cow'; expected one of \['cat'\]"):
        opened(root, class_names=("cat",), strict=True)
    with pytest.raises(
        DataError, match=r"classes \['cat', 'cow'\]; expected those of the training"
    ):
        opened(root, class_names=("dog",))


@pytest.mark.parametrize("kind", ["voc", "labelme", "coco"])
def test_images_made_smaller_after_labelling_are_an_error(tmp_path: Path, kind: str) -> None:
    root = export(tmp_path, kind)
    assert not any("of another size" in note for note in opened(root).notes)
    for image in (root / "images").glob("*.png"):
        picture(image, 50, 40)
    match = r"png' is 50 x 40 pixels, and 100 x 80 in the file; 3 of 3 boxes lie in the latter"
    with pytest.raises(DataError, match=match):
        opened(root)


def test_some_of_the_images_can_be_kept(tmp_path: Path) -> None:
    data = opened(export(tmp_path, "labelme"))
    second = data.load_annotations(1)
    data.keep([1])
    assert len(data) == 1
    assert data.image_names == ["images/b.png"]
    assert (data.load_annotations(0) == second).all()
    assert data.image_path(0).name == "b.png"


def first_losses(samples: Sequence[Any]) -> list[float]:
    """Both losses of a batch in a narrow network that has learnt nothing."""
    torch.manual_seed(0)
    batch = collater(samples)
    with narrow_network():
        model = resnet18(3)
    return [loss.item() for loss in model([batch["img"], batch["annot"]])]


@pytest.mark.skipif(not BLOOD_CELLS.exists(), reason="../shared/data/blood_cells is absent")
@pytest.mark.parametrize("kind", FORMATS)
def test_real_photographs_in_any_format_give_the_samples_of_their_csv(
    tmp_path: Path, kind: str
) -> None:
    lines = (BLOOD_CELLS / "train.csv").read_text().splitlines()
    by_image: dict[str, list[tuple[float, ...]]] = {}
    for name, *corners, label in (line.split(",") for line in lines):
        by_image.setdefault(name, []).append((*map(float, corners), label))  # type: ignore[arg-type]
    chosen = dict(list(by_image.items())[:20])
    names = sorted({str(box[4]) for boxes in by_image.values() for box in boxes})
    text(tmp_path / "some.csv", *(line for line in lines if line.split(",")[0] in chosen))
    by_name = {Path(name).name: boxes for name, boxes in chosen.items()}
    write_whole(tmp_path / kind, kind, by_name, names)
    for name, boxes in chosen.items():
        image = tmp_path / kind / "images" / Path(name).name
        image.parent.mkdir(exist_ok=True, parents=True)
        image.symlink_to(BLOOD_CELLS / name)
        with Image.open(image) as opened:
            write_labels(image, kind, boxes, names, opened.size)
    classes = {name: label for label, name in enumerate(names)}
    transform = evaluation_transform(64, 96)
    plain = CSVDataset(tmp_path / "some.csv", classes, transform, BLOOD_CELLS)
    format_, sets = recognise(tmp_path / kind, kind)
    data = format_.open(tmp_path / kind, sets["all"], transform)
    assert data.class_names == tuple(names)
    order = {Path(name).name: k for k, name in enumerate(plain.image_names)}
    assert len(data) == len(plain) == 20
    samples = [data[k] for k in range(20)]
    expected = [plain[order[Path(name).name]] for name in data.image_names]
    for ours, theirs in zip(samples, expected, strict=True):
        assert torch.equal(ours["img"], theirs["img"])
        assert torch.equal(ours["annot"], theirs["annot"])
    assert first_losses(samples[:4]) == first_losses(expected[:4])
