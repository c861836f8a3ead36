"""List of suspected annotation errors: what a person should look at, the surest first."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from retinanet.boxes import pairwise_iou
from retinanet.evaluation.confusion import cause
from retinanet.evaluation.matching import Matches
from retinanet.evaluation.precision_recall import Floats

HEADER = ("path", "x1", "y1", "x2", "y2", "class", "score", "reason")
SAME = 0.9  # IoU above which two annotations are of one object


def suspected_errors(
    images: Sequence[Matches], paths: Sequence[Path], names: Sequence[str], iou_threshold: float
) -> tuple[str, int]:
    """Annotations drawn twice, then confident false detections: a CSV file and its number of rows.

    The columns are those of the training data, with two more: once it was gone through, what is
    left of it can be added to the annotations.

    Args:
        images: with the detections that are confident.
        paths: of the images.
        names: of the classes, by label.
        iou_threshold: of the matches.
    """
    found: list[tuple[float, str, Floats, str, str, str]] = []  # sorted by the first two
    for image, path in zip(images, paths, strict=True):
        file = str(path.absolute())
        for row, why in _drawn_twice(image.annotations, names):
            found.append((-2.0, file, row[:4], names[int(row[4])], "", why))
        for place in np.flatnonzero(image.found < 0).tolist():
            score = float(image.detections.scores[place])
            box = image.detections.boxes[place].double().numpy()
            name = names[int(image.detections.labels[place])]
            why = cause(image, place, names, iou_threshold)
            found.append((-score, file, box, name, f"{score:.3f}", why))
    found.sort(key=lambda row: row[:2])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    for _, file, box, name, shown, why in found:
        writer.writerow((file, *(round(value) for value in box.tolist()), name, shown, why))
    return text.getvalue(), len(found)


def _drawn_twice(annotations: Floats, names: Sequence[str]) -> list[tuple[Floats, str]]:
    """Annotations [5] that nearly coincide with an earlier one of their image, and how."""
    corners = torch.from_numpy(annotations[:, :4])
    twins = np.tril(pairwise_iou(corners, corners).numpy() > SAME, -1)
    found = []
    for later in np.flatnonzero(twins.any(axis=1)).tolist():
        earlier = int(twins[later].argmax())
        name = names[int(annotations[earlier, 4])]
        same = annotations[later, 4] == annotations[earlier, 4]
        why = "annotated twice" if same else f"annotated as {name}, too"
        found.append((annotations[later], why))
    return found
