"""The labels of one set of images in any format, and the search for sets and images."""

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from glob import escape
from itertools import chain
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np

from retinanet.data.annotations import Annotations, group_by_image
from retinanet.data.image_finder import Places
from retinanet.data.images import is_image_name
from retinanet.data.problems import Problems
from retinanet.errors import DataError, counted, first_few, printable, shown

LOOKED_AT = 20  # files, for one of the kind that is looked for: others may lie beside it
LARGEST_SIDE = 1e9
MOST_FOLDERS = 50  # of a path that is looked for: a hostile one may have millions

# The words by which folders and files name a set.
SET_WORDS = {
    "train": ("train", "training", "trainval", "trainset"),
    "val": ("val", "valid", "validation", "dev", "valset", "eval", "minival"),
    "test": ("test", "testing", "testset", "testdev"),
}
# Sets that nothing is read of where another one is there.
SECOND = {"all": "train", "test": "val"}
IMAGE_FOLDERS = ("images", "image", "imgs", "img", "jpegimages", "data", "photos")
LABEL_FOLDERS = ("annotations", "annotation", "labels")


class Labels(NamedTuple):
    """The labelled images of one set, unchecked: boxes may still lie outside their images."""

    class_names: tuple[str, ...]
    """By label."""
    annotations: Annotations
    paths: tuple[Path, ...]
    """The images, in the order of `annotations.names`."""
    notes: tuple[str, ...] = ()
    """Facts that a user should know: kinds of shapes turned into boxes, images left out."""
    sizes: Sequence[tuple[int, int]] | None = None
    """[images] height and width as the files have them; 0 where they have none."""


Reader = Callable[[Problems], Labels]
FilesReader = Callable[["Listing", list[Path], Problems], Labels]  # of all and of a set's files


class SetFile(NamedTuple):
    """One file with all boxes of a set, and where its images may lie."""

    path: Path
    places: Places
    classes: Path | None = None
    """The file that lists the classes, of a format that has none of its own."""
    notes: tuple[str, ...] = ()
    """Files of the same set that are not read."""


# By name: train, val, test; or all, where nothing divides the images.
Sets = dict[str, Reader]
FileSets = dict[str, SetFile]


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
    size: tuple[int, int] = (0, 0)
    """Height and width as the file has them; 0 where it has none."""


def set_of(name: str) -> str:
    """The set that a folder or a file is named after: train, val, test; all if after none.

    The last word counts: `instances_train2017.json` is train, `raccoon_valid` is val, `TestImages`
    and `test-dev` are test.
    """
    stem = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", PurePath(name).stem)
    text = " ".join("".join(c if c.isalpha() else " " for c in stem.lower()).split())
    for word in reversed(re.sub(r"\btest dev\b", "testdev", text).split()):
        for result, known in SET_WORDS.items():
            if word in known:
                return result
    return "all"


def folder_set(file: Path, root: Path) -> str:
    """The set that a file belongs to by the folders on its way from `root`; the last one counts."""
    words = map(set_of, reversed(file.relative_to(root).parts[:-1]))
    return next((word for word in words if word != "all"), "all")


