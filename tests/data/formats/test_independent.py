"""Exports in the layouts of the tools, opened by --data and by supervision's own readers."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from retinanet.data.formats.recognise import recognise
from tests.data.formats.exports import picture, text, yolo_line

supervision: Any = pytest.importorskip("supervision")

NAMES = ("cow", "cat")
BOXES = {  # of images of 100 x 80 pixels
    "a": [(10, 20, 50, 60, "cow"), (5, 8, 90, 70, "cat")],
    "b": [(1, 1, 100, 80, "cat")],
    "c": [],
}
Found = dict[str, list[tuple[object, ...]]]  # by name of the image: x1, y1, x2, y2, class


def rounded(box: Sequence[float]) -> list[float]:
    """To a thousandth of a pixel: supervision's numbers are of 32 bits."""
    return [round(value, 3) for value in box]


def ours(root: Path, kind: str, part: str) -> Found:
    """The boxes of a set as --data opens it."""
    format_, sets = recognise(root)
    assert format_.title == kind
    data = format_.open(root, sets[part])
    return {
        data.image_path(k).name: sorted(
            (*rounded(row[:4]), data.class_names[int(row[4])])
            for row in data.load_annotations(k).tolist()
        )
        for k in range(len(data))
    }


def theirs(dataset: Any) -> Found:
    """The boxes of a set as supervision opened it."""
    return {
        Path(path).name: sorted(
            (*rounded(box), dataset.classes[label])
            for box, label in zip(found.xyxy.tolist(), found.class_id.tolist(), strict=True)
        )
        for path, found in dataset.annotations.items()
    }


# ---- YOLO: the folder, the set, and where its images and labels lie

Yolo = tuple[Path, str, Path, Path]


def yolo_files(images: Path, labels: Path, suffix: str = "") -> None:
    """Images and their label files, an empty one of an image without boxes."""
    for stem, boxes in BOXES.items():
        picture(images / f"{stem}{suffix}.jpg")
        text(labels / f"{stem}{suffix}.txt", *(yolo_line(box, NAMES) for box in boxes))


def roboflow_yolo(root: Path) -> Yolo:
    """YOLOv8: long names, `../train/images` in data.yaml, a link to the project."""
    for folder in ("train", "valid"):
        yolo_files(root / folder / "images", root / folder / "labels", "_jpg.rf.0a1b2c")
    names = ["train: ../train/images", "val: ../valid/images", "test: ../test/images", ""]
    more = ["", "roboflow:", "  workspace: me", "  project: cows", "  version: 1"]
    text(root / "data.yaml", *names, "nc: 2", "names: ['cow', 'cat']", *more)
    text(root / "README.roboflow.txt", "cows - v1", "===", "5 images")
    return root, "val", root / "valid" / "images", root / "valid" / "labels"


def ultralytics(root: Path) -> Yolo:
    """A map of names, a path, caches of a former training beside the labels."""
    for part in ("train", "val"):
        yolo_files(root / "images" / part, root / "labels" / part)
        (root / "labels" / f"{part}.cache").write_bytes(b"\x93NUMPY")
    lines = [f"path: {root}", "train: images/train", "val: images/val", "test: # none", "names:"]
    text(root / "coco8.yaml", *lines, "  0: cow", "  1: cat", "", "download: https://x/y.zip")
    return root, "train", root / "images" / "train", root / "labels" / "train"


def darknet(root: Path) -> Yolo:
    """Labels beside the images in obj/, lists and names in .data and .names files."""
    yolo_files(root / "obj", root / "obj")
    text(root / "obj.data", "classes = 2", "train = data/train.txt", "names = data/obj.names")
    text(root / "obj.names", *NAMES)
    text(root / "train.txt", *(f"data/obj/{stem}.jpg" for stem in BOXES))
    return root, "train", root / "obj", root / "obj"


