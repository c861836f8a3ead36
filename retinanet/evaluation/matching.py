"""Matching of detections with annotations, image by image."""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from retinanet.boxes import pairwise_iou
from retinanet.evaluation.precision_recall import Flags, Floats
from retinanet.postprocess import Detections

Indices: TypeAlias = NDArray[np.int64]


class Matches(NamedTuple):
    """Detections and annotations of one image, and which of them match."""

    detections: Detections
    """Best first."""
    annotations: Floats
    """[M, 5] x1, y1, x2, y2, label."""
    found: Indices
    """[D] index of the annotation that each detection has found; -1: a false detection."""

    @property
    def missed(self) -> Flags:
        """[M] whether no detection has found the annotation."""
        missed = np.ones(len(self.annotations), dtype=bool)
        missed[self.found[self.found >= 0]] = False
        return missed

    def above(self, thresholds: Sequence[float]) -> "Matches":
        """Matches among the detections whose score is above the threshold of their class."""
        floors = np.array(thresholds)[self.detections.labels.numpy()]
        kept = self.detections.scores.numpy() > floors
        return Matches(self.detections.only(kept), self.annotations, self.found[kept])

    def at(self, threshold: float) -> "Matches":
        """Matches among the detections whose score is at least `threshold`."""
        best = slice(int((self.detections.scores >= threshold).sum()))
        return Matches(self.detections.only(best), self.annotations, self.found[best])


def best_detections(
    detections: Detections, score_threshold: float, max_detections: int | None
) -> Detections:
    """The detections above a score, at most `max_detections`, best first; equal ones keep order."""
    order = detections.scores.argsort(descending=True, stable=True)[:max_detections]
    order = order[detections.scores[order] > score_threshold]
    return detections.only(order)


def without_difficult(
    detections: Detections, annotations: Floats, difficult: Flags, iou_threshold: float
) -> tuple[Detections, Floats]:
    """Leave difficult annotations out, and every detection that belongs to one (VOC's rule).

    A detection belongs to the annotation of its class that it overlaps most, if enough.

    Args:
        detections: of one image.
        annotations: [M, 5] x1, y1, x2, y2, label.
        difficult: [M] which of them are.
        iou_threshold: least overlap.
    """
    if not difficult.any():
        return detections, annotations
    same_class = label_column(detections) == annotations[:, 4]
    iou = np.where(same_class, overlaps(detections, annotations), -1)
    counts = ~(difficult[iou.argmax(axis=1)] & (iou.max(axis=1) >= iou_threshold))
    return detections.only(counts), annotations[~difficult]


def match(
    detections: Detections, annotations: Floats, iou_threshold: float, crowds: Floats
) -> Matches:
    """Match detections of one image with its annotations: true and false positives.

    Each detection, the best first, goes to the annotation of its class that it overlaps most. It is
    true if it overlaps that one enough and no better detection has taken it. One that is false but
    lies on a crowd of its class is left out: it may well be right.

    Args:
        detections: of the image, best first.
        annotations: [M, 5] x1, y1, x2, y2, label.
        iou_threshold: least overlap.
        crowds: [C, 5] regions, as `annotations`.
    """
    same_class = label_column(detections) == annotations[:, 4]
    found = claimed(np.where(same_class, overlaps(detections, annotations), -1), iou_threshold)
    kept = (found >= 0) | ~_on_crowds(detections, crowds, iou_threshold)
    return Matches(detections.only(kept), annotations, found[kept])


def overlaps(detections: Detections, annotations: Floats) -> Floats:
    """[D, M] IoU of every detection with every annotation."""
    truth = torch.as_tensor(annotations[:, :4], dtype=torch.float64)
    iou: Floats = pairwise_iou(detections.boxes.double(), truth).numpy()
    return iou


def claimed(iou: Floats, iou_threshold: float) -> Indices:
    """Give each detection the annotation that it overlaps most, if enough and as the first one.

    Args:
        iou: [D, M], the best detection first; negative where the two may not belong together.
        iou_threshold: least overlap.

    Returns:
        [D] annotations; -1: none.
    """
    partners = np.full(len(iou), -1, dtype=np.int64)
    if iou.size:
        overlapping = np.flatnonzero(iou.max(axis=1) >= iou_threshold)
        wanted = iou.argmax(axis=1)[overlapping]
        _, first = np.unique(wanted, return_index=True)
        partners[overlapping[first]] = wanted[first]
    return partners


def label_column(detections: Detections) -> Indices:
    """[D, 1] labels of detections, to compare with those of annotations [M]."""
    labels: Indices = detections.labels.numpy()
    return labels[:, None]


def _on_crowds(detections: Detections, crowds: Floats, least_share: float) -> Flags:
    """[D] whether enough of a detection's own area lies on a crowd of its class (COCO's rule)."""
    boxes = detections.boxes.double().numpy()[:, None]  # [D, 1, 4]
    corners = np.minimum(boxes[..., 2:], crowds[:, 2:4]) - np.maximum(boxes[..., :2], crowds[:, :2])
    shared = corners.clip(min=0).prod(axis=2)  # [D, C]
    areas = (boxes[..., 2:] - boxes[..., :2]).prod(axis=2)  # [D, 1]
    same_class = label_column(detections) == crowds[:, 4]
    return np.asarray((same_class & (shared >= least_share * areas) & (areas > 0)).any(axis=1))
