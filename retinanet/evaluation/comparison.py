"""Difference of two models on the same images, and whether so many images can tell it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from retinanet.errors import counted
from retinanet.evaluation.coco import CocoScores
from retinanet.evaluation.intervals import (
    Interval,
    class_interval,
    interval,
    mean_over_classes,
)
from retinanet.evaluation.matching import Indices
from retinanet.evaluation.measure import Evaluation


class Difference(NamedTuple):
    """Second model less first, in one number."""

    name: str
    """AP, AP50, or the name of a class for its AP."""
    value: float
    interval: Interval | None
    """95 % interval by a paired bootstrap: both models get the same resamples of the images."""

    def verdict(self, images: int) -> str:
        """Verdict on the second model, in words."""
        if self.interval is None or self.interval.low <= 0 <= self.interval.high:
            return f"cannot be told with {counted(images, 'image')}"
        return "better" if self.value > 0 else "worse"


def differences(first: CocoScores, second: CocoScores) -> list[Difference]:
    """AP and AP50, then the AP of every class that has ground truth."""
    found = []
    for name, ious in (("AP", slice(None)), ("AP50", slice(0, 1))):
        a, b = (
            mean_over_classes([values[ious].mean(axis=0) for values in scores.resamples.values()])
            if scores.resamples
            else np.zeros(0)
            for scores in (first, second)
        )
        found.append(Difference(name, second.stats[name] - first.stats[name], interval(b - a)))
    for name, row in first.matches.items():
        a, b = (scores.resamples[name].mean(axis=0) for scores in (first, second))
        value = second.per_class[name] - first.per_class[name]
        found.append(Difference(name, value, class_interval(row, b - a)))
    return found


def mistakes(evaluation: Evaluation) -> Indices:
    """[images] missed annotations and false detections of each, at each class's best threshold."""
    assert evaluation.matches is not None  # in the main process
    counts = []
    for image in evaluation.matches:
        kept = image.above(evaluation.thresholds)
        counts.append(np.count_nonzero(kept.found < 0) + np.count_nonzero(kept.missed))
    return np.array(counts, dtype=np.int64)


def most_different(evaluations: Sequence[Evaluation], most: int) -> list[int]:
    """The images, at most so many, on which the numbers of the models' mistakes differ most."""
    gap = np.ptp([mistakes(evaluation) for evaluation in evaluations], axis=0)
    return [int(index) for index in np.argsort(-gap, kind="stable")[:most] if gap[index]]
