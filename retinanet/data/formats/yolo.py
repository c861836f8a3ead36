"""YOLO: a `.txt` an image, beside `data.yaml`, `classes.txt` or `obj.names`.

A line is `class x y width height`, as fractions of the image's size, x and y of the centre. A line
of a class and three or more points is a polygon, of a class and four points a rotated box: both
become the box around them.
"""

import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from retinanet.data.decoding.formats import SUFFIXES
from retinanet.data.formats.labels import (
    Box,
    Image,
    Labels,
    Sets,
    divided,
    found_below,
    images_below,
    joined,
)
from retinanet.data.problems import Problems
from retinanet.errors import DataError, printable, shown

NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels", "labels/classes.txt")
NOT_LABELS = {"classes.txt", "train.txt", "val.txt", "valid.txt", "test.txt", "readme.txt"}
ROW = "expected `class x y width height`, fractions of the image's size"
MOST_YAML = 1_000_000  # bytes: the parser takes seconds for as many
SNIFFED = 1000  # bytes of a first line
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
    if not file.is_file():  # a pipe would hang, a device never end
        return False
    try:
        with file.open("rb") as stream:
            text = stream.read(MOST_YAML).decode("utf-8", "replace")
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
        if given in (None, "", "~", "null", []):
            continue
        places = given if isinstance(given, list) else [given]
        if not all(isinstance(place, str) for place in places):
            raise _wrong(file, f"{key} is {shown(given)}; expected a folder, a list, or a .txt")
        found = {place: _place(root, file, place) for place in places}
        lost = [place for place, there in found.items() if there is None]
        if lost and key == "test":
            continue  # exports name the folder whether or not there is one
        if lost:
            raise _wrong(
                file,
                f"{key}: {shown(lost[0])} is not below {printable(root)}; expected a folder of"
                " images, or a .txt that lists them; correct it, or set path: to the folder of the"
                " data",
            )
        there = [place for place in found.values() if place]
        sets["val" if key == "valid" else key] = _Set(root, names, there, keypoints=keypoints).read
    if not sets:
        raise _wrong(file, "no train, val or test; expected at least one; add it")
    return sets


def _wrong(file: Path, text: str) -> DataError:
    return DataError(f"{printable(file)}: {text}")


def _read_yaml(file: Path) -> dict[str, Any]:
    """The content of a file as texts, lists and maps.

    Nothing in it becomes a number, a date or an object of Python: `no` is a name of a class.
    """
    try:
        if file.stat().st_size > MOST_YAML:
            raise ValueError(f"more than {MOST_YAML:,} bytes")
        content = yaml.load(file.read_bytes(), yaml.BaseLoader)
    except OSError as error:
        raise _wrong(file, f"{error.strerror}; expected YOLO's data.yaml") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = printable(" ".join(str(error).split()))[:200]
        raise _wrong(file, f"not YAML ({reason}); correct it") from error
    if not isinstance(content, dict):
        raise _wrong(file, f"{shown(content)}; expected train, val and names; correct it")
    return content


def _names(file: Path, content: dict[str, Any]) -> tuple[str, ...]:
    """The class names, of a list, or of a map from 0, 1, ..."""
    names = content.get("names")
    if isinstance(names, dict):
        ids = [str(k) for k in range(len(names))]
        if set(names) != set(ids):
            found = shown(list(names))
            raise _wrong(file, f"names has the ids {found}; expected 0 to {len(ids) - 1}")
        names = [names[k] for k in ids]
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise _wrong(file, f"names is {shown(names)}; expected a list of the classes; add it")
    return _checked_names(file, names)


def _checked_names(file: Path, names: Sequence[str]) -> tuple[str, ...]:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise _wrong(file, f"the class {shown(twice[0])} twice; expected each once; rename it")
    odd = [name for name in names if printable(name) != name]
    if odd:
        raise _wrong(file, f"the class {shown(odd[0])}; expected no control characters; rename it")
    return tuple(names)


def _root(file: Path, content: dict[str, Any]) -> Path:
    """The folder that the sets are relative to: `path`, where that is there; else the file's."""
    path = content.get("path")
    if isinstance(path, str) and path:
        for base in (file.parent / path, Path(path)):
            if os.path.isdir(base):  # Path's own raises where a name is too long
                return base
    return file.parent


def _place(root: Path, file: Path, given: str) -> Path | None:
    """The folder or list of a set, below the folder of the data or beside the file."""
    if given.strip() in (".", "./"):
        return root
    found = found_below(root, given) or found_below(file.parent, given)
    return found if found and (found.is_dir() or found.is_file()) else None


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
    files = LabelFiles()
    if not any(files.of(image) for image in images):
        return {}
    by_set = divided(path, images)
    return {name: _Set(path, names, images=found).read for name, found in by_set.items()}


# ---- images and labels


