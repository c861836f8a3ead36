"""Tiles of large pictures, to train on: every box is seen whole, and the whole picture too."""

import copy
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from retinanet.data.batches import SampleIndex
from retinanet.data.datasets import BoxRows, Data
from retinanet.data.transforms import Sample, random_stream
from retinanet.inference.tiles import Tiling, Window

KEPT = 0.5  # of its area: a box of which a tile shows less is none of the tile's

Cell = tuple[int, int]  # column, row
Pixels = NDArray[np.int64]  # [2] along x and y


class TrainingTiles(Dataset[Sample]):
    """Tiles of the pictures of a data set and a view of each whole picture, as in detection.

    A picture that is larger than a tile is divided into even cells, each at most as large as a tile
    without its overlap. In every epoch each cell that holds centres of boxes gives a tile, and so
    do as many others (at least one), which change from epoch to epoch. The place of a tile is
    random, but shows one of the cell's boxes whole, each in turn, then the cell, then its other
    boxes as far as they fit. So

    - a box that fits into a tile is whole in one in at least every n-th epoch, n the boxes of its
      cell;
    - where all boxes of a cell are smaller than the overlap by 2 pixels, all are in every epoch.

    Boxes end at the edge of their tile; one that shows less than `KEPT` of its area is left out.
    Everything is a function of seed, epoch and index. Each sample decodes its picture.

    Args:
        dataset: gives the pictures, and its transform is that of the views.
        tiling: side and overlap of the tiles.
        seed: of the places.
    """

    def __init__(self, dataset: Data, tiling: Tiling, seed: int) -> None:
        self._pictures = copy.copy(dataset)
        self._pictures.transform = None
        self.transform, self.seed = dataset.transform, seed
        self.side, self.step = tiling.side, tiling.side - tiling.shared
        counts = [self._count(picture) for picture in range(len(dataset))]
        self._firsts = np.cumsum([0, *counts])  # view of each picture, and the number of all

    def __len__(self) -> int:
        """Views of an epoch."""
        return int(self._firsts[-1])

    def __getitem__(self, index: int) -> Sample:
        view = range(len(self))[index]
        epoch = index.epoch if isinstance(index, SampleIndex) else 0
        picture, window = self.view(view, epoch)
        sample = self._pictures[picture]
        if "unreadable" in sample:
            return sample
        left, top, right, bottom = window
        tile: Sample = {
            "img": sample["img"][top:bottom, left:right],
            "annot": boxes_in(sample["annot"], window),
            "index": view,
            "epoch": epoch,
        }
        return self.transform(tile) if self.transform else tile

    def image_path(self, index: int) -> Path:
        """Path of the picture that a view is of."""
        return self._pictures.image_path(self._picture(index))

    def image_aspect_ratio(self, index: int) -> float:
        """Width / height of a view."""
        picture = self._picture(index)
        height, width = self._pictures.image_size(picture)
        if index == self._firsts[picture]:
            return width / height
        return min(width, self.side) / min(height, self.side)

    def view(self, index: int, epoch: int) -> tuple[int, Window]:
        """The picture that a view shows in an epoch, and which part of it: the first one all."""
        picture = self._picture(index)
        height, width = self._pictures.image_size(picture)
        number = index - int(self._firsts[picture])
        if number == 0:
            return picture, Window(0, 0, width, height)
        boxes = self._boxes_by_cell(picture)
        stream = random_stream("tile", self.seed, epoch, index)
        if number <= len(boxes):
            cell, rows = list(boxes.items())[number - 1]
            start = epoch % len(rows)
            rows = np.concatenate((rows[start:], rows[:start]))
        else:
            others = self._other_cells(picture, boxes)
            chosen = random_stream("background", self.seed, epoch, picture).permutation(len(others))
            cell, rows = others[chosen[number - 1 - len(boxes)]], np.zeros((0, 5))
        left, top = self._place(cell, rows, (width, height), stream)
        return picture, Window(
            left, top, min(left + self.side, width), min(top + self.side, height)
        )

    def _picture(self, index: int) -> int:
        """The picture that a view is of."""
        return int(np.searchsorted(self._firsts, index, side="right")) - 1

    def _count(self, picture: int) -> int:
        """Views of a picture, the same in every epoch."""
        if max(self._pictures.image_size(picture)) <= self.side:
            return 1
        boxes = self._boxes_by_cell(picture)
        others = len(self._other_cells(picture, boxes))
        return 1 + len(boxes) + min(others, max(len(boxes), 1))

    def _grid(self, picture: int) -> tuple[int, int]:
        """Columns and rows of cells."""
        height, width = self._pictures.image_size(picture)
        return self._cells(width), self._cells(height)

    def _cells(self, length: int) -> int:
        """Cells along a side."""
        return 1 if length <= self.side else -(-length // self.step)

    def _boxes_by_cell(self, picture: int) -> dict[Cell, BoxRows]:
        """Boxes of each cell that has some, by their centres, cells in order."""
        rows = self._pictures.load_annotations(picture)
        height, width = self._pictures.image_size(picture)
        counts = np.array(self._grid(picture))
        centres = (rows[:, :2] + rows[:, 2:4]) / 2
        # Of the cell whose edges, k * length // n and the next one's, are left and right of it.
        places = np.floor(centres).astype(int)
        cells = ((places + 1) * counts - 1) // np.array([width, height])
        cells = np.clip(cells, 0, counts - 1)
        found = sorted(set(map(tuple, cells.tolist())))
        return {(x, y): rows[(cells == (x, y)).all(axis=1)] for x, y in found}

    def _other_cells(self, picture: int, boxes: dict[Cell, BoxRows]) -> list[Cell]:
        columns, rows = self._grid(picture)
        return [(x, y) for y in range(rows) for x in range(columns) if (x, y) not in boxes]

    def _place(
        self, cell: Cell, rows: BoxRows, size: tuple[int, int], stream: np.random.Generator
    ) -> tuple[int, int]:
        """Left and top of a tile that shows the first box whole, then what else fits."""
        lengths = np.array(size)
        sides = np.minimum(self.side, lengths)
        counts = np.array([self._cells(length) for length in size])
        place = np.array(cell)
        edges = place * lengths // counts, (place + 1) * lengths // counts
        spans = _spans(rows, sides)
        spans.insert(1, edges)
        low, high = spans[0]
        for start, end in spans[1:]:
            first, last = np.minimum(low, start), np.maximum(high, end)
            if (last - first <= sides).all():
                low, high = first, last
        lowest, highest = np.maximum(high - sides, 0), np.minimum(low, lengths - sides)
        left, top = stream.integers(lowest, highest, endpoint=True).tolist()
        return left, top


def _spans(rows: BoxRows, sides: Pixels) -> list[tuple[Pixels, Pixels]]:
    """Whole pixels around each box: of x and y the first, and the end.

    A side that no tile holds is reduced to its middle.
    """
    low, high = np.floor(rows[:, :2]).astype(int), np.ceil(rows[:, 2:4]).astype(int)
    middle = (low + high) // 2
    fits = high - low <= sides
    return list(zip(np.where(fits, low, middle), np.where(fits, high, middle + 1), strict=True))


def boxes_in(boxes: Tensor, window: Window) -> Tensor:
    """Boxes of a picture in pixels of a window of it, cut off at its edges.

    Args:
        boxes: [M, 5] x1, y1, x2, y2, label.
        window: part of the picture.

    Returns:
        Those of which at least `KEPT` of the area lies inside.
    """
    low, high = torch.tensor(window[:2]), torch.tensor(window[2:])
    corners = torch.cat(
        (torch.maximum(boxes[:, :2], low) - low, torch.minimum(boxes[:, 2:4], high) - low), dim=1
    )
    shown = (corners[:, 2:] - corners[:, :2]).clamp(min=0).prod(dim=1)
    kept = shown >= KEPT * (boxes[:, 2:4] - boxes[:, :2]).prod(dim=1)
    return torch.cat((corners, boxes[:, 4:]), dim=1)[kept & (shown > 0)]
