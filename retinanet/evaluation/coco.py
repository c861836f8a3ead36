"""COCO's twelve numbers and the AP of every class, for COCO and CSV data alike.

All calls of pycocotools are in `_run`, `_twelve_numbers`, `_evaluator` and `_index`; what it knows
of each match is read in `_entries` and `_joined`.
"""

import gc
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from functools import cached_property
from io import StringIO
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from retinanet.data.datasets import Data
from retinanet.errors import counted
from retinanet.evaluation.intervals import (
    ClassMatches,
    Interval,
    class_interval,
    coco_area,
    interval,
    mean_over_classes,
    resampled_ap,
    resampling_weights,
)
from retinanet.evaluation.precision_recall import Floats
from retinanet.inference.results import Records, coco_results
from retinanet.postprocess import Detections

# The twelve numbers in the order in which pycocotools gives them: IoU, size of the objects, most
# detections of an image. AP without a number is the mean over IoU 0.50:0.95; small is below 32 x 32
# pixels, large above 96 x 96.
_NUMBERS = {
    "AP": ("0.50:0.95", "all", 100),
    "AP50": ("0.50", "all", 100),
    "AP75": ("0.75", "all", 100),
    "AP_small": ("0.50:0.95", "small", 100),
    "AP_medium": ("0.50:0.95", "medium", 100),
    "AP_large": ("0.50:0.95", "large", 100),
    "AR1": ("0.50:0.95", "all", 1),
    "AR10": ("0.50:0.95", "all", 10),
    "AR100": ("0.50:0.95", "all", 100),
    "AR_small": ("0.50:0.95", "small", 100),
    "AR_medium": ("0.50:0.95", "medium", 100),
    "AR_large": ("0.50:0.95", "large", 100),
}

STATS = tuple(_NUMBERS)
THRESHOLDS = 10  # of IoU: 0.50, 0.55 ... 0.95
ANY_AREA = (0, 1e10)  # pixels, as pycocotools bounds it


@dataclass(frozen=True)
class CocoScores:
    """COCO's twelve numbers, the AP of every class, and how sure they are."""

    stats: dict[str, float]
    """The twelve numbers by name (`STATS`); -1 where nothing is annotated, as in pycocotools."""
    per_class: dict[str, float]
    """AP by class name, of the classes that have ground truth."""
    absent: tuple[str, ...]
    """Names of the classes without ground truth."""
    num_images: int
    matches: dict[str, ClassMatches] = field(repr=False, compare=False)
    """By name, of the classes that have ground truth; objects of any size, IoU 0.50:0.95."""

    @cached_property
    def resamples(self) -> dict[str, Floats]:
        """[T, R] AP of every class at the T IoU thresholds in R resamples of the images."""
        weights = resampling_weights(self.num_images)
        return {name: resampled_ap(row, weights, coco_area) for name, row in self.matches.items()}

    @cached_property
    def intervals(self) -> dict[str, Interval]:
        """95 % intervals of AP and AP50; none without ground truth."""
        over_all = [values.mean(axis=0) for values in self.resamples.values()]
        at_half = [values[0] for values in self.resamples.values()]
        found = {"AP": interval(mean_over_classes(over_all))} if over_all else {}
        found |= {"AP50": interval(mean_over_classes(at_half))} if at_half else {}
        return {name: value for name, value in found.items() if value}

    @cached_property
    def class_intervals(self) -> dict[str, Interval]:
        """95 % intervals of the AP of the classes that several images have."""
        found = {
            name: class_interval(self.matches[name], values.mean(axis=0))
            for name, values in self.resamples.items()
        }
        return {name: value for name, value in found.items() if value}

    @property
    def certainty(self) -> str:
        """AP and AP50 with their 95 % intervals and the number of images, in one line."""
        parts = []
        for name in ("AP", "AP50"):
            found = self.intervals.get(name)
            interval = f" (95 %: {found.low:.3f} to {found.high:.3f})" if found else ""
            parts.append(f"{name} {self.stats[name]:.3f}{interval}")
        return f"{', '.join(parts)} of {counted(self.num_images, 'image')}"

    @property
    def summary(self) -> str:
        """The twelve lines that pycocotools prints."""
        lines = []
        for name, (iou, area, limit) in _NUMBERS.items():
            kind = "Average Precision  (AP)" if name[1] == "P" else "Average Recall     (AR)"
            where = f"IoU={iou:<9} | area={area:>6} | maxDets={limit:>3}"
            lines.append(f" {kind} @[ {where} ] = {self.stats[name]:0.3f}")
        return "\n".join(lines)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Pause the garbage collection, which 100,000 new entries would set off time after time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@_no_collection()
