"""Summary of a data set: images, classes, sizes of boxes."""

from dataclasses import dataclass

import numpy as np

from retinanet.data.datasets import Data
from retinanet.data_check.anchor_coverage import (
    Bools,
    Boxes,
    Floats,
    Ints,
    TrainingSetup,
    all_boxes,
    best_ious,
    resized,
)
from retinanet.data_check.positives import count_positives
from retinanet.errors import printable
from retinanet.losses import POSITIVE_IOU
from retinanet.runtime.files import path_below


@dataclass(frozen=True)
class ClassFacts:
    """Summary of one class."""

    name: str
    boxes: int
    images: int
    missed: Boxes  # which no anchor is trained on

    @property
    def unreached(self) -> int:
        """Number of boxes that no anchor reaches."""
        return len(self.missed.labels)


@dataclass(frozen=True)
class Facts:
    """Summary of a data set."""

    images: int
    empty: int  # images without boxes
    boxes: Boxes
    shapes: Floats  # [M, 2] width, height of each box, pixels of the network's input
    reached: Bools  # [M] whether some anchor is trained on it
    classes: tuple[ClassFacts, ...]  # by label
    positives: Ints | None = None  # [M] number of these anchors; counted for atss alone

    @property
    def lengths(self) -> Floats:
        """[M] side of a square of each box's area, pixels of the network's input."""
        return np.sqrt(self.shapes.prod(axis=1))

    @property
    def unreached(self) -> int:
        """Number of boxes that no anchor reaches."""
        return sum(row.unreached for row in self.classes)


def look_at(dataset: Data, setup: TrainingSetup) -> Facts:
    """Count a data set's boxes and images, and find those that no anchor is trained on.

    Args:
        dataset: to look at.
        setup: sizes, anchors, their matching and tiles.
    """
    boxes = all_boxes(dataset, setup.tile)
    corners, inputs = resized(boxes, setup.min_side, setup.max_side)
    positives = None
    if setup.matching == "atss":
        positives = count_positives(boxes, setup)
        fits = positives > 0
    else:
        fits = best_ious(corners, inputs, setup.config) >= POSITIVE_IOU
    shapes = corners[:, 2:] - corners[:, :2]
    rows = boxes.of_classes(dataset.num_classes())
    return Facts(
        images=len(dataset),
        empty=len(dataset) - len(np.unique(boxes.images)),
        boxes=boxes,
        shapes=shapes,
        reached=fits,
        classes=tuple(
            ClassFacts(
                name, len(own), len(np.unique(boxes.images[own])), boxes.only(own[~fits[own]])
            )
            for name, own in zip(dataset.class_names, rows, strict=True)
        ),
        positives=positives,
    )


def size_bins(facts: Facts) -> list[tuple[float, float, int, int]]:
    """Bins of half an octave: both ends in pixels, all boxes, those that no anchor reaches."""
    lengths = facts.lengths.clip(min=1)
    if not len(lengths):
        return []
    octaves = 2 * np.log2(lengths)
    edges = 2 ** (np.arange(np.floor(octaves.min()), np.floor(octaves.max()) + 2) / 2)
    boxes = np.histogram(lengths, edges)[0]
    missed = np.histogram(lengths[~facts.reached], edges)[0]
    return list(
        zip(edges[:-1].tolist(), edges[1:].tolist(), boxes.tolist(), missed.tolist(), strict=True)
    )


def missed_images(dataset: Data, row: ClassFacts) -> dict[str, int]:
    """Number of boxes of a class that no anchor reaches in each image, the worst one first."""
    images, counts = np.unique(row.missed.images, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    paths = [dataset.image_path(index) for index in images[order].tolist()]
    names = [printable(path_below(path, dataset.images_root)) for path in paths]
    return dict(zip(names, counts[order].tolist(), strict=True))
