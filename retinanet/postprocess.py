"""From logits and deltas to the detections of a batch (paper, section 4, "Inference")."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from retinanet.boxes import LOG_RATIO_LIMITS, clip_boxes, decode_boxes

SCORE_THRESHOLD = 0.05  # the original's


@dataclass(frozen=True)
class DetectionLimits:
    """Thresholds and maximum numbers, from the network's outputs to the detections of an image."""

    score_threshold: float | tuple[float, ...] = SCORE_THRESHOLD
    """Scores at or below it are dropped: one for all classes, or one of each, by label."""
    nms_threshold: float = 0.5
    """IoU with a better box of its class above which a box is dropped."""
    candidates_per_level: int | None = 1000
    """Maximum number of pairs of anchor and class of a pyramid level; None: all are candidates."""
    max_detections: int | None = 100
    """Maximum number of detections of an image; None: all are kept."""
    class_agnostic_nms: bool = False
    """Suppression across classes: a box is dropped for a better one of any class."""


DEFAULT_LIMITS = DetectionLimits()


class Detections(NamedTuple):
    """Detections of one image, best first."""

    scores: Tensor
    """[D] probabilities."""
    labels: Tensor
    """[D] classes, int64."""
    boxes: Tensor
    """[D, 4] xyxy, pixels of the network's input, or of the file where a docstring says so."""

    def only(self, which: Any) -> "Detections":
        """Those of a mask, of positions or of a slice, in that order."""
        return Detections(*(column[which] for column in self))


def best_candidates(
    logits: Tensor,
    deltas: Tensor,
    anchors: Tensor,
    level_lengths: Sequence[int],
    limits: DetectionLimits = DEFAULT_LIMITS,
    log_ratio_limits: tuple[float, float] = LOG_RATIO_LIMITS,
) -> Tensor:
    """The best pairs of anchor and class of each level and image, with their boxes.

    The host waits for nothing, but where `limits` has no number of candidates: then once, for how
    many are above the threshold.

    Args:
        logits: [B, N, K].
        deltas: [B, N, 4] as `boxes.decode_boxes` takes them.
        anchors: [N, 4] xyxy.
        level_lengths: how many of the N belong to each pyramid level.
        limits: of them, the number of candidates, and without one the threshold.
        log_ratio_limits: as `boxes.decode_boxes` takes them.

    Returns:
        [B, C, 6] float32: logit, class and unclipped box xyxy; C at most a number for each level.
    """
    levels = torch.split(logits, list(level_lengths), dim=1)
    most = [limits.candidates_per_level] * len(levels)
    if limits.candidates_per_level is None:
        lowest = torch.tensor(limits.score_threshold).min().logit().item() - 1e-3  # rounding
        above = [(level > lowest).flatten(1).sum(dim=1).amax() for level in levels]
        most = torch.stack(above).tolist()
    found, start = [], 0
    for level, limit in zip(levels, most, strict=True):
        values, rows, classes = best_entries(level, cast(int, limit))
        rows = rows + start
        moves = deltas.gather(1, rows.unsqueeze(2).expand(-1, -1, 4))
        boxes = decode_boxes(anchors[rows].flatten(0, 1), moves.flatten(0, 1), log_ratio_limits)
        columns = (values.unsqueeze(2), classes.unsqueeze(2), boxes.view_as(moves))
        found.append(torch.cat([column.float() for column in columns], dim=2))
        start += level.shape[1]
    return torch.cat(found, dim=1)


def best_entries(logits: Tensor, limit: int) -> tuple[Tensor, Tensor, Tensor]:
    """The `limit` best (anchor, class) pairs of one level, or all where there are fewer.

    They lie in the `limit` rows with the best maximum, so that whole rows are ruled out before any
    pair is looked at.

    Args:
        logits: [B, N, K].
        limit: how many pairs of each image.

    Returns:
        Logits [B, C], anchors [B, C] and classes [B, C], the latter indices into `logits`.
    """
    _, N, K = logits.shape
    rows = logits.amax(dim=2).topk(min(limit, N), dim=1).indices  # [B, R]
    pairs = logits.gather(1, rows.unsqueeze(2).expand(-1, -1, K)).flatten(1)  # [B, R * K]
    values, best = pairs.topk(min(limit, pairs.shape[1]), dim=1)
    return values, rows.gather(1, best // K), best % K


def suppress(
    candidates: Tensor, size: tuple[int, int], limits: DetectionLimits = DEFAULT_LIMITS
) -> Detections:
    """Detections of an image: threshold, clip, non-maximum suppression within each class.

    Args:
        candidates: [C, 6] of `best_candidates`, on the CPU.
        size: (height, width) of the picture, to which boxes are clipped.
        limits: of them, all but the number of candidates.

    Returns:
        Detections in pixels of the network's input.
    """
    scores, label = candidates[:, 0].sigmoid(), candidates[:, 1].long()
    thresholds = torch.tensor(limits.score_threshold)
    above = scores > (thresholds[label] if thresholds.dim() else thresholds)
    scores, label = scores[above], label[above]
    boxes = clip_boxes(candidates[above, 2:], *size)
    group = torch.zeros_like(label) if limits.class_agnostic_nms else label
    keep = batched_nms(boxes, scores, group, limits.nms_threshold)[: limits.max_detections]
    return Detections(scores, label, boxes).only(keep)
