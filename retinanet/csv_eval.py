"""The original's import path for evaluating CSV data; nothing in this package imports it."""

from pathlib import Path

from torch import nn

from retinanet.data.datasets import Data
from retinanet.evaluation.voc import score_voc, voc_table
from retinanet.inference.prediction import predict
from retinanet.postprocess import DEFAULT_LIMITS, SCORE_THRESHOLD, DetectionLimits
from retinanet.report.charts import save_precision_recall
from retinanet.runtime.console import say


def evaluate(
    generator: Data,
    retinanet: nn.Module,
    iou_threshold: float = 0.5,
    score_threshold: float = SCORE_THRESHOLD,
    max_detections: int | None = DEFAULT_LIMITS.max_detections,
    save_path: str | Path | None = None,
) -> dict[int, tuple[float, float]]:
    """Detect, score and say the table: the original's name, arguments and result.

    Args:
        generator: the data set.
        retinanet: the model, bare or wrapped.
        iou_threshold: least overlap of a detection with the annotation it has found.
        score_threshold: scores at or below it are dropped.
        max_detections: maximum number of detections of an image; None: all.
        save_path: folder for the precision-recall curves; None draws none.

    Returns:
        By label: average precision and number of annotations.
    """
    limits = DetectionLimits(score_threshold, max_detections=max_detections)
    detections = predict(retinanet, generator, limits, progress=True)
    scores = score_voc(generator, detections, iou_threshold, score_threshold, max_detections)
    say(voc_table(scores))
    if save_path is not None:
        save_precision_recall(scores.classes, scores.intervals, Path(save_path))
    return {
        label: (row.average_precision, float(row.num_annotations))
        for label, row in enumerate(scores.classes)
    }
