"""Pascal VOC: an `.xml` an image, beside it, or in `Annotations/` beside `JPEGImages/`.

Coordinates are taken as they are written. VOC's own files count pixels from 1 and name the last
pixel inside; those of today's tools count from 0, and no mark tells the two apart. It is one pixel
at the upper and the left side.
"""

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
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
from retinanet.data.problems import Problems
from retinanet.errors import DataError, printable, shown

LISTS = Path("ImageSets", "Main")  # train.txt, val.txt ...: a name a line, without an ending
LISTED = ("train", "val", "test", "trainval")
CORNERS = ("xmin", "ymin", "xmax", "ymax")
SNIFFED = 4096  # bytes of a file in which its kind shows


def find_voc(listing: Listing) -> Sets:
    """The sets of a folder with VOC's `.xml` files, or none where there are none."""
    files = listing.files(".xml") if listing.is_folder else []
    if not any(_is_voc(file) for file in files[:LOOKED_AT]):
        return {}
    lists = [file for file in listing.files(".txt") if file.parent.parts[-2:] == LISTS.parts]
    wanted = [file for file in lists if file.stem in LISTED]
    if wanted:
        return _listed_sets(listing, files, wanted)
    return sets_by_folder(listing, files, _read)


def _is_voc(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            return bool(re.search(rb"<annotation[\s>]", stream.read(SNIFFED)))
    except OSError:
        return False


def _listed_sets(listing: Listing, files: list[Path], lists: list[Path]) -> Sets:
    """The sets as `ImageSets/Main` lists them; trainval counts where there is no train."""
    stems = by_stem(files)
    names: dict[str, list[tuple[str, Path | None]]] = {}
    for file in lists:
        lines = file.read_text(encoding="utf-8-sig", errors="replace").splitlines()
        listed = [line.split()[0] for line in lines if line.split()]
        found = [(name, _listed_file(name, file, stems)) for name in listed]
        names.setdefault(file.stem, []).extend(found)
    if "train" in names:
        names.pop("trainval", None)
    sets: Sets = {}
    for name, named in names.items():
        lost = tuple(name for name, file in named if file is None)
        mine = [*dict.fromkeys(file for _, file in named if file)]
        sets[set_of(name)] = partial(_read, listing, mine, lost=lost)
    return sets


def _listed_file(name: str, file: Path, stems: Mapping[str, Sequence[Path]]) -> Path | None:
    """The `.xml` that a list names: `a`, `a.jpg` or `folder/a`, of the list's own data."""
    *folders, base = re.split(r"[\\/]", name)
    stem, ending = os.path.splitext(base)
    is_ending = ending.lower() in SUFFIXES or ending.lower() == ".xml"
    alike = stems.get(stem if is_ending else base, ())
    return alike[0] if len(alike) == 1 else nearest(alike, (*file.parts, *folders))


def _read(
    listing: Listing, files: list[Path], problems: Problems, lost: Sequence[str] | None = None
) -> Labels:
    """Read the files of a set.

    Args:
        listing: of the folder of the data.
        files: the `.xml` files.
        problems: takes in what is wrong.
        lost: names in the set's list that have no file; None where the set has no list.
    """
    root = listing.path
    absent = [shown(f"{name}.xml") for name in lost or ()]
    problems.add(
        "missing annotation",
        [0] * len(absent),
        lambda k: f"{root / LISTS}: no {absent[k]} below {root}; add it, or leave it out",
    )
    images = list(_images(root, files, by_stem(listing.images), problems))
    names = tuple(sorted({box.name for image in images for box in image.boxes}))
    annotations, paths = joined(root, images, names, problems)
    notes = []
    if files and lost is None:
        name = folder_set(files[0], root)
        notes = left_out(listing, name, paths, "an annotation file")
    sizes = [image.size for image in images]
    return Labels(names, annotations, paths, (*notes, *_notes(annotations)), sizes)


def _notes(annotations: Annotations) -> Iterator[str]:
    """Notes on difficult boxes and on corners that may count from 1, where there are any."""
    if difficult := np.count_nonzero(annotations.difficult):
        yield (
            f"{difficult:,} difficult boxes: trained on; they count in COCO's AP, and neither as"
            " found nor as missed in VOC's AP, precision and recall"
        )
    corners = annotations.boxes[:, :2]
    if corners.size and corners.min() == 1:
        yield (
            "no corner is 0, and some are 1: perhaps pixels are counted from 1, as in VOC's own"
            " files; corners are taken as they are written"
        )


def _images(
    root: Path, files: list[Path], pictures: Mapping[str, Sequence[Path]], problems: Problems
) -> Iterator[Image]:
    """The image of each file, with its boxes; `pictures` are those below the root, by stem."""
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
        yield Image(image, list(_boxes(annotation, place, problems)), (height, width))


def _boxes(annotation: Element, place: str, problems: Problems) -> Iterator[Box]:
    """The boxes of one file; what is wrong with the others is collected."""
    for k, item in enumerate(annotation.iterfind("object")):
        entry = f"{place}: object {k}"
        name = (item.findtext("name") or "").strip()
        box = item.find("bndbox")
        numbers = [box.findtext(tag) for tag in CORNERS] if box is not None else []
        try:
            x1, y1, x2, y2 = (float(number or "") for number in numbers)
        except ValueError:
            x1 = y1 = x2 = y2 = math.nan
        if not name:
            problems.add_one("wrong object", f"{entry}: no name; expected a class; add it")
        elif not all(map(math.isfinite, (x1, y1, x2, y2))):
            found = shown([number for number in numbers if number is not None])
            text = f"bndbox {found}; expected xmin, ymin, xmax, ymax as numbers; correct it"
            problems.add_one("wrong object", f"{entry}: {text}")
        else:
            difficult = (item.findtext("difficult") or "").strip() == "1"
            yield Box((x1, y1, x2, y2), name, entry, difficult)


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
