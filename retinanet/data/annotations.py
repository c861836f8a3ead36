"""The boxes of an annotation file, image by image, whatever its format."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from os.path import normpath
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from retinanet.data.problems import Array, Problems
from retinanet.errors import shown

NO_ROWS = np.zeros(0, np.int64)
NO_FLAGS = np.zeros(0, bool)


@dataclass(frozen=True)
class Annotations:
    """The boxes of a file, image by image; those of image i are `boxes[offsets[i]:offsets[i + 1]]`.

    Pickled, as on the way to the workers of a loader, it keeps no places of boxes in the file, and
    of each column its distinct values, once.
    """

    names: tuple[str, ...]  # the images as the file names them, in order of first appearance
    first_lines: Array  # [len(names)] the line that names each image first
    offsets: Array  # [len(names) + 1]
    boxes: NDArray[np.float64]  # [boxes, 5] x1, y1, x2, y2 in pixels of the image, label
    lines: Array  # [boxes] the line of each box
    rows: Array = field(default_factory=lambda: NO_ROWS)  # [boxes] position of each in `entries`
    entries: Sequence[str] = ()  # what the file calls each of its boxes, where lines say nothing
    difficult: NDArray[np.bool_] = field(default_factory=lambda: NO_FLAGS)
    # [boxes] marked so by VOC, whose AP leaves them out; empty where the format has no such mark
    in_fractions: bool = False  # coordinates are fractions of the image's width and height
    kind: str = "corners"  # what the file has: corners, sizes (x, y, width, height), or centres
    sizes: Array = field(default_factory=lambda: NO_ROWS)
    # [images, 2] height and width as the file has them, 0 where it has none; empty in most formats

    def boxes_of(self, index: int) -> NDArray[np.float64]:
        """[M, 5] boxes and labels of one image, in the order of the file."""
        return self.boxes[self._rows_of(index)]

    def difficult_of(self, index: int) -> NDArray[np.bool_]:
        """[M] which boxes of one image are marked as difficult."""
        found = self.difficult[self._rows_of(index)]
        return found if len(self.difficult) else np.zeros(len(self.boxes_of(index)), bool)

    def _rows_of(self, index: int) -> slice:
        position = range(len(self.names))[index]  # -1 is the last image, as in a list
        return slice(self.offsets[position], self.offsets[position + 1])

    def owners(self) -> Array:
        """[boxes] the image of each box."""
        return np.repeat(np.arange(len(self.names)), np.diff(self.offsets))

    def only(self, images: Sequence[int]) -> "Annotations":
        """The annotations of some of the images, in the order given."""
        kept = [np.arange(self.offsets[k], self.offsets[k + 1]) for k in images]
        rows = np.concatenate([*kept, NO_ROWS])
        return replace(
            self,
            names=tuple(self.names[k] for k in images),
            first_lines=self.first_lines[list(images)],
            offsets=np.cumsum([0, *map(len, kept)]),
            boxes=self.boxes[rows],
            lines=_chosen(self.lines, rows),
            rows=_chosen(self.rows, rows),
            difficult=_chosen(self.difficult, rows),
        )

    def relabelled(
        self, names: Sequence[str], wanted: Sequence[str], problems: Problems
    ) -> "Annotations":
        """The annotations with the labels of the classes `wanted`, found by name.

        Args:
            names: of the classes, by label.
            wanted: of the classes, by the new label.
            problems: of the file; takes in boxes of other classes, which are left out.
        """
        if tuple(names) == tuple(wanted):
            return self
        labels = labels_by_name(names, wanted, problems)[self.boxes[:, 4].astype(int)]
        others = np.flatnonzero(labels < 0)
        problems.repair(
            "box of a class that the model does not know",
            self.lines[others],
            lambda k: (
                f"{self.entry(others[k])}a box of {shown(names[int(self.boxes[others[k], 4])])};"
                f" expected one of {shown(list(wanted))}; remove it"
            ),
        )
        kept = labels >= 0
        columns = np.column_stack((self.boxes[:, :4], labels))
        return replace(
            self,
            offsets=np.append(0, np.cumsum(kept))[self.offsets],
            boxes=columns[kept],
            lines=self.lines[kept],
            rows=_chosen(self.rows, kept),
            difficult=_chosen(self.difficult, kept),
        )

    def without_places(self) -> "Annotations":
        """The boxes alone, when all checks are done."""
        return replace(self, lines=NO_ROWS, rows=NO_ROWS, entries=(), sizes=NO_ROWS)

    def entry(self, row: int) -> str:
        """Beginning of a message about a box, after the file and the line."""
        return f"{self.entries[int(self.rows[row])]}: " if len(self.entries) else ""

    def __getstate__(self) -> dict[str, Any]:
        columns = [np.unique(column, return_inverse=True) for column in self.boxes.T]
        coded = [(values, codes.astype(_smallest(len(values)))) for values, codes in columns]
        return {"boxes": coded, "names": self.names, "offsets": self.offsets.astype(np.int32),
                "first_lines": self.first_lines.astype(np.int32),
                "difficult": self.difficult}  # fmt: skip

    def __setstate__(self, state: dict[str, Any]) -> None:
        boxes = np.empty((len(state["boxes"][0][1]), len(state["boxes"])))
        for column, (values, codes) in zip(boxes.T, state["boxes"], strict=True):
            column[:] = values[codes]
        self.__dict__.update(
            {**state, "boxes": boxes, "lines": NO_ROWS, "rows": NO_ROWS, "entries": ()},
            in_fractions=False,
            kind="corners",
            sizes=NO_ROWS,
        )


class Objects(NamedTuple):
    """All that is annotated, for the evaluation: crowds too, in the order of the file."""

    images: Array  # [objects] positions of images
    labels: Array  # [objects]
    boxes: NDArray[np.float64]  # [objects, 4] x, y, width, height, as the file has them
    areas: NDArray[np.float64]  # [objects] square pixels, of the mask where there is one
    crowds: NDArray[np.bool_]  # [objects] boxes around many, which match any number

    def columns(self) -> list[list[Any]]:
        """Lists of plain numbers: image, label, box, area, crowd."""
        return [column.tolist() for column in self]

    def of_images(self, index: Array) -> "Objects":
        """The objects of some images; `index` gives each image's new index, or -1."""
        return self.replaced(images=index[self.images])

    def replaced(self, **columns: Array) -> "Objects":
        """The objects with other images or labels, without those whose number is -1."""
        changed = self._replace(**columns)
        rows = np.flatnonzero((changed.images >= 0) & (changed.labels >= 0))
        return self._replace(**{name: c[rows] for name, c in changed._asdict().items()})


