"""95 % intervals of average precision: a bootstrap over images of the matches of one evaluation.

Images are drawn with replacement; a detection counts as often as its image was drawn. Nothing is
matched anew, and the order of the detections stays, so that a resample is a sum with weights.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from retinanet.evaluation.matching import Indices
from retinanet.evaluation.precision_recall import Flags, Floats

RESAMPLES = 500
SEED = 0
RECALLS = np.linspace(0.0, 1.0, 101)  # at which COCO reads the precision
Area: TypeAlias = Callable[[Floats, Floats], Floats]


class Interval(NamedTuple):
    """The middle 95 % of the resampled values of a number."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:.3f}-{self.high:.3f}"


class ClassMatches(NamedTuple):
    """Detections of a class in all images, best first, matched at T thresholds of IoU."""

    images: Indices
    """[D] indices."""
    true: Flags
    """[T, D] true positives."""
    counted: Flags
    """[T, D] true or false positives; the others lie on crowds and count neither way."""
    annotations: Indices
    """[images] number to be found in each image."""


def resampling_weights(images: int) -> Indices:
    """[R, images] how often each image is drawn, the same for the same number; R = 0 below two."""
    resamples = RESAMPLES if images > 1 else 0
    draws = np.random.default_rng(SEED).integers(0, max(images, 1), (resamples, images))
    weights = np.zeros((resamples, images), dtype=np.int64)
    np.add.at(weights, (np.arange(resamples)[:, None], draws), 1)
    return weights


def resampled_ap(row: ClassMatches, weights: Indices, area: Area) -> Floats:
    """Average precision of a class in every resample.

    Args:
        row: its matches.
        weights: [R, images] how often each image counts.
        area: of the curves, `coco_area` or `voc_area`.

    Returns:
        [T, R]; NaN where no annotation was drawn.
    """
    result = np.zeros((len(row.true), len(weights)))
    annotations = weights @ row.annotations  # [R]
    times = weights[:, row.images]  # [R, D]
    all_count = bool(row.counted.all())
    seen = times.cumsum(axis=1)
    for ap, true, counted in zip(result, row.true, row.counted, strict=True):
        hits = np.flatnonzero(true)  # precision is highest at hits, so the others may be left out
        if not all_count:
            seen = (times * counted).cumsum(axis=1)
        found = times[:, hits].cumsum(axis=1)
        precisions = found / np.maximum(seen[:, hits], 1)
        best = np.maximum.accumulate(precisions[:, ::-1], axis=1)[:, ::-1]
        ap[:] = area(found / np.maximum(annotations, 1)[:, None], best)
    result[:, annotations == 0] = np.nan
    return result


def coco_area(recalls: Floats, precisions: Floats) -> Floats:
    """[R] mean precision at COCO's 101 recalls, of curves [R, D]."""
    passed = np.searchsorted(RECALLS, recalls, side="right")
    steps = np.diff(passed, axis=1, prepend=0)
    return np.asarray((steps * precisions).sum(axis=1) / len(RECALLS))


def voc_area(recalls: Floats, precisions: Floats) -> Floats:
    """[R] area under curves [R, D]."""
    return np.asarray((np.diff(recalls, axis=1, prepend=0) * precisions).sum(axis=1))


def mean_over_classes(values: Sequence[Floats]) -> Floats:
    """[R] mean over the classes of which a resample has annotations; NaN where it has none.

    Args:
        values: [R] of every class.
    """
    table = np.array(values)
    known = ~np.isnan(table)
    total = np.where(known, table, 0).sum(axis=0)
    return np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)


def class_interval(row: ClassMatches, values: Floats) -> Interval | None:
    """95 % interval of a class's resampled AP [R]; None where a single image has the class.

    Every resample that has such a class has it by the same image, so that nearly all are alike.
    """
    return interval(values) if np.count_nonzero(row.annotations) > 1 else None


def interval(values: Floats) -> Interval | None:
    """95 % interval of resampled values [R]; None without values, as of a single image."""
    known = values[~np.isnan(values)]
    if not len(known):
        return None
    low, high = np.percentile(known, (2.5, 97.5))
    return Interval(float(low), float(high))
