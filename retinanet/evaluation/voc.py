"""Average precision after Pascal VOC, with precision and recall of every class."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from retinanet.data.datasets import CocoDataset, Data, LabelledImages
from retinanet.evaluation.intervals import (
    ClassMatches,
    Interval,
    class_interval,
    interval,
    mean_over_classes,
    resampled_ap,
    resampling_weights,
    voc_area,
)
from retinanet.evaluation.matching import Matches, best_detections, match, without_difficult
from retinanet.evaluation.precision_recall import ClassScores, Floats, class_scores
from retinanet.postprocess import DEFAULT_LIMITS, SCORE_THRESHOLD, Detections


@dataclass(frozen=True)
class VocScores:
    """Scores of every class at one IoU threshold."""

    classes: tuple[ClassScores, ...]
    """By label."""
    iou_threshold: float
    score_threshold: float
    matches: tuple[ClassMatches, ...] = field(repr=False, compare=False)
    """By label."""

    @cached_property
    def resamples(self) -> tuple[Floats, ...]:
        """[1, R] AP of every class in R resamples of the images, by label."""
        num_images = len(self.matches[0].annotations) if self.matches else 0
        weights = resampling_weights(num_images)
        return tuple(resampled_ap(row, weights, voc_area) for row in self.matches)

    @cached_property
    def intervals(self) -> tuple[Interval | None, ...]:
        """95 % intervals of the AP of every class, by label; None unless several images have it."""
        pairs = zip(self.matches, self.resamples, strict=True)
        return tuple(class_interval(row, values[0]) for row, values in pairs)

    @cached_property
    def mean_interval(self) -> Interval | None:
        """95 % interval of the mean; None without annotations."""
        return interval(mean_over_classes([values[0] for values in self.resamples]))

    @property
    def annotated(self) -> tuple[ClassScores, ...]:
        """The classes that have ground truth: only these count in the mean."""
        return tuple(scores for scores in self.classes if scores.num_annotations)

    @property
    def annotated_intervals(self) -> list[tuple[ClassScores, Interval | None]]:
        """The classes that have ground truth, each with the interval of its AP."""
        pairs = zip(self.classes, self.intervals, strict=True)
        return [(scores, sure) for scores, sure in pairs if scores.num_annotations]

    @property
    def absent(self) -> tuple[str, ...]:
        """Names of the classes without ground truth."""
        return tuple(scores.name for scores in self.classes if not scores.num_annotations)

    @property
    def mean_average_precision(self) -> float | None:
        """The mean over the classes that have ground truth; None without any."""
        values = [scores.average_precision for scores in self.annotated]
        return float(np.mean(values)) if values else None


def score_voc(
    dataset: Data,
    detections: Sequence[Detections],
    iou_threshold: float = 0.5,
    score_threshold: float = SCORE_THRESHOLD,
    max_detections: int | None = DEFAULT_LIMITS.max_detections,
) -> VocScores:
    """Compare detections with annotations, class by class; difficult ones count neither way.

    Args:
        dataset: the ground truth.
        detections: one an image, in the order of the data set, in pixels of the files.
        iou_threshold: least overlap of a detection with the annotation it has found.
        score_threshold: scores at or below it are dropped.
        max_detections: maximum number of detections of an image that count; None: all.

    Returns:
        The scores of every class.
    """
    images = match_images(dataset, detections, iou_threshold, score_threshold, max_detections)
    return score_matches(dataset, images, iou_threshold, score_threshold)


def score_matches(
    dataset: Data,
    images: Sequence[Matches],
    iou_threshold: float,
    score_threshold: float,
) -> VocScores:
    """Scores of every class from the matches of `match_images` at the same thresholds."""
    hits = np.concatenate([image.found >= 0 for image in images])
    scores = np.concatenate([image.detections.scores.double().numpy() for image in images])
    labels = np.concatenate([image.detections.labels.numpy() for image in images])
    owners = np.repeat(np.arange(len(images)), [len(image.found) for image in images])
    order = np.argsort(-scores, kind="stable")
    hits, scores, labels, owners = hits[order], scores[order], labels[order], owners[order]
    true_labels = np.concatenate([image.annotations[:, 4] for image in images])
    true_owners = np.repeat(np.arange(len(images)), [len(image.annotations) for image in images])

    classes, matches = [], []
    for label in range(dataset.num_classes()):
        mine = labels == label
        annotations = np.bincount(true_owners[true_labels == label], minlength=len(images))
        name = dataset.label_to_name(label)
        classes.append(class_scores(name, int(annotations.sum()), scores[mine], hits[mine]))
        true = hits[mine][None]
        matches.append(ClassMatches(owners[mine], true, np.ones_like(true), annotations))
    return VocScores(tuple(classes), iou_threshold, score_threshold, tuple(matches))


def match_images(
    dataset: Data,
    detections: Sequence[Detections],
    iou_threshold: float,
    score_threshold: float,
    max_detections: int | None = None,
) -> list[Matches]:
    """Match detections with annotations in every image; arguments as `score_voc`."""
    matches = []
    for index, (found, crowds) in enumerate(zip(detections, _crowds(dataset), strict=True)):
        best = best_detections(found, score_threshold, max_detections)
        annotations = dataset.load_annotations(index)
        if isinstance(dataset, LabelledImages):
            difficult = dataset.load_difficult(index)
            best, annotations = without_difficult(best, annotations, difficult, iou_threshold)
        matches.append(match(best, annotations, iou_threshold, crowds))
    return matches


def _crowds(dataset: Data) -> list[Floats]:
    """[C, 5] x1, y1, x2, y2, label of each image's crowds, which only COCO's files have."""
    if not isinstance(dataset, CocoDataset):
        return [np.zeros((0, 5))] * len(dataset)
    found = dataset.objects()
    rows = np.flatnonzero(found.crowds)
    rows = rows[np.argsort(found.images[rows], kind="stable")]
    regions = np.column_stack((found.boxes[rows], found.labels[rows]))
    regions[:, 2:4] += regions[:, :2]
    ends = np.searchsorted(found.images[rows], np.arange(1, len(dataset)))
    return np.split(regions, ends)


def as_numbers(row: ClassScores, sure: Interval | None = None) -> dict[str, Any]:
    """Numbers of a class for a JSON file, without its curves."""
    return {
        "AP": row.average_precision,
        "AP_interval": sure,
        "annotations": row.num_annotations,
        "precision": row.precision,
        "recall": row.recall,
        "best_f1": row.best_f1._asdict() if row.best_f1 else None,
    }


def voc_table(scores: VocScores) -> str:
    """Table of the classes that have ground truth, their mean, and the names of the others."""
    width = max(len(name) for name in ("class", *(row.name for row in scores.annotated)))
    row_format = (
        f"{{:{width}}} {{:>7}} {{:>7}} {{:>13}}  {{:>9}} {{:>6}}  {{:>7}} {{:>8}} {{:>9}} {{:>6}}"
    )
    heads = ("class", "boxes", "AP", "95 % interval", "precision", "recall")
    lines = [
        f"AP at IoU {scores.iou_threshold:g}; precision and recall at scores above"
        f" {scores.score_threshold:g}, then where F1 is best",
        row_format.format(*heads, "best F1", "at score", "precision", "recall"),
    ]
    for row, sure in scores.annotated_intervals:
        threshold, precision, recall, f1 = row.best_f1 or (None,) * 4
        values = (row.precision, row.recall, f1, threshold, precision, recall)
        ap = three_digits(row.average_precision)
        lines.append(
            row_format.format(
                row.name, row.num_annotations, ap, str(sure or "-"), *map(three_digits, values)
            )
        )
    total = sum(row.num_annotations for row in scores.annotated)
    lines.append(
        f"{'mAP':{width}} {total:>7} {three_digits(scores.mean_average_precision):>7}"
        f" {scores.mean_interval or '-'!s:>13}"
    )
    if scores.absent:
        lines.append(f"without annotations: {', '.join(scores.absent)}")
    return "\n".join(lines)


def three_digits(value: float | None) -> str:
    """A number with three digits, or a dash where it is undefined (None, or COCO's -1)."""
    return "-" if value is None or value < 0 else f"{value:.3f}"
