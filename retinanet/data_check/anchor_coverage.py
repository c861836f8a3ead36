"""Coverage of boxes by anchors, and image or anchor sizes that would cover more of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from retinanet.anchors import PYRAMID_LEVELS, cell_anchors, cell_points, level_shapes
from retinanet.data.datasets import Data
from retinanet.data.images import padded_size, resized_size
from retinanet.losses import POSITIVE_IOU
from retinanet.model import ModelConfig

MANY = 0.05  # of a class's boxes without an anchor are worth a warning

# Other sizes to train at: up to four times as large, then down to half.
FACTORS = tuple(2 ** (step / 8) for step in (*range(1, 17), *range(-1, -9, -1)))

# Other anchor sizes to try: small changes before large ones, smaller anchors before larger.
ANCHOR_FACTORS = (3 / 4, 5 / 4, 5 / 8, 3 / 2, 1 / 2, 2, 3 / 8, 1 / 4)
NEARLY = 0.95  # of the boxes that the best other size reaches: good enough
SAMPLED = 500  # boxes of a class with which other sizes are tried
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class TrainingSetup:
    """The part of a training that decides which boxes anchors reach."""

    min_side: int
    """Shorter side of the images after resizing, pixels; `max_side` limits the longer one."""
    max_side: int
    config: ModelConfig
    """Of the network, with its anchors."""
    matching: str = "iou"
    """Rule that gives boxes their anchors, one of `model.MATCHINGS`."""
    tile: int | None = None
    """Side of the tiles that larger images are cut into, pixels; None: they are not cut."""


class Boxes(NamedTuple):
    """Boxes of many images, in pixels of the files."""

    corners: Floats
    """[M, 4] xyxy."""
    labels: Ints
    """[M]."""
    images: Ints
    """[M] index of the image."""
    sizes: Ints
    """[M, 2] height, width of the image."""

    def only(self, which: Any) -> "Boxes":
        """Those of a mask or of positions."""
        return Boxes(*(column[which] for column in self))

    def of_classes(self, count: int) -> list[Ints]:
        """The positions of each class's boxes, of `count` classes."""
        order = np.argsort(self.labels, kind="stable")
        ends = np.searchsorted(self.labels[order], np.arange(count), side="right")
        return np.split(order, ends)[:-1]

    def some(self, most: int) -> "Boxes":
        """All of them, or so many from all over."""
        count = len(self.labels)
        return self if count <= most else self.only(np.linspace(0, count - 1, most, dtype=int))


def all_boxes(dataset: Data, tile: int | None = None) -> Boxes:
    """Every box of a data set, image by image.

    Args:
        dataset: the images.
        tile: side of the tiles that larger images are cut into; each box then is in a tile of the
            nearest size, at about its place.
    """
    parts = [dataset.load_annotations(index) for index in range(len(dataset))]
    images = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    sizes = np.array([dataset.image_size(index) for index in range(len(dataset))], np.int64)
    values = np.concatenate(parts)
    corners = values[:, :4]
    if tile:
        centres = (corners[:, :2] + corners[:, 2:]) / 2
        corners = corners - np.tile(tile * np.floor(centres / tile), 2)
        sizes = sizes.clip(max=tile)
    return Boxes(corners, values[:, 4].astype(np.int64), images, sizes[images])


def resized(boxes: Boxes, min_side: int, max_side: int) -> tuple[Floats, Ints]:
    """Boxes as training sees them: [M, 4] pixels of the input, [M, 2] its height and width."""
    known, which = np.unique(boxes.sizes, axis=0, return_inverse=True)
    sizes = [resized_size(height, width, min_side, max_side)[0] for height, width in known.tolist()]
    ratios = np.array(sizes, float).reshape(-1, 2) / known
    inputs = np.array([padded_size(*size) for size in sizes], np.int64).reshape(-1, 2)
    which = which.reshape(-1)
    return boxes.corners * ratios[which][:, [1, 0, 1, 0]], inputs[which]


# ---- anchors ----


def best_ious(corners: Floats, inputs: Ints, config: ModelConfig) -> Floats:
    """IoU of each box with its best anchor, without making all anchors.

    The overlap with an anchor is that along x times that along y, and each is greatest at the point
    of the grid next to the middle of the box: of each shape only that one anchor matters.

    Args:
        corners: [M, 4] xyxy, pixels of the input.
        inputs: [M, 2] height, width of the network's input.
        config: of the anchors.

    Returns:
        [M] IoU, 0..1.
    """
    best = np.zeros(len(corners))
    x1, y1, x2, y2 = np.ascontiguousarray(corners.T)
    areas = (x2 - x1) * (y2 - y1)
    for level, size in zip(PYRAMID_LEVELS, config.anchor_sizes, strict=True):
        grid = config.anchor_grid
        anchors = cell_anchors(size, config.anchor_ratios, config.anchor_scales, grid).numpy()
        middle_x, middle_y = anchors[0].reshape(2, 2).mean(axis=0)  # of all anchors of a cell
        x = _nearest_points((x1 + x2) / 2 - middle_x, inputs[:, 1], level, grid)
        y = _nearest_points((y1 + y2) / 2 - middle_y, inputs[:, 0], level, grid)
        for left, top, right, bottom in anchors:
            width = np.minimum(x2, x + right) - np.maximum(x1, x + left)
            height = np.minimum(y2, y + bottom) - np.maximum(y1, y + top)
            common = width.clip(min=0) * height.clip(min=0)
            union = areas + (right - left) * (bottom - top) - common
            np.maximum(best, common / union, out=best)
    return best


