"""The original's import path for evaluating CSV data; nothing in this package imports it."""

import re
from pathlib import Path

from torch import nn

from retinanet.data.datasets import Data
from retinanet.evaluation.voc import VocScores, score_voc, voc_table
from retinanet.inference.prediction import predict
from retinanet.postprocess import DEFAULT_LIMITS, DetectionLimits
from retinanet.report.charts import precision_recall_chart
from retinanet.runtime.console import say
from retinanet.runtime.files import write_whole


def save_curves(scores: VocScores, folder: Path) -> list[Path]:
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
    score_threshold: float = DEFAULT_LIMITS.score_threshold,
    max_detections: int | None = DEFAULT_LIMITS.max_detections,
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
    limits = DetectionLimits(score_threshold, max_detections=max_detections)
    detections = predict(retinanet, generator, limits, progress=True)
    scores = score_voc(generator, detections, iou_threshold, score_threshold, max_detections)
    say(voc_table(scores))
    if save_path is not None:
        save_curves(scores, Path(save_path))
    return {
        label: (row.average_precision, float(row.num_annotations))
        for label, row in enumerate(scores.classes)
    }
