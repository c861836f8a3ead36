"""Parts of the page that answer its reader: a slider for the score threshold, and what it moves.

Without JavaScript, or before it ran, the page shows the same at one threshold.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from retinanet.evaluation.matching import Indices, Matches
from retinanet.evaluation.precision_recall import Flags, Floats
from retinanet.report.html import Html, element, joined

STEPS = 100  # of the slider, from 0 to 1
KINDS = ("true", "false", "missed")
SCRIPT = Path(__file__).with_name("page.js").read_text(encoding="utf-8")


class Counts(NamedTuple):
    """True, false and missed at every step of the slider, and where the slider starts."""

    tables: list[list[list[int]]]
    """[K + 1][101][3]: all classes together come first."""
    start: int
    """Step of the slider."""

    def cells(self, group: int) -> list[Html]:
        """The three counts of a group, 0 for all classes, which move with the slider."""
        return [
            element("span", f"{count:,}", data_count=f"{group} {kind}")
            for kind, count in enumerate(self.tables[group][self.start])
        ]


def steps_reached(scores: Iterable[float]) -> list[int]:
    """The last step of the slider at which each score still counts."""
    return [int(step) for step in np.searchsorted(_floors(), list(scores), side="right") - 1]


def value_below(score: float) -> float:
    """The last value of the slider at which a score still counts."""
    return float(_floors()[steps_reached([score])[0]])


def counts_by_threshold(images: Sequence[Matches], num_classes: int, threshold: float) -> Counts:
    """Count true, false and missed of every class for scores of at least 0.00, 0.01 ... 1.00.

    Args:
        images: all detections in them count.
        num_classes: K.
        threshold: where the slider starts, or next below it.
    """
    scores = np.concatenate([np.zeros(0), *(image.detections.scores.numpy() for image in images)])
    labels = np.concatenate([np.zeros(0), *(image.detections.labels.numpy() for image in images)])
    hits = np.concatenate([np.zeros(0, bool), *(image.found >= 0 for image in images)])
    truth = np.concatenate([np.zeros(0), *(image.annotations[:, 4] for image in images)])

    def reaching(chosen: Flags) -> Indices:
        ascending = np.sort(scores[chosen])
        return np.asarray(len(ascending) - np.searchsorted(ascending, _floors()))

    tables = []
    for label in (None, *range(num_classes)):
        of_class = np.ones(len(labels), bool) if label is None else labels == label
        count = len(truth) if label is None else int((truth == label).sum())
        true, false = reaching(of_class & hits), reaching(of_class & ~hits)
        tables.append(np.column_stack((true, false, count - true)).tolist())
    [start] = steps_reached([threshold])
    return Counts(tables, start)


def slider(counts: Counts) -> Html:
    """A bar with the slider and the counts of all classes; it stays in sight of what it moves."""
    value, start = f"{counts.start / STEPS:.2f}", str(counts.start)
    told = (
        element("span", element("b", cell), f" {kind}")
        for cell, kind in zip(counts.cells(0), KINDS, strict=True)
    )
    return joined(
        element(
            "div",
            element(
                "label",
                "Scores of at least ",
                element("output", value, id="threshold-value", for_="threshold"),
                " count",
                for_="threshold",
            ),
            element("input", id="threshold", type="range", min="0", max=str(STEPS), value=start),
            element("div", *told, class_="told"),
            class_="slider",
        ),
        element("script", Html(json.dumps(counts.tables)), id="counts", type="application/json"),
    )


def _floors() -> Floats:
    """[101] least score that counts, at each step of the slider."""
    # In float32 a score of 0.7 is a little below 0.7.
    return np.asarray(np.arange(STEPS + 1) / STEPS - 1e-6)
