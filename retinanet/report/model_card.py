"""The model card: a page of Markdown beside the final file, for who gets the model without the run.

It holds no date and no path but those of its flags: the same run writes the same card.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from retinanet.data.datasets import Data, checksum
from retinanet.errors import counted
from retinanet.evaluation.confusion import confusion_matrix, frequent_mistakes
from retinanet.evaluation.measure import Evaluation
from retinanet.evaluation.voc import three_digits
from retinanet.weights.checkpoint import Checkpoint

CARD_FILE = "model_card.md"
_BEGINNING = "<!-- retinanet -->\n"
_MISTAKES = 8
_LICENCE = (
    "The code that trained it is licensed under Apache-2.0. The licences of the images and of the"
    " initial weights apply to the weights too, as far as they say."
)


@dataclass(frozen=True)
class TrainedModel:
    """A finished training, as the card tells it."""

    checkpoint: Checkpoint
    evaluation: Evaluation | None
    train: Data
    command: str
    """The settings, as one command line."""
    started_from: str
    precision: str
    versions: Mapping[str, str]
    """By package."""


def model_card(model: TrainedModel) -> str:
    """The card of a trained model, Markdown."""
    checkpoint, evaluation = model.checkpoint, model.evaluation
    config = checkpoint.config
    names = ", ".join(_escaped(name) for name in checkpoint.names)
    parts = [
        f"{_BEGINNING}# RetinaNet of {counted(config.num_classes, 'class')}",
        f"Detects: {names}.",
        f"A {config.title} for images of {checkpoint.min_side} to"
        f" {checkpoint.max_side} px, trained up to epoch {checkpoint.epoch}. Boxes are x1, y1, x2,"
        " y2 in pixels of the image.",
        "## Use",
        "```bash\npython visualize.py model_final.pt --images photos\n```",
        checkpoint.threshold_note + ".",
        "## Training",
        _data("Trained on", model.train),
        _data("Measured on", evaluation.dataset) if evaluation else "Measured on nothing.",
        f"Started from: {_escaped(model.started_from)}. Precision: {model.precision}.",
        f"```bash\n{model.command}\n```",
        "## Accuracy",
        *(_accuracy(evaluation) if evaluation else ["It was not measured."]),
        "## Known failures",
        *(_failures(evaluation) if evaluation else ["They are not known: nothing was measured."]),
        "## Licence and versions",
        _LICENCE,
        ", ".join(f"{name} {version}" for name, version in model.versions.items()) + ".",
    ]
    return "\n\n".join(parts) + "\n"


def _data(title: str, dataset: Data) -> str:
    """Counts and checksum of a set, with the boxes of every class."""
    boxes = [0] * dataset.num_classes()
    for index in range(len(dataset)):
        for label in dataset.load_annotations(index)[:, 4]:
            boxes[int(label)] += 1
    counts = ", ".join(
        f"{_escaped(name)} {count:,}"
        for name, count in zip(dataset.class_names, boxes, strict=True)
    )
    images = counted(len(dataset), "image")
    return (
        f"{title}: {images}, {counted(sum(boxes), 'box')} ({counts}); checksum of names and boxes"
        f" {checksum(dataset):08x}."
    )


def _accuracy(evaluation: Evaluation) -> list[str]:
    """AP with intervals, of all classes and of each."""
    coco, curves = evaluation.coco, evaluation.curves
    mean = three_digits(curves.mean_average_precision)
    summary = (
        f"COCO {coco.certainty}. Mean AP at IoU {curves.iou_threshold:g}: {mean}"
        + (f" (95 %: {curves.mean_interval})" if curves.mean_interval else "")
        + ". Intervals are of a bootstrap over the images."
    )
    rows = ["| class | boxes | AP | 95 % | threshold | precision | recall |", "|---|" + "---:|" * 6]
    pairs = zip(curves.classes, curves.intervals, evaluation.thresholds, strict=True)
    for row, sure, threshold in pairs:
        if row.num_annotations:
            best = row.best_f1
            cells = (
                *(_escaped(row.name), f"{row.num_annotations:,}"),
                *(three_digits(row.average_precision), str(sure or "-"), f"{threshold:.3f}"),
                *(three_digits(best.precision if best else None),),
                *(three_digits(best.recall if best else None),),
            )
            rows.append(f"| {' | '.join(cells)} |")
    return [summary, "\n".join(rows)]


def _failures(evaluation: Evaluation) -> list[str]:
    """The most frequent mistakes, AP by size, and classes that were not measured."""
    assert evaluation.matches is not None  # in the main process
    curves, stats = evaluation.curves, evaluation.coco.stats
    images = [image.above(evaluation.thresholds) for image in evaluation.matches]
    names = evaluation.dataset.class_names
    matrix = confusion_matrix(images, len(names), curves.iou_threshold)
    found = [
        f"- {_escaped(what)}: {'once' if count == 1 else f'{count:,} times'}"
        for count, what in frequent_mistakes(matrix, names, _MISTAKES)
    ]
    sizes = ", ".join(
        f"{size} {three_digits(stats[f'AP_{size}'])}" for size in ("small", "medium", "large")
    )
    found.append(f"- AP by size (below 32 x 32 pixels, between, above 96 x 96): {sizes}")
    if curves.absent:
        found.append(f"- Never measured: {', '.join(map(_escaped, curves.absent))}")
    return ["\n".join(found)]


def _escaped(text: str) -> str:
    """Text that Markdown and HTML leave as it is."""
    return re.sub(r"[\\`*_\[\]<>|#&]", lambda found: f"&#{ord(found[0])};", text)
