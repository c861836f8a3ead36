"""Runs of train.py: what they say, write and keep."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import train
from retinanet.data.shapes import SampleData
from retinanet.weights.checkpoint import load_checkpoint
from tests.support.helpers import SMALL, csv_flags, files
from tests.support.narrow import narrow_network
from tests.support.paths import ROOT

pytestmark = pytest.mark.usefixtures("narrow")


def test_csv_training_writes_these_files(run: Path) -> None:
    assert files(run) == [
        "config.json",
        "csv_retinanet_0.pt",
        "csv_retinanet_1.pt",
        "csv_retinanet_best.pt",
        "metrics.jsonl",
        "model_card.md",
        "model_final.pt",
        "report.html",
        "training_state.pt",
    ]
    checkpoint = load_checkpoint(run / "csv_retinanet_1.pt")
    assert checkpoint.class_names == ("ring", "square", "star", "triangle")
    assert (checkpoint.min_side, checkpoint.max_side, checkpoint.epoch) == (64, 96, 1)
    assert "mAP" in checkpoint.metrics
    assert (len(checkpoint.thresholds), checkpoint.thresholds_epoch) == (4, 1)
    final = load_checkpoint(run / "model_final.pt")
    assert all(torch.equal(final.weights[k], checkpoint.weights[k]) for k in final.weights)
    flags = "<code>--lr 1e-5</code> <code>--optimizer adam</code>"
    assert flags in (run / "report.html").read_text()


def test_coco_training_in_a_process(sample: SampleData, tmp_path: Path) -> None:
    result = subprocess.run(
        [
            *(sys.executable, ROOT / "train.py", "--dataset", "coco"),
            *("--coco-path", str(sample.coco_root), "--output-dir", str(tmp_path)),
            *(*SMALL, "--workers", "2"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert files(tmp_path) == [
        "coco_retinanet_0.pt",
        "coco_retinanet_1.pt",
        "coco_retinanet_best.pt",
        "config.json",
        "metrics.jsonl",
        "model_card.md",
        "model_final.pt",
        "report.html",
        "training_state.pt",
    ]
    lines = result.stdout.splitlines()
    last = [line for line in lines if line.startswith("Epoch: 1 | Iteration: 2")]
    assert len(last) == 1
    assert re.fullmatch(
        r"Epoch: 1 \| Iteration: 2 \| Classification loss: \d+\.\d{5}"
        r" \| Regression loss: \d+\.\d{5} \| Running loss: \d+\.\d{5} \| lr: 1e-05"
        r" \| \d+\.\d img/s \| waiting: \d+%"
        r" \| \d+\.\d GB \| ETA: \d:\d\d:\d\d",
        last[0],
    )
    assert sum(line.startswith("Epoch: ") for line in lines) == 6
    assert sum("Average Precision" in line for line in lines) == 12
    assert result.stderr == ""


def test_same_seed_same_weights_whatever_the_workers(
    sample: SampleData, run: Path, tmp_path: Path
) -> None:
    flags = [*csv_flags(sample), "--output_dir", str(tmp_path), *SMALL, "--workers", "2"]
    assert train.main(["--dataset", "csv", *flags]) == 0
    one, other = (load_checkpoint(f / "model_final.pt").weights for f in (run, tmp_path))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_second_run_refuses_then_overwrites(
    sample: SampleData, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--dataset", "csv", *csv_flags(sample), *SMALL, "--epochs", "1"]
    flags += ["--output_dir", str(tmp_path)]
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "csv_retinanet_7.pt").write_bytes((run / "csv_retinanet_1.pt").read_bytes())
    assert train.main(flags) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert files(tmp_path) == ["csv_retinanet_7.pt", "mine.txt"]
    assert train.main([*flags, "--overwrite"]) == 0
    assert files(tmp_path) == [
        "config.json",
        "csv_retinanet_0.pt",
        "metrics.jsonl",
        "mine.txt",
        "model_card.md",
        "model_final.pt",
        "report.html",
        "training_state.pt",
    ]


def test_fine_tuning_says_what_it_takes(
    sample: SampleData, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two = tmp_path / "two.csv"
    two.write_text("ring,0\nsquare,1\n")
    boxes = tmp_path / "boxes.csv"
    rows = sample.csv_train.read_text().splitlines()
    boxes.write_text("\n".join(r for r in rows if r.endswith(("ring", "square"))))
    flags = ["--csv_train", str(boxes), "--csv_classes", str(two), *SMALL, "--epochs", "1"]
    flags += ["--csv_images_dir", str(sample.coco_root), "--output_dir", str(tmp_path / "out")]
    assert train.main(["--dataset", "csv", *flags, "--weights", str(run / "model_final.pt")]) == 0
    said = capsys.readouterr().out
    assert "taken: backbone, FPN, box head, class tower; new: class output" in said


def test_patience_ends_a_run_that_learns_nothing(
    sample: SampleData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At this learning rate the mAP stays 0: the first evaluation is the best one."""
    flags = [*csv_flags(sample), "--csv_val", str(sample.csv_val), *SMALL, "--lr", "1e-12"]
    flags += ["--output_dir", str(tmp_path), "--epochs", "9", "--patience", "2"]
    assert train.main(["--dataset", "csv", *flags]) == 0
    assert load_checkpoint(tmp_path / "model_final.pt").epoch == 2
    assert "no better for 2 evaluations" in capsys.readouterr().out


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_trains(sample: SampleData, tmp_path: Path, precision: str) -> None:
    flags = [*csv_flags(sample), "--output_dir", str(tmp_path), *SMALL, "--precision", precision]
    assert train.main(["--dataset", "csv", *flags, "--lr", "1e-3"]) == 0
    weights = load_checkpoint(tmp_path / "model_final.pt").weights
    assert all(w.dtype == torch.float32 for w in weights.values() if w.is_floating_point())
    assert all(torch.isfinite(w).all() for w in weights.values())
    assert weights["classificationModel.output.weight"].abs().max() > 0  # it began at 0


@pytest.mark.slow
def test_compiled_network_trains_the_same(sample: SampleData, run: Path, tmp_path: Path) -> None:
    flags = [*csv_flags(sample), "--output_dir", str(tmp_path), *SMALL, "--compile"]
    assert train.main(["--dataset", "csv", *flags]) == 0
    found, expected = (load_checkpoint(f / "model_final.pt").weights for f in (tmp_path, run))
    for name in ("conv1.weight", "fpn.P6.weight", "regressionModel.conv1.weight"):
        assert torch.allclose(found[name], expected[name], atol=1e-4)


@pytest.mark.slow
def test_sample_teaches(tmp_path: Path) -> None:
    with narrow_network(divisor=1):
        assert train.main(["--dataset", "shapes", "--output_dir", str(tmp_path)]) == 0
        metrics = load_checkpoint(tmp_path / "model_final.pt").metrics
    assert metrics["mAP"] >= 0.80
    assert metrics["AP"] >= 0.55
