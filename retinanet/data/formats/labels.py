"""The labels of one set of images in any format, and the search for sets and images."""

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePath
from typing import NamedTuple

import numpy as np

from retinanet.data.annotations import Annotations, group_by_image
from retinanet.data.decoding.formats import SUFFIXES
from retinanet.data.images import Size
from retinanet.data.problems import Problems
from retinanet.errors import shown

# The words by which folders and files name a set.
SET_WORDS = {
    "train": ("train", "training", "trainval"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}


class Labels(NamedTuple):
    """The labelled images of one set, unchecked: boxes may still lie outside their images."""

    class_names: tuple[str, ...]
    """By label."""
    annotations: Annotations
    paths: tuple[Path, ...]
    """The images, in the order of `annotations.names`."""
    notes: tuple[str, ...] = ()
    """Facts that a user should know: kinds of shapes turned into boxes, images left out."""
    sizes: Sequence[Size] = ()
    """(height, width) of each image, where the format had to look at them."""


Reader = Callable[[Problems], Labels]
FilesReader = Callable[[Path, list[Path], Problems], Labels]  # of a root and a set's files
Sets = dict[str, Reader]  # by name: train, val, test; or all, where nothing divides the images


class Box(NamedTuple):
    """One box of a file, before the images are put together."""

    corners: tuple[float, float, float, float]
    """x1, y1, x2, y2 in pixels."""
    name: str
    """Of its class."""
    entry: str
    """The place in a message: `labels/a.txt:3`."""
    difficult: bool = False


class Image(NamedTuple):
    """One image of a set, with its boxes."""

    path: Path
    boxes: Sequence[Box]


def set_of(name: str) -> str:
    """The set that a folder or a file is named after: train, val, test; all if after none.

    The last word counts: `instances_train2017.json` is train, `raccoon_valid` is val.
    """
    words = "".join(c if c.isalpha() else " " for c in PurePath(name).stem.lower()).split()
    for word in reversed(words):
        for result, known in SET_WORDS.items():
            if word in known:
                return result
    return "all"


def folder_set(file: Path, root: Path) -> str:
    """The set that a file belongs to by the folders on its way from `root`; the last one counts."""
    words = map(set_of, reversed(file.relative_to(root).parts[:-1]))
    return next((word for word in words if word != "all"), "all")


def images_below(folder: Path) -> list[Path]:
    """The image files in a folder and its folders, in order of name, without hidden ones."""
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            Path(parent, name)
            for name in sorted(files)
            if os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith(".")
        ]
    return found


def files_below(folder: Path, suffix: str) -> list[Path]:
    """The files of one ending in a folder and its folders, in order of name; no hidden ones."""
    found = (file for file in folder.rglob(f"*{suffix}") if file.is_file())
    return sorted(file for file in found if not file.name.startswith("."))


def sets_by_folder(root: Path, files: Iterable[Path], read: FilesReader) -> Sets:
    """The sets of annotation files that the folders on their way from `root` tell apart."""
    by_set: dict[str, list[Path]] = {}
    for file in files:
        by_set.setdefault(folder_set(file, root), []).append(file)
    return {name: partial(read, root, mine) for name, mine in by_set.items()}


def by_stem(images: Iterable[Path]) -> dict[str, list[Path]]:
    """Images by their names without ending."""
    found: dict[str, list[Path]] = {}
    for image in images:
        found.setdefault(image.stem, []).append(image)
    return found


def described_image(
    file: Path, named: str, images: Mapping[str, Sequence[Path]], root: Path, problems: Problems
) -> Path | None:
    """The image that an annotation file describes; that there is none is a problem.

    Args:
        file: the annotation file.
        named: path of the image, on whatever machine, as the file gives it.
        images: as `by_stem` gives them.
        root: the folder of the data.
        problems: takes in the missing image.
    """
    base = named.replace("\\", "/").rpartition("/")[2]
    image = partner_of(file, base, images)
    if image is None:
        text = f"no image {shown(base or file.stem)} below {root}; add it, or remove the file"
        problems.add_one("missing image", f"{file}: {text}")
    return image


def partner_of(file: Path, named: str, images: Mapping[str, Sequence[Path]]) -> Path | None:
    """The image of an annotation file, if it is one alone.

    The one of the file's own name comes first: people rename both, and the name inside stays.

    Args:
        file: the annotation file.
        named: base name of the image, as the file gives it.
        images: as `by_stem` gives them.
    """
    for stem in dict.fromkeys((file.stem, PurePath(named).stem)):
        alike = images.get(stem, ())
        beside = [image for image in alike if image.parent == file.parent]
        called = [image for image in beside or alike if image.name == named]
        for choice in (called, beside, alike):
            if len(choice) == 1:
                return choice[0]
    return None


def found_below(root: Path, name: str) -> Path | None:
    """The longest end of a path that is there below a folder; nothing above it is ever looked at.

    Files name places of other machines: `/home/ann/cows/train/images` and `../train/images` are
    `train/images`, where that is there.
    """
    parts = [part for part in re.split(r"[\\/]+", name.strip()) if part not in ("", ".", "..")]
    for start in range(len(parts)):
        path = root.joinpath(*parts[start:])
        if os.path.exists(path):  # Path's own raises where a name is too long
            return path
    return None


def relative_name(path: Path, root: Path) -> str:
    """An image's name below the folder of the data, with forward slashes on every system."""
    try:
        return path.relative_to(root).as_posix()
    except ValueError:
        return path.as_posix()


def joined(
    root: Path, images: Iterable[Image], class_names: Sequence[str], problems: Problems
) -> tuple[Annotations, tuple[Path, ...]]:
    """Put the images of a set together; boxes that are there twice are left out.

    Args:
        root: folder that the images are named below.
        images: in the order that they are to have.
        class_names: by label; each box's name is among them.
        problems: takes in repeated boxes.
    """
    images = list(images)
    label = {name: k for k, name in enumerate(class_names)}
    boxes = [box for image in images for box in image.boxes]
    columns = np.array([(*box.corners, label[box.name]) for box in boxes], float).reshape(-1, 5)
    annotations = group_by_image(
        [relative_name(image.path, root) for image in images],
        np.zeros(len(images), np.int64),
        np.repeat(np.arange(len(images)), [len(image.boxes) for image in images]),
        np.ascontiguousarray(columns.T),
        np.zeros(len(boxes), np.int64),
        problems,
        [box.entry for box in boxes],
        np.array([box.difficult for box in boxes], bool),
    )
    return annotations, tuple(image.path for image in images)
