"""Flags and data that cannot be: one clear line, nothing written."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import csv_validation
import train
import validate
import visualize
from retinanet.data.shapes import SampleData
from tests.support.helpers import SMALL, csv_flags
from tests.support.paths import ROOT

pytestmark = pytest.mark.usefixtures("narrow")


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
        "exchanged": ["--csv_train", classes, "--csv_classes", train_csv],
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
        ("exchanged", "name,id; were --csv_classes and the annotations exchanged?"),
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
        (["--dataset", "shapes", "--min_side", "500"], "--max_side 128 is less than"),
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


def test_classes_of_validation_data_are_found_by_name(
    sample: SampleData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "coco"
    shutil.copytree(sample.coco_root, root)
    file = root / "annotations/instances_val2017.json"
    content = json.loads(file.read_text())
    content["categories"].insert(0, {"id": 0, "name": "moon"})  # moves all labels by one
    file.write_text(json.dumps(content))
    flags = ["--dataset", "coco", "--coco_path", str(root), "--output_dir", str(tmp_path / "out")]
    assert train.main([*flags, *SMALL]) == 0
    assert "Validation data: 4 images" in capsys.readouterr().out


def test_flags_from_a_file_and_later_ones_win(tmp_path: Path) -> None:
    flags = tmp_path / "run.args"
    flags.write_text("# a comment\n--dataset shapes --lr 1e-3\n--max-side 100\n")
    args = train.parse([f"@{flags}", "--min_side", "64", "--lr", "2e-3"])
    assert (args.dataset, args.lr, args.min_side, args.max_side) == ("shapes", 2e-3, 64, 100)


@pytest.mark.parametrize(
    "script", [train, validate, csv_validation, visualize], ids=lambda script: script.__name__
)
def test_help_is_whole(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as end:
        script.main(["--help"])
    assert end.value.code == 0
    said = capsys.readouterr()
    assert "options:" in said.out
    assert said.err == ""


# The others are run as processes with work to do.
@pytest.mark.parametrize("script", ["csv_validation", "visualize"])
def test_help_in_a_process(script: str) -> None:
    result = subprocess.run(
        [sys.executable, ROOT / f"{script}.py", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "options:" in result.stdout
    assert result.stderr == ""
