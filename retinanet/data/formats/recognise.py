"""Any labelled folder or file: its format recognised, its sets found."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from retinanet.data.formats.labelme import find_labelme
from retinanet.data.formats.labels import Sets
from retinanet.data.formats.voc import find_voc
from retinanet.data.formats.yolo import find_yolo
from retinanet.errors import DataError


class Format(NamedTuple):
    """A way to write labels down."""

    title: str
    find: Callable[[Path], Sets]
    """The sets of a folder or file; none where it is not of this format."""
    sign: str
    """The files it is recognised by."""


FORMATS = {
    "yolo": Format("YOLO", find_yolo, "data.yaml, or classes.txt and a .txt an image"),
    "voc": Format("Pascal VOC", find_voc, "a .xml an image"),
    "labelme": Format("LabelMe", find_labelme, "a .json an image"),
}


def recognise(path: Path, name: str | None = None) -> tuple[Format, Sets]:
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
        raise DataError(
            f"{path}: no labels of a known format; expected one of {signs}; COCO and CSV data are"
            " named by --dataset"
        )
    ((key, sets),) = found.items()
    return FORMATS[key], sets