def _nearest_points(places: Floats, lengths: Ints, level: int, grid: str) -> Floats:
    """[M] the point of a level's grid next to each place, in inputs of these lengths."""
    nearest = np.empty(len(places))
    for length in np.unique(lengths).tolist():  # few: multiples of 32
        cells = level_shapes(length, length)[PYRAMID_LEVELS.index(level)][0]
        points = cell_points(length, cells, level, grid).numpy()
        rows = np.flatnonzero(lengths == length)
        between = (points[1:] + points[:-1]) / 2
        nearest[rows] = points[np.searchsorted(between, places[rows])]
    return nearest


def reached(boxes: Boxes, setup: TrainingSetup) -> Bools:
    """[M] which boxes some anchor fits well enough to train on, by the thresholds of IoU."""
    corners, inputs = resized(boxes, setup.min_side, setup.max_side)
    return best_ious(corners, inputs, setup.config) >= POSITIVE_IOU


class Side(NamedTuple):
    """Another size to train at."""

    min_side: int
    max_side: int
    share: float
    """Of the boxes that no anchor reaches now: those that one would reach."""


def better_sides(groups: Sequence[Boxes], setup: TrainingSetup) -> list[Side | None]:
    """For each group of boxes, the size nearest to this one that reaches nearly all it can.

    Larger sizes are tried first, both sides growing alike.

    Args:
        groups: boxes that no anchor reaches now; of large groups some are tried.
        setup: as it is.

    Returns:
        None for a group of which no size between half and four times this one reaches any.
    """
    together, cuts = _some_together(groups)
    options: list[list[Side]] = [[] for _ in groups]
    for factor in FACTORS if len(together.labels) else ():
        small, large = (
            max(32, 32 * round(side * factor / 32)) for side in (setup.min_side, setup.max_side)
        )
        other = replace(setup, min_side=small, max_side=large)
        fits = np.split(reached(together, other), cuts)
        for sides, part in zip(options, fits, strict=True):
            sides.append(Side(small, large, float(part.mean()) if len(part) else 0.0))
    return [_nearest_good(sides) for sides in options]


def _nearest_good(sides: Sequence[Side]) -> Side | None:
    best = max((side.share for side in sides), default=0.0)
    return next((side for side in sides if best and side.share >= NEARLY * best), None)


class AnchorSizes(NamedTuple):
    """Other anchors to train with."""

    sizes: tuple[float, ...]
    worst: float
    """The greatest share of a class's boxes that none of them reaches."""


def better_anchors(boxes: Boxes, setup: TrainingSetup) -> AnchorSizes | None:
    """The anchor sizes nearest to the present ones that reach nearly all boxes of every class.

    All five sizes shrink or grow alike. Where no such sizes leave every class at most `MANY`
    unreached, those whose worst class fares best.

    Args:
        boxes: all of them; of large classes some are tried.
        setup: as it is, with the present anchors.

    Returns:
        None where every class is well off already, or the worst would be no better off.
    """
    config = setup.config
    classes = [boxes.only(own) for own in boxes.of_classes(config.num_classes) if len(own)]
    if not classes:
        return None
    together, cuts = _some_together(classes)

    def choice(factor: float) -> AnchorSizes:
        sizes = tuple(float(f"{size * factor:.4g}") for size in config.anchor_sizes)
        other = replace(setup, config=replace(config, anchor_sizes=sizes))
        fits = reached(together, other)
        return AnchorSizes(sizes, max(1 - float(part.mean()) for part in np.split(fits, cuts)))

    now = choice(1).worst
    if now <= MANY:
        return None
    best = min(map(choice, ANCHOR_FACTORS), key=lambda found: max(MANY, found.worst))
    return best if best.worst < now else None


def _some_together(groups: Sequence[Boxes]) -> tuple[Boxes, Ints]:
    """Boxes of each group, at most `SAMPLED`, in one row, and where it would be cut again."""
    some = [boxes.some(SAMPLED) for boxes in groups]
    ends = np.cumsum([len(boxes.labels) for boxes in some])
    return Boxes(*(np.concatenate(columns) for columns in zip(*some, strict=True))), ends[:-1]
