"""validate.py and csv_validation.py: their numbers, files and refusals."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import csv_validation
import validate
from retinanet.data.shapes import SampleData
from retinanet.weights.checkpoint import load_checkpoint
from tests.support.helpers import files
from tests.support.paths import ROOT

pytestmark = pytest.mark.usefixtures("narrow")


def test_validate_csv(
    sample: SampleData, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [str(run / "model_final.pt"), "--csv_val", str(sample.csv_val), "--workers", "0"]
    assert validate.main([*flags, "--output_dir", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert said.count("Average Precision") == 6
    assert "mAP" in said
    assert "fp32" in said
    assert files(tmp_path) == ["detections.json", "metrics.json"]
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    training = load_checkpoint(run / "model_final.pt").metrics
    assert metrics["AP"] == pytest.approx(training["AP"], abs=1e-6)
    assert metrics["mAP_VOC"] == pytest.approx(training["mAP"], abs=1e-6)


def test_validate_coco_gives_the_same_numbers_as_csv(
    sample: SampleData, run: Path, tmp_path: Path
) -> None:
    model = str(run / "model_final.pt")
    coco = ["--coco_path", str(sample.coco_root), "--output_dir", str(tmp_path / "coco")]
    csv = ["--csv_val", str(sample.csv_val), "--output_dir", str(tmp_path / "csv")]
    assert validate.main(["--model_path", model, *coco, "--workers", "0"]) == 0
    assert validate.main(["--model", model, *csv, "--workers", "0"]) == 0
    found = [json.loads((tmp_path / kind / "metrics.json").read_text()) for kind in ("coco", "csv")]
    assert found[0]["AP"] == pytest.approx(found[1]["AP"], abs=1e-9)
    assert found[0]["AP_per_class"] == pytest.approx(found[1]["AP_per_class"], abs=1e-9)


def test_csv_validation_takes_the_originals_flags(
    sample: SampleData, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path / "val.csv"  # away from the images, so that --images_path must do its work
    moved.write_text(sample.csv_val.read_text())
    flags = ["--csv_annotations_path", str(moved), "--model_path", str(run / "model_final.pt")]
    flags += ["--class_list_path", str(sample.csv_classes), "--workers", "0"]
    assert csv_validation.main(flags) == 1
    assert "val.csv:1: " in capsys.readouterr().err
    flags += ["--images_path", str(sample.coco_root), "--iou_threshold", "0.75"]
    assert csv_validation.main(flags) == 0
    assert "0.75" in capsys.readouterr().out


def test_validation_report(sample: SampleData, run: Path, tmp_path: Path) -> None:
    flags = [str(run / "model_final.pt"), "--csv_val", str(sample.csv_val), "--workers", "0"]
    assert validate.main([*flags, "--output_dir", str(tmp_path), "--report"]) == 0
    assert files(tmp_path) == ["detections.json", "metrics.json", "report.html"]
    number = json.loads((tmp_path / "metrics.json").read_text())["mAP_VOC"]
    assert f"{number:.3f}" in (tmp_path / "report.html").read_text()
    (tmp_path / "report.html").write_text("mine")
    assert validate.main([*flags, "--output_dir", str(tmp_path), "--report"]) == 1
    assert (tmp_path / "report.html").read_text() == "mine"


def test_image_that_breaks_in_a_loader_worker_is_named(
    sample: SampleData, run: Path, tmp_path: Path
) -> None:
    image = tmp_path / "cut.jpg"
    whole = (sample.coco_root / "images/val2017/0001.jpg").read_bytes()
    image.write_bytes(whole[: len(whole) // 2])  # the header is fine
    rows = tmp_path / "boxes.csv"
    rows.write_text("cut.jpg,10,10,60,60,ring\n")
    result = subprocess.run(
        [
            *(sys.executable, "-m", "tests.support.narrow", "validate.py", run / "model_final.pt"),
            *("--csv_val", rows, "--workers", "2"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "boxes.csv:1: " in result.stderr
    assert "cut.jpg" in result.stderr


def test_model_of_other_classes_is_refused(
    sample: SampleData, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classes = tmp_path / "classes.csv"
    classes.write_text("ring,0\nsquare,1\nstar,2\ntriangle,3\nextra,4\n")
    model = str(run / "model_final.pt")
    flags = ["--csv_val", str(sample.csv_val), "--csv_classes", str(classes)]
    assert validate.main([model, *flags]) == 1
    error = capsys.readouterr().err
    assert "the model has 4 classes (ring, square, star, triangle), the data 5" in error
