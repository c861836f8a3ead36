"""Small exact runs on CSV data, and what two of them must have in common."""

from pathlib import Path

import torch

from retinanet.data.shapes import SampleData
from retinanet.training.records import read_records
from retinanet.weights.checkpoint import load_checkpoint
from tests.support.helpers import csv_run_flags

EPOCHS, STEPS = 2, 3  # 5 images, batches of 2


def flags(sample: SampleData, folder: Path, *more: str) -> list[str]:
    return csv_run_flags(sample, folder, "--epochs", str(EPOCHS), "--lr", "1e-3", *more)


def losses(said: str) -> list[str]:
    """The lines of losses, without what depends on the clock."""
    return [line.split(" | lr: ")[0] for line in said.splitlines() if line.startswith("Epoch: ")]


def recorded(folder: Path) -> list[tuple[object, ...]]:
    """The numbers of metrics.jsonl that do not depend on the clock."""
    names = ("kind", "epoch", "iteration", "running_loss", "mean_loss", "lr", "metrics")
    records = read_records(folder / "metrics.jsonl")
    return [tuple(record.get(name) for name in names) for record in records]


def scores(said: str) -> list[str]:
    return [line for line in said.splitlines() if line.startswith(("mAP", "COCO's"))]


def assert_same_run(folder: Path, whole: Path, *, records_from: int = 0) -> None:
    """Bit for bit the same final file, and the same records from one on."""
    found, expected = (load_checkpoint(f / "model_final.pt") for f in (folder, whole))
    assert found.weights.keys() == expected.weights.keys()
    different = [k for k in found.weights if not torch.equal(found.weights[k], expected.weights[k])]
    assert different == []
    assert found.metrics == expected.metrics
    assert recorded(folder) == recorded(whole)[records_from:]
