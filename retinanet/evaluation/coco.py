"""COCO's twelve numbers and the AP of every class, for COCO and CSV data alike.

All calls of pycocotools are in `_run`, `_evaluator` and `_index`.
"""

from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from retinanet.data.datasets import CocoDataset, Data
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


@dataclass(frozen=True)
class CocoScores:
    """COCO's twelve numbers, and the AP of every class."""

    stats: dict[str, float]
    """The twelve numbers by name (`STATS`); -1 where nothing is annotated, as in pycocotools."""
    per_class: dict[str, float]
    """AP by class name, of the classes that have ground truth."""
    absent: tuple[str, ...]
    """Names of the classes without ground truth."""

    @property
    def summary(self) -> str:
        """The twelve lines that pycocotools prints."""
        lines = []
        for name, (iou, area, limit) in _NUMBERS.items():
            kind = "Average Precision  (AP)" if name[1] == "P" else "Average Recall     (AR)"
            where = f"IoU={iou:<9} | area={area:>6} | maxDets={limit:>3}"
            lines.append(f" {kind} @[ {where} ] = {self.stats[name]:0.3f}")
        return "\n".join(lines)


def score_coco(dataset: Data, detections: Sequence[Detections]) -> CocoScores:
    """Compare detections with annotations, crowds included.

    Args:
        dataset: the ground truth.
        detections: one an image, in the order of the data set, in pixels of the files.

    Returns:
        The twelve numbers, and the AP of every class.
    """
    evaluation = _run(coco_ground_truth(dataset), coco_results(dataset, detections))
    # [IoU, recall, class], of boxes of any size and 100 of them an image
    precision = evaluation.eval["precision"][..., 0, -1]
    per_class = {}
    for label, name in enumerate(dataset.class_names):
        measured = precision[:, :, label]  # labels follow the categories' ids
        if (measured > -1).any():
            per_class[name] = float(measured[measured > -1].mean())
    return CocoScores(
        stats=dict(zip(STATS, map(float, evaluation.stats[:12]), strict=True)),
        per_class=per_class,
        absent=tuple(name for name in dataset.class_names if name not in per_class),
    )


def coco_ground_truth(dataset: Data) -> dict[str, Records]:
    """The annotations of a data set in COCO's format: those of its file, or made from CSV rows."""
    if isinstance(dataset, CocoDataset):
        content: dict[str, Records] = dataset.coco.dataset
        kept = set(dataset.image_ids)  # not those that could not be read
        return content | {
            "images": [image for image in content["images"] if image["id"] in kept],
            "annotations": [a for a in content["annotations"] if a["image_id"] in kept],
        }
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


def _run(truth: dict[str, Records], results: Records) -> Any:
    """Compare results with ground truth, without printing anything."""
    with redirect_stdout(StringIO()):
        evaluation = _evaluator()(
            _index(truth, truth["annotations"]), _index(truth, results), iouType="bbox"
        )
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def _evaluator() -> Callable[..., Any]:
    """Pycocotools' evaluation, or where it is installed faster-coco-eval's: the same, in C++."""
    try:
        from faster_coco_eval import COCOeval_faster
    except ImportError:
        return COCOeval
    return COCOeval_faster


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
        "categories": [{"id": number} for number in categories.values()],
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
    ids = sorted((entry["id"] for entry in entries), key=lambda id: (isinstance(id, str), id))
    return {id: place for place, id in enumerate(ids, start=1)}


def ap_table(scores: CocoScores) -> str:
    """AP of the classes that have ground truth, one a row, and the names of the others."""
    width = max(len(name) for name in ("class", *scores.per_class))
    lines = [f"{'class':{width}}     AP"]
    lines += [f"{name:{width}}  {value:.3f}" for name, value in scores.per_class.items()]
    if scores.absent:
        lines.append(f"without annotations: {', '.join(scores.absent)}")
    return "\n".join(lines)
