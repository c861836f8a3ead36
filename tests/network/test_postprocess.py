"""From logits and deltas to detections, against the plain way."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import nms

from retinanet.anchors import image_anchors, level_shapes
from retinanet.boxes import clip_boxes, decode_boxes
from retinanet.postprocess import DetectionLimits, best_candidates, best_entries, suppress

SIZE = (96, 64)
LENGTHS = [9 * rows * columns for rows, columns in level_shapes(*SIZE)]


def detect_image(logits, deltas, anchors, lengths, size, *limits):
    """Detections of one image, from its logits [N, K] and deltas [N, 4]."""
    (candidates,) = best_candidates(logits[None], deltas[None], anchors, lengths, *limits)
    return suppress(candidates, size, *limits)


def predictions(K=3, seed=0, bias=-4.0):
    """Logits [N, K], deltas [N, 4] and anchors [N, 4] of an image of `SIZE`."""
    generator = torch.Generator().manual_seed(seed)
    anchors = image_anchors(*SIZE)
    logits = torch.randn(len(anchors), K, generator=generator) * 1.5 + bias
    return logits, torch.randn(len(anchors), 4, generator=generator), anchors


# ---- the best pairs of a level ----


@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 60), st.integers(1, 3), st.integers(0))
def test_the_best_pairs_are_those_of_a_top_k_over_all(N, K, limit, B, seed) -> None:
    generator = torch.Generator().manual_seed(seed % 2**63)
    logits = torch.randperm(B * N * K, generator=generator).reshape(B, N, K) / (B * N * K)
    found, anchors, classes = best_entries(logits, limit)
    for image in range(B):
        values, places = logits[image].flatten().topk(min(limit, N * K))
        expected = [divmod(place, K) for place in places.tolist()]
        assert torch.equal(found[image], values)
        assert list(zip(anchors[image].tolist(), classes[image].tolist(), strict=True)) == expected


def test_without_a_limit_all_pairs_above_the_threshold() -> None:
    logits = torch.tensor([[[0.0, 2.0], [1.0, -1.0], [3.0, 1.5]], [[-9.0, 0], [-9, -9], [0, 0]]])
    limits = DetectionLimits(0.5, candidates_per_level=None, max_detections=None)
    anchors = torch.tensor([[0.0, 0, 8, 8], [20, 20, 28, 28], [40, 40, 48, 48]])
    candidates = best_candidates(logits, torch.zeros(2, 3, 4), anchors, [3], limits)
    found = [suppress(rows, (64, 64), limits) for rows in candidates]
    assert [one.labels.tolist() for one in found] == [[0, 1, 1, 0], []]  # 0 itself is not above


# ---- detections of an image ----


def plain_detections(logits, deltas, anchors, score_threshold, nms_threshold):
    """The definition: class by class, on scores, in one sorted list of (score, label, box)."""
    scores, boxes = logits.sigmoid(), clip_boxes(decode_boxes(anchors, deltas), *SIZE)
    found = []
    for label in range(logits.shape[1]):
        rows = (scores[:, label] > score_threshold).nonzero().flatten()
        kept = rows[nms(boxes[rows], scores[rows, label], nms_threshold)]
        found += [(scores[row, label].item(), label, boxes[row].tolist()) for row in kept]
    return sorted(found, reverse=True)


@pytest.mark.parametrize("limit", [None, 10**6])
@pytest.mark.parametrize(("score", "overlap"), [(0.05, 0.5), (0.3, 0.5), (0.05, 0.2), (0.5, 0.9)])
def test_equals_the_plain_way(score, overlap, limit) -> None:
    logits, deltas, anchors = predictions()
    found = detect_image(
        logits, deltas, anchors, LENGTHS, SIZE,
        DetectionLimits(score, overlap, candidates_per_level=limit, max_detections=None),
    )  # fmt: skip
    expected = plain_detections(logits, deltas, anchors, score, overlap)
    assert len(expected) > 10
    assert found.labels.tolist() == [label for _, label, _ in expected]
    torch.testing.assert_close(found.scores, torch.tensor([row[0] for row in expected]))
    torch.testing.assert_close(found.boxes, torch.tensor([row[2] for row in expected]))


def test_classes_do_not_suppress_each_other() -> None:
    anchors = torch.tensor([[0.0, 0, 32, 32]])
    found = detect_image(torch.tensor([[1.0, 2.0]]), torch.zeros(1, 4), anchors, [1], (32, 32))
    assert found.labels.tolist() == [1, 0]
    assert found.boxes.tolist() == [[0, 0, 32, 32]] * 2


def test_candidates_are_limited_on_each_level_before_suppression() -> None:
    # Two levels of three anchors, all apart; the two best of each level stay, the best first.
    corner = torch.tensor([[0.0], [10], [20], [30], [40], [50]])
    anchors = torch.cat((corner, corner, corner + 5, corner + 5), dim=1)
    logits = torch.tensor([[3.0], [2.0], [1.0], [0.1], [0.3], [0.2]])
    two = DetectionLimits(candidates_per_level=2)
    found = detect_image(logits, torch.zeros(6, 4), anchors, [3, 3], (64, 64), two)
    assert found.boxes[:, 0].tolist() == [0, 10, 40, 50]
    torch.testing.assert_close(found.scores, logits[[0, 1, 4, 5], 0].sigmoid())


def test_the_best_are_kept_and_stand_first() -> None:
    inputs = (*predictions(bias=0.0), LENGTHS, SIZE)
    every = detect_image(*inputs, DetectionLimits(max_detections=None))
    some = detect_image(*inputs, DetectionLimits(max_detections=7))
    assert len(every.scores) > len(detect_image(*inputs).scores) == 100  # the default
    assert (every.scores.diff() <= 0).all()
    for all_of_them, first in zip(every, some, strict=True):
        assert torch.equal(first, all_of_them[:7])


@pytest.mark.parametrize("limit", [None, 1000])
def test_a_score_at_the_threshold_is_dropped(limit) -> None:
    threshold = 0.5  # the sigmoid of exactly 0
    anchors = torch.tensor([[0.0, 0, 8, 8], [20, 20, 28, 28]])
    found = detect_image(
        torch.tensor([[0.0], [1e-3]]), torch.zeros(2, 4), anchors, [2], (32, 32),
        DetectionLimits(threshold, candidates_per_level=limit),
    )  # fmt: skip
    assert found.boxes.tolist() == [[20, 20, 28, 28]]


@pytest.mark.parametrize("limit", [None, 1000])
def test_nothing_above_the_threshold(limit) -> None:
    logits, deltas, anchors = predictions()
    found = detect_image(
        torch.full_like(logits, -math.inf), deltas, anchors, LENGTHS, SIZE,
        DetectionLimits(candidates_per_level=limit),
    )  # fmt: skip
    assert [tuple(part.shape) for part in found] == [(0,), (0,), (0, 4)]
    assert found.labels.dtype == torch.int64


def test_boxes_are_clipped_to_the_picture_and_float32() -> None:
    logits, deltas, anchors = predictions(bias=0.0)
    found = detect_image(logits.bfloat16(), deltas.bfloat16(), anchors, LENGTHS, (50, 40))
    assert found.scores.dtype == found.boxes.dtype == torch.float32
    assert found.boxes.min() == 0
    assert found.boxes.amax(dim=0).tolist() == [40, 50, 40, 50]


@pytest.mark.parametrize(("agnostic", "labels"), [(False, [1, 0, 0]), (True, [1, 0])])
def test_class_agnostic_suppression(agnostic: bool, labels: list[int]) -> None:
    """The first two boxes are one, of other classes; the third lies elsewhere."""
    anchors = torch.tensor([[0.0, 0, 8, 8], [0, 0, 8, 8], [20, 20, 28, 28]])
    logits = torch.tensor([[1.0, -9.0], [-9.0, 2.0], [0.5, -9.0]])
    limits = DetectionLimits(class_agnostic_nms=agnostic)
    found = detect_image(logits, torch.zeros(3, 4), anchors, [3], (32, 32), limits)
    assert found.labels.tolist() == labels


@pytest.mark.parametrize("limit", [None, 1000])
def test_each_class_may_have_a_threshold_of_its_own(limit) -> None:
    logits, deltas, anchors = predictions(bias=-1.0)
    one = DetectionLimits(0.3, candidates_per_level=limit, max_detections=None)
    every = detect_image(logits, deltas, anchors, LENGTHS, SIZE, one)
    own = DetectionLimits((0.3, 0.8, 0.5), candidates_per_level=limit, max_detections=None)
    found = detect_image(logits, deltas, anchors, LENGTHS, SIZE, own)
    kept = every.scores > torch.tensor([0.3, 0.8, 0.5])[every.labels]
    assert 0 < kept.sum() < len(kept)
    for column, expected in zip(found, every, strict=True):
        assert torch.equal(column, expected[kept])
