"""The page stays small, however many images it is about."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from retinanet.data.datasets import CocoDataset
from retinanet.evaluation.measure import measure
from retinanet.postprocess import Detections
from retinanet.report.report import write_report

MOST = 5e6  # bytes


def noise(folder: Path, images: int, classes: int) -> tuple[CocoDataset, list[Detections]]:
    """Pictures that no JPEG makes small, 40 boxes and 100 detections on each of the first 12.

    The others, all one file, have the numbers of COCO: 7 boxes, and 30 detections.
    """
    rng = np.random.default_rng(0)
    (folder / "val").mkdir(parents=True)
    (folder / "annotations").mkdir()
    Image.fromarray(rng.integers(0, 256, (480, 640, 3), np.uint8)).save(folder / "val" / "0.jpg")
    annotations, found = [], []
    for image in range(images):
        if image:
            (folder / "val" / f"{image}.jpg").hardlink_to(folder / "val" / "0.jpg")
        many = image < 12
        boxes = random_boxes(rng, 40 if many else 7, classes)
        for x1, y1, x2, y2, label in boxes.tolist():
            annotations.append(
                {
                    **{"id": len(annotations) + 1, "image_id": image, "category_id": int(label)},
                    **{"bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": 0},
                }
            )
        near = np.concatenate((boxes, random_boxes(rng, 60 if many else 23, classes)))
        table = torch.from_numpy(near)
        scores = torch.from_numpy(np.sort(rng.uniform(0.06, 1, len(near)))[::-1].copy())
        found.append(Detections(scores, table[:, 4].long(), table[:, :4]))
    content = {
        "images": [
            {"id": k, "file_name": f"{k}.jpg", "width": 640, "height": 480} for k in range(images)
        ],
        "categories": [{"id": k, "name": f"a class of number {k}"} for k in range(classes)],
        "annotations": annotations,
    }
    (folder / "annotations" / "instances_val.json").write_text(json.dumps(content))
    return CocoDataset(folder, "val"), found


def random_boxes(rng: np.random.Generator, count: int, classes: int) -> np.ndarray:
    """[count, 5] x1, y1, x2, y2, label."""
    corners = rng.uniform(0, (400, 300), (count, 2))
    return np.column_stack(
        (corners, corners + rng.uniform(10, 150, (count, 2)), rng.integers(0, classes, count))
    )


@pytest.mark.parametrize(
    ("images", "classes"), [(13, 5), pytest.param(5000, 80, marks=pytest.mark.slow)]
)
def test_a_page_takes_5_mb_at_most(tmp_path: Path, images: int, classes: int) -> None:
    data, found = noise(tmp_path / "data", images, classes)
    page = write_report(tmp_path, measure(data, found), title="noise", facts={})
    assert page.read_text().count('class="photo"') >= 8
    assert page.stat().st_size < MOST, f"{page.stat().st_size / 1e6:.2f} MB"
