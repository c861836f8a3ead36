"""Evaluation of detections on a data set, and the number by which the best epoch is chosen."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from retinanet.data.datasets import CocoDataset, Data
from retinanet.evaluation.coco import CocoScores, score_coco
from retinanet.evaluation.matching import Matches
from retinanet.evaluation.voc import VocScores, match_images, score_matches, voc_table
from retinanet.inference.prediction import SampleLoader, predict
from retinanet.model import RetinaNet
from retinanet.postprocess import DEFAULT_LIMITS, Detections
from retinanet.runtime.distributed import from_main


class Evaluation(NamedTuple):
    """Detections with their COCO scores, and on CSV data with their VOC scores."""

    detections: Sequence[Detections]
    """One an image, in the order of the data set, in pixels of the files."""
    coco: CocoScores
    voc: VocScores | None = None
    matches: Sequence[Matches] | None = None
    """Matches that the VOC scores were computed from; in the main process only."""

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

    def summary(self, precision: str) -> str:
        """Scores as lines of text: COCO's twelve, or for CSV data a table of the classes.

        Args:
            precision: of the convolutions, for the table.
        """
        if self.voc is None:
            return self.coco.summary
        stats = self.coco.stats
        numbers = f"COCO's AP {stats['AP']:.3f}, AP50 {stats['AP50']:.3f} ({precision})"
        return f"{voc_table(self.voc)}\n{numbers}"


class Evaluator:
    """Evaluation of a model on one data set, epoch after epoch; its loader processes stay.

    Under torchrun every process detects on a part of the images, and the main one scores.

    Args:
        dataset: images and ground truth.
        batch_size: most images at a time.
        workers: processes that load images; 0 loads them in this one.
        pin_memory: for copies to a GPU.
        autocast: float type of the convolutions; None is float32.
    """

    def __init__(
        self,
        dataset: Data,
        batch_size: int,
        *,
        workers: int,
        pin_memory: bool,
        autocast: torch.dtype | None,
    ) -> None:
        self.dataset, self.batch_size, self.autocast = dataset, batch_size, autocast
        self._samples = SampleLoader(dataset, workers=workers, pin_memory=pin_memory)

    def __call__(self, model: RetinaNet) -> Evaluation:
        """Detect, and compare with the annotations at the default thresholds."""
        detections = predict(
            model,
            self._samples,
            batch_size=self.batch_size,
            autocast=self.autocast,
            progress=True,
        )
        own: list[Evaluation] = []  # with the matches, which only the main process needs

        def scores() -> tuple[CocoScores, VocScores | None]:
            own.append(measure(self.dataset, detections))
            return own[0].coco, own[0].voc

        shared = from_main(scores)
        return own[0] if own else Evaluation(detections, *shared)


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
        return Evaluation(detections, coco)
    matches = match_images(dataset, detections, iou_threshold, score_threshold, max_detections)
    voc = score_matches(dataset, matches, iou_threshold, score_threshold)
    return Evaluation(detections, coco, voc, matches)
