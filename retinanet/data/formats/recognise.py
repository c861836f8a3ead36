"""Any labelled folder or file: its format recognised, its sets found."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from retinanet.data.datasets import CocoDataset, CSVDataset, Data, LabelledImages
from retinanet.data.formats.coco import find_coco
from retinanet.data.formats.csv_files import find_csv, unread_header
from retinanet.data.formats.labelme import find_labelme
from retinanet.data.formats.labels import LOOKED_AT, FileSets, Listing, Sets
from retinanet.data.formats.voc import find_voc
from retinanet.data.formats.yolo.sets import find_yolo, nameless
from retinanet.errors import DataError, first_few, printable


class Format(NamedTuple):
    """A way to write labels down."""

    title: str
    find: Callable[[Listing], Sets | FileSets]
    """The sets of a folder or file; none where it is not of this format."""
    open: Callable[..., Data]
    """Makes a data set of a folder and one of its sets; the rest as of `LabelledImages`."""
    sign: str
    """The files it is recognised by."""


FORMATS = {
    "yolo": Format(
        "YOLO", find_yolo, LabelledImages, "data.yaml, or classes.txt and a .txt an image"
    ),
    "voc": Format("Pascal VOC", find_voc, LabelledImages, "a .xml an image"),
    "labelme": Format("LabelMe", find_labelme, LabelledImages, "a .json an image"),
    "coco": Format(
        "COCO", find_coco, CocoDataset, "a .json with images, annotations and categories"
    ),
    "csv": Format(
        "CSV",
        find_csv,
        lambda _, file, *rest, **more: CSVDataset(file, file.classes, *rest, **more),
        "a .csv whose header names path, box and class, or of path,x1,y1,x2,y2,class",
    ),
}


# Beginnings of files of other formats: a pattern, whose it is, and the way to one that is read.
OTHERS = (
    (rb"<annotations>", "CVAT's own XML", "export as COCO 1.0, Ultralytics YOLO or Pascal VOC"),
    (rb'"_via_(settings|img_metadata)"', "VIA's project", "export the annotations as CSV or COCO"),
    (rb'(?s)"annotations":\s*\[\s*\{\s*"id".*"result"|rectanglelabels', "Label Studio's own format",
     "export as YOLO, COCO or Pascal VOC"),
    (rb'"assets":\s*\{', "VoTT's JSON", "export as CSV or Pascal VOC"),
    (rb'"coordinates":\s*\{', "CreateML's", "export as COCO, YOLO or Pascal VOC"),
    (rb'"classTitle"|"exterior"', "Supervisely's", "export as COCO, YOLO or Pascal VOC"),
    (rb"^\S+\.\w+ \d+,\d+,\d+,\d+,\d+", "Keras YOLO's list", "export as COCO, YOLO or Pascal VOC"),
)  # fmt: skip
SNIFFED = 2**16  # bytes of a file in which its tool shows


def recognise(path: Path, name: str | None = None) -> tuple[Format, Mapping[str, Any]]:
    """The format of a folder or a file, and its sets.

    Args:
        path: what the user named.
        name: of the format, where the user named it too.

    Raises:
        DataError: nothing is there, nothing of a known format is, or two formats fit.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; expected labelled images; correct it")
    wanted = {name: FORMATS[name]} if name else FORMATS
    listing = Listing(path)
    found = {key: sets for key, format_ in wanted.items() if (sets := format_.find(listing))}
    if len(found) > 1:
        titles = " and ".join(FORMATS[key].title for key in found)
        names = " or ".join(f"--format {key}" for key in found)
        raise DataError(f"{path}: labels of {titles}; expected one format; give {names}")
    if not found:
        signs = "; ".join(f"{format_.title}: {format_.sign}" for format_ in wanted.values())
        text = f"{path}: no labels of a known format{_there(listing)}; expected one of {signs}"
        raise DataError(text + _hint(listing))
    ((key, sets),) = found.items()
    return FORMATS[key], sets


def _there(listing: Listing) -> str:
    """The kinds of files in a folder, the most frequent first."""
    counts = [f"{count:,} {ending}" for ending, count in listing.endings().most_common() if ending]
    return f" among {first_few(counts)}" if counts else " in an empty folder"


def _hint(listing: Listing) -> str:
    """Advice by what the files may be instead; "" where nothing can be told."""
    if labels := nameless(listing):
        return (
            f"; {printable(labels)} is YOLO's, and nothing names the classes: add classes.txt with"
            " a name a line, in the order of their numbers, or names: to data.yaml"
        )
    files = listing.files(".json", ".xml", ".csv", ".txt")[:LOOKED_AT]
    for file in files:
        start = _start(file)
        for sign, tool, advice in OTHERS:
            if re.search(sign, start):
                return f"; {printable(file)} is {tool}, which is not read: {advice}"
    for file in listing.files(".csv", ".tsv")[:LOOKED_AT]:
        if reason := unread_header(file):
            return f"; {reason}"
    others = [file for file in files if file.suffix in (".csv", ".json")][:2]
    named = " or ".join(map(str, others))
    return f"; --data {named} says what is wrong with it" if named else ""


def _start(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(SNIFFED)
    except OSError:
        return b""
