"""Any labelled folder or file: its format recognised, its sets found."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from retinanet.data.datasets import CocoDataset, CSVDataset, Data, LabelledImages
from retinanet.data.formats.coco import find_coco
from retinanet.data.formats.csv_rows import find_csv
from retinanet.data.formats.labelme import find_labelme
from retinanet.data.formats.labels import FileSets, Sets, files_below
from retinanet.data.formats.voc import find_voc
from retinanet.data.formats.yolo import find_yolo
from retinanet.errors import DataError


class Format(NamedTuple):
    """A way to write labels down."""

    title: str
    find: Callable[[Path], Sets | FileSets]
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
    found = {key: sets for key, format_ in wanted.items() if (sets := format_.find(path))}
    if len(found) > 1:
        titles = " and ".join(FORMATS[key].title for key in found)
        names = " or ".join(f"--format {key}" for key in found)
        raise DataError(f"{path}: labels of {titles}; expected one format; give {names}")
    if not found:
        signs = "; ".join(f"{format_.title}: {format_.sign}" for format_ in wanted.values())
        others = [file for end in (".csv", ".json") for file in files_below(path, end)[:2]]
        named = " or ".join(str(file) for file in others)
        hint = f"; --data {named} says what is wrong with it" if named else ""
        raise DataError(f"{path}: no labels of a known format; expected one of {signs}{hint}")
    ((key, sets),) = found.items()
    return FORMATS[key], sets
