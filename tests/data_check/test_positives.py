"""What is said of a data set before training with a threshold for each box."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from retinanet.anchors import image_anchors, level_shapes
from retinanet.atss import match_atss
from retinanet.data.datasets import CSVDataset
from retinanet.data_check.anchor_coverage import Boxes, TrainingSetup, all_boxes
from retinanet.data_check.positives import class_positives, count_positives, some_images
from retinanet.data_check.text import NO_CENTRE, digest
from retinanet.model import ModelConfig
from retinanet.tools import check_data

CONFIG = ModelConfig(num_classes=2)
# A dog in the place of a cat, one of 6 px between the anchors' centres (44, 52), and a lone cat.
ROWS = (
    "a.png,20,20,60,60,cat\na.png,20,20,60,60,dog\na.png,45,45,51,51,dog\nb.png,30,10,90,50,cat\n"
)


@pytest.fixture
def data(tmp_path: Path) -> CSVDataset:
    for name in "ab":
        Image.new("RGB", (128, 96)).save(tmp_path / f"{name}.png")
    (tmp_path / "classes.csv").write_text("cat,0\ndog,1\n")
    (tmp_path / "train.csv").write_text(ROWS)
    return CSVDataset(tmp_path / "train.csv", {"cat": 0, "dog": 1})


def test_anchors_are_counted_for_the_box_that_has_them(data: CSVDataset) -> None:
    boxes = all_boxes(data)
    counts = count_positives(boxes, TrainingSetup(96, 128, CONFIG))
    alone = torch.tensor([[[20.0, 20, 60, 60, 0]], [[30, 10, 90, 50, 1]]])
    labels, _ = match_atss(image_anchors(96, 128), alone, level_shapes(96, 128))
    first, last = (labels >= 0).sum(dim=1).tolist()
    assert counts.tolist() == [first, 0, 0, last]
    dog, cat = class_positives(boxes, counts, ("cat", "dog"))  # the fewest first
    assert dog == ("dog", 2, 0, 0, 2)
    assert cat == ("cat", 2, min(first, last), (first + last) / 2, 0)


def test_images_are_resized_as_in_training(data: CSVDataset) -> None:
    """At twice the size the dog is 12 px large and has the centre at 92 / 2 = 46 in it."""
    assert count_positives(all_boxes(data), TrainingSetup(192, 256, CONFIG))[2] > 0


def test_of_many_images_some_with_each_class_are_counted() -> None:
    """A hundred images with two cats each, a dog beside the cats of the last."""
    images = np.array([*np.repeat(np.arange(100), 2), 99])
    labels = np.array([*[0] * 200, 1])
    boxes = Boxes(np.zeros((201, 4)), labels, images, np.ones((201, 2), int))
    assert some_images(boxes, 2, most=100) is boxes
    some = some_images(boxes, 2, most=8)
    assert np.unique(some.images).tolist() == [0, 33, 66, 99]
    assert some.labels.tolist() == [0] * 8 + [1]


def test_digest_names_the_classes_with_the_fewest(data: CSVDataset) -> None:
    text, warning, dog, advice = digest(data, TrainingSetup(96, 128, CONFIG, "atss")).split("\n")
    cat = count_positives(all_boxes(data), TrainingSetup(96, 128, CONFIG))[[0, 3]].mean()
    assert text == (
        "At 96 to 128 px the boxes are 6 to 49 px large, half of them below 40 (side of a square of"
        " the same area). Positive anchors of a box by ATSS, median of its class: dog 0,"
        f" cat {cat:g}."
    )
    assert warning == "Warning: of these classes more than 5 % of the boxes have no anchor"
    assert (dog, advice) == ("  dog: 2 of 2", NO_CENTRE)


def test_digest_of_many_classes(data: CSVDataset, tmp_path: Path) -> None:
    rows = "".join(f"a.png,{20 * k},10,{20 * k + 18},60,{k}\n" for k in range(5))
    (tmp_path / "classes.csv").write_text("".join(f"{k},{k}\n" for k in range(5)))
    (tmp_path / "train.csv").write_text(rows)
    many = CSVDataset(tmp_path / "train.csv", {str(k): k for k in range(5)})
    (line,) = digest(many, TrainingSetup(96, 128, ModelConfig(5), "atss")).split("\n")
    assert "median of its class: the fewest of 5: " in line
    assert line.split("fewest of 5: ")[1].count(",") == 2


def test_check_data_counts_positives(
    data: CSVDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ["--min_side", "96", "--max_side", "128", "--no_decode"]
    files = [f"--csv_{name}={tmp_path}/{name}.csv" for name in ("train", "classes")]
    flags = ["--dataset", "csv", *files, *sizes, "--matching", "atss"]
    check_data.main(flags)
    said = capsys.readouterr().out
    assert "Positive anchors of a box by ATSS:\nclass  boxes  least  median  none" in said
    assert "--anchor_sizes" not in said
    assert NO_CENTRE in said
    check_data.main([*flags, "--json"])
    found = json.loads(capsys.readouterr().out)
    counts = count_positives(all_boxes(data), TrainingSetup(96, 128, CONFIG))[[0, 3]]
    cat, dog = found["training"]["classes"]
    assert found["matching"] == "atss"
    assert cat["positive_anchors"] == {"least": counts.min(), "median": counts.mean()}
    assert (cat["without_anchor"], dog["without_anchor"]) == (0, 2)
    assert (dog["positive_anchors"], dog["better_size"]) == ({"least": 0, "median": 0}, None)


def test_boxes_of_different_tiles_do_not_share_anchors(tmp_path: Path) -> None:
    """Two cats at the same place of two tiles, side by side."""
    Image.new("RGB", (256, 128)).save(tmp_path / "a.png")
    (tmp_path / "train.csv").write_text("a.png,20,20,60,60,cat\na.png,148,20,188,60,cat\n")
    wide = CSVDataset(tmp_path / "train.csv", {"cat": 0, "dog": 1})
    (line,) = digest(wide, TrainingSetup(128, 128, CONFIG, "atss", tile=128)).split("\n")
    assert "median of its class: cat " in line
