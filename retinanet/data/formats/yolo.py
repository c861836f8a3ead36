"""YOLO: a `.txt` an image, beside `data.yaml`, `classes.txt` or `obj.names`.

A line is `class x y width height`, as fractions of the image's size, x and y of the centre. A line
of a class and three or more points is a polygon, of a class and four points a rotated box: both
become the box around them.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from retinanet.data.formats.labels import (
    Box,
    Image,
    Labels,
    Sets,
    folder_set,
    found_below,
    images_below,
    joined,
)
from retinanet.data.image_sizes import read_sizes
from retinanet.data.images import UNKNOWN, Size
from retinanet.data.problems import Problems
from retinanet.errors import DataError, shown

NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels", "labels/classes.txt")
NOT_LABELS = {"classes.txt", "train.txt", "val.txt", "valid.txt", "test.txt", "readme.txt"}
ROW = "expected `class x y width height`, fractions of the image's size"
PIXELS = 2.0  # a number above it is no fraction: not even of a box that reaches outside


def find_yolo(path: Path) -> Sets:
    """The sets of a YOLO folder, of its `data.yaml`, or none where it is no YOLO data.

    Raises:
        DataError: a `data.yaml` that cannot be read, or whose sets are not there.
    """
    if path.is_dir():
        files = [file for file in sorted(path.glob("*.y*ml")) if _looks_like_data(file)]
        if len(files) > 1:
            files = [file for file in files if file.stem == "data"] or files
        return _yaml_sets(files[0]) if files else _folder_sets(path)
    is_yaml = path.suffix.lower() in (".yaml", ".yml")
    return _yaml_sets(path) if is_yaml and _looks_like_data(path) else {}


def _looks_like_data(file: Path) -> bool:
    """Whether a YAML file names classes and a set, by its text alone."""
    try:
        text = file.read_bytes()[:1_000_000].decode("utf-8", "replace")
    except OSError:
        return False
    return bool(re.search(r"^names\s*:", text, re.M) and re.search(r"^(train|val)\s*:", text, re.M))


# ---- data.yaml


def _yaml_sets(file: Path) -> Sets:
    content = _read_yaml(file)
    names = _names(file, content)
    root = _root(file, content)
    keypoints = "kpt_shape" in content
    sets: Sets = {}
    for key in ("train", "val", "valid", "test"):
        given = content.get(key)
        if not given:
            continue
        places = given if isinstance(given, list) else [given]
        if not all(isinstance(place, str) for place in places):
            raise DataError(
                f"{file}: {key} is {shown(given)}; expected a folder, a list, or a .txt"
            )
        found = {place: _place(root, file, place) for place in places}
        lost = [place for place, there in found.items() if there is None]
        if lost and key == "test":
            continue  # exports name the folder whether or not there is one
        if lost:
            raise DataError(
                f"{file}: {key}: {shown(lost[0])} is not below {root}; expected a folder of images,"
                " or a .txt that lists them; correct it, or set path: to the folder of the data"
            )
        there = [place for place in found.values() if place]
        sets["val" if key == "valid" else key] = _Set(root, names, there, keypoints=keypoints).read
    if not sets:
        raise DataError(f"{file}: no train, val or test; expected at least one; add it")
    return sets


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_bytes())
    except OSError as error:
        raise DataError(f"{file}: {error.strerror}; expected YOLO's data.yaml") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{file}: not YAML ({reason}); correct it") from error
    if not isinstance(content, dict):
        raise DataError(f"{file}: {shown(content)}; expected train, val and names; correct it")
    return content


def _names(file: Path, content: dict[str, Any]) -> tuple[str, ...]:
    """The class names, of a list, or of a map from 0, 1, ..."""
    names = content.get("names")
    if isinstance(names, dict):
        ids = list(names)
        if sorted(map(str, ids)) != sorted(map(str, range(len(ids)))):
            raise DataError(f"{file}: names has the ids {shown(ids)}; expected 0 to {len(ids) - 1}")
        names = [names[k] if k in names else names[str(k)] for k in range(len(ids))]
    if not isinstance(names, list) or not names:
        raise DataError(f"{file}: names is {shown(names)}; expected a list of the classes; add it")
    return _checked_names(file, [str(name) for name in names])


def _checked_names(file: Path, names: Sequence[str]) -> tuple[str, ...]:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{file}: the class {shown(twice[0])} twice; expected each once; rename it")
    return tuple(names)


def _root(file: Path, content: dict[str, Any]) -> Path:
    """The folder that the sets are relative to: `path`, where that is there; else the file's."""
    path = content.get("path")
    if isinstance(path, str) and path:
        for base in (file.parent / path, Path(path)):
            if base.is_dir():
                return base
    return file.parent


def _place(root: Path, file: Path, given: str) -> Path | None:
    """The folder or list of a set, below the folder of the data or beside the file."""
    return found_below(root, given) or found_below(file.parent, given)


# ---- folders without data.yaml


