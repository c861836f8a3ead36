"""Mistakes of a detector: confusion matrix, their causes, the images with the worst of them."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from retinanet.errors import counted
from retinanet.evaluation.matching import Indices, Matches, claimed, label_column, overlaps

NEAR = 0.1  # IoU from which a detection is about an object, however badly placed


def confusion_matrix(
    images: Iterable[Matches], num_classes: int, iou_threshold: float
) -> NDArray[np.int64]:
    """Confusion matrix of annotated against detected classes.

    True detections count as such. Then each false detection may go to a missed annotation of
    another class that it overlaps enough, by the same rule.

    Args:
        images: all detections in them count.
        num_classes: K.
        iou_threshold: least overlap.

    Returns:
        [K + 1, K + 1] annotated class by detected class; the last of both is background. A row
        sums to the annotations of a class, a column to its detections.
    """
    matrix = np.zeros((num_classes + 1, num_classes + 1), dtype=np.int64)
    for image in images:
        partners = np.maximum(image.found, _mistaken(image, iou_threshold))
        truth = np.append(image.annotations[:, 4].astype(np.int64), num_classes)
        # -1, no partner, takes the last of `truth`: background
        np.add.at(matrix, (truth[partners], image.detections.labels.numpy()), 1)
        missed = np.setdiff1d(np.arange(len(image.annotations)), partners)
        np.add.at(matrix, (truth[missed], num_classes), 1)
    return matrix


def _mistaken(image: Matches, iou_threshold: float) -> Indices:
    """[D] the missed annotation of another class that a false detection lies on; -1: none."""
    candidates = (image.found < 0)[:, None] & image.missed
    candidates &= label_column(image.detections) != image.annotations[:, 4]
    iou = overlaps(image.detections, image.annotations)
    return claimed(np.where(candidates, iou, -1), iou_threshold)


def frequent_mistakes(
    matrix: NDArray[np.int64], names: Sequence[str], most: int
) -> list[tuple[int, str]]:
    """The largest counts off the diagonal, each with its mistake in words.

    Args:
        matrix: [K + 1, K + 1] as `confusion_matrix` gives it.
        names: of the K classes.
        most: how many, at most.
    """
    wrong = matrix - np.diag(matrix.diagonal())
    rows, columns = np.nonzero(wrong)
    counts = wrong[rows, columns]
    found = []
    for place in np.argsort(-counts, kind="stable")[:most]:
        row, column = rows[place], columns[place]
        if column == len(names):
            what = f"{names[row]} missed"
        elif row == len(names):
            what = f"{names[column]} where nothing is annotated"
        else:
            what = f"{names[row]} taken for {names[column]}"
        found.append((int(counts[place]), what))
    return found


def most_missed(images: Sequence[Matches], most: int) -> list[int]:
    """The images with the most annotations that nothing has found."""
    missed = np.array([image.missed.sum() for image in images])
    return [int(index) for index in np.argsort(-missed, kind="stable")[:most] if missed[index]]


def most_confident_false(images: Sequence[Matches], most: int) -> list[tuple[int, int]]:
    """The images with the surest false detections: (image, its best false detection)."""
    found = []
    for index, image in enumerate(images):
        false = np.flatnonzero(image.found < 0)
        if len(false):
            score = float(image.detections.scores[false[0]])  # they stand best first
            found.append((-score, index, int(false[0])))
    return [(index, detection) for _, index, detection in sorted(found)[:most]]


def cause(image: Matches, detection: int, names: Sequence[str], iou_threshold: float) -> str:
    """Cause of a false detection, in words."""
    label = int(image.detections.labels[detection])
    iou = overlaps(image.detections, image.annotations)[detection]  # [M]
    labels = image.annotations[:, 4].astype(int)
    same = np.where(labels == label, iou, 0).max(initial=0)
    if same >= iou_threshold:
        return "a second box on one object"
    if iou.max(initial=0) >= iou_threshold:
        return f"annotated as {names[labels[iou.argmax()]]}"
    if same >= NEAR:
        return f"badly placed, IoU {same:.2f}"
    return "nothing is annotated there"


def condensed(
    matrix: NDArray[np.int64], names: Sequence[str], most: int
) -> tuple[NDArray[np.int64], list[str]]:
    """A confusion matrix of classes that occur; those with the fewest mistakes become one.

    Args:
        matrix: [K + 1, K + 1] as `confusion_matrix` gives it.
        names: of the K classes.
        most: how many of them stay as they are.

    Returns:
        [R, R] and R names, the last one background, the others in the order of `names`.
    """
    mistakes = matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * matrix.diagonal()
    occurring = np.flatnonzero((matrix.sum(axis=0) + matrix.sum(axis=1))[:-1])
    worst = occurring[np.argsort(-mistakes[occurring], kind="stable")]
    kept, rest = np.sort(worst[:most]), worst[most:]
    groups = [[label] for label in kept] + ([rest] if len(rest) else []) + [[len(names)]]
    shown = [names[label] for label in kept] + [counted(len(rest), "other")] * bool(len(rest))
    rows = np.stack([matrix[group].sum(axis=0) for group in groups])
    cells = np.stack([rows[:, group].sum(axis=1) for group in groups], axis=1)
    return cells, [*shown, "background"]
