"""Average precision in the manner of Pascal VOC, with precision and recall of every class.

Of a data set it knows the annotations and the names of the classes.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from retinanet.boxes import pairwise_iou
from retinanet.dataloader import CocoDataset, CSVDataset
from retinanet.inference import predict
from retinanet.logger import say
from retinanet.postprocess import MAX_DETECTIONS, SCORE_THRESHOLD, Detections

Floats: TypeAlias = npt.NDArray[np.float64]
Flags: TypeAlias = npt.NDArray[np.bool_]


class OperatingPoint(NamedTuple):
    """What a class gets when only scores of at least `threshold` count."""

    threshold: float
    precision: float
    recall: float
    f1: float


class ClassScores(NamedTuple):
    """One class: its average precision and its curve, over detections with the best first."""

    name: str
    num_annotations: int
    average_precision: float
    """0 where nothing was found, or where there was nothing to find."""
    scores: Floats
    """[D], descending."""
    precisions: Floats
    """[D] of this detection and all better ones."""
    recalls: Floats
    """[D] of this detection and all better ones."""

    @property
    def precision(self) -> float | None:
        """Of all detections above the score threshold; None without detections."""
        return float(self.precisions[-1]) if len(self.precisions) else None

    @property
    def recall(self) -> float | None:
        """Of all detections above the score threshold; None without annotations."""
        if self.num_annotations == 0:
            return None
        return float(self.recalls[-1]) if len(self.recalls) else 0.0

    @property
    def best_f1(self) -> OperatingPoint | None:
        """Where 2PR / (P + R) is highest; None without detections or without annotations."""
        if self.num_annotations == 0 or len(self.scores) == 0:
            return None
        # No threshold parts equal scores: only the last of them is a point one can have.
        last = np.append(self.scores[1:] < self.scores[:-1], True)
        scores, P, R = self.scores[last], self.precisions[last], self.recalls[last]
        f1 = 2 * P * R / np.maximum(P + R, np.finfo(float).eps)
        best = int(f1.argmax())
        return OperatingPoint(float(scores[best]), float(P[best]), float(R[best]), float(f1[best]))


class CsvScores(NamedTuple):
    """Every class at one IoU threshold."""

    classes: tuple[ClassScores, ...]
    """By label."""
    iou_threshold: float
    score_threshold: float

    @property
    def annotated(self) -> tuple[ClassScores, ...]:
        """The classes that have ground truth: only these count in the mean."""
        return tuple(scores for scores in self.classes if scores.num_annotations)

    @property
    def absent(self) -> tuple[str, ...]:
        """Names of the classes without ground truth."""
        return tuple(scores.name for scores in self.classes if not scores.num_annotations)

    @property
    def mean_average_precision(self) -> float | None:
        """The mean over the classes that have ground truth; None without any."""
        values = [scores.average_precision for scores in self.annotated]
        return float(np.mean(values)) if values else None


def score_csv(
    dataset: CocoDataset | CSVDataset,
    detections: Sequence[Detections],
    iou_threshold: float = 0.5,
    score_threshold: float = SCORE_THRESHOLD,
    max_detections: int | None = MAX_DETECTIONS,
) -> CsvScores:
    """Compare detections with annotations, class by class.

    Args:
        dataset: the ground truth.
        detections: one an image, in the order of the data set, in pixels of the files.
        iou_threshold: least overlap of a detection with the annotation it has found.
        score_threshold: scores at or below it are dropped.
        max_detections: most detections of an image that count; None for all.

    Returns:
        The scores of every class.
    """
    kept = [best_detections(found, score_threshold, max_detections) for found in detections]
    annotations = [dataset.load_annotations(index) for index in range(len(dataset))]
    hits = np.concatenate(
        [match(found, boxes, iou_threshold) for found, boxes in zip(kept, annotations, strict=True)]
    )
    scores = np.concatenate([found.scores.double().numpy() for found in kept])
    labels = np.concatenate([found.labels.numpy() for found in kept])
    order = np.argsort(-scores, kind="stable")
    hits, scores, labels = hits[order], scores[order], labels[order]
    true_labels = np.concatenate([boxes[:, 4] for boxes in annotations])

    classes = []
    for label in range(dataset.num_classes()):
        mine = labels == label
        count = int((true_labels == label).sum())
        name = dataset.label_to_name(label)
        classes.append(class_scores(name, count, scores[mine], hits[mine]))
    return CsvScores(tuple(classes), iou_threshold, score_threshold)


def best_detections(
    detections: Detections, score_threshold: float, max_detections: int | None
) -> Detections:
    """The detections above a score, at most `max_detections`, best first; equal ones keep order."""
    order = detections.scores.argsort(descending=True, stable=True)[:max_detections]
    order = order[detections.scores[order] > score_threshold]
    return Detections(*(column[order] for column in detections))


def match(detections: Detections, annotations: Floats, iou_threshold: float) -> Flags:
    """Tell true positives of one image from false ones.

    Each detection, the best first, goes to the annotation of its class that it overlaps most. It is
    true if it overlaps that one enough and no better detection has taken it.

    Args:
        detections: of the image, best first.
        annotations: [M, 5] x1, y1, x2, y2, label.
        iou_threshold: least overlap.

    Returns:
        [D] true positives.
    """
    true = np.zeros(len(detections.scores), dtype=bool)
    if len(true) and len(annotations):
        truth = torch.as_tensor(annotations, dtype=torch.float64)
        overlap = pairwise_iou(detections.boxes.double(), truth[:, :4])
        overlap[detections.labels[:, None] != truth[:, 4]] = -1
        iou = overlap.numpy()  # [D, M]
        overlapping = np.flatnonzero(iou.max(axis=1) >= iou_threshold)
        taken = iou.argmax(axis=1)[overlapping]
        _, first = np.unique(taken, return_index=True)
        true[overlapping[first]] = True
    return true


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
    envelope = np.maximum.accumulate(precisions[::-1])[::-1]
    return float(np.sum(np.diff(recalls, prepend=0) * envelope))


def as_numbers(row: ClassScores) -> dict[str, Any]:
    """A class without its curves, fit for a JSON file."""
    return {
        "AP": row.average_precision,
        "annotations": row.num_annotations,
        "precision": row.precision,
        "recall": row.recall,
        "best_f1": row.best_f1._asdict() if row.best_f1 else None,
    }


def csv_table(scores: CsvScores) -> str:
    """The classes that have ground truth, one a row; their mean; the names of the others."""
    width = max(len(name) for name in ("class", *(row.name for row in scores.annotated)))
    row_format = f"{{:{width}}} {{:>7}} {{:>7}}  {{:>9}} {{:>6}}  {{:>7}} {{:>8}} {{:>9}} {{:>6}}"
    heads = ("class", "boxes", "AP", "precision", "recall")
    lines = [
        f"AP at IoU {scores.iou_threshold:g}; precision and recall at scores above"
        f" {scores.score_threshold:g}, then where F1 is best",
        row_format.format(*heads, "best F1", "at score", "precision", "recall"),
    ]
    for row in scores.annotated:
        threshold, precision, recall, f1 = row.best_f1 or (None,) * 4
        values = (
            row.average_precision,
            row.precision,
            row.recall,
            f1,
            threshold,
            precision,
            recall,
        )
        lines.append(row_format.format(row.name, row.num_annotations, *map(_number, values)))
    total = sum(row.num_annotations for row in scores.annotated)
    lines.append(f"{'mAP':{width}} {total:>7} {_number(scores.mean_average_precision):>7}")
    if scores.absent:
        lines.append(f"without annotations: {', '.join(scores.absent)}")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    """Three digits, or a dash for what is not defined."""
    return "-" if value is None else f"{value:.3f}"


def save_curves(scores: CsvScores, folder: Path) -> list[Path]:
    """Draw precision over recall, one PNG a class that has ground truth, and name the files."""
    from matplotlib.figure import Figure  # here, because it is slow to import

    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for label, row in enumerate(scores.classes):
        if not row.num_annotations:
            continue
        figure = Figure()
        axes = figure.add_subplot(
            title=f"{row.name}: AP {row.average_precision:.3f} at IoU {scores.iou_threshold:g}",
            xlabel="recall",
            ylabel="precision",
            xlim=(0, 1),
            ylim=(0, 1.02),
        )
        axes.plot(row.recalls, row.precisions, marker=".")  # a lone point has no line
        # A name may hold characters that a file's may not; the label keeps two such names apart.
        safe_name = re.sub(r"[^\w-]+", "_", row.name)
        paths.append(folder / f"{label}_{safe_name}_precision_recall.png")
        figure.savefig(paths[-1])
    return paths


def evaluate(
    generator: CocoDataset | CSVDataset,
    retinanet: nn.Module,
    iou_threshold: float = 0.5,
    score_threshold: float = SCORE_THRESHOLD,
    max_detections: int | None = MAX_DETECTIONS,
    save_path: str | Path | None = None,
) -> dict[int, tuple[float, float]]:
    """Detect, score and say the table: the original's name, arguments and result.

    Args:
        generator: the data set.
        retinanet: the model, bare or wrapped.
        iou_threshold: least overlap of a detection with the annotation it has found.
        score_threshold: scores at or below it are dropped.
        max_detections: most detections of an image; None for all.
        save_path: folder for the precision-recall curves; None draws none.

    Returns:
        By label: average precision and number of annotations.
    """
    detections = predict(
        retinanet,
        generator,
        progress=True,
        score_threshold=score_threshold,
        max_detections=max_detections,
    )
    scores = score_csv(generator, detections, iou_threshold, score_threshold, max_detections)
    say(csv_table(scores))
    if save_path is not None:
        save_curves(scores, Path(save_path))
    return {
        label: (row.average_precision, float(row.num_annotations))
        for label, row in enumerate(scores.classes)
    }
