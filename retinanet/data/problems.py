"""The problems of a file, collected and raised as one error, and the count of its repairs."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from retinanet.errors import DataError, counted, listed

SHOWN = 20  # problems of a file shown in full; the rest is counted
MOST_SKIPPED = 100  # images that may be left out, because they cannot be read
Array = NDArray[Any]


def became_boxes(count: int, kind: str) -> str:
    """Remark on shapes of a kind that are read as the boxes around them."""
    around = "the box around it" if count == 1 else "the boxes around them"
    return f"{counted(count, kind)} became {around}"


def without_boxes(count: int, kind: str) -> str:
    """Remark on shapes of a type that have no area."""
    return f"{counted(count, 'shape')} of type {kind} without a box: left out"


class Problems:
    """Problems of one file, collected and raised as one error; and the count of its repairs.

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
        self.read_as = ""  # the meaning that was found for the file's columns; ends an error too
        self._is_folder = Path(path).is_dir()
        self._counts: Counter[str] = Counter()
        self._first: list[tuple[int, str]] = []

    @property
    def total(self) -> int:
        """Number of problems so far."""
        return self._counts.total()

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

    def absorb(self, other: "Problems") -> None:
        """Take in all problems and repairs of another collection."""
        self._counts += other._counts
        self._first = sorted(self._first + other._first, key=lambda problem: problem[0])[:SHOWN]
        for kind, count in other.repaired.items():
            self.repaired[kind] = self.repaired.get(kind, 0) + count

    def leave_out(
        self, kind: str, lines: Sequence[int] | Array, describe: Callable[[int], str]
    ) -> None:
        """Remark on images that the caller leaves out, if it may; else they are problems."""
        if not self.skip_images:
            way_out = "; or train with --on_bad_image skip"
            self.add(kind, lines, lambda k: describe(k) + way_out)
        elif len(lines) > MOST_SKIPPED:
            self.add(f"{kind}, more than the {MOST_SKIPPED} that may be skipped", lines, describe)
        else:
            texts = (f"{self._place(int(line))}{describe(k)}" for k, line in enumerate(lines))
            self.remarks += [f"Skipped: {text}" for text in texts]

    def notes(self) -> list[str]:
        """Lines on what was put right and remarked."""
        repaired = f"{self.path}: repaired ({listed(self.repaired)}); --strict shows where"
        read_as = [f"{self.path}: read as {self.read_as}"] * bool(self.read_as)
        return [repaired] * bool(self.repaired) + read_as + self.remarks

    def raise_if_any(self) -> None:
        """Raise a DataError that lists the first problems and counts the others."""
        total = self.total
        if not total:
            return
        texts = [f"{self._place(line)}{text}" for line, text in self._first]
        if total > len(texts):
            more = f"{counted(total - len(texts), 'more problem')} in {self.path}"
            texts.append(f"... and {more}; {total:,} in all ({listed(self._counts)})")
        if self.read_as:
            texts.append(f"{self.path} was read as {self.read_as}")
        raise DataError("\n".join(texts))

    def _place(self, line: int) -> str:
        """File and line in front of a message; a folder's messages name their files themselves."""
        if self._is_folder:
            return ""
        return f"{self.path}:{line}: " if line else f"{self.path}: "