def score_coco(dataset: Data, detections: Sequence[Detections]) -> CocoScores:
    """Compare detections with annotations, crowds included.

    Args:
        dataset: the ground truth.
        detections: one an image, in the order of the data set, in pixels of the files.

    Returns:
        The twelve numbers, and the AP of every class.
    """
    truth = coco_ground_truth(dataset)
    evaluation = _run(truth, coco_results(dataset, detections))
    # [IoU, recall, class], of boxes of any size and 100 of them an image
    precision = evaluation.eval["precision"][..., 0, -1]
    numbers = _numbers(truth["categories"])
    per_class = {}
    for label, name in enumerate(dataset.class_names):
        measured = precision[:, :, numbers[dataset.category_id(label)] - 1]
        if (measured > -1).any():
            per_class[name] = float(measured[measured > -1].mean())
    return CocoScores(
        stats=_twelve_numbers(evaluation),
        per_class=per_class,
        absent=tuple(name for name in dataset.class_names if name not in per_class),
        num_images=len(dataset),
        matches=_class_matches(evaluation, dataset, numbers, per_class),
    )


def _class_matches(
    evaluation: Any, dataset: Data, numbers: Mapping[int | str, int], names: Container[str]
) -> dict[str, ClassMatches]:
    """The evaluation's matches of objects of any size, class by class.

    Args:
        evaluation: of pycocotools or hotcoco.
        dataset: the ground truth.
        numbers: of the categories in the evaluation, by id: their order is that of the ids, not
            that of the labels where classes are another file's, found by name.
        names: of the classes wanted.
    """
    order = sorted(range(len(dataset)), key=lambda index: _id_key(dataset.image_id(index)))
    by_number: dict[int, list[Mapping[str, Any]]] = {}
    for entry in _entries(evaluation):
        by_number.setdefault(int(entry["category_id"]), []).append(entry)
    return {
        name: _joined(by_number[numbers[dataset.category_id(label)]], order)
        for label, name in enumerate(dataset.class_names)
        if name in names
    }


def _entries(evaluation: Any) -> list[Mapping[str, Any]]:
    """The matches of objects of any size, a class of an image each."""
    if not isinstance(evaluation, COCOeval):  # hotcoco, to which matching is nothing, but which
        params = evaluation.params  # copies all matches that it has
        params.areaRng, params.areaRngLbl = [list(ANY_AREA)], ["all"]
        evaluation.params = params
        evaluation.evaluate()
    found = filter(None, evaluation.evalImgs)
    return [entry for entry in found if tuple(entry["aRng"]) == ANY_AREA]


def _joined(entries: Sequence[Mapping[str, Any]], order: Sequence[int]) -> ClassMatches:
    """The matches of a class on all images, as one table.

    Args:
        entries: of pycocotools, an image each; images are numbered from 1 in the order of their
            ids.
        order: index in the data set of each image, in that order.
    """
    entries = sorted(entries, key=lambda entry: int(entry["image_id"]))
    images = [order[int(entry["image_id"]) - 1] for entry in entries]
    annotations = np.zeros(len(order), dtype=np.int64)
    for image, entry in zip(images, entries, strict=True):
        annotations[image] = np.count_nonzero(~np.asarray(entry["gtIgnore"], dtype=bool))
    lengths = [len(entry["dtScores"]) for entry in entries]
    scores = np.concatenate([np.asarray(entry["dtScores"], dtype=float) for entry in entries])
    best_first = np.argsort(-scores, kind="stable")
    matched, ignored = (
        np.concatenate(
            [np.reshape(np.asarray(entry[key], dtype=bool), (THRESHOLDS, -1)) for entry in entries],
            axis=1,
        )[:, best_first]
        for key in ("dtMatches", "dtIgnore")
    )
    return ClassMatches(
        np.repeat(images, lengths)[best_first], matched & ~ignored, ~ignored, annotations
    )


