"""YOLO's labels: a `.txt` an image.

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
from functools import cache, partial
from pathlib import Path

from retinanet.data.decoding.formats import SUFFIXES
from retinanet.data.formats.labels import (
    Box,
    Image,
    Labels,
    Listing,
    found_below,
    is_regular,
    joined,
)
from retinanet.data.problems import Problems, became_boxes
from retinanet.errors import DataError, counted, printable, shown

NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels", "labels.txt", "names.txt")
NOT_LABELS = {*NAME_FILES, "train.txt", "val.txt", "valid.txt", "test.txt", "readme.txt"}
ROW = "expected `class x y width height`, fractions of the image's size"
SNIFFED = 1000  # bytes of a first line
PIXELS = 2.0  # a number above it is no fraction: not even of a box that reaches outside
# A word for images in a folder's name, such as `images`, `IMAGES` and `train_img`.
IMAGE_WORD = re.compile(r"(?<![^\W\d_])(images?|imgs?)(?![^\W\d_])", re.I)


class LabelFiles:
    """The label files of images: in `labels/` where these lie in `images/`, else beside them.

    Each folder is listed once.

    Args:
        root: the folder of the data.
        elsewhere: the folder of all labels, where it is another one.
    """

    def __init__(self, root: Path, elsewhere: str = "") -> None:
        self._text_files = cache(_text_files)
        self._label_folders = cache(partial(_label_folders, root=root))
        self._elsewhere = (elsewhere,) * bool(elsewhere)

    def _places(self, folder: str) -> tuple[str, ...]:
        return self._elsewhere or self._label_folders(folder)

    def of(self, image: Path) -> str:
        """The label file of an image; "" where there is none."""
        folder, name = os.path.split(image)
        stem = os.path.splitext(name)[0]
        for place in self._places(folder):
            if found := self._text_files(place).get(stem):
                return os.path.join(place, found[0])
        return ""

    def expected(self, image: Path) -> str:
        """The place in which the label file of an image is looked for first."""
        folder, name = os.path.split(image)
        return os.path.join(self._places(folder)[0], f"{os.path.splitext(name)[0]}.txt")

    def is_regular(self, file: str) -> bool:
        """Whether it is a file, not a folder, nor a pipe, which would hang, nor a device."""
        folder, name = os.path.split(file)
        return self._text_files(folder)[os.path.splitext(name)[0]][1]

    def without_image(self, images: Iterable[Path]) -> Iterator[str]:
        """The label files, in the folders of the labels of these images, that have no image."""
        for folder in sorted({os.path.dirname(image) for image in images}):
            try:
                with os.scandir(folder) as entries:
                    parts = [os.path.splitext(e.name) for e in entries if is_regular(e)]
            except OSError:  # its images can be opened all the same
                continue
            stems = {stem for stem, suffix in parts if suffix.lower() in SUFFIXES}
            for place in self._places(folder):
                for stem, (name, is_file) in sorted(self._text_files(place).items()):
                    file = os.path.join(place, name)
                    alone = stem not in stems and name.lower() not in NOT_LABELS
                    if alone and is_file and has_labels(file):
                        yield file


def _label_folders(folder: str, root: Path) -> tuple[str, ...]:
    """The folders in which the labels of a folder of images may lie, the best first.

    One that is called `images` is likelier to have its like than `train_img` or `img1`, and of
    several the last. Folders above that of the data say nothing about it.
    """
    parts = Path(folder).parts
    first = max(0, len(root.parts) - 1)
    found = [(k, match) for k in range(first, len(parts)) if (match := IMAGE_WORD.search(parts[k]))]
    found.sort(key=lambda place: (place[1].group() == parts[place[0]], place[0]), reverse=True)
    places = []
    for k, match in found:
        start, end = parts[k][: match.start()], parts[k][match.end() :]
        for word in ("labels", "label"):
            name = f"{start}{_cased(word, match.group())}{end}"
            places.append(str(Path(*parts[:k], name, *parts[k + 1 :])))
    return (*places, folder)


def _cased(word: str, like: str) -> str:
    """A word in the letter case of another one."""
    return word.upper() if like.isupper() else word.title() if like.istitle() else word


def _text_files(folder: str) -> dict[str, tuple[str, bool]]:
    """The names in a folder that end in `.txt`, by what is before, and whether each is a file.

    Raises:
        DataError: the folder cannot be read: its labels are not to be taken for missing.
    """
    try:
        with os.scandir(folder) as entries:
            texts = [entry for entry in entries if entry.name.lower().endswith(".txt")]
            return {entry.name[:-4]: (entry.name, is_regular(entry)) for entry in texts}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        text = "expected a folder of labels that can be read; correct it"
        raise DataError(f"{printable(folder)}: {error.strerror}; {text}") from error


def has_labels(file: str) -> bool:
    """Whether the first line of a text is one of a label file; a readme's is none."""
    try:
        with open(file, "rb") as stream:
            numbers = [float(field) for field in stream.readline(SNIFFED).split()]
    except (OSError, ValueError):
        return False
    return len(numbers) >= 5


@dataclass
class YoloSet:
    """One set: where its images are named, and the classes."""

    listing: Listing
    root: Path
    names: tuple[str, ...]
    places: Sequence[Path] = ()  # folders of images, and files that list them
    images: Sequence[Path] = ()
    labels: str = ""  # the folder of all labels, where they are neither in `labels/` nor beside
    keypoints: bool = False  # follow each box, and are left out
    remarks: list[str] = field(default_factory=list)
    shapes: Counter[str] = field(default_factory=Counter)
    name_of: dict[float, str] = field(init=False)

    def __post_init__(self) -> None:
        self.name_of = dict(enumerate(self.names))

    def read(self, problems: Problems) -> Labels:
        """Read the labels of all images."""
        self.shapes.clear()
        paths = [*self.images]
        for place in self.places:
            is_list = not place.is_dir()
            paths += self._listed(place, problems) if is_list else self.listing.images_in(place)
        paths = list(dict.fromkeys(paths))
        files = LabelFiles(self.listing.path, self.labels)
        if paths and not any(map(files.of, paths)):
            others = f", nor for {counted(len(paths) - 1, 'other image')}" * (len(paths) > 1)
            first = printable(files.expected(paths[0]))
            text = (
                f"{printable(paths[0])}: no label file for it{others}; expected {first}; put the"
                " labels there, or beside the images"
            )
            problems.add_one("no labels", text)
            return Labels(self.names, joined(self.root, [], self.names, problems)[0], ())
        images = [Image(path, self._boxes(files, path, problems)) for path in paths]
        for file in files.without_image(paths):
            text = "labels without an image; expected one of its name; add it, or remove the file"
            problems.add_one("missing image", f"{printable(file)}: {text}")
        empty = sum(not image.boxes for image in images)
        notes = [f"{counted(empty, 'image')} without a label: background"] if empty else []
        notes += [became_boxes(count, kind) for kind, count in self.shapes.items()]
        annotations, kept = joined(self.root, images, self.names, problems)
        notes = [*self.remarks, *notes]
        annotations = replace(annotations, in_fractions=True, kind="centres")
        return Labels(self.names, annotations, kept, tuple(notes))

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
            self.shapes["rotated box" if len(numbers) == 8 else "polygon"] += 1
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
