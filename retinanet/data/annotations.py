"""The boxes of an annotation file, image by image, whatever its format."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from retinanet.data.problems import Array, Problems


@dataclass(frozen=True)
class Annotations:
    """The boxes of a file, image by image; the rows of image i are `offsets[i]:offsets[i + 1]`."""

    names: tuple[str, ...]  # the images as the file names them, in order of first appearance
    first_lines: Array  # [len(names)] the line that names each image first
    offsets: Array  # [len(names) + 1]
    boxes: NDArray[np.float64]  # [boxes, 5] x1, y1, x2, y2 in pixels of the image, label
    lines: Array  # [boxes] the line of each box
    entries: tuple[str, ...] = ()  # [boxes] what the file calls each box, where lines say nothing

    def boxes_of(self, index: int) -> NDArray[np.float64]:
        """[M, 5] boxes and labels of one image, in the order of the file."""
        position = range(len(self.names))[index]  # -1 is the last image, as in a list
        return self.boxes[self.offsets[position] : self.offsets[position + 1]]

    def only(self, images: Sequence[int]) -> "Annotations":
        """The annotations of some of the images, in the order given."""
        kept = [np.arange(self.offsets[k], self.offsets[k + 1]) for k in images]
        rows = np.concatenate([*kept, np.zeros(0, np.int64)])
        return Annotations(
            names=tuple(self.names[k] for k in images),
            first_lines=self.first_lines[list(images)],
            offsets=np.cumsum([0, *map(len, kept)]),
            boxes=self.boxes[rows],
            lines=self.lines[rows],
            entries=tuple(self.entries[row] for row in rows.tolist()) if self.entries else (),
        )

    def entry(self, row: int) -> str:
        """Beginning of a message about a box, after the file and the line."""
        return f"{self.entries[row]}: " if self.entries else ""


def group_by_image(
    names: Sequence[str],
    first_lines: Array,
    owners: Array,
    columns: NDArray[np.float64],
    lines: Array,
    problems: Problems,
    entries: Sequence[str] = (),
) -> Annotations:
    """Group boxes by image; those that are there before are left out, which is a repair.

    Args:
        names: the images.
        first_lines: [len(names)] the line that names each image first.
        owners: [boxes] the position in `names` of each box's image.
        columns: [5, boxes] x1, y1, x2, y2, label.
        lines: [boxes] ascending.
        problems: takes in the repeated boxes.
        entries: [boxes] what the file calls each box, where lines say nothing.
    """
    again = _repeated(owners, columns)
    rows = np.flatnonzero(again)
    text = "a box that is there before; expected each once; remove one of them"
    problems.repair(
        "exact duplicate",
        lines[rows],
        lambda k: f"{entries[int(rows[k])]}: {text}" if entries else text,
    )
    order = np.flatnonzero(~again)
    order = order[np.argsort(owners[order], kind="stable")]
    return Annotations(
        names=tuple(names),
        first_lines=first_lines,
        offsets=np.searchsorted(owners[order], np.arange(len(names) + 1)),
        boxes=columns[:, order].T,
        lines=lines[order],
        entries=tuple(entries[k] for k in order.tolist()) if entries else (),
    )


def _repeated(owners: Array, columns: NDArray[np.float64]) -> Array:
    """[boxes] whether a box repeats an earlier one of its image exactly."""
    key = owners.astype(np.uint64)  # a hash of each row: far quicker than comparing six columns
    for column in columns:
        bits = column.view(np.uint64)
        key = (key + (bits ^ bits >> np.uint64(32))) * np.uint64(0x9E3779B97F4A7C15)
    repeated = np.zeros(len(owners), bool)
    ascending = np.sort(key)
    twice = ascending[1:][ascending[1:] == ascending[:-1]]
    if len(twice):
        rows = np.flatnonzero(np.isin(key, twice))
        repeated[rows] = pd.DataFrame(columns.T[rows]).assign(owner=owners[rows]).duplicated()
    return repeated
