"""python -m retinanet.tools.check_data, as people run it: what it says, writes and refuses."""

import io
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

from retinanet.data.datasets import CocoDataset, CSVDataset
from retinanet.data.shapes import SampleData, write_shapes
from retinanet.data_check import pictures
from retinanet.data_check import text as check_report
from retinanet.data_check.summary import look_at
from retinanet.model import ModelConfig
from retinanet.tools import check_data

SIZES = ["--min_side", "64", "--max_side", "96"]  # at which many shapes have no anchor


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> SampleData:
    return write_shapes(tmp_path_factory.mktemp("sample") / "data", train_images=31, val_images=3)


def csv_flags(sample: SampleData) -> list[str]:
    files = {"train": sample.csv_train, "val": sample.csv_val, "classes": sample.csv_classes}
    return ["--dataset", "csv", *(f"--csv_{name}={path}" for name, path in files.items())]


def test_what_it_says_and_writes(
    sample: SampleData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    flags = [*csv_flags(sample), *SIZES, "--output_dir", str(out)]
    assert check_data.main(flags) == 0
    said = capsys.readouterr().out
    assert f"Training data: 31 images below {sample.coco_root}" in said
    assert "class     training boxes  images  validation boxes  images" in said
    assert "Training boxes at 64 to 96 px, by the side of a square of equal area:" in said
    assert "IoU below 0.5). They never train;" in said
    assert "No image is there twice." in said
    assert [f"Written: {out / name}" in said for name in ("check.json", "box_sizes.png")]
    assert sorted(path.name for path in out.iterdir()) == [
        "box_sizes.png", "check.json", "samples.jpg",
    ]  # fmt: skip
    assert Image.open(out / "box_sizes.png").size == (1500, 690)
    assert Image.open(out / "samples.jpg").width > 1000

    found = json.loads((out / "check.json").read_text())
    assert (found["min_side"], found["anchor_ratios"]) == (64, [0.5, 1, 2])
    data = CSVDataset(sample.csv_train, sample.csv_classes)
    facts = look_at(data, 64, 96, ModelConfig(4))
    training = found["training"]
    assert (training["images"], training["images_without_boxes"]) == (31, 1)
    assert (
        training["boxes"] == len(facts.reached) == sum(row["boxes"] for row in training["classes"])
    )
    assert training["boxes_without_anchor"] == facts.unreached > 10
    assert sum(part["boxes"] for part in training["box_sizes"]) == training["boxes"]
    for row in training["classes"]:
        assert sum(row["images_without_anchor"].values()) == row["without_anchor"]
        assert row["better_size"]["min_side"] > 64
    names = training["classes"][0]["images_without_anchor"]
    assert all((data.images_root / name).is_file() for name in names)
    assert found["validation"]["images"] == 3
    assert found["equal_files"] == []


def test_nothing_is_written_without_a_folder(
    sample: SampleData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert check_data.main(csv_flags(sample)) == 0
    assert list(tmp_path.iterdir()) == []


def test_coco_data_give_the_same_numbers(
    sample: SampleData, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = []
    for flags in (csv_flags(sample), ["--dataset", "coco", "--coco_path", str(sample.coco_root)]):
        assert check_data.main([*flags, *SIZES]) == 0
        text = capsys.readouterr().out
        tables.append(text[text.index("class ") : text.index("No anchor reaches")])
    assert tables[0] == tables[1]


def test_other_anchors_reach_other_boxes(
    sample: SampleData, capsys: pytest.CaptureFixture[str]
) -> None:
    def missed(*flags: str) -> int:
        assert check_data.main([*csv_flags(sample), *SIZES, *flags]) == 0
        found = re.search(r"No anchor reaches (\d+) of", capsys.readouterr().out)
        return int(found[1]) if found else 0

    before = missed()
    assert before > 20
    assert missed("--anchor_sizes", "8", "16", "32", "64", "128") < before
    assert missed("--anchor_ratios", "9") > before
    assert missed("--anchor_scales", "2") > before


def test_images_that_are_there_twice(
    sample: SampleData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(sample.coco_root, tmp_path / "data")
    first = folder / "images/train2017/0001.jpg"
    shutil.copy(first, folder / "images/val2017/0001.jpg")
    shutil.copy(folder / "images/train2017/0002.jpg", folder / "images/train2017/0003.jpg")
    flags = [f.replace(str(sample.coco_root), str(folder)) for f in csv_flags(sample)]
    assert check_data.main([*flags, "--output_dir", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert (
        "1 image is in the training and in the validation data:\n"
        f"  {first} = {folder}/images/val2017/0001.jpg\n"
        "1 image is there under several names:\n"
        f"  {folder}/images/train2017/0002.jpg = {folder}/images/train2017/0003.jpg\n"
    ) in said
    groups = json.loads((tmp_path / "out/check.json").read_text())["equal_files"]
    assert ["training", str(first)] in groups[0]
    assert ["validation", f"{folder}/images/val2017/0001.jpg"] in groups[0]


def test_long_lists_of_equal_files_are_cut() -> None:
    text = check_report.file_text(
        [[("training", Path(f"{k}")), ("training", Path(f"{k}b"))] for k in range(12)]
    )
    assert text.startswith("12 images are there under several names:\n  0 = 0b\n")
    assert text.endswith("  9 = 9b\n  and 2 more")


def test_problems_of_both_files_are_said_at_once(
    sample: SampleData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("train", "val"):
        (tmp_path / f"{name}.csv").write_text("none.jpg,1,2,3,4,cow\n")
    flags = ["--dataset", "csv", "--csv_train", f"{tmp_path}/train.csv"]
    flags += ["--csv_val", f"{tmp_path}/val.csv", "--csv_classes", str(sample.csv_classes)]
    assert check_data.main([*flags, "--output_dir", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert error.count("train.csv:1: ") == error.count("val.csv:1: ") == 2
    assert not (tmp_path / "out").exists()


def test_strict(sample: SampleData, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = shutil.copytree(sample.coco_root, tmp_path / "data")
    flags = [f.replace(str(sample.coco_root), str(folder)) for f in csv_flags(sample)]
    assert check_data.main([*flags, "--strict"]) == 0
    capsys.readouterr()
    with (folder / "train.csv").open("a") as file:
        file.write("\n")
    assert check_data.main(flags) == 0
    assert "train.csv: repaired (blank line: 1); --strict shows where" in capsys.readouterr().out
    assert check_data.main([*flags, "--strict"]) == 1
    assert ": a blank line; expected data on every line; remove it" in capsys.readouterr().err


def test_other_classes_in_the_validation_data(
    sample: SampleData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(sample.coco_root, tmp_path / "data")
    file = folder / "annotations/instances_val2017.json"
    file.write_text(file.read_text().replace('"star"', '"planet"'))
    assert check_data.main(["--dataset", "coco", "--coco_path", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "Warning: the validation data has other classes; train.py will refuse it" in said
    assert [line.split()[3] for line in said.splitlines() if line.startswith("planet")] != ["0"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--dataset", "csv", "--csv_train", "a.csv"], "--dataset csv needs --csv_classes"),
        (["--dataset", "coco"], "--dataset coco needs --coco_path"),
        (["--dataset", "coco", "--coco_path", "x", "--min_side", "2000"], "1024 is less than"),
        (["--dataset", "shapes"], "invalid choice"),
    ],
)
def test_flags(flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        check_data.main(flags)
    assert error.value.code == 2
    assert message in capsys.readouterr().err


def test_data_without_boxes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    (tmp_path / "train.csv").write_text("a.png,,,,,\n")
    (tmp_path / "classes.csv").write_text("cat,0\n")
    flags = ["--dataset", "csv", f"--csv_train={tmp_path}/train.csv"]
    flags += [f"--csv_classes={tmp_path}/classes.csv", f"--output_dir={tmp_path}/out"]
    assert check_data.main(flags) == 0
    assert "Some anchor reaches each of the 0 boxes" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "check.json", "samples.jpg",
    ]  # fmt: skip


def test_chart_of_one_box(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    (tmp_path / "train.csv").write_text("a.png,5,5,10,10,cat\n")
    data = CSVDataset(tmp_path / "train.csv", {"cat": 0})
    png = pictures.size_chart(look_at(data, 64, 96, ModelConfig(1)), 64, 96)
    assert Image.open(io.BytesIO(png)).size == (1500, 690)


def test_bars_on_a_screen_without_blocks(
    sample: SampleData, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = look_at(CSVDataset(sample.csv_train, sample.csv_classes), 64, 96, ModelConfig(4))
    assert "█" in check_report.size_table(facts)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    table = check_report.size_table(facts)
    assert table.isascii()
    assert "#" in table
    assert "-" * 3 in table


def test_bars_are_as_long_as_the_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    bins = [(8.0, 11.3, 10, 10), (11.3, 16.0, 0, 0), (16.0, 22.6, 40, 1)]
    monkeypatch.setattr(check_report, "size_bins", lambda facts: bins)
    first, empty, last = check_report.size_table(None).split("\n")  # type: ignore[arg-type]
    assert first == "      8 -   11 px        10  ░░░░░░░░░░  10 without an anchor"
    assert empty == "     11 -   16 px         0"
    assert last.count("█") == 39
    assert last.count("░") == 1  # one of forty is seen


def test_coco_with_crowds_alone(sample: SampleData, tmp_path: Path) -> None:
    folder = shutil.copytree(sample.coco_root, tmp_path / "data")
    file = folder / "annotations/instances_train2017.json"
    file.write_text(file.read_text().replace('"iscrowd": 0', '"iscrowd": 1'))
    data = CocoDataset(folder)
    facts = look_at(data, 608, 1024, ModelConfig(4))
    assert (len(facts.reached), facts.empty) == (0, 31)
