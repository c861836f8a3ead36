"""The scripts as people run them: what they say, write and refuse."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import csv_validation
import train
import validate
import visualize
from retinanet.data.shapes import SampleData, write_shapes
from retinanet.report.report import OWN_PICTURES
from retinanet.weights.checkpoint import load_checkpoint
from tests.support.paths import ROOT

SMALL = [
    *("--depth", "18", "--weights", "none", "--epochs", "2", "--batch_size", "2"),
    *("--min_side", "64", "--max_side", "96", "--workers", "0", "--precision", "fp32"),
]


def files(folder: Path) -> list[str]:
    """Every file below a folder."""
    """The files below a folder, without the pictures of a report, which depend on its mistakes."""
    found = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    return [str(path) for path in found if path.name not in OWN_PICTURES]


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> SampleData:
    return write_shapes(
        tmp_path_factory.mktemp("data") / "shapes", train_images=6, val_images=4, seed=1
    )


def csv_flags(sample: SampleData) -> list[str]:
    return ["--csv_train", str(sample.csv_train), "--csv_classes", str(sample.csv_classes)]


@pytest.fixture(scope="session")
def run(sample: SampleData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished CSV run."""
    folder = tmp_path_factory.mktemp("run")
    flags = [*csv_flags(sample), "--csv_val", str(sample.csv_val), "--output_dir", str(folder)]
    assert train.main(["--dataset", "csv", *flags, *SMALL]) == 0
    return folder