def cvat_yolo(root: Path) -> Yolo:
    """YOLO 1.1: the same, in obj_train_data/."""
    yolo_files(root / "obj_train_data", root / "obj_train_data")
    text(root / "obj.data", "classes = 2", "names = data/obj.names", "backup = backup/")
    text(root / "obj.names", *NAMES)
    text(root / "train.txt", *(f"data/obj_train_data/{stem}.jpg" for stem in BOXES))
    return root, "train", root / "obj_train_data", root / "obj_train_data"


@pytest.mark.parametrize("export", [roboflow_yolo, ultralytics, darknet, cvat_yolo])
def test_yolo(tmp_path: Path, export: Callable[[Path], Yolo]) -> None:
    root, part, images, labels = export(tmp_path / "data")
    yaml = text(tmp_path / "names.yaml", "names: [cow, cat]")
    dataset = supervision.DetectionDataset.from_yolo(str(images), str(labels), str(yaml))
    expected = theirs(dataset)
    assert sorted(map(len, expected.values())) == [0, 1, 2]
    assert ours(root, "YOLO", part) == expected


# ---- Pascal VOC: the folder, the set, and where its images and annotations lie

Voc = tuple[Path, str, Path, Path]


def voc_files(images: Path, labels: Path, head: str, item: str, digits: int = 0) -> None:
    """Images and their annotations of a tool's own tags."""
    for stem, boxes in BOXES.items():
        picture(images / f"{stem}.jpg")
        objects = ""
        for *corners, name in boxes:
            pairs = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
            box = "".join(f"<{tag}>{value:.{digits}f}</{tag}>" for tag, value in pairs)
            objects += item.format(name=name, box=f"<bndbox>{box}</bndbox>")
        size = "<size><width>100</width><height>80</height><depth>3</depth></size>"
        text(labels / f"{stem}.xml", head.format(name=f"{stem}.jpg", size=size, objects=objects))


def labelimg(root: Path) -> Voc:
    """Beside the images, without a declaration; the path is of another machine."""
    head = (
        "<annotation verified='yes'>\n\t<folder>photos</folder>\n\t<filename>{name}</filename>\n"
        "\t<path>C:\\photos\\{name}</path>\n\t<source><database>Unknown</database></source>\n"
        "\t{size}\n\t<segmented>0</segmented>\n{objects}</annotation>"
    )
    item = (
        "\t<object>\n\t\t<name>{name}</name>\n\t\t<pose>Unspecified</pose>\n"
        "\t\t<truncated>0</truncated>\n\t\t<difficult>0</difficult>\n\t\t{box}\n\t</object>\n"
    )
    voc_files(root, root, head, item)
    return root, "all", root, root


def cvat_voc(root: Path) -> Voc:
    """VOC 1.1: hundredths of pixels, the box before the marks, lists called default."""
    head = (
        "<annotation>\n  <folder></folder>\n  <filename>{name}</filename>\n  <source>\n"
        "    <database>Unknown</database>\n  </source>\n  {size}\n  <segmented>0</segmented>\n"
        "{objects}</annotation>\n"
    )
    item = (
        "  <object>\n    <name>{name}</name>\n    <truncated>0</truncated>\n"
        "    <occluded>0</occluded>\n    <difficult>0</difficult>\n    {box}\n    <attributes>\n"
        "      <attribute><name>rotation</name><value>0.0</value></attribute>\n"
        "    </attributes>\n  </object>\n"
    )
    voc_files(root / "JPEGImages", root / "Annotations", head, item, digits=2)
    text(root / "ImageSets" / "Main" / "default.txt", *BOXES)
    text(root / "labelmap.txt", "# label:color_rgb:parts:actions", "cow:1,2,3::", "cat:4,5,6::")
    return root, "all", root / "JPEGImages", root / "Annotations"


def roboflow_voc(root: Path) -> Voc:
    """Beside the images of each set, the tags in another order."""
    head = (
        "<annotation>\n\t<folder></folder>\n\t<filename>{name}</filename>\n\t<path>{name}</path>\n"
        "\t<source>\n\t\t<database>roboflow.com</database>\n\t</source>\n\t{size}\n"
        "\t<segmented>0</segmented>\n{objects}</annotation>\n"
    )
    item = (
        "\t<object>\n\t\t<name>{name}</name>\n\t\t<pose>Unspecified</pose>\n"
        "\t\t<truncated>0</truncated>\n\t\t<difficult>0</difficult>\n\t\t<occluded>0</occluded>\n"
        "\t\t{box}\n\t</object>\n"
    )
    voc_files(root / "train", root / "train", head, item)
    return root, "train", root / "train", root / "train"