class Listing:
    """The files below a folder, listed once for all that look for some; or a file alone.

    Nothing hidden, such as Jupyter's copies; neither pipes, which would hang, nor devices, which
    never end.

    Args:
        path: the folder or the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_folder = path.is_dir()

    @cached_property
    def _paths(self) -> list[str]:
        return list(_walk(self.path)) if self.is_folder else [str(self.path)]

    @cached_property
    def images(self) -> list[Path]:
        """The images, in order of name, folder by folder."""
        return [Path(path) for path in self._paths if is_image_name(os.path.basename(path))]

    def files(self, *endings: str) -> list[Path]:
        """The files with one of some endings, in order of name."""
        found = [path for path in self._paths if path.lower().endswith(endings)]
        return [Path(path) for path in sorted(found, key=lambda path: path.split(os.sep))]

    def images_in(self, folder: Path) -> list[Path]:
        """The images in a folder and its folders, which may lie elsewhere, or be a link."""
        start = os.path.join(folder, "")
        mine = [image for image in self.images if str(image).startswith(start)]
        return mine or Listing(folder).images

    def endings(self) -> Counter[str]:
        """The number of files of each ending."""
        return Counter(os.path.splitext(path)[1].lower() for path in self._paths)


def _walk(top: Path) -> Iterator[str]:
    """The files below a folder, in order of name, those of a folder before those of its folders."""
    waiting = [os.fspath(top)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError:  # one that may not be read: its images can be opened if they are named
            continue
        inner = []
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                inner.append(entry.path)
            elif is_regular(entry):
                yield entry.path
        waiting += reversed(inner)


def is_regular(entry: os.DirEntry[str]) -> bool:
    """Whether it is a file, or a link to one."""
    try:
        return entry.is_file()
    except OSError:  # a link to itself
        return False


def sets_by_folder(listing: Listing, files: Iterable[Path], read: FilesReader) -> Sets:
    """The sets of annotation files that the folders on their way tell apart."""
    by_set = divided(listing.path, files)
    return {name: partial(read, listing, mine) for name, mine in by_set.items()}


def divided(root: Path, files: Iterable[Path]) -> dict[str, list[Path]]:
    """Files by the set that they belong to by the folders on their way from `root`."""
    by_folder: dict[str, list[Path]] = {}
    for file in files:
        by_folder.setdefault(os.path.dirname(file), []).append(file)
    by_set: dict[str, list[Path]] = {}
    for mine in by_folder.values():
        by_set.setdefault(folder_set(mine[0], root), []).extend(mine)
    return by_set


def left_out(listing: Listing, name: str, used: Iterable[Path], lack: str) -> list[str]:
    """Note on the images, in the folders of a set, that have no labels.

    Args:
        listing: of the folder of the data.
        name: of the set.
        used: those that have some.
        lack: what the others have not.
    """
    mine = divided(listing.path, listing.images).get(name, [])
    count = len(set(mine).difference(used))
    return [f"{counted(count, 'image')} without {lack}: left out"] if count else []


def sets_of_files(
    root: Path, files: Iterable[Path], rank: Callable[[Path], int], title: str
) -> FileSets:
    """The sets of files that hold all boxes of a set each, by their names or their folders'.

    Args:
        root: the folder of the data.
        files: of one format.
        rank: of several files of a set, the one of the lowest rank is read.
        title: of the format.

    Raises:
        DataError: files of a set that nothing tells apart.
    """
    by_set: dict[str, list[Path]] = {}
    for file in files:
        name = set_of(file.name)
        by_set.setdefault(folder_set(file, root) if name == "all" else name, []).append(file)
    sets: FileSets = {}
    for name, mine in by_set.items():
        ranks = [rank(file) for file in mine]
        best = [file for file, own in zip(mine, ranks, strict=True) if own == min(ranks)]
        if len(best) > 1:
            if SECOND.get(name) in by_set:
                continue
            names = " and ".join(relative_name(file, root) for file in best[:3])
            raise DataError(
                f"{root}: {len(best)} {title} files of the set {name}, such as {names}; expected"
                " one; give it as --data FILE, or move the others away"
            )
        others = [relative_name(file, root) for file in mine if file != best[0]]
        notes = (f"not read: {first_few(others)}",) if others else ()
        sets[name] = SetFile(best[0], image_places(best[0], root, name), notes=notes)
    return sets


def set_of_file(file: Path) -> FileSets:
    """The set of a file that the user named; with one to train on, that to validate on beside it.

    `train.json` has `val.json` beside it; `train/_annotations.coco.json`,
    `../valid/_annotations.coco.json`.
    """
    name, folder = set_of(file.name), file.parent.name.lower()
    by_folder = name == "all" and any(folder in words for words in SET_WORDS.values())
    if by_folder:
        name = set_of(folder)
    sets = {name: SetFile(file, image_places(file, data_root(file), name))}
    if name != "train":
        return sets
    if by_folder:
        beside = sorted(file.parent.parent.glob(f"*/{escape(file.name)}"))
    else:
        beside = sorted(file.parent.glob(f"*{escape(file.suffix)}"))
    for other in beside:
        found = set_of(other.parent.name if by_folder else other.name)
        alike = by_folder or _without_set(other) == _without_set(file)
        if found in ("val", "test") and alike:
            sets.setdefault(found, SetFile(other, image_places(other, data_root(other), found)))
    return sets


def _without_set(file: Path) -> str:
    """A file's name without the word that names its set: `instances_*2017`."""
    parts = re.split(r"([^\W\d_]+)", file.stem.lower())
    return "".join("*" if set_of(part) != "all" else part for part in parts)


def data_root(file: Path) -> Path:
    """The folder of the data that a file describes: its own, if images lie there; else above."""
    parent = file.absolute().parent
    names = map(os.path.basename, _walk(parent))
    if parent.name.lower() in LABEL_FOLDERS or not any(map(is_image_name, names)):
        return Path(os.path.normpath(file.parent / ".."))
    return file.parent


