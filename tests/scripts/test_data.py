"""--data: one flag from a labelled folder to a model, its scores and its pictures."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import train
import validate
import visualize
from retinanet.data.shapes import SampleData
from retinanet.tools import check_data, compare
from tests.data.formats.exports import coco_json, labelme_json, text, voc_xml, yolo_line
from tests.support.helpers import SMALL, files
from tests.support.narrow import narrow_network

NAMES = ("ring", "square", "star", "triangle")
pytestmark = pytest.mark.usefixtures("narrow")


def boxes_of(sample: SampleData, split: str) -> dict[str, list[tuple[float, ...]]]:
    """Boxes in pixels, with names of classes, by image."""
    rows: dict[str, list[tuple[float, ...]]] = {}
    file = sample.csv_train if split == "train" else sample.csv_val
    for line in file.read_text().splitlines():
        name, *numbers, label = line.split(",")
        boxes = rows.setdefault(Path(name).name, [])
        if label:
            boxes.append((*map(float, numbers), label))  # type: ignore[arg-type]
    return rows


@pytest.fixture(scope="module")
def voc(sample: SampleData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample's training images, undivided, as Pascal VOC."""
    root = tmp_path_factory.mktemp("voc")
    for name, boxes in boxes_of(sample, "train").items():
        source = sample.coco_root / "images/train2017" / name
        (root / name).write_bytes(source.read_bytes())
        text(root / f"{Path(name).stem}.xml", voc_xml(name, boxes))  # type: ignore[arg-type]
    return root


def data_flags(root: Path, out: Path) -> list[str]:
    """A tiny run from nothing on a labelled folder."""
    return ["--data", str(root), "--weights", "none", "--output_dir", str(out), *SMALL]


def with_labels(voc: Path, root: Path, kind: str, by_image: dict[str, Any]) -> Path:
    """The same images with their labels in another format."""
    root.mkdir()
    for image in voc.glob("*.jpg"):
        (root / image.name).write_bytes(image.read_bytes())
        boxes = by_image.get(image.name, [])
        if kind == "yolo":
            with Image.open(image) as opened:
                lines = [yolo_line(box, NAMES, opened.size) for box in boxes]
            text(root / f"{image.stem}.txt", *lines)
        elif kind == "labelme":
            text(root / f"{image.stem}.json", labelme_json(image.name, boxes))
    if kind == "yolo":
        text(root / "classes.txt", *NAMES)
    elif kind == "coco":
        text(root / "result.json", coco_json(by_image, NAMES))
    elif kind == "csv":
        rows = [(name, *box) for name, own in by_image.items() for box in own]
        rows += [(name, "", "", "", "", "") for name, own in by_image.items() if not own]
        text(root / "a.csv", "file,x1,y1,x2,y2,label", *(",".join(map(str, row)) for row in rows))
    return root


def losses(run: Path) -> list[list[float]]:
    """Both losses of each step of a run."""
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    names = ("classification_loss", "regression_loss")
    return [[row[name] for name in names] for row in rows if "iteration" in row]


