"""Small exports, laid out as labelling tools lay them out."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

Boxes = Sequence[tuple[float, float, float, float, str]]


def picture(path: Path, width: int = 100, height: int = 80) -> Path:
    """A small image of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (90, 120, 60)).save(path)
    return path


def text(path: Path, *lines: str) -> Path:
    """A text file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def yolo_line(
    box: tuple[float, float, float, float, str],
    names: Sequence[str],
    size: tuple[int, int] = (100, 80),
) -> str:
    """A box of an image of a size (width, height) as YOLO writes it."""
    x1, y1, x2, y2, name = box
    width, height = size
    x, y = (x1 + x2) / (2 * width), (y1 + y2) / (2 * height)
    return f"{names.index(name)} {x!r} {y!r} {(x2 - x1) / width!r} {(y2 - y1) / height!r}"


def voc_xml(file_name: str, boxes: Boxes, *, difficult: Mapping[int, int] | None = None) -> str:
    """A file as labelImg writes it, of a 100 x 80 image."""
    objects = "".join(
        f"<object><name>{name}</name><pose>Unspecified</pose><truncated>0</truncated>"
        f"<difficult>{(difficult or {}).get(k, 0)}</difficult><bndbox><xmin>{x1:g}</xmin>"
        f"<ymin>{y1:g}</ymin><xmax>{x2:g}</xmax><ymax>{y2:g}</ymax></bndbox></object>"
        for k, (x1, y1, x2, y2, name) in enumerate(boxes)
    )
    return (
        f"<annotation><folder>images</folder><filename>{file_name}</filename>"
        "<path>C:\\\\Users\\\\me\\\\images\\\\" + file_name + "</path><size><width>100</width>"
        f"<height>80</height><depth>3</depth></size><segmented>0</segmented>{objects}</annotation>"
    )


def labelme_json(image_name: str, boxes: Boxes, **more: object) -> str:
    """A file as LabelMe writes it, its rectangles from the corner where the mouse went down."""
    shapes = [
        {
            "label": name,
            "points": [[x2, y1], [x1, y2]],
            "group_id": None,
            "shape_type": "rectangle",
            "flags": {},
        }
        for x1, y1, x2, y2, name in boxes
    ]
    head = {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": image_name}
    return json.dumps({**head, "imageData": None, "imageHeight": 80, "imageWidth": 100, **more})


def coco_json(by_image: Mapping[str, Boxes], names: Sequence[str], **more: object) -> str:
    """A file as COCO has it, ids from 1, of 100 x 80 images."""
    images = [{"id": k, "file_name": name, "width": 100, "height": 80}
              for k, name in enumerate(by_image, 1)]  # fmt: skip
    boxes = [(k, *box) for k, own in enumerate(by_image.values(), 1) for box in own]
    annotations = [
        {"id": k, "image_id": image, "category_id": names.index(name) + 1,
         "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0}
        for k, (image, x1, y1, x2, y2, name) in enumerate(boxes, 1)
    ]  # fmt: skip
    categories = [{"id": k, "name": name, "supercategory": ""} for k, name in enumerate(names, 1)]
    lists = {"images": images, "annotations": annotations, "categories": categories}
    return json.dumps({"info": {}, "licenses": [], **lists, **more})
