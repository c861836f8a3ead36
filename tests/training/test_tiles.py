"""Tiles to train on: which boxes they show, in which epochs, and that nothing else decides it."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import Compose

from retinanet.data.batches import SampleIndex, TrainingBatches
from retinanet.data.datasets import BoxRows, CSVDataset
from retinanet.data.shapes import SampleData
from retinanet.data.transforms import Augmenter, Normalizer, Resizer, Sample
from retinanet.inference.tiles import Tiling, Window
from retinanet.training.tiles import KEPT, TrainingTiles, boxes_in


class Pictures:
    """Pictures of noise with boxes, as a data set."""

    def __init__(self, sizes: list[tuple[int, int]], boxes: list[BoxRows]) -> None:
        self.sizes, self.boxes, self.transform = sizes, boxes, None

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng(index)
        pixels = rng.integers(0, 256, (*self.sizes[index], 3), dtype=np.uint8)
        annot = torch.from_numpy(self.boxes[index]).float()
        return {"img": torch.from_numpy(pixels), "annot": annot}

    def image_size(self, index: int) -> tuple[int, int]:
        return self.sizes[index]

    def image_path(self, index: int) -> Path:
        return Path(f"{index}.png")

    def load_annotations(self, index: int) -> BoxRows:
        return self.boxes[index]


def tiles(pictures: Any, side: int = 100, overlap: float = 0.2, seed: int = 0) -> TrainingTiles:
    return TrainingTiles(pictures, Tiling(side, overlap, lambda sample: sample), seed)


def scattered(rng: np.random.Generator, size: tuple[int, int], count: int, most: int) -> BoxRows:
    """[count, 5]: boxes of 1 to `most` pixels anywhere in a picture of a size (height, width)."""
    longest = np.minimum([size[1], size[0]], most)
    sides = rng.uniform(1, longest, (count, 2))
    corners = rng.uniform(0, 1, (count, 2)) * ([size[1], size[0]] - sides)
    return np.concatenate((corners, corners + sides, np.zeros((count, 1))), axis=1)


def shows(window: Window, box: BoxRows) -> bool:
    """Whether all of a box is in a window."""
    left, top, right, bottom = window
    return bool(left <= box[0] and top <= box[1] and box[2] <= right and box[3] <= bottom)


lengths = st.integers(1, 700)


@settings(max_examples=25)
@given(lengths, lengths, st.integers(8, 300), st.floats(0, 0.7), st.integers(0, 99))
def test_every_box_that_fits_is_whole_in_a_tile_again_and_again(
    height: int, width: int, side: int, overlap: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    boxes = scattered(rng, (height, width), 6, 2 * side)
    views = tiles(Pictures([(height, width)], [boxes]), side, overlap, seed)
    begin = int(rng.integers(0, 100))
    seen = np.zeros(len(boxes), bool)
    for epoch in range(begin, begin + len(boxes)):  # no cell has more boxes than there are
        windows = [views.view(index, epoch)[1] for index in range(len(views))]
        assert windows[0] == (0, 0, width, height)
        for left, top, right, bottom in windows[1:]:
            assert 0 <= min(left, top)
            assert (right <= width, bottom <= height) == (True, True)
            assert (right - left, bottom - top) == (min(side, width), min(side, height))
        seen |= [any(shows(window, box) for window in windows[1:]) for box in boxes]
    if len(views) > 1:
        fits = (np.ceil(boxes[:, 2:4]) - np.floor(boxes[:, :2]) <= side).all(axis=1)
        assert seen[fits].all()


@settings(max_examples=25)
@given(lengths, lengths, st.integers(20, 300), st.floats(0.2, 0.7), st.integers(0, 99))
def test_boxes_smaller_than_the_overlap_are_all_whole_in_every_epoch(
    height: int, width: int, side: int, overlap: float, seed: int
) -> None:
    shared = Tiling(side, overlap, lambda sample: sample).shared
    boxes = scattered(np.random.default_rng(seed), (height, width), 30, max(shared - 2, 1))
    views = tiles(Pictures([(height, width)], [boxes]), side, overlap, seed)
    for epoch in (0, 7):
        windows = [views.view(index, epoch)[1] for index in range(len(views))]
        assert all(any(shows(window, box) for window in windows) for box in boxes)


def test_half_of_the_tiles_are_background_and_change() -> None:
    # 1000 x 1000 in cells of at most 80 pixels: 13 x 13, of which the boxes are in three.
    boxes = np.array([[10.0, 10, 20, 20, 0], [500, 500, 520, 520, 1], [990, 990, 1000, 1000, 0]])
    views = tiles(Pictures([(1000, 1000)], [boxes]))
    assert len(views) == 1 + 3 + 3
    background = [{views.view(index, epoch)[1] for index in (4, 5, 6)} for epoch in range(20)]
    assert len(set.union(*background)) > 30
    assert len(tiles(Pictures([(1000, 1000)], [boxes[:0]]))) == 1 + 1


def test_small_pictures_are_not_cut() -> None:
    views = tiles(Pictures([(100, 100), (60, 80)], [np.zeros((0, 5))] * 2))
    assert [views.view(index, 3) for index in (0, 1)] == [
        (0, (0, 0, 100, 100)),
        (1, (0, 0, 80, 60)),
    ]
    assert len(views) == 2


def test_boxes_are_cut_at_the_edge_and_left_out_where_little_is_left() -> None:
    # A tile of 100 pixels at (50, 20); the boxes are 20 wide and 10 high.
    boxes = torch.tensor(
        [
            [60.0, 30, 80, 40, 1],  # inside
            [40, 30, 60, 40, 2],  # half of it
            [39, 30, 59, 40, 3],  # 9 of 20 pixels
            [140, 115, 160, 125, 4],  # a quarter
            [0, 0, 300, 300, 5],  # around the tile, which shows a ninth of it
        ]
    )
    assert KEPT == 0.5
    found = boxes_in(boxes, Window(50, 20, 150, 120))
    assert found.tolist() == [[10, 10, 30, 20, 1], [0, 10, 10, 20, 2]]


def test_samples_are_of_seed_epoch_and_index_alone() -> None:
    rng = np.random.default_rng(0)
    pictures = Pictures([(300, 200), (90, 250)], [scattered(rng, (90, 200), 8, 30)] * 2)
    views = tiles(pictures)
    again = pickle.loads(pickle.dumps(views))
    for index in range(len(views)):
        one, other = views[SampleIndex(index, 4)], again[SampleIndex(index, 4)]
        assert torch.equal(one["img"], other["img"])
        assert torch.equal(one["annot"], other["annot"])
        assert (one["index"], one["epoch"]) == (index, 4)
        picture, (left, top, right, bottom) = views.view(index, 4)
        assert torch.equal(one["img"], pictures[picture]["img"][top:bottom, left:right])
        assert views.image_aspect_ratio(index) == (right - left) / (bottom - top)
        assert views.image_path(index) == Path(f"{picture}.png")
    places = [[views.view(index, epoch) for index in range(len(views))] for epoch in (4, 5)]
    other_seed = tiles(pictures, seed=1)
    places.append([other_seed.view(index, 4) for index in range(len(views))])
    assert places[0] != places[1]
    assert places[0] != places[2]


def test_the_number_of_workers_changes_nothing(sample: SampleData) -> None:
    transform = Compose([Augmenter(0), Resizer(64, 96), Normalizer()])
    data = CSVDataset(sample.csv_train, sample.csv_classes, transform)
    views = tiles(data, 160)
    assert data.transform is transform
    alone, helped = (
        list(TrainingBatches(views, 2, seed=0, workers=n, pin_memory=False).of_epoch(3))
        for n in (0, 2)
    )
    assert len(alone) == -(-len(views) // 2) > 5
    for one, other in zip(alone, helped, strict=True):
        assert torch.equal(one["img"], other["img"])
        assert torch.equal(one["annot"], other["annot"])


def test_pictures_that_cannot_be_read_are_said() -> None:
    class Broken(Pictures):
        def __getitem__(self, index: int) -> Sample:
            return {"unreadable": "0.png: empty"}

    assert tiles(Broken([(300, 300)], [np.zeros((0, 5))]))[1] == {"unreadable": "0.png: empty"}


def test_an_index_beyond_the_end_is_an_error() -> None:
    with pytest.raises(IndexError):
        tiles(Pictures([(50, 50)], [np.zeros((0, 5))]))[1]
