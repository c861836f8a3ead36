"""Positive anchors of each box, where each has a threshold of its own (`--matching atss`)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from retinanet.anchors import image_anchors, level_shapes
from retinanet.atss import match_atss
from retinanet.data_check.anchor_coverage import Boxes, Ints, TrainingSetup, resized


def count_positives(boxes: Boxes, setup: TrainingSetup) -> Ints:
    """Number of anchors that each box is trained on, after those of several went to one.

    Args:
        boxes: all boxes of each of their images, image by image.
        setup: sizes and anchors.

    Returns:
        [M].
    """
    config = setup.config
    corners, inputs = resized(boxes, setup.min_side, setup.max_side)
    counts = np.zeros(len(corners), np.int64)
    shape = config.anchor_sizes, config.anchor_ratios, config.anchor_scales, config.anchor_grid
    ends = np.flatnonzero(np.diff(boxes.images)) + 1
    for rows in np.split(np.arange(len(corners)), ends) if len(corners) else ():
        height, width = inputs[rows[0]].tolist()
        # Labelled by its own number each, boxes of one class are told apart.
        numbered = np.column_stack((corners[rows], np.arange(len(rows))))
        annotations = torch.from_numpy(numbered).float().unsqueeze(0)
        anchors = image_anchors(height, width, *shape)
        labels, _ = match_atss(anchors, annotations, level_shapes(height, width))
        counts[rows] = torch.bincount(labels[labels >= 0], minlength=len(rows)).numpy()
    return counts


def some_images(boxes: Boxes, classes: int, most: int) -> Boxes:
    """All boxes of at most so many images, some of every class: rare ones are there too."""
    if len(np.unique(boxes.images)) <= most:
        return boxes
    chosen = [np.unique(boxes.images[own]) for own in boxes.of_classes(classes)]
    each = max(1, most // classes)
    some = [
        images[np.linspace(0, len(images) - 1, min(each, len(images)), dtype=int)]
        for images in chosen
    ]
    return boxes.only(np.isin(boxes.images, np.concatenate(some)))


class ClassPositives(NamedTuple):
    """Positive anchors of the boxes of one class."""

    name: str
    boxes: int
    least: int
    median: float
    without: int
    """Number of boxes that have none."""


def class_positives(boxes: Boxes, counts: Ints, names: Sequence[str]) -> list[ClassPositives]:
    """Summary of `count_positives` for each class that has boxes, the fewest anchors first."""
    found = [
        ClassPositives(
            name,
            len(own),
            int(counts[own].min()),
            float(np.median(counts[own])),
            int(np.count_nonzero(counts[own] == 0)),
        )
        for name, own in zip(names, boxes.of_classes(len(names)), strict=True)
        if len(own)
    ]
    return sorted(found, key=lambda row: row.median)
