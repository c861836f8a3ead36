"""What annotations and images must agree on: each image is there, each box inside its image."""

import os
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from retinanet.annotations import Annotations, Array, Problems, shown
from retinanet.errors import DataError
from retinanet.images import image_size, is_sideways

OVERHANG = 0.5  # pixels a box may lie outside its image before clipping it is worth a word

Size = tuple[int, int]  # (height, width) of an upright image


def find_root(roots: Sequence[Path], data: Annotations, advice: str, problems: Problems) -> Path:
    """The first folder that holds every image; else an error that names those missing."""
    names = data.names
    missing = [_missing(root, names) for root in roots]
    for root, absent in zip(roots, missing, strict=True):
        if not absent:
            return root
    best = min(missing, key=len)
    tried = " and ".join(str(root.absolute()) for root in roots)
    problems.add(
        data.first_lines[best],
        lambda k: (
            f"no image {shown(names[best[k]])} in {tried}; "
            f"expected all images of a file under one folder; {advice}"
        ),
    )
    problems.raise_if_any()
    raise AssertionError("a folder that lacks images has named them")


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


def read_sizes(paths: Sequence[Path], lines: Array, problems: Problems) -> list[Size]:
    """The size of each image, from the headers, read in parallel."""

    def size_or_error(path: Path) -> Size | DataError:
        try:
            return image_size(path)
        except DataError as error:
            return error

    with ThreadPoolExecutor(min(16, 4 * (os.cpu_count() or 1))) as pool:
        found = list(pool.map(size_or_error, paths))
    bad = [k for k, size in enumerate(found) if isinstance(size, DataError)]
    problems.add(lines[bad], lambda k: str(found[bad[k]]))
    problems.raise_if_any()
    return [size for size in found if not isinstance(size, DataError)]


def check_boxes(
    data: Annotations, paths: Sequence[Path], sizes: Sequence[Size], problems: Problems
) -> list[str]:
    """Clip boxes to their images, in place; stop where nothing of a box is inside.

    Returns:
        Notes on images whose boxes fit only the picture as stored, before EXIF turned it.
    """
    owners = np.repeat(np.arange(len(sizes)), np.diff(data.offsets))
    limits = np.array(sizes)[owners][:, [1, 0, 1, 0]]  # [boxes, 4] W, H, W, H
    boxes = data.boxes[:, :4]
    outside = (boxes[:, 2:] <= 0).any(axis=1) | (boxes[:, :2] >= limits[:, :2]).any(axis=1)
    over = outside | ((boxes < -OVERHANG) | (boxes > limits + OVERHANG)).any(axis=1)
    turned = [
        image
        for image in np.unique(owners[over]).tolist()
        if _fits_sideways(data.boxes_of(image), sizes[image]) and is_sideways(paths[image])
    ]
    rows = np.flatnonzero(outside)

    def describe(k: int) -> str:
        x1, y1, x2, y2 = boxes[rows[k]].tolist()
        height, width = sizes[owners[rows[k]]]
        advice = "correct or remove the box"
        if owners[rows[k]] in turned:
            advice = "the box fits the file before EXIF turns it: turn the boxes, or the file"
        elif y1 < width and x1 < height and min(x2, y2) > 0:
            advice = "if x and y are exchanged, exchange them back"
        return (
            f"box {x1:g},{y1:g},{x2:g},{y2:g} lies outside {shown(data.names[owners[rows[k]]])}; "
            f"expected 0,0 to {width},{height}; {advice}"
        )

    rows = rows[np.argsort(data.lines[rows], kind="stable")]
    problems.add(data.lines[rows], describe)
    problems.raise_if_any()
    if over.any():
        data.repaired["box clipped to its image"] = int(over.sum())
    np.clip(boxes, 0, limits, out=boxes)
    return [
        f"{paths[image]}: its boxes fit the file as stored, not upright as EXIF says it is shown; "
        "turn the boxes, or remove the orientation from the file"
        for image in turned
    ]


def _fits_sideways(boxes: Array, size: Size) -> bool:
    """Whether all boxes lie inside an image of exchanged height and width."""
    height, width = size
    limits = np.array([height, width, height, width]) + OVERHANG
    return bool(((boxes[:, :4] >= -OVERHANG) & (boxes[:, :4] <= limits)).all())


def known_sizes(images: list[Any], paths: list[Path], problems: Problems) -> list[Size]:
    """The size of each image as COCO's JSON says; from the file's header where it does not."""
    sizes = [(image.get("height"), image.get("width")) for image in images]
    unknown = [
        k for k, size in enumerate(sizes) if not all(isinstance(s, int) and s > 0 for s in size)
    ]
    read = read_sizes([paths[k] for k in unknown], np.zeros(len(unknown), int), problems)
    for k, size in zip(unknown, read, strict=True):
        sizes[k] = size
    return sizes