def test_csv_training_writes_these_files(run: Path) -> None:
    assert files(run) == [
        "config.json",
        "csv_retinanet_0.pt",
        "csv_retinanet_1.pt",
        "csv_retinanet_best.pt",
        "metrics.jsonl",
        "model_final.pt",
        "report.html",
        "training_state.pt",
    ]
    checkpoint = load_checkpoint(run / "csv_retinanet_1.pt")
    assert checkpoint.class_names == ("ring", "square", "star", "triangle")
    assert (checkpoint.min_side, checkpoint.max_side, checkpoint.epoch) == (64, 96, 1)
    assert "mAP" in checkpoint.metrics
    final = load_checkpoint(run / "model_final.pt")
    assert all(torch.equal(final.weights[k], checkpoint.weights[k]) for k in final.weights)
    assert "--lr 1e-05 --optimizer adam" in (run / "report.html").read_text()


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
        r" \| \d+\.\d GB \| ETA: 0:00:0\d",
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
    sample: SampleData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--dataset", "csv", *csv_flags(sample), *SMALL, "--epochs", "1"]
    flags += ["--output_dir", str(tmp_path)]
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "csv_retinanet_7.pt").write_text("an old run's")
    assert train.main(flags) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert files(tmp_path) == ["csv_retinanet_7.pt", "mine.txt"]
    assert train.main([*flags, "--overwrite"]) == 0
    assert files(tmp_path) == [
        "config.json",
        "csv_retinanet_0.pt",
        "metrics.jsonl",
        "mine.txt",
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


# ---- validate.py, csv_validation.py ----


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


# ---- visualize.py ----


@pytest.mark.parametrize("source", ["csv", "coco", "folder", "file"])
def test_visualize(
    sample: SampleData,
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    source: str,
) -> None:
    images = sample.coco_root / "images" / "val2017"
    flags = {
        "csv": ["--dataset", "csv", "--csv_val", str(sample.csv_val), "--ground_truth"],
        "coco": ["--dataset", "coco", "--coco_path", str(sample.coco_root)],
        "folder": ["--image_dir", str(images), "--class_list", str(sample.csv_classes)],
        "file": ["--image_dir", str(images / "0002.jpg")],
    }[source]
    flags += ["--model", str(run / "model_final.pt"), "--output_dir", str(tmp_path / "out")]
    assert visualize.main([*flags, "--score_threshold", "0.001", "--workers", "0"]) == 0
    expected = ["0002.jpg"] if source == "file" else [f"000{n}.jpg" for n in (1, 2, 3, 4)]
    assert files(tmp_path / "out") == expected
    with Image.open(images / "0002.jpg") as before, Image.open(tmp_path / "out/0002.jpg") as after:
        assert before.size == after.size
    said = capsys.readouterr().out.splitlines()
    assert sum("0002.jpg: " in line for line in said) > 0


def test_visualize_saves_what_is_asked_for(
    sample: SampleData, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pattern = str(sample.coco_root / "images" / "val2017" / "000[12].jpg")
    flags = [str(run / "model_final.pt"), "--images", pattern, "--score_threshold", "0.001"]
    flags += ["--workers", "0", "--output_dir", str(tmp_path), "--classes", "star", "ring"]
    assert visualize.main([*flags, "--save", "json", "csv", "coco"]) == 0
    assert files(tmp_path) == ["predictions.csv", "predictions.json", "predictions_coco.json"]
    images = json.loads((tmp_path / "predictions.json").read_text())
    assert [Path(image["image"]).name for image in images] == ["0001.jpg", "0002.jpg"]
    found = [detection for image in images for detection in image["detections"]]
    assert {detection["class"] for detection in found} <= {"star", "ring"}
    assert len(found) == len(json.loads((tmp_path / "predictions_coco.json").read_text())) > 0
    capsys.readouterr()
    assert visualize.main([*flags, "--classes", "cow"]) == 1
    assert "--classes cow: the model knows ring, square, star, triangle" in capsys.readouterr().err


def test_visualize_never_writes_onto_its_input(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (70, 50), "red").save(folder / "a.jpg")
    Image.new("RGB", (70, 50), "red").save(folder / "a.png")
    before = (folder / "a.jpg").read_bytes()
    flags = ["--model", str(run / "model_final.pt"), "--image_dir", str(folder)]
    assert visualize.main([*flags, "--output_dir", str(folder), "--workers", "0"]) == 0
    assert files(folder) == ["a.jpg", "a.png", "a_2.jpg", "a_3.jpg"]
    assert (folder / "a.jpg").read_bytes() == before


# ---- reports and records ----


def test_validation_report(sample: SampleData, run: Path, tmp_path: Path) -> None:
    flags = [str(run / "model_final.pt"), "--csv_val", str(sample.csv_val), "--workers", "0"]
    assert validate.main([*flags, "--output_dir", str(tmp_path), "--report"]) == 0
    assert files(tmp_path) == ["detections.json", "metrics.json", "report.html"]
    number = json.loads((tmp_path / "metrics.json").read_text())["mAP_VOC"]
    assert f"{number:.3f}" in (tmp_path / "report.html").read_text()
    (tmp_path / "report.html").write_text("mine")
    assert validate.main([*flags, "--output_dir", str(tmp_path), "--report"]) == 1
    assert (tmp_path / "report.html").read_text() == "mine"


def test_patience_ends_a_run_that_learns_nothing(
    sample: SampleData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At this learning rate the mAP stays 0: the first evaluation is the best one."""
    flags = [*csv_flags(sample), "--csv_val", str(sample.csv_val), *SMALL, "--lr", "1e-12"]
    flags += ["--output_dir", str(tmp_path), "--epochs", "9", "--patience", "2"]
    assert train.main(["--dataset", "csv", *flags]) == 0
    assert load_checkpoint(tmp_path / "model_final.pt").epoch == 2
    assert "no better for 2 evaluations" in capsys.readouterr().out


# ---- refusals: one clear line, nothing written ----


def broken(sample: SampleData, folder: Path) -> dict[str, list[str]]:
    """Flags of training runs that cannot be, each with its own fault."""
    (folder / "gaps.csv").write_text("ring,0\nsquare,2\nstar,3\ntriangle,4\n")
    (folder / "few.csv").write_text("ring,0\nsquare,1\n")
    (folder / "row.csv").write_text("a.jpg,1,2,3\n")
    (folder / "none.csv").write_text("\n")
    (folder / "page.jpg").write_text("<html>no image</html>")
    (folder / "page.csv").write_text(f"{folder / 'page.jpg'},1,2,3,4,ring\n")
    (folder / "model.pt").write_text("no checkpoint")
    classes = str(sample.csv_classes)
    train_csv = str(sample.csv_train)
    return {
        "gaps": ["--csv_train", train_csv, "--csv_classes", str(folder / "gaps.csv")],
        "few": ["--csv_train", train_csv, "--csv_classes", str(folder / "few.csv")],
        "row": ["--csv_train", str(folder / "row.csv"), "--csv_classes", classes],
        "none": ["--csv_train", str(folder / "none.csv"), "--csv_classes", classes],
        "page": ["--csv_train", str(folder / "page.csv"), "--csv_classes", classes],
        "missing": ["--csv_train", str(folder / "nowhere.csv"), "--csv_classes", classes],
        "weights": [*csv_flags(sample), "--weights", str(folder / "model.pt")],
        "no weights": [*csv_flags(sample), "--weights", str(folder / "nowhere.pt")],
        "device": [*csv_flags(sample), "--device", "nonsense"],
    }


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        ("gaps", "gaps.csv: ids 0, 2, 3, 4; expected 0 to 3"),
        ("few", "expected one of ring, square"),
        ("row", "row.csv:1: 4 fields; expected 6"),
        ("none", "none.csv: no images"),
        ("page", "page.jpg"),
        ("missing", "nowhere.csv: no such file"),
        ("weights", "model.pt: it is damaged or no checkpoint"),
        ("no weights", "nowhere.pt: there is no such file"),
        ("device", "--device nonsense"),
    ],
)
def test_bad_data_ends_with_one_clear_message(
    sample: SampleData,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    fault: str,
    complaint: str,
) -> None:
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    flags = broken(sample, inputs)[fault]
    out = ["--output_dir", str(tmp_path / "out")]
    assert train.main(["--dataset", "csv", *SMALL, *flags, *out]) == 1
    captured = capsys.readouterr()
    assert complaint in captured.err
    assert "Traceback" not in captured.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--dataset", "pascal"], "invalid choice: 'pascal'"),
        ([], "--dataset"),
        (["--dataset", "coco"], "--dataset coco needs --coco_path"),
        (["--dataset", "csv", "--csv_classes", "x"], "--dataset csv needs --csv_train"),
        (["--dataset", "shapes", "--lr", "0"], "not a number above 0"),
        (
            ["--dataset", "csv", "--csv_train", "x", "--csv_classes", "y", "--patience", "2"],
            "--patience counts evaluations; it needs --csv_val",
        ),
        (["--dataset", "shapes", "--epochs", "0"], "not a whole number of 1 or more"),
        (["--dataset", "shapes", "--min_side", "500"], "--max_side 384 is less than"),
        (["--dataset", "shapes", "--learning_rate", "1"], "unrecognized arguments"),
    ],
)
def test_wrong_usage_ends_with_two(
    flags: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        train.main(flags)
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1


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
            *(sys.executable, ROOT / "validate.py", run / "model_final.pt"),
            *("--csv_val", rows, "--workers", "2"),
        ],
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


def test_validation_data_of_other_classes_is_refused(
    sample: SampleData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "coco"
    shutil.copytree(sample.coco_root, root)
    file = root / "annotations/instances_val2017.json"
    content = json.loads(file.read_text())
    content["categories"].append({"id": 9, "name": "moon"})
    file.write_text(json.dumps(content))
    flags = ["--dataset", "coco", "--coco_path", str(root), "--output_dir", str(tmp_path / "out")]
    assert train.main([*flags, *SMALL]) == 1
    assert "triangle, moon, the training data" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_flags_from_a_file_and_later_ones_win(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = tmp_path / "run.args"
    flags.write_text("# a comment\n--dataset shapes --lr 1e-3\n--max-side 100\n")
    args = train.parse([f"@{flags}", "--min_side", "64", "--lr", "2e-3"])
    assert (args.dataset, args.lr, args.min_side, args.max_side) == ("shapes", 2e-3, 64, 100)


@pytest.mark.parametrize("script", ["train", "validate", "csv_validation", "visualize"])
def test_help_is_whole(script: str) -> None:
    result = subprocess.run(
        [sys.executable, ROOT / f"{script}.py", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "100"},
    )
    assert "options:" in result.stdout
    assert result.stderr == ""


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
    assert train.main(["--dataset", "shapes", "--output_dir", str(tmp_path)]) == 0
    assert load_checkpoint(tmp_path / "model_final.pt").metrics["mAP"] >= 0.9
