"""Render the built-in "shapes" data set: pictures, CSV and COCO files, without any download.

Rings, squares, stars and triangles of every colour lie on photographs that come with scikit-image.
The same seed gives the same pixels. It knows nothing of models, datasets or training.
"""

import colorsys
import csv
import json
import math
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage import data, draw

from retinanet.errors import DataError

VERSION = 2  # of the rendering: raise it when the same seed is to give other files
CLASS_NAMES = ("ring", "square", "star", "triangle")  # by label
TRAIN_IMAGES, VAL_IMAGES = 460, 60
LONG_SIDE, SHORT_SIDE = 320, 240  # of a picture, pixels
PORTRAITS = 0.4  # of the pictures stand upright
EMPTY_EVERY = 30  # the 30th, 60th, ... picture of a split holds no object
MAX_SHAPES = 3  # in one picture
DIAMETERS = (80, 220)  # of the circle around a shape, pixels; small ones are the more frequent
MAX_TILT = math.radians(15)  # either way
MAX_HIDDEN = 0.4  # of a box, by the boxes of later shapes together
PLACEMENT_TRIES = 20  # a shape that finds no room by then is left out
PHOTOGRAPHS = ("brick", "chelsea", "coffee", "grass", "gravel", "hubble_deep_field", "rocket")

# Distance of each corner from the centre, around the circle from the top. A ring has none.
CORNERS = {
    "square": (math.sqrt(0.5), 1.0) * 4,  # the middle of a side, then a corner
    "star": (1.0, 0.45) * 5,
    "triangle": (1.0,) * 3,
}

HOLE = 0.55  # of the ring's radius
CELLS = 2  # along a pixel's side, for smooth edges
GOLDEN_RATIO = (math.sqrt(5) - 1) / 2  # steps of this size keep the hues of a picture apart
Box = tuple[int, int, int, int]  # xyxy, whole pixels; x2 and y2 lie behind the last pixel


@dataclass(frozen=True)
class SampleData:
    """Files of the data set, to be named to a training as CSV or as COCO."""

    csv_train: Path
    csv_val: Path
    csv_classes: Path
    coco_root: Path


class Shape(NamedTuple):
    """One object of a picture."""

    label: int
    box: Box


class DrawnImage(NamedTuple):
    """One rendered image of a split."""

    path: str  # below the root, in COCO's folders; the CSV files name it so too
    size: tuple[int, int]  # height, width
    shapes: list[Shape]


# ---- files


def write_shapes(
    folder: Path, *, train_images: int = TRAIN_IMAGES, val_images: int = VAL_IMAGES, seed: int = 0
) -> SampleData:
    """Write the data set into `folder`, or find it there from an earlier run.

    It is rendered beside `folder` and renamed at the end, so `folder` never holds half of it.

    Args:
        folder: is made; what is there already must be empty or this very data set.
        train_images: pictures to train on.
        val_images: pictures to validate on.
        seed: of every random choice; a larger set begins with the pictures of a smaller one.

    Raises:
        DataError: `folder` holds something else; nothing in it is touched.
    """
    counts = {"train": train_images, "val": val_images}
    settings = {"version": VERSION, "seed": seed, **counts}
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        _check_identical(folder, settings, counts)
    else:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as beside:
            fresh = Path(beside, folder.name)
            for number, (split, count) in enumerate(counts.items()):
                _write_split(fresh, split, count, (seed, number))
            _write_csv(fresh / "classes.csv", [(name, i) for i, name in enumerate(CLASS_NAMES)])
            _write_json(fresh / "shapes.json", settings)
            if folder.exists():
                folder.rmdir()  # Windows renames onto nothing, not even onto an empty folder
            fresh.rename(folder)
    return SampleData(folder / "train.csv", folder / "val.csv", folder / "classes.csv", folder)


