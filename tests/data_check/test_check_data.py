"""python -m retinanet.tools.check_data, as people run it: what it says, writes and refuses."""

import io
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from skimage import data

from retinanet.data.datasets import CocoDataset, CSVDataset
from retinanet.data.shapes import SampleData, write_shapes
from retinanet.data_check import pictures
from retinanet.data_check import text as check_report
from retinanet.data_check.anchor_coverage import Boxes, TrainingSetup
from retinanet.data_check.double_boxes import double_boxes
from retinanet.data_check.findings import Findings
from retinanet.data_check.problem_text import problem_text
from retinanet.data_check.summary import look_at
from retinanet.model import ModelConfig
from retinanet.tools import check_data

SIZES = ["--min_side", "40", "--max_side", "60"]  # at which many shapes have no anchor


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> SampleData:
    return write_shapes(tmp_path_factory.mktemp("sample") / "data", train_images=31, val_images=3)


def csv_flags(sample: SampleData) -> list[str]:
    files = {"train": sample.csv_train, "val": sample.csv_val, "classes": sample.csv_classes}
    return ["--dataset", "csv", *(f"--csv_{name}={path}" for name, path in files.items())]


def test_a_sheet_of_distorted_samples(sample: SampleData, tmp_path: Path) -> None:
    flags = [*csv_flags(sample), *SIZES, "--no_decode", "--no_near_duplicates"]
    sheets = {}
    for name in ("none", "mild", "strong"):
        out = tmp_path / name
        assert check_data.main([*flags, "--augment", name, "--output_dir", str(out)]) == 0
        file = out / "augmented.jpg"
        sheets[name] = np.asarray(Image.open(file), float) if file.exists() else None
    assert sheets["none"] is None  # what is flipped alone is in samples.jpg
    # Four pictures of 40 x 53 px beside each other, three below each other, 12 px between them.
    assert sheets["mild"].shape == sheets["strong"].shape == (12 + 3 * 52, 12 + 4 * 65, 3)
    assert np.abs(sheets["mild"] - sheets["strong"]).mean() > 5
    first, second = (sheets["strong"][top : top + 40] for top in (12, 64))
    assert np.abs(first - second).mean() > 5  # another epoch, another cut