@pytest.fixture(scope="module")
def voc_run(voc: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("voc_run")
    with narrow_network():
        assert train.main([*data_flags(voc, out), "--val_share", "0.4"]) == 0
    return out


def test_training_says_the_format_the_cut_and_its_settings(
    voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main(data_flags(voc, tmp_path)) == 0
    said = capsys.readouterr().out
    assert f"{voc}: Pascal VOC\n" in said
    assert "No validation set is there: one is cut, 1 image of 6, the same in every run" in said
    assert "Settings that suit the data: --lr 6e-4 --schedule cosine" in said
    assert json.loads((tmp_path / "config.json").read_text())["flags"]["data"] == str(voc)


@pytest.mark.parametrize("kind", ["coco", "csv", "yolo", "labelme"])
def test_the_same_images_have_the_same_losses_in_any_format(
    voc: Path, voc_run: Path, sample: SampleData, tmp_path: Path, kind: str
) -> None:
    root = with_labels(voc, tmp_path / "data", kind, boxes_of(sample, "train"))
    assert train.main([*data_flags(root, tmp_path / "out"), "--val_share", "0.4"]) == 0
    assert losses(tmp_path / "out") == losses(voc_run)
    assert len(losses(voc_run)) == 4  # two epochs of two batches of two images


@pytest.mark.parametrize("kind", ["coco", "csv"])
def test_every_command_opens_a_file_of_labels(
    voc: Path,
    voc_run: Path,
    sample: SampleData,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    kind: str,
) -> None:
    root = with_labels(voc, tmp_path / "data", kind, boxes_of(sample, "train"))
    model = str(voc_run / "model_final.pt")
    assert validate.main([model, "--data", str(root), "--workers", "0"]) == 0
    assert "set aside" in capsys.readouterr().out
    flags = [model, "--data", str(root), "--ground_truth", "--output_dir", str(tmp_path / "drawn")]
    assert visualize.main([*flags, "--workers", "0"]) == 0
    assert len(files(tmp_path / "drawn")) == 2
    flags = ["--data", str(root), "--min_side", "64", "--max_side", "96"]
    assert check_data.main([*flags, "--no_decode"]) in (0, 1)
    flags = [model, model, "--data", str(root), "--workers", "0"]
    assert compare.main(flags) == 0


def test_the_images_set_aside_are_listed_and_used_again(
    voc: Path, voc_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    aside = (voc_run / "val_images.txt").read_text().splitlines()[1:]
    kept = (voc_run / "train_images.txt").read_text().splitlines()[1:]
    assert len(aside) == 2
    assert sorted(aside + kept) == [f"000{k}.jpg" for k in range(1, 7)]
    model = str(voc_run / "model_final.pt")
    assert validate.main([model, "--data", str(voc), "--workers", "0"]) == 0
    assert f"set aside: {voc_run / 'val_images.txt'}" in capsys.readouterr().out
    flags = [model, "--data", str(voc), "--ground_truth", "--output_dir", str(tmp_path)]
    assert visualize.main([*flags, "--workers", "0"]) == 0
    assert files(tmp_path) == aside


@pytest.mark.parametrize(("count", "aside"), [(1, 0), (5, 1)])
def test_images_that_all_look_alike_leave_some_to_train_on(
    sample: SampleData, tmp_path: Path, count: int, aside: int
) -> None:
    content = (sample.coco_root / "images/train2017/0001.jpg").read_bytes()
    for k in range(count):
        (tmp_path / f"{k}.jpg").write_bytes(content)
        text(tmp_path / f"{k}.xml", voc_xml(f"{k}.jpg", [(10, 20, 80, 90, "ring")]))
    assert train.main(data_flags(tmp_path, tmp_path / "out")) == 0
    lists = [(tmp_path / "out" / f"{part}_images.txt").read_text() for part in ("train", "val")]
    assert [len(names.splitlines()) - 1 for names in lists] == [count - aside, aside]


@pytest.mark.parametrize("kind", ["csv", "coco"])  # COCO has its classes all the same
def test_images_without_any_box_are_nothing_to_train_on(
    voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    root = with_labels(voc, tmp_path / "data", kind, {"0001.jpg": []})
    assert train.main(data_flags(root, tmp_path / "out")) == 1
    assert f"{root}: no boxes in the set all; expected some" in capsys.readouterr().err


def test_a_run_on_a_folder_goes_on(
    voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [*data_flags(voc, tmp_path), "--schedule", "plateau"]
    assert train.main(flags) == 0
    assert train.main([*flags, "--resume", "--epochs", "2"]) == 0
    assert "Resumed " in capsys.readouterr().out
    assert (tmp_path / "data_retinanet_1.pt").exists()


def test_a_folder_with_sets_is_used_as_it_is(
    sample: SampleData, voc_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "yolo"
    for folder, split in (("train", "train"), ("valid", "val")):
        for name, boxes in boxes_of(sample, split).items():
            image = root / folder / "images" / name
            image.parent.mkdir(parents=True, exist_ok=True)
            image.write_bytes((sample.coco_root / f"images/{split}2017" / name).read_bytes())
            with Image.open(image) as opened:
                size = opened.size
            lines = [yolo_line(box, NAMES, size) for box in boxes]  # type: ignore[arg-type]
            text(root / folder / "labels" / f"{image.stem}.txt", *lines)
    lines = ["train: ../train/images", "val: ../valid/images", f"names: {list(NAMES)}"]
    text(root / "data.yaml", *lines)
    assert check_data.main(["--data", str(root), "--min_side", "64", "--max_side", "96"]) in (0, 1)
    said = capsys.readouterr().out
    assert "YOLO, the set train of train, val" in said
    # A model of the same classes is evaluated on the folder's own validation set.
    model = str(voc_run / "model_final.pt")
    assert validate.main([model, "--data", str(root / "data.yaml"), "--workers", "0"]) == 0
    assert "YOLO, the set val of train, val" in capsys.readouterr().out


def test_background_alone_is_validated_on(
    voc_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for part, lines in (("train", ["0 0.5 0.5 0.5 0.5"]), ("val", [])):
        for k in range(2):
            (tmp_path / part / "images").mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (64, 48), (k, 9, 9)).save(tmp_path / part / "images" / f"{k}.png")
            text(tmp_path / part / "labels" / f"{k}.txt", *lines)
    text(tmp_path / "data.yaml", "train: train/images", "val: val/images", f"names: {list(NAMES)}")
    model = str(voc_run / "model_final.pt")
    assert validate.main([model, "--data", str(tmp_path), "--workers", "0"]) == 0
    assert "no boxes in the set val: no AP can be measured" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--dataset", "csv"], "--data names the data; leave out --dataset"),
        (["--coco_path", "x"], "--data names the data; leave out --coco_path"),
        (["--format", "kitti"], "invalid choice: 'kitti'"),
    ],
)
def test_two_sources_are_refused(
    voc: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as end:
        train.main(["--data", str(voc), *more])
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_no_source_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train.main([])
    assert "no data is named; give --data FOLDER, or --dataset" in capsys.readouterr().err
