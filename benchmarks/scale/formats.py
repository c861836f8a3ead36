"""Opening labelled folders of every text format, all but the headers of the images."""

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch
from xml.etree import ElementTree

from benchmarks.scale.annotations import BOXES_PER_IMAGE, CLASSES, HEIGHT, WIDTH, boxes
from benchmarks.sides.measure import Function, Row, arguments, medians, peak_memory, show
from retinanet.data import datasets
from retinanet.data.datasets import Data
from retinanet.data.formats.recognise import recognise

MOST_BYTES = 2e9
NAMES = tuple(CLASSES)
CORNERS = ("xmin", "ymin", "xmax", "ymax")

Rows = list[list[int]]  # x1, y1, x2, y2, label of each box of an image


def yolo_text(stem: str, rows: Rows) -> str:
    """A label file, six digits a number, as Ultralytics and others write it."""
    return "".join(
        f"{label} {(x1 + x2) / 2 / WIDTH:.6f} {(y1 + y2) / 2 / HEIGHT:.6f}"
        f" {(x2 - x1) / WIDTH:.6f} {(y2 - y1) / HEIGHT:.6f}\n"
        for x1, y1, x2, y2, label in rows
    )


def voc_text(stem: str, rows: Rows) -> str:
    """An annotation file with the tags that labelImg writes."""
    objects = "".join(
        f"\t<object>\n\t\t<name>{NAMES[label]}</name>\n\t\t<pose>Unspecified</pose>\n"
        "\t\t<truncated>0</truncated>\n\t\t<difficult>0</difficult>\n\t\t<bndbox>\n"
        f"\t\t\t<xmin>{x1}</xmin>\n\t\t\t<ymin>{y1}</ymin>\n\t\t\t<xmax>{x2}</xmax>\n"
        f"\t\t\t<ymax>{y2}</ymax>\n\t\t</bndbox>\n\t</object>\n"
        for x1, y1, x2, y2, label in rows
    )
    return (
        f"<annotation>\n\t<folder>images</folder>\n\t<filename>{stem}.jpg</filename>\n"
        f"\t<path>/home/me/images/{stem}.jpg</path>\n\t<size>\n\t\t<width>{WIDTH}</width>\n"
        f"\t\t<height>{HEIGHT}</height>\n\t\t<depth>3</depth>\n\t</size>\n"
        f"\t<segmented>0</segmented>\n{objects}</annotation>\n"
    )