def _chosen(column: NDArray[Any], which: Array) -> NDArray[Any]:
    """The rows of a mask or of positions; of a column that is empty as a whole, nothing."""
    return column[which] if len(column) else column


def _smallest(count: int) -> type[np.unsignedinteger[Any]]:
    """The smallest type for the numbers below `count`."""
    return next(kind for kind in (np.uint8, np.uint16, np.uint32) if count <= np.iinfo(kind).max)


def group_by_image(
    names: Sequence[str],
    first_lines: Array,
    owners: Array,
    columns: NDArray[np.float64],
    lines: Array,
    problems: Problems,
    entries: Sequence[str] = (),
    difficult: NDArray[np.bool_] = NO_FLAGS,
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
        difficult: [boxes], or none where the format has no such mark.
    """
    again = _repeated(owners, columns)
    rows = np.flatnonzero(again)
    text = "a box that is there before; expected each once; remove one of them"
    problems.repair(
        "exact duplicate",
        lines[rows],
        lambda k: f"{entries[int(rows[k])]}: {text}" if len(entries) else text,
    )
    order = np.flatnonzero(~again)
    order = order[np.argsort(owners[order], kind="stable")]
    return Annotations(
        names=tuple(names),
        first_lines=first_lines,
        offsets=np.searchsorted(owners[order], np.arange(len(names) + 1)),
        boxes=columns[:, order].T,
        lines=lines[order],
        rows=order if len(entries) else NO_ROWS,
        entries=entries,
        difficult=_chosen(difficult, order),
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


def labels_by_name(names: Sequence[str], wanted: Sequence[str], problems: Problems) -> Array:
    """[names] the label of each class among those of a model, -1 of those that it does not know."""
    label_of = {name: label for label, name in enumerate(wanted)}
    found = np.array([label_of.get(name, -1) for name in names], np.int32)
    if len(found) and (found < 0).all():
        problems.add_one(
            "unknown classes",
            f"classes {shown(list(names))}; expected those of the training data:"
            f" {shown(list(wanted))}; rename them",
        )
    return found


def first_of_file(files: Sequence[str]) -> list[int]:
    """[images] the position of the first image that is the same file: its own but for repeats."""
    first: dict[str, int] = {}
    odd = ("./", "//")
    keys = (normpath(file) if any(part in file for part in odd) else file for file in files)
    return [first.setdefault(key, k) for k, key in enumerate(keys)]


def positions_of(kept: Sequence[int], count: int) -> Array:
    """[count + 1] the position of each number in `kept`, -1 of those that are not there, and -1."""
    found = np.full(count + 1, -1, np.int32)
    found[list(kept)] = np.arange(len(kept))
    return found


def join_images(data: Annotations, first: Sequence[int], problems: Problems) -> Annotations:
    """Give the boxes of images that are the same file to the first of them, which is a repair.

    Args:
        data: the boxes.
        first: of `first_of_file`.
        problems: of the file.
    """
    again = [k for k, position in enumerate(first) if position != k]
    if not again:
        return data
    problems.repair(
        "image named twice",
        data.first_lines[again],
        lambda k: (
            f"image {shown(data.names[again[k]])} is {shown(data.names[first[again[k]]])} too;"
            " expected one name; give all boxes to one"
        ),
    )
    owners = np.array(first)[data.owners()]
    order = np.argsort(data.rows if len(data.rows) else data.lines, kind="stable")
    entries = [data.entry(int(k)).removesuffix(": ") for k in order] if len(data.entries) else ()
    joined = group_by_image(
        data.names, data.first_lines, owners[order], np.ascontiguousarray(data.boxes[order].T),
        data.lines[order], problems, entries,
        _chosen(data.difficult, order),
    )  # fmt: skip
    kept = joined.only(sorted(set(first)))
    return replace(kept, in_fractions=data.in_fractions, kind=data.kind)