@pytest.mark.parametrize("export", [labelimg, cvat_voc, roboflow_voc])
def test_voc(tmp_path: Path, export: Callable[[Path], Voc]) -> None:
    """Supervision takes 1 off the first corner (and up to 0.26 off both): pixels from 1, as VOC's.

    We take corners as they are written, for the tools of today count from 0.
    """
    root, part, images, labels = export(tmp_path / "data")
    dataset = supervision.DetectionDataset.from_pascal_voc(str(images), str(labels))
    for found in dataset.annotations.values():
        off_both = found.xyxy[:, 2:].max(initial=0) in (99, 89)
        found.xyxy += 1 if off_both else [1, 1, 0, 0]
    expected = theirs(dataset)
    assert sorted(map(len, expected.values())) == [0, 1, 2]
    assert ours(root, "Pascal VOC", part) == expected


# ---- COCO: the folder, the set, its file, and where its images lie

Coco = tuple[Path, str, Path, Path]


def coco_file(path: Path, prefix: str = "", *, dummy: str = "", texts: bool = False) -> Path:
    """A file of all images.

    Args:
        path: of the file.
        prefix: of the file names in it.
        dummy: name of a first category that has no boxes and is the parent of the others.
        texts: whether ids of images are texts.
    """
    first = 1 if dummy or not texts else 0
    parent = dummy or "none"
    categories = [{"id": 0, "name": dummy, "supercategory": "none"}] if dummy else []
    categories += [
        {"id": first + k, "name": name, "supercategory": parent} for k, name in enumerate(NAMES)
    ]
    listed, entries = [], []
    for k, (stem, boxes) in enumerate(BOXES.items(), start=1):
        own = str(k) if texts else k
        name = f"{prefix}{stem}.jpg"
        listed.append({"id": own, "license": 1, "file_name": name, "height": 80, "width": 100})
        for x1, y1, x2, y2, name in boxes:
            place = {"id": len(entries), "image_id": own, "category_id": first + NAMES.index(name)}
            box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}
            entries.append({**place, **box, "segmentation": [], "iscrowd": 0})
    content = {"info": {"year": "2024"}, "licenses": [], "categories": categories}
    return text(path, json.dumps({**content, "images": listed, "annotations": entries}))


def pictures(folder: Path) -> Path:
    """The images."""
    for stem in BOXES:
        picture(folder / f"{stem}.jpg")
    return folder


def roboflow_coco(root: Path) -> Coco:
    """A file in each set's folder, with a dummy category first."""
    path = coco_file(root / "train" / "_annotations.coco.json", dummy="animals")
    return root, "train", path, pictures(root / "train")


def cvat_coco(root: Path) -> Coco:
    """One file in annotations/, images in images/default/."""
    path = coco_file(root / "annotations" / "instances_default.json")
    return root, "all", path, pictures(root / "images" / "default")


def label_studio(root: Path) -> Coco:
    """result.json, file names from images/ on."""
    path = coco_file(root / "result.json", "images/")
    pictures(root / "images")
    return root, "all", path, root


def via(root: Path) -> Coco:
    """VIA 2 exports a COCO file whose ids are texts, beside the images."""
    return root, "all", coco_file(root / "via_coco.json", texts=True), pictures(root)


@pytest.mark.parametrize("export", [roboflow_coco, cvat_coco, label_studio, via])
def test_coco(tmp_path: Path, export: Callable[[Path], Coco]) -> None:
    root, part, path, images = export(tmp_path / "data")
    expected = theirs(supervision.DetectionDataset.from_coco(str(images), str(path)))
    assert sorted(map(len, expected.values())) == [0, 1, 2]
    assert ours(root, "COCO", part) == expected
