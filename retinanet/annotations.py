"""What an annotation file holds, and what is wrong with it, whatever its format."""

import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retinanet.errors import DataError

SHOWN = 20  # problems of a file shown in full; the rest is counted

Array = NDArray[Any]

_short = reprlib.Repr()
_short.maxstring = 80
shown = _short.repr  # a value as it stands in a message: quoted, escaped, cut when long


class Problems:
    """What is wrong with one file: collected, then raised as one error.

    Args:
        path: the file, named in front of each problem.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path
        self.count = 0
        self._first: list[tuple[int, str]] = []

    def add(self, lines: Sequence[int] | Array, describe: Callable[[int], str]) -> None:
        """Take in problems of one kind: their lines, ascending, and a text for the k-th of them.

        Line 0 stands for no line. A text reads `found; expected; what to do`.
        """
        self.count += len(lines)
        self._first += [(int(line), describe(k)) for k, line in enumerate(lines[:SHOWN])]
        self._first = sorted(self._first, key=lambda problem: problem[0])[:SHOWN]

    def add_one(self, text: str, line: int = 0) -> None:
        """Take in one problem."""
        self.add([line], lambda _: text)

    def raise_if_any(self) -> None:
        """Raise a DataError that lists the first problems and counts the others."""
        if not self.count:
            return
        where = [f"{self.path}:{line}" if line else f"{self.path}" for line, _ in self._first]
        texts = [f"{place}: {text}" for place, (_, text) in zip(where, self._first, strict=True)]
        if self.count > len(texts):
            texts.append(f"... and {self.count - len(texts):,} more problems in {self.path}")
        raise DataError("\n".join(texts))


@dataclass(frozen=True)
class Annotations:
    """The boxes of a file, image by image; the rows of image i are `offsets[i]:offsets[i + 1]`."""

    names: tuple[str, ...]  # the images as the file names them, in order of first appearance
    first_lines: Array  # [len(names)] the line that names each image first
    offsets: Array  # [len(names) + 1]
    boxes: NDArray[np.float64]  # [boxes, 5] x1, y1, x2, y2 in pixels of the image, label
    lines: Array  # [boxes] the line of each box
    repaired: dict[str, int]  # what was put right, and how often

    def boxes_of(self, index: int) -> NDArray[np.float64]:
        """[M, 5] boxes and labels of one image, in the order of the file."""
        position = range(len(self.names))[index]  # -1 is the last image, as in a list
        return self.boxes[self.offsets[position] : self.offsets[position + 1]]

    def notes(self, path: str | Path) -> list[str]:
        """One line on what was repaired, or none."""
        counts = [f"{what}: {count:,}" for what, count in self.repaired.items()]
        return [f"{path}: repaired ({', '.join(counts)})"] if counts else []
