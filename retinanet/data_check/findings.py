"""Faults of the data sets of a run, image by image and across them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from retinanet.data.datasets import Data
from retinanet.data.near_duplicates import alike
from retinanet.data_check.double_boxes import double_boxes
from retinanet.data_check.duplicates import equal_files
from retinanet.data_check.pixels import decode_all
from retinanet.data_check.summary import Facts

PartImage = tuple[str, Path]  # an image: its data (training, validation) and its path


@dataclass(frozen=True)
class DoubleBox:
    """An object of an image that was drawn twice and called differently."""

    image: Path
    classes: tuple[str, str]
    box: tuple[float, ...]
    """x1, y1, x2, y2 in pixels of the file, of the first."""


@dataclass
class Findings:
    """Problems of the data sets, and what else one should look at."""

    equal: list[list[PartImage]]
    """Groups of images of the same content."""
    alike: list[list[PartImage]] = field(default_factory=list)
    """Groups of images that look alike and are not all equal."""
    unreadable: list[str] = field(default_factory=list)
    """Why images cannot be decoded."""
    one_colour: list[PartImage] = field(default_factory=list)
    double_boxes: list[DoubleBox] = field(default_factory=list)
    only_in: dict[str, list[str]] = field(default_factory=dict)
    """By data: the classes that have boxes there alone."""

    @property
    def problems(self) -> int:
        """Number of faults.

        Images of one data set that merely look alike are none, nor are classes that only the
        training data has.
        """
        return (
            len(self.equal)
            + sum(map(is_across, self.alike))
            + len(self.unreadable)
            + len(self.one_colour)
            + len(self.double_boxes)
            + len(self.only_in.get("validation", ()))
        )


def is_across(group: Sequence[PartImage]) -> bool:
    """Whether a group has images of several data sets."""
    return len({part for part, _ in group}) > 1


def find_problems(
    data: Mapping[str, Data], facts: Mapping[str, Facts], *, decode: bool, compare: bool
) -> Findings:
    """Look at every image.

    Args:
        data: by name (training, validation).
        facts: of each.
        decode: whether to decode them all.
        compare: whether to look for near-duplicates.
    """
    images = [
        (part, dataset.image_path(index))
        for part, dataset in data.items()
        for index in range(len(dataset))
    ]
    paths = [path for _, path in images]
    equal = equal_files(paths)
    found = Findings([[images[k] for k in group] for group in equal])
    if compare:
        same = [set(group) for group in equal]
        groups = [group for group in alike(paths) if not any(set(group) <= known for known in same)]
        found.alike = [[images[k] for k in group] for group in groups]
    if decode:
        decoded = decode_all(paths)
        found.unreadable = list(decoded.unreadable.values())
        found.one_colour = [images[k] for k in decoded.one_colour]
    for part, dataset in data.items():
        found.double_boxes += _double_boxes(dataset, facts[part])
    if len(facts) > 1:
        found.only_in = _only_in(facts)
    return found


def _double_boxes(dataset: Data, facts: Facts) -> list[DoubleBox]:
    boxes, names = facts.boxes, dataset.class_names
    return [
        DoubleBox(
            dataset.image_path(int(boxes.images[first])),
            (names[boxes.labels[first]], names[boxes.labels[second]]),
            tuple(boxes.corners[first].round(1).tolist()),
        )
        for first, second in double_boxes(boxes).tolist()
    ]


def _only_in(facts: Mapping[str, Facts]) -> dict[str, list[str]]:
    """The classes with boxes in one of the data sets alone."""
    own = {part: {row.name for row in found.classes if row.boxes} for part, found in facts.items()}
    return {
        part: sorted(names - set().union(*(own[other] for other in own if other != part)))
        for part, names in own.items()
    }
