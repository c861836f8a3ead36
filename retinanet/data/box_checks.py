"""Boxes checked against the sizes of their images."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from retinanet.data.annotations import Annotations
from retinanet.data.image_sizes import NAMED
from retinanet.data.images import Size, is_sideways
from retinanet.data.problems import Array, Problems
from retinanet.errors import printable, shown

OVERHANG = 0.5  # pixels a box may lie outside its image before clipping it is worth a word
FRACTION_OVERHANG = 0.1  # of an image's side that a box in fractions may lie outside
LEAST_PERCENT = 10  # boxes, all within 100 pixels, that are taken for percent of larger images
SUSPICIOUS = 0.05  # of all boxes do not fit their images: perhaps their numbers mean something else


class Reading(NamedTuple):
    """Another meaning that a file's four numbers may have."""

    name: str
    corners: Callable[[Array, Array, Array, Array], tuple[Array, Array, Array, Array]]
    """From x1, y1, x2, y2 as they were taken to those that would be meant."""
    advice: str


CSV_READINGS = (
    Reading(
        "x,y,width,height",
        lambda x1, y1, x2, y2: (x1, y1, x1 + x2, y1 + y2),
        "write x + width and y + height for x2 and y2",
    ),
    Reading("x1,x2,y1,y2", lambda x1, y1, x2, y2: (x1, x2, y1, y2), "exchange the middle two"),
    Reading("y1,x1,y2,x2", lambda x1, y1, x2, y2: (y1, x1, y2, x2), "exchange x and y"),
    Reading("x2,y2,x1,y1", lambda x1, y1, x2, y2: (x2, y2, x1, y1), "exchange the corners"),
    Reading(
        "x1,y2,x2,y1",
        lambda x1, y1, x2, y2: (x1, y2, x2, y1),
        "exchange y1 and y2, and write height - y for both if y is counted from below",
    ),
)

CORNERS_FOR_SIZES = Reading(
    "x1,y1,x2,y2",
    lambda x1, y1, x2, y2: (x1, y1, x2 - x1, y2 - y1),
    "write x2 - x1 and y2 - y1 for width and height",
)
CENTRES_FOR_SIZES = Reading(
    "x and y of the centre",
    lambda x1, y1, x2, y2: ((3 * x1 - x2) / 2, (3 * y1 - y2) / 2, (x1 + x2) / 2, (y1 + y2) / 2),
    "subtract half the width from x and half the height from y",
)
# Of boxes that the file gives by their centres and sizes.
CENTRE_READINGS = (
    Reading(
        "x1,y1,x2,y2",
        lambda x1, y1, x2, y2: ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1),
        "write x and y of the centre, then width and height",
    ),
    Reading(
        "x and y of the upper left corner",
        lambda x1, y1, x2, y2: ((x1 + x2) / 2, (y1 + y2) / 2, (3 * x2 - x1) / 2, (3 * y2 - y1) / 2),
        "add half the width to x and half the height to y",
    ),
)


COCO_READINGS = (
    CORNERS_FOR_SIZES,
    CENTRES_FOR_SIZES,
    Reading("y,x,height,width", lambda x1, y1, x2, y2: (y1, x1, y2, x2), "exchange x and y"),
)
# By what the file has, beside those of its format.
READINGS_OF = {
    "corners": (),
    "sizes": (CORNERS_FOR_SIZES, CENTRES_FOR_SIZES),
    "centres": CENTRE_READINGS,
}


