"""Detections as files that other programs read, and that can be trained on."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from retinanet.data.datasets import Data
from retinanet.inference.image_folder import ImageFiles
from retinanet.postprocess import Detections
from retinanet.runtime.files import first_free, write_whole

Images = Data | ImageFiles
Records: TypeAlias = list[dict[str, Any]]  # of COCO


def as_json(images: Images, detections: Mapping[int, Detections], names: Sequence[str]) -> str:
    """One object an image: its path, size and id, and its detections, best first."""
    records = []
    for index, found in detections.items():
        height, width = images.image_size(index)
        records.append(
            {
                "image": str(images.image_path(index)),
                "image_id": images.image_id(index),
                "height": height,
                "width": width,
                "detections": [
                    {"class": names[label], "score": round(score, 4), "box": box}
                    for score, label, box in rows(found)
                ],
            }
        )
    return json.dumps(records, indent=1)


def as_csv(images: Images, detections: Mapping[int, Detections], names: Sequence[str]) -> str:
    """Annotations as train.py takes them: to be corrected, and trained on.

    Boxes are in whole pixels; one that this leaves without an area is left out. Paths are absolute,
    so that the file may be moved.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for index, found in detections.items():
        path = str(images.image_path(index).absolute())
        boxes = [([round(value) for value in box], names[label]) for _, label, box in rows(found)]
        whole = [(box, name) for box, name in boxes if box[0] < box[2] and box[1] < box[3]]
        writer.writerows([path, *box, name] for box, name in whole)
        if not whole:
            writer.writerow([path, "", "", "", "", ""])
    return text.getvalue()


def as_coco(images: Images, detections: Mapping[int, Detections], names: Sequence[str]) -> str:
    """COCO results; the ids of images and categories are the data set's."""
    return json.dumps(coco_results(images, detections))


def rows(found: Detections) -> list[tuple[float, int, list[float]]]:
    """Score, label and box (pixels of the file, to 1/100) of each detection."""
    scores, labels, boxes = (column.tolist() for column in found)
    rounded = [[round(value, 2) for value in box] for box in boxes]
    return list(zip(scores, labels, rounded, strict=True))


Writer = Callable[[Images, Mapping[int, Detections], Sequence[str]], str]

FORMATS: dict[str, tuple[str, Writer]] = {
    "json": ("predictions.json", as_json),
    "csv": ("predictions.csv", as_csv),
    "coco": ("predictions_coco.json", as_coco),
}


def save_predictions(
    folder: Path,
    kind: str,
    images: Images,
    detections: Mapping[int, Detections],
    names: Sequence[str],
) -> Path:
    """Write detections in one of `FORMATS`, beside earlier ones, which may have been corrected.

    Args:
        folder: of the file.
        kind: of the file.
        images: what was looked at.
        detections: by index of the image, in pixels of the files.
        names: by label.

    Returns:
        The file.
    """
    name, writer = FORMATS[kind]
    path = first_free(folder / name, Path.exists)
    write_whole(path, writer(images, detections, names).encode(errors="surrogateescape"))
    return path


def coco_results(
    dataset: Images, detections: Sequence[Detections] | Mapping[int, Detections]
) -> Records:
    """Detections in COCO's results format, in plain numbers, fit for a JSON file.

    Args:
        dataset: whose images were looked at; it numbers images and categories.
        detections: one an image, or those of some images by index, in pixels of the files.

    Returns:
        One record a detection: `image_id`, `category_id`, `bbox` (x, y, width, height), `score`.
    """
    results = []
    by_index = detections if isinstance(detections, Mapping) else dict(enumerate(detections))
    for index, found in by_index.items():
        image_id = dataset.image_id(index)
        columns = (column.tolist() for column in found)
        for score, label, (x1, y1, x2, y2) in zip(*columns, strict=True):
            results.append(
                {
                    "image_id": image_id,
                    "category_id": dataset.category_id(label),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "score": score,
                }
            )
    return results