def coco_ground_truth(dataset: Data) -> dict[str, Records]:
    """The annotations of a data set in COCO's format, crowds included."""
    return {
        "images": [{"id": dataset.image_id(index)} for index in range(len(dataset))],
        "categories": [
            {"id": dataset.category_id(label), "name": name}
            for label, name in enumerate(dataset.class_names)
        ],
        "annotations": [
            {
                "image_id": dataset.image_id(index),
                "category_id": dataset.category_id(label),
                "bbox": box,
                "area": area,
                "iscrowd": int(crowd),
            }
            for index, label, box, area, crowd in zip(*dataset.objects().columns(), strict=True)
        ],
    }


def _run(truth: dict[str, Records], results: Records) -> Any:
    """Compare results with ground truth, without printing anything."""
    with redirect_stdout(StringIO()):
        evaluation = _evaluator(_index(truth, truth["annotations"]), _index(truth, results))
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def _twelve_numbers(evaluation: Any) -> dict[str, float]:
    """The twelve numbers by name, summed by pycocotools: another sum may end in another bit."""
    sums = COCOeval(iouType="bbox")
    sums.eval = dict(evaluation.eval)
    with redirect_stdout(StringIO()):
        sums.summarize()
    return dict(zip(STATS, map(float, sums.stats), strict=True))


def _evaluator(truth: COCO, results: COCO) -> Any:
    """Evaluation by pycocotools, or where it is installed by hotcoco: the same numbers, faster."""
    try:
        import hotcoco
    except ImportError:
        return COCOeval(truth, results, iouType="bbox")
    return hotcoco.COCOeval(hotcoco.COCO(truth.dataset), hotcoco.COCO(results.dataset), "bbox")


def _index(truth: dict[str, Records], records: Records) -> COCO:
    """Annotations or results, over the images and categories of the ground truth.

    Not through `COCO.loadRes`, which fails without results. Records are copied, for the evaluation
    marks them; numbered anew, for a file may count from 0, which pycocotools takes for no match;
    and completed, for many tools leave `area` and `iscrowd` out. Images and categories are numbered
    anew too, in the order of their ids: these may be texts, or larger than a float can tell apart.
    """
    images, categories = _numbers(truth["images"]), _numbers(truth["categories"])
    coco = COCO()
    coco.dataset = {
        "images": [{"id": number} for number in images.values()],
        "categories": [{"id": number, "name": str(number)} for number in categories.values()],
        "annotations": [
            {
                "iscrowd": 0,
                "area": record["bbox"][2] * record["bbox"][3],
                **record,
                "id": number,
                "image_id": images[record["image_id"]],
                "category_id": categories[record["category_id"]],
            }
            for number, record in enumerate(records, start=1)
        ],
    }
    coco.createIndex()
    return coco


def _numbers(entries: Records) -> dict[int | str, int]:
    """The ids of entries, ascending, and for each its place from 1."""
    ids = sorted((entry["id"] for entry in entries), key=_id_key)
    return {id: place for place, id in enumerate(ids, start=1)}


def _id_key(id: int | str) -> tuple[bool, int | str]:
    """Order of ids, numbers before texts."""
    return isinstance(id, str), id


def ap_table(scores: CocoScores) -> str:
    """AP of the classes that have ground truth, one a row, and the names of the others."""
    width = max(len(name) for name in ("class", *scores.per_class))
    lines = [f"{'class':{width}}     AP  95 % interval"]
    lines += [
        f"{name:{width}}  {value:.3f}  {scores.class_intervals.get(name, '-')}"
        for name, value in scores.per_class.items()
    ]
    if scores.absent:
        lines.append(f"without annotations: {', '.join(scores.absent)}")
    return "\n".join(lines)