def image_places(file: Path, root: Path, name: str) -> Places:
    """The folders in which the images of a set's file may lie, the likeliest first.

    Those called like the file or its set, such as `images/train2017`; then those of all images.

    Args:
        file: the annotations.
        root: the folder of the data.
        name: of the set.
    """
    stem = file.stem.lower()
    words = {stem, stem.rpartition("_")[2], stem.partition("_")[0]}
    tops = list(dict.fromkeys((file.parent, root)))
    plain = [folder for top in tops for folder in _folders_in(top)
             if folder.name.lower() in IMAGE_FOLDERS]  # fmt: skip
    inner = [folder for top in (*plain, *tops) for folder in _folders_in(top)]
    exact = [folder for folder in inner if folder.name.lower() in words]
    alike = [folder for folder in inner if name != "all" and set_of(folder.name) == name]
    folders = list(dict.fromkeys((*exact, *alike, file.parent, *plain, root)))
    return Places(folders, root, False, "add the images to the folder of the data")


def _folders_in(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError:
        return []


def side(value: Any) -> int:
    """A side of an image as a file has it, in pixels; 0 where it has none."""
    try:
        found = 0.0 if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return 0
    return int(found) if 0 < found < LARGEST_SIDE else 0


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
        if alike := images.get(file.stem) or images.get(PurePath(base).stem):
            some = " and ".join(shown(relative_name(path, root)) for path in alike[:2])
            text = f"{len(alike)} images may be meant, such as {some}; rename them"
        problems.add_one("missing image", f"{printable(file)}: {text}")
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
        # That both lie in annotations/ says nothing: masks do, too.
        if image := nearest(called or beside or alike, _parts_but(file.parent, LABEL_FOLDERS)):
            return image
    return None


def _parts_but(folder: Path, names: Collection[str]) -> list[str]:
    """The parts of a folder's path that have none of some names, in lower case."""
    return [part for part in folder.parts if part.lower() not in names]


def nearest(files: Sequence[Path], folders: Iterable[str]) -> Path | None:
    """The one of several files whose path has the most names of some folders in it, if it is one.

    Of `train/images/a.jpg` and `val/images/a.jpg` that of `train/annotations/a.xml` is the first.
    """
    names = set(folders)
    shares = [len(names.intersection(file.parent.parts)) for file in files]
    best = [file for file, share in zip(files, shares, strict=True) if share == max(shares)]
    return best[0] if len(best) == 1 else None


def found_below(root: Path, name: str) -> Path | None:
    """The longest end of a path that is there below a folder; nothing above it is ever looked at.

    Files name places of other machines: `/home/ann/cows/train/images` and `../train/images` are
    `train/images`, where that is there.
    """
    parts = [part for part in re.split(r"[\\/]+", name.strip()) if part not in ("", ".", "..")]
    for start in range(max(0, len(parts) - MOST_FOLDERS), len(parts)):
        path = root.joinpath(*parts[start:])
        if os.path.exists(path):  # Path's own raises where a name is too long
            return path
    return None


def relative_name(path: Path, root: Path) -> str:
    """An image's name below the folder of the data, with forward slashes on every system."""
    name, folder = path.as_posix(), f"{root.as_posix().rstrip('/')}/"
    return name.removeprefix(folder)  # `relative_to` takes ten times as long


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
    for box in {box.name: box for image in images for box in image.boxes}.values():
        if printable(box.name) != box.name:
            text = "expected no control characters; rename it"
            problems.add_one("wrong class", f"{box.entry}: class {shown(box.name)}; {text}")
    label = {name: k for k, name in enumerate(class_names)}
    boxes = [box for image in images for box in image.boxes]
    columns = np.empty((5, len(boxes)))
    corners = chain.from_iterable(box.corners for box in boxes)
    columns[:4] = np.fromiter(corners, float, 4 * len(boxes)).reshape(-1, 4).T
    columns[4] = [label[box.name] for box in boxes]
    annotations = group_by_image(
        [relative_name(image.path, root) for image in images],
        np.zeros(len(images), np.int64),
        np.repeat(np.arange(len(images)), [len(image.boxes) for image in images]),
        columns,
        np.zeros(len(boxes), np.int64),
        problems,
        [box.entry for box in boxes],
        np.array([box.difficult for box in boxes], bool),
    )
    return annotations, tuple(image.path for image in images)
