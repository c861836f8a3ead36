"""Sets that are read: their labels, their boxes by image, what is wrong with them."""

from pathlib import Path

import numpy as np
import pytest

from retinanet.data.formats.labels import Labels, Sets
from retinanet.data.problems import Problems
from retinanet.errors import DataError

COW, CAT = (10, 20, 50, 60, "cow"), (5, 8, 90, 70, "cat")


def read(sets: Sets, name: str, root: Path) -> Labels:
    """One set, without problems."""
    problems = Problems(root)
    labels = sets[name](problems)
    problems.raise_if_any()
    return labels


def complaint(sets: Sets, name: str, root: Path) -> str:
    """What is wrong with a set."""
    problems = Problems(root)
    sets[name](problems)
    with pytest.raises(DataError) as caught:
        problems.raise_if_any()
    return str(caught.value)


def boxes(labels: Labels) -> list[list[tuple[float, ...]]]:
    """The boxes of each image of 100 x 80 pixels, with the names of their classes."""
    scale = np.array([100, 80, 100, 80, 1] if labels.annotations.in_fractions else [1] * 5)
    return [
        [
            (*(round(v, 6) for v in row[:4]), labels.class_names[int(row[4])])
            for row in (labels.annotations.boxes_of(k) * scale).tolist()
        ]
        for k in range(len(labels.paths))
    ]
