"""Sections of the report: numbers, curves, confusion matrix, class table.

Each chart is part of the page and a PNG beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from retinanet.data.datasets import CocoDataset, Data
from retinanet.evaluation.coco import CocoScores
from retinanet.evaluation.confusion import condensed, confusion_matrix, frequent_mistakes
from retinanet.evaluation.intervals import Interval
from retinanet.evaluation.matching import Matches
from retinanet.evaluation.measure import Evaluation
from retinanet.evaluation.precision_recall import best_mean_f1
from retinanet.evaluation.voc import VocScores, three_digits
from retinanet.report.charts import (
    COLORED_CLASSES,
    Chart,
    History,
    f1_chart,
    line_color,
    losses_chart,
    matrix_chart,
    precision_recall_chart,
    scores_chart,
)
from retinanet.report.html import Html, definitions, element, joined, picture, section, table
from retinanet.report.interactive import KINDS, Counts, value_below
from retinanet.runtime.files import write_whole

CLASSES_IN_MATRIX = 20
CLASSES_BESIDE_TEXT = 10  # a larger matrix gets the whole width
MISTAKES = 10  # in the table of the most frequent ones
FILES = ("losses.png", "scores.png", "precision_recall.png", "f1.png", "confusion.png")


@dataclass(frozen=True)
class ReportedEvaluation:
    """An evaluation as the report shows it, at the threshold where its slider starts."""

    dataset: Data
    coco: CocoScores
    voc: VocScores
    best_f1: tuple[float, float] | None
    """Threshold of the best mean F1 over classes, and that F1."""
    threshold: float
    """Least score in the confusion matrix and the pictures, where the slider starts: about that
    of the best F1, else 0.5."""
    matches: list[Matches]
    """Of every image, of the detections that reach the threshold."""
    all_matches: Sequence[Matches]
    """Of every image, of all detections."""


def at_best_threshold(evaluation: Evaluation) -> ReportedEvaluation:
    """Choose the threshold of the report, and the matches of the detections that reach it."""
    dataset, voc, images = evaluation.dataset, evaluation.curves, evaluation.matches
    assert images is not None  # in the main process, which writes the report
    best_f1 = best_mean_f1(voc.annotated)
    threshold = value_below(best_f1[0] if best_f1 else 0.5)
    return ReportedEvaluation(
        dataset,
        evaluation.coco,
        voc,
        best_f1,
        threshold,
        [image.at(threshold) for image in images],
        images,
    )


def summary(reported: ReportedEvaluation) -> Html:
    """Images, classes and boxes that were evaluated, and the main numbers."""
    voc, stats = reported.voc, reported.coco.stats
    counts = (
        f"images: {len(reported.matches):,}",
        f"classes: {len(voc.annotated):,}",
        f"annotated boxes: {sum(row.num_annotations for row in voc.annotated):,}",
        f"detections with scores above {voc.score_threshold:g}:"
        f" {sum(len(row.scores) for row in voc.classes):,}",
    )
    threshold, f1 = reported.best_f1 or (None, None)
    numbers = {
        "COCO AP": _sure(stats["AP"], reported.coco.intervals.get("AP")),
        "COCO AP50": _sure(stats["AP50"], reported.coco.intervals.get("AP50")),
        f"mAP, IoU {voc.iou_threshold:g}": _sure(voc.mean_average_precision, voc.mean_interval),
        "best mean F1": three_digits(f1),
        "at a score of": three_digits(threshold),
    }
    return joined(element("p", " · ".join(counts)), definitions(numbers, "numbers"))


def training(history: History, folder: Path) -> Html:
    """Losses and scores over the epochs of the run."""
    charts = {
        "losses": (losses_chart(history), "Losses over the epochs"),
        "scores": (scores_chart(history), "Average precision after each epoch"),
    }
    drawn = [
        _chart(folder / f"{name}.png", chart, alt) for name, (chart, alt) in charts.items() if chart
    ]
    if not drawn:
        return section("Training", element("p", "There is no record, so no losses are shown."))
    return section("Training", element("div", *drawn, class_="charts"))


def precision_and_recall(reported: ReportedEvaluation, folder: Path) -> Html:
    """Precision over recall, and F1 over the threshold."""
    title, voc = "Precision and recall", reported.voc
    if not voc.annotated:
        return section(title, element("p", "Nothing is annotated, so nothing can be measured."))
    if reported.best_f1 is None:
        nothing = f"Nothing true has a score above {voc.score_threshold:g}, so there are no curves."
        return section(title, element("p", nothing))
    threshold, f1 = reported.best_f1
    text = [
        "A detection is true if it overlaps an annotation of its class by an IoU of at least"
        f" {voc.iou_threshold:g} and no better one does. F1, as the mean over classes, is highest,"
        f" {f1:.3f}, with ",
        element("code", f"--score_threshold {threshold:.3f}"),
        ".",
    ]
    if isinstance(reported.dataset, CocoDataset):
        text.append(" What lies on a crowd of its class counts neither way.")
    if len(voc.annotated) > COLORED_CLASSES:
        half = COLORED_CLASSES // 2
        text.append(f" In colour: the {half} classes with the highest AP and the {half} lowest.")
    charts = (
        _chart(
            folder / "precision_recall.png",
            precision_recall_chart(
                voc.classes, voc.intervals, voc.mean_average_precision or 0.0, voc.mean_interval
            ),
            "Precision over recall",
            "At each recall the best precision of this or a higher one. Named: AP, the area below,"
            " with its 95 % interval.",
        ),
        _chart(
            folder / "f1.png",
            f1_chart(voc.classes, reported.best_f1),
            "F1 over the score threshold",
            "F1 = 2 · precision · recall / (precision + recall). Named: the highest.",
        ),
    )
    return section(title, element("p", *text), element("div", *charts, class_="charts"))


def confusion(reported: ReportedEvaluation, folder: Path) -> Html:
    """Confusion matrix and the most frequent mistakes."""
    names, iou_threshold = reported.dataset.class_names, reported.voc.iou_threshold
    matrix = confusion_matrix(reported.matches, len(names), iou_threshold)
    counts, shown = condensed(matrix, names, CLASSES_IN_MATRIX)
    text = (
        f"Scores of at least {reported.threshold:.2f}"
        f" ({'about where F1 is best' if reported.best_f1 else 'there is no best F1'}), IoU of at"
        f" least {iou_threshold:g}. A row is what became of the annotations of a class, the last"
        " one what was detected where nothing is annotated. The stronger the colour, the larger the"
        " part of the row."
    )
    if len(shown) > CLASSES_IN_MATRIX + 1:
        text += f" All but the {CLASSES_IN_MATRIX} classes with the most mistakes are shown as one."
    elif len(shown) < len(names) + 1:
        text += " Classes that do not occur are left out."
    chart = _chart(
        folder / "confusion.png",
        matrix_chart(counts, shown, xlabel="detected", ylabel="annotated"),
        "Confusion matrix",
    )
    mistakes = [(what, f"{count:,}") for count, what in frequent_mistakes(matrix, names, MISTAKES)]
    return section(
        "Confusion matrix",
        element("p", text),
        element(
            "div",
            chart,
            table([], ("most frequent mistakes", "times"), mistakes),
            class_="charts" if len(shown) <= CLASSES_BESIDE_TEXT else "wide",
        ),
    )


def class_table(reported: ReportedEvaluation, counts: Counts) -> Html:
    """Class table, with the numbers that validate.py prints, and the counts at the slider."""
    voc, coco = reported.voc, reported.coco
    groups = (
        *(("", 4), ("at the slider", len(KINDS))),
        *((f"scores above {voc.score_threshold:g}", 2), ("where F1 is best", 4)),
    )
    head = (
        *("class", "boxes", "COCO AP", f"AP, IoU {voc.iou_threshold:g}", *KINDS),
        *("precision", "recall", "F1", "score", "precision", "recall"),
    )
    rows = []
    for label, row in enumerate(voc.classes):
        if row.num_annotations:
            swatch = element("i", class_="swatch", style=f"background:{line_color(label)}")
            threshold, precision, recall, f1 = row.best_f1 or (None,) * 4
            values = (row.precision, row.recall, f1, threshold, precision, recall)
            rows.append(
                (
                    joined(swatch, row.name),
                    f"{row.num_annotations:,}",
                    _bar(coco.per_class.get(row.name), coco.class_intervals.get(row.name)),
                    _bar(row.average_precision, voc.intervals[label]),
                    *counts.cells(1 + label),
                    *map(three_digits, values),
                )
            )
    total = sum(row.num_annotations for row in voc.annotated)
    means = (
        _sure(coco.stats["AP"], coco.intervals.get("AP")),
        _sure(voc.mean_average_precision, voc.mean_interval),
    )
    foot = ("all classes", f"{total:,}", *means, *counts.cells(0), *[""] * 6)
    note = (
        "Small numbers: the 95 % interval, by a bootstrap over the images; a class of one image"
        " has none. A click on a column's name sorts by it."
    )
    parts = [element("p", note), table(groups, head, rows, foot)] if rows else []
    if voc.absent:
        parts.append(element("p", f"Without annotations: {', '.join(voc.absent)}."))
    return section("Classes", *parts)


def coco_numbers(coco: CocoScores) -> Html:
    """COCO's twelve numbers, as validate.py prints them."""
    values = {name: _sure(value, coco.intervals.get(name)) for name, value in coco.stats.items()}
    return section(
        "COCO's numbers",
        element(
            "p",
            "AP: mean over classes and over IoU 0.50:0.95 where no other is named. AR: recall with"
            " at most 1, 10 or 100 detections an image. Small is below 32 x 32 pixels, large above"
            " 96 x 96.",
        ),
        definitions(values, "numbers"),
    )


def _chart(path: Path, chart: Chart, alt: str, caption: str = "") -> Html:
    """A chart for the page, and as a PNG beside it."""
    write_whole(path, chart.png)
    return picture(chart.svg, "svg+xml", alt, (caption,))


def _sure(value: float | None, interval: Interval | None) -> Html:
    """A number with its 95 % interval, if it has one."""
    ends = [element("small", f" {interval}")] if interval else []
    return joined(three_digits(value), *ends)


def _bar(value: float | None, interval: Interval | None) -> Html:
    """A number with its interval, beside a bar of its length; the full bar is 1."""
    length = element("i", style=f"width:{100 * max(value or 0, 0):.0f}%")
    return joined(element("i", length, class_="bar"), _sure(value, interval))
