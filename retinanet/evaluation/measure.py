"""Evaluation of detections on a data set, and the number by which the best epoch is chosen."""

from collections.abc import Sequence
from typing import NamedTuple

from retinanet.data.datasets import CocoDataset, Data
from retinanet.evaluation.coco import CocoScores, score_coco
from retinanet.evaluation.voc import VocScores, score_voc
from retinanet.postprocess import DEFAULT_LIMITS, Detections


class Evaluation(NamedTuple):
    """COCO scores of any data, and VOC scores of CSV data."""

    coco: CocoScores
    voc: VocScores | None

    @property
    def numbers(self) -> dict[str, float]:
        """COCO's twelve numbers; for CSV data also mAP, 0 where nothing is annotated."""
        if self.voc is None:
            return self.coco.stats
        return self.coco.stats | {"mAP": self.voc.mean_average_precision or 0.0}

    @property
    def score(self) -> float:
        """Score by which the best epoch is chosen: mAP for CSV data, AP for COCO data."""
        return self.numbers.get("mAP", self.numbers["AP"])


def measure(
    dataset: Data,
    detections: Sequence[Detections],
    *,
    iou_threshold: float = 0.5,
    score_threshold: float = DEFAULT_LIMITS.score_threshold,
    max_detections: int | None = DEFAULT_LIMITS.max_detections,
) -> Evaluation:
    """Compare detections with annotations.

    Args:
        dataset: the ground truth.
        detections: one an image, in the order of the data set, in pixels of the files.
        iou_threshold: overlap that counts as found, for the VOC-style measures.
        score_threshold: at which precision and recall are given.
        max_detections: most detections of an image that count; None for all.
    """
    coco = score_coco(dataset, detections)
    if isinstance(dataset, CocoDataset):
        return Evaluation(coco, None)
    return Evaluation(
        coco, score_voc(dataset, detections, iou_threshold, score_threshold, max_detections)
    )
