"""Pascal VOC: an `.xml` an image, beside it, or in `Annotations/` beside `JPEGImages/`.

Coordinates are taken as they are written. VOC's own files count pixels from 1 and name the last
pixel inside; those of today's tools count from 0, and no mark tells the two apart. It is one pixel
at the upper and the left side.
"""

import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import numpy as np

from retinanet.data.annotations import Annotations
from retinanet.data.decoding.formats import SUFFIXES
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
    nearest,
    set_of,
    sets_by_folder,
    side,
)
from retinanet.data.problems import Problems, became_boxes
from retinanet.errors import DataError, counted, printable, shown

LISTS = "ImageSets/Main"  # train.txt, val.txt ...: a name a line, without an ending
CORNERS = ("xmin", "ymin", "xmax", "ymax")
ELSEWHERE = 3  # the kind of a list that lies in no ImageSets
SNIFFED = 4096  # bytes of a file in which its kind shows


class SetLists(NamedTuple):
    """The lists of a set."""

    files: list[Path]
    named: dict[str, Path | None]
    """The `.xml` of each name in them; None of one that has none."""

    def is_whole(self) -> bool:
        """Whether they name something, and there is an `.xml` of all of it."""
        return bool(self.named) and None not in self.named.values()


def find_voc(listing: Listing) -> Sets:
    """The sets of a folder with VOC's `.xml` files, or none where there are none."""
    files = listing.files(".xml") if listing.is_folder else []
    if not any(_is_voc(file) for file in files[:LOOKED_AT]):
        return {}
    return _listed_sets(listing, files) or sets_by_folder(listing, files, _read)


