"""Checks of annotations against their images: files exist, sizes agree, boxes lie inside."""

import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from retinanet.data.annotations import Annotations, Array, Problems
from retinanet.data.images import UNKNOWN, Size, inspect_image, is_sideways
from retinanet.errors import DataError, printable, shown
from retinanet.runtime.files import READING_THREADS

HEADERS_AT_ONCE = 64  # sizes that a thread reads before it takes the next part


def find_root(
    roots: Sequence[Path], data: Annotations, advice: str, problems: Problems
) -> tuple[Path, list[int]]:
    """The first folder that holds every image, else the one that lacks fewest.

    Returns:
        The folder, and the positions of the images that it lacks, which are problems.
    """
    names = data.names
    missing: list[list[int]] = []
    for root in roots:
        missing.append(_missing(root, names))
        if not missing[-1]:
            return root, []
    absent = min(missing, key=len)
    tried = " and ".join(str(root.absolute()) for root in roots)
    problems.leave_out(
        "missing image",
        data.first_lines[absent],
        lambda k: (
            f"no image {shown(names[absent[k]])} in {tried}; "
            f"expected all images of a file under one folder; {advice}"
        ),
    )
    return roots[missing.index(absent)], absent


def _missing(root: Path, names: Sequence[str]) -> list[int]:
    """Which names do not exist: each folder is listed once, which is cheaper than a stat each."""
    by_folder: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for k, name in enumerate(names):
        folder, base = os.path.split(os.path.join(root, name))
        by_folder[folder].append((k, base))
    absent: list[int] = []
    for folder, entries in by_folder.items():
        try:
            there = set(os.listdir(folder or "."))
        except (OSError, ValueError):
            there = set()
        absent += [k for k, base in entries if base not in there]
    return sorted(absent)


