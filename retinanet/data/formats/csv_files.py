"""CSV files of boxes in a folder, and the files beside them that list the classes."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from retinanet.data.formats.class_list import read_classes
from retinanet.data.formats.csv_header import (
    CLASSIC,
    COLUMNS,
    SNIFFED_ROWS,
    is_header,
    plain_layout,
    plain_name,
    read_header,
)
from retinanet.data.formats.csv_lines import first_fields, plain_text, split_line
from retinanet.data.formats.csv_via import has_box_field, is_via, split_boxes
from retinanet.data.formats.labels import FileSets, Listing, SetFile, set_of_file, sets_of_files
from retinanet.data.image_finder import Places
from retinanet.data.problems import Problems
from retinanet.errors import DataError

SNIFFED = 2**16  # bytes of a file in which its kind shows
# Names of files that list classes, without signs.
CLASS_FILES = (
    *("classes", "class", "classlist", "classnames", "classmap", "labels", "labelnames"),
    *("labellist", "labelmap", "names", "objnames", "obj", "categories"),
)


def find_csv(listing: Listing) -> FileSets:
    """The sets of a folder with CSV files of boxes, or of a file; none where there are none.

    Raises:
        DataError: several files of a set, which nothing tells apart.
    """
    path = listing.path
    if listing.is_folder:
        files = listing.files(".csv", ".tsv")
        sets = sets_of_files(path, filter(has_boxes, files), lambda _: 0, "CSV")
    elif path.suffix.lower() in (".csv", ".tsv") or (path.suffix == ".txt" and has_boxes(path)):
        sets = set_of_file(path)
    else:
        return {}
    return {name: found._replace(classes=_class_file(found, path)) for name, found in sets.items()}


def named_file(file: Path, images_dir: str | Path | None) -> SetFile:
    """A file of boxes whose images are relative to a folder, to itself, or to where one works."""
    folders = [Path(images_dir)] if images_dir else [file.parent, Path()]
    advice = "correct the path, or name the folder with --csv_images_dir"
    return SetFile(file, Places(folders, folders[0], True, advice))


def has_boxes(file: Path) -> bool:
    """Whether a file's first lines are a header that names a box, or rows with one."""
    try:
        return _shows_boxes(file)
    except (OSError, DataError):
        return False


def unread_header(file: Path) -> str:
    """Message about a header that looks like one of boxes and is not understood; else ""."""
    try:
        _shows_boxes(file)
    except (OSError, DataError) as error:
        return str(error)
    return ""


def _shows_boxes(file: Path) -> bool:
    """Whether a file's first lines are those of boxes.

    Raises:
        OSError: it cannot be read.
        DataError: it is no text, or has a header that is not understood.
    """
    with file.open("rb") as stream:
        data = stream.read(SNIFFED)
    if len(data) == SNIFFED and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        data = data.rpartition(b"\n")[0]  # a line that is cut off is none
    data = plain_text(data, file, Problems(file))
    if has_box_field(first_fields(data)):
        data = split_boxes(data, Problems(file))
    lines = data.decode().split("\n")
    rows = [split_line(line) or [] for line in lines if line.strip()]
    if not rows or is_via(rows[0]):
        return bool(rows)
    if is_header(rows[0], {}):
        return bool(read_header(rows[0], str(file)))
    return plain_layout(rows) != CLASSIC or any(map(_is_row, rows[:SNIFFED_ROWS]))


def _is_row(fields: Sequence[str]) -> bool:
    """Whether a row is path, four numbers, class."""
    if len(fields) < len(COLUMNS) or not all(fields[: len(COLUMNS)]):
        return False
    numbers = pd.to_numeric(pd.Series(fields[:5]), errors="coerce").notna().tolist()
    return all(numbers[1:]) and not numbers[0]


def _class_file(found: SetFile, path: Path) -> Path | None:
    """The file that lists the classes, beside the boxes or at the top of the folder."""
    top = path if path.is_dir() else found.places.below
    for folder in dict.fromkeys((found.path.parent, top)):
        for file in sorted(folder.iterdir()):
            name = plain_name(file.name.partition(".")[0])
            is_text = file.suffix.lower() in (".csv", ".tsv", ".txt", ".names")
            if name not in CLASS_FILES or not is_text or not file.is_file() or has_boxes(file):
                continue
            # What is called labels or names may be something else.
            if name.startswith("class") or _lists_classes(file):
                return file
    return None


def _lists_classes(file: Path) -> bool:
    try:
        return bool(read_classes(file))
    except DataError:
        return False