def labelme_text(stem: str, rows: Rows) -> str:
    """An annotation file with the keys that LabelMe writes."""
    shapes = [
        {
            **{"label": NAMES[label], "points": [[x1, y1], [x2, y2]], "group_id": None},
            **{"description": "", "shape_type": "rectangle", "flags": {}, "mask": None},
        }
        for x1, y1, x2, y2, label in rows
    ]
    head = {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": f"{stem}.jpg"}
    tail = {"imageData": None, "imageHeight": HEIGHT, "imageWidth": WIDTH}
    return json.dumps({**head, **tail}, indent=2)


def parse_yolo(data: bytes) -> Any:
    """The numbers of every line."""
    return [[float(field) for field in line.split()] for line in data.splitlines()]


def parse_voc(data: bytes) -> Any:
    """Name and corners of every object."""
    return [
        (item.findtext("name"), *(float(item.findtext(f"bndbox/{tag}") or "") for tag in CORNERS))
        for item in ElementTree.fromstring(data).iterfind("object")
    ]


def parse_labelme(data: bytes) -> Any:
    """Label and points of every shape."""
    return [(shape["label"], shape["points"]) for shape in json.loads(data)["shapes"]]


def parse_coco(data: bytes) -> Any:
    """Image, category and box of every annotation."""
    entries = json.loads(data)["annotations"]
    return [(entry["image_id"], entry["category_id"], entry["bbox"]) for entry in entries]


def parse_csv(data: bytes) -> Any:
    """Name, class and corners of every row but the header."""
    rows = (line.split(",") for line in data.decode().splitlines()[1:])
    return [(row[0], row[3], *map(float, row[4:])) for row in rows]


class Kind(NamedTuple):
    """A format: its files, and the plain way to parse one."""

    title: str
    parse: Callable[[bytes], Any]
    folder: str
    """Of the label files."""
    suffix: str
    text: Callable[[str, Rows], str] | None = None
    """Of an image's own label file, where it has one."""


KINDS = {
    "yolo": Kind("YOLO", parse_yolo, "labels", ".txt", yolo_text),
    "voc": Kind("Pascal VOC", parse_voc, "annotations", ".xml", voc_text),
    "labelme": Kind("LabelMe", parse_labelme, "images", ".json", labelme_text),
    "coco": Kind("COCO", parse_coco, "", ".json"),
    "csv": Kind("CSV", parse_csv, "", ".csv"),
}


def write(root: Path, name: str, count: int) -> Path:
    """A folder of so many images, which are empty files: nobody opens them."""
    kind = KINDS[name]
    (root / "images").mkdir(parents=True)
    (root / kind.folder).mkdir(exist_ok=True)
    for stem, rows in images(count):
        (root / "images" / f"{stem}.jpg").touch()
        if kind.text:
            (root / kind.folder / f"{stem}{kind.suffix}").write_text(kind.text(stem, rows))
    if name == "yolo":
        (root / "classes.txt").write_text("\n".join(NAMES))
    if name == "coco":
        (root / "annotations.json").write_text(coco_text(count))
    if name == "csv":
        (root / "labels.csv").write_text(csv_text(count))
    return root


def images(count: int) -> Iterator[tuple[str, Rows]]:
    """Names without ending, and boxes."""
    rows = boxes(count * BOXES_PER_IMAGE).tolist()
    for k in range(count):
        yield f"{k:06}", rows[k * BOXES_PER_IMAGE : (k + 1) * BOXES_PER_IMAGE]


def coco_text(count: int) -> str:
    """One file of all images."""
    entries, listed = [], []
    for k, (stem, rows) in enumerate(images(count)):
        listed.append({"id": k, "file_name": f"{stem}.jpg", "height": HEIGHT, "width": WIDTH})
        for x1, y1, x2, y2, label in rows:
            width, height = x2 - x1, y2 - y1
            place = {"id": len(entries), "image_id": k, "category_id": label}
            box = {"bbox": [x1, y1, width, height], "area": width * height, "iscrowd": 0}
            entries.append({**place, **box, "segmentation": []})
    categories = [{"id": label, "name": name} for name, label in CLASSES.items()]
    return json.dumps({"images": listed, "annotations": entries, "categories": categories})


def csv_text(count: int) -> str:
    """One file of all boxes, as the scripts that read VOC's files write it."""
    lines = ["filename,width,height,class,xmin,ymin,xmax,ymax"]
    for stem, rows in images(count):
        for x1, y1, x2, y2, label in rows:
            lines.append(f"{stem}.jpg,{WIDTH},{HEIGHT},{NAMES[label]},{x1},{y1},{x2},{y2}")
    return "\n".join(lines) + "\n"


def ours(root: Path, name: str) -> Data:
    """The data set as train.py opens it, checks included, but for the images' headers."""
    format_, sets = recognise(root, name)
    with patch.object(datasets, "read_sizes", _known_sizes):
        return format_.open(root, sets["all"])


def _known_sizes(paths: Sequence[str], *_: object) -> list[tuple[int, int]]:
    return [(HEIGHT, WIDTH)] * len(paths)


def plainly(root: Path, name: str) -> list[Any]:
    """Every label file's bytes, parsed."""
    kind = KINDS[name]
    found = []
    with os.scandir(root / kind.folder) as entries:
        for entry in entries:
            if entry.name.endswith(kind.suffix):
                with open(entry.path, "rb") as file:
                    found.append(kind.parse(file.read()))
    return found


def reading(root: Path, name: str) -> Function:
    """The reading, for `peak_memory`."""
    return lambda: ours(root, name)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print; `--side` and `--depth` are unused."""
    parser = arguments(__doc__, repeats=5)
    parser.add_argument("--images", type=int, default=100_000, help="of ten boxes (100,000)")
    parser.add_argument("--formats", nargs="+", choices=tuple(KINDS), default=list(KINDS))
    args = parser.parse_args(argv)
    show([row for name in args.formats for row in measured(name, args.images, args.repeats)])


def measured(name: str, count: int, repeats: int) -> tuple[Row, Row]:
    """Time and memory of a format."""
    with tempfile.TemporaryDirectory() as folder:
        root = write(Path(folder) / "data", name, count)
        sides = {"ours": lambda: ours(root, name), "plain": lambda: plainly(root, name)}
        time = medians(sides, repeats)
        memory = peak_memory(reading, root, name)
    what = f"{KINDS[name].title}, {count:,} images, {count * BOXES_PER_IMAGE:,} boxes opened"
    return (
        Row(f"{what}: bytes read and parsed plainly", time["ours"], time["plain"], within=3),
        Row("its peak memory: a limit of 2 GB", memory, MOST_BYTES, within=1, unit="MB"),
    )


if __name__ == "__main__":
    main()