def _check_identical(folder: Path, settings: dict[str, int], counts: dict[str, int]) -> None:
    """Raise unless `folder` holds all files of the data set with these settings."""
    advice = "delete it or choose another folder; nothing was written"
    try:
        found = json.loads((folder / "shapes.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise DataError(f"{folder} holds something other than the shapes data; {advice}") from None
    if found != settings:
        raise DataError(f"{folder} holds the shapes data of {found}, not of {settings}; {advice}")
    files = ["classes.csv"]
    for split, count in counts.items():
        files += [f"{split}.csv", f"annotations/instances_{split}2017.json"]
        files += [_image_path(split, number) for number in range(1, count + 1)]
    missing = [file for file in files if not (folder / file).is_file()]
    if missing:
        raise DataError(f"{folder} lacks {len(missing)} of its files ({missing[0]}); {advice}")


def _image_path(split: str, number: int) -> str:
    return f"images/{split}2017/{number:04d}.jpg"


def _write_split(root: Path, split: str, count: int, seed: tuple[int, int]) -> None:
    """Render the pictures of a split and write them, with their annotations in both formats."""
    (root / "images" / f"{split}2017").mkdir(parents=True)
    pictures = []
    for number in range(1, count + 1):
        rng = np.random.default_rng((*seed, number))
        pixels, shapes = render(rng, most=0 if number % EMPTY_EVERY == 0 else MAX_SHAPES)
        path = _image_path(split, number)
        Image.fromarray(pixels).save(root / path, quality=92, subsampling=0)
        pictures.append(DrawnImage(path, (pixels.shape[0], pixels.shape[1]), shapes))
    _write_csv(root / f"{split}.csv", csv_rows(pictures))
    _write_json(root / "annotations" / f"instances_{split}2017.json", coco_instances(pictures))


def csv_rows(pictures: list[DrawnImage]) -> list[tuple[object, ...]]:
    """Rows `path, x1, y1, x2, y2, class`: one for each object, one for an empty picture."""
    rows: list[tuple[object, ...]] = []
    for path, _, shapes in pictures:
        rows += [(path, *box, CLASS_NAMES[label]) for label, box in shapes]
        if not shapes:
            rows.append((path, *[""] * 5))
    return rows


def coco_instances(pictures: list[DrawnImage]) -> dict[str, list[dict[str, object]]]:
    """The same as COCO's instances; ids count from 1, the area is the box's."""
    result: dict[str, list[dict[str, object]]] = {"images": [], "annotations": []}
    for image_id, (path, (height, width), shapes) in enumerate(pictures, 1):
        size = {"height": height, "width": width}
        result["images"].append({"id": image_id, "file_name": Path(path).name, **size})
        for label, (x1, y1, x2, y2) in shapes:
            ids = {"id": len(result["annotations"]) + 1, "image_id": image_id}
            bbox, area = [x1, y1, x2 - x1, y2 - y1], (x2 - x1) * (y2 - y1)
            kind = {"category_id": label + 1, "iscrowd": 0}
            result["annotations"].append({**ids, **kind, "bbox": bbox, "area": area})
    result["categories"] = [{"id": i, "name": name} for i, name in enumerate(CLASS_NAMES, 1)]
    return result


def _write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def _write_json(path: Path, content: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


# ---- pixels


def render(
    rng: np.random.Generator, most: int = MAX_SHAPES
) -> tuple[NDArray[np.uint8], list[Shape]]:
    """Draw one picture.

    Args:
        rng: makes every choice.
        most: objects, at most; at least 1 unless this is 0.

    Returns:
        [H, W, 3] RGB, and the objects in the order in which they were drawn.
    """
    upright = rng.random() < PORTRAITS
    height, width = (LONG_SIDE, SHORT_SIDE) if upright else (SHORT_SIDE, LONG_SIDE)
    canvas = background(rng, height, width)
    hue = rng.random()
    shapes: list[Shape] = []
    for _ in range(rng.integers(1, most, endpoint=True) if most else 0):
        label = int(rng.integers(len(CLASS_NAMES)))
        diameter = round(math.exp(rng.uniform(math.log(DIAMETERS[0]), math.log(DIAMETERS[1]))))
        coverage = shape_coverage(CLASS_NAMES[label], diameter, rng.uniform(-MAX_TILT, MAX_TILT))
        hue += GOLDEN_RATIO
        color = colorsys.hsv_to_rgb(hue % 1, rng.uniform(0.5, 0.9), rng.uniform(0.8, 1))
        box = find_room(rng, (height, width), coverage.shape, [shape.box for shape in shapes])
        if box:
            x1, y1, x2, y2 = box
            region = canvas[y1:y2, x1:x2]
            region += coverage[..., None] * (255 * np.array(color) - region)
            shapes.append(Shape(label, box))
    return canvas.round().astype(np.uint8), shapes


@lru_cache(maxsize=len(PHOTOGRAPHS))
def photograph(name: str) -> Image.Image:
    """A photograph that is part of scikit-image's installation, as RGB."""
    return Image.fromarray(getattr(data, name)()).convert("RGB")


def background(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float64]:
    """A part of a photograph, perhaps mirrored, tinted and dimmed so that shapes stand out.

    Returns:
        [H, W, 3] RGB, 0..255.
    """
    photo = photograph(PHOTOGRAPHS[rng.integers(len(PHOTOGRAPHS))])
    zoom = rng.uniform(0.5, 1) * min(photo.width / width, photo.height / height)
    left = rng.uniform(0, photo.width - zoom * width)
    top = rng.uniform(0, photo.height - zoom * height)
    part = (left, top, left + zoom * width, top + zoom * height)
    pixels = np.asarray(photo.resize((width, height), Image.Resampling.BILINEAR, box=part))
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    return 0.4 * pixels + 0.25 * rng.uniform(0, 255, 3)


def shape_coverage(name: str, diameter: int, tilt: float) -> NDArray[np.float64]:
    """Draw a shape, cut to its box: the pixels that it covers by half or more.

    Args:
        name: one of `CLASS_NAMES`.
        diameter: of the circle around it, pixels.
        tilt: counter-clockwise, radians.

    Returns:
        [h, w] how much of each pixel it covers, 0..1.
    """
    side = diameter * CELLS
    radius, center = side / 2, (side - 1) / 2
    mask = np.zeros((side, side), bool)
    if name == "ring":
        for reach, inside in ((radius, True), (HOLE * radius, False)):
            mask[draw.disk((center, center), reach)] = inside
    else:
        reaches = radius * np.array(CORNERS[name])
        turns = tilt + np.linspace(0, 2 * math.pi, len(reaches), endpoint=False)
        # Rounded, because the last bits of a cosine differ between machines.
        rows, columns = center - (reaches * np.array((np.cos(turns), np.sin(turns)))).round(2)
        mask[draw.polygon(rows, columns, mask.shape)] = True
    coverage: NDArray[np.float64] = mask.reshape(diameter, CELLS, diameter, CELLS).mean(axis=(1, 3))
    y, x = (np.flatnonzero((coverage >= 0.5).any(axis=axis)) for axis in (1, 0))
    return coverage[y[0] : y[-1] + 1, x[0] : x[-1] + 1]


def find_room(
    rng: np.random.Generator, canvas: Sequence[int], size: Sequence[int], boxes: list[Box]
) -> Box | None:
    """Place for a box of `size` (h, w) on a canvas (H, W) that holds `boxes`, if there is one."""
    for _ in range(PLACEMENT_TRIES):
        y, x = (int(rng.integers(canvas[axis] - size[axis], endpoint=True)) for axis in (0, 1))
        box = (x, y, x + size[1], y + size[0])
        if max_hidden([*boxes, box]) <= MAX_HIDDEN:
            return box
    return None


def max_hidden(boxes: list[Box]) -> float:
    """The largest part of a box that later boxes hide, added up: 0..1 or more."""
    return max(
        sum(overlap(box, later) for later in boxes[index + 1 :]) / overlap(box, box)
        for index, box in enumerate(boxes)
    )


def overlap(one: Box, other: Box) -> int:
    """Area that two boxes share, square pixels."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0) * max(height, 0)