def _folder_sets(path: Path) -> Sets:
    """The sets of a folder with class names, and labels in `labels/` or beside the images."""
    candidates = [*(path / name for name in NAME_FILES), *sorted(path.glob("*/classes.txt"))]
    names_file = next((file for file in candidates if file.is_file()), None)
    if names_file is None:
        return {}
    lines = names_file.read_text(encoding="utf-8-sig", errors="replace").rstrip().splitlines()
    names = _checked_names(names_file, [line.strip() for line in lines])
    images = images_below(path)
    if not any(label_file(image).is_file() for image in images):
        return {}
    by_set: dict[str, list[Path]] = {}
    for image in images:
        by_set.setdefault(folder_set(image, path), []).append(image)
    return {name: _Set(path, names, images=found).read for name, found in by_set.items()}


# ---- images and labels


def label_file(image: Path) -> Path:
    """The labels of an image: in `labels/` where it lies in `images/`, else beside it."""
    parts = list(image.parts)
    for k in range(len(parts) - 2, -1, -1):
        if parts[k] in ("images", "Images"):
            parts[k] = "labels" if parts[k] == "images" else "Labels"
            in_labels = Path(*parts).with_suffix(".txt")
            return in_labels if in_labels.is_file() else image.with_suffix(".txt")
    return image.with_suffix(".txt")


@dataclass
class _Set:
    """One set: where its images are named, and the classes."""

    root: Path
    names: tuple[str, ...]
    places: Sequence[Path] = ()  # folders of images, and files that list them
    images: Sequence[Path] = ()
    keypoints: bool = False  # follow each box, and are left out
    shapes: Counter[str] = field(default_factory=Counter)

    def read(self, problems: Problems) -> Labels:
        """Read the labels of all images."""
        self.shapes.clear()
        paths = [*self.images]
        for place in self.places:
            paths += images_below(place) if place.is_dir() else self._listed(place, problems)
        paths = list(dict.fromkeys(paths))
        sizes = read_sizes(paths, np.zeros(len(paths), np.int64), problems)
        images = [
            Image(path, self._boxes(path, size, problems))
            for path, size in zip(paths, sizes, strict=True)
        ]
        empty = sum(not image.boxes for image in images)
        notes = [f"{empty:,} images without a label: background"] if empty else []
        notes += [
            f"{count:,} {kind} became the boxes around them" for kind, count in self.shapes.items()
        ]
        annotations, kept = joined(self.root, images, self.names, problems)
        return Labels(self.names, annotations, kept, tuple(notes), sizes)

    def _listed(self, file: Path, problems: Problems) -> list[Path]:
        """The images that a `.txt` names, a line each, relative to it or to the data's folder."""
        found = []
        lines = file.read_text(encoding="utf-8-sig", errors="replace").splitlines()
        for number, line in enumerate(lines, 1):
            name = line.strip()
            path = found_below(self.root, name) or found_below(file.parent, name)
            if path:
                found.append(path)
            elif name:
                text = f"no image {shown(name)} below {self.root}; correct the line"
                problems.add_one("missing image", f"{file}:{number}: {text}")
        return found

    def _boxes(self, image: Path, size: Size, problems: Problems) -> list[Box]:
        """The boxes in the label file of an image; without one it is background."""
        file = label_file(image)
        place = str(file)
        try:
            text = file.read_bytes().decode("utf-8-sig", "replace")
        except FileNotFoundError:
            return []
        except OSError as error:
            problems.add_one("unreadable labels", f"{place}: {error.strerror}")
            return []
        boxes = []
        for number, line in enumerate(text.splitlines(), 1):
            fields = line.split()
            if not fields:
                continue
            entry = f"{place}:{number}"
            found = self._box(fields, size, entry)
            if isinstance(found, Box):
                boxes.append(found)
            else:
                problems.add_one("wrong line", f"{entry}: {found}")
        return boxes if size != UNKNOWN else []

    def _box(self, fields: list[str], size: Size, entry: str) -> Box | str:
        """The box of a line, or what is wrong with it."""
        try:
            label, *numbers = [float(field) for field in fields]
        except ValueError:
            return f"{shown(' '.join(fields))}; {ROW}; correct it"
        if label not in range(len(self.names)):
            return f"class {fields[0]}; expected 0 to {len(self.names) - 1}; correct it"
        if not all(map(math.isfinite, numbers)):
            return f"{shown(' '.join(fields))}; {ROW}, finite; correct it"
        if self.keypoints:
            numbers = numbers[:4]
        if len(numbers) == 4:
            x, y, width, height = numbers
            corners = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        elif len(numbers) >= 6 and len(numbers) % 2 == 0:
            self.shapes["rotated boxes" if len(numbers) == 8 else "polygons"] += 1
            corners = (min(numbers[::2]), min(numbers[1::2]), max(numbers[::2]), max(numbers[1::2]))
        else:
            hint = (
                "a sixth number is a detection's score: remove it"
                if len(numbers) == 5
                else "correct it"
            )
            return f"{len(fields)} numbers; {ROW}, or a class and the points of a polygon; {hint}"
        if max(numbers) > PIXELS or min(numbers) < -1:
            return (
                f"{shown(' '.join(fields))}; {ROW}; these look like pixels: divide x and width by"
                " the image's width, y and height by its height"
            )
        height, width = size
        x1, y1, x2, y2 = corners
        return Box(
            (x1 * width, y1 * height, x2 * width, y2 * height), self.names[int(label)], entry
        )
