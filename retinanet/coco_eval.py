"""COCO's twelve numbers and the AP of every class, for COCO and CSV data alike.

Of a data set it knows the annotations and how they are numbered. All that is asked of pycocotools
is in `_run` and `_index`.
"""

from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any, TypeAlias

import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import nn

from retinanet.dataloader import CocoDataset, CSVDataset
from retinanet.inference import predict
from retinanet.logger import say
from retinanet.postprocess import (
    CANDIDATES_PER_LEVEL,
    MAX_DETECTIONS,
    NMS_THRESHOLD,
    SCORE_THRESHOLD,
    Detections,
)

Records: TypeAlias = list[dict[str, Any]]

# In the order in which pycocotools gives them. AP without a number is the mean over IoU 0.50:0.95;
# small is below 32 x 32 pixels, large above 96 x 96; AR10 is the recall of 10 detections an image.
STATS = (
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large"),
)


@dataclass(frozen=True)
class CocoScores:
    """What COCO's evaluation says."""

    stats: dict[str, float]
    """The twelve numbers by name (`STATS`); -1 where nothing is annotated, as in pycocotools."""
    per_class: dict[str, float]
    """AP by class name, of the classes that have ground truth."""
    absent: tuple[str, ...]
    """Names of the classes without ground truth."""
    summary: str
    """The twelve lines that everyone knows."""


def score_coco(dataset: CocoDataset | CSVDataset, detections: Sequence[Detections]) -> CocoScores:
    """Compare detections with annotations, crowds included.

    Args:
        dataset: the ground truth.
        detections: one an image, in the order of the data set, in pixels of the files.

    Returns:
        The twelve numbers, the AP of every class, and the summary as text.
    """
    image_ids = [dataset.image_id(index) for index in range(len(dataset))]
    results = coco_results(dataset, detections)
    evaluation, summary = _run(coco_ground_truth(dataset), results, image_ids)
    # [IoU, recall, class], of boxes of any size and 100 of them an image
    precision = evaluation.eval["precision"][..., 0, -1]
    per_class = {}
    for label, name in enumerate(dataset.class_names):
        column = evaluation.params.catIds.index(dataset.category_id(label))
        measured = precision[:, :, column]
        if (measured > -1).any():
            per_class[name] = float(measured[measured > -1].mean())
    return CocoScores(
        stats=dict(zip(STATS, map(float, evaluation.stats), strict=True)),
        per_class=per_class,
        absent=tuple(name for name in dataset.class_names if name not in per_class),
        summary=summary,
    )


def coco_results(dataset: CocoDataset | CSVDataset, detections: Sequence[Detections]) -> Records:
    """Detections in COCO's results format, in plain numbers, fit for a JSON file.

    Args:
        dataset: whose images were looked at; it numbers images and categories.
        detections: one an image, in the order of the data set, in pixels of the files.

    Returns:
        One record a detection: `image_id`, `category_id`, `bbox` (x, y, width, height), `score`.
    """
    results = []
    for index, found in enumerate(detections):
        image_id = dataset.image_id(index)
        columns = (column.tolist() for column in found)
        for score, label, (x1, y1, x2, y2) in zip(*columns, strict=True):
            results.append(
                {
                    "image_id": image_id,
                    "category_id": dataset.category_id(label),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "score": score,
                }
            )
    return results


def coco_ground_truth(dataset: CocoDataset | CSVDataset) -> dict[str, Records]:
    """The annotations of a data set in COCO's format: those of its file, or made from CSV rows."""
    if isinstance(dataset, CocoDataset):
        content: dict[str, Records] = dataset.coco.dataset
        return content
    images = [{"id": dataset.image_id(index)} for index in range(len(dataset))]
    categories = [
        {"id": dataset.category_id(label), "name": name}
        for label, name in enumerate(dataset.class_names)
    ]
    annotations = [
        {
            "image_id": image["id"],
            "category_id": dataset.category_id(int(label)),
            "bbox": [x1, y1, x2 - x1, y2 - y1],
        }
        for index, image in enumerate(images)
        for x1, y1, x2, y2, label in dataset.load_annotations(index).tolist()
    ]
    return {"images": images, "categories": categories, "annotations": annotations}


def _run(
    truth: dict[str, Records], results: Records, image_ids: Sequence[int]
) -> tuple[COCOeval, str]:
    """Let pycocotools compare results with ground truth; keep what it would print."""
    with redirect_stdout(StringIO()):
        evaluation = COCOeval(_index(truth, truth["annotations"]), _index(truth, results), "bbox")
        evaluation.params.imgIds = list(image_ids)
        evaluation.evaluate()
        evaluation.accumulate()
    with redirect_stdout(StringIO()) as printed:
        evaluation.summarize()
    return evaluation, printed.getvalue().rstrip("\n")


def _index(truth: dict[str, Records], records: Records) -> COCO:
    """Annotations or results, over the images and categories of the ground truth.

    Not through `COCO.loadRes`, which fails without results. Records are copied, for the evaluation
    marks them; numbered anew, for a file may count from 0, which pycocotools takes for no match;
    and completed, for many tools leave `area` and `iscrowd` out.
    """
    coco = COCO()
    coco.dataset = {
        "images": truth["images"],
        "categories": truth["categories"],
        "annotations": [
            {"iscrowd": 0, "area": record["bbox"][2] * record["bbox"][3], **record, "id": number}
            for number, record in enumerate(records, start=1)
        ],
    }
    coco.createIndex()
    return coco


def class_table(scores: CocoScores) -> str:
    """AP of the classes that have ground truth, one a row, and the names of the others."""
    width = max(len(name) for name in ("class", *scores.per_class))
    lines = [f"{'class':{width}}     AP"]
    lines += [f"{name:{width}}  {value:.3f}" for name, value in scores.per_class.items()]
    if scores.absent:
        lines.append(f"without annotations: {', '.join(scores.absent)}")
    return "\n".join(lines)


def evaluate_coco(
    dataset: CocoDataset | CSVDataset,
    model: nn.Module,
    threshold: float = SCORE_THRESHOLD,
    *,
    batch_size: int = 4,
    workers: int = 0,
    autocast: torch.dtype | None = None,
    progress: bool = True,
    nms_threshold: float = NMS_THRESHOLD,
    candidates_per_level: int | None = CANDIDATES_PER_LEVEL,
    max_detections: int | None = MAX_DETECTIONS,
) -> CocoScores:
    """Detect, score and say the twelve numbers: the original's name and arguments.

    Args:
        dataset: the data set.
        model: the model, bare or wrapped.
        threshold: scores at or below it are dropped.
        batch_size: see `predict`, as for all that follow.
        workers: likewise.
        autocast: likewise.
        progress: likewise.
        nms_threshold: likewise.
        candidates_per_level: likewise.
        max_detections: likewise.

    Returns:
        The scores.
    """
    detections = predict(
        model,
        dataset,
        batch_size=batch_size,
        workers=workers,
        autocast=autocast,
        progress=progress,
        score_threshold=threshold,
        nms_threshold=nms_threshold,
        candidates_per_level=candidates_per_level,
        max_detections=max_detections,
    )
    scores = score_coco(dataset, detections)
    say(scores.summary)
    return scores
