"""Evaluations: of all that was found, and of a data set of which not all images could be read."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from retinanet.data.datasets import CocoDataset, CSVDataset, Data
from retinanet.data.problems import MOST_SKIPPED
from retinanet.data.shapes import SampleData, write_shapes
from retinanet.errors import DataError
from retinanet.evaluation.comparison import mistakes
from retinanet.evaluation.measure import measure, name_unreadable
from retinanet.postprocess import Detections


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> SampleData:
    return write_shapes(
        tmp_path_factory.mktemp("data") / "shapes", train_images=4, val_images=1, seed=1
    )


def annotated(dataset: Data, index: int) -> Detections:
    """The annotations of an image as detections."""
    rows = torch.from_numpy(dataset.load_annotations(index)).float()
    return Detections(torch.full((len(rows),), 0.9), rows[:, 4].long(), rows[:, :4])


@pytest.mark.parametrize("kind", ["coco", "csv"])
def test_images_that_could_not_be_read_count_neither_way(sample: SampleData, kind: str) -> None:
    dataset: Data = (
        CocoDataset(sample.coco_root, "train2017")
        if kind == "coco"
        else CSVDataset(sample.csv_train, sample.csv_classes)
    )
    found = [annotated(dataset, index) for index in range(4)]
    found[2] = Detections(torch.zeros(0), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4))
    assert measure(dataset, found).score < 1  # the annotations of image 2 are missed
    evaluation = measure(dataset, found, {2: "broken"})
    assert evaluation.score == evaluation.coco.stats["AP"] == 1
    assert evaluation.note == "Without 1 of 4 images, which could not be read:\n"
    names = [evaluation.dataset.image_path(k).name for k in range(len(evaluation.dataset))]
    assert names == [dataset.image_path(k).name for k in (0, 1, 3)]
    assert len(evaluation.detections) == 3
    assert measure(dataset, found).note == ""


def test_all_detections_of_a_large_picture_count(tmp_path: Path) -> None:
    """150 things in one picture, as tiles find them; COCO's numbers alone look at 100."""
    Image.new("RGB", (600, 400)).save(tmp_path / "a.png")
    corners = [(20 * k % 600, 40 * (k // 30)) for k in range(150)]
    rows = "".join(f"a.png,{x},{y},{x + 16},{y + 30},thing\n" for x, y in corners)
    (tmp_path / "val.csv").write_text(rows)
    dataset = CSVDataset(tmp_path / "val.csv", {"thing": 0})
    evaluation = measure(dataset, [annotated(dataset, 0)])
    [thing] = evaluation.curves.classes
    assert (thing.num_annotations, thing.recall) == (150, 1)
    assert mistakes(evaluation).tolist() == [0]
    assert evaluation.coco.stats["AR100"] == pytest.approx(100 / 150)


def test_images_that_are_left_out_are_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    named: set[str] = set()
    for _ in range(2):
        name_unreadable({2: "a.jpg: broken"}, named)
    assert capsys.readouterr().err == "Left out of the evaluation: a.jpg: broken\n"
    with pytest.raises(DataError, match="101 images cannot be read; expected at most 100"):
        name_unreadable({k: f"{k}.jpg" for k in range(MOST_SKIPPED + 1)}, named)
