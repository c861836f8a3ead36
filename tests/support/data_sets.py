"""Small data sets for tests: two pictures, their CSV rows, their COCO file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from retinanet.data.datasets import CocoDataset, CSVDataset


def picture(path: Path, width: int = 40, height: int = 30, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, **options)
    return path


def rotated() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def csv_data(
    folder: Path, rows: str, classes: str = "cat,0\ndog,1\n", **options: Any
) -> CSVDataset:
    """A data set of `rows` over images a.jpg (40 x 30) and b.jpg (30 x 40)."""
    picture(folder / "a.jpg")
    picture(folder / "b.jpg", 30, 40)
    (folder / "train.csv").write_text(rows)
    (folder / "classes.csv").write_text(classes)
    return CSVDataset(folder / "train.csv", folder / "classes.csv", **options)


def coco_content() -> dict[str, Any]:
    """Two images; categories with gaps, out of order; a crowd, and a box under one pixel."""
    return {
        "images": [
            {"id": 9, "file_name": "a.jpg", "height": 30, "width": 40},
            {"id": 4, "file_name": "b.jpg"},
        ],
        "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 4, "category_id": 7, "bbox": [1, 2, 10, 20.5], "iscrowd": 0},
            {"id": 2, "image_id": 4, "category_id": 3, "bbox": [0, 0, 30, 40], "iscrowd": 1},
            {"id": 3, "image_id": 4, "category_id": 3, "bbox": [3, 3, 0.5, 9]},
            {"id": 4, "image_id": 4, "category_id": 3, "bbox": [20, 30, 15, 5]},
        ],
    }


def coco_data(root: Path, content: Any, images: str = "images/val", **options: Any) -> CocoDataset:
    picture(root / images / "a.jpg")
    picture(root / images / "b.jpg", 30, 40)
    (root / "annotations").mkdir(exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    (root / "annotations" / "instances_val.json").write_text(text)
    return CocoDataset(root, "val", **options)


def changed(*path: Any, to: Any) -> Callable[[dict[str, Any]], Any]:
    def change(content: dict[str, Any]) -> Any:
        target: Any = content
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = to
        return content

    return change


def without(*path: Any) -> Callable[[dict[str, Any]], Any]:
    def change(content: dict[str, Any]) -> Any:
        target: Any = content
        for key in path[:-1]:
            target = target[key]
        del target[path[-1]]
        return content

    return change
