"""Precision, recall and F1 of detections that are known to be true or false.

It knows nothing of boxes, images or files.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Flags: TypeAlias = npt.NDArray[np.bool_]


class OperatingPoint(NamedTuple):
    """Precision, recall and F1 of a class where only scores of at least `threshold` count."""

    threshold: float
    precision: float
    recall: float
    f1: float


class ClassScores(NamedTuple):
    """One class: its average precision and its curve, over detections with the best first."""

    name: str
    num_annotations: int
    average_precision: float
    """0 without true positives or without annotations."""
    scores: Floats
    """[D], descending."""
    precisions: Floats
    """[D] precision of this detection and all better ones."""
    recalls: Floats
    """[D] recall of this detection and all better ones."""

    @property
    def precision(self) -> float | None:
        """Precision of all detections above the score threshold; None without detections."""
        return float(self.precisions[-1]) if len(self.precisions) else None

    @property
    def recall(self) -> float | None:
        """Recall of all detections above the score threshold; None without annotations."""
        if self.num_annotations == 0:
            return None
        return float(self.recalls[-1]) if len(self.recalls) else 0.0

    @property
    def best_f1(self) -> OperatingPoint | None:
        """Point of the highest F1, 2PR / (P + R); None without detections or annotations."""
        if self.num_annotations == 0 or len(self.scores) == 0:
            return None
        thresholds = _thresholds([self])
        P, R = self.at(thresholds)
        f1 = _f1(P, R)
        best = int(f1.argmax())
        values = (float(column[best]) for column in (thresholds, P, R, f1))
        return OperatingPoint(*values)

    @property
    def best_threshold(self) -> float | None:
        """Threshold of the best F1 for detection, which keeps scores above it.

        It lies half-way between the last score that counts and the next one, or 0.
        """
        if self.best_f1 is None or self.best_f1.f1 == 0:
            return None
        lower = self.scores[self.scores < self.best_f1.threshold]
        return (self.best_f1.threshold + float(lower[0] if len(lower) else 0)) / 2

    def at(self, thresholds: Floats) -> tuple[Floats, Floats]:
        """Precision [T] and recall [T] when only scores of at least each threshold count."""
        counted = np.searchsorted(-self.scores, -thresholds, side="right")
        return np.append(0, self.precisions)[counted], np.append(0, self.recalls)[counted]

    def best_precision(self, recalls: Floats) -> Floats:
        """[R] best precision at each of these recalls or a higher one: AP is the area below it."""
        first = np.searchsorted(self.recalls, recalls - 1e-9)  # recalls are sums: they may be off
        return np.append(_envelope(self.precisions), 0)[first]


def class_scores(name: str, num_annotations: int, scores: Floats, hits: Flags) -> ClassScores:
    """The curve and the average precision of a class.

    Args:
        name: of the class.
        num_annotations: how many there are to find.
        scores: [D], descending.
        hits: [D], true positives among them.
    """
    true = np.cumsum(hits)
    precisions = true / np.arange(1, len(true) + 1)
    recalls = true / max(num_annotations, 1)
    ap = average_precision(recalls, precisions)
    return ClassScores(name, num_annotations, ap, scores, precisions, recalls)


def average_precision(recalls: Floats, precisions: Floats) -> float:
    """The area under the curve, at every recall the best precision of this or a higher recall.

    Args:
        recalls: [D], ascending.
        precisions: [D].
    """
    return float(np.sum(np.diff(recalls, prepend=0) * _envelope(precisions)))


def mean_f1(classes: Sequence[ClassScores], thresholds: Floats) -> Floats:
    """[T] F1 at each threshold, the mean over classes; at least one."""
    total = np.zeros(len(thresholds))
    for row in classes:  # one by one: thresholds may be millions
        total += _f1(*row.at(thresholds))
    return total / len(classes)


def best_mean_f1(classes: Sequence[ClassScores]) -> tuple[float, float] | None:
    """Threshold of the highest mean F1, and that F1; None where F1 is 0 at every threshold."""
    thresholds = _thresholds(classes)
    if not len(thresholds):
        return None
    f1 = mean_f1(classes, thresholds)
    best = int(f1.argmax())
    return (float(thresholds[best]), float(f1[best])) if f1[best] > 0 else None


def _thresholds(classes: Sequence[ClassScores]) -> Floats:
    """Distinct scores, descending; equal ones are never separated by a threshold."""
    return np.unique(np.concatenate([np.zeros(0), *(row.scores for row in classes)]))[::-1]


def _f1(precisions: Floats, recalls: Floats) -> Floats:
    total = np.maximum(precisions + recalls, np.finfo(float).eps)
    return np.asarray(2 * precisions * recalls / total)


def _envelope(precisions: Floats) -> Floats:
    """[D] best precision of this or a higher recall."""
    return np.maximum.accumulate(precisions[::-1])[::-1]