class LabelFiles:
    """The label files of images: in `labels/` where these lie in `images/`, else beside them.

    Each folder is listed once.
    """

    def __init__(self) -> None:
        self._text_files = cache(_text_files)
        self._label_folders = cache(_label_folders)

    def of(self, image: Path) -> str:
        """The label file of an image; "" where there is none."""
        folder, name = os.path.split(image)
        label = f"{os.path.splitext(name)[0]}.txt"
        for place in self._label_folders(folder):
            if label in self._text_files(place):
                return os.path.join(place, label)
        return ""

    def is_regular(self, file: str) -> bool:
        """Whether it is a file, not a folder, nor a pipe, which would hang, nor a device."""
        folder, name = os.path.split(file)
        return self._text_files(folder)[name]

    def without_image(self, images: Iterable[Path]) -> Iterator[str]:
        """The label files, in the folders of the labels of these images, that have no image."""
        for folder in sorted({os.path.dirname(image) for image in images}):
            try:
                parts = map(os.path.splitext, os.listdir(folder))
            except OSError:  # its images can be opened all the same
                continue
            stems = {stem for stem, suffix in parts if suffix.lower() in SUFFIXES}
            for place in self._label_folders(folder):
                for name, is_file in sorted(self._text_files(place).items()):
                    file = os.path.join(place, name)
                    alone = name[:-4] not in stems and name.lower() not in NOT_LABELS
                    if alone and is_file and _has_labels(file):
                        yield file


def _label_folders(folder: str) -> tuple[str, ...]:
    """The folders in which the labels of a folder of images may lie, the best first."""
    parts = list(Path(folder).parts)
    for k in range(len(parts) - 1, -1, -1):
        if parts[k] in ("images", "Images"):
            parts[k] = "labels" if parts[k] == "images" else "Labels"
            return str(Path(*parts)), folder
    return (folder,)


def _text_files(folder: str) -> dict[str, bool]:
    """The names in a folder that end in `.txt`, and whether each is a file.

    Raises:
        DataError: the folder cannot be read: its labels are not to be taken for missing.
    """
    try:
        with os.scandir(folder) as entries:
            return {entry.name: _is_file(entry) for entry in entries if entry.name.endswith(".txt")}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        text = "expected a folder of labels that can be read; correct it"
        raise DataError(f"{printable(folder)}: {error.strerror}; {text}") from error


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link to itself
        return False


def _has_labels(file: str) -> bool:
    """Whether the first line of a text is one of a label file; a readme's is none."""
    try:
        with open(file, "rb") as stream:
            numbers = [float(field) for field in stream.readline(SNIFFED).split()]
    except (OSError, ValueError):
        return False
    return len(numbers) >= 5


@dataclass
class _Set:
    """One set: where its images are named, and the classes."""

    root: Path
    names: tuple[str, ...]
    places: Sequence[Path] = ()  # folders of images, and files that list them
    images: Sequence[Path] = ()
    keypoints: bool = False  # follow each box, and are left out
    shapes: Counter[str] = field(default_factory=Counter)
    name_of: dict[float, str] = field(init=False)

    def __post_init__(self) -> None:
        self.name_of = dict(enumerate(self.names))

    def read(self, problems: Problems) -> Labels:
        """Read the labels of all images."""
        self.shapes.clear()
        paths = [*self.images]
        for place in self.places:
            paths += images_below(place) if place.is_dir() else self._listed(place, problems)
        paths = list(dict.fromkeys(paths))
        files = LabelFiles()
        images = [Image(path, self._boxes(files, path, problems)) for path in paths]
        for file in files.without_image(paths):
            text = "labels without an image; expected one of its name; add it, or remove the file"
            problems.add_one("missing image", f"{printable(file)}: {text}")
        empty = sum(not image.boxes for image in images)
        notes = [f"{empty:,} images without a label: background"] if empty else []
        notes += [
            f"{count:,} {kind} became the boxes around them" for kind, count in self.shapes.items()
        ]
        annotations, kept = joined(self.root, images, self.names, problems)
        return Labels(self.names, replace(annotations, in_fractions=True), kept, tuple(notes))

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
                problems.add_one("missing image", f"{printable(file)}:{number}: {text}")
        return found

    def _boxes(self, files: LabelFiles, image: Path, problems: Problems) -> list[Box]:
        """The boxes in the label file of an image; without one it is background."""
        file = files.of(image)
        if not file:
            return []
        place = printable(file)
        if not files.is_regular(file):
            text = "not a file; expected labels; remove it"
            problems.add_one("unreadable labels", f"{place}: {text}")
            return []
        try:
            with open(file, "rb") as stream:
                text = stream.read().decode("utf-8-sig", "replace")
        except OSError as error:
            problems.add_one("unreadable labels", f"{place}: {error.strerror}")
            return []
        boxes = []
        for number, line in enumerate(text.splitlines(), 1):
            fields = line.split()
            if not fields:
                continue
            entry = f"{place}:{number}"
            found = self._box(fields, entry)
            if isinstance(found, Box):
                boxes.append(found)
            else:
                problems.add_one("wrong line", f"{entry}: {found}")
        return boxes

    def _box(self, fields: list[str], entry: str) -> Box | str:
        """The box of a line, in fractions of the image, or what is wrong with it."""
        try:
            label, *numbers = map(float, fields)
        except ValueError:
            return f"{shown(' '.join(fields))}; {ROW}; correct it"
        name = self.name_of.get(label)
        if name is None:
            return f"class {fields[0][:20]}; expected 0 to {len(self.names) - 1}; correct it"
        if self.keypoints:
            numbers = numbers[:4]
        if not all([-1 <= number <= PIXELS for number in numbers]):  # NaN is neither
            return f"{shown(' '.join(fields))}; {ROW}{_advice(numbers)}"
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
        return Box(corners, name, entry)


def _advice(numbers: Sequence[float]) -> str:
    """Advice on numbers of which some is no fraction."""
    if not all(map(math.isfinite, numbers)):
        return ", finite; correct it"
    return (
        "; these look like pixels: divide x and width by the image's width, y and height by its"
        " height"
    )