def check_boxes(
    data: Annotations,
    paths: Sequence[str | Path],
    sizes: Sequence[Size],
    readings: Sequence[Reading],
    problems: Problems,
) -> tuple[Annotations, list[str]]:
    """Find boxes of no size and boxes outside their images; clip those partly outside.

    Args:
        data: the boxes.
        paths: of the images.
        sizes: of the images.
        readings: what else the numbers may mean; said where that fits the images.
        problems: takes in what is found.

    Returns:
        The boxes, in pixels and inside their images but for those that are problems; and notes on
        boxes that may be meant otherwise.
    """
    readings = (*readings, *READINGS_OF[data.kind])
    if data.in_fractions:
        data = _in_pixels(data, sizes)
    elif text := fractions_text(data.boxes[:, :4]):
        row = int(np.argmin(data.lines))
        problems.add_one("fractions", f"{data.entry(row)}{text}", int(data.lines[row]))
    check = _BoxCheck(data, paths, sizes, readings)
    x1, y1, x2, y2 = check.corners[:, check.misfits]
    width, height = check.limits[:, check.misfits]
    empty = (x2 <= x1) | (y2 <= y1)
    known = (width > 0) & ~empty
    outside = known & ((x2 <= 0) | (y2 <= 0) | (x1 >= width) | (y1 >= height))
    clipped = check.misfits[known & ~outside]
    empty, outside = check.misfits[empty], check.misfits[outside]
    lines = data.lines
    problems.add("box of no size", lines[empty], lambda k: check.no_size(empty[k]))
    problems.add(
        "box outside its image", lines[outside], lambda k: check.beyond(outside[k], "lies outside")
    )
    clip = problems.add if check.mean_something_else else problems.repair
    clip(
        "box clipped to its image",
        lines[clipped],
        lambda k: check.beyond(clipped[k], "reaches outside"),
    )
    notes = check.notes(problems.path)
    boxes = data.boxes.copy(order="K")
    for corner, limit in zip(boxes.T[:4], (*check.limits, *check.limits), strict=True):
        np.clip(corner, 0, limit, out=corner)
    return replace(data, boxes=boxes), notes


def fractions_text(boxes: Array) -> str:
    """Message about [M, 4] boxes most of which are fractions of their images; "" for pixels."""
    small = ((boxes >= -FRACTION_OVERHANG) & (boxes <= 1 + FRACTION_OVERHANG)).all(axis=1)
    count = np.count_nonzero(small)
    if count <= len(boxes) / 2 or (boxes[small] == np.rint(boxes[small])).all():
        return ""
    first = ",".join(f"{value:g}" for value in boxes[int(np.argmax(small))])
    return (
        f"{count:,} of {len(boxes):,} boxes lie in 0..1, as fractions of the image: {first};"
        " expected pixels; multiply by the image's width and height"
    )


def _in_pixels(data: Annotations, sizes: Sequence[Size]) -> Annotations:
    per_image = np.array(sizes, float).reshape(-1, 2)[:, [1, 0, 1, 0]]
    per_image[per_image == 0] = 1  # of images that cannot be read, which are problems or left out
    boxes = data.boxes.copy(order="K")
    boxes[:, :4] *= per_image[data.owners()]
    return replace(data, boxes=boxes, in_fractions=False)


def _fits(corners: Sequence[Array] | Array, limits: Array) -> Array:
    """[boxes] whether x1 < x2, y1 < y2, and the box lies inside its image but for the overhang."""
    x1, y1, x2, y2 = corners
    width, height = limits
    within = (x1 >= -OVERHANG) & (y1 >= -OVERHANG)
    within &= (x2 <= width + OVERHANG) & (y2 <= height + OVERHANG)
    within &= (x1 < width) & (y1 < height) & (x2 > 0) & (y2 > 0)  # something of it is inside
    return within & (x1 < x2) & (y1 < y2)


