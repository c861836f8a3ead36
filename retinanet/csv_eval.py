"""Average precision in the manner of Pascal VOC, with precision and recall of every class.

Of a data set it knows the annotations and the names of the classes.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from retinanet.charts import precision_recall_chart
from retinanet.curves import ClassScores, Floats, class_scores
from retinanet.dataloader import CocoDataset, Data
from retinanet.files import write_whole
from retinanet.inference import predict
from retinanet.logger import say
from retinanet.matching import Matches, best_detections, match
from retinanet.postprocess import MAX_DETECTIONS, SCORE_THRESHOLD, Detections


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
    dataset: Data,
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
    images = match_images(dataset, detections, iou_threshold, score_threshold, max_detections)
    return score_matches(dataset, images, iou_threshold, score_threshold)


def score_matches(
    dataset: Data,
    images: Sequence[Matches],
    iou_threshold: float,
    score_threshold: float,
) -> CsvScores:
    """The scores of every class, of what `match_images` gave for the same thresholds."""
    hits = np.concatenate([image.found >= 0 for image in images])
    scores = np.concatenate([image.detections.scores.double().numpy() for image in images])
    labels = np.concatenate([image.detections.labels.numpy() for image in images])
    order = np.argsort(-scores, kind="stable")
    hits, scores, labels = hits[order], scores[order], labels[order]
    true_labels = np.concatenate([image.annotations[:, 4] for image in images])

    classes = []
    for label in range(dataset.num_classes()):
        mine = labels == label
        count = int((true_labels == label).sum())
        name = dataset.label_to_name(label)
        classes.append(class_scores(name, count, scores[mine], hits[mine]))
    return CsvScores(tuple(classes), iou_threshold, score_threshold)


def match_images(
    dataset: Data,
    detections: Sequence[Detections],
    iou_threshold: float,
    score_threshold: float,
    max_detections: int | None = None,
) -> list[Matches]:
    """Tell in each image which detection has found which annotation; arguments as `score_csv`."""
    return [
        match(
            best_detections(found, score_threshold, max_detections),
            dataset.load_annotations(index),
            iou_threshold,
            _crowds(dataset, index),
        )
        for index, found in zip(range(len(dataset)), detections, strict=True)
    ]


def _crowds(dataset: Data, index: int) -> Floats:
    """[C, 5] x1, y1, x2, y2, label of an image's crowds, which only COCO's files have."""
    if not isinstance(dataset, CocoDataset):
        return np.zeros((0, 5))
    entries = dataset.coco.imgToAnns.get(dataset.image_id(index), [])
    crowds = [
        (*entry["bbox"], dataset.coco_label_to_label(entry["category_id"]))
        for entry in entries
        if entry["iscrowd"]
    ]
    regions = np.array(crowds, float).reshape(-1, 5)
    regions[:, 2:4] += regions[:, :2]
    return regions


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
        lines.append(row_format.format(row.name, row.num_annotations, *map(three_digits, values)))
    total = sum(row.num_annotations for row in scores.annotated)
    lines.append(f"{'mAP':{width}} {total:>7} {three_digits(scores.mean_average_precision):>7}")
    if scores.absent:
        lines.append(f"without annotations: {', '.join(scores.absent)}")
    return "\n".join(lines)


def three_digits(value: float | None) -> str:
    """A number for a table, or a dash for what is not defined; -1 is COCO's sign for that."""
    return "-" if value is None or value < 0 else f"{value:.3f}"


def save_curves(scores: CsvScores, folder: Path) -> list[Path]:
    """Draw precision over recall, one PNG a class that has ground truth, and name the files."""
    paths = []
    for label, row in enumerate(scores.classes):
        if row.num_annotations:
            # A name may hold characters that a file's may not; the label keeps two of them apart.
            safe_name = re.sub(r"[^\w-]+", "_", row.name)
            paths.append(folder / f"{label}_{safe_name}_precision_recall.png")
            write_whole(paths[-1], precision_recall_chart([row], row.average_precision).png)
    return paths


def evaluate(
    generator: Data,
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
