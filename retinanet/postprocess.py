"""From logits and deltas to the detections of an image (paper, section 4, "Inference")."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from retinanet.boxes import LOG_RATIO_LIMITS, clip_boxes, decode_boxes

SCORE_THRESHOLD = 0.05  # the original's


@dataclass(frozen=True)
class DetectionLimits:
    """Thresholds and most numbers, from the network's outputs to the detections of an image."""

    score_threshold: float | tuple[float, ...] = SCORE_THRESHOLD
    """Scores at or below it are dropped: one for all classes, or one of each, by label."""
    nms_threshold: float = 0.5
    """IoU with a better box of its class above which a box is dropped."""
    candidates_per_level: int | None = 1000
    """Most pairs of anchor and class of a pyramid level before suppression; None for all."""
    max_detections: int | None = 100
    """Most detections of an image; None for all."""
    class_agnostic_nms: bool = False
    """Let a box be dropped for a better one of any class."""


DEFAULT_LIMITS = DetectionLimits()


class Detections(NamedTuple):
    """Detections of one image, best first."""

    scores: Tensor
    """[D] probabilities."""
    labels: Tensor
    """[D] classes, int64."""
    boxes: Tensor
    """[D, 4] xyxy, pixels of the network's input, or of the file where a docstring says so."""


def best_entries(logits: Tensor, threshold: float, limit: int | None) -> tuple[Tensor, Tensor]:
    """The (anchor, class) pairs of one level above a threshold, at most `limit` of them.

    The `limit` best pairs lie in the `limit` rows with the best maximum, so that whole rows are
    ruled out before any pair is looked at.

    Args:
        logits: [N, K].
        threshold: on the logits.
        limit: most pairs to return; None for all.

    Returns:
        anchors [D] and classes [D], indices into `logits`.
    """
    if limit is None:
        anchors, classes = (logits > threshold).nonzero(as_tuple=True)
        return anchors, classes
    N, K = logits.shape
    rows = logits.amax(dim=1).topk(min(limit, N)).indices
    values, pairs = logits[rows].flatten().topk(min(limit, len(rows) * K))
    pairs = pairs[values > threshold]
    return rows[pairs // K], pairs % K


def detect_image(
    logits: Tensor,
    deltas: Tensor,
    anchors: Tensor,
    level_lengths: Sequence[int],
    size: tuple[int, int],
    limits: DetectionLimits = DEFAULT_LIMITS,
    log_ratio_limits: tuple[float, float] = LOG_RATIO_LIMITS,
) -> Detections:
    """Detections of one image: threshold, decode, clip, non-maximum suppression within each class.

    Args:
        logits: [N, K].
        deltas: [N, 4] as `boxes.decode_boxes` takes them.
        anchors: [N, 4] xyxy.
        level_lengths: how many of the N belong to each pyramid level.
        size: (height, width) of the picture, to which boxes are clipped.
        limits: thresholds and most numbers.
        log_ratio_limits: as `boxes.decode_boxes` takes them.

    Returns:
        Detections in pixels of the network's input.
    """
    thresholds = limits.score_threshold
    lowest = min(thresholds) if isinstance(thresholds, tuple) else thresholds
    threshold = torch.logit(torch.tensor(lowest)).item()
    rows, classes, start = [], [], 0
    for level in torch.split(logits, list(level_lengths)):
        anchor, label = best_entries(level, threshold, limits.candidates_per_level)
        rows.append(anchor + start)
        classes.append(label)
        start += len(level)
    row, label = torch.cat(rows), torch.cat(classes)
    scores = logits[row, label].float().sigmoid()
    if isinstance(thresholds, tuple):
        above = scores > scores.new_tensor(thresholds)[label]
        row, label, scores = row[above], label[above], scores[above]
    boxes = clip_boxes(decode_boxes(anchors[row], deltas[row], log_ratio_limits), *size)
    group = torch.zeros_like(label) if limits.class_agnostic_nms else label
    keep = batched_nms(boxes, scores, group, limits.nms_threshold)[: limits.max_detections]
    return Detections(scores[keep], label[keep], boxes[keep])
