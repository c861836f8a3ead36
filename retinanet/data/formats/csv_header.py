"""The header of a CSV file: its columns found by their names."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from retinanet.errors import DataError, shown

COLUMNS = ("path", "x1", "y1", "x2", "y2", "class")

# Names of columns, without letter case and signs, the likelier first.
_PATHS = (
    *("path", "filename", "filepath", "file", "image", "imagepath", "imagename", "imagefile"),
    *("img", "imgpath", "imgname", "imageid", "photo", "picture", "imgid", "imagefilename"),
    *("imageurl", "imageuri", "url", "uri", "filenames", "images", "name"),
)
CLASS_NAMES = (
    *("class", "classname", "label", "labelname", "category", "categoryname", "name", "object"),
    *("objectclass", "tag", "species", "type", "cls", "classid", "categoryid", "labelid", "labels"),
)
_ORDERS: dict[str, tuple[tuple[str, ...], ...]] = {
    "corners": (
        *(("x1", "y1", "x2", "y2"), ("xmin", "ymin", "xmax", "ymax"), ("x0", "y0", "x1", "y1")),
        *(("left", "top", "right", "bottom"), ("xtl", "ytl", "xbr", "ybr")),
        *(("minx", "miny", "maxx", "maxy"), ("bboxx1", "bboxy1", "bboxx2", "bboxy2")),
        *(("bboxxmin", "bboxymin", "bboxxmax", "bboxymax"), ("startx", "starty", "endx", "endy")),
        *(("bboxleft", "bboxtop", "bboxright", "bboxbottom"), ("xstart", "ystart", "xend", "yend")),
        *(
            ("topleftx", "toplefty", "bottomrightx", "bottomrighty"),
            ("xtopleft", "ytopleft", "xbottomright", "ybottomright"),
        ),
    ),
    "sizes": (
        *(("x", "y", "width", "height"), ("x", "y", "w", "h"), ("left", "top", "width", "height")),
        *(("colx", "rowy", "width", "height"), ("xmin", "ymin", "width", "height")),
        *(("bboxx", "bboxy", "bboxwidth", "bboxheight"), ("bboxx", "bboxy", "bboxw", "bboxh")),
        *(("bboxleft", "bboxtop", "bboxwidth", "bboxheight"), ("left", "top", "w", "h")),
        *(("xmin", "ymin", "w", "h"), ("x1", "y1", "w", "h"), ("x1", "y1", "width", "height")),
    ),
    "centres": (
        *(("xcenter", "ycenter", "width", "height"), ("xcenter", "ycenter", "w", "h")),
        *(("centerx", "centery", "width", "height"), ("cx", "cy", "w", "h")),
        *(
            ("cx", "cy", "width", "height"),
            ("xc", "yc", "w", "h"),
            ("xcentre", "ycentre", "w", "h"),
        ),
        *(("xcentre", "ycentre", "width", "height"), ("xcentre", "ycentre", "w", "h")),
    ),
}
_ABSENT = ("nan", "none", "null", "na", "n/a", "inf", "true", "false")


class Layout(NamedTuple):
    """The columns of a file."""

    fields: int
    """Number of fields in a row."""
    places: tuple[int, ...]
    """Of each of `COLUMNS`, the position of the field."""
    kind: str
    """The meaning of the four numbers: corners, sizes (x, y, width, height), or centres."""


CLASSIC = Layout(6, (0, 1, 2, 3, 4, 5), "corners")


def is_header(fields: Sequence[str], classes: Mapping[str, int]) -> bool:
    """Whether a first row names columns: words alone, or the classic order with words in it."""
    words = [field[:1].isalpha() and field.lower() not in _ABSENT for field in fields]
    if len(fields) == len(COLUMNS) and all(words[1:5]) and fields[-1] not in classes:
        return True
    known = {*_PATHS, *CLASS_NAMES, *(name for order in _names() for name in order)}
    plain = [plain_name(field) for field in fields]
    digits = any(re.fullmatch(r"[-+]?[0-9.]+", field) for field in fields)
    return len(fields) > 3 and not digits and sum(name in known for name in plain) >= 3


def read_header(fields: Sequence[str], place: str) -> Layout:
    """The columns that a header names.

    Raises:
        DataError: it does not name a path, a box and a class; with the header.
    """
    position: dict[str, int] = {}
    for k, field in enumerate(fields):
        position.setdefault(plain_name(field), k)
    label = next((position[name] for name in CLASS_NAMES if name in position), None)
    paths = [position[name] for name in _PATHS if name in position]
    path = next((place for place in paths if place != label), None)
    for kind, orders in _ORDERS.items():
        for order in orders:
            if path is not None and label is not None and all(name in position for name in order):
                box = tuple(position[name] for name in order)
                return Layout(len(fields), (path, *box, label), kind)
    lacking = ["a path"] * (path is None) + ["a class"] * (label is None) or ["a box"]
    raise DataError(
        f"{place}: the header {shown(','.join(fields))} names no column of {' or '.join(lacking)};"
        f" expected {','.join(COLUMNS)}, or x,y,width,height for the box; rename the columns"
    )


def _names() -> list[tuple[str, ...]]:
    return [order for orders in _ORDERS.values() for order in orders]


def plain_name(name: str) -> str:
    """A column's name without letter case and signs."""
    return re.sub(r"[^a-z0-9]", "", name.lower())
