"""ATSS against the paper's algorithm, written out plainly, and by hand."""

import math

import pytest
import torch
from torch import Tensor

from retinanet.anchors import image_anchors, level_shapes
from retinanet.atss import match_atss
from retinanet.losses import NEGATIVE, match_anchors
from retinanet.model import ModelConfig, RetinaNet
from tests.support.helpers import NoHostSync

SIZE = (128, 160)
CELLS = [h * w for h, w in level_shapes(*SIZE)]
ANCHORS = image_anchors(*SIZE)


def random_annotations(seed: int, images: int = 2, boxes: int = 12) -> Tensor:
    """Boxes of all sizes, two of the second image's rows padding."""
    made = torch.Generator().manual_seed(seed)
    corner = torch.rand(images, boxes, 2, generator=made) * 100
    sides = torch.rand(images, boxes, 2, generator=made) ** 2 * 90 + 3
    labels = torch.randint(0, 4, (images, boxes, 1), generator=made)
    found = torch.cat((corner, corner + sides, labels), dim=2)
    found[1, -2:] = -1
    return found


def plain_atss(box: list[float]) -> dict[int, float]:
    """Positions of the positive anchors of one box, and their IoU: algorithm 1, lines 3 to 14."""

    def iou(anchor: list[float]) -> float:
        width = min(anchor[2], box[2]) - max(anchor[0], box[0])
        height = min(anchor[3], box[3]) - max(anchor[1], box[1])
        shared = max(width, 0) * max(height, 0)
        areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (anchor, box)]
        return shared / (sum(areas) - shared)

    center = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    candidates: list[int] = []
    anchors, start = ANCHORS.tolist(), 0
    for cells in CELLS:
        distances = []
        for cell in range(cells):
            x1, y1, x2, y2 = anchors[start + 9 * cell]
            distances.append((math.dist(((x1 + x2) / 2, (y1 + y2) / 2), center), cell))
        for _, cell in sorted(distances)[:9]:
            candidates += range(start + 9 * cell, start + 9 * cell + 9)
        start += 9 * cells
    overlaps = [iou(anchors[k]) for k in candidates]
    mean = sum(overlaps) / len(overlaps)
    deviation = math.sqrt(sum((v - mean) ** 2 for v in overlaps) / (len(overlaps) - 1))
    positive = {}
    for k, overlap in zip(candidates, overlaps, strict=True):
        x, y = (anchors[k][0] + anchors[k][2]) / 2, (anchors[k][1] + anchors[k][3]) / 2
        if overlap >= mean + deviation and box[0] < x < box[2] and box[1] < y < box[3]:
            positive[k] = overlap
    return positive


@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_anchors_as_the_algorithm_written_plainly(seed: int) -> None:
    annotations = random_annotations(seed)
    labels, boxes = match_atss(ANCHORS, annotations, CELLS)
    for image, rows in enumerate(annotations.tolist()):
        expected: dict[int, tuple[float, int]] = {}
        for position, row in enumerate(rows):
            if row[4] >= 0:
                for anchor, overlap in plain_atss(row[:4]).items():
                    if overlap > expected.get(anchor, (-1.0, 0))[0]:
                        expected[anchor] = (overlap, position)
        found = (labels[image] != NEGATIVE).nonzero().flatten().tolist()
        assert sorted(found) == sorted(expected)
        for anchor, (_, position) in expected.items():
            assert labels[image, anchor] == rows[position][4]
            assert boxes[image, anchor].tolist() == annotations[image, position, :4].tolist()


def test_a_small_box_that_no_anchor_fits_gets_anchors() -> None:
    small = torch.tensor([[[50.0, 50, 58, 58, 2]]])  # 64 of 1024 pixels: IoU 0.06
    assert (match_anchors(ANCHORS, small)[0] >= 0).sum() == 0
    labels, boxes = match_atss(ANCHORS, small, CELLS)
    assert (labels == 2).sum() > 0
    assert boxes[labels == 2].unique(dim=0).tolist() == [[50, 50, 58, 58]]


def test_images_without_boxes_are_background() -> None:
    labels, _ = match_atss(ANCHORS, torch.full((2, 3, 5), -1.0), CELLS)
    assert (labels == NEGATIVE).all()


def test_the_model_learns_by_it_without_waiting_for_the_device() -> None:
    model = RetinaNet(ModelConfig(4, depth=18, channels=32, head_convs=1))
    annotations = random_annotations(2)
    images = torch.randn(2, 3, *SIZE)
    by_iou = model([images, annotations])
    model.matching = "atss"
    with NoHostSync():
        losses = model([images, annotations])
        sum(losses).sum().backward()  # type: ignore[union-attr]
    assert losses[0] != by_iou[0]


def test_memory_is_bounded_by_the_boxes() -> None:
    # A thousand boxes with all anchors of an image of 608 x 832 would be 76 million pairs.
    size = (608, 832)
    cells = [h * w for h, w in level_shapes(*size)]
    corner = torch.rand(1, 1000, 2, generator=torch.Generator().manual_seed(0)) * 500
    boxes = torch.cat((corner, corner + 30, torch.zeros(1, 1000, 1)), dim=2)
    with torch.profiler.profile(profile_memory=True) as profile:
        match_atss(image_anchors(*size), boxes, cells)
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert largest <= 4 * 1000 * 7904 * 1.1  # distances to the cells of P3: 76 x 104
