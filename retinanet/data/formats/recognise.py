"""Any labelled folder or file: its format recognised, its sets found."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from retinanet.data.datasets import CocoDataset, CSVDataset, Data, LabelledImages
from retinanet.data.formats.coco import find_coco, is_coco
from retinanet.data.formats.csv_files import find_csv, has_boxes, unread_header
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
_USUAL = "export as COCO, YOLO or Pascal VOC"
OTHERS = (
    (rb"<annotations>", "CVAT's own XML", "export as COCO 1.0, Ultralytics YOLO or Pascal VOC"),
    (rb'"_via_(settings|img_metadata)"', "VIA's project", "export the annotations as CSV or COCO"),
    (rb'"shape_attributes":', "VIA's JSON", "export the annotations as CSV or COCO"),
    (rb'(?s)"annotations":\s*\[\s*\{\s*"id".*"result"|rectanglelabels', "Label Studio's own format",
     "export as YOLO, COCO or Pascal VOC"),
    (rb'"assets":\s*\{', "VoTT's JSON", "export as CSV or Pascal VOC"),
    (rb'"coordinates":\s*\{', "CreateML's", _USUAL),
    (rb'"classTitle"|"exterior"', "Supervisely's", _USUAL),
    (rb'"schema_ref"|"bounding_box":\s*\{', "V7 Darwin's JSON", _USUAL),
    (rb'"dm_format_version"|"categories":\s*\{\s*"label"', "Datumaro's JSON", _USUAL),
    (rb'"bounding_box":\s*\[', "FiftyOne's JSON", _USUAL),
    (rb"^\S+\.\w+ \d+,\d+,\d+,\d+,\d+", "Keras YOLO's list", _USUAL),
    (rb"(?m)^[A-Za-z]\S*( -?[\d.]+){14,15}\r?$", "KITTI's labels", _USUAL),
    (rb"(?m)^(-?[\d.]+ ){8}\S+ \d\r?$", "DOTA's, of rotated boxes in pixels",
     "export as YOLO, COCO or Pascal VOC"),
    (rb"^(\d+,){7}\d+,?\r?\n", "VisDrone's labels", "convert them to COCO or YOLO"),
)  # fmt: skip
# Formats that are read with their folder, of an image each.
OF_ONE_IMAGE = (
    (rb'(?s)"shapes":.*"imagePath":|"imagePath":.*"shapes":', "LabelMe's"),
    (rb"<annotation[\s>]", "Pascal VOC's"),
)
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")
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
    if not (listing.is_folder or name or has_boxes(path) or is_coco(path)):
        if text := _of_one_image(path) or _foreign(path):
            raise DataError(text)
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
    if text := next(filter(None, map(_foreign, files)), ""):
        return f"; {text}"
    for file in listing.files(".csv", ".tsv")[:LOOKED_AT]:
        if reason := unread_header(file):
            return f"; {reason}"
    if archives := listing.files(*ARCHIVES):
        return f"; unpack {printable(archives[0])} and give the folder"
    others = [file for file in files if file.suffix in (".csv", ".json")][:2]
    named = " or ".join(map(str, others))
    return f"; --data {named} says what is wrong with it" if named else ""


def _foreign(file: Path) -> str:
    """Whose a file is that is not read, and what to do; "" where nothing can be told."""
    start = _start(file)
    for sign, tool, advice in OTHERS:
        if re.search(sign, start):
            return f"{printable(file)} is {tool}, which is not read: {advice}"
    return ""


def _of_one_image(file: Path) -> str:
    """Whose a file is that is read with its folder, of an image each; "" of others."""
    start = _start(file)
    for sign, tool in OF_ONE_IMAGE:
        if re.search(sign, start):
            text = f"{printable(file)} is {tool}, of one image; expected the folder of all"
            return f"{text}; give --data {printable(file.parent)}"
    return ""


def _start(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(SNIFFED)
    except OSError:
        return b""
