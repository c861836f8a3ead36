"""What is said of a data set before training: sizes, anchors, equal files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from retinanet.anchors import GRIDS, image_anchors
from retinanet.boxes import pairwise_iou
from retinanet.data.datasets import CSVDataset
from retinanet.data.transforms import Resizer
from retinanet.data_check import duplicates
from retinanet.data_check.anchor_coverage import (
    Boxes,
    Side,
    TrainingSetup,
    all_boxes,
    best_ious,
    better_anchors,
    better_sides,
    reached,
    resized,
)
from retinanet.data_check.duplicates import equal_files
from retinanet.data_check.summary import look_at
from retinanet.data_check.text import advice, digest, percent
from retinanet.losses import match_anchors
from retinanet.model import ModelConfig

CONFIG = ModelConfig(num_classes=2)


def dataset(folder: Path, rows: str, **sizes: tuple[int, int]) -> CSVDataset:
    """A data set of cats and dogs on pictures of (height, width)."""
    for name, (height, width) in sizes.items():
        Image.new("RGB", (width, height)).save(folder / f"{name}.png")
    (folder / "train.csv").write_text(rows)
    return CSVDataset(folder / "train.csv", {"cat": 0, "dog": 1})


def boxes_at(corners: Sequence[Sequence[float]], size: tuple[int, int]) -> Boxes:
    """Boxes of one image of (height, width)."""
    count = len(corners)
    zeros = np.zeros(count, int)
    return Boxes(np.array(corners, float).reshape(-1, 4), zeros, zeros, np.tile(size, (count, 1)))


# ---- anchors ----


def brute_force(corners: Any, height: int, width: int, config: ModelConfig) -> Any:
    """The best IoU of each box with all anchors of the image."""
    anchors = image_anchors(
        height,
        width,
        config.anchor_sizes,
        config.anchor_ratios,
        config.anchor_scales,
        config.anchor_grid,
    )
    return pairwise_iou(torch.tensor(corners, dtype=torch.float32), anchors).amax(dim=1).numpy()


numbers = st.floats(0.2, 5.0)


@settings(max_examples=60)
@given(
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(0, 2**32),
    st.lists(st.floats(4, 300), min_size=5, max_size=5),
    st.lists(numbers, min_size=1, max_size=3),
    st.lists(numbers, min_size=1, max_size=3),
    st.sampled_from(GRIDS),
)
def test_the_best_anchor_is_found_without_the_others(
    rows: int,
    columns: int,
    seed: int,
    sizes: list[float],
    ratios: list[float],
    scales: list[float],
    grid: str,
) -> None:
    height, width = 32 * rows, 32 * columns
    rng = np.random.default_rng(seed)
    ends = rng.uniform(0, 1, (2, 30, 2)) * (width, height)
    corners = np.hstack((ends.min(axis=0), ends.max(axis=0) + 0.5))
    config = ModelConfig(1, 50, tuple(sizes), tuple(ratios), tuple(scales), grid)
    found = best_ious(corners, np.tile((height, width), (30, 1)), config)
    np.testing.assert_allclose(found, brute_force(corners, height, width, config), atol=1e-4)


def test_images_of_many_sizes_at_once() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.integers(1, 9, (40, 2)) * 32
    sides = rng.uniform(5, 60, (40, 2))
    corners = np.hstack((inputs[:, ::-1] * 0.3, inputs[:, ::-1] * 0.3 + sides))
    expected = [
        brute_force(box[None], *size, CONFIG)[0]
        for box, size in zip(corners, inputs.tolist(), strict=True)
    ]
    np.testing.assert_allclose(best_ious(corners, inputs, CONFIG), expected, atol=1e-4)


@pytest.mark.parametrize(("side", "trains"), [(22, False), (24, True), (40, True)])
def test_reached_means_that_training_has_a_positive_anchor(side: int, trains: bool) -> None:
    corners = [[100, 100, 100 + side, 100 + side]]
    boxes = boxes_at(corners, (256, 256))
    assert reached(boxes, TrainingSetup(256, 256, CONFIG)).tolist() == [trains]
    annotations = torch.tensor([[[*corners[0], 0.0]]])
    labels, _ = match_anchors(image_anchors(256, 256), annotations)
    assert bool((labels >= 0).any()) == trains


def test_boxes_are_resized_as_in_training(tmp_path: Path) -> None:
    data = dataset(
        tmp_path, "a.png,3,4,50,31,cat\nb.png,,,,,\nc.png,1,2,90,80,dog\n",
        a=(37, 91), b=(40, 40), c=(123, 97),
    )  # fmt: skip
    boxes = all_boxes(data)
    assert boxes.images.tolist() == [0, 2]
    assert boxes.labels.tolist() == [0, 1]
    corners, inputs = resized(boxes, 64, 128)
    for row, index in enumerate([0, 2]):
        sample = Resizer(64, 128)(data[index])
        assert corners[row].tolist() == pytest.approx(sample["annot"][0, :4].tolist())
        assert inputs[row].tolist() == list(sample["img"].shape[:2])


def test_better_sides() -> None:
    small = boxes_at([[50, 50, 62, 62], [10, 80, 22, 92], [30, 30, 60, 60]], (128, 128))
    thin = boxes_at([[10, 60, 120, 63]], (128, 128))
    none = small.only(slice(0))
    assert reached(small, TrainingSetup(128, 256, CONFIG)).tolist() == [False, False, True]
    groups = [small.only([0, 1]), thin, none]
    better, nothing, empty = better_sides(groups, TrainingSetup(128, 256, CONFIG))
    assert better is not None
    assert better.min_side > 128
    assert better.max_side == 2 * better.min_side
    assert better.share == reached(small, TrainingSetup(*better[:2], CONFIG))[:2].mean() == 1
    assert nothing is None
    assert empty is None


def test_boxes_larger_than_every_anchor_need_a_smaller_side() -> None:
    huge = boxes_at([[0, 0, 1500, 1500]], (1500, 1500))
    (better,) = better_sides([huge], TrainingSetup(1504, 1504, CONFIG))
    assert better is not None
    assert 752 <= better.min_side < 1504


@pytest.mark.parametrize(
    ("sides", "expected"),
    [
        # 22 px in 24 px anchors: they reach it, and 100 px too; those of 32 px reach 100 px alone.
        ((22, 100), ((24, 48, 96, 192, 384), 0)),
        # The largest of 512 px are 813: .39 of 1300 x 1300 px; of 640 px they are 1016: .61.
        ((1300, 900), ((40, 80, 160, 320, 640), 0)),
        ((40, 100), None),  # all is well
        ((1, 1), None),  # nothing helps
        ((), None),
    ],
)
def test_better_anchors(sides: tuple[int, ...], expected: tuple[object, float] | None) -> None:
    """Of one class each."""
    size = max((128, *sides))
    boxes = boxes_at(
        [[100 % (size - s + 1)] * 2 + [100 % (size - s + 1) + s] * 2 for s in sides], (size, size)
    )
    boxes = boxes._replace(labels=np.arange(len(sides)))
    assert better_anchors(boxes, TrainingSetup(size, size, CONFIG)) == expected


def test_the_worst_class_decides_on_anchors() -> None:
    """A class of 22 px, half of whose boxes are of 3 px: half is the least that can be left."""
    small = [[100, 100, 122, 122], [40, 40, 43, 43]]
    boxes = boxes_at([*small, [0, 0, 100, 100]], (128, 128))._replace(labels=np.array([0, 0, 1]))
    assert better_anchors(boxes, TrainingSetup(128, 128, CONFIG)) == ((24, 48, 96, 192, 384), 0.5)


def test_of_many_boxes_some_are_tried() -> None:
    boxes = boxes_at([[k, k, k + 1, k + 1] for k in range(10)], (100, 100))
    assert boxes.some(10) is boxes
    assert boxes.some(4).corners[:, 0].tolist() == [0, 3, 6, 9]


@pytest.mark.parametrize(
    ("side", "text"),
    [
        (None, "no size gives most of them one: try other --anchor_sizes or --anchor_ratios"),
        (Side(96, 160, 0.3), "no size gives most of them one: try other"),
        (Side(96, 160, 0.98), "--min_side 96 --max_side 160 gives 98 % of them one"),
    ],
)
def test_advice_names_the_size_that_reaches_most_boxes(side: Side | None, text: str) -> None:
    assert advice(side).startswith(text)


# ---- a whole data set ----


def test_counts_of_boxes_and_images_by_class(tmp_path: Path) -> None:
    rows = "a.png,10,10,60,60,cat\na.png,20,20,23,23,cat\nb.png,,,,,\nc.png,5,5,9,9,cat\n"
    data = dataset(tmp_path, rows, a=(100, 100), b=(100, 100), c=(100, 100))
    facts = look_at(data, TrainingSetup(96, 96, CONFIG))
    assert (facts.images, facts.empty, facts.unreached) == (3, 1, 2)
    assert facts.reached.tolist() == [True, False, False]
    assert facts.lengths.tolist() == pytest.approx([48, 2.88, 3.84])
    cat, dog = facts.classes
    assert (cat.name, cat.boxes, cat.images, cat.unreached) == ("cat", 3, 2, 2)
    assert cat.missed.images.tolist() == [0, 2]
    assert (dog.name, dog.boxes, dog.images, dog.unreached) == ("dog", 0, 0, 0)


def many_boxes(folder: Path, small: int) -> CSVDataset:
    """Twenty cats of 40 px, the first of them of 12 px instead, and a large dog."""
    sides = [12 if k < small else 40 for k in range(20)]
    rows = "".join(
        f"a.png,{5 * k},{k},{5 * k + side},{k + side},cat\n" for k, side in enumerate(sides)
    )
    return dataset(folder, rows + "a.png,0,0,100,100,dog\n", a=(160, 160))


def test_digest_in_one_paragraph(tmp_path: Path) -> None:
    setup = TrainingSetup(160, 160, CONFIG)
    text = digest(many_boxes(tmp_path, small=1), setup)  # 5 % is not more than 5 %
    assert text == (
        "At 160 to 160 px the boxes are 12 to 100 px large, half of them below 40 (side of a square"
        " of the same area). No anchor reaches 1 of 21 (4.8 %): these never train."
    )


def test_digest_warns_of_many_boxes_without_an_anchor(tmp_path: Path) -> None:
    text = digest(many_boxes(tmp_path, 2), TrainingSetup(160, 160, CONFIG))
    first, warning, cat, anchors, last = text.split("\n")
    assert first.endswith("No anchor reaches 2 of 21 (9.5 %): these never train.")
    assert warning == "Warning: of these classes more than 5 % of the boxes have no anchor"
    assert cat.startswith("  cat: 2 of 20; --min_side ")
    assert cat.endswith(" gives 100 % of them one")
    assert anchors == (
        "--anchor_sizes 16 32 64 128 256 leaves at most 5 % of any class without one, at this size."
    )
    assert last == "python -m retinanet.tools.check_data shows them all."


def test_digest_warns_of_a_rare_class_without_anchors(tmp_path: Path) -> None:
    """Of all boxes 1 in 41 has none, 2.4 %; of the dogs every one."""
    rows = "".join(f"a.png,{3 * k},{k},{3 * k + 40},{k + 40},cat\n" for k in range(40))
    data = dataset(tmp_path, rows + "a.png,0,0,12,12,dog\n", a=(160, 160))
    first, warning, dog, *_ = digest(data, TrainingSetup(160, 160, CONFIG)).split("\n")
    assert first.endswith("No anchor reaches 1 of 41 (2.4 %): these never train.")
    assert warning == "Warning: of these classes more than 5 % of the boxes have no anchor"
    assert dog.startswith("  dog: 1 of 1; --min_side ")


def test_digest_where_all_is_well(tmp_path: Path) -> None:
    text = digest(many_boxes(tmp_path, small=0), TrainingSetup(160, 160, CONFIG))
    assert text.endswith("of the same area). Anchors reach all of them.")


def test_digest_proposes_tiles_of_large_pictures_with_small_boxes(tmp_path: Path) -> None:
    # Twenty boxes of 20 px in 1600 x 2400: 7.6 px at 608 px, and as they are in tiles of 608 px.
    rows = "".join(f"a.png,{70 * k},{70 * k},{70 * k + 20},{70 * k + 20},cat\n" for k in range(20))
    data = dataset(tmp_path, rows, a=(1600, 2400))
    line = (
        "Most boxes are under 16 px, the pictures over 2,000: --tile 608 trains on tiles of them."
    )
    assert line in digest(data, TrainingSetup(608, 1024, CONFIG)).split("\n")
    config = ModelConfig(2, anchor_sizes=(16, 32, 64, 128, 256))
    assert digest(data, TrainingSetup(608, 1024, config, tile=608)) == (
        "At 608 to 1024 px the boxes are 20 to 20 px large, half of them below 20 (side of a square"
        " of the same area). Anchors reach all of them."
    )
    # 16 px and more after resizing: 43 px of 1600.
    larger = dataset(tmp_path, "a.png,0,0,43,43,cat\n", a=(1600, 2400))
    assert "--tile" not in digest(larger, TrainingSetup(608, 1024, CONFIG))


def test_digest_without_boxes(tmp_path: Path) -> None:
    data = dataset(tmp_path, "a.png,,,,,\n", a=(20, 20))
    assert digest(data, TrainingSetup(32, 32, CONFIG)).startswith(
        "There are no boxes: the network will learn back"
    )
    assert look_at(data, TrainingSetup(32, 32, CONFIG)).empty == 1


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (0, 7, "0 %"),
        (1, 100_000, "under 0.1 %"),
        (1, 200, "0.5 %"),
        (1, 20, "5 %"),
        (1, 11, "9.1 %"),
        (5, 9, "56 %"),
        (9_999, 10_000, "over 99 %"),
        (7, 7, "100 %"),
    ],
)
def test_percent(part: int, whole: int, text: str) -> None:
    assert percent(part, whole) == text


# ---- files ----


def test_equal_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin = b"x" * duplicates.HEAD
    contents = {
        "a": begin + b"1", "b": begin + b"1", "c": begin + b"2",  # c differs at the end alone
        "d": b"short", "e": b"SHORT", "f": b"short", "g": b"alone by its size",
        "h": b"", "i": b"",
    }  # fmt: skip
    paths = []
    for name, content in contents.items():
        paths.append(tmp_path / name)
        paths[-1].write_bytes(content)
    opened = []
    read_head = duplicates._head
    monkeypatch.setattr(
        duplicates, "_head", lambda path: (opened.append(path.name), read_head(path))[1]
    )
    groups = [sorted(paths[k].name for k in group) for group in equal_files(paths)]
    assert sorted(groups) == [["a", "b"], ["d", "f"], ["h", "i"]]
    assert "g" not in opened
    assert equal_files([]) == []


@given(st.lists(st.sampled_from([b"", b"a", b"b", b"aa", b"ab"]), max_size=12))
def test_files_are_in_one_group_if_they_are_equal(
    tmp_path_factory: pytest.TempPathFactory, contents: list[bytes]
) -> None:
    folder = tmp_path_factory.mktemp("files")
    paths = [folder / str(k) for k in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    expected = {
        tuple(k for k, other in enumerate(contents) if other == content)
        for content in set(contents)
        if contents.count(content) > 1
    }
    assert {tuple(group) for group in equal_files(paths)} == expected
