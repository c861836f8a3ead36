"""What an annotation file holds, and what is wrong with it, whatever its format."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from retinanet.errors import DataError, _short, listed

SHOWN = 20  # problems of a file shown in full; the rest is counted


MOST_SKIPPED = 100  # images that may be left out, because they cannot be read


Array = NDArray[Any]


_short.maxstring = 80


class Problems:
    """What is wrong with one file, collected and raised as one error; and what was put right.

    Args:
        path: the file, named in front of each problem; or the folder, whose texts name its files.
        strict: nothing is put right: what could be is wrong too.
        skip_images: images that cannot be read are left out, up to `MOST_SKIPPED` of a kind.
    """

    def __init__(
        self, path: str | Path, strict: bool = False, *, skip_images: bool = False
    ) -> None:
        self.path = path
        self.strict = strict
        self.skip_images = skip_images
        self.repaired: dict[str, int] = {}  # what was put right, and how often
        self.remarks: list[str] = []  # what a user should know besides
        self._is_folder = Path(path).is_dir()
        self._counts: Counter[str] = Counter()
        self._first: list[tuple[int, str]] = []

    def add(self, kind: str, lines: Sequence[int] | Array, describe: Callable[[int], str]) -> None:
        """Take in problems of one kind: their lines, ascending, and a text for the k-th of them.

        Line 0 stands for no line. A text reads `found; expected; what to do`.
        """
        self._counts[kind] += len(lines)
        self._first += [(int(line), describe(k)) for k, line in enumerate(lines[:SHOWN])]
        self._first = sorted(self._first, key=lambda problem: problem[0])[:SHOWN]

    def add_one(self, kind: str, text: str, line: int = 0) -> None:
        """Take in one problem."""
        self.add(kind, [line], lambda _: text)

    def repair(
        self, kind: str, lines: Sequence[int] | Array, describe: Callable[[int], str]
    ) -> None:
        """Count what the caller puts right; where `strict`, these are problems as in `add`."""
        if self.strict:
            self.add(kind, lines, describe)
        elif len(lines):
            self.repaired[kind] = self.repaired.get(kind, 0) + len(lines)

    def leave_out(
        self, kind: str, lines: Sequence[int] | Array, describe: Callable[[int], str]
    ) -> None:
        """Remark on images that the caller leaves out, if it may; else they are problems."""
        if not self.skip_images:
            self.add(kind, lines, describe)
        elif len(lines) > MOST_SKIPPED:
            self.add(f"{kind}, more than the {MOST_SKIPPED} that may be skipped", lines, describe)
        else:
            texts = (f"{self._place(int(line))}{describe(k)}" for k, line in enumerate(lines))
            self.remarks += [f"Skipped: {text}" for text in texts]

    def notes(self) -> list[str]:
        """Lines on what was put right and remarked."""
        repaired = f"{self.path}: repaired ({listed(self.repaired)}); --strict shows where"
        return [repaired] * bool(self.repaired) + self.remarks

    def raise_if_any(self) -> None:
        """Raise a DataError that lists the first problems and counts the others."""
        total = self._counts.total()
        if not total:
            return
        texts = [f"{self._place(line)}{text}" for line, text in self._first]
        if total > len(texts):
            more = f"{total - len(texts):,} more problems in {self.path}"
            texts.append(f"... and {more} (in all {listed(self._counts)})")
        raise DataError("\n".join(texts))

    def _place(self, line: int) -> str:
        """File and line in front of a message; a folder's messages name their files themselves."""
        if self._is_folder:
            return ""
        return f"{self.path}:{line}: " if line else f"{self.path}: "


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
        """What stands in front of a problem of a box, after the file and the line."""
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
