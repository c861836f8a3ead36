"""Detections as files: what another program, or a training run, reads back."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from retinanet.data.datasets import CSVDataset
from retinanet.inference.image_folder import ImageFiles
from retinanet.inference.results import as_coco, as_csv, as_json, save_predictions
from retinanet.postprocess import Detections

NAMES = ("cow", 'the "big" cat')


@pytest.fixture
def images(tmp_path: Path) -> ImageFiles:
    """Two images; a class's name needs quotes in a CSV."""
    for name in ("a.png", "b c.png"):
        Image.new("RGB", (60, 40)).save(tmp_path / name)
    return ImageFiles(tmp_path)


def detections(*boxes: tuple[float, ...]) -> Detections:
    """Of class 1, scores .9, .8 ..."""
    scores = torch.arange(9, 0, -1)[: len(boxes)] / 10
    return Detections(scores, torch.ones(len(boxes), dtype=torch.int64), torch.tensor(boxes))


NOTHING = Detections(torch.zeros(0), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4))


def test_csv_is_read_back_as_annotations(images: ImageFiles, tmp_path: Path) -> None:
    found = detections((1.2, 2.6, 30.4, 20.5), (5.0, 5.0, 5.3, 9.0))  # the second rounds to nothing
    text = as_csv(images, {0: NOTHING, 1: found}, NAMES)
    file = tmp_path / "moved" / "predictions.csv"
    file.parent.mkdir()
    file.write_text(text)
    data = CSVDataset(file, {name: label for label, name in enumerate(NAMES)})
    assert data.load_annotations(0).shape == (0, 5)
    assert data.load_annotations(1).tolist() == [[1, 3, 30, 20, 1]]  # 20.5: half to even
    assert data.notes == []  # nothing had to be repaired


def test_json_says_all(images: ImageFiles) -> None:
    found = detections((1.234, 2.0, 30.0, 20.0))
    first, second = json.loads(as_json(images, {0: found, 1: NOTHING}, NAMES))
    assert first["image"].endswith("a.png")
    assert (first["height"], first["width"], first["image_id"]) == (40, 60, 1)
    assert first["detections"] == [{"class": NAMES[1], "score": 0.9, "box": [1.23, 2, 30, 20]}]
    assert second["detections"] == []


def test_coco_results_have_the_ids_of_the_json(images: ImageFiles) -> None:
    found = detections((1.0, 2.0, 30.0, 20.0))
    (record,) = json.loads(as_coco(images, {0: NOTHING, 1: found}, NAMES))
    assert record["image_id"] == 2
    assert record["category_id"] == 2
    assert record["bbox"] == [1, 2, 29, 18]
    assert record["score"] == pytest.approx(0.9)


def test_an_earlier_file_stays(images: ImageFiles, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    paths = [save_predictions(folder, "csv", images, {0: NOTHING}, NAMES) for _ in range(3)]
    names = ["predictions.csv", "predictions_2.csv", "predictions_3.csv"]
    assert [path.name for path in paths] == names
