"""ATSS against the paper's algorithm, written out plainly, and by hand."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from retinanet.anchors import GRIDS, image_anchors, level_shapes
from retinanet.atss import match_atss
from retinanet.losses import NEGATIVE, match_anchors
from retinanet.model import ModelConfig, RetinaNet
from tests.support.helpers import NoHostSync

SIZE = (128, 160)
SHAPES = level_shapes(*SIZE)
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


def whole_pixels(seed: int) -> Tensor:
    """Boxes on whole pixels, of which many lie as near to one cell as to another; one is twice."""
    found = random_annotations(seed, boxes=6).round()
    found[0, 3] = found[0, 1]
    return found.double()


# ---- the paper's algorithm 1, a box and a cell at a time ----


def middle(box: list[float]) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def plain_iou(anchor: list[float], box: list[float]) -> float:
    width = min(anchor[2], box[2]) - max(anchor[0], box[0])
    height = min(anchor[3], box[3]) - max(anchor[1], box[1])
    shared = max(width, 0) * max(height, 0)
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (anchor, box)]
    return shared / (sum(areas) - shared)


def plain_candidates(anchors: list[list[float]], box: list[float]) -> list[int]:
    """Lines 3 to 6: on each level the anchors of the 9 cells next to the box's centre.

    Of cells as far as others those in the nearer row come first, then the upper, then the left.
    """
    x, y = middle(box)
    candidates: list[int] = []
    start = 0
    for rows, columns in SHAPES:
        distances = []
        for cell in range(rows * columns):
            cell_x, cell_y = middle(anchors[start + 9 * cell])
            down, across = (y - cell_y) ** 2, (x - cell_x) ** 2
            distances.append((down + across, down, cell // columns, across, cell))
        for *_, cell in sorted(distances)[:9]:
            candidates += range(start + 9 * cell, start + 9 * cell + 9)
        start += 9 * rows * columns
    return candidates


def plain_positives(anchors: list[list[float]], box: list[float]) -> dict[int, float]:
    """Lines 7 to 14: positions of the positive anchors of a box, and their IoU."""
    candidates = plain_candidates(anchors, box)
    overlaps = [plain_iou(anchors[k], box) for k in candidates]
    mean = sum(overlaps) / len(overlaps)
    deviation = math.sqrt(sum((v - mean) ** 2 for v in overlaps) / (len(overlaps) - 1))
    positive = {}
    for k, overlap in zip(candidates, overlaps, strict=True):
        x, y = middle(anchors[k])
        if overlap >= mean + deviation and box[0] < x < box[2] and box[1] < y < box[3]:
            positive[k] = overlap
    return positive


def plain_owners(anchors: list[list[float]], rows: list[list[float]]) -> dict[int, int]:
    """Position of the box of each positive anchor: that of several which it overlaps most."""
    owners: dict[int, tuple[float, int]] = {}
    for position, (*box, label) in enumerate(rows):
        for anchor, overlap in plain_positives(anchors, box).items() if label >= 0 else ():
            if overlap > owners.get(anchor, (-1.0, 0))[0]:
                owners[anchor] = (overlap, position)
    return {anchor: position for anchor, (_, position) in owners.items()}


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(
    "annotations",
    [random_annotations(0), random_annotations(1), whole_pixels(2), whole_pixels(3)],
    ids=["random 0", "random 1", "whole pixels 2", "whole pixels 3"],
)
def test_the_same_anchors_as_the_algorithm_written_plainly(annotations: Tensor, grid: str) -> None:
    anchors = image_anchors(*SIZE, grid=grid).to(annotations)
    labels, boxes = match_atss(anchors, annotations, SHAPES)
    for image, rows in enumerate(annotations.tolist()):
        owners = plain_owners(anchors.tolist(), rows)
        assert len(owners) > 20
        assert (labels[image] != NEGATIVE).nonzero().flatten().tolist() == sorted(owners)
        for anchor, position in owners.items():
            assert labels[image, anchor] == rows[position][4]
            assert boxes[image, anchor].tolist() == rows[position][:4]


# ---- by hand ----


def test_a_box_by_hand() -> None:
    """Anchors of one shape on cells of P3 alone, and a box of 24 px around the middle of one.

    Candidates are 3 x 3 squares of 16 px, 8 px apart. The one in the middle lies in the box whole:
    IoU 256 / 576 = 4/9. The four beside it share 12 of their 16 px: 192 / 640 = 0.3; those in the
    corners 12 x 12: 144 / 688 = 9/43. Mean (4/9 + 4 x 0.3 + 4 x 9/43) / 9 = 0.276, deviation 0.079:
    the middle is positive, 0.3 is below 0.355.
    """
    anchors = image_anchors(40, 40, sizes=(16.0,) * 5, ratios=(1.0,), scales=(1.0,))[:25]
    box = torch.tensor([[[8.0, 8, 32, 32, 1]]])  # the middle one is at 20, 20
    labels, boxes = match_atss(anchors, box, [(5, 5)])
    assert (labels[0] >= 0).nonzero().flatten().tolist() == [12]
    assert boxes[0, 12].tolist() == [8, 8, 32, 32]


def test_of_two_equal_boxes_the_first_has_all() -> None:
    twice = torch.tensor([[[20.0, 20, 60, 60, 3], [20, 20, 60, 60, 0]]])
    labels, _ = match_atss(ANCHORS, twice, SHAPES)
    once, _ = match_atss(ANCHORS, twice[:, :1], SHAPES)
    assert torch.equal(labels, once)
    assert (labels == 3).any()


def test_a_small_box_that_no_anchor_fits_gets_anchors() -> None:
    small = torch.tensor([[[50.0, 50, 58, 58, 2]]])  # 64 of 1024 pixels: IoU 0.06
    assert (match_anchors(ANCHORS, small)[0] >= 0).sum() == 0
    labels, boxes = match_atss(ANCHORS, small, SHAPES)
    assert (labels == 2).sum() > 0
    assert boxes[labels == 2].unique(dim=0).tolist() == [[50, 50, 58, 58]]


def test_a_box_between_the_centres_of_the_cells_gets_none() -> None:
    """Centres of P3's anchors are 4, 12, 20 ...: none lies between 45 and 51."""
    labels, _ = match_atss(ANCHORS, torch.tensor([[[45.0, 45, 51, 51, 2]]]), SHAPES)
    assert (labels == NEGATIVE).all()


