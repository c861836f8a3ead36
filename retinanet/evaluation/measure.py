"""Evaluation of detections on a data set, and the number by which the best epoch is chosen."""

import copy
import sys
from collections.abc import Container, Mapping, Sequence
from typing import NamedTuple

import torch

from retinanet.data.datasets import CocoDataset, Data
from retinanet.data.problems import MOST_SKIPPED
from retinanet.errors import DataError, counted
from retinanet.evaluation.coco import CocoScores, score_coco
from retinanet.evaluation.matching import Matches
from retinanet.evaluation.voc import VocScores, match_images, score_matches, voc_table
from retinanet.inference.prediction import SampleLoader, predict
from retinanet.inference.tiles import Tiling
from retinanet.model import RetinaNet
from retinanet.postprocess import SCORE_THRESHOLD, Detections
from retinanet.runtime.distributed import from_main, is_main_process
from retinanet.weights.checkpoint import DEFAULT_THRESHOLD


class Evaluation(NamedTuple):
    """Detections on a data set with their COCO scores, and VOC scores where it is not COCO's."""

    dataset: Data
    """The images that were read, and their ground truth."""
    detections: Sequence[Detections]
    """One an image, in the order of the data set, in pixels of the files."""
    coco: CocoScores
    curves: VocScores
    """Scores of every class at one threshold of IoU."""
    matches: Sequence[Matches] | None = None
    """Matches that the curves were computed from; in the main process only."""
    left_out: int = 0
    """Images that could not be read: they count neither way."""

    @property
    def voc(self) -> VocScores | None:
        """The curves as VOC scores; None for COCO data, which have COCO's numbers alone."""
        return None if isinstance(self.dataset, CocoDataset) else self.curves

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Score threshold of the best F1 of each class, by label; 0.5 where there is none."""
        return tuple(row.best_threshold or DEFAULT_THRESHOLD for row in self.curves.classes)

    @property
    def numbers(self) -> dict[str, float]:
        """COCO's twelve numbers; for CSV data also mAP, 0 where nothing is annotated.

        AP, AP50 and mAP have the ends of their 95 % intervals beside them: AP_low, AP_high ...
        """
        numbers = self.coco.stats
        intervals = dict(self.coco.intervals)
        if self.voc is not None:
            numbers = numbers | {"mAP": self.voc.mean_average_precision or 0.0}
            if self.voc.mean_interval:
                intervals["mAP"] = self.voc.mean_interval
        ends = {
            f"{name}_{end}": value
            for name, interval in intervals.items()
            for end, value in interval._asdict().items()
        }
        return numbers | ends

    @property
    def score(self) -> float:
        """Score by which the best epoch is chosen: mAP for CSV data, AP for COCO data."""
        return self.numbers.get("mAP", self.numbers["AP"])

    @property
    def note(self) -> str:
        """Line on the images that were left out, above the scores; empty where none was."""
        if not self.left_out:
            return ""
        total = self.left_out + len(self.dataset)
        return f"Without {self.left_out} of {counted(total, 'image')}, which could not be read:\n"

    def summary(self, precision: str) -> str:
        """Scores as lines of text: COCO's twelve, or for CSV data a table of the classes.

        Args:
            precision: of the convolutions, for the table.
        """
        if self.voc is None:
            return f"{self.note}{self.coco.summary}\n{self.coco.certainty}"
        return f"{self.note}{voc_table(self.voc)}\nCOCO's {self.coco.certainty} ({precision})"


class Evaluator:
    """Evaluation of a model on one data set, epoch after epoch; its loader processes stay.

    Under torchrun every process detects on a part of the images, and the main one scores. Images
    that cannot be read are left out and named once, if the data set skips such.

    Args:
        dataset: images and ground truth.
        batch_size: images at a time, at most.
        workers: processes that load images; 0 loads them in this one.
        pin_memory: for copies to a GPU.
        autocast: float type of the convolutions; None is float32.
        tiling: how images are cut into tiles, if they are; the data set then gives decoded samples.
    """

    def __init__(
        self,
        dataset: Data,
        batch_size: int,
        *,
        workers: int,
        pin_memory: bool,
        autocast: torch.dtype | None,
        tiling: Tiling | None = None,
    ) -> None:
        self.dataset, self.batch_size, self.autocast = dataset, batch_size, autocast
        self.tiling = tiling
        self._named: set[str] = set()
        self._samples = SampleLoader(dataset, workers=workers, pin_memory=pin_memory)

    def __call__(self, model: RetinaNet) -> Evaluation:
        """Detect, and compare with the annotations at the default thresholds.

        Raises:
            UnreadableImageError: an image cannot be read, and the data set does not skip such.
            DataError: as `name_unreadable`.
        """
        unreadable: dict[int, str] = {}
        detections = predict(
            model,
            self._samples,
            batch_size=self.batch_size,
            autocast=self.autocast,
            progress=True,
            tiling=self.tiling,
            unreadable=unreadable,
        )
        name_unreadable(unreadable, self._named)
        own: list[Evaluation] = []  # with the matches, which only the main process needs

        def scores() -> tuple[CocoScores, VocScores]:
            own.append(measure(self.dataset, detections, unreadable))
            return own[0].coco, own[0].curves

        shared = from_main(scores)
        return own[0] if own else Evaluation(self.dataset, detections, *shared)


def name_unreadable(unreadable: Mapping[int, str], named: set[str]) -> None:
    """Name the images that are left out of an evaluation, on stderr.

    Args:
        unreadable: the reasons, by index.
        named: those that were named before; takes in the others.

    Raises:
        DataError: more than `MOST_SKIPPED` images cannot be read.
    """
    for message in unreadable.values():
        if message not in named and is_main_process():
            sys.stderr.write(f"Left out of the evaluation: {message}\n")
    named.update(unreadable.values())
    if len(unreadable) > MOST_SKIPPED:
        raise DataError(
            f"{len(unreadable)} images cannot be read; expected at most {MOST_SKIPPED} to leave out"
            " of an evaluation; mend the data"
        )


def measure(
    dataset: Data,
    detections: Sequence[Detections],
    unreadable: Container[int] = (),
    *,
    iou_threshold: float = 0.5,
    score_threshold: float = SCORE_THRESHOLD,
) -> Evaluation:
    """Compare all detections with annotations; COCO's numbers look at the best 100 of an image.

    Args:
        dataset: the ground truth.
        detections: one an image, in the order of the data set, in pixels of the files.
        unreadable: images to leave out, by index.
        iou_threshold: overlap that counts as found, for the VOC-style measures.
        score_threshold: at which precision and recall are given.
    """
    kept = [index for index in range(len(dataset)) if index not in unreadable]
    left_out = len(dataset) - len(kept)
    if left_out:
        dataset, detections = copy.copy(dataset), [detections[index] for index in kept]
        dataset.keep(kept)
    coco = score_coco(dataset, detections)
    matches = match_images(dataset, detections, iou_threshold, score_threshold)
    curves = score_matches(dataset, matches, iou_threshold, score_threshold)
    return Evaluation(dataset, detections, coco, curves, matches, left_out)