def read_sizes(
    paths: Sequence[Path], lines: Array, problems: Problems, absent: Sequence[int] = ()
) -> list[Size]:
    """The size of each image, from the headers, read in parallel.

    Args:
        paths: the images.
        lines: [len(paths)] where a file names them.
        problems: takes in those that cannot be read.
        absent: positions of those known to be missing.

    Returns:
        One an image, `UNKNOWN` for the absent and the unreadable ones.
    """

    def inspected(indices: Sequence[int]) -> list[tuple[Size, str] | DataError]:
        found: list[tuple[Size, str] | DataError] = []
        for k in indices:
            try:
                found.append(inspect_image(paths[k]))
            except DataError as error:
                found.append(error)
        return found

    wanted = sorted(set(range(len(paths))).difference(absent))
    step = max(1, min(HEADERS_AT_ONCE, len(wanted) // READING_THREADS))
    parts = [wanted[start : start + step] for start in range(0, len(wanted), step)]
    with ThreadPoolExecutor(READING_THREADS) as pool:
        found = [facts for part in pool.map(inspected, parts) for facts in part]
    sizes, errors, broken = [UNKNOWN] * len(paths), {}, {}
    for k, facts in zip(wanted, found, strict=True):
        if isinstance(facts, DataError):
            errors[k] = facts
            continue
        sizes[k], repaired = facts
        if repaired:
            broken[k] = f"{printable(paths[k])}: {repaired}"
    bad = list(errors)
    problems.leave_out("unreadable image", lines[bad], lambda k: str(errors[bad[k]]))
    _note_broken(broken, lines, problems)
    return sizes


def _note_broken(broken: Mapping[int, str], lines: Array, problems: Problems) -> None:
    """Count and name the JPEGs that break off, and are read as far as they go."""
    ends = list(broken.values())
    problems.repair(
        "JPEG that breaks off",
        lines[list(broken)],
        lambda k: f"{ends[k]}; expected a whole JPEG; save it anew",
    )
    if ends and not problems.strict:
        more = f" and {len(ends) - NAMED:,} more" if len(ends) > NAMED else ""
        problems.remarks.append(f"read as far as they go: {'; '.join(ends[:NAMED])}{more}")


def check_sizes(
    images: Sequence[Any], paths: Sequence[Path], sizes: Sequence[Size], problems: Problems
) -> None:
    """Compare the sizes that COCO's JSON says, where it does, with those of the files.

    Args:
        images: the JSON's list.
        paths: of the images.
        sizes: of the files, which count.
        problems: takes in where the JSON says otherwise.
    """
    said = [(image.get("height"), image.get("width")) for image in images]
    other = [
        k
        for k, size in enumerate(sizes)
        if size not in (UNKNOWN, said[k]) and all(isinstance(side, int) for side in said[k])
    ]
    turned = [k for k in other if said[k] == sizes[k][::-1] and is_sideways(paths[k])]
    others = sorted(set(other).difference(turned))

    def found(k: int) -> str:
        (said_height, said_width), (height, width) = said[k], sizes[k]
        return (
            f"image {images[k]['id']}: {said_width} x {said_height} pixels;"
            f" expected {width} x {height} as in {shown(images[k]['file_name'])}"
        )

    problems.repair(
        "image size from before EXIF's rotation",
        [0] * len(turned),
        lambda k: (
            f"{found(turned[k])}, upright as EXIF says it is shown; correct it, and turn its boxes"
            " if they are for the file as stored"
        ),
    )
    problems.repair(
        "image size that is not the file's",
        [0] * len(others),
        lambda k: f"{found(others[k])}; correct it, and scale its boxes if the file was resized",
    )


OVERHANG = 0.5  # pixels a box may lie outside its image before clipping it is worth a word


SUSPICIOUS = 0.05  # of all boxes do not fit their images: perhaps their numbers mean something else


NAMED = 3  # images that a note names


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
)


COCO_READINGS = (
    Reading(
        "x1,y1,x2,y2",
        lambda x1, y1, x2, y2: (x1, y1, x2 - x1, y2 - y1),
        "write x2 - x1 and y2 - y1 for width and height",
    ),
    Reading("y,x,height,width", lambda x1, y1, x2, y2: (y1, x1, y2, x2), "exchange x and y"),
)


def check_boxes(
    data: Annotations,
    paths: Sequence[Path],
    sizes: Sequence[Size],
    readings: Sequence[Reading],
    problems: Problems,
) -> list[str]:
    """Find boxes of no size and boxes outside their images; clip those partly outside, in place.

    Args:
        data: the boxes.
        paths: of the images.
        sizes: of the images.
        readings: what else the numbers may mean; said where that fits the images.
        problems: takes in what is found.

    Returns:
        Notes on clipped boxes that would fit otherwise.
    """
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
    problems.repair(
        "box clipped to its image",
        lines[clipped],
        lambda k: check.beyond(clipped[k], "reaches outside"),
    )
    notes = check.notes(problems.path) if len(clipped) else []
    for corner, limit in zip(check.corners, (*check.limits, *check.limits), strict=True):
        np.clip(corner, 0, limit, out=corner)
    return notes


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
        paths: Sequence[Path],
        sizes: Sequence[Size],
        readings: Sequence[Reading],
    ) -> None:
        self.data, self.paths, self.sizes, self.readings = data, paths, sizes, readings
        self.owners = np.repeat(np.arange(len(sizes)), np.diff(data.offsets))
        per_image = np.array(sizes, float).reshape(-1, 2).T
        self.limits = per_image[::-1][:, self.owners]  # [2, boxes] width, height; 0 where unknown
        self.corners = data.boxes[:, :4].T
        misfits = np.flatnonzero(~_fits(self.corners, self.limits))
        self.misfits = misfits[np.argsort(data.lines[misfits], kind="stable")]
        self.turned = self._turned()
        self.likely, self.likely_text = self._likely_reading()

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

    def _likely_reading(self) -> tuple[Reading | None, str]:
        """Another meaning of the numbers that fits the images far better, and what to say of it."""
        if len(self.misfits) <= SUSPICIOUS * len(self.owners):
            return None, ""
        known = self.limits[0] > 0
        corners, limits = self.corners[:, known], self.limits[:, known]
        count, misfits = len(limits[0]), np.count_nonzero(~_fits(corners, limits))
        left = [np.count_nonzero(~_fits(r.corners(*corners), limits)) for r in self.readings]
        best = int(np.argmin(left))
        if left[best] >= misfits / 10:
            return None, ""
        reading = self.readings[best]
        fitting = f"{count - left[best]:,} of {count:,} boxes fit as {reading.name}"
        return reading, f"{fitting}: {reading.advice}"

    def no_size(self, row: int) -> str:
        """Of a box whose second corner is not beyond its first one."""
        x1, y1, x2, y2 = self.corners[:, row]
        found = f"x2 ({x2:g}) is not greater than x1 ({x1:g})"
        if x2 > x1:
            found = f"y2 ({y2:g}) is not greater than y1 ({y1:g})"
        return f"{self.data.entry(row)}{found}; expected x1,y1,x2,y2; {self._advice(row)}"

    def beyond(self, row: int, where: str) -> str:
        """Of a box that is not inside its image."""
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
        if self.likely:
            return self.likely_text
        for reading in self.readings:
            if _fits(reading.corners(*self.corners[:, row]), self.limits[:, row]):
                return f"if this is {reading.name}, {reading.advice}"
        return "correct or remove the box"

    def notes(self, path: str | Path) -> list[str]:
        """What a user should know of boxes that are clipped."""
        notes = []
        if self.likely:
            notes.append(
                f"{path}: {len(self.misfits):,} boxes reach outside their images;"
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