def test_images_without_boxes_are_background() -> None:
    labels, _ = match_atss(ANCHORS, torch.full((2, 3, 5), -1.0), SHAPES)
    assert (labels == NEGATIVE).all()


# ---- properties ----


@pytest.mark.parametrize("seed", range(5))
def test_order_padding_and_neighbours_in_the_batch_change_nothing(seed: int) -> None:
    annotations = random_annotations(seed)
    labels, boxes = match_atss(ANCHORS, annotations, SHAPES)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(seed))
    shuffled = match_atss(ANCHORS, annotations[:, order], SHAPES)
    padded = torch.cat((annotations, torch.full((2, 3, 5), -1.0)), dim=1)
    alone = [match_atss(ANCHORS, rows[None], SHAPES) for rows in annotations]
    for found in (shuffled, match_atss(ANCHORS, padded, SHAPES), map(torch.cat, zip(*alone))):  # noqa: B905
        other_labels, other_boxes = found
        assert torch.equal(other_labels, labels)
        assert torch.equal(other_boxes[labels >= 0], boxes[labels >= 0])


def test_a_box_alone_that_holds_centres_gets_anchors() -> None:
    """Of 8 px or more, whatever its shape and its place: P3 has a centre every 8 px."""
    made = torch.Generator().manual_seed(0)
    sides = torch.rand(500, 1, 2, generator=made) ** 2 * 100 + 8.01
    corner = torch.rand(500, 1, 2, generator=made) * (torch.tensor([160, 128]) - sides)
    boxes = torch.cat((corner, corner + sides, torch.zeros(500, 1, 1)), dim=2)
    labels, _ = match_atss(ANCHORS, boxes, SHAPES)
    assert (labels >= 0).any(dim=1).all()


# ---- cost ----


class NoMatrixProduct(TorchDispatchMode):
    """Refuses products of matrices, which a GPU rounds to 10 bits with --precision tf32."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func.overloadpacket.__name__ not in ("mm", "bmm", "_cdist_forward"), func
        return func(*args, **(kwargs or {}))


def test_distances_are_exact() -> None:
    with NoMatrixProduct():
        match_atss(ANCHORS, random_annotations(0, boxes=40), SHAPES)


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


@pytest.mark.parametrize("size", [(608, 832), (2048, 2048)])
def test_memory_is_bounded_by_the_boxes(size: tuple[int, int]) -> None:
    """Of an image of 608 x 832 a thousand boxes with all cells of P3 would be 8 million pairs.

    Candidates are 81 on each of five levels; the largest tensors hold four numbers of each, or, in
    large images of few boxes, the result, five numbers an anchor.
    """
    corner = torch.rand(1, 1000, 2, generator=torch.Generator().manual_seed(0)) * 500
    boxes = torch.cat((corner, corner + 30, torch.zeros(1, 1000, 1)), dim=2)
    anchors = image_anchors(*size)
    with torch.profiler.profile(profile_memory=True) as profile:
        match_atss(anchors, boxes, level_shapes(*size))
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert largest <= max(1000 * 5 * 81 * 16, len(anchors) * 20)