class _BoxCheck:
    """The boxes of a file beside the sizes of their images, and what to say of them."""

    def __init__(
        self,
        data: Annotations,
        paths: Sequence[str | Path],
        sizes: Sequence[Size],
        readings: Sequence[Reading],
    ) -> None:
        self.data, self.paths, self.sizes, self.readings = data, paths, sizes, readings
        self.owners = data.owners()
        per_image = np.array(sizes, float).reshape(-1, 2).T
        self.limits = per_image[::-1][:, self.owners]  # [2, boxes] width, height; 0 where unknown
        self.corners = data.boxes[:, :4].T
        misfits = np.flatnonzero(~_fits(self.corners, self.limits))
        self.misfits = misfits[np.argsort(data.lines[misfits], kind="stable")]
        self.turned = self._turned()
        self.likely_text = self._likely_readings()

    def _turned(self) -> list[int]:
        """Images whose boxes fit only the picture as stored, before EXIF turned it."""
        owners = self.owners[self.misfits]
        return [
            image
            for image in np.unique(owners[self.limits[0, self.misfits] > 0]).tolist()
            if self._fits_sideways(image) and is_sideways(self.paths[image])
        ]

    def _fits_sideways(self, image: int) -> bool:
        limits = np.array(self.sizes[image], float)  # height and width in the place of each other
        boxes = self.data.boxes_of(image)[:, :4].T
        return bool(_fits(boxes, limits[:, None]).all())

    def _likely_readings(self) -> str:
        """Other meanings of the numbers that fit the images far better; "" where there are none."""
        if len(self.misfits) <= SUSPICIOUS * len(self.owners):
            return ""
        known = self.limits[0] > 0
        corners, limits = self.corners[:, known], self.limits[:, known]
        count, misfits = len(limits[0]), np.count_nonzero(~_fits(corners, limits))
        left = [np.count_nonzero(~_fits(r.corners(*corners), limits)) for r in self.readings]
        if min(left) >= misfits / 10:
            return ""
        likely = [r for r, misses in zip(self.readings, left, strict=True) if misses == min(left)]
        meanings = "; or as ".join(f"{reading.name}: {reading.advice}" for reading in likely)
        return f"{count - min(left):,} of {count:,} boxes fit as {meanings}"

    @property
    def mean_something_else(self) -> bool:
        """Whether most boxes do not fit their images, and would with another meaning.

        Not where turning the picture as EXIF says makes the difference, of which there is a note.
        """
        count = int(np.count_nonzero(~np.isin(self.owners[self.misfits], self.turned)))
        return bool(self.likely_text) and 2 * count > len(self.owners) > 1

    def _look_like_percent(self) -> bool:
        """Whether all boxes lie within 100 pixels of images twice as large, some in fractions."""
        corners = self.corners
        return (
            len(self.owners) >= LEAST_PERCENT
            and bool((corners >= 0).all() and (corners <= 100).all() and (self.limits >= 200).all())
            and bool((corners[2:] > 50).any() and (corners != np.rint(corners)).any())
        )

    def no_size(self, row: int) -> str:
        """Message about a box whose second corner is not beyond its first one."""
        x1, y1, x2, y2 = self.corners[:, row]
        found = f"x2 ({x2:g}) is not greater than x1 ({x1:g})"
        if x2 > x1:
            found = f"y2 ({y2:g}) is not greater than y1 ({y1:g})"
        return f"{self.data.entry(row)}{found}; expected x1,y1,x2,y2; {self._advice(row)}"

    def beyond(self, row: int, where: str) -> str:
        """Message about a box that is not inside its image."""
        box = ",".join(f"{value:g}" for value in self.corners[:, row])
        width, height = self.limits[:, row]
        name = shown(self.data.names[self.owners[row]])
        return (
            f"{self.data.entry(row)}box {box} {where} {name}; expected 0,0 to {width:g},{height:g};"
            f" {self._advice(row)}"
        )

    def _advice(self, row: int) -> str:
        if self.owners[row] in self.turned:
            return "the box fits the file before EXIF turns it: turn the boxes, or the file"
        if self.likely_text:
            return self.likely_text
        for reading in self.readings:
            if _fits(reading.corners(*self.corners[:, row]), self.limits[:, row]):
                return f"if this is {reading.name}, {reading.advice}"
        return "correct or remove the box"

    def notes(self, path: str | Path) -> list[str]:
        """Notes on boxes that may be meant otherwise."""
        notes = []
        if self._look_like_percent():
            notes.append(
                f"{path}: all {len(self.owners):,} boxes lie in 0..100 of larger images, in"
                " fractions; if they are percent, multiply by the image's width and height / 100"
            )
        if self.likely_text:
            notes.append(
                f"{path}: boxes that reach outside their images: {len(self.misfits):,};"
                f" {self.likely_text}, if they are meant so"
            )
        if self.turned:
            names = ", ".join(printable(self.paths[image]) for image in self.turned[:NAMED])
            more = len(self.turned) - NAMED
            names += f" and {more:,} more" if more > 0 else ""
            notes.append(
                f"{names}: boxes fit the file as stored, not upright as EXIF says it is shown; "
                "turn the boxes, or remove the orientation from the file"
            )
        return notes