def test_what_it_says_and_writes(
    sample: SampleData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    flags = [*csv_flags(sample), *SIZES, "--output_dir", str(out)]
    assert check_data.main(flags) == 0
    said = capsys.readouterr().out
    assert f"Training data: 31 images below {sample.coco_root}" in said
    assert "class     training boxes  images  validation boxes  images" in said
    assert "Training boxes at 40 to 60 px, by the side of a square of equal area:" in said
    assert "IoU below 0.5). They never train;" in said
    assert "No image is there twice." in said
    names = ["box_sizes.png", "check.json", "samples.jpg"]
    assert sorted(path.name for path in out.iterdir()) == names
    assert all(f"Written: {out / name}\n" in said for name in names)
    assert Image.open(out / "box_sizes.png").size == (1500, 690)
    assert Image.open(out / "samples.jpg").width > 1000

    found = json.loads((out / "check.json").read_text())
    assert (found["min_side"], found["anchor_ratios"]) == (40, [0.5, 1, 2])
    data = CSVDataset(sample.csv_train, sample.csv_classes)
    facts = look_at(data, TrainingSetup(40, 60, ModelConfig(4)))
    training = found["training"]
    assert (training["images"], training["images_without_boxes"]) == (31, 1)
    assert (
        training["boxes"] == len(facts.reached) == sum(row["boxes"] for row in training["classes"])
    )
    assert training["boxes_without_anchor"] == facts.unreached > 5
    assert sum(part["boxes"] for part in training["box_sizes"]) == training["boxes"]
    for row in training["classes"]:
        assert sum(row["images_without_anchor"].values()) == row["without_anchor"]
        assert row["better_size"]["min_side"] > 40
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
    assert before > 5
    assert missed("--anchor_sizes", "8", "16", "32", "64", "128") < before
    assert missed("--anchor_ratios", "9") > before
    assert missed("--anchor_scales", "2") > before


def test_one_set_for_training_and_validation_is_looked_at_once(
    sample: SampleData, capsys: pytest.CaptureFixture[str]
) -> None:
    coco = ["--dataset", "coco", "--coco_path", str(sample.coco_root), "--coco_val_set=train2017"]
    csv = csv_flags(sample)
    beside = f"{Path(sample.csv_train).parent}/./{Path(sample.csv_train).name}"
    for flags in (coco, [*csv, "--csv_val", beside]):
        assert check_data.main([*flags, *SIZES, "--no_near_duplicates"]) == 0
        said = capsys.readouterr().out
        assert said.startswith("The validation data are the training data:")
        assert "Training data: 31 images" in said
        assert "Validation data:" not in said
        assert "No image is there twice." in said


def test_images_that_are_there_twice(
    sample: SampleData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(sample.coco_root, tmp_path / "data")
    first = folder / "images/train2017/0001.jpg"
    shutil.copy(first, folder / "images/val2017/0001.jpg")
    shutil.copy(folder / "images/train2017/0002.jpg", folder / "images/train2017/0003.jpg")
    flags = [f.replace(str(sample.coco_root), str(folder)) for f in csv_flags(sample)]
    assert check_data.main([*flags, "--output_dir", str(tmp_path / "out")]) == 1
    output = capsys.readouterr()
    said = output.out
    assert output.err.endswith("error: 2 problems found, named above\n")
    assert (
        "1 image in the training and in the validation data:\n"
        f"  {first} = {folder}/images/val2017/0001.jpg\n"
        "1 image there under several names:\n"
        f"  {folder}/images/train2017/0002.jpg = {folder}/images/train2017/0003.jpg\n"
    ) in said
    groups = json.loads((tmp_path / "out/check.json").read_text())["equal_files"]
    assert ["training", str(first)] in groups[0]
    assert ["validation", f"{folder}/images/val2017/0001.jpg"] in groups[0]


def test_long_lists_are_cut() -> None:
    equal = [[("training", Path(f"{k}")), ("training", Path(f"{k}b"))] for k in range(12)]
    text = problem_text(Findings(equal), decoded=True, compared=True)
    assert text.startswith("12 images there under several names:\n  0 = 0b\n")
    assert "  9 = 9b\n  and 2 more\n" in text
    assert text.endswith("No images look alike.\nEvery image can be decoded.")


@pytest.fixture
def problematic(tmp_path: Path) -> list[str]:
    """Flags of data with one problem of each kind, but for equal files."""
    noise = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    cat, other = Image.fromarray(data.chelsea()), Image.fromarray(noise).resize((80, 60))
    cat.save(tmp_path / "cat.jpg")
    cat.resize((220, 150)).save(tmp_path / "again.jpg")
    cat.resize((110, 75)).save(tmp_path / "small.jpg")
    other.save(tmp_path / "other.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "other.png").read_bytes()[:1200])
    Image.new("RGB", (40, 30), "grey").save(tmp_path / "plain.jpg")
    (tmp_path / "train.csv").write_text(
        "cat.jpg,10,10,100,100,cat\ncat.jpg,11,10,100,101,dog\ncat.jpg,10,10,60,100,dog\n"
        "again.jpg,10,10,90,90,cat\nbroken.png,1,1,20,20,dog\nplain.jpg,,,,,\n"
    )
    (tmp_path / "val.csv").write_text("small.jpg,5,5,50,50,cat\nother.png,5,5,50,50,emu\n")
    (tmp_path / "classes.csv").write_text("cat,0\ndog,1\nemu,2\n")
    files = {"train": "train.csv", "val": "val.csv", "classes": "classes.csv"}
    return ["--dataset", "csv", *(f"--csv_{k}={tmp_path / name}" for k, name in files.items())]


def test_every_kind_of_problem_is_found_and_said(
    problematic: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check_data.main(problematic) == 1
    output = capsys.readouterr()
    for said in (
        "1 group of images that look alike in the training and in the validation data:\n"
        f"  {tmp_path}/cat.jpg = {tmp_path}/again.jpg = {tmp_path}/small.jpg\n",
        f"1 image unreadable; train.py leaves out such with --on_bad_image skip, after the start"
        f" with --resume --on_bad_image skip:\n  {tmp_path}/broken.png: cannot be decoded",
        f"1 image of one colour:\n  {tmp_path}/plain.jpg\n",
        "1 object drawn twice with different classes:\n"
        f"  {tmp_path}/cat.jpg: cat and dog at 10, 10, 100, 100\n",
        "1 class with boxes in the training data alone:\n  dog\n",
        "1 class with boxes in the validation data alone:\n  emu\n",
    ):
        assert said in output.out
    assert output.err.endswith("error: 5 problems found, named above\n")


def test_json_alone_on_stdout(
    problematic: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check_data.main([*problematic, "--json", f"--output_dir={tmp_path / 'out'}"]) == 1
    text = capsys.readouterr().out
    found = json.loads(text)
    assert (tmp_path / "out/check.json").read_text() == text.rstrip("\n")
    assert found["problems"] == 5
    assert [len(group) for group in found["near_duplicates"]] == [3]
    assert found["one_colour"] == [["training", f"{tmp_path}/plain.jpg"]]
    assert len(found["unreadable"]) == 1
    assert found["double_boxes"] == [
        {"image": f"{tmp_path}/cat.jpg", "classes": ["cat", "dog"], "box": [10, 10, 100, 100]}
    ]
    assert found["classes_in_one_set"] == {"training": ["dog"], "validation": ["emu"]}


def test_the_slow_looks_can_be_left_out(
    problematic: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert check_data.main([*problematic, "--no_decode", "--no_near_duplicates"]) == 1
    output = capsys.readouterr()
    for said in ("unreadable", "decoded", "alike", "one colour"):
        assert said not in output.out
    assert output.err.endswith("error: 2 problems found, named above\n")


def test_a_validation_set_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        Image.effect_noise((64, 48), 50).save(tmp_path / f"{name}.jpg")
        for folder, suffix, text in (("images", "jpg", None), ("labels", "txt", "0 .5 .5 .4 .4\n")):
            target = tmp_path / "val" / folder / f"{name}.{suffix}"
            target.parent.mkdir(parents=True, exist_ok=True)
            if text:
                target.write_text(text)
            else:
                (tmp_path / f"{name}.jpg").rename(target)
    (tmp_path / "classes.txt").write_text("cat\n")
    assert check_data.main(["--data", str(tmp_path)]) == 0
    assert "Validation boxes at" in capsys.readouterr().out


def test_data_of_which_nothing_can_be_decoded(
    problematic: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train.csv").write_text("broken.png,1,1,20,20,dog\n")
    flags = [flag for flag in problematic if "csv_val" not in flag]
    assert check_data.main([*flags, f"--output_dir={tmp_path / 'out'}"]) == 1
    assert "1 image unreadable" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "box_sizes.png", "check.json",
    ]  # fmt: skip


def test_frames_of_a_film_are_no_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, quality in (("a.jpg", 90), ("b.jpg", 60)):
        Image.fromarray(data.chelsea()).save(tmp_path / name, quality=quality)
    (tmp_path / "train.csv").write_text("a.jpg,1,1,90,90,cat\nb.jpg,1,1,90,90,cat\n")
    (tmp_path / "classes.csv").write_text("cat,0\n")
    flags = ["--dataset", "csv", f"--csv_train={tmp_path}/train.csv"]
    assert check_data.main([*flags, f"--csv_classes={tmp_path}/classes.csv"]) == 0
    assert "1 group of images that look alike in one of them:" in capsys.readouterr().out


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 2)), max_size=12))
def test_double_boxes_are_those_of_the_plain_count(rows: list[tuple[int, int, int]]) -> None:
    rows.sort()
    corners = np.array([[0.0, 0, 100, 100 + (0, 5, 40)[shape]] for _, _, shape in rows])
    images, labels = (np.array([row[k] for row in rows], np.int64) for k in (0, 1))
    boxes = Boxes(corners.reshape(-1, 4), labels, images, np.zeros((len(rows), 2), np.int64))
    expected = [  # 100 x 100 in 100 x 105 is 0.95; in 100 x 140, 0.71
        [a, b]
        for a in range(len(rows))
        for b in range(a + 1, len(rows))
        if rows[a][0] == rows[b][0]
        and rows[a][1] != rows[b][1]
        and (rows[a][2] == 2) == (rows[b][2] == 2)
    ]
    assert sorted(double_boxes(boxes).tolist()) == expected


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
    content = json.loads(file.read_text())
    used = content["annotations"][0]["category_id"]
    next(entry for entry in content["categories"] if entry["id"] == used)["name"] = "planet"
    file.write_text(json.dumps(content))
    flags = ["--dataset", "coco", "--coco_path", str(folder)]
    assert check_data.main([*flags, "--no_decode", "--no_near_duplicates"]) == 1
    said = "1 class with boxes in the validation data alone:\n  planet"
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--dataset", "csv", "--csv_train", "a.csv"], "--dataset csv needs --csv_classes"),
        (["--dataset", "coco"], "--dataset coco needs --coco_path"),
        (["--dataset", "coco", "--coco_path", "x", "--min_side", "2000"], "1024 is less than"),
        (["--dataset", "shapes"], "invalid choice"),
    ],
)
def test_flags_that_contradict_or_lack_data_are_refused(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        check_data.main(flags)
    assert error.value.code == 2
    assert message in capsys.readouterr().err


def test_data_without_boxes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.effect_noise((40, 30), 50).save(tmp_path / "a.png")
    (tmp_path / "train.csv").write_text("a.png,,,,,\n")
    (tmp_path / "classes.csv").write_text("cat,0\n")
    flags = ["--dataset", "csv", f"--csv_train={tmp_path}/train.csv"]
    flags += [f"--csv_classes={tmp_path}/classes.csv", f"--output_dir={tmp_path}/out"]
    assert check_data.main(flags) == 0
    assert "Some anchor reaches every box, 0 in all" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "check.json", "samples.jpg",
    ]  # fmt: skip


def test_chart_of_one_box(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    (tmp_path / "train.csv").write_text("a.png,5,5,10,10,cat\n")
    data = CSVDataset(tmp_path / "train.csv", {"cat": 0})
    png = pictures.size_chart(look_at(data, TrainingSetup(64, 96, ModelConfig(1))), 64, 96)
    assert Image.open(io.BytesIO(png)).size == (1500, 690)


def test_bars_on_a_screen_without_blocks(
    sample: SampleData, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = CSVDataset(sample.csv_train, sample.csv_classes)
    facts = look_at(data, TrainingSetup(64, 96, ModelConfig(4)))
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
    facts = look_at(data, TrainingSetup(608, 1024, ModelConfig(4)))
    assert (len(facts.reached), facts.empty) == (0, 31)
