"""The built-in data set: what its pictures show, what its files say, when it is written."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from retinanet.data import shapes as sample_data
from retinanet.data.datasets import CocoDataset, CSVDataset
from retinanet.data.shapes import CLASS_NAMES, Shape, max_hidden, render, shape_coverage
from retinanet.errors import DataError

COUNTS = {"train_images": 30, "val_images": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "new" / "shapes"
    sample_data.write_shapes(folder, **COUNTS)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its name there."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


# ---- pictures


@pytest.fixture
def _black_background(monkeypatch: pytest.MonkeyPatch) -> None:
    black = lambda rng, height, width: np.zeros((height, width, 3))  # noqa: E731
    monkeypatch.setattr(sample_data, "background", black)


@pytest.mark.usefixtures("_black_background")
def test_a_box_is_exactly_where_its_shape_is_seen() -> None:
    seen = set()
    for seed in range(40):
        pixels, [shape] = render(np.random.default_rng(seed), most=1)
        rows, columns = pixels.any(axis=2).nonzero()
        box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert shape.box == box
        seen.add(shape.label)
    assert seen == set(range(len(CLASS_NAMES)))


@pytest.mark.usefixtures("_black_background")
def test_shapes_overlap_but_stay_recognisable() -> None:
    hidden, sides, sizes = [], [], set()
    for seed in range(150):
        pixels, shapes = render(np.random.default_rng(seed))
        height, width, _ = pixels.shape
        sizes.add((height, width))
        assert 1 <= len(shapes) <= sample_data.MAX_SHAPES
        for x1, y1, x2, y2 in (shape.box for shape in shapes):
            assert 0 <= x1 < x2 <= width
            assert 0 <= y1 < y2 <= height
            sides += [x2 - x1, y2 - y1]
        hidden.append(max_hidden([shape.box for shape in shapes]))
    assert sizes == {(240, 320), (320, 240)}
    assert 0.2 < max(hidden) <= sample_data.MAX_HIDDEN
    assert min(sides) >= 56  # a square's, of the smallest diameter: 80 / sqrt(2)
    assert max(sides) <= 220
    assert np.mean([side < 90 for side in sides]) > 0.15  # small and large ones
    assert np.mean([side > 150 for side in sides]) > 0.15


@pytest.mark.parametrize(
    ("name", "share", "center"),
    [
        ("ring", 0.55, 0),  # pi / 4 * (1 - 0.55^2), and a hole
        ("square", 1.0, 1),
        ("star", 0.40, 1),
        ("triangle", 0.5, 1),
    ],
)
def test_share_of_its_box_that_a_shape_covers(name: str, share: float, center: float) -> None:
    coverage = shape_coverage(name, 80, 0.0)
    height, width = coverage.shape
    assert coverage.mean() == pytest.approx(share, abs=0.04)
    assert coverage[height // 2, width // 2] == center


def test_hidden_area_adds_up() -> None:
    below, left, right = (0, 0, 10, 10), (0, 0, 3, 10), (8, 5, 20, 15)
    assert max_hidden([below]) == 0
    assert max_hidden([below, left]) == pytest.approx(0.3)
    assert max_hidden([below, left, right]) == pytest.approx(0.3 + 0.1)
    assert max_hidden([left, below]) == 1  # all of `left` lies below


def test_the_same_seed_gives_the_same_picture_for_ever() -> None:
    np.random.seed(3)  # noqa: NPY002  numpy's global state must not matter
    first, shapes = render(np.random.default_rng((0, 0, 1)))
    np.random.seed(4)  # noqa: NPY002
    second, _ = render(np.random.default_rng((0, 0, 1)))
    assert (first == second).all()
    # When this fails, raise VERSION too: an old folder must not pass for the new rendering.
    assert shapes == [Shape(3, (40, 69, 218, 232)), Shape(0, (117, 72, 215, 170))]


# ---- files


def test_these_files_are_written(folder: Path) -> None:
    names = {"train.csv", "val.csv", "classes.csv", "shapes.json"}
    names |= {f"annotations/instances_{split}2017.json" for split in ("train", "val")}
    names |= {f"images/train2017/{number:04d}.jpg" for number in range(1, 31)}
    names |= {f"images/val2017/{number:04d}.jpg" for number in range(1, 5)}
    assert set(content(folder)) == names
    assert list(folder.parent.iterdir()) == [folder]  # nothing is left beside it


@pytest.mark.parametrize("split", ["train", "val"])
def test_csv_and_coco_say_the_same(folder: Path, split: str) -> None:
    from_csv = CSVDataset(str(folder / f"{split}.csv"), str(folder / "classes.csv"))
    from_coco = CocoDataset(str(folder), f"{split}2017")
    assert len(from_csv) == len(from_coco) == COUNTS[f"{split}_images"]
    assert from_csv.labels == from_coco.labels == dict(enumerate(CLASS_NAMES))
    for index in range(len(from_csv)):
        assert from_csv.image_path(index) == from_coco.image_path(index)
        assert from_csv.image_size(index) == from_coco.image_size(index)
        assert from_csv.load_image(index).shape[:2] == from_coco.image_size(index)
        assert (from_csv.load_annotations(index) == from_coco.load_annotations(index)).all()


def test_the_thirtieth_picture_is_empty_and_said_to_be(folder: Path) -> None:
    assert (folder / "train.csv").read_text().endswith("\nimages/train2017/0030.jpg,,,,,\n")
    instances = json.loads((folder / "annotations/instances_train2017.json").read_text())
    with_objects = {annotation["image_id"] for annotation in instances["annotations"]}
    assert {image["id"] for image in instances["images"]} - with_objects == {30}


def test_the_splits_differ_and_a_larger_set_begins_with_a_smaller(
    folder: Path, tmp_path: Path
) -> None:
    sample_data.write_shapes(tmp_path / "few", train_images=2, val_images=2)
    sample_data.write_shapes(tmp_path / "other", train_images=2, val_images=2, seed=1)
    large, small, other = map(content, (folder, tmp_path / "few", tmp_path / "other"))
    pictures = [name for name in small if name.endswith(".jpg")]
    assert all(small[name] == large[name] for name in pictures)
    assert all(small[name] != other[name] for name in pictures)
    assert len({small[name] for name in pictures}) == 4


# ---- when it is written


def test_an_identical_set_is_used_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_data, "render", None)  # drawing would fail
    (folder / "notes.txt").write_text("mine")
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    again = sample_data.write_shapes(folder, **COUNTS)
    assert again.csv_train == folder / "train.csv"
    assert again.coco_root == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == times
    (folder / "notes.txt").unlink()


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    assert sample_data.write_shapes(tmp_path, train_images=1, val_images=0).csv_train.is_file()


def test_whatever_else_is_there_is_refused_and_left_alone(tmp_path: Path) -> None:
    def refused(folder: Path, message: str, **counts: int) -> None:
        before = content(tmp_path)
        with pytest.raises(DataError, match=message):
            sample_data.write_shapes(folder, **{"train_images": 1, "val_images": 1, **counts})
        assert content(tmp_path) == before

    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "train.csv").write_text("cow.jpg,1,2,3,4,cow\n")
    refused(tmp_path / "foreign", "holds something other than the shapes data; delete it")
    refused(tmp_path / "foreign" / "train.csv", "holds something other than the shapes data")

    ours = tmp_path / "ours"
    sample_data.write_shapes(ours, train_images=1, val_images=1)
    refused(ours, "'seed': 0, .* not of .*'seed': 5", seed=5)
    refused(ours, "'train': 1, .* not of .*'train': 2", train_images=2)
    (ours / "images/val2017/0001.jpg").unlink()
    refused(ours, r"lacks 1 of its files \(images/val2017/0001.jpg\); delete it")
    (ours / "shapes.json").write_text("{")
    refused(ours, "holds something other than the shapes data")


def test_an_interrupted_write_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = itertools.count()

    def interrupted(*args: object, **kwargs: object) -> object:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return render(*args, **kwargs)

    monkeypatch.setattr(sample_data, "render", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sample_data.write_shapes(tmp_path / "shapes", **COUNTS)
    assert list(tmp_path.iterdir()) == []
