"""LabelMe: a `.json` an image, beside it, with rectangles and polygons."""

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from retinanet.data.formats.labels import (
    LOOKED_AT,
    Box,
    Image,
    Labels,
    Listing,
    Sets,
    by_stem,
    described_image,
    folder_set,
    joined,
    left_out,
    sets_by_folder,
    side,
)
from retinanet.data.problems import Problems, became_boxes, without_boxes
from retinanet.errors import printable, shown

SNIFFED = 1_000_000  # bytes of a file in which its kind shows
LEAST_POINTS = {"rectangle": 2, "polygon": 3}
# Other names of polygons: rotated boxes of LabelMe and X-AnyLabeling.
POLYGONS = ("rotation", "oriented_rectangle", "quadrilateral")


def find_labelme(listing: Listing) -> Sets:
    """The sets of a folder with LabelMe's `.json` files, or none where there are none."""
    files = listing.files(".json") if listing.is_folder else []
    if not any(_is_labelme(file) for file in files[:LOOKED_AT]):
        return {}
    return sets_by_folder(listing, files, _read)


def _is_labelme(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            start = stream.read(SNIFFED)
    except OSError:
        return False
    return b'"shapes"' in start and (b'"imagePath"' in start or b'"version"' in start)


def _read(listing: Listing, files: list[Path], problems: Problems) -> Labels:
    kinds: Counter[str] = Counter()
    root = listing.path
    images = list(_images(root, files, by_stem(listing.images), kinds, problems))
    names = tuple(sorted({box.name for image in images for box in image.boxes}))
    annotations, paths = joined(root, images, names, problems)
    name = folder_set(files[0], root)
    notes = left_out(listing, name, paths, "an annotation file")
    notes += [
        without_boxes(count, kind)
        for kind, count in sorted(kinds.items())
        if kind not in LEAST_POINTS
    ]
    if kinds["polygon"]:
        notes.append(became_boxes(kinds["polygon"], "polygon"))
    sizes = [image.size for image in images]
    return Labels(names, annotations, paths, tuple(notes), sizes)


def _images(
    root: Path,
    files: list[Path],
    pictures: Mapping[str, Sequence[Path]],
    kinds: Counter[str],
    problems: Problems,
) -> Iterator[Image]:
    """The image of each file, with its boxes.

    Args:
        root: the folder of the data.
        files: the `.json` files.
        pictures: the images below it, by stem.
        kinds: takes in the types of shapes.
        problems: takes in what is wrong.
    """
    for file in files:
        place = printable(file)
        try:
            content = json.loads(file.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            text = f"not JSON ({error}); correct or remove it"
            problems.add_one("unreadable annotation", f"{place}: {text}")
            continue
        if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
            continue  # another tool's JSON, which is beside the data
        named = content.get("imagePath")
        named = named if isinstance(named, str) else ""
        image = described_image(file, named, pictures, root, problems)
        if image is None:
            continue
        boxes = []
        for k, shape in enumerate(content["shapes"]):
            entry = f"{place}: object {k}"
            found = _box(shape, entry, kinds)
            if isinstance(found, str):
                problems.add_one("wrong object", f"{entry}: {found}")
            elif found:
                boxes.append(found)
        height, width = (side(content.get(name)) for name in ("imageHeight", "imageWidth"))
        yield Image(image, boxes, (height, width))


def _box(shape: Any, entry: str, kinds: Counter[str]) -> Box | str | None:
    """The box around a shape, or what is wrong with it; None of a type that has no box."""
    if not isinstance(shape, dict):
        return f"{shown(shape)}; expected a shape with label and points; correct it"
    label, points = shape.get("label"), shape.get("points")
    kind = str(shape.get("shape_type") or "polygon")
    kind = "polygon" if kind in POLYGONS else kind
    if not isinstance(label, str) or not label.strip():
        return f"label {shown(label)}; expected the name of a class; correct it"
    if kind in ("circle", "line", "point", "linestrip", "points", "mask"):
        kinds[kind] += 1
        return None
    if kind not in LEAST_POINTS:
        return f"shape_type {shown(kind)}; expected rectangle or polygon; correct it"
    try:
        xs, ys = ([float(point[axis]) for point in points or ()] for axis in (0, 1))
    except (TypeError, ValueError, OverflowError, LookupError):
        xs = ys = []
    if len(xs) < LEAST_POINTS[kind] or not all(map(math.isfinite, xs + ys)):
        return f"points {shown(points)}; expected {LEAST_POINTS[kind]} or more; correct it"
    kinds[kind] += 1
    return Box((min(xs), min(ys), max(xs), max(ys)), label.strip(), entry)