def _is_voc(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            start = stream.read(SNIFFED).replace(b"\0", b"")  # of UTF-16
            return bool(re.search(rb"<annotation[\s>]", start))
    except OSError:
        return False


def _listed_sets(listing: Listing, files: list[Path]) -> Sets:
    """The sets as lists name them; trainval counts where there is no train. None without lists."""
    by_name = _lists(listing, by_stem(files))
    known = {file for found in by_name.values() for file in found.named.values()}
    unlisted = len(set(files).difference(known))
    sets: Sets = {}
    for name, (lists, named) in by_name.items():
        lost = tuple(text for text, file in named.items() if file is None)
        mine = [*dict.fromkeys(file for file in named.values() if file)]
        sets[set_of(name)] = partial(
            _read, listing, mine, lists=lists, lost=lost, unlisted=unlisted
        )
    return sets


def _lists(listing: Listing, stems: Mapping[str, Sequence[Path]]) -> dict[str, SetLists]:
    """The lists of images by the sets that they are called after, those of the likeliest kind."""
    by_kind: dict[int, dict[str, list[Path]]] = {}
    for file in listing.files(".txt"):
        name = "trainval" if file.stem.lower() == "trainval" else set_of(file.name)
        if name != "all":
            by_kind.setdefault(_kind(file), {}).setdefault(name, []).append(file)
    if not by_kind:
        return {}
    kind = min(by_kind)
    best = {name: SetLists(lists, _listed(lists, stems)) for name, lists in by_kind[kind].items()}
    if kind == ELSEWHERE:  # where a text of such a name may be anything else
        whole = {name: found for name, found in best.items() if found.is_whole()}
        best = whole if {"train", "trainval"} & whole.keys() else {}
    if "train" in best:
        best.pop("trainval", None)
    return best


def _kind(file: Path) -> int:
    """The kind of a list by its place, the likeliest first.

    `ImageSets/Main/train.txt`; `ImageSets/Main/cow_train.txt`, of which VoTT writes no other;
    `ImageSets/train.txt`; anywhere else.
    """
    folders = "/".join(file.parent.parts[-2:]).lower()
    if folders == LISTS.lower():
        return int(not file.stem.isalpha())
    return 2 if folders.endswith("/imagesets") else ELSEWHERE


def _listed(lists: Sequence[Path], stems: Mapping[str, Sequence[Path]]) -> dict[str, Path | None]:
    """The names in some lists, and the `.xml` of each; None of one that has none."""
    found: dict[str, Path | None] = {}
    for file in lists:
        for line in file.read_text(encoding="utf-8-sig", errors="replace").splitlines():
            fields = line.split()
            # Behind the name may be whether an object is there, or the place of the `.xml`.
            for name in filter(None, (line.strip(), " ".join(fields[:-1]), *fields[:1])):
                if xml := _listed_file(name, file, stems):
                    found[name] = xml
                    break
            else:
                found.update(dict.fromkeys(fields[:1]))
    return found


def _listed_file(name: str, file: Path, stems: Mapping[str, Sequence[Path]]) -> Path | None:
    """The `.xml` that a list names: `a`, `a.jpg` or `folder/a`, of the list's own data."""
    *folders, base = re.split(r"[\\/]", name)
    stem, ending = os.path.splitext(base)
    is_ending = ending.lower() in SUFFIXES or ending.lower() == ".xml"
    alike = stems.get(stem if is_ending else base, ())
    return alike[0] if len(alike) == 1 else nearest(alike, (*file.parts, *folders))


def _read(
    listing: Listing,
    files: list[Path],
    problems: Problems,
    *,
    lists: Sequence[Path] = (),
    lost: Sequence[str] = (),
    unlisted: int = 0,
) -> Labels:
    """Read the files of a set.

    Args:
        listing: of the folder of the data.
        files: the `.xml` files.
        problems: takes in what is wrong.
        lists: those that name them.
        lost: names in the set's lists that have no file.
        unlisted: the number of files in no list.
    """
    root = listing.path
    absent = [shown(f"{name}.xml") for name in lost]
    problems.add(
        "missing annotation",
        [0] * len(absent),
        lambda k: (
            f"{printable(lists[0].parent)}: no {absent[k]} below {root}; add it, or leave it out"
        ),
    )
    kinds: Counter[str] = Counter()
    images = list(_images(root, files, by_stem(listing.images), kinds, problems))
    names = tuple(sorted({box.name for image in images for box in image.boxes}))
    annotations, paths = joined(root, images, names, problems)
    notes = [became_boxes(count, kind) for kind, count in kinds.items()]
    if unlisted:
        notes.append(f"{counted(unlisted, 'annotation file')} in no list of a set: left out")
    if files and not lists:
        name = folder_set(files[0], root)
        notes += left_out(listing, name, paths, "an annotation file")
    sizes = [image.size for image in images]
    return Labels(names, annotations, paths, (*notes, *_notes(annotations)), sizes)


def _notes(annotations: Annotations) -> Iterator[str]:
    """Notes on difficult boxes and on corners that may count from 1, where there are any."""
    if difficult := np.count_nonzero(annotations.difficult):
        yield (
            f"{counted(int(difficult), 'difficult box')}: trained on; counted in COCO's AP, and"
            " neither as found nor as missed in VOC's AP, precision and recall"
        )
    corners = annotations.boxes[:, :2]
    if corners.size and corners.min() == 1:
        yield (
            "no corner is 0, and some are 1: perhaps pixels are counted from 1, as in VOC's own"
            " files; corners are taken as they are written"
        )


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
        files: the `.xml` files.
        pictures: the images below it, by stem.
        kinds: takes in the shapes that become boxes.
        problems: takes in what is wrong.
    """
    for file in files:
        place = printable(file)
        try:
            annotation = parse_xml(file)
        except (OSError, ValueError) as error:
            problems.add_one("unreadable annotation", f"{place}: {printable(error)}")
            continue
        if annotation.tag != "annotation":
            continue  # another tool's XML, which is beside the data
        named = annotation.findtext("filename") or ""
        image = described_image(file, named, pictures, root, problems)
        if image is None:
            continue
        sides = [annotation.findtext(f"size/{name}") for name in ("height", "width")]
        height, width = map(side, sides)
        yield Image(image, list(_boxes(annotation, place, kinds, problems)), (height, width))


def _boxes(
    annotation: Element, place: str, kinds: Counter[str], problems: Problems
) -> Iterator[Box]:
    """The boxes of one file; what is wrong with the others is collected."""
    for k, item in enumerate(annotation.iterfind("object")):
        entry = f"{place}: object {k}"
        name = (item.findtext("name") or "").strip()
        if item.findtext("deleted") == "1":  # LabelMe's XML keeps them
            continue
        try:
            corners = _corners(item, kinds)
        except ValueError:
            corners = (math.nan,) * 4
        if not name:
            problems.add_one("wrong object", f"{entry}: no name; expected a class; add it")
        elif not all(map(math.isfinite, corners)):
            found = [item.findtext(f"bndbox/{tag}") for tag in CORNERS]
            text = shown([number for number in found if number is not None])
            text = f"bndbox {text}; expected xmin, ymin, xmax, ymax as numbers; correct it"
            problems.add_one("wrong object", f"{entry}: {text}")
        else:
            difficult = (item.findtext("difficult") or "").strip() == "1"
            yield Box(corners, name, entry, difficult)


def _corners(item: Element, kinds: Counter[str]) -> tuple[float, float, float, float]:
    """x1, y1, x2, y2 of an object, or around its rotated box or its polygon.

    roLabelImg writes `<robndbox>`, its angle in radians; LabelMe's XML, of CVAT too, `<polygon>`.

    Raises:
        ValueError: there is none, or something in it is no number.
    """
    box, turned, polygon = (item.find(tag) for tag in ("bndbox", "robndbox", "polygon"))
    if box is None and turned is not None:
        x, y, width, height, angle = _numbers(turned, "cx", "cy", "w", "h", "angle")
        cos, sin = abs(math.cos(angle)), abs(math.sin(angle))
        half_x, half_y = (width * cos + height * sin) / 2, (width * sin + height * cos) / 2
        kinds["rotated box"] += 1
        return x - half_x, y - half_y, x + half_x, y + half_y
    if box is None and polygon is not None:
        xs, ys = zip(*(_numbers(point, "x", "y") for point in polygon.iterfind("pt")), strict=True)
        if item.findtext("type") != "bounding_box":
            kinds["polygon"] += 1
        return min(xs), min(ys), max(xs), max(ys)
    x1, y1, x2, y2 = _numbers(item if box is None else box, *CORNERS)
    return x1, y1, x2, y2


def _numbers(element: Element, *tags: str) -> list[float]:
    """The numbers in some tags of an element."""
    return [float(element.findtext(tag) or "") for tag in tags]


def parse_xml(file: Path) -> Element:
    """Parse a file that declares no entities: those can grow without end, or name other files.

    Raises:
        ValueError: it is no XML, or has a document type.
        OSError: it cannot be read.
    """
    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.buffer_text = True

    def refuse(*_: object) -> None:
        raise DataError("a DOCTYPE; expected none, as it may declare entities; remove it")

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(file.read_bytes(), True)
        return builder.close()
    except DataError:
        raise
    except (expat.ExpatError, LookupError, ValueError) as error:  # the last two of encodings
        raise ValueError(f"not XML ({error}); correct or remove it") from error
