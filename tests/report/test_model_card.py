"""The model card: the same numbers as everywhere, and nothing that changes from run to run."""

from pathlib import Path

import torch
from PIL import Image

from retinanet.data.datasets import CSVDataset
from retinanet.evaluation.measure import measure
from retinanet.model import ModelConfig
from retinanet.postprocess import Detections
from retinanet.report.model_card import TrainedModel, model_card
from retinanet.weights.checkpoint import Checkpoint

NAMES = ("cat", "<b>|*dog*", "emu")


def data(folder: Path) -> CSVDataset:
    rows = ["a.png,2,2,20,20,cat", "a.png,30,10,60,40,<b>|*dog*", "b.png,5,5,25,25,cat"]
    for name in ("a.png", "b.png"):
        Image.new("RGB", (64, 48)).save(folder / name)
    (folder / "val.csv").write_text("\n".join(rows) + "\n")
    return CSVDataset(folder / "val.csv", {name: label for label, name in enumerate(NAMES)})


def trained(folder: Path, *, measured: bool = True) -> TrainedModel:
    dataset = data(folder)
    found = [
        Detections(
            torch.tensor([0.9, 0.8]),
            torch.tensor([0, 0]),
            torch.tensor([[2.0, 2, 20, 20], [30, 10, 60, 40]]),
        ),
        Detections(torch.zeros(0), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4)),
    ]
    evaluation = measure(dataset, found)
    checkpoint = Checkpoint(
        ModelConfig(3, 18), {}, NAMES, 64, 96, epoch=4,
        thresholds=evaluation.thresholds, thresholds_epoch=4,
    )  # fmt: skip
    return TrainedModel(
        checkpoint,
        evaluation if measured else None,
        dataset,
        command="python train.py --depth 18",
        started_from="imagenet",
        precision="fp32",
        versions={"retinanet": "1.0", "torch": "2.6"},
    )


def test_the_card_says_what_was_measured(tmp_path: Path) -> None:
    model = trained(tmp_path)
    card = model_card(model)
    assert card.startswith("<!-- retinanet -->\n# RetinaNet of 3 classes\n")
    assert "Trained on: 2 images, 3 boxes (cat 2, &#60;b&#62;&#124;&#42;dog&#42; 1, emu 0)" in card
    assert "up to epoch 4" in card
    assert "python train.py --depth 18" in card
    assert model.evaluation is not None
    assert f"COCO {model.evaluation.coco.certainty}." in card
    # The cat of a.png is found, that of b.png is missed; 0.9 alone is the best F1 of cats, with
    # precision 1 and recall 1/2, and the threshold lies between 0.9 and 0.8.
    sure = model.evaluation.curves.intervals[0]
    assert f"| cat | 2 | 0.500 | {sure} | 0.850 | 1.000 | 0.500 |" in card
    assert "- cat missed: once" in card
    assert "- Never measured: emu" in card
    assert card.rstrip().endswith("retinanet 1.0, torch 2.6.")
    assert str(tmp_path) not in card


def test_the_same_run_writes_the_same_card(tmp_path: Path) -> None:
    assert model_card(trained(tmp_path)) == model_card(trained(tmp_path))


def test_a_model_that_was_not_measured(tmp_path: Path) -> None:
    card = model_card(trained(tmp_path, measured=False))
    assert "It was not measured." in card
    assert "nothing was measured" in card
